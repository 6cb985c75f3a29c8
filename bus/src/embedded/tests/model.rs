//! The log against a naive model in memory: any sequence of calls, restarts with torn tails among them, gives the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::partition_of;

const PARTITIONS: u32 = 2;
const DAY: i64 = 86_400_000_000;

#[derive(Debug, Clone)]
enum Op {
    /// Sizes of the values, and how many hours after the last call.
    Append(Topic, Vec<usize>, i64),
    /// Moves a consumer by up to so many records, from where it stands or beside it.
    Commit {
        topic: Topic,
        partition: u32,
        beside: u64,
        by: u64,
        outputs: usize,
        keys: Vec<(u8, bool)>,
    },
    Read(Topic, u32, u64, usize),
    Retain(i64),
    /// Opens the log again, with these bytes behind the files of events.
    Reopen(Vec<u8>),
}

#[derive(Default)]
struct Model {
    logs: BTreeMap<(Topic, u32), (u64, Vec<Record>)>,
    positions: BTreeMap<(Topic, u32), u64>,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    now: i64,
    made: usize,
}

fn topics() -> impl Strategy<Value = Topic> {
    prop::sample::select(vec![
        Topic::Events,
        Topic::Events,
        Topic::Matches,
        Topic::DeadLetters,
    ])
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (topics(), prop::collection::vec(0..3_000_usize, 0..12), 0..40_i64)
            .prop_map(|(topic, sizes, hours)| Op::Append(topic, sizes, hours)),
        4 => (topics(), 0..PARTITIONS, 0..2_u64, 0..9_u64, 0..3_usize,
              prop::collection::vec((0..6_u8, any::<bool>()), 0..4))
            .prop_map(|(topic, partition, beside, by, outputs, keys)|
                Op::Commit { topic, partition, beside, by, outputs, keys }),
        4 => (topics(), 0..PARTITIONS, 0..40_u64, 0..9_000_usize)
            .prop_map(|(topic, partition, from, bytes)| Op::Read(topic, partition, from, bytes)),
        1 => (0..10_i64).prop_map(Op::Retain),
        2 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Op::Reopen),
    ]
}

fn options() -> Options {
    Options {
        partitions: Partitions::all(PARTITIONS),
        chunk: Chunk { bytes: 4_000 },
        ..Options::default()
    }
}

impl Model {
    fn log(&mut self, topic: Topic, partition: u32) -> &mut (u64, Vec<Record>) {
        self.logs.entry((topic, partition)).or_default()
    }

    fn bounds(&mut self, topic: Topic, partition: u32) -> Range<u64> {
        let (start, records) = self.log(topic, partition);
        *start..*start + records.len() as u64
    }

    fn record(&mut self, size: usize) -> Record {
        self.made += 1;
        Record {
            key: Bytes::from(self.made.to_string()),
            value: Bytes::from(noise(self.made as u64, size)),
            time: Time(self.now),
        }
    }

    fn push(&mut self, topic: Topic, record: &Record) {
        let partition = partition_of(&record.key, PARTITIONS);
        self.log(topic, partition).1.push(record.clone());
    }

    fn apply(&mut self, bus: &EmbeddedBus, op: Op) {
        match op {
            Op::Append(topic, sizes, hours) => {
                self.now += hours * DAY / 24;
                let records: Vec<Record> =
                    sizes.into_iter().map(|size| self.record(size)).collect();
                bus.append(topic, records.clone()).unwrap();
                for record in &records {
                    self.push(topic, record);
                }
            }
            Op::Commit {
                topic,
                partition,
                beside,
                by,
                outputs,
                keys,
            } => {
                self.commit(bus, (topic, partition), beside, by, outputs, keys);
            }
            Op::Read(topic, partition, from, bytes) => {
                let bounds = self.bounds(topic, partition);
                let found = bus.read(topic, partition, from, bytes);
                if from < bounds.start || from > bounds.end {
                    assert!(
                        matches!(found, Err(BusError::OutOfRange { .. })),
                        "{found:?}"
                    );
                    return;
                }
                let mut expected = Vec::new();
                let mut room = bytes;
                for (offset, record) in
                    (from..).zip(&self.log(topic, partition).1[(from - bounds.start) as usize..])
                {
                    let size = record.key.len() + record.value.len();
                    if size > room && !expected.is_empty() {
                        break;
                    }
                    room = room.saturating_sub(size);
                    expected.push((offset, record.clone()));
                }
                let next = from + expected.len() as u64;
                assert_eq!(
                    found.unwrap(),
                    Batch {
                        records: expected,
                        next
                    }
                );
            }
            Op::Retain(days) => {
                let now = self.now + days * DAY;
                bus.retain(Time(now)).unwrap();
                for (&(topic, partition), (start, records)) in &mut self.logs {
                    let cutoff = now - options().retention_hours.micros(topic);
                    let old = records.iter().take_while(|r| r.time.0 < cutoff).count();
                    let dropped = match topic {
                        // Whole files: any number up to the old ones.
                        Topic::Events => {
                            (bus.bounds(topic, partition).unwrap().start - *start) as usize
                        }
                        _ => old,
                    };
                    assert!(dropped <= old, "{dropped} of {old}");
                    records.drain(..dropped);
                    *start += dropped as u64;
                }
            }
            Op::Reopen(_) => unreachable!("the test opens the log itself"),
        }
    }

    fn commit(
        &mut self,
        bus: &EmbeddedBus,
        (topic, partition): (Topic, u32),
        beside: u64,
        by: u64,
        outputs: usize,
        keys: Vec<(u8, bool)>,
    ) {
        let bounds = self.bounds(topic, partition);
        let stored = self
            .positions
            .get(&(topic, partition))
            .copied()
            .unwrap_or(0);
        let from = stored.max(bounds.start) + beside;
        let to = (from + by).min(bounds.end.max(from));
        let outputs: Vec<Record> = (0..outputs).map(|n| self.record(n * 900)).collect();
        let state: Vec<StateChange> = keys
            .into_iter()
            .map(|(key, keep)| StateChange {
                partition: 0,
                key: vec![b'k', key],
                value: keep.then(|| vec![key; 3]),
                expires: None,
            })
            .collect();
        let done = bus.commit(Commit {
            consumer: "c".into(),
            positions: vec![Position {
                topic,
                partition,
                from,
                to,
            }],
            outputs: outputs
                .iter()
                .map(|r| (Topic::Matches, r.clone()))
                .collect(),
            state: state.clone(),
        });
        if beside > 0 {
            assert!(matches!(done, Err(BusError::Fenced { .. })), "{done:?}");
            return;
        }
        done.unwrap();
        self.positions.insert((topic, partition), to);
        for record in &outputs {
            self.push(Topic::Matches, record);
        }
        for change in state {
            match change.value {
                Some(value) => self.state.insert(change.key, value),
                None => self.state.remove(&change.key),
            };
        }
    }

    fn compare(&mut self, bus: &EmbeddedBus) {
        for topic in Topic::ALL {
            for partition in 0..PARTITIONS {
                let bounds = self.bounds(topic, partition);
                assert_eq!(bus.bounds(topic, partition).unwrap(), bounds);
                let found = bus
                    .read(topic, partition, bounds.start, usize::MAX)
                    .unwrap();
                let expected: Vec<_> = (bounds.start..)
                    .zip(self.log(topic, partition).1.clone())
                    .collect();
                assert_eq!(found.records, expected);
                let position = bus.position("c", topic, partition).unwrap();
                assert_eq!(position, self.positions.get(&(topic, partition)).copied());
            }
        }
        let state: Vec<Entry> = self.state.clone().into_iter().collect();
        assert_eq!(bus.state_scan("c", 0, b"k").unwrap(), state);
    }
}

fn tear(dir: &Path, garbage: &[u8]) {
    for partition in 0..PARTITIONS {
        let folder = dir.join("events").join(partition.to_string());
        let last = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .max()
            .unwrap();
        let mut bytes = std::fs::read(&last).unwrap();
        bytes.extend_from_slice(garbage);
        std::fs::write(&last, bytes).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("TRAILWARDEN_LONG").is_some() { 400 } else { 40 }, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model(ops in prop::collection::vec(ops(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut bus = EmbeddedBus::open(dir.path(), options()).unwrap();
        let mut model = Model::default();
        for op in ops {
            if let Op::Reopen(garbage) = op {
                drop(bus);
                tear(dir.path(), &garbage);
                bus = EmbeddedBus::open(dir.path(), options()).unwrap();
                model.compare(&bus);
            } else {
                model.apply(&bus, op);
            }
        }
        model.compare(&bus);
        prop_assert!(bus.verify().is_empty());
    }
}
