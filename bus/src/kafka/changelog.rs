//! What stands in a changelog topic, byte by byte, and which of it counts.
//!
//! A changelog partition has the commits of the consumers whose state lives there, in the order in which the brokers
//! took them. Each record is one part of a [`Delta`] (a commit without its outputs) or of a snapshot, in the encoding
//! of `postcard`:
//!
//! ```text
//! format   u8      FORMAT
//! kind     u8      0 delta, 1 snapshot
//! id       varint  the same for all parts of one delta or snapshot
//! part     varint  from 0
//! last     u8      1 for the last part
//! body     bytes   a piece of the delta's encoding; a whole list of [`Row`]s of the snapshot
//! ```
//!
//! The log decides who was first. A position in a delta names the delta that moved it last, as its writer knew it; a
//! delta counts if that is so for all its positions when the records before it are read, and is passed over otherwise.
//! So everybody who reads the same records comes to the same state, and a writer knows that its delta counts as soon as
//! it has landed where the writer believed the end to be, or has read what came in between. A snapshot is only looked
//! at by a reader that begins with it; it counts if its parts stand in a row. A delta whose parts stand on both sides of
//! the beginning of a snapshot does not count: who begins there cannot have it whole.

use serde::{Deserialize, Serialize};

use crate::{Commit, Offset, StateChange, Topic};
use event::Time;

/// The version of the encoding.
const FORMAT: u8 = 1;

/// How large a part is at most, so that the usual limit of one million bytes a record holds.
const PART_BYTES: usize = 900_000;

/// A record of a changelog.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part<'a> {
    format: u8,
    pub(super) kind: Kind,
    pub(super) id: u64,
    pub(super) part: u32,
    pub(super) last: bool,
    pub(super) body: &'a [u8],
}

/// What a part is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Delta,
    Snapshot,
}

/// A commit without its outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delta {
    pub(super) consumer: String,
    pub(super) positions: Vec<Moved>,
    pub(super) state: Vec<Change>,
}

/// A position that moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moved {
    pub(super) topic: u8,
    pub(super) partition: u32,
    /// The id of the delta that moved it last; 0 where none has.
    pub(super) after: u64,
    pub(super) to: Offset,
}

/// A key of state set or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) partition: u32,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) expires: Option<i64>,
}

/// A row of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Row {
    Position {
        consumer: String,
        topic: u8,
        partition: u32,
        next: Offset,
        /// The id of the delta that moved it there.
        by: u64,
    },
    State {
        consumer: String,
        change: Change,
    },
}

impl<'a> Part<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Part<'a>, String> {
        let part: Part<'a> = postcard::from_bytes(bytes).map_err(|e| e.to_string())?;
        if part.format != FORMAT {
            return Err(format!(
                "it has format {}, this program reads {FORMAT}: start the newer program again",
                part.format
            ));
        }
        Ok(part)
    }
}

impl Delta {
    pub(super) fn of(commit: &Commit, positions: Vec<Moved>) -> Delta {
        Delta {
            consumer: commit.consumer.clone(),
            positions,
            state: commit.state.iter().map(Change::of).collect(),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Delta, String> {
        postcard::from_bytes(bytes).map_err(|e| e.to_string())
    }

    /// The records that say it.
    pub(super) fn parts(&self, id: u64) -> Vec<Vec<u8>> {
        let whole = postcard::to_stdvec(self).expect("numbers, bytes and texts");
        let pieces: Vec<&[u8]> = whole.chunks(PART_BYTES).collect();
        (0..)
            .zip(&pieces)
            .map(|(part, piece)| {
                encode(
                    Kind::Delta,
                    id,
                    part,
                    part as usize + 1 == pieces.len(),
                    piece,
                )
            })
            .collect()
    }
}

impl Change {
    fn of(change: &StateChange) -> Change {
        Change {
            partition: change.partition,
            key: change.key.clone(),
            value: change.value.clone(),
            expires: change.expires.map(|t| t.0),
        }
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + 16
    }

    /// Has it ended by `now`?
    pub(super) fn is_over(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now.0)
    }
}

/// A part of a snapshot with as many rows as fit; gives how many.
pub(super) fn snapshot_part(id: u64, part: u32, rows: &[Row], last: bool) -> Vec<u8> {
    let body = postcard::to_stdvec(rows).expect("numbers, bytes and texts");
    encode(Kind::Snapshot, id, part, last, &body)
}

/// Is a list of rows of this many bytes enough for a part?
pub(super) fn is_full(bytes: usize) -> bool {
    bytes >= PART_BYTES / 2
}

pub(super) fn rows(body: &[u8]) -> Result<Vec<Row>, String> {
    postcard::from_bytes(body).map_err(|e| e.to_string())
}

fn encode(kind: Kind, id: u64, part: u32, last: bool, body: &[u8]) -> Vec<u8> {
    let part = Part {
        format: FORMAT,
        kind,
        id,
        part,
        last,
        body,
    };
    postcard::to_stdvec(&part).expect("numbers and bytes")
}

/// The number of a topic in a changelog; fixed for ever.
pub(super) fn number(topic: Topic) -> u8 {
    match topic {
        Topic::Events => 0,
        Topic::Matches => 1,
        Topic::Meters => 2,
        Topic::Findings => 3,
        Topic::DeadLetters => 4,
        Topic::Sources => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_of_any_size_comes_back() {
        for size in [0, 10, PART_BYTES, 3 * PART_BYTES + 17] {
            let delta = Delta {
                consumer: "c".into(),
                positions: vec![Moved {
                    topic: number(Topic::Matches),
                    partition: 3,
                    after: 9,
                    to: 1 << 40,
                }],
                state: vec![Change {
                    partition: 3,
                    key: b"k".to_vec(),
                    value: Some(vec![7; size]),
                    expires: Some(-1),
                }],
            };
            let parts = delta.parts(5);
            let mut whole = Vec::new();
            for (n, bytes) in parts.iter().enumerate() {
                let part = Part::decode(bytes).unwrap();
                assert_eq!((part.id, part.part as usize), (5, n));
                assert_eq!(part.last, n + 1 == parts.len());
                assert!(bytes.len() < 1_000_000);
                whole.extend_from_slice(part.body);
            }
            assert_eq!(Delta::decode(&whole).unwrap(), delta);
        }
    }

    #[test]
    fn foreign_records_are_refused() {
        assert!(Part::decode(b"").is_err());
        assert!(Part::decode(b"{\"a\":1}").is_err());
        let mut newer = encode(Kind::Delta, 1, 0, true, b"");
        newer[0] = FORMAT + 1;
        assert!(Part::decode(&newer).unwrap_err().contains("newer program"));
    }

    /// What is stored must be readable by every later version.
    #[test]
    fn the_encoding_is_frozen() {
        let delta = Delta {
            consumer: "match".into(),
            positions: vec![Moved {
                topic: 0,
                partition: 1,
                after: 2,
                to: 300,
            }],
            state: vec![Change {
                partition: 1,
                key: vec![1, 2],
                value: None,
                expires: Some(-3),
            }],
        };
        let hex: String = delta.parts(7)[0]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex, "010007000114056d6174636801000102ac020101020102000105");
    }
}
