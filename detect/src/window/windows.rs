//! The windows of all correlations that meet in one partition of `matches`.
//!
//! [`Windows`] finds the [`Group`] of a match, keeps the watermark, and wakes the groups whose time has come. It
//! is given matches and watermarks in the order of the log by `correlate`, gives back findings, and hands out
//! what has changed as rows to be committed with them; restored from those rows it goes on as if nothing had
//! happened. The watermark is the least event time over the partitions of `events` that are not read to their
//! end (over all read ones the greatest, if all are), less the lateness; it never goes back.
//!
//! The number of groups of a correlation is bounded. Settled groups are gone already when there is no room; then
//! groups with a single match go first, the oldest first, then those with more, and those with an open episode
//! last. Every eviction is counted, and the first in an hour of event time emits a finding of its own, since
//! flooding the keys to push one's own out is an evasion.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bus::{Offset, StateChange};
use event::{Finding, Id, Severity, Str, Time, format_compact};
use rustc_hash::FxHashMap;

use super::group::{Group, Taken, Terms};
use super::matches::{Correlation, Match, Watermark};
use super::state::{self, Input, STAGE_KEY, StateError, StoredStage, group_row};

/// The `rule_id` of the finding that says that a correlation had more groups than it may hold.
pub const KEY_FLOOD: &str = "trailwarden.key_flood";

const HOUR: i64 = 3_600_000_000;

/// What windows allow for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How far behind the greatest event time a match may come and still be counted exactly, in microseconds.
    pub lateness: i64,
    /// How many partitions `events` has: the watermark waits for all of them.
    pub events_partitions: u32,
    /// How many groups one correlation may have at a time.
    pub max_groups: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            lateness: HOUR,
            events_partitions: 4,
            max_groups: 100_000,
        }
    }
}

/// What has happened so far, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Matches that count.
    pub taken: u64,
    /// Of these, matches behind the watermark.
    pub late: u64,
    /// Matches dropped because they had come before.
    pub repeated: u64,
    /// Matches dropped because no such correlation is loaded, or not with this group-by.
    pub unknown: u64,
    /// Matches dropped because their group had too many that do not fire.
    pub crowded: u64,
    /// Groups dropped because their correlation had too many.
    pub evicted: u64,
}

/// A correlation with the namespace of its state and the groups it has, first to go first.
struct Rule {
    correlation: Arc<Correlation>,
    namespace: Id,
    groups: BTreeSet<((u8, Time), Id)>,
}

struct Slot {
    rule: Str,
    group: Group,
    deadline: Time,
    rank: (u8, Time),
}

/// The run-time state of one partition of `matches`.
pub struct Windows {
    options: Options,
    rules: BTreeMap<Str, Rule>,
    slots: FxHashMap<Id, Slot>,
    deadlines: BTreeSet<(Time, Id)>,
    inputs: BTreeMap<u32, Input>,
    /// Where partitions of `events` ended when somebody looked last.
    ends: Vec<Offset>,
    watermark: Time,
    floods: BTreeMap<Str, i64>,
    counts: Counts,
    changed: BTreeSet<Id>,
    stage_changed: bool,
}

impl Windows {
    /// Windows without state.
    pub fn new(correlations: &[Correlation], options: Options) -> Windows {
        let mut windows = Windows {
            options,
            rules: BTreeMap::new(),
            slots: FxHashMap::default(),
            deadlines: BTreeSet::new(),
            inputs: BTreeMap::new(),
            ends: Vec::new(),
            watermark: Time::MIN,
            floods: BTreeMap::new(),
            counts: Counts::default(),
            changed: BTreeSet::new(),
            stage_changed: false,
        };
        windows.set_correlations(correlations);
        windows
    }

    /// Windows as they were when these rows were committed. Groups of rules that have changed since are dropped.
    pub fn restore(
        correlations: &[Correlation],
        options: Options,
        rows: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Windows, StateError> {
        let mut windows = Windows::new(correlations, options);
        for (key, value) in rows {
            let unreadable = |source| StateError {
                key: key.iter().map(|b| format!("{b:02x}")).collect(),
                source,
            };
            if key == STAGE_KEY {
                let stage: StoredStage = serde_json::from_slice(value).map_err(unreadable)?;
                windows.watermark = Time(stage.watermark);
                windows.inputs = stage.inputs;
                windows.floods = stage.floods;
            } else if let Ok(id) = key.get(1..).unwrap_or_default().try_into() {
                let (rule, namespace, group) = state::decode(value).map_err(unreadable)?;
                windows.put_back(Id::from_bytes(id), &rule, namespace, group);
            }
        }
        Ok(windows)
    }

    fn put_back(&mut self, key: Id, rule: &Str, namespace: Id, group: Group) {
        match self.rules.get(rule) {
            Some(known) if known.namespace == namespace => {
                self.insert(key, rule.clone(), group);
            }
            _ => {
                self.changed.insert(key);
            }
        }
    }

    /// Goes on with these correlations. The groups of one that is gone or means something else are dropped; a change of
    /// title, severity or tags shows in the next revision.
    pub fn set_correlations(&mut self, correlations: &[Correlation]) {
        let mut old = std::mem::take(&mut self.rules);
        for correlation in correlations {
            let namespace = correlation.namespace();
            let groups = match old.remove(&correlation.rule_id) {
                Some(rule) if rule.namespace == namespace => rule.groups,
                Some(rule) => {
                    self.forget(rule);
                    BTreeSet::new()
                }
                None => BTreeSet::new(),
            };
            let rule = Rule {
                correlation: Arc::new(correlation.clone()),
                namespace,
                groups,
            };
            self.rules.insert(correlation.rule_id.clone(), rule);
        }
        old.into_values().for_each(|rule| self.forget(rule));
    }

    fn forget(&mut self, rule: Rule) {
        for (_, key) in rule.groups {
            if let Some(slot) = self.slots.remove(&key) {
                self.deadlines.remove(&(slot.deadline, key));
            }
            self.changed.insert(key);
        }
    }

    /// Takes a match in the order of the log. Gives the findings that it made new or made worth another revision.
    pub fn process(&mut self, mut m: Match, out: &mut Vec<Finding>) {
        m.time = m.time.clamp(Time::MIN, Time::MAX);
        let Some(rule) = self.rules.get(&m.correlation) else {
            self.counts.unknown += 1;
            return;
        };
        let fits = rule
            .correlation
            .group_by
            .iter()
            .all(|n| m.group.contains_key(n));
        if !fits || m.group.len() > rule.correlation.group_by.len() {
            self.counts.unknown += 1;
            return;
        }
        let key = Id(rule.namespace.0 ^ m.key().0);
        let correlation = Arc::clone(&rule.correlation);
        if !self.is_next(&m, key) {
            self.counts.repeated += 1;
            return;
        }
        let late = m.time < self.watermark;
        let terms = terms(&correlation, self.options, self.watermark);
        if !self.slots.contains_key(&key) {
            self.make_room(&m, out);
            self.insert(key, m.correlation.clone(), Group::new(m.group.clone()));
        }
        let slot = self
            .slots
            .get_mut(&key)
            .expect("it was there or was inserted");
        slot.group.advance(terms, out);
        let taken = slot.group.take(terms, m, out);
        slot.group.say(terms, out);
        match taken {
            Taken::Repeat => self.counts.repeated += 1,
            Taken::New => self.counts.taken += 1,
            Taken::Crowded(n) => {
                self.counts.taken += 1;
                self.counts.crowded += n;
            }
        }
        self.counts.late += u64::from(late && taken != Taken::Repeat);
        self.settle_in(key, correlation.timespan);
    }

    /// Takes a watermark in the order of the log. Gives what it settles, where that has changed since it was last said.
    pub fn watermark(&mut self, watermark: Watermark, out: &mut Vec<Finding>) {
        let input = self.inputs.entry(watermark.partition).or_default();
        // A worker that has come second may say again what another one has gone past.
        if input
            .watermark
            .is_some_and(|known| known == watermark || known.next > watermark.next)
        {
            return;
        }
        input.watermark = Some(watermark);
        self.stage_changed = true;
        let Some(time) = self.event_time() else {
            return;
        };
        let time = time
            .clamp(Time::MIN, Time::MAX)
            .plus(-self.options.lateness);
        if time > self.watermark {
            self.watermark = time;
            self.wake(out);
        }
    }

    /// Was a partition of `events` idle when it was heard of last?
    pub fn has_idle_inputs(&self) -> bool {
        let mut told = self.inputs.values().filter_map(|input| input.watermark);
        told.any(|w| w.idle)
    }

    /// Where the partitions of `events` end now. One that was idle and has more than had been read then holds the others
    /// back: nobody may be at work on it, and the watermark must not run away from what it holds. Where nobody looks, an
    /// idle partition stays idle until it is heard of again.
    pub fn set_ends(&mut self, ends: Vec<Offset>) {
        self.ends = ends;
    }

    /// How far event time has come, if every partition has told.
    fn event_time(&self) -> Option<Time> {
        let told: Option<Vec<Watermark>> = (0..self.options.events_partitions)
            .map(|p| self.inputs.get(&p).and_then(|input| input.watermark))
            .collect();
        Watermark::event_time(&told?, &self.ends)
    }

    /// Settles the groups whose time has come, in order of it.
    fn wake(&mut self, out: &mut Vec<Finding>) {
        while let Some(&(deadline, key)) = self.deadlines.first() {
            if deadline >= self.watermark {
                return;
            }
            let slot = self
                .slots
                .get_mut(&key)
                .expect("every deadline has its group");
            let rule = &self.rules[&slot.rule];
            let correlation = Arc::clone(&rule.correlation);
            slot.group
                .advance(terms(&correlation, self.options, self.watermark), out);
            self.settle_in(key, correlation.timespan);
        }
    }

    /// Is this match the next of its partition, rather than one that was sent again?
    fn is_next(&mut self, m: &Match, key: Id) -> bool {
        let input = self.inputs.entry(m.partition).or_default();
        if Some(m.offset) < input.offset {
            return false;
        }
        if Some(m.offset) > input.offset {
            input.offset = Some(m.offset);
            input.groups.clear();
        }
        if input.groups.contains(&key) {
            return false;
        }
        input.groups.push(key);
        self.stage_changed = true;
        true
    }

    /// Makes room for another group of the match's correlation.
    fn make_room(&mut self, m: &Match, out: &mut Vec<Finding>) {
        let most = self.options.max_groups.max(1);
        let rule = &self.rules[&m.correlation];
        if rule.groups.len() < most {
            return;
        }
        let correlation = Arc::clone(&rule.correlation);
        while let Some(rule) = self.rules.get(&m.correlation)
            && rule.groups.len() >= most
            && let Some(&(_, key)) = rule.groups.first()
        {
            let mut slot = self.remove(key);
            slot.group
                .close(terms(&correlation, self.options, self.watermark), out);
            self.changed.insert(key);
            self.counts.evicted += 1;
        }
        let hour = m.time.0.div_euclid(HOUR);
        if self
            .floods
            .get(&m.correlation)
            .is_none_or(|said| *said < hour)
        {
            self.floods.insert(m.correlation.clone(), hour);
            self.stage_changed = true;
            out.push(flood(&correlation, m, hour));
        }
    }

    fn insert(&mut self, key: Id, rule: Str, group: Group) {
        let known = self.rules.get_mut(&rule).expect("the caller looked it up");
        let (deadline, rank) = (group.deadline(known.correlation.timespan), group.rank());
        known.groups.insert((rank, key));
        self.deadlines.insert((deadline, key));
        let slot = Slot {
            rule,
            group,
            deadline,
            rank,
        };
        self.slots.insert(key, slot);
    }

    fn remove(&mut self, key: Id) -> Slot {
        let slot = self.slots.remove(&key).expect("every key has its group");
        self.deadlines.remove(&(slot.deadline, key));
        if let Some(rule) = self.rules.get_mut(&slot.rule) {
            rule.groups.remove(&(slot.rank, key));
        }
        slot
    }

    /// After a group has changed: it goes where it belongs now, or away if nothing is left of it.
    fn settle_in(&mut self, key: Id, timespan: i64) {
        self.changed.insert(key);
        let slot = self.slots.get_mut(&key).expect("the caller changed it");
        if slot.group.is_empty() {
            self.remove(key);
            return;
        }
        let (deadline, rank) = (slot.group.deadline(timespan), slot.group.rank());
        if deadline != slot.deadline {
            self.deadlines.remove(&(slot.deadline, key));
            self.deadlines.insert((deadline, key));
            slot.deadline = deadline;
        }
        if rank != slot.rank {
            let rule = self.rules.get_mut(&slot.rule).expect("it has groups");
            rule.groups.remove(&(slot.rank, key));
            rule.groups.insert((rank, key));
            slot.rank = rank;
        }
    }

    /// What has changed since this was last asked, as rows of `partition`.
    pub fn changes(&mut self, partition: u32) -> Vec<StateChange> {
        let row = |key: Vec<u8>, value: Option<Vec<u8>>| StateChange {
            partition,
            key,
            value,
            expires: None,
        };
        let mut rows: Vec<StateChange> = std::mem::take(&mut self.changed)
            .into_iter()
            .map(|key| {
                let slot = self.slots.get(&key);
                let value = slot.map(|slot| {
                    let namespace = self.rules[&slot.rule].namespace;
                    state::encode(&slot.rule, namespace, &slot.group)
                });
                row(group_row(key), value)
            })
            .collect();
        if std::mem::take(&mut self.stage_changed) {
            let stage = StoredStage {
                watermark: self.watermark.0,
                inputs: self.inputs.clone(),
                floods: self.floods.clone(),
            };
            rows.push(row(STAGE_KEY.to_vec(), Some(state::encode_stage(&stage))));
        }
        rows
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many groups have state.
    pub fn groups(&self) -> usize {
        self.slots.len()
    }

    /// How far event time has come, less the lateness; `None` before all partitions have told.
    pub fn settled_to(&self) -> Option<Time> {
        (self.watermark > Time::MIN).then_some(self.watermark)
    }
}

fn terms(rule: &Correlation, options: Options, watermark: Time) -> Terms<'_> {
    Terms {
        rule,
        lateness: options.lateness,
        watermark,
    }
}

/// The finding that groups had to be dropped, with what the match that needed the room says.
fn flood(rule: &Correlation, m: &Match, hour: i64) -> Finding {
    let id = Id::of(
        "key_flood",
        &[
            rule.rule_id.as_bytes(),
            &hour.to_le_bytes(),
            &m.id.to_bytes(),
        ],
    );
    Finding {
        id,
        episode: id,
        rule_id: KEY_FLOOD.into(),
        title: format_compact!(
            "Too many groups for \"{}\": some are not watched",
            rule.title
        ),
        severity: Severity::High,
        group: [("rule".into(), Some(rule.rule_id.clone()))].into(),
        tags: vec!["attack.defense-evasion".into()],
        ..m.context.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(partition: u32, time: Option<i64>, idle: bool) -> Watermark {
        Watermark {
            partition,
            time: time.map(Time),
            idle,
            next: 0,
        }
    }

    /// The watermark after these were told to windows of two partitions of `events` and a lateness of 10.
    #[track_caller]
    fn check(steps: &[Watermark], expected: Option<i64>) {
        let options = Options {
            lateness: 10,
            events_partitions: 2,
            ..Options::default()
        };
        let mut windows = Windows::new(&[], options);
        let mut out = Vec::new();
        for step in steps {
            windows.watermark(*step, &mut out);
        }
        assert_eq!(windows.settled_to(), expected.map(Time));
        let rows: Vec<(Vec<u8>, Vec<u8>)> = windows
            .changes(0)
            .into_iter()
            .filter_map(|row| Some((row.key, row.value?)))
            .collect();
        let restored = Windows::restore(&[], options, &rows).unwrap();
        assert_eq!(restored.settled_to(), expected.map(Time));
    }

    #[test]
    fn the_watermark_waits_for_all_that_are_not_idle() {
        let (busy, idle) = (false, true);
        check(&[], None);
        check(&[told(0, Some(100), busy)], None);
        check(
            &[told(0, Some(100), busy), told(1, Some(50), busy)],
            Some(40),
        );
        check(
            &[told(0, Some(100), busy), told(1, Some(50), idle)],
            Some(90),
        );
        check(&[told(0, Some(100), busy), told(1, None, idle)], Some(90));
        check(&[told(0, Some(100), idle), told(1, None, busy)], None);
        check(
            &[told(0, Some(100), idle), told(1, Some(50), idle)],
            Some(90),
        );
        check(&[told(0, None, idle), told(1, None, idle)], None);
    }

    #[test]
    fn an_idle_partition_that_has_more_holds_the_others_back() {
        let options = Options {
            lateness: 10,
            events_partitions: 2,
            ..Options::default()
        };
        let mut windows = Windows::new(&[], options);
        let mut step = |end: u64, watermark: Watermark, expected: Option<i64>| {
            windows.set_ends(vec![100, end]);
            windows.watermark(watermark, &mut Vec::new());
            assert_eq!(windows.settled_to(), expected.map(Time));
        };
        let at = |next, watermark| Watermark { next, ..watermark };
        step(5, at(5, told(1, Some(50), true)), None);
        step(5, at(9, told(0, Some(100), false)), Some(90));
        // Partition 1 has grown and nobody reads it.
        step(6, at(10, told(0, Some(300), false)), Some(90));
        step(6, at(6, told(1, Some(210), false)), Some(200));
        // A worker that came second says what is past.
        step(6, at(5, told(1, Some(50), true)), Some(200));
        step(6, at(11, told(0, Some(400), false)), Some(200));
        step(6, at(6, told(1, Some(210), true)), Some(390));
    }

    #[test]
    fn the_watermark_never_goes_back() {
        let steps = [
            told(0, Some(100), true),
            told(1, Some(50), true),
            told(1, Some(60), false),
        ];
        check(&steps, Some(90));
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named() {
        let rows = [(group_row(Id(0xab)), b"{}".to_vec())];
        let Err(error) = Windows::restore(&[], Options::default(), &rows) else {
            panic!("it was read");
        };
        assert!(error.to_string().ends_with("ab"), "{error}");
    }
}
