//! One alert: what happened, who did it, from where and how bad, at one glance; then the evidence, why the
//! rule matched, what to do next, and what people have done so far.
//!
//! The forms post here and lead back here. A change against an alert that somebody else has changed
//! meanwhile is told as such and shows the alert as it is now.

use ::event::{Event, Id, RuleInfo, Time};
use ::search::SearchError;
use alerting::{
    Action, Alert, Delivery, HistoryEntry, Notification, NotificationFilter, State as AlertState,
};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::layout::{self, Tab};
use super::{
    encode, fact, investigation, pivot, pivot_at, severity, state, subject, when, when_ago,
};
use crate::api::alerts::{Change, change as change_alert};
use crate::api::evidence_search::EvidenceSearch;
use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::inert::{self, Inert};
use crate::params::{self, Form};

/// The most events of the evidence that the page shows, and how many of them without being asked.
const MAX_EVIDENCE: usize = 50;
const AT_ONCE: usize = 10;

struct Found {
    alert: Alert,
    history: Vec<HistoryEntry>,
    siblings: Vec<Alert>,
    notifications: Vec<Notification>,
    evidence: Vec<Event>,
    /// Why some of it may be missing here.
    partial: Option<String>,
    why: Vec<String>,
    search: EvidenceSearch,
}

/// `GET /alerts/{id}`
pub(crate) async fn page(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Markup, ApiError> {
    let id = params::id(&id, "alert")?;
    show(&shared, &client, id, None).await
}

/// `POST /alerts/{id}`
pub(crate) async fn change(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(params): Form,
) -> Result<Response, ApiError> {
    params.only(&["do", "version", "assignee", "text"])?;
    let id = params::id(&id, "alert")?;
    let version = match params.text("version") {
        None => None,
        Some(_) => Some(params.number("version", 0..=u64::MAX, 0)?),
    };
    let text = params.or_empty("text").to_owned();
    let change = match params.or_empty("do") {
        "acknowledge" => Change::Acknowledge,
        "assign" => Change::Assign(params.or_empty("assignee").to_owned()),
        "take" => Change::Assign(client.name.clone()),
        "comment" => Change::Comment(text),
        "resolve" => Change::Resolve(text),
        _ => {
            return Err(ApiError::bad(
                "bad_parameter",
                "`do` is acknowledge, assign, take, comment or resolve",
            ));
        }
    };
    let done = change_alert(&shared, &client, id, version, change).await;
    if headers.contains_key("hx-request") {
        // The list fetches itself again; a refusal is said in a corner of the page.
        return Ok(match done {
            Ok(_) => (StatusCode::NO_CONTENT, [("hx-trigger", "refresh")]).into_response(),
            Err(refused) => (refused.status, refused.message).into_response(),
        });
    }
    match done {
        Ok(_) => Ok(Redirect::to(&format!("/alerts/{id}")).into_response()),
        Err(refused) if refused.status == StatusCode::CONFLICT => {
            let page = show(&shared, &client, id, Some(&refused.message)).await?;
            Ok((StatusCode::CONFLICT, page).into_response())
        }
        Err(refused) => Err(refused),
    }
}

async fn show(
    shared: &Shared,
    client: &Client,
    id: Id,
    wrong: Option<&str>,
) -> Result<Markup, ApiError> {
    let inside = shared.clone();
    let found = blocking(move || find(&inside, id)).await??;
    let rule = shared.rule(&found.alert.rule_id);
    let title = found.alert.title.to_string();
    let body = body(client, &found, rule.as_ref(), shared.now(), wrong);
    Ok(layout::page(client, Tab::Alerts, &title, body))
}

fn find(shared: &Shared, id: Id) -> Result<Found, ApiError> {
    let store = &shared.app.store;
    let alert = store
        .alert(id)?
        .ok_or_else(|| ApiError::not_found("alert"))?;
    let mut siblings = store.alerts(&alerting::Filter {
        incident: Some(alert.incident),
        limit: 100,
        ..alerting::Filter::default()
    })?;
    siblings.retain(|a| a.id != id);
    let ids = &alert.finding.evidence;
    let ids = &ids[..ids.len().min(MAX_EVIDENCE)];
    // Whoever looks at an alert needs it all the more where an index is away.
    let (evidence, partial) = match shared.app.searcher.events(ids) {
        Ok(found) => found,
        Err(SearchError::Missing(why)) => (Vec::new(), Some(why)),
        Err(error) => {
            let why = format!("{}; the log of this node says more", ApiError::from(error));
            (Vec::new(), Some(why))
        }
    };
    // The event that fired it says best why; else any that is still there.
    let fired = evidence
        .iter()
        .find(|e| e.time == alert.finding.time)
        .or(evidence.first());
    let why = fired.map_or_else(Vec::new, |e| (shared.app.explain)(&alert.rule_id, e));
    Ok(Found {
        history: store.history(id)?,
        notifications: store.notifications(&NotificationFilter {
            alert: Some(id),
            limit: 50,
            ..NotificationFilter::default()
        })?,
        search: EvidenceSearch::of(shared, &alert),
        alert,
        siblings,
        evidence,
        partial,
        why,
    })
}

fn body(
    client: &Client,
    found: &Found,
    rule: Option<&RuleInfo>,
    now: Time,
    wrong: Option<&str>,
) -> Markup {
    let alert = &found.alert;
    html! {
        p.back { a href="/" { "← Alerts" } }
        @if let Some(wrong) = wrong { p.wrong role="alert" { (wrong) ". This is the alert as it is now." } }
        header class=(format!("alert-head edge-{}", alert.severity)) {
            div.line { (severity(alert.severity)) (state(alert.state)) @if !alert.assignee.is_empty() { span.assignee { (Inert(&alert.assignee)) } } @if alert.finding.late { span.badge { "late" } } }
            h1 { (Inert(&alert.title)) }
            @if let Some(into) = alert.merged_into { p { "This alert has become part of " a href=(format!("/alerts/{into}")) { "an earlier one" } "." } }
            @if let Some(rule) = rule { @if !rule.description.is_empty() { p.lead { (rule.description) } } }
        }
        div.columns {
            div {
                (glance(alert, now))
                (why(found, rule))
                (evidence(found))
                (siblings(client, found, now))
            }
            div.side {
                @if client.may_change { (actions(client, alert)) }
                (guidance(alert, rule))
                (timeline(found))
                (notifications(found))
            }
        }
    }
}

fn glance(alert: &Alert, now: Time) -> Markup {
    let finding = &alert.finding;
    let at = |field: &str, value: &str| pivot_at(field, value, finding.time);
    html! {
        section.panel.glance { h2.hidden { "At a glance" }
            dl.facts.wide {
                (fact("What", html! { (pivot("action", &finding.action)) @if alert.count > 1 { span.dim { " in " (alert.count) " events" } } }))
                @for (key, value) in &alert.group {
                    div { dt { (Inert(key)) } dd { @match value { Some(value) => (at(key, value)), None => span.none { "not given" } } } }
                }
                @if !finding.function.is_empty() { (fact("Function", at("function", &finding.function))) }
                @if !finding.resources.is_empty() {
                    (fact("On", html! { @for (i, r) in finding.resources.iter().take(10).enumerate() { @if i > 0 { br; } (pivot("resources", r)) } }))
                }
                (fact("Who", at("actor", &alert.actor)))
                @if !alert.identity.is_empty() && alert.identity != alert.actor { (fact("Identity", at("identity", &alert.identity))) }
                @if !finding.session.is_empty() { (fact("Session", at("session", &finding.session))) }
                @if !finding.access_key.is_empty() { (fact("Access key", at("access_key", &finding.access_key))) }
                (fact("From", at("src_ip", &finding.src_ip)))
                (fact("Account", html! { (at("account", &alert.account)) @if !alert.region.is_empty() { " · " (pivot("region", &alert.region)) } }))
                (fact("First event", when_ago(finding.first_event_time, now)))
                @if finding.last_event_time != finding.first_event_time { (fact("Last event", when_ago(finding.last_event_time, now))) }
            }
            p.around.buttons {
                @if let Some((field, value)) = who(alert) { a.button.primary data-key="i" href=(investigation(field, value, Some(finding.time), 24)) title="What else they did, a day around, beside what is usual (i)" { "Investigate this " (field) } }
                a.button href=(around(alert)) { "Everything by this actor, an hour around" }
            }
        }
    }
}

/// By what an alert is looked into first.
fn who(alert: &Alert) -> Option<(&'static str, &str)> {
    subject([
        ("identity", &alert.identity),
        ("actor", &alert.actor),
        ("src_ip", &alert.finding.src_ip),
        ("function", &alert.finding.function),
    ])
}

/// The search for what the same actor did an hour before and after.
fn around(alert: &Alert) -> String {
    const HOUR: i64 = 3_600_000_000;
    let (field, value) = if !alert.identity.is_empty() {
        ("identity", &alert.identity)
    } else if !alert.actor.is_empty() {
        ("actor", &alert.actor)
    } else {
        ("src_ip", &alert.finding.src_ip)
    };
    let query = super::query_for(field, value).unwrap_or_default();
    format!(
        "/search?q={}&range=custom&from={}&to={}",
        encode(&query),
        encode(&alert.finding.first_event_time.plus(-HOUR).to_string()),
        encode(&alert.finding.last_event_time.plus(HOUR).to_string()),
    )
}

/// For a correlation what was counted together, for a single event what in it matched.
fn why(found: &Found, rule: Option<&RuleInfo>) -> Markup {
    let alert = &found.alert;
    let correlation = rule.and_then(|r| r.correlation.as_deref());
    let explanation = alert.finding.explanation.as_str();
    if found.why.is_empty() && correlation.is_none() && explanation.is_empty() {
        return html! {};
    }
    html! {
        section.panel { h2 { "Why the rule matched" }
            @if !explanation.is_empty() {
                p { (Inert(explanation)) }
            } @else if let Some(kind) = correlation {
                p { b { (alert.count) } " events "
                    @for (i, key) in alert.group.keys().enumerate() { @if i == 0 { "with the same " } @else { " and " } code { (Inert(key)) } }
                    " from " (when(alert.finding.first_event_time)) " to " (when(alert.finding.last_event_time))
                    " (" code { (kind) } "); the rule says how many within which time."
                }
            }
            @if !found.why.is_empty() { ul.why { @for line in &found.why { li { code { (Inert(line)) } } } } }
        }
    }
}

fn evidence(found: &Found) -> Markup {
    let alert = &found.alert;
    html! {
        section.panel { h2 { "Evidence" span.dim { " " (alert.count) @if alert.count == 1 { " event" } @else { " events" } } }
            p.buttons.evidence {
                a.button.small data-key="o" href=(found.search.address()) title="Its events as a search with fixed times (o)" { "Open as search" }
                @if !found.search.exact { span.dim { "Not every event is named: the search finds what the rule looks at, for this group and time." } }
            }
            @if let Some(why) = &found.partial { p.wrong role="alert" { "Not all events could be looked for: " (why) } }
            @if found.evidence.is_empty() {
                @if found.partial.is_none() { p.dim { "The events are not in the index: they are being indexed, or older than what is kept." } }
                p.dim { "Their ids:" }
                ul.ids { @for id in alert.finding.event_ids.iter().take(20) { li { code { (Inert(id)) } } } }
            } @else {
                @let (first, rest) = found.evidence.split_at(found.evidence.len().min(AT_ONCE));
                div.hits { @for event in first { (super::search::hit(event, found.evidence.len() == 1)) } }
                @if !rest.is_empty() {
                    details.rest { summary { (rest.len()) " more" } div.hits { @for event in rest { (super::search::hit(event, false)) } } }
                }
                @if alert.count > found.evidence.len() as u64 { p.dim { "Shown are " (found.evidence.len()) " of " (alert.count) ", earliest first." } }
            }
        }
    }
}

fn actions(client: &Client, alert: &Alert) -> Markup {
    let post = format!("/alerts/{}", alert.id);
    let fields = html! {
        input type="hidden" name="csrf" value=(client.csrf);
        input type="hidden" name="version" value=(alert.version);
    };
    html! {
        section.panel.actions { h2 { "Act" }
            div.buttons {
                @if alert.state == AlertState::Firing {
                    form action=(post) method="post" { (fields) button.primary type="submit" name="do" value="acknowledge" data-key="a" { "Acknowledge" } }
                }
                @if alert.is_open() && alert.assignee != client.name {
                    form action=(post) method="post" { (fields) button type="submit" name="do" value="take" { "Take it" } }
                }
                a.button href=(silence_link(alert)) { "Silence…" }
            }
            form.stack action=(post) method="post" { (fields)
                label for="text" { "Comment" }
                textarea #text name="text" rows="3" maxlength="8000" placeholder="What did you find?" {}
                div.buttons {
                    button type="submit" name="do" value="comment" { "Comment" }
                    @if alert.is_open() { button type="submit" name="do" value="resolve" { "Resolve" } }
                }
            }
            @if alert.is_open() {
                form.inline action=(post) method="post" { (fields)
                    label for="assignee" { "Assign to" }
                    input #assignee name="assignee" value=(alert.assignee) maxlength="128" placeholder="nobody";
                    button type="submit" name="do" value="assign" { "Assign" }
                }
            }
        }
    }
}

fn silence_link(alert: &Alert) -> String {
    let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut matchers = format!("rule_id=\"{}\"", quote(&alert.rule_id));
    if !alert.actor.is_empty() {
        matchers.push_str(&format!("\nactor=\"{}\"", quote(&alert.actor)));
    }
    format!("/silences?matchers={}", encode(&matchers))
}

/// What the rule's author says: next steps, harmless causes, where to read more.
fn guidance(alert: &Alert, rule: Option<&RuleInfo>) -> Markup {
    let Some(rule) = rule else {
        return html! { section.panel { h2 { "Rule" } p.dim { "The rule " code { (Inert(&alert.rule_id)) } " is not loaded any more." } } };
    };
    html! {
        section.panel.guidance {
            @if !rule.next_steps.is_empty() { h2 { "Next steps" } ol { @for step in &rule.next_steps { li { (step) } } } }
            @if !rule.false_positives.is_empty() { h2 { "Harmless causes" } ul { @for cause in &rule.false_positives { li { (cause) } } } }
            h2 { "Rule" }
            p { a href=(format!("/rules/{}", encode(&rule.id))) { (rule.title) } }
            p.tags { @for tag in &rule.tags { span.tag { (tag) } " " } }
            @if !rule.references.is_empty() { (super::rules::references(rule)) }
        }
    }
}

fn timeline(found: &Found) -> Markup {
    html! {
        section.panel { h2 { "History" }
            ol.timeline {
                @for entry in &found.history {
                    li {
                        (when(entry.at))
                        div { b { (Inert(&entry.who)) } " " (verb(entry.action))
                            @if !entry.detail.is_empty() {
                                @if entry.action == Action::Commented { p.comment { (inert::block(&entry.detail)) } } @else { " " span.dim { (Inert(&entry.detail)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Opened => "opened it",
        Action::SeverityRose => "raised its severity",
        Action::Acknowledged => "acknowledged it",
        Action::Assigned => "assigned it",
        Action::Commented => "wrote",
        Action::Resolved => "resolved it",
        Action::Reopened => "opened it again",
        Action::Merged => "merged it",
        Action::Notified => "notified",
    }
}

fn notifications(found: &Found) -> Markup {
    html! {
        section.panel { h2 { "Notifications" }
            @if found.notifications.is_empty() { p.dim { "None: no route leads this alert to a receiver, or a silence covers it." } }
            ul.plain {
                @for n in &found.notifications {
                    li { (delivery(n.delivery)) " " b { (n.receiver) } " " span.dim { (n.reason.as_str()) " · " (when(n.sent.unwrap_or(n.created))) }
                        @if !n.error.is_empty() { p.dim { (Inert(&n.error)) } } }
                }
            }
        }
    }
}

/// How a notification stands, by colour and word.
pub(crate) fn delivery(delivery: Delivery) -> Markup {
    html! {
        @match delivery {
            Delivery::Sent => span.outcome.good { "sent" },
            Delivery::Pending | Delivery::Leased => span.outcome { "pending" },
            Delivery::Ambiguous => span.outcome.bad { "ambiguous" },
            Delivery::Dead => span.outcome.bad { "dead" },
        }
    }
}

fn siblings(client: &Client, found: &Found, now: Time) -> Markup {
    html! {
        @if !found.siblings.is_empty() {
            section { h2 { "Same incident" span.dim { " " (found.siblings.len()) " more" } }
                @for alert in &found.siblings { (super::alerts::row(client, alert, now)) }
            }
        }
    }
}
