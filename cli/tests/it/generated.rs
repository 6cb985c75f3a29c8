//! Generated days of CloudTrail and of function logs, with the truth beside them: every attack and incident that can be
//! found is found by a shipped rule of its kind, and no decoy is taken for what it looks like.
//!
//! `docs/detections.md` says which rules answer for which kind, and is read here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::program::{command, corpus, count};

/// Kind of attack or incident to the titles of the rules that find it, from the table in the handbook.
fn expected() -> BTreeMap<String, BTreeSet<String>> {
    let handbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/detections.md");
    let text = std::fs::read_to_string(handbook).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let found: BTreeMap<_, _> = rows
        .map(|row| {
            let (kind, rest) = row.split_once("` | ").unwrap();
            let titles = rest.trim_end_matches(" |").split(" · ");
            (kind.to_owned(), titles.map(str::to_owned).collect())
        })
        .collect();
    assert!(found.len() > 12, "the table was not understood: {found:?}");
    found
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Does this finding speak of what the truth tells: of one of its events, or of its function at its time?
fn is_about(finding: &Value, truth: &Value) -> bool {
    if let Some(events) = truth["event_ids"].as_array().filter(|ids| !ids.is_empty()) {
        let ids = finding["event_ids"].as_array().unwrap();
        return ids.iter().any(|id| events.contains(id));
    }
    let of_function = word(finding, "function") == word(truth, "function");
    of_function
        && word(finding, "time") <= word(truth, "end")
        && word(finding, "last_event_time") >= word(truth, "start")
}

fn check(tool: &str, args: &[&str], logs: &str, expected: &BTreeMap<String, BTreeSet<String>>) {
    let Some(corpus) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    let events = corpus.join("events").display().to_string();
    let made = Command::new("python3")
        .arg(corpus.join(format!("../tools/{tool}.py")))
        .args(args)
        .args(if tool == "gen_cloudtrail" {
            vec!["--templates", &events, "--attack-dir", &events]
        } else {
            Vec::new()
        })
        .arg("--out")
        .arg(folder.path())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    let output = command()
        .args(["hunt", "--format", "jsonl"])
        .arg(folder.path().join(logs))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let findings: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let mut wrong = Vec::new();
    for truth in lines(&folder.path().join("truth.jsonl")) {
        let kind = word(&truth, "kind");
        let is = |key: &str| truth[key].as_bool().unwrap_or(false);
        let found: BTreeSet<&str> = findings
            .iter()
            .filter(|f| is_about(f, &truth))
            .filter(|f| !is("decoy") || !matches!(word(f, "severity"), "low" | "informational"))
            .map(|f| word(f, "title"))
            .collect();
        // Replays of detonations are any rule's to find.
        let own = |title: &&str| {
            expected
                .get(kind)
                .is_none_or(|titles| titles.contains(*title))
        };
        let answered = found.iter().any(own);
        if is("decoy") && answered {
            wrong.push(format!("decoy {kind} {}: {found:?}", truth["id"]));
        } else if !is("decoy") && is("detectable") && !answered {
            wrong.push(format!("missed {kind} {}: {found:?}", truth["id"]));
        }
    }
    assert!(wrong.is_empty(), "{args:?}\n{}", wrong.join("\n"));
}

#[test]
fn what_can_be_found_in_generated_logs_is_found() {
    let expected = expected();
    let seeds = count("TRAILWARDEN_GENERATED", 2);
    for seed in 1..=seeds {
        let seed = (seed * 101).to_string();
        let common = ["--seed", seed.as_str(), "--events", "40000"];
        check(
            "gen_cloudtrail",
            &[&common[..], &["--attacks", "16"]].concat(),
            "AWSLogs",
            &expected,
        );
        let common = [
            "--seed",
            seed.as_str(),
            "--events",
            "100000",
            "--hours",
            "24",
        ];
        check("gen_lambda", &common, "payloads", &expected);
    }
}
