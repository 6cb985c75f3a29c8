//! A query compared with one event, without an index.
//!
//! [`Query::matches`] is what a query means: a linear scan gives the same answer as the index does, and a property test
//! holds them to it. It is also used in earnest, for events that exceed the bounds of the index. [`Subject`] is the event
//! or finding that is looked at. Fields are looked up by walking the record along the path, where the index lists all
//! paths: the two are written apart on purpose.

use std::borrow::Cow;

use event::json::{self, Kind, Value};
use event::{Event, Normalized, Time};

use super::check::{Check, is_about_words};
use super::{Bound, Field, Query, Test};
use crate::text::{fold, has_phrase, key_into, words};

const NOT_FREE: [&str; 5] = ["outcome", "integrity", "late", "mfa", "flags"];
const FREE_NESTED: [&str; 4] = [
    "invocation.status",
    "invocation.error_type",
    "origin.object",
    "origin.sha256",
];
const NOT_FREE_NESTED: [&str; 7] = [
    "invocation.duration_ms",
    "invocation.billed_ms",
    "invocation.memory_mb",
    "invocation.memory_used_mb",
    "invocation.init_ms",
    "invocation.cold_start",
    "origin.position",
];

/// What a query is compared with.
pub(crate) struct Subject<'a> {
    event: Option<&'a Event>,
    text: &'a [u8],
    doc: Option<json::Doc>,
}

impl<'a> Subject<'a> {
    /// An event.
    pub(crate) fn event(event: &'a Event) -> Subject<'a> {
        Subject {
            event: Some(event),
            text: &event.raw,
            doc: json::Doc::parse(&event.raw).ok(),
        }
    }

    /// A finding as JSON; all its fields are normalized ones.
    pub(crate) fn finding(text: &'a [u8]) -> Subject<'a> {
        Subject {
            event: None,
            text,
            doc: json::Doc::parse(text).ok(),
        }
    }

    fn root(&self) -> Option<Value<'_>> {
        self.doc.as_ref().map(|doc| doc.root(self.text))
    }

    /// The folded values of a field, and whether it is there at all.
    pub(crate) fn values(&self, field: &Field) -> (Vec<String>, bool) {
        let mut found = Vec::new();
        match self.event {
            Some(event) if !field.original => match event.normalized(&field.name) {
                Normalized::Absent => {}
                Normalized::Text(text) => found.push(fold(&text)),
                Normalized::List(texts) => found.extend(texts.iter().map(|t| fold(t))),
            },
            _ => match self.root() {
                Some(root) => {
                    let exists = descend(root, Some(&field.name), &mut found);
                    return (found, exists);
                }
                None if field.name == "raw" => {
                    found.push(fold(&String::from_utf8_lossy(self.text)))
                }
                None => {}
            },
        }
        let exists = !found.is_empty();
        (found, exists)
    }

    /// The values of all fields as they are written; with `free` only those that free text looks into.
    pub(crate) fn texts(&self, free: bool) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(event) = self.event {
            let mut names: Vec<String> = Event::NAMES.iter().map(|n| (*n).to_owned()).collect();
            names.extend(event.labels.keys().map(|l| format!("labels.{l}")));
            names.extend(FREE_NESTED.map(str::to_owned));
            if free {
                names.retain(|n| !NOT_FREE.contains(&n.as_str()));
            } else {
                names.extend(NOT_FREE_NESTED.map(str::to_owned));
            }
            for name in names.iter().filter(|n| *n != "time" && *n != "ingest_time") {
                match event.normalized(name) {
                    Normalized::Absent => {}
                    Normalized::Text(text) => found.push(text.into_owned()),
                    Normalized::List(texts) => found.extend(texts.into_iter().map(Cow::into_owned)),
                }
            }
        }
        match self.root() {
            Some(root) => found.extend(
                root.leaves()
                    .filter(|leaf| match leaf.kind() {
                        Kind::String | Kind::Number => true,
                        Kind::True | Kind::False => !free,
                        _ => false,
                    })
                    .filter_map(|leaf| leaf.text().map(Cow::into_owned)),
            ),
            None => found.push(String::from_utf8_lossy(self.text).into_owned()),
        }
        found
    }

    /// Calls `each` with the name, whether that is one of the original, and the value of every field, as it is written.
    pub(crate) fn each_value(&self, each: &mut dyn FnMut(&str, bool, &str)) {
        if let Some(event) = self.event {
            let labels: Vec<String> = event.labels.keys().map(|l| format!("labels.{l}")).collect();
            let names = Event::NAMES.iter().copied();
            let nested = FREE_NESTED.iter().chain(&NOT_FREE_NESTED).copied();
            for name in names.chain(nested).chain(labels.iter().map(String::as_str)) {
                match event.normalized(name) {
                    Normalized::Absent => {}
                    Normalized::Text(text) => each(name, false, &text),
                    Normalized::List(texts) => texts.iter().for_each(|t| each(name, false, t)),
                }
            }
        }
        match self.root() {
            Some(root) => leaves(root, &mut String::new(), &mut |path, value| {
                each(path, self.event.is_some(), value);
            }),
            None => each("raw", true, &String::from_utf8_lossy(self.text)),
        }
    }

    fn all_values(&self, free: bool) -> Vec<String> {
        self.texts(free).iter().map(|text| fold(text)).collect()
    }

    fn time(&self, name: &str) -> Option<Time> {
        let event = self.event?;
        Some(if name == "time" {
            event.time
        } else {
            event.ingest_time
        })
    }
}

/// Calls `each` with the path and text of every value below `value`; an array stands for its elements.
fn leaves(value: Value<'_>, path: &mut String, each: &mut dyn FnMut(&str, &str)) {
    match value.kind() {
        Kind::Null => {}
        Kind::Array => value.children().for_each(|child| leaves(child, path, each)),
        Kind::Object => {
            let length = path.len();
            for child in value.children() {
                if length > 0 {
                    path.push('.');
                }
                key_into(&child.key().unwrap_or_default(), path);
                leaves(child, path, each);
                path.truncate(length);
            }
        }
        _ => each(path, &value.text().unwrap_or_default()),
    }
}

/// Collects the values at the end of `path` below `value`; tells whether there is anything but `null`.
fn descend(value: Value<'_>, path: Option<&str>, found: &mut Vec<String>) -> bool {
    match (value.kind(), path) {
        (Kind::Null, _) => false,
        (Kind::Array, _) => {
            let mut any = false;
            for child in value.children() {
                any |= descend(child, path, found);
            }
            any
        }
        (Kind::Object, None) => value
            .leaves()
            .any(|leaf| !matches!(leaf.kind(), Kind::Null | Kind::Object | Kind::Array)),
        (Kind::Object, Some(path)) => value.children().fold(false, |any, child| {
            let mut key = String::new();
            key_into(&child.key().unwrap_or_default(), &mut key);
            let rest = path.strip_prefix(key.as_str());
            let hit = match rest {
                Some("") => descend(child, None, found),
                Some(rest) => match rest.strip_prefix('.') {
                    Some(rest) => descend(child, Some(rest), found),
                    None => false,
                },
                None => false,
            };
            hit || any
        }),
        (_, None) => {
            found.extend(value.text().map(|t| fold(&t)));
            true
        }
        (_, Some(_)) => false,
    }
}

impl Query {
    /// Does the event match, if it is `now`?
    pub fn matches(&self, event: &Event, now: Time) -> bool {
        self.matches_subject(&Subject::event(event), now)
    }

    pub(crate) fn matches_subject(&self, subject: &Subject<'_>, now: Time) -> bool {
        match self {
            Query::All => true,
            Query::And(parts) => parts.iter().all(|p| p.matches_subject(subject, now)),
            Query::Or(parts) => parts.iter().any(|p| p.matches_subject(subject, now)),
            Query::Not(part) => !part.matches_subject(subject, now),
            Query::Exists(field) => {
                field.is_time() && subject.event.is_some() || subject.values(field).1
            }
            Query::Field(field, Test::Range(from, to))
                if field.is_time() && subject.event.is_some() =>
            {
                subject
                    .time(&field.name)
                    .is_some_and(|time| within(time, from, to, now))
            }
            Query::Field(field, test) => {
                let check = Check::value(test, field.is_words(), now);
                subject.values(field).0.iter().any(|v| check.passes(v))
            }
            Query::Text(test) => free_text(test, subject, now),
        }
    }
}

fn free_text(test: &Test, subject: &Subject<'_>, now: Time) -> bool {
    let check = Check::value(test, false, now);
    if let Check::Equal(text) = &check {
        let phrase: Vec<&str> = words(text).collect();
        return subject
            .all_values(true)
            .iter()
            .any(|v| has_phrase(v, &phrase));
    }
    if is_about_words(test) {
        let values = subject.all_values(true);
        return values.iter().any(|v| words(v).any(|w| check.passes(w)));
    }
    subject.all_values(false).iter().any(|v| check.passes(v))
}

/// The first and the last microsecond within two bounds of a time field.
pub(crate) fn micros(from: &Bound, to: &Bound, now: Time) -> (i64, i64) {
    use super::Limit;
    let at = |limit: &Limit| match limit {
        Limit::Time(moment) => Some(moment.resolve(now).0),
        _ => None,
    };
    let low = match from {
        Bound::Open => Some(i64::MIN),
        Bound::Included(limit) => at(limit),
        Bound::Excluded(limit) => at(limit).map(|t| t.saturating_add(1)),
    };
    let high = match to {
        Bound::Open => Some(i64::MAX),
        Bound::Included(limit) => at(limit),
        Bound::Excluded(limit) => at(limit).map(|t| t.saturating_sub(1)),
    };
    // Bounds that are no times hold nothing.
    low.zip(high).unwrap_or((i64::MAX, i64::MIN))
}

fn within(time: Time, from: &Bound, to: &Bound, now: Time) -> bool {
    let (low, high) = micros(from, to, now);
    (low..=high).contains(&time.0)
}
