//! How long a source usually says nothing.
//!
//! [`Gaps`] sums up the time that lay between two arrivals, by how long it was. Its [`usual`](Gaps::usual) gap is the one
//! within which 99 % of all *time* passes, not 99 % of all gaps: a source with a thousand events a day and a quiet night
//! spends half of its time in one gap of a thousand, and that is the one that must not be taken for a failure. What was
//! learned fades with a half-life of four weeks.

use std::collections::BTreeMap;

use event::Time;
use serde::{Deserialize, Serialize};

/// The length of the first class, in microseconds; each has 2^(1/4) times the length of the one before.
const SHORTEST: f64 = 60e6;

/// Time in longer gaps is not told apart: about 64 days.
const LAST: u8 = 66;

/// What was learned fades by half in this time.
const HALF_LIFE_DAYS: i64 = 28;

const DAY: i64 = 86_400_000_000;

/// Which part of all time passes within the usual gap.
const QUANTILE: f64 = 0.99;

/// Time between arrivals, by the length of the gap.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Gaps {
    /// Seconds spent in gaps of each class.
    seconds: BTreeMap<u8, f64>,
    /// The day until which what was learned has faded.
    day: i64,
}

impl Gaps {
    /// Learns that a gap of so many microseconds has ended.
    pub(super) fn learn(&mut self, gap: i64, at: Time) {
        let day = at.0.div_euclid(DAY);
        if self.day == 0 {
            self.day = day;
        }
        if day > self.day {
            let fade = 0.5_f64.powf((day - self.day) as f64 / HALF_LIFE_DAYS as f64);
            self.seconds.values_mut().for_each(|s| *s *= fade);
            self.day = day;
        }
        *self.seconds.entry(class(gap)).or_default() += gap.max(0) as f64 / 1e6;
    }

    /// The usual gap in microseconds: 99 % of all time passes in gaps that are no longer. 0 if nothing was learned.
    pub(super) fn usual(&self) -> i64 {
        let whole: f64 = self.seconds.values().sum();
        let mut sum = 0.0;
        for (class, seconds) in &self.seconds {
            sum += seconds;
            if sum >= whole * QUANTILE {
                return longest(*class);
            }
        }
        0
    }
}

/// The class of a gap: the first that is no shorter.
fn class(gap: i64) -> u8 {
    let steps = (gap as f64 / SHORTEST).log2() * 4.0;
    steps.ceil().clamp(0.0, f64::from(LAST)) as u8
}

/// The longest gap of a class, in microseconds.
fn longest(class: u8) -> i64 {
    (SHORTEST * 2_f64.powf(f64::from(class) / 4.0)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    #[test]
    fn classes_hold_what_they_say() {
        for gap in [0, 1, MINUTE, MINUTE + 1, 5 * MINUTE, 600 * MINUTE, i64::MAX] {
            let class = class(gap);
            assert!(class == LAST || longest(class) >= gap, "{gap}");
            assert!(class == 0 || longest(class - 1) < gap, "{gap}");
        }
        assert!(longest(LAST) > 60 * DAY);
    }

    #[test]
    fn the_usual_gap_is_that_in_which_time_passes() {
        let mut steady = Gaps::default();
        (0..1_000).for_each(|n| steady.learn(5 * MINUTE, Time(n * 5 * MINUTE)));
        assert!((5 * MINUTE..6 * MINUTE).contains(&steady.usual()));
        // One outage of an hour in four weeks is nothing usual.
        (0..7_000).for_each(|n| steady.learn(5 * MINUTE, Time(n * 5 * MINUTE)));
        steady.learn(60 * MINUTE, Time(0));
        assert!(steady.usual() < 6 * MINUTE);

        // Ten hours a day something comes every minute, and nothing in the night.
        let mut nightly = Gaps::default();
        for day in 1..5 {
            (0..600).for_each(|n| nightly.learn(MINUTE, Time(day * DAY + n * MINUTE)));
            nightly.learn(840 * MINUTE, Time(day * DAY));
        }
        assert!((840 * MINUTE..1_000 * MINUTE).contains(&nightly.usual()));
        assert_eq!(Gaps::default().usual(), 0);
    }

    #[test]
    fn what_was_learned_fades() {
        let mut gaps = Gaps::default();
        gaps.learn(DAY, Time(DAY));
        for day in 2..400 {
            (0..288).for_each(|n| gaps.learn(5 * MINUTE, Time(day * DAY + n * MINUTE)));
        }
        assert!(gaps.usual() < 6 * MINUTE);
        assert!(gaps.seconds[&class(DAY)] < 100.0);
    }
}
