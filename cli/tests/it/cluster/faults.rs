//! The same ends while nodes are killed and frozen, brokers go and come, partitions move and disks are full.
//!
//! A load is sent at a steady pace by a thread that tries again until somebody takes each body. Meanwhile a test
//! disturbs; afterwards everything must be as if nothing had happened. Each fault is a test of its own under
//! `./test --long`; `./test` has them one after the other over one cluster.

use std::time::Duration;

use super::load::Load;
use super::nodes::Cluster;
use super::outcome::{Outcome, Told};
use super::{NODES, alone};
use crate::program::count;

/// What happens while the load runs.
type Fault = fn(&mut Cluster);

fn pause(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// `kill -9` of a node of every role, and of both of the alerting ones: one of them leads.
fn nodes_are_killed(cluster: &mut Cluster) {
    for name in [
        "detect-0", "ingest-0", "index-0", "alert-0", "alert-1", "detect-1", "index-1", "api-0",
    ] {
        cluster.kill(name);
        pause(1);
        cluster.run_again(name);
    }
}

/// A node that detects stands still for longer than its session, while others take its partitions; then it goes on
/// where it was.
fn a_node_is_frozen(cluster: &mut Cluster) {
    for name in ["detect-1", "alert-0"] {
        cluster.signal(name, "STOP");
        pause(9);
        cluster.signal(name, "CONT");
        pause(2);
    }
}

fn the_broker_is_killed(cluster: &mut Cluster) {
    for _ in 0..2 {
        cluster.script("kill-broker", &["1"]);
        pause(2);
        cluster.script("start-broker", &["1"]);
        pause(3);
    }
}

/// Longer than any patience.
fn the_broker_is_gone_for_two_minutes(cluster: &mut Cluster) {
    cluster.script("kill-broker", &["1"]);
    pause(120);
    cluster.script("start-broker", &["1"]);
}

/// Nodes that detect come and go all the time.
fn partitions_move_all_the_time(cluster: &mut Cluster) {
    for _ in 0..3 {
        cluster.run("detect-3", "detect");
        pause(2);
        cluster.stop("detect-3");
        cluster.run("detect-4", "detect");
        pause(2);
        cluster.kill("detect-4");
        pause(1);
    }
    cluster.run_again("detect-4");
}

/// Of three brokers one after the other is killed or frozen, so that every partition changes its leader.
fn leaders_move(cluster: &mut Cluster) {
    for broker in ["1", "2", "3"] {
        cluster.script("kill-broker", &[broker]);
        pause(4);
        cluster.script("start-broker", &[broker]);
        pause(4);
    }
    cluster.script("pause-broker", &["2"]);
    pause(8);
    cluster.script("resume-broker", &["2"]);
    pause(4);
}

/// The disk of a node that detects and of one that indexes is full for a while.
fn disks_are_full(cluster: &mut Cluster) {
    for name in ["detect-2", "index-1"] {
        cluster.fill_disk(name);
        pause(5);
        cluster.free_disk(name);
        pause(2);
    }
}

/// Runs faults under load and holds the end against that of one process that nobody disturbs.
fn check(brokers: u32, events: usize, faults: &[Fault]) {
    let Some(load) = Load::generate(events, 3) else {
        return;
    };
    let Some(mut cluster) = Cluster::start(brokers, 0) else {
        return;
    };
    cluster.small_disks();
    for (name, role) in NODES {
        cluster.run(name, role);
    }
    let pusher = cluster.push_all(load.shuffled(5, 0.05), Duration::from_millis(60));
    let begin = std::time::Instant::now();
    for (n, fault) in faults.iter().enumerate() {
        fault(&mut cluster);
        eprintln!("fault {} is over after {:?}", n + 1, begin.elapsed());
    }
    pusher.finish();
    cluster.settle(load.events);
    eprintln!("settled after {:?}", begin.elapsed());
    let together = cluster.outcome();
    let (alone, _): (Outcome, _) = alone(&load, 0);
    alone.assert_same(&together, Told::InTheEnd);
    eprintln!("{}", together.counts());
}

#[test]
fn faults_change_nothing_in_the_end() {
    let events = count("TRAILWARDEN_FAULT_EVENTS", 6_000);
    check(
        1,
        events,
        &[
            nodes_are_killed,
            a_node_is_frozen,
            the_broker_is_killed,
            partitions_move_all_the_time,
            disks_are_full,
        ],
    );
}

#[test]
fn moved_leaders_change_nothing_in_the_end() {
    check(3, count("TRAILWARDEN_FAULT_EVENTS", 3_000), &[leaders_move]);
}

/// Each by itself, and with the long outage.
#[test]
fn every_fault_by_itself_changes_nothing_in_the_end() {
    if std::env::var_os("TRAILWARDEN_LONG").is_none() {
        eprintln!("skipped: only ./test --long has every fault by itself");
        return;
    }
    let faults: [Fault; 6] = [
        nodes_are_killed,
        a_node_is_frozen,
        the_broker_is_killed,
        the_broker_is_gone_for_two_minutes,
        partitions_move_all_the_time,
        disks_are_full,
    ];
    for fault in faults {
        check(1, 10_000, &[fault]);
    }
}

/// Every node is restarted in turn while load runs: the feed of alerts has no gap of more than ten seconds, and nothing
/// is different in the end.
#[test]
fn a_rolling_restart_leaves_no_gap_in_the_feed() {
    let Some(mut cluster) = Cluster::start(1, 0) else {
        return;
    };
    for (name, role) in NODES {
        cluster.run(name, role);
    }
    // A second node for people, so that the feed outlives the restart of one.
    cluster.run("api-1", "api");
    let steady = cluster.steady_alerts();
    for (name, _) in NODES {
        cluster.stop(name);
        cluster.run_again(name);
        pause(1);
    }
    let (sent, worst) = steady.finish(&cluster);
    eprintln!("{sent} alerts, the longest from event to feed {worst:?}");
    assert!(worst < Duration::from_secs(10), "{worst:?}");
}
