//! Why a rule matches an event or does not: every line of it held against the event.
//!
//! [`Engine::explain`] evaluates what [`Engine::matches`] would skip, so it is for people who ask about one event, in
//! `rule test --explain` and on the page of an alert.

use event::Event;
use event::json::Value;

use super::look::Look;
use super::{Engine, Expression, Scratch};

/// One line of a rule held against one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The selection that the line belongs to.
    pub selection: String,
    /// The line as written: field, modifiers and values.
    pub written: String,
    /// Does the event satisfy it?
    pub held: bool,
    /// What the event has in the field; for keywords nothing.
    pub values: Vec<String>,
}

/// One rule held against one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Does the rule look at events of this source at all?
    pub covered: bool,
    /// Does its condition hold?
    pub held: bool,
    /// Its selections, and whether each holds.
    pub selections: Vec<(String, bool)>,
    /// Every line, in the order of the selections.
    pub lines: Vec<Explained>,
    /// The titles of the filters that take the match away.
    pub cut_by: Vec<String>,
}

impl Engine {
    /// Every line of a rule held against an event, or `None` if no rule has this id.
    pub fn explain(
        &self,
        rule_id: &str,
        event: &Event,
        json: Option<Value<'_>>,
    ) -> Option<Explanation> {
        let rule = self.rules.iter().find(|r| r.info.id == rule_id)?;
        let mut scratch = Scratch::new();
        let mut look = Look {
            engine: self,
            event,
            json,
            scratch: &mut scratch,
        };
        look.begin(None);
        let mut lines = Vec::new();
        for (name, expression) in &rule.selections {
            let mut predicates = Vec::new();
            collect(expression, &mut predicates);
            for number in predicates {
                let predicate = &self.predicates[number as usize];
                let values = match predicate.slot {
                    Some(slot) => {
                        let read = look.read(slot);
                        let values =
                            look.scratch.values[read.from as usize..read.to as usize].to_vec();
                        values
                            .iter()
                            .map(|v| look.scratch.written(v).to_owned())
                            .collect()
                    }
                    None => Vec::new(),
                };
                let held = look.predicate(predicate);
                lines.push(Explained {
                    selection: name.clone(),
                    written: predicate.item.written.clone(),
                    held,
                    values,
                });
            }
        }
        let selections = rule.selections.iter();
        let selections = selections
            .map(|(name, e)| (name.clone(), look.holds(e)))
            .collect();
        let cutting: Vec<u32> = rule
            .filters
            .iter()
            .copied()
            .filter(|f| look.cuts(*f))
            .collect();
        Some(Explanation {
            covered: look.scratch.cover.logsources[rule.logsource],
            held: look.holds(&rule.expression),
            selections,
            lines,
            cut_by: cutting
                .into_iter()
                .map(|f| self.filters[f as usize].title.to_string())
                .collect(),
        })
    }
}

fn collect(expression: &Expression, out: &mut Vec<u32>) {
    match expression {
        Expression::Predicate(number) => out.push(*number),
        Expression::Not(inner) => collect(inner, out),
        Expression::And(parts) | Expression::Or(parts) => {
            parts.iter().for_each(|p| collect(p, out))
        }
    }
}
