//! What a `baseline:` document may say about a series, checked.
//!
//! [`Params`] is shared by all series of one document and given to every call, so that a changed document takes
//! effect without touching the state. The pipeline fills it from YAML; the defaults are those of DESIGN §5.3.

use super::spans::SPANS;

/// A minute in microseconds.
pub(super) const MINUTE: i64 = 60_000_000;
/// An hour in microseconds.
pub(super) const HOUR: i64 = 60 * MINUTE;
/// A day in microseconds.
pub(super) const DAY: i64 = 24 * HOUR;

/// For so long after a deployment a departure must be rarer.
pub(super) const DEPLOYED: i64 = 30 * MINUTE;
/// By how much (ln of a hundredth); the same holds for a series of less than seven days.
pub(super) const STRICTER: f64 = -4.605_170_185_988_091;

/// Which departures count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// More than expected.
    #[default]
    Above,
    /// Less than expected.
    Below,
    /// Either.
    Both,
}

impl Direction {
    /// Does more than expected count?
    pub(super) fn above(self) -> bool {
        self != Direction::Below
    }

    /// Does less than expected count?
    pub(super) fn below(self) -> bool {
        self != Direction::Above
    }
}

/// The pattern that is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SeasonLength {
    /// No pattern: the level alone.
    None,
    /// Hour of the day and minute of the hour.
    Day,
    /// Hour of the week as well, leaning on the hour of the day until it has been seen often enough.
    #[default]
    Week,
}

/// What is too small to be worth a person's time, however unlikely.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AtLeast {
    /// Events in what is judged (1, 3 or 6 buckets); where less than expected is judged, events expected there;
    /// of a ratio, the errors.
    pub count: f64,
    /// How many times the expected; where less is judged, how many times less. At least 1.
    pub ratio: f64,
}

/// What a series is taken to be like before it has been seen: the fleet's median, if the caller knows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// The dispersion of a single bucket.
    pub dispersion: f64,
    /// The share of errors, for a [`Ratio`](super::Ratio).
    pub share: f64,
}

/// How the series of one document are judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Params {
    /// The length of a bucket in microseconds: a minute to an hour, a divisor of the hour.
    pub bucket: i64,
    /// The pattern that is learned.
    pub season: SeasonLength,
    /// Which departures count.
    pub direction: Direction,
    /// What is too small to be said.
    pub at_least: AtLeast,
    /// How many false episodes are accepted per 1,000 series per day.
    pub false_alarms: f64,
    /// The last seven days over the three weeks before, from which a slow rise or fall is said; 0 never does.
    pub slow: f64,
    /// What is assumed of a series that has hardly been seen.
    pub prior: Prior,
}

impl Default for Params {
    fn default() -> Params {
        Params {
            bucket: 5 * MINUTE,
            season: SeasonLength::Week,
            direction: Direction::Above,
            at_least: AtLeast {
                count: 20.0,
                ratio: 2.0,
            },
            false_alarms: 1.0,
            slow: 2.0,
            prior: Prior {
                dispersion: 0.1,
                share: 0.01,
            },
        }
    }
}

/// A document's numbers that cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ParamsError {
    /// `bucket`.
    #[error("a bucket must be between 1m and 1h and divide the hour")]
    Bucket,
    /// `at-least`.
    #[error("`at-least` must have a count of 1 or more and a ratio of 1 or more")]
    AtLeast,
    /// `false-alarms`.
    #[error("`false-alarms` must be more than 0 and at most 1000 per 1000 series per day")]
    FalseAlarms,
    /// `slow`.
    #[error("`slow` must be 0, or more than 1")]
    Slow,
    /// The prior.
    #[error("a prior must have a dispersion above 0 and a share between 0 and 1")]
    Prior,
}

impl Params {
    /// Can series be judged so?
    ///
    /// # Errors
    /// The first number that cannot be run.
    pub fn check(&self) -> Result<(), ParamsError> {
        let sound = |good: bool, error| if good { Ok(()) } else { Err(error) };
        sound(
            (MINUTE..=HOUR).contains(&self.bucket) && HOUR % self.bucket == 0,
            ParamsError::Bucket,
        )?;
        sound(
            self.at_least.count >= 1.0 && self.at_least.ratio >= 1.0,
            ParamsError::AtLeast,
        )?;
        sound(
            self.false_alarms > 0.0 && self.false_alarms <= 1_000.0,
            ParamsError::FalseAlarms,
        )?;
        sound(self.slow == 0.0 || self.slow > 1.0, ParamsError::Slow)?;
        sound(
            self.prior.dispersion > 0.0 && self.prior.share > 0.0 && self.prior.share < 1.0,
            ParamsError::Prior,
        )
    }

    /// Buckets in `micros`, at least one.
    pub(super) fn buckets_in(&self, micros: i64) -> f64 {
        (micros as f64 / self.bucket as f64).max(1.0)
    }

    /// ln of the probability below which a span fires, so that all spans together keep to the budget. Both
    /// directions share it.
    pub(super) fn ln_budget(&self, span: usize) -> f64 {
        let sides = if self.direction == Direction::Both {
            2.0
        } else {
            1.0
        };
        let a_bucket = self.false_alarms / 1_000.0 / self.buckets_in(DAY);
        libm::log(a_bucket * SPANS[span].share / sides)
    }
}
