//! The event log in the evidence log: [`attest`] writes down what has become durable, [`check`] holds the files to it.
//!
//! Every few seconds [`attest`] hashes the bytes that were added to each partition since the last time: a [`Stretch`] of
//! one file. What was added since is not vouched for; at an orderly stop nothing is. [`at_start`] compares the ends of
//! the files with those at the last stop, before anything is appended. [`dropping`] writes down that retention drops a
//! file before it does. [`check`] reads files only: it needs neither the key nor the log's lock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use event::Time;

use super::entry::{Chunk, End, Entry, State, Stretch};
use super::tree::{Hasher, hex};
use super::{Ledger, LedgerError, Problem, What};
use crate::embedded::EmbeddedBus;
use crate::{Bus, BusError, Topic};

/// How much is read at once.
const STEP: usize = 1 << 20;

/// Why what is durable could not be written down.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The event log failed.
    #[error("cannot look at the event log")]
    Bus(#[from] BusError),
    /// The evidence log failed.
    #[error("cannot write the evidence log")]
    Ledger(#[from] LedgerError),
}

impl AttestError {
    /// Can the same be done again after a while?
    pub fn is_transient(&self) -> bool {
        match self {
            AttestError::Bus(error) => error.is_transient() || matches!(error, BusError::Io { .. }),
            AttestError::Ledger(error) => error.is_transient(),
        }
    }
}

/// Writes down what has become durable since the last time. Gives the number of its bytes.
pub fn attest(bus: &EmbeddedBus, ledger: &Ledger, now: Time) -> Result<u64, AttestError> {
    let mut entries = Vec::new();
    for partition in 0..bus.partitions(Topic::Events) {
        let known = ledger.state(|state| state.end(partition));
        let (file, mut from, mut first) = match known {
            Some(end) => (end.file, end.len, Some(end.next)),
            None => (0, 0, None),
        };
        for chunk in bus.chunks(partition, file)? {
            if chunk.file != file || known.is_none() {
                (from, first) = (0, None);
            }
            if chunk.len <= from {
                continue;
            }
            let hashed = sha256(&chunk.path, from, chunk.len, &|_| {});
            let sha256 = match hashed {
                Ok(Some(hash)) => hash,
                // Retention took it meanwhile.
                Ok(None) | Err(_) if bus.bounds(Topic::Events, partition)?.start > chunk.file => {
                    continue;
                }
                Ok(None) => return Err(failed(&chunk.path, io::ErrorKind::UnexpectedEof.into())),
                Err(error) => return Err(failed(&chunk.path, error)),
            };
            entries.push(Entry::Log(Stretch {
                time: now,
                partition,
                file: chunk.file,
                from,
                to: chunk.len,
                first: first.unwrap_or(chunk.file),
                next: chunk.next,
                sha256,
            }));
        }
    }
    ledger.append(&entries, &[])?;
    let bytes = |entry: &Entry| match entry {
        Entry::Log(stretch) => stretch.to - stretch.from,
        _ => 0,
    };
    Ok(entries.iter().map(bytes).sum())
}

fn failed(path: &Path, source: io::Error) -> AttestError {
    AttestError::Ledger(LedgerError::Io {
        action: "read",
        path: path.display().to_string(),
        source,
    })
}

/// SHA-256 of the bytes `from` to `to`; `None` if the file is shorter.
fn sha256(path: &Path, from: u64, to: u64, seen: &dyn Fn(u64)) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let (mut hasher, mut buffer, mut left) = (Hasher::default(), vec![0; STEP], to - from);
    while left > 0 {
        let most = left.min(STEP as u64) as usize;
        let filled = match file.read(&mut buffer[..most]) {
            Ok(0) => return Ok(None),
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..filled]);
        seen(filled as u64);
        left -= filled as u64;
    }
    Ok(Some(hex(&hasher.finish())))
}

/// What does not fit what was left at the last stop, in words: for [`Ledger::start`], before anything is appended.
pub fn at_start(bus: &EmbeddedBus, ledger: &Ledger) -> Result<Vec<String>, BusError> {
    let mut found = Vec::new();
    if ledger.size() == 0 {
        return Ok(found);
    }
    for partition in 0..bus.partitions(Topic::Events) {
        let (known, stopped) = ledger.state(|state| (state.end(partition), state.stopped));
        let End { file, len, next } = known.unwrap_or_default();
        let end = bus.bounds(Topic::Events, partition)?.end;
        let now = bus.chunks(partition, file)?;
        let now = now.iter().find(|chunk| chunk.file == file);
        let now = now.map_or(0, |chunk| chunk.len);
        if known.is_some() && (end < next || now < len) {
            found.push(format!("partition {partition} of the event log ended at offset {end}, not at {next} as before"));
        } else if stopped && end > next {
            found.push(format!(
                "partition {partition} of the event log had {} records more than at the last stop",
                end - next
            ));
        }
    }
    Ok(found)
}

/// Writes down that retention is about to drop a file: for [`EmbeddedBus::retain_with`].
pub fn dropping(ledger: &Ledger, now: Time) -> impl Fn(u32, u64, u64) -> Result<(), BusError> {
    move |partition, file, next| {
        let time = now;
        let entry = Entry::Dropped {
            time,
            partition,
            file,
            next,
        };
        match ledger.append(&[entry], &[]) {
            Ok(_) => Ok(()),
            // Retention waits: what is dropped and not written down would look like tampering.
            Err(error) if error.is_transient() => Err(BusError::Unavailable {
                action: "write down that a file of the event log is dropped".into(),
                reason: error.to_string(),
            }),
            Err(error) => Err(BusError::State(error.to_string())),
        }
    }
}

/// What lies in the folders of the event log: length by partition and first offset.
#[derive(Default)]
struct Disk {
    files: BTreeMap<(u32, u64), (PathBuf, u64)>,
    foreign: Vec<PathBuf>,
}

fn disk(log_dir: &Path) -> io::Result<Disk> {
    let mut disk = Disk::default();
    let events = log_dir.join("events");
    if !events.is_dir() {
        return Ok(disk);
    }
    for folder in std::fs::read_dir(events)? {
        let folder = folder?.path();
        let partition = name(&folder).parse::<u32>();
        let Ok(partition) = partition else {
            disk.foreign.push(folder);
            continue;
        };
        for file in std::fs::read_dir(&folder)? {
            let file = file?;
            let path = file.path();
            let base = name(&path)
                .strip_suffix(".log")
                .and_then(|n| n.parse().ok());
            match base.filter(|base| name(&path) == format!("{base:020}.log")) {
                Some(base) => {
                    disk.files
                        .insert((partition, base), (path, file.metadata()?.len()));
                }
                None => disk.foreign.push(path),
            }
        }
    }
    Ok(disk)
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default()
}

/// The bytes that [`check`] reads, for a progress bar.
pub fn bytes(state: &State) -> u64 {
    state.chunks.values().map(Chunk::len).sum()
}

/// Holds the files of the event log in `log_dir` to what was written down. `seen` is told how many bytes were read.
///
/// # Errors
/// A folder cannot be listed. A file that cannot be read is a problem like others.
pub fn check(
    log_dir: &Path,
    state: &State,
    seen: &dyn Fn(u64),
) -> Result<Vec<Problem>, LedgerError> {
    let mut disk = disk(log_dir).map_err(|source| LedgerError::Io {
        action: "list",
        path: log_dir.display().to_string(),
        source,
    })?;
    let place = |partition: u32, file: u64| format!("log/events/{partition}/{file:020}.log");
    let shown = |path: &Path| match path.strip_prefix(log_dir) {
        Ok(path) => format!("log/{}", path.display()),
        Err(_) => path.display().to_string(),
    };
    let mut problems: Vec<Problem> = disk
        .foreign
        .iter()
        .map(|path| {
            Problem::new(
                What::Inserted,
                shown(path),
                "the event log has no such file",
            )
        })
        .collect();
    for (&(partition, file), chunk) in &state.chunks {
        let here = place(partition, file);
        let Some((path, len)) = disk.files.remove(&(partition, file)) else {
            if chunk.dropped.is_none() {
                let words = format!(
                    "a file of the event log is gone, and retention did not drop it: {}",
                    offsets(chunk)
                );
                problems.push(Problem::new(What::Removed, here, words));
            }
            continue;
        };
        problems.extend(of_stretches(&here, &path, len, chunk, seen));
        let more = len.saturating_sub(chunk.len());
        if more == 0 || chunk.dropped.is_some() {
            continue;
        }
        let closed = state.stopped || state.end(partition).is_some_and(|end| end.file > file);
        problems.push(match closed {
            true => Problem::new(
                What::Inserted,
                here,
                format!("{more} bytes were added behind what the service had written"),
            ),
            false => Problem::new(
                What::Unproven,
                here,
                format!("{more} bytes are newer than the last checkpoint"),
            ),
        });
    }
    for ((partition, file), (_, len)) in disk.files {
        let end = state.end(partition).unwrap_or_default();
        let End {
            file: last, next, ..
        } = end;
        let follows = file == next && (file > last || next == 0);
        problems.extend(match (len, state.stopped) {
            (0, _) if follows => None,
            (_, false) if file >= next => Some(Problem::new(
                What::Unproven,
                place(partition, file),
                format!("{len} bytes are newer than the last checkpoint"),
            )),
            _ => Some(Problem::new(
                What::Inserted,
                place(partition, file),
                "the service had no such file of the event log, or retention had dropped it",
            )),
        });
    }
    Ok(problems)
}

fn offsets(chunk: &Chunk) -> String {
    match (chunk.stretches.first(), chunk.stretches.last()) {
        (Some(first), Some(last)) => format!("offsets {} to {}", first.first, last.next),
        _ => "no offsets".to_owned(),
    }
}

/// The stretches of a file that are not as they were.
fn of_stretches(
    here: &str,
    path: &Path,
    len: u64,
    chunk: &Chunk,
    seen: &dyn Fn(u64),
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut at = 0;
    for stretch in &chunk.stretches {
        let about = format!(
            "offsets {} to {}, written by {}",
            stretch.first, stretch.next, stretch.time
        );
        let span = format!("bytes {} to {}", stretch.from, stretch.to);
        if stretch.from != at {
            let words = format!("nothing vouches for bytes {at} to {}", stretch.from);
            problems.push(Problem::new(What::Unproven, here, words));
        }
        at = stretch.to;
        if stretch.from >= len {
            let words = format!("cut off at byte {len}: {about} are gone");
            problems.push(Problem::new(What::Removed, here, words));
            continue;
        }
        match sha256(path, stretch.from, stretch.to, seen) {
            Ok(Some(found)) if found == stretch.sha256 => {}
            Ok(Some(_)) => problems.push(Problem::new(
                What::Changed,
                here,
                format!("{span} are not what was written: {about}"),
            )),
            Ok(None) => problems.push(Problem::new(
                What::Changed,
                here,
                format!("cut off within {span}: {about}"),
            )),
            Err(error) => problems.push(Problem::new(
                What::Changed,
                here,
                format!("{span} cannot be read: {error}"),
            )),
        }
    }
    problems
}
