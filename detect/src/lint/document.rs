//! The keys of a document: are they there, and have they the form that the specification asks for?

use super::tags;
use crate::error::{Mistake, distance, nearest};
use crate::rule::{end_of_day, is_uuid};
use crate::yaml::{Node, Place, Yaml};

/// The keys of Sigma documents, and ours.
const KEYS: &[&str] = &[
    "action",
    "author",
    "automation",
    "baseline",
    "correlation",
    "date",
    "description",
    "detection",
    "expires",
    "falsepositives",
    "fields",
    "filter",
    "generate",
    "id",
    "level",
    "license",
    "lint-ignore",
    "logsource",
    "modified",
    "name",
    "next_steps",
    "owner",
    "references",
    "related",
    "scope",
    "staging",
    "status",
    "tags",
    "taxonomy",
    "tests",
    "title",
];

const STATUSES: &[&str] = &[
    "stable",
    "test",
    "experimental",
    "deprecated",
    "unsupported",
];

const RELATIONS: &[&str] = &["derived", "obsolete", "merged", "renamed", "similar"];

/// Looks at the keys of one document. `is_read`: do people get to see what it finds?
pub(super) fn check(node: &Node, is_read: bool, mistakes: &mut Vec<Mistake>) {
    let Yaml::Map(entries) = &node.yaml else {
        return;
    };
    for (key, _) in entries {
        let word = key.scalar().unwrap_or_default();
        // Keys of your own are welcome, so only what is very near to a known one is taken for it.
        let near = |known: &&&str| distance(&word, known) <= 1 + word.chars().count() / 10;
        if !KEYS.contains(&word.as_str())
            && let Some(near) = KEYS.iter().find(near)
        {
            let mistake = Mistake::new(key.place, format!("`{word}` is read by nobody"));
            let hint = format!("did you mean `{near}`?");
            mistakes.push(mistake.hint(hint).advice("key-unknown"));
        }
    }
    length(node, "title", 256, mistakes);
    length(node, "description", 65_535, mistakes);
    id(node, mistakes);
    dates(node, mistakes);
    related(node, mistakes);
    tags(node, mistakes);
    // A filter has no level, and what it is for stands in its title.
    if node.get("filter").is_some() {
        return;
    }
    status(node, mistakes);
    let missing = |key: &str, words: &str, hint: &str| {
        let there = node.get(key).is_some_and(|found| match &found.yaml {
            Yaml::Null => false,
            Yaml::List(items) => !items.is_empty(),
            _ => !found.scalar().is_some_and(|s| s.trim().is_empty()),
        });
        (!there).then(|| Mistake::new(node.place, words).hint(hint))
    };
    let level = missing(
        "level",
        "the rule has no level and counts as medium",
        "say informational, low, medium, high or critical",
    );
    // An automation that is elsewhere is told as high, if nothing else is said.
    let level = level.filter(|_| node.get("automation").is_none());
    mistakes.extend(level.map(|m| m.advice("level-missing")));
    let description = missing(
        "description",
        "the rule has no description",
        "say in two lines what a match means, for somebody who has never seen the rule",
    );
    mistakes.extend(description.map(|m| m.advice("description-missing")));
    if !is_read {
        return;
    }
    let causes = missing(
        "falsepositives",
        "the rule names no false positives",
        "name harmless causes that are known, or `Unknown`",
    );
    mistakes.extend(causes.map(|m| m.advice("falsepositives-missing")));
    tests(node, mistakes);
}

fn length(node: &Node, key: &str, most: usize, mistakes: &mut Vec<Mistake>) {
    let Some(found) = node.get(key) else { return };
    let characters = found.scalar().unwrap_or_default().chars().count();
    if characters > most {
        let message =
            format!("`{key}` has {characters} characters, the specification allows {most}");
        mistakes.push(Mistake::new(found.place, message).advice("text-length"));
    }
}

/// That an id is no UUID is said when the rule is loaded.
fn id(node: &Node, mistakes: &mut Vec<Mistake>) {
    if node.get("id").is_none() {
        let mistake = Mistake::new(
            node.place,
            "the rule has no id: a new title makes it another rule",
        );
        let hint = "give it a random UUID, such as `uuidgen` prints";
        mistakes.push(mistake.hint(hint).advice("id-missing"));
    }
}

fn dates(node: &Node, mistakes: &mut Vec<Mistake>) {
    let mut read = |key: &str| {
        let found = node.get(key)?;
        let text = found.scalar().unwrap_or_default();
        let day = end_of_day(&text);
        if day.is_none() {
            let mistake = Mistake::new(found.place, format!("`{key}: {text}` is no date"));
            mistakes.push(mistake.hint("write YYYY-MM-DD").advice("date-form"));
        }
        day.map(|day| (day, found.place))
    };
    if let (Some((made, _)), Some((changed, place))) = (read("date"), read("modified"))
        && changed < made
    {
        let message = "`modified` lies before `date`";
        mistakes.push(Mistake::new(place, message).advice("date-form"));
    }
}

fn related(node: &Node, mistakes: &mut Vec<Mistake>) {
    let Some(found) = node.get("related") else {
        return;
    };
    let mut wrong = |place: Place, words: String| {
        let hint = "write a list of `{id: …, type: …}`; a type is derived, obsolete, merged, renamed or similar";
        mistakes.push(Mistake::new(place, words).hint(hint).advice("related-form"));
    };
    let Yaml::List(items) = &found.yaml else {
        wrong(
            found.place,
            format!("`related` is a list, this is {}", found.kind()),
        );
        return;
    };
    for item in items {
        let text = |key: &str| item.get(key).and_then(Node::scalar);
        match (text("id"), text("type")) {
            (Some(id), _) if !is_uuid(&id) => {
                wrong(item.place, format!("related id `{id}` is no UUID"));
            }
            (Some(_), Some(kind)) if RELATIONS.contains(&kind.as_str()) => {}
            (Some(_), Some(kind)) => wrong(item.place, format!("unknown relation `{kind}`")),
            _ => wrong(
                item.place,
                "a related rule needs `id` and `type`".to_owned(),
            ),
        }
    }
}

fn tags(node: &Node, mistakes: &mut Vec<Mistake>) {
    let Some(Node {
        yaml: Yaml::List(items),
        ..
    }) = node.get("tags")
    else {
        return;
    };
    let mut seen = Vec::new();
    for item in items {
        let tag = item.scalar().unwrap_or_default();
        mistakes.extend(tags::check(&tag, item.place));
        if seen.contains(&tag) {
            let message = format!("tag `{tag}` stands twice");
            mistakes.push(Mistake::new(item.place, message).advice("tag-form"));
        }
        seen.push(tag);
    }
}

fn status(node: &Node, mistakes: &mut Vec<Mistake>) {
    let Some(found) = node.get("status") else {
        return;
    };
    let status = found.scalar().unwrap_or_default();
    if matches!(status.as_str(), "deprecated" | "unsupported") {
        let mistake = Mistake::new(
            found.place,
            format!("the rule is {status} and runs all the same"),
        );
        let hint = "remove it, or use the rule that took its place";
        mistakes.push(mistake.hint(hint).advice("status-deprecated"));
    } else if !STATUSES.contains(&status.as_str()) {
        let hint = match nearest(&status, STATUSES.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("use {}", STATUSES.join(", ")),
        };
        let mistake = Mistake::new(found.place, format!("unknown status `{status}`"));
        mistakes.push(mistake.hint(hint).advice("status-form"));
    }
}

fn tests(node: &Node, mistakes: &mut Vec<Mistake>) {
    let items = match node.get("tests").map(|t| &t.yaml) {
        Some(Yaml::List(items)) if !items.is_empty() => items,
        _ => {
            let mistake = Mistake::new(node.place, "the rule has no tests");
            let hint = "give it an event that matches, and a near miss that does not";
            mistakes.push(mistake.hint(hint).advice("tests-missing"));
            return;
        }
    };
    let is_miss = |test: &Node| {
        let expect = test.get("expect");
        let count = expect.and_then(|e| e.get("count")).and_then(Node::scalar);
        expect.and_then(Node::as_text) == Some("no_match") || count.as_deref() == Some("0")
    };
    let misses = items.iter().filter(|t| is_miss(t)).count();
    if misses == 0 || misses == items.len() {
        let (words, hint) = if misses == 0 {
            (
                "the tests show only what matches",
                "add a near miss that does not",
            )
        } else {
            (
                "the tests show only what does not match",
                "add an event that does",
            )
        };
        let place = node.entry("tests").map_or(node.place, |(key, _)| key.place);
        mistakes.push(
            Mistake::new(place, words)
                .hint(hint)
                .advice("tests-one-sided"),
        );
    }
}
