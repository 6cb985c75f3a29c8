//! Forensic search: months of events by any field or free text.
//!
//! [`indexer::run`] reads events and findings from the `bus` and writes *splits*: immutable tantivy indexes, each
//! covering one range of offsets per partition, published together with the positions in one commit. [`query::parse`]
//! reads the query language of DESIGN §5.4, and [`Searcher`] answers a [`Request`] over all published splits, newest
//! first, stopping as soon as no older split can matter. What is asked about all that matches is the business of
//! [`aggregate`] and [`fields`], of one identity or key that of [`investigate`]; [`export`] writes events out, however many,
//! and [`explain`] tells how a query is understood. [`Nodes`] asks all of this of one index or of several that have a
//! share each. [`offline`] builds and reads the same format without a bus.
//!
//! The original of every event is stored with its split, so a hit is the whole [`event::Event`]. What exceeds the
//! bounds of the index (a thousand leaves, long values) is compared with the stored original instead: slower, but
//! found all the same. This crate does not know any vendor's format and sends nothing to the bus but its own state.

pub mod aggregate;
pub mod config;
pub mod evidence;
pub mod hold;
pub mod metrics;
pub mod query;

pub mod explain;
pub mod export;
pub mod fields;
pub mod indexer;
pub mod investigate;
pub mod nodes;
pub mod offline;
pub mod priority;
pub mod request;
pub mod searcher;

mod catalog;
mod compile;
mod counting;
mod document;
mod findings;
mod groups;
mod lookup;
mod maintain;
mod manifest;
mod names;
pub mod rebuild;
pub mod removal;
mod reserve;
mod schema;
mod shelf;
mod split;
mod text;
mod walk;

pub use config::Config;
pub use metrics::Metrics;
pub use nodes::Nodes;
pub use request::{Answer, Bucket, Cursor, Kind, MAX_BUCKETS, Request, SearchError};
pub use searcher::Searcher;

#[cfg(test)]
mod tests;
