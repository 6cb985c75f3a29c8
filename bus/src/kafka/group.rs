//! Who works on which partition: membership in a consumer group, used for nothing else.
//!
//! A [`Group`] joins a consumer group of the brokers the first time somebody asks for its partitions, and keeps up its
//! membership on a thread of its own. Its partitions stay paused: records are read by `reader` from positions that the
//! group knows nothing of. Assignment is a hint about who should work, not a right: two members may believe for a while
//! that a partition is theirs, and the changelog decides. The group also gets our positions once a second, so that
//! everybody's tools can show the lag; nothing of ours reads them but for showing it.
//!
//! A stage that hangs would keep its partitions for ever, since the membership is kept up elsewhere: when nobody has
//! asked for [`HANG`], the membership is let go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientConfig, ClientContext, TopicPartitionList};

use super::client::{Context, unavailable};
use super::reader::lock;
use crate::{BusError, Offset};

/// A stage that has not asked for its partitions for so long is taken to hang.
const HANG: Duration = Duration::from_secs(300);

/// How often positions are told to the brokers.
const TELL: Duration = Duration::from_secs(1);

/// How often positions are told that have not moved: the last word of a partition's owner before may have come after ours.
const TELL_AGAIN: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(100);

/// A consumer group and the topic that its members share.
pub(super) struct Group {
    topic: String,
    consumer: Arc<BaseConsumer<Member>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    joined: AtomicBool,
    ended: AtomicBool,
    assigned: Mutex<BTreeSet<u32>>,
    /// Positions were refused and have to be told again.
    refused: AtomicBool,
    asked: Mutex<Option<Instant>>,
    positions: Mutex<BTreeMap<u32, Offset>>,
}

impl Group {
    pub(super) fn new(
        mut config: ClientConfig,
        context: Context,
        name: &str,
        topic: String,
        session_timeout: Duration,
    ) -> Result<Group, BusError> {
        let millis = session_timeout.as_millis();
        config
            .set("group.id", name)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", millis.to_string())
            .set("heartbeat.interval.ms", (millis / 6).max(200).to_string())
            .set(
                "max.poll.interval.ms",
                (HANG.as_millis() + millis).to_string(),
            )
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Nothing is read here: partitions are paused.
            .set("auto.offset.reset", "latest")
            .set("queued.max.messages.kbytes", "64")
            .set("fetch.message.max.bytes", "1024");
        let shared = Arc::new(Shared::default());
        let member = Member {
            context,
            shared: Arc::clone(&shared),
            group: name.to_owned(),
        };
        let consumer = BaseConsumer::from_config_and_context(&config, member)
            .map_err(|e| BusError::Refused(format!("cannot make a Kafka consumer: {e}")))?;
        Ok(Group {
            topic,
            consumer: Arc::new(consumer),
            shared,
            thread: Mutex::new(None),
        })
    }

    /// The partitions that are this process's at this moment; joins if that has not been done.
    pub(super) fn assigned(&self) -> Result<Vec<u32>, BusError> {
        *lock(&self.shared.asked) = Some(Instant::now());
        self.start()?;
        if !self.shared.joined.swap(true, Ordering::SeqCst) {
            self.consumer
                .subscribe(&[&self.topic])
                .inspect_err(|_| self.shared.joined.store(false, Ordering::SeqCst))
                .map_err(|e| unavailable("join a consumer group", &e))?;
        }
        Ok(lock(&self.shared.assigned).iter().copied().collect())
    }

    /// Is the partition this process's, as far as is known?
    pub(super) fn has(&self, partition: u32) -> bool {
        lock(&self.shared.assigned).contains(&partition)
    }

    /// Takes note of a position, to be told to the brokers.
    pub(super) fn moved(&self, partition: u32, next: Offset) -> Result<(), BusError> {
        lock(&self.shared.positions).insert(partition, next);
        self.start()
    }

    /// The positions that all members have told.
    pub(super) fn told(
        &self,
        partitions: u32,
        patience: Duration,
    ) -> Result<Vec<(u32, Offset)>, BusError> {
        // Who asks must be able to log in, which needs the thread.
        self.start()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.topic, 0, partitions.saturating_sub(1) as i32);
        let found = self
            .consumer
            .committed_offsets(list, patience)
            .map_err(|e| unavailable("ask for positions", &e))?;
        Ok(found
            .elements()
            .iter()
            .filter_map(|e| match e.offset() {
                rdkafka::Offset::Offset(next) => Some((e.partition() as u32, next as Offset)),
                _ => None,
            })
            .collect())
    }

    /// Leaves the group, so that others need not wait for the session to end.
    pub(super) fn leave(&self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = lock(&self.thread).take() {
            let begin = Instant::now();
            while !thread.is_finished() && begin.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn start(&self) -> Result<(), BusError> {
        let mut thread = lock(&self.thread);
        if thread.is_some() || self.shared.ended.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (consumer, shared) = (Arc::clone(&self.consumer), Arc::clone(&self.shared));
        let topic = self.topic.clone();
        let started = std::thread::Builder::new()
            .name("kafka-group".into())
            .spawn(move || run(&consumer, &shared, &topic))
            .map_err(|source| BusError::Io {
                action: "start a thread for",
                path: "a consumer group".into(),
                source,
            })?;
        *thread = Some(started);
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
    }
}

fn run(consumer: &BaseConsumer<Member>, shared: &Shared, topic: &str) {
    let mut told: BTreeMap<u32, Offset> = BTreeMap::new();
    let (mut next, mut again) = (Instant::now() + TELL, Instant::now() + TELL_AGAIN);
    while !shared.ended.load(Ordering::SeqCst) {
        let hangs = lock(&shared.asked).is_some_and(|asked| asked.elapsed() > HANG);
        if hangs && shared.joined.swap(false, Ordering::SeqCst) {
            tracing::error!(topic, "a stage hangs: its partitions go to other nodes");
            consumer.unsubscribe();
        }
        // A record that slipped through before the pause is dropped.
        drop(consumer.poll(POLL));
        if Instant::now() >= next {
            next = Instant::now() + TELL;
            if Instant::now() >= again {
                again = Instant::now() + TELL_AGAIN;
                told.clear();
            }
            tell(consumer, shared, topic, &mut told);
        }
    }
    // To wait for the answer could take for ever; the library is given a moment to send it.
    tell(consumer, shared, topic, &mut told);
    for _ in 0..3 {
        drop(consumer.poll(POLL));
    }
    if shared.joined.swap(false, Ordering::SeqCst) {
        consumer.unsubscribe();
        let begin = Instant::now();
        // The library leaves the group once it has given back what was assigned.
        while !lock(&shared.assigned).is_empty() && begin.elapsed() < Duration::from_secs(3) {
            drop(consumer.poll(POLL));
        }
        for _ in 0..3 {
            drop(consumer.poll(POLL));
        }
    }
}

fn tell(
    consumer: &BaseConsumer<Member>,
    shared: &Shared,
    topic: &str,
    told: &mut BTreeMap<u32, Offset>,
) {
    if shared.refused.swap(false, Ordering::SeqCst) {
        told.clear();
    }
    let positions = lock(&shared.positions).clone();
    let joined = shared.joined.load(Ordering::SeqCst);
    let assigned = lock(&shared.assigned).clone();
    let mut list = TopicPartitionList::new();
    for (partition, next) in positions {
        let ours = !joined || assigned.contains(&partition);
        if ours && told.get(&partition) != Some(&next) {
            let offset = rdkafka::Offset::Offset(next as i64);
            if list
                .add_partition_offset(topic, partition as i32, offset)
                .is_ok()
            {
                told.insert(partition, next);
            }
        }
    }
    if list.count() > 0
        && let Err(error) = consumer.commit(&list, CommitMode::Async)
    {
        tracing::debug!(topic, %error, "positions could not be told to the brokers");
        told.clear();
    }
}

/// The context of a member: that of every client, and what is assigned.
struct Member {
    context: Context,
    shared: Arc<Shared>,
    group: String,
}

impl ClientContext for Member {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        self.context.log(level, fac, log_message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
    fn stats(&self, statistics: Statistics) {
        self.context.stats(statistics);
    }
    fn generate_oauth_token(
        &self,
        config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.context.generate_oauth_token(config)
    }
}

impl ConsumerContext for Member {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(group = self.group, %error, "positions could not be told to the brokers");
            self.shared.refused.store(true, Ordering::SeqCst);
        }
    }

    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.context
            .numbers
            .rebalances
            .fetch_add(1, Ordering::Relaxed);
        if let Rebalance::Revoke(list) = rebalance {
            let mut assigned = lock(&self.shared.assigned);
            for element in list.elements() {
                assigned.remove(&(element.partition() as u32));
            }
            tracing::info!(group = self.group, partitions = ?*assigned, "partitions given back");
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if let Err(error) = consumer.pause(list) {
                    tracing::debug!(%error, "partitions cannot be paused");
                }
                let mut assigned = lock(&self.shared.assigned);
                assigned.extend(list.elements().iter().map(|e| e.partition() as u32));
                tracing::info!(group = self.group, partitions = ?*assigned, "partitions taken");
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => {
                tracing::warn!(group = self.group, %error, "rebalance failed");
            }
        }
    }
}
