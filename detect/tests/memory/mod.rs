//! A log in memory, for tests of stages.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use bus::{Batch, Bus, BusError, Commit, Offset, Record, Stop, Topic, partition_of};
use event::Time;

/// How many partitions every topic but `events` has.
pub(crate) const PARTITIONS: u32 = 3;

/// A log in memory that keeps the contract; it stops the program when it has been read to its end.
#[derive(Default)]
pub(crate) struct MemoryBus(pub(crate) Mutex<Kept>, pub(crate) Stop);

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) records: BTreeMap<(Topic, u32), Vec<Record>>,
    pub(crate) dropped: Offset,
    pub(crate) positions: BTreeMap<(String, Topic, u32), Offset>,
    pub(crate) state: BTreeMap<(String, u32, Vec<u8>), Vec<u8>>,
    pub(crate) commits_until_full: Option<u32>,
}

impl Kept {
    fn put(&mut self, topic: Topic, record: Record) {
        let partition = partition_of(&record.key, partitions(topic));
        let partition = self.records.entry((topic, partition)).or_default();
        partition.push(record);
    }
}

fn partitions(topic: Topic) -> u32 {
    match topic {
        Topic::Events => 2,
        _ => PARTITIONS,
    }
}

impl Bus for MemoryBus {
    fn partitions(&self, topic: Topic) -> u32 {
        partitions(topic)
    }

    fn append(&self, topic: Topic, records: Vec<Record>) -> Result<(), BusError> {
        let mut kept = self.0.lock().unwrap();
        records.into_iter().for_each(|r| kept.put(topic, r));
        Ok(())
    }

    fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Batch, BusError> {
        let kept = self.0.lock().unwrap();
        if from < kept.dropped {
            return Err(BusError::OutOfRange {
                topic,
                partition,
                asked: from,
                start: kept.dropped,
                end: 0,
            });
        }
        let records = kept.records.get(&(topic, partition));
        let mut room = max_bytes as i64;
        let records: Vec<(Offset, Record)> = (0..)
            .zip(records.into_iter().flatten().cloned())
            .skip(from as usize)
            .take_while(|(_, r)| {
                let before = room;
                room -= (r.key.len() + r.value.len()) as i64;
                before > 0
            })
            .collect();
        let next = from + records.len() as u64;
        Ok(Batch { records, next })
    }

    fn wait(&self, _: Topic, _: &[(u32, Offset)], _: Duration) -> Result<bool, BusError> {
        self.1.stop();
        Ok(false)
    }

    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, BusError> {
        let kept = self.0.lock().unwrap();
        let records = kept.records.get(&(topic, partition));
        Ok(kept.dropped..records.map_or(0, |r| r.len() as u64))
    }

    fn commit(&self, commit: Commit) -> Result<(), BusError> {
        let mut kept = self.0.lock().unwrap();
        if let Some(left) = &mut kept.commits_until_full {
            if *left == 0 {
                kept.commits_until_full = None;
                return Err(BusError::DiskFull { path: "log".into() });
            }
            *left -= 1;
        }
        let consumer = commit.consumer;
        for p in commit.positions {
            let stored = kept
                .positions
                .insert((consumer.clone(), p.topic, p.partition), p.to);
            assert_eq!(stored.unwrap_or(p.from), p.from, "fenced");
        }
        for (topic, record) in commit.outputs {
            kept.put(topic, record);
        }
        for change in commit.state {
            let key = (consumer.clone(), change.partition, change.key);
            match change.value {
                Some(value) => kept.state.insert(key, value),
                None => kept.state.remove(&key),
            };
        }
        Ok(())
    }

    fn position(&self, c: &str, topic: Topic, p: u32) -> Result<Option<Offset>, BusError> {
        let kept = self.0.lock().unwrap();
        Ok(kept.positions.get(&(c.into(), topic, p)).copied())
    }

    fn state_get(
        &self,
        consumer: &str,
        partition: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        let kept = self.0.lock().unwrap();
        let of = |key: &Vec<u8>| (consumer.to_owned(), partition, key.clone());
        Ok(keys
            .iter()
            .map(|k| kept.state.get(&of(k)).cloned())
            .collect())
    }

    fn state_scan(
        &self,
        consumer: &str,
        partition: u32,
        prefix: &[u8],
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BusError> {
        let kept = self.0.lock().unwrap();
        let rows = kept
            .state
            .iter()
            .filter(|((c, p, key), _)| c == consumer && *p == partition && key.starts_with(prefix));
        Ok(rows.map(|((_, _, k), v)| (k.clone(), v.clone())).collect())
    }

    fn retain(&self, _: Time) -> Result<(), BusError> {
        Ok(())
    }
}
