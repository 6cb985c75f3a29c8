//! Aggregations give what counting by hand gives, over splits and merged from several processes.

use std::collections::{BTreeMap, BTreeSet};

use event::Event;
use proptest::prelude::*;

use super::{NOW, all, event, folder, property, searcher};
use crate::aggregate::{Aggregate, Aggregated, Aggregations, Bucket, parse};
use crate::fields::FieldStats;
use crate::query::matches::Subject;
use crate::query::{Field, parse as query};
use crate::schema::value_term_into;
use crate::text::fold;
use crate::{Config, Nodes, Request, SearchError};

/// The values of a field as terms have them, each once.
fn values(event: &Event, field: &str) -> BTreeSet<String> {
    let (values, _) = Subject::event(event).values(&Field::named(field));
    values.iter().map(|v| as_term(v)).collect()
}

fn as_term(value: &str) -> String {
    let mut out = String::new();
    value_term_into(&fold(value), &mut out);
    out
}

/// What a `terms` told, by value without regard to case, and how many events had none.
pub(super) fn counts(result: &Aggregate) -> (BTreeMap<String, u64>, u64) {
    let Aggregate::Terms {
        buckets,
        missing,
        other: 0,
        error: 0,
        ..
    } = result
    else {
        panic!("{result:?}");
    };
    let mut counts = BTreeMap::new();
    for bucket in buckets {
        // A value that was cut is told as its term, or as it is written.
        let hash = bucket.key.rsplit_once('\u{2}').map(|(_, hash)| hash);
        let key = match hash.is_some_and(|h| h.len() == 32 && u128::from_str_radix(h, 16).is_ok()) {
            true => bucket.key.clone(),
            false => as_term(&bucket.key),
        };
        *counts.entry(key).or_default() += bucket.count;
    }
    (counts, *missing)
}

fn by_hand<'e>(
    events: impl Iterator<Item = &'e Event>,
    field: &str,
) -> (BTreeMap<String, u64>, u64) {
    let (mut counts, mut missing) = (BTreeMap::new(), 0);
    for event in events {
        let values = values(event, field);
        missing += u64::from(values.is_empty());
        for value in values {
            *counts.entry(value).or_default() += 1;
        }
    }
    (counts, missing)
}

fn of<'a>(aggregated: &'a BTreeMap<String, Aggregate>, name: &str) -> &'a Aggregate {
    aggregated
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {aggregated:?}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("TRAILWARDEN_LONG").is_some() { 200 } else { 24 }, ..ProptestConfig::default() })]

    #[test]
    fn aggregating_is_counting_by_hand(
        events in property::events(),
        asked in proptest::collection::vec((property::field(), property::field()), 3),
        text in proptest::sample::select(&["", "p:*", "NOT action:a", "time:>-20s", "a"][..]),
        splits in 1..4_usize,
    ) {
        let parts: Vec<Vec<Event>> = (0..splits)
            .map(|s| events.iter().skip(s).step_by(splits).cloned().collect())
            .collect();
        let dir = folder(&parts);
        let whole = searcher(dir.path(), &Config::default());
        let alone: Vec<_> = parts.iter().map(|part| folder(std::slice::from_ref(part))).collect();
        let matching = query(text).unwrap();
        let found: Vec<&Event> = events.iter().filter(|e| matching.matches(e, NOW)).collect();
        for (outer, inner) in asked {
            let aggs: Aggregations = [
                format!("{outer}:10000 > {inner}:10000"),
                format!("time:10s > {inner}:10000 > distinct({outer})"),
                format!("distinct({outer})"),
                format!("percentiles({inner}, 0, 100)"),
                "count()".to_owned(),
            ]
            .iter()
            .flat_map(|short| parse(short, 10).unwrap())
            .collect();
            let aggregated = whole.aggregate(&all(text), &aggs).unwrap();
            prop_assert_eq!(&aggregated.partial, &None);
            prop_assert_eq!(aggregated.matched, found.len() as u64);
            prop_assert_eq!(of(&aggregated.aggs, "count()"), &Aggregate::Count { value: found.len() as u64 });
            let terms = of(&aggregated.aggs, outer);
            prop_assert_eq!(counts(terms), by_hand(found.iter().copied(), outer), "{}", outer);
            let distinct: BTreeSet<String> = found.iter().flat_map(|e| values(e, outer)).collect();
            let Aggregate::Cardinality { value, approximate: false, .. } = of(&aggregated.aggs, &format!("distinct({outer})")) else { panic!() };
            // Columns tell values apart by case.
            prop_assert!(*value >= distinct.len() as u64 && (*value == distinct.len() as u64 || ["action", "outcome"].contains(&outer)));
            let numbers: Vec<f64> = found.iter().flat_map(|e| values(e, inner)).filter_map(|v| v.trim().parse().ok()).filter(|n: &f64| n.is_finite()).collect();
            let Aggregate::Percentiles { count, min, max, .. } = of(&aggregated.aggs, &format!("percentiles({inner}, 0, 100)")) else { panic!() };
            prop_assert_eq!(*count, numbers.len() as u64);
            prop_assert_eq!(*min, numbers.iter().copied().reduce(f64::min));
            prop_assert_eq!(*max, numbers.iter().copied().reduce(f64::max));
            let Aggregate::DateHistogram { buckets, .. } = of(&aggregated.aggs, "time") else { panic!() };
            prop_assert_eq!(buckets.iter().map(|b| b.count).sum::<u64>(), found.len() as u64);
            for Bucket { key, aggs, .. } in buckets {
                let begin = event::Time::parse(key).unwrap();
                let within = found.iter().copied().filter(|e| begin <= e.time && e.time < begin.plus(10_000_000));
                prop_assert_eq!(counts(of(aggs, inner)), by_hand(within, inner), "{} in {}", inner, key);
            }
            // Counted apart, sent and merged, it is the same.
            let mut merged = crate::aggregate::Tallies::default();
            for (i, dir) in alone.iter().enumerate() {
                let tallies = searcher(dir.path(), &Config::default()).tally(&all(text), &aggs).unwrap();
                let sent = serde_json::to_string(&tallies).unwrap();
                let received = serde_json::from_str(&sent).unwrap();
                if i == 0 { merged = received } else { merged.merge(received) }
            }
            let merged = merged.finish(&aggs);
            prop_assert_eq!(counts(of(&merged.aggs, outer)), counts(terms));
            prop_assert_eq!(of(&merged.aggs, "count()"), of(&aggregated.aggs, "count()"));
            prop_assert_eq!(of(&merged.aggs, &format!("distinct({outer})")), of(&aggregated.aggs, &format!("distinct({outer})")));
        }
    }
}

fn told(aggregated: &Aggregated, name: &str) -> Vec<(String, u64)> {
    match of(&aggregated.aggs, name) {
        Aggregate::Terms { buckets, .. } | Aggregate::DateHistogram { buckets, .. } => {
            buckets.iter().map(|b| (b.key.clone(), b.count)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected
        .iter()
        .map(|(k, n)| ((*k).to_owned(), *n))
        .collect()
}

#[test]
fn values_are_told_as_they_are_written_and_the_rest_is_counted() {
    let events = (0..40_u128)
        .map(|i| {
            let raw = format!(r#"{{"Kind":"Kind-{}","n":{i}}}"#, i % 7);
            let mut event = event(i, 3_600 * (i as i64 % 3), if i == 39 { "{}" } else { &raw });
            event.actor = if i % 2 == 0 { "Bob" } else { "Eve" }.into();
            event
        })
        .collect();
    let dir = folder(&[events]);
    let searcher = searcher(dir.path(), &Config::default());
    let ask = |short: &str| {
        let aggregated = searcher.aggregate(&all(""), &parse(short, 2).unwrap());
        aggregated.unwrap()
    };
    assert_eq!(
        told(&ask("actor"), "actor"),
        pairs(&[("Bob", 20), ("Eve", 20)])
    );
    let kinds = ask("Kind");
    assert_eq!(told(&kinds, "Kind"), pairs(&[("Kind-0", 6), ("Kind-1", 6)]));
    let Aggregate::Terms {
        other,
        missing,
        error,
        ..
    } = of(&kinds.aggs, "Kind")
    else {
        panic!();
    };
    assert_eq!((*other, *missing, *error), (27, 1, 0));
    let times = ask("time:1d > actor:1");
    assert_eq!(told(&times, "time"), pairs(&[("2026-03-02T00:00:00Z", 40)]));
    assert_eq!(
        told(&ask("time:1w"), "time"),
        pairs(&[("2026-03-02T00:00:00Z", 40)]),
        "a week begins on Monday"
    );
    assert_eq!(
        told(&ask("time:1h"), "time"),
        pairs(&[
            ("2026-03-02T10:00:00Z", 13),
            ("2026-03-02T11:00:00Z", 13),
            ("2026-03-02T12:00:00Z", 14)
        ])
    );
    let Aggregate::Percentiles { values, mean, .. } =
        &ask("percentiles(n, 50)").aggs["percentiles(n, 50)"]
    else {
        panic!();
    };
    assert_eq!((values[0].value, *mean), (19.0, Some(19.0)));
}

#[test]
fn what_cannot_be_counted_whole_is_said() {
    let dir = folder(&[(0..3_000)
        .map(|i| event(i, i as i64, &format!(r#"{{"a":"v{i}"}}"#)))
        .collect()]);
    let config = Config {
        timeout_ms: 0,
        ..Config::default()
    };
    let aggs = parse("a", 10).unwrap();
    let cut = searcher(dir.path(), &config)
        .aggregate(&all(""), &aggs)
        .unwrap();
    assert!(cut.partial.unwrap().contains("the newest 0 of 1 parts"));
    let patient = searcher(dir.path(), &Config::default());
    let fine = parse("ingest_time:1s > time:1s", 10).unwrap();
    assert!(patient.aggregate(&all(""), &fine).is_ok());
    let far: Vec<Event> = (0..10_500).map(|i| event(i, i as i64, "{}")).collect();
    let dir = folder(&[far]);
    let error = searcher(dir.path(), &Config::default())
        .aggregate(&all(""), &parse("time:1s", 10).unwrap())
        .unwrap_err();
    assert!(
        matches!(&error, SearchError::Aggregation(e) if e.message.contains("more than 10000 buckets")),
        "{error:?}"
    );
}

#[test]
fn a_field_that_nothing_has_is_said_with_what_is_meant() {
    let dir = folder(&[
        vec![event(
            1,
            10,
            r#"{"eventName":"A","userIdentity":{"type":"Root"}}"#,
        )],
        vec![event(2, 5_000, r#"{"old":{"bucketName":"b"}}"#)],
    ]);
    let searcher = searcher(dir.path(), &Config::default());
    let notes = |text: &str| searcher.search(&all(text)).unwrap().notes;
    assert_eq!(
        notes("eventName:A old.bucketName:* NOT userIdentity.type:x time:>-1d"),
        Vec::<String>::new()
    );
    assert_eq!(
        notes("NOT evntName:A"),
        ["no event in this time range has the field `evntName`; did you mean `eventName`?"]
    );
    assert_eq!(
        notes("bucketname:b function:x"),
        [
            "no event in this time range has the field `bucketname`; did you mean `old.bucketName`?",
            "no event in this time range has the field `function`"
        ]
    );
    let recent = Request {
        from: Some(NOW.plus(-60_000_000)),
        ..all("old.bucketName:b")
    };
    assert_eq!(
        searcher.search(&recent).unwrap().notes,
        ["no event in this time range has the field `old.bucketName`"]
    );
    let (mut paths, complete) = searcher.paths(&all("")).unwrap();
    paths.retain(|p| p.starts_with(['e', 'o', 'u']));
    paths.sort();
    assert!(complete);
    assert_eq!(
        paths,
        [
            "eventName",
            "old",
            "old.bucketName",
            "origin.position",
            "outcome",
            "userIdentity",
            "userIdentity.type"
        ]
    );
}

#[test]
fn fields_of_what_matches_are_told_from_a_sample() {
    let events: Vec<Event> = (0..1_000_u128)
        .map(|i| {
            let raw = match i % 4 {
                0 => format!(r#"{{"kind":"A","n":{i},"tags":["x","x","y"],"region":"r"}}"#),
                _ => r#"{"kind":"b","gone":null}"#.to_owned(),
            };
            let mut event = event(i, i as i64, &raw);
            event.action = "Do".into();
            event
        })
        .collect();
    let dir = folder(&[events[..300].to_vec(), events[300..].to_vec()]);
    let searcher = searcher(dir.path(), &Config::default());
    let stat = |stats: &FieldStats, name: &str| {
        let found = stats.fields.iter().find(|f| f.field == name);
        found.map(|f| {
            let top: Vec<(&str, u64)> = f.top.iter().map(|t| (t.value.as_str(), t.count)).collect();
            (f.events, f.distinct, format!("{top:?}"))
        })
    };
    let whole = searcher.fields(&all(""), 5_000).unwrap();
    assert_eq!(
        (whole.matched, whole.read, whole.sampled),
        (1_000, 1_000, false)
    );
    assert_eq!(
        stat(&whole, "action"),
        Some((1_000, 1, r#"[("Do", 1000)]"#.into()))
    );
    assert_eq!(
        stat(&whole, "kind"),
        Some((1_000, 2, r#"[("b", 750), ("A", 250)]"#.into()))
    );
    assert_eq!(
        stat(&whole, "tags"),
        Some((250, 2, r#"[("x", 250), ("y", 250)]"#.into()))
    );
    assert_eq!(
        stat(&whole, "raw.region"),
        Some((250, 1, r#"[("r", 250)]"#.into()))
    );
    assert_eq!(stat(&whole, "n").map(|s| s.1), Some(250));
    assert_eq!((stat(&whole, "gone"), stat(&whole, "region")), (None, None));
    let some = searcher.fields(&all("kind:*"), 100).unwrap();
    assert_eq!((some.matched, some.read, some.sampled), (1_000, 100, true));
    let (events, _, _) = stat(&some, "tags").unwrap();
    assert!(
        (12..=40).contains(&events),
        "{events} of 100 where a quarter has it"
    );
}

#[test]
fn a_walk_gives_every_event_once_and_stops_where_it_is_told() {
    let parts: Vec<Vec<Event>> = (0..3)
        .map(|part| {
            (0..50)
                .map(|i| event(part * 100 + i, i as i64 / 3, r#"{"a":1}"#))
                .collect()
        })
        .collect();
    let dir = folder(&parts);
    // Pages of seven, so that they end within equal times.
    let config = Config {
        max_limit: 7,
        ..Config::default()
    };
    let small = searcher(dir.path(), &config);
    let mut expected: Vec<(event::Time, u128)> =
        parts.iter().flatten().map(|e| (e.time, e.id.0)).collect();
    expected.sort_unstable();
    for newest_first in [false, true] {
        let request = Request {
            newest_first,
            ..Request::default()
        };
        let walk = |most| {
            let mut found = Vec::new();
            let count = Nodes::from(small.clone()).walk(&request, most, |event| {
                found.push((event.time, event.id.0));
                Ok::<_, SearchError>(())
            });
            assert_eq!(count.unwrap(), found.len() as u64);
            found
        };
        assert_eq!(walk(None), expected);
        assert_eq!(walk(Some(20)), expected[..20]);
        expected.reverse();
    }
    let hurried = searcher(
        dir.path(),
        &Config {
            timeout_ms: 0,
            ..Config::default()
        },
    );
    let cut = Nodes::from(hurried).walk(&Request::default(), None, |_| Ok::<_, SearchError>(()));
    assert!(matches!(cut, Err(SearchError::Cut(_))));
}

#[test]
fn a_query_is_explained_clause_by_clause() {
    let dir = folder(&[
        vec![event(1, 10, r#"{"eventName":"A"}"#)],
        vec![event(2, 5_000, r#"{"eventName":"B"}"#)],
    ]);
    let searcher = searcher(dir.path(), &Config::default());
    let explained = searcher
        .explain(&all(
            "eventName:A* -eventName:IN [b, c] (\"x y\" OR z* OR *a-b*) time:>-1m nme:x *",
        ))
        .unwrap();
    assert_eq!(
        explained.query,
        r#"(eventName:A* AND NOT eventName:IN ["b", "c"] AND ("x y" OR z* OR *a\-b*) AND time:{now-60s TO *] AND nme:"x" AND *)"#
    );
    let access: Vec<String> = explained
        .clauses
        .iter()
        .map(|c| c.access.to_string())
        .collect();
    assert_eq!(
        access,
        [
            "walk over values",
            "terms",
            "phrase",
            "walk over words",
            "walk over all values",
            "times",
            "term",
            "all"
        ]
    );
    assert_eq!(
        explained.clauses[0].words,
        "each distinct value of the field that begins with `a` is compared"
    );
    // The query's own time leaves the older split out.
    assert_eq!(
        (explained.splits, explained.of_splits, explained.events),
        (1, 2, 1)
    );
    assert_eq!(
        explained.notes,
        ["no event in this time range has the field `nme`"]
    );
}
