//! The tests that stand in a rule: records as a source would deliver them, and how many findings they must give.
//!
//! Nothing here runs a test; `trailwarden rule test` does, through the same decoder and engine as the service.

use crate::error::Mistake;
use crate::yaml::{Node, Place, Yaml};

/// One test of a rule, from its `tests:`.
#[derive(Debug, Clone)]
pub struct RuleTest {
    /// What it shows.
    pub name: String,
    /// The records, as a source would deliver them.
    pub events: Vec<serde_json::Value>,
    /// How many findings they must give; `None` means at least one.
    pub expect: Option<u64>,
    /// Where it stands.
    pub place: Place,
}

pub(super) fn tests(node: &Node, mistakes: &mut Vec<Mistake>) -> Vec<RuleTest> {
    let Some((key, list)) = node.entry("tests") else {
        return Vec::new();
    };
    let Yaml::List(items) = &list.yaml else {
        mistakes.push(Mistake::new(key.place, "`tests` must be a list"));
        return Vec::new();
    };
    let mut tests = Vec::new();
    for item in items {
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
            continue;
        };
        let expect = match item.get("expect") {
            Some(e) if e.as_text() == Some("match") => None,
            Some(e) if e.as_text() == Some("no_match") => Some(0),
            Some(e) => match e
                .get("count")
                .and_then(Node::scalar)
                .and_then(|n| n.parse().ok())
            {
                Some(count) => Some(count),
                None => {
                    mistakes.push(Mistake::new(
                        e.place,
                        "`expect` is `match`, `no_match` or `{count: N}`",
                    ));
                    continue;
                }
            },
            None => {
                mistakes.push(
                    Mistake::new(item.place, "`expect` is missing")
                        .hint("`match`, `no_match` or `{count: N}`"),
                );
                continue;
            }
        };
        tests.push(RuleTest {
            name,
            events: events.iter().map(Node::to_json).collect(),
            expect,
            place: item.place,
        });
    }
    tests
}
