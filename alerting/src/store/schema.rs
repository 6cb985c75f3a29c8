//! The tables of the alert store and how older ones become newer ones.
//!
//! Times are microseconds since 1970, truth is 0 or 1, ids their 16 bytes. `alerts.data` and `incidents.data`
//! are the whole thing as JSON; the columns beside them are what queries look for, written from the same value
//! by `rows`. Each database has its list of migrations, which only ever grows at its end; what was done is
//! recorded in `migrations`. On PostgreSQL all of them are one transaction under the lock of every write, so
//! that of several nodes that begin at once one migrates and the others find it done.

use rusqlite::Connection;

use super::db::Tx;
use super::{StoreError, failed, rows};

const SQLITE: &[&str] = &["
CREATE TABLE positions (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);

-- Every finding that was applied: what makes a repeat harmless.
CREATE TABLE findings (
    id BLOB PRIMARY KEY,
    alert BLOB NOT NULL,
    episode BLOB NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX findings_alert ON findings (alert);
CREATE INDEX findings_episode ON findings (episode);

-- Alerts that belong into an episode which has not been heard of yet.
CREATE TABLE waiting_merges (target BLOB NOT NULL, alert BLOB NOT NULL, PRIMARY KEY (target, alert)) WITHOUT ROWID;

CREATE TABLE alerts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    incident BLOB NOT NULL,
    state TEXT NOT NULL,
    severity INTEGER NOT NULL,
    rule_id TEXT NOT NULL,
    account TEXT NOT NULL,
    fold_key BLOB,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    grown INTEGER NOT NULL,
    merged_into BLOB,
    search TEXT NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX alerts_incident ON alerts (incident);
CREATE INDEX alerts_fold ON alerts (fold_key, last) WHERE fold_key IS NOT NULL AND merged_into IS NULL;
CREATE INDEX alerts_open ON alerts (grown) WHERE state != 'resolved';
CREATE INDEX alerts_over ON alerts (updated) WHERE state = 'resolved';
CREATE INDEX alerts_merged ON alerts (merged_into) WHERE merged_into IS NOT NULL;

CREATE TABLE incidents (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    state TEXT NOT NULL,
    merged_into BLOB,
    -- When time alone may change what receivers are to be told; NULL for never.
    check_at INTEGER,
    data TEXT NOT NULL
);
CREATE INDEX incidents_check ON incidents (check_at) WHERE check_at IS NOT NULL;

-- Stretches of event time of one key, more than the incident gap apart.
CREATE TABLE incident_spans (
    key TEXT NOT NULL,
    last INTEGER NOT NULL,
    first INTEGER NOT NULL,
    incident BLOB NOT NULL,
    PRIMARY KEY (key, last)
) WITHOUT ROWID;
CREATE INDEX incident_spans_incident ON incident_spans (incident);

-- What each receiver was last told.
CREATE TABLE told (
    incident BLOB NOT NULL,
    receiver TEXT NOT NULL,
    alert BLOB NOT NULL,
    severity INTEGER NOT NULL,
    resolved INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (incident, receiver)
) WITHOUT ROWID;
CREATE TABLE numbers (
    incident BLOB NOT NULL,
    receiver TEXT NOT NULL,
    next INTEGER NOT NULL,
    PRIMARY KEY (incident, receiver)
) WITHOUT ROWID;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    incident BLOB NOT NULL,
    receiver TEXT NOT NULL,
    number INTEGER NOT NULL,
    alert BLOB NOT NULL,
    reason TEXT NOT NULL,
    severity INTEGER NOT NULL,
    delivery TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    ambiguous INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    give_up_at INTEGER NOT NULL,
    lease_until INTEGER NOT NULL DEFAULT 0,
    sent INTEGER,
    error TEXT NOT NULL DEFAULT '',
    instead_of TEXT,
    -- What is sent, fixed at the first attempt so that every attempt sends the same.
    message TEXT,
    UNIQUE (incident, receiver, number)
);
CREATE INDEX outbox_due ON outbox (receiver, next_at) WHERE delivery IN ('pending', 'leased', 'ambiguous');

CREATE INDEX outbox_delivery ON outbox (delivery);

CREATE TABLE silences (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    matchers TEXT NOT NULL,
    starts INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    author TEXT NOT NULL,
    comment TEXT NOT NULL,
    created INTEGER NOT NULL,
    expired_by TEXT NOT NULL DEFAULT '',
    broad INTEGER NOT NULL
);

CREATE TABLE history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    alert BLOB NOT NULL,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX history_alert ON history (alert);

CREATE TABLE feed (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    alert BLOB NOT NULL,
    incident BLOB NOT NULL,
    opened INTEGER NOT NULL
);
", "
ALTER TABLE incidents ADD COLUMN updated INTEGER NOT NULL DEFAULT 0;
UPDATE incidents SET updated = COALESCE(unixepoch(data ->> '$.updated'), 0) * 1000000;
CREATE INDEX incidents_over ON incidents (updated) WHERE state = 'resolved';
", "
-- What is known of sources, collectors and functions, and how far the topic `sources` was read.
CREATE TABLE sources (kind TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE TABLE source_positions (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
", "
-- Searches that people keep, by their name in small letters.
CREATE TABLE searches (name TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
"];

const POSTGRES: &[&str] = &["
CREATE TABLE positions (partition BIGINT PRIMARY KEY, next BIGINT NOT NULL);

-- Every finding that was applied: what makes a repeat harmless.
CREATE TABLE findings (
    id BYTEA PRIMARY KEY,
    alert BYTEA NOT NULL,
    episode BYTEA NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX findings_alert ON findings (alert);
CREATE INDEX findings_episode ON findings (episode);

-- Alerts that belong into an episode which has not been heard of yet.
CREATE TABLE waiting_merges (target BYTEA NOT NULL, alert BYTEA NOT NULL, PRIMARY KEY (target, alert));

CREATE TABLE alerts (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id BYTEA NOT NULL UNIQUE,
    incident BYTEA NOT NULL,
    state TEXT NOT NULL,
    severity BIGINT NOT NULL,
    rule_id TEXT NOT NULL,
    account TEXT NOT NULL,
    fold_key BYTEA,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    grown BIGINT NOT NULL,
    merged_into BYTEA,
    search TEXT NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX alerts_incident ON alerts (incident);
CREATE INDEX alerts_fold ON alerts (fold_key, last) WHERE fold_key IS NOT NULL AND merged_into IS NULL;
CREATE INDEX alerts_open ON alerts (grown) WHERE state != 'resolved';
CREATE INDEX alerts_over ON alerts (updated) WHERE state = 'resolved';
CREATE INDEX alerts_merged ON alerts (merged_into) WHERE merged_into IS NOT NULL;

CREATE TABLE incidents (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id BYTEA NOT NULL UNIQUE,
    state TEXT NOT NULL,
    merged_into BYTEA,
    -- When time alone may change what receivers are to be told; NULL for never.
    check_at BIGINT,
    updated BIGINT NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX incidents_check ON incidents (check_at) WHERE check_at IS NOT NULL;
CREATE INDEX incidents_over ON incidents (updated) WHERE state = 'resolved';

-- Stretches of event time of one key, more than the incident gap apart.
CREATE TABLE incident_spans (
    key TEXT NOT NULL,
    last BIGINT NOT NULL,
    first BIGINT NOT NULL,
    incident BYTEA NOT NULL,
    PRIMARY KEY (key, last)
);
CREATE INDEX incident_spans_incident ON incident_spans (incident);

-- What each receiver was last told.
CREATE TABLE told (
    incident BYTEA NOT NULL,
    receiver TEXT NOT NULL,
    alert BYTEA NOT NULL,
    severity BIGINT NOT NULL,
    resolved BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (incident, receiver)
);
CREATE TABLE numbers (
    incident BYTEA NOT NULL,
    receiver TEXT NOT NULL,
    next BIGINT NOT NULL,
    PRIMARY KEY (incident, receiver)
);

CREATE TABLE outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident BYTEA NOT NULL,
    receiver TEXT NOT NULL,
    number BIGINT NOT NULL,
    alert BYTEA NOT NULL,
    reason TEXT NOT NULL,
    severity BIGINT NOT NULL,
    delivery TEXT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    ambiguous BIGINT NOT NULL DEFAULT 0,
    created BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    give_up_at BIGINT NOT NULL,
    lease_until BIGINT NOT NULL DEFAULT 0,
    sent BIGINT,
    error TEXT NOT NULL DEFAULT '',
    instead_of TEXT,
    -- What is sent, fixed at the first attempt so that every attempt sends the same.
    message TEXT,
    UNIQUE (incident, receiver, number)
);
CREATE INDEX outbox_due ON outbox (receiver, next_at) WHERE delivery IN ('pending', 'leased', 'ambiguous');

CREATE INDEX outbox_delivery ON outbox (delivery);

CREATE TABLE silences (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    matchers TEXT NOT NULL,
    starts BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    author TEXT NOT NULL,
    comment TEXT NOT NULL,
    created BIGINT NOT NULL,
    expired_by TEXT NOT NULL DEFAULT '',
    broad BIGINT NOT NULL
);

CREATE TABLE history (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert BYTEA NOT NULL,
    at BIGINT NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX history_alert ON history (alert);

CREATE TABLE feed (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at BIGINT NOT NULL,
    alert BYTEA NOT NULL,
    incident BYTEA NOT NULL,
    opened BIGINT NOT NULL
);

-- As in SQLite: where a text begins in another, 0 for nowhere.
CREATE FUNCTION instr(TEXT, TEXT) RETURNS INTEGER LANGUAGE SQL IMMUTABLE STRICT PARALLEL SAFE
    AS 'SELECT strpos($1, $2)';

-- Which node works, and until when by this server's clock.
CREATE TABLE leader (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    session BIGINT NOT NULL,
    until TIMESTAMPTZ NOT NULL
);
-- A number for every open store, so that a lease has one owner.
CREATE SEQUENCE sessions;
", "
-- What is known of sources, collectors and functions, and how far the topic `sources` was read.
CREATE TABLE sources (kind TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (kind, name));
CREATE TABLE source_positions (partition BIGINT PRIMARY KEY, next BIGINT NOT NULL);
", "
-- Searches that people keep, by their name in small letters.
CREATE TABLE searches (name TEXT PRIMARY KEY, data TEXT NOT NULL);
"];

/// Brings a file to the newest schema, each step in a transaction of its own.
pub(super) fn migrate_sqlite(connection: &mut Connection) -> Result<(), StoreError> {
    let sql = failed("migrate the tables");
    connection
        .execute_batch("CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY)")
        .map_err(&sql)?;
    let found: i64 = connection
        .query_row(
            "SELECT COALESCE(MAX(version), 0) FROM migrations",
            [],
            |r| r.get(0),
        )
        .map_err(&sql)?;
    for (version, step) in missing(SQLITE, found)? {
        let tx = connection.transaction().map_err(&sql)?;
        tx.execute_batch(step).map_err(&sql)?;
        tx.execute("INSERT INTO migrations (version) VALUES (?1)", [version])
            .map_err(&sql)?;
        tx.commit().map_err(&sql)?;
    }
    Ok(())
}

/// Makes the schema where it is missing and brings it to the newest tables.
pub(super) fn migrate_postgres(tx: &Tx<'_>, schema: &str) -> Result<(), StoreError> {
    let one = |sql: &str, params: &[super::db::Value<'_>]| {
        rows::all(tx, sql, params, |r| r.get::<String>(0))
    };
    let encoding = one("SELECT current_setting('server_encoding')", &[])?;
    if let Some(other) = encoding.into_iter().find(|e| e != "UTF8") {
        return Err(StoreError::Encoding(other));
    }
    // Whoever may not make schemas may still use one that is there.
    let there = "SELECT CAST(nspname AS TEXT) FROM pg_namespace WHERE nspname = CAST(?1 AS TEXT)";
    if one(there, &[schema.into()])?.is_empty() {
        tx.batch(&format!("CREATE SCHEMA \"{schema}\""))?;
    }
    // To migrate may take long.
    tx.batch("SET LOCAL statement_timeout = 0; CREATE TABLE IF NOT EXISTS migrations (version BIGINT PRIMARY KEY)")?;
    let sql = "SELECT COALESCE(MAX(version), 0) FROM migrations";
    let found = rows::all(tx, sql, &[], |r| r.get::<i64>(0))?;
    for (version, step) in missing(POSTGRES, found.first().copied().unwrap_or_default())? {
        tx.batch(step)?;
        let sql = "INSERT INTO migrations (version) VALUES (?1)";
        rows::run(tx, sql, &[version.into()])?;
    }
    Ok(())
}

/// The steps that come after version `found`, with their versions.
fn missing(
    steps: &'static [&'static str],
    found: i64,
) -> Result<impl Iterator<Item = (i64, &'static str)>, StoreError> {
    let known = steps.len() as i64;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    Ok((1..)
        .zip(steps.iter().copied())
        .filter(move |(version, _)| *version > found))
}
