//! The tests that stand in baseline documents, run through the tracker as it runs in the service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use event::{Finding, Time};

use super::{Baseline, Options, Subject, Tracker};
use crate::meter::{Cell, Counted, Function, Group, MINUTE, Meter, MeterRecord};
use crate::rule::SeriesTest;

/// A Monday at midnight, in minutes since 1970.
const START: i64 = 29_373_120;

/// What is tested.
const REHEARSED: &str = "rehearsed";

/// What is said of a function or group that does what a test says: the findings with all their revisions, and how many episodes
/// they are of. Counts scatter by an eighth, always in the same way.
pub fn rehearse(baseline: &Baseline, test: &SeriesTest) -> (Vec<Finding>, u64) {
    let options = Options {
        events_partitions: 1,
        ..Options::default()
    };
    let mut tracker = Tracker::new(Arc::new([baseline.clone()]), options);
    let mut said = Vec::new();
    let mut minute = START;
    let named = |name: &str| match &baseline.subject {
        Subject::Rate(rate) => Counted::Group(Group {
            rule: baseline.rule_id.clone(),
            values: rate
                .group_by
                .iter()
                .map(|field| (field.as_str().into(), Some(name.into())))
                .collect(),
        }),
        _ => Counted::Function(Function {
            account: "111122223333".into(),
            function: name.into(),
        }),
    };
    let rehearsed = named(REHEARSED);
    // Another one that is always there, so that silence is this one's own.
    let other = named("steady");
    let lone = Cell {
        starts: 1,
        reports: 1,
        matches: 1,
        ..Cell::default()
    };
    for stretch in &test.series {
        for passed in 0..stretch.minutes {
            let doubled = passed
                .checked_div(stretch.grows as i64)
                .unwrap_or(0)
                .min(30);
            let cell = scattered(&stretch.cell, minute, 1 << doubled);
            for (counted, cell) in [(&rehearsed, cell), (&other, lone)] {
                let meter = Meter {
                    counted: counted.clone(),
                    minute,
                    partition: 0,
                    region: "us-east-1".into(),
                    labels: BTreeMap::new(),
                    cell,
                };
                tracker.take(MeterRecord::Meter(meter), &mut said);
            }
            minute += 1;
            let end = Time(minute * MINUTE).plus(options.grace);
            tracker.close_to(end, &mut said);
        }
    }
    said.retain(|f| f.group.values().flatten().any(|value| value == REHEARSED));
    let episodes: BTreeSet<_> = said.iter().map(|f| f.id).collect();
    let many = episodes.len() as u64;
    (said, many)
}

fn scattered(cell: &Cell, minute: i64, times: u64) -> Cell {
    let noise = minute.wrapping_mul(2_654_435_761).rem_euclid(1_009) as u64;
    let scatter = |n: u64| {
        let n = n.saturating_mul(times);
        // From -1/8 to +1/8; what is small scatters by one now and then.
        let off = (n / 4 + 1) * noise / 1_009;
        (n + off).saturating_sub(n / 8 + u64::from(n > 0 && n < 8 && noise.is_multiple_of(2)))
    };
    let reports = scatter(cell.reports);
    let share = |n: u64| match cell.reports {
        0 => 0,
        whole => (u128::from(n) * u128::from(reports) / u128::from(whole)) as u64,
    };
    Cell {
        starts: reports,
        reports,
        failed: share(cell.failed),
        timed_out: share(cell.timed_out),
        timed: reports,
        duration: share(cell.duration) / 8 * 7 + share(cell.duration) / 4 * noise / 1_009,
        billed: share(cell.billed),
        matches: scatter(cell.matches),
        ..Cell::default()
    }
}
