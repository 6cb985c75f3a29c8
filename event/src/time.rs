//! A point in time: microseconds since 1970 in UTC.
//!
//! Sources write times in RFC 3339 with and without fraction and zone, and as epoch numbers in seconds
//! to nanoseconds; [`Time::parse`] and [`Time::from_epoch`] read them all. Time is always an argument:
//! nothing in the engine asks a clock.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub i64);

/// A text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time: `{0}`")]
pub struct TimeError(pub String);

impl Time {
    /// The earliest time that can be shown, 0001-01-01.
    pub const MIN: Time = Time(-62_135_596_800_000_000);
    /// The latest time that can be shown, the end of year 9999.
    pub const MAX: Time = Time(253_402_300_799_999_999);

    /// Whole seconds since 1970.
    pub fn from_seconds(seconds: i64) -> Time {
        Time(seconds.saturating_mul(1_000_000)).clamp(Time::MIN, Time::MAX)
    }

    /// Milliseconds since 1970.
    pub fn from_millis(millis: i64) -> Time {
        Time(millis.saturating_mul(1_000)).clamp(Time::MIN, Time::MAX)
    }

    /// Milliseconds since 1970, rounded down.
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// An epoch number whose unit is told by its size: seconds, milli-, micro- or nanoseconds.
    /// `None` where it is before 1980 or after 2200 in every unit, so that `0` and `1` are no times.
    pub fn from_epoch(number: f64) -> Option<Time> {
        const FROM: f64 = 315_532_800.0;
        const TO: f64 = 7_258_118_400.0;
        [1.0, 1e3, 1e6, 1e9].into_iter().find_map(|unit| {
            let seconds = number / unit;
            (FROM..TO)
                .contains(&seconds)
                .then(|| Time((seconds * 1e6).round() as i64))
        })
    }

    /// RFC 3339, also with a space for the `T` and without a zone (then UTC), as Sysmon writes it.
    pub fn parse(text: &str) -> Result<Time, TimeError> {
        parse(text.as_bytes()).ok_or_else(|| TimeError(text.chars().take(64).collect()))
    }

    /// This time moved by `micros`, kept within what can be shown.
    pub fn plus(self, micros: i64) -> Time {
        Time(self.0.saturating_add(micros)).clamp(Time::MIN, Time::MAX)
    }

    /// As a chrono time, for calendars and formats.
    pub fn to_chrono(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.clamp(Time::MIN, Time::MAX).0).unwrap_or_default()
    }

    /// RFC 3339 in UTC with as many digits of a second as are needed: none, three or six. Gives the text in `buffer`.
    pub fn encode(self, buffer: &mut [u8; 27]) -> &str {
        let micros = self.clamp(Time::MIN, Time::MAX).0;
        let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        let mut put = |at: usize, width: usize, mut value: i64| {
            for i in (at..at + width).rev() {
                buffer[i] = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, second / 3_600);
        put(14, 2, second / 60 % 60);
        put(17, 2, second % 60);
        let length = match fraction {
            0 => 19,
            f if f % 1_000 == 0 => {
                put(20, 3, f / 1_000);
                23
            }
            f => {
                put(20, 6, f);
                26
            }
        };
        for (at, byte) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
            buffer[at] = byte;
        }
        if length > 19 {
            buffer[19] = b'.';
        }
        buffer[length] = b'Z';
        std::str::from_utf8(&buffer[..=length]).expect("digits and signs are ASCII")
    }
}

/// Year, month and day of a day number since 1970 (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (
        yoe + era * 400 + i64::from(month <= 2),
        month,
        doy - (153 * mp + 2) / 5 + 1,
    )
}

/// The inverse of [`civil`] (Howard Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

fn parse(b: &[u8]) -> Option<Time> {
    let number = |from: usize, width: usize| -> Option<i64> {
        b.get(from..from + width)?.iter().try_fold(0, |n, c| {
            c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0'))
        })
    };
    let sign =
        |at: usize, options: &[u8]| b.get(at).is_some_and(|c| options.contains(c)).then_some(());
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    sign(4, b"-")?;
    sign(7, b"-")?;
    if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    let midnight = days(year, month, day) * 86_400_000_000;
    if b.len() == 10 {
        return Some(Time(midnight));
    }
    sign(10, b"Tt ")?;
    sign(13, b":")?;
    sign(16, b":")?;
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut fraction = 0;
    if b.get(at).is_some_and(|c| *c == b'.' || *c == b',') {
        at += 1;
        let digits = b[at..].iter().take_while(|c| c.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        fraction = number(at, digits.min(6))? * 10_i64.pow(6 - digits.min(6) as u32);
        at += digits;
    }
    let zone = match b.get(at) {
        None => 0,
        Some(b'Z' | b'z') if b.len() == at + 1 => 0,
        Some(s @ (b'+' | b'-')) => {
            let colon = usize::from(b.get(at + 3) == Some(&b':'));
            let (h, m) = (number(at + 1, 2)?, number(at + 3 + colon, 2)?);
            if b.len() != at + 5 + colon || h > 23 || m > 59 {
                return None;
            }
            (h * 60 + m) * if *s == b'-' { -1 } else { 1 }
        }
        Some(_) => return None,
    };
    // A leap second is counted as the last one of its minute.
    let seconds = hour * 3_600 + minute * 60 + second.min(59) - zone * 60;
    let time = Time(midnight + seconds * 1_000_000 + fraction);
    (Time::MIN..=Time::MAX).contains(&time).then_some(time)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.encode(&mut [0; 27]))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.encode(&mut [0; 27]))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Time::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(
            Time::parse(text).map(|t| t.to_string()),
            Ok(expected.to_owned()),
            "{text}"
        );
    }

    #[test]
    fn what_sources_write() {
        check("2023-07-10T11:40:00Z", "2023-07-10T11:40:00Z");
        check("2025-10-25 17:38:32.006", "2025-10-25T17:38:32.006Z");
        check("2024-02-29T23:59:60Z", "2024-02-29T23:59:59Z");
        check(
            "2024-02-29T01:00:00.123456789+02:00",
            "2024-02-28T23:00:00.123456Z",
        );
        check("2024-02-29", "2024-02-29T00:00:00Z");
        check("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z");
        check("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.500Z");
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "",
            "2023",
            "2023-13-01",
            "2023-02-29",
            "2023-07-10T11:40",
            "2023-07-10T11:40:00ZZ",
            "2023-07-10T25:00:00Z",
            "2023-07-10T11:40:00.Z",
            "0000-01-01",
            "2023-07-10T11:40:00+1",
            "éééééééééé",
        ] {
            assert!(Time::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn agrees_with_chrono() {
        for seconds in
            (Time::MIN.0 / 1_000_000..Time::MAX.0 / 1_000_000).step_by(86_400 * 97 + 12_345)
        {
            let time = Time::from_seconds(seconds);
            assert_eq!(
                time.to_string(),
                time.to_chrono().format("%Y-%m-%dT%H:%M:%SZ").to_string()
            );
            assert_eq!(Time::parse(&time.to_string()), Ok(time));
        }
    }

    #[test]
    fn epoch_units() {
        let expected = Some(Time::from_seconds(1_700_000_000));
        for number in [1.7e9, 1.7e12, 1.7e15, 1.7e18] {
            assert_eq!(Time::from_epoch(number), expected);
        }
        assert_eq!(Time::from_epoch(0.0), None);
        assert_eq!(Time::from_epoch(f64::NAN), None);
        assert_eq!(Time::from_epoch(-1e300), None);
    }
}
