//! From what sources deliver to events on the log.
//!
//! The way of a record: a source ([`source::files`], [`source::queue`], [`source::kinesis`], [`push`], [`firehose`], …) hands bytes to
//! [`decode`], which tells by their content what they are and cuts them into records; [`redact`] replaces the secrets in
//! a record and [`normalize`] turns it into an [`event::Event`], which gets its labels ([`treatment`]) and is appended to the bus. What cannot become an event becomes a
//! [`dead_letter`] with its reason, so that it can be looked at and replayed. Decoding and normalizing
//! are plain functions without clock or bus, since `hunt` runs them over folders without any service. How each source is
//! doing is told by [`status`].
//!
//! This crate is the last one that knows the formats of vendors. It evaluates no rule and keeps no event.

pub mod attested;
pub mod aws;
pub mod config;
pub mod dead_letter;
pub mod decode;
pub mod digest;
pub mod firehose;
pub mod metrics;
pub mod normalize;
pub mod push;
pub mod redact;
pub mod source;
pub mod status;
pub mod tier;
pub mod treatment;

mod append;
mod body;
mod refusal;
