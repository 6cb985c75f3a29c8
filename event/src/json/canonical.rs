//! What two texts of the same JSON have in common.
//!
//! [`canonical`] gives bytes to compare, which are the same however a text is spaced, escaped and ordered: the same
//! record may come on several ways, and every way writes it as it likes (decision 17). They are not JSON and are not
//! stored, but for a hash of them. What readers make different things of has no such form. [`said_hash`] compares the
//! same where speed counts and nothing is stored.

use std::hash::Hasher;

use rustc_hash::FxHasher;

use super::{Doc, Kind, Value};

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

/// 64 bits of what an indexed text says: equal for two texts whose [`canonical`] forms are, and otherwise by chance
/// alone. Cheaper, since nothing is sorted or copied. Not to be stored, and no proof: whoever wants to find
/// two texts with the same hash can. `None` if the text has a key twice in one object.
pub fn said_hash(doc: &Doc, text: &[u8]) -> Option<u64> {
    (!doc.has_duplicate_keys()).then(|| hash(doc.root(text)))
}

fn hash(value: Value<'_>) -> u64 {
    let mut hasher = FxHasher::default();
    match value.kind() {
        Kind::Object => {
            let (mut many, mut sum) = (0_u64, 0_u64);
            for member in value.children() {
                let mut of_member = FxHasher::default();
                of_member.write(member.key().unwrap_or_default().as_bytes());
                of_member.write_u64(hash(member));
                // A sum has no order.
                sum = sum.wrapping_add(of_member.finish());
                many += 1;
            }
            hasher.write_u8(b'{');
            hasher.write_u64(many);
            hasher.write_u64(sum);
        }
        Kind::Array => {
            hasher.write_u8(b'[');
            value
                .children()
                .for_each(|element| hasher.write_u64(hash(element)));
        }
        Kind::String => {
            hasher.write_u8(b'"');
            hasher.write(value.as_str().unwrap_or_default().as_bytes());
        }
        _ => {
            hasher.write_u8(b'=');
            hasher.write(value.raw());
        }
    }
    hasher.finish()
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
        said_hash(&Doc::parse(text.as_bytes()).unwrap(), text.as_bytes())
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
    }
}
