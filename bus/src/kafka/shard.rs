//! State that moves: what one changelog partition says, kept at hand in a SQLite file.
//!
//! A [`Shard`] has the positions and the state of the consumers whose commits stand in one partition of a changelog
//! topic. The changelog is the truth; the file is a copy that can be thrown away at any time, with the offset up to
//! which it goes. [`Shard::catch_up`] reads what is missing, from the last snapshot on if need be: so a partition can
//! move to any node. [`Shard::commit`] is one step: outputs to the brokers, then the delta, then the copy. A crash in
//! between repeats outputs and loses none; which of two rivals was first is decided by the changelog (`changelog`).
//!
//! When the changelog has grown to several times what is alive, the state is written down whole as a snapshot and what
//! lies before is deleted. Nothing here knows what the state means.

mod file;
mod snapshot;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use event::Time;
use rusqlite::{Connection, OptionalExtension, params};

use super::brokers::Brokers;
use super::changelog::{self, Delta, Kind, Moved, Part};
use super::producer::Outgoing;
use super::reader::Read;
use crate::embedded::{after_prefix, database_error};
use crate::topic::check_position;
use crate::{BusError, Commit, Entry, Offset, Record, Topic};
use file::{apply, connect, forget_parts, gather, restore, set_meta};

/// How much of a changelog is read at a time.
const READ_BYTES: usize = 8 << 20;

/// What it means that a changelog does not begin as one should, and what to do.
const GONE: &str = "state is gone from the changelog, which nothing but snapshots may shorten (`trailwarden topics check` \
    tells of its retention). Restore the topic; to begin again without it, stop all nodes, delete it and the folders of \
    the nodes, and run `trailwarden topics apply`";

/// Positions and state of one changelog partition.
pub(super) struct Shard {
    topic: String,
    partition: u32,
    path: PathBuf,
    db: Connection,
    /// Everything before this offset is in the file; `None` before the first record.
    applied: Option<Offset>,
    /// Hash of the record before `applied`.
    mark: u64,
    /// Bytes of the changelog since the last snapshot.
    grown: u64,
}

impl Shard {
    /// Opens the copy of a changelog partition, or begins one.
    pub(super) fn open(path: PathBuf, topic: &str, partition: u32) -> Result<Shard, BusError> {
        let opened = connect(&path).or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "a copy of state cannot be used and is made anew");
            for suffix in ["", "-wal", "-shm"] {
                let mut name = path.clone().into_os_string();
                name.push(suffix);
                let _ = std::fs::remove_file(name);
            }
            connect(&path)
        });
        let (db, (applied, mark, grown)) = opened.map_err(|e| database_error(&path, e))?;
        Ok(Shard {
            topic: topic.to_owned(),
            partition,
            path,
            db,
            applied: Offset::try_from(applied).ok(),
            mark: mark as u64,
            grown: grown as u64,
        })
    }

    /// Brings the copy up to the end of the changelog. `now` is for what has expired.
    pub(super) fn catch_up(&mut self, brokers: &Brokers, now: Time) -> Result<(), BusError> {
        let begin = Instant::now();
        let bounds = brokers.readers.bounds(&self.topic, self.partition)?;
        let from = self.begin(brokers, &bounds)?;
        if from == bounds.end && self.applied.is_some() {
            return Ok(());
        }
        let fresh = self.applied.is_none();
        if fresh {
            // Whoever began before us may have come to the middle of a snapshot.
            self.clear()?;
        }
        let mut next = from;
        let mut snapshot = (fresh && from > 0).then_some(None);
        while next < bounds.end {
            let batch = match brokers
                .readers
                .read(&self.topic, self.partition, next, READ_BYTES)?
            {
                Read::Batch(batch) => batch,
                // A snapshot was written and the rest dropped meanwhile.
                Read::Outside(_) => return self.catch_up_anew(brokers, now),
            };
            self.absorb(&batch.records, &mut snapshot, now)?;
            next = batch.next;
        }
        if snapshot.is_some() {
            return Err(self.guard(format!(
                "it begins at {from} without a whole snapshot of the state before: {GONE}"
            )));
        }
        if self.applied.is_none() {
            // An empty changelog.
            self.save(next, 0, 0)?;
        }
        if fresh {
            self.check_before()?;
        }
        // Nobody reads it from here on unless somebody else commits.
        brokers.readers.forget(&self.topic, self.partition);
        if next > from {
            let numbers = &brokers.numbers;
            let millis = begin.elapsed().as_millis() as u64;
            numbers.restores.fetch_add(1, Ordering::Relaxed);
            numbers.restore_millis.fetch_add(millis, Ordering::Relaxed);
            if fresh {
                tracing::info!(
                    topic = self.topic,
                    partition = self.partition,
                    records = next - from,
                    millis,
                    "state restored from the brokers"
                );
            }
        }
        Ok(())
    }

    /// Where to read on, after a look whether it is the same changelog.
    fn begin(&mut self, brokers: &Brokers, bounds: &Range<Offset>) -> Result<Offset, BusError> {
        let Some(applied) = self.applied else {
            return Ok(bounds.start);
        };
        if applied > bounds.end {
            return Err(self.other(format!(
                "state up to {applied} was read from it, but it ends at {}",
                bounds.end
            )));
        }
        if applied < bounds.start {
            // A snapshot stands at the start, newer than the copy; whether of the same changelog is seen afterwards.
            self.db
                .execute(
                    "INSERT OR REPLACE INTO before SELECT consumer, topic, partition, next FROM positions",
                    [],
                )
                .map_err(|e| database_error(&self.path, e))?;
            self.clear()?;
            return Ok(bounds.start);
        }
        if applied > bounds.start && self.mark != 0 {
            let read = brokers
                .readers
                .read(&self.topic, self.partition, applied - 1, 0)?;
            if let Read::Batch(batch) = read
                && let Some((_, record)) = batch.records.first()
                && mark_of(record) != self.mark
            {
                return Err(self.other(format!(
                    "record {} is another one than was read before",
                    applied - 1
                )));
            }
        }
        Ok(applied)
    }

    /// After a copy was thrown away for a newer one: is it one of the same changelog?
    fn check_before(&mut self) -> Result<(), BusError> {
        let sql = |e| database_error(&self.path, e);
        let behind: Option<(String, Offset)> = self
            .db
            .query_row(
                "SELECT b.consumer, b.next FROM before b LEFT JOIN positions p
                 ON p.consumer = b.consumer AND p.topic = b.topic AND p.partition = b.partition
                 WHERE p.next IS NULL OR p.next < b.next LIMIT 1",
                [],
                |r| Ok((r.get(0)?, r.get(1)?)),
            )
            .optional()
            .map_err(sql)?;
        if let Some((consumer, next)) = behind {
            self.clear()?;
            return Err(self.other(format!(
                "{consumer} has come to {next} and stands before that in it"
            )));
        }
        self.db
            .execute("DELETE FROM before", [])
            .map(|_| ())
            .map_err(sql)
    }

    /// It is another changelog than the one that the copy is of.
    fn other(&self, reason: String) -> BusError {
        self.guard(format!(
            "{reason}: the topic was made anew, or brokers took back acknowledged records. If the topics were made \
             anew on purpose, delete `{}` on every node; otherwise restore the topic",
            self.path.parent().unwrap_or(Path::new(".")).display()
        ))
    }

    fn guard(&self, reason: String) -> BusError {
        BusError::Guard {
            topic: self.topic.clone(),
            partition: self.partition,
            reason,
        }
    }

    fn catch_up_anew(&mut self, brokers: &Brokers, now: Time) -> Result<(), BusError> {
        self.clear()?;
        self.catch_up(brokers, now)
    }

    /// Takes in records of the changelog. `snapshot` is `Some` while a snapshot is expected: its id once it has begun.
    fn absorb(
        &mut self,
        records: &[(Offset, Record)],
        snapshot: &mut Option<Option<u64>>,
        now: Time,
    ) -> Result<(), BusError> {
        let Some((last, newest)) = records.last() else {
            return Ok(());
        };
        let bytes: usize = records.iter().map(|(_, r)| r.value.len()).sum();
        let (mark, grown) = (mark_of(newest), self.grown + bytes as u64);
        let (topic, partition) = (self.topic.clone(), self.partition);
        let path = self.path.clone();
        let sql = |e| database_error(&path, e);
        let transaction = self.db.transaction().map_err(sql)?;
        for (offset, record) in records {
            let guard = |reason: String| BusError::Guard {
                topic: topic.clone(),
                partition,
                reason: format!("record {offset} cannot be read: {reason}"),
            };
            let part = Part::decode(&record.value).map_err(guard)?;
            match (part.kind, &snapshot) {
                (Kind::Snapshot, Some(begun)) => {
                    if *begun != (part.part > 0).then_some(part.id) {
                        return Err(guard(format!("its snapshot is not whole: {GONE}")));
                    }
                    for row in changelog::rows(part.body).map_err(guard)? {
                        restore(&transaction, &row, now).map_err(sql)?;
                    }
                    *snapshot = (!part.last).then_some(Some(part.id));
                }
                (Kind::Delta, Some(_)) => {
                    return Err(guard(format!("there is no snapshot before it: {GONE}")));
                }
                // Who has the state needs no snapshot, but for what begins before it and ends after: who reads from here
                // on has only the end of that, so it counts for nobody.
                (Kind::Snapshot, None) if part.part == 0 => {
                    forget_parts(&transaction).map_err(sql)?;
                }
                (Kind::Snapshot, None) => {}
                (Kind::Delta, None) => {
                    if let Some(delta) = gather(&transaction, &part).map_err(sql)? {
                        let delta = Delta::decode(&delta).map_err(guard)?;
                        apply(&transaction, &delta, part.id, now).map_err(sql)?;
                    }
                }
            }
        }
        // In the middle of a snapshot there is no state yet that one could go on from.
        let applied = snapshot.is_none().then_some(last + 1);
        set_meta(&transaction, applied, mark, grown).map_err(sql)?;
        transaction.commit().map_err(sql)?;
        (self.applied, self.mark, self.grown) = (applied, mark, grown);
        Ok(())
    }

    /// Makes a commit take effect, or tells who was first. The shard must be caught up.
    pub(super) fn commit(
        &mut self,
        brokers: &Brokers,
        commit: &Commit,
        outputs: &[Outgoing<'_>],
        now: Time,
    ) -> Result<(), BusError> {
        let mut moved = Vec::with_capacity(commit.positions.len());
        for position in &commit.positions {
            let stored = self.stored(&commit.consumer, position.topic, position.partition)?;
            let topic = brokers.topic(position.topic);
            let bounds = brokers.readers.bounds_for(
                topic,
                position.partition,
                position.from,
                position.to,
            )?;
            check_position(
                &commit.consumer,
                position,
                stored.map(|(next, _)| next),
                &bounds,
            )?;
            moved.push(Moved {
                topic: changelog::number(position.topic),
                partition: position.partition,
                after: stored.map_or(0, |(_, by)| by),
                to: position.to,
            });
        }
        brokers.producer.send(outputs)?;
        let id = brokers.fresh_id();
        let records: Vec<Record> = Delta::of(commit, moved)
            .parts(id)
            .into_iter()
            .map(|value| Record {
                key: Bytes::copy_from_slice(commit.consumer.as_bytes()),
                value: Bytes::from(value),
                time: now,
            })
            .collect();
        let offsets = brokers.producer.send(&self.outgoing(&records))?;
        let expected = self.applied.unwrap_or(0);
        if offsets.iter().zip(expected..).all(|(got, at)| *got == at) {
            let numbered: Vec<(Offset, Record)> = offsets.into_iter().zip(records).collect();
            self.absorb(&numbered, &mut None, now)?;
        } else {
            // Somebody else has written: who was first?
            self.catch_up(brokers, now)?;
            self.is_accepted(commit, id)?;
        }
        match self.snapshot_if_due(brokers, now) {
            // The commit stands; the next one tries again.
            Err(error) if error.is_transient() => {
                tracing::warn!(topic = self.topic, partition = self.partition, %error, "no snapshot of state");
                Ok(())
            }
            done => done,
        }
    }

    /// After the changelog was read past our delta: did it count? Where it did and somebody has gone on from there, that
    /// too is said to be fenced: the caller begins again where the other one stands.
    fn is_accepted(&self, commit: &Commit, id: u64) -> Result<(), BusError> {
        for position in &commit.positions {
            let stored = self.stored(&commit.consumer, position.topic, position.partition)?;
            if stored != Some((position.to, id)) {
                return Err(BusError::Fenced {
                    consumer: commit.consumer.clone(),
                    topic: position.topic,
                    partition: position.partition,
                    from: position.from,
                    stored: stored.map_or(0, |(next, _)| next),
                });
            }
        }
        Ok(())
    }

    fn outgoing<'r>(&'r self, records: &[Record]) -> Vec<Outgoing<'r>> {
        records
            .iter()
            .map(|record| Outgoing {
                topic: &self.topic,
                partition: self.partition,
                record: record.clone(),
            })
            .collect()
    }

    /// Next offset of a stored position, and the delta that moved it there.
    fn stored(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<(Offset, u64)>, BusError> {
        self.db
            .prepare_cached(
                "SELECT next, by FROM positions WHERE consumer = ?1 AND topic = ?2 AND partition = ?3",
            )
            .and_then(|mut select| {
                select
                    .query_row(params![consumer, changelog::number(topic), partition], |r| {
                        Ok((r.get(0)?, r.get(1)?))
                    })
                    .optional()
            })
            .map_err(|e| database_error(&self.path, e))
    }

    pub(super) fn position(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<Offset>, BusError> {
        Ok(self
            .stored(consumer, topic, partition)?
            .map(|(next, _)| next))
    }

    /// Has the shard been caught up since it was opened?
    pub(super) fn is_begun(&self) -> bool {
        self.applied.is_some()
    }

    pub(super) fn state_get(
        &self,
        consumer: &str,
        partition: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        let get = || -> rusqlite::Result<Vec<Option<Vec<u8>>>> {
            let mut select = self.db.prepare_cached(
                "SELECT value FROM state WHERE consumer = ?1 AND partition = ?2 AND key = ?3",
            )?;
            keys.iter()
                .map(|key| {
                    select
                        .query_row(params![consumer, partition, key], |row| row.get(0))
                        .optional()
                })
                .collect()
        };
        get().map_err(|e| database_error(&self.path, e))
    }

    pub(super) fn state_scan(
        &self,
        consumer: &str,
        partition: u32,
        prefix: &[u8],
    ) -> Result<Vec<Entry>, BusError> {
        let scan = || -> rusqlite::Result<Vec<Entry>> {
            let mut select = self.db.prepare_cached(
                "SELECT key, value FROM state WHERE consumer = ?1 AND partition = ?2 AND key >= ?3
                 AND (?4 IS NULL OR key < ?4) ORDER BY key",
            )?;
            select
                .query_map(
                    params![consumer, partition, prefix, after_prefix(prefix)],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )?
                .collect()
        };
        scan().map_err(|e| database_error(&self.path, e))
    }

    /// Drops what has expired from the copy; everybody who reads the changelog does so too.
    pub(super) fn retain(&mut self, now: Time) -> Result<(), BusError> {
        self.db
            .execute("DELETE FROM state WHERE expires <= ?1", [now.0])
            .map(|_| ())
            .map_err(|e| database_error(&self.path, e))
    }

    /// Takes note of how far the copy goes where all of that is in it and no delta is under way.
    fn save(&mut self, applied: Offset, mark: u64, grown: u64) -> Result<(), BusError> {
        let mut save = || {
            let transaction = self.db.transaction()?;
            forget_parts(&transaction)?;
            set_meta(&transaction, Some(applied), mark, grown)?;
            transaction.commit()
        };
        save().map_err(|e| database_error(&self.path, e))?;
        (self.applied, self.mark, self.grown) = (Some(applied), mark, grown);
        Ok(())
    }

    /// Empties the copy.
    fn clear(&mut self) -> Result<(), BusError> {
        self.db
            .execute_batch(
                "BEGIN; DELETE FROM positions; DELETE FROM state; DELETE FROM parts;
                 UPDATE meta SET applied = -1, mark = 0, grown = 0; COMMIT",
            )
            .map_err(|e| database_error(&self.path, e))?;
        (self.applied, self.mark, self.grown) = (None, 0, 0);
        Ok(())
    }
}

/// Tells one record from another: FNV-1a of what it holds, never 0.
pub(super) fn mark_of(record: &Record) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in record
        .key
        .iter()
        .chain(record.value.iter())
        .chain(&record.time.0.to_le_bytes())
    {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash.max(1)
}
