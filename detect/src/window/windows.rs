//! The windows of all correlations that meet in one partition of `matches`.
//!
//! [`Windows`] finds the group of a match, keeps the watermarks, and wakes the groups whose time has come. It
//! is given matches and watermarks in the order of the log by `correlate`, gives back findings, and hands out
//! what has changed as rows to be committed with them; restored from those rows it goes on as if nothing had
//! happened. What fires of a correlation that others refer to is handed out too, as matches of those others; they
//! come back through the log, to the partition of their group.
//!
//! The number of groups of a correlation is bounded. Settled groups are gone already when there is no room; then
//! groups with a single match go first, the oldest first, then those with more, and those with an open episode
//! last. Every eviction is counted, and the first in an hour of event time emits a finding of its own, since
//! flooding the keys to push one's own out is an evasion.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bus::StateChange;
use event::{Finding, Id, Severity, Str, Time, format_compact};
use rustc_hash::FxHashMap;

use super::body::{Body, Out};
use super::kept::{Taken, Terms};
use super::matches::{Correlation, LevelWatermark, Match, Watermark, group_key};
use super::progress::Progress;
use super::recount::Rebuilt;
use super::state::{self, Chunks, STAGE_KEY, StateError, StoredGroup, StoredStage};

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
    /// How many partitions `matches` has: the watermark of correlations of correlations waits for all of them.
    pub matches_partitions: u32,
    /// How many groups one correlation may have at a time.
    pub max_groups: usize,
    /// How long nothing more may have come late to a group before it is counted again from the log, in microseconds of
    /// the clock. `None` where there is no log to count from: what comes late then counts with what is still there.
    pub recount_after: Option<i64>,
    /// For how long it is remembered what was said of episodes, in microseconds of the clock: as long as the log keeps
    /// their matches, or longer.
    pub remember: i64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            lateness: HOUR,
            events_partitions: 4,
            matches_partitions: 1,
            max_groups: 100_000,
            recount_after: None,
            remember: 9 * 24 * HOUR,
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
    /// Matches dropped because their group had too many.
    pub crowded: u64,
    /// Matches dropped because everything that they could count in had been evaluated.
    pub too_late: u64,
    /// Groups dropped because their correlation had too many.
    pub evicted: u64,
}

/// A correlation with the namespace of its state and the groups it has, first to go first.
struct Rule {
    correlation: Arc<Correlation>,
    namespace: Id,
    groups: BTreeSet<((u8, Time), Id)>,
    /// How many matches they keep.
    kept: usize,
}

struct Slot {
    rule: Str,
    level: u32,
    body: Body,
    deadline: Time,
    rank: (u8, Time),
    kept: usize,
}

/// The run-time state of one partition of `matches`.
pub struct Windows {
    options: Options,
    rules: BTreeMap<Str, Rule>,
    slots: FxHashMap<Id, Slot>,
    /// By level.
    deadlines: Vec<BTreeSet<(Time, Id)>>,
    progress: Progress,
    floods: BTreeMap<Str, i64>,
    counts: Counts,
    handed: Vec<Match>,
    changed: BTreeSet<Id>,
    /// Rows that are no more.
    gone: Vec<Vec<u8>>,
    stage_changed: bool,
}

impl Windows {
    /// Windows without state.
    pub fn new(correlations: &[Correlation], options: Options) -> Windows {
        let mut windows = Windows {
            options,
            rules: BTreeMap::new(),
            slots: FxHashMap::default(),
            deadlines: Vec::new(),
            progress: Progress::new(options),
            floods: BTreeMap::new(),
            counts: Counts::default(),
            handed: Vec::new(),
            changed: BTreeSet::new(),
            gone: Vec::new(),
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
        let mut chunks = Chunks::default();
        let unreadable = |key: &[u8]| {
            let key = key.iter().map(|b| format!("{b:02x}")).collect();
            |source| StateError { key, source }
        };
        for (key, value) in rows {
            if key == STAGE_KEY {
                let stage: StoredStage = serde_json::from_slice(value).map_err(unreadable(key))?;
                windows.restore_stage(stage);
            } else {
                chunks.take(key, value).map_err(unreadable(key))?;
            }
        }
        let groups = rows.iter().filter(|(key, _)| key.first() == Some(&b'g'));
        for (key, value) in groups {
            let Ok(id) = key[1..].try_into() else {
                continue;
            };
            windows
                .put_back(Id::from_bytes(id), value, &mut chunks)
                .map_err(unreadable(key))?;
        }
        windows.gone.extend(chunks.rest());
        Ok(windows)
    }

    fn restore_stage(&mut self, mut stage: StoredStage) {
        self.progress.restore(&mut stage);
        self.floods = stage.floods;
        let highest = self.rules.values().map(|r| r.correlation.chain.level).max();
        self.progress.set_levels(highest.unwrap_or(0));
    }

    fn put_back(
        &mut self,
        key: Id,
        value: &[u8],
        chunks: &mut Chunks,
    ) -> Result<(), serde_json::Error> {
        let stored = StoredGroup::decode(value)?;
        let known = self.rules.get(&stored.rule);
        let Some(known) = known.filter(|known| known.namespace == stored.namespace) else {
            self.gone.push(state::group_row(key));
            return Ok(());
        };
        let correlation = Arc::clone(&known.correlation);
        let rule = stored.rule.clone();
        let body = stored.into_body(key, self.terms(&correlation), chunks)?;
        self.insert(key, rule, body);
        Ok(())
    }

    /// Goes on with these correlations. The groups of one that is gone or means something else are dropped; a change of
    /// title, severity or tags shows in the next revision.
    pub fn set_correlations(&mut self, correlations: &[Correlation]) {
        let highest = correlations.iter().map(|c| c.chain.level).max();
        let levels = highest.unwrap_or(0) as usize + 1;
        self.progress.set_levels(highest.unwrap_or(0));
        let levels = levels.max(self.deadlines.len());
        self.deadlines.resize_with(levels, BTreeSet::new);
        let mut old = std::mem::take(&mut self.rules);
        for correlation in correlations {
            let namespace = correlation.namespace();
            let (groups, kept) = match old.remove(&correlation.rule_id) {
                Some(rule) if rule.namespace == namespace => (rule.groups, rule.kept),
                Some(rule) => {
                    self.forget(rule);
                    (BTreeSet::new(), 0)
                }
                None => (BTreeSet::new(), 0),
            };
            let rule = Rule {
                correlation: Arc::new(correlation.clone()),
                namespace,
                groups,
                kept,
            };
            self.rules.insert(correlation.rule_id.clone(), rule);
        }
        old.into_values().for_each(|rule| self.forget(rule));
    }

    fn forget(&mut self, rule: Rule) {
        for (_, key) in rule.groups {
            if let Some(slot) = self.slots.remove(&key) {
                self.deadlines[slot.level as usize].remove(&(slot.deadline, key));
                self.changed.remove(&key);
                self.gone.extend(state::rows_of(key, &slot.body));
            }
        }
    }

    fn terms<'a>(&self, rule: &'a Correlation) -> Terms<'a> {
        Terms {
            rule,
            lateness: self.options.lateness,
            watermark: self.progress.watermark(rule.chain.level),
            once: false,
        }
    }

    /// Takes a match in the order of the log. Gives the findings that it made new or made worth another revision.
    pub fn process(&mut self, m: Match, out: &mut Vec<Finding>) {
        self.process_or(m, out, |_, _| false);
    }

    /// The same, but a match behind the watermark is not taken in if `withhold` says that its group, whose key it is
    /// told, will be counted again.
    pub(crate) fn process_or(
        &mut self,
        mut m: Match,
        out: &mut Vec<Finding>,
        withhold: impl FnOnce(Id, &Match) -> bool,
    ) {
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
        if !self.progress.is_next(&m, key, correlation.chain.level) {
            self.counts.repeated += 1;
            return;
        }
        let terms = self.terms(&correlation);
        let late = m.time < terms.watermark;
        if late && withhold(key, &m) {
            self.counts.taken += 1;
            self.counts.late += 1;
            return;
        }
        if !self.slots.contains_key(&key) {
            self.make_room(&m, out);
            let body = Body::new(terms, m.group.clone());
            self.insert(key, m.correlation.clone(), body);
        }
        let slot = self
            .slots
            .get_mut(&key)
            .expect("it was there or was inserted");
        let mut made = Out::default();
        slot.body.advance(terms, &mut made);
        match slot.body.take(terms, m, &mut made) {
            Taken::Repeat => self.counts.repeated += 1,
            Taken::TooLate => {
                self.counts.too_late += 1;
                self.counts.late += 1;
            }
            taken => {
                self.counts.taken += 1;
                self.counts.late += u64::from(late);
                if let Taken::Crowded(n) = taken {
                    self.counts.crowded += n;
                }
            }
        }
        self.give_out(made, out);
        self.settle_in(key, correlation.timespan);
    }

    /// The key of a group, if its correlation is loaded.
    pub(crate) fn key_of(&self, rule_id: &str, group: &BTreeMap<Str, Option<Str>>) -> Option<Id> {
        let rule = self.rules.get(rule_id)?;
        Some(Id(rule.namespace.0 ^ group_key(rule_id, group).0))
    }

    /// A correlation with its namespace and how far its level has settled.
    pub(crate) fn rule(&self, rule_id: &str) -> Option<(Arc<Correlation>, Id, Time)> {
        let rule = self.rules.get(rule_id)?;
        let watermark = self.progress.watermark(rule.correlation.chain.level);
        Some((Arc::clone(&rule.correlation), rule.namespace, watermark))
    }

    /// The loaded correlations with their namespaces.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = (&Str, Id)> {
        self.rules.iter().map(|(id, rule)| (id, rule.namespace))
    }

    /// Puts a group that was counted again in the place of what was there.
    pub(crate) fn replace(&mut self, key: Id, rule_id: &Str, rebuilt: Option<Rebuilt>) {
        if self.slots.contains_key(&key) {
            self.remove(key);
        }
        let Some(Rebuilt(body)) = rebuilt.filter(|r| !r.0.is_empty()) else {
            return;
        };
        if self.rules.contains_key(rule_id) {
            self.insert(key, rule_id.clone(), body);
            self.changed.insert(key);
        }
    }

    fn give_out(&mut self, made: Out, out: &mut Vec<Finding>) {
        out.extend(made.findings);
        self.handed.extend(made.handed);
    }

    /// The matches that correlations here have handed on to others since this was last asked, in order. They lack where
    /// they come from: the record that was being processed.
    pub fn handed_on(&mut self) -> Vec<Match> {
        std::mem::take(&mut self.handed)
    }

    /// Takes a watermark in the order of the log. Gives what it settles, where that has changed since it was last said.
    pub fn watermark(&mut self, watermark: Watermark, out: &mut Vec<Finding>) {
        if self.progress.take(watermark) {
            self.wake(0, out);
        }
    }

    /// Takes what a partition of `matches` has told of a level of correlations.
    pub fn level(&mut self, told: LevelWatermark, out: &mut Vec<Finding>) {
        if let Some(level) = self.progress.take_level(told) {
            self.wake(level, out);
        }
    }

    /// Settles the groups of a level whose time has come, in order of it.
    fn wake(&mut self, level: u32, out: &mut Vec<Finding>) {
        let watermark = self.progress.watermark(level);
        while let Some(&(deadline, key)) = self.deadlines[level as usize].first() {
            if deadline >= watermark {
                return;
            }
            let slot = self.slots.get(&key).expect("every deadline has its group");
            let correlation = Arc::clone(&self.rules[&slot.rule].correlation);
            let terms = self.terms(&correlation);
            let mut made = Out::default();
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.body.advance(terms, &mut made);
            }
            self.give_out(made, out);
            self.settle_in(key, correlation.timespan);
        }
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
            let mut made = Out::default();
            let mut slot = self.remove(key);
            slot.body.close(self.terms(&correlation), &mut made);
            self.give_out(made, out);
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

    fn insert(&mut self, key: Id, rule: Str, body: Body) {
        let known = self.rules.get_mut(&rule).expect("the caller looked it up");
        let (timespan, level) = (known.correlation.timespan, known.correlation.chain.level);
        let (deadline, rank, kept) = (body.deadline(timespan), body.rank(), body.kept());
        known.groups.insert((rank, key));
        known.kept += kept;
        self.deadlines[level as usize].insert((deadline, key));
        let slot = Slot {
            rule,
            level,
            body,
            deadline,
            rank,
            kept,
        };
        self.slots.insert(key, slot);
    }

    /// Takes a group away, with all its rows.
    fn remove(&mut self, key: Id) -> Slot {
        let slot = self.slots.remove(&key).expect("every key has its group");
        self.deadlines[slot.level as usize].remove(&(slot.deadline, key));
        if let Some(rule) = self.rules.get_mut(&slot.rule) {
            rule.groups.remove(&(slot.rank, key));
            rule.kept -= slot.kept;
        }
        self.changed.remove(&key);
        self.gone.extend(state::rows_of(key, &slot.body));
        slot
    }

    /// After a group has changed: it goes where it belongs now, or away if nothing is left of it.
    fn settle_in(&mut self, key: Id, timespan: i64) {
        let slot = self.slots.get_mut(&key).expect("the caller changed it");
        if slot.body.is_empty() {
            self.remove(key);
            return;
        }
        self.changed.insert(key);
        let (deadline, rank) = (slot.body.deadline(timespan), slot.body.rank());
        if deadline != slot.deadline {
            let deadlines = &mut self.deadlines[slot.level as usize];
            deadlines.remove(&(slot.deadline, key));
            deadlines.insert((deadline, key));
            slot.deadline = deadline;
        }
        let kept = slot.body.kept();
        if rank != slot.rank || kept != slot.kept {
            let rule = self.rules.get_mut(&slot.rule).expect("it has groups");
            rule.kept = rule.kept + kept - slot.kept;
            slot.kept = kept;
            if rank != slot.rank {
                rule.groups.remove(&(slot.rank, key));
                rule.groups.insert((rank, key));
                slot.rank = rank;
            }
        }
    }

    /// What has changed since this was last asked, as rows of `partition`.
    pub fn changes(&mut self, partition: u32) -> Vec<StateChange> {
        let row = |(key, value): state::Change| StateChange {
            partition,
            key,
            value,
            expires: None,
        };
        // A group can go and come again between two commits: what is removed comes first.
        let gone = std::mem::take(&mut self.gone).into_iter();
        let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = gone.map(|key| (key, None)).collect();
        for key in std::mem::take(&mut self.changed) {
            if let Some(slot) = self.slots.get_mut(&key) {
                let namespace = self.rules[&slot.rule].namespace;
                changes.extend(state::encode(key, &slot.rule, namespace, &mut slot.body));
            }
        }
        let stage_changed = std::mem::take(&mut self.stage_changed);
        if std::mem::take(&mut self.progress.changed) || stage_changed {
            let stage = StoredStage {
                floods: self.floods.clone(),
                ..self.progress.store()
            };
            changes.insert(STAGE_KEY.to_vec(), Some(state::encode_stage(&stage)));
        }
        changes.into_iter().map(row).collect()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many groups have state.
    pub fn groups(&self) -> usize {
        self.slots.len()
    }

    /// How many matches are kept one by one, by rule.
    pub fn kept(&self) -> impl Iterator<Item = (&Str, usize)> {
        self.rules.iter().map(|(id, rule)| (id, rule.kept))
    }

    /// How far event time has come, less the lateness; `None` before all partitions have told.
    pub fn settled_to(&self) -> Option<Time> {
        let watermark = self.progress.watermark(0);
        (watermark > Time::MIN).then_some(watermark)
    }

    /// How far the levels have come that others stand above, in order.
    pub fn levels_settled_to(&self) -> impl Iterator<Item = LevelWatermark> {
        let highest = self.rules.values().map(|r| r.correlation.chain.level).max();
        (0..highest.unwrap_or(0)).map(|level| LevelWatermark {
            partition: 0,
            level,
            time: self.progress.watermark(level),
        })
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
        episodic: true,
        rule_id: KEY_FLOOD.into(),
        title: format_compact!(
            "Too many groups for \"{}\": some are not watched",
            rule.title
        ),
        severity: Severity::High,
        group: [("rule".into(), Some(rule.rule_id.clone()))].into(),
        tags: vec!["attack.defense-evasion".into()],
        approximate: false,
        ..m.context.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Read to 1, where an idle one ends; nothing is known of the others.
    fn told(partition: u32, time: Option<i64>, idle: bool) -> Watermark {
        let mut ends = vec![0, 0];
        ends[partition as usize] = if idle { 1 } else { 2 };
        Watermark {
            partition,
            time: time.map(Time),
            next: 1,
            ends,
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
            windows.watermark(step.clone(), &mut out);
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
        // Somebody has read `partition` to `next` and saw partition 1 end at `end`.
        let mut step = |end: u64, partition, next, time, expected: Option<i64>| {
            let watermark = Watermark {
                partition,
                time: Some(Time(time)),
                next,
                ends: vec![100, end],
            };
            windows.watermark(watermark, &mut Vec::new());
            assert_eq!(windows.settled_to(), expected.map(Time));
        };
        step(5, 1, 5, 50, None);
        step(5, 0, 9, 100, Some(90));
        // Partition 1 has grown and nobody reads it.
        step(6, 0, 10, 300, Some(90));
        // It has grown once more.
        step(7, 1, 6, 210, Some(200));
        // A worker that came second says what is past.
        step(5, 1, 5, 50, Some(200));
        step(7, 0, 11, 400, Some(200));
        step(7, 1, 7, 210, Some(390));
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
        let rows = [(state::group_row(Id(0xab)), b"{}".to_vec())];
        let Err(error) = Windows::restore(&[], Options::default(), &rows) else {
            panic!("it was read");
        };
        assert!(error.to_string().ends_with("ab"), "{error}");
    }
}
