//! What later windows need of the matches inside an episode.
//!
//! A window that ends behind an episode and reaches into it holds the latest of its matches, from some time on.
//! So of a number of matches the latest as many as the threshold are enough; of values the latest time of each, for
//! the threshold's number of them; of rules the latest time of each. Each of these only grows by union, so that the
//! order in which matches come cannot show. Of rules in order the matches of the last timespan are kept: all that a
//! match may still come between, less those that the condition can do without (`thin`), and of the older ones those
//! from which a chain can go on. Only this last one can outgrow its bound, and then the episode is marked as rough.

use std::collections::VecDeque;

use event::Time;
use rustc_hash::FxHashMap;

use super::episode::Point;
use super::kept::{Kind, Terms, keys};
use super::loose::What;
use super::order;
use super::thin;

/// How many matches of rules in order are kept at most.
const MOST_ROW: usize = 4_096;

/// The summary of what is inside an episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inside {
    /// Nothing is asked of it any more.
    Nothing,
    /// The latest matches.
    Latest(VecDeque<Point>),
    /// The latest time of each value or rule.
    ByValue(ByValue),
    /// Matches in order of time, with the rules that they satisfy.
    Row(Vec<(Time, u64)>),
}

/// The latest time of each value, for the latest values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ByValue {
    times: FxHashMap<u64, Time>,
    /// The same in order of time.
    order: VecDeque<(Time, u64)>,
}

impl ByValue {
    pub(super) fn from_rows(rows: impl IntoIterator<Item = (Time, u64)>) -> ByValue {
        let mut all = ByValue::default();
        rows.into_iter()
            .for_each(|(time, value)| all.take(time, value, usize::MAX));
        all
    }

    /// In order of time.
    pub(super) fn rows(&self) -> impl Iterator<Item = &(Time, u64)> {
        self.order.iter()
    }

    fn take(&mut self, time: Time, value: u64, most: usize) {
        match self.times.get_mut(&value) {
            Some(known) if *known >= time => return,
            Some(known) => {
                if let Ok(place) = self.order.binary_search(&(*known, value)) {
                    self.order.remove(place);
                }
                *known = time;
            }
            None => {
                self.times.insert(value, time);
            }
        }
        let place = self.order.partition_point(|o| *o < (time, value));
        self.order.insert(place, (time, value));
        if self.order.len() > most
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.times.remove(&oldest);
        }
    }

    fn place(&self, from: Time) -> usize {
        self.order.partition_point(|o| o.0 < from)
    }
}

impl Inside {
    /// The summary of nothing yet.
    pub(super) fn new(kind: Kind) -> Inside {
        match kind {
            Kind::Events => Inside::Latest(VecDeque::new()),
            Kind::Values | Kind::Rules => Inside::ByValue(ByValue::default()),
            Kind::Ordered => Inside::Row(Vec::new()),
            Kind::Settled => Inside::Nothing,
        }
    }

    /// Takes a match in.
    pub(super) fn take(&mut self, terms: Terms<'_>, at: Point, what: &What) {
        match self {
            Inside::Nothing => {}
            Inside::Latest(latest) => {
                let place = latest.partition_point(|e| *e < at);
                if place > 0 || latest.len() < terms.threshold() {
                    latest.insert(place, at);
                    if latest.len() > terms.threshold() {
                        latest.pop_front();
                    }
                }
            }
            Inside::ByValue(values) => {
                let most = terms.most_values();
                keys(terms.kind(), what).for_each(|value| values.take(at.0, value, most));
            }
            Inside::Row(row) => {
                let place = row.partition_point(|m| m.0 <= at.0);
                row.insert(place, (at.0, what.rules()));
            }
        }
    }

    /// Takes in what is inside of the episode behind this one.
    pub(super) fn join(&mut self, terms: Terms<'_>, later: Inside) {
        match (self, later) {
            (Inside::Latest(latest), Inside::Latest(later)) => {
                latest.extend(later);
                let excess = latest.len().saturating_sub(terms.threshold());
                latest.drain(..excess);
            }
            (Inside::ByValue(values), Inside::ByValue(later)) => {
                for (time, value) in later.order {
                    values.take(time, value, terms.most_values());
                }
            }
            (Inside::Row(row), Inside::Row(later)) => row.extend(later),
            _ => {}
        }
    }

    /// Lets go of what no window can need that ends behind `last`; from time to time, by its own size only. Tells
    /// whether more had to go.
    pub(super) fn tidy(&mut self, terms: Terms<'_>, last: Time, watermark: Time) -> bool {
        let Inside::Row(row) = self else { return false };
        if row.len() < 64 || row.len() % 64 != 0 {
            return false;
        }
        let (condition, timespan) = (&terms.rule.condition, terms.rule.timespan);
        row.retain(|m| m.0 >= last.plus(-timespan));
        let rules: Vec<What> = row.iter().map(|m| What::One(m.1)).collect();
        let times = row.iter().map(|m| m.0);
        let matches: Vec<(Time, &What)> = times.zip(&rules).collect();
        let mut spare = thin::spare(condition, timespan, &matches, |_| true).into_iter();
        row.retain(|_| !spare.next().unwrap_or(false));
        // Nothing comes between these any more.
        let final_to = row.partition_point(|m| m.0 < watermark);
        let mut needed = order::needed(condition, &row[..final_to]).into_iter();
        row.retain(|_| needed.next().unwrap_or(true));
        let rough = row.len() >= MOST_ROW;
        if rough {
            row.drain(..MOST_ROW / 4);
        }
        rough
    }

    /// Is this match known to be inside?
    pub(super) fn has(&self, at: Point) -> bool {
        matches!(self, Inside::Latest(latest) if latest.binary_search(&at).is_ok())
    }

    /// How many matches or values there are from this time on, as far as it matters.
    pub(super) fn count(&self, from: Time) -> u64 {
        let count = match self {
            Inside::Latest(latest) => latest.len() - latest.partition_point(|p| p.0 < from),
            Inside::ByValue(values) => values.order.len() - values.place(from),
            Inside::Row(_) | Inside::Nothing => 0,
        };
        count as u64
    }

    /// When this value or rule was seen last.
    pub(super) fn latest(&self, value: u64) -> Option<Time> {
        match self {
            Inside::ByValue(values) => values.times.get(&value).copied(),
            Inside::Row(row) => row
                .iter()
                .rev()
                .find(|m| m.1 >> value & 1 == 1)
                .map(|m| m.0),
            Inside::Latest(_) | Inside::Nothing => None,
        }
    }

    /// The values whose last time lies from one time to before another.
    pub(super) fn values(&self, from: Time, to: Time) -> impl Iterator<Item = u64> {
        let values = match self {
            Inside::ByValue(values) => Some(values),
            _ => None,
        };
        values.into_iter().flat_map(move |values| {
            let places = values.place(from)..values.place(to).max(values.place(from));
            values.order.range(places).map(|(_, value)| *value)
        })
    }

    /// When this rule is seen first from a time on, where order matters.
    pub(super) fn next(&self, rule: u64, from: Time) -> Option<Time> {
        let Inside::Row(row) = self else { return None };
        let row = &row[row.partition_point(|m| m.0 < from)..];
        row.iter().find(|m| m.1 >> rule & 1 == 1).map(|m| m.0)
    }
}
