//! What the sending threads do with the outbox: take a notification for a while, fix its message, settle it.

use event::Time;

use super::apply::PROGRAM;
use super::db::Tx;
use super::rows::{self, add_history, run};
use super::tell::{self, News};
use super::{Delivery, Notification, Store, StoreError};
use crate::alert::{Action, Alert, Incident};
use crate::outbox::Outcome;

/// A notification taken for sending: nobody else sends it until the lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// The notification.
    pub notification: Notification,
    /// When it is given up.
    pub give_up_at: Time,
    /// The message fixed at the first attempt; `None` before that.
    pub message: Option<String>,
}

/// What a message tells about, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) incident: Incident,
    /// The alert that gave the reason.
    pub(crate) alert: Alert,
    /// The alerts of the incident, worst first, then in the order of opening.
    pub(crate) alerts: Vec<Alert>,
}

/// The most alerts of an incident that a message lists.
const MAX_ALERTS: usize = 20;

impl Store {
    /// Takes the next notification that is due for a receiver, for `lease` microseconds. Notifications of one incident
    /// to one receiver go out in their order. A lease that ended without a word means that the answer was lost.
    pub fn lease(
        &self,
        receiver: &str,
        lease: i64,
        now: Time,
    ) -> Result<Option<Leased>, StoreError> {
        let due = "SELECT o.id FROM outbox o WHERE o.receiver = ?1 AND o.delivery IN ('pending', 'leased', 'ambiguous') \
                   AND o.next_at <= ?2 AND o.lease_until <= ?2 AND NOT EXISTS (SELECT 1 FROM outbox e \
                   WHERE e.incident = o.incident AND e.receiver = o.receiver AND e.number < o.number \
                   AND e.delivery IN ('pending', 'leased', 'ambiguous')) ORDER BY o.next_at, o.id LIMIT 1";
        let found = self.read("look at the outbox", |tx| {
            rows::all(tx, due, &[receiver.into(), now.into()], |r| {
                rows::get::<i64>(r, 0)
            })
        })?;
        if found.is_empty() {
            return Ok(None);
        }
        self.write("take a notification", |tx| {
            let ids = rows::all(tx, due, &[receiver.into(), now.into()], |r| rows::get::<i64>(r, 0))?;
            let Some(id) = ids.first() else {
                return Ok(None);
            };
            run(
                tx,
                "UPDATE outbox SET ambiguous = ambiguous + CASE WHEN delivery = 'leased' THEN 1 ELSE 0 END, \
                 delivery = 'leased', attempts = attempts + 1, lease_until = ?2 WHERE id = ?1",
                &[(*id).into(), now.plus(lease).into()],
            )?;
            let sql = format!("SELECT {}, give_up_at, message FROM outbox WHERE id = ?1", rows::NOTIFICATION);
            let leased = rows::all(tx, &sql, &[(*id).into()], |r| {
                Ok(Leased {
                    notification: rows::notification(r)?,
                    give_up_at: rows::time(r, 15)?,
                    message: rows::get(r, 16)?,
                })
            })?;
            Ok(leased.into_iter().next())
        })
    }

    /// What a notification tells about, as it stands now. `None` where it is no longer kept.
    pub(crate) fn subject(
        &self,
        notification: &Notification,
    ) -> Result<Option<Subject>, StoreError> {
        self.read("read an incident", |tx| {
            let mut incident = rows::load_incident(tx, notification.incident)?;
            while let Some(into) = incident.as_ref().and_then(|i| i.merged_into) {
                incident = rows::load_incident(tx, into)?;
            }
            let alert = rows::resolve_merged(tx, notification.alert)?;
            let (Some(incident), Some(alert)) = (incident, alert) else {
                return Ok(None);
            };
            let sql = format!(
                "SELECT {} FROM alerts WHERE incident = ?1 AND merged_into IS NULL \
                 ORDER BY severity DESC, seq LIMIT {MAX_ALERTS}",
                rows::ALERT
            );
            let alerts = rows::all(tx, &sql, &[incident.id.into()], rows::alert)?;
            Ok(Some(Subject {
                incident,
                alert,
                alerts,
            }))
        })
    }

    /// Fixes what is sent, so that every attempt sends the same.
    pub(crate) fn fix_message(&self, id: u64, message: &str) -> Result<(), StoreError> {
        self.write("fix a message", |tx| {
            let sql = "UPDATE outbox SET message = ?2 WHERE id = ?1 AND message IS NULL";
            run(tx, sql, &[(id as i64).into(), message.into()]).map(|_| ())
        })
    }

    /// Writes down what became of a notification. Tells `false` where the lease had ended and somebody else has it.
    /// What is dead goes to the fallback receiver, if there is one.
    pub fn settle(
        &self,
        notification: &Notification,
        outcome: &Outcome,
        now: Time,
    ) -> Result<bool, StoreError> {
        let policy = self.policy();
        self.write("settle a notification", |tx| {
            let (delivery, at, error, doubt) = match outcome {
                Outcome::Sent => (Delivery::Sent, now, "", false),
                Outcome::Retry {
                    at,
                    ambiguous: true,
                    error,
                } => (Delivery::Ambiguous, *at, error.as_str(), true),
                Outcome::Retry { at, error, .. } => (Delivery::Pending, *at, error.as_str(), false),
                Outcome::Dead { error } => (Delivery::Dead, now, error.as_str(), false),
            };
            let settled = run(
                tx,
                "UPDATE outbox SET delivery = ?3, next_at = ?4, lease_until = 0, error = ?5, ambiguous = ambiguous + ?6, \
                 sent = ?7 WHERE id = ?1 AND attempts = ?2 AND delivery = 'leased'",
                &[
                    (notification.id as i64).into(),
                    notification.attempts.into(),
                    delivery.as_str().into(),
                    at.into(),
                    error.into(),
                    doubt.into(),
                    (delivery == Delivery::Sent).then_some(now).into(),
                ],
            )?;
            if settled == 0 {
                return Ok(false);
            }
            let receiver = &notification.receiver;
            let reason = notification.reason.as_str();
            let detail = match delivery {
                Delivery::Sent => format!("{receiver}: {reason}"),
                Delivery::Dead => format!("{receiver}: {reason}, given up: {error}"),
                _ => return Ok(true),
            };
            add_history(tx, notification.alert, now, PROGRAM, Action::Notified, &detail)?;
            let fallback = policy.receiver(receiver).and_then(|r| r.fallback.as_deref());
            if let (Delivery::Dead, Some(fallback), None) =
                (delivery, fallback, &notification.instead_of)
            {
                fall_back(tx, notification, fallback, now)?;
            }
            Ok(true)
        })
    }

    /// Gives up what waits for receivers other than these: they are no longer configured. Gives how many.
    pub fn bury_unknown(&self, receivers: &[&str]) -> Result<u64, StoreError> {
        self.write("give up notifications", |tx| {
            let sql = "SELECT DISTINCT receiver FROM outbox WHERE delivery IN ('pending', 'leased', 'ambiguous')";
            let mut buried = 0;
            for receiver in rows::all(tx, sql, &[], |r| rows::get::<String>(r, 0))? {
                if !receivers.contains(&receiver.as_str()) {
                    let sql = "UPDATE outbox SET delivery = 'dead', error = 'the receiver is no longer configured' \
                               WHERE delivery IN ('pending', 'leased', 'ambiguous') AND receiver = ?1";
                    buried += run(tx, sql, &[(&receiver).into()])? as u64;
                }
            }
            Ok(buried)
        })
    }

    /// How many notifications wait or are being sent, and how many are dead.
    pub fn outbox_depth(&self) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT (SELECT COUNT(*) FROM outbox WHERE delivery IN ('pending', 'leased', 'ambiguous')), \
                   (SELECT COUNT(*) FROM outbox WHERE delivery = 'dead')";
        let found = self.read("look at the outbox", |tx| {
            rows::all(tx, sql, &[], |r| {
                Ok((
                    rows::get::<i64>(r, 0)? as u64,
                    rows::get::<i64>(r, 1)? as u64,
                ))
            })
        })?;
        Ok(found.first().copied().unwrap_or_default())
    }
}

fn fall_back(
    tx: &Tx<'_>,
    dead: &Notification,
    fallback: &str,
    now: Time,
) -> Result<(), StoreError> {
    let news = News {
        incident: dead.incident,
        receiver: fallback,
        alert: dead.alert,
        reason: dead.reason,
        severity: dead.severity,
    };
    tell::enqueue(tx, &news, Some(&dead.receiver), now, now)
}
