//! What intake counts.
//!
//! [`Metrics`] is made once and given to every source; labels are closed sets of words from this code, never
//! from what is read.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::decode::Summary;
use crate::status::Collectors;

/// The counters of intake.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Records decoded, by source.
    pub events_received: IntCounterVec,
    /// Events appended to the log, by source.
    pub events_sent: IntCounterVec,
    /// Events by the tier that they were given.
    pub tiers: IntCounterVec,
    /// What is no event and was passed over on purpose, by reason.
    pub events_dropped: IntCounterVec,
    /// Dead letters appended, by reason.
    pub dead_letters: IntCounterVec,
    /// Secrets and fields that were replaced, by kind.
    pub redacted: IntCounterVec,
    /// What failed and is tried again, by kind.
    pub errors: IntCounterVec,
    /// Objects that a queue or a backfill told of, by what became of them.
    pub objects: IntCounterVec,
    /// What CloudTrail's digests do not vouch for, by its word, each counted when it is first seen.
    pub violations: IntCounterVec,
    /// Messages that wait in a queue, by its name in the configuration.
    pub waiting: IntGaugeVec,
    /// How far a stream of Kinesis is ahead of what was read of it, in seconds, by its name in the configuration.
    pub stream_lag: IntGaugeVec,
    /// How far the slowest log group was read, in seconds before now, by the name of its entry in the configuration.
    pub log_group_lag: IntGaugeVec,
    /// How many log groups are read, by the name of their entry in the configuration.
    pub log_groups: IntGaugeVec,
    /// Requests that were not taken, by endpoint and reason.
    pub requests_refused: IntCounterVec,
    /// How far the time of the latest event taken in lies behind the clock, in seconds.
    pub lag: IntGauge,
    /// How long one object or request took.
    pub seconds: Histogram,
    /// How each source is.
    pub collectors: Collectors,
}

impl Metrics {
    /// Makes the counters and registers them.
    pub fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let labelled = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let counters = |name: &str, help: &str, label: &str| labelled(name, help, &[label]);
        let lag = IntGauge::new(
            "trailwarden_ingest_lag_seconds",
            "How far the latest event taken in lies behind the clock",
        )?;
        registry.register(Box::new(lag.clone()))?;
        let seconds = Histogram::with_opts(
            HistogramOpts::new(
                "trailwarden_ingest_object_seconds",
                "How long one object or request took to decode and append",
            )
            .buckets(vec![
                0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 1800.0,
            ]),
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let gauges = |name: &str, help: &str, label: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let waiting = gauges(
            "trailwarden_ingest_queue_messages",
            "Messages that wait in a queue",
            "queue",
        )?;
        let stream_lag = gauges(
            "trailwarden_ingest_stream_lag_seconds",
            "How far a stream is ahead of what was read of it",
            "stream",
        )?;
        let log_group_lag = gauges(
            "trailwarden_ingest_log_groups_lag_seconds",
            "How long ago the slowest log group was read up to",
            "log_groups",
        )?;
        let log_groups = gauges(
            "trailwarden_ingest_log_groups",
            "Log groups that are read",
            "log_groups",
        )?;
        Ok(Metrics {
            events_received: counters(
                "trailwarden_ingest_events_received_total",
                "Records decoded",
                "source",
            )?,
            events_sent: counters(
                "trailwarden_ingest_events_sent_total",
                "Events appended to the log",
                "source",
            )?,
            tiers: counters(
                "trailwarden_ingest_tier_events_total",
                "Events by the tier that they were given",
                "tier",
            )?,
            events_dropped: counters(
                "trailwarden_ingest_events_dropped_total",
                "What is no event and was passed over on purpose",
                "reason",
            )?,
            dead_letters: counters(
                "trailwarden_ingest_dead_letters_total",
                "Dead letters appended",
                "reason",
            )?,
            redacted: counters(
                "trailwarden_ingest_redacted_total",
                "Secrets and fields that were replaced in records and dead letters",
                "kind",
            )?,
            errors: counters(
                "trailwarden_ingest_errors_total",
                "What failed and is tried again",
                "kind",
            )?,
            objects: counters(
                "trailwarden_ingest_objects_total",
                "Objects of S3 that were told of",
                "outcome",
            )?,
            violations: counters(
                "trailwarden_ingest_integrity_violations_total",
                "What the digests of CloudTrail do not vouch for",
                "kind",
            )?,
            waiting,
            stream_lag,
            log_group_lag,
            log_groups,
            requests_refused: labelled(
                "trailwarden_ingest_requests_refused_total",
                "Requests that were not taken",
                &["source", "reason"],
            )?,
            lag,
            seconds,
            collectors: Collectors::default(),
        })
    }

    /// Counts what is no event and was passed over on purpose.
    pub(crate) fn count_dropped(&self, summary: &Summary) {
        for (reason, n) in [
            ("control_message", summary.control_messages),
            ("digest", summary.digests),
            ("test_message", summary.test_messages),
        ] {
            self.events_dropped.with_label_values(&[reason]).inc_by(n);
        }
    }
}
