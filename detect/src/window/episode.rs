//! One episode of one group: a run of firing matches, in bounded space.
//!
//! Between the first and the last firing match nothing can change any more but the count and the evidence, so
//! an [`Episode`] keeps of its inside only the earliest matches (their ids are the finding's evidence), what decides
//! whether a match behind the end fires ([`Inside`]) and the number. Each of the three only grows by union, so the
//! order in which matches come cannot show. `group` and `settled` decide which matches belong inside; this file knows
//! nothing of windows, it makes the [`Finding`] and remembers what was last said.

use std::collections::BTreeMap;
use std::sync::Arc;

use event::{Finding, Id, MAX_EVENT_IDS, Str, Time};

use super::Correlation;
use super::inside::Inside;
use super::kept::Terms;
use super::loose::Loose;

/// An episode of this size or less is said anew at every change.
const SMALL: u64 = 10;

/// A larger one is said anew when its end has moved by this or by a timespan, whichever is more: a minute.
const REFRESH: i64 = 60_000_000;

/// The time and the rank of a match: the order of matches.
pub(super) type Point = (Time, Rank);

/// How matches of one time are ordered: as the texts of the sources' own ids are, as far as their first half tells, then
/// by our ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rank {
    /// The value of a UUID, which sorts as its text; of any other text the first 16 bytes.
    pub(super) text: u128,
    /// Our id of the event.
    pub(super) id: Id,
}

impl Rank {
    pub(super) fn new(shown: &str, id: Id) -> Rank {
        Rank {
            text: uuid(shown).unwrap_or_else(|| {
                let bytes = shown.bytes().chain(std::iter::repeat(0)).take(16);
                bytes.fold(0, |text, byte| text << 8 | u128::from(byte))
            }),
            id,
        }
    }
}

/// The value of a UUID in lower case.
fn uuid(text: &str) -> Option<u128> {
    let dashed = |i: usize| matches!(i, 8 | 13 | 18 | 23);
    if text.len() != 36 {
        return None;
    }
    text.bytes()
        .enumerate()
        .try_fold(0, |value, (i, byte)| match byte {
            b'-' if dashed(i) => Some(value),
            b'0'..=b'9' if !dashed(i) => Some(value << 4 | u128::from(byte - b'0')),
            b'a'..=b'f' if !dashed(i) => Some(value << 4 | u128::from(byte - b'a' + 10)),
            _ => None,
        })
}

/// What the last revision said, to know whether another is worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    /// The finding's id: the first `episode` that was said.
    pub(super) id: Id,
    pub(super) revision: u64,
    pub(super) count: u64,
    /// The first firing match.
    pub(super) by: Id,
    pub(super) first: Time,
    pub(super) last: Time,
    pub(super) approximate: bool,
}

/// A run of firing matches, each at most a timespan after the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Episode {
    /// The earliest firing match.
    pub(super) first: Point,
    /// What it did.
    pub(super) context: Arc<Finding>,
    /// The time of the last firing match.
    pub(super) last: Time,
    /// How many matches are inside.
    pub(super) count: u64,
    /// The earliest of them, at most [`MAX_EVENT_IDS`].
    pub(super) earliest: Vec<(Point, Str)>,
    /// What decides whether a match behind the end fires.
    pub(super) inside: Inside,
    /// The watermark has passed `first`: what leads up to it is final, and inside.
    pub(super) sealed: bool,
    pub(super) late: bool,
    /// Something had to be left out for want of room: it is not exact.
    pub(super) rough: bool,
    pub(super) said: Option<Said>,
}

/// What leads up to the first firing match and is not inside yet: when it begins, and how many matches it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lead {
    pub(super) first: Option<Time>,
    pub(super) count: u64,
}

impl Episode {
    /// An episode of one firing match, which is yet to be taken in.
    pub(super) fn new(first: &Loose, inside: Inside) -> Episode {
        Episode {
            first: first.at,
            context: Arc::clone(&first.context),
            last: first.at.0,
            count: 0,
            earliest: Vec::new(),
            inside,
            sealed: false,
            late: false,
            rough: false,
            said: None,
        }
    }

    /// Is a match at `time` inside, whatever else it does?
    pub(super) fn covers(&self, time: Time) -> bool {
        let from = match self.earliest.first() {
            Some(((start, _), _)) if self.sealed => *start,
            _ => self.first.0,
        };
        from <= time && time <= self.last
    }

    /// Is this match known to be inside? Exact as long as the ids are kept.
    pub(super) fn has(&self, at: Point) -> bool {
        self.inside.has(at) || self.earliest.binary_search_by_key(&at, |e| e.0).is_ok()
    }

    /// Takes a match in.
    pub(super) fn take(&mut self, terms: Terms<'_>, l: &Loose) {
        self.count += l.weight();
        self.late |= l.late;
        self.rough |= !l.is_exact();
        let place = self.earliest.partition_point(|e| e.0 < l.at);
        if place < MAX_EVENT_IDS {
            self.earliest.insert(place, (l.at, l.shown.clone()));
            self.earliest.truncate(MAX_EVENT_IDS);
        }
        self.inside.take(terms, l.at, &l.what);
    }

    /// Takes in the episode behind this one. Of two that were said, the earlier goes on and the later is told so; one
    /// that was never said has no name to lose.
    pub(super) fn join(&mut self, terms: Terms<'_>, later: Episode) {
        self.last = later.last;
        self.count += later.count;
        self.late |= later.late;
        self.rough |= later.rough;
        let room = MAX_EVENT_IDS.saturating_sub(self.earliest.len());
        self.earliest.extend(later.earliest.into_iter().take(room));
        self.inside.join(terms, later.inside);
        self.said = self.said.or(later.said);
    }

    /// The time of the evidence's first match and its size, with what leads up to the first firing match.
    pub(super) fn extent(&self, lead: Lead) -> (Time, u64) {
        let inside = self.earliest.first().map_or(self.first.0, |e| e.0.0);
        let first = lead.first.map_or(inside, |t| t.min(inside));
        (first, self.count + lead.count)
    }

    /// Does it differ from what was said last?
    pub(super) fn changed(&self, lead: Lead) -> bool {
        let (first, count) = self.extent(lead);
        self.said.is_none_or(|said| {
            (said.by, said.first, said.last, said.count)
                != (self.first.1.id, first, self.last, count)
                || (self.rough && !said.approximate)
        })
    }

    /// Is the difference worth a revision now? Every one in a small episode; in a large one another beginning, twice the
    /// count, or an end that has moved on. What is not said now is said when it settles.
    pub(super) fn worth_saying(&self, lead: Lead, timespan: i64) -> bool {
        let (first, count) = self.extent(lead);
        let Some(said) = self.said else { return true };
        said.by != self.first.1.id
            || said.first != first
            || count >= said.count.saturating_mul(2)
            || (count <= SMALL && self.changed(lead))
            || self.last.0.saturating_sub(said.last.0) >= timespan.max(REFRESH)
    }

    /// The next revision.
    pub(super) fn say(
        &mut self,
        head: &[&Loose],
        rule: &Correlation,
        group: &BTreeMap<Str, Option<Str>>,
    ) -> Finding {
        let episode = rule.episode_id(group, self.first.1.id);
        let (first, count) = self.extent(Lead {
            first: head.first().map(|l| l.at.0),
            count: head.iter().map(|l| l.weight()).sum(),
        });
        let approximate = self.rough || head.iter().any(|m| !m.is_exact());
        let said = Said {
            id: self.said.map_or(episode, |said| said.id),
            revision: self.said.map_or(0, |said| said.revision + 1),
            count,
            by: self.first.1.id,
            first,
            last: self.last,
            approximate,
        };
        self.said = Some(said);
        let evidence = || {
            let head = head.iter().map(|m| (m.at.1.id, &m.shown));
            let inside = self.earliest.iter().map(|e| (e.0.1.id, &e.1));
            head.chain(inside).take(MAX_EVENT_IDS)
        };
        Finding {
            id: said.id,
            rule_id: rule.rule_id.clone(),
            title: rule.title.clone(),
            severity: rule.severity,
            staged: rule.staged,
            time: self.first.0,
            first_event_time: first,
            last_event_time: self.last,
            count,
            group: group.clone(),
            event_ids: evidence().map(|(_, shown)| shown.clone()).collect(),
            evidence: evidence().map(|(id, _)| id).collect(),
            episode,
            episodic: true,
            tags: rule.tags.clone(),
            late: self.late || head.iter().any(|m| m.late),
            approximate,
            revision: said.revision,
            ..Finding::clone(&self.context)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_of_one_time_sort_as_the_texts_of_their_ids() {
        let mut ids = [
            "f8e608fd-8465-48e2-b65d-0ad849244ead",
            "083dc4ad-e264-46bc-a407-d0dd31b58bdc",
            "083dc4ad-e264-46bc-a407-d0dd31b58bdd",
            "94faedcc-0fa4-46e6-9322-022e8e934f04",
            "00000000-0000-4000-8000-000000000000",
        ];
        let by_rank = |a: &&str, b: &&str| Rank::new(a, Id(1)).cmp(&Rank::new(b, Id(1)));
        let mut ranked = ids;
        ranked.sort_by(by_rank);
        ids.sort_unstable();
        assert_eq!(ranked, ids);
        let mut texts = ["event-10", "event-2", "event-1", "", "x"];
        let mut ranked = texts;
        ranked.sort_by(by_rank);
        texts.sort_unstable();
        assert_eq!(ranked, texts);
        assert!(Rank::new("same beginning, a", Id(2)) > Rank::new("same beginning, b", Id(1)));
    }
}
