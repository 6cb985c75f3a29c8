//! Random numbers with a seed: the same worlds on every machine that has the same logarithm.

use std::f64::consts::TAU;

/// SplitMix64 (Steele, Lea and Flood 2014), which needs no library.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Between 0 and 1, neither included.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Every factor as likely as every other.
    pub(crate) fn between_logs(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos()
    }

    /// Gamma of mean and variance `shape` (Marsaglia and Tsang 2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let power = self.unit().powf(1.0 / shape);
            return self.gamma(shape + 1.0) * power;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// Poisson, by multiplication where the mean is small and by transformed rejection (Hörmann 1993) elsewhere.
    fn poisson(&mut self, mean: f64) -> f64 {
        if mean < 30.0 {
            let (limit, mut product, mut count) = ((-mean).exp(), self.unit(), 0.0);
            while product > limit {
                product *= self.unit();
                count += 1.0;
            }
            return count;
        }
        let b = 0.931 + 2.53 * mean.sqrt();
        let a = -0.059 + 0.02483 * b;
        let inverse = 1.1239 + 1.1328 / (b - 3.4);
        loop {
            let (u, v) = (self.unit() - 0.5, self.unit());
            let near = 0.5 - u.abs();
            let count = ((2.0 * a / near + b) * u + mean + 0.43).floor();
            if count < 0.0 || (near < 0.013 && v > near) {
                continue;
            }
            let density = count * mean.ln() - mean - libm::lgamma(count + 1.0);
            if (v * inverse / (a / (near * near) + b)).ln() <= density {
                return count;
            }
        }
    }

    /// Negative binomial of this mean and variance mean + mean² / `size`.
    pub(crate) fn negative_binomial(&mut self, mean: f64, size: f64) -> u64 {
        let rate = mean * self.gamma(size) / size;
        self.poisson(rate) as u64
    }

    /// Beta-binomial of this mean share and intra-class correlation.
    pub(crate) fn beta_binomial(&mut self, trials: u64, share: f64, correlation: f64) -> u64 {
        let strength = 1.0 / correlation - 1.0;
        let (a, b) = (
            self.gamma(share * strength),
            self.gamma((1.0 - share) * strength),
        );
        let own = if a + b > 0.0 { a / (a + b) } else { 0.0 };
        self.binomial(trials, own)
    }

    /// Binomial: a Poisson would do for small shares, but not for the spikes.
    fn binomial(&mut self, trials: u64, share: f64) -> u64 {
        let mean = trials as f64 * share;
        if mean > 50.0 && trials as f64 - mean > 50.0 {
            let sd = (mean * (1.0 - share)).sqrt();
            let count = (mean + sd * self.normal()).round();
            return count.clamp(0.0, trials as f64) as u64;
        }
        if share > 0.5 {
            return trials - self.binomial(trials, 1.0 - share);
        }
        // Gaps between successes are geometric.
        let (mut at, mut count) = (0.0, 0);
        loop {
            at += (self.unit().ln() / (-share).ln_1p()).floor() + 1.0;
            if share <= 0.0 || at > trials as f64 {
                return count;
            }
            count += 1;
        }
    }
}
