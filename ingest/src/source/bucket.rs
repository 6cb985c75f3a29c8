//! What a bucket holds against what was read of it: backfill and reconciliation in one.
//!
//! A [`Round`] lists a bucket, asks the manifest (see [`object`]) for every object, and takes those that
//! it does not know. So a first round over a long time is a backfill, a later one over the last days finds what a queue
//! never told of, and one that was cut off goes on where it was, since what is read is known. Nothing follows from the
//! order of keys: an object that lands late under an earlier key is found like any other. [`run`] makes rounds by
//! itself, over [`Bucket::look_back_hours`] each time, and once a day over a week. What is listed at all says
//! [`walk`].

mod walk;

pub use walk::{Listed, Range, Walk};

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bus::BusError;
use event::{Str, Time};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::attest::{self, Store};
use super::notification::Object;
use super::object::{self, Objects, Outcome, Shop};
use super::s3::{self, Trouble};
use crate::aws::{self, Access, Fault};
use crate::config::{ConfigError, within};
use crate::digest;
use crate::status::{Failure, causes};

/// In seconds.
const DAY: i64 = 86_400;

/// Every so many rounds look a week back.
const LONG_EVERY: u64 = 24;

/// How far the long rounds look back.
const LONG_SECONDS: i64 = 7 * DAY;

/// What lands late may stand in the folder of an earlier day: so many days earlier in a common round, and in a long one.
const LATE_DAYS: (u16, u16) = (2, 90);

/// So often an object is asked for in one round, if only the connection breaks.
const ATTEMPTS: usize = 4;

/// How long it rests in between.
const BREATH: Duration = Duration::from_secs(2);

/// A bucket that is looked through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bucket {
    /// The bucket.
    pub bucket: String,
    /// Only keys that begin so.
    pub prefix: String,
    /// As whom it is read.
    pub aws: Access,
    /// Read everything from this time on once (RFC 3339); empty: only what came lately.
    pub from: String,
    /// How often it is looked through.
    pub every_minutes: u64,
    /// How far back.
    pub look_back_hours: u64,
    /// How many objects are fetched and decoded at once.
    pub concurrency: usize,
    /// Are digests of CloudTrail in it verified each time?
    pub verify: bool,
}

impl Default for Bucket {
    fn default() -> Bucket {
        Bucket {
            bucket: String::new(),
            prefix: String::new(),
            aws: Access::default(),
            from: String::new(),
            every_minutes: 60,
            look_back_hours: 48,
            concurrency: 4,
            verify: true,
        }
    }
}

impl Bucket {
    /// All settings at `place` with which it cannot be looked through.
    pub(crate) fn check(&self, place: &str) -> Vec<ConfigError> {
        let wrong = |key: &str, value: &str, allowed| ConfigError::Value {
            key: format!("{place}.{key}"),
            value: format!("`{value}`"),
            allowed,
        };
        let (name, from) = (self.bucket.as_str(), self.from.as_str());
        let bad_name = name.is_empty() || name.contains(['/', ':']);
        let bad_from = !from.is_empty() && Time::parse(from).is_err();
        [
            bad_name.then(|| wrong("bucket", name, "the bare name of a bucket")),
            bad_from.then(|| wrong("from", from, "a time such as 2026-01-01T00:00:00Z")),
            within(
                &format!("{place}.every_minutes"),
                self.every_minutes,
                1,
                10_080,
                "between 1 and 10080",
            ),
            within(
                &format!("{place}.look_back_hours"),
                self.look_back_hours,
                1,
                8_784,
                "between 1 and 8784",
            ),
            within(
                &format!("{place}.concurrency"),
                self.concurrency as u64,
                1,
                64,
                "between 1 and 64",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What a round has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// Objects that the bucket holds.
    pub listed: u64,
    /// Their size as they are stored.
    pub bytes: u64,
    /// How many of them were read before.
    pub known: u64,
    /// How many were not; none where objects are read again.
    pub missing: u64,
    /// How many are read now.
    pub fetched: u64,
    /// Their size.
    pub fetched_bytes: u64,
    /// Events that they had.
    pub events: u64,
    /// Dead letters that they had.
    pub letters: u64,
    /// How many could not be read.
    pub failed: u64,
}

/// What is told while a round goes on.
pub enum Told<'t> {
    /// So far.
    Tally(&'t Tally),
    /// An object that is in the bucket, whenever it was written.
    Listed(&'t Object),
    /// An object that was never read.
    Missing(&'t str),
    /// An object that cannot be read.
    Failed(&'t Trouble),
}

/// One look through a bucket.
pub struct Round<'b> {
    bucket: &'b Bucket,
    objects: Arc<Objects>,
    shop: &'b Shop,
}

impl<'b> Round<'b> {
    /// Prepares for rounds over a bucket.
    pub async fn new(bucket: &'b Bucket, shop: &'b Shop) -> Round<'b> {
        let config = bucket.aws.load().await;
        Round {
            objects: Arc::new(Objects::new(
                shop.clone(),
                bucket.aws.clone(),
                config,
                bucket.concurrency,
            )),
            bucket,
            shop,
        }
    }

    /// Looks through the bucket once.
    pub async fn go(
        &self,
        range: Range,
        told: &mut (dyn FnMut(Told<'_>) + Send),
    ) -> Result<Tally, Trouble> {
        let mut tally = Tally::default();
        let mut reading = Reading {
            objects: &self.objects,
            tasks: JoinSet::new(),
            most: object::in_hand(self.bucket.concurrency),
        };
        let (name, prefix) = (&self.bucket.bucket, &self.bucket.prefix);
        let mut walk = Walk::new(&self.objects.s3, name, prefix, range);
        while let Some(mut page) = walk.next().await? {
            if self.shop.stop.is_stopped() {
                return Err(Trouble::Stopped);
            }
            page.iter().for_each(|l| told(Told::Listed(&l.object)));
            page.retain(|l| (range.from..range.to).contains(&l.written));
            self.compare(page, range.fetch, &mut tally, &mut reading, told)
                .await?;
            told(Told::Tally(&tally));
        }
        while reading.one(&mut tally, told).await? {}
        told(Told::Tally(&tally));
        Ok(tally)
    }

    /// Compares a page with the manifest, and has read what it does not know.
    async fn compare(
        &self,
        page: Vec<Listed>,
        fetch: bool,
        tally: &mut Tally,
        reading: &mut Reading<'_>,
        told: &mut (dyn FnMut(Told<'_>) + Send),
    ) -> Result<(), Trouble> {
        let known = self.objects.known_of(page.iter().map(|l| &l.object))?;
        for (Listed { object, size, .. }, known) in page.into_iter().zip(known) {
            tally.listed += 1;
            tally.bytes += size;
            if known {
                tally.known += 1;
                continue;
            }
            if !self.shop.treatment.restores() {
                tally.missing += 1;
                told(Told::Missing(&s3::name(&object.bucket, &object.key)));
            }
            if fetch {
                while reading.tasks.len() >= reading.most {
                    reading.one(tally, told).await?;
                }
                reading.begin(object, size);
            }
        }
        Ok(())
    }

    /// Was everything from this time on read once?
    fn was_filled(&self, from: Time) -> bool {
        let known = self.objects.recall(&self.filled());
        known.is_some_and(|since| Time::parse(&since).is_ok_and(|since| since <= from))
    }

    /// Remembers that it was. If that fails, all of it is looked through again, which is harmless.
    fn fill(&self, from: Time) {
        if let Err(error) = self.objects.note(&self.filled(), &from.to_string()) {
            tracing::warn!(%error, "cannot remember that a backfill is done");
        }
    }

    fn filled(&self) -> String {
        format!("filled/{}/{}", self.bucket.bucket, self.bucket.prefix)
    }

    /// Verifies the digests among these objects, and what they list, from a time on. Gives how many violations are new.
    async fn verify(
        &self,
        names: BTreeMap<String, Option<Str>>,
        from: Time,
    ) -> Result<usize, Trouble> {
        let now = (self.shop.clock)();
        let regions = digest::regions(names.keys().map(String::as_str));
        if regions.is_empty() {
            return Ok(0);
        }
        let keys = self.objects.public_keys(&regions, from, now).await?;
        let objects = Arc::clone(&self.objects);
        let (bucket, handle) = (Str::from(&*self.bucket.bucket), Handle::current());
        let prefix = Str::from(&*self.bucket.prefix);
        let verified = tokio::task::spawn_blocking(move || {
            let known = |object: &Object| objects.hash_of(object).map_err(io::Error::other);
            let store = Store {
                s3: &objects.s3,
                bucket: bucket.clone(),
                names: &names,
                known: &known,
                handle,
            };
            let report = store.verify(&keys, (Some(from), None), now, &|| {});
            let report = report.map_err(|error| match objects.is_stopped() {
                true => Trouble::Stopped,
                false => Trouble::Fetch {
                    object: format!("s3://{bucket}"),
                    fault: Fault::Other,
                    message: causes(&error),
                },
            })?;
            let events = attest::violations(&bucket, &report, now);
            let said = objects.say(events)?;
            for attested in attest::coverage(&bucket, &prefix, report.coverage) {
                objects.learn(attested, from)?;
            }
            Ok(said)
        });
        verified.await.map_err(|_| Trouble::Panicked {
            object: s3::name(&self.bucket.bucket, "").to_string(),
        })?
    }
}

/// Objects that are being read.
struct Reading<'o> {
    objects: &'o Arc<Objects>,
    tasks: JoinSet<(Object, u64, Result<Outcome, Trouble>)>,
    most: usize,
}

impl Reading<'_> {
    fn begin(&mut self, object: Object, size: u64) {
        let objects = Arc::clone(self.objects);
        self.tasks.spawn(async move {
            let mut outcome = objects.take(&object).await;
            // A connection that breaks says nothing of the object.
            for _ in 1..ATTEMPTS {
                let Err(Trouble::Fetch {
                    fault: Fault::Away, ..
                }) = outcome
                else {
                    break;
                };
                objects.rest(BREATH).await;
                outcome = objects.take(&object).await;
            }
            (object, size, outcome)
        });
    }

    /// Waits for one; `false` if none is being read. What one object has is no reason to end; what all have is.
    async fn one(
        &mut self,
        tally: &mut Tally,
        told: &mut (dyn FnMut(Told<'_>) + Send),
    ) -> Result<bool, Trouble> {
        let Some(done) = self.tasks.join_next().await else {
            return Ok(false);
        };
        let Ok((object, size, outcome)) = done else {
            tally.failed += 1;
            return Ok(true);
        };
        match outcome {
            Ok(Outcome::Read { events, letters }) => {
                tally.fetched += 1;
                tally.fetched_bytes += size;
                tally.events += events;
                tally.letters += letters;
            }
            // A queue was faster.
            Ok(Outcome::Repeated) => tally.known += 1,
            Err(trouble) if trouble.is_of_all() => return Err(trouble),
            Err(trouble) => {
                tally.failed += 1;
                // Rounds that look so far back try it again; what they never get has its name in a dead letter.
                self.objects.give_up_once(&object, &trouble)?;
                told(Told::Failed(&trouble));
            }
        }
        told(Told::Tally(tally));
        Ok(true)
    }
}

/// Looks through buckets from time to time until told to stop.
pub fn run(buckets: &[Bucket], shop: &Shop) -> Result<(), BusError> {
    aws::threads("buckets")?.block_on(async {
        let mut readers = JoinSet::new();
        for bucket in buckets {
            let (bucket, shop) = (bucket.clone(), shop.clone());
            readers.spawn(async move { rounds(&bucket, &shop).await });
        }
        readers.join_all().await;
    });
    Ok(())
}

async fn rounds(bucket: &Bucket, shop: &Shop) {
    let round = Round::new(bucket, shop).await;
    let name = match bucket.prefix.as_str() {
        "" => bucket.bucket.clone(),
        prefix => format!("{}/{prefix}", bucket.bucket),
    };
    let post = shop.metrics.collectors.post("bucket", &name);
    post.alone(&s3::name(&bucket.bucket, &bucket.prefix));
    let mut backfill = Time::parse(&bucket.from).ok();
    if backfill.is_some_and(|from| round.was_filled(from)) {
        backfill = None;
    }
    let mut nth = 0;
    while !shop.stop.is_stopped() {
        let now = (shop.clock)();
        let common = bucket.look_back_hours as i64 * 3_600;
        let (back, folder_days) = match nth % LONG_EVERY {
            0 => (LONG_SECONDS.max(common), LATE_DAYS.1),
            _ => (common, LATE_DAYS.0),
        };
        let range = Range {
            from: backfill.unwrap_or(now.plus(-back * 1_000_000)),
            to: Time::MAX,
            folder_days,
            fetch: true,
        };
        // All names of a backfill may be more than fit into memory: the next round verifies what came lately.
        let verify = bucket.verify && backfill.is_none();
        let wait = match once(&round, range, verify).await {
            Ok(()) => {
                post.well("look", 1, (shop.clock)());
                if let Some(from) = backfill.take() {
                    round.fill(from);
                }
                nth += 1;
                bucket.every_minutes * 60
            }
            Err(Trouble::Stopped) => return,
            Err(trouble) => {
                shop.metrics
                    .errors
                    .with_label_values(&[trouble.kind()])
                    .inc();
                post.failed("look", Failure::of(&trouble), (shop.clock)());
                tracing::error!(
                    bucket = bucket.bucket,
                    error = &trouble as &dyn std::error::Error,
                    hint = trouble.hint(),
                    "cannot look through the bucket, tried again"
                );
                60
            }
        };
        aws::rest(Duration::from_secs(wait), &shop.stop).await;
    }
}

/// One round, and what the digests say of what it saw.
async fn once(round: &Round<'_>, range: Range, verify: bool) -> Result<(), Trouble> {
    let name = round.bucket.bucket.as_str();
    let mut names = BTreeMap::new();
    let metrics = &round.shop.metrics;
    let mut said = (round.shop.clock)();
    let mut told = |word: Told<'_>| match word {
        Told::Tally(tally) => {
            let now = (round.shop.clock)();
            if now.0 - said.0 >= 60_000_000 {
                said = now;
                tracing::info!(
                    bucket = name,
                    listed = tally.listed,
                    missing = tally.missing,
                    fetched = tally.fetched,
                    events = tally.events,
                    "looking through the bucket"
                );
            }
        }
        Told::Listed(object) => {
            metrics.collectors.saw(&object.key, (round.shop.clock)());
            if verify && digest::is_of_trail(&object.key) {
                names.insert(object.key.to_string(), object.etag.clone());
            }
        }
        Told::Missing(_) => {}
        Told::Failed(trouble) => {
            metrics.errors.with_label_values(&[trouble.kind()]).inc();
            tracing::warn!(
                bucket = name,
                error = trouble as &dyn std::error::Error,
                hint = trouble.hint(),
                "an object cannot be read, a dead letter names it; later rounds try it again"
            );
        }
    };
    let tally = round.go(range, &mut told).await?;
    let outcomes = &metrics.objects;
    outcomes.with_label_values(&["read"]).inc_by(tally.fetched);
    outcomes.with_label_values(&["failed"]).inc_by(tally.failed);
    if tally.missing > 0 {
        tracing::info!(
            bucket = name,
            listed = tally.listed,
            missing = tally.missing,
            fetched = tally.fetched,
            failed = tally.failed,
            events = tally.events,
            "looked through the bucket"
        );
    }
    if !verify {
        return Ok(());
    }
    let new = round.verify(names, range.from).await?;
    if new > 0 {
        tracing::error!(
            bucket = name,
            violations = new,
            "log files are not what CloudTrail vouches for; each violation is an event (category:Integrity)"
        );
    }
    Ok(())
}
