//! What people do through the console: take, give, comment on and resolve alerts, and silence them.

use event::{Id, Time};

use super::apply::Work;
use super::db::Tx;
use super::rows::{self, add_history, load_alert, run};
use super::{Delivery, Notification, Store, StoreError, tell};
use crate::alert::{Action, Alert, State};
use crate::fold::MAX_COMMENTS;
use crate::outbox::GIVE_UP_AFTER;
use crate::silence::{self, NewSilence, Silence};

const MAX_TEXT: usize = 8_192;
const MAX_NAME: usize = 256;

/// What a change of an alert was: for its history.
struct Done {
    action: Action,
    detail: String,
}

impl Store {
    /// Somebody takes an alert: it fires no more reminders. `version` is the one that was seen; `None` for any.
    pub fn acknowledge(
        &self,
        id: Id,
        who: &str,
        version: Option<u64>,
        now: Time,
    ) -> Result<Alert, StoreError> {
        self.change(id, who, version, now, |alert| match alert.state {
            State::Resolved => Err(StoreError::Refused("the alert is resolved")),
            State::Acknowledged | State::Firing => Ok(take(alert, who)),
        })
    }

    /// Somebody takes all alerts of an incident that fire now. Gives how many there were.
    pub fn acknowledge_incident(&self, id: Id, who: &str, now: Time) -> Result<u64, StoreError> {
        self.change_incident(id, who, now, |alert| take(alert, who))
    }

    /// Resolves all alerts of an incident that are open now, with a reason if there is one. Gives how many there were.
    pub fn resolve_incident(
        &self,
        id: Id,
        who: &str,
        reason: &str,
        now: Time,
    ) -> Result<u64, StoreError> {
        check_reason(reason)?;
        self.change_incident(id, who, now, |alert| end(alert, who, reason, now))
    }

    /// Gives an alert to somebody; an empty assignee to nobody.
    pub fn assign(
        &self,
        id: Id,
        who: &str,
        assignee: &str,
        version: Option<u64>,
        now: Time,
    ) -> Result<Alert, StoreError> {
        if assignee.len() > MAX_NAME {
            return Err(StoreError::Refused("an assignee has at most 256 bytes"));
        }
        self.change(id, who, version, now, |alert| {
            if alert.assignee == assignee {
                return Ok(None);
            }
            alert.assignee = assignee.to_owned();
            Ok(done(Action::Assigned, assignee))
        })
    }

    /// Writes a comment; `version` as for [`Store::acknowledge`].
    pub fn comment(
        &self,
        id: Id,
        who: &str,
        text: &str,
        version: Option<u64>,
        now: Time,
    ) -> Result<Alert, StoreError> {
        if text.trim().is_empty() || text.len() > MAX_TEXT {
            return Err(StoreError::Refused("a comment has 1 to 8192 bytes"));
        }
        self.change(id, who, version, now, |alert| {
            if alert.comments.len() >= MAX_COMMENTS {
                return Err(StoreError::Refused("the alert has 500 comments already"));
            }
            alert.comments.push(rows::comment(who, text, now));
            Ok(done(Action::Commented, text))
        })
    }

    /// Resolves an alert, with a reason if there is one.
    pub fn resolve(
        &self,
        id: Id,
        who: &str,
        reason: &str,
        version: Option<u64>,
        now: Time,
    ) -> Result<Alert, StoreError> {
        check_reason(reason)?;
        self.change(id, who, version, now, |alert| {
            Ok(end(alert, who, reason, now))
        })
    }

    fn change(
        &self,
        id: Id,
        who: &str,
        version: Option<u64>,
        now: Time,
        change: impl FnOnce(&mut Alert) -> Result<Option<Done>, StoreError> + Send,
    ) -> Result<Alert, StoreError> {
        check_name(who)?;
        let policy = self.policy();
        self.write("change an alert", |tx| {
            let mut alert = load_alert(tx, id)?.ok_or(StoreError::NotFound("alert"))?;
            if alert.merged_into.is_some() {
                return Err(StoreError::Refused("the alert has become part of another"));
            }
            if let Some(given) = version.filter(|v| *v != alert.version) {
                let found = alert.version;
                return Err(StoreError::Conflict { found, given });
            }
            let Some(done) = change(&mut alert)? else {
                return Ok(alert);
            };
            let mut work = Work::new(tx, &policy, now);
            write_change(tx, &mut work, &mut alert, who, &done, now)?;
            work.finish()?;
            Ok(alert)
        })
    }

    fn change_incident(
        &self,
        id: Id,
        who: &str,
        now: Time,
        change: impl Fn(&mut Alert) -> Option<Done> + Send + Sync,
    ) -> Result<u64, StoreError> {
        check_name(who)?;
        let policy = self.policy();
        self.write("change an incident", |tx| {
            let incident = rows::load_incident(tx, id)?.ok_or(StoreError::NotFound("incident"))?;
            if incident.merged_into.is_some() {
                return Err(StoreError::Refused("the incident has become part of another"));
            }
            let sql = format!(
                "SELECT {} FROM alerts WHERE incident = ?1 AND merged_into IS NULL AND state != 'resolved' ORDER BY seq",
                rows::ALERT
            );
            let mut work = Work::new(tx, &policy, now);
            let mut changed = 0;
            for mut alert in rows::all(tx, &sql, &[id.into()], rows::alert)? {
                if let Some(done) = change(&mut alert) {
                    write_change(tx, &mut work, &mut alert, who, &done, now)?;
                    changed += 1;
                }
            }
            work.finish()?;
            Ok(changed)
        })
    }

    /// Makes a silence.
    pub fn add_silence(
        &self,
        new: &NewSilence,
        author: &str,
        now: Time,
    ) -> Result<Silence, StoreError> {
        let mut silence = silence::check(new, author, now)?;
        let texts: Vec<String> = silence.matchers.iter().map(ToString::to_string).collect();
        let matchers = serde_json::Value::from(texts).to_string();
        self.write("make a silence", |tx| {
            let ids = rows::all(
                tx,
                "INSERT INTO silences (matchers, starts, ends, author, comment, created, broad) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id",
                &[
                    (&matchers).into(),
                    silence.starts.into(),
                    silence.ends.into(),
                    (&silence.author).into(),
                    (&silence.comment).into(),
                    silence.created.into(),
                    silence.broad.into(),
                ],
                |r| rows::get::<i64>(r, 0),
            )?;
            silence.id = ids.first().map_or(0, |id| *id as u64);
            tell::check_all(tx)?;
            Ok(silence)
        })
    }

    /// Ends a silence now.
    pub fn expire_silence(&self, id: u64, who: &str, now: Time) -> Result<Silence, StoreError> {
        self.write("end a silence", |tx| {
            let mut silence = load_silence(tx, id)?.ok_or(StoreError::NotFound("silence"))?;
            if silence.ends <= now {
                return Ok(silence);
            }
            silence.ends = now;
            silence.starts = silence.starts.min(now);
            silence.expired_by = who.to_owned();
            run(
                tx,
                "UPDATE silences SET starts = ?2, ends = ?3, expired_by = ?4 WHERE id = ?1",
                &[
                    (id as i64).into(),
                    silence.starts.into(),
                    silence.ends.into(),
                    who.into(),
                ],
            )?;
            tell::check_all(tx)?;
            Ok(silence)
        })
    }

    /// Sends a dead notification again, with a fresh day of attempts.
    pub fn resend(&self, id: u64, who: &str, now: Time) -> Result<Notification, StoreError> {
        self.write("send again", |tx| {
            let found = rows::all(tx, &one_notification(), &[(id as i64).into()], rows::notification)?.pop();
            let notification = found.ok_or(StoreError::NotFound("notification"))?;
            if notification.delivery != Delivery::Dead {
                return Err(StoreError::Refused("only a dead notification can be sent again"));
            }
            run(
                tx,
                "UPDATE outbox SET delivery = 'pending', next_at = ?2, give_up_at = ?3, error = '' WHERE id = ?1",
                &[(id as i64).into(), now.into(), now.plus(GIVE_UP_AFTER).into()],
            )?;
            let detail = format!("to {}, again", notification.receiver);
            add_history(tx, notification.alert, now, who, Action::Notified, &detail)?;
            rows::all(tx, &one_notification(), &[(id as i64).into()], rows::notification)?
                .pop()
                .ok_or(StoreError::NotFound("notification"))
        })
    }
}

/// Somebody takes an alert that nobody has.
fn take(alert: &mut Alert, who: &str) -> Option<Done> {
    if alert.state != State::Firing {
        return None;
    }
    alert.state = State::Acknowledged;
    if alert.assignee.is_empty() {
        alert.assignee = who.to_owned();
    }
    done(Action::Acknowledged, "")
}

/// Somebody resolves an alert that is open.
fn end(alert: &mut Alert, who: &str, reason: &str, now: Time) -> Option<Done> {
    if rows::is_over(alert) {
        return None;
    }
    alert.state = State::Resolved;
    alert.resolved = Some(now);
    if !reason.trim().is_empty() && alert.comments.len() < MAX_COMMENTS {
        alert.comments.push(rows::comment(who, reason, now));
    }
    done(Action::Resolved, reason)
}

fn write_change(
    tx: &Tx<'_>,
    work: &mut Work<'_, '_>,
    alert: &mut Alert,
    who: &str,
    done: &Done,
    now: Time,
) -> Result<(), StoreError> {
    alert.version += 1;
    alert.updated = now;
    rows::save_alert(tx, alert)?;
    add_history(tx, alert.id, now, who, done.action, &done.detail)?;
    work.touch(alert);
    Ok(())
}

fn check_reason(reason: &str) -> Result<(), StoreError> {
    if reason.len() > MAX_TEXT {
        return Err(StoreError::Refused("a reason has at most 8192 bytes"));
    }
    Ok(())
}

fn check_name(who: &str) -> Result<(), StoreError> {
    if who.is_empty() || who.len() > MAX_NAME {
        let reason = "who does this has a name of 1 to 256 bytes";
        return Err(StoreError::Refused(reason));
    }
    Ok(())
}

fn done(action: Action, detail: &str) -> Option<Done> {
    Some(Done {
        action,
        detail: detail.to_owned(),
    })
}

fn load_silence(tx: &Tx<'_>, id: u64) -> Result<Option<Silence>, StoreError> {
    let sql = format!("SELECT {} FROM silences WHERE id = ?1", rows::SILENCE);
    Ok(rows::all(tx, &sql, &[(id as i64).into()], rows::silence)?.pop())
}

fn one_notification() -> String {
    format!("SELECT {} FROM outbox WHERE id = ?1", rows::NOTIFICATION)
}
