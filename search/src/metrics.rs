//! What the index stage counts, under the names that all stages share (STYLE §11).
//!
//! [`Metrics`] is made once for a registry and cloned into the indexer and the searcher. No label is ever taken from
//! the content of a log.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// The counters of this crate.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Records read from the events topic.
    pub received: IntCounter,
    /// Events that stand in a published split.
    pub sent: IntCounter,
    /// Events not indexed, by reason: `repeat`, `expired`, `unreadable`, `tier` (not searched, as configured).
    pub dropped: IntCounterVec,
    /// Failures by kind: `decode`, `publish`, `merge`, `query`, `evidence` (the index is not what was published).
    pub errors: IntCounterVec,
    /// Events indexed in part and otherwise compared with their original.
    pub overflow: IntCounter,
    /// Records of the events topic that are not in a published split yet, by partition.
    pub lag: IntGaugeVec,
    /// Published splits.
    pub splits: IntGauge,
    /// Events in published splits.
    pub events: IntGauge,
    /// Events that are not searchable any more, by cause: `age`, `size`, `hand`, `rebuild`.
    pub removed: IntCounterVec,
    /// Bytes of the published splits.
    pub bytes: IntGauge,
    /// Legal holds.
    pub holds: IntGauge,
    /// Splits that would go, if holds did not keep them.
    pub held: IntGauge,
    /// By how many bytes the index is larger than it may be, since holds keep the rest.
    pub over: IntGauge,
    /// Merges done.
    pub merges: IntCounter,
    /// How long building and publishing a split took.
    pub publish_seconds: Histogram,
    /// How long answering took.
    pub search_seconds: Histogram,
    /// Questions to other index nodes, by node number and what came of them: `answered` or one of
    /// [`crate::nodes::Unanswered::kind`].
    pub node_asks: IntCounterVec,
    /// How long other index nodes took to answer, by node number.
    pub node_seconds: HistogramVec,
    /// Does an index node answer? 1 or 0, by node number.
    pub node_up: IntGaugeVec,
}

impl Metrics {
    /// Registers the counters.
    pub fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(format!("trailwarden_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters = |name: &str, help: &str, label: &str| -> prometheus::Result<IntCounterVec> {
            let opts = Opts::new(format!("trailwarden_{name}"), help);
            let counters = IntCounterVec::new(opts, &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(format!("trailwarden_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let seconds = |name: &str, help: &str| -> prometheus::Result<Histogram> {
            let buckets = prometheus::exponential_buckets(0.001, 2.0, 15)?;
            let opts = HistogramOpts::new(format!("trailwarden_{name}"), help).buckets(buckets);
            let histogram = Histogram::with_opts(opts)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let lag = IntGaugeVec::new(
            Opts::new(
                "trailwarden_index_lag",
                "Records of the events topic that are not searchable yet",
            ),
            &["partition"],
        )?;
        registry.register(Box::new(lag.clone()))?;
        let node_asks = IntCounterVec::new(
            Opts::new(
                "trailwarden_search_node_asks_total",
                "Questions to other index nodes, by what came of them",
            ),
            &["node", "outcome"],
        )?;
        registry.register(Box::new(node_asks.clone()))?;
        let node_seconds = HistogramVec::new(
            HistogramOpts::new(
                "trailwarden_search_node_seconds",
                "Time that other index nodes took to answer",
            )
            .buckets(prometheus::exponential_buckets(0.001, 2.0, 15)?),
            &["node"],
        )?;
        registry.register(Box::new(node_seconds.clone()))?;
        let node_up = IntGaugeVec::new(
            Opts::new(
                "trailwarden_search_node_up",
                "Whether another index node answers",
            ),
            &["node"],
        )?;
        registry.register(Box::new(node_up.clone()))?;
        Ok(Metrics {
            received: counter(
                "index_events_received_total",
                "Records read from the events topic",
            )?,
            sent: counter("index_events_sent_total", "Events made searchable")?,
            dropped: counters(
                "index_events_dropped_total",
                "Events not indexed, by reason",
                "reason",
            )?,
            errors: counters(
                "index_errors_total",
                "Failures of indexing and searching",
                "kind",
            )?,
            overflow: counter(
                "index_overflow_events_total",
                "Events beyond the bounds of the index, found through their original",
            )?,
            lag,
            splits: gauge("index_splits", "Published splits")?,
            events: gauge("index_events", "Events in published splits")?,
            removed: counters(
                "index_events_removed_total",
                "Events removed from the index with their splits, by cause",
                "cause",
            )?,
            bytes: gauge("index_bytes", "Bytes of the published splits")?,
            holds: gauge("index_holds", "Legal holds")?,
            held: gauge(
                "index_held_splits",
                "Splits that are due for removal and kept by a legal hold",
            )?,
            over: gauge(
                "index_over_bytes",
                "Bytes beyond search.max_mib that legal holds keep",
            )?,
            merges: counter("index_merges_total", "Merges of splits")?,
            publish_seconds: seconds("index_publish_seconds", "Time to build and publish a split")?,
            search_seconds: seconds("search_seconds", "Time to answer a search")?,
            node_asks,
            node_seconds,
            node_up,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_free_in_a_new_registry() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.dropped.with_label_values(&["repeat"]).inc();
        assert!(Metrics::new(&registry).is_err());
    }
}
