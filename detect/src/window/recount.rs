//! A group counted again from its matches, in order of time: what a window would be had nothing come late.
//!
//! [`Collected`] sorts the matches of some groups, outside memory where they are many; [`count_again`] takes those of
//! one group in order through the very [`Body`] that live windows have, up to the watermark of now. It gives what
//! that says of every episode and what fires for the correlations above, and the [`Rebuilt`] body itself, which
//! `windows` puts in the place of the one that was missing what came late. Which stretch to count, and what of it
//! people know already, is decided by `crate::recount`.

use std::io;
use std::iter::Peekable;

use event::{Finding, Id, Time};

use super::body::{Body, Out};
use super::kept::Terms;
use super::matches::{Correlation, Match};
use super::offline::{OfflineError, to_entry, to_match};
use super::spill::{Entry, Spill};

/// Matches of groups that are to be counted again; a group is called by a number.
pub(crate) struct Collected(Spill);

/// Collected matches in order of number, then time, then id.
pub(crate) struct Sorted(Peekable<Box<dyn Iterator<Item = io::Result<Entry>>>>);

impl Collected {
    /// An empty collection that keeps at most `memory` bytes in memory, and the rest in temporary files.
    pub(crate) fn new(memory: usize) -> Collected {
        Collected(Spill::new(memory))
    }

    /// Takes a match of the group with this number.
    ///
    /// # Errors
    /// It cannot be written to a temporary file.
    pub(crate) fn push(&mut self, group: u32, m: Match) -> Result<(), OfflineError> {
        let entry = to_entry(group, Id::default(), m)?;
        Ok(self.0.push(entry)?)
    }

    /// All of them in order.
    ///
    /// # Errors
    /// A temporary file cannot be written or read.
    pub(crate) fn sorted(self) -> Result<Sorted, OfflineError> {
        Ok(Sorted(self.0.sorted()?.peekable()))
    }
}

/// A group as it would be had all its matches come in time.
#[derive(Debug)]
pub(crate) struct Rebuilt(pub(super) Body);

impl Rebuilt {
    /// Gives each open episode the name and the revision that people know it by. `name` is asked with the `id` that
    /// the recount gave it, and tells whether what came late is part of it as well.
    pub(crate) fn rename(&mut self, name: impl Fn(Id) -> Option<(Id, u64, bool)>) {
        for episode in self.0.episodes_mut() {
            let Some(said) = &mut episode.said else {
                continue;
            };
            if let Some((id, revision, late)) = name(said.id) {
                (said.id, said.revision) = (id, revision);
                episode.late |= late;
            }
        }
    }
}

/// What a group comes to.
#[derive(Debug)]
pub(crate) struct Counted {
    /// What there is to say of every episode, in order of time: as if it were said for the first time, so that `id` is
    /// `episode` and the revision is 0.
    pub(crate) episodes: Vec<Finding>,
    /// How many of them, the last ones, are still open.
    pub(crate) open: usize,
    /// What fires, for the correlations above.
    pub(crate) handed: Vec<Match>,
    /// The group as it is then.
    pub(crate) rebuilt: Option<Rebuilt>,
}

/// Counts the matches of the group with this number, of which `sorted` gives the first next, as if they had come in
/// order, with the watermark where it is now.
///
/// # Errors
/// A temporary file cannot be read.
pub(crate) fn count_again(
    rule: &Correlation,
    lateness: i64,
    watermark: Time,
    number: u32,
    sorted: &mut Sorted,
) -> Result<Counted, OfflineError> {
    let terms = |watermark| Terms {
        rule,
        lateness,
        watermark,
        once: true,
    };
    let mut out = Out::default();
    let mut body: Option<Body> = None;
    let mut last = None;
    let is_next = |entry: &io::Result<Entry>| match entry {
        Ok(entry) => entry.correlation == number,
        Err(_) => true,
    };
    while let Some(entry) = sorted.0.next_if(is_next) {
        let entry = entry?;
        let at = Some((entry.time, entry.rank));
        if last == at && rule.chain.level == 0 {
            continue;
        }
        let before = last.map_or(entry.time, |(time, _)| time).min(watermark);
        last = at;
        let m = to_match(rule.rule_id.clone(), &entry)?;
        let body = body.get_or_insert_with(|| Body::new(terms(before), m.group.clone()));
        body.advance(terms(before), &mut out);
        body.take(terms(before), m, &mut out);
    }
    let mut open = 0;
    if let Some(body) = &mut body {
        body.advance(terms(watermark), &mut out);
        let over = out.findings.len();
        body.say(terms(watermark), &mut out);
        open = out.findings.len() - over;
    }
    Ok(Counted {
        episodes: out.findings,
        open,
        handed: out.handed,
        rebuilt: body.map(Rebuilt),
    })
}
