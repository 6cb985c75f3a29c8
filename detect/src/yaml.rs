//! YAML with places: every node knows its line and column, so that every mistake can be pointed at.
//!
//! [`documents`] turns a text into one [`Node`] per document. Plain scalars are read as the reference
//! implementation of Sigma reads them (YAML 1.1: `yes`, `no`, `on`, `off` are truth values), since that is
//! what public rules were written against. Duplicate keys, aliases that expand without end and nesting
//! without end are errors. What the nodes mean is the business of `parse`.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

/// Where something stands in a file; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl Place {
    /// The place `characters` further on the same line.
    pub fn plus(self, characters: usize) -> Place {
        Place {
            column: self.column + characters,
            ..self
        }
    }
}

/// One value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub yaml: Yaml,
    /// Where it begins.
    pub place: Place,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Yaml {
    /// `null`, `~` or nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number, in the form in which it is compared as text.
    Number(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<(Node, Node)>),
}

/// A text that is not the YAML that we take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
}

const MAX_NODES: usize = 200_000;
const MAX_DEPTH: usize = 64;

impl Node {
    /// The value under `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The key and value under `key`, if this is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        let Yaml::Map(entries) = &self.yaml else {
            return None;
        };
        entries.iter().find(|(k, _)| k.as_text() == Some(key))
    }

    /// The text of a string.
    pub fn as_text(&self) -> Option<&str> {
        match &self.yaml {
            Yaml::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a string, number or truth value, as it is compared with events.
    pub fn scalar(&self) -> Option<String> {
        match &self.yaml {
            Yaml::Text(text) | Yaml::Number(text) => Some(text.clone()),
            Yaml::Bool(b) => Some(b.to_string()),
            _ => None,
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.yaml {
            Yaml::Null => "nothing",
            Yaml::Bool(_) => "a truth value",
            Yaml::Number(_) => "a number",
            Yaml::Text(_) => "a text",
            Yaml::List(_) => "a list",
            Yaml::Map(_) => "a map",
        }
    }

    /// As JSON, for records that stand in a rule's tests.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.yaml {
            Yaml::Null => serde_json::Value::Null,
            Yaml::Bool(b) => (*b).into(),
            Yaml::Number(n) => serde_json::from_str(n).unwrap_or_else(|_| n.clone().into()),
            Yaml::Text(t) => t.clone().into(),
            Yaml::List(items) => items.iter().map(Node::to_json).collect(),
            Yaml::Map(entries) => serde_json::Value::Object(
                entries
                    .iter()
                    .map(|(k, v)| (k.scalar().unwrap_or_default(), v.to_json()))
                    .collect(),
            ),
        }
    }
}

/// The documents of a text, empty ones left out.
pub fn documents(text: &str) -> Result<Vec<Node>, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        open: Vec::new(),
        anchors: HashMap::new(),
        documents: Vec::new(),
        nodes: 0,
    };
    let end = end_of(text);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| YamlError {
            place: place_of(e.marker()).min(end),
            message: format!("not valid yaml: {}", e.info()),
        })?;
        builder.event(event, place_of(&span.start).min(end))?;
    }
    Ok(builder
        .documents
        .into_iter()
        .filter(|d| d.yaml != Yaml::Null)
        .collect())
}

/// Where a text ends. What ends too early is found to be wrong a line behind it; people look at its end.
fn end_of(text: &str) -> Place {
    let last = text.rsplit(['\n', '\r']).next().unwrap_or_default();
    Place {
        line: text.matches(['\n', '\r']).count() + 1,
        column: last.chars().count() + 1,
    }
}

fn place_of(marker: &Marker) -> Place {
    Place {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    documents: Vec<Node>,
    nodes: usize,
}

struct Open {
    anchor: usize,
    place: Place,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    /// Entries, the key that waits for its value, and what merge keys bring in.
    Map(Vec<(Node, Node)>, Option<Node>, Vec<(Node, Node)>),
}

impl Builder {
    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain =
                    style == ScalarStyle::Plain && tag.as_ref().is_none_or(|t| t.suffix != "str");
                let yaml = if plain {
                    plain_scalar(&text)
                } else {
                    Yaml::Text(text.into_owned())
                };
                self.add(Node { yaml, place }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(anchor, place, Items::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.open(anchor, place, Items::Map(Vec::new(), None, Vec::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(());
                };
                let yaml = match open.items {
                    Items::List(items) => Yaml::List(items),
                    Items::Map(mut entries, _, merged) => {
                        // What the map itself says holds.
                        for (key, value) in merged {
                            if entries.iter().all(|(k, _)| k.yaml != key.yaml) {
                                entries.push((key, value));
                            }
                        }
                        Yaml::Map(entries)
                    }
                };
                self.add(
                    Node {
                        yaml,
                        place: open.place,
                    },
                    open.anchor,
                )
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(YamlError {
                        place,
                        message: "this alias names no finished anchor".into(),
                    });
                };
                self.nodes += count(&node);
                self.add(node, 0)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, anchor: usize, place: Place, items: Items) -> Result<(), YamlError> {
        if self.open.len() == MAX_DEPTH {
            return Err(YamlError {
                place,
                message: format!("nested deeper than {MAX_DEPTH} levels"),
            });
        }
        self.open.push(Open {
            anchor,
            place,
            items,
        });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(YamlError {
                place: node.place,
                message: format!("more than {MAX_NODES} values, aliases expanded"),
            });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|o| &mut o.items) {
            None => self.documents.push(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Map(_, key @ None, _)) => *key = Some(node),
            Some(Items::Map(entries, key, merged)) => {
                let Some(key) = key.take() else { return Ok(()) };
                match (&key.yaml, node) {
                    (
                        Yaml::Text(merge),
                        Node {
                            yaml: Yaml::Map(more),
                            ..
                        },
                    ) if merge == "<<" => merged.extend(more),
                    (_, node) => {
                        if let Some((first, _)) = entries.iter().find(|(k, _)| k.yaml == key.yaml) {
                            let name = key.scalar().unwrap_or_default();
                            let message = format!(
                                "key `{name}` stands here and on line {}",
                                first.place.line
                            );
                            return Err(YamlError {
                                place: key.place,
                                message,
                            });
                        }
                        entries.push((key, node));
                    }
                }
            }
        }
        Ok(())
    }
}

fn count(node: &Node) -> usize {
    match &node.yaml {
        Yaml::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Yaml::Map(entries) => {
            1 + entries
                .iter()
                .map(|(k, v)| count(k) + count(v))
                .sum::<usize>()
        }
        _ => 1,
    }
}

fn plain_scalar(text: &str) -> Yaml {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Yaml::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Yaml::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Yaml::Bool(false);
        }
        _ => {}
    }
    number(text).map_or_else(|| Yaml::Text(text.to_owned()), Yaml::Number)
}

/// A number of YAML 1.1 in its usual form: `0x1F` and `037` are 31, `1_000` is 1000.
fn number(text: &str) -> Option<String> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let bare = digits.replace('_', "");
    let whole = if let Some(hex) = bare.strip_prefix("0x") {
        i128::from_str_radix(hex, 16).ok()
    } else if let Some(binary) = bare.strip_prefix("0b") {
        i128::from_str_radix(binary, 2).ok()
    } else if bare.len() > 1 && bare.starts_with('0') && bare.bytes().all(|b| b.is_ascii_digit()) {
        // `08` is no octal number and therefore a text.
        return i128::from_str_radix(&bare, 8)
            .ok()
            .map(|n| format!("{sign}{n}"));
    } else {
        bare.parse().ok()
    };
    if let Some(whole) = whole {
        return Some(format!("{}{whole}", if whole == 0 { "" } else { sign }));
    }
    let float_form = bare.contains('.')
        && bare
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    let value: f64 = if float_form {
        bare.parse().ok()?
    } else {
        return None;
    };
    Some(format!("{sign}{value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> serde_json::Value {
        documents(text).unwrap().iter().map(Node::to_json).collect()
    }

    #[test]
    fn scalars_are_read_as_the_reference_reads_them() {
        let text = "[no, 'no', On, ~, null, 'null', 12, '12', 0x1F, 037, 08, 1_000, 1.50, 1e3, -5, 1.2.3, 12:30, 2026-01-01]";
        let expected = serde_json::json!([[
            false,
            "no",
            true,
            null,
            null,
            "null",
            12,
            "12",
            31,
            31,
            "08",
            1000,
            1.5,
            "1e3",
            -5,
            "1.2.3",
            "12:30",
            "2026-01-01"
        ]]);
        assert_eq!(json(text), expected);
    }

    #[test]
    fn a_text_that_ends_too_early_is_wrong_at_its_end() {
        let error = documents("a:\n  b: c\nfalsepositive").unwrap_err();
        assert_eq!((error.place.line, error.place.column), (3, 14));
        let nothing = documents("a:\n ? ").unwrap();
        let inner = nothing[0].get("a").map(|node| node.place);
        assert_eq!(inner.map(|place| place.line), Some(2));
    }

    #[test]
    fn places_count_from_one() {
        let docs =
            documents("title: x\ndetection:\n    selection:\n        a|b: c\n---\nb: 1\n").unwrap();
        assert_eq!(docs.len(), 2);
        let (key, value) = docs[0]
            .get("detection")
            .unwrap()
            .get("selection")
            .unwrap()
            .entry("a|b")
            .unwrap();
        assert_eq!(key.place, Place { line: 4, column: 9 });
        assert_eq!(
            value.place,
            Place {
                line: 4,
                column: 14
            }
        );
    }

    #[test]
    fn anchors_and_merge_keys() {
        assert_eq!(
            json("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\nc: *x"),
            serde_json::json!([{"a": {"k": 1, "l": 2}, "b": {"l": 2, "k": 3}, "c": {"k": 1, "l": 2}}])
        );
    }

    #[test]
    fn what_is_refused_and_where() {
        for (text, place, words) in [
            (
                "a: 1\nb: 2\na: 3\n",
                Place { line: 3, column: 1 },
                "key `a` stands here and on line 1",
            ),
            (
                "a:\n\t- b\n",
                Place { line: 2, column: 1 },
                "not valid yaml",
            ),
            ("a: [1, 2\n", Place { line: 2, column: 1 }, "not valid yaml"),
            (
                "a: *nothing\n",
                Place { line: 1, column: 4 },
                "not valid yaml",
            ),
        ] {
            let error = documents(text).unwrap_err();
            assert!(error.message.contains(words), "{text}: {error:?}");
            assert_eq!(error.place.line, place.line, "{text}: {error:?}");
        }
        let laughs: String = (1..12)
            .map(|i| {
                format!(
                    "l{i}: &l{i} [{}]\n",
                    vec![format!("*l{}", i - 1); 10].join(",")
                )
            })
            .collect();
        assert!(
            documents(&format!("l0: &l0 lol\n{laughs}"))
                .unwrap_err()
                .message
                .contains("aliases expanded")
        );
        assert!(documents(&"[".repeat(500)).is_err());
    }
}
