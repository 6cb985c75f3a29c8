//! The modifiers behind a field, one after another.
//!
//! [`State`] holds the values of a line of a selection and what its modifiers have made of them so far; `item` feeds it
//! each modifier in the order in which they are written, and makes the tests of what it has come to in the end.
//! Modifiers that change texts (`windash`, `base64`, `expand`) put others in their place, and those that choose how texts are
//! compared (`re`, `cidr`, `lt`) are remembered. One that cannot follow those before it is a mistake.

use base64::Engine as _;

use super::{Op, Placeholders, Relation, TimePart};
use crate::error::{Mistake, nearest};
use crate::pattern::{Part, Text};
use crate::yaml::Place;

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

/// A value on its way to a test.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(Text),
    Bytes(Vec<u8>),
    Number(String),
    Bool(bool),
    Null,
}

/// What the modifiers so far make of the values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Plain,
    Regex,
    Cidr,
    Exists,
    Field,
    Number,
}

/// The values of a line, and what the modifiers so far have made of them.
pub(super) struct State {
    pub(super) groups: Vec<Vec<Value>>,
    pub(super) mode: Mode,
    pub(super) relation: Relation,
    pub(super) cased: bool,
    pub(super) all: bool,
    pub(super) negated: bool,
    pub(super) flags: [bool; 3],
    pub(super) time: Option<TimePart>,
    pub(super) op: Op,
    /// Modifiers applied so far that change values.
    pub(super) applied: Vec<String>,
}

impl State {
    /// No modifier yet.
    pub(super) fn new(groups: Vec<Vec<Value>>) -> State {
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

    /// Applies the next modifier, which stands at `place`.
    pub(super) fn apply(
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
