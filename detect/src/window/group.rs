//! All matches of one correlation and one group that can still matter: the algorithm.
//!
//! A match *fires* if at least `threshold` matches lie in the timespan that ends with it. A match that comes at
//! `x` can only make those in `[x, x + timespan]` fire, and none cease to. So a [`Group`] keeps every match that
//! does not fire yet one by one ([`Loose`]) and every run of firing ones as an [`Episode`] in bounded space:
//!
//! ```text
//!   loose   loose │ head (loose) │ first ... episode ... last │ loose   loose │ head │ first ... last
//!                 └── timespan ──┘                            └─ more than a timespan ─┘
//! ```
//!
//! Exactness. Let W be the watermark and L the lateness: what comes has a time of W or more. *Firing* of a match
//! `y` behind an episode needs the matches in `[y - timespan, y]`: loose ones, and of the episode's inside the
//! latest, of which `threshold` are enough, since only "at least" is asked. Of `y` before an episode: only loose
//! ones. Inside an episode nothing needs to be asked. The evidence is the inside and the head, the matches at most
//! a timespan before `first`; it moves inside when W has passed `first`, since neither can then change. A loose
//! match before W - timespan is in no window that can still come, and goes. An episode whose `last` lies more than
//! a timespan before W cannot be joined any more: it is settled, said a last time, and forgotten.
//!
//! Space. Fewer than `threshold` loose matches lie in any timespan, or the last of them would fire; all times lie in
//! `[W - timespan, W + L]`: at most `threshold * (ceil(L / timespan) + 2)` are loose, the bound of DESIGN §4.5.
//! Episodes are more than a timespan apart, so at most `ceil(L / timespan) + 2` are open, each with `threshold`
//! latest and 100 earliest matches: DESIGN's bound doubles, plus 100 ids for each open episode. A partition that lags
//! or times in the future stretch the interval beyond L; [`Terms::most_loose`] is the hard limit then.
//!
//! A match before W is *late*. It opens its group again: for another lateness of event time the group's own
//! watermark stands a lateness before that match, so that a source that was cut off for hours is correlated as it
//! catches up. What was forgotten stays forgotten, so this is best effort, and its findings say `late`.

use std::collections::BTreeMap;
use std::sync::Arc;

use event::{Finding, Id, Str, Time};

use super::episode::{Episode, Loose, Point};
use super::{Correlation, Match};

/// What a group is judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) rule: &'a Correlation,
    /// In microseconds.
    pub(super) lateness: i64,
    pub(super) watermark: Time,
}

impl Terms<'_> {
    fn threshold(&self) -> usize {
        usize::try_from(self.rule.threshold.max(1)).unwrap_or(usize::MAX)
    }

    /// Four times what can be loose as long as times lie within the lateness, and no less than 1,024.
    fn most_loose(&self) -> usize {
        let timespan = self.rule.timespan.max(1) as u64;
        let spans = (self.lateness.max(0) as u64).div_ceil(timespan) as usize;
        let exact = self.threshold().saturating_mul(spans.saturating_add(2));
        exact.saturating_mul(4).max(1_024)
    }
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
}

/// The run-time state of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) group: BTreeMap<Str, Option<Str>>,
    /// In order of (time, id), none inside an episode.
    pub(super) loose: Vec<Loose>,
    /// In order of time, more than a timespan apart.
    pub(super) episodes: Vec<Episode>,
    /// A late match came: the group's own watermark, and the watermark until which it holds.
    pub(super) reopened: Option<(Time, Time)>,
}

impl Group {
    pub(super) fn new(group: BTreeMap<Str, Option<Str>>) -> Group {
        Group {
            group,
            loose: Vec::new(),
            episodes: Vec::new(),
            reopened: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.loose.is_empty() && self.episodes.is_empty()
    }

    /// Nothing happens to the group by itself before the watermark is past this.
    pub(super) fn deadline(&self, timespan: i64) -> Time {
        if let Some((_, until)) = self.reopened {
            return until;
        }
        let episode = self.episodes.first().map(|e| e.last);
        let loose = self.loose.last().map(|m| m.at.0);
        episode.or(loose).map_or(Time::MIN, |t| t.plus(timespan))
    }

    /// What is given up first when there are too many groups: the rank of one, and the time of its newest match.
    pub(super) fn rank(&self) -> (u8, Time) {
        let rank = match (self.episodes.len(), self.loose.len()) {
            (0, 0 | 1) => 0,
            (0, _) => 1,
            _ => 2,
        };
        let loose = self.loose.last().map(|m| m.at.0);
        let newest = self.episodes.last().map(|e| e.last).max(loose);
        (rank, newest.unwrap_or(Time::MIN))
    }

    /// Takes a match in, and says which findings have become part of others. [`Group::say`] says the rest.
    pub(super) fn take(&mut self, terms: Terms<'_>, m: Match, out: &mut Vec<Finding>) -> Taken {
        let at = (m.time, m.id);
        let place = self.loose.partition_point(|l| l.at < at);
        if self.loose.get(place).is_some_and(|l| l.at == at) {
            return Taken::Repeat;
        }
        let late = m.context.late || m.time < terms.watermark;
        let shown = m.context.event_ids.first().cloned().unwrap_or_default();
        if let Some(i) = self.episodes.iter().position(|e| e.covers(m.time)) {
            if self.episodes[i].has(at) {
                return Taken::Repeat;
            }
            self.reopen(terms, m.time);
            let context = self.intern(place, m.context);
            let episode = &mut self.episodes[i];
            episode.take(at, &shown, late, terms.threshold());
            if at < episode.first && !episode.sealed {
                (episode.first, episode.context) = (at, context);
            }
        } else {
            self.reopen(terms, m.time);
            let context = self.intern(place, m.context);
            let loose = Loose {
                at,
                shown,
                context,
                late,
            };
            self.loose.insert(place, loose);
        }
        for firing in self.firing(terms, m.time) {
            self.promote(terms, firing, out);
        }
        match self.crowded_out(terms) {
            0 => Taken::New,
            n => Taken::Crowded(n),
        }
    }

    /// The loose matches that fire now that one at `time` has come.
    fn firing(&self, terms: Terms<'_>, time: Time) -> Vec<Point> {
        let start = self.loose.partition_point(|l| l.at.0 < time);
        let end = time.plus(terms.rule.timespan);
        let reached = self.loose[start..].iter().take_while(|l| l.at.0 <= end);
        reached
            .filter(|l| self.fires(terms, l.at.0))
            .map(|l| l.at)
            .collect()
    }

    /// Does a loose match at `time` fire?
    fn fires(&self, terms: Terms<'_>, time: Time) -> bool {
        let from = time.plus(-terms.rule.timespan);
        let loose = self.loose.partition_point(|l| l.at.0 <= time)
            - self.loose.partition_point(|l| l.at.0 < from);
        let before = self.episodes.iter().rev().filter(|e| e.first.0 <= time);
        let inside: usize = before
            .take_while(|e| e.last >= from)
            .map(|e| e.latest.len() - e.latest.partition_point(|p| p.0 < from))
            .sum();
        loose + inside >= terms.threshold()
    }

    /// A loose match fires: it begins an episode, extends one, or joins two.
    fn promote(&mut self, terms: Terms<'_>, at: Point, out: &mut Vec<Finding>) {
        let Ok(place) = self.loose.binary_search_by_key(&at, |l| l.at) else {
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
                let episode = Episode::new(&self.loose[place]);
                self.episodes.insert(next, episode);
                next
            }
            (true, false) => {
                self.episodes[next - 1].last = at.0;
                next - 1
            }
            (false, true) => {
                let context = Arc::clone(&self.loose[place].context);
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
        if self.episodes[later - 1].said.is_some() && self.episodes[later].said.is_some() {
            let into = self.episodes[later - 1].first.1;
            let mut finding = self.say_one(terms, later);
            finding.merged_into = Some(terms.rule.episode_id(&self.group, into));
            out.push(finding);
        }
        let episode = self.episodes.remove(later);
        self.episodes[later - 1].join(episode, terms.threshold());
    }

    /// Moves the loose matches from `from` to the end of the episode inside.
    fn absorb(&mut self, terms: Terms<'_>, i: usize, from: Time) {
        let episode = &mut self.episodes[i];
        let start = self.loose.partition_point(|l| l.at.0 < from);
        let end = self.loose.partition_point(|l| l.at.0 <= episode.last);
        for l in self.loose.drain(start..end) {
            episode.take(l.at, &l.shown, l.late, terms.threshold());
        }
    }

    /// What leads up to the first firing match of an episode and is not inside yet.
    fn head(&self, terms: Terms<'_>, i: usize) -> std::ops::Range<usize> {
        let episode = &self.episodes[i];
        let end = self.loose.partition_point(|l| l.at.0 < episode.first.0);
        if episode.sealed {
            return end..end;
        }
        let from = episode.first.0.plus(-terms.rule.timespan);
        self.loose.partition_point(|l| l.at.0 < from)..end
    }

    /// Says what is new and worth it.
    pub(super) fn say(&mut self, terms: Terms<'_>, out: &mut Vec<Finding>) {
        for i in 0..self.episodes.len() {
            let head = &self.loose[self.head(terms, i)];
            if self.episodes[i].worth_saying(head, terms.rule.timespan) {
                out.push(self.say_one(terms, i));
            }
        }
    }

    fn say_one(&mut self, terms: Terms<'_>, i: usize) -> Finding {
        let head = self.head(terms, i);
        self.episodes[i].say(&self.loose[head], terms.rule, &self.group)
    }

    /// Lets go of what the watermark has settled, and says a last time what has changed since it was said.
    pub(super) fn advance(&mut self, terms: Terms<'_>, out: &mut Vec<Finding>) {
        let watermark = self.own_watermark(terms.watermark);
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
        let useless = watermark.plus(-timespan);
        let kept = self.loose.partition_point(|l| l.at.0 < useless);
        self.loose.drain(..kept);
    }

    /// Says a last time what has changed, for there is no room for the group any more.
    pub(super) fn close(&mut self, terms: Terms<'_>, out: &mut Vec<Finding>) {
        while !self.episodes.is_empty() {
            self.close_first(terms, out);
        }
    }

    fn close_first(&mut self, terms: Terms<'_>, out: &mut Vec<Finding>) {
        let head = &self.loose[self.head(terms, 0)];
        if self.episodes[0].changed(head) {
            out.push(self.say_one(terms, 0));
        }
        self.episodes.remove(0);
    }

    /// Moves inside what leads up to the first firing match: neither can change any more.
    fn seal(&mut self, terms: Terms<'_>, i: usize) {
        let head = self.head(terms, i);
        let episode = &mut self.episodes[i];
        for l in self.loose.drain(head) {
            episode.take(l.at, &l.shown, l.late, terms.threshold());
        }
        episode.sealed = true;
    }

    fn own_watermark(&mut self, watermark: Time) -> Time {
        match self.reopened {
            Some((own, until)) if watermark <= until => own.min(watermark),
            _ => {
                self.reopened = None;
                watermark
            }
        }
    }

    fn reopen(&mut self, terms: Terms<'_>, time: Time) {
        if time >= terms.watermark {
            return;
        }
        let behind = time.plus(-terms.lateness);
        let own = match self.reopened {
            Some((own, _)) if time >= own => own.max(behind),
            _ => behind,
        };
        self.reopened = Some((own, terms.watermark.plus(terms.lateness)));
    }

    /// Drops loose matches above the limit: the newest where they are ahead of time, else the oldest.
    fn crowded_out(&mut self, terms: Terms<'_>) -> u64 {
        let ahead = terms.watermark.plus(terms.lateness);
        let mut dropped = 0;
        while self.loose.len() > terms.most_loose() {
            let newest_is_ahead = self.loose.last().is_some_and(|l| l.at.0 > ahead);
            self.loose.remove(if newest_is_ahead {
                self.loose.len() - 1
            } else {
                0
            });
            dropped += 1;
        }
        dropped
    }

    /// The context, shared with a neighbour that has the same.
    fn intern(&self, place: usize, context: Finding) -> Arc<Finding> {
        let context = Finding {
            id: Id::default(),
            rule_id: Str::default(),
            title: Str::default(),
            time: Time::default(),
            first_event_time: Time::default(),
            last_event_time: Time::default(),
            event_ids: Vec::new(),
            evidence: Vec::new(),
            late: false,
            ..context
        };
        let loose = [place.wrapping_sub(1), place]
            .into_iter()
            .filter_map(|i| self.loose.get(i))
            .map(|l| &l.context);
        let episodes = self.episodes.iter().rev().take(1).map(|e| &e.context);
        loose
            .chain(episodes)
            .find(|other| ***other == context)
            .map_or_else(|| Arc::new(context), Arc::clone)
    }
}
