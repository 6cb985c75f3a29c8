//! What is told of sources: what arrived from where, and how the collectors that fetch it are.
//!
//! [`SourceRecord`]s are the records of the topic `sources`. The match stage tells of [`Arrival`]s, which are cumulative,
//! so that one that comes again changes nothing, and of functions that it sees; collectors tell of [`Heartbeat`]s, where
//! something proves that a source is alive that has nothing to say, and of how they are themselves ([`Collector`]).
//! Alerting watches them: who falls silent is worth an alert.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Id, Integrity, Str, Time};

/// A source in one account and region; empty texts where it does not say, or where all of them are meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Feed {
    /// The source, such as `aws.cloudtrail`.
    pub source: Str,
    /// The account.
    pub account: Str,
    /// The region.
    pub region: Str,
}

impl Feed {
    /// A hash of it: its records meet in one partition.
    pub fn key(&self) -> Id {
        Id::of(
            "feed",
            &[
                self.source.as_bytes(),
                self.account.as_bytes(),
                self.region.as_bytes(),
            ],
        )
    }
}

/// As people read it: `aws.cloudtrail of account 111122223333 in eu-west-1`.
impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if !self.account.is_empty() {
            write!(f, " of account {}", self.account)?;
        }
        if !self.region.is_empty() {
            write!(f, " in {}", self.region)?;
        }
        Ok(())
    }
}

/// What one partition of `events` has brought of a feed so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Which.
    pub feed: Feed,
    /// The partition of `events`.
    pub partition: u32,
    /// How many events, repeats left out, since the partition was first read.
    pub events: u64,
    /// When the latest of them was taken in.
    pub last_ingest: Time,
    /// The latest time of an event that is not in the future.
    pub last_event: Time,
    /// How long the latest of them took from its time until it was taken in, on average, in microseconds.
    pub delay: i64,
}

/// A function whose log was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionSeen {
    /// The account that owns it.
    pub account: Str,
    /// Its name.
    pub function: Str,
    /// When a line of it was last taken in.
    pub last_ingest: Time,
}

/// Proof that a source is alive, whether or not it had something to say: CloudTrail's hourly digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Of which feed.
    pub feed: Feed,
    /// When it was received.
    pub at: Time,
}

/// How a collector is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Collector {
    /// The node that it runs on.
    pub node: Str,
    /// What it is: `files`, `push`, `firehose`, `queue`, `bucket`, ...
    pub kind: Str,
    /// Its name in the configuration; empty where there is one of the kind.
    pub name: Str,
    /// What it reads, where only one node may read that, such as `s3://org-trail/AWSLogs/`; empty where several may.
    pub alone: Str,
    /// When it told this.
    pub at: Time,
    /// When it last got something, or was told that there was nothing.
    pub well: Option<Time>,
    /// Since when it has failed without a break.
    pub failing: Option<Time>,
    /// One word for why, such as `denied`; empty if it does not fail.
    pub fault: Str,
    /// What the other side said.
    pub message: Str,
    /// What to do about it.
    pub hint: Str,
    /// How much waits there, in messages or objects, where that is known.
    pub waiting: Option<u64>,
    /// How many objects, messages or requests it has taken since the process began.
    pub taken: u64,
}

impl Collector {
    /// As people read it: `queue trail`.
    pub fn label(&self) -> String {
        match self.name.as_str() {
            "" => self.kind.to_string(),
            name => format!("{} {name}", self.kind),
        }
    }
}

/// What CloudTrail's digests say of the log files of an account and region in a part of a bucket: all that was delivered in
/// these times is proven, but for what is named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attested {
    /// The bucket.
    pub bucket: Str,
    /// What the keys begin with.
    pub prefix: Str,
    /// The account.
    pub account: Str,
    /// The region.
    pub region: Str,
    /// The times of which digests that are proven speak: from, and before.
    pub spans: Vec<(Time, Time)>,
    /// Keys of log files that are not what was delivered, with their time.
    pub failed: BTreeMap<Str, Time>,
    /// Keys of log files of which nothing can be said yet, with their time.
    pub open: BTreeMap<Str, Time>,
}

/// How many keys are named; of a time with more nothing is said.
const MOST_NAMED: usize = 5_000;

impl Attested {
    /// What is known of the log file with this key, which was delivered at this time.
    pub fn of(&self, key: &str, time: Time) -> Integrity {
        if self.failed.contains_key(key) {
            return Integrity::Failed;
        }
        let covered = self
            .spans
            .iter()
            .any(|(from, to)| (*from..*to).contains(&time));
        match covered && !self.open.contains_key(key) {
            true => Integrity::Attested,
            false => Integrity::Received,
        }
    }

    /// Takes in what a later look has found, which began at `from`: of what is before, it says nothing.
    pub fn learn(&mut self, later: Attested, from: Time) {
        self.failed.retain(|_, time| *time < from);
        self.open.retain(|_, time| *time < from);
        self.failed.extend(later.failed);
        self.open.extend(later.open);
        let before = std::mem::take(&mut self.spans).into_iter();
        let before = before.map(|(start, end)| (start, end.min(from)));
        let mut spans: Vec<_> = before.chain(later.spans).filter(|(a, b)| a < b).collect();
        spans.sort();
        for (start, end) in spans {
            match self.spans.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => self.spans.push((start, end)),
            }
        }
        while self.failed.len() + self.open.len() > MOST_NAMED {
            let all = self.failed.values().chain(self.open.values());
            let Some(oldest) = all.min().copied() else {
                break;
            };
            // A name that is forgotten must not pass for proven.
            self.failed.retain(|_, time| *time > oldest);
            self.open.retain(|_, time| *time > oldest);
            self.spans.retain_mut(|(start, end)| {
                *start = (*start).max(oldest.plus(1));
                *start < *end
            });
        }
    }
}

/// A record of the topic `sources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceRecord {
    /// Events came.
    Arrival(Arrival),
    /// A function's log was seen.
    Function(FunctionSeen),
    /// A source is alive.
    Heartbeat(Heartbeat),
    /// How a collector is.
    Collector(Collector),
    /// What digests say; the latest of a place says all.
    Attested(Attested),
}

impl SourceRecord {
    /// Reads the value of a record.
    ///
    /// # Errors
    /// It is no such JSON.
    pub fn decode(value: &[u8]) -> Result<SourceRecord, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// The key and the value with which it goes on the log.
    pub fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let key = match self {
            SourceRecord::Arrival(a) => a.feed.key(),
            SourceRecord::Heartbeat(h) => h.feed.key(),
            SourceRecord::Function(f) => {
                Id::of("seen", &[f.account.as_bytes(), f.function.as_bytes()])
            }
            SourceRecord::Attested(a) => Id::of(
                "attested",
                &[&a.bucket, &a.prefix, &a.account, &a.region].map(|t| t.as_bytes()),
            ),
            SourceRecord::Collector(c) => Id::of(
                "collector",
                &[c.node.as_bytes(), c.kind.as_bytes(), c.name.as_bytes()],
            ),
        };
        let value = serde_json::to_vec(self).expect("texts and numbers");
        (key.to_bytes().to_vec(), value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_attested_grows_and_says_nothing_that_it_does_not_know() {
        let look = |spans: &[(i64, i64)], failed: &[(&str, i64)], open: &[(&str, i64)]| {
            let named =
                |list: &[(&str, i64)]| list.iter().map(|(k, t)| ((*k).into(), Time(*t))).collect();
            Attested {
                spans: spans.iter().map(|(a, b)| (Time(*a), Time(*b))).collect(),
                failed: named(failed),
                open: named(open),
                ..Attested::default()
            }
        };
        let mut all = look(&[(0, 100)], &[("bad", 50)], &[("new", 95)]);
        let check = |all: &Attested, key: &str, time: i64, expected: Integrity| {
            assert_eq!(all.of(key, Time(time)), expected, "{key} {time}");
        };
        check(&all, "a", 10, Integrity::Attested);
        check(&all, "bad", 50, Integrity::Failed);
        check(&all, "new", 95, Integrity::Received);
        check(&all, "later", 100, Integrity::Received);
        // The next look begins at 60: what it had to say of before holds, what was open is proven.
        all.learn(look(&[(60, 200)], &[("worse", 150)], &[]), Time(60));
        assert_eq!(all.spans, [(Time(0), Time(200))]);
        check(&all, "bad", 50, Integrity::Failed);
        check(&all, "new", 95, Integrity::Attested);
        check(&all, "worse", 150, Integrity::Failed);
        // A look that proves less than the one before takes that back.
        all.learn(look(&[(180, 210)], &[], &[]), Time(120));
        check(&all, "x", 150, Integrity::Received);
        check(&all, "x", 190, Integrity::Attested);
        // More names than are kept: the oldest are of a time of which nothing is said any more.
        let many: Vec<(String, i64)> = (0..MOST_NAMED as i64 + 10)
            .map(|n| (format!("k{n}"), 1_000 + n))
            .collect();
        let many: Vec<(&str, i64)> = many.iter().map(|(k, t)| (k.as_str(), *t)).collect();
        all.learn(look(&[(900, 90_000)], &many, &[]), Time(900));
        assert_eq!(all.failed.len(), MOST_NAMED);
        check(&all, "k3", 1_003, Integrity::Received);
        check(&all, "y", 950, Integrity::Received);
        check(&all, "k100", 1_100, Integrity::Failed);
        check(&all, "y", 80_000, Integrity::Attested);
    }

    #[test]
    fn records_come_back_and_feeds_read_well() {
        let feed = Feed {
            source: "aws.cloudtrail".into(),
            account: "111122223333".into(),
            region: "eu-west-1".into(),
        };
        assert_eq!(
            feed.to_string(),
            "aws.cloudtrail of account 111122223333 in eu-west-1"
        );
        let whole = Feed {
            source: "aws.lambda".into(),
            ..Feed::default()
        };
        assert_eq!(whole.to_string(), "aws.lambda");
        let record = SourceRecord::Heartbeat(Heartbeat {
            feed: feed.clone(),
            at: Time(7),
        });
        let (key, value) = record.encode();
        assert_eq!(key, feed.key().to_bytes());
        assert_eq!(SourceRecord::decode(&value).unwrap(), record);
    }
}
