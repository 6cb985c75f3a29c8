//! The correlations and baselines of a rule set as those need them who run them.

use std::sync::Arc;

use detect::rule_set::RuleSet;
use detect::tracker::Baseline;
use event::Str;

pub(crate) use detect::correlations::of;

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
            staged: rule.info.staged,
            subject: rule.subject.clone(),
        })
        .collect()
}
