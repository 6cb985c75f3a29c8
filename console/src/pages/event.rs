//! One event: what was normalized, and the original record as a tree whose values lead to searches.
//!
//! [`tree`] walks the record with a limit on what it shows, so that a record of ten thousand keys is still a
//! page; the original follows byte for byte, cut at a limit as well, with the rest in the JSON.

use ::event::{Event, Integrity, Normalized, Outcome};
use axum::extract::{Path, State};
use maud::{Markup, html};
use serde_json::Value;

use super::layout::{self, Tab};
use super::{fact, investigation, pivot, pivot_at, subject, when};
use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::inert::{self, Inert};
use crate::params::{self, Params};

/// The most values of a record that the tree shows.
const MAX_LEAVES: usize = 1_000;
/// The most bytes of the original that the page shows.
const MAX_RAW: usize = 64 * 1024;

/// `GET /events/{id}`: the page, or with `part=detail` only what the search shows below a line.
pub(crate) async fn page(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
    params: Params,
) -> Result<Markup, ApiError> {
    params.only(&["part"])?;
    let id = params::id(&id, "event")?;
    let searcher = shared.app.searcher.clone();
    let event = blocking(move || searcher.event(id)).await??;
    let mut event = event.ok_or_else(|| ApiError::not_found("event"))?;
    (shared.app.integrity)(&mut event);
    if params.text("part") == Some("detail") {
        return Ok(detail(&event));
    }
    let title = if event.action.is_empty() {
        "Event"
    } else {
        event.action.as_str()
    };
    Ok(layout::page(
        &client,
        Tab::BelowSearch,
        title,
        html! {
            div.head { h1 { (Inert(title)) } (outcome(&event)) span.dim { (when(event.time)) } }
            section.panel { (detail(&event)) }
        },
    ))
}

/// How far it is proven, in words.
fn integrity(integrity: Integrity) -> Markup {
    html! {
        @match integrity {
            Integrity::Attested => { span.outcome.good { "attested" } " " span.dim { "a signed digest lists its object with this hash" } },
            Integrity::Failed => { span.outcome.bad { "failed" } " " span.dim { "its object is not what the digests say was delivered" } },
            Integrity::Received => span.dim { "received; no digest has vouched for it yet" },
        }
    }
}

/// What became of it, by colour and word.
pub(crate) fn outcome(event: &Event) -> Markup {
    html! {
        @match event.outcome {
            Outcome::Success => span.outcome.good { "success" },
            Outcome::Failure => span.outcome.bad { "failure" },
            Outcome::Denied => span.outcome.bad { "denied" },
            Outcome::Unknown => span.outcome { "unknown" },
        }
        @for flag in event.flags.iter() { span.badge.warn { (flag.as_str()) } }
        @if event.late { span.badge { "late" } }
    }
}

/// Everything about an event.
pub(crate) fn detail(event: &Event) -> Markup {
    let parsed: Option<Value> = serde_json::from_slice(&event.raw).ok();
    let who = subject([
        ("identity", &event.identity),
        ("actor", &event.actor),
        ("src_ip", &event.src_ip),
        ("function", &event.function),
    ]);
    html! {
        div.detail {
            section {
                h4 { "Normalized" }
                @if let Some((field, value)) = who {
                    p { a.button.small data-key="i" href=(investigation(field, value, Some(event.time), 24)) title="What else they did around this time, beside what is usual (i)" { "Investigate this " (field) } }
                }
                dl.facts {
                    @for name in Event::NAMES {
                        @match event.normalized(name) {
                            Normalized::Absent => {}
                            Normalized::Text(text) => (fact(name, pivot_at(name, &text, event.time))),
                            Normalized::List(list) => (fact(name, html! {
                                @for (i, text) in list.iter().enumerate() { @if i > 0 { br; } (pivot_at(name, text, event.time)) }
                            })),
                        }
                    }
                    @for (key, value) in &event.labels {
                        @let name = format!("labels.{key}");
                        div { dt { (Inert(&name)) } dd { (pivot(&name, value)) } }
                    }
                    @if let Some(invocation) = event.invocation.as_deref().and_then(|i| serde_json::to_value(i).ok()) {
                        @for (key, value) in invocation.as_object().into_iter().flatten() {
                            @let name = format!("invocation.{key}");
                            div { dt { (name) } dd { (pivot(&name, &scalar(value))) } }
                        }
                    }
                    (fact("origin", html! { (pivot("origin.object", &event.origin.object)) span.dim { " record " (event.origin.position) } }))
                    (fact("integrity", integrity(event.integrity)))
                    @if !event.origin.sha256.is_empty() { (fact("origin sha256", html! { code { (Inert(&event.origin.sha256)) } })) }
                }
            }
            section {
                h4 { "Original record" }
                @if let Some(value) = parsed.as_ref().filter(|v| v.is_object() || v.is_array()) { (tree(value)) }
                details.raw open[parsed.is_none()] {
                    summary { "As received, " (event.raw.len()) " bytes" }
                    pre { (raw(&event.raw)) }
                    p { a href=(format!("/api/v1/events/{}", event.id)) { "As JSON" } }
                }
            }
        }
    }
}

/// The bytes as received, with hidden characters as signs.
fn raw(bytes: &[u8]) -> Markup {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_RAW)]);
    html! { (inert::block(&shown)) @if bytes.len() > MAX_RAW { "… (cut; the JSON has all)" } }
}

/// A record as a tree.
pub(crate) fn tree(value: &Value) -> Markup {
    let mut left = MAX_LEAVES;
    let drawn = branch(value, "", &mut left);
    html! {
        (drawn)
        @if left == 0 { p.dim { "Only the first " (MAX_LEAVES) " values are shown; the JSON has all." } }
    }
}

fn branch(value: &Value, path: &str, left: &mut usize) -> Markup {
    // Plain recursion is safe: the parser refuses anything deeper than 128.
    let lines: Vec<(Option<&str>, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(k, v)| (Some(k.as_str()), v)).collect(),
        Value::Array(list) => list.iter().map(|v| (None, v)).collect(),
        _ => return html! {},
    };
    html! {
        ul.tree {
            @for (key, child) in lines {
                @if *left > 0 {
                    @let name = key.map_or_else(|| path.to_owned(), |k| join(path, k));
                    li {
                        span.key { @if let Some(key) = key { (Inert(key)) } @else { "–" } }
                        @match child {
                            Value::Object(m) if !m.is_empty() => (branch(child, &name, left)),
                            Value::Array(l) if !l.is_empty() => (branch(child, &name, left)),
                            _ => (leaf(&name, child, left)),
                        }
                    }
                }
            }
        }
    }
}

fn leaf(path: &str, value: &Value, left: &mut usize) -> Markup {
    *left -= 1;
    // In queries a bare name that the envelope has is the normalized field.
    let field = if event::is_normalized_name(path) {
        format!("raw.{path}")
    } else {
        path.to_owned()
    };
    let text = scalar(value);
    html! {
        @match value {
            Value::String(s) if s.is_empty() => span.none { "\"\"" },
            Value::Null => span.none { "null" },
            Value::Object(_) => span.none { "{}" },
            Value::Array(_) => span.none { "[]" },
            _ => (pivot(&field, &text)),
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_lead_to_searches_by_their_vendor_name() {
        let record = serde_json::json!({"userIdentity": {"type": "Root"}, "source": "x", "list": [{"a": 1}], "odd key": "<b>"});
        let drawn = tree(&record).into_string();
        assert!(drawn.contains("userIdentity.type%3A%22Root%22"), "{drawn}");
        assert!(drawn.contains("raw.source%3A%22x%22"), "{drawn}");
        assert!(drawn.contains("list.a%3A%221%22"), "{drawn}");
        assert!(drawn.contains("&lt;b&gt;"), "{drawn}");
    }

    #[test]
    fn a_record_of_many_keys_is_still_a_page() {
        let map: serde_json::Map<String, Value> =
            (0..10_000).map(|i| (format!("k{i}"), i.into())).collect();
        let drawn = tree(&Value::Object(map)).into_string();
        assert!(drawn.contains("Only the first 1000"));
        assert!(drawn.len() < 300_000, "{}", drawn.len());
    }
}
