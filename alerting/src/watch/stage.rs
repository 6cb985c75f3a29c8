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

use super::{Looking, Options, Watch};
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
    /// How sources are watched.
    pub options: Options,
    /// The time up to which everything that was taken in has been told on the topic `sources`, asked with the time now: a
    /// match stage that is behind must not make sources look silent.
    pub read_to: Box<dyn Fn(Time) -> Result<Time, BusError> + Send>,
    /// The rules that look at a source.
    pub blind: Box<Looking>,
}

/// Watches until it is told to stop, while the node `holder` leads.
///
/// # Errors
/// The log failed in a way that waiting does not mend.
pub fn run(
    bus: Arc<dyn Bus>,
    store: Arc<Store>,
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
                None => Stage::open(&bus, &store, &around, &metrics, clock()).map(|s| {
                    stage = Some(s);
                    true
                }),
            },
            Ok(false) => {
                stage = None;
                // What this node knew when it led is another one's to tell now.
                metrics.watched(&BTreeMap::new(), 0);
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
        let judges = now >= self.next_judge;
        // Asked before reading: what was told until then is then read.
        let read_to = match judges {
            true => (self.around.read_to)(now)?,
            false => now,
        };
        let mut busy = false;
        for (partition, next) in &mut self.positions {
            let batch = self
                .bus
                .read(Topic::Sources, *partition, *next, BATCH_BYTES)?;
            busy |= batch.next > *next;
            *next = batch.next;
            for (offset, record) in batch.records {
                match SourceRecord::decode(&record.value) {
                    Ok(record) => self.watch.take(record, &self.around.options),
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
        if judges {
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
            .judge(now, self.began, &self.around.options, &self.around.blind);
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
        let positions = self.positions();
        Ok(self.store.save_sources(&mut self.watch, &positions)?)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bus::embedded::{EmbeddedBus, Options as BusOptions};
    use event::Id;
    use event::source::{Arrival, Feed};

    use super::*;
    use crate::config::Config;
    use crate::policy::Policy;
    use crate::store::testing::{Home, places};
    use crate::store::{Filter, LEASE};

    const MINUTE: i64 = 60_000_000;
    const DAY: i64 = 1_440 * MINUTE;

    fn arrive(bus: &dyn Bus, events: u64, at: Time) {
        let arrival = Arrival {
            feed: Feed {
                source: "aws.cloudtrail".into(),
                account: "1".into(),
                region: "eu-west-1".into(),
            },
            partition: 0,
            events,
            last_ingest: at,
            last_event: at,
            delay: 0,
        };
        let (key, value) = SourceRecord::Arrival(arrival).encode();
        let record = Record {
            key: key.into(),
            value: value.into(),
            time: at,
        };
        bus.append(Topic::Sources, vec![record]).unwrap();
    }

    /// What was said: id and revision, in the order of the log.
    fn said(bus: &dyn Bus) -> Vec<(Id, u64)> {
        let partitions = 0..bus.partitions(Topic::Findings);
        let records =
            partitions.flat_map(|p| bus.read(Topic::Findings, p, 0, 1 << 20).unwrap().records);
        records
            .map(|(_, r)| serde_json::from_slice::<Finding>(&r.value).unwrap())
            .map(|f| (f.id, f.revision))
            .collect()
    }

    /// Whatever is cut off, a silence is one alert: resolved when the source comes back.
    #[test]
    fn a_silence_is_one_alert_whatever_is_cut_off() {
        for place in places() {
            let home = Home::new(&place);
            let dir = tempfile::tempdir().unwrap();
            let bus: Arc<dyn Bus> =
                Arc::new(EmbeddedBus::open(dir.path(), BusOptions::default()).unwrap());
            let store = Arc::new(home.open(Policy::new(&Config::default()).unwrap()).unwrap());
            assert!(store.lead(ROLE, "a", LEASE).unwrap());
            let options = crate::watch::Config::default().options();
            let around = Around {
                options: options.clone(),
                read_to: Box::new(Ok),
                blind: Box::new(|_| Vec::new()),
            };
            let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
            let open = |now| Stage::open(&bus, &store, &around, &metrics, now).unwrap();
            let drain = |stage: &mut Stage<'_>, now| while stage.round(now).unwrap() {};

            let begin = Time(20_000 * DAY);
            let mut now = begin;
            for n in 0..3 * 288 {
                now = begin.plus(n * 5 * MINUTE);
                arrive(&*bus, n as u64 + 1, now);
            }
            let mut stage = open(now);
            drain(&mut stage, now);
            drain(&mut stage, now.plus(14 * MINUTE));
            assert_eq!(said(&*bus), []);
            // Killed after the finding was appended, and before the store knows: it is said once more, under one id.
            let late = now.plus(16 * MINUTE);
            let findings = stage
                .watch
                .judge(late, stage.began, &options, &around.blind);
            bus.append(
                Topic::Findings,
                findings.iter().map(|f| record(f, late)).collect(),
            )
            .unwrap();
            let mut stage = open(now);
            drain(&mut stage, late);
            let ids: BTreeSet<_> = said(&*bus).into_iter().collect();
            assert_eq!((said(&*bus).len(), ids.len()), (2, 1));
            // Restarted again and again, it says nothing new before an hour has passed.
            for minute in [17, 30, 60, 90] {
                drain(&mut open(now), now.plus(minute * MINUTE));
            }
            assert_eq!(said(&*bus).len(), 3);
            arrive(&*bus, 10_000, now.plus(100 * MINUTE));
            drain(&mut open(now), now.plus(101 * MINUTE));
            assert_eq!(said(&*bus).last().unwrap().1, 2);

            // As alerting takes them in.
            let mut offset = 0;
            for partition in 0..bus.partitions(Topic::Findings) {
                let batch = bus.read(Topic::Findings, partition, 0, 1 << 20).unwrap();
                for (_, record) in batch.records {
                    let finding = serde_json::from_slice(&record.value).unwrap();
                    store
                        .apply(
                            &[(offset, finding)],
                            0,
                            offset,
                            offset + 1,
                            now.plus(102 * MINUTE),
                        )
                        .unwrap();
                    offset += 1;
                }
            }
            let alerts = store.alerts(&Filter::default()).unwrap();
            let [alert] = &alerts[..] else {
                panic!("{alerts:?}")
            };
            assert_eq!(alert.state, crate::State::Resolved);
            assert!(alert.finding.explanation.contains("It has come back"));
        }
    }

    /// What is behind must not look silent.
    #[test]
    fn nobody_is_silent_while_matching_is_behind() {
        let home = Home::new(&places().next().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let bus: Arc<dyn Bus> =
            Arc::new(EmbeddedBus::open(dir.path(), BusOptions::default()).unwrap());
        let store = Arc::new(home.open(Policy::new(&Config::default()).unwrap()).unwrap());
        let options = crate::watch::Config::default().options();
        let begin = Time(20_000 * DAY);
        let last = begin.plus(2 * DAY);
        let around = Around {
            options,
            read_to: Box::new(move |_| Ok(last.plus(MINUTE))),
            blind: Box::new(|_| Vec::new()),
        };
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        for n in 0..=2 * 288 {
            arrive(&*bus, n as u64 + 1, begin.plus(n * 5 * MINUTE));
        }
        let mut stage = Stage::open(&bus, &store, &around, &metrics, begin).unwrap();
        while stage.round(last.plus(DAY)).unwrap() {}
        assert_eq!(said(&*bus), []);
    }
}
