//! Nodes share out the partitions of a consumer among themselves.

use std::process::{Child, Stdio};

use super::*;

/// Where a member that is a process of its own finds its brokers.
const MEMBER: &str = "TRAILWARDEN_KAFKA_MEMBER";

fn assigned(node: &Temporary) -> Vec<u32> {
    node.bus.assigned("c", Topic::Events).unwrap()
}

fn four(cluster: &Cluster) -> Settings {
    let mut settings = cluster.moving();
    settings.partitions.events = 4;
    settings
}

#[test]
fn partitions_are_shared_and_given_back() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let settings = four(&cluster);
    let (a, b) = (open(&settings), another(&settings));
    until("one has all", || assigned(&a) == [0, 1, 2, 3]);
    until("two share", || {
        let (of_a, of_b) = (assigned(&a), assigned(&b));
        of_a.len() == 2 && of_b.len() == 2 && of_a.iter().all(|p| !of_b.contains(p))
    });
    let begin = Instant::now();
    b.bus.close();
    until("the other has all again", || assigned(&a) == [0, 1, 2, 3]);
    let closed = begin.elapsed();
    assert!(closed < Duration::from_secs(3), "{closed:?}");

    // One that is dropped leaves too.
    let b = another(&settings);
    until("two share again", || {
        assigned(&b).len() == 2 && assigned(&a).len() == 2
    });
    let begin = Instant::now();
    drop(b);
    until("the other has all again", || assigned(&a) == [0, 1, 2, 3]);
    let dropped = begin.elapsed();
    eprintln!("others had all {closed:?} after a close and {dropped:?} after a drop");
}

#[test]
fn positions_are_told_to_those_who_only_look() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let mut settings = four(&cluster);
    settings.consumers.fixed = vec![("index".into(), Share { number: 0, of: 1 })];
    let (a, b) = (open(&settings), another(&settings));
    until("two share", || {
        [&a, &b].map(|node| assigned(node).len()) == [2, 2]
    });
    let records = (0..400).map(|n| Record {
        key: Bytes::from(format!("key-{n}")),
        ..record(0, "v")
    });
    a.bus.append(Topic::Events, records.collect()).unwrap();
    for node in [&a, &b] {
        for partition in assigned(node) {
            count_all(&node.bus, "c", partition);
        }
    }
    count_all(&a.bus, "index", 3);
    let end = |p| a.bus.bounds(Topic::Events, p).unwrap().end;
    let looks = another(&settings);
    let told = |consumer: &str, partition, next, here| Progress {
        consumer: consumer.into(),
        topic: Topic::Events,
        partition,
        next,
        here,
    };
    let mut expected: Vec<Progress> = (0..4).map(|p| told("c", p, end(p), false)).collect();
    expected.push(told("index", 3, end(3), false));
    until("all is told", || looks.bus.progress().unwrap() == expected);
    // Who works knows its own at once, and those of others.
    let own = assigned(&a);
    for progress in a.bus.progress().unwrap() {
        let here = progress.consumer == "index" || own.contains(&progress.partition);
        assert_eq!(progress.here, here, "{progress:?}");
        assert_eq!(progress.next, end(progress.partition));
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No test: what runs in the process of a member that is killed.
#[test]
fn a_member_in_a_process_of_its_own() {
    let Some(place) = std::env::var_os(MEMBER) else {
        return;
    };
    let place = place.into_string().unwrap();
    let (brokers, prefix) = place.split_once(' ').unwrap();
    let mut settings = Cluster::settings_for(brokers);
    settings.kafka.prefix = prefix.into();
    settings.partitions.events = 4;
    settings.consumers.moving = vec![("c".into(), Topic::Events)];
    let node = another(&settings);
    // Its parent kills it long before.
    for _ in 0..600 {
        assigned(&node);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn partitions_of_a_node_that_died_go_to_others() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let settings = four(&cluster);
    let node = open(&settings);
    until("one has all", || assigned(&node) == [0, 1, 2, 3]);
    let mut member = Process(
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "kafka::tests::group::a_member_in_a_process_of_its_own",
            ])
            .env(
                MEMBER,
                format!("{} {}", cluster.brokers, settings.kafka.prefix),
            )
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    until("two share", || assigned(&node).len() == 2);
    let begin = Instant::now();
    member.0.kill().unwrap();
    until("the other has all again", || {
        assigned(&node) == [0, 1, 2, 3]
    });
    let took = begin.elapsed();
    eprintln!("partitions of a dead node were taken after {took:?}");
    // The session of three seconds has to end first.
    assert!(took < Duration::from_secs(8), "{took:?}");
}
