//! One object of S3: fetched, decoded, appended, remembered.
//!
//! [`Objects::take`] is what queues and backfills do with an object that they learned of. When [`s3`](super::s3) has
//! brought it here, it is decoded like any file, its events are appended, and only when all of that is durable the
//! manifest says that the object was read; small objects share these writes ([`group`](super::group)). The manifest is
//! state of the bus under [`CONSUMER`], one entry an object, found by bucket and key; an object that it knows with the
//! same entity tag is not fetched again, but where objects are [read again](Treatment::restoring) for the index alone: the
//! manifest has no part in that. What is wrong inside an object becomes dead letters as it does with files; that
//! an object cannot be had is the caller's to judge, by the [`Trouble`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use bus::{Bus, BusError, Commit, Record, StateChange, Stop, Topic};
use bytes::Bytes;
use event::source::Attested;
use event::{Clock, Event, Str, Time, format_compact};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::{block_in_place, spawn_blocking};

use super::attest;
use super::group::{Group, NotDurable};
use super::notification::Object;
use super::s3::{Content, Fetched, S3, Trouble, name};
use crate::append::{Appended, Appender, Rest};
use crate::aws::{self, Access, Fault};
use crate::dead_letter::DeadLetter;
use crate::decode::{Bad, DecodeError, Decoder, Item, Job, Limits, Reason, Summary};
use crate::digest::PublicKeys;
use crate::metrics::Metrics;
use crate::normalize::{Context, Normalizer};
use crate::treatment::Treatment;

/// The consumer name under which the manifest is kept.
pub const CONSUMER: &str = "ingest/objects";

/// What stands for objects in metrics.
const SOURCE: &str = "s3";

const KEY: &str = "object/";

/// Before the name of a region whose public keys are remembered.
const KEYS: &str = "keys/";

/// Before whatever else is noted.
const NOTED: &str = "noted/";

/// Before the id of an event that was said.
const SAID: &str = "said/";

/// How long the manifest remembers an object; ten years, as watched files are remembered. As long as it does, looking
/// through a bucket again counts nothing twice, however long ago its events were forgotten elsewhere.
const REMEMBERED_MICROS: i64 = 10 * 366 * 86_400 * 1_000_000;

/// For each object that is being fetched or decoded so many may be in hand, most of them waiting for the disk.
const IN_HAND: usize = 16;

/// How many objects a source that reads so many at once may have in hand.
pub(super) fn in_hand(concurrency: usize) -> usize {
    concurrency
        .max(1)
        .saturating_mul(IN_HAND)
        .min(Semaphore::MAX_PERMITS)
}

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

/// Takes objects for one source.
pub(crate) struct Objects {
    bus: Arc<dyn Bus>,
    pub(crate) s3: S3,
    /// How many more may be fetched and decoded.
    reading: Semaphore,
    group: Group,
    /// Idle decoders with their buffers.
    decoders: Mutex<Vec<(Decoder, Normalizer)>>,
    limits: Limits,
    metrics: Metrics,
    treatment: Arc<Treatment>,
    clock: Clock,
    stop: Stop,
}

/// An object that was decoded.
struct Decoded {
    summary: Summary,
    /// What is still to be made durable.
    rest: Rest,
    /// What is durable once that is.
    appended: Appended,
}

/// What all objects of a process need.
#[derive(Clone)]
pub struct Shop {
    /// The log.
    pub bus: Arc<dyn Bus>,
    /// How much of an object is taken.
    pub limits: Limits,
    /// The folder in which large objects wait; what a killed process left there is removed by [`s3::clear`](super::s3::clear).
    pub spool: PathBuf,
    /// The counters.
    pub metrics: Metrics,
    /// What is done to every record.
    pub treatment: Arc<Treatment>,
    /// The clock.
    pub clock: Clock,
    /// Whether to stop.
    pub stop: Stop,
}

impl Objects {
    /// Fetches and decodes `concurrency` objects at once.
    pub(crate) fn new(
        shop: Shop,
        access: Access,
        config: SdkConfig,
        concurrency: usize,
    ) -> Objects {
        let group = Group::new(
            Arc::clone(&shop.bus),
            shop.metrics.clone(),
            CONSUMER,
            SOURCE,
        );
        Objects {
            reading: Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            group,
            bus: shop.bus,
            s3: S3::new(access, config, shop.spool, shop.stop.clone()),
            decoders: Mutex::default(),
            limits: shop.limits,
            metrics: shop.metrics,
            treatment: shop.treatment,
            clock: shop.clock,
            stop: shop.stop,
        }
    }

    /// Takes an object, unless the manifest knows it and it is not read again. On `Ok` all of it is durable.
    pub(crate) async fn take(self: &Arc<Self>, object: &Object) -> Result<Outcome, Trouble> {
        let name = name(&object.bucket, &object.key);
        let reading = self.turn().await?;
        let restores = self.treatment.restores();
        let known = match restores {
            true => None,
            false => block_in_place(|| self.entry(object))?,
        };
        if let (Some(known), Some(etag)) = (&known, &object.etag)
            && known.etag == etag.as_str()
        {
            return Ok(Outcome::Repeated);
        }
        let began = (self.clock)();
        let fetched = self
            .s3
            .fetch(object, known.as_ref().map(|k| k.etag.as_str()))
            .await?;
        let Some(Fetched {
            content,
            size,
            etag,
            ..
        }) = fetched
        else {
            return Ok(Outcome::Repeated);
        };
        let generation = known.as_ref().map_or(0, |k| k.generation + 1);
        if let Some(known) = known {
            tracing::warn!(object = %name, before = known.etag, now = etag, "an object that was read has another content now, read again");
        }
        let decoded = self.decode(&name, generation, content, began).await?;
        let entry = Entry {
            etag,
            size,
            sha256: decoded.summary.sha256.clone(),
            records: decoded.appended.events,
            bad: decoded.appended.letters,
            read: began,
            generation,
        };
        let room = self.group.room(&decoded.rest).await;
        drop(reading);
        // Of what the manifest does not know yet rules have still to see what it has.
        let entry = (!restores).then(|| entry_of(object, &entry));
        let written = self.group.write(decoded.rest, entry, room).await;
        let outcome = self.durable(&name, written, &decoded.summary, decoded.appended)?;
        let took = (self.clock)().0 - began.0;
        self.metrics.seconds.observe(took as f64 / 1e6);
        Ok(outcome)
    }

    /// Is the service told to stop?
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    /// Waits for so long, or until the service is told to stop.
    pub(crate) async fn rest(&self, time: Duration) {
        aws::rest(time, &self.stop).await;
    }

    /// The hash of an object's content in hexadecimal, if it is what was read.
    pub(crate) fn hash_of(&self, object: &Object) -> Result<Option<String>, BusError> {
        let known = self.entry(object)?;
        let same = known.filter(|k| object.etag.as_deref() == Some(k.etag.as_str()));
        Ok(same.map(|k| k.sha256).filter(|hash| !hash.is_empty()))
    }

    /// The public keys of CloudTrail in these regions and this time. What was told once is remembered, since keys do not
    /// change, and since they are needed when CloudTrail cannot be asked.
    pub(crate) async fn public_keys(
        &self,
        regions: &BTreeSet<String>,
        from: Time,
        to: Time,
    ) -> Result<PublicKeys, Trouble> {
        let asked = attest::public_keys(self.s3.config(), regions, from, to).await;
        let mut keys = PublicKeys::default();
        let mut state = Vec::new();
        for region in regions {
            let key = format!("{KEYS}{region}").into_bytes();
            let known =
                block_in_place(|| self.bus.state_get(CONSUMER, 0, std::slice::from_ref(&key)))?;
            let told = asked.as_ref().ok().and_then(|all| all.get(region));
            // Those of before are needed for as long as digests of before are looked at.
            for json in known.into_iter().flatten() {
                let _ = keys.add(&json);
            }
            if let Some(told) = told {
                let value = told.to_string().into_bytes();
                if keys.add(&value).is_err() {
                    tracing::error!(region, "CloudTrail told of a key that cannot be read");
                    continue;
                }
                state.push(StateChange {
                    partition: 0,
                    key,
                    value: Some(value),
                    expires: None,
                });
            }
        }
        match asked {
            Err(trouble) if keys.is_empty() => Err(trouble),
            Err(trouble) => {
                tracing::warn!(
                    error = &trouble as &dyn std::error::Error,
                    "CloudTrail cannot be asked for its keys, those of before are used"
                );
                Ok(keys)
            }
            Ok(_) => {
                block_in_place(|| self.commit(state))?;
                Ok(keys)
            }
        }
    }

    /// Appends those of these events that were not said before, and gives how many that were.
    pub(crate) fn say(&self, events: Vec<Event>) -> Result<usize, BusError> {
        let key = |event: &Event| format!("{SAID}{}", event.id).into_bytes();
        let keys: Vec<Vec<u8>> = events.iter().map(key).collect();
        let said = self.bus.state_get(CONSUMER, 0, &keys)?;
        let new: Vec<Event> = events
            .into_iter()
            .zip(said)
            .filter_map(|(event, said)| said.is_none().then_some(event))
            .collect();
        if new.is_empty() {
            return Ok(0);
        }
        let now = (self.clock)();
        let record = |event: &Event| Record {
            key: Bytes::from(event.partition_key().into_string()),
            value: Bytes::from(event.encode()),
            time: now,
        };
        self.bus
            .append(Topic::Events, new.iter().map(record).collect())?;
        let remember = |event: &Event| StateChange {
            partition: 0,
            key: key(event),
            value: Some(Vec::new()),
            expires: Some(now.plus(REMEMBERED_MICROS)),
        };
        self.commit(new.iter().map(remember).collect())?;
        for event in &new {
            let counter = &self.metrics.violations;
            counter
                .with_label_values(&[event.error_code.as_str()])
                .inc();
        }
        Ok(new.len())
    }

    /// Takes in what digests say since `from`, remembers it with what they said of before, and has it told.
    pub(crate) fn learn(&self, attested: Attested, from: Time) -> Result<(), BusError> {
        let Attested {
            bucket,
            prefix,
            account,
            region,
            ..
        } = &attested;
        let name = format!("attested/{bucket}/{prefix}/{account}/{region}");
        let known = self.recall(&name);
        let mut all = known
            .and_then(|json| serde_json::from_str::<Attested>(&json).ok())
            .unwrap_or_else(|| Attested {
                spans: Vec::new(),
                failed: BTreeMap::new(),
                open: BTreeMap::new(),
                ..attested.clone()
            });
        all.learn(attested, from);
        let json = serde_json::to_string(&all).expect("texts and numbers");
        self.note(&name, &json)?;
        self.metrics.collectors.attested(all);
        Ok(())
    }

    /// What was noted under a name; `None` if nothing was, or nothing can be read.
    pub(crate) fn recall(&self, name: &str) -> Option<String> {
        let asked = [format!("{NOTED}{name}").into_bytes()];
        let found = block_in_place(|| self.bus.state_get(CONSUMER, 0, &asked)).ok()?;
        String::from_utf8(found.into_iter().next()??).ok()
    }

    /// Notes something under a name.
    pub(crate) fn note(&self, name: &str, text: &str) -> Result<(), BusError> {
        let change = StateChange {
            partition: 0,
            key: format!("{NOTED}{name}").into_bytes(),
            value: Some(text.as_bytes().to_vec()),
            expires: Some((self.clock)().plus(REMEMBERED_MICROS)),
        };
        block_in_place(|| self.commit(vec![change]))
    }

    /// Gives an object up, unless that was done before.
    pub(crate) fn give_up_once(&self, object: &Object, trouble: &Trouble) -> Result<(), BusError> {
        let noted = format!("given_up/{}/{}", object.bucket, object.key);
        if self.recall(&noted).is_some() {
            return Ok(());
        }
        if self.treatment.restores() {
            return Ok(());
        }
        self.give_up(object, trouble)?;
        self.note(&noted, trouble.kind())
    }

    fn commit(&self, state: Vec<StateChange>) -> Result<(), BusError> {
        self.bus.commit(Commit {
            consumer: CONSUMER.to_owned(),
            state,
            ..Commit::default()
        })
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
        let bad = Bad::whole(reason, message, bytes);
        let mut appender = Appender::new(&*self.bus, &self.metrics, &self.treatment, SOURCE);
        let _ = appender.letter(DeadLetter::of(&bad, object, (self.clock)()));
        block_in_place(|| appender.finish()).map(drop)
    }

    /// Appends what a body holds that is content itself. On `Ok` all of it is durable.
    pub(crate) async fn body(
        self: &Arc<Self>,
        name: &Str,
        body: String,
    ) -> Result<Outcome, Trouble> {
        let reading = self.turn().await?;
        let content = Content::Memory(body.into_bytes());
        let decoded = self.decode(name, 0, content, (self.clock)()).await?;
        let room = self.group.room(&decoded.rest).await;
        drop(reading);
        let written = self.group.write(decoded.rest, None, room).await;
        self.durable(name, written, &decoded.summary, decoded.appended)
    }

    /// Waits until one more object may be fetched and decoded.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Trouble> {
        let turn = self.reading.acquire().await.expect("nobody closes it");
        // Whoever waited until now has nothing to bring to an end.
        match self.stop.is_stopped() {
            true => Err(Trouble::Stopped),
            false => Ok(turn),
        }
    }

    /// What became of an object that was to be made durable.
    fn durable(
        &self,
        name: &Str,
        written: Result<(), NotDurable>,
        summary: &Summary,
        appended: Appended,
    ) -> Result<Outcome, Trouble> {
        written.map_err(|error| match error {
            NotDurable::Bus(error) => Trouble::Bus(error),
            NotDurable::Panicked => Trouble::Panicked {
                object: name.to_string(),
            },
        })?;
        self.metrics.count_dropped(summary);
        Ok(Outcome::Read {
            events: appended.events,
            letters: appended.letters,
        })
    }

    /// Decodes content where it holds nobody up.
    async fn decode(
        self: &Arc<Self>,
        name: &Str,
        generation: u32,
        content: Content,
        began: Time,
    ) -> Result<Decoded, Trouble> {
        let (worker, of) = (Arc::clone(self), name.clone());
        let decoded = spawn_blocking(move || worker.append(&of, generation, &content, began)).await;
        decoded.map_err(|_| Trouble::Panicked {
            object: name.to_string(),
        })?
    }

    fn entry(&self, object: &Object) -> Result<Option<Entry>, BusError> {
        let key = entry_key(&object.bucket, &object.key);
        let found = self.bus.state_get(CONSUMER, 0, &[key])?;
        // Reading an object again is harmless.
        let value = found.into_iter().flatten().next();
        Ok(value.and_then(|value| serde_json::from_slice(&value).ok()))
    }

    /// Which of these objects were read as they are now; none where objects are read again.
    pub(crate) fn known_of<'o>(
        &self,
        objects: impl Iterator<Item = &'o Object> + Clone,
    ) -> Result<Vec<bool>, BusError> {
        if self.treatment.restores() {
            return Ok(vec![false; objects.count()]);
        }
        let keys: Vec<Vec<u8>> = objects
            .clone()
            .map(|o| entry_key(&o.bucket, &o.key))
            .collect();
        let found = block_in_place(|| self.bus.state_get(CONSUMER, 0, &keys))?;
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

    /// Decodes content. What it holds more than a batch of is durable on `Ok`, the rest is still to be made so.
    fn append(
        &self,
        name: &Str,
        generation: u32,
        content: &Content,
        now: Time,
    ) -> Result<Decoded, Trouble> {
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
        let mut appender = Appender::new(&*self.bus, &self.metrics, &self.treatment, SOURCE);
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
        let (rest, appended) = appender.rest()?;
        if summary.stopped {
            return Err(Trouble::Stopped);
        }
        if summary.is_misnamed(Path::new(name.as_str())) {
            tracing::warn!(object = %name, "named .gz but not compressed, read as it is");
        }
        let mut decoders = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        decoders.push((decoder, normalizer));
        Ok(Decoded {
            summary,
            rest,
            appended,
        })
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
    let message =
        "the object is named as a log file of CloudTrail, and this is no record of CloudTrail";
    Bad {
        position,
        ..Bad::whole(Reason::UnknownObject, message, text)
    }
}

/// The change that has the manifest remember an object.
fn entry_of(object: &Object, entry: &Entry) -> StateChange {
    StateChange {
        partition: 0,
        key: entry_key(&object.bucket, &object.key),
        value: Some(serde_json::to_vec(entry).expect("an entry has only text keys")),
        expires: Some(entry.read.plus(REMEMBERED_MICROS)),
    }
}

fn entry_key(bucket: &str, key: &str) -> Vec<u8> {
    format!("{KEY}{bucket}/{key}").into_bytes()
}
