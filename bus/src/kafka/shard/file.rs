//! The file of a shard: its tables, and what a record of the changelog does to them.

use std::path::Path;

use event::Time;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::super::changelog::{Change, Delta, Part, Row};
use crate::Offset;

/// The version of the file; another one is made anew.
const FORMAT: i64 = 2;

const TABLES: &str = "
CREATE TABLE meta (applied INTEGER NOT NULL, mark INTEGER NOT NULL, grown INTEGER NOT NULL);
INSERT INTO meta VALUES (-1, 0, 0);
CREATE TABLE positions (
    consumer TEXT NOT NULL, topic INTEGER NOT NULL, partition INTEGER NOT NULL,
    next INTEGER NOT NULL, by INTEGER NOT NULL,
    PRIMARY KEY (consumer, topic, partition)
) WITHOUT ROWID;
CREATE TABLE state (
    consumer TEXT NOT NULL, partition INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, expires INTEGER,
    PRIMARY KEY (consumer, partition, key)
) WITHOUT ROWID;
CREATE INDEX state_expires ON state (expires) WHERE expires IS NOT NULL;
-- How far consumers had come before the copy was thrown away for a newer one; positions never go back.
CREATE TABLE before (
    consumer TEXT NOT NULL, topic INTEGER NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (consumer, topic, partition)
) WITHOUT ROWID;
-- Parts of deltas that are not whole yet.
CREATE TABLE parts (id INTEGER NOT NULL, part INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (id, part)) WITHOUT ROWID;
";

pub(super) fn connect(path: &Path) -> rusqlite::Result<(Connection, (i64, i64, i64))> {
    let mut db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // A copy: a power cut may take the newest of it, never its wholeness.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.set_prepared_statement_cache_capacity(32);
    let format: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0))?;
    if format != FORMAT {
        let transaction = db.transaction()?;
        for table in ["meta", "positions", "state", "before", "parts"] {
            transaction.execute_batch(&format!("DROP TABLE IF EXISTS {table}"))?;
        }
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.commit()?;
    }
    // One pass over the file is cheap beside reading the changelog again.
    let sound: String = db.pragma_query_value(None, "quick_check", |r| r.get(0))?;
    if sound != "ok" {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some(sound),
        ));
    }
    let meta = db.query_row("SELECT applied, mark, grown FROM meta", [], |r| {
        Ok((r.get(0)?, r.get(1)?, r.get(2)?))
    })?;
    Ok((db, meta))
}

pub(super) fn set_meta(
    db: &Connection,
    applied: Option<Offset>,
    mark: u64,
    grown: u64,
) -> rusqlite::Result<()> {
    let applied = applied.map_or(-1, |offset| offset as i64);
    db.prepare_cached("UPDATE meta SET applied = ?1, mark = ?2, grown = ?3")?
        .execute(params![applied, mark as i64, grown])
        .map(|_| ())
}

pub(super) fn forget_parts(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM parts")?
        .execute([])
        .map(|_| ())
}

/// Adds a part; gives the whole when it was the last.
pub(super) fn gather(
    transaction: &Transaction<'_>,
    part: &Part<'_>,
) -> rusqlite::Result<Option<Vec<u8>>> {
    if part.part == 0 && part.last {
        return Ok(Some(part.body.to_vec()));
    }
    let id = part.id as i64;
    transaction
        .prepare_cached("INSERT OR REPLACE INTO parts(id, part, body) VALUES (?1, ?2, ?3)")?
        .execute(params![id, part.part, part.body])?;
    if !part.last {
        return Ok(None);
    }
    let bodies: Vec<Vec<u8>> = transaction
        .prepare_cached("SELECT body FROM parts WHERE id = ?1 ORDER BY part")?
        .query_map([id], |r| r.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    transaction
        .prepare_cached("DELETE FROM parts WHERE id = ?1")?
        .execute([id])?;
    // The order within a partition is kept: a part that is missing was never stored, nor will the rest count.
    Ok((bodies.len() == part.part as usize + 1).then(|| bodies.concat()))
}

/// Applies a delta if it counts.
pub(super) fn apply(
    transaction: &Transaction<'_>,
    delta: &Delta,
    id: u64,
    now: Time,
) -> rusqlite::Result<()> {
    for moved in &delta.positions {
        let by: Option<u64> = transaction
            .prepare_cached(
                "SELECT by FROM positions WHERE consumer = ?1 AND topic = ?2 AND partition = ?3",
            )?
            .query_row(params![delta.consumer, moved.topic, moved.partition], |r| {
                r.get(0)
            })
            .optional()?;
        if by.unwrap_or(0) != moved.after {
            return Ok(());
        }
    }
    for moved in &delta.positions {
        let row = Row::Position {
            consumer: delta.consumer.clone(),
            topic: moved.topic,
            partition: moved.partition,
            next: moved.to,
            by: id,
        };
        restore(transaction, &row, now)?;
    }
    for change in &delta.state {
        set(transaction, &delta.consumer, change, now)?;
    }
    Ok(())
}

pub(super) fn restore(transaction: &Transaction<'_>, row: &Row, now: Time) -> rusqlite::Result<()> {
    match row {
        Row::Position {
            consumer,
            topic,
            partition,
            next,
            by,
        } => transaction
            .prepare_cached("INSERT OR REPLACE INTO positions(consumer, topic, partition, next, by) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![consumer, topic, partition, next, by])
            .map(|_| ()),
        Row::State { consumer, change } => set(transaction, consumer, change, now),
    }
}

fn set(
    transaction: &Transaction<'_>,
    consumer: &str,
    change: &Change,
    now: Time,
) -> rusqlite::Result<()> {
    match &change.value {
        Some(value) if !change.is_over(now) => transaction
            .prepare_cached("INSERT OR REPLACE INTO state(consumer, partition, key, value, expires) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![consumer, change.partition, change.key, value, change.expires]),
        _ => transaction
            .prepare_cached("DELETE FROM state WHERE consumer = ?1 AND partition = ?2 AND key = ?3")?
            .execute(params![consumer, change.partition, change.key]),
    }
    .map(|_| ())
}
