//! What people and programs do with Trailwarden, as events: the auditors are audited (DESIGN §2).
//!
//! The console makes an [`AuditEvent`] for every login, failed login, search, change of an alert or a silence, the index
//! one for every split that it removes, commands one for what they change. [`AuditEvent::to_event`] is appended to the
//! log, where it is searched and matched by rules like any other event. Passwords, tokens and cookies are never part of it.

use crate::{Event, Id, Origin, Outcome, Str, Time};

/// One action.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// When.
    pub time: Time,
    /// What, such as `Login`, `Search` or `AcknowledgeAlert`.
    pub action: &'static str,
    /// Who, as configured; what was typed for a failed login.
    pub actor: String,
    /// `user`, `token`, `open`, `shell` for a command, `service` for the program by itself.
    pub actor_type: &'static str,
    /// From which address.
    pub src_ip: String,
    /// The browser or program.
    pub user_agent: String,
    /// What became of it.
    pub outcome: Outcome,
    /// On what: an alert, a silence, ...
    pub resource: String,
    /// More, such as the query of a search.
    pub details: serde_json::Value,
    /// The request's id.
    pub request_id: String,
}

impl AuditEvent {
    /// The event as it is appended to the log: source `trailwarden`, the same fields as JSON in `raw`.
    pub fn to_event(&self) -> Event {
        let raw = serde_json::json!({
            "eventTime": self.time,
            "eventName": self.action,
            "actor": self.actor,
            "actorType": self.actor_type,
            "sourceIPAddress": self.src_ip,
            "userAgent": self.user_agent,
            "outcome": self.outcome,
            "resource": self.resource,
            "details": self.details,
            "requestId": self.request_id,
        })
        .to_string();
        let text = |s: &str| Str::from(s);
        Event {
            id: Id::of(
                "trailwarden",
                &[
                    self.request_id.as_bytes(),
                    self.action.as_bytes(),
                    raw.as_bytes(),
                ],
            ),
            source_id: text(&self.request_id),
            source: "trailwarden".into(),
            time: self.time,
            ingest_time: self.time,
            category: "Console".into(),
            service: "trailwarden".into(),
            action: text(self.action),
            outcome: self.outcome,
            actor: text(&self.actor),
            actor_type: text(self.actor_type),
            actor_id: text(&self.actor),
            identity: text(&self.actor),
            src_ip: text(&self.src_ip),
            user_agent: text(&self.user_agent),
            request_id: text(&self.request_id),
            resources: if self.resource.is_empty() {
                Vec::new()
            } else {
                vec![text(&self.resource)]
            },
            origin: Origin {
                object: "trailwarden:console".into(),
                ..Origin::default()
            },
            raw: raw.into(),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_an_event_like_any_other() {
        let event = AuditEvent {
            time: Time::parse("2026-11-22T01:00:00Z").unwrap(),
            action: "AcknowledgeAlert",
            actor: "ada".into(),
            actor_type: "user",
            src_ip: "127.0.0.1".into(),
            user_agent: String::new(),
            outcome: Outcome::Success,
            resource: "alert/1".into(),
            details: serde_json::json!({"version": 3}),
            request_id: "r1".into(),
        }
        .to_event();
        assert_eq!(event.source, "trailwarden");
        assert_eq!(event.to_json()["raw"]["details"]["version"], 3);
        assert_eq!(event.resources, ["alert/1"]);
    }
}
