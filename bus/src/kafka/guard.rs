//! The guard rails: a stored position is held against what the brokers have before it is used.

use super::reader::{Read, lock};
use super::shard::mark_of;
use super::{KafkaBus, MARK};
use crate::{Batch, BusError, Offset, StateChange, Topic};

/// How many reads of a partition are remembered by their last record.
const RECENT: usize = 64;

impl KafkaBus {
    /// What is remembered of the record before a place, to know the topic by.
    pub(super) fn mark(&self, topic: Topic, partition: u32, next: Offset) -> Option<StateChange> {
        let recent = lock(&self.recent);
        let (_, hash) = recent
            .get(&(topic, partition))?
            .iter()
            .rev()
            .find(|(at, _)| *at == next)?;
        let mut value = next.to_le_bytes().to_vec();
        value.extend(hash.to_le_bytes());
        Some(StateChange {
            partition,
            key: mark_key(topic),
            value: Some(value),
            expires: None,
        })
    }

    pub(super) fn remember_read(&self, topic: Topic, partition: u32, batch: &Batch) {
        if let Some((_, last)) = batch.records.last() {
            let mut recent = lock(&self.recent);
            let reads = recent.entry((topic, partition)).or_default();
            reads.push_back((batch.next, mark_of(last)));
            if reads.len() > RECENT {
                reads.pop_front();
            }
        }
    }

    /// Holds a stored position against what the brokers have.
    pub(super) fn guard(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
        next: Offset,
        mark: Option<Vec<u8>>,
    ) -> Result<(), BusError> {
        let name = self.brokers.topic(topic);
        let guard = |reason: String| BusError::Guard {
            topic: name.to_owned(),
            partition,
            reason,
        };
        let anew = format!(
            "If the topic was made anew on purpose, what was remembered of the old one must go too: stop all nodes, delete \
             the topics `{}*` and the folder `{}` of every node, and run `trailwarden topics apply`. If not, restore the \
             topic before you start, or acknowledged records are lost",
            self.settings.kafka.name("state"),
            self.dir.display()
        );
        let bounds = self.brokers.readers.bounds(name, partition)?;
        if next > bounds.end {
            return Err(guard(format!(
                "{consumer} has read up to {next}, but it ends at {}: it was made anew, or brokers lost acknowledged records. {anew}",
                bounds.end
            )));
        }
        if next < bounds.start && !self.settings.accept_gap {
            return Err(guard(format!(
                "{consumer} has read up to {next}, but it begins at {}: retention dropped {} records that were not read. \
                 Start once with --accept-gap to go on without them, and give the topic more retention \
                 (bus.retention_hours, then `trailwarden topics apply`)",
                bounds.start,
                bounds.start - next
            )));
        }
        let Some((at, hash)) = mark.and_then(|m| {
            let at = Offset::from_le_bytes(m.get(..8)?.try_into().ok()?);
            let hash = u64::from_le_bytes(m.get(8..16)?.try_into().ok()?);
            Some((at, hash))
        }) else {
            return Ok(());
        };
        if at == 0 || at > bounds.end || at - 1 < bounds.start {
            return Ok(());
        }
        let read = self.brokers.readers.read(name, partition, at - 1, 0)?;
        if let Read::Batch(batch) = read
            && let Some((_, record)) = batch.records.first()
            && mark_of(record) != hash
        {
            return Err(guard(format!(
                "record {} is another one than {consumer} has read: it was made anew, or brokers took back acknowledged records. {anew}",
                at - 1
            )));
        }
        Ok(())
    }
}

pub(super) fn mark_key(topic: Topic) -> Vec<u8> {
    [MARK, topic.as_str().as_bytes()].concat()
}
