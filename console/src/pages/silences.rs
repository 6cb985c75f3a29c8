//! Silences: for a time, alerts that match are kept and shown but notify nobody.

use ::event::Time;
use alerting::silence::{NewSilence, Silence};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::layout::{self, Tab};
use super::when;
use crate::api::silences::{add, end};
use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::inert::{self, Inert};
use crate::params::{Form, Params};

const HOURS: [(u64, &str); 6] = [
    (1, "1 hour"),
    (4, "4 hours"),
    (24, "1 day"),
    (72, "3 days"),
    (168, "1 week"),
    (720, "30 days"),
];

/// `GET /silences`; `matchers` fills the form.
pub(crate) async fn page(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Markup, ApiError> {
    params.only(&["matchers"])?;
    show(&shared, &client, &params, None).await
}

/// `POST /silences`
pub(crate) async fn create(
    State(shared): State<Shared>,
    client: Client,
    Form(params): Form,
) -> Result<Response, ApiError> {
    params.only(&["matchers", "hours", "comment", "confirmed"])?;
    let hours = params.number("hours", 1..=8_784, 4)?;
    let new = NewSilence {
        matchers: params
            .or_empty("matchers")
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect(),
        starts: None,
        ends: shared.now().plus(hours as i64 * 3_600_000_000),
        comment: params.or_empty("comment").to_owned(),
        confirmed: params.flag("confirmed")?,
    };
    match add(&shared, &client, new).await {
        Ok(_) => Ok(Redirect::to("/silences").into_response()),
        Err(refused) if refused.status == StatusCode::UNPROCESSABLE_ENTITY => {
            let page = show(&shared, &client, &params, Some(&refused.message)).await?;
            Ok((refused.status, page).into_response())
        }
        Err(refused) => Err(refused),
    }
}

/// `POST /silences/{id}/expire`
pub(crate) async fn expire(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Redirect, ApiError> {
    end(&shared, &client, &id).await?;
    Ok(Redirect::to("/silences"))
}

async fn show(
    shared: &Shared,
    client: &Client,
    params: &Params,
    wrong: Option<&str>,
) -> Result<Markup, ApiError> {
    let (store, now) = (shared.app.store.clone(), shared.now());
    let silences = blocking(move || store.silences(true, now)).await??;
    let (active, over): (Vec<_>, Vec<_>) = silences.iter().partition(|s| s.ends > now);
    Ok(layout::page(
        client,
        Tab::Silences,
        "Silences",
        html! {
            div.head { h1 { "Silences" } span.dim { "Alerts that match are kept and shown, but notify nobody." } }
            div.columns {
                div {
                    @if active.is_empty() {
                        div.empty { h2 { "No silence is in force" } p { "Make one for planned work, or from an alert with “Silence…”." } }
                    }
                    @for silence in active { (one(client, silence, now)) }
                    @if !over.is_empty() {
                        details { summary { (over.len()) " that are over" } @for silence in over.iter().take(50) { (one(client, silence, now)) } }
                    }
                }
                @if client.may_change { div.side { (form(client, params, wrong)) } }
            }
        },
    ))
}

fn one(client: &Client, silence: &Silence, now: Time) -> Markup {
    html! {
        section.panel.silence {
            p.matchers { @for matcher in &silence.matchers { code.tag { (Inert(&matcher.to_string())) } " " } @if silence.broad { span.badge.warn { "covers everything but critical alerts" } } }
            p { (inert::block(&silence.comment)) }
            p.dim { (Inert(&silence.author)) " · " (when(silence.starts)) " to " (when(silence.ends)) @if !silence.expired_by.is_empty() { " · ended by " (Inert(&silence.expired_by)) } }
            @if silence.is_active(now) && client.may_change {
                form action=(format!("/silences/{}/expire", silence.id)) method="post" { input type="hidden" name="csrf" value=(client.csrf); button.small type="submit" { "End it now" } }
            }
        }
    }
}

fn form(client: &Client, params: &Params, wrong: Option<&str>) -> Markup {
    let hours = params
        .text("hours")
        .and_then(|h| h.parse().ok())
        .unwrap_or(4);
    html! {
        section.panel { h2 { "New silence" }
            @if let Some(wrong) = wrong { p.wrong role="alert" { (Inert(wrong)) } }
            form.stack action="/silences" method="post" {
                input type="hidden" name="csrf" value=(client.csrf);
                label for="matchers" { "Covers alerts with all of (one a line)" }
                textarea #matchers name="matchers" rows="4" required spellcheck="false" placeholder="rule_id=\"…\"\naccount=\"123456789012\"\nregion=~\"eu-.*\"" { (params.or_empty("matchers")) }
                label for="hours" { "For" }
                select #hours name="hours" { @for (n, name) in HOURS { option value=(n) selected[n == hours] { (name) } } }
                label for="comment" { "Why" }
                input #comment name="comment" required maxlength="4000" value=(params.or_empty("comment"));
                label.check { input type="checkbox" name="confirmed" checked[params.text("confirmed").is_some()]; " it may cover every alert (at most a day, never critical ones)" }
                button.primary type="submit" { "Silence" }
            }
        }
    }
}
