//! Correlation documents: which type, which rules, which groups, which timespan, which threshold.
//!
//! What is part of Sigma and not supported yet is refused by name, so that nobody believes it runs.

use super::{CorrelationRule, info, tests};
use crate::error::{Mistake, nearest};
use crate::yaml::{Node, Place, Yaml};

const CORRELATION_TYPES: &[&str] = &[
    "event_count",
    "value_count",
    "temporal",
    "temporal_ordered",
    "value_sum",
    "value_avg",
    "value_percentile",
    "value_median",
];

pub(super) fn correlation(node: &Node, mistakes: &mut Vec<Mistake>) -> Option<CorrelationRule> {
    let mut info = info(node, mistakes);
    let tests = tests(node, mistakes);
    let (key, body) = node.entry("correlation")?;
    let missing =
        |what: &str| Mistake::new(key.place, format!("`{what}` of the correlation is missing"));
    if !matches!(body.yaml, Yaml::Map(_)) {
        mistakes.push(Mistake::new(
            key.place,
            format!("`correlation` must be a map, this is {}", body.kind()),
        ));
        return None;
    }
    match body
        .get("type")
        .map(|t| (t.scalar().unwrap_or_default(), t.place))
    {
        None => mistakes.push(missing("type")),
        Some((kind, _)) if kind == "event_count" => info.correlation = Some(kind),
        Some((kind, place)) if CORRELATION_TYPES.contains(&kind.as_str()) => {
            mistakes.push(
                Mistake::new(
                    place,
                    format!("correlation type `{kind}` is not supported yet"),
                )
                .hint("only event_count is, with `gt` or `gte`"),
            );
        }
        Some((kind, place)) => {
            let hint = nearest(&kind, CORRELATION_TYPES.iter().copied())
                .map(|n| format!("did you mean `{n}`?"))
                .unwrap_or_default();
            mistakes
                .push(Mistake::new(place, format!("unknown correlation type `{kind}`")).hint(hint));
        }
    }
    let list = |name: &str| -> Vec<(String, Place)> {
        match body.get(name) {
            Some(Node {
                yaml: Yaml::List(items),
                ..
            }) => items
                .iter()
                .filter_map(|n| n.scalar().map(|s| (s, n.place)))
                .collect(),
            Some(other) => other
                .scalar()
                .map(|s| (s, other.place))
                .into_iter()
                .collect(),
            None => Vec::new(),
        }
    };
    let rules = list("rules");
    if rules.is_empty() {
        mistakes
            .push(missing("rules").hint("name the rules whose matches it counts, by id or name"));
    }
    let group_by: Vec<String> = list("group-by").into_iter().map(|(f, _)| f).collect();
    if group_by.is_empty() {
        mistakes.push(
            Mistake::new(
                key.place,
                "without `group-by` all events make one global group",
            )
            .advice("group-by-missing"),
        );
    }
    let timespan = match body
        .get("timespan")
        .map(|n| (n.scalar().unwrap_or_default(), n.place))
    {
        None => {
            mistakes.push(missing("timespan").hint("such as `timespan: 10m`"));
            0
        }
        Some((text, place)) => timespan(&text).unwrap_or_else(|why| {
            mistakes.push(
                Mistake::new(place, format!("timespan `{text}`: {why}"))
                    .hint("write a number and `s`, `m`, `h` or `d`, at most 365d"),
            );
            0
        }),
    };
    let at_least = if info.correlation.is_some() {
        threshold(body, key.place, mistakes)
    } else {
        0
    };
    let generate = [body.get("generate"), node.get("generate")]
        .into_iter()
        .flatten()
        .any(|n| n.yaml == Yaml::Bool(true));
    let mut aliases = Vec::new();
    if let Some(Node {
        yaml: Yaml::Map(entries),
        ..
    }) = body.get("aliases")
    {
        for (alias, fields) in entries {
            let Yaml::Map(fields) = &fields.yaml else {
                mistakes.push(Mistake::new(
                    fields.place,
                    "an alias is a map from rule to field",
                ));
                continue;
            };
            let fields = fields
                .iter()
                .map(|(k, v)| {
                    (
                        k.scalar().unwrap_or_default(),
                        v.scalar().unwrap_or_default(),
                    )
                })
                .collect();
            aliases.push((alias.scalar().unwrap_or_default(), fields));
        }
    }
    let name = node.get("name").and_then(Node::scalar);
    Some(CorrelationRule {
        info,
        name,
        rules,
        group_by,
        aliases,
        timespan,
        at_least,
        generate,
        tests,
        place: node.place,
    })
}

fn threshold(body: &Node, at: Place, mistakes: &mut Vec<Mistake>) -> u64 {
    let Some(condition) = body.get("condition") else {
        mistakes.push(
            Mistake::new(at, "`condition` of the correlation is missing")
                .hint("such as `condition: {gte: 5}`"),
        );
        return 0;
    };
    let Yaml::Map(entries) = &condition.yaml else {
        mistakes.push(
            Mistake::new(condition.place, "extended conditions are not supported yet")
                .hint("write a map such as `gte: 5`"),
        );
        return 0;
    };
    let before = mistakes.len();
    let mut at_least = 0;
    for (key, value) in entries {
        let op = key.scalar().unwrap_or_default();
        match op.as_str() {
            "gt" | "gte" => match value.scalar().and_then(|v| v.parse::<u64>().ok()) {
                Some(n) if n <= 1_000_000 => at_least = at_least.max(n + u64::from(op == "gt")),
                _ => mistakes.push(Mistake::new(
                    value.place,
                    format!("`{op}` needs a whole number from 0 to 1,000,000"),
                )),
            },
            "lt" | "lte" | "eq" | "neq" => {
                mistakes.push(
                    Mistake::new(key.place, format!("condition `{op}` is not supported yet"))
                        .hint("only `gt` and `gte` are"),
                );
            }
            "field" => {
                mistakes.push(Mistake::new(key.place, "event_count has no `field`").warning())
            }
            _ => {
                let hint = nearest(&op, ["gt", "gte", "lt", "lte", "eq", "neq"])
                    .map(|n| format!("did you mean `{n}`?"))
                    .unwrap_or_default();
                mistakes
                    .push(Mistake::new(key.place, format!("unknown condition `{op}`")).hint(hint));
            }
        }
    }
    if at_least == 0 && mistakes.len() == before {
        mistakes.push(
            Mistake::new(condition.place, "the condition is always true").hint("such as `gte: 5`"),
        );
    }
    at_least.max(1)
}

/// A number and a unit as microseconds.
pub(super) fn timespan(text: &str) -> Result<i64, &'static str> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: i64 = digits.parse().map_err(|_| "not a number and a unit")?;
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("unknown unit"),
    };
    match number.checked_mul(seconds) {
        Some(0) => Err("must be more than nothing"),
        Some(s) if s <= 365 * 86_400 => Ok(s * 1_000_000),
        _ => Err("longer than a year"),
    }
}
