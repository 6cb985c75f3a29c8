//! The alert feed: what is open now, grouped by incident, worst seen first glance, live.
//!
//! The list is the same markup whether it is part of the page or fetched again: a server-sent event makes
//! htmx ask for it anew with the filters as they stand. In the demo a section lists what was injected, with
//! the alert that it led to, so that a viewer can check one against the other.

use std::collections::BTreeMap;

use ::event::{Id, Severity, Time};
use alerting::{Alert, Counts, Incident, State as AlertState, StoreError};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::layout::{self, Tab};
use super::{actor, ago, encode, severity, state, when, when_ago};
use crate::api::{self, alerts::Change};
use crate::app::{Client, Injection, Shared};
use crate::error::{ApiError, blocking};
use crate::inert::{self, Inert};
use crate::params::{self, Form, Params};

const STATES: [(&str, &str); 5] = [
    ("open", "Open"),
    ("firing", "Firing"),
    ("acknowledged", "Acknowledged"),
    ("resolved", "Resolved"),
    ("all", "All"),
];

struct Found {
    alerts: Vec<Alert>,
    incidents: BTreeMap<Id, Incident>,
    counts: Counts,
    /// What the demo's injections are compared with.
    recent: Vec<Alert>,
}

/// `GET /`
pub(crate) async fn page(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Markup, ApiError> {
    params.only(api::alerts::KNOWN)?;
    let mut filter = api::alerts::filter(&params)?;
    if params.text("state").is_none() && filter.incident.is_none() && filter.rule_id.is_none() {
        filter.states = vec![AlertState::Firing, AlertState::Acknowledged];
    }
    let (now, demo) = (shared.now(), shared.app.demo.clone());
    let (store, limit) = (shared.app.store.clone(), filter.limit);
    let is_demo = demo.is_some();
    let found = blocking(move || -> Result<Found, StoreError> {
        let alerts = store.alerts(&filter)?;
        let mut incidents = BTreeMap::new();
        for alert in &alerts {
            if !incidents.contains_key(&alert.incident)
                && let Some(incident) = store.incident(alert.incident)?
            {
                incidents.insert(alert.incident, incident);
            }
        }
        let recent = if is_demo {
            store.alerts(&alerting::Filter {
                limit: 1_000,
                ..alerting::Filter::default()
            })?
        } else {
            Vec::new()
        };
        Ok(Found {
            alerts,
            incidents,
            counts: store.counts()?,
            recent,
        })
    })
    .await??;
    let injections = demo.map(|list| list());
    let open: u64 = found.counts.open.iter().sum();
    let title = format!("{open} open alerts");
    Ok(layout::page(
        &client,
        Tab::Alerts,
        &title,
        html! {
            div.live hx-ext="sse" sse-connect="/api/v1/alerts/feed" {
                div.head {
                    h1 { "Alerts" }
                    span.livedot #live title="New alerts appear by themselves" { "live" }
                }
                (filters(&params))
                div #feed hx-get="/" hx-trigger="sse:alert delay:150ms, refresh from:body" hx-include="#filters"
                    hx-select="#feed > *" hx-swap="innerHTML" hx-disinherit="*" {
                    (summary(&found.counts))
                    (list(&client, &params, &found, limit, now))
                    @if let Some(injections) = &injections { (demo_section(injections, &found.recent, now)) }
                }
            }
        },
    ))
}

/// `POST /incidents/{id}`: all its alerts at once.
pub(crate) async fn change_incident(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(params): Form,
) -> Result<Response, ApiError> {
    params.only(&["do"])?;
    let id = params::id(&id, "incident")?;
    let change = match params.or_empty("do") {
        "acknowledge" => Change::Acknowledge,
        "resolve" => Change::Resolve(String::new()),
        _ => {
            return Err(ApiError::bad(
                "bad_parameter",
                "`do` is acknowledge or resolve",
            ));
        }
    };
    api::alerts::change_incident(&shared, &client, id, change).await?;
    if headers.contains_key("hx-request") {
        return Ok((StatusCode::NO_CONTENT, [("hx-trigger", "refresh")]).into_response());
    }
    Ok(Redirect::to(&format!("/?incident={id}")).into_response())
}

fn filters(params: &Params) -> Markup {
    let chosen = params.text("state").unwrap_or("open");
    let least = params.or_empty("severity");
    html! {
        form.filters #filters action="/" method="get" hx-get="/" hx-target="#feed" hx-select="#feed > *" hx-swap="innerHTML"
            hx-push-url="true" hx-trigger="change, submit, input delay:250ms from:#text" {
            fieldset.segments {
                legend.hidden { "State" }
                @for (word, name) in STATES {
                    label { input type="radio" name="state" value=(word) checked[word == chosen]; span { (name) } }
                }
            }
            label.field { span { "Severity" }
                select name="severity" {
                    option value="" { "any" }
                    @for s in Severity::ALL.into_iter().rev() {
                        option value=(s) selected[s.as_str() == least] { (s) @if s != Severity::Critical { " or worse" } }
                    }
                }
            }
            label.field.grow { span { "Text" }
                input #text type="search" name="q" value=(params.or_empty("q")) placeholder="title, actor, account, address …";
            }
            @for hidden in ["rule", "account", "incident"] {
                @if let Some(value) = params.text(hidden) {
                    label.field { span { (hidden) } span.chip { input type="hidden" name=(hidden) value=(value); (Inert(value)) " " a href="/" title="Remove" aria-label=(format!("Remove the filter by {hidden}")) { "×" } } }
                }
            }
            noscript { button type="submit" { "Show" } }
        }
    }
}

fn summary(counts: &Counts) -> Markup {
    html! {
        ul.summary aria-label="Open alerts by severity" {
            @for (s, n) in Severity::ALL.into_iter().zip(counts.open).rev() {
                li.zero[n == 0] {
                    a href=(format!("/?severity={s}")) { span class=(format!("dot sev-{s}")) {} b { (n) } " " (s) }
                }
            }
            li.new { b { (counts.firing) } " not acknowledged" }
        }
    }
}

fn list(client: &Client, params: &Params, found: &Found, limit: usize, now: Time) -> Markup {
    if found.alerts.is_empty() {
        return empty(params);
    }
    // In the order in which an incident's newest alert stands in the list.
    let mut groups: Vec<(Id, Vec<&Alert>)> = Vec::new();
    let mut at = BTreeMap::new();
    for alert in &found.alerts {
        let index = *at.entry(alert.incident).or_insert_with(|| {
            groups.push((alert.incident, Vec::new()));
            groups.len() - 1
        });
        groups[index].1.push(alert);
    }
    let next = (found.alerts.len() == limit)
        .then(|| found.alerts.last().map(|a| a.seq))
        .flatten();
    html! {
        @for (id, alerts) in &groups {
            @let incident = found.incidents.get(id);
            @let whole = incident.map_or(alerts.len() as u64, |i| i.alerts.max(alerts.len() as u64));
            @if whole > 1 {
                section.incident aria-label="Incident" {
                    header {
                        span.label { "Incident" }
                        @if let Some(incident) = incident {
                            (severity(incident.severity))
                            strong { (people(alerts)) }
                            span.dim { (when(incident.first_event_time)) " – " (when(incident.last_event_time)) }
                        }
                        @if client.may_change && alerts.iter().any(|a| a.state == AlertState::Firing) {
                            form action=(format!("/incidents/{id}")) method="post" hx-post=(format!("/incidents/{id}")) hx-swap="none" {
                                input type="hidden" name="csrf" value=(client.csrf);
                                button.small type="submit" name="do" value="acknowledge" { "Acknowledge all" }
                            }
                        }
                        a href=(format!("/?incident={id}")) {
                            (whole) " alerts"
                            @if whole > alerts.len() as u64 { ", " (alerts.len()) " shown" }
                        }
                    }
                    @for alert in alerts { (row(client, alert, now)) }
                }
            } @else {
                @for alert in alerts { (row(client, alert, now)) }
            }
        }
        @if let Some(next) = next {
            p.more { a.button href=(older(params, next)) { "Older alerts" } }
        }
    }
}

fn older(params: &Params, cursor: u64) -> String {
    let mut address = format!("/?cursor={cursor}");
    for key in [
        "state", "severity", "rule", "account", "incident", "q", "limit",
    ] {
        if let Some(value) = params.text(key) {
            address.push_str(&format!("&{key}={}", encode(value)));
        }
    }
    address
}

/// Whom an incident is about: the first by name, the others by number.
fn people(alerts: &[&Alert]) -> Markup {
    let mut names: Vec<&str> = alerts.iter().map(|a| who(a)).collect();
    names.sort_unstable();
    names.dedup();
    html! { (actor(who(alerts[0]))) @if names.len() > 1 { " and " (names.len() - 1) " more" } }
}

/// Who an alert is about: the identity, else the actor.
fn who(alert: &Alert) -> &str {
    if alert.identity.is_empty() {
        &alert.actor
    } else {
        &alert.identity
    }
}

/// One alert as a line of a list.
pub(crate) fn row(client: &Client, alert: &Alert, now: Time) -> Markup {
    let finding = &alert.finding;
    html! {
        article.alert.new[alert.state == AlertState::Firing] id=(format!("a-{}", alert.id)) data-row="" tabindex="-1" {
            div.what {
                (severity(alert.severity))
                div {
                    h3 { a href=(format!("/alerts/{}", alert.id)) { (Inert(&alert.title)) } }
                    p {
                        (actor(if alert.actor.is_empty() { &finding.function } else { &alert.actor }))
                        @if !finding.action.is_empty() { " · " (Inert(&finding.action)) }
                        @for (key, value) in &alert.group {
                            " · " span.dim { (Inert(key)) " " } (actor(value.as_deref().unwrap_or("")))
                        }
                    }
                }
            }
            div.where {
                @if !alert.account.is_empty() { span { (Inert(&alert.account)) } }
                @if !alert.region.is_empty() { span { (Inert(&alert.region)) } }
                @if !finding.src_ip.is_empty() { span.ip { (Inert(&finding.src_ip)) } }
            }
            div.count { b { (alert.count) } @if alert.count == 1 { " event" } @else { " events" } }
            div.time { (when_ago(finding.last_event_time, now)) }
            div.act {
                (state(alert.state))
                @if !alert.assignee.is_empty() { span.assignee { (Inert(&alert.assignee)) } }
                @if client.may_change && alert.state == AlertState::Firing {
                    form action=(format!("/alerts/{}", alert.id)) method="post" hx-post=(format!("/alerts/{}", alert.id)) hx-swap="none" {
                        input type="hidden" name="csrf" value=(client.csrf);
                        input type="hidden" name="version" value=(alert.version);
                        button.small type="submit" name="do" value="acknowledge" data-key="a" { "Acknowledge" }
                    }
                }
            }
        }
    }
}

fn empty(params: &Params) -> Markup {
    let filtered = ["severity", "q", "rule", "account", "incident"]
        .iter()
        .any(|p| params.text(p).is_some());
    html! {
        div.empty {
            @if filtered {
                h2 { "No alert matches these filters" }
                p { a href="/?state=all" { "Show all alerts" } ", or look into the events themselves: " a href="/search" { "search" } "." }
            } @else if params.text("state").is_none_or(|s| s == "open" || s == "firing") {
                h2 { "Nothing is open" }
                p { "An alert appears here, by itself, as soon as a rule matches. " a href="/rules" { "See which rules are loaded" } ", " a href="/health" { "whether events arrive" } ", or what has been " a href="/?state=resolved" { "resolved" } "." }
            } @else {
                h2 { "None yet" }
                p { "Alerts that are acknowledged or resolved are kept for a year and listed here." }
            }
        }
    }
}

fn demo_section(injections: &[Injection], recent: &[Alert], now: Time) -> Markup {
    html! {
        section.demo aria-labelledby="demo" {
            h2 #demo { "What the demo injected" }
            p.dim { "Generated traffic with attacks in it. Compare: each attack should have its alert, a decoy none." }
            @if injections.is_empty() { p { "The first attack begins within seconds." } }
            table.cards {
                thead { tr { th { "Began" } th { "Attack" } th { "By" } th { "From" } th { "Account" } th { "Alert" } } }
                tbody {
                    @for injection in injections.iter().take(30) {
                        @let alerts: Vec<&Alert> = recent.iter().filter(|a| belongs(a, injection)).take(5).collect();
                        tr {
                            td data-label="Began" { (when_ago(injection.start, now)) }
                            td data-label="Attack" { (Inert(&injection.title)) @if injection.decoy { " " span.badge { "decoy" } } }
                            td data-label="By" { (actor(&injection.actor)) }
                            td data-label="From" { (inert::value(&injection.source_ip)) }
                            td data-label="Account" { (inert::value(&injection.account)) }
                            td data-label="Alert" {
                                @if alerts.is_empty() {
                                    @if injection.decoy { span.good { "✓ none, as it should be" } }
                                    @else if injection.end > now { span.dim { "running" } }
                                    @else if now.0 - injection.end.0 < 30_000_000 { span.dim { "ended " (ago(injection.end, now)) } }
                                    @else { span.wrong { "✗ none; expected " (Inert(&injection.expect.join(", "))) } }
                                }
                                @for alert in alerts {
                                    div {
                                        @if injection.decoy { span.wrong { "✗ " } } @else { span.good { "✓ " } }
                                        a href=(format!("/alerts/{}", alert.id)) { (Inert(&alert.title)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Is this the alert of that injection? It rests on one of its events, and is of a rule that was expected, or high for
/// a decoy.
fn belongs(alert: &Alert, injection: &Injection) -> bool {
    let by_rule = if injection.decoy {
        alert.severity >= Severity::High
    } else {
        injection
            .expect
            .iter()
            .any(|e| *e == alert.rule_id.as_str() || *e == alert.title.as_str())
    };
    let evidence = &alert.finding.event_ids;
    by_rule
        && evidence
            .iter()
            .any(|id| injection.event_ids.iter().any(|e| e == id.as_str()))
}
