//! What the log says about itself to Prometheus.
//!
//! [`Metered`] wraps any [`Bus`] and counts what goes in and out of it, how long durable writes take and which errors
//! were given, so that every implementation is measured alike. Lag is asked, not counted: [`Metered::observe_lag`] is
//! called by whoever answers a scrape, so that it also grows for a consumer that has stopped. Labels are topics,
//! partitions and consumer names, never content.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use event::Time;
use prometheus::{
    Counter, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

use crate::kafka::Numbers;
use crate::{Batch, Bus, BusError, Commit, Entry, Offset, Progress, Record, Topic};

/// The metrics of the log.
#[derive(Debug, Clone)]
pub struct Metrics {
    received: IntCounterVec,
    received_bytes: IntCounterVec,
    sent: IntCounterVec,
    errors: IntCounterVec,
    write_seconds: Histogram,
    lag: IntGaugeVec,
    lag_seconds: GaugeVec,
    poisoned: IntGauge,
    kafka: Option<KafkaMetrics>,
}

/// What is counted only of a log on Kafka.
#[derive(Debug, Clone)]
struct KafkaMetrics {
    broker_errors: IntCounter,
    rebalances: IntCounter,
    producer_restarts: IntCounter,
    fenced: IntCounter,
    restores: IntCounter,
    restore_seconds: Counter,
    snapshots: IntCounter,
    queue_records: IntGauge,
    queue_bytes: IntGauge,
    assigned: IntGaugeVec,
}

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let counter = |name: &str, help: &str, label: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let metrics = Metrics {
            received: counter(
                "trailwarden_bus_records_received_total",
                "Records made durable, by append or commit.",
                "topic",
            )?,
            received_bytes: counter(
                "trailwarden_bus_received_bytes_total",
                "Bytes of keys and values made durable.",
                "topic",
            )?,
            sent: counter(
                "trailwarden_bus_records_sent_total",
                "Records read.",
                "topic",
            )?,
            errors: counter(
                "trailwarden_bus_errors_total",
                "Calls that failed; `fenced` is a worker that came second.",
                "kind",
            )?,
            write_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "trailwarden_bus_write_seconds",
                    "How long an append or a commit took to be durable.",
                )
                .buckets(prometheus::exponential_buckets(0.000_5, 2.0, 15)?),
            )?,
            lag: IntGaugeVec::new(
                Opts::new(
                    "trailwarden_bus_lag_records",
                    "Records that a consumer has not yet handled.",
                ),
                &["consumer", "topic", "partition"],
            )?,
            lag_seconds: GaugeVec::new(
                Opts::new(
                    "trailwarden_bus_lag_seconds",
                    "How long the oldest record that a consumer has not yet handled has been waiting; 0 where it has all.",
                ),
                &["consumer", "topic", "partition"],
            )?,
            kafka: None,
            poisoned: IntGauge::new(
                "trailwarden_bus_poisoned",
                "1 after a failed fsync: nothing is written until a restart.",
            )?,
        };
        registry.register(Box::new(metrics.write_seconds.clone()))?;
        registry.register(Box::new(metrics.lag.clone()))?;
        registry.register(Box::new(metrics.lag_seconds.clone()))?;
        registry.register(Box::new(metrics.poisoned.clone()))?;
        Ok(metrics)
    }

    /// Registers what is counted only of a log on Kafka.
    pub fn with_kafka(mut self, registry: &Registry) -> prometheus::Result<Metrics> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let metrics = KafkaMetrics {
            broker_errors: counter(
                "trailwarden_kafka_broker_errors_total",
                "Errors of connections and brokers that the client library told.",
            )?,
            rebalances: counter(
                "trailwarden_kafka_rebalances_total",
                "How often partitions were given to this node or taken from it.",
            )?,
            producer_restarts: counter(
                "trailwarden_kafka_producer_restarts_total",
                "Producers that failed for good and were replaced.",
            )?,
            fenced: counter(
                "trailwarden_kafka_fenced_total",
                "Commits of state that came second: another node had done the work.",
            )?,
            restores: counter(
                "trailwarden_kafka_restores_total",
                "How often state of a partition was read from its changelog.",
            )?,
            restore_seconds: Counter::new(
                "trailwarden_kafka_restore_seconds_total",
                "How long that took in all.",
            )?,
            snapshots: counter(
                "trailwarden_kafka_snapshots_total",
                "Snapshots of state written to changelogs.",
            )?,
            queue_records: gauge(
                "trailwarden_kafka_producer_queue_records",
                "Records on their way to the brokers.",
            )?,
            queue_bytes: gauge("trailwarden_kafka_producer_queue_bytes", "Their bytes.")?,
            assigned: IntGaugeVec::new(
                Opts::new(
                    "trailwarden_kafka_assigned_partitions",
                    "Partitions that this node works on at the moment.",
                ),
                &["consumer"],
            )?,
        };
        registry.register(Box::new(metrics.restore_seconds.clone()))?;
        registry.register(Box::new(metrics.assigned.clone()))?;
        self.kafka = Some(metrics);
        Ok(self)
    }

    /// Takes over what the clients of Kafka have counted.
    pub fn observe_kafka(&self, numbers: &Numbers) {
        let Some(metrics) = &self.kafka else {
            return;
        };
        let now = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let count = |counter: &IntCounter, number: &AtomicU64| {
            counter.inc_by(now(number).saturating_sub(counter.get()));
        };
        count(&metrics.broker_errors, &numbers.broker_errors);
        count(&metrics.rebalances, &numbers.rebalances);
        count(&metrics.producer_restarts, &numbers.producer_restarts);
        count(&metrics.fenced, &numbers.fenced);
        count(&metrics.restores, &numbers.restores);
        count(&metrics.snapshots, &numbers.snapshots);
        let seconds = now(&numbers.restore_millis) as f64 / 1_000.0;
        let more = seconds - metrics.restore_seconds.get();
        metrics.restore_seconds.inc_by(more.max(0.0));
        let gauge = |number: &AtomicU64| i64::try_from(now(number)).unwrap_or(i64::MAX);
        metrics.queue_records.set(gauge(&numbers.queue_records));
        metrics.queue_bytes.set(gauge(&numbers.queue_bytes));
    }

    /// Says whether the log still takes writes.
    pub fn observe_poisoned(&self, poisoned: bool) {
        self.poisoned.set(i64::from(poisoned));
    }

    fn count_received<'r>(&self, records: impl Iterator<Item = (Topic, &'r Record)>) {
        let mut counts = [(0, 0); Topic::ALL.len()];
        for (topic, record) in records {
            let (count, bytes) = &mut counts[topic as usize];
            *count += 1;
            *bytes += (record.key.len() + record.value.len()) as u64;
        }
        for (topic, (count, bytes)) in Topic::ALL.into_iter().zip(counts) {
            if count > 0 {
                self.received
                    .with_label_values(&[topic.as_str()])
                    .inc_by(count);
                self.received_bytes
                    .with_label_values(&[topic.as_str()])
                    .inc_by(bytes);
            }
        }
    }

    fn count_error<T>(&self, result: Result<T, BusError>) -> Result<T, BusError> {
        if let Err(e) = &result {
            self.errors.with_label_values(&[e.kind()]).inc();
        }
        result
    }
}

/// How many reads of a partition are remembered by the time of their last record.
const RECENT: usize = 256;

/// Where reads of a partition ended, and the time of the record before.
type Reads = Mutex<BTreeMap<(Topic, u32), VecDeque<(Offset, Time)>>>;

/// A log that counts.
#[derive(Debug)]
pub struct Metered<B> {
    bus: B,
    metrics: Metrics,
    reads: Reads,
}

impl<B: Bus> Metered<B> {
    /// Counts what `bus` does.
    pub fn new(bus: B, metrics: Metrics) -> Metered<B> {
        Metered {
            bus,
            metrics,
            reads: Reads::default(),
        }
    }

    /// The log itself.
    pub fn inner(&self) -> &B {
        &self.bus
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Sets the lag of every consumer that works here, in records and in seconds.
    ///
    /// # Errors
    /// The log cannot say where it ends.
    pub fn observe_lag(&self, now: Time) -> Result<(), BusError> {
        let mut assigned: BTreeMap<String, i64> = BTreeMap::new();
        for progress in self.bus.progress()? {
            let count = assigned.entry(progress.consumer.clone()).or_default();
            let partition = progress.partition.to_string();
            let labels = [
                progress.consumer.as_str(),
                progress.topic.as_str(),
                &partition,
            ];
            if !progress.here {
                // Somebody else's by now: an old number would look like a lag.
                let _ = self.metrics.lag.remove_label_values(&labels);
                let _ = self.metrics.lag_seconds.remove_label_values(&labels);
                continue;
            }
            *count += 1;
            let end = self.bus.bounds(progress.topic, progress.partition)?.end;
            let lag = end.saturating_sub(progress.next);
            self.metrics
                .lag
                .with_label_values(&labels)
                .set(i64::try_from(lag).unwrap_or(i64::MAX));
            let waits = match lag {
                0 => Some(0.0),
                _ => self
                    .read_at(&progress)
                    .map(|time| (now.0 - time.0).max(0) as f64 / 1e6),
            };
            if let Some(waits) = waits {
                self.metrics
                    .lag_seconds
                    .with_label_values(&labels)
                    .set(waits);
            }
        }
        if let Some(kafka) = &self.metrics.kafka {
            for (consumer, count) in assigned {
                kafka.assigned.with_label_values(&[&consumer]).set(count);
            }
        }
        Ok(())
    }

    /// The time of the last record before a position, as far as it is remembered.
    fn read_at(&self, progress: &Progress) -> Option<Time> {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads
            .get(&(progress.topic, progress.partition))?
            .iter()
            .filter(|(at, _)| *at <= progress.next)
            .max_by_key(|(at, _)| *at)
            .map(|(_, time)| *time)
    }
}

impl<B: Bus> Bus for Metered<B> {
    fn partitions(&self, topic: Topic) -> u32 {
        self.bus.partitions(topic)
    }

    fn append(&self, topic: Topic, records: Vec<Record>) -> Result<(), BusError> {
        // A record is two cheap handles; the bytes are not copied.
        let counted = records.clone();
        let timer = self.metrics.write_seconds.start_timer();
        let done = self.bus.append(topic, records);
        timer.observe_duration();
        if done.is_ok() {
            self.metrics
                .count_received(counted.iter().map(|record| (topic, record)));
        }
        self.metrics.count_error(done)
    }

    fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Batch, BusError> {
        let read = self.bus.read(topic, partition, from, max_bytes);
        if let Ok(batch) = &read {
            self.metrics
                .sent
                .with_label_values(&[topic.as_str()])
                .inc_by(batch.records.len() as u64);
            if let Some((_, last)) = batch.records.last() {
                let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
                let ends = reads.entry((topic, partition)).or_default();
                ends.push_back((batch.next, last.time));
                if ends.len() > RECENT {
                    ends.pop_front();
                }
            }
        }
        self.metrics.count_error(read)
    }

    fn wait(
        &self,
        topic: Topic,
        from: &[(u32, Offset)],
        timeout: Duration,
    ) -> Result<bool, BusError> {
        self.metrics
            .count_error(self.bus.wait(topic, from, timeout))
    }

    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, BusError> {
        self.metrics.count_error(self.bus.bounds(topic, partition))
    }

    fn ends(&self, topic: Topic) -> Result<Vec<Offset>, BusError> {
        self.metrics.count_error(self.bus.ends(topic))
    }

    fn commit(&self, commit: Commit) -> Result<(), BusError> {
        let outputs = commit.outputs.clone();
        let timer = self.metrics.write_seconds.start_timer();
        let done = self.bus.commit(commit);
        timer.observe_duration();
        if done.is_ok() {
            self.metrics
                .count_received(outputs.iter().map(|(topic, record)| (*topic, record)));
        }
        self.metrics.count_error(done)
    }

    fn position(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<Offset>, BusError> {
        self.metrics
            .count_error(self.bus.position(consumer, topic, partition))
    }

    fn state_get(
        &self,
        consumer: &str,
        partition: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        self.metrics
            .count_error(self.bus.state_get(consumer, partition, keys))
    }

    fn state_scan(
        &self,
        consumer: &str,
        partition: u32,
        prefix: &[u8],
    ) -> Result<Vec<Entry>, BusError> {
        self.metrics
            .count_error(self.bus.state_scan(consumer, partition, prefix))
    }

    fn retain(&self, now: Time) -> Result<(), BusError> {
        self.metrics.count_error(self.bus.retain(now))
    }

    fn assigned(&self, consumer: &str, topic: Topic) -> Result<Vec<u32>, BusError> {
        self.metrics.count_error(self.bus.assigned(consumer, topic))
    }

    fn progress(&self) -> Result<Vec<Progress>, BusError> {
        self.metrics.count_error(self.bus.progress())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Position;
    use crate::embedded::EmbeddedBus;
    use bytes::Bytes;
    use prometheus::TextEncoder;

    #[test]
    fn counts_what_happens() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let mut options = crate::embedded::Options::default();
        options.partitions.events = 1;
        let bus = Metered::new(EmbeddedBus::open(dir.path(), options).unwrap(), metrics);
        let record = Record {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"value"),
            time: Time::default(),
        };
        bus.append(Topic::Events, vec![record.clone(); 3]).unwrap();
        bus.read(Topic::Events, 0, 1, usize::MAX).unwrap();
        bus.read(Topic::Events, 0, 0, 1).unwrap();
        let commit = Commit {
            consumer: "match".into(),
            positions: vec![Position {
                topic: Topic::Events,
                partition: 0,
                from: 0,
                to: 1,
            }],
            outputs: vec![(Topic::Findings, record)],
            ..Commit::default()
        };
        bus.commit(commit.clone()).unwrap();
        bus.commit(commit).unwrap_err();
        bus.observe_lag(Time::from_seconds(7)).unwrap();
        bus.metrics().observe_poisoned(false);
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            r#"trailwarden_bus_records_received_total{topic="events"} 3"#,
            r#"trailwarden_bus_records_received_total{topic="findings"} 1"#,
            r#"trailwarden_bus_received_bytes_total{topic="events"} 18"#,
            r#"trailwarden_bus_records_sent_total{topic="events"} 3"#,
            r#"trailwarden_bus_errors_total{kind="fenced"} 1"#,
            r#"trailwarden_bus_lag_records{consumer="match",partition="0",topic="events"} 2"#,
            r#"trailwarden_bus_lag_seconds{consumer="match",partition="0",topic="events"} 7"#,
            "trailwarden_bus_write_seconds_count 3",
            "trailwarden_bus_poisoned 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
