//! State comes back whole on any node, whatever happened to copies and writers.

use super::changelog::{self, Change, Delta, Moved, Row};
use super::*;

const KEYS: u32 = 100_000;

fn state(node: &Temporary) -> (Option<Offset>, Vec<Entry>) {
    let at = node.bus.position("c", Topic::Events, 0).unwrap();
    (at, node.bus.state_scan("c", 0, b"").unwrap())
}

fn remember(node: &Temporary, state: Vec<StateChange>) {
    let consumer = "c".to_owned();
    let commit = Commit {
        consumer,
        state,
        ..Commit::default()
    };
    node.bus.commit(commit).unwrap();
}

fn numbers(node: &Temporary) -> (u64, u64) {
    let of = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    let numbers = node.bus.numbers();
    (of(&numbers.snapshots), of(&numbers.restores))
}

/// Stores records in the changelog as another process would.
fn say(node: &Temporary, values: Vec<Vec<u8>>) {
    let topic = node.bus.settings.kafka.name("state_c");
    for value in values {
        let record = Record {
            key: Bytes::from_static(b"c"),
            value: value.into(),
            time: clock()(),
        };
        let (topic, partition) = (topic.as_str(), 0);
        let sent = Outgoing {
            topic,
            partition,
            record,
        };
        node.bus.brokers.producer.send(&[sent]).unwrap();
    }
}

fn bounds(node: &Temporary) -> Range<Offset> {
    let topic = node.bus.settings.kafka.name("state_c");
    node.bus.brokers.readers.bounds(&topic, 0).unwrap()
}

/// A delta of two parts that sets a key and moves events from `after` on, and is whole only with both.
fn of_two_parts(id: u64, key: &str, moved: Vec<Moved>) -> Vec<Vec<u8>> {
    let delta = Delta {
        consumer: "c".into(),
        positions: moved,
        state: vec![Change {
            partition: 0,
            key: key.into(),
            value: Some(vec![7; 1_000_000]),
            expires: None,
        }],
    };
    let parts = delta.parts(id);
    assert_eq!(parts.len(), 2);
    parts
}

fn row(key: &str) -> Row {
    Row::State {
        consumer: "c".into(),
        change: Change {
            partition: 0,
            key: key.into(),
            value: Some(b"by hand".to_vec()),
            expires: None,
        },
    }
}

#[test]
fn a_hundred_thousand_keys_come_back() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let mut settings = cluster.moving();
    settings.snapshot_bytes = 8 << 20;
    let node = open(&settings);
    let begin = Instant::now();
    for round in 0..5 {
        for from in (0..KEYS).step_by(2_500) {
            let keys = from..from + 2_500;
            let value = |n| format!("{round} {n} {}", "x".repeat(100));
            remember(
                &node,
                keys.map(|n| set(0, &format!("window/{n:06}"), &value(n)))
                    .collect(),
            );
        }
    }
    let written = begin.elapsed();
    assert!(numbers(&node).0 > 0, "no snapshot was written");
    let begin = Instant::now();
    let fresh = another(&settings);
    let found = state(&fresh);
    let restored = begin.elapsed();
    let read = bounds(&fresh);
    eprintln!(
        "written in {written:?}, {KEYS} keys restored from {} records in {restored:?}",
        read.end - read.start
    );
    assert_eq!(found.1.len(), KEYS as usize);
    assert_eq!(found, state(&node));
    assert!(found.1.iter().all(|(_, value)| value.starts_with(b"4 ")));
    assert_eq!(numbers(&fresh).1, 1);
}

#[test]
fn a_copy_that_is_damaged_or_old_is_made_anew() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let mut settings = cluster.moving();
    settings.snapshot_bytes = 60_000;
    let node = open(&settings);
    append(&node.bus, 0, (0..10).map(|n| n.to_string()));
    let write = |round: u32| {
        let value = |n: u32| format!("{round} {n} {}", "x".repeat(100));
        remember(
            &node,
            (0..200)
                .map(|n| set(0, &format!("key/{n}"), &value(n)))
                .collect(),
        );
    };
    count_all(&node.bus, "c", 0);
    write(0);
    let mut copy = another(&settings);
    assert_eq!(state(&copy), state(&node));

    // A page, the beginning, all but the beginning.
    let path = copy
        .dir
        .path()
        .join(format!("{}-0.db", settings.kafka.name("state_c")));
    for (at, count) in [(4_096, 4_096), (0, 100), (4_096, 30_000)] {
        let dir = copy.end();
        let mut bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() > at + count);
        bytes[at..at + count].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
        let bus = KafkaBus::open(dir.path(), settings.clone(), clock()).unwrap();
        copy = Temporary { bus, dir };
        assert_eq!(state(&copy), state(&node), "bytes from {at} on");
        assert_eq!(numbers(&copy).1, 1, "restored");
    }

    // Left behind by a snapshot.
    let dir = copy.end();
    for round in 1.. {
        write(round);
        if bounds(&node).start > 5 {
            break;
        }
    }
    let bus = KafkaBus::open(dir.path(), settings.clone(), clock()).unwrap();
    let copy = Temporary { bus, dir };
    assert_eq!(state(&copy), state(&node));
    // And it goes on from there.
    remember(&copy, vec![set(0, "key/0", "new")]);
    assert_eq!(state(&copy), state(&node));
    assert_eq!(state(&copy), state(&another(&settings)));
}

#[test]
fn a_snapshot_that_is_crossed_or_ends_early_is_no_harm() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let settings = cluster.moving();
    let node = open(&settings);
    remember(&node, vec![set(0, "a", "1"), set(0, "b", "1")]);
    let part = |part, key: &str, last| changelog::snapshot_part(99, part, &[row(key)], last);
    // The process died after its first part.
    say(&node, vec![part(0, "b", false)]);
    remember(&node, vec![set(0, "a", "2")]);
    let expected = || {
        let found = state(&node);
        assert!(found.1.iter().all(|(_, value)| value != b"by hand"));
        found
    };
    assert_eq!(state(&another(&settings)), expected());
    // The process lives, and another one comes between.
    say(&node, vec![part(0, "a", false)]);
    let other = another(&settings);
    remember(&other, vec![set(0, "a", "3")]);
    say(&node, vec![part(1, "b", true)]);
    remember(&other, vec![set(0, "c", "3")]);
    assert_eq!(state(&another(&settings)), expected());
    assert_eq!(state(&other), expected());

    // Several in earnest, each in the way of the other.
    let mut settings = settings;
    settings.snapshot_bytes = 1;
    let nodes = [another(&settings), another(&settings)];
    std::thread::scope(|scope| {
        for (number, node) in nodes.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..60 {
                    let value = format!("{number} {round}");
                    remember(node, vec![set(0, &format!("key/{}", round % 5), &value)]);
                }
            });
        }
    });
    assert!(bounds(&node).start > 0, "no snapshot was written");
    assert_eq!(state(&nodes[0]), state(&nodes[1]));
    assert_eq!(state(&another(&settings)), state(&nodes[0]));
    assert_eq!(state(&another(&settings)), expected());
}

#[test]
fn a_restore_that_ends_early_begins_again() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let settings = cluster.moving();
    let node = open(&settings);
    remember(&node, vec![set(0, "a", "1")]);
    let old = another(&settings);
    state(&old);
    let part = |part, key: &str, last| changelog::snapshot_part(99, part, &[row(key)], last);
    // At the moment only half of the snapshot can be read.
    say(&node, vec![part(0, "a", false)]);
    let name = settings.kafka.name("state_c");
    node.bus.brokers.drop_before(&name, 0, 1).unwrap();
    let fresh = another(&settings);
    for _ in 0..2 {
        let found = words(fresh.bus.position("c", Topic::Events, 0), "guard");
        says(&found, &[&name, "without a whole snapshot"]);
        assert!(fresh.bus.state_get("c", 0, &[b"a".to_vec()]).is_err());
    }
    say(&node, vec![part(1, "b", true)]);
    let found = state(&fresh).1;
    let by_hand = |key: &str| (key.as_bytes().to_vec(), b"by hand".to_vec());
    assert_eq!(found, [by_hand("a"), by_hand("b")]);
    assert_eq!(state(&another(&settings)), state(&fresh));
}

#[test]
fn a_delta_whose_writer_died_counts_for_nobody() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let settings = cluster.moving();
    let node = open(&settings);
    append(&node.bus, 0, (0..10).map(|n| n.to_string()));
    let parts = of_two_parts(1, "large", Vec::new());
    say(&node, vec![parts[0].clone()]);
    // A part is missing in the middle: one was refused, what came after it was stored.
    let mut of_three = of_two_parts(2, "holed", Vec::new());
    of_three.remove(0);
    say(&node, of_three);
    count_all(&node.bus, "c", 0);
    let found = state(&node);
    assert_eq!(found.0, Some(10));
    assert_eq!(found.1.len(), 1, "{:?}", found.1.len());
    assert_eq!(state(&another(&settings)), found);
}

/// Whoever reads from a snapshot on has only the end of a delta that began before it, so that one may not count for those
/// who have read its beginning.
#[test]
fn a_delta_across_a_snapshot_counts_for_nobody() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let mut settings = cluster.moving();
    settings.snapshot_bytes = 1;
    let node = open(&settings);
    let reader = another(&settings);
    append(&node.bus, 0, (0..10).map(|n| n.to_string()));
    let moved = Moved {
        topic: changelog::number(Topic::Events),
        partition: 0,
        after: 0,
        to: 10,
    };
    let parts = of_two_parts(1, "large", vec![moved]);
    say(&node, vec![parts[0].clone()]);
    state(&reader);
    let before = bounds(&node).end;
    for n in 0.. {
        remember(&node, vec![set(0, "a", &n.to_string())]);
        if bounds(&node).start >= before {
            break;
        }
    }
    say(&node, vec![parts[1].clone()]);
    let found = state(&node);
    assert_eq!(found.0, None);
    assert_eq!(state(&another(&settings)), found);
    assert_eq!(state(&reader), found);
    count_all(&node.bus, "c", 0);
    assert_eq!(state(&reader), state(&node));
    assert_eq!(state(&another(&settings)), state(&node));
}
