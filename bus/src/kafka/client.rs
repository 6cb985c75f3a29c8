//! What all clients of the brokers share: where their words and numbers go, and how they get a token.
//!
//! [`Context`] is given to every consumer and producer of librdkafka. It sends the library's log lines and errors to
//! ours, counts errors and rebalances, and answers when the library asks for a bearer token. A token comes from a file
//! or a program, so that every managed Kafka can be had with its own signer; when it ends is read from the token
//! itself where it is a JSON web token.

use std::error::Error;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use super::config::{Sasl, read_secret};
use crate::BusError;

/// How long a token is used that does not say when it ends.
const TOKEN_SECONDS: i64 = 300;

/// What the clients count; read by [`crate::metrics`].
#[derive(Debug, Default)]
pub struct Numbers {
    /// Errors of connections and brokers.
    pub broker_errors: AtomicU64,
    /// How often partitions were given or taken.
    pub rebalances: AtomicU64,
    /// Records on their way to the brokers.
    pub queue_records: AtomicU64,
    /// Their bytes.
    pub queue_bytes: AtomicU64,
    /// Producers that failed for good and were replaced.
    pub producer_restarts: AtomicU64,
    /// Commits that came second.
    pub fenced: AtomicU64,
    /// How often the state of a partition was restored from the brokers.
    pub restores: AtomicU64,
    /// How long that took in all, in milliseconds.
    pub restore_millis: AtomicU64,
    /// Snapshots of state written.
    pub snapshots: AtomicU64,
}

/// The context of a client.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) numbers: Arc<Numbers>,
    sasl: Option<Arc<Sasl>>,
    /// Why connections fail, in the words of the library.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Context {
    pub(super) fn new(numbers: Arc<Numbers>, sasl: Option<Sasl>) -> Context {
        Context {
            numbers,
            sasl: sasl.map(Arc::new),
            trouble: Arc::default(),
        }
    }

    /// A call that failed because brokers cannot be had is told so by the library; this adds why they cannot.
    pub(super) fn explain(&self, error: BusError) -> BusError {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (error, trouble.as_deref()) {
            (BusError::Unavailable { action, reason }, Some(trouble)) => BusError::Unavailable {
                action,
                reason: format!("{reason} ({trouble})"),
            },
            (error, _) => error,
        }
    }

    fn token(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let sasl = self.sasl.as_deref().ok_or("no login is configured")?;
        let token = match (&sasl.token_file, sasl.token_command.split_first()) {
            (Some(path), _) => read_secret(path)?,
            (None, Some((program, arguments))) => {
                let output = Command::new(program).args(arguments).output()?;
                if !output.status.success() {
                    return Err(
                        format!("token_command `{program}` ended with {}", output.status).into(),
                    );
                }
                String::from_utf8(output.stdout)?.trim().to_owned()
            }
            (None, None) => return Err("neither token_file nor token_command is set".into()),
        };
        let (principal, expires) = claims(&token);
        let expires = expires.unwrap_or_else(|| now_seconds() + TOKEN_SECONDS);
        Ok(OAuthToken {
            token,
            principal_name: principal.unwrap_or_else(|| "trailwarden".into()),
            lifetime_ms: expires.saturating_mul(1_000),
        })
    }
}

/// Subject and end of a JSON web token; what is none has neither.
fn claims(token: &str) -> (Option<String>, Option<i64>) {
    let body = token.split('.').nth(1).and_then(base64_url);
    let claims: serde_json::Value = body
        .and_then(|b| serde_json::from_slice(&b).ok())
        .unwrap_or_default();
    let end = &claims["exp"];
    (
        claims["sub"].as_str().map(str::to_owned),
        end.as_i64().or_else(|| end.as_f64().map(|e| e as i64)),
    )
}

fn base64_url(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .ok()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the end of a token is a moment of the wall clock that the broker reads too"
)]
fn now_seconds() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64)
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::debug!(facility = fac, "kafka client: {log_message}");
            }
            _ => tracing::trace!(facility = fac, "kafka client: {log_message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.numbers.broker_errors.fetch_add(1, Ordering::Relaxed);
        if let Some(
            RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::BrokerTransportFailure,
        ) = error.rdkafka_error_code()
        {
            let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            *trouble = Some(reason.to_owned());
        }
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SSL,
            ) => {
                tracing::warn!("kafka: {reason}");
            }
            _ => tracing::debug!(%error, "kafka: {reason}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.client_type == "producer" {
            let numbers = &self.numbers;
            numbers
                .queue_records
                .store(statistics.msg_cnt, Ordering::Relaxed);
            numbers
                .queue_bytes
                .store(statistics.msg_size, Ordering::Relaxed);
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.token().inspect_err(|error| {
            tracing::error!(%error, "no token for the brokers");
        })
    }
}

impl ConsumerContext for Context {}

/// Says that the brokers could not be had for something.
pub(super) fn unavailable(action: impl Into<String>, error: &KafkaError) -> BusError {
    BusError::Unavailable {
        action: action.into(),
        reason: error
            .rdkafka_error_code()
            .map_or_else(|| error.to_string(), |code| code.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_who_and_until_when() {
        use base64::Engine;
        let body = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .encode(r#"{"sub":"alice","exp":1780000000}"#);
        assert_eq!(
            claims(&format!("e30.{body}.")),
            (Some("alice".into()), Some(1_780_000_000))
        );
        assert_eq!(claims("opaque"), (None, None));
        assert_eq!(claims("a.!!.c"), (None, None));
    }

    #[test]
    fn a_token_comes_from_a_program() {
        let sasl = Sasl {
            token_command: vec!["echo".into(), "opaque".into()],
            ..Sasl::default()
        };
        let token = Context::new(Arc::default(), Some(sasl)).token().unwrap();
        assert_eq!(token.token, "opaque");
        let sasl = Sasl {
            token_command: vec!["false".into()],
            ..Sasl::default()
        };
        let error = Context::new(Arc::default(), Some(sasl))
            .token()
            .err()
            .unwrap();
        assert!(error.to_string().contains("`false` ended"), "{error}");
    }
}
