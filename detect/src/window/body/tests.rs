//! Correlations of correlations that meet more matches than they remember.

use event::{Event, Id, Severity};

use super::super::matches::{Chain, Contribution, Correlation};
use super::super::measure::{Comparison, Condition, Measure};
use super::super::state::{Chunks, StoredGroup, encode};
use super::*;

const SECOND: i64 = 1_000_000;

/// A correlation of two others.
fn rule(measure: Measure, comparison: Comparison, limit: f64) -> Correlation {
    Correlation {
        rule_id: "r".into(),
        title: "t".into(),
        severity: Severity::Medium,
        tags: Vec::new(),
        staged: false,
        group_by: Vec::new(),
        timespan: 10 * SECOND,
        condition: Condition {
            measure,
            limits: vec![(comparison, limit)],
        },
        chain: Chain {
            level: 1,
            ..Chain::default()
        },
        semantics: 0,
    }
}

fn terms(rule: &Correlation, watermark: i64) -> Terms<'_> {
    Terms {
        rule,
        lateness: 1_000 * SECOND,
        watermark: Time(watermark * SECOND),
        once: false,
    }
}

/// The match of an event, through these of the correlations below.
fn one(rule: &Correlation, number: u64, second: i64, rules: u64) -> Match {
    let event = Event {
        id: Id(number.into()),
        time: Time(second * SECOND),
        ..Event::default()
    };
    let value = match rule.condition.measure {
        Measure::Values => Some(number % 4),
        Measure::Sum => Some(1_f64.to_bits()),
        _ => None,
    };
    Match::new(rule, BTreeMap::new(), &event, 0, 0).with(Contribution {
        rules,
        values: value.into_iter().collect(),
        ..Contribution::default()
    })
}

/// A body as it comes back from its rows.
fn stored(terms: Terms<'_>, body: &mut Body) -> Body {
    let (mut chunks, mut group) = (Chunks::default(), None);
    // A set tells what has changed since it was stored, so that all of it is written only once.
    for (key, value) in encode(Id(1), &"r".into(), Id(2), &mut body.clone()) {
        let value = value.unwrap_or_default();
        if !chunks.take(&key, &value).unwrap() {
            group = Some(StoredGroup::decode(&value).unwrap());
        }
    }
    let restored = group.unwrap().into_body(Id(1), terms, &mut chunks);
    restored.unwrap()
}

/// The last word on each episode, with its first and last time, size, and whether it is approximate.
fn last_words(out: &Out) -> Vec<(i64, i64, u64, bool)> {
    let mut last: BTreeMap<Id, &Finding> = BTreeMap::new();
    last.extend(out.findings.iter().map(|f| (f.id, f)));
    let last = last.into_values().filter(|f| f.merged_into.is_none());
    let mut last: Vec<_> = last
        .map(|f| {
            let seconds = |time: Time| time.0 / SECOND;
            let (first, last) = (seconds(f.first_event_time), seconds(f.last_event_time));
            (first, last, f.count, f.approximate)
        })
        .collect();
    last.sort_unstable();
    last
}

/// 200 matches in seconds 100 to 299 through one correlation, then these through the other.
fn after_many(again: &[u64]) -> Vec<(i64, i64, u64, bool)> {
    let rule = rule(Measure::Events, Comparison::GreaterOrEqual, 3.0);
    let terms = terms(&rule, 0);
    let (mut body, mut out) = (Body::new(terms, BTreeMap::new()), Out::default());
    let first = (0..200).map(|n| (n, 1));
    for (n, rules) in first.chain(again.iter().map(|n| (*n, 2))) {
        body.take(terms, one(&rule, n, 100 + n as i64, rules), &mut out);
        let restored = stored(terms, &mut body);
        assert_eq!(restored, body);
        body = restored;
    }
    assert!(body.forgotten.is_some_and(|at| at.0 >= Time(249 * SECOND)));
    let settled = super::tests::terms(&rule, 10_000);
    body.advance(settled, &mut out);
    assert_eq!(body.forgotten, None, "nothing comes again any more");
    last_words(&out)
}

#[test]
fn what_was_forgotten_and_may_count_twice_is_marked() {
    assert_eq!(after_many(&[]), [(100, 299, 200, false)]);
    assert_eq!(after_many(&[160, 199]), [(100, 299, 200, false)], "met");
    assert_eq!(after_many(&[5, 99]), [(100, 299, 200, false)], "evidence");
    assert_eq!(after_many(&[200, 201]), [(100, 301, 202, false)], "new");
    assert_eq!(after_many(&[120]), [(100, 299, 201, true)]);
}

#[test]
fn so_is_what_fires_through_it_and_is_handed_on() {
    let mut rule = rule(Measure::Events, Comparison::GreaterOrEqual, 2.0);
    rule.chain.silent = true;
    rule.chain.uppers.push(Upper {
        rule_id: "upper".into(),
        rules: 1,
        group_by: Vec::new(),
        fields: Vec::new(),
        numbers: false,
        carries: Vec::new(),
    });
    let terms = terms(&rule, 0);
    let (mut body, mut out) = (Body::new(terms, BTreeMap::new()), Out::default());
    for n in 0..300 {
        body.take(terms, one(&rule, n, 100 + n as i64 / 10, 1), &mut out);
    }
    assert_eq!(out.handed.len(), 300);
    assert!(out.handed.iter().all(|m| !m.context.approximate));
    out.handed.clear();
    // One that is kept, and one that could be done without and was forgotten.
    body.take(terms, one(&rule, 299, 129, 2), &mut out);
    assert_eq!(out.handed, []);
    body.take(terms, one(&rule, 100, 110, 2), &mut out);
    assert_eq!(out.handed.len(), 1);
    assert!(out.handed[0].context.approximate);
}

proptest::proptest! {
    /// Each event comes once or twice, in any order: what is not marked is what it would be if nothing were forgotten.
    #[test]
    fn what_is_not_marked_is_exact(
        kind in 0_usize..4,
        seed in proptest::prelude::any::<u64>(),
        events in 1_u64..220,
        spread in 20_u64..400,
    ) {
        use Comparison::GreaterOrEqual;
        let measure = [Measure::Events, Measure::Values, Measure::Rules(2), Measure::Sum][kind].clone();
        let upper = rule(measure, GreaterOrEqual, if kind == 2 { 2.0 } else { 3.0 });
        let mut dice = seed;
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let mut arriving = Vec::new();
        let mut whole = Vec::new();
        for n in 0..events {
            let (second, rules) = (100 + roll(spread) as i64, 1 + roll(3));
            whole.push((n, second, rules));
            let ways = [1, 2].into_iter().filter(|way| rules & way != 0);
            arriving.extend(ways.map(|way| (roll(5 * events), n, second, way)));
        }
        arriving.sort_unstable();
        // Below, nothing comes twice and nothing need be remembered.
        let lower = Correlation { chain: Chain::default(), ..upper.clone() };
        let run = |rule: &Correlation, matches: &mut dyn Iterator<Item = Match>| {
            let begin = terms(rule, 0);
            let (mut body, mut out) = (Body::new(begin, BTreeMap::new()), Out::default());
            for m in matches {
                body.take(begin, m, &mut out);
            }
            let forgot = body.forgotten.is_some();
            body.advance(terms(rule, 10_000), &mut out);
            (last_words(&out), forgot)
        };
        let mut all = whole.iter().map(|(n, second, rules)| one(&lower, *n, *second, *rules));
        let (expected, _) = run(&lower, &mut all);
        let mut all = arriving.iter().map(|(_, n, second, way)| one(&upper, *n, *second, *way));
        let (found, forgot) = run(&upper, &mut all);
        if !forgot {
            proptest::prop_assert_eq!(&found, &expected);
        }
        for finding in &found {
            proptest::prop_assert!(finding.3 || expected.contains(finding), "{finding:?} of {found:?} is not in {expected:?}");
        }
    }
}
