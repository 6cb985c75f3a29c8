//! `/api/v1/search/rule`: a query as a Sigma rule that matches the same events.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::error::ApiError;
use crate::params::Params;

/// `GET /api/v1/search/rule`
pub(crate) async fn get(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    params.only(&["q"])?;
    let rule = written(&shared, params.or_empty("q"))?;
    Ok(Json(json!({ "rule": rule })))
}

/// The rule, or why a rule cannot say it.
pub(crate) fn written(shared: &Shared, query: &str) -> Result<String, ApiError> {
    ::search::query::parse(query).map_err(::search::SearchError::from)?;
    (shared.app.as_rule)(query).map_err(|why| {
        ApiError::bad("no_rule", format!("this search cannot be a rule: {why}"))
            .hint("docs/search.md tells what a rule can say")
    })
}
