//! Legal holds: what must not be removed from the index, whatever its age and however large the index is.
//!
//! A [`Hold`] names a range of event time and perhaps a query. A split that has an event within both is kept as a whole:
//! events are never taken out of the middle of a split. [`Holds`] keeps them in the state of the consumer `index` under
//! `hold/` + name, so that they survive everything that the published splits survive; it is shared by the index stage,
//! which asks before it removes anything, and by whoever adds and releases holds. Asking and removing happen under one
//! lock: once [`Holds::add`] has returned, nothing that it covers goes any more.
//!
//! Beside the splits lies `holds.json`, a copy for readers in other processes ([`Kept::read`]). A node holds what it has
//! itself: with several index nodes a hold is set on each (docs/retention.md).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus::{Bus, BusError, Commit, StateChange};
use event::Time;
use serde::{Deserialize, Serialize};
use tantivy::query::EnableScoring;
use tantivy::{DocSet, TERMINATED};

use crate::Searcher;
use crate::compile::{Budget, Context, compile};
use crate::indexer::CONSUMER;
use crate::query::{self, QueryError};
use crate::request::Kind;
use crate::searcher::Order;
use crate::split::{Meta, Split, write_beside};

/// The name of the copy in the index folder.
const FILE: &str = "holds.json";
/// How many holds there may be at a time.
const MOST: usize = 100;
/// What begins the keys of holds in the state.
const PREFIX: &str = "hold/";
/// The key of [`Cut`] in the state.
pub(crate) const CUT: &[u8] = b"cut";
/// How long looking through one split for a hold may take; what takes longer is held.
const PATIENCE: Duration = Duration::from_secs(60);

/// What must not be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The name of the case.
    pub name: String,
    /// Events not before this time; none: from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Events not after this time; none: also what is still to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Time>,
    /// Only splits with an event that matches this query; empty: all in the range.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub query: String,
    /// Why.
    pub reason: String,
    /// Who asked for it.
    pub by: String,
    /// When. Times in the query that are relative count from here.
    pub made: Time,
}

/// A hold that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewHold {
    /// The name of the case: 1 to 64 letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Events not before this time.
    #[serde(default)]
    pub from: Option<Time>,
    /// Events not after this time.
    #[serde(default)]
    pub to: Option<Time>,
    /// Only splits with an event that matches.
    #[serde(default)]
    pub query: String,
    /// Why; must not be empty.
    pub reason: String,
}

/// How much of the index is kept by a hold now. Splits that two holds cover count for both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Covered {
    /// Splits.
    pub splits: u64,
    /// Events in them, those that the hold does not mean among them.
    pub events: u64,
    /// Bytes on the disk.
    pub bytes: u64,
}

/// That `search.max_mib` has removed splits before their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Of what was taken in up to here, something is gone.
    pub until: Time,
    /// When it was removed.
    pub time: Time,
}

/// What is kept longer, and what went sooner, as others may read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The holds, by name.
    pub holds: Vec<Hold>,
    /// The last removal because of the size of the index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

/// Why a hold was not added or released.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The name is none.
    #[error("`{0}` is no name for a hold: 1 to 64 letters, digits, `.`, `_` and `-`")]
    Name(String),
    /// Nobody said why.
    #[error("a hold needs a reason, and so does its release")]
    Reason,
    /// It says nothing.
    #[error("a hold needs a time range or a query; to hold everything, say from 1970-01-01")]
    Nothing,
    /// It ends before it begins.
    #[error("the hold ends at {to}, before it begins at {from}")]
    Reversed {
        /// Its beginning.
        from: Time,
        /// Its end.
        to: Time,
    },
    /// The query cannot be read.
    #[error("the query of the hold cannot be read")]
    Query(#[from] QueryError),
    /// The name is taken by one that covers something else.
    #[error("there is another hold `{0}`: release it first, or choose another name")]
    Exists(String),
    /// There are too many.
    #[error("there are {MOST} holds, and there may be no more: let one hold cover several cases")]
    Many,
    /// There is none of this name.
    #[error("there is no hold `{0}`")]
    Unknown(String),
    /// The log failed.
    #[error("cannot keep the hold")]
    Bus(#[from] BusError),
    /// What is stored is no hold.
    #[error("state key `{0}` of the index is no hold")]
    State(String),
}

/// The holds of an index.
pub struct Holds {
    bus: Arc<dyn Bus>,
    dir: PathBuf,
    /// Taken for as long as splits are removed, or a hold comes or goes. The other locks are taken for a moment only, so
    /// that nobody who only wants to know waits for a search.
    turn: Mutex<()>,
    kept: Mutex<Kept>,
    known: Known,
}

/// Whether a hold with a query covers a split, which never changes: by name of the hold, when it was made, and number.
type Known = Mutex<HashMap<(String, Time, u64), bool>>;

impl Kept {
    /// Reads the copy in an index folder; nothing where there is none.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(dir: &Path) -> std::io::Result<Kept> {
        match std::fs::read(dir.join(FILE)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Kept::default()),
            Err(e) => Err(e),
        }
    }
}

impl NewHold {
    fn check(&self) -> Result<(), HoldError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(plain) {
            return Err(HoldError::Name(self.name.clone()));
        }
        if self.reason.trim().is_empty() {
            return Err(HoldError::Reason);
        }
        if self.from.is_none() && self.to.is_none() && self.query.trim().is_empty() {
            return Err(HoldError::Nothing);
        }
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from > to
        {
            return Err(HoldError::Reversed { from, to });
        }
        query::parse(&self.query)?;
        Ok(())
    }
}

impl Hold {
    fn reaches(&self, meta: &Meta) -> bool {
        self.from.is_none_or(|from| meta.latest >= from)
            && self.to.is_none_or(|to| meta.earliest <= to)
    }

    /// Has the split an event that is meant?
    fn is_in(&self, split: &Split, searcher: &Searcher) -> tantivy::Result<bool> {
        let budget = Budget::until(Instant::now() + PATIENCE);
        let context = Context {
            fields: searcher.event_fields(),
            kind: Kind::Events,
            now: self.made,
            budget: budget.clone(),
        };
        let query = query::parse(&self.query)
            .map_err(|e| tantivy::TantivyError::InvalidArgument(e.to_string()))?;
        let (from, to) = (
            self.from.map_or(i64::MIN, |t| t.0),
            self.to.map_or(i64::MAX, |t| t.0),
        );
        let searcher = split.searcher();
        let weight =
            compile(&query, &context).weight(EnableScoring::disabled_from_searcher(&searcher))?;
        for reader in searcher.segment_readers() {
            let (start, end) = Order::of(reader)?.within(from, to, reader.max_doc());
            if start >= end {
                continue;
            }
            let mut docs = weight.scorer(reader, 1.0)?;
            let first = match docs.doc() {
                doc if doc < start => docs.seek(start),
                doc => doc,
            };
            if first != TERMINATED && first < end {
                return Ok(true);
            }
        }
        match budget.is_over() {
            true => Err(tantivy::TantivyError::InvalidArgument(
                "looking for a hold took too long".to_owned(),
            )),
            false => Ok(false),
        }
    }
}

impl Holds {
    /// The holds of the index in `dir`, whose state is on `bus`.
    ///
    /// # Errors
    /// The state cannot be read. A copy that cannot be written is only said: the state counts.
    pub fn open(bus: Arc<dyn Bus>, dir: &Path) -> Result<Holds, HoldError> {
        let mut holds = Vec::new();
        for (key, value) in bus.state_scan(CONSUMER, 0, PREFIX.as_bytes())? {
            let bad = |_| HoldError::State(String::from_utf8_lossy(&key).into_owned());
            holds.push(serde_json::from_slice(&value).map_err(bad)?);
        }
        let cut = bus.state_get(CONSUMER, 0, &[CUT.to_vec()])?;
        let cut = cut.into_iter().flatten().next();
        let cut = cut.and_then(|value| serde_json::from_slice(&value).ok());
        let kept = Kept { holds, cut };
        let holds = Holds {
            bus,
            dir: dir.to_owned(),
            turn: Mutex::new(()),
            kept: Mutex::new(kept),
            known: Mutex::default(),
        };
        let kept = holds.kept();
        if kept != Kept::default() {
            holds.copy(&kept);
        }
        Ok(holds)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }

    /// Writes the copy for readers in other processes.
    fn copy(&self, kept: &Kept) {
        let text = serde_json::to_vec(kept).expect("texts and times are JSON");
        let written =
            std::fs::create_dir_all(&self.dir).and_then(|()| write_beside(&self.dir, FILE, &text));
        if let Err(error) = written {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot write the copy of the holds");
        }
    }

    /// The holds and the last cut, as they are now.
    pub fn kept(&self) -> Kept {
        self.lock().clone()
    }

    /// How many holds there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().holds.len()
    }

    /// Adds a hold, durably. Nothing that it covers is removed any more. One of the same name that covers the same is
    /// given back as it is, so that whoever sets a hold on several nodes may do so again.
    ///
    /// # Errors
    /// It is not sound, its name is taken, or it cannot be stored: then it does not hold.
    pub fn add(&self, new: &NewHold, by: &str, now: Time) -> Result<Hold, HoldError> {
        new.check()?;
        let _turn = lock(&self.turn);
        let mut kept = self.kept();
        if let Some(old) = kept.holds.iter().find(|h| h.name == new.name) {
            return match (old.from, old.to, &old.query) == (new.from, new.to, &new.query) {
                true => Ok(old.clone()),
                false => Err(HoldError::Exists(new.name.clone())),
            };
        }
        if kept.holds.len() >= MOST {
            return Err(HoldError::Many);
        }
        let hold = Hold {
            name: new.name.clone(),
            from: new.from,
            to: new.to,
            query: new.query.clone(),
            reason: new.reason.clone(),
            by: by.to_owned(),
            made: now,
        };
        let value = serde_json::to_vec(&hold).expect("texts and times are JSON");
        self.store(&hold.name, Some(value))?;
        kept.holds.push(hold.clone());
        kept.holds.sort_by(|a, b| a.name.cmp(&b.name));
        self.copy(&kept);
        *self.lock() = kept;
        Ok(hold)
    }

    /// Releases a hold, durably, and gives what it was. What it alone has kept goes with the next look at the index.
    ///
    /// # Errors
    /// There is none of this name, nobody says why, or the state cannot be written: then it goes on to hold.
    pub fn release(&self, name: &str, reason: &str) -> Result<Hold, HoldError> {
        if reason.trim().is_empty() {
            return Err(HoldError::Reason);
        }
        let _turn = lock(&self.turn);
        let mut kept = self.kept();
        let place = kept.holds.iter().position(|h| h.name == name);
        let place = place.ok_or_else(|| HoldError::Unknown(name.to_owned()))?;
        self.store(name, None)?;
        let hold = kept.holds.remove(place);
        lock(&self.known).retain(|(held, ..), _| *held != hold.name);
        self.copy(&kept);
        *self.lock() = kept;
        Ok(hold)
    }

    fn store(&self, name: &str, value: Option<Vec<u8>>) -> Result<(), BusError> {
        self.bus.commit(Commit {
            consumer: CONSUMER.to_owned(),
            state: vec![StateChange {
                partition: 0,
                key: format!("{PREFIX}{name}").into_bytes(),
                value,
                expires: None,
            }],
            ..Commit::default()
        })
    }

    /// What each hold keeps of the index that `searcher` reads, in the order of [`Holds::kept`].
    pub fn covered(&self, searcher: &Searcher) -> Vec<Covered> {
        let current = searcher.catalog().current().unwrap_or_default();
        let holds = self.kept().holds;
        let covered = holds.iter().map(|hold| {
            let mut covered = Covered::default();
            for split in current.iter() {
                if covers(hold, &split.meta, searcher, &self.known) {
                    covered.splits += 1;
                    covered.events += split.meta.events;
                    covered.bytes += split.meta.bytes;
                }
            }
            covered
        });
        covered.collect()
    }

    /// Runs `work` while no hold comes or goes. It is given who holds a split, by name.
    pub(crate) fn during<T>(
        &self,
        searcher: &Searcher,
        work: impl FnOnce(&mut dyn FnMut(&Meta) -> Option<String>) -> T,
    ) -> T {
        let _turn = lock(&self.turn);
        let holds = self.kept().holds;
        let mut holder = |meta: &Meta| {
            let mut holds = holds.iter();
            let hold = holds.find(|h| covers(h, meta, searcher, &self.known));
            hold.map(|h| h.name.clone())
        };
        work(&mut holder)
    }

    /// Remembers a removal because of size that the state has.
    pub(crate) fn set_cut(&self, cut: Cut) {
        let _turn = lock(&self.turn);
        let mut kept = self.kept();
        kept.cut = Some(cut);
        self.copy(&kept);
        *self.lock() = kept;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn covers(hold: &Hold, meta: &Meta, searcher: &Searcher, known: &Known) -> bool {
    if !hold.reaches(meta) {
        return false;
    }
    if hold.query.trim().is_empty() {
        return true;
    }
    let key = (hold.name.clone(), hold.made, meta.number);
    if let Some(found) = lock(known).get(&key) {
        return *found;
    }
    let current = searcher.catalog().current().unwrap_or_default();
    let Some(split) = current.iter().find(|s| s.meta.number == meta.number) else {
        return true;
    };
    match hold.is_in(split, searcher) {
        Ok(found) => {
            let mut known = lock(known);
            // Splits that are gone are not asked for again.
            if known.len() > 10_000 {
                known.retain(|key, _| current.iter().any(|s| s.meta.number == key.2));
            }
            known.insert(key, found);
            found
        }
        // What cannot be looked into is held.
        Err(error) => {
            tracing::warn!(hold = %hold.name, split = meta.number, %error, "cannot tell whether a hold covers a split: it is kept");
            true
        }
    }
}
