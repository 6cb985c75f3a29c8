//! The log of one machine, in one folder, with no other service.
//!
//! [`EmbeddedBus`] puts the bulk, the topic `events`, into plain compressed files (`log`, `segment`, `frame`), and
//! everything small into one SQLite file (`store`): the other topics, consumer positions and consumer state, so that a
//! stage's step is one transaction. Both publish what is durable in `ends`, which readers and waiters ask. The data
//! folder belongs to one process at a time (`folder`). Damage, lost parts and foreign formats are refused; what a
//! crash left half written is cut off, since nobody was told that it is stored.

mod disk;
mod ends;
mod folder;
mod frame;
mod group;
mod log;
mod segment;
mod store;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event::Time;

pub use crate::config::{Chunk, Options, Partitions, RetentionHours};
use crate::{Batch, Bus, BusError, Commit, Entry, Offset, Progress, Record, Topic};
pub use log::BeforeDrop;
pub use segment::ChunkFile;

pub(crate) use ends::Ends;
pub(crate) use store::{Store, after_prefix, database_error};

use disk::RealDisk;
use folder::Folder;
use log::{EventLog, Limits, Poison};

/// The durable log in one data folder.
#[derive(Debug)]
pub struct EmbeddedBus {
    options: Options,
    log: EventLog,
    store: Store,
    ends: Arc<Ends>,
    poison: Poison,
    /// Held while something is dropped: what is oldest is looked up first and dropped later.
    retaining: Mutex<()>,
    // Last, so that the lock goes when everything is closed.
    _folder: Folder,
}

impl EmbeddedBus {
    /// Opens the log in `dir`, which is created if it does not exist, and repairs what a crash left behind.
    pub fn open(dir: &Path, options: Options) -> Result<EmbeddedBus, BusError> {
        options.check()?;
        let folder = Folder::open(dir, &options.partitions)?;
        let ends = Arc::new(Ends::new(&options.partitions));
        let poison = Poison::default();
        let store = Store::open(
            folder.state_path(),
            options.partitions.clone(),
            Arc::clone(&ends),
            Arc::clone(&poison),
        )?;
        let limits = Limits {
            chunk_bytes: options.chunk.bytes,
            retention: options.retention_hours.micros(Topic::Events),
        };
        let log = EventLog::open(
            Arc::new(RealDisk),
            folder.partition_dirs(),
            limits,
            Arc::clone(&ends),
            Arc::clone(&poison),
        )?;
        folder.finish(&options.partitions)?;
        let bus = EmbeddedBus {
            options,
            log,
            store,
            ends,
            poison,
            retaining: Mutex::new(()),
            _folder: folder,
        };
        bus.check_positions(dir)?;
        Ok(bus)
    }

    /// Every stored position: consumer, topic, partition, next offset; for lag and health.
    pub fn positions(&self) -> Result<Vec<(String, Topic, u32, Offset)>, BusError> {
        self.store.positions()
    }

    /// The file whose fsync failed, if one did: the log then takes no more writes until it is opened again.
    pub fn poisoned(&self) -> Option<&str> {
        self.poison.get().map(String::as_str)
    }

    /// Reads everything that is stored, checks all checksums, and gives all damage that it finds.
    pub fn verify(&self) -> Vec<BusError> {
        let mut damage = self.log.verify();
        damage.extend(self.store.verify().err());
        damage
    }

    /// The files of a partition of `events` from the one on that begins with `from`, as far as they are durable.
    pub fn chunks(&self, partition: u32, from: Offset) -> Result<Vec<ChunkFile>, BusError> {
        self.ends.get(Topic::Events, partition)?;
        self.log.chunks(partition, from)
    }

    /// For how long a topic keeps its records at least, in microseconds.
    pub fn keeps(&self, topic: Topic) -> i64 {
        self.options.retention_hours.micros(topic)
    }

    /// Moves a consumer back, so that it reads again from these offsets: topic, partition, offset. One that stands before
    /// such an offset stays where it is. Only while the consumer does not run: nothing else tells it.
    ///
    /// # Errors
    /// An offset is not on the log; then nothing has moved.
    pub fn rewind(
        &self,
        consumer: &str,
        positions: &[(Topic, u32, Offset)],
    ) -> Result<(), BusError> {
        self.store.rewind(consumer, positions)
    }

    /// Removes all of a consumer's keys with a prefix from its state, in all partitions.
    ///
    /// # Errors
    /// The database failed; some keys may be gone.
    pub fn forget(&self, consumer: &str, prefix: &[u8]) -> Result<(), BusError> {
        self.store.forget(consumer, prefix)
    }

    /// [`Bus::retain`], and `before` is told of each file of `events` that is about to go.
    pub fn retain_with(&self, now: Time, before: &BeforeDrop<'_>) -> Result<(), BusError> {
        let _turn = group::lock(&self.retaining);
        let cutoff = |topic| now.plus(-self.options.retention_hours.micros(topic));
        let mut moved: Vec<(Topic, u32, Offset)> = self
            .log
            .retain(cutoff(Topic::Events), before)?
            .into_iter()
            .map(|(partition, start)| (Topic::Events, partition, start))
            .collect();
        for topic in Topic::ALL.into_iter().filter(|t| *t != Topic::Events) {
            for partition in 0..self.partitions(topic) {
                if let Some(start) = self.store.retain_records(topic, partition, cutoff(topic))? {
                    moved.push((topic, partition, start));
                }
            }
        }
        self.store.retain_state(now)?;
        self.warn_unread(&moved)
    }

    /// A position past the end means that the end is lost: going on would skip what is appended next.
    fn check_positions(&self, dir: &Path) -> Result<(), BusError> {
        for (consumer, topic, partition, next) in self.store.positions()? {
            let end = self.ends.get(topic, partition)?.end;
            if next > end {
                return Err(BusError::Corrupt {
                    path: dir.display().to_string(),
                    offset: 0,
                    reason: format!(
                        "{consumer} has read up to {next} of {}-{partition}, but it ends at {end}: \
                         stored records are lost",
                        topic.as_str()
                    ),
                });
            }
        }
        Ok(())
    }

    /// Says which consumers had not read what retention dropped.
    fn warn_unread(&self, moved: &[(Topic, u32, Offset)]) -> Result<(), BusError> {
        if moved.is_empty() {
            return Ok(());
        }
        for (consumer, topic, partition, next) in self.store.positions()? {
            let start = moved
                .iter()
                .filter(|(t, p, _)| (*t, *p) == (topic, partition))
                .map(|(.., start)| *start)
                .max();
            if let Some(start) = start.filter(|start| *start > next) {
                tracing::error!(
                    consumer,
                    topic = topic.as_str(),
                    partition,
                    records = start - next,
                    "retention dropped records that this consumer had not read"
                );
            }
        }
        Ok(())
    }
}

impl Bus for EmbeddedBus {
    fn partitions(&self, topic: Topic) -> u32 {
        self.options.partitions.of(topic)
    }

    fn append(&self, topic: Topic, records: Vec<Record>) -> Result<(), BusError> {
        check_sizes(topic, &records)?;
        match topic {
            _ if records.is_empty() => Ok(()),
            Topic::Events => self.log.append(&records),
            _ => self.store.append(topic, records),
        }
    }

    fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Batch, BusError> {
        match topic {
            Topic::Events => self.log.read(partition, from, max_bytes),
            _ => self.store.read(topic, partition, from, max_bytes),
        }
    }

    fn wait(
        &self,
        topic: Topic,
        from: &[(u32, Offset)],
        timeout: Duration,
    ) -> Result<bool, BusError> {
        self.ends.wait(topic, from, timeout)
    }

    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, BusError> {
        self.ends.get(topic, partition)
    }

    fn commit(&self, commit: Commit) -> Result<(), BusError> {
        for (topic, record) in &commit.outputs {
            check_sizes(*topic, std::slice::from_ref(record))?;
        }
        self.store.commit(commit)
    }

    fn position(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<Offset>, BusError> {
        self.ends.get(topic, partition)?;
        self.store.position(consumer, topic, partition)
    }

    fn state_get(
        &self,
        consumer: &str,
        partition: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        self.store.state_get(consumer, partition, keys)
    }

    fn state_scan(
        &self,
        consumer: &str,
        partition: u32,
        prefix: &[u8],
    ) -> Result<Vec<Entry>, BusError> {
        self.store.state_scan(consumer, partition, prefix)
    }

    fn progress(&self) -> Result<Vec<Progress>, BusError> {
        let all = self.store.positions()?.into_iter();
        Ok(all
            .map(|(consumer, topic, partition, next)| Progress {
                consumer,
                topic,
                partition,
                next,
                here: true,
            })
            .collect())
    }

    fn retain(&self, now: Time) -> Result<(), BusError> {
        self.retain_with(now, &|_, _, _| Ok(()))
    }
}

fn check_sizes(topic: Topic, records: &[Record]) -> Result<(), BusError> {
    match records
        .iter()
        .map(|r| r.key.len() + r.value.len())
        .find(|size| *size > frame::MAX_RECORD)
    {
        None => Ok(()),
        Some(size) => Err(BusError::Refused(format!(
            "a record of {size} bytes is too large for {}: {} bytes can be had",
            topic.as_str(),
            frame::MAX_RECORD
        ))),
    }
}
