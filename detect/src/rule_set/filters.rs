//! Which filters cut into which rules.
//!
//! A filter cuts into the rules that it names and that look at no other logs than it does, as in pySigma. One that
//! names a rule that is not there is a mistake: an exception must not be lost by a typing error. One that cuts into
//! nothing is worth a warning.

use std::collections::HashMap;

use super::RuleSet;
use crate::error::{Mistake, nearest};
use crate::rule::{Filter, Logsource};
use crate::yaml::Place;

/// Puts the filters into the set; what is wrong with them is added to `mistakes`, each with the number of its file.
pub(super) fn apply(
    set: &mut RuleSet,
    filters: Vec<(usize, Filter)>,
    some_failed: bool,
    mistakes: &mut Vec<(usize, Mistake)>,
) {
    set.filtered = vec![Vec::new(); set.rules.len()];
    for (number, (file, filter)) in filters.iter().enumerate() {
        let targets: Vec<usize> = match &filter.rules {
            None => {
                let rules = set.rules.iter().enumerate();
                rules
                    .filter(|(_, rule)| within(&rule.logsource, &filter.logsource))
                    .map(|(target, _)| target)
                    .collect()
            }
            Some(words) => words
                .iter()
                .filter_map(
                    |(word, place)| match target(set, filter, word, *place, some_failed) {
                        Ok((target, advice)) => {
                            mistakes.extend(advice.map(|m| (*file, m)));
                            target
                        }
                        Err(mistake) => {
                            mistakes.push((*file, mistake));
                            None
                        }
                    },
                )
                .collect(),
        };
        if filter.rules.is_none() && targets.is_empty() {
            let message = "no rule that is loaded looks at the logs of this filter";
            mistakes.push((
                *file,
                Mistake::new(filter.place, message).advice("filter-idle"),
            ));
        }
        for target in targets {
            if !set.filtered[target].contains(&number) {
                set.filtered[target].push(number);
            }
        }
    }
    set.filters = filters.into_iter().map(|(_, f)| f).collect();
}

/// The number of the rule that `word` names, if the filter can cut into it, and what to say about it.
fn target(
    set: &RuleSet,
    filter: &Filter,
    word: &str,
    place: Place,
    some_failed: bool,
) -> Result<(Option<usize>, Option<Mistake>), Mistake> {
    let mut by_word: HashMap<&str, usize> = HashMap::new();
    let mut by_title: HashMap<&str, usize> = HashMap::new();
    for (number, rule) in set.rules.iter().enumerate() {
        by_word.entry(&rule.info.id).or_insert(number);
        if let Some(name) = &rule.name {
            by_word.entry(name).or_insert(number);
        }
        by_title.entry(&rule.info.title).or_insert(number);
    }
    let named = by_word.get(word).copied();
    let Some(number) = named.or_else(|| by_title.get(word).copied()) else {
        let mut correlations = set.correlations.iter();
        if correlations.any(|c| c.info.id == word || c.name.as_deref() == Some(word)) {
            let message = format!("`{word}` is a correlation, and filters cut into single events");
            return Err(Mistake::new(place, message).hint("name the rules whose matches it counts"));
        }
        let known = by_word.keys().chain(by_title.keys()).copied();
        let hint = match nearest(word, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None if some_failed => {
                "the rule may be among those that could not be loaded".to_owned()
            }
            None => "give the id or the name of a rule that is loaded with it".to_owned(),
        };
        return Err(Mistake::new(place, format!("there is no rule `{word}`")).hint(hint));
    };
    if !within(&set.rules[number].logsource, &filter.logsource) {
        let message = format!(
            "rule `{word}` looks at other logs than this filter, which does nothing for it"
        );
        let hint = "give the filter the logsource of the rule, or leave parts of it out";
        return Ok((
            None,
            Some(
                Mistake::new(place, message)
                    .hint(hint)
                    .advice("filter-idle"),
            ),
        ));
    }
    let advice = named.is_none().then(|| {
        Mistake::new(place, format!("rule `{word}` is referred to by its title"))
            .hint("titles change: refer to it by `id` or `name`")
            .advice("reference-by-title")
    });
    Ok((Some(number), advice))
}

/// Does a rule look only at logs that the filter covers? What the filter does not say does not matter.
fn within(rule: &Logsource, filter: &Logsource) -> bool {
    let fits = |wanted: &Option<String>, has: &Option<String>| wanted.is_none() || wanted == has;
    fits(&filter.product, &rule.product)
        && fits(&filter.service, &rule.service)
        && fits(&filter.category, &rule.category)
}
