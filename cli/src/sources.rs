//! `trailwarden sources`: what arrives, how late, what is silent and which rules that blinds.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use alerting::watch::report::{Expected, Report};
use alerting::watch::{State, span};
use anyhow::Context;
use event::Time;

use crate::clock;
use crate::exit::Outcome;
use crate::service_client;

/// Shows what arrives, how late, what is silent and which rules that blinds
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden sources                                    of the service on this machine
  trailwarden sources --url https://trailwarden.example --token-file token
  trailwarden sources --format json | jq '.silent[].blind[].title'

A source is silent when nothing has come from it for twice as long as is usual for it. docs/collecting.md says more.
Exit code: 0 all is well, 1 something is silent, fails or was never seen.")]
pub(crate) struct SourcesArgs {
    /// The service
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7171")]
    url: String,
    /// A file with the bearer token for it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How to write the answer; tables on a terminal and JSON in a pipe, if not said
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Tables for people
    Table,
    /// One JSON object
    Json,
}

/// Runs the command.
pub(crate) fn run(args: &SourcesArgs) -> anyhow::Result<Outcome> {
    let service = service_client::Service::new(&args.url, args.token_file.as_deref())?;
    let body = service.get(service.address("/api/v1/sources")?)?;
    let report: Report =
        serde_json::from_value(body).context("the service answered something that is no report")?;
    let terminal = std::io::stdout().is_terminal();
    let format = args.format.unwrap_or(if terminal {
        Format::Table
    } else {
        Format::Json
    });
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = match format {
        Format::Json => serde_json::to_writer_pretty(&mut out, &report)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out)),
        Format::Table => tables(&report, clock::now(), &mut out),
    };
    match written.and_then(|()| out.flush()) {
        // The reader of a pipe that has seen enough is no error.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(if report.is_well() {
        Outcome::Clean
    } else {
        Outcome::Found
    })
}

fn inert(text: &str) -> String {
    event::inert::text(text).into_owned()
}

/// How many rules are named of a silent source.
const NAMED: usize = 10;

fn tables(report: &Report, now: Time, out: &mut dyn Write) -> std::io::Result<()> {
    let ago = |time: Option<Time>| match time {
        None => "never".to_owned(),
        Some(time) => format!("{} ago", span(now.0 - time.0)),
    };
    for silent in &report.silent {
        writeln!(
            out,
            "SILENT  {} since {}, {}",
            inert(&silent.feed.to_string()),
            silent.since,
            ago(Some(silent.since))
        )?;
        writeln!(
            out,
            "        {} rules see nothing of it:",
            silent.blind.len()
        )?;
        for rule in silent.blind.iter().take(NAMED) {
            writeln!(
                out,
                "          {:<13} {}",
                rule.severity.as_str(),
                rule.title
            )?;
        }
        if silent.blind.len() > NAMED {
            writeln!(out, "          and {} more", silent.blind.len() - NAMED)?;
        }
        writeln!(out)?;
    }
    if report.sources.is_empty() {
        writeln!(out, "Nothing has arrived yet.")?;
    } else {
        let mut rows = vec![row([
            "SOURCE",
            "ACCOUNT",
            "REGION",
            "STATE",
            "LAST",
            "EVENTS 24H",
            "DELAY",
            "RULES",
        ])];
        for source in &report.sources {
            let account = match source.account_name.as_str() {
                "" => source.account.clone(),
                name => format!("{} {name}", source.account),
            };
            let last = source.last_ingest.max(source.last_heartbeat);
            let delay = match source.last_event {
                None => String::new(),
                Some(_) => span((source.delay_seconds * 1e6) as i64),
            };
            rows.push(vec![
                inert(&source.source),
                inert(&account),
                inert(&source.region),
                source.state.as_str().to_owned(),
                ago(last),
                source.events_last_day.to_string(),
                delay,
                source.rules.to_string(),
            ]);
        }
        table(&rows, out)?;
    }
    if !report.collectors.is_empty() {
        writeln!(out)?;
        let mut rows = vec![row([
            "COLLECTOR",
            "NODE",
            "STATE",
            "LAST WELL",
            "WAITING",
            "TAKEN",
        ])];
        for fetching in &report.collectors {
            let collector = &fetching.collector;
            let waiting = collector.waiting.map(|n| n.to_string());
            rows.push(vec![
                inert(&collector.label()),
                inert(&collector.node),
                fetching.state.clone(),
                ago(collector.well),
                waiting.unwrap_or_default(),
                collector.taken.to_string(),
            ]);
        }
        table(&rows, out)?;
        for fetching in report.collectors.iter().filter(|c| c.state == "failing") {
            let collector = &fetching.collector;
            writeln!(
                out,
                "\nFAILING {} on {}: {}\n        hint: {}",
                inert(&collector.label()),
                inert(&collector.node),
                inert(&collector.message),
                collector.hint
            )?;
        }
    }
    for fetching in report.collectors.iter().filter(|c| !c.beside.is_empty()) {
        writeln!(
            out,
            "\nSHARED  {} on {} is also read by {}\n        hint: {}",
            inert(&fetching.collector.label()),
            inert(&fetching.collector.node),
            inert(&fetching.beside.join(", ")),
            fetching.shared_hint()
        )?;
    }
    let unseen = &report.unseen;
    for (what, list) in [
        ("accounts", &unseen.accounts),
        ("regions", &unseen.regions),
        ("functions", &unseen.functions),
    ] {
        if list.is_empty() {
            continue;
        }
        writeln!(
            out,
            "\nNEVER SEEN: {} {what} that the inventory expects",
            list.len()
        )?;
        let mut rows = Vec::new();
        for Expected {
            account,
            account_name,
            name,
            owner,
            criticality,
        } in list
        {
            rows.push(
                [account, account_name, name, owner, criticality]
                    .map(|t| inert(t))
                    .to_vec(),
            );
        }
        table(&rows, out)?;
    }
    let learning = report
        .sources
        .iter()
        .filter(|s| s.state == State::Learning)
        .count();
    if learning > 0 {
        writeln!(
            out,
            "\n{learning} sources are younger than a day: what is usual for them is being learned."
        )?;
    }
    Ok(())
}

fn row<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

/// Columns as wide as what is in them.
fn table(rows: &[Vec<String>], out: &mut dyn Write) -> std::io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|r| r.get(column));
        cells.map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
