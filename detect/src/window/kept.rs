//! The matches of a group that are kept one by one, and what the window of each of them holds.
//!
//! Asking every window anew would cost a window's size for each match. [`Kept`] notes with every match what its
//! window has come to (`seen`: a number of matches or of values, or a set of rules) and changes that where a match
//! comes: one at `x` lies in the windows of the matches in `[x, x + timespan]` and of no others. A value of it is
//! new to those of them that do not have it yet, which lie between a timespan behind its last time and its next
//! time; so the times of each value are indexed. What the new match itself sees follows from the match before it,
//! less what has left the window in between. `seen` is no state: it follows from the matches and is found again.
//!
//! `group` keeps here what lies outside of its episodes, whose insides are asked through their summaries; `firing`
//! keeps all there is. Which match fires is told by [`Kept::firing`]; what that means is theirs.

use std::collections::VecDeque;

use event::Time;
use rustc_hash::{FxHashMap, FxHashSet};

use super::episode::{Episode, Point};
use super::loose::{Loose, LooseSet, What};
use super::matches::Correlation;
use super::measure::{Clause, Measure};

/// What a group is judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) rule: &'a Correlation,
    /// In microseconds.
    pub(super) lateness: i64,
    pub(super) watermark: Time,
    /// Is every episode said but once, when it is settled?
    pub(super) once: bool,
}

/// How the condition of a correlation is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Events,
    Values,
    /// Rules seen in any order.
    Rules,
    /// Rules seen in their order.
    Ordered,
    /// Once, when the watermark has passed.
    Settled,
}

/// Matches that are kept one by one where nothing else bounds them, such as those of one rule of two. Few in tests, so
/// that they get there.
const MOST_UNBOUNDED: usize = if cfg!(test) { 300 } else { 50_000 };

impl Terms<'_> {
    pub(super) fn kind(&self) -> Kind {
        match &self.rule.condition.measure {
            _ if !self.rule.condition.is_monotone() => Kind::Settled,
            Measure::Events => Kind::Events,
            Measure::Values => Kind::Values,
            Measure::Expression { ordered: true, .. } => Kind::Ordered,
            _ => Kind::Rules,
        }
    }

    pub(super) fn threshold(&self) -> usize {
        usize::try_from(self.rule.condition.threshold()).unwrap_or(usize::MAX)
    }

    /// How many values an episode remembers the time of.
    pub(super) fn most_values(&self) -> usize {
        match self.kind() {
            Kind::Values => self.threshold(),
            _ => super::measure::MOST_RULES,
        }
    }

    /// Four times what can be loose as long as times lie within the lateness, and no less than 1,024. Where matches
    /// that do not fire are not bounded by the threshold, at least [`MOST_UNBOUNDED`].
    pub(super) fn most_loose(&self) -> usize {
        let timespan = self.rule.timespan.max(1) as u64;
        let spans = (self.lateness.max(0) as u64).div_ceil(timespan) as usize;
        let bound = match self.kind() {
            Kind::Events | Kind::Values => self.threshold(),
            _ => 1,
        };
        let exact = bound.saturating_mul(spans.saturating_add(2));
        let least = match self.kind() {
            Kind::Events => 1_024,
            _ => MOST_UNBOUNDED,
        };
        exact.saturating_mul(4).max(least)
    }
}

/// The values or rules of a match, by which it is indexed.
pub(super) fn keys(kind: Kind, what: &What) -> impl Iterator<Item = u64> {
    let (mut bits, values) = match kind {
        Kind::Rules | Kind::Ordered => (what.rules(), &[][..]),
        _ => (0, what.all()),
    };
    let rules = std::iter::from_fn(move || {
        let rule = (bits != 0).then(|| u64::from(bits.trailing_zeros()));
        bits &= bits.wrapping_sub(1);
        rule
    });
    rules.chain(values.iter().copied())
}

/// The set of these rules.
fn mask(rules: &[u64]) -> u64 {
    rules.iter().fold(0, |all, rule| all | 1 << rule)
}

/// What became of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It counts.
    New,
    /// It was there already.
    Repeat,
    /// It counts, and so many loose matches had to go for it.
    Crowded(u64),
    /// It lies in no window that is still to be evaluated, and counts nowhere.
    TooLate,
}

/// Matches of one group in order of time.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) loose: LooseSet,
    /// A late match came: the group's own watermark, and the watermark until which it holds.
    pub(super) reopened: Option<(Time, Time)>,
    /// The times of each value or rule among the loose matches.
    times: FxHashMap<u64, VecDeque<Time>>,
    /// What lay before this is no longer there. What has been seen of a window that begins before is not whole.
    whole_from: Time,
}

impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        self.loose == other.loose && self.reopened == other.reopened
    }
}

impl Eq for Kept {}

impl Kept {
    pub(super) fn new() -> Kept {
        Kept {
            loose: LooseSet::default(),
            reopened: None,
            times: FxHashMap::default(),
            whole_from: Time::MIN,
        }
    }

    /// As it was stored; [`Kept::recount`] must follow.
    pub(super) fn restore(loose: LooseSet, reopened: Option<(Time, Time)>) -> Kept {
        Kept {
            loose,
            reopened,
            ..Kept::new()
        }
    }

    /// The watermark as far as this group goes.
    pub(super) fn own_watermark(&mut self, watermark: Time) -> Time {
        match self.reopened {
            Some((own, until)) if watermark <= until => own.min(watermark),
            _ => {
                self.reopened = None;
                watermark
            }
        }
    }

    /// A match at `time` came. One before the watermark opens the group again; tells whether it lies before the group's
    /// own one, where windows are not whole any more and must be counted again.
    pub(super) fn reopen(&mut self, terms: Terms<'_>, time: Time) -> bool {
        if time >= terms.watermark {
            return false;
        }
        let behind = time.plus(-terms.lateness);
        let (own, late) = match self.reopened {
            Some((own, _)) if time >= own => (own.max(behind), false),
            _ => (behind, true),
        };
        self.reopened = Some((own, terms.watermark.plus(terms.lateness)));
        late
    }

    /// Puts a match in, which is not there yet.
    pub(super) fn insert(&mut self, terms: Terms<'_>, mut new: Loose, episodes: &[Episode]) {
        let (time, kind) = (new.at.0, terms.kind());
        self.spread(terms, time, &new.what, episodes);
        new.seen = match kind {
            Kind::Events => self.own(terms, time, &[], episodes) + 1,
            _ => self.own(terms, time, new.what.all(), episodes),
        };
        self.index(kind, time, &new.what);
        self.loose.insert(new);
    }

    /// The matches beside a place.
    pub(super) fn neighbours(&self, at: Point) -> impl Iterator<Item = &Loose> {
        let before = self.loose.before(at).into_iter();
        before.chain(self.loose.at_or_after(at))
    }

    /// A match that is there satisfies another rule, or has another value.
    pub(super) fn add(&mut self, terms: Terms<'_>, new: &Loose, episodes: &[Episode]) {
        let (kind, at) = (terms.kind(), new.at);
        if new.rough {
            self.loose.roughen(at);
        }
        let Some(known) = self.loose.get_mut(at) else {
            return;
        };
        let rules = matches!(kind, Kind::Rules | Kind::Ordered);
        let more = known.what.more(&new.what, rules);
        if kind != Kind::Events && more != What::Nothing {
            known.what = known.what.with(&more, rules);
            self.spread(terms, at.0, &more, episodes);
            self.index(kind, at.0, &more);
        }
    }

    /// Tells the windows that hold `time` of a match there, which is not indexed yet.
    pub(super) fn spread(
        &mut self,
        terms: Terms<'_>,
        time: Time,
        what: &What,
        episodes: &[Episode],
    ) {
        let end = time.plus(terms.rule.timespan);
        match terms.kind() {
            Kind::Events => self.loose.see(time, end, |l| l.seen += 1),
            Kind::Rules => self.loose.see(time, end, |l| l.seen |= what.rules()),
            Kind::Values => {
                for value in what.all() {
                    let (before, after) = self.around(*value, time, episodes);
                    let has_it = before.map_or(Time::MIN, |t| t.plus(terms.rule.timespan + 1));
                    let has_it_again = after.map_or(Time::MAX, |t| t.plus(-1));
                    let (from, to) = (time.max(has_it), end.min(has_it_again));
                    self.loose.see(from, to, |l| l.seen += 1);
                }
            }
            Kind::Ordered | Kind::Settled => {}
        }
    }

    /// The last time of a value up to `time` and the first one from it on.
    fn around(&self, value: u64, time: Time, episodes: &[Episode]) -> (Option<Time>, Option<Time>) {
        let (mut before, mut after) = (None, None);
        if let Some(times) = self.times.get(&value) {
            let behind = times.partition_point(|t| *t <= time);
            before = behind.checked_sub(1).map(|place| times[place]);
            after = match before {
                Some(same) if same == time => before,
                _ => times.get(behind).copied(),
            };
        }
        for inside in episodes.iter().filter_map(|e| e.inside.latest(value)) {
            if inside <= time {
                before = before.max(Some(inside));
            }
            if inside >= time {
                after = Some(after.map_or(inside, |t| t.min(inside)));
            }
        }
        (before, after)
    }

    /// What a window that ends at `time` holds: the matches that are there, and the values of a new one.
    fn own(&self, terms: Terms<'_>, time: Time, new: &[u64], episodes: &[Episode]) -> u64 {
        let from = time.plus(-terms.rule.timespan);
        let reached = || episodes.iter().filter(|e| e.first.0 <= time);
        match terms.kind() {
            Kind::Events => {
                let inside: u64 = reached().map(|e| e.inside.count(from)).sum();
                self.loose.count(from, time) + inside
            }
            Kind::Rules => {
                let loose = self.times.keys().copied();
                let inside = reached().flat_map(|e| e.inside.values(from, time.plus(1)));
                let within = |rule: &u64| {
                    let last = self.around(*rule, time, episodes).0;
                    last.is_some_and(|t| t >= from)
                };
                let seen = loose.chain(inside).filter(within);
                seen.fold(new.first().copied().unwrap_or(0), |seen, rule| {
                    seen | 1 << rule
                })
            }
            Kind::Values => match self.loose.range(time, time).next() {
                // Matches of one time have one window, and this one has been told already.
                Some(same) => same.seen,
                None => self.own_values(terms, time, new, episodes),
            },
            Kind::Ordered | Kind::Settled => 0,
        }
    }

    /// The same for values, of which `new` are those at `time` itself, all different.
    fn own_values(&self, terms: Terms<'_>, time: Time, new: &[u64], episodes: &[Episode]) -> u64 {
        let from = time.plus(-terms.rule.timespan);
        let reached = || episodes.iter().filter(|e| e.first.0 <= time);
        let absent = |value: &u64| {
            let last = self.around(*value, time, episodes).0;
            last.is_none_or(|t| t < from)
        };
        let new = new.iter().filter(|v| absent(v)).count() as u64;
        let before = self.loose.last_before(time).filter(|before| {
            let begins = before.at.0.plus(-terms.rule.timespan);
            before.at.0 >= from
                && begins >= self.whole_from
                && reached().all(|e| e.last < before.at.0)
        });
        let Some(before) = before else {
            // None in the window, or an episode between: the end of its inside, and loose ones before it.
            let inside: u64 = reached().map(|e| e.inside.count(from)).sum();
            let inside_has = |value: &u64| {
                let mut latest = reached().filter_map(|e| e.inside.latest(*value));
                latest.any(|t| t >= from)
            };
            let loose = self.loose.range(from, time.plus(-1));
            let loose = loose.flat_map(|l| l.what.all()).copied();
            let loose: FxHashSet<u64> = loose.filter(|v| !inside_has(v)).collect();
            return inside + loose.len() as u64 + new;
        };
        let begins = before.at.0.plus(-terms.rule.timespan);
        let left = self.loose.range(begins, from.plus(-1));
        let left = left.flat_map(|l| l.what.all().iter().copied());
        let left = left.chain(reached().flat_map(|e| e.inside.values(begins, from)));
        let mut left: Vec<u64> = left.filter(absent).collect();
        left.sort_unstable();
        left.dedup();
        (before.seen + new).saturating_sub(left.len() as u64)
    }

    fn index(&mut self, kind: Kind, time: Time, what: &What) {
        if kind == Kind::Events {
            return;
        }
        for key in keys(kind, what) {
            let times = self.times.entry(key).or_default();
            let place = times.partition_point(|t| *t <= time);
            times.insert(place, time);
        }
    }

    fn unindex(&mut self, kind: Kind, loose: &[Loose]) {
        if kind == Kind::Events {
            return;
        }
        for l in loose {
            for key in keys(kind, &l.what) {
                let Some(times) = self.times.get_mut(&key) else {
                    continue;
                };
                let place = times.partition_point(|t| *t < l.at.0);
                if times.get(place) == Some(&l.at.0) {
                    times.remove(place);
                }
                if times.is_empty() {
                    self.times.remove(&key);
                }
            }
        }
    }

    /// Takes out the matches from one time to another, both included, because they have become part of an episode.
    pub(super) fn take(&mut self, terms: Terms<'_>, from: Time, to: Time) -> Vec<Loose> {
        let taken = self.loose.take(from, to);
        self.unindex(terms.kind(), &taken);
        taken
    }

    /// Lets go of all matches before `time`: no window that can still come begins there.
    pub(super) fn forget(&mut self, terms: Terms<'_>, time: Time) {
        if self.loose.first().is_some_and(|l| l.at.0 < time) {
            let taken = self.loose.take(Time::MIN, time.plus(-1));
            self.unindex(terms.kind(), &taken);
        }
        // Even if none was there: an episode that lay there is gone too.
        self.whole_from = self.whole_from.max(time);
    }

    /// Lets go of one match for want of room. Of anything but a number of matches a recount must follow.
    pub(super) fn remove(&mut self, terms: Terms<'_>, at: Point) {
        if let Some(taken) = self.loose.remove(at) {
            self.unindex(terms.kind(), std::slice::from_ref(&taken));
            if terms.kind() == Kind::Events {
                let end = at.0.plus(terms.rule.timespan);
                self.loose
                    .see(at.0, end, |l| l.seen = l.seen.saturating_sub(1));
            }
        }
    }

    /// Finds again what every window holds, of what is there now.
    pub(super) fn recount(&mut self, terms: Terms<'_>, episodes: &[Episode]) {
        let kind = terms.kind();
        self.times.clear();
        self.whole_from = Time::MIN;
        let all: Vec<(Time, What)> = self
            .loose
            .iter()
            .map(|l| (l.at.0, l.what.clone()))
            .collect();
        for together in all.chunk_by(|a, b| a.0 == b.0) {
            let time = together[0].0;
            let mut union: Vec<u64> = together.iter().flat_map(|m| keys(kind, &m.1)).collect();
            union.sort_unstable();
            union.dedup();
            let seen = match kind {
                Kind::Values => self.own_values(terms, time, &union, episodes),
                Kind::Rules => self.own(terms, time, &[], episodes) | mask(&union),
                _ => self.own(terms, time, &[], episodes),
            };
            self.loose.see(time, time, |l| l.seen = seen);
            together.iter().for_each(|m| self.index(kind, time, &m.1));
        }
    }

    /// The matches that fire and have not been handed on, now that one at `time` has come.
    pub(super) fn firing(
        &self,
        terms: Terms<'_>,
        time: Time,
        what: &What,
        episodes: &[Episode],
    ) -> Vec<Point> {
        let end = time.plus(terms.rule.timespan);
        let condition = &terms.rule.condition;
        let reached = self.loose.range(time, end).filter(|l| !l.fired);
        match terms.kind() {
            Kind::Events | Kind::Values => reached
                .filter(|l| condition.admits(l.seen as f64))
                .map(|l| l.at)
                .collect(),
            Kind::Rules => reached
                .filter(|l| condition.admits_rules(l.seen))
                .map(|l| l.at)
                .collect(),
            Kind::Ordered => self.firing_in_order(terms, time, what, episodes),
            Kind::Settled => Vec::new(),
        }
    }

    fn firing_in_order(
        &self,
        terms: Terms<'_>,
        time: Time,
        what: &What,
        episodes: &[Episode],
    ) -> Vec<Point> {
        let Measure::Expression { clauses, .. } = &terms.rule.condition.measure else {
            return Vec::new();
        };
        // Those behind it fire by a chain that it is part of, if by any.
        let timespan = terms.rule.timespan;
        let end = match self.may_complete(terms, clauses, time, what, episodes) {
            true => time.plus(timespan),
            false => time,
        };
        let reached = self.loose.range(time, end).filter(|l| !l.fired);
        let fires = |l: &&Loose| {
            let (from, to) = (l.at.0.plus(-timespan), l.at.0);
            clauses
                .iter()
                .any(|c| self.has_chain(c.with, from, to, episodes))
        };
        reached.filter(fires).map(|l| l.at).collect()
    }

    /// Are these rules seen in their order between two times? Each as early as it can be.
    fn has_chain(&self, rules: u64, from: Time, to: Time, episodes: &[Episode]) -> bool {
        let mut reached = from;
        keys(Kind::Ordered, &What::One(rules)).all(|rule| {
            let loose = self.times.get(&rule);
            let loose = loose.and_then(|all| all.get(all.partition_point(|t| *t < reached)));
            let inside = episodes.iter().filter_map(|e| e.inside.next(rule, reached));
            match inside.chain(loose.copied()).min() {
                Some(time) if time <= to => {
                    reached = time;
                    true
                }
                _ => false,
            }
        })
    }

    /// Can a match at `time` be part of a chain? Then the rules before and behind those that it satisfies lie within a
    /// timespan before and behind it.
    fn may_complete(
        &self,
        terms: Terms<'_>,
        clauses: &[Clause],
        time: Time,
        what: &What,
        episodes: &[Episode],
    ) -> bool {
        let timespan = terms.rule.timespan;
        let (mut before, mut behind) = (0_u64, 0_u64);
        let all = clauses.iter().fold(0, |all, c| all | c.with);
        for rule in keys(Kind::Ordered, &What::One(all)) {
            let (last, next) = self.around(rule, time, episodes);
            // Of what is inside only the last time is told; others may lie before it.
            let inside = episodes.iter().filter_map(|e| e.inside.latest(rule)).max();
            let perhaps = inside.is_some_and(|t| t > time);
            let is_before = last.is_some_and(|t| t >= time.plus(-timespan)) || perhaps;
            let is_behind = next.is_some_and(|t| t <= time.plus(timespan)) || perhaps;
            before |= u64::from(is_before) << rule;
            behind |= u64::from(is_behind) << rule;
        }
        clauses.iter().any(|c| {
            keys(Kind::Ordered, &What::One(c.with & what.rules())).any(|rule| {
                let lower = (1_u64 << rule) - 1;
                let upper = !lower & !(1 << rule);
                c.with & lower & !before == 0 && c.with & upper & !behind == 0
            })
        })
    }
}
