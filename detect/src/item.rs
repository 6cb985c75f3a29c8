//! One line of a selection: a field, its modifiers and its values, made into tests.
//!
//! `parse` applies the modifiers of Sigma 2.1 in the order in which they are written (`modifier`) and gives an
//! [`Item`]: groups of [`Test`]s on one field. What a modifier cannot be applied to is a mistake with its
//! place. The engine evaluates tests; nothing here looks at events.

mod modifier;
mod pcre;

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

use crate::error::Mistake;
use crate::pattern::{Pattern, SIZE_LIMIT, Text};
use crate::yaml::{Node, Place, Yaml};
use modifier::{Mode, State, Value};

/// Lists that `|expand` puts in place of `%name%`, by name.
pub type Placeholders = HashMap<String, Vec<String>>;

/// A field and what is demanded of it.
#[derive(Debug, Clone)]
pub struct Item {
    /// The field's path; `None` for keywords, which are searched in every value.
    pub field: Option<String>,
    /// One group per value of the rule; within a group any test suffices.
    pub groups: Vec<Vec<Test>>,
    /// Must every group hold (modifier `all`), or any?
    pub all: bool,
    /// Is the result turned round (modifier `neq`)?
    pub negated: bool,
    /// The line as written, with which equal items of different rules are recognised and explanations speak.
    pub written: String,
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Op {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Op {
    /// Does `left` stand in this relation to `right`?
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Op::Equal => left == right,
            Op::Less => left < right,
            Op::LessOrEqual => left <= right,
            Op::Greater => left > right,
            Op::GreaterOrEqual => left >= right,
        }
    }
}

/// What is read off a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TimePart {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// How two texts are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Relation {
    Equal,
    Contains,
    StartsWith,
    EndsWith,
}

/// One test of a field's values.
#[derive(Debug, Clone)]
pub enum Test {
    /// A value fits the pattern; without case the pattern expects the lower-cased value.
    Text {
        /// The pattern.
        pattern: Pattern,
        /// Does case matter?
        cased: bool,
    },
    /// A value is this number: the same text, or a JSON number of the same worth.
    Number(Box<str>, f64),
    /// A regular expression is found in a value.
    Regex(Box<Regex>),
    /// The field is absent or `null`.
    Null,
    /// The field is there (whatever its value), or is not.
    Exists(bool),
    /// A value is a number, or a text that is one, in this relation.
    Compare(Op, f64),
    /// A part of a value that is a time (UTC) is in this relation.
    Time(TimePart, Op, f64),
    /// A value is an address in this network.
    Cidr(IpNet),
    /// A value is related to a value of another field.
    Field {
        /// The other field's path.
        other: String,
        /// The relation.
        relation: Relation,
        /// Does case matter?
        cased: bool,
    },
}

impl Test {
    /// Is `text` an address in `net`? An IPv4 address written as IPv6 counts as what it is.
    pub fn in_network(net: &IpNet, text: &str) -> bool {
        text.trim()
            .parse::<IpAddr>()
            .is_ok_and(|ip| net.contains(&ip.to_canonical()) || net.contains(&ip))
    }
}

/// Makes an item of a key such as `field|contains|all` and its value or list of values.
pub(crate) fn parse(
    key: &Node,
    value: &Node,
    placeholders: &Placeholders,
    warnings: &mut Vec<Mistake>,
) -> Result<Item, Mistake> {
    let written_key = key.scalar().unwrap_or_default();
    let mut parts = written_key.split('|');
    let field = parts.next().unwrap_or_default().to_owned();
    let modifiers: Vec<&str> = parts.collect();
    let nodes: Vec<&Node> = match &value.yaml {
        Yaml::List(items) if items.is_empty() => {
            return Err(Mistake::new(
                value.place,
                format!("`{field}` has an empty list of values"),
            ));
        }
        Yaml::List(items) => items.iter().collect(),
        _ => vec![value],
    };
    // The text of a regular expression is no pattern: its backslashes are its own.
    let is_regex = modifiers.contains(&"re");
    let groups = nodes
        .iter()
        .map(|n| Ok(vec![first_value(n, is_regex)?]))
        .collect::<Result<_, Mistake>>()?;
    let mut state = State::new(groups);
    let mut place = key.place.plus(field.chars().count() + 1);
    for modifier in &modifiers {
        state.apply(modifier, place, placeholders)?;
        state.applied.push((*modifier).to_owned());
        place = place.plus(modifier.chars().count() + 1);
    }
    if state.all && nodes.len() == 1 && !field.is_empty() {
        warnings.push(
            Mistake::new(key.place, "`all` does nothing with a single value")
                .hint("remove it, or give a list")
                .advice("all-single"),
        );
    }
    if nodes.len() > 1 && nodes.iter().any(|n| n.yaml == Yaml::Null) {
        warnings.push(
            Mistake::new(value.place, "`null` stands in a list of values")
                .hint("the specification asks for a selection of its own")
                .advice("null-in-list"),
        );
    }
    if field.is_empty() && !matches!(state.mode, Mode::Plain | Mode::Regex) {
        return Err(Mistake::new(key.place, "this modifier needs a field"));
    }
    let keyword = field.is_empty();
    let groups = nodes
        .iter()
        .zip(&state.groups)
        .map(|(node, group)| group.iter().map(|v| state.test(v, keyword, node)).collect())
        .collect::<Result<_, _>>()?;
    let values: Vec<String> = nodes.iter().map(|n| n.to_json().to_string()).collect();
    let written = format!("{written_key}: {}", values.join(", "));
    Ok(Item {
        field: Some(field).filter(|f| !f.is_empty()),
        groups,
        all: state.all,
        negated: state.negated,
        written,
    })
}

/// A keyword outside a map: it is searched in every value.
pub(crate) fn keyword(node: &Node) -> Result<Item, Mistake> {
    let value = first_value(node, false)?;
    let state = State::new(Vec::new());
    Ok(Item {
        field: None,
        groups: vec![vec![state.test(&value, true, node)?]],
        all: false,
        negated: false,
        written: format!("keyword {}", node.to_json()),
    })
}

fn first_value(node: &Node, is_regex: bool) -> Result<Value, Mistake> {
    Ok(match &node.yaml {
        Yaml::Text(text) if is_regex => Value::Text(Text::plain(text)),
        Yaml::Text(text) => Value::Text(Text::parse(text)),
        Yaml::Number(text) => Value::Number(text.clone()),
        Yaml::Bool(b) => Value::Bool(*b),
        Yaml::Null => Value::Null,
        Yaml::List(_) | Yaml::Map(_) => {
            return Err(Mistake::new(
                node.place,
                format!("a value cannot be {}", node.kind()),
            ));
        }
    })
}

impl State {
    fn test(&self, value: &Value, keyword: bool, node: &Node) -> Result<Test, Mistake> {
        let place = node.place;
        let text_of = |value: &Value| match value {
            Value::Text(text) => text.as_plain().unwrap_or_default().to_owned(),
            Value::Number(n) => n.clone(),
            Value::Bool(b) => b.to_string(),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Null => String::new(),
        };
        match (self.mode, value) {
            (Mode::Exists, Value::Bool(b)) => Ok(Test::Exists(*b)),
            (Mode::Exists, _) => Err(Mistake::new(
                place,
                "modifier `exists` needs `true` or `false`",
            )),
            (Mode::Number, value) => {
                let number = text_of(value)
                    .parse()
                    .map_err(|_| Mistake::new(place, "not a number"))?;
                Ok(self.time.map_or(Test::Compare(self.op, number), |part| {
                    Test::Time(part, self.op, number)
                }))
            }
            (Mode::Cidr, value) => {
                let text = text_of(value);
                let net = text
                    .parse()
                    .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
                let hint =
                    "write an address and a prefix length, such as `10.0.0.0/8` or `2001:db8::/32`";
                Ok(Test::Cidr(net.map_err(|_| {
                    Mistake::new(place, format!("`{text}` is no network")).hint(hint)
                })?))
            }
            (Mode::Field, value) => Ok(Test::Field {
                other: text_of(value),
                relation: self.relation,
                cased: self.cased,
            }),
            (Mode::Regex, value) => self.regex(&text_of(value), place),
            (Mode::Plain, Value::Null) if keyword => {
                Err(Mistake::new(place, "a keyword cannot be nothing"))
            }
            (Mode::Plain, Value::Null) => Ok(Test::Null),
            (Mode::Plain, Value::Number(text)) if !keyword => Ok(Test::Number(
                text.as_str().into(),
                text.parse()
                    .map_err(|_| Mistake::new(place, "not a number"))?,
            )),
            (Mode::Plain, value) => {
                let text = if let Value::Text(text) = value {
                    text.clone()
                } else {
                    Text::plain(&text_of(value))
                };
                let text = if keyword { text.open(true, true) } else { text };
                let pattern = Pattern::new(&text, self.cased)
                    .map_err(|e| Mistake::new(place, format!("this pattern is too large: {e}")))?;
                Ok(Test::Text {
                    pattern,
                    cased: self.cased,
                })
            }
        }
    }

    fn regex(&self, text: &str, place: Place) -> Result<Test, Mistake> {
        let body = pcre::adapt(text);
        let body = match self.relation {
            Relation::StartsWith => format!("^(?:{body})"),
            Relation::EndsWith => format!("(?:{body})$"),
            Relation::Equal | Relation::Contains => body,
        };
        let [i, m, s] = self.flags;
        let built = RegexBuilder::new(&body)
            .case_insensitive(i)
            .multi_line(m)
            .dot_matches_new_line(s)
            .size_limit(SIZE_LIMIT)
            .build();
        built.map(|r| Test::Regex(Box::new(r))).map_err(|error| {
            let (message, hint) = match &error {
                regex::Error::CompiledTooBig(limit) => (
                    format!("compiled size is greater than {} KiB", limit / 1024),
                    "use smaller counts in `{n,m}`",
                ),
                _ if pcre::has_look_around(text) => (
                    "look-around is not supported".to_owned(),
                    "linear time is promised: say it with two selections and `and not`",
                ),
                _ if pcre::has_back_reference(text) => (
                    "back-references are not supported".to_owned(),
                    "linear time is promised: write the repeated text out",
                ),
                error => {
                    let text = error.to_string();
                    (
                        text.lines()
                            .last()
                            .unwrap_or_default()
                            .trim_start_matches("error: ")
                            .to_owned(),
                        "",
                    )
                }
            };
            Mistake::new(place, format!("regular expression: {message}")).hint(hint)
        })
    }
}
