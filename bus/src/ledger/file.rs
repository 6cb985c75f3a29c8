//! `evidence.db`: the tables, and reading them without the key.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::entry::{Entry, State};
use super::note::{Checkpoint, SigningKey, VerifyKey};
use super::tree::{Frontier, Hash, leaf_hash};
use super::{Files, LedgerError};

/// The version of the file. Another one is refused.
const FORMAT: &str = "1";

/// Opens the file for writing and makes the tables that are missing.
pub(super) fn connect(path: &Path) -> Result<Connection, LedgerError> {
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA journal_size_limit = 16777216;
             CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS leaves(number INTEGER PRIMARY KEY, content TEXT NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS checkpoint(id INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS files(split INTEGER PRIMARY KEY, list TEXT NOT NULL) STRICT;",
        )?;
        Ok(connection)
    };
    open().map_err(|source| database(path, source))
}

fn database(path: &Path, source: rusqlite::Error) -> LedgerError {
    LedgerError::Database {
        path: path.display().to_string(),
        source,
    }
}

/// Writes down whose log it is.
pub(super) fn begin(
    connection: &Connection,
    path: &Path,
    key: &SigningKey,
) -> Result<(), LedgerError> {
    let empty = Checkpoint {
        origin: key.public().name().to_owned(),
        size: 0,
        root: Frontier::default().root(),
    };
    let put = "INSERT INTO meta(name, value) VALUES (?1, ?2)
               ON CONFLICT DO UPDATE SET value = excluded.value";
    let begin = || -> rusqlite::Result<()> {
        connection.execute(put, params!["format", FORMAT])?;
        connection.execute(put, params!["key", key.public().to_string()])?;
        connection.execute(
            "INSERT OR REPLACE INTO checkpoint(id, note) VALUES (1, ?1)",
            [key.sign(&empty.text())],
        )?;
        Ok(())
    };
    begin().map_err(|source| database(path, source))
}

/// Writes leaves from a number on, their checkpoint and the files of new splits, and forgets those of others, as one.
pub(super) fn store(
    connection: &mut Connection,
    (first, leaves): (u64, &[String]),
    note: &str,
    listed: &[(u64, &Files)],
    forgotten: &[u64],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (number, content) in (first..).zip(leaves) {
        transaction
            .prepare_cached("INSERT INTO leaves(number, content) VALUES (?1, ?2)")?
            .execute(params![number, content])?;
    }
    transaction.execute("UPDATE checkpoint SET note = ?1 WHERE id = 1", [note])?;
    for split in forgotten {
        transaction.execute("DELETE FROM files WHERE split = ?1", [split])?;
    }
    for (split, files) in listed {
        let list = serde_json::to_string(files).expect("names and numbers are JSON");
        transaction.execute(
            "INSERT OR REPLACE INTO files(split, list) VALUES (?1, ?2)",
            params![split, list],
        )?;
    }
    transaction.commit()
}

/// The files of a split as they were listed.
pub(super) fn files(
    connection: &Connection,
    path: &Path,
    split: u64,
) -> Result<Option<Files>, LedgerError> {
    let list: Option<String> = connection
        .query_row("SELECT list FROM files WHERE split = ?1", [split], |row| {
            row.get(0)
        })
        .optional()
        .map_err(|source| database(path, source))?;
    Ok(list.and_then(|list| serde_json::from_str(&list).ok()))
}

/// An evidence log as it was at one moment, read without its key and beside whoever writes it.
#[derive(Debug)]
pub struct History {
    /// What the file says checks its signatures. Whether it is the right key, the file cannot say.
    pub key: VerifyKey,
    /// The newest checkpoint, signed.
    pub note: String,
    /// The hash of each leaf.
    pub hashes: Vec<Hash>,
    /// What follows from the leaves.
    pub state: State,
    /// What is wrong with the log itself, in words.
    pub problems: Vec<String>,
    connection: Connection,
    path: std::path::PathBuf,
}

impl History {
    /// Reads the file and checks that its leaves are what its checkpoint says.
    ///
    /// # Errors
    /// It cannot be read, or is no evidence log. What was changed in it is among the problems.
    pub fn read(path: &Path) -> Result<History, LedgerError> {
        let failed = |source| database(path, source);
        let mut connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(failed)?;
        connection
            .busy_timeout(Duration::from_secs(10))
            .map_err(failed)?;
        // Everything at one moment.
        let transaction = connection.transaction().map_err(failed)?;
        let (meta, note) = head(&transaction).map_err(failed)?;
        let value = |name: &str| {
            meta.iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        let changed = |reason: String| LedgerError::Changed {
            path: path.display().to_string(),
            reason,
        };
        if let Some(format) = value("format").filter(|format| *format != FORMAT) {
            let reason = format!("it has format {format}, and this program reads {FORMAT}");
            return Err(changed(reason));
        }
        let key = match value("key").map(VerifyKey::parse) {
            Some(Ok(key)) => Some(key),
            Some(Err(_)) => return Err(changed("its key cannot be read".to_owned())),
            None => None,
        };
        let mut problems = Vec::new();
        let (mut state, mut frontier, mut hashes) =
            (State::default(), Frontier::default(), Vec::new());
        let mut take = |number: u64, content: &str| {
            if number != frontier.size() && problems.is_empty() {
                problems.push(format!("leaf {} is missing", frontier.size()));
            }
            match serde_json::from_str::<Entry>(content) {
                Ok(entry) => state.apply(number, &entry),
                Err(_) => problems.push(format!("leaf {number} cannot be read")),
            }
            let hash = leaf_hash(content.as_bytes());
            frontier.push(hash);
            hashes.push(hash);
        };
        each_leaf(&transaction, &mut take).map_err(failed)?;
        drop(transaction);
        let key = match key {
            Some(key) => key,
            // Nothing has begun yet.
            None if hashes.is_empty() => SigningKey::of_seed([0; 32]).public(),
            None => return Err(changed("its key is gone".to_owned())),
        };
        match Checkpoint::open(&note, &key) {
            Err(_) if hashes.is_empty() && note.is_empty() => {}
            Err(error) => problems.push(format!("its checkpoint cannot be trusted: {error}")),
            Ok(checkpoint) if checkpoint.size != frontier.size() => problems.push(format!(
                "it has {} leaves, and {} were signed",
                frontier.size(),
                checkpoint.size
            )),
            Ok(checkpoint) if checkpoint.root != frontier.root() => problems.push(
                "a leaf is not what was signed: the leaves do not have the root of the checkpoint"
                    .to_owned(),
            ),
            Ok(_) => {}
        }
        Ok(History {
            key,
            note,
            hashes,
            state,
            problems,
            connection,
            path: path.to_owned(),
        })
    }

    /// Are there no leaves yet?
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The content of a leaf.
    pub fn leaf(&self, number: u64) -> Result<Option<String>, LedgerError> {
        self.connection
            .query_row(
                "SELECT content FROM leaves WHERE number = ?1",
                [number],
                |row| row.get(0),
            )
            .optional()
            .map_err(|source| database(&self.path, source))
    }

    /// The files of a split as they were when it was published.
    pub fn files(&self, split: u64) -> Result<Option<Files>, LedgerError> {
        files(&self.connection, &self.path, split)
    }
}

/// Has anything been written down?
pub(super) fn has_begun(path: &Path) -> Result<bool, LedgerError> {
    if !path.exists() {
        return Ok(false);
    }
    let any = "SELECT EXISTS (SELECT 1 FROM leaves)";
    connect(path)?
        .query_row(any, [], |row| row.get(0))
        .map_err(|source| database(path, source))
}

/// Names and values, and the checkpoint.
fn head(connection: &Connection) -> rusqlite::Result<(Vec<(String, String)>, String)> {
    let meta = connection
        .prepare("SELECT name, value FROM meta")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let note = connection
        .query_row("SELECT note FROM checkpoint WHERE id = 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    Ok((meta, note.unwrap_or_default()))
}

fn each_leaf(connection: &Connection, take: &mut dyn FnMut(u64, &str)) -> rusqlite::Result<()> {
    let mut leaves = connection.prepare("SELECT number, content FROM leaves ORDER BY number")?;
    let mut rows = leaves.query([])?;
    while let Some(row) = rows.next()? {
        take(row.get(0)?, row.get_ref(1)?.as_str()?);
    }
    Ok(())
}
