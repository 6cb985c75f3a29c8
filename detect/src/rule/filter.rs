//! Filter documents: which rules they cut into, what they cut, and until when.
//!
//! A filter takes matches away from rules, never adds any. What it cuts can be written in two ways, and both are in
//! use: the text of the specification puts what is cut into the condition (`condition: selection`), pySigma what stays
//! (`condition: not selection`). Since a filter can only take away, both mean the same here: a condition that is a
//! negation, or whose parts all are, says what stays; any other says what is cut. docs/decisions/0012-filters.md has
//! the reasons. An exception is a filter with an `owner` and a day on which it `expires`; the time of the event
//! decides whether that day has passed, so that a replay cuts what was cut then.

use event::Time;

use super::{Logsource, Selection, detection, is_uuid, required_logsource};
use crate::condition::Condition;
use crate::error::Mistake;
use crate::item::Placeholders;
use crate::yaml::{Node, Place, Yaml};

/// A filter, or an exception.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Its Sigma id, else its title.
    pub id: String,
    /// What it is for, in a line.
    pub title: String,
    /// Who answers for it; empty where nobody is named.
    pub owner: String,
    /// The first moment at which it cuts no more: the end of the day under `expires`, in UTC.
    pub expires: Option<Time>,
    /// It cuts into rules that look at no other logs.
    pub logsource: Logsource,
    /// The rules as written, with their places; `None` for all that the logsource covers.
    pub rules: Option<Vec<(String, Place)>>,
    /// Its selections by name.
    pub selections: Vec<(String, Selection)>,
    /// What is cut.
    pub cut: Condition,
    /// The condition as written.
    pub condition_text: String,
    /// The file that it stands in.
    pub file: String,
    /// Where it begins.
    pub place: Place,
}

pub(super) fn filter(
    node: &Node,
    placeholders: &Placeholders,
    mistakes: &mut Vec<Mistake>,
) -> Option<Filter> {
    let text = |key: &str| node.get(key).and_then(Node::scalar).unwrap_or_default();
    let (title, id) = (text("title"), text("id"));
    if title.is_empty() {
        mistakes.push(Mistake::new(node.place, "`title` is missing"));
    }
    if let Some(found) = node.get("id")
        && !is_uuid(&id)
    {
        mistakes.push(Mistake::new(found.place, format!("id `{id}` is no UUID")).advice("id-form"));
    }
    let expires = node.get("expires").and_then(|found| {
        let end = found.scalar().as_deref().and_then(end_of_day);
        if end.is_none() {
            let message = "`expires` is the last day of an exception, such as 2026-12-31";
            mistakes.push(Mistake::new(found.place, message));
        }
        end
    });
    let logsource = required_logsource(node, mistakes);
    let (key, body) = node.entry("filter")?;
    let rules = rules(key, body, mistakes);
    let detection = detection::detection(key, body, &["rules"], placeholders, mistakes)?;
    if detection.selections.is_empty() {
        mistakes.push(Mistake::new(key.place, "this filter has no selection"));
    }
    let condition_place = body.get("condition").map_or(key.place, |c| c.place);
    if matches!(
        body.get("condition"),
        Some(Node {
            yaml: Yaml::List(_),
            ..
        })
    ) {
        let hint = "join them to one with `and`, `or` and `not`";
        mistakes.push(Mistake::new(condition_place, "a filter has one condition").hint(hint));
    }
    let condition = plain(detection.condition);
    let cut = if says_what_stays(&condition) {
        plain(Condition::Not(Box::new(condition)))
    } else {
        let message = format!(
            "this filter cuts what fits `{}`; pySigma would let only that through",
            detection.condition_text
        );
        let hint = format!(
            "write `not ({})`: every tool reads that alike",
            detection.condition_text
        );
        mistakes.push(
            Mistake::new(condition_place, message)
                .hint(hint)
                .advice("filter-direction"),
        );
        condition
    };
    Some(Filter {
        id: if id.is_empty() { title.clone() } else { id },
        title,
        owner: text("owner"),
        expires,
        logsource,
        rules: rules?,
        selections: detection.selections,
        cut,
        condition_text: detection.condition_text,
        file: String::new(),
        place: node.place,
    })
}

/// The rules that it names; `Some(None)` for `any`.
#[expect(
    clippy::option_option,
    reason = "outside: is it good; inside: is it limited"
)]
fn rules(
    key: &Node,
    body: &Node,
    mistakes: &mut Vec<Mistake>,
) -> Option<Option<Vec<(String, Place)>>> {
    let hint = "name them by id or name, or say `rules: any` for all that the logsource covers";
    let Some(found) = body.get("rules") else {
        mistakes.push(Mistake::new(key.place, "`rules` of the filter is missing").hint(hint));
        return None;
    };
    if let Some(word) = found.scalar() {
        let any = word.eq_ignore_ascii_case("any") || word.eq_ignore_ascii_case("all");
        return Some((!any).then(|| vec![(word, found.place)]));
    }
    let Yaml::List(items) = &found.yaml else {
        let message = format!("`rules` is a list or `any`, this is {}", found.kind());
        mistakes.push(Mistake::new(found.place, message).hint(hint));
        return None;
    };
    let words: Option<Vec<_>> = items
        .iter()
        .map(|n| n.scalar().map(|s| (s, n.place)))
        .collect();
    if words.as_ref().is_none_or(Vec::is_empty) {
        mistakes.push(Mistake::new(found.place, "`rules` names no rule").hint(hint));
        return None;
    }
    words.map(Some)
}

/// The condition without double negations.
fn plain(condition: Condition) -> Condition {
    match condition {
        Condition::Not(inner) => match plain(*inner) {
            Condition::Not(inner) => *inner,
            inner => Condition::Not(Box::new(inner)),
        },
        Condition::And(parts) => Condition::And(parts.into_iter().map(plain).collect()),
        Condition::Or(parts) => Condition::Or(parts.into_iter().map(plain).collect()),
        selection => selection,
    }
}

/// Is the condition a negation, or are all its parts?
fn says_what_stays(condition: &Condition) -> bool {
    match condition {
        Condition::Selection(_) => false,
        Condition::Not(_) => true,
        Condition::And(parts) | Condition::Or(parts) => parts.iter().all(says_what_stays),
    }
}

const DAY: i64 = 86_400_000_000;

/// The end of a day written as YYYY-MM-DD.
pub(crate) fn end_of_day(text: &str) -> Option<Time> {
    let shape = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let begin = Time::parse(text).ok().filter(|_| shape)?;
    Some(begin.plus(DAY))
}
