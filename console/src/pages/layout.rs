//! The frame around every page: head, navigation, skip link, and the page for errors.
//!
//! [`page`] takes the parts of a page as markup and nothing as text that is not escaped. It loads only the
//! embedded assets; there is no inline script or style, so that the Content-Security-Policy can forbid them.

use maud::{DOCTYPE, Markup, html};

use crate::app::Client;
use crate::assets;
use crate::auth::Kind;
use crate::error::{ApiError, REQUEST};

/// The entries of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tab {
    Alerts,
    Search,
    /// A page that one comes to from a search; it has the field of a new one.
    BelowSearch,
    Rules,
    Silences,
    Health,
}

const TABS: [(Tab, &str, &str); 5] = [
    (Tab::Alerts, "/", "Alerts"),
    (Tab::Search, "/search", "Search"),
    (Tab::Rules, "/rules", "Rules"),
    (Tab::Silences, "/silences", "Silences"),
    (Tab::Health, "/health", "Health"),
];

/// A whole page for somebody.
pub(crate) fn page(client: &Client, tab: Tab, title: &str, body: Markup) -> Markup {
    document(
        title,
        &client.csrf,
        html! {
            header.top {
                a.brand href="/" { img src=(assets::url("icon.svg")) alt="" width="22" height="22"; span { "Trailwarden" } }
                nav aria-label="Main" {
                    @for (entry, href, name) in TABS {
                        a href=(href) aria-current=[(entry == tab || entry == Tab::Search && tab == Tab::BelowSearch).then_some("page")] { (name) }
                    }
                }
                @if tab != Tab::Search {
                    form.quick-search action="/search" method="get" role="search" {
                        input type="search" name="q" placeholder="Search events" aria-label="Search events" data-search="";
                        kbd aria-hidden="true" { "/" }
                    }
                }
                div.tools {
                    button.plain #theme type="button" title="Light or dark" aria-label="Switch between light and dark" { span aria-hidden="true" { "◐" } }
                    @if client.kind == Kind::User && !client.name.is_empty() {
                        form action="/logout" method="post" {
                            input type="hidden" name="csrf" value=(client.csrf);
                            span.who { (client.name) }
                            button.plain type="submit" { "Log out" }
                        }
                    }
                }
            }
            main #main tabindex="-1" { (body) }
            footer {
                span { "Times are UTC; hover over one for your local time." }
                span.keys {
                    kbd { "/" } " search  " kbd { "j" } " " kbd { "k" } " move  " kbd { "Enter" } " open  " kbd { "a" } " acknowledge  " kbd { "?" } " all keys"
                }
            }
        },
    )
}

/// A page without navigation: login and errors.
pub(crate) fn bare(title: &str, body: Markup) -> Markup {
    document(
        title,
        "",
        html! { main.bare #main tabindex="-1" { (body) } },
    )
}

fn document(title: &str, csrf: &str, body: Markup) -> Markup {
    let theme = REQUEST.try_with(|r| r.theme).ok().flatten();
    html! {
        (DOCTYPE)
        html lang="en" data-theme=[theme] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="csrf" content=(csrf);
                meta name="htmx-config" content=r#"{"includeIndicatorStyles":false,"allowEval":false,"allowScriptTags":false,"selfRequestsOnly":true,"historyCacheSize":0,"refreshOnHistoryMiss":true,"scrollBehavior":"auto"}"#;
                title { (crate::inert::plain(title)) " · Trailwarden" }
                link rel="icon" href=(assets::url("icon.svg")) type="image/svg+xml";
                link rel="stylesheet" href=(assets::url("console.css"));
                script src=(assets::url("htmx.js")) defer {}
                script src=(assets::url("sse.js")) defer {}
                script src=(assets::url("console.js")) defer {}
                script src=(assets::url("search.js")) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (body)
                div.toast #toast role="status" aria-live="polite" {}
                (keys())
            }
        }
    }
}

/// The keys, shown by `?`.
fn keys() -> Markup {
    const KEYS: [(&str, &str); 15] = [
        ("/", "to the search"),
        ("j k", "next and previous line"),
        ("Enter", "open the line"),
        ("a", "acknowledge the alert"),
        ("↓ Tab", "in the search: take a completion"),
        ("f", "search: filter the fields"),
        ("n", "search: the next page"),
        ("t", "search: follow what comes in, or stop"),
        ("l", "search, investigation: copy the link"),
        ("s", "search: saved searches"),
        ("i", "look into whose event or alert this is"),
        ("o", "alert, investigation: open as a search"),
        (
            "p n 1 2 7 0",
            "investigation: earlier, later, ±1 h, ±24 h, ±7 d, ±30 d",
        ),
        (
            "Shift or Alt and a click",
            "search: add a value to the query, or leave it out",
        ),
        ("Esc", "leave a field, close this"),
    ];
    html! {
        dialog.keys-help #keys aria-label="Keys" {
            h2 { "Keys" }
            dl.facts { @for (key, what) in KEYS { div { dt { kbd { (key) } } dd { (what) } } } }
            form method="dialog" { button type="submit" { "Close" } }
        }
    }
}

/// What a person is told when a page cannot be shown.
pub(crate) fn error_page(error: &ApiError, request_id: &str) -> Markup {
    bare(
        "Error",
        html! {
            section.panel.narrow {
                h1 { (error.status.as_u16()) " – " (error.message) }
                @if !error.hint.is_empty() { p { (super::ticked(&error.hint)) } }
                p.dim { "Request " code { (request_id) } }
                p { a.button href="/" { "To the alerts" } }
            }
        },
    )
}
