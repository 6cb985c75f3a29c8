//! The files of one partition of `events`: finding them, repairing the last, reading from them.
//!
//! A partition is a folder of files named after the offset of their first record. [`Segments::open`] checks the last
//! file frame by frame and cuts off what a crash left half written; older files are only listed, so that opening takes
//! no longer with many gigabytes, and their headers are scanned when somebody first reads there. Damage is never
//! skipped: it is an error with file and byte. [`Segments`] is what readers share; the writer in `log` tells it what
//! has become durable and which files retention removed.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use event::Time;

use super::disk::{Disk, File};
use super::frame::{self, HEADER, Header, MAGIC};
use super::group::lock;
use crate::{Batch, BusError, Offset, Topic};

/// At most one entry of the index for so many bytes of file.
const INDEX_STEP: u64 = 64 << 10;
/// How much a scan of headers reads at once.
const WINDOW: usize = 16 << 10;

/// The files of one partition, oldest first; there is always at least one.
#[derive(Debug)]
pub(super) struct Segments {
    partition: u32,
    dir: PathBuf,
    files: Mutex<VecDeque<Segment>>,
}

/// A file of the event log, as far as it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkFile {
    /// The offset of its first record: its name.
    pub file: Offset,
    /// One past the offset of its last record.
    pub next: Offset,
    /// Its bytes.
    pub len: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// One file.
#[derive(Debug)]
struct Segment {
    base: Offset,
    scan: Option<Scan>,
}

/// The file of a partition that is written on.
pub(super) struct Tail {
    pub(super) file: Box<dyn File>,
    pub(super) path: PathBuf,
    /// What is durable in it.
    pub(super) scan: Scan,
}

/// What the headers of a file say.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    /// Bytes of whole frames: as far as readers may go.
    pub(super) len: u64,
    pub(super) next: Offset,
    pub(super) newest: Time,
    /// The newest time of the first frame.
    pub(super) began: Option<Time>,
    /// Offset and byte of some frames, ascending.
    index: Vec<(Offset, u64)>,
}

impl Scan {
    pub(super) fn empty(base: Offset) -> Scan {
        Scan {
            len: 0,
            next: base,
            newest: Time(i64::MIN),
            began: None,
            index: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, header: &Header) {
        if self
            .index
            .last()
            .is_none_or(|(_, at)| self.len - at >= INDEX_STEP)
        {
            self.index.push((header.base, self.len));
        }
        self.len += header.frame_len();
        self.next = header.next();
        self.newest = self.newest.max(header.newest);
        self.began.get_or_insert(header.newest);
    }

    /// Offset and byte of a frame at or before the one that holds `offset`, in the file that begins with `base`.
    fn seek(&self, base: Offset, offset: Offset) -> (Offset, u64) {
        let after = self.index.partition_point(|(first, _)| *first <= offset);
        after.checked_sub(1).map_or((base, 0), |i| self.index[i])
    }
}

/// The name of the file that begins with `base`.
pub(super) fn file_name(base: Offset) -> String {
    format!("{base:020}.log")
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> BusError {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    let path = path.display().to_string();
    if matches!(source.kind(), StorageFull | QuotaExceeded) {
        return BusError::DiskFull { path };
    }
    BusError::Io {
        action,
        path,
        source,
    }
}

fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> BusError {
    BusError::Corrupt {
        path: path.display().to_string(),
        offset,
        reason: reason.into(),
    }
}

impl Segments {
    /// Opens a partition, whose folder exists, and its last file, ready to be written on.
    pub(super) fn open(
        disk: &dyn Disk,
        dir: PathBuf,
        partition: u32,
    ) -> Result<(Segments, Tail), BusError> {
        let mut bases: Vec<Offset> = disk
            .list(&dir)
            .map_err(|e| io_error("list", &dir, e))?
            .iter()
            .filter_map(|name| name.strip_suffix(".log")?.parse().ok())
            .collect();
        bases.sort_unstable();
        let last = bases.pop();
        let base = last.unwrap_or(0);
        let path = dir.join(file_name(base));
        let opened = match last {
            Some(_) => disk.open(&path),
            None => disk.create(&path),
        };
        let mut file = opened.map_err(|e| io_error("open", &path, e))?;
        let scan = repair(&mut *file, &path, partition, base)?;
        // What a killed process wrote may still be only in memory, and readers are about to act on it.
        file.sync().map_err(|e| io_error("sync", &path, e))?;
        disk.sync_dir(&dir).map_err(|e| io_error("sync", &dir, e))?;
        let mut files: VecDeque<Segment> = bases
            .into_iter()
            .map(|base| Segment { base, scan: None })
            .collect();
        files.push_back(Segment {
            base,
            scan: Some(scan.clone()),
        });
        let segments = Segments {
            partition,
            dir,
            files: Mutex::new(files),
        };
        Ok((segments, Tail { file, path, scan }))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first offset that is kept.
    pub(super) fn start(&self) -> Offset {
        lock(&self.files).front().map_or(0, |s| s.base)
    }

    /// Tells readers what the last file now holds durably.
    pub(super) fn grown(&self, scan: &Scan) {
        if let Some(last) = lock(&self.files).back_mut() {
            last.scan = Some(scan.clone());
        }
    }

    /// Tells readers that a new, empty file follows.
    pub(super) fn rolled(&self, base: Offset) {
        lock(&self.files).push_back(Segment {
            base,
            scan: Some(Scan::empty(base)),
        });
    }

    /// The oldest file if it is not the last and all it holds is older than `cutoff`: its first offset, and that of the
    /// file after it.
    pub(super) fn oldest_before(
        &self,
        disk: &dyn Disk,
        cutoff: Time,
    ) -> Result<Option<(Offset, Offset)>, BusError> {
        let (base, next) = {
            let files = lock(&self.files);
            match (files.front(), files.get(1)) {
                (Some(first), Some(second)) => (first.base, second.base),
                _ => return Ok(None),
            }
        };
        let scan = self.scan(disk, base)?;
        Ok((scan.newest < cutoff).then_some((base, next)))
    }

    /// The files from the one on that begins with `from`, as far as they are durable.
    pub(super) fn chunks(&self, disk: &dyn Disk, from: Offset) -> Result<Vec<ChunkFile>, BusError> {
        let bases: Vec<Offset> = lock(&self.files).iter().map(|s| s.base).collect();
        let mut chunks = Vec::new();
        for base in bases.into_iter().filter(|base| *base >= from) {
            let scan = match self.scan(disk, base) {
                // Retention took it meanwhile.
                Err(_) if base < self.start() => continue,
                scan => scan?,
            };
            chunks.push(ChunkFile {
                file: base,
                next: scan.next,
                len: scan.len,
                path: self.dir.join(file_name(base)),
            });
        }
        Ok(chunks)
    }

    /// Tells readers that the oldest file is about to go.
    pub(super) fn forget_oldest(&self) {
        lock(&self.files).pop_front();
    }

    /// Reads every frame of every file and checks all checksums.
    pub(super) fn verify(&self, disk: &dyn Disk) -> Result<(), BusError> {
        let bases: Vec<Offset> = lock(&self.files).iter().map(|s| s.base).collect();
        for base in bases {
            match self.verify_file(disk, base) {
                // Retention took it meanwhile.
                Err(_) if base < self.start() => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn verify_file(&self, disk: &dyn Disk, base: Offset) -> Result<(), BusError> {
        let scan = self.scan(disk, base)?;
        let path = self.dir.join(file_name(base));
        let mut frames = Frames::open(disk, &path, self.partition, base, 0, scan.len)?;
        while let Some((at, header)) = frames.next()? {
            frames.stored(at, &header)?;
        }
        Ok(())
    }

    /// What the file that begins with `base` holds; scans its headers if nobody has yet.
    fn scan(&self, disk: &dyn Disk, base: Offset) -> Result<Scan, BusError> {
        let next = {
            let files = lock(&self.files);
            let at = files.partition_point(|s| s.base < base);
            match files.get(at).filter(|s| s.base == base) {
                Some(Segment {
                    scan: Some(scan), ..
                }) => return Ok(scan.clone()),
                Some(_) => files.get(at + 1).map(|s| s.base),
                None => None,
            }
        };
        let path = self.dir.join(file_name(base));
        let mut file = disk.open(&path).map_err(|e| io_error("open", &path, e))?;
        let len = file.len().map_err(|e| io_error("read", &path, e))?;
        let mut frames = Frames::new(file, &path, self.partition, base, 0, len);
        let mut scan = Scan::empty(base);
        while let Some((_, header)) = frames.next()? {
            scan.add(&header);
        }
        if let Some(next) = next.filter(|next| *next != scan.next) {
            let reason = format!(
                "it ends with offset {}, and the next file begins with {next}",
                scan.next
            );
            return Err(corrupt(&path, scan.len, reason));
        }
        let mut files = lock(&self.files);
        if let Some(segment) = files.iter_mut().find(|s| s.base == base) {
            segment.scan = Some(scan.clone());
        }
        Ok(scan)
    }

    /// See [`crate::Bus::read`]; `end` is one past the last durable record.
    pub(super) fn read(
        &self,
        disk: &dyn Disk,
        from: Offset,
        end: Offset,
        max_bytes: usize,
    ) -> Result<Batch, BusError> {
        let mut batch = Batch {
            records: Vec::new(),
            next: from,
        };
        let mut room = max_bytes;
        let mut decompressor =
            zstd::bulk::Decompressor::new().map_err(|e| io_error("decompress", &self.dir, e))?;
        while batch.next < end {
            let base = {
                let files = lock(&self.files);
                let after = files.partition_point(|s| s.base <= batch.next);
                after.checked_sub(1).map(|i| files[i].base)
            };
            let Some(base) = base else {
                return self.gone(batch, end);
            };
            match self.read_file(disk, base, end, &mut batch, &mut room, &mut decompressor) {
                Ok(true) => {}
                Ok(false) => break,
                // Retention may have removed the file since it was looked up.
                Err(_) if batch.next < self.start() => return self.gone(batch, end),
                // Whoever reads up to the damage may have what lies before it.
                Err(_) if !batch.records.is_empty() => break,
                Err(e) => return Err(e),
            }
        }
        Ok(batch)
    }

    /// The answer when retention overtakes a read: what it has, else that there is nothing.
    fn gone(&self, batch: Batch, end: Offset) -> Result<Batch, BusError> {
        if !batch.records.is_empty() {
            return Ok(batch);
        }
        Err(BusError::OutOfRange {
            topic: Topic::Events,
            partition: self.partition,
            asked: batch.next,
            start: self.start(),
            end,
        })
    }

    /// Adds records of one file to the batch; tells whether there is room for more.
    fn read_file(
        &self,
        disk: &dyn Disk,
        base: Offset,
        end: Offset,
        batch: &mut Batch,
        room: &mut usize,
        decompressor: &mut zstd::bulk::Decompressor<'_>,
    ) -> Result<bool, BusError> {
        let scan = self.scan(disk, base)?;
        let path = self.dir.join(file_name(base));
        let (first, at) = scan.seek(base, batch.next);
        let mut frames = Frames::open(disk, &path, self.partition, first, at, scan.len)?;
        while let Some((at, header)) = frames.next()? {
            if header.next() <= batch.next {
                continue;
            }
            let stored = frames.stored(at, &header)?;
            let records = frame::decode(&header, &stored, decompressor)
                .map_err(|reason| corrupt(&path, at, reason))?;
            for (offset, record) in (header.base..).zip(records) {
                if offset < batch.next {
                    continue;
                }
                let size = record.key.len() + record.value.len();
                // What is durable but not yet published could not be committed yet.
                let published = offset < end;
                if !published || (size > *room && !batch.records.is_empty()) {
                    return Ok(false);
                }
                *room = room.saturating_sub(size);
                batch.records.push((offset, record));
                batch.next = offset + 1;
            }
            if *room == 0 {
                return Ok(false);
            }
        }
        if batch.next < scan.next {
            return Err(corrupt(&path, scan.len, "records are missing at its end"));
        }
        Ok(true)
    }
}

/// Walks over the headers of a file.
struct Frames<'a> {
    file: Box<dyn File>,
    path: &'a Path,
    partition: u32,
    expected: Offset,
    at: u64,
    len: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Frames<'a> {
    fn open(
        disk: &dyn Disk,
        path: &'a Path,
        partition: u32,
        expected: Offset,
        at: u64,
        len: u64,
    ) -> Result<Frames<'a>, BusError> {
        let file = disk.open(path).map_err(|e| io_error("open", path, e))?;
        Ok(Frames::new(file, path, partition, expected, at, len))
    }

    fn new(
        file: Box<dyn File>,
        path: &'a Path,
        partition: u32,
        expected: Offset,
        at: u64,
        len: u64,
    ) -> Frames<'a> {
        Frames {
            file,
            path,
            partition,
            expected,
            at,
            len,
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// The next frame and where it begins; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<(u64, Header)>, BusError> {
        if self.at >= self.len {
            return Ok(None);
        }
        let at = self.at;
        let inside =
            self.window_at <= at && at + HEADER as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            self.window = read_at(&mut *self.file, self.path, at, WINDOW)?;
            self.window_at = at;
        }
        let header = checked(
            &self.window[(at - self.window_at) as usize..],
            self.partition,
            self.expected,
        )
        .and_then(|header| {
            if at + header.frame_len() > self.len {
                return Err("the file ends within a batch".into());
            }
            Ok(header)
        })
        .map_err(|reason| corrupt(self.path, at, reason))?;
        self.at = at + header.frame_len();
        self.expected = header.next();
        Ok(Some((at, header)))
    }

    /// The stored records of a frame, verified.
    fn stored(&mut self, at: u64, header: &Header) -> Result<Vec<u8>, BusError> {
        let stored = read_at(
            &mut *self.file,
            self.path,
            at + HEADER as u64,
            header.stored as usize,
        )?;
        header
            .verify(&stored)
            .map_err(|reason| corrupt(self.path, at, reason))?;
        Ok(stored)
    }
}

fn checked(bytes: &[u8], partition: u32, expected: Offset) -> Result<Header, String> {
    let header = Header::read(bytes)?;
    if header.partition != partition {
        return Err(format!(
            "a batch of partition {} lies here",
            header.partition
        ));
    }
    if header.base != expected {
        return Err(format!("offset {} lies here, not {expected}", header.base));
    }
    Ok(header)
}

fn read_at(file: &mut dyn File, path: &Path, at: u64, len: usize) -> Result<Vec<u8>, BusError> {
    let mut bytes = vec![0; len];
    let filled = file
        .read_at(at, &mut bytes)
        .map_err(|e| io_error("read", path, e))?;
    bytes.truncate(filled);
    Ok(bytes)
}

/// Checks the last file wholly. A bad frame that was never durable is what a crash leaves: it and what follows are cut
/// off. A bad frame that was durable is damage.
fn repair(
    file: &mut dyn File,
    path: &Path,
    partition: u32,
    base: Offset,
) -> Result<Scan, BusError> {
    let len = file.len().map_err(|e| io_error("read", path, e))?;
    let mut scan = Scan::empty(base);
    while scan.len < len {
        let at = scan.len;
        let head = read_at(file, path, at, HEADER)?;
        let frame = match checked(&head, partition, scan.next) {
            Err(reason) => Err(reason),
            Ok(header) => {
                let stored = read_at(file, path, at + HEADER as u64, header.stored as usize)?;
                header
                    .verify(&stored)
                    .map(|()| header)
                    .map_err(String::from)
            }
        };
        match frame {
            Ok(header) => scan.add(&header),
            Err(reason) => {
                // An intact batch of another partition was put here by somebody, not by a crash.
                let foreign = Header::read(&head).is_ok_and(|h| h.partition != partition);
                if foreign || durable_in_tail(file, path, partition, at)? > at {
                    return Err(corrupt(path, at, reason));
                }
                tracing::warn!(
                    path = %path.display(), at, bytes = len - at, reason,
                    "cut off an unfinished write after a crash"
                );
                file.truncate(at)
                    .map_err(|e| io_error("truncate", path, e))?;
                break;
            }
        }
    }
    Ok(scan)
}

/// The greatest durable length that an intact header after `from` speaks of.
fn durable_in_tail(
    file: &mut dyn File,
    path: &Path,
    partition: u32,
    from: u64,
) -> Result<u64, BusError> {
    const STEP: usize = 1 << 20;
    let mut durable = 0;
    let mut at = from + 1;
    loop {
        // Steps overlap by a header, so that none is cut in two.
        let bytes = read_at(file, path, at, STEP + HEADER)?;
        for (i, window) in bytes.windows(HEADER).enumerate().take(STEP) {
            if window[..4] == *MAGIC
                && let Ok(header) = Header::read(&bytes[i..])
                && header.partition == partition
                && header.durable <= at + i as u64
            {
                durable = durable.max(header.durable);
            }
        }
        if bytes.len() < STEP + HEADER {
            return Ok(durable);
        }
        at += STEP as u64;
    }
}
