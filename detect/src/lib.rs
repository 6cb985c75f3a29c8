//! Events to findings: Sigma rules, matching, correlation, baselines.
//!
//! [`RuleSet::build`] checks the Sigma documents of whole folders and reports every problem of all of them at once.
//! [`Engine`] is a rule set compiled for speed: it tells which rules match an event, looking at few of
//! them. The core is pure and synchronous: no I/O, no clock, no unordered iteration, so that live runs,
//! tests and backtests give the same answers. [`window`] keeps the windows of correlations in event time,
//! [`correlations`] tells it which there are, and [`correlate`] is the stage that feeds them from the `matches` topic.
//! What comes too late for a window is counted again from there by `recount`.
//! [`baseline`] knows what a series of counts usually does and when it does something else.

pub mod arrivals;
pub mod attack;
pub mod automation;
pub mod baseline;
pub mod baseline_stage;
pub mod condition;
pub mod correlate;
pub mod correlations;
pub mod engine;
pub mod error;
pub mod item;
pub mod lint;
pub mod match_stage;
pub mod meter;
pub mod pattern;
mod recount;
pub mod rule;
pub mod rule_set;
pub mod tracker;
pub mod window;
pub mod yaml;

pub use engine::Engine;
pub use rule_set::RuleSet;
