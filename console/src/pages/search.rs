//! Forensic search: a query, a range of time, a histogram, the fields of what was found and the events, each of which
//! opens in place.
//!
//! The whole search stands in the address, with its columns and whether it follows what comes in, so that it can be
//! shared. A query that cannot be read is shown again with a caret under the place and a hint. The histogram narrows the
//! range by a click or by drawing over it; the fields (`fields`) narrow the query. Exports are streams
//! of the API; `/search.csv` and `/search.json` give the first rows of the same address. Without the script all of it
//! works but completion, drawing and following.

pub(crate) mod columns;
pub(crate) mod fields;
pub(crate) mod narrow;
pub(crate) mod tail;

use ::event::{Event, Time};
use ::search::export::{Format, Writer};
use ::search::{Answer, Bucket, Request, SearchError};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::json;

use super::layout::{self, Tab};
use super::{actor, encode, event as event_page, saved, ticked};
use crate::api;
use crate::app::{Client, Shared};
use crate::error::ApiError;
use crate::inert::{self, Inert};
use crate::params::Params;
use crate::svg::{self, short};

const KNOWN: &[&str] = &[
    "q", "range", "from", "to", "order", "cursor", "limit", "cols", "live", "saved",
];
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
    let beside = saved::beside(&shared, &params).await;
    let framed = |range: &str, asked: Option<&Asked>, body: Markup| {
        frame(&client, &params, &beside, range, asked, body)
    };
    let asked = match read(&params, now) {
        Ok(asked) => asked,
        // A range that runs backwards is shown with the form, to be put right.
        Err(wrong) => return Ok(framed("custom", None, wrong_range(&wrong))),
    };
    let columns = columns::chosen(&params)?;
    let searched =
        params.text("q").is_some() || params.text("range").is_some() || asked.range == "custom";
    let request = Request {
        count: true,
        ..asked.request.clone()
    };
    let mut over_time = request.clone();
    over_time.after = None;
    if over_time.from.is_some() && over_time.to.is_none() {
        over_time.to = Some(now);
    }
    let (answer, buckets) = match api::search::run(&shared, &client, request, move |searcher| {
        searcher.histogram(&over_time, BARS)
    })
    .await
    {
        Ok(found) => found,
        Err(wrong) if wrong.offset.is_some() => {
            let shown = wrong_query(&asked.request.query, &wrong);
            return Ok(framed(&asked.range, Some(&asked), shown));
        }
        Err(wrong) if wrong.code == "busy" => return Err(wrong),
        Err(wrong) => {
            return Ok(framed(&asked.range, Some(&asked), wrong_range(&wrong)));
        }
    };
    let body = results(&params, &asked, &answer, buckets, (searched, &columns));
    Ok(framed(&asked.range, Some(&asked), body))
}

fn frame(
    client: &Client,
    params: &Params,
    (menu, opened): &(Markup, Markup),
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
            (opened)
            div.searchhead {
            form.searchbar #searchbar action="/search" method="get" role="search" {
                div.bar {
                    div.query {
                        input type="search" name="q" value=(query) data-search="" data-names=(Event::NAMES.join(" ")) autofocus[query.is_empty()] aria-label="Query" spellcheck="false" autocapitalize="off" autocomplete="off"
                            role="combobox" aria-expanded="false" aria-controls="completions" aria-autocomplete="list"
                            placeholder="action:ConsoleLogin AND outcome:failure, or any words";
                        div.marks #marks aria-hidden="true" {}
                        ul.completions #completions role="listbox" aria-label="Completions" hidden {}
                    }
                    button.primary type="submit" { "Search" }
                }
                p.hint #hint role="status" aria-live="polite" {}
                @for kept in ["cols", "live", "saved"] { @if let Some(value) = params.text(kept) { input type="hidden" name=(kept) value=(value); } }
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
            (menu)
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
    (searched, columns): (bool, &[String]),
) -> Markup {
    let live = params.text("live").is_some();
    html! {
        @if let Ok(buckets) = &buckets { @if buckets.iter().any(|b| b.count > 0) {
            (svg::histogram(buckets, |from, to| address(params, Some((from, to)), None), &brushed(params)))
            (steps(params, buckets))
        } }
        @if let Some(why) = &answer.partial { p.wrong role="alert" { "The answer is not complete: " (why) } }
        @for note in &answer.notes { p.note role="status" { (ticked(note)) } }
        @if answer.hits.is_empty() && !live {
            (empty(params, asked))
        } @else {
            div.results {
                (fields::waiting(params))
                div {
                    (above(params, asked, answer))
                    @if live {
                        (tail::table(&answer.hits, columns))
                    } @else {
                        div class=(classes(columns)) {
                            (head(columns, Some(params)))
                            (hits(&answer.hits, columns))
                        }
                    }
                    @if let Some(next) = answer.next { p.more { a.button data-key="n" href=(address(params, None, Some(&api::search::write_cursor(next)))) { @if asked.request.newest_first { "Older" } @else { "Newer" } " events" } } }
                }
            }
        }
        @if !searched { (examples()) }
    }
}

/// How many there are, and what can be done with them.
fn above(params: &Params, asked: &Asked, answer: &Answer) -> Markup {
    let total = answer.total.unwrap_or(answer.hits.len() as u64);
    let live = params.text("live").is_some();
    let whole = address(params, None, None);
    // The same events for whoever opens it, whenever that is.
    let from = asked.request.from.unwrap_or(Time::MIN);
    let fixed = (from, asked.request.to.unwrap_or(asked.now).plus(1));
    html! {
        div.found {
            span { b { (total) } @if answer.total.is_none() { " or more" } @if total == 1 { " event" } @else { " events" } span.dim { " in " (format!("{:.0}", answer.took.as_secs_f64() * 1e3)) " ms" } }
            span.exports {
                @if live { (tail::poll(params, false, None)) a.button.small data-key="t" href=(without(&whole, "live")) { "Stop following" } }
                @else { a.button.small data-key="t" href=(format!("{whole}&live=1")) title="Show events as they come in" { "Follow" } }
                a.button.small data-share="" data-key="l" href=(address(params, Some(fixed), None)) title="The address of this search with its times fixed" { "Link" }
                // Streams of all that matches, however much that is.
                @for (format, name) in [("csv", "CSV"), ("jsonl", "JSON"), ("parquet", "Parquet")] {
                    a href=(exported(params, asked, format)) title=(format!("All that matches, as {name}")) { (name) }
                }
                a href=(format!("/search/rule?q={}", encode(params.or_empty("q")))) title="The query as a Sigma rule" { "Rule" }
            }
        }
    }
}

/// The address of an export of this search.
fn exported(params: &Params, asked: &Asked, format: &str) -> String {
    let query = encode(params.or_empty("q"));
    let mut out = format!("/api/v1/search/export?format={format}&q={query}");
    for (name, time) in [("from", asked.request.from), ("to", asked.request.to)] {
        if let Some(time) = time {
            out.push_str(&format!("&{name}={}", encode(&time.to_string())));
        }
    }
    out
}

/// Links to the time before, to the time after, and to more of both.
fn steps(params: &Params, buckets: &[Bucket]) -> Markup {
    let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else {
        return html! {};
    };
    let (from, to) = (first.from, last.to);
    let length = (to.0 - from.0).max(1);
    let link = |from: Time, to: Time| address(params, Some((from, to)), None);
    html! {
        nav.steps aria-label="Move in time" {
            a href=(link(from.plus(-length), from)) title="The same length of time before" { "← earlier" }
            a href=(link(from.plus(-length / 2), to.plus(length / 2))) title="Twice as much time" { "wider" }
            a href=(link(to, to.plus(length))) title="The same length of time after" { "later →" }
        }
    }
}

/// The classes of the table, which give its columns their widths.
fn classes(columns: &[String]) -> String {
    match columns.len() {
        0 => "hits list".to_owned(),
        n => format!("hits list cols-{n}"),
    }
}

/// The line above the events; the chosen columns can be taken away there.
fn head(columns: &[String], params: Option<&Params>) -> Markup {
    html! {
        @if columns.is_empty() {
            div.hit-head aria-hidden="true" { span { "Time (UTC)" } span { "Action" } span { "Who" } span { "From" } span { "Where" } span { "Outcome" } }
        } @else {
            div.hit-head {
                span { "Time (UTC)" }
                @for column in columns {
                    span {
                        (Inert(column))
                        @if let Some(params) = params { " " a.not href=(address_of(params, None, None, Some(&columns::toggled(columns, column)))) aria-label=(format!("without the column {}", inert::plain(column))) { "×" } }
                    }
                }
            }
        }
    }
}

/// Events as lines that open.
fn hits(events: &[Event], columns: &[String]) -> Markup {
    let mut reader = columns::Reader::new(columns);
    html! {
        @for event in events {
            @if columns.is_empty() { (hit(event, false)) } @else { (row(event, &reader.values(event))) }
        }
    }
}

/// One event with the chosen columns.
fn row(event: &Event, cells: &[Vec<String>]) -> Markup {
    html! {
        details.hit id=(format!("e-{}", event.id)) data-row="" {
            summary {
                span.time { time datetime=(event.time) { (short(event.time)) } }
                @for cell in cells {
                    span.cell { @if cell.is_empty() { span.none { "–" } } @for (i, text) in cell.iter().enumerate() { @if i > 0 { br; } (Inert(text)) } }
                }
            }
            (waiting(event))
        }
    }
}

/// What is fetched when a line opens.
fn waiting(event: &Event) -> Markup {
    html! {
        div.detail.waiting hx-get=(format!("/events/{}?part=detail", event.id)) hx-trigger="toggle from:closest details once" hx-swap="outerHTML" {
            a href=(format!("/events/{}", event.id)) { "Open the event" }
        }
    }
}

/// One event as a line that opens.
pub(crate) fn hit(event: &Event, open: bool) -> Markup {
    line(event, &short(event.time), open)
}

/// The same where the day stands above it.
pub(crate) fn hit_of_day(event: &Event) -> Markup {
    let time = short(event.time);
    line(event, time.get(11..).unwrap_or(&time), false)
}

fn line(event: &Event, time: &str, open: bool) -> Markup {
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
                span.time { time datetime=(event.time) { (time) } }
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
                (waiting(event))
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
    address_of(params, range, cursor, None)
}

/// The address of a range that is drawn over the histogram, with `FROM` and `TO` for its ends.
fn brushed(params: &Params) -> String {
    let whole = address(params, None, None);
    let kept = ["range", "from", "to", "live"];
    let kept = kept
        .iter()
        .fold(whole, |address, name| without(&address, name));
    format!("{kept}&range=custom&from=FROM&to=TO")
}

/// An address without one of its parameters, which is not the first.
fn without(address: &str, name: &str) -> String {
    let start = format!("{name}=");
    let kept: Vec<&str> = address
        .split('&')
        .filter(|pair| !pair.starts_with(&start))
        .collect();
    kept.join("&")
}

/// The address of this search with another range, page or columns.
fn address_of(
    params: &Params,
    range: Option<(Time, Time)>,
    cursor: Option<&str>,
    columns: Option<&[String]>,
) -> String {
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
    let cols = match columns {
        Some(columns) => columns.join(","),
        None => params.or_empty("cols").to_owned(),
    };
    if !cols.is_empty() {
        out.push_str(&format!("&cols={}", encode(&cols)));
    }
    if let Some(saved) = params.text("saved") {
        out.push_str(&format!("&saved={}", encode(saved)));
    }
    // A range that is over is not followed.
    if params.text("live").is_some() && range.is_none() {
        out.push_str("&live=1");
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
    // A table has no place to say that it is a part.
    if let Some(why) = answer.partial {
        return Err(api::incomplete(&why));
    }
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
    let (answer, ()) = api::search::run(shared, client, request, |_| ()).await?;
    Ok(answer)
}
