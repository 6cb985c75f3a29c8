//! The one pass over a text that makes the index of [`super::Doc`].
//!
//! [`Scanner`] walks with a stack of open objects and arrays and never recurses. It is strict in structure, lenient in
//! numbers and strings, and tells an incomplete text from a wrong one, so that a reader of a stream knows whether more
//! bytes may help.

use std::borrow::Cow;
use std::collections::HashSet;

use super::{
    DUPLICATE, Doc, JsonError, JsonErrorKind, KEY_ESCAPED, Kind, MAX_DEPTH, Node, VALUE_ESCAPED,
    is_plain_number, key_hash, skip_space, unescape,
};

pub(super) struct Open {
    node: u32,
    last_child: u32,
    children: u32,
    /// One bit per key hash seen, so that few keys are compared.
    seen: u64,
    object: bool,
}

pub(super) struct Scanner<'t, 'd> {
    pub(super) text: &'t [u8],
    pub(super) doc: &'d mut Doc,
    pub(super) open: Vec<Open>,
}

impl Scanner<'_, '_> {
    fn error<T>(&self, kind: JsonErrorKind, offset: usize) -> Result<T, JsonError> {
        Err(JsonError { kind, offset })
    }

    fn bad<T>(&self, at: usize) -> Result<T, JsonError> {
        self.error(
            if at >= self.text.len() {
                JsonErrorKind::Incomplete
            } else {
                JsonErrorKind::Syntax
            },
            at,
        )
    }

    pub(super) fn run(mut self, from: usize) -> Result<usize, JsonError> {
        let mut at = self.value(skip_space(self.text, from), (0, 0, 0, 0))?;
        while let Some(top) = self.open.last() {
            let (object, first) = (top.object, top.children == 0);
            at = skip_space(self.text, at);
            let Some(&byte) = self.text.get(at) else {
                return self.bad(at);
            };
            if byte == if object { b'}' } else { b']' } {
                at += 1;
                self.close(at);
                continue;
            }
            if !first {
                if byte != b',' {
                    return self.bad(at);
                }
                at = skip_space(self.text, at + 1);
            }
            if object {
                if self.text.get(at) != Some(&b'"') {
                    return self.bad(at);
                }
                let (start, end, escaped) = self.string(at)?;
                let key = &self.text[start..end];
                let hash = if escaped {
                    key_hash(unescape(key).as_bytes())
                } else {
                    key_hash(key)
                };
                at = skip_space(self.text, end + 1);
                if self.text.get(at) != Some(&b':') {
                    return self.bad(at);
                }
                let flags =
                    if escaped { KEY_ESCAPED } else { 0 } | self.duplicate(hash, key, escaped);
                at = self.value(
                    skip_space(self.text, at + 1),
                    (hash, start as u32, end as u32, flags),
                )?;
            } else {
                at = self.value(at, (0, 0, 0, 0))?;
            }
        }
        Ok(at)
    }

    /// Scans the value at `at`; of an object or array only its opening.
    fn value(
        &mut self,
        at: usize,
        (hash, key_start, key_end, flags): (u32, u32, u32, u8),
    ) -> Result<usize, JsonError> {
        let node = self.doc.nodes.len() as u32;
        if let Some(top) = self.open.last_mut() {
            top.children += 1;
            top.last_child = node;
        }
        let Some(&byte) = self.text.get(at) else {
            return self.bad(at);
        };
        let mut node = Node {
            hash,
            key_start,
            key_end,
            start: at as u32,
            end: 0,
            next: node + 1,
            kind: Kind::Null,
            flags,
        };
        let end = match byte {
            b'"' => {
                let (start, end, escaped) = self.string(at)?;
                node.kind = Kind::String;
                node.start = start as u32;
                node.flags |= if escaped { VALUE_ESCAPED } else { 0 };
                node.end = end as u32;
                self.doc.nodes.push(node);
                return Ok(end + 1);
            }
            b'{' | b'[' => {
                if self.open.len() == MAX_DEPTH {
                    return self.error(JsonErrorKind::TooDeep, at);
                }
                node.kind = if byte == b'{' {
                    Kind::Object
                } else {
                    Kind::Array
                };
                let number = self.doc.nodes.len() as u32;
                self.doc.nodes.push(node);
                self.open.push(Open {
                    node: number,
                    last_child: number,
                    children: 0,
                    seen: 0,
                    object: byte == b'{',
                });
                return Ok(at + 1);
            }
            b't' => self.word(at, b"true", &mut node, Kind::True)?,
            b'f' => self.word(at, b"false", &mut node, Kind::False)?,
            b'n' => self.word(at, b"null", &mut node, Kind::Null)?,
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                node.kind = Kind::Number;
                let length = self.text[at..]
                    .iter()
                    .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
                    .count();
                if at + length == self.text.len() && !self.open.is_empty() {
                    return self.bad(at + length);
                }
                let written = &self.text[at..at + length];
                if !is_plain_number(written) {
                    if !is_number(written) {
                        return self.bad(at);
                    }
                    self.doc.odd_numbers = true;
                }
                at + length
            }
            _ => return self.bad(at),
        };
        node.end = end as u32;
        self.doc.nodes.push(node);
        Ok(end)
    }

    fn word(
        &self,
        at: usize,
        word: &[u8],
        node: &mut Node,
        kind: Kind,
    ) -> Result<usize, JsonError> {
        node.kind = kind;
        let found = &self.text[at..self.text.len().min(at + word.len())];
        if found == word {
            return Ok(at + word.len());
        }
        self.bad(if word.starts_with(found) {
            self.text.len()
        } else {
            at
        })
    }

    /// The content of the string that opens at `at`: its start, its end and whether it has escapes.
    fn string(&self, at: usize) -> Result<(usize, usize, bool), JsonError> {
        let start = at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            at = match find_quote_or_backslash(self.text, at) {
                Some(found) => found,
                None => return self.bad(self.text.len()),
            };
            if self.text[at] == b'"' {
                return Ok((start, at, escaped));
            }
            escaped = true;
            at += match self.text.get(at + 1) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                Some(b'u') => match self.text.get(at + 2..at + 6) {
                    Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => 6,
                    Some(_) => return self.bad(at),
                    None => return self.bad(self.text.len()),
                },
                Some(_) => return self.bad(at),
                None => return self.bad(self.text.len()),
            };
        }
    }

    /// [`DUPLICATE`] if the open object already has this key, else 0.
    fn duplicate(&mut self, hash: u32, key: &[u8], escaped: bool) -> u8 {
        let Some(top) = self.open.last_mut() else {
            return 0;
        };
        let bit = 1 << (hash & 63);
        let maybe = top.seen & bit != 0;
        top.seen |= bit;
        // Large objects are looked at once, when they close.
        if !maybe || top.children > LARGE_OBJECT {
            return 0;
        }
        let mut sibling = top.node + 1;
        for _ in 0..top.children {
            let node = self.doc.nodes[sibling as usize];
            if node.hash == hash && same_key(self.text, &node, key, escaped) {
                self.doc.duplicate_keys = true;
                return DUPLICATE;
            }
            sibling = node.next;
        }
        0
    }

    fn close(&mut self, end: usize) {
        let Some(top) = self.open.pop() else { return };
        let after = self.doc.nodes.len() as u32;
        let node = &mut self.doc.nodes[top.node as usize];
        node.end = end as u32;
        node.next = after;
        if top.object && top.children > LARGE_OBJECT {
            self.mark_duplicates(top.node);
        }
    }

    fn mark_duplicates(&mut self, object: u32) {
        let end = self.doc.nodes[object as usize].next;
        let mut seen: HashSet<Cow<'_, [u8]>> = HashSet::new();
        let mut child = object + 1;
        while child < end {
            let node = &mut self.doc.nodes[child as usize];
            let key = &self.text[node.key_start as usize..node.key_end as usize];
            let key = if node.flags & KEY_ESCAPED != 0 {
                Cow::Owned(unescape(key).into_owned().into_bytes())
            } else {
                Cow::Borrowed(key)
            };
            if !seen.insert(key) {
                node.flags |= DUPLICATE;
                self.doc.duplicate_keys = true;
            }
            child = node.next;
        }
    }
}

/// Objects with more keys than this are searched for duplicates with a hash set (against quadratic time).
const LARGE_OBJECT: u32 = 64;

fn same_key(text: &[u8], node: &Node, key: &[u8], escaped: bool) -> bool {
    let other = &text[node.key_start as usize..node.key_end as usize];
    if !escaped && node.flags & KEY_ESCAPED == 0 {
        other == key
    } else {
        unescape(other) == unescape(key)
    }
}

/// Numbers as JSON has them, and `NaN`, infinities and leading zeros as sloppy writers have them.
fn is_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if matches!(digits, b"NaN" | b"Infinity") {
        return true;
    }
    let whole = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let mut rest = &digits[whole..];
    if whole == 0 {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let n = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if n == 0 {
            return false;
        }
        rest = &fraction[n..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent
            .strip_prefix(b"+")
            .or(exponent.strip_prefix(b"-"))
            .unwrap_or(exponent);
        return !exponent.is_empty() && exponent.iter().all(u8::is_ascii_digit);
    }
    rest.is_empty()
}

/// Eight bytes at a time: a byte of `x` is zero where the text has the byte that was spread over `pattern`.
fn find_quote_or_backslash(text: &[u8], mut at: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zero_bytes = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    while let Some(chunk) = text.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let found =
            zero_bytes(word ^ (ONES * b'"' as u64)) | zero_bytes(word ^ (ONES * b'\\' as u64));
        if found != 0 {
            // The lowest set bit is exact; higher ones may be carried over.
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    text[at.min(text.len())..]
        .iter()
        .position(|b| matches!(b, b'"' | b'\\'))
        .map(|i| at + i)
}
