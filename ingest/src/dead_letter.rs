//! Dead letters: what could not become an event, with its reason, to be looked at and replayed.
//!
//! A [`DeadLetter`] is JSON on the topic `dead_letters`. It keeps the first bytes of what was received and says
//! where that came from. [`list`] and [`show`] read them back; [`replay`] decodes the kept bytes again, after
//! whatever was wrong with the program was mended, and appends the events. As ids are deterministic, replaying
//! twice changes nothing. Letters are never changed or removed here: retention of the topic drops them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bus::{Bus, BusError, Offset, Record, Topic};
use bytes::Bytes;
use event::{Id, Str, Time};
use serde::{Deserialize, Serialize};

use crate::append::Appender;
use crate::decode::{Bad, Decoder, Item, Job, Limits, Reason};
use crate::metrics::Metrics;
use crate::normalize::{Context, Normalizer};
use crate::treatment::Treatment;

/// The version of the letter's form.
const VERSION: u8 = 1;

/// How much is read of the topic at a time.
const READ_BYTES: usize = 1 << 20;

/// What could not become an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The version of this form.
    pub version: u8,
    /// The kind of trouble.
    pub reason: Reason,
    /// What is wrong, for people.
    pub message: String,
    /// The object, stream or request that it came from.
    pub object: Str,
    /// The number of the piece in it.
    pub position: u64,
    /// Where the piece begins in the uncompressed object.
    pub offset: u64,
    /// How many bytes the piece had, secrets counted as what replaced them; `bytes` may hold fewer.
    pub size: u64,
    /// The first bytes of the piece, as text or in base64.
    pub bytes: String,
    /// Is `bytes` in base64, because the piece is not UTF-8?
    pub base64: bool,
    /// When it was received.
    pub time: Time,
}

/// Why a letter cannot be shown or replayed.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The log failed.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// There is no letter there.
    #[error("no dead letter at {0}")]
    Absent(Place),
    /// What is stored there is no letter of this version.
    #[error("cannot read the dead letter at {0}")]
    Unreadable(Place, #[source] serde_json::Error),
    /// It tells of an object that could not be read.
    #[error(
        "the dead letter at {place} holds nothing: `{object}` could not be read; have it told of again"
    )]
    Unread {
        /// Which letter.
        place: Place,
        /// What could not be read.
        object: Str,
    },
    /// Only a part of the piece was kept.
    #[error(
        "the dead letter at {place} keeps only {kept} of {size} bytes; replay `{object}` instead"
    )]
    Cut {
        /// Which letter.
        place: Place,
        /// Bytes kept.
        kept: u64,
        /// Bytes there were.
        size: u64,
        /// Where the rest is.
        object: Str,
    },
}

/// Which letter: its partition and offset on the topic, written `partition:offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The partition.
    pub partition: u32,
    /// The offset within it.
    pub offset: Offset,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl std::str::FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Place, Self::Err> {
        let (partition, offset) = text
            .split_once(':')
            .ok_or("a dead letter is named `partition:offset`")?;
        match (partition.parse(), offset.parse()) {
            (Ok(partition), Ok(offset)) => Ok(Place { partition, offset }),
            _ => Err("a dead letter is named `partition:offset`"),
        }
    }
}

impl DeadLetter {
    /// The letter of a bad piece of `object`.
    pub fn of(bad: &Bad<'_>, object: &str, time: Time) -> DeadLetter {
        let mut letter = DeadLetter {
            version: VERSION,
            reason: bad.reason,
            message: bad.message.to_owned(),
            object: object.into(),
            position: bad.position,
            offset: bad.offset,
            size: bad.size,
            bytes: String::new(),
            base64: false,
            time,
        };
        letter.set_content(bad.bytes);
        letter
    }

    /// Puts other bytes in place of those that were kept.
    pub(crate) fn set_content(&mut self, content: &[u8]) {
        (self.bytes, self.base64) = match std::str::from_utf8(content) {
            Ok(text) => (text.to_owned(), false),
            Err(_) => (BASE64.encode(content), true),
        };
    }

    /// The bytes that were kept.
    pub fn content(&self) -> Vec<u8> {
        if self.base64 {
            BASE64.decode(&self.bytes).unwrap_or_default()
        } else {
            self.bytes.clone().into_bytes()
        }
    }

    /// The record of this letter.
    pub fn record(&self) -> Record {
        let id = Id::position(&self.object, self.position);
        Record {
            key: Bytes::from(id.to_string()),
            value: Bytes::from(serde_json::to_vec(self).expect("a letter has only text keys")),
            time: self.time,
        }
    }
}

/// The newest letters, newest first, at most `limit`.
pub fn list(bus: &dyn Bus, limit: usize) -> Result<Vec<(Place, DeadLetter)>, DeadLetterError> {
    let mut newest: Vec<(Place, DeadLetter)> = Vec::new();
    for partition in 0..bus.partitions(Topic::DeadLetters) {
        let bounds = bus.bounds(Topic::DeadLetters, partition)?;
        let mut from = bounds.start.max(bounds.end.saturating_sub(limit as u64));
        while from < bounds.end {
            let batch = bus.read(Topic::DeadLetters, partition, from, READ_BYTES)?;
            if batch.records.is_empty() {
                break;
            }
            for (offset, record) in batch.records {
                let place = Place { partition, offset };
                newest.push((place, read(place, &record)?));
            }
            from = batch.next;
        }
    }
    newest.sort_by_key(|(place, letter)| std::cmp::Reverse((letter.time, *place)));
    newest.truncate(limit);
    Ok(newest)
}

/// One letter.
pub fn show(bus: &dyn Bus, place: Place) -> Result<DeadLetter, DeadLetterError> {
    let absent = || DeadLetterError::Absent(place);
    if place.partition >= bus.partitions(Topic::DeadLetters) {
        return Err(absent());
    }
    let bounds = bus.bounds(Topic::DeadLetters, place.partition)?;
    if !bounds.contains(&place.offset) {
        return Err(absent());
    }
    let batch = bus.read(Topic::DeadLetters, place.partition, place.offset, 1)?;
    match batch.records.first() {
        Some((offset, record)) if *offset == place.offset => read(place, record),
        _ => Err(absent()),
    }
}

fn read(place: Place, record: &Record) -> Result<DeadLetter, DeadLetterError> {
    serde_json::from_slice(&record.value).map_err(|e| DeadLetterError::Unreadable(place, e))
}

/// What became of a replayed letter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Events appended.
    pub events: u64,
    /// What still cannot be read, in words; no new letter is written for it.
    pub still_bad: Vec<String>,
}

/// Decodes a letter's bytes again and appends what comes of them.
pub fn replay(
    bus: &dyn Bus,
    place: Place,
    limits: &Limits,
    (metrics, treatment): (&Metrics, &Treatment),
    now: Time,
) -> Result<Replayed, DeadLetterError> {
    let letter = show(bus, place)?;
    if letter.reason.is_of_object() {
        return Err(DeadLetterError::Unread {
            place,
            object: letter.object,
        });
    }
    let content = letter.content();
    if (content.len() as u64) < letter.size {
        return Err(DeadLetterError::Cut {
            place,
            kept: content.len() as u64,
            size: letter.size,
            object: letter.object,
        });
    }
    let context = Context {
        ingest_time: now,
        object: letter.object.clone(),
        keep_raw: true,
    };
    let job = Job {
        first_position: letter.position,
        ..Job::default()
    };
    let mut replayed = Replayed::default();
    let mut appender = Appender::new(bus, metrics, treatment, "replay");
    let mut normalizer = Normalizer::new();
    Decoder::new(*limits).bytes(&content, &job, &mut |item| match item {
        Item::Record(record) => appender.record(&mut normalizer, &record, &context),
        Item::Bad(bad) => {
            replayed
                .still_bad
                .push(format!("{}: {}", bad.reason.as_str(), bad.message));
            std::ops::ControlFlow::Continue(())
        }
    });
    replayed.events = appender.finish()?.events;
    Ok(replayed)
}

#[cfg(test)]
mod tests {
    use bus::embedded::{EmbeddedBus, Options};
    use event::Event;

    use super::*;

    fn letter(bytes: &[u8], size: u64, seconds: i64) -> DeadLetter {
        let bad = Bad {
            reason: Reason::BadJson,
            message: "json ends too early",
            bytes,
            size,
            offset: 7,
            position: 3,
        };
        DeadLetter::of(&bad, "some/object", Time::from_seconds(seconds))
    }

    #[test]
    fn letters_are_listed_shown_and_replayed() {
        let dir = tempfile::tempdir().unwrap();
        let bus = EmbeddedBus::open(dir.path(), Options::default()).unwrap();
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let good = letter(b"{\"a\":1}", 7, 1);
        let bad = letter(b"\xff{", 2, 3);
        let cut = letter(b"{\"a\"", 99, 2);
        let records = [&good, &bad, &cut].map(DeadLetter::record).to_vec();
        bus.append(Topic::DeadLetters, records).unwrap();

        let listed = list(&bus, 10).unwrap();
        let letters: Vec<_> = listed.iter().map(|(_, l)| l.clone()).collect();
        assert_eq!(letters, [bad.clone(), cut, good.clone()]);
        assert_eq!(list(&bus, 1).unwrap().len(), 1);
        let places: Vec<Place> = listed.iter().map(|(p, _)| *p).collect();
        assert_eq!(show(&bus, places[2]).unwrap(), good);
        assert_eq!(places[2].to_string().parse(), Ok(places[2]));
        assert_eq!(bad.content(), b"\xff{");

        let now = Time::from_seconds(9);
        let treatment = Treatment::off();
        let with = (&metrics, &treatment);
        let again = |place| replay(&bus, place, &Limits::of_files(), with, now);
        assert_eq!(again(places[2]).unwrap().events, 1);
        let still = again(places[0]).unwrap();
        assert_eq!((still.events, still.still_bad.len()), (0, 1));
        assert!(matches!(again(places[1]), Err(DeadLetterError::Cut { .. })));
        let absent = Place {
            partition: 0,
            offset: 99,
        };
        assert!(matches!(again(absent), Err(DeadLetterError::Absent(_))));

        let id = Id::position("some/object", 3);
        let partition = bus::partition_of(id.to_string().as_bytes(), bus.partitions(Topic::Events));
        let batch = bus.read(Topic::Events, partition, 0, 1 << 20).unwrap();
        assert_eq!(Event::decode(&batch.records[0].1.value).unwrap().id, id);
    }
}
