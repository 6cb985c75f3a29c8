//! The functions, and the groups of matches, of one partition of `meters` under watch: counts in, findings out.
//!
//! [`Tracker`] gathers the counts of minutes ([`Meter`]), closes a minute once the watermark has left it behind by the
//! grace, and gives the bucket of every series (a function, or a group of a rule's matches) to its model
//! ([`crate::baseline`]) for each [`Baseline`] that is about it. What a model has to say becomes a finding: one for each
//! episode, revised as the episode grows worse or ends, with the model's own words and the deployment shortly before, if
//! there was one. Where many series depart at once, one finding speaks for all of them (`fleet`).
//!
//! Counts that come after their minute was closed change nothing and are counted as late. A stretch of more than an hour
//! in which nothing is counted teaches nothing: a source that is cut off is not a fleet that is idle. Only so many series
//! are watched, and what comes beyond them, a flood of made-up names perhaps, is said once an hour. It is a pure function
//! of what it is given; the stage that feeds it and commits its rows is `baseline_stage`, and `hunt` feeds it a whole
//! input at once.

mod cold;
mod firsts;
mod fleet;
mod follow;
mod offline;
mod rehearse;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bus::StateChange;
use event::{Finding, Id, Severity, Str, Time, format_compact};

use crate::baseline::Params;
use crate::meter::{Cell, Counted, Deployment, MINUTE, Meter, MeterRecord};
use crate::window::{KEY_FLOOD, Watermark};
use firsts::Firsts;
pub use firsts::{New, Sighting, Sightings, known_as};
use fleet::Fleet;
use follow::{Bucket, Tracked};
pub use offline::offline;
pub use rehearse::rehearse;
pub use state::StateError;

/// No bucket is longer, in minutes.
const LONGEST: i64 = 60;

/// A day in minutes.
const DAY: i64 = 1_440;

/// A series of which nothing was counted for so many days is forgotten.
const GONE: i64 = 35;

/// How far after the events of a minute its counts may come, in microseconds, unless the configuration says otherwise.
pub const GRACE: i64 = 2 * MINUTE;

/// What is measured of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Invocations in a bucket.
    Invocations,
    /// Failed invocations out of all.
    Errors,
    /// Invocations that ran into the time limit, out of all.
    Timeouts,
    /// The mean duration of an invocation.
    Duration,
    /// What is paid for, in GB-seconds.
    Cost,
    /// Invocations that double within minutes, as a loop does.
    Doubling,
    /// Matches of rules, by group. Documents say so with `rules:`.
    Matches,
}

impl Metric {
    /// Those of functions, by the names they have in rules.
    pub const NAMES: [(&'static str, Metric); 6] = [
        ("function.invocations", Metric::Invocations),
        ("function.errors", Metric::Errors),
        ("function.timeouts", Metric::Timeouts),
        ("function.duration", Metric::Duration),
        ("function.cost", Metric::Cost),
        ("function.doubling", Metric::Doubling),
    ];

    /// What is counted, or what fails of it.
    fn observed(self, cell: &Cell) -> u64 {
        match self {
            Metric::Errors => cell.errors(),
            Metric::Timeouts => cell.timeouts(),
            Metric::Matches => cell.matches,
            _ => cell.invocations(),
        }
    }
}

/// A metric and how it is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// What is measured.
    pub metric: Metric,
    /// How it is judged.
    pub params: Params,
}

/// What a baseline is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// What functions usually do.
    Metric(Measured),
    /// How often rules usually match.
    Rate(Rate),
    /// Values that were never seen.
    New(New),
}

/// How often rules match, by group.
#[derive(Debug, Clone, PartialEq)]
pub struct Rate {
    /// The fields that make a group.
    pub group_by: Vec<String>,
    /// How it is judged.
    pub measured: Measured,
}

impl Subject {
    /// What is measured, if anything is.
    fn measured(&self) -> Option<&Measured> {
        match self {
            Subject::Metric(measured) | Subject::Rate(Rate { measured, .. }) => Some(measured),
            Subject::New(_) => None,
        }
    }
}

/// A `baseline:` document as it is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// Its Sigma id.
    pub rule_id: Str,
    /// Its title.
    pub title: Str,
    /// How bad a departure is.
    pub severity: Severity,
    /// Its tags.
    pub tags: Vec<Str>,
    /// Is it tried out, so that nobody is told?
    pub staged: bool,
    /// What it is about.
    pub subject: Subject,
}

/// What has happened so far, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Counts of minutes that came after their minute was closed.
    pub late: u64,
    /// Buckets judged.
    pub judged: u64,
    /// Counts of functions and groups that are not watched because there were too many.
    pub crowded: u64,
}

/// What is kept for one baseline, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// The functions or groups of which it knows what is usual.
    pub series: usize,
    /// The sightings that wait to be judged; `None` of a baseline that asks for none.
    pub sightings: Option<usize>,
}

/// What the tracker allows for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How far event time must have left a minute behind before it is judged, in microseconds.
    pub grace: i64,
    /// How many partitions `events` has: the watermark waits for all of them.
    pub events_partitions: u32,
    /// How many functions are watched at most, and how many groups of each baseline.
    pub max_series: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            grace: GRACE,
            events_partitions: 4,
            max_series: 100_000,
        }
    }
}

/// The counts of a series and minute, by the partition of `events` that they come from.
type Parts = BTreeMap<u32, Cell>;

/// The run-time state of one partition of `meters`.
pub struct Tracker {
    options: Options,
    rules: Arc<[Baseline]>,
    /// Every minute before this one is closed; `None` before the first count.
    open_from: Option<i64>,
    minutes: BTreeMap<i64, BTreeMap<Id, Parts>>,
    series: BTreeMap<Id, Tracked>,
    /// How many of them are functions (under no name) and how many are groups of a baseline.
    watched: BTreeMap<Str, usize>,
    /// The hour in which it was said last that there are too many.
    floods: BTreeMap<Str, i64>,
    fleets: BTreeMap<Str, Fleet>,
    firsts: Firsts,
    told: BTreeMap<u32, Watermark>,
    counts: Counts,
    changed: Changed,
}

/// What has to be written down.
#[derive(Default)]
struct Changed {
    series: BTreeSet<Id>,
    minutes: BTreeSet<(i64, Id)>,
    stage: bool,
}

impl Tracker {
    /// A tracker that knows nothing yet.
    pub fn new(rules: Arc<[Baseline]>, options: Options) -> Tracker {
        Tracker {
            options,
            rules,
            open_from: None,
            minutes: BTreeMap::new(),
            series: BTreeMap::new(),
            watched: BTreeMap::new(),
            floods: BTreeMap::new(),
            fleets: BTreeMap::new(),
            firsts: Firsts::default(),
            told: BTreeMap::new(),
            counts: Counts::default(),
            changed: Changed::default(),
        }
    }

    /// Goes on with these rules. What was learned for one whose metric, bucket and season are the same is kept.
    pub fn set_rules(&mut self, rules: Arc<[Baseline]>) {
        self.rules = rules;
        for (key, tracked) in &mut self.series {
            if tracked.keep_only(&self.rules) {
                self.changed.series.insert(*key);
            }
        }
        let rules = Arc::clone(&self.rules);
        self.keep(|tracked| tracked.is_wanted(&rules));
    }

    /// Forgets the other series.
    fn keep(&mut self, wanted: impl Fn(&Tracked) -> bool) {
        let gone = self.series.iter().filter(|(_, tracked)| !wanted(tracked));
        self.changed.series.extend(gone.map(|(key, _)| *key));
        self.series.retain(|_, tracked| wanted(tracked));
        self.watched.clear();
        for tracked in self.series.values() {
            *self.watched.entry(tracked.owner()).or_default() += 1;
        }
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many functions and groups are watched.
    pub fn series(&self) -> usize {
        self.series.len()
    }

    /// What is kept for each baseline. Those that are about functions share them.
    pub fn kept(&self) -> impl Iterator<Item = (&Str, Kept)> {
        self.rules.iter().map(|rule| {
            let watched = |owner: &str| self.watched.get(owner).copied().unwrap_or(0);
            let (series, sightings) = match &rule.subject {
                Subject::Metric(_) => (watched(""), None),
                Subject::Rate(_) => (watched(&rule.rule_id), None),
                Subject::New(_) => {
                    let kept = self.firsts.kept(&rule.rule_id);
                    (kept.groups, Some(kept.waiting))
                }
            };
            (&rule.rule_id, Kept { series, sightings })
        })
    }

    /// Every minute before this time is judged.
    pub fn judged_to(&self) -> Option<Time> {
        self.open_from
            .map(|minute| Time(minute.saturating_mul(MINUTE)))
    }

    /// Takes a record in the order of the log. Gives the findings that follow.
    pub fn take(&mut self, record: MeterRecord, out: &mut Vec<Finding>) {
        match record {
            MeterRecord::Meter(meter) => self.count(meter, out),
            MeterRecord::Deployment(deployment) => self.deployed(deployment),
            MeterRecord::Sighting(sighting) => self.firsts.take(*sighting),
            MeterRecord::Watermark(watermark) => {
                let known = self.told.get(&watermark.partition);
                if known.is_some_and(|known| *known == watermark || known.next > watermark.next) {
                    return;
                }
                self.told.insert(watermark.partition, watermark);
                self.changed.stage = true;
                if let Some(time) = self.event_time() {
                    self.close_to(time, out);
                }
            }
        }
    }

    fn count(&mut self, meter: Meter, out: &mut Vec<Finding>) {
        let key = meter.counted.key();
        if self.open_from.is_some_and(|open| meter.minute < open) {
            self.counts.late += 1;
            return;
        }
        if self.open_from.is_none() {
            self.open_from = Some(meter.minute);
            self.changed.stage = true;
        }
        if !self.series.contains_key(&key) {
            let tracked = Tracked::new(meter.counted, meter.minute);
            // Another node may still count for a rule that has gone.
            if !tracked.is_wanted(&self.rules) {
                return;
            }
            let watched = self.watched.entry(tracked.owner()).or_default();
            if *watched >= self.options.max_series {
                self.counts.crowded += 1;
                out.extend(self.crowded(&tracked, meter.minute));
                return;
            }
            *watched += 1;
            self.series.insert(key, tracked);
            self.changed.series.insert(key);
        }
        if let Some(tracked) = self.series.get_mut(&key) {
            tracked.last = tracked.last.max(meter.minute);
            if !meter.region.is_empty() {
                tracked.region = meter.region;
            }
            if !meter.labels.is_empty() {
                tracked.labels = meter.labels;
            }
        }
        let minute = self.minutes.entry(meter.minute).or_default();
        let cell = minute
            .entry(key)
            .or_default()
            .entry(meter.partition)
            .or_default();
        *cell = cell.later(&meter.cell);
        self.changed.minutes.insert((meter.minute, key));
    }

    /// There are too many series of a kind: it is said once an hour.
    fn crowded(&mut self, tracked: &Tracked, minute: i64) -> Option<Finding> {
        let owner = tracked.owner();
        let hour = minute.div_euclid(60);
        let said = self.floods.entry(owner.clone()).or_insert(i64::MIN);
        if *said >= hour {
            return None;
        }
        *said = hour;
        self.changed.stage = true;
        let rule = self.rules.iter().find(|rule| rule.rule_id == owner);
        let title = match rule {
            Some(rule) => format_compact!(
                "Too many groups for \"{}\": some are not watched",
                rule.title
            ),
            None => "Too many functions: baselines do not watch some of them".into(),
        };
        let id = Id::of(KEY_FLOOD, &[owner.as_bytes(), &hour.to_be_bytes()]);
        let time = Time(minute.saturating_mul(MINUTE));
        Some(Finding {
            id,
            episode: id,
            episodic: true,
            rule_id: KEY_FLOOD.into(),
            title,
            severity: Severity::High,
            time,
            first_event_time: time,
            last_event_time: time,
            count: 1,
            group: [("rule".into(), rule.map(|r| r.rule_id.clone()))].into(),
            tags: vec!["attack.defense-evasion".into()],
            ..tracked.context()
        })
    }

    fn deployed(&mut self, deployment: Deployment) {
        let key = Counted::Function(deployment.function.clone()).key();
        if let Some(tracked) = self.series.get_mut(&key) {
            tracked.deployed(deployment);
            self.changed.series.insert(key);
        }
    }

    fn event_time(&self) -> Option<Time> {
        let partitions = 0..self.options.events_partitions;
        let told: Option<Vec<&Watermark>> = partitions.map(|p| self.told.get(&p)).collect();
        Watermark::event_time(&told?)
    }

    /// Judges every minute that event time has left behind by the grace.
    pub fn close_to(&mut self, time: Time, out: &mut Vec<Finding>) {
        let rules = Arc::clone(&self.rules);
        self.firsts
            .judge_to(time.plus(-self.options.grace), &rules, out);
        let until = time.plus(-self.options.grace).0.div_euclid(MINUTE);
        while let Some(open) = self.open_from.filter(|open| *open < until) {
            // As long as nothing is counted it is not known whether it is the functions that rest.
            let Some((&busy, _)) = self.minutes.range(open..).next() else {
                return;
            };
            let next = if busy - open > LONGEST {
                (busy.div_euclid(LONGEST) * LONGEST).max(open)
            } else {
                self.close(open, out);
                open + 1
            };
            self.open_from = Some(next);
            self.changed.stage = true;
            self.forget(next - LONGEST);
        }
    }

    fn forget(&mut self, before: i64) {
        // Once a day: what is gone makes room for others.
        if before % DAY == 0 {
            self.keep(|tracked| tracked.last >= before - GONE * DAY);
        }
        let kept = self.minutes.split_off(&before);
        for (minute, functions) in std::mem::replace(&mut self.minutes, kept) {
            self.changed
                .minutes
                .extend(functions.keys().map(|key| (minute, *key)));
        }
    }

    /// Judges the buckets that end with this minute.
    fn close(&mut self, minute: i64, out: &mut Vec<Finding>) {
        let rules = Arc::clone(&self.rules);
        for rule in rules.iter() {
            let Some(measured) = rule.subject.measured() else {
                continue;
            };
            let length = (measured.params.bucket / MINUTE).max(1);
            if (minute + 1) % length != 0 {
                continue;
            }
            let start = minute + 1 - length;
            let mut said = Vec::new();
            for (key, tracked) in &mut self.series {
                // The first bucket of a series is mostly not whole.
                if start <= tracked.since || !tracked.is_about(rule) {
                    continue;
                }
                let bucket = Bucket {
                    start,
                    length,
                    cell: sum(&self.minutes, start..minute + 1, key),
                    minutes: &self.minutes,
                    key: *key,
                };
                let rested = tracked.is_at_rest(&rule.rule_id);
                said.extend(
                    tracked
                        .close(rule, measured, &bucket)
                        .map(|finding| (*key, finding)),
                );
                if !rested || !tracked.is_at_rest(&rule.rule_id) {
                    self.changed.series.insert(*key);
                }
                self.counts.judged += 1;
            }
            self.say(rule, measured, minute + 1, said, out);
        }
    }

    /// Says what series had to say, or one word for all of them.
    fn say(
        &mut self,
        rule: &Baseline,
        measured: &Measured,
        minute: i64,
        said: Vec<(Id, Finding)>,
        out: &mut Vec<Finding>,
    ) {
        let fleet = self.fleets.entry(rule.rule_id.clone()).or_default();
        let owner = match rule.subject {
            Subject::Rate(_) => rule.rule_id.clone(),
            _ => Str::default(),
        };
        let watched = self.watched.get(&owner).copied().unwrap_or(0);
        let heard = fleet.hear((rule, measured), minute, watched, said);
        for key in heard.folded {
            if let Some(tracked) = self.series.get_mut(&key) {
                tracked.fold(&rule.rule_id);
            }
        }
        self.changed.stage |= !heard.findings.is_empty();
        out.extend(heard.findings);
    }

    /// The rows of state that have changed since the last call.
    pub fn changes(&mut self, partition: u32) -> Vec<StateChange> {
        let changed = std::mem::take(&mut self.changed);
        state::changes(self, &changed, partition)
    }

    /// A tracker as it was when these rows were committed.
    ///
    /// # Errors
    /// A row that cannot be read.
    pub fn restore(
        rules: Arc<[Baseline]>,
        options: Options,
        rows: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Tracker, StateError> {
        let mut tracker = Tracker::new(rules, options);
        state::restore(&mut tracker, rows)?;
        tracker.set_rules(Arc::clone(&tracker.rules));
        Ok(tracker)
    }
}

/// The counts of a series over minutes, all partitions together.
fn sum(
    minutes: &BTreeMap<i64, BTreeMap<Id, Parts>>,
    range: std::ops::Range<i64>,
    key: &Id,
) -> Cell {
    let parts = minutes
        .range(range)
        .filter_map(|(_, functions)| functions.get(key));
    parts
        .flat_map(BTreeMap::values)
        .fold(Cell::default(), |sum, cell| sum.plus(cell))
}
