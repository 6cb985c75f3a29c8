//! The sessions around an access key, from who stands at the beginning to what was made with it.

use ::event::Event;
use ::search::investigate::Link;
use maud::{Markup, html};

use super::Shown;
use crate::inert::Inert;
use crate::pages::{actor, can_investigate, when};

/// The chain, where the page is about an access key and there is one.
pub(super) fn chain(shown: &Shown) -> Markup {
    if shown.chain.up.is_empty() && shown.chain.down.is_empty() {
        return html! {};
    }
    html! {
        section.panel.chain-panel { h2 { "Role chain" }
            ol.chain {
                @for (i, link) in shown.chain.up.iter().rev().enumerate() {
                    @if i == 0 { li.origin { (who(shown, &link.by, &link.actor)) } }
                    (step(shown, link, link.access_key == shown.value))
                }
                @if shown.chain.up.is_empty() { li.here { (key(shown, &shown.value)) " " span.badge { "this key" } } }
                @for link in &shown.chain.down { (made(shown, link)) }
            }
            @if shown.chain.up.is_empty() { p.dim { "Nothing that is kept says that it was made by another key: it is a user's own, or older." } }
        }
    }
}

/// Who stands at the beginning, and with which key.
fn who(shown: &Shown, by: &str, name: &str) -> Markup {
    html! {
        @if can_investigate("actor", name) { a href=(shown.of("actor", name)) { (actor(name)) } } @else { (actor(name)) }
        @if !by.is_empty() { " " (key(shown, by)) }
    }
}

/// One step towards the key of the page; what it gave is `here` where that is the key.
fn step(shown: &Shown, link: &Link, here: bool) -> Markup {
    html! {
        li.here[here] {
            (how(&link.event))
            div { (session(shown, link)) @if here { " " span.badge { "this key" } } }
            (elsewhere(link))
        }
    }
}

/// A session that was made with the key, or with one of those.
fn made(shown: &Shown, link: &Link) -> Markup {
    html! {
        li.made {
            (how(&link.event))
            div { (session(shown, link)) }
            @if link.by != shown.value && !link.by.is_empty() { div.dim { "with " (key(shown, &link.by)) } }
            (elsewhere(link))
        }
    }
}

fn how(event: &Event) -> Markup {
    html! { div.how { a href=(format!("/events/{}", event.id)) { (Inert(&event.action)) } " " (when(event.time)) @if !event.account.is_empty() { " " span.dim { "in " (Inert(&event.account)) } } } }
}

fn session(shown: &Shown, link: &Link) -> Markup {
    html! {
        @if !link.session.is_empty() { b { (actor(&link.session)) } " " }
        (key(shown, &link.access_key))
    }
}

fn key(shown: &Shown, key: &str) -> Markup {
    html! {
        @if key == shown.value || !can_investigate("access_key", key) { code { (Inert(key)) } }
        @else { a href=(shown.of("access_key", key)) { code { (Inert(key)) } } }
    }
}

/// What other accounts recorded of the same step.
fn elsewhere(link: &Link) -> Markup {
    html! {
        @for event in &link.elsewhere {
            div.dim { "also recorded by " a href=(format!("/events/{}", event.id)) { (Inert(&event.account)) } }
        }
    }
}
