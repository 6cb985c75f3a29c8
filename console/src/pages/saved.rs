//! Saved searches: the menu of the Search page, the page that lists them all, and the forms that save and delete.
//!
//! The menu is a part of the list that the Search page fetches when it is opened; without the script its link leads to
//! the page. A name that is taken is asked about before anything is overwritten, with both searches side by side. An
//! opened search keeps its name in the address, so that the page can say when it is no longer what was saved.

use alerting::SavedSearch;
use alerting::saved::{MAX_DESCRIPTION, MAX_NAME, NewSearch, Searched};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::layout::{self, Tab};
use super::{encode, ticked, when_ago};
use crate::api::searches;
use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::inert::Inert;
use crate::params::{Form, Params};

/// What of the address of the Search page makes the search.
const SEARCH: [&str; 6] = ["q", "range", "from", "to", "order", "cols"];
const KNOWN: &[&str] = &["q", "range", "from", "to", "order", "cols", "saved", "part"];
/// How much of a query a line of the list shows, in characters.
const SHOWN: usize = 160;

/// `GET /searches`: the page, or with `part=menu` what opens on the Search page.
pub(crate) async fn page(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Markup, ApiError> {
    params.only(KNOWN)?;
    let store = shared.app.store.clone();
    let all = blocking(move || store.searches()).await??;
    if params.text("part") == Some("menu") {
        return Ok(menu(&client, &params, &all));
    }
    let asks = SEARCH.iter().any(|name| params.text(name).is_some());
    let now = shared.now();
    Ok(layout::page(
        &client,
        Tab::BelowSearch,
        "Saved searches",
        html! {
            p.back { a href="/search" { "← Search" } }
            div.head { h1 { "Saved searches" } span.dim { (all.len()) } }
            @if asks && client.may_change { section.panel.narrowed { h2 { "Save this search" } (form(&client, &params, described(&params, &all), None)) } }
            @if all.is_empty() {
                div.empty { h2 { "None yet" } p { "A search is saved on the " a href="/search" { "Search" } " page, under " b { "Saved" } ". Everybody who may log in sees it here." } }
            } @else {
                div.namelist data-namelist="" {
                    input type="search" data-names-filter="" placeholder="Filter by name, query or person" aria-label="Filter saved searches" autocomplete="off";
                    ul.plain.saved { @for search in &all { (entry(&client, search, Some(now))) } }
                }
            }
        },
    ))
}

/// `GET /searches/{name}`: opens a saved search as it is now.
pub(crate) async fn open(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Redirect, ApiError> {
    let search = searches::find(&shared, &name).await?;
    Ok(Redirect::to(&searches::address(&search)))
}

/// `POST /searches`
pub(crate) async fn save(
    State(shared): State<Shared>,
    client: Client,
    Form(params): Form,
) -> Result<Response, ApiError> {
    params.only(&[
        "name",
        "description",
        "overwrite",
        "fixed",
        "q",
        "range",
        "from",
        "to",
        "order",
        "cols",
    ])?;
    let mut new = searches::as_written(&params)?;
    new.description = params.or_empty("description").to_owned();
    if params.flag("fixed")? {
        fix(&mut new, &shared);
    }
    let name = params.or_empty("name");
    let overwrite = params.flag("overwrite")?;
    match searches::save(&shared, &client, name, new.clone(), overwrite).await {
        Ok((search, _)) => Ok(Redirect::to(&searches::address(&search)).into_response()),
        Err(refused) if refused.status.is_client_error() => {
            let there = match refused.code {
                "exists" => searches::find(&shared, name).await.ok(),
                _ => None,
            };
            let page = again(&shared, &client, &params, &new, there.as_ref(), &refused);
            Ok((refused.status, page).into_response())
        }
        Err(refused) => Err(refused),
    }
}

/// `POST /searches/{name}/delete`
pub(crate) async fn delete(
    State(shared): State<Shared>,
    client: Client,
    Path(name): Path<String>,
) -> Result<Redirect, ApiError> {
    searches::remove(&shared, &client, &name).await?;
    Ok(Redirect::to("/searches"))
}

/// Times that are counted from now become what they are now.
fn fix(new: &mut NewSearch, shared: &Shared) {
    let now = shared.now();
    for text in [&mut new.from, &mut new.to] {
        if let Some(time) = crate::params::time(text, now) {
            *text = time.to_string();
        }
    }
    if new.to.is_empty() {
        new.to = now.to_string();
    }
}

/// The form once more, with what was wrong; where the name is taken with what is there.
fn again(
    shared: &Shared,
    client: &Client,
    params: &Params,
    new: &NewSearch,
    there: Option<&SavedSearch>,
    refused: &ApiError,
) -> Markup {
    let description = match params.text("description") {
        Some(text) => text,
        None => there.map_or("", |there| &there.description),
    };
    let title = match refused.status {
        StatusCode::CONFLICT if there.is_some() => "Overwrite the saved search?",
        _ => "Not saved",
    };
    layout::page(
        client,
        Tab::BelowSearch,
        title,
        html! {
            p.back { a href="/searches" { "← Saved searches" } }
            div.head { h1 { (title) } }
            section.panel.narrowed {
                p.wrong role="alert" { (ticked(&refused.message)) "." }
                @if let Some(there) = there {
                    h2 { "Saved as " (Inert(&there.name)) }
                    (searched(there.kind, &there.query, &there.from, &there.to))
                    p.dim { "by " (Inert(&there.updated_by)) ", " (when_ago(there.updated, shared.now())) }
                    h2 { "This search" }
                    (searched(new.kind, &new.query, &new.from, &new.to))
                } @else if !refused.hint.is_empty() { p { (ticked(&refused.hint)) } }
                (form(client, params, description, there))
            }
        },
    )
}

/// What stands beside the query on the Search page: the menu, and the saved search that is open.
pub(crate) async fn beside(shared: &Shared, params: &Params) -> (Markup, Markup) {
    if !shared.app.offers.alerts {
        return (html! {}, html! {});
    }
    let opened = match params.text("saved") {
        Some(name) => searches::find(shared, name).await.ok(),
        None => None,
    };
    let changed = opened.as_ref().is_some_and(|saved| {
        searches::as_written(params).is_ok_and(|n| !searches::is_same(&n, saved))
    });
    let menu = html! {
        details.menu #saved {
            summary.button data-key="s" title="Saved searches (s)" { "Saved" }
            div.popover hx-get=(asking(params, "/searches?part=menu")) hx-trigger="toggle from:closest details once" {
                a href=(asking(params, "/searches?")) { "Saved searches" }
            }
        }
    };
    let chip = html! {
        @if let Some(saved) = &opened {
            p.opened {
                span.star aria-hidden="true" { "★" } " " b { (Inert(&saved.name)) }
                @if changed { " " span.badge.warn { "changed" } " " a href=(searches::address(saved)) { "as saved" } }
                @if !saved.description.is_empty() { " " span.dim { (Inert(&saved.description)) } }
            }
        }
    };
    (menu, chip)
}

/// An address with the search of this page.
fn asking(params: &Params, start: &str) -> String {
    let mut out = start.to_owned();
    for name in SEARCH.iter().chain(&["saved"]) {
        if let Some(value) = params.text(name) {
            out.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    out.replacen("?&", "?", 1)
}

fn menu(client: &Client, params: &Params, all: &[SavedSearch]) -> Markup {
    html! {
        div data-namelist="" {
            @if client.may_change {
                details.saving { summary { "Save this search…" } (form(client, params, described(params, all), None)) }
            }
            @if all.is_empty() {
                p.dim { "Nothing is saved yet." }
            } @else {
                input type="search" data-names-filter="" placeholder="Filter" aria-label="Filter saved searches" autocomplete="off";
                ul.plain.saved { @for search in all { (entry(client, search, None)) } }
            }
            p.all { a href=(asking(params, "/searches?")) { "All saved searches" } }
        }
    }
}

/// What the search that is open is for, to be kept where it is saved again.
fn described<'a>(params: &Params, all: &'a [SavedSearch]) -> &'a str {
    let open = params.text("saved");
    let open = open.and_then(|name| all.iter().find(|search| search.name == name));
    open.map_or("", |search| &search.description)
}

/// One saved search: with `now` as the page shows it, else as the menu does.
fn entry(client: &Client, search: &SavedSearch, now: Option<::event::Time>) -> Markup {
    let words = format!("{} {} {}", search.name, search.query, search.owner);
    html! {
        li data-name=(crate::inert::plain(&words)) {
            a.name href=(searches::address(search)) { (Inert(&search.name)) }
            @if search.kind == Searched::Findings { " " span.badge { "findings" } }
            @if !search.description.is_empty() { p { (Inert(&search.description)) } }
            (searched(search.kind, &search.query, &search.from, &search.to))
            @if let Some(now) = now {
                div.foot {
                    span.dim { "by " (Inert(&search.owner)) @if search.updated_by != search.owner { ", changed by " (Inert(&search.updated_by)) } ", " (when_ago(search.updated, now)) }
                    a href=(format!("/searches/{}", encode(&search.name))) title="Opens it as it is saved then" { "Link" }
                    @if search.kind == Searched::Events { a href=(format!("/search/rule?q={}", encode(&search.query))) { "As a rule" } }
                    @if client.may_change {
                        details.delete { summary { "Delete…" }
                            form.inline action=(format!("/searches/{}/delete", encode(&search.name))) method="post" {
                                input type="hidden" name="csrf" value=(client.csrf);
                                span { "It is gone for everybody." }
                                button.small type="submit" { "Delete it" }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is asked, in one line.
fn searched(kind: Searched, query: &str, from: &str, to: &str) -> Markup {
    let cut: String = query.chars().take(SHOWN).collect();
    html! {
        p.asked {
            @if kind == Searched::Findings { "findings: " }
            code { @if query.is_empty() { "*" } @else { (Inert(&cut)) @if cut.len() < query.len() { "…" } } }
            " " span.dim {
                @match (from, to) {
                    ("", "") => "all that is kept",
                    (from, "") => { "from " (Inert(from)) }
                    ("", to) => { "to " (Inert(to)) }
                    (from, to) => { (Inert(from)) " to " (Inert(to)) }
                }
            }
        }
    }
}

/// The form that saves the search of these parameters; where `there` is one of the name, in its place.
fn form(
    client: &Client,
    params: &Params,
    description: &str,
    there: Option<&SavedSearch>,
) -> Markup {
    let name = params.text("name").or(params.text("saved")).unwrap_or("");
    let fixed = params.flag("fixed").unwrap_or(false);
    html! {
        form.stack.save action="/searches" method="post" {
            input type="hidden" name="csrf" value=(client.csrf);
            @for kept in SEARCH { @if let Some(value) = params.text(kept) { input type="hidden" name=(kept) value=(value); } }
            label { "Name" input name="name" value=(name) required maxlength=(MAX_NAME) autocomplete="off"; }
            label { "What it is for" input name="description" value=(description) maxlength=(MAX_DESCRIPTION) autocomplete="off" placeholder="may stay empty"; }
            label.check { input type="checkbox" name="fixed" value="1" checked[fixed]; span { "Fix its times, so that it always shows this range" } }
            div.buttons {
                @if there.is_some() {
                    button.primary type="submit" name="overwrite" value="1" { "Overwrite it" }
                    button type="submit" { "Save under the name above" }
                } @else {
                    button.primary type="submit" { "Save" }
                }
            }
        }
    }
}
