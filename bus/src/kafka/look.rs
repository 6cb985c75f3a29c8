//! How the brokers are, asked from outside the pipeline: for `trailwarden doctor`.
//!
//! [`Look::begin`] tells apart what one client error would hide: nobody answers, TLS does not come about, the login is
//! refused. Then [`Look::partitions`] says who leads and how many copies are in sync, and [`Look::consumers`] how far each
//! consumer is and which partitions nobody works on. Nothing is changed, joined or committed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, TopicPartitionList};

use super::client::{Context, unavailable};
use super::{Settings, topics};
use crate::{BusError, Topic};

/// No longer than this is one question asked.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why the brokers cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// They do not know us, or not by this password or token.
    #[error("the brokers refuse the login: {0}")]
    Login(String),
    /// The connection cannot be encrypted, or the brokers do not show who they are.
    #[error("TLS with the brokers does not come about: {0}")]
    Tls(String),
    /// No answer.
    #[error("the brokers do not answer: {0}")]
    Silent(String),
}

/// A partition as the brokers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The topic as it is called on the brokers.
    pub topic: String,
    /// Its number.
    pub partition: u32,
    /// Does a broker lead it?
    pub has_leader: bool,
    /// On how many brokers it should be.
    pub copies: usize,
    /// On how many it is up to date.
    pub in_sync: usize,
    /// On how many it must be, so that it takes writes.
    pub needed: usize,
}

/// How far a consumer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The consumer group as it is called on the brokers.
    pub group: String,
    /// What it reads.
    pub topic: String,
    /// Records that it has not handled.
    pub behind: u64,
    /// Partitions that no node works on at the moment; `None` where nodes do not share by a group.
    pub idle: Option<Vec<u32>>,
    /// Partitions with records of which nothing was ever handled.
    pub untouched: Vec<u32>,
}

/// What the client library says while it tries.
#[derive(Clone)]
struct Listening {
    context: Context,
    heard: Arc<Mutex<Vec<(RDKafkaErrorCode, String)>>>,
}

impl ClientContext for Listening {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        self.context.log(level, fac, log_message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.push((code, reason.to_owned()));
        }
    }

    fn generate_oauth_token(
        &self,
        config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.context
            .generate_oauth_token(config)
            .inspect_err(|error| {
                let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.push((RDKafkaErrorCode::Authentication, error.to_string()));
            })
    }
}

impl ConsumerContext for Listening {}

impl Listening {
    /// What is worth saying of all that was heard.
    fn trouble(&self, is_final: bool) -> Option<Trouble> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |wanted: RDKafkaErrorCode| {
            let found = heard.iter().find(|(code, _)| *code == wanted);
            found.map(|(_, reason)| reason.clone())
        };
        find(RDKafkaErrorCode::Authentication)
            .map(Trouble::Login)
            .or_else(|| find(RDKafkaErrorCode::SSL).map(Trouble::Tls))
            .or_else(|| {
                let words = heard.first().map(|(_, reason)| reason.clone());
                is_final
                    .then(|| Trouble::Silent(words.unwrap_or_else(|| "no answer in time".into())))
            })
    }
}

/// A look at the brokers.
pub struct Look<'a> {
    settings: &'a Settings,
    patience: Duration,
    listening: Listening,
    client: BaseConsumer<Listening>,
}

impl<'a> Look<'a> {
    /// Connects and logs in.
    ///
    /// # Errors
    /// The brokers cannot be asked.
    pub fn begin(settings: &'a Settings) -> Result<Look<'a>, Trouble> {
        let listening = Listening {
            context: Context::new(Arc::default(), settings.kafka.sasl.clone()),
            heard: Arc::default(),
        };
        let client =
            consumer(settings, "doctor", &listening).map_err(|e| Trouble::Silent(e.to_string()))?;
        let patience = PATIENCE.min(Duration::from_secs(u64::from(
            settings.kafka.patience_seconds,
        )));
        let begin = Instant::now();
        loop {
            // Errors and tokens are told between the questions.
            let _ = client.poll(Duration::from_millis(100));
            if client.fetch_metadata(None, Duration::from_secs(2)).is_ok() {
                break;
            }
            if let Some(trouble) = listening.trouble(begin.elapsed() > patience) {
                return Err(trouble);
            }
        }
        Ok(Look {
            settings,
            patience,
            listening,
            client,
        })
    }

    /// Every partition of every topic that there is.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn partitions(&self) -> Result<Vec<Partition>, BusError> {
        let mut all = Vec::new();
        for wanted in topics::wanted(self.settings) {
            let metadata = self
                .client
                .fetch_metadata(Some(&wanted.name), self.patience)
                .map_err(|e| unavailable(format!("ask the brokers about `{}`", wanted.name), &e))?;
            let needed = wanted.settings.get("min.insync.replicas");
            let needed = needed.and_then(|n| n.parse().ok()).unwrap_or(1);
            for found in metadata.topics().iter().filter(|t| t.name() == wanted.name) {
                all.extend(found.partitions().iter().map(|p| Partition {
                    topic: wanted.name.clone(),
                    partition: p.id() as u32,
                    has_leader: p.leader() >= 0,
                    copies: p.replicas().len(),
                    in_sync: p.isr().len(),
                    needed,
                }));
            }
        }
        Ok(all)
    }

    /// How far each consumer is.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn consumers(&self) -> Result<Vec<Progress>, BusError> {
        let consumers = &self.settings.consumers;
        let moving = consumers.moving.iter().map(|(n, of)| (n, *of, true));
        let fixed = consumers
            .fixed
            .iter()
            .map(|(n, _)| (n, Topic::Events, false));
        moving
            .chain(fixed)
            .map(|(name, topic, shares)| self.consumer(name, topic, shares))
            .collect()
    }

    fn consumer(&self, name: &str, topic: Topic, shares: bool) -> Result<Progress, BusError> {
        let group = self.settings.kafka.name(name);
        let topic_name = self.settings.kafka.name(topic.as_str());
        let failed = |e: KafkaError| unavailable(format!("ask about the group `{group}`"), &e);
        let client = consumer(self.settings, name, &self.listening)?;
        let partitions = self.settings.partitions.of(topic);
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition(&topic_name, partition as i32);
        }
        let told = client
            .committed_offsets(list, self.patience)
            .map_err(failed)?;
        let mut progress = Progress {
            group: group.clone(),
            topic: topic_name.clone(),
            behind: 0,
            idle: None,
            untouched: Vec::new(),
        };
        for element in told.elements() {
            let (start, end) = self
                .client
                .fetch_watermarks(&topic_name, element.partition(), self.patience)
                .map_err(failed)?;
            let next = match element.offset() {
                rdkafka::Offset::Offset(next) => next.max(start),
                _ => {
                    if end > start {
                        progress.untouched.push(element.partition() as u32);
                    }
                    start
                }
            };
            progress.behind += (end - next).max(0) as u64;
        }
        if shares {
            let groups = self
                .client
                .client()
                .fetch_group_list(Some(&group), self.patience)
                .map_err(failed)?;
            let busy: Vec<u32> = groups
                .groups()
                .iter()
                .flat_map(|g| g.members())
                .filter_map(|member| member.assignment())
                .flat_map(|bytes| assigned(bytes, &topic_name).unwrap_or_default())
                .collect();
            progress.idle = Some((0..partitions).filter(|p| !busy.contains(p)).collect());
        }
        Ok(progress)
    }
}

fn consumer(
    settings: &Settings,
    group: &str,
    listening: &Listening,
) -> Result<BaseConsumer<Listening>, BusError> {
    let mut config = settings.kafka.client()?;
    config
        .set("group.id", settings.kafka.name(group))
        .set("enable.auto.commit", "false")
        .set("socket.connection.setup.timeout.ms", "5000");
    BaseConsumer::from_config_and_context(&config, listening.clone())
        .map_err(|e| BusError::Refused(format!("cannot make a Kafka client: {e}")))
}

/// The partitions of a topic in what a member was given, in the form of Kafka's own consumers:
///
/// ```text
/// version i16 | topics i32 | { name i16 + bytes | partitions i32 | { partition i32 } } | …
/// ```
fn assigned(bytes: &[u8], topic: &str) -> Option<Vec<u32>> {
    fn take<'b>(bytes: &mut &'b [u8], n: usize) -> Option<&'b [u8]> {
        let (taken, rest) = bytes.split_at_checked(n)?;
        *bytes = rest;
        Some(taken)
    }
    fn int(bytes: &mut &[u8]) -> Option<u32> {
        Some(u32::from_be_bytes(take(bytes, 4)?.try_into().ok()?))
    }
    let mut rest = bytes;
    take(&mut rest, 2)?;
    let mut found = Vec::new();
    for _ in 0..int(&mut rest)? {
        let length = u16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?);
        let is_ours = take(&mut rest, usize::from(length))? == topic.as_bytes();
        for _ in 0..int(&mut rest)? {
            let partition = int(&mut rest)?;
            if is_ours {
                found.push(partition);
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_and_damage_is_no_harm() {
        let bytes = b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\x03\0\0\0\x05\0\x01b\0\0\0\x01\0\0\0\x07\xff\xff\xff\xff";
        assert_eq!(assigned(bytes, "a"), Some(vec![3, 5]));
        assert_eq!(assigned(bytes, "b"), Some(vec![7]));
        assert_eq!(assigned(bytes, "c"), Some(vec![]));
        for end in 0..bytes.len() - 4 {
            assert_eq!(assigned(&bytes[..end], "a"), None);
        }
        assert_eq!(assigned(b"\0\0\xff\xff\xff\xff", "a"), None);
    }
}
