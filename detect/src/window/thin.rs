//! Which matches a monotone condition can do without.
//!
//! A match can be left out where the condition holds both in the half of a timespan before it and in the half behind
//! it, of the matches that stay: every window that holds it holds one of the two, and so fires with it or without,
//! whatever else may come. A window that does not fire has none left out. So a flood leaves a few matches behind: of
//! a number of matches less than four times the threshold in each timespan. `firing` thins all that it keeps, `inside`
//! what is in an episode, where the order of rules matters.

use event::Time;

use super::loose::What;
use super::measure::{Condition, Measure};
use super::slide::Slide;

/// Of these matches in order of time, those that can be left out, from the earliest on. `may_go` tells of each whether
/// it may.
pub(super) fn spare(
    condition: &Condition,
    timespan: i64,
    matches: &[(Time, &What)],
    may_go: impl Fn(usize) -> bool,
) -> Vec<bool> {
    let half = timespan / 2;
    let counted = matches!(condition.measure, Measure::Events | Measure::Values);
    let (mut before, mut behind) = (Slide::new(condition), Slide::new(condition));
    // Those that stay, with the first of them in the half before, and the end of the half behind.
    let mut stay: Vec<(Time, &What)> = Vec::new();
    let (mut begin, mut end) = (0, 0);
    let mut spare = Vec::with_capacity(matches.len());
    for (i, (time, what)) in matches.iter().enumerate() {
        while let Some((next, what)) = matches.get(end).filter(|n| n.0 <= time.plus(half)) {
            behind.add(*next, what);
            end += 1;
        }
        behind.remove(what);
        while let Some((_, old)) = stay.get(begin).filter(|o| o.0 < time.plus(-half)) {
            before.remove(old);
            begin += 1;
        }
        // Of rules a slide tells by their time what lies before a window, and of two at one time nothing.
        let next = matches.get(i + 1).map_or(Time::MAX, |n| n.0);
        let goes = may_go(i)
            && (counted || next > *time)
            && before.holds(condition, time.plus(-half))
            && behind.holds(condition, next);
        if !goes {
            before.add(*time, what);
            stay.push((*time, what));
        }
        spare.push(goes);
    }
    spare
}

#[cfg(test)]
mod tests {
    use super::super::measure::{Clause, Comparison};
    use super::*;

    fn holds(condition: &Condition, matches: &[(Time, &What)], from: Time, to: Time) -> bool {
        let mut slide = Slide::new(condition);
        let within = matches.iter().filter(|m| from <= m.0 && m.0 <= to);
        within.for_each(|(time, what)| slide.add(*time, what));
        slide.holds(condition, from)
    }

    proptest::proptest! {
        /// Whatever comes later, every window fires with the rest if and only if it fires with all.
        #[test]
        fn no_window_misses_what_was_left_out(
            kind in 0..4,
            matches in proptest::collection::vec((0_i64..40, 0_u64..3), 0..60),
            later in proptest::collection::vec((0_i64..40, 0_u64..3), 0..6),
        ) {
            let least = |n| vec![(Comparison::GreaterOrEqual, n)];
            let condition = match kind {
                0 => Condition { measure: Measure::Events, limits: least(4.0) },
                1 => Condition { measure: Measure::Values, limits: least(3.0) },
                2 => Condition { measure: Measure::Rules(3), limits: least(3.0) },
                _ => {
                    let clauses = vec![Clause { with: 0b111, without: 0 }];
                    Condition { measure: Measure::Expression { rules: 3, ordered: true, clauses }, limits: Vec::new() }
                }
            };
            let whole = |list: &[(i64, u64)]| -> Vec<(Time, What)> {
                let rules = kind > 1;
                list.iter().map(|(t, n)| (Time(*t), What::One(if rules { 1 << n } else { *n }))).collect()
            };
            let mut matches = whole(&matches);
            matches.sort_by_key(|m| m.0);
            let matches: Vec<(Time, &What)> = matches.iter().map(|(t, w)| (*t, w)).collect();
            let spare = spare(&condition, 10, &matches, |_| true);
            let rest = matches.iter().zip(&spare).filter(|(_, spare)| !**spare).map(|(m, _)| *m);
            let later = whole(&later);
            let later = later.iter().map(|(t, w)| (*t, w));
            let (mut all, mut rest) = (matches.clone(), rest.collect::<Vec<_>>());
            all.extend(later.clone());
            rest.extend(later);
            all.sort_by_key(|m| m.0);
            rest.sort_by_key(|m| m.0);
            for to in 0..50 {
                let (from, to) = (Time(to - 10), Time(to));
                let (whole, thin) = (holds(&condition, &all, from, to), holds(&condition, &rest, from, to));
                proptest::prop_assert_eq!(whole, thin, "window to {}", to.0);
            }
        }
    }
}
