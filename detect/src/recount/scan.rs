//! Reading the matches of some groups again, and judging what they come to.
//!
//! A [`Target`] is a group with the stretch of time that is read of it. A [`Scan`] reads the parts of the log that may
//! have matches of its targets, some megabytes at a step, up to where the windows stand. [`Target::judge`] then decides
//! whether what was read is enough; where it is not, it says how far to look. Where the stretch reaches what the
//! watermark has not settled yet, everything from its beginning on is read, and the group goes on as it was rebuilt.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bus::{BusError, Offset, Record, Topic};
use event::{Finding, Id, Time};
use rustc_hash::FxHashMap;

use super::said::{Said, overlap, reconcile, span};
use super::zones::Zones;
use super::{Late, Place, RecountError};
use crate::window::{
    Collected, Correlation, Counted, Match, MatchRecord, OFFLINE_MEMORY, OfflineError, Sorted,
    Windows, count_again, group_key,
};

/// How much of the log is read at a step.
const STEP_BYTES: usize = 2 << 20;

/// How many matches of one group are taken. Of more the recount is not exact.
const MOST_MATCHES: u64 = 200_000;

/// How many timespans before and behind what came late are read at first.
const FIRST_REACH: i64 = 3;

/// How much of what came late is counted at once: so many timespans, or this long if that is more. A source that was cut
/// off for a month is taken piece by piece, so that neither what is read nor what there is to say grows with it.
const MOST_TIMESPANS: i64 = 20;
const MOST_TIME: i64 = 6 * 3_600_000_000;

/// How a recount went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What is said is exact.
    Exact,
    /// The log has forgotten, or the group has too many matches: what is said may miss some.
    Approximate,
    /// More must be read first.
    Farther,
}

impl Outcome {
    /// The word for metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Outcome::Exact => "exact",
            Outcome::Approximate => "approximate",
            Outcome::Farther => "farther",
        }
    }
}

/// What a step came to.
pub(crate) enum Step {
    /// There is nothing to do.
    Idle,
    /// The log is being read.
    Reading,
    /// Groups were counted again.
    Done(Answer),
}

/// What recounts have to say.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) findings: Vec<Finding>,
    /// For the correlations above; they lack where they come from.
    pub(crate) handed: Vec<Match>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) withdrawn: usize,
    /// Why the rest has to wait, if something failed.
    pub(crate) failed: Option<OfflineError>,
}

/// A group that is counted again.
pub(super) struct Target {
    pub(super) key: Id,
    rule: Arc<Correlation>,
    match_key: Id,
    watermark: Time,
    /// The first record that may be a match of the rule as it is now.
    since: Offset,
    /// What came late.
    late: (Time, Time),
    /// What is read.
    read: (Time, Time),
    matches: u64,
}

/// That what was read is enough.
pub(super) struct Judged {
    /// Which episodes.
    episodes: Range<usize>,
    within: (Time, Time),
    exact: bool,
}

impl Target {
    pub(super) fn new(
        key: Id,
        late: &Late,
        rule: Arc<Correlation>,
        watermark: Time,
        since: Offset,
    ) -> Target {
        let near = rule.timespan.saturating_mul(FIRST_REACH);
        let piece = rule.timespan.saturating_mul(MOST_TIMESPANS).max(MOST_TIME);
        let late_to = late.to.min(late.from.plus(piece));
        let (mut from, mut to) = (late.from.plus(-near), late_to.plus(near));
        if let Some((back, ahead)) = late.reach {
            (from, to) = (from.min(back), to.max(ahead));
        }
        if to.plus(rule.timespan) >= watermark {
            to = Time::MAX;
            from = from.min(watermark.plus(-near));
        }
        Target {
            key,
            match_key: group_key(&rule.rule_id, &late.group),
            rule,
            watermark,
            since,
            late: (late.from, late_to),
            read: (from, to),
            matches: 0,
        }
    }

    /// Is everything read up to where the windows stand, so that the group can go on from there?
    fn is_open(&self) -> bool {
        self.read.1 == Time::MAX
    }

    /// What came while the log was read is part of it, where everything was read: up to this time.
    pub(super) fn includes(&mut self, to: Time) {
        if self.is_open() {
            self.late.1 = self.late.1.max(to);
        }
    }

    /// What came late and was not counted yet, where between these times something has.
    pub(super) fn rest(&self, from: Time, to: Time) -> Option<(Time, Time)> {
        let (counted_from, counted_to) = match self.is_open() {
            true => (self.late.0, Time::MAX),
            false => self.late,
        };
        match (from < counted_from, to > counted_to) {
            (false, false) => None,
            (false, true) => Some((counted_to, to)),
            (true, _) => Some((from, to)),
        }
    }

    /// Is what was read enough to be certain of the episodes that what came late can have changed? If not, from when to
    /// when must be read? `lost` are the time up to which matches may be missing from the log, and the time of the
    /// earliest that it may have.
    pub(super) fn judge(
        &self,
        counted: &Counted,
        said: &[Said],
        lost: (Option<Time>, Option<Time>),
    ) -> Result<Judged, (Time, Time)> {
        let timespan = self.rule.timespan;
        let mut within = (self.late.0, self.late.1.plus(timespan));
        if self.is_open() {
            within = (within.0.min(self.watermark.plus(-timespan)), Time::MAX);
        }
        // What was told there must find its place, and what holds of it must be certain.
        let all = &counted.episodes;
        loop {
            let before = within;
            let told = said.iter().filter_map(Said::span);
            for span in told.chain(all.iter().map(span)) {
                if overlap(span, within) {
                    within = (within.0.min(span.0), within.1.max(span.1));
                }
            }
            if within == before {
                break;
            }
        }
        let from = all.partition_point(|e| e.last_event_time < within.0);
        let to = all.partition_point(|e| e.time <= within.1);
        let needed = match all.get(from).filter(|_| from < to) {
            Some(first) => first.time.min(within.0).plus(-2 * timespan),
            None => within.0.plus(-timespan),
        };
        let width = self
            .read
            .1
            .0
            .min(self.watermark.0)
            .saturating_sub(self.read.0.0);
        let more = width.max(timespan).saturating_mul(2);
        let is_there = lost.1.is_some_and(|earliest| earliest < self.read.0);
        let cut = self.matches >= MOST_MATCHES;
        if needed < self.read.0 && is_there && !cut {
            return Err((self.read.0.plus(-more), self.read.1));
        }
        if !self.is_open() && !cut && within.1.plus(timespan) > self.read.1 {
            return Err((self.read.0, self.read.1.plus(more)));
        }
        let forgotten = lost.0.is_some_and(|lost| needed <= lost);
        Ok(Judged {
            episodes: from..to,
            within,
            exact: !forgotten && !cut,
        })
    }

    /// Says what is new, and lets the group go on as it was rebuilt.
    pub(super) fn apply(
        &self,
        judged: Judged,
        counted: Counted,
        said: &[Said],
        windows: &mut Windows,
        answer: &mut Answer,
    ) -> Outcome {
        let cut = self.matches >= MOST_MATCHES;
        let over = counted.episodes.len() - counted.open;
        let mut episodes = judged.episodes;
        if cut || !self.is_open() {
            // Of what is still open the windows know.
            episodes.end = episodes.end.min(over);
            episodes.start = episodes.start.min(episodes.end);
        }
        let found = reconcile(
            &counted.episodes[episodes],
            said,
            judged.exact,
            judged.within,
        );
        answer.withdrawn += found.withdrawn;
        answer.findings.extend(found.findings);
        let changed = (self.late.0, self.late.1.plus(self.rule.timespan));
        let handed = counted.handed.into_iter();
        let handed = handed.filter(|m| changed.0 <= m.time && m.time <= changed.1);
        answer.handed.extend(handed.map(|mut m| {
            m.context.late = true;
            m
        }));
        // What knew of more than the log still has goes on as it was.
        if self.is_open() && !cut && !found.knew_more {
            let mut rebuilt = counted.rebuilt;
            if let Some(rebuilt) = &mut rebuilt {
                rebuilt.rename(|id| found.names.get(&id).copied());
            }
            windows.replace(self.key, &self.rule.rule_id, rebuilt);
        }
        match judged.exact {
            true => Outcome::Exact,
            false => Outcome::Approximate,
        }
    }
}

/// The log being read for some groups.
pub(super) struct Scan {
    targets: Vec<Target>,
    by_key: FxHashMap<[u8; 16], usize>,
    parts: VecDeque<Range<Offset>>,
    /// Up to here the parts are chosen.
    chosen_to: Option<Offset>,
    collected: Collected,
}

impl Scan {
    pub(super) fn new(targets: Vec<Target>, zones: &Zones) -> Scan {
        let times: Vec<(Time, Time)> = targets.iter().map(|t| t.read).collect();
        let parts: VecDeque<Range<Offset>> = zones.holding(&times).into();
        let keys = targets.iter().map(|t| t.match_key.to_bytes()).zip(0..);
        Scan {
            by_key: keys.collect(),
            targets,
            parts,
            chosen_to: None,
            collected: Collected::new(OFFLINE_MEMORY),
        }
    }

    /// Reads on, up to where the windows stand. Tells whether there is more.
    pub(super) fn read(&mut self, place: &Place<'_>) -> Result<bool, RecountError> {
        // The last part may have grown since, and what came behind it is read whatever its time.
        let chosen_to = *self.chosen_to.get_or_insert(place.next);
        if chosen_to < place.next {
            self.parts.push_back(chosen_to..place.next);
            self.chosen_to = Some(place.next);
        }
        let Some(part) = self.parts.pop_front() else {
            return Ok(false);
        };
        let (mut next, end) = (part.start, part.end.min(place.next));
        let mut room = STEP_BYTES;
        while next < end && room > 0 {
            let batch = match place.bus.read(Topic::Matches, place.partition, next, room) {
                // Retention has come by.
                Err(BusError::OutOfRange { asked, start, .. }) if asked < start => {
                    next = start;
                    continue;
                }
                batch => batch?,
            };
            if batch.records.is_empty() {
                break;
            }
            for (offset, record) in &batch.records {
                room = room.saturating_sub(record.key.len() + record.value.len());
                if *offset < end {
                    self.take(*offset, record)?;
                }
            }
            next = batch.next;
        }
        if next < end {
            self.parts.push_front(next..end);
        }
        Ok(!self.parts.is_empty())
    }

    fn take(&mut self, offset: Offset, record: &Record) -> Result<(), RecountError> {
        let Some(&number) = self.by_key.get(&record.key[..]) else {
            return Ok(());
        };
        let target = &mut self.targets[number];
        if offset < target.since || target.matches >= MOST_MATCHES {
            return Ok(());
        }
        // One that cannot be read was counted when it came.
        let Ok(MatchRecord::Match(m)) = MatchRecord::decode(&record.value) else {
            return Ok(());
        };
        let time = m.time.clamp(Time::MIN, Time::MAX);
        if (target.read.0..=target.read.1).contains(&time) {
            target.matches += 1;
            self.collected.push(number as u32, m)?;
        }
        Ok(())
    }

    /// Everything was read.
    pub(super) fn finish(self) -> Result<Counting, OfflineError> {
        Ok(Counting {
            targets: self.targets.into_iter().zip(0..).collect(),
            sorted: self.collected.sorted()?,
        })
    }
}

/// Groups being counted, one after the other.
pub(super) struct Counting {
    targets: VecDeque<(Target, u32)>,
    sorted: Sorted,
}

impl Counting {
    /// The next group, and what it comes to with the watermark where it is now.
    pub(super) fn next(
        &mut self,
        windows: &Windows,
        lateness: i64,
    ) -> Option<Result<(Target, Counted), OfflineError>> {
        let (mut target, number) = self.targets.pop_front()?;
        if let Some((_, _, watermark)) = windows.rule(&target.rule.rule_id) {
            target.watermark = watermark;
        }
        let (rule, watermark) = (&target.rule, target.watermark);
        let counted = count_again(rule, lateness, watermark, number, &mut self.sorted);
        Some(counted.map(|counted| (target, counted)))
    }
}
