//! Windows of event_count correlations, in event time and independent of the order of arrival.
//!
//! The match stage turns every event that satisfies a rule of a [`Correlation`] into a [`Match`], puts it on
//! the `matches` topic under the key of its group, and tells in a [`Watermark`] how far event time has come.
//! [`Windows`] takes both and emits findings: one per episode (DESIGN §4.3), said as soon as it fires, revised
//! as it grows, and exact once the watermark has passed its end by a timespan. [`Offline`] does the same for a
//! whole input at once, in any order, with bounded memory; it is what `hunt` uses.
//!
//! Everything here is a pure function of what it is given: no clock, no threads, no unordered iteration, so
//! that a replay of the log says the same findings with the same ids. `group` holds the algorithm for one
//! group, `episode` one episode of it, `state` how both are stored. Only event_count with a lower bound is
//! here: that condition can only become true by a late match, never false again, and all exactness rests on it.

mod episode;
mod group;
mod matches;
mod offline;
mod spill;
mod state;
mod windows;

pub use matches::{
    Correlation, Match, MatchRecord, Watermark, WatermarkTicker, group_key, watermark_records,
};
pub use offline::{OFFLINE_MEMORY, Offline, OfflineError};
pub use state::StateError;
pub use windows::{Counts, KEY_FLOOD, Options, Windows};
