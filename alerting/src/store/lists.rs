//! What the console reads: lists with cursors, single things, the feed; and what retention drops.

use event::{Id, Time};

use super::db::{Tx, Value};
use super::rows::{self, run};
use super::{Counts, Filter, Notification, NotificationFilter, Store, StoreError};
use crate::alert::{Alert, FeedEntry, HistoryEntry, Incident};
use crate::silence::Silence;

const MAX_LIMIT: usize = 1_000;
/// How long the feed remembers, in microseconds: whoever was away longer reads the list again.
const FEED_KEPT: i64 = 7 * 86_400_000_000;
/// How many alerts one call of `retain` drops at most, so that the writer is not held for long.
const RETAIN_AT_ONCE: i64 = 1_000;

/// A query grown from the parts of a filter.
#[derive(Default)]
struct Query<'a> {
    conditions: Vec<String>,
    values: Vec<Value<'a>>,
}

impl<'a> Query<'a> {
    /// Adds a condition; each `?` in it stands for one of the values.
    fn add(&mut self, condition: &str, values: impl IntoIterator<Item = Value<'a>>) {
        let mut parts = condition.split('?');
        let mut numbered = parts.next().unwrap_or_default().to_owned();
        for (value, part) in values.into_iter().zip(parts) {
            self.values.push(value);
            numbered.push_str(&format!("?{}{part}", self.values.len()));
        }
        self.conditions.push(numbered);
    }

    /// The statement and its parameters, the limit among them so that the statement is the same for all.
    fn sql(
        mut self,
        columns: &str,
        table: &str,
        order: &str,
        limit: usize,
    ) -> (String, Vec<Value<'a>>) {
        let limit = if limit == 0 {
            100
        } else {
            limit.min(MAX_LIMIT)
        };
        self.values.push((limit as i64).into());
        let conditions = match self.conditions.as_slice() {
            [] => "TRUE".to_owned(),
            some => some.join(" AND "),
        };
        let sql = format!(
            "SELECT {columns} FROM {table} WHERE {conditions} ORDER BY {order} DESC LIMIT ?{}",
            self.values.len()
        );
        (sql, self.values)
    }
}

fn marks(n: usize) -> String {
    vec!["?"; n].join(", ")
}

impl Store {
    /// Alerts, newest first; comments included.
    pub fn alerts(&self, filter: &Filter) -> Result<Vec<Alert>, StoreError> {
        let mut query = Query::default();
        if !filter.merged {
            query.add("merged_into IS NULL", []);
        }
        if !filter.states.is_empty() {
            let states = filter.states.iter().map(|s| s.as_str().into());
            query.add(
                &format!("state IN ({})", marks(filter.states.len())),
                states,
            );
        }
        if let Some(least) = filter.min_severity {
            query.add("severity >= ?", [(least as i64).into()]);
        }
        if let Some(rule) = &filter.rule_id {
            query.add("rule_id = ?", [rule.into()]);
        }
        if let Some(account) = &filter.account {
            query.add("account = ?", [account.into()]);
        }
        if let Some(incident) = filter.incident {
            query.add("incident = ?", [incident.into()]);
        }
        if let Some((from, to)) = filter.within {
            query.add("last >= ? AND first <= ?", [from.into(), to.into()]);
        }
        let text = filter.text.trim().to_lowercase();
        if !text.is_empty() {
            query.add("instr(search, ?) > 0", [(&text).into()]);
        }
        if let Some(before) = filter.before {
            query.add("seq < ?", [(before as i64).into()]);
        }
        let (sql, values) = query.sql(rows::ALERT, "alerts", "seq", filter.limit);
        self.read("list alerts", |tx| {
            rows::all(tx, &sql, &values, rows::alert)
        })
    }

    /// How many alerts are open.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        let sql = "SELECT severity, state = 'firing', COUNT(*) FROM alerts \
                   WHERE state != 'resolved' AND merged_into IS NULL GROUP BY 1, 2";
        self.read("count alerts", |tx| {
            let mut counts = Counts::default();
            for (severity, firing, n) in rows::all(tx, sql, &[], |r| {
                Ok((
                    rows::severity(r, 0)?,
                    rows::get::<bool>(r, 1)?,
                    rows::get::<i64>(r, 2)?,
                ))
            })? {
                counts.open[severity as usize] += n as u64;
                counts.firing += if firing { n as u64 } else { 0 };
            }
            Ok(counts)
        })
    }

    /// One alert, also one that has become part of another.
    pub fn alert(&self, id: Id) -> Result<Option<Alert>, StoreError> {
        self.read("read an alert", |tx| rows::load_alert(tx, id))
    }

    /// The alert that the finding `id` belongs to, and what that has become part of.
    pub fn alert_of_finding(&self, id: Id) -> Result<Option<Alert>, StoreError> {
        let sql = "SELECT alert FROM findings WHERE id = ?1";
        self.read("find an alert", |tx| {
            match rows::one_id(tx, sql, &[id.into()])? {
                Some(alert) => rows::resolve_merged(tx, alert),
                None => Ok(None),
            }
        })
    }

    /// What happened to an alert, oldest first.
    pub fn history(&self, id: Id) -> Result<Vec<HistoryEntry>, StoreError> {
        let sql =
            "SELECT at, who, action, detail FROM history WHERE alert = ?1 ORDER BY id LIMIT 10000";
        self.read("read a history", |tx| {
            rows::all(tx, sql, &[id.into()], rows::history_entry)
        })
    }

    /// Incidents, newest first: with a smaller `seq` than `before`, at most `limit` (0 for 100, never more than 1000).
    pub fn incidents(
        &self,
        open_only: bool,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Incident>, StoreError> {
        let mut query = Query::default();
        query.add("merged_into IS NULL", []);
        if open_only {
            query.add("state != 'resolved'", []);
        }
        if let Some(before) = before {
            query.add("seq < ?", [(before as i64).into()]);
        }
        let (sql, values) = query.sql(rows::INCIDENT, "incidents", "seq", limit);
        self.read("list incidents", |tx| {
            rows::all(tx, &sql, &values, rows::incident)
        })
    }

    /// One incident, also one that has become part of another.
    pub fn incident(&self, id: Id) -> Result<Option<Incident>, StoreError> {
        self.read("read an incident", |tx| rows::load_incident(tx, id))
    }

    /// Silences, latest end first; with `ended_too` also those that are over.
    pub fn silences(&self, ended_too: bool, now: Time) -> Result<Vec<Silence>, StoreError> {
        let mut query = Query::default();
        if !ended_too {
            query.add("ends > ?", [now.into()]);
        }
        let (sql, values) = query.sql(rows::SILENCE, "silences", "ends DESC, id", MAX_LIMIT);
        self.read("list silences", |tx| {
            rows::all(tx, &sql, &values, rows::silence)
        })
    }

    /// Notifications, newest first.
    pub fn notifications(
        &self,
        filter: &NotificationFilter,
    ) -> Result<Vec<Notification>, StoreError> {
        let mut query = Query::default();
        if !filter.deliveries.is_empty() {
            let words = filter.deliveries.iter().map(|d| d.as_str().into());
            query.add(
                &format!("delivery IN ({})", marks(filter.deliveries.len())),
                words,
            );
        }
        if let Some(alert) = filter.alert {
            let own = "(alert = ? OR incident = (SELECT incident FROM alerts WHERE id = ?))";
            query.add(own, [alert.into(), alert.into()]);
        }
        if let Some(before) = filter.before {
            query.add("id < ?", [(before as i64).into()]);
        }
        let (sql, values) = query.sql(rows::NOTIFICATION, "outbox", "id", filter.limit);
        self.read("list notifications", |tx| {
            rows::all(tx, &sql, &values, rows::notification)
        })
    }

    /// What changed after feed entry `after`, oldest first, at most 1000.
    pub fn feed(&self, after: u64) -> Result<Vec<FeedEntry>, StoreError> {
        let sql =
            "SELECT id, at, alert, incident, opened FROM feed WHERE id > ?1 ORDER BY id LIMIT 1000";
        self.read("read the feed", |tx| {
            rows::all(tx, sql, &[(after as i64).into()], |r| {
                Ok(FeedEntry {
                    id: rows::get::<i64>(r, 0)? as u64,
                    at: rows::time(r, 1)?,
                    alert: rows::id(r, 2)?,
                    incident: rows::id(r, 3)?,
                    opened: rows::get(r, 4)?,
                })
            })
        })
    }

    /// Drops what is older than the retention, a bounded part of it at a time. Gives how many alerts went; call again
    /// while that is not 0.
    pub fn retain(&self, now: Time) -> Result<u64, StoreError> {
        let before = now.plus(-self.policy().retention);
        self.write("drop what is old", |tx| {
            let sql = "SELECT id FROM alerts WHERE state = 'resolved' AND updated < ?1 ORDER BY updated LIMIT ?2";
            let old = rows::all(tx, sql, &[before.into(), RETAIN_AT_ONCE.into()], |r| rows::id(r, 0))?;
            for id in &old {
                for sql in [
                    "DELETE FROM findings WHERE alert = ?1",
                    "DELETE FROM history WHERE alert = ?1",
                    "DELETE FROM waiting_merges WHERE alert = ?1",
                    "DELETE FROM alerts WHERE id = ?1",
                ] {
                    run(tx, sql, &[(*id).into()])?;
                }
            }
            drop_leftovers(tx, before)?;
            run(tx, "DELETE FROM feed WHERE at < ?1", &[now.plus(-FEED_KEPT).into()])?;
            Ok(old.len() as u64)
        })
    }
}

/// What belonged to alerts that are gone, and what is old by itself.
fn drop_leftovers(tx: &Tx<'_>, before: Time) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM incidents WHERE state = 'resolved' AND updated < ?1 \
         AND NOT EXISTS (SELECT 1 FROM alerts WHERE incident = incidents.id)",
        "DELETE FROM incident_spans WHERE last < ?1 AND NOT EXISTS (SELECT 1 FROM incidents WHERE id = incident)",
        "DELETE FROM outbox WHERE created < ?1 AND delivery IN ('sent', 'dead')",
        "DELETE FROM silences WHERE ends < ?1",
    ] {
        run(tx, sql, &[before.into()])?;
    }
    for sql in [
        "DELETE FROM told WHERE NOT EXISTS (SELECT 1 FROM incidents WHERE id = incident)",
        "DELETE FROM numbers WHERE NOT EXISTS (SELECT 1 FROM incidents WHERE id = incident)",
    ] {
        run(tx, sql, &[])?;
    }
    Ok(())
}
