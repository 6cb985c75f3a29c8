//! One shard of a stream: read from its checkpoint on, appended, remembered.
//!
//! [`Reader::shard`] asks with GetRecords until the shard is closed and read to its end, or until told to stop. A
//! checkpoint is written after the events of a batch are durable; a process that dies in between reads the batch again,
//! and the ids of its events make that harmless. Records that the producer
//! library has put together are taken apart ([`aggregated`]). Iterators expire after five minutes and are then asked for anew. What
//! the stream has dropped before it was read is said with the time that it spans.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::get_records::{GetRecordsError, GetRecordsOutput};
use aws_sdk_kinesis::operation::get_shard_iterator::GetShardIteratorError;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{Record, ShardIteratorType};
use bus::{BusError, Commit, StateChange};
use event::{Str, Time, format_compact};
use tokio::sync::Semaphore;
use tokio::task::block_in_place;

use super::order::{Checkpoint, Listed};
use super::{CONSUMER, Stream, aggregated};
use crate::append::Appender;
use crate::aws;
use crate::dead_letter::DeadLetter;
use crate::decode::{Bad, Decoder, Item, Job, Limits, Reason};
use crate::normalize::{Context, Normalizer};
use crate::source::object::Shop;
use crate::source::patience::{Said, breath};
use crate::source::s3::Trouble;
use crate::status::{Failure, Post};

/// What stands for this source in metrics.
const SOURCE: &str = "kinesis";

/// A shard answers five calls a second, to all of its readers together.
const BEHIND: Duration = Duration::from_millis(250);

/// How long it rests where there is nothing new.
const IDLE: Duration = Duration::from_secs(1);

/// A checkpoint without records is renewed so often.
const RENEWED_MICROS: i64 = 60 * 1_000_000;

/// How long checkpoints are kept after their last change; ten years, as for files and objects.
const REMEMBERED_MICROS: i64 = 10 * 366 * 86_400 * 1_000_000;

/// What reads the shards of one stream.
pub(super) struct Reader {
    pub(super) client: Client,
    pub(super) stream: Stream,
    pub(super) shop: Shop,
    /// The stream with its region, and its account where that is known.
    pub(super) identity: String,
    /// How many shards may have a batch in hand.
    pub(super) hands: Semaphore,
    /// How long the stream keeps a record, in microseconds; 0 where nobody may ask.
    pub(super) retention: AtomicI64,
    /// How far each shard is ahead of what was read of it, in milliseconds.
    pub(super) behind: Mutex<BTreeMap<String, i64>>,
    pub(super) said: Said,
}

/// What a batch has shown.
enum Step {
    /// There is more already.
    Behind,
    /// That was all for now.
    Idle,
    /// The shard is closed, and that was all.
    End,
}

/// A shard that is being read.
struct Reading<'l> {
    listed: &'l Listed,
    checkpoint: Checkpoint,
    iterator: Option<String>,
    /// When the checkpoint was written.
    written: Time,
    /// Was it said already what the stream has dropped?
    told: bool,
    decoder: Decoder,
    normalizer: Normalizer,
}

impl<'l> Reading<'l> {
    fn new(listed: &'l Listed, known: Option<Checkpoint>, limits: Limits) -> Reading<'l> {
        Reading {
            listed,
            checkpoint: known.unwrap_or_else(|| Checkpoint {
                starting: listed.starting.clone(),
                ..Checkpoint::default()
            }),
            iterator: None,
            written: Time::MIN,
            told: false,
            decoder: Decoder::new(limits),
            normalizer: Normalizer::new(),
        }
    }
}

impl Reader {
    /// Reads a shard until its end or until told to stop. Gives its last checkpoint.
    pub(super) async fn shard(&self, listed: &Listed, known: Option<Checkpoint>) -> Checkpoint {
        let stop = &self.shop.stop;
        let mut reading = Reading::new(listed, known, self.shop.limits);
        let mut failures = 0;
        while !stop.is_stopped() {
            let Some(Ok(hand)) = aws::unless_stopped(self.hands.acquire(), stop).await else {
                break;
            };
            let step = self.step(&mut reading).await;
            drop(hand);
            let wait = match step {
                Ok(Step::End) => break,
                Ok(step) => {
                    failures = 0;
                    if self.said.mended(&listed.id) {
                        tracing::info!(
                            stream = self.stream.name(),
                            shard = listed.id,
                            "read again"
                        );
                    }
                    if matches!(step, Step::Idle) {
                        IDLE
                    } else {
                        BEHIND
                    }
                }
                Err(trouble) => {
                    failures += 1;
                    self.complain(&listed.id, "read a shard", &trouble);
                    // The stream goes on while it cannot be read.
                    let read_to = reading.checkpoint.read_to;
                    if read_to != Time::default() {
                        let behind = (self.shop.clock)().0 - read_to.0;
                        self.tell_lag(&listed.id, behind / 1_000);
                    }
                    breath(failures)
                }
            };
            aws::rest(wait, stop).await;
        }
        self.forget_lag(&listed.id);
        self.post().well(&listed.id, 0, (self.shop.clock)());
        let at = &reading.checkpoint;
        if !at.finished && at.read_to != Time::default() {
            // An older one is as good, but tells less of what was read.
            if let Err(error) = block_in_place(|| self.remember(&listed.id, at)) {
                tracing::warn!(shard = listed.id, %error, "the last checkpoint is not renewed");
            }
        }
        reading.checkpoint
    }

    /// One batch.
    async fn step(&self, reading: &mut Reading<'_>) -> Result<Step, Trouble> {
        let iterator = match &reading.iterator {
            Some(iterator) => iterator.clone(),
            None => {
                let iterator = self.open(reading).await?;
                reading.iterator = Some(iterator.clone());
                iterator
            }
        };
        let asked = (self.shop.clock)();
        let call = self.client.get_records().shard_iterator(iterator);
        let call = call.set_stream_arn(self.stream.arn()).send();
        let answer = aws::unless_stopped(call, &self.shop.stop).await;
        let answer = match answer.ok_or(Trouble::Stopped)? {
            Ok(answer) => answer,
            Err(error) => {
                let of_iterator = error.as_service_error().is_some_and(|e| {
                    e.is_expired_iterator_exception() || e.is_invalid_argument_exception()
                });
                if of_iterator {
                    reading.iterator = None;
                }
                if matches!(
                    error.as_service_error(),
                    Some(GetRecordsError::ExpiredIteratorException(_))
                ) {
                    tracing::warn!(
                        shard = reading.listed.id,
                        "an iterator has expired, another is asked for"
                    );
                    return Ok(Step::Behind);
                }
                return Err(self.trouble(&reading.listed.id, &error));
            }
        };
        block_in_place(|| self.take(reading, answer, asked))
    }

    /// Appends a batch that was asked for at this time, and then remembers how far the shard was read.
    fn take(
        &self,
        reading: &mut Reading<'_>,
        answer: GetRecordsOutput,
        now: Time,
    ) -> Result<Step, Trouble> {
        reading.told = false;
        self.append(reading, answer.records(), now)?;
        let post = self.post();
        post.well("", 0, now);
        post.well(&reading.listed.id, answer.records().len() as u64, now);
        let behind = answer.millis_behind_latest().unwrap_or_default().max(0);
        self.tell_lag(&reading.listed.id, behind);
        let last = answer.records().last();
        let mut checkpoint = reading.checkpoint.clone();
        if let Some(last) = last {
            last.sequence_number().clone_into(&mut checkpoint.sequence);
        }
        checkpoint.read_to = checkpoint.read_to.max(now.plus(-behind * 1_000));
        checkpoint.finished = answer.next_shard_iterator().is_none();
        if last.is_some() || checkpoint.finished || now.0 - reading.written.0 >= RENEWED_MICROS {
            self.remember(&reading.listed.id, &checkpoint)?;
            reading.written = now;
        }
        let step = match (checkpoint.finished, last.is_some() || behind > 0) {
            (true, _) => Step::End,
            (false, true) => Step::Behind,
            (false, false) => Step::Idle,
        };
        reading.checkpoint = checkpoint;
        reading.iterator = answer.next_shard_iterator;
        Ok(step)
    }

    /// An iterator that begins after the checkpoint. What the stream has dropped meanwhile is said, and reading goes on
    /// with the oldest record that is left.
    async fn open(&self, reading: &mut Reading<'_>) -> Result<String, Trouble> {
        let (listed, checkpoint) = (reading.listed, &mut reading.checkpoint);
        let retention = self.retention.load(Ordering::Relaxed);
        let dropped = checkpoint.dropped_until(retention, (self.shop.clock)());
        if dropped.is_some() && !reading.told {
            self.lost(&listed.id, checkpoint.read_to, dropped);
            reading.told = true;
        }
        if !checkpoint.sequence.is_empty() {
            let after = Some(checkpoint.sequence.as_str());
            match self.iterator(listed, after).await {
                Err(Failed::Call(error)) if is_refused(&error) => {
                    let trouble = self.trouble(&listed.id, &error);
                    tracing::warn!(
                        error = &trouble as &dyn std::error::Error,
                        "a checkpoint is not taken"
                    );
                    if !reading.told {
                        self.lost(&listed.id, checkpoint.read_to, None);
                        reading.told = true;
                    }
                    checkpoint.sequence.clear();
                }
                Err(failed) => return Err(self.failed(listed, failed)),
                Ok(iterator) => return Ok(iterator),
            }
        }
        let iterator = self.iterator(listed, None).await;
        iterator.map_err(|failed| self.failed(listed, failed))
    }

    async fn iterator(&self, listed: &Listed, after: Option<&str>) -> Result<String, Failed> {
        let from = Time::parse(&self.stream.from).ok();
        let (kind, time) = match (after, from) {
            (Some(_), _) => (ShardIteratorType::AfterSequenceNumber, None),
            (None, Some(from)) => (ShardIteratorType::AtTimestamp, Some(from)),
            (None, None) => (ShardIteratorType::TrimHorizon, None),
        };
        let call = self
            .client
            .get_shard_iterator()
            .set_stream_arn(self.stream.arn())
            .set_stream_name(self.stream.bare())
            .shard_id(&listed.id)
            .shard_iterator_type(kind)
            .set_starting_sequence_number(after.map(str::to_owned))
            .set_timestamp(time.map(|t| DateTime::from_millis(t.millis())))
            .send();
        let answer = aws::unless_stopped(call, &self.shop.stop).await;
        let answer = answer.ok_or(Failed::Stopped)?;
        let answer = answer.map_err(|error| Failed::Call(Box::new(error)))?;
        Ok(answer.shard_iterator.unwrap_or_default())
    }

    fn failed(&self, listed: &Listed, failed: Failed) -> Trouble {
        match failed {
            Failed::Stopped => Trouble::Stopped,
            Failed::Call(error) => self.trouble(&listed.id, &error),
        }
    }

    /// Appends the records of a batch. On `Ok` all of them are durable.
    fn append(
        &self,
        reading: &mut Reading<'_>,
        records: &[Record],
        now: Time,
    ) -> Result<(), BusError> {
        if records.is_empty() {
            return Ok(());
        }
        let metrics = &self.shop.metrics;
        let mut appender = Appender::new(&*self.shop.bus, metrics, &self.shop.treatment, SOURCE);
        let shard = format_compact!("kinesis://{}/{}", self.identity, reading.listed.id);
        for record in records {
            let data = record.data().as_ref();
            let object = format_compact!("{shard}/{}", record.sequence_number());
            let flow = match aggregated::read(data) {
                None => self.append_one(reading, &mut appender, data, object, now),
                Some(Err(malformed)) => {
                    let message = malformed.to_string();
                    let bad = Bad::whole(Reason::CorruptAggregate, &message, data);
                    appender.letter(DeadLetter::of(&bad, &object, now))
                }
                Some(Ok(users)) => users.into_iter().enumerate().try_for_each(|(n, data)| {
                    let object = format_compact!("{object}/{n}");
                    self.append_one(reading, &mut appender, data, object, now)
                }),
            };
            if flow.is_break() {
                break;
            }
        }
        // A failure that stopped the decoder comes out here.
        appender.finish()?;
        let took = (self.shop.clock)().0 - now.0;
        metrics.seconds.observe(took as f64 / 1e6);
        Ok(())
    }

    /// Takes one record: of the stream, or of those that the producer library has put together.
    fn append_one(
        &self,
        reading: &mut Reading<'_>,
        appender: &mut Appender<'_>,
        data: &[u8],
        object: Str,
        now: Time,
    ) -> ControlFlow<()> {
        let metrics = &self.shop.metrics;
        if data.is_empty() {
            let dropped = &metrics.events_dropped;
            dropped.with_label_values(&["empty_record"]).inc();
            return ControlFlow::Continue(());
        }
        let context = Context {
            ingest_time: now,
            object,
            keep_raw: true,
        };
        let normalizer = &mut reading.normalizer;
        let summary = reading
            .decoder
            .bytes(data, &Job::default(), &mut |item| match item {
                Item::Record(record) => appender.record(normalizer, &record, &context),
                Item::Bad(bad) => appender.letter(DeadLetter::of(&bad, &context.object, now)),
            });
        metrics.count_dropped(&summary);
        match summary.stopped {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    pub(super) fn remember(&self, shard: &str, checkpoint: &Checkpoint) -> Result<(), BusError> {
        self.shop.bus.commit(Commit {
            consumer: CONSUMER.to_owned(),
            state: vec![StateChange {
                partition: 0,
                key: [self.prefix().as_slice(), shard.as_bytes()].concat(),
                value: Some(
                    serde_json::to_vec(checkpoint).expect("a checkpoint has only text keys"),
                ),
                expires: Some((self.shop.clock)().plus(REMEMBERED_MICROS)),
            }],
            ..Commit::default()
        })
    }

    /// What the keys of all checkpoints of the stream begin with.
    pub(super) fn prefix(&self) -> Vec<u8> {
        format!("shard/{}/", self.identity).into_bytes()
    }

    /// Says that the stream has dropped what was not read.
    pub(super) fn lost(&self, shard: &str, from: Time, to: Option<Time>) {
        let errors = &self.shop.metrics.errors;
        errors.with_label_values(&["trimmed"]).inc();
        let until = to.map_or("the oldest record that is left".to_owned(), |t| {
            t.to_string()
        });
        tracing::error!(
            stream = self.stream.name(),
            shard,
            from = %from,
            until,
            hint = "read what else holds that time (a backfill of the log groups, S3); keep records longer in the stream",
            "the stream has dropped records before they were read: what arrived in this time may be lost, reading goes on behind it"
        );
    }

    fn tell_lag(&self, shard: &str, millis: i64) {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        behind.insert(shard.to_owned(), millis);
        self.show_lag(&behind);
    }

    fn forget_lag(&self, shard: &str) {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        behind.remove(shard);
        self.show_lag(&behind);
    }

    fn show_lag(&self, behind: &BTreeMap<String, i64>) {
        let slowest = behind.values().max().copied().unwrap_or_default();
        let gauge = &self.shop.metrics.stream_lag;
        gauge
            .with_label_values(&[self.stream.name()])
            .set(slowest / 1_000);
    }

    fn trouble<E>(&self, shard: &str, error: &SdkError<E>) -> Trouble
    where
        E: aws_sdk_kinesis::error::ProvideErrorMetadata + std::error::Error + 'static,
    {
        Trouble::of(format!("{} of stream {}", shard, self.stream.name()), error)
    }

    /// Where it is said how the stream is read.
    fn post(&self) -> Post {
        let collectors = &self.shop.metrics.collectors;
        collectors.post("stream", self.stream.name())
    }

    pub(super) fn complain(&self, about: &str, action: &str, trouble: &Trouble) {
        if matches!(trouble, Trouble::Stopped) {
            return;
        }
        let errors = &self.shop.metrics.errors;
        errors.with_label_values(&[trouble.kind()]).inc();
        // All shards of a stream have the same owner and the same key.
        let about = if trouble.is_of_all() { "" } else { about };
        let now = (self.shop.clock)();
        self.post().failed(about, Failure::of(trouble), now);
        if !self.said.is_new(about, trouble.kind(), now) {
            return;
        }
        if trouble.passes() {
            tracing::warn!(
                stream = self.stream.name(),
                error = trouble as &dyn std::error::Error,
                hint = trouble.hint(),
                "cannot {action}, tried again"
            );
        } else {
            tracing::error!(
                stream = self.stream.name(),
                error = trouble as &dyn std::error::Error,
                hint = trouble.hint(),
                "cannot {action}, tried again"
            );
        }
    }
}

/// Why there is no iterator.
enum Failed {
    Stopped,
    Call(Box<SdkError<GetShardIteratorError>>),
}

/// Is the sequence number not one of the shard, or not any more?
fn is_refused(error: &SdkError<GetShardIteratorError>) -> bool {
    error
        .as_service_error()
        .is_some_and(GetShardIteratorError::is_invalid_argument_exception)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aws_sdk_kinesis::config::{BehaviorVersion, Config};
    use aws_sdk_kinesis::primitives::Blob;
    use bus::{Bus, Topic};

    use super::*;
    use crate::source::files::tests::{Dying, shop};

    const NOW: Time = Time(1_772_452_800_000_000);

    /// A reader that calls nobody.
    fn reader(bus: Arc<Dying>) -> Reader {
        let config = Config::builder().behavior_version(BehaviorVersion::latest());
        Reader {
            client: Client::from_conf(config.build()),
            stream: Stream::default(),
            shop: shop(bus, NOW),
            identity: "eu-west-1/logs".to_owned(),
            hands: Semaphore::new(1),
            retention: AtomicI64::new(0),
            behind: Mutex::default(),
            said: Said::default(),
        }
    }

    fn batch(from: usize, next: Option<&str>) -> GetRecordsOutput {
        let record = |n: usize| {
            let content = match n % 3 {
                2 => b"rubbish".to_vec(),
                _ => format!("{{\"n\":{n}}}").into_bytes(),
            };
            let record = Record::builder()
                .sequence_number(format!("{n:056}"))
                .partition_key("k");
            record.data(Blob::new(content)).build().unwrap()
        };
        let records = (from..from + 3).map(record).collect();
        let answer = GetRecordsOutput::builder()
            .set_records(Some(records))
            .millis_behind_latest(1_000)
            .set_next_shard_iterator(next.map(str::to_owned));
        answer.build().unwrap()
    }

    #[test]
    fn a_checkpoint_stands_only_for_what_is_durable() {
        let listed = Listed {
            id: "shardId-0".to_owned(),
            parents: Vec::new(),
            starting: "1".to_owned(),
        };
        // Events, a letter and the checkpoint are three writes of each batch.
        for writes in 0..=6 {
            let folder = tempfile::tempdir().unwrap();
            let dying = Dying::after(folder.path(), writes);
            let reader = reader(Arc::clone(&dying));
            let mut reading = Reading::new(&listed, None, reader.shop.limits);
            let first = reader.take(&mut reading, batch(0, Some("next")), NOW);
            let second = first.and_then(|_| reader.take(&mut reading, batch(3, None), NOW));
            assert_eq!(second.is_err(), writes < 6, "{writes} writes");

            let key = [reader.prefix().as_slice(), listed.id.as_bytes()].concat();
            let known = dying.state_get(CONSUMER, 0, &[key]).unwrap().remove(0);
            let known: Option<Checkpoint> = known.map(|v| serde_json::from_slice(&v).unwrap());
            let sequence = known.as_ref().map(|c| c.sequence.parse::<usize>().unwrap());
            let expected = match writes {
                0..3 => None,
                3..6 => Some(2),
                _ => Some(5),
            };
            assert_eq!(sequence, expected, "{writes} writes");
            assert_eq!(known == Some(reading.checkpoint.clone()), writes >= 3);
            assert_eq!(reading.checkpoint.finished, writes == 6);
            let mut on_log = 0;
            for partition in 0..dying.partitions(Topic::Events) {
                on_log += dying.bounds(Topic::Events, partition).unwrap().end;
            }
            let needed =
                sequence.map_or(0, |last| (0..=last as u64).filter(|n| n % 3 != 2).count());
            assert!(on_log >= needed as u64, "{writes} writes: {on_log}");
        }
    }

    #[test]
    fn what_the_producer_library_has_put_together_is_taken_apart() {
        let user = |data: &[u8]| (0, None, data.to_vec(), Vec::new());
        let together = aggregated::tests::aggregate(
            &["k".to_owned()],
            &[user(b"{\"n\":0}"), user(b""), user(b"{\"n\":2}\n{\"n\":3}")],
        );
        // Its checksum holds, and its only record has no end.
        let malformed = aggregated::tests::sealed(b"\x1a\x7f");
        // Its checksum does not hold: an ordinary record, in which nothing can be read.
        let mut damaged = aggregated::tests::aggregate(&[], &[user(b"{\"n\":5}")]);
        *damaged.last_mut().unwrap() ^= 1;
        let contents = [together, malformed, damaged, b"{\"n\":4}".to_vec()];
        let records: Vec<Record> = (1..)
            .zip(contents)
            .map(|(n, data)| {
                let record = Record::builder().sequence_number(n.to_string());
                let record = record.partition_key("k").data(Blob::new(data));
                record.build().unwrap()
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let bus = Dying::after(folder.path(), i64::MAX);
        let reader = reader(Arc::clone(&bus));
        let listed = Listed {
            id: "shardId-0".to_owned(),
            parents: Vec::new(),
            starting: "1".to_owned(),
        };
        // Twice, as after a stop between events and checkpoint.
        for _ in 0..2 {
            let mut reading = Reading::new(&listed, None, reader.shop.limits);
            reader.append(&mut reading, &records, NOW).unwrap();
        }
        let read = |topic| {
            let mut all = Vec::new();
            for partition in 0..bus.partitions(topic) {
                all.extend(bus.read(topic, partition, 0, 1 << 20).unwrap().records);
            }
            all.into_iter().map(|(_, record)| record.value)
        };
        let mut events: Vec<_> = read(Topic::Events)
            .map(|value| event::Event::decode(&value).unwrap())
            .map(|e| (e.origin.object.to_string(), e.origin.position, e.id))
            .collect();
        assert_eq!(events.len(), 8);
        events.sort_unstable();
        events.dedup();
        let at: Vec<(&str, u64)> = events.iter().map(|e| (e.0.as_str(), e.1)).collect();
        let base = "kinesis://eu-west-1/logs/shardId-0";
        let (first, third, plain) = (
            format!("{base}/1/0"),
            format!("{base}/1/2"),
            format!("{base}/4"),
        );
        assert_eq!(at, [(&*first, 0), (&*third, 0), (&*third, 1), (&*plain, 0)]);
        let letters: std::collections::BTreeSet<_> = read(Topic::DeadLetters)
            .map(|value| serde_json::from_slice::<serde_json::Value>(&value).unwrap())
            .map(|l| (l["object"].to_string(), l["reason"].to_string()))
            .collect();
        let of = |n: &str, reason: &str| (format!("\"{base}/{n}\""), format!("\"{reason}\""));
        let expected = [of("2", "corrupt_aggregate"), of("3", "unknown_object")];
        assert_eq!(letters, expected.into());
        let dropped = &reader.shop.metrics.events_dropped;
        assert_eq!(dropped.with_label_values(&["empty_record"]).get(), 2);
    }
}
