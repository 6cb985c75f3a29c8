//! How receivers are reached: one file for each kind.
//!
//! A [`Notifier`] makes one attempt to hand over one message and says what came of it as a type: taken,
//! worth another attempt, refused, or nobody knows. It keeps no state and never tries twice; pauses, doubt
//! and giving up are the business of [`crate::outbox`]. [`build`] makes the notifiers of a configuration and
//! names every mistake in it at once. A new kind is one file here and one arm in [`build`].

pub mod email;
mod letter;
pub mod network;
pub mod webhook;

use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use event::Time;

use crate::config::{Config, ReceiverConfig, Secret};
use crate::message::Message;
use crate::outbox::{SendError, Sent};
use crate::policy::ConfigError;

/// An attempt under way.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<Sent, SendError>> + Send + 'a>>;

/// One way to reach a receiver.
pub trait Notifier: Send + Sync {
    /// Makes one attempt. `body` is `message` as JSON, the same bytes on every attempt.
    fn send<'a>(&'a self, message: &'a Message, body: &'a str, now: Time) -> Sending<'a>;
}

/// A configured receiver, ready to be told.
pub struct Receiver {
    /// What routes call it.
    pub name: String,
    /// `webhook` or `email`.
    pub kind: &'static str,
    /// How long an attempt may take at most, in microseconds; the lease is longer.
    pub timeout: i64,
    /// How it is reached.
    pub notifier: Box<dyn Notifier>,
}

/// The receivers of a configuration, or everything that is wrong with them. Reads the files of secrets; a process-wide
/// rustls provider must be installed.
pub fn build(config: &Config) -> Result<Vec<Receiver>, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut receivers = Vec::new();
    for (i, receiver) in config.receivers.iter().enumerate() {
        match one(receiver, &format!("alerting.receivers[{i}]")) {
            Ok(built) => receivers.extend(built),
            Err(found) => errors.push(found),
        }
    }
    if errors.is_empty() {
        Ok(receivers)
    } else {
        Err(errors)
    }
}

fn one(receiver: &ReceiverConfig, key: &str) -> Result<Option<Receiver>, ConfigError> {
    let (kind, seconds, notifier): (_, u64, Box<dyn Notifier>) =
        match (&receiver.webhook, &receiver.email) {
            (Some(webhook), None) => (
                "webhook",
                webhook.timeout_seconds,
                Box::new(webhook::Webhook::new(webhook, &format!("{key}.webhook"))?),
            ),
            (None, Some(email)) => (
                "email",
                email.timeout_seconds,
                Box::new(email::Email::new(
                    email,
                    &receiver.name,
                    &format!("{key}.email"),
                )?),
            ),
            // The policy has said so already.
            _ => return Ok(None),
        };
    Ok(Some(Receiver {
        name: receiver.name.clone(),
        kind,
        timeout: seconds as i64 * 1_000_000,
        notifier,
    }))
}

/// A secret from the configuration or from its file, without the line break at the file's end.
pub(crate) fn secret(
    given: &Secret,
    file: Option<&PathBuf>,
    key: &str,
) -> Result<Secret, ConfigError> {
    let Some(file) = file else {
        return Ok(given.clone());
    };
    if !given.is_empty() {
        let reason = format!("cannot be given together with {key}_file");
        return Err(ConfigError::new(key, reason));
    }
    let text = read(file, &format!("{key}_file"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(ConfigError::new(
            &format!("{key}_file"),
            "the file is empty",
        ));
    }
    Ok(Secret::new(text))
}

/// A small text file named in the configuration.
pub(crate) fn read(path: &Path, key: &str) -> Result<String, ConfigError> {
    const MAX: u64 = 1 << 20;
    let failed = |error: std::io::Error| {
        ConfigError::new(key, format!("cannot read `{}`: {error}", path.display()))
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn check_timeout(seconds: u64, key: &str) -> Result<(), ConfigError> {
    if (1..=120).contains(&seconds) {
        return Ok(());
    }
    Err(ConfigError::new(
        &format!("{key}.timeout_seconds"),
        "must be 1 to 120",
    ))
}

fn permanent(reason: impl Into<String>) -> SendError {
    SendError::Permanent {
        reason: reason.into(),
    }
}

fn transient(reason: impl Into<String>) -> SendError {
    SendError::Transient {
        reason: reason.into(),
        retry_after: None,
    }
}

fn ambiguous(reason: impl Into<String>) -> SendError {
    SendError::Ambiguous {
        reason: reason.into(),
    }
}
