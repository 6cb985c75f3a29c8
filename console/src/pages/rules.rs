//! The rules: which are loaded, and for each what it means, how it is written and what it found.

use ::event::{RuleInfo, Severity};
use axum::extract::{Path, State};
use maud::{Markup, html};

use super::layout::{self, Tab};
use super::{encode, severity};
use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::params::Params;

/// `GET /rules`
pub(crate) async fn list(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Markup, ApiError> {
    params.only(&["q", "severity"])?;
    let all = shared.rules();
    let text = params.or_empty("q").to_lowercase();
    let least = params.severity("severity")?;
    let mut shown: Vec<&RuleInfo> = all
        .iter()
        .filter(|rule| least.is_none_or(|s| rule.severity >= s))
        .filter(|rule| {
            [&rule.title, &rule.id, &rule.description]
                .into_iter()
                .chain(&rule.tags)
                .any(|t| t.to_lowercase().contains(&text))
        })
        .collect();
    shown.sort_by(|a, b| (b.severity, &a.title).cmp(&(a.severity, &b.title)));
    Ok(layout::page(
        &client,
        Tab::Rules,
        "Rules",
        html! {
            div.head { h1 { "Rules" } span.dim { (all.len()) " loaded" @if shown.len() != all.len() { ", " (shown.len()) " shown" } } }
            form.filters action="/rules" method="get" hx-get="/rules" hx-target="#rules" hx-select="#rules" hx-swap="outerHTML" hx-push-url="true" hx-trigger="change, submit, input delay:200ms from:#text" {
                label.field { span { "Severity" }
                    select name="severity" {
                        option value="" { "any" }
                        @for s in Severity::ALL.into_iter().rev() { option value=(s) selected[least == Some(s)] { (s) @if s != Severity::Critical { " or worse" } } }
                    }
                }
                label.field.grow { span { "Text" } input #text type="search" name="q" value=(params.or_empty("q")) placeholder="title, tag, description …"; }
                noscript { button type="submit" { "Show" } }
            }
            div #rules {
                @if shown.is_empty() { div.empty { h2 { "No rule matches" } p { a href="/rules" { "Show all" } } } }
                @else {
                    table.cards {
                        thead { tr { th { "Severity" } th { "Rule" } th { "Kind" } th { "Tags" } th { "Status" } } }
                        tbody { @for rule in shown {
                            tr data-row="" id=(format!("r-{}", encode(&rule.id))) tabindex="-1" {
                                td data-label="Severity" { (severity(rule.severity)) }
                                td data-label="Rule" { a href=(format!("/rules/{}", encode(&rule.id))) { (rule.title) } }
                                td data-label="Kind" { (kind(rule)) }
                                td.tags data-label="Tags" { @for tag in &rule.tags { span.tag { (tag) } " " } }
                                td data-label="Status" { (rule.status) @if rule.staged { " staged" } }
                            }
                        } }
                    }
                }
            }
        },
    ))
}

fn kind(rule: &RuleInfo) -> &str {
    rule.correlation.as_deref().unwrap_or("single event")
}

/// `GET /rules/{id}`
pub(crate) async fn page(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Markup, ApiError> {
    let rule = shared
        .rule(&id)
        .ok_or_else(|| ApiError::not_found("rule"))?;
    let (store, now) = (shared.app.store.clone(), shared.now());
    let filter = alerting::Filter {
        rule_id: Some(rule.id.clone()),
        limit: 20,
        ..alerting::Filter::default()
    };
    let alerts = blocking(move || store.alerts(&filter)).await??;
    Ok(layout::page(
        &client,
        Tab::Rules,
        &rule.title,
        html! {
            p.back { a href="/rules" { "← Rules" } }
            header class=(format!("alert-head edge-{}", rule.severity)) {
                div.line { (severity(rule.severity)) span.badge { (kind(&rule)) } @if !rule.status.is_empty() { span.badge { (rule.status) } } @if rule.staged { span.badge { "staged: nobody is told" } } }
                h1 { (rule.title) }
                p.lead { (rule.description) }
                p.tags { @for tag in &rule.tags { span.tag { (tag) } " " } }
            }
            div.columns {
                div {
                    @if !rule.yaml.is_empty() { section.panel { h2 { "As written" } pre.yaml tabindex="0" { (rule.yaml) } } }
                    section { h2 { "Latest alerts" }
                        @if alerts.is_empty() { p.dim { "None so far." } }
                        @for alert in &alerts { (super::alerts::row(&client, alert, now)) }
                        @if alerts.len() == 20 { p.more { a.button href=(format!("/?state=all&rule={}", encode(&rule.id))) { "All of them" } } }
                    }
                }
                div.side {
                    section.panel.guidance {
                        @if !rule.next_steps.is_empty() { h2 { "Next steps" } ol { @for step in &rule.next_steps { li { (step) } } } }
                        @if !rule.false_positives.is_empty() { h2 { "Harmless causes" } ul { @for cause in &rule.false_positives { li { (cause) } } } }
                        @if !rule.references.is_empty() { h2 { "Read more" } (references(&rule)) }
                        h2 { "Origin" }
                        dl.facts {
                            @for (name, value) in [("id", &rule.id), ("author", &rule.author), ("file", &rule.file)] {
                                @if !value.is_empty() { div { dt { (name) } dd { (value) } } }
                            }
                        }
                    }
                }
            }
        },
    ))
}

/// Where to read more; only addresses of the web become links.
pub(crate) fn references(rule: &RuleInfo) -> Markup {
    html! {
        ul.refs { @for reference in &rule.references {
            li {
                @if reference.starts_with("https://") || reference.starts_with("http://") { a href=(reference) rel="noreferrer noopener" target="_blank" { (reference) } }
                @else { (reference) }
            }
        } }
    }
}
