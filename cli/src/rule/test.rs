//! `trailwarden rule test`: the tests that stand in rules, run through the same engine as the service.

use std::io::Write;

use detect::engine::{Engine, Scratch};
use detect::rule::RuleTest;
use detect::rule_set::RuleSet;
use detect::window::{Match, OFFLINE_MEMORY, Offline};
use event::{RuleInfo, Time};
use ingest::decode::{self, Decoder, Item, Limits};
use ingest::normalize::{Context as Origin, Normalizer};

use crate::exit::Outcome;

/// What one test gave.
struct Result {
    findings: u64,
    explained: Vec<String>,
}

pub(super) fn run(set: &RuleSet, explain: bool) -> anyhow::Result<Outcome> {
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
