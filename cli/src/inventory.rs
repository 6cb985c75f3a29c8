//! `trailwarden inventory`, and the inventory of the service: which accounts and functions are expected.
//!
//! What an inventory is stands in [`event::inventory`]. Here it is read from its file (`read`), read again when the file
//! changes (`live`), and shown to whoever writes one.

pub(crate) mod live;
mod read;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use event::inventory::{Account, Function, Inventory};
use serde::{Deserialize, Serialize};

use crate::exit::{Outcome, Usage};
pub(crate) use live::LiveInventory;
pub(crate) use read::read;

/// Which accounts and functions are expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The file: YAML, CSV, or JSON as `aws organizations list-accounts` prints it.
    pub(crate) file: Option<PathBuf>,
    /// How often it is looked at for changes, in seconds; 0 for only on SIGHUP.
    pub(crate) reload_seconds: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            file: None,
            reload_seconds: 5,
        }
    }
}

/// What can be done with an inventory.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum InventoryCommand {
    /// Reads an inventory and prints what it says; names every mistake with its line and a hint
    Check {
        /// The file: .yaml, .csv, or .json as `aws organizations list-accounts` prints it
        file: PathBuf,
        /// How to write it; a table on a terminal and JSON lines in a pipe, if not said
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON object an entry
    Jsonl,
}

/// Runs the command.
pub(crate) fn run(
    InventoryCommand::Check { file, format }: &InventoryCommand,
) -> anyhow::Result<Outcome> {
    let inventory = load(file)?;
    let terminal = std::io::stdout().is_terminal();
    let format = format.unwrap_or(if terminal {
        Format::Table
    } else {
        Format::Jsonl
    });
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = match format {
        Format::Table => table(&inventory, &mut out),
        Format::Jsonl => lines(&inventory, &mut out),
    };
    match written.and_then(|()| out.flush()) {
        // The reader of a pipe has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    Ok(Outcome::Clean)
}

fn load(file: &Path) -> anyhow::Result<Inventory> {
    read(file).context(Usage)
}

/// The inventory that a command was given; without a file an empty one.
pub(crate) fn asked(file: Option<&Path>) -> anyhow::Result<Inventory> {
    Ok(file.map(load).transpose()?.unwrap_or_default())
}

fn lines(inventory: &Inventory, out: &mut dyn Write) -> std::io::Result<()> {
    let tagged = |kind: &str, entry: serde_json::Result<serde_json::Value>| {
        let mut line = entry?;
        line["kind"] = kind.into();
        Ok::<_, std::io::Error>(line)
    };
    for account in inventory.accounts() {
        writeln!(out, "{}", tagged("account", serde_json::to_value(account))?)?;
    }
    for function in inventory.functions() {
        writeln!(
            out,
            "{}",
            tagged("function", serde_json::to_value(function))?
        )?;
    }
    Ok(())
}

fn table(inventory: &Inventory, out: &mut dyn Write) -> std::io::Result<()> {
    let (accounts, functions) = (inventory.accounts(), inventory.functions());
    if !accounts.is_empty() {
        let head = [
            "account",
            "name",
            "ou",
            "owner",
            "environment",
            "criticality",
            "regions",
            "",
        ];
        columns(&head, accounts.iter().map(account_row), out)?;
    }
    if !functions.is_empty() {
        if !accounts.is_empty() {
            writeln!(out)?;
        }
        let head = [
            "account",
            "region",
            "function",
            "owner",
            "environment",
            "criticality",
        ];
        columns(&head, functions.iter().map(function_row), out)?;
    }
    writeln!(
        out,
        "\n{} accounts, {} functions",
        accounts.len(),
        functions.len()
    )
}

fn account_row(a: &Account) -> [String; 8] {
    let suspended = if a.suspended { "suspended" } else { "" };
    let regions = a.regions.join(" ");
    [
        &*a.account,
        &*a.name,
        &*a.ou,
        &*a.owner,
        &*a.environment,
        &*a.criticality,
        &*regions,
        suspended,
    ]
    .map(|text| event::inert::text(text).into_owned())
}

fn function_row(f: &Function) -> [String; 6] {
    let region = if f.region.is_empty() {
        "any"
    } else {
        &f.region
    };
    [
        &*f.account,
        region,
        &*f.name,
        &*f.owner,
        &*f.environment,
        &*f.criticality,
    ]
    .map(|text| event::inert::text(text).into_owned())
}

/// Writes rows below a head, each column as wide as its widest text.
fn columns<const N: usize>(
    head: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned))
        .chain(rows)
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|r| r[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, &width)| format!("{cell:<width$}  "))
            .collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
