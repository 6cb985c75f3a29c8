//! What people are shown of sources: a row for each account and region, the collectors, and what was never seen.
//!
//! [`Report::of`] makes it of what the store knows, the rules and the inventory; the console and `trailwarden sources`
//! show the same report.

use std::collections::{BTreeMap, BTreeSet};

use event::inventory::Inventory;
use event::source::{Collector, Feed};
use event::{Str, Time, wildcard};
use serde::{Deserialize, Serialize};

use super::{Blind, KnownCollector, Options, State, Watched, within, words};
use crate::store::SeenFunction;

/// A collector that has not told of itself for so long is not running, in microseconds.
const GONE: i64 = 5 * 60_000_000;

/// What arrives, how late, what is silent, and what that blinds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// One for each source, account and region.
    pub sources: Vec<Source>,
    /// Those who fetch them.
    pub collectors: Vec<Fetching>,
    /// What is silent, the widest, with the rules that see nothing of it.
    pub silent: Vec<Silent>,
    /// What the inventory expects and was never seen.
    pub unseen: Unseen,
}

/// What arrives from one source, account and region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The source, such as `aws.cloudtrail`.
    pub source: String,
    /// The account; empty where it does not say.
    pub account: String,
    /// What the inventory calls the account.
    pub account_name: String,
    /// The region; empty where it does not say.
    pub region: String,
    /// How it is.
    pub state: State,
    /// When something first came.
    pub first_seen: Time,
    /// When an event was last taken in.
    pub last_ingest: Option<Time>,
    /// The latest time of an event.
    pub last_event: Option<Time>,
    /// When it was last shown to be alive without an event.
    pub last_heartbeat: Option<Time>,
    /// How long its latest events took to arrive, in seconds.
    pub delay_seconds: f64,
    /// Events taken in within this hour and the one before.
    pub events_last_hour: u64,
    /// Events taken in within the last 24 hours, the current one included.
    pub events_last_day: u64,
    /// After so many seconds without a sign of life it is silent.
    pub silent_after_seconds: i64,
    /// How many rules look at it.
    pub rules: usize,
}

/// What is silent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Silent {
    /// Which; empty texts stand for all.
    #[serde(flatten)]
    pub feed: Feed,
    /// Since when.
    pub since: Time,
    /// The rules that see nothing of it, the worst first.
    pub blind: Vec<Blind>,
}

/// A collector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fetching {
    /// What it last told of itself.
    #[serde(flatten)]
    pub collector: Collector,
    /// `well`, `failing`, or `gone` where it tells nothing any more.
    pub state: String,
    /// Other nodes that read the same though only one may.
    pub beside: Vec<Str>,
}

/// What the inventory expects and was never seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Unseen {
    /// Accounts from which nothing has come, with their names.
    pub accounts: Vec<Expected>,
    /// Regions of accounts from which something has come elsewhere.
    pub regions: Vec<Expected>,
    /// Functions and patterns of functions of which no line has come.
    pub functions: Vec<Expected>,
}

impl Unseen {
    /// Was all seen?
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.regions.is_empty() && self.functions.is_empty()
    }
}

/// Something that is expected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Expected {
    /// The account.
    pub account: String,
    /// What the inventory calls it.
    pub account_name: String,
    /// The region or the function; empty for an account.
    pub name: String,
    /// Who answers for it.
    pub owner: String,
    /// How much it matters.
    pub criticality: String,
}

/// What a report is made of.
pub struct Known<'k> {
    /// Feeds, the wider before those within them.
    pub feeds: &'k [Watched],
    /// Collectors.
    pub collectors: &'k [KnownCollector],
    /// Functions.
    pub functions: &'k [SeenFunction],
    /// What is expected.
    pub inventory: &'k Inventory,
    /// The rules that look at a source.
    pub blind: &'k dyn Fn(&str) -> Vec<Blind>,
}

impl Fetching {
    /// What to do where other nodes read the same.
    pub fn shared_hint(&self) -> &'static str {
        words::SHARED_HINT
    }
}

impl Report {
    /// What is to be shown at a time.
    pub fn of(known: &Known<'_>, options: &Options, now: Time) -> Report {
        let by_feed: BTreeMap<&Feed, &Watched> = known.feeds.iter().map(|w| (&w.feed, w)).collect();
        let wider: BTreeSet<Feed> = by_feed
            .keys()
            .flat_map(|feed| within(feed).filter(move |w| w != *feed))
            .collect();
        let mut rules: BTreeMap<&str, Vec<Blind>> = BTreeMap::new();
        let mut silent = Vec::new();
        let mut sources = Vec::new();
        for watched in known.feeds {
            let feed = &watched.feed;
            let looking = rules.entry(&feed.source).or_insert_with(|| {
                let mut blind = (known.blind)(&feed.source);
                blind.sort_by(|a, b| (b.severity, &a.title).cmp(&(a.severity, &b.title)));
                blind
            });
            let covering = within(feed).filter(|w| w != feed);
            let covered = covering
                .filter_map(|w| by_feed.get(&w))
                .any(|w| w.silent.is_some());
            if let Some(silence) = watched.silent.filter(|_| !covered) {
                silent.push(Silent {
                    feed: feed.clone(),
                    since: silence.since,
                    blind: looking.clone(),
                });
            }
            if wider.contains(feed) {
                continue;
            }
            let said = |time: Time| (time > Time::MIN).then_some(time);
            let account = known.inventory.account(&feed.account);
            sources.push(Source {
                source: feed.source.to_string(),
                account: feed.account.to_string(),
                account_name: account.map(|a| a.name.to_string()).unwrap_or_default(),
                region: feed.region.to_string(),
                state: match covered && watched.state(now) != State::Passing {
                    true => State::Silent,
                    false => watched.state(now),
                },
                first_seen: watched.first,
                last_ingest: said(watched.last),
                last_event: said(watched.last_event),
                last_heartbeat: watched.heartbeat,
                delay_seconds: watched.delay as f64 / 1e6,
                events_last_hour: watched.events_within(2, now),
                events_last_day: watched.events_within(24, now),
                silent_after_seconds: watched.silent_after(options.least) / 1_000_000,
                rules: looking.len(),
            });
        }
        let known_collectors = known.collectors;
        let fetching = |known: &KnownCollector| {
            let collector = known.collector.clone();
            let state = match collector.failing {
                _ if now.0 - collector.at.0 > GONE => "gone",
                Some(_) => "failing",
                None => "well",
            };
            let reads = (state != "gone" && !collector.alone.is_empty())
                .then_some((&collector.kind, &collector.alone));
            let others = known_collectors.iter().map(|k| &k.collector);
            let others = others.filter(|c| {
                reads == Some((&c.kind, &c.alone))
                    && c.node != collector.node
                    && now.0 - c.at.0 <= GONE
            });
            Fetching {
                state: state.to_owned(),
                beside: others.map(|c| c.node.clone()).collect(),
                collector,
            }
        };
        Report {
            sources,
            collectors: known.collectors.iter().map(fetching).collect(),
            silent,
            unseen: unseen(known),
        }
    }

    /// Is nothing silent, failing, read by two nodes, or missing?
    pub fn is_well(&self) -> bool {
        let failing = self.collectors.iter().any(|c| c.state == "failing");
        let shared = self.collectors.iter().any(|c| !c.beside.is_empty());
        self.silent.is_empty() && !failing && !shared && self.unseen.is_empty()
    }
}

fn unseen(known: &Known<'_>) -> Unseen {
    let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for watched in known.feeds {
        let regions = seen.entry(&watched.feed.account).or_default();
        regions.insert(&watched.feed.region);
    }
    let mut functions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for function in known.functions {
        let names = functions.entry(&function.account).or_default();
        names.push(&function.function);
    }
    let mut unseen = Unseen::default();
    for account in known.inventory.accounts().iter().filter(|a| !a.suspended) {
        let expected = Expected {
            account: account.account.to_string(),
            account_name: account.name.to_string(),
            owner: account.owner.to_string(),
            criticality: account.criticality.to_string(),
            name: String::new(),
        };
        let Some(regions) = seen.get(account.account.as_str()) else {
            unseen.accounts.push(expected);
            continue;
        };
        let missing = account
            .regions
            .iter()
            .filter(|r| !regions.contains(r.as_str()));
        unseen.regions.extend(missing.map(|region| Expected {
            name: region.to_string(),
            ..expected.clone()
        }));
    }
    for function in known.inventory.functions() {
        let names = functions.get(function.account.as_str());
        let mut names = names.into_iter().flatten();
        if names.any(|name| wildcard::matches(&function.name, name)) {
            continue;
        }
        let account = known.inventory.account(&function.account);
        unseen.functions.push(Expected {
            account: function.account.to_string(),
            account_name: account.map(|a| a.name.to_string()).unwrap_or_default(),
            name: function.name.to_string(),
            owner: function.owner.to_string(),
            criticality: function.criticality.to_string(),
        });
    }
    unseen
}

#[cfg(test)]
mod tests {
    use event::inventory::{Account, Function};
    use event::source::{Arrival, FunctionSeen, SourceRecord};

    use super::super::Watch;
    use super::*;

    const MINUTE: i64 = 60_000_000;

    #[test]
    fn what_is_silent_and_what_was_never_seen() {
        let options = Options {
            least: 15 * MINUTE,
            ignore: BTreeSet::new(),
        };
        let feed = |account: &str, region: &str| Feed {
            source: "aws.cloudtrail".into(),
            account: account.into(),
            region: region.into(),
        };
        let mut watch = Watch::default();
        let begin = Time(20_000 * 1_440 * MINUTE);
        let mut now = begin;
        for minute in 0..3 * 1_440 {
            now = begin.plus(minute * MINUTE);
            for (account, region) in [("1", "a"), ("1", "b"), ("2", "a")] {
                if minute < 3 * 1_440 - 60 || account == "1" {
                    let arrival = Arrival {
                        feed: feed(account, region),
                        partition: 0,
                        events: minute as u64 + 1,
                        last_ingest: now,
                        last_event: now,
                        delay: 2 * MINUTE,
                    };
                    watch.take(SourceRecord::Arrival(arrival), &options);
                }
            }
            watch.judge(now, Time::MIN, &options, &|_| Vec::new());
        }
        let seen = FunctionSeen {
            account: "1".into(),
            function: "pay-eu".into(),
            last_ingest: now,
        };
        watch.take(SourceRecord::Function(seen), &options);
        let account = |number: &str, regions: &[&str]| Account {
            account: number.into(),
            name: format!("name {number}").into(),
            regions: regions.iter().map(|r| (*r).into()).collect(),
            ..Account::default()
        };
        let function = |name: &str| Function {
            account: "1".into(),
            name: name.into(),
            ..Function::default()
        };
        let closed = Account {
            suspended: true,
            ..account("4", &[])
        };
        let inventory = Inventory::new(
            vec![
                account("1", &["a", "c"]),
                account("2", &[]),
                account("3", &[]),
                closed,
            ],
            vec![function("pay-*"), function("ship")],
        );
        let feeds: Vec<Watched> = watch.feeds().cloned().collect();
        let functions = [SeenFunction {
            account: "1".into(),
            function: "pay-eu".into(),
            last: now,
        }];
        let blind = |_: &str| {
            vec![Blind {
                title: "a rule".into(),
                severity: event::Severity::High,
            }]
        };
        let known = Known {
            feeds: &feeds,
            collectors: &[],
            functions: &functions,
            inventory: &inventory,
            blind: &blind,
        };
        let report = Report::of(&known, &options, now);
        let rows: Vec<_> = report
            .sources
            .iter()
            .map(|s| (s.account.as_str(), s.region.as_str(), s.state, s.rules))
            .collect();
        assert_eq!(
            rows,
            [
                ("1", "a", State::Arriving, 1),
                ("1", "b", State::Arriving, 1),
                ("2", "a", State::Silent, 1)
            ]
        );
        let [silent] = &report.silent[..] else {
            panic!("{:?}", report.silent)
        };
        assert_eq!(
            (silent.feed.clone(), silent.blind.len()),
            (feed("2", ""), 1)
        );
        let names = |of: &[Expected]| {
            of.iter()
                .map(|e| format!("{} {}", e.account, e.name))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&report.unseen.accounts), ["3 "]);
        assert_eq!(names(&report.unseen.regions), ["1 c"]);
        assert_eq!(names(&report.unseen.functions), ["1 ship"]);
        assert!(!report.is_well());
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
