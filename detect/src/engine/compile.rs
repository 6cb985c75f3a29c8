//! From a rule set to an engine: equal lines become one predicate, and each rule gets the values that it needs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use event::path::{FieldSet, Slot};
use event::{Str, is_normalized_name};
use rustc_hash::{FxHashMap, FxHashSet};

use super::line::Line;
use super::{
    CompiledFilter, CompiledRule, Correlated, Engine, Expression, GroupField, Predicate,
    RulesByValue, Watched,
};
use crate::condition::Condition;
use crate::item::Test;
use crate::pattern::Pattern;
use crate::rule::{CorrelationRule, Selection};
use crate::rule_set::{RuleSet, Target};
use crate::tracker::Subject;

/// A value that a rule may need: where, and lower-cased what.
type Need = (Slot, Box<str>);

impl Engine {
    /// Compiles a rule set.
    pub fn new(set: &RuleSet) -> Engine {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let mut engine = Engine {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            fields: FieldSet::new(),
            normalized: Vec::new(),
            predicates: Vec::new(),
            rules: Vec::new(),
            correlations: Vec::new(),
            watched: Vec::new(),
            filters: Vec::new(),
            automations: set.automations.clone(),
            logsources: Vec::new(),
            index: Vec::new(),
            unkeyed: Vec::new(),
        };
        let mut known = FxHashMap::default();
        for (number, (rule, generates)) in set.rules.iter().zip(&set.generates).enumerate() {
            let filters = set.filtered.get(number).map_or(&[][..], Vec::as_slice);
            let selections: Vec<Expression> = rule
                .selections
                .iter()
                .map(|(_, s)| engine.selection(s, &mut known))
                .collect();
            let logsource = engine
                .logsources
                .iter()
                .position(|l| *l == rule.logsource)
                .unwrap_or_else(|| {
                    engine.logsources.push(rule.logsource.clone());
                    engine.logsources.len() - 1
                });
            let tags = rule.info.tags.iter();
            let tags: Vec<Str> = tags.map(|t| Str::from(t.as_str())).collect();
            engine.rules.push(CompiledRule {
                info: rule.info.clone(),
                line: Line::new(&rule.info, &tags),
                tags,
                logsource,
                expression: expression(&rule.condition, &selections),
                generates: *generates,
                selections: rule
                    .selections
                    .iter()
                    .map(|(name, _)| name.clone())
                    .zip(selections)
                    .collect(),
                correlations: Vec::new(),
                watched: Vec::new(),
                filters: filters.iter().map(|f| *f as u32).collect(),
            });
        }
        for filter in &set.filters {
            let parts = filter.selections.iter();
            let selections: Vec<Expression> = parts
                .map(|(_, s)| engine.selection(s, &mut known))
                .collect();
            engine.filters.push(CompiledFilter {
                id: filter.id.as_str().into(),
                title: filter.title.as_str().into(),
                cut: expression(&filter.cut, &selections),
                expires: filter.expires,
            });
        }
        let carried = crate::correlations::carried(set);
        for (number, (correlation, references)) in
            set.correlations.iter().zip(&set.references).enumerate()
        {
            let mut named = |name: &str| (Str::from(name), engine.group_field(correlation, name));
            let chained = |(target, _): &(Target, String)| matches!(target, Target::Correlation(_));
            let correlated = Correlated {
                id: correlation.info.id.as_str().into(),
                group_by: correlation.group_by.iter().map(|n| named(n)).collect(),
                fields: correlation.fields.iter().map(|n| named(n).1).collect(),
                carries: carried[number].iter().map(|n| named(n)).collect(),
                numbers: correlation.condition.has_numbers(),
                rules: correlation.condition.has_rules() || references.iter().any(chained),
            };
            engine.correlations.push(correlated);
            for (place, (target, word)) in references.iter().enumerate() {
                if let Target::Rule(rule) = target {
                    let rule = &mut engine.rules[*rule];
                    rule.correlations.push((number, place, word.clone()));
                }
            }
        }
        for (baseline, rules) in set.baselines.iter().zip(&set.watched) {
            let (group_by, fields) = match &baseline.subject {
                Subject::Metric(_) => continue,
                Subject::Rate(rate) => (&rate.group_by, None),
                Subject::New(new) => (&new.group_by, Some(&new.fields)),
            };
            rules
                .iter()
                .for_each(|rule| engine.rules[*rule].watched.push(engine.watched.len()));
            let mut named = |name: &String| (Str::from(name.as_str()), engine.fields.slot(name));
            let group_by = group_by.iter().map(&mut named).collect();
            let fields = fields.map(|fields| fields.iter().map(|name| named(name).1).collect());
            engine.watched.push(Watched {
                id: baseline.info.id.as_str().into(),
                group_by,
                fields,
            });
        }
        engine.normalized = (0..engine.fields.len())
            .map(|slot| is_normalized_name(engine.fields.name(slot)))
            .collect();
        engine.build_index();
        engine
    }

    /// What a correlation reads for a field: that field, or by an alias another one for each of its rules.
    fn group_field(&mut self, correlation: &CorrelationRule, name: &str) -> GroupField {
        match correlation.aliases.iter().find(|(a, _)| a == name) {
            Some((_, fields)) => {
                let fields = fields.iter();
                let slot =
                    |(word, field): &(String, String)| (word.clone(), self.fields.slot(field));
                GroupField::Alias(fields.map(slot).collect())
            }
            None => GroupField::Slot(self.fields.slot(name)),
        }
    }

    fn selection(
        &mut self,
        selection: &Selection,
        known: &mut FxHashMap<(Option<String>, String), u32>,
    ) -> Expression {
        match selection {
            Selection::All(parts) => {
                Expression::And(parts.iter().map(|p| self.selection(p, known)).collect())
            }
            Selection::Any(parts) => {
                Expression::Or(parts.iter().map(|p| self.selection(p, known)).collect())
            }
            Selection::Item(item) => {
                let number = *known
                    .entry((item.field.clone(), item.written.clone()))
                    .or_insert_with(|| {
                        let slot = item.field.as_ref().map(|f| self.fields.slot(f));
                        let tests = item.groups.iter().flatten();
                        let others = tests
                            .clone()
                            .filter_map(|t| {
                                if let Test::Field { other, .. } = t {
                                    Some(self.fields.slot(other))
                                } else {
                                    None
                                }
                            })
                            .collect();
                        let exact = tests
                            .map(|t| match t {
                                Test::Text {
                                    pattern: Pattern::Exact(text),
                                    cased: false,
                                } => Some(text.clone()),
                                _ => None,
                            })
                            .collect::<Option<FxHashSet<_>>>()
                            .filter(|_| slot.is_some() && (!item.all || item.groups.len() == 1));
                        // The text of an item is shared by rules; numbers compare by worth and are not in the set.
                        self.predicates.push(Predicate {
                            slot,
                            others,
                            item: item.clone(),
                            exact,
                        });
                        self.predicates.len() as u32 - 1
                    });
                Expression::Predicate(number)
            }
        }
    }

    /// For every rule the set of (slot, value) pairs of which it needs one, the rarest such set; then the index.
    fn build_index(&mut self) {
        // How often a value stands in rules tells how often it stands in events, near enough.
        let mut rules_with: FxHashMap<Need, usize> = FxHashMap::default();
        for rule in &self.rules {
            let mut pairs = FxHashSet::default();
            self.pairs(&rule.expression, &mut pairs);
            for pair in pairs {
                *rules_with.entry(pair).or_default() += 1;
            }
        }
        let mut index: BTreeMap<Slot, RulesByValue> = BTreeMap::new();
        for (number, rule) in self.rules.iter().enumerate() {
            match self.keys(&rule.expression, &rules_with) {
                Some(keys) => keys.into_iter().for_each(|(slot, value)| {
                    let rules = index.entry(slot).or_default().entry(value).or_default();
                    if rules.last() != Some(&(number as u32)) {
                        rules.push(number as u32);
                    }
                }),
                None => self.unkeyed.push(number as u32),
            }
        }
        self.index = index.into_iter().collect();
    }

    fn pairs(&self, expression: &Expression, out: &mut FxHashSet<Need>) {
        match expression {
            Expression::Predicate(p) => {
                let predicate = &self.predicates[*p as usize];
                if let (Some(slot), Some(values)) = (predicate.slot, &predicate.exact) {
                    out.extend(values.iter().map(|v| (slot, v.clone())));
                }
            }
            Expression::Not(inner) => self.pairs(inner, out),
            Expression::And(parts) | Expression::Or(parts) => {
                parts.iter().for_each(|p| self.pairs(p, out))
            }
        }
    }

    fn keys(&self, expression: &Expression, uses: &FxHashMap<Need, usize>) -> Option<Vec<Need>> {
        let cost = |keys: &Vec<Need>| {
            keys.iter()
                .map(|k| uses.get(k).copied().unwrap_or(0))
                .sum::<usize>()
        };
        match expression {
            Expression::Predicate(p) => {
                let predicate = &self.predicates[*p as usize];
                let values = predicate
                    .exact
                    .as_ref()
                    .filter(|_| !predicate.item.negated)?;
                let slot = predicate.slot?;
                let mut keys: Vec<_> = values.iter().map(|v| (slot, v.clone())).collect();
                keys.sort();
                Some(keys)
            }
            Expression::Not(_) => None,
            Expression::And(parts) => parts
                .iter()
                .filter_map(|p| self.keys(p, uses))
                .min_by_key(cost),
            Expression::Or(parts) => {
                let all = parts
                    .iter()
                    .map(|p| self.keys(p, uses))
                    .collect::<Option<Vec<_>>>()?;
                let mut all: Vec<_> = all.into_iter().flatten().collect();
                all.sort();
                all.dedup();
                Some(all).filter(|a| !a.is_empty())
            }
        }
    }
}

fn expression(condition: &Condition, selections: &[Expression]) -> Expression {
    match condition {
        Condition::Selection(number) => selections[*number].clone(),
        Condition::Not(inner) => Expression::Not(Box::new(expression(inner, selections))),
        Condition::And(parts) => {
            Expression::And(parts.iter().map(|p| expression(p, selections)).collect())
        }
        Condition::Or(parts) => {
            Expression::Or(parts.iter().map(|p| expression(p, selections)).collect())
        }
    }
}
