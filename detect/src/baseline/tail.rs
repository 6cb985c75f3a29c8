//! Tails of over-dispersed counts, in log space.
//!
//! A surge of a busy function has a probability far below the least `f64`, so everything here gives natural
//! logarithms. The negative binomial tail is a regularised incomplete beta function (DLMF 8.17.5), evaluated by
//! its continued fraction (DLMF 8.17.22) with Lentz's method; the beta-binomial tail is a sum whose terms follow
//! from one another. `spans` and the band of a `Verdict` ask; nothing here keeps state. Logarithms, exponentials
//! and the gamma function come from `libm` and not from the platform, so that a replay on another machine gives
//! the same bits and with them the same findings.

use libm::{exp, lgamma, log, log1p};

/// Dispersion is at least this: below it a negative binomial is a Poisson for our purposes.
pub(super) const LEAST_DISPERSION: f64 = 1e-4;

/// How many terms of a beta-binomial tail are summed before the beta distribution stands in.
const TERMS: f64 = 4_000.0;

/// ln P(Y ≥ `seen`) of a negative binomial with this mean and variance mean + dispersion · mean².
pub fn ln_count_at_least(seen: f64, mean: f64, dispersion: f64) -> f64 {
    if seen <= 0.0 {
        return 0.0;
    }
    let size = 1.0 / dispersion.max(LEAST_DISPERSION);
    ln_incomplete_beta(seen, size, mean / (mean + size), size / (mean + size))
}

/// ln P(Y ≤ `seen`) of the same.
pub fn ln_count_at_most(seen: f64, mean: f64, dispersion: f64) -> f64 {
    let size = 1.0 / dispersion.max(LEAST_DISPERSION);
    ln_incomplete_beta(size, seen + 1.0, size / (mean + size), mean / (mean + size))
}

/// ln P(K ≥ `seen`) of a beta-binomial: `trials` with a success probability that is itself spread around
/// mean / trials with intra-class correlation `dispersion`.
pub fn ln_share_at_least(seen: f64, trials: f64, mean: f64, dispersion: f64) -> f64 {
    if seen <= 0.0 {
        return 0.0;
    }
    if seen > trials || mean <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let (a, b) = beta_shape(trials, mean, dispersion);
    let first = lgamma(trials + 1.0) - lgamma(seen + 1.0) - lgamma(trials - seen + 1.0)
        + ln_beta(seen + a, trials - seen + b)
        - ln_beta(a, b);
    // Each term in terms of the one before; the rest of a falling series is bounded by a geometric one.
    let (mut term, mut sum, mut k) = (1.0, 1.0, seen);
    while k < trials && k - seen < TERMS {
        let ratio = (trials - k) / (k + 1.0) * (a + k) / (b + trials - k - 1.0);
        term *= ratio;
        sum += term;
        k += 1.0;
        if ratio < 1.0 && term * ratio / (1.0 - ratio) < 1e-12 * sum {
            break;
        }
    }
    if k < trials && k - seen >= TERMS {
        return ln_share_at_least_smooth(seen, trials, mean, dispersion);
    }
    (first + log(sum)).min(0.0)
}

/// ln P(K ≤ `seen`) of the same: the failures are at least `trials - seen`.
pub fn ln_share_at_most(seen: f64, trials: f64, mean: f64, dispersion: f64) -> f64 {
    ln_share_at_least(trials - seen, trials, trials - mean, dispersion)
}

/// The same tail by the beta distribution whose mean and variance are those of the share K / trials, with the
/// correction for continuity. Good where trials are many; `ln_share_at_least` falls back on it there.
fn ln_share_at_least_smooth(seen: f64, trials: f64, mean: f64, dispersion: f64) -> f64 {
    let spread = (1.0 + (trials - 1.0) * dispersion.max(LEAST_DISPERSION)) / trials;
    let (share, strength) = (mean / trials, (1.0 / spread - 1.0).max(1e-6));
    let at = (seen - 0.5) / trials;
    ln_incomplete_beta((1.0 - share) * strength, share * strength, 1.0 - at, at).min(0.0)
}

/// The two parameters of the beta distribution behind a beta-binomial.
fn beta_shape(trials: f64, mean: f64, dispersion: f64) -> (f64, f64) {
    let share = (mean / trials).clamp(1e-12, 1.0 - 1e-12);
    let strength = 1.0 / dispersion.max(LEAST_DISPERSION) - 1.0;
    (share * strength, (1.0 - share) * strength)
}

fn ln_beta(a: f64, b: f64) -> f64 {
    lgamma(a) + lgamma(b) - lgamma(a + b)
}

/// ln I_x(a, b), the regularised incomplete beta function. `y` is 1 - `x`, given apart so that an `x` near one
/// loses no digits.
pub fn ln_incomplete_beta(a: f64, b: f64, x: f64, y: f64) -> f64 {
    if x <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if y <= 0.0 {
        return 0.0;
    }
    let front = a * log(x) + b * log(y) - ln_beta(a, b);
    if x < (a + 1.0) / (a + b + 2.0) {
        return (front + log(continued_fraction(a, b, x) / a)).min(0.0);
    }
    // Here the other tail is the one that converges.
    let other = exp(front + log(continued_fraction(b, a, y) / b));
    if other < 1.0 {
        log1p(-other)
    } else {
        f64::NEG_INFINITY
    }
}

/// The continued fraction of the incomplete beta function. It needs about √max(a, b) steps.
fn continued_fraction(a: f64, b: f64, x: f64) -> f64 {
    let away_from_zero = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..=20_000_u32 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for numerator in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + numerator * d);
            c = away_from_zero(1.0 + numerator / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-12 {
            break;
        }
    }
    fraction
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The tail by adding the probabilities one by one.
    fn naive_counts(seen: u32, mean: f64, dispersion: f64) -> (f64, f64) {
        let size = 1.0 / dispersion;
        let probability = |k: f64| {
            (lgamma(k + size) - lgamma(size) - lgamma(k + 1.0)
                + size * (size / (size + mean)).ln()
                + k * (mean / (size + mean)).ln())
            .exp()
        };
        let below: f64 = (0..seen).map(|k| probability(f64::from(k))).sum();
        let above: f64 = (seen..seen + 20_000)
            .map(|k| probability(f64::from(k)))
            .sum();
        (above, below + probability(f64::from(seen)))
    }

    fn naive_share(seen: u32, trials: u32, mean: f64, dispersion: f64) -> f64 {
        let n = f64::from(trials);
        let (a, b) = beta_shape(n, mean, dispersion);
        (seen..=trials)
            .map(|k| {
                let k = f64::from(k);
                (lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0)
                    + ln_beta(k + a, n - k + b)
                    - ln_beta(a, b))
                .exp()
            })
            .sum()
    }

    /// A sum that nearly underflows says nothing.
    fn close(log: f64, naive: f64, tolerance: f64) -> bool {
        naive < 1e-250 || (log - naive.ln()).abs() < tolerance * (1.0 + naive.ln().abs())
    }

    proptest! {
        #[test]
        fn counts_equal_a_naive_sum(seen in 0..400_u32, mean in 0.01..300.0_f64, dispersion in 1e-3..3.0_f64) {
            // So far out reaches the sum.
            let dispersion = dispersion.min(300.0 / mean);
            let (above, below) = naive_counts(seen, mean, dispersion);
            let k = f64::from(seen);
            let (up, down) = (ln_count_at_least(k, mean, dispersion), ln_count_at_most(k, mean, dispersion));
            prop_assert!(close(up, above, 1e-6), "{up} {}", above.ln());
            prop_assert!(close(down, below, 1e-6), "{down} {}", below.ln());
        }

        #[test]
        fn shares_equal_a_naive_sum(seen in 0..200_u32, more in 0..2_000_u32, share in 1e-4..0.5_f64, dispersion in 1e-3..0.2_f64) {
            let trials = seen + more + 1;
            let mean = share * f64::from(trials);
            let naive = naive_share(seen, trials, mean, dispersion);
            let log = ln_share_at_least(f64::from(seen), f64::from(trials), mean, dispersion);
            prop_assert!(close(log, naive, 1e-6), "{log} {}", naive.ln());
        }
    }

    #[test]
    fn far_tails_do_not_underflow() {
        let log = ln_count_at_least(5_000.0, 100.0, 1e-4);
        // The Poisson tail is within a factor of 1.03 of its first term here; over-dispersion makes it heavier.
        let poisson = -100.0 + 5_000.0 * 100.0_f64.ln() - lgamma(5_001.0);
        assert!(poisson < log && log < 0.8 * poisson, "{poisson} {log}");
        assert!(ln_share_at_least(900.0, 1_000.0, 1.0, 1e-3) < -800.0);
        assert_eq!(ln_share_at_least(11.0, 10.0, 1.0, 0.1), f64::NEG_INFINITY);
    }

    #[test]
    fn many_trials_are_close_to_the_sum() {
        for (seen, share, dispersion) in [
            (300.0, 0.01, 0.01),
            (600.0, 0.02, 0.003),
            (2_000.0, 0.05, 0.03),
        ] {
            let trials = 20_000.0;
            let naive = naive_share(seen as u32, 20_000, share * trials, dispersion).ln();
            let smooth = ln_share_at_least_smooth(seen, trials, share * trials, dispersion);
            assert!(
                (naive - smooth).abs() < 0.02 * naive.abs() + 0.02,
                "{naive} {smooth}"
            );
        }
    }
}
