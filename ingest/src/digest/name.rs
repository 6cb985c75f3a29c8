//! What the name of an object says: is it a digest or a log file, whose, and from when?
//!
//! CloudTrail writes account, region and time into the file name, and again into the folders. The file name is asked
//! first, since people copy folders to all kinds of places; the folders decide where the file name says nothing, so
//! that a digest or a log file under a strange name is still looked at. Everything else in a bucket is no concern.
//!
//! ```text
//! [prefix/]AWSLogs/[o-…/]ACCOUNT/CloudTrail/REGION/2026/03/02/ACCOUNT_CloudTrail_REGION_20260302T0905Z_UNIQUE.json.gz
//! [prefix/]AWSLogs/[o-…/]ACCOUNT/CloudTrail-Digest/REGION/2026/03/02/
//!     ACCOUNT_CloudTrail-Digest_REGION_TRAIL_HOMEREGION_20260302T100000Z[_backfill].json.gz
//! ```

use event::Time;
use serde::Serialize;

/// Digests that follow one another: those of one trail for one account and region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Chain {
    /// The account whose calls are in the log files.
    pub account: String,
    /// The region of the calls.
    pub region: String,
    /// The name of the trail; empty where no digest tells it.
    pub trail: String,
    /// The region in which the trail was made.
    pub home_region: String,
    /// Is it the chain of digests that CloudTrail adds for log files it delivered late?
    pub backfill: bool,
}

impl Chain {
    /// Where no digest tells the trail.
    pub(super) fn unnamed(account: &str, region: &str) -> Chain {
        Chain {
            account: account.to_owned(),
            region: region.to_owned(),
            trail: String::new(),
            home_region: String::new(),
            backfill: false,
        }
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.account, self.region)?;
        if !self.trail.is_empty() {
            write!(f, " {}", self.trail)?;
        }
        f.write_str(if self.backfill { " (backfill)" } else { "" })
    }
}

/// An object that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// The chain that it belongs to; of a log file only account and region are known.
    pub(super) chain: Chain,
    /// Is it a digest and not a log file?
    pub(super) digest: bool,
    /// When a log file was delivered, or when a digest ends.
    pub(super) time: Option<Time>,
}

/// What the name of an object says; `None` for an object that is neither digest nor log file.
pub(super) fn classify(name: &str) -> Option<Named> {
    let file = name.rsplit('/').next().unwrap_or(name);
    if file.is_empty() {
        // S3 consoles write empty objects that stand for folders.
        return None;
    }
    digest(file)
        .or_else(|| log(file))
        .or_else(|| by_folder(name))
}

fn digest(file: &str) -> Option<Named> {
    let (account, rest) = file.split_once("_CloudTrail-Digest_")?;
    let rest = rest.strip_suffix(".json.gz").unwrap_or(rest);
    let (rest, backfill) = match rest.strip_suffix("_backfill") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let (rest, time) = rest.rsplit_once('_')?;
    // Names of trails may have underscores, those of regions have none.
    let (rest, home_region) = rest.rsplit_once('_')?;
    let (region, trail) = rest.split_once('_')?;
    Some(Named {
        chain: Chain {
            trail: trail.to_owned(),
            home_region: home_region.to_owned(),
            backfill,
            ..Chain::unnamed(account, region)
        },
        digest: true,
        time: compact_time(time),
    })
}

fn log(file: &str) -> Option<Named> {
    let (account, rest) = file.split_once("_CloudTrail_")?;
    let mut parts = rest.split('_');
    let (region, time) = (parts.next()?, parts.next()?);
    Some(Named {
        chain: Chain::unnamed(account, region),
        digest: false,
        time: compact_time(time),
    })
}

fn by_folder(name: &str) -> Option<Named> {
    let parts: Vec<&str> = name.split('/').collect();
    let folders = &parts[..parts.len() - 1];
    let at = folders
        .iter()
        .rposition(|f| matches!(*f, "CloudTrail" | "CloudTrail-Digest"))?;
    let account = at.checked_sub(1).map_or("", |i| folders[i]);
    let region = folders.get(at + 1).copied().unwrap_or_default();
    Some(Named {
        chain: Chain::unnamed(account, region),
        digest: folders[at] == "CloudTrail-Digest",
        time: None,
    })
}

/// `20260302T0905Z` or `20260302T090500Z`.
fn compact_time(text: &str) -> Option<Time> {
    let digits = text.strip_suffix('Z')?;
    if !digits.is_ascii() || !matches!(digits.len(), 13 | 15) {
        return None;
    }
    let seconds = if digits.len() == 15 {
        &digits[13..]
    } else {
        "00"
    };
    let (date, clock) = (&digits[..8], &digits[9..13]);
    let text = format!(
        "{}-{}-{}{}{}:{}:{seconds}Z",
        &date[..4],
        &date[4..6],
        &date[6..],
        &digits[8..9],
        &clock[..2],
        &clock[2..]
    );
    Time::parse(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Option<(bool, &str, Option<&str>)>) {
        let found = classify(name);
        let seen = found
            .as_ref()
            .map(|n| (n.digest, n.chain.to_string(), n.time.map(|t| t.to_string())));
        let expected = expected.map(|(d, c, t)| (d, c.to_owned(), t.map(str::to_owned)));
        assert_eq!(seen, expected, "{name}");
    }

    #[test]
    fn names_of_cloudtrail() {
        check(
            "p/q/AWSLogs/o-abc/111122223333/CloudTrail/eu-west-1/2026/03/02/111122223333_CloudTrail_eu-west-1_20260302T0905Z_Ab1.json.gz",
            Some((
                false,
                "111122223333 eu-west-1",
                Some("2026-03-02T09:05:00Z"),
            )),
        );
        check(
            "111122223333_CloudTrail-Digest_eu-west-1_my_trail_us-east-1_20260302T100000Z.json.gz",
            Some((
                true,
                "111122223333 eu-west-1 my_trail",
                Some("2026-03-02T10:00:00Z"),
            )),
        );
        check(
            "x/111122223333_CloudTrail-Digest_eu-west-1_t_us-east-1_20260302T100000Z_backfill.json.gz",
            Some((
                true,
                "111122223333 eu-west-1 t (backfill)",
                Some("2026-03-02T10:00:00Z"),
            )),
        );
    }

    #[test]
    fn strange_names_in_the_folders_of_cloudtrail() {
        check(
            "AWSLogs/111122223333/CloudTrail/eu-west-1/2026/03/02/evil.json",
            Some((false, "111122223333 eu-west-1", None)),
        );
        check(
            "111122223333/CloudTrail-Digest/eu-west-1/renamed.json.gz",
            Some((true, "111122223333 eu-west-1", None)),
        );
        check("CloudTrail/x", Some((false, " ", None)));
        check(
            "1_CloudTrail_r_20269902T0905Z_x",
            Some((false, "1 r", None)),
        );
        check(
            "1_CloudTrail_r_2026é902T0905Z_x",
            Some((false, "1 r", None)),
        );
    }

    #[test]
    fn other_objects() {
        check("AWSLogs/111122223333/Config/eu-west-1/x.json.gz", None);
        check("AWSLogs/111122223333/CloudTrail/", None);
        check("CloudTrail", None);
        check("public_keys.json", None);
        check("", None);
    }
}
