//! Which splits are published, in memory: what searches read and the indexer replaces.
//!
//! [`Catalog`] gives searches a list that does not change under them. In the process of the indexer the indexer calls
//! [`Catalog::replace`]; in any other process the list follows `manifest.json`, which is looked at before each search.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use bus::ledger::Ledger;

use crate::findings::Findings;
use crate::manifest::{Manifest, Stamp};
use crate::split::{Meta, Split};

/// The published splits, in their order.
pub(crate) type Splits = Arc<Vec<Arc<Split>>>;

/// The published splits and the index of findings of one folder.
pub(crate) struct Catalog {
    dir: PathBuf,
    splits: RwLock<Splits>,
    findings: Mutex<Option<Arc<Findings>>>,
    /// Does an indexer of this process keep the list?
    owned: AtomicBool,
    read: Mutex<Option<Stamp>>,
    ledger: OnceLock<Arc<Ledger>>,
}

impl Catalog {
    pub(crate) fn open(dir: &Path) -> tantivy::Result<Catalog> {
        let catalog = Catalog::closed(dir);
        catalog.refresh()?;
        Ok(catalog)
    }

    /// With nothing opened yet.
    pub(crate) fn closed(dir: &Path) -> Catalog {
        Catalog {
            dir: dir.to_owned(),
            splits: RwLock::default(),
            findings: Mutex::new(None),
            owned: AtomicBool::new(false),
            read: Mutex::new(None),
            ledger: OnceLock::new(),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// From now on what is published is written down there first.
    pub(crate) fn attest(&self, ledger: Arc<Ledger>) {
        let _ = self.ledger.set(ledger);
    }

    /// Where publications are written down.
    pub(crate) fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.ledger.get()
    }

    /// The folder of the splits.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.join("splits")
    }

    /// From now on the list is what [`Catalog::replace`] makes it.
    pub(crate) fn own(&self) {
        self.owned.store(true, Ordering::SeqCst);
    }

    /// The list as it is now.
    pub(crate) fn current(&self) -> tantivy::Result<Splits> {
        if !self.owned.load(Ordering::SeqCst) {
            self.refresh()?;
        }
        Ok(self.list())
    }

    fn list(&self) -> Splits {
        let splits = self.splits.read().unwrap_or_else(PoisonError::into_inner);
        splits.clone()
    }

    /// Makes `metas` the list, opening those that are not open. Splits that are no longer listed are deleted with their
    /// last reader if `delete` is set.
    pub(crate) fn replace(&self, metas: Vec<Meta>, delete: bool) -> tantivy::Result<()> {
        let old = self.list();
        let folder = self.folder();
        let mut new = Vec::with_capacity(metas.len());
        for meta in metas {
            let open = old.iter().find(|s| s.meta == meta).cloned();
            new.push(match open {
                Some(split) => split,
                None => Arc::new(Split::open(&folder, meta)?),
            });
        }
        new.sort_by_key(|s| s.meta.order);
        if delete {
            let gone = |old: &Arc<Split>| !new.iter().any(|s| s.meta.number == old.meta.number);
            old.iter().filter(|s| gone(s)).for_each(|s| s.doom());
        }
        *self.splits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    /// Follows the manifest. A split that goes while it is being opened was replaced: the manifest says by which.
    fn refresh(&self) -> tantivy::Result<()> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        for attempt in 0.. {
            let stamp = Manifest::stamp(&self.dir);
            if stamp.is_some() && *read == stamp {
                break;
            }
            let splits = Manifest::read(&self.dir)?.map_or_else(Vec::new, |m| m.splits);
            match self.replace(splits, false) {
                Ok(()) => {
                    *read = stamp;
                    break;
                }
                Err(error) if attempt == 5 || Manifest::stamp(&self.dir) == stamp => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The index of findings; `None` if there is none yet.
    pub(crate) fn findings(&self) -> tantivy::Result<Option<Arc<Findings>>> {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if findings.is_none() {
            *findings = Findings::open(&self.dir)?.map(Arc::new);
        } else if !self.owned.load(Ordering::SeqCst)
            && let Some(findings) = findings.as_ref()
        {
            findings.reload()?;
        }
        Ok(findings.clone())
    }
}
