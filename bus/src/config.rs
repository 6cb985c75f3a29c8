//! What the operator can choose about the log.
//!
//! [`Options`] is the `bus` part of the configuration file and what [`crate::embedded::EmbeddedBus::open`] takes.
//! Partition counts are read once, when the data folder is created: a stored record was placed by them, so a later
//! change is refused. Retention and chunk size may change at any start. Nothing here says where the folder is: that
//! belongs to the program.

use serde::{Deserialize, Serialize};

use crate::{BusError, Topic};

/// The settings of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How many partitions each topic has; fixed once the data folder exists.
    pub partitions: Partitions,
    /// How many hours each topic keeps its records.
    pub retention_hours: RetentionHours,
    /// The size of the files in which `events` are kept, compressed.
    pub chunk: Chunk,
    /// Keep the log on Apache Kafka instead of on this machine.
    pub kafka: Option<crate::kafka::config::Options>,
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
    /// Of the topic `sources`.
    pub sources: u32,
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
    /// Of the topic `sources`.
    pub sources: u32,
}

/// The files of the topic `events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Chunk {
    /// A file that has reached this many bytes gets no more.
    pub bytes: u64,
}

/// The most partitions that a topic can have.
const MAX_PARTITIONS: u32 = 1024;

impl Options {
    /// Refuses numbers that cannot work; [`crate::embedded::EmbeddedBus::open`] asks this too.
    pub fn check(&self) -> Result<(), BusError> {
        for topic in Topic::ALL {
            let name = topic.as_str();
            let count = self.partitions.of(topic);
            if count == 0 || count > MAX_PARTITIONS {
                return Err(BusError::Refused(format!(
                    "{name} cannot have {count} partitions: between 1 and {MAX_PARTITIONS} can be had"
                )));
            }
            if self.retention_hours.micros(topic) == 0 {
                return Err(BusError::Refused(format!(
                    "{name} cannot be kept for 0 hours: at least 1 is needed to read it"
                )));
            }
        }
        if let Some(kafka) = &self.kafka {
            let problems = kafka.problems();
            if !problems.is_empty() {
                return Err(BusError::Refused(format!(
                    "kafka.{}",
                    problems.join("\nkafka.")
                )));
            }
        }
        if self.chunk.bytes == 0 {
            return Err(BusError::Refused("a chunk of 0 bytes holds nothing".into()));
        }
        Ok(())
    }
}

impl Default for Partitions {
    fn default() -> Partitions {
        Partitions {
            events: 4,
            matches: 4,
            meters: 4,
            findings: 4,
            dead_letters: 4,
            sources: 1,
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
            sources: 7 * 24,
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
            Topic::Sources => self.sources,
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
            sources: count,
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
            Topic::Sources => self.sources,
        };
        i64::from(hours) * 3_600_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        let read: Options =
            serde_json::from_str(r#"{"retention_hours":{"events":24},"chunk":{}}"#).unwrap();
        let mut expected = Options::default();
        expected.retention_hours.events = 24;
        assert_eq!(read, expected);
        expected.check().unwrap();
        let text = serde_json::to_string(&expected).unwrap();
        assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), expected);
    }

    #[test]
    fn unknown_keys_and_impossible_numbers_are_refused() {
        for text in [r#"{"partition":1}"#, r#"{"partitions":{"event":1}}"#] {
            assert!(serde_json::from_str::<Options>(text).is_err(), "{text}");
        }
        let check = |text: &str, expected: &str| {
            let options: Options = serde_json::from_str(text).unwrap();
            let refused = options.check().unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        };
        check(
            r#"{"partitions":{"events":0}}"#,
            "events cannot have 0 partitions",
        );
        check(
            r#"{"partitions":{"meters":1025}}"#,
            "meters cannot have 1025 partitions",
        );
        check(
            r#"{"retention_hours":{"matches":0}}"#,
            "matches cannot be kept for 0 hours",
        );
        check(r#"{"chunk":{"bytes":0}}"#, "a chunk of 0 bytes");
    }
}
