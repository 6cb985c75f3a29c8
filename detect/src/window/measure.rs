//! What a correlation measures in a window, and which measures make it fire.
//!
//! A [`Condition`] is the checked form of `type` and `condition` of a document; `rule` makes it, the windows
//! evaluate it. Whether it is *monotone* decides how it is run. A monotone one can only become true by another
//! match in the window, never false: it fires at once, and `group` runs it in bounded space. Any other one is
//! *settled*: `settled` evaluates it once, when the watermark has passed and nothing can be missing any more.
//!
//! The rules that a temporal kind refers to are numbered by their place in its list, and a set of them is the
//! bits of a number, so that there can be 64. The order that `temporal_ordered` asks for is that of the numbers.

use std::fmt::Write;

/// How many rules a temporal correlation may refer to.
pub const MOST_RULES: usize = 64;

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// How many matches there are.
    Events,
    /// How many different values the matches have in the field.
    Values,
    /// How many of the referred rules, of which there are so many, are seen.
    Rules(u32),
    /// How many of the referred rules are seen in their order: the most that can be picked so.
    Ordered(u32),
    /// Which of the referred rules are seen: any of the clauses.
    Expression {
        /// How many rules are referred to.
        rules: u32,
        /// Must those of a clause be seen in their order?
        ordered: bool,
        /// Alternatives, of which one must hold.
        clauses: Vec<Clause>,
    },
    /// The sum of the field's numbers, exact and rounded once.
    Sum,
    /// Their sum divided by how many there are.
    Average,
    /// The number below which so many per cent of them lie, interpolated between neighbours; 50 is the median.
    Percentile(f64),
}

/// Rules that must be seen, and rules that must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clause {
    /// These must be seen.
    pub with: u64,
    /// These must not.
    pub without: u64,
}

/// How a measure is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

impl Comparison {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
            Comparison::Greater => left > right,
            Comparison::GreaterOrEqual => left >= right,
            Comparison::Equal => left == right,
            Comparison::NotEqual => left != right,
        }
    }
}

/// What must hold for a match to fire.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What is measured.
    pub measure: Measure,
    /// What the measure must satisfy, all of them. An expression has none.
    pub limits: Vec<(Comparison, f64)>,
}

impl Condition {
    /// So many matches or more.
    pub fn at_least(events: u64) -> Condition {
        Condition {
            measure: Measure::Events,
            limits: vec![(Comparison::GreaterOrEqual, events as f64)],
        }
    }

    /// Can another match in the window never make it false?
    pub fn is_monotone(&self) -> bool {
        let lower = |(comparison, _): &(Comparison, f64)| {
            matches!(comparison, Comparison::Greater | Comparison::GreaterOrEqual)
        };
        match &self.measure {
            Measure::Events | Measure::Values | Measure::Rules(_) => self.limits.iter().all(lower),
            Measure::Expression { clauses, .. } => clauses.iter().all(|c| c.without == 0),
            // A lower limit of ordered rules is written as an expression where that has few enough clauses.
            Measure::Ordered(_) | Measure::Sum | Measure::Average | Measure::Percentile(_) => false,
        }
    }

    /// Does a match count by the rules that it satisfies?
    pub fn has_rules(&self) -> bool {
        matches!(
            self.measure,
            Measure::Rules(_) | Measure::Ordered(_) | Measure::Expression { .. }
        )
    }

    /// Does a match count by the numbers of a field?
    pub fn has_numbers(&self) -> bool {
        matches!(
            self.measure,
            Measure::Sum | Measure::Average | Measure::Percentile(_)
        )
    }

    /// The least count that satisfies every lower limit. All that is asked of a monotone condition that counts.
    pub(super) fn threshold(&self) -> u64 {
        let least = |(comparison, value): &(Comparison, f64)| match comparison {
            Comparison::Greater => value.floor() + 1.0,
            _ => value.ceil(),
        };
        self.limits.iter().map(least).fold(1.0, f64::max) as u64
    }

    /// Does this measure satisfy the limits?
    pub fn admits(&self, measure: f64) -> bool {
        self.limits
            .iter()
            .all(|(c, value)| c.holds(measure, *value))
    }

    /// Does what is seen satisfy an expression without order, or a number of rules?
    pub(super) fn admits_rules(&self, seen: u64) -> bool {
        match &self.measure {
            Measure::Expression { clauses, .. } => clauses
                .iter()
                .any(|c| seen & c.with == c.with && seen & c.without == 0),
            _ => self.admits(f64::from(seen.count_ones())),
        }
    }

    /// Everything that decides when it fires, as a text to be hashed.
    pub(super) fn semantics(&self) -> String {
        let mut text = match &self.measure {
            Measure::Events => "events".to_owned(),
            Measure::Values => "values".to_owned(),
            Measure::Rules(n) => format!("rules {n}"),
            Measure::Ordered(n) => format!("ordered {n}"),
            Measure::Expression {
                rules,
                ordered,
                clauses,
            } => {
                let mut text = format!("expression {rules} {ordered}");
                for clause in clauses {
                    write!(text, " {:x}/{:x}", clause.with, clause.without)
                        .expect("a text takes everything");
                }
                text
            }
            Measure::Sum => "sum".to_owned(),
            Measure::Average => "average".to_owned(),
            Measure::Percentile(p) => format!("percentile {p}"),
        };
        for (comparison, value) in &self.limits {
            write!(text, " {comparison:?} {value}").expect("a text takes everything");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_conditions_can_be_run_at_once() {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        let check = |measure: Measure, comparisons: &[Comparison], monotone: bool| {
            let limits = comparisons.iter().map(|c| (*c, 3.0)).collect();
            let condition = Condition { measure, limits };
            assert_eq!(condition.is_monotone(), monotone, "{condition:?}");
        };
        for measure in [Measure::Events, Measure::Values, Measure::Rules(3)] {
            check(measure.clone(), &[Greater], true);
            check(measure.clone(), &[Greater, GreaterOrEqual], true);
            for other in [Less, LessOrEqual, Equal, NotEqual] {
                check(measure.clone(), &[other], false);
                check(measure.clone(), &[Greater, other], false);
            }
        }
        for measure in [Measure::Sum, Measure::Average, Measure::Percentile(50.0)] {
            check(measure, &[Greater], false);
        }
        let expression = |without| Measure::Expression {
            rules: 2,
            ordered: false,
            clauses: vec![Clause { with: 1, without }],
        };
        check(expression(0), &[], true);
        check(expression(2), &[], false);
    }

    #[test]
    fn the_threshold_is_the_greatest_lower_limit() {
        let threshold = |limits: &[(Comparison, f64)]| {
            let limits = limits.to_vec();
            let measure = Measure::Events;
            Condition { measure, limits }.threshold()
        };
        assert_eq!(threshold(&[(Comparison::GreaterOrEqual, 5.0)]), 5);
        assert_eq!(threshold(&[(Comparison::Greater, 5.0)]), 6);
        let both = [
            (Comparison::Greater, 2.0),
            (Comparison::GreaterOrEqual, 5.0),
        ];
        assert_eq!(threshold(&both), 5);
    }
}
