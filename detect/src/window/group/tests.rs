//! The windows of one group against what an episode is, and their memory.

use event::{Event, Id, Severity};

use super::super::matches::{Chain, Correlation, Match};
use super::super::measure::{Comparison, Condition, Measure};
use super::*;

const SECOND: i64 = 1_000_000;

fn rule(threshold: u64) -> Correlation {
    Correlation {
        rule_id: "r".into(),
        title: "Rule".into(),
        severity: Severity::Medium,
        tags: Vec::new(),
        staged: false,
        group_by: Vec::new(),
        timespan: 10 * SECOND,
        condition: Condition::at_least(threshold),
        chain: Chain::default(),
        semantics: 0,
    }
}

fn take(group: &mut Group, terms: Terms<'_>, m: Match, out: &mut Vec<Finding>) -> Taken {
    let late = m.time < terms.watermark;
    group.take(terms, Loose::new(false, m, late), false, out)
}

fn to_match(rule: &Correlation, second: i64, id: u64) -> Match {
    let event = Event {
        id: Id(u128::from(id)),
        time: Time(second * SECOND),
        actor: event::format_compact!("actor {id}"),
        ..Event::default()
    };
    Match::new(rule, BTreeMap::new(), &event, 0, id)
}

/// Runs matches at these seconds, numbered from 1; a negative one is a watermark at that second. Tells what was said:
/// the id (by its event), the episode (by its event), first and last time, count, revision, where merged.
fn said(threshold: u64, seconds: &[i64]) -> Vec<String> {
    let rule = rule(threshold);
    let mut group = Group::new(BTreeMap::new());
    let mut watermark = Time::MIN;
    let mut lines = Vec::new();
    let events: BTreeMap<Id, u64> = (1..100)
        .map(|n| (rule.episode_id(&BTreeMap::new(), Id(u128::from(n))), n))
        .collect();
    for (second, id) in seconds.iter().zip(1..) {
        if *second < 0 {
            watermark = Time(-second * SECOND);
        }
        let terms = Terms {
            rule: &rule,
            lateness: 100 * SECOND,
            watermark,
            once: false,
        };
        let mut out = Vec::new();
        group.advance(terms, &mut out);
        if *second >= 0 {
            take(&mut group, terms, to_match(&rule, *second, id), &mut out);
            group.say(terms, &mut out);
        }
        lines.extend(out.iter().map(|f| {
            let late = if f.late { " late" } else { "" };
            let merged = f
                .merged_into
                .map_or(String::new(), |e| format!(" into {}", events[&e]));
            format!(
                "{} as {}: {}..{} x{} r{}{late}{merged}",
                events[&f.id],
                events[&f.episode],
                f.first_event_time.0 / SECOND,
                f.last_event_time.0 / SECOND,
                f.count,
                f.revision
            )
        }));
    }
    lines
}

#[track_caller]
fn check(threshold: u64, seconds: &[i64], expected: &[&str]) {
    assert_eq!(said(threshold, seconds), expected);
}

#[test]
fn it_fires_as_soon_as_it_is_true_and_grows() {
    check(3, &[0, 5], &[]);
    check(3, &[0, 5, 10], &["3 as 3: 0..10 x3 r0"]);
    check(3, &[0, 5, 11], &[]);
    check(
        3,
        &[0, 5, 10, 12],
        &["3 as 3: 0..10 x3 r0", "3 as 3: 0..12 x4 r1"],
    );
    check(1, &[7], &["1 as 1: 7..7 x1 r0"]);
}

#[test]
fn a_late_event_extends_and_renames() {
    // Event 4 makes the second at 9 fire too, which begins the episode earlier.
    check(
        3,
        &[4, 9, 12, 1],
        &["3 as 3: 4..12 x3 r0", "3 as 2: 1..12 x4 r1"],
    );
    // A match in the head moves the beginning of the evidence.
    check(
        3,
        &[9, 12, 14, 4],
        &["3 as 3: 9..14 x3 r0", "3 as 2: 4..14 x4 r1"],
    );
}

#[test]
fn a_late_event_joins_two_episodes() {
    check(
        2,
        &[0, 1, 20, 21, 11],
        &[
            "2 as 2: 0..1 x2 r0",
            "4 as 4: 20..21 x2 r0",
            "4 as 4: 11..21 x3 r1 into 2",
            "2 as 2: 0..21 x5 r1",
        ],
    );
}

#[test]
fn equal_times_fire_together_and_the_least_id_begins() {
    check(2, &[5, 5], &["1 as 1: 5..5 x2 r0"]);
}

#[test]
fn a_settled_episode_is_over() {
    check(
        2,
        &[0, 1, -11, 12, 13],
        &["2 as 2: 0..1 x2 r0", "5 as 5: 12..13 x2 r0"],
    );
    check(
        2,
        &[0, 1, -11, 11],
        &["2 as 2: 0..1 x2 r0", "2 as 2: 0..11 x3 r1"],
    );
}

#[test]
fn what_comes_too_late_counts_as_well_as_it_can() {
    check(2, &[-500, 300, 305], &["3 as 3: 300..305 x2 r0 late"]);
    // The watermark goes on; the group stays open for a lateness more.
    check(2, &[-500, 300, -590, 305], &["4 as 4: 300..305 x2 r0 late"]);
    check(2, &[-500, 300, -601, 305], &[]);
}

#[test]
fn large_episodes_are_said_at_doubling_and_at_the_end() {
    let mut seconds: Vec<i64> = (0..50).map(|n| n / 10).collect();
    seconds.push(-100);
    let said = said(2, &seconds);
    let counts: Vec<&str> = said
        .iter()
        .filter_map(|line| line.split(' ').find(|w| w.starts_with('x')))
        .collect();
    assert_eq!(
        counts,
        [
            "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x20", "x40", "x50"
        ]
    );
}

#[test]
fn a_repeat_changes_nothing() {
    let rule = rule(2);
    let terms = Terms {
        rule: &rule,
        lateness: 0,
        watermark: Time::MIN,
        once: false,
    };
    let mut group = Group::new(BTreeMap::new());
    let mut out = Vec::new();
    for (second, id) in [(0, 1), (30, 2), (31, 3), (32, 4)] {
        take(&mut group, terms, to_match(&rule, second, id), &mut out);
    }
    let before = group.clone();
    for (second, id) in [(0, 1), (30, 2), (31, 3), (32, 4)] {
        let taken = take(&mut group, terms, to_match(&rule, second, id), &mut out);
        assert_eq!(taken, Taken::Repeat);
    }
    assert_eq!(group, before);
}

fn latest(episode: &Episode) -> &std::collections::VecDeque<Point> {
    match &episode.inside {
        Inside::Latest(latest) => latest,
        other => panic!("{other:?}"),
    }
}

fn assert_whole(group: &Group, timespan: i64) {
    let loose: Vec<&Loose> = group.kept.loose.iter().collect();
    assert!(loose.windows(2).all(|w| w[0].at < w[1].at));
    for e in &group.episodes {
        assert!(!loose.iter().any(|l| e.covers(l.at.0)));
        assert!(e.earliest.windows(2).all(|w| w[0].0 < w[1].0));
        let latest = latest(e);
        assert!(latest.iter().zip(latest.iter().skip(1)).all(|(a, b)| a < b));
        assert!(e.has(e.first) || e.count > event::MAX_EVENT_IDS as u64);
        assert!(e.first.0 <= e.last && e.count >= latest.len() as u64);
    }
    let apart = |w: &[Episode]| w[1].first.0.0 - w[0].last.0 > timespan;
    assert!(group.episodes.windows(2).all(apart));
}

proptest::proptest! {
    /// However late and out of order, nothing breaks, and everything is let go of in the end.
    #[test]
    fn it_stays_whole_whatever_comes(
        steps in proptest::collection::vec((0_i64..400, 0_i64..3), 1..200),
        threshold in 1_u64..5,
        lateness in 0_i64..50,
    ) {
        let rule = rule(threshold);
        let mut group = Group::new(BTreeMap::new());
        let mut terms = Terms {
            rule: &rule,
            lateness: lateness * SECOND,
            watermark: Time::MIN,
            once: false,
        };
        let mut out = Vec::new();
        for ((second, moves), id) in steps.into_iter().zip(1..) {
            if moves == 0 {
                terms.watermark = terms.watermark.max(Time((second - lateness) * SECOND));
            }
            group.advance(terms, &mut out);
            take(&mut group, terms, to_match(&rule, second, id), &mut out);
            group.say(terms, &mut out);
            assert_whole(&group, rule.timespan);
        }
        let mut last: BTreeMap<Id, &Finding> = BTreeMap::new();
        for finding in &out {
            let before = last.insert(finding.id, finding).map(|f| f.revision);
            proptest::prop_assert_eq!(finding.revision, before.map_or(0, |r| r + 1));
            proptest::prop_assert!(finding.count >= threshold);
            proptest::prop_assert!(finding.first_event_time <= finding.last_event_time);
        }
        for _ in 0..2 {
            terms.watermark = group.deadline(rule.timespan).max(terms.watermark).plus(1);
            group.advance(terms, &mut out);
        }
        terms.watermark = Time(10_000 * SECOND);
        group.advance(terms, &mut out);
        proptest::prop_assert!(group.is_empty());
    }
}

/// DESIGN §4.5: the bound holds whatever the traffic, and a flood of the far future stops at the hard limit.
#[test]
fn memory_is_bounded() {
    let rule = rule(5);
    let lateness = 60;
    let mut group = Group::new(BTreeMap::new());
    let mut out = Vec::new();
    let (mut most, mut open) = (0, 0);
    let mut dice = 1_u64;
    for id in 0..200_000 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let second = 1_000 + id as i64 / 40;
        let busy = second / 100 % 2 == 0;
        if !busy && id % 120 != 0 {
            continue;
        }
        let terms = Terms {
            rule: &rule,
            lateness: lateness * SECOND,
            watermark: Time((second - lateness) * SECOND),
            once: false,
        };
        let back = (dice >> 33) as i64 % (lateness + 1);
        group.advance(terms, &mut out);
        take(
            &mut group,
            terms,
            to_match(&rule, second - back, id),
            &mut out,
        );
        group.say(terms, &mut out);
        most = most.max(group.kept.loose.len());
        open = open.max(group.episodes.len());
        for episode in &group.episodes {
            assert!(latest(episode).len() <= 5);
            assert!(episode.earliest.len() <= event::MAX_EVENT_IDS);
        }
    }
    assert!(most <= 5 * (6 + 2), "{most} loose");
    assert!(open <= 6 + 2, "{open} episodes");
    assert!(most > 5 && open > 1, "the stream is worth its name");

    let terms = Terms {
        rule: &rule,
        lateness: lateness * SECOND,
        watermark: Time(1_000 * SECOND),
        once: false,
    };
    let mut group = Group::new(BTreeMap::new());
    let mut dropped = 0;
    for id in 0..3_000 {
        let second = 1_000_000 + 100 * id as i64;
        if let Taken::Crowded(n) = take(&mut group, terms, to_match(&rule, second, id), &mut out) {
            dropped += n;
        }
    }
    take(&mut group, terms, to_match(&rule, 1_000, 9_999), &mut out);
    assert_eq!(group.kept.loose.len(), 1_024);
    assert_eq!(
        group.kept.loose.first().unwrap().at.1.id,
        Id(9_999),
        "what is not ahead stays"
    );
    assert_eq!(dropped, 3_000 - 1_024);
}

/// Random floods of few values, above the limit: nothing that fires is missed, and what is not exact says so.
/// Tells how many were kept at most.
fn flood(seed: u64, measure: Measure, least: f64) -> usize {
    use super::super::matches::Contribution;
    use super::super::slide::Slide;
    let rule = Correlation {
        condition: Condition {
            limits: vec![(Comparison::GreaterOrEqual, least)],
            measure,
        },
        ..rule(1)
    };
    let has_rules = rule.condition.has_rules();
    let mut dice = seed;
    let mut roll = |sides: u64| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let lateness = 40;
    let mut stream: Vec<(i64, i64, u64, u64)> = (0..1_500)
        .map(|n| {
            let second = 100 + n as i64 / 20;
            // Mostly two values; now and then the ones that make it fire.
            let value = if roll(300) == 0 { 2 + roll(2) } else { roll(2) };
            (second + roll(lateness + 1) as i64, second, value, n)
        })
        .collect();
    stream.sort_unstable();
    let what = |value: u64| if has_rules { 1 << value } else { value };
    let mut group = Group::new(BTreeMap::new());
    let (mut out, mut newest, mut most) = (Vec::new(), 0, 0);
    let mut terms = Terms {
        rule: &rule,
        lateness: lateness as i64 * SECOND,
        watermark: Time::MIN,
        once: false,
    };
    for (_, second, value, n) in &stream {
        newest = newest.max(*second);
        terms.watermark = Time((newest - lateness as i64) * SECOND);
        let (rules, values) = match has_rules {
            true => (what(*value), Vec::new()),
            false => (0, vec![what(*value)]),
        };
        let contribution = Contribution {
            rules,
            values,
            ..Contribution::default()
        };
        let m = to_match(&rule, *second, *n).with(contribution);
        group.advance(terms, &mut out);
        let taken = group.take(terms, Loose::new(has_rules, m, false), false, &mut out);
        assert_eq!(taken, Taken::New, "others stand for all that go");
        group.say(terms, &mut out);
        most = most.max(group.kept.loose.len());
    }
    assert!(most <= terms.most_loose(), "{most}");
    terms.watermark = Time(10_000 * SECOND);
    group.advance(terms, &mut out);
    let mut last: BTreeMap<Id, Finding> = BTreeMap::new();
    last.extend(out.into_iter().map(|f| (f.id, f)));
    last.retain(|_, f| f.merged_into.is_none());
    stream.sort_unstable_by_key(|s| (s.1, s.3));
    let fires = |second: i64| {
        let mut slide = Slide::new(&rule.condition);
        let window = stream
            .iter()
            .filter(|w| second - 10 <= w.1 && w.1 <= second);
        window.for_each(|w| slide.add(Time(w.1), &What::One(what(w.2))));
        slide.holds(&rule.condition, Time(second - 10))
    };
    let firing: Vec<_> = stream.iter().filter(|s| fires(s.1)).collect();
    let runs: Vec<_> = firing.chunk_by(|a, b| b.1 - a.1 <= 10).collect();
    assert_eq!(last.len(), runs.len());
    let mut found: Vec<&Finding> = last.values().collect();
    found.sort_by_key(|f| f.time);
    for (run, finding) in runs.iter().zip(found) {
        let (first, end) = (run[0].1, run[run.len() - 1].1);
        let evidence = stream.iter().filter(|s| first - 10 <= s.1 && s.1 <= end);
        let exact = (
            finding.time.0 / SECOND,
            finding.last_event_time.0 / SECOND,
            finding.count,
        ) == (first, end, evidence.count() as u64);
        assert!(exact || finding.approximate, "{finding:?}");
    }
    most
}

#[test]
fn a_flood_of_few_values_misses_nothing() {
    let mut most = 0;
    for seed in 0..30 {
        most = most.max(flood(seed, Measure::Values, 4.0));
        flood(seed, Measure::Values, 3.0);
        flood(seed, Measure::Rules(4), 4.0);
        flood(seed, Measure::Rules(4), 3.0);
    }
    assert_eq!(most, 300, "it comes to the limit");
}

proptest::proptest! {
    /// What a loose match has seen is what lies in its window, as long as more may come.
    #[test]
    fn what_is_seen_is_what_is_there(
        kind in 0_usize..3,
        steps in proptest::collection::vec((0_i64..12, 0_u64..6, 0_u8..6), 1..250),
        pace in 1_usize..6,
        least in 2_u64..5,
    ) {
        use super::super::matches::Contribution;
        let lateness = 12;
        let measure = [Measure::Events, Measure::Values, Measure::Rules(6)][kind].clone();
        let limits = vec![(Comparison::GreaterOrEqual, least as f64)];
        let rule = Correlation { condition: Condition { measure, limits }, ..rule(1) };
        let mut group = Group::new(BTreeMap::new());
        let mut terms = Terms {
            rule: &rule,
            lateness: lateness * SECOND,
            watermark: Time::MIN,
            once: false,
        };
        let mut all: Vec<(Time, u64)> = Vec::new();
        let (mut out, mut newest) = (Vec::new(), 0);
        for (n, (back, value, moves)) in steps.into_iter().enumerate() {
            // Now and then there is nothing for a while, so that episodes end and are forgotten.
            newest += i64::from(n % pace == 0) + i64::from(moves == 0) * 9;
            let second = 100 + newest - back;
            terms.watermark = Time((100 + newest - lateness) * SECOND);
            let contribution = match kind {
                0 => Contribution::default(),
                1 => Contribution { values: vec![value], ..Contribution::default() },
                _ => Contribution { rules: 1 << value, ..Contribution::default() },
            };
            let m = to_match(&rule, second, n as u64).with(contribution);
            group.advance(terms, &mut out);
            group.take(terms, Loose::new(kind == 2, m, false), false, &mut out);
            all.push((Time(second * SECOND), value));
            for l in group.kept.loose.iter().filter(|l| l.at.0 >= terms.watermark) {
                let from = l.at.0.plus(-rule.timespan);
                let window = all.iter().filter(|m| from <= m.0 && m.0 <= l.at.0);
                let seen = match kind {
                    0 => window.count() as u64,
                    1 => window.map(|m| m.1).collect::<std::collections::BTreeSet<_>>().len() as u64,
                    _ => window.fold(0, |seen, m| seen | 1 << m.1),
                };
                proptest::prop_assert_eq!(l.seen, seen, "at {:?}", l.at);
            }
        }
    }
}
