//! What the operator can choose about Kafka, and how it becomes settings of librdkafka.
//!
//! [`Options`] is the `bus.kafka` part of the configuration file. Everything that Trailwarden's promises rest on
//! (`acks`, idempotence, where a consumer begins) is set here and cannot be overridden; every other property of
//! librdkafka can be set by its own name under `properties`. Secrets are read from files or the environment when a
//! client is made, and are never printed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

use crate::BusError;

/// How to reach the brokers and what to ask of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Some of the brokers, as `host:port`; the others are learnt from them.
    pub brokers: Vec<String>,
    /// Stands before the name of every topic and group, so that installations can share a cluster.
    pub prefix: String,
    /// On how many brokers `topics apply` keeps each record.
    pub replication: u16,
    /// How long a call waits for the brokers before it is given up, to be tried again.
    pub patience_seconds: u32,
    /// After how long without a sign of life the partitions of a node go to the others.
    pub session_timeout_seconds: u32,
    /// How many bytes of records are kept ahead for each partition that is read.
    pub read_ahead_mib: u32,
    /// Encrypt, and how to know the brokers.
    pub tls: Option<Tls>,
    /// Log in, and as whom.
    pub sasl: Option<Sasl>,
    /// Properties of librdkafka by their own names.
    pub properties: BTreeMap<String, String>,
}

/// TLS towards the brokers; all files PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The authorities to trust; without it those of the system.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, where the brokers ask for one.
    pub certificate_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// A login.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sasl {
    /// How.
    pub mechanism: Mechanism,
    /// Who (PLAIN, SCRAM).
    pub username: String,
    /// The password (PLAIN, SCRAM), best from the environment.
    pub password: Password,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
    /// A file with a bearer token (OAUTHBEARER), read again before the token ends.
    pub token_file: Option<PathBuf>,
    /// A program and its arguments that print a bearer token (OAUTHBEARER), such as the signer of a managed Kafka.
    pub token_command: Vec<String>,
}

/// The mechanisms that can be had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// User and password, as they are: only with TLS.
    #[default]
    #[serde(rename = "PLAIN")]
    Plain,
    /// User and password, challenged.
    #[serde(rename = "SCRAM-SHA-256")]
    Scram256,
    /// User and password, challenged.
    #[serde(rename = "SCRAM-SHA-512")]
    Scram512,
    /// A token: managed Kafka.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
}

/// A password that is never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            brokers: Vec::new(),
            prefix: "trailwarden.".into(),
            replication: 3,
            patience_seconds: 30,
            session_timeout_seconds: 10,
            read_ahead_mib: 8,
            tls: None,
            sasl: None,
            properties: BTreeMap::new(),
        }
    }
}

impl Mechanism {
    fn as_str(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Scram256 => "SCRAM-SHA-256",
            Mechanism::Scram512 => "SCRAM-SHA-512",
            Mechanism::OAuthBearer => "OAUTHBEARER",
        }
    }
}

/// What the promises rest on: nobody may set these.
const OURS: &[(&str, &str)] = &[
    (
        "acks",
        "a record counts as stored only when all in-sync replicas have it",
    ),
    (
        "request.required.acks",
        "a record counts as stored only when all in-sync replicas have it",
    ),
    (
        "enable.idempotence",
        "a repeated send must not repeat a record or change the order",
    ),
    ("transactional.id", "transactions are not used"),
    ("group.id", "use `prefix`"),
    (
        "enable.auto.commit",
        "positions are committed with their effect",
    ),
    (
        "enable.auto.offset.store",
        "positions are committed with their effect",
    ),
    (
        "auto.offset.reset",
        "a position that is gone must stop the program, not move it",
    ),
    ("partitioner", "the key decides the partition"),
    ("bootstrap.servers", "use `brokers`"),
    ("metadata.broker.list", "use `brokers`"),
    ("sasl.password", "use `sasl.password_file`"),
    (
        "partition.assignment.strategy",
        "nodes must agree on how partitions are shared",
    ),
    ("enable.partition.eof", "the program counts on its value"),
    ("allow.auto.create.topics", "use `trailwarden topics apply`"),
];

impl Options {
    /// Everything that is wrong with the values.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.brokers.is_empty() {
            problems.push("brokers: name at least one, such as [\"kafka-1:9092\"]".into());
        }
        for broker in &self.brokers {
            if broker.contains(',') || broker.contains(char::is_whitespace) || broker.is_empty() {
                problems.push(format!("brokers: `{broker}` is no `host:port`"));
            }
        }
        let named = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !self.prefix.chars().all(named) {
            problems.push(format!(
                "prefix: `{}` has other characters than letters, digits, `.`, `_` and `-`",
                self.prefix
            ));
        }
        for (name, value, least) in [
            ("replication", u32::from(self.replication), 1),
            ("patience_seconds", self.patience_seconds, 1),
            ("session_timeout_seconds", self.session_timeout_seconds, 1),
            ("read_ahead_mib", self.read_ahead_mib, 1),
        ] {
            if value < least {
                problems.push(format!("{name} must be at least {least}"));
            }
        }
        for (name, why) in OURS {
            if self.properties.contains_key(*name) {
                problems.push(format!("properties: `{name}` cannot be set: {why}"));
            }
        }
        if let Some(sasl) = &self.sasl {
            problems.extend(sasl.problems(self.tls.is_some()));
        }
        let tls = self.tls.iter().flat_map(|t| {
            [&t.ca_file, &t.certificate_file, &t.key_file]
                .into_iter()
                .flatten()
        });
        let secrets = self
            .sasl
            .iter()
            .flat_map(|s| [&s.password_file, &s.token_file].into_iter().flatten());
        for path in tls.chain(secrets) {
            if let Err(error) = std::fs::File::open(path) {
                problems.push(format!("cannot read `{}`: {error}", path.display()));
            }
        }
        problems
    }

    /// The settings that every client shares.
    ///
    /// # Errors
    /// A secret cannot be read.
    pub(super) fn client(&self) -> Result<ClientConfig, BusError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", "trailwarden")
            .set("broker.address.ttl", "5000")
            .set("reconnect.backoff.max.ms", "2000")
            // A broker that stands still must be noticed well before anybody's patience ends.
            .set("socket.timeout.ms", "8000")
            .set("socket.keepalive.enable", "true")
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("allow.auto.create.topics", "false");
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            for (name, path) in [
                ("ssl.ca.location", &tls.ca_file),
                ("ssl.certificate.location", &tls.certificate_file),
                ("ssl.key.location", &tls.key_file),
            ] {
                if let Some(path) = path {
                    config.set(name, path.display().to_string());
                }
            }
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanism", sasl.mechanism.as_str());
            if sasl.mechanism != Mechanism::OAuthBearer {
                config
                    .set("sasl.username", &sasl.username)
                    .set("sasl.password", sasl.password()?);
            }
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        Ok(config)
    }

    /// Can topics be administered? The client for that asks nobody for tokens (rdkafka 0.39), it only has those that
    /// librdkafka gets by itself.
    pub(super) fn can_administer(&self) -> bool {
        let asks = |sasl: &Sasl| sasl.mechanism == Mechanism::OAuthBearer;
        let by_itself = self
            .properties
            .get("sasl.oauthbearer.method")
            .is_some_and(|method| method == "oidc");
        by_itself || !self.sasl.as_ref().is_some_and(asks)
    }

    /// The name of a topic or group on the brokers.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl Sasl {
    fn problems(&self, tls: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let token = self.token_file.is_some() || !self.token_command.is_empty();
        match self.mechanism {
            Mechanism::OAuthBearer if !token => problems.push(
                "sasl: OAUTHBEARER needs `token_file` or `token_command` (or librdkafka's own under `properties`, with token_command: [\"true\"])".into(),
            ),
            Mechanism::OAuthBearer => {}
            _ if self.username.is_empty() => problems.push("sasl.username is missing".into()),
            _ if self.password.0.is_empty() && self.password_file.is_none() => {
                problems.push("sasl.password_file is missing".into());
            }
            Mechanism::Plain if !tls => problems.push(
                "sasl: PLAIN sends the password as it is, which needs `tls`".into(),
            ),
            _ => {}
        }
        problems
    }

    fn password(&self) -> Result<String, BusError> {
        match &self.password_file {
            None => Ok(self.password.0.clone()),
            Some(path) => read_secret(path),
        }
    }
}

/// The first line of a file.
pub(super) fn read_secret(path: &Path) -> Result<String, BusError> {
    let text = std::fs::read_to_string(path).map_err(|source| BusError::Io {
        action: "read secret",
        path: path.display().to_string(),
        source,
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_promises_rest_on_cannot_be_set() {
        for (name, _) in OURS {
            let mut options = options(r#"{"brokers":["a:1"]}"#);
            options
                .properties
                .insert((*name).to_owned(), "whatever".into());
            let problems = options.problems();
            assert!(problems[0].contains(name), "{problems:?}");
        }
        let free = options(r#"{"brokers":["a:1"],"properties":{"linger.ms":"3"}}"#);
        assert_eq!(free.problems(), [""; 0]);
        assert_eq!(free.client().unwrap().get("linger.ms"), Some("3"));
    }

    #[test]
    fn a_login_is_whole_and_its_secret_is_not_shown() {
        let check = |text: &str, expected: &str| {
            let problems = options(text).problems().join("\n");
            assert!(problems.contains(expected), "{problems}");
        };
        check("{}", "brokers: name at least one");
        check(r#"{"brokers":["a b"]}"#, "is no `host:port`");
        check(
            r#"{"brokers":["a:1"],"sasl":{"mechanism":"PLAIN","username":"u","password":"p"}}"#,
            "needs `tls`",
        );
        check(
            r#"{"brokers":["a:1"],"sasl":{"mechanism":"SCRAM-SHA-512","username":"u"}}"#,
            "password_file is missing",
        );
        check(
            r#"{"brokers":["a:1"],"sasl":{"mechanism":"OAUTHBEARER"}}"#,
            "token_file",
        );
        check(
            r#"{"brokers":["a:1"],"tls":{"ca_file":"/no/such/file"}}"#,
            "cannot read `/no/such/file`",
        );
        let good = options(
            r#"{"brokers":["a:1"],"sasl":{"mechanism":"SCRAM-SHA-256","username":"u","password":"hunter2"}}"#,
        );
        assert_eq!(good.problems(), [""; 0]);
        assert!(!format!("{good:?}").contains("hunter2"));
        let client = good.client().unwrap();
        assert_eq!(client.get("security.protocol"), Some("sasl_plaintext"));
        assert_eq!(client.get("sasl.password"), Some("hunter2"));
    }
}
