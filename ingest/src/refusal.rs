//! Why an intake endpoint does not take a request.
//!
//! A [`Refusal`] has a status, a word for programs and texts for people; nothing of what was sent is in them.
//! [`crate::push`] and [`crate::firehose`] make the same refusals of the same faults and differ only in how
//! they write them down, since their callers read different forms.

use axum::http::StatusCode;
use bus::BusError;
use event::Time;

use crate::decode::{self, Reason};
use crate::metrics::Metrics;
use crate::status::Failure;

/// The status, a word for programs, and texts for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: &'static str,
}

impl Refusal {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        hint: &'static str,
    ) -> Refusal {
        Refusal {
            status,
            code,
            message: message.into(),
            hint,
        }
    }

    /// More bodies at once than may be in memory.
    pub(crate) fn busy() -> Refusal {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "too many bodies at once",
            "send the request again after the time in Retry-After",
        )
    }

    /// A body of more than `limit` bytes.
    pub(crate) fn too_large(limit: u64) -> Refusal {
        let message = format!("body passed {}", decode::in_units(limit));
        Refusal::unusable(Reason::BodyTooLarge, message)
    }

    /// A body of which nothing can be used.
    pub(crate) fn unusable(reason: Reason, message: impl Into<String>) -> Refusal {
        let status = match reason {
            Reason::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        let hint = match reason {
            Reason::BodyTooLarge => "send several smaller bodies",
            Reason::JsonTooDeep => "flatten the records: 64 levels are taken",
            Reason::CorruptGzip => "compress the body again, or send it plain",
            Reason::RecordTooLarge => "one record is larger than is taken",
            _ => "send JSON lines, a JSON array, one JSON object, or {\"Records\": […]}",
        };
        Refusal::new(status, reason.as_str(), message, hint)
    }

    /// The log takes no writes. Counts the failure, and has the collector `kind` say so.
    pub(crate) fn unavailable(
        error: &BusError,
        metrics: &Metrics,
        kind: &'static str,
        now: Time,
    ) -> Refusal {
        let post = metrics.collectors.post(kind, "");
        post.failed("log", Failure::of_log(error), now);
        let word = match error {
            BusError::DiskFull { .. } => "disk_full",
            BusError::Poisoned { .. } => "poisoned",
            _ => "bus",
        };
        metrics.errors.with_label_values(&[word]).inc();
        tracing::error!(%error, "cannot append what was sent");
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "log_unavailable",
            "the log takes no writes at the moment",
            "send the request again after the time in Retry-After; nothing is counted twice",
        )
    }

    /// The thread that worked on a body ended without a result.
    pub(crate) fn internal() -> Refusal {
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "decoding stopped unexpectedly",
            "the server's log says more",
        )
    }
}
