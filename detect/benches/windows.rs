//! How many matches per second the windows take: over 100,000 groups, and all in one group.
//!
//! `cargo bench -p detect --bench windows`. Matches come a little out of order; a watermark follows every hundred, and
//! the changed rows are encoded every five thousand, as the stage does for a commit. Nothing is written to disk.
#![expect(clippy::print_stdout, reason = "a bench reports on its output")]

use std::time::Instant;

use detect::window::{Chain, Condition, Correlation, Match, Options, Watermark, Windows};
use event::{Event, Id, Severity, Str, Time, format_compact};

const SECOND: i64 = 1_000_000;

fn measure(name: &str, groups: u64, matches: u64, per_second: u64) {
    let rule = Correlation {
        rule_id: "00000000-0000-4000-8000-000000000000".into(),
        title: "Console brute force".into(),
        severity: Severity::High,
        tags: vec!["attack.t1110".into()],
        staged: false,
        group_by: vec!["sourceIPAddress".into()],
        timespan: 600 * SECOND,
        condition: Condition::at_least(5),
        chain: Chain::default(),
        semantics: 0,
    };
    let options = Options {
        events_partitions: 1,
        ..Options::default()
    };
    let stream: Vec<Match> = (0..matches)
        .map(|n| {
            let dice = Id::of("dice", &[&n.to_le_bytes()]).0 as u64;
            let second = (n / per_second) as i64 - (dice >> 40) as i64 % 300;
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
            let address: Str = format_compact!("group {}", dice % groups);
            let group = [("sourceIPAddress".into(), Some(address))].into();
            Match::new(&rule, group, &event, 0, n)
        })
        .collect();
    let mut windows = Windows::new(std::slice::from_ref(&rule), options);
    let mut findings = Vec::new();
    let (mut said, mut bytes, mut most) = (0, 0, 0);
    let begin = Instant::now();
    for (n, m) in (0..matches).zip(stream) {
        windows.process(m, &mut findings);
        if n % 100 == 99 {
            let watermark = Watermark {
                partition: 0,
                time: Some(Time((n / per_second) as i64 * SECOND)),
                idle: false,
                next: 0,
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
            most = most.max(windows.groups());
            said += findings.len();
            findings.clear();
        }
    }
    let rate = matches as f64 / begin.elapsed().as_secs_f64();
    println!(
        "{name}: {rate:.0} matches/s, {most} groups at most, {said} findings, {} bytes of rows a match",
        bytes as u64 / matches
    );
}

fn main() {
    measure("100,000 groups", 100_000, 1_000_000, 100);
    measure("1,000 groups", 1_000, 500_000, 100);
    measure("one group", 1, 500_000, 100);
}
