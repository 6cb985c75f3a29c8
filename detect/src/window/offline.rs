//! Correlation of a whole input at once, for `hunt`: matches in any order in, one finding per episode out.
//!
//! [`Offline`] sorts the matches by (correlation, group, time, id), outside memory where they are many, and then
//! runs each group through the same `Group` as the live windows, with the time of each match as the watermark of
//! those before it. A repeated match (same event, same time) counts once. The findings are what live windows say
//! last when everything has come within the lateness: same episode, times, count and evidence. Their `id` is the
//! `episode`: the order of a folder's files says nothing about which event fired first, so the earliest did. Live,
//! the two are the same wherever matches come in order. Findings come in order of correlation (as given), then
//! group, then time; whoever shows them sorts them.

use std::collections::BTreeMap;
use std::io;

use event::{Finding, Str, Time};
use rustc_hash::FxHashMap;

use super::episode::Rank;
use super::group::{Group, Terms};
use super::matches::{Correlation, Match};
use super::spill::{Entry, Spill};

/// How much memory matches may take before they are written to temporary files: 64 MiB.
pub const OFFLINE_MEMORY: usize = 64 << 20;

/// Why an input could not be correlated.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A temporary file could not be written or read.
    #[error("cannot sort matches in temporary files")]
    Spill(#[from] io::Error),
    /// A match is not what was written.
    #[error("cannot read a match back from a temporary file")]
    Decode(#[from] serde_json::Error),
}

/// Matches of a whole input, being collected.
pub struct Offline {
    correlations: Vec<Correlation>,
    numbers: FxHashMap<Str, u32>,
    spill: Spill,
    unknown: u64,
}

impl Offline {
    /// An empty collection that keeps at most `memory` bytes of matches in memory ([`OFFLINE_MEMORY`] for a start).
    pub fn new(correlations: Vec<Correlation>, memory: usize) -> Offline {
        let ids = correlations.iter().map(|c| c.rule_id.clone());
        Offline {
            numbers: ids.zip(0..).collect(),
            correlations,
            spill: Spill::new(memory),
            unknown: 0,
        }
    }

    /// Takes a match, in any order.
    pub fn push(&mut self, m: Match) -> Result<(), OfflineError> {
        let Some(&correlation) = self.numbers.get(&m.correlation) else {
            self.unknown += 1;
            return Ok(());
        };
        let entry = Entry {
            correlation,
            group: m.key(),
            time: m.time.clamp(Time::MIN, Time::MAX),
            rank: Rank::new(m.context.event_ids.first().map_or("", |shown| shown), m.id),
            content: serde_json::to_vec(&(&m.group, &m.context))?,
        };
        Ok(self.spill.push(entry)?)
    }

    /// How many matches named a correlation that is not here.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Says every episode, once and finally.
    pub fn finish(self, mut say: impl FnMut(Finding)) -> Result<(), OfflineError> {
        let Offline {
            correlations,
            spill,
            ..
        } = self;
        let mut current: Option<(u32, event::Id, Group)> = None;
        let mut out = Vec::new();
        for entry in spill.sorted()? {
            let entry = entry?;
            let same = |(correlation, group, _): &(u32, event::Id, Group)| {
                (*correlation, *group) == (entry.correlation, entry.group)
            };
            if !current.as_ref().is_some_and(same)
                && let Some((correlation, _, mut group)) = current.take()
            {
                group.close(terms(&correlations, correlation, Time::MAX), &mut out);
            }
            let m = decode(&correlations, &entry)?;
            let (correlation, _, group) = current.get_or_insert_with(|| {
                (entry.correlation, entry.group, Group::new(m.group.clone()))
            });
            let terms = terms(&correlations, *correlation, entry.time);
            group.advance(terms, &mut out);
            group.take(terms, m, &mut out);
            out.drain(..).for_each(&mut say);
        }
        if let Some((correlation, _, mut group)) = current {
            group.close(terms(&correlations, correlation, Time::MAX), &mut out);
        }
        out.into_iter().for_each(say);
        Ok(())
    }
}

/// In order of time nothing is late, and what lies before a match cannot change any more.
fn terms(correlations: &[Correlation], number: u32, watermark: Time) -> Terms<'_> {
    Terms {
        rule: &correlations[number as usize],
        lateness: 0,
        watermark,
    }
}

fn decode(correlations: &[Correlation], entry: &Entry) -> Result<Match, OfflineError> {
    let (group, context): (BTreeMap<Str, Option<Str>>, Finding) =
        serde_json::from_slice(&entry.content)?;
    Ok(Match {
        correlation: correlations[entry.correlation as usize].rule_id.clone(),
        group,
        time: entry.time,
        id: entry.rank.id,
        partition: 0,
        offset: 0,
        context,
    })
}
