//! Data streams of Kinesis.
//!
//! CloudWatch Logs can hand the logs of many accounts to one stream, and applications can write records of their own to
//! it. [`run`] lists the shards of a stream from time to time and has each read that is ready, parents before children:
//! [`order`] says which, [`shard`] reads one. How far each was read is a checkpoint in the state of the bus under
//! [`CONSUMER`], written after the records are durable. A record holds what a file could hold: the payload of a
//! subscription, mostly compressed, or JSON; the decoder tells. A stream belongs to one node: there are no leases
//! between nodes. Contract: Amazon Kinesis Data Streams API Reference.

pub mod aggregated;
mod order;
mod shard;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use bus::BusError;
use event::Time;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::{Id as TaskId, JoinError, JoinSet, block_in_place};

use self::order::{Checkpoint, Listed, gone, ready};
use self::shard::Reader;
use super::object::Shop;
use super::patience::{Said, breath};
use super::s3::Trouble;
use crate::aws::{self, Access};
use crate::config::{ConfigError, within};
use crate::decode::Limits;

/// The consumer name under which checkpoints are kept.
pub const CONSUMER: &str = "ingest/streams";

/// How often shards are listed anew, besides when one has come to its end.
const LIST: Duration = Duration::from_secs(60);

/// A record is at most 10 MiB; what it may hold once it is decompressed.
const RECORD_BYTES: u64 = 64 << 20;

/// A data stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stream {
    /// What it is called in metrics and answers; empty for its own name.
    pub name: String,
    /// Its name, or its ARN.
    pub stream: String,
    /// As whom it is read.
    pub aws: Access,
    /// Read it from this time on (RFC 3339); empty: from its oldest record on.
    pub from: String,
    /// How many of its shards are read at once.
    pub concurrency: usize,
}

impl Default for Stream {
    fn default() -> Stream {
        Stream {
            name: String::new(),
            stream: String::new(),
            aws: Access::default(),
            from: String::new(),
            concurrency: 4,
        }
    }
}

impl Stream {
    /// What it is called.
    pub fn name(&self) -> &str {
        match self.name.as_str() {
            "" => self.own_name(),
            name => name,
        }
    }

    fn own_name(&self) -> &str {
        self.stream.rsplit('/').next().unwrap_or_default()
    }

    /// Its ARN, where it is configured by that.
    fn arn(&self) -> Option<String> {
        self.stream.starts_with("arn:").then(|| self.stream.clone())
    }

    /// Its name, where it is configured by that.
    fn bare(&self) -> Option<String> {
        (!self.stream.starts_with("arn:")).then(|| self.stream.clone())
    }

    /// As configured, else as the ARN says.
    fn access(&self) -> Access {
        let mut access = self.aws.clone();
        let region = self.stream.split(':').nth(3);
        if access.region.is_empty()
            && let Some(region) = region
        {
            region.clone_into(&mut access.region);
        }
        access
    }

    /// What tells it from all others: region, account where the ARN says it, name.
    fn identity(&self, region: &str) -> String {
        match self.stream.split(':').nth(4) {
            Some(account) => format!("{region}/{account}/{}", self.own_name()),
            None => format!("{region}/{}", self.own_name()),
        }
    }

    /// All settings at `place` with which it cannot be read, after those `before`.
    pub(crate) fn check(&self, place: &str, before: &[Stream]) -> Vec<ConfigError> {
        let wrong = |key: &str, value: &str, allowed| ConfigError::Value {
            key: format!("{place}.{key}"),
            value: format!("`{value}`"),
            allowed,
        };
        let is_name = |name: &str| {
            let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            (1..=128).contains(&name.len()) && name.chars().all(good)
        };
        let is_good = match self.stream.strip_prefix("arn:") {
            None => is_name(&self.stream),
            Some(arn) => {
                let parts: Vec<&str> = arn.split(':').collect();
                let stream = parts.last().and_then(|p| p.strip_prefix("stream/"));
                parts.len() == 5 && parts[1] == "kinesis" && stream.is_some_and(is_name)
            }
        };
        let bad_from = !self.from.is_empty() && Time::parse(&self.from).is_err();
        let identity = |s: &Stream| s.identity(&s.access().region);
        let taken = before.iter().any(|b| b.name() == self.name());
        let twice = before.iter().any(|b| identity(b) == identity(self));
        [
            (!is_good).then(|| {
                wrong(
                    "stream",
                    &self.stream,
                    "the name of a stream, or arn:aws:kinesis:REGION:ACCOUNT:stream/NAME",
                )
            }),
            bad_from.then(|| wrong("from", &self.from, "a time such as 2026-01-01T00:00:00Z")),
            within(
                &format!("{place}.concurrency"),
                self.concurrency as u64,
                1,
                64,
                "between 1 and 64",
            ),
            taken.then(|| wrong("name", self.name(), "another one for each stream")),
            (twice && !taken).then(|| {
                wrong(
                    "stream",
                    &self.stream,
                    "another one for each entry; streams of one name in several accounts are told apart by their ARN",
                )
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Reads streams until told to stop.
pub fn run(streams: &[Stream], shop: &Shop) -> Result<(), BusError> {
    aws::threads("streams")?.block_on(async {
        let mut readers = JoinSet::new();
        for stream in streams {
            let (stream, shop) = (stream.clone(), shop.clone());
            readers.spawn(async move { Shards::new(stream, shop).await.read().await });
        }
        readers.join_all().await;
    });
    Ok(())
}

/// All shards of one stream.
struct Shards {
    reader: Arc<Reader>,
    known: BTreeMap<String, Checkpoint>,
    tasks: JoinSet<(String, Checkpoint)>,
    running: HashMap<TaskId, String>,
}

impl Shards {
    async fn new(stream: Stream, mut shop: Shop) -> Shards {
        let sdk = stream.access().load().await;
        // How often a shard may be asked is told here, not in the client.
        let own = aws_sdk_kinesis::config::Builder::from(&sdk)
            .retry_config(RetryConfig::disabled())
            .build();
        let region = sdk.region().map(ToString::to_string).unwrap_or_default();
        shop.limits = Limits {
            object_bytes: RECORD_BYTES,
            ..shop.limits
        };
        let identity = stream.identity(&region);
        let post = shop.metrics.collectors.post("stream", stream.name());
        post.alone(&format!("kinesis://{identity}"));
        Shards {
            reader: Arc::new(Reader {
                client: Client::from_conf(own),
                identity,
                hands: Semaphore::new(stream.concurrency.max(1)),
                stream,
                shop,
                retention: AtomicI64::new(0),
                behind: Mutex::default(),
                said: Said::default(),
            }),
            known: BTreeMap::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
        }
    }

    async fn read(mut self) {
        let stop = self.reader.shop.stop.clone();
        let (mut failures, mut loaded) = (0, false);
        while !stop.is_stopped() {
            let begun = match self.begin(&mut loaded).await {
                Ok(()) => {
                    failures = 0;
                    self.reader.said.mended("");
                    LIST
                }
                Err(trouble) => {
                    failures += 1;
                    self.reader
                        .complain("", "list the shards of a stream", &trouble);
                    breath(failures)
                }
            };
            // One that has come to its end may have children.
            tokio::select! {
                Some(done) = self.tasks.join_next_with_id() => self.end(done),
                () = aws::rest(begun, &stop) => {}
            }
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Begins with the shards that can be read and are not.
    async fn begin(&mut self, loaded: &mut bool) -> Result<(), Trouble> {
        let reader = Arc::clone(&self.reader);
        if !*loaded {
            self.known = block_in_place(|| self.load())?;
            *loaded = true;
        }
        let listed = self.list().await?;
        self.ask_retention().await;
        for shard in &listed {
            if self.known.get(&shard.id).is_some_and(|c| !c.is_of(shard)) {
                tracing::warn!(
                    stream = reader.stream.name(),
                    shard = shard.id,
                    "the stream is another one than was read before, it is read from its beginning"
                );
                self.known.remove(&shard.id);
            }
        }
        for id in gone(&listed, &self.known) {
            if self.running.values().any(|running| *running == id) {
                continue;
            }
            if let Some(checkpoint) = self.known.get_mut(&id) {
                checkpoint.finished = true;
                block_in_place(|| reader.remember(&id, checkpoint))?;
                reader.lost(&id, checkpoint.read_to, None);
            }
        }
        for shard in ready(&listed, &self.known) {
            if self.running.values().any(|running| *running == shard.id) {
                continue;
            }
            let known = self.known.get(&shard.id).cloned();
            let (shard, reader) = (shard.clone(), Arc::clone(&reader));
            let id = shard.id.clone();
            let task = self.tasks.spawn(async move {
                let checkpoint = reader.shard(&shard, known).await;
                (shard.id, checkpoint)
            });
            self.running.insert(task.id(), id);
        }
        Ok(())
    }

    fn end(&mut self, done: Result<(TaskId, (String, Checkpoint)), JoinError>) {
        match done {
            Ok((task, (shard, checkpoint))) => {
                self.running.remove(&task);
                if checkpoint.finished {
                    tracing::info!(
                        stream = self.reader.stream.name(),
                        shard,
                        "a closed shard is read to its end"
                    );
                }
                self.known.insert(shard, checkpoint);
            }
            Err(error) => {
                let shard = self.running.remove(&error.id());
                let errors = &self.reader.shop.metrics.errors;
                errors.with_label_values(&["panic"]).inc();
                tracing::error!(
                    stream = self.reader.stream.name(),
                    shard,
                    "reading a shard stopped unexpectedly, it is read again from its checkpoint"
                );
                if let (Some(shard), Ok(mut known)) = (shard, block_in_place(|| self.load())) {
                    match known.remove(&shard) {
                        Some(checkpoint) => self.known.insert(shard, checkpoint),
                        None => self.known.remove(&shard),
                    };
                }
            }
        }
    }

    fn load(&self) -> Result<BTreeMap<String, Checkpoint>, BusError> {
        let prefix = self.reader.prefix();
        let entries = self.reader.shop.bus.state_scan(CONSUMER, 0, &prefix)?;
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            let shard = String::from_utf8(key[prefix.len()..].to_vec()).ok()?;
            // Reading a shard again is harmless.
            Some((shard, serde_json::from_slice(&value).ok()?))
        };
        Ok(entries.into_iter().filter_map(read).collect())
    }

    async fn list(&self) -> Result<Vec<Listed>, Trouble> {
        let (reader, mut listed, mut token) = (&self.reader, Vec::new(), None);
        loop {
            let call = reader.client.list_shards();
            // A token stands for the name.
            let call = match token {
                None => call.set_stream_name(reader.stream.bare()),
                Some(token) => call.next_token(token),
            };
            let call = call.set_stream_arn(reader.stream.arn()).send();
            let answer = aws::unless_stopped(call, &reader.shop.stop).await;
            let answer = answer.ok_or(Trouble::Stopped)?.map_err(|error| {
                Trouble::of(format!("the shards of {}", reader.stream.name()), &error)
            })?;
            listed.extend(answer.shards().iter().map(Listed::of));
            token = answer.next_token;
            if token.is_none() {
                return Ok(listed);
            }
        }
    }

    /// How long the stream keeps records. Without that, only what AWS refuses shows that something is gone.
    async fn ask_retention(&self) {
        let reader = &self.reader;
        if reader.retention.load(Ordering::Relaxed) > 0 {
            return;
        }
        let call = reader
            .client
            .describe_stream_summary()
            .set_stream_arn(reader.stream.arn())
            .set_stream_name(reader.stream.bare())
            .send();
        match aws::unless_stopped(call, &reader.shop.stop).await {
            Some(Ok(answer)) => {
                let summary = answer.stream_description_summary();
                let hours = summary.map_or(0, |s| i64::from(s.retention_period_hours()));
                reader
                    .retention
                    .store(hours * 3_600 * 1_000_000, Ordering::Relaxed);
            }
            Some(Err(error)) => {
                let (fault, now) = (aws::Fault::of(&error), (reader.shop.clock)());
                if reader.said.is_new("retention", fault.as_str(), now) {
                    tracing::warn!(
                        stream = reader.stream.name(),
                        message = aws::said(&error),
                        "cannot ask how long the stream keeps records, so that what it drops unread may go unnoticed"
                    );
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(json: &str) -> Stream {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_arn_says_region_and_account() {
        let arn = stream(r#"{"stream":"arn:aws:kinesis:eu-west-1:111122223333:stream/logs"}"#);
        assert_eq!((arn.name(), &*arn.access().region), ("logs", "eu-west-1"));
        assert_eq!(arn.identity("eu-west-1"), "eu-west-1/111122223333/logs");
        assert!(arn.bare().is_none() && arn.arn().is_some());
        let bare = stream(r#"{"stream":"logs","aws":{"region":"us-east-1"}}"#);
        assert_eq!(bare.identity("us-east-1"), "us-east-1/logs");
        assert!(bare.bare().is_some() && bare.arn().is_none());
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let problems = |json: &str, before: &[Stream]| -> Vec<String> {
            let found = stream(json).check("streams[1]", before);
            found.iter().map(ToString::to_string).collect()
        };
        let logs = [stream(r#"{"stream":"logs"}"#)];
        assert!(problems(r#"{"stream":"other"}"#, &logs).is_empty());
        let arn = r#"{"stream":"arn:aws:kinesis:eu-west-1:1:stream/logs","name":"b"}"#;
        assert!(problems(arn, &logs).is_empty());
        for (json, key) in [
            (r#"{"stream":""}"#, "stream"),
            (r#"{"stream":"arn:aws:kinesis:eu-west-1:1:logs"}"#, "stream"),
            (r#"{"stream":"x","from":"yesterday"}"#, "from"),
            (r#"{"stream":"x","concurrency":0}"#, "concurrency"),
            (r#"{"stream":"logs"}"#, "name"),
            (r#"{"stream":"logs","name":"b"}"#, "stream"),
        ] {
            let found = problems(json, &logs);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(&format!("streams[1].{key}")), "{found:?}");
        }
    }
}
