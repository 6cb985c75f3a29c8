//! What somebody or something did around a time: the page of an investigation.
//!
//! At the top what it is, when it was first and last seen, and what is new in this window against the thirty days
//! before; then the events in order, with the alerts of the same time among them (`timeline`), and beside them what is
//! usual (`usual`), the sessions around an access key (`chain`) and what else there is to look into. Every value leads
//! to its own page of this kind and to the search. The address says it all, and its middle is fixed once it is
//! known, so that it can be handed on. The data is that of `/api/v1/investigate`.

mod chain;
mod timeline;
mod usual;

use std::collections::BTreeSet;

use ::event::{Id, Time};
use ::search::investigate::{Chain, Investigation, Middle, USUAL_DAYS};
use ::search::{Bucket, Request, SearchError};
use alerting::Alert;
use axum::extract::State;
use maud::{Markup, html};

use super::layout::{self, Tab};
use super::search::narrow;
use super::{encode, investigation, query_for, when, when_ago};
use crate::api;
use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::inert::Inert;
use crate::params::Params;
use crate::svg;

/// How many events are shown, if it is not said.
const SHOWN: u64 = 200;
/// How many bars the histogram has: for a day to each side one an hour.
const BARS: usize = 48;
/// How many alerts of the time are looked through.
const ALERTS: usize = 200;
/// Key, hours to each side, name on the page.
const WINDOWS: [(&str, i64, &str); 4] = [
    ("1", 1, "±1 h"),
    ("2", 24, "±24 h"),
    ("7", 7 * 24, "±7 d"),
    ("0", 30 * 24, "±30 d"),
];
const HOUR: i64 = 3_600_000_000;

/// What the page shows.
struct Shown {
    field: String,
    value: String,
    hours: i64,
    now: Time,
    found: Investigation,
    chain: Chain,
    buckets: Vec<Bucket>,
    alerts: Vec<Alert>,
    /// Why there are no alerts, where that has a reason.
    no_alerts: Option<&'static str>,
}

/// `GET /investigate`
pub(crate) async fn page(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Markup, ApiError> {
    let now = shared.now();
    let pivot = api::investigate::pivot(&params, now, api::MAX_LIMIT, SHOWN)?;
    let (field, value, hours) = (pivot.field.clone(), pivot.value.clone(), pivot.hours);
    let (found, chain) = api::investigate::look(&shared, &client, pivot).await?;
    let over_time = Request {
        query: found.query.clone(),
        from: Some(found.from),
        to: Some(found.to),
        ..Request::default()
    };
    let asked = over_time.clone();
    let buckets = api::search::quietly(&shared, &over_time, move |searcher| {
        match searcher.histogram(&asked, BARS) {
            // A part of it would mislead. That this is not all is said above.
            Err(SearchError::Missing(_) | SearchError::Timeout(_)) => Ok(Vec::new()),
            counted => counted,
        }
    })
    .await?;
    let (alerts, no_alerts) = alerts(&shared, &field, &value, &found).await?;
    let shown = Shown {
        field,
        value,
        hours,
        now,
        found,
        chain,
        buckets,
        alerts,
        no_alerts,
    };
    let title = format!("{}: {}", shown.field, shown.value);
    Ok(layout::page(
        &client,
        Tab::BelowSearch,
        &title,
        body(&shown),
    ))
}

/// The alerts of the window that are about the same, or rest on its events.
async fn alerts(
    shared: &Shared,
    field: &str,
    value: &str,
    found: &Investigation,
) -> Result<(Vec<Alert>, Option<&'static str>), ApiError> {
    if !shared.app.offers.alerts {
        return Ok((
            Vec::new(),
            Some("Alerts are shown by nodes with the role api."),
        ));
    }
    // Those that name it, and those of the time, of which some rest on its events and name somebody else.
    let within = Some((found.from, found.to));
    let filters = [value, ""].map(|text| alerting::Filter {
        within,
        text: text.to_owned(),
        limit: ALERTS,
        ..alerting::Filter::default()
    });
    let store = shared.app.store.clone();
    let read = blocking(move || {
        let [named, all] = filters.map(|filter| store.alerts(&filter));
        Ok::<_, alerting::StoreError>((named?, all?))
    })
    .await?;
    let (mut alerts, all) = match read {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(%error, "an investigation goes without the alerts of its time");
            return Ok((Vec::new(), Some("Alerts could not be read.")));
        }
    };
    let cut = alerts.len() == ALERTS || all.len() == ALERTS;
    let known: BTreeSet<Id> = alerts.iter().map(|alert| alert.id).collect();
    alerts.extend(all.into_iter().filter(|alert| !known.contains(&alert.id)));
    let events: BTreeSet<Id> = found.events.iter().map(|event| event.id).collect();
    alerts.retain(|alert| is_about(alert, field, value) || rests_on(alert, &events));
    let why = cut.then_some("There are more alerts in this window than were looked through.");
    Ok((alerts, why))
}

fn is_about(alert: &Alert, field: &str, value: &str) -> bool {
    let finding = &alert.finding;
    let own = match field {
        "identity" => &alert.identity,
        "actor" => &alert.actor,
        "account" => &alert.account,
        "src_ip" => &finding.src_ip,
        "session" => &finding.session,
        "access_key" => &finding.access_key,
        "function" => &finding.function,
        _ => return false,
    };
    own.eq_ignore_ascii_case(value)
}

fn rests_on(alert: &Alert, events: &BTreeSet<Id>) -> bool {
    alert.finding.evidence.iter().any(|id| events.contains(id))
}

impl Shown {
    /// The address of this page with another middle or width.
    fn at(&self, around: Time, hours: i64) -> String {
        investigation(&self.field, &self.value, Some(around), hours)
    }

    /// The page of another value around the same time.
    fn of(&self, field: &str, value: &str) -> String {
        investigation(field, value, Some(self.found.around), self.hours)
    }

    /// The search for the events of the window, or for those of them that a clause finds.
    fn search(&self, query: &str) -> String {
        format!(
            "/search?q={}&range=custom&from={}&to={}&order=oldest",
            encode(query),
            encode(&self.found.from.to_string()),
            encode(&self.found.to.to_string())
        )
    }

    /// The search for a value of an aspect, within the window.
    fn search_for(&self, aspect: &str, value: &str) -> Option<String> {
        let query = &self.found.query;
        let narrowed = match aspect {
            "hour" => return None,
            // What is no address stands for itself.
            "network" if value.contains('/') => format!("{query} AND src_ip:{value}"),
            "network" => narrow::with(query, "src_ip", value, false)?,
            field => narrow::with(query, field, value, false)?,
        };
        Some(self.search(&narrowed))
    }
}

fn body(shown: &Shown) -> Markup {
    let found = &shown.found;
    html! {
        p.back { a href="/search" { "← Search" } }
        header.inv-head {
            div.line { span.tag { (shown.field) } (middle(shown)) }
            h1 { (Inert(&shown.value)) }
            (facts(shown))
        }
        (steer(shown))
        @if let Some(why) = found.partial.as_ref().or(shown.chain.partial.as_ref()) { p.wrong role="alert" { "This is not all: " (why) } }
        @if found.first_seen.is_none() {
            (never(shown))
        } @else if found.matched == 0 {
            (elsewhen(shown))
            div.columns.inv { div { (usual::aspects(shown)) } div.side { (chain::chain(shown)) } }
        } @else {
            (usual::fresh(shown))
            (svg::histogram(&shown.buckets, |from, to| bar(shown, from, to), ""))
            div.columns.inv {
                div { (timeline::timeline(shown)) }
                div.side { (chain::chain(shown)) (usual::aspects(shown)) (related(shown)) }
            }
        }
    }
}

/// Why the window is where it is, where nobody asked for it.
fn middle(shown: &Shown) -> Markup {
    html! {
        @match shown.found.middle {
            Middle::Asked => {}
            Middle::Now => span.dim { "around now" },
            Middle::LastSeen => span.dim { "around the last event, since nothing is around now" },
        }
    }
}

fn facts(shown: &Shown) -> Markup {
    let found = &shown.found;
    let edge = |time: Option<Time>| {
        html! { @match time {
            None => span.none { "never" },
            Some(time) => { a href=(shown.at(time, shown.hours)) title="Look around this time" { (when(time)) } " " span.ago { (super::ago(time, shown.now)) } }
        } }
    };
    html! {
        dl.inv-facts {
            div { dt { "In this window" } dd { b { (found.matched) } @if found.matched == 1 { " event" } @else { " events" } @if found.failed > 0 { ", " a.bad href=(shown.search(&failed(&found.query))) { (found.failed) " failed or denied" } } } }
            div { dt { "The " (USUAL_DAYS) " days before" } dd { (found.usual) @if found.usual == 1 { " event" } @else { " events" } @if found.usual >= USUAL_DAYS as u64 { span.dim { ", " (found.usual / USUAL_DAYS as u64) " a day" } } } }
            div { dt { "First seen" } dd { (edge(found.first_seen)) } }
            div { dt { "Last seen" } dd { (edge(found.last_seen)) } }
        }
    }
}

fn failed(query: &str) -> String {
    format!("{query} AND outcome:(failure OR denied)")
}

/// The middle and the width of the window, and what else can be done with it.
fn steer(shown: &Shown) -> Markup {
    let found = &shown.found;
    let length = 2 * shown.hours * HOUR;
    let json = investigation(&shown.field, &shown.value, Some(found.around), shown.hours).replacen(
        "/investigate?",
        "/api/v1/investigate?",
        1,
    );
    html! {
        div.inv-steer {
            nav.segments.links aria-label="How wide" {
                @for (key, hours, name) in WINDOWS {
                    a data-key=(key) href=(shown.at(found.around, hours)) aria-current=[(hours == shown.hours).then_some("true")] { (name) }
                }
            }
            form.middle action="/investigate" method="get" {
                a.button data-key="p" href=(shown.at(found.around.plus(-length), shown.hours)) title="The same length of time before (p)" aria-label="earlier" { "←" }
                input type="hidden" name="field" value=(shown.field);
                input type="hidden" name="value" value=(shown.value);
                input type="hidden" name="hours" value=(shown.hours);
                input name="around" value=(found.around) aria-label="Around this time (UTC)" size="22" autocomplete="off";
                a.button data-key="n" href=(shown.at(found.around.plus(length), shown.hours)) title="The same length of time after (n)" aria-label="later" { "→" }
            }
            span.exports {
                a.button data-key="o" href=(shown.search(&found.query)) { "Open as search" }
                a.button data-share="" data-key="l" href=(shown.at(found.around, shown.hours)) title="The address of this page with its time fixed" { "Link" }
                a href=(json) { "JSON" }
            }
        }
    }
}

/// The page of the time that a bar stands for; what is narrower than the narrowest window is a search.
fn bar(shown: &Shown, from: Time, to: Time) -> String {
    let found = &shown.found;
    let middle = Time(from.0 + (to.0 - from.0) / 2);
    if shown.hours <= 1 {
        return format!(
            "/search?q={}&range=custom&from={}&to={}&order=oldest",
            encode(&found.query),
            encode(&from.to_string()),
            encode(&to.plus(-1).to_string())
        );
    }
    shown.at(middle, if shown.hours > 24 { 24 } else { 1 })
}

/// Nothing is known of it at all.
fn never(shown: &Shown) -> Markup {
    html! {
        div.empty {
            h2 { "Never seen" }
            p { "No event that is kept has " code { (shown.field) } " " b { (Inert(&shown.value)) } "." }
            p { "It may be written otherwise: "
                a href=(format!("/search?q={}&range=all", encode(&words(&shown.value)))) { "search for it as words" }
                @if let Some(query) = query_for("identity", &shown.value).filter(|_| shown.field != "identity") { ", or " a href=(format!("/search?q={}&range=all", encode(&query))) { "as an identity" } }
                "."
            }
        }
    }
}

/// The value as free text.
fn words(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Nothing in this window, but at other times.
fn elsewhen(shown: &Shown) -> Markup {
    let found = &shown.found;
    html! {
        div.empty {
            h2 { "Nothing in this window" }
            p { "From " b { (svg::short(found.from)) } " to " b { (svg::short(found.to)) } " (UTC) there is no event of it." }
            @if let (Some(first), Some(last)) = (found.first_seen, found.last_seen) {
                p { "First seen " (when_ago(first, shown.now)) ", last seen " (when_ago(last, shown.now)) "." }
                p.buttons.middle {
                    a.button.primary href=(shown.at(last, shown.hours)) { "Look around the last event" }
                    a.button href=(shown.at(first, shown.hours)) { "around the first" }
                }
            }
        }
    }
}

/// What else the events name.
fn related(shown: &Shown) -> Markup {
    html! {
        @if !shown.found.related.is_empty() {
            section.panel.related { h2 { "Go on from here" }
                @for related in &shown.found.related {
                    h4 { (related.field) }
                    ul.plain.counts {
                        @for value in &related.values {
                            li {
                                @if super::can_investigate(&related.field, &value.value) { a href=(shown.of(&related.field, &value.value)) { (Inert(&value.value)) } }
                                @else { (Inert(&value.value)) }
                                @if let Some(search) = shown.search_for(&related.field, &value.value) { a.n href=(search) title="Search for these events" { (value.count) } }
                            }
                        }
                        @if related.other > 0 { li { span.dim { "others" } span.n.dim { (related.other) } } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(field: &str) -> Shown {
        Shown {
            field: field.into(),
            value: "a b".into(),
            hours: 24,
            now: Time(0),
            found: Investigation {
                query: format!("{field}:\"a b\""),
                to: Time(1),
                ..Investigation::default()
            },
            chain: Chain::default(),
            buckets: Vec::new(),
            alerts: Vec::new(),
            no_alerts: None,
        }
    }

    #[test]
    fn values_lead_to_searches_that_can_be_read() {
        let shown = shown("identity");
        for (aspect, value, expected) in [
            ("action", "Put", Some("identity:\"a b\" AND action:\"Put\"")),
            (
                "network",
                "203.0.113.0/24",
                Some("identity:\"a b\" AND src_ip:203.0.113.0/24"),
            ),
            (
                "network",
                "2001:db8:1::/48",
                Some("identity:\"a b\" AND src_ip:2001:db8:1::/48"),
            ),
            (
                "network",
                "ec2.amazonaws.com",
                Some("identity:\"a b\" AND src_ip:\"ec2.amazonaws.com\""),
            ),
            ("hour", "03", None),
        ] {
            let address = shown.search_for(aspect, value);
            let query = expected.map(|query| {
                ::search::query::parse(query).unwrap();
                format!("/search?q={}&", encode(query))
            });
            assert_eq!(address.is_some(), query.is_some(), "{value}");
            if let (Some(address), Some(query)) = (address, query) {
                assert!(address.starts_with(&query), "{address}");
            }
        }
        ::search::query::parse(&failed(&shown.found.query)).unwrap();
        ::search::query::parse(&words("a \\ \"b\"")).unwrap();
    }

    #[test]
    fn an_alert_is_about_it_or_rests_on_its_events() {
        let alert = Alert {
            identity: "Ada".into(),
            finding: ::event::Finding {
                session: "s".into(),
                evidence: vec![Id(7)],
                ..Default::default()
            },
            ..Alert::default()
        };
        assert!(is_about(&alert, "identity", "ada"));
        assert!(is_about(&alert, "session", "s"));
        assert!(!is_about(&alert, "actor", "ada"));
        assert!(!is_about(&alert, "request_id", ""));
        assert!(!rests_on(&alert, &BTreeSet::from([Id(6)])));
        assert!(rests_on(&alert, &BTreeSet::from([Id(6), Id(7)])));
    }
}
