//! The index stage: reads events from the bus and publishes splits.
//!
//! [`run`] loops over `Indexer::step`: read what is new in every partition, drop repeats, add the rest to the split
//! that is being built, and publish it when it is full or its first event has waited long enough. Publishing is one
//! commit of the consumer `index`: the split's `Meta` under the key `split/<number>` of partition 0, the positions and
//! the seen ids. What was built but not committed before a crash is a folder that no key names: `Shelf::open`
//! deletes it and the log is read again from the committed position. So an event is in exactly one published split.
//!
//! Beside it run two threads: one merges and expires splits (`maintain`), one keeps the index of findings. A
//! failure that may pass (a full disk) puts the stage back to what is committed and is tried again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bus::ledger::Why;
use bus::seen::{self, Seen};
use bus::{Bus, BusError, Commit, Offset, Position, StateChange, Stop, Topic};
use event::{Clock, Event, Flag, Id, Time};
use tantivy::TantivyError;

use crate::evidence::seal::{Change, SealError};
use crate::hold::{HoldError, Holds};
pub(crate) use crate::shelf::Shelf;
use crate::split::Writer;
use crate::{Config, Metrics, Searcher, maintain, removal};

/// The consumer's name on the bus.
pub const CONSUMER: &str = "index";

/// How much is read of one partition at a time.
const READ_BYTES: usize = 1 << 20;
/// How many classes besides that of `search.retention_days` are kept apart, as the configuration allows it.
const MOST_CLASSES: usize = 8;
/// How long a wait for new records lasts at most, so that a stop is seen.
const WAIT: Duration = Duration::from_millis(200);

/// Why indexing stopped.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The log failed.
    #[error("index stage cannot use the log")]
    Bus(#[from] BusError),
    /// A split could not be written or read.
    #[error("cannot {action} in index `{path}`")]
    Split {
        /// What was attempted.
        action: &'static str,
        /// In which folder.
        path: PathBuf,
        /// The reason.
        #[source]
        source: TantivyError,
    },
    /// A publication could not be written down in the evidence log, and was not made.
    #[error("index stage cannot write down what it publishes")]
    Seal(#[from] SealError),
    /// The legal holds cannot be read: without them nothing may be removed.
    #[error("index stage cannot read the legal holds")]
    Hold(#[from] HoldError),
    /// A rebuild was begun and not finished.
    #[error("building the index anew was cut off: do it again with `trailwarden index rebuild`")]
    Rebuilding,
    /// The consumer's state has something that is no split.
    #[error("state key `{0}` of the index cannot be read")]
    State(String),
}

impl IndexError {
    /// Can it be tried again?
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            IndexError::Bus(error) => matches!(error, BusError::Io { .. }) || error.is_transient(),
            IndexError::Split { source, .. } => matches!(
                source,
                TantivyError::IoError(_) | TantivyError::OpenWriteError(_)
            ),
            IndexError::Seal(error) => error.is_transient(),
            IndexError::Hold(_) | IndexError::Rebuilding | IndexError::State(_) => false,
        }
    }
}

/// Runs the stage until it is told to stop. What it publishes is visible through `searcher` at once; what `holds` cover
/// it does not remove.
pub fn run(
    bus: Arc<dyn Bus>,
    (searcher, holds): (Searcher, Arc<Holds>),
    config: &Config,
    metrics: Metrics,
    clock: Clock,
    stop: Stop,
) -> Result<(), IndexError> {
    let shelf = Shelf::open(bus, (searcher, holds), config, metrics, clock)?;
    let failed = AtomicBool::new(false);
    let ended = || stop.is_stopped() || failed.load(Ordering::SeqCst);
    let guard = |result: Result<(), IndexError>| {
        if result.is_err() {
            failed.store(true, Ordering::SeqCst);
        }
        result
    };
    let (shelf, ended, guard) = (&shelf, &ended, &guard);
    std::thread::scope(|scope| {
        let merging = scope.spawn(move || guard(maintain::run(shelf, ended)));
        let findings = scope.spawn(move || guard(maintain::run_findings(shelf, ended)));
        let indexing = guard(index(shelf, ended));
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        indexing.and(join(merging)).and(join(findings))
    })
}

fn index(shelf: &Shelf, ended: &dyn Fn() -> bool) -> Result<(), IndexError> {
    let mut failures = 0;
    let mut indexer = open(shelf, Indexer::open, &mut failures, ended)?;
    while !ended() {
        match indexer.step() {
            Ok(true) => failures = 0,
            Ok(false) => {
                failures = 0;
                if let Err(error) = indexer.wait() {
                    retry(shelf, error, &mut failures, ended)?;
                }
            }
            Err(error) => {
                // What was built goes with it: on a full disk it would else take what others make free.
                let built = indexer.built();
                drop(indexer);
                shelf.sweep(&built);
                retry(shelf, error, &mut failures, ended)?;
                indexer = open(shelf, Indexer::open, &mut failures, ended)?;
            }
        }
    }
    indexer.publish()
}

/// Opens until it works, or until there is no use in another attempt.
pub(crate) fn open<'s, T>(
    shelf: &'s Shelf,
    make: impl Fn(&'s Shelf) -> Result<T, IndexError>,
    failures: &mut u32,
    ended: &dyn Fn() -> bool,
) -> Result<T, IndexError> {
    loop {
        match make(shelf) {
            Err(error) if !ended() => retry(shelf, error, failures, ended)?,
            made => return made,
        }
    }
}

/// Waits before another attempt, or gives the error back where that is of no use.
pub(crate) fn retry(
    shelf: &Shelf,
    error: IndexError,
    failures: &mut u32,
    ended: &dyn Fn() -> bool,
) -> Result<(), IndexError> {
    shelf.metrics.errors.with_label_values(&["publish"]).inc();
    if !error.is_transient() {
        return Err(error);
    }
    *failures = (*failures + 1).min(5);
    tracing::warn!(
        error = &error as &dyn std::error::Error,
        "indexing failed, trying again"
    );
    for _ in 0..5_u32 << *failures {
        if !ended() {
            std::thread::sleep(WAIT);
        }
    }
    Ok(())
}

/// How far one partition was read.
struct Reading {
    partition: u32,
    committed: Offset,
    next: Offset,
}

/// Builds splits from what is new on the bus.
pub(crate) struct Indexer<'s> {
    shelf: &'s Shelf,
    partitions: Vec<Reading>,
    /// The splits that are being built, one for each class of which events came.
    writers: Vec<Writer>,
    /// The numbers of all splits that were begun.
    built: Vec<u64>,
    /// When the first record that is not committed yet was read.
    since: Option<Time>,
    /// Ids of this split, which the seen-set does not have yet.
    pending: HashMap<(u32, Id), u64>,
    changes: Vec<StateChange>,
}

impl<'s> Indexer<'s> {
    /// Begins at the committed positions.
    pub(crate) fn open(shelf: &'s Shelf) -> Result<Indexer<'s>, IndexError> {
        let mut partitions = Vec::new();
        for partition in shelf.bus.assigned(CONSUMER, Topic::Events)? {
            let committed = match shelf.bus.position(CONSUMER, Topic::Events, partition)? {
                Some(offset) => offset,
                None => shelf.bus.bounds(Topic::Events, partition)?.start,
            };
            partitions.push(Reading {
                partition,
                committed,
                next: committed,
            });
        }
        Ok(Indexer {
            shelf,
            partitions,
            writers: Vec::new(),
            built: Vec::new(),
            since: None,
            pending: HashMap::new(),
            changes: Vec::new(),
        })
    }

    /// Reads once from every partition and publishes if it is time. Tells whether there was anything.
    pub(crate) fn step(&mut self) -> Result<bool, IndexError> {
        let mut any = false;
        for place in 0..self.partitions.len() {
            any |= self.read(place)?;
            if self.is_full() {
                self.publish()?;
            }
        }
        let waited = self
            .since
            .map_or(0, |since| (self.shelf.clock)().millis() - since.millis());
        if waited >= self.shelf.config.publish_after_ms as i64 && self.since.is_some() {
            self.publish()?;
        }
        Ok(any)
    }

    fn is_full(&self) -> bool {
        let config = &self.shelf.config;
        let events: u64 = self.writers.iter().map(Writer::events).sum();
        // A writer begins with tables of some 10 MiB; more classes must not mean fewer events in a split.
        let taken: usize = self.writers.iter().map(Writer::taken).sum();
        let first = self.writers.first().map_or(0, |w| w.memory() - w.taken());
        events >= config.split_events as u64 || taken + first >= config.writer_memory_mib << 20
    }

    /// The numbers of the splits that were begun and are not published.
    pub(crate) fn built(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.built)
    }

    /// Waits until there is something to read or to publish.
    fn wait(&self) -> Result<(), IndexError> {
        let from: Vec<(u32, Offset)> = self
            .partitions
            .iter()
            .map(|p| (p.partition, p.next))
            .collect();
        self.shelf.bus.wait(Topic::Events, &from, WAIT)?;
        Ok(())
    }

    fn read(&mut self, place: usize) -> Result<bool, IndexError> {
        let (bus, metrics) = (&self.shelf.bus, &self.shelf.metrics);
        let Reading {
            partition, next, ..
        } = self.partitions[place];
        let batch = match bus.read(Topic::Events, partition, next, READ_BYTES) {
            Err(BusError::OutOfRange { start, .. }) if start > next => {
                // Retention of the log has overtaken the index; what is gone cannot be searched.
                tracing::error!(
                    partition,
                    from = next,
                    to = start,
                    "events were dropped before they were indexed"
                );
                metrics
                    .dropped
                    .with_label_values(&["expired"])
                    .inc_by(start - next);
                self.partitions[place].next = start;
                return Ok(true);
            }
            other => other?,
        };
        let end = bus.bounds(Topic::Events, partition)?.end;
        let committed = self.partitions[place].committed;
        let lag = metrics.lag.with_label_values(&[&partition.to_string()]);
        lag.set(end.saturating_sub(committed) as i64);
        if batch.records.is_empty() {
            return Ok(false);
        }
        metrics.received.inc_by(batch.records.len() as u64);
        let mut events = Vec::with_capacity(batch.records.len());
        for (offset, record) in &batch.records {
            match Event::decode(&record.value) {
                // Of an event of the tier `rules` a copy comes, if a rule matches it.
                Ok(event)
                    if event.flags.has(Flag::Archived)
                        || event.flags.has(Flag::RulesOnly) && !event.flags.has(Flag::Evidence) =>
                {
                    metrics.dropped.with_label_values(&["tier"]).inc();
                }
                Ok(event) => events.push(event),
                Err(error) => {
                    tracing::error!(partition, offset, %error, "a record is no event");
                    metrics.errors.with_label_values(&["decode"]).inc();
                    metrics.dropped.with_label_values(&["unreadable"]).inc();
                }
            }
        }
        let verdicts = self.verdicts(partition, &events)?;
        self.since.get_or_insert_with(|| (self.shelf.clock)());
        for (event, seen) in events.into_iter().zip(verdicts) {
            match seen {
                Seen::Repeat => metrics.dropped.with_label_values(&["repeat"]).inc(),
                Seen::New => self.add(&event)?,
                Seen::Conflict => {
                    let mut event = event;
                    event.id = event.id.conflict(event.content_hash());
                    event.flags.set(Flag::IdConflict);
                    self.add(&event)?;
                }
            }
        }
        self.partitions[place].next = batch.next;
        Ok(true)
    }

    /// Does the index have it?
    fn is_there(&self, event: &Event) -> Result<bool, IndexError> {
        let found = self.shelf.searcher.has(event);
        found.map_err(|e| self.shelf.error("look into a split", e))
    }

    /// What the seen-set and the ids of this split say about each event.
    fn verdicts(&mut self, partition: u32, events: &[Event]) -> Result<Vec<Seen>, IndexError> {
        let mut verdicts = vec![Seen::Repeat; events.len()];
        let mut asked = Vec::with_capacity(events.len());
        let mut places = Vec::with_capacity(events.len());
        for (place, event) in events.iter().enumerate() {
            let hash = event.content_hash();
            match self.pending.get(&(partition, event.id)) {
                Some(seen) if *seen == hash => continue,
                // A conflict with an event of this split: is it new under its fallback id?
                Some(_) => {
                    let fallback = event.id.conflict(hash);
                    if !self.pending.contains_key(&(partition, fallback)) {
                        asked.push((fallback, hash));
                        places.push((place, true));
                    }
                }
                None => {
                    asked.push((event.id, hash));
                    places.push((place, false));
                }
            }
        }
        let keep = Duration::from_secs(u64::from(self.shelf.config.seen_days) * 86_400);
        let now = (self.shelf.clock)();
        let (found, changes) =
            seen::filter(&*self.shelf.bus, CONSUMER, partition, &asked, now, keep)?;
        for (((place, conflict), (id, hash)), seen) in places.into_iter().zip(asked).zip(found) {
            let event = &events[place];
            if event.flags.has(Flag::Restored) {
                // Read again because the index may have lost it: what was seen says nothing of that.
                let pending = self.pending.contains_key(&(partition, event.id));
                if !pending && !self.is_there(event)? {
                    self.pending.insert((partition, event.id), hash);
                    verdicts[place] = Seen::New;
                }
                continue;
            }
            verdicts[place] = match seen {
                Seen::Repeat => Seen::Repeat,
                _ if conflict => Seen::Conflict,
                seen => seen,
            };
            match seen {
                Seen::Repeat => {}
                Seen::New => drop(self.pending.insert((partition, id), hash)),
                Seen::Conflict => drop(self.pending.insert((partition, id.conflict(hash)), hash)),
            }
        }
        self.changes.extend(changes);
        Ok(verdicts)
    }

    /// The split in which an event of this class goes, if it is being built. A configuration has at most
    /// [`MOST_CLASSES`] classes; events that come from more, after several changes of it, are searchable for longer than
    /// was said rather than in ever more splits.
    fn writer_of(&self, class: u32) -> Option<usize> {
        let same = self.writers.iter().position(|w| w.class() == class);
        if same.is_some() || self.writers.len() <= MOST_CLASSES {
            return same;
        }
        let days = |class| removal::days(&self.shelf.config, class);
        let writers = self.writers.iter().enumerate();
        let longer = writers.filter(|(_, w)| days(w.class()) >= days(class));
        longer.min_by_key(|(_, w)| days(w.class())).map(|(n, _)| n)
    }

    fn add(&mut self, event: &Event) -> Result<(), IndexError> {
        let shelf = self.shelf;
        let failed = |e| shelf.error("build a split", e);
        let place = match self.writer_of(event.search_days) {
            Some(place) => place,
            None => {
                let memory = shelf.config.writer_memory_mib << 20;
                // The tables that a writer begins with are as large as what it is told that it may take.
                let memory = match event.search_days {
                    0 => memory,
                    _ => memory / MOST_CLASSES,
                };
                let number = shelf.number();
                self.built.push(number);
                let writer = Writer::create(&shelf.folder(), number, memory).map_err(failed)?;
                self.writers.push(writer.of_class(event.search_days));
                self.writers.len() - 1
            }
        };
        let writer = &mut self.writers[place];
        if writer.add(event, &event.encode()).map_err(failed)? {
            shelf.metrics.overflow.inc();
        }
        Ok(())
    }

    /// Publishes what was read since the last time.
    pub(crate) fn publish(&mut self) -> Result<(), IndexError> {
        let moved: Vec<&Reading> = self
            .partitions
            .iter()
            .filter(|p| p.next != p.committed)
            .collect();
        if moved.is_empty() {
            return Ok(());
        }
        let timer = self.shelf.metrics.publish_seconds.start_timer();
        let offsets: Vec<(u32, u64, u64)> = moved
            .iter()
            .map(|p| (p.partition, p.committed, p.next))
            .collect();
        let positions = moved
            .iter()
            .map(|p| Position {
                topic: Topic::Events,
                partition: p.partition,
                from: p.committed,
                to: p.next,
            })
            .collect();
        let mut added = Vec::with_capacity(self.writers.len());
        for writer in std::mem::take(&mut self.writers) {
            let finished = writer.finish(Vec::clone(&offsets));
            added.push(finished.map_err(|e| self.shelf.error("write a split", e))?);
        }
        let events = added.iter().map(|m| m.events).sum();
        let commit = Commit {
            positions,
            state: std::mem::take(&mut self.changes),
            ..Commit::default()
        };
        let change = Change {
            why: Why::Index,
            added: &added,
            removed: &[],
            reason: "",
        };
        self.shelf.publish(&change, commit)?;
        timer.observe_duration();
        self.shelf.metrics.sent.inc_by(events);
        for reading in &mut self.partitions {
            reading.committed = reading.next;
        }
        self.pending.clear();
        self.built.clear();
        self.since = None;
        Ok(())
    }
}
