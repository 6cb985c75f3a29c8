//! One object of S3: fetched, decoded, appended, remembered.
//!
//! [`Objects::take`] is what queues and backfills do with an object that they learned of. The object comes to memory
//! or, if it is large, to a file first, so that a slow log holds no connection open and a broken connection is never
//! taken for a broken object. Then it is decoded like any file, its events are appended, and only when all of that is
//! durable the manifest says that the object was read. The manifest is state of the bus under [`CONSUMER`], one entry an
//! object, found by bucket and key; an object that it knows with the same entity tag is not fetched again. What is
//! wrong inside an object becomes dead letters as it does with files; that an object cannot be had is the caller's to
//! judge, by the [`Trouble`].

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use bus::{Bus, BusError, Commit, StateChange, Stop};
use event::{Clock, Str, Time, format_compact};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::notification::Object;
use crate::append::Appender;
use crate::aws::{self, Access, Fault};
use crate::dead_letter::DeadLetter;
use crate::decode::{Bad, DecodeError, Decoder, Item, Job, Limits, Reason, Summary};
use crate::metrics::Metrics;
use crate::normalize::{Context, Normalizer};
use crate::redact::Redactor;

/// The consumer name under which the manifest is kept.
pub const CONSUMER: &str = "ingest/objects";

const KEY: &str = "object/";

/// How long the manifest remembers an object: as long as the index keeps events by default, and ten days.
const REMEMBERED_MICROS: i64 = 100 * 86_400 * 1_000_000;

/// Larger objects wait in a file.
const IN_MEMORY: u64 = 4 << 20;

/// What the manifest knows of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// The entity tag that it had, without quotes.
    pub etag: String,
    /// Its size as it is stored, in bytes.
    pub size: u64,
    /// SHA-256 of the uncompressed content in hexadecimal.
    pub sha256: String,
    /// How many events were appended.
    pub records: u64,
    /// How many dead letters.
    pub bad: u64,
    /// When it was read.
    pub read: Time,
    /// How often it had been replaced by another of the same name.
    pub generation: u32,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was read; so many events and dead letters are durable.
    Read {
        /// Events.
        events: u64,
        /// Dead letters.
        letters: u64,
    },
    /// It was read before.
    Repeated,
}

/// Why an object was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It cannot be had.
    #[error("cannot get `{object}`: {message}")]
    Fetch {
        /// The object.
        object: String,
        /// What that means.
        fault: Fault,
        /// What AWS says.
        message: String,
    },
    /// It is had, and cannot be kept or read here.
    #[error("cannot read `{object}`")]
    Local {
        /// The object.
        object: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Decoding it stopped unexpectedly.
    #[error("decoding `{object}` stopped unexpectedly")]
    Panicked {
        /// The object.
        object: String,
    },
    /// The log failed.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The service is told to stop.
    #[error("stopped before the end")]
    Stopped,
}

impl Trouble {
    /// Will the next object have it too?
    pub fn is_of_all(&self) -> bool {
        match self {
            Trouble::Fetch { fault, .. } => matches!(
                fault,
                Fault::Credentials | Fault::NoSource | Fault::Throttled
            ),
            Trouble::Panicked { .. } => false,
            Trouble::Local { .. } | Trouble::Bus(_) | Trouble::Stopped => true,
        }
    }

    /// One word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Trouble::Fetch { fault, .. } => fault.as_str(),
            Trouble::Local { .. } => "spool",
            Trouble::Panicked { .. } => "panic",
            Trouble::Bus(error) => error.kind(),
            Trouble::Stopped => "stopped",
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Trouble::Fetch { fault, .. } => fault.hint(),
            Trouble::Local { .. } => "make room in the data folder",
            Trouble::Panicked { .. } => "please report this with the object",
            Trouble::Bus(_) => "the log takes no writes at the moment",
            Trouble::Stopped => "start it again: it goes on where it was",
        }
    }
}

/// Where an object waits.
enum Content {
    Memory(Vec<u8>),
    File(NamedTempFile),
}

/// Takes objects for one source.
pub(crate) struct Objects {
    bus: Arc<dyn Bus>,
    access: Access,
    config: SdkConfig,
    clients: Mutex<BTreeMap<Option<Str>, Client>>,
    /// Where buckets are that turned out to be elsewhere.
    regions: Mutex<BTreeMap<Str, Str>>,
    /// Idle decoders with their buffers.
    decoders: Mutex<Vec<(Decoder, Normalizer)>>,
    limits: Limits,
    spool: PathBuf,
    metrics: Metrics,
    redactor: Arc<Redactor>,
    clock: Clock,
    stop: Stop,
}

/// What all objects of a process need.
#[derive(Clone)]
pub struct Shop {
    /// The log.
    pub bus: Arc<dyn Bus>,
    /// How much of an object is taken.
    pub limits: Limits,
    /// The folder in which large objects wait; what a killed process left there is removed by [`clear`].
    pub spool: PathBuf,
    /// The counters.
    pub metrics: Metrics,
    /// What replaces secrets.
    pub redactor: Arc<Redactor>,
    /// The clock.
    pub clock: Clock,
    /// Whether to stop.
    pub stop: Stop,
}

/// Makes the folder for waiting objects and removes what a killed process left in it.
pub fn clear(spool: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(spool) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(spool)
}

impl Objects {
    pub(crate) fn new(shop: Shop, access: Access, config: SdkConfig) -> Objects {
        Objects {
            bus: shop.bus,
            access,
            config,
            clients: Mutex::default(),
            regions: Mutex::default(),
            decoders: Mutex::default(),
            limits: shop.limits,
            spool: shop.spool,
            metrics: shop.metrics,
            redactor: shop.redactor,
            clock: shop.clock,
            stop: shop.stop,
        }
    }

    /// Takes an object, unless the manifest knows it. On `Ok` all of it is durable.
    pub(crate) async fn take(self: &Arc<Self>, object: &Object) -> Result<Outcome, Trouble> {
        let name = name(&object.bucket, &object.key);
        let known = self.known(object)?;
        if let (Some(known), Some(etag)) = (&known, &object.etag)
            && known.etag == etag.as_str()
        {
            return Ok(Outcome::Repeated);
        }
        let began = (self.clock)();
        let answer = self.get(object).await?;
        let etag = answer
            .e_tag()
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned();
        if known
            .as_ref()
            .is_some_and(|k| !etag.is_empty() && k.etag == etag)
        {
            return Ok(Outcome::Repeated);
        }
        let (content, size) = self.download(&name, answer).await?;
        let generation = known.as_ref().map_or(0, |k| k.generation + 1);
        if let Some(known) = known {
            tracing::warn!(object = %name, before = known.etag, now = etag, "an object that was read has another content now, read again");
        }
        let worker = Arc::clone(self);
        let read = {
            let name = name.clone();
            tokio::task::spawn_blocking(move || worker.append(&name, generation, &content, began))
        };
        let (summary, outcome) = read.await.map_err(|_| Trouble::Panicked {
            object: name.to_string(),
        })??;
        let Outcome::Read { events, letters } = outcome else {
            return Ok(outcome);
        };
        self.remember(
            object,
            &Entry {
                etag,
                size,
                sha256: summary.sha256,
                records: events,
                bad: letters,
                read: began,
                generation,
            },
        )?;
        let took = (self.clock)().0 - began.0;
        self.metrics.seconds.observe(took as f64 / 1e6);
        Ok(outcome)
    }

    /// Gives an object up: a dead letter tells of it, durable on `Ok`.
    pub(crate) fn give_up(&self, object: &Object, trouble: &Trouble) -> Result<(), BusError> {
        let reason = match trouble {
            Trouble::Fetch {
                fault: Fault::Denied | Fault::Key,
                ..
            } => Reason::ObjectDenied,
            Trouble::Fetch {
                fault: Fault::NoObject,
                ..
            } => Reason::ObjectMissing,
            _ => Reason::ObjectUnreadable,
        };
        self.letter(
            reason,
            &trouble.to_string(),
            &name(&object.bucket, &object.key),
            b"",
        )
    }

    /// Writes a dead letter about something whole, durable on `Ok`.
    pub(crate) fn letter(
        &self,
        reason: Reason,
        message: &str,
        object: &str,
        bytes: &[u8],
    ) -> Result<(), BusError> {
        let bad = Bad {
            reason,
            message,
            bytes: &bytes[..bytes.len().min(crate::decode::KEPT_BYTES)],
            size: bytes.len() as u64,
            offset: 0,
            position: 0,
        };
        let mut appender = Appender::new(&*self.bus, &self.metrics, &self.redactor, "s3");
        let _ = appender.letter(DeadLetter::of(&bad, object, (self.clock)()));
        appender.finish().map(drop)
    }

    /// Appends what a body holds that is content itself. On `Ok` all of it is durable.
    pub(crate) fn body(&self, name: &Str, body: &str) -> Result<Outcome, Trouble> {
        let content = Content::Memory(body.as_bytes().to_vec());
        let read = self.append(name, 0, &content, (self.clock)())?;
        Ok(read.1)
    }

    fn known(&self, object: &Object) -> Result<Option<Entry>, BusError> {
        let found = self
            .bus
            .state_get(CONSUMER, 0, &[entry_key(&object.bucket, &object.key)])?;
        // Reading an object again is harmless.
        Ok(found
            .into_iter()
            .flatten()
            .next()
            .and_then(|value| serde_json::from_slice(&value).ok()))
    }

    /// Which of these objects were read as they are now.
    pub(crate) fn known_of<'o>(
        &self,
        objects: impl Iterator<Item = &'o Object> + Clone,
    ) -> Result<Vec<bool>, BusError> {
        let keys: Vec<Vec<u8>> = objects
            .clone()
            .map(|o| entry_key(&o.bucket, &o.key))
            .collect();
        let found = self.bus.state_get(CONSUMER, 0, &keys)?;
        let is_known = |(object, value): (&Object, Option<Vec<u8>>)| {
            let entry: Option<Entry> = value.and_then(|v| serde_json::from_slice(&v).ok());
            entry.is_some_and(|e| {
                object
                    .etag
                    .as_ref()
                    .is_none_or(|etag| e.etag == etag.as_str())
            })
        };
        Ok(objects.zip(found).map(is_known).collect())
    }

    fn remember(&self, object: &Object, entry: &Entry) -> Result<(), BusError> {
        self.bus.commit(Commit {
            consumer: CONSUMER.to_owned(),
            state: vec![StateChange {
                partition: 0,
                key: entry_key(&object.bucket, &object.key),
                value: Some(serde_json::to_vec(entry).expect("an entry has only text keys")),
                expires: Some(entry.read.plus(REMEMBERED_MICROS)),
            }],
            ..Commit::default()
        })
    }

    fn client(&self, region: Option<Str>) -> Client {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients
            .entry(region.clone())
            .or_insert_with(|| self.access.s3(&self.config, region.as_deref()))
            .clone()
    }

    /// Asks for an object.
    async fn get(&self, object: &Object) -> Result<GetObjectOutput, Trouble> {
        let ask = |client: Client| {
            let ask = client.get_object();
            ask.bucket(&*object.bucket).key(&*object.key).send()
        };
        let answer = self
            .in_region(&object.bucket, object.region.clone(), ask)
            .await;
        answer.map_err(|error| fetch(&object.bucket, &object.key, &error))
    }

    /// A page of what a bucket holds below a folder, by its folders or one object after the other.
    pub(crate) async fn list(
        &self,
        bucket: &str,
        folder: &str,
        page: Option<&str>,
        by_folder: bool,
    ) -> Result<ListObjectsV2Output, Trouble> {
        let ask = |client: Client| {
            let ask = client.list_objects_v2().bucket(bucket).prefix(folder);
            let ask = ask.set_delimiter(by_folder.then(|| "/".to_owned()));
            ask.set_continuation_token(page.map(str::to_owned)).send()
        };
        let answer = self.in_region(bucket, None, ask).await;
        answer.map_err(|error| fetch(bucket, folder, &error))
    }

    /// Asks in the region in which a bucket is, as far as that is known, and where S3 says that it is elsewhere, there.
    async fn in_region<T, E, F>(
        &self,
        bucket: &str,
        said: Option<Str>,
        ask: impl Fn(Client) -> F,
    ) -> Result<T, Box<SdkError<E>>>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let known = {
            let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
            regions.get(bucket).cloned()
        };
        let region = known.or(said);
        let error = match ask(self.client(region.clone())).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let headers = error.raw_response().map(|answer| answer.headers());
        let elsewhere = headers
            .and_then(|h| h.get("x-amz-bucket-region"))
            .map(Str::from);
        let Some(elsewhere) = elsewhere.filter(|r| Some(r) != region.as_ref()) else {
            return Err(Box::new(error));
        };
        let answer = ask(self.client(Some(elsewhere.clone()))).await?;
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.insert(bucket.into(), elsewhere);
        Ok(answer)
    }

    /// The whole object, as it is stored, and its size.
    async fn download(
        &self,
        name: &str,
        answer: GetObjectOutput,
    ) -> Result<(Content, u64), Trouble> {
        let broken = |message: String| Trouble::Fetch {
            object: name.to_owned(),
            fault: Fault::Away,
            message,
        };
        let local = |source| Trouble::Local {
            object: name.to_owned(),
            source,
        };
        let promised = answer.content_length().and_then(|n| u64::try_from(n).ok());
        let mut body = answer.body;
        let (mut content, mut size) = (Content::Memory(Vec::new()), 0_u64);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| broken(format!("the answer broke off: {error}")))?;
            if self.stop.is_stopped() {
                return Err(Trouble::Stopped);
            }
            size += chunk.len() as u64;
            match &mut content {
                Content::Memory(bytes) if size <= IN_MEMORY => bytes.extend_from_slice(&chunk),
                Content::Memory(bytes) => {
                    let mut file = NamedTempFile::new_in(&self.spool).map_err(local)?;
                    file.write_all(bytes).map_err(local)?;
                    file.write_all(&chunk).map_err(local)?;
                    content = Content::File(file);
                }
                Content::File(file) => file.write_all(&chunk).map_err(local)?,
            }
        }
        match promised {
            Some(promised) if promised != size => {
                Err(broken(format!("{size} of {promised} bytes came")))
            }
            _ => Ok((content, size)),
        }
    }

    fn append(
        &self,
        name: &Str,
        generation: u32,
        content: &Content,
        now: Time,
    ) -> Result<(Summary, Outcome), Trouble> {
        let object = match generation {
            0 => name.clone(),
            n => format_compact!("{name}#{n}"),
        };
        let job = Job {
            sha256: true,
            ..Job::default()
        };
        let of_cloudtrail = is_log_of_cloudtrail(name);
        let idle = || {
            let mut decoders = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
            decoders.pop()
        };
        let (mut decoder, mut normalizer) =
            idle().unwrap_or_else(|| (Decoder::new(self.limits), Normalizer::new()));
        let mut appender = Appender::new(&*self.bus, &self.metrics, &self.redactor, "s3");
        let context = Context {
            ingest_time: now,
            object: object.clone(),
            keep_raw: true,
        };
        let mut each = |item: Item<'_>| {
            if self.stop.is_stopped() {
                return ControlFlow::Break(());
            }
            match item {
                Item::Record(record) => {
                    let mut ready = appender.ready(&mut normalizer, &record, &context);
                    if of_cloudtrail && ready.as_mut().source == "unknown" {
                        let letter = no_record(record.text, record.position);
                        return appender.letter(DeadLetter::of(&letter, &object, now));
                    }
                    appender.event(&ready)
                }
                Item::Bad(bad) => appender.letter(DeadLetter::of(&bad, &object, now)),
            }
        };
        let read = match content {
            Content::Memory(bytes) => Ok(decoder.bytes(bytes, &job, &mut each)),
            Content::File(file) => decoder.file(file.path(), &job, &mut each),
        };
        let summary = read.map_err(|DecodeError { source, .. }| Trouble::Local {
            object: name.to_string(),
            source,
        })?;
        if of_cloudtrail && summary.consumed == 0 && summary.bad == 0 {
            let _ = appender.letter(DeadLetter::of(&no_record(b"", 0), &object, now));
        }
        let appended = appender.finish()?;
        if summary.stopped {
            return Err(Trouble::Stopped);
        }
        self.metrics.count_dropped(&summary);
        if summary.is_misnamed(Path::new(name.as_str())) {
            tracing::warn!(object = %name, "named .gz but not compressed, read as it is");
        }
        let mut decoders = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        decoders.push((decoder, normalizer));
        let outcome = Outcome::Read {
            events: appended.events,
            letters: appended.letters,
        };
        Ok((summary, outcome))
    }
}

/// Does the name promise nothing but records of CloudTrail?
fn is_log_of_cloudtrail(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default();
    file.split_once("_CloudTrail_").is_some_and(|(account, _)| {
        account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())
    })
}

fn no_record(text: &[u8], position: u64) -> Bad<'_> {
    Bad {
        reason: Reason::UnknownObject,
        message: "the object is named as a log file of CloudTrail, and this is no record of CloudTrail",
        bytes: &text[..text.len().min(crate::decode::KEPT_BYTES)],
        size: text.len() as u64,
        offset: 0,
        position,
    }
}

/// The name of an object as the origin of its events.
pub(crate) fn name(bucket: &str, key: &str) -> Str {
    format_compact!("s3://{bucket}/{key}")
}

fn entry_key(bucket: &str, key: &str) -> Vec<u8> {
    format!("{KEY}{bucket}/{key}").into_bytes()
}

fn fetch<E>(bucket: &str, key: &str, error: &SdkError<E>) -> Trouble
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    Trouble::Fetch {
        object: name(bucket, key).to_string(),
        fault: Fault::of(error),
        message: aws::said(error),
    }
}
