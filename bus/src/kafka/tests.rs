//! The contract, faults and guard rails against real brokers.
//!
//! They run when `TRAILWARDEN_KAFKA_TESTS` is set, as `./test` does; each starts brokers of its own with
//! deploy/test/kafka.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::conformance;

/// Brokers that end with the test.
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

    fn run(&self, command: &str, args: &[&str]) -> String {
        let path = self.dir.path().to_str().unwrap();
        script(&[&[command, path], args].concat())
    }

    /// Settings under a prefix that nobody else has.
    fn settings(&self) -> Settings {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Settings {
            kafka: config::Options {
                brokers: self.brokers.split(',').map(str::to_owned).collect(),
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
            },
            consumers: Consumers::default(),
            accept_gap: false,
            snapshot_bytes: 0,
        }
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
    _dir: tempfile::TempDir,
}

fn open(settings: &Settings) -> Temporary {
    topics::apply(settings).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let bus = KafkaBus::open(dir.path(), settings.clone(), clock()).unwrap();
    Temporary { bus, _dir: dir }
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
    let Some(cluster) = Cluster::start(&[]) else {
        return;
    };
    conformance::check(|| open(&cluster.settings()));
}

#[test]
fn keeps_the_contract_with_state_that_moves() {
    let Some(cluster) = Cluster::start(&[]) else {
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
