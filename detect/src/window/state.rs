//! How windows are stored between commits: a row for each group and one row for the stage.
//!
//! ```text
//!   key  'g', 16 bytes of the group's key    value  JSON of one group, as `StoredGroup`
//!        's'                                        JSON of what all groups of a partition share, as `StoredStage`
//! ```
//!
//! A group's contexts stand once each in a table, since the matches of one group mostly share theirs. The row
//! names the rule and its namespace, so that a row of a rule that has changed is known and dropped. `windows`
//! decides what is written; deadlines and ranks are not stored, they follow from the group.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bus::Offset;
use event::{Finding, Id, Str, Time};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::episode::{Episode, Loose, Point, Rank, Said};
use super::group::Group;
use super::matches::Watermark;

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

/// The key of what all groups of a partition share.
pub(super) const STAGE_KEY: &[u8] = b"s";

/// The row of one group.
pub(super) fn group_row(key: Id) -> Vec<u8> {
    [b"g".as_slice(), &key.to_bytes()].concat()
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

/// What all groups of a partition share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredStage {
    pub(super) watermark: i64,
    pub(super) inputs: BTreeMap<u32, Input>,
    /// The hour of the last key-flood finding of a rule.
    pub(super) floods: BTreeMap<Str, i64>,
}

#[derive(Serialize, Deserialize)]
struct StoredGroup {
    rule: Str,
    namespace: Id,
    group: BTreeMap<Str, Option<Str>>,
    contexts: Vec<Arc<Finding>>,
    /// Time, id, shown id, context, late.
    loose: Vec<(i64, Id, Str, usize, bool)>,
    episodes: Vec<StoredEpisode>,
    reopened: Option<(i64, i64)>,
}

#[derive(Serialize, Deserialize)]
struct StoredEpisode {
    /// Time, order of the source's id, our id.
    first: (i64, Id, Id),
    context: usize,
    last: i64,
    count: u64,
    earliest: Vec<(i64, Id, Str)>,
    latest: Vec<(i64, Id, Id)>,
    sealed: bool,
    late: bool,
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
}

/// A group as bytes, with the rule and the namespace it belongs to.
pub(super) fn encode(rule: &Str, namespace: Id, group: &Group) -> Vec<u8> {
    let mut table = Contexts::default();
    let stored = StoredGroup {
        rule: rule.clone(),
        namespace,
        group: group.group.clone(),
        loose: group
            .loose
            .iter()
            .map(|l| {
                let context = table.number(&l.context);
                (l.at.0.0, l.at.1.id, l.shown.clone(), context, l.late)
            })
            .collect(),
        episodes: group
            .episodes
            .iter()
            .map(|e| store(e, table.number(&e.context)))
            .collect(),
        contexts: table.contexts,
        reopened: group.reopened.map(|(own, until)| (own.0, until.0)),
    };
    to_json(&stored)
}

/// The inverse of [`encode`].
pub(super) fn decode(bytes: &[u8]) -> Result<(Str, Id, Group), serde_json::Error> {
    let stored: StoredGroup = serde_json::from_slice(bytes)?;
    let contexts = stored.contexts;
    let context = |number: usize| -> Result<Arc<Finding>, serde_json::Error> {
        let found = contexts.get(number).map(Arc::clone);
        found.ok_or_else(|| serde::de::Error::custom("a context is missing"))
    };
    let loose: Result<Vec<Loose>, _> = stored
        .loose
        .into_iter()
        .map(|(time, id, shown, number, late)| {
            Ok(Loose {
                at: (Time(time), Rank::new(&shown, id)),
                shown,
                context: context(number)?,
                late,
            })
        })
        .collect();
    let episodes: Result<Vec<Episode>, _> = stored
        .episodes
        .into_iter()
        .map(|e| Ok(restore(context(e.context)?, e)))
        .collect();
    let group = Group {
        group: stored.group,
        loose: loose?,
        episodes: episodes?,
        reopened: stored.reopened.map(|(own, until)| (Time(own), Time(until))),
    };
    Ok((stored.rule, stored.namespace, group))
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

fn to_row((time, rank): Point) -> (i64, Id, Id) {
    (time.0, Id(rank.text), rank.id)
}

fn from_row((time, text, id): (i64, Id, Id)) -> Point {
    (Time(time), Rank { text: text.0, id })
}

fn store(e: &Episode, context: usize) -> StoredEpisode {
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
        latest: e.latest.iter().copied().map(to_row).collect(),
        sealed: e.sealed,
        late: e.late,
        said: e.said.map(|said| StoredSaid {
            id: said.id,
            revision: said.revision,
            count: said.count,
            by: said.by,
            first: said.first.0,
            last: said.last.0,
        }),
    }
}

fn restore(context: Arc<Finding>, e: StoredEpisode) -> Episode {
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
        latest: e.latest.into_iter().map(from_row).collect::<VecDeque<_>>(),
        sealed: e.sealed,
        late: e.late,
        said: e.said.map(|said| Said {
            id: said.id,
            revision: said.revision,
            count: said.count,
            by: said.by,
            first: Time(said.first),
            last: Time(said.last),
        }),
    }
}
