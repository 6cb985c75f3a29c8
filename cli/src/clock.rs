//! The one place that reads the real clock, and times as people write them on the command line.

use event::Time;

/// The time of day.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub(crate) fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time(since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
}

/// The clock that the program gives to its parts.
pub(crate) fn clock() -> event::Clock {
    std::sync::Arc::new(now)
}

/// A time as written on the command line: RFC 3339, a date, `now`, or an age such as `-7d` or `now-12h`.
pub(crate) fn parse(text: &str, now: Time) -> anyhow::Result<Time> {
    let age = text.strip_prefix("now").unwrap_or(text);
    if age.is_empty() {
        return Ok(now);
    }
    if let Some(age) = age.strip_prefix('-') {
        let digits = age.len().checked_sub(1).and_then(|end| age.get(..end));
        let number: Option<i64> = digits.and_then(|n| n.parse().ok());
        let unit = match age.as_bytes().last() {
            Some(b's') => Some(1),
            Some(b'm') => Some(60),
            Some(b'h') => Some(3_600),
            Some(b'd') => Some(86_400),
            Some(b'w') => Some(604_800),
            _ => None,
        };
        if let (Some(number), Some(unit)) = (number, unit) {
            return Ok(now.plus(-number.saturating_mul(unit).saturating_mul(1_000_000)));
        }
    }
    Time::parse(text).map_err(|e| {
        anyhow::anyhow!(
            "{e}; write RFC 3339 such as 2026-03-02T08:00:00Z, `now`, or an age such as -7d or -12h"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_command_line() {
        let now = Time::parse("2026-03-02T00:00:00Z").unwrap();
        for (text, expected) in [
            ("now", "2026-03-02T00:00:00Z"),
            ("-7d", "2026-02-23T00:00:00Z"),
            ("now-90m", "2026-03-01T22:30:00Z"),
            ("2026-01-01", "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse(text, now).unwrap().to_string(), expected);
        }
        for text in ["", "-", "-7y", "yesterday", "-d", "-é"] {
            assert!(parse(text, now).is_err() || text.is_empty(), "{text}");
        }
    }
}
