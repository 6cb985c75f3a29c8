//! How far a log group was read, and what is asked for next.
//!
//! Events become visible late and in no order, so a [`Position`] is two times: up to which event time the group was
//! read, and when that was asked. What an event's time lies before the asking by more than the overlap is settled; all
//! else is asked for again, and [`Seen`] knows what of it was taken before. How much time one [`Window`] spans follows
//! from how many pages the last one had, so that an empty year is few calls and a busy hour many small steps. All of
//! this is arithmetic: no clock, no calls.

use std::collections::BTreeSet;

use event::{Id, Time};
use serde::{Deserialize, Serialize};

/// In microseconds.
pub(super) const SECOND: i64 = 1_000_000;

/// The first window of a group.
pub(super) const FIRST_SPAN: i64 = 3_600 * SECOND;

const SPANS: (i64, i64) = (60 * SECOND, 7 * 86_400 * SECOND);

/// A window with fewer pages may be longer, one with more must be shorter.
const PAGES: (u64, u64) = (20, 100);

/// How far a group was read. Durable after the events that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Where reading began.
    pub(super) since: Time,
    /// Up to which event time it was read.
    pub(super) read_to: Time,
    /// When that was asked for.
    pub(super) asked: Time,
}

/// A span of event time, bounds included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: Time,
    pub(super) to: Time,
}

impl Position {
    /// Of a group of which nothing was read.
    pub(super) fn new(since: Time) -> Position {
        Position {
            since,
            read_to: since,
            asked: Time::MAX,
        }
    }

    /// What comes before this time is read and can only become visible later than the overlap allows for.
    pub(super) fn settled(&self, overlap: i64) -> Time {
        self.read_to.min(self.asked.plus(-overlap))
    }

    /// What to ask for next: what is not settled, and so much time more, but nothing of the future.
    pub(super) fn window(&self, overlap: i64, span: i64, now: Time) -> Window {
        let from = self.settled(overlap);
        Window {
            from,
            to: self.read_to.plus(span).min(now).max(from),
        }
    }

    /// After a window was read to its end.
    pub(super) fn after(&self, window: Window, asked: Time) -> Position {
        Position {
            read_to: window.to,
            asked,
            ..*self
        }
    }
}

/// How much time the next window spans after one with so many pages.
pub(super) fn next_span(span: i64, pages: u64) -> i64 {
    match pages {
        n if n < PAGES.0 => (span * 2).min(SPANS.1),
        n if n > PAGES.1 => shorter(span),
        _ => span,
    }
}

/// The next window where this one was too long.
pub(super) fn shorter(span: i64) -> i64 {
    (span / 2).max(SPANS.0)
}

/// The events of one group that were taken and are not settled yet. Where there are more than it may hold, the earliest
/// are forgotten: they are appended again, which is harmless since repeats are dropped behind the log.
pub(super) struct Seen {
    ids: BTreeSet<(Time, Id)>,
}

impl Seen {
    pub(super) fn new() -> Seen {
        Seen {
            ids: BTreeSet::new(),
        }
    }

    pub(super) fn has(&self, time: Time, id: Id) -> bool {
        self.ids.contains(&(time, id))
    }

    /// Remembers an event, and at most so many in all.
    pub(super) fn add(&mut self, time: Time, id: Id, most: usize) {
        self.ids.insert((time, id));
        while self.ids.len() > most {
            self.ids.pop_first();
        }
    }

    /// Forgets what lies before a time; what is asked for begins with its whole millisecond.
    pub(super) fn settle(&mut self, before: Time) {
        let before = Time::from_millis(before.millis());
        self.ids = self.ids.split_off(&(before, Id::default()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_seconds(seconds)
    }

    #[test]
    fn what_may_become_visible_is_asked_for_again() {
        let overlap = 600 * SECOND;
        let window = |p: &Position, now: i64| p.window(overlap, 60 * SECOND, at(now));
        let mut position = Position::new(at(0));
        // Long ago everything is visible: windows follow on one another, with the last moment in both.
        let first = window(&position, 100_000);
        assert_eq!((first.from, first.to), (at(0), at(60)));
        position = position.after(first, at(100_000));
        let second = window(&position, 100_001);
        assert_eq!((second.from, second.to), (at(60), at(120)));
        // Near the present the overlap is asked for with every window.
        position.read_to = at(100_000);
        let live = window(&position, 100_030);
        assert_eq!((live.from, live.to), (at(99_400), at(100_030)));
        position = position.after(live, at(100_030));
        // After a long pause too: what was not visible when it was last asked for must not be missed.
        let later = window(&position, 900_000);
        assert_eq!((later.from, later.to), (at(99_430), at(100_090)));
        // A clock that was set back does no harm.
        let back = window(&position, 99_000);
        assert_eq!((back.from, back.to), (at(99_430), at(99_430)));
        assert_eq!(position.after(back, at(99_000)).read_to, at(99_430));
    }

    proptest! {
        /// Whenever an event becomes visible, no later than the overlap after its time, some window asks for it after that.
        #[test]
        fn no_event_within_the_overlap_is_missed(
            pauses in prop::collection::vec(1_i64..2_000, 40..60),
            happens in 0_i64..20_000,
            hidden in 0_i64..600,
            start in 0_i64..5_000,
            span in 60_i64..4_000,
        ) {
            let (overlap, visible) = (600 * SECOND, at(happens + hidden));
            let mut position = Position::new(at(0));
            let (mut now, mut found) = (at(start), 0);
            for pause in pauses {
                let window = position.window(overlap, span * SECOND, now);
                if visible <= now && (window.from..=window.to).contains(&at(happens)) {
                    found += 1;
                }
                position = position.after(window, now);
                now = now.plus(pause * SECOND);
            }
            // Read so far that the event is settled: then it was found.
            prop_assert!(found > 0 || position.settled(overlap) <= at(happens));
            prop_assert!(position.read_to <= now);
        }
    }

    #[test]
    fn windows_grow_where_there_is_little_and_shrink_where_there_is_much() {
        assert_eq!(next_span(FIRST_SPAN, 1), 2 * FIRST_SPAN);
        assert_eq!(next_span(FIRST_SPAN, 50), FIRST_SPAN);
        assert_eq!(next_span(FIRST_SPAN, 500), FIRST_SPAN / 2);
        assert_eq!(next_span(SPANS.1, 1), SPANS.1);
        assert_eq!(next_span(SPANS.0, 5_000), SPANS.0);
    }

    #[test]
    fn memory_of_the_overlap_is_bounded() {
        let mut seen = Seen::new();
        for n in 0..100 {
            seen.add(at(n), Id(n as u128), 10);
        }
        assert!(seen.has(at(99), Id(99)) && seen.has(at(90), Id(90)));
        assert!(!seen.has(at(89), Id(89)) && !seen.has(at(99), Id(98)));
        seen.settle(at(95));
        assert!(seen.has(at(95), Id(95)) && !seen.has(at(94), Id(94)));
    }
}
