//! Writing the state down whole, so that a changelog need not be read from its first day.

use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use event::Time;

use super::super::brokers::Brokers;
use super::super::changelog::{self, Change, Row};
use super::{Shard, mark_of};
use crate::embedded::database_error;
use crate::{BusError, Offset, Record};

/// A snapshot is due when the changelog since the last one is this many times what is alive, and
const SNAPSHOT_TIMES: u64 = 3;
/// at least this many bytes.
const SNAPSHOT_BYTES: u64 = 32 << 20;
/// How many parts of a snapshot are on their way at a time.
const SNAPSHOT_PARTS: usize = 16;

impl Shard {
    /// Writes the state down whole when the changelog has become long, and drops what lies before.
    pub(super) fn snapshot_if_due(&mut self, brokers: &Brokers, now: Time) -> Result<(), BusError> {
        if self.grown < SNAPSHOT_BYTES.min(brokers.snapshot_bytes) {
            return Ok(());
        }
        let alive = self.alive()?;
        if self.grown < alive.saturating_mul(SNAPSHOT_TIMES) {
            return Ok(());
        }
        let Some(at) = self.applied else {
            return Ok(());
        };
        let begin = Instant::now();
        match self.write_snapshot(brokers, at, now)? {
            None => tracing::debug!(
                topic = self.topic,
                "a snapshot was crossed by another writer"
            ),
            Some((end, mark)) => {
                self.save(end, mark, alive)?;
                brokers.drop_before(&self.topic, self.partition, at)?;
                brokers.numbers.snapshots.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    topic = self.topic,
                    partition = self.partition,
                    bytes = alive,
                    millis = begin.elapsed().as_millis() as u64,
                    "snapshot of state written"
                );
            }
        }
        Ok(())
    }

    /// Writes the parts of a snapshot, which must come to stand in a row from `at` on. Gives where it ends, and the mark
    /// of its last part.
    fn write_snapshot(
        &self,
        brokers: &Brokers,
        at: Offset,
        now: Time,
    ) -> Result<Option<(Offset, u64)>, BusError> {
        let id = brokers.fresh_id();
        let (mut end, mut part) = (at, 0);
        let mut ready: Vec<Record> = Vec::new();
        let flush = |ready: &mut Vec<Record>, end: &mut Offset| -> Result<bool, BusError> {
            let offsets = brokers.producer.send(&self.outgoing(ready))?;
            let in_a_row = offsets.iter().zip(*end..).all(|(got, at)| *got == at);
            *end += ready.len() as u64;
            ready.clear();
            Ok(in_a_row)
        };
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let sql = |e| database_error(&self.path, e);
        let mut record = |rows: &mut Vec<Row>, last: bool| {
            let value = changelog::snapshot_part(id, part, rows, last);
            part += 1;
            rows.clear();
            Record {
                key: Bytes::from_static(b"snapshot"),
                value: Bytes::from(value),
                time: now,
            }
        };
        let mut positions = self
            .db
            .prepare("SELECT consumer, topic, partition, next, by FROM positions")
            .map_err(sql)?;
        let found = positions
            .query_map([], |row| {
                Ok(Row::Position {
                    consumer: row.get(0)?,
                    topic: row.get(1)?,
                    partition: row.get(2)?,
                    next: row.get(3)?,
                    by: row.get(4)?,
                })
            })
            .map_err(sql)?;
        for row in found {
            rows.push(row.map_err(sql)?);
        }
        let mut state = self
            .db
            .prepare("SELECT consumer, partition, key, value, expires FROM state WHERE expires IS NULL OR expires > ?1")
            .map_err(sql)?;
        let mut found = state.query([now.0]).map_err(sql)?;
        while let Some(row) = found.next().map_err(sql)? {
            let read = || -> rusqlite::Result<(String, Change)> {
                Ok((
                    row.get(0)?,
                    Change {
                        partition: row.get(1)?,
                        key: row.get(2)?,
                        value: Some(row.get(3)?),
                        expires: row.get(4)?,
                    },
                ))
            };
            let (consumer, change) = read().map_err(sql)?;
            bytes += change.size();
            rows.push(Row::State { consumer, change });
            if changelog::is_full(bytes) {
                bytes = 0;
                ready.push(record(&mut rows, false));
            }
            if ready.len() >= SNAPSHOT_PARTS && !flush(&mut ready, &mut end)? {
                return Ok(None);
            }
        }
        let last = record(&mut rows, true);
        let mark = mark_of(&last);
        ready.push(last);
        Ok(flush(&mut ready, &mut end)?.then_some((end, mark)))
    }

    /// About how many bytes of state there are.
    fn alive(&self) -> Result<u64, BusError> {
        self.db
            .query_row(
                "SELECT COALESCE(SUM(length(key) + length(value) + 16), 0) FROM state",
                [],
                |r| r.get(0),
            )
            .map_err(|e| database_error(&self.path, e))
    }
}
