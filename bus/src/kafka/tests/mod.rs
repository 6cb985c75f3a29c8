//! The contract, faults and guard rails against real brokers.
//!
//! They run when `TRAILWARDEN_KAFKA_TESTS` is set, as `./test` does, and start brokers with deploy/test/kafka. Tests that
//! leave the brokers alone share one, each under a prefix of its own; the others have theirs.

mod group;
mod guard;
mod login;
mod producing;
mod reading;
mod restore;
mod rivals;
mod topic_plan;

use std::path::Path;
use std::process::Command;
use std::sync::Weak;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::Bytes;
use rdkafka::admin::AdminOptions;

use super::*;
use crate::conformance;

/// Brokers that end with the last test that uses them.
struct Cluster {
    dir: tempfile::TempDir,
    brokers: String,
}

fn script(args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/test/kafka");
    let output = Command::new(script).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Cluster {
    /// `None` where tests against real brokers are not wanted.
    fn start(args: &[&str]) -> Option<Cluster> {
        if std::env::var_os("TRAILWARDEN_KAFKA_TESTS").is_none() {
            eprintln!("skipped: TRAILWARDEN_KAFKA_TESTS is not set");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        let brokers = script(&[&["start", &path], args].concat());
        Some(Cluster { dir, brokers })
    }

    /// One broker that nobody harms.
    fn shared() -> Option<Arc<Cluster>> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = lock(&SHARED);
        if let Some(cluster) = shared.upgrade() {
            return Some(cluster);
        }
        let cluster = Arc::new(Cluster::start(&[])?);
        *shared = Arc::downgrade(&cluster);
        Some(cluster)
    }

    fn run(&self, command: &str, args: &[&str]) -> String {
        let path = self.dir.path().to_str().unwrap();
        script(&[&[command, path], args].concat())
    }

    fn settings(&self) -> Settings {
        Cluster::settings_for(&self.brokers)
    }

    /// Settings under a prefix that nobody else has.
    fn settings_for(brokers: &str) -> Settings {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Settings {
            kafka: config::Options {
                brokers: brokers.split(',').map(str::to_owned).collect(),
                prefix: format!("t{}.", NEXT.fetch_add(1, Ordering::Relaxed)),
                replication: 1,
                patience_seconds: 20,
                session_timeout_seconds: 3,
                ..config::Options::default()
            },
            partitions: Partitions::all(2),
            retention_hours: RetentionHours {
                events: 7_200,
                matches: 7_200,
                meters: 7_200,
                findings: 7_200,
                dead_letters: 7_200,
                sources: 7_200,
            },
            consumers: Consumers::default(),
            accept_gap: false,
            snapshot_bytes: 0,
        }
    }

    /// Settings with a consumer `c` of events whose state moves.
    fn moving(&self) -> Settings {
        let mut settings = self.settings();
        settings.consumers.moving = vec![("c".into(), Topic::Events)];
        settings
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run("stop", &[]);
    }
}

fn clock() -> Clock {
    // 2026-05-28, the time of the conformance cases.
    Arc::new(|| Time(1_780_000_000_000_000))
}

/// A bus and the folder that it lives in.
struct Temporary {
    bus: KafkaBus,
    dir: tempfile::TempDir,
}

/// A node of its own, on topics that are made if they are missing.
fn open(settings: &Settings) -> Temporary {
    topics::apply(settings).unwrap();
    another(settings)
}

/// A node of its own.
fn another(settings: &Settings) -> Temporary {
    let dir = tempfile::tempdir().unwrap();
    let bus = KafkaBus::open(dir.path(), settings.clone(), clock()).unwrap();
    Temporary { bus, dir }
}

impl Temporary {
    /// Ends, and begins again in the same folder.
    fn reopen(self, settings: &Settings) -> Temporary {
        let dir = self.end();
        let bus = KafkaBus::open(dir.path(), settings.clone(), clock()).unwrap();
        Temporary { bus, dir }
    }

    fn end(self) -> tempfile::TempDir {
        drop(self.bus);
        self.dir
    }
}

/// Deletes topics and waits until they are gone.
fn delete(settings: &Settings, names: &[&str]) {
    let names: Vec<String> = names.iter().map(|n| settings.kafka.name(n)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let brokers = Brokers::open(&settings.kafka, 0).unwrap();
    let options = AdminOptions::new().operation_timeout(Some(brokers.patience));
    let work = brokers
        .administration()
        .unwrap()
        .delete_topics(&names, &options);
    for result in brokers::block_on(work).unwrap().unwrap() {
        result.unwrap();
    }
    until("topics are gone", || {
        let there = brokers.topics().unwrap();
        names.iter().all(|name| !there.contains_key(*name))
    });
}

/// Waits for what the brokers do by and by.
fn until(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(30), "not yet: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A record of a partition of two.
fn record(partition: u32, value: &str) -> Record {
    let key = (0..)
        .map(|n: u32| format!("key-{n}"))
        .find(|key| partition_of(key.as_bytes(), 2) == partition)
        .unwrap();
    Record {
        key: Bytes::from(key),
        value: Bytes::copy_from_slice(value.as_bytes()),
        time: clock()(),
    }
}

fn append(bus: &dyn Bus, partition: u32, values: impl IntoIterator<Item = String>) {
    let records = values.into_iter().map(|value| record(partition, &value));
    bus.append(Topic::Events, records.collect()).unwrap();
}

fn set(partition: u32, key: &str, value: &str) -> StateChange {
    StateChange {
        partition,
        key: key.as_bytes().to_vec(),
        value: Some(value.as_bytes().to_vec()),
        expires: None,
    }
}

fn step_of(consumer: &str, partition: u32, from: Offset, to: Offset) -> Commit {
    Commit {
        consumer: consumer.into(),
        positions: vec![Position {
            topic: Topic::Events,
            partition,
            from,
            to,
        }],
        ..Commit::default()
    }
}

fn counted(bus: &dyn Bus, consumer: &str, partition: u32) -> Result<u64, BusError> {
    let found = bus.state_get(consumer, partition, &[b"counted".to_vec()])?;
    Ok(found[0]
        .as_ref()
        .map_or(0, |n| std::str::from_utf8(n).unwrap().parse().unwrap()))
}

/// What a stage does in a round: reads on from its position, counts records, and says each again. Tells how many it had.
fn count(
    bus: &dyn Bus,
    consumer: &str,
    partition: u32,
    max_bytes: usize,
) -> Result<usize, BusError> {
    let at = bus.position(consumer, Topic::Events, partition)?;
    let at = at
        .unwrap_or(0)
        .max(bus.bounds(Topic::Events, partition)?.start);
    let before = counted(bus, consumer, partition)?;
    let batch = bus.read(Topic::Events, partition, at, max_bytes)?;
    let had = batch.records.len();
    if had > 0 {
        let now = before + had as u64;
        bus.commit(Commit {
            outputs: batch
                .records
                .into_iter()
                .map(|(_, record)| (Topic::Matches, record))
                .collect(),
            state: vec![set(partition, "counted", &now.to_string())],
            ..step_of(consumer, partition, at, batch.next)
        })?;
    }
    Ok(had)
}

/// Rounds until there is nothing more.
fn count_all(bus: &dyn Bus, consumer: &str, partition: u32) {
    while count(bus, consumer, partition, usize::MAX).unwrap() > 0 {}
}

fn values_of(bus: &dyn Bus, topic: Topic, partition: u32) -> Vec<String> {
    let Range { start, end } = bus.bounds(topic, partition).unwrap();
    let (mut at, mut values) = (start, Vec::new());
    while at < end {
        let batch = bus.read(topic, partition, at, 8 << 20).unwrap();
        assert!(!batch.records.is_empty());
        at = batch.next;
        let found = batch.records.into_iter();
        values.extend(found.map(|(_, r)| String::from_utf8(r.value.to_vec()).unwrap()));
    }
    values
}

/// The words of an error of the kind.
fn words<T: std::fmt::Debug>(result: Result<T, BusError>, kind: &str) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error.to_string()
}

fn says(words: &str, parts: &[&str]) {
    for part in parts {
        assert!(words.contains(part), "`{part}` is missing in: {words}");
    }
}

impl Bus for Temporary {
    fn partitions(&self, topic: Topic) -> u32 {
        self.bus.partitions(topic)
    }
    fn append(&self, topic: Topic, records: Vec<Record>) -> Result<(), BusError> {
        self.bus.append(topic, records)
    }
    fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Batch, BusError> {
        self.bus.read(topic, partition, from, max_bytes)
    }
    fn wait(
        &self,
        topic: Topic,
        from: &[(u32, Offset)],
        timeout: Duration,
    ) -> Result<bool, BusError> {
        self.bus.wait(topic, from, timeout)
    }
    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, BusError> {
        self.bus.bounds(topic, partition)
    }
    fn commit(&self, commit: Commit) -> Result<(), BusError> {
        self.bus.commit(commit)
    }
    fn position(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<Offset>, BusError> {
        self.bus.position(consumer, topic, partition)
    }
    fn state_get(
        &self,
        consumer: &str,
        partition: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        self.bus.state_get(consumer, partition, keys)
    }
    fn state_scan(
        &self,
        consumer: &str,
        partition: u32,
        prefix: &[u8],
    ) -> Result<Vec<Entry>, BusError> {
        self.bus.state_scan(consumer, partition, prefix)
    }
    fn retain(&self, now: Time) -> Result<(), BusError> {
        self.bus.retain(now)
    }
}

#[test]
fn keeps_the_contract_with_state_here() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    conformance::check(|| open(&cluster.settings()));
}

#[test]
fn keeps_the_contract_with_state_that_moves() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    conformance::check(|| {
        let mut settings = cluster.settings();
        settings.consumers.rest_moves = true;
        // Snapshots all the time, so that they are in the way of everything.
        settings.snapshot_bytes = 200;
        open(&settings)
    });
}
