//! The real program, run as its users run it.
//!
//! `program` starts it and talks to it; every other module is one theme. Tests that need the public corpus,
//! which lies beside the checkout, say so and pass where it is absent.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and tells on stderr why it was skipped"
)]

mod agree;
mod aws;
mod bad_input;
mod baseline;
mod cluster;
mod commands;
mod documents;
mod evidence;
mod firehose;
mod generated;
mod heartbeat;
mod hunt;
mod inventory;
mod kafka_doctor;
mod kill;
mod late;
mod layers;
mod mail;
mod program;
mod prometheus;
mod redaction;
mod reload;
mod retention;
mod rule_tests;
mod search;
mod service;
mod sources;
mod tiers;
mod verify;
