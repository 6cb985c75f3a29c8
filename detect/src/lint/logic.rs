//! What a rule can match: parts that never hold, conditions that always do, values that say nothing.
//!
//! A rule is looked at in two ways. Its selections are taken as open questions, and the condition is tried with every
//! answer ([`truth`]). And along everything that must hold together, what a field may hold is narrowed down line by
//! line ([`Allowed`]); where nothing is left, no event can match. A field is taken to have one value: a list in an
//! event can hold two at once, and then the advice is to be silenced.

use std::collections::{BTreeMap, BTreeSet};

use crate::condition::Condition;
use crate::error::Mistake;
use crate::item::{Item, Test};
use crate::pattern::Pattern;
use crate::rule::{Rule, Selection};
use crate::yaml::{Node, Place, Yaml};

/// Looks at one rule; `node` is its document.
pub(super) fn check(rule: &Rule, node: &Node, mistakes: &mut Vec<Mistake>) {
    let Some(detection) = node.get("detection") else {
        return;
    };
    let condition = detection.get("condition").map_or(node.place, |c| c.place);
    let never = truth(rule, condition, mistakes);
    let mut impossible = BTreeSet::new();
    for (number, (name, selection)) in rule.selections.iter().enumerate() {
        let place = detection
            .entry(name)
            .map_or(condition, |(key, _)| key.place);
        values(selection, place, mistakes);
        if let Err(field) = selection_needs(selection) {
            impossible.insert(number);
            mistakes.push(contradiction(place, &format!("selection `{name}`"), &field));
        }
    }
    if let Some(body) = detection.get("condition").map(|_| detection) {
        twice(body, mistakes);
    }
    if !never
        && impossible.is_empty()
        && let Err(field) = condition_needs(&rule.condition, rule)
    {
        mistakes.push(contradiction(condition, "the condition", &field));
    }
}

fn contradiction(place: Place, what: &str, field: &str) -> Mistake {
    Mistake::new(place, format!("{what} never holds: `{field}` would have to have two values at once"))
        .hint("give the values as one list for `or`; where the field is a list, say `lint-ignore: [never-matches]`")
        .advice("never-matches")
}

/// More selections than this are not tried with every answer.
const MAX_TRIED: usize = 12;

/// Tries the condition with every answer that selections can give. Tells whether it never holds.
fn truth(rule: &Rule, place: Place, mistakes: &mut Vec<Mistake>) -> bool {
    let mut used = BTreeSet::new();
    selections(&rule.condition, &mut used);
    let used: Vec<usize> = used.into_iter().collect();
    let text = &rule.condition_text;
    if !holds(&rule.condition, &|_| false) {
        if used.len() <= MAX_TRIED
            && (0..1_u32 << used.len()).all(|answers| !holds_with(&rule.condition, &used, answers))
        {
            let message = format!("`{text}` never holds, whatever the selections say");
            mistakes.push(Mistake::new(place, message).advice("never-matches"));
            return true;
        }
        return false;
    }
    if used.len() <= MAX_TRIED
        && (0..1_u32 << used.len()).all(|answers| holds_with(&rule.condition, &used, answers))
    {
        let message = format!("`{text}` holds for every event");
        mistakes.push(Mistake::new(place, message).advice("always-true"));
    } else {
        let mistake = Mistake::new(
            place,
            format!("`{text}` holds for events that fit no selection"),
        );
        let hint = "say first what is looked for: `selection and not filter`";
        mistakes.push(mistake.hint(hint).advice("negation-only"));
    }
    false
}

fn holds_with(condition: &Condition, used: &[usize], answers: u32) -> bool {
    holds(condition, &|number| {
        let at = used.iter().position(|u| *u == number);
        at.is_some_and(|at| answers >> at & 1 == 1)
    })
}

fn holds(condition: &Condition, answer: &dyn Fn(usize) -> bool) -> bool {
    match condition {
        Condition::Selection(number) => answer(*number),
        Condition::Not(inner) => !holds(inner, answer),
        Condition::And(parts) => parts.iter().all(|p| holds(p, answer)),
        Condition::Or(parts) => parts.iter().any(|p| holds(p, answer)),
    }
}

fn selections(condition: &Condition, out: &mut BTreeSet<usize>) {
    match condition {
        Condition::Selection(number) => {
            out.insert(*number);
        }
        Condition::Not(inner) => selections(inner, out),
        Condition::And(parts) | Condition::Or(parts) => {
            parts.iter().for_each(|p| selections(p, out));
        }
    }
}

/// What a field may hold for an event to match.
#[derive(Debug, Clone)]
struct Allowed<'a> {
    absent: bool,
    null: bool,
    /// These texts only, in lower case; `None` for any.
    texts: Option<BTreeSet<&'a str>>,
    /// Each of these groups has a pattern that the text must fit.
    patterns: Vec<Vec<&'a Pattern>>,
}

type Needs<'a> = BTreeMap<&'a str, Allowed<'a>>;

impl<'a> Allowed<'a> {
    /// What one line demands; `None` if it says too little to be followed up.
    fn by(item: &'a Item) -> Option<Allowed<'a>> {
        if item.negated || (item.all && item.groups.len() > 1) {
            return None;
        }
        let tests: Vec<&Test> = item.groups.iter().flatten().collect();
        let mut allowed = Allowed {
            absent: false,
            null: false,
            texts: Some(BTreeSet::new()),
            patterns: Vec::new(),
        };
        let mut patterns = Vec::new();
        for test in &tests {
            match test {
                Test::Null => (allowed.absent, allowed.null) = (true, true),
                Test::Exists(false) => allowed.absent = true,
                Test::Exists(true) => {
                    allowed.null = true;
                    allowed.texts = None;
                }
                Test::Text {
                    pattern: Pattern::Exact(text),
                    cased: false,
                } => {
                    if let Some(texts) = &mut allowed.texts {
                        texts.insert(text);
                    }
                }
                Test::Text {
                    pattern,
                    cased: false,
                } => {
                    allowed.texts = None;
                    patterns.push(pattern);
                }
                _ => allowed.texts = None,
            }
        }
        if allowed.texts.is_none() && patterns.len() == tests.len() {
            allowed.patterns.push(patterns);
        }
        Some(allowed)
    }

    fn and(mut self, other: &Allowed<'a>) -> Allowed<'a> {
        self.absent &= other.absent;
        self.null &= other.null;
        self.texts = match (self.texts, &other.texts) {
            (Some(a), Some(b)) => Some(a.intersection(b).copied().collect()),
            (a, b) => a.or_else(|| b.clone()),
        };
        self.patterns.extend(other.patterns.iter().cloned());
        self
    }

    fn or(mut self, other: &Allowed<'a>) -> Allowed<'a> {
        self.absent |= other.absent;
        self.null |= other.null;
        self.texts = match (self.texts, &other.texts) {
            (Some(a), Some(b)) => Some(a.union(b).copied().collect()),
            _ => None,
        };
        self.patterns.clear();
        self
    }

    fn is_nothing(&self) -> bool {
        let fits = |text: &str| {
            let mut groups = self.patterns.iter();
            groups.all(|group| group.iter().any(|p| p.matches(text)))
        };
        let none = self
            .texts
            .as_ref()
            .is_some_and(|t| !t.iter().any(|text| fits(text)));
        none && !self.absent && !self.null
    }
}

/// All of them together, or the field for which nothing is left.
fn together<'a>(
    parts: impl Iterator<Item = Result<Needs<'a>, String>>,
) -> Result<Needs<'a>, String> {
    let mut all = Needs::new();
    for part in parts {
        for (field, allowed) in part? {
            let allowed = match all.remove(field) {
                Some(before) => before.and(&allowed),
                None => allowed,
            };
            if allowed.is_nothing() {
                return Err(field.to_owned());
            }
            all.insert(field, allowed);
        }
    }
    Ok(all)
}

/// Any of them, or the field for which nothing is left in each.
fn either<'a>(parts: impl Iterator<Item = Result<Needs<'a>, String>>) -> Result<Needs<'a>, String> {
    let mut any: Option<Needs<'_>> = None;
    let mut nothing = Ok(Needs::new());
    for part in parts {
        let part = match part {
            Ok(part) => part,
            Err(field) => {
                nothing = Err(field);
                continue;
            }
        };
        any = Some(match any {
            None => part,
            Some(before) => before
                .into_iter()
                .filter_map(|(field, allowed)| Some((field, allowed.or(part.get(field)?))))
                .collect(),
        });
    }
    any.map_or(nothing, Ok)
}

fn selection_needs(selection: &Selection) -> Result<Needs<'_>, String> {
    match selection {
        Selection::Item(item) => Ok(item
            .field
            .as_deref()
            .and_then(|field| Some((field, Allowed::by(item)?)))
            .into_iter()
            .collect()),
        Selection::All(parts) => together(parts.iter().map(selection_needs)),
        Selection::Any(parts) => either(parts.iter().map(selection_needs)),
    }
}

fn condition_needs<'a>(condition: &Condition, rule: &'a Rule) -> Result<Needs<'a>, String> {
    match condition {
        Condition::Selection(number) => selection_needs(&rule.selections[*number].1),
        // What must not hold narrows down nothing that could be followed up here.
        Condition::Not(_) => Ok(Needs::new()),
        Condition::And(parts) => together(parts.iter().map(|p| condition_needs(p, rule))),
        Condition::Or(parts) => either(parts.iter().map(|p| condition_needs(p, rule))),
    }
}

/// Values that every value fits.
fn values(selection: &Selection, place: Place, mistakes: &mut Vec<Mistake>) {
    match selection {
        Selection::All(parts) | Selection::Any(parts) => {
            parts.iter().for_each(|p| values(p, place, mistakes));
        }
        Selection::Item(item) => {
            let anything = |test: &Test| {
                matches!(
                    test,
                    Test::Text {
                        pattern: Pattern::Anything,
                        ..
                    }
                )
            };
            if item.groups.iter().flatten().any(anything) {
                let field = item.field.as_deref().unwrap_or("this keyword");
                let message = format!("every value of `{field}` fits this wildcard");
                let hint = "say `|exists: true`, or what the value looks like";
                mistakes.push(
                    Mistake::new(place, message)
                        .hint(hint)
                        .advice("wildcard-only"),
                );
            }
        }
    }
}

/// Values that stand twice in a list; case matters only where the field says so.
fn twice(node: &Node, mistakes: &mut Vec<Mistake>) {
    match &node.yaml {
        Yaml::Map(entries) => entries.iter().for_each(|(key, value)| {
            let cased = key
                .scalar()
                .is_some_and(|k| k.contains("|cased") || k.contains("|re"));
            if let Yaml::List(items) = &value.yaml {
                let mut seen = BTreeSet::new();
                for item in items {
                    let Some(text) = item.scalar() else { continue };
                    let text = if cased { text } else { text.to_lowercase() };
                    if !seen.insert(text.clone()) {
                        let message = format!("`{text}` stands twice in this list");
                        mistakes.push(Mistake::new(item.place, message).advice("value-twice"));
                    }
                }
            }
            twice(value, mistakes);
        }),
        Yaml::List(items) => items.iter().for_each(|item| twice(item, mistakes)),
        _ => {}
    }
}
