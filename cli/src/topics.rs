//! `trailwarden topics`: the topics on Kafka as they are and as they should be.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use bus::kafka::topics::{self, Difference};

use crate::config;
use crate::exit::{Outcome, Usage};
use crate::log::kafka_settings;

/// Shows, makes and checks the topics on Kafka
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden topics plan --config trailwarden.yaml    what is missing or differs, without changing anything
  trailwarden topics apply --config trailwarden.yaml   makes topics and changes settings; deletes nothing
  trailwarden topics check --config trailwarden.yaml   exits with 1 where something differs")]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
    /// The configuration, with bus.kafka
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum TopicCommand {
    /// Says what `apply` would do
    Plan,
    /// Makes topics that are missing and changes settings that differ
    Apply,
    /// Like plan, and exits with 1 where something differs
    Check,
}

/// Runs the command.
pub(crate) fn run(args: &TopicArgs) -> anyhow::Result<Outcome> {
    let config = config::load(args.config.as_deref(), true)?;
    let settings = kafka_settings(&config, false).ok_or_else(|| {
        anyhow::anyhow!(
            "the configuration has no bus.kafka: the log of one machine needs no topics\n\nhint: `trailwarden config reference` shows bus.kafka"
        )
        .context(Usage)
    })?;
    let mut out = std::io::stdout().lock();
    let words = "cannot look at the topics";
    let differences = match args.command {
        TopicCommand::Plan | TopicCommand::Check => topics::plan(&settings).context(words)?,
        TopicCommand::Apply => {
            for done in topics::apply(&settings).context("cannot change the topics")? {
                writeln!(out, "done  {}", said(&done))?;
            }
            topics::plan(&settings).context(words)?
        }
    };
    for difference in &differences {
        let mark = if difference.is_mendable() {
            "todo"
        } else {
            "FAIL"
        };
        writeln!(out, "{mark}  {difference}")?;
    }
    let count = topics::wanted(&settings).len();
    if differences.is_empty() {
        writeln!(out, "ok    {count} topics are as they should be")?;
    }
    let found = match args.command {
        TopicCommand::Plan => false,
        TopicCommand::Check | TopicCommand::Apply => !differences.is_empty(),
    };
    Ok(if found {
        Outcome::Found
    } else {
        Outcome::Clean
    })
}

/// What was done about a difference.
fn said(done: &Difference) -> String {
    match done {
        Difference::Missing(made) => format!(
            "{}: made with {} partitions, {} copies",
            made.name, made.partitions, made.replication
        ),
        Difference::Setting {
            topic,
            name,
            found,
            wanted,
        } => format!("{topic}: {name} was {found}, is {wanted}"),
        other => other.to_string(),
    }
}
