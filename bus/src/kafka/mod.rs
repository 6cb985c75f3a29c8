//! The log of many machines: Apache Kafka behind the same contract as the log of one.
//!
//! [`KafkaBus`] appends and reads records of topics on the brokers (`producer`, `reader`). What a [`Commit`] remembers
//! lives in one of two places, by consumer ([`Consumers`]): state that is bound to this node by its files stays here in
//! a SQLite file (the index and its splits, progress in local files); state that moves with its partition stands in a
//! changelog topic and in a copy at hand (`shard`, `changelog`). A commit is first its outputs, stored by the brokers,
//! then position and state as one: a crash in between repeats outputs, which ids make harmless, and loses nothing.
//! Nothing rests on transactions of Kafka; docs/decisions/0007 says why.
//!
//! Which process works on which partition is asked of a consumer group (`group`). Before a position is used it is held
//! against what the brokers have: a topic that was made anew, records that retention took before they were read, or
//! acknowledged records that are gone stop the program with a word on what to do ([`BusError::Guard`]).

mod brokers;
mod changelog;
mod client;
pub mod config;
mod group;
mod guard;
pub mod look;
mod producer;
mod reader;
mod shard;
#[cfg(test)]
mod tests;
pub mod topics;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{File, TryLockError};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event::{Clock, Time};
use rdkafka::TopicPartitionList;

pub use client::Numbers;

use crate::config::{Partitions, RetentionHours};
use crate::embedded::{Ends, Store};
use crate::topic::{Progress, check_commit, check_position};
use crate::{
    Batch, Bus, BusError, Commit, Entry, Offset, Position, Record, StateChange, Topic, partition_of,
};
use brokers::Brokers;
use client::Context;
use group::Group;
use guard::mark_key;
use producer::Outgoing;
use reader::{Read, lock};
use shard::Shard;

/// Keys of state that are the bus's own begin so; consumers never see them.
const MARK: &[u8] = b"\0mark/";

/// The largest record, key and value together; as on the log of one machine.
const MAX_RECORD: usize = 16 << 20;

/// Where consumers keep what they remember, and how they share the work.
#[derive(Debug, Clone, Default)]
pub struct Consumers {
    /// Consumers whose state moves with the partitions of a topic, which the nodes share out among themselves.
    pub moving: Vec<(String, Topic)>,
    /// Consumers that are bound to this node and work on a fixed share of all partitions.
    pub fixed: Vec<(String, Share)>,
    /// Does the state of all other consumers stand in the changelog `state` (one partition, for tests and small things)
    /// instead of on this node?
    pub rest_moves: bool,
}

/// Every `of`th partition, beginning with `number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub number: u32,
    /// At least 1.
    pub of: u32,
}

/// What [`KafkaBus::open`] needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How to reach the brokers.
    pub kafka: config::Options,
    /// How many partitions each topic has.
    pub partitions: Partitions,
    /// How long each topic keeps its records.
    pub retention_hours: RetentionHours,
    /// Where consumers keep what they remember.
    pub consumers: Consumers,
    /// Go on where records are gone that were not read, instead of stopping?
    pub accept_gap: bool,
    /// How large a changelog may grow before a snapshot is worth it; 0 for the default.
    pub snapshot_bytes: u64,
}

/// The durable log on Apache Kafka.
pub struct KafkaBus {
    settings: Settings,
    brokers: Brokers,
    dir: PathBuf,
    local: Store,
    ends: Arc<Ends>,
    clock: Clock,
    committing: Mutex<()>,
    shards: Mutex<HashMap<(String, u32), SharedShard>>,
    groups: Mutex<BTreeMap<String, Arc<Group>>>,
    recent: Mutex<HashMap<(Topic, u32), Reads>>,
    /// Positions of moving consumers that were used here.
    here: Mutex<BTreeMap<(String, Topic, u32), Offset>>,
    /// Held while this process uses the folder.
    _lock: File,
}

type SharedShard = Arc<Mutex<Shard>>;

/// Where reads ended, and the marks of their last records.
type Reads = VecDeque<(Offset, u64)>;

/// Where a consumer's state is.
enum Home {
    Here,
    Changelog(String, u32),
}

impl KafkaBus {
    /// Opens the log. `dir` is this node's folder for state that stays and for copies of state that moves.
    ///
    /// # Errors
    /// The brokers cannot be reached, or do not have the topics as configured.
    pub fn open(dir: &Path, settings: Settings, clock: Clock) -> Result<KafkaBus, BusError> {
        let io = |action, source| BusError::Io {
            action,
            path: dir.display().to_string(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(|e| io("make folder", e))?;
        let held = File::create(dir.join("lock")).map_err(|e| io("open", e))?;
        match crate::hold::hold(&held) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(BusError::Locked(dir.display().to_string()));
            }
            Err(TryLockError::Error(e)) => return Err(io("lock", e)),
        }
        let snapshot_bytes = match settings.snapshot_bytes {
            0 => u64::MAX,
            bytes => bytes,
        };
        let brokers = Brokers::open(&settings.kafka, snapshot_bytes)?;
        topics::check_counts(&brokers, &settings)?;
        let ends = Arc::new(Ends::new(&settings.partitions));
        let local = Store::open(
            dir.join("node.db"),
            settings.partitions.clone(),
            Arc::clone(&ends),
            Arc::default(),
        )?;
        Ok(KafkaBus {
            settings,
            brokers,
            dir: dir.to_owned(),
            local,
            ends,
            clock,
            committing: Mutex::default(),
            shards: Mutex::default(),
            groups: Mutex::default(),
            recent: Mutex::default(),
            here: Mutex::default(),
            _lock: held,
        })
    }

    /// What the clients count.
    pub fn numbers(&self) -> &Numbers {
        &self.brokers.numbers
    }

    /// Gives back all partitions, so that other nodes take them at once. Nothing may be asked of the log afterwards.
    pub fn close(&self) {
        let groups: Vec<Arc<Group>> = lock(&self.groups).values().cloned().collect();
        std::thread::scope(|scope| {
            for group in &groups {
                scope.spawn(|| group.leave());
            }
        });
    }

    fn check_partition(&self, topic: Topic, partition: u32) -> Result<(), BusError> {
        if partition < self.partitions(topic) {
            return Ok(());
        }
        Err(BusError::Refused(format!(
            "{} has no partition {partition}",
            topic.as_str()
        )))
    }

    fn outgoing(&self, topic: Topic, record: Record) -> Result<Outgoing<'_>, BusError> {
        let size = record.key.len() + record.value.len();
        if size > MAX_RECORD {
            return Err(BusError::Refused(format!(
                "a record of {size} bytes is too large for {}: {MAX_RECORD} bytes can be had",
                topic.as_str()
            )));
        }
        Ok(Outgoing {
            topic: self.brokers.topic(topic),
            partition: partition_of(&record.key, self.partitions(topic)),
            record,
        })
    }

    fn home(&self, consumer: &str, partition: u32) -> Home {
        let consumers = &self.settings.consumers;
        if consumers.moving.iter().any(|(name, _)| name == consumer) {
            return Home::Changelog(
                self.settings.kafka.name(&format!("state_{consumer}")),
                partition,
            );
        }
        if consumers.rest_moves {
            return Home::Changelog(self.settings.kafka.name("state"), 0);
        }
        Home::Here
    }

    /// The one place where a commit's state is.
    fn home_of(&self, commit: &Commit) -> Result<Home, BusError> {
        let mut partitions = commit
            .positions
            .iter()
            .map(|p| p.partition)
            .chain(commit.state.iter().map(|s| s.partition));
        let first = partitions.next().unwrap_or(0);
        let home = self.home(&commit.consumer, first);
        if let Home::Changelog(topic, at) = &home {
            for partition in partitions {
                match self.home(&commit.consumer, partition) {
                    Home::Changelog(_, other) if other == *at => {}
                    _ => {
                        return Err(BusError::Refused(format!(
                            "{} commits to partitions {at} and {partition} of `{topic}` at once",
                            commit.consumer
                        )));
                    }
                }
            }
        }
        Ok(home)
    }

    fn shard(&self, topic: &str, partition: u32) -> Result<SharedShard, BusError> {
        let mut shards = lock(&self.shards);
        if let Some(shard) = shards.get(&(topic.to_owned(), partition)) {
            return Ok(Arc::clone(shard));
        }
        let path = self.dir.join(format!("{topic}-{partition}.db"));
        let shard = Arc::new(Mutex::new(Shard::open(path, topic, partition)?));
        shards.insert((topic.to_owned(), partition), Arc::clone(&shard));
        Ok(shard)
    }

    /// Runs `work` on a shard that has been caught up at least once; `fresh` for one that is caught up now.
    fn on_shard<T>(
        &self,
        topic: &str,
        partition: u32,
        fresh: bool,
        work: impl FnOnce(&mut Shard) -> Result<T, BusError>,
    ) -> Result<T, BusError> {
        let shard = self.shard(topic, partition)?;
        let mut shard = lock(&shard);
        if fresh || !shard.is_begun() {
            shard.catch_up(&self.brokers, (self.clock)())?;
        }
        work(&mut shard)
    }

    fn group(&self, consumer: &str, topic: Topic) -> Result<Arc<Group>, BusError> {
        let mut groups = lock(&self.groups);
        if let Some(group) = groups.get(consumer) {
            return Ok(Arc::clone(group));
        }
        let kafka = &self.settings.kafka;
        let group = Arc::new(Group::new(
            kafka.client()?,
            Context::new(Arc::clone(&self.brokers.numbers), kafka.sasl.clone()),
            &kafka.name(consumer),
            self.brokers.topic(topic).to_owned(),
            Duration::from_secs(u64::from(kafka.session_timeout_seconds)),
        )?);
        groups.insert(consumer.to_owned(), Arc::clone(&group));
        Ok(group)
    }

    /// Takes note of where a consumer stands here, to be shown and told to the brokers.
    fn moved(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
        next: Offset,
    ) -> Result<(), BusError> {
        let consumers = &self.settings.consumers;
        lock(&self.here).insert((consumer.to_owned(), topic, partition), next);
        let shared = consumers
            .moving
            .iter()
            .any(|(name, of)| name == consumer && *of == topic);
        let fixed =
            topic == Topic::Events && consumers.fixed.iter().any(|(name, _)| name == consumer);
        if shared || fixed {
            self.group(consumer, topic)?.moved(partition, next)?;
        }
        Ok(())
    }
}

impl Bus for KafkaBus {
    fn partitions(&self, topic: Topic) -> u32 {
        self.settings.partitions.of(topic)
    }

    fn append(&self, topic: Topic, records: Vec<Record>) -> Result<(), BusError> {
        let outgoing = records
            .into_iter()
            .map(|record| self.outgoing(topic, record))
            .collect::<Result<Vec<_>, _>>()?;
        self.brokers.producer.send(&outgoing).map(|_| ())
    }

    fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Batch, BusError> {
        self.check_partition(topic, partition)?;
        let name = self.brokers.topic(topic);
        match self
            .brokers
            .readers
            .read(name, partition, from, max_bytes)?
        {
            Read::Batch(batch) => {
                self.remember_read(topic, partition, &batch);
                Ok(batch)
            }
            Read::Outside(Range { start, end }) => Err(BusError::OutOfRange {
                topic,
                partition,
                asked: from,
                start,
                end,
            }),
        }
    }

    fn wait(
        &self,
        topic: Topic,
        from: &[(u32, Offset)],
        timeout: Duration,
    ) -> Result<bool, BusError> {
        for (partition, _) in from {
            self.check_partition(topic, *partition)?;
        }
        if from.is_empty() {
            // Nothing is assigned; there may be something after the wait.
            std::thread::sleep(timeout);
            return Ok(false);
        }
        self.brokers
            .readers
            .wait(self.brokers.topic(topic), from, timeout)
    }

    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, BusError> {
        self.check_partition(topic, partition)?;
        self.brokers
            .readers
            .bounds(self.brokers.topic(topic), partition)
    }

    fn ends(&self, topic: Topic) -> Result<Vec<Offset>, BusError> {
        self.brokers
            .ends(self.brokers.topic(topic), self.partitions(topic))
    }

    fn commit(&self, mut commit: Commit) -> Result<(), BusError> {
        check_commit(&commit)?;
        let home = self.home_of(&commit)?;
        for position in &commit.positions {
            self.check_partition(position.topic, position.partition)?;
        }
        let marks: Vec<StateChange> = commit
            .positions
            .iter()
            .filter_map(|p| self.mark(p.topic, p.partition, p.to))
            .collect();
        commit.state.extend(marks);
        let outputs = std::mem::take(&mut commit.outputs)
            .into_iter()
            .map(|(topic, record)| self.outgoing(topic, record))
            .collect::<Result<Vec<_>, _>>()?;
        match home {
            Home::Changelog(topic, partition) => {
                let now = (self.clock)();
                let done = self.on_shard(&topic, partition, false, |shard| {
                    shard.commit(&self.brokers, &commit, &outputs, now)
                });
                if matches!(done, Err(BusError::Fenced { .. })) {
                    self.brokers
                        .numbers
                        .fenced
                        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                done?;
            }
            Home::Here => {
                // Nobody comes between the look and the commit.
                let _turn = lock(&self.committing);
                for position in &commit.positions {
                    let Position {
                        topic,
                        partition,
                        from,
                        to,
                    } = *position;
                    let bounds = self.brokers.readers.bounds_for(
                        self.brokers.topic(topic),
                        partition,
                        from,
                        to,
                    )?;
                    let stored = self.local.position(&commit.consumer, topic, partition)?;
                    check_position(&commit.consumer, position, stored, &bounds)?;
                    self.ends.set([(topic, partition, bounds)]);
                }
                self.brokers.producer.send(&outputs)?;
                self.local.commit(commit.clone())?;
            }
        }
        commit.positions.iter().try_for_each(|position| {
            self.moved(
                &commit.consumer,
                position.topic,
                position.partition,
                position.to,
            )
        })
    }

    fn position(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<Offset>, BusError> {
        self.check_partition(topic, partition)?;
        let key = [mark_key(topic)];
        let (stored, mark) = match self.home(consumer, partition) {
            Home::Changelog(name, at) => self.on_shard(&name, at, true, |shard| {
                Ok((
                    shard.position(consumer, topic, partition)?,
                    shard.state_get(consumer, partition, &key)?,
                ))
            })?,
            Home::Here => (
                self.local.position(consumer, topic, partition)?,
                self.local.state_get(consumer, partition, &key)?,
            ),
        };
        if let Some(next) = stored {
            self.guard(
                consumer,
                topic,
                partition,
                next,
                mark.into_iter().next().flatten(),
            )?;
            // Whoever stood here before may have died before it told the brokers.
            self.moved(consumer, topic, partition, next)?;
        }
        Ok(stored)
    }

    fn state_get(
        &self,
        consumer: &str,
        partition: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        match self.home(consumer, partition) {
            Home::Changelog(name, at) => self.on_shard(&name, at, false, |shard| {
                shard.state_get(consumer, partition, keys)
            }),
            Home::Here => self.local.state_get(consumer, partition, keys),
        }
    }

    fn state_scan(
        &self,
        consumer: &str,
        partition: u32,
        prefix: &[u8],
    ) -> Result<Vec<Entry>, BusError> {
        let mut found = match self.home(consumer, partition) {
            Home::Changelog(name, at) => self.on_shard(&name, at, false, |shard| {
                shard.state_scan(consumer, partition, prefix)
            }),
            Home::Here => self.local.state_scan(consumer, partition, prefix),
        }?;
        found.retain(|(key, _)| !key.starts_with(MARK));
        Ok(found)
    }

    fn retain(&self, now: Time) -> Result<(), BusError> {
        for topic in Topic::ALL {
            let cutoff = now
                .plus(-self.settings.retention_hours.micros(topic))
                .millis()
                .max(0);
            let name = self.brokers.topic(topic);
            // Asked first: what is appended meanwhile must not be taken for old.
            let bounds = (0..self.partitions(topic))
                .map(|partition| self.brokers.readers.bounds(name, partition))
                .collect::<Result<Vec<_>, _>>()?;
            let offsets = self
                .brokers
                .offsets_at(name, self.partitions(topic), cutoff)?;
            let failed = |e| client::unavailable("delete old records", &e);
            let mut old = TopicPartitionList::new();
            for element in offsets.elements() {
                element.error().map_err(failed)?;
                let bounds = &bounds[element.partition() as usize];
                let until = match element.offset() {
                    rdkafka::Offset::Offset(at) => at.max(0) as Offset,
                    // No record is that young.
                    rdkafka::Offset::End => bounds.end,
                    _ => continue,
                }
                .min(bounds.end);
                if until > bounds.start {
                    let at = rdkafka::Offset::Offset(until as i64);
                    old.add_partition_offset(name, element.partition(), at)
                        .map_err(failed)?;
                }
            }
            if old.count() > 0 {
                self.brokers.drop_before_all(&old)?;
                for element in old.elements() {
                    self.brokers
                        .readers
                        .bounds(element.topic(), element.partition() as u32)?;
                }
            }
        }
        self.local.retain_state(now)?;
        let shards: Vec<_> = lock(&self.shards).values().cloned().collect();
        shards.iter().try_for_each(|shard| lock(shard).retain(now))
    }

    fn assigned(&self, consumer: &str, topic: Topic) -> Result<Vec<u32>, BusError> {
        let consumers = &self.settings.consumers;
        if let Some((_, of)) = consumers.moving.iter().find(|(name, _)| name == consumer)
            && *of == topic
        {
            return self.group(consumer, topic)?.assigned();
        }
        let all = 0..self.partitions(topic);
        let share = consumers.fixed.iter().find(|(name, _)| name == consumer);
        Ok(match share {
            Some((_, share)) => all.filter(|p| p % share.of == share.number).collect(),
            None => all.collect(),
        })
    }

    fn progress(&self) -> Result<Vec<Progress>, BusError> {
        let consumers = &self.settings.consumers;
        let mut all = Vec::new();
        let fixed = consumers
            .fixed
            .iter()
            .map(|(name, _)| (name, Topic::Events));
        for (consumer, topic) in consumers
            .moving
            .iter()
            .map(|(name, topic)| (name, *topic))
            .chain(fixed)
        {
            let group = self.group(consumer, topic)?;
            let here = lock(&self.here).clone();
            let is_fixed = consumers.fixed.iter().find(|(name, _)| name == consumer);
            let told = group.told(self.partitions(topic), self.brokers.patience)?;
            let known: BTreeMap<u32, Offset> = told.into_iter().collect();
            for partition in 0..self.partitions(topic) {
                let own = here.get(&(consumer.clone(), topic, partition));
                let is_here = own.is_some()
                    && match is_fixed {
                        Some((_, share)) => partition % share.of == share.number,
                        None => group.has(partition),
                    };
                let next = if is_here { own } else { known.get(&partition) };
                all.extend(next.map(|next| Progress {
                    consumer: consumer.clone(),
                    topic,
                    partition,
                    next: *next,
                    here: is_here,
                }));
            }
        }
        Ok(all)
    }
}

impl std::fmt::Debug for KafkaBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaBus")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}
