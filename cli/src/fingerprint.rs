//! `trailwarden fingerprint`: what stands in events in place of a secret that one knows.

use std::io::{BufRead, Write};

use anyhow::Context;

use crate::exit::Outcome;
use crate::redaction::KeyArgs;

/// Makes the fingerprint of a secret that is read from standard input, to search for it
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  trailwarden search \"$(trailwarden fingerprint < leaked.txt)\"

A secret does not belong into a query: queries are written to the audit trail.")]
pub(crate) struct FingerprintArgs {
    #[command(flatten)]
    key: KeyArgs,
}

/// Runs the command.
pub(crate) fn run(args: &FingerprintArgs) -> anyhow::Result<Outcome> {
    let key = args.key.key()?;
    let mut secret = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut secret)
        .context("cannot read standard input")?;
    let secret = secret.trim_end_matches(['\r', '\n']);
    writeln!(std::io::stdout(), "{}", key.fingerprint(secret.as_bytes()))?;
    Ok(Outcome::Clean)
}
