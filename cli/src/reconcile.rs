//! `trailwarden reconcile`: what S3 holds against what was read of it, a backfill of what is missing, and for an index that
//! lost events a second reading of everything.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use bus::{BusError, Stop};
use event::Time;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use ingest::source::bucket::{Bucket, Range, Round, Tally, Told};
use ingest::source::object::Shop;
use ingest::source::s3::{self, Trouble};
use serde_json::json;

use crate::clock;
use crate::config;
use crate::exit::{Outcome, Usage};
use crate::log::Log;

/// So many missing objects are listed on a terminal.
const SHOWN: u64 = 20;

/// Compares what S3 holds with what was ingested, and reads what is missing
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden reconcile                              what the configuration names
  trailwarden reconcile s3://org-trail/AWSLogs/ --from -30d
  trailwarden reconcile --from 2026-01-01 --fetch    a backfill; may be cut off
  trailwarden reconcile | jq -r '.missing_object // empty'
  trailwarden reconcile s3://org-trail/AWSLogs/ --from 2026-01-01 --restore
                                                     the index lost events: read all again

Times are those at which objects were written. A service that runs looks through
the buckets of its configuration (ingest.buckets) by itself; this command works
while it is stopped. Exit code 1: something is missing, or cannot be read.")]
pub(crate) struct ReconcileArgs {
    /// s3://BUCKET/PREFIX; the buckets of the configuration if not given
    #[arg(value_name = "S3-URL")]
    url: Option<String>,
    /// Only objects written at or after this time (RFC 3339, or `-7d`, `-12h`)
    #[arg(
        long,
        value_name = "TIME",
        allow_hyphen_values = true,
        default_value = "-2d"
    )]
    from: String,
    /// Only objects written before this time
    #[arg(
        long,
        value_name = "TIME",
        allow_hyphen_values = true,
        default_value = "now"
    )]
    to: String,
    /// Look also into folders of days that are so many days away from these times
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    folder_days: u16,
    /// Read what is missing
    #[arg(long)]
    fetch: bool,
    /// Read everything again, for searches alone: no rule looks at it, and what the index has it has once
    #[arg(long, conflicts_with = "fetch")]
    restore: bool,
    /// The configuration of the service
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder, whatever the configuration says
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &ReconcileArgs) -> anyhow::Result<Outcome> {
    let mut config = config::load(args.config.as_deref(), true)?;
    if let Some(data) = &args.data {
        config.data_dir.clone_from(data);
    }
    anyhow::ensure!(
        config.bus.kafka.is_none() || args.restore,
        anyhow::anyhow!("on Kafka each node keeps what it has read itself; give it the bucket in `ingest.buckets`, and it looks through it by itself").context(Usage)
    );
    let buckets = buckets(args.url.as_deref(), &config.ingest.buckets)?;
    let now = clock::now();
    let range = Range {
        from: clock::parse(&args.from, now).context(Usage)?,
        to: clock::parse(&args.to, now).context(Usage)?,
        folder_days: args.folder_days,
        fetch: args.fetch || args.restore,
    };
    let beside = tempfile::tempdir().context("cannot make a folder for a moment")?;
    let log = Log::open_beside(&config, beside.path()).map_err(|error| match error.downcast_ref() {
        Some(BusError::Locked(_)) => anyhow::anyhow!("the service is running on `{}`; it looks through the buckets of its configuration by itself, and this command works while it is stopped", config.data_dir.display()).context(Usage),
        _ => error,
    })?;
    let spool = config.spool_dir();
    s3::clear(&spool).with_context(|| format!("cannot make the folder `{}`", spool.display()))?;
    let metrics = ingest::metrics::Metrics::new(&prometheus::Registry::new())?;
    let treatment = crate::treatment::open_once(&config, &metrics)?;
    let treatment = match args.restore {
        true => treatment.restoring(),
        false => treatment,
    };
    let shop = Shop {
        bus: Arc::clone(&log.bus),
        treatment: Arc::new(treatment),
        limits: config.ingest.file_limits(),
        spool,
        metrics,
        clock: clock::clock(),
        stop: Stop::default(),
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    let mut found = Outcome::Clean;
    for bucket in &buckets {
        let tally = runtime.block_on(one(bucket, &shop, range))?;
        let left = match range.fetch {
            true => tally.failed > 0,
            false => tally.missing > 0,
        };
        if left {
            found = Outcome::Found;
        }
    }
    Ok(found)
}

/// The bucket of the address, or those of the configuration.
fn buckets(url: Option<&str>, configured: &[Bucket]) -> anyhow::Result<Vec<Bucket>> {
    if let Some(url) = url {
        return Ok(vec![bucket(url, configured)?]);
    }
    anyhow::ensure!(
        !configured.is_empty(),
        anyhow::anyhow!("the configuration has no `ingest.buckets`; name one: trailwarden reconcile s3://BUCKET/PREFIX")
            .context(Usage)
    );
    Ok(configured.to_vec())
}

/// The bucket of an address, read as the configuration says if it has the same one.
pub(crate) fn bucket(url: &str, configured: &[Bucket]) -> anyhow::Result<Bucket> {
    let rest = url.strip_prefix("s3://").unwrap_or_default();
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    anyhow::ensure!(
        !name.is_empty(),
        anyhow::anyhow!("`{url}` is no address such as s3://BUCKET/PREFIX").context(Usage)
    );
    let known = configured.iter().find(|b| b.bucket == name);
    Ok(Bucket {
        bucket: name.to_owned(),
        prefix: prefix.to_owned(),
        ..known.cloned().unwrap_or_default()
    })
}

async fn one(bucket: &Bucket, shop: &Shop, range: Range) -> anyhow::Result<Tally> {
    let name = format!("s3://{}/{}", bucket.bucket, bucket.prefix);
    let terminal = std::io::stdout().is_terminal();
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    let began = clock::now();
    let restores = shop.treatment.restores();
    let mut shown = 0;
    let mut told = |word: Told<'_>| match word {
        Told::Tally(tally) => {
            let wanted = match (restores, range.fetch) {
                (true, _) => Some(tally.listed),
                (false, true) => Some(tally.missing),
                (false, false) => None,
            };
            bar.set_message(progress(tally, wanted, began));
            bar.tick();
        }
        Told::Listed(_) => {}
        Told::Missing(object) => {
            shown += 1;
            bar.suspend(|| {
                let mut out = std::io::stdout().lock();
                // A reader that goes away shows at the end.
                let _ = match terminal {
                    true if range.fetch || shown > SHOWN => Ok(()),
                    true => writeln!(out, "missing: {}", event::inert::text(object)),
                    false => writeln!(out, "{}", json!({"missing_object": object})),
                };
            });
        }
        Told::Failed(trouble) => bar.suspend(|| {
            tracing::error!(
                error = trouble as &dyn std::error::Error,
                hint = trouble.hint(),
                "an object cannot be read"
            );
        }),
    };
    let round = Round::new(bucket, shop).await;
    let gone = round.go(range, &mut told).await;
    let tally = gone.map_err(|trouble| match &trouble {
        Trouble::Fetch { .. } => anyhow::anyhow!("{trouble}\n\nhint: {}", trouble.hint()),
        _ => anyhow::Error::new(trouble),
    })?;
    bar.finish_and_clear();
    report(&name, &tally, (range.fetch, restores), terminal)?;
    Ok(tally)
}

/// How far it has come, and how long the rest of what is `wanted` takes as far as is known.
fn progress(tally: &Tally, wanted: Option<u64>, began: Time) -> String {
    let listed = format!("{} objects, {} missing", tally.listed, tally.missing);
    let Some(wanted) = wanted.filter(|_| tally.fetched > 0) else {
        return listed;
    };
    let seconds = (clock::now().0 - began.0).max(1) as f64 / 1e6;
    let left = wanted.saturating_sub(tally.fetched) as f64;
    let rest = std::time::Duration::from_secs_f64(seconds / tally.fetched as f64 * left);
    format!(
        "{listed}, {} read ({}/s, {} events), {} for what is listed",
        tally.fetched,
        HumanBytes((tally.fetched_bytes as f64 / seconds) as u64),
        tally.events,
        HumanDuration(rest)
    )
}

fn report(
    name: &str,
    tally: &Tally,
    (fetch, restores): (bool, bool),
    terminal: bool,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if !terminal {
        let mut value = serde_json::to_value(tally)?;
        value["bucket"] = name.into();
        writeln!(out, "{value}")?;
        return Ok(());
    }
    if restores {
        writeln!(
            out,
            "{name}: {} of {} objects ({}) read again, {} events for the index; {} could not be read",
            tally.fetched,
            tally.listed,
            HumanBytes(tally.bytes),
            tally.events,
            tally.failed
        )?;
        return Ok(());
    }
    writeln!(
        out,
        "{name}: {} objects ({}), {} read before, {} missing",
        tally.listed,
        HumanBytes(tally.bytes),
        tally.known,
        tally.missing
    )?;
    match (fetch, tally.missing) {
        (_, 0) => writeln!(out, "nothing is missing")?,
        (false, missing) => {
            if missing > SHOWN {
                writeln!(out, "… and {} more", missing - SHOWN)?;
            }
            writeln!(out, "run it with --fetch to read them")?;
        }
        (true, _) => writeln!(
            out,
            "read {} of them: {} events, {} dead letters; {} could not be read",
            tally.fetched, tally.events, tally.letters, tally.failed
        )?,
    }
    Ok(())
}
