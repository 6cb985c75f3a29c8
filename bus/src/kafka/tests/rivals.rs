//! Two nodes at one partition: whoever is first counts, and the other begins again where that one stands.

use std::collections::BTreeSet;

use super::*;

const RECORDS: u64 = 200;

fn numbers() -> Vec<String> {
    (0..RECORDS).map(|n| n.to_string()).collect()
}

/// Every number was counted once, and said at least once.
fn all_is_counted(nodes: &[&Temporary]) {
    for node in nodes {
        let at = node.bus.position("c", Topic::Events, 0).unwrap();
        assert_eq!(at, Some(RECORDS));
        assert_eq!(counted(&node.bus, "c", 0).unwrap(), RECORDS);
        let said: BTreeSet<String> = (0..2)
            .flat_map(|p| values_of(&node.bus, Topic::Matches, p))
            .collect();
        assert_eq!(said, numbers().into_iter().collect());
    }
}

#[test]
fn two_nodes_take_turns() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let mut settings = cluster.moving();
    settings.snapshot_bytes = 300;
    let (a, b) = (open(&settings), another(&settings));
    append(&a.bus, 0, numbers());
    let mut more = true;
    while more {
        more = count(&a.bus, "c", 0, 60).unwrap() > 0;
        assert_eq!(
            b.bus.position("c", Topic::Events, 0).unwrap(),
            a.bus.position("c", Topic::Events, 0).unwrap()
        );
        more |= count(&b.bus, "c", 0, 60).unwrap() > 0;
    }
    all_is_counted(&[&a, &b]);
    assert!(a.bus.numbers().snapshots.load(Ordering::Relaxed) > 0);
    assert_eq!(a.bus.numbers().fenced.load(Ordering::Relaxed), 0);
}

#[test]
fn two_nodes_race() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    for snapshot_bytes in [0, 300] {
        let mut settings = cluster.moving();
        settings.snapshot_bytes = snapshot_bytes;
        let nodes = [open(&settings), another(&settings)];
        append(&nodes[0].bus, 0, numbers());
        std::thread::scope(|scope| {
            for node in nodes.iter().chain(&nodes) {
                scope.spawn(|| {
                    loop {
                        match count(&node.bus, "c", 0, 60) {
                            Ok(0) => return,
                            Ok(_) | Err(BusError::Fenced { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
        });
        all_is_counted(&[&nodes[0], &nodes[1]]);
        let fenced: u64 = nodes
            .iter()
            .map(|n| n.bus.numbers().fenced.load(Ordering::Relaxed))
            .sum();
        assert!(fenced > 0, "nobody raced");
        // Who comes later finds the same.
        all_is_counted(&[&another(&settings)]);
    }
}

#[test]
fn a_zombie_is_fenced_and_goes_on_after_the_other() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    for snapshot_bytes in [0, 1] {
        let mut settings = cluster.moving();
        settings.snapshot_bytes = snapshot_bytes;
        let (zombie, other) = (open(&settings), another(&settings));
        append(&zombie.bus, 0, numbers());
        assert!(count(&zombie.bus, "c", 0, 60).unwrap() > 0);

        // It has read, and then nothing is heard of it for long.
        let at = zombie.bus.position("c", Topic::Events, 0).unwrap().unwrap();
        let before = counted(&zombie.bus, "c", 0).unwrap();
        let batch = zombie.bus.read(Topic::Events, 0, at, 60).unwrap();
        for _ in 0..5 {
            count(&other.bus, "c", 0, 60).unwrap();
        }
        let step = || Commit {
            state: vec![set(
                0,
                "counted",
                &(before + batch.records.len() as u64).to_string(),
            )],
            outputs: batch
                .records
                .iter()
                .map(|(_, record)| (Topic::Matches, record.clone()))
                .collect(),
            ..step_of("c", 0, at, batch.next)
        };
        // However often it tries.
        for _ in 0..2 {
            words(zombie.bus.commit(step()), "fenced");
        }
        let stands = other.bus.position("c", Topic::Events, 0).unwrap();
        assert_eq!(zombie.bus.position("c", Topic::Events, 0).unwrap(), stands);
        assert_eq!(
            counted(&zombie.bus, "c", 0).unwrap(),
            counted(&other.bus, "c", 0).unwrap()
        );
        // It goes on, in its old folder, and the other one is the zombie then.
        let zombie = zombie.reopen(&settings);
        count_all(&zombie.bus, "c", 0);
        words(
            other.bus.commit(Commit {
                state: vec![set(0, "counted", "0")],
                ..step_of("c", 0, stands.unwrap(), stands.unwrap() + 1)
            }),
            "fenced",
        );
        all_is_counted(&[&zombie, &other]);
    }
}

#[test]
fn state_read_through_another_node_is_the_same() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let mut settings = cluster.moving();
    settings.snapshot_bytes = 500;
    let (a, b) = (open(&settings), another(&settings));
    append(&a.bus, 1, numbers());
    for round in 0..30_u64 {
        let node = if round % 3 == 0 { &b } else { &a };
        node.bus.position("c", Topic::Events, 1).unwrap();
        node.bus
            .commit(Commit {
                state: (0..5)
                    .map(|n| StateChange {
                        value: (n != round % 5).then(|| round.to_le_bytes().to_vec()),
                        ..set(1, &format!("key/{}", (round + n) % 7), "")
                    })
                    .collect(),
                ..step_of("c", 1, round, round + 1)
            })
            .unwrap();
    }
    let all = |node: &Temporary| {
        node.bus.position("c", Topic::Events, 1).unwrap();
        node.bus.state_scan("c", 1, b"").unwrap()
    };
    assert!(!all(&a).is_empty());
    assert_eq!(all(&a), all(&b));
    assert_eq!(all(&a), all(&another(&settings)));
}
