//! What the leaves say, and what follows from all of them: [`Entry`] and [`State`].
//!
//! A leaf is one [`Entry`] as a line of JSON: that a stretch of the event log has become durable and what it hashes to,
//! that retention drops a file, that splits of the index are published and replaced, that the service starts and stops.
//! [`State`] takes the entries in their order and knows what should lie on the disk now. It is the same code for the
//! service, which goes on from there, and for whoever checks the disk against it.

use std::collections::BTreeMap;

use event::Time;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One thing that happened to the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// The service, or a command that writes, opened the store.
    Started {
        /// When.
        time: Time,
        /// The version of the program.
        version: String,
        /// What did not fit what was left at the last stop, in words.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        found: Vec<String>,
    },
    /// A stretch of the event log is durable.
    Log(Stretch),
    /// Retention is about to drop a file of the event log.
    Dropped {
        /// When.
        time: Time,
        /// The partition.
        partition: u32,
        /// The file, by its first offset.
        file: u64,
        /// One past its last offset.
        next: u64,
    },
    /// Splits of the index are about to be published or taken away, as one.
    Splits {
        /// When.
        time: Time,
        /// What for.
        why: Why,
        /// Is it part of one publication with the leaf before? They take effect together or not at all.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        joined: bool,
        /// The reason that was given for a removal, and who gave it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// The new split.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        added: Option<Added>,
        /// The numbers of those that go.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<u64>,
        /// The numbers of those that go and were no longer what had been published.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changed: Vec<u64>,
    },
    /// The last publication was cut off by a crash before it took effect.
    Undone {
        /// When this was seen.
        time: Time,
        /// The number of its leaf.
        leaf: u64,
    },
    /// Everything is written and nothing more comes until the next start.
    Stopped {
        /// When.
        time: Time,
    },
}

/// Part of a file of the event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// When it was taken in here.
    pub time: Time,
    /// The partition.
    pub partition: u32,
    /// The file, by its first offset.
    pub file: u64,
    /// Its first byte in the file.
    pub from: u64,
    /// One past its last byte.
    pub to: u64,
    /// The offset of its first record.
    pub first: u64,
    /// One past the offset of its last record.
    pub next: u64,
    /// SHA-256 of the bytes, hexadecimal.
    pub sha256: String,
}

/// Why splits change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It was there when this log began; nothing vouches for what it was before.
    Begin,
    /// New events.
    Index,
    /// Several are made into one.
    Merge,
    /// They are older than is kept.
    Retention,
    /// The index was larger than it may be.
    Size,
    /// Somebody removed them.
    Removed,
    /// They are built anew from the log.
    Rebuild,
}

/// A published split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Added {
    /// Its number.
    pub split: u64,
    /// What the index knows of it: events, times, offsets.
    pub meta: Value,
    /// SHA-256 of the list of its files, each with name, length and SHA-256; hexadecimal.
    pub files: String,
    /// The Merkle root over the hashes of its events, ascending; hexadecimal. None where the split has no such list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<String>,
}

/// A file of the event log, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// What it holds, in order and without gaps.
    pub stretches: Vec<Stretch>,
    /// Retention was about to drop it: one past its last offset.
    pub dropped: Option<u64>,
}

/// How far a partition of the event log is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct End {
    /// The last file, by its first offset.
    pub file: u64,
    /// How many of its bytes are known; none where retention has dropped it.
    pub len: u64,
    /// One past the last offset.
    pub next: u64,
}

impl Chunk {
    /// How many bytes of it are known.
    pub fn len(&self) -> u64 {
        self.stretches.last().map_or(0, |s| s.to)
    }

    /// Is nothing of it known?
    pub fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }
}

/// A split that is published, and the leaf that says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The number of the leaf.
    pub leaf: u64,
    /// When.
    pub time: Time,
    /// The split.
    pub added: Added,
}

/// The last publication, as long as nothing says that it took effect.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pending {
    /// The number of its leaf; the first, if there are several.
    pub leaf: u64,
    /// The splits that it added.
    pub added: Vec<u64>,
    /// The splits that it took away.
    pub removed: Vec<Held>,
}

/// What should lie on the disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// When the log began.
    pub began: Option<Time>,
    /// The time of the last leaf.
    pub newest: Option<Time>,
    /// Was everything written at the last stop, and has nothing started since?
    pub stopped: bool,
    /// The files of the event log by partition and first offset. Of dropped ones only the last of each partition stays:
    /// the next is only dropped when it is gone from the disk.
    pub chunks: BTreeMap<(u32, u64), Chunk>,
    /// The published splits by number.
    pub splits: BTreeMap<u64, Held>,
    /// The last publication, if it may have been cut off.
    pub pending: Option<Pending>,
    /// Was there ever a publication?
    pub indexed: bool,
    /// How many splits were there when the log began.
    pub before: u64,
    /// What the service itself found wrong: place and words.
    pub found: Vec<(String, String)>,
}

impl State {
    /// Takes in the leaf with this number.
    pub fn apply(&mut self, leaf: u64, entry: &Entry) {
        let time = match entry {
            Entry::Started { time, .. }
            | Entry::Log(Stretch { time, .. })
            | Entry::Dropped { time, .. }
            | Entry::Splits { time, .. }
            | Entry::Undone { time, .. }
            | Entry::Stopped { time } => *time,
        };
        self.began.get_or_insert(time);
        self.newest = Some(time);
        match entry {
            Entry::Started { found, .. } => {
                self.stopped = false;
                let found = found.iter().map(|words| {
                    (
                        "log".to_owned(),
                        format!("{words}, when the service started at {time}"),
                    )
                });
                self.found.extend(found);
            }
            Entry::Stopped { .. } => {
                self.stopped = true;
                self.pending = None;
            }
            Entry::Log(stretch) => {
                let chunk = self.chunks.entry((stretch.partition, stretch.file));
                chunk.or_default().stretches.push(stretch.clone());
            }
            Entry::Dropped {
                partition,
                file,
                next,
                ..
            } => {
                let old = |place: &(u32, u64), chunk: &Chunk| {
                    place.0 == *partition && place.1 < *file && chunk.dropped.is_some()
                };
                self.chunks.retain(|place, chunk| !old(place, chunk));
                let chunk = self.chunks.entry((*partition, *file)).or_default();
                chunk.dropped = Some(*next);
            }
            Entry::Splits {
                why,
                joined,
                added,
                removed,
                changed,
                ..
            } => {
                self.splits(leaf, time, (*why, *joined), added.as_ref(), removed);
                let into = added
                    .as_ref()
                    .map_or(String::new(), |a| format!(" into split {}", a.split));
                let changed = changed.iter().map(|number| {
                    let words = format!("split {number} was not what had been published when it was merged{into} at {time}: trust no event of it that the log does not have");
                    (format!("index/splits/{number:016x}"), words)
                });
                self.found.extend(changed);
            }
            Entry::Undone { leaf, .. } => {
                if let Some(pending) = self.pending.take_if(|p| p.leaf == *leaf) {
                    self.splits = self.without(&pending);
                }
            }
        }
    }

    fn splits(
        &mut self,
        leaf: u64,
        time: Time,
        (why, joined): (Why, bool),
        added: Option<&Added>,
        removed: &[u64],
    ) {
        self.indexed = true;
        self.before += u64::from(why == Why::Begin);
        let gone = removed
            .iter()
            .filter_map(|number| self.splits.remove(number));
        let gone: Vec<Held> = gone.collect();
        if let Some(added) = added {
            let held = Held {
                leaf,
                time,
                added: added.clone(),
            };
            if let Some(old) = self.splits.insert(added.split, held) {
                let words = format!(
                    "split {} of {} was gone without a reason by {time}",
                    added.split, old.time
                );
                self.found
                    .push((format!("index/splits/{:016x}", added.split), words));
            }
        }
        let before = self.pending.take().filter(|_| joined);
        let mut pending = before.unwrap_or_else(|| Pending {
            leaf,
            ..Pending::default()
        });
        pending.added.extend(added.map(|a| a.split));
        pending.removed.extend(gone);
        self.pending = Some(pending);
    }

    /// The splits as they were before a publication.
    pub fn without(&self, pending: &Pending) -> BTreeMap<u64, Held> {
        let mut splits = self.splits.clone();
        for number in &pending.added {
            splits.remove(number);
        }
        splits.extend(
            pending
                .removed
                .iter()
                .map(|held| (held.added.split, held.clone())),
        );
        splits
    }

    /// How far a partition of the event log is known.
    pub fn end(&self, partition: u32) -> Option<End> {
        let chunks = self.chunks.range((partition, 0)..=(partition, u64::MAX));
        let end =
            |(place, chunk): (&(u32, u64), &Chunk)| match (chunk.dropped, chunk.stretches.last()) {
                (Some(next), _) => Some(End {
                    file: place.1,
                    len: 0,
                    next,
                }),
                (None, last) => last.map(|last| End {
                    file: place.1,
                    len: last.to,
                    next: last.next,
                }),
            };
        chunks.filter_map(end).next_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits(why: Why, added: Option<u64>, removed: &[u64]) -> Entry {
        part(why, false, added, removed)
    }

    fn part(why: Why, joined: bool, added: Option<u64>, removed: &[u64]) -> Entry {
        Entry::Splits {
            time: Time(5),
            why,
            joined,
            reason: String::new(),
            added: added.map(|split| Added {
                split,
                meta: Value::Null,
                files: String::new(),
                events: None,
            }),
            removed: removed.to_vec(),
            changed: Vec::new(),
        }
    }

    fn numbers(state: &State) -> Vec<u64> {
        state.splits.keys().copied().collect()
    }

    #[test]
    fn a_publication_that_was_cut_off_is_undone_as_a_whole() {
        let mut state = State::default();
        for (leaf, entry) in [
            splits(Why::Index, Some(1), &[]),
            splits(Why::Index, Some(2), &[]),
            splits(Why::Merge, Some(3), &[1, 2]),
        ]
        .iter()
        .enumerate()
        {
            state.apply(leaf as u64, entry);
        }
        assert_eq!(numbers(&state), [3]);
        let mut other = state.clone();
        other.apply(
            3,
            &Entry::Undone {
                time: Time(6),
                leaf: 1,
            },
        );
        assert_eq!(numbers(&other), [3], "only the last one can be");
        state.apply(
            3,
            &Entry::Undone {
                time: Time(6),
                leaf: 2,
            },
        );
        assert_eq!(numbers(&state), [1, 2]);
        state.apply(4, &splits(Why::Merge, Some(3), &[1, 2]));
        state.apply(5, &Entry::Stopped { time: Time(7) });
        assert!(state.stopped && state.pending.is_none() && state.found.is_empty());
        // A number that comes again although its split was never taken away.
        state.apply(6, &splits(Why::Index, Some(3), &[]));
        assert_eq!(state.found.len(), 1);
    }

    #[test]
    fn several_leaves_of_one_publication_are_undone_together() {
        let mut state = State::default();
        for (leaf, entry) in [
            splits(Why::Index, Some(1), &[]),
            part(Why::Index, false, Some(2), &[]),
            part(Why::Index, true, Some(3), &[]),
            part(Why::Index, true, Some(4), &[]),
        ]
        .iter()
        .enumerate()
        {
            state.apply(leaf as u64, entry);
        }
        assert_eq!(numbers(&state), [1, 2, 3, 4]);
        let undone = Entry::Undone {
            time: Time(6),
            leaf: 1,
        };
        state.apply(4, &undone);
        assert_eq!(numbers(&state), [1]);
        assert_eq!(state.pending, None);
    }

    #[test]
    fn of_dropped_files_the_last_is_remembered() {
        let mut state = State::default();
        let log = |file: u64, from, to| {
            let (first, next) = (file, file + 10);
            Entry::Log(Stretch {
                time: Time(1),
                partition: 1,
                file,
                from,
                to,
                first,
                next,
                sha256: String::new(),
            })
        };
        for (leaf, entry) in [log(0, 0, 5), log(0, 5, 9), log(10, 0, 4), log(20, 0, 4)]
            .iter()
            .enumerate()
        {
            state.apply(leaf as u64, entry);
        }
        let end = End {
            file: 20,
            len: 4,
            next: 30,
        };
        assert_eq!(state.end(1), Some(end));
        assert_eq!(state.end(0), None);
        for (file, left) in [(0, 3), (10, 2)] {
            state.apply(
                9,
                &Entry::Dropped {
                    time: Time(2),
                    partition: 1,
                    file,
                    next: file + 10,
                },
            );
            assert_eq!(state.chunks.len(), left);
            assert_eq!(state.chunks[&(1, file)].dropped, Some(file + 10));
        }
    }

    #[test]
    fn entries_are_frozen() {
        let time = Time::parse("2026-11-26T10:00:00Z").unwrap();
        let entry = Entry::Log(Stretch {
            time,
            partition: 1,
            file: 2,
            from: 3,
            to: 4,
            first: 5,
            next: 6,
            sha256: "ab".into(),
        });
        let text = r#"{"kind":"log","time":"2026-11-26T10:00:00Z","partition":1,"file":2,"from":3,"to":4,"first":5,"next":6,"sha256":"ab"}"#;
        assert_eq!(serde_json::to_string(&entry).unwrap(), text);
        assert_eq!(serde_json::from_str::<Entry>(text).unwrap(), entry);
    }
}
