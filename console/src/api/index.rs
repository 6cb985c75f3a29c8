//! `/api/v1/index`: what other nodes ask of this node's index.
//!
//! The words are those of [`search::nodes`]. A question takes a place among those that are answered at once, which are
//! others than those of people, and is answered on a thread that may block; how long that may take and how large an
//! answer may be is bounded there. It is not recorded: the node that asks has recorded the search of whoever asked it.

use axum::extract::{FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::search::busy;
use crate::app::Shared;
use crate::error::{ApiError, searching};
use crate::guard::too_large;

/// `POST /api/v1/index`
pub(crate) async fn post(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, ApiError> {
    let own = shared.app.searcher.own().cloned();
    let own = own.ok_or_else(|| {
        ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            "other_node",
            "this node does not have the role index",
        )
        .hint("ask a node that runs with --role index")
    })?;
    let permit = shared
        .questions
        .clone()
        .try_acquire_owned()
        .map_err(|_| busy())?;
    let question = Bytes::from_request(request, &())
        .await
        .map_err(|_| too_large())?;
    let answer = searching(move || {
        let _permit = permit;
        let reply = own.reply_to(&question).map_err(|_| {
            ApiError::bad("bad_body", "the body is no question of a node")
                .hint("only nodes of Trailwarden ask here; people and programs ask /api/v1/search")
        })?;
        serde_json::to_vec(&reply).map_err(ApiError::internal)
    })
    .await??;
    Ok(([(header::CONTENT_TYPE, "application/json")], answer).into_response())
}
