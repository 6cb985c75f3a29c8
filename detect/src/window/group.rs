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
//! A match before W is *late*. The stage withholds it, and the group is counted again from the log (`crate::recount`).
//! Where that cannot be, too many groups wait already, the match opens its group again: for another lateness of event
//! time the group's own watermark stands a lateness before that match, so that a source that was cut off for hours is
//! correlated as it catches up. What was forgotten stays forgotten, so this is best effort; its findings say `late`.

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

    /// Is this match known to be here? Exact outside of episodes.
    pub(super) fn has(&self, at: Point) -> bool {
        self.kept.loose.get(at).is_some() || self.episodes.iter().any(|e| e.has(at))
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
            self.kept.add(terms, &new, &self.episodes);
        } else if let Some(i) = inside {
            // The same match by another way is not one more.
            if !known || terms.kind() != Kind::Events {
                self.kept.spread(terms, at.0, &new.what, &self.episodes);
            }
            let episode = &mut self.episodes[i];
            episode.rough |= new.rough;
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
mod tests;
