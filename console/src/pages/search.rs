//! Forensic search: a query, a range of time, a histogram and the events, each of which opens in place.
//!
//! The whole search stands in the address, so that it can be shared. A query that cannot be read is shown
//! again with a caret under the place and a hint. Exports take the same address under `/search.csv` and
//! `/search.json`.

use ::event::{Event, Time};
use ::search::export::{Format, Writer};
use ::search::{Answer, Bucket, Request, SearchError};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::json;

use super::layout::{self, Tab};
use super::{actor, encode, event as event_page, ticked};
use crate::api;
use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::inert::{self, Inert};
use crate::params::Params;
use crate::svg::{self, short};

const KNOWN: &[&str] = &["q", "range", "from", "to", "order", "cursor", "limit"];
const BARS: usize = 60;
const HOUR: i64 = 3_600_000_000;
/// Name in the address, name on the page, length.
const RANGES: [(&str, &str, Option<i64>); 6] = [
    ("1h", "1 h", Some(HOUR)),
    ("24h", "24 h", Some(24 * HOUR)),
    ("7d", "7 d", Some(7 * 24 * HOUR)),
    ("30d", "30 d", Some(30 * 24 * HOUR)),
    ("all", "All", None),
    ("custom", "Custom", None),
];
/// What an empty page offers to try.
const EXAMPLES: [(&str, &str); 6] = [
    (
        "action:ConsoleLogin AND outcome:failure",
        "failed console logins",
    ),
    ("userIdentity.type:Root", "everything that root did"),
    (
        "outcome:denied AND NOT actor_type:AWSService",
        "refused calls, services left out",
    ),
    ("src_ip:203.0.113.0/24", "one network"),
    ("error_message:\"not authorized\"", "a phrase in an error"),
    (
        "source:aws.lambda AND invocation.status:*",
        "function results",
    ),
];

/// What the address asks for, with the range worked out.
struct Asked {
    request: Request,
    range: String,
    now: Time,
}

fn read(params: &Params, now: Time) -> Result<Asked, ApiError> {
    params.only(KNOWN)?;
    let mut request = api::search::request(params, now)?;
    let range = match params.text("range") {
        Some(range) => range.to_owned(),
        None if request.from.is_some() || request.to.is_some() => "custom".to_owned(),
        None => "24h".to_owned(),
    };
    let (_, _, length) = RANGES
        .into_iter()
        .find(|(name, ..)| *name == range)
        .ok_or_else(|| {
            ApiError::bad(
                "bad_parameter",
                "`range` is 1h, 24h, 7d, 30d, all or custom",
            )
        })?;
    if range != "custom" {
        request.from = length.map(|l| now.plus(-l));
        request.to = None;
    }
    Ok(Asked {
        request,
        range,
        now,
    })
}

/// `GET /search`
pub(crate) async fn page(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Markup, ApiError> {
    let now = shared.now();
    let asked = match read(&params, now) {
        Ok(asked) => asked,
        // A range that runs backwards is shown with the form, to be put right.
        Err(wrong) => return Ok(frame(&client, &params, "custom", None, wrong_range(&wrong))),
    };
    let searched =
        params.text("q").is_some() || params.text("range").is_some() || asked.range == "custom";
    let request = Request {
        count: true,
        ..asked.request.clone()
    };
    let answer = match api::search::run(&shared, &client, request.clone()).await {
        Ok(answer) => answer,
        Err(wrong) if wrong.offset.is_some() => {
            let shown = wrong_query(&asked.request.query, &wrong);
            return Ok(frame(&client, &params, &asked.range, Some(&asked), shown));
        }
        Err(wrong) if wrong.code == "busy" => return Err(wrong),
        Err(wrong) => {
            return Ok(frame(
                &client,
                &params,
                &asked.range,
                Some(&asked),
                wrong_range(&wrong),
            ));
        }
    };
    let searcher = shared.app.searcher.clone();
    let mut over_time = request;
    over_time.after = None;
    if over_time.from.is_some() && over_time.to.is_none() {
        over_time.to = Some(now);
    }
    let buckets = blocking(move || searcher.histogram(&over_time, BARS)).await?;
    let body = results(&params, &asked, &answer, buckets, searched);
    Ok(frame(&client, &params, &asked.range, Some(&asked), body))
}

fn frame(
    client: &Client,
    params: &Params,
    range: &str,
    asked: Option<&Asked>,
    body: Markup,
) -> Markup {
    let query = params.or_empty("q");
    let title = if query.is_empty() { "Search" } else { query };
    layout::page(
        client,
        Tab::Search,
        title,
        html! {
            h1.hidden { "Search" }
            form.searchbar #searchbar action="/search" method="get" role="search" {
                div.bar {
                    input type="search" name="q" value=(query) data-search="" autofocus[query.is_empty()] aria-label="Query" spellcheck="false" autocapitalize="off" autocomplete="off"
                        placeholder="action:ConsoleLogin AND outcome:failure, or any words";
                    button.primary type="submit" { "Search" }
                }
                div.ranges {
                    fieldset.segments { legend.hidden { "Time range" }
                        @for (name, shown, _) in RANGES {
                            label { input type="radio" name="range" value=(name) checked[name == range] data-range=""; span { (shown) } }
                        }
                    }
                    @let from = custom(params, "from", asked.and_then(|a| a.request.from));
                    @let to = custom(params, "to", asked.and_then(|a| a.request.to));
                    div.custom hidden[range != "custom"] #custom {
                        label { "from " input name="from" value=(from) placeholder="2026-03-02T12:00:00Z or -3d" size="22" disabled[range != "custom"]; }
                        label { "to " input name="to" value=(to) placeholder="now" size="22" disabled[range != "custom"]; }
                        span.dim { "UTC" }
                    }
                    select name="order" aria-label="Order" data-submit="" {
                        option value="newest" { "newest first" }
                        option value="oldest" selected[params.text("order") == Some("oldest")] { "oldest first" }
                    }
                }
            }
            (body)
        },
    )
}

fn custom(params: &Params, name: &str, time: Option<Time>) -> String {
    params
        .text(name)
        .map(str::to_owned)
        .or(time.map(|t| t.to_string()))
        .unwrap_or_default()
}

fn results(
    params: &Params,
    asked: &Asked,
    answer: &Answer,
    buckets: Result<Vec<Bucket>, SearchError>,
    searched: bool,
) -> Markup {
    let total = answer.total.unwrap_or(answer.hits.len() as u64);
    html! {
        @if let Ok(buckets) = &buckets { @if buckets.iter().any(|b| b.count > 0) {
            (svg::histogram(buckets, |from, to| address(params, Some((from, to)), None)))
        } }
        @if let Some(why) = &answer.partial { p.wrong role="alert" { "The answer is not complete: " (why) } }
        @if answer.hits.is_empty() {
            (empty(params, asked))
        } @else {
            div.found {
                span { b { (total) } @if answer.total.is_none() { " or more" } @if total == 1 { " event" } @else { " events" } span.dim { " in " (format!("{:.0}", answer.took.as_secs_f64() * 1e3)) " ms" } }
                span.exports { a href=(address(params, None, None).replacen("/search?", "/search.csv?", 1)) { "CSV" } " · " a href=(address(params, None, None).replacen("/search?", "/search.json?", 1)) { "JSON" } }
            }
            div.hits.list {
                div.hit-head aria-hidden="true" { span { "Time (UTC)" } span { "Action" } span { "Who" } span { "From" } span { "Where" } span { "Outcome" } }
                @for event in &answer.hits { (hit(event, false)) }
            }
            @if let Some(next) = answer.next { p.more { a.button href=(address(params, None, Some(&api::search::write_cursor(next)))) { @if asked.request.newest_first { "Older" } @else { "Newer" } " events" } } }
        }
        @if !searched { (examples()) }
    }
}

/// One event as a line that opens.
pub(crate) fn hit(event: &Event, open: bool) -> Markup {
    let who = if event.identity.is_empty() {
        &event.actor
    } else {
        &event.identity
    };
    let whom = [&event.actor, who, &event.function]
        .into_iter()
        .find(|name| !name.is_empty())
        .map_or("", |name| name.as_str());
    let what = if event.action.is_empty() {
        event.source.as_str()
    } else {
        event.action.as_str()
    };
    let place = if event.function.is_empty() {
        event.region.as_str()
    } else {
        event.function.as_str()
    };
    html! {
        details.hit id=(format!("e-{}", event.id)) data-row="" open[open] {
            summary {
                span.time { time datetime=(event.time) { (short(event.time)) } }
                span.action { b { (Inert(what)) } " " span.dim { (inert::value(if event.action.is_empty() { "" } else { event.service.trim_end_matches(".amazonaws.com") })) } }
                span.who { (actor(whom)) }
                span.from { (inert::value(&event.src_ip)) }
                span.place { (inert::value(&event.account)) @if !place.is_empty() { " " span.dim { (Inert(place)) } } }
                span.result { (event_page::outcome(event)) @if !event.error_code.is_empty() { " " span.dim { (Inert(&event.error_code)) } } }
                @if let Some(said) = said(event) { span.text { (Inert(&said)) } }
            }
            @if open {
                (event_page::detail(event))
            } @else {
                div.detail.waiting hx-get=(format!("/events/{}?part=detail", event.id)) hx-trigger="toggle from:closest details once" hx-swap="outerHTML" {
                    a href=(format!("/events/{}", event.id)) { "Open the event" }
                }
            }
        }
    }
}

/// What a line of a function's log says: its message where it is JSON, else the line.
fn said(event: &Event) -> Option<String> {
    const SHOWN: usize = 240;
    if event.source != "aws.lambda" {
        return None;
    }
    if !event.error_message.is_empty() {
        return Some(event.error_message.to_string());
    }
    let record: Option<serde_json::Value> = serde_json::from_slice(&event.raw).ok();
    let text = match &record {
        Some(serde_json::Value::Object(map)) => map.get("message")?.as_str()?.to_owned(),
        _ => String::from_utf8_lossy(&event.raw[..event.raw.len().min(4 * SHOWN)]).into_owned(),
    };
    Some(text.trim().chars().take(SHOWN).collect())
}

/// The address of this search with another range or page.
fn address(params: &Params, range: Option<(Time, Time)>, cursor: Option<&str>) -> String {
    let mut out = format!("/search?q={}", encode(params.or_empty("q")));
    match range {
        Some((from, to)) => out.push_str(&format!(
            "&range=custom&from={}&to={}",
            encode(&from.to_string()),
            encode(&to.plus(-1).to_string())
        )),
        None => {
            for key in ["range", "from", "to"] {
                if let Some(value) = params.text(key) {
                    out.push_str(&format!("&{key}={}", encode(value)));
                }
            }
        }
    }
    if let Some(order) = params.text("order") {
        out.push_str(&format!("&order={}", encode(order)));
    }
    if let Some(cursor) = cursor {
        out.push_str(&format!("&cursor={}", encode(cursor)));
    }
    out
}

/// The query with a caret under the place that is wrong, what is wrong and what to write instead.
fn wrong_query(query: &str, wrong: &ApiError) -> Markup {
    let mut at = wrong.offset.unwrap_or(0).min(query.len());
    while !query.is_char_boundary(at) {
        at -= 1;
    }
    let (before, rest) = query.split_at(at);
    let first = rest.chars().next().map_or(0, char::len_utf8);
    // The message ends with the place, which the caret shows.
    let message = wrong.message.split(" at byte ").next().unwrap_or("");
    html! {
        section.panel.query-error role="alert" {
            pre { (inert::line(before)) mark { @if first == 0 { " " } @else { (inert::line(&rest[..first])) } } (inert::line(&rest[first..])) "\n" (" ".repeat(inert::plain(before).chars().count())) span.caret { "^" } }
            p { b { (ticked(message)) } }
            p { (ticked(&wrong.hint)) }
        }
    }
}

fn wrong_range(wrong: &ApiError) -> Markup {
    html! { section.panel.query-error role="alert" { p { b { (ticked(&wrong.message)) } } p { (ticked(&wrong.hint)) } } }
}

fn empty(params: &Params, asked: &Asked) -> Markup {
    html! {
        div.empty {
            h2 { "No events" }
            p { "Nothing matches "
                @match (asked.request.from, asked.request.to) {
                    (None, None) => "in all that is kept",
                    (from, to) => { "from " b { (from.map_or("the beginning".into(), short)) } " to " b { (short(to.unwrap_or(asked.now))) } " (UTC)" }
                }
                "."
            }
            @if asked.range != "all" { p { a href=(format!("/search?q={}&range=all", encode(params.or_empty("q")))) { "Search all that is kept" } } }
        }
        (examples())
    }
}

fn examples() -> Markup {
    html! {
        section.panel.examples { h2 { "To begin with" }
            ul { @for (query, what) in EXAMPLES { li { a href=(format!("/search?q={}", encode(query))) { code { (query) } } " " span.dim { (what) } } } }
            p.dim { "Fields by their normalized name (" code { "action" } ", " code { "actor" } ", " code { "src_ip" } ") or their vendor's (" code { "eventName" } ", " code { "userIdentity.type" } "); phrases in quotes, wildcards " code { "*" } " and " code { "?" } ", ranges " code { "[a TO b]" } ", networks, " code { "field:*" } ", AND, OR, NOT and parentheses. Click a value of an event to search for it." }
        }
    }
}

/// `GET /search.csv`
pub(crate) async fn csv(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Response, ApiError> {
    let answer = export(&shared, &client, &params).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"trailwarden-events.csv\"",
        ),
    ];
    let mut csv = Vec::new();
    let mut writer = Writer::new(Format::Csv, &mut csv).map_err(ApiError::internal)?;
    for event in answer.hits {
        writer.write(event).map_err(ApiError::internal)?;
    }
    writer.finish().map_err(ApiError::internal)?;
    Ok((headers, csv).into_response())
}

/// `GET /search.json`
pub(crate) async fn json(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Response, ApiError> {
    let answer = export(&shared, &client, &params).await?;
    let hits: Vec<serde_json::Value> = answer.hits.iter().map(Event::to_json).collect();
    let body = json!({"query": params.or_empty("q"), "hits": hits, "complete": answer.next.is_none() && answer.partial.is_none()});
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"trailwarden-events.json\"",
        ),
    ];
    Ok((headers, body.to_string()).into_response())
}

async fn export(shared: &Shared, client: &Client, params: &Params) -> Result<Answer, ApiError> {
    let asked = read(params, shared.now())?;
    let request = Request {
        limit: shared.app.config.export_rows,
        ..asked.request
    };
    api::search::run(shared, client, request).await
}
