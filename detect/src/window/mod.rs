//! Windows of correlations, in event time and independent of the order of arrival.
//!
//! The match stage turns every event that satisfies a rule of a [`Correlation`] into a [`Match`], puts it on
//! the `matches` topic under the key of its group, and tells in a [`Watermark`] how far event time has come.
//! [`Windows`] takes both and emits findings: one per episode (DESIGN §4.3), said as soon as it fires, revised
//! as it grows, and exact once the watermark has passed its end by a timespan. [`Offline`] does the same for a
//! whole input at once, in any order, with bounded memory; it is what `hunt` uses.
//!
//! Everything here is a pure function of what it is given: no clock, no threads, no unordered iteration, so
//! that a replay of the log says the same findings with the same ids. What a correlation asks for is its
//! [`Condition`] (`measure`). One that more matches can only make true runs in `group`, and in `firing` for the
//! correlations that refer to it; any other one waits for the watermark in `settled`. They share `loose` and
//! `kept`, the matches that are kept one by one; `episode` and `inside`, what is known of an episode; `slide`,
//! `order` and `sum`, what is measured; `thin`, what can be done without; `recount`, a group counted again from its matches. `body` chooses among them, `progress` keeps the watermarks and `state`
//! tells how all of it is stored.

mod body;
mod episode;
mod firing;
mod group;
mod inside;
mod kept;
mod loose;
mod matches;
mod measure;
mod offline;
mod order;
mod progress;
mod recount;
mod settled;
mod slide;
mod spill;
mod state;
mod sum;
mod thin;
mod windows;

pub(crate) use body::group_value;
pub use matches::{
    Carried, Chain, Contribution, Correlation, LevelWatermark, MOST_VALUES, Match, MatchRecord,
    Upper, Watermark, WatermarkTicker, contributed, group_key, level_records, watermark_records,
};
pub use measure::{Clause, Comparison, Condition, MOST_RULES, Measure};
pub use offline::{OFFLINE_MEMORY, Offline, OfflineError};
pub(crate) use recount::{Collected, Counted, Sorted, count_again};
pub use state::StateError;
pub use windows::{Counts, KEY_FLOOD, Options, Windows};
