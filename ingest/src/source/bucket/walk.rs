//! What a bucket holds, page by page.
//!
//! [`Walk`] lists a bucket below a prefix. Of layouts with a folder for each year, month and day, as CloudTrail's, only the
//! folders of the time asked for are listed, and a margin of days beside them, since what lands late may stand in the
//! folder of an earlier day. Other services' folders beside those of CloudTrail are left out. Nothing is compared or
//! fetched here.

use std::collections::VecDeque;

use event::Time;

use crate::source::notification::Object;
use crate::source::s3::{S3, Trouble};

/// In seconds.
const DAY: i64 = 86_400;

/// What a round is to do.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// Objects written at or after this time.
    pub from: Time,
    /// And before this one.
    pub to: Time,
    /// How many days what was written then may be away from the day that its folder names.
    pub folder_days: u16,
    /// Read what is missing, or only tell of it.
    pub fetch: bool,
}

/// An object of a listing.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Which one.
    pub object: Object,
    /// Its size as it is stored, in bytes.
    pub size: u64,
    /// When it was written.
    pub written: Time,
}

/// A listing of a bucket, page by page, without the folders that cannot hold anything of the time.
pub struct Walk<'w> {
    s3: &'w S3,
    bucket: &'w str,
    range: Range,
    /// Still to be listed.
    folders: VecDeque<String>,
    /// Where the next page of the first of them begins.
    page: Option<String>,
}

impl<'w> Walk<'w> {
    /// Of what is in a bucket below a prefix.
    pub fn new(s3: &'w S3, bucket: &'w str, prefix: &str, range: Range) -> Walk<'w> {
        Walk {
            s3,
            bucket,
            range,
            folders: VecDeque::from([prefix.to_owned()]),
            page: None,
        }
    }

    /// The next page, whenever its objects were written; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<Listed>>, Trouble> {
        let Some(folder) = self.folders.front() else {
            return Ok(None);
        };
        // Below a day there is nothing to leave out any more.
        let is_day = date_of(folder).is_some_and(|date| date.len() == 3);
        let answer = self
            .s3
            .list(self.bucket, folder, self.page.as_deref(), !is_day)
            .await?;
        let below = answer.common_prefixes().iter().filter_map(|p| p.prefix());
        let wanted = below
            .filter(|p| is_wanted(p, self.range))
            .map(str::to_owned);
        self.folders.extend(wanted);
        let objects = answer.contents().iter();
        let listed = objects.filter_map(|o| listed(self.bucket, o)).collect();
        self.page = answer.next_continuation_token;
        if self.page.is_none() {
            self.folders.pop_front();
        }
        Ok(Some(listed))
    }
}

fn listed(bucket: &str, object: &aws_sdk_s3::types::Object) -> Option<Listed> {
    let (key, written) = (object.key()?, object.last_modified()?);
    let size = object.size().and_then(|n| u64::try_from(n).ok());
    // A folder made by hand is an object without content.
    (!key.ends_with('/')).then(|| Listed {
        object: Object {
            bucket: bucket.into(),
            key: key.into(),
            region: None,
            etag: object.e_tag().map(|e| e.trim_matches('"').into()),
        },
        size: size.unwrap_or(0),
        written: Time::from_seconds(written.secs()),
    })
}

/// The date at the end of a folder's name: year, month and day, or as many of them as there are.
fn date_of(folder: &str) -> Option<Vec<i64>> {
    let parts: Vec<&str> = folder.trim_end_matches('/').split('/').collect();
    let number = |part: &&str, digits: usize| {
        let fits = part.len() == digits && part.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| part.parse::<i64>().ok()).flatten()
    };
    // The last year that is followed by nothing but a month and a day.
    (1..=3.min(parts.len())).rev().find_map(|n| {
        let tail = &parts[parts.len() - n..];
        let year = number(&tail[0], 4).filter(|y| (1990..2200).contains(y))?;
        let rest = tail[1..].iter().map(|part| number(part, 2));
        std::iter::once(Some(year)).chain(rest).collect()
    })
}

/// Can a folder hold anything of this time?
fn is_wanted(folder: &str, range: Range) -> bool {
    if let Some((_, below)) = folder.split_once("AWSLogs/") {
        let mut parts = below.trim_end_matches('/').split('/');
        let account = parts.by_ref().find(|p| !p.starts_with("o-"));
        let of_account =
            account.is_some_and(|a| a.len() == 12 && a.bytes().all(|b| b.is_ascii_digit()));
        if of_account && parts.next().is_some_and(|s| !s.starts_with("CloudTrail")) {
            return false;
        }
    }
    let Some(date) = date_of(folder) else {
        return true;
    };
    let day = |y, m, d| {
        let date = chrono_day(y, m, d)?;
        Some(Time::from_seconds(date * DAY))
    };
    let (first, last) = match date[..] {
        [y] => (day(y, 1, 1), day(y + 1, 1, 1)),
        [y, m] => (
            day(y, m, 1),
            if m == 12 {
                day(y + 1, 1, 1)
            } else {
                day(y, m + 1, 1)
            },
        ),
        [y, m, d, ..] => (day(y, m, d), day(y, m, d).map(|t| t.plus(DAY * 1_000_000))),
        [] => (None, None),
    };
    let (Some(first), Some(last)) = (first, last) else {
        return true;
    };
    let margin = i64::from(range.folder_days) * DAY * 1_000_000;
    last.0.saturating_add(margin) > range.from.0 && first.0.saturating_sub(margin) < range.to.0
}

/// Days since 1970.
fn chrono_day(year: i64, month: i64, day: i64) -> Option<i64> {
    let text = format!("{year:04}-{month:02}-{day:02}T00:00:00Z");
    Some(Time::parse(&text).ok()?.millis() / 86_400_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_name_dates() {
        let check = |folder: &str, expected: Option<&[i64]>| {
            assert_eq!(date_of(folder).as_deref(), expected, "{folder}");
        };
        check("AWSLogs/1/CloudTrail/eu-west-1/2026/", Some(&[2026]));
        check("AWSLogs/1/CloudTrail/eu-west-1/2026/03/", Some(&[2026, 3]));
        check("x/2026/03/02/", Some(&[2026, 3, 2]));
        check("2026/03/02/", Some(&[2026, 3, 2]));
        check("AWSLogs/123456789012/", None);
        check("x/2026/03/02/17/", None);
        check("", None);
        check("x/0042/", None);
    }

    #[test]
    fn only_what_can_hold_the_time_is_listed() {
        let time = |t: &str| Time::parse(t).unwrap();
        let range = Range {
            from: time("2026-03-02T06:00:00Z"),
            to: time("2026-03-04T00:00:00Z"),
            folder_days: 1,
            fetch: false,
        };
        let check = |folder: &str, expected: bool| {
            assert_eq!(is_wanted(folder, range), expected, "{folder}");
        };
        let base = "p/AWSLogs/o-abc/123456789012/CloudTrail/eu-west-1";
        check("p/AWSLogs/", true);
        check("p/AWSLogs/o-abc/", true);
        check("p/AWSLogs/o-abc/123456789012/", true);
        check("p/AWSLogs/123456789012/CloudTrail-Digest/", true);
        check("p/AWSLogs/123456789012/Config/", false);
        check("p/AWSLogs/o-abc/123456789012/elasticloadbalancing/", false);
        check(&format!("{base}/"), true);
        check(&format!("{base}/2026/"), true);
        check(&format!("{base}/2025/"), false);
        check(&format!("{base}/2026/03/"), true);
        check(&format!("{base}/2026/02/"), false);
        check(&format!("{base}/2026/01/"), false);
        check(&format!("{base}/2026/02/28/"), false);
        check(&format!("{base}/2026/03/01/"), true);
        check(&format!("{base}/2026/03/04/"), true);
        check(&format!("{base}/2026/03/06/"), false);
    }
}
