//! All matches of one correlation and one group that can still matter: the algorithm of monotone conditions.
//!
//! A match *fires* if the condition holds of the matches in the timespan that ends with it. A match that comes at
//! `x` can only make those in `[x, x + timespan]` fire, and none cease to. So a [`Group`] keeps every match that
//! does not fire yet one by one ([`Kept`]) and every run of firing ones as an [`Episode`] in bounded space:
//!
//! ```text
//!   loose   loose │ head (loose) │ first ... episode ... last │ loose   loose │ head │ first ... last
//!                 └── timespan ──┘                            └─ more than a timespan ─┘
//! ```
//!
//! Exactness. Let W be the watermark and L the lateness: what comes has a time of W or more. *Firing* of a match
//! `y` behind an episode needs the matches in `[y - timespan, y]`: loose ones, and the end of the episode's inside,
//! which its summary tells ([`Inside`]). Of `y` before an episode: only loose ones. Inside an episode nothing needs
//! to be asked. The evidence is the inside and the head, the matches at most a timespan before `first`; it moves
//! inside when W has passed `first`, since neither can then change. A loose match before W - timespan is in no window
//! that can still come, and goes. An episode whose `last` lies more than a timespan before W cannot be joined any
//! more: it is settled, said a last time, and forgotten.
//!
//! Space. Of a number of matches fewer than `threshold` loose ones lie in any timespan, or the last of them would
//! fire; all times lie in `[W - timespan, W + L]`: at most `threshold * (ceil(L / timespan) + 2)` are loose, the
//! bound of DESIGN §4.5. Episodes are more than a timespan apart, so at most `ceil(L / timespan) + 2` are open, each
//! with its summary and the 100 earliest matches. A partition that lags or times in the future stretch the interval
//! beyond L, and matches that repeat a value or a rule are not bounded by a threshold: [`Terms::most_loose`] is the
//! hard limit then. Of repeated ones those go first that stand between two like them within a timespan; their
//! neighbours stand for them, so that every decision stays as it was, and a finding that rests on them is marked.
//!
//! A match before W is *late*. It opens its group again: for another lateness of event time the group's own
//! watermark stands a lateness before that match, so that a source that was cut off for hours is correlated as it
//! catches up. What was forgotten stays forgotten, so this is best effort, and its findings say `late`.

use std::collections::BTreeMap;
use std::sync::Arc;

use event::{Finding, Str, Time};

use super::episode::{Episode, Lead, Point};
use super::inside::Inside;
use super::kept::{Kept, Kind};
pub(super) use super::kept::{Taken, Terms};
use super::loose::{Loose, What};

/// The run-time state of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) group: BTreeMap<Str, Option<Str>>,
    /// None inside an episode.
    pub(super) kept: Kept,
    /// In order of time, more than a timespan apart.
    pub(super) episodes: Vec<Episode>,
}

impl Group {
    pub(super) fn new(group: BTreeMap<Str, Option<Str>>) -> Group {
        Group {
            group,
            kept: Kept::new(),
            episodes: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.loose.is_empty() && self.episodes.is_empty()
    }

    /// Nothing happens to the group by itself before the watermark is past this.
    pub(super) fn deadline(&self, timespan: i64) -> Time {
        if let Some((_, until)) = self.kept.reopened {
            return until;
        }
        let episode = self.episodes.first().map(|e| e.last);
        let loose = self.kept.loose.last().map(|m| m.at.0);
        episode.or(loose).map_or(Time::MIN, |t| t.plus(timespan))
    }

    /// What is given up first when there are too many groups: the rank of one, and the time of its newest match.
    pub(super) fn rank(&self) -> (u8, Time) {
        let rank = match (self.episodes.len(), self.kept.loose.len()) {
            (0, 0 | 1) => 0,
            (0, _) => 1,
            _ => 2,
        };
        let loose = self.kept.loose.last().map(|m| m.at.0);
        let newest = self.episodes.last().map(|e| e.last).max(loose);
        (rank, newest.unwrap_or(Time::MIN))
    }

    /// Takes a match in, and says which findings have become part of others. [`Group::say`] says the rest. One that is
    /// `known` is there already and only satisfies more rules or has more values now.
    pub(super) fn take(
        &mut self,
        terms: Terms<'_>,
        mut new: Loose,
        known: bool,
        out: &mut Vec<Finding>,
    ) -> Taken {
        let at = new.at;
        let is_loose = self.kept.loose.get(at).is_some();
        if is_loose && !known {
            return Taken::Repeat;
        }
        let inside = self.episodes.iter().position(|e| e.covers(at.0));
        if let Some(i) = inside
            && !known
            && self.episodes[i].has(at)
        {
            return Taken::Repeat;
        }
        let late = self.kept.reopen(terms, at.0);
        let what = new.what.clone();
        if is_loose {
            self.kept.add(terms, at, &new.what, &self.episodes);
        } else if let Some(i) = inside {
            // The same match by another way is not one more.
            if !known || terms.kind() != Kind::Events {
                self.kept.spread(terms, at.0, &new.what, &self.episodes);
            }
            let episode = &mut self.episodes[i];
            match terms.kind() {
                _ if !known => episode.take(terms, &new),
                Kind::Events => {}
                _ => episode.inside.take(terms, at, &new.what),
            }
            if at < episode.first && !episode.sealed {
                (episode.first, episode.context) = (at, new.context);
            }
        } else if known {
            // It is too old to be there.
            return Taken::Repeat;
        } else {
            new.context = self.share(at, new.context);
            self.kept.insert(terms, new, &self.episodes);
        }
        if late {
            self.kept.recount(terms, &self.episodes);
        }
        for firing in self.kept.firing(terms, at.0, &what, &self.episodes) {
            self.promote(terms, firing, out);
        }
        let own = self.kept.reopened.map_or(terms.watermark, |(own, _)| own);
        for episode in &mut self.episodes {
            episode.rough |= episode.inside.tidy(terms, episode.last, own);
        }
        match self.crowded_out(terms) {
            0 => Taken::New,
            n => Taken::Crowded(n),
        }
    }

    /// A loose match fires: it begins an episode, extends one, or joins two.
    fn promote(&mut self, terms: Terms<'_>, at: Point, out: &mut Vec<Finding>) {
        let Some(firing) = self.kept.loose.get(at) else {
            return; // Inside already: an earlier one of the same call took it along.
        };
        let timespan = terms.rule.timespan;
        let near = |a: Time, b: Time| b.0.saturating_sub(a.0) <= timespan;
        let next = self.episodes.partition_point(|e| e.first < at);
        let joins_before = next > 0 && near(self.episodes[next - 1].last, at.0);
        let joins_after = self
            .episodes
            .get(next)
            .is_some_and(|e| near(at.0, e.first.0));
        let grown = match (joins_before, joins_after) {
            (false, false) => {
                let episode = Episode::new(firing, Inside::new(terms.kind()));
                self.episodes.insert(next, episode);
                next
            }
            (true, false) => {
                self.episodes[next - 1].last = at.0;
                next - 1
            }
            (false, true) => {
                let context = Arc::clone(&firing.context);
                let episode = &mut self.episodes[next];
                (episode.first, episode.context) = (at, context);
                episode.sealed = false;
                next
            }
            (true, true) => {
                self.join(terms, next, out);
                next - 1
            }
        };
        self.absorb(terms, grown, self.episodes[grown].first.0);
    }

    /// The episode at `later` becomes part of the one before it.
    fn join(&mut self, terms: Terms<'_>, later: usize, out: &mut Vec<Finding>) {
        if let Some(earlier) = self.episodes[later - 1].said
            && self.episodes[later].said.is_some()
        {
            let mut finding = self.say_one(terms, later);
            finding.merged_into = Some(earlier.id);
            out.push(finding);
        }
        let episode = self.episodes.remove(later);
        self.episodes[later - 1].join(terms, episode);
    }

    /// Moves the loose matches from `from` to the end of the episode inside.
    fn absorb(&mut self, terms: Terms<'_>, i: usize, from: Time) {
        let episode = &mut self.episodes[i];
        for l in self.kept.take(terms, from, episode.last) {
            episode.take(terms, &l);
        }
    }

    /// The times from which and up to which loose matches lead up to the first firing match of an episode.
    fn head(&self, terms: Terms<'_>, i: usize) -> Option<(Time, Time)> {
        let episode = &self.episodes[i];
        let first = episode.first.0;
        (!episode.sealed).then(|| (first.plus(-terms.rule.timespan), first.plus(-1)))
    }

    fn lead(&self, terms: Terms<'_>, i: usize) -> Lead {
        let Some((from, to)) = self.head(terms, i) else {
            return Lead::default();
        };
        Lead {
            first: self.kept.loose.range(from, to).next().map(|l| l.at.0),
            count: self.kept.loose.weight(from, to),
        }
    }

    /// Says what is new and worth it.
    pub(super) fn say(&mut self, terms: Terms<'_>, out: &mut Vec<Finding>) {
        for i in 0..self.episodes.len() {
            let lead = self.lead(terms, i);
            if self.episodes[i].worth_saying(lead, terms.rule.timespan) {
                out.push(self.say_one(terms, i));
            }
        }
    }

    fn say_one(&mut self, terms: Terms<'_>, i: usize) -> Finding {
        let head: Vec<&Loose> = match self.head(terms, i) {
            Some((from, to)) => self.kept.loose.range(from, to).collect(),
            None => Vec::new(),
        };
        self.episodes[i].say(&head, terms.rule, &self.group)
    }

    /// Lets go of what the watermark has settled, and says a last time what has changed since it was said.
    pub(super) fn advance(&mut self, terms: Terms<'_>, out: &mut Vec<Finding>) {
        let watermark = self.kept.own_watermark(terms.watermark);
        let timespan = terms.rule.timespan;
        for i in 0..self.episodes.len() {
            if self.episodes[i].first.0 < watermark && !self.episodes[i].sealed {
                self.seal(terms, i);
            }
        }
        let settled = |e: &Episode| e.last.plus(timespan) < watermark;
        while self.episodes.first().is_some_and(settled) {
            self.close_first(terms, out);
        }
        self.kept.forget(terms, watermark.plus(-timespan));
    }

    /// Says a last time what has changed, for there is no room for the group any more.
    pub(super) fn close(&mut self, terms: Terms<'_>, out: &mut Vec<Finding>) {
        while !self.episodes.is_empty() {
            self.close_first(terms, out);
        }
    }

    fn close_first(&mut self, terms: Terms<'_>, out: &mut Vec<Finding>) {
        if self.episodes[0].changed(self.lead(terms, 0)) {
            out.push(self.say_one(terms, 0));
        }
        self.episodes.remove(0);
    }

    /// Moves inside what leads up to the first firing match: neither can change any more.
    fn seal(&mut self, terms: Terms<'_>, i: usize) {
        let head = self.head(terms, i);
        let episode = &mut self.episodes[i];
        if let Some((from, to)) = head {
            for l in self.kept.take(terms, from, to) {
                episode.take(terms, &l);
            }
        }
        episode.sealed = true;
    }

    /// Makes room above the limit. Of matches that are alike those go that others can stand for; where that is not
    /// enough the newest where they are ahead of time, else the oldest. Tells how many nothing stands for.
    fn crowded_out(&mut self, terms: Terms<'_>) -> u64 {
        let most = terms.most_loose();
        if self.kept.loose.len() <= most {
            return 0;
        }
        let mut least = most;
        if terms.kind() != Kind::Events {
            self.thin(terms);
            // Not again before there are many more.
            least = most - most / 4;
        }
        let ahead = terms.watermark.plus(terms.lateness);
        let mut dropped = 0;
        while self.kept.loose.len() > least {
            let newest = self.kept.loose.last().filter(|l| l.at.0 > ahead);
            let Some(at) = newest.or_else(|| self.kept.loose.first()).map(|l| l.at) else {
                break;
            };
            self.kept.remove(terms, at);
            dropped += 1;
        }
        if dropped > 0 && terms.kind() != Kind::Events {
            self.kept.recount(terms, &self.episodes);
        }
        dropped
    }

    /// Leaves out each match between two others that are like it and not more than a timespan apart: any window that
    /// holds it holds one of them. The earlier stands for it.
    fn thin(&mut self, terms: Terms<'_>) {
        let mut alike: BTreeMap<&What, Vec<Point>> = BTreeMap::new();
        for l in self.kept.loose.iter() {
            alike.entry(&l.what).or_default().push(l.at);
        }
        let mut out: Vec<(Point, Point)> = Vec::new();
        for points in alike.values() {
            let mut before = points[0];
            for pair in points.windows(2).skip(1) {
                let (at, after) = (pair[0], pair[1]);
                if after.0.0 - before.0.0 <= terms.rule.timespan {
                    out.push((before, at));
                } else {
                    before = at;
                }
            }
        }
        for (before, at) in out {
            self.kept.loose.merge(before, at);
        }
        self.kept.recount(terms, &self.episodes);
    }

    /// The context, shared with a neighbour that has the same.
    fn share(&self, at: Point, context: Arc<Finding>) -> Arc<Finding> {
        let neighbours = self.kept.neighbours(at).map(|l| &l.context);
        let episodes = self.episodes.iter().rev().take(1).map(|e| &e.context);
        let mut known = neighbours.chain(episodes);
        known
            .find(|other| **other == context)
            .map_or(context, Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use event::{Event, Id, Severity};

    use super::super::matches::{Chain, Correlation, Match};
    use super::super::measure::{Comparison, Condition, Measure};
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn rule(threshold: u64) -> Correlation {
        Correlation {
            rule_id: "r".into(),
            title: "Rule".into(),
            severity: Severity::Medium,
            tags: Vec::new(),
            staged: false,
            group_by: Vec::new(),
            timespan: 10 * SECOND,
            condition: Condition::at_least(threshold),
            chain: Chain::default(),
            semantics: 0,
        }
    }

    fn take(group: &mut Group, terms: Terms<'_>, m: Match, out: &mut Vec<Finding>) -> Taken {
        let late = m.time < terms.watermark;
        group.take(terms, Loose::new(false, m, late), false, out)
    }

    fn to_match(rule: &Correlation, second: i64, id: u64) -> Match {
        let event = Event {
            id: Id(u128::from(id)),
            time: Time(second * SECOND),
            actor: event::format_compact!("actor {id}"),
            ..Event::default()
        };
        Match::new(rule, BTreeMap::new(), &event, 0, id)
    }

    /// Runs matches at these seconds, numbered from 1; a negative one is a watermark at that second. Tells what was said:
    /// the id (by its event), the episode (by its event), first and last time, count, revision, where merged.
    fn said(threshold: u64, seconds: &[i64]) -> Vec<String> {
        let rule = rule(threshold);
        let mut group = Group::new(BTreeMap::new());
        let mut watermark = Time::MIN;
        let mut lines = Vec::new();
        let events: BTreeMap<Id, u64> = (1..100)
            .map(|n| (rule.episode_id(&BTreeMap::new(), Id(u128::from(n))), n))
            .collect();
        for (second, id) in seconds.iter().zip(1..) {
            if *second < 0 {
                watermark = Time(-second * SECOND);
            }
            let terms = Terms {
                rule: &rule,
                lateness: 100 * SECOND,
                watermark,
                once: false,
            };
            let mut out = Vec::new();
            group.advance(terms, &mut out);
            if *second >= 0 {
                take(&mut group, terms, to_match(&rule, *second, id), &mut out);
                group.say(terms, &mut out);
            }
            lines.extend(out.iter().map(|f| {
                let late = if f.late { " late" } else { "" };
                let merged = f
                    .merged_into
                    .map_or(String::new(), |e| format!(" into {}", events[&e]));
                format!(
                    "{} as {}: {}..{} x{} r{}{late}{merged}",
                    events[&f.id],
                    events[&f.episode],
                    f.first_event_time.0 / SECOND,
                    f.last_event_time.0 / SECOND,
                    f.count,
                    f.revision
                )
            }));
        }
        lines
    }

    #[track_caller]
    fn check(threshold: u64, seconds: &[i64], expected: &[&str]) {
        assert_eq!(said(threshold, seconds), expected);
    }

    #[test]
    fn it_fires_as_soon_as_it_is_true_and_grows() {
        check(3, &[0, 5], &[]);
        check(3, &[0, 5, 10], &["3 as 3: 0..10 x3 r0"]);
        check(3, &[0, 5, 11], &[]);
        check(
            3,
            &[0, 5, 10, 12],
            &["3 as 3: 0..10 x3 r0", "3 as 3: 0..12 x4 r1"],
        );
        check(1, &[7], &["1 as 1: 7..7 x1 r0"]);
    }

    #[test]
    fn a_late_event_extends_and_renames() {
        // Event 4 makes the second at 9 fire too, which begins the episode earlier.
        check(
            3,
            &[4, 9, 12, 1],
            &["3 as 3: 4..12 x3 r0", "3 as 2: 1..12 x4 r1"],
        );
        // A match in the head moves the beginning of the evidence.
        check(
            3,
            &[9, 12, 14, 4],
            &["3 as 3: 9..14 x3 r0", "3 as 2: 4..14 x4 r1"],
        );
    }

    #[test]
    fn a_late_event_joins_two_episodes() {
        check(
            2,
            &[0, 1, 20, 21, 11],
            &[
                "2 as 2: 0..1 x2 r0",
                "4 as 4: 20..21 x2 r0",
                "4 as 4: 11..21 x3 r1 into 2",
                "2 as 2: 0..21 x5 r1",
            ],
        );
    }

    #[test]
    fn equal_times_fire_together_and_the_least_id_begins() {
        check(2, &[5, 5], &["1 as 1: 5..5 x2 r0"]);
    }

    #[test]
    fn a_settled_episode_is_over() {
        check(
            2,
            &[0, 1, -11, 12, 13],
            &["2 as 2: 0..1 x2 r0", "5 as 5: 12..13 x2 r0"],
        );
        check(
            2,
            &[0, 1, -11, 11],
            &["2 as 2: 0..1 x2 r0", "2 as 2: 0..11 x3 r1"],
        );
    }

    #[test]
    fn what_comes_too_late_counts_as_well_as_it_can() {
        check(2, &[-500, 300, 305], &["3 as 3: 300..305 x2 r0 late"]);
        // The watermark goes on; the group stays open for a lateness more.
        check(2, &[-500, 300, -590, 305], &["4 as 4: 300..305 x2 r0 late"]);
        check(2, &[-500, 300, -601, 305], &[]);
    }

    #[test]
    fn large_episodes_are_said_at_doubling_and_at_the_end() {
        let mut seconds: Vec<i64> = (0..50).map(|n| n / 10).collect();
        seconds.push(-100);
        let said = said(2, &seconds);
        let counts: Vec<&str> = said
            .iter()
            .filter_map(|line| line.split(' ').find(|w| w.starts_with('x')))
            .collect();
        assert_eq!(
            counts,
            [
                "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x20", "x40", "x50"
            ]
        );
    }

    #[test]
    fn a_repeat_changes_nothing() {
        let rule = rule(2);
        let terms = Terms {
            rule: &rule,
            lateness: 0,
            watermark: Time::MIN,
            once: false,
        };
        let mut group = Group::new(BTreeMap::new());
        let mut out = Vec::new();
        for (second, id) in [(0, 1), (30, 2), (31, 3), (32, 4)] {
            take(&mut group, terms, to_match(&rule, second, id), &mut out);
        }
        let before = group.clone();
        for (second, id) in [(0, 1), (30, 2), (31, 3), (32, 4)] {
            let taken = take(&mut group, terms, to_match(&rule, second, id), &mut out);
            assert_eq!(taken, Taken::Repeat);
        }
        assert_eq!(group, before);
    }

    fn latest(episode: &Episode) -> &std::collections::VecDeque<Point> {
        match &episode.inside {
            Inside::Latest(latest) => latest,
            other => panic!("{other:?}"),
        }
    }

    fn assert_whole(group: &Group, timespan: i64) {
        let loose: Vec<&Loose> = group.kept.loose.iter().collect();
        assert!(loose.windows(2).all(|w| w[0].at < w[1].at));
        for e in &group.episodes {
            assert!(!loose.iter().any(|l| e.covers(l.at.0)));
            assert!(e.earliest.windows(2).all(|w| w[0].0 < w[1].0));
            let latest = latest(e);
            assert!(latest.iter().zip(latest.iter().skip(1)).all(|(a, b)| a < b));
            assert!(e.has(e.first) || e.count > event::MAX_EVENT_IDS as u64);
            assert!(e.first.0 <= e.last && e.count >= latest.len() as u64);
        }
        let apart = |w: &[Episode]| w[1].first.0.0 - w[0].last.0 > timespan;
        assert!(group.episodes.windows(2).all(apart));
    }

    proptest::proptest! {
        /// However late and out of order, nothing breaks, and everything is let go of in the end.
        #[test]
        fn it_stays_whole_whatever_comes(
            steps in proptest::collection::vec((0_i64..400, 0_i64..3), 1..200),
            threshold in 1_u64..5,
            lateness in 0_i64..50,
        ) {
            let rule = rule(threshold);
            let mut group = Group::new(BTreeMap::new());
            let mut terms = Terms {
                rule: &rule,
                lateness: lateness * SECOND,
                watermark: Time::MIN,
                once: false,
            };
            let mut out = Vec::new();
            for ((second, moves), id) in steps.into_iter().zip(1..) {
                if moves == 0 {
                    terms.watermark = terms.watermark.max(Time((second - lateness) * SECOND));
                }
                group.advance(terms, &mut out);
                take(&mut group, terms, to_match(&rule, second, id), &mut out);
                group.say(terms, &mut out);
                assert_whole(&group, rule.timespan);
            }
            let mut last: BTreeMap<Id, &Finding> = BTreeMap::new();
            for finding in &out {
                let before = last.insert(finding.id, finding).map(|f| f.revision);
                proptest::prop_assert_eq!(finding.revision, before.map_or(0, |r| r + 1));
                proptest::prop_assert!(finding.count >= threshold);
                proptest::prop_assert!(finding.first_event_time <= finding.last_event_time);
            }
            for _ in 0..2 {
                terms.watermark = group.deadline(rule.timespan).max(terms.watermark).plus(1);
                group.advance(terms, &mut out);
            }
            terms.watermark = Time(10_000 * SECOND);
            group.advance(terms, &mut out);
            proptest::prop_assert!(group.is_empty());
        }
    }

    /// DESIGN §4.5: the bound holds whatever the traffic, and a flood of the far future stops at the hard limit.
    #[test]
    fn memory_is_bounded() {
        let rule = rule(5);
        let lateness = 60;
        let mut group = Group::new(BTreeMap::new());
        let mut out = Vec::new();
        let (mut most, mut open) = (0, 0);
        let mut dice = 1_u64;
        for id in 0..200_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let second = 1_000 + id as i64 / 40;
            let busy = second / 100 % 2 == 0;
            if !busy && id % 120 != 0 {
                continue;
            }
            let terms = Terms {
                rule: &rule,
                lateness: lateness * SECOND,
                watermark: Time((second - lateness) * SECOND),
                once: false,
            };
            let back = (dice >> 33) as i64 % (lateness + 1);
            group.advance(terms, &mut out);
            take(
                &mut group,
                terms,
                to_match(&rule, second - back, id),
                &mut out,
            );
            group.say(terms, &mut out);
            most = most.max(group.kept.loose.len());
            open = open.max(group.episodes.len());
            for episode in &group.episodes {
                assert!(latest(episode).len() <= 5);
                assert!(episode.earliest.len() <= event::MAX_EVENT_IDS);
            }
        }
        assert!(most <= 5 * (6 + 2), "{most} loose");
        assert!(open <= 6 + 2, "{open} episodes");
        assert!(most > 5 && open > 1, "the stream is worth its name");

        let terms = Terms {
            rule: &rule,
            lateness: lateness * SECOND,
            watermark: Time(1_000 * SECOND),
            once: false,
        };
        let mut group = Group::new(BTreeMap::new());
        let mut dropped = 0;
        for id in 0..3_000 {
            let second = 1_000_000 + 100 * id as i64;
            if let Taken::Crowded(n) =
                take(&mut group, terms, to_match(&rule, second, id), &mut out)
            {
                dropped += n;
            }
        }
        take(&mut group, terms, to_match(&rule, 1_000, 9_999), &mut out);
        assert_eq!(group.kept.loose.len(), 1_024);
        assert_eq!(
            group.kept.loose.first().unwrap().at.1.id,
            Id(9_999),
            "what is not ahead stays"
        );
        assert_eq!(dropped, 3_000 - 1_024);
    }

    /// Random floods of few values, above the limit: nothing that fires is missed, and what is not exact says so.
    /// Tells how many were kept at most.
    fn flood(seed: u64, measure: Measure, least: f64) -> usize {
        use super::super::matches::Contribution;
        use super::super::slide::Slide;
        let rule = Correlation {
            condition: Condition {
                limits: vec![(Comparison::GreaterOrEqual, least)],
                measure,
            },
            ..rule(1)
        };
        let has_rules = rule.condition.has_rules();
        let mut dice = seed;
        let mut roll = |sides: u64| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let lateness = 40;
        let mut stream: Vec<(i64, i64, u64, u64)> = (0..1_500)
            .map(|n| {
                let second = 100 + n as i64 / 20;
                // Mostly two values; now and then the ones that make it fire.
                let value = if roll(300) == 0 { 2 + roll(2) } else { roll(2) };
                (second + roll(lateness + 1) as i64, second, value, n)
            })
            .collect();
        stream.sort_unstable();
        let what = |value: u64| if has_rules { 1 << value } else { value };
        let mut group = Group::new(BTreeMap::new());
        let (mut out, mut newest, mut most) = (Vec::new(), 0, 0);
        let mut terms = Terms {
            rule: &rule,
            lateness: lateness as i64 * SECOND,
            watermark: Time::MIN,
            once: false,
        };
        for (_, second, value, n) in &stream {
            newest = newest.max(*second);
            terms.watermark = Time((newest - lateness as i64) * SECOND);
            let (rules, values) = match has_rules {
                true => (what(*value), Vec::new()),
                false => (0, vec![what(*value)]),
            };
            let contribution = Contribution {
                rules,
                values,
                ..Contribution::default()
            };
            let m = to_match(&rule, *second, *n).with(contribution);
            group.advance(terms, &mut out);
            let taken = group.take(terms, Loose::new(has_rules, m, false), false, &mut out);
            assert_eq!(taken, Taken::New, "others stand for all that go");
            group.say(terms, &mut out);
            most = most.max(group.kept.loose.len());
        }
        assert!(most <= terms.most_loose(), "{most}");
        terms.watermark = Time(10_000 * SECOND);
        group.advance(terms, &mut out);
        let mut last: BTreeMap<Id, Finding> = BTreeMap::new();
        last.extend(out.into_iter().map(|f| (f.id, f)));
        last.retain(|_, f| f.merged_into.is_none());
        stream.sort_unstable_by_key(|s| (s.1, s.3));
        let fires = |second: i64| {
            let mut slide = Slide::new(&rule.condition);
            let window = stream
                .iter()
                .filter(|w| second - 10 <= w.1 && w.1 <= second);
            window.for_each(|w| slide.add(Time(w.1), &What::One(what(w.2))));
            slide.holds(&rule.condition, Time(second - 10))
        };
        let firing: Vec<_> = stream.iter().filter(|s| fires(s.1)).collect();
        let runs: Vec<_> = firing.chunk_by(|a, b| b.1 - a.1 <= 10).collect();
        assert_eq!(last.len(), runs.len());
        let mut found: Vec<&Finding> = last.values().collect();
        found.sort_by_key(|f| f.time);
        for (run, finding) in runs.iter().zip(found) {
            let (first, end) = (run[0].1, run[run.len() - 1].1);
            let evidence = stream.iter().filter(|s| first - 10 <= s.1 && s.1 <= end);
            let exact = (
                finding.time.0 / SECOND,
                finding.last_event_time.0 / SECOND,
                finding.count,
            ) == (first, end, evidence.count() as u64);
            assert!(exact || finding.approximate, "{finding:?}");
        }
        most
    }

    #[test]
    fn a_flood_of_few_values_misses_nothing() {
        let mut most = 0;
        for seed in 0..30 {
            most = most.max(flood(seed, Measure::Values, 4.0));
            flood(seed, Measure::Values, 3.0);
            flood(seed, Measure::Rules(4), 4.0);
            flood(seed, Measure::Rules(4), 3.0);
        }
        assert_eq!(most, 300, "it comes to the limit");
    }
}
