//! `/api/v1/search`, what can be asked about a search, and `/api/v1/events/{id}`: forensic search for programs.
//!
//! GET takes parameters, POST the same as JSON, with aggregations. [`run`] is also what the page calls: it bounds how
//! many searches run at once, searches on a thread that may block, and records the search. What is too large for one
//! answer is the business of `export`.

use std::sync::Arc;
use std::time::Duration;

use ::search::aggregate::{self, Aggregated, Aggregations};
use ::search::{Answer, Cursor, Kind, Nodes, SearchError};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use event::{Outcome, Time};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::MAX_LIMIT;
use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking, searching};
use crate::params::{self, Params};

const KNOWN: &[&str] = &[
    "q", "query", "from", "to", "limit", "order", "kind", "cursor", "count", "agg",
];
/// How many events are read for the fields, if it is not said.
const SAMPLE: u64 = 1_000;
/// How many values an aggregation tells, if it is not said.
const BUCKETS: usize = 10;

/// The body of a POST.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    query: String,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
    order: Option<String>,
    kind: Option<String>,
    cursor: Option<String>,
    count: bool,
    aggs: Option<Value>,
}

/// `GET /api/v1/search`
pub(crate) async fn get(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Response, ApiError> {
    params.only(KNOWN)?;
    let request = request(&params, shared.now())?;
    let aggs = match params.text("agg") {
        Some(short) => aggregate::parse(short, BUCKETS).map_err(wrong_aggregation)?,
        None => Aggregations::new(),
    };
    answer(shared, client, request, aggs).await
}

/// `POST /api/v1/search`
pub(crate) async fn post(
    State(shared): State<Shared>,
    client: Client,
    request: Request,
) -> Result<Response, ApiError> {
    let body: Body = params::json(request).await?;
    let pairs = [
        ("query", Some(body.query)),
        ("from", body.from),
        ("to", body.to),
        ("limit", body.limit.map(|n| n.to_string())),
        ("order", body.order),
        ("kind", body.kind),
        ("cursor", body.cursor),
        ("count", Some(body.count.to_string())),
    ];
    let params = Params::of(pairs);
    let request = self::request(&params, shared.now())?;
    let aggs: Aggregations = match body.aggs {
        Some(aggs) => serde_json::from_value(aggs).map_err(|e| {
            ApiError::bad("bad_aggregation", e.to_string()).hint(
                r#"write {"name": {"terms": {"field": "actor", "size": 10}, "aggs": {…}}}; there are terms, date_histogram, cardinality, percentiles and count"#,
            )
        })?,
        None => Aggregations::new(),
    };
    aggregate::check(&aggs).map_err(wrong_aggregation)?;
    answer(shared, client, request, aggs).await
}

fn wrong_aggregation(error: aggregate::AggregationError) -> ApiError {
    ApiError::bad("bad_aggregation", error.message).hint(error.hint)
}

/// The request that parameters ask for.
pub(crate) fn request(params: &Params, now: Time) -> Result<::search::Request, ApiError> {
    let (from, to) = params.range(now)?;
    let word = |name: &str, first: &str, second: &str| match params.text(name) {
        None => Ok(true),
        Some(w) if w == first => Ok(true),
        Some(w) if w == second => Ok(false),
        Some(_) => Err(ApiError::bad(
            "bad_parameter",
            format!("`{name}` is {first} or {second}"),
        )),
    };
    Ok(::search::Request {
        query: params
            .text("q")
            .unwrap_or_else(|| params.or_empty("query"))
            .to_owned(),
        from,
        to,
        limit: params.number("limit", 0..=MAX_LIMIT, 100)? as usize,
        newest_first: word("order", "newest", "oldest")?,
        kind: if word("kind", "events", "findings")? {
            Kind::Events
        } else {
            Kind::Findings
        },
        after: params.text("cursor").map(read_cursor).transpose()?,
        count: params.flag("count")?,
    })
}

/// A cursor as it is handed out.
pub(crate) fn write_cursor(cursor: Cursor) -> String {
    format!("{}-{}", cursor.time.0, cursor.id)
}

fn read_cursor(text: &str) -> Result<Cursor, ApiError> {
    text.rsplit_once('-')
        .and_then(|(time, id)| {
            let time = Time(time.parse().ok()?);
            (Time::MIN..=Time::MAX).contains(&time).then_some(())?;
            Some(Cursor {
                time,
                id: id.parse().ok()?,
            })
        })
        .ok_or_else(|| {
            ApiError::bad("bad_cursor", "`cursor` is not one that was given out")
                .hint("take it from `next` of the page before")
        })
}

/// Searches and records it; `beside` is asked in the same turn.
pub(crate) async fn run<T: Send + 'static>(
    shared: &Shared,
    client: &Client,
    request: ::search::Request,
    beside: impl FnOnce(&Nodes) -> T + Send + 'static,
) -> Result<(Answer, T), ApiError> {
    let asked = request.clone();
    let inside = shared.clone();
    recorded(shared, client, &asked, "Search", move |searcher| {
        let answer = with_integrity(&inside, searcher.search(&request))?;
        Ok((answer, beside(searcher)))
    })
    .await
}

fn with_integrity(
    shared: &Shared,
    answer: Result<Answer, SearchError>,
) -> Result<Answer, SearchError> {
    let mut answer = answer?;
    let hits = answer.hits.iter_mut();
    hits.for_each(|e| (shared.app.integrity)(e));
    Ok(answer)
}

/// Asks the searcher, and records who did.
pub(crate) async fn recorded<T: Send + 'static>(
    shared: &Shared,
    client: &Client,
    asked: &::search::Request,
    action: &'static str,
    work: impl FnOnce(&Nodes) -> Result<T, SearchError> + Send + 'static,
) -> Result<T, ApiError> {
    let answer = asked_of_index(shared, asked, work).await?;
    let outcome = if answer.is_ok() {
        Outcome::Success
    } else {
        Outcome::Failure
    };
    shared.audit(client, action, outcome, String::new(), details(asked));
    Ok(answer?)
}

/// Asks the searcher for a part of a page whose own search is recorded.
pub(crate) async fn quietly<T: Send + 'static>(
    shared: &Shared,
    asked: &::search::Request,
    work: impl FnOnce(&Nodes) -> Result<T, SearchError> + Send + 'static,
) -> Result<T, ApiError> {
    Ok(asked_of_index(shared, asked, work).await??)
}

/// Asks the searcher on a thread that may block, as one of the searches that may run at once.
async fn asked_of_index<T: Send + 'static>(
    shared: &Shared,
    asked: &::search::Request,
    work: impl FnOnce(&Nodes) -> Result<T, SearchError> + Send + 'static,
) -> Result<Result<T, SearchError>, ApiError> {
    searchable(asked)?;
    let permit = turn(&shared.searches, TURN).await?;
    let searcher = shared.app.searcher.clone();
    searching(move || {
        let _permit = permit;
        work(&searcher)
    })
    .await
}

/// What is recorded of a search.
pub(crate) fn details(request: &::search::Request) -> Value {
    json!({
        "query": request.query,
        "from": request.from,
        "to": request.to,
        "limit": request.limit,
    })
}

/// Refuses what the index cannot know.
pub(crate) fn searchable(request: &::search::Request) -> Result<(), ApiError> {
    let asks = |q: &str| ::search::query::parse(q).is_ok_and(|q| q.asks("integrity"));
    if request.kind == Kind::Events && asks(&request.query) {
        return Err(ApiError::bad(
            "not_searchable",
            "`integrity` cannot be searched: it becomes known after an event was indexed",
        )
        .hint("events show it; `category:Integrity` finds what digests do not vouch for"));
    }
    Ok(())
}

/// How long a search waits for its turn before it is refused.
pub(crate) const TURN: Duration = Duration::from_secs(5);

/// Waits for a turn among those that may search at once; who came first goes first.
pub(crate) async fn turn(
    searches: &Arc<Semaphore>,
    patience: Duration,
) -> Result<OwnedSemaphorePermit, ApiError> {
    match tokio::time::timeout(patience, searches.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(busy()),
    }
}

/// 503 for a search that waited too long.
pub(crate) fn busy() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "busy",
        "too many searches are running",
    )
    .retry_after(1)
}

async fn answer(
    shared: Shared,
    client: Client,
    request: ::search::Request,
    aggs: Aggregations,
) -> Result<Response, ApiError> {
    let asked = request.clone();
    let inside = shared.clone();
    // The answer is written where it was found: hundreds of events are too much work for the threads that take events in.
    let body = recorded(&shared, &client, &asked, "Search", move |searcher| {
        let answer = with_integrity(&inside, searcher.search(&request))?;
        let aggregated = match aggs.is_empty() {
            true => None,
            false => Some(searcher.aggregate(&request, &aggs)?),
        };
        Ok(written(&request, answer, aggregated))
    })
    .await?
    .map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The answer as JSON.
fn written(
    asked: &::search::Request,
    answer: Answer,
    aggregated: Option<Aggregated>,
) -> serde_json::Result<Vec<u8>> {
    let hits: Vec<Value> = match asked.kind {
        Kind::Events => answer.hits.iter().map(event::Event::to_json).collect(),
        Kind::Findings => {
            let findings = answer.findings.iter().map(serde_json::to_value);
            findings.collect::<Result<_, _>>()?
        }
    };
    let mut body = json!({
        "hits": hits,
        "total": answer.total,
        "partial": answer.partial,
        "notes": answer.notes,
        "next": answer.next.map(write_cursor),
        "took_ms": answer.took.as_secs_f64() * 1_000.0,
        "from": asked.from,
        "to": asked.to,
    });
    if let Some(Aggregated {
        aggs,
        matched,
        partial,
        took,
    }) = aggregated
    {
        body["aggs"] = serde_json::to_value(aggs)?;
        body["took_ms"] = ((answer.took + took).as_secs_f64() * 1_000.0).into();
        if partial.is_none() {
            body["total"] = matched.into();
        } else if answer.partial.is_none() {
            body["partial"] = partial.into();
        }
    }
    serde_json::to_vec(&body)
}

/// `GET /api/v1/search/explain`: how a query is understood.
pub(crate) async fn explain(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    params.only(&["q", "from", "to", "kind"])?;
    let request = request(&params, shared.now())?;
    searchable(&request)?;
    let searcher = shared.app.searcher.clone();
    let explained = blocking(move || searcher.explain(&request)).await??;
    Ok(Json(
        serde_json::to_value(explained).map_err(ApiError::internal)?,
    ))
}

/// `GET /api/v1/search/fields`: which fields the events have that match, and with what values.
pub(crate) async fn fields(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    params.only(&["q", "from", "to", "kind", "sample"])?;
    let most = ::search::fields::MAX_SAMPLE as u64;
    let sample = params.number("sample", 1..=most, SAMPLE)? as usize;
    let request = request(&params, shared.now())?;
    let asked = request.clone();
    let stats = recorded(&shared, &client, &asked, "Search", move |searcher| {
        searcher.fields(&request, sample)
    })
    .await?;
    Ok(Json(
        serde_json::to_value(stats).map_err(ApiError::internal)?,
    ))
}

/// `GET /api/v1/events/{id}`
pub(crate) async fn event(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = params::id(&id, "event")?;
    let searcher = shared.app.searcher.clone();
    let event = blocking(move || searcher.event(id)).await??;
    let mut event = event.ok_or_else(|| ApiError::not_found("event"))?;
    (shared.app.integrity)(&mut event);
    Ok(Json(event.to_json()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_strictly() {
        let cursor = Cursor {
            time: Time(-5),
            id: event::Id(77),
        };
        assert_eq!(read_cursor(&write_cursor(cursor)), Ok(cursor));
        for wrong in [
            "",
            "5",
            "5-6",
            "x-0000000000000000000000000000004d",
            "9223372036854775807-0000000000000000000000000000004d",
        ] {
            assert!(read_cursor(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_search_waits_for_its_turn_but_not_for_ever() {
        let searches = Arc::new(Semaphore::new(1));
        let first = turn(&searches, TURN).await.unwrap();
        let late = turn(&searches, Duration::from_millis(20)).await;
        assert_eq!(late.unwrap_err().code, "busy");
        let second = tokio::spawn({
            let searches = searches.clone();
            async move { turn(&searches, TURN).await.is_ok() }
        });
        drop(first);
        assert!(second.await.unwrap());
    }
}
