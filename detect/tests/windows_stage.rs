//! The correlate stage over a log in memory: whatever is killed and started again, the findings on the log are the same.
#![expect(clippy::unwrap_used, reason = "a test fails where it is wrong")]

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::{Bus, Record, Topic};
use detect::correlate::{self, CONSUMER, Metrics, Worker};
use detect::window::{
    Chain, Condition, Correlation, KEY_FLOOD, Match, Options, Watermark, watermark_records,
};
use event::{Clock, Event, Finding, Id, Severity, Str, Time};
use memory::{MemoryBus, PARTITIONS};

const SECOND: i64 = 1_000_000;

fn correlation(rule_id: &str, threshold: u64) -> Correlation {
    Correlation {
        rule_id: rule_id.into(),
        title: format!("Title of {rule_id}").into(),
        severity: Severity::Medium,
        tags: Vec::new(),
        staged: false,
        group_by: vec!["user".into()],
        timespan: 60 * SECOND,
        condition: Condition::at_least(threshold),
        chain: Chain::default(),
        semantics: 0,
    }
}

fn metrics() -> Metrics {
    Metrics::new(&prometheus::Registry::new()).unwrap()
}

fn clock() -> Clock {
    Arc::new(|| Time(1))
}

fn options() -> Options {
    Options {
        lateness: 120 * SECOND,
        ..Options::default()
    }
}

/// Matches of two partitions of `events`, a little out of order, for two correlations and some users.
fn fill(bus: &MemoryBus, rules: &[Correlation], events: u64) {
    for n in 0..events {
        let jitter = (n * 7_919) % 100;
        let event = Event {
            id: Id::of("test", &[&n.to_le_bytes()]),
            time: Time((n as i64 * 3 + jitter as i64) * SECOND),
            source: "aws.cloudtrail".into(),
            ..Event::default()
        };
        let user: Str = format!("user-{}", (n * n) % 11).into();
        let partition = (n % 2) as u32;
        for rule in rules {
            let group = [("user".into(), Some(user.clone()))].into();
            let m = Match::new(rule, group, &event, partition, n / 2);
            bus.append(Topic::Matches, vec![m.into_record(Time(1))])
                .unwrap();
        }
        if n % 5 < 2 {
            let watermark = Watermark {
                partition,
                time: Some(Time(n as i64 * 3 * SECOND)),
                next: 0,
                ends: vec![1, 1],
            };
            let records = watermark_records(&watermark, PARTITIONS, Time(1));
            bus.append(Topic::Matches, records).unwrap();
        }
    }
}

fn findings(bus: &MemoryBus) -> BTreeMap<u32, Vec<Finding>> {
    let kept = bus.0.lock().unwrap();
    let of = |p: u32| {
        kept.records
            .get(&(Topic::Findings, p))
            .into_iter()
            .flatten()
    };
    (0..PARTITIONS)
        .map(|p| {
            let read = |r: &Record| serde_json::from_slice::<Finding>(&r.value).unwrap();
            let mut findings: Vec<Finding> = of(p).map(read).collect();
            // Partitions of `matches` are read in turn; only the order within a finding is promised.
            findings.sort_by_key(|f| (f.id, f.revision));
            (p, findings)
        })
        .collect()
}

fn run(bus: &Arc<MemoryBus>, rules: &[Correlation], options: Options) {
    let rules: Arc<[Correlation]> = rules.into();
    let log: Arc<dyn Bus> = Arc::clone(bus) as _;
    let provider = || Arc::clone(&rules);
    correlate::run(log, provider, options, &metrics(), clock(), bus.1.clone()).unwrap();
}

#[test]
fn kills_and_restarts_change_no_finding() {
    let rules = [correlation("few", 3), correlation("many", 5)];
    let whole = Arc::new(MemoryBus::default());
    fill(&whole, &rules, 600);
    run(&whole, &rules, options());
    let expected = findings(&whole);
    assert!(expected.values().map(Vec::len).sum::<usize>() > 30);

    let pieces = Arc::new(MemoryBus::default());
    fill(&pieces, &rules, 600);
    for round in 0_usize.. {
        let mut moved = false;
        for partition in 0..PARTITIONS {
            let log: Arc<dyn Bus> = Arc::clone(&pieces) as _;
            let mut worker = Worker::open(log, partition, &rules, options()).unwrap();
            // What is computed but not committed is lost with the process.
            if round % 3 == 0 {
                pieces.0.lock().unwrap().commits_until_full = Some(0);
                let lost = worker.round(5_000, &metrics(), &clock()).is_err();
                pieces.0.lock().unwrap().commits_until_full = None;
                moved |= lost;
                continue;
            }
            for _ in 0..round % 4 {
                moved |= worker.round(5_000, &metrics(), &clock()).unwrap();
            }
        }
        if !moved && round % 3 != 0 && round % 4 != 0 {
            break;
        }
    }
    assert_eq!(findings(&pieces), expected);
}

#[test]
fn matches_sent_twice_and_records_that_cannot_be_read_change_nothing() {
    let rules = [correlation("few", 3)];
    let once = Arc::new(MemoryBus::default());
    fill(&once, &rules, 200);
    run(&once, &rules, options());

    let twice = Arc::new(MemoryBus::default());
    fill(&twice, &rules, 200);
    for records in twice.0.lock().unwrap().records.values_mut() {
        let again = records.clone();
        records.truncate(40);
        let nonsense = Record {
            key: "k".into(),
            value: "{".into(),
            time: Time(1),
        };
        records.push(nonsense);
        records.extend(again.into_iter().skip(20));
    }
    run(&twice, &rules, options());
    assert_eq!(findings(&twice), findings(&once));
}

#[test]
fn a_changed_rule_starts_afresh_and_its_old_state_goes() {
    let bus = Arc::new(MemoryBus::default());
    fill(&bus, &[correlation("few", 3)], 100);
    run(&bus, &[correlation("few", 3)], options());
    let rows = |bus: &MemoryBus| bus.0.lock().unwrap().state.len();
    assert!(rows(&bus) > PARTITIONS as usize);
    let before = rows(&bus);

    let renamed = Correlation {
        title: "Another title".into(),
        ..correlation("few", 3)
    };
    let log: Arc<dyn Bus> = Arc::clone(&bus) as _;
    for partition in 0..PARTITIONS {
        Worker::open(
            Arc::clone(&log),
            partition,
            std::slice::from_ref(&renamed),
            options(),
        )
        .unwrap();
    }
    assert_eq!(rows(&bus), before, "a title means nothing to a window");

    let records = watermark_records(
        &Watermark {
            partition: 0,
            time: Some(Time(1_000 * SECOND)),
            next: 1,
            ends: vec![1, 1],
        },
        PARTITIONS,
        Time(1),
    );
    bus.append(Topic::Matches, records).unwrap();
    let changed = [correlation("few", 4)];
    for partition in 0..PARTITIONS {
        let mut worker = Worker::open(Arc::clone(&log), partition, &changed, options()).unwrap();
        assert!(worker.round(5_000, &metrics(), &clock()).unwrap());
    }
    assert_eq!(
        rows(&bus),
        PARTITIONS as usize,
        "one row each for the stage"
    );
}

#[test]
fn a_gap_in_the_log_is_passed() {
    let rules = [correlation("few", 3)];
    let bus = Arc::new(MemoryBus::default());
    fill(&bus, &rules, 100);
    run(&bus, &rules, options());
    let read = bus.position(CONSUMER, Topic::Matches, 0).unwrap().unwrap();
    bus.0.lock().unwrap().dropped = read + 5;
    let log: Arc<dyn Bus> = Arc::clone(&bus) as _;
    let mut worker = Worker::open(log, 0, &rules, options()).unwrap();
    assert!(worker.round(5_000, &metrics(), &clock()).unwrap());
    let stands = bus.position(CONSUMER, Topic::Matches, 0).unwrap();
    assert_eq!(stands, Some(read + 5));
}

#[test]
fn a_key_flood_is_bounded_and_said_once_an_hour() {
    let rules = [correlation("few", 3)];
    let bus = Arc::new(MemoryBus::default());
    for n in 0..2_000_u64 {
        let event = Event {
            id: Id::of("test", &[&n.to_le_bytes()]),
            time: Time(n as i64 * 3 * SECOND),
            ..Event::default()
        };
        let user = format!("random-{n}");
        let group = [("user".into(), Some(user.into()))].into();
        let m = Match::new(&rules[0], group, &event, 0, n);
        bus.append(Topic::Matches, vec![m.into_record(Time(1))])
            .unwrap();
    }
    let bounded = Options {
        max_groups: 50 * PARTITIONS as usize,
        ..options()
    };
    run(&bus, &rules, bounded);
    let floods: Vec<Finding> = findings(&bus).into_values().flatten().collect();
    assert!(floods.iter().all(|f| f.rule_id == KEY_FLOOD));
    assert_eq!(
        floods.len(),
        2 * PARTITIONS as usize,
        "6,000 s are two hours"
    );
    assert!(bus.0.lock().unwrap().state.len() <= 51 * PARTITIONS as usize);
}
