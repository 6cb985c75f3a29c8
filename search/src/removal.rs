//! What leaves the index, why, and the record of it.
//!
//! [`due`] decides, from what is known of the splits alone, which ones go: those whose last event was taken in longer ago
//! than their class is searchable, then, if the index is larger than it may be, the oldest of the rest. Whole splits go
//! and nothing else, and never one that a hold covers. A removal is one commit of the consumer `index`: the split's key
//! goes and a [`Removal`] comes under `removed/` + number. [`announce`] makes an event of the audit trail of each, appends
//! it to the log and forgets the key. Killed in between it appends the same event again, which is a repeat: the record is
//! there exactly once, also when the disk is full for a while. The evidence log says it too, before the commit.

use bus::ledger::Why;
use bus::{Commit, Record, StateChange, Topic};
use bytes::Bytes;
use event::{AuditEvent, Outcome, Time};
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::evidence::seal::Change;
use crate::hold::{CUT, Cut};
use crate::indexer::{CONSUMER, IndexError, Shelf};
use crate::split::Meta;

const DAY: i64 = 86_400_000_000;
/// What begins the keys of records that are not on the log yet.
const PREFIX: &str = "removed/";

/// Why a split leaves the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its events are older than they are searchable.
    Age,
    /// The index was larger than `search.max_mib`.
    Size,
    /// Somebody removed it.
    Hand,
    /// It is built anew from the log.
    Rebuild,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 4] = [Cause::Age, Cause::Size, Cause::Hand, Cause::Rebuild];

    /// The word in metrics and in the audit trail.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Age => "age",
            Cause::Size => "size",
            Cause::Hand => "hand",
            Cause::Rebuild => "rebuild",
        }
    }

    fn why(self) -> Why {
        match self {
            Cause::Age => Why::Retention,
            Cause::Size => Why::Size,
            Cause::Hand => Why::Removed,
            Cause::Rebuild => Why::Rebuild,
        }
    }
}

/// The record of a split that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removal {
    /// When.
    pub(crate) time: Time,
    /// The index node.
    pub(crate) node: u32,
    /// Why.
    pub(crate) cause: Cause,
    /// The reason that a person gave; else empty.
    pub(crate) reason: String,
    /// Who; the program's name where nobody asked for it.
    pub(crate) by: String,
    /// For how many days its events were searchable.
    pub(crate) days: u32,
    /// The split.
    pub(crate) split: Meta,
}

impl Removal {
    fn record(&self) -> Record {
        let split = &self.split;
        let mut event = AuditEvent {
            time: self.time,
            action: "RemoveSplit",
            actor: self.by.clone(),
            actor_type: match self.cause {
                Cause::Age | Cause::Size => "service",
                Cause::Hand | Cause::Rebuild => "shell",
            },
            src_ip: String::new(),
            user_agent: String::new(),
            outcome: Outcome::Success,
            resource: format!("index/{}/split/{}", self.node, split.number),
            details: serde_json::json!({
                "cause": self.cause,
                "reason": self.reason,
                "node": self.node,
                "split": split.number,
                "events": split.events,
                "bytes": split.bytes,
                "earliest": split.earliest,
                "latest": split.latest,
                "first_ingested": split.first_ingested,
                "last_ingested": split.last_ingested,
                "search_days": self.days,
            }),
            request_id: String::new(),
        }
        .to_event();
        event.origin.object = "trailwarden:index".into();
        Record {
            key: Bytes::from(event.partition_key().into_string()),
            value: Bytes::from(event.encode()),
            time: self.time,
        }
    }
}

/// For how many days events of a class are searchable.
pub(crate) fn days(config: &Config, class: u32) -> u32 {
    match class {
        0 => config.retention_days,
        days => days,
    }
}

/// What was taken in before this is older than its class is searchable.
pub(crate) fn oldest(config: &Config, class: u32, now: Time) -> Time {
    now.plus(-(i64::from(days(config, class)) * DAY))
}

/// What there is to remove.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Older than they are searchable.
    pub(crate) age: Vec<Meta>,
    /// The oldest of the rest, as many as the index is too large.
    pub(crate) size: Vec<Meta>,
    /// How many would go, if holds did not keep them.
    pub(crate) held: u64,
    /// By how many bytes the index is too large when these are gone.
    pub(crate) over: u64,
}

/// The splits that go now. `held` tells whether a hold keeps a split; it is asked only of those that would go.
pub(crate) fn due(
    metas: &[Meta],
    config: &Config,
    now: Time,
    held: &mut dyn FnMut(&Meta) -> bool,
) -> Due {
    let mut due = Due::default();
    let mut rest: Vec<&Meta> = Vec::with_capacity(metas.len());
    for meta in metas {
        if meta.last_ingested >= oldest(config, meta.days, now) {
            rest.push(meta);
        } else if held(meta) {
            due.held += 1;
            rest.push(meta);
        } else {
            due.age.push(meta.clone());
        }
    }
    let Some(most) = config.max_bytes() else {
        return due;
    };
    let mut bytes: u64 = rest.iter().map(|m| m.bytes).sum();
    rest.sort_by_key(|m| (m.last_ingested, m.number));
    for meta in rest {
        if bytes <= most {
            break;
        }
        let expired = meta.last_ingested < oldest(config, meta.days, now);
        if expired || held(meta) {
            due.held += u64::from(!expired);
            continue;
        }
        bytes -= meta.bytes;
        due.size.push(meta.clone());
    }
    due.over = bytes.saturating_sub(most);
    due
}

/// Removes what is due.
pub(crate) fn expire(shelf: &Shelf) -> Result<(), IndexError> {
    let now = (shelf.clock)();
    let metas = shelf.metas();
    let due = shelf.holds.during(&shelf.searcher, |holder| {
        let due = due(&metas, &shelf.config, now, &mut |m| holder(m).is_some());
        remove(shelf, &due.age, Cause::Age, ("", "trailwarden"))?;
        remove(shelf, &due.size, Cause::Size, ("", "trailwarden"))?;
        Ok::<Due, IndexError>(due)
    })?;
    if let Some(until) = due.size.iter().map(|m| m.last_ingested).max() {
        shelf.holds.set_cut(Cut { until, time: now });
        tracing::warn!(
            splits = due.size.len(),
            events = due.size.iter().map(|m| m.events).sum::<u64>(),
            %until,
            "the index was larger than search.max_mib: the oldest events are not searchable any more"
        );
    }
    let holds = shelf.holds.count();
    shelf
        .metrics
        .holds
        .set(i64::try_from(holds).unwrap_or(i64::MAX));
    shelf
        .metrics
        .held
        .set(i64::try_from(due.held).unwrap_or(i64::MAX));
    shelf
        .metrics
        .over
        .set(i64::try_from(due.over).unwrap_or(i64::MAX));
    announce(shelf)
}

/// Takes splits out of the index, in one commit with their records. `said`: the reason, and who.
pub(crate) fn remove(
    shelf: &Shelf,
    splits: &[Meta],
    cause: Cause,
    said: (&str, &str),
) -> Result<(), IndexError> {
    if splits.is_empty() {
        return Ok(());
    }
    let (reason, by) = said;
    let now = (shelf.clock)();
    let mut commit = Commit::default();
    for split in splits {
        let removal = Removal {
            time: now,
            node: shelf.config.node,
            cause,
            reason: reason.to_owned(),
            by: by.to_owned(),
            days: days(&shelf.config, split.days),
            split: split.clone(),
        };
        commit.state.push(StateChange {
            partition: 0,
            key: format!("{PREFIX}{:016x}", split.number).into_bytes(),
            value: Some(serde_json::to_vec(&removal).expect("numbers and texts are JSON")),
            expires: None,
        });
    }
    if cause == Cause::Size {
        let until = splits.iter().map(|m| m.last_ingested).max();
        let until = until.unwrap_or(now);
        let cut = Cut { until, time: now };
        commit.state.push(StateChange {
            partition: 0,
            key: CUT.to_vec(),
            value: Some(serde_json::to_vec(&cut).expect("times are JSON")),
            expires: None,
        });
    }
    let written = match reason {
        "" => String::new(),
        reason => format!("{reason} ({by})"),
    };
    let change = Change {
        why: cause.why(),
        added: &[],
        removed: splits,
        reason: &written,
    };
    shelf.publish(&change, commit)?;
    let metrics = &shelf.metrics;
    for split in splits {
        tracing::info!(
            split = split.number, events = split.events, earliest = %split.earliest, latest = %split.latest,
            cause = cause.as_str(), "split removed"
        );
        metrics
            .removed
            .with_label_values(&[cause.as_str()])
            .inc_by(split.events);
    }
    Ok(())
}

/// Puts the records of removals on the log that are not there yet.
pub(crate) fn announce(shelf: &Shelf) -> Result<(), IndexError> {
    // Few, and asked for often: the state is only read where something was removed since.
    if !shelf.unsaid() {
        return Ok(());
    }
    let found = shelf.bus.state_scan(CONSUMER, 0, PREFIX.as_bytes())?;
    let (mut records, mut state) = (Vec::new(), Vec::new());
    for (key, value) in found {
        let removal: Removal = serde_json::from_slice(&value)
            .map_err(|_| IndexError::State(String::from_utf8_lossy(&key).into_owned()))?;
        records.push(removal.record());
        state.push(StateChange {
            partition: 0,
            key,
            value: None,
            expires: None,
        });
    }
    if !records.is_empty() {
        shelf.bus.append(Topic::Events, records)?;
        shelf.bus.commit(Commit {
            consumer: CONSUMER.to_owned(),
            state,
            ..Commit::default()
        })?;
    }
    shelf.said();
    Ok(())
}
