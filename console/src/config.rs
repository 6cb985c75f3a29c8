//! The `console` part of the configuration: who may reach the HTTP listener and who may log in.
//!
//! [`Config`] is read by `cli` together with the other parts and handed to [`crate::router`] inside
//! [`crate::App`]. [`Config::check`] reports everything that is wrong at once, so that `config check` and
//! the start say the same. Addresses, ports and TLS files belong to `cli`, which opens the listener; this
//! module only knows whether that listener is on loopback. Secrets have a `*_file` twin and are neither
//! shown by `Debug` nor written by `Serialize`.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The whole `console` part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The host names, without port, by which browsers reach this console. Others are answered 421. Empty: with
    /// `auth.mode: open` only `localhost`, `127.0.0.1` and `[::1]`, else every name.
    pub hosts: Vec<String>,
    /// The address people reach the console at, for links in notifications; never followed by us.
    pub public_url: String,
    /// Who may log in.
    pub auth: AuthConfig,
    /// The largest request body that the API reads, in bytes. Intake routes have their own limit.
    pub max_body_bytes: usize,
    /// How many searches run at once; others wait their turn, five seconds at most.
    pub concurrent_searches: usize,
    /// How many questions of other nodes (`/api/v1/index`) an index node answers at once; more are answered 503.
    pub concurrent_node_searches: usize,
    /// How many live streams (`/api/v1/alerts/feed`) are open at once; more are answered 503.
    pub live_streams: usize,
    /// How many rows a CSV export has at most.
    pub export_rows: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            hosts: Vec::new(),
            public_url: "http://127.0.0.1:7171".into(),
            auth: AuthConfig::default(),
            max_body_bytes: 1024 * 1024,
            concurrent_searches: 8,
            concurrent_node_searches: 32,
            live_streams: 256,
            export_rows: 1_000,
        }
    }
}

/// How people and programs prove who they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// `open` (loopback only, nobody logs in) or `password`.
    pub mode: Mode,
    /// The people who may log in.
    pub users: Vec<User>,
    /// The programs that may call the API with `Authorization: Bearer`.
    pub tokens: Vec<Token>,
    /// A login ends after this many minutes without a request.
    pub idle_minutes: u32,
    /// A login ends after this many hours in any case.
    pub session_hours: u32,
    /// How many failed logins an address, and how many an account, may have in a minute before it is answered 429.
    pub failed_logins_per_minute: u32,
}

impl Default for AuthConfig {
    fn default() -> AuthConfig {
        AuthConfig {
            mode: Mode::Open,
            users: Vec::new(),
            tokens: Vec::new(),
            idle_minutes: 60,
            session_hours: 12,
            failed_logins_per_minute: 5,
        }
    }
}

/// How people prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nobody logs in; only for a listener on loopback.
    Open,
    /// Name and password.
    Password,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything, changes nothing.
    Viewer,
    /// Reads everything, works on alerts and silences.
    Analyst,
    /// Only pushes events.
    Ingest,
    /// Only asks an index node for its share of an answer: other nodes.
    Node,
}

/// A person who may log in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The login name, shown beside what they did.
    pub name: String,
    /// The password's argon2id hash in PHC form (`$argon2id$v=19$…`).
    #[serde(default, skip_serializing)]
    pub password_hash: Hidden,
    /// A file with the hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash_file: Option<PathBuf>,
    /// What they may do.
    pub role: Role,
}

/// A program that may call the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The program's name, shown beside what it did.
    pub name: String,
    /// SHA-256 of the token, hexadecimal.
    #[serde(default, skip_serializing)]
    pub sha256: Hidden,
    /// A file with that hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256_file: Option<PathBuf>,
    /// What it may do.
    pub role: Role,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "hidden" })
    }
}

/// What is wrong with a `console` part.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Open mode on an address that others can reach.
    #[error(
        "`console.auth.mode: open` is for loopback only; set `mode: password` and users, or pass --insecure-listen"
    )]
    OpenToOthers,
    /// Nobody could log in.
    #[error("`console.auth.mode: password` needs at least one user in `console.auth.users`")]
    NoUsers,
    /// An empty or doubled name.
    #[error("`{0}` is empty or twice in `console.auth`")]
    Name(String),
    /// Neither or both of a secret and its file are given.
    #[error("`{name}` needs exactly one of `{key}` and `{key}_file`")]
    OneOf {
        /// Whose.
        name: String,
        /// The key.
        key: &'static str,
    },
    /// A secret's file cannot be read.
    #[error("cannot read `{path}`")]
    File {
        /// The file.
        path: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Not an argon2id hash in PHC form.
    #[error("the password hash of `{0}` is not an argon2id hash in PHC form")]
    Hash(String),
    /// Not 64 hexadecimal digits.
    #[error("the token hash of `{0}` is not 64 hexadecimal digits")]
    TokenHash(String),
    /// A number that makes no sense.
    #[error("`console.{0}` must be at least 1")]
    Zero(&'static str),
}

impl Config {
    /// Everything that is wrong. `loopback`: does the listener only take connections of this machine?
    pub fn check(&self, loopback: bool) -> Vec<ConfigError> {
        let mut wrong = Vec::new();
        let auth = &self.auth;
        match auth.mode {
            Mode::Open if !loopback => wrong.push(ConfigError::OpenToOthers),
            Mode::Password if auth.users.is_empty() => wrong.push(ConfigError::NoUsers),
            _ => {}
        }
        let mut names: Vec<&str> = auth.users.iter().map(|u| u.name.as_str()).collect();
        names.extend(auth.tokens.iter().map(|t| t.name.as_str()));
        names.sort_unstable();
        for (i, name) in names.iter().enumerate() {
            if name.is_empty() || (i > 0 && names[i - 1] == *name) {
                wrong.push(ConfigError::Name((*name).to_owned()));
            }
        }
        for (key, number) in [
            ("auth.idle_minutes", auth.idle_minutes as usize),
            ("auth.session_hours", auth.session_hours as usize),
            (
                "auth.failed_logins_per_minute",
                auth.failed_logins_per_minute as usize,
            ),
            ("max_body_bytes", self.max_body_bytes),
            ("concurrent_searches", self.concurrent_searches),
            ("concurrent_node_searches", self.concurrent_node_searches),
            ("live_streams", self.live_streams),
            ("export_rows", self.export_rows),
        ] {
            if number == 0 {
                wrong.push(ConfigError::Zero(key));
            }
        }
        wrong.extend(auth.users.iter().filter_map(|u| u.hash().err()));
        wrong.extend(auth.tokens.iter().filter_map(|t| t.hash().err()));
        wrong
    }
}

impl User {
    /// The checked argon2id hash, from the configuration or its file.
    pub fn hash(&self) -> Result<String, ConfigError> {
        let hash = secret(
            &self.name,
            "password_hash",
            &self.password_hash,
            self.password_hash_file.as_deref(),
        )?;
        let good = argon2::PasswordHash::new(&hash)
            .is_ok_and(|h| h.algorithm == argon2::ARGON2ID_IDENT && h.hash.is_some());
        if good {
            Ok(hash)
        } else {
            Err(ConfigError::Hash(self.name.clone()))
        }
    }
}

impl Token {
    /// The checked SHA-256, from the configuration or its file.
    pub fn hash(&self) -> Result<[u8; 32], ConfigError> {
        let text = secret(
            &self.name,
            "sha256",
            &self.sha256,
            self.sha256_file.as_deref(),
        )?;
        let mut hash = [0; 32];
        let digits = text.as_bytes();
        let good = digits.len() == 64
            && digits.is_ascii()
            && (0..32).all(|i| {
                u8::from_str_radix(&text[2 * i..2 * i + 2], 16)
                    .map(|byte| hash[i] = byte)
                    .is_ok()
            });
        if good {
            Ok(hash)
        } else {
            Err(ConfigError::TokenHash(self.name.clone()))
        }
    }
}

fn secret(
    name: &str,
    key: &'static str,
    inline: &Hidden,
    file: Option<&std::path::Path>,
) -> Result<String, ConfigError> {
    match (inline.0.is_empty(), file) {
        (false, None) => Ok(inline.0.clone()),
        (true, Some(path)) => std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .map_err(|source| ConfigError::File {
                path: path.display().to_string(),
                source,
            }),
        _ => Err(ConfigError::OneOf {
            name: name.to_owned(),
            key,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: serde_json::Value, loopback: bool, expected: &[&str]) {
        let config: Config = serde_json::from_value(yaml).unwrap();
        let wrong: Vec<String> = config
            .check(loopback)
            .iter()
            .map(ConfigError::to_string)
            .collect();
        assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
        for (wrong, expected) in wrong.iter().zip(expected) {
            assert!(wrong.contains(expected), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_at_once() {
        check(serde_json::json!({}), true, &[]);
        check(serde_json::json!({}), false, &["loopback only"]);
        check(
            serde_json::json!({"live_streams": 0, "auth": {"mode": "password"}}),
            false,
            &["at least one user", "live_streams"],
        );
        check(
            serde_json::json!({"auth": {"mode": "password",
                "users": [{"name": "ada", "role": "analyst", "password_hash": "plain"}],
                "tokens": [{"name": "ada", "role": "ingest", "sha256": "12"}, {"name": "t", "role": "viewer"}]}}),
            false,
            &["twice", "argon2id", "64 hexadecimal", "exactly one of"],
        );
    }

    #[test]
    fn secrets_are_never_shown() {
        let token = Token {
            name: "t".into(),
            sha256: Hidden("c0ffee".into()),
            sha256_file: None,
            role: Role::Ingest,
        };
        let shown = format!("{token:?}{}", serde_json::to_string(&token).unwrap());
        assert!(!shown.contains("c0ffee"), "{shown}");
    }

    #[test]
    fn unknown_keys_are_refused() {
        let wrong = serde_json::from_value::<Config>(serde_json::json!({"host": []}));
        assert!(wrong.is_err());
    }
}
