//! Types in and out of rows: the only place that knows which column holds what.

use event::{Id, Severity, Time};

use super::db::{Column, Row, Tx, Value};
use super::{Delivery, Notification, StoreError};
use crate::alert::{Action, Alert, Comment, HistoryEntry, Incident, State};
use crate::dedup::NotifyReason;
use crate::saved::SavedSearch;
use crate::silence::Silence;

/// The columns that [`alert`] reads.
pub(super) const ALERT: &str = "seq, data";
/// The columns that [`incident`] reads.
pub(super) const INCIDENT: &str = "seq, data";
/// The columns that [`notification`] reads.
pub(super) const NOTIFICATION: &str = "id, incident, alert, receiver, number, reason, severity, delivery, attempts, \
     ambiguous, created, next_at, sent, error, instead_of";
/// The columns that [`silence`] reads.
pub(super) const SILENCE: &str =
    "id, matchers, starts, ends, author, comment, created, expired_by, broad";

/// A row that cannot be read is damage, told as such and not passed over.
fn damaged(what: &'static str) -> impl Fn(serde_json::Error) -> StoreError {
    move |source| StoreError::Damaged { what, source }
}

/// Reads all rows of a query, each as `read` does.
pub(super) fn all<T>(
    tx: &Tx<'_>,
    sql: &str,
    params: &[Value<'_>],
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    tx.all(sql, params, read)
}

/// Runs a statement; tells how many rows it changed.
pub(super) fn run(tx: &Tx<'_>, sql: &str, params: &[Value<'_>]) -> Result<usize, StoreError> {
    tx.run(sql, params)
}

/// The value of a column.
pub(super) fn get<T: Column>(row: &Row<'_>, i: usize) -> Result<T, StoreError> {
    row.get(i)
}

/// The id in a column.
pub(super) fn id(row: &Row<'_>, i: usize) -> Result<Id, StoreError> {
    Ok(Id::from_bytes(get(row, i)?))
}

/// The time in a column.
pub(super) fn time(row: &Row<'_>, i: usize) -> Result<Time, StoreError> {
    Ok(Time(get(row, i)?))
}

/// The severity in a column.
pub(super) fn severity(row: &Row<'_>, i: usize) -> Result<Severity, StoreError> {
    let rank: usize = get::<i64>(row, i)? as usize;
    Ok(Severity::ALL[rank.min(Severity::ALL.len() - 1)])
}

/// The alert in a row of [`ALERT`].
pub(super) fn alert(row: &Row<'_>) -> Result<Alert, StoreError> {
    let data: String = get(row, 1)?;
    let mut alert: Alert = serde_json::from_str(&data).map_err(damaged("alert"))?;
    alert.seq = get::<i64>(row, 0)? as u64;
    Ok(alert)
}

/// The incident in a row of [`INCIDENT`].
pub(super) fn incident(row: &Row<'_>) -> Result<Incident, StoreError> {
    let data: String = get(row, 1)?;
    let mut incident: Incident = serde_json::from_str(&data).map_err(damaged("incident"))?;
    incident.seq = get::<i64>(row, 0)? as u64;
    Ok(incident)
}

/// The silence in a row of [`SILENCE`].
pub(super) fn silence(row: &Row<'_>) -> Result<Silence, StoreError> {
    let texts: Vec<String> =
        serde_json::from_str(&get::<String>(row, 1)?).map_err(damaged("silence"))?;
    let matchers = texts
        .iter()
        .map(|m| m.parse())
        .collect::<Result<_, crate::matcher::MatcherError>>()
        .map_err(crate::silence::SilenceError::from)?;
    Ok(Silence {
        id: get::<i64>(row, 0)? as u64,
        matchers,
        starts: time(row, 2)?,
        ends: time(row, 3)?,
        author: get(row, 4)?,
        comment: get(row, 5)?,
        created: time(row, 6)?,
        expired_by: get(row, 7)?,
        broad: get(row, 8)?,
    })
}

/// The saved search in a row of its JSON.
pub(super) fn saved_search(row: &Row<'_>) -> Result<SavedSearch, StoreError> {
    serde_json::from_str(&get::<String>(row, 0)?).map_err(damaged("saved search"))
}

/// The notification in a row of [`NOTIFICATION`].
pub(super) fn notification(row: &Row<'_>) -> Result<Notification, StoreError> {
    let reason: String = get(row, 5)?;
    let delivery: String = get(row, 7)?;
    Ok(Notification {
        id: get::<i64>(row, 0)? as u64,
        incident: id(row, 1)?,
        alert: id(row, 2)?,
        receiver: get(row, 3)?,
        number: get::<i64>(row, 4)? as u64,
        reason: NotifyReason::parse(&reason).unwrap_or(NotifyReason::First),
        severity: severity(row, 6)?,
        delivery: Delivery::parse(&delivery).unwrap_or(Delivery::Dead),
        attempts: get(row, 8)?,
        ambiguous: get(row, 9)?,
        created: time(row, 10)?,
        next_at: time(row, 11)?,
        sent: get::<Option<i64>>(row, 12)?.map(Time),
        error: get(row, 13)?,
        instead_of: get(row, 14)?,
    })
}

/// The line of history in a row of `at, who, action, detail`.
pub(super) fn history_entry(row: &Row<'_>) -> Result<HistoryEntry, StoreError> {
    let action: String = get(row, 2)?;
    Ok(HistoryEntry {
        at: time(row, 0)?,
        who: get(row, 1)?,
        action: Action::parse(&action).unwrap_or(Action::Notified),
        detail: get(row, 3)?,
    })
}

/// One alert by its id.
pub(super) fn load_alert(tx: &Tx<'_>, id: Id) -> Result<Option<Alert>, StoreError> {
    let sql = format!("SELECT {ALERT} FROM alerts WHERE id = ?1");
    Ok(all(tx, &sql, &[id.into()], alert)?.pop())
}

/// One incident by its id.
pub(super) fn load_incident(tx: &Tx<'_>, id: Id) -> Result<Option<Incident>, StoreError> {
    let sql = format!("SELECT {INCIDENT} FROM incidents WHERE id = ?1");
    Ok(all(tx, &sql, &[id.into()], incident)?.pop())
}

/// Writes a new alert and gives it its number.
pub(super) fn insert_alert(
    tx: &Tx<'_>,
    alert: &mut Alert,
    fold_key: Option<Id>,
) -> Result<(), StoreError> {
    let seq = all(
        tx,
        "INSERT INTO alerts (id, incident, state, severity, rule_id, account, fold_key, first, last, updated, grown,          search, data) VALUES (?1, ?2, '', 0, ?3, ?4, ?5, 0, 0, 0, 0, '', '') RETURNING seq",
        &[
            alert.id.into(),
            alert.incident.into(),
            alert.rule_id.as_str().into(),
            alert.account.as_str().into(),
            fold_key.into(),
        ],
        |r| get::<i64>(r, 0),
    )?;
    alert.seq = seq.first().map_or(0, |seq| *seq as u64);
    save_alert(tx, alert)
}

/// Writes an alert that is already there.
pub(super) fn save_alert(tx: &Tx<'_>, alert: &Alert) -> Result<(), StoreError> {
    let data = serde_json::to_string(alert).map_err(damaged("alert"))?;
    run(
        tx,
        "UPDATE alerts SET incident = ?2, state = ?3, severity = ?4, first = ?5, last = ?6, updated = ?7, grown = ?8,          merged_into = ?9, search = ?10, data = ?11 WHERE id = ?1",
        &[
            alert.id.into(),
            alert.incident.into(),
            alert.state.as_str().into(),
            (alert.severity as i64).into(),
            alert.finding.first_event_time.into(),
            alert.finding.last_event_time.into(),
            alert.updated.into(),
            alert.grown.into(),
            alert.merged_into.into(),
            (&search_text(alert)).into(),
            (&data).into(),
        ],
    )?;
    Ok(())
}

/// Writes an incident, new or not.
pub(super) fn save_incident(tx: &Tx<'_>, incident: &Incident) -> Result<(), StoreError> {
    let data = serde_json::to_string(incident).map_err(damaged("incident"))?;
    run(
        tx,
        "INSERT INTO incidents (id, state, merged_into, updated, data) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (id) DO UPDATE SET state = ?2, merged_into = ?3, updated = ?4, data = ?5",
        &[
            incident.id.into(),
            incident.state.as_str().into(),
            incident.merged_into.into(),
            incident.updated.into(),
            (&data).into(),
        ],
    )?;
    Ok(())
}

/// Adds a line to an alert's history.
pub(super) fn add_history(
    tx: &Tx<'_>,
    alert: Id,
    at: Time,
    who: &str,
    action: Action,
    detail: &str,
) -> Result<(), StoreError> {
    run(
        tx,
        "INSERT INTO history (alert, at, who, action, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
        &[
            alert.into(),
            at.into(),
            who.into(),
            action.as_str().into(),
            detail.into(),
        ],
    )?;
    Ok(())
}

/// Tells live pages that an alert changed.
pub(super) fn add_feed(
    tx: &Tx<'_>,
    alert: &Alert,
    at: Time,
    opened: bool,
) -> Result<(), StoreError> {
    let added = all(
        tx,
        "INSERT INTO feed (at, alert, incident, opened) VALUES (?1, ?2, ?3, ?4) RETURNING id",
        &[
            at.into(),
            alert.id.into(),
            alert.incident.into(),
            opened.into(),
        ],
        |r| get::<i64>(r, 0),
    )?;
    for id in added {
        tx.fed(id as u64);
    }
    Ok(())
}

/// The alert that a merged one has become part of, or the alert itself.
pub(super) fn resolve_merged(tx: &Tx<'_>, id: Id) -> Result<Option<Alert>, StoreError> {
    let mut found = load_alert(tx, id)?;
    // A chain is as long as there were merges; a circle cannot arise, since merging goes to the earlier one.
    while let Some(into) = found.as_ref().and_then(|a| a.merged_into) {
        found = load_alert(tx, into)?;
    }
    Ok(found)
}

/// A single optional id.
pub(super) fn one_id(
    tx: &Tx<'_>,
    sql: &str,
    params: &[Value<'_>],
) -> Result<Option<Id>, StoreError> {
    let found = all(tx, sql, params, |r| get::<Option<[u8; 16]>>(r, 0))?;
    Ok(found.first().copied().flatten().map(Id::from_bytes))
}

fn search_text(alert: &Alert) -> String {
    let finding = &alert.finding;
    let group = alert.group.values().flatten().map(event::Str::as_str);
    [
        &alert.title,
        &alert.rule_id,
        &alert.actor,
        &alert.identity,
        &alert.account,
        &alert.region,
        &alert.source,
        &finding.src_ip,
        &finding.session,
        &finding.access_key,
        &finding.action,
        &finding.function,
    ]
    .into_iter()
    .map(event::Str::as_str)
    .chain(group)
    .chain(finding.resources.iter().map(event::Str::as_str))
    .filter(|s| !s.is_empty())
    .collect::<Vec<_>>()
    .join("\n")
    .to_lowercase()
}

impl Delivery {
    /// The word as it stands in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Delivery::Pending => "pending",
            Delivery::Leased => "leased",
            Delivery::Sent => "sent",
            Delivery::Ambiguous => "ambiguous",
            Delivery::Dead => "dead",
        }
    }

    /// The delivery of a word.
    pub fn parse(word: &str) -> Option<Delivery> {
        [
            Delivery::Pending,
            Delivery::Leased,
            Delivery::Sent,
            Delivery::Ambiguous,
            Delivery::Dead,
        ]
        .into_iter()
        .find(|d| d.as_str() == word)
    }
}

/// A comment, as [`Alert`] keeps it.
pub(super) fn comment(who: &str, text: &str, at: Time) -> Comment {
    Comment {
        at,
        who: who.to_owned(),
        text: text.to_owned(),
    }
}

/// Is the alert over by its state alone?
pub(super) fn is_over(alert: &Alert) -> bool {
    alert.state == State::Resolved
}
