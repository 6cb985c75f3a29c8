//! The tables of the alert store and how an older file becomes a newer one.
//!
//! Times are microseconds since 1970, ids their 16 bytes. `alerts.data` and `incidents.data` are the whole
//! thing as JSON; the columns beside them are what queries look for, written from the same value by
//! `rows`. Migrations only ever append to the list, and each is recorded in `migrations`.

use rusqlite::Connection;

use super::{StoreError, failed};

const MIGRATIONS: &[&str] = &["
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
"];

/// Brings the file to the newest schema, each step in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
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
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for (version, step) in (1..).zip(MIGRATIONS).skip(found as usize) {
        let tx = connection.transaction().map_err(&sql)?;
        tx.execute_batch(step).map_err(&sql)?;
        tx.execute("INSERT INTO migrations (version) VALUES (?1)", [version])
            .map_err(&sql)?;
        tx.commit().map_err(&sql)?;
    }
    Ok(())
}
