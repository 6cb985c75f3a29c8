//! Selections and the condition over them: what stands under `detection:` of a rule and under `filter:` of a filter.

use super::Selection;
use crate::condition::{self, Condition};
use crate::error::Mistake;
use crate::item::{self, Item, Placeholders};
use crate::yaml::{Node, Yaml};

/// Selections with a condition over them.
pub(super) struct Detection {
    /// The selections by name.
    pub(super) selections: Vec<(String, Selection)>,
    /// Which of them must hold.
    pub(super) condition: Condition,
    /// The condition as written.
    pub(super) condition_text: String,
}

/// Reads the map under `key`. Its keys are selections, but for `condition` and those in `other`.
pub(super) fn detection(
    key: &Node,
    node: &Node,
    other: &[&str],
    placeholders: &Placeholders,
    mistakes: &mut Vec<Mistake>,
) -> Option<Detection> {
    let Yaml::Map(entries) = &node.yaml else {
        let word = key.scalar().unwrap_or_default();
        let message = format!("`{word}` must be a map, this is {}", node.kind());
        mistakes.push(Mistake::new(key.place, message));
        return None;
    };
    let mut selections = Vec::new();
    let mut fine = true;
    for (name, value) in entries {
        let text = name.scalar().unwrap_or_default();
        if text == "condition" || other.contains(&text.as_str()) {
            continue;
        }
        let selection = selection(value, placeholders, mistakes, 0);
        fine &= selection.is_some();
        selections.push((text, selection.unwrap_or(Selection::Any(Vec::new()))));
    }
    let names: Vec<String> = selections.iter().map(|(n, _)| n.clone()).collect();
    let Some((_, condition)) = node.entry("condition") else {
        mistakes.push(
            Mistake::new(key.place, "`condition` is missing")
                .hint("say which selections must hold, such as `condition: selection`"),
        );
        return None;
    };
    let parts: Vec<&Node> = if let Yaml::List(items) = &condition.yaml {
        items.iter().collect()
    } else {
        vec![condition]
    };
    let mut conditions = Vec::new();
    let mut texts = Vec::new();
    for part in parts {
        match part.scalar() {
            Some(text) => match condition::parse(&text, part.place, &names) {
                Ok(parsed) => {
                    conditions.push(parsed);
                    texts.push(text);
                }
                Err(mistake) => mistakes.push(mistake),
            },
            None => mistakes.push(Mistake::new(
                part.place,
                format!("a condition is a text, this is {}", part.kind()),
            )),
        }
    }
    if !fine || conditions.is_empty() {
        return None;
    }
    let condition = if conditions.len() == 1 {
        conditions.remove(0)
    } else {
        Condition::Or(conditions)
    };
    unused(&names, &condition, entries, mistakes);
    Some(Detection {
        selections,
        condition,
        condition_text: texts.join(" or "),
    })
}

/// Warns of selections that no condition names.
fn unused(
    names: &[String],
    condition: &Condition,
    entries: &[(Node, Node)],
    mistakes: &mut Vec<Mistake>,
) {
    fn used(condition: &Condition, out: &mut Vec<usize>) {
        match condition {
            Condition::Selection(i) => out.push(*i),
            Condition::Not(inner) => used(inner, out),
            Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|p| used(p, out)),
        }
    }
    let mut seen = Vec::new();
    used(condition, &mut seen);
    for (i, name) in names.iter().enumerate() {
        if !seen.contains(&i)
            && let Some((key, _)) = entries
                .iter()
                .find(|(k, _)| k.scalar().as_ref() == Some(name))
        {
            mistakes.push(
                Mistake::new(
                    key.place,
                    format!("selection `{name}` is not used by the condition"),
                )
                .advice("selection-unused"),
            );
        }
    }
}

/// One selection; its mistakes are added to `mistakes`, all of them.
fn selection(
    node: &Node,
    placeholders: &Placeholders,
    mistakes: &mut Vec<Mistake>,
    depth: usize,
) -> Option<Selection> {
    let refuse = |mistakes: &mut Vec<Mistake>, message: &str| {
        mistakes.push(Mistake::new(node.place, message));
        None
    };
    let single = |mut parts: Vec<Selection>, join: fn(Vec<Selection>) -> Selection| {
        if parts.len() == 1 {
            parts.remove(0)
        } else {
            join(parts)
        }
    };
    match &node.yaml {
        _ if depth > 8 => refuse(mistakes, "selections are nested too deep"),
        Yaml::Null => refuse(mistakes, "this selection is empty"),
        Yaml::Map(entries) if entries.is_empty() => refuse(mistakes, "this selection is empty"),
        Yaml::List(items) if items.is_empty() => refuse(mistakes, "this selection is empty"),
        Yaml::Map(entries) => {
            let parts: Vec<_> = entries
                .iter()
                .map(|(key, value)| take(line(key, value, placeholders, mistakes), mistakes))
                .collect();
            parts
                .into_iter()
                .collect::<Option<_>>()
                .map(|parts| single(parts, Selection::All))
        }
        Yaml::List(items) => {
            let parts: Vec<_> = items
                .iter()
                .map(|n| match n.yaml {
                    Yaml::Map(_) | Yaml::List(_) => selection(n, placeholders, mistakes, depth + 1),
                    _ => take(item::keyword(n), mistakes),
                })
                .collect();
            parts
                .into_iter()
                .collect::<Option<_>>()
                .map(|parts| single(parts, Selection::Any))
        }
        _ => take(item::keyword(node), mistakes),
    }
}

fn take(item: Result<Item, Mistake>, mistakes: &mut Vec<Mistake>) -> Option<Selection> {
    item.map_err(|mistake| mistakes.push(mistake))
        .ok()
        .map(Selection::Item)
}

fn line(
    key: &Node,
    value: &Node,
    placeholders: &Placeholders,
    mistakes: &mut Vec<Mistake>,
) -> Result<Item, Mistake> {
    if let Yaml::Map(_) = value.yaml {
        let message = format!(
            "the value of `{}` cannot be a map",
            key.scalar().unwrap_or_default()
        );
        return Err(Mistake::new(value.place, message)
            .hint("join the keys with dots: `userIdentity.type: Root`"));
    }
    item::parse(key, value, placeholders, mistakes)
}
