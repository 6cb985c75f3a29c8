//! Where not all of an event can be counted, what rests on it says so: live, restarted between any two matches, and
//! over a whole input at once.
#![expect(clippy::unwrap_used, reason = "a test fails where it is wrong")]

use detect::engine::{Engine, Scratch};
use detect::item::Placeholders;
use detect::rule_set::{RuleFile, RuleSet};
use detect::window::{
    Correlation, LevelWatermark, Match, MatchRecord, OFFLINE_MEMORY, Offline, Options, Watermark,
    Windows,
};
use event::json::Doc;
use event::{Event, Finding, Id, Time};

const SECOND: i64 = 1_000_000;

/// A rule `a`, and correlations of it.
fn rules(documents: &str) -> RuleSet {
    let base = "{title: A, name: a, logsource: {product: test}, detection: {sel: {a: 1}, condition: sel}, level: low}";
    let file = RuleFile {
        path: "c.yml".into(),
        text: format!("{base}\n{documents}"),
    };
    RuleSet::build(&[file], &Placeholders::new()).unwrap_or_else(|e| panic!("{e}"))
}

fn correlation(name: &str, of: &str, what: &str) -> String {
    format!(
        "---\ntitle: {name}\nname: {name}\ncorrelation: {{rules: [{of}], group-by: [user], timespan: 10s, {what}}}\nlevel: high\n"
    )
}

/// An event of a second with so many values in the list `v`, and 150 others in `w`.
fn event(second: i64, values: usize) -> Event {
    let list = |numbers: std::ops::RangeInclusive<usize>| {
        let texts: Vec<String> = numbers.map(|n| n.to_string()).collect();
        texts.join(", ")
    };
    let (v, w) = (list(1..=values), list(1_001..=1_150));
    let raw = format!(r#"{{"a": 1, "user": "u", "v": [{v}], "w": [{w}]}}"#);
    Event {
        id: Id(second as u128),
        source: "unknown".into(),
        source_id: format!("event-{second}").into(),
        time: Time(second * SECOND),
        raw: raw.into_bytes().into(),
        ..Event::default()
    }
}

fn matches(set: &RuleSet, rules: &[Correlation], events: &[Event]) -> Vec<Match> {
    let (engine, mut scratch) = (Engine::new(set), Scratch::new());
    let mut all = Vec::new();
    for (event, offset) in events.iter().zip(0..) {
        let doc = Doc::parse(&event.raw).unwrap();
        let root = Some(doc.root(&event.raw));
        engine.matches(event, root, &mut scratch);
        let found = engine.correlation_matches(event, root, &mut scratch);
        let one = |f: detect::engine::CorrelationMatch| {
            Match::new(&rules[f.correlation], f.group, event, 0, offset).with(f.contribution)
        };
        all.extend(found.into_iter().map(one));
    }
    all
}

/// As it comes back from the log.
fn sent(m: Match) -> Match {
    match MatchRecord::decode(&m.into_record(Time(1)).value).unwrap() {
        MatchRecord::Match(m) => m,
        other => panic!("{other:?}"),
    }
}

/// The findings of windows that are stored and restored after every step; what correlations hand on comes back to them.
fn live(rules: &[Correlation], matches: &[Match]) -> Vec<Finding> {
    let options = Options {
        events_partitions: 1,
        ..Options::default()
    };
    let mut rows = std::collections::BTreeMap::new();
    let mut out = Vec::new();
    let mut step = |work: &mut dyn FnMut(&mut Windows, &mut Vec<Finding>)| {
        let stored: Vec<(Vec<u8>, Vec<u8>)> = rows.clone().into_iter().collect();
        let mut windows = Windows::restore(rules, options, &stored).unwrap();
        work(&mut windows, &mut out);
        let handed = windows.handed_on();
        for row in windows.changes(0) {
            match row.value {
                Some(value) => rows.insert(row.key, value),
                None => rows.remove(&row.key),
            };
        }
        handed
    };
    let mut offset = 0;
    let mut handed = Vec::new();
    for m in matches {
        handed.extend(step(&mut |windows, out| {
            windows.process(sent(m.clone()), out)
        }));
    }
    let end = Watermark {
        partition: 0,
        time: Some(Time(1_000_000 * SECOND)),
        next: u64::MAX,
        ends: vec![u64::MAX],
    };
    handed.extend(step(&mut |windows, out| {
        windows.watermark(end.clone(), out)
    }));
    for level in 0..3 {
        for mut m in std::mem::take(&mut handed) {
            (m.partition, m.offset) = (0, offset);
            offset += 1;
            handed.extend(step(&mut |windows, out| {
                windows.process(sent(m.clone()), out)
            }));
        }
        let told = LevelWatermark {
            partition: 0,
            level,
            time: Time(900_000 * SECOND),
        };
        handed.extend(step(&mut |windows, out| windows.level(told, out)));
    }
    assert!(handed.is_empty());
    out
}

/// The titles of findings, with their counts and whether they are approximate: of the last revision of each.
fn said(findings: &[Finding]) -> Vec<(String, u64, bool)> {
    let last = |f: &&Finding| {
        !findings
            .iter()
            .any(|g| g.id == f.id && g.revision > f.revision)
    };
    let findings = findings.iter().filter(last);
    let mut said: Vec<_> = findings
        .map(|f| (f.title.to_string(), f.count, f.approximate))
        .collect();
    said.sort();
    said
}

#[track_caller]
fn check(documents: &str, events: &[Event], expected: &[(&str, u64, bool)]) {
    let set = rules(documents);
    let rules = detect::correlations::of(&set);
    let matches = matches(&set, &rules, events);
    let expected: Vec<(String, u64, bool)> = expected
        .iter()
        .map(|(title, count, rough)| ((*title).to_owned(), *count, *rough))
        .collect();
    assert_eq!(said(&live(&rules, &matches)), expected, "live");
    let mut offline = Offline::new(rules, OFFLINE_MEMORY);
    matches.into_iter().for_each(|m| offline.push(m).unwrap());
    let mut whole = Vec::new();
    offline.finish(|finding| whole.push(finding)).unwrap();
    assert_eq!(said(&whole), expected, "over the whole input");
}

#[test]
fn an_episode_with_an_event_of_too_many_values_is_approximate() {
    let count = correlation(
        "c",
        "a",
        "type: value_count, condition: {field: v, gte: 50}",
    );
    check(&count, &[event(1, 100)], &[("c", 1, false)]);
    check(&count, &[event(1, 101)], &[("c", 1, true)]);
    // As what leads up to the first that fires, inside, and apart from the other one.
    let events = [event(1, 30), event(2, 60), event(3, 150), event(100, 60)];
    check(&count, &events, &[("c", 1, false), ("c", 3, true)]);
    let many = correlation(
        "c",
        "a",
        "type: value_count, condition: {field: v, gte: 160}",
    );
    let events = [event(1, 150), event(2, 100)];
    check(&many, &events, &[]);
}

#[test]
fn so_it_is_with_numbers_that_are_summed() {
    let sum = correlation("c", "a", "type: value_sum, condition: {field: v, gt: 1000}");
    check(&sum, &[event(1, 100)], &[("c", 1, false)]);
    let events = [event(1, 150), event(2, 3), event(100, 99)];
    check(&sum, &events, &[("c", 1, false), ("c", 2, true)]);
}

#[test]
fn what_is_handed_on_carries_it_upwards() {
    let lower = correlation("x", "a", "type: event_count, condition: {gte: 2}");
    let upper = correlation(
        "y",
        "x",
        "generate: true, type: value_count, condition: {field: v, gte: 10}",
    );
    let documents = lower + &upper;
    let events = [event(1, 5), event(2, 100), event(50, 5), event(51, 101)];
    check(
        &documents,
        &events,
        &[
            ("x", 2, false),
            ("x", 2, false),
            ("y", 1, false),
            ("y", 1, true),
        ],
    );
}

#[test]
fn so_is_what_fires_by_it() {
    // The first does not fire; those behind it do by what the first has as well, of which not all is counted.
    for how in [
        "type: value_count, condition: {field: v, gte: 101}",
        "type: value_sum, condition: {field: v, gt: 6000}",
    ] {
        let lower = correlation("x", "a", how);
        let upper = correlation("y", "x", "type: event_count, condition: {gte: 2}");
        let events = [event(1, 101), event(2, 99), event(3, 99)];
        check(&(lower + &upper), &events, &[("y", 2, true)]);
    }
    let lower = correlation("x", "a", "type: value_sum, condition: {field: v, gt: 6000}");
    let upper = correlation("y", "x", "type: event_count, condition: {gte: 2}");
    let events = [event(1, 100), event(2, 99), event(3, 99)];
    check(&(lower + &upper), &events, &[("y", 2, false)]);
}

/// The same event comes by two ways, and of only one of them it has too many values.
#[test]
fn what_shows_later_is_said_at_the_end() {
    let lower = |name: &str| correlation(name, "a", "type: event_count, condition: {gte: 2}");
    let aliases = "aliases: {f: {x: v, z: w}}";
    let of = |rules: &str, least: u64| {
        let what = format!("{aliases}, type: value_count, condition: {{field: f, gte: {least}}}");
        lower("x") + &lower("z") + &correlation("y", rules, &what)
    };
    let events = [event(1, 5), event(2, 5)];
    check(&of("x, z", 3), &events, &[("y", 1, true)]);
}
