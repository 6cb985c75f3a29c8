//! The stage: reads findings from the log and applies them to the store, batch by batch.
//!
//! [`run`] is one thread's loop. Its position in the findings topic is the store's own, changed in the same
//! transaction as the alerts, so that nothing is applied twice or left out whatever kills the process.
//! Between batches it lets time do its part ([`Store::tick`]) and drops what is older than the retention.
//! A finding that cannot be read is counted, logged and passed over; a store that cannot write is tried
//! again until it can, and meanwhile nothing is lost, since the position stays. Of several nodes on one database
//! only the one that leads does any of it; what it writes is refused where it leads no longer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Bus, BusError, Offset, Stop, Topic};
use event::{Clock, Finding, Time};

use crate::metrics::Metrics;
use crate::store::{Store, StoreError, Turn};

/// The most bytes of findings in one batch.
const BATCH_BYTES: usize = 1 << 20;
/// The same where a network lies between: nobody else writes meanwhile, so that a batch must not take seconds.
const SHARED_BATCH_BYTES: usize = 64 << 10;
/// How long to wait for findings before looking at the clock and the stop sign again.
const WAIT: Duration = Duration::from_millis(250);
/// How long to wait after the store failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How often time does its part, in microseconds.
const TICK: i64 = 1_000_000;
/// How often old alerts are dropped, in microseconds.
const RETAIN: i64 = 3_600_000_000;
/// The lease of the node that applies findings.
const ROLE: &str = "findings";

/// Why the stage ended.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The log failed.
    #[error("cannot read findings")]
    Bus(#[from] BusError),
    /// Somebody else applies findings to the same store.
    #[error("cannot apply findings")]
    Store(#[from] StoreError),
}

/// Applies findings until it is told to stop, while the node `holder` leads.
pub fn run(
    bus: Arc<dyn Bus>,
    store: Arc<Store>,
    clock: Clock,
    metrics: Metrics,
    holder: String,
    stop: Stop,
) -> Result<(), StageError> {
    let mut turn = Turn::new(&store, ROLE, holder);
    let mut stage = Stage {
        bus,
        store: store.fenced(ROLE),
        metrics,
        next_tick: Time::MIN,
        next_retain: Time::MIN,
    };
    while !stop.is_stopped() {
        let leads = turn.leads();
        stage.metrics.leads(ROLE, matches!(leads, Ok(true)));
        let round = match leads {
            Ok(true) => stage.round(clock()),
            Ok(false) => {
                stage.metrics.lag(0);
                std::thread::sleep(WAIT);
                continue;
            }
            Err(error) => Err(error.into()),
        };
        match round {
            Ok(Round::Busy) => {}
            Ok(Round::Idle(positions)) => match stage.bus.wait(Topic::Findings, &positions, WAIT) {
                Err(error) if error.is_transient() => stage.metrics.failed("log"),
                waited => drop(waited?),
            },
            // Retention took away what was about to be read: the next round sees where the log begins now.
            Err(StageError::Bus(BusError::OutOfRange { .. })) => {}
            Err(StageError::Bus(error)) if error.is_transient() => {
                stage.metrics.failed("log");
                tracing::error!(%error, "findings cannot be read, trying again");
                std::thread::sleep(PAUSE);
            }
            Err(StageError::Store(StoreError::NotLeading(_))) => turn.lost(),
            // Another node has led meanwhile: the next round reads the position anew. In a file nobody else should be.
            Err(StageError::Store(StoreError::Fenced { .. })) if store.is_shared() => {
                std::thread::sleep(WAIT);
            }
            Err(StageError::Store(error)) if !matches!(error, StoreError::Fenced { .. }) => {
                stage.metrics.failed("store");
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "alert store failed, trying again"
                );
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
    turn.resign();
    Ok(())
}

enum Round {
    /// There was something to do; there may be more.
    Busy,
    /// Nothing to read at these positions.
    Idle(Vec<(u32, Offset)>),
}

struct Stage {
    bus: Arc<dyn Bus>,
    /// Writes only while this node leads.
    store: Store,
    metrics: Metrics,
    next_tick: Time,
    next_retain: Time,
}

impl Stage {
    /// One batch of every partition, and what time does.
    fn round(&mut self, now: Time) -> Result<Round, StageError> {
        let mut positions = Vec::new();
        let (mut busy, mut lag) = (false, 0);
        for partition in 0..self.bus.partitions(Topic::Findings) {
            let from = self.position(partition)?;
            let next = self.batch(partition, from, now)?;
            busy |= next > from;
            lag += self
                .bus
                .bounds(Topic::Findings, partition)?
                .end
                .saturating_sub(next);
            positions.push((partition, next));
        }
        self.metrics.lag(lag);
        if now >= self.next_tick {
            self.next_tick = now.plus(TICK);
            let applied = self.store.tick(now)?;
            self.metrics.changed(&applied);
            let (waiting, dead) = self.store.outbox_depth()?;
            self.metrics.outbox(waiting, dead);
        }
        if now >= self.next_retain {
            // One part a round, so that the lease is renewed in between.
            let more = self.store.retain(now)? > 0;
            busy |= more;
            if !more {
                self.next_retain = now.plus(RETAIN);
            }
        }
        Ok(if busy {
            Round::Busy
        } else {
            Round::Idle(positions)
        })
    }

    /// Where to read on. Where the log has moved on without us, or is not the one we knew, from its beginning: findings
    /// that come again change nothing.
    fn position(&self, partition: u32) -> Result<Offset, StageError> {
        let kept = self.bus.bounds(Topic::Findings, partition)?;
        let stored = self.store.position(partition)?;
        match stored {
            None => Ok(kept.start),
            Some(stored) if (kept.start..=kept.end).contains(&stored) => Ok(stored),
            Some(stored) => {
                tracing::error!(
                    partition,
                    stored,
                    start = kept.start,
                    end = kept.end,
                    "findings between were not applied: reading from the start of the log"
                );
                self.store.rewind(partition, kept.start)?;
                Ok(kept.start)
            }
        }
    }

    /// Applies what there is from `from` on; gives where to read on.
    fn batch(&self, partition: u32, from: Offset, now: Time) -> Result<Offset, StageError> {
        let most = if self.store.is_shared() {
            SHARED_BATCH_BYTES
        } else {
            BATCH_BYTES
        };
        let batch = self.bus.read(Topic::Findings, partition, from, most)?;
        if batch.next == from {
            return Ok(from);
        }
        let started = Instant::now();
        let mut findings = Vec::with_capacity(batch.records.len());
        let mut staged = 0;
        for (offset, record) in &batch.records {
            match serde_json::from_slice::<Finding>(&record.value) {
                // A rule that is tried out opens no alert: its findings are in the index.
                Ok(finding) if finding.staged => {
                    self.metrics.staged(&finding.rule_id);
                    staged += 1;
                }
                Ok(finding) => findings.push((*offset, finding)),
                Err(error) => {
                    // Position and kind of the error, not the text that has it: that came out of a log.
                    tracing::error!(
                        partition,
                        offset,
                        line = error.line(),
                        column = error.column(),
                        "finding cannot be read"
                    );
                }
            }
        }
        let unreadable = (batch.records.len() - findings.len()) as u64 - staged;
        let applied = self
            .store
            .apply(&findings, partition, from, batch.next, now)?;
        self.metrics
            .received(batch.records.len() as u64, unreadable);
        self.metrics
            .applied(&applied, started.elapsed().as_secs_f64());
        Ok(batch.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::policy::Policy;
    use crate::store::testing::{Home, places, server};
    use crate::store::{Filter, LEASE};
    use bus::{Batch, Commit, Record, StateChange};
    use event::Id;
    use std::ops::Range;
    use std::sync::Mutex;

    /// Just enough of a log to read findings from.
    #[derive(Default)]
    struct Log {
        partitions: Mutex<[Vec<Record>; 2]>,
        start: Mutex<Offset>,
    }

    impl Bus for Log {
        fn partitions(&self, _: Topic) -> u32 {
            2
        }
        fn append(&self, _: Topic, records: Vec<Record>) -> Result<(), BusError> {
            for record in records {
                let partition = bus::partition_of(&record.key, 2) as usize;
                self.partitions.lock().unwrap()[partition].push(record);
            }
            Ok(())
        }
        fn read(
            &self,
            _: Topic,
            partition: u32,
            from: Offset,
            _: usize,
        ) -> Result<Batch, BusError> {
            let partitions = self.partitions.lock().unwrap();
            let records: Vec<_> = (from..)
                .zip(
                    partitions[partition as usize]
                        .iter()
                        .skip(from as usize)
                        .cloned(),
                )
                .take(3)
                .collect();
            let next = from + records.len() as u64;
            Ok(Batch { records, next })
        }
        fn wait(&self, _: Topic, _: &[(u32, Offset)], _: Duration) -> Result<bool, BusError> {
            Ok(false)
        }
        fn bounds(&self, _: Topic, partition: u32) -> Result<Range<Offset>, BusError> {
            let end = self.partitions.lock().unwrap()[partition as usize].len() as u64;
            Ok(*self.start.lock().unwrap()..end)
        }
        fn commit(&self, _: Commit) -> Result<(), BusError> {
            Err(BusError::Refused("positions are the store's".into()))
        }
        fn position(&self, _: &str, _: Topic, _: u32) -> Result<Option<Offset>, BusError> {
            Ok(None)
        }
        fn state_get(
            &self,
            _: &str,
            _: u32,
            keys: &[Vec<u8>],
        ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
            Ok(vec![None; keys.len()])
        }
        fn state_scan(
            &self,
            _: &str,
            _: u32,
            _: &[u8],
        ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BusError> {
            let none: Vec<StateChange> = Vec::new();
            Ok(none.into_iter().map(|s| (s.key, Vec::new())).collect())
        }
        fn retain(&self, _: Time) -> Result<(), BusError> {
            Ok(())
        }
    }

    fn record(id: u128) -> Record {
        let finding = Finding {
            id: Id(id),
            episode: Id(id),
            rule_id: format!("rule {id}").into(),
            staged: id == 7,
            count: 1,
            ..Finding::default()
        };
        Record {
            key: finding.episode.to_string().into_bytes().into(),
            value: serde_json::to_vec(&finding).unwrap().into(),
            time: Time(0),
        }
    }

    fn stage(log: &Arc<Log>, store: &Arc<Store>) -> Stage {
        Stage {
            bus: log.clone(),
            store: store.fenced(ROLE),
            metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
            next_tick: Time::MIN,
            next_retain: Time::MIN,
        }
    }

    fn drain(stage: &mut Stage) {
        while matches!(stage.round(Time(1)).unwrap(), Round::Busy) {}
    }

    #[test]
    fn every_finding_once_across_restarts_and_bad_records() {
        for place in places() {
            let home = Home::new(&place);
            let policy = Policy::new(&Config::default()).unwrap();
            let log = Arc::new(Log::default());
            log.append(Topic::Findings, (1..=10).map(record).collect())
                .unwrap();
            let bad = Record {
                value: b"{\"id\":".as_slice().into(),
                ..record(11)
            };
            log.append(Topic::Findings, vec![bad, record(12)]).unwrap();
            let store = Arc::new(home.open(policy.clone()).unwrap());
            assert!(store.lead(ROLE, "a", LEASE).unwrap());
            stage(&log, &store).round(Time(1)).unwrap();
            drop(store);
            let store = Arc::new(home.open(policy).unwrap());
            assert!(store.lead(ROLE, "a", LEASE).unwrap());
            let mut second = stage(&log, &store);
            drain(&mut second);
            // Rule 7 is tried out: it opens no alert.
            assert_eq!(store.alerts(&Filter::default()).unwrap().len(), 10);
            assert_eq!(second.metrics.lag.get(), 0);
            assert_eq!(
                second
                    .metrics
                    .dropped
                    .with_label_values(&["unreadable"])
                    .get(),
                1
            );

            // Another log in the same place: nothing fails, and what was known changes nothing.
            let other = Arc::new(Log::default());
            other
                .append(Topic::Findings, vec![record(1), record(2), record(99)])
                .unwrap();
            drain(&mut stage(&other, &store));
            assert_eq!(store.alerts(&Filter::default()).unwrap().len(), 11);
        }
    }

    #[test]
    fn of_two_nodes_one_works_and_the_other_goes_on() {
        let Some(place) = server() else { return };
        let home = Home::new(&place);
        let log = Arc::new(Log::default());
        let policy = Policy::new(&Config::default()).unwrap();
        let stops = [Stop::default(), Stop::default()];
        let metrics = [(), ()].map(|()| Metrics::new(&prometheus::Registry::new()).unwrap());
        let watcher = home.open(policy.clone()).unwrap();
        let until = |expected: usize| {
            let patience = Instant::now() + Duration::from_secs(60);
            while watcher.alerts(&Filter::default()).unwrap().len() < expected {
                if Instant::now() > patience {
                    stops.iter().for_each(Stop::stop);
                    panic!("{expected} findings were not applied");
                }
                std::thread::yield_now();
            }
        };
        let leader = || {
            let leads = metrics.each_ref().map(|m| m.is_leading(ROLE));
            assert_ne!(leads, [true, true]);
            leads.iter().position(|leads| *leads)
        };
        std::thread::scope(|scope| {
            for (n, stop) in stops.iter().enumerate() {
                let store = Arc::new(home.open(policy.clone()).unwrap());
                let (log, metrics, stop) = (log.clone(), metrics[n].clone(), stop.clone());
                let holder = format!("node {n}");
                let clock: Clock = Arc::new(|| Time(0));
                scope.spawn(move || run(log, store, clock, metrics, holder, stop).unwrap());
            }
            log.append(Topic::Findings, (1..=10).map(record).collect())
                .unwrap();
            until(9);
            let first = leader().unwrap();
            stops[first].stop();
            log.append(Topic::Findings, (11..=20).map(record).collect())
                .unwrap();
            let stopped = Instant::now();
            until(19);
            assert!(stopped.elapsed() < LEASE, "the lease was given back");
            assert!(metrics[1 - first].is_leading(ROLE));
            stops[1 - first].stop();
        });
        let alerts = watcher.alerts(&Filter::default()).unwrap();
        // Rule 7 is tried out.
        assert_eq!(alerts.len(), 19);
        assert!(alerts.iter().all(|a| a.count == 1));
    }

    #[test]
    fn it_stops_when_told() {
        for place in places() {
            let home = Home::new(&place);
            let policy = Policy::new(&Config::default()).unwrap();
            let store = Arc::new(home.open(policy).unwrap());
            let stop = Stop::default();
            stop.stop();
            let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
            run(
                Arc::new(Log::default()),
                store,
                Arc::new(|| Time(0)),
                metrics,
                "a".into(),
                stop,
            )
            .unwrap();
        }
    }
}
