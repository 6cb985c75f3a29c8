//! `trailwarden rule`: check, test and list rules, and show what they cover.

mod check;
mod coverage;
mod explain;
mod list;
mod test;

use std::path::PathBuf;

use crate::exit::Outcome;
use crate::rules::RuleArgs;

/// Checks, tests and lists rules, and shows what they cover
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RuleCommand {
    /// Names every mistake in rules, with its place and a hint, and advises what a good rule has
    Check(check::CheckArgs),
    /// Runs the tests that stand in rules, through the same engine as the service
    Test(test::TestArgs),
    /// Shows what rules look for, by ATT&CK and the OWASP Serverless Top 10
    Coverage(coverage::CoverageArgs),
    /// Lists rules: a table on a terminal, JSON lines in a pipe
    List {
        /// Folders and files; the shipped rules, if none is given
        paths: Vec<PathBuf>,
    },
}

/// Runs the command.
pub(crate) fn run(command: &RuleCommand) -> anyhow::Result<Outcome> {
    match command {
        RuleCommand::Check(args) => check::run(args),
        RuleCommand::Test(args) => test::run(args),
        RuleCommand::Coverage(args) => coverage::run(args),
        RuleCommand::List { paths } => list::run(&args(paths, &[]).load()?),
    }
}

fn args(paths: &[PathBuf], placeholders: &[(String, String)]) -> RuleArgs {
    RuleArgs {
        rules: paths.to_vec(),
        placeholders: placeholders.to_vec(),
    }
}
