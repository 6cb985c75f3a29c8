//! `trailwarden search`: questions to an index, on disk or through a running service.
//!
//! The query comes from the command line, from a rule (`rule`), or both. It is answered by events, which stream out
//! (`output`), or by what can be asked about all of them: aggregations, fields, or how the query is understood. A running
//! service is asked by `remote`; `as_rule` turns the query into a rule and asks nobody.

mod as_rule;
mod output;
mod remote;
mod rule;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use alerting::SavedSearch;
use alerting::saved::{First, Searched};
use anyhow::Context;
use detect::rule_set::RuleSet;
use prometheus::Registry;
use search::aggregate::{self, Aggregations};
use search::export::{self, ExportError, Writer};
use search::{Nodes, Request, SearchError, Searcher};

use crate::clock;
use crate::exit::{Outcome, Usage};

/// Searches events by any field or free text
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden search 'eventName:ConsoleLogin AND outcome:failure' --from -1d
  trailwarden search 'src_ip:203.0.113.0/24 AND NOT userIdentity.type:Root'
  trailwarden search '\"access denied\"' --format jsonl | jq .actor
  trailwarden search 'eventName: IN [StopLogging, DeleteTrail]' --format parquet --output found.parquet
  trailwarden search 'error_code:*' --agg actor             the actors with most errors
  trailwarden search 'outcome:denied' --agg 'time:1h > actor:5'
  trailwarden search 'source:aws.lambda' --agg 'function > percentiles(invocation.duration_ms, 50, 99)'
  trailwarden search --rule rules/root_login.yml --from -30d
  trailwarden search --saved 'Root logins' --url http://127.0.0.1:7171
  trailwarden search 'eventName:StopLogging' --as-rule > stop.yml

Fields are the names of the normalized envelope (actor, action, src_ip, ...) or of the original record
(userIdentity.arn, requestParameters.bucketName, ...). docs/search.md has the whole language.

--agg takes levels with > between them, three at most: FIELD or FIELD:SIZE for the most frequent values,
time:1h (s, m, h, d, w) for stretches of time, distinct(FIELD), percentiles(FIELD, 50, 99), count().")]
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
    /// Open the search that is saved under this name in that service; a query, a time or an order beside it replace its own
    #[arg(long, value_name = "NAME", conflicts_with_all = ["rule", "as_rule"])]
    saved: Option<String>,
    /// Find what this rule on single events matches; with a query, what both find
    #[arg(long, value_name = "FILE")]
    rule: Option<PathBuf>,
    /// How to write events; a table on a terminal and JSON lines in a pipe, if not said
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write the events to this file: all that match, unless --limit is given
    #[arg(long, value_name = "FILE", conflicts_with_all = ["agg", "fields", "explain", "as_rule"])]
    output: Option<PathBuf>,
    /// How many events to give, or values of the first level of --agg; 100 if not said
    #[arg(long)]
    limit: Option<usize>,
    /// The earliest first
    #[arg(long)]
    oldest_first: bool,
    /// Count instead of giving events: FIELD, `time:1h > actor:5`, `distinct(src_ip)`, ... (see below)
    #[arg(long, value_name = "LEVELS", conflicts_with_all = ["fields", "explain", "as_rule"])]
    agg: Option<String>,
    /// Tell which fields the events have, and their most frequent values, from a sample
    #[arg(long, conflicts_with_all = ["explain", "as_rule"])]
    fields: bool,
    /// Tell how the query is understood and how it would be answered
    #[arg(long, conflicts_with = "as_rule")]
    explain: bool,
    /// Write the query as a Sigma rule
    #[arg(long)]
    as_rule: bool,
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
    /// Apache Parquet: the envelope as typed columns and the original as text
    Parquet,
}

/// How many events are given, or values told, if it is not said.
const LIMIT: usize = 100;
/// How many events are read for `--fields`.
const SAMPLE: usize = 1_000;

/// Opens the index of a data folder for one command, which may take as long as it needs.
pub(crate) fn open_index(data: &Path) -> anyhow::Result<Searcher> {
    let dir = index_dir(data);
    anyhow::ensure!(
        has_index(data),
        anyhow::anyhow!("there is no index in `{}`\n\nhint: give the data folder of a service with --data, or make an index with `trailwarden hunt PATH --index DIR`", data.display()).context(Usage)
    );
    let config = search::Config {
        max_limit: 1_000_000,
        timeout_ms: 600_000,
        ..search::Config::default()
    };
    let metrics = search::Metrics::new(&Registry::new())?;
    Searcher::open(&dir, &config, metrics, clock::clock())
        .with_context(|| format!("cannot open the index in `{}`", dir.display()))
}

/// Is there an index, though perhaps an empty one? A wrong folder must not look like one in which nothing was found.
pub(crate) fn has_index(data: &Path) -> bool {
    data.join("index").is_dir() || data.join("manifest.json").is_file()
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

pub(crate) use rule::Group;

/// What the rule with this id looks at for a group, as a query; none where no query can say it.
pub(crate) fn rule_query(set: &RuleSet, id: &str, group: &Group) -> Option<String> {
    rule::looks_at(set, id, group)
}

/// A query as a Sigma rule, or why it cannot be one.
pub(crate) fn as_rule(query: &str) -> Result<String, String> {
    let parsed = search::query::parse(query).map_err(|e| e.to_string())?;
    as_rule::rule(&parsed, query)
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
    let mut request = Request {
        query: args.query.clone(),
        from: limit(&args.from)?,
        to: limit(&args.to)?,
        limit: args.limit.unwrap_or(LIMIT),
        newest_first: !args.oldest_first,
        ..Request::default()
    };
    if let Some(name) = &args.saved {
        let url = args.url.as_deref().ok_or_else(|| {
            anyhow::anyhow!(
                "an index keeps no saved searches, a service does\n\nhint: give its address with --url"
            )
            .context(Usage)
        })?;
        let remote = remote::Remote::new(url, args.token_file.as_deref())?;
        complete(&mut request, args, remote.saved(name)?, now)?;
    }
    if let Some(file) = &args.rule {
        request.query = with_rule(args, &request, file)?;
    }
    let terminal = std::io::stdout().is_terminal() && args.output.is_none();
    let format = args.format.unwrap_or(if terminal {
        Format::Table
    } else {
        Format::Jsonl
    });
    let mut out = std::io::BufWriter::new(std::io::stdout());
    if args.as_rule {
        let query =
            search::query::parse(&request.query).map_err(|e| explain(e.into(), &request.query))?;
        let rule = as_rule::rule(&query, &request.query)
            .map_err(|why| anyhow::anyhow!("this search cannot be a rule: {why}").context(Usage))?;
        return finish(out.write_all(rule.as_bytes()), &mut out);
    }
    let whole = export_format(format);
    if format == Format::Parquet && terminal {
        return Err(
            anyhow::anyhow!("Parquet is not for a terminal\n\nhint: give --output FILE")
                .context(Usage),
        );
    }
    if format == Format::Parquet && (args.agg.is_some() || args.fields || args.explain) {
        return Err(anyhow::anyhow!("Parquet is for events only").context(Usage));
    }
    let aggs = args
        .agg
        .as_deref()
        .map(|short| aggregate::parse(short, request.limit))
        .transpose()
        .map_err(|e| {
            anyhow::anyhow!("cannot read --agg: {e}\n\nhint: {}", e.hint).context(Usage)
        })?;
    let source = Source::of(args)?;
    if args.explain {
        let explained = source.explain(&request)?;
        explained.partial.iter().for_each(|why| warn(why));
        return finish(output::explanation(format, &explained, &mut out), &mut out);
    }
    if args.fields {
        let stats = source.fields(&request)?;
        stats.partial.iter().for_each(|why| warn(why));
        return finish(output::fields(format, &stats, &mut out), &mut out);
    }
    if let Some(aggs) = aggs {
        let aggregated = source.aggregate(&request, &aggs)?;
        aggregated.partial.iter().for_each(|why| warn(why));
        let written = output::aggregated(format, &aggs, &aggregated, &mut out);
        return finish(written, &mut out);
    }
    let most = match (args.limit, &args.output) {
        (None, Some(_)) => None,
        (limit, _) => Some(limit.unwrap_or(LIMIT) as u64),
    };
    match (&args.output, whole) {
        (Some(path), Some(whole)) => {
            to_file(path, |file| source.export(&request, most, whole, file))?;
            Ok(Outcome::Clean)
        }
        (Some(_), None) => Err(anyhow::anyhow!(
            "--output takes JSON lines, CSV or Parquet\n\nhint: add --format jsonl, csv or parquet"
        )
        .context(Usage)),
        (None, Some(whole)) => match source.export(&request, most, whole, &mut out) {
            Err(error) if is_broken_pipe(&error) => Ok(Outcome::Clean),
            written => {
                written?;
                finish(Ok(()), &mut out)
            }
        },
        (None, None) => {
            let hits = source.events(&request)?;
            finish(output::events(format, &hits, &mut out), &mut out)
        }
    }
}

/// Takes from a saved search what the command line does not say.
fn complete(
    request: &mut Request,
    args: &SearchArgs,
    saved: SavedSearch,
    now: event::Time,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        saved.kind == Searched::Events,
        anyhow::anyhow!("the saved search is for findings, this command gives events")
            .context(Usage)
    );
    if request.query.is_empty() {
        request.query = saved.query;
    }
    // A range is one thing: the saved one is taken as a whole or not at all.
    if args.from.is_none() && args.to.is_none() {
        let time = |text: &str| match text {
            "" => Ok(None),
            text => clock::parse(text, now).map(Some),
        };
        request.from = time(&saved.from)?;
        request.to = time(&saved.to)?;
    }
    if saved.order == First::Oldest {
        request.newest_first = false;
    }
    Ok(())
}

/// What of the formats is written event by event.
fn export_format(format: Format) -> Option<export::Format> {
    match format {
        Format::Table | Format::Json => None,
        Format::Jsonl => Some(export::Format::Jsonl),
        Format::Csv => Some(export::Format::Csv),
        Format::Parquet => Some(export::Format::Parquet),
    }
}

/// The query for a rule, and what else is asked.
fn with_rule(args: &SearchArgs, request: &Request, file: &Path) -> anyhow::Result<String> {
    // Which fields are objects, the index itself knows best. A service is not asked: it lists no paths.
    let paths = match (&args.url, args.as_rule) {
        (None, false) => match Source::of(args)? {
            Source::Index(searcher) => {
                let all = Request {
                    query: String::new(),
                    ..request.clone()
                };
                searcher.paths(&all).map_err(|e| explain(e, ""))?.0
            }
            Source::Service(_) => Vec::new(),
        },
        _ => Vec::new(),
    };
    let is_object = |name: &str| {
        let below = format!("{name}.");
        paths.iter().any(|path| path.starts_with(&below))
    };
    let (query, title) = rule::query(file, &is_object)?;
    tracing::debug!(title, query, "a rule as a search");
    Ok(match request.query.trim() {
        "" => query,
        also => format!("({query}) AND ({also})"),
    })
}

/// What is asked: an index on this disk, or a service.
enum Source {
    Index(Box<Searcher>),
    Service(remote::Remote),
}

impl Source {
    fn of(args: &SearchArgs) -> anyhow::Result<Source> {
        if let Some(url) = &args.url {
            let remote = remote::Remote::new(url, args.token_file.as_deref())?;
            return Ok(Source::Service(remote));
        }
        let searcher = open_index(&args.data)?;
        Ok(Source::Index(Box::new(searcher)))
    }

    fn explain(&self, request: &Request) -> anyhow::Result<search::explain::Explanation> {
        match self {
            Source::Index(searcher) => searcher
                .explain(request)
                .map_err(|e| explain(e, &request.query)),
            Source::Service(remote) => remote.explain(request),
        }
    }

    fn fields(&self, request: &Request) -> anyhow::Result<search::fields::FieldStats> {
        match self {
            Source::Index(searcher) => searcher
                .fields(request, SAMPLE)
                .map_err(|e| explain(e, &request.query)),
            Source::Service(remote) => remote.fields(request, SAMPLE),
        }
    }

    fn aggregate(
        &self,
        request: &Request,
        aggs: &Aggregations,
    ) -> anyhow::Result<aggregate::Aggregated> {
        match self {
            Source::Index(searcher) => searcher
                .aggregate(request, aggs)
                .map_err(|e| explain(e, &request.query)),
            Source::Service(remote) => remote.aggregate(request, aggs),
        }
    }

    /// A page of events, for people.
    fn events(&self, request: &Request) -> anyhow::Result<Vec<output::Hit>> {
        match self {
            Source::Index(searcher) => {
                let answer = searcher
                    .search(request)
                    .map_err(|e| explain(e, &request.query))?;
                answer.partial.iter().for_each(|why| warn(why));
                answer.notes.iter().for_each(|words| note(words));
                Ok(answer.hits.into_iter().map(output::Hit::from).collect())
            }
            Source::Service(remote) => remote.events(request),
        }
    }

    /// Everything that matches, or so many, event by event.
    fn export(
        &self,
        request: &Request,
        most: Option<u64>,
        format: export::Format,
        mut out: &mut (dyn Write + Send),
    ) -> anyhow::Result<()> {
        let searcher = match self {
            Source::Index(searcher) => searcher,
            Source::Service(remote) => return remote.export(request, most, format, out),
        };
        let explained = |e| explain(e, &request.query);
        let understood = searcher.explain(request).map_err(explained)?;
        understood.notes.iter().for_each(|words| note(words));
        let mut writer = Writer::new(format, &mut out)?;
        let nodes = Nodes::from((**searcher).clone());
        let walked = nodes.walk(request, most, |event| writer.write(event));
        match walked {
            Ok(_) => Ok(writer.finish()?),
            Err(ExportError::Search(error)) => Err(explain(error, &request.query)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes a file under another name until it is whole.
fn to_file(
    path: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let written = (|| {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&part)?);
        write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        std::fs::rename(&part, path)?;
        anyhow::Ok(())
    })();
    if written.is_err() && part.exists() {
        // What is left of a file that could not be written is of no use.
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(|| format!("cannot write `{}`", path.display()))
}

/// The reader of a pipe that has seen enough is no error.
fn finish(written: std::io::Result<()>, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Outcome::Clean),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[expect(clippy::print_stderr, reason = "a command talks to people on stderr")]
fn warn(words: &str) {
    eprintln!(
        "warning: this answer is not complete: {}",
        event::inert::text(words)
    );
}

#[expect(clippy::print_stderr, reason = "a command talks to people on stderr")]
fn note(words: &str) {
    eprintln!("note: {}", event::inert::text(words));
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
        SearchError::Aggregation(mistake) => {
            let hint = mistake.hint;
            anyhow::anyhow!("cannot aggregate: {mistake}\n\nhint: {hint}").context(Usage)
        }
        SearchError::ReversedRange { .. } | SearchError::Limit { .. } => {
            anyhow::Error::new(error).context(Usage)
        }
        _ => anyhow::Error::new(error),
    }
}
