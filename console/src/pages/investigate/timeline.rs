//! The events of a window in order, by the hour, with the alerts of the same time among them.
//!
//! Hours in which little happened stand together, so that those in which much did are seen. An event is marked where it
//! failed, and where its action, network or account is new beside what is usual.
//!
//! What repeats itself is folded: of three and more events in a row that differ in nothing but their time the first is
//! shown, the others open below it.

use std::collections::BTreeSet;

use ::event::{Event, Outcome, Time};
use ::search::investigate::{Investigation, network};
use alerting::Alert;
use maud::{Markup, html};

use super::Shown;
use crate::inert::Inert;
use crate::pages::{search, severity, state, when};
use crate::svg::short;

const HOUR: i64 = 3_600_000_000;
/// So many alike in a row are folded.
const FOLDED: usize = 3;
/// An hour with so many events at most may stand together with others.
const QUIET: usize = 2;

/// A line, or several that were folded.
#[derive(Debug, PartialEq)]
enum Line<'s> {
    /// Events alike in a row, the first one first.
    Events(Vec<&'s Event>),
    /// An alert, at its first event.
    Alert(&'s Alert),
    /// The middle of the window.
    Middle,
}

/// An hour and its lines, or several quiet ones.
#[derive(Debug, PartialEq)]
struct Hours<'s> {
    begin: Time,
    end: Time,
    lines: Vec<Line<'s>>,
}

/// What is new in the window.
struct New<'s> {
    actions: BTreeSet<&'s str>,
    networks: BTreeSet<&'s str>,
    accounts: BTreeSet<&'s str>,
}

pub(super) fn timeline(shown: &Shown) -> Markup {
    let found = &shown.found;
    let hours = by_hour(&found.events, &shown.alerts, found.from, found.around);
    let new = New::of(found);
    html! {
        section.tl { h2 { "Timeline" span.dim { " times are UTC" @if new.any() { "; " span.newword { "new ones" } " coloured" } } }
            @if (found.events.len() as u64) < found.matched {
                p.note { "Shown are the " (found.events.len()) " events nearest to " (when(found.around)) " of " (found.matched) ". " a href=(shown.search(&found.query)) { "All of them as a search" } }
            }
            @if let Some(why) = shown.no_alerts { p.dim { (why) } }
            @for hour in &hours {
                @if hour.lines != [Line::Middle] { (head(hour)) }
                div.hits.list { @for line in &hour.lines { (drawn(line, shown, &new)) } }
            }
        }
    }
}

fn head(hour: &Hours<'_>) -> Markup {
    let events = || {
        let lines = hour.lines.iter();
        lines.flat_map(|line| match line {
            Line::Events(events) => events.as_slice(),
            _ => &[],
        })
    };
    let failed = events().filter(|e| has_failed(e)).count();
    let count = events().count();
    html! {
        h3.hour {
            time datetime=(hour.begin) {
                (short(hour.begin).get(..16).unwrap_or_default())
                @if hour.end.0 - hour.begin.0 > HOUR { " to " (short(hour.end).get(11..16).unwrap_or_default()) }
            }
            span.dim { (count) @if count == 1 { " event" } @else { " events" } }
            @if failed > 0 { span.bad { (failed) " failed or denied" } }
        }
    }
}

fn drawn(line: &Line<'_>, shown: &Shown, new: &New<'_>) -> Markup {
    html! {
        @match line {
            Line::Middle => div.middle-mark { span { "around " (when(shown.found.around)) } },
            Line::Alert(alert) => {
                div class=(format!("tl-alert edge-{}", alert.severity)) id=(format!("a-{}", alert.id)) data-row="" tabindex="-1" {
                    span.time { (clock(alert.finding.first_event_time)) }
                    (severity(alert.severity))
                    a href=(format!("/alerts/{}", alert.id)) { (Inert(&alert.title)) }
                    span.dim { @if alert.count > 1 { (alert.count) " events" } }
                    (state(alert.state))
                }
            }
            Line::Events(events) => {
                @for (i, event) in events.iter().enumerate() { @if i == 0 { (row(event, new)) } }
                @if let (Some(last), true) = (events.last(), events.len() > 1) {
                    details.alike {
                        summary { (events.len() - 1) " more like it, until " (clock(last.time)) }
                        @for event in &events[1..] { (row(event, new)) }
                    }
                }
            }
        }
    }
}

fn row(event: &Event, new: &New<'_>) -> Markup {
    html! { div.tl-event.failed[has_failed(event)].newly[new.has(event)] { (search::hit_of_day(event)) } }
}

impl New<'_> {
    fn of(found: &Investigation) -> New<'_> {
        let of = |name: &str| {
            let aspects = found.profile.iter().filter(|aspect| aspect.name == name);
            let values = aspects.flat_map(|aspect| &aspect.values);
            let new = values.filter(|value| value.new && value.window > 0);
            new.map(|value| value.value.as_str()).collect()
        };
        New {
            actions: of("action"),
            networks: of("network"),
            accounts: of("account"),
        }
    }

    fn any(&self) -> bool {
        !(self.actions.is_empty() && self.networks.is_empty() && self.accounts.is_empty())
    }

    fn has(&self, event: &Event) -> bool {
        self.actions.contains(event.action.as_str())
            || self.networks.contains(network(&event.src_ip).as_str())
            || self.accounts.contains(event.account.as_str())
    }
}

/// The time of day; the day stands above.
fn clock(time: Time) -> Markup {
    let text = short(time);
    html! { time datetime=(time) { (text.get(11..).unwrap_or(&text)) } }
}

fn has_failed(event: &Event) -> bool {
    matches!(event.outcome, Outcome::Failure | Outcome::Denied)
}

/// The lines of each hour that has any.
fn by_hour<'s>(
    events: &'s [Event],
    alerts: &'s [Alert],
    from: Time,
    around: Time,
) -> Vec<Hours<'s>> {
    // At the same time first the middle, then alerts, then the events on which they rest.
    let mut items: Vec<(Time, u8, Line<'s>)> = events
        .iter()
        .map(|event| (event.time, 2, Line::Events(vec![event])))
        .collect();
    items.extend(alerts.iter().map(|alert| {
        let time = alert.finding.first_event_time.max(from);
        (time, 1, Line::Alert(alert))
    }));
    if !events.is_empty() {
        items.push((around, 0, Line::Middle));
    }
    items.sort_by_key(|(time, rank, _)| (*time, *rank));
    let mut hours: Vec<Hours<'s>> = Vec::new();
    for (time, _, line) in items {
        let begin = Time(time.0.div_euclid(HOUR) * HOUR);
        match hours.last_mut().filter(|hour| hour.begin == begin) {
            Some(hour) => hour.lines.push(line),
            None => hours.push(Hours {
                begin,
                end: begin.plus(HOUR),
                lines: vec![line],
            }),
        }
    }
    let mut joined: Vec<Hours<'s>> = Vec::new();
    let mut was_quiet = false;
    for hour in hours {
        let quiet = is_quiet(&hour);
        match joined.last_mut() {
            Some(before) if quiet && was_quiet && day(before.begin) == day(hour.begin) => {
                before.end = hour.end;
                before.lines.extend(hour.lines);
            }
            _ => joined.push(hour),
        }
        was_quiet = quiet;
    }
    for hour in &mut joined {
        fold(&mut hour.lines);
    }
    joined
}

fn day(time: Time) -> i64 {
    time.0.div_euclid(24 * HOUR)
}

/// Did little happen, and nothing to look at first?
fn is_quiet(hour: &Hours<'_>) -> bool {
    let calm = |line: &Line<'_>| match line {
        Line::Events(events) => !events.iter().any(|event| has_failed(event)),
        Line::Alert(_) | Line::Middle => false,
    };
    hour.lines.len() <= QUIET && hour.lines.iter().all(calm)
}

/// Folds events that follow one another and are alike.
fn fold(lines: &mut Vec<Line<'_>>) {
    let mut folded: Vec<Line<'_>> = Vec::with_capacity(lines.len());
    for line in lines.drain(..) {
        match (folded.last_mut(), line) {
            (Some(Line::Events(run)), Line::Events(more))
                if run.iter().zip(&more).all(|(a, b)| alike(a, b)) =>
            {
                run.extend(more);
            }
            (_, line) => folded.push(line),
        }
    }
    for line in folded {
        match line {
            Line::Events(run) if run.len() < FOLDED => {
                lines.extend(run.into_iter().map(|event| Line::Events(vec![event])));
            }
            line => lines.push(line),
        }
    }
}

/// Do they differ in nothing that a line shows but the time?
fn alike(a: &Event, b: &Event) -> bool {
    let shown = |e: &Event| {
        (
            (e.source.clone(), e.action.clone(), e.service.clone()),
            (e.outcome, e.error_code.clone(), e.src_ip.clone()),
            (e.actor.clone(), e.identity.clone(), e.access_key.clone()),
            (e.account.clone(), e.region.clone(), e.function.clone()),
        )
    };
    // Each line of a function's log says something else.
    a.source != "aws.lambda" && shown(a) == shown(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(minute: i64, action: &str) -> Event {
        Event {
            id: ::event::Id(minute as u128),
            time: Time(minute * 60_000_000),
            action: action.into(),
            ..Event::default()
        }
    }

    #[test]
    fn what_repeats_itself_is_folded_within_an_hour() {
        let actions = ["a", "a", "a", "b", "b", "a", "a", "a", "a"];
        let minutes = [0, 10, 20, 30, 40, 50, 55, 60, 61];
        let events: Vec<Event> = minutes
            .into_iter()
            .zip(actions)
            .map(|(minute, action)| event(minute, action))
            .collect();
        let alert = Alert {
            finding: ::event::Finding {
                first_event_time: Time(30 * 60_000_000),
                ..Default::default()
            },
            ..Alert::default()
        };
        let alerts = [alert];
        let hours = by_hour(&events, &alerts, Time(0), Time(30 * 60_000_000));
        let said: Vec<Vec<String>> = hours
            .iter()
            .map(|hour| {
                let lines = hour.lines.iter().map(|line| match line {
                    Line::Middle => "middle".to_owned(),
                    Line::Alert(_) => "alert".to_owned(),
                    Line::Events(run) => format!("{}x{}", run[0].action, run.len()),
                });
                lines.collect()
            })
            .collect();
        assert_eq!(
            said,
            [
                vec!["ax3", "middle", "alert", "bx1", "bx1", "ax1", "ax1"],
                vec!["ax1", "ax1"]
            ]
        );
        assert_eq!(hours[1].begin, Time(HOUR));
    }

    #[test]
    fn quiet_hours_of_a_day_stand_together() {
        let mut events: Vec<Event> = [61, 125, 190, 250, 251, 252, 310, 23 * 60, 24 * 60 + 1]
            .into_iter()
            .map(|minute| event(minute, &minute.to_string()))
            .collect();
        let spans = |events: &[Event]| -> Vec<(i64, i64, usize)> {
            let hours = by_hour(events, &[], Time(0), Time(99 * HOUR));
            let spans = hours
                .iter()
                .map(|h| (h.begin.0 / HOUR, h.end.0 / HOUR, h.lines.len()));
            spans.collect()
        };
        assert_eq!(
            spans(&events),
            [(1, 4, 3), (4, 5, 3), (5, 24, 2), (24, 25, 1), (99, 100, 1)],
            "a loud hour stands alone, and a day ends"
        );
        events[1].outcome = Outcome::Denied;
        assert_eq!(spans(&events)[..3], [(1, 2, 1), (2, 3, 1), (3, 4, 1)]);
    }

    #[test]
    fn new_ones_are_known_by_what_the_profile_says() {
        let found: Investigation = Investigation {
            profile: vec![::search::investigate::Aspect {
                name: "network".into(),
                values: vec![::search::investigate::Usual {
                    value: "203.0.113.0/24".into(),
                    window: 1,
                    before: 0,
                    new: true,
                }],
            }],
            ..Investigation::default()
        };
        let new = New::of(&found);
        let from = |ip: &str| Event {
            src_ip: ip.into(),
            ..Event::default()
        };
        assert!(new.any() && new.has(&from("203.0.113.9")));
        assert!(!new.has(&from("198.51.100.1")) && !new.has(&from("")));
    }

    #[test]
    fn nothing_is_lost_and_an_older_alert_stands_at_the_beginning() {
        let alerts = [Alert::default()];
        let hours = by_hour(&[], &alerts, Time(5 * HOUR + 1), Time(9 * HOUR));
        assert_eq!(hours.len(), 1);
        assert_eq!(hours[0].begin, Time(5 * HOUR));
        let events: Vec<Event> = (0..50).map(|i| event(i, "x")).collect();
        let hours = by_hour(&events, &[], Time(0), Time(HOUR));
        let shown: usize = hours
            .iter()
            .flat_map(|h| &h.lines)
            .map(|line| match line {
                Line::Events(run) => run.len(),
                _ => 0,
            })
            .sum();
        assert_eq!(shown, 50);
    }
}
