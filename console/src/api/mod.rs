//! The HTTP API for programs: JSON in, JSON out, one file a resource.
//!
//! Handlers check what was sent, call the searcher or the store on a thread that may block, record who did
//! what, and answer. Lists are `{"<name>": […], "next": cursor or null}`. Errors are
//! `{"error": {"code", "message", "hint", "request_id"}}`. The store's and the searcher's errors become
//! statuses here and nowhere else.

pub(crate) mod alerts;
pub(crate) mod evidence;
pub(crate) mod evidence_search;
pub(crate) mod export;
pub(crate) mod feed;
pub(crate) mod health;
pub(crate) mod holds;
pub(crate) mod index;
pub(crate) mod investigate;
pub(crate) mod notifications;
pub(crate) mod openapi;
pub(crate) mod rules;
pub(crate) mod search;
pub(crate) mod search_rule;
pub(crate) mod searches;
pub(crate) mod silences;

use ::search::SearchError;
use alerting::StoreError;
use alerting::saved::SavedError;
use axum::http::StatusCode;

use crate::error::ApiError;

/// The longest list that is given at once.
pub(crate) const MAX_LIMIT: u64 = 1_000;

/// The most events of one evidence bundle.
pub(crate) const MAX_EVIDENCE: usize = 100_000;

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::NotFound(what) => ApiError::not_found(what),
            StoreError::Conflict { .. } => ApiError::new(
                StatusCode::CONFLICT,
                "changed_meanwhile",
                "somebody else has changed this since you looked at it",
            )
            .hint("load it again and repeat with its new version"),
            StoreError::Refused(why) => ApiError::new(StatusCode::CONFLICT, "refused", why),
            StoreError::Silence(why) => ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "bad_silence",
                why.to_string(),
            ),
            StoreError::Saved(why) => saved(&why),
            other if other.is_transient() => {
                let error = ApiError::internal(with_sources(&other));
                ApiError {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    code: "store_away",
                    message: "the database of the alerts could not be reached".into(),
                    ..error
                }
                .retry_after(5)
            }
            other => ApiError::internal(with_sources(&other)),
        }
    }
}

/// Why a search is not saved.
fn saved(why: &SavedError) -> ApiError {
    let (status, code, hint) = match why {
        SavedError::Exists { .. } => (
            StatusCode::CONFLICT,
            "exists",
            "choose another name, or give `overwrite=true` to put this search in its place",
        ),
        SavedError::Full => (
            StatusCode::CONFLICT,
            "full",
            "`GET /api/v1/searches` lists them",
        ),
        SavedError::Name => (StatusCode::BAD_REQUEST, "bad_name", ""),
        SavedError::TooLong { .. } => (StatusCode::BAD_REQUEST, "too_long", ""),
    };
    ApiError::new(status, code, why.to_string()).hint(hint)
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> ApiError {
        match error {
            SearchError::Query(query) => {
                let mut answer = ApiError::bad("bad_query", query.to_string()).hint(query.hint());
                answer.offset = Some(query.offset);
                answer
            }
            SearchError::ReversedRange { .. } => {
                ApiError::bad("reversed_range", error.to_string()).hint("exchange the two ends")
            }
            SearchError::Limit { .. } => ApiError::bad("bad_parameter", error.to_string()),
            SearchError::Pivot(_) => {
                ApiError::bad("bad_parameter", "nothing is known of this field as a pivot").hint(
                    format!(
                        "`field` is one of {}",
                        ::search::investigate::PIVOTS.join(", ")
                    ),
                )
            }
            SearchError::Aggregation(wrong) => {
                ApiError::bad("bad_aggregation", wrong.message).hint(wrong.hint)
            }
            SearchError::Missing(why) => missing(&why),
            SearchError::Cut(why) => incomplete(&why),
            other => ApiError::internal(with_sources(&other)),
        }
    }
}

/// 503 where index nodes would be needed that do not answer.
pub(crate) fn missing(why: &str) -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "index_node_missing",
        format!("not every index node answered: {why}"),
    )
    .hint("the page Health shows which nodes are missing, and since when")
    .retry_after(5)
}

/// 503 for what cannot be given in part.
pub(crate) fn incomplete(why: &str) -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "incomplete",
        format!("not everything could be read: {why}"),
    )
    .retry_after(10)
}

/// An error with everything that caused it, for the log.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
