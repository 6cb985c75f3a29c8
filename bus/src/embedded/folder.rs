//! The data folder: who may use it, which format it has, and how many partitions it was made for.
//!
//! ```text
//! lock                     held by the process that has the folder open
//! format                   JSON: version of this layout and the partition counts; written last at creation
//! state.db                 see `store`
//! events/PARTITION/BASE.log see `segment` and `frame`
//! ```
//!
//! [`Folder::open`] creates the folder or checks it: another process, a newer format, other partition counts and
//! missing parts are refused with what to do about it. What lies in the files is not looked at here.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::sync_dir;
use super::segment::io_error;
use crate::config::Partitions;
use crate::{BusError, Topic};

/// The layout that this code writes.
const FORMAT: u32 = 1;
const STATE: &str = "state.db";

/// A data folder that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    partitions: u32,
    created: bool,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Format {
    format: u32,
    partitions: Partitions,
}

/// Enough of any future format to know that it is one.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Folder {
    pub(super) fn open(dir: &Path, partitions: &Partitions) -> Result<Folder, BusError> {
        create_dir(dir)?;
        let lock = take(dir)?;
        let created = match read_format(dir)? {
            Some(format) => {
                check_counts(dir, &format.partitions, partitions)?;
                if !dir.join(STATE).exists() {
                    return Err(incomplete(dir, STATE));
                }
                false
            }
            None => {
                check_new(dir)?;
                true
            }
        };
        let folder = Folder {
            dir: dir.to_owned(),
            partitions: partitions.events,
            created,
            _lock: lock,
        };
        for partition in folder.partition_dirs() {
            if !created && !partition.exists() {
                return Err(incomplete(dir, &partition.display().to_string()));
            }
            create_dir(&partition)?;
        }
        for synced in [dir.join("events"), dir.to_owned()] {
            sync_dir(&synced).map_err(|e| io_error("sync", &synced, e))?;
        }
        Ok(folder)
    }

    pub(super) fn state_path(&self) -> PathBuf {
        self.dir.join(STATE)
    }

    pub(super) fn partition_dirs(&self) -> Vec<PathBuf> {
        (0..self.partitions)
            .map(|p| self.dir.join("events").join(p.to_string()))
            .collect()
    }

    /// Marks a new folder as whole, once its parts are on the disk.
    pub(super) fn finish(&self, partitions: &Partitions) -> Result<(), BusError> {
        if !self.created {
            return Ok(());
        }
        let format = Format {
            format: FORMAT,
            partitions: partitions.clone(),
        };
        let text = serde_json::to_vec(&format).expect("numbers can be written as JSON");
        let (new, path) = (self.dir.join("format.new"), self.dir.join("format"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            sync_dir(&self.dir)
        };
        write().map_err(|e| io_error("write", &path, e))
    }
}

fn create_dir(dir: &Path) -> Result<(), BusError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    // Audit trails are nobody else's business.
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|e| io_error("create", dir, e))
}

fn take(dir: &Path) -> Result<File, BusError> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| io_error("open", &path, e))?;
    match crate::hold::hold(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BusError::Locked(dir.display().to_string())),
        Err(TryLockError::Error(e)) => Err(io_error("lock", &path, e)),
    }
}

fn read_format(dir: &Path) -> Result<Option<Format>, BusError> {
    let path = dir.join("format");
    let mut text = String::new();
    match File::open(&path).and_then(|file| file.take(1 << 16).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error("read", &path, e)),
    }
    let damaged = |e: serde_json::Error| BusError::Corrupt {
        path: path.display().to_string(),
        offset: 0,
        reason: e.to_string(),
    };
    let Version { format } = serde_json::from_str(&text).map_err(damaged)?;
    if format > FORMAT {
        return Err(BusError::Refused(format!(
            "data folder `{}` has format {format}, and this program knows formats up to {FORMAT}: \
             run the newer program, or use another folder",
            dir.display()
        )));
    }
    serde_json::from_str(&text).map(Some).map_err(damaged)
}

fn check_counts(dir: &Path, made: &Partitions, asked: &Partitions) -> Result<(), BusError> {
    for topic in Topic::ALL {
        let (made, asked) = (made.of(topic), asked.of(topic));
        if made != asked {
            return Err(BusError::Refused(format!(
                "data folder `{}` was created with {made} partitions of {topic}, the configuration says {asked}: \
                 the number cannot change, so set it back to {made} or begin with an empty folder",
                dir.display(),
                topic = topic.as_str()
            )));
        }
    }
    Ok(())
}

/// Without a format file the folder must be new, or its creation was cut off before anything was stored.
fn check_new(dir: &Path) -> Result<(), BusError> {
    let stored = walk(&dir.join("events")).map_err(|e| io_error("list", dir, e))?;
    if stored > 0 {
        return Err(incomplete(dir, "format"));
    }
    Ok(())
}

/// The bytes in the partition folders.
fn walk(events: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    if events.exists() {
        for partition in fs::read_dir(events)? {
            for file in fs::read_dir(partition?.path())? {
                bytes += file?.metadata()?.len();
            }
        }
    }
    Ok(bytes)
}

fn incomplete(dir: &Path, part: &str) -> BusError {
    BusError::Refused(format!(
        "data folder `{}` has lost its part `{part}`: restore it from a backup, or begin with an empty folder",
        dir.display()
    ))
}
