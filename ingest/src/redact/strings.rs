//! Secrets in the strings of JSON, and of texts that have JSON somewhere in them.
//!
//! [`json`] goes through a valid document, [`text`] through anything, pairing quotes as well as it can. Both look at
//! every string, keys and the values under duplicate keys included, with its escapes resolved: under a telling name its
//! value is the secret, JSON within a string is gone through in its turn, and everything else is a text for the
//! patterns. Only strings that had a secret are written anew; every other byte stays as it was. The walk never
//! recurses but into strings within strings, and those only [`MAX_LAYERS`] deep.

use std::borrow::Cow;
use std::ops::Range;

use event::json::{Doc, skip_space, unescape};

use super::pattern::{self, Kind};
use super::{Redactor, is_marked};

/// Strings within strings are entered this deep; further ones are texts.
pub(super) const MAX_LAYERS: u8 = 4;

/// A text that opens more brackets than this is no JSON that anybody reads.
const MAX_OPEN: usize = 200;

/// Keys whose value is the name of what stands under one of [`VALUES`] beside it.
const NAMES: [&str; 6] = ["name", "Name", "key", "Key", "ParameterKey", "parameterKey"];
const VALUES: [&str; 4] = ["value", "Value", "ParameterValue", "parameterValue"];

/// The document with its secrets replaced; `None` if it has none. `source` chooses the fields of the configuration.
pub(super) fn json(redactor: &Redactor, source: &str, text: &[u8], layer: u8) -> Option<Vec<u8>> {
    let mut walk = Walk::new(redactor, text, layer, false);
    walk.fields = redactor.has_fields_of(source).then_some(source);
    walk.run();
    walk.edited()
}

/// The document with the fields that the configuration names for `source` replaced, and nothing else.
pub(super) fn fields(redactor: &Redactor, source: &str, text: &[u8]) -> Option<Vec<u8>> {
    let mut walk = Walk::new(redactor, text, 0, false);
    walk.fields = Some(source);
    walk.only_fields = true;
    walk.run();
    walk.edited()
}

/// The text with the secrets in its quoted strings replaced where only the quotes tell them; `None` if it has none.
pub(super) fn text(redactor: &Redactor, text: &[u8], layer: u8) -> Option<Vec<u8>> {
    let mut walk = Walk::new(redactor, text, layer, true);
    walk.run();
    walk.edited()
}

struct Walk<'a> {
    redactor: &'a Redactor,
    text: &'a [u8],
    layer: u8,
    loose: bool,
    /// The source whose configured fields are looked for.
    fields: Option<&'a str>,
    only_fields: bool,
    open: Vec<Level>,
    edits: Vec<(Range<usize>, Vec<u8>)>,
}

/// An object or array that is open.
#[derive(Default)]
struct Level {
    is_array: bool,
    /// What the key of the next value says, in an array what the array's key says.
    kind: Option<Kind>,
    key: Option<Range<usize>>,
    /// Does the value of `key` come next?
    is_due: bool,
    /// Is the next value the name of another, and which name was that?
    is_name: bool,
    is_value: bool,
    named: Option<Kind>,
}

impl<'a> Walk<'a> {
    fn new(redactor: &'a Redactor, text: &'a [u8], layer: u8, loose: bool) -> Walk<'a> {
        Walk {
            redactor,
            text,
            layer,
            loose,
            fields: None,
            only_fields: false,
            open: vec![Level::default()],
            edits: Vec::new(),
        }
    }

    fn run(&mut self) {
        let mut at = 0;
        while let Some(&byte) = self.text.get(at) {
            if byte.is_ascii_whitespace() {
                at += 1;
                continue;
            }
            if self.fields.is_some()
                && !matches!(byte, b',' | b':' | b'}' | b']')
                && let Some(end) = self.field(at)
            {
                self.value_done();
                at = end;
                continue;
            }
            at = match byte {
                b'"' => self.string(at),
                b'{' | b'[' => {
                    if self.open.len() > MAX_OPEN {
                        return;
                    }
                    let is_array = byte == b'[';
                    let kind = self.level().kind.filter(|_| is_array);
                    self.value_done();
                    self.open.push(Level {
                        is_array,
                        kind,
                        ..Level::default()
                    });
                    at + 1
                }
                b'}' | b']' => {
                    if self.open.len() > 1 {
                        self.open.pop();
                    }
                    at + 1
                }
                b':' => at + 1,
                b'0'..=b'9' | b'-' if !self.loose && self.level().kind == Some(Kind::Password) => {
                    self.number(at)
                }
                _ => {
                    self.value_done();
                    at + 1
                }
            };
        }
    }

    fn level(&mut self) -> &mut Level {
        self.open
            .last_mut()
            .expect("the lowest level is not closed")
    }

    /// What was said of the next value is over.
    fn value_done(&mut self) {
        let level = self.level();
        if !level.is_array {
            level.kind = None;
            level.is_due = false;
            level.is_name = false;
            level.is_value = false;
        }
    }

    /// A string that begins at `at`, a key or a value. Gives the place behind it.
    fn string(&mut self, at: usize) -> usize {
        let end = string_end(self.text, at);
        let content = at + 1..end;
        let behind = skip_space(self.text, (end + 1).min(self.text.len()));
        let raw = &self.text[content.clone()];
        if self.text.get(behind) == Some(&b':') {
            self.replace(content.clone(), None);
            let key = resolved(raw);
            let key = String::from_utf8_lossy(&key);
            let kind = self.redactor.kind_of_name(&key);
            let level = self.level();
            level.kind = kind;
            level.is_name = NAMES.contains(&&*key);
            level.is_value = VALUES.contains(&&*key);
            level.key = Some(content);
            level.is_due = true;
            return behind + 1;
        }
        if self.level().is_name {
            self.level().named = self.redactor.kind_of_name(&String::from_utf8_lossy(raw));
        }
        let level = self.level();
        let kind = match level.is_value {
            true => level.kind.or(level.named),
            false => level.kind,
        };
        self.value_done();
        self.replace(content, kind);
        end + 1
    }

    /// Replaces what is secret in the string with this content.
    fn replace(&mut self, content: Range<usize>, kind: Option<Kind>) {
        if self.only_fields {
            return;
        }
        let raw = &self.text[content.clone()];
        let plain = resolved(raw);
        let escaped = matches!(plain, Cow::Owned(_));
        let named = kind
            .filter(|kind| self.redactor.takes(*kind))
            .and_then(|kind| Some((kind, pattern::secret_in(kind, &plain)?)))
            .filter(|(_, secret)| !is_marked(&plain[secret.clone()]));
        let new = match named {
            Some((kind, secret)) => {
                let mut new = plain[..secret.start].to_vec();
                new.extend(self.redactor.marker(kind, &plain[secret.clone()]));
                new.extend_from_slice(&plain[secret.end..]);
                new
            }
            // The patterns go over the whole text afterwards.
            None if self.loose && !escaped => return,
            None => match self.redactor.inner(&plain, self.layer + 1) {
                Some(new) => new,
                None => return,
            },
        };
        let new = match escaped {
            true => quoted(&new),
            false => new,
        };
        self.edits.push((content, new));
    }

    /// A number that is a password.
    fn number(&mut self, at: usize) -> usize {
        let end = value_end(self.text, at);
        let number = &self.text[at..end];
        self.value_done();
        if number.len() >= 4 && !self.only_fields && self.redactor.takes(Kind::Password) {
            let marker = self.redactor.marker(Kind::Password, number);
            self.edits.push((at..end, in_quotes(&marker)));
        }
        end
    }

    /// The end of the value at `at`, if that is a field of the configuration, which is replaced.
    fn field(&mut self, at: usize) -> Option<usize> {
        if !self.level().is_due {
            return None;
        }
        let keys = self.open.iter().filter_map(|level| level.key.clone());
        let keys: Vec<Cow<'_, [u8]>> = keys.map(|key| resolved(&self.text[key])).collect();
        let action = self
            .redactor
            .field_action(self.fields?, &keys.join(&b'.'))?;
        let end = value_end(self.text, at);
        let value = &self.text[at..end];
        let inner = match value {
            [b'"', inner @ .., b'"'] => resolved(inner),
            _ => Cow::Borrowed(value),
        };
        if !is_marked(&inner) {
            let new = self.redactor.minimised(action, &inner);
            self.edits.push((at..end, in_quotes(&new)));
        }
        Some(end)
    }

    fn edited(self) -> Option<Vec<u8>> {
        if self.edits.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(self.text.len());
        let mut done = 0;
        for (range, new) in self.edits {
            out.extend_from_slice(&self.text[done..range.start]);
            out.extend_from_slice(&new);
            done = range.end;
        }
        out.extend_from_slice(&self.text[done..]);
        Some(out)
    }
}

/// Is this text a JSON object or array and nothing else?
pub(super) fn is_json(text: &[u8]) -> bool {
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'[')) && Doc::parse(text).is_ok()
}

/// Where the string that begins at `at` has its closing quote; the end of the text if it has none.
fn string_end(text: &[u8], at: usize) -> usize {
    let mut from = at + 1;
    while let Some(found) = text
        .get(from..)
        .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
    {
        if text[from + found] == b'"' {
            return from + found;
        }
        from += found + 2;
    }
    text.len()
}

/// The end of the value that begins at `at`.
fn value_end(text: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut from = at;
    while let Some(byte) = text.get(from) {
        match byte {
            b'"' => from = string_end(text, from),
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return from,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return from,
            b if b.is_ascii_whitespace() && depth == 0 => return from,
            _ => {
                from += 1;
                continue;
            }
        }
        from += 1;
        if depth == 0 {
            return from.min(text.len());
        }
    }
    text.len()
}

/// The content of a string without its escapes. Borrowed if it has none.
fn resolved(content: &[u8]) -> Cow<'_, [u8]> {
    if !content.contains(&b'\\') {
        return Cow::Borrowed(content);
    }
    Cow::Owned(unescape(content).into_owned().into_bytes())
}

/// The content of a JSON string that stands for `plain`.
fn quoted(plain: &[u8]) -> Vec<u8> {
    let text = serde_json::Value::from(String::from_utf8_lossy(plain)).to_string();
    text.as_bytes()[1..text.len() - 1].to_vec()
}

fn in_quotes(text: &[u8]) -> Vec<u8> {
    [b"\"", text, b"\""].concat()
}
