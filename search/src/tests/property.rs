//! Searching an index gives what a linear scan gives, whatever the events and the query.
//!
//! Events are made of few texts, chosen so that queries meet them and so that folding, cutting and joining terms could go
//! wrong; some events exceed the bounds of the index. Queries use every operator, nested, with time ranges, both orders
//! and short pages. The parser gets texts of its own that are no queries at all.

use event::{Event, Flag, Invocation, Outcome};
use proptest::prelude::*;
use proptest::sample::select;

use super::{NOW, all, event, folder_of, ids, searcher};
use crate::query::parse;
use crate::{Config, Request};

/// Few texts, so that queries meet events; among them what folding, cutting and joining terms could get wrong.
const TEXTS: &[&str] = &[
    "",
    "a",
    "b",
    "A b",
    "a b c",
    "b a",
    "ab",
    "abab",
    "aba-b",
    "CreateUser",
    "create",
    "user_x",
    "203.0.113.7",
    "203.0.114.9",
    "2001:db8::1",
    "10",
    "9",
    "-5",
    "1e1",
    "007",
    "true",
    "2026-03-02T11:00:00Z",
    "2026-03-01",
    "7b72a207-9b9e-40e1-bcec-b4ba06bc343b",
    "arn:aws:iam::1:user/Bob",
    "Über ΑΣ",
    "ΑΣΟ",
    "*",
    "?",
    "\"",
    "\\",
    "(",
    "/x/",
    "not authorized",
    "is Not authorized.",
    "x\u{1}y",
    "\u{2}",
];

const NAMES: &[&str] = &["p", "q", "p.q", "action", "raw", "r", ""];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => select(TEXTS).prop_map(str::to_owned),
        1 => (select(TEXTS), 1_usize..400).prop_map(|(t, n)| t.repeat(n)),
        1 => (select(TEXTS), 255_usize..258).prop_map(|(t, n)| format!("{}{t}", "z".repeat(n))),
    ]
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        8 => text().prop_map(serde_json::Value::from),
        1 => (-3..20_i64).prop_map(serde_json::Value::from),
        1 => any::<bool>().prop_map(serde_json::Value::from),
        1 => Just(serde_json::Value::Null),
        1 => (0..4_i32).prop_map(|n| serde_json::Value::from(f64::from(n) + 0.5)),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
            proptest::collection::vec((select(NAMES), inner), 0..4).prop_map(|members| {
                members
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

fn raw() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => proptest::collection::vec((select(NAMES), json()), 0..5).prop_map(|members| {
            let object: serde_json::Map<_, _> = members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            serde_json::to_string(&object).unwrap()
        }),
        1 => json().prop_map(|v| v.to_string()),
        2 => text(),
        // Beyond the bounds: too many leaves, with one that counts at the end.
        1 => text().prop_map(|t| {
            let many = vec!["m"; crate::schema::MAX_LEAVES + 5];
            serde_json::json!({"r": many, "z": 1, "zz": {"p": t}}).to_string()
        }),
    ]
}

prop_compose! {
    pub(super) fn events()(parts in proptest::collection::vec(
        (raw(), 0..40_i64, text(), text(), select(TEXTS), any::<(bool, bool, Option<bool>)>()), 1..30)
    ) -> Vec<Event> {
        parts.into_iter().enumerate().map(|(i, (raw, seconds, message, agent, action, (denied, flagged, mfa)))| {
            let mut event = event(i as u128 + 1, seconds, &raw);
            event.error_message = message.as_str().into();
            event.user_agent = agent.as_str().into();
            event.action = action.into();
            event.resources = raw.split(':').take(2).map(Into::into).collect();
            event.mfa = mfa;
            if denied {
                event.outcome = Outcome::Denied;
                event.invocation = Some(Box::new(Invocation {
                    status: "timeout".into(),
                    duration_ms: Some(seconds as f64 / 4.0),
                    ..Invocation::default()
                }));
                event.labels = [("owner".into(), action.into())].into();
            }
            if flagged {
                event.flags.set(Flag::Truncated);
            }
            event
        }).collect()
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_alphanumeric() {
                c.to_string()
            } else {
                format!("\\{c}")
            }
        })
        .collect()
}

pub(super) fn field() -> impl Strategy<Value = &'static str> {
    select(
        &[
            "p",
            "q",
            "p.q",
            "p.q.p",
            "action",
            "raw.action",
            "r",
            "raw",
            "error_message",
            "user_agent",
            "resources",
            "zz.p",
            "labels.owner",
            "invocation.duration_ms",
            "invocation.status",
            "flags",
            "mfa",
            "outcome",
            "id",
            "none",
        ][..],
    )
}

fn pattern() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![
            Just("*".to_owned()),
            Just("?".to_owned()),
            select(TEXTS).prop_map(escaped)
        ],
        1..4,
    )
    .prop_map(|parts| parts.concat())
    .prop_filter("a pattern has something", |p| !p.is_empty())
}

fn limit() -> impl Strategy<Value = String> {
    prop_oneof![
        select(
            &[
                "*",
                "0",
                "5",
                "10",
                "2.5",
                "-1d",
                "now",
                "2026-03-02",
                "a",
                "b",
                "z"
            ][..]
        )
        .prop_map(str::to_owned),
        select(TEXTS).prop_map(quoted),
    ]
}

fn test() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => text().prop_map(|t| quoted(&t)),
        2 => pattern(),
        1 => select(&["/a.*/", "/[0-9]+/", "/.*b.?/", "/(create|user).*/", "/.*/"][..]).prop_map(str::to_owned),
        1 => select(&["203.0.113.0/24", "2001:db8::/32", "0.0.0.0/0"][..]).prop_map(str::to_owned),
    ]
}

/// A value of a list.
fn item() -> impl Strategy<Value = String> {
    prop_oneof![
        5 => text().prop_map(|t| quoted(&t)),
        2 => select(&["a", "AB", "203.0.113.7", "10", "true", "b*", "203.0.113.0/24", "/a.*/"][..]).prop_map(str::to_owned),
    ]
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        (-6..12_i32).prop_map(|n| n.to_string()),
        (0..40_i32).prop_map(|n| (f64::from(n) / 4.0).to_string()),
    ]
}

fn clause() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (field(), test()).prop_map(|(f, t)| format!("{f}:{t}")),
        3 => test(),
        2 => (field(), limit(), limit()).prop_map(|(f, a, b)| format!("{f}:[{a} TO {b}}}")),
        1 => (field(), select(&["<", "<=", ">", ">="][..]), limit()).prop_map(|(f, s, l)| format!("{f}:{s}{l}")),
        1 => field().prop_map(|f| format!("{f}:*")),
        1 => field().prop_map(|f| format!("_missing_:{f}")),
        2 => (field(), proptest::collection::vec(item(), 1..4)).prop_map(|(f, list)| format!("{f}: IN [{}]", list.join(", "))),
        1 => (field(), text(), test()).prop_map(|(f, a, b)| format!("{f}:({} OR NOT {b})", quoted(&a))),
        1 => (field(), number(), number()).prop_map(|(f, a, b)| format!("{f}:[{a} TO {b}]")),
        1 => (0..40_i64, 0..40_i64).prop_map(|(a, b)| format!("time:[-{}s TO -{}s]", a.max(b), a.min(b))),
        1 => (0..40_i64).prop_map(|a| format!("time:>{}", NOW.plus(-a * 1_000_000))),
        1 => Just("ingest_time:>=now".to_owned()),
        1 => Just("*".to_owned()),
    ]
}

fn query() -> impl Strategy<Value = String> {
    clause().prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} {b}")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("TRAILWARDEN_LONG").is_some() { 150 } else { 16 }, ..ProptestConfig::default() })]

    #[test]
    fn search_is_a_linear_scan(
        events in events(),
        queries in proptest::collection::vec((query(), 0..45_i64, 0..45_i64, any::<bool>()), 40),
        splits in 1..4_usize,
        old in 0..3_usize,
    ) {
        let parts: Vec<Vec<Event>> = (0..splits)
            .map(|s| events.iter().skip(s).step_by(splits).cloned().collect())
            .collect();
        let dir = folder_of(&parts, old);
        let searcher = searcher(dir.path(), &Config::default());
        for (text, a, b, newest_first) in queries {
            // Bounds of a range may come out reversed or of different kinds: that is refused, which is right too.
            let Ok(query) = parse(&text) else { continue };
            prop_assert_eq!(parse(&query.to_string()), Ok(query.clone()), "{} is shown as {}", text, query);
            let (from, to) = (NOW.plus(-a.max(b) * 1_000_000), NOW.plus(-a.min(b) * 1_000_000));
            let mut expected: Vec<(event::Time, u128)> = events
                .iter()
                .filter(|e| (from..=to).contains(&e.time) && query.matches(e, NOW))
                .map(|e| (e.time, e.id.0))
                .collect();
            expected.sort_unstable();
            if newest_first {
                expected.reverse();
            }
            let expected: Vec<u128> = expected.into_iter().map(|(_, id)| id).collect();
            let request = Request { from: Some(from), to: Some(to), newest_first, count: true, ..all(&text) };
            let answer = searcher.search(&request).unwrap();
            prop_assert_eq!(&ids(&answer), &expected, "{}", text);
            prop_assert_eq!(answer.total, Some(expected.len() as u64));
            let few = searcher.search(&Request { limit: 3, ..request }).unwrap();
            prop_assert_eq!(&ids(&few)[..], &expected[..expected.len().min(3)], "{}", text);
        }
    }

    #[test]
    fn no_text_breaks_the_parser(text in "\\PC{0,40}") {
        if let Err(error) = parse(&text) {
            prop_assert!(error.offset <= text.len() && text.is_char_boundary(error.offset));
            prop_assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn no_signs_break_the_parser(parts in proptest::collection::vec(select(&[
        "(", ")", "[", "]", "{", "}", "\"", "/", "\\", ":", "a", "a:", "*", "?", " ", "AND", "OR ", " NOT ", "-", "!", "&&",
        "||", "&", "TO", " TO ", ">", "<=", "now", "-7d", "10.0.0.0/8", "time:", "IN [", ",", "in", "_missing_:", "raw.", "_exists_:", "é", "+",
    ][..]), 0..12)) {
        let text = parts.concat();
        match parse(&text) {
            Ok(query) => {
                let shown = query.to_string();
                prop_assert_eq!(parse(&shown), Ok(query), "{} is shown as {}", text, shown);
            }
            Err(error) => prop_assert!(error.offset <= text.len() && text.is_char_boundary(error.offset)),
        }
    }
}
