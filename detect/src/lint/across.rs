//! Rules side by side: the same logic or name twice, correlations over different logs, exceptions near their end.

use std::collections::BTreeMap;

use event::{RuleInfo, Time};

use crate::condition::Condition;
use crate::error::Mistake;
use crate::rule::{Filter, Rule, Selection};
use crate::rule_set::{RuleSet, Target};

const DAY: i64 = 86_400_000_000;

/// How long before its end an exception is worth a word.
const NOTICE: i64 = 14 * DAY;

/// Looks at the whole set and tells each piece of advice with the path of its file.
pub(super) fn check(set: &RuleSet, today: Time, say: &mut dyn FnMut(&str, Mistake)) {
    let mut known: BTreeMap<String, &Rule> = BTreeMap::new();
    // What is only counted by a correlation may ask what another rule tells by itself.
    let told = set
        .rules
        .iter()
        .zip(&set.generates)
        .filter(|(_, told)| **told);
    for (rule, _) in told {
        match known.get(&logic(rule)) {
            Some(first) => {
                let message = format!(
                    "rule `{}` in `{}` asks the same of the same logs",
                    first.info.title, first.info.file
                );
                let hint = "keep one of the two, or say what sets them apart";
                let mistake = Mistake::new(rule.place, message).hint(hint);
                say(&rule.info.file, mistake.advice("duplicate-logic"));
            }
            None => {
                known.insert(logic(rule), rule);
            }
        }
    }
    let rules = set.rules.iter();
    let rules = rules.map(|r| (&r.name, &r.info, r.place));
    let correlations = set.correlations.iter();
    let named = rules.chain(correlations.map(|c| (&c.name, &c.info, c.place)));
    let mut names: BTreeMap<&str, &RuleInfo> = BTreeMap::new();
    for (name, info, place) in named {
        let Some(name) = name else { continue };
        match names.get(name.as_str()) {
            Some(first) => {
                let message = format!(
                    "rule `{}` in `{}` is called `{name}`, too",
                    first.title, first.file
                );
                let hint =
                    "a reference to this name means that rule: refer to ids, or give another name";
                let mistake = Mistake::new(place, message).hint(hint);
                say(&info.file, mistake.advice("name-twice"));
            }
            None => {
                names.insert(name, info);
            }
        }
    }
    for (correlation, references) in set.correlations.iter().zip(&set.references) {
        let mut rules = references.iter().filter_map(|(target, _)| match target {
            Target::Rule(number) => Some(&set.rules[*number]),
            Target::Correlation(_) => None,
        });
        if let Some(first) = rules.next()
            && let Some(other) = rules.find(|r| r.logsource != first.logsource)
        {
            let message = format!(
                "rules `{}` and `{}` look at different logs",
                first.info.title, other.info.title
            );
            let hint = "fields of one log are seldom called as in the other: give `aliases`";
            let mistake = Mistake::new(correlation.place, message).hint(hint);
            say(
                &correlation.info.file,
                mistake.advice("correlation-logsource"),
            );
        }
    }
    for filter in &set.filters {
        if let Some(mistake) = exception(filter, today) {
            say(&filter.file, mistake);
        }
    }
}

/// What there is to say about an exception's owner and end.
fn exception(filter: &Filter, today: Time) -> Option<Mistake> {
    let advice = |words: String, hint: &str, code| {
        let mistake = Mistake::new(filter.place, words).hint(hint);
        Some(mistake.advice(code))
    };
    let Some(end) = filter.expires else {
        return (!filter.owner.is_empty())
            .then(|| {
                let words = "the exception has an owner and no end".to_owned();
                let hint = "say when somebody should look at it again: `expires: YYYY-MM-DD`";
                advice(words, hint, "exception-expiry")
            })
            .flatten();
    };
    let last: String = end.plus(-1).to_string().chars().take(10).collect();
    if end <= today {
        let words = format!("the last day of this exception was {last}: it cuts no more");
        return advice(
            words,
            "remove it, or give it another day",
            "exception-expired",
        );
    }
    if end.0 - today.0 <= NOTICE {
        let words = match (end.0 - 1 - today.0) / DAY {
            0 => format!("today, {last}, is the last day of this exception"),
            1 => format!("the last day of this exception is tomorrow, {last}"),
            days => format!("the last day of this exception is {last}, in {days} days"),
        };
        return advice(
            words,
            "remove it, or give it another day",
            "exception-expires",
        );
    }
    if filter.owner.is_empty() {
        let words = "the exception has an end and no owner".to_owned();
        return advice(words, "say whom to ask: `owner: …`", "exception-owner");
    }
    None
}

/// What a rule asks of which logs, without the names of its selections and without the order of parts.
fn logic(rule: &Rule) -> String {
    fn join(word: &str, parts: impl Iterator<Item = String>) -> String {
        let mut parts: Vec<String> = parts.collect();
        parts.sort();
        parts.dedup();
        match parts.as_slice() {
            [one] => one.clone(),
            _ => format!("{word}({})", parts.join(" ")),
        }
    }
    fn selection(part: &Selection) -> String {
        match part {
            Selection::Item(item) => item.written.clone(),
            Selection::All(parts) => join("and", parts.iter().map(selection)),
            Selection::Any(parts) => join("or", parts.iter().map(selection)),
        }
    }
    fn condition(part: &Condition, rule: &Rule) -> String {
        match part {
            Condition::Selection(number) => selection(&rule.selections[*number].1),
            Condition::Not(inner) => format!("not({})", condition(inner, rule)),
            Condition::And(parts) => join("and", parts.iter().map(|p| condition(p, rule))),
            Condition::Or(parts) => join("or", parts.iter().map(|p| condition(p, rule))),
        }
    }
    format!("{:?} {}", rule.logsource, condition(&rule.condition, rule))
}
