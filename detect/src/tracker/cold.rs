//! The first day of a function, before its model knows the hours: a blunt comparison with the last three hours.
//!
//! A model that has never seen the afternoon cannot tell a campaign from an attack by small margins, and must not be
//! silent for a day either. [`Cold`] asks for so much that hours do not matter: several times the last hour's mean,
//! and at the same time twice the most (or less than a quarter of the least) that was seen in three hours. It looks at
//! single minutes, so that a surge is seen wherever the buckets happen to end. It is no part of what the model learns
//! and is thrown away after the day.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::follow::Spell;
use crate::baseline::{AtLeast, Change};

/// Minutes are compared with so many before them at most, and at least.
const MOST: usize = 200;
const FEWEST: usize = 90;

/// The mean is that of so many minutes.
const MEAN_OF: usize = 60;

/// Sums of so many minutes are judged.
const SPANS: [usize; 5] = [3, 5, 10, 20, 40];

/// Several times what is expected, whatever the document asks.
const RATIO: f64 = 4.0;

/// The last minutes of a function that is new.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cold {
    /// What was seen in the last minutes.
    seen: VecDeque<u32>,
    /// What is taken for usual: what was seen, but for what stood out.
    minutes: VecDeque<u32>,
    spell: Spell,
}

/// What stands out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Departure {
    pub(super) change: Change,
    /// How many minutes.
    pub(super) minutes: usize,
    pub(super) seen: u64,
    pub(super) expected: f64,
}

impl Cold {
    /// Takes in the minutes of a bucket.
    pub(super) fn step(&mut self, counts: &[u64], above: bool, at_least: &AtLeast) -> Departure {
        let mut found: Option<(usize, u64, f64)> = None;
        for count in counts {
            let count = u32::try_from(*count).unwrap_or(u32::MAX);
            self.seen.push_back(count);
            self.minutes.push_back(count);
            let now = SPANS
                .iter()
                .find_map(|span| self.stands_out(*span, above, at_least));
            let further = |f: &(usize, u64, f64)| now.is_some_and(|n| n.1 > f.1);
            if found.as_ref().is_none_or(further) {
                found = now.or(found);
            }
            // What stands out teaches nothing, nor what led to it.
            let untaught = now.map_or(usize::from(self.spell.is_open()), |(span, ..)| span);
            let from = self.minutes.len() - untaught.min(self.minutes.len());
            let usual = mean(&self.minutes, untaught) as u32;
            self.minutes.range_mut(from..).for_each(|m| *m = usual);
            if self.minutes.len() > MOST {
                self.minutes.pop_front();
            }
            if self.seen.len() > SPANS[SPANS.len() - 1] {
                self.seen.pop_front();
            }
        }
        let sum = counts.iter().sum();
        let usual = mean(&self.minutes, counts.len()) * counts.len() as f64;
        let change = self.spell.step(found.is_some(), 1);
        let (minutes, seen, expected) = found.unwrap_or((counts.len(), sum, usual));
        Departure {
            change,
            minutes,
            seen,
            expected,
        }
    }

    /// The sum of the last `span` minutes and what was expected of it, if it stands out.
    fn stands_out(
        &self,
        span: usize,
        above: bool,
        at_least: &AtLeast,
    ) -> Option<(usize, u64, f64)> {
        let before = self.minutes.len().checked_sub(span);
        let before = before.filter(|n| *n >= FEWEST)?;
        let total = |minutes: &VecDeque<u32>, from: usize| -> u64 {
            let range = minutes.range(from..from + span);
            range.map(|n| u64::from(*n)).sum()
        };
        let seen = total(&self.seen, self.seen.len() - span);
        let expected = mean(&self.minutes, span) * span as f64;
        let ratio = at_least.ratio.max(RATIO);
        let count = at_least.count;
        // Cheap things first: mostly nothing stands out.
        let far = match above {
            true => seen as f64 >= count && seen as f64 >= ratio * expected,
            false => expected >= count && seen as f64 <= expected / ratio,
        };
        let mut sums = (0..=before - span).map(|from| total(&self.minutes, from) as f64);
        let is_new = far
            && match above {
                true => sums.all(|sum| seen as f64 >= 2.0 * sum),
                false => sums.all(|sum| sum >= expected / 4.0),
            };
        is_new.then_some((span, seen, expected))
    }

    /// Is an episode going on?
    pub(super) fn is_open(&self) -> bool {
        self.spell.is_open()
    }
}

/// The mean of the minutes before the last `span`.
fn mean(minutes: &VecDeque<u32>, span: usize) -> f64 {
    let before = minutes.len().saturating_sub(span);
    let from = before.saturating_sub(MEAN_OF);
    let sum: u64 = minutes.range(from..before).map(|n| u64::from(*n)).sum();
    sum as f64 / (before - from).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_LEAST: AtLeast = AtLeast {
        count: 40.0,
        ratio: 4.0,
    };

    /// In buckets of five minutes: which of them changed what.
    fn changes(counts: impl IntoIterator<Item = u64>, above: bool) -> Vec<(usize, Change)> {
        let mut cold = Cold::default();
        let counts: Vec<u64> = counts.into_iter().collect();
        let buckets = counts.chunks(5).enumerate();
        buckets
            .map(|(n, bucket)| (n, cold.step(bucket, above, &AT_LEAST).change))
            .filter(|(_, change)| !matches!(change, Change::Quiet | Change::Open))
            .collect()
    }

    fn steady(minutes: usize, count: u64) -> impl Iterator<Item = u64> {
        (0..minutes).map(move |n| count + n as u64 % 3)
    }

    #[test]
    fn what_stands_out_is_said_once_and_ends() {
        let ends = |found: Vec<(usize, Change)>, from: usize, until: usize| {
            assert_eq!(found.len(), 2, "{found:?}");
            assert_eq!((found[0].1, found[1].1), (Change::Opened, Change::Closed));
            assert!((from..=until).contains(&found[0].0), "{found:?}");
        };
        // Across the end of a bucket.
        let surge = steady(118, 2).chain([20; 4]).chain(steady(58, 2));
        ends(changes(surge, true), 23, 24);
        let silence = steady(120, 4).chain([0; 40]).chain(steady(60, 4));
        ends(changes(silence, false), 25, 31);
    }

    #[test]
    fn what_has_been_before_does_not_stand_out() {
        let hourly = (0..400).map(|n| if n % 60 == 0 { 90 } else { 2 });
        assert_eq!(changes(hourly, true), []);
        let ramp = (0..600).map(|n| 10 + n / 4);
        assert_eq!(changes(ramp, true), []);
        assert_eq!(
            changes(steady(60, 4).chain([900; 5]), true),
            [],
            "too early to say"
        );
        assert_eq!(changes(steady(150, 1).chain([9; 3]), true), [], "too few");
    }
}
