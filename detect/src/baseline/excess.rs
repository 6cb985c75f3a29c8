//! How a series' real tail differs from its model's, and what that makes of a probability.
//!
//! A model is never quite right: rates wander, bursts repeat. If it were right, the surprise s = -ln p of a bucket
//! would be above [`KNEE`] with probability e^-[`KNEE`], and then exceed it by an exponentially distributed amount of
//! mean one. [`Excess`] keeps what share of buckets really is above and by how much on average, and prolongs that
//! exponential tail (peaks over threshold; Pickands 1975). So a series whose model fits badly needs a larger surprise
//! before it speaks, and a stated budget of false alarms holds without anybody tuning it. A few imagined well-behaved
//! buckets steady the estimate while there is little history, and a single excess counts at most [`MOST`] times the
//! mean so far: one surge does not make the next one invisible, while what comes every few hours soon does.

use libm::{exp, log};
use serde::{Deserialize, Serialize};

/// Surprises above this make the tail: a share of 1 in 20 if the model fits.
const KNEE: f64 = 3.0;

/// How many imagined excesses of a model that fits stand beside the real ones.
const IMAGINED: f64 = 20.0;

/// An excess counts at most this many times the mean so far.
const MOST: f64 = 6.0;

/// A mean excess above this is not believed.
const HIGHEST_MEAN: f64 = 30.0;

/// The real tail of one span of one series.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Excess {
    /// Buckets above the knee.
    above: f32,
    /// The sum of what they had above it.
    sum: f32,
    /// All buckets.
    seen: f32,
}

impl Excess {
    /// The mean excess: 1 if the model fits.
    fn mean(&self) -> f64 {
        let above = f64::from(self.above);
        ((f64::from(self.sum) + IMAGINED) / (above + IMAGINED)).clamp(1.0, HIGHEST_MEAN)
    }

    /// The share of buckets above the knee.
    fn share(&self) -> f64 {
        let fits = exp(-KNEE);
        let (above, seen) = (f64::from(self.above), f64::from(self.seen));
        ((above + IMAGINED) / (seen + IMAGINED / fits)).max(fits)
    }

    /// ln of the probability that this series surprises its model as much as that.
    pub(super) fn ln_tail(&self, surprise: f64) -> f64 {
        if surprise <= KNEE {
            return -surprise;
        }
        log(self.share()) - (surprise - KNEE) / self.mean()
    }

    /// The surprise that has this ln probability: the inverse, for the band.
    pub(super) fn surprise_at(&self, ln_tail: f64) -> f64 {
        if ln_tail >= -KNEE {
            return -ln_tail;
        }
        KNEE + (log(self.share()) - ln_tail).max(0.0) * self.mean()
    }

    /// Is this so far from the model that the threshold is well above what it would be?
    pub(super) fn noisy(&self) -> bool {
        self.mean() > 1.5 || self.share() > 3.0 * exp(-KNEE)
    }

    /// Takes a bucket in, forgetting those of more than about `memory` buckets ago.
    pub(super) fn add(&mut self, surprise: f64, memory: f64) {
        let most = MOST * self.mean();
        let keep = (1.0 - 1.0 / memory) as f32;
        self.seen = self.seen * keep + 1.0;
        self.above *= keep;
        self.sum *= keep;
        if surprise > KNEE {
            self.above += 1.0;
            self.sum += (surprise - KNEE).min(most) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The probability that a surprise of 13 has after buckets with these surprises in turn.
    fn check(surprises: &[f64], rounds: usize, expected: std::ops::Range<f64>) {
        let mut excess = Excess::default();
        for _ in 0..rounds {
            surprises.iter().for_each(|s| excess.add(*s, 8_000.0));
        }
        let found = excess.ln_tail(13.0);
        assert!(expected.contains(&found), "{surprises:?}: {found}");
        let back = excess.surprise_at(found);
        assert!((back - 13.0).abs() < 1e-9, "{back}");
    }

    #[test]
    fn the_tail_is_what_the_series_does() {
        // Nothing seen: the model is believed.
        check(&[], 0, -13.01..-12.99);
        // A series that fits: one bucket in twenty above, by one on average.
        let mut fits = [0.5; 20];
        fits[3] = 4.0;
        check(&fits, 400, -13.1..-12.9);
        // Never above: no bolder than the model.
        check(&[0.1], 8_000, -13.1..-12.9);
        // Bursts every so often: 13 is nothing special.
        let mut bursts = [0.5; 36];
        bursts[7] = 60.0;
        check(&bursts, 10, -6.0..-3.0);
        // One surge of three buckets teaches little.
        let mut surge = [0.5; 2_000];
        surge[1_000..1_003].fill(200.0);
        check(&surge, 1, -13.0..-8.0);
    }
}
