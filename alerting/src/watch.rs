//! Who watches the sources: what arrives, what has fallen silent, and which collectors fail.
//!
//! [`Watch`] takes the records of the topic `sources` in and knows of every source, account and region when something
//! last came ([`Watched`]), and of every collector how it is. [`Watch::judge`], asked from time to time, gives the findings:
//! a feed from which nothing has come for twice its usual gap ([`gaps`]) is silent. Of feeds within one another the widest
//! that is silent is told, so that a queue that stops is one alert and not one for every account and region behind it. The
//! end of a silence revises its finding. Findings go the way of all findings ([`stage`]); the store keeps what is known.
//! Everything here is a function of what was told and of the time that is given.

mod gaps;
pub mod report;
pub mod stage;

use std::collections::{BTreeMap, BTreeSet};

use event::source::{Arrival, Collector, Feed, FunctionSeen, Heartbeat, SourceRecord};
use event::{Finding, Id, RuleInfo, Severity, Str, Time};
use serde::{Deserialize, Serialize};

use gaps::Gaps;

/// The `rule_id` of the finding that a source is silent.
pub const SILENT: &str = "trailwarden.source_silent";

/// The `rule_id` of the finding that a collector fails.
pub const FAILING: &str = "trailwarden.collector_failing";

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A gap is twice as long as usual before it is a silence.
const FACTOR: i64 = 2;

/// So long every gap is learned whole; later one that was told as a silence counts as no longer than what was allowed
/// twice over, so that an outage does not make the next one pass for usual.
const LEARNING: i64 = 7 * DAY;

/// Who was seen for less than this is not missed: a file that somebody sent by hand.
const YOUNGEST: i64 = HOUR;

/// A collector that fails for so long is worth an alert.
const FAILING_FOR: i64 = 5 * MINUTE;

/// How often it is said that it goes on.
const AGAIN: i64 = HOUR;

/// What was not heard of for so long is forgotten.
const FORGOTTEN: i64 = 90 * DAY;

/// How many functions are remembered.
const MOST_FUNCTIONS: usize = 200_000;

/// How many rules a finding names.
const NAMED: usize = 5;

/// What the findings may be a sign of: Impair Defenses, Disable or Modify Cloud Logs.
const TAGS: [&str; 2] = ["attack.t1562.008", "attack.t1685"];

/// The source of our own events: they come when people do something.
const OWN: &str = "trailwarden";

/// What people read about the findings that no rule file stands for.
pub fn own_rules() -> Vec<RuleInfo> {
    let info = |id: &str, title: &str, severity, description: &str, steps: &[&str]| RuleInfo {
        id: id.to_owned(),
        title: title.to_owned(),
        description: description.to_owned(),
        author: "Trailwarden".to_owned(),
        severity,
        status: "stable".to_owned(),
        tags: TAGS.map(str::to_owned).to_vec(),
        next_steps: steps.iter().map(|s| (*s).to_owned()).collect(),
        ..RuleInfo::default()
    };
    vec![
        info(
            SILENT,
            "A source has fallen silent",
            Severity::High,
            "Nothing has arrived from a source for twice as long as is usual for it. While it is silent, the rules that look at \
             it see nothing. Whoever stops a trail, changes a bucket's policy or removes a subscription causes this on purpose.",
            &[
                "Look at `trailwarden sources`, or at Sources on the Health page: does its collector fail?",
                "Search the account's last events for StopLogging, DeleteTrail, UpdateTrail, PutEventSelectors, PutBucketPolicy and DeleteSubscriptionFilter.",
                "If the source was taken out of service, add it to `sources.ignore`.",
            ],
        ),
        info(
            FAILING,
            "A collector cannot read its source",
            Severity::Medium,
            "A collector has failed for more than five minutes without a break. What it should fetch waits at its source, and is \
             lost where the source does not keep it for long enough.",
            &["Do what the explanation says; the collector goes on by itself."],
        ),
    ]
}

/// What is known of a feed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Which.
    pub feed: Feed,
    /// When something first arrived.
    pub first: Time,
    /// When something last arrived.
    pub last: Time,
    /// The latest time of an event.
    pub last_event: Time,
    /// When it was last shown to be alive without an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Time>,
    /// How long its latest events took to arrive, on average, in microseconds.
    pub delay: i64,
    /// Events of the last day, by hour since 1970.
    pub hours: BTreeMap<i64, u64>,
    /// The latest silence, until something comes again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<Silence>,
    /// How many events each partition of `events` has brought.
    counted: BTreeMap<u32, u64>,
    /// How long it usually says nothing.
    gaps: Gaps,
    /// When its last silence ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    returned: Option<Time>,
}

/// Nothing comes, or nothing can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Since when: the last sign of life.
    pub since: Time,
    /// When that was noticed.
    pub noticed: Time,
    /// When it was last said.
    said: Time,
    /// How often it was said before.
    revision: u64,
}

impl Silence {
    fn new(since: Time, now: Time) -> Silence {
        Silence {
            since,
            noticed: now,
            said: now,
            revision: 0,
        }
    }

    /// It goes on: said again from time to time, so that its alert is not taken for over.
    fn again(self, now: Time) -> Option<Silence> {
        (now.0 - self.said.0 >= AGAIN).then_some(Silence {
            said: now,
            revision: self.revision + 1,
            ..self
        })
    }
}

/// How a feed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is too new to be missed.
    Learning,
    /// Something comes as usual.
    Arriving,
    /// Nothing has come for too long.
    Silent,
    /// It was seen for a short while only, and is not missed.
    Passing,
}

impl State {
    /// The word as it stands in JSON and on pages.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Learning => "learning",
            State::Arriving => "arriving",
            State::Silent => "silent",
            State::Passing => "passing",
        }
    }
}

impl Watched {
    fn new(feed: Feed, at: Time) -> Watched {
        Watched {
            feed,
            first: at,
            last: at,
            last_event: Time::MIN,
            heartbeat: None,
            delay: 0,
            hours: BTreeMap::new(),
            silent: None,
            counted: BTreeMap::new(),
            gaps: Gaps::default(),
            returned: None,
        }
    }

    /// The last sign of life.
    pub fn alive(&self) -> Time {
        self.last.max(self.heartbeat.unwrap_or(Time::MIN))
    }

    /// For how long it has been seen, in microseconds.
    fn age(&self) -> i64 {
        self.alive().0 - self.first.0
    }

    /// After how many microseconds without a sign of life it is silent.
    pub fn silent_after(&self, least: i64) -> i64 {
        let usual = self.gaps.usual().saturating_mul(FACTOR).max(least);
        match self.age() {
            // What its nights are like is not known yet.
            age if age < DAY => usual.max(age),
            _ => usual,
        }
    }

    /// How it is.
    pub fn state(&self, now: Time) -> State {
        match self.age() {
            _ if self.silent.is_some() => State::Silent,
            age if age < YOUNGEST && now.0 - self.alive().0 > DAY => State::Passing,
            age if age < DAY => State::Learning,
            _ => State::Arriving,
        }
    }

    /// Events taken in within the last hours, the current one included.
    pub fn events_within(&self, hours: i64, now: Time) -> u64 {
        let from = now.0.div_euclid(HOUR) - hours + 1;
        self.hours.range(from..).map(|(_, n)| n).sum()
    }

    /// A sign of life. `least` is how long nobody is called silent, `missed` whether this feed was, or a wider one.
    fn sign(&mut self, at: Time, least: i64, missed: bool) {
        let gap = at.0 - self.alive().0;
        if gap <= 0 {
            return;
        }
        let learned = match missed && self.age() >= LEARNING {
            true => gap.min(self.silent_after(least) * FACTOR),
            false => gap,
        };
        self.gaps.learn(learned, at);
    }

    fn arrived(&mut self, arrival: &Arrival, new: u64) {
        self.last = self.last.max(arrival.last_ingest);
        self.last_event = self.last_event.max(arrival.last_event);
        if new > 0 {
            self.delay = arrival.delay;
            let hour = arrival.last_ingest.0.div_euclid(HOUR);
            *self.hours.entry(hour).or_default() += new;
            let newest = self.hours.keys().next_back().copied().unwrap_or(hour);
            self.hours = self.hours.split_off(&(newest - 25));
        }
    }
}

/// A collector, and whether it was told that it fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownCollector {
    /// What it last told of itself.
    pub collector: Collector,
    /// The failure that was told.
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
            let mut from = began;
            let mut covered = feed.source == OWN || options.ignore.contains(feed.source.as_str());
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
                (Some(told), failing) if failing != Some(told.since) => {
                    findings.push(failure(collector, told, Some(collector.at)));
                    None
                }
                (Some(told), _) => match told.again(now) {
                    None => continue,
                    again => again,
                },
                (None, Some(since)) if collector.at.0 - since.0 >= FAILING_FOR => {
                    Some(Silence::new(since, now))
                }
                (None, _) => continue,
            };
            if let Some(told) = told {
                findings.push(failure(collector, told, None));
            }
            known.told = told;
            self.changed.collectors.insert(key.clone());
        }
        findings
    }

    /// Forgets what was not heard of for a long time.
    pub fn forget(&mut self, now: Time) {
        let old = now.plus(-FORGOTTEN);
        let feeds = self.feeds.extract_if(.., |_, w| w.alive() < old);
        self.changed.feeds.extend(feeds.map(|(feed, _)| feed));
        // A node that was taken away tells nothing any more.
        let gone = now.plus(-DAY);
        let collectors = self
            .collectors
            .extract_if(.., |_, c| c.collector.at < gone && c.told.is_none());
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

/// The finding on a silence: the same for whoever looks, so that saying it again changes nothing.
fn finding(feed: &Feed, silence: Silence) -> Finding {
    let id = Id::of(
        "silence",
        &[&feed.key().to_bytes(), &silence.since.0.to_le_bytes()],
    );
    let wide = feed.account.is_empty() && feed.region.is_empty();
    let some = |text: &Str| (!text.is_empty()).then(|| text.clone());
    Finding {
        id,
        episode: id,
        rule_id: SILENT.into(),
        title: "A source has fallen silent".into(),
        severity: if wide {
            Severity::High
        } else {
            Severity::Medium
        },
        time: silence.noticed,
        first_event_time: silence.since,
        last_event_time: silence.said,
        count: 1,
        revision: silence.revision,
        group: [
            ("source".into(), some(&feed.source)),
            ("account".into(), some(&feed.account)),
            ("region".into(), some(&feed.region)),
        ]
        .into(),
        source: OWN.into(),
        account: feed.account.clone(),
        region: feed.region.clone(),
        action: "SourceSilent".into(),
        tags: TAGS.map(Str::from).to_vec(),
        episodic: true,
        ..Finding::default()
    }
}

fn silent(watched: &Watched, silence: Silence, least: i64, blind: &[Blind]) -> Finding {
    let mut text = format!(
        "Nothing has arrived from {} since {}, for {}. It counts as silent after {}.",
        watched.feed,
        silence.since,
        span(silence.said.0 - silence.since.0),
        span(watched.silent_after(least)),
    );
    let mut blind: Vec<&Blind> = blind.iter().collect();
    blind.sort_by(|a, b| (b.severity, &a.title).cmp(&(a.severity, &b.title)));
    let named: Vec<&str> = blind.iter().take(NAMED).map(|b| b.title.as_str()).collect();
    match blind.len() {
        0 => text.push_str(" No rule looks at it."),
        1 => text.push_str(&format!(
            " One rule sees nothing of it meanwhile: {}.",
            named[0]
        )),
        n if n <= NAMED => text.push_str(&format!(
            " {n} rules see nothing of it meanwhile: {}.",
            named.join("; ")
        )),
        n => text.push_str(&format!(
            " {n} rules see nothing of it meanwhile: {}; and {} more.",
            named.join("; "),
            n - NAMED
        )),
    }
    Finding {
        explanation: text.into(),
        ..finding(&watched.feed, silence)
    }
}

fn ended(watched: &Watched, silence: Silence, again: Time) -> Finding {
    let text = format!(
        "Nothing arrived from {} from {} until {}, for {}. It has come back: what was missed then is missing unless its source delivers it late.",
        watched.feed,
        silence.since,
        again,
        span(again.0 - silence.since.0),
    );
    Finding {
        revision: silence.revision + 1,
        ended: Some(again),
        last_event_time: again,
        explanation: text.into(),
        ..finding(&watched.feed, silence)
    }
}

fn failure(collector: &Collector, told: Silence, ended: Option<Time>) -> Finding {
    let since = told.since;
    let (node, kind, name) = (&collector.node, &collector.kind, &collector.name);
    let parts = [
        node.as_bytes(),
        kind.as_bytes(),
        name.as_bytes(),
        &since.0.to_le_bytes(),
    ];
    let id = Id::of("collector failing", &parts);
    let label = collector.label();
    let explanation = match ended {
        Some(at) => format!(
            "The collector {label} on {node} failed from {since} on and works again at {at}."
        ),
        None => format!(
            "The collector {label} on {node} has failed since {since} ({}): {}. What to do: {}.",
            collector.fault, collector.message, collector.hint
        ),
    };
    Finding {
        id,
        episode: id,
        rule_id: FAILING.into(),
        title: "A collector cannot read its source".into(),
        severity: Severity::Medium,
        time: since,
        first_event_time: since,
        last_event_time: collector.at,
        count: 1,
        group: [
            ("node".into(), Some(node.clone())),
            ("collector".into(), Some(label.into())),
        ]
        .into(),
        source: OWN.into(),
        action: "CollectorFailing".into(),
        revision: told.revision + u64::from(ended.is_some()),
        ended,
        explanation: explanation.into(),
        episodic: true,
        ..Finding::default()
    }
}

/// A time span as people say it.
pub fn span(micros: i64) -> String {
    let seconds = micros.max(0) / 1_000_000;
    let minutes = (seconds + 30) / 60;
    let of = |n: i64, unit: &str| format!("{n} {unit}{}", if n == 1 { "" } else { "s" });
    match minutes {
        0..2 => of(seconds, "second"),
        2..120 => of(minutes, "minute"),
        120..2_880 => of((minutes + 30) / 60, "hour"),
        _ => of((minutes + 720) / 1_440, "day"),
    }
}

#[cfg(test)]
mod tests;
