//! Rules seen one after another: where the latest chain begins that has ended by now.
//!
//! An [`Order`] is fed the times of matches with the rules that they satisfy, in order of time, and remembers for
//! every beginning of a chain the latest time at which it can start. A window holds a chain if and only if the
//! chain's latest start lies in it, so one pass over the matches answers every window on the way. Matches of one
//! time satisfy either order: they are taken together, rule by rule in the order of the chain. One match may stand
//! for two rules of a chain.
//!
//! `settled` goes on with one as the watermark passes, `thin` passes over what is kept, and `inside` asks which matches
//! such a pass needs at all.

use event::Time;

use super::measure::{Condition, Measure};

/// The latest starts of chains that have ended by the time of the last match.
#[derive(Debug, Clone)]
pub(super) struct Order {
    rules: usize,
    now: (Time, u64),
    /// Per rule the last time it was seen.
    last: Vec<Time>,
    /// Per chain the rules of it, in order.
    chains: Vec<Vec<u32>>,
    /// Per chain and length the latest start.
    starts: Vec<Vec<Time>>,
    /// Where the most rules in order are asked for: per length and last rule the latest start.
    table: Vec<Time>,
}

/// Earlier than any match.
const NEVER: Time = Time(i64::MIN);

impl Order {
    /// Nothing seen yet.
    pub(super) fn new(condition: &Condition) -> Order {
        let (rules, chains, table) = match &condition.measure {
            Measure::Expression {
                rules,
                ordered: true,
                clauses,
            } => {
                let chain = |with: u64| (0..*rules).filter(|r| with >> r & 1 == 1).collect();
                let chains: Vec<Vec<u32>> = clauses.iter().map(|c| chain(c.with)).collect();
                (*rules as usize, chains, 0)
            }
            Measure::Ordered(rules) => {
                let n = *rules as usize;
                (n, Vec::new(), n * n)
            }
            Measure::Expression { rules, .. } | Measure::Rules(rules) => {
                (*rules as usize, Vec::new(), 0)
            }
            _ => (0, Vec::new(), 0),
        };
        Order {
            rules,
            now: (NEVER, 0),
            last: vec![NEVER; rules],
            starts: chains.iter().map(|c| vec![NEVER; c.len()]).collect(),
            chains,
            table: vec![NEVER; table],
        }
    }

    /// The next match in order of time, with the rules that it satisfies.
    pub(super) fn feed(&mut self, time: Time, rules: u64) {
        let together = if time == self.now.0 { self.now.1 } else { 0 };
        let rules = rules | together;
        self.now = (time, rules);
        for (rule, last) in self.last.iter_mut().enumerate() {
            if rules >> rule & 1 == 1 {
                *last = time;
            }
        }
        for (chain, starts) in self.chains.iter().zip(&mut self.starts) {
            for (i, rule) in chain.iter().enumerate() {
                if rules >> rule & 1 == 1 {
                    let start = if i == 0 { time } else { starts[i - 1] };
                    starts[i] = starts[i].max(start);
                }
            }
        }
        if !self.table.is_empty() {
            for rule in (0..self.rules).filter(|r| rules >> r & 1 == 1) {
                self.extend(rule, time);
            }
        }
    }

    /// The chains that this rule ends now.
    fn extend(&mut self, rule: usize, time: Time) {
        self.table[rule] = time;
        for length in 1..=rule {
            let shorter = (length - 1) * self.rules;
            let best = self.table[shorter..shorter + rule].iter().max().copied();
            let place = length * self.rules + rule;
            self.table[place] = self.table[place].max(best.unwrap_or(NEVER));
        }
    }

    /// Does the condition hold in the window that begins at `from` and ends with the last match?
    pub(super) fn holds(&self, condition: &Condition, from: Time) -> bool {
        let seen = || {
            let seen = |(rule, last): (usize, &Time)| u64::from(*last >= from) << rule;
            self.last.iter().enumerate().map(seen).sum::<u64>()
        };
        match &condition.measure {
            Measure::Ordered(_) => condition.admits(self.longest(from) as f64),
            Measure::Expression {
                ordered: true,
                clauses,
                ..
            } => {
                let unwanted = seen();
                let complete = |starts: &Vec<Time>| starts.last().is_none_or(|s| *s >= from);
                clauses
                    .iter()
                    .zip(&self.starts)
                    .any(|(clause, starts)| unwanted & clause.without == 0 && complete(starts))
            }
            _ => condition.admits_rules(seen()),
        }
    }

    /// How many rules can be picked in order from the window that begins at `from`?
    fn longest(&self, from: Time) -> usize {
        let reached = |row: &&[Time]| row.iter().any(|start| *start >= from);
        let rows = self.table.chunks(self.rules.max(1));
        rows.take_while(|row| reached(row)).count()
    }
}

/// Which of these matches, in order of time, a chain that goes on behind them can need: going back from every rule of
/// an expression's chain, the latest of each before it. That chain starts latest, so that it is in every window that
/// holds any.
pub(super) fn needed(condition: &Condition, matches: &[(Time, u64)]) -> Vec<bool> {
    let mut needed = vec![false; matches.len()];
    let order = Order::new(condition);
    for chain in &order.chains {
        for end in 0..chain.len() {
            let mut at = matches.len();
            for rule in chain[..=end].iter().rev() {
                let Some(place) = latest(matches, at, *rule) else {
                    break;
                };
                needed[place] = true;
                at = together(matches, place);
            }
        }
    }
    needed
}

/// The last match before place `at` that satisfies the rule.
fn latest(matches: &[(Time, u64)], at: usize, rule: u32) -> Option<usize> {
    matches[..at].iter().rposition(|m| m.1 >> rule & 1 == 1)
}

/// The place behind all matches of the same time.
fn together(matches: &[(Time, u64)], place: usize) -> usize {
    matches.partition_point(|m| m.0 <= matches[place].0)
}

#[cfg(test)]
mod tests {
    use super::super::measure::{Clause, Comparison};
    use super::*;

    fn all(rules: u32) -> Condition {
        Condition {
            measure: Measure::Expression {
                rules,
                ordered: true,
                clauses: vec![Clause {
                    with: (1 << rules) - 1,
                    without: 0,
                }],
            },
            limits: Vec::new(),
        }
    }

    #[test]
    fn a_chain_lies_in_a_window_if_its_latest_start_does() {
        let condition = all(2);
        let mut order = Order::new(&condition);
        let mut check = |time: i64, rules: u64, from: i64, expected: bool| {
            order.feed(Time(time), rules);
            assert_eq!(order.holds(&condition, Time(from)), expected);
        };
        check(1, 0b10, 0, false);
        check(2, 0b01, 0, false);
        check(3, 0b10, 2, true);
        check(4, 0b10, 3, false);
        check(5, 0b10, 5, false);
        check(5, 0b01, 5, true);
        check(6, 0b11, 6, true);
    }

    #[test]
    fn the_most_rules_in_order() {
        let condition = Condition {
            measure: Measure::Ordered(4),
            limits: vec![(Comparison::GreaterOrEqual, 1.0)],
        };
        let mut order = Order::new(&condition);
        for (time, rule) in [(1, 2), (2, 0), (3, 1), (4, 3)] {
            order.feed(Time(time), 1 << rule);
        }
        let longest = |from| order.longest(Time(from));
        assert_eq!(
            [longest(1), longest(2), longest(3), longest(4)],
            [3, 3, 2, 1]
        );
    }

    proptest::proptest! {
        /// Whatever comes behind, the needed ones alone give the same answer for every window.
        #[test]
        fn what_is_not_needed_is_never_missed(
            times in proptest::collection::vec((0_i64..12, 0_u64..8), 0..25),
            behind in proptest::collection::vec((12_i64..20, 0_u64..8), 0..8),
        ) {
            let condition = all(3);
            let (mut times, mut behind) = (times, behind);
            times.sort_unstable();
            behind.sort_unstable();
            let matches: Vec<(Time, u64)> = times.iter().map(|(t, r)| (Time(*t), *r)).collect();
            let needed = needed(&condition, &matches);
            let (mut whole, mut part) = (Order::new(&condition), Order::new(&condition));
            for ((time, rules), needed) in matches.iter().zip(needed) {
                whole.feed(*time, *rules);
                if needed {
                    part.feed(*time, *rules);
                }
            }
            for (time, rules) in behind {
                whole.feed(Time(time), rules);
                part.feed(Time(time), rules);
                for from in 0..20 {
                    let from = Time(from);
                    proptest::prop_assert_eq!(whole.holds(&condition, from), part.holds(&condition, from));
                }
            }
        }
    }
}
