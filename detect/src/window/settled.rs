//! One group of a correlation whose condition more matches can make false again: it waits for the watermark.
//!
//! A number of matches that must stay below a limit, a sum, an average, a percentile, a rule that must not be seen:
//! whether such a condition holds of a window is known when nothing can come any more that lies in it. So a
//! [`Settled`] keeps every match, and when the watermark has passed evaluates them in order of time, once each: a
//! [`Slide`] holds the measure of the window, and matches of one time have the same one. What fires becomes the same
//! episodes with the same findings as in `group`, only later, and final as they are said.
//!
//! Sums do not depend on the order of arrival, since matches are added in order of time; nor do they drift, since the
//! sum is exact (`sum`). A match that is taken behind the watermark, since its group cannot be counted again, is seen by the windows that are still to be
//! evaluated and counts in the episode that is open, but what was evaluated stays as it was.
//!
//! Space. Matches between a timespan before the watermark and the newest: bounded by [`MOST_KEPT`]. Above it the
//! oldest go, counted, and findings that rest on windows they were missing in are marked as not exact.

use std::collections::BTreeMap;

use event::{Finding, Str, Time};

use super::episode::{Episode, Lead};
use super::inside::Inside;
use super::kept::{Taken, Terms};
use super::loose::{Loose, LooseSet, What};
use super::slide::Slide;

/// How many matches a group keeps at most. Few in tests, so that they get there.
const MOST_KEPT: usize = if cfg!(test) { 1_000 } else { 100_000 };

/// The run-time state of one group.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    pub(super) group: BTreeMap<Str, Option<Str>>,
    /// From a timespan before what is evaluated next.
    pub(super) kept: LooseSet,
    /// What lies before this has been evaluated.
    pub(super) done: Time,
    /// The episode that can still grow.
    pub(super) episode: Option<Episode>,
    /// Windows that begin before this miss matches for which there was no room.
    pub(super) rough_to: Time,
    /// The measure of the kept matches that are evaluated; made again when it is needed.
    slide: Option<Slide>,
}

impl PartialEq for Settled {
    fn eq(&self, other: &Settled) -> bool {
        self.group == other.group
            && self.kept == other.kept
            && self.done == other.done
            && self.episode == other.episode
            && self.rough_to == other.rough_to
    }
}

impl Settled {
    /// An empty group; what lies before `done` is not evaluated any more.
    pub(super) fn new(group: BTreeMap<Str, Option<Str>>, done: Time) -> Settled {
        Settled {
            group,
            kept: LooseSet::default(),
            done,
            episode: None,
            rough_to: Time::MIN,
            slide: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.episode.is_none()
    }

    /// Nothing happens by itself before the watermark is past this.
    pub(super) fn deadline(&self, timespan: i64) -> Time {
        let waiting = self.kept.range(self.done, Time::MAX).next();
        let episode = self.episode.as_ref().map(|e| e.last.plus(timespan));
        let last = self.kept.last().map(|l| l.at.0.plus(timespan));
        let waiting = waiting.map(|l| l.at.0);
        waiting
            .into_iter()
            .chain(episode)
            .min()
            .or(last)
            .unwrap_or(Time::MIN)
    }

    pub(super) fn rank(&self) -> (u8, Time) {
        let rank = match (&self.episode, self.kept.len()) {
            (None, 0 | 1) => 0,
            (None, _) => 1,
            _ => 2,
        };
        let newest = self.kept.last().map(|l| l.at.0);
        (rank, newest.unwrap_or(Time::MIN))
    }

    /// Takes a match in. One that is `known` is there already and only satisfies more rules or has more values now.
    pub(super) fn take(&mut self, terms: Terms<'_>, new: Loose, known: bool) -> Taken {
        let (at, rules) = (new.at, terms.rule.condition.has_rules());
        if new.rough {
            self.kept.roughen(at);
            let covering = self.episode.iter_mut().filter(|e| e.covers(at.0));
            covering.for_each(|e| e.rough = true);
        }
        if let Some(there) = self.kept.get_mut(at) {
            let more = there.what.more(&new.what, rules);
            if !known || more == What::Nothing {
                return Taken::Repeat;
            }
            there.what = there.what.with(&more, rules);
            self.forget_slide(at.0);
            return Taken::New;
        }
        if known {
            return Taken::Repeat;
        }
        if at.0 < self.done.plus(-terms.rule.timespan) {
            return Taken::TooLate;
        }
        if let Some(episode) = &mut self.episode
            && episode.covers(at.0)
        {
            episode.take(terms, &new);
        }
        self.forget_slide(at.0);
        self.kept.insert(new);
        let mut dropped = 0;
        while self.kept.len() > MOST_KEPT
            && let Some(oldest) = self.kept.first().map(|l| l.at)
        {
            self.kept.remove(oldest);
            self.forget_slide(oldest.0);
            self.rough_to = self.rough_to.max(oldest.0.plus(1));
            dropped += 1;
        }
        match dropped {
            0 => Taken::New,
            n => Taken::Crowded(n),
        }
    }

    /// What has been evaluated changes.
    fn forget_slide(&mut self, time: Time) {
        if time < self.done {
            self.slide = None;
        }
    }

    /// Evaluates what the watermark has passed. Gives the matches that fire, and says what is new and worth it.
    pub(super) fn advance(
        &mut self,
        terms: Terms<'_>,
        fired: &mut Vec<Loose>,
        out: &mut Vec<Finding>,
    ) {
        let timespan = terms.rule.timespan;
        let mut slide = self.slide.take().unwrap_or_else(|| self.slide_again(terms));
        let next = |kept: &LooseSet, done| kept.range(done, Time::MAX).next().map(|l| l.at.0);
        while let Some(time) = next(&self.kept, self.done).filter(|t| *t < terms.watermark) {
            self.drop_before(time.plus(-timespan), &mut slide);
            for l in self.kept.range(time, time) {
                slide.add(time, &l.what);
            }
            self.done = time.plus(1);
            if slide.holds(&terms.rule.condition, time.plus(-timespan)) {
                self.fire(terms, time, out);
                // What rests on an episode that is not exact is not exact either.
                let rough = self.episode.as_ref().is_some_and(|e| e.rough);
                let firing = self.kept.range(time, time).cloned();
                fired.extend(firing.map(|l| Loose {
                    rough: rough || l.rough,
                    ..l
                }));
            }
        }
        self.done = self.done.max(terms.watermark);
        self.drop_before(terms.watermark.plus(-timespan), &mut slide);
        self.slide = Some(slide);
        let settled = |e: &mut Episode| e.last.plus(timespan) < terms.watermark;
        let over = self.episode.take_if(settled);
        self.close_one(terms, over, out);
        if !terms.once {
            self.say(terms, out);
        }
    }

    /// Says what is new of the open episode and worth it.
    pub(super) fn say(&mut self, terms: Terms<'_>, out: &mut Vec<Finding>) {
        if let Some(episode) = &mut self.episode
            && episode.worth_saying(Lead::default(), terms.rule.timespan)
        {
            out.push(episode.say(&[], terms.rule, &self.group));
        }
    }

    /// The matches at `time` fire.
    fn fire(&mut self, terms: Terms<'_>, time: Time, out: &mut Vec<Finding>) {
        let timespan = terms.rule.timespan;
        let from = match &mut self.episode {
            Some(episode) if time.0 - episode.last.0 <= timespan => {
                let from = episode.last.plus(1);
                episode.last = time;
                from
            }
            open => {
                let over = open.take();
                self.close_one(terms, over, out);
                let first = self.kept.range(time, time).next();
                let first = first.expect("a match at this time was evaluated");
                let mut episode = Episode::new(first, Inside::Nothing);
                episode.sealed = true;
                self.episode = Some(episode);
                time.plus(-timespan)
            }
        };
        if let Some(episode) = &mut self.episode {
            episode.rough |= time.plus(-timespan) < self.rough_to;
            for l in self.kept.range(from, time) {
                episode.take(terms, l);
            }
        }
    }

    fn close_one(&self, terms: Terms<'_>, over: Option<Episode>, out: &mut Vec<Finding>) {
        if let Some(mut episode) = over
            && episode.changed(Lead::default())
        {
            out.push(episode.say(&[], terms.rule, &self.group));
        }
    }

    /// Says a last time what has changed, for there is no room for the group any more.
    pub(super) fn close(&mut self, terms: Terms<'_>, out: &mut Vec<Finding>) {
        let over = self.episode.take();
        self.close_one(terms, over, out);
    }

    fn drop_before(&mut self, time: Time, slide: &mut Slide) {
        if self.kept.first().is_some_and(|l| l.at.0 < time) {
            for l in self.kept.take(Time::MIN, time.plus(-1)) {
                if l.at.0 < self.done {
                    slide.remove(&l.what);
                }
            }
        }
    }

    fn slide_again(&self, terms: Terms<'_>) -> Slide {
        let mut slide = Slide::new(&terms.rule.condition);
        let evaluated = self.kept.iter().take_while(|l| l.at.0 < self.done);
        evaluated.for_each(|l| slide.add(l.at.0, &l.what));
        slide
    }
}

#[cfg(test)]
mod tests {
    use event::{Event, Severity};

    use super::super::matches::{Chain, Contribution, Correlation, Match};
    use super::super::measure::{Comparison, Condition, Measure};
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn rule(condition: Condition) -> Correlation {
        Correlation {
            rule_id: "r".into(),
            title: "t".into(),
            severity: Severity::Medium,
            tags: Vec::new(),
            staged: false,
            group_by: Vec::new(),
            timespan: 10 * SECOND,
            condition,
            chain: Chain::default(),
            semantics: 0,
        }
    }

    fn terms(rule: &Correlation, watermark: i64) -> Terms<'_> {
        Terms {
            rule,
            lateness: 60 * SECOND,
            watermark: Time(watermark * SECOND),
            once: false,
        }
    }

    fn take(settled: &mut Settled, terms: Terms<'_>, second: i64, number: f64) -> Taken {
        let event = Event {
            id: event::Id::of("test", &[&second.to_le_bytes(), &number.to_le_bytes()]),
            time: Time(second * SECOND),
            ..Event::default()
        };
        let contribution = Contribution {
            values: vec![number.to_bits()],
            ..Contribution::default()
        };
        let m = Match::new(terms.rule, BTreeMap::new(), &event, 0, 0).with(contribution);
        let late = m.time < terms.watermark;
        settled.take(terms, Loose::new(false, m, late), false)
    }

    fn below_three() -> Condition {
        Condition {
            measure: Measure::Events,
            limits: vec![(Comparison::Less, 3.0)],
        }
    }

    #[test]
    fn nothing_fires_before_the_watermark_has_passed_it() {
        let rule = rule(below_three());
        let mut settled = Settled::new(BTreeMap::new(), Time::MIN);
        let (mut fired, mut out) = (Vec::new(), Vec::new());
        for second in [20, 21, 22, 40] {
            take(&mut settled, terms(&rule, 0), second, 0.0);
        }
        let mut check = |watermark: i64, expected: &[(i64, u64)]| {
            settled.advance(terms(&rule, watermark), &mut fired, &mut out);
            let said = out
                .drain(..)
                .map(|f| (f.last_event_time.0 / SECOND, f.count));
            assert_eq!(said.collect::<Vec<_>>(), expected);
        };
        check(20, &[]);
        check(21, &[(20, 1)]);
        check(22, &[(21, 2)]);
        check(23, &[]);
        check(40, &[]);
        check(41, &[(40, 1)]);
        check(60, &[]);
        assert!(settled.is_empty());
    }

    #[test]
    fn what_comes_behind_the_watermark_is_seen_by_what_is_not_evaluated_yet() {
        let rule = rule(below_three());
        let mut settled = Settled::new(BTreeMap::new(), Time::MIN);
        let (mut fired, mut out) = (Vec::new(), Vec::new());
        take(&mut settled, terms(&rule, 0), 100, 0.0);
        settled.advance(terms(&rule, 105), &mut fired, &mut out);
        assert_eq!((out.len(), out[0].count, out[0].late), (1, 1, false));
        assert_eq!(take(&mut settled, terms(&rule, 105), 99, 0.0), Taken::New);
        assert_eq!(
            take(&mut settled, terms(&rule, 105), 90, 0.0),
            Taken::TooLate
        );
        take(&mut settled, terms(&rule, 105), 107, 0.0);
        settled.advance(terms(&rule, 200), &mut fired, &mut out);
        assert_eq!(out.len(), 1, "three lie in the window of the last");
    }

    #[test]
    fn above_the_limit_the_oldest_go_and_findings_say_so() {
        let rule = rule(Condition {
            measure: Measure::Sum,
            limits: vec![(Comparison::Greater, 0.0)],
        });
        let mut settled = Settled::new(BTreeMap::new(), Time::MIN);
        let (mut dropped, mut fired, mut out) = (0, Vec::new(), Vec::new());
        for n in 0..1_500 {
            let taken = take(&mut settled, terms(&rule, 0), 1_000 + n / 300, n as f64);
            if let Taken::Crowded(n) = taken {
                dropped += n;
            }
        }
        assert_eq!((settled.kept.len(), dropped), (MOST_KEPT, 500));
        settled.advance(terms(&rule, 1_100), &mut fired, &mut out);
        assert_eq!(
            (out.len(), out[0].count, out[0].approximate),
            (1, 1_000, true)
        );
        take(&mut settled, terms(&rule, 1_100), 1_200, 1.0);
        settled.advance(terms(&rule, 1_300), &mut fired, &mut out);
        assert_eq!((out.len(), out[1].count, out[1].approximate), (2, 1, false));
    }
}
