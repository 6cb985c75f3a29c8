//! Which matches of a group fire, for the correlations that refer to this one.
//!
//! An episode forgets which of the matches inside it fire; a correlation above wants to know each of them. [`Firing`]
//! keeps the matches themselves, of a monotone condition, and hands each on once: the moment it fires, be it through
//! itself or through one that came late. None is ever taken back. What a settled condition hands on is told by
//! `settled`.
//!
//! Space. A match can be done without where the condition holds both in the half of a timespan before it and in the
//! half behind it, of the matches that stay: every window that holds it holds one of the two, and fires with it or
//! without. So a flood leaves a few matches behind, of a number of them less than four times the threshold in each
//! timespan, and nothing is lost: a window that does not fire has none left out, and where one does fire it goes on
//! to. What no rule bounds is bounded by [`Terms::most_loose`]; of more the oldest go, counted.

use event::Time;

use super::kept::{Kept, Kind, Taken, Terms};
use super::loose::Loose;
use super::slide::Slide;

/// The matches of one group of a correlation that others refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Firing {
    pub(super) kept: Kept,
}

impl Firing {
    pub(super) fn new() -> Firing {
        Firing { kept: Kept::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.loose.is_empty()
    }

    /// Nothing happens by itself before the watermark is past this.
    pub(super) fn deadline(&self, timespan: i64) -> Time {
        match (self.kept.reopened, self.kept.loose.last()) {
            (Some((_, until)), _) => until,
            (None, Some(last)) => last.at.0.plus(timespan),
            (None, None) => Time::MIN,
        }
    }

    /// What is given up first when there are too many groups: the rank of one, and the time of its newest match.
    pub(super) fn rank(&self) -> (u8, Time) {
        let rank = u8::from(self.kept.loose.len() > 1);
        let newest = self.kept.loose.last().map(|l| l.at.0);
        (rank, newest.unwrap_or(Time::MIN))
    }

    /// Takes a match in, and gives those that fire through it. One that is `known` only has more rules or values now.
    pub(super) fn take(
        &mut self,
        terms: Terms<'_>,
        new: Loose,
        known: bool,
        out: &mut Vec<Loose>,
    ) -> Taken {
        let at = new.at;
        let is_there = self.kept.loose.get(at).is_some();
        if is_there != known {
            // Known and no longer there: it could be done without.
            return Taken::Repeat;
        }
        let late = self.kept.reopen(terms, at.0);
        if known {
            self.kept.add(terms, at, &new.what, &[]);
        } else {
            self.kept.insert(terms, new, &[]);
        }
        if late {
            self.kept.recount(terms, &[]);
        }
        for at in self.kept.firing(terms, at.0, &[]) {
            if let Some(firing) = self.kept.loose.get_mut(at) {
                firing.fired = true;
                out.push(firing.clone());
            }
        }
        let len = self.kept.loose.len();
        if len >= 256 && len.is_multiple_of(128) {
            self.thin(terms);
        }
        match self.crowded_out(terms) {
            0 => Taken::New,
            n => Taken::Crowded(n),
        }
    }

    /// Lets go of what is in no window that can still come.
    pub(super) fn advance(&mut self, terms: Terms<'_>) {
        let watermark = self.kept.own_watermark(terms.watermark);
        self.kept
            .forget(terms, watermark.plus(-terms.rule.timespan));
    }

    /// Leaves out what can be done without, from the earliest on.
    fn thin(&mut self, terms: Terms<'_>) {
        let condition = &terms.rule.condition;
        let half = terms.rule.timespan / 2;
        let all: Vec<Loose> = self.kept.loose.iter().cloned().collect();
        let (mut before, mut behind) = (Slide::new(condition), Slide::new(condition));
        // The part of the window before that has been taken away again, and the end of the one behind.
        let mut stay: Vec<&Loose> = Vec::new();
        let (mut begin, mut end) = (0, 0);
        for (i, l) in all.iter().enumerate() {
            let time = l.at.0;
            while let Some(next) = all.get(end).filter(|n| n.at.0 <= time.plus(half)) {
                behind.add(next.at.0, &next.what);
                end += 1;
            }
            behind.remove(&l.what);
            while let Some(old) = stay.get(begin).filter(|o| o.at.0 < time.plus(-half)) {
                before.remove(&old.what);
                begin += 1;
            }
            // Of rules a slide tells by time what is before the window, not what is one of several at its beginning.
            let next = all.get(i + 1).map_or(Time::MAX, |n| n.at.0);
            let apart = next > time || terms.kind() == Kind::Events || terms.kind() == Kind::Values;
            let spare = l.fired
                && apart
                && before.holds(condition, time.plus(-half))
                && behind.holds(condition, if apart { next } else { time });
            if spare {
                self.kept.loose.remove(l.at);
            } else {
                before.add(time, &l.what);
                stay.push(l);
            }
        }
        self.kept.recount(terms, &[]);
    }

    fn crowded_out(&mut self, terms: Terms<'_>) -> u64 {
        let most = terms.most_loose();
        let mut dropped = 0;
        if self.kept.loose.len() > most {
            while self.kept.loose.len() > most - most / 4
                && let Some(at) = self.kept.loose.first().map(|l| l.at)
            {
                self.kept.remove(terms, at);
                dropped += 1;
            }
            self.kept.recount(terms, &[]);
        }
        dropped
    }
}
