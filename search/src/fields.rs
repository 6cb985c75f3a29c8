//! What the fields of the events that match are: which there are, how many events have each, and with what values.
//!
//! [`Searcher::fields`] reads whole events, since people want to see the fields that they do not know of yet; so it reads
//! a sample of what matches, and says how many it has read of how many. Every number is about the events that were read.
//! An event is in the sample by a hash of its id: that has nothing to do with when or how often things happen, and the
//! same question gives the same sample. Several indexes each give what they have of it ([`Sample`]), and together the same
//! sample as one index of all.

use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use event::{Event, Time};
use serde::{Deserialize, Serialize};
use tantivy::{DocId, SegmentReader};

use crate::compile::stored;
use crate::nodes::Frame;
use crate::query::Field;
use crate::query::matches::Subject;
use crate::request::{Kind, Request, SearchError};
use crate::searcher::Searcher;

/// Events that are read, at most.
pub const MAX_SAMPLE: usize = 10_000;
/// What is read is no more than so many bytes; tests meet it with less.
const SAMPLE_BYTES: usize = if cfg!(test) { 512 << 10 } else { 24 << 20 };
/// Fields that are told, at most.
const MAX_FIELDS: usize = 5_000;
/// Distinct values of one field that are told apart, at most, and of all fields.
const MAX_VALUES: usize = 10_000;
const MAX_TEXTS: usize = 200_000;
/// How much of a value is told, in bytes.
const MAX_TEXT: usize = 256;
/// How many values of a field are told.
const TOP: usize = 10;

/// What the fields of some events are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FieldStats {
    /// The fields, those that most events have first, then by name.
    pub fields: Vec<FieldStat>,
    /// How many events match.
    pub matched: u64,
    /// How many of them were read; all numbers of fields are about these.
    pub read: u64,
    /// Is that fewer than match?
    pub sampled: bool,
    /// Why not everything that matches was looked at, where that is so.
    pub partial: Option<String>,
}

/// One field of the events that were read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FieldStat {
    /// Its name, as it is written in queries.
    pub field: String,
    /// How many events have it.
    pub events: u64,
    /// How many distinct values it has, told apart by case.
    pub distinct: u64,
    /// Were there more values than are told apart, so that `distinct` is a least number and `top` may miss some?
    pub approximate: bool,
    /// The most frequent values.
    pub top: Vec<TopValue>,
}

/// A value and how many events have it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TopValue {
    /// The value; a long one is cut.
    pub value: String,
    /// How many events have it.
    pub count: u64,
}

#[derive(Default)]
struct Seen {
    events: u64,
    hashes: HashSet<u64>,
    values: HashMap<String, u64>,
    cut: bool,
}

/// A sample of what matches in one index, to be merged with that of others.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// How many match.
    pub(crate) matched: u64,
    /// Those with the smallest hashes: hash, and what is stored of it.
    pub(crate) read: Vec<(u64, Frame)>,
    /// The smallest hash of those that should be in the sample and were let go since it would have been too large.
    pub(crate) cut: Option<u64>,
    /// Why not everything that matches was looked at, where that is so.
    pub(crate) partial: Option<String>,
}

impl Searcher {
    /// The fields of what matches, from a sample of at most `most` events (or findings), [`MAX_SAMPLE`] at most.
    pub fn fields(&self, request: &Request, most: usize) -> Result<FieldStats, SearchError> {
        let sample = self.sample(request, most, self.now())?;
        Ok(FieldStats::of(vec![sample], request.kind, most))
    }

    /// The sample that fields are told from.
    pub(crate) fn sample(
        &self,
        request: &Request,
        most: usize,
        now: Time,
    ) -> Result<Sample, SearchError> {
        let most = most.clamp(1, MAX_SAMPLE);
        let query = self.checked(request)?;
        let mut run = self.run(request, now);
        let context = self.context(&run);
        run.narrow(&query);
        let mut sample = Sample::default();
        let mut readers: Vec<SegmentReader> = Vec::new();
        // Those with the smallest hashes; the greatest is on top.
        let mut smallest: BinaryHeap<(u64, usize, DocId)> = BinaryHeap::new();
        let walked = self.each_match(&query, &run, |reader, order, doc| {
            if readers
                .last()
                .is_none_or(|r| r.segment_id() != reader.segment_id())
            {
                readers.push(reader.clone());
            }
            sample.matched += 1;
            let hash = mixed(order.id(doc));
            if smallest.len() < most || smallest.peek().is_some_and(|top| hash < top.0) {
                smallest.push((hash, readers.len() - 1, doc));
            }
            if smallest.len() > most {
                smallest.pop();
            }
        });
        match walked {
            Err(SearchError::Timeout(_)) => sample.partial = Some(self.out_of_time()),
            other => other?,
        }
        let mut places: Vec<(usize, DocId, u64)> = smallest
            .into_iter()
            .map(|(hash, reader, doc)| (reader, doc, hash))
            .collect();
        places.sort_unstable();
        // What was read, the greatest hash on top, and how many bytes it is.
        let mut read: BinaryHeap<(u64, Bytes)> = BinaryHeap::new();
        let mut bytes = 0;
        let mut store = None;
        for (number, doc, hash) in places {
            if !read.is_empty() && run.budget.is_over() {
                sample.partial = Some(self.out_of_time());
                break;
            }
            let store = match &store {
                Some((open, store)) if *open == number => store,
                _ => {
                    let opened = readers[number].get_store_reader(4);
                    let opened = opened.map_err(|e| self.error(e.into()))?;
                    &store.insert((number, opened)).1
                }
            };
            let Some(frame) = stored(store, doc, &context.fields).map_err(|e| self.error(e))?
            else {
                continue;
            };
            bytes += frame.len();
            read.push((hash, frame));
            while bytes > SAMPLE_BYTES
                && read.len() > 1
                && let Some((hash, frame)) = read.pop()
            {
                bytes -= frame.len();
                sample.cut = Some(sample.cut.map_or(hash, |cut| cut.min(hash)));
            }
        }
        let read = read.into_sorted_vec().into_iter();
        sample.read = read.map(|(hash, frame)| (hash, Frame(frame))).collect();
        Ok(sample)
    }
}

impl FieldStats {
    /// What samples of several indexes come to: the fields of those `most` events that one index of all would have read.
    pub(crate) fn of(samples: Vec<Sample>, kind: Kind, most: usize) -> FieldStats {
        let mut stats = FieldStats::default();
        let mut read: Vec<(u64, Frame)> = Vec::new();
        // Beyond this hash one of the samples lacks something.
        let mut end: Option<u64> = None;
        for sample in samples {
            stats.matched += sample.matched;
            stats.partial = stats.partial.or(sample.partial);
            read.extend(sample.read);
            end = match (end, sample.cut) {
                (Some(end), Some(cut)) => Some(end.min(cut)),
                (end, cut) => end.or(cut),
            };
        }
        read.retain(|(hash, _)| end.is_none_or(|end| *hash < end));
        read.sort_unstable_by_key(|(hash, _)| *hash);
        read.truncate(most.clamp(1, MAX_SAMPLE));
        let mut seen: BTreeMap<(bool, String), Seen> = BTreeMap::new();
        let mut texts = 0;
        let hasher = RandomState::new();
        for (_, Frame(bytes)) in &read {
            match kind {
                Kind::Events => {
                    let Ok(event) = Event::decode(bytes) else {
                        continue;
                    };
                    take(&Subject::event(&event), &hasher, &mut seen, &mut texts);
                }
                Kind::Findings => {
                    take(&Subject::finding(bytes), &hasher, &mut seen, &mut texts);
                }
            }
            stats.read += 1;
        }
        stats.sampled = stats.read < stats.matched;
        stats.fields = seen
            .into_iter()
            .map(|((original, name), seen)| told(Field { name, original }, seen, kind))
            .collect();
        stats
            .fields
            .sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.field.cmp(&b.field)));
        stats
    }
}

/// A hash of an id (SplitMix64): ids are hashes already, but sources may choose theirs.
fn mixed(id: u128) -> u64 {
    let mut x = (id as u64 ^ (id >> 64) as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Takes the fields of one event in.
fn take(
    subject: &Subject<'_>,
    hasher: &RandomState,
    seen: &mut BTreeMap<(bool, String), Seen>,
    texts: &mut usize,
) {
    // Of an event each field and each value counts once.
    let mut fields: BTreeMap<(bool, String), HashSet<String>> = BTreeMap::new();
    subject.each_value(&mut |name, original, value| {
        let mut end = value.len().min(MAX_TEXT);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        fields
            .entry((original, name.to_owned()))
            .or_default()
            .insert(value[..end].to_owned());
    });
    for (key, values) in fields {
        if seen.len() >= MAX_FIELDS && !seen.contains_key(&key) {
            continue;
        }
        let field = seen.entry(key).or_default();
        field.events += 1;
        for value in values {
            let known = field.hashes.len() < MAX_VALUES;
            if known {
                field.hashes.insert(hasher.hash_one(&value));
            }
            if let Some(count) = field.values.get_mut(&value) {
                *count += 1;
            } else if known && *texts < MAX_TEXTS {
                *texts += 1;
                field.values.insert(value, 1);
            } else {
                field.cut = true;
            }
        }
    }
}

fn told(field: Field, seen: Seen, kind: Kind) -> FieldStat {
    let mut top: Vec<TopValue> = seen
        .values
        .into_iter()
        .map(|(value, count)| TopValue { value, count })
        .collect();
    top.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
    top.truncate(TOP);
    FieldStat {
        field: match kind {
            Kind::Events => field.to_string(),
            Kind::Findings => field.name,
        },
        events: seen.events,
        distinct: seen.hashes.len() as u64,
        approximate: seen.cut,
        top,
    }
}
