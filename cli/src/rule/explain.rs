//! Why a test gave what it gave: each event held against each rule, line by line, and the episodes that came of it.

use std::collections::BTreeMap;

use detect::engine::Explanation;
use event::{Finding, Str, Time};
use serde_json::{Value, json as object};

/// One reason.
pub(super) enum Reason {
    /// A record that is no event.
    Unreadable(String),
    /// An event and the rules that decide about it.
    Event {
        /// Its id, as its source has it.
        id: String,
        /// When it happened.
        time: Time,
        /// Where it came from.
        source: String,
        /// Per rule, by title, what of it held.
        rules: Vec<(String, Explanation)>,
        /// The group of the correlation that counted it.
        counted: Vec<BTreeMap<Str, Option<Str>>>,
    },
    /// An episode of a correlation.
    Episode(Box<Finding>),
}

/// A reason as lines for people.
pub(super) fn words(reason: &Reason) -> Vec<String> {
    match reason {
        Reason::Unreadable(words) => vec![words.clone()],
        Reason::Event {
            id,
            time,
            source,
            rules,
            counted,
        } => {
            let mut lines = vec![format!("event {} at {time} of {source}", inert(id))];
            for (title, explanation) in rules {
                lines.push(format!("  {}: {}", inert(title), verdict(explanation)));
                lines.extend(explanation.lines.iter().map(|line| {
                    let mark = if line.held { "held" } else { "not " };
                    let values: Vec<_> = line.values.iter().map(|v| inert(v)).collect();
                    format!(
                        "    {mark}  {}: {}  (event: {})",
                        line.selection,
                        line.written,
                        values.join(", ")
                    )
                }));
            }
            lines.extend(
                counted
                    .iter()
                    .map(|g| format!("  counted for {}", group(g))),
            );
            lines
        }
        Reason::Episode(finding) => vec![format!(
            "episode of {} events for {}, {} to {}",
            finding.count,
            group(&finding.group),
            finding.first_event_time,
            finding.last_event_time
        )],
    }
}

fn verdict(explanation: &Explanation) -> String {
    if !explanation.covered {
        return "looks at other logs than this event's".to_owned();
    }
    let selections: Vec<String> = explanation
        .selections
        .iter()
        .map(|(name, held)| format!("{name} {}", if *held { "held" } else { "did not hold" }))
        .collect();
    let selections = selections.join(", ");
    match (explanation.held, explanation.cut_by.as_slice()) {
        (false, _) => format!("no match; {selections}"),
        (true, []) => format!("match; {selections}"),
        (true, filters) => format!(
            "taken away by the filter {}; {selections}",
            filters
                .iter()
                .map(|f| format!("“{}”", inert(f)))
                .collect::<Vec<_>>()
                .join(" and ")
        ),
    }
}

fn group(group: &BTreeMap<Str, Option<Str>>) -> String {
    let parts: Vec<String> = group
        .iter()
        .map(|(name, value)| format!("{name}={}", inert(value.as_deref().unwrap_or("(none)"))))
        .collect();
    match parts.as_slice() {
        [] => "everything".to_owned(),
        parts => parts.join(" "),
    }
}

fn inert(text: &str) -> String {
    event::inert::text(text).into_owned()
}

/// A reason as JSON.
pub(super) fn json(reason: &Reason) -> Value {
    match reason {
        Reason::Unreadable(words) => object!({ "unreadable": words }),
        Reason::Event {
            id,
            time,
            source,
            rules,
            counted,
        } => {
            let rules: Vec<Value> = rules
                .iter()
                .map(|(title, e)| {
                    let selections = e.selections.iter();
                    let lines = e.lines.iter().map(|line| {
                        object!({"selection": line.selection, "line": line.written, "held": line.held, "values": line.values})
                    });
                    object!({
                        "rule": title,
                        "covered": e.covered,
                        "held": e.held,
                        "selections": selections.map(|(n, held)| object!({"name": n, "held": held})).collect::<Vec<_>>(),
                        "lines": lines.collect::<Vec<_>>(),
                        "cut_by": e.cut_by,
                    })
                })
                .collect();
            object!({"event": id, "time": time, "source": source, "rules": rules, "counted_for": counted})
        }
        Reason::Episode(finding) => object!({
            "episode": {
                "group": finding.group,
                "count": finding.count,
                "first_event_time": finding.first_event_time,
                "last_event_time": finding.last_event_time,
                "event_ids": finding.event_ids,
            }
        }),
    }
}
