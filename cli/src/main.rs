//! The program `trailwarden`: commands, whole configuration, wiring, telemetry, shutdown.
//!
//! `main` reads the command line and runs one command; each command is a file of its own. This crate is the
//! only place that wires the stages together, reads the clock and talks to a terminal.

mod clock;
mod correlations;
mod exit;
mod hunt;
mod rules;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Watches the audit trail of cloud and serverless systems
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 110)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Hunt(hunt::HuntArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.command {
        Command::Hunt(args) => hunt::run(args),
    };
    match result {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => ExitCode::from(exit::report(&error)),
    }
}
