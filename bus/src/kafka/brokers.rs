//! Everything that talks to the brokers, together.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{Context, Numbers, unavailable};
use super::config::Options;
use super::producer::Producer;
use super::reader::Readers;
use crate::{BusError, Offset, Topic};

const NO_TOKENS: &str = "the client library administers nothing with tokens of token_file or token_command; let it get them \
    itself (`sasl.oauthbearer.method: oidc` under bus.kafka.properties)";

/// Producer, readers and administration of one installation.
pub(super) struct Brokers {
    pub(super) producer: Producer,
    pub(super) readers: Readers,
    pub(super) numbers: Arc<Numbers>,
    pub(super) patience: Duration,
    /// How long a changelog gets at least before a snapshot is written.
    pub(super) snapshot_bytes: u64,
    names: Vec<String>,
    admin: AdminClient<Context>,
    can_administer: bool,
    ids: AtomicU64,
}

impl Brokers {
    pub(super) fn open(options: &Options, snapshot_bytes: u64) -> Result<Brokers, BusError> {
        let numbers = Arc::new(Numbers::default());
        let context = Context::new(Arc::clone(&numbers), options.sasl.clone());
        let config = options.client()?;
        let patience = Duration::from_secs(u64::from(options.patience_seconds));
        let is_set = |name: &str| options.properties.contains_key(name);
        let admin = AdminClient::from_config_and_context(&config, context.clone())
            .map_err(|e| BusError::Refused(format!("cannot make a Kafka client: {e}")))?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|e| BusError::State(format!("the system has no random numbers: {e}")))?;
        Ok(Brokers {
            producer: Producer::new(config.clone(), context.clone(), patience, is_set)?,
            readers: Readers::new(
                config,
                context,
                patience,
                (options.read_ahead_mib as usize) << 20,
                is_set,
            )?,
            numbers,
            patience,
            snapshot_bytes,
            names: Topic::ALL.map(|t| options.name(t.as_str())).into(),
            admin,
            can_administer: options.can_administer(),
            ids: AtomicU64::new(u64::from_le_bytes(seed)),
        })
    }

    /// The name of a topic on the brokers.
    pub(super) fn topic(&self, topic: Topic) -> &str {
        &self.names[topic as usize]
    }

    /// A number that no delta or snapshot has had: not 0, and small enough for SQLite.
    pub(super) fn fresh_id(&self) -> u64 {
        let n = self.ids.fetch_add(1, Ordering::Relaxed);
        // A bijection (splitmix64), so that numbers of one process never meet, and those of two only by chance.
        let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((n ^ n >> 31) >> 1).max(1)
    }

    /// Deletes what lies before offsets. Where that is not allowed, the brokers' own retention has to do.
    pub(super) fn drop_before_all(&self, offsets: &TopicPartitionList) -> Result<(), BusError> {
        if !self.can_administer {
            tracing::warn!("old records are left to the brokers' retention: {NO_TOKENS}");
            return Ok(());
        }
        let options = AdminOptions::new().request_timeout(Some(self.patience));
        let failed = |e: &KafkaError| unavailable("delete old records", e);
        let done =
            block_on(self.admin.delete_records(offsets, &options))?.map_err(|e| failed(&e))?;
        for element in done.elements() {
            match element.error() {
                Ok(()) => {}
                Err(error)
                    if error.rdkafka_error_code()
                        == Some(RDKafkaErrorCode::TopicAuthorizationFailed) =>
                {
                    tracing::debug!(
                        topic = element.topic(),
                        "old records are left to the brokers' retention"
                    );
                }
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(())
    }

    pub(super) fn drop_before(
        &self,
        topic: &str,
        partition: u32,
        offset: Offset,
    ) -> Result<(), BusError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            topic,
            partition as i32,
            rdkafka::Offset::Offset(offset as i64),
        )
        .map_err(|e| unavailable("delete old records", &e))?;
        self.drop_before_all(&list)
    }

    /// For each partition of a topic, the first offset with a time at or after one (milliseconds), or the end.
    pub(super) fn offsets_at(
        &self,
        topic: &str,
        partitions: u32,
        millis: i64,
    ) -> Result<TopicPartitionList, BusError> {
        let failed = |e: KafkaError| unavailable(format!("look up times in `{topic}`"), &e);
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition as i32, rdkafka::Offset::Offset(millis))
                .map_err(failed)?;
        }
        self.readers
            .client()
            .offsets_for_times(list, self.patience)
            .map_err(failed)
    }

    /// One past the last offset of every partition: in one question, or partition by partition where a leader is not
    /// where it was.
    pub(super) fn ends(&self, topic: &str, partitions: u32) -> Result<Vec<Offset>, BusError> {
        self.ends_at_once(topic, partitions).or_else(|_| {
            (0..partitions)
                .map(|partition| Ok(self.readers.bounds(topic, partition)?.end))
                .collect()
        })
    }

    fn ends_at_once(&self, topic: &str, partitions: u32) -> Result<Vec<Offset>, BusError> {
        /// How long the one question may take.
        const QUICK: Duration = Duration::from_secs(2);
        /// The time that stands for the end in Kafka's ListOffsets.
        const LATEST: i64 = -1;
        let failed = |e: KafkaError| unavailable(format!("ask where `{topic}` ends"), &e);
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            let at = rdkafka::Offset::from_raw(LATEST);
            list.add_partition_offset(topic, partition as i32, at)
                .map_err(failed)?;
        }
        let found = self
            .readers
            .client()
            .offsets_for_times(list, QUICK.min(self.patience))
            .map_err(failed)?;
        let mut ends = vec![0; partitions as usize];
        for element in found.elements() {
            element.error().map_err(failed)?;
            let rdkafka::Offset::Offset(end) = element.offset() else {
                return Err(BusError::Unavailable {
                    action: format!("ask where `{topic}` ends"),
                    reason: format!("partition {} has no answer", element.partition()),
                });
            };
            ends[element.partition() as usize] = end.max(0) as Offset;
        }
        Ok(ends)
    }

    /// All topics that can be seen: how many partitions each has, and on how many brokers these are at least.
    pub(super) fn topics(&self) -> Result<HashMap<String, (u32, u16)>, BusError> {
        let metadata = self
            .readers
            .client()
            .fetch_metadata(None, self.patience)
            .map_err(|e| self.explain(unavailable("ask the brokers for their topics", &e)))?;
        let topics = metadata
            .topics()
            .iter()
            .filter(|t| t.error().is_none() && !t.partitions().is_empty());
        Ok(topics
            .map(|t| {
                let copies = t.partitions().iter().map(|p| p.replicas().len() as u16);
                let found = (t.partitions().len() as u32, copies.min().unwrap_or(0));
                (t.name().to_owned(), found)
            })
            .collect())
    }

    /// Adds to an error why the brokers cannot be had, as far as that is known.
    pub(super) fn explain(&self, error: BusError) -> BusError {
        self.admin.inner().context().explain(error)
    }

    /// The client for topics and their settings.
    pub(super) fn administration(&self) -> Result<&AdminClient<Context>, BusError> {
        if !self.can_administer {
            return Err(BusError::Refused(format!(
                "cannot ask for topics and their settings: {NO_TOKENS}, or use the brokers' own tools"
            )));
        }
        Ok(&self.admin)
    }
}

impl Readers {
    /// The bounds of a partition, asked only where what is known does not reach from `from` to `to`.
    pub(super) fn bounds_for(
        &self,
        topic: &str,
        partition: u32,
        from: Offset,
        to: Offset,
    ) -> Result<Range<Offset>, BusError> {
        match self.known(topic, partition) {
            Some(known) if known.start <= from && to <= known.end => Ok(known),
            _ => self.bounds(topic, partition),
        }
    }
}

/// Waits for an answer of the administration client.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, BusError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|source| BusError::Io {
            action: "wait for",
            path: "the brokers".into(),
            source,
        })?;
    Ok(runtime.block_on(work))
}
