//! Indexes without a bus: `hunt --index DIR` builds one, `search --data DIR` reads it.
//!
//! [`OfflineIndex`] takes events and writes the same splits as the service, listed in the manifest alone. It does not
//! drop repeats: whoever reads the files does. [`crate::Searcher::open`] reads the folder afterwards, and just as well the
//! index folder of a service, running or stopped.

use std::path::{Path, PathBuf};

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
        let number = self.metas.len() as u64 + 1;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
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
        let mut end = || -> tantivy::Result<()> {
            self.end_split()?;
            Manifest::write(&self.dir, self.metas.clone())?;
            Ok(())
        };
        let ended = end();
        ended.map_err(|e| self.error(e))?;
        Ok(self.metas.iter().map(|m| m.events).sum())
    }
}
