//! One feed: when something came, how long it usually says nothing, and whether it is silent.

use std::collections::BTreeMap;

use event::Time;
use event::source::{Arrival, Feed};
use serde::{Deserialize, Serialize};

use super::gaps::Gaps;
use super::{DAY, HOUR, YOUNGEST};

/// A gap is twice as long as usual before it is a silence.
const FACTOR: i64 = 2;

/// So long every gap is learned whole; later one that was told as a silence counts as no longer than what was allowed
/// twice over, so that an outage does not make the next one pass for usual.
const LEARNING: i64 = 7 * DAY;

/// How often it is said that it goes on.
const AGAIN: i64 = HOUR;

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
    pub(super) counted: BTreeMap<u32, u64>,
    /// How long it usually says nothing.
    pub(super) gaps: Gaps,
    /// When its last silence ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) returned: Option<Time>,
}

/// Nothing comes, or nothing can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Since when: the last sign of life.
    pub since: Time,
    /// When that was noticed.
    pub noticed: Time,
    /// When it was last said.
    pub(super) said: Time,
    /// How often it was said before.
    pub(super) revision: u64,
}

impl Silence {
    pub(super) fn new(since: Time, now: Time) -> Silence {
        Silence {
            since,
            noticed: now,
            said: now,
            revision: 0,
        }
    }

    /// It goes on: said again from time to time, so that its alert is not taken for over.
    pub(super) fn again(self, now: Time) -> Option<Silence> {
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
    pub(super) fn new(feed: Feed, at: Time) -> Watched {
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
    pub(super) fn age(&self) -> i64 {
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
    pub(super) fn sign(&mut self, at: Time, least: i64, missed: bool) {
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

    pub(super) fn arrived(&mut self, arrival: &Arrival, new: u64) {
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
