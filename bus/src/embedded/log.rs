//! The topic `events` in plain files: who writes, in which order, and what happens when the disk fails.
//!
//! [`EventLog::append`] compresses in the caller's thread and hands blocks to a [`Group`], so that callers share one
//! write and one fsync per partition. Offsets are given there. Only after all fsyncs of a group do its records become
//! visible. A write that fails is cut away and the group gets an error; after a failed fsync nobody knows what the
//! disk holds, so the log takes no more writes. Files are closed by size and by age, so that retention, which drops
//! whole files, comes to all of them. What a file looks like inside is the business of `frame` and `segment`.

#[cfg(test)]
mod fault_tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use event::Time;

use super::disk::Disk;
use super::ends::Ends;
use super::frame::{self, Block, HEADER, Header};
use super::group::Group;
use super::segment::{ChunkFile, Scan, Segments, Tail, file_name, io_error};
use crate::{Batch, BusError, Offset, Record, Topic, partition_of};

/// The path of the first failed fsync of this data folder.
pub(super) type Poison = Arc<OnceLock<String>>;

/// When a file is closed and when it is dropped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A file of this many bytes gets no more.
    pub(super) chunk_bytes: u64,
    /// Microseconds that records are kept.
    pub(super) retention: i64,
}

/// All partitions of `events`.
#[derive(Debug)]
pub(super) struct EventLog {
    disk: Arc<dyn Disk>,
    limits: Limits,
    partitions: Vec<Segments>,
    group: Group<Vec<Tail>, Job, Result<(), BusError>>,
    ends: Arc<Ends>,
    poison: Poison,
}

/// Is told of each file that retention is about to drop: partition, first offset, one past its last. An error keeps it.
pub type BeforeDrop<'b> = dyn Fn(u32, Offset, Offset) -> Result<(), BusError> + 'b;

/// What one caller appends: blocks and their partitions.
type Job = Vec<(u32, Block)>;

impl EventLog {
    /// Opens the partitions in `dirs`, which exist, and publishes what they hold.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dirs: Vec<PathBuf>,
        limits: Limits,
        ends: Arc<Ends>,
        poison: Poison,
    ) -> Result<EventLog, BusError> {
        let mut partitions = Vec::new();
        let mut tails = Vec::new();
        for (partition, dir) in (0..).zip(dirs) {
            let (segments, tail) = Segments::open(&*disk, dir, partition)?;
            ends.set([(Topic::Events, partition, segments.start()..tail.scan.next)]);
            partitions.push(segments);
            tails.push(tail);
        }
        Ok(EventLog {
            disk,
            limits,
            partitions,
            group: Group::new(tails),
            ends,
            poison,
        })
    }

    pub(super) fn append(&self, records: &[Record]) -> Result<(), BusError> {
        let count = self.partitions.len() as u32;
        let mut by_partition: Vec<Vec<&Record>> = vec![Vec::new(); self.partitions.len()];
        for record in records {
            by_partition[partition_of(&record.key, count) as usize].push(record);
        }
        let mut blocks = Vec::new();
        for (partition, records) in (0..).zip(by_partition) {
            let encoded = frame::encode(records).map_err(|e| {
                io_error("compress for", self.partitions[partition as usize].dir(), e)
            })?;
            blocks.extend(encoded.into_iter().map(|block| (partition, block)));
        }
        if blocks.is_empty() {
            return Ok(());
        }
        self.group
            .submit(blocks, |tails, jobs| self.flush(tails, jobs))
            .unwrap_or_else(|| Err(broken()))
    }

    fn flush(&self, tails: &mut [Tail], jobs: Vec<Job>) -> Vec<Result<(), BusError>> {
        let callers = jobs.len();
        let mut blocks: Vec<Vec<Block>> = (0..tails.len()).map(|_| Vec::new()).collect();
        for (partition, block) in jobs.into_iter().flatten() {
            blocks[partition as usize].push(block);
        }
        let written = self.write(tails, &blocks);
        (0..callers)
            .map(|_| match &written {
                Ok(()) => Ok(()),
                Err(e) => Err(again(e)),
            })
            .collect()
    }

    /// Writes and syncs the blocks of a group, all or nothing, and publishes them.
    fn write(&self, tails: &mut [Tail], blocks: &[Vec<Block>]) -> Result<(), BusError> {
        self.check_poison()?;
        let touched: Vec<usize> = (0..tails.len())
            .filter(|p| !blocks[*p].is_empty())
            .collect();
        let mut scans = Vec::with_capacity(touched.len());
        for (n, &p) in touched.iter().enumerate() {
            let written = self
                .roll_if_due(&mut tails[p], p, &blocks[p])
                .and_then(|()| {
                    let (bytes, scan) = frames(&tails[p].scan, p as u32, &blocks[p]);
                    let Tail {
                        file,
                        path,
                        scan: old,
                    } = &mut tails[p];
                    file.write_at(old.len, &bytes)
                        .map_err(|e| io_error("write", path, e))?;
                    Ok(scan)
                });
            match written {
                Ok(scan) => scans.push(scan),
                Err(e) => {
                    for &p in &touched[..=n] {
                        self.cut(&mut tails[p]);
                    }
                    return Err(e);
                }
            }
        }
        if let Some((path, e)) = sync(tails, blocks) {
            tracing::error!(path, error = %e, "fsync failed: the log takes no more writes");
            self.poison.get_or_init(|| path);
            // What was refused must not come back when the folder is opened again.
            for &p in &touched {
                self.cut(&mut tails[p]);
            }
            return self.check_poison();
        }
        let mut ends = Vec::with_capacity(touched.len());
        for (&p, scan) in touched.iter().zip(scans) {
            self.partitions[p].grown(&scan);
            ends.push((
                Topic::Events,
                p as u32,
                self.partitions[p].start()..scan.next,
            ));
            tails[p].scan = scan;
        }
        self.ends.set(ends);
        Ok(())
    }

    /// Cuts away what a failed group wrote behind the durable end.
    fn cut(&self, tail: &mut Tail) {
        if let Err(e) = tail.file.truncate(tail.scan.len) {
            let path = tail.path.display().to_string();
            tracing::error!(path, error = %e, "cannot cut off a failed write: the log takes no more writes");
            self.poison.get_or_init(|| path);
        }
    }

    fn roll_if_due(&self, tail: &mut Tail, p: usize, blocks: &[Block]) -> Result<(), BusError> {
        let Some(began) = tail.scan.began else {
            return Ok(());
        };
        let newest = blocks.iter().map(|b| b.newest).max().unwrap_or(began);
        let age = newest.0.saturating_sub(began.0);
        if tail.scan.len >= self.limits.chunk_bytes || age > self.limits.retention / 8 {
            self.roll(tail, p)?;
        }
        Ok(())
    }

    /// Closes the last file and begins the next. The closed one is durable: every group ends with its fsync.
    fn roll(&self, tail: &mut Tail, p: usize) -> Result<(), BusError> {
        let segments = &self.partitions[p];
        let base = tail.scan.next;
        let path = segments.dir().join(file_name(base));
        let file = self
            .disk
            .create(&path)
            .map_err(|e| io_error("create", &path, e))?;
        *tail = Tail {
            file,
            path,
            scan: Scan::empty(base),
        };
        segments.rolled(base);
        self.sync_dir(segments.dir())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), BusError> {
        self.disk.sync_dir(dir).or_else(|e| {
            let path = dir.display().to_string();
            tracing::error!(path, error = %e, "fsync failed: the log takes no more writes");
            self.poison.get_or_init(|| path);
            self.check_poison()
        })
    }

    fn check_poison(&self) -> Result<(), BusError> {
        match self.poison.get() {
            Some(path) => Err(BusError::Poisoned { path: path.clone() }),
            None => Ok(()),
        }
    }

    pub(super) fn read(
        &self,
        partition: u32,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Batch, BusError> {
        let bounds = self.ends.get(Topic::Events, partition)?;
        if from < bounds.start || from > bounds.end {
            return Err(BusError::OutOfRange {
                topic: Topic::Events,
                partition,
                asked: from,
                start: bounds.start,
                end: bounds.end,
            });
        }
        self.partitions[partition as usize].read(&*self.disk, from, bounds.end, max_bytes)
    }

    /// The files of a partition from the one on that begins with `from`.
    pub(super) fn chunks(&self, partition: u32, from: Offset) -> Result<Vec<ChunkFile>, BusError> {
        self.partitions[partition as usize].chunks(&*self.disk, from)
    }

    /// Drops the files that hold only records older than `cutoff`, each after `before` has been told its partition, first
    /// offset and the offset after its last. Gives the partitions whose start moved.
    pub(super) fn retain(
        &self,
        cutoff: Time,
        before: &BeforeDrop<'_>,
    ) -> Result<Vec<(u32, Offset)>, BusError> {
        let mut moved = Vec::new();
        for (p, segments) in self.partitions.iter().enumerate() {
            self.group
                .exclusive(|tails| {
                    let tail = &mut tails[p];
                    if tail.scan.began.is_some() && tail.scan.newest < cutoff {
                        self.check_poison()?;
                        self.roll(tail, p)?;
                    }
                    Ok(())
                })
                .unwrap_or_else(|| Err(broken()))?;
            while let Some((base, next)) = segments.oldest_before(&*self.disk, cutoff)? {
                self.check_poison()?;
                before(p as u32, base, next)?;
                self.group
                    .exclusive(|tails| {
                        self.ends
                            .set([(Topic::Events, p as u32, next..tails[p].scan.next)]);
                        segments.forget_oldest();
                    })
                    .ok_or_else(broken)?;
                moved.push((p as u32, next));
                let path = segments.dir().join(file_name(base));
                self.disk
                    .remove(&path)
                    .map_err(|e| io_error("remove", &path, e))?;
                // One by one: a power cut must not bring back an older file and leave out a younger one.
                self.sync_dir(segments.dir())?;
            }
        }
        Ok(moved)
    }

    /// Reads everything and checks it.
    pub(super) fn verify(&self) -> Vec<BusError> {
        self.partitions
            .iter()
            .filter_map(|segments| segments.verify(&*self.disk).err())
            .collect()
    }
}

/// Syncs the files that have got blocks, all at once, since the file system then commits them together: four one after
/// another take four times as long. Gives the first that failed.
fn sync(tails: &[Tail], blocks: &[Vec<Block>]) -> Option<(String, std::io::Error)> {
    let sync_one = |tail: &Tail| {
        let failed = |e| (tail.path.display().to_string(), e);
        tail.file.sync().map_err(failed)
    };
    let touched: Vec<&Tail> = tails
        .iter()
        .zip(blocks)
        .filter_map(|(tail, blocks)| (!blocks.is_empty()).then_some(tail))
        .collect();
    let (last, others) = touched.split_last()?;
    std::thread::scope(|scope| {
        let running: Vec<_> = others
            .iter()
            .map(|tail| std::thread::Builder::new().spawn_scoped(scope, || sync_one(tail)))
            .collect();
        let mut results = vec![sync_one(last)];
        for (running, tail) in running.into_iter().zip(others) {
            results.push(match running {
                Ok(thread) => thread.join().expect("a sync does not panic"),
                // The system has no thread to give.
                Err(_) => sync_one(tail),
            });
        }
        results.into_iter().find_map(Result::err)
    })
}

/// The bytes that put `blocks` behind what `scan` holds, and what the file holds then.
fn frames(scan: &Scan, partition: u32, blocks: &[Block]) -> (Vec<u8>, Scan) {
    let durable = scan.len;
    let mut scan = scan.clone();
    let mut bytes = Vec::with_capacity(blocks.iter().map(|b| HEADER + b.bytes.len()).sum());
    for block in blocks {
        let header = Header::of(block, partition, scan.next, durable);
        header.write(&mut bytes);
        bytes.extend_from_slice(&block.bytes);
        scan.add(&header);
    }
    (bytes, scan)
}

pub(super) fn broken() -> BusError {
    BusError::Poisoned {
        path: "the log, whose writer panicked".into(),
    }
}

/// The same error for each caller of a group.
pub(super) fn again(error: &BusError) -> BusError {
    match error {
        BusError::Io {
            action,
            path,
            source,
        } => BusError::Io {
            action,
            path: path.clone(),
            source: match source.raw_os_error() {
                Some(code) => std::io::Error::from_raw_os_error(code),
                None => std::io::Error::new(source.kind(), source.to_string()),
            },
        },
        BusError::DiskFull { path } => BusError::DiskFull { path: path.clone() },
        BusError::Poisoned { path } => BusError::Poisoned { path: path.clone() },
        BusError::Corrupt {
            path,
            offset,
            reason,
        } => BusError::Corrupt {
            path: path.clone(),
            offset: *offset,
            reason: reason.clone(),
        },
        other => BusError::State(other.to_string()),
    }
}
