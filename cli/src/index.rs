//! `trailwarden index`: what the index of a stopped service has, removing what is old, building it anew.
//!
//! The work is done by [`search::rebuild`]. Here is what is asked before anything goes: `remove` and `rebuild` say what
//! they would do and do it with `--yes`, and every removal needs a reason, which goes into the audit trail and the
//! evidence log.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use bus::BusError;
use search::Searcher;
use search::rebuild::{Closed, Listed, Plan, RebuildError};
use serde_json::json;

use crate::clock;
use crate::config::{self, Config};
use crate::evidence::user;
use crate::exit::{Outcome, Usage};
use crate::log::{Log, Shut};

/// Lists, removes and builds anew what a stopped service has indexed
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden index list --data /var/lib/trailwarden
  trailwarden index remove --older-than -30d --reason 'the disk is full' --data DIR        what would go
  trailwarden index remove --older-than -30d --reason 'the disk is full' --data DIR --yes
  trailwarden index rebuild --reason 'a failing disk' --data DIR --yes

Whole splits go, never single events, and none that a hold covers. docs/retention.md says more. Exit code: 0 done, or
nothing to do; 1 there is something to do, and --yes was not given.")]
pub(crate) struct IndexArgs {
    #[command(subcommand)]
    command: IndexCommand,
    /// The configuration of the service
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The data folder, whatever the configuration says
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum IndexCommand {
    /// Lists the splits, the oldest first
    List,
    /// Removes splits whose last event was taken in before a time
    Remove {
        /// Before which time (RFC 3339, or `-30d`)
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        older_than: String,
        /// Why
        #[arg(long)]
        reason: String,
        /// Do it, and do not only say what would be done
        #[arg(long)]
        yes: bool,
    },
    /// Takes out what is damaged and what the log can give again; the service reads that anew at its next start
    Rebuild {
        /// Why
        #[arg(long)]
        reason: String,
        /// Also give up damaged splits with events that the log does not have any more
        #[arg(long)]
        give_up: bool,
        /// Do it, and do not only say what would be done
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the command.
pub(crate) fn run(args: &IndexArgs) -> anyhow::Result<Outcome> {
    let config = config::load_of(args.config.as_deref(), args.data.as_deref())?;
    anyhow::ensure!(
        config.bus.kafka.is_none(),
        anyhow::anyhow!(
            "on Kafka this is not there: to build the index of a node anew, see docs/retention.md"
        )
        .context(Usage)
    );
    anyhow::ensure!(
        config.bus_dir().is_dir(),
        anyhow::anyhow!(
            "there is no log in `{}`; give the data folder of a service with --data",
            config.data_dir.display()
        )
        .context(Usage)
    );
    let shut = Log::open_shut(&config).map_err(|error| match error.downcast_ref() {
        Some(BusError::Locked(_)) => anyhow::anyhow!(
            "the service is running on `{}`: stop it first",
            config.data_dir.display()
        )
        .context(Usage),
        _ => error,
    })?;
    match &args.command {
        IndexCommand::List => {
            let closed = open(&config, &shut, true)?;
            show("", &closed.list())?;
            Ok(Outcome::Clean)
        }
        IndexCommand::Remove {
            older_than,
            reason,
            yes,
        } => {
            needs(reason)?;
            let time = clock::parse(older_than, clock::now()).context(Usage)?;
            let closed = open(&config, &shut, true)?;
            let (goes, held) = closed.older_than(time);
            show("on hold", &held)?;
            if !yes {
                show("would be removed", &goes)?;
                return Ok(asked(goes.is_empty()));
            }
            let removed = closed.remove_older(time, reason, &user())?;
            show("removed", &removed)?;
            Ok(Outcome::Clean)
        }
        IndexCommand::Rebuild {
            reason,
            give_up,
            yes,
        } => {
            needs(reason)?;
            let closed = open(&config, &shut, false)?;
            if !yes {
                let plan = closed.plan()?;
                show_plan(&plan)?;
                let nothing = plan.from.is_empty() && !plan.findings;
                return Ok(asked(nothing));
            }
            let plan = closed
                .rebuild(*give_up, reason, &user())
                .map_err(explained)?;
            show_plan(&plan)?;
            Ok(Outcome::Clean)
        }
    }
}

/// Opens the index; with `sound` only if all of it can be read.
fn open(config: &Config, shut: &Shut, sound: bool) -> anyhow::Result<Closed> {
    let dir = config.index_dir();
    let metrics = search::Metrics::new(&prometheus::Registry::new())?;
    let searcher = match sound {
        true => Searcher::open(&dir, &config.search, metrics.clone(), clock::clock())
            .with_context(|| {
                format!(
                    "cannot open the index in `{}`; if it is damaged, `trailwarden index rebuild` mends it",
                    dir.display()
                )
            })?,
        false => Searcher::closed(&dir, &config.search, metrics.clone(), clock::clock()),
    };
    if let Some(ledger) = &shut.ledger {
        searcher.attest(std::sync::Arc::clone(ledger));
    }
    let bus = std::sync::Arc::clone(&shut.bus);
    Ok(Closed::open(
        bus,
        searcher,
        &config.search,
        metrics,
        clock::clock(),
    )?)
}

fn needs(reason: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        !reason.trim().is_empty(),
        anyhow::anyhow!("--reason must say why: it goes into the audit trail").context(Usage)
    );
    Ok(())
}

/// What the command answers when it only said what it would do.
fn asked(nothing: bool) -> Outcome {
    if nothing {
        return Outcome::Clean;
    }
    let _ = writeln!(
        std::io::stderr(),
        "nothing was changed\n\nhint: repeat it with --yes"
    );
    Outcome::Found
}

fn explained(error: RebuildError) -> anyhow::Error {
    match error {
        RebuildError::Held(_) => anyhow::Error::new(error).context(
            "nothing was changed; hint: restore the folders of these splits from a backup, or release the hold first (`trailwarden hold list`)",
        ),
        RebuildError::Lost(_) => anyhow::Error::new(error).context(
            "nothing was changed; hint: restore the folders of these splits from a backup, or repeat it with --give-up and read what is lost from the sources again (docs/retention.md)",
        ),
        RebuildError::Index(_) => error.into(),
    }
}

fn show_plan(plan: &Plan) -> anyhow::Result<()> {
    show("damaged, read again from the log", &plan.damaged)?;
    show("damaged and not all on the log any more", &plan.lost)?;
    show("damaged and perhaps on hold", &plan.held)?;
    show("read again from the log", &plan.again)?;
    show("kept", &plan.kept)?;
    let mut out = std::io::stdout().lock();
    if !out.is_terminal() {
        let from: Vec<_> = plan
            .from
            .iter()
            .map(|(partition, offset)| json!({"partition": partition, "offset": offset}))
            .collect();
        writeln!(
            out,
            "{}",
            json!({"read_from": from, "findings": plan.findings})
        )?;
        return Ok(());
    }
    for (partition, offset) in &plan.from {
        writeln!(
            out,
            "partition {partition} of the log is read again from {offset}"
        )?;
    }
    if plan.findings {
        writeln!(
            out,
            "the index of findings cannot be read and is built anew from the log"
        )?;
    }
    if plan.from.is_empty() && !plan.findings {
        writeln!(out, "there is nothing to build anew")?;
    }
    Ok(())
}

/// Writes splits as lines for people, or as JSON lines into a pipe.
fn show(what: &str, splits: &[Listed]) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let terminal = std::io::stdout().is_terminal();
    for split in splits {
        if !terminal {
            let mut value = serde_json::to_value(split)?;
            if !what.is_empty() {
                value["what"] = what.into();
            }
            writeln!(out, "{value}")?;
            continue;
        }
        let hold = split
            .hold
            .as_deref()
            .map_or(String::new(), |h| format!(", on hold: {h}"));
        let what = match what {
            "" => String::new(),
            what => format!("  {what}"),
        };
        writeln!(
            out,
            "{:>6}  {:>9} events  {:>6} MiB  {} to {}  taken in until {}, for {} days{hold}{what}",
            split.split,
            split.events,
            split.bytes >> 20,
            split.earliest,
            split.latest,
            split.last_ingested,
            split.search_days
        )?;
    }
    out.flush()?;
    Ok(())
}
