//! `/api/v1/evidence`: a bundle of the events of a query, with what proves them.
//!
//! The bundle is made by [`search::evidence`] on a thread that may block, and takes the place of a search among those
//! that run at once. Who asked, for what, and the hash of what they got is recorded before they get it.

use ::search::evidence::bundle::{Bundle, ExportError, Order, export as make};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use event::Outcome;
use serde::Deserialize;
use serde_json::json;

use super::search::{TURN, turn};
use crate::app::{Client, Shared};
use crate::error::{ApiError, searching};
use crate::params::{self, Params};

/// How long the name of a case may be, in characters.
const MAX_CASE: usize = 200;

/// The body of the request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    query: String,
    from: Option<String>,
    to: Option<String>,
    case: String,
}

/// `POST /api/v1/evidence`
pub(crate) async fn export(
    State(shared): State<Shared>,
    client: Client,
    request: Request,
) -> Result<Response, ApiError> {
    let asked: Asked = params::json(request).await?;
    let evidence = shared.app.evidence.clone();
    let own = shared.app.searcher.own().cloned();
    let (evidence, searcher) = evidence.zip(own).ok_or_else(|| {
        ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            "other_node",
            "this node keeps no evidence log",
        )
        .hint("ask a node that runs with --role index; of several each makes a bundle of its own share")
    })?;
    let now = shared.now();
    let (from, to) = Params::of([("from", asked.from), ("to", asked.to)]).range(now)?;
    if asked.case.chars().count() > MAX_CASE {
        return Err(
            ApiError::bad("bad_parameter", "`case` is too long").hint("200 characters can be had")
        );
    }
    let order = Order {
        query: asked.query,
        from,
        to,
        case: asked.case,
        by: client.name.clone(),
        tool: evidence.tool.clone(),
        most: super::MAX_EVIDENCE,
        share: shared.app.searcher.share(),
    };
    let mut details = json!({"query": order.query, "case": order.case, "from": from, "to": to});
    let permit = turn(&shared.searches, TURN).await?;
    let made = searching(move || {
        let _permit = permit;
        let said = |object: &str| (evidence.vouched)(object);
        make(&searcher, &evidence.ledger, &order, &said, now)
    })
    .await?;
    let outcome = match &made {
        Ok(bundle) => {
            details["events"] = bundle.about.events.into();
            details["sha256"] = bundle.sha256.as_str().into();
            Outcome::Success
        }
        Err(_) => Outcome::Failure,
    };
    shared.audit(&client, "ExportEvidence", outcome, String::new(), details);
    answer(made.map_err(refused)?)
}

fn answer(bundle: Bundle) -> Result<Response, ApiError> {
    // No word of the request: a name that is the same whoever asks.
    let time: String = bundle
        .about
        .made
        .to_string()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let name = format!(
        "attachment; filename=\"evidence-{}.zip\"",
        &time[..time.len().min(15)]
    );
    Response::builder()
        .header(header::CONTENT_TYPE, "application/zip")
        .header(header::CONTENT_DISPOSITION, name)
        .header(header::CACHE_CONTROL, "no-store")
        .header("x-evidence-sha256", bundle.sha256.as_str())
        .header("x-evidence-events", bundle.about.events)
        .header("x-evidence-proven", bundle.proven)
        .body(Body::from(bundle.bytes))
        .map_err(ApiError::internal)
}

fn refused(error: ExportError) -> ApiError {
    match error {
        ExportError::Search(error) => error.into(),
        ExportError::Nothing => ApiError::new(
            StatusCode::NOT_FOUND,
            "no_events",
            "the query finds no events",
        ),
        ExportError::Large(_) => ApiError::bad("too_much", error.to_string()),
        ExportError::Partial(_) => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "incomplete",
            error.to_string(),
        )
        .retry_after(10),
        ExportError::Ledger(error) => ApiError::internal(super::with_sources(&error)),
        ExportError::Zip(error) => ApiError::internal(super::with_sources(&error)),
    }
}
