//! Tests of the embedded log as a whole: the contract, what it refuses, damage, and killed processes.

mod damage;
mod kill;
mod model;

use std::path::PathBuf;

use bytes::Bytes;

use super::*;
use crate::conformance;
use crate::{Entry, Position, StateChange};

/// A log and the folder that it lives in.
struct Temporary {
    bus: EmbeddedBus,
    _dir: tempfile::TempDir,
}

fn options(partitions: u32) -> Options {
    Options {
        partitions: Partitions::all(partitions),
        ..Options::default()
    }
}

fn open(dir: &Path) -> EmbeddedBus {
    EmbeddedBus::open(dir, options(1)).unwrap()
}

fn record(value: &str) -> Record {
    Record {
        key: Bytes::from_static(b"key"),
        value: Bytes::copy_from_slice(value.as_bytes()),
        time: Time::from_seconds(1_780_000_000),
    }
}

fn values(bus: &EmbeddedBus, topic: Topic) -> Vec<String> {
    let start = bus.bounds(topic, 0).unwrap().start;
    let batch = bus.read(topic, 0, start, usize::MAX).unwrap();
    batch
        .records
        .iter()
        .map(|(_, r)| String::from_utf8(r.value.to_vec()).unwrap())
        .collect()
}

/// Values that one file of events cannot hold together.
fn noise(seed: u64, len: usize) -> String {
    let mut coins = disk::sim::Coins(seed);
    (0..len)
        .map(|_| (b'!' + coins.below(90) as u8) as char)
        .collect()
}

fn step(consumer: &str, from: Offset, to: Offset) -> Commit {
    Commit {
        consumer: consumer.into(),
        positions: vec![Position {
            topic: Topic::Events,
            partition: 0,
            from,
            to,
        }],
        ..Commit::default()
    }
}

#[test]
fn a_consumer_is_moved_back_and_forgets() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path());
    bus.append(Topic::Events, vec![record("a"), record("b"), record("c")])
        .unwrap();
    let state = |consumer: &str, key: &str| Commit {
        consumer: consumer.into(),
        state: vec![StateChange {
            partition: 0,
            key: key.into(),
            value: Some(b"x".to_vec()),
            expires: None,
        }],
        ..Commit::default()
    };
    for consumer in ["one", "other"] {
        bus.commit(step(consumer, 0, 3)).unwrap();
        for key in ["seen/1", "seen/2", "split/1"] {
            bus.commit(state(consumer, key)).unwrap();
        }
    }
    assert!(bus.rewind("one", &[(Topic::Events, 0, 4)]).is_err());
    bus.rewind("one", &[(Topic::Events, 0, 1)]).unwrap();
    // Never forward.
    bus.rewind("one", &[(Topic::Events, 0, 2)]).unwrap();
    bus.forget("one", b"seen/").unwrap();
    let at = |consumer| bus.position(consumer, Topic::Events, 0).unwrap();
    assert_eq!((at("one"), at("other")), (Some(1), Some(3)));
    let keys = |consumer| bus.state_scan(consumer, 0, b"").unwrap().len();
    assert_eq!((keys("one"), keys("other")), (1, 3));
    bus.commit(step("one", 1, 3)).unwrap();
    bus.rewind("nobody", &[(Topic::Events, 0, 0)]).unwrap();
    bus.forget("nobody", b"").unwrap();
}

#[test]
fn keeps_the_contract() {
    for partitions in [1, 3] {
        conformance::check(|| {
            let dir = tempfile::tempdir().unwrap();
            Temporary {
                bus: EmbeddedBus::open(dir.path(), options(partitions)).unwrap(),
                _dir: dir,
            }
        });
    }
}

#[test]
fn everything_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3_u64 {
        let bus = open(dir.path());
        for topic in Topic::ALL {
            let expected: Vec<String> = (0..n).map(|n| n.to_string()).collect();
            assert_eq!(values(&bus, topic), expected);
            bus.append(topic, vec![record(&n.to_string())]).unwrap();
        }
        assert_eq!(
            bus.position("c", Topic::Events, 0).unwrap(),
            (n > 0).then_some(n)
        );
        bus.commit(Commit {
            state: vec![StateChange {
                partition: 0,
                key: b"n".to_vec(),
                value: Some(n.to_string().into_bytes()),
                expires: None,
            }],
            ..step("c", n, n + 1)
        })
        .unwrap();
        let found = bus.state_get("c", 0, &[b"n".to_vec()]).unwrap();
        assert_eq!(found, [Some(n.to_string().into_bytes())]);
        assert_eq!(
            bus.positions().unwrap(),
            [("c".to_owned(), Topic::Events, 0, n + 1)]
        );
        assert!(bus.verify().is_empty());
    }
}

#[test]
fn a_folder_belongs_to_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path());
    let second = EmbeddedBus::open(dir.path(), options(1)).unwrap_err();
    assert!(matches!(second, BusError::Locked(_)), "{second}");
    assert!(
        second.to_string().contains("stop that one first"),
        "{second}"
    );
    drop(bus);
    open(dir.path());
}

fn refusal(dir: &Path, options: Options) -> String {
    match EmbeddedBus::open(dir, options) {
        Err(BusError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn other_partition_counts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(EmbeddedBus::open(dir.path(), options(2)).unwrap());
    let mut changed = options(2);
    changed.partitions.findings = 3;
    let reason = refusal(dir.path(), changed);
    assert!(
        reason.contains("created with 2 partitions of findings, the configuration says 3"),
        "{reason}"
    );
    assert!(reason.contains("set it back to 2"), "{reason}");
    let empty = tempfile::tempdir().unwrap();
    assert!(refusal(empty.path(), options(0)).contains("cannot have 0 partitions"));
    drop(EmbeddedBus::open(dir.path(), options(2)).unwrap());
}

#[test]
fn newer_formats_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("format"), r#"{"format":2,"shards":[]}"#).unwrap();
    let reason = refusal(dir.path(), options(1));
    assert!(reason.contains("has format 2"), "{reason}");
    std::fs::write(dir.path().join("format"), "{").unwrap();
    let damaged = EmbeddedBus::open(dir.path(), options(1)).unwrap_err();
    assert!(matches!(damaged, BusError::Corrupt { .. }), "{damaged}");
}

/// The folder as it is if the power goes while it is made.
#[test]
fn a_half_made_folder_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    std::fs::remove_file(dir.path().join("format")).unwrap();
    drop(open(dir.path()));
    std::fs::remove_file(dir.path().join("format")).unwrap();
    std::fs::remove_file(dir.path().join("state.db")).unwrap();
    std::fs::remove_dir_all(dir.path().join("events/0")).unwrap();
    let bus = open(dir.path());
    bus.append(Topic::Events, vec![record("a")]).unwrap();
    drop(bus);
    assert_eq!(values(&open(dir.path()), Topic::Events), ["a"]);
}

#[test]
fn a_record_that_is_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path());
    let mut large = record("");
    large.value = vec![0; frame::MAX_RECORD].into();
    for topic in Topic::ALL {
        let refused = bus.append(topic, vec![record("a"), large.clone()]);
        assert!(matches!(refused, Err(BusError::Refused(_))), "{refused:?}");
        assert_eq!(bus.bounds(topic, 0).unwrap(), 0..0);
    }
    large.value = vec![0; frame::MAX_RECORD - 3].into();
    bus.append(Topic::Events, vec![large.clone(), large])
        .unwrap();
    assert_eq!(bus.read(Topic::Events, 0, 0, 100).unwrap().next, 1);
}

/// Files are closed by age too, so that retention comes to slow topics.
#[test]
fn a_slow_topic_is_dropped_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path());
    let hour = 3_600_000_000;
    let at = |n: i64| Record {
        time: record("").time.plus(n * hour),
        ..record(&n.to_string())
    };
    for n in 0..400 {
        bus.append(Topic::Events, vec![at(n)]).unwrap();
        bus.retain(at(n).time).unwrap();
        let kept = bus.bounds(Topic::Events, 0).unwrap();
        let kept = i64::try_from(kept.end - kept.start).unwrap();
        assert!(kept > n.min(7 * 24), "{kept} hours are kept at hour {n}");
        assert!(
            kept <= n.min(7 * 24 + 7 * 24 / 8 + 1) + 1,
            "{kept} hours are kept at hour {n}"
        );
    }
}

/// Retention, appends and reads at the same time: a reader gets records without gaps or is told where the log begins.
#[test]
fn readers_and_retention_do_not_disturb_each_other() {
    const DAYS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let bus = EmbeddedBus::open(
        dir.path(),
        Options {
            chunk: Chunk { bytes: 600 },
            ..options(1)
        },
    )
    .unwrap();
    let day = |n: u64| Time::from_seconds(n as i64 * 86_400);
    let follow = &|topic: Topic| {
        let mut next = 0;
        while next < DAYS {
            bus.wait(topic, &[(0, next)], Duration::from_secs(600))
                .unwrap();
            match bus.read(topic, 0, next, 300) {
                Ok(batch) => {
                    for (offset, record) in &batch.records {
                        assert_eq!((*offset, record.time), (next, day(next)));
                        next += 1;
                    }
                    assert_eq!(batch.next, next);
                }
                Err(BusError::OutOfRange { start, .. }) => {
                    assert!(start > next);
                    next = start;
                }
                Err(e) => panic!("{e}"),
            }
        }
    };
    std::thread::scope(|scope| {
        for topic in [Topic::Events, Topic::Findings] {
            scope.spawn(move || follow(topic));
            let bus = &bus;
            scope.spawn(move || {
                for n in 0..DAYS {
                    let record = Record {
                        time: day(n),
                        ..record(&noise(n, 200))
                    };
                    bus.append(topic, vec![record]).unwrap();
                    bus.retain(day(n)).unwrap();
                }
            });
        }
    });
    assert!(bus.bounds(Topic::Events, 0).unwrap().start > DAYS - 20);
    assert!(bus.verify().is_empty());
}

#[test]
fn a_full_state_database_says_so_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path());
    bus.append(Topic::Findings, vec![record("a")]).unwrap();
    let limit = |pages: u32| {
        bus.store
            .on_writer(|writer| writer.pragma_update(None, "max_page_count", pages))
            .unwrap();
    };
    limit(60);
    let large = Commit {
        consumer: "c".into(),
        outputs: vec![(Topic::Findings, record(&noise(1, 1_000_000)))],
        state: vec![StateChange {
            partition: 0,
            key: b"k".to_vec(),
            value: Some(Vec::new()),
            expires: None,
        }],
        ..Commit::default()
    };
    let full = bus.commit(large.clone());
    assert!(matches!(full, Err(BusError::DiskFull { .. })), "{full:?}");
    assert_eq!(values(&bus, Topic::Findings), ["a"]);
    assert_eq!(bus.state_get("c", 0, &[b"k".to_vec()]).unwrap(), [None]);
    limit(1_000_000);
    bus.commit(large).unwrap();
    assert_eq!(bus.bounds(Topic::Findings, 0).unwrap(), 0..2);
    assert!(bus.poisoned().is_none());
}

impl Bus for Temporary {
    fn partitions(&self, topic: Topic) -> u32 {
        self.bus.partitions(topic)
    }
    fn append(&self, topic: Topic, records: Vec<Record>) -> Result<(), BusError> {
        self.bus.append(topic, records)
    }
    fn read(&self, topic: Topic, p: u32, from: Offset, max: usize) -> Result<Batch, BusError> {
        self.bus.read(topic, p, from, max)
    }
    fn wait(&self, topic: Topic, from: &[(u32, Offset)], t: Duration) -> Result<bool, BusError> {
        self.bus.wait(topic, from, t)
    }
    fn bounds(&self, topic: Topic, p: u32) -> Result<Range<Offset>, BusError> {
        self.bus.bounds(topic, p)
    }
    fn commit(&self, commit: Commit) -> Result<(), BusError> {
        self.bus.commit(commit)
    }
    fn position(&self, c: &str, topic: Topic, p: u32) -> Result<Option<Offset>, BusError> {
        self.bus.position(c, topic, p)
    }
    fn state_get(
        &self,
        c: &str,
        p: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        self.bus.state_get(c, p, keys)
    }
    fn state_scan(&self, c: &str, p: u32, prefix: &[u8]) -> Result<Vec<Entry>, BusError> {
        self.bus.state_scan(c, p, prefix)
    }
    fn retain(&self, now: Time) -> Result<(), BusError> {
        self.bus.retain(now)
    }
}
