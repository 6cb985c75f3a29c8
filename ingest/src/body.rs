//! Bodies of requests: how many are in memory at once, how large they are and how long they may take.
//!
//! [`Bodies`] belongs to one endpoint. [`Bodies::receive`] reads a body within its bounds and gives a [`Body`],
//! which counts as one in memory until it is dropped: it moves into the thread that works on it, so that a
//! client that hangs up and comes again cannot have more of them than others. What a body says is not its
//! business.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::decode::{self, Limits, Reason};
use crate::refusal::Refusal;

/// The bounds of the bodies of one endpoint.
pub(crate) struct Bodies {
    limits: Limits,
    timeout: Duration,
    /// One permit for each body that is in memory.
    permits: Arc<Semaphore>,
}

/// A body as it came, with its place among those that may be in memory.
pub(crate) struct Body {
    bytes: Bytes,
    gzip: bool,
    limits: Limits,
    _permit: OwnedSemaphorePermit,
}

impl Bodies {
    /// Bodies of at most [`Limits::object_bytes`], compressed or not, each of which arrives within `timeout`.
    pub(crate) fn new(limits: Limits, concurrency: usize, timeout: Duration) -> Bodies {
        Bodies {
            limits,
            timeout,
            permits: Arc::new(Semaphore::new(concurrency.max(1))),
        }
    }

    /// The layer that cuts larger bodies off.
    pub(crate) fn layer(&self) -> DefaultBodyLimit {
        DefaultBodyLimit::max(usize::try_from(self.limits.object_bytes).unwrap_or(usize::MAX))
    }

    /// Reads the body of a request to which [`Bodies::layer`] was applied.
    pub(crate) async fn receive(&self, request: Request) -> Result<Body, Refusal> {
        let gzip = is_gzip(request.headers())?;
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Err(Refusal::busy());
        };
        let bytes = tokio::time::timeout(self.timeout, Bytes::from_request(request, &()))
            .await
            .map_err(|_| {
                Refusal::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "body_too_slow",
                    "the body did not arrive in time",
                    "send smaller bodies",
                )
            })?
            .map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Refusal::too_large(self.limits.object_bytes),
                status => Refusal::new(
                    status,
                    "body_unreadable",
                    "the body could not be read",
                    "send the request again",
                ),
            })?;
        Ok(Body {
            bytes,
            gzip,
            limits: self.limits,
            _permit: permit,
        })
    }
}

impl Body {
    /// The bytes as they came.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The body without its compression.
    pub(crate) fn unpacked(&self) -> Result<Cow<'_, [u8]>, Refusal> {
        if self.gzip && !self.bytes.starts_with(decode::GZIP) && !self.bytes.is_empty() {
            return Err(Refusal::unusable(
                Reason::CorruptGzip,
                "the body is not gzip",
            ));
        }
        decode::unpacked(&self.bytes, &self.limits)
            .map_err(|(reason, message)| Refusal::unusable(reason, message))
    }
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Refusal> {
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(false);
    };
    match encoding.to_str().map(|e| e.trim().to_ascii_lowercase()) {
        Ok(e) if e == "identity" || e.is_empty() => Ok(false),
        Ok(e) if e == "gzip" || e == "x-gzip" => Ok(true),
        _ => Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "this content encoding is not supported",
            "send the body plain or with Content-Encoding: gzip",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_counts_until_it_is_dropped() {
        let bodies = Bodies::new(Limits::of_bodies(), 1, Duration::from_secs(60));
        let request = || Request::new("{}".into());
        let body = bodies.receive(request()).await.unwrap();
        let refused = bodies.receive(request()).await.err();
        assert_eq!(refused, Some(Refusal::busy()));
        drop(body);
        assert!(bodies.receive(request()).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let bodies = Bodies::new(Limits::of_bodies(), 1, Duration::from_millis(1));
        let pending = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::new(axum::body::Body::from_stream(pending));
        let refused = bodies.receive(request).await.err().unwrap();
        assert_eq!(refused.code, "body_too_slow");
    }
}
