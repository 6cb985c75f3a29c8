//! Is everything well: checks, how far each stage is behind, what arrives, what was not delivered.

use ::event::Time;
use ::search::nodes::Share;
use alerting::watch::report::Report;
use alerting::{Delivery, Notification, NotificationFilter};
use axum::extract::{Path, State};
use axum::response::Redirect;
use maud::{Markup, html};

use super::alert::delivery;
use super::layout::{self, Tab};
use super::{sources, when, when_ago};
use crate::api::health::{Kept, Lag, checks, kept, lags, report};
use crate::api::holds::{Shown, shown};
use crate::api::notifications::send_again;
use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::inert::{self, Inert};

/// Behind by more than this is worth a look, in seconds.
const SLOW: f64 = 30.0;

struct Found {
    checks: Vec<(&'static str, Result<String, String>)>,
    lags: Vec<Lag>,
    index_nodes: Vec<Share>,
    kept: Vec<Kept>,
    holds: Vec<Shown>,
    sources: Result<Report, ApiError>,
    waiting: Vec<Notification>,
    dead: Vec<Notification>,
    counters: Vec<(String, f64)>,
}

/// `GET /health`
pub(crate) async fn page(State(shared): State<Shared>, client: Client) -> Result<Markup, ApiError> {
    let now = shared.now();
    let inside = shared.clone();
    let found = blocking(move || find(&inside, now)).await??;
    let dead_letters = found
        .kept
        .iter()
        .find(|k| k.topic == "dead_letters")
        .map_or(0, |k| k.records);
    let well = found.checks.iter().all(|(_, r)| r.is_ok());
    Ok(layout::page(
        &client,
        Tab::Health,
        "Health",
        html! {
            div.head { h1 { "Health" } @if well { span.outcome.good { "well" } } @else { span.outcome.bad { "not well" } } }
            ul.tiles {
                li { b { (rate(&found.kept)) } span { "events taken in" } }
                li.bad[dead_letters > 0] { b { (dead_letters) } span { "dead letters" } }
                @if let Ok(report) = &found.sources { li.bad[!report.silent.is_empty()] { b { (report.silent.len()) } span { "silent sources" } } }
                li { b { (found.waiting.len()) } span { "notifications waiting" } }
                li.bad[!found.dead.is_empty()] { b { (found.dead.len()) } span { "notifications given up" } }
            }
            @if !found.checks.is_empty() {
                section.panel { h2 { "Checks" }
                    table.cards { tbody { @for (name, result) in &found.checks { tr {
                        td data-label="Check" { (name) }
                        td data-label="State" { @if result.is_ok() { span.outcome.good { "ok" } } @else { span.outcome.bad { "failed" } } }
                        td data-label="Detail" { (match result { Ok(detail) | Err(detail) => Inert(detail) }) }
                    } } } }
                }
            }
            @if !found.holds.is_empty() {
                section.panel { h2 { "Legal holds" } (holds(&found.holds)) }
            }
            section.panel { h2 { "Stages" }
                table.cards {
                    thead { tr { th { "Stage" } th { "Reads" } th.num { "Behind" } th.num { "Seconds" } th { "Positions" } } }
                    tbody { @for lag in &found.lags { tr {
                        td data-label="Stage" { b { (lag.stage) } }
                        td data-label="Reads" { (lag.topic) }
                        td.num data-label="Behind" { (lag.records) }
                        td.num data-label="Seconds" { span.wrong[lag.seconds > SLOW] { (format!("{:.1}", lag.seconds)) } }
                        td.dim data-label="Positions" { @for (i, p) in lag.positions.iter().enumerate() { @if i > 0 { " · " } (p) } }
                    } } }
                }
            }
            @if !found.index_nodes.is_empty() { (nodes(&found.index_nodes, now)) }
            @match &found.sources {
                Err(wrong) => section.panel { h2 { "Sources" } p.wrong { (wrong.message) } },
                Ok(report) => (sources::section(report, now)),
            }
            @if !found.dead.is_empty() { section.panel { h2 { "Notifications given up" } (outbox(&client, &found.dead, now)) } }
            @if !found.waiting.is_empty() { section.panel { h2 { "Notifications waiting" } (outbox(&client, &found.waiting, now)) } }
            section.panel { h2 { "Log" }
                table.cards {
                    thead { tr { th { "Topic" } th.num { "Partitions" } th.num { "Kept" } th.num { "Ever" } } }
                    tbody { @for kept in &found.kept { tr { td data-label="Topic" { (kept.topic) } td.num data-label="Partitions" { (kept.partitions) } td.num data-label="Kept" { (kept.records) } td.num data-label="Ever" { (kept.appended) } } } }
                }
            }
            details.panel { summary { "Counters" }
                table.cards { tbody { @for (name, value) in &found.counters { tr { td data-label="Counter" { code { (name) } } td.num data-label="Value" { (value) } } } } }
                p { a href="/metrics" { "All metrics" } }
            }
        },
    ))
}

/// The index nodes: which share each has, and which are missing.
fn nodes(nodes: &[Share], now: Time) -> Markup {
    html! {
        section.panel #index-nodes { h2 { "Index nodes" }
            @if nodes.iter().any(|n| !n.answers) {
                p.wrong role="alert" { "Searches are answered without the share of a node that is missing, and say so. Its events are not lost: they wait on the log and on its disk." }
            }
            table.cards {
                thead { tr { th { "Share" } th { "Node" } th { "State" } th.num { "Events" } th { "From" } th { "To" } th.num { "Behind" } th.num { "Seconds" } } }
                tbody { @for share in nodes { tr {
                    td data-label="Share" { b { (share.node) } " of " (share.nodes) }
                    td data-label="Node" { (Inert(&share.name)) }
                    td data-label="State" {
                        @if share.answers { span.outcome.good { "answers" } } @else { span.outcome.bad { "missing" } }
                        @if let Some(since) = share.missing_since { " since " (when_ago(since, now)) }
                        @if let Some(why) = &share.why { p.dim { (Inert(why)) } }
                    }
                    @let state = share.state.as_ref();
                    td.num data-label="Events" { @if let Some(state) = state { (state.events) } }
                    td data-label="From" { @if let Some(time) = state.and_then(|s| s.earliest) { (when(time)) } }
                    td data-label="To" { @if let Some(time) = state.and_then(|s| s.latest) { (when(time)) } }
                    td.num data-label="Behind" { (share.records) }
                    td.num data-label="Seconds" { span.wrong[share.seconds > SLOW] { (format!("{:.1}", share.seconds)) } }
                } } }
            }
        }
    }
}

/// What must not be removed from the index, and what that keeps.
fn holds(holds: &[Shown]) -> Markup {
    html! {
        table.cards {
            thead { tr { th { "Case" } th { "Events from" } th { "to" } th { "Query" } th { "Reason" } th { "By" } th { "Since" } th.num { "Splits" } th.num { "Events" } th.num { "MiB" } } }
            tbody { @for Shown { hold, covered } in holds { tr {
                td data-label="Case" { b { (Inert(&hold.name)) } }
                td data-label="Events from" { (hold.from.map_or("the beginning".to_owned(), |t| t.to_string())) }
                td data-label="to" { (hold.to.map_or("open".to_owned(), |t| t.to_string())) }
                td data-label="Query" { code { (Inert(&hold.query)) } }
                td data-label="Reason" { (Inert(&hold.reason)) }
                td data-label="By" { (Inert(&hold.by)) }
                td data-label="Since" { (hold.made.to_string()) }
                td.num data-label="Splits" { (covered.splits) }
                td.num data-label="Events" { (covered.events) }
                td.num data-label="MiB" { (covered.bytes >> 20) }
            } } }
        }
    }
}

fn rate(kept: &[Kept]) -> u64 {
    kept.iter()
        .find(|k| k.topic == "events")
        .map_or(0, |k| k.appended)
}

fn find(shared: &Shared, now: Time) -> Result<Found, ApiError> {
    let store = &shared.app.store;
    let notifications = |deliveries: Vec<Delivery>| {
        store.notifications(&NotificationFilter {
            deliveries,
            limit: 100,
            ..NotificationFilter::default()
        })
    };
    Ok(Found {
        checks: checks(&shared.app).into_iter().collect(),
        lags: lags(&shared.app, now),
        index_nodes: shared.app.searcher.shares(),
        kept: kept(&shared.app),
        holds: shared.app.index.as_ref().map_or_else(Vec::new, shown),
        sources: report(&shared.app, now),
        waiting: notifications(vec![
            Delivery::Pending,
            Delivery::Leased,
            Delivery::Ambiguous,
        ])?,
        dead: notifications(vec![Delivery::Dead])?,
        counters: counters(&shared.app.registry),
    })
}

/// Counters and gauges that are not zero, with their labels.
fn counters(registry: &prometheus::Registry) -> Vec<(String, f64)> {
    let mut out = Vec::new();
    for family in registry.gather() {
        for metric in family.get_metric() {
            let value = match family.get_field_type() {
                prometheus::proto::MetricType::COUNTER => metric.get_counter().get_value(),
                prometheus::proto::MetricType::GAUGE => metric.get_gauge().get_value(),
                _ => continue,
            };
            if value == 0.0 {
                continue;
            }
            let labels: Vec<String> = metric
                .get_label()
                .iter()
                .map(|l| format!("{}={}", l.name(), l.value()))
                .collect();
            let name = if labels.is_empty() {
                family.name().to_owned()
            } else {
                format!("{} {{{}}}", family.name(), labels.join(", "))
            };
            out.push((name, value));
        }
    }
    out
}

fn outbox(client: &Client, list: &[Notification], now: Time) -> Markup {
    html! {
        table.cards {
            thead { tr { th { "To" } th { "State" } th { "Why" } th { "Alert" } th { "Since" } th.num { "Tries" } th { "Last answer" } th {} } }
            tbody { @for n in list { tr {
                td data-label="To" { (n.receiver) }
                td data-label="State" { (delivery(n.delivery)) }
                td data-label="Why" { (n.reason.as_str()) }
                td data-label="Alert" { a href=(format!("/alerts/{}", n.alert)) { "open" } }
                td data-label="Since" { (when_ago(n.created, now)) }
                td.num data-label="Tries" { (n.attempts) }
                td data-label="Last answer" { (inert::value(&n.error)) }
                td { @if n.delivery == Delivery::Dead && client.may_change {
                    form action=(format!("/notifications/{}/resend", n.id)) method="post" { input type="hidden" name="csrf" value=(client.csrf); button.small type="submit" { "Send again" } }
                } }
            } } }
        }
    }
}

/// `POST /notifications/{id}/resend`
pub(crate) async fn resend(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Redirect, ApiError> {
    send_again(&shared, &client, &id).await?;
    Ok(Redirect::to("/health"))
}
