//! The query language of DESIGN §5.4: text in, [`Query`] out.
//!
//! [`parse`] reads what a person typed and gives a tree, or a [`QueryError`] with the byte at which it went wrong and a
//! hint. A bare name is a normalized field where the envelope has one (`action`, `src_ip`, `labels.owner`), else a field
//! of the original record (`eventName`, `userIdentity.type`); `raw.` always means the original. Everything is compared
//! without regard to case, as Sigma does. `compile` turns the tree into a search of a split, and [`Query::matches`]
//! compares it with one event by itself: the two are written apart, and a property test holds them equal.
//!
//! Words of a query that are not bound to a field look into all values of the event, word by word. This module reads no
//! clock: what `now` means is said when the query is used.

pub(crate) mod check;
mod error;
mod lexer;
pub(crate) mod matches;
mod parser;

use std::collections::BTreeSet;
use std::fmt;

use event::Time;
use ipnet::IpNet;

pub use error::{ErrorKind, QueryError};
pub use parser::parse;

/// Longer queries are refused.
pub const MAX_QUERY_BYTES: usize = 64 * 1024;
/// Queries with more tests than this are refused.
pub const MAX_CLAUSES: usize = 1_000;
/// Lists (`field:IN [a, b]`) of more values than this are refused.
pub const MAX_LIST: usize = 10_000;
/// Parentheses nested deeper than this are refused.
pub const MAX_DEPTH: usize = 32;

/// A query as a tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// Every event: `*`, `*:*` or an empty query.
    All,
    /// All of these.
    And(Vec<Query>),
    /// At least one of these.
    Or(Vec<Query>),
    /// Not this.
    Not(Box<Query>),
    /// The field has a value.
    Exists(Field),
    /// One of the field's values passes the test.
    Field(Field, Test),
    /// Somewhere in the event there are these words.
    Text(Test),
}

/// A field, by the name that people write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// The name, without `raw.`.
    pub name: String,
    /// Is it a field of the original record, rather than of the envelope?
    pub original: bool,
}

impl Field {
    /// The field that a written name means.
    pub fn named(name: &str) -> Field {
        match name.strip_prefix("raw.") {
            Some(rest) if !rest.is_empty() => Field {
                name: rest.to_owned(),
                original: true,
            },
            _ => Field {
                name: name.to_owned(),
                original: !event::is_normalized_name(name),
            },
        }
    }

    /// Does it hold sentences, so that a value is found through the words in it?
    pub fn is_words(&self) -> bool {
        !self.original && matches!(self.name.as_str(), "user_agent" | "error_message")
    }

    /// Does it hold a point in time?
    pub fn is_time(&self) -> bool {
        !self.original && matches!(self.name.as_str(), "time" | "ingest_time")
    }
}

/// What is asked of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// The same text; in free text and fields of sentences: these words in this order.
    Equals(String),
    /// The same text as one of these; not for fields of sentences, where each is a clause of its own.
    OneOf(Vec<String>),
    /// A pattern with `*` and `?`.
    Wildcard(Pattern),
    /// A regular expression over the whole value.
    Regex(Regex),
    /// An address within this network.
    Cidr(IpNet),
    /// Between two bounds.
    Range(Bound, Bound),
}

/// A pattern: literal texts, `*` for any text and `?` for any one character.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pattern(pub Vec<Part>);

/// A part of a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// This text.
    Literal(String),
    /// `?`
    One,
    /// `*`
    Any,
}

/// A regular expression, compiled, without regard to case and anchored at both ends.
#[derive(Debug, Clone)]
pub struct Regex {
    /// As written, without the slashes.
    pub text: String,
    /// Compiled.
    pub compiled: regex::Regex,
}

impl PartialEq for Regex {
    fn eq(&self, other: &Regex) -> bool {
        self.text == other.text
    }
}

/// One end of a range.
#[derive(Debug, Clone, PartialEq)]
pub enum Bound {
    /// `*`
    Open,
    /// From or to this value, itself included.
    Included(Limit),
    /// From or to this value, itself excluded.
    Excluded(Limit),
}

/// What a value of a range is compared with, and how: a value that is not of this kind is not in the range.
#[derive(Debug, Clone, PartialEq)]
pub enum Limit {
    /// As a number.
    Number(f64),
    /// As a time.
    Time(Moment),
    /// As text.
    Text(String),
}

/// A point in time, absolute or counted from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This time.
    At(Time),
    /// So many microseconds after now; before it where negative.
    FromNow(i64),
}

impl Moment {
    /// The time that is meant if it is `now`.
    pub fn resolve(self, now: Time) -> Time {
        match self {
            Moment::At(time) => time,
            Moment::FromNow(micros) => now.plus(micros),
        }
    }
}

impl Query {
    /// Does it ask about the normalized field of this name?
    pub fn asks(&self, name: &str) -> bool {
        match self {
            Query::All | Query::Text(_) => false,
            Query::And(parts) | Query::Or(parts) => parts.iter().any(|p| p.asks(name)),
            Query::Not(part) => part.asks(name),
            Query::Exists(field) | Query::Field(field, _) => !field.original && field.name == name,
        }
    }

    /// The fields that it asks about, each once, in order of name.
    pub fn fields(&self) -> BTreeSet<&Field> {
        let mut found = BTreeSet::new();
        self.add_fields(&mut found);
        found
    }

    fn add_fields<'q>(&'q self, found: &mut BTreeSet<&'q Field>) {
        match self {
            Query::All | Query::Text(_) => {}
            Query::And(parts) | Query::Or(parts) => {
                parts.iter().for_each(|part| part.add_fields(found));
            }
            Query::Not(part) => part.add_fields(found),
            Query::Exists(field) | Query::Field(field, _) => {
                found.insert(field);
            }
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, parts: &[Query], word: &str| {
            f.write_str("(")?;
            for (i, part) in parts.iter().enumerate() {
                if i > 0 {
                    write!(f, " {word} ")?;
                }
                part.fmt(f)?;
            }
            f.write_str(")")
        };
        match self {
            Query::All => f.write_str("*"),
            Query::And(parts) => list(f, parts, "AND"),
            Query::Or(parts) => list(f, parts, "OR"),
            Query::Not(part) => write!(f, "NOT {part}"),
            Query::Exists(field) => write!(f, "{field}:*"),
            Query::Field(field, test) => write!(f, "{field}:{test}"),
            Query::Text(test) => test.fmt(f),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without `raw.` these names mean something else.
        let taken = event::is_normalized_name(&self.name)
            || matches!(self.name.as_str(), "_exists_" | "_missing_");
        if self.original && taken || self.name.starts_with("raw.") {
            f.write_str("raw.")?;
        }
        for (i, c) in self.name.chars().enumerate() {
            if !lexer::is_name_char(c) || i == 0 && !c.is_alphanumeric() {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Test::Equals(text) => quoted(f, text),
            Test::OneOf(texts) => {
                f.write_str("IN [")?;
                for (i, text) in texts.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    quoted(f, text)?;
                }
                f.write_str("]")
            }
            Test::Wildcard(Pattern(parts)) => parts.iter().try_for_each(|part| match part {
                Part::One => f.write_str("?"),
                Part::Any => f.write_str("*"),
                Part::Literal(text) => text.chars().try_for_each(|c| {
                    if c.is_alphanumeric() {
                        write!(f, "{c}")
                    } else {
                        write!(f, "\\{c}")
                    }
                }),
            }),
            Test::Regex(regex) => write!(f, "/{}/", regex.text.replace('/', "\\/")),
            Test::Cidr(net) => net.fmt(f),
            Test::Range(from, to) => {
                let sign = |bound: &Bound, signs: [char; 2]| match bound {
                    Bound::Excluded(_) => signs[1],
                    _ => signs[0],
                };
                let value = |f: &mut fmt::Formatter<'_>, bound: &Bound| match bound {
                    Bound::Open => f.write_str("*"),
                    Bound::Included(limit) | Bound::Excluded(limit) => limit.fmt(f),
                };
                write!(f, "{}", sign(from, ['[', '{']))?;
                value(f, from)?;
                f.write_str(" TO ")?;
                value(f, to)?;
                write!(f, "{}", sign(to, [']', '}']))
            }
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Number(number) => number.fmt(f),
            Limit::Time(Moment::At(time)) => time.fmt(f),
            Limit::Time(Moment::FromNow(0)) => f.write_str("now"),
            Limit::Time(Moment::FromNow(micros)) => {
                write!(f, "now{:+}s", *micros as f64 / 1e6)
            }
            Limit::Text(text) => quoted(f, text),
        }
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
