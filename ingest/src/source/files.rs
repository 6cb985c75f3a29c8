//! Watched files and folders.
//!
//! [`run`] looks through the configured paths when the system reports a change and otherwise every few seconds.
//! Files with JSON lines or log lines are read on from where the last reading ended; a compressed file, or one
//! that is a single JSON value, is read once it has not changed for a while, and again if it changes. What was
//! done with a file is kept in the state of the bus under [`CONSUMER`] ([`Progress`], one entry a file), written
//! only after the file's events are durable: a crash repeats some events, and repeats are dropped downstream
//! since ids follow from path and position. A file that was cut or replaced begins a new generation, which gets
//! ids of its own. Files are never changed, moved or deleted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, SystemTime};

use bus::{Bus, BusError, Commit, StateChange, Stop};
use event::{Clock, Id, Str, Time, format_compact};
use notify::{RecursiveMode, Watcher};
use serde::{Deserialize, Serialize};

use crate::append::Appender;
use crate::config::Files;
use crate::dead_letter::DeadLetter;
use crate::decode::{DecodeError, Decoder, GZIP, Item, Job, Limits, Summary};
use crate::metrics::Metrics;
use crate::normalize::{Context, Normalizer};
use crate::status::{Failure, Post};
use crate::treatment::Treatment;

/// The consumer name under which progress is kept.
pub const CONSUMER: &str = "ingest/files";

/// How often to look whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// How much of a growing file is read between two commits.
const SLICE: u64 = 64 << 20;

/// So many files are made durable together: small ones would each cost as much as all of them.
const BATCH_FILES: usize = 256;

/// The first bytes that tell one file from another at the same path.
const PREFIX: usize = 256;

/// A file that ends within a line is taken to be complete once it has not changed for ten minutes.
const ABANDONED_MICROS: i64 = 600 * 1_000_000;

/// Folders nested deeper are not entered.
const MAX_DEPTH: usize = 64;

/// Why watching ends before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The log failed in a way that waiting does not mend.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// What was done with a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    /// Its size and time of change when it was last read to its end.
    size: u64,
    modified: i64,
    inode: u64,
    /// How many of its first bytes `prefix_id` stands for.
    prefix_bytes: u64,
    prefix_id: String,
    /// Where to read on, in a file that grows.
    offset: u64,
    /// The number of the next record.
    position: u64,
    /// How often another file took its place.
    generation: u32,
    lambda_text: bool,
}

/// What the system says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    size: u64,
    modified: i64,
    inode: u64,
}

/// A file that changed, waiting to settle.
struct Unsettled {
    look: Look,
    since: Time,
}

/// Watches files until told to stop.
pub fn run(
    bus: Arc<dyn Bus>,
    config: &Files,
    limits: Limits,
    (metrics, treatment): (Metrics, Arc<Treatment>),
    clock: Clock,
    stop: Stop,
) -> Result<(), FilesError> {
    let (notice, notices) = sync_channel(1);
    let watcher = watch(config, move || {
        // A notice that waits already says all there is to say.
        let _ = notice.try_send(());
    });
    let mut source = Source::open(
        &*bus,
        config,
        limits,
        (metrics, treatment),
        clock,
        stop.clone(),
    )?;
    let post = post_of(&source.metrics);
    while !stop.is_stopped() {
        match source.pass() {
            Ok(done) => post.well("log", done, (source.clock)()),
            Err(error) if error.is_transient() => {
                tracing::error!(%error, "the log takes no writes, files wait");
                source.count_error(error.kind());
                post.failed("log", Failure::of_log(&error), (source.clock)());
            }
            Err(error) => return Err(error.into()),
        }
        let settling = !source.unsettled.is_empty();
        wait(config, &notices, watcher.is_some(), settling, &stop);
    }
    Ok(())
}

fn post_of(metrics: &Metrics) -> Post {
    metrics.collectors.post("files", "")
}

fn watch(
    config: &Files,
    changed: impl Fn() + Send + 'static,
) -> Option<notify::RecommendedWatcher> {
    let started = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file must not look like a change of it.
        if event.is_ok_and(|e| !e.kind.is_access()) {
            changed();
        }
    })
    .inspect_err(|error| tracing::warn!(%error, "no notices of changed files, only rescans"));
    let mut watcher = started.ok()?;
    for path in &config.paths {
        if let Err(error) = watcher.watch(path, RecursiveMode::Recursive) {
            tracing::warn!(path = %path.display(), %error, "no notices here, only rescans");
        }
    }
    Some(watcher)
}

fn wait(config: &Files, notices: &Receiver<()>, watched: bool, settling: bool, stop: &Stop) {
    let seconds = if settling {
        1
    } else {
        config.rescan_seconds.max(1)
    };
    let ticks = seconds * 1_000 / TICK.as_millis() as u64;
    for _ in 0..ticks {
        if stop.is_stopped() {
            return;
        }
        match notices.recv_timeout(TICK) {
            Ok(()) => {
                // A file that is written all the time must not be looked for all the time.
                std::thread::sleep(TICK);
                return;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                debug_assert!(!watched, "the watcher holds the other end");
                std::thread::sleep(TICK);
            }
        }
    }
}

/// Events on their way, and the files that are done with once these are durable.
struct Batch<'b> {
    appender: Appender<'b>,
    done: Vec<(PathBuf, Progress, Time)>,
}

/// The state of watching.
struct Source<'b> {
    bus: &'b dyn Bus,
    config: &'b Files,
    metrics: Metrics,
    treatment: Arc<Treatment>,
    clock: Clock,
    stop: Stop,
    decoder: Decoder,
    normalizer: Normalizer,
    known: BTreeMap<PathBuf, Progress>,
    unsettled: BTreeMap<PathBuf, Unsettled>,
}

impl<'b> Source<'b> {
    fn open(
        bus: &'b dyn Bus,
        config: &'b Files,
        limits: Limits,
        (metrics, treatment): (Metrics, Arc<Treatment>),
        clock: Clock,
        stop: Stop,
    ) -> Result<Source<'b>, BusError> {
        let mut known = BTreeMap::new();
        for (key, value) in bus.state_scan(CONSUMER, 0, KEY)? {
            let path = PathBuf::from(String::from_utf8_lossy(&key[KEY.len()..]).into_owned());
            match serde_json::from_slice(&value) {
                Ok(progress) => {
                    known.insert(path, progress);
                }
                // Reading the file again is harmless.
                Err(error) => tracing::warn!(path = %path.display(), %error, "progress unreadable"),
            }
        }
        Ok(Source {
            bus,
            config,
            metrics,
            treatment,
            clock,
            stop,
            decoder: Decoder::new(limits),
            normalizer: Normalizer::new(),
            known,
            unsettled: BTreeMap::new(),
        })
    }

    fn count_error(&self, kind: &str) {
        self.metrics.errors.with_label_values(&[kind]).inc();
    }

    /// Looks through all paths once. Gives how many files had something new.
    fn pass(&mut self) -> Result<u64, BusError> {
        let (mut paths, mut done, mut unreadable) = (Vec::new(), 0, None);
        for path in &self.config.paths {
            collect(path, 0, &mut paths);
        }
        paths.sort();
        paths.dedup();
        self.unsettled
            .retain(|path, _| paths.binary_search(path).is_ok());
        let (metrics, treatment) = (self.metrics.clone(), Arc::clone(&self.treatment));
        let mut batch = Batch {
            appender: Appender::new(self.bus, &metrics, &treatment, "files"),
            done: Vec::new(),
        };
        for path in paths {
            if self.stop.is_stopped() {
                break;
            }
            match self.file(&path, &mut batch) {
                Ok(()) if batch.done.len() < BATCH_FILES => {}
                Ok(()) => done += self.settle(&mut batch)?,
                Err(FileError::Bus(error)) => return Err(error),
                Err(FileError::Read(error)) => {
                    tracing::warn!(path = %path.display(), %error, "cannot read file, tried again");
                    self.count_error("read");
                    unreadable.get_or_insert((path, error));
                }
            }
        }
        done += self.settle(&mut batch)?;
        self.report(unreadable);
        Ok(done)
    }

    /// Says whether all paths and files could be read, or the first that could not.
    fn report(&self, unreadable: Option<(PathBuf, io::Error)>) {
        let post = post_of(&self.metrics);
        let now = (self.clock)();
        let readable = |path: &PathBuf| match fs::metadata(path) {
            Ok(m) if m.is_dir() => fs::read_dir(path).map(drop),
            other => other.map(drop),
        };
        let paths = self.config.paths.iter();
        let bad = paths.filter_map(|p| Some((p.clone(), readable(p).err()?)));
        match bad.chain(unreadable).next() {
            None => post.well("read", 0, now),
            Some((path, error)) => {
                let failure = Failure {
                    fault: "read",
                    message: format!("cannot read `{}`: {error}", path.display()),
                    hint: "check the path in ingest.files.paths, and that this user may read it",
                };
                post.failed("read", failure, now);
            }
        }
    }

    fn file(&mut self, path: &Path, batch: &mut Batch<'_>) -> Result<(), FileError> {
        let look = look(path)?;
        let known = self.known.get(path);
        if known.is_some_and(|p| p.is_done(look)) {
            self.unsettled.remove(path);
            return Ok(());
        }
        let now = (self.clock)();
        let mut head = vec![0; PREFIX];
        let got = File::open(path)?.read(&mut head)?;
        head.truncate(got);
        if head.is_empty() {
            return Ok(());
        }
        let progress = known_or_next(self.known.get(path), look, &head);
        let progress = if is_whole(&head) {
            if !self.settled(path, look, now) {
                return Ok(());
            }
            self.whole(path, look, progress, now, batch)?
        } else {
            // Writers flush in the middle of lines: only one that is left alone for long is at its end.
            let abandoned = look.modified > 0 && now.0 - look.modified >= ABANDONED_MICROS;
            self.growing(path, look, progress, abandoned, now, batch)?
        };
        if let Some(progress) = progress.filter(|p| self.known.get(path) != Some(p)) {
            batch.done.push((path.to_owned(), progress, now));
        }
        Ok(())
    }

    /// Has the file been as it is for long enough?
    fn settled(&mut self, path: &Path, look: Look, now: Time) -> bool {
        let needed = self.config.settle_seconds as i64 * 1_000_000;
        // What was last changed long ago has settled before it was first seen.
        if now.0 - look.modified >= needed.max(1_000_000) && look.modified > 0 && needed > 0 {
            self.unsettled.remove(path);
            return true;
        }
        match self.unsettled.get(path) {
            Some(seen) if seen.look == look => now.0 - seen.since.0 >= needed,
            _ => {
                let seen = Unsettled { look, since: now };
                self.unsettled.insert(path.to_owned(), seen);
                needed == 0
            }
        }
    }

    /// Reads a whole object. `None` if it was not read to its end.
    fn whole(
        &mut self,
        path: &Path,
        look: Look,
        progress: Progress,
        now: Time,
        batch: &mut Batch<'_>,
    ) -> Result<Option<Progress>, FileError> {
        let job = Job {
            sha256: true,
            ..Job::default()
        };
        let object = object(path, progress.generation);
        let (normalizer, stop) = (&mut self.normalizer, &self.stop);
        let summary = self.decoder.file(
            path,
            &job,
            &mut taking(&mut batch.appender, normalizer, &object, now, stop),
        )?;
        self.count(path, &summary, now);
        if summary.stopped {
            batch.appender.sync()?;
        }
        Ok((!summary.stopped).then(|| progress.done(look, look.size, &summary)))
    }

    /// Reads what was added to a file of lines. `None` if there is nothing to remember.
    fn growing(
        &mut self,
        path: &Path,
        look: Look,
        mut progress: Progress,
        abandoned: bool,
        now: Time,
        batch: &mut Batch<'_>,
    ) -> Result<Option<Progress>, FileError> {
        let object = object(path, progress.generation);
        let mut file = File::open(path)?;
        while progress.offset < look.size {
            let length = (look.size - progress.offset).min(SLICE);
            let last = progress.offset + length == look.size;
            let job = Job {
                first_position: progress.position,
                growing: !(last && abandoned),
                lambda_text: progress.lambda_text,
                ..Job::default()
            };
            file.seek(SeekFrom::Start(progress.offset))?;
            let (normalizer, stop) = (&mut self.normalizer, &self.stop);
            let summary = self.decoder.reader(
                (&mut file).take(length),
                &job,
                &mut taking(&mut batch.appender, normalizer, &object, now, stop),
            )?;
            self.count(path, &summary, now);
            if summary.stopped {
                batch.appender.sync()?;
                return Ok(None);
            }
            let consumed = match summary.unknown {
                true => look.size - progress.offset,
                false => summary.consumed,
            };
            if consumed == 0 {
                // The last line has no end yet.
                return Ok(Some(progress));
            }
            let offset = progress.offset + consumed;
            progress = progress.done(look, offset, &summary);
            if !last {
                // Not done: the next look must not take it for read to its end.
                progress.size = 0;
                batch.done.push((path.to_owned(), progress.clone(), now));
                self.settle(batch)?;
            }
        }
        Ok(Some(progress))
    }

    fn count(&self, path: &Path, summary: &Summary, began: Time) {
        self.metrics.count_dropped(summary);
        let took = (self.clock)().0 - began.0;
        self.metrics.seconds.observe(took as f64 / 1e6);
        if summary.is_misnamed(path) {
            tracing::warn!(path = %path.display(), "named .gz but not compressed, read as it is");
        }
    }

    /// Makes durable what was gathered, and only then remembers the files that it came from.
    /// Makes durable what was gathered. Gives how many files that finishes.
    fn settle(&mut self, batch: &mut Batch<'_>) -> Result<u64, BusError> {
        batch.appender.sync()?;
        let done = batch.done.len() as u64;
        if done == 0 {
            return Ok(0);
        }
        let state = batch.done.iter().map(|(path, progress, now)| StateChange {
            partition: 0,
            key: [KEY, path.to_string_lossy().as_bytes()].concat(),
            value: Some(serde_json::to_vec(progress).expect("progress has only text keys")),
            expires: Some(now.plus(REMEMBERED_MICROS)),
        });
        self.bus.commit(Commit {
            consumer: CONSUMER.to_owned(),
            state: state.collect(),
            ..Commit::default()
        })?;
        for (path, progress, _) in batch.done.drain(..) {
            self.known.insert(path, progress);
        }
        Ok(done)
    }
}

/// What becomes of the items of one object.
fn taking<'t, 'b>(
    appender: &'t mut Appender<'b>,
    normalizer: &'t mut Normalizer,
    object: &'t Str,
    now: Time,
    stop: &'t Stop,
) -> impl FnMut(Item<'_>) -> ControlFlow<()> + use<'t, 'b> {
    let context = Context {
        ingest_time: now,
        object: object.clone(),
        keep_raw: true,
    };
    move |item| {
        if stop.is_stopped() {
            return ControlFlow::Break(());
        }
        match item {
            Item::Record(record) => appender.record(normalizer, &record, &context),
            Item::Bad(bad) => appender.letter(DeadLetter::of(&bad, object, now)),
        }
    }
}

const KEY: &[u8] = b"file/";

/// Progress of a file is kept for so long after it was last read; ten years.
const REMEMBERED_MICROS: i64 = 10 * 366 * 86_400 * 1_000_000;

/// The name of a file as the origin of its events.
fn object(path: &Path, generation: u32) -> Str {
    let path = path.to_string_lossy();
    match generation {
        0 => Str::from(path),
        n => format_compact!("{path}#{n}"),
    }
}

enum FileError {
    Bus(BusError),
    Read(std::io::Error),
}

impl From<BusError> for FileError {
    fn from(error: BusError) -> FileError {
        FileError::Bus(error)
    }
}

impl From<std::io::Error> for FileError {
    fn from(error: std::io::Error) -> FileError {
        FileError::Read(error)
    }
}

impl From<DecodeError> for FileError {
    fn from(error: DecodeError) -> FileError {
        FileError::Read(error.source)
    }
}

impl Progress {
    fn is_done(&self, look: Look) -> bool {
        self.size == look.size
            && self.modified == look.modified
            && self.inode == look.inode
            && self.offset == self.size
    }

    fn done(self, look: Look, offset: u64, summary: &Summary) -> Progress {
        Progress {
            size: look.size,
            modified: look.modified,
            inode: look.inode,
            offset,
            position: summary.next_position,
            lambda_text: self.lambda_text || summary.lambda_text,
            ..self
        }
    }
}

/// The progress to go on from: that of the same file, or a new generation's if another took its place.
fn known_or_next(known: Option<&Progress>, look: Look, head: &[u8]) -> Progress {
    let fresh = |generation| Progress {
        prefix_bytes: head.len() as u64,
        prefix_id: prefix_id(head),
        generation,
        ..Progress::default()
    };
    let Some(known) = known else { return fresh(0) };
    let prefix = head.get(..known.prefix_bytes as usize);
    let same = prefix.is_some_and(|p| prefix_id(p) == known.prefix_id);
    if !same || look.size < known.offset {
        return fresh(known.generation + 1);
    }
    if is_whole(head) {
        // The same object, touched or completed: its records get the ids that they had.
        return fresh(known.generation);
    }
    known.clone()
}

fn prefix_id(head: &[u8]) -> String {
    Id::of("prefix", &[head]).to_string()
}

/// Is this read as one object and not by lines? Compressed, a JSON array, `{"Records": …` or an object over several lines.
fn is_whole(head: &[u8]) -> bool {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let text = text.trim_ascii_start();
    let utf16 = head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff");
    let array = || {
        let next = text.strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
        next.is_some_and(|t| matches!(t.first(), Some(b'{' | b'[' | b']' | b'"')))
    };
    let object = || {
        let next = text.strip_prefix(b"{");
        next.is_some_and(|t| {
            t.trim_ascii_start().starts_with(b"\"Records\"")
                || t.first().is_some_and(|b| matches!(b, b'\n' | b'\r'))
        })
    };
    head.starts_with(GZIP) || utf16 || array() || object()
}

fn look(path: &Path) -> std::io::Result<Look> {
    let metadata = fs::metadata(path)?;
    let modified = metadata
        .modified()?
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as i64);
    Ok(Look {
        size: metadata.len(),
        modified,
        inode: inode(&metadata),
    })
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}

/// All regular files below `path`. Hidden ones are left out: writers use them for what is not complete.
fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let hidden = path
        .file_name()
        .is_some_and(|n| n.to_string_lossy().starts_with('.'));
    if depth > MAX_DEPTH || (hidden && depth > 0) {
        return;
    }
    // Links below a watched folder are not followed: they may lead anywhere, also back.
    let metadata = if depth == 0 {
        fs::metadata(path)
    } else {
        fs::symlink_metadata(path)
    };
    match metadata {
        Ok(m) if m.is_dir() => {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.for_each(|e| collect(&e.path(), depth + 1, files));
        }
        Ok(m) if m.is_file() => files.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
pub(crate) mod tests;
