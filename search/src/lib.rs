//! Forensic search: months of events by any field or free text.
//!
//! [`indexer::run`] reads events and findings from the `bus` and writes *splits*: immutable tantivy indexes, each
//! covering one range of offsets per partition, published together with the positions in one commit. [`query::parse`]
//! reads the query language of DESIGN §5.4, and [`Searcher`] answers a [`Request`] over all published splits, newest
//! first, stopping as soon as no older split can matter. [`offline`] builds and reads the same format without a bus.
//!
//! The original of every event is stored with its split, so a hit is the whole [`event::Event`]. What exceeds the
//! bounds of the index (a thousand leaves, long values) is compared with the stored original instead: slower, but
//! found all the same. This crate does not know any vendor's format and sends nothing to the bus but its own state.

pub mod config;
pub mod metrics;
pub mod query;

pub mod indexer;
pub mod offline;
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
mod schema;
mod split;
mod text;

pub use config::Config;
pub use metrics::Metrics;
pub use request::{Answer, Bucket, Cursor, Kind, MAX_BUCKETS, Request, SearchError};
pub use searcher::Searcher;

#[cfg(test)]
mod tests;
