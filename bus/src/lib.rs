//! The durable log between stages: topics cut into partitions, records with offsets, consumer positions.
//!
//! [`Bus`] is what a stage sees; [`embedded`] keeps everything in one data folder of one machine, [`kafka`] on a
//! cluster of Apache Kafka. A stage reads records of a partition, computes, and hands back one
//! [`Commit`]: its new positions, its outputs and its changed state take effect together or not at all.
//! [`ledger`] makes that what is stored cannot be changed unseen. [`seen`] drops repeated events with exactly that mechanism; [`metrics`] counts. Records are bytes here: what they
//! mean is the business of the stages.

mod topic;

pub mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod crew;
pub mod embedded;
mod hold;
pub mod kafka;
pub mod ledger;
pub mod metrics;
pub mod seen;

pub use topic::{
    Batch, Bus, BusError, Commit, Entry, Offset, Position, Progress, Record, StateChange, Stop,
    Topic, partition_of,
};
