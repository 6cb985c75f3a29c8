//! The configuration, checked and ready: what the store asks when it folds, joins and routes.
//!
//! [`Policy::new`] reads a [`Config`] and names every mistake in it at once, so that a bad configuration
//! stops the start and never a notification. It resolves the routing tree and the settings of receivers
//! that decisions need; how a receiver is reached is the business of [`crate::notifier`].

use crate::config::Config;
use crate::route::Route;

/// A mistake in the configuration, by the path of its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct ConfigError {
    /// Which key, such as `alerting.receivers[0].webhook.url`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// What decisions need to know of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverPolicy {
    /// What routes call it.
    pub name: String,
    /// `webhook` or `email`.
    pub kind: &'static str,
    /// Is it told when an incident is over?
    pub send_resolved: bool,
    /// Who is told instead when it cannot be.
    pub fallback: Option<String>,
}

/// The configuration as the decisions use it; times are in microseconds.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How far apart events of one single-event alert may lie.
    pub fold_gap: i64,
    /// How far apart alerts of one incident may lie.
    pub incident_gap: i64,
    /// After which quiet time an alert is resolved.
    pub auto_resolve: Option<i64>,
    /// How long what is resolved is kept.
    pub retention: i64,
    /// How long a first notification waits for company.
    pub group_wait: i64,
    /// Who can be told, in the order of the file.
    pub receivers: Vec<ReceiverPolicy>,
    /// Who is told what.
    pub route: Option<Route>,
}

impl Policy {
    /// The policy of a configuration, or everything that is wrong with it.
    pub fn new(config: &Config) -> Result<Policy, Vec<ConfigError>> {
        let _ = config;
        todo!()
    }

    /// The receiver of a name.
    pub fn receiver(&self, name: &str) -> Option<&ReceiverPolicy> {
        self.receivers.iter().find(|r| r.name == name)
    }
}
