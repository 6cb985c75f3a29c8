//! The definition of an episode once more: quadratic, every window looked at anew, over all matches at once.

use std::collections::{BTreeMap, BTreeSet};

use event::{Id, MAX_EVENT_IDS};

use crate::documents::{Asks, Rule, SINGLE, Tree};
use crate::events::Seen;

/// The values of the group-by fields.
type Group = BTreeMap<String, Option<String>>;

/// A match as the definition sees it.
#[derive(Debug, Clone)]
pub(crate) struct Hit {
    pub(crate) time: i64,
    pub(crate) shown: String,
    pub(crate) id: Id,
    /// By place in the list of the correlation.
    pub(crate) rules: BTreeSet<usize>,
    /// What the correlation reads for any name, and what those above it may ask for.
    pub(crate) fields: BTreeMap<&'static str, Vec<String>>,
}

pub(crate) const NAMES: [&str; 5] = ["user", "ip", "v", "n", "who"];

/// An episode as the definition gives it and as findings are compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Settled {
    pub(crate) rule: String,
    pub(crate) group: Group,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) count: u64,
    pub(crate) time: i64,
    pub(crate) by: Id,
    pub(crate) shown: Vec<String>,
}

pub(crate) fn group_value(values: &[String]) -> Option<String> {
    match values {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(serde_json::to_string(many).unwrap()),
    }
}

/// The definition: the episodes of every correlation, those below first.
pub(crate) fn definition(rules: &[Rule], stream: &[Seen]) -> Vec<Settled> {
    let mut fired: BTreeMap<&str, Vec<(Group, Hit)>> = BTreeMap::new();
    let mut out = Vec::new();
    for rule in rules {
        let lower = |word: &str| rules.iter().find(|r| r.name == word);
        let alias = |name: &str| {
            rule.aliases
                .iter()
                .find(|(a, _)| *a == name)
                .map(|(_, f)| f)
        };
        let mut hits: Vec<Hit> = Vec::new();
        for seen in stream {
            let satisfied: BTreeSet<usize> = (0..rule.rules.len())
                .filter(|p| {
                    SINGLE
                        .iter()
                        .zip(seen.rules)
                        .any(|(s, yes)| yes && *s == rule.rules[*p])
                })
                .collect();
            if satisfied.is_empty() {
                continue;
            }
            let read = |name: &'static str| match alias(name) {
                Some(sources) => {
                    // An alias is read for each rule that the event satisfies.
                    let words: BTreeSet<&String> =
                        satisfied.iter().map(|p| &rule.rules[*p]).collect();
                    let of = sources.iter().filter(|(w, _)| words.contains(w));
                    of.flat_map(|(_, f)| seen.fields[f].clone()).collect()
                }
                None => seen.fields.get(name).cloned().unwrap_or_default(),
            };
            hits.push(Hit {
                time: seen.time,
                shown: seen.shown(),
                id: seen.id(),
                fields: NAMES.iter().map(|n| (*n, read(n))).collect(),
                rules: satisfied,
            });
        }
        for (place, word) in rule.rules.iter().enumerate() {
            let Some(below) = lower(word) else { continue };
            for (group, hit) in fired.get(word.as_str()).into_iter().flatten() {
                let read = |name: &'static str| {
                    let below_name = match alias(name) {
                        Some(sources) => sources.iter().find(|(w, _)| w == word).map(|(_, f)| *f),
                        None => Some(name),
                    };
                    match below_name {
                        None => Vec::new(),
                        Some(name) if below.group_by.contains(&name) => {
                            group[name].iter().cloned().collect()
                        }
                        Some(name) => hit.fields[name].clone(),
                    }
                };
                hits.push(Hit {
                    rules: [place].into(),
                    fields: NAMES.iter().map(|n| (*n, read(n))).collect(),
                    ..hit.clone()
                });
            }
        }
        let chained = rule.rules.iter().any(|w| lower(w).is_some());
        let mut groups: BTreeMap<Group, BTreeMap<(i64, String), Hit>> = BTreeMap::new();
        for hit in hits {
            let value = |name: &&'static str| ((*name).to_owned(), group_value(&hit.fields[name]));
            let group = rule.group_by.iter().map(value).collect();
            let hits = groups.entry(group).or_default();
            match hits.entry((hit.time, hit.shown.clone())) {
                std::collections::btree_map::Entry::Vacant(new) => drop(new.insert(hit)),
                // One event is one match, by whatever ways it comes.
                std::collections::btree_map::Entry::Occupied(mut known) => {
                    let known = known.get_mut();
                    known.rules.extend(&hit.rules);
                    for (name, values) in hit.fields {
                        known.fields.get_mut(name).unwrap().extend(values);
                    }
                }
            }
        }
        let mut all_fired = Vec::new();
        for (group, hits) in groups {
            let mut hits: Vec<Hit> = hits.into_values().collect();
            if chained {
                for hit in &mut hits {
                    for values in hit.fields.values_mut() {
                        values.sort();
                        values.dedup();
                    }
                }
            }
            let fires = |t: i64| {
                let window = hits
                    .iter()
                    .filter(|w| t - rule.timespan <= w.time && w.time <= t);
                holds(rule, &window.collect::<Vec<_>>())
            };
            let firing: Vec<&Hit> = hits.iter().filter(|h| fires(h.time)).collect();
            let mut runs: Vec<Vec<&Hit>> = Vec::new();
            for hit in &firing {
                match runs.last_mut() {
                    Some(run) if hit.time - run[run.len() - 1].time <= rule.timespan => {
                        run.push(hit)
                    }
                    _ => runs.push(vec![hit]),
                }
            }
            for run in runs {
                let (first, last) = (run[0], run[run.len() - 1]);
                let from = first.time - rule.timespan;
                let evidence = hits
                    .iter()
                    .filter(|h| from <= h.time && h.time <= last.time);
                let evidence: Vec<&Hit> = evidence.collect();
                out.push(Settled {
                    rule: rule.name.clone(),
                    group: group.clone(),
                    first: evidence[0].time,
                    last: last.time,
                    count: evidence.len() as u64,
                    time: first.time,
                    by: first.id,
                    shown: evidence
                        .iter()
                        .take(MAX_EVENT_IDS)
                        .map(|h| h.shown.clone())
                        .collect(),
                });
            }
            all_fired.extend(firing.into_iter().map(|h| (group.clone(), h.clone())));
        }
        fired.insert(&rule.name, all_fired);
    }
    // A correlation that others refer to speaks only if one of them says so.
    let silent = |name: &String| {
        let mut uppers = rules.iter().filter(|r| r.rules.contains(name)).peekable();
        uppers.peek().is_some() && !uppers.any(|u| u.generate)
    };
    out.retain(|s| !silent(&s.rule));
    out.sort();
    out
}

pub(crate) fn holds(rule: &Rule, window: &[&Hit]) -> bool {
    let limits = match &rule.asks {
        Asks::Limits(limits) => limits.clone(),
        Asks::Tree(tree) => return tree_holds(rule, tree, window),
    };
    let numbers = || -> Vec<f64> {
        let texts = window.iter().flat_map(|h| &h.fields["n"]);
        texts.filter_map(|t| t.parse().ok()).collect()
    };
    let measure = match rule.kind {
        "event_count" => window.len() as f64,
        "value_count" => {
            let mut values: BTreeSet<Vec<String>> = BTreeSet::new();
            for hit in window {
                let mut rows: Vec<Vec<String>> = vec![Vec::new()];
                for field in &rule.fields {
                    let mut longer = Vec::new();
                    for row in &rows {
                        for value in &hit.fields[field] {
                            longer.push([row.clone(), vec![value.clone()]].concat());
                        }
                    }
                    rows = longer;
                }
                values.extend(rows);
            }
            values.len() as f64
        }
        "temporal" => {
            let seen: BTreeSet<usize> = window.iter().flat_map(|h| h.rules.clone()).collect();
            if limits.is_empty() {
                return seen.len() == rule.rules.len();
            }
            seen.len() as f64
        }
        "temporal_ordered" => {
            if limits.is_empty() {
                return in_order(window, &(0..rule.rules.len()).collect::<Vec<_>>());
            }
            let sets = subsets(rule.rules.len());
            let lengths = sets.iter().filter(|s| in_order(window, s)).map(Vec::len);
            lengths.max().unwrap_or(0) as f64
        }
        _ => {
            let mut numbers = numbers();
            if numbers.is_empty() {
                return false;
            }
            numbers.sort_by(f64::total_cmp);
            let sum: f64 = numbers.iter().sum();
            let at = |percent: f64| {
                let rank = percent * (numbers.len() as f64 - 1.0) / 100.0;
                let below = numbers[rank as usize];
                let above = numbers[(rank as usize + 1).min(numbers.len() - 1)];
                let part = rank - rank.floor();
                if below == above {
                    below
                } else {
                    below * (1.0 - part) + above * part
                }
            };
            match rule.kind {
                "value_sum" => sum,
                "value_avg" => sum / numbers.len() as f64,
                "value_median" => at(50.0),
                _ => at(rule.percentile.unwrap()),
            }
        }
    };
    limits.iter().all(|(op, value)| match *op {
        "gt" => measure > *value,
        "gte" => measure >= *value,
        "lt" => measure < *value,
        "lte" => measure <= *value,
        "eq" => measure == *value,
        _ => measure != *value,
    })
}

pub(crate) fn subsets(of: usize) -> Vec<Vec<usize>> {
    let sets = 0..1_usize << of;
    sets.map(|set| (0..of).filter(|n| set >> n & 1 == 1).collect())
        .collect()
}

/// Does one match of each follow upon one of the rule before it, at the same time or later?
pub(crate) fn in_order(window: &[&Hit], rules: &[usize]) -> bool {
    let mut reached = i64::MIN;
    rules.iter().all(|rule| {
        let later = window
            .iter()
            .filter(|h| h.rules.contains(rule) && h.time >= reached);
        match later.map(|h| h.time).min() {
            Some(time) => {
                reached = time;
                true
            }
            None => false,
        }
    })
}

pub(crate) fn tree_holds(rule: &Rule, tree: &Tree, window: &[&Hit]) -> bool {
    let seen: BTreeSet<usize> = window.iter().flat_map(|h| h.rules.clone()).collect();
    if rule.kind == "temporal" {
        return tree.holds(&|n| Some(seen.contains(&n))) == Some(true);
    }
    // Some of the rules in their order; what is seen besides is neither there nor missing.
    subsets(rule.rules.len()).iter().any(|set| {
        let of = |n: usize| match (set.contains(&n), seen.contains(&n)) {
            (true, _) => Some(true),
            (false, false) => Some(false),
            (false, true) => None,
        };
        in_order(window, set) && tree.holds(&of) == Some(true)
    })
}
