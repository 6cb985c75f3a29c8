//! `trailwarden reveal`: events as they were before secrets in them were replaced.

use std::io::{BufRead, Write};

use anyhow::Context;
use serde_json::Value;

use crate::exit::{Outcome, Usage};
use crate::redaction::KeyArgs;

/// Opens the originals of events from which secrets were taken, with the key of redaction
///
/// Reads events as JSON lines from standard input, as `search --format jsonl` writes them, and writes them with the
/// original record under `raw`. Events without a kept original pass as they are.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden search 'flags:redacted' --format jsonl | trailwarden reveal | jq .raw
  trailwarden search 'id:…' --url https://… --format jsonl | trailwarden reveal --key-file redaction.key")]
pub(crate) struct RevealArgs {
    #[command(flatten)]
    key: KeyArgs,
}

/// Runs the command.
pub(crate) fn run(args: &RevealArgs) -> anyhow::Result<Outcome> {
    let key = args.key.key()?;
    let mut out = std::io::stdout().lock();
    for (n, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.context("cannot read standard input")?;
        let place = n + 1;
        let mut event: Value = serde_json::from_str(&line)
            .with_context(|| format!("line {place} is no event as JSON"))
            .context(Usage)?;
        if let Some(original) = event["original"].as_str() {
            let original = key.open(original).with_context(|| {
                format!("cannot open the original of the event in line {place}")
            })?;
            event["raw"] = serde_json::from_slice(&original)
                .unwrap_or_else(|_| String::from_utf8_lossy(&original).into_owned().into());
            if let Some(event) = event.as_object_mut() {
                event.remove("original");
            }
        }
        writeln!(out, "{event}")?;
    }
    Ok(Outcome::Clean)
}
