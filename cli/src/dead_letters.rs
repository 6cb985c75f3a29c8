//! `trailwarden dead-letters`: what could not become an event, shown and replayed.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use bus::BusError;
use ingest::dead_letter::{self, Place};

use crate::config;
use crate::exit::{Outcome, Usage};
use crate::log::Log;
use crate::treatment;

/// Lists, shows and replays what could not become an event
#[derive(Debug, clap::Args)]
pub(crate) struct DeadLetterArgs {
    #[command(subcommand)]
    command: DeadLetterCommand,
    /// The configuration of the service
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The data folder, whatever the configuration says
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum DeadLetterCommand {
    /// The newest letters, with the reason of each
    List {
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// One letter with its bytes
    Show {
        /// PARTITION:OFFSET as `list` gives it
        place: Place,
    },
    /// Decodes letters again and appends what comes of them, for when the decoder or its limits have changed
    Replay {
        /// PARTITION:OFFSET as `list` gives them
        #[arg(required = true)]
        places: Vec<Place>,
    },
}

/// Runs the command.
pub(crate) fn run(args: &DeadLetterArgs) -> anyhow::Result<Outcome> {
    let mut config = config::load(args.config.as_deref(), true)?;
    if let Some(data) = &args.data {
        config.data_dir.clone_from(data);
    }
    let dir = config.bus_dir();
    if config.bus.kafka.is_none() {
        anyhow::ensure!(
            dir.is_dir(),
            anyhow::anyhow!(
                "there is no log in `{}`; give the data folder with --data",
                config.data_dir.display()
            )
            .context(Usage)
        );
    }
    let beside = tempfile::tempdir().context("cannot make a folder for a moment")?;
    let log = Log::open_beside(&config, beside.path()).map_err(|error| match error.downcast_ref() {
        Some(BusError::Locked(_)) => anyhow::anyhow!("the service is running on `{}`; its Health page counts dead letters, and this command works while it is stopped", config.data_dir.display()).context(Usage),
        _ => error,
    })?;
    let bus = &*log.bus;
    let mut out = std::io::stdout().lock();
    match &args.command {
        DeadLetterCommand::List { limit } => {
            let letters = dead_letter::list(bus, *limit)?;
            let terminal = std::io::stdout().is_terminal();
            if terminal && letters.is_empty() {
                writeln!(out, "no dead letters")?;
            }
            for (place, letter) in letters {
                if terminal {
                    writeln!(
                        out,
                        "{:<12} {} {:<18} {} at byte {}: {}",
                        place.to_string(),
                        letter.time,
                        letter.reason.as_str(),
                        event::inert::text(&letter.object),
                        letter.offset,
                        event::inert::text(&letter.message)
                    )?;
                } else {
                    let mut value = serde_json::to_value(&letter)?;
                    value["place"] = place.to_string().into();
                    writeln!(out, "{value}")?;
                }
            }
            Ok(Outcome::Clean)
        }
        DeadLetterCommand::Show { place } => {
            let letter = dead_letter::show(bus, *place)?;
            writeln!(out, "{}", serde_json::to_string_pretty(&letter)?)?;
            Ok(Outcome::Clean)
        }
        DeadLetterCommand::Replay { places } => {
            let metrics = ingest::metrics::Metrics::new(&prometheus::Registry::new())?;
            let treatment = treatment::open_once(&config, &metrics)?;
            let mut bad = 0;
            for place in places {
                let replayed = dead_letter::replay(
                    bus,
                    *place,
                    &config.ingest.file_limits(),
                    (&metrics, &treatment),
                    crate::clock::now(),
                )
                .with_context(|| format!("cannot replay {place}"))?;
                writeln!(out, "{place}: {} events appended", replayed.events)?;
                for words in &replayed.still_bad {
                    bad += 1;
                    writeln!(
                        out,
                        "{place}: still unreadable: {}",
                        event::inert::text(words)
                    )?;
                }
            }
            Ok(if bad > 0 {
                Outcome::Found
            } else {
                Outcome::Clean
            })
        }
    }
}
