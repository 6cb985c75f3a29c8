//! `/api/v1/investigate`: what somebody or something did around a time, what of it is new, and the sessions around it.

use ::search::investigate::{Chain, Investigation, Link, Pivot, USUAL_DAYS};
use ::search::query::{Field, Query, Test};
use axum::Json;
use axum::extract::State;
use event::{Event, Time};
use serde_json::{Value, json};

use super::MAX_LIMIT;
use super::search::recorded;
use crate::app::{Client, Shared};
use crate::error::ApiError;
use crate::params::Params;

const HOUR: i64 = 3_600_000_000;

/// `GET /api/v1/investigate`
pub(crate) async fn get(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let pivot = pivot(&params, shared.now(), MAX_LIMIT, 100)?;
    let (found, chain) = look(&shared, &client, pivot).await?;
    Ok(Json(investigation(&found, &chain)))
}

/// The parameters of an investigation.
pub(crate) const KNOWN: &[&str] = &["field", "value", "around", "hours", "limit"];
/// How many hours a window reaches to each side at most.
pub(crate) const MAX_HOURS: u64 = 720;

/// What parameters ask for: at most `most` events, and `usual` if it is not said.
pub(crate) fn pivot(params: &Params, now: Time, most: u64, usual: u64) -> Result<Pivot, ApiError> {
    params.only(KNOWN)?;
    let needed = |name: &str| {
        let text = params.text(name).map(str::to_owned);
        text.ok_or_else(|| {
            ApiError::bad("bad_parameter", format!("`{name}` is missing"))
                .hint("`field` and `value` say what to look into, such as field=identity&value=ada")
        })
    };
    Ok(Pivot {
        field: needed("field")?,
        value: needed("value")?,
        around: params.time("around", now)?,
        now,
        hours: params.number("hours", 1..=MAX_HOURS, 24)? as i64,
        limit: params.number("limit", 0..=most, usual)? as usize,
    })
}

/// Looks into it, for an access key with the sessions around it, and records who did.
pub(crate) async fn look(
    shared: &Shared,
    client: &Client,
    pivot: Pivot,
) -> Result<(Investigation, Chain), ApiError> {
    let asked = ::search::Request {
        query: query(&pivot),
        from: pivot.around.map(|t| t.plus(-pivot.hours * HOUR)),
        to: pivot.around.map(|t| t.plus(pivot.hours * HOUR)),
        limit: pivot.limit,
        ..::search::Request::default()
    };
    let inside = shared.clone();
    recorded(shared, client, &asked, "Search", move |searcher| {
        let mut found = searcher.investigate(&pivot)?;
        let events = found.events.iter_mut();
        events.for_each(|e| (inside.app.integrity)(e));
        let chain = match pivot.field.as_str() {
            "access_key" => searcher.role_chain(&pivot.value)?,
            _ => Chain::default(),
        };
        Ok((found, chain))
    })
    .await
}

/// The query that finds all of it.
fn query(pivot: &Pivot) -> String {
    Query::Field(
        Field::named(&pivot.field),
        Test::Equals(pivot.value.clone()),
    )
    .to_string()
}

/// An investigation as JSON: what was found, and for an access key the sessions around it.
pub fn investigation(found: &Investigation, chain: &Chain) -> Value {
    json!({
        "query": found.query,
        "around": found.around,
        "middle": found.middle,
        "from": found.from,
        "to": found.to,
        "matched": found.matched,
        "failed": found.failed,
        "usual": found.usual,
        "usual_days": USUAL_DAYS,
        "first_seen": found.first_seen,
        "last_seen": found.last_seen,
        "profile": found.profile,
        "related": found.related,
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
