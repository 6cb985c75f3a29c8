//! What came late is counted all the same: its group is counted again from the log.
//!
//! Windows are exact for what comes within the allowed lateness. A match that comes later is withheld from them and
//! put on a worklist ([`Late`], a row for each group); when nothing more has come for a while, the group's matches of
//! the surrounding time are read again from this partition of `matches`, where all of them stand, and taken in order
//! through the same algorithms (`window::count_again`). What that says is held against what people have been told
//! (`said`), and what is new of it is said: revisions of what was told, or a first word. A group that is still going on
//! goes on with what the recount made of it. [`Recount`] belongs to one worker of the correlate stage and is stored
//! with its windows, in the same commits, so that it stands wherever that stands. Why the log and not the index:
//! docs/decisions/0018.
//!
//! How much is read follows from the answer. A late match at `x` changes what fires in `[x, x + timespan]`; the episodes
//! there are certain when no match within two timespans before the first firing one, and one behind the last, can be
//! missing from what was read. Until they are, more is read, twice as much each time ([`Scan`]). Reading is done in
//! steps between batches, for many groups at once, so that nothing waits for it; `zones` tells which parts of the
//! log are worth reading. Of a group that got late matches over a long time only a piece is counted at once, and then
//! the next.
//!
//! ```text
//!   key  'l', key of the group (16)     value  JSON of a group that waits, as `Late`
//!        'q'                                   JSON of what all share, as `Stored`
//!        'z', 'f'                              see `zones` and `said`
//! ```

mod said;
mod scan;
mod zones;

use std::collections::BTreeMap;

use bus::{Bus, BusError, Offset, StateChange};
use event::{Finding, Id, Str, Time};
use serde::{Deserialize, Serialize};

use crate::window::{Match, OfflineError, Options, StateError, Windows};
use said::Said;
pub(crate) use scan::{Answer, Outcome, Step};
use scan::{Scan, Target};
use zones::Zones;

/// How many groups of a partition may wait; those beyond are correlated with what is still there.
const MOST_WAITING: usize = 20_000;

/// How many groups are counted again at once.
const MOST_TARGETS: usize = 2_000;

/// A group that goes on getting late matches is counted again after so many times the usual wait.
const MOST_WAITS: i64 = 10;

/// After so many findings and matches in one commit the rest waits for the next.
const MOST_WORDS: usize = 5_000;

/// How long a recount rests that failed, in microseconds.
const REST: i64 = 30_000_000;

const LATE_ROW: &[u8] = b"l";
const STAGE_ROW: &[u8] = b"q";

/// A group that has got late matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Late {
    rule: Str,
    group: BTreeMap<Str, Option<Str>>,
    /// The earliest and the latest of them.
    from: Time,
    to: Time,
    /// By the clock, when the first and the last of them came.
    since: Time,
    latest: Time,
    /// How far a recount has to look, where it was seen to be farther than usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reach: Option<(Time, Time)>,
}

impl Late {
    /// Is it time, if nothing more may have come for `wait`?
    fn is_due(&self, now: Time, wait: i64) -> bool {
        // A clock that was set back keeps nobody waiting.
        let passed =
            |since: Time, wait: i64| !(since.0..since.0.saturating_add(wait)).contains(&now.0);
        passed(self.latest, wait) || passed(self.since, wait.saturating_mul(MOST_WAITS))
    }
}

/// What all groups share.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    /// The latest time of which matches may be missing from the log.
    lost: Option<i64>,
    /// Correlations, each with its namespace and the offset of the first record that may be one of its matches as it is
    /// now.
    rules: BTreeMap<Str, (Id, Offset)>,
}

/// A row's content, `None` where it is to go, and when it may be dropped.
type Row = (Option<Vec<u8>>, Option<Time>);

/// The recounts of one partition of `matches`.
pub(crate) struct Recount {
    options: Options,
    waiting: BTreeMap<Id, Late>,
    zones: Zones,
    stored: Stored,
    scan: Option<Scan>,
    /// Rows that are not committed yet.
    rows: BTreeMap<Vec<u8>, Row>,
    stage_changed: bool,
    counts: Counts,
    /// After something has failed.
    not_before: Option<Time>,
}

/// What was not counted again, for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Late matches for whose groups there was no room on the worklist.
    pub(crate) crowded: u64,
    /// Groups whose correlation has gone, or means something else now.
    pub(crate) rule_changed: u64,
}

impl Recount {
    /// The recounts as their last commit left them, with `next` the next record to be read and `start` the first that the log has.
    pub(crate) fn restore(
        bus: &dyn Bus,
        consumer: &str,
        partition: u32,
        windows: &Windows,
        options: Options,
        read: std::ops::Range<Offset>,
    ) -> Result<Result<Recount, StateError>, BusError> {
        let scan = |prefix| bus.state_scan(consumer, partition, prefix);
        let stage = scan(STAGE_ROW)?.pop();
        let (late, zones) = (scan(LATE_ROW)?, scan(zones::ROW)?);
        Ok(
            Recount::of(windows, options, read, stage, &late, &zones).map_err(|(key, source)| {
                let key = key.iter().map(|b| format!("{b:02x}")).collect();
                StateError { key, source }
            }),
        )
    }

    fn of(
        windows: &Windows,
        options: Options,
        read: std::ops::Range<Offset>,
        stage: Option<bus::Entry>,
        late: &[bus::Entry],
        zones: &[bus::Entry],
    ) -> Result<Recount, (Vec<u8>, serde_json::Error)> {
        let is_new = stage.is_none();
        let stored: Stored = match stage {
            Some((key, value)) => serde_json::from_slice(&value).map_err(|e| (key, e))?,
            None => Stored::default(),
        };
        let mut waiting = BTreeMap::new();
        for (key, value) in late {
            let id = key.strip_prefix(LATE_ROW).map(<[u8; 16]>::try_from);
            if let Some(Ok(id)) = id {
                let late = serde_json::from_slice(value).map_err(|e| (key.clone(), e))?;
                waiting.insert(Id::from_bytes(id), late);
            }
        }
        let newest = windows
            .settled_to()
            .map_or(Time::MIN, |t| t.plus(options.lateness));
        let begin = if is_new { read.start } else { read.end };
        let mut recount = Recount {
            options,
            waiting,
            zones: Zones::restore(zones, stored.lost, read, newest)?,
            stored,
            scan: None,
            rows: BTreeMap::new(),
            stage_changed: false,
            counts: Counts::default(),
            not_before: None,
        };
        recount.set_rules(windows, begin);
        Ok(recount)
    }

    /// These correlations are loaded from `next` on. What stood on the log before for one that is new, or means something
    /// else, is not its own.
    pub(crate) fn set_rules(&mut self, windows: &Windows, next: Offset) {
        let mut rules = BTreeMap::new();
        for (id, namespace) in windows.namespaces() {
            let since = match self.stored.rules.get(id) {
                Some((known, since)) if *known == namespace => *since,
                _ => next,
            };
            rules.insert(id.clone(), (namespace, since));
        }
        self.stage_changed |= rules != self.stored.rules;
        self.stored.rules = rules;
        let known = |key: &Id, late: &Late| windows.key_of(&late.rule, &late.group) == Some(*key);
        let gone: Vec<Id> = self
            .waiting
            .iter()
            .filter(|(k, l)| !known(k, l))
            .map(|(k, _)| *k)
            .collect();
        self.counts.rule_changed += gone.len() as u64;
        gone.into_iter().for_each(|key| self.drop_late(key));
        self.scan = None;
    }

    /// Will the group of a late match be counted again? Not where there is no log to count from, nor room to wait.
    pub(crate) fn take_late(&mut self, key: Id, m: &Match, now: Time) -> bool {
        if self.options.recount_after.is_none() {
            return false;
        }
        if !self.waiting.contains_key(&key) && self.waiting.len() >= MOST_WAITING {
            self.counts.crowded += 1;
            return false;
        }
        let late = self.waiting.entry(key).or_insert_with(|| Late {
            rule: m.correlation.clone(),
            group: m.group.clone(),
            from: m.time,
            to: m.time,
            since: now,
            latest: now,
            reach: None,
        });
        (late.from, late.to) = (late.from.min(m.time), late.to.max(m.time));
        late.latest = now;
        self.store_late(key);
        true
    }

    fn store_late(&mut self, key: Id) {
        if let Some(late) = self.waiting.get(&key) {
            let value = serde_json::to_vec(late).expect("texts, numbers and maps with text keys");
            self.rows.insert(late_row(key), (Some(value), None));
        }
    }

    fn drop_late(&mut self, key: Id) {
        self.waiting.remove(&key);
        self.rows.insert(late_row(key), (None, None));
    }

    /// A batch of the log was read, whose matches have times between these.
    pub(crate) fn note(&mut self, read: std::ops::Range<Offset>, times: Option<(Time, Time)>) {
        if self.options.recount_after.is_some() {
            self.zones.note(read, times);
        }
    }

    /// The log begins at `start` now.
    pub(crate) fn log_begins(&mut self, start: Offset, windows: &Windows) {
        let settled = windows.settled_to().unwrap_or(Time::MIN);
        self.zones.forget_before(start, settled);
    }

    /// Records were dropped before they were read.
    pub(crate) fn lose(&mut self, windows: &Windows) {
        let settled = windows.settled_to().unwrap_or(Time::MIN);
        self.zones.lose(settled.plus(self.options.lateness));
    }

    /// Remembers what was said, in order.
    pub(crate) fn remember(&mut self, findings: &[Finding], windows: &Windows, now: Time) {
        if self.options.recount_after.is_none() {
            return;
        }
        let mut last: BTreeMap<Id, &Finding> = BTreeMap::new();
        last.extend(findings.iter().map(|f| (f.id, f)));
        for finding in last.into_values() {
            let (Some(key), Some((rule, ..))) = (
                windows.key_of(&finding.rule_id, &finding.group),
                windows.rule(&finding.rule_id),
            ) else {
                continue;
            };
            let row = said_row(key, finding.id);
            let said = Said::of(finding, !rule.condition.is_monotone());
            let value = serde_json::to_vec(&said).expect("texts, numbers and maps with text keys");
            let expires = now.plus(self.options.remember);
            self.rows.insert(row, (Some(value), Some(expires)));
        }
    }

    /// What was said of a group. `stored` are its rows as they are committed.
    fn said(&self, key: Id, stored: Vec<bus::Entry>) -> Vec<Said> {
        let prefix = [said::ROW, &key.to_bytes()].concat();
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = stored.into_iter().collect();
        let pending = self.rows.range(prefix.clone()..);
        for (key, (value, _)) in pending.take_while(|(k, _)| k.starts_with(&prefix)) {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            let id = Id::from_bytes(key[prefix.len()..].try_into().ok()?);
            Said::read(id, &value).ok()
        };
        rows.into_iter().filter_map(read).collect()
    }

    /// What was not counted again, since the start.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// How many groups wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Goes a step on, if there is anything to do; the windows stand at `next`. What is answered must be committed.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn step(
        &mut self,
        place: &Place<'_>,
        windows: &mut Windows,
        now: Time,
    ) -> Result<Step, BusError> {
        if self.scan.is_none() {
            self.scan = self.begin(windows, now);
        }
        let Some(mut scan) = self.scan.take() else {
            return Ok(Step::Idle);
        };
        match scan.read(place) {
            Ok(true) => {
                self.scan = Some(scan);
                Ok(Step::Reading)
            }
            Ok(false) => Ok(Step::Done(self.finish(scan, place, windows, now)?)),
            Err(RecountError::Bus(error)) => Err(error),
            Err(RecountError::Sort(error)) => Ok(Step::Done(self.put_off(error, now))),
        }
    }

    /// Something failed: what was begun is begun again after a while.
    fn put_off(&mut self, error: OfflineError, now: Time) -> Answer {
        self.not_before = Some(now.plus(REST));
        Answer {
            failed: Some(error),
            ..Answer::default()
        }
    }

    /// A scan for the groups whose time has come.
    fn begin(&self, windows: &Windows, now: Time) -> Option<Scan> {
        let wait = self.options.recount_after?;
        // A clock that was set back keeps nobody waiting.
        let rests = |until: Time| now < until && until.0 - now.0 <= REST;
        if self.not_before.is_some_and(rests) {
            return None;
        }
        let due = self.waiting.iter().filter(|(_, l)| l.is_due(now, wait));
        let target = |(key, late): (&Id, &Late)| {
            let (rule, _, watermark) = windows.rule(&late.rule)?;
            let (_, since) = self.stored.rules.get(&late.rule)?;
            Some(Target::new(*key, late, rule, watermark, *since))
        };
        let targets: Vec<Target> = due.filter_map(target).take(MOST_TARGETS).collect();
        (!targets.is_empty()).then(|| Scan::new(targets, &self.zones))
    }

    /// Everything was read: counts every group again.
    fn finish(
        &mut self,
        scan: Scan,
        place: &Place<'_>,
        windows: &mut Windows,
        now: Time,
    ) -> Result<Answer, BusError> {
        let lost = (self.zones.lost_to(), self.zones.earliest());
        let mut counting = match scan.finish() {
            Ok(counting) => counting,
            Err(error) => return Ok(self.put_off(error, now)),
        };
        let mut answer = Answer::default();
        // Those that are left wait for the next time.
        while answer.findings.len() + answer.handed.len() < MOST_WORDS {
            let (mut target, counted) = match counting.next(windows, self.options.lateness) {
                None => break,
                Some(Ok(next)) => next,
                Some(Err(error)) => {
                    answer.failed = self.put_off(error, now).failed;
                    break;
                }
            };
            let key = target.key;
            let prefix = [said::ROW, &key.to_bytes()].concat();
            let stored = place
                .bus
                .state_scan(place.consumer, place.partition, &prefix)?;
            let known = self.said(key, stored);
            let Some(late) = self.waiting.get_mut(&key) else {
                continue;
            };
            target.includes(late.to);
            let judged = match target.judge(&counted, &known, lost) {
                Ok(judged) => judged,
                Err(reach) => {
                    late.reach = Some(reach);
                    answer.outcomes.push(Outcome::Farther);
                    self.store_late(key);
                    continue;
                }
            };
            // What came while the log was read has been counted, as far as it lies in what was read.
            match target.rest(late.from, late.to) {
                None => self.drop_late(key),
                Some((from, to)) => {
                    (late.from, late.to) = (from, to);
                    (late.since, late.reach) = (late.latest, None);
                    self.store_late(key);
                }
            }
            let outcome = target.apply(judged, counted, &known, windows, &mut answer);
            answer.outcomes.push(outcome);
        }
        self.remember(&answer.findings, windows, now);
        Ok(answer)
    }

    /// What has changed since this was last asked, as rows of `partition`.
    pub(crate) fn changes(&mut self, partition: u32) -> Vec<StateChange> {
        if self.options.recount_after.is_none() {
            return Vec::new();
        }
        let zones = self.zones.changes().into_iter();
        let mut rows: BTreeMap<_, _> = zones.map(|(key, value)| (key, (value, None))).collect();
        rows.append(&mut self.rows);
        let lost = self.zones.lost_to().map(|t| t.0);
        if self.stage_changed || lost != self.stored.lost {
            self.stage_changed = false;
            self.stored.lost = lost;
            let value = serde_json::to_vec(&self.stored).expect("texts, numbers and maps");
            rows.insert(STAGE_ROW.to_vec(), (Some(value), None));
        }
        let change = |(key, (value, expires))| StateChange {
            partition,
            key,
            value,
            expires,
        };
        rows.into_iter().map(change).collect()
    }
}

fn late_row(key: Id) -> Vec<u8> {
    [LATE_ROW, &key.to_bytes()].concat()
}

fn said_row(key: Id, finding: Id) -> Vec<u8> {
    [said::ROW, &key.to_bytes(), &finding.to_bytes()].concat()
}

/// Where a worker stands.
pub(crate) struct Place<'a> {
    pub(crate) bus: &'a dyn Bus,
    pub(crate) consumer: &'static str,
    pub(crate) partition: u32,
    /// The next record that the windows take.
    pub(crate) next: Offset,
}

/// Why the log could not be read again.
#[derive(Debug, thiserror::Error)]
enum RecountError {
    /// The log cannot be read.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The matches cannot be sorted.
    #[error(transparent)]
    Sort(#[from] OfflineError),
}
