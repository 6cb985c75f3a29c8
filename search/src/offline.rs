//! Indexes without a bus: `hunt --index DIR` builds one, `search --data DIR` reads it.
//!
//! [`OfflineIndex`] takes events and writes the same splits as the service, listed in the manifest alone; [`Parallel`]
//! does so on several threads. They do not drop repeats: whoever reads the files does. [`crate::Searcher::open`] reads
//! the folder afterwards, and just as well the index folder of a service, running or stopped.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use event::Event;
use tantivy::TantivyError;

use crate::Config;
use crate::manifest::Manifest;
use crate::split::{Meta, Writer};

/// Why an index could not be built.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is an index already, and its events would be doubled.
    #[error("`{0}` has an index already; delete it or choose another folder")]
    Exists(PathBuf),
    /// The folder cannot be written.
    #[error("cannot write index `{path}`")]
    Write {
        /// Which.
        path: PathBuf,
        /// The reason.
        #[source]
        source: TantivyError,
    },
}

/// An index being built.
pub struct OfflineIndex {
    dir: PathBuf,
    memory: usize,
    /// How many splits were begun, by all that write to this folder.
    begun: Arc<AtomicU64>,
    writer: Option<Writer>,
    metas: Vec<Meta>,
}

impl OfflineIndex {
    /// Begins an index in `dir`, which must not have one.
    pub fn create(dir: &Path, config: &Config) -> Result<OfflineIndex, OfflineError> {
        let index = OfflineIndex {
            dir: dir.to_owned(),
            // There is one writer and nobody waits for its splits: few large ones search faster.
            memory: (config.writer_memory_mib << 20) * 4,
            begun: Arc::default(),
            writer: None,
            metas: Vec::new(),
        };
        let exists = Manifest::read(dir).map_err(|e| index.error(e.into()))?;
        if exists.is_some_and(|m| !m.splits.is_empty()) {
            return Err(OfflineError::Exists(dir.to_owned()));
        }
        let splits = dir.join("splits");
        // What an interrupted run left is listed nowhere.
        if splits.exists() {
            std::fs::remove_dir_all(&splits).map_err(|e| index.error(e.into()))?;
        }
        std::fs::create_dir_all(&splits).map_err(|e| index.error(e.into()))?;
        Ok(index)
    }

    fn error(&self, source: TantivyError) -> OfflineError {
        OfflineError::Write {
            path: self.dir.clone(),
            source,
        }
    }

    /// Adds an event.
    pub fn add(&mut self, event: &Event) -> Result<(), OfflineError> {
        self.try_add(event).map_err(|e| self.error(e))
    }

    fn try_add(&mut self, event: &Event) -> tantivy::Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
                let writer = Writer::create(&self.dir.join("splits"), number, self.memory)?;
                self.writer.insert(writer)
            }
        };
        writer.add(event, &event.encode())?;
        if writer.memory() >= self.memory {
            self.end_split()?;
        }
        Ok(())
    }

    fn end_split(&mut self) -> tantivy::Result<()> {
        if let Some(writer) = self.writer.take() {
            self.metas.push(writer.finish(Vec::new())?);
        }
        Ok(())
    }

    /// Writes what is left and the manifest: from now on the folder can be searched. Gives the number of events.
    pub fn finish(mut self) -> Result<u64, OfflineError> {
        let ended = self.end_split().and_then(|()| self.publish());
        ended.map_err(|e| self.error(e))?;
        Ok(self.metas.iter().map(|m| m.events).sum())
    }

    fn publish(&mut self) -> tantivy::Result<()> {
        self.metas.sort_unstable_by_key(|m| m.number);
        Ok(Manifest::write(&self.dir, self.metas.clone())?)
    }
}

/// How many events go from hand to hand at once.
const BATCH: usize = 256;
/// Each thread has a split of its own in memory.
const MAX_THREADS: usize = 4;
/// What all of them take is no more than what so many would.
const WHOLE_SPLITS: usize = 2;

/// An index that several threads build. Whose split an event goes into is not fixed; what a search finds is.
pub struct Parallel {
    /// Gathers the splits of all at the end.
    index: OfflineIndex,
    batch: Vec<Event>,
    batches: Option<SyncSender<Vec<Event>>>,
    threads: Vec<JoinHandle<tantivy::Result<Vec<Meta>>>>,
}

impl Parallel {
    /// Begins an index in `dir`, which must not have one, with up to four threads.
    pub fn create(dir: &Path, config: &Config, threads: usize) -> Result<Parallel, OfflineError> {
        let index = OfflineIndex::create(dir, config)?;
        let threads = threads.clamp(1, MAX_THREADS);
        let memory = index.memory * WHOLE_SPLITS / threads.max(WHOLE_SPLITS);
        let (batches, queue) = sync_channel(2 * threads);
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..threads).map(|_| {
            let mut index = OfflineIndex {
                dir: index.dir.clone(),
                memory,
                begun: Arc::clone(&index.begun),
                writer: None,
                metas: Vec::new(),
            };
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                while let Some(batch) = next(&queue) {
                    batch.iter().try_for_each(|event| index.try_add(event))?;
                }
                index.end_split()?;
                Ok(index.metas)
            })
        });
        Ok(Parallel {
            threads: threads.collect(),
            batch: Vec::with_capacity(BATCH),
            batches: Some(batches),
            index,
        })
    }

    /// Adds an event.
    pub fn add(&mut self, event: Event) -> Result<(), OfflineError> {
        self.batch.push(event);
        match self.batch.len() < BATCH {
            true => Ok(()),
            false => self.hand_on(),
        }
    }

    fn hand_on(&mut self) -> Result<(), OfflineError> {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        // None ends before the last batch but with an error, which is told at once.
        let failed = self.threads.iter().any(JoinHandle::is_finished);
        match &self.batches {
            Some(batches) if !failed && batches.send(batch).is_ok() => Ok(()),
            _ => self.join(),
        }
    }

    /// Waits for the threads; the first error of any.
    fn join(&mut self) -> Result<(), OfflineError> {
        self.batches = None;
        for thread in std::mem::take(&mut self.threads) {
            let metas = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.index
                .metas
                .extend(metas.map_err(|e| self.index.error(e))?);
        }
        Ok(())
    }

    /// Writes what is left and the manifest, as [`OfflineIndex::finish`].
    pub fn finish(mut self) -> Result<u64, OfflineError> {
        self.hand_on()?;
        self.join()?;
        self.index.finish()
    }
}

/// The next batch; none where there will be none.
fn next(queue: &Mutex<Receiver<Vec<Event>>>) -> Option<Vec<Event>> {
    let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    queue.recv().ok()
}
