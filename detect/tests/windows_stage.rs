//! The correlate stage over a log in memory: whatever is killed and started again, the findings on the log are the same.
#![expect(clippy::unwrap_used, reason = "a test fails where it is wrong")]

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

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

/// A log on which the clock can be set.
struct Late {
    bus: Arc<MemoryBus>,
    rules: [Correlation; 1],
    registry: prometheus::Registry,
    metrics: Metrics,
    now: Arc<AtomicI64>,
    next: u64,
    /// How many findings each partition has said.
    said: BTreeMap<u32, usize>,
}

/// How long nothing more may have come before a recount, in these tests.
const WAIT: i64 = 10 * SECOND;

impl Late {
    fn new(threshold: u64) -> Late {
        let registry = prometheus::Registry::new();
        Late {
            bus: Arc::default(),
            rules: [correlation("few", threshold)],
            metrics: Metrics::new(&registry).unwrap(),
            registry,
            now: Arc::new(AtomicI64::new(1)),
            next: 0,
            said: BTreeMap::new(),
        }
    }

    /// An event of one user comes.
    fn event(&mut self, second: i64) {
        let n = self.next;
        self.next += 1;
        let event = Event {
            id: Id::of("test", &[&n.to_le_bytes()]),
            time: Time(second * SECOND),
            ..Event::default()
        };
        let group = [("user".into(), Some("user".into()))].into();
        let m = Match::new(&self.rules[0], group, &event, 0, n);
        let record = m.into_record(Time(1));
        self.bus.append(Topic::Matches, vec![record]).unwrap();
    }

    /// Event time has come to here.
    fn watermark(&mut self, second: i64) {
        for partition in 0..2 {
            let watermark = Watermark {
                partition,
                time: Some(Time(second * SECOND)),
                next: self.next,
                ends: vec![self.next; 2],
            };
            let records = watermark_records(&watermark, PARTITIONS, Time(1));
            self.bus.append(Topic::Matches, records).unwrap();
        }
    }

    /// A new process works until there is nothing to do, after so much time by the clock. What it says.
    fn work(&mut self, after: i64) -> Vec<Finding> {
        self.now.fetch_add(after, Ordering::SeqCst);
        let now = Arc::clone(&self.now);
        let clock: Clock = Arc::new(move || Time(now.load(Ordering::SeqCst)));
        let options = Options {
            recount_after: Some(WAIT),
            ..options()
        };
        for partition in 0..PARTITIONS {
            let log: Arc<dyn Bus> = Arc::clone(&self.bus) as _;
            let mut worker = Worker::open(log, partition, &self.rules, options).unwrap();
            while worker.round(5_000, &self.metrics, &clock).unwrap() {}
        }
        let kept = self.bus.0.lock().unwrap();
        let mut news = Vec::new();
        for partition in 0..PARTITIONS {
            let records = kept.records.get(&(Topic::Findings, partition));
            let said = self.said.entry(partition).or_default();
            for record in records.into_iter().flatten().skip(*said) {
                news.push(serde_json::from_slice(&record.value).unwrap());
                *said += 1;
            }
        }
        news
    }

    /// How many recounts had this outcome.
    fn outcomes(&self, outcome: &str) -> u64 {
        let families = self.registry.gather();
        let name = "trailwarden_correlate_recounts_total";
        let family = families.iter().find(|f| f.name() == name).unwrap();
        let is_it = |m: &&prometheus::proto::Metric| m.get_label()[0].value() == outcome;
        let counted = family.get_metric().iter().find(is_it).unwrap();
        counted.get_counter().get_value() as u64
    }
}

/// Count, revision, late, approximate.
fn words(findings: &[Finding]) -> Vec<(u64, u64, bool, bool)> {
    let word = |f: &Finding| (f.count, f.revision, f.late, f.approximate);
    findings.iter().map(word).collect()
}

#[test]
fn a_flood_of_late_events_is_one_recount_and_no_second_finding() {
    let mut log = Late::new(3);
    (0..5).for_each(|n| log.event(1_000 + n));
    log.watermark(10_000);
    let told = log.work(0);
    assert_eq!(told.last().map(|f| f.count), Some(5));
    for n in 0..400 {
        log.event(1_000 + n % 5);
        if n % 50 == 0 {
            // Nothing is said while more comes, whatever process comes and goes.
            assert_eq!(log.work(WAIT / 2), []);
        }
    }
    assert_eq!(log.work(0), []);
    assert_eq!(log.work(WAIT - 1), []);
    let news = log.work(1);
    let revision = told.last().unwrap().revision + 1;
    assert_eq!(words(&news), [(405, revision, true, false)]);
    assert_eq!(news[0].id, told[0].id);
    assert_eq!(log.outcomes("exact"), 1);
    assert_eq!(log.work(1_000 * SECOND), []);
    assert_eq!(log.outcomes("exact"), 1, "it is done");
}

#[test]
fn a_source_that_is_always_late_is_heard() {
    let mut log = Late::new(3);
    log.watermark(100_000);
    let mut news = Vec::new();
    for n in 0..40 {
        log.event(1_000 + 20 * n);
        news.extend(log.work(WAIT / 2));
    }
    assert!(!news.is_empty(), "it never paused for as long as the wait");
    news.extend(log.work(WAIT));
    assert_eq!(news.last().map(|f| f.count), Some(40));
    assert!(log.outcomes("exact") > 1);
    assert!(
        news.iter()
            .all(|f| f.id == news[0].id && f.merged_into.is_none())
    );
}

#[test]
fn two_that_were_told_become_one_and_what_reaches_far_is_read_to_its_ends() {
    let mut log = Late::new(3);
    // An event in 20 seconds, for an hour and a half; then a gap.
    (0..270).for_each(|n| log.event(10_000 + 20 * n));
    let second = 10_000 + 20 * 269 + 110;
    (0..270).for_each(|n| log.event(second + 20 * n));
    log.watermark(second + 20 * 270 + 10_000);
    let told = log.work(0);
    let (first, other) = (told[0].id, told.last().unwrap().id);
    let ids: std::collections::BTreeSet<Id> = told.iter().map(|f| f.id).collect();
    assert_eq!(ids.len(), 2);
    (0..3).for_each(|n| log.event(second - 55 + n));
    assert_eq!(log.work(0), []);
    let news = log.work(WAIT);
    assert_eq!(news.len(), 2);
    assert!(log.outcomes("farther") > 1, "it reaches far");
    let all: Vec<Finding> = findings(&log.bus).into_values().flatten().collect();
    let last = |id: Id| {
        all.iter()
            .filter(|f| f.id == id)
            .max_by_key(|f| f.revision)
            .unwrap()
    };
    let (earlier, later) = match last(first).merged_into {
        None => (last(first), last(other)),
        Some(_) => (last(other), last(first)),
    };
    assert_eq!(later.merged_into, Some(earlier.id));
    assert_eq!((earlier.count, earlier.late), (543, true));
    let ids: std::collections::BTreeSet<Id> = all.iter().map(|f| f.id).collect();
    assert_eq!(ids.len(), 2, "nobody is told of a third");
}

#[test]
fn an_episode_that_goes_on_goes_on_with_what_came_late() {
    let mut log = Late::new(3);
    (0..3).for_each(|n| log.event(1_000 + 50 * n));
    // The last of them may still be joined.
    log.watermark(1_130 + 120);
    assert_eq!(log.work(0), []);
    log.event(1_060);
    log.event(1_095);
    assert_eq!(log.work(0), []);
    let news = log.work(WAIT);
    assert_eq!(words(&news), [(5, 0, true, false)]);
    // It comes in time and is part of it.
    log.event(1_140);
    log.watermark(9_000);
    let more = log.work(0);
    assert_eq!(words(&more), [(6, 1, true, false)]);
    assert_eq!(more[0].id, news[0].id);
    assert_eq!(log.outcomes("exact"), 1);
}

#[test]
fn a_source_that_was_cut_off_for_days_is_counted_piece_by_piece() {
    let mut log = Late::new(3);
    // Two of each three have come in time.
    let hours = 0..72;
    for hour in hours.clone() {
        (0..2).for_each(|n| log.event(100_000 + 3_600 * hour + n));
    }
    log.watermark(1_000_000);
    assert_eq!(log.work(0), []);
    for hour in hours.rev() {
        log.event(100_000 + 3_600 * hour + 2);
    }
    assert_eq!(log.work(0), []);
    let news = log.work(WAIT);
    assert_eq!(words(&news), [(3, 0, true, false); 72]);
    assert!(log.outcomes("exact") > 5, "in pieces");
    assert_eq!(log.work(WAIT), []);
}

#[test]
fn what_the_log_has_forgotten_makes_nothing_smaller() {
    let mut log = Late::new(3);
    (0..50).for_each(|n| log.event(1_000 + n));
    log.watermark(10_000);
    let told = log.work(0);
    assert_eq!(told.last().map(|f| f.count), Some(50));
    // Retention takes all of it.
    let end_of = |log: &Late| {
        let bus = Arc::clone(&log.bus);
        move |p: u32| bus.bounds(Topic::Matches, p).unwrap().end
    };
    let ends = (0..PARTITIONS).map(end_of(&log)).max().unwrap();
    for _ in 0..ends {
        log.watermark(10_000);
    }
    log.work(0);
    log.bus.0.lock().unwrap().dropped = ends;
    (0..5).for_each(|n| log.event(1_020 + n));
    assert_eq!(log.work(0), []);
    assert_eq!(log.work(WAIT), [], "fewer than were told");
    assert_eq!(log.outcomes("approximate"), 1);
    // Nor of one that goes on.
    (0..50).for_each(|n| log.event(20_000 + 20 * n));
    log.watermark(20_000 + 20 * 49 + 130);
    log.work(0);
    let end = (0..PARTITIONS).map(end_of(&log)).max().unwrap();
    for _ in 0..end {
        log.watermark(20_000 + 20 * 49 + 130);
    }
    log.work(0);
    log.bus.0.lock().unwrap().dropped = end;
    log.event(20_000 + 20 * 48);
    assert_eq!(log.work(0), []);
    assert_eq!(log.work(WAIT), []);
    log.event(20_000 + 20 * 50);
    log.watermark(40_000);
    assert_eq!(log.work(0).last().map(|f| f.count), Some(51));
    assert_eq!(log.outcomes("approximate"), 2);
    // It knew nothing of this time, and says that it may not know all.
    (0..5).for_each(|n| log.event(5_000 + n));
    assert_eq!(log.work(0), []);
    assert_eq!(words(&log.work(WAIT)), [(5, 0, true, true)]);
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
