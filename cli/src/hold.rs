//! `trailwarden hold`: legal holds, set, listed and released.
//!
//! Asked of running services with `--url`, one for each index node: a node holds what it has itself, and says which of
//! how many it is, so the command knows whether one was left out. Of a service that is stopped `--data` gives the folder;
//! the record of it then goes to the log of that folder.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use bus::{Bus, BusError, Record, Topic};
use bytes::Bytes;
use event::{AuditEvent, Event, Outcome as Became, Time};
use search::Searcher;
use search::hold::{Hold, HoldError, Holds, NewHold};
use serde_json::{Value, json};

use crate::clock;
use crate::config::{self, Config};
use crate::evidence::{tool, user};
use crate::exit::{Outcome, Usage};
use crate::log::{Beside, Log};
use crate::service_client::Service;

/// Keeps what belongs to a case from being removed from the index
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden hold add IR-2026-041 --from 2026-11-01 --to 2026-11-20 --reason 'order of the court' --url http://127.0.0.1:7171
  trailwarden hold add IR-2026-042 --from 2026-11-01 --account 111122223333 --reason 'data breach' \\
      --url https://index-0.example --url https://index-1.example --token-file token
  trailwarden hold list --data /var/lib/trailwarden
  trailwarden hold release IR-2026-041 --reason 'the case is closed' --url http://127.0.0.1:7171

A split of the index that has an event within the hold is kept as a whole. With several index nodes give the --url
of each: exit code 1 means that a node was left out. docs/retention.md says what a hold covers.")]
pub(crate) struct HoldArgs {
    #[command(subcommand)]
    command: HoldCommand,
    /// A running service; one for each index node
    #[arg(long, value_name = "URL", global = true)]
    url: Vec<String>,
    /// A file with the bearer token for them
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// The configuration of the service
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The data folder of a service that is stopped, whatever the configuration says
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "url")]
    data: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum HoldCommand {
    /// Sets a hold
    Add(AddArgs),
    /// Shows the holds, and what each keeps
    List,
    /// Releases a hold
    Release {
        /// The name of the case
        name: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// The name of the case: letters, digits, `.`, `_` and `-`
    name: String,
    /// Events not before this time (RFC 3339, or `-7d`, `-12h`, `now`)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Events not after this time; without it also what is still to come
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Only where an event of this account is
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Only where an event of this source is, such as aws.lambda
    #[arg(long)]
    source: Option<String>,
    /// Only where an event that matches this query is
    #[arg(long, default_value = "")]
    query: String,
    /// Why
    #[arg(long)]
    reason: String,
}

/// What one node answered.
struct Answer {
    node: u64,
    nodes: u64,
    /// The holds that it has, or the one that was changed.
    holds: Vec<Value>,
}

/// Runs the command.
pub(crate) fn run(args: &HoldArgs) -> anyhow::Result<Outcome> {
    let answers = match (&args.command, args.url.is_empty()) {
        (HoldCommand::Add(new), urls) => {
            let new = new.hold(clock::now())?;
            match urls {
                true => vec![locally(args, |index| index.add(&new))?],
                false => {
                    let body = serde_json::to_value(&new)?;
                    ask_all(args, "/api/v1/holds", Some(&body))?
                }
            }
        }
        (HoldCommand::List, true) => vec![locally(args, |index| index.list())?],
        (HoldCommand::List, false) => ask_all(args, "/api/v1/holds", None)?,
        (HoldCommand::Release { name, reason }, true) => {
            vec![locally(args, |index| index.release(name, reason))?]
        }
        (HoldCommand::Release { name, reason }, false) => {
            anyhow::ensure!(
                !name.contains(['/', '?', '#', '%']),
                anyhow::anyhow!("`{name}` is no name of a hold").context(Usage)
            );
            let path = format!("/api/v1/holds/{name}/release");
            ask_all(args, &path, Some(&json!({"reason": reason})))?
        }
    };
    show(&answers)?;
    missing(&answers, matches!(args.command, HoldCommand::List))
}

/// Says which index nodes did not answer.
fn missing(answers: &[Answer], listed: bool) -> anyhow::Result<Outcome> {
    let nodes = answers.iter().map(|a| a.nodes).max().unwrap_or(1);
    let reached: BTreeSet<u64> = answers.iter().map(|a| a.node).collect();
    let left: Vec<String> = (0..nodes)
        .filter(|node| !reached.contains(node))
        .map(|node| node.to_string())
        .collect();
    let names = |answer: &Answer| -> BTreeSet<String> {
        let names = answer.holds.iter().filter_map(|h| h["name"].as_str());
        names.map(str::to_owned).collect()
    };
    let differ = listed
        && answers
            .windows(2)
            .any(|pair| names(&pair[0]) != names(&pair[1]));
    let mut err = std::io::stderr().lock();
    if differ {
        writeln!(
            err,
            "the nodes do not have the same holds\n\nhint: repeat `hold add` with the --url of every index node; what a node has already stays as it is"
        )?;
    }
    if !left.is_empty() {
        writeln!(
            err,
            "index node {} of {nodes} was not asked: nothing has changed there\n\nhint: repeat the command with the --url of every index node; what a node has already stays as it is",
            left.join(", ")
        )?;
    }
    Ok(match left.is_empty() && !differ {
        true => Outcome::Clean,
        false => Outcome::Found,
    })
}

fn ask_all(args: &HoldArgs, path: &str, body: Option<&Value>) -> anyhow::Result<Vec<Answer>> {
    let mut answers = Vec::with_capacity(args.url.len());
    for (n, url) in args.url.iter().enumerate() {
        let asked = || -> anyhow::Result<Answer> {
            let service = Service::new(url, args.token_file.as_deref())?;
            let address = service.address(path)?;
            let value = match body {
                Some(body) => service.post(address, body)?,
                None => service.get(address)?,
            };
            let number = |key: &str| value[key].as_u64();
            let (Some(node), Some(nodes)) = (number("node"), number("nodes")) else {
                bail!("the service answered something that is no hold");
            };
            let holds = match (&value["holds"], &value["hold"]) {
                (Value::Array(holds), _) => holds.clone(),
                (_, hold) => vec![hold.clone()],
            };
            Ok(Answer { node, nodes, holds })
        };
        let answer = asked().with_context(|| match n {
            0 => format!("`{url}` has not done it"),
            _ => format!("`{url}` has not done it, and {n} before it have: repeat the command once it can be asked"),
        })?;
        answers.push(answer);
    }
    Ok(answers)
}

fn show(answers: &[Answer]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let terminal = out.is_terminal();
    for answer in answers {
        for hold in &answer.holds {
            if !terminal {
                let mut hold = hold.clone();
                hold["node"] = answer.node.into();
                writeln!(out, "{hold}")?;
                continue;
            }
            let text = |key: &str| hold[key].as_str().map(event::inert::text);
            let or = |key: &str, other: &'static str| text(key).unwrap_or(other.into());
            writeln!(
                out,
                "{:<20} {} to {}{}\n    {} ({}, {})",
                or("name", ""),
                or("from", "the beginning"),
                or("to", "open end"),
                match &hold["query"] {
                    Value::String(query) => format!(", {}", event::inert::text(query)),
                    _ => String::new(),
                },
                or("reason", ""),
                or("by", ""),
                or("made", "")
            )?;
            let covered = &hold["covered"];
            if let (Some(splits), Some(events)) =
                (covered["splits"].as_u64(), covered["events"].as_u64())
            {
                let mib = covered["bytes"].as_u64().unwrap_or(0) >> 20;
                writeln!(
                    out,
                    "    node {}: keeps {splits} splits with {events} events, {mib} MiB",
                    answer.node
                )?;
            }
        }
        if terminal && answer.holds.is_empty() {
            writeln!(out, "node {}: no holds", answer.node)?;
        }
    }
    Ok(())
}

impl AddArgs {
    fn hold(&self, now: Time) -> anyhow::Result<NewHold> {
        // Absolute from here on: every node must hold the same.
        let time = |text: &Option<String>| {
            let time = text.as_deref().map(|t| clock::parse(t, now));
            time.transpose().context(Usage)
        };
        let quoted = |field: &str, value: &Option<String>| {
            let value = value.as_ref()?;
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            Some(format!("{field}:\"{value}\""))
        };
        let mut parts: Vec<String> = [
            quoted("account", &self.account),
            quoted("source", &self.source),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !self.query.trim().is_empty() {
            parts.push(match parts.is_empty() {
                true => self.query.clone(),
                false => format!("({})", self.query),
            });
        }
        Ok(NewHold {
            name: self.name.clone(),
            from: time(&self.from)?,
            to: time(&self.to)?,
            query: parts.join(" AND "),
            reason: self.reason.clone(),
        })
    }
}

/// The index of a stopped service.
struct Local {
    log: Beside,
    holds: Holds,
    config: Config,
}

fn locally(
    args: &HoldArgs,
    work: impl FnOnce(&Local) -> anyhow::Result<Vec<Value>>,
) -> anyhow::Result<Answer> {
    let config = config::load_of(args.config.as_deref(), args.data.as_deref())?;
    anyhow::ensure!(
        config.bus.kafka.is_none(),
        anyhow::anyhow!("on Kafka holds are kept by the index nodes: ask each of them with --url")
            .context(Usage)
    );
    let (log, _beside) = stopped(&config)?;
    let holds = Holds::open(Arc::clone(&log.bus), &config.index_dir())?;
    let local = Local { log, holds, config };
    let holds = work(&local)?;
    Ok(Answer {
        node: u64::from(local.config.search.node),
        nodes: u64::from(local.config.search.nodes),
        holds,
    })
}

/// The log of a service that is stopped.
fn stopped(config: &Config) -> anyhow::Result<(Beside, tempfile::TempDir)> {
    anyhow::ensure!(
        config.bus_dir().is_dir(),
        anyhow::anyhow!(
            "there is no log in `{}`; give the data folder of a service with --data, or ask a running one with --url",
            config.data_dir.display()
        )
        .context(Usage)
    );
    let beside = tempfile::tempdir().context("cannot make a folder for a moment")?;
    let log =
        Log::open_beside(config, beside.path()).map_err(|error| match error.downcast_ref() {
            Some(BusError::Locked(_)) => anyhow::anyhow!(
                "the service is running on `{}`: ask it with --url, or stop it first",
                config.data_dir.display()
            )
            .context(Usage),
            _ => error,
        })?;
    Ok((log, beside))
}

/// Puts an event of the audit trail on the log.
fn record(
    bus: &dyn Bus,
    action: &'static str,
    outcome: Became,
    resource: String,
    details: Value,
) -> anyhow::Result<()> {
    let now = clock::now();
    let event: Event = AuditEvent {
        time: now,
        action,
        actor: user(),
        actor_type: "shell",
        src_ip: String::new(),
        user_agent: tool(),
        outcome,
        resource,
        details,
        request_id: String::new(),
    }
    .to_event();
    let record = Record {
        key: Bytes::from(event.partition_key().into_string()),
        value: Bytes::from(event.encode()),
        time: now,
    };
    bus.append(Topic::Events, vec![record])
        .context("cannot record it in the audit trail")
}

impl Local {
    fn add(&self, new: &NewHold) -> anyhow::Result<Vec<Value>> {
        let made = self.holds.add(new, &user(), clock::now());
        let details = json!({
            "from": new.from, "to": new.to, "query": new.query, "reason": new.reason,
            "node": self.config.search.node,
        });
        self.done("AddHold", made, details)
    }

    fn release(&self, name: &str, reason: &str) -> anyhow::Result<Vec<Value>> {
        let released = self.holds.release(name, reason);
        let details = json!({"reason": reason, "node": self.config.search.node});
        self.done("ReleaseHold", released, details)
    }

    fn list(&self) -> anyhow::Result<Vec<Value>> {
        let searcher = searcher(&self.config)?;
        let covered = self.holds.covered(&searcher);
        let holds = self.holds.kept().holds.into_iter().zip(covered);
        let shown = holds.map(|(hold, covered)| {
            let mut value = serde_json::to_value(hold)?;
            value["covered"] = serde_json::to_value(covered)?;
            Ok(value)
        });
        shown.collect()
    }

    fn done(
        &self,
        action: &'static str,
        done: Result<Hold, HoldError>,
        details: Value,
    ) -> anyhow::Result<Vec<Value>> {
        let (outcome, resource) = match &done {
            Ok(hold) => (Became::Success, format!("hold/{}", hold.name)),
            Err(_) => (Became::Failure, String::new()),
        };
        record(&*self.log.bus, action, outcome, resource, details)?;
        match done {
            Ok(hold) => Ok(vec![serde_json::to_value(hold)?]),
            Err(error @ (HoldError::Bus(_) | HoldError::State(_))) => Err(error.into()),
            Err(error) => Err(anyhow::Error::new(error).context(Usage)),
        }
    }
}

/// Reads the index of a stopped service.
fn searcher(config: &Config) -> anyhow::Result<Searcher> {
    let dir = config.index_dir();
    let metrics = search::Metrics::new(&prometheus::Registry::new())?;
    Searcher::open(&dir, &config.search, metrics, clock::clock()).with_context(|| {
        format!(
            "cannot open the index in `{}`; if it is damaged, `trailwarden index rebuild` mends it",
            dir.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_left_out_is_said() {
        let answer = |node, nodes, names: &[&str]| Answer {
            node,
            nodes,
            holds: names.iter().map(|name| json!({"name": name})).collect(),
        };
        let check = |answers: &[Answer], listed, clean| {
            let outcome = missing(answers, listed).unwrap();
            assert_eq!(matches!(outcome, Outcome::Clean), clean);
        };
        check(&[answer(0, 1, &["a"])], false, true);
        check(&[answer(0, 2, &["a"]), answer(1, 2, &["a"])], true, true);
        check(&[answer(1, 2, &["a"])], false, false);
        // The same node twice is not two.
        check(&[answer(0, 2, &["a"]), answer(0, 2, &["a"])], false, false);
        check(&[answer(0, 2, &["a"]), answer(1, 2, &[])], true, false);
    }

    #[test]
    fn an_account_is_a_query_and_times_are_absolute() {
        let args = AddArgs {
            name: "a".into(),
            from: Some("-1d".into()),
            to: None,
            account: Some("111122223333".into()),
            source: Some("aws.lambda".into()),
            query: "a OR b".into(),
            reason: "x".into(),
        };
        let hold = args.hold(Time::from_seconds(86_400)).unwrap();
        assert_eq!(hold.from, Some(Time::from_seconds(0)));
        let words = "account:\"111122223333\" AND source:\"aws.lambda\" AND (a OR b)";
        assert_eq!(hold.query, words);
        assert!(search::query::parse(&hold.query).is_ok());
    }
}
