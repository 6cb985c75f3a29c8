//! The stage between `meters` and `findings`: every partition of `meters` has its functions under watch.
//!
//! [`run`] is the loop of the program; it drives one [`Worker`] per partition. A worker reads a batch, feeds its
//! [`Tracker`] in the order of the log, and commits its new position, the findings and the changed rows of state as
//! one: after a kill -9 anywhere it stands where the last commit left it and says the same findings with the same ids
//! and revisions again. It judges nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus::crew::Crew;
use bus::{Bus, BusError, Commit, Offset, Position, Stop, Topic};
use event::{Clock, Finding, Time};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::correlate::finding_record;
use crate::meter::MeterRecord;
use crate::tracker::{Baseline, Counts, Kept, Options, StateError, Tracker};

/// The name under which positions and state are kept.
pub const CONSUMER: &str = "baseline";

/// How much of a partition one commit takes in.
const BATCH_BYTES: usize = 4 << 20;

/// How long a call of the loop waits for news before it looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(500);

/// Why the stage ended.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The log failed.
    #[error("cannot read or commit meters")]
    Bus(#[from] BusError),
    /// What was stored cannot be read.
    #[error("cannot restore the baselines of meters-{partition}")]
    State {
        /// The partition of `meters`.
        partition: u32,
        /// What does not fit.
        #[source]
        source: StateError,
    },
}

impl BaselineError {
    /// The log's answer, if it was the log that failed.
    fn bus(&self) -> Option<&BusError> {
        match self {
            BaselineError::Bus(source) => Some(source),
            BaselineError::State { .. } => None,
        }
    }
}

/// What the stage counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    received: IntCounter,
    sent: IntCounter,
    judged: IntCounter,
    dropped: IntCounterVec,
    errors: IntCounterVec,
    lag: IntGauge,
    series: IntGauge,
    kept_series: IntGaugeVec,
    kept_sightings: IntGaugeVec,
    judged_to: IntGauge,
}

impl Metrics {
    /// Registers the stage's metrics.
    ///
    /// # Errors
    /// A metric of that name is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let metrics = Metrics {
            received: IntCounter::new(
                "trailwarden_baseline_events_received_total",
                "Counts, sightings, deployments and watermarks read from the log.",
            )?,
            sent: IntCounter::new(
                "trailwarden_baseline_sent_total",
                "Findings and revisions of findings put on the log.",
            )?,
            judged: IntCounter::new(
                "trailwarden_baseline_judged_total",
                "Buckets of functions and groups judged, once for each baseline.",
            )?,
            dropped: IntCounterVec::new(
                Opts::new(
                    "trailwarden_baseline_dropped_total",
                    "Counts dropped, by reason: late (their minute was judged), crowded (too many functions or groups).",
                ),
                &["reason"],
            )?,
            errors: IntCounterVec::new(
                Opts::new(
                    "trailwarden_baseline_errors_total",
                    "Records that cannot be read (decode), gaps in the log (gap), batches put off for want of space (disk_full) or brokers (unavailable), batches that another node had done (fenced).",
                ),
                &["kind"],
            )?,
            lag: IntGauge::new(
                "trailwarden_baseline_lag_records",
                "Records of meters not read yet.",
            )?,
            series: IntGauge::new(
                "trailwarden_baseline_series",
                "Functions and groups under watch.",
            )?,
            kept_series: IntGaugeVec::new(
                Opts::new(
                    "trailwarden_baseline_kept_series",
                    "Functions or groups of which a baseline keeps what is usual, by rule: 1 or 2 KB each.",
                ),
                &["rule"],
            )?,
            kept_sightings: IntGaugeVec::new(
                Opts::new(
                    "trailwarden_baseline_kept_sightings",
                    "Sightings that a baseline with new: keeps until they are judged, by rule: about 1 KB each.",
                ),
                &["rule"],
            )?,
            judged_to: IntGauge::new(
                "trailwarden_baseline_judged_timestamp_seconds",
                "Event time up to which everything is judged; 0 before it is known.",
            )?,
        };
        for reason in ["late", "crowded"] {
            metrics.dropped.with_label_values(&[reason]);
        }
        for kind in ["decode", "gap", "disk_full", "unavailable", "fenced"] {
            metrics.errors.with_label_values(&[kind]);
        }
        registry.register(Box::new(metrics.received.clone()))?;
        registry.register(Box::new(metrics.sent.clone()))?;
        registry.register(Box::new(metrics.judged.clone()))?;
        registry.register(Box::new(metrics.dropped.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.lag.clone()))?;
        registry.register(Box::new(metrics.series.clone()))?;
        registry.register(Box::new(metrics.kept_series.clone()))?;
        registry.register(Box::new(metrics.kept_sightings.clone()))?;
        registry.register(Box::new(metrics.judged_to.clone()))?;
        Ok(metrics)
    }

    fn error(&self, kind: &str) {
        self.errors.with_label_values(&[kind]).inc();
    }

    fn count(&self, before: Counts, after: Counts) {
        let dropped = |reason: &str, many: u64| {
            self.dropped.with_label_values(&[reason]).inc_by(many);
        };
        dropped("late", after.late - before.late);
        dropped("crowded", after.crowded - before.crowded);
        self.judged.inc_by(after.judged - before.judged);
    }

    fn show(&self, crew: &Crew<Worker>) {
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.lag
            .set(whole(crew.workers().map(|(_, w)| w.lag).sum()));
        let series: usize = crew.workers().map(|(_, w)| w.tracker.series()).sum();
        self.series.set(whole(series as u64));
        let mut all: BTreeMap<&str, Kept> = BTreeMap::new();
        for (rule, kept) in crew.workers().flat_map(|(_, w)| w.tracker.kept()) {
            let sum = all.entry(rule).or_default();
            sum.series += kept.series;
            if let Some(more) = kept.sightings {
                *sum.sightings.get_or_insert(0) += more;
            }
        }
        self.kept_series.reset();
        self.kept_sightings.reset();
        for (rule, kept) in all {
            let gauge = self.kept_series.with_label_values(&[rule]);
            gauge.set(whole(kept.series as u64));
            if let Some(sightings) = kept.sightings {
                let gauge = self.kept_sightings.with_label_values(&[rule]);
                gauge.set(whole(sightings as u64));
            }
        }
        let judged = crew.workers().filter_map(|(_, w)| w.tracker.judged_to());
        self.judged_to
            .set(judged.min().map_or(0, |time| time.millis() / 1_000));
    }
}

/// Judges until it is told to stop. `baselines` is asked before every round; a new set takes effect when it is another
/// `Arc` than before. The number of partitions of `events` in `options` is taken from the log, and `max_series` is
/// shared out among the partitions of `meters`.
///
/// # Errors
/// The log failed in a way that waiting does not mend, or stored state cannot be read.
pub fn run(
    bus: Arc<dyn Bus>,
    baselines: impl Fn() -> Arc<[Baseline]>,
    options: Options,
    metrics: &Metrics,
    clock: &Clock,
    stop: &Stop,
) -> Result<(), BaselineError> {
    let mut rules = baselines();
    let mut crew: Crew<Worker> = Crew::new(CONSUMER, Topic::Meters);
    while !stop.is_stopped() {
        let now = baselines();
        if !Arc::ptr_eq(&rules, &now) {
            rules = now;
            crew.workers_mut()
                .for_each(|w| w.tracker.set_rules(Arc::clone(&rules)));
        }
        let moved = crew.round(
            &*bus,
            |partition| Worker::open(Arc::clone(&bus), partition, &rules, options),
            |worker| Ok(worker.round(BATCH_BYTES, metrics, clock)?),
            BaselineError::bus,
            |kind| metrics.error(kind),
        )?;
        metrics.show(&crew);
        if !moved {
            crew.wait(&*bus, |w| w.next, PATIENCE, |kind| metrics.error(kind))?;
        }
    }
    Ok(())
}

/// The functions of one partition of `meters`, at their place in the log.
pub struct Worker {
    bus: Arc<dyn Bus>,
    partition: u32,
    tracker: Tracker,
    next: Offset,
    lag: u64,
}

impl Worker {
    /// The worker as its last commit left it.
    ///
    /// # Errors
    /// The log cannot be read, or the state in it.
    pub fn open(
        bus: Arc<dyn Bus>,
        partition: u32,
        rules: &Arc<[Baseline]>,
        options: Options,
    ) -> Result<Worker, BaselineError> {
        let partitions = bus.partitions(Topic::Meters).max(1) as usize;
        let options = Options {
            events_partitions: bus.partitions(Topic::Events),
            max_series: options.max_series.div_ceil(partitions),
            ..options
        };
        let next = match bus.position(CONSUMER, Topic::Meters, partition)? {
            Some(next) => next,
            None => bus.bounds(Topic::Meters, partition)?.start,
        };
        let rows = bus.state_scan(CONSUMER, partition, b"")?;
        let tracker = Tracker::restore(Arc::clone(rules), options, &rows)
            .map_err(|source| BaselineError::State { partition, source })?;
        Ok(Worker {
            bus,
            partition,
            tracker,
            next,
            lag: 0,
        })
    }

    /// Reads a batch of at most `max_bytes` and commits what follows from it. Tells whether there was one. After an
    /// error the worker must be opened again.
    ///
    /// # Errors
    /// The log failed; nothing took effect.
    pub fn round(
        &mut self,
        max_bytes: usize,
        metrics: &Metrics,
        clock: &Clock,
    ) -> Result<bool, BusError> {
        let read = self
            .bus
            .read(Topic::Meters, self.partition, self.next, max_bytes);
        let batch = match read {
            Err(BusError::OutOfRange { asked, start, .. }) if asked < start => {
                tracing::error!(
                    partition = self.partition,
                    from = asked,
                    start,
                    "meters were dropped by retention before they were read"
                );
                metrics.error("gap");
                self.commit(start, &[], Time::default())?;
                return Ok(true);
            }
            batch => batch?,
        };
        if batch.records.is_empty() {
            self.lag = 0;
            return Ok(false);
        }
        let before = self.tracker.counts();
        let mut findings = Vec::new();
        for (offset, record) in &batch.records {
            match MeterRecord::decode(&record.value) {
                Ok(record) => {
                    metrics.received.inc();
                    self.tracker.take(record, &mut findings);
                }
                Err(error) => {
                    metrics.error("decode");
                    let partition = self.partition;
                    tracing::error!(partition, offset, %error, "a record of meters cannot be read");
                }
            }
        }
        self.commit(batch.next, &findings, clock())?;
        metrics.sent.inc_by(findings.len() as u64);
        metrics.count(before, self.tracker.counts());
        let bounds = self.bus.bounds(Topic::Meters, self.partition)?;
        self.lag = bounds.end.saturating_sub(self.next);
        Ok(true)
    }

    fn commit(&mut self, to: Offset, findings: &[Finding], now: Time) -> Result<(), BusError> {
        let outputs = findings
            .iter()
            .map(|finding| (Topic::Findings, finding_record(finding, now)))
            .collect();
        self.bus.commit(Commit {
            consumer: CONSUMER.into(),
            positions: vec![Position {
                topic: Topic::Meters,
                partition: self.partition,
                from: self.next,
                to,
            }],
            outputs,
            state: self.tracker.changes(self.partition),
        })?;
        self.next = to;
        Ok(())
    }
}
