//! Denial of wallet: a function that calls itself, and a month that will cost too much.
//!
//! A loop (a function that writes to the bucket that triggers it) doubles and doubles: [`doubling`] sees that in
//! minutes, long before an hourly season would. [`Projection`] tells how likely a month's cost exceeds its budget from
//! what the last days cost. Both are plain functions of numbers that the pipeline has in its meters.

use libm::{erfc, log, sqrt};

/// The slope is taken over so many minutes.
const WINDOW: usize = 6;
/// It must hold at the end of so many minutes in a row, and each of them must have so many times the one before: what
/// doubles in five minutes.
const IN_A_ROW: usize = 3;
/// The fifth root of 2.
const RISE: f64 = 1.148_698;
/// Fewer calls than this in the last window are not worth a person's time.
const CALLS: u64 = 100;
/// Doubling more slowly than this (minutes) is growth, not a loop.
const SLOW: f64 = 5.0;

/// The doubling time in minutes, if the calls of the last minutes (the newest last, at least eight of them) double
/// within five minutes and have done so for three minutes. A step to a new level is no doubling.
pub fn doubling(minutes: &[u64]) -> Option<f64> {
    let last = minutes.len().checked_sub(WINDOW + IN_A_ROW - 1)?;
    let minutes = &minutes[last..];
    let newest = &minutes[IN_A_ROW - 1..];
    let rises = minutes[minutes.len() - IN_A_ROW - 1..]
        .windows(2)
        .all(|pair| pair[1] > pair[0] && pair[1] as f64 >= RISE * pair[0] as f64);
    if !rises || newest.iter().sum::<u64>() < CALLS {
        return None;
    }
    let mut time = 0.0;
    for window in minutes.windows(WINDOW) {
        let slope = slope(window);
        if slope <= std::f64::consts::LN_2 / SLOW {
            return None;
        }
        time = std::f64::consts::LN_2 / slope;
    }
    Some(time)
}

/// Least squares of ln(count + 1) over minutes.
fn slope(window: &[u64]) -> f64 {
    let middle = (window.len() as f64 - 1.0) / 2.0;
    let (mut products, mut squares) = (0.0, 0.0);
    for (minute, calls) in window.iter().enumerate() {
        let x = minute as f64 - middle;
        products += x * log(*calls as f64 + 1.0);
        squares += x * x;
    }
    products / squares
}

/// What Lambda charges, in a currency of the caller's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Per GB and second.
    pub gb_second: f64,
    /// Per million invocations.
    pub million: f64,
}

impl Price {
    /// The cost of invocations that were billed so many milliseconds together, at this memory.
    pub fn cost(&self, invocations: u64, billed_ms: u64, memory_mb: u64) -> f64 {
        let gb_seconds = billed_ms as f64 / 1_000.0 * memory_mb as f64 / 1_024.0;
        gb_seconds * self.gb_second + invocations as f64 / 1e6 * self.million
    }
}

/// What a month will have cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Projection {
    /// The expected cost of the whole month.
    pub cost: f64,
    /// Its standard error.
    pub error: f64,
}

impl Projection {
    /// From what has been `spent` this month, the cost of each of the last full `days`, and the days that are `left`.
    /// `None` with fewer than two days, of which nothing follows.
    pub fn of(spent: f64, days: &[f64], left: f64) -> Option<Projection> {
        if days.len() < 2 {
            return None;
        }
        let many = days.len() as f64;
        let mean = days.iter().sum::<f64>() / many;
        let squares: f64 = days.iter().map(|d| (d - mean) * (d - mean)).sum();
        // The days to come scatter, and so does the mean of the days gone by.
        let variance = squares / (many - 1.0) * left * (1.0 + left / many);
        Some(Projection {
            cost: spent + mean * left,
            error: sqrt(variance),
        })
    }

    /// The probability that the month costs more than this.
    pub fn exceeds(&self, budget: f64) -> f64 {
        if self.error <= 0.0 {
            return f64::from(u8::from(self.cost > budget));
        }
        0.5 * erfc((budget - self.cost) / self.error / std::f64::consts::SQRT_2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_double_and_other_things_do_not() {
        let check = |minutes: &[u64], expected: Option<f64>| {
            let found = doubling(minutes);
            let same = match (found, expected) {
                (Some(f), Some(e)) => (f - e).abs() < 0.15 * e,
                (None, None) => true,
                _ => false,
            };
            assert!(same, "{minutes:?}: {found:?}");
        };
        check(&[1, 2, 4, 8, 16, 32, 64, 128], Some(1.0));
        check(&[100, 126, 159, 200, 252, 318, 400, 504], Some(3.0));
        // Slower than five minutes.
        check(
            &[1_000, 1_100, 1_210, 1_331, 1_464, 1_611, 1_772, 1_949],
            None,
        );
        // A step.
        check(&[0, 0, 0, 0, 500, 510, 505, 500], None);
        check(&[10, 10, 10, 10, 10, 10, 10, 900], None);
        // Steady, falling, few, too short.
        check(&[300; 12], None);
        check(&[800, 400, 200, 100, 50, 25, 12, 6], None);
        check(&[0, 0, 1, 1, 2, 4, 8, 16], None);
        check(&[64, 128, 256, 512, 1_024], None);
    }

    #[test]
    fn a_month_is_projected() {
        let projection = Projection::of(100.0, &[10.0, 12.0, 8.0, 10.0], 20.0);
        let projection = projection.expect("four days are enough");
        assert!((projection.cost - 300.0).abs() < 1e-9);
        assert!((projection.exceeds(300.0) - 0.5).abs() < 1e-9);
        assert!(projection.exceeds(400.0) < 0.01 && projection.exceeds(200.0) > 0.99);
        let still = Projection::of(1.0, &[2.0, 2.0], 3.0).expect("two days are enough");
        assert_eq!((still.exceeds(6.0), still.exceeds(8.0)), (1.0, 0.0));
        assert_eq!(Projection::of(1.0, &[2.0], 3.0), None);
        let price = Price {
            gb_second: 0.00002,
            million: 0.2,
        };
        assert!((price.cost(1_000_000, 1_000_000, 512) - 0.21).abs() < 1e-9);
    }
}
