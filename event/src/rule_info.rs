//! What people read about a rule: the part of it that alerts, mails and pages show.

use serde::{Deserialize, Serialize};

use crate::Severity;

/// The human side of one loaded rule, handed from `detect` to `alerting` and `console` by the program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuleInfo {
    /// The rule's id, as findings carry it in `rule_id`.
    pub id: String,
    /// One line that names what was seen.
    pub title: String,
    /// What it means, for a tired reader.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Who wrote the rule.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// How bad a match is.
    pub severity: Severity,
    /// `experimental`, `test`, `stable`, ... as the rule says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// ATT&CK and other tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Harmless causes that the author knows of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub false_positives: Vec<String>,
    /// What the reader should do next (the extra key `next_steps` of our own rules).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_steps: Vec<String>,
    /// Is it tried out, so that what it finds is kept and counted and nobody is told?
    #[serde(default, skip_serializing_if = "is_false")]
    pub staged: bool,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// The rule as written, for the page that shows it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub yaml: String,
    /// The file that it came from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// `event_count` and its like for a correlation, `None` for a single-event rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
}

fn is_false(truth: &bool) -> bool {
    !truth
}
