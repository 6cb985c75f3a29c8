//! `trailwarden timeline FIELD VALUE`: what somebody did around a time, what of it is new, and the sessions around a key.
//!
//! The questions are those of `search::investigate`, asked of an index on this disk or of a service. Either answer is the
//! JSON that the service gives, and what people read is made of that.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use event::{Event, Time};
use search::Nodes;
use search::investigate::{Aspect, Chain, Middle, PIVOTS, Pivot, USUAL_DAYS};
use serde::Deserialize;
use serde_json::Value;

use crate::clock;
use crate::exit::{Outcome, Usage};
use crate::service_client::Service;

/// Shows what an identity, key, address or function did around a time, and what of it is new
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden timeline identity j.meyer@example.com --around 2026-03-02T12:00:00Z
  trailwarden timeline access_key AKIAIOSFODNN7EXAMPLE --hours 6     and the sessions made with it
  trailwarden timeline src_ip 203.0.113.7 --format json | jq .profile
  trailwarden timeline actor ana --url http://127.0.0.1:7171         of a running service

What is usual is what the same value did in the 30 days before the window. Without --around the window
is around now, or where nothing is there around the last event; the answer says which.")]
pub(crate) struct TimelineArgs {
    /// identity, actor, session, access_key, src_ip, function, request_id or account
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(PIVOTS.iter().copied()))]
    field: String,
    /// Its value
    value: String,
    /// The middle of the window (RFC 3339, or `-7d`, `-12h`, `now`); the last event, if nothing is around now
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    around: Option<String>,
    /// How many hours the window reaches to each side
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(i64).range(1..=720))]
    hours: i64,
    /// How many events to give: those nearest to the middle
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// The data folder of a service, or a folder that `hunt --index` made
    #[arg(long, value_name = "DIR", default_value = "trailwarden-data")]
    data: PathBuf,
    /// Ask a running service instead, such as http://127.0.0.1:7171
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    url: Option<String>,
    /// A file with the bearer token for that service
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
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

/// What is shown of an answer.
#[derive(Debug, Deserialize)]
struct Answer {
    query: String,
    around: Time,
    middle: Middle,
    from: Time,
    to: Time,
    matched: u64,
    failed: u64,
    usual: u64,
    first_seen: Option<Time>,
    last_seen: Option<Time>,
    profile: Vec<Aspect>,
    events: Vec<Event>,
    assumed_by: Vec<Step>,
    assumed: Vec<Step>,
    partial: Option<String>,
}

/// One session that was made from another.
#[derive(Debug, Deserialize)]
struct Step {
    by: String,
    actor: String,
    session: String,
    event: When,
}

#[derive(Debug, Deserialize)]
struct When {
    time: Time,
}

/// Runs the command.
pub(crate) fn run(args: &TimelineArgs) -> anyhow::Result<Outcome> {
    let now = clock::now();
    let around = args.around.as_deref();
    let around = around.map(|text| clock::parse(text, now)).transpose();
    let pivot = Pivot {
        field: args.field.clone(),
        value: args.value.clone(),
        around: around.context(Usage)?,
        now,
        hours: args.hours,
        limit: args.limit,
    };
    let body = match &args.url {
        Some(url) => of_service(url, args.token_file.as_deref(), &pivot)?,
        None => of_index(&args.data, &pivot)?,
    };
    let terminal = std::io::stdout().is_terminal();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = match args.format {
        Some(Format::Json) => writeln!(out, "{body}"),
        None if !terminal => writeln!(out, "{body}"),
        _ => {
            let answer = serde_json::from_value(body)
                .context("the service answered something else than was asked")?;
            text(&answer, &mut out)
        }
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Outcome::Clean),
    }
}

fn of_index(data: &Path, pivot: &Pivot) -> anyhow::Result<Value> {
    let searcher = Nodes::from(crate::search::open_index(data)?);
    let found = searcher.investigate(pivot)?;
    let chain = match pivot.field.as_str() {
        "access_key" => searcher.role_chain(&pivot.value)?,
        _ => Chain::default(),
    };
    Ok(console::investigation(&found, &chain))
}

fn of_service(url: &str, token_file: Option<&Path>, pivot: &Pivot) -> anyhow::Result<Value> {
    let service = Service::new(url, token_file)?;
    let mut address = service.address("/api/v1/investigate")?;
    let mut pairs = address.query_pairs_mut();
    pairs
        .append_pair("field", &pivot.field)
        .append_pair("value", &pivot.value)
        .append_pair("hours", &pivot.hours.to_string())
        .append_pair("limit", &pivot.limit.to_string());
    if let Some(around) = pivot.around {
        pairs.append_pair("around", &around.to_string());
    }
    drop(pairs);
    service.get(address)
}

fn text(found: &Answer, out: &mut dyn Write) -> std::io::Result<()> {
    let inert = event::inert::text;
    let seen = |time: Option<Time>| time.map_or("never".to_owned(), |t| t.to_string());
    writeln!(out, "{}", inert(&found.query))?;
    if found.middle == Middle::LastSeen {
        writeln!(
            out,
            "around the last event, {}, since nothing is around now",
            found.around
        )?;
    }
    writeln!(
        out,
        "{} events from {} to {}{}; {} in the {USUAL_DAYS} days before\nfirst seen {}, last seen {}",
        found.matched,
        found.from,
        found.to,
        match found.failed {
            0 => String::new(),
            failed => format!(", {failed} failed or denied"),
        },
        found.usual,
        seen(found.first_seen),
        seen(found.last_seen)
    )?;
    if let Some(why) = &found.partial {
        writeln!(out, "this is not all: {why}")?;
    }
    if found.matched == 0 {
        // First and last seen say where to look instead.
        if let Some(last) = found.last_seen {
            writeln!(
                out,
                "\nhint: look around the last event with --around {last}"
            )?;
        }
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
    for (head, steps) in [
        ("MADE FROM", &found.assumed_by),
        ("SESSIONS MADE WITH IT", &found.assumed),
    ] {
        if !steps.is_empty() {
            writeln!(out, "\n{head}")?;
        }
        for step in steps {
            writeln!(
                out,
                "{}  {} by {} {}",
                step.event.time,
                inert(&step.session),
                inert(&step.actor),
                inert(&step.by)
            )?;
        }
    }
    if found.matched == 0 {
        return Ok(());
    }
    match found.events.len() as u64 {
        shown if shown < found.matched => writeln!(
            out,
            "\nEVENTS ({shown} of {}, those nearest to {})",
            found.matched, found.around
        )?,
        _ => writeln!(out, "\nEVENTS")?,
    }
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
