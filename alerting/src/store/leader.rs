//! Which node works: a lease in the database, by the database's clock.
//!
//! Of several nodes on one database, one applies findings and one sends notifications. Who does is a row of
//! `leader` that says until when; [`Store::lead`] takes or renews it. What a leader writes goes through
//! [`Store::fenced`]: every transaction looks inside itself whether the lease still holds. Since writes are
//! serial and taking a lease is one, nobody can become leader between that look and the commit. So a process
//! that stood still for an hour changes nothing when it wakes, whatever it believes. A lease belongs to one
//! open store, not to a name: a node that starts again takes its own lease over at once, and the process that
//! it replaces has lost it. A file of SQLite has one node, which always leads.

use std::time::{Duration, Instant};

use super::db::{Db, Tx};
use super::{Store, StoreError};

/// How long a node leads without renewing.
pub const LEASE: Duration = Duration::from_secs(6);
/// How often it renews.
const RENEW: Duration = Duration::from_secs(1);

/// What a write requires: this store's lease of a name.
#[derive(Debug, Clone)]
pub(super) struct Fence {
    name: &'static str,
    session: i64,
}

impl Fence {
    /// Does the work if the lease holds, and renews it where the work took long.
    pub(super) fn guard<T>(
        &self,
        tx: &Tx<'_>,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let sql =
            "SELECT 1 FROM leader WHERE name = ?1 AND session = ?2 AND until > clock_timestamp()";
        let params = [self.name.into(), self.session.into()];
        if tx.all(sql, &params, |_| Ok(()))?.is_empty() {
            return Err(StoreError::NotLeading(self.name));
        }
        let started = Instant::now();
        let done = work(tx)?;
        if started.elapsed() > RENEW {
            // Others wait for the lock that this transaction has: without this they would take over after it.
            let sql = "UPDATE leader SET until = clock_timestamp() + CAST(?3 AS BIGINT) * INTERVAL '1 microsecond' \
                       WHERE name = ?1 AND session = ?2";
            tx.run(sql, &[params[0], params[1], micros(LEASE).into()])?;
        }
        Ok(done)
    }
}

impl Store {
    /// Do several nodes share what is stored here?
    pub fn is_shared(&self) -> bool {
        matches!(self.inner.db, Db::Postgres(_))
    }

    /// Takes the lease of `name` for the node `holder` if it is free, or renews it if it is this store's. Tells whether
    /// it is ours now.
    pub fn lead(
        &self,
        name: &'static str,
        holder: &str,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let Db::Postgres(postgres) = &self.inner.db else {
            return Ok(true);
        };
        let sql = "INSERT INTO leader (name, holder, session, until) \
                   VALUES (?1, ?2, ?3, clock_timestamp() + CAST(?4 AS BIGINT) * INTERVAL '1 microsecond') \
                   ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, session = excluded.session, until = excluded.until \
                   WHERE leader.session = excluded.session OR leader.holder = excluded.holder OR leader.until <= clock_timestamp()";
        let params = [
            name.into(),
            holder.into(),
            postgres.session.into(),
            micros(lease).into(),
        ];
        self.inner
            .write("take the lead", None, |tx| Ok(tx.run(sql, &params)? > 0))
    }

    /// Gives the lease of `name` back if it is this store's, so that another node need not wait for its end.
    pub fn resign(&self, name: &'static str) -> Result<(), StoreError> {
        let Db::Postgres(postgres) = &self.inner.db else {
            return Ok(());
        };
        let sql = "DELETE FROM leader WHERE name = ?1 AND session = ?2";
        let params = [name.into(), postgres.session.into()];
        self.inner.write("give up the lead", None, |tx| {
            tx.run(sql, &params).map(|_| ())
        })
    }

    /// The same store, in which nothing can be written but while this store has the lease of `name`.
    pub fn fenced(&self, name: &'static str) -> Store {
        let fence = match &self.inner.db {
            Db::Sqlite(_) => None,
            Db::Postgres(postgres) => Some(Fence {
                name,
                session: postgres.session,
            }),
        };
        Store {
            inner: self.inner.clone(),
            fence,
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A node's part in who leads: asks about every second.
pub(crate) struct Turn<'a> {
    store: &'a Store,
    name: &'static str,
    holder: String,
    asked: Option<Instant>,
    leads: bool,
}

impl<'a> Turn<'a> {
    /// The part of the node `holder` in who leads `name`.
    pub(crate) fn new(store: &'a Store, name: &'static str, holder: String) -> Turn<'a> {
        Turn {
            store,
            name,
            holder,
            asked: None,
            leads: false,
        }
    }

    /// Does this node lead? Asks the store where the last answer is old.
    pub(crate) fn leads(&mut self) -> Result<bool, StoreError> {
        if self.asked.is_some_and(|asked| asked.elapsed() < RENEW) {
            return Ok(self.leads);
        }
        let before = std::mem::take(&mut self.leads);
        self.asked = None;
        let asked = Instant::now();
        self.leads = self.store.lead(self.name, &self.holder, LEASE)?;
        self.asked = Some(asked);
        if self.store.is_shared() && before != self.leads {
            tracing::info!(
                role = self.name,
                leads = self.leads,
                "the leading node has changed"
            );
        }
        Ok(self.leads)
    }

    /// The store says that another node leads.
    pub(crate) fn lost(&mut self) {
        self.asked = None;
    }

    /// Lets another node lead.
    pub(crate) fn resign(self) {
        if let Err(error) = self.store.resign(self.name) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not give up the lead; others wait for the end of the lease"
            );
        }
    }
}
