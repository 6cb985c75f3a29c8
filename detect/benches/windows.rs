//! How many matches per second the windows take: many groups and one, few values in a window and many.
//!
//! `cargo bench -p detect --bench windows`, or with `-- WORD` the lines that contain it. Matches come a little out of
//! order; a watermark follows every hundred, and the changed rows are encoded every five thousand, as the stage does
//! for a commit. Nothing is written to disk. The last lines are ratios of one run: what a hundred times the live
//! keys and a hundred times the distinct values in a window cost.
#![expect(clippy::print_stdout, reason = "a bench reports on its output")]

use std::time::Instant;

use detect::window::{
    Chain, Clause, Comparison, Condition, Contribution, Correlation, Match, Measure, Options,
    Watermark, Windows, contributed,
};
use event::{Event, Id, Severity, Str, Time, format_compact};

const SECOND: i64 = 1_000_000;

/// A stream and what is asked of it.
struct Case {
    name: &'static str,
    condition: Condition,
    timespan: i64,
    groups: u64,
    /// Distinct values of the field, or rules.
    values: u64,
    matches: u64,
    per_second: u64,
}

fn case(name: &'static str, condition: Condition) -> Case {
    Case {
        name,
        condition,
        timespan: 600,
        groups: 1_000,
        values: 10,
        matches: 500_000,
        per_second: 100,
    }
}

fn limits(measure: Measure, comparison: Comparison, value: u64) -> Condition {
    Condition {
        measure,
        limits: vec![(comparison, value as f64)],
    }
}

fn ordered() -> Condition {
    let clause = Clause {
        with: 0b111,
        without: 0,
    };
    Condition {
        measure: Measure::Expression {
            rules: 3,
            ordered: true,
            clauses: vec![clause],
        },
        limits: Vec::new(),
    }
}

/// The matches of a case, made before the clock runs.
fn stream(case: &Case, rule: &Correlation) -> Vec<Match> {
    let one = |n: u64| {
        let dice = Id::of("dice", &[&n.to_le_bytes()]).0 as u64;
        let second = (n / case.per_second) as i64 - (dice >> 40) as i64 % 300;
        let event = Event {
            id: Id::of("bench", &[&n.to_le_bytes()]),
            source_id: format_compact!("7b72a207-9b9e-40e1-bcec-{n:012x}"),
            source: "aws.cloudtrail".into(),
            time: Time(second * SECOND),
            account: "123456789012".into(),
            region: "eu-central-1".into(),
            action: "ConsoleLogin".into(),
            actor: "arn:aws:iam::123456789012:user/somebody".into(),
            ..Event::default()
        };
        let address: Str = format_compact!("group {}", dice % case.groups);
        let group = [("sourceIPAddress".into(), Some(address))].into();
        let value = (dice >> 20) % case.values;
        let numbers = rule.condition.has_numbers();
        let text: Str = if numbers {
            format_compact!("{value}")
        } else {
            format_compact!("user {value}")
        };
        // Of three rules the last is hardly ever satisfied.
        let seen = if value == 0 {
            (dice >> 50) % 3
        } else {
            (dice >> 50) % 2
        };
        let contribution = Contribution {
            rules: if rule.condition.has_rules() {
                1 << seen
            } else {
                0
            },
            values: match rule.condition.measure {
                Measure::Values | Measure::Sum | Measure::Percentile(_) => {
                    contributed(&[vec![text]], numbers).0
                }
                _ => Vec::new(),
            },
            ..Contribution::default()
        };
        Match::new(rule, group, &event, 0, n).with(contribution)
    };
    (0..case.matches).map(one).collect()
}

/// Matches per second.
fn measure(case: &Case) -> f64 {
    let rule = Correlation {
        rule_id: "00000000-0000-4000-8000-000000000000".into(),
        title: "Console brute force".into(),
        severity: Severity::High,
        tags: vec!["attack.t1110".into()],
        staged: false,
        group_by: vec!["sourceIPAddress".into()],
        timespan: case.timespan * SECOND,
        condition: case.condition.clone(),
        chain: Chain::default(),
        semantics: 0,
    };
    let options = Options {
        events_partitions: 1,
        ..Options::default()
    };
    let stream = stream(case, &rule);
    let mut windows = Windows::new(std::slice::from_ref(&rule), options);
    let mut findings = Vec::new();
    let (mut said, mut bytes, mut groups, mut kept) = (0, 0, 0, 0);
    let begin = Instant::now();
    for (n, m) in (0..case.matches).zip(stream) {
        windows.process(m, &mut findings);
        if n % 100 == 99 {
            let watermark = Watermark {
                partition: 0,
                time: Some(Time((n / case.per_second) as i64 * SECOND)),
                next: n,
                ends: vec![case.matches],
            };
            windows.watermark(watermark, &mut findings);
        }
        if n % 5_000 == 4_999 {
            let rows = windows.changes(0);
            bytes += rows
                .iter()
                .filter_map(|r| r.value.as_ref())
                .map(Vec::len)
                .sum::<usize>();
            groups = groups.max(windows.groups());
            kept = kept.max(windows.kept().map(|(_, n)| n).sum::<usize>());
            said += findings.len();
            findings.clear();
        }
    }
    let rate = case.matches as f64 / begin.elapsed().as_secs_f64();
    println!(
        "{}: {rate:.0} matches/s, {groups} groups and {kept} matches kept at most, {said} findings, {} bytes of rows a match",
        case.name,
        bytes as u64 / case.matches
    );
    rate
}

fn main() {
    let asked = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let run = |case: Case| {
        let wanted = asked
            .as_ref()
            .is_none_or(|a| case.name.contains(a.as_str()));
        wanted.then(|| measure(&case))
    };
    let five = || Condition::at_least(5);
    let keys = |name, groups, matches| Case {
        groups,
        matches,
        ..case(name, five())
    };
    // Ten seconds of silence make a group's next match begin anew: so many keys are live at a time.
    let plain = run(keys("event_count, 1,000 live keys", 1_000, 1_000_000));
    let many = run(keys("event_count, 100,000 live keys", 100_000, 1_000_000));
    run(keys("event_count, one group", 1, 500_000));
    // 12 matches a second for ten minutes: 7,200 in a window.
    let values = |name, values, least| Case {
        groups: 1,
        values,
        per_second: 12,
        matches: 200_000,
        ..case(
            name,
            limits(Measure::Values, Comparison::GreaterOrEqual, least),
        )
    };
    let few = run(values(
        "value_count, 72 distinct values in a window of 7,200",
        72,
        100,
    ));
    let distinct = run(values(
        "value_count, 7,200 distinct values in a window, not firing",
        1 << 40,
        10_000,
    ));
    let firing = run(values(
        "value_count, 7,200 distinct values in a window, firing",
        1 << 40,
        7_000,
    ));
    run(case(
        "value_count, 1,000 groups",
        limits(Measure::Values, Comparison::GreaterOrEqual, 5),
    ));
    run(case(
        "temporal, 1,000 groups",
        limits(Measure::Rules(3), Comparison::GreaterOrEqual, 3),
    ));
    run(case("temporal_ordered, 1,000 groups", ordered()));
    run(Case {
        groups: 1,
        ..case("temporal_ordered, one group", ordered())
    });
    run(case(
        "event_count below 3, 1,000 groups",
        limits(Measure::Events, Comparison::Less, 3),
    ));
    run(case(
        "value_sum, 1,000 groups",
        limits(Measure::Sum, Comparison::Greater, 100),
    ));
    run(case(
        "value_percentile, 1,000 groups",
        limits(Measure::Percentile(95.0), Comparison::Greater, 8),
    ));
    let ratio = |what: &str, base: Option<f64>, other: Option<f64>| {
        if let (Some(base), Some(other)) = (base, other) {
            println!("{what}: {:.2} times the time of a match", base / other);
        }
    };
    ratio("100,000 live keys instead of 1,000", plain, many);
    ratio(
        "7,200 distinct values instead of 72, not firing",
        few,
        distinct,
    );
    ratio("7,200 distinct values instead of 72, firing", few, firing);
}
