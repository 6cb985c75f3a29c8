//! The measure of a window that slides: matches are added at its end and taken away at its beginning.
//!
//! A [`Slide`] holds just what one measure needs, and tells whether the condition holds. It is never stored: it
//! follows from the matches in the window. `settled` slides one over each group as the watermark passes; `firing`
//! uses two to find matches that it can do without.

use event::Time;
use rustc_hash::FxHashMap;

use super::loose::What;
use super::measure::{Condition, Measure};
use super::order::Order;
use super::sum::Sum;

/// What is measured of the matches in a window.
#[derive(Debug, Clone)]
pub(super) enum Slide {
    Events(u64),
    Values(FxHashMap<u64, u32>),
    /// Rules seen, with or without order.
    Rules(Order),
    Sum(Box<Sum>, u64),
    /// In order of size.
    Numbers(Vec<f64>),
}

impl Slide {
    /// An empty window.
    pub(super) fn new(condition: &Condition) -> Slide {
        match &condition.measure {
            Measure::Events => Slide::Events(0),
            Measure::Values => Slide::Values(FxHashMap::default()),
            Measure::Rules(_) | Measure::Ordered(_) | Measure::Expression { .. } => {
                Slide::Rules(Order::new(condition))
            }
            Measure::Sum | Measure::Average => Slide::Sum(Box::new(Sum::new()), 0),
            Measure::Percentile(_) => Slide::Numbers(Vec::new()),
        }
    }

    /// A match at the window's end. Where rules are seen it must be the latest by time.
    pub(super) fn add(&mut self, time: Time, what: &What) {
        match self {
            Slide::Events(n) => *n += 1,
            Slide::Values(values) => {
                for value in what.all() {
                    *values.entry(*value).or_default() += 1;
                }
            }
            Slide::Rules(order) => order.feed(time, what.rules()),
            Slide::Sum(sum, count) => {
                for number in what.numbers() {
                    sum.add(number);
                    *count += 1;
                }
            }
            Slide::Numbers(numbers) => {
                for number in what.numbers() {
                    let place = numbers.partition_point(|n| n.total_cmp(&number).is_lt());
                    numbers.insert(place, number);
                }
            }
        }
    }

    /// A match that was added lies before the window now.
    pub(super) fn remove(&mut self, what: &What) {
        match self {
            Slide::Events(n) => *n -= 1,
            Slide::Values(values) => {
                for value in what.all() {
                    if let Some(count) = values.get_mut(value) {
                        *count -= 1;
                        if *count == 0 {
                            values.remove(value);
                        }
                    }
                }
            }
            // A chain or a rule before the window is known by its time.
            Slide::Rules(_) => {}
            Slide::Sum(sum, count) => {
                for number in what.numbers() {
                    sum.remove(number);
                    *count -= 1;
                }
            }
            Slide::Numbers(numbers) => {
                for number in what.numbers() {
                    let place = numbers.partition_point(|n| n.total_cmp(&number).is_lt());
                    numbers.remove(place);
                }
            }
        }
    }

    /// Does the condition hold in the window, which begins at `from`? Without a number there is no sum, no average
    /// and no percentile, and nothing holds of them.
    pub(super) fn holds(&self, condition: &Condition, from: Time) -> bool {
        match self {
            Slide::Events(n) => condition.admits(*n as f64),
            Slide::Values(values) => condition.admits(values.len() as f64),
            Slide::Rules(order) => order.holds(condition, from),
            Slide::Sum(_, 0) => false,
            Slide::Sum(sum, count) => condition.admits(match condition.measure {
                Measure::Average => sum.value() / *count as f64,
                _ => sum.value(),
            }),
            Slide::Numbers(numbers) => match condition.measure {
                Measure::Percentile(p) if !numbers.is_empty() => {
                    condition.admits(percentile(numbers, p))
                }
                _ => false,
            },
        }
    }
}

/// The value at `percent` of the way from the least to the greatest of these sorted numbers.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let place = (sorted.len() - 1) as f64 * percent / 100.0;
    let (low, high) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    let part = place - place.floor();
    if low == high {
        return low;
    }
    low * (1.0 - part) + high * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_neighbours() {
        let check = |numbers: &[f64], percent: f64, expected: f64| {
            assert_eq!(percentile(numbers, percent), expected);
        };
        check(&[7.0], 0.0, 7.0);
        check(&[7.0], 95.0, 7.0);
        check(&[1.0, 2.0], 50.0, 1.5);
        check(&[1.0, 2.0, 3.0], 50.0, 2.0);
        check(&[1.0, 2.0, 3.0, 10.0], 50.0, 2.5);
        check(&[1.0, 2.0, 3.0, 10.0], 100.0, 10.0);
        check(&[0.0, 10.0, 20.0, 30.0, 40.0], 25.0, 10.0);
        check(&[0.0, 10.0], 95.0, 9.5);
        check(&[-f64::MAX, f64::MAX], 50.0, 0.0);
    }
}
