//! Public rules on public events: exactly the matches that an independent evaluator found.
//!
//! The corpus lies beside the checkout; where it is absent these tests say so and pass.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and tells on stderr why it was skipped"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use detect::engine::{Engine, Scratch};
use detect::item::Placeholders;
use detect::rule_set::{RuleFile, RuleSet, read};
use event::json::{Doc, Value};
use event::{Event, Id};

fn corpus() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    if !path.is_dir() {
        eprintln!("skipped: no corpus at {}", path.display());
    }
    path.is_dir().then_some(path)
}

fn files(path: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            files(&entry, out)
        } else {
            out.push(entry)
        }
    }
}

/// Calls `each` with the records of every file, in place of the program's own decoder.
fn records(path: &Path, each: &mut dyn FnMut(&[u8], Value<'_>)) {
    let mut paths = Vec::new();
    files(path, &mut paths);
    for path in paths.iter().filter(|p| !p.ends_with("LICENSE")) {
        let bytes = std::fs::read(path).unwrap();
        let mut text = Vec::new();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut inflated = flate2::read::GzDecoder::new(&bytes[..]).take(1 << 30);
            std::io::copy(&mut inflated, &mut text).unwrap();
        } else {
            text = bytes;
        }
        let mut doc = Doc::new();
        let mut at = 0;
        while at < text.len() {
            at = doc.scan(&text, at).unwrap();
            let root = doc.root(&text);
            match root.get("Records") {
                Some(list) => list.children().for_each(|r| each(r.raw(), r)),
                None => each(root.raw(), root),
            }
            at = event::json::skip_space(&text, at);
        }
    }
}

fn check_oracle(rules: &str, oracle: &str) {
    let Some(corpus) = corpus() else { return };
    let set = RuleSet::build(&read(&corpus.join(rules)).unwrap(), &Placeholders::new()).unwrap();
    let engine = Engine::new(&set);
    let mut scratch = Scratch::new();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut events = BTreeSet::new();
    records(&corpus.join("events"), &mut |raw, _| {
        let doc = Doc::parse(raw).unwrap();
        let root = doc.root(raw);
        let Some(id) = root.text_at(&["eventID"]) else {
            return;
        };
        if !events.insert(id.to_string()) {
            return;
        }
        let event = Event {
            source: "aws.cloudtrail".into(),
            ..Event::default()
        };
        for rule in engine.matches(&event, Some(root), &mut scratch) {
            found
                .entry(engine.info(*rule).id.clone())
                .or_default()
                .insert(id.to_string());
        }
    });
    let expected = std::fs::read_to_string(corpus.join("oracle").join(oracle)).unwrap();
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in expected.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        if line.get("summary").is_some() {
            assert_eq!(line["events_distinct"], events.len());
            assert_eq!(line["rules"], set.rules.len());
            continue;
        }
        let ids = line["event_ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i.as_str().unwrap().to_owned())
            .collect();
        wanted.insert(line["rule_id"].as_str().unwrap().to_owned(), ids);
    }
    assert_eq!(found, wanted);
}

#[test]
fn sigma_aws_rules_match_what_the_oracle_says() {
    check_oracle("sigma/cloud/rules/cloud/aws", "sigma_aws_matches.jsonl");
}

#[test]
fn suzaku_aws_rules_match_what_the_oracle_says() {
    check_oracle("sigma/suzaku-aws", "suzaku_aws_matches.jsonl");
}

#[test]
fn windows_regression_cases() {
    let Some(corpus) = corpus() else { return };
    let text = std::fs::read_to_string(corpus.join("sigma/regression_windows.jsonl")).unwrap();
    let mut cases = 0;
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let file = RuleFile {
            path: case["rule_path"].as_str().unwrap().into(),
            text: case["rule_yaml"].as_str().unwrap().into(),
        };
        let set = RuleSet::build(&[file], &Placeholders::new()).unwrap_or_else(|e| panic!("{e}"));
        let engine = Engine::new(&set);
        let mut scratch = Scratch::new();
        let mut count = 0;
        for (i, event) in case["events"].as_array().unwrap().iter().enumerate() {
            let raw = serde_json::to_vec(event).unwrap();
            let doc = Doc::parse(&raw).unwrap();
            let event = Event {
                id: Id(i as u128),
                source: "unknown".into(),
                ..Event::default()
            };
            count += usize::from(
                !engine
                    .matches(&event, Some(doc.root(&raw)), &mut scratch)
                    .is_empty(),
            );
        }
        assert_eq!(
            count as u64,
            case["oracle_count"].as_u64().unwrap(),
            "{} {}",
            case["title"],
            case["rule_path"]
        );
        cases += 1;
    }
    assert_eq!(cases, 117);
}

/// Every document is loaded or named among the problems: none disappears.
#[test]
fn every_public_rule_loads_or_is_refused_for_a_reason() {
    let Some(corpus) = corpus() else { return };
    let mut summary = BTreeMap::new();
    let placeholders = Placeholders::new();
    for folder in [
        "cloud/deprecated",
        "cloud/rules",
        "cloud/rules-placeholder",
        "cloud/rules-threat-hunting",
        "cloud/unsupported",
        "correlation-suzaku",
        "parse",
        "suzaku-aws",
    ] {
        let files = read(&corpus.join("sigma").join(folder)).unwrap();
        let (set, problems) = RuleSet::check(&files, &placeholders);
        let errors: Vec<_> = problems
            .iter()
            .filter(|p| p.weight == detect::error::Weight::Error)
            .collect();
        let refused: BTreeSet<_> = errors.iter().map(|p| &p.path).collect();
        for file in &files {
            let loaded = set.rules.iter().any(|r| r.info.file == file.path)
                || set.correlations.iter().any(|c| c.info.file == file.path);
            assert!(
                loaded || refused.contains(&file.path) || set.duplicates > 0,
                "{} is neither loaded nor refused",
                file.path
            );
        }
        for error in &errors {
            eprintln!(
                "{folder}: {} {}",
                error.path.rsplit('/').next().unwrap(),
                error.message
            );
        }
        summary.insert(
            folder,
            [
                files.len(),
                set.rules.len(),
                set.correlations.len(),
                refused.len(),
                set.duplicates,
            ],
        );
    }
    // Files, rules, correlations, refused files, duplicates. Refused are unknown placeholders and the old pipes.
    let expected = [
        ("cloud/deprecated", [5, 2, 0, 3, 0]),
        ("cloud/rules", [122, 122, 0, 0, 0]),
        ("cloud/rules-placeholder", [2, 0, 0, 2, 0]),
        ("cloud/rules-threat-hunting", [2, 2, 0, 0, 0]),
        ("cloud/unsupported", [6, 0, 0, 6, 0]),
        ("correlation-suzaku", [2, 3, 2, 0, 0]),
        ("parse", [660, 660, 0, 0, 0]),
        ("suzaku-aws", [435, 435, 0, 0, 0]),
    ];
    assert_eq!(summary, BTreeMap::from(expected));
}
