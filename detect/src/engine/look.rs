//! One event held against one compiled rule set: values are read once, predicates are evaluated once.
//!
//! [`Look`] is the working side of [`super::Engine::matches`]. It finds the candidates in the index, evaluates their
//! expressions, and reads the values of a slot the first time that anybody asks: the original and the lower-cased text
//! go behind one another into two strings of the [`Scratch`], which is used again for the next event.

use std::sync::Arc;

use event::json::{Kind, Value};
use event::path::{Slot, Slots};
use event::{Event, Normalized, Str, Time};

use super::{Engine, Expression, Predicate, Read, Scratch, Text};
use crate::item::{Relation, Test, TimePart};

/// For so many sources it is remembered which rules concern them.
const MOST_SOURCES: usize = 64;

/// Which rules concern events of one source: those of other systems cost nothing.
#[derive(Debug, Default)]
pub(super) struct Cover {
    /// By logsource: do its rules look at them?
    pub(super) logsources: Vec<bool>,
    /// Rules without keys that do.
    unkeyed: Vec<u32>,
    /// The places in the engine's index at which there are rules that do.
    index: Vec<usize>,
}

impl Cover {
    fn new(engine: &Engine, source: &str) -> Cover {
        let logsources: Vec<bool> = engine.logsources.iter().map(|l| l.covers(source)).collect();
        let looks = |rule: &u32| logsources[engine.rules[*rule as usize].logsource];
        let unkeyed = engine.unkeyed.iter().copied().filter(looks);
        let index = engine.index.iter().enumerate();
        let index = index.filter(|(_, (_, rules))| rules.values().flatten().any(looks));
        Cover {
            unkeyed: unkeyed.collect(),
            index: index.map(|(at, _)| at).collect(),
            logsources,
        }
    }
}

/// One event looked at by one engine.
pub(super) struct Look<'a, 's> {
    pub(super) engine: &'a Engine,
    pub(super) event: &'a Event,
    pub(super) json: Option<Value<'a>>,
    pub(super) scratch: &'s mut Scratch,
}

impl<'a> Look<'a, '_> {
    /// Forgets the last event. `found`: what the record has at the engine's fields, where that is known.
    pub(super) fn begin(&mut self, found: Option<&mut Slots>) {
        let s = &mut *self.scratch;
        let engine = self.engine;
        if s.event >= u32::MAX / 2 - 1 || s.engine != engine.serial {
            s.engine = engine.serial;
            s.event = 0;
            s.memo = vec![0; engine.predicates.len()];
            s.offered = vec![0; engine.rules.len()];
            s.read = vec![Read::default(); engine.fields.len()];
            s.source = Str::default();
            s.cover = Arc::default();
            s.covers.clear();
        }
        s.event += 1;
        s.values.clear();
        s.original.clear();
        s.lower.clear();
        s.keywords = None;
        s.candidates.clear();
        s.matched.clear();
        s.cut.clear();
        if s.source != self.event.source || s.cover.logsources.len() != engine.logsources.len() {
            s.source = self.event.source.clone();
            if s.covers.len() >= MOST_SOURCES {
                s.covers.clear();
            }
            let cover = s.covers.entry(s.source.clone());
            s.cover = Arc::clone(cover.or_insert_with(|| Arc::new(Cover::new(engine, &s.source))));
        }
        match (self.json, found) {
            (Some(_), Some(found)) => std::mem::swap(found, &mut s.slots),
            (Some(root), None) => engine.fields.extract(root, &mut s.slots),
            (None, _) => {}
        }
    }

    pub(super) fn candidates(&mut self) {
        let engine = self.engine;
        let cover = Arc::clone(&self.scratch.cover);
        self.scratch.candidates.extend_from_slice(&cover.unkeyed);
        for (slot, rules) in cover.index.iter().map(|at| &engine.index[*at]) {
            let read = self.read(*slot);
            for at in read.from..read.to {
                let (from, to) = self.scratch.values[at as usize].lower;
                if let Some(numbers) = rules.get(&self.scratch.lower[from as usize..to as usize]) {
                    for &number in numbers {
                        let offered = &mut self.scratch.offered[number as usize];
                        if *offered != self.scratch.event {
                            *offered = self.scratch.event;
                            self.scratch.candidates.push(number);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn holds(&mut self, expression: &Expression) -> bool {
        match expression {
            Expression::Predicate(number) => {
                let event = self.scratch.event;
                let memo = self.scratch.memo[*number as usize];
                if memo >> 1 == event {
                    return memo & 1 == 1;
                }
                let engine = self.engine;
                let held = self.predicate(&engine.predicates[*number as usize]);
                self.scratch.memo[*number as usize] = event << 1 | u32::from(held);
                held
            }
            Expression::Not(inner) => !self.holds(inner),
            Expression::And(parts) => parts.iter().all(|p| self.holds(p)),
            Expression::Or(parts) => parts.iter().any(|p| self.holds(p)),
        }
    }

    /// Does one of a rule's filters take this match away? All of them are asked, so that each is counted.
    pub(super) fn is_cut(&mut self, rule: u32, filters: &[u32]) -> bool {
        let before = self.scratch.cut.len();
        for &number in filters {
            if self.cuts(number) {
                self.scratch.cut.push((number, rule));
            }
        }
        self.scratch.cut.len() > before
    }

    /// Does a filter fit the event, and is it still in force at the event's time?
    pub(super) fn cuts(&mut self, filter: u32) -> bool {
        let filter = &self.engine.filters[filter as usize];
        filter.expires.is_none_or(|end| self.event.time < end) && self.holds(&filter.cut)
    }

    pub(super) fn predicate(&mut self, predicate: &Predicate) -> bool {
        let item = &predicate.item;
        let read = match predicate.slot {
            Some(slot) => self.read(slot),
            None => self.read_keywords(),
        };
        let others: Vec<Read> = predicate
            .others
            .iter()
            .map(|slot| self.read(*slot))
            .collect();
        let s = &*self.scratch;
        let values = &s.values[read.from as usize..read.to as usize];
        if let Some(exact) = &predicate.exact {
            let found = values.iter().any(|v| exact.contains(s.lowered(v)));
            return found != item.negated;
        }
        let mut other = others.iter();
        let mut group = |tests: &Vec<Test>| {
            tests.iter().any(|test| match test {
                Test::Field {
                    relation, cased, ..
                } => {
                    let Some(read) = other.next() else {
                        return false;
                    };
                    let theirs = &s.values[read.from as usize..read.to as usize];
                    let text =
                        |v: &Text| if *cased { s.written(v) } else { s.lowered(v) }.to_owned();
                    values.iter().any(|a| {
                        theirs
                            .iter()
                            .any(|b| related(*relation, &text(a), &text(b)))
                    })
                }
                Test::Null => values.is_empty(),
                Test::Exists(wanted) => read.present == *wanted,
                test => values.iter().any(|v| s.value(test, v)),
            })
        };
        let held = if item.all {
            item.groups.iter().all(&mut group)
        } else {
            item.groups.iter().any(&mut group)
        };
        held != item.negated
    }

    /// The values at a slot; where the record has nothing the envelope stands in.
    pub(super) fn read(&mut self, slot: Slot) -> Read {
        let event = self.scratch.event;
        if self.scratch.read[slot].event == event {
            return self.scratch.read[slot];
        }
        let from = self.scratch.values.len() as u32;
        let mut present = false;
        if let Some(root) = self.json {
            present = !self.scratch.slots.is_absent(slot);
            if present {
                let s = &mut *self.scratch;
                for index in s.slots.all(slot) {
                    add_value(
                        &mut s.values,
                        &mut s.original,
                        &mut s.lower,
                        root.with_index(index),
                    );
                }
            }
        }
        if !present && self.engine.normalized[slot] {
            let s = &mut *self.scratch;
            match self.event.normalized(self.engine.fields.name(slot)) {
                Normalized::Absent => {}
                Normalized::Text(text) => {
                    present = true;
                    let number = text.parse::<f64>().is_ok();
                    add_text(&mut s.values, &mut s.original, &mut s.lower, &text, number);
                }
                Normalized::List(texts) => {
                    present = true;
                    texts.iter().for_each(|t| {
                        add_text(&mut s.values, &mut s.original, &mut s.lower, t, false)
                    });
                }
            }
        }
        let read = Read {
            event,
            from,
            to: self.scratch.values.len() as u32,
            present,
        };
        self.scratch.read[slot] = read;
        read
    }

    /// Every value of the record, or the whole record where it is no JSON.
    fn read_keywords(&mut self) -> Read {
        let s = &mut *self.scratch;
        let (from, to) = *s.keywords.get_or_insert_with(|| {
            let from = s.values.len();
            match self.json {
                Some(root) => root
                    .leaves()
                    .for_each(|v| add_value(&mut s.values, &mut s.original, &mut s.lower, v)),
                None => add_text(
                    &mut s.values,
                    &mut s.original,
                    &mut s.lower,
                    &String::from_utf8_lossy(&self.event.raw),
                    false,
                ),
            }
            (from, s.values.len())
        });
        Read {
            event: s.event,
            from: from as u32,
            to: to as u32,
            present: true,
        }
    }

    /// The values of these slots as they are written.
    pub(super) fn texts(&mut self, slots: &[Slot]) -> Vec<Str> {
        let mut texts: Vec<Str> = Vec::new();
        for slot in slots {
            let read = self.read(*slot);
            let s = &*self.scratch;
            texts.extend(
                s.values[read.from as usize..read.to as usize]
                    .iter()
                    .map(|v| Str::from(s.written(v))),
            );
        }
        texts
    }
}

impl Scratch {
    fn lowered(&self, value: &Text) -> &str {
        &self.lower[value.lower.0 as usize..value.lower.1 as usize]
    }

    pub(super) fn written(&self, value: &Text) -> &str {
        &self.original[value.original.0 as usize..value.original.1 as usize]
    }

    fn value(&self, test: &Test, value: &Text) -> bool {
        let number = || {
            self.written(value)
                .trim()
                .parse::<f64>()
                .ok()
                .filter(|n| n.is_finite())
        };
        match test {
            Test::Text {
                pattern,
                cased: true,
            } => pattern.matches(self.written(value)),
            Test::Text {
                pattern,
                cased: false,
            } => pattern.matches(self.lowered(value)),
            Test::Number(text, wanted) => {
                self.written(value) == &**text || (value.number && number() == Some(*wanted))
            }
            Test::Regex(regex) => regex.is_match(self.written(value)),
            Test::Compare(op, wanted) => number().is_some_and(|n| op.holds(n, *wanted)),
            Test::Time(part, op, wanted) => {
                time_part(*part, self.written(value)).is_some_and(|n| op.holds(n, *wanted))
            }
            Test::Cidr(net) => Test::in_network(net, self.written(value)),
            Test::Null | Test::Exists(_) | Test::Field { .. } => false,
        }
    }
}

fn related(relation: Relation, a: &str, b: &str) -> bool {
    match relation {
        Relation::Equal => a == b,
        Relation::Contains => a.contains(b),
        Relation::StartsWith => a.starts_with(b),
        Relation::EndsWith => a.ends_with(b),
    }
}

fn time_part(part: TimePart, text: &str) -> Option<f64> {
    use chrono::{Datelike, Timelike};
    let time = Time::parse(text)
        .ok()
        .or_else(|| text.parse().ok().and_then(Time::from_epoch))?
        .to_chrono();
    Some(match part {
        TimePart::Minute => time.minute().into(),
        TimePart::Hour => time.hour().into(),
        TimePart::Day => time.day().into(),
        TimePart::Week => time.iso_week().week().into(),
        TimePart::Month => time.month().into(),
        TimePart::Year => time.year().into(),
    })
}

fn add_value(values: &mut Vec<Text>, original: &mut String, lower: &mut String, value: Value<'_>) {
    match value.kind() {
        Kind::Null => {}
        Kind::Object | Kind::Array => {
            add_text(values, original, lower, &compact(value.raw()), false)
        }
        kind => {
            if let Some(text) = value.text() {
                add_text(values, original, lower, &text, kind == Kind::Number);
            }
        }
    }
}

fn add_text(
    values: &mut Vec<Text>,
    original: &mut String,
    lower: &mut String,
    text: &str,
    number: bool,
) {
    let places = (original.len() as u32, lower.len() as u32);
    original.push_str(text);
    if text.is_ascii() {
        lower.push_str(text);
        lower[places.1 as usize..].make_ascii_lowercase();
    } else {
        lower.extend(text.chars().flat_map(char::to_lowercase));
    }
    values.push(Text {
        original: (places.0, original.len() as u32),
        lower: (places.1, lower.len() as u32),
        number,
    });
}

/// JSON without white space between its parts: how an object is compared with a text.
fn compact(raw: &[u8]) -> String {
    let mut out = Vec::with_capacity(raw.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in raw {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    String::from_utf8_lossy(&out).into_owned()
}
