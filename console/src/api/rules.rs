//! `/api/v1/rules`: the rules that are loaded.

use axum::Json;
use axum::extract::{Path, State};
use event::RuleInfo;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::error::ApiError;
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
