//! What a notification says: the JSON that a webhook gets and a mail is written from.
//!
//! A [`Message`] is made when a notification is sent for the first time, from what the store knows then, and
//! is kept with it: every further attempt sends the same bytes under the same key. Its keys are a contract
//! with other people's programs: more may come, these stay. Comments stay in the house.

use event::{Id, RuleInfo, Severity, Str, Time};
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, Incident, State};
use crate::dedup::NotifyReason;
use crate::store::{Notification, Subject};

/// The version of the JSON.
pub const VERSION: u32 = 1;
/// The most resources of a finding that a message carries.
const MAX_RESOURCES: usize = 20;

/// One notification in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// [`VERSION`].
    pub version: u32,
    /// The same on every attempt: whoever has seen it can drop the message.
    pub idempotency_key: String,
    /// The same for all notifications of an incident: what a receiver that keeps incidents opens and closes.
    pub dedup_key: Id,
    /// Why it is sent.
    pub reason: NotifyReason,
    /// The severity told.
    pub severity: Severity,
    /// When it was written.
    pub time: Time,
    /// Who it is for.
    pub receiver: String,
    /// The receiver that could not be told, where this one stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
    /// The incident.
    pub incident: Incident,
    /// The alert that gave the reason; its finding is under `finding`.
    pub alert: Alert,
    /// The alerts of the incident, worst first, at most 20; `incident.alerts` tells how many there are.
    pub alerts: Vec<AlertLine>,
    /// What the rule says for people; absent where the rule is no longer loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleInfo>,
    /// The alert's page in the console; absent where `console_url` is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// An alert of the incident in brief.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertLine {
    /// Its id.
    pub id: Id,
    /// The rule's id.
    pub rule_id: Str,
    /// The rule's title.
    pub title: Str,
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands.
    pub state: State,
    /// How many events.
    pub count: u64,
    /// The account.
    pub account: Str,
}

impl Message {
    /// The message of a notification.
    pub(crate) fn new(
        notification: &Notification,
        subject: Subject,
        rule: Option<RuleInfo>,
        console_url: &str,
        now: Time,
    ) -> Message {
        let Subject {
            incident,
            mut alert,
            alerts,
        } = subject;
        alert.comments.clear();
        alert.finding.resources.truncate(MAX_RESOURCES);
        let base = console_url.trim_end_matches('/');
        Message {
            version: VERSION,
            idempotency_key: notification.idempotency_key(),
            dedup_key: incident.id,
            reason: notification.reason,
            severity: notification.severity,
            time: now,
            receiver: notification.receiver.clone(),
            instead_of: notification.instead_of.clone(),
            alerts: alerts.iter().map(brief).collect(),
            rule: rule.map(|rule| RuleInfo {
                // The rule's text and place are for the console.
                yaml: String::new(),
                file: String::new(),
                ..rule
            }),
            link: (!base.is_empty()).then(|| format!("{base}/alerts/{}", alert.id)),
            incident,
            alert,
        }
    }
}

fn brief(alert: &Alert) -> AlertLine {
    AlertLine {
        id: alert.id,
        rule_id: alert.rule_id.clone(),
        title: alert.title.clone(),
        severity: alert.severity,
        state: alert.state,
        count: alert.count,
        account: alert.account.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use event::Finding;

    /// A message about two alerts of one incident.
    pub(crate) fn message() -> Message {
        let alert = Alert {
            id: Id(1),
            title: "Root was used".into(),
            severity: Severity::High,
            actor: "ana".into(),
            account: "123456789012".into(),
            count: 1,
            finding: Finding {
                src_ip: "192.0.2.7".into(),
                ..Finding::default()
            },
            ..Alert::default()
        };
        let other = Alert {
            id: Id(2),
            title: "Recon".into(),
            severity: Severity::Low,
            count: 4,
            ..Alert::default()
        };
        let incident = Incident {
            id: Id(9),
            alerts: 2,
            ..Incident::default()
        };
        let notification = Notification {
            id: 1,
            incident: incident.id,
            alert: alert.id,
            receiver: "soc".into(),
            number: 0,
            reason: NotifyReason::First,
            severity: Severity::High,
            delivery: crate::store::Delivery::Leased,
            attempts: 1,
            ambiguous: 0,
            created: Time(0),
            next_at: Time(0),
            sent: None,
            error: String::new(),
            instead_of: None,
        };
        let subject = Subject {
            incident,
            alerts: vec![alert.clone(), other],
            alert,
        };
        Message::new(
            &notification,
            subject,
            None,
            "https://tw.example/",
            Time::from_seconds(1_700_000_000),
        )
    }

    #[test]
    fn other_programs_rely_on_these_keys() {
        let json = serde_json::to_value(message()).unwrap();
        for key in [
            "version",
            "idempotency_key",
            "dedup_key",
            "reason",
            "severity",
            "time",
            "receiver",
            "incident",
            "alert",
            "alerts",
            "link",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!(
            json["idempotency_key"],
            "00000000000000000000000000000001/first-0"
        );
        assert_eq!(
            json["link"],
            "https://tw.example/alerts/00000000000000000000000000000001"
        );
        assert_eq!(json["alert"]["finding"]["src_ip"], "192.0.2.7");
        assert_eq!(serde_json::from_value::<Message>(json).unwrap(), message());
    }
}
