//! One worker of `hunt`: a file becomes chunks of rendered findings.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use detect::engine::{Engine, Scratch};
use detect::meter::{self, Reading};
use detect::tracker::{Baseline, Sightings};
use detect::window::{Correlation, Match};
use event::inventory::Inventory;
use event::json;
use event::{Event, Flag, Id, Str, Time};
use ingest::decode::{self, Decoder, Item, Limits};
use ingest::normalize::{Context, Normalizer};

use super::output::{self, Format};

/// What all workers share.
pub(crate) struct Setting {
    pub(crate) engine: Engine,
    pub(crate) correlations: Vec<Correlation>,
    pub(crate) baselines: Arc<[Baseline]>,
    pub(crate) format: Format,
    /// Are findings sorted by the times of their events?
    pub(crate) timeline: bool,
    pub(crate) from: Option<Time>,
    pub(crate) to: Option<Time>,
    pub(crate) now: Time,
    /// Are events kept whole, to be put into an index?
    pub(crate) keep: bool,
    /// What names and labels events get.
    pub(crate) inventory: Inventory,
}

impl Setting {
    /// Is the whole event of every record wanted, and not only of those that match?
    fn wants_whole(&self) -> bool {
        self.keep
            || !self.inventory.is_empty()
            || !self.baselines.is_empty()
            || self.engine.reads_envelope()
    }
}

/// A file to read.
pub(crate) struct Job {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
}

/// One event of a chunk: what is needed to know it again, and where its findings end.
pub(crate) struct Seen {
    pub(crate) id: u64,
    pub(crate) content: u32,
    pub(crate) time: Time,
    pub(crate) text_end: usize,
    pub(crate) rules_end: usize,
    pub(crate) cut_end: usize,
}

/// Something that could not be read.
pub(crate) struct BadPiece {
    pub(crate) object: String,
    pub(crate) offset: u64,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What a worker hands on: events in order with their findings rendered.
#[derive(Default)]
pub(crate) struct Chunk {
    pub(crate) events: Vec<Seen>,
    pub(crate) text: Vec<u8>,
    pub(crate) rules: Vec<u32>,
    /// The filters that took a match away, one entry a match.
    pub(crate) cut: Vec<u32>,
    /// Matches that correlations count, each with the number of its event in the chunk.
    pub(crate) matches: Vec<(usize, Match)>,
    /// What baselines learn from, each with the number of its event in the chunk.
    pub(crate) readings: Vec<(usize, Reading)>,
    pub(crate) bad: Vec<BadPiece>,
    /// The events themselves where they are kept, in the order of `events`.
    pub(crate) kept: Vec<Event>,
    /// How much of the file this chunk stands for.
    pub(crate) bytes: u64,
}

/// Small enough that what one thread wrote is still in a cache when the other reads it.
const CHUNK_EVENTS: usize = 512;
const CHUNK_BYTES: usize = 128 << 10;
/// How many chunks a worker is ahead at most.
pub(super) const CHUNKS: usize = 32;

pub(crate) struct Worker {
    decoder: Decoder,
    normalizer: Normalizer,
    scratch: Scratch,
    /// What was told of watched values.
    told: Sightings,
}

impl Worker {
    pub(crate) fn new(setting: &Setting) -> Worker {
        Worker {
            decoder: Decoder::new(Limits::of_files()),
            normalizer: Normalizer::beside(setting.engine.fields().clone()),
            scratch: Scratch::new(),
            told: Sightings::default(),
        }
    }

    /// Reads a file and sends its chunks; the last one stands for the whole file's size.
    pub(crate) fn file(&mut self, setting: &Setting, job: &Job, chunks: &SyncSender<Chunk>) {
        let object = job.path.display().to_string();
        let context = Context {
            ingest_time: setting.now,
            object: Str::from(object.as_str()),
            keep_raw: setting.keep,
        };
        let mut chunk = Chunk::default();
        let (normalizer, scratch) = (&mut self.normalizer, &mut self.scratch);
        let told = &mut self.told;
        let whole = setting.wants_whole();
        let mut each = |item: Item<'_>| {
            match item {
                Item::Bad(bad) => chunk.bad.push(BadPiece {
                    object: object.clone(),
                    offset: bad.offset,
                    reason: bad.reason.as_str(),
                    message: bad.message.to_owned(),
                }),
                Item::Record(record) => record_into(
                    setting,
                    &record,
                    &context,
                    normalizer,
                    (scratch, told),
                    whole,
                    &mut chunk,
                ),
            }
            if chunk.events.len() < CHUNK_EVENTS && chunk.text.len() < CHUNK_BYTES {
                return ControlFlow::Continue(());
            }
            // The next will be about as large.
            let next = Chunk {
                text: Vec::with_capacity(chunk.text.len() + chunk.text.len() / 4),
                events: Vec::with_capacity(chunk.events.len()),
                ..Chunk::default()
            };
            // Nobody listens any more: the run was stopped.
            if chunks.send(std::mem::replace(&mut chunk, next)).is_err() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let result = self
            .decoder
            .file(&job.path, &decode::Job::default(), &mut each);
        if let Err(error) = result {
            let cause = std::error::Error::source(&error)
                .map(ToString::to_string)
                .unwrap_or_default();
            chunk.bad.push(BadPiece {
                object: object.clone(),
                offset: 0,
                reason: "unreadable",
                message: format!("{error}: {cause}"),
            });
        }
        chunk.bytes = job.size;
        // A run that was stopped has nobody to send to.
        let _ = chunks.send(chunk);
    }
}

fn record_into(
    setting: &Setting,
    record: &decode::Record<'_>,
    context: &Context,
    normalizer: &mut Normalizer,
    (scratch, told): (&mut Scratch, &mut Sightings),
    whole: bool,
    chunk: &mut Chunk,
) {
    let mut event = match whole {
        true => normalizer.event(record, context),
        false => normalizer.sketch(record, context),
    };
    if !super::within(event.time, setting.from, setting.to) {
        return;
    }
    setting.inventory.label(&mut event);
    let key = key(&event);
    let json = record.root;
    let engine = &setting.engine;
    engine.matches_found(&event, json, normalizer.found(), scratch);
    if !scratch.matched().is_empty() {
        normalizer.complete(record, context, scratch.found(), &mut event);
    }
    for &rule in scratch.matched().iter().filter(|r| engine.generates(**r)) {
        output::render_match(setting.format, engine, rule, &event, &mut chunk.text);
        chunk.rules.push(rule);
    }
    chunk
        .cut
        .extend(scratch.cut().iter().map(|(filter, _)| *filter));
    if !setting.baselines.is_empty() {
        let number = chunk.events.len();
        let readings = meter::reading(&event, json).into_iter();
        let readings = readings.chain(engine.readings(&event, json, scratch, told));
        chunk.readings.extend(readings.map(|r| (number, r)));
    }
    // An amendment says what is already known once more: it is not counted.
    if engine.is_correlated(scratch.matched()) && !event.flags.has(Flag::Addendum) {
        let number = chunk.events.len();
        for found in engine.correlation_matches(&event, json, scratch) {
            let correlation = &setting.correlations[found.correlation];
            chunk.matches.push((
                number,
                Match::new(correlation, found.group, &event, 0, record.position)
                    .with(found.contribution),
            ));
        }
    }
    chunk.events.push(Seen {
        id: key,
        content: content_hash(record),
        time: event.time,
        text_end: chunk.text.len(),
        rules_end: chunk.rules.len(),
        cut_end: chunk.cut.len(),
    });
    if setting.keep {
        chunk.kept.push(event);
    }
}

/// Tells events apart within one run by the id that their record bears, else by ours; not stored anywhere.
fn key(event: &Event) -> u64 {
    use std::hash::{Hash, Hasher};
    if event.id != Id::default() {
        return event.id.0 as u64;
    }
    let mut hasher = rustc_hash::FxHasher::default();
    (event.account.as_str(), event.source_id.as_str()).hash(&mut hasher);
    hasher.finish()
}

/// Tells records of the same id apart within one run by what they say, as the service does
/// ([`event::Event::content_hash`]); not stored anywhere.
fn content_hash(record: &decode::Record<'_>) -> u32 {
    use std::hash::Hasher;
    let of_bytes = || {
        let mut hasher = rustc_hash::FxHasher::default();
        hasher.write(record.text);
        hasher.finish()
    };
    let hash = record
        .doc
        .zip(record.root)
        .and_then(|(doc, root)| json::said_hash(doc, root));
    let hash = hash.unwrap_or_else(of_bytes);
    (hash ^ hash >> 32) as u32
}
