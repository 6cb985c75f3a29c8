//! Sources: where records come from without being pushed.
//!
//! Each source is a file of its own with a function `run` that works until it is told to stop. It keeps what it
//! has done with in the state of the bus, under a consumer name of its own, and acknowledges nothing before its
//! events are durable.

pub mod attest;
pub mod bucket;
pub mod cloudwatch;
pub mod files;
pub mod kinesis;
pub mod notification;
pub mod object;
pub mod queue;
pub mod s3;

mod group;
mod patience;
