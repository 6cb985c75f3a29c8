//! Tests of the embedded log as a whole: the contract, crashes, damage, and what it refuses.

use super::*;
use crate::conformance;

/// A log and the folder that it lives in.
struct Temporary(
    EmbeddedBus,
    #[expect(dead_code, reason = "removes the folder when dropped")] tempfile::TempDir,
);

fn options(partitions: u32) -> Options {
    Options {
        partitions: Partitions::all(partitions),
        ..Options::default()
    }
}

#[test]
fn keeps_the_contract() {
    for partitions in [1, 3] {
        conformance::check(|| {
            let dir = tempfile::tempdir().unwrap();
            Temporary(
                EmbeddedBus::open(dir.path(), options(partitions)).unwrap(),
                dir,
            )
        });
    }
}

impl Bus for Temporary {
    fn partitions(&self, topic: Topic) -> u32 {
        self.0.partitions(topic)
    }
    fn append(&self, topic: Topic, records: Vec<Record>) -> Result<(), BusError> {
        self.0.append(topic, records)
    }
    fn read(&self, topic: Topic, p: u32, from: Offset, max: usize) -> Result<Batch, BusError> {
        self.0.read(topic, p, from, max)
    }
    fn wait(
        &self,
        topic: Topic,
        from: &[(u32, Offset)],
        timeout: Duration,
    ) -> Result<bool, BusError> {
        self.0.wait(topic, from, timeout)
    }
    fn bounds(&self, topic: Topic, p: u32) -> Result<Range<Offset>, BusError> {
        self.0.bounds(topic, p)
    }
    fn commit(&self, commit: Commit) -> Result<(), BusError> {
        self.0.commit(commit)
    }
    fn position(&self, consumer: &str, topic: Topic, p: u32) -> Result<Option<Offset>, BusError> {
        self.0.position(consumer, topic, p)
    }
    fn state_get(
        &self,
        c: &str,
        p: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        self.0.state_get(c, p, keys)
    }
    fn state_scan(&self, c: &str, p: u32, prefix: &[u8]) -> Result<Vec<Entry>, BusError> {
        self.0.state_scan(c, p, prefix)
    }
    fn retain(&self, now: Time) -> Result<(), BusError> {
        self.0.retain(now)
    }
}
