//! What the operator can choose about the log of one machine.
//!
//! [`Options`] is the `bus` part of the configuration file and what [`crate::embedded::EmbeddedBus::open`] takes.
//! Partition counts are read once, when the data folder is created: a stored record was placed by them, so a later
//! change is refused. Retention and chunk size may change at any start. Nothing here says where the folder is: that
//! belongs to the program.

use serde::{Deserialize, Serialize};

use crate::Topic;

/// The settings of the embedded log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How many partitions each topic has; fixed once the data folder exists.
    pub partitions: Partitions,
    /// How many hours each topic keeps its records.
    pub retention_hours: RetentionHours,
    /// The size of the files in which `events` are kept, compressed.
    pub chunk: Chunk,
}

/// Partitions per topic: how many workers can share one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Partitions {
    /// Of the topic `events`.
    pub events: u32,
    /// Of the topic `matches`.
    pub matches: u32,
    /// Of the topic `meters`.
    pub meters: u32,
    /// Of the topic `findings`.
    pub findings: u32,
    /// Of the topic `dead_letters`.
    pub dead_letters: u32,
}

/// Hours per topic for which a record is kept at least, counted from when it was appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionHours {
    /// Of the topic `events`; whole chunks are dropped, so up to an eighth more is kept.
    pub events: u32,
    /// Of the topic `matches`.
    pub matches: u32,
    /// Of the topic `meters`.
    pub meters: u32,
    /// Of the topic `findings`.
    pub findings: u32,
    /// Of the topic `dead_letters`.
    pub dead_letters: u32,
}

/// The files of the topic `events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Chunk {
    /// A file that has reached this many bytes gets no more.
    pub bytes: u64,
}

impl Default for Partitions {
    fn default() -> Partitions {
        Partitions {
            events: 4,
            matches: 4,
            meters: 4,
            findings: 4,
            dead_letters: 4,
        }
    }
}

impl Default for RetentionHours {
    fn default() -> RetentionHours {
        RetentionHours {
            events: 7 * 24,
            matches: 7 * 24,
            meters: 7 * 24,
            findings: 7 * 24,
            dead_letters: 30 * 24,
        }
    }
}

impl Default for Chunk {
    fn default() -> Chunk {
        Chunk { bytes: 64 << 20 }
    }
}

impl Partitions {
    /// The count of one topic.
    pub fn of(&self, topic: Topic) -> u32 {
        match topic {
            Topic::Events => self.events,
            Topic::Matches => self.matches,
            Topic::Meters => self.meters,
            Topic::Findings => self.findings,
            Topic::DeadLetters => self.dead_letters,
        }
    }

    /// The same count for every topic.
    pub fn all(count: u32) -> Partitions {
        Partitions {
            events: count,
            matches: count,
            meters: count,
            findings: count,
            dead_letters: count,
        }
    }
}

impl RetentionHours {
    /// The retention of one topic in microseconds, the unit of [`event::Time`].
    pub fn micros(&self, topic: Topic) -> i64 {
        let hours = match topic {
            Topic::Events => self.events,
            Topic::Matches => self.matches,
            Topic::Meters => self.meters,
            Topic::Findings => self.findings,
            Topic::DeadLetters => self.dead_letters,
        };
        i64::from(hours) * 3_600_000_000
    }
}
