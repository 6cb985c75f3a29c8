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
        let mut errors = Vec::new();
        let receivers = receivers(config, &mut errors);
        let route = config.route.as_ref().and_then(|route| {
            Route::new(route)
                .map_err(|mistakes| {
                    errors.extend(mistakes.into_iter().map(|m| ConfigError {
                        key: format!("alerting.{}", m.path),
                        reason: m.reason,
                    }));
                })
                .ok()
        });
        for (path, name) in route.iter().flat_map(Route::receivers) {
            if receivers.iter().all(|r| r.name != name) {
                errors.push(unknown(
                    &format!("alerting.{path}.receiver"),
                    name,
                    &receivers,
                ));
            }
        }
        if !receivers.is_empty() && config.route.is_none() {
            errors.push(ConfigError::new(
                "alerting.route",
                "there are receivers but no route leads to them: add `route: {receiver: NAME}`",
            ));
        }
        if config.retention_days == 0 {
            errors.push(ConfigError::new(
                "alerting.retention_days",
                "must be at least 1",
            ));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Policy {
            fold_gap: micros(config.fold_gap_seconds),
            incident_gap: micros(config.incident_gap_seconds),
            auto_resolve: Some(micros(config.auto_resolve_seconds)).filter(|m| *m > 0),
            retention: micros(config.retention_days.saturating_mul(86_400)),
            group_wait: micros(config.group_wait_seconds),
            receivers,
            route,
        })
    }

    /// The receiver of a name.
    pub fn receiver(&self, name: &str) -> Option<&ReceiverPolicy> {
        self.receivers.iter().find(|r| r.name == name)
    }
}

impl ConfigError {
    /// A mistake under a key.
    pub fn new(key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError {
            key: key.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Seconds as microseconds, at most a hundred years, so that sums stay in range.
fn micros(seconds: u64) -> i64 {
    seconds.min(100 * 366 * 86_400) as i64 * 1_000_000
}

fn receivers(config: &Config, errors: &mut Vec<ConfigError>) -> Vec<ReceiverPolicy> {
    let mut receivers: Vec<ReceiverPolicy> = Vec::new();
    for (i, receiver) in config.receivers.iter().enumerate() {
        let key = format!("alerting.receivers[{i}]");
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if receiver.name.is_empty() || receiver.name.len() > 64 || !receiver.name.chars().all(plain)
        {
            let reason = "must be 1 to 64 letters, digits, `-`, `_` or `.`";
            errors.push(ConfigError::new(&format!("{key}.name"), reason));
        }
        if receivers.iter().any(|r| r.name == receiver.name) {
            let reason = format!("`{}` is the name of an earlier receiver", receiver.name);
            errors.push(ConfigError::new(&format!("{key}.name"), reason));
        }
        let kind = match (&receiver.webhook, &receiver.email) {
            (Some(_), None) => "webhook",
            (None, Some(_)) => "email",
            _ => {
                errors.push(ConfigError::new(
                    &key,
                    "must have exactly one of `webhook` and `email`",
                ));
                "none"
            }
        };
        receivers.push(ReceiverPolicy {
            name: receiver.name.clone(),
            kind,
            send_resolved: receiver.send_resolved,
            fallback: receiver.fallback.clone(),
        });
    }
    for (i, receiver) in receivers.iter().enumerate() {
        let Some(fallback) = &receiver.fallback else {
            continue;
        };
        let key = format!("alerting.receivers[{i}].fallback");
        if *fallback == receiver.name {
            errors.push(ConfigError::new(
                &key,
                "a receiver cannot stand in for itself",
            ));
        } else if receivers.iter().all(|r| r.name != *fallback) {
            errors.push(unknown(&key, fallback, &receivers));
        }
    }
    receivers
}

fn unknown(key: &str, name: &str, receivers: &[ReceiverPolicy]) -> ConfigError {
    let known: Vec<&str> = receivers.iter().map(|r| r.name.as_str()).collect();
    let reason = match known.as_slice() {
        [] => format!("there is no receiver `{name}`: none is configured"),
        known => format!(
            "there is no receiver `{name}`: known are {}",
            known.join(", ")
        ),
    };
    ConfigError::new(key, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &[&str]) {
        let config: Config = serde_json::from_str(json).unwrap();
        let found = match Policy::new(&config) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(found.len(), expected.len(), "{json}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found} should say {expected}");
        }
    }

    #[test]
    fn good_ones() {
        check("{}", &[]);
        check(
            r#"{"receivers": [{"name": "soc", "webhook": {"url": "https://a.example/"}, "fallback": "mail"},
                              {"name": "mail", "email": {}}],
                "route": {"receiver": "soc"}}"#,
            &[],
        );
    }

    #[test]
    fn every_mistake_is_named() {
        check(
            r#"{"receivers": [{"name": "a b", "webhook": {}, "email": {}}, {"name": "x", "webhook": {}},
                              {"name": "x", "webhook": {}, "fallback": "y"}],
                "route": {"receiver": "z", "routes": [{"matchers": ["nope"]}]}, "retention_days": 0}"#,
            &[
                "receivers[0].name",
                "exactly one of",
                "receivers[2].name",
                "receivers[2].fallback: there is no receiver `y`: known are a b, x, x",
                "route.routes[0].matchers[0]",
                "retention_days",
            ],
        );
        check(r#"{"route": {"receiver": "z"}}"#, &["none is configured"]);
        check(
            r#"{"receivers": [{"name": "x", "webhook": {}}]}"#,
            &["no route leads"],
        );
    }
}
