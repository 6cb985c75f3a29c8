//! `/api/v1/alerts` and `/api/v1/incidents`: list, get, and what people do with an alert.
//!
//! Every change names the version of the alert that was seen, if the caller wants to be sure that nobody was
//! faster: another version is answered 409. [`change`] is also what the page's forms call.

use alerting::{Alert, Filter, State as AlertState, StoreError};
use axum::Json;
use axum::extract::{Path, Request, State};
use event::{Id, Outcome};
use serde::Deserialize;
use serde_json::{Value, json};

use super::MAX_LIMIT;
use super::evidence_search::EvidenceSearch;
use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::params::{self, Params};

/// The longest comment and the longest name.
const MAX_TEXT: usize = 8 * 1024;
const MAX_NAME: usize = 128;

/// What somebody does with an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Acknowledge,
    Assign(String),
    Comment(String),
    Resolve(String),
}

/// The body of every change; each takes what it needs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    version: Option<u64>,
    assignee: String,
    text: String,
    reason: String,
}

/// The filter that parameters ask for.
pub(crate) fn filter(params: &Params) -> Result<Filter, ApiError> {
    let states = match params.text("state") {
        None | Some("all") => Vec::new(),
        Some("open") => vec![AlertState::Firing, AlertState::Acknowledged],
        Some(word) => vec![AlertState::parse(word).ok_or_else(|| {
            ApiError::bad(
                "bad_parameter",
                "`state` is open, firing, acknowledged, resolved or all",
            )
        })?],
    };
    let incident = params
        .text("incident")
        .map(|id| params::id(id, "incident"))
        .transpose()?;
    let before =
        match params.text("cursor") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| {
                ApiError::bad("bad_cursor", "`cursor` is not one that was given out")
            })?),
        };
    Ok(Filter {
        states,
        min_severity: params.severity("severity")?,
        rule_id: params.text("rule").map(str::to_owned),
        account: params.text("account").map(str::to_owned),
        incident,
        within: None,
        text: params.or_empty("q").to_owned(),
        merged: params.flag("merged")?,
        before,
        limit: params.number("limit", 1..=MAX_LIMIT, 100)? as usize,
    })
}

/// The parameters of a list of alerts.
pub(crate) const KNOWN: &[&str] = &[
    "state", "severity", "rule", "account", "incident", "q", "merged", "cursor", "limit",
];

/// `GET /api/v1/alerts`
pub(crate) async fn list(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    params.only(KNOWN)?;
    let filter = filter(&params)?;
    let limit = filter.limit;
    let store = shared.app.store.clone();
    let alerts = blocking(move || store.alerts(&filter)).await??;
    let next = (alerts.len() == limit)
        .then(|| alerts.last().map(|a| a.seq.to_string()))
        .flatten();
    Ok(Json(json!({"alerts": alerts, "next": next})))
}

/// `GET /api/v1/alerts/{id}`
pub(crate) async fn get(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = params::id(&id, "alert")?;
    let store = shared.app.store.clone();
    let (alert, history) =
        blocking(move || -> Result<_, StoreError> { Ok((store.alert(id)?, store.history(id)?)) })
            .await??;
    let alert = alert.ok_or_else(|| ApiError::not_found("alert"))?;
    let search = EvidenceSearch::of(&shared, &alert).to_json();
    Ok(Json(
        json!({"alert": alert, "history": history, "evidence_search": search}),
    ))
}

/// `POST /api/v1/alerts/{id}/acknowledge`
pub(crate) async fn acknowledge(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = body(request).await?;
    answer(shared, client, &id, body.version, Change::Acknowledge).await
}

/// `POST /api/v1/alerts/{id}/assign`
pub(crate) async fn assign(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = body(request).await?;
    answer(
        shared,
        client,
        &id,
        body.version,
        Change::Assign(body.assignee),
    )
    .await
}

/// `POST /api/v1/alerts/{id}/comment`
pub(crate) async fn comment(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = body(request).await?;
    answer(
        shared,
        client,
        &id,
        body.version,
        Change::Comment(body.text),
    )
    .await
}

/// `POST /api/v1/alerts/{id}/resolve`
pub(crate) async fn resolve(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = body(request).await?;
    answer(
        shared,
        client,
        &id,
        body.version,
        Change::Resolve(body.reason),
    )
    .await
}

/// No body means: whatever the version, and no text.
async fn body(request: Request) -> Result<Body, ApiError> {
    let empty = request
        .headers()
        .get(axum::http::header::CONTENT_TYPE)
        .is_none();
    if empty {
        return Ok(Body::default());
    }
    params::json(request).await
}

async fn answer(
    shared: Shared,
    client: Client,
    id: &str,
    version: Option<u64>,
    change: Change,
) -> Result<Json<Value>, ApiError> {
    let id = params::id(id, "alert")?;
    let alert = self::change(&shared, &client, id, version, change).await?;
    Ok(Json(json!({ "alert": alert })))
}

/// Changes an alert and records who did it.
pub(crate) async fn change(
    shared: &Shared,
    client: &Client,
    id: Id,
    version: Option<u64>,
    change: Change,
) -> Result<Alert, ApiError> {
    let action = match &change {
        Change::Acknowledge => "AcknowledgeAlert",
        Change::Assign(_) => "AssignAlert",
        Change::Comment(_) => "CommentAlert",
        Change::Resolve(_) => "ResolveAlert",
    };
    match &change {
        Change::Comment(text) if text.trim().is_empty() => {
            return Err(ApiError::bad("empty_comment", "a comment has a text"));
        }
        Change::Comment(text) | Change::Resolve(text) if text.len() > MAX_TEXT => {
            return Err(ApiError::bad(
                "too_long",
                format!("a comment has at most {MAX_TEXT} bytes"),
            ));
        }
        Change::Assign(name) if name.len() > MAX_NAME => {
            return Err(ApiError::bad(
                "too_long",
                format!("a name has at most {MAX_NAME} bytes"),
            ));
        }
        _ => {}
    }
    let details = match &change {
        Change::Assign(name) => json!({"assignee": name}),
        _ => json!({}),
    };
    let (store, who, now) = (shared.app.store.clone(), client.name.clone(), shared.now());
    let done = blocking(move || match change {
        Change::Acknowledge => store.acknowledge(id, &who, version, now),
        Change::Assign(name) => store.assign(id, &who, name.trim(), version, now),
        Change::Comment(text) => store.comment(id, &who, text.trim(), version, now),
        Change::Resolve(reason) => store.resolve(id, &who, reason.trim(), version, now),
    })
    .await?;
    let outcome = if done.is_ok() {
        Outcome::Success
    } else {
        Outcome::Failure
    };
    shared.audit(client, action, outcome, format!("alert/{id}"), details);
    Ok(done?)
}

/// `GET /api/v1/incidents`
pub(crate) async fn incidents(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    params.only(&["state", "cursor", "limit"])?;
    let open_only = match params.text("state") {
        None | Some("all") => false,
        Some("open") => true,
        Some(_) => return Err(ApiError::bad("bad_parameter", "`state` is open or all")),
    };
    let limit = params.number("limit", 1..=MAX_LIMIT, 100)? as usize;
    let before =
        match params.text("cursor") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| {
                ApiError::bad("bad_cursor", "`cursor` is not one that was given out")
            })?),
        };
    let store = shared.app.store.clone();
    let incidents = blocking(move || store.incidents(open_only, before, limit)).await??;
    let next = (incidents.len() == limit)
        .then(|| incidents.last().map(|i| i.seq.to_string()))
        .flatten();
    Ok(Json(json!({"incidents": incidents, "next": next})))
}

/// `POST /api/v1/incidents/{id}/acknowledge`
pub(crate) async fn acknowledge_incident(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    body(request).await?;
    let id = params::id(&id, "incident")?;
    let alerts = change_incident(&shared, &client, id, Change::Acknowledge).await?;
    Ok(Json(json!({ "changed": alerts })))
}

/// `POST /api/v1/incidents/{id}/resolve`
pub(crate) async fn resolve_incident(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = body(request).await?;
    let id = params::id(&id, "incident")?;
    let alerts = change_incident(&shared, &client, id, Change::Resolve(body.reason)).await?;
    Ok(Json(json!({ "changed": alerts })))
}

/// Acknowledges or resolves all alerts of an incident that are open, and records who did it. Gives how many.
pub(crate) async fn change_incident(
    shared: &Shared,
    client: &Client,
    id: Id,
    change: Change,
) -> Result<u64, ApiError> {
    let (store, who, now) = (shared.app.store.clone(), client.name.clone(), shared.now());
    let (action, done) = match change {
        Change::Acknowledge => (
            "AcknowledgeIncident",
            blocking(move || store.acknowledge_incident(id, &who, now)).await?,
        ),
        Change::Resolve(reason) if reason.len() <= MAX_TEXT => (
            "ResolveIncident",
            blocking(move || store.resolve_incident(id, &who, reason.trim(), now)).await?,
        ),
        _ => {
            return Err(ApiError::bad(
                "bad_parameter",
                "an incident is acknowledged or resolved as a whole",
            ));
        }
    };
    let outcome = if done.is_ok() {
        Outcome::Success
    } else {
        Outcome::Failure
    };
    shared.audit(client, action, outcome, format!("incident/{id}"), json!({}));
    Ok(done?)
}
