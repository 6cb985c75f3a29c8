//! What arrived from where: counted by the match stage, told on the topic `sources`.
//!
//! [`Arrivals`] of one partition of `events` keeps an [`Arrival`] for each source, account and region, cumulative, and
//! tells of those that have changed, each every ten seconds at most; what was told is part of the stage's state, so that
//! a crash forgets no more than was counted since. Of functions it tells once an hour that they were seen. Who watches
//! sources takes the greatest count of a partition and sums over partitions, so that repeats are harmless. It judges
//! nothing, and what it knows is bounded: made-up accounts beyond the bound are told under no account.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bus::{Record, StateChange};
use bytes::Bytes;
use event::source::{Arrival, Feed, FunctionSeen, SourceRecord};
use event::{Event, Flag, Str, Time};

/// Keys of the match stage's state that hold arrivals begin so.
pub const STATE_PREFIX: &[u8] = b"arrival/";

/// How many feeds are told apart.
const MOST_FEEDS: usize = 10_000;

/// How often it is told of a feed at most: what is told must not be more than what arrives.
const EVERY: i64 = 10_000_000;

/// How many functions are remembered as told of; beyond, all are forgotten and told of once more.
const MOST_FUNCTIONS: usize = 100_000;

/// How often it is told that a function was seen.
const AGAIN: i64 = 3_600_000_000;

/// What arrived in one partition of `events`.
#[derive(Debug)]
pub struct Arrivals {
    partition: u32,
    known: BTreeMap<Feed, Arrival>,
    /// What is to be told: the sum of delays since it was last told, and how many.
    delays: BTreeMap<Feed, (i64, i64)>,
    /// When it was last told of a feed.
    told: BTreeMap<Feed, Time>,
    /// When it was last told of a function.
    functions: HashMap<(Str, Str), Time>,
    seen: BTreeSet<(Str, Str)>,
}

impl Arrivals {
    /// What had arrived when these rows of state were committed. A row that cannot be read begins anew.
    pub fn restore(partition: u32, rows: &[(Vec<u8>, Vec<u8>)]) -> Arrivals {
        let read = |(_, value): &(Vec<u8>, Vec<u8>)| serde_json::from_slice::<Arrival>(value).ok();
        Arrivals {
            partition,
            known: rows
                .iter()
                .filter_map(read)
                .map(|a| (a.feed.clone(), a))
                .collect(),
            delays: BTreeMap::new(),
            told: BTreeMap::new(),
            functions: HashMap::new(),
            seen: BTreeSet::new(),
        }
    }

    /// Takes note of an event that was not there before.
    pub fn see(&mut self, event: &Event) {
        let mut feed = Feed {
            source: event.source.clone(),
            account: event.account.clone(),
            region: event.region.clone(),
        };
        if event.source == "aws.lambda" {
            // Most of a function's lines do not say in which region it runs.
            feed.region = Str::default();
        }
        if self.known.len() >= MOST_FEEDS && !self.known.contains_key(&feed) {
            (feed.account, feed.region) = (Str::default(), Str::default());
        }
        let known = self.known.entry(feed.clone()).or_insert_with(|| Arrival {
            feed: feed.clone(),
            partition: self.partition,
            events: 0,
            last_ingest: Time::MIN,
            last_event: Time::MIN,
            delay: 0,
        });
        known.events += 1;
        known.last_ingest = known.last_ingest.max(event.ingest_time);
        if !event.flags.has(Flag::TsFuture) {
            known.last_event = known.last_event.max(event.time);
        }
        let delay = self.delays.entry(feed).or_default();
        delay.0 = delay
            .0
            .saturating_add((event.ingest_time.0 - event.time.0).max(0));
        delay.1 += 1;
        if event.source == "aws.lambda" && !event.function.is_empty() {
            let function = (event.account.clone(), event.function.clone());
            let told = self.functions.get(&function);
            if told.is_none_or(|told| event.ingest_time >= told.plus(AGAIN)) {
                if self.functions.len() >= MOST_FUNCTIONS {
                    self.functions.clear();
                }
                self.functions.insert(function.clone(), event.ingest_time);
                self.seen.insert(function);
            }
        }
    }

    /// Is there anything to tell at this time?
    pub fn is_due(&self, now: Time) -> bool {
        !self.seen.is_empty() || self.delays.keys().any(|feed| self.may_tell(feed, now))
    }

    fn may_tell(&self, feed: &Feed, now: Time) -> bool {
        let told = self.told.get(feed);
        // A clock that was set back keeps nobody waiting.
        told.is_none_or(|told| !(told.0..told.0 + EVERY).contains(&now.0))
    }

    /// What there is to tell at this time, for the log and for the state of the stage. Both go into one commit.
    pub fn flush(&mut self, now: Time) -> (Vec<Record>, Vec<StateChange>) {
        let (mut records, mut state) = (Vec::new(), Vec::new());
        let due: Vec<Feed> = self
            .delays
            .keys()
            .filter(|f| self.may_tell(f, now))
            .cloned()
            .collect();
        for feed in due {
            let Some((sum, count)) = self.delays.remove(&feed) else {
                continue;
            };
            self.told.insert(feed.clone(), now);
            let Some(arrival) = self.known.get_mut(&feed) else {
                continue;
            };
            arrival.delay = sum / count;
            let mut key = STATE_PREFIX.to_vec();
            key.extend(feed.key().to_bytes());
            state.push(StateChange {
                partition: self.partition,
                key,
                value: Some(serde_json::to_vec(arrival).expect("texts and numbers")),
                expires: None,
            });
            records.push(record(&SourceRecord::Arrival(arrival.clone()), now));
        }
        for function in std::mem::take(&mut self.seen) {
            let last_ingest = self.functions.get(&function).copied().unwrap_or(now);
            let (account, function) = function;
            let seen = FunctionSeen {
                account,
                function,
                last_ingest,
            };
            records.push(record(&SourceRecord::Function(seen), now));
        }
        (records, state)
    }
}

fn record(record: &SourceRecord, now: Time) -> Record {
    let (key, value) = record.encode();
    Record {
        key: Bytes::from(key),
        value: Bytes::from(value),
        time: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(source: &str, account: &str, second: i64) -> Event {
        Event {
            source: source.into(),
            account: account.into(),
            region: "eu-west-1".into(),
            function: if source == "aws.lambda" {
                "f".into()
            } else {
                "".into()
            },
            time: Time(second * 1_000_000),
            ingest_time: Time((second + 60) * 1_000_000),
            ..Event::default()
        }
    }

    fn told(records: &[Record]) -> Vec<SourceRecord> {
        records
            .iter()
            .map(|r| SourceRecord::decode(&r.value).unwrap())
            .collect()
    }

    #[test]
    fn counts_are_cumulative_and_survive_a_restart() {
        let mut arrivals = Arrivals::restore(2, &[]);
        for second in [10, 30, 20] {
            arrivals.see(&event("aws.cloudtrail", "1", second));
        }
        arrivals.see(&event("aws.cloudtrail", "2", 5));
        let (records, state) = arrivals.flush(Time(0));
        assert_eq!((records.len(), state.len()), (2, 2));
        // Not again before ten seconds have passed.
        arrivals.see(&event("aws.cloudtrail", "2", 6));
        assert!(!arrivals.is_due(Time(EVERY - 1)));
        assert_eq!(arrivals.flush(Time(EVERY - 1)).0, []);
        assert!(arrivals.is_due(Time(EVERY)));
        assert_eq!(arrivals.flush(Time(EVERY)).0.len(), 1);
        let rows: Vec<_> = state
            .into_iter()
            .map(|s| (s.key, s.value.unwrap()))
            .collect();
        let mut arrivals = Arrivals::restore(2, &rows);
        assert_eq!(arrivals.flush(Time(0)).0, []);
        arrivals.see(&event("aws.cloudtrail", "1", 15));
        let (records, _) = arrivals.flush(Time(0));
        let [SourceRecord::Arrival(arrival)] = &told(&records)[..] else {
            panic!("{records:?}");
        };
        assert_eq!((arrival.events, arrival.partition), (4, 2));
        assert_eq!(
            (arrival.last_event, arrival.last_ingest),
            (Time(30_000_000), Time(90_000_000))
        );
        assert_eq!(arrival.delay, 60_000_000);
    }

    #[test]
    fn a_function_is_told_of_once_an_hour() {
        let mut arrivals = Arrivals::restore(0, &[]);
        let mut functions = 0;
        for second in (0..7_200).step_by(60) {
            arrivals.see(&event("aws.lambda", "1", second));
            let (records, _) = arrivals.flush(Time(second * 1_000_000));
            functions += told(&records)
                .iter()
                .filter(|r| matches!(r, SourceRecord::Function(_)))
                .count();
        }
        assert_eq!(functions, 2);
    }

    #[test]
    fn made_up_accounts_are_bounded() {
        let mut arrivals = Arrivals::restore(0, &[]);
        for n in 0..MOST_FEEDS + 50 {
            arrivals.see(&event("aws.cloudtrail", &n.to_string(), 1));
        }
        assert_eq!(arrivals.known.len(), MOST_FEEDS + 1);
        let rest = &arrivals.known[&Feed {
            source: "aws.cloudtrail".into(),
            ..Feed::default()
        }];
        assert_eq!(rest.events, 50);
    }
}
