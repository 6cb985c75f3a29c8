//! How the collectors are, told on the topic `sources`.
//!
//! Every source has a [`Post`], at which it says what went well and what failed; [`Collectors`] has them all, and [`run`]
//! tells of them whenever something has changed and once a minute. A collector may do several things, such as ask a
//! queue and fetch its objects: it fails while one of them does. That CloudTrail's digests arrive is told as a heartbeat
//! of the account and region they are of, since they come every hour even where nothing happens. Who reads all that is
//! in alerting; nothing is decided here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::{Bus, BusError, Record, Stop, Topic};
use bytes::Bytes;
use event::source::{Attested, Collector, Feed, Heartbeat, SourceRecord};
use event::{Clock, Str, Time};

use crate::digest;
use crate::source::s3::Trouble;

/// How often to look for changes.
const TICK: Duration = Duration::from_secs(2);

/// How often a collector is told of whether or not it has changed.
const AGAIN: i64 = 60_000_000;

/// What another side says is cut after so many bytes.
const MAX_MESSAGE: usize = 1_000;

/// A digest that ended longer ago says nothing about now.
const RECENT: i64 = 3 * 3_600_000_000;

/// The collectors of a process. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Collectors(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    posts: BTreeMap<(&'static str, Str), Known>,
    /// The newest digest of an account and region.
    digests: BTreeMap<Feed, Time>,
    beats: Vec<Heartbeat>,
    attested: Vec<Attested>,
}

#[derive(Debug, Default)]
struct Known {
    collector: Collector,
    /// What fails.
    failing: BTreeMap<Str, Failing>,
    changed: bool,
}

#[derive(Debug)]
struct Failing {
    since: Time,
    /// When it last did.
    at: Time,
    failure: Failure,
}

/// Why something fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One word, such as `denied`.
    pub fault: &'static str,
    /// What the other side says.
    pub message: String,
    /// What a person can do about it.
    pub hint: &'static str,
}

impl Failure {
    /// What kept an object from being taken.
    pub(crate) fn of(trouble: &Trouble) -> Failure {
        Failure {
            fault: trouble.kind(),
            message: causes(trouble),
            hint: trouble.hint(),
        }
    }

    /// The log takes no writes.
    pub(crate) fn of_log(error: &BusError) -> Failure {
        Failure {
            fault: error.kind(),
            message: causes(error),
            hint: "make room in the data folder, or see to the brokers; what waits is taken then",
        }
    }
}

/// An error with what caused it.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", causes(source)),
        None => error.to_string(),
    }
}

/// Where one collector says how it is.
#[derive(Debug, Clone)]
pub struct Post {
    collectors: Collectors,
    kind: &'static str,
    name: Str,
}

impl Collectors {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing is left half done under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The post of a collector: its kind, and its name in the configuration where there may be several.
    pub fn post(&self, kind: &'static str, name: &str) -> Post {
        let name = Str::from(name);
        let mut inner = self.lock();
        inner
            .posts
            .entry((kind, name.clone()))
            .or_insert_with(|| Known {
                collector: Collector {
                    kind: kind.into(),
                    name: name.clone(),
                    ..Collector::default()
                },
                changed: true,
                ..Known::default()
            });
        drop(inner);
        Post {
            collectors: self.clone(),
            kind,
            name,
        }
    }

    /// An object was seen; if it is a recent digest of CloudTrail, its account and region are alive.
    pub(crate) fn saw(&self, object: &str, now: Time) {
        let Some((chain, end)) = digest::ended(object) else {
            return;
        };
        if !(now.plus(-RECENT)..=now.plus(RECENT)).contains(&end) {
            return;
        }
        let feed = Feed {
            source: "aws.cloudtrail".into(),
            account: chain.account.into(),
            region: chain.region.into(),
        };
        let mut inner = self.lock();
        let newest = inner.digests.entry(feed.clone()).or_insert(Time::MIN);
        if end > *newest {
            *newest = end;
            inner.beats.push(Heartbeat { feed, at: now });
        }
    }

    /// What digests say is to be told.
    pub(crate) fn attested(&self, attested: Attested) {
        self.lock().attested.push(attested);
    }

    /// What there is to tell.
    fn news(&self, node: &str, now: Time) -> Vec<SourceRecord> {
        let mut inner = self.lock();
        let beats = std::mem::take(&mut inner.beats);
        let mut news: Vec<SourceRecord> = beats.into_iter().map(SourceRecord::Heartbeat).collect();
        let attested = std::mem::take(&mut inner.attested);
        news.extend(attested.into_iter().map(SourceRecord::Attested));
        for known in inner.posts.values_mut() {
            if !known.changed && now.0 - known.collector.at.0 < AGAIN {
                continue;
            }
            known.changed = false;
            let collector = &mut known.collector;
            collector.node = node.into();
            collector.at = now;
            collector.failing = known.failing.values().map(|f| f.since).min();
            // What failed last is what keeps it from going on.
            let latest = known.failing.values().max_by_key(|f| f.at);
            (collector.fault, collector.message, collector.hint) = match latest {
                None => Default::default(),
                Some(Failing { failure: f, .. }) => {
                    (f.fault.into(), f.message.as_str().into(), f.hint.into())
                }
            };
            news.push(SourceRecord::Collector(collector.clone()));
        }
        news
    }

    /// What could not be told is told again.
    fn untold(&self, news: Vec<SourceRecord>) {
        let mut inner = self.lock();
        for record in news {
            match record {
                SourceRecord::Heartbeat(beat) => inner.beats.push(beat),
                SourceRecord::Attested(attested) => inner.attested.push(attested),
                _ => inner
                    .posts
                    .values_mut()
                    .for_each(|known| known.changed = true),
            }
        }
    }
}

impl Post {
    fn change(&self, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self
            .collectors
            .lock()
            .posts
            .get_mut(&(self.kind, self.name.clone()))
        {
            change(known);
        }
    }

    /// It took so many objects, messages or requests; a part of it, such as `queue` or one of its log groups, does well or
    /// is no more.
    pub(crate) fn well(&self, part: &str, taken: u64, now: Time) {
        self.change(|known| {
            known.collector.well = known.collector.well.max(Some(now));
            known.collector.taken += taken;
            known.changed |= known.failing.remove(part).is_some();
        });
    }

    /// A part of it fails.
    pub(crate) fn failed(&self, part: &str, mut failure: Failure, now: Time) {
        let end = failure.message.floor_char_boundary(MAX_MESSAGE);
        failure.message.truncate(end);
        self.change(|known| {
            let before = known.failing.remove(part);
            known.changed |= before
                .as_ref()
                .is_none_or(|b| b.failure.fault != failure.fault);
            let since = before.map_or(now, |b| b.since);
            let failing = Failing {
                since,
                at: now,
                failure,
            };
            known.failing.insert(part.into(), failing);
        });
    }

    /// It reads this, and only one node may.
    pub(crate) fn alone(&self, place: &str) {
        self.change(|known| {
            known.collector.alone = place.into();
            known.changed = true;
        });
    }

    /// So much waits where it collects from.
    pub(crate) fn waiting(&self, waiting: u64) {
        self.change(|known| {
            known.changed |= known.collector.waiting != Some(waiting);
            known.collector.waiting = Some(waiting);
        });
    }
}

/// Tells of the collectors of this node until told to stop.
///
/// # Errors
/// The log failed in a way that waiting does not mend.
pub fn run(
    bus: &dyn Bus,
    collectors: &Collectors,
    node: &str,
    clock: &Clock,
    stop: &Stop,
) -> Result<(), BusError> {
    let ticks = (TICK.as_millis() / 100).max(1);
    while !stop.is_stopped() {
        let now = clock();
        let news = collectors.news(node, now);
        if !news.is_empty() {
            let records = news.iter().map(|n| record(n, now)).collect();
            match bus.append(Topic::Sources, records) {
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "how collectors are cannot be told, tried again");
                    collectors.untold(news);
                }
                told => told?,
            }
        }
        for _ in 0..ticks {
            if stop.is_stopped() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

fn record(news: &SourceRecord, now: Time) -> Record {
    let (key, value) = news.encode();
    Record {
        key: Bytes::from(key),
        value: Bytes::from(value),
        time: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn denied() -> Failure {
        Failure {
            fault: "denied",
            message: "é".repeat(MAX_MESSAGE),
            hint: "allow it",
        }
    }

    fn collectors(news: &[SourceRecord]) -> Vec<&Collector> {
        let mut found = Vec::new();
        for record in news {
            if let SourceRecord::Collector(collector) = record {
                found.push(collector);
            }
        }
        found
    }

    #[test]
    fn a_collector_fails_while_a_part_of_it_does() {
        let all = Collectors::default();
        let post = all.post("queue", "trail");
        let at = |second: i64| Time(second * SECOND);
        post.well("queue", 1, at(1));
        post.failed("objects", denied(), at(2));
        post.failed("objects", denied(), at(9));
        post.well("queue", 2, at(10));
        let news = all.news("n", at(11));
        let [told] = collectors(&news)[..] else {
            panic!("{news:?}")
        };
        assert_eq!(
            (told.failing, told.fault.as_str(), told.taken),
            (Some(at(2)), "denied", 3)
        );
        assert!(told.message.len() <= MAX_MESSAGE);
        // Nothing new: told again only after a minute.
        assert_eq!(all.news("n", at(20)), []);
        assert_eq!(all.news("n", at(71)).len(), 1);
        post.well("objects", 0, at(72));
        let news = all.news("n", at(73));
        assert_eq!(collectors(&news)[0].failing, None);
        assert_eq!(collectors(&news)[0].fault, "");
        all.untold(news);
        assert_eq!(all.news("n", at(74)).len(), 1);
    }

    #[test]
    fn a_recent_digest_is_a_heartbeat_once() {
        let all = Collectors::default();
        let now = Time::parse("2026-03-02T10:40:00Z").unwrap();
        let digest = |hour: u32| {
            format!(
                "AWSLogs/111122223333/CloudTrail-Digest/eu-west-1/2026/03/02/111122223333_CloudTrail-Digest_eu-west-1_t_us-east-1_20260302T{hour:02}0000Z.json.gz"
            )
        };
        all.saw("AWSLogs/111122223333/CloudTrail/eu-west-1/2026/03/02/111122223333_CloudTrail_eu-west-1_20260302T1035Z_x.json.gz", now);
        for hour in [5, 9, 10, 10, 9] {
            all.saw(&digest(hour), now);
        }
        let news = all.news("n", now);
        let [SourceRecord::Heartbeat(_), SourceRecord::Heartbeat(beat)] = &news[..] else {
            panic!("{news:?}")
        };
        assert_eq!(
            beat.feed.to_string(),
            "aws.cloudtrail of account 111122223333 in eu-west-1"
        );
        assert_eq!(beat.at, now);
        assert_eq!(all.news("n", now), []);
    }
}
