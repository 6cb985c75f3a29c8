//! Everything but `events` in one SQLite file: the small topics, consumer positions and consumer state.
//!
//! [`Store::commit`] is one transaction over all three, which is what makes a stage's step atomic. The file is
//! `state.db` in WAL mode with `synchronous=FULL`; one connection writes, a few read. Callers that arrive together
//! share a transaction and its fsync through a [`Group`]; a commit that is refused changes nothing and does not hold
//! up the others, since it is checked wholly before its first write. The tables:
//!
//! ```text
//! "TOPIC-PARTITION"  offset, time, key, value            one table for each partition of the small topics
//! bounds             topic, partition, first, next       the offsets that it holds
//! consumers          id, name
//! positions          consumer, topic, partition, next
//! state              consumer, partition, key, value, expires
//! ```
//!
//! Records of `events` never come here; where that topic ends is asked of [`Ends`].

mod query;
mod schema;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use event::Time;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, ffi, params,
};

use super::ends::Ends;
use super::group::Group;
use super::log::{Poison, again, broken};
use crate::config::Partitions;
use crate::topic::{check_commit, check_position};
use crate::{BusError, Commit, Offset, Record, Topic, partition_of};
pub(crate) use schema::after_prefix;
use schema::{connect, delete_sql, insert_sql, prepare, stored_position, young_sql};

/// What the connection that writes keeps of the database in memory.
const WRITER_CACHE_KIB: i64 = 16_384;
/// What each that reads keeps. Every commit of another connection empties it, and that takes the longer the more pages it
/// ever had.
const READER_CACHE_KIB: i64 = 2_048;
/// Connections for reading that are kept open.
const READERS: usize = 8;
/// Rows that retention removes in one transaction, so that commits get in between.
const RETAIN_ROWS: usize = 5_000;

/// The database, open.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    partitions: Partitions,
    group: Group<Connection, Job, Result<(), BusError>>,
    readers: Mutex<Vec<Connection>>,
    ends: Arc<Ends>,
    poison: Poison,
}

/// One caller's part of a transaction.
enum Job {
    Append(Topic, Vec<Record>),
    Commit(Commit),
}

/// Where the partitions that a transaction has written to will end.
struct Draft<'a> {
    ends: &'a Ends,
    grown: Vec<(Topic, u32, Range<Offset>)>,
}

/// Why a job did not go in: by the rules, or because the database failed.
enum Failure {
    Refused(BusError),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Database(error)
    }
}

impl Store {
    /// Opens the database, creates it if there is none, and publishes what it holds.
    pub(crate) fn open(
        path: PathBuf,
        partitions: Partitions,
        ends: Arc<Ends>,
        poison: Poison,
    ) -> Result<Store, BusError> {
        let fail = |e| database_error(&path, e);
        let mut writer = connect(
            &path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            WRITER_CACHE_KIB,
        )
        .map_err(fail)?;
        let found = prepare(&mut writer, &partitions).map_err(fail)?;
        ends.set(found);
        Ok(Store {
            path,
            partitions,
            group: Group::new(writer),
            readers: Mutex::new(Vec::new()),
            ends,
            poison,
        })
    }

    pub(crate) fn append(&self, topic: Topic, records: Vec<Record>) -> Result<(), BusError> {
        self.submit(Job::Append(topic, records))
    }

    pub(crate) fn commit(&self, commit: Commit) -> Result<(), BusError> {
        self.submit(Job::Commit(commit))
    }

    fn submit(&self, job: Job) -> Result<(), BusError> {
        self.group
            .submit(job, |writer, jobs| self.flush(writer, jobs))
            .unwrap_or_else(|| Err(broken()))
    }

    /// Runs the jobs in one transaction; a refused one is left out, a failing database fails them all.
    fn flush(&self, writer: &mut Connection, jobs: Vec<Job>) -> Vec<Result<(), BusError>> {
        let count = jobs.len();
        self.run(writer, jobs).unwrap_or_else(|e| {
            let e = self.failed(e);
            (0..count).map(|_| Err(again(&e))).collect()
        })
    }

    fn run(
        &self,
        writer: &mut Connection,
        jobs: Vec<Job>,
    ) -> Result<Vec<Result<(), BusError>>, rusqlite::Error> {
        if let Some(path) = self.poison.get() {
            let poisoned = |_| Err(BusError::Poisoned { path: path.clone() });
            return Ok(jobs.iter().map(poisoned).collect());
        }
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut draft = Draft {
            ends: &self.ends,
            grown: Vec::new(),
        };
        let mut results = Vec::with_capacity(jobs.len());
        for job in jobs {
            let done = match job {
                Job::Append(topic, records) => self.insert(
                    &transaction,
                    &mut draft,
                    &[topic],
                    records.iter().map(|r| (topic, r)),
                ),
                Job::Commit(commit) => self.apply(&transaction, &mut draft, &commit),
            };
            match done {
                Ok(()) => results.push(Ok(())),
                Err(Failure::Refused(e)) => results.push(Err(e)),
                Err(Failure::Database(e)) => return Err(e),
            }
        }
        for (topic, partition, range) in &draft.grown {
            transaction
                .prepare_cached("UPDATE bounds SET next = ?3 WHERE topic = ?1 AND partition = ?2")?
                .execute(params![topic.as_str(), partition, range.end])?;
        }
        transaction.commit()?;
        self.ends.set(draft.grown);
        Ok(results)
    }

    fn apply(
        &self,
        transaction: &Transaction<'_>,
        draft: &mut Draft<'_>,
        commit: &Commit,
    ) -> Result<(), Failure> {
        let consumer = self.check(transaction, draft, commit)?;
        for position in &commit.positions {
            transaction
                .prepare_cached(
                    "INSERT INTO positions(consumer, topic, partition, next) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET next = excluded.next",
                )?
                .execute(params![consumer, position.topic.as_str(), position.partition, position.to])?;
        }
        for change in &commit.state {
            match &change.value {
                Some(value) => transaction
                    .prepare_cached(
                        "INSERT INTO state(consumer, partition, key, value, expires) VALUES (?1, ?2, ?3, ?4, ?5)
                         ON CONFLICT DO UPDATE SET value = excluded.value, expires = excluded.expires",
                    )?
                    .execute(params![
                        consumer,
                        change.partition,
                        change.key,
                        value,
                        change.expires.map(|t| t.0)
                    ])?,
                None => transaction
                    .prepare_cached("DELETE FROM state WHERE consumer = ?1 AND partition = ?2 AND key = ?3")?
                    .execute(params![consumer, change.partition, change.key])?,
            };
        }
        let topics: BTreeSet<Topic> = commit.outputs.iter().map(|(topic, _)| *topic).collect();
        let topics: Vec<Topic> = topics.into_iter().collect();
        self.insert(
            transaction,
            draft,
            &topics,
            commit
                .outputs
                .iter()
                .map(|(topic, record)| (*topic, record)),
        )
    }

    /// Checks a commit and gives the number of its consumer.
    fn check(
        &self,
        transaction: &Transaction<'_>,
        draft: &Draft<'_>,
        commit: &Commit,
    ) -> Result<i64, Failure> {
        let name = &commit.consumer;
        check_commit(commit).map_err(Failure::Refused)?;
        let known = transaction
            .prepare_cached("SELECT id FROM consumers WHERE name = ?1")?
            .query_row([name], |row| row.get::<_, i64>(0))
            .optional()?;
        for position in &commit.positions {
            let (topic, partition) = (position.topic, position.partition);
            let bounds = draft.bounds(topic, partition).map_err(Failure::Refused)?;
            let stored = match known {
                Some(id) => stored_position(transaction, id, topic, partition)?,
                None => None,
            };
            check_position(name, position, stored, &bounds).map_err(Failure::Refused)?;
        }
        if let Some(id) = known {
            return Ok(id);
        }
        transaction
            .prepare_cached("INSERT INTO consumers(name) VALUES (?1)")?
            .execute([name])?;
        Ok(transaction.last_insert_rowid())
    }

    fn insert<'r>(
        &self,
        transaction: &Transaction<'_>,
        draft: &mut Draft<'_>,
        topics: &[Topic],
        records: impl Iterator<Item = (Topic, &'r Record)>,
    ) -> Result<(), Failure> {
        let mut tables = Vec::new();
        for topic in topics {
            for partition in 0..self.partitions.of(*topic) {
                let range = draft.bounds(*topic, partition).map_err(Failure::Refused)?;
                tables.push((
                    *topic,
                    partition,
                    range.clone(),
                    range.end,
                    insert_sql(*topic, partition),
                ));
            }
        }
        for (topic, record) in records {
            let partition = partition_of(&record.key, self.partitions.of(topic));
            let (_, _, range, _, sql) = tables
                .iter_mut()
                .find(|(t, p, ..)| *t == topic && *p == partition)
                .expect("every partition of every topic of the call has a table");
            transaction.prepare_cached(sql)?.execute(params![
                range.end,
                record.time.0,
                &record.key[..],
                &record.value[..]
            ])?;
            range.end += 1;
        }
        for (topic, partition, range, before, _) in tables {
            if range.end > before {
                draft.grow(topic, partition, range);
            }
        }
        Ok(())
    }

    /// Drops records of one partition older than `cutoff` as far as the first that is not. Gives the new start if it
    /// moved.
    pub(super) fn retain_records(
        &self,
        topic: Topic,
        partition: u32,
        cutoff: Time,
    ) -> Result<Option<Offset>, BusError> {
        let mut moved = None;
        loop {
            let before = self.ends.get(topic, partition)?;
            let start = self.writing(|writer| {
                let transaction =
                    writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let limit = before.end.min(before.start + RETAIN_ROWS as u64);
                let young = transaction
                    .prepare_cached(&young_sql(topic, partition))?
                    .query_row(params![before.start, limit, cutoff.0], |row| row.get(0))
                    .optional()?;
                let start: Offset = young.unwrap_or(limit);
                if start > before.start {
                    transaction
                        .prepare_cached(&delete_sql(topic, partition))?
                        .execute([start])?;
                    transaction
                        .prepare_cached(
                            "UPDATE bounds SET first = ?3 WHERE topic = ?1 AND partition = ?2",
                        )?
                        .execute(params![topic.as_str(), partition, start])?;
                    transaction.commit()?;
                    // Under the writer's turn, so that no append moves the end meanwhile.
                    if let Ok(now) = self.ends.get(topic, partition) {
                        self.ends.set([(topic, partition, start..now.end)]);
                    }
                }
                Ok(start)
            })?;
            if start == before.start {
                return Ok(moved);
            }
            moved = Some(start);
        }
    }

    /// Drops state that expired by `now`.
    pub(crate) fn retain_state(&self, now: Time) -> Result<(), BusError> {
        loop {
            let dropped = self.writing(|writer| {
                writer
                    .prepare_cached(
                        "DELETE FROM state WHERE (consumer, partition, key) IN
                         (SELECT consumer, partition, key FROM state WHERE expires <= ?1 LIMIT ?2)",
                    )?
                    .execute(params![now.0, RETAIN_ROWS])
            })?;
            if dropped < RETAIN_ROWS {
                return Ok(());
            }
        }
    }

    /// Moves a consumer back to where these partitions are to be read from again, as one.
    pub(super) fn rewind(
        &self,
        consumer: &str,
        positions: &[(Topic, u32, Offset)],
    ) -> Result<(), BusError> {
        for (topic, partition, to) in positions {
            let bounds = self.ends.get(*topic, *partition)?;
            if *to < bounds.start || *to > bounds.end {
                return Err(BusError::OutOfRange {
                    topic: *topic,
                    partition: *partition,
                    asked: *to,
                    start: bounds.start,
                    end: bounds.end,
                });
            }
        }
        self.writing(|writer| {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (topic, partition, to) in positions {
                transaction.execute(
                    "UPDATE positions SET next = ?4
                     WHERE consumer = (SELECT id FROM consumers WHERE name = ?1) AND topic = ?2 AND partition = ?3
                       AND next > ?4",
                    params![consumer, topic.as_str(), partition, to],
                )?;
            }
            transaction.commit()
        })
    }

    /// Removes all of a consumer's keys with a prefix, in all partitions, piece by piece so that commits get in between.
    pub(super) fn forget(&self, consumer: &str, prefix: &[u8]) -> Result<(), BusError> {
        let end = after_prefix(prefix);
        loop {
            let dropped = self.writing(|writer| {
                writer
                    .prepare_cached(
                        "DELETE FROM state WHERE (consumer, partition, key) IN
                         (SELECT consumer, partition, key FROM state
                          WHERE consumer = (SELECT id FROM consumers WHERE name = ?1)
                            AND key >= ?2 AND (?3 IS NULL OR key < ?3) LIMIT ?4)",
                    )?
                    .execute(params![consumer, prefix, end, RETAIN_ROWS])
            })?;
            if dropped < RETAIN_ROWS {
                return Ok(());
            }
        }
    }

    /// Lets a test change the settings of the connection that writes.
    #[cfg(test)]
    pub(super) fn on_writer<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, BusError> {
        self.writing(work)
    }

    fn writing<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, BusError> {
        if let Some(path) = self.poison.get() {
            return Err(BusError::Poisoned { path: path.clone() });
        }
        self.group
            .exclusive(work)
            .ok_or_else(broken)?
            .map_err(|e| self.failed(e))
    }

    /// Also stops all writing if it was an fsync that failed.
    fn failed(&self, error: rusqlite::Error) -> BusError {
        let code = error.sqlite_error().map(|e| e.extended_code);
        if matches!(
            code,
            Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
        ) {
            let path = self.path.display().to_string();
            tracing::error!(path, error = %error, "fsync failed: the log takes no more writes");
            self.poison.get_or_init(|| path.clone());
            return BusError::Poisoned { path };
        }
        database_error(&self.path, error)
    }
}

impl Draft<'_> {
    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, BusError> {
        match self
            .grown
            .iter()
            .find(|(t, p, _)| (*t, *p) == (topic, partition))
        {
            Some((_, _, range)) => Ok(range.clone()),
            None => self.ends.get(topic, partition),
        }
    }

    fn grow(&mut self, topic: Topic, partition: u32, range: Range<Offset>) {
        self.grown
            .retain(|(t, p, _)| (*t, *p) != (topic, partition));
        self.grown.push((topic, partition, range));
    }
}

pub(crate) fn database_error(path: &Path, error: rusqlite::Error) -> BusError {
    let path = path.display().to_string();
    let codes = error.sqlite_error().map(|e| (e.code, e.extended_code));
    match codes {
        Some((ffi::ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE)) => {
            BusError::DiskFull { path }
        }
        Some((ffi::ErrorCode::DatabaseCorrupt | ffi::ErrorCode::NotADatabase, _)) => {
            BusError::Corrupt {
                path,
                offset: 0,
                reason: error.to_string(),
            }
        }
        _ => BusError::State(format!("{error} (`{path}`)")),
    }
}
