//! Correlation of a whole input at once, for `hunt`: matches in any order in, one finding per episode out.
//!
//! [`Offline`] sorts the matches by (correlation, group, time, id), outside memory where they are many, and then
//! runs each group through the same algorithms as the live windows, with the time of each match as the watermark of
//! those before it. A repeated match (same event, same time) counts once. What correlations hand on to others is
//! sorted in turn: level by level, each when the one below is done. The findings are what live windows say
//! last when everything has come within the lateness: same episode, times, count and evidence. Their `id` is the
//! `episode`: the order of a folder's files says nothing about which event fired first, so the earliest did. Live,
//! the two are the same wherever matches come in order. Findings come in order of level, then correlation (as given),
//! then group, then time; whoever shows them sorts them.

use std::collections::BTreeMap;
use std::io;

use event::{Finding, Str, Time};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::body::{Body, Out};
use super::episode::Rank;
use super::kept::Terms;
use super::matches::{Carried, Correlation, Match};
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
    /// By level.
    spills: Vec<Spill>,
    unknown: u64,
}

/// What an entry does not say by its place.
#[derive(Serialize, Deserialize)]
struct Content {
    group: BTreeMap<Str, Option<Str>>,
    context: Finding,
    rules: u64,
    values: Vec<u64>,
    carried: Carried,
}

impl Offline {
    /// An empty collection that keeps at most `memory` bytes of matches in memory ([`OFFLINE_MEMORY`] for a start), for
    /// each level of correlations that refer to one another.
    pub fn new(correlations: Vec<Correlation>, memory: usize) -> Offline {
        let ids = correlations.iter().map(|c| c.rule_id.clone());
        let highest = correlations.iter().map(|c| c.chain.level).max();
        Offline {
            numbers: ids.zip(0..).collect(),
            spills: (0..=highest.unwrap_or(0))
                .map(|_| Spill::new(memory))
                .collect(),
            correlations,
            unknown: 0,
        }
    }

    /// Takes a match, in any order.
    pub fn push(&mut self, m: Match) -> Result<(), OfflineError> {
        let Some(&correlation) = self.numbers.get(&m.correlation) else {
            self.unknown += 1;
            return Ok(());
        };
        let level = self.correlations[correlation as usize].chain.level;
        let group = m.key();
        let entry = to_entry(correlation, group, m)?;
        Ok(self.spills[level as usize].push(entry)?)
    }

    /// How many matches named a correlation that is not here.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Says every episode, once and finally.
    pub fn finish(mut self, mut say: impl FnMut(Finding)) -> Result<(), OfflineError> {
        for level in 0..self.spills.len() {
            let spill = std::mem::replace(&mut self.spills[level], Spill::new(0));
            self.run(spill, &mut say)?;
        }
        Ok(())
    }

    /// Runs the groups of one level.
    fn run(&mut self, spill: Spill, say: &mut impl FnMut(Finding)) -> Result<(), OfflineError> {
        let mut open: Option<Open> = None;
        for entry in spill.sorted()? {
            let entry = entry?;
            if let Some(other) = open.take_if(|o| !o.is_of(&entry)) {
                self.end(other, say)?;
            }
            let number = entry.correlation;
            let (last, m) = (Some((entry.time, entry.rank)), self.decode(&entry)?);
            if let Some(open) = &open
                && open.last == last
                && self.correlations[number as usize].chain.level == 0
            {
                continue;
            }
            let correlation = &self.correlations[number as usize];
            // Nothing comes before the match before this one any more.
            let before = open
                .as_ref()
                .and_then(|o| o.last)
                .map_or(entry.time, |l| l.0);
            let terms = terms(correlation, before);
            let open = open.get_or_insert_with(|| Open {
                correlation: number,
                group: entry.group,
                body: Body::new(terms, m.group.clone()),
                last: None,
            });
            open.last = last;
            let mut out = Out::default();
            open.body.advance(terms, &mut out);
            open.body.take(terms, m, &mut out);
            self.give_out(out, say)?;
        }
        match open {
            Some(open) => self.end(open, say),
            None => Ok(()),
        }
    }

    /// The input has no more of a group.
    fn end(&mut self, mut open: Open, say: &mut impl FnMut(Finding)) -> Result<(), OfflineError> {
        let terms = terms(&self.correlations[open.correlation as usize], Time::MAX);
        let mut out = Out::default();
        open.body.advance(terms, &mut out);
        open.body.close(terms, &mut out);
        self.give_out(out, say)
    }

    fn give_out(&mut self, out: Out, say: &mut impl FnMut(Finding)) -> Result<(), OfflineError> {
        out.findings.into_iter().for_each(say);
        out.handed.into_iter().try_for_each(|m| self.push(m))
    }

    fn decode(&self, entry: &Entry) -> Result<Match, OfflineError> {
        let rule = &self.correlations[entry.correlation as usize];
        to_match(rule.rule_id.clone(), entry)
    }
}

/// A match as it is sorted: under a number, by group, time and id.
pub(super) fn to_entry(number: u32, group: event::Id, m: Match) -> Result<Entry, OfflineError> {
    let time = m.time.clamp(Time::MIN, Time::MAX);
    let rank = Rank::new(m.context.event_ids.first().map_or("", |shown| shown), m.id);
    let content = Content {
        group: m.group,
        context: m.context,
        rules: m.rules,
        values: m.values,
        carried: m.carried,
    };
    Ok(Entry {
        correlation: number,
        group,
        time,
        rank,
        content: serde_json::to_vec(&content)?,
    })
}

/// The match that was sorted, without the place on the log that it had.
pub(super) fn to_match(correlation: Str, entry: &Entry) -> Result<Match, OfflineError> {
    let content: Content = serde_json::from_slice(&entry.content)?;
    Ok(Match {
        correlation,
        group: content.group,
        time: entry.time,
        id: entry.rank.id,
        partition: 0,
        offset: 0,
        context: content.context,
        rules: content.rules,
        values: content.values,
        carried: content.carried,
        chained: false,
    })
}

/// The group whose matches are being read.
struct Open {
    correlation: u32,
    group: event::Id,
    body: Body,
    /// The time and rank of its last match.
    last: Option<(Time, Rank)>,
}

impl Open {
    fn is_of(&self, entry: &Entry) -> bool {
        (self.correlation, self.group) == (entry.correlation, entry.group)
    }
}

/// In order of time nothing is late, and what lies before a match cannot change any more.
fn terms(rule: &Correlation, watermark: Time) -> Terms<'_> {
    Terms {
        rule,
        lateness: 0,
        watermark,
        once: true,
    }
}
