//! The tables of `state.db` and the statements on them that depend on the partition.
//!
//! What the tables are for is said in [`super`]. [`prepare`] creates what is missing, so a new folder and one whose
//! creation was cut off are the same to it; [`connect`] sets what every connection needs.

use std::ops::Range;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use crate::config::Partitions;
use crate::{Offset, Topic};

/// A connection that keeps `cache_kib` of pages in memory.
pub(super) fn connect(
    path: &Path,
    flags: OpenFlags,
    cache_kib: i64,
) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.set_prepared_statement_cache_capacity(256);
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 4000;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA temp_store = MEMORY;",
    )?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    Ok(connection)
}

/// Creates what is missing and reads what each partition holds.
pub(super) fn prepare(
    writer: &mut Connection,
    partitions: &Partitions,
) -> Result<Vec<(Topic, u32, Range<Offset>)>, rusqlite::Error> {
    let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS bounds(
            topic TEXT NOT NULL, partition INTEGER NOT NULL, first INTEGER NOT NULL, next INTEGER NOT NULL,
            PRIMARY KEY(topic, partition)) STRICT, WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS consumers(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
         CREATE TABLE IF NOT EXISTS positions(
            consumer INTEGER NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
            PRIMARY KEY(consumer, topic, partition)) STRICT, WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS state(
            consumer INTEGER NOT NULL, partition INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
            expires INTEGER, PRIMARY KEY(consumer, partition, key)) STRICT, WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS state_expires ON state(expires) WHERE expires IS NOT NULL;",
    )?;
    let mut found = Vec::new();
    for topic in Topic::ALL.into_iter().filter(|t| *t != Topic::Events) {
        for partition in 0..partitions.of(topic) {
            transaction.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS {}(
                    offset INTEGER PRIMARY KEY, time INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL) STRICT;",
                table(topic, partition)
            ))?;
            transaction.execute(
                "INSERT INTO bounds(topic, partition, first, next) VALUES (?1, ?2, 0, 0) ON CONFLICT DO NOTHING",
                params![topic.as_str(), partition],
            )?;
            let range = transaction.query_row(
                "SELECT first, next FROM bounds WHERE topic = ?1 AND partition = ?2",
                params![topic.as_str(), partition],
                |row| Ok(row.get::<_, u64>(0)?..row.get::<_, u64>(1)?),
            )?;
            found.push((topic, partition, range));
        }
    }
    transaction.commit()?;
    Ok(found)
}

fn table(topic: Topic, partition: u32) -> String {
    format!("\"{}-{partition}\"", topic.as_str())
}

pub(super) fn insert_sql(topic: Topic, partition: u32) -> String {
    format!(
        "INSERT INTO {}(offset, time, key, value) VALUES (?1, ?2, ?3, ?4)",
        table(topic, partition)
    )
}

pub(super) fn select_sql(topic: Topic, partition: u32) -> String {
    format!(
        "SELECT offset, time, key, value FROM {} WHERE offset >= ?1 AND offset < ?2 ORDER BY offset",
        table(topic, partition)
    )
}

pub(super) fn young_sql(topic: Topic, partition: u32) -> String {
    format!(
        "SELECT offset FROM {} WHERE offset >= ?1 AND offset < ?2 AND time >= ?3 ORDER BY offset LIMIT 1",
        table(topic, partition)
    )
}

pub(super) fn delete_sql(topic: Topic, partition: u32) -> String {
    format!("DELETE FROM {} WHERE offset < ?1", table(topic, partition))
}

pub(super) fn consumer_id(reader: &Connection, name: &str) -> Result<Option<i64>, rusqlite::Error> {
    reader
        .prepare_cached("SELECT id FROM consumers WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(super) fn stored_position(
    reader: &Connection,
    consumer: i64,
    topic: Topic,
    partition: u32,
) -> Result<Option<Offset>, rusqlite::Error> {
    reader
        .prepare_cached(
            "SELECT next FROM positions WHERE consumer = ?1 AND topic = ?2 AND partition = ?3",
        )?
        .query_row(params![consumer, topic.as_str(), partition], |row| {
            row.get(0)
        })
        .optional()
}

pub(super) fn stored_start(
    reader: &Connection,
    topic: Topic,
    partition: u32,
) -> Result<Offset, rusqlite::Error> {
    reader
        .prepare_cached("SELECT first FROM bounds WHERE topic = ?1 AND partition = ?2")?
        .query_row(params![topic.as_str(), partition], |row| row.get(0))
}

/// The least key that is greater than all keys with this prefix; `None` if there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_where_the_next_key_begins() {
        let check = |prefix: &[u8], expected: Option<&[u8]>| {
            assert_eq!(after_prefix(prefix).as_deref(), expected);
        };
        check(b"a", Some(b"b"));
        check(b"a\xff", Some(b"b"));
        check(b"\xff\xff", None);
        check(b"", None);
    }
}
