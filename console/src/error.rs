//! The one error that every route answers with, as JSON for programs and as a page for people.
//!
//! [`ApiError`] carries what the client is told: a status, a fixed code, a message and a hint. It never
//! repeats what the client sent, since that may be hostile. What happened inside is logged where the error
//! is made ([`ApiError::internal`]), under the request id that the client sees. [`REQUEST`] is set by
//! `guard` around every request, so that an error made anywhere knows its request.

use std::fmt::Display;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use search::priority;

use crate::pages::layout;

/// What is known of the request being answered.
#[derive(Debug, Clone)]
pub(crate) struct RequestInfo {
    /// Shown in errors and in the log.
    pub(crate) id: String,
    /// Does the client want a page rather than JSON?
    pub(crate) page: bool,
    /// The theme that the browser's cookie asks for.
    pub(crate) theme: Option<&'static str>,
}

tokio::task_local! {
    /// The request being answered.
    pub(crate) static REQUEST: RequestInfo;
}

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// A fixed word for programs.
    pub code: &'static str,
    /// What is wrong, for people.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// When to come back, in seconds, for 429 and 503.
    pub retry_after: Option<u64>,
    /// Where in a query the mistake is, in bytes.
    pub offset: Option<usize>,
}

impl ApiError {
    /// An error without a hint.
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
    ) -> ApiError {
        ApiError {
            status,
            code,
            message: message.into(),
            hint: String::new(),
            retry_after: None,
            offset: None,
        }
    }

    /// The same with a hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> ApiError {
        self.hint = hint.into();
        self
    }

    /// The same with a time to come back.
    pub(crate) fn retry_after(mut self, seconds: u64) -> ApiError {
        self.retry_after = Some(seconds);
        self
    }

    /// 400 with a message.
    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404 for a thing that is not there, or that this client may not know of.
    pub(crate) fn not_found(what: &str) -> ApiError {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("no such {what}"),
        )
    }

    /// 500: the cause goes to the log, the client gets the request id.
    pub(crate) fn internal(cause: impl Display) -> ApiError {
        let id = REQUEST.try_with(|r| r.id.clone()).unwrap_or_default();
        tracing::error!(request_id = %id, %cause, "request failed");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the request could not be served",
        )
        .hint("the log has the cause under this request id")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let info = REQUEST.try_with(Clone::clone).ok();
        let id = info.as_ref().map_or("", |i| i.id.as_str());
        let mut response = if info.as_ref().is_some_and(|i| i.page) {
            layout::error_page(&self, id).into_response()
        } else {
            let mut error = serde_json::json!({
                "code": self.code,
                "message": self.message,
                "hint": self.hint,
                "request_id": id,
            });
            if let Some(offset) = self.offset {
                error["offset"] = offset.into();
            }
            Json(serde_json::json!({ "error": error })).into_response()
        };
        *response.status_mut() = self.status;
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Runs what blocks (index, database, password hash) on a thread that may block, with its request still known.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let info = REQUEST.try_with(Clone::clone).ok();
    let task = tokio::task::spawn_blocking(move || match info {
        Some(info) => REQUEST.sync_scope(info, work),
        None => work(),
    });
    task.await.map_err(ApiError::internal)
}

/// [`blocking`] for what searches: on a thread of its own that steps back, so that detection goes first where the cores are
/// busy.
pub(crate) async fn searching<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let info = REQUEST.try_with(Clone::clone).ok();
    let (done, result) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("search".into());
    let started = thread.spawn(move || {
        priority::step_back(priority::SEARCH);
        let found = match info {
            Some(info) => REQUEST.sync_scope(info, work),
            None => work(),
        };
        // Whoever asked may have gone.
        let _ = done.send(found);
    });
    started.map_err(ApiError::internal)?;
    result.await.map_err(ApiError::internal)
}
