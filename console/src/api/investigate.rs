//! `/api/v1/investigate`: what somebody or something did around a time, what of it is new, and the sessions around it.

use ::search::investigate::{Chain, Investigation, Link, Pivot, USUAL_DAYS};
use axum::Json;
use axum::extract::State;
use event::Event;
use serde_json::{Value, json};

use super::search::recorded;
use crate::app::{Client, Shared};
use crate::error::ApiError;
use crate::params::Params;

/// `GET /api/v1/investigate`
pub(crate) async fn get(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    params.only(&["field", "value", "around", "hours", "limit"])?;
    let needed = |name: &str| {
        let text = params.text(name).map(str::to_owned);
        text.ok_or_else(|| ApiError::bad("bad_parameter", format!("`{name}` is missing")))
    };
    let now = shared.now();
    let pivot = Pivot {
        field: needed("field")?,
        value: needed("value")?,
        around: params.time("around", now)?.unwrap_or(now),
        hours: params.number("hours", 1..=720, 24)? as i64,
        limit: params.number("limit", 0..=super::MAX_LIMIT, 100)? as usize,
    };
    let asked = ::search::Request {
        query: format!("{}:{}", pivot.field, pivot.value),
        limit: pivot.limit,
        ..::search::Request::default()
    };
    let inside = shared.clone();
    let (found, chain) = recorded(&shared, &client, &asked, "Search", move |searcher| {
        let mut found = searcher.investigate(&pivot)?;
        let events = found.events.iter_mut();
        events.for_each(|e| (inside.app.integrity)(e));
        let chain = match pivot.field.as_str() {
            "access_key" => searcher.role_chain(&pivot.value)?,
            _ => Chain::default(),
        };
        Ok((found, chain))
    })
    .await?;
    Ok(Json(investigation(&found, &chain)))
}

/// An investigation as JSON: what was found, and for an access key the sessions around it.
pub fn investigation(found: &Investigation, chain: &Chain) -> Value {
    json!({
        "query": found.query,
        "from": found.from,
        "to": found.to,
        "matched": found.matched,
        "usual": found.usual,
        "usual_days": USUAL_DAYS,
        "first_seen": found.first_seen,
        "last_seen": found.last_seen,
        "profile": found.profile,
        "events": found.events.iter().map(Event::to_json).collect::<Vec<_>>(),
        "assumed_by": chain.up.iter().map(link).collect::<Vec<_>>(),
        "assumed": chain.down.iter().map(link).collect::<Vec<_>>(),
        "partial": found.partial.as_ref().or(chain.partial.as_ref()),
    })
}

fn link(link: &Link) -> Value {
    let short = |event: &Event| {
        json!({
            "id": event.id,
            "time": event.time,
            "account": event.account,
            "actor": event.actor,
            "action": event.action,
        })
    };
    json!({
        "by": link.by,
        "actor": link.actor,
        "access_key": link.access_key,
        "session": link.session,
        "event": short(&link.event),
        "elsewhere": link.elsewhere.iter().map(short).collect::<Vec<_>>(),
    })
}
