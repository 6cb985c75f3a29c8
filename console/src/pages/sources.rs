//! The part of the Health page about sources: what arrives, what is silent, who fetches it, what was never seen.

use ::event::Time;
use alerting::watch::report::{Expected, Fetching, Report, Silent, Source};
use alerting::watch::{State, span};
use maud::{Markup, html};

use super::{encode, query_for, when_ago};
use crate::inert::Inert;

/// How many rules are named of a silent source.
const NAMED: usize = 8;

/// How many rows a list has at most; the rest is in the API's answer.
const ROWS: usize = 500;

/// What people see of sources.
pub(super) fn section(report: &Report, now: Time) -> Markup {
    html! {
        section.panel #sources { h2 { "Sources" }
            @for silent in &report.silent { (silence(silent, now)) }
            @if report.sources.is_empty() {
                p.dim { "Nothing has arrived yet. Point a source at this machine, or push events to " code { "/api/v1/events" } "." }
            } @else {
                table.cards {
                    thead { tr { th { "Source" } th { "Account" } th { "Region" } th { "State" } th { "Last" } th.num { "Events, 24 h" } th.num { "Delay" } th.num { "Silent after" } } }
                    tbody { @for source in report.sources.iter().take(ROWS) { (row(source, now)) } }
                }
                @if report.sources.len() > ROWS { p.dim { "and " (report.sources.len() - ROWS) " more" } }
            }
        }
        @if !report.collectors.is_empty() {
            section.panel { h2 { "Collectors" }
                table.cards {
                    thead { tr { th { "Collector" } th { "Node" } th { "State" } th { "Last well" } th.num { "Waiting" } th.num { "Taken" } } }
                    tbody { @for fetching in &report.collectors { (collector(fetching, now)) } }
                }
            }
        }
        @if !report.unseen.is_empty() {
            section.panel { h2 { "Expected and never seen" }
                (expected("Account", "", &report.unseen.accounts))
                (expected("Account", "Region", &report.unseen.regions))
                (expected("Account", "Function", &report.unseen.functions))
            }
        }
    }
}

fn silence(silent: &Silent, now: Time) -> Markup {
    html! {
        div.silent {
            p { span.outcome.bad { "silent" } " " b { (Inert(&silent.feed.to_string())) } " since " (when_ago(silent.since, now)) }
            @if !silent.blind.is_empty() {
                p.dim { (silent.blind.len()) " rules see nothing of it meanwhile: "
                    @for (i, rule) in silent.blind.iter().take(NAMED).enumerate() { @if i > 0 { "; " } (Inert(&rule.title)) }
                    @if silent.blind.len() > NAMED { "; and " (silent.blind.len() - NAMED) " more" }
                }
            }
        }
    }
}

fn row(source: &Source, now: Time) -> Markup {
    let query = query_for("source", &source.source).unwrap_or_default();
    let query = match source.account.as_str() {
        "" => query,
        account => format!(
            "{query} AND {}",
            query_for("account", account).unwrap_or_default()
        ),
    };
    let last = source.last_ingest.max(source.last_heartbeat);
    html! {
        tr {
            td data-label="Source" { a href=(format!("/search?q={}", encode(&query))) { (Inert(&source.source)) } }
            td data-label="Account" { (Inert(&source.account)) @if !source.account_name.is_empty() { " " span.dim { (Inert(&source.account_name)) } } }
            td data-label="Region" { (Inert(&source.region)) }
            td data-label="State" { @match source.state {
                State::Silent => span.outcome.bad { "silent" },
                State::Arriving => span.outcome.good { "arriving" },
                state => span.outcome { (state.as_str()) },
            } }
            td data-label="Last" { @if let Some(last) = last { (when_ago(last, now)) } }
            td.num data-label="Events, 24 h" { (source.events_last_day) }
            td.num data-label="Delay" { @if source.last_event.is_some() { (span((source.delay_seconds * 1e6) as i64)) } }
            td.num data-label="Silent after" { @if source.state != State::Passing { (span(source.silent_after_seconds * 1_000_000)) } }
        }
    }
}

fn collector(fetching: &Fetching, now: Time) -> Markup {
    let collector = &fetching.collector;
    html! {
        tr {
            td data-label="Collector" { b { (Inert(&collector.label())) } }
            td data-label="Node" { (Inert(&collector.node)) }
            td data-label="State" {
                span.outcome.good[fetching.state == "well"].bad[fetching.state == "failing"] { (fetching.state) }
                @if fetching.state == "failing" { p.wrong { (Inert(&collector.message)) } p.dim { (Inert(&collector.hint)) } }
                @if !fetching.beside.is_empty() {
                    p.wrong { "also read by " (Inert(&fetching.beside.join(", "))) }
                    p.dim { (fetching.shared_hint()) }
                }
            }
            td data-label="Last well" { @if let Some(well) = collector.well { (when_ago(well, now)) } @else { "never" } }
            td.num data-label="Waiting" { @if let Some(waiting) = collector.waiting { (waiting) } }
            td.num data-label="Taken" { (collector.taken) }
        }
    }
}

fn expected(account: &str, name: &str, list: &[Expected]) -> Markup {
    html! {
        @if !list.is_empty() {
            table.cards {
                thead { tr { th { (account) } @if !name.is_empty() { th { (name) } } th { "Owner" } th { "Criticality" } } }
                tbody { @for entry in list.iter().take(ROWS) { tr {
                    td data-label=(account) { (Inert(&entry.account)) " " span.dim { (Inert(&entry.account_name)) } }
                    @if !name.is_empty() { td data-label=(name) { (Inert(&entry.name)) } }
                    td data-label="Owner" { (Inert(&entry.owner)) }
                    td data-label="Criticality" { (Inert(&entry.criticality)) }
                } } }
            }
            @if list.len() > ROWS { p.dim { "and " (list.len() - ROWS) " more" } }
        }
    }
}
