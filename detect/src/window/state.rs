//! How windows are stored between commits: a row for each group, more for a large one, and one row for the stage.
//!
//! ```text
//!   key  'g', 16 bytes of the group's key                           value  JSON of one group, as `StoredGroup`
//!        'c', 16 bytes, which set (0, 1), number of the chunk (4)          JSON of some of its matches, as `StoredSet`
//!        's'                                                               JSON of what all groups of a partition share
//! ```
//!
//! Matches that are kept one by one stand in the row of their group as long as they are few, and by chunks in rows of
//! their own where they are many, so that one more of them writes one chunk again and not all. A group's contexts
//! stand once each in a table, since the matches of one group mostly share theirs. The row names the rule and its
//! namespace, so that a row of a rule that has changed is known and dropped. `windows` decides what is written;
//! deadlines, ranks and what the windows hold are not stored, they follow from the group. Beside these rows stand those
//! of `crate::recount`, which have other letters.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bus::Offset;
use event::{Finding, Id, Str, Time};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::body::{Body, Run};
use super::episode::{Episode, Point, Rank, Said};
use super::firing::Firing;
use super::group::Group;
use super::inside::{ByValue, Inside};
use super::kept::{Kept, Kind, Terms};
use super::loose::{Loose, LooseSet, What};
use super::matches::{Carried, Watermark};

/// Stored windows that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the stored windows at key {key}")]
pub struct StateError {
    /// The key, as hexadecimal digits.
    pub key: String,
    /// What does not fit.
    #[source]
    pub source: serde_json::Error,
}

/// A row to be written, or removed where it has no value.
pub(super) type Change = (Vec<u8>, Option<Vec<u8>>);

/// The key of what all groups of a partition share.
pub(super) const STAGE_KEY: &[u8] = b"s";

/// The row of one group.
pub(super) fn group_row(key: Id) -> Vec<u8> {
    [b"g".as_slice(), &key.to_bytes()].concat()
}

fn chunk_row(key: Id, set: u8, number: u32) -> Vec<u8> {
    let number = number.to_be_bytes();
    [b"c".as_slice(), &key.to_bytes(), &[set], &number].concat()
}

/// Of which group, which set and which chunk is this a row?
fn chunk_of(row: &[u8]) -> Option<(Id, u8, u32)> {
    let (key, rest) = row.strip_prefix(b"c")?.split_first_chunk::<16>()?;
    let (set, number) = rest.split_first()?;
    let number = u32::from_be_bytes(number.try_into().ok()?);
    Some((Id::from_bytes(*key), *set, number))
}

/// What the `matches` of one partition of `events` have told so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Input {
    /// The last watermark.
    pub(super) watermark: Option<Watermark>,
    /// The offset of the last event that matched.
    pub(super) offset: Option<Offset>,
    /// The groups that this event matched in.
    pub(super) groups: Vec<Id>,
}

/// What one partition of `matches` has told of the correlations there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lower {
    /// How far it has settled each level.
    pub(super) levels: BTreeMap<u32, i64>,
    /// The offset of the last record through which one fired.
    pub(super) offset: Option<Offset>,
}

/// What all groups of a partition share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredStage {
    pub(super) watermark: i64,
    pub(super) inputs: BTreeMap<u32, Input>,
    /// The watermarks of the levels above 0.
    #[serde(default)]
    pub(super) levels: Vec<i64>,
    /// By partition of `matches`.
    #[serde(default)]
    pub(super) lowers: BTreeMap<u32, Lower>,
    /// The hour of the last key-flood finding of a rule.
    pub(super) floods: BTreeMap<Str, i64>,
}

/// Matches, with the contexts that they share.
#[derive(Default, Serialize, Deserialize)]
struct StoredSet {
    contexts: Vec<Arc<Finding>>,
    #[serde(default)]
    matches: Vec<StoredLoose>,
}

/// One group.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredGroup {
    pub(super) rule: Str,
    pub(super) namespace: Id,
    group: BTreeMap<Str, Option<Str>>,
    contexts: Vec<Arc<Finding>>,
    /// Time, id, shown id, context, late: how matches stood here when they had nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    loose: Vec<(i64, Id, Str, usize, bool)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    matches: Vec<StoredLoose>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    episodes: Vec<StoredEpisode>,
    reopened: Option<(i64, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    firing: Option<StoredFiring>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled: Option<StoredSettled>,
    /// Time, order of the source's id, our id, rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    met: Vec<(i64, Id, Id, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forgotten: Option<(i64, Id, Id)>,
}

#[derive(Serialize, Deserialize)]
struct StoredFiring {
    contexts: Vec<Arc<Finding>>,
    matches: Vec<StoredLoose>,
    reopened: Option<(i64, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rough_to: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct StoredSettled {
    done: i64,
    rough_to: i64,
}

/// A match that is kept, in few letters.
#[derive(Serialize, Deserialize)]
struct StoredLoose {
    #[serde(rename = "t")]
    time: i64,
    #[serde(rename = "i")]
    id: Id,
    #[serde(rename = "s")]
    shown: Str,
    #[serde(rename = "c")]
    context: usize,
    #[serde(rename = "l", default, skip_serializing_if = "is_false")]
    late: bool,
    #[serde(rename = "r", default, skip_serializing_if = "is_false")]
    rough: bool,
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    what: Vec<u64>,
    #[serde(rename = "a", default, skip_serializing_if = "is_zero")]
    also: u32,
    #[serde(rename = "f", default, skip_serializing_if = "is_false")]
    fired: bool,
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    carried: Option<Arc<Carried>>,
}

fn is_false(truth: &bool) -> bool {
    !truth
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[derive(Serialize, Deserialize)]
struct StoredEpisode {
    /// Time, order of the source's id, our id.
    first: (i64, Id, Id),
    context: usize,
    last: i64,
    count: u64,
    earliest: Vec<(i64, Id, Str)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    latest: Vec<(i64, Id, Id)>,
    /// Times with values, or with sets of rules where their order matters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    values: Vec<(i64, u64)>,
    sealed: bool,
    late: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    rough: bool,
    said: Option<StoredSaid>,
}

#[derive(Serialize, Deserialize)]
struct StoredSaid {
    id: Id,
    revision: u64,
    count: u64,
    by: Id,
    first: i64,
    last: i64,
    #[serde(default, skip_serializing_if = "is_false")]
    approximate: bool,
}

/// The rows of one group that have to be written again or removed.
pub(super) fn encode(key: Id, rule: &Str, namespace: Id, body: &mut Body) -> Vec<Change> {
    let mut rows = Vec::new();
    let mut table = Contexts::default();
    let mut stored = StoredGroup {
        rule: rule.clone(),
        namespace,
        group: body.group.clone(),
        contexts: Vec::new(),
        loose: Vec::new(),
        matches: Vec::new(),
        episodes: Vec::new(),
        reopened: None,
        firing: None,
        settled: None,
        met: body
            .met
            .iter()
            .map(|((time, rank), rules)| (time.0, Id(rank.text), rank.id, *rules))
            .collect(),
        forgotten: body.forgotten.map(to_row),
    };
    let mut store_group = |group: &mut Group, stored: &mut StoredGroup, rows: &mut Vec<Change>| {
        stored.matches = store_set(key, 0, &mut group.kept.loose, &mut table, rows);
        let episodes = group.episodes.iter();
        stored.episodes = episodes
            .map(|e| store_episode(e, table.number(&e.context)))
            .collect();
        stored.reopened = pair(group.kept.reopened);
    };
    let store_firing = |firing: &mut Firing, rows: &mut Vec<Change>| {
        let mut table = Contexts::default();
        let matches = store_set(key, 1, &mut firing.kept.loose, &mut table, rows);
        StoredFiring {
            matches,
            contexts: table.contexts,
            reopened: pair(firing.kept.reopened),
            rough_to: (firing.rough_to > Time::MIN).then_some(firing.rough_to.0),
        }
    };
    match &mut body.run {
        Run::Episodes(group) => store_group(group, &mut stored, &mut rows),
        Run::Firing(firing) => stored.firing = Some(store_firing(firing, &mut rows)),
        Run::Both(group, firing) => {
            store_group(group, &mut stored, &mut rows);
            stored.firing = Some(store_firing(firing, &mut rows));
        }
        Run::Settled(settled) => {
            stored.matches = store_set(key, 0, &mut settled.kept, &mut table, &mut rows);
            let episode = settled.episode.iter();
            stored.episodes = episode
                .map(|e| store_episode(e, table.number(&e.context)))
                .collect();
            stored.settled = Some(StoredSettled {
                done: settled.done.0,
                rough_to: settled.rough_to.0,
            });
        }
    }
    stored.contexts = table.contexts;
    rows.push((group_row(key), Some(to_json(&stored))));
    rows
}

/// The keys of all rows of a group that is no more.
pub(super) fn rows_of(key: Id, body: &Body) -> Vec<Vec<u8>> {
    let chunks = |set: u8, loose: &LooseSet| -> Vec<Vec<u8>> {
        loose.rows().map(|n| chunk_row(key, set, n)).collect()
    };
    let mut rows = match &body.run {
        Run::Episodes(group) => chunks(0, &group.kept.loose),
        Run::Firing(firing) => chunks(1, &firing.kept.loose),
        Run::Both(group, firing) => {
            [chunks(0, &group.kept.loose), chunks(1, &firing.kept.loose)].concat()
        }
        Run::Settled(settled) => chunks(0, &settled.kept),
    };
    rows.push(group_row(key));
    rows
}

/// Gives the matches that stand in the group's own row.
fn store_set(
    key: Id,
    set: u8,
    loose: &mut LooseSet,
    table: &mut Contexts,
    rows: &mut Vec<Change>,
) -> Vec<StoredLoose> {
    let store = loose.store();
    for number in store.gone {
        rows.push((chunk_row(key, set, number), None));
    }
    for chunk in store.rows {
        let mut table = Contexts::default();
        let matches = chunk.items.iter();
        let stored = StoredSet {
            matches: matches.map(|l| store_loose(l, &mut table)).collect(),
            contexts: table.contexts,
        };
        rows.push((chunk_row(key, set, chunk.number), Some(to_json(&stored))));
    }
    let whole = store.whole.iter();
    whole.map(|l| store_loose(l, table)).collect()
}

/// Rows of chunks, by the group and the set that they belong to.
#[derive(Default)]
pub(super) struct Chunks(BTreeMap<(Id, u8), NumberedChunks>);

/// The chunks of a set, with their numbers.
type NumberedChunks = Vec<(u32, Vec<Loose>)>;

impl Chunks {
    /// Takes a row if it is one of a chunk.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<bool, serde_json::Error> {
        let Some((group, set, number)) = chunk_of(key) else {
            return Ok(false);
        };
        let stored: StoredSet = serde_json::from_slice(value)?;
        let loose = restore_set(stored.matches, &stored.contexts)?;
        self.0
            .entry((group, set))
            .or_default()
            .push((number, loose));
        Ok(true)
    }

    fn of(&mut self, group: Id, set: u8, whole: Vec<Loose>) -> LooseSet {
        match self.0.remove(&(group, set)) {
            Some(chunks) => LooseSet::restore(chunks, true),
            None => LooseSet::restore(vec![(0, whole)], false),
        }
    }

    /// The rows of chunks that no group has asked for.
    pub(super) fn rest(self) -> Vec<Vec<u8>> {
        let mut rows = Vec::new();
        for ((group, set), chunks) in self.0 {
            rows.extend(
                chunks
                    .iter()
                    .map(|(number, _)| chunk_row(group, set, *number)),
            );
        }
        rows
    }
}

impl StoredGroup {
    /// The row of a group.
    pub(super) fn decode(bytes: &[u8]) -> Result<StoredGroup, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The group, of the correlation that `terms` tell of.
    pub(super) fn into_body(
        self,
        key: Id,
        terms: Terms<'_>,
        chunks: &mut Chunks,
    ) -> Result<Body, serde_json::Error> {
        let mut body = Body::new(terms, self.group);
        let point = |(time, text, id, rules): (i64, Id, Id, u64)| {
            ((Time(time), Rank { text: text.0, id }), rules)
        };
        body.met = self.met.into_iter().map(point).collect();
        body.forgotten = self.forgotten.map(from_row);
        let old = self.loose.into_iter();
        let old = old.map(|(time, id, shown, context, late)| StoredLoose {
            time,
            id,
            shown,
            context,
            late,
            rough: false,
            what: Vec::new(),
            also: 0,
            fired: false,
            carried: None,
        });
        let matches = old.chain(self.matches).collect();
        let loose = restore_set(matches, &self.contexts)?;
        let episodes: Result<Vec<Episode>, _> = self
            .episodes
            .into_iter()
            .map(|e| {
                Ok(restore_episode(
                    terms.kind(),
                    context(&self.contexts, e.context)?,
                    e,
                ))
            })
            .collect();
        let mut episodes = episodes?;
        let mut restore_firing =
            |stored: Option<StoredFiring>| -> Result<Firing, serde_json::Error> {
                let Some(stored) = stored else {
                    return Ok(Firing::new());
                };
                let loose = restore_set(stored.matches, &stored.contexts)?;
                let loose = chunks.of(key, 1, loose);
                let mut kept = Kept::restore(loose, unpair(stored.reopened));
                kept.recount(terms, &[]);
                Ok(Firing {
                    kept,
                    rough_to: stored.rough_to.map_or(Time::MIN, Time),
                })
            };
        if let Run::Firing(firing) | Run::Both(_, firing) = &mut body.run {
            *firing = restore_firing(self.firing)?;
        }
        match &mut body.run {
            Run::Episodes(group) | Run::Both(group, _) => {
                let loose = chunks.of(key, 0, loose);
                group.kept = Kept::restore(loose, unpair(self.reopened));
                group.kept.recount(terms, &episodes);
                group.episodes = episodes;
            }
            Run::Settled(settled) => {
                settled.kept = chunks.of(key, 0, loose);
                settled.episode = episodes.pop();
                if let Some(stored) = self.settled {
                    settled.done = Time(stored.done);
                    settled.rough_to = Time(stored.rough_to);
                }
            }
            Run::Firing(_) => {}
        }
        Ok(body)
    }
}

/// What a partition's groups share, as bytes.
pub(super) fn encode_stage(stage: &StoredStage) -> Vec<u8> {
    to_json(stage)
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and maps with text keys")
}

/// The distinct contexts of a group, numbered in order of appearance.
#[derive(Default)]
struct Contexts {
    contexts: Vec<Arc<Finding>>,
    numbers: FxHashMap<*const Finding, usize>,
}

impl Contexts {
    fn number(&mut self, context: &Arc<Finding>) -> usize {
        let next = self.contexts.len();
        let number = *self.numbers.entry(Arc::as_ptr(context)).or_insert(next);
        if number == next {
            self.contexts.push(Arc::clone(context));
        }
        number
    }
}

fn context(contexts: &[Arc<Finding>], number: usize) -> Result<Arc<Finding>, serde_json::Error> {
    let found = contexts.get(number).map(Arc::clone);
    found.ok_or_else(|| serde::de::Error::custom("a context is missing"))
}

fn pair(times: Option<(Time, Time)>) -> Option<(i64, i64)> {
    times.map(|(a, b)| (a.0, b.0))
}

fn unpair(times: Option<(i64, i64)>) -> Option<(Time, Time)> {
    times.map(|(a, b)| (Time(a), Time(b)))
}

fn to_row((time, rank): Point) -> (i64, Id, Id) {
    (time.0, Id(rank.text), rank.id)
}

fn from_row((time, text, id): (i64, Id, Id)) -> Point {
    (Time(time), Rank { text: text.0, id })
}

fn store_loose(l: &Loose, table: &mut Contexts) -> StoredLoose {
    StoredLoose {
        time: l.at.0.0,
        id: l.at.1.id,
        shown: l.shown.clone(),
        context: table.number(&l.context),
        late: l.late,
        rough: l.rough,
        what: l.what.all().to_vec(),
        also: l.also,
        fired: l.fired,
        carried: l.carried.clone(),
    }
}

fn restore_set(
    matches: Vec<StoredLoose>,
    contexts: &[Arc<Finding>],
) -> Result<Vec<Loose>, serde_json::Error> {
    let restore = |m: StoredLoose| {
        Ok(Loose {
            at: (Time(m.time), Rank::new(&m.shown, m.id)),
            shown: m.shown,
            context: context(contexts, m.context)?,
            late: m.late,
            rough: m.rough,
            what: What::new(m.what),
            seen: 0,
            also: m.also,
            fired: m.fired,
            carried: m.carried,
        })
    };
    matches.into_iter().map(restore).collect()
}

fn store_episode(e: &Episode, context: usize) -> StoredEpisode {
    let (mut latest, mut values) = (Vec::new(), Vec::new());
    match &e.inside {
        Inside::Nothing => {}
        Inside::Latest(points) => latest = points.iter().copied().map(to_row).collect(),
        Inside::ByValue(all) => values = all.rows().map(|(t, v)| (t.0, *v)).collect(),
        Inside::Row(row) => values = row.iter().map(|(t, rules)| (t.0, *rules)).collect(),
    }
    StoredEpisode {
        first: to_row(e.first),
        context,
        last: e.last.0,
        count: e.count,
        earliest: e
            .earliest
            .iter()
            .map(|((time, rank), shown)| (time.0, rank.id, shown.clone()))
            .collect(),
        latest,
        values,
        sealed: e.sealed,
        late: e.late,
        rough: e.rough,
        said: e.said.map(|said| StoredSaid {
            id: said.id,
            revision: said.revision,
            count: said.count,
            by: said.by,
            first: said.first.0,
            last: said.last.0,
            approximate: said.approximate,
        }),
    }
}

fn restore_episode(kind: Kind, context: Arc<Finding>, e: StoredEpisode) -> Episode {
    let values = e.values.into_iter().map(|(t, v)| (Time(t), v));
    let inside = match Inside::new(kind) {
        Inside::Nothing => Inside::Nothing,
        Inside::Latest(_) => {
            Inside::Latest(e.latest.into_iter().map(from_row).collect::<VecDeque<_>>())
        }
        Inside::ByValue(_) => Inside::ByValue(ByValue::from_rows(values)),
        Inside::Row(_) => Inside::Row(values.collect()),
    };
    Episode {
        first: from_row(e.first),
        context,
        last: Time(e.last),
        count: e.count,
        earliest: e
            .earliest
            .into_iter()
            .map(|(time, id, shown)| ((Time(time), Rank::new(&shown, id)), shown))
            .collect(),
        inside,
        sealed: e.sealed,
        late: e.late,
        rough: e.rough,
        said: e.said.map(|said| Said {
            id: said.id,
            revision: said.revision,
            count: said.count,
            by: said.by,
            first: Time(said.first),
            last: Time(said.last),
            approximate: said.approximate,
        }),
    }
}

#[cfg(test)]
mod tests;
