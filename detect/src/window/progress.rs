//! How far event time has come in one partition of `matches`: the watermark of each level of correlations.
//!
//! The watermark of level 0 is the least event time over the partitions of `events` that are not read to their end
//! (over all read ones the greatest, if all are), less the lateness. What correlations hand on to those that refer
//! to them travels later than that, through other partitions of `matches`; so each partition tells all others how far
//! it has settled a level, and the watermark of the level above is the least of what all have told. None ever goes
//! back. [`Progress`] is kept by `windows` and stored with what the groups share.

use std::collections::BTreeMap;

use event::{Id, Time};

use super::matches::{LevelWatermark, Match, Watermark};
use super::state::{Input, Lower, StoredStage};
use super::windows::Options;

/// The watermarks, and what they follow from.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    options: Options,
    inputs: BTreeMap<u32, Input>,
    lowers: BTreeMap<u32, Lower>,
    /// By level.
    watermarks: Vec<Time>,
    pub(super) changed: bool,
}

impl Progress {
    /// Nothing is known yet.
    pub(super) fn new(options: Options) -> Progress {
        Progress {
            options,
            inputs: BTreeMap::new(),
            lowers: BTreeMap::new(),
            watermarks: vec![Time::MIN],
            changed: false,
        }
    }

    pub(super) fn restore(&mut self, stage: &mut StoredStage) {
        self.inputs = std::mem::take(&mut stage.inputs);
        self.lowers = std::mem::take(&mut stage.lowers);
        let levels = stage.levels.iter().map(|time| Time(*time));
        self.watermarks = std::iter::once(Time(stage.watermark))
            .chain(levels)
            .collect();
    }

    pub(super) fn store(&self) -> StoredStage {
        StoredStage {
            watermark: self.watermarks[0].0,
            levels: self.watermarks[1..].iter().map(|time| time.0).collect(),
            inputs: self.inputs.clone(),
            lowers: self.lowers.clone(),
            floods: BTreeMap::new(),
        }
    }

    /// There are correlations up to this level now.
    pub(super) fn set_levels(&mut self, highest: u32) {
        let levels = highest as usize + 1;
        if levels > self.watermarks.len() {
            self.watermarks.resize(levels, Time::MIN);
        }
    }

    /// The watermark of a level.
    pub(super) fn watermark(&self, level: u32) -> Time {
        let found = self.watermarks.get(level as usize);
        found.copied().unwrap_or(Time::MIN)
    }

    /// Takes a watermark of a partition of `events`. Has that of level 0 moved?
    pub(super) fn take(&mut self, watermark: Watermark) -> bool {
        let input = self.inputs.entry(watermark.partition).or_default();
        // A worker that has come second may say again what another one has gone past.
        let known = input.watermark.as_ref();
        if known.is_some_and(|known| *known == watermark || known.next > watermark.next) {
            return false;
        }
        input.watermark = Some(watermark);
        self.changed = true;
        let Some(time) = self.event_time() else {
            return false;
        };
        let time = time.clamp(Time::MIN, Time::MAX);
        self.raise(0, time.plus(-self.options.lateness))
    }

    /// Takes what a partition of `matches` has told of a level. Which level above it has moved?
    pub(super) fn take_level(&mut self, told: LevelWatermark) -> Option<u32> {
        let lower = self.lowers.entry(told.partition).or_default();
        let known = lower.levels.entry(told.level).or_insert(i64::MIN);
        if *known >= told.time.0 {
            return None;
        }
        *known = told.time.0;
        self.changed = true;
        let all = 0..self.options.matches_partitions;
        let of = |p| Some(Time(*self.lowers.get(&p)?.levels.get(&told.level)?));
        let least = all.map(of).min()??;
        let above = told.level + 1;
        let known = (above as usize) < self.watermarks.len();
        (known && self.raise(above, least)).then_some(above)
    }

    fn raise(&mut self, level: u32, time: Time) -> bool {
        let watermark = &mut self.watermarks[level as usize];
        let moved = time > *watermark;
        *watermark = time.max(*watermark);
        moved
    }

    /// How far event time has come, if every partition has told.
    fn event_time(&self) -> Option<Time> {
        let told: Option<Vec<&Watermark>> = (0..self.options.events_partitions)
            .map(|p| self.inputs.get(&p)?.watermark.as_ref())
            .collect();
        Watermark::event_time(&told?)
    }

    /// Is this match the next of its partition, rather than one that was sent again? Of those that correlations hand on
    /// several come from one record, and a group knows its own again while it may still meet them; only one that is
    /// late and comes from a record that others have gone past must be an old one.
    pub(super) fn is_next(&mut self, m: &Match, key: Id, level: u32) -> bool {
        self.changed = true;
        if m.chained {
            let late = m.time < self.watermark(level);
            let lower = self.lowers.entry(m.partition).or_default();
            let old = Some(m.offset) < lower.offset;
            lower.offset = lower.offset.max(Some(m.offset));
            return !(late && old);
        }
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
        true
    }
}
