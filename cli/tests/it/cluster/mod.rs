//! Many nodes over a real Kafka and a real PostgreSQL end as one process over the log of one machine does.
//!
//! The same load goes to one process over the embedded log and, shuffled within the allowed lateness and with repeats,
//! to a cluster of nodes with one role each: events in the index, settled episodes, alerts and what the receiver was
//! told must be the same. `faults` does so while nodes and brokers are killed, frozen and moved. The tests need
//! `TRAILWARDEN_KAFKA_TESTS` and `TRAILWARDEN_POSTGRES_URL`, which `./test` sets; `./test --long` has the full counts.

mod faults;
mod load;
mod nodes;
mod outcome;
mod steady;

use std::time::Duration;

use serde_json::Value;

use crate::program::{self, count};
use load::Load;
use nodes::Cluster;
use outcome::Outcome;

/// Runs with a longer and longer wait until all was in before anybody was told: only then what is told does not depend
/// on what came first.
fn untold<T>(group_wait: u64, run: impl Fn(u64) -> Option<T>) -> Option<T> {
    let longer = [1, 4, 16].map(|times| group_wait * times);
    longer.into_iter().find_map(|wait| {
        let done = run(wait);
        if done.is_none() {
            eprintln!("not all was in after {wait} s");
        }
        done
    })
}

/// What one process over the embedded log makes of a load, and how long that took but for the telling.
fn alone(load: &Load, group_wait: u64) -> (Outcome, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let (address, received) = program::receiver();
    let config = nodes::config(folder.path(), "alone", address, group_wait, "", &[]);
    let data = folder.path().join("data");
    let service = program::Service::start(&config, &data);
    let begin = std::time::Instant::now();
    for body in load.in_order() {
        assert!(nodes::push(service.address, &body));
    }
    service.settle_stages(load.events, 5 * program::PATIENCE);
    let took = begin.elapsed();
    let mut outcome = Outcome::default();
    outcome.take_events(service.address);
    outcome.take_alerts(service.address);
    outcome.wait_told(service.address, &received, group_wait);
    assert_eq!(service.stop(), Some(0));
    let bus = bus::embedded::EmbeddedBus::open(&data.join("log"), bus::config::Options::default());
    outcome.take_episodes(&bus.unwrap());
    (outcome, took)
}

/// What a cluster makes of it, and the cluster; `None` if that took longer than the wait.
fn together(load: &Load, group_wait: u64) -> Option<(Cluster, Outcome)> {
    let mut cluster = Cluster::start(1, group_wait)?;
    for (name, role) in NODES {
        cluster.run(name, role);
    }
    let begin = std::time::Instant::now();
    for body in load.shuffled(11, 0.05) {
        cluster.push(&body);
    }
    eprintln!("pushed {} events in {:?}", load.events, begin.elapsed());
    cluster.settle(load.events);
    eprintln!("settled after {:?}", begin.elapsed());
    if begin.elapsed() >= Duration::from_secs(group_wait) {
        return None;
    }
    let outcome = cluster.outcome();
    Some((cluster, outcome))
}

/// Two to intake, three to detect, two to index, two to alert, one for people; twelve partitions.
const NODES: &[(&str, &str)] = &[
    ("ingest-0", "ingest"),
    ("ingest-1", "ingest"),
    ("detect-0", "detect"),
    ("detect-1", "detect"),
    ("detect-2", "detect"),
    ("index-0", "index"),
    ("index-1", "index"),
    ("alert-0", "alert"),
    ("alert-1", "alert"),
    ("api-0", "api"),
];

/// An index node that is killed is named, and nothing without it looks whole; started again, all is there again.
fn lose_an_index_node(cluster: &mut Cluster, events: u64) {
    let api = cluster.with_role("api")[0];
    let search = || {
        let path = "/api/v1/search?q=source:aws.*&limit=40&count=true&agg=account:5";
        nodes::get(api, path).unwrap()
    };
    let folder = cluster.folder.path().to_owned();
    let export = |name: &str| {
        let file = folder.join(name);
        let (url, path) = (format!("http://{api}"), file.to_str().unwrap().to_owned());
        let done = program::run(&[
            "search",
            "source:aws.*",
            "--url",
            &url,
            "--format",
            "jsonl",
            "--output",
            &path,
        ]);
        let lines = std::fs::read_to_string(&file).map_or(0, |text| text.lines().count() as u64);
        (done.status.success(), lines)
    };
    let by_id = |answer: &Value| -> Vec<u16> {
        let hits = answer["hits"].as_array().unwrap();
        let one = |hit: &Value| {
            let path = format!("/api/v1/events/{}", hit["id"].as_str().unwrap());
            program::request(api, "GET", &path, &[], b"").unwrap().0
        };
        hits.iter().map(one).collect()
    };
    let whole = search();
    assert!(whole["partial"].is_null(), "{whole}");
    assert_eq!(whole["total"], events);
    assert_eq!(by_id(&whole), [200; 40]);
    assert_eq!(export("whole.jsonl"), (true, events));

    cluster.kill("index-1");
    let part = search();
    let why = part["partial"].as_str().unwrap();
    assert!(why.contains("index node 1 (http://127.0.0.1:"), "{why}");
    assert!(part["total"].is_null(), "{}", part["total"]);
    // What is with the missing node is not called absent.
    let found = by_id(&whole);
    assert!(
        found.contains(&200) && found.contains(&503) && !found.contains(&404),
        "{found:?}"
    );
    assert_eq!(export("part.jsonl"), (false, 0));
    let ready = program::request(api, "GET", "/readyz", &[], b"").unwrap();
    assert_eq!(ready.0, 200, "{}", program::text(&ready.1));
    let begin = std::time::Instant::now();
    let missing = || {
        let health = nodes::get(api, "/api/v1/health").unwrap();
        assert_eq!(health["index_nodes"][0]["answers"], true);
        health["index_nodes"][1]["missing_since"].is_string()
    };
    while !missing() {
        assert!(
            begin.elapsed() < program::PATIENCE,
            "nobody sees that it is missing"
        );
        std::thread::sleep(Duration::from_millis(200));
    }

    cluster.run_again("index-1");
    // It is asked again as soon as it has been seen.
    let begin = std::time::Instant::now();
    let mut again = search();
    while !again["partial"].is_null() {
        assert!(begin.elapsed() < program::PATIENCE, "{again}");
        std::thread::sleep(Duration::from_millis(200));
        again = search();
    }
    for key in ["total", "hits", "aggs"] {
        assert_eq!(again[key], whole[key], "{key}");
    }
}

#[test]
fn a_cluster_ends_as_one_process_does() {
    let events = count("TRAILWARDEN_CLUSTER_EVENTS", 12_000);
    let Some(load) = Load::generate(events, 7) else {
        return;
    };
    if !nodes::are_wanted() {
        return;
    }
    let group_wait = 30 + events as u64 / 1_000;
    let in_time = "all was in before anybody was told";
    let (mut cluster, together) = untold(group_wait, |wait| together(&load, wait)).expect(in_time);
    let alone = untold(group_wait, |wait| {
        let (outcome, took) = alone(&load, wait);
        (took < Duration::from_secs(wait)).then_some(outcome)
    });
    let alone = alone.expect(in_time);
    assert!(alone.alerts.len() > 20, "{} alerts", alone.alerts.len());
    assert!(
        alone.episodes.len() > 5,
        "{} episodes",
        alone.episodes.len()
    );
    alone.assert_same(&together, outcome::Told::Exactly);
    eprintln!("{}", together.counts());

    lose_an_index_node(&mut cluster, load.events);

    // One node that begins with nothing makes of the same log what three of them did.
    let ids = outcome::finding_ids(&*cluster.bus());
    cluster.replay();
    cluster.run("detect-9", "detect");
    let bus = cluster.bus();
    let begin = std::time::Instant::now();
    let look = || {
        let mut replayed = Outcome::default();
        replayed.take_episodes(&*bus);
        (outcome::finding_ids(&*bus), replayed.episodes)
    };
    let expected = (ids, together.episodes);
    let mut again = look();
    while again != expected && begin.elapsed() < program::PATIENCE {
        std::thread::sleep(Duration::from_millis(500));
        again = look();
    }
    let differ: Vec<_> = expected.0.symmetric_difference(&again.0).take(20).collect();
    assert!(
        differ.is_empty() && expected.0.len() > 100,
        "{} findings, {} again, of which differ: {differ:?}",
        expected.0.len(),
        again.0.len()
    );
    assert_eq!(again.1, expected.1);
}
