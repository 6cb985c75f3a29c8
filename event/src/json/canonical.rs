//! What two texts of the same JSON have in common.
//!
//! [`canonical`] gives bytes to compare, which are the same however a text is spaced, escaped and ordered: the same
//! record may come on several ways, and every way writes it as it likes (decision 17). They are not JSON and are not
//! stored, but for a hash of them. What readers make different things of has no such form. [`said_hash`] compares the
//! same where speed counts and nothing is stored.

use std::hash::Hasher;

use rustc_hash::FxHasher;

use super::{Doc, KEY_ESCAPED, Kind, MAX_DEPTH, VALUE_ESCAPED, Value, ends, key_hash, unescape};

/// What is the same of two texts of the same JSON, however they are spaced, escaped and ordered: not JSON itself, but
/// bytes to compare. Numbers are the same if they are written the same. `None` if the text is no JSON, or has a key
/// twice in one object, of which readers make different things.
pub fn canonical(text: &[u8]) -> Option<Vec<u8>> {
    let doc = Doc::parse(text).ok()?;
    if doc.has_duplicate_keys() {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    write_canonical(doc.root(text), &mut out);
    Some(out)
}

/// A letter for the kind, a length, and then so many bytes or values. A document is never nested deeper than is safe.
fn write_canonical(value: Value<'_>, out: &mut Vec<u8>) {
    let mut sized = |letter: u8, bytes: &[u8]| {
        out.push(letter);
        out.extend((bytes.len() as u64).to_le_bytes());
        out.extend(bytes);
    };
    match value.kind() {
        Kind::Object => {
            let mut members: Vec<_> = value
                .children()
                .map(|member| (member.key().unwrap_or_default(), member))
                .collect();
            members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            out.push(b'{');
            out.extend((members.len() as u64).to_le_bytes());
            for (key, member) in members {
                out.extend((key.len() as u64).to_le_bytes());
                out.extend(key.as_bytes());
                write_canonical(member, out);
            }
        }
        Kind::Array => {
            out.push(b'[');
            out.extend((value.children().count() as u64).to_le_bytes());
            value
                .children()
                .for_each(|element| write_canonical(element, out));
        }
        Kind::String => sized(b'"', value.as_str().unwrap_or_default().as_bytes()),
        _ => sized(b'=', value.raw()),
    }
}

/// 64 bits of what an indexed text says (`root` is the whole of it): equal for two texts whose [`canonical`] forms are,
/// and otherwise by chance alone. Cheaper, since nothing is sorted or copied. Not to be stored, and no proof: whoever
/// wants to find two texts with the same hash can. `None` if the text has a key twice in one object.
///
/// A document is the set of its leaves, each with its keys and places from the root: the hash is the sum of theirs, so
/// that the order of members does not count. Objects and arrays with nothing in them are leaves.
pub fn said_hash(doc: &Doc, root: Value<'_>) -> Option<u64> {
    if doc.has_duplicate_keys() {
        return None;
    }
    let mut sum = 0_u64;
    // The open objects and arrays: where each ends, the hash of its place, and how many elements an array had so far.
    let mut open = [(u32::MAX, 0_u64, 0_u64); MAX_DEPTH + 1];
    let mut depth = 0;
    for (at, node) in doc.nodes.iter().enumerate() {
        while open[depth].0 <= at as u32 {
            depth -= 1;
        }
        let (_, above, elements) = &mut open[depth];
        let step = if node.key_start == 0 {
            *elements += 1;
            *elements
        } else {
            let key = &root.text[node.key_start as usize..node.key_end as usize];
            match node.flags & KEY_ESCAPED == 0 && root.is_utf8() {
                true if key.len() <= 16 => node.hash.into(),
                true => of_key(key),
                false => of_key(unescape(key).as_bytes()),
            }
        };
        let place = above
            .rotate_left(23)
            .wrapping_add(step)
            .wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let raw = &root.text[node.start as usize..node.end as usize];
        let value = match node.kind {
            Kind::Object | Kind::Array if node.next > at as u32 + 1 => {
                depth += 1;
                open[depth] = (node.next, place, 0);
                continue;
            }
            Kind::Object => b'{'.into(),
            Kind::Array => b'['.into(),
            Kind::String if node.flags & VALUE_ESCAPED == 0 && root.is_utf8() => !of_bytes(raw),
            Kind::String => !of_bytes(unescape(raw).as_bytes()),
            _ => of_bytes(raw),
        };
        sum = sum.wrapping_add(mixed(place, value));
    }
    Some(sum)
}

/// Of a short key the scanner has hashed every byte.
#[inline]
fn of_key(key: &[u8]) -> u64 {
    match key.len() {
        0..=16 => key_hash(key).into(),
        _ => of_bytes(key),
    }
}

#[inline]
fn of_bytes(bytes: &[u8]) -> u64 {
    if bytes.len() <= 16 {
        let (head, tail) = ends(bytes);
        return mixed(head, tail.wrapping_add((bytes.len() as u64) << 59));
    }
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// Not linear in either, so that no sum of two is that of two others with their values exchanged.
#[inline]
fn mixed(place: u64, value: u64) -> u64 {
    let product =
        u128::from(place ^ 0x9E37_79B9_7F4A_7C15) * u128::from(value ^ 0xC2B2_AE3D_27D4_EB4F);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::json;
    use super::*;

    /// The same JSON as `value` in another text: other spaces, another order, other escapes.
    fn other_text(value: &serde_json::Value, turn: usize) -> String {
        use serde_json::Value::{Array, Object, String};
        let escaped = |text: &str| -> std::string::String {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
            format!("\"{}\"", units.collect::<std::string::String>())
        };
        match value {
            Object(members) => {
                let mut members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("{} :\n {}", escaped(key), other_text(value, turn)))
                    .collect();
                let many = members.len().max(1);
                members.rotate_left(turn % many);
                format!("{{\t{} }}", members.join(" , "))
            }
            Array(elements) => {
                let elements: Vec<_> = elements.iter().map(|e| other_text(e, turn)).collect();
                format!("[ {}\r\n]", elements.join(","))
            }
            String(text) => escaped(text),
            other => other.to_string(),
        }
    }

    fn said(text: &str) -> Option<u64> {
        let doc = Doc::parse(text.as_bytes()).unwrap();
        said_hash(&doc, doc.root(text.as_bytes()))
    }

    proptest! {
        #[test]
        fn the_same_json_is_canonically_the_same(value in json(), turn in 0_usize..7) {
            let text = canonical(value.to_string().as_bytes()).unwrap();
            let other = other_text(&value, turn);
            prop_assert_eq!(canonical(other.as_bytes()).unwrap(), text);
            prop_assert_eq!(said(&other), said(&value.to_string()));
        }

        #[test]
        fn other_json_is_canonically_another(a in json(), b in json()) {
            let same = canonical(a.to_string().as_bytes()) == canonical(b.to_string().as_bytes());
            prop_assert_eq!(same, a == b);
            prop_assert_eq!(said(&a.to_string()) == said(&b.to_string()), a == b);
        }
    }

    #[test]
    fn what_has_a_key_twice_has_no_canonical_form() {
        assert_eq!(canonical(br#"{"a":1,"b":{"x":1,"\u0078":1}}"#), None);
        assert_eq!(canonical(b"START RequestId: x"), None);
        assert_eq!(said(r#"{"a":1,"b":{"x":1,"\u0078":1}}"#), None);
        let pair = |a: &str, b: &str| {
            let same = canonical(a.as_bytes()) == canonical(b.as_bytes());
            assert_eq!(said(a) == said(b), same, "{a} {b}");
            same
        };
        assert!(pair(r#"{"a":1,"b":"x"}"#, r#" {"b":"\u0078", "a":1}"#));
        assert!(!pair(r#"{"a":1,"b":"x"}"#, r#"{"a":1,"b":"y"}"#));
        assert!(!pair(r#"["ab","c"]"#, r#"["a","bc"]"#));
        assert!(!pair(r#"{"a":null}"#, r#"{"a":"null"}"#));
        assert!(!pair(r#"[[],1]"#, r#"[[1]]"#));
        assert!(!pair("{}", "[]"));
        assert!(!pair(r#"[{}]"#, r#"[[]]"#));
        assert!(!pair(r#"{"a":"1"}"#, r#"{"a":1}"#));
        assert!(!pair(r#"{"a":{"b":1},"c":2}"#, r#"{"a":{"b":1,"c":2}}"#));
    }

    #[test]
    fn values_that_change_places_are_told_apart() {
        let mut seen = std::collections::HashSet::new();
        for (a, b) in (0..60).flat_map(|a| (0..60).map(move |b| (a, b))) {
            assert!(
                seen.insert(said(&format!(r#"{{"a":{a},"b":{b}}}"#))),
                "{a} {b}"
            );
            assert!(seen.insert(said(&format!("[{a},{b}]"))), "{a} {b}");
        }
    }
}
