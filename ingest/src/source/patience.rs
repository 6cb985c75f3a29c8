//! Patience: how sources that call AWS again and again wait, and how often they say the same trouble.
//!
//! [`Pace`] keeps all calls of one account and region below a rate, and lets them rest while AWS asks for fewer.
//! [`breath`] is how long to wait after failures in a row. [`Said`] remembers what was said lately, so that a
//! permission that is missing is told once an hour and not with every call. Nothing here calls anything.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use event::Time;

/// The longest wait between two tries.
const LONGEST_BREATH: Duration = Duration::from_secs(30);

/// The same trouble is said again after an hour.
const SAID_MICROS: i64 = 3_600 * 1_000_000;

/// How long to wait after so many failures in a row.
pub(super) fn breath(failures: u32) -> Duration {
    let seconds = 1_u64 << failures.saturating_sub(1).min(5);
    Duration::from_secs(seconds).min(LONGEST_BREATH)
}

/// Gives calls their turns.
pub(super) struct Pace {
    gap: Duration,
    turn: Mutex<Turn>,
}

struct Turn {
    next: Option<Instant>,
    throttled: u32,
}

impl Pace {
    /// So many calls a second at most.
    pub(super) fn new(calls_per_second: u32) -> Pace {
        Pace {
            gap: Duration::from_secs(1) / calls_per_second.max(1),
            turn: Mutex::new(Turn {
                next: None,
                throttled: 0,
            }),
        }
    }

    /// Takes a turn: how long to wait before the call.
    pub(super) fn turn(&self, now: Instant) -> Duration {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let at = turn.next.map_or(now, |next| next.max(now));
        turn.next = Some(at + self.gap);
        at - now
    }

    /// A call was refused because there were too many: the next ones wait. Gives how many were in a row.
    pub(super) fn throttled(&self, now: Instant) -> u32 {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.throttled += 1;
        let back = now + breath(turn.throttled);
        turn.next = Some(turn.next.map_or(back, |next| next.max(back)));
        turn.throttled
    }

    /// A call was served.
    pub(super) fn served(&self) {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.throttled = 0;
    }
}

/// What was said lately, by what it is about.
#[derive(Default)]
pub(super) struct Said(Mutex<BTreeMap<String, (&'static str, Time)>>);

impl Said {
    /// Is this worth saying: is the kind of trouble new here, or was it last said an hour ago?
    pub(super) fn is_new(&self, about: &str, kind: &'static str, now: Time) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = said
            .get(about)
            .is_some_and(|(before, at)| *before == kind && now.0 - at.0 < SAID_MICROS);
        if !lately {
            said.insert(about.to_owned(), (kind, now));
        }
        !lately
    }

    /// There is no trouble any more. Was there any?
    pub(super) fn mended(&self, about: &str) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.remove(about).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_keep_their_distance_and_rest_when_asked_to() {
        let (pace, begin) = (Pace::new(4), Instant::now());
        let waits: Vec<u128> = (0..3).map(|_| pace.turn(begin).as_millis()).collect();
        assert_eq!(waits, [0, 250, 500]);
        // A turn that nobody took is not made up for.
        let later = begin + Duration::from_secs(10);
        assert_eq!(pace.turn(later).as_millis(), 0);
        assert_eq!(pace.turn(later).as_millis(), 250);
        for (n, rest) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
            let now = later + Duration::from_secs(100 * (n as u64 + 1));
            pace.throttled(now);
            assert_eq!(pace.turn(now).as_secs(), rest);
        }
        pace.served();
        let now = later + Duration::from_secs(1_000);
        pace.throttled(now);
        assert_eq!(pace.turn(now).as_secs(), 1);
    }

    #[test]
    fn the_same_is_said_once_an_hour() {
        let (said, minute) = (Said::default(), 60 * 1_000_000);
        let at = |minutes: i64| Time(minutes * minute);
        assert!(said.is_new("a", "denied", at(0)));
        assert!(!said.is_new("a", "denied", at(59)));
        assert!(said.is_new("b", "denied", at(59)));
        assert!(said.is_new("a", "no_source", at(59)));
        assert!(said.is_new("b", "denied", at(119)));
        assert!(said.mended("a") && !said.mended("a"));
        assert!(said.is_new("a", "no_source", at(60)));
    }
}
