//! What becomes of a notification after an attempt to send it: the decisions of the outbox.
//!
//! The store keeps the rows and `notify` makes the attempts; here is when the next one is. A receiver that
//! answered has the notification. One that is busy or away is tried again with growing pauses for a day,
//! or when it asked to be. One that refused is not asked again. Where the answer was lost nobody knows:
//! the notification is sent again under the same idempotency key, and the doubt is counted. What is given
//! up is dead: kept, shown, told to the fallback receiver, and sendable again by hand.

use event::{Id, Time};

/// How long a notification is tried, in microseconds.
pub const GIVE_UP_AFTER: i64 = 24 * 3_600_000_000;
/// The first pause between attempts, in microseconds.
const FIRST_PAUSE: i64 = 1_000_000;
/// The longest pause between attempts, in microseconds.
const LONGEST_PAUSE: i64 = 300 * 1_000_000;
/// The longest pause that a receiver may ask for, in microseconds: a careless answer must not silence a day.
const LONGEST_ASKED: i64 = 3_600 * 1_000_000;

/// A receiver took the notification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// What it answered, for people; never log content.
    pub answer: String,
}

/// A notification was not taken, or nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It may work later.
    #[error("{reason}")]
    Transient {
        /// What happened.
        reason: String,
        /// How long the receiver asks to wait, in microseconds.
        retry_after: Option<i64>,
    },
    /// It will not work as it is.
    #[error("{reason}")]
    Permanent {
        /// What happened.
        reason: String,
    },
    /// It was sent but the answer was lost: the receiver may have it.
    #[error("{reason}")]
    Ambiguous {
        /// What happened.
        reason: String,
    },
}

/// What becomes of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Sent,
    /// It is tried again.
    Retry {
        /// When.
        at: Time,
        /// May the receiver have it already?
        ambiguous: bool,
        /// What happened.
        error: String,
    },
    /// It is given up.
    Dead {
        /// What happened.
        error: String,
    },
}

/// What becomes of notification `key` after its attempt number `attempts` (from 1); it is tried until `give_up_at`.
pub fn settle(
    result: Result<Sent, SendError>,
    key: &str,
    attempts: u32,
    give_up_at: Time,
    now: Time,
) -> Outcome {
    let (error, asked, ambiguous) = match result {
        Ok(_) => return Outcome::Sent,
        Err(SendError::Permanent { reason }) => return Outcome::Dead { error: reason },
        Err(SendError::Transient {
            reason,
            retry_after,
        }) => (reason, retry_after, false),
        Err(SendError::Ambiguous { reason }) => (reason, None, true),
    };
    let wait = match asked {
        Some(asked) => asked.clamp(0, LONGEST_ASKED).max(FIRST_PAUSE),
        None => pause(key, attempts),
    };
    let at = now.plus(wait);
    if at > give_up_at {
        let error = format!("given up after {attempts} attempts: {error}");
        return Outcome::Dead { error };
    }
    Outcome::Retry {
        at,
        ambiguous,
        error,
    }
}

/// The pause after attempt number `attempts`, in microseconds: doubling from a second to five minutes, and of that
/// between half and all, so that many that failed together do not come back together. The same key and attempt give
/// the same pause.
pub fn pause(key: &str, attempts: u32) -> i64 {
    let doubled = FIRST_PAUSE << attempts.saturating_sub(1).min(20);
    let whole = doubled.min(LONGEST_PAUSE);
    let draw = Id::of("pause", &[key.as_bytes(), &attempts.to_le_bytes()]).0 as u64;
    let half = whole / 2;
    half + (draw % (half as u64 + 1)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn transient(retry_after: Option<i64>) -> Result<Sent, SendError> {
        Err(SendError::Transient {
            reason: "answered 503".into(),
            retry_after,
        })
    }

    fn check(
        result: Result<Sent, SendError>,
        attempts: u32,
        now: i64,
        expected: Result<i64, &str>,
    ) {
        let found = settle(result, "k", attempts, Time(GIVE_UP_AFTER), Time(now));
        match (found, expected) {
            (Outcome::Retry { at, .. }, Ok(expected)) => assert_eq!(at, Time(expected)),
            (Outcome::Dead { error }, Err(expected)) => {
                assert!(error.contains(expected), "{error}")
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn pauses_double_within_bounds() {
        for attempts in 1..40 {
            let whole = (FIRST_PAUSE << (attempts - 1).min(20)).min(LONGEST_PAUSE);
            for key in ["a", "b", "c"] {
                let pause = pause(key, attempts);
                assert!((whole / 2..=whole).contains(&pause), "{attempts}: {pause}");
            }
        }
        assert_eq!(pause("a", 5), pause("a", 5));
        assert_ne!(pause("a", 5), pause("b", 5));
    }

    #[test]
    fn what_the_receiver_asks_is_honoured_within_reason() {
        check(transient(Some(90 * SECOND)), 1, 0, Ok(90 * SECOND));
        check(transient(Some(0)), 1, 0, Ok(SECOND));
        check(transient(Some(i64::MAX)), 1, 0, Ok(3_600 * SECOND));
    }

    #[test]
    fn a_day_and_no_longer() {
        check(
            transient(None),
            300,
            GIVE_UP_AFTER,
            Err("given up after 300 attempts: answered 503"),
        );
        let refused = Err(SendError::Permanent {
            reason: "answered 400".into(),
        });
        check(refused, 1, 0, Err("answered 400"));
        assert_eq!(
            settle(Ok(Sent::default()), "k", 1, Time(0), Time(9)),
            Outcome::Sent
        );
    }

    #[test]
    fn doubt_is_retried_and_counted() {
        let lost = Err(SendError::Ambiguous {
            reason: "no answer".into(),
        });
        let found = settle(lost, "k", 1, Time(GIVE_UP_AFTER), Time(0));
        assert!(
            matches!(
                found,
                Outcome::Retry {
                    ambiguous: true,
                    ..
                }
            ),
            "{found:?}"
        );
    }
}
