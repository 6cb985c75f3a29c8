//! The real program, run as its users run it.
//!
//! `program` starts it and talks to it; every other module is one theme. Tests that need the public corpus,
//! which lies beside the checkout, say so and pass where it is absent.

mod bad_input;
mod commands;
mod hunt;
mod kill;
mod layers;
mod program;
mod service;
