//! The alert store in one SQLite file: one writer behind a mutex and a few read connections.
//!
//! WAL lets readers go on while the writer writes, and `synchronous=FULL` makes a commit durable. The file
//! belongs to one process at a time; nothing here is shared between nodes.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::db::Tx;
use super::{READERS, StoreError, failed, lock, schema};

/// An open file.
pub(super) struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl Sqlite {
    /// Opens or makes the file `path`, with the newest tables.
    pub(super) fn open(path: &Path) -> Result<Sqlite, StoreError> {
        let mut writer = connect(path)?;
        schema::migrate_sqlite(&mut writer)?;
        Ok(Sqlite {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
        })
    }

    /// See [`super::db::Db::write`].
    pub(super) fn write<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<(T, u64), StoreError> {
        let mut writer = lock(&self.writer);
        let tx = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed(action))?;
        let done = {
            let tx = Tx::from(&tx);
            (work(&tx)?, tx.last_feed())
        };
        tx.commit().map_err(failed(action))?;
        Ok(done)
    }

    /// See [`super::db::Db::read`].
    pub(super) fn read<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let kept = lock(&self.readers).pop();
        let mut reader = match kept {
            Some(reader) => reader,
            None => connect(&self.path)?,
        };
        let found = {
            let tx = reader.transaction().map_err(failed(action))?;
            work(&Tx::from(&tx))
        };
        let mut readers = lock(&self.readers);
        if readers.len() < READERS {
            readers.push(reader);
        }
        found
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.set_prepared_statement_cache_capacity(128);
        Ok(connection)
    };
    open().map_err(failed("open"))
}
