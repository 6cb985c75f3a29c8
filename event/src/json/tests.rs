//! What is read and what is refused.

use proptest::prelude::*;

use super::*;

fn to_serde(value: Value<'_>) -> serde_json::Value {
    match value.kind() {
        Kind::Array => value.children().map(to_serde).collect(),
        Kind::Object => serde_json::Value::Object(
            value
                .children()
                .map(|c| (c.key().unwrap().into_owned(), to_serde(c)))
                .collect(),
        ),
        _ => serde_json::from_slice(value.raw()).unwrap(),
    }
}

pub(super) fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        // -0 is equal to 0 for serde_json, but not the same text.
        any::<f64>().prop_map(|n| (n + 0.0).into()),
        ".*".prop_map(Into::into)
    ];
    leaf.prop_recursive(6, 200, 80, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..80).prop_map(Into::into),
            prop::collection::hash_map(".{0,12}", inner, 0..80)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect()))
        ]
    })
}

/// Keys of every length around those that are kept, many with the same start, some odd.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab]{0,3}",
        "eventSou[ab.]{0,30}",
        (0..40_usize).prop_map(|n| "k".repeat(n)),
        "[\u{0}a.é]{0,20}",
        Just("\\u0061b".to_owned()),
    ]
}

proptest! {
    #[test]
    fn reads_what_serde_writes(value in json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
        let doc = Doc::parse(&text).unwrap();
        prop_assert!(!doc.has_duplicate_keys());
        // serde_json reads some floats back one bit off, so both sides read the same text.
        prop_assert_eq!(to_serde(doc.root(&text)), serde_json::from_slice::<serde_json::Value>(&text).unwrap());
    }

    #[test]
    fn takes_no_less_and_not_much_more_than_serde(text in "[\\[\\]{}:,\"a1 .eE+-]{0,24}") {
        let serde = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        let ours = Doc::parse(text.as_bytes()).is_ok();
        prop_assert!(ours || !serde, "serde takes what we refuse: {text}");
        if ours && !serde {
            prop_assert!(text.contains(['0', '1']), "we take what serde refuses: {text}");
        }
    }

    #[test]
    fn a_doc_reads_the_same_whatever_it_read_before(
        keys in prop::collection::vec(key(), 1..6),
        texts in prop::collection::vec(prop::collection::vec((any::<prop::sample::Index>(), 0..9_u8), 0..8), 2..12),
    ) {
        let mut used = Doc::new();
        for members in texts {
            let members = members.iter().map(|(i, n)| format!("\"{}\":{n}", i.get(&keys)));
            let text = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
            let fresh = Doc::parse(text.as_bytes());
            let end = used.scan(text.as_bytes(), 0);
            prop_assert_eq!(end.is_ok(), fresh.is_ok(), "{}", text);
            let Ok(fresh) = fresh else { continue };
            let tell = |doc: &Doc| {
                let members = doc.root(text.as_bytes()).children();
                let members: Vec<_> = members.map(|v| (v.key().unwrap().into_owned(), v.raw().to_vec())).collect();
                (members, doc.has_duplicate_keys(), said_hash(doc, doc.root(text.as_bytes())))
            };
            prop_assert_eq!(tell(&used), tell(&fresh), "{}", text);
        }
    }

    #[test]
    fn never_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Doc::parse(&text);
    }

    #[test]
    fn a_cut_text_is_incomplete(value in json(), cut in any::<prop::sample::Index>()) {
        let text = serde_json::to_vec(&[value]).unwrap();
        let cut = cut.index(text.len());
        let error = Doc::parse(&text[..cut]).unwrap_err();
        prop_assert_eq!(error.kind, JsonErrorKind::Incomplete);
    }
}

#[test]
fn first_of_duplicates_is_kept() {
    let text = br#"{"a":1,"b":{"x":1,"\u0078":2},"a":{"b":3},"\u0061":4}"#;
    let doc = Doc::parse(text).unwrap();
    assert!(doc.has_duplicate_keys());
    let root = doc.root(text);
    assert_eq!(root.get("a").unwrap().raw(), b"1");
    assert_eq!(root.at(&["b", "x"]).unwrap().raw(), b"1");
    assert_eq!(root.children().count(), 2);
    assert_eq!(
        root.leaves().map(|v| v.raw()).collect::<Vec<_>>(),
        [b"1", b"1"]
    );
}

#[test]
fn duplicates_in_large_objects() {
    let members: Vec<String> = (0..5_000)
        .map(|i| format!("\"k{}\":{i}", i % 4_999))
        .collect();
    let text = format!("{{{}}}", members.join(","));
    let doc = Doc::parse(text.as_bytes()).unwrap();
    assert!(doc.has_duplicate_keys());
    assert_eq!(doc.root(text.as_bytes()).children().count(), 4_999);
    assert_eq!(doc.root(text.as_bytes()).get("k0").unwrap().raw(), b"0");
}

#[test]
fn depth_is_capped_without_recursion() {
    let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
    assert!(Doc::parse(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(
        Doc::parse(&nested(100_000)).unwrap_err().kind,
        JsonErrorKind::TooDeep
    );
}

#[test]
fn odd_numbers_and_bytes_are_kept() {
    let text = b"{\"n\":NaN,\"z\":007,\"big\":1180591620717411303424,\"e\":1e999,\"m\":-0,\"ok\":[1,-2.5,1e3],\"bad\":\"a\xffb\\ud800\x01\"}";
    let doc = Doc::parse(text).unwrap();
    let root = doc.root(text);
    assert!(doc.may_have_odd_numbers() && !root.is_utf8());
    for key in ["n", "z", "big", "e", "m"] {
        assert!(root.get(key).unwrap().is_odd_number(), "{key}");
    }
    assert!(
        root.get("ok")
            .unwrap()
            .children()
            .all(|v| !v.is_odd_number())
    );
    assert_eq!(root.text_at(&["bad"]).unwrap(), "a\u{fffd}b\u{fffd}\u{1}");
    assert_eq!(root.raw(), text);
}

#[test]
fn scan_stops_after_the_value() {
    let text = br#" {"a":[1, 2]} , {"b":"\"x"}"#;
    let mut doc = Doc::new();
    let end = doc.scan(text, 0).unwrap();
    assert_eq!(&text[end..end + 2], b" ,");
    assert_eq!(doc.scan(text, end + 2).unwrap(), text.len());
    assert_eq!(doc.root(text).text_at(&["b"]).unwrap(), "\"x");
}

#[test]
fn errors_name_the_place() {
    for (text, kind, offset) in [
        (r#"{"a" 1}"#, JsonErrorKind::Syntax, 5),
        (r#"{"a":tru"#, JsonErrorKind::Incomplete, 8),
        (r#"["\q"]"#, JsonErrorKind::Syntax, 2),
        ("[1,]", JsonErrorKind::Syntax, 3),
        ("[1] x", JsonErrorKind::Syntax, 4),
        ("", JsonErrorKind::Incomplete, 0),
    ] {
        assert_eq!(
            Doc::parse(text.as_bytes()).unwrap_err(),
            JsonError { kind, offset },
            "{text}"
        );
    }
}
