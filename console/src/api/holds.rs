//! `/api/v1/holds`: legal holds, which keep splits of the index from being removed.
//!
//! A node holds what it has itself. Every answer says which of how many index nodes it is of, so that whoever sets a hold
//! on several nodes sees that none was left out. What a hold is, and what it keeps, is the business of [`search::hold`].

use ::search::hold::{Covered, Hold, HoldError, NewHold};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use event::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::{Client, Index, Shared};
use crate::error::{ApiError, blocking};
use crate::params::{self, Params};

/// A hold and what it keeps now.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Shown {
    /// The hold.
    #[serde(flatten)]
    pub(crate) hold: Hold,
    /// What it keeps.
    pub(crate) covered: Covered,
}

/// The body of a new hold.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    name: String,
    from: Option<String>,
    to: Option<String>,
    query: String,
    reason: String,
}

/// The body of a release.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    reason: String,
}

/// `GET /api/v1/holds`
pub(crate) async fn list(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    params.only(&[])?;
    let index = index(&shared)?;
    let holds = blocking({
        let index = index.clone();
        move || shown(&index)
    })
    .await?;
    Ok(Json(
        json!({"node": index.node, "nodes": index.nodes, "holds": holds}),
    ))
}

/// `POST /api/v1/holds`
pub(crate) async fn add(
    State(shared): State<Shared>,
    client: Client,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: Asked = params::json(request).await?;
    let (index, now) = (index(&shared)?, shared.now());
    let (from, to) = Params::of([("from", asked.from), ("to", asked.to)]).range(now)?;
    let new = NewHold {
        name: asked.name,
        from,
        to,
        query: asked.query,
        reason: asked.reason,
    };
    let details = json!({
        "from": from, "to": to, "query": new.query, "reason": new.reason, "node": index.node,
    });
    let (by, holds) = (client.name.clone(), index.holds.clone());
    let made = blocking(move || holds.add(&new, &by, now)).await?;
    record(&shared, &client, "AddHold", &made, details);
    let hold = made?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"node": index.node, "nodes": index.nodes, "hold": hold})),
    ))
}

/// `POST /api/v1/holds/{name}/release`
pub(crate) async fn release(
    State(shared): State<Shared>,
    client: Client,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let Release { reason } = params::json(request).await?;
    let index = index(&shared)?;
    let details = json!({"reason": reason, "node": index.node});
    let holds = index.holds.clone();
    let released = blocking(move || holds.release(&name, &reason)).await?;
    record(&shared, &client, "ReleaseHold", &released, details);
    let hold = released?;
    Ok(Json(
        json!({"node": index.node, "nodes": index.nodes, "hold": hold}),
    ))
}

/// The holds of this node, each with what it keeps.
pub(crate) fn shown(index: &Index) -> Vec<Shown> {
    let covered = index.holds.covered(&index.searcher);
    let holds = index.holds.kept().holds.into_iter();
    holds
        .zip(covered)
        .map(|(hold, covered)| Shown { hold, covered })
        .collect()
}

fn index(shared: &Shared) -> Result<Index, ApiError> {
    shared.app.index.clone().ok_or_else(|| {
        ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            "other_node",
            "this node has no index",
        )
        .hint("ask a node that runs with --role index")
    })
}

fn record(
    shared: &Shared,
    client: &Client,
    action: &'static str,
    done: &Result<Hold, HoldError>,
    details: Value,
) {
    let (outcome, resource) = match done {
        Ok(hold) => (Outcome::Success, format!("hold/{}", hold.name)),
        Err(_) => (Outcome::Failure, String::new()),
    };
    shared.audit(client, action, outcome, resource, details);
}

impl From<HoldError> for ApiError {
    fn from(error: HoldError) -> ApiError {
        match error {
            HoldError::Query(query) => {
                let mut answer = ApiError::bad("bad_query", query.to_string()).hint(query.hint());
                answer.offset = Some(query.offset);
                answer
            }
            HoldError::Unknown(_) => ApiError::not_found("hold"),
            HoldError::Exists(_) => ApiError::new(
                StatusCode::CONFLICT,
                "exists",
                "there is another hold of this name",
            )
            .hint("release it first, or choose another name"),
            HoldError::Name(_) => ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "bad_hold",
                "the name is none: 1 to 64 letters, digits, `.`, `_` and `-`",
            ),
            HoldError::Reason
            | HoldError::Nothing
            | HoldError::Many
            | HoldError::Reversed { .. } => ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "bad_hold",
                error.to_string(),
            ),
            HoldError::Bus(_) | HoldError::State(_) => {
                let internal = ApiError::internal(super::with_sources(&error));
                ApiError {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    code: "not_kept",
                    message: "the change could not be made durable, and did not take effect".into(),
                    ..internal
                }
                .retry_after(5)
            }
        }
    }
}
