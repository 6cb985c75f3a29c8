//! From buckets that fire to episodes that a person is told of once.
//!
//! An episode opens with the first bucket that fires and closes after [`QUIET`] buckets that are no longer unusual,
//! which takes less than firing does. It is said again when it has become twice as bad. What lasts a day is put as a
//! question, "is this the new normal?", and what lasts three is taken as the answer yes: the model then moves its
//! level and the verdict says so. `counts` and `ratio` feed it and ask it whether they may learn.

use event::Time;
use serde::{Deserialize, Serialize};

use super::params::{DAY, HOUR};
use super::spans::Judged;
use super::verdict::Change;

/// An episode closes after so many buckets.
const QUIET: u8 = 3;

/// A bucket this likely or more (ln) is not unusual any more.
const UNUSUAL: f64 = -6.9;

/// And so is one that has come down to this part of the ratio from which is said.
const STILL: f64 = 0.75;

/// How much worse is worth saying again.
const WORSE: f64 = 2.0;

/// An episode teaches the season for so long.
const TEACHES_FOR: i64 = 3 * HOUR;

/// After how long the question is put, and after how long it is answered.
const ASKED_AFTER: i64 = DAY;
const ACCEPTED_AFTER: i64 = 3 * DAY;

/// The open episode of a series, if there is one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Episode {
    open: Option<Open>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Open {
    since: i64,
    above: bool,
    quiet: u8,
    asked: bool,
    /// How many times the expected, or of it, was said last.
    said: f32,
    /// Sums over the episode's buckets, for the new level.
    seen: f32,
    expected: f32,
}

impl Episode {
    /// Is one open?
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// May a bucket at `time` teach? What lasts may not, but bursts that come again and again must, or they would be
    /// said for ever.
    pub(super) fn teaches(&self, time: i64) -> bool {
        self.open
            .as_ref()
            .is_none_or(|open| time - open.since < TEACHES_FOR)
    }

    /// By how much the episode's buckets are off the expected, together.
    pub(super) fn ratio(&self) -> f64 {
        self.open.as_ref().map_or(1.0, |open| {
            ((f64::from(open.seen) + 1.0) / (f64::from(open.expected) + 1.0)).clamp(1e-3, 1e3)
        })
    }

    /// Somebody said that this is normal, or `step` did.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// The bucket at `time`, seen and expected alone, and its spans as judged; `ratio` is the one of `at-least`. Gives
    /// what changed and the span to show.
    pub(super) fn step(
        &mut self,
        time: Time,
        seen: f64,
        expected: f64,
        judged: &[Option<Judged>],
        ratio: f64,
    ) -> (Change, Option<Judged>) {
        let all = || judged.iter().flatten();
        let worst = all()
            .filter(|j| j.fires)
            .min_by(|a, b| a.ln_tail.total_cmp(&b.ln_tail));
        let Some(open) = &mut self.open else {
            let Some(worst) = worst else {
                return (Change::Quiet, all().next().copied());
            };
            self.open = Some(Open {
                since: time.0,
                above: worst.above,
                quiet: 0,
                asked: false,
                said: times(worst) as f32,
                seen: seen as f32,
                expected: expected as f32,
            });
            return (Change::Opened, Some(*worst));
        };
        open.seen += seen as f32;
        open.expected += expected as f32;
        let same = |j: &&Judged| j.above == open.above;
        // Sums over the longest span still hold the surge after it has ended.
        let short = || all().filter(same).filter(|j| j.span < 2);
        let high = short().any(|j| times(j) > STILL * ratio);
        let unlikely = short().any(|j| j.ln_tail < UNUSUAL) || all().filter(same).any(|j| j.fires);
        let unusual = high && unlikely;
        let shown = worst.or_else(|| all().next()).copied();
        if !unusual {
            open.quiet += 1;
            if open.quiet < QUIET {
                return (Change::Open, shown);
            }
            self.open = None;
            return (Change::Closed, shown);
        }
        open.quiet = 0;
        let age = time.0 - open.since;
        if age >= ACCEPTED_AFTER {
            return (Change::Accepted, shown);
        }
        if age >= ASKED_AFTER && !open.asked {
            open.asked = true;
            return (Change::Asked, shown);
        }
        let now = worst.filter(same).map_or(0.0, times);
        if now >= WORSE * f64::from(open.said) {
            open.said = now as f32;
            return (Change::Worse, shown);
        }
        (Change::Open, shown)
    }
}

/// How many times the expected was seen, or the other way round.
fn times(judged: &Judged) -> f64 {
    let (seen, mean) = (judged.sum.seen + 0.5, judged.sum.mean + 0.5);
    if judged.above {
        seen / mean
    } else {
        mean / seen
    }
}
