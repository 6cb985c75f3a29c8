//! `/api/v1/rules`: the rules that are loaded.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use event::{Outcome, RuleInfo};
use serde_json::{Value, json};

use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::params::Params;

/// `GET /api/v1/rules`: without the YAML, which each rule's own address has.
pub(crate) async fn list(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    params.only(&[])?;
    let rules: Vec<RuleInfo> = shared
        .rules()
        .iter()
        .map(|rule| RuleInfo {
            yaml: String::new(),
            ..rule.clone()
        })
        .collect();
    Ok(Json(json!({ "rules": rules })))
}

/// `GET /api/v1/rules/{id}`
pub(crate) async fn get(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let rule = shared
        .rule(&id)
        .ok_or_else(|| ApiError::not_found("rule"))?;
    Ok(Json(json!({ "rule": rule })))
}

/// `POST /api/v1/rules/reload`: the rules of this node, from its files. What cannot be loaded is refused as a whole, with
/// the problems, and the old rules run on.
pub(crate) async fn reload(
    State(shared): State<Shared>,
    client: Client,
) -> Result<Json<Value>, ApiError> {
    let reload = shared.app.reload.clone();
    let result = blocking(move || reload()).await?;
    let (outcome, words) = match &result {
        Ok(words) => (Outcome::Success, words.clone()),
        Err(_) => (Outcome::Failure, "refused".to_owned()),
    };
    shared.audit(
        &client,
        "ReloadRules",
        outcome,
        String::new(),
        json!({ "result": words }),
    );
    let result = result.map_err(|problems| {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "rules_refused", problems)
            .hint("the old rules run on; mend the files, they are looked at again by themselves")
    })?;
    Ok(Json(json!({ "result": result })))
}
