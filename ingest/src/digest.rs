//! CloudTrail's digests: proof that log files are what CloudTrail delivered, and that none is missing or added.
//!
//! Every hour CloudTrail writes a signed digest for each account, region and trail: which log files it delivered, with
//! their hashes, and what the digest before was. [`verify`] reads all of them from any [`Objects`], checks signatures
//! with given [`PublicKeys`], walks each chain, hashes every log file and looks for log files that no digest lists. The
//! [`Report`] says what is proven, and names what is not by stable words ([`Kind`]).
//!
//! The way of the data: `name` tells digests and log files by their names and sorts them by account and region,
//! `scope` reads and checks those of one account and region, `document` and `content` say what a digest is and what is
//! hashed, `chain` holds digests against each other, `folder` is how objects lie on disk. Nothing here decides what an
//! event is, asks AWS for anything, or changes an object. A chain cannot prove that it has not lost its newest digests:
//! for that it is held against the other chains, or against the end of [`Job::to`].

mod chain;
mod content;
mod document;
mod folder;
mod keys;
mod kind;
mod name;
mod report;
mod scope;
#[cfg(test)]
mod tests;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use event::Time;
use serde::Deserialize;

use crate::decode::Limits;

pub use folder::Folder;
pub use keys::{KeysError, PublicKeys};
pub use kind::Kind;
pub use name::Chain;
pub use report::{ChainReport, Coverage, LogCounts, Report, Violation};

use scope::Scope;

/// A digest comes at most so long after the log files that it lists.
const DELIVERY: i64 = 2 * 3_600 * 1_000_000;

/// Uncompressed digests are a few hundred bytes a log file.
const DIGEST_BYTES: u64 = 64 << 20;

/// Where objects lie. Names are those of the store: keys of a bucket, or paths below a folder.
pub trait Objects: Sync {
    /// The names of all objects, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// An object; `None` if it is not there.
    fn get(&self, name: &str) -> io::Result<Option<Object<'_>>>;

    /// The SHA-256 of an object's uncompressed content in hexadecimal, where it is known without reading the object.
    fn sha256(&self, _name: &str) -> io::Result<Option<String>> {
        Ok(None)
    }

    /// The name here of what CloudTrail wrote to this bucket under this key, whether or not it is there; `None` if it
    /// cannot be here.
    fn locate(&self, bucket: &str, key: &str) -> Option<String>;
}

/// An object that is open.
pub struct Object<'o> {
    /// Its bytes as they are stored.
    pub content: Box<dyn Read + 'o>,
    /// What S3 keeps beside a digest; of log files it is not looked at.
    pub metadata: Metadata,
}

/// The S3 user metadata of a digest, without `x-amz-meta-`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Metadata {
    /// The signature in hexadecimal.
    pub signature: Option<String>,
    /// `SHA256withRSA`.
    #[serde(rename = "signature-algorithm")]
    pub algorithm: Option<String>,
}

/// What to verify, and with what.
pub struct Job<'a> {
    /// Where digests and log files lie.
    pub objects: &'a dyn Objects,
    /// What signatures are checked with.
    pub keys: &'a PublicKeys,
    /// Log files delivered before are not looked at, and digests that end before need not be there.
    pub from: Option<Time>,
    /// Log files delivered from then on are not looked at, and every chain must reach it.
    pub to: Option<Time>,
    /// The time of day: what is newer than two hours may be on its way.
    pub now: Time,
    /// [`Limits::object_bytes`] bounds log files.
    pub limits: Limits,
    /// How many objects are read at a time.
    pub workers: usize,
    /// Called whenever an object is done with.
    pub seen: &'a (dyn Fn() + Sync),
}

/// Why a verification came to no end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The store does not say what is in it.
    #[error("cannot list the objects")]
    List(#[source] io::Error),
    /// An object is there and cannot be read.
    #[error("cannot read `{object}`")]
    Read {
        /// Its name.
        object: String,
        /// The store's answer.
        source: io::Error,
    },
}

impl VerifyError {
    fn read(object: &str, source: io::Error) -> VerifyError {
        VerifyError::Read {
            object: object.to_owned(),
            source,
        }
    }
}

impl<'a> Job<'a> {
    /// Everything in a store, by one worker.
    pub fn new(objects: &'a dyn Objects, keys: &'a PublicKeys, now: Time) -> Job<'a> {
        Job {
            objects,
            keys,
            from: None,
            to: None,
            now,
            limits: Limits::of_files(),
            workers: 1,
            seen: &|| {},
        }
    }

    fn get(&self, name: &str) -> Result<Option<Object<'a>>, VerifyError> {
        let got = self.objects.get(name);
        got.map_err(|source| VerifyError::read(name, source))
    }

    /// Is a digest of this time needed? Log files delivered shortly before the end may be in a later one.
    fn touches(&self, start: Time, end: Time) -> bool {
        self.from.is_none_or(|from| end > from)
            && self.to.is_none_or(|to| start < to.plus(DELIVERY))
    }
}

/// The regions of digests with these names: CloudTrail has keys of its own in each.
pub fn regions<'n>(names: impl IntoIterator<Item = &'n str>) -> BTreeSet<String> {
    let named = names.into_iter().filter_map(name::classify);
    named.filter(|n| n.digest).map(|n| n.chain.region).collect()
}

/// When a log file was delivered or a digest ends, as far as the name tells it.
pub fn time_of(name: &str) -> Option<Time> {
    name::classify(name)?.time
}

/// Of which chain an object with this name is a digest, and when that one ends; `None` for what is no digest.
pub(crate) fn ended(name: &str) -> Option<(Chain, Time)> {
    let named = name::classify(name).filter(|n| n.digest)?;
    Some((named.chain, named.time?))
}

/// The account, region and time of delivery that the name of a log file tells; `None` for what is none.
pub fn log_named(name: &str) -> Option<(String, String, Time)> {
    let named = name::classify(name).filter(|n| !n.digest)?;
    Some((named.chain.account, named.chain.region, named.time?))
}

/// Is an object with this name a digest or a log file?
pub fn is_of_trail(name: &str) -> bool {
    name::classify(name).is_some()
}

/// Verifies all digests and log files of a store.
pub fn verify(job: &Job<'_>) -> Result<Report, VerifyError> {
    let mut scopes: BTreeMap<(String, String), Scope> = BTreeMap::new();
    for name in job.objects.list().map_err(VerifyError::List)? {
        let Some(named) = name::classify(&name) else {
            continue;
        };
        let key = (named.chain.account, named.chain.region);
        let scope = scopes.entry(key).or_default();
        match named.digest {
            true => scope.digests.push(name),
            false => drop(scope.logs.insert(name, named.time)),
        }
    }
    let (mut report, mut alone, mut newest) = (Report::default(), Vec::new(), None);
    for ((account, region), scope) in scopes {
        let mut verified = scope::verify(job, &account, &region, &scope)?;
        newest = newest.max(verified.newest);
        report.chains.append(&mut verified.chains);
        report.violations.append(&mut verified.violations);
        report.coverage.push(Coverage {
            account: account.clone(),
            region: region.clone(),
            ..verified.coverage
        });
        if !verified.alone.is_empty() {
            alone.push((Chain::unnamed(&account, &region), verified.alone));
        }
    }
    ends_early(job, newest, &mut report);
    for (chain, logs) in alone {
        no_digests(chain, &logs, newest, &mut report);
    }
    report.chains.sort_by(|a, b| a.chain.cmp(&b.chain));
    report.violations.sort();
    Ok(report)
}

/// Chains that should go on longer: to the end that was asked for, or as long as the longest.
fn ends_early(job: &Job<'_>, newest: Option<Time>, report: &mut Report) {
    let Some(needed) = (match job.to {
        Some(to) => Some(to.min(job.now.plus(-DELIVERY))),
        None => newest.map(|newest| newest.plus(-DELIVERY)),
    }) else {
        return;
    };
    for chain in report.chains.iter().filter(|c| !c.chain.backfill) {
        if let Some(end) = chain.to.filter(|end| *end < needed) {
            report.violations.push(Violation {
                chain: chain.chain.clone(),
                kind: Kind::EndsEarly,
                object: chain.last_digest.clone(),
                detail: format!("it ends at {end}, and no digest follows until {needed}"),
            });
        }
    }
}

/// Log files of an account and region without digests: what is not newer than the newest digest of all is unattested.
fn no_digests(
    chain: Chain,
    logs: &[(String, Option<Time>)],
    newest: Option<Time>,
    report: &mut Report,
) {
    let is_new = |time: Time| newest.is_some_and(|newest| time >= newest.plus(-DELIVERY));
    let mut old = logs.iter().filter(|(_, time)| !time.is_some_and(is_new));
    let unattested = old.clone().count() as u64;
    if let Some((first, _)) = old.next() {
        report.violations.push(Violation {
            chain: chain.clone(),
            kind: Kind::NoDigests,
            object: first.clone(),
            detail: format!("{unattested} log files and no digest; this is the first"),
        });
    }
    report.chains.push(ChainReport {
        chain,
        from: None,
        to: None,
        last_digest: String::new(),
        digests: 0,
        digests_proven: 0,
        logs: LogCounts {
            unattested,
            not_yet_attested: logs.len() as u64 - unattested,
            ..LogCounts::default()
        },
    });
}
