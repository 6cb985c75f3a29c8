//! Published splits, written down in the evidence log.
//!
//! Beside the files of tantivy a split has `events.sha256`: the hash of each of its events, 32 bytes each, ascending. The
//! hash is that of a leaf ([`bus::ledger::tree`]) over the event as it stands on the log; the root over all of them goes
//! into the evidence log, so that one event can be proven without the others. Ascending, since splits are merged: the
//! list of a merged split follows from those of its parts. [`write_down`] comes before the commit that publishes, and
//! [`reconcile`] takes back what a crash cut off between the two.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use bus::ledger::entry::Pending;
use bus::ledger::tree::{Frontier, Hash, Hasher, hex, sha256};
use bus::ledger::{Added, Entry, Files, Ledger, LedgerError, Why};
use event::Time;

use crate::split::Meta;

/// The name of the list of events.
pub(crate) const EVENTS: &str = "events.sha256";

/// Writes the list of a new split.
pub(crate) fn write(folder: &Path, mut hashes: Vec<Hash>) -> io::Result<()> {
    hashes.sort_unstable();
    let mut file = BufWriter::new(File::create(folder.join(EVENTS))?);
    for hash in &hashes {
        file.write_all(hash)?;
    }
    file.into_inner()?.sync_all()
}

/// Writes the list of a split that is made of others; none if one of them has none.
pub(crate) fn merge(folder: &Path, parts: &[&Path]) -> io::Result<()> {
    let mut readers = Vec::with_capacity(parts.len());
    for part in parts {
        match File::open(part.join(EVENTS)) {
            Ok(file) => readers.push(BufReader::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    let mut heads = Vec::with_capacity(readers.len());
    for reader in &mut readers {
        heads.push(next(reader)?);
    }
    let mut file = BufWriter::new(File::create(folder.join(EVENTS))?);
    let least = |heads: &[Option<Hash>]| {
        let heads = heads.iter().enumerate();
        heads.filter_map(|(n, head)| Some((((*head)?), n))).min()
    };
    while let Some((hash, n)) = least(&heads) {
        file.write_all(&hash)?;
        heads[n] = next(&mut readers[n])?;
    }
    file.into_inner()?.sync_all()
}

fn next(reader: &mut impl Read) -> io::Result<Option<Hash>> {
    let mut hash = [0; 32];
    match reader.read_exact(&mut hash) {
        Ok(()) => Ok(Some(hash)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The hashes of the events of a split, ascending; `None` where it has no list.
pub(crate) fn events(folder: &Path) -> io::Result<Option<Vec<Hash>>> {
    let mut reader = match File::open(folder.join(EVENTS)) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut hashes = Vec::new();
    while let Some(hash) = next(&mut reader)? {
        hashes.push(hash);
    }
    Ok(Some(hashes))
}

/// The files of a split with length and hash, by name. Locks of tantivy, which readers leave behind, are none.
pub(crate) fn files(folder: &Path, seen: &dyn Fn(u64)) -> io::Result<Files> {
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            files.push((format!("{name}/"), 0, String::new()));
            continue;
        }
        if metadata.len() == 0 && name.ends_with(".lock") {
            continue;
        }
        let mut file = File::open(entry.path())?;
        let (mut hasher, mut buffer, mut length) = (Hasher::default(), vec![0; 1 << 20], 0);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(filled) => {
                    hasher.update(&buffer[..filled]);
                    length += filled as u64;
                    seen(filled as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        files.push((name, length, hex(&hasher.finish())));
    }
    files.sort();
    Ok(files)
}

/// The hash of a list of files.
pub(crate) fn digest(files: &Files) -> String {
    let list = serde_json::to_vec(files).expect("names and numbers are JSON");
    hex(&sha256(&list))
}

/// Why a publication could not be written down.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A file of a split cannot be read.
    #[error("cannot hash split {0}")]
    Split(u64, #[source] io::Error),
    /// The evidence log failed.
    #[error("cannot write the evidence log")]
    Ledger(#[from] LedgerError),
}

impl SealError {
    /// Can the same be done again after a while?
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            SealError::Split(..) => true,
            SealError::Ledger(error) => error.is_transient(),
        }
    }
}

fn sealed(splits: &Path, meta: &Meta) -> Result<(Added, Files), SealError> {
    let folder = Meta::folder(splits, meta.number);
    let failed = |error| SealError::Split(meta.number, error);
    let files = files(&folder, &|_| {}).map_err(failed)?;
    let root = |hashes: Vec<Hash>| {
        let mut frontier = Frontier::default();
        hashes.into_iter().for_each(|hash| frontier.push(hash));
        hex(&frontier.root())
    };
    let added = Added {
        split: meta.number,
        meta: serde_json::to_value(meta).expect("numbers and times are JSON"),
        files: digest(&files),
        events: events(&folder).map_err(failed)?.map(root),
    };
    Ok((added, files))
}

/// A change of what is published, as it is written down.
pub(crate) struct Change<'c> {
    /// What for.
    pub(crate) why: Why,
    /// The new splits.
    pub(crate) added: &'c [Meta],
    /// Those that go.
    pub(crate) removed: &'c [Meta],
    /// The reason given for a removal, and who gave it; else empty.
    pub(crate) reason: &'c str,
}

/// Writes down what is about to be published. Splits that are merged are looked at once more: what was changed in one
/// would else go on in a split that nobody can find fault with.
pub(crate) fn write_down(
    ledger: &Ledger,
    splits: &Path,
    change: &Change<'_>,
    time: Time,
) -> Result<(), SealError> {
    let why = change.why;
    let mut changed = Vec::new();
    for meta in change.removed.iter().filter(|_| why == Why::Merge) {
        let expected = ledger.state(|s| s.splits.get(&meta.number).map(|h| h.added.files.clone()));
        let found = files(&Meta::folder(splits, meta.number), &|_| {});
        if found.ok().map(|files| digest(&files)) != expected {
            tracing::error!(
                split = meta.number,
                "a split was not what had been published when it was merged"
            );
            changed.push(meta.number);
        }
    }
    let (mut added, mut lists) = (Vec::new(), Vec::new());
    for meta in change.added {
        let (split, files) = sealed(splits, meta)?;
        added.push(Some(split));
        lists.push(files);
    }
    if added.is_empty() {
        added.push(None);
    }
    let mut removed = change.removed.iter().map(|meta| meta.number).collect();
    // A leaf for each new split, since a bundle proves its events by one leaf; what goes stands in the first.
    let entries = added
        .into_iter()
        .enumerate()
        .map(|(n, added)| Entry::Splits {
            time,
            why,
            joined: n > 0,
            reason: change.reason.to_owned(),
            added,
            removed: std::mem::take(&mut removed),
            changed: std::mem::take(&mut changed),
        });
    let entries: Vec<Entry> = entries.collect();
    ledger.append(&entries, &lists)?;
    Ok(())
}

/// Brings the evidence log to what is published: the first time, takes down what is there; after a crash, takes back
/// what was cut off. What does not fit otherwise is left to be found. Tells whether all fits.
pub(crate) fn reconcile(
    ledger: &Ledger,
    splits: &Path,
    metas: &[Meta],
    time: Time,
) -> Result<bool, SealError> {
    if !ledger.state(|state| state.indexed) {
        for meta in metas {
            let (added, files) = sealed(splits, meta)?;
            let entry = Entry::Splits {
                time,
                why: Why::Begin,
                joined: false,
                reason: String::new(),
                added: Some(added),
                removed: Vec::new(),
                changed: Vec::new(),
            };
            ledger.append(&[entry], &[files])?;
        }
        return Ok(true);
    }
    let mut numbers: Vec<u64> = metas.iter().map(|meta| meta.number).collect();
    numbers.sort_unstable();
    if ledger.state(|state| state.splits.keys().eq(&numbers)) {
        return Ok(true);
    }
    let undone = ledger.state(|state| {
        let before = |pending: &&Pending| state.without(pending).keys().eq(&numbers);
        state.pending.as_ref().filter(before).map(|p| p.leaf)
    });
    if let Some(leaf) = undone {
        ledger.append(&[Entry::Undone { time, leaf }], &[])?;
    }
    Ok(undone.is_some())
}
