//! Correlation documents: which type, which rules, which groups, which timespan, which condition.
//!
//! What cannot be run is refused by name, and so is a misspelt key, so that nobody believes it has an effect. What
//! the condition says is read in `condition`; whether the rules that are referred to exist is asked in `rule_set`.

mod condition;

use super::{CorrelationRule, info, tests};
use crate::error::{Mistake, nearest};
use crate::yaml::{Node, Place, Yaml};

const TYPES: &[&str] = &[
    "event_count",
    "value_count",
    "temporal",
    "temporal_ordered",
    "value_sum",
    "value_avg",
    "value_percentile",
    "value_median",
];

const KEYS: &[&str] = &[
    "type",
    "rules",
    "group-by",
    "timespan",
    "condition",
    "aliases",
    "generate",
];

/// Checks the correlation document. Its mistakes are added to `mistakes`.
pub(super) fn correlation(node: &Node, mistakes: &mut Vec<Mistake>) -> Option<CorrelationRule> {
    let mut info = info(node, mistakes);
    let tests = tests(node, mistakes);
    let (key, body) = node.entry("correlation")?;
    let Yaml::Map(entries) = &body.yaml else {
        mistakes.push(Mistake::new(
            key.place,
            format!("`correlation` must be a map, this is {}", body.kind()),
        ));
        return None;
    };
    keys(entries, mistakes);
    let missing =
        |what: &str| Mistake::new(key.place, format!("`{what}` of the correlation is missing"));
    let kind = kind(body).unwrap_or_else(|mistake| {
        mistakes.push(
            mistake.unwrap_or_else(|| missing("type").hint(format!("one of {}", TYPES.join(", ")))),
        );
        String::new()
    });
    let is_temporal = matches!(kind.as_str(), "temporal" | "temporal_ordered");
    let mut rules = list(body, "rules", mistakes);
    let text = body.get("condition").and_then(Node::as_text);
    if rules.is_empty()
        && is_temporal
        && let (Some(text), Some(node)) = (text, body.get("condition"))
    {
        rules = condition::names(text, node.place);
    }
    if rules.is_empty() {
        mistakes
            .push(missing("rules").hint("name the rules whose matches it looks at, by id or name"));
    }
    // A rule may stand twice in a sequence, and nowhere else.
    if kind != "temporal_ordered" || text.is_some() {
        once(&mut rules, mistakes);
    }
    let group_by: Vec<String> = list(body, "group-by", mistakes)
        .into_iter()
        .map(|(f, _)| f)
        .collect();
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
    let asked = condition::Asked {
        kind: &kind,
        rules: &rules,
        correlation: key.place,
    };
    let (fields, condition) = condition::read(&asked, body.get("condition"), mistakes);
    let generate = generate(body, node, mistakes);
    let aliases = aliases(body, mistakes);
    let name = node.get("name").and_then(Node::scalar);
    info.correlation = Some(kind);
    Some(CorrelationRule {
        info,
        name,
        rules,
        group_by,
        aliases,
        timespan,
        fields,
        condition: condition?,
        generate,
        tests,
        place: node.place,
    })
}

/// A key that is nearly one that is known is a mistake: it would be without effect.
fn keys(entries: &[(Node, Node)], mistakes: &mut Vec<Mistake>) {
    for (key, _) in entries {
        let text = key.scalar().unwrap_or_default();
        if KEYS.contains(&text.as_str()) {
            continue;
        }
        let near = match text.as_str() {
            "timeframe" => Some("timespan"),
            "group_by" | "groupby" => Some("group-by"),
            _ => nearest(&text, KEYS.iter().copied()),
        };
        let mistake = Mistake::new(
            key.place,
            format!("unknown key `{text}` of the correlation"),
        );
        mistakes.push(match near {
            Some(near) => mistake.hint(format!("did you mean `{near}`?")),
            None => mistake.warning(),
        });
    }
}

/// The type; no mistake where there is none at all.
fn kind(body: &Node) -> Result<String, Option<Mistake>> {
    let node = body.get("type").ok_or(None)?;
    let kind = node.scalar().unwrap_or_default();
    if TYPES.contains(&kind.as_str()) {
        return Ok(kind);
    }
    let hint = match nearest(&kind, TYPES.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", TYPES.join(", ")),
    };
    let message = format!("unknown correlation type `{kind}`");
    Err(Some(Mistake::new(node.place, message).hint(hint)))
}

/// The texts at a key: one or a list of them.
pub(super) fn list(body: &Node, name: &str, mistakes: &mut Vec<Mistake>) -> Vec<(String, Place)> {
    let text = |node: &Node, mistakes: &mut Vec<Mistake>| match node.scalar() {
        Some(text) if !text.is_empty() => Some((text, node.place)),
        _ => {
            let message = format!(
                "`{name}` is a text or a list of texts, this is {}",
                node.kind()
            );
            mistakes.push(Mistake::new(node.place, message));
            None
        }
    };
    match body.get(name) {
        Some(Node {
            yaml: Yaml::List(items),
            ..
        }) => items.iter().filter_map(|n| text(n, mistakes)).collect(),
        Some(other) => text(other, mistakes).into_iter().collect(),
        None => Vec::new(),
    }
}

pub(super) fn once(rules: &mut Vec<(String, Place)>, mistakes: &mut Vec<Mistake>) {
    let mut seen: Vec<String> = Vec::new();
    rules.retain(|(word, place)| {
        let new = !seen.contains(word);
        if new {
            seen.push(word.clone());
        } else {
            let message = format!("rule `{word}` is named twice, and counts once");
            mistakes.push(Mistake::new(*place, message).warning());
        }
        new
    });
}

pub(super) fn generate(body: &Node, document: &Node, mistakes: &mut Vec<Mistake>) -> bool {
    let nodes = [body.get("generate"), document.get("generate")];
    let mut generate = false;
    for node in nodes.into_iter().flatten() {
        match node.yaml {
            Yaml::Bool(truth) => generate |= truth,
            _ => mistakes.push(
                Mistake::new(node.place, format!("`generate` is {}", node.kind()))
                    .hint("write `true` or `false`"),
            ),
        }
    }
    generate
}

fn aliases(body: &Node, mistakes: &mut Vec<Mistake>) -> Vec<(String, Vec<(String, String)>)> {
    let Some(node) = body.get("aliases") else {
        return Vec::new();
    };
    let hint = "write `name: {rule: field, other_rule: field}`";
    let Yaml::Map(entries) = &node.yaml else {
        let message = format!("`aliases` must be a map, this is {}", node.kind());
        mistakes.push(Mistake::new(node.place, message).hint(hint));
        return Vec::new();
    };
    let mut aliases = Vec::new();
    for (alias, fields) in entries {
        let Yaml::Map(fields) = &fields.yaml else {
            let message = "an alias is a map from rule to field";
            mistakes.push(Mistake::new(fields.place, message).hint(hint));
            continue;
        };
        let mut read = Vec::new();
        for (rule, field) in fields {
            match (rule.scalar(), field.scalar()) {
                (Some(rule), Some(field)) if !field.is_empty() => read.push((rule, field)),
                _ => {
                    let message = "an alias names one field for each rule";
                    mistakes.push(Mistake::new(field.place, message).hint(hint));
                }
            }
        }
        aliases.push((alias.scalar().unwrap_or_default(), read));
    }
    aliases
}

/// A number and a unit as microseconds.
pub(super) fn timespan(text: &str) -> Result<i64, &'static str> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: i64 = match digits.bytes().all(|b| b.is_ascii_digit()) {
        true => digits.parse().map_err(|_| "not a number and a unit")?,
        false => return Err("not a number and a unit"),
    };
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
