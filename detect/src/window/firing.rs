//! Which matches of a group fire, for the correlations that refer to this one.
//!
//! An episode forgets which of the matches inside it fire; a correlation above wants to know each of them. [`Firing`]
//! keeps the matches themselves, of a monotone condition, and hands each on once: the moment it fires, be it through
//! itself or through one that came late. None is ever taken back. What a settled condition hands on is told by
//! `settled`.
//!
//! Space. What the condition can do without is left out (`thin`): a window that does not fire has none left out, and
//! one that does fires in the future too. What that does not bound is bounded by [`Terms::most_loose`]; of more the
//! oldest go, counted, and what fires in a window that reaches back to them is handed on as not exact.

use event::Time;

use super::kept::{Kept, Taken, Terms};
use super::loose::{Loose, What};
use super::thin;

/// The matches of one group of a correlation that others refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Firing {
    pub(super) kept: Kept,
    /// Windows that begin before this miss matches for which there was no room.
    pub(super) rough_to: Time,
}

impl Firing {
    pub(super) fn new() -> Firing {
        Firing {
            kept: Kept::new(),
            rough_to: Time::MIN,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.loose.is_empty()
    }

    /// Nothing happens by itself before the watermark is past this.
    pub(super) fn deadline(&self, timespan: i64) -> Time {
        match (self.kept.reopened, self.kept.loose.last()) {
            (Some((_, until)), _) => until,
            (None, Some(last)) => last.at.0.plus(timespan),
            (None, None) => Time::MIN,
        }
    }

    /// What is given up first when there are too many groups: the rank of one, and the time of its newest match.
    pub(super) fn rank(&self) -> (u8, Time) {
        let rank = u8::from(self.kept.loose.len() > 1);
        let newest = self.kept.loose.last().map(|l| l.at.0);
        (rank, newest.unwrap_or(Time::MIN))
    }

    /// Takes a match in, and gives those that fire through it. One that is `known` only has more rules or values now.
    pub(super) fn take(
        &mut self,
        terms: Terms<'_>,
        new: Loose,
        known: bool,
        out: &mut Vec<Loose>,
    ) -> Taken {
        let at = new.at;
        let is_there = self.kept.loose.get(at).is_some();
        if is_there != known {
            // Known and no longer there: it could be done without.
            return Taken::Repeat;
        }
        let late = self.kept.reopen(terms, at.0);
        let what = new.what.clone();
        if known {
            self.kept.add(terms, &new, &[]);
        } else {
            self.kept.insert(terms, new, &[]);
        }
        if late {
            self.kept.recount(terms, &[]);
        }
        for at in self.kept.firing(terms, at.0, &what, &[]) {
            let from = at.0.plus(-terms.rule.timespan);
            let rough = from < self.rough_to || !self.kept.loose.is_exact(from, at.0);
            if let Some(firing) = self.kept.loose.get_mut(at) {
                firing.fired = true;
                // What fires by matches that are not exact is not exact either.
                out.push(Loose {
                    rough,
                    ..firing.clone()
                });
            }
        }
        let len = self.kept.loose.len();
        if len >= 256 && len.is_multiple_of(128) {
            self.thin(terms);
        }
        match self.crowded_out(terms) {
            0 => Taken::New,
            n => Taken::Crowded(n),
        }
    }

    /// Lets go of what is in no window that can still come.
    pub(super) fn advance(&mut self, terms: Terms<'_>) {
        let watermark = self.kept.own_watermark(terms.watermark);
        self.kept
            .forget(terms, watermark.plus(-terms.rule.timespan));
    }

    /// Leaves out what can be done without.
    fn thin(&mut self, terms: Terms<'_>) {
        let all: Vec<Loose> = self.kept.loose.iter().cloned().collect();
        let matches: Vec<(Time, &What)> = all.iter().map(|l| (l.at.0, &l.what)).collect();
        let fired = |i: usize| all[i].fired;
        let (condition, timespan) = (&terms.rule.condition, terms.rule.timespan);
        let spare = thin::spare(condition, timespan, &matches, fired);
        for (l, _) in all.iter().zip(spare).filter(|(_, spare)| *spare) {
            self.kept.loose.remove(l.at);
        }
        self.kept.recount(terms, &[]);
    }

    fn crowded_out(&mut self, terms: Terms<'_>) -> u64 {
        let most = terms.most_loose();
        let mut dropped = 0;
        if self.kept.loose.len() > most {
            while self.kept.loose.len() > most - most / 4
                && let Some(at) = self.kept.loose.first().map(|l| l.at)
            {
                self.kept.remove(terms, at);
                self.rough_to = self.rough_to.max(at.0.plus(1));
                dropped += 1;
            }
            self.kept.recount(terms, &[]);
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use event::{Event, Id, Severity};

    use super::super::matches::{Chain, Contribution, Correlation, Match};
    use super::super::measure::{Clause, Comparison, Condition, Measure};
    use super::super::slide::Slide;
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn conditions() -> [Condition; 4] {
        let least = |measure, n| Condition {
            measure,
            limits: vec![(Comparison::GreaterOrEqual, n)],
        };
        let clauses = vec![Clause {
            with: 0b111,
            without: 0,
        }];
        let ordered = Measure::Expression {
            rules: 3,
            ordered: true,
            clauses,
        };
        [
            least(Measure::Events, 5.0),
            least(Measure::Values, 4.0),
            least(Measure::Rules(3), 3.0),
            Condition {
                measure: ordered,
                limits: Vec::new(),
            },
        ]
    }

    proptest::proptest! {
        /// In floods and between them: exactly those fire whose window holds enough, and few are kept.
        #[test]
        fn what_fires_is_handed_on_once(
            kind in 0_usize..4,
            seed in proptest::prelude::any::<u64>(),
            lateness in 0_i64..30,
            dense in 0_u64..3,
        ) {
            let rule = Correlation {
                rule_id: "r".into(),
                title: "t".into(),
                severity: Severity::Medium,
                tags: Vec::new(),
                staged: false,
                group_by: Vec::new(),
                timespan: 10 * SECOND,
                condition: conditions()[kind].clone(),
                chain: Chain::default(),
                semantics: 0,
            };
            let mut dice = seed;
            let mut roll = |sides: u64| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) % sides
            };
            let mut stream: Vec<(i64, i64, u64, u64)> = Vec::new();
            let mut second = 100;
            for n in 0..1_200 {
                // Floods of many a second, then hardly any.
                let flood = n / 200 % 2 == 0 && dense > 0;
                second += if flood { i64::from(roll(20) == 0) } else { roll(4) as i64 };
                let value = if roll(8) == 0 { roll(6) } else { roll(2) };
                stream.push((second + roll(lateness as u64 + 1) as i64, second, value % 3, n));
            }
            stream.sort_unstable();
            let has_rules = kind > 1;
            let what = |value: u64| if has_rules { 1 << value } else { value };
            let mut firing = Firing::new();
            let (mut fired, mut newest, mut most) = (Vec::new(), 0, 0);
            for (_, second, value, n) in &stream {
                newest = newest.max(*second);
                let terms = Terms {
                    rule: &rule,
                    lateness: lateness * SECOND,
                    watermark: Time((newest - lateness) * SECOND),
                    once: false,
                };
                let event = Event { id: Id(u128::from(*n)), time: Time(second * SECOND), ..Event::default() };
                let contribution = match kind {
                    0 => Contribution::default(),
                    1 => Contribution { values: vec![what(*value)], ..Contribution::default() },
                    _ => Contribution { rules: what(*value), ..Contribution::default() },
                };
                let m = Match::new(&rule, BTreeMap::new(), &event, 0, 0).with(contribution);
                firing.advance(terms);
                firing.take(terms, Loose::new(has_rules, m, false), false, &mut fired);
                most = most.max(firing.kept.loose.len());
            }
            let mut handed: Vec<u64> = fired.iter().map(|l| l.at.1.id.0 as u64).collect();
            let before = handed.len();
            handed.sort_unstable();
            handed.dedup();
            proptest::prop_assert_eq!(handed.len(), before, "none twice");
            stream.sort_unstable_by_key(|s| s.1);
            let expected: BTreeSet<u64> = stream.iter().filter(|(_, second, _, _)| {
                let mut slide = Slide::new(&rule.condition);
                let window = stream.iter().filter(|w| second - 10 <= w.1 && w.1 <= *second);
                window.for_each(|w| slide.add(Time(w.1), &What::One(what(w.2))));
                slide.holds(&rule.condition, Time(second - 10))
            }).map(|s| s.3).collect();
            proptest::prop_assert_eq!(handed, expected.into_iter().collect::<Vec<_>>());
            proptest::prop_assert!(most < 256 + 128, "{} kept", most);
        }
    }

    #[test]
    fn what_fires_near_matches_for_which_there_was_no_room_says_so() {
        let rule = Correlation {
            rule_id: "r".into(),
            title: "t".into(),
            severity: Severity::Medium,
            tags: Vec::new(),
            staged: false,
            group_by: Vec::new(),
            timespan: 10 * SECOND,
            condition: conditions()[2].clone(),
            chain: Chain::default(),
            semantics: 0,
        };
        let terms = Terms {
            rule: &rule,
            lateness: 0,
            watermark: Time(0),
            once: false,
        };
        let mut firing = Firing::new();
        let (mut fired, mut dropped, mut number) = (Vec::new(), 0, 0);
        let mut take = |firing: &mut Firing, second: i64, rules: u64| {
            number += 1;
            let time = Time(second * SECOND);
            let event = Event {
                id: Id(number),
                time,
                ..Event::default()
            };
            let contribution = Contribution {
                rules,
                ..Contribution::default()
            };
            let m = Match::new(&rule, BTreeMap::new(), &event, 0, 0).with(contribution);
            if let Taken::Crowded(n) =
                firing.take(terms, Loose::new(true, m, false), false, &mut fired)
            {
                dropped += n;
            }
        };
        // Many that do not fire, all in one window: none of them can be spared.
        for n in 0..310 {
            take(&mut firing, 100 + n / 100, 1 + n as u64 % 2);
        }
        take(&mut firing, 104, 0b100);
        take(&mut firing, 200, 0b111);
        assert!(dropped > 0);
        let last: Vec<(Time, bool)> = fired.iter().map(|l| (l.at.0, l.rough)).collect();
        assert_eq!(
            last,
            [(Time(104 * SECOND), true), (Time(200 * SECOND), false)]
        );
    }
}
