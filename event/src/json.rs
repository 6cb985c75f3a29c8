//! JSON read in place: one pass over the text makes a flat index, and fields are looked up in that.
//!
//! [`Doc`] is the index of one JSON value: a list of nodes in document order, each with the place of its
//! key and value in the text and the number of the next node on its level. Scanning a record costs one
//! pass and, as the list is used again for the next record, no allocation. [`Value`] is a node together
//! with the text; it reads strings, numbers and children when asked.
//!
//! `ingest` scans each record once to find where it ends; `detect` and `search` look fields up through
//! [`crate::path::FieldSet`]. The scanner is strict in structure (a record that does not parse becomes a
//! dead letter) and lenient in what real logs contain: control characters inside strings, bytes that are
//! not UTF-8, numbers that no machine type can hold. It never recurses; depth is capped.
//!
//! Of keys that occur twice in one object the first is kept and the later ones are hidden
//! ([`Doc::has_duplicate_keys`] tells): parsers disagree about duplicates, so they are used to smuggle.

mod canonical;
mod known;
mod scan;

use std::borrow::Cow;

pub use canonical::{canonical, said_hash};

/// Objects and arrays nested deeper than this are refused.
pub const MAX_DEPTH: usize = 64;

/// Why a text is not a JSON value that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Where, counted from the start of the text that was given.
    pub offset: usize,
}

/// The kinds of [`JsonError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonErrorKind {
    /// The text ends inside the value; more bytes may complete it.
    #[error("json ends too early")]
    Incomplete,
    /// A byte that cannot stand here.
    #[error("json syntax error")]
    Syntax,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("json too deep (limit {MAX_DEPTH})")]
    TooDeep,
    /// The text is longer than the index can address (4 GiB).
    #[error("json too large")]
    TooLarge,
}

/// What kind of JSON value a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true`
    True,
    /// `false`
    False,
    /// A number, kept as written.
    Number,
    /// A string.
    String,
    /// `[…]`
    Array,
    /// `{…}`
    Object,
}

const KEY_ESCAPED: u8 = 1;
const VALUE_ESCAPED: u8 = 2;
const DUPLICATE: u8 = 4;
/// There is a dot in the key, or may be one.
const KEY_DOTTED: u8 = 8;

#[derive(Debug, Clone, Copy)]
struct Node {
    /// Hash of the key after unescaping; 0 for elements of arrays and for the root.
    hash: u32,
    key_start: u32,
    key_end: u32,
    /// For strings the content without quotes, else the whole value.
    start: u32,
    end: u32,
    /// The next node on the same level or, for the last one, the first node after its parent's children.
    next: u32,
    kind: Kind,
    flags: u8,
}

/// The index of one JSON value.
#[derive(Debug, Default, Clone)]
pub struct Doc {
    nodes: Vec<Node>,
    /// Room for the scanner's stack.
    open: Vec<scan::Open>,
    known: known::Known,
    duplicate_keys: bool,
    odd_numbers: bool,
}

impl Doc {
    /// An empty index.
    pub fn new() -> Doc {
        Doc::default()
    }

    /// Indexes a text that is one JSON value and nothing else but white space.
    pub fn parse(text: &[u8]) -> Result<Doc, JsonError> {
        let mut doc = Doc::new();
        let end = doc.scan(text, 0)?;
        let rest = skip_space(text, end);
        if rest < text.len() {
            return Err(JsonError {
                kind: JsonErrorKind::Syntax,
                offset: rest,
            });
        }
        Ok(doc)
    }

    /// Indexes the JSON value that begins at or after `from` (white space is skipped) in place of what was
    /// indexed before, and gives the offset of the first byte after it. What follows is not looked at.
    pub fn scan(&mut self, text: &[u8], from: usize) -> Result<usize, JsonError> {
        // One text may be followed by more of its kind.
        if !self.nodes.is_empty() {
            self.known.make_room();
        }
        self.nodes.clear();
        self.open.clear();
        self.duplicate_keys = false;
        self.odd_numbers = false;
        if text.len() >= u32::MAX as usize {
            return Err(JsonError {
                kind: JsonErrorKind::TooLarge,
                offset: 0,
            });
        }
        scan::Scanner { text, doc: self }.run(from)
    }

    /// The indexed value. `text` must be the text that was scanned; whether it is UTF-8 is found out here, once for all
    /// values of it.
    #[inline]
    pub fn root<'a>(&'a self, text: &'a [u8]) -> Value<'a> {
        Value {
            utf8: simdutf8::basic::from_utf8(text).ok(),
            ..self.glance(text)
        }
    }

    /// As [`Doc::root`], for who looks at a few values: whether they are UTF-8 is found out for each of them.
    #[inline]
    pub fn glance<'a>(&'a self, text: &'a [u8]) -> Value<'a> {
        debug_assert!(!self.nodes.is_empty(), "nothing was scanned");
        Value {
            text,
            utf8: None,
            nodes: &self.nodes,
            at: 0,
        }
    }

    /// May there be a number that [`Value::is_odd_number`]?
    pub fn may_have_odd_numbers(&self) -> bool {
        self.odd_numbers
    }

    /// Did an object have a key twice?
    pub fn has_duplicate_keys(&self) -> bool {
        self.duplicate_keys
    }

    /// How many values there are, counting all levels.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Was nothing scanned yet?
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// The offset of the first byte at or after `at` that is not JSON white space.
#[inline]
pub fn skip_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// Digits that every machine type holds.
fn is_plain_number(raw: &[u8]) -> bool {
    raw.len() <= 15
        && raw.iter().all(u8::is_ascii_digit)
        && (raw.first() != Some(&b'0') || raw.len() == 1)
}

/// The hash of a key, the same in documents and in compiled field sets. Fast rather than strong: equal
/// hashes are always followed by a comparison of the bytes.
#[inline]
pub(crate) fn key_hash(key: &[u8]) -> u32 {
    let (head, tail) = ends(key);
    let mixed =
        (head ^ tail.rotate_left(29) ^ key.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as u32
}

/// The first and the last bytes of a key: all of one that has at most 16.
#[inline]
fn ends(key: &[u8]) -> (u64, u64) {
    let n = key.len();
    if let (Some(head), Some(tail)) = (key.first_chunk(), key.last_chunk()) {
        return (u64::from_le_bytes(*head), u64::from_le_bytes(*tail));
    }
    if let (Some(head), Some(tail)) = (key.first_chunk(), key.last_chunk()) {
        return (
            u32::from_le_bytes(*head).into(),
            u32::from_le_bytes(*tail).into(),
        );
    }
    match key {
        [] => (0, 0),
        _ => (
            u64::from(key[0]) | u64::from(key[n / 2]) << 8,
            key[n - 1].into(),
        ),
    }
}

/// Not 0 if one of the bytes of `word` is `byte`.
#[inline]
fn has_byte(word: u64, byte: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let x = word ^ (ONES * u64::from(byte));
    x.wrapping_sub(ONES) & !x & HIGHS
}

#[inline]
fn has_dot(key: &[u8]) -> bool {
    let (head, tail) = ends(key);
    has_byte(head, b'.') | has_byte(tail, b'.') != 0
        || key.len() > 16 && memchr::memchr(b'.', key).is_some()
}

/// Equality of keys, which are short: eight bytes at a time instead of a call.
#[inline]
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    let n = a.len();
    if n != b.len() {
        return false;
    }
    if n < 8 {
        return a.iter().zip(b).all(|(a, b)| a == b);
    }
    let (last_a, last_b) = (&a[n - 8..], &b[n - 8..]);
    a.chunks_exact(8)
        .zip(b.chunks_exact(8))
        .all(|(a, b)| a == b)
        && last_a == last_b
}

/// The text of the content of a JSON string, its escapes resolved. Lone surrogates and bytes that are not UTF-8 become U+FFFD.
pub fn unescape(content: &[u8]) -> Cow<'_, str> {
    if !content.contains(&b'\\') {
        return lossy(content);
    }
    let mut out = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let (length, text) = match rest.first() {
            Some(b'u') => unicode_escape(rest),
            Some(b'b') => (1, '\u{8}'),
            Some(b'f') => (1, '\u{c}'),
            Some(b'n') => (1, '\n'),
            Some(b'r') => (1, '\r'),
            Some(b't') => (1, '\t'),
            Some(&other) => (1, char::from(other)),
            None => (0, '\\'),
        };
        out.extend_from_slice(text.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[length.min(rest.len())..];
    }
    out.extend_from_slice(rest);
    Cow::Owned(
        String::from_utf8(out)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
    )
}

/// `uXXXX` or a pair of surrogates: how many bytes it takes and the character.
fn unicode_escape(rest: &[u8]) -> (usize, char) {
    let unit = |at: usize| {
        let digits = rest
            .get(at..at + 4)
            .and_then(|d| std::str::from_utf8(d).ok());
        digits.and_then(|d| u32::from_str_radix(d, 16).ok())
    };
    let Some(first) = unit(1) else {
        return (1, char::REPLACEMENT_CHARACTER);
    };
    if let Some(c) = char::from_u32(first) {
        return (5, c);
    }
    let second = (rest.get(5..7) == Some(b"\\u")).then(|| unit(7)).flatten();
    match (first, second) {
        (0xD800..0xDC00, Some(low @ 0xDC00..0xE000)) => {
            let joined = 0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00);
            (
                11,
                char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER),
            )
        }
        _ => (5, char::REPLACEMENT_CHARACTER),
    }
}

/// Text as it is; bytes that are not UTF-8 become U+FFFD. Nearly all text is UTF-8, and checking that is faster.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// One value of an indexed document, together with the text.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    text: &'a [u8],
    /// The same text, where all of it is UTF-8.
    utf8: Option<&'a str>,
    nodes: &'a [Node],
    at: u32,
}

impl<'a> Value<'a> {
    #[inline]
    fn node(&self) -> &'a Node {
        &self.nodes[self.at as usize]
    }

    /// The number of this value in its document, for [`Value::with_index`].
    #[inline]
    pub fn index(&self) -> u32 {
        self.at
    }

    /// The value with number `index` of the same document.
    #[inline]
    pub fn with_index(&self, index: u32) -> Value<'a> {
        Value { at: index, ..*self }
    }

    /// Is the text that it stands in UTF-8?
    #[inline]
    pub fn is_utf8(&self) -> bool {
        self.utf8.is_some()
    }

    /// Part of the text.
    #[inline]
    fn slice(&self, from: u32, to: u32) -> Cow<'a, str> {
        let range = from as usize..to as usize;
        match self.utf8.and_then(|text| text.get(range.clone())) {
            Some(text) => Cow::Borrowed(text),
            None => lossy(&self.text[range]),
        }
    }

    /// What kind of value it is.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.node().kind
    }

    /// Is it `null`?
    #[inline]
    pub fn is_null(&self) -> bool {
        self.kind() == Kind::Null
    }

    /// The value as written, strings with their quotes.
    pub fn raw(&self) -> &'a [u8] {
        let node = self.node();
        let quotes = usize::from(node.kind == Kind::String);
        &self.text[node.start as usize - quotes..node.end as usize + quotes]
    }

    /// Where [`Value::raw`] stands in the text.
    pub fn span(&self) -> std::ops::Range<usize> {
        let node = self.node();
        let quotes = usize::from(node.kind == Kind::String);
        node.start as usize - quotes..node.end as usize + quotes
    }

    /// The content of a string, `None` for other kinds.
    #[inline]
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        let node = self.node();
        if node.kind != Kind::String {
            return None;
        }
        Some(if node.flags & VALUE_ESCAPED == 0 {
            self.slice(node.start, node.end)
        } else {
            unescape(&self.text[node.start as usize..node.end as usize])
        })
    }

    /// The value as text: the content of a string, else as written (`true`, `12`, `{"a":1}`). `None` for `null`.
    #[inline]
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match self.kind() {
            Kind::Null => None,
            Kind::String => self.as_str(),
            _ => Some(self.slice(self.node().start, self.node().end)),
        }
    }

    /// A number, or a string that is one. `None` for other values, `NaN` and infinities.
    pub fn as_f64(&self) -> Option<f64> {
        match self.kind() {
            Kind::Number | Kind::String => self
                .text()?
                .trim()
                .parse()
                .ok()
                .filter(|n: &f64| n.is_finite()),
            _ => None,
        }
    }

    /// `true` or `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self.kind() {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        }
    }

    /// Is this a number that no machine type holds as it is written (`NaN`, `1e999`, 2^70, `007`)?
    pub fn is_odd_number(&self) -> bool {
        let raw = self.raw();
        if self.kind() != Kind::Number || is_plain_number(raw) {
            return false;
        }
        let Ok(text) = std::str::from_utf8(raw) else {
            return true;
        };
        let digits = text.strip_prefix('-').unwrap_or(text);
        let padded =
            digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
        let held = if text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) {
            text.parse::<f64>().is_ok_and(f64::is_finite)
        } else {
            text.parse::<i64>().is_ok() && text != "-0"
        };
        padded || !held
    }

    /// The key under which it stands, if it is a member of an object.
    pub fn key(&self) -> Option<Cow<'a, str>> {
        let node = self.node();
        if node.key_start == 0 {
            return None;
        }
        Some(if node.flags & KEY_ESCAPED == 0 {
            self.slice(node.key_start, node.key_end)
        } else {
            unescape(&self.text[node.key_start as usize..node.key_end as usize])
        })
    }

    /// The members of an object without duplicates: the number of each, the hash of its key, and whether that may have
    /// dots.
    #[inline]
    pub(crate) fn members(&self) -> impl Iterator<Item = (u32, u32, bool)> + use<'a> {
        let nodes = self.nodes;
        let end = self.node().next;
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            while at < end {
                let (number, node) = (at, &nodes[at as usize]);
                at = node.next;
                if node.flags & DUPLICATE == 0 {
                    return Some((number, node.hash, node.flags & KEY_DOTTED != 0));
                }
            }
            None
        })
    }

    /// The member `key` of an object; of duplicates the first.
    #[inline]
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let hash = key_hash(key.as_bytes());
        if self.kind() != Kind::Object {
            return None;
        }
        self.children()
            .find(|c| c.node().hash == hash && c.key_is(key))
    }

    /// Is `key` this member's key?
    #[inline]
    pub fn key_is(&self, key: &str) -> bool {
        let node = self.node();
        let raw = &self.text[node.key_start as usize..node.key_end as usize];
        if node.flags & KEY_ESCAPED == 0 {
            same_bytes(raw, key.as_bytes())
        } else {
            unescape(raw) == key
        }
    }

    /// The member at the end of `keys`, one key a level; arrays are not entered.
    pub fn at(&self, keys: &[&str]) -> Option<Value<'a>> {
        keys.iter().try_fold(*self, |value, key| value.get(key))
    }

    /// The text of the member at the end of `keys`; `None` if absent, `null`, or an object or array.
    pub fn text_at(&self, keys: &[&str]) -> Option<Cow<'a, str>> {
        self.at(keys)
            .filter(|v| !matches!(v.kind(), Kind::Object | Kind::Array))
            .and_then(|v| v.text())
    }

    /// The members of an object without duplicates, or the elements of an array; nothing for other kinds.
    #[inline]
    pub fn children(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let this = *self;
        let node = self.node();
        let end = if matches!(node.kind, Kind::Object | Kind::Array) {
            node.next
        } else {
            0
        };
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            while at < end {
                let value = this.with_index(at);
                let node = value.node();
                at = node.next;
                if node.flags & DUPLICATE == 0 {
                    return Some(value);
                }
            }
            None
        })
    }

    /// Every value below this one that is neither object nor array, this one included, in document order.
    /// Values under a duplicate key are left out.
    pub fn leaves(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let this = *self;
        let end = self.node().next;
        let mut at = self.at;
        std::iter::from_fn(move || {
            while at < end {
                let value = this.with_index(at);
                let node = value.node();
                if node.flags & DUPLICATE != 0 {
                    at = node.next;
                    continue;
                }
                at += 1;
                if !matches!(node.kind, Kind::Object | Kind::Array) {
                    return Some(value);
                }
            }
            None
        })
    }
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&lossy(self.raw()))
    }
}

#[cfg(test)]
mod tests;
