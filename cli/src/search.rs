//! `trailwarden search`: questions to an index, on disk or through a running service.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use event::Event;
use prometheus::Registry;
use search::{Request, SearchError, Searcher};

use crate::clock;
use crate::exit::{Outcome, Usage};
use crate::service_client;

/// Searches events by any field or free text
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden search 'eventName:ConsoleLogin AND outcome:failure' --from -1d
  trailwarden search 'src_ip:203.0.113.0/24 AND NOT userIdentity.type:Root'
  trailwarden search '\"access denied\"' --format jsonl | jq .actor
  trailwarden search 'error_code:*' --agg actor             the actors with most errors

Fields are the names of the normalized envelope (actor, action, src_ip, ...) or of the original record
(userIdentity.arn, requestParameters.bucketName, ...). docs/guide.md has the whole language.")]
pub(crate) struct SearchArgs {
    /// The query; empty for everything
    #[arg(default_value = "", allow_hyphen_values = true)]
    query: String,
    /// Not before this time (RFC 3339, or `-7d`, `-12h`, `now`)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Not after this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// The data folder of a service, or a folder that `hunt --index` made
    #[arg(long, value_name = "DIR", default_value = "trailwarden-data")]
    data: PathBuf,
    /// Ask a running service instead, such as http://127.0.0.1:7171
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    url: Option<String>,
    /// A file with the bearer token for that service
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// How to write events; a table on a terminal and JSON lines in a pipe, if not said
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How many events to give
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// The earliest first
    #[arg(long)]
    oldest_first: bool,
    /// Count the values of a field instead of giving events
    #[arg(long, value_name = "FIELD")]
    agg: Option<String>,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A line for people
    Table,
    /// One JSON object a line
    Jsonl,
    /// One JSON array
    Json,
    /// Comma-separated values, safe to open in a spreadsheet
    Csv,
}

/// The index folder of a data folder, or the folder itself where it is one.
pub(crate) fn index_dir(data: &Path) -> PathBuf {
    let inner = data.join("index");
    if inner.is_dir() {
        inner
    } else {
        data.to_owned()
    }
}

/// Runs the command.
pub(crate) fn run(args: &SearchArgs) -> anyhow::Result<Outcome> {
    let now = clock::now();
    let limit = |text: &Option<String>| {
        text.as_deref()
            .map(|t| clock::parse(t, now))
            .transpose()
            .context(Usage)
    };
    let request = Request {
        query: args.query.clone(),
        from: limit(&args.from)?,
        to: limit(&args.to)?,
        limit: args.limit,
        newest_first: !args.oldest_first,
        ..Request::default()
    };
    let terminal = std::io::stdout().is_terminal();
    let format = args.format.unwrap_or(if terminal {
        Format::Table
    } else {
        Format::Jsonl
    });
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if let Some(url) = &args.url {
        anyhow::ensure!(
            args.agg.is_none(),
            anyhow::anyhow!("--agg works on --data only").context(Usage)
        );
        let hits = ask(url, args.token_file.as_deref(), &request)?;
        return finish(events(format, &hits, &mut out), &mut out);
    }
    let dir = index_dir(&args.data);
    anyhow::ensure!(
        dir.is_dir(),
        anyhow::anyhow!("there is no index in `{}`\n\nhint: give the data folder of a service with --data, or make an index with `trailwarden hunt PATH --index DIR`", args.data.display()).context(Usage)
    );
    let config = search::Config {
        max_limit: 1_000_000,
        timeout_ms: 600_000,
        ..search::Config::default()
    };
    let metrics = search::Metrics::new(&Registry::new())?;
    let searcher = Searcher::open(&dir, &config, metrics, clock::clock())
        .with_context(|| format!("cannot open the index in `{}`", dir.display()))?;
    let written = match &args.agg {
        Some(field) => {
            let values = searcher
                .top(&request, field, args.limit)
                .map_err(|e| explain(e, &args.query))?;
            counts(format, field, &values, &mut out)
        }
        None => {
            let answer = searcher
                .search(&request)
                .map_err(|e| explain(e, &args.query))?;
            if let Some(partial) = &answer.partial {
                warn(partial);
            }
            let hits: Vec<Hit> = answer.hits.into_iter().map(Hit::from).collect();
            events(format, &hits, &mut out)
        }
    };
    finish(written, &mut out)
}

/// The reader of a pipe that has seen enough is no error.
fn finish(written: std::io::Result<()>, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Outcome::Clean),
    }
}

/// An event that was found, and the same as JSON.
struct Hit {
    event: Event,
    json: serde_json::Value,
}

impl From<Event> for Hit {
    fn from(event: Event) -> Hit {
        let json = event.to_json();
        Hit { event, json }
    }
}

/// How many events one request to a service asks for.
const PAGE: usize = 1_000;

/// Asks a running service, page by page.
fn ask(url: &str, token_file: Option<&Path>, request: &Request) -> anyhow::Result<Vec<Hit>> {
    let service = service_client::Service::new(url, token_file)?;
    let base = service.address("/api/v1/search")?;
    let mut hits: Vec<Hit> = Vec::new();
    let mut cursor: Option<String> = None;
    while hits.len() < request.limit {
        let mut page = base.clone();
        {
            let mut pairs = page.query_pairs_mut();
            pairs.append_pair("q", &request.query);
            pairs.append_pair("limit", &(request.limit - hits.len()).min(PAGE).to_string());
            pairs.append_pair(
                "order",
                if request.newest_first {
                    "newest"
                } else {
                    "oldest"
                },
            );
            for (name, time) in [("from", request.from), ("to", request.to)] {
                if let Some(time) = time {
                    pairs.append_pair(name, &time.to_string());
                }
            }
            if let Some(cursor) = &cursor {
                pairs.append_pair("cursor", cursor);
            }
        }
        let body = service.get(page)?;
        if let Some(partial) = body["partial"].as_str() {
            warn(partial);
        }
        for json in body["hits"].as_array().cloned().unwrap_or_default() {
            let event = serde_json::from_value(json.clone())
                .context("the service answered something that is no event")?;
            hits.push(Hit { event, json });
        }
        match body["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    Ok(hits)
}

#[expect(clippy::print_stderr, reason = "a command talks to people on stderr")]
fn warn(words: &str) {
    eprintln!("warning: this answer is not complete: {words}");
}

/// A mistake in a query is shown at its place.
fn explain(error: SearchError, query: &str) -> anyhow::Error {
    match &error {
        SearchError::Query(mistake) => {
            let before = query.get(..mistake.offset).map_or(0, |b| b.chars().count());
            let hint = if mistake.hint().is_empty() {
                String::new()
            } else {
                format!("\n\nhint: {}", mistake.hint())
            };
            anyhow::anyhow!(
                "cannot read the query\n   | {}\n   | {}^\n   = {mistake}{hint}",
                event::inert::text(query),
                " ".repeat(before)
            )
            .context(Usage)
        }
        SearchError::ReversedRange { .. } | SearchError::Limit { .. } => {
            anyhow::Error::new(error).context(Usage)
        }
        _ => anyhow::Error::new(error),
    }
}

fn counts(
    format: Format,
    field: &str,
    values: &[(String, u64)],
    out: &mut dyn Write,
) -> std::io::Result<()> {
    match format {
        Format::Table => values
            .iter()
            .try_for_each(|(value, n)| writeln!(out, "{n:>10}  {}", event::inert::text(value))),
        Format::Csv => {
            writeln!(out, "{},count", cell(field))?;
            values
                .iter()
                .try_for_each(|(value, n)| writeln!(out, "{},{n}", cell(value)))
        }
        Format::Jsonl => values.iter().try_for_each(|(value, n)| {
            writeln!(out, "{}", serde_json::json!({ field: value, "count": n }))
        }),
        Format::Json => {
            let all: Vec<_> = values
                .iter()
                .map(|(value, n)| serde_json::json!({ field: value, "count": n }))
                .collect();
            writeln!(out, "{}", serde_json::Value::from(all))
        }
    }
}

const COLUMNS: [&str; 12] = [
    "time",
    "source",
    "account",
    "region",
    "action",
    "outcome",
    "error_code",
    "actor",
    "identity",
    "src_ip",
    "user_agent",
    "source_id",
];

fn events(format: Format, hits: &[Hit], out: &mut dyn Write) -> std::io::Result<()> {
    match format {
        Format::Table => {
            writeln!(
                out,
                "{:<24} {:<8} {:<28} {:<44} {:<16} ACCOUNT",
                "TIME (UTC)", "OUTCOME", "ACTION", "ACTOR", "SOURCE IP"
            )?;
            for Hit { event, .. } in hits {
                let who = if event.actor.is_empty() {
                    &event.function
                } else {
                    &event.actor
                };
                let fields = [(&event.action, 28), (who, 44), (&event.src_ip, 16)]
                    .map(|(text, width)| format!("{:<width$}", cut(text, width)));
                let line = format!(
                    "{:<24} {:<8} {} {}",
                    event.time.to_string(),
                    event.outcome.as_str(),
                    fields.join(" "),
                    event.account
                );
                writeln!(out, "{}", line.trim_end())?;
            }
            Ok(())
        }
        Format::Csv => {
            writeln!(out, "{}", COLUMNS.join(","))?;
            for Hit { event, .. } in hits {
                let cells: Vec<String> = COLUMNS.iter().map(|c| cell(&column(event, c))).collect();
                writeln!(out, "{}", cells.join(","))?;
            }
            Ok(())
        }
        Format::Jsonl => hits
            .iter()
            .try_for_each(|hit| writeln!(out, "{}", hit.json)),
        Format::Json => {
            let all: Vec<_> = hits.iter().map(|hit| hit.json.clone()).collect();
            writeln!(out, "{}", serde_json::Value::from(all))
        }
    }
}

fn column(event: &Event, name: &str) -> String {
    match event.normalized(name) {
        event::Normalized::Absent => String::new(),
        event::Normalized::Text(text) => text.into_owned(),
        event::Normalized::List(texts) => texts.join(" "),
    }
}

fn cut(text: &str, width: usize) -> String {
    let inert = event::inert::text(text);
    if inert.chars().count() <= width {
        inert.into_owned()
    } else {
        inert.chars().take(width - 1).chain(['…']).collect()
    }
}

/// A cell of a spreadsheet: quoted, and never a formula.
fn cell(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        "'"
    } else {
        ""
    };
    format!(
        "\"{guard}{}\"",
        event::inert::text(text).replace('"', "\"\"")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_never_formulas() {
        for (text, expected) in [
            ("=HYPERLINK(1)", "\"'=HYPERLINK(1)\""),
            ("a\"b", "\"a\"\"b\""),
            ("-1", "\"'-1\""),
            ("\t=1", "\"'⇥=1\""),
            ("plain", "\"plain\""),
        ] {
            assert_eq!(cell(text), expected);
        }
    }
}
