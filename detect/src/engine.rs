//! A rule set compiled for speed: which rules match this event?
//!
//! Equal lines of different rules become one predicate that is evaluated at most once per event. All fields
//! that any rule names are found in one walk over the record. A rule is looked at only if the event has one
//! of the values that the rule cannot do without (its *keys*: the rarest set of exact values, mostly of
//! `eventName`); the few rules without keys are looked at always. [`Engine::matches`] is a pure function of
//! event and rule set; the [`Scratch`] only spares allocations.

mod compile;
mod explain;
mod line;
mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use event::json::Value;
use event::path::{FieldSet, Slot, Slots};
use event::{Event, Finding, Flag, RuleInfo, Str, Time};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::automation::{self, Automation, Origin};
use crate::item::Item;
use crate::meter::{Cell, Counted, Group, MINUTE, Reading};
use crate::rule::Logsource;
use crate::tracker::{Sighting, Sightings, known_as};
use crate::window::{Contribution, contributed, group_value};
use line::Line;
use look::{Cover, Look};

pub use explain::{Explained, Explanation};

/// The rules that need a value, by the lower-cased value.
type RulesByValue = FxHashMap<Box<str>, Vec<u32>>;

/// A compiled rule set.
#[derive(Debug)]
pub struct Engine {
    /// Tells this engine from every other of the process, so that no [`Scratch`] takes what it knows from one to another.
    serial: u64,
    fields: FieldSet,
    /// Per slot: may the envelope stand in where the record has nothing?
    normalized: Vec<bool>,
    predicates: Vec<Predicate>,
    rules: Vec<CompiledRule>,
    correlations: Vec<Correlated>,
    watched: Vec<Watched>,
    filters: Vec<CompiledFilter>,
    automations: Vec<Automation>,
    logsources: Vec<Logsource>,
    /// Per indexed slot: lower-cased value to rules.
    index: Vec<(Slot, RulesByValue)>,
    /// Rules without keys.
    unkeyed: Vec<u32>,
}

#[derive(Debug)]
struct CompiledRule {
    info: RuleInfo,
    tags: Vec<Str>,
    line: Line,
    logsource: usize,
    expression: Expression,
    generates: bool,
    /// The selections by name, for explanations.
    selections: Vec<(String, Expression)>,
    /// The correlations that refer to it, at which place of their list, and with which word.
    correlations: Vec<(usize, usize, String)>,
    /// The baselines that watch its events.
    watched: Vec<usize>,
    /// The filters that cut into it.
    filters: Vec<u32>,
}

/// A baseline that watches events of rules.
#[derive(Debug)]
struct Watched {
    id: Str,
    group_by: Vec<(Str, Slot)>,
    /// The fields whose values it watches; `None` if it counts.
    fields: Option<Vec<Slot>>,
}

#[derive(Debug)]
struct CompiledFilter {
    id: Str,
    title: Str,
    cut: Expression,
    expires: Option<Time>,
}

#[derive(Debug)]
struct Correlated {
    id: Str,
    /// Group-by name; the slots to read for it per word of a referred rule, or one for all.
    group_by: Vec<(Str, GroupField)>,
    /// What is measured of a match.
    fields: Vec<GroupField>,
    numbers: bool,
    /// Does it matter which rules a match satisfies?
    rules: bool,
    /// What correlations above ask for.
    carries: Vec<(Str, GroupField)>,
}

#[derive(Debug)]
enum GroupField {
    Slot(Slot),
    Alias(Vec<(String, Slot)>),
}

#[derive(Debug, Clone)]
enum Expression {
    Predicate(u32),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

#[derive(Debug)]
struct Predicate {
    slot: Option<Slot>,
    /// For `fieldref`: the other field of each test, in order of appearance.
    others: Vec<Slot>,
    item: Item,
    /// Where all tests are equality without case: the values.
    exact: Option<FxHashSet<Box<str>>>,
}

/// A match of a rule that a correlation counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorrelationMatch {
    /// The correlation's number in the rule set.
    pub correlation: usize,
    /// The group-by values of this event.
    pub group: BTreeMap<Str, Option<Str>>,
    /// What it contributes to what the correlation measures.
    pub contribution: Contribution,
}

/// Working memory for [`Engine::matches`], used again for every event; one per thread.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The engine that it was used with last.
    engine: u64,
    slots: Slots,
    /// Per slot: where its values are in `values`, once it was read for this event.
    read: Vec<Read>,
    values: Vec<Text>,
    original: String,
    lower: String,
    keywords: Option<(usize, usize)>,
    /// Per predicate: twice the number of the event, plus one if it held.
    memo: Vec<u32>,
    /// Per rule: the event for which it was a candidate last.
    offered: Vec<u32>,
    event: u32,
    candidates: Vec<u32>,
    matched: Vec<u32>,
    /// What filters took away from this event: the filter and the rule.
    cut: Vec<(u32, u32)>,
    /// The source of the last event, and what concerns it.
    source: Str,
    cover: Arc<Cover>,
    covers: FxHashMap<Str, Arc<Cover>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Read {
    event: u32,
    from: u32,
    to: u32,
    present: bool,
}

/// Places of one value in the two texts of the scratch.
#[derive(Debug, Clone, Copy)]
struct Text {
    original: (u32, u32),
    lower: (u32, u32),
    number: bool,
}

impl Engine {
    /// How many single-event rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Is there no rule?
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What people read about the rule with this number.
    pub fn info(&self, rule: u32) -> &RuleInfo {
        &self.rules[rule as usize].info
    }

    /// Do matches of this rule give findings of their own?
    pub fn generates(&self, rule: u32) -> bool {
        self.rules[rule as usize].generates
    }

    /// The id of the filter with this number.
    pub fn filter_id(&self, filter: u32) -> &Str {
        &self.filters[filter as usize].id
    }

    /// The title of the filter with this number.
    pub fn filter_title(&self, filter: u32) -> &Str {
        &self.filters[filter as usize].title
    }

    /// The id of the correlation with this number.
    pub fn correlation_id(&self, correlation: usize) -> &Str {
        &self.correlations[correlation].id
    }

    /// The finding of a rule that matched an event.
    pub fn finding(&self, rule: u32, event: &Event) -> Finding {
        let rule = &self.rules[rule as usize];
        let id = Finding::event_id(&rule.info.id, event.id);
        let mut finding = Finding {
            id,
            episode: id,
            rule_id: rule.info.id.as_str().into(),
            title: rule.info.title.as_str().into(),
            severity: rule.info.severity,
            staged: rule.info.staged,
            tags: rule.tags.clone(),
            ..Finding::from_event(event)
        };
        automation::judge(&self.automations, event, &mut finding);
        finding
    }

    /// The numbers of the rules that match an event and that no filter cuts, ascending. `json` is the original record where it is JSON.
    pub fn matches<'s>(
        &self,
        event: &Event,
        json: Option<Value<'_>>,
        scratch: &'s mut Scratch,
    ) -> &'s [u32] {
        self.matched(event, json, None, scratch)
    }

    /// [`Engine::matches`] for who has walked over the record already: `found` is what it has at [`Engine::fields`], under
    /// their slots. It is taken, and what is there afterwards is of no use.
    pub fn matches_found<'s>(
        &self,
        event: &Event,
        json: Option<Value<'_>>,
        found: &mut Slots,
        scratch: &'s mut Scratch,
    ) -> &'s [u32] {
        self.matched(event, json, Some(found), scratch)
    }

    /// Does any rule look at more of the envelope than what every event has from the start: source and time?
    pub fn reads_envelope(&self) -> bool {
        self.normalized.contains(&true)
    }

    /// The fields that rules name.
    pub fn fields(&self) -> &FieldSet {
        &self.fields
    }

    fn matched<'s>(
        &self,
        event: &Event,
        json: Option<Value<'_>>,
        found: Option<&mut Slots>,
        scratch: &'s mut Scratch,
    ) -> &'s [u32] {
        let mut look = Look {
            engine: self,
            event,
            json,
            scratch,
        };
        look.begin(found);
        look.candidates();
        look.scratch.candidates.sort_unstable();
        let candidates = std::mem::take(&mut look.scratch.candidates);
        for &number in &candidates {
            let rule = &self.rules[number as usize];
            if look.scratch.cover.logsources[rule.logsource]
                && look.holds(&rule.expression)
                && !look.is_cut(number, &rule.filters)
            {
                look.scratch.matched.push(number);
            }
        }
        scratch.candidates = candidates;
        &scratch.matched
    }

    /// What correlations count of the event that [`Engine::matches`] was last asked about with this scratch: one
    /// match per correlation, however many of its rules matched.
    pub fn correlation_matches(
        &self,
        event: &Event,
        json: Option<Value<'_>>,
        scratch: &mut Scratch,
    ) -> Vec<CorrelationMatch> {
        if self.is_automation(event) {
            return Vec::new();
        }
        let matched = std::mem::take(&mut scratch.matched);
        let mut words: BTreeMap<usize, (u64, Vec<&str>)> = BTreeMap::new();
        for rule in &matched {
            for (correlation, place, word) in &self.rules[*rule as usize].correlations {
                let (rules, words) = words.entry(*correlation).or_default();
                // Where rules matter there are no more than 64, but for those that only tell matches apart.
                *rules |= 1 << (*place).min(63);
                words.push(word);
            }
        }
        let mut look = Look {
            engine: self,
            event,
            json,
            scratch,
        };
        let matches = words.into_iter().map(|(correlation, (rules, words))| {
            let correlated = &self.correlations[correlation];
            let mut texts = |field: &GroupField| {
                let slots: Vec<Slot> = match field {
                    GroupField::Slot(slot) => vec![*slot],
                    GroupField::Alias(fields) => fields
                        .iter()
                        .filter(|(w, _)| words.contains(&w.as_str()))
                        .map(|(_, s)| *s)
                        .collect(),
                };
                look.texts(&slots)
            };
            let group = correlated.group_by.iter();
            let group = group.map(|(name, f)| (name.clone(), group_value(texts(f))));
            let group = group.collect();
            let fields: Vec<Vec<Str>> = correlated.fields.iter().map(&mut texts).collect();
            let carried = correlated.carries.iter();
            let carried = carried.map(|(name, field)| (name.clone(), texts(field)));
            let (values, cut) = contributed(&fields, correlated.numbers);
            CorrelationMatch {
                correlation,
                group,
                contribution: Contribution {
                    carried: carried.collect(),
                    values,
                    cut,
                    rules: if correlated.rules { rules } else { 0 },
                },
            }
        });
        let matches = matches.collect();
        scratch.matched = matched;
        matches
    }

    /// What baselines count and watch of the event that [`Engine::matches`] was last asked about with this scratch, but
    /// for values that were `told` already. An event without one of the values that are watched says nothing of them.
    pub fn readings(
        &self,
        event: &Event,
        json: Option<Value<'_>>,
        scratch: &mut Scratch,
        told: &mut Sightings,
    ) -> Vec<Reading> {
        if !self.is_watched(scratch.matched())
            || event.flags.has(Flag::TsFuture)
            || self.is_automation(event)
        {
            return Vec::new();
        }
        let matched = std::mem::take(&mut scratch.matched);
        let watching = matched
            .iter()
            .flat_map(|r| self.rules[*r as usize].watched.iter().copied());
        let watching: BTreeSet<usize> = watching.collect();
        let mut look = Look {
            engine: self,
            event,
            json,
            scratch,
        };
        let readings = watching.into_iter().filter_map(|number| {
            let watched = &self.watched[number];
            let group = watched.group_by.iter();
            let group = group.map(|(name, slot)| (name.clone(), group_value(look.texts(&[*slot]))));
            let group: BTreeMap<Str, Option<Str>> = group.collect();
            let rule = watched.id.clone();
            let Some(fields) = &watched.fields else {
                // An amendment says what is already known once more.
                return (!event.flags.has(Flag::Addendum)).then(|| Reading::Count {
                    counted: Counted::Group(Group {
                        rule,
                        values: group,
                    }),
                    minute: event.time.0.div_euclid(MINUTE),
                    region: Str::default(),
                    labels: BTreeMap::new(),
                    cell: Cell {
                        matches: 1,
                        ..Cell::default()
                    },
                });
            };
            let values = fields.iter().map(|slot| {
                let texts = look.texts(&[*slot]);
                texts
                    .first()
                    .filter(|text| !text.is_empty())
                    .map(|text| known_as(text))
            });
            let values = values.collect::<Option<Vec<Str>>>()?;
            // What belongs to nobody has no habits.
            let is_news = group.values().all(Option::is_some)
                && told.is_news(&rule, &group, &values, (event.time, event.id));
            is_news.then(|| {
                Reading::Sighting(Box::new(Sighting {
                    rule,
                    group,
                    values,
                    context: Finding::from_event(event),
                }))
            })
        });
        let readings = readings.collect();
        scratch.matched = matched;
        readings
    }

    /// Is it automation from where it is expected?
    fn is_automation(&self, event: &Event) -> bool {
        let recognised = automation::recognised(&self.automations, event);
        recognised.is_some_and(|(_, origin)| origin == Origin::Expected)
    }

    /// Does any baseline watch one of these rules?
    fn is_watched(&self, matched: &[u32]) -> bool {
        !self.watched.is_empty()
            && matched
                .iter()
                .any(|r| !self.rules[*r as usize].watched.is_empty())
    }

    /// Does any correlation refer to one of these rules?
    pub fn is_correlated(&self, matched: &[u32]) -> bool {
        matched
            .iter()
            .any(|r| !self.rules[*r as usize].correlations.is_empty())
    }
}

impl Scratch {
    /// Empty working memory.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// What the record had at fields when [`Engine::matches_found`] was last asked: what that took.
    pub fn found(&self) -> &Slots {
        &self.slots
    }

    /// The rules that matched when [`Engine::matches`] was last asked.
    pub fn matched(&self) -> &[u32] {
        &self.matched
    }

    /// What filters took away when [`Engine::matches`] was last asked: each filter with the rule that would have matched.
    pub fn cut(&self) -> &[(u32, u32)] {
        &self.cut
    }
}
