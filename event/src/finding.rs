//! What a rule emits: the finding, one JSON object, whose first keys never change (DESIGN §5.1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Event, Id, Severity, Str, Time};

/// How many ids of evidence a finding names at most; `count` tells the true number.
pub const MAX_EVENT_IDS: usize = 100;

/// A rule matched an event, or a correlation's condition came true.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Finding {
    /// Stable on every replay of the log: a hash of rule and event, or of correlation, group and the event that first fired in log order.
    pub id: Id,
    /// The rule's Sigma id; its title where it has none.
    pub rule_id: Str,
    /// The rule's title.
    pub title: Str,
    /// How bad it is.
    pub severity: Severity,
    /// The time of the event that fired it.
    pub time: Time,
    /// The time of the first event of the evidence.
    pub first_event_time: Time,
    /// The time of the last event of the evidence.
    pub last_event_time: Time,
    /// How many events the evidence has.
    pub count: u64,
    /// The group-by fields and values of a correlation; a missing field is `null`.
    pub group: BTreeMap<Str, Option<Str>>,
    /// The sources' own ids of the evidence, at most [`MAX_EVENT_IDS`], earliest first.
    pub event_ids: Vec<Str>,
    /// The source of the event that fired it.
    pub source: Str,
    /// The account of the event that fired it.
    pub account: Str,
    /// The region of the event that fired it.
    pub region: Str,
    /// The same under every order of arrival: a hash of correlation, group and the earliest firing event by (time, id).
    /// For a single-event rule the same as `id`.
    pub episode: Id,
    /// Who did it, as people read it.
    pub actor: Str,
    /// The rule's tags.
    pub tags: Vec<Str>,
    /// Was it found through an event that came after the allowed lateness?
    pub late: bool,
    /// How often this episode has been said before, from 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u64,
    /// The id of the finding that this one has become part of, through an event that came later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_into: Option<Id>,
    /// Is it the word on an episode of a correlation or baseline, rather than the match of one event?
    #[serde(default, skip_serializing_if = "is_false")]
    pub episodic: bool,
    /// Had something to be left out for want of room? Then times, count and evidence are not exact.
    #[serde(default, skip_serializing_if = "is_false")]
    pub approximate: bool,
    /// Our ids of the evidence, in the order of `event_ids`: with them the index finds the events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Id>,
    /// The human or workload behind the actor; what incidents are joined by.
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub identity: Str,
    /// The session of the event that fired it.
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub session: Str,
    /// The access key of the event that fired it.
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub access_key: Str,
    /// The source address of the event that fired it.
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub src_ip: Str,
    /// What the event that fired it did.
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub action: Str,
    /// The function concerned.
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub function: Str,
    /// What it was done to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Str>,
    /// Why, in words, where the rule alone does not say it: what a baseline expected and what it saw.
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub explanation: Str,
    /// When what it tells of was over, where its end is known: a source that came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Is its rule tried out? Then it is kept and counted, and nobody is told.
    #[serde(default, skip_serializing_if = "is_false")]
    pub staged: bool,
    /// Labels from the inventory, for routing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Str, Str>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_false(truth: &bool) -> bool {
    !truth
}

impl Finding {
    /// The id of a single-event finding: a hash of rule and event.
    pub fn event_id(rule_id: &str, event: Id) -> Id {
        Id::of("finding", &[rule_id.as_bytes(), &event.to_bytes()])
    }

    /// A finding with everything that it takes from the event that fired it, and nothing of a rule yet.
    pub fn from_event(event: &Event) -> Finding {
        Finding {
            time: event.time,
            first_event_time: event.time,
            last_event_time: event.time,
            count: 1,
            event_ids: vec![event.shown_id()],
            source: event.source.clone(),
            account: event.account.clone(),
            region: event.region.clone(),
            actor: event.actor.clone(),
            late: event.late,
            evidence: vec![event.id],
            identity: event.identity.clone(),
            session: event.session.clone(),
            access_key: event.access_key.clone(),
            src_ip: event.src_ip.clone(),
            action: event.action.clone(),
            function: event.function.clone(),
            resources: event.resources.clone(),
            labels: event.labels.clone(),
            ..Finding::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts rely on these keys and their order of appearance does not matter, their presence does.
    #[test]
    fn the_contract_of_the_command_line() {
        let finding = Finding {
            group: [("sourceIPAddress".into(), Some("203.0.113.7".into()))].into(),
            ..Finding::default()
        };
        let json = serde_json::to_value(&finding).unwrap();
        for key in [
            "id",
            "rule_id",
            "title",
            "severity",
            "time",
            "first_event_time",
            "last_event_time",
            "count",
            "group",
            "event_ids",
            "source",
            "account",
            "region",
            "episode",
            "actor",
            "tags",
            "late",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!(serde_json::from_value::<Finding>(json).unwrap(), finding);
    }
}
