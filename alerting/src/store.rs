//! The alert store: one SQLite file with alerts, incidents, silences, the outbox and the findings position.
//!
//! The [`Store`] is where decisions become durable. [`Store::apply`] folds a batch of findings, joins
//! incidents, decides who is told, fills the outbox and moves the position of the findings topic, all in
//! one transaction: whatever kills the process, findings are applied once or will be again, and applying
//! them again changes nothing, since findings are known by id and revision. What people do is one
//! transaction too, each guarded by the version they saw. There is one writer behind a mutex and a few
//! read connections; WAL lets readers go on meanwhile, and `synchronous=FULL` makes a commit durable.
//!
//! The parts: `schema` is the tables, `rows` moves types in and out of them, `apply` takes findings in,
//! `tell` fills the outbox, `people` is what the console does, `lists` what it reads, `deliver` what the
//! sending threads do. The store decides nothing by itself: it asks [`crate::fold`], [`crate::incident`],
//! [`crate::route`], [`crate::silence`] and [`crate::dedup`].

mod apply;
mod deliver;
mod lists;
mod people;
mod rows;
mod schema;
mod tell;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bus::Offset;
use event::{Id, Severity, Time};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use deliver::Leased;
pub(crate) use deliver::Subject;

use crate::alert::State;
use crate::dedup::NotifyReason;
use crate::policy::Policy;
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
    /// What is stored cannot be read.
    #[error("a stored {what} cannot be read")]
    Damaged {
        /// What it should have been.
        what: &'static str,
        /// Why it is not.
        #[source]
        source: serde_json::Error,
    },
    /// The file was written by a newer program.
    #[error(
        "the alert store has schema {found}, this program knows up to {known}: start the newer program again"
    )]
    Newer {
        /// The schema of the file.
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
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    policy: RwLock<Arc<Policy>>,
    changed: watch::Sender<u64>,
}

impl Store {
    /// Opens or makes the store in the file `path`.
    pub fn open(path: &Path, policy: Policy) -> Result<Store, StoreError> {
        let mut writer = connect(path)?;
        schema::migrate(&mut writer)?;
        let last: i64 = writer
            .query_row("SELECT COALESCE(MAX(id), 0) FROM feed", [], |r| r.get(0))
            .map_err(failed("read the feed"))?;
        let store = Store {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
            policy: RwLock::new(Arc::new(policy)),
            changed: watch::Sender::new(last as u64),
        };
        // The policy may differ from the one that decided last time.
        store.write("begin", tell::check_all)?;
        Ok(store)
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Decides by another policy from now on.
    pub fn set_policy(&self, policy: Policy) -> Result<(), StoreError> {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        self.write("change the policy", tell::check_all)
    }

    /// The id of the last feed entry, and a signal when there is a newer one.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Runs `work` in one transaction of the writer, durable when this returns, and signals what the feed got.
    fn write<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = lock(&self.writer);
        let tx = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed(action))?;
        let done = work(&tx)?;
        let last: i64 = tx
            .query_row("SELECT COALESCE(MAX(id), 0) FROM feed", [], |r| r.get(0))
            .map_err(failed(action))?;
        tx.commit().map_err(failed(action))?;
        self.changed.send_if_modified(|id| {
            let newer = last as u64 > *id;
            *id = (*id).max(last as u64);
            newer
        });
        Ok(done)
    }

    /// Runs `work` on a read connection, in one transaction so that all it reads is of one moment.
    fn read<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let kept = lock(&self.readers).pop();
        let mut reader = match kept {
            Some(reader) => reader,
            None => connect(&self.path)?,
        };
        let found = {
            let tx = reader.transaction().map_err(failed(action))?;
            work(&tx)
        };
        let mut readers = lock(&self.readers);
        if readers.len() < READERS {
            readers.push(reader);
        }
        found
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in the middle of a transaction has rolled it back: the connection is as good as before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.set_prepared_statement_cache_capacity(128);
        Ok(connection)
    };
    open().map_err(failed("open"))
}

/// Names what was attempted when SQLite fails.
fn failed(action: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError::Sqlite { action, source }
}
