//! The last 1, 3 and 6 buckets, each span judged as a whole.
//!
//! One bucket shows a large surge at once; a threefold one of a noisy series shows only in the sum of several, whose
//! relative noise is smaller. [`Spans`] keeps the last six buckets ([`Cell`]), and of each span its own dispersion,
//! by the method of moments on what was expected before the span began (so that errors of the season and of the
//! level count as noise, which they are), and its own [`Excess`]. `counts` and `ratio` push cells and read
//! [`Judged`]; which distribution it is, is a [`Family`].

use libm::log;
use serde::{Deserialize, Serialize};

use super::excess::Excess;
use super::packed;
use super::params::{DAY, HOUR, Params};
use super::tail;

/// A span and its share of the budget of false alarms.
pub(super) struct Span {
    pub(super) buckets: usize,
    pub(super) share: f64,
}

/// The longest span gets most of the budget: it alone sees moderate surges of noisy series, and being made of sums
/// that overlap, it speaks in fewer and longer episodes.
pub(super) const SPANS: [Span; 3] = [
    Span {
        buckets: 1,
        share: 1.0 / 6.0,
    },
    Span {
        buckets: 3,
        share: 1.0 / 6.0,
    },
    Span {
        buckets: 6,
        share: 4.0 / 6.0,
    },
];

const LONGEST: usize = SPANS[SPANS.len() - 1].buckets;

/// Nearer than this many standard deviations nothing is capped before it teaches.
const CAPPED: f64 = 4.0;

/// What the prior dispersion weighs against what was seen.
const PRIOR_WEIGHT: f64 = 0.3;

/// A departure of fewer standard deviations than this is not looked at.
const NOTHING: f64 = 1.0;

/// Which distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Negative binomial.
    Counts,
    /// Beta-binomial.
    Shares,
}

impl Family {
    /// The variance as (a, b): a + dispersion · b.
    fn variance(self, cell: Sum) -> (f64, f64) {
        match self {
            Family::Counts => (cell.mean, cell.mean * cell.mean),
            Family::Shares => {
                let a = cell.mean * (1.0 - cell.mean / cell.trials).max(0.0);
                (a, a * (cell.trials - 1.0).max(0.0))
            }
        }
    }

    /// ln of the probability of at least what was seen.
    pub(super) fn ln_at_least(self, seen: f64, sum: Sum, dispersion: f64) -> f64 {
        match self {
            Family::Counts => tail::ln_count_at_least(seen, sum.mean, dispersion),
            Family::Shares => tail::ln_share_at_least(seen, sum.trials, sum.mean, dispersion),
        }
    }

    /// ln of the probability of at most what was seen.
    pub(super) fn ln_at_most(self, seen: f64, sum: Sum, dispersion: f64) -> f64 {
        match self {
            Family::Counts => tail::ln_count_at_most(seen, sum.mean, dispersion),
            Family::Shares => tail::ln_share_at_most(seen, sum.trials, sum.mean, dispersion),
        }
    }
}

/// One bucket: what was seen, what the season said, by how much the level was off, out of how many.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Cell {
    pub(super) seen: f64,
    pub(super) season: f64,
    pub(super) level: f64,
    pub(super) trials: f64,
}

/// What a span adds up to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sum {
    pub(super) seen: f64,
    pub(super) mean: f64,
    pub(super) trials: f64,
}

/// The verdict on one span.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Judged {
    pub(super) span: usize,
    pub(super) sum: Sum,
    pub(super) dispersion: f64,
    /// Above the expected?
    pub(super) above: bool,
    /// ln of the calibrated probability of a departure like this.
    pub(super) ln_tail: f64,
    /// The surprise from which it fires.
    pub(super) threshold: f64,
    /// What may be learned: what was seen, or the most (least) that would have passed.
    pub(super) taught: f64,
    /// Below the budget, and large enough to say.
    pub(super) fires: bool,
    /// The model fits badly and the threshold is above its own.
    pub(super) noisy: bool,
}

/// The last buckets of a series and how its spans scatter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Spans {
    /// Seen, season, level, trials of the last six buckets, the oldest first.
    #[serde(with = "packed")]
    ring: [f32; 4 * LONGEST],
    /// How many of them are there.
    filled: u8,
    /// How many buckets taught the dispersion.
    taught: u32,
    /// Mean of the weighted squared residuals beyond those of chance alone, per span.
    squares: [f32; SPANS.len()],
    /// Mean of the weights, per span.
    weights: [f32; SPANS.len()],
    above: [Excess; SPANS.len()],
    below: [Excess; SPANS.len()],
}

impl Spans {
    pub(super) fn new() -> Spans {
        Spans {
            ring: [0.0; 4 * LONGEST],
            filled: 0,
            taught: 0,
            squares: [0.0; SPANS.len()],
            weights: [0.0; SPANS.len()],
            above: [Excess::default(); SPANS.len()],
            below: [Excess::default(); SPANS.len()],
        }
    }

    /// Buckets are missing: no span may reach across.
    pub(super) fn interrupt(&mut self) {
        self.filled = 0;
    }

    /// Takes the newest bucket.
    pub(super) fn push(&mut self, cell: Cell) {
        self.ring.rotate_left(4);
        let newest = 4 * (LONGEST - 1);
        for (place, value) in
            self.ring[newest..]
                .iter_mut()
                .zip([cell.seen, cell.season, cell.level, cell.trials])
        {
            *place = value as f32;
        }
        self.filled = (self.filled + 1).min(LONGEST as u8);
    }

    /// The dispersion of a span: seen, drawn towards the prior.
    pub(super) fn dispersion(&self, span: usize, prior: f64) -> f64 {
        // Independent buckets would have the prior divided by their number; real ones go together.
        let prior = prior / (SPANS[span].buckets as f64).sqrt();
        let (squares, weights) = (f64::from(self.squares[span]), f64::from(self.weights[span]));
        ((squares + prior * PRIOR_WEIGHT) / (weights + PRIOR_WEIGHT))
            .clamp(tail::LEAST_DISPERSION, 10.0)
    }

    /// The dispersion of one bucket.
    pub(super) fn of_a_bucket(&self, prior: f64) -> f64 {
        self.dispersion(0, prior)
    }

    /// What a span adds up to. The level is the one from before the span: a surge does not raise what is expected of
    /// its own later half.
    fn sum(&self, family: Family, span: usize) -> Option<Sum> {
        let buckets = SPANS[span].buckets;
        if buckets > usize::from(self.filled) {
            return None;
        }
        let cells = &self.ring[4 * (LONGEST - buckets)..];
        let level = f64::from(cells[2]);
        let mut sum = Sum {
            seen: 0.0,
            mean: 0.0,
            trials: 0.0,
        };
        for cell in cells.chunks_exact(4) {
            sum.seen += f64::from(cell[0]);
            sum.mean += f64::from(cell[1]) * level;
            sum.trials += f64::from(cell[3]);
        }
        match family {
            Family::Counts => sum.mean = sum.mean.max(1e-3),
            // Out of nothing nothing follows.
            Family::Shares if sum.trials < 1.0 => return None,
            Family::Shares => sum.mean = sum.mean.max(1e-9),
        }
        Some(sum)
    }

    /// Judges every span that ends with the newest bucket and learns from it, unless `learn` is false. `ln_stricter`
    /// is added to the budget's logarithm: 0, or less while the series is young or just deployed.
    pub(super) fn judge(
        &mut self,
        family: Family,
        params: &Params,
        prior: f64,
        ln_stricter: f64,
        learn: bool,
    ) -> [Option<Judged>; SPANS.len()] {
        let mut judged = [None; SPANS.len()];
        for (span, place) in judged.iter_mut().enumerate() {
            let Some(sum) = self.sum(family, span) else {
                continue;
            };
            let dispersion = self.dispersion(span, prior);
            let (a, b) = family.variance(sum);
            let sd = (a + dispersion * b).sqrt();
            let away = (sum.seen - sum.mean) / sd.max(1e-9);
            let above = away >= 0.0;
            let wanted = if above {
                params.direction.above()
            } else {
                params.direction.below()
            };
            let surprise = if !wanted || away.abs() < NOTHING {
                0.0
            } else if above {
                -family.ln_at_least(sum.seen, sum, dispersion)
            } else {
                -family.ln_at_most(sum.seen, sum, dispersion)
            };
            let excess = if above {
                self.above[span]
            } else {
                self.below[span]
            };
            let budget = params.ln_budget(span) + ln_stricter;
            let ln_tail = excess.ln_tail(surprise);
            let threshold = excess.surprise_at(budget);
            // Knowing nothing, the first day is taken as it is. Later what would not have passed teaches as much as
            // what just would have: capping harder would forget a series that is idle but for its bursts.
            let first_day = f64::from(self.taught) < params.buckets_in(DAY);
            let taught = if first_day || away.abs() < CAPPED {
                sum.seen
            } else if above {
                sum.seen
                    .min(most_by_chance(family, sum, dispersion, threshold))
            } else {
                sum.seen.max(sum.mean - CAPPED * sd)
            };
            *place = Some(Judged {
                span,
                sum,
                dispersion,
                above,
                ln_tail,
                threshold,
                taught,
                fires: wanted && ln_tail < budget && large(sum, above, params),
                noisy: excess.noisy(),
            });
            if !learn {
                continue;
            }
            self.teach(family, span, sum, taught, dispersion, params);
            // What surprises on the first day surprises a model that knows nothing.
            if first_day {
                continue;
            }
            let memory = params.buckets_in(28 * DAY);
            if params.direction.above() {
                self.above[span].add(if above { surprise } else { 0.0 }, memory);
            }
            if params.direction.below() {
                self.below[span].add(if above { 0.0 } else { surprise }, memory);
            }
        }
        if learn {
            self.taught = self.taught.saturating_add(1);
        }
        judged
    }

    /// The method of moments, each residual weighted by about the inverse of its own variance.
    fn teach(
        &mut self,
        family: Family,
        span: usize,
        sum: Sum,
        taught: f64,
        dispersion: f64,
        params: &Params,
    ) {
        // In the first hour nothing was expected yet.
        let buckets = f64::from(self.taught) - params.buckets_in(HOUR);
        if buckets < 0.0 {
            return;
        }
        let (a, b) = family.variance(sum);
        let half_life = params.buckets_in(7 * DAY);
        let weight = 1.0 / (a + dispersion * b).max(1e-6);
        let residual = taught - sum.mean;
        let step = 1.0 / (buckets + 1.0).min(half_life / std::f64::consts::LN_2);
        let toward = |old: f32, new: f64| (f64::from(old) + step * (new - f64::from(old))) as f32;
        self.squares[span] = toward(self.squares[span], weight * (residual * residual - a));
        self.weights[span] = toward(self.weights[span], weight * b);
    }
}

/// Is a departure large enough to be said?
fn large(sum: Sum, above: bool, params: &Params) -> bool {
    let at_least = params.at_least;
    let (more, less) = if above {
        (sum.seen, sum.mean)
    } else {
        (sum.mean, sum.seen)
    };
    more >= at_least.count && more >= at_least.ratio * less
}

/// The least and the most that would not have fired, found by bisection: the band.
pub(super) fn band(family: Family, judged: &Judged, params: &Params) -> (f64, f64) {
    let Judged {
        sum,
        dispersion,
        threshold,
        ..
    } = *judged;
    let at_least = params.at_least;
    let most = if !params.direction.above() {
        f64::INFINITY
    } else {
        let by_chance = most_by_chance(family, sum, dispersion, threshold) + 1.0;
        by_chance
            .max(at_least.count.ceil())
            .max((at_least.ratio * sum.mean).ceil())
            - 1.0
    };
    let least = if !params.direction.below() {
        0.0
    } else {
        let likely = |k: f64| -family.ln_at_most(k, sum, dispersion) <= threshold;
        let by_chance = if likely(0.0) { 0.0 } else { first(0.0, likely) };
        if sum.mean < at_least.count {
            0.0
        } else {
            by_chance.min((sum.mean / at_least.ratio).floor() + 1.0)
        }
    };
    (least, most.floor().max(0.0))
}

/// The most whose surprise is not above the threshold.
fn most_by_chance(family: Family, sum: Sum, dispersion: f64, threshold: f64) -> f64 {
    let unlikely = |k: f64| -family.ln_at_least(k, sum, dispersion) > threshold;
    first(sum.mean, unlikely) - 1.0
}

/// The first whole number from `from` on at which something becomes and stays true.
fn first(from: f64, holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut step) = (from.floor(), 1.0);
    while !holds(low + step) && step < 1e12 {
        low += step;
        step *= 2.0;
    }
    let mut high = low + step;
    while high - low > 1.0 {
        let middle = ((low + high) / 2.0).floor();
        if holds(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// -log10 of a probability whose natural logarithm this is, as people read it.
pub(super) fn nines(ln_tail: f64) -> f64 {
    (-ln_tail / log(10.0)).max(0.0)
}
