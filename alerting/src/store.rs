//! The alert store: one SQLite file with alerts, incidents, silences, the outbox and the findings position.

use std::path::Path;
use std::sync::Arc;

use bus::Offset;
use event::{Finding, Id, Severity, Time};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::alert::{Alert, FeedEntry, HistoryEntry, Incident, State};
use crate::dedup::NotifyReason;
use crate::policy::Policy;
use crate::silence::{NewSilence, Silence, SilenceError};

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

/// The store. Every method takes effect as a whole or not at all, and durably.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Opens or makes the store in the file `path`.
    pub fn open(path: &Path, policy: Policy) -> Result<Store, StoreError> {
        let _ = (path, policy);
        todo!()
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        todo!()
    }

    /// Decides by another policy from now on.
    pub fn set_policy(&self, policy: Policy) {
        let _ = policy;
    }

    /// The next offset of the findings topic to apply; `None` before the first batch.
    pub fn position(&self, partition: u32) -> Result<Option<Offset>, StoreError> {
        let _ = partition;
        todo!()
    }

    /// Folds findings of one partition, read from `from` up to `next`, into alerts, incidents and the outbox.
    pub fn apply(
        &self,
        findings: &[(Offset, Finding)],
        partition: u32,
        from: Offset,
        next: Offset,
        now: Time,
    ) -> Result<Applied, StoreError> {
        let _ = (findings, partition, from, next, now);
        todo!()
    }

    /// What time alone does: quiet alerts are resolved, reminders become due, silences end.
    pub fn tick(&self, now: Time) -> Result<Applied, StoreError> {
        let _ = now;
        todo!()
    }

    /// Alerts, newest first; comments included.
    pub fn alerts(&self, filter: &Filter) -> Result<Vec<Alert>, StoreError> {
        let _ = filter;
        todo!()
    }

    /// How many alerts are open.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        todo!()
    }

    /// One alert.
    pub fn alert(&self, id: Id) -> Result<Option<Alert>, StoreError> {
        let _ = id;
        todo!()
    }

    /// What happened to an alert, oldest first.
    pub fn history(&self, id: Id) -> Result<Vec<HistoryEntry>, StoreError> {
        let _ = id;
        todo!()
    }

    /// Somebody takes an alert: it fires no more reminders. `version` is the one that was seen; `None` for any.
    pub fn acknowledge(
        &self,
        id: Id,
        who: &str,
        version: Option<u64>,
        now: Time,
    ) -> Result<Alert, StoreError> {
        let _ = (id, who, version, now);
        todo!()
    }

    /// Gives an alert to somebody; an empty assignee to nobody.
    pub fn assign(
        &self,
        id: Id,
        who: &str,
        assignee: &str,
        version: Option<u64>,
        now: Time,
    ) -> Result<Alert, StoreError> {
        let _ = (id, who, assignee, version, now);
        todo!()
    }

    /// Writes a comment; `version` as for [`Store::acknowledge`].
    pub fn comment(
        &self,
        id: Id,
        who: &str,
        text: &str,
        version: Option<u64>,
        now: Time,
    ) -> Result<Alert, StoreError> {
        let _ = (id, who, text, version, now);
        todo!()
    }

    /// Resolves an alert, with a reason if there is one.
    pub fn resolve(
        &self,
        id: Id,
        who: &str,
        reason: &str,
        version: Option<u64>,
        now: Time,
    ) -> Result<Alert, StoreError> {
        let _ = (id, who, reason, version, now);
        todo!()
    }

    /// Incidents, newest first: with a smaller `seq` than `before`, at most `limit` (0 for 100, never more than 1000).
    pub fn incidents(
        &self,
        open_only: bool,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Incident>, StoreError> {
        let _ = (open_only, before, limit);
        todo!()
    }

    /// One incident.
    pub fn incident(&self, id: Id) -> Result<Option<Incident>, StoreError> {
        let _ = id;
        todo!()
    }

    /// Silences, latest end first; with `ended_too` also those that are over.
    pub fn silences(&self, ended_too: bool, now: Time) -> Result<Vec<Silence>, StoreError> {
        let _ = (ended_too, now);
        todo!()
    }

    /// Makes a silence.
    pub fn add_silence(
        &self,
        new: &NewSilence,
        author: &str,
        now: Time,
    ) -> Result<Silence, StoreError> {
        let _ = (new, author, now);
        todo!()
    }

    /// Ends a silence now.
    pub fn expire_silence(&self, id: u64, who: &str, now: Time) -> Result<Silence, StoreError> {
        let _ = (id, who, now);
        todo!()
    }

    /// Notifications, newest first.
    pub fn notifications(
        &self,
        filter: &NotificationFilter,
    ) -> Result<Vec<Notification>, StoreError> {
        let _ = filter;
        todo!()
    }

    /// Sends a dead notification again, with a fresh day of attempts.
    pub fn resend(&self, id: u64, who: &str, now: Time) -> Result<Notification, StoreError> {
        let _ = (id, who, now);
        todo!()
    }

    /// What changed after feed entry `after`, oldest first, at most 1000.
    pub fn feed(&self, after: u64) -> Result<Vec<FeedEntry>, StoreError> {
        let _ = after;
        todo!()
    }

    /// The id of the last feed entry, and a signal when there is a newer one.
    pub fn changed(&self) -> watch::Receiver<u64> {
        todo!()
    }

    /// Drops what is older than the retention.
    pub fn retain(&self, now: Time) -> Result<u64, StoreError> {
        let _ = now;
        todo!()
    }
}
