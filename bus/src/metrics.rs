//! What the log says about itself to Prometheus.
//!
//! [`Metered`] wraps any [`Bus`] and counts what goes in and out of it, how long durable writes take and which errors
//! were given, so that every implementation is measured alike. Lag is asked, not counted: [`Metrics::observe_lag`] is
//! called by whoever answers a scrape, so that it also grows for a consumer that has stopped. Labels are topics,
//! partitions and consumer names, never content.

use std::ops::Range;
use std::time::Duration;

use event::Time;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::embedded::EmbeddedBus;
use crate::{Batch, Bus, BusError, Commit, Entry, Offset, Record, Topic};

/// The metrics of the log.
#[derive(Debug, Clone)]
pub struct Metrics {
    received: IntCounterVec,
    received_bytes: IntCounterVec,
    sent: IntCounterVec,
    errors: IntCounterVec,
    write_seconds: Histogram,
    lag: IntGaugeVec,
    poisoned: IntGauge,
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
            poisoned: IntGauge::new(
                "trailwarden_bus_poisoned",
                "1 after a failed fsync: nothing is written until a restart.",
            )?,
        };
        registry.register(Box::new(metrics.write_seconds.clone()))?;
        registry.register(Box::new(metrics.lag.clone()))?;
        registry.register(Box::new(metrics.poisoned.clone()))?;
        Ok(metrics)
    }

    /// Sets the lag of every consumer that has a position, and whether the log still takes writes.
    pub fn observe_lag(&self, bus: &EmbeddedBus) -> Result<(), BusError> {
        self.poisoned.set(i64::from(bus.poisoned().is_some()));
        for (consumer, topic, partition, next) in bus.positions()? {
            let end = bus.bounds(topic, partition)?.end;
            self.lag
                .with_label_values(&[consumer.as_str(), topic.as_str(), &partition.to_string()])
                .set(i64::try_from(end.saturating_sub(next)).unwrap_or(i64::MAX));
        }
        Ok(())
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

/// A log that counts.
#[derive(Debug)]
pub struct Metered<B> {
    bus: B,
    metrics: Metrics,
}

impl<B: Bus> Metered<B> {
    /// Counts what `bus` does.
    pub fn new(bus: B, metrics: Metrics) -> Metered<B> {
        Metered { bus, metrics }
    }

    /// The log itself.
    pub fn inner(&self) -> &B {
        &self.bus
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Position;
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
        bus.metrics().observe_lag(bus.inner()).unwrap();
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            r#"trailwarden_bus_records_received_total{topic="events"} 3"#,
            r#"trailwarden_bus_records_received_total{topic="findings"} 1"#,
            r#"trailwarden_bus_received_bytes_total{topic="events"} 18"#,
            r#"trailwarden_bus_records_sent_total{topic="events"} 2"#,
            r#"trailwarden_bus_errors_total{kind="fenced"} 1"#,
            r#"trailwarden_bus_lag_records{consumer="match",partition="0",topic="events"} 2"#,
            "trailwarden_bus_write_seconds_count 3",
            "trailwarden_bus_poisoned 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
