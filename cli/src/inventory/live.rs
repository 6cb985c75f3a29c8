//! The inventory that holds now, and how it changes while the service runs.
//!
//! [`LiveInventory::watch`] looks at the content of the file every few seconds, and at once when somebody asks by SIGHUP.
//! A file that can be used takes the place of the old inventory as a whole, for events that come from then on; one that
//! cannot, or is gone, is refused as a whole: its mistakes are logged and counted, and the old inventory stays. A file
//! that is being written to is given time to settle. Without a file the inventory is empty and nothing is watched.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::Stop;
use event::inventory::Inventory;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{Config, read};
use crate::exit::Usage;
use crate::look;

/// The inventory that holds now.
pub(crate) struct LiveInventory {
    file: Option<PathBuf>,
    state: Mutex<State>,
    asked: AtomicBool,
    metrics: Metrics,
}

struct State {
    current: Arc<Inventory>,
    /// A hash of the file when it was last looked at.
    seen: u64,
    /// Why the file as it is now cannot be used.
    refused: Option<String>,
}

/// What is counted of the inventory.
pub(crate) struct Metrics {
    reloads: IntCounterVec,
    entries: IntGaugeVec,
    refused: IntGauge,
}

impl Metrics {
    /// Registers the metrics.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let reloads = IntCounterVec::new(
            Opts::new(
                "trailwarden_inventory_reload_total",
                "Changes of the inventory's file, by what came of them: loaded, or refused, and then the old inventory stays.",
            ),
            &["result"],
        )?;
        for result in ["loaded", "refused"] {
            reloads.with_label_values(&[result]);
        }
        let entries = IntGaugeVec::new(
            Opts::new(
                "trailwarden_inventory_entries",
                "What the inventory has, by kind: account, function.",
            ),
            &["kind"],
        )?;
        let refused = IntGauge::new(
            "trailwarden_inventory_refused",
            "1 while the inventory's file cannot be used and an older inventory holds.",
        )?;
        registry.register(Box::new(reloads.clone()))?;
        registry.register(Box::new(entries.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Metrics {
            reloads,
            entries,
            refused,
        })
    }

    fn count(&self, inventory: &Inventory) {
        let set = |kind, n: usize| self.entries.with_label_values(&[kind]).set(n as i64);
        set("account", inventory.accounts().len());
        set("function", inventory.functions().len());
    }
}

impl LiveInventory {
    /// Reads the inventory of the configuration.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(crate) fn open(config: &Config, registry: &Registry) -> anyhow::Result<LiveInventory> {
        let metrics = Metrics::new(registry)?;
        let (current, seen) = match &config.file {
            None => (Inventory::default(), 0),
            Some(file) => {
                // Hashed before it is read: a change in between is seen at the next look.
                let seen = content(file);
                let read = read::read(file);
                (
                    read.map_err(|e| anyhow::Error::new(e).context(Usage))?,
                    seen,
                )
            }
        };
        metrics.count(&current);
        Ok(LiveInventory {
            file: config.file.clone(),
            state: Mutex::new(State {
                current: Arc::new(current),
                seen,
                refused: None,
            }),
            asked: AtomicBool::new(false),
            metrics,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is a file configured?
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// The inventory as it is now.
    pub(crate) fn current(&self) -> Arc<Inventory> {
        Arc::clone(&self.state().current)
    }

    /// What holds, and whether the file says something else, for people.
    pub(crate) fn status(&self) -> String {
        let state = self.state();
        let holds = format!(
            "{} accounts, {} functions",
            state.current.accounts().len(),
            state.current.functions().len()
        );
        match &state.refused {
            None => holds,
            Some(why) => {
                let first = why.lines().find(|line| line.contains(" = ")).unwrap_or(why);
                let first = first.trim().trim_start_matches("= ");
                format!("{holds}; the file as it is now was refused ({first}), the log says why")
            }
        }
    }

    /// Asks [`LiveInventory::watch`] to look at the file soon.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Looks at the file every so often until it is told to stop; only when asked, if `every` is zero.
    pub(crate) fn watch(&self, every: Duration, stop: &Stop) {
        look::again(every, &self.asked, stop, |_| self.look());
    }

    /// Looks at the file now and takes it up if it has changed.
    fn look(&self) {
        let Some(file) = &self.file else { return };
        let seen = self.state().seen;
        let (now, ()) = look::settled(seen, || (content(file), ()));
        if now == seen {
            return;
        }
        let read = read::read(file);
        let mut state = self.state();
        state.seen = now;
        let result = match read {
            Ok(inventory) => {
                let (accounts, functions) =
                    (inventory.accounts().len(), inventory.functions().len());
                tracing::info!(accounts, functions, "inventory loaded anew");
                self.metrics.count(&inventory);
                (state.current, state.refused) = (Arc::new(inventory), None);
                "loaded"
            }
            Err(problems) => {
                tracing::error!("inventory refused, the old one stays\n{problems}");
                state.refused = Some(problems.to_string());
                "refused"
            }
        };
        self.metrics.reloads.with_label_values(&[result]).inc();
        self.metrics.refused.set(state.refused.is_some().into());
    }
}

/// A hash of the file, which changes with it; also of the reason for which it cannot be read.
fn content(file: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    match std::fs::read(file) {
        Ok(content) => content.hash(&mut hasher),
        Err(error) => error.to_string().hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "accounts: [{account: '111122223333', name: one}]\n";

    #[test]
    fn a_broken_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("i.yaml");
        std::fs::write(&file, ONE).unwrap();
        let config = Config {
            file: Some(file.clone()),
            ..Config::default()
        };
        let registry = Registry::new();
        let live = LiveInventory::open(&config, &registry).unwrap();
        let name = || live.current().account("111122223333").unwrap().name.clone();
        let count = |result| live.metrics.reloads.with_label_values(&[result]).get();
        live.look();
        assert_eq!((count("loaded"), count("refused")), (0, 0), "unchanged");
        std::fs::write(&file, ONE.replace("one", "two")).unwrap();
        live.look();
        assert_eq!((name().as_str(), count("loaded")), ("two", 1));
        std::fs::write(&file, ONE.replace("3333", "333")).unwrap();
        live.look();
        assert_eq!((name().as_str(), count("refused")), ("two", 1));
        assert_eq!(live.metrics.refused.get(), 1);
        assert!(live.status().contains("11 digits"), "{}", live.status());
        std::fs::remove_file(&file).unwrap();
        live.look();
        assert_eq!((name().as_str(), count("refused")), ("two", 2));
        std::fs::write(&file, ONE).unwrap();
        live.look();
        assert_eq!((name().as_str(), live.metrics.refused.get()), ("one", 0));
        assert_eq!(live.status(), "1 accounts, 0 functions");
        std::fs::write(&file, "accounts: 7").unwrap();
        assert!(LiveInventory::open(&config, &Registry::new()).is_err());
    }
}
