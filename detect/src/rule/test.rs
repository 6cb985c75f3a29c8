//! The tests that stand in a rule: records as a source would deliver them, and how many findings they must give.
//!
//! Nothing here runs a test; `trailwarden rule test` does, through the same decoder and engine as the service.

use event::Time;

use crate::error::Mistake;
use crate::yaml::{Node, Place, Yaml};

/// One test of a rule, from its `tests:`.
#[derive(Debug, Clone)]
pub struct RuleTest {
    /// What it shows.
    pub name: String,
    /// The records, as a source would deliver them.
    pub events: Vec<TestEvent>,
    /// From when the times of events count that say how much later they are.
    pub start: Time,
    /// How many findings they must give; `None` means at least one.
    pub expect: Option<u64>,
    /// Where it stands.
    pub place: Place,
}

/// One record of a test.
#[derive(Debug, Clone)]
pub struct TestEvent {
    /// The record.
    pub record: serde_json::Value,
    /// How long after the test's start it happened, in microseconds, from `at: +90s`; `None` where the record has its
    /// own time.
    pub at: Option<i64>,
    /// Where it stands.
    pub place: Place,
}

/// The start of a test that names none.
const START: &str = "2026-01-01T00:00:00Z";

pub(super) fn tests(node: &Node, mistakes: &mut Vec<Mistake>) -> Vec<RuleTest> {
    let Some((key, list)) = node.entry("tests") else {
        return Vec::new();
    };
    let Yaml::List(items) = &list.yaml else {
        mistakes.push(Mistake::new(key.place, "`tests` must be a list"));
        return Vec::new();
    };
    items
        .iter()
        .filter_map(|item| test(item, mistakes))
        .collect()
}

fn test(item: &Node, mistakes: &mut Vec<Mistake>) -> Option<RuleTest> {
    let name = item
        .get("name")
        .and_then(Node::scalar)
        .unwrap_or_else(|| format!("test on line {}", item.place.line));
    let Some(Node {
        yaml: Yaml::List(events),
        ..
    }) = item.get("events")
    else {
        mistakes.push(Mistake::new(item.place, "a test needs a list `events`"));
        return None;
    };
    let expect = expected(item, mistakes)?;
    let written = item.get("start");
    let text = written.and_then(Node::scalar);
    let Ok(start) = Time::parse(text.as_deref().unwrap_or(START)) else {
        let place = written.map_or(item.place, |n| n.place);
        mistakes.push(
            Mistake::new(place, "`start` is no time").hint("such as `start: 2026-03-02T09:00:00Z`"),
        );
        return None;
    };
    Some(RuleTest {
        name,
        events: events.iter().filter_map(|e| event(e, mistakes)).collect(),
        start,
        expect,
        place: item.place,
    })
}

/// What a test expects: so many, or `Some(None)` for at least one.
#[expect(
    clippy::option_option,
    reason = "the inner one is the answer, the outer one a mistake"
)]
pub(super) fn expected(item: &Node, mistakes: &mut Vec<Mistake>) -> Option<Option<u64>> {
    let Some(found) = item.get("expect") else {
        mistakes.push(
            Mistake::new(item.place, "`expect` is missing")
                .hint("`match`, `no_match` or `{count: N}`"),
        );
        return None;
    };
    match found.as_text() {
        Some("match") => return Some(None),
        Some("no_match") => return Some(Some(0)),
        _ => {}
    }
    let count = found.get("count").and_then(Node::scalar);
    let count = count.and_then(|n| n.parse().ok());
    if count.is_none() {
        let message = "`expect` is `match`, `no_match` or `{count: N}`";
        mistakes.push(Mistake::new(found.place, message));
    }
    count.map(Some)
}

/// A record, without the key `at` where that says how much later it happened.
fn event(node: &Node, mistakes: &mut Vec<Mistake>) -> Option<TestEvent> {
    let mut record = node.to_json();
    let mut at = None;
    if let Some(found) = node.get("at")
        && let Some(later) = found.scalar().as_deref().and_then(|t| t.strip_prefix('+'))
    {
        let Some(micros) = duration(later) else {
            let message = format!("`at: +{later}` is no time after the start");
            let hint = "such as `+90s`, `+5m` or `+1h30m`";
            mistakes.push(Mistake::new(found.place, message).hint(hint));
            return None;
        };
        at = Some(micros);
        if let Some(map) = record.as_object_mut() {
            map.shift_remove("at");
        }
    }
    Some(TestEvent {
        record,
        at,
        place: node.place,
    })
}

/// Numbers with units, such as `1h30m`, in microseconds.
fn duration(text: &str) -> Option<i64> {
    let (mut sum, mut rest) = (0_i64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let end = rest[digits..].find(|c: char| c.is_ascii_digit());
        let end = end.map_or(rest.len(), |end| digits + end);
        let unit = match &rest[digits..end] {
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return None,
        };
        sum = sum.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("90s", Some(90_000_000)),
            ("1h30m", Some(5_400_000_000)),
            ("250ms", Some(250_000)),
            ("0s", Some(0)),
            ("", None),
            ("90", None),
            ("s", None),
            ("1y", None),
            ("99999999999999d", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }
}
