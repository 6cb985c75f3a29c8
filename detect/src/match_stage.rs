//! The stage between `events` and `findings` and `matches`: every event meets every rule once.
//!
//! [`run`] is the loop of the program; it drives one worker per partition of `events`. A worker reads a batch,
//! drops repeats by the seen-set of the log, matches, and commits its new position, the findings of
//! single-event rules, the matches that correlations count, the meters of functions, what
//! arrived from where, the watermark and the seen ids as one: after a
//! kill -9 anywhere it stands where its last commit left it. An id that comes again with other content is kept
//! under a fallback id and raises a finding of its own. Of an event that is indexed only if a rule matches it (flag
//! `rules_only`) and that one does, a copy is appended for the index, before the commit: after a kill -9 in between it is
//! appended again, and the index drops it as it drops any repeat. The rules are asked for before every round, so that a
//! new set takes effect between two batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus::crew::Crew;
use bus::seen::{self, Seen};
use bus::{Bus, BusError, Commit, Offset, Position, Record, StateChange, Stop, Topic};
use bytes::Bytes;
use event::json::Doc;
use event::{Clock, Event, Finding, Flag, RuleInfo, Severity, Str, Time};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::arrivals::{self, Arrivals};
use crate::automation;
use crate::engine::{Engine, Scratch};
use crate::meter::{self, Counters};
use crate::tracker::{Baseline, Sightings};
use crate::window::{Correlation, Match, WatermarkTicker, watermark_records};

/// The name under which positions and state are kept.
pub const CONSUMER: &str = "match";

/// The `rule_id` of the finding that says that an id came again with other content.
pub const ID_CONFLICT: &str = "trailwarden.id_conflict";

/// How much of a partition one commit takes in.
const BATCH_BYTES: usize = 4 << 20;

/// How long the loop waits for news before it looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(500);

const TICKER_KEY: &[u8] = b"ticker";

/// Rules as the stage needs them: compiled, with their correlations in the order of the rule set.
#[derive(Debug)]
pub struct Rules {
    /// The compiled rules.
    pub engine: Engine,
    /// The correlations.
    pub correlations: Arc<[Correlation]>,
    /// The baselines.
    pub baselines: Arc<[Baseline]>,
}

/// What people read about the findings that no rule file stands for.
pub fn own_rules() -> Vec<RuleInfo> {
    let info = |id: &str, title: &str, severity, description: &str, step: &str| RuleInfo {
        id: id.to_owned(),
        title: title.to_owned(),
        description: description.to_owned(),
        author: "Trailwarden".to_owned(),
        severity,
        status: "stable".to_owned(),
        next_steps: vec![step.to_owned()],
        ..RuleInfo::default()
    };
    vec![
        info(
            ID_CONFLICT,
            "An event id came again with other content",
            Severity::Medium,
            "A source delivered two different records under one event id. Both are kept, the later one under an id of its own. \
             Sources repeat records, but they do not change them: somebody may have altered one of the two.",
            "Compare the two records with the object in the source's own store.",
        ),
        info(
            crate::window::KEY_FLOOD,
            "A correlation has more groups than it may hold",
            Severity::High,
            "So many different group-by values arrived that windows had to be dropped. Flooding a correlation with made-up values \
             is a way to push one's own out of it.",
            "Look which values flood the correlation, and group by a field that the sender cannot choose.",
        ),
    ]
}

/// What the stage counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    received: IntCounter,
    sent: IntCounter,
    matches: IntCounter,
    evidence: IntCounter,
    filtered: IntCounterVec,
    automation: IntCounterVec,
    dropped: IntCounterVec,
    errors: IntCounterVec,
    lag: IntGauge,
    batch: Histogram,
}

impl Metrics {
    /// Registers the stage's metrics.
    pub fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let metrics = Metrics {
            received: IntCounter::new(
                "trailwarden_match_events_received_total",
                "Events read from the log.",
            )?,
            sent: IntCounter::new(
                "trailwarden_match_sent_total",
                "Findings of single-event rules put on the log.",
            )?,
            matches: IntCounter::new(
                "trailwarden_match_matches_sent_total",
                "Matches put on the log for correlations.",
            )?,
            evidence: IntCounter::new(
                "trailwarden_match_evidence_sent_total",
                "Copies of matched events put on the log for the index, which has no other of their tier.",
            )?,
            filtered: IntCounterVec::new(
                Opts::new(
                    "trailwarden_match_filtered_total",
                    "Matches that a filter or an exception took away, by the filter's id.",
                ),
                &["filter"],
            )?,
            automation: IntCounterVec::new(
                Opts::new(
                    "trailwarden_match_automation_total",
                    "Findings about known automation, by its name and whether it acted from where it belongs (expected, unexpected).",
                ),
                &["automation", "origin"],
            )?,
            dropped: IntCounterVec::new(
                Opts::new(
                    "trailwarden_match_events_dropped_total",
                    "Events not evaluated, by reason: repeat (seen before), tier (kept on the log only, as configured), evidence (a copy for the index), restored (read again for the index alone); counts for baselines not taken: uncounted (too many functions or groups).",
                ),
                &["reason"],
            )?,
            errors: IntCounterVec::new(
                Opts::new(
                    "trailwarden_match_errors_total",
                    "Records that cannot be read (decode), ids with other content (id_conflict), gaps in the log (gap), batches put off for want of space (disk_full) or brokers (unavailable), batches that another node had done (fenced).",
                ),
                &["kind"],
            )?,
            lag: IntGauge::new("trailwarden_match_lag_records", "Events not read yet.")?,
            batch: Histogram::with_opts(HistogramOpts::new(
                "trailwarden_match_batch_duration_seconds",
                "Time from a batch read to its commit.",
            ))?,
        };
        for reason in ["repeat", "tier", "evidence", "restored", "uncounted"] {
            metrics.dropped.with_label_values(&[reason]);
        }
        for kind in [
            "decode",
            "id_conflict",
            "gap",
            "disk_full",
            "unavailable",
            "fenced",
        ] {
            metrics.errors.with_label_values(&[kind]);
        }
        registry.register(Box::new(metrics.received.clone()))?;
        registry.register(Box::new(metrics.sent.clone()))?;
        registry.register(Box::new(metrics.matches.clone()))?;
        registry.register(Box::new(metrics.evidence.clone()))?;
        registry.register(Box::new(metrics.filtered.clone()))?;
        registry.register(Box::new(metrics.automation.clone()))?;
        registry.register(Box::new(metrics.dropped.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.lag.clone()))?;
        registry.register(Box::new(metrics.batch.clone()))?;
        Ok(metrics)
    }

    fn error(&self, kind: &str) {
        self.errors.with_label_values(&[kind]).inc();
    }
}

/// Matches until it is told to stop. `keep` is how long event ids are remembered.
///
/// # Errors
/// The log failed in a way that waiting does not mend.
pub fn run(
    bus: Arc<dyn Bus>,
    rules: impl Fn() -> Arc<Rules>,
    keep: Duration,
    metrics: &Metrics,
    clock: Clock,
    stop: Stop,
) -> Result<(), BusError> {
    let mut crew = Crew::new(CONSUMER, Topic::Events);
    while !stop.is_stopped() {
        let rules = rules();
        let moved = crew.round(
            &*bus,
            |partition| Worker::open(Arc::clone(&bus), partition, keep),
            |worker| worker.round(&rules, BATCH_BYTES, metrics, &clock),
            |error: &BusError| Some(error),
            |kind| metrics.error(kind),
        )?;
        let lag: u64 = crew.workers().map(|(_, w)| w.lag).sum();
        metrics.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
        if !moved {
            crew.wait(&*bus, |w| w.next, PATIENCE, |kind| metrics.error(kind))?;
        }
    }
    Ok(())
}

/// The matching of one partition of `events`, at its place in the log.
pub struct Worker {
    bus: Arc<dyn Bus>,
    partition: u32,
    next: Offset,
    ticker: WatermarkTicker,
    counters: Counters,
    arrivals: Arrivals,
    sightings: Sightings,
    keep: Duration,
    scratch: Scratch,
    doc: Doc,
    lag: u64,
}

/// What a batch gives, until it is committed.
#[derive(Default)]
struct Outputs {
    records: Vec<(Topic, Record)>,
    findings: u64,
    matches: u64,
    /// Copies of events for the index.
    evidence: Vec<Record>,
    /// Per filter: how many matches it took away.
    cut: BTreeMap<u32, u64>,
    /// Per automation and origin: how many findings are about it.
    automation: BTreeMap<(Str, Str), u64>,
}

impl Worker {
    /// The worker as its last commit left it.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn open(bus: Arc<dyn Bus>, partition: u32, keep: Duration) -> Result<Worker, BusError> {
        let next = match bus.position(CONSUMER, Topic::Events, partition)? {
            Some(next) => next,
            None => bus.bounds(Topic::Events, partition)?.start,
        };
        let stored = bus
            .state_get(CONSUMER, partition, &[TICKER_KEY.to_vec()])?
            .pop()
            .flatten();
        let ticker = stored
            .and_then(|t| serde_json::from_slice(&t).ok())
            .unwrap_or_else(|| WatermarkTicker::new(partition));
        let counts = bus.state_scan(CONSUMER, partition, meter::STATE_PREFIX)?;
        let arrived = bus.state_scan(CONSUMER, partition, arrivals::STATE_PREFIX)?;
        Ok(Worker {
            bus,
            partition,
            next,
            ticker,
            counters: Counters::restore(partition, &counts),
            arrivals: Arrivals::restore(partition, &arrived),
            sightings: Sightings::default(),
            keep,
            scratch: Scratch::new(),
            doc: Doc::new(),
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
        rules: &Rules,
        max_bytes: usize,
        metrics: &Metrics,
        clock: &Clock,
    ) -> Result<bool, BusError> {
        let begin = clock();
        let batch = match self
            .bus
            .read(Topic::Events, self.partition, self.next, max_bytes)
        {
            Err(BusError::OutOfRange { asked, start, .. }) if asked < start => {
                tracing::error!(
                    partition = self.partition,
                    from = asked,
                    start,
                    "events were dropped by retention before they were matched"
                );
                metrics.error("gap");
                self.commit(start, Outputs::default(), Vec::new())?;
                return Ok(true);
            }
            batch => batch?,
        };
        // Only now: whatever was on the log before these records is then seen.
        let ends = self.bus.ends(Topic::Events)?;
        let end = ends.get(self.partition as usize).copied();
        self.lag = end.map_or(0, |end| end.saturating_sub(batch.next));
        if batch.records.is_empty() {
            // That the partition was read to its end is worth a commit once: it lets the watermark move.
            // So is what arrived last, which was not told yet.
            let watermark = self.ticker.tick(batch.next, ends, begin);
            if watermark.is_none() && !self.arrivals.is_due(begin) {
                return Ok(false);
            }
            let mut outputs = Outputs::default();
            let state = self.tell_arrivals(begin, &mut outputs);
            if let Some(watermark) = watermark {
                self.say(&watermark, begin, &mut outputs);
            }
            self.commit(batch.next, outputs, state)?;
            return Ok(true);
        }
        let mut events = Vec::with_capacity(batch.records.len());
        for (offset, record) in &batch.records {
            match Event::decode(&record.value) {
                Ok(event) => events.push((*offset, event)),
                Err(error) => {
                    metrics.error("decode");
                    tracing::error!(partition = self.partition, offset, %error, "an event cannot be read");
                }
            }
        }
        metrics.received.inc_by(events.len() as u64);
        events.retain(|(_, event)| match not_evaluated(event) {
            Some(reason) => {
                metrics.dropped.with_label_values(&[reason]).inc();
                false
            }
            None => true,
        });
        let ids: Vec<_> = events
            .iter()
            .map(|(_, e)| (e.id, e.content_hash()))
            .collect();
        let (verdicts, mut state) =
            seen::filter(&*self.bus, CONSUMER, self.partition, &ids, begin, self.keep)?;
        let mut outputs = Outputs::default();
        for ((offset, event), verdict) in events.iter_mut().zip(verdicts) {
            match verdict {
                Seen::Repeat => {
                    metrics.dropped.with_label_values(&["repeat"]).inc();
                    continue;
                }
                Seen::Conflict => {
                    metrics.error("id_conflict");
                    event.id = event.id.conflict(event.content_hash());
                    event.flags.set(Flag::IdConflict);
                    outputs.finding(&conflict(event), begin);
                }
                Seen::New => {}
            }
            self.ticker.see(event);
            self.arrivals.see(event);
            self.event(rules, *offset, event, begin, &mut outputs);
        }
        let (meters, counts) = self.counters.flush(begin);
        outputs
            .records
            .extend(meters.into_iter().map(|r| (Topic::Meters, r)));
        state.extend(counts);
        state.extend(self.tell_arrivals(begin, &mut outputs));
        if let Some(watermark) = self.ticker.tick(batch.next, ends, begin) {
            self.say(&watermark, begin, &mut outputs);
        }
        let (findings, matches) = (outputs.findings, outputs.matches);
        let cut = std::mem::take(&mut outputs.cut);
        let automation = std::mem::take(&mut outputs.automation);
        let evidence = std::mem::take(&mut outputs.evidence);
        let copies = evidence.len() as u64;
        if copies > 0 {
            self.bus.append(Topic::Events, evidence)?;
        }
        self.commit(batch.next, outputs, state)?;
        metrics.sent.inc_by(findings);
        metrics.matches.inc_by(matches);
        metrics.evidence.inc_by(copies);
        let uncounted = metrics.dropped.with_label_values(&["uncounted"]);
        uncounted.inc_by(self.counters.uncounted());
        for ((name, origin), findings) in automation {
            metrics
                .automation
                .with_label_values(&[name.as_str(), origin.as_str()])
                .inc_by(findings);
        }
        for (filter, matches) in cut {
            let filter = rules.engine.filter_id(filter);
            metrics
                .filtered
                .with_label_values(&[filter.as_str()])
                .inc_by(matches);
        }
        metrics
            .batch
            .observe((clock().0 - begin.0).max(0) as f64 / 1e6);
        Ok(true)
    }

    fn event(
        &mut self,
        rules: &Rules,
        offset: Offset,
        event: &Event,
        now: Time,
        outputs: &mut Outputs,
    ) {
        let whole = |end| event::json::skip_space(&event.raw, end) == event.raw.len();
        let is_json =
            event.raw.first() == Some(&b'{') && self.doc.scan(&event.raw, 0).is_ok_and(whole);
        let json = is_json.then(|| self.doc.root(&event.raw));
        if let Some(reading) = meter::reading(event, json) {
            self.counters.take(reading);
        }
        let engine = &rules.engine;
        engine.matches(event, json, &mut self.scratch);
        for &rule in self.scratch.matched() {
            if engine.generates(rule) {
                let finding = engine.finding(rule, event);
                let label = |name: &str| finding.labels.get(name).cloned();
                if let (Some(name), Some(origin)) =
                    (label(automation::LABEL), label(automation::ORIGIN))
                {
                    *outputs.automation.entry((name, origin)).or_default() += 1;
                }
                outputs.finding(&finding, now);
            }
        }
        if !self.scratch.matched().is_empty() || event.flags.has(Flag::IdConflict) {
            outputs.evidence(event, now);
        }
        for (filter, _) in self.scratch.cut() {
            *outputs.cut.entry(*filter).or_default() += 1;
        }
        let readings = engine.readings(event, json, &mut self.scratch, &mut self.sightings);
        readings.into_iter().for_each(|r| self.counters.take(r));
        // An amendment says what is already known once more: it is linked, and not counted.
        if engine.is_correlated(self.scratch.matched()) && !event.flags.has(Flag::Addendum) {
            for found in engine.correlation_matches(event, json, &mut self.scratch) {
                let correlation = &rules.correlations[found.correlation];
                let record = Match::new(correlation, found.group, event, self.partition, offset)
                    .with(found.contribution)
                    .into_record(now);
                outputs.records.push((Topic::Matches, record));
                outputs.matches += 1;
            }
        }
    }

    /// Tells what arrived, as far as it is time; gives what is to be remembered.
    fn tell_arrivals(&mut self, now: Time, outputs: &mut Outputs) -> Vec<StateChange> {
        let (arrived, state) = self.arrivals.flush(now);
        let arrived = arrived.into_iter().map(|r| (Topic::Sources, r));
        outputs.records.extend(arrived);
        state
    }

    fn say(&self, watermark: &crate::window::Watermark, now: Time, outputs: &mut Outputs) {
        let records = watermark_records(watermark, self.bus.partitions(Topic::Matches), now);
        outputs
            .records
            .extend(records.into_iter().map(|r| (Topic::Matches, r)));
        let records = meter::watermark_records(watermark, self.bus.partitions(Topic::Meters), now);
        outputs
            .records
            .extend(records.into_iter().map(|r| (Topic::Meters, r)));
    }

    fn commit(
        &mut self,
        to: Offset,
        outputs: Outputs,
        mut state: Vec<StateChange>,
    ) -> Result<(), BusError> {
        let ticker = serde_json::to_vec(&self.ticker).expect("numbers and truth values");
        state.push(StateChange {
            partition: self.partition,
            key: TICKER_KEY.to_vec(),
            value: Some(ticker),
            expires: None,
        });
        let position = Position {
            topic: Topic::Events,
            partition: self.partition,
            from: self.next,
            to,
        };
        self.bus.commit(Commit {
            consumer: CONSUMER.into(),
            positions: vec![position],
            outputs: outputs.records,
            state,
        })?;
        self.next = to;
        Ok(())
    }
}

/// Why an event is not evaluated, whatever the rules say.
fn not_evaluated(event: &Event) -> Option<&'static str> {
    if event.flags.has(Flag::Archived) {
        return Some("tier");
    }
    // The event that it is a copy of was evaluated, or is evaluated again after a crash.
    if event.flags.has(Flag::Evidence) {
        return Some("evidence");
    }
    event.flags.has(Flag::Restored).then_some("restored")
}

impl Outputs {
    /// Takes the copy of an event that a rule matched, if the index has no other.
    fn evidence(&mut self, event: &Event, now: Time) {
        if !event.flags.has(Flag::RulesOnly) {
            return;
        }
        let mut copy = event.clone();
        copy.flags.set(Flag::Evidence);
        self.evidence.push(Record {
            key: Bytes::from(copy.partition_key().into_string()),
            value: Bytes::from(copy.encode()),
            time: now,
        });
    }

    fn finding(&mut self, finding: &Finding, now: Time) {
        let value = serde_json::to_vec(finding).expect("texts, numbers and maps with text keys");
        // The findings that alerting folds into one alert meet in one partition, in order.
        let who = if finding.actor.is_empty() {
            &finding.function
        } else {
            &finding.actor
        };
        let key = format!("{}/{}/{who}", finding.rule_id, finding.account);
        self.records.push((
            Topic::Findings,
            Record {
                key: Bytes::from(key),
                value: Bytes::from(value),
                time: now,
            },
        ));
        self.findings += 1;
    }
}

/// The finding that an id came again with other content.
pub fn conflict(event: &Event) -> Finding {
    let id = Finding::event_id(ID_CONFLICT, event.id);
    Finding {
        id,
        episode: id,
        rule_id: ID_CONFLICT.into(),
        title: "An event id came again with other content".into(),
        severity: Severity::Medium,
        ..Finding::from_event(event)
    }
}
