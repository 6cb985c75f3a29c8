//! The stage between `matches` and `findings`: every partition of `matches` has its windows.
//!
//! [`run`] is the loop of the program; it drives one [`Worker`] per partition. A worker reads a batch, feeds its
//! [`Windows`] in the order of the log, and commits its new position, the findings and the changed rows of state
//! as one: after a kill -9 anywhere it stands where the last commit left it and says the same findings with the
//! same ids and revisions again. It decides nothing itself; what a window is stands in `window`, and what the
//! findings mean to people in alerting.
//!
//! Where correlations refer to correlations, what fires of a lower one goes to `matches` in the same commit, as matches
//! of the one above, and every partition tells all others how far it has settled each level that has one above it.
//!
//! What comes later than the allowed lateness is withheld from the windows and counted again from the log, between
//! batches, in steps; its worklist and what it has to remember are committed with the rest. How, stands in `recount`.
//!
//! A finding's key on `findings` is its `id`, which is the first `episode` that it was said with: all its revisions
//! meet in one partition, in order, even where a late event makes the episode begin earlier. A record that cannot be
//! read is counted and passed over. When the log has dropped what was not read yet, the stage says so and goes on
//! at the log's first record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus::crew::Crew;
use bus::{Bus, BusError, Commit, Offset, Position, Record, Stop, Topic};
use bytes::Bytes;
use event::{Clock, Finding, Time};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::recount::{self, Answer, Place, Recount, Step};
use crate::window::{
    Correlation, Counts, LevelWatermark, MatchRecord, Options, StateError, Windows, level_records,
};

/// The name under which positions and state are kept.
pub const CONSUMER: &str = "correlate";

/// How much of a partition one commit takes in.
const BATCH_BYTES: usize = 4 << 20;

/// How long a call of the loop waits for news before it looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(500);

/// How the keys of the rows begin that windows are stored in.
const WINDOW_ROWS: [&[u8]; 3] = [b"c", b"g", b"s"];

/// Why the stage ended.
#[derive(Debug, thiserror::Error)]
pub enum CorrelateError {
    /// The log failed.
    #[error("cannot correlate matches-{partition}")]
    Bus {
        /// The partition of `matches`.
        partition: u32,
        /// The log's answer.
        #[source]
        source: BusError,
    },
    /// The log failed before it was known for which partition.
    #[error("cannot correlate matches")]
    Log(#[from] BusError),
    /// What was stored cannot be read.
    #[error("cannot restore the windows of matches-{partition}")]
    State {
        /// The partition of `matches`.
        partition: u32,
        /// What does not fit.
        #[source]
        source: StateError,
    },
}

impl CorrelateError {
    /// The log's answer, if it was the log that failed.
    fn bus(&self) -> Option<&BusError> {
        match self {
            CorrelateError::Bus { source, .. } | CorrelateError::Log(source) => Some(source),
            CorrelateError::State { .. } => None,
        }
    }
}

/// What the stage counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    received: IntCounter,
    sent: IntCounter,
    dropped: IntCounterVec,
    errors: IntCounterVec,
    late: IntCounter,
    handed: IntCounter,
    recounts: IntCounterVec,
    waiting: IntGauge,
    withdrawn: IntCounter,
    lag: IntGauge,
    groups: IntGauge,
    kept: IntGaugeVec,
    watermark: IntGauge,
    batch: Histogram,
}

impl Metrics {
    /// Registers the stage's metrics.
    pub fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let metrics = Metrics {
            received: IntCounter::new(
                "trailwarden_correlate_events_received_total",
                "Matches read from the log.",
            )?,
            sent: IntCounter::new(
                "trailwarden_correlate_sent_total",
                "Findings and revisions of findings put on the log.",
            )?,
            dropped: IntCounterVec::new(
                Opts::new(
                    "trailwarden_correlate_dropped_total",
                    "Matches (repeated, unknown_rule, crowded, too_late) and groups (evicted) dropped, by reason.",
                ),
                &["reason"],
            )?,
            errors: IntCounterVec::new(
                Opts::new(
                    "trailwarden_correlate_errors_total",
                    "Records that cannot be read (decode), gaps in the log (gap), batches put off for want of space (disk_full) or brokers (unavailable), batches that another node had done (fenced), recounts put off since temporary files failed (recount).",
                ),
                &["kind"],
            )?,
            late: IntCounter::new(
                "trailwarden_correlate_late_total",
                "Matches that came after the allowed lateness; their groups are counted again from the log.",
            )?,
            handed: IntCounter::new(
                "trailwarden_correlate_handed_on_total",
                "Matches put on the log for correlations that refer to correlations.",
            )?,
            recounts: IntCounterVec::new(
                Opts::new(
                    "trailwarden_correlate_recounts_total",
                    "Groups counted again because of what came late, by outcome: exact, approximate (the log has forgotten or there were too many matches), farther (more must be read first), rule_changed (not done); and late matches for which there was no room to wait, which count with what is still there (crowded).",
                ),
                &["outcome"],
            )?,
            waiting: IntGauge::new(
                "trailwarden_correlate_recounts_waiting",
                "Groups that wait to be counted again.",
            )?,
            withdrawn: IntCounter::new(
                "trailwarden_correlate_withdrawn_total",
                "Findings of which a recount has shown that the condition did not hold.",
            )?,
            lag: IntGauge::new(
                "trailwarden_correlate_lag_records",
                "Records of matches not read yet.",
            )?,
            groups: IntGauge::new("trailwarden_correlate_groups", "Groups that have a window.")?,
            kept: IntGaugeVec::new(
                Opts::new(
                    "trailwarden_correlate_kept_matches",
                    "Matches that the windows of a correlation keep one by one, by rule: about 200 bytes each.",
                ),
                &["rule"],
            )?,
            watermark: IntGauge::new(
                "trailwarden_correlate_watermark_timestamp_seconds",
                "Event time up to which episodes are settled in every partition; 0 before it is known.",
            )?,
            batch: Histogram::with_opts(HistogramOpts::new(
                "trailwarden_correlate_batch_duration_seconds",
                "Time from a batch read to its commit.",
            ))?,
        };
        for reason in ["repeated", "unknown_rule", "crowded", "too_late", "evicted"] {
            metrics.dropped.with_label_values(&[reason]);
        }
        for outcome in ["exact", "approximate", "farther", "rule_changed", "crowded"] {
            metrics.recounts.with_label_values(&[outcome]);
        }
        for kind in [
            "decode",
            "gap",
            "disk_full",
            "unavailable",
            "fenced",
            "recount",
        ] {
            metrics.errors.with_label_values(&[kind]);
        }
        registry.register(Box::new(metrics.received.clone()))?;
        registry.register(Box::new(metrics.sent.clone()))?;
        registry.register(Box::new(metrics.dropped.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.late.clone()))?;
        registry.register(Box::new(metrics.handed.clone()))?;
        registry.register(Box::new(metrics.recounts.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.withdrawn.clone()))?;
        registry.register(Box::new(metrics.lag.clone()))?;
        registry.register(Box::new(metrics.groups.clone()))?;
        registry.register(Box::new(metrics.kept.clone()))?;
        registry.register(Box::new(metrics.watermark.clone()))?;
        registry.register(Box::new(metrics.batch.clone()))?;
        Ok(metrics)
    }

    fn error(&self, kind: &str) {
        self.errors.with_label_values(&[kind]).inc();
    }

    fn count(&self, before: Counts, after: Counts) {
        let dropped = |reason: &str, before: u64, after: u64| {
            let counter = self.dropped.with_label_values(&[reason]);
            counter.inc_by(after - before);
        };
        dropped("repeated", before.repeated, after.repeated);
        dropped("unknown_rule", before.unknown, after.unknown);
        dropped("crowded", before.crowded, after.crowded);
        dropped("too_late", before.too_late, after.too_late);
        dropped("evicted", before.evicted, after.evicted);
        self.late.inc_by(after.late - before.late);
    }

    fn count_not_recounted(&self, before: recount::Counts, after: recount::Counts) {
        let counter = |outcome: &str| self.recounts.with_label_values(&[outcome]);
        counter("crowded").inc_by(after.crowded - before.crowded);
        counter("rule_changed").inc_by(after.rule_changed - before.rule_changed);
    }

    fn show(&self, crew: &Crew<Worker>) {
        let lag: u64 = crew.workers().map(|(_, w)| w.lag).sum();
        let groups: usize = crew.workers().map(|(_, w)| w.windows.groups()).sum();
        let settled = crew.workers().map(|(_, w)| w.windows.settled_to()).min();
        self.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
        let waiting: usize = crew.workers().map(|(_, w)| w.recount.waiting()).sum();
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.groups.set(i64::try_from(groups).unwrap_or(i64::MAX));
        let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, worker) in crew.workers() {
            for (rule, matches) in worker.windows.kept() {
                *kept.entry(rule).or_default() += matches;
            }
        }
        self.kept.reset();
        for (rule, matches) in kept {
            let gauge = self.kept.with_label_values(&[rule]);
            gauge.set(i64::try_from(matches).unwrap_or(i64::MAX));
        }
        self.watermark
            .set(settled.flatten().map_or(0, |time| time.millis() / 1_000));
    }
}

/// Correlates until it is told to stop. `correlations` is asked before every round; a new set takes effect when it is
/// another `Arc` than before. The number of partitions of `events` in `options` is taken from the log, and `max_groups`
/// is shared out among the partitions of `matches`.
pub fn run(
    bus: Arc<dyn Bus>,
    correlations: impl Fn() -> Arc<[Correlation]>,
    options: Options,
    metrics: &Metrics,
    clock: Clock,
    stop: Stop,
) -> Result<(), CorrelateError> {
    let mut rules = correlations();
    let mut crew: Crew<Worker> = Crew::new(CONSUMER, Topic::Matches);
    while !stop.is_stopped() {
        let now = correlations();
        if !Arc::ptr_eq(&rules, &now) {
            rules = now;
            crew.workers_mut()
                .for_each(|w| w.set_correlations(&rules, metrics));
        }
        let moved = crew.round(
            &*bus,
            |partition| Worker::open(Arc::clone(&bus), partition, &rules, options),
            |worker| worker.round(BATCH_BYTES, metrics, &clock),
            CorrelateError::bus,
            |kind| metrics.error(kind),
        )?;
        metrics.show(&crew);
        if !moved {
            crew.wait(&*bus, |w| w.next, PATIENCE, |kind| metrics.error(kind))?;
        }
    }
    Ok(())
}

/// The windows of one partition of `matches`, at their place in the log.
pub struct Worker {
    bus: Arc<dyn Bus>,
    partition: u32,
    windows: Windows,
    recount: Recount,
    next: Offset,
    lag: u64,
    /// What was told of each level last.
    told: Vec<Time>,
}

/// What a batch gives, until it is committed.
#[derive(Default)]
struct Outputs {
    records: Vec<(Topic, Record)>,
    handed: u64,
}

impl Worker {
    /// The worker as its last commit left it.
    pub fn open(
        bus: Arc<dyn Bus>,
        partition: u32,
        correlations: &[Correlation],
        options: Options,
    ) -> Result<Worker, CorrelateError> {
        let failed = |source| CorrelateError::Bus { partition, source };
        let partitions = bus.partitions(Topic::Matches).max(1) as usize;
        let options = Options {
            events_partitions: bus.partitions(Topic::Events),
            matches_partitions: bus.partitions(Topic::Matches),
            max_groups: options.max_groups.div_ceil(partitions),
            ..options
        };
        let stored = bus
            .position(CONSUMER, Topic::Matches, partition)
            .map_err(failed)?;
        let start = bus.bounds(Topic::Matches, partition).map_err(failed)?.start;
        let next = stored.unwrap_or(start);
        let mut rows = Vec::new();
        for prefix in WINDOW_ROWS {
            rows.extend(
                bus.state_scan(CONSUMER, partition, prefix)
                    .map_err(failed)?,
            );
        }
        let unreadable = |source| CorrelateError::State { partition, source };
        let windows = Windows::restore(correlations, options, &rows).map_err(unreadable)?;
        let read = start.min(next)..next;
        let recount = Recount::restore(&*bus, CONSUMER, partition, &windows, options, read)
            .map_err(failed)?
            .map_err(unreadable)?;
        Ok(Worker {
            bus,
            partition,
            windows,
            recount,
            next,
            lag: 0,
            told: Vec::new(),
        })
    }

    /// Reads a batch of at most `max_bytes` and commits what follows from it. Tells whether there was one. After an
    /// error the worker must be opened again.
    pub fn round(
        &mut self,
        max_bytes: usize,
        metrics: &Metrics,
        clock: &Clock,
    ) -> Result<bool, CorrelateError> {
        let partition = self.partition;
        let read = self
            .attempt(max_bytes, metrics, clock)
            .map_err(|source| CorrelateError::Bus { partition, source })?;
        let counted = self
            .count_again(metrics, clock)
            .map_err(|source| CorrelateError::Bus { partition, source })?;
        Ok(read || counted)
    }

    /// Goes on with these correlations.
    fn set_correlations(&mut self, correlations: &[Correlation], metrics: &Metrics) {
        let before = self.recount.counts();
        self.windows.set_correlations(correlations);
        self.recount.set_rules(&self.windows, self.next);
        metrics.count_not_recounted(before, self.recount.counts());
    }

    /// Goes a step on with what came late, if there is anything to do.
    fn count_again(&mut self, metrics: &Metrics, clock: &Clock) -> Result<bool, BusError> {
        if self.recount.waiting() == 0 {
            return Ok(false);
        }
        let bounds = self.bus.bounds(Topic::Matches, self.partition)?;
        self.recount.log_begins(bounds.start, &self.windows);
        let place = Place {
            bus: &*self.bus,
            consumer: CONSUMER,
            partition: self.partition,
            next: self.next,
        };
        let now = clock();
        let answer = match self.recount.step(&place, &mut self.windows, now)? {
            Step::Idle => return Ok(false),
            Step::Reading => return Ok(true),
            Step::Done(answer) => answer,
        };
        let mut outputs = Outputs::default();
        let Answer {
            findings,
            handed,
            outcomes,
            withdrawn,
            failed,
        } = answer;
        if let Some(error) = failed {
            let partition = self.partition;
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                partition,
                error,
                "what came late cannot be counted again; it is tried again"
            );
            metrics.error("recount");
        }
        for mut m in handed {
            // It fires through what the log had so far.
            (m.partition, m.offset) = (self.partition, self.next.saturating_sub(1));
            outputs.records.push((Topic::Matches, m.into_record(now)));
            outputs.handed += 1;
        }
        let records = findings.iter();
        let records = records.map(|finding| (Topic::Findings, finding_record(finding, now)));
        outputs.records.extend(records);
        let handed = outputs.handed;
        self.commit(self.next, outputs)?;
        metrics.sent.inc_by(findings.len() as u64);
        metrics.handed.inc_by(handed);
        metrics.withdrawn.inc_by(withdrawn as u64);
        for outcome in outcomes {
            let counter = metrics.recounts.with_label_values(&[outcome.as_str()]);
            counter.inc();
        }
        Ok(true)
    }

    fn attempt(
        &mut self,
        max_bytes: usize,
        metrics: &Metrics,
        clock: &Clock,
    ) -> Result<bool, BusError> {
        let begin = clock();
        let read = self
            .bus
            .read(Topic::Matches, self.partition, self.next, max_bytes);
        let batch = match read {
            Err(BusError::OutOfRange { asked, start, .. }) if asked < start => {
                return self.skip_to(start, metrics);
            }
            batch => batch?,
        };
        if batch.records.is_empty() {
            self.lag = 0;
            return Ok(false);
        }
        let (before, counts) = (self.windows.counts(), self.recount.counts());
        let mut findings = Vec::new();
        let mut times: Option<(Time, Time)> = None;
        let mut outputs = Outputs::default();
        for (offset, record) in &batch.records {
            match MatchRecord::decode(&record.value) {
                Ok(MatchRecord::Match(m)) => {
                    metrics.received.inc();
                    let (min, max) = times.unwrap_or((m.time, m.time));
                    times = Some((min.min(m.time), max.max(m.time)));
                    let recount = &mut self.recount;
                    let withhold = |key, m: &_| recount.take_late(key, m, begin);
                    self.windows.process_or(m, &mut findings, withhold);
                }
                Ok(MatchRecord::Watermark(watermark)) => {
                    self.windows.watermark(watermark, &mut findings);
                }
                Ok(MatchRecord::Level(told)) => self.windows.level(told, &mut findings),
                Err(error) => {
                    metrics.error("decode");
                    let partition = self.partition;
                    tracing::error!(partition, offset, %error, "a match cannot be read");
                }
            }
            self.hand_on(*offset, begin, &mut outputs);
        }
        let sent = findings.len() as u64;
        let end = clock();
        let records = findings.iter();
        let records = records.map(|finding| (Topic::Findings, finding_record(finding, end)));
        outputs.records.extend(records);
        let told = self.tell_levels(end, &mut outputs);
        self.recount.note(self.next..batch.next, times);
        self.recount.remember(&findings, &self.windows, end);
        let handed = outputs.handed;
        self.commit(batch.next, outputs)?;
        self.told = told;
        metrics.sent.inc_by(sent);
        metrics.handed.inc_by(handed);
        metrics.count(before, self.windows.counts());
        metrics.count_not_recounted(counts, self.recount.counts());
        metrics
            .batch
            .observe((clock().0 - begin.0).max(0) as f64 / 1e6);
        let bounds = self.bus.bounds(Topic::Matches, self.partition)?;
        self.lag = bounds.end.saturating_sub(self.next);
        self.recount.log_begins(bounds.start, &self.windows);
        Ok(true)
    }

    /// What fired of correlations that others refer to, through the record at `offset`.
    fn hand_on(&mut self, offset: Offset, now: Time, outputs: &mut Outputs) {
        for mut m in self.windows.handed_on() {
            (m.partition, m.offset) = (self.partition, offset);
            outputs.records.push((Topic::Matches, m.into_record(now)));
            outputs.handed += 1;
        }
    }

    /// Tells all partitions how far the levels have come that have others above them, where that is a second or more.
    /// It stands behind what was handed on: nothing earlier comes after it.
    fn tell_levels(&self, now: Time, outputs: &mut Outputs) -> Vec<Time> {
        let partitions = self.bus.partitions(Topic::Matches);
        let mut told = self.told.clone();
        for (level, watermark) in self.windows.levels_settled_to().enumerate() {
            let known = told.get(level).copied().unwrap_or(Time::MIN);
            if watermark.time.0 - known.0 >= 1_000_000 {
                told.resize(told.len().max(level + 1), Time::MIN);
                told[level] = watermark.time;
                let watermark = LevelWatermark {
                    partition: self.partition,
                    ..watermark
                };
                let records = level_records(watermark, partitions, now);
                let records = records.into_iter().map(|r| (Topic::Matches, r));
                outputs.records.extend(records);
            }
        }
        told
    }

    fn commit(&mut self, to: Offset, outputs: Outputs) -> Result<(), BusError> {
        let mut state = self.windows.changes(self.partition);
        state.extend(self.recount.changes(self.partition));
        self.bus.commit(Commit {
            consumer: CONSUMER.into(),
            positions: vec![Position {
                topic: Topic::Matches,
                partition: self.partition,
                from: self.next,
                to,
            }],
            outputs: outputs.records,
            state,
        })?;
        self.next = to;
        Ok(())
    }

    /// The log has dropped what was not read yet.
    fn skip_to(&mut self, start: Offset, metrics: &Metrics) -> Result<bool, BusError> {
        let (partition, from) = (self.partition, self.next);
        tracing::error!(
            partition,
            from,
            start,
            "matches were dropped by retention before they were read"
        );
        metrics.error("gap");
        self.recount.lose(&self.windows);
        self.commit(start, Outputs::default())?;
        Ok(true)
    }
}

/// A finding as it goes on the log: all revisions of one meet in one partition.
pub(crate) fn finding_record(finding: &Finding, now: Time) -> Record {
    let value = serde_json::to_vec(finding).expect("texts, numbers and maps with text keys");
    Record {
        key: Bytes::from(finding.id.to_string()),
        value: Bytes::from(value),
        time: now,
    }
}
