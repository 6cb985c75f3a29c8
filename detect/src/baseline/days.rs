//! What grows too slowly for any bucket to stand out: the last seven days against the three weeks before.
//!
//! The level of `counts` follows what drifts, as it must, and so it would follow a leech who takes a little more each
//! day. [`Days`] keeps one number a day, the mean of its buckets with the season taken out, and tests once a day:
//! one test a day, because neighbouring days go together little. It speaks when the seven days are `slow` times the
//! weeks before, and far outside what days scatter by themselves.

use libm::{log, sqrt};
use serde::{Deserialize, Serialize};

use super::packed;
use super::params::{DAY, Params};

const KEPT: usize = 28;
const RECENT: usize = 7;

/// Nothing is said before the weeks before are at least one.
const LEAST: usize = 14;

/// How far outside, in standard errors.
const FAR: f64 = 6.0;

/// A day of which less than this part was seen does not count.
const PART: f64 = 0.75;

/// The days of a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Days {
    /// The mean of a bucket, the oldest day first.
    #[serde(with = "packed")]
    levels: [f32; KEPT],
    filled: u8,
    /// The day that is being added up, as days since 1970.
    day: i32,
    seen: f32,
    pattern: f32,
    buckets: f32,
    /// Said, and not over yet; above?
    said: Option<bool>,
}

/// A slow change, in events of seven days.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Slow {
    pub(super) seen: f64,
    pub(super) expected: f64,
    pub(super) above: bool,
    /// It begins; else it is over.
    pub(super) begins: bool,
}

impl Days {
    pub(super) fn new() -> Days {
        Days {
            levels: [0.0; KEPT],
            filled: 0,
            day: i32::MIN,
            seen: 0.0,
            pattern: 0.0,
            buckets: 0.0,
            said: None,
        }
    }

    /// Adds a capped count whose season is `relative` times the mean. Says something when a day is over and something
    /// begins or ends.
    pub(super) fn add(
        &mut self,
        time: i64,
        count: f64,
        relative: f64,
        params: &Params,
    ) -> Option<Slow> {
        let day = time.div_euclid(DAY) as i32;
        let mut slow = None;
        if day != self.day {
            if f64::from(self.buckets) >= PART * params.buckets_in(DAY) {
                self.levels.rotate_left(1);
                self.levels[KEPT - 1] = self.seen / self.pattern.max(1e-3);
                self.filled = (self.filled + 1).min(KEPT as u8);
                slow = self.test(params);
            }
            self.day = day;
            self.seen = 0.0;
            self.pattern = 0.0;
            self.buckets = 0.0;
        }
        self.seen += count as f32;
        self.pattern += relative as f32;
        self.buckets += 1.0;
        slow
    }

    /// What was just given could not be said: it is given again tomorrow, if it still holds.
    pub(super) fn unsay(&mut self, slow: Slow) {
        self.said = (!slow.begins).then_some(slow.above);
    }

    fn test(&mut self, params: &Params) -> Option<Slow> {
        let filled = usize::from(self.filled);
        if params.slow == 0.0 || filled < LEAST {
            return None;
        }
        let days = &self.levels[KEPT - filled..];
        let (before, recent) = days.split_at(filled - RECENT);
        let mean =
            |days: &[f32]| days.iter().map(|d| f64::from(*d)).sum::<f64>() / days.len() as f64;
        let week = RECENT as f64 * params.buckets_in(DAY);
        let (seen, expected) = (mean(recent) * week, mean(before) * week);
        let ratio = (seen + 1.0) / (expected + 1.0);
        // A quiet day of a rare function is no outlier: an event more or less does not move its logarithm much.
        let logs = |days: &[f32]| -> Vec<f64> {
            let a_day = params.buckets_in(DAY);
            days.iter()
                .map(|d| log(f64::from(*d) * a_day + 1.0))
                .collect()
        };
        let (before, recent) = (Logs::of(&logs(before)), Logs::of(&logs(recent)));
        let free = (before.many + recent.many - 2.0).max(1.0);
        let spread = sqrt((before.squares + recent.squares) / free).max(0.01);
        let error = spread * sqrt(1.0 / before.many + 1.0 / recent.many);
        let far = (recent.mean - before.mean) / error;
        let (above, below) = (params.direction.above(), params.direction.below());
        let count = params.at_least.count;
        let now = if above && ratio >= params.slow && far > FAR && seen >= count {
            Some(true)
        } else if below && ratio <= 1.0 / params.slow && far < -FAR && expected >= count {
            Some(false)
        } else {
            None
        };
        let was = self.said;
        self.said = now;
        let say = |above, begins| {
            Some(Slow {
                seen,
                expected,
                above,
                begins,
            })
        };
        match (was, now) {
            (None, Some(above)) => say(above, true),
            (Some(above), None) => say(above, false),
            _ => None,
        }
    }
}

/// Mean and squared deviations of some logarithms.
struct Logs {
    many: f64,
    mean: f64,
    squares: f64,
}

impl Logs {
    fn of(logs: &[f64]) -> Logs {
        let many = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / many;
        let squares = logs.iter().map(|l| (l - mean) * (l - mean)).sum();
        Logs {
            many,
            mean,
            squares,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On which days something begins or ends, with 24 buckets a day of these levels.
    fn check(
        levels: impl Fn(i64) -> f64,
        direction: super::super::Direction,
        expected: &[(i64, bool)],
    ) {
        let params = Params {
            bucket: DAY / 24,
            direction,
            ..Params::default()
        };
        let mut days = Days::new();
        let mut found = Vec::new();
        for hour in 0..24 * 56 {
            let day = hour / 24;
            let ripple = 1.0 + 0.1 * ((day * 7919 % 13) as f64 / 6.0 - 1.0);
            if let Some(slow) = days.add(hour * DAY / 24, levels(day) * ripple, 1.0, &params) {
                found.push((day, slow.begins));
            }
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn a_slow_change_is_said_once_and_ends() {
        use super::super::Direction::{Above, Below, Both};
        check(|_| 50.0, Both, &[]);
        // Two percent a day is growth.
        check(|day| 50.0 * 1.02_f64.powf(day as f64), Above, &[]);
        // Eight percent a day from the third week on is not.
        let leech = |day: i64| 50.0 * 1.08_f64.powf((day - 21).clamp(0, 14) as f64);
        check(leech, Above, &[(35, true), (41, false)]);
        check(leech, Below, &[]);
        check(
            |day| 2_500.0 / leech(day),
            Below,
            &[(36, true), (42, false)],
        );
        // A single wild day is none of its business.
        check(|day| if day == 30 { 200.0 } else { 50.0 }, Above, &[]);
    }
}
