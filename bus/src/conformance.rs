//! What every implementation of [`Bus`] must do, as tests that run against any of them.
//!
//! [`check`] runs all [`CASES`], each on a log of its own that `make` opens empty. The cases know only the trait, so
//! what they fix is the contract and not an implementation; crashes, damage and full disks are tested beside each
//! implementation. `make` must give a log with a retention of at most 300 days for every topic.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use event::{Id, Time};

use crate::seen::{self, Seen};
use crate::{
    Batch, Bus, BusError, Commit, Offset, Position, Record, StateChange, Topic, partition_of,
};

/// A case: its name, and the test on an empty log.
pub type Case = (&'static str, fn(&dyn Bus));

/// Every case.
pub const CASES: &[Case] = &[
    ("an empty log has nothing", an_empty_log_has_nothing),
    ("what is appended is read", what_is_appended_is_read),
    ("appending nothing is fine", appending_nothing_is_fine),
    ("keys decide the partition", keys_decide_the_partition),
    ("a partition keeps its order", a_partition_keeps_its_order),
    ("topics do not mix", topics_do_not_mix),
    (
        "any bytes and sizes come back",
        any_bytes_and_sizes_come_back,
    ),
    ("a read keeps to its budget", a_read_keeps_to_its_budget),
    (
        "reading on gives each record once",
        reading_on_gives_each_record_once,
    ),
    (
        "reading outside the log is an error",
        reading_outside_the_log_is_an_error,
    ),
    (
        "unknown partitions are refused",
        unknown_partitions_are_refused,
    ),
    (
        "positions start empty and move",
        positions_start_empty_and_move,
    ),
    (
        "positions are per consumer, topic and partition",
        positions_are_separate,
    ),
    ("a stale worker is fenced", a_stale_worker_is_fenced),
    ("a worker cannot jump ahead", a_worker_cannot_jump_ahead),
    (
        "a fenced commit changes nothing",
        a_fenced_commit_changes_nothing,
    ),
    (
        "positions stay inside the log",
        positions_stay_inside_the_log,
    ),
    (
        "one partition once per commit",
        one_partition_once_per_commit,
    ),
    ("a commit needs a name", a_commit_needs_a_name),
    (
        "outputs follow what was appended",
        outputs_follow_what_was_appended,
    ),
    (
        "outputs to events are refused",
        outputs_to_events_are_refused,
    ),
    (
        "state is set, changed and removed",
        state_is_set_changed_and_removed,
    ),
    (
        "of two changes the later holds",
        of_two_changes_the_later_holds,
    ),
    (
        "state is per consumer and partition",
        state_is_per_consumer_and_partition,
    ),
    ("a scan is in order of key", a_scan_is_in_order_of_key),
    (
        "waiting ends at once or in time",
        waiting_ends_at_once_or_in_time,
    ),
    ("an append wakes a waiter", an_append_wakes_a_waiter),
    ("an output wakes a waiter", an_output_wakes_a_waiter),
    (
        "appends from many threads are all kept",
        appends_from_many_threads,
    ),
    ("rival workers take turns", rival_workers_take_turns),
    (
        "repeats and conflicts are seen",
        repeats_and_conflicts_are_seen,
    ),
    ("retention drops what is old", retention_drops_what_is_old),
    (
        "a consumer behind retention can go on",
        a_consumer_behind_retention_can_go_on,
    ),
    ("expired state goes, other state stays", expired_state_goes),
];

/// Runs every case on a fresh log; panics with the name of the first that fails.
#[expect(
    clippy::print_stderr,
    reason = "how long each case takes is shown when tests are run with --nocapture"
)]
pub fn check<B: Bus>(make: impl Fn() -> B) {
    for (name, case) in CASES {
        let bus = make();
        let begin = std::time::Instant::now();
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&bus)));
        assert!(ran.is_ok(), "the bus fails the case `{name}`");
        eprintln!("{:>6} ms  {name}", begin.elapsed().as_millis());
    }
}

const DAY: i64 = 86_400_000_000;
const T0: Time = Time(1_780_000_000_000_000);
const ALL: usize = usize::MAX;

fn record(key: &str, value: &str) -> Record {
    Record {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        time: T0,
    }
}

/// A key that lies in the partition.
fn key_in(bus: &dyn Bus, topic: Topic, partition: u32) -> String {
    (0..)
        .map(|n: u32| format!("key-{n}"))
        .find(|key| partition_of(key.as_bytes(), bus.partitions(topic)) == partition)
        .expect("the hash reaches every partition")
}

/// Appends values to partition 0.
fn append(bus: &dyn Bus, topic: Topic, values: &[&str]) {
    let key = key_in(bus, topic, 0);
    let records = values.iter().map(|value| record(&key, value)).collect();
    bus.append(topic, records).expect("append");
}

fn read(bus: &dyn Bus, topic: Topic, partition: u32, from: Offset, max_bytes: usize) -> Batch {
    bus.read(topic, partition, from, max_bytes).expect("read")
}

fn values(bus: &dyn Bus, topic: Topic, partition: u32) -> Vec<String> {
    let start = bus.bounds(topic, partition).expect("bounds").start;
    read(bus, topic, partition, start, ALL)
        .records
        .into_iter()
        .map(|(_, record)| String::from_utf8(record.value.to_vec()).expect("the cases write text"))
        .collect()
}

fn position(topic: Topic, from: Offset, to: Offset) -> Position {
    Position {
        topic,
        partition: 0,
        from,
        to,
    }
}

fn moving(consumer: &str, from: Offset, to: Offset) -> Commit {
    Commit {
        consumer: consumer.into(),
        positions: vec![position(Topic::Events, from, to)],
        ..Commit::default()
    }
}

fn set(key: &[u8], value: Option<&str>) -> StateChange {
    StateChange {
        partition: 0,
        key: key.to_vec(),
        value: value.map(|v| v.as_bytes().to_vec()),
        expires: None,
    }
}

fn remember(bus: &dyn Bus, consumer: &str, state: Vec<StateChange>) {
    bus.commit(Commit {
        consumer: consumer.into(),
        state,
        ..Commit::default()
    })
    .expect("commit");
}

fn state(bus: &dyn Bus, consumer: &str, key: &[u8]) -> Option<String> {
    bus.state_get(consumer, 0, &[key.to_vec()])
        .expect("state_get")
        .remove(0)
        .map(|value| String::from_utf8(value).expect("the cases write text"))
}

fn is_refused(result: Result<(), BusError>) {
    assert!(matches!(result, Err(BusError::Refused(_))), "{result:?}");
}

fn is_fenced(result: Result<(), BusError>) {
    assert!(matches!(result, Err(BusError::Fenced { .. })), "{result:?}");
}

fn an_empty_log_has_nothing(bus: &dyn Bus) {
    for topic in Topic::ALL {
        assert!(bus.partitions(topic) > 0);
        for partition in 0..bus.partitions(topic) {
            assert_eq!(bus.bounds(topic, partition).expect("bounds"), 0..0);
            let batch = read(bus, topic, partition, 0, ALL);
            assert_eq!((batch.records.len(), batch.next), (0, 0));
        }
    }
}

fn what_is_appended_is_read(bus: &dyn Bus) {
    for topic in Topic::ALL {
        append(bus, topic, &["a", "b"]);
        append(bus, topic, &["c"]);
        let batch = read(bus, topic, 0, 0, ALL);
        let key = key_in(bus, topic, 0);
        let expected = ["a", "b", "c"].map(|value| record(&key, value));
        assert_eq!(batch.records, (0..).zip(expected).collect::<Vec<_>>());
        assert_eq!(batch.next, 3);
        assert_eq!(bus.bounds(topic, 0).expect("bounds"), 0..3);
        assert_eq!(read(bus, topic, 0, 2, ALL).records[0].0, 2);
        let end = read(bus, topic, 0, 3, ALL);
        assert_eq!((end.records.len(), end.next), (0, 3));
    }
}

fn appending_nothing_is_fine(bus: &dyn Bus) {
    for topic in Topic::ALL {
        bus.append(topic, Vec::new()).expect("append");
        assert_eq!(bus.bounds(topic, 0).expect("bounds"), 0..0);
    }
}

fn keys_decide_the_partition(bus: &dyn Bus) {
    for topic in Topic::ALL {
        let records = (0..100).map(|n| record(&format!("key-{n}"), "")).collect();
        bus.append(topic, records).expect("append");
        let mut found = 0;
        for partition in 0..bus.partitions(topic) {
            for (_, record) in read(bus, topic, partition, 0, ALL).records {
                assert_eq!(partition_of(&record.key, bus.partitions(topic)), partition);
                found += 1;
            }
        }
        assert_eq!(found, 100);
    }
}

fn a_partition_keeps_its_order(bus: &dyn Bus) {
    for topic in Topic::ALL {
        let mut expected: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for call in 0..10 {
            let records: Vec<Record> = (0..50)
                .map(|n| record(&format!("key-{}", n % 7), &format!("{call}/{n}")))
                .collect();
            for record in &records {
                expected
                    .entry(partition_of(&record.key, bus.partitions(topic)))
                    .or_default()
                    .push(String::from_utf8_lossy(&record.value).into_owned());
            }
            bus.append(topic, records).expect("append");
        }
        for (partition, expected) in expected {
            assert_eq!(values(bus, topic, partition), expected);
        }
    }
}

fn topics_do_not_mix(bus: &dyn Bus) {
    for topic in Topic::ALL {
        append(bus, topic, &[topic.as_str()]);
    }
    for topic in Topic::ALL {
        assert_eq!(values(bus, topic, 0), [topic.as_str()]);
    }
}

fn any_bytes_and_sizes_come_back(bus: &dyn Bus) {
    for topic in Topic::ALL {
        let sizes = [0, 1, 1_000, 70_000, 900_000];
        let key = key_in(bus, topic, 0);
        let records: Vec<Record> = (0..)
            .zip(sizes)
            .map(|(n, size)| Record {
                key: Bytes::copy_from_slice(key.as_bytes()),
                value: (0..size).map(|i: u64| ((i * i) >> 3) as u8).collect(),
                time: Time(T0.0 - n),
            })
            .collect();
        bus.append(topic, records.clone()).expect("append");
        let nameless = Record {
            key: Bytes::new(),
            value: Bytes::from_static(b"\0\xff"),
            time: Time(-1),
        };
        bus.append(topic, vec![nameless.clone()]).expect("append");
        let found: Vec<Record> = (0..bus.partitions(topic))
            .flat_map(|p| read(bus, topic, p, 0, ALL).records)
            .map(|(_, record)| record)
            .collect();
        assert_eq!(found.len(), records.len() + 1);
        assert!(found.contains(&nameless));
        assert!(records.iter().all(|record| found.contains(record)));
    }
}

fn a_read_keeps_to_its_budget(bus: &dyn Bus) {
    for topic in Topic::ALL {
        let key = key_in(bus, topic, 0);
        let value = "x".repeat(100 - key.len());
        bus.append(topic, vec![record(&key, &value); 10])
            .expect("append");
        let check = |max_bytes, expected| {
            assert_eq!(read(bus, topic, 0, 0, max_bytes).records.len(), expected);
        };
        check(0, 1);
        check(99, 1);
        check(100, 1);
        check(299, 2);
        check(300, 3);
        check(10_000, 10);
    }
}

fn reading_on_gives_each_record_once(bus: &dyn Bus) {
    for topic in Topic::ALL {
        let key = key_in(bus, topic, 0);
        for call in 0..20 {
            let records = (0..call)
                .map(|n| record(&key, &format!("{call}/{n}")))
                .collect();
            bus.append(topic, records).expect("append");
        }
        for budget in [1, 17, 64, 1_000] {
            let (mut next, mut offsets) = (0, Vec::new());
            while next < bus.bounds(topic, 0).expect("bounds").end {
                let batch = read(bus, topic, 0, next, budget);
                assert!(!batch.records.is_empty());
                offsets.extend(batch.records.iter().map(|(offset, _)| *offset));
                assert_eq!(Some(batch.next), offsets.last().map(|last| last + 1));
                next = batch.next;
            }
            assert_eq!(offsets, (0..190).collect::<Vec<_>>());
        }
    }
}

fn reading_outside_the_log_is_an_error(bus: &dyn Bus) {
    for topic in Topic::ALL {
        append(bus, topic, &["a"]);
        let outside = bus.read(topic, 0, 2, ALL);
        assert!(
            matches!(
                outside,
                Err(BusError::OutOfRange {
                    asked: 2,
                    start: 0,
                    end: 1,
                    ..
                })
            ),
            "{outside:?}"
        );
    }
}

fn unknown_partitions_are_refused(bus: &dyn Bus) {
    for topic in Topic::ALL {
        let unknown = bus.partitions(topic);
        is_refused(bus.read(topic, unknown, 0, ALL).map(drop));
        is_refused(bus.bounds(topic, unknown).map(drop));
        is_refused(bus.wait(topic, &[(unknown, 0)], Duration::ZERO).map(drop));
        is_refused(bus.position("c", topic, unknown).map(drop));
        is_refused(bus.commit(Commit {
            consumer: "c".into(),
            positions: vec![Position {
                topic,
                partition: unknown,
                from: 0,
                to: 0,
            }],
            ..Commit::default()
        }));
    }
}

fn positions_start_empty_and_move(bus: &dyn Bus) {
    append(bus, Topic::Events, &["a", "b", "c"]);
    let stored = || bus.position("c", Topic::Events, 0).expect("position");
    assert_eq!(stored(), None);
    bus.commit(moving("c", 0, 2)).expect("commit");
    assert_eq!(stored(), Some(2));
    bus.commit(moving("c", 2, 2))
        .expect("a commit may stand still");
    bus.commit(moving("c", 2, 3)).expect("commit");
    assert_eq!(stored(), Some(3));
}

fn positions_are_separate(bus: &dyn Bus) {
    append(bus, Topic::Events, &["a"]);
    append(bus, Topic::Findings, &["a", "b"]);
    bus.commit(Commit {
        consumer: "c".into(),
        positions: vec![
            position(Topic::Events, 0, 1),
            position(Topic::Findings, 0, 2),
        ],
        ..Commit::default()
    })
    .expect("commit");
    let check = |consumer: &str, topic, expected| {
        assert_eq!(
            bus.position(consumer, topic, 0).expect("position"),
            expected
        );
    };
    check("c", Topic::Events, Some(1));
    check("c", Topic::Findings, Some(2));
    check("c", Topic::Meters, None);
    check("d", Topic::Events, None);
    if bus.partitions(Topic::Events) > 1 {
        assert_eq!(bus.position("c", Topic::Events, 1).expect("position"), None);
    }
}

fn a_stale_worker_is_fenced(bus: &dyn Bus) {
    append(bus, Topic::Events, &["a", "b"]);
    bus.commit(moving("c", 0, 1)).expect("commit");
    is_fenced(bus.commit(moving("c", 0, 2)));
    assert_eq!(
        bus.position("c", Topic::Events, 0).expect("position"),
        Some(1)
    );
}

fn a_worker_cannot_jump_ahead(bus: &dyn Bus) {
    append(bus, Topic::Events, &["a", "b"]);
    is_fenced(bus.commit(moving("c", 1, 2)));
    assert_eq!(bus.position("c", Topic::Events, 0).expect("position"), None);
}

fn a_fenced_commit_changes_nothing(bus: &dyn Bus) {
    append(bus, Topic::Events, &["a", "b"]);
    append(bus, Topic::Matches, &["a"]);
    bus.commit(moving("c", 0, 1)).expect("commit");
    is_fenced(bus.commit(Commit {
        consumer: "c".into(),
        positions: vec![
            position(Topic::Matches, 0, 1),
            position(Topic::Events, 0, 2),
        ],
        outputs: vec![(Topic::Findings, record("k", "v"))],
        state: vec![set(b"key", Some("value"))],
    }));
    assert_eq!(
        bus.position("c", Topic::Matches, 0).expect("position"),
        None
    );
    assert_eq!(state(bus, "c", b"key"), None);
    for partition in 0..bus.partitions(Topic::Findings) {
        assert_eq!(
            bus.bounds(Topic::Findings, partition).expect("bounds"),
            0..0
        );
    }
}

fn positions_stay_inside_the_log(bus: &dyn Bus) {
    append(bus, Topic::Events, &["a", "b"]);
    bus.commit(moving("c", 0, 2)).expect("commit");
    is_refused(bus.commit(moving("c", 2, 3)));
    is_refused(bus.commit(moving("c", 2, 1)));
}

fn one_partition_once_per_commit(bus: &dyn Bus) {
    append(bus, Topic::Events, &["a", "b"]);
    is_refused(bus.commit(Commit {
        consumer: "c".into(),
        positions: vec![position(Topic::Events, 0, 1), position(Topic::Events, 1, 2)],
        ..Commit::default()
    }));
}

fn a_commit_needs_a_name(bus: &dyn Bus) {
    is_refused(bus.commit(Commit::default()));
}

fn outputs_follow_what_was_appended(bus: &dyn Bus) {
    append(bus, Topic::Findings, &["a"]);
    let key = key_in(bus, Topic::Findings, 0);
    for (n, values) in [["b", "c"], ["d", "e"]].into_iter().enumerate() {
        bus.commit(Commit {
            consumer: format!("c{n}"),
            outputs: values
                .iter()
                .map(|value| (Topic::Findings, record(&key, value)))
                .chain([(Topic::Matches, record("m", "m"))])
                .collect(),
            ..Commit::default()
        })
        .expect("commit");
    }
    append(bus, Topic::Findings, &["f"]);
    assert_eq!(
        values(bus, Topic::Findings, 0),
        ["a", "b", "c", "d", "e", "f"]
    );
    let matches: usize = (0..bus.partitions(Topic::Matches))
        .map(|p| values(bus, Topic::Matches, p).len())
        .sum();
    assert_eq!(matches, 2);
}

fn outputs_to_events_are_refused(bus: &dyn Bus) {
    is_refused(bus.commit(Commit {
        consumer: "c".into(),
        outputs: vec![
            (Topic::Findings, record("k", "v")),
            (Topic::Events, record("k", "v")),
        ],
        state: vec![set(b"key", Some("value"))],
        ..Commit::default()
    }));
    assert_eq!(state(bus, "c", b"key"), None);
    for topic in [Topic::Findings, Topic::Events] {
        for partition in 0..bus.partitions(topic) {
            assert_eq!(bus.bounds(topic, partition).expect("bounds"), 0..0);
        }
    }
}

fn state_is_set_changed_and_removed(bus: &dyn Bus) {
    remember(
        bus,
        "c",
        vec![
            set(b"a", Some("1")),
            set(b"b", Some("2")),
            set(b"\0\xff", Some("")),
        ],
    );
    let keys = [
        b"b".to_vec(),
        b"none".to_vec(),
        b"a".to_vec(),
        b"b".to_vec(),
        b"\0\xff".to_vec(),
    ];
    let found = bus.state_get("c", 0, &keys).expect("state_get");
    let expected = [Some("2"), None, Some("1"), Some("2"), Some("")];
    assert_eq!(found, expected.map(|v| v.map(|v| v.as_bytes().to_vec())));
    remember(
        bus,
        "c",
        vec![set(b"a", Some("3")), set(b"b", None), set(b"none", None)],
    );
    assert_eq!(state(bus, "c", b"a"), Some("3".into()));
    assert_eq!(state(bus, "c", b"b"), None);
    assert_eq!(
        bus.state_get("c", 0, &[]).expect("state_get"),
        Vec::<Option<Vec<u8>>>::new()
    );
}

fn of_two_changes_the_later_holds(bus: &dyn Bus) {
    remember(
        bus,
        "c",
        vec![set(b"a", Some("1")), set(b"a", None), set(b"a", Some("2"))],
    );
    assert_eq!(state(bus, "c", b"a"), Some("2".into()));
    remember(bus, "c", vec![set(b"a", Some("3")), set(b"a", None)]);
    assert_eq!(state(bus, "c", b"a"), None);
}

fn state_is_per_consumer_and_partition(bus: &dyn Bus) {
    let other = StateChange {
        partition: 1,
        ..set(b"a", Some("other"))
    };
    remember(bus, "c", vec![set(b"a", Some("1")), other]);
    remember(bus, "d", vec![set(b"a", Some("2"))]);
    assert_eq!(state(bus, "c", b"a"), Some("1".into()));
    assert_eq!(state(bus, "d", b"a"), Some("2".into()));
    assert_eq!(state(bus, "e", b"a"), None);
    let found = bus.state_get("c", 1, &[b"a".to_vec()]).expect("state_get");
    assert_eq!(found, [Some(b"other".to_vec())]);
}

fn a_scan_is_in_order_of_key(bus: &dyn Bus) {
    let keys: [&[u8]; 8] = [
        b"b/2",
        b"a",
        b"b/",
        b"b/\xff\xff",
        b"b/10",
        b"b0",
        b"\xff",
        b"\xff\x01",
    ];
    let foreign = StateChange {
        partition: 1,
        ..set(b"b/9", Some("v"))
    };
    let changes = keys.iter().map(|key| set(key, Some("v"))).chain([foreign]);
    remember(bus, "c", changes.collect());
    let check = |prefix: &[u8], expected: &[&[u8]]| {
        let found = bus.state_scan("c", 0, prefix).expect("state_scan");
        let keys: Vec<&[u8]> = found.iter().map(|(key, _)| key.as_slice()).collect();
        assert_eq!(keys, expected);
    };
    check(b"b/", &[b"b/", b"b/10", b"b/2", b"b/\xff\xff"]);
    check(b"\xff", &[b"\xff", b"\xff\x01"]);
    check(b"x", &[]);
    assert_eq!(
        bus.state_scan("c", 0, b"").expect("state_scan").len(),
        keys.len()
    );
    assert_eq!(bus.state_scan("d", 0, b"").expect("state_scan").len(), 0);
}

fn waiting_ends_at_once_or_in_time(bus: &dyn Bus) {
    append(bus, Topic::Events, &["a"]);
    let long = Duration::from_secs(600);
    let check = |topic, from: &[(u32, Offset)], timeout, expected| {
        assert_eq!(bus.wait(topic, from, timeout).expect("wait"), expected);
    };
    check(Topic::Events, &[(0, 0)], long, true);
    check(Topic::Events, &[(0, 1)], Duration::from_millis(1), false);
    check(Topic::Matches, &[(0, 0)], Duration::ZERO, false);
    check(Topic::Events, &[], Duration::ZERO, false);
    if bus.partitions(Topic::Events) > 1 {
        check(Topic::Events, &[(1, 0)], Duration::ZERO, false);
        check(Topic::Events, &[(1, 0), (0, 0)], long, true);
    }
}

fn an_append_wakes_a_waiter(bus: &dyn Bus) {
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| bus.wait(Topic::Events, &[(0, 1)], Duration::from_secs(600)));
        append(bus, Topic::Events, &["a"]);
        append(bus, Topic::Events, &["b"]);
        assert!(waiter.join().expect("no panic").expect("wait"));
    });
}

fn an_output_wakes_a_waiter(bus: &dyn Bus) {
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| bus.wait(Topic::Findings, &[(0, 0)], Duration::from_secs(600)));
        let key = key_in(bus, Topic::Findings, 0);
        bus.commit(Commit {
            consumer: "c".into(),
            outputs: vec![(Topic::Findings, record(&key, "v"))],
            ..Commit::default()
        })
        .expect("commit");
        assert!(waiter.join().expect("no panic").expect("wait"));
    });
}

fn appends_from_many_threads(bus: &dyn Bus) {
    const THREADS: usize = 8;
    const CALLS: usize = 20;
    for topic in [Topic::Events, Topic::Findings] {
        let key = key_in(bus, topic, 0);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let key = &key;
                scope.spawn(move || {
                    for call in 0..CALLS {
                        let value = format!("{thread} {call}");
                        bus.append(topic, vec![record(key, &value); 3])
                            .expect("append");
                    }
                });
            }
        });
        let found = values(bus, topic, 0);
        assert_eq!(found.len(), THREADS * CALLS * 3);
        for thread in 0..THREADS {
            let own: Vec<&String> = found
                .iter()
                .filter(|value| value.starts_with(&format!("{thread} ")))
                .collect();
            let expected: Vec<String> = (0..CALLS)
                .flat_map(|call| vec![format!("{thread} {call}"); 3])
                .collect();
            assert_eq!(own, expected.iter().collect::<Vec<_>>());
        }
    }
}

/// Several workers of one consumer count the records: each is counted once whoever wins.
fn rival_workers_take_turns(bus: &dyn Bus) {
    const RECORDS: u64 = 60;
    let numbers: Vec<String> = (0..RECORDS).map(|n| n.to_string()).collect();
    append(
        bus,
        Topic::Events,
        &numbers.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let fenced = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let at = bus
                        .position("c", Topic::Events, 0)
                        .expect("position")
                        .unwrap_or(0);
                    let counted = state(bus, "c", b"counted")
                        .map_or(0, |n| n.parse::<u64>().expect("a number"));
                    let batch = read(bus, Topic::Events, 0, at, 20);
                    if batch.records.is_empty() {
                        return;
                    }
                    let count = counted + batch.records.len() as u64;
                    let step = bus.commit(Commit {
                        outputs: batch
                            .records
                            .into_iter()
                            .map(|(_, r)| (Topic::Matches, r))
                            .collect(),
                        state: vec![set(b"counted", Some(&count.to_string()))],
                        ..moving("c", at, batch.next)
                    });
                    match step {
                        Ok(()) => {}
                        Err(BusError::Fenced { .. }) => {
                            fenced.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(e) => panic!("{e}"),
                    }
                }
            });
        }
    });
    assert_eq!(state(bus, "c", b"counted"), Some(RECORDS.to_string()));
    let key = key_in(bus, Topic::Events, 0);
    let partition = partition_of(key.as_bytes(), bus.partitions(Topic::Matches));
    assert_eq!(values(bus, Topic::Matches, partition), numbers);
}

fn repeats_and_conflicts_are_seen(bus: &dyn Bus) {
    let keep = Duration::from_secs(86_400);
    let check = |partition, events: &[(u128, u64)], expected: &[Seen]| {
        let events: Vec<(Id, u64)> = events.iter().map(|(id, hash)| (Id(*id), *hash)).collect();
        let (verdicts, state) =
            seen::filter(bus, "c", partition, &events, T0, keep).expect("filter");
        assert_eq!(verdicts, expected);
        remember(bus, "c", state);
    };
    use Seen::{Conflict, New, Repeat};
    check(
        0,
        &[(1, 10), (2, 20), (1, 10), (2, 21), (2, 21)],
        &[New, New, Repeat, Conflict, Repeat],
    );
    check(
        0,
        &[(2, 20), (2, 21), (2, 22), (3, 30)],
        &[Repeat, Repeat, Conflict, New],
    );
    check(0, &[(2, 22), (3, 30)], &[Repeat, Repeat]);
    check(1, &[(1, 11)], &[New]);
    check(0, &[], &[]);
    let forgotten = T0.plus(2 * DAY);
    bus.retain(forgotten).expect("retain");
    check(0, &[(1, 99)], &[New]);
}

fn aged(key: &str, value: &str, days: i64) -> Record {
    Record {
        time: T0.plus(days * DAY),
        ..record(key, value)
    }
}

fn retention_drops_what_is_old(bus: &dyn Bus) {
    for topic in Topic::ALL {
        let key = key_in(bus, topic, 0);
        bus.append(topic, vec![aged(&key, "old", 0); 5])
            .expect("append");
        bus.append(topic, vec![aged(&key, "young", 400); 5])
            .expect("append");
    }
    bus.retain(T0.plus(DAY / 24)).expect("retain");
    for topic in Topic::ALL {
        assert_eq!(bus.bounds(topic, 0).expect("bounds"), 0..10);
    }
    bus.retain(T0.plus(400 * DAY)).expect("retain");
    for topic in Topic::ALL {
        assert_eq!(bus.bounds(topic, 0).expect("bounds"), 5..10);
        assert_eq!(values(bus, topic, 0), ["young"; 5]);
        let gone = bus.read(topic, 0, 4, ALL);
        assert!(
            matches!(
                gone,
                Err(BusError::OutOfRange {
                    start: 5,
                    end: 10,
                    ..
                })
            ),
            "{gone:?}"
        );
    }
    // Dropping everything keeps the count of offsets.
    bus.retain(T0.plus(2_000 * DAY)).expect("retain");
    for topic in Topic::ALL {
        assert_eq!(bus.bounds(topic, 0).expect("bounds"), 10..10);
        let key = key_in(bus, topic, 0);
        bus.append(topic, vec![aged(&key, "new", 2_000)])
            .expect("append");
        assert_eq!(read(bus, topic, 0, 10, ALL).records[0].0, 10);
    }
}

fn a_consumer_behind_retention_can_go_on(bus: &dyn Bus) {
    for topic in [Topic::Events, Topic::Findings] {
        let key = key_in(bus, topic, 0);
        bus.append(topic, vec![aged(&key, "old", 0); 5])
            .expect("append");
        bus.append(topic, vec![aged(&key, "young", 400); 5])
            .expect("append");
        let step = |consumer: &str, from, to| {
            bus.commit(Commit {
                consumer: consumer.into(),
                positions: vec![position(topic, from, to)],
                ..Commit::default()
            })
        };
        step("behind", 0, 2).expect("commit");
        step("working", 0, 2).expect("commit");
        bus.retain(T0.plus(400 * DAY)).expect("retain");
        step("behind", 5, 6).expect("what it goes on from is the start");
        step("working", 2, 5).expect("it had read before retention came");
        step("fresh", 5, 7).expect("a first commit from the start");
        is_fenced(step("fresh", 5, 7));
        is_fenced(step("behind", 2, 7));
        is_fenced(step("other", 6, 7));
    }
}

fn expired_state_goes(bus: &dyn Bus) {
    let expiring = |key: &[u8], days: i64| StateChange {
        expires: Some(T0.plus(days * DAY)),
        ..set(key, Some("v"))
    };
    remember(
        bus,
        "c",
        vec![
            expiring(b"a", 1),
            expiring(b"b", 3),
            set(b"c", Some("v")),
            expiring(b"d", 1),
        ],
    );
    remember(bus, "c", vec![expiring(b"d", 3)]);
    bus.retain(T0.plus(2 * DAY)).expect("retain");
    let check = |key: &[u8], kept: bool| assert_eq!(state(bus, "c", key).is_some(), kept);
    check(b"a", false);
    check(b"b", true);
    check(b"c", true);
    check(b"d", true);
}
