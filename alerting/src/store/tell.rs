//! Fills the outbox: which receivers are told about an incident now, decided by [`crate::dedup`].

use std::collections::BTreeMap;

use event::{Id, Severity, Time};

use super::StoreError;
use super::db::Tx;
use super::rows::{self, run};
use crate::alert::{Alert, State};
use crate::dedup::{self, NotifyReason, Told, View};
use crate::matcher::Labels;
use crate::outbox::GIVE_UP_AFTER;
use crate::policy::Policy;
use crate::silence::{Silence, silenced};

/// How an incident looks to a receiver, with what is needed to tell it.
#[derive(Default)]
struct Seen {
    view: View,
    /// The worst audible alert, the earliest of several.
    worst: Option<Id>,
    repeat: Option<i64>,
}

struct Past {
    alert: Id,
    severity: Severity,
    resolved: bool,
    at: Time,
}

/// Decides for every receiver of an incident, and when time alone may change the answer. `alerts` are the incident's,
/// merged ones excepted, in the order of opening. Gives how many notifications were put into the outbox.
pub(super) fn evaluate(
    tx: &Tx<'_>,
    policy: &Policy,
    incident: Id,
    alerts: &[Alert],
    now: Time,
) -> Result<u64, StoreError> {
    let silences = load_silences(tx, now)?;
    let mut seen = views(policy, alerts, &silences, now);
    let past = load_told(tx, incident)?;
    for receiver in past.keys() {
        seen.entry(receiver.clone()).or_default();
    }
    let mut enqueued = 0;
    let mut check_at: Option<i64> = None;
    for (name, seen) in &seen {
        let Some(receiver) = policy.receiver(name) else {
            continue;
        };
        let past = past.get(name);
        let told = match past {
            None => None,
            Some(past) => Some(Told {
                severity: past.severity,
                resolved: past.resolved,
                at: past.at,
                outstanding: is_outstanding(tx, incident, name)?,
            }),
        };
        if let Some(reason) = dedup::decide(seen.view, told, seen.repeat, now) {
            let alert = seen.worst.or(past.map(|p| p.alert)).unwrap_or(incident);
            let severity = match reason {
                NotifyReason::Resolved => told.map_or(seen.view.severity, |t| t.severity),
                NotifyReason::Repeat => {
                    told.map_or(seen.view.severity, |t| t.severity.max(seen.view.severity))
                }
                _ => seen.view.severity,
            };
            let wanted = reason != NotifyReason::Resolved || receiver.send_resolved;
            let news = News {
                incident,
                receiver: name,
                alert,
                reason,
                severity,
            };
            if wanted && !(reason == NotifyReason::SeverityRose && raise_pending(tx, &news)?) {
                let wait = match reason {
                    NotifyReason::First | NotifyReason::Reopened => policy.group_wait,
                    _ => 0,
                };
                enqueue(tx, &news, None, now.plus(wait), now)?;
                enqueued += 1;
            }
            save_told(tx, &news, now)?;
        }
        if seen.view.firing > 0 {
            let last = match told {
                Some(told) => told.at.max(now.plus(-seen.repeat.unwrap_or(0))),
                None => now,
            };
            let due = seen.repeat.map(|repeat| last.plus(repeat).0.max(now.0 + 1));
            check_at = [check_at, due].into_iter().flatten().min();
        }
    }
    if alerts.iter().any(Alert::is_open) {
        let bounds = silences.iter().flat_map(|s| [s.starts.0, s.ends.0]);
        check_at = bounds.filter(|t| *t > now.0).chain(check_at).min();
    }
    run(
        tx,
        "UPDATE incidents SET check_at = ?2 WHERE id = ?1",
        &[incident.into(), check_at.into()],
    )?;
    Ok(enqueued)
}

fn views(
    policy: &Policy,
    alerts: &[Alert],
    silences: &[Silence],
    now: Time,
) -> BTreeMap<String, Seen> {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let Some(route) = &policy.route else {
        return seen;
    };
    for alert in alerts.iter().filter(|a| a.is_open()) {
        let labels = Labels::of(alert);
        let quiet = silenced(silences, &labels, alert.severity, now).is_some();
        for target in route.targets(&labels) {
            let seen = seen.entry(target.receiver).or_default();
            seen.view.open += 1;
            seen.repeat = [seen.repeat, target.repeat].into_iter().flatten().min();
            if quiet {
                continue;
            }
            if seen.view.audible == 0 || alert.severity > seen.view.severity {
                seen.worst = Some(alert.id);
                seen.view.severity = alert.severity;
            }
            seen.view.audible += 1;
            seen.view.firing += u64::from(alert.state == State::Firing);
        }
    }
    seen
}

/// Silences that are in force or will be.
fn load_silences(tx: &Tx<'_>, now: Time) -> Result<Vec<Silence>, StoreError> {
    let sql = format!(
        "SELECT {} FROM silences WHERE ends > ?1 ORDER BY id",
        rows::SILENCE
    );
    rows::all(tx, &sql, &[now.into()], rows::silence)
}

fn load_told(tx: &Tx<'_>, incident: Id) -> Result<BTreeMap<String, Past>, StoreError> {
    let sql = "SELECT receiver, alert, severity, resolved, at FROM told WHERE incident = ?1";
    let told = rows::all(tx, sql, &[incident.into()], |r| {
        Ok((
            rows::get::<String>(r, 0)?,
            Past {
                alert: rows::id(r, 1)?,
                severity: rows::severity(r, 2)?,
                resolved: rows::get(r, 3)?,
                at: rows::time(r, 4)?,
            },
        ))
    })?;
    Ok(told.into_iter().collect())
}

fn is_outstanding(tx: &Tx<'_>, incident: Id, receiver: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM outbox WHERE incident = ?1 AND receiver = ?2 \
               AND delivery IN ('pending', 'leased', 'ambiguous') LIMIT 1";
    let found = rows::all(tx, sql, &[incident.into(), receiver.into()], |_| Ok(()))?;
    Ok(!found.is_empty())
}

/// What somebody is to be told.
pub(super) struct News<'a> {
    pub(super) incident: Id,
    pub(super) receiver: &'a str,
    pub(super) alert: Id,
    pub(super) reason: NotifyReason,
    pub(super) severity: Severity,
}

/// A notification that has not been tried yet can simply say the worse severity.
fn raise_pending(tx: &Tx<'_>, news: &News<'_>) -> Result<bool, StoreError> {
    let raised = run(
        tx,
        "UPDATE outbox SET severity = ?3, alert = ?4 WHERE incident = ?1 AND receiver = ?2 AND delivery = 'pending' \
         AND attempts = 0 AND message IS NULL AND reason != 'resolved' \
         AND number = (SELECT MAX(number) FROM outbox WHERE incident = ?1 AND receiver = ?2)",
        &[
            news.incident.into(),
            news.receiver.into(),
            (news.severity as i64).into(),
            news.alert.into(),
        ],
    )?;
    Ok(raised > 0)
}

/// Puts a notification into the outbox, for the first attempt at `at`.
pub(super) fn enqueue(
    tx: &Tx<'_>,
    news: &News<'_>,
    instead_of: Option<&str>,
    at: Time,
    now: Time,
) -> Result<(), StoreError> {
    let key = [news.incident.into(), news.receiver.into()];
    let next = rows::all(
        tx,
        "INSERT INTO numbers (incident, receiver, next) VALUES (?1, ?2, 1) \
         ON CONFLICT (incident, receiver) DO UPDATE SET next = numbers.next + 1 RETURNING next",
        &key,
        |r| rows::get::<i64>(r, 0),
    )?;
    let number = next.first().copied().unwrap_or(1) - 1;
    run(
        tx,
        "INSERT INTO outbox (incident, receiver, number, alert, reason, severity, delivery, created, next_at, \
         give_up_at, instead_of) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'pending', ?7, ?8, ?9, ?10)",
        &[
            news.incident.into(),
            news.receiver.into(),
            number.into(),
            news.alert.into(),
            news.reason.as_str().into(),
            (news.severity as i64).into(),
            now.into(),
            at.into(),
            at.plus(GIVE_UP_AFTER).into(),
            instead_of.into(),
        ],
    )?;
    Ok(())
}

fn save_told(tx: &Tx<'_>, news: &News<'_>, now: Time) -> Result<(), StoreError> {
    run(
        tx,
        "INSERT INTO told (incident, receiver, alert, severity, resolved, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (incident, receiver) DO UPDATE SET alert = ?3, severity = ?4, resolved = ?5, at = ?6",
        &[
            news.incident.into(),
            news.receiver.into(),
            news.alert.into(),
            (news.severity as i64).into(),
            (news.reason == NotifyReason::Resolved).into(),
            now.into(),
        ],
    )?;
    Ok(())
}

/// What receivers were told about two incidents counts for the one that they have become.
pub(super) fn unite(tx: &Tx<'_>, from: Id, to: Id) -> Result<(), StoreError> {
    let ids = [from.into(), to.into()];
    run(
        tx,
        "INSERT INTO told (incident, receiver, alert, severity, resolved, at) \
         SELECT ?2, receiver, alert, severity, resolved, at FROM told WHERE incident = ?1 \
         ON CONFLICT (incident, receiver) DO UPDATE SET \
         severity = CASE WHEN excluded.severity > told.severity THEN excluded.severity ELSE told.severity END, \
         resolved = CASE WHEN excluded.resolved < told.resolved THEN excluded.resolved ELSE told.resolved END, \
         at = CASE WHEN excluded.at > told.at THEN excluded.at ELSE told.at END",
        &ids,
    )?;
    run(
        tx,
        "INSERT INTO numbers (incident, receiver, next) SELECT ?2, receiver, next FROM numbers WHERE incident = ?1 \
         ON CONFLICT (incident, receiver) DO UPDATE SET \
         next = CASE WHEN excluded.next > numbers.next THEN excluded.next ELSE numbers.next END",
        &ids,
    )?;
    run(tx, "DELETE FROM told WHERE incident = ?1", &ids[..1])?;
    run(tx, "DELETE FROM numbers WHERE incident = ?1", &ids[..1])?;
    // Where neither has been told yet, one word says the worse of both.
    const WORSE: &str = "FROM outbox f WHERE f.incident = ?1 AND f.receiver = outbox.receiver AND f.delivery = 'pending' \
                         AND f.attempts = 0 AND f.reason = 'first' AND f.severity > outbox.severity";
    let raise = format!(
        "UPDATE outbox SET severity = (SELECT MAX(f.severity) {WORSE}), alert = (SELECT f.alert {WORSE} ORDER BY f.severity DESC LIMIT 1) \
         WHERE incident = ?2 AND delivery = 'pending' AND attempts = 0 AND message IS NULL AND reason = 'first' \
         AND EXISTS (SELECT 1 {WORSE})"
    );
    run(tx, &raise, &ids)?;
    // A first word about the joined incident that has not gone out is not needed where the other was told already.
    run(
        tx,
        "DELETE FROM outbox WHERE incident = ?1 AND delivery = 'pending' AND attempts = 0 AND reason = 'first' \
         AND EXISTS (SELECT 1 FROM outbox o WHERE o.incident = ?2 AND o.receiver = outbox.receiver \
                     AND o.reason != 'resolved' AND o.severity >= outbox.severity)",
        &ids,
    )?;
    // Two may bear the same number; then the one of the joined incident stays where it is and is sent from there.
    run(
        tx,
        "UPDATE outbox SET incident = ?2 WHERE incident = ?1 AND NOT EXISTS (SELECT 1 FROM outbox o \
         WHERE o.incident = ?2 AND o.receiver = outbox.receiver AND o.number = outbox.number)",
        &ids,
    )?;
    run(
        tx,
        "UPDATE incidents SET check_at = NULL WHERE id = ?1",
        &ids[..1],
    )?;
    Ok(())
}

/// Incidents for which time alone may have changed what receivers are to be told.
pub(super) fn due(tx: &Tx<'_>, now: Time) -> Result<Vec<Id>, StoreError> {
    let sql = "SELECT id FROM incidents WHERE check_at <= ?1 ORDER BY check_at, seq LIMIT 500";
    rows::all(tx, sql, &[now.into()], |r| rows::id(r, 0))
}

/// Looks at every open incident again on the next tick.
pub(super) fn check_all(tx: &Tx<'_>) -> Result<(), StoreError> {
    run(
        tx,
        "UPDATE incidents SET check_at = 0 WHERE state != 'resolved' AND merged_into IS NULL",
        &[],
    )?;
    Ok(())
}
