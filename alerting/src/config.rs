//! The part of the configuration that alerting owns: how alerts fold, who is told what, and how to reach them.
//!
//! [`Config`] is what the file says; [`crate::policy::Policy`] is the same thing checked and ready. The
//! defaults notify nobody and lose nothing: alerts are kept and shown in the console whether or not a
//! receiver is configured. Secrets are a [`Secret`], which never prints, and each has a `*_file` twin.

use std::fmt;
use std::path::PathBuf;

use event::Severity;
use serde::{Deserialize, Serialize};

/// A text that must never be seen: it prints and serializes as `***`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "***" })
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "***" })
    }
}

/// Everything under `alerting:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Findings of one single-event rule, account and actor belong to one alert while no more than this lies between
    /// their events.
    pub fold_gap_seconds: u64,
    /// Alerts of one identity, session, access key or address belong to one incident while no more than this lies
    /// between their events.
    pub incident_gap_seconds: u64,
    /// An alert that no finding has changed for this long is resolved; 0 leaves that to people.
    pub auto_resolve_seconds: u64,
    /// How long resolved alerts, their incidents and notifications are kept.
    pub retention_days: u64,
    /// How long the first notification of an incident waits, so that alerts which come together are told together.
    pub group_wait_seconds: u64,
    /// Where people find the console, for the links in notifications; empty leaves the links out.
    pub console_url: String,
    /// Who can be told.
    pub receivers: Vec<ReceiverConfig>,
    /// Who is told what; `null` tells nobody.
    pub route: Option<RouteConfig>,
    /// The database that several nodes keep their alerts in; `null` keeps them in a file of this machine.
    pub postgres: Option<PostgresConfig>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            fold_gap_seconds: 3_600,
            incident_gap_seconds: 86_400,
            auto_resolve_seconds: 86_400,
            retention_days: 365,
            group_wait_seconds: 5,
            console_url: String::new(),
            receivers: Vec::new(),
            route: None,
            postgres: None,
        }
    }
}

/// How the connection to a database is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PostgresTls {
    /// Not at all.
    Disable,
    /// TLS with a certificate that is checked, name included.
    Require,
}

/// A PostgreSQL database that several nodes share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresConfig {
    /// `postgres://user@host:5432/database`. May hold a password, so it is not printed.
    pub url: Secret,
    /// A file that holds the URL instead.
    pub url_file: Option<PathBuf>,
    /// A file that holds the user's password.
    pub password_file: Option<PathBuf>,
    /// `disable` or `require`; `null` requires TLS unless the host is this machine's loopback address or a socket.
    pub tls: Option<PostgresTls>,
    /// A PEM file of the certificate authorities to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The schema that holds the tables; it is made where it is missing.
    pub schema: String,
}

impl Default for PostgresConfig {
    fn default() -> PostgresConfig {
        PostgresConfig {
            url: Secret::default(),
            url_file: None,
            password_file: None,
            tls: None,
            ca_file: None,
            schema: "trailwarden".into(),
        }
    }
}

/// One place that notifications go to: exactly one of `webhook` and `email`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiverConfig {
    /// What routes call it.
    pub name: String,
    /// The receiver that is told instead when this one refuses a notification or cannot be reached for a day.
    pub fallback: Option<String>,
    /// Is it told when an incident is over?
    pub send_resolved: bool,
    /// An HTTP endpoint.
    pub webhook: Option<WebhookConfig>,
    /// A mail address.
    pub email: Option<EmailConfig>,
}

impl Default for ReceiverConfig {
    fn default() -> ReceiverConfig {
        ReceiverConfig {
            name: String::new(),
            fallback: None,
            send_resolved: true,
            webhook: None,
            email: None,
        }
    }
}

/// An HTTP endpoint that takes notifications as JSON (see [`crate::notifier::webhook`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Where to POST; without user, password or fragment. May hold a token, so it is not printed.
    pub url: Secret,
    /// A file that holds the URL instead.
    pub url_file: Option<PathBuf>,
    /// The key of the signature in `X-Trailwarden-Signature`; empty sends no signature.
    pub secret: Secret,
    /// A file that holds the key instead.
    pub secret_file: Option<PathBuf>,
    /// Sent as `Authorization: Bearer …`.
    pub bearer_token: Secret,
    /// A file that holds the token instead.
    pub bearer_token_file: Option<PathBuf>,
    /// Is plain `http://` accepted? Then anybody on the way can read and change what is sent.
    pub allow_http: bool,
    /// Networks in CIDR form that may be reached although they are private, loopback or otherwise not public.
    pub allow_networks: Vec<String>,
    /// A PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How long one attempt may take altogether.
    pub timeout_seconds: u64,
}

impl Default for WebhookConfig {
    fn default() -> WebhookConfig {
        WebhookConfig {
            url: Secret::default(),
            url_file: None,
            secret: Secret::default(),
            secret_file: None,
            bearer_token: Secret::default(),
            bearer_token_file: None,
            allow_http: false,
            allow_networks: Vec::new(),
            ca_file: None,
            timeout_seconds: 10,
        }
    }
}

/// How the connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// Plain at first, then STARTTLS; a server that does not offer it gets nothing.
    #[default]
    Starttls,
    /// TLS from the first byte (port 465).
    Tls,
    /// Never protected; only for a server on this machine's loopback address.
    None,
}

/// A mail server and who gets the mail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmailConfig {
    /// The mail server's name or address.
    pub host: String,
    /// Its port: 587 for STARTTLS, 465 for TLS.
    pub port: u16,
    /// How the connection is protected.
    pub tls: MailTls,
    /// A PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The account to log in with; empty logs in with none.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// A file that holds the password instead.
    pub password_file: Option<PathBuf>,
    /// The sender, `Name <address>` or an address.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
    /// The name to greet the mail server with; empty takes the domain of `from`.
    pub hello: String,
    /// How long one attempt may take altogether.
    pub timeout_seconds: u64,
}

impl Default for EmailConfig {
    fn default() -> EmailConfig {
        EmailConfig {
            host: String::new(),
            port: 587,
            tls: MailTls::Starttls,
            ca_file: None,
            username: String::new(),
            password: Secret::default(),
            password_file: None,
            from: String::new(),
            to: Vec::new(),
            hello: String::new(),
            timeout_seconds: 30,
        }
    }
}

/// A node of the routing tree. What an alert does not find here it takes from the route above.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// What must hold: `name="value"`, `!=`, `=~`, `!~`. All of them; none matches every alert.
    pub matchers: Vec<String>,
    /// The least severity that matches.
    pub min_severity: Option<Severity>,
    /// Who is told; empty takes the receiver of the route above.
    pub receiver: String,
    /// Are the routes after this one tried too when it matches?
    #[serde(rename = "continue")]
    pub go_on: bool,
    /// How often an open incident that nobody has acknowledged is told again; 0 for never, `null` as the route above
    /// (at the top: 4 hours).
    pub repeat_interval_seconds: Option<u64>,
    /// Routes tried in order for the alerts that match here; if none of them matches, this one's receiver is told.
    pub routes: Vec<RouteConfig>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_never_print() {
        let webhook = WebhookConfig {
            url: Secret::new("https://hooks.example/T0/verysecret"),
            secret: Secret::new("verysecret"),
            ..WebhookConfig::default()
        };
        let email = EmailConfig {
            password: Secret::new("verysecret"),
            ..EmailConfig::default()
        };
        let postgres = PostgresConfig {
            url: Secret::new("postgres://tw:verysecret@db.example/tw"),
            ..PostgresConfig::default()
        };
        let shown = format!(
            "{webhook:?} {email:#?} {postgres:?} {} {} {}",
            serde_json::to_string(&webhook).unwrap(),
            serde_json::to_string(&email).unwrap(),
            serde_json::to_string(&postgres).unwrap()
        );
        assert!(!shown.contains("verysecret"), "{shown}");
        assert!(shown.contains("***"));
    }

    #[test]
    fn unknown_keys_are_refused() {
        let text = r#"{"receivers": [{"name": "a", "webhok": {}}]}"#;
        let error = serde_json::from_str::<Config>(text).unwrap_err();
        assert!(error.to_string().contains("webhok"), "{error}");
        assert_eq!(
            serde_json::from_str::<Config>("{}").unwrap(),
            Config::default()
        );
    }
}
