//! The program `trailwarden`: commands, whole configuration, wiring, telemetry, shutdown.
//!
//! `main` reads the command line and runs one command; each command is a file of its own. This crate is the
//! only place that wires the stages together, reads the clock and talks to a terminal.

mod backtest;
mod baseline;
mod clock;
mod config;
mod correlations;
mod dead_letters;
mod demo;
mod demo_command;
#[cfg(test)]
mod deployed;
mod doctor;
mod evidence;
mod exit;
mod fingerprint;
mod heartbeat;
mod hold;
mod hunt;
mod index;
mod inventory;
mod live_rules;
mod log;
mod look;
mod peers;
mod reconcile;
mod redaction;
mod reveal;
mod role;
mod rule;
mod rules;
mod run;
mod search;
mod service;
mod service_client;
mod sources;
mod timeline;
mod topics;
mod treatment;
mod verify;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use exit::Outcome;

/// Records become many small texts that are let go on other threads than they were made on, which it is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Watches the audit trail of cloud and serverless systems: rules over CloudTrail and function logs, forensic
/// search, alerts
#[derive(Debug, Parser)]
#[command(
    name = "trailwarden",
    version,
    propagate_version = true,
    max_term_width = 110
)]
#[command(
    after_help = "Begin with `trailwarden demo`, or point `trailwarden hunt` at a folder of logs."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo_command::DemoArgs),
    Run(run::RunArgs),
    Hunt(hunt::HuntArgs),
    Backtest(backtest::BacktestArgs),
    Search(search::SearchArgs),
    Timeline(timeline::TimelineArgs),
    Sources(sources::SourcesArgs),
    #[command(subcommand)]
    Rule(rule::RuleCommand),
    Baseline(baseline::BaselineArgs),
    Verify(verify::VerifyArgs),
    /// Checks a configuration, or explains every key
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Checks an inventory of accounts and functions
    #[command(subcommand)]
    Inventory(inventory::InventoryCommand),
    /// Makes bundles of events that prove themselves, and verifies them
    #[command(subcommand)]
    Evidence(evidence::EvidenceCommand),
    Hold(hold::HoldArgs),
    Index(index::IndexArgs),
    DeadLetters(dead_letters::DeadLetterArgs),
    Reconcile(reconcile::ReconcileArgs),
    Reveal(reveal::RevealArgs),
    Fingerprint(fingerprint::FingerprintArgs),
    Topics(topics::TopicArgs),
    Doctor(doctor::DoctorArgs),
    /// Makes the argon2id hash of a password that is read from standard input
    HashPassword,
    /// Writes the completions of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Checks a configuration without starting anything
    Check {
        /// The file
        file: PathBuf,
    },
    /// Prints a configuration with every key at its default and what it means
    Reference,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        unreachable!("nothing else installs a provider before main");
    }
    match run(&args.command) {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => ExitCode::from(exit::report(&error)),
    }
}

fn run(command: &Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Demo(args) => demo_command::run(args),
        Command::Run(args) => run::run(args),
        Command::Hunt(args) => hunt::run(args),
        Command::Backtest(args) => backtest::run(args),
        Command::Search(args) => search::run(args),
        Command::Timeline(args) => timeline::run(args),
        Command::Sources(args) => sources::run(args),
        Command::Rule(command) => rule::run(command),
        Command::Baseline(args) => baseline::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Config(ConfigCommand::Check { file }) => {
            config::load(Some(file), false)?;
            writeln!(std::io::stdout(), "`{}` is good", file.display())?;
            Ok(Outcome::Clean)
        }
        Command::Config(ConfigCommand::Reference) => {
            std::io::stdout().write_all(config::REFERENCE.as_bytes())?;
            Ok(Outcome::Clean)
        }
        Command::Inventory(command) => inventory::run(command),
        Command::Evidence(command) => evidence::run(command),
        Command::Hold(args) => hold::run(args),
        Command::Index(args) => index::run(args),
        Command::DeadLetters(args) => dead_letters::run(args),
        Command::Reconcile(args) => reconcile::run(args),
        Command::Reveal(args) => reveal::run(args),
        Command::Fingerprint(args) => fingerprint::run(args),
        Command::Topics(args) => topics::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::HashPassword => {
            let mut password = String::new();
            std::io::stdin().read_line(&mut password)?;
            let hash = console::hash_password(password.trim_end_matches(['\r', '\n']));
            writeln!(std::io::stdout(), "{hash}")?;
            Ok(Outcome::Clean)
        }
        Command::Completions { shell } => {
            clap_complete::generate(
                *shell,
                &mut Args::command(),
                "trailwarden",
                &mut std::io::stdout(),
            );
            Ok(Outcome::Clean)
        }
    }
}
