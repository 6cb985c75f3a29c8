//! Silences: for a time, alerts that match are kept and shown but notify nobody.
//!
//! [`check`] says whether a silence may be made; [`silenced`] whether one covers an alert now. A silence
//! that would cover everything must be confirmed, lasts at most a day and never covers a critical alert.
//! A silence never stops storing, and when it ends the alerts under it that are still open are told.

use event::{Severity, Time};
use serde::{Deserialize, Serialize};

use crate::matcher::{Labels, Matcher};

/// How long a silence of everything may last, in microseconds.
const BROAD_LIMIT: i64 = 24 * 3_600_000_000;
/// How long any silence may last, in microseconds.
const LIMIT: i64 = 366 * 24 * 3_600_000_000;
const MAX_MATCHERS: usize = 50;
const MAX_COMMENT: usize = 4_096;

/// A silence that somebody asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewSilence {
    /// What it covers: `name="value"`, `!=`, `=~`, `!~`; all must hold.
    pub matchers: Vec<String>,
    /// From when; absent for now.
    pub starts: Option<Time>,
    /// Until when.
    pub ends: Time,
    /// Why.
    pub comment: String,
    /// Said for a silence that covers everything: yes, I mean it.
    pub confirmed: bool,
}

/// A silence as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Silence {
    /// Ascending.
    pub id: u64,
    /// What it covers; all must hold.
    pub matchers: Vec<Matcher>,
    /// From when.
    pub starts: Time,
    /// Until when.
    pub ends: Time,
    /// Who made it.
    pub author: String,
    /// Why.
    pub comment: String,
    /// When it was made.
    pub created: Time,
    /// Who ended it before its time; empty for nobody.
    pub expired_by: String,
    /// Does it cover everything?
    pub broad: bool,
}

/// Why a silence cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SilenceError {
    /// A matcher cannot be read.
    #[error(transparent)]
    Matcher(#[from] crate::matcher::MatcherError),
    /// It covers nothing in particular.
    #[error("a silence has 1 to {MAX_MATCHERS} matchers")]
    Matchers,
    /// It ends before it starts, or has ended.
    #[error("a silence ends after it starts, and in the future")]
    Times,
    /// It lasts too long.
    #[error("a silence lasts at most {0} days")]
    TooLong(i64),
    /// Nobody could tell later why.
    #[error("a silence has a comment of 1 to {MAX_COMMENT} bytes")]
    Comment,
    /// It covers everything and nobody said that this is meant.
    #[error(
        "this silence covers every alert; confirm it to make it for at most 24 hours, critical alerts excepted"
    )]
    Unconfirmed,
}

/// The silence that was asked for, if it may be made. Its id is given by the store.
pub fn check(new: &NewSilence, author: &str, now: Time) -> Result<Silence, SilenceError> {
    if new.matchers.is_empty() || new.matchers.len() > MAX_MATCHERS {
        return Err(SilenceError::Matchers);
    }
    let matchers = new
        .matchers
        .iter()
        .map(|m| m.parse())
        .collect::<Result<Vec<Matcher>, _>>()?;
    let starts = new.starts.unwrap_or(now);
    if new.ends <= starts || new.ends <= now {
        return Err(SilenceError::Times);
    }
    if new.comment.trim().is_empty() || new.comment.len() > MAX_COMMENT {
        return Err(SilenceError::Comment);
    }
    let broad = matchers.iter().all(Matcher::is_broad);
    if broad && !new.confirmed {
        return Err(SilenceError::Unconfirmed);
    }
    let limit = if broad { BROAD_LIMIT } else { LIMIT };
    if new.ends.0 - starts.0.max(now.0) > limit {
        return Err(SilenceError::TooLong(limit / BROAD_LIMIT));
    }
    Ok(Silence {
        id: 0,
        matchers,
        starts,
        ends: new.ends,
        author: author.to_owned(),
        comment: new.comment.clone(),
        created: now,
        expired_by: String::new(),
        broad,
    })
}

impl Silence {
    /// Is it in force?
    pub fn is_active(&self, now: Time) -> bool {
        self.starts <= now && now < self.ends
    }

    fn covers(&self, labels: &Labels, severity: Severity) -> bool {
        !(self.broad && severity == Severity::Critical)
            && self.matchers.iter().all(|m| m.matches(labels))
    }
}

/// The first silence in force that covers an alert with these labels.
pub fn silenced<'a>(
    silences: &'a [Silence],
    labels: &Labels,
    severity: Severity,
    now: Time,
) -> Option<&'a Silence> {
    silences
        .iter()
        .find(|s| s.is_active(now) && s.covers(labels, severity))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn new(matchers: &[&str], hours: i64) -> NewSilence {
        NewSilence {
            matchers: matchers.iter().map(|m| (*m).to_owned()).collect(),
            ends: Time(hours * HOUR),
            comment: "planned work".into(),
            ..NewSilence::default()
        }
    }

    #[test]
    fn what_may_be_made() {
        let now = Time(HOUR);
        let ok = |n: &NewSilence| check(n, "ana", now);
        assert!(ok(&new(&["account=\"1\""], 30 * 24)).is_ok());
        assert_eq!(ok(&new(&[], 2)), Err(SilenceError::Matchers));
        assert_eq!(ok(&new(&["account=1"], 1)), Err(SilenceError::Times));
        assert_eq!(
            ok(&new(&["account=1"], 9_999)),
            Err(SilenceError::TooLong(366))
        );
        let blank = NewSilence {
            comment: " ".into(),
            ..new(&["account=1"], 2)
        };
        assert_eq!(ok(&blank), Err(SilenceError::Comment));
    }

    #[test]
    fn a_silence_of_everything_is_short_confirmed_and_not_for_critical() {
        let now = Time(0);
        for matcher in ["rule_id=~\".+\"", "rule_id=~\".*\"", "account!=\"nobody\""] {
            let asked = new(&[matcher], 24);
            assert_eq!(
                check(&asked, "ana", now),
                Err(SilenceError::Unconfirmed),
                "{matcher}"
            );
            let confirmed = NewSilence {
                confirmed: true,
                ..asked
            };
            let silence = check(&confirmed, "ana", now).unwrap();
            let labels = Labels::from_pairs([("rule_id", "r"), ("account", "1")]);
            let list = [silence];
            assert!(silenced(&list, &labels, Severity::High, Time(HOUR)).is_some());
            assert!(silenced(&list, &labels, Severity::Critical, Time(HOUR)).is_none());
            let long = NewSilence {
                ends: Time(25 * HOUR),
                ..confirmed
            };
            assert_eq!(check(&long, "ana", now), Err(SilenceError::TooLong(1)));
        }
    }

    #[test]
    fn in_force_from_start_to_end() {
        let asked = NewSilence {
            starts: Some(Time(HOUR)),
            ..new(&["account=\"1\"", "region=~\"eu-.*\""], 2)
        };
        let list = [check(&asked, "ana", Time(0)).unwrap()];
        let labels = Labels::from_pairs([("account", "1"), ("region", "eu-west-1")]);
        let other = Labels::from_pairs([("account", "1"), ("region", "us-east-1")]);
        for (at, expected) in [
            (HOUR - 1, false),
            (HOUR, true),
            (2 * HOUR - 1, true),
            (2 * HOUR, false),
        ] {
            assert_eq!(
                silenced(&list, &labels, Severity::Low, Time(at)).is_some(),
                expected,
                "{at}"
            );
            assert!(silenced(&list, &other, Severity::Low, Time(at)).is_none());
        }
    }
}
