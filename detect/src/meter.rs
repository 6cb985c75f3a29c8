//! Meters: how often, how long and how well each function ran, and how often rules matched, minute by minute.
//!
//! The match stage counts in [`Counters`] what function logs say, and what matches the rules of baselines, and puts the
//! counts on the `meters` topic as [`Meter`] records; baselines read them. A count is cumulative for what is counted
//! ([`Counted`]: a function, or a group of matches), minute and partition of `events`:
//! whoever reads takes the greatest of a partition and sums over partitions, so that a record that comes again changes
//! nothing. [`Counters`] is part of the stage's state and is committed with its position, so that a kill -9 loses no
//! count. Beside the counts go [`Deployment`]s, which explain departures, and the stage's watermarks.
//!
//! An invocation is counted by the platform's line at its start or its report, whichever there are more of, since
//! either may be filtered out at the source; a failure by the report where it tells the status, and by the exception
//! in the log where it does not. This module judges nothing.

use std::collections::{BTreeMap, BTreeSet};

use bus::{Record, StateChange, partition_of};
use bytes::Bytes;
use event::json::Value;
use event::{Event, Flag, Id, Outcome, Str, Time};
use serde::{Deserialize, Serialize};

use crate::tracker::Sighting;
use crate::window::{Watermark, group_key};

/// A minute in microseconds.
pub const MINUTE: i64 = 60_000_000;

/// Keys of the match stage's state that hold counts begin so.
pub const STATE_PREFIX: &[u8] = b"meter/";

/// Counts of minutes so far behind the newest are forgotten: events that come even later begin them anew.
const KEPT_MINUTES: i64 = 120;

/// How many minutes of functions are counted at a time, and as many of groups; a flood of made-up ones goes uncounted
/// beyond.
const MOST_CELLS: usize = 200_000;

/// The same for a whole input at once, of which no minute is forgotten on the way: about 230 bytes each, a gigabyte.
const MOST_OF_WHOLE: usize = 4_000_000;

/// The calls of CloudTrail that change what a function does.
const DEPLOYING: [&str; 4] = [
    "UpdateFunctionCode",
    "UpdateFunctionConfiguration",
    "PublishVersion",
    "UpdateAlias",
];

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// What a function does.
    Function(Function),
    /// The matches of one group of a baseline's rules.
    Group(Group),
}

impl Counted {
    /// A hash of it: what is remembered of it is found by it, and its records meet in one partition.
    pub fn key(&self) -> Id {
        match self {
            Counted::Function(function) => function.key(),
            Counted::Group(group) => group_key(&group.rule, &group.values),
        }
    }

    /// Not after any other.
    fn first() -> Counted {
        Counted::Function(Function {
            account: Str::default(),
            function: Str::default(),
        })
    }
}

/// The events that a baseline counts and that have the same values in its group-by fields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group {
    /// The `rule_id` of the baseline.
    pub rule: Str,
    /// The group-by fields and their values.
    pub values: BTreeMap<Str, Option<Str>>,
}

/// One function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Function {
    /// The account that owns it.
    pub account: Str,
    /// Its name. (Most of its lines do not say in which region it runs.)
    pub function: Str,
}

impl Function {
    fn of(event: &Event) -> Function {
        Function {
            account: event.account.clone(),
            function: event.function.clone(),
        }
    }

    fn key(&self) -> Id {
        Id::of(
            "function",
            &[self.account.as_bytes(), self.function.as_bytes()],
        )
    }
}

/// The counts of one minute: of a function all but `matches`, of a group these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cell {
    /// Lines that say that an invocation began.
    pub starts: u64,
    /// Reports of invocations.
    pub reports: u64,
    /// Of these, with a status that says that they failed, time-outs too.
    pub failed: u64,
    /// Of these, that ran into the time limit.
    pub timed_out: u64,
    /// Exceptions in the log that no report speaks of.
    pub exceptions: u64,
    /// Lines that say that the time limit was reached.
    pub timeout_lines: u64,
    /// Reports that tell a duration.
    pub timed: u64,
    /// The sum of these durations in microseconds.
    pub duration: u64,
    /// What is paid for, in megabyte-milliseconds.
    pub billed: u64,
    /// Events that match the rules of a baseline.
    #[serde(skip_serializing_if = "is_zero")]
    pub matches: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Cell {
    /// Counts one event of a function's log; tells whether it says anything that is counted.
    fn count(&mut self, event: &Event, json: Option<Value<'_>>) -> bool {
        match event.action.as_str() {
            "platform.start" => self.starts += 1,
            "platform.timeout" => self.timeout_lines += 1,
            "platform.report" | "platform.invokeReport" => self.report(event),
            "log" if event.outcome == Outcome::Failure && !event.error_code.is_empty() => {
                // The platform's report of such an invocation tells its status.
                if json.is_some_and(|root| root.get("requestId").is_some()) {
                    return false;
                }
                self.exceptions += 1;
            }
            _ => return false,
        }
        true
    }

    fn report(&mut self, event: &Event) {
        self.reports += 1;
        let Some(invocation) = &event.invocation else {
            return;
        };
        if matches!(invocation.status.as_str(), "error" | "failure" | "timeout") {
            self.failed += 1;
        }
        self.timed_out += u64::from(invocation.status == "timeout");
        if let Some(ms) = invocation.duration_ms.filter(|ms| (0.0..1e9).contains(ms)) {
            self.timed += 1;
            self.duration += (ms * 1_000.0) as u64;
        }
        if let (Some(ms), Some(mb)) = (invocation.billed_ms, invocation.memory_mb) {
            self.billed += (ms.clamp(0.0, 1e9) as u64).saturating_mul(mb.min(1 << 20));
        }
    }

    /// How many invocations there were.
    pub fn invocations(&self) -> u64 {
        self.starts.max(self.reports)
    }

    /// How many of them failed.
    pub fn errors(&self) -> u64 {
        self.failed.saturating_add(self.exceptions)
    }

    /// How many of them ran into the time limit.
    pub fn timeouts(&self) -> u64 {
        self.timed_out.max(self.timeout_lines)
    }

    /// The sum of two.
    pub fn plus(&self, other: &Cell) -> Cell {
        self.with(other, u64::saturating_add)
    }

    /// The later of two counts of one partition: the greater, number by number.
    pub fn later(&self, other: &Cell) -> Cell {
        self.with(other, u64::max)
    }

    fn with(&self, other: &Cell, join: fn(u64, u64) -> u64) -> Cell {
        Cell {
            starts: join(self.starts, other.starts),
            reports: join(self.reports, other.reports),
            failed: join(self.failed, other.failed),
            timed_out: join(self.timed_out, other.timed_out),
            exceptions: join(self.exceptions, other.exceptions),
            timeout_lines: join(self.timeout_lines, other.timeout_lines),
            timed: join(self.timed, other.timed),
            duration: join(self.duration, other.duration),
            billed: join(self.billed, other.billed),
            matches: join(self.matches, other.matches),
        }
    }
}

/// What one partition of `events` has counted so far in a minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// What.
    pub counted: Counted,
    /// Minutes since 1970.
    pub minute: i64,
    /// The partition of `events`.
    pub partition: u32,
    /// Where the function runs, if any of its lines of this minute said so.
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub region: Str,
    /// What the inventory says of the function.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Str, Str>,
    /// The counts.
    pub cell: Cell,
}

/// Somebody changed a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Which.
    pub function: Function,
    /// When.
    pub time: Time,
    /// The call.
    pub action: Str,
    /// Who made it.
    pub actor: Str,
}

/// A record of `meters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MeterRecord {
    /// Counts.
    Meter(Meter),
    /// A change of a function.
    Deployment(Deployment),
    /// Values that are watched.
    Sighting(Box<Sighting>),
    /// Event time has moved on.
    Watermark(Watermark),
}

impl MeterRecord {
    /// Reads the value of a record.
    pub fn decode(value: &[u8]) -> Result<MeterRecord, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// The record as it goes on the log.
    pub fn into_record(self, now: Time) -> Record {
        let key = match &self {
            MeterRecord::Meter(m) => m.counted.key().to_bytes().to_vec(),
            MeterRecord::Deployment(d) => d.function.key().to_bytes().to_vec(),
            MeterRecord::Sighting(s) => s.key().to_bytes().to_vec(),
            MeterRecord::Watermark(_) => Vec::new(),
        };
        let value = serde_json::to_vec(&self).expect("texts, numbers and maps with text keys");
        Record {
            key: Bytes::from(key),
            value: Bytes::from(value),
            time: now,
        }
    }
}

/// The records that tell a watermark to every partition of `meters`, of which there are `partitions`.
pub fn watermark_records(watermark: &Watermark, partitions: u32, now: Time) -> Vec<Record> {
    let record = MeterRecord::Watermark(watermark.clone()).into_record(now);
    (0..partitions)
        .map(|partition| Record {
            key: (0_u64..)
                .map(|n| n.to_le_bytes())
                .find(|key| partition_of(key, partitions) == partition)
                .expect("the hash reaches every partition")
                .to_vec()
                .into(),
            ..record.clone()
        })
        .collect()
}

/// The deployment that an event is, if it is one that succeeded.
fn deployment(event: &Event) -> Option<Deployment> {
    let deploys = event.source == "aws.cloudtrail"
        && event.service == "lambda"
        && !event.function.is_empty()
        && event.outcome == Outcome::Success
        // With the version of the API behind, as in `UpdateFunctionCode20150331v2`.
        && DEPLOYING.iter().any(|name| event.action.starts_with(name));
    deploys.then(|| Deployment {
        function: Function::of(event),
        time: event.time,
        action: event.action.clone(),
        actor: event.actor.clone(),
    })
}

/// What one event says to baselines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Something that is counted.
    Count {
        /// What.
        counted: Counted,
        /// In which minute, since 1970.
        minute: i64,
        /// Where, if the event says so.
        region: Str,
        /// What the inventory says of the function; empty for groups, whose events may differ.
        labels: BTreeMap<Str, Str>,
        /// How often.
        cell: Cell,
    },
    /// A function was changed.
    Deployment(Deployment),
    /// Values that are watched.
    Sighting(Box<Sighting>),
}

/// What an event says about a function, if anything; `json` is its record where that is JSON.
pub fn reading(event: &Event, json: Option<Value<'_>>) -> Option<Reading> {
    if event.function.is_empty() || event.flags.has(Flag::TsFuture) {
        return None;
    }
    if event.source != "aws.lambda" {
        return deployment(event).map(Reading::Deployment);
    }
    let mut cell = Cell::default();
    cell.count(event, json).then(|| Reading::Count {
        counted: Counted::Function(Function::of(event)),
        minute: event.time.0.div_euclid(MINUTE),
        region: event.region.clone(),
        labels: event.labels.clone(),
        cell,
    })
}

/// What is known of a function beside its counts.
#[derive(Debug, Clone, Default, PartialEq)]
struct Place {
    region: Str,
    labels: BTreeMap<Str, Str>,
}

/// The counts of one partition of `events`.
#[derive(Debug, Clone)]
pub struct Counters {
    partition: u32,
    /// How many cells there may be of each kind.
    most: usize,
    /// Where it is, and counts.
    cells: BTreeMap<(i64, Counted), (Place, Cell)>,
    /// How many of them are groups'.
    groups: usize,
    changed: BTreeSet<(i64, Counted)>,
    /// What is not counted but told as it is, with its minute.
    told: Vec<(i64, MeterRecord)>,
    uncounted: u64,
}

impl Counters {
    /// No counts yet.
    pub fn new(partition: u32) -> Counters {
        Counters {
            partition,
            most: MOST_CELLS,
            cells: BTreeMap::new(),
            groups: 0,
            changed: BTreeSet::new(),
            told: Vec::new(),
            uncounted: 0,
        }
    }

    /// No counts yet of a whole input, which ends with [`Counters::into_records`].
    pub fn of_whole() -> Counters {
        Counters {
            most: MOST_OF_WHOLE,
            ..Counters::new(0)
        }
    }

    /// The counts as they were when these rows of state were committed. A row that cannot be read begins anew.
    pub fn restore(partition: u32, rows: &[(Vec<u8>, Vec<u8>)]) -> Counters {
        let mut counters = Counters::new(partition);
        for (_, value) in rows {
            if let Ok(meter) = serde_json::from_slice::<Meter>(value) {
                let key = (meter.minute, meter.counted);
                let place = Place {
                    region: meter.region,
                    labels: meter.labels,
                };
                counters.cells.insert(key, (place, meter.cell));
            }
        }
        counters.recount();
        counters
    }

    fn recount(&mut self) {
        let groups = self.cells.keys();
        self.groups = groups.filter(|(_, c)| is_group(c)).count();
    }

    /// Is there no room for another minute of its kind?
    fn is_full(&self, counted: &Counted) -> bool {
        let kept = match counted {
            Counted::Group(_) => self.groups,
            Counted::Function(_) => self.cells.len() - self.groups,
        };
        kept >= self.most
    }

    /// How many counts were not taken for want of room since this was last asked.
    pub fn uncounted(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    /// Takes note of what an event says.
    pub fn take(&mut self, reading: Reading) {
        let (key, named, one) = match reading {
            Reading::Deployment(deployment) => {
                let minute = deployment.time.0.div_euclid(MINUTE);
                let record = MeterRecord::Deployment(deployment);
                return self.told.push((minute, record));
            }
            Reading::Sighting(sighting) => {
                let minute = sighting.context.time.0.div_euclid(MINUTE);
                let record = MeterRecord::Sighting(sighting);
                return self.told.push((minute, record));
            }
            Reading::Count {
                counted,
                minute,
                region,
                labels,
                cell,
            } => ((minute, counted), Place { region, labels }, cell),
        };
        if !self.cells.contains_key(&key) {
            if self.is_full(&key.1) {
                self.uncounted += 1;
                return;
            }
            self.groups += usize::from(is_group(&key.1));
        }
        let (place, cell) = self.cells.entry(key.clone()).or_default();
        *cell = cell.plus(&one);
        if !named.region.is_empty() {
            place.region = named.region;
        }
        if !named.labels.is_empty() {
            place.labels = named.labels;
        }
        self.changed.insert(key);
    }

    /// Everything that was counted, minute by minute, with the deployments of a minute before its counts: for a whole
    /// input at once, where nothing is forgotten on the way.
    pub fn into_records(self) -> impl Iterator<Item = (i64, MeterRecord)> {
        let partition = self.partition;
        let counts = self
            .cells
            .into_iter()
            .map(move |((minute, counted), (place, cell))| {
                let meter = Meter {
                    counted,
                    minute,
                    partition,
                    region: place.region,
                    labels: place.labels,
                    cell,
                };
                (minute, MeterRecord::Meter(meter))
            });
        let mut records: Vec<_> = self.told.into_iter().chain(counts).collect();
        records.sort_by_key(|(minute, _)| *minute);
        records.into_iter()
    }

    /// What has changed since the last call, for the log and for the state of the stage. Both go into one commit.
    pub fn flush(&mut self, now: Time) -> (Vec<Record>, Vec<StateChange>) {
        let (mut records, mut state) = (Vec::new(), Vec::new());
        let told = self.told.drain(..);
        records.extend(told.map(|(_, record)| record.into_record(now)));
        for key in std::mem::take(&mut self.changed) {
            let Some((place, cell)) = self.cells.get(&key).cloned() else {
                continue;
            };
            let (minute, counted) = key;
            let meter = Meter {
                counted,
                minute,
                partition: self.partition,
                region: place.region,
                labels: place.labels,
                cell,
            };
            state.push(StateChange {
                partition: self.partition,
                key: row(&meter.counted, minute),
                value: Some(serde_json::to_vec(&meter).expect("texts and numbers")),
                expires: None,
            });
            records.push(MeterRecord::Meter(meter).into_record(now));
        }
        let newest = self
            .cells
            .keys()
            .next_back()
            .map_or(0, |(minute, _)| *minute);
        let kept = self
            .cells
            .split_off(&(newest - KEPT_MINUTES, Counted::first()));
        let past = std::mem::replace(&mut self.cells, kept);
        if !past.is_empty() {
            self.recount();
        }
        for (minute, counted) in past.into_keys() {
            state.push(StateChange {
                partition: self.partition,
                key: row(&counted, minute),
                value: None,
                expires: None,
            });
        }
        (records, state)
    }
}

fn is_group(counted: &Counted) -> bool {
    matches!(counted, Counted::Group(_))
}

fn row(counted: &Counted, minute: i64) -> Vec<u8> {
    [
        STATE_PREFIX,
        &minute.to_be_bytes(),
        &counted.key().to_bytes(),
    ]
    .concat()
}

#[cfg(test)]
mod tests;
