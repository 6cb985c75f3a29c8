//! The traffic itself.

use event::Time;

use super::{Rates, Tick};

/// Records arrive at most so long after they happened.
pub(crate) const MAX_DELAY_SECONDS: i64 = 5;

/// An organisation at work, second by second.
#[derive(Debug)]
pub(crate) struct Traffic {
    rates: Rates,
    next_second: i64,
}

impl Traffic {
    /// Traffic that begins at `start`, with an attack within its first seconds.
    pub(crate) fn new(_seed: u64, start: Time) -> Traffic {
        Traffic {
            rates: Rates::default(),
            next_second: start.0.div_euclid(1_000_000),
        }
    }

    /// The same with other rates.
    pub(crate) fn with_rates(self, rates: Rates) -> Traffic {
        Traffic { rates, ..self }
    }

    /// Everything that arrived since the last call and before `now`.
    pub(crate) fn until(&mut self, now: Time) -> Tick {
        self.next_second = self.next_second.max(now.0.div_euclid(1_000_000));
        Tick::default()
    }
}

/// One kind of attack, for lists and documents.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kind {
    /// Its name, as in [`Injection::kind`].
    pub(crate) name: &'static str,
    /// What is done, in words for people.
    pub(crate) title: &'static str,
    /// Titles of the rules that ought to alert.
    pub(crate) expect: &'static [&'static str],
    /// A look-alike that must not alert.
    pub(crate) decoy: bool,
}

/// Every kind of attack and decoy, in the order in which they come.
pub(crate) fn kinds() -> Vec<Kind> {
    Vec::new()
}

/// Quiet traffic of the `hours` before `end`, a minute at a time: no attacks, a fifth of the usual rates.
pub(crate) fn history(seed: u64, end: Time, hours: u32) -> impl Iterator<Item = Tick> {
    let start = end.plus(-3_600_000_000 * i64::from(hours));
    let mut traffic = Traffic::new(seed, start);
    (1..=i64::from(hours) * 60).map(move |minute| traffic.until(start.plus(minute * 60_000_000)))
}
