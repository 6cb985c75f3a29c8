//! The published splits, and the one place where that changes.
//!
//! [`Shelf::publish`] makes a change of them take effect: first in the evidence log, then as one commit of the consumer
//! `index`, then for readers, in the catalog and in the manifest. The index stage adds, merging replaces, [`crate::removal`]
//! takes away. What is in the folder and was never published is deleted at the start and after a failure.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bus::{Bus, Commit, StateChange};
use event::Clock;
use tantivy::TantivyError;

use crate::evidence::seal::{self, Change};
use crate::hold::Holds;
use crate::indexer::{CONSUMER, IndexError};
use crate::manifest::Manifest;
use crate::rebuild::MARK;
use crate::split::Meta;
use crate::{Config, Metrics, Searcher};

/// The published splits: in the bus state, in the searcher's list and in the manifest.
pub(crate) struct Shelf {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) searcher: Searcher,
    pub(crate) holds: Arc<Holds>,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    /// May there be records of removals that are not on the log yet?
    unsaid: AtomicBool,
    metas: Mutex<Vec<Meta>>,
    next: AtomicU64,
}

impl Shelf {
    /// Takes over an index folder: opens what is published, deletes what is not.
    pub(crate) fn open(
        bus: Arc<dyn Bus>,
        (searcher, holds): (Searcher, Arc<Holds>),
        config: &Config,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Shelf, IndexError> {
        let shelf = Shelf::load(bus, (searcher, holds), config, metrics, clock)?;
        let marked = shelf.bus.state_get(CONSUMER, 0, &[MARK.to_vec()])?;
        if marked.iter().any(Option::is_some) {
            return Err(IndexError::Rebuilding);
        }
        let metas = shelf.metas();
        shelf.clear()?;
        shelf.searcher.catalog().own();
        if let Some(ledger) = shelf.searcher.catalog().ledger()
            && !seal::reconcile(ledger, &shelf.folder(), &metas, (shelf.clock)())?
        {
            tracing::error!(
                "the index is not what was published: `trailwarden doctor --integrity` says where"
            );
            shelf.metrics.errors.with_label_values(&["evidence"]).inc();
        }
        shelf.show(&metas)?;
        Ok(shelf)
    }

    /// Reads what is published, and touches nothing.
    pub(crate) fn load(
        bus: Arc<dyn Bus>,
        (searcher, holds): (Searcher, Arc<Holds>),
        config: &Config,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Shelf, IndexError> {
        let mut metas = Vec::new();
        for (key, value) in bus.state_scan(CONSUMER, 0, b"split/")? {
            let meta: Meta = serde_json::from_slice(&value)
                .map_err(|_| IndexError::State(String::from_utf8_lossy(&key).into_owned()))?;
            metas.push(meta);
        }
        metas.sort_by_key(|m| m.order);
        Ok(Shelf {
            bus,
            searcher,
            holds,
            config: config.clone(),
            metrics,
            clock,
            unsaid: AtomicBool::new(true),
            next: AtomicU64::new(metas.iter().map(|m| m.number + 1).max().unwrap_or(1)),
            metas: Mutex::new(metas),
        })
    }

    /// Deletes the folders of what is not published.
    pub(crate) fn clear(&self) -> Result<(), IndexError> {
        self.clean(&self.metas())
            .map_err(|e| self.error("delete unpublished splits", e.into()))
    }

    /// Deletes the index of findings, which is then built anew from the log.
    pub(crate) fn drop_findings(&self) -> Result<(), IndexError> {
        let folder = self.searcher.catalog().dir().join("findings");
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(self.error("delete the index of findings", e.into()))
            }
            _ => Ok(()),
        }
    }

    fn clean(&self, metas: &[Meta]) -> std::io::Result<()> {
        let folder = self.folder();
        std::fs::create_dir_all(&folder)?;
        let published: Vec<PathBuf> = metas
            .iter()
            .map(|m| Meta::folder(&folder, m.number))
            .collect();
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if !published.contains(&path) {
                tracing::info!(folder = %path.display(), "deleting an unpublished split");
                std::fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    /// The folder of the splits.
    pub(crate) fn folder(&self) -> PathBuf {
        self.searcher.catalog().folder()
    }

    pub(crate) fn error(&self, action: &'static str, source: TantivyError) -> IndexError {
        IndexError::Split {
            action,
            path: self.searcher.catalog().dir().to_owned(),
            source,
        }
    }

    /// A number that no split has had.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    /// The published splits in their order.
    pub(crate) fn metas(&self) -> Vec<Meta> {
        self.metas
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// May there be records of removals that are not on the log yet?
    pub(crate) fn unsaid(&self) -> bool {
        self.unsaid.load(Ordering::SeqCst)
    }

    /// There are none.
    pub(crate) fn said(&self) {
        self.unsaid.store(false, Ordering::SeqCst);
    }

    /// Makes a change of what is published, together with what else is in the commit.
    pub(crate) fn publish(
        &self,
        change: &Change<'_>,
        mut commit: Commit,
    ) -> Result<(), IndexError> {
        let Change { added, removed, .. } = *change;
        let mut metas = self.metas.lock().unwrap_or_else(PoisonError::into_inner);
        let put = |meta: &Meta, value| StateChange {
            partition: 0,
            key: split_key(meta.number),
            value,
            expires: None,
        };
        commit.consumer = CONSUMER.to_owned();
        commit.state.extend(removed.iter().map(|m| put(m, None)));
        commit.state.extend(added.iter().map(|m| {
            put(
                m,
                Some(serde_json::to_vec(m).expect("numbers and times are JSON")),
            )
        }));
        if let Some(ledger) = self.searcher.catalog().ledger() {
            let now = (self.clock)();
            // A commit that failed may have been written down before.
            seal::reconcile(ledger, &self.folder(), &metas, now)?;
            if !added.is_empty() || !removed.is_empty() {
                seal::write_down(ledger, &self.folder(), change, now)?;
            }
        }
        if added.is_empty() && !removed.is_empty() {
            self.unsaid.store(true, Ordering::SeqCst);
        }
        self.bus.commit(commit)?;
        metas.retain(|m| !removed.iter().any(|r| r.number == m.number));
        metas.extend(added.iter().cloned());
        metas.sort_by_key(|m| m.order);
        self.show(&metas)
    }

    /// Deletes the folders of splits that were built in vain, as the state says: a commit that failed may have been made.
    pub(crate) fn sweep(&self, numbers: &[u64]) {
        let Ok(published) = self.bus.state_scan(CONSUMER, 0, b"split/") else {
            return;
        };
        for number in numbers {
            let key = split_key(*number);
            if !published.iter().any(|(published, _)| *published == key) {
                self.discard(*number);
            }
        }
    }

    /// Deletes the folder of a split that could not be published.
    pub(crate) fn discard(&self, number: u64) {
        if self.metas().iter().any(|m| m.number == number) {
            return;
        }
        let folder = Meta::folder(&self.folder(), number);
        if let Err(error) = std::fs::remove_dir_all(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "cannot delete an unpublished split");
        }
    }

    /// Makes searches of this process and others see the published splits.
    fn show(&self, metas: &[Meta]) -> Result<(), IndexError> {
        let catalog = self.searcher.catalog();
        Manifest::write(catalog.dir(), metas.to_vec())
            .map_err(|e| self.error("write the manifest", e.into()))?;
        catalog
            .replace(metas.to_vec(), true)
            .map_err(|e| self.error("open a published split", e))?;
        self.metrics.splits.set(metas.len() as i64);
        self.metrics
            .events
            .set(metas.iter().map(|m| m.events as i64).sum());
        self.metrics
            .bytes
            .set(metas.iter().map(|m| m.bytes as i64).sum());
        Ok(())
    }
}

/// Under which key a split stands in the state.
fn split_key(number: u64) -> Vec<u8> {
    format!("split/{number:016x}").into_bytes()
}
