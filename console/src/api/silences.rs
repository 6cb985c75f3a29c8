//! `/api/v1/silences`: list, create, expire.
//!
//! What a silence may be is decided by `alerting`: one that covers everything must be confirmed, is short and
//! never covers a critical alert.

use alerting::silence::{NewSilence, Silence};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use event::Outcome;
use serde_json::{Value, json};

use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::params::{self, Params};

/// `GET /api/v1/silences`
pub(crate) async fn list(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    params.only(&["ended"])?;
    let (ended, now, store) = (
        params.flag("ended")?,
        shared.now(),
        shared.app.store.clone(),
    );
    let silences = blocking(move || store.silences(ended, now)).await??;
    Ok(Json(json!({ "silences": silences })))
}

/// `POST /api/v1/silences`
pub(crate) async fn create(
    State(shared): State<Shared>,
    client: Client,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let new: NewSilence = params::json(request).await?;
    let silence = add(&shared, &client, new).await?;
    Ok((StatusCode::CREATED, Json(json!({ "silence": silence }))))
}

/// `POST /api/v1/silences/{id}/expire`
pub(crate) async fn expire(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let silence = end(&shared, &client, &id).await?;
    Ok(Json(json!({ "silence": silence })))
}

/// Makes a silence and records who did it.
pub(crate) async fn add(
    shared: &Shared,
    client: &Client,
    new: NewSilence,
) -> Result<Silence, ApiError> {
    let details = json!({"matchers": new.matchers, "ends": new.ends, "comment": new.comment});
    let (store, who, now) = (shared.app.store.clone(), client.name.clone(), shared.now());
    let made = blocking(move || store.add_silence(&new, &who, now)).await?;
    let (outcome, resource) = match &made {
        Ok(silence) => (Outcome::Success, format!("silence/{}", silence.id)),
        Err(_) => (Outcome::Failure, String::new()),
    };
    shared.audit(client, "CreateSilence", outcome, resource, details);
    Ok(made?)
}

/// Ends a silence and records who did it.
pub(crate) async fn end(shared: &Shared, client: &Client, id: &str) -> Result<Silence, ApiError> {
    let id: u64 = id.parse().map_err(|_| ApiError::not_found("silence"))?;
    let (store, who, now) = (shared.app.store.clone(), client.name.clone(), shared.now());
    let ended = blocking(move || store.expire_silence(id, &who, now)).await?;
    let outcome = if ended.is_ok() {
        Outcome::Success
    } else {
        Outcome::Failure
    };
    shared.audit(
        client,
        "ExpireSilence",
        outcome,
        format!("silence/{id}"),
        json!({}),
    );
    Ok(ended?)
}
