//! How bad a finding is. Sigma's `level` becomes a severity here and nowhere else.

use serde::{Deserialize, Serialize};

/// How bad a finding or an alert is, least first, so that the greater one is the worse.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Context, nobody needs to act.
    #[default]
    Informational,
    /// Worth a look when there is time.
    Low,
    /// Worth a look today.
    Medium,
    /// Worth a look now.
    High,
    /// Wake somebody.
    Critical,
}

impl Severity {
    /// All severities, least first.
    pub const ALL: [Severity; 5] = [
        Severity::Informational,
        Severity::Low,
        Severity::Medium,
        Severity::High,
        Severity::Critical,
    ];

    /// The severity of a Sigma `level`, or `None` for a word that Sigma does not know.
    pub fn from_level(level: &str) -> Option<Severity> {
        Severity::ALL.into_iter().find(|s| s.as_str() == level)
    }

    /// The word as it stands in findings, routes and rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Informational => "informational",
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
