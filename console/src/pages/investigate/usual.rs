//! What was done beside what is usual: what is new in this window, and each aspect with its counts.

use ::search::investigate::{Aspect, USUAL_DAYS, Usual};
use maud::{Markup, html};

use super::Shown;
use crate::inert::Inert;
use crate::pages::can_investigate;

/// How many values of an aspect are shown, and how many new ones at the top.
const SHOWN: usize = 8;
const NEW: usize = 12;

/// What an aspect is called: as a heading, and of new values, one and many.
fn names(aspect: &str) -> (&str, &str, &str) {
    match aspect {
        "action" => ("Actions", "action", "actions"),
        "network" => ("Networks", "network", "networks"),
        "hour" => (
            "Hours of the day (UTC)",
            "hour of the day",
            "hours of the day",
        ),
        "region" => ("Regions", "region", "regions"),
        "account" => ("Accounts", "account", "accounts"),
        "error_code" => ("Errors", "error", "errors"),
        "user_agent" => ("Programs", "program", "programs"),
        "identity" => ("Who", "identity", "identities"),
        other => (other, other, other),
    }
}

/// What comes in the window and never in the days before.
pub(super) fn fresh(shown: &Shown) -> Markup {
    let found = &shown.found;
    let new = |aspect: &Aspect| -> Vec<Usual> {
        let values = aspect.values.iter();
        values.filter(|v| v.new && v.window > 0).cloned().collect()
    };
    let aspects: Vec<(&str, Vec<Usual>)> = found
        .profile
        .iter()
        .map(|aspect| (aspect.name.as_str(), new(aspect)))
        .filter(|(_, values)| !values.is_empty())
        .collect();
    html! {
        section.panel.fresh.quiet[aspects.is_empty()] { h2 { "New in this window" }
            @if found.usual == 0 {
                p { "Nothing is known from the " (USUAL_DAYS) " days before: all of it is new, so nothing stands out."
                    // A session is new every time; whoever stands behind it is not.
                    @if let Some(who) = somebody(shown) { " " a href=(shown.of("identity", who)) { "Look at what is usual for " (Inert(who)) } }
                }
            } @else if aspects.is_empty() {
                p { "Nothing: every action, network, hour, region and program was there in the " (USUAL_DAYS) " days before." }
            } @else {
                dl.fresh-list {
                    @for (aspect, values) in &aspects {
                        @let (_, one, many) = names(aspect);
                        div {
                            dt { b { (values.len()) } " " @if values.len() == 1 { (one) } @else { (many) } }
                            dd { @for value in values.iter().take(NEW) { (chip(shown, aspect, value)) " " } @if values.len() > NEW { span.dim { "and " (values.len() - NEW) " more" } } }
                        }
                    }
                }
            }
        }
    }
}

/// Whose events they are, where the page is about something else.
fn somebody(shown: &Shown) -> Option<&str> {
    let related = shown.found.related.iter().find(|r| r.field == "identity")?;
    related.values.first().map(|value| value.value.as_str())
}

fn chip(shown: &Shown, aspect: &str, value: &Usual) -> Markup {
    html! {
        @match shown.search_for(aspect, &value.value) {
            Some(search) => a.newchip href=(search) title="Search for these events" { (Inert(&value.value)) @if value.window > 1 { span.n { "×" (value.window) } } },
            None => span.newchip { (Inert(&value.value)) @if aspect == "hour" { ":00" } @if value.window > 1 { span.n { "×" (value.window) } } },
        }
    }
}

/// Each aspect with its most frequent values, and the days before beside the window.
pub(super) fn aspects(shown: &Shown) -> Markup {
    let told = |aspect: &&Aspect| aspect.values.iter().any(|v| v.window > 0 || v.before > 0);
    if !shown.found.profile.iter().any(|aspect| told(&aspect)) {
        return html! {};
    }
    html! {
        section.panel.usual { h2 { "Beside what is usual" }
            p.dim { "events in the window, and in the " (USUAL_DAYS) " days before" }
            @for aspect in shown.found.profile.iter().filter(told) {
                h4 { (names(&aspect.name).0) }
                @if aspect.name == "hour" { (hours(&aspect.values)) } @else { (values(shown, aspect)) }
            }
        }
    }
}

fn values(shown: &Shown, aspect: &Aspect) -> Markup {
    // New ones stand first; what is usual and not there now comes last.
    let now: Vec<&Usual> = aspect.values.iter().filter(|v| v.window > 0).collect();
    let absent = aspect.values.len() - now.len();
    let field = aspect.name.as_str();
    html! {
        ul.plain.counts {
            @for value in now.iter().take(SHOWN) {
                li.new[value.new] {
                    @if can_investigate(field, &value.value) && field != shown.field { a href=(shown.of(field, &value.value)) { (Inert(&value.value)) } }
                    @else { span { (Inert(&value.value)) } }
                    @if value.new { span.badge.new { "new" } }
                    @match shown.search_for(field, &value.value) { Some(search) => a.n href=(search) title="Search for these events" { (value.window) }, None => span.n { (value.window) } }
                    span.n.dim title=(format!("in the {USUAL_DAYS} days before")) { (value.before) }
                }
            }
            @if now.len() > SHOWN || absent > 0 {
                li { span.dim {
                    @if now.len() > SHOWN { (now.len() - SHOWN) " more" @if absent > 0 { "; " } }
                    @if absent > 0 { (absent) " usual, not in this window" }
                } }
            }
        }
    }
}

/// The hours of the day: what is usual as a pale ground, the window before it, new hours marked.
fn hours(values: &[Usual]) -> Markup {
    const WIDTH: f64 = 288.0;
    const HEIGHT: f64 = 44.0;
    let of = |hour: usize| {
        let name = format!("{hour:02}");
        values.iter().find(|v| v.value == name)
    };
    let most = |count: fn(&Usual) -> u64| values.iter().map(count).max().unwrap_or(0).max(1) as f64;
    let (most_now, most_before) = (most(|v| v.window), most(|v| v.before));
    let step = WIDTH / 24.0;
    let bar = |hour: usize, share: f64, class: &str, inset: f64| {
        let height = if share == 0.0 {
            0.0
        } else {
            (share * HEIGHT).max(2.0)
        };
        html! {
            rect class=(class) x=(format!("{:.1}", hour as f64 * step + inset)) y=(format!("{:.1}", HEIGHT - height))
                width=(format!("{:.1}", step - 2.0 * inset)) height=(format!("{height:.1}")) {}
        }
    };
    html! {
        figure.hours {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label="events by hour of the day: the window before what is usual" {
                @for hour in 0..24 {
                    @let value = of(hour).cloned().unwrap_or_default();
                    g {
                        title { (format!("{hour:02}:00 to {hour:02}:59 UTC: {} in the window, {} in the {USUAL_DAYS} days before", value.window, value.before)) }
                        rect.back x=(format!("{:.1}", hour as f64 * step)) y="0" width=(format!("{step:.1}")) height=(HEIGHT) {}
                        (bar(hour, value.before as f64 / most_before, "before", 0.5))
                        (bar(hour, value.window as f64 / most_now, if value.new { "now new" } else { "now" }, 3.0))
                    }
                }
            }
            figcaption { span { "0" } span { "6" } span { "12" } span { "18" } span { "24" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hour_is_seen_and_new_ones_are_marked() {
        let usual = |value: &str, window, before, new| Usual {
            value: value.into(),
            window,
            before,
            new,
        };
        let drawn = hours(&[usual("03", 1, 0, true), usual("12", 0, 1_000_000, false)]);
        let drawn = drawn.into_string();
        assert_eq!(drawn.matches("class=\"now new\"").count(), 1, "{drawn}");
        assert!(drawn.contains("03:00 to 03:59 UTC: 1 in the window, 0 in"));
        assert_eq!(drawn.matches("<title>").count(), 24);
        assert!(!drawn.contains("style=") && !drawn.contains("NaN"));
    }
}
