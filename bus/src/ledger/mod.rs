//! The evidence log: what the store holds, in a Merkle log that nobody can change unseen.
//!
//! [`Ledger`] is written by the service. Each [`Entry`] is a leaf of a tree as RFC 6962 defines it ([`tree`]); every
//! [`Ledger::append`] signs the new root and puts leaves and checkpoint ([`note`]) into `evidence.db` as one
//! transaction, so that there is never a leaf that is not signed for. [`History`] reads the same file without the key
//! and beside a running service; [`State`] is what follows from its leaves. [`log`] writes down what becomes durable in
//! the event log and checks its files; the index does both for its splits. What this proves, and against whom, stands
//! in docs/evidence.md and decision 0021.
//!
//! ```text
//! evidence.db     SQLite: meta(name, value)            format, key: what checks the signatures
//!                         leaves(number, content)      one entry each, as JSON, from 0
//!                         checkpoint(id, note)         the newest, signed
//!                         files(split, list)           of published splits: name, length and SHA-256 of each file
//! evidence.key    what signs; for this user only
//! ```

pub mod entry;
pub mod log;
pub mod note;
pub mod tree;

mod file;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use event::Time;
use rusqlite::Connection;

pub use entry::{Added, Entry, Held, State, Why};
pub use file::History;
use file::{begin, connect, has_begun, store};
use note::{Checkpoint, NoteError, SigningKey, VerifyKey};
use tree::{Frontier, leaf_hash};

/// The name of the evidence log in the data folder.
pub const FILE: &str = "evidence.db";
/// The name of the key in the data folder, where no other file is configured.
pub const KEY_FILE: &str = "evidence.key";

/// Why the evidence log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A file cannot be read or made.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The database failed.
    #[error("cannot use the evidence log `{path}`")]
    Database {
        /// The file.
        path: String,
        /// The reason.
        #[source]
        source: rusqlite::Error,
    },
    /// The key is none.
    #[error("the key of the evidence log `{path}` cannot be used")]
    Key {
        /// The file.
        path: String,
        /// The reason.
        #[source]
        source: NoteError,
    },
    /// The log was begun with another key.
    #[error(
        "the evidence log `{path}` is signed by {signed}, and the key is {key}: put the right key back, or move the log away to begin a new one"
    )]
    OtherKey {
        /// The file.
        path: String,
        /// Who signed it.
        signed: String,
        /// The key that is there.
        key: String,
    },
    /// The log or its key is there without the other.
    #[error(
        "`{there}` is there and `{gone}` is gone: restore it from a backup; to begin a new evidence log, which proves nothing of what was stored before, move `{there}` away"
    )]
    Gone {
        /// The one that is there.
        there: String,
        /// The one that is not.
        gone: String,
    },
    /// It does not hold what was signed.
    #[error(
        "the evidence log `{path}` was changed: {reason}; `trailwarden doctor --integrity` says more, and moving it away begins a new one"
    )]
    Changed {
        /// The file.
        path: String,
        /// What does not fit.
        reason: String,
    },
}

impl LedgerError {
    /// Can the same be done again after a while? True of a full disk and of a file that is in use.
    pub fn is_transient(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
        match self {
            LedgerError::Io { .. } => true,
            LedgerError::Database { source, .. } => source.sqlite_error_code().is_some_and(|c| {
                matches!(
                    c,
                    DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure
                )
            }),
            _ => false,
        }
    }
}

/// The evidence log, open for writing. One process at a time has it, as it has the store.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    key: SigningKey,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    frontier: Frontier,
    state: State,
    note: String,
}

/// What a check of the store says of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// It is other than it was.
    Changed,
    /// It was there and is gone.
    Removed,
    /// It was never written by the service, or should be gone.
    Inserted,
    /// Nothing vouches for it yet, or any more: no sign of tampering.
    Unproven,
}

/// One thing that a check of the store has to say.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// What is wrong.
    pub what: What,
    /// Where: a path within the data folder.
    pub place: String,
    /// In words.
    pub words: String,
}

impl Problem {
    /// Makes one.
    pub fn new(what: What, place: impl Into<String>, words: impl Into<String>) -> Problem {
        Problem {
            what,
            place: place.into(),
            words: words.into(),
        }
    }
}

/// The files of a published split, as they are listed: name, length, SHA-256.
pub type Files = Vec<(String, u64, String)>;

impl Ledger {
    /// Opens the log of a data folder, or begins it. `key_file` is where the key is kept if not in the folder.
    ///
    /// # Errors
    /// One of log and key is missing, they do not belong together, or the log does not hold what was signed.
    pub fn open(data_dir: &Path, key_file: Option<&Path>) -> Result<Ledger, LedgerError> {
        let path = data_dir.join(FILE);
        let own = data_dir.join(KEY_FILE);
        let key_path = key_file.unwrap_or(&own);
        let began = has_begun(&path)?;
        let key = match (began, key_path.exists()) {
            (true, false) => return Err(gone(&path, key_path)),
            // A key that was put there by a person may come before the log; our own is made after it.
            (false, true) if key_file.is_none() && !path.exists() => {
                return Err(gone(key_path, &path));
            }
            (_, true) => read_key(key_path)?,
            (false, false) => {
                connect(&path)?;
                make_key(key_path)?;
                read_key(key_path)?
            }
        };
        let connection = connect(&path)?;
        if !began {
            begin(&connection, &path, &key)?;
        }
        let history = History::read(&path)?;
        let signed = history.key.to_string();
        if signed != key.public().to_string() {
            return Err(LedgerError::OtherKey {
                path: path.display().to_string(),
                signed,
                key: key.public().to_string(),
            });
        }
        if let Some(reason) = history.problems.into_iter().next() {
            let path = path.display().to_string();
            return Err(LedgerError::Changed { path, reason });
        }
        let mut frontier = Frontier::default();
        history.hashes.iter().for_each(|hash| frontier.push(*hash));
        Ok(Ledger {
            path,
            key,
            inner: Mutex::new(Inner {
                connection,
                frontier,
                state: history.state,
                note: history.note,
            }),
        })
    }

    /// Adds leaves and signs for them, durably. `files` are those of the splits that are added, in their order. Gives the
    /// number of the first.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn append(&self, entries: &[Entry], files: &[Files]) -> Result<u64, LedgerError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, mut frontier) = (inner.frontier.size(), inner.frontier.clone());
        if entries.is_empty() {
            return Ok(first);
        }
        let mut leaves = Vec::with_capacity(entries.len());
        for entry in entries {
            let content = serde_json::to_string(entry).expect("entries are texts and numbers");
            frontier.push(leaf_hash(content.as_bytes()));
            leaves.push(content);
        }
        let checkpoint = Checkpoint {
            origin: self.key.public().name().to_owned(),
            size: frontier.size(),
            root: frontier.root(),
        };
        let note = self.key.sign(&checkpoint.text());
        // Once another publication or a stop follows, the last one has taken effect: nobody asks for the files of what
        // it replaced any more.
        let settles = |e: &Entry| matches!(e, Entry::Splits { .. } | Entry::Stopped { .. });
        let undone = entries.iter().any(|e| matches!(e, Entry::Undone { .. }));
        let replaced = inner.state.pending.iter().flat_map(|p| &p.removed);
        let forgotten: Vec<u64> = replaced
            .filter(|_| !undone && entries.iter().any(settles))
            .map(|held| held.added.split)
            .collect();
        let added = entries.iter().filter_map(|entry| match entry {
            Entry::Splits { added, .. } => added.as_ref(),
            _ => None,
        });
        let listed: Vec<(u64, &Files)> = added.map(|added| added.split).zip(files).collect();
        store(
            &mut inner.connection,
            (first, &leaves),
            &note,
            &listed,
            &forgotten,
        )
        .map_err(|source| LedgerError::Database {
            path: self.path.display().to_string(),
            source,
        })?;
        for (number, entry) in (first..).zip(entries) {
            inner.state.apply(number, entry);
        }
        inner.frontier = frontier;
        inner.note = note;
        Ok(first)
    }

    /// The newest checkpoint, signed.
    pub fn checkpoint(&self) -> String {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.note.clone()
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.frontier.size()
    }

    /// What follows from the leaves, as asked of it.
    pub fn state<T>(&self, ask: impl FnOnce(&State) -> T) -> T {
        ask(&self
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .state)
    }

    /// The files of a split as they were when it was published.
    pub fn files(&self, split: u64) -> Result<Option<Files>, LedgerError> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        file::files(&inner.connection, &self.path, split)
    }

    /// What checks its signatures.
    pub fn public(&self) -> VerifyKey {
        self.key.public()
    }

    /// Signs a text with the same key: [`SigningKey::sign`].
    pub fn sign(&self, text: &str) -> String {
        self.key.sign(text)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says that writing begins, and what does not fit what was left.
    pub fn start(&self, now: Time, version: &str, found: Vec<String>) -> Result<(), LedgerError> {
        let version = version.to_owned();
        let started = Entry::Started {
            time: now,
            version,
            found,
        };
        self.append(&[started], &[]).map(drop)
    }

    /// Says that everything is written.
    pub fn stop(&self, now: Time) -> Result<(), LedgerError> {
        self.append(&[Entry::Stopped { time: now }], &[]).map(drop)
    }
}

fn gone(there: &Path, gone: &Path) -> LedgerError {
    LedgerError::Gone {
        there: there.display().to_string(),
        gone: gone.display().to_string(),
    }
}

/// The key in a file.
pub fn read_key(path: &Path) -> Result<SigningKey, LedgerError> {
    let shown = || path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| LedgerError::Io {
        action: "read the key",
        path: shown(),
        source,
    })?;
    SigningKey::parse(&text).map_err(|source| LedgerError::Key {
        path: shown(),
        source,
    })
}

fn make_key(path: &Path) -> Result<(), LedgerError> {
    let make = || -> std::io::Result<()> {
        use std::io::Write;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| std::io::Error::other(e.to_string()))?;
        let mut options = std::fs::File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        // Written beside and renamed: a key that is cut off by a crash is none.
        let new = path.with_extension("new");
        let _ = std::fs::remove_file(&new);
        let mut file = options.open(&new)?;
        file.write_all(SigningKey::of_seed(seed).text().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        match path.parent() {
            Some(dir) if cfg!(unix) => std::fs::File::open(dir)?.sync_all(),
            _ => Ok(()),
        }
    };
    make().map_err(|source| LedgerError::Io {
        action: "make the key",
        path: path.display().to_string(),
        source,
    })?;
    tracing::info!(path = %path.display(), "made a key for the evidence log; `trailwarden evidence key` prints its public half");
    Ok(())
}

#[cfg(test)]
mod tests;
