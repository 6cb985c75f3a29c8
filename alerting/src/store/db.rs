//! One face for two databases: what the rest of the store needs of a transaction, a row and a parameter.
//!
//! [`Db`] is SQLite or PostgreSQL and runs closures in transactions. The closures see a [`Tx`] and write their
//! SQL once, in what both understand: `?1` for parameters, `ON CONFLICT (…)`, `RETURNING`, numbers for times
//! and truth. [`Value`] is what goes into a statement, [`Column`] what comes out of a [`Row`]. A write
//! transaction has the database to itself on either side: SQLite has one writer, and on PostgreSQL the first
//! statement takes a lock that lasts until the commit. A read transaction sees one moment. Here is no SQL of
//! the store and no decision.

use std::cell::{Cell, RefCell};

use event::{Id, Time};

use super::leader::Fence;
use super::postgres::{self, Postgres};
use super::sqlite::Sqlite;
use super::{StoreError, failed};

/// The database behind a store.
pub(super) enum Db {
    /// A file of this machine.
    Sqlite(Sqlite),
    /// A server that several nodes share.
    Postgres(Box<Postgres>),
}

impl Db {
    /// Runs `work` alone in a transaction, durable when this returns. With a fence only while its lease holds. Gives
    /// the id of the last feed entry that `work` added too, 0 for none.
    pub(super) fn write<T: Send>(
        &self,
        action: &'static str,
        fence: Option<&Fence>,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<(T, u64), StoreError> {
        match self {
            Db::Sqlite(sqlite) => sqlite.write(action, work),
            Db::Postgres(postgres) => postgres.write(action, |tx| match fence {
                Some(fence) => fence.guard(tx, work),
                None => work(tx),
            }),
        }
    }

    /// Runs `work` in a transaction that changes nothing and sees one moment.
    pub(super) fn read<T: Send>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        match self {
            Db::Sqlite(sqlite) => sqlite.read(action, work),
            Db::Postgres(postgres) => postgres.read(action, work),
        }
    }
}

/// A parameter of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    /// Numbers, times and truth.
    Int(i64),
    Text(&'a str),
    Id([u8; 16]),
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Value::Int(number.into())
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Value::Int(truth.into())
    }
}

impl From<Time> for Value<'_> {
    fn from(time: Time) -> Self {
        Value::Int(time.0)
    }
}

impl From<Id> for Value<'_> {
    fn from(id: Id) -> Self {
        Value::Id(id.to_bytes())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(text)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Id(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A row of a result.
pub(super) enum Row<'r> {
    /// Of SQLite.
    Sqlite(&'r rusqlite::Row<'r>),
    /// Of PostgreSQL.
    Postgres(&'r ::postgres::Row),
}

impl Row<'_> {
    /// The value of a column.
    pub(super) fn get<T: Column>(&self, i: usize) -> Result<T, StoreError> {
        const ACTION: &str = "read a column";
        match self {
            Row::Sqlite(row) => row.get(i).map_err(failed(ACTION)),
            Row::Postgres(row) => row
                .try_get::<_, T::Cell>(i)
                .map(T::of)
                .map_err(postgres::failed(ACTION)),
        }
    }
}

/// What a column can be read as.
pub(super) trait Column: rusqlite::types::FromSql {
    /// How it comes out of PostgreSQL.
    type Cell: for<'a> ::postgres::types::FromSql<'a>;
    /// What that is.
    fn of(cell: Self::Cell) -> Self;
}

impl Column for i64 {
    type Cell = postgres::Number;
    fn of(cell: Self::Cell) -> i64 {
        cell.0
    }
}

impl Column for u32 {
    type Cell = postgres::Number;
    fn of(cell: Self::Cell) -> u32 {
        u32::try_from(cell.0).unwrap_or(u32::MAX)
    }
}

impl Column for bool {
    type Cell = postgres::Number;
    fn of(cell: Self::Cell) -> bool {
        cell.0 != 0
    }
}

impl Column for String {
    type Cell = String;
    fn of(cell: String) -> String {
        cell
    }
}

impl Column for [u8; 16] {
    type Cell = postgres::Bytes;
    fn of(cell: Self::Cell) -> [u8; 16] {
        cell.0
    }
}

impl<T: Column> Column for Option<T> {
    type Cell = Option<T::Cell>;
    fn of(cell: Self::Cell) -> Option<T> {
        cell.map(T::of)
    }
}

/// An open transaction.
pub(super) struct Tx<'a> {
    inner: Inner<'a>,
    last_feed: Cell<u64>,
}

enum Inner<'a> {
    Sqlite(&'a rusqlite::Transaction<'a>),
    Postgres(RefCell<postgres::Open<'a>>),
}

impl<'a> From<&'a rusqlite::Transaction<'a>> for Tx<'a> {
    fn from(tx: &'a rusqlite::Transaction<'a>) -> Tx<'a> {
        Tx {
            inner: Inner::Sqlite(tx),
            last_feed: Cell::new(0),
        }
    }
}

impl<'a> From<postgres::Open<'a>> for Tx<'a> {
    fn from(tx: postgres::Open<'a>) -> Tx<'a> {
        Tx {
            inner: Inner::Postgres(RefCell::new(tx)),
            last_feed: Cell::new(0),
        }
    }
}

impl Tx<'_> {
    /// Reads all rows of a query, each as `read` does.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        match &self.inner {
            Inner::Sqlite(tx) => {
                let sqlite = failed("read");
                let mut statement = tx.prepare_cached(sql).map_err(&sqlite)?;
                let mut rows = statement
                    .query(rusqlite::params_from_iter(params))
                    .map_err(&sqlite)?;
                let mut out = Vec::new();
                while let Some(row) = rows.next().map_err(&sqlite)? {
                    out.push(read(&Row::Sqlite(row))?);
                }
                Ok(out)
            }
            Inner::Postgres(tx) => {
                let rows = tx
                    .borrow_mut()
                    .query(sql, params)
                    .map_err(postgres::failed("read"))?;
                rows.iter().map(|row| read(&Row::Postgres(row))).collect()
            }
        }
    }

    /// Runs a statement; tells how many rows it changed.
    pub(super) fn run(&self, sql: &str, params: &[Value<'_>]) -> Result<usize, StoreError> {
        match &self.inner {
            Inner::Sqlite(tx) => tx
                .prepare_cached(sql)
                .and_then(|mut statement| statement.execute(rusqlite::params_from_iter(params)))
                .map_err(failed("write")),
            Inner::Postgres(tx) => tx
                .borrow_mut()
                .execute(sql, params)
                .map_err(postgres::failed("write")),
        }
    }

    /// Runs several statements that take no parameters.
    pub(super) fn batch(&self, sql: &str) -> Result<(), StoreError> {
        match &self.inner {
            Inner::Sqlite(tx) => tx.execute_batch(sql).map_err(failed("write")),
            Inner::Postgres(tx) => tx
                .borrow_mut()
                .batch(sql)
                .map_err(postgres::failed("write")),
        }
    }

    /// Notes that the feed got an entry.
    pub(super) fn fed(&self, id: u64) {
        self.last_feed.set(self.last_feed.get().max(id));
    }

    /// The id of the last entry that the feed got, 0 for none.
    pub(super) fn last_feed(&self) -> u64 {
        self.last_feed.get()
    }
}
