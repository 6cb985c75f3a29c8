//! `trailwarden evidence verify`: what a bundle proves, in words or as JSON.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use bus::ledger::note::VerifyKey;
use event::inert;
use search::evidence::verify::{Report, verify};

use crate::exit::{Outcome, Usage};

/// Verifies a bundle, without the store that it came from and without a network
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden evidence verify mallory.zip --key trailwarden/5f0c…+1a2b3c4d+AUz…
  trailwarden evidence verify mallory.zip --key key.txt
  trailwarden evidence verify mallory.zip                 is it whole? Not: who made it

Exit code: 0 the bundle is whole, 1 it is not, 2 usage.")]
pub(crate) struct VerifyArgs {
    /// The bundle
    file: PathBuf,
    /// The public key of the Trailwarden that made it, or a file with it, as `evidence key` prints it there
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// How to write the report; text on a terminal and JSON in a pipe, if not said
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
}

/// The key that is given as it is, or in a file.
pub(crate) fn key(given: &str) -> anyhow::Result<VerifyKey> {
    if let Ok(key) = VerifyKey::parse(given) {
        return Ok(key);
    }
    let text = super::read(given.as_ref(), 1 << 16)
        .with_context(|| format!("`{given}` is neither a public key nor a file with one"))?;
    let text = String::from_utf8_lossy(&text);
    VerifyKey::parse(&text)
        .with_context(|| format!("`{given}`"))
        .context(Usage)
}

pub(super) fn run(args: &VerifyArgs, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let key = args.key.as_deref().map(key).transpose()?;
    let bundle = super::read(&args.file, search::evidence::zip::MAX)?;
    let report = verify(&bundle, key.as_ref());
    let terminal = std::io::stdout().is_terminal();
    let format = args.format.unwrap_or(match terminal {
        true => Format::Text,
        false => Format::Json,
    });
    match format {
        Format::Json => {
            let mut json = serde_json::to_value(&report)?;
            json["whole"] = report.problems.is_empty().into();
            writeln!(out, "{json}")?;
        }
        Format::Text => text(&report, out)?,
    }
    Ok(match report.problems.is_empty() {
        true => Outcome::Clean,
        false => Outcome::Found,
    })
}

fn text(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    if let Some(about) = report.about.as_ref().filter(|_| report.problems.is_empty()) {
        let time = |time: Option<event::Time>| time.map_or("-".to_owned(), |t| t.to_string());
        let lines = [
            ("case", about.case.clone()),
            ("query", about.query.clone()),
            (
                "from, to",
                format!("{}, {}", time(about.from), time(about.to)),
            ),
            ("events", about.events.to_string()),
            (
                "made",
                format!("{} by {} with {}", about.made, about.by, about.tool),
            ),
            ("sha256", report.sha256.clone()),
        ];
        let covers = about.covers.iter().map(|words| ("covers", words.clone()));
        for (name, words) in lines.into_iter().chain(covers) {
            writeln!(out, "{name:<10} {}", inert::text(&words))?;
        }
    }
    for (title, lines) in [
        (
            "THE BUNDLE IS NOT WHOLE, AND PROVES NOTHING",
            &report.problems,
        ),
        ("PROVEN", &report.proven),
        ("NOT PROVEN", &report.not_proven),
    ] {
        if !lines.is_empty()
            && (report.problems.is_empty() || std::ptr::eq(lines, &report.problems))
        {
            writeln!(out, "\n{title}")?;
            for line in lines {
                writeln!(out, "  - {}", inert::text(line))?;
            }
        }
    }
    Ok(())
}
