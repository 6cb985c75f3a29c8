//! `trailwarden timeline FIELD VALUE`: what somebody did around a time, what of it is new, and the sessions around a key.
//!
//! The questions are those of `search::investigate`; here they are asked of an index on this disk or of a service, and
//! shown to people or given as JSON as the service gives it.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use search::Nodes;
use search::investigate::{Chain, Investigation, PIVOTS, Pivot, USUAL_DAYS};

use crate::clock;
use crate::exit::{Outcome, Usage};

/// Shows what an identity, key, address or function did around a time, and what of it is new
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden timeline identity j.meyer@example.com --around 2026-03-02T12:00:00Z
  trailwarden timeline access_key AKIAIOSFODNN7EXAMPLE --hours 6     and the sessions made with it
  trailwarden timeline src_ip 203.0.113.7 --format json | jq .profile

What is usual is what the same value did in the 30 days before the window.")]
pub(crate) struct TimelineArgs {
    /// identity, actor, session, access_key, src_ip, function, request_id or account
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(PIVOTS.iter().copied()))]
    field: String,
    /// Its value
    value: String,
    /// The middle of the window (RFC 3339, or `-7d`, `-12h`, `now`)
    #[arg(
        long,
        value_name = "TIME",
        default_value = "now",
        allow_hyphen_values = true
    )]
    around: String,
    /// How many hours the window reaches to each side
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(i64).range(1..=720))]
    hours: i64,
    /// How many events to give
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// The data folder of a service, or a folder that `hunt --index` made
    #[arg(long, value_name = "DIR", default_value = "trailwarden-data")]
    data: PathBuf,
    /// How to write; text on a terminal and JSON in a pipe, if not said
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
}

/// Runs the command.
pub(crate) fn run(args: &TimelineArgs) -> anyhow::Result<Outcome> {
    let searcher = Nodes::from(crate::search::open_index(&args.data)?);
    let found = searcher.investigate(&Pivot {
        field: args.field.clone(),
        value: args.value.clone(),
        around: clock::parse(&args.around, clock::now()).context(Usage)?,
        hours: args.hours,
        limit: args.limit,
    })?;
    let chain = match args.field.as_str() {
        "access_key" => searcher.role_chain(&args.value)?,
        _ => Chain::default(),
    };
    let terminal = std::io::stdout().is_terminal();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = match args.format {
        Some(Format::Text) => text(&found, &chain, &mut out),
        None if terminal => text(&found, &chain, &mut out),
        _ => {
            let body = console::investigation(&found, &chain);
            writeln!(out, "{body}")
        }
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Outcome::Clean),
    }
}

fn text(found: &Investigation, chain: &Chain, out: &mut dyn Write) -> std::io::Result<()> {
    let inert = event::inert::text;
    let seen = |time: Option<event::Time>| time.map_or("never".to_owned(), |t| t.to_string());
    writeln!(
        out,
        "{}\n{} events from {} to {}; {} in the {USUAL_DAYS} days before\nfirst seen {}, last seen {}",
        inert(&found.query),
        found.matched,
        found.from,
        found.to,
        found.usual,
        seen(found.first_seen),
        seen(found.last_seen)
    )?;
    if let Some(why) = found.partial.as_ref().or(chain.partial.as_ref()) {
        writeln!(out, "this is not all: {why}")?;
    }
    for aspect in &found.profile {
        let now: Vec<_> = aspect.values.iter().filter(|v| v.window > 0).collect();
        if now.is_empty() {
            continue;
        }
        writeln!(
            out,
            "\n{:<44} {:>8} {:>8}",
            aspect.name.to_uppercase(),
            "WINDOW",
            "BEFORE"
        )?;
        for value in now.iter().take(20) {
            let new = if value.new { "  new" } else { "" };
            writeln!(
                out,
                "{:<44} {:>8} {:>8}{new}",
                inert(&value.value),
                value.window,
                value.before
            )?;
        }
        if now.len() > 20 {
            writeln!(out, "and {} more", now.len() - 20)?;
        }
    }
    for (head, links) in [
        ("MADE FROM", &chain.up),
        ("SESSIONS MADE WITH IT", &chain.down),
    ] {
        if !links.is_empty() {
            writeln!(out, "\n{head}")?;
        }
        for link in links {
            writeln!(
                out,
                "{}  {} by {} {}",
                link.event.time,
                inert(&link.session),
                inert(&link.actor),
                inert(&link.by)
            )?;
        }
    }
    writeln!(out, "\nEVENTS")?;
    for event in &found.events {
        writeln!(
            out,
            "{:<24} {:<8} {:<32} {:<16} {}",
            event.time.to_string(),
            event.outcome.as_str(),
            inert(&event.action),
            inert(&event.src_ip),
            inert(&event.account)
        )?;
    }
    Ok(())
}
