//! A page that several indexes have a part of each.
//!
//! A [`Part`] is the beginning of what one index has, in order; where it was not all, [`Part::next`] says up to where it
//! can be relied on. [`merge`] takes parts together: what stands before the first place up to which one of them can be
//! relied on is the page, each id once, and the next page begins behind it. So a page may be shorter than was asked for
//! and yet not be the last. [`Part::check`] refuses what cannot be a part: order and bounds are what merging relies on.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::time::Duration;

use event::{Event, Finding, Id, Time};
use serde::{Deserialize, Serialize};

use super::ask::frames;
use crate::names::Unknown;
use crate::request::{Answer, Cursor, Kind, Request};

/// What one index has of a page.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Part {
    #[serde(with = "frames")]
    pub(crate) hits: Vec<Event>,
    pub(crate) findings: Vec<Finding>,
    /// How many match, where that is known.
    pub(crate) total: Option<u64>,
    pub(crate) partial: Option<String>,
    pub(crate) unknown: Unknown,
    /// The last one given, where more may follow.
    pub(crate) next: Option<Cursor>,
    /// Stood an id in more than one part?
    #[serde(skip)]
    pub(crate) repeated: bool,
}

/// Where something stands in the order of answers.
trait Placed {
    fn place(&self) -> (Time, Id);
}

impl Placed for Event {
    fn place(&self) -> (Time, Id) {
        (self.time, self.id)
    }
}

impl Placed for Finding {
    fn place(&self) -> (Time, Id) {
        (self.time, self.id)
    }
}

fn order(newest_first: bool, a: (Time, Id), b: (Time, Id)) -> Ordering {
    match newest_first {
        true => b.cmp(&a),
        false => a.cmp(&b),
    }
}

impl Part {
    /// Can this be what an index answers to this request?
    pub(super) fn check(&self, request: &Request) -> Result<(), &'static str> {
        let places: Vec<(Time, Id)> = match request.kind {
            Kind::Events => self.hits.iter().map(Placed::place).collect(),
            Kind::Findings => self.findings.iter().map(Placed::place).collect(),
        };
        let others = match request.kind {
            Kind::Events => self.findings.len(),
            Kind::Findings => self.hits.len(),
        };
        if others > 0 || places.len() > request.limit {
            return Err("more than was asked for");
        }
        let in_order =
            |pair: &[(Time, Id)]| order(request.newest_first, pair[0], pair[1]) == Ordering::Less;
        let ids: HashSet<Id> = places.iter().map(|(_, id)| *id).collect();
        if ids.len() < places.len() || !places.windows(2).all(in_order) {
            return Err("out of order, or an event twice");
        }
        let follows = |place: &&(Time, Id)| {
            request.after.is_none_or(|after| {
                order(request.newest_first, (after.time, after.id), **place) == Ordering::Less
            })
        };
        let within = |place: &(Time, Id)| {
            request.from.is_none_or(|from| place.0 >= from)
                && request.to.is_none_or(|to| place.0 <= to)
        };
        if !places.iter().all(within) || places.first().is_some_and(|first| !follows(&first)) {
            return Err("events of another time");
        }
        let last = places.last().map(|&(time, id)| Cursor { time, id });
        if self.next.is_some() && self.next != last {
            return Err("a page that ends elsewhere than it says");
        }
        if self.next.is_none() && request.limit > 0 && places.len() == request.limit {
            return Err("a full page that says that nothing follows");
        }
        if self.total.is_some_and(|total| total < places.len() as u64) {
            return Err("more events than it counts");
        }
        Ok(())
    }

    /// As people get it.
    pub(crate) fn answer(self, kind: Kind) -> Answer {
        let mut notes = self.unknown.words(kind);
        if self.repeated {
            notes.push(
                "some events stand on more than one index node: each is shown once, and how many there are is not known"
                    .to_owned(),
            );
        }
        Answer {
            hits: self.hits,
            findings: self.findings,
            total: self.total,
            partial: self.partial,
            notes,
            next: self.next,
            took: Duration::ZERO,
        }
    }
}

/// One page of the parts that all indexes have.
pub(super) fn merge(parts: Vec<Part>, request: &Request) -> Part {
    let mut merged = Part::default();
    let mut unknown = Unknown::Nothing;
    let mut total = Some(0);
    let mut partial: Vec<String> = Vec::new();
    // Up to here all parts can be relied on.
    let mut end: Option<(Time, Id)> = None;
    for part in parts {
        merged.hits.extend(part.hits);
        merged.findings.extend(part.findings);
        total = total.zip(part.total).map(|(sum, more)| sum + more);
        partial.extend(part.partial);
        unknown = unknown.and(part.unknown);
        if let Some(next) = part.next.map(|next| (next.time, next.id)) {
            let first = |end| match order(request.newest_first, next, end) {
                Ordering::Less => next,
                _ => end,
            };
            end = Some(end.map_or(next, first));
        }
    }
    let last = match request.kind {
        Kind::Events => page(&mut merged.hits, end, request, &mut merged.repeated),
        Kind::Findings => page(&mut merged.findings, end, request, &mut merged.repeated),
    };
    let more = last.full || end.is_some();
    merged.next = last
        .place
        .filter(|_| more)
        .map(|(time, id)| Cursor { time, id });
    merged.total = total.filter(|_| !merged.repeated);
    merged.unknown = unknown;
    merged.partial = (!partial.is_empty()).then(|| partial.join("; "));
    merged
}

/// Where a page ends, and whether it is full.
struct End {
    place: Option<(Time, Id)>,
    full: bool,
}

/// Makes one page of what several have.
fn page<T: Placed>(
    all: &mut Vec<T>,
    end: Option<(Time, Id)>,
    request: &Request,
    repeated: &mut bool,
) -> End {
    let ordered = |a, b| order(request.newest_first, a, b);
    all.sort_by(|a, b| ordered(a.place(), b.place()));
    let before = all.len();
    all.dedup_by_key(|one| one.place());
    *repeated = all.len() < before;
    all.retain(|one| end.is_none_or(|end| ordered(one.place(), end) != Ordering::Greater));
    all.truncate(request.limit);
    End {
        place: all.last().map(Placed::place),
        full: request.limit > 0 && all.len() == request.limit,
    }
}
