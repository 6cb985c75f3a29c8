//! `trailwarden evidence`: bundles that prove themselves, and what the evidence log shows of itself.
//!
//! [`Keeper`] (in `keeper`) writes the evidence log while the service runs. The commands are here: `export` makes a
//! bundle from a data folder, or asks a running service for one; `verify` checks one anywhere; `checkpoint` and `key`
//! print what to keep elsewhere. What a bundle is and proves is the business of `search::evidence`.

mod keeper;
mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bus::ledger::{History, Ledger};
use bus::{BusError, Record, Topic};
use bytes::Bytes;
use event::{Event, Outcome as Became, Time};
use ingest::attested::Attestations;
use prometheus::Registry;
use search::Searcher;
use search::evidence::bundle::{Bundle, ExportError, Order, export as make};

use crate::clock;
use crate::config::{self, Config};
use crate::exit::{Outcome, Usage};
use crate::log::Log;
use crate::service_client;

pub(crate) use keeper::Keeper;
#[cfg(test)]
pub(crate) use keeper::Metrics;
pub(crate) use verify::key;

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum EvidenceCommand {
    Export(ExportArgs),
    Verify(verify::VerifyArgs),
    /// Prints the newest signed checkpoint of the store, to be kept where nobody who can write here can write
    #[command(
        after_help = "Keep what it prints elsewhere, every day: mail it, print it, put it into another account. Then
  trailwarden doctor --integrity --checkpoint FILE
shows that nothing that was stored up to then has been rewritten since."
    )]
    Checkpoint(StoreArgs),
    /// Prints the public key, which `evidence verify --key` and `doctor --integrity --key` take
    Key(StoreArgs),
}

/// Which store.
#[derive(Debug, clap::Args)]
pub(crate) struct StoreArgs {
    /// The configuration of the service
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder, whatever the configuration says
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl StoreArgs {
    fn config(&self) -> anyhow::Result<Config> {
        config::load_of(self.config.as_deref(), self.data.as_deref())
    }

    fn history(&self) -> anyhow::Result<History> {
        history(&self.config()?)
    }
}

/// The evidence log of a data folder.
pub(crate) fn history(config: &Config) -> anyhow::Result<History> {
    let path = config.evidence_path();
    ensure!(
        path.exists(),
        anyhow::anyhow!("there is no evidence log in `{}`\n\nhint: give the data folder of a service with --data", config.data_dir.display()).context(Usage)
    );
    Ok(History::read(&path)?)
}

/// Makes a bundle of the events of a query, with what proves them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden evidence export 'actor:*mallory*' --from -7d --output mallory.zip --case IR-2026-041
  trailwarden evidence export 'src_ip:203.0.113.9' --url https://trailwarden.example.com --token-file token --output a.zip

The bundle is a zip file that `trailwarden evidence verify` checks on any machine. Making it is an event of the audit
trail. --data works while the service is stopped; ask a running service with --url.")]
pub(crate) struct ExportArgs {
    /// The query; empty for everything
    #[arg(default_value = "", allow_hyphen_values = true)]
    query: String,
    /// Not before this time (RFC 3339, or `-7d`, `-12h`, `now`)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Not after this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Where the bundle goes; must not exist
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The case that it belongs to
    #[arg(long, value_name = "NAME", default_value = "")]
    case: String,
    #[command(flatten)]
    store: StoreArgs,
    /// Ask a running service instead, such as http://127.0.0.1:7171
    #[arg(long, value_name = "URL", conflicts_with_all = ["data", "config"])]
    url: Option<String>,
    /// A file with the bearer token for that service
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// More events than this are refused
    #[arg(long, default_value_t = 100_000)]
    most: usize,
}

/// Program and version, as bundles name them.
pub(crate) fn tool() -> String {
    format!("trailwarden {}", env!("CARGO_PKG_VERSION"))
}

/// Runs the command.
pub(crate) fn run(command: &EvidenceCommand) -> anyhow::Result<Outcome> {
    let mut out = std::io::stdout().lock();
    match command {
        EvidenceCommand::Export(args) => return export(args, &mut out),
        EvidenceCommand::Verify(args) => return verify::run(args, &mut out),
        EvidenceCommand::Checkpoint(args) => {
            let history = args.history()?;
            if let Some(problem) = history.problems.first() {
                anyhow::bail!(
                    "the evidence log was changed: {problem}\n\nhint: `trailwarden doctor --integrity` says more"
                );
            }
            write!(out, "{}", history.note)?;
        }
        EvidenceCommand::Key(args) => writeln!(out, "{}", args.history()?.key)?,
    }
    Ok(Outcome::Clean)
}

fn export(args: &ExportArgs, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    // Before anything is searched and recorded.
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(&args.output)
        .with_context(|| format!("cannot make `{}`", args.output.display()))
        .context(Usage)?;
    let made = match &args.url {
        Some(url) => ask(url, args),
        None => from_folder(args),
    };
    let written = made.and_then(|bytes| {
        file.write_all(&bytes)?;
        file.sync_all()?;
        Ok(bytes)
    });
    match written {
        Ok(bytes) => {
            let hash = bus::ledger::tree::hex(&bus::ledger::tree::sha256(&bytes));
            writeln!(out, "{hash}  {}", args.output.display())?;
            Ok(Outcome::Clean)
        }
        Err(error) => {
            let _ = std::fs::remove_file(&args.output);
            Err(error)
        }
    }
}

fn ask(url: &str, args: &ExportArgs) -> anyhow::Result<Vec<u8>> {
    let service = service_client::Service::new(url, args.token_file.as_deref())?;
    let order = serde_json::json!({
        "query": args.query,
        "from": args.from,
        "to": args.to,
        "case": args.case,
    });
    let address = service.address("/api/v1/evidence")?;
    service.post_for_bytes(address, &order, search::evidence::zip::MAX)
}

fn from_folder(args: &ExportArgs) -> anyhow::Result<Vec<u8>> {
    let config = args.store.config()?;
    history(&config)?;
    let now = clock::now();
    let time = |text: &Option<String>| {
        let time = text.as_deref().map(|t| clock::parse(t, now));
        time.transpose().context(Usage)
    };
    let order = Order {
        query: args.query.clone(),
        from: time(&args.from)?,
        to: time(&args.to)?,
        case: args.case.clone(),
        by: user(),
        tool: tool(),
        most: args.most,
        share: match config.bus.kafka {
            Some(_) => (config.search.node, config.search.nodes),
            None => (0, 1),
        },
    };
    let beside = tempfile::tempdir().context("cannot make a folder for a moment")?;
    let log = Log::open_beside(&config, beside.path()).map_err(|error| match error.downcast_ref() {
        Some(BusError::Locked(_)) => anyhow::anyhow!("the service is running on `{}`, and a bundle must be in its audit trail: ask the service with --url", config.data_dir.display()).context(Usage),
        _ => error,
    })?;
    let limits = search::Config {
        timeout_ms: 600_000,
        ..config.search.clone()
    };
    let dir = config.index_dir();
    let metrics = search::Metrics::new(&Registry::new())?;
    let searcher = Searcher::open(&dir, &limits, metrics, clock::clock())
        .with_context(|| format!("cannot open the index in `{}`", dir.display()))?;
    let ledger = Ledger::open(&config.data_dir, config.evidence.key_file.as_deref())?;
    let attestations = Attestations::read(&*log.bus)?;
    let said = |object: &str| attestations.vouched(object);
    let made = make(&searcher, &ledger, &order, &said, now);
    // Whoever keeps the books for the log opens the evidence log anew.
    drop(ledger);
    let event = recorded(&order, made.as_ref().ok(), now);
    let record = Record {
        key: Bytes::from(event.partition_key().into_string()),
        value: Bytes::from(event.encode()),
        time: now,
    };
    log.bus
        .append(Topic::Events, vec![record])
        .context("cannot record in the audit trail that a bundle was made")?;
    match made {
        Ok(bundle) => Ok(bundle.bytes),
        Err(error @ (ExportError::Nothing | ExportError::Large(_))) => {
            Err(anyhow::Error::new(error).context(Usage))
        }
        Err(error) => Err(error.into()),
    }
}

/// The event of the audit trail, as the console makes it of one that is asked for there.
fn recorded(order: &Order, bundle: Option<&Bundle>, now: Time) -> Event {
    let outcome = match bundle {
        Some(_) => Became::Success,
        None => Became::Failure,
    };
    console::AuditEvent {
        time: now,
        action: "ExportEvidence",
        actor: order.by.clone(),
        actor_type: "shell",
        src_ip: String::new(),
        user_agent: order.tool.clone(),
        outcome,
        resource: String::new(),
        details: serde_json::json!({
            "query": order.query,
            "case": order.case,
            "from": order.from,
            "to": order.to,
            "events": bundle.map(|b| b.about.events),
            "sha256": bundle.map(|b| &b.sha256),
        }),
        request_id: String::new(),
    }
    .to_event()
}

/// Who runs the command, as the system says.
pub(crate) fn user() -> String {
    let named = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    named.unwrap_or_else(|| "unknown".to_owned())
}

/// The bytes of a file, at most so many.
pub(crate) fn read(path: &Path, most: usize) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let cannot = || format!("cannot read `{}`", path.display());
    let file = std::fs::File::open(path)
        .with_context(cannot)
        .context(Usage)?;
    let mut bytes = Vec::new();
    std::io::copy(&mut file.take(most as u64 + 1), &mut bytes).with_context(cannot)?;
    ensure!(
        bytes.len() <= most,
        anyhow::anyhow!("`{}` is larger than {most} bytes", path.display()).context(Usage)
    );
    Ok(bytes)
}
