//! The index of a stopped service by hand: what it has, removing what is old, building it anew from the log.
//!
//! [`Closed`] is an index with nobody writing to it. [`Closed::rebuild`] takes out what the log can give again and lets
//! the stage read from there: splits that cannot be read, and all others that lie wholly within what the log still has,
//! and has for another day. What holds something that the log has lost, or is on hold, stays. The ids that the stage remembers are made anew from
//! the splits that stay, so that nothing of them comes twice and nothing else is taken for a repeat. A mark in the state
//! says that this is under way: cut off, the stage does not start, and doing it again does it all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bus::embedded::EmbeddedBus;
use bus::{Bus, Commit, Offset, StateChange, Topic, partition_of};
use event::{Clock, Event, Flag, Time};
use serde::Serialize;

use crate::evidence::seal;
use crate::hold::Holds;
use crate::indexer::{CONSUMER, IndexError, Shelf};
use crate::removal::{Cause, announce, days, remove};
use crate::searcher::load;
use crate::split::{Meta, Split};
use crate::{Config, Metrics, Searcher};

/// The key that says that a rebuild is under way.
pub(crate) const MARK: &[u8] = b"rebuilding";
/// So many ids are remembered in one commit.
const IDS: usize = 5_000;
const DAY: u64 = 86_400;
/// What the log drops within this time is not counted on, in microseconds: a day.
const MARGIN: i64 = 86_400_000_000;

/// A split as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its number.
    pub split: u64,
    /// How many events it has.
    pub events: u64,
    /// How much disk it takes.
    pub bytes: u64,
    /// The time of its earliest event.
    pub earliest: Time,
    /// The time of its latest event.
    pub latest: Time,
    /// When its first event was taken in.
    pub first_ingested: Time,
    /// When its last event was taken in.
    pub last_ingested: Time,
    /// For how many days its events are searchable.
    pub search_days: u32,
    /// The hold that keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
}

/// What a rebuild does, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Splits that go, since the log gives their events again.
    pub again: Vec<Listed>,
    /// Splits that cannot be read and go; the log gives all of their events again.
    pub damaged: Vec<Listed>,
    /// Splits that cannot be read and go, and not all of their events are on the log any more.
    pub lost: Vec<Listed>,
    /// Splits that cannot be read and that a hold may cover.
    pub held: Vec<Listed>,
    /// Splits that stay.
    pub kept: Vec<Listed>,
    /// From where the log is read again: partition and offset.
    pub from: Vec<(u32, Offset)>,
    /// Is the index of findings built anew, since it cannot be read?
    pub findings: bool,
}

/// Why there was no rebuild.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Reading or writing failed. It may be done again.
    #[error("cannot build the index anew")]
    Index(#[from] IndexError),
    /// Damaged splits are on hold.
    #[error("{0} damaged splits may hold what is on hold")]
    Held(usize),
    /// Not everything can be had from the log.
    #[error("{0} damaged splits have events that the log does not have any more")]
    Lost(usize),
}

impl From<bus::BusError> for RebuildError {
    fn from(error: bus::BusError) -> RebuildError {
        RebuildError::Index(error.into())
    }
}

/// An index that no service has open.
pub struct Closed {
    bus: Arc<EmbeddedBus>,
    shelf: Shelf,
    clock: Clock,
}

impl Closed {
    /// The index that `searcher` reads, whose state is on `bus`. Make the searcher with [`Searcher::closed`] where splits
    /// may be damaged, and attest it ([`Searcher::attest`]) if there is an evidence log.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn open(
        bus: Arc<EmbeddedBus>,
        searcher: Searcher,
        config: &Config,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Closed, IndexError> {
        let dir = searcher.catalog().dir().to_owned();
        searcher.catalog().own();
        let holds = Holds::open(bus.clone(), &dir)?;
        let parts = (searcher, Arc::new(holds));
        let shelf = Shelf::load(bus.clone(), parts, config, metrics, clock.clone())?;
        Ok(Closed { bus, shelf, clock })
    }

    /// The published splits, the oldest first.
    pub fn list(&self) -> Vec<Listed> {
        let mut metas = self.shelf.metas();
        metas.sort_by_key(|m| (m.last_ingested, m.number));
        self.listed(&metas)
    }

    fn listed(&self, metas: &[Meta]) -> Vec<Listed> {
        self.shelf.holds.during(&self.shelf.searcher, |holder| {
            let metas = metas.iter();
            let listed = metas.map(|m| self.one(m, holder(m)));
            listed.collect()
        })
    }

    fn one(&self, meta: &Meta, hold: Option<String>) -> Listed {
        Listed {
            split: meta.number,
            events: meta.events,
            bytes: meta.bytes,
            earliest: meta.earliest,
            latest: meta.latest,
            first_ingested: meta.first_ingested,
            last_ingested: meta.last_ingested,
            search_days: days(&self.shelf.config, meta.days),
            hold,
        }
    }

    /// The splits whose last event was taken in before `time`: those that can be removed, and those that a hold keeps.
    pub fn older_than(&self, time: Time) -> (Vec<Listed>, Vec<Listed>) {
        let older = self.list().into_iter();
        older
            .filter(|s| s.last_ingested < time)
            .partition(|s| s.hold.is_none())
    }

    /// Removes the splits that [`Closed::older_than`] says can be, with the records of it on the log. Gives them.
    ///
    /// # Errors
    /// Reading or writing failed; what was removed until then is recorded.
    pub fn remove_older(
        &self,
        time: Time,
        reason: &str,
        by: &str,
    ) -> Result<Vec<Listed>, IndexError> {
        let (listed, _) = self.older_than(time);
        let numbers: BTreeSet<u64> = listed.iter().map(|s| s.split).collect();
        let mut metas = self.shelf.metas();
        metas.retain(|m| numbers.contains(&m.number));
        remove(&self.shelf, &metas, Cause::Hand, (reason, by))?;
        self.end()?;
        Ok(listed)
    }

    /// Records what was removed, and deletes its folders.
    fn end(&self) -> Result<(), IndexError> {
        announce(&self.shelf)?;
        self.shelf.clear()
    }

    /// Are the files of a split those that the evidence log says? Where nothing is written down, nothing says otherwise.
    fn is_as_published(&self, meta: &Meta) -> bool {
        let catalog = self.shelf.searcher.catalog();
        let ledger = catalog.ledger();
        let written = ledger.and_then(|ledger| {
            ledger.state(|s| s.splits.get(&meta.number).map(|h| h.added.files.clone()))
        });
        let Some(written) = written else {
            return true;
        };
        let folder = Meta::folder(&self.shelf.folder(), meta.number);
        let found = seal::files(&folder, &|_| {});
        found.is_ok_and(|files| seal::digest(&files) == written)
    }

    /// What [`Closed::rebuild`] would do.
    ///
    /// # Errors
    /// The log cannot be read. A split that cannot is part of the plan.
    pub fn plan(&self) -> Result<Plan, RebuildError> {
        Ok(self.sort()?.0)
    }

    /// The plan, and the splits that stay, open.
    fn sort(&self) -> Result<(Plan, Vec<Split>), RebuildError> {
        let partitions = self.bus.partitions(Topic::Events);
        let mut starts: BTreeMap<u32, Offset> = BTreeMap::new();
        for partition in 0..partitions {
            let start = self.bus.bounds(Topic::Events, partition)?.start;
            starts.insert(partition, start);
        }
        let start = |partition: u32| starts.get(&partition).copied().unwrap_or(0);
        let is_on_log = |meta: &Meta| {
            let within = |o: &(u32, u64, u64)| o.1 >= start(o.0);
            !meta.offsets.is_empty() && meta.offsets.iter().all(within)
        };
        // Retention goes on when the service starts, at once: what is about to be dropped is as good as gone.
        let safe = (self.clock)().plus(MARGIN - self.bus.keeps(Topic::Events));
        let folder = self.shelf.folder();
        let (mut plan, mut kept) = (Plan::default(), Vec::new());
        let mut from: BTreeMap<u32, Offset> = BTreeMap::new();
        let held = self.listed(&self.shelf.metas());
        for (meta, listed) in self.shelf.metas().into_iter().zip(held) {
            let split = sound(&folder, &meta).and_then(|split| match self.is_as_published(&meta) {
                true => Ok(split),
                false => Err("it is not what was published".to_owned()),
            });
            let on_log = is_on_log(&meta);
            match split {
                Ok(split) if listed.hold.is_some() || !on_log || meta.first_ingested < safe => {
                    plan.kept.push(listed);
                    kept.push(split);
                    continue;
                }
                Ok(_) => plan.again.push(listed),
                Err(reason) => {
                    tracing::warn!(split = meta.number, %reason, "a split cannot be read");
                    let place = match (&listed.hold, on_log) {
                        (Some(_), _) => &mut plan.held,
                        (None, true) => &mut plan.damaged,
                        (None, false) => &mut plan.lost,
                    };
                    place.push(listed);
                }
            }
            for (partition, first, _) in &meta.offsets {
                let first = (*first).max(start(*partition));
                let at = from.entry(*partition).or_insert(first);
                *at = (*at).min(first);
            }
        }
        plan.from = from.into_iter().collect();
        plan.findings = !crate::findings::Findings::is_sound(self.shelf.searcher.catalog().dir());
        Ok((plan, kept))
    }

    /// Takes out what the log can give again and what cannot be read, and lets the stage read from there at its next
    /// start. With `give_up` also damaged splits go of which the log has not all events.
    ///
    /// # Errors
    /// Something damaged is on hold, or cannot be had again; nothing has changed then. Or reading and writing failed: the
    /// stage does not start until it was done again.
    pub fn rebuild(&self, give_up: bool, reason: &str, by: &str) -> Result<Plan, RebuildError> {
        let (plan, kept) = self.sort()?;
        if !plan.held.is_empty() {
            return Err(RebuildError::Held(plan.held.len()));
        }
        if !plan.lost.is_empty() && !give_up {
            return Err(RebuildError::Lost(plan.lost.len()));
        }
        // What an earlier attempt, which was cut off, had wanted to be read again.
        let mut from: BTreeMap<u32, Offset> = self.marked()?.into_iter().collect();
        for (partition, offset) in &plan.from {
            let at = from.entry(*partition).or_insert(*offset);
            *at = (*at).min(*offset);
        }
        let from: Vec<(u32, Offset)> = from.into_iter().collect();
        self.mark(Some(&from))?;
        let gone = [&plan.again, &plan.damaged, &plan.lost];
        let gone: BTreeSet<u64> = gone.into_iter().flatten().map(|s| s.split).collect();
        let mut metas = self.shelf.metas();
        metas.retain(|m| gone.contains(&m.number));
        remove(&self.shelf, &metas, Cause::Rebuild, (reason, by))?;
        self.bus.forget(CONSUMER, b"seen/")?;
        for split in &kept {
            self.remember(split, &from)?;
        }
        if plan.findings {
            self.shelf.drop_findings()?;
        }
        let mut positions = Vec::with_capacity(from.len());
        for (partition, offset) in &from {
            let start = self.bus.bounds(Topic::Events, *partition)?.start;
            positions.push((Topic::Events, *partition, (*offset).max(start)));
        }
        self.bus.rewind(CONSUMER, &positions)?;
        self.mark(None)?;
        self.end()?;
        Ok(plan)
    }

    /// Does the first steps of a rebuild, as if it had been killed after them.
    #[cfg(test)]
    pub(crate) fn cut_off(&self, steps: usize) -> Result<(), RebuildError> {
        let (plan, _) = self.sort()?;
        self.mark(Some(&plan.from))?;
        if steps > 0 {
            remove(
                &self.shelf,
                &self.shelf.metas(),
                Cause::Rebuild,
                ("cut off", "ada"),
            )?;
        }
        if steps > 1 {
            self.bus.forget(CONSUMER, b"seen/")?;
            let positions = plan.from.iter().map(|(p, o)| (Topic::Events, *p, *o));
            self.bus.rewind(CONSUMER, &positions.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn marked(&self) -> Result<Vec<(u32, Offset)>, RebuildError> {
        let found = self.bus.state_get(CONSUMER, 0, &[MARK.to_vec()])?;
        let found = found.into_iter().flatten().next();
        Ok(found
            .and_then(|value| serde_json::from_slice(&value).ok())
            .unwrap_or_default())
    }

    fn mark(&self, from: Option<&[(u32, Offset)]>) -> Result<(), RebuildError> {
        let value = from.map(|from| serde_json::to_vec(from).expect("numbers are JSON"));
        let state = vec![StateChange {
            partition: 0,
            key: MARK.to_vec(),
            value,
            expires: None,
        }];
        Ok(self.bus.commit(Commit {
            consumer: CONSUMER.to_owned(),
            state,
            ..Commit::default()
        })?)
    }

    /// Remembers the ids of a split that stays, as the stage did when it indexed it.
    fn remember(&self, split: &Split, from: &[(u32, Offset)]) -> Result<(), RebuildError> {
        let failed = |e| RebuildError::Index(self.shelf.error("read a split", e));
        let keep = Duration::from_secs(u64::from(self.shelf.config.seen_days) * DAY);
        let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
        let now = (self.clock)();
        let mut offsets = split.meta.offsets.iter();
        let is_read_again = offsets.any(|o| from.iter().any(|f| f.0 == o.0 && f.1 < o.2));
        if !is_read_again && split.meta.last_ingested < now.plus(-keep) {
            return Ok(());
        }
        let partitions = self.bus.partitions(Topic::Events);
        let searcher = split.searcher();
        let fields = self.shelf.searcher.event_fields();
        let mut state = Vec::new();
        let commit = |state: &mut Vec<StateChange>| {
            self.bus.commit(Commit {
                consumer: CONSUMER.to_owned(),
                state: std::mem::take(state),
                ..Commit::default()
            })
        };
        for (segment, reader) in (0..).zip(searcher.segment_readers()) {
            for doc in 0..reader.max_doc() {
                let address = tantivy::DocAddress::new(segment, doc);
                let event: Option<Event> = load(&searcher, address, &fields).map_err(failed)?;
                let Some(event) = event else {
                    continue;
                };
                // A conflict was remembered where the event came that it is in conflict with; nobody knows any more where.
                let meant = match event.flags.has(Flag::IdConflict) {
                    true => 0..partitions,
                    false => {
                        let at = partition_of(event.partition_key().as_bytes(), partitions);
                        at..at + 1
                    }
                };
                let hash = event.content_hash();
                state.extend(meant.map(|partition| StateChange {
                    partition,
                    key: [b"seen/".as_slice(), &event.id.to_bytes()].concat(),
                    value: Some(hash.to_le_bytes().to_vec()),
                    expires: Some(now.plus(keep)),
                }));
                if state.len() >= IDS {
                    commit(&mut state)?;
                }
            }
        }
        commit(&mut state)?;
        Ok(())
    }
}

/// Opens a split if it is as it was written, as far as its checksums say.
fn sound(folder: &std::path::Path, meta: &Meta) -> Result<Split, String> {
    let split = Split::open(folder, meta.clone()).map_err(|e| e.to_string())?;
    match split.damage() {
        Ok(None) => Ok(split),
        Ok(Some(words)) => Err(words),
        Err(e) => Err(e.to_string()),
    }
}
