//! Where tests keep their alerts: in a file, and on a real server where one is named.
//!
//! A test runs once for each of [`places`]. `TRAILWARDEN_POSTGRES_URL` names the server; without it there is only the
//! file. Every [`Home`] is empty and of its own, a schema on the server, and gone when it is dropped.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use ::postgres::{Client, NoTls};

use super::{Server, Store, StoreError};
use crate::config::{PostgresConfig, Secret};
use crate::policy::Policy;

/// The server for tests.
pub(crate) const URL: &str = "TRAILWARDEN_POSTGRES_URL";

/// Where a test runs.
#[derive(Clone)]
pub(crate) enum Place {
    /// In a file.
    File,
    /// On the server of this URL.
    Server(String),
}

/// Everywhere that a test should run. What it prints is shown where the test fails.
pub(crate) fn places() -> impl Iterator<Item = Place> {
    [Place::File]
        .into_iter()
        .chain(server())
        .inspect(|place| match place {
            Place::File => println!("in a file:"),
            Place::Server(_) => println!("on a server:"),
        })
}

/// The server, where one is named.
pub(crate) fn server() -> Option<Place> {
    std::env::var(URL).ok().map(Place::Server)
}

/// A place of a test's own.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    schema: Option<Schema>,
}

struct Schema {
    url: String,
    name: String,
}

impl Home {
    pub(crate) fn new(place: &Place) -> Home {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let schema = match place {
            Place::File => None,
            Place::Server(url) => {
                let n = COUNT.fetch_add(1, Ordering::SeqCst);
                Some(Schema {
                    url: url.clone(),
                    name: format!("test_{}_{n}", std::process::id()),
                })
            }
        };
        Home {
            dir: tempfile::tempdir().unwrap(),
            schema,
        }
    }

    /// A folder that goes with it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What another process needs to open the same store: a server and a schema, or no server and a path.
    pub(crate) fn address(&self) -> (String, String) {
        match &self.schema {
            None => (String::new(), self.file().display().to_string()),
            Some(schema) => (schema.url.clone(), schema.name.clone()),
        }
    }

    /// Opens the store; a server's may be opened many times.
    pub(crate) fn open(&self, policy: Policy) -> Result<Store, StoreError> {
        let (url, name) = self.address();
        open(&url, &name, policy)
    }

    /// The server as the test's schema sees it.
    pub(crate) fn client(&self) -> Client {
        let schema = self.schema.as_ref().expect("only on a server");
        let mut client = Client::connect(&schema.url, NoTls).unwrap();
        client
            .batch_execute(&format!("SET search_path = \"{}\"", schema.name))
            .unwrap();
        client
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("alerts.db")
    }
}

/// Opens what [`Home::address`] says.
pub(crate) fn open(url: &str, name: &str, policy: Policy) -> Result<Store, StoreError> {
    if url.is_empty() {
        return Store::open(Path::new(name), policy);
    }
    Store::connect(&Server::new(&config(url, name)).unwrap(), policy)
}

/// The configuration of a schema on a server.
pub(crate) fn config(url: &str, schema: &str) -> PostgresConfig {
    PostgresConfig {
        url: Secret::new(url),
        schema: schema.to_owned(),
        ..PostgresConfig::default()
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let dropped = Client::connect(&self.url, NoTls).and_then(|mut client| {
            client.batch_execute(&format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", self.name))
        });
        if let Err(error) = dropped {
            println!("cannot drop {}: {error}", self.name);
        }
    }
}
