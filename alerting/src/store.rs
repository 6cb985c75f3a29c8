//! The alert store: alerts, incidents, silences, the outbox and the findings position, in one database.
//!
//! The [`Store`] is where decisions become durable. [`Store::apply`] folds a batch of findings, joins
//! incidents, decides who is told, fills the outbox and moves the position of the findings topic, all in
//! one transaction: whatever kills the process, findings are applied once or will be again, and applying
//! them again changes nothing, since findings are known by id and revision. What people do is one
//! transaction too, each guarded by the version they saw. The database is an SQLite file ([`Store::open`]) or
//! a PostgreSQL server that several nodes share ([`Store::connect`]); either way writes are serial, a commit
//! is durable, and readers go on meanwhile.
//!
//! The parts: `db` is the face of both databases, `sqlite` and `postgres` are behind it, `schema` is the
//! tables, `rows` moves types in and out of them, `leader` says which of several nodes works, `sources`
//! keeps what is known of sources, `apply` takes findings in, `tell` fills the outbox, `people` is what the console does, `lists` what it reads, `deliver`
//! what the sending threads do, `saved` the searches that people keep. The store decides nothing by itself: it asks [`crate::fold`],
//! [`crate::incident`], [`crate::route`], [`crate::silence`] and [`crate::dedup`].

mod apply;
mod db;
mod deliver;
mod leader;
mod lists;
mod people;
mod postgres;
mod rows;
mod saved;
mod schema;
mod sources;
mod sqlite;
mod tell;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bus::Offset;
use event::{Id, Severity, Time};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use deliver::Leased;
pub(crate) use deliver::Subject;
pub use leader::LEASE;
pub(crate) use leader::Turn;
pub use postgres::Server;
pub use sources::SeenFunction;

use db::{Db, Tx};
use leader::Fence;
use postgres::Postgres;
use sqlite::Sqlite;

use crate::alert::State;
use crate::config::Config;
use crate::dedup::NotifyReason;
use crate::policy::{ConfigError, Policy};
use crate::saved::SavedError;
use crate::silence::SilenceError;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed.
    #[error("cannot {action} in the alert store")]
    Sqlite {
        /// What was attempted.
        action: &'static str,
        /// SQLite's answer.
        #[source]
        source: rusqlite::Error,
    },
    /// PostgreSQL failed, or the way to it.
    #[error("cannot {action} in the alert store")]
    Postgres {
        /// What was attempted.
        action: &'static str,
        /// What the server or the connection answered.
        #[source]
        source: ::postgres::Error,
    },
    /// The database does not keep text as UTF-8.
    #[error("the alert store's database has the encoding {0}: it must be UTF8")]
    Encoding(String),
    /// The configuration of the database cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No thread could be had.
    #[error("cannot start a thread for the alert store")]
    Thread(#[source] std::io::Error),
    /// Another node has the lease: nothing was changed.
    #[error("another node leads the {0}")]
    NotLeading(&'static str),
    /// What is stored cannot be read.
    #[error("a stored {what} cannot be read")]
    Damaged {
        /// What it should have been.
        what: &'static str,
        /// Why it is not.
        #[source]
        source: serde_json::Error,
    },
    /// The tables were made by a newer program.
    #[error(
        "the alert store has schema {found}, this program knows up to {known}: start the newer program again"
    )]
    Newer {
        /// Their schema.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// Somebody else has applied findings of this partition meanwhile.
    #[error("findings of partition {partition} were applied up to {stored}, not {given}")]
    Fenced {
        /// Which partition.
        partition: u32,
        /// What the store says.
        stored: Offset,
        /// What the caller thought.
        given: Offset,
    },
    /// There is no such thing.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The alert has been changed since it was looked at.
    #[error("the alert has version {found}, not {given}: look at it again")]
    Conflict {
        /// What it has.
        found: u64,
        /// What the caller saw.
        given: u64,
    },
    /// The alert is not in a state for that.
    #[error("{0}")]
    Refused(&'static str),
    /// The silence may not be made.
    #[error(transparent)]
    Silence(#[from] SilenceError),
    /// The search may not be kept.
    #[error(transparent)]
    Saved(#[from] SavedError),
}

impl StoreError {
    /// Is it worth trying the same again? The connection was lost, another transaction was in the way, or the server is
    /// not ready. Whether a change was made is not known: look before repeating it.
    pub fn is_transient(&self) -> bool {
        match self {
            StoreError::Postgres { source, .. } => postgres::is_transient(source),
            _ => false,
        }
    }
}

/// Which alerts to list, newest first. The default lists all that are not merged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Only in one of these states; empty for all.
    pub states: Vec<State>,
    /// Only this severe or worse.
    pub min_severity: Option<Severity>,
    /// Only of this rule.
    pub rule_id: Option<String>,
    /// Only in this account.
    pub account: Option<String>,
    /// Only of this incident.
    pub incident: Option<Id>,
    /// Only with events that reach into this time: from the first to the second, both included.
    pub within: Option<(Time, Time)>,
    /// Only with this text, whatever the case, in title, rule, actor, identity, account, region, group or address.
    pub text: String,
    /// With those that became part of another alert?
    pub merged: bool,
    /// Only alerts with a smaller `seq`: the cursor.
    pub before: Option<u64>,
    /// At most this many; 0 for 100; never more than 1000.
    pub limit: usize,
}

/// How many alerts are open, by severity, least first, and how many of them nobody has acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Open alerts by severity as in [`Severity::ALL`].
    pub open: [u64; 5],
    /// Of them firing, that is not acknowledged.
    pub firing: u64,
}

/// Where a notification stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// Waiting for its time.
    Pending,
    /// Being sent.
    Leased,
    /// The receiver has it.
    Sent,
    /// The receiver may have it: the answer was lost. It is sent again under the same key.
    Ambiguous,
    /// Given up; it can be sent again by hand.
    Dead,
}

/// One notification of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notification {
    /// Ascending.
    pub id: u64,
    /// Which incident it tells of.
    pub incident: Id,
    /// The alert that gave the reason.
    pub alert: Id,
    /// To whom.
    pub receiver: String,
    /// Counts the notifications of this incident to this receiver, from 0.
    pub number: u64,
    /// Why.
    pub reason: NotifyReason,
    /// The severity told.
    pub severity: Severity,
    /// Where it stands.
    pub delivery: Delivery,
    /// How often it was tried.
    pub attempts: u32,
    /// How often of them the answer was lost.
    pub ambiguous: u32,
    /// When it was put into the outbox.
    pub created: Time,
    /// When it is tried next.
    pub next_at: Time,
    /// When the receiver took it.
    pub sent: Option<Time>,
    /// What the last attempt met; empty for nothing.
    pub error: String,
    /// The receiver that it was for, where this is the fallback.
    pub instead_of: Option<String>,
}

impl Notification {
    /// The same on every attempt: the receiver can drop what it already has.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}-{}", self.alert, self.reason.as_str(), self.number)
    }
}

/// Which notifications to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotificationFilter {
    /// Only those that stand so; empty for all.
    pub deliveries: Vec<Delivery>,
    /// Only of the incident of this alert.
    pub alert: Option<Id>,
    /// Only with a smaller id: the cursor.
    pub before: Option<u64>,
    /// At most this many; 0 for 100; never more than 1000.
    pub limit: usize,
}

/// What a batch of findings did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Alerts opened, by severity as in [`Severity::ALL`].
    pub opened: [u64; 5],
    /// Findings that changed an alert.
    pub changed: u64,
    /// Findings that were known already.
    pub repeated: u64,
    /// Notifications put into the outbox.
    pub enqueued: u64,
    /// Alerts resolved after their quiet time.
    pub resolved: u64,
}

/// How many read connections are kept open.
const READERS: usize = 4;

/// The store. Every method takes effect as a whole or not at all, and durably.
pub struct Store {
    inner: Arc<Shared>,
    /// What every write through this handle requires.
    fence: Option<Fence>,
}

/// What the handles of a store have in common.
struct Shared {
    db: Db,
    policy: RwLock<Arc<Policy>>,
    changed: watch::Sender<u64>,
}

impl Store {
    /// Opens or makes the store that a configuration says: on the server that it names, or else in the file `path`.
    pub fn configured(config: &Config, path: &Path, policy: Policy) -> Result<Store, StoreError> {
        match &config.postgres {
            None => Store::open(path, policy),
            Some(postgres) => Store::connect(&Server::new(postgres)?, policy),
        }
    }

    /// Opens or makes the store in the file `path`.
    pub fn open(path: &Path, policy: Policy) -> Result<Store, StoreError> {
        let db = Db::Sqlite(Sqlite::open(path)?);
        Store::over(db, watch::Sender::new(0), policy)
    }

    /// Opens or makes the store on a server that other nodes may use at the same time.
    pub fn connect(server: &Server, policy: Policy) -> Result<Store, StoreError> {
        let changed = watch::Sender::new(0);
        let db = Db::Postgres(Box::new(Postgres::connect(server, &changed)?));
        Store::over(db, changed, policy)
    }

    fn over(db: Db, changed: watch::Sender<u64>, policy: Policy) -> Result<Store, StoreError> {
        let newest = db.read("read the feed", |tx| {
            let sql = "SELECT COALESCE(MAX(id), 0) FROM feed";
            rows::all(tx, sql, &[], |r| r.get::<i64>(0))
        })?;
        moved(&changed, newest.first().map_or(0, |id| *id as u64));
        let store = Store {
            inner: Arc::new(Shared {
                db,
                policy: RwLock::new(Arc::new(policy)),
                changed,
            }),
            fence: None,
        };
        // The policy may differ from the one that decided last time.
        store.write("begin", tell::check_all)?;
        Ok(store)
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.inner
            .policy
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Decides by another policy from now on.
    pub fn set_policy(&self, policy: Policy) -> Result<(), StoreError> {
        *self
            .inner
            .policy
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        self.write("change the policy", tell::check_all)
    }

    /// The id of the last feed entry, and a signal when there is a newer one, whichever node wrote it. Ids are in the
    /// order of commits: whoever has seen one will find no smaller one later.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Runs `work` alone in one transaction, durable when this returns, and signals what the feed got.
    fn write<T: Send>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        self.inner.write(action, self.fence.as_ref(), work)
    }

    /// Runs `work` in one transaction that changes nothing, so that all it reads is of one moment.
    fn read<T: Send>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        self.inner.db.read(action, work)
    }
}

impl Shared {
    fn write<T: Send>(
        &self,
        action: &'static str,
        fence: Option<&Fence>,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        let (done, last) = self.db.write(action, fence, work)?;
        moved(&self.changed, last);
        Ok(done)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("shared", &self.is_shared())
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}

/// Signals that the feed has an entry, unless that is known.
fn moved(changed: &watch::Sender<u64>, to: u64) {
    changed.send_if_modified(|id| {
        let newer = to > *id;
        *id = (*id).max(to);
        newer
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in the middle of a transaction has rolled it back: the connection is as good as before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names what was attempted when SQLite fails.
fn failed(action: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError::Sqlite { action, source }
}
