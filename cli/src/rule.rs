//! `trailwarden rule`: check, test and list rules.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use detect::engine::{Engine, Scratch};
use detect::error::Weight;
use detect::rule::RuleTest;
use detect::rule_set::RuleSet;
use detect::window::{Match, OFFLINE_MEMORY, Offline};
use event::{RuleInfo, Time};
use ingest::decode::{self, Decoder, Item, Limits};
use ingest::normalize::{Context as Origin, Normalizer};

use crate::exit::{Outcome, Usage};
use crate::rules::RuleArgs;

/// Checks, tests and lists rules
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RuleCommand {
    /// Names every mistake in rules, with its place and a hint
    Check {
        /// Folders and files; the shipped rules, if none is given
        paths: Vec<PathBuf>,
        /// A value for `%NAME%` in rules that use the modifier `expand`
        #[arg(long = "placeholder", value_name = "NAME=VALUE", value_parser = crate::rules::name_and_value)]
        placeholders: Vec<(String, String)>,
    },
    /// Runs the tests that stand in rules, through the same engine as the service
    Test {
        /// Folders and files; the shipped rules, if none is given
        paths: Vec<PathBuf>,
        /// Say for every failed test which line of the rule held
        #[arg(long)]
        explain: bool,
        /// A value for `%NAME%` in rules that use the modifier `expand`
        #[arg(long = "placeholder", value_name = "NAME=VALUE", value_parser = crate::rules::name_and_value)]
        placeholders: Vec<(String, String)>,
    },
    /// Lists rules: a table on a terminal, JSON lines in a pipe
    List {
        /// Folders and files; the shipped rules, if none is given
        paths: Vec<PathBuf>,
    },
}

/// Runs the command.
pub(crate) fn run(command: &RuleCommand) -> anyhow::Result<Outcome> {
    match command {
        RuleCommand::Check {
            paths,
            placeholders,
        } => check(&args(paths, placeholders)),
        RuleCommand::Test {
            paths,
            explain,
            placeholders,
        } => test(&args(paths, placeholders).load()?, *explain),
        RuleCommand::List { paths } => list(&args(paths, &[]).load()?),
    }
}

fn args(paths: &[PathBuf], placeholders: &[(String, String)]) -> RuleArgs {
    RuleArgs {
        rules: paths.to_vec(),
        placeholders: placeholders.to_vec(),
    }
}

fn check(args: &RuleArgs) -> anyhow::Result<Outcome> {
    let files = args.files().context(Usage)?;
    let (set, problems) = RuleSet::check(&files, &args.placeholders());
    let mut out = std::io::stdout().lock();
    for problem in &problems {
        writeln!(out, "{problem}\n")?;
    }
    let errors = problems
        .iter()
        .filter(|p| p.weight == Weight::Error)
        .count();
    let warnings = problems.len() - errors;
    let duplicates = if set.duplicates > 0 {
        format!(", {} identical duplicates left out", set.duplicates)
    } else {
        String::new()
    };
    writeln!(
        out,
        "{} files: {} rules and {} correlations are good{duplicates}; {errors} errors, {warnings} warnings",
        files.len(),
        set.rules.len(),
        set.correlations.len()
    )?;
    Ok(if errors > 0 {
        Outcome::Found
    } else {
        Outcome::Clean
    })
}

fn list(set: &RuleSet) -> anyhow::Result<Outcome> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let terminal = std::io::stdout().is_terminal();
    for info in set.infos() {
        if terminal {
            let kind = info.correlation.as_deref().unwrap_or("event");
            writeln!(
                out,
                "{:<13} {:<11} {:<60} {}",
                info.severity,
                kind,
                event::inert::text(&info.title),
                info.id
            )?;
        } else {
            let line = RuleInfo {
                yaml: String::new(),
                ..info
            };
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
        }
    }
    Ok(Outcome::Clean)
}

/// What one test gave.
struct Result {
    findings: u64,
    explained: Vec<String>,
}

fn test(set: &RuleSet, explain: bool) -> anyhow::Result<Outcome> {
    let engine = Engine::new(set);
    let mut out = std::io::stdout().lock();
    let (mut passed, mut failed, mut without) = (0, 0, 0);
    let rules = set
        .rules
        .iter()
        .map(|r| (&r.info, &r.tests))
        .chain(set.correlations.iter().map(|c| (&c.info, &c.tests)));
    for (info, tests) in rules {
        without += u64::from(tests.is_empty());
        for test in tests {
            let result = one(set, &engine, info, test)?;
            let good = test
                .expect
                .map_or(result.findings > 0, |n| n == result.findings);
            if good {
                passed += 1;
                continue;
            }
            failed += 1;
            let wanted = test
                .expect
                .map_or("a match".to_owned(), |n| format!("{n} findings"));
            writeln!(
                out,
                "failed: {} / {}\n  --> {}:{}\n   = {wanted} expected, {} found",
                info.title, test.name, info.file, test.place.line, result.findings
            )?;
            if explain {
                result
                    .explained
                    .iter()
                    .try_for_each(|line| writeln!(out, "     {line}"))?;
            }
        }
    }
    writeln!(
        out,
        "{passed} passed, {failed} failed; {without} rules have no test"
    )?;
    Ok(if failed > 0 {
        Outcome::Found
    } else {
        Outcome::Clean
    })
}

/// The records of a test go the way of real ones: decoded, normalized, matched, correlated.
fn one(set: &RuleSet, engine: &Engine, info: &RuleInfo, test: &RuleTest) -> anyhow::Result<Result> {
    let correlations = crate::correlations::of(set);
    let mut offline = Offline::new(correlations.clone(), OFFLINE_MEMORY);
    let mut result = Result {
        findings: 0,
        explained: Vec::new(),
    };
    let mut normalizer = Normalizer::new();
    let mut scratch = Scratch::new();
    let origin = Origin {
        ingest_time: Time::parse("2026-01-01T00:00:00Z")?,
        object: info.id.as_str().into(),
        keep_raw: true,
    };
    let text = records(test);
    let mut pushed = Ok(());
    let mut each = |item: Item<'_>| {
        match item {
            Item::Bad(bad) => result.explained.push(format!(
                "a record of the test cannot be read: {}",
                bad.message
            )),
            Item::Record(record) => {
                let event = normalizer.event(&record, &origin);
                let json = record.doc.map(|d| d.root(record.text));
                let matched = engine.matches(&event, json, &mut scratch).to_vec();
                result.findings += matched
                    .iter()
                    .filter(|r| engine.info(**r).id == info.id)
                    .count() as u64;
                let explanation = engine.explain(&info.id, &event, json);
                for line in explanation.map(|e| e.lines).unwrap_or_default() {
                    let mark = if line.held { "held" } else { "not " };
                    let values = line
                        .values
                        .iter()
                        .map(|v| event::inert::text(v))
                        .collect::<Vec<_>>()
                        .join(", ");
                    result.explained.push(format!(
                        "{mark}  {}: {}  (event: {values})",
                        line.selection, line.written
                    ));
                }
                for found in engine.correlation_matches(&event, json, &mut scratch) {
                    let correlation = &correlations[found.correlation];
                    if correlation.rule_id == info.id && pushed.is_ok() {
                        pushed = offline.push(Match::new(
                            correlation,
                            found.group,
                            &event,
                            0,
                            record.position,
                        ));
                    }
                }
            }
        }
        std::ops::ControlFlow::Continue(())
    };
    Decoder::new(Limits::of_bodies()).bytes(&text, &decode::Job::default(), &mut each);
    pushed?;
    offline.finish(|finding| {
        if finding.rule_id == info.id {
            result.findings += 1;
        }
    })?;
    Ok(result)
}

/// The records as a source would deliver them. A record with `logGroup` and `message` stands for one event of a log
/// stream and is wrapped as CloudWatch Logs does.
fn records(test: &RuleTest) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, event) in test.events.iter().enumerate() {
        let text = |key: &str| event.get(key).and_then(|v| v.as_str()).unwrap_or_default();
        let record = if event.get("logGroup").is_some() && event.get("message").is_some() {
            let id = event
                .get("id")
                .and_then(|v| v.as_str())
                .map_or_else(|| number.to_string(), str::to_owned);
            serde_json::json!({
                "messageType": "DATA_MESSAGE",
                "owner": text("owner"),
                "logGroup": text("logGroup"),
                "logStream": text("logStream"),
                "subscriptionFilters": [],
                "logEvents": [{"id": id, "timestamp": event.get("timestamp"), "message": text("message")}],
            })
        } else {
            event.clone()
        };
        out.extend_from_slice(record.to_string().as_bytes());
        out.push(b'\n');
    }
    out
}
