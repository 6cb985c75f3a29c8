//! The correlations of a rule set as the windows need them.
//!
//! [`of`] gives each correlation its place among those that refer to one another: how many levels lie below it,
//! which ones see what fires of it, and which fields its matches have to carry up to them. A correlation that is
//! referred to hands on its group-by values, and of the event that fired whatever else is asked for above.

use event::{Id, Str};

use crate::rule::CorrelationRule;
use crate::rule_set::{RuleSet, Target};
use crate::window::{Chain, Correlation, Upper};

/// The correlations of a rule set, in its order.
pub fn of(set: &RuleSet) -> Vec<Correlation> {
    let levels = levels(set);
    let carried = carried(set);
    let correlations = set.correlations.iter().zip(&set.references).enumerate();
    correlations
        .map(|(number, (rule, references))| {
            // What decides which events match: what it refers to as it is written, and the aliases.
            let mut parts: Vec<String> = references
                .iter()
                .map(|(target, word)| match target {
                    Target::Rule(n) => format!("{word} {}", set.rules[*n].semantics()),
                    Target::Correlation(_) => word.clone(),
                })
                .collect();
            parts.push(format!("{:?}", rule.aliases));
            if !rule.fields.is_empty() {
                parts.push(format!("{:?}", rule.fields));
            }
            let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
            let texts = |list: &[String]| list.iter().map(|t| Str::from(t.as_str())).collect();
            Correlation {
                rule_id: rule.info.id.as_str().into(),
                title: rule.info.title.as_str().into(),
                severity: rule.info.severity,
                tags: texts(&rule.info.tags),
                staged: rule.info.staged,
                group_by: texts(&rule.group_by),
                timespan: rule.timespan,
                condition: rule.condition.clone(),
                chain: Chain {
                    level: levels[number],
                    silent: !set.correlation_generates[number],
                    uppers: uppers(set, number, &carried),
                    carries: carried[number].clone(),
                },
                semantics: Id::of("semantics", &parts).0 as u64,
            }
        })
        .collect()
}

/// How many levels of correlations lie below each. No correlation refers to itself by any way: `RuleSet` refuses it.
fn levels(set: &RuleSet) -> Vec<u32> {
    let mut levels = vec![0; set.correlations.len()];
    // As many rounds as there can be levels.
    for _ in 0..levels.len() {
        for (number, references) in set.references.iter().enumerate() {
            let below = references.iter().filter_map(|(target, _)| match target {
                Target::Correlation(lower) => Some(levels[*lower] + 1),
                Target::Rule(_) => None,
            });
            levels[number] = below.max().unwrap_or(0).min(set.correlations.len() as u32);
        }
    }
    levels
}

/// What a field of a correlation is called in the matches of what it refers to by `word`, if it is there at all.
fn below(rule: &CorrelationRule, word: &str, field: &str) -> Option<Str> {
    match rule.aliases.iter().find(|(alias, _)| alias == field) {
        Some((_, fields)) => fields
            .iter()
            .find(|(rule, _)| rule == word)
            .map(|(_, field)| Str::from(field.as_str())),
        None => Some(field.into()),
    }
}

/// Per correlation the fields that its matches carry, because those above it ask for them and it does not group by them.
pub(crate) fn carried(set: &RuleSet) -> Vec<Vec<Str>> {
    let mut carried: Vec<Vec<Str>> = vec![Vec::new(); set.correlations.len()];
    for _ in 0..carried.len() {
        for (upper, references) in set.correlations.iter().zip(&set.references) {
            let number = set.correlations.iter().position(|c| std::ptr::eq(c, upper));
            let own = number.map_or(Vec::new(), |n| carried[n].clone());
            for (target, word) in references {
                let Target::Correlation(lower) = target else {
                    continue;
                };
                let asked = upper
                    .group_by
                    .iter()
                    .chain(&upper.fields)
                    .map(String::as_str);
                for field in asked.chain(own.iter().map(Str::as_str)) {
                    if let Some(field) = below(upper, word, field)
                        && !set.correlations[*lower]
                            .group_by
                            .iter()
                            .any(|g| *g == *field)
                        && !carried[*lower].contains(&field)
                    {
                        carried[*lower].push(field);
                    }
                }
            }
        }
    }
    carried.iter_mut().for_each(|fields| fields.sort());
    carried
}

/// The correlations that refer to the one with this number, each as it sees it.
fn uppers(set: &RuleSet, number: usize, carried: &[Vec<Str>]) -> Vec<Upper> {
    let mut uppers = Vec::new();
    for (above, (rule, references)) in set.correlations.iter().zip(&set.references).enumerate() {
        // Under several words it is seen once for each: an alias may tell them apart.
        for (place, (target, word)) in references.iter().enumerate() {
            if *target != Target::Correlation(number) {
                continue;
            }
            let pair = |field: &str| {
                let below = below(rule, word, field).unwrap_or_default();
                (Str::from(field), below)
            };
            uppers.push(Upper {
                rule_id: rule.info.id.as_str().into(),
                rules: 1_u64.checked_shl(place as u32).unwrap_or(1 << 63),
                group_by: rule.group_by.iter().map(|f| pair(f)).collect(),
                fields: rule.fields.iter().map(|f| pair(f).1).collect(),
                numbers: rule.condition.has_numbers(),
                carries: carried[above].iter().map(|f| pair(f)).collect(),
            });
        }
    }
    uppers
}
