//! Reading from `state.db`: records, positions, state.
//!
//! Readers have connections of their own, a few of which are kept open, and never wait for the writer: each statement
//! sees the last finished transaction. Nothing here changes anything.

use std::ops::Range;

use bytes::Bytes;
use event::Time;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::schema::{
    after_prefix, connect, consumer_id, select_sql, stored_position, stored_start,
};
use super::{READER_CACHE_KIB, READERS, Store, database_error};
use crate::embedded::group::lock;
use crate::{Batch, BusError, Entry, Offset, Record, Topic};

impl Store {
    pub(crate) fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Batch, BusError> {
        let bounds = self.ends.get(topic, partition)?;
        let out_of_range = |bounds: Range<Offset>| BusError::OutOfRange {
            topic,
            partition,
            asked: from,
            start: bounds.start,
            end: bounds.end,
        };
        if from < bounds.start || from > bounds.end {
            return Err(out_of_range(bounds));
        }
        if from == bounds.end {
            return Ok(Batch {
                records: Vec::new(),
                next: from,
            });
        }
        let batch = self.reading(|reader| {
            let mut select = reader.prepare_cached(&select_sql(topic, partition))?;
            let mut rows = select.query(params![from, bounds.end])?;
            let mut batch = Batch {
                records: Vec::new(),
                next: from,
            };
            let mut room = max_bytes;
            while let Some(row) = rows.next()? {
                let (key, value) = (row.get_ref(2)?.as_blob()?, row.get_ref(3)?.as_blob()?);
                let size = key.len() + value.len();
                if size > room && !batch.records.is_empty() {
                    break;
                }
                room = room.saturating_sub(size);
                let offset: Offset = row.get(0)?;
                let record = Record {
                    key: Bytes::copy_from_slice(key),
                    value: Bytes::copy_from_slice(value),
                    time: Time(row.get(1)?),
                };
                batch.records.push((offset, record));
                batch.next = offset + 1;
            }
            Ok(batch)
        })?;
        match batch.records.first() {
            Some((first, _)) if *first == from => Ok(batch),
            _ => {
                // Retention may have passed meanwhile; the database knows before `Ends` does.
                let start = self.reading(|reader| stored_start(reader, topic, partition))?;
                if from < start {
                    return Err(out_of_range(start..bounds.end));
                }
                Err(BusError::Corrupt {
                    path: self.path.display().to_string(),
                    offset: 0,
                    reason: format!("record {from} of {}-{partition} is missing", topic.as_str()),
                })
            }
        }
    }

    pub(crate) fn position(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<Offset>, BusError> {
        self.reading(|reader| match consumer_id(reader, consumer)? {
            Some(id) => stored_position(reader, id, topic, partition),
            None => Ok(None),
        })
    }

    /// All stored positions: consumer, topic, partition, next offset.
    pub(crate) fn positions(&self) -> Result<Vec<(String, Topic, u32, Offset)>, BusError> {
        self.reading(|reader| {
            let mut select = reader.prepare_cached(
                "SELECT name, topic, partition, next FROM positions JOIN consumers ON id = consumer
                 ORDER BY name, topic, partition",
            )?;
            let rows = select.query_map([], |row| {
                let topic: String = row.get(1)?;
                let topic = Topic::ALL.into_iter().find(|t| t.as_str() == topic);
                Ok((row.get(0)?, topic, row.get(2)?, row.get(3)?))
            })?;
            rows.filter_map(|row| match row {
                Ok((name, topic, partition, next)) => Some(Ok((name, topic?, partition, next))),
                Err(e) => Some(Err(e)),
            })
            .collect()
        })
    }

    pub(crate) fn state_get(
        &self,
        consumer: &str,
        partition: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        self.reading(|reader| {
            // One transaction, so that the values are of one moment.
            let transaction = reader.transaction()?;
            let Some(id) = consumer_id(&transaction, consumer)? else {
                return Ok(vec![None; keys.len()]);
            };
            let mut select = transaction.prepare_cached(
                "SELECT value FROM state WHERE consumer = ?1 AND partition = ?2 AND key = ?3",
            )?;
            keys.iter()
                .map(|key| {
                    select
                        .query_row(params![id, partition, key], |row| row.get(0))
                        .optional()
                })
                .collect()
        })
    }

    pub(crate) fn state_scan(
        &self,
        consumer: &str,
        partition: u32,
        prefix: &[u8],
    ) -> Result<Vec<Entry>, BusError> {
        self.reading(|reader| {
            let Some(id) = consumer_id(reader, consumer)? else {
                return Ok(Vec::new());
            };
            let mut select = reader.prepare_cached(
                "SELECT key, value FROM state WHERE consumer = ?1 AND partition = ?2 AND key >= ?3
                 AND (?4 IS NULL OR key < ?4) ORDER BY key",
            )?;
            select
                .query_map(
                    params![id, partition, prefix, after_prefix(prefix)],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )?
                .collect()
        })
    }

    /// SQLite's own check of the whole file.
    pub(crate) fn verify(&self) -> Result<(), BusError> {
        let found: String = self.reading(|reader| {
            reader.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        })?;
        if found == "ok" {
            return Ok(());
        }
        Err(BusError::Corrupt {
            path: self.path.display().to_string(),
            offset: 0,
            reason: found,
        })
    }

    pub(super) fn reading<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, BusError> {
        let idle = lock(&self.readers).pop();
        let done = match idle {
            Some(reader) => Ok(reader),
            None => connect(
                &self.path,
                OpenFlags::SQLITE_OPEN_READ_WRITE,
                READER_CACHE_KIB,
            ),
        }
        .and_then(|mut reader| {
            let value = work(&mut reader)?;
            let mut readers = lock(&self.readers);
            if readers.len() < READERS {
                readers.push(reader);
            }
            Ok(value)
        });
        done.map_err(|e| database_error(&self.path, e))
    }
}
