//! The windows against the definition: `tools/episodes.py` once more, the slow and obvious way, over random streams.
//!
//! Every stream is shuffled within the allowed lateness, some matches are sent again, and the state is stored and
//! restored at random places. Settled episodes must be those of the definition, replays must say the same findings,
//! and what is kept must stay within its bound.
#![expect(clippy::unwrap_used, reason = "a test fails where it is wrong")]

use std::collections::{BTreeMap, BTreeSet};

use detect::window::{Chain, Condition, Correlation, Match, Offline, Options, Watermark, Windows};
use event::{Event, Finding, Id, MAX_EVENT_IDS, Severity, Str, Time};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000;

/// One match of a test stream: group, time in seconds, number.
type Seen = (u8, i64, u32);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Settled {
    group: String,
    first: i64,
    last: i64,
    count: u64,
    time: i64,
    episode: Id,
    events: Vec<Id>,
    shown: Vec<String>,
}

fn correlation(timespan: i64, threshold: u64) -> Correlation {
    Correlation {
        rule_id: "brute-force".into(),
        title: "Brute force".into(),
        severity: Severity::High,
        tags: vec!["attack.t1110".into()],
        staged: false,
        group_by: vec!["src".into()],
        timespan: timespan * SECOND,
        condition: Condition::at_least(threshold),
        chain: Chain::default(),
        semantics: 7,
    }
}

fn group(number: u8) -> BTreeMap<Str, Option<Str>> {
    let value = (number > 0).then(|| format!("10.0.0.{number}").into());
    [("src".into(), value)].into()
}

fn event_id(number: u32) -> Id {
    Id::of("test", &[&number.to_le_bytes()])
}

fn to_match(rule: &Correlation, (g, time, number): Seen, offset: u64) -> Match {
    let event = Event {
        id: event_id(number),
        source_id: format!("event-{number}").into(),
        time: Time(time * SECOND),
        actor: format!("actor-{}", number % 3).into(),
        ..Event::default()
    };
    Match::new(rule, group(g), &event, 0, offset)
}

/// The definition, per group: quadratic, over all matches at once.
fn definition(rule: &Correlation, stream: &[Seen]) -> Vec<Settled> {
    let span = rule.timespan / SECOND;
    let mut out = Vec::new();
    for g in stream.iter().map(|s| s.0).collect::<BTreeSet<_>>() {
        // Of one time in the order of the sources' own ids, as the definition says.
        let matches: BTreeSet<(i64, String, Id)> = stream
            .iter()
            .filter(|s| s.0 == g)
            .map(|s| (s.1, format!("event-{}", s.2), event_id(s.2)))
            .collect();
        let fires = |t: i64| {
            let window = matches.iter().filter(|w| t - span <= w.0 && w.0 <= t);
            rule.condition.admits(window.count() as f64)
        };
        let mut runs: Vec<Vec<&(i64, String, Id)>> = Vec::new();
        for m in matches.iter().filter(|m| fires(m.0)) {
            match runs.last_mut() {
                Some(run) if m.0 - run[run.len() - 1].0 <= span => run.push(m),
                _ => runs.push(vec![m]),
            }
        }
        for run in runs {
            let (first, last) = (run[0], run[run.len() - 1]);
            let start = matches
                .iter()
                .map(|m| m.0)
                .find(|t| first.0 - span <= *t)
                .unwrap();
            let evidence: Vec<_> = matches
                .iter()
                .filter(|m| start <= m.0 && m.0 <= last.0)
                .collect();
            let head = &evidence[..evidence.len().min(MAX_EVENT_IDS)];
            out.push(Settled {
                group: format!("{:?}", group(g)),
                first: start,
                last: last.0,
                count: evidence.len() as u64,
                time: first.0,
                episode: first.2,
                events: head.iter().map(|m| m.2).collect(),
                shown: head.iter().map(|m| m.1.clone()).collect(),
            });
        }
    }
    out.sort();
    out
}

/// What the findings say in the end: the last revision of each, without those that have become part of others. The
/// episode's id is looked up among the events, to be compared with the definition's event.
fn settled(rule: &Correlation, findings: &[Finding], stream: &[Seen]) -> Vec<Settled> {
    let mut last: BTreeMap<Id, &Finding> = BTreeMap::new();
    for finding in findings {
        let revision = last.get(&finding.id).map_or(0, |before| {
            assert!(
                before.merged_into.is_none(),
                "a merged finding speaks again"
            );
            before.revision + 1
        });
        assert_eq!(finding.revision, revision);
        last.insert(finding.id, finding);
    }
    let episodes: BTreeMap<Id, Id> = stream
        .iter()
        .map(|s| {
            let alone = Correlation {
                condition: Condition::at_least(1),
                ..rule.clone()
            };
            let mut out = Vec::new();
            Windows::new(std::slice::from_ref(&alone), Options::default())
                .process(to_match(&alone, *s, 0), &mut out);
            (out[0].episode, event_id(s.2))
        })
        .collect();
    let mut out: Vec<Settled> = last
        .into_values()
        .filter(|f| f.merged_into.is_none())
        .map(|f| Settled {
            group: format!("{:?}", f.group),
            first: f.first_event_time.0 / SECOND,
            last: f.last_event_time.0 / SECOND,
            count: f.count,
            time: f.time.0 / SECOND,
            episode: episodes[&f.episode],
            events: f.evidence.clone(),
            shown: f.event_ids.iter().map(|id| id.to_string()).collect(),
        })
        .collect();
    out.sort();
    out
}

/// An order of arrival in which nothing comes more than the lateness after what is newer.
fn shuffled(stream: &[Seen], delays: &[i64], lateness: i64) -> Vec<Seen> {
    let mut arriving: Vec<(i64, Seen)> = stream
        .iter()
        .zip(delays.iter().cycle())
        .map(|(s, delay)| (s.1 + delay % (lateness + 1), *s))
        .collect();
    arriving.sort();
    arriving.into_iter().map(|(_, s)| s).collect()
}

fn options(lateness: i64) -> Options {
    Options {
        lateness: lateness * SECOND,
        events_partitions: 1,
        ..Options::default()
    }
}

/// Feeds matches, each followed by the watermark it may move; `again` sends the one before once more, `restart` stores
/// and restores.
fn run(
    rule: &Correlation,
    lateness: i64,
    arriving: &[Seen],
    again: impl Fn(usize) -> bool,
    restart: impl Fn(usize) -> bool,
) -> Vec<Finding> {
    let rules = [rule.clone()];
    let mut windows = Windows::new(&rules, options(lateness));
    let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut out = Vec::new();
    let (mut time, mut taken) = (i64::MIN, 0);
    for (i, s) in arriving.iter().enumerate() {
        windows.process(to_match(rule, *s, i as u64), &mut out);
        time = time.max(s.1);
        let watermark = Watermark {
            partition: 0,
            time: Some(Time(time * SECOND)),
            next: 0,
            ends: vec![1],
        };
        windows.watermark(watermark, &mut out);
        if again(i) {
            let said = out.len();
            windows.process(to_match(rule, *s, i as u64), &mut out);
            windows.process(to_match(rule, arriving[i / 2], i as u64 / 2), &mut out);
            assert_eq!(out.len(), said, "a repeated match changes nothing");
        }
        if restart(i) {
            for change in windows.changes(0) {
                match change.value {
                    Some(value) => rows.insert(change.key, value),
                    None => rows.remove(&change.key),
                };
            }
            let stored: Vec<_> = rows.clone().into_iter().collect();
            taken += windows.counts().taken;
            assert_eq!(windows.counts().late, 0);
            windows = Windows::restore(&rules, options(lateness), &stored).unwrap();
        }
    }
    assert_eq!(taken + windows.counts().taken, arriving.len() as u64);
    assert_eq!(windows.counts().late, 0);
    let end = Watermark {
        partition: 0,
        time: Some(Time::MAX),
        next: 1,
        ends: vec![1],
    };
    windows.watermark(end, &mut out);
    assert_eq!(windows.groups(), 0, "nothing is left when all is settled");
    out
}

/// A whole input at once, everything twice.
fn offline(rule: &Correlation, arriving: &[Seen], memory: usize) -> Vec<Finding> {
    let mut offline = Offline::new(vec![rule.clone()], memory);
    for s in arriving.iter().chain(arriving.iter().rev()) {
        offline.push(to_match(rule, *s, 0)).unwrap();
    }
    let mut out = Vec::new();
    offline.finish(|finding| out.push(finding)).unwrap();
    out
}

fn streams() -> impl Strategy<Value = (Vec<Seen>, i64, u64, i64, Vec<i64>)> {
    let spread = prop_oneof![Just(20_i64), Just(120), Just(600)];
    (spread, 1_i64..30, 1_u64..6, 0_i64..90).prop_flat_map(|(spread, span, threshold, lateness)| {
        let times = prop::collection::vec(
            (prop_oneof![4 => Just(0_u8), 1 => 1_u8..3], 0..spread),
            0..320,
        );
        let delays = prop::collection::vec(0_i64..1_000, 1..50);
        (times, Just(span), Just(threshold), Just(lateness), delays).prop_map(
            |(times, span, threshold, lateness, delays)| {
                let stream = times
                    .into_iter()
                    .zip(0..)
                    .map(|((g, t), number)| (g, t, number))
                    .collect();
                (stream, span, threshold, lateness, delays)
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("TRAILWARDEN_LONG").is_some() { 4000 } else { 256 }))]

    #[test]
    fn settled_episodes_are_those_of_the_definition(
        (stream, span, threshold, lateness, delays) in streams(),
        restarts in prop::collection::vec(any::<bool>(), 1..8),
    ) {
        let rule = correlation(span, threshold);
        let expected = definition(&rule, &stream);
        let arriving = shuffled(&stream, &delays, lateness);
        let plain = run(&rule, lateness, &arriving, |_| false, |_| false);
        prop_assert_eq!(&settled(&rule, &plain, &stream), &expected);
        let again = run(&rule, lateness, &arriving, |i| i % 3 == 0, |_| false);
        prop_assert_eq!(&again, &plain, "repeats change nothing");
        let restarted = run(&rule, lateness, &arriving, |_| false, |i| restarts[i % restarts.len()]);
        prop_assert_eq!(&restarted, &plain, "restarts change nothing");
        let mut in_order = stream.clone();
        in_order.sort_by_key(|s| (s.1, event_id(s.2)));
        let in_order = run(&rule, 0, &in_order, |_| false, |_| false);
        prop_assert_eq!(&settled(&rule, &in_order, &stream), &expected, "without lateness");
        let whole = offline(&rule, &arriving, restarts.len() * 50_000);
        prop_assert!(whole.iter().all(|f| f.id == f.episode));
        prop_assert_eq!(&settled(&rule, &whole, &stream), &expected, "a whole input at once");
    }
}
