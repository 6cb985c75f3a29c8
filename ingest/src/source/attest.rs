//! The digests of a bucket, fetched and verified: what CloudTrail vouches for, and what is not as it should be.
//!
//! [`Store`] shows a bucket to [`digest`] as the folder that it is: digests are fetched with their
//! signatures, and a log file that the manifest knows is not fetched again, since its hash was taken when it was read.
//! [`public_keys`] asks CloudTrail for the keys, in the region of each digest. [`violations`] makes events of what is
//! wrong, each with an id and a time of its own, so that saying the same again every hour changes nothing; a shipped
//! rule turns them into alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use aws_config::{Region, SdkConfig};
use aws_sdk_cloudtrail::primitives::DateTime;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use event::source::Attested;
use event::{Event, Id, Origin, Outcome, Str, Time, format_compact};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::notification::Object;
use super::s3::{S3, Trouble, name};
use crate::aws::{self, Fault};
use crate::digest::{self, Coverage, Job, Kind, PublicKeys, Report, Violation};

/// What is proven, as it is told to those who show events.
pub fn coverage(bucket: &str, prefix: &str, coverage: Vec<Coverage>) -> Vec<Attested> {
    let named = |names: Vec<String>| {
        let of = |name: String| {
            let time = digest::time_of(&name).unwrap_or(Time::MAX);
            (Str::from(name), time)
        };
        names.into_iter().map(of).collect()
    };
    let of = |covered: Coverage| Attested {
        bucket: bucket.into(),
        prefix: prefix.into(),
        account: covered.account.into(),
        region: covered.region.into(),
        spans: covered.spans,
        failed: named(covered.failed),
        open: named(covered.open),
    };
    coverage.into_iter().map(of).collect()
}

/// A digest is signed with a key that was valid within two hours of its end.
const KEY_MARGIN: i64 = 2 * 3_600;

/// What is known of an object without fetching it: its hash, if it is what was read.
pub type Known<'k> = dyn Fn(&Object) -> io::Result<Option<String>> + Sync + 'k;

/// A bucket, or a part of it, as `digest` looks at it.
pub struct Store<'s> {
    /// The way to it.
    pub s3: &'s S3,
    /// Its name.
    pub bucket: Str,
    /// What is in it, with the entity tag of each.
    pub names: &'s BTreeMap<String, Option<Str>>,
    /// What is known without fetching.
    pub known: &'s Known<'s>,
    /// Where asking happens; whoever verifies does so on other threads.
    pub handle: Handle,
}

impl Store<'_> {
    fn object(&self, name: &str) -> Object {
        Object {
            bucket: self.bucket.clone(),
            key: name.into(),
            region: None,
            etag: self.names.get(name).cloned().flatten(),
        }
    }
}

impl digest::Objects for Store<'_> {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names.keys().cloned().collect())
    }

    fn get(&self, name: &str) -> io::Result<Option<digest::Object<'_>>> {
        let object = self.object(name);
        match self.handle.block_on(self.s3.fetch(&object, None)) {
            Ok(Some(fetched)) => Ok(Some(digest::Object {
                metadata: fetched.metadata,
                content: fetched.content.open()?,
            })),
            Ok(None)
            | Err(Trouble::Fetch {
                fault: Fault::NoObject,
                ..
            }) => Ok(None),
            Err(trouble) => Err(io::Error::other(trouble)),
        }
    }

    fn sha256(&self, name: &str) -> io::Result<Option<String>> {
        // What is not listed may be gone, whatever is known of it.
        match self.names.contains_key(name) {
            true => (self.known)(&self.object(name)),
            false => Ok(None),
        }
    }

    fn locate(&self, bucket: &str, key: &str) -> Option<String> {
        (bucket == self.bucket).then(|| key.to_owned())
    }
}

impl Store<'_> {
    /// Verifies what is in it, from a time on. Blocks: for a thread that may.
    pub fn verify(
        &self,
        keys: &PublicKeys,
        (from, to): (Option<Time>, Option<Time>),
        now: Time,
        seen: &(dyn Fn() + Sync),
    ) -> Result<Report, digest::VerifyError> {
        digest::verify(&Job {
            from,
            to,
            workers: 4,
            seen,
            ..Job::new(self, keys, now)
        })
    }
}

/// The keys with which CloudTrail signed in these regions and this time, as `list-public-keys` prints them, by region.
pub async fn public_keys(
    config: &SdkConfig,
    regions: &BTreeSet<String>,
    from: Time,
    to: Time,
) -> Result<BTreeMap<String, Value>, Trouble> {
    let at = |time: Time, margin: i64| DateTime::from_secs(time.millis() / 1_000 + margin);
    let mut all = BTreeMap::new();
    for region in regions {
        let of_region = aws_sdk_cloudtrail::config::Builder::from(config)
            .region(Region::new(region.clone()))
            .build();
        let client = aws_sdk_cloudtrail::Client::from_conf(of_region);
        let (mut keys, mut page) = (Vec::new(), None);
        loop {
            let answer = client
                .list_public_keys()
                .start_time(at(from, -KEY_MARGIN))
                .end_time(at(to, KEY_MARGIN))
                .set_next_token(page)
                .send()
                .await
                .map_err(|error| Trouble::Fetch {
                    object: format!("public keys of CloudTrail in {region}"),
                    fault: Fault::of(&error),
                    message: aws::said(&error),
                })?;
            keys.extend(answer.public_key_list().iter().map(|key| {
                let value = key.value().map(|v| BASE64.encode(v.as_ref()));
                json!({"Value": value.unwrap_or_default(), "Fingerprint": key.fingerprint().unwrap_or_default()})
            }));
            page = answer.next_token;
            if page.is_none() {
                break;
            }
        }
        all.insert(region.clone(), json!({"PublicKeyList": keys}));
    }
    Ok(all)
}

/// An event for each violation.
pub fn violations(bucket: &str, report: &Report, now: Time) -> Vec<Event> {
    let events = report.violations.iter();
    events
        .map(|violation| event(bucket, violation, now))
        .collect()
}

fn event(bucket: &str, violation: &Violation, now: Time) -> Event {
    let Violation {
        chain,
        kind,
        object,
        detail,
    } = violation;
    let place = match object.starts_with("s3://") {
        true => object.as_str().into(),
        false => name(bucket, object),
    };
    let raw = json!({
        "integrityViolation": kind.as_str(),
        "meaning": kind.meaning(),
        "advice": kind.advice(),
        "object": place,
        "account": chain.account,
        "region": chain.region,
        "trail": chain.trail,
        "detail": detail,
    });
    // That there are no digests is about the account and region: which file is the first changes from look to look.
    let about = match kind {
        Kind::NoDigests => format_compact!("{bucket} {chain}"),
        _ => place.clone(),
    };
    let id = Id::of("integrity", &[kind.as_str().as_bytes(), about.as_bytes()]);
    Event {
        id,
        source_id: Str::from(id.to_string()),
        source: "trailwarden".into(),
        // The same at every look: what the name says, else when it was first seen.
        time: digest::time_of(object).unwrap_or(now),
        ingest_time: now,
        account: chain.account.as_str().into(),
        region: chain.region.as_str().into(),
        category: "Integrity".into(),
        service: "cloudtrail".into(),
        action: "IntegrityViolation".into(),
        outcome: Outcome::Failure,
        error_code: kind.as_str().into(),
        error_message: detail.as_str().into(),
        actor: "trailwarden".into(),
        resources: vec![place.clone()],
        origin: Origin {
            object: place,
            ..Origin::default()
        },
        raw: Bytes::from(raw.to_string()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Chain;

    #[test]
    fn the_same_violation_is_the_same_event() {
        let of = |kind, region: &str, object: &str, detail: &str| {
            let violation = Violation {
                chain: Chain {
                    account: "111122223333".into(),
                    region: region.into(),
                    trail: String::new(),
                    home_region: String::new(),
                    backfill: false,
                },
                kind,
                object: object.into(),
                detail: detail.into(),
            };
            event("b", &violation, Time::default()).id
        };
        let changed = of(Kind::LogChanged, "r", "x", "its SHA-256 is another one");
        assert_eq!(changed, of(Kind::LogChanged, "r", "x", "something else"));
        assert_ne!(changed, of(Kind::LogChanged, "r", "y", ""));
        assert_ne!(changed, of(Kind::LogMissing, "r", "x", ""));
        // Which file is the first in the time that is looked at changes, and it is the same account and region.
        let none = of(Kind::NoDigests, "r", "x", "3 log files");
        assert_eq!(none, of(Kind::NoDigests, "r", "y", "4 log files"));
        assert_ne!(none, of(Kind::NoDigests, "s", "x", "3 log files"));
    }
}
