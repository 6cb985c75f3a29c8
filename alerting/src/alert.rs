//! What alerting keeps and shows: alerts, incidents, comments, history.
//!
//! An [`Alert`] is one episode of one rule and group, folded from findings by [`crate::fold`]; an
//! [`Incident`] joins the alerts of one identity, session, access key or address ([`crate::incident`]).
//! The store writes these types, the console shows them, notifications carry them. They hold no logic
//! beyond reading themselves: who decides what is in the modules of the decisions.

use std::collections::BTreeMap;

use event::{Finding, Id, Severity, Str, Time};
use serde::{Deserialize, Serialize};

/// Where an alert stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody has taken it yet.
    #[default]
    Firing,
    /// Somebody looks at it.
    Acknowledged,
    /// It is over, by somebody's word or after its quiet time.
    Resolved,
}

impl State {
    /// All states, in the order of an alert's life.
    pub const ALL: [State; 3] = [State::Firing, State::Acknowledged, State::Resolved];

    /// The word as it stands in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Firing => "firing",
            State::Acknowledged => "acknowledged",
            State::Resolved => "resolved",
        }
    }

    /// The state of a word.
    pub fn parse(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

/// What somebody wrote about an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// When.
    pub at: Time,
    /// Who.
    pub who: String,
    /// What.
    pub text: String,
}

/// One episode of one rule and group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Alert {
    /// The episode of its first finding; stable from then on.
    pub id: Id,
    /// Ascending in the order of opening; the cursor of lists.
    pub seq: u64,
    /// The incident that it belongs to.
    pub incident: Id,
    /// The rule's id.
    pub rule_id: Str,
    /// The rule's title.
    pub title: Str,
    /// The worst severity that its findings had.
    pub severity: Severity,
    /// Where it stands.
    pub state: State,
    /// When it was opened.
    pub opened: Time,
    /// When a finding or a person last changed it.
    pub updated: Time,
    /// When a finding last changed it; its quiet time counts from here.
    pub grown: Time,
    /// When it was resolved; `None` while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Time>,
    /// How many events the evidence has.
    pub count: u64,
    /// The group-by fields and values of a correlation.
    pub group: BTreeMap<Str, Option<Str>>,
    /// Who did it, as people read it.
    pub actor: Str,
    /// The human or workload behind the actor.
    pub identity: Str,
    /// The account.
    pub account: Str,
    /// The region.
    pub region: Str,
    /// The source of the events.
    pub source: Str,
    /// The findings folded into one: for a correlation its last revision, for a single-event rule the earliest
    /// finding with the evidence, count and times of all.
    pub finding: Finding,
    /// For a single-event rule the time of each of `finding.event_ids`; empty for a correlation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<Time>,
    /// The revision of the finding that it shows.
    pub revision: u64,
    /// Grows with every change of state, assignee or comments; who changes an alert says which version was seen.
    pub version: u64,
    /// Who works on it; empty for nobody.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub assignee: String,
    /// What people wrote, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comments: Vec<Comment>,
    /// The alert that this one has become part of: it is then resolved and never notified again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_into: Option<Id>,
}

impl Alert {
    /// Is it neither resolved nor merged?
    pub fn is_open(&self) -> bool {
        self.state != State::Resolved && self.merged_into.is_none()
    }
}

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Its first finding came.
    Opened,
    /// Its severity rose.
    SeverityRose,
    /// Somebody took it.
    Acknowledged,
    /// It was given to somebody, or to nobody.
    Assigned,
    /// Somebody wrote about it.
    Commented,
    /// Somebody resolved it, or its quiet time passed.
    Resolved,
    /// It went on after it had been resolved.
    Reopened,
    /// It became part of an earlier alert, or took in a later one.
    Merged,
    /// A notification of it was sent or given up.
    Notified,
}

impl Action {
    /// The word as it stands in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Opened => "opened",
            Action::SeverityRose => "severity_rose",
            Action::Acknowledged => "acknowledged",
            Action::Assigned => "assigned",
            Action::Commented => "commented",
            Action::Resolved => "resolved",
            Action::Reopened => "reopened",
            Action::Merged => "merged",
            Action::Notified => "notified",
        }
    }

    /// The action of a word.
    pub fn parse(word: &str) -> Option<Action> {
        [
            Action::Opened,
            Action::SeverityRose,
            Action::Acknowledged,
            Action::Assigned,
            Action::Commented,
            Action::Resolved,
            Action::Reopened,
            Action::Merged,
            Action::Notified,
        ]
        .into_iter()
        .find(|a| a.as_str() == word)
    }
}

/// One line of an alert's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When.
    pub at: Time,
    /// Who; `trailwarden` for the program itself.
    pub who: String,
    /// What.
    pub action: Action,
    /// The comment, the assignee, the receiver, the severity, the other alert.
    pub detail: String,
}

/// Alerts that belong together: one attacker, one page.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Incident {
    /// Follows from the id of its first alert.
    pub id: Id,
    /// Ascending in the order of opening; the cursor of lists.
    pub seq: u64,
    /// The title of its worst alert, the earliest of several.
    pub title: Str,
    /// The worst severity of its alerts.
    pub severity: Severity,
    /// Firing while one alert fires, acknowledged while all open ones are, else resolved.
    pub state: State,
    /// When its first alert was opened.
    pub opened: Time,
    /// When it last changed.
    pub updated: Time,
    /// The earliest event of its alerts.
    pub first_event_time: Time,
    /// The latest event of its alerts.
    pub last_event_time: Time,
    /// How many alerts it has, merged ones not counted.
    pub alerts: u64,
    /// The incident that this one has become part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_into: Option<Id>,
}

/// What a live page is told: something about an alert changed. Ids ascend without end, so that a reader can go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedEntry {
    /// Ascending.
    pub id: u64,
    /// When.
    pub at: Time,
    /// The alert that changed.
    pub alert: Id,
    /// Its incident then.
    pub incident: Id,
    /// Was it new?
    pub opened: bool,
}
