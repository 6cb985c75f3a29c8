//! What a model has to say about a bucket, and why.
//!
//! A [`Verdict`] carries everything that a finding's text needs: what was seen, what was expected, the band, how long
//! has been learned, whether the threshold is raised, what became of the episode. Its `Display` is that text, so that
//! no reader has to be a statistician. Models make it, the pipeline turns those whose [`Change`] is worth a word into
//! findings.

use std::fmt;

use event::Time;

use super::params::{DAY, HOUR, MINUTE, Params};
use super::spans::{self, Family, Judged};

/// What this bucket did to the episode of its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// There is none.
    Quiet,
    /// An episode begins: say it.
    Opened,
    /// It goes on; nothing new.
    Open,
    /// It goes on and has become twice as bad since it was last said.
    Worse,
    /// It has lasted a day: ask whether this is the new normal.
    Asked,
    /// It has lasted three days: the new level is taken as normal and the episode is over. Record it.
    Accepted,
    /// It is over.
    Closed,
}

impl Change {
    /// Is this worth a revision of the finding?
    pub fn is_news(self) -> bool {
        !matches!(self, Change::Quiet | Change::Open)
    }
}

/// What kind of departure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// More than expected, now.
    Surge,
    /// Less than expected, now.
    Drop,
    /// The last seven days are above the three weeks before, though no bucket stood out.
    SlowRise,
    /// The same downwards.
    SlowFall,
}

/// How long the series has been learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learning {
    /// Microseconds since its first bucket.
    pub seen: i64,
}

impl Learning {
    /// Learning is complete after this.
    pub const FULL: i64 = 7 * DAY;

    /// Before two hours are over nothing is judged: there is nothing to compare with.
    pub fn is_blind(self) -> bool {
        self.seen < 2 * HOUR
    }

    /// How many times a hundred times rarer a departure must be: twice on the first day, when nothing is known of the
    /// hours to come, once on the first seven days.
    pub(super) fn caution(self) -> u8 {
        u8::from(self.seen < DAY) + u8::from(!self.is_complete())
    }

    /// Before seven days only what is a hundred times rarer is said.
    pub fn is_complete(self) -> bool {
        self.seen >= Learning::FULL
    }
}

impl fmt::Display for Learning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.seen / DAY;
        if self.is_complete() {
            write!(f, "learned over {days} days")
        } else if days == 0 {
            write!(f, "learning for {} hours", self.seen / HOUR)
        } else {
            write!(f, "learning {days}/{} days", Learning::FULL / DAY)
        }
    }
}

/// The verdict on one bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Where the newest bucket begins.
    pub time: Time,
    /// How much time is judged, ending with that bucket, in microseconds.
    pub span: i64,
    /// What was seen in it: events, or errors of a ratio.
    pub observed: f64,
    /// What was expected.
    pub expected: f64,
    /// Out of how many, for a ratio; 0 for counts.
    pub out_of: f64,
    /// -log10 of the probability that this series departs so far by itself.
    pub surprise: f64,
    /// How long it has been learned.
    pub learning: Learning,
    /// What became of the episode.
    pub change: Change,
    /// What kind of departure, where there is one.
    pub reason: Option<Reason>,
    /// The series scatters more than its model can say, so that its threshold is raised.
    pub noisy: bool,
    /// A deployment has just been, so that the threshold is raised.
    pub deployed: bool,
    pub(super) usual: Usual,
}

/// Where the band comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Usual {
    /// It is known.
    Band(f64, f64),
    /// It is found by asking the distribution, which costs some microseconds.
    Of(Family, Judged, Params),
}

impl Verdict {
    /// The least and the most that would have passed without a word. The most is infinite where only less is judged,
    /// and while nothing is judged.
    pub fn band(&self) -> (f64, f64) {
        match self.usual {
            Usual::Band(low, high) => (low, high),
            Usual::Of(family, judged, params) => spans::band(family, &judged, &params),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.band();
        write!(f, "{}", Count(self.observed))?;
        if self.out_of > 0.0 {
            write!(f, " of {}", Count(self.out_of))?;
        }
        write!(
            f,
            " in {}; {} expected",
            Span(self.span),
            Count(self.expected)
        )?;
        match (low > 0.0, high.is_finite()) {
            (true, true) => write!(f, ", {} to {} usual", Count(low), Count(high))?,
            (true, false) => write!(f, ", at least {} usual", Count(low))?,
            (false, true) => write!(f, ", at most {} usual", Count(high))?,
            (false, false) => {}
        }
        match self.reason {
            Some(Reason::SlowRise) => write!(f, "; a slow rise over weeks")?,
            Some(Reason::SlowFall) => write!(f, "; a slow fall over weeks")?,
            Some(Reason::Surge | Reason::Drop) | None => {}
        }
        match self.change {
            Change::Worse => write!(f, "; twice as bad as before")?,
            Change::Asked => write!(f, "; this has lasted a day, is it the new normal?")?,
            Change::Accepted => {
                write!(f, "; this has lasted three days and is taken as normal now")?
            }
            Change::Quiet | Change::Opened | Change::Open | Change::Closed => {}
        }
        write!(f, "; {}", self.learning)?;
        if self.noisy {
            write!(f, "; noisy, threshold raised")?;
        }
        if self.deployed {
            write!(f, "; just deployed, threshold raised")?;
        }
        Ok(())
    }
}

/// A number as people write it: whole where it is large.
struct Count(f64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.0.fract() == 0.0 || self.0 >= 10.0 {
            0
        } else {
            1
        };
        write!(f, "{:.digits$}", self.0)
    }
}

/// A time span in the largest unit that divides it.
struct Span(i64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, sign) in [(DAY, "d"), (HOUR, "h"), (MINUTE, "m")] {
            if self.0 >= unit && self.0 % unit == 0 {
                return write!(f, "{}{sign}", self.0 / unit);
            }
        }
        write!(f, "{}s", self.0 / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_explains_itself() {
        let check = |verdict: Verdict, expected: &str| assert_eq!(verdict.to_string(), expected);
        let surge = Verdict {
            time: Time(0),
            span: 15 * MINUTE,
            observed: 412.0,
            expected: 37.04,
            out_of: 0.0,
            surprise: 12.0,
            learning: Learning { seen: 21 * DAY },
            change: Change::Opened,
            reason: Some(Reason::Surge),
            noisy: false,
            deployed: false,
            usual: Usual::Band(0.0, 118.0),
        };
        check(
            surge,
            "412 in 15m; 37 expected, at most 118 usual; learned over 21 days",
        );
        check(
            Verdict {
                span: DAY,
                out_of: 9_000.0,
                usual: Usual::Band(3.0, 60.0),
                learning: Learning { seen: 3 * DAY },
                change: Change::Asked,
                noisy: true,
                deployed: true,
                expected: 1.25,
                ..surge
            },
            "412 of 9000 in 1d; 1.2 expected, 3 to 60 usual; this has lasted a day, is it the new normal?; \
             learning 3/7 days; noisy, threshold raised; just deployed, threshold raised",
        );
        check(
            Verdict {
                span: 7 * DAY,
                usual: Usual::Band(50.0, f64::INFINITY),
                reason: Some(Reason::SlowFall),
                ..surge
            },
            "412 in 7d; 37 expected, at least 50 usual; a slow fall over weeks; learned over 21 days",
        );
    }
}
