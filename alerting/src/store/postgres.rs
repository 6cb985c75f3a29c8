//! The alert store in PostgreSQL, for several nodes that share it.
//!
//! [`Server`] is a checked configuration: where to connect, how it is protected, which schema. [`Postgres`]
//! keeps one connection for writes and a few for reads; what is lost is opened again by the next call. Writes
//! of all nodes are serial, as SQLite's are: each takes one advisory lock of the schema, held until its commit
//! is visible. So whoever reads a feed entry has every smaller one. A session that stops in the middle of a
//! transaction, as a frozen process does, is ended by the server after [`IDLE`], and its lock with it.
//!
//! The client blocks and must not be called on a thread that runs async tasks; where the caller is on one, the
//! work is done on a thread of its own ([`off_runtime`]). Text from logs may hold NUL, which PostgreSQL
//! refuses: it is stored as U+FFFD in the columns; the JSON beside them escapes it and keeps it.

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use ::postgres::config::{Host, SslMode};
use ::postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use ::postgres::{Client, Config, NoTls, Statement};
use event::Id;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::db::{Tx, Value};
use super::{READERS, StoreError, lock, schema};
use crate::config::{PostgresConfig, PostgresTls, Secret};
use crate::notifier::network::is_loopback;
use crate::notifier::{read, secret};
use crate::policy::ConfigError;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long sent data may stay unanswered by the other machine before the connection counts as lost.
const UNANSWERED: Duration = Duration::from_secs(15);
/// How long a transaction may do nothing, in milliseconds: less than a lease, so that a frozen process cannot keep
/// others from renewing theirs.
const IDLE: u32 = 3_000;
/// How long a statement may wait for another transaction, in milliseconds.
const LOCK: u32 = 10_000;
/// How long a statement may take, in milliseconds.
const STATEMENT: u32 = 60_000;
/// How many statements a connection keeps prepared.
const STATEMENTS: usize = 256;
/// How often the feed is looked at for what other nodes wrote.
const POLL: Duration = Duration::from_millis(200);
/// The longest name that PostgreSQL does not cut.
const MAX_SCHEMA: usize = 63;

/// Where the alerts are, checked: connections can be opened as it says.
#[derive(Clone)]
pub struct Server {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    schema: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// The server of a configuration. Reads the files that it names; a process-wide rustls provider must be installed.
    pub fn new(config: &PostgresConfig) -> Result<Server, ConfigError> {
        const KEY: &str = "alerting.postgres";
        let at = |field: &str| format!("{KEY}.{field}");
        let url = secret(&config.url, config.url_file.as_ref(), &at("url"))?;
        let scheme = ["postgres://", "postgresql://"];
        // What is wrong with it is not said: the place may be in the middle of a password.
        let mut parsed: Config = scheme
            .iter()
            .any(|s| url.expose().starts_with(s))
            .then(|| url.expose().parse().ok())
            .flatten()
            .filter(|c: &Config| !c.get_hosts().is_empty() && c.get_user().is_some())
            .ok_or_else(|| {
                ConfigError::new(
                    &at("url"),
                    "is no URL such as postgres://user@host:5432/database",
                )
            })?;
        if let Some(file) = &config.password_file {
            if parsed.get_password().is_some() {
                return Err(ConfigError::new(
                    &at("password_file"),
                    "the URL holds a password already",
                ));
            }
            let password = secret(&Secret::default(), Some(file), &at("password"))?;
            parsed.password(password.expose());
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let schema = &config.schema;
        if schema.is_empty()
            || schema.len() > MAX_SCHEMA
            || !schema.chars().all(plain)
            || schema.starts_with("pg_")
            || schema.starts_with(|c: char| c.is_ascii_digit())
        {
            let reason = "must be 1 to 63 of a-z, 0-9 and `_`, and begin neither with a digit nor with `pg_`";
            return Err(ConfigError::new(&at("schema"), reason));
        }
        let tls = match config.tls.unwrap_or(default_tls(&parsed)) {
            PostgresTls::Disable => None,
            PostgresTls::Require => Some(match &config.ca_file {
                Some(file) => trusting(&read(file, &at("ca_file"))?, &at("ca_file"))?,
                None => {
                    MakeRustlsConnect::with_native_certs()
                        .map_err(|_| {
                            let reason = "the system has no certificate authorities to check the server's certificate against: name one in ca_file";
                            ConfigError::new(&at("tls"), reason)
                        })?
                        .0
                }
            }),
        };
        parsed
            .ssl_mode(match tls {
                None => SslMode::Disable,
                Some(_) => SslMode::Require,
            })
            .application_name("trailwarden")
            .connect_timeout(CONNECT)
            .tcp_user_timeout(UNANSWERED)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        Ok(Server {
            config: parsed,
            tls,
            schema: schema.clone(),
        })
    }

    /// The advisory lock under which everything in the schema is written.
    pub(super) fn lock(&self) -> i64 {
        Id::of("alert store", &[self.schema.as_bytes()]).0 as i64
    }

    fn connect(&self) -> Result<Session, StoreError> {
        let open = || {
            let mut client = match &self.tls {
                None => self.config.connect(NoTls)?,
                Some(tls) => self.config.connect(tls.clone())?,
            };
            client.batch_execute(&format!(
                "SET search_path = \"{}\"; SET lock_timeout = {LOCK}; SET statement_timeout = {STATEMENT}; \
                 SET idle_in_transaction_session_timeout = {IDLE}; \
                 SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
                self.schema
            ))?;
            Ok(Session {
                client,
                statements: HashMap::new(),
            })
        };
        open().map_err(failed("connect to the database"))
    }
}

pub(super) fn default_tls(config: &Config) -> PostgresTls {
    let addresses = config.get_hostaddrs();
    let local = if addresses.is_empty() {
        config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => is_loopback(name),
            #[cfg(unix)]
            Host::Unix(_) => true,
        })
    } else {
        addresses.iter().all(|a| a.to_canonical().is_loopback())
    };
    if local {
        PostgresTls::Disable
    } else {
        PostgresTls::Require
    }
}

/// TLS that trusts the certificate authorities in a PEM text and no other.
fn trusting(pem: &str, key: &str) -> Result<MakeRustlsConnect, ConfigError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let added = certificate
            .map_err(|e| e.to_string())
            .and_then(|c| roots.add(c).map_err(|e| e.to_string()));
        added.map_err(|reason| ConfigError::new(key, reason))?;
    }
    if roots.is_empty() {
        return Err(ConfigError::new(key, "holds no certificate"));
    }
    Ok(MakeRustlsConnect::new(
        rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    ))
}

/// One connection with the statements prepared on it.
struct Session {
    client: Client,
    statements: HashMap<String, Statement>,
}

/// A transaction on a connection.
pub(super) struct Open<'a>(&'a mut Session);

impl Open<'_> {
    pub(super) fn query(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
    ) -> Result<Vec<::postgres::Row>, ::postgres::Error> {
        let statement = self.prepare(sql)?;
        self.0.client.query(&statement, &dynamic(params))
    }

    pub(super) fn execute(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
    ) -> Result<usize, ::postgres::Error> {
        let statement = self.prepare(sql)?;
        let changed = self.0.client.execute(&statement, &dynamic(params))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(super) fn batch(&mut self, sql: &str) -> Result<(), ::postgres::Error> {
        self.0.client.batch_execute(sql)
    }

    fn prepare(&mut self, sql: &str) -> Result<Statement, ::postgres::Error> {
        let Session { client, statements } = &mut *self.0;
        if let Some(known) = statements.get(sql) {
            return Ok(known.clone());
        }
        // The store numbers its parameters as SQLite does and has no other question marks.
        let statement = client.prepare(&sql.replace('?', "$"))?;
        if statements.len() >= STATEMENTS {
            statements.clear();
        }
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn dynamic<'a>(params: &'a [Value<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    params.iter().map(|v| v as &(dyn ToSql + Sync)).collect()
}

/// A shared database with this node's connections.
pub(super) struct Postgres {
    server: Server,
    writer: Mutex<Option<Session>>,
    readers: Mutex<Vec<Session>>,
    /// Its end tells the poller to stop.
    _poller: SyncSender<()>,
    /// A number that the database has given to no other store: whose lease it is.
    pub(super) session: i64,
}

impl Postgres {
    /// Opens or makes the store in a schema, with the newest tables; `changed` is moved when the feed grows.
    pub(super) fn connect(
        server: &Server,
        changed: &watch::Sender<u64>,
    ) -> Result<Postgres, StoreError> {
        let (ending, ended) = sync_channel(1);
        let mut postgres = Postgres {
            server: server.clone(),
            writer: Mutex::new(None),
            readers: Mutex::new(Vec::new()),
            _poller: ending,
            session: 0,
        };
        postgres.write("migrate the tables", |tx| {
            schema::migrate_postgres(tx, &server.schema)
        })?;
        let session = postgres.write("take a number", |tx| {
            tx.all("SELECT nextval('sessions')", &[], |r| r.get::<i64>(0))
        })?;
        postgres.session = session.0.first().copied().unwrap_or_default();
        let (server, changed) = (server.clone(), changed.clone());
        std::thread::Builder::new()
            .name("alert-feed".into())
            .spawn(move || poll(&server, &changed, &ended))
            .map_err(StoreError::Thread)?;
        Ok(postgres)
    }

    /// See [`super::db::Db::write`].
    pub(super) fn write<T: Send>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<(T, u64), StoreError> {
        // Each statement sees what was committed before it: the first one after the lock sees every earlier write.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({})",
            self.server.lock()
        );
        off_runtime(|| {
            let mut writer = lock(&self.writer);
            let mut session = self.begin(writer.take(), &begin, action)?;
            let (done, kept) = finish(&mut session, action, work);
            *writer = kept.then_some(session);
            done
        })
    }

    /// See [`super::db::Db::read`].
    pub(super) fn read<T: Send>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        off_runtime(|| {
            let kept = lock(&self.readers).pop();
            let mut session = self.begin(kept, BEGIN, action)?;
            let (done, kept) = finish(&mut session, action, work);
            let mut readers = lock(&self.readers);
            if kept && readers.len() < READERS {
                readers.push(session);
            }
            done.map(|(found, _)| found)
        })
    }

    /// Begins a transaction on a kept connection, or on a new one where that is lost: nothing has been done yet.
    fn begin(
        &self,
        kept: Option<Session>,
        sql: &str,
        action: &'static str,
    ) -> Result<Session, StoreError> {
        if let Some(mut session) = kept.filter(|s| !s.client.is_closed()) {
            match session.client.batch_execute(sql).map_err(failed(action)) {
                Ok(()) => return Ok(session),
                Err(error) if !error.is_transient() => return Err(error),
                Err(_) => {}
            }
        }
        let mut session = self.server.connect()?;
        session.client.batch_execute(sql).map_err(failed(action))?;
        Ok(session)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let sessions = (
            lock(&self.writer).take(),
            std::mem::take(&mut *lock(&self.readers)),
        );
        // Closing talks to the server, so it is not for every thread. Nothing is lost where it fails.
        let _ = off_runtime(move || {
            drop(sessions);
            Ok(())
        });
    }
}

/// Does the work of a transaction that has begun and ends it. Gives the result, with the last feed entry, and whether
/// the connection is still good. If the work panics the connection is dropped, and the transaction with it.
fn finish<T>(
    session: &mut Session,
    action: &'static str,
    work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
) -> (Result<(T, u64), StoreError>, bool) {
    let done = {
        let tx = Tx::from(Open(session));
        work(&tx).map(|done| (done, tx.last_feed()))
    };
    let client = &mut session.client;
    match done {
        Ok(done) => match client.batch_execute("COMMIT") {
            Ok(()) => (Ok(done), true),
            Err(error) => (Err(failed(action)(error)), false),
        },
        Err(error) => {
            let kept = client.batch_execute("ROLLBACK").is_ok();
            (Err(error), kept)
        }
    }
}

/// Moves `changed` when another node has written to the feed, until the store is gone.
fn poll(server: &Server, changed: &watch::Sender<u64>, ended: &Receiver<()>) {
    const NEWEST: &str = "SELECT COALESCE(MAX(id), 0) FROM feed";
    let mut session: Option<Session> = None;
    let mut lost = false;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(POLL) {
        let newest = match session.take() {
            Some(session) => Ok(session),
            None => server.connect(),
        }
        .and_then(|mut open| {
            let found = Open(&mut open)
                .query(NEWEST, &[])
                .map_err(failed("look at the feed"))?;
            session = Some(open);
            Ok(found.first().map_or(0, |row| row.get::<_, i64>(0)))
        });
        match newest {
            Ok(id) => {
                lost = false;
                super::moved(changed, id as u64);
            }
            Err(error) if !lost => {
                lost = true;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot see what other nodes change, trying again"
                );
            }
            Err(_) => {}
        }
    }
}

/// Does what blocks where that is allowed: here, or on a thread of its own where this one may be running async tasks.
fn off_runtime<T: Send>(
    work: impl FnOnce() -> Result<T, StoreError> + Send,
) -> Result<T, StoreError> {
    if tokio::runtime::Handle::try_current().is_err() {
        return work();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("alert-store".into())
            .spawn_scoped(scope, work)
            .map_err(StoreError::Thread)?;
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Names what was attempted when PostgreSQL fails.
pub(super) fn failed(action: &'static str) -> impl Fn(::postgres::Error) -> StoreError {
    move |source| StoreError::Postgres { action, source }
}

/// May the same be tried again with another result: was the connection lost, another transaction in the way, or the
/// server not ready?
pub(super) fn is_transient(error: &::postgres::Error) -> bool {
    const CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];
    // A lock that was not to be had, a transaction that stood still for too long, a server that is only read.
    const CODES: [&str; 3] = ["55P03", "25P03", "25006"];
    match error.code() {
        Some(code) => {
            let code = code.code();
            CLASSES.iter().any(|class| code.starts_with(class)) || CODES.contains(&code)
        }
        None => {
            error.is_closed()
                || error
                    .source()
                    .is_some_and(|cause| cause.is::<std::io::Error>())
        }
    }
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(number) => number.to_sql(ty, out),
            Value::Text(text) if text.contains('\0') => {
                text.replace('\0', "\u{fffd}").to_sql(ty, out)
            }
            Value::Text(text) => text.to_sql(ty, out),
            Value::Id(bytes) => bytes.as_slice().to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        <i64 as ToSql>::accepts(ty) || <&str as ToSql>::accepts(ty) || <&[u8] as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

/// A number or a truth in a column.
pub(super) struct Number(pub(super) i64);

impl<'a> FromSql<'a> for Number {
    fn from_sql(
        ty: &Type,
        raw: &'a [u8],
    ) -> Result<Number, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Number(match *ty {
            Type::BOOL => bool::from_sql(ty, raw)?.into(),
            Type::INT4 => i32::from_sql(ty, raw)?.into(),
            _ => i64::from_sql(ty, raw)?,
        }))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::BOOL | Type::INT4 | Type::INT8)
    }
}

/// The bytes of an id in a column.
pub(super) struct Bytes(pub(super) [u8; 16]);

impl<'a> FromSql<'a> for Bytes {
    fn from_sql(
        ty: &Type,
        raw: &'a [u8],
    ) -> Result<Bytes, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Bytes(<&[u8]>::from_sql(ty, raw)?.try_into()?))
    }

    fn accepts(ty: &Type) -> bool {
        <&[u8] as FromSql>::accepts(ty)
    }
}
