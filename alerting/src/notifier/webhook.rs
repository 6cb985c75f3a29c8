//! Sends notifications to an HTTP endpoint as JSON.
//!
//! One POST of the [`Message`] as JSON, with the headers
//!
//! ```text
//! Idempotency-Key: <alert id>/<reason>-<number>    the same on every attempt: drop what you have seen
//! X-Trailwarden-Signature: t=<unix seconds>,v1=<hexadecimal HMAC-SHA256 of "t.body" under the secret>
//! Authorization: Bearer <token>                    if one is configured
//! ```
//!
//! To verify, compute the HMAC over `t`, a dot and the body as received, compare in constant time, and
//! refuse a `t` that is minutes away. Any 2xx answer means that the message was taken; the answer's body is
//! not read. 408, 429 and 5xx are tried again, after `Retry-After` if it is there; other answers, redirects
//! included, are final. The address is guarded ([`super::network`]), proxies are not used, and an attempt
//! takes no longer than its timeout, however slowly the other side drips.

use std::error::Error;
use std::time::Duration;

use event::Time;
use hmac::{Hmac, Mac};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, StatusCode, Url, redirect};
use sha2::Sha256;

use super::network::{Guard, Refused};
use super::{Notifier, Sending, ambiguous, check_timeout, permanent, read, secret, transient};
use crate::config::{Secret, WebhookConfig};
use crate::message::Message;
use crate::outbox::{SendError, Sent};
use crate::policy::ConfigError;

/// The header that carries the signature.
pub const SIGNATURE: &str = "X-Trailwarden-Signature";

/// A checked HTTP endpoint that takes notifications.
pub struct Webhook {
    endpoint: Endpoint,
    secret: Secret,
    bearer: Option<HeaderValue>,
}

/// An address that may be posted to, and the client that keeps to the rules on the way there.
pub struct Endpoint {
    client: Client,
    url: Url,
}

impl Endpoint {
    /// The address of a configuration with its rules (networks, TLS, timeout); `key` is where it stands there.
    pub fn new(config: &WebhookConfig, key: &str) -> Result<Endpoint, ConfigError> {
        let at = |field: &str| format!("{key}.{field}");
        check_timeout(config.timeout_seconds, key)?;
        let guard = Guard::new(&config.allow_networks)
            .map_err(|reason| ConfigError::new(&at("allow_networks"), reason))?;
        let url = secret(&config.url, config.url_file.as_ref(), &at("url"))?;
        let url = check_url(url.expose(), config.allow_http, &guard)
            .map_err(|reason| ConfigError::new(&at("url"), reason))?;
        let timeout = Duration::from_secs(config.timeout_seconds);
        let mut builder = Client::builder()
            .user_agent(concat!("trailwarden/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(timeout)
            .connect_timeout(timeout / 2)
            .pool_max_idle_per_host(1)
            .dns_resolver(guard);
        if let Some(file) = &config.ca_file {
            let pem = read(file, &at("ca_file"))?;
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|error| ConfigError::new(&at("ca_file"), error.to_string()))?;
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder
            .build()
            .map_err(|error| ConfigError::new(key, describe(&error.without_url())))?;
        Ok(Endpoint { client, url })
    }

    /// Posts JSON once. What is said of a failure never holds the address.
    pub async fn post(&self, body: String, now: Time) -> Result<Sent, SendError> {
        send(self.request(body), now).await
    }

    fn request(&self, body: String) -> RequestBuilder {
        self.client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(body)
    }
}

async fn send(request: RequestBuilder, now: Time) -> Result<Sent, SendError> {
    match request.send().await {
        Ok(response) => judge(response.status(), response.headers(), now),
        Err(error) => Err(failure(error.without_url())),
    }
}

impl Webhook {
    /// The endpoint of a configuration; `key` is where it stands there.
    pub fn new(config: &WebhookConfig, key: &str) -> Result<Webhook, ConfigError> {
        let at = |field: &str| format!("{key}.{field}");
        let endpoint = Endpoint::new(config, key)?;
        let token = secret(
            &config.bearer_token,
            config.bearer_token_file.as_ref(),
            &at("bearer_token"),
        )?;
        let bearer = match token.expose() {
            "" => None,
            token => {
                let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
                    ConfigError::new(&at("bearer_token"), "must be printable ASCII")
                })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Webhook {
            endpoint,
            secret: secret(&config.secret, config.secret_file.as_ref(), &at("secret"))?,
            bearer,
        })
    }

    async fn attempt(&self, message: &Message, body: &str, now: Time) -> Result<Sent, SendError> {
        let mut request = self
            .endpoint
            .request(body.to_owned())
            .header("Idempotency-Key", &message.idempotency_key);
        if !self.secret.is_empty() {
            let signature = sign(&self.secret, now, body.as_bytes());
            request = request.header(SIGNATURE, signature);
        }
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer.clone());
        }
        send(request, now).await
    }
}

impl Notifier for Webhook {
    fn send<'a>(&'a self, message: &'a Message, body: &'a str, now: Time) -> Sending<'a> {
        Box::pin(self.attempt(message, body, now))
    }
}

/// The URL, if it may be used. What is said about it never repeats it: it may hold a token.
fn check_url(text: &str, allow_http: bool, guard: &Guard) -> Result<Url, String> {
    if text.is_empty() {
        return Err("is missing: give it here or in url_file".into());
    }
    let url: Url = text
        .parse()
        .map_err(|error| format!("is no URL: {error}"))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => return Err("must be https; plain http needs allow_http: true".into()),
        _ => return Err("must be https".into()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or password: use bearer_token".into());
    }
    if url.fragment().is_some() {
        return Err("must not have a fragment".into());
    }
    // The URL's parser has turned decimal, octal and short forms of addresses into the usual one.
    let host = url.host_str().ok_or("has no host")?;
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(address) => guard.check(address),
        Err(_) => guard.check_name(host),
    }
    .map_err(|refused| refused.to_string())?;
    Ok(url)
}

/// The value of the signature header.
pub fn sign(secret: &Secret, now: Time, body: &[u8]) -> String {
    let seconds = now.0.div_euclid(1_000_000);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes keys of every length");
    mac.update(seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

fn judge(status: StatusCode, headers: &HeaderMap, now: Time) -> Result<Sent, SendError> {
    let reason = format!("answered {}", status.as_u16());
    if status.is_success() {
        return Ok(Sent { answer: reason });
    }
    if status.is_redirection() {
        return Err(permanent(format!(
            "{reason}, and redirects are not followed"
        )));
    }
    let again = status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT;
    if !again {
        return Err(permanent(reason));
    }
    Err(SendError::Transient {
        reason,
        retry_after: headers
            .get(RETRY_AFTER)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| retry_after(v, now)),
    })
}

/// How long to wait by a `Retry-After` header, in seconds or as a date; in microseconds.
fn retry_after(value: &str, now: Time) -> Option<i64> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(i64::from(seconds) * 1_000_000);
    }
    let date = chrono::DateTime::parse_from_rfc2822(value).ok()?;
    Some((date.timestamp_micros() - now.0).max(0))
}

/// What an attempt without an answer means: before the connection stood nothing can have arrived.
fn failure(error: reqwest::Error) -> SendError {
    let described = describe(&error);
    if chain(&error).any(|e| e.is::<Refused>()) {
        return permanent(described);
    }
    if error.is_builder() {
        return permanent(described);
    }
    if error.is_connect() {
        return transient(described);
    }
    ambiguous(described)
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e| (*e).source())
}

/// An error with its causes on one line, each said once.
fn describe(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in chain(error) {
        let text = cause.to_string();
        if parts.iter().all(|p| !p.contains(&text)) {
            parts.push(text);
        }
    }
    crate::inert::header(&parts.join(": "), 500)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Result<(), &str>) {
        let found = check_url(url, false, &Guard::default());
        match (found, expected) {
            (Ok(_), Ok(())) => {}
            (Err(found), Err(expected)) => {
                assert!(found.contains(expected), "{url}: {found}");
            }
            (found, expected) => panic!("{url}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn urls() {
        check("https://hooks.example/T0/x?y=1", Ok(()));
        check("https://8.8.8.8/", Ok(()));
        check("", Err("missing"));
        check("http://hooks.example/", Err("must be https"));
        check("file:///etc/passwd", Err("must be https"));
        check("https://user:pw@hooks.example/", Err("user or password"));
        check("https://hooks.example/#x", Err("fragment"));
        check("https://127.0.0.1/", Err("loopback"));
        check("https://0x7f.1/", Err("loopback"));
        check("https://2130706433/", Err("loopback"));
        check("https://0177.0.0.1/", Err("loopback"));
        check("https://127.1/", Err("loopback"));
        check("https://0.1.2.3/", Err("this host"));
        check("https://[::1]/", Err("loopback"));
        check("https://[::ffff:10.0.0.1]/", Err("private"));
        check("https://[2002:a00:1::]/", Err("6to4"));
        check("https://[64:ff9b::a00:1]/", Err("NAT64"));
        check("https://100.64.1.1/", Err("carrier"));
        check("https://168.63.129.16/", Err("platform"));
        check("https://169.254.169.254/latest", Err("metadata"));
        check("https://metadata.google.internal/", Err("metadata"));
        check("https://①②⑦.0.0.1/", Err("loopback"));
    }

    #[test]
    fn signatures_are_those_of_the_contract() {
        // Computed with: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        assert_eq!(
            sign(
                &Secret::new("key"),
                Time::from_seconds(1_700_000_000),
                br#"{"a":1}"#
            ),
            format!("t=1700000000,v1={EXPECTED}")
        );
    }
    const EXPECTED: &str = "a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03";

    #[test]
    fn answers() {
        let now = Time::from_seconds(1_445_412_420);
        let judge = |status: u16, after: &str| {
            let mut headers = HeaderMap::new();
            if !after.is_empty() {
                headers.insert(RETRY_AFTER, after.parse().unwrap());
            }
            super::judge(StatusCode::from_u16(status).unwrap(), &headers, now)
        };
        let wait = |status, after| match judge(status, after) {
            Err(SendError::Transient { retry_after, .. }) => retry_after.map(|m| m / 1_000_000),
            other => panic!("{other:?}"),
        };
        assert!(judge(200, "").is_ok() && judge(202, "").is_ok() && judge(204, "").is_ok());
        assert_eq!(wait(429, "120"), Some(120));
        assert_eq!(wait(503, "Wed, 21 Oct 2015 07:28:00 GMT"), Some(60));
        assert_eq!(wait(503, "soon"), None);
        assert_eq!(wait(500, ""), None);
        assert_eq!(wait(408, ""), None);
        for status in [301, 302, 307, 400, 401, 403, 404, 410, 422] {
            assert!(
                matches!(judge(status, "9"), Err(SendError::Permanent { .. })),
                "{status}"
            );
        }
    }
}
