//! Who watches the sources: what arrives, what has fallen silent, and which collectors fail.
//!
//! [`Watch`] takes the records of the topic `sources` in and knows of every source, account and region when something
//! last came ([`Watched`]), and of every collector how it is. [`Watch::judge`], asked from time to time, gives the findings:
//! a feed from which nothing has come for twice its usual gap ([`gaps`]) is silent, and what only one node may read is not read by two. Of feeds within one another the widest
//! that is silent is told, so that a queue that stops is one alert and not one for every account and region behind it. The
//! end of a silence revises its finding. Findings go the way of all findings ([`stage`]); the store keeps what is known.
//! Everything here is a function of what was told and of the time that is given.

mod gaps;
pub mod report;
pub mod stage;
mod watched;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use event::source::{Arrival, Collector, Feed, FunctionSeen, Heartbeat, SourceRecord};
use event::{Finding, Severity, Str, Time};
use serde::{Deserialize, Serialize};

pub use watched::{Silence, State, Watched};
pub use words::{FAILING, SHARED, SILENT, own_rules, span};

use words::{ended, failure, shared, silent};

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Who was seen for less than this is not missed: a file that somebody sent by hand.
const YOUNGEST: i64 = HOUR;

/// A collector that fails for so long is worth an alert.
const FAILING_FOR: i64 = 5 * MINUTE;

/// A collector that has told of itself within this time is running: it does so every minute.
const RUNNING: i64 = 3 * MINUTE;

/// What was not heard of for so long is forgotten.
const FORGOTTEN: i64 = 90 * DAY;

/// How many functions are remembered.
const MOST_FUNCTIONS: usize = 200_000;

/// The source of our own events: they come when people do something.
const OWN: &str = "trailwarden";

/// A collector, and whether it was told that it fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownCollector {
    /// What it last told of itself.
    pub collector: Collector,
    /// The failure that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told: Option<Silence>,
    /// Since when it has done well again, as it says; a start anew looks so too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mended: Option<Time>,
    /// A collector on another node that reads the same, which only one may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shared: Option<Shared>,
}

/// Two nodes read what only one may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Shared {
    /// The other node.
    with: Str,
    /// Since when.
    since: Time,
    /// Whether it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told: Option<Silence>,
}

/// What names a collector: node, kind, name.
pub type CollectorKey = (Str, Str, Str);

/// What names a function: account, name.
pub type FunctionKey = (Str, Str);

/// Everything under `sources:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Nobody is called silent before so many minutes, whatever is usual.
    pub silent_minutes: u64,
    /// Sources that are not missed when they fall silent.
    pub ignore: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            silent_minutes: 15,
            ignore: Vec::new(),
        }
    }
}

impl Config {
    /// The same, ready for use.
    pub fn options(&self) -> Options {
        let minutes = i64::try_from(self.silent_minutes).unwrap_or(i64::MAX / MINUTE);
        Options {
            least: minutes.saturating_mul(MINUTE),
            ignore: self.ignore.iter().cloned().collect(),
        }
    }
}

/// How sources are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Nobody is silent before so many microseconds.
    pub least: i64,
    /// Sources that are not missed.
    pub ignore: BTreeSet<String>,
}

/// A rule that sees nothing while its source is silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blind {
    /// Its title.
    pub title: String,
    /// How bad what it looks for is.
    pub severity: Severity,
}

/// Gives the rules that look at a source.
pub type Looking = dyn Fn(&str) -> Vec<Blind> + Send + Sync;

/// All sources and collectors.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    feeds: BTreeMap<Feed, Watched>,
    collectors: BTreeMap<CollectorKey, KnownCollector>,
    functions: BTreeMap<FunctionKey, Time>,
    changed: Changed,
}

/// What has changed since it was last stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) feeds: BTreeSet<Feed>,
    pub(crate) collectors: BTreeSet<CollectorKey>,
    pub(crate) functions: BTreeSet<FunctionKey>,
}

impl Watch {
    /// What was known when it was stored.
    pub fn restore(
        feeds: Vec<Watched>,
        collectors: Vec<KnownCollector>,
        functions: Vec<(FunctionKey, Time)>,
    ) -> Watch {
        Watch {
            feeds: feeds.into_iter().map(|f| (f.feed.clone(), f)).collect(),
            collectors: collectors
                .into_iter()
                .map(|c| (key(&c.collector), c))
                .collect(),
            functions: functions.into_iter().collect(),
            changed: Changed::default(),
        }
    }

    /// All feeds, the wider before those within them.
    pub fn feeds(&self) -> impl Iterator<Item = &Watched> {
        self.feeds.values()
    }

    /// How many collectors fail.
    pub fn failing(&self) -> usize {
        let failing = |c: &&KnownCollector| c.collector.failing.is_some();
        self.collectors.values().filter(failing).count()
    }

    pub(crate) fn feed(&self, feed: &Feed) -> Option<&Watched> {
        self.feeds.get(feed)
    }

    pub(crate) fn collector(&self, key: &CollectorKey) -> Option<&KnownCollector> {
        self.collectors.get(key)
    }

    pub(crate) fn function(&self, key: &FunctionKey) -> Option<Time> {
        self.functions.get(key).copied()
    }

    /// What has changed since this was last asked.
    pub(crate) fn changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    /// Takes a record in. One that comes again changes nothing.
    pub fn take(&mut self, record: SourceRecord, options: &Options) {
        match record {
            SourceRecord::Arrival(arrival) => self.arrival(&arrival, options),
            SourceRecord::Heartbeat(beat) => self.heartbeat(&beat, options),
            SourceRecord::Function(seen) => self.function_seen(seen),
            // Who shows events asks for it.
            SourceRecord::Attested(_) => {}
            SourceRecord::Collector(collector) => {
                let key = key(&collector);
                let known = self
                    .collectors
                    .entry(key.clone())
                    .or_insert_with(|| KnownCollector {
                        collector: collector.clone(),
                        told: None,
                        mended: None,
                        shared: None,
                    });
                if collector.at >= known.collector.at {
                    known.collector = collector;
                    self.changed.collectors.insert(key);
                }
            }
        }
    }

    fn arrival(&mut self, arrival: &Arrival, options: &Options) {
        let feed = &arrival.feed;
        let known = self
            .feeds
            .get(feed)
            .and_then(|w| w.counted.get(&arrival.partition));
        let known = known.copied().unwrap_or(0);
        // Fewer than before: the match stage has begun anew.
        let new = if arrival.events >= known {
            arrival.events - known
        } else {
            arrival.events
        };
        if new == 0 {
            return;
        }
        let missed = self.is_missed(feed);
        for wider in within(feed) {
            let watched = self
                .feeds
                .entry(wider.clone())
                .or_insert_with(|| Watched::new(wider.clone(), arrival.last_ingest));
            watched.sign(arrival.last_ingest, options.least, missed);
            watched.arrived(arrival, new);
            if wider == *feed {
                watched.counted.insert(arrival.partition, arrival.events);
            }
            self.changed.feeds.insert(wider);
        }
    }

    /// Shows that feeds live of which something has arrived before.
    fn heartbeat(&mut self, beat: &Heartbeat, options: &Options) {
        let missed = self.is_missed(&beat.feed);
        for wider in within(&beat.feed) {
            let watched = self.feeds.entry(wider.clone()).or_insert_with(|| Watched {
                // No event has come yet.
                last: Time::MIN,
                heartbeat: Some(beat.at),
                ..Watched::new(wider.clone(), beat.at)
            });
            watched.sign(beat.at, options.least, missed);
            watched.heartbeat = watched.heartbeat.max(Some(beat.at));
            self.changed.feeds.insert(wider);
        }
    }

    /// Is a feed silent, or one that it lies within, or was that since the feed's last sign of life?
    fn is_missed(&self, feed: &Feed) -> bool {
        let alive = self.feeds.get(feed).map_or(Time::MIN, Watched::alive);
        let mut known = within(feed).filter_map(|wider| self.feeds.get(&wider));
        known.any(|w| w.silent.is_some() || w.returned.is_some_and(|returned| returned > alive))
    }

    fn function_seen(&mut self, seen: FunctionSeen) {
        let key = (seen.account, seen.function);
        if self.functions.len() >= MOST_FUNCTIONS && !self.functions.contains_key(&key) {
            return;
        }
        let last = self.functions.entry(key.clone()).or_insert(Time::MIN);
        if seen.last_ingest > *last {
            *last = seen.last_ingest;
            self.changed.functions.insert(key);
        }
    }

    /// Who is silent now or is no longer, and which collectors fail. `now` is the time up to which everything that arrived
    /// has been told; silence counts from `began` at the earliest, when watching began. `blind` names the rules that look
    /// at a source.
    pub fn judge(
        &mut self,
        now: Time,
        began: Time,
        options: &Options,
        blind: &dyn Fn(&str) -> Vec<Blind>,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        let names: Vec<Feed> = self.feeds.keys().cloned().collect();
        for feed in names {
            if feed.source == OWN || options.ignore.contains(feed.source.as_str()) {
                // Whoever is not missed any more is not said to be silent again either.
                let watched = self.feeds.get_mut(&feed);
                if watched.is_some_and(|w| w.silent.take().is_some()) {
                    self.changed.feeds.insert(feed);
                }
                continue;
            }
            let (mut from, mut covered) = (began, false);
            for wider in within(&feed).filter(|w| *w != feed) {
                let Some(wider) = self.feeds.get(&wider) else {
                    continue;
                };
                covered |= wider.silent.is_some();
                from = from.max(wider.returned.unwrap_or(Time::MIN));
            }
            let Some(watched) = self.feeds.get_mut(&feed) else {
                continue;
            };
            let alive = watched.alive();
            let silence = match watched.silent {
                Some(silence) if alive > silence.since => {
                    findings.push(ended(watched, silence, alive));
                    watched.returned = Some(now);
                    None
                }
                Some(silence) => match silence.again(now) {
                    None => continue,
                    again => again,
                },
                None => {
                    let missed = !covered && watched.age() >= YOUNGEST;
                    let quiet = now.0 - alive.max(from).0;
                    if !missed || quiet <= watched.silent_after(options.least) {
                        continue;
                    }
                    Some(Silence::new(alive, now))
                }
            };
            if let Some(silence) = silence {
                findings.push(silent(
                    watched,
                    silence,
                    options.least,
                    &blind(&feed.source),
                ));
            }
            watched.silent = silence;
            self.changed.feeds.insert(feed);
        }
        for (key, known) in &mut self.collectors {
            let collector = &known.collector;
            let told = match (known.told, collector.failing) {
                // One that tells nothing any more is another matter.
                (Some(told), Some(_)) => match told.again(now) {
                    Some(again) if now.0 - collector.at.0 < HOUR => {
                        known.mended = None;
                        Some(again)
                    }
                    _ if known.mended.take().is_some() => Some(told),
                    _ => continue,
                },
                (Some(told), None) => {
                    let mended = *known.mended.get_or_insert(collector.at);
                    if collector.at.0 - mended.0 < FAILING_FOR {
                        self.changed.collectors.insert(key.clone());
                        continue;
                    }
                    findings.push(failure(collector, told, Some(mended)));
                    None
                }
                (None, Some(since)) if collector.at.0 - since.0 >= FAILING_FOR => {
                    known.mended = None;
                    Some(Silence::new(since, now))
                }
                (None, _) => continue,
            };
            if told.is_some() && told != known.told {
                findings.extend(told.map(|told| failure(collector, told, None)));
            }
            known.told = told;
            self.changed.collectors.insert(key.clone());
        }
        self.judge_shared(now, &mut findings);
        findings
    }

    /// Which collectors read what another node reads too, though only one may. Of several nodes the first is taken to be
    /// right. Where something has moved from one node to another, both have told of it lately, but not for long.
    fn judge_shared(&mut self, now: Time, findings: &mut Vec<Finding>) {
        let mut readers: BTreeMap<(Str, Str), Str> = BTreeMap::new();
        for (key, known) in &mut self.collectors {
            let collector = &known.collector;
            let running = now.0 - collector.at.0 <= RUNNING && !collector.alone.is_empty();
            let first = running.then(|| {
                let place = (collector.kind.clone(), collector.alone.clone());
                let first = readers.entry(place).or_insert(collector.node.clone());
                first.clone()
            });
            let with = first.filter(|first| *first != collector.node);
            let shared = match (known.shared.take(), with) {
                (None, None) => continue,
                (Some(Shared { with, told, .. }), None) => {
                    let told = told.map(|told| shared(collector, &with, told, Some(now)));
                    findings.extend(told);
                    None
                }
                (None, Some(with)) => Some(Shared {
                    with,
                    since: now,
                    told: None,
                }),
                (Some(before), Some(with)) => {
                    let again = match before.told {
                        Some(told) => told.again(now),
                        None if now.0 - before.since.0 < FAILING_FOR => None,
                        None => Some(Silence::new(before.since, now)),
                    };
                    findings.extend(again.map(|told| shared(collector, &with, told, None)));
                    Some(Shared {
                        with,
                        told: again.or(before.told),
                        ..before
                    })
                }
            };
            known.shared = shared;
            self.changed.collectors.insert(key.clone());
        }
    }

    /// Forgets what was not heard of for a long time.
    pub fn forget(&mut self, now: Time) {
        let old = now.plus(-FORGOTTEN);
        let feeds = self.feeds.extract_if(.., |_, w| w.alive() < old);
        self.changed.feeds.extend(feeds.map(|(feed, _)| feed));
        // A node that was taken away tells nothing any more.
        let gone = now.plus(-DAY);
        let collectors = self.collectors.extract_if(.., |_, c| c.collector.at < gone);
        self.changed
            .collectors
            .extend(collectors.map(|(key, _)| key));
        let functions = self.functions.extract_if(.., |_, last| *last < old);
        self.changed.functions.extend(functions.map(|(key, _)| key));
    }
}

fn key(collector: &Collector) -> CollectorKey {
    (
        collector.node.clone(),
        collector.kind.clone(),
        collector.name.clone(),
    )
}

/// A feed and those that it lies within, the widest first.
fn within(feed: &Feed) -> impl Iterator<Item = Feed> + use<> {
    let source = Feed {
        source: feed.source.clone(),
        ..Feed::default()
    };
    let account = Feed {
        account: feed.account.clone(),
        ..source.clone()
    };
    let mut all = vec![source, account, feed.clone()];
    all.dedup();
    all.into_iter()
}

#[cfg(test)]
mod tests;
