//! Matches that are kept one by one, in order of time, many or few.
//!
//! A [`LooseSet`] is a row of chunks of at most [`CHUNK`] matches, so that one that comes out of order moves few
//! others, and so that a commit need not write thousands of matches again for one that is new: each chunk knows
//! whether it has changed, and `state` gives it a row of its own where there is more than one. What a match
//! contributes to the measure is its [`What`]; what the measure of its own window has come to is kept beside it
//! by `kept`, which knows how.

use std::sync::Arc;

use event::{Finding, Id, Str, Time};

use super::episode::{Point, Rank};
use super::matches::{Carried, Match};

/// The most matches in a chunk.
const CHUNK: usize = 128;

/// What a match contributes to the measure of a window: the referred rules that it satisfies as the bits of one
/// number, or the hashes of the field's values, or its numbers as the bits of floats.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Nothing,
    One(u64),
    Many(Box<[u64]>),
}

impl What {
    pub(super) fn new(all: Vec<u64>) -> What {
        match all.as_slice() {
            [] => What::Nothing,
            [one] => What::One(*one),
            _ => What::Many(all.into()),
        }
    }

    pub(super) fn all(&self) -> &[u64] {
        match self {
            What::Nothing => &[],
            What::One(one) => std::slice::from_ref(one),
            What::Many(all) => all,
        }
    }

    /// What another match has that this one has not: rules where it is a set of `rules`, else values.
    pub(super) fn more(&self, other: &What, rules: bool) -> What {
        if rules {
            return match other.rules() & !self.rules() {
                0 => What::Nothing,
                more => What::One(more),
            };
        }
        let known = self.all();
        let new = other.all().iter().filter(|v| !known.contains(v));
        What::new(new.copied().collect())
    }

    /// Both together, where `more` is what this one has not.
    pub(super) fn with(&self, more: &What, rules: bool) -> What {
        if rules {
            return What::One(self.rules() | more.rules());
        }
        What::new([self.all(), more.all()].concat())
    }

    /// As a set of rules.
    pub(super) fn rules(&self) -> u64 {
        self.all().first().copied().unwrap_or(0)
    }

    /// As numbers.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f64> {
        self.all().iter().map(|bits| f64::from_bits(*bits))
    }
}

/// A match outside of every episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loose {
    pub(super) at: Point,
    /// The source's own id of the event.
    pub(super) shown: Str,
    /// What a finding takes from the event if this becomes the first firing match.
    pub(super) context: Arc<Finding>,
    pub(super) late: bool,
    /// It is not exact: values of it were left out, or it may be another one that comes again.
    pub(super) rough: bool,
    pub(super) what: What,
    /// The measure of the window that ends here: a number of matches or values, or a set of rules.
    pub(super) seen: u64,
    /// How many like it were left out for want of room; it stands for them.
    pub(super) also: u32,
    /// It has fired, and was handed on to the correlations above.
    pub(super) fired: bool,
    /// What the correlations above want to know of the event.
    pub(super) carried: Option<Arc<Carried>>,
}

impl Loose {
    /// A match as it comes.
    pub(super) fn new(has_rules: bool, m: Match, late: bool) -> Loose {
        let shown = m.context.event_ids.first().cloned().unwrap_or_default();
        let what = if has_rules {
            What::One(m.rules)
        } else {
            What::new(m.values)
        };
        // What differs from match to match is not shared.
        let context = Finding {
            id: Id::default(),
            rule_id: Str::default(),
            title: Str::default(),
            time: Time::default(),
            first_event_time: Time::default(),
            last_event_time: Time::default(),
            event_ids: Vec::new(),
            evidence: Vec::new(),
            late: false,
            approximate: false,
            ..m.context
        };
        Loose {
            at: (m.time, Rank::new(&shown, m.id)),
            shown,
            context: Arc::new(context),
            late: late || m.context.late,
            rough: m.context.approximate,
            what,
            seen: 0,
            also: 0,
            fired: false,
            carried: (!m.carried.is_empty()).then(|| Arc::new(m.carried)),
        }
    }

    /// How many matches it stands for.
    pub(super) fn weight(&self) -> u64 {
        1 + u64::from(self.also)
    }

    /// Is what a finding says of it all that there is to say?
    pub(super) fn is_exact(&self) -> bool {
        !self.rough && self.also == 0
    }
}

/// A part of the matches, which is stored as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Names its row; no two of a set have the same.
    pub(super) number: u32,
    pub(super) items: Vec<Loose>,
    pub(super) changed: bool,
}

/// Matches in order of (time, id).
#[derive(Debug, Clone, Default)]
pub(super) struct LooseSet {
    /// None of them empty.
    chunks: Vec<Chunk>,
    len: usize,
    next: u32,
    /// Has any of them ever stood for others?
    stands_for_others: bool,
    /// Was any of them ever not exact?
    rough: bool,
    /// Chunks that are no more.
    gone: Vec<u32>,
    /// Have the chunks rows of their own?
    in_rows: bool,
}

/// What of a set is to be stored.
pub(super) struct ToStore<'a> {
    /// All of it, where it is small enough to stand in the row of its group.
    pub(super) whole: &'a [Loose],
    /// Chunks to be written to rows of their own.
    pub(super) rows: Vec<&'a Chunk>,
    /// Chunks whose rows are no more.
    pub(super) gone: Vec<u32>,
}

impl PartialEq for LooseSet {
    /// How matches lie in chunks does not matter.
    fn eq(&self, other: &LooseSet) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for LooseSet {}

impl LooseSet {
    /// From stored chunks, with their numbers; `in_rows` if they had rows of their own.
    pub(super) fn restore(mut stored: Vec<(u32, Vec<Loose>)>, in_rows: bool) -> LooseSet {
        stored.retain(|(_, items)| !items.is_empty());
        stored.sort_by_key(|(_, items)| items[0].at);
        let chunk = |(number, items)| Chunk {
            number,
            items,
            changed: false,
        };
        let chunks: Vec<Chunk> = stored.into_iter().map(chunk).collect();
        LooseSet {
            len: chunks.iter().map(|c| c.items.len()).sum(),
            stands_for_others: chunks.iter().flat_map(|c| &c.items).any(|l| l.also > 0),
            rough: chunks.iter().flat_map(|c| &c.items).any(|l| l.rough),
            next: chunks.iter().map(|c| c.number + 1).max().unwrap_or(0),
            in_rows,
            chunks,
            gone: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn first(&self) -> Option<&Loose> {
        self.chunks.first()?.items.first()
    }

    pub(super) fn last(&self) -> Option<&Loose> {
        self.chunks.last()?.items.last()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Loose> {
        self.chunks.iter().flat_map(|c| &c.items)
    }

    /// The chunk that `at` lies in or before which it lies, and its place there.
    fn place(&self, at: Point) -> (usize, usize) {
        let chunk = self
            .chunks
            .partition_point(|c| c.items.last().is_some_and(|l| l.at < at));
        let items = self.chunks.get(chunk).map_or(&[][..], |c| &c.items);
        (chunk, items.partition_point(|l| l.at < at))
    }

    /// The place of the first match at `time` or later.
    fn from(&self, time: Time) -> (usize, usize) {
        let chunk = self
            .chunks
            .partition_point(|c| c.items.last().is_some_and(|l| l.at.0 < time));
        let items = self.chunks.get(chunk).map_or(&[][..], |c| &c.items);
        (chunk, items.partition_point(|l| l.at.0 < time))
    }

    /// The place behind the last match at `time` or earlier.
    fn behind(&self, time: Time) -> (usize, usize) {
        let chunk = self
            .chunks
            .partition_point(|c| c.items.last().is_some_and(|l| l.at.0 <= time));
        let items = self.chunks.get(chunk).map_or(&[][..], |c| &c.items);
        (chunk, items.partition_point(|l| l.at.0 <= time))
    }

    pub(super) fn get(&self, at: Point) -> Option<&Loose> {
        let (chunk, place) = self.place(at);
        let found = self.chunks.get(chunk)?.items.get(place)?;
        (found.at == at).then_some(found)
    }

    /// A match to be changed.
    pub(super) fn get_mut(&mut self, at: Point) -> Option<&mut Loose> {
        let (chunk, place) = self.place(at);
        let chunk = self.chunks.get_mut(chunk)?;
        let found = chunk.items.get_mut(place).filter(|l| l.at == at)?;
        chunk.changed = true;
        Some(found)
    }

    /// The last match before `at`.
    pub(super) fn before(&self, at: Point) -> Option<&Loose> {
        match self.place(at) {
            (0, 0) => None,
            (chunk, 0) => self.chunks[chunk - 1].items.last(),
            (chunk, place) => self.chunks[chunk].items.get(place - 1),
        }
    }

    /// The match at `at` or the first one behind it.
    pub(super) fn at_or_after(&self, at: Point) -> Option<&Loose> {
        let (chunk, place) = self.place(at);
        self.chunks.get(chunk)?.items.get(place)
    }

    /// The last match before `time`.
    pub(super) fn last_before(&self, time: Time) -> Option<&Loose> {
        match self.from(time) {
            (0, 0) => None,
            (chunk, 0) => self.chunks[chunk - 1].items.last(),
            (chunk, place) => self.chunks[chunk].items.get(place - 1),
        }
    }

    /// The matches from one time to another, both included.
    pub(super) fn range(&self, from: Time, to: Time) -> impl Iterator<Item = &Loose> {
        let (chunk, place) = self.from(from);
        let chunks = self.chunks.get(chunk..).unwrap_or_default();
        let items = chunks.iter().flat_map(|c| &c.items).skip(place);
        items.take_while(move |l| l.at.0 <= to)
    }

    /// Changes what has been seen of the matches from one time to another, both included. This follows from the others
    /// and is not stored, so that no row changes.
    pub(super) fn see(&mut self, from: Time, to: Time, mut change: impl FnMut(&mut Loose)) {
        let (chunk, place) = self.from(from);
        let chunks = self.chunks.get_mut(chunk..).unwrap_or_default();
        let items = chunks.iter_mut().flat_map(|c| &mut c.items).skip(place);
        items.take_while(|l| l.at.0 <= to).for_each(&mut change);
    }

    /// How many matches there are from one time to another, both included.
    pub(super) fn count(&self, from: Time, to: Time) -> u64 {
        self.total(from, to, |c| c.items.len() as u64, |_| 1)
    }

    /// How many matches those stand for.
    pub(super) fn weight(&self, from: Time, to: Time) -> u64 {
        if !self.stands_for_others {
            return self.count(from, to);
        }
        self.total(
            from,
            to,
            |c| c.items.iter().map(Loose::weight).sum(),
            Loose::weight,
        )
    }

    /// Are all of these matches exact?
    pub(super) fn is_exact(&self, from: Time, to: Time) -> bool {
        !(self.rough || self.stands_for_others) || self.range(from, to).all(Loose::is_exact)
    }

    fn total(
        &self,
        from: Time,
        to: Time,
        whole: impl Fn(&Chunk) -> u64,
        one: impl Fn(&Loose) -> u64,
    ) -> u64 {
        let ((first, start), (last, end)) = (self.from(from), self.behind(to));
        let part = |chunk: usize, from: usize, to: usize| -> u64 {
            let items = self.chunks.get(chunk).map_or(&[][..], |c| &c.items);
            items[from..to].iter().map(&one).sum()
        };
        if first >= last {
            let nothing = first > last || start >= end;
            return if nothing { 0 } else { part(first, start, end) };
        }
        let between: u64 = self.chunks[first + 1..last].iter().map(whole).sum();
        part(first, start, self.chunks[first].items.len()) + between + part(last, 0, end)
    }

    /// Puts a match in its place; there is none with its time and id.
    pub(super) fn insert(&mut self, loose: Loose) {
        let (mut chunk, mut place) = self.place(loose.at);
        if chunk == self.chunks.len() && chunk > 0 {
            chunk -= 1;
            place = self.chunks[chunk].items.len();
        }
        self.len += 1;
        self.rough |= loose.rough;
        let Some(found) = self.chunks.get_mut(chunk) else {
            let items = vec![loose];
            return self.push_chunk(0, items);
        };
        if found.items.len() < CHUNK {
            found.items.insert(place, loose);
            found.changed = true;
        } else if place == CHUNK {
            self.push_chunk(chunk + 1, vec![loose]);
        } else {
            let mut behind = found.items.split_off(CHUNK / 2);
            found.changed = true;
            if place <= CHUNK / 2 {
                found.items.insert(place, loose);
            } else {
                behind.insert(place - CHUNK / 2, loose);
            }
            self.push_chunk(chunk + 1, behind);
        }
    }

    fn push_chunk(&mut self, place: usize, items: Vec<Loose>) {
        let chunk = Chunk {
            number: self.next,
            items,
            changed: true,
        };
        self.next = self.next.wrapping_add(1);
        self.chunks.insert(place, chunk);
    }

    /// Takes out the matches from one time to another, both included.
    pub(super) fn take(&mut self, from: Time, to: Time) -> Vec<Loose> {
        let mut taken = Vec::new();
        let (mut chunk, _) = self.from(from);
        while let Some(found) = self.chunks.get_mut(chunk) {
            let start = found.items.partition_point(|l| l.at.0 < from);
            let end = found.items.partition_point(|l| l.at.0 <= to);
            if start >= end {
                break;
            }
            found.changed = true;
            taken.extend(found.items.drain(start..end));
            if found.items.is_empty() {
                self.gone.push(found.number);
                self.chunks.remove(chunk);
            } else {
                chunk += 1;
            }
        }
        self.len -= taken.len();
        taken
    }

    /// Takes one match out.
    pub(super) fn remove(&mut self, at: Point) -> Option<Loose> {
        let (chunk, place) = self.place(at);
        let found = self.chunks.get_mut(chunk)?;
        if found.items.get(place).is_none_or(|l| l.at != at) {
            return None;
        }
        found.changed = true;
        let loose = found.items.remove(place);
        if found.items.is_empty() {
            self.gone.push(found.number);
            self.chunks.remove(chunk);
        }
        self.len -= 1;
        Some(loose)
    }

    /// Notes of a match that it is not exact.
    pub(super) fn roughen(&mut self, at: Point) {
        if let Some(found) = self.get_mut(at) {
            found.rough = true;
            self.rough = true;
        }
    }

    /// Leaves one match out, for which its neighbour `before` stands from now on.
    pub(super) fn merge(&mut self, before: Point, at: Point) {
        let Some(gone) = self.remove(at) else { return };
        if let Some(kept) = self.get_mut(before) {
            kept.also = kept.also.saturating_add(1 + gone.also);
        }
        self.stands_for_others = true;
    }

    /// What has changed since this was last asked.
    pub(super) fn store(&mut self) -> ToStore<'_> {
        let mut gone = std::mem::take(&mut self.gone);
        if self.chunks.len() <= 1 {
            if std::mem::take(&mut self.in_rows) {
                gone.extend(self.chunks.iter().map(|c| c.number));
            } else {
                gone.clear();
            }
            return ToStore {
                whole: self.chunks.first().map_or(&[][..], |c| &c.items),
                rows: Vec::new(),
                gone,
            };
        }
        let all = !std::mem::replace(&mut self.in_rows, true);
        if all {
            gone.clear();
        }
        // Whoever asks also stores it.
        let mut rows = Vec::new();
        for chunk in &mut self.chunks {
            if std::mem::take(&mut chunk.changed) || all {
                rows.push(&*chunk);
            }
        }
        ToStore {
            whole: &[],
            rows,
            gone,
        }
    }

    /// The numbers of all chunks that have rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = u32> {
        let chunks = self.chunks.iter().map(|c| c.number);
        let all = chunks.chain(self.gone.iter().copied());
        all.filter(|_| self.in_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loose(time: i64, id: u64) -> Loose {
        Loose {
            at: (Time(time), Rank::new("", Id(u128::from(id)))),
            shown: Str::default(),
            context: Arc::default(),
            late: false,
            rough: false,
            what: What::One(id),
            seen: 0,
            also: 0,
            fired: false,
            carried: None,
        }
    }

    proptest::proptest! {
        /// A sorted list, whatever is done to it.
        #[test]
        fn it_is_a_sorted_list(steps in proptest::collection::vec((0_u8..8, 0_i64..60, 0_i64..20), 0..900)) {
            let (mut set, mut list) = (LooseSet::default(), Vec::<Loose>::new());
            for ((what, time, length), id) in steps.into_iter().zip(0..) {
                let (from, to) = (Time(time), Time(time + length));
                let within = |l: &&Loose| from <= l.at.0 && l.at.0 <= to;
                match what {
                    0 => {
                        let taken = set.take(from, to);
                        let expected: Vec<Loose> = list.iter().filter(within).cloned().collect();
                        proptest::prop_assert_eq!(taken, expected);
                        list.retain(|l| !within(&l));
                    }
                    1 => {
                        let Some(at) = list.iter().find(|l| l.at.0 >= from).map(|l| l.at) else { continue };
                        proptest::prop_assert_eq!(set.get(at).map(|l| l.at), Some(at));
                        proptest::prop_assert_eq!(set.remove(at).map(|l| l.at), Some(at));
                        proptest::prop_assert_eq!(set.get(at), None);
                        list.retain(|l| l.at != at);
                    }
                    _ => {
                        let new = loose(time, id);
                        list.insert(list.partition_point(|l| l.at < new.at), new.clone());
                        set.insert(new.clone());
                        let before = list.iter().rev().find(|l| l.at < new.at);
                        proptest::prop_assert_eq!(set.before(new.at), before);
                    }
                }
                proptest::prop_assert_eq!(set.len(), list.len());
                proptest::prop_assert_eq!(set.count(from, to), list.iter().filter(within).count() as u64);
                proptest::prop_assert_eq!(set.weight(from, to), set.count(from, to));
                proptest::prop_assert!(set.range(from, to).eq(list.iter().filter(within)));
            }
            proptest::prop_assert!(set.iter().eq(&list));
            proptest::prop_assert!(set.chunks.iter().all(|c| !c.items.is_empty() && c.items.len() <= CHUNK));
            let rows = set.chunks.iter().map(|c| (c.number, c.items.clone())).collect();
            proptest::prop_assert_eq!(LooseSet::restore(rows, true), set);
        }
    }
}
