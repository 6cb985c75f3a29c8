//! `trailwarden backtest`: what rules would have said about what has been.
//!
//! Events come from the index of a service or from folders of logs, through the same readers, the same engine and the
//! same windows as everywhere else; [`report`] folds the findings as alerting folds them and tells alerts a day, the
//! noisiest rules and the noisiest groups. Nothing is written and nobody is notified.

mod report;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::search::{Cursor, Request, Searcher};
use anyhow::Context;
use detect::engine::{Engine, Scratch};
use detect::meter::{self, Counters};
use detect::tracker::Sightings;
use detect::window::{Match, OFFLINE_MEMORY, Offline};
use event::json::Doc;
use event::{Event, Finding, Flag, Time};
use indicatif::{ProgressBar, ProgressStyle};
use prometheus::Registry;

use crate::clock;
use crate::exit::{Outcome, Usage};
use crate::hunt::{self, Format as Written, Setting, Totals};
use crate::rules::RuleArgs;
use report::Report;

/// Runs rules over history and tells how many alerts a day they would have given
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden backtest --rules my.yml                      over what the service in ./trailwarden-data has indexed
  trailwarden backtest --rules builtin --rules ./exceptions --from -30d
  trailwarden backtest ./logs --rules my.yml               over a folder of logs
  trailwarden backtest --rules my.yml --max-per-day 5      for a pipeline: exit code 1 if it is noisier
  trailwarden backtest --rules my.yml | jq 'select(.kind == \"day\")'

Single-event findings of a rule, account and actor with less than an hour between them are one alert, as in the
service; every episode of a correlation is one.")]
pub(crate) struct BacktestArgs {
    /// Files or folders of logs (read recursively), instead of an index
    #[arg(value_name = "PATH", conflicts_with = "data")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    rules: RuleArgs,
    /// The data folder of a service, or a folder that `hunt --index` made
    #[arg(long, value_name = "DIR", default_value = "trailwarden-data")]
    data: PathBuf,
    /// Only events at or after this time (RFC 3339, or `-7d`, `-12h`, `now`)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// An inventory of accounts and functions, for events of PATH; those of an index have their labels
    #[arg(long, value_name = "FILE", requires = "paths")]
    inventory: Option<PathBuf>,
    /// How to write the report; tables on a terminal and JSON lines in a pipe, if not said
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write every finding too, as JSON lines before the report
    #[arg(long)]
    findings: bool,
    /// How many rules and groups to name
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Exit with 1 if there are more alerts than this on an average day
    #[arg(long, value_name = "N")]
    max_per_day: Option<f64>,
}

/// The form of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One JSON object a line
    Jsonl,
}

/// Runs the command.
pub(crate) fn run(args: &BacktestArgs) -> anyhow::Result<Outcome> {
    let now = clock::now();
    let (from, to) = hunt::limits(args.from.as_deref(), args.to.as_deref(), now)?;
    let set = args.rules.load()?;
    let setting = Setting {
        engine: Engine::new(&set),
        correlations: crate::correlations::of(&set),
        baselines: crate::correlations::baselines(&set),
        format: Written::Jsonl,
        timeline: false,
        from,
        to,
        now,
        keep: false,
        inventory: crate::inventory::asked(args.inventory.as_deref())?,
    };
    let format = args.format.unwrap_or(if std::io::stdout().is_terminal() {
        Format::Table
    } else {
        Format::Jsonl
    });
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut findings = Vec::new();
    let mut each = |finding: Finding| {
        if args.findings {
            let mut line = serde_json::to_value(&finding)?;
            line["kind"] = "finding".into();
            writeln!(out, "{line}")?;
        }
        findings.push(finding);
        anyhow::Ok(())
    };
    let totals = if args.paths.is_empty() {
        indexed(&args.data, setting, &mut each)?
    } else {
        hunt::over(setting, &args.paths, &mut each)?
    };
    let rules = set.rules.len() + set.correlations.len() + set.baselines.len();
    let report = Report::new(&findings, &totals, rules, args.top);
    let written = match format {
        Format::Table => report.tables(&mut out),
        Format::Jsonl => report.lines(&mut out),
    };
    match written.and_then(|()| out.flush()) {
        // The reader of a pipe has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    let noisy = args.max_per_day.is_some_and(|most| report.per_day() > most);
    Ok(if noisy {
        Outcome::Found
    } else {
        Outcome::Clean
    })
}

/// How many events are read from the index at a time.
const PAGE: usize = 10_000;

/// Every event that is indexed, once, in whatever order is quickest: no finding depends on it.
fn indexed(
    data: &Path,
    setting: Setting,
    each: &mut dyn FnMut(Finding) -> anyhow::Result<()>,
) -> anyhow::Result<Totals> {
    let searcher = open(data)?;
    let mut request = Request {
        from: setting.from,
        to: setting.to,
        limit: 1,
        newest_first: true,
        count: true,
        ..Request::default()
    };
    let all = searcher.search(&request)?.total.unwrap_or(0);
    (request.limit, request.count) = (PAGE, false);
    let bar = ProgressBar::new(all);
    let style = "{bar:30} {pos}/{len} events {msg} {eta} left";
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut reader = Reader {
        offline: Offline::new(setting.correlations.clone(), OFFLINE_MEMORY),
        counters: Counters::of_whole(),
        told: Sightings::default(),
        setting: Arc::new(setting),
        scratch: Scratch::new(),
        doc: Doc::new(),
        totals: Totals::default(),
    };
    let mut after: Option<Cursor> = None;
    loop {
        request.after = after;
        let answer = searcher.search(&request)?;
        if let Some(why) = answer.partial {
            anyhow::bail!("the index did not give all events: {why}");
        }
        for event in &answer.hits {
            reader.event(event, each)?;
        }
        bar.inc(answer.hits.len() as u64);
        bar.set_message(format!("{} findings", reader.totals.findings));
        after = answer.next;
        if after.is_none() || answer.hits.is_empty() {
            break;
        }
    }
    bar.finish_and_clear();
    let Reader {
        setting,
        offline,
        mut counters,
        mut totals,
        ..
    } = reader;
    let mut failed = Ok(());
    offline.finish(|finding| {
        totals.findings += 1;
        if failed.is_ok() {
            failed = each(finding);
        }
    })?;
    failed?;
    totals.uncounted = counters.uncounted();
    for finding in detect::tracker::offline(counters, &setting.baselines) {
        totals.findings += 1;
        each(finding)?;
    }
    Ok(totals)
}

fn open(data: &Path) -> anyhow::Result<Searcher> {
    let dir = crate::search::index_dir(data);
    anyhow::ensure!(
        crate::search::has_index(data),
        anyhow::anyhow!("there is no index in `{}`\n\nhint: name the data folder of a service with --data, or a folder of logs", data.display()).context(Usage)
    );
    let config = ::search::Config {
        max_limit: PAGE,
        timeout_ms: 600_000,
        ..::search::Config::default()
    };
    let metrics = ::search::Metrics::new(&Registry::new())?;
    Searcher::open(&dir, &config, metrics, clock::clock())
        .with_context(|| format!("cannot open the index in `{}`", dir.display()))
}

/// Events of an index held against the rules.
struct Reader {
    setting: Arc<Setting>,
    offline: Offline,
    counters: Counters,
    told: Sightings,
    scratch: Scratch,
    doc: Doc,
    totals: Totals,
}

impl Reader {
    fn event(
        &mut self,
        event: &Event,
        each: &mut dyn FnMut(Finding) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if !hunt::within(event.time, self.setting.from, self.setting.to) {
            return Ok(());
        }
        self.totals.see(event.time);
        let whole = |end| event::json::skip_space(&event.raw, end) == event.raw.len();
        let is_json =
            event.raw.first() == Some(&b'{') && self.doc.scan(&event.raw, 0).is_ok_and(whole);
        let json = is_json.then(|| self.doc.root(&event.raw));
        let engine = &self.setting.engine;
        engine.matches(event, json, &mut self.scratch);
        for &rule in self
            .scratch
            .matched()
            .iter()
            .filter(|r| engine.generates(**r))
        {
            self.totals.findings += 1;
            each(engine.finding(rule, event))?;
        }
        for (filter, _) in self.scratch.cut() {
            let title = engine.filter_title(*filter).to_string();
            *self.totals.by_filter.entry(title).or_default() += 1;
        }
        if !self.setting.baselines.is_empty()
            && let Some(reading) = meter::reading(event, json)
        {
            self.counters.take(reading);
        }
        let readings = engine.readings(event, json, &mut self.scratch, &mut self.told);
        readings.into_iter().for_each(|r| self.counters.take(r));
        if engine.is_correlated(self.scratch.matched()) && !event.flags.has(Flag::Addendum) {
            for found in engine.correlation_matches(event, json, &mut self.scratch) {
                let correlation = &self.setting.correlations[found.correlation];
                let m = Match::new(correlation, found.group, event, 0, 0);
                self.offline.push(m.with(found.contribution))?;
            }
        }
        Ok(())
    }
}

/// The first and last day of what was read.
pub(crate) fn day(time: Time) -> String {
    time.to_string().chars().take(10).collect()
}
