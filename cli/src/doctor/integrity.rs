//! `trailwarden doctor --integrity`: is the store still what the service has written?
//!
//! Everything is held to the evidence log: its own leaves to its checkpoint, that to a checkpoint that was kept elsewhere,
//! the files of the event log and of the index to the leaves. Files are read and nothing is written, beside a running
//! service too: what it changes meanwhile is looked at once more. After an orderly stop the log checks itself as well.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use bus::BusError;
use bus::embedded::EmbeddedBus;
use bus::ledger::note::Checkpoint;
use bus::ledger::{History, KEY_FILE, Problem, What, log, read_key, tree};
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::Config;
use crate::evidence;
use crate::exit::{Outcome, Usage};

/// How often the store is looked at again while the service changes it.
const LOOKS: usize = 4;

/// What to hold the store to.
#[derive(Debug, clap::Args)]
pub(super) struct IntegrityArgs {
    /// Read the whole store and say what was changed, removed or inserted after the fact
    #[arg(long)]
    pub(super) integrity: bool,
    /// A checkpoint that was kept elsewhere (`evidence checkpoint`): is what it signed for still there?
    #[arg(long, value_name = "FILE", requires = "integrity")]
    checkpoint: Option<PathBuf>,
    /// The public key, or a file with it, as it was noted elsewhere (`evidence key`)
    #[arg(long, value_name = "KEY", requires = "integrity")]
    key: Option<String>,
}

/// What a check has found.
struct Found {
    history: History,
    problems: Vec<Problem>,
}

pub(super) fn run(args: &IntegrityArgs, config: &Config) -> anyhow::Result<Outcome> {
    let kept = args
        .checkpoint
        .as_deref()
        .map(|p| evidence::read(p, 1 << 16))
        .transpose()?;
    let kept = kept.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut found = look(args, config, kept.as_deref())?;
    for _ in 1..LOOKS {
        let size = found.history.hashes.len();
        let wrong = found.problems.iter().any(|p| p.what != What::Unproven);
        if !wrong || History::read(&config.evidence_path())?.hashes.len() == size {
            break;
        }
        found = look(args, config, kept.as_deref())?;
    }
    if found.problems.is_empty() && found.history.state.stopped {
        found.problems = state(config);
    }
    let mut out = std::io::stdout().lock();
    let wrong = found
        .problems
        .iter()
        .filter(|p| p.what != What::Unproven)
        .count();
    if std::io::stdout().is_terminal() {
        words(&found, wrong, &mut out)?;
    } else {
        let state = &found.history.state;
        let report = serde_json::json!({
            "intact": wrong == 0,
            "leaves": found.history.hashes.len(),
            "began": state.began,
            "newest": state.newest,
            "key": found.history.key.to_string(),
            "splits": state.splits.len(),
            "log_files": state.chunks.values().filter(|c| c.dropped.is_none()).count(),
            "splits_before": state.before,
            "problems": found.problems,
        });
        writeln!(out, "{report}")?;
    }
    Ok(match wrong {
        0 => Outcome::Clean,
        _ => Outcome::Found,
    })
}

/// Whether the state of the log fits together, where the service is stopped: nothing vouches for what stands in it, but
/// damage shows. Opening the log after an orderly stop changes nothing in its files.
fn state(config: &Config) -> Vec<Problem> {
    let dir = config.bus_dir();
    if config.bus.kafka.is_some() || !dir.is_dir() {
        return Vec::new();
    }
    let changed = |error: &BusError| Problem::new(What::Changed, "log", error.to_string());
    match EmbeddedBus::open(&dir, config.bus.clone()) {
        Ok(bus) => bus.verify().iter().map(changed).collect(),
        Err(BusError::Locked(_)) => Vec::new(),
        Err(error) => vec![changed(&error)],
    }
}

fn look(args: &IntegrityArgs, config: &Config, kept: Option<&str>) -> anyhow::Result<Found> {
    let own = config.data_dir.join(KEY_FILE);
    let key_path = config.evidence.key_file.as_deref().unwrap_or(&own);
    if !config.evidence_path().exists() && key_path.exists() {
        let words = "the evidence log is gone, though its key is there";
        anyhow::bail!(
            "{words}\n\nhint: restore `{}` from a backup; if it cannot be had, nothing of this store is proven",
            config.evidence_path().display()
        );
    }
    let history = evidence::history(config)?;
    let place = bus::ledger::FILE;
    let mut problems: Vec<Problem> = history
        .problems
        .iter()
        .map(|words| Problem::new(What::Changed, place, words))
        .collect();
    // Whose log it is, the log cannot say itself.
    let expected = match &args.key {
        Some(key) => Some(evidence::key(key)?),
        None if key_path.exists() => Some(read_key(key_path)?.public()),
        None => None,
    };
    match expected {
        Some(key) if key != history.key => {
            let words = format!("signed by {}, not by {key}", history.key);
            problems.push(Problem::new(What::Changed, place, words));
        }
        Some(_) => {}
        None => {
            let words = "nobody says whether its key is the right one: give it with --key";
            problems.push(Problem::new(What::Unproven, place, words));
        }
    }
    if let Some(kept) = kept {
        problems.extend(since(&history, kept)?);
    }
    let state = &history.state;
    problems.extend(
        state
            .found
            .iter()
            .map(|(place, words)| Problem::new(What::Changed, place, words)),
    );
    let bar = bar(log::bytes(state) + search::evidence::bytes(state));
    let seen = |bytes: u64| bar.inc(bytes);
    problems.extend(log::check(&config.bus_dir(), state, &seen)?);
    problems.extend(search::evidence::check(
        &config.index_dir(),
        &history,
        &seen,
    )?);
    bar.finish_and_clear();
    problems.sort_by(|a, b| (a.what, &a.place).cmp(&(b.what, &b.place)));
    Ok(Found { history, problems })
}

/// Is the log of which a checkpoint was kept the beginning of this one?
fn since(history: &History, kept: &str) -> anyhow::Result<Option<Problem>> {
    let place = bus::ledger::FILE;
    let kept = Checkpoint::open(kept, &history.key)
        .context("the checkpoint is not one of this evidence log")
        .context(Usage);
    let kept = match kept {
        Ok(kept) => kept,
        Err(error) => {
            let words = format!(
                "{:#}: it was begun anew with another key, or the checkpoint is of another store",
                error.root_cause()
            );
            return Ok(Some(Problem::new(What::Changed, place, words)));
        }
    };
    let size = history.hashes.len() as u64;
    let words = match tree::consistency(&history.hashes, usize::try_from(kept.size)?) {
        None => format!(
            "it has {size} leaves, and the checkpoint that was kept has {}: an older state was put back",
            kept.size
        ),
        Some(path) => {
            let root = tree::root(&history.hashes);
            if tree::is_consistent(kept.size, &kept.root, size, &root, &path) {
                return Ok(None);
            }
            format!(
                "its first {} leaves are not those of the checkpoint that was kept: it was written anew",
                kept.size
            )
        }
    };
    Ok(Some(Problem::new(What::Changed, place, words)))
}

fn bar(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec}, {eta} left",
    );
    let bar = ProgressBar::new(bytes);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn words(found: &Found, wrong: usize, out: &mut dyn Write) -> std::io::Result<()> {
    let state = &found.history.state;
    let time = |time: Option<event::Time>| time.map_or("never".to_owned(), |t| t.to_string());
    for problem in &found.problems {
        let what = match problem.what {
            What::Changed => "CHANGED",
            What::Removed => "REMOVED",
            What::Inserted => "INSERTED",
            What::Unproven => "unproven",
        };
        let place = event::inert::text(&problem.place);
        writeln!(
            out,
            "{what:<9} {place}\n          {}",
            event::inert::text(&problem.words)
        )?;
    }
    let count = state
        .chunks
        .values()
        .filter(|c| c.dropped.is_none())
        .count();
    writeln!(
        out,
        "{} leaves since {}, the newest of {}; {} splits and {count} files of the event log",
        found.history.hashes.len(),
        time(state.began),
        time(state.newest),
        state.splits.len()
    )?;
    if state.before > 0 {
        writeln!(
            out,
            "{} splits were there before: of what they held then, nothing is proven",
            state.before
        )?;
    }
    match wrong {
        0 => writeln!(out, "ok    the store is what the service has written"),
        1 => writeln!(
            out,
            "FAIL  the store is not what the service has written, in one place"
        ),
        _ => writeln!(
            out,
            "FAIL  the store is not what the service has written, in {wrong} places"
        ),
    }
}
