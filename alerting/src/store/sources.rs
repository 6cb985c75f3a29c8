//! What is known of sources: rows of [`crate::watch`] in and out, with the position in the topic `sources`.

use bus::Offset;
use event::{Str, Time};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::db::Tx;
use super::rows::{self, run};
use super::{Store, StoreError};
use crate::watch::{FunctionKey, KnownCollector, Watch, Watched};

const FEED: &str = "feed";
const COLLECTOR: &str = "collector";
const FUNCTION: &str = "function";

/// A function and when its log was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenFunction {
    /// The account that owns it.
    pub account: Str,
    /// Its name.
    pub function: Str,
    /// When a line of it was last taken in, to the hour.
    pub last: Time,
}

impl Store {
    /// What is known of feeds, the wider before those within them.
    pub fn feeds(&self) -> Result<Vec<Watched>, StoreError> {
        let mut feeds: Vec<Watched> = self.read("list sources", |tx| list(tx, FEED))?;
        feeds.sort_by(|a, b| a.feed.cmp(&b.feed));
        Ok(feeds)
    }

    /// What is known of collectors.
    pub fn collectors(&self) -> Result<Vec<KnownCollector>, StoreError> {
        self.read("list collectors", |tx| list(tx, COLLECTOR))
    }

    /// Which functions were seen.
    pub fn functions(&self) -> Result<Vec<SeenFunction>, StoreError> {
        self.read("list functions", |tx| list(tx, FUNCTION))
    }

    /// All that is known of sources.
    pub(crate) fn watch(&self) -> Result<Watch, StoreError> {
        let functions = self.functions()?;
        let functions = functions
            .into_iter()
            .map(|f| ((f.account, f.function), f.last));
        Ok(Watch::restore(
            self.feeds()?,
            self.collectors()?,
            functions.collect(),
        ))
    }

    /// The next offset of the topic `sources` to take in; `None` before the first batch.
    pub(crate) fn source_position(&self, partition: u32) -> Result<Option<Offset>, StoreError> {
        let sql = "SELECT next FROM source_positions WHERE partition = ?1";
        self.read("read the position in sources", |tx| {
            let found = rows::all(tx, sql, &[partition.into()], |r| rows::get::<i64>(r, 0))?;
            Ok(found.first().map(|next| *next as Offset))
        })
    }

    /// Stores what has changed since this was last done, together with positions in the topic `sources`. After an error
    /// the watch must be read again.
    pub fn save_sources(
        &self,
        watch: &mut Watch,
        positions: &[(u32, Offset)],
    ) -> Result<(), StoreError> {
        let changed = watch.changed();
        self.write("store what is known of sources", |tx| {
            for feed in &changed.feeds {
                save(tx, FEED, &feed, watch.feed(feed))?;
            }
            for key in &changed.collectors {
                save(tx, COLLECTOR, &key, watch.collector(key))?;
            }
            for key in &changed.functions {
                save(tx, FUNCTION, &key, watch.function(key).map(|last| seen(key, last)).as_ref())?;
            }
            for (partition, next) in positions {
                let sql = "INSERT INTO source_positions (partition, next) VALUES (?1, ?2) ON CONFLICT (partition) DO UPDATE SET next = ?2";
                run(tx, sql, &[(*partition).into(), (*next as i64).into()])?;
            }
            Ok(())
        })
    }
}

fn seen((account, function): &FunctionKey, last: Time) -> SeenFunction {
    SeenFunction {
        account: account.clone(),
        function: function.clone(),
        last,
    }
}

fn list<T: DeserializeOwned>(tx: &Tx<'_>, kind: &'static str) -> Result<Vec<T>, StoreError> {
    let sql = "SELECT data FROM sources WHERE kind = ?1 ORDER BY name";
    rows::all(tx, sql, &[kind.into()], |r| {
        serde_json::from_str(&rows::get::<String>(r, 0)?)
            .map_err(|source| StoreError::Damaged { what: kind, source })
    })
}

/// Stores a thing, or removes it where it is no more.
fn save<T: Serialize>(
    tx: &Tx<'_>,
    kind: &'static str,
    key: &impl Serialize,
    thing: Option<&T>,
) -> Result<(), StoreError> {
    let name = serde_json::to_string(key).expect("texts");
    let Some(thing) = thing else {
        let sql = "DELETE FROM sources WHERE kind = ?1 AND name = ?2";
        run(tx, sql, &[kind.into(), (&name).into()])?;
        return Ok(());
    };
    let data = serde_json::to_string(thing).expect("texts and numbers");
    let sql = "INSERT INTO sources (kind, name, data) VALUES (?1, ?2, ?3) ON CONFLICT (kind, name) DO UPDATE SET data = ?3";
    run(tx, sql, &[kind.into(), (&name).into(), (&data).into()])?;
    Ok(())
}
