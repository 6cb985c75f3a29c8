//! The stage that watches sources: reads the topic `sources`, keeps what it says in the store, and puts the findings on
//! silence and failure on the log.
//!
//! [`run`] is one thread's loop. Of several nodes on one database the one that leads does it. Whoever begins reads first
//! what the store knows and then the topic to its end, and only then judges; so that nobody is called silent while
//! Trailwarden itself was away, silence counts from then on. A finding is appended before the store knows that it was
//! said: after a kill in between it is said once more under the same id, which changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, BusError, Offset, Record, Stop, Topic};
use bytes::Bytes;
use event::source::SourceRecord;
use event::{Clock, Finding, Time};

use super::{Blind, Options, Watch};
use crate::metrics::Metrics;
use crate::stage::StageError;
use crate::store::{Store, StoreError, Turn};

/// The most bytes in one batch.
const BATCH_BYTES: usize = 1 << 20;
/// How long to wait for records before looking at the clock and the stop sign again.
const WAIT: Duration = Duration::from_millis(250);
/// How long to wait after something failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How often sources are judged, in microseconds.
const JUDGE: i64 = 5_000_000;
/// How often what is old is forgotten.
const FORGET: i64 = 3_600_000_000;
/// The lease of the node that watches.
const ROLE: &str = "sources";

/// What the stage is told about the rest.
pub struct Around {
    /// The time up to which everything that was taken in has been told on the topic `sources`, asked with the time now: a
    /// match stage that is behind must not make sources look silent.
    pub read_to: Box<dyn Fn(Time) -> Result<Time, BusError> + Send>,
    /// The rules that look at a source.
    pub blind: Box<dyn Fn(&str) -> Vec<Blind> + Send>,
}

/// Watches until it is told to stop, while the node `holder` leads.
///
/// # Errors
/// The log failed in a way that waiting does not mend.
pub fn run(
    bus: Arc<dyn Bus>,
    store: Arc<Store>,
    options: Options,
    around: Around,
    clock: Clock,
    metrics: Metrics,
    holder: String,
    stop: Stop,
) -> Result<(), StageError> {
    let mut turn = Turn::new(&store, ROLE, holder);
    let mut stage: Option<Stage> = None;
    while !stop.is_stopped() {
        let leads = turn.leads();
        metrics.leads(ROLE, matches!(leads, Ok(true)));
        let round = match leads {
            Ok(true) => match &mut stage {
                Some(stage) => stage.round(clock()),
                None => Stage::open(&bus, &store, &options, &around, &metrics, clock()).map(|s| {
                    stage = Some(s);
                    true
                }),
            },
            Ok(false) => {
                stage = None;
                std::thread::sleep(WAIT);
                continue;
            }
            Err(error) => Err(error.into()),
        };
        let error = match round {
            Ok(true) => continue,
            Ok(false) => {
                let positions = stage.as_ref().map(Stage::positions).unwrap_or_default();
                match bus.wait(Topic::Sources, &positions, WAIT) {
                    Ok(_) => continue,
                    Err(error) => StageError::Bus(error),
                }
            }
            Err(error) => error,
        };
        // What is in memory may be ahead of what is stored: it is read again.
        stage = None;
        match error {
            // Retention took away what was about to be read.
            StageError::Bus(BusError::OutOfRange { .. }) => {}
            StageError::Bus(error) if !error.is_transient() => return Err(error.into()),
            StageError::Store(StoreError::NotLeading(_)) => turn.lost(),
            error => {
                metrics.failed("sources");
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "sources cannot be watched, trying again"
                );
                std::thread::sleep(PAUSE);
            }
        }
    }
    turn.resign();
    Ok(())
}

struct Stage<'a> {
    bus: &'a dyn Bus,
    /// Writes only while this node leads.
    store: Store,
    options: &'a Options,
    around: &'a Around,
    metrics: &'a Metrics,
    watch: Watch,
    positions: BTreeMap<u32, Offset>,
    began: Time,
    next_judge: Time,
    next_forget: Time,
}

impl<'a> Stage<'a> {
    fn open(
        bus: &'a Arc<dyn Bus>,
        store: &Store,
        options: &'a Options,
        around: &'a Around,
        metrics: &'a Metrics,
        now: Time,
    ) -> Result<Stage<'a>, StageError> {
        let mut positions = BTreeMap::new();
        for partition in 0..bus.partitions(Topic::Sources) {
            let kept = bus.bounds(Topic::Sources, partition)?;
            let stored = store.source_position(partition)?;
            // What is said again changes nothing.
            let from = stored.filter(|stored| (kept.start..=kept.end).contains(stored));
            positions.insert(partition, from.unwrap_or(kept.start));
        }
        Ok(Stage {
            bus: &**bus,
            watch: store.watch()?,
            store: store.fenced(ROLE),
            options,
            around,
            metrics,
            positions,
            began: now,
            next_judge: Time::MIN,
            next_forget: now.plus(FORGET),
        })
    }

    fn positions(&self) -> Vec<(u32, Offset)> {
        self.positions.iter().map(|(p, o)| (*p, *o)).collect()
    }

    /// One batch of every partition, or where there is none what time does. Tells whether there may be more.
    fn round(&mut self, now: Time) -> Result<bool, StageError> {
        // Asked before reading: what was told until then is then read.
        let read_to = (self.around.read_to)(now)?;
        let mut busy = false;
        for (partition, next) in &mut self.positions {
            let batch = self
                .bus
                .read(Topic::Sources, *partition, *next, BATCH_BYTES)?;
            busy |= batch.next > *next;
            *next = batch.next;
            for (offset, record) in batch.records {
                match SourceRecord::decode(&record.value) {
                    Ok(record) => self.watch.take(record, self.options),
                    Err(error) => {
                        self.metrics.failed("sources");
                        tracing::error!(
                            partition,
                            offset,
                            line = error.line(),
                            column = error.column(),
                            "a record of a source cannot be read"
                        );
                    }
                }
            }
        }
        if busy {
            self.save()?;
            return Ok(true);
        }
        if now >= self.next_judge {
            self.next_judge = now.plus(JUDGE);
            self.judge(read_to)?;
        }
        if now >= self.next_forget {
            self.next_forget = now.plus(FORGET);
            self.watch.forget(now);
            self.save()?;
        }
        Ok(false)
    }

    fn judge(&mut self, now: Time) -> Result<(), StageError> {
        let findings = self
            .watch
            .judge(now, self.began, self.options, &self.around.blind);
        let mut states = BTreeMap::new();
        for feed in self.watch.feeds() {
            *states.entry(feed.state(now).as_str()).or_default() += 1;
        }
        self.metrics.watched(&states, self.watch.failing());
        if findings.is_empty() {
            return Ok(());
        }
        let records = findings.iter().map(|f| record(f, now)).collect();
        self.bus.append(Topic::Findings, records)?;
        self.save()
    }

    fn save(&mut self) -> Result<(), StageError> {
        let changed = self.watch.changed();
        let positions = self.positions();
        Ok(self.store.save_sources(&self.watch, &changed, &positions)?)
    }
}

fn record(finding: &Finding, now: Time) -> Record {
    let value = serde_json::to_vec(finding).expect("texts, numbers and maps with text keys");
    Record {
        // All revisions meet in one partition, in order.
        key: Bytes::from(finding.id.to_string()),
        value: Bytes::from(value),
        time: now,
    }
}
