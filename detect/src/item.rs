//! One line of a selection: a field, its modifiers and its values, made into tests.
//!
//! `parse` applies the modifiers of Sigma 2.1 in the order in which they are written and gives an
//! [`Item`]: groups of [`Test`]s on one field. What a modifier cannot be applied to is a mistake with its
//! place. The engine evaluates tests; nothing here looks at events.

mod pcre;

use std::collections::HashMap;
use std::net::IpAddr;

use base64::Engine as _;
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

use crate::error::{Mistake, nearest};
use crate::pattern::{Part, Pattern, SIZE_LIMIT, Text};
use crate::yaml::{Node, Place, Yaml};

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

const MODIFIERS: &[&str] = &[
    "all",
    "base64",
    "base64offset",
    "cased",
    "cidr",
    "contains",
    "day",
    "endswith",
    "exists",
    "expand",
    "fieldref",
    "gt",
    "gte",
    "hour",
    "i",
    "ignorecase",
    "lt",
    "lte",
    "m",
    "minute",
    "month",
    "multiline",
    "neq",
    "re",
    "s",
    "dotall",
    "startswith",
    "utf16",
    "utf16be",
    "utf16le",
    "week",
    "wide",
    "windash",
    "year",
];

#[derive(Debug, Clone)]
enum Value {
    Text(Text),
    Bytes(Vec<u8>),
    Number(String),
    Bool(bool),
    Null,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Plain,
    Regex,
    Cidr,
    Exists,
    Field,
    Number,
}

struct State {
    groups: Vec<Vec<Value>>,
    mode: Mode,
    relation: Relation,
    cased: bool,
    all: bool,
    negated: bool,
    flags: [bool; 3],
    time: Option<TimePart>,
    op: Op,
    /// Modifiers applied so far that change values.
    applied: Vec<String>,
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
    fn new(groups: Vec<Vec<Value>>) -> State {
        State {
            groups,
            mode: Mode::Plain,
            relation: Relation::Equal,
            cased: false,
            all: false,
            negated: false,
            flags: [false; 3],
            time: None,
            op: Op::Equal,
            applied: Vec::new(),
        }
    }

    fn apply(
        &mut self,
        modifier: &str,
        place: Place,
        placeholders: &Placeholders,
    ) -> Result<(), Mistake> {
        let wrong = |why: &str| Err(Mistake::new(place, format!("modifier `{modifier}` {why}")));
        match modifier {
            "all" => self.all = true,
            "neq" => self.negated = true,
            "cased" => {
                if matches!(
                    self.mode,
                    Mode::Regex | Mode::Cidr | Mode::Exists | Mode::Number
                ) {
                    return wrong("works on plain texts only");
                }
                self.cased = true;
            }
            "contains" | "startswith" | "endswith" => {
                if self.relation != Relation::Equal && self.mode != Mode::Plain {
                    return wrong("cannot follow another of its kind here");
                }
                self.relation = match modifier {
                    "contains" => Relation::Contains,
                    "startswith" => Relation::StartsWith,
                    _ => Relation::EndsWith,
                };
                match self.mode {
                    Mode::Plain => {
                        let (before, behind) = (modifier != "startswith", modifier != "endswith");
                        self.texts(place, modifier, |text| {
                            Ok(vec![Value::Text(text.open(before, behind))])
                        })?;
                    }
                    Mode::Regex | Mode::Field => {}
                    _ => return wrong("works on texts only"),
                }
            }
            "windash" => self.texts(place, modifier, |text| {
                Ok(vec![Value::Text(text.windash())])
            })?,
            "wide" | "utf16le" => self.bytes(place, modifier, |text| {
                text.encode_utf16().flat_map(u16::to_le_bytes).collect()
            })?,
            "utf16be" => self.bytes(place, modifier, |text| {
                text.encode_utf16().flat_map(u16::to_be_bytes).collect()
            })?,
            "utf16" => self.bytes(place, modifier, |text| {
                std::iter::once(0xFEFF)
                    .chain(text.encode_utf16())
                    .flat_map(u16::to_le_bytes)
                    .collect()
            })?,
            "base64" | "base64offset" => {
                let offsets = modifier == "base64offset";
                for group in &mut self.groups {
                    let mut encoded = Vec::new();
                    for value in group.iter() {
                        let bytes = match value {
                            Value::Bytes(bytes) => bytes.clone(),
                            Value::Text(text) => match text.as_plain() {
                                Some(plain) => plain.as_bytes().to_vec(),
                                None => return Err(Mistake::new(place, format!("modifier `{modifier}` cannot encode wildcards")).hint("put `contains` behind it; escape `*` and `?` that are meant as characters")),
                            },
                            _ => return wrong("works on texts only"),
                        };
                        let texts = if offsets {
                            base64_offsets(&bytes)
                        } else {
                            vec![base64::engine::general_purpose::STANDARD.encode(&bytes)]
                        };
                        encoded.extend(texts.iter().map(|t| Value::Text(Text::plain(t))));
                    }
                    *group = encoded;
                }
            }
            "re" => {
                if self.applied.iter().any(|m| m != "all" && m != "neq") {
                    return wrong("must stand first");
                }
                if !self
                    .groups
                    .iter()
                    .flatten()
                    .all(|v| matches!(v, Value::Text(_) | Value::Number(_)))
                {
                    return wrong("needs a text");
                }
                self.mode = Mode::Regex;
            }
            "i" | "ignorecase" | "m" | "multiline" | "s" | "dotall" => {
                if self.mode != Mode::Regex {
                    return Err(Mistake::new(
                        place,
                        format!("modifier `{modifier}` stands without `re`"),
                    )
                    .hint(format!("write `|re|{modifier}`")));
                }
                self.flags[match modifier {
                    "i" | "ignorecase" => 0,
                    "m" | "multiline" => 1,
                    _ => 2,
                }] = true;
            }
            "cidr" => {
                if self.mode != Mode::Plain || self.relation != Relation::Equal {
                    return wrong("cannot be combined with the modifiers before it");
                }
                self.mode = Mode::Cidr;
            }
            "exists" => {
                if self.applied.iter().any(|m| m != "neq") {
                    return wrong("cannot be combined with the modifiers before it");
                }
                if !matches!(self.groups.as_slice(), [group] if matches!(group.as_slice(), [Value::Bool(_)]))
                {
                    return Err(Mistake::new(
                        place,
                        "modifier `exists` needs `true` or `false`",
                    ));
                }
                self.mode = Mode::Exists;
            }
            "fieldref" => {
                if !matches!(self.mode, Mode::Plain) {
                    return wrong("cannot be combined with the modifiers before it");
                }
                // `contains` and its like may stand before it; they relate the two fields.
                self.texts(place, modifier, |text| {
                    let name: String = text
                        .0
                        .iter()
                        .filter_map(|p| {
                            if let Part::Literal(t) = p {
                                Some(t.as_str())
                            } else {
                                None
                            }
                        })
                        .collect();
                    Ok(vec![Value::Text(Text::plain(&name))])
                })?;
                self.mode = Mode::Field;
            }
            "lt" | "lte" | "gt" | "gte" => {
                self.numbers(place, modifier)?;
                self.op = match modifier {
                    "lt" => Op::Less,
                    "lte" => Op::LessOrEqual,
                    "gt" => Op::Greater,
                    _ => Op::GreaterOrEqual,
                };
            }
            "minute" | "hour" | "day" | "week" | "month" | "year" => {
                self.numbers(place, modifier)?;
                self.time = Some(match modifier {
                    "minute" => TimePart::Minute,
                    "hour" => TimePart::Hour,
                    "day" => TimePart::Day,
                    "week" => TimePart::Week,
                    "month" => TimePart::Month,
                    _ => TimePart::Year,
                });
            }
            "expand" => self.texts(place, modifier, |text| expand(&text, place, placeholders))?,
            "" => return Err(Mistake::new(place, "a modifier is missing between two `|`")),
            other => {
                let hint = nearest(other, MODIFIERS.iter().copied())
                    .map(|n| format!("did you mean `{n}`?"))
                    .unwrap_or_default();
                return Err(Mistake::new(place, format!("unknown modifier `{other}`")).hint(hint));
            }
        }
        Ok(())
    }

    fn texts(
        &mut self,
        place: Place,
        modifier: &str,
        change: impl Fn(Text) -> Result<Vec<Value>, Mistake>,
    ) -> Result<(), Mistake> {
        for group in &mut self.groups {
            let mut changed = Vec::new();
            for value in group.drain(..) {
                match value {
                    Value::Text(text) => changed.extend(change(text)?),
                    Value::Bytes(bytes) => {
                        changed.extend(change(Text::plain(&String::from_utf8_lossy(&bytes)))?)
                    }
                    _ => {
                        return Err(Mistake::new(
                            place,
                            format!("modifier `{modifier}` works on texts only"),
                        )
                        .hint("quote the value if it is meant as a text"));
                    }
                }
            }
            *group = changed;
        }
        Ok(())
    }

    fn bytes(
        &mut self,
        place: Place,
        modifier: &str,
        encode: impl Fn(&str) -> Vec<u8>,
    ) -> Result<(), Mistake> {
        self.texts(place, modifier, |text| match text.as_plain() {
            Some(plain) => Ok(vec![Value::Bytes(encode(plain))]),
            None => Err(Mistake::new(
                place,
                format!("modifier `{modifier}` cannot encode wildcards"),
            )
            .hint("put `contains` behind it")),
        })
    }

    fn numbers(&mut self, place: Place, modifier: &str) -> Result<(), Mistake> {
        let fine =
            matches!(self.mode, Mode::Plain | Mode::Number) && self.relation == Relation::Equal;
        if !fine
            || !self
                .groups
                .iter()
                .flatten()
                .all(|v| matches!(v, Value::Number(_)))
        {
            return Err(Mistake::new(
                place,
                format!("modifier `{modifier}` works on numbers only"),
            )
            .hint("write the number without quotes"));
        }
        self.mode = Mode::Number;
        Ok(())
    }

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

/// The three forms that a text may have within longer Base64, as pySigma builds them: what depends on neighbours is cut off.
fn base64_offsets(bytes: &[u8]) -> Vec<String> {
    (0..3)
        .map(|i| {
            let padded: Vec<u8> = std::iter::repeat_n(b' ', i)
                .chain(bytes.iter().copied())
                .collect();
            let encoded = base64::engine::general_purpose::STANDARD.encode(&padded);
            let start = [0, 2, 3][i];
            let end = encoded.len() - [0, 3, 2][(bytes.len() + i) % 3];
            encoded.get(start..end).unwrap_or_default().to_owned()
        })
        .collect()
}

fn expand(text: &Text, place: Place, placeholders: &Placeholders) -> Result<Vec<Value>, Mistake> {
    let mut names = Vec::new();
    for part in &text.0 {
        let Part::Literal(literal) = part else {
            continue;
        };
        // `\%` is a percent sign, so it neither opens nor closes a name.
        let hidden = literal.replace("\\%", "\u{0}\u{0}");
        let mut rest = hidden.as_str();
        while let Some((_, behind)) = rest.split_once('%') {
            let Some((name, after)) = behind.split_once('%') else {
                break;
            };
            if !names.contains(&name.to_owned()) {
                names.push(name.to_owned());
            }
            rest = after;
        }
    }
    let mut texts = vec![text.clone()];
    for name in &names {
        let Some(values) = placeholders.get(name).filter(|v| !v.is_empty()) else {
            let hint = match nearest(name, placeholders.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `%{near}%`?"),
                None => format!(
                    "give its values under `placeholders: {{ {name}: [..] }}` in the configuration, or with --placeholder {name}=VALUE"
                ),
            };
            return Err(
                Mistake::new(place, format!("placeholder `%{name}%` has no values")).hint(hint),
            );
        };
        let values: Vec<Text> = values.iter().map(|v| Text::parse(v)).collect();
        texts = texts
            .iter()
            .flat_map(|t| t.replace(&format!("%{name}%"), &values))
            .collect();
        if texts.len() > 100_000 {
            return Err(Mistake::new(
                place,
                "this expands to more than 100,000 values",
            ));
        }
    }
    Ok(texts
        .into_iter()
        .flat_map(|t| t.replace("\\%", &[Text::plain("%")]))
        .map(Value::Text)
        .collect())
}
