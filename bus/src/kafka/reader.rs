//! Reading: any partition from any offset, with records kept ahead.
//!
//! [`Readers`] answers [`Readers::read`], [`Readers::bounds`] and [`Readers::wait`]. Behind it stand one or more lanes:
//! a lane is one consumer of librdkafka with a thread that takes records from it and puts them into a [`Buffer`] for
//! each partition. A partition that is ahead of its reader by more than its share of bytes is paused until half of that
//! is taken, so memory is bounded. Two readers of one partition at different places get a lane each. The consumers
//! belong to no group and commit nothing: which offset is read is always said by the caller.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event::Time;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, TopicPartitionList};

use super::client::{Context, unavailable};
use super::producer::TIME_HEADER;
use crate::{Batch, BusError, Offset, Record};

/// How many lanes there are at most; beyond that, readers at different places of one partition take turns.
const LANES: usize = 4;

/// How long a lane waits for records before it looks whether it should end.
const POLL: Duration = Duration::from_millis(100);

/// How long a read waits for more once it has something.
const MORE: Duration = Duration::from_millis(200);

/// How long the library may take to change the place of a partition.
const SEEK: Duration = Duration::from_secs(5);

/// How often a read that gets nothing asks for the bounds again.
const ASK: Duration = Duration::from_secs(2);

type Name = (String, u32);

/// All readers of the process.
pub(super) struct Readers {
    config: ClientConfig,
    context: Context,
    patience: Duration,
    /// Only asks: a broker answers one request of a connection at a time, and lanes wait there for records.
    asking: Arc<BaseConsumer<Context>>,
    ended: Arc<AtomicBool>,
    lanes: Mutex<Vec<Arc<Lane>>>,
    shared: Arc<Shared>,
}

struct Lane {
    number: usize,
    consumer: BaseConsumer<Context>,
    /// Held while a partition changes its place: the library refuses two at a time.
    placing: Mutex<()>,
    ended: Arc<AtomicBool>,
}

struct Shared {
    buffers: Mutex<HashMap<(usize, Name), Buffer>>,
    news: Condvar,
    ends: Mutex<HashMap<Name, Range<Offset>>>,
    limit: usize,
}

/// Records of one partition, read ahead by one lane.
#[derive(Debug, Default)]
struct Buffer {
    /// What is taken from the buffer next.
    front: Offset,
    /// What the lane puts in next.
    back: Offset,
    records: VecDeque<(Offset, Record)>,
    bytes: usize,
    paused: bool,
    used: u64,
}

impl Readers {
    pub(super) fn new(
        mut config: ClientConfig,
        context: Context,
        patience: Duration,
        read_ahead: usize,
        properties: impl Fn(&str) -> bool,
    ) -> Result<Readers, BusError> {
        config
            // A group is needed to be a consumer at all; it has no members and no offsets.
            .set("group.id", "trailwarden-reader")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("isolation.level", "read_uncommitted");
        for (name, value) in [
            ("queued.max.messages.kbytes", "16384"),
            ("queued.min.messages", "10000"),
            ("fetch.max.bytes", "52428800"),
            ("fetch.message.max.bytes", "4194304"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.error.backoff.ms", "100"),
        ] {
            if !properties(name) {
                config.set(name, value);
            }
        }
        let asking = BaseConsumer::from_config_and_context(&config, context.clone())
            .map_err(|e| BusError::Refused(format!("cannot make a Kafka consumer: {e}")))?;
        let asking = Arc::new(asking);
        let ended = Arc::new(AtomicBool::new(false));
        let (asks, until) = (Arc::clone(&asking), Arc::clone(&ended));
        // It gets no records, but tokens for logging in and errors that are to be told.
        start("kafka-ask".into(), move || {
            while !until.load(Ordering::Relaxed) {
                drop(asks.poll(POLL));
            }
        })?;
        Ok(Readers {
            asking,
            ended,
            config,
            context,
            patience,
            lanes: Mutex::new(Vec::new()),
            shared: Arc::new(Shared {
                buffers: Mutex::default(),
                news: Condvar::new(),
                ends: Mutex::default(),
                limit: read_ahead,
            }),
        })
    }

    /// A client for questions that need a consumer.
    pub(super) fn client(&self) -> &BaseConsumer<Context> {
        &self.asking
    }

    /// The first offset that is kept and one past the last, asked of the brokers.
    pub(super) fn bounds(&self, topic: &str, partition: u32) -> Result<Range<Offset>, BusError> {
        let begin = Instant::now();
        let (low, high) = loop {
            let left = self.patience.saturating_sub(begin.elapsed()).max(POLL);
            // A question to a leader that has died is not sent to the next one, so it is asked again.
            match self
                .asking
                .fetch_watermarks(topic, partition as i32, left.min(ASK))
            {
                Ok(found) => break found,
                Err(error) if passes(&error) && begin.elapsed() + POLL < self.patience => {
                    std::thread::sleep(POLL);
                    // Who leads now? What is known of that may be old.
                    drop(self.asking.fetch_metadata(Some(topic), left.min(ASK)));
                }
                Err(error) => {
                    return Err(unavailable(
                        format!("ask where {topic}-{partition} ends"),
                        &error,
                    ));
                }
            }
        };
        let range = low.max(0) as Offset..high.max(0) as Offset;
        let mut ends = lock(&self.shared.ends);
        let known = ends
            .entry((topic.to_owned(), partition))
            .or_insert(range.clone());
        *known = range.clone();
        Ok(range)
    }

    /// The bounds as they were when they were asked last.
    pub(super) fn known(&self, topic: &str, partition: u32) -> Option<Range<Offset>> {
        lock(&self.shared.ends)
            .get(&(topic.to_owned(), partition))
            .cloned()
    }

    /// How many bytes of records are read ahead.
    #[cfg(test)]
    pub(super) fn ahead(&self) -> usize {
        let buffers = lock(&self.shared.buffers);
        let of = |buffer: &Buffer| -> usize {
            let records = buffer.records.iter();
            records.map(|(_, r)| r.key.len() + r.value.len()).sum()
        };
        assert!(buffers.values().all(|buffer| of(buffer) == buffer.bytes));
        buffers.values().map(of).sum()
    }

    /// What [`crate::Bus::read`] promises, but for how a place outside is told. A read of 0 bytes gives one record and
    /// leaves it where it is.
    pub(super) fn read(
        &self,
        topic: &str,
        partition: u32,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Read, BusError> {
        let mut bounds = match self.known(topic, partition) {
            Some(known) if known.contains(&from) => known,
            _ => self.bounds(topic, partition)?,
        };
        if from < bounds.start || from > bounds.end {
            return Ok(Read::Outside(bounds));
        }
        let begin = Instant::now();
        let mut batch = Batch {
            records: Vec::new(),
            next: from,
        };
        if from == bounds.end {
            return Ok(Read::Batch(batch));
        }
        let lane = self.at(topic, partition, from)?;
        let name = (lane.number, (topic.to_owned(), partition));
        let mut room = max_bytes;
        let (mut asked, mut taken) = (begin, begin);
        let mut buffers = lock(&self.shared.buffers);
        // It may go, or go elsewhere: another reader has taken the lane for another place.
        while let Some(buffer) = buffers.get_mut(&name) {
            if buffer.front != batch.next {
                break;
            }
            if max_bytes == 0 {
                // One record, to look at: it stays for the reader whose turn it is.
                if let Some((offset, record)) = buffer.records.front() {
                    batch.next = offset + 1;
                    batch.records.push((*offset, record.clone()));
                }
            }
            let had = batch.next;
            let full = max_bytes > 0 && buffer.take(&mut batch, &mut room);
            if batch.next > had {
                taken = Instant::now();
            }
            lane.resume_if_room(buffer, &self.shared, topic, partition)?;
            if full || batch.next >= bounds.end || (max_bytes == 0 && batch.next > from) {
                break;
            }
            // News may be about other partitions, and errors are news too.
            let (since, most) = match batch.records.is_empty() {
                true => (asked, ASK),
                false => (taken, MORE),
            };
            if since.elapsed() < most {
                buffers = self
                    .shared
                    .news
                    .wait_timeout(buffers, most - since.elapsed().min(most))
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            } else if !batch.records.is_empty() {
                break;
            } else {
                // Has retention passed? Is the end still where it was?
                drop(buffers);
                asked = Instant::now();
                bounds = self.bounds(topic, partition)?;
                if from < bounds.start || from > bounds.end {
                    return Ok(Read::Outside(bounds));
                }
                if begin.elapsed() > self.patience {
                    return Err(BusError::Unavailable {
                        action: format!("read {topic}-{partition} from {from}"),
                        reason: "the brokers send nothing".into(),
                    });
                }
                // The consumer may have lost its place.
                if asked.duration_since(begin) >= 2 * ASK {
                    lane.place(&self.shared, topic, partition, from, true)?;
                }
                buffers = lock(&self.shared.buffers);
            }
        }
        if batch.records.is_empty() {
            drop(buffers);
            return self.read(topic, partition, from, max_bytes);
        }
        Ok(Read::Batch(batch))
    }

    /// Waits until one of the partitions has a record at or after its offset.
    pub(super) fn wait(
        &self,
        topic: &str,
        from: &[(u32, Offset)],
        timeout: Duration,
    ) -> Result<bool, BusError> {
        let deadline = Instant::now() + timeout;
        let mut names = Vec::with_capacity(from.len());
        for &(partition, offset) in from {
            let known = self.known(topic, partition);
            if known.is_some_and(|known| known.end > offset)
                || self.bounds(topic, partition)?.end > offset
            {
                return Ok(true);
            }
            let lane = self.at(topic, partition, offset)?;
            names.push((lane.number, (topic.to_owned(), partition), offset));
        }
        let mut asked = Instant::now();
        let mut buffers = lock(&self.shared.buffers);
        loop {
            // A consumer may have lost its place without a word: then nothing comes, and a read puts it right.
            if asked.elapsed() >= ASK {
                drop(buffers);
                for &(partition, offset) in from {
                    if self.bounds(topic, partition)?.end > offset {
                        return Ok(true);
                    }
                }
                asked = Instant::now();
                buffers = lock(&self.shared.buffers);
            }
            let mut grown = names
                .iter()
                .filter_map(|(lane, name, offset)| {
                    let buffer = buffers.get(&(*lane, name.clone()))?;
                    (buffer.back > *offset).then_some((name, buffer))
                })
                .peekable();
            if grown.peek().is_some() {
                let mut ends = lock(&self.shared.ends);
                for (name, buffer) in grown {
                    if let Some(range) = ends.get_mut(name) {
                        range.end = range.end.max(buffer.back);
                    }
                }
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            buffers = self
                .shared
                .news
                .wait_timeout(buffers, left.min(ASK))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Forgets what is read ahead of a partition, so that its consumers fetch it no more.
    pub(super) fn forget(&self, topic: &str, partition: u32) {
        let name = (topic.to_owned(), partition);
        let lanes = lock(&self.lanes).clone();
        for lane in lanes {
            let _turn = lock(&lane.placing);
            let had = lock(&self.shared.buffers).remove(&(lane.number, name.clone()));
            if let Some(buffer) = had {
                lane.unassign(topic, partition, &buffer);
            }
        }
    }

    /// A lane that reads on at an offset of a partition.
    fn at(&self, topic: &str, partition: u32, from: Offset) -> Result<Arc<Lane>, BusError> {
        let name: Name = (topic.to_owned(), partition);
        let mut oldest = (u64::MAX, 0);
        for number in 0..LANES {
            let lane = self.lane(number)?;
            let mut buffers = lock(&self.shared.buffers);
            match buffers.get_mut(&(number, name.clone())) {
                Some(buffer) if (buffer.front..=buffer.back).contains(&from) => {
                    buffer.skip_to(from);
                    lane.resume_if_room(buffer, &self.shared, topic, partition)?;
                    return Ok(lane);
                }
                Some(buffer) => oldest = oldest.min((buffer.used, number)),
                None => {
                    drop(buffers);
                    lane.place(&self.shared, topic, partition, from, false)?;
                    return Ok(lane);
                }
            }
        }
        let lane = self.lane(oldest.1)?;
        lane.place(&self.shared, topic, partition, from, false)?;
        Ok(lane)
    }

    fn lane(&self, number: usize) -> Result<Arc<Lane>, BusError> {
        let mut lanes = lock(&self.lanes);
        while lanes.len() <= number {
            let consumer =
                BaseConsumer::from_config_and_context(&self.config, self.context.clone())
                    .map_err(|e| BusError::Refused(format!("cannot make a Kafka consumer: {e}")))?;
            let lane = Arc::new(Lane {
                number: lanes.len(),
                consumer,
                placing: Mutex::new(()),
                ended: Arc::clone(&self.ended),
            });
            let (runs, shared) = (Arc::clone(&lane), Arc::clone(&self.shared));
            start(format!("kafka-read-{number}"), move || runs.run(&shared))?;
            lanes.push(lane);
        }
        Ok(Arc::clone(&lanes[number]))
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// The answer to a read.
pub(super) enum Read {
    Batch(Batch),
    /// The offset is not there; what is.
    Outside(Range<Offset>),
}

impl Lane {
    /// Takes records from the consumer until the readers are gone.
    fn run(&self, shared: &Shared) {
        while !self.ended.load(Ordering::Relaxed) {
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => self.put(shared, &message),
                Some(Err(error)) => {
                    // Readers look at the bounds when nothing comes: what is to be done follows from there.
                    tracing::debug!(%error, "a read from the brokers failed");
                    shared.news.notify_all();
                }
            }
        }
    }

    fn put(&self, shared: &Shared, message: &BorrowedMessage<'_>) {
        let (topic, partition) = (message.topic(), message.partition());
        let offset = message.offset() as Offset;
        let name = (self.number, (topic.to_owned(), partition as u32));
        let record = record(message);
        let mut buffers = lock(&shared.buffers);
        let Some(buffer) = buffers.get_mut(&name) else {
            return;
        };
        // Offsets have no gaps: what does not fit was on its way before the place changed.
        if offset != buffer.back {
            return;
        }
        buffer.back = offset + 1;
        buffer.bytes += record.key.len() + record.value.len();
        buffer.records.push_back((offset, record));
        let first = buffer.records.len() == 1;
        if buffer.bytes > shared.limit && !buffer.paused {
            buffer.paused = self
                .consumer
                .pause(&list(topic, partition as u32))
                .inspect_err(|error| tracing::warn!(%error, "a partition cannot be paused"))
                .is_ok();
        }
        drop(buffers);
        if first {
            shared.news.notify_all();
        }
    }

    /// Begins to read a partition at an offset.
    fn place(
        &self,
        shared: &Shared,
        topic: &str,
        partition: u32,
        from: Offset,
        again: bool,
    ) -> Result<(), BusError> {
        let name = (self.number, (topic.to_owned(), partition));
        let failed = |e: KafkaError| unavailable(format!("read {topic}-{partition}"), &e);
        let _turn = lock(&self.placing);
        // Without a buffer, nothing that is on its way is taken for what is asked for.
        let had = lock(&shared.buffers).remove(&name);
        if let Some(buffer) = had.as_ref().filter(|_| again) {
            self.unassign(topic, partition, buffer);
        }
        let at = rdkafka::Offset::Offset(from as i64);
        let put = || {
            let mut buffers = lock(&shared.buffers);
            let used = 1 + buffers.values().map(|b| b.used).max().unwrap_or(0);
            let buffer = Buffer {
                front: from,
                back: from,
                used,
                ..Buffer::default()
            };
            buffers.insert(name.clone(), buffer);
        };
        match had {
            Some(buffer) if !again => {
                put();
                self.consumer
                    .seek(topic, partition as i32, at, SEEK)
                    .map_err(failed)?;
                if buffer.paused {
                    self.consumer
                        .resume(&list(topic, partition))
                        .map_err(failed)?;
                }
                Ok(())
            }
            _ => {
                // So that the consumer knows where to read at once, and not when it next looks for new topics.
                self.consumer
                    .fetch_metadata(Some(topic), SEEK)
                    .map_err(failed)?;
                let mut one = TopicPartitionList::new();
                one.add_partition_offset(topic, partition as i32, at)
                    .map_err(failed)?;
                put();
                self.consumer.incremental_assign(&one).map_err(failed)
            }
        }
    }
}

impl Lane {
    /// Goes on reading a partition whose buffer has room again.
    fn resume_if_room(
        &self,
        buffer: &mut Buffer,
        shared: &Shared,
        topic: &str,
        partition: u32,
    ) -> Result<(), BusError> {
        if buffer.paused && buffer.bytes <= shared.limit / 2 {
            buffer.paused = false;
            self.consumer
                .resume(&list(topic, partition))
                .map_err(|e| unavailable(format!("read {topic}-{partition}"), &e))?;
        }
        Ok(())
    }

    /// Reads a partition no more. A pause would outlive it.
    fn unassign(&self, topic: &str, partition: u32, buffer: &Buffer) {
        let one = list(topic, partition);
        let gone = match buffer.paused {
            true => self.consumer.resume(&one),
            false => Ok(()),
        }
        .and_then(|()| self.consumer.incremental_unassign(&one));
        if let Err(error) = gone {
            tracing::debug!(topic, partition, %error, "a partition stays with its reader");
        }
    }
}

impl Buffer {
    /// Lets go of what lies before an offset.
    fn skip_to(&mut self, from: Offset) {
        while let Some((_, record)) = self.records.front().filter(|(offset, _)| *offset < from) {
            self.bytes -= record.key.len() + record.value.len();
            self.records.pop_front();
        }
        self.front = from;
    }

    /// Moves records to the batch as far as there is room; tells whether there is no more.
    fn take(&mut self, batch: &mut Batch, room: &mut usize) -> bool {
        while let Some((offset, record)) = self.records.front() {
            let size = record.key.len() + record.value.len();
            if size > *room && !batch.records.is_empty() {
                return true;
            }
            *room = room.saturating_sub(size);
            self.bytes -= size;
            self.front = offset + 1;
            batch.next = self.front;
            batch.records.extend(self.records.pop_front());
        }
        false
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let time = message
        .headers()
        .and_then(|headers| headers.iter().find(|h| h.key == TIME_HEADER))
        .and_then(|header| header.value?.try_into().ok())
        .map(i64::from_be_bytes);
    let bytes = |part: Option<&[u8]>| Bytes::copy_from_slice(part.unwrap_or_default());
    Record {
        key: bytes(message.key()),
        value: bytes(message.payload()),
        // Somebody else's record: Kafka's time.
        time: Time(time.unwrap_or_else(|| {
            message
                .timestamp()
                .to_millis()
                .unwrap_or(0)
                .saturating_mul(1_000)
        })),
    }
}

/// Is it a matter of moments, as when a partition changes its leader?
fn passes(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::OffsetNotAvailable
                | RDKafkaErrorCode::FencedLeaderEpoch
                | RDKafkaErrorCode::UnknownLeaderEpoch
                | RDKafkaErrorCode::NetworkException
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::BrokerDestroy
                | RDKafkaErrorCode::DestroyBroker
                // Said from memory, perhaps of a moment when the partition had no leader.
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::OperationTimedOut
        )
    )
}

fn start(name: String, work: impl FnOnce() + Send + 'static) -> Result<(), BusError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map(drop)
        .map_err(|source| BusError::Io {
            action: "start a thread for",
            path: "reading from Kafka".into(),
            source,
        })
}

/// One partition as librdkafka wants to have it.
pub(super) fn list(topic: &str, partition: u32) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition as i32);
    list
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
