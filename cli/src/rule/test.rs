//! `trailwarden rule test`: the tests that stand in rules, run through the same engine as the service.
//!
//! The records of a test go the way of real ones: decoded, normalized, matched with all rules and filters that were
//! given, correlated in event time. A line for each test goes to a pipe; a person is told what failed, and why with
//! `--explain`. `explain` puts the reasons into words.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use detect::engine::{Engine, Scratch};
use detect::meter::Counters;
use detect::rule::{BaselineRule, RuleTest, TestEvent};
use detect::rule_set::{RuleSet, Target};
use detect::tracker::{Baseline, Sightings, Subject, offline, rehearse};
use detect::window::{Correlation, Match, OFFLINE_MEMORY, Offline};
use detect::yaml::Place;
use event::inventory::Inventory;
use event::{Finding, Flag, RuleInfo, Time};
use ingest::decode::{self, Decoder, Item, Limits};
use ingest::normalize::{Context as Origin, Normalizer};

use super::explain::{self, Reason};
use crate::exit::Outcome;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden rule test rules/                        all tests; says what failed
  trailwarden rule test rules/a.yml --explain         and which line of the rule did not hold
  trailwarden rule test rules/a.yml --explain=all     the same for tests that passed
  trailwarden rule test rules/ exceptions/ | jq 'select(.passed | not)'

docs/rules.md says how tests are written. Exit code: 0 all passed, 1 some failed, 2 a mistake in a rule.")]
pub(crate) struct TestArgs {
    /// Folders and files; the shipped rules, if none is given
    paths: Vec<PathBuf>,
    /// Say which line of the rule held, field by field: for tests that failed, or for all
    #[arg(long, value_enum, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "failed")]
    explain: Option<Which>,
    /// How to write the results; text on a terminal and JSON lines in a pipe, if not said
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// An inventory of accounts and functions: the events of tests get its names and labels
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// A value for `%NAME%` in rules that use the modifier `expand`
    #[arg(long = "placeholder", value_name = "NAME=VALUE", value_parser = crate::rules::name_and_value)]
    placeholders: Vec<(String, String)>,
}

/// Which tests are explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// Those that failed
    Failed,
    /// All
    All,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// What failed, for people
    Text,
    /// One JSON object a test
    Jsonl,
}

/// What one test gave.
pub(super) struct Outcomes {
    pub(super) findings: u64,
    pub(super) reasons: Vec<Reason>,
}

/// Runs the command.
#[expect(clippy::print_stderr, reason = "a command talks to people on stderr")]
pub(super) fn run(args: &TestArgs) -> anyhow::Result<Outcome> {
    let set = super::args(&args.paths, &args.placeholders).load()?;
    let format = args.format.unwrap_or(if std::io::stdout().is_terminal() {
        Format::Text
    } else {
        Format::Jsonl
    });
    let inventory = crate::inventory::asked(args.inventory.as_deref())?;
    let bench = Bench::new(&set, inventory);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut passed, mut failed, mut without) = (0, 0, 0);
    let rules = set.rules.iter().map(|r| (&r.info, &r.tests));
    let correlations = set.correlations.iter().map(|c| (&c.info, &c.tests));
    let is_new = |rule: &BaselineRule| matches!(rule.subject, Subject::New(_));
    let watching = set.baselines.iter().filter(|b| is_new(b));
    let watching = watching.map(|b| (&b.info, &b.event_tests));
    for (info, tests) in rules.chain(correlations).chain(watching) {
        without += u64::from(tests.is_empty());
        for test in tests {
            let quiet = bench.run(info, test, false)?;
            let good = test
                .expect
                .map_or(quiet.findings > 0, |n| n == quiet.findings);
            *(if good { &mut passed } else { &mut failed }) += 1;
            let explained = args.explain.is_some_and(|w| w == Which::All || !good);
            // Reasons are made for those who ask: they cost more than the test.
            let outcomes = if explained {
                bench.run(info, test, true)?
            } else {
                quiet
            };
            let head = Head {
                info,
                name: &test.name,
                place: test.place,
                expect: test.expect,
            };
            match format {
                Format::Jsonl => {
                    let mut line = json(&head, good, outcomes.findings);
                    if explained {
                        line["explained"] = outcomes.reasons.iter().map(explain::json).collect();
                    }
                    writeln!(out, "{line}")?;
                }
                Format::Text if !good || explained => {
                    text(&head, good, outcomes.findings, &mut out)?;
                    let lines = outcomes.reasons.iter().flat_map(explain::words);
                    for line in lines {
                        writeln!(out, "     {line}")?;
                    }
                }
                Format::Text => {}
            }
        }
    }
    let baselines = crate::correlations::baselines(&set);
    for (rule, baseline) in set.baselines.iter().zip(baselines.iter()) {
        if is_new(rule) {
            continue;
        }
        without += u64::from(rule.tests.is_empty());
        for test in &rule.tests {
            let (said, episodes) = rehearse(baseline, test);
            let good = test.expect.map_or(episodes > 0, |n| n == episodes);
            *(if good { &mut passed } else { &mut failed }) += 1;
            let head = Head {
                info: &rule.info,
                name: &test.name,
                place: test.place,
                expect: test.expect,
            };
            let explained = args.explain.is_some_and(|w| w == Which::All || !good);
            let words: Vec<String> = said
                .iter()
                .filter(|_| explained)
                .map(|f| format!("{}  {}", f.last_event_time, f.explanation))
                .collect();
            match format {
                Format::Jsonl => {
                    let mut line = json(&head, good, episodes);
                    if explained {
                        line["explained"] = words.into();
                    }
                    writeln!(out, "{line}")?;
                }
                Format::Text if !good || explained => {
                    text(&head, good, episodes, &mut out)?;
                    for line in words {
                        writeln!(out, "     {line}")?;
                    }
                }
                Format::Text => {}
            }
        }
    }
    let summary = format!("{passed} passed, {failed} failed; {without} rules have no test");
    match format {
        Format::Text => writeln!(out, "{summary}")?,
        Format::Jsonl => eprintln!("{summary}"),
    }
    out.flush()?;
    Ok(if failed > 0 {
        Outcome::Found
    } else {
        Outcome::Clean
    })
}

/// Which test it is.
struct Head<'a> {
    info: &'a RuleInfo,
    name: &'a str,
    place: Place,
    expect: Option<u64>,
}

fn json(head: &Head<'_>, passed: bool, findings: u64) -> serde_json::Value {
    let expected = match head.expect {
        None => serde_json::json!("match"),
        Some(0) => serde_json::json!("no_match"),
        Some(count) => serde_json::json!({ "count": count }),
    };
    serde_json::json!({
        "rule_id": head.info.id,
        "title": head.info.title,
        "test": head.name,
        "file": head.info.file,
        "line": head.place.line,
        "column": head.place.column,
        "passed": passed,
        "expected": expected,
        "findings": findings,
    })
}

fn text(head: &Head<'_>, passed: bool, findings: u64, out: &mut dyn Write) -> std::io::Result<()> {
    let wanted = match head.expect {
        None => "a match".to_owned(),
        Some(1) => "1 finding".to_owned(),
        Some(n) => format!("{n} findings"),
    };
    writeln!(
        out,
        "{}: {} / {}\n  --> {}:{}:{}\n   = {wanted} expected, {findings} found",
        if passed { "passed" } else { "failed" },
        head.info.title,
        head.name,
        head.info.file,
        head.place.line,
        head.place.column,
    )
}

/// The engine with all rules, ready for tests.
pub(super) struct Bench<'a> {
    set: &'a RuleSet,
    engine: Engine,
    correlations: Vec<Correlation>,
    baselines: Arc<[Baseline]>,
    inventory: Inventory,
}

impl<'a> Bench<'a> {
    /// Events get the names and labels of `inventory`.
    pub(super) fn new(set: &'a RuleSet, inventory: Inventory) -> Bench<'a> {
        Bench {
            set,
            engine: Engine::new(set),
            correlations: crate::correlations::of(set),
            baselines: crate::correlations::baselines(set),
            inventory,
        }
    }

    /// Runs one test of the rule or correlation that `info` is about.
    pub(super) fn run(
        &self,
        info: &RuleInfo,
        test: &RuleTest,
        explained: bool,
    ) -> anyhow::Result<Outcomes> {
        let mut correlations = self.correlations.clone();
        // One that others refer to may be silent, but not in its own test.
        for correlation in &mut correlations {
            correlation.chain.silent &= correlation.rule_id != info.id;
        }
        let mut correlator = Offline::new(correlations, OFFLINE_MEMORY);
        let mut outcomes = Outcomes {
            findings: 0,
            reasons: Vec::new(),
        };
        let concerned = self.concerned(info);
        let mut normalizer = Normalizer::new();
        let mut scratch = Scratch::new();
        let origin = Origin {
            ingest_time: test.start,
            object: info.id.as_str().into(),
            keep_raw: true,
        };
        let text = records(test);
        let mut pushed = Ok(());
        let (mut counters, mut told) = (Counters::of_whole(), Sightings::default());
        let mut each = |item: Item<'_>| {
            let record = match item {
                Item::Bad(bad) => {
                    let before = text.iter().take(bad.offset as usize);
                    let number = before.filter(|b| **b == b'\n').count();
                    let line = test.events.get(number).map_or(test.place, |e| e.place).line;
                    let words = format!("the event on line {line} cannot be read: {}", bad.message);
                    outcomes.reasons.push(Reason::Unreadable(words));
                    return std::ops::ControlFlow::Continue(());
                }
                Item::Record(record) => record,
            };
            let mut event = normalizer.event(&record, &origin);
            // A test has no clock: nothing in it lies in the future.
            event.flags.clear(Flag::TsFuture);
            self.inventory.label(&mut event);
            let json = record.doc.map(|d| d.root(record.text));
            self.engine.matches(&event, json, &mut scratch);
            let matched = scratch.matched().iter();
            let own = matched.filter(|r| self.engine.info(**r).id == info.id);
            outcomes.findings += own.count() as u64;
            let mut counted = Vec::new();
            if !event.flags.has(Flag::Addendum) {
                for found in self.engine.correlation_matches(&event, json, &mut scratch) {
                    let correlation = &self.correlations[found.correlation];
                    if correlation.rule_id == info.id {
                        counted.push(found.group.clone());
                    }
                    if pushed.is_ok() {
                        let position = record.position;
                        let m = Match::new(correlation, found.group, &event, 0, position);
                        pushed = correlator.push(m.with(found.contribution));
                    }
                }
            }
            let readings = self.engine.readings(&event, json, &mut scratch, &mut told);
            readings.into_iter().for_each(|r| counters.take(r));
            if explained {
                let rules = concerned.iter().filter_map(|rule| {
                    let explanation = self.engine.explain(&rule.id, &event, json)?;
                    Some((rule.title.clone(), explanation))
                });
                outcomes.reasons.push(Reason::Event {
                    id: event.shown_id().to_string(),
                    time: event.time,
                    source: event.source.to_string(),
                    rules: rules.collect(),
                    counted,
                });
            }
            std::ops::ControlFlow::Continue(())
        };
        Decoder::new(Limits::of_bodies()).bytes(&text, &decode::Job::default(), &mut each);
        pushed?;
        let mut episodes: Vec<Finding> = Vec::new();
        correlator.finish(|finding| {
            if finding.rule_id == info.id {
                episodes.push(finding);
            }
        })?;
        let departures = offline(counters, &self.baselines);
        episodes.extend(departures.into_iter().filter(|f| f.rule_id == info.id));
        outcomes.findings += episodes.len() as u64;
        if explained {
            let episodes = episodes.into_iter().map(|f| Reason::Episode(Box::new(f)));
            outcomes.reasons.extend(episodes);
        }
        Ok(outcomes)
    }

    /// The single-event rules that decide about a test: the rule itself, or those that a correlation counts.
    fn concerned(&self, info: &RuleInfo) -> Vec<&'a RuleInfo> {
        if let Some(rule) = self.set.rules.iter().find(|r| r.info.id == info.id) {
            return vec![&rule.info];
        }
        let baselines = self.set.baselines.iter().zip(&self.set.watched);
        if let Some((_, watched)) = baselines.into_iter().find(|(b, _)| b.info.id == info.id) {
            return watched.iter().map(|n| &self.set.rules[*n].info).collect();
        }
        let of = |id: &str| self.set.correlations.iter().position(|c| c.info.id == id);
        let (mut open, mut rules) = (Vec::from_iter(of(&info.id)), Vec::new());
        // Through all correlations that it refers to; none refers to itself.
        while let Some(number) = open.pop() {
            for (target, _) in &self.set.references[number] {
                match target {
                    Target::Rule(rule) => rules.push(*rule),
                    Target::Correlation(lower) => open.push(*lower),
                }
            }
        }
        rules.sort_unstable();
        rules.dedup();
        rules.iter().map(|n| &self.set.rules[*n].info).collect()
    }
}

/// The records as a source would deliver them. A record with `logGroup` and `message` stands for one event of a log
/// stream and is wrapped as CloudWatch Logs does.
fn records(test: &RuleTest) -> Vec<u8> {
    let mut out = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    for (number, event) in test.events.iter().enumerate() {
        let mut record = event.record.clone();
        dated(&mut record, event, number, test.start, &mut ids);
        let text = |key: &str| record.get(key).and_then(|v| v.as_str()).unwrap_or_default();
        let record = if is_log_line(&record) {
            let id = match text("id") {
                "" => number.to_string(),
                id => id.to_owned(),
            };
            serde_json::json!({
                "messageType": "DATA_MESSAGE",
                "owner": text("owner"),
                "logGroup": text("logGroup"),
                "logStream": text("logStream"),
                "subscriptionFilters": [],
                "logEvents": [{"id": id, "timestamp": record.get("timestamp"), "message": text("message")}],
            })
        } else {
            record
        };
        out.extend_from_slice(record.to_string().as_bytes());
        out.push(b'\n');
    }
    out
}

fn is_log_line(record: &serde_json::Value) -> bool {
    record.get("logGroup").is_some() && record.get("message").is_some()
}

/// Gives an event that says how much later it happened its time, in the field in which its source writes it, and an id
/// of its own where it repeats another's.
fn dated(
    record: &mut serde_json::Value,
    event: &TestEvent,
    number: usize,
    start: Time,
    ids: &mut std::collections::BTreeSet<String>,
) {
    let is_line = is_log_line(record);
    let Some(map) = record.as_object_mut() else {
        return;
    };
    let is_trail = map.contains_key("eventVersion") || map.contains_key("eventSource");
    let id = if is_trail { "eventID" } else { "id" };
    if let Some(later) = event.at {
        let time = start.plus(later);
        let (key, value) = if is_line {
            ("timestamp", time.millis().into())
        } else if is_trail {
            ("eventTime", time.to_string().into())
        } else {
            ("@timestamp", time.to_string().into())
        };
        map.insert(key.to_owned(), value);
        let known = map.get(id).and_then(|v| v.as_str()).unwrap_or_default();
        if (is_line || is_trail) && (known.is_empty() || ids.contains(known)) {
            let other = format!("{known}#{}", number + 1);
            map.insert(id.to_owned(), other.into());
        }
    }
    if let Some(id) = map.get(id).and_then(|v| v.as_str()) {
        ids.insert(id.to_owned());
    }
}
