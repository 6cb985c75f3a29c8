//! The one pass over a text that makes the index of [`super::Doc`].
//!
//! [`Scanner`] walks with a stack of open objects and arrays and never recurses. It is strict in structure, lenient in
//! numbers and strings, and tells an incomplete text from a wrong one, so that a reader of a stream knows whether more
//! bytes may help.

use std::borrow::Cow;
use std::collections::HashSet;

use super::{
    DUPLICATE, Doc, JsonError, JsonErrorKind, KEY_DOTTED, KEY_ESCAPED, Kind, MAX_DEPTH, Node,
    VALUE_ESCAPED, has_dot, is_plain_number, key_hash, skip_space, unescape,
};

#[derive(Debug, Clone)]
pub(super) struct Open {
    node: u32,
    children: u32,
    /// One bit per key hash seen, so that few keys are compared.
    seen: [u64; 2],
    /// The bracket that closes it.
    end: u8,
}

/// The hash of a key, where it begins and ends, and its flags.
type Key = (u32, u32, u32, u8);

const NO_KEY: Key = (0, 0, 0, 0);

/// [`skip_space`] where there is seldom any.
#[inline]
fn solid(text: &[u8], at: usize) -> usize {
    match text.get(at) {
        Some(byte) if *byte > b' ' => at,
        _ => skip_space(text, at),
    }
}

pub(super) struct Scanner<'t, 'd> {
    pub(super) text: &'t [u8],
    pub(super) doc: &'d mut Doc,
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
        let text = self.text;
        let mut at = skip_space(text, from);
        let mut key = NO_KEY;
        loop {
            at = self.value(at, key)?;
            // To the next value; of what has ended there is none.
            loop {
                let Some(top) = self.doc.open.last_mut() else {
                    return Ok(at);
                };
                at = solid(text, at);
                let Some(&byte) = text.get(at) else {
                    return self.bad(at);
                };
                if byte == top.end {
                    at += 1;
                    self.close(at);
                    continue;
                }
                if top.children > 0 {
                    if byte != b',' {
                        return self.bad(at);
                    }
                    at = solid(text, at + 1);
                }
                top.children += 1;
                if top.end == b']' {
                    key = NO_KEY;
                    break;
                }
                if text.get(at) != Some(&b'"') {
                    return self.bad(at);
                }
                let (hash, start, end, flags) = self.key(at)?;
                at = solid(text, end + 1);
                if text.get(at) != Some(&b':') {
                    return self.bad(at);
                }
                at = solid(text, at + 1);
                let escaped = flags & KEY_ESCAPED != 0;
                let flags = flags | self.duplicate(hash, &text[start..end], escaped);
                key = (hash, start as u32, end as u32, flags);
                break;
            }
        }
    }

    /// The key that opens at `at`: its hash, where its content starts and ends, and its flags.
    #[inline(always)]
    fn key(&mut self, at: usize) -> Result<(u32, usize, usize, u8), JsonError> {
        if let Some((length, hash, flags)) = self.doc.known.key(self.text, at + 1) {
            return Ok((hash, at + 1, at + 1 + length, flags));
        }
        let (start, end, escaped) = self.string(at)?;
        let name = &self.text[start..end];
        if escaped {
            let hash = key_hash(unescape(name).as_bytes());
            return Ok((hash, start, end, KEY_ESCAPED | KEY_DOTTED));
        }
        let (hash, flags) = (key_hash(name), if has_dot(name) { KEY_DOTTED } else { 0 });
        self.doc.known.learn(self.text, start..end, hash, flags);
        Ok((hash, start, end, flags))
    }

    /// Scans the value at `at`; of an object or array only its opening.
    #[inline(always)]
    fn value(
        &mut self,
        at: usize,
        (hash, key_start, key_end, flags): Key,
    ) -> Result<usize, JsonError> {
        let number = self.doc.nodes.len() as u32;
        let Some(&byte) = self.text.get(at) else {
            return self.bad(at);
        };
        let node = |kind, start: usize, end: usize, escaped| Node {
            hash,
            key_start,
            key_end,
            start: start as u32,
            end: end as u32,
            next: number + 1,
            kind,
            flags: if escaped {
                flags | VALUE_ESCAPED
            } else {
                flags
            },
        };
        if byte == b'"' {
            let (start, end, escaped) = self.string(at)?;
            self.doc.nodes.push(node(Kind::String, start, end, escaped));
            return Ok(end + 1);
        }
        let (kind, end) = match byte {
            b'{' | b'[' => {
                if self.doc.open.len() == MAX_DEPTH {
                    return self.error(JsonErrorKind::TooDeep, at);
                }
                let (kind, end) = match byte {
                    b'{' => (Kind::Object, b'}'),
                    _ => (Kind::Array, b']'),
                };
                self.doc.open.push(Open {
                    node: number,
                    children: 0,
                    seen: [0; 2],
                    end,
                });
                // Its end is filled in when it closes.
                (kind, at + 1)
            }
            b't' => (Kind::True, self.word(at, b"true")?),
            b'f' => (Kind::False, self.word(at, b"false")?),
            b'n' => (Kind::Null, self.word(at, b"null")?),
            b'-' | b'0'..=b'9' | b'N' | b'I' => (Kind::Number, self.number(at)?),
            _ => return self.bad(at),
        };
        self.doc.nodes.push(node(kind, at, end, false));
        Ok(end)
    }

    /// Where the number at `at` ends.
    fn number(&mut self, at: usize) -> Result<usize, JsonError> {
        let length = self.text[at..]
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
            .count();
        if at + length == self.text.len() && !self.doc.open.is_empty() {
            return self.bad(at + length);
        }
        let written = &self.text[at..at + length];
        if !is_plain_number(written) {
            if !is_number(written) {
                return self.bad(at);
            }
            self.doc.odd_numbers = true;
        }
        Ok(at + length)
    }

    /// Where the word at `at` ends.
    fn word(&self, at: usize, word: &[u8]) -> Result<usize, JsonError> {
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
    #[inline(always)]
    fn string(&self, at: usize) -> Result<(usize, usize, bool), JsonError> {
        let start = at + 1;
        match memchr::memchr2(b'"', b'\\', &self.text[start..]) {
            Some(length) if self.text[start + length] == b'"' => Ok((start, start + length, false)),
            Some(length) => self.escaped(start, start + length),
            None => self.bad(self.text.len()),
        }
    }

    /// The same for a string of which the first backslash is at `at`.
    #[cold]
    fn escaped(&self, start: usize, mut at: usize) -> Result<(usize, usize, bool), JsonError> {
        loop {
            if self.text[at] == b'"' {
                return Ok((start, at, true));
            }
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
            at = match self
                .text
                .get(at..)
                .map(|rest| memchr::memchr2(b'"', b'\\', rest))
            {
                Some(Some(length)) => at + length,
                _ => return self.bad(self.text.len()),
            };
        }
    }

    /// [`DUPLICATE`] if the open object already has this key, else 0.
    fn duplicate(&mut self, hash: u32, key: &[u8], escaped: bool) -> u8 {
        let Some(top) = self.doc.open.last_mut() else {
            return 0;
        };
        let (half, bit) = (&mut top.seen[hash as usize & 1], 1 << (hash >> 1 & 63));
        let maybe = *half & bit != 0;
        *half |= bit;
        // Large objects are looked at once, when they close.
        let siblings = top.children - 1;
        if !maybe || siblings > LARGE_OBJECT {
            return 0;
        }
        let mut sibling = top.node + 1;
        for _ in 0..siblings {
            let node = &self.doc.nodes[sibling as usize];
            if node.hash == hash && same_key(self.text, node, key, escaped) {
                self.doc.duplicate_keys = true;
                return DUPLICATE;
            }
            sibling = node.next;
        }
        0
    }

    fn close(&mut self, end: usize) {
        let Some(top) = self.doc.open.pop() else {
            return;
        };
        let after = self.doc.nodes.len() as u32;
        let node = &mut self.doc.nodes[top.node as usize];
        node.end = end as u32;
        node.next = after;
        if top.end == b'}' && top.children > LARGE_OBJECT {
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
