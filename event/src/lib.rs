//! The shared words of Trailwarden.
//!
//! Everything that two stages must agree on lives here and nothing else does: the normalized
//! [`Event`] with the original record byte for byte, the [`Finding`] that a rule emits, deterministic
//! [`Id`]s, [`Time`], [`Severity`], the [`inventory`] of what is expected, and [`json`], which reads fields of a JSON
//! record by path without building a tree. Stages hand these types to one another over the `bus`; no stage knows another.
//!
//! This crate does no I/O, reads no clock and depends on no other crate of the workspace.

pub mod inert;
pub mod inventory;
pub mod json;
pub mod path;
pub mod wildcard;

mod audit;
mod envelope;
mod finding;
mod id;
mod rule_info;
mod severity;
pub mod source;
mod time;

pub use audit::AuditEvent;
pub use compact_str::{CompactString as Str, format_compact};
pub use envelope::{
    CodecError, Event, Flag, Flags, Integrity, Invocation, Normalized, Origin, Outcome,
    SCHEMA_VERSION, is_normalized_name,
};
pub use finding::{Finding, MAX_EVENT_IDS};
pub use id::Id;
pub use rule_info::RuleInfo;
pub use severity::Severity;
pub use time::{Time, TimeError};

/// Where the time of day comes from. Only the program reads a real clock; everyone else is given one.
pub type Clock = std::sync::Arc<dyn Fn() -> Time + Send + Sync>;
