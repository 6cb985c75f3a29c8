//! The correlations and baselines of a rule set as those need them who run them.

use std::sync::Arc;

use detect::rule_set::RuleSet;
use detect::tracker::Baseline;
use detect::window::Correlation;
use event::{Id, Str};

/// The correlations of a rule set, in its order.
pub(crate) fn of(set: &RuleSet) -> Vec<Correlation> {
    let correlations = set.correlations.iter().zip(&set.references);
    correlations
        .map(|(rule, references)| {
            // What decides which events match: the referred rules as they are written, and the aliases.
            let mut parts: Vec<String> = references
                .iter()
                .map(|(n, word)| format!("{word} {}", set.rules[*n].semantics()))
                .collect();
            parts.push(format!("{:?}", rule.aliases));
            let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
            Correlation {
                rule_id: rule.info.id.as_str().into(),
                title: rule.info.title.as_str().into(),
                severity: rule.info.severity,
                tags: rule
                    .info
                    .tags
                    .iter()
                    .map(|t| Str::from(t.as_str()))
                    .collect(),
                group_by: rule
                    .group_by
                    .iter()
                    .map(|f| Str::from(f.as_str()))
                    .collect(),
                timespan: rule.timespan,
                threshold: rule.at_least,
                semantics: Id::of("semantics", &parts).0 as u64,
            }
        })
        .collect()
}

/// The baselines of a rule set, in its order.
pub(crate) fn baselines(set: &RuleSet) -> Arc<[Baseline]> {
    set.baselines
        .iter()
        .map(|rule| Baseline {
            rule_id: rule.info.id.as_str().into(),
            title: rule.info.title.as_str().into(),
            severity: rule.info.severity,
            tags: rule
                .info
                .tags
                .iter()
                .map(|t| Str::from(t.as_str()))
                .collect(),
            metric: rule.metric,
            params: rule.params,
        })
        .collect()
}
