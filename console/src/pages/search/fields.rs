//! The fields of what was found, beside the events: which there are, their most frequent values, and links that narrow
//! the search or make a column of a field. It is fetched after the page, which therefore does not wait for it.

use ::event::is_normalized_name;
use ::search::fields::{FieldStat, FieldStats};
use axum::extract::State;
use maud::{Markup, html};

use super::{address_of, columns, narrow, read};
use crate::api;
use crate::app::Shared;
use crate::error::ApiError;
use crate::inert::{Inert, plain};
use crate::params::Params;

/// How many events are read.
const SAMPLE: usize = 1_000;
/// How many fields of one kind are shown.
const SHOWN: usize = 200;

/// `GET /search/fields`
pub(crate) async fn part(State(shared): State<Shared>, params: Params) -> Result<Markup, ApiError> {
    let asked = read(&params, shared.now())?;
    let request = asked.request.clone();
    let stats = api::search::quietly(&shared, &asked.request, move |searcher| {
        searcher.fields(&request, SAMPLE)
    })
    .await?;
    Ok(sidebar(&params, &columns::chosen(&params)?, &stats))
}

/// What stands there until the fields are.
pub(crate) fn waiting(params: &Params) -> Markup {
    let address = address_of(params, None, None, None).replacen("/search?", "/search/fields?", 1);
    html! {
        aside.fields #fields aria-label="Fields" hx-get=(address) hx-trigger="load" hx-swap="outerHTML" {
            h2 { "Fields" }
            p.dim { "Reading …" }
        }
    }
}

fn sidebar(params: &Params, chosen: &[String], stats: &FieldStats) -> Markup {
    let (own, vendors): (Vec<&FieldStat>, Vec<&FieldStat>) = stats
        .fields
        .iter()
        .partition(|f| is_normalized_name(&f.field));
    html! {
        aside.fields #fields aria-label="Fields" {
            input type="search" data-filter="" placeholder="Filter fields" aria-label="Filter fields" autocomplete="off";
            @if let Some(why) = &stats.partial { p.wrong { "Not all was looked at: " (why) } }
            @if stats.fields.is_empty() { p.dim { "No events, no fields." } }
            @for (title, fields, open) in [("Normalized", own, true), ("Original record", vendors, false)] {
                @if !fields.is_empty() {
                    details.group open[open] {
                        summary { h2 { (title) " " span.dim { (fields.len()) } } }
                        @for field in fields.iter().take(SHOWN) { (entry(params, chosen, field, stats.read)) }
                        @if fields.len() > SHOWN { p.dim { "and " (fields.len() - SHOWN) " more" } }
                    }
                }
            }
            @if stats.sampled {
                p.dim { "From a sample of " (stats.read) " of " (stats.matched) " events." }
            }
        }
    }
}

fn entry(params: &Params, chosen: &[String], field: &FieldStat, read: u64) -> Markup {
    let query = params.or_empty("q");
    let shown = chosen.contains(&field.field);
    let column = columns::toggled(chosen, &field.field);
    let percent = field.events * 100 / read.max(1);
    html! {
        details.field-entry data-field=(plain(&field.field)) {
            summary {
                span.name { (Inert(&field.field)) }
                span.dim title=(format!("{} of {read} events have it", field.events)) { (percent) "%" }
            }
            div.acts {
                @if column.len() <= columns::MOST && !field.field.contains(',') {
                    a href=(address_of(params, None, None, Some(&column))) { @if shown { "− column" } @else { "+ column" } }
                }
                @if let Some(query) = narrow::with_field(query, &field.field) {
                    a href=(queried(params, &query)) title="Only events that have it" { "exists" }
                }
                span.dim { @if field.approximate { "at least " } (field.distinct) @if field.distinct == 1 { " value" } @else { " values" } }
            }
            ul.plain.tops {
                @for top in &field.top {
                    li data-value=(plain(&top.value)) {
                        @match (narrow::with(query, &field.field, &top.value, false), narrow::with(query, &field.field, &top.value, true)) {
                            (Some(only), Some(not)) => {
                                a.top href=(queried(params, &only)) title="Only these" { (Inert(&top.value)) }
                                a.not href=(queried(params, &not)) title="Without these" aria-label=(format!("without {}", plain(&top.value))) { "−" }
                            }
                            _ => span.top { (Inert(&top.value)) },
                        }
                        progress value=(top.count) max=(field.events.max(1)) aria-hidden="true" {}
                        span.dim { (top.count) }
                    }
                }
            }
        }
    }
}

/// The address of this search with another query, from its first page.
fn queried(params: &Params, query: &str) -> String {
    let address = address_of(params, None, None, None);
    let rest = address.split_once('&').map_or("", |(_, rest)| rest);
    format!("/search?q={}&{rest}", super::encode(query))
}
