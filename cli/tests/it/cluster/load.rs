//! A load: every public CloudTrail event that has a time and an id, and as many generated ones as one wants.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::DateTime;
use serde_json::Value;

use crate::program::corpus;

/// How far events are moved against one another, in seconds: less than the allowed lateness of an hour.
const DISORDER: u64 = 1_500;

/// How many seconds of their time records wait for one another.
const WAIT: i64 = 900;

/// How many records go into one body.
const BODY: usize = 250;

/// Records with their event times in seconds.
pub(super) struct Load {
    items: Vec<(i64, Item)>,
    /// How many different events there are.
    pub(super) events: u64,
}

#[derive(Clone)]
enum Item {
    Record(String),
    Payload(String),
}

/// A small generator (splitmix64), so that a failing seed can be run again.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) % n
    }
}

impl Load {
    /// Public events and about as many generated ones: two thirds CloudTrail, one third lines of functions. `None`
    /// where the corpus is not there.
    pub(super) fn generate(events: usize, seed: u64) -> Option<Load> {
        let corpus = corpus()?;
        let folder = tempfile::tempdir().unwrap();
        let tool = |name: &str, args: &[&str]| {
            let out = folder.path().join(name);
            let status = Command::new("python3")
                .arg(corpus.join(format!("../tools/{name}.py")))
                .arg("--out")
                .arg(&out)
                .args(["--seed", &seed.to_string()])
                .args(args)
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            assert!(status.success(), "{name}");
            out
        };
        let templates = corpus.join("events").display().to_string();
        let trail = tool(
            "gen_cloudtrail",
            &[
                "--templates",
                &templates,
                "--attack-dir",
                &templates,
                "--events",
                &(events * 2 / 3).to_string(),
            ],
        );
        let lambda = tool(
            "gen_lambda",
            &["--events", &(events / 3).to_string(), "--hours", "12"],
        );
        let mut load = Load {
            items: Vec::new(),
            events: 0,
        };
        let mut seen = std::collections::BTreeSet::new();
        for path in files(&corpus.join("events"))
            .into_iter()
            .chain(files(&trail.join("AWSLogs")))
        {
            for record in records(&text(&path)) {
                load.record(record, &mut seen);
            }
        }
        for path in files(&lambda.join("payloads")) {
            for line in text(&path).lines() {
                load.payload(line);
            }
        }
        load.items.sort_by_key(|(time, _)| *time);
        // A day later something happens, so that everything before is settled.
        let last = load.items.last().map_or(0, |(time, _)| *time);
        let later = DateTime::from_timestamp(last + 86_400, 0).unwrap();
        let record = serde_json::json!({
            "eventVersion": "1.08", "eventID": "the-last-one", "eventTime": later.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "eventSource": "ec2.amazonaws.com", "eventName": "DescribeInstances", "awsRegion": "us-east-1",
            "recipientAccountId": "123456789012", "userIdentity": {"type": "AWSService", "invokedBy": "autoscaling.amazonaws.com"},
        });
        load.record(record, &mut seen);
        Some(load)
    }

    fn record(&mut self, record: Value, seen: &mut std::collections::BTreeSet<(String, String)>) {
        let word = |name: &str| record[name].as_str().map(str::to_owned);
        let (Some(id), Some(time)) = (word("eventID"), word("eventTime")) else {
            // Its id would follow from where it stands in a body, its time from when it came.
            return;
        };
        let Ok(time) = DateTime::parse_from_rfc3339(&time) else {
            return;
        };
        let account = word("recipientAccountId").unwrap_or_default();
        if seen.insert((account, id)) {
            self.events += 1;
            self.items
                .push((time.timestamp(), Item::Record(record.to_string())));
        }
    }

    fn payload(&mut self, line: &str) {
        let payload: Value = serde_json::from_str(line).unwrap();
        let lines = payload["logEvents"].as_array().map_or(0, Vec::len);
        let Some(time) = payload["logEvents"][0]["timestamp"].as_i64() else {
            return;
        };
        if payload["messageType"] == "DATA_MESSAGE" {
            self.events += lines as u64;
            self.items
                .push((time / 1_000, Item::Payload(line.to_owned())));
        }
    }

    /// Bodies in the order of time, without repeats.
    pub(super) fn in_order(&self) -> Vec<String> {
        bodies(self.items.iter().cloned())
    }

    /// Bodies in another order, never further from the right one than the allowed lateness, and some twice.
    pub(super) fn shuffled(&self, seed: u64, repeats: f64) -> Vec<String> {
        let mut random = Random(seed);
        let mut items = self.items.clone();
        let often = (repeats * 1_000.0) as u64;
        for (time, item) in &self.items {
            if random.below(1_000) < often {
                items.push((*time, item.clone()));
            }
        }
        for (time, _) in &mut items {
            *time += random.below(DISORDER) as i64;
        }
        items.sort_by_key(|(time, _)| *time);
        bodies(items.into_iter())
    }
}

/// Records that follow one another are one body, and so are payloads; none waits for longer than [`WAIT`] of its time.
fn bodies(items: impl Iterator<Item = (i64, Item)>) -> Vec<String> {
    let mut out = Vec::new();
    let (mut records, mut payloads) = (Vec::new(), Vec::new());
    let mut since = i64::MIN;
    for (time, item) in items {
        if time > since.saturating_add(WAIT) || records.len() + payloads.len() >= BODY {
            flush(&mut records, &mut payloads, &mut out);
            since = time;
        }
        match item {
            Item::Record(text) => records.push(text),
            Item::Payload(line) => payloads.push(line),
        }
    }
    flush(&mut records, &mut payloads, &mut out);
    out
}

fn flush(records: &mut Vec<String>, payloads: &mut Vec<String>, out: &mut Vec<String>) {
    if !records.is_empty() {
        out.push(format!("{{\"Records\":[{}]}}", records.join(",")));
    }
    if !payloads.is_empty() {
        out.push(payloads.join("\n"));
    }
    records.clear();
    payloads.clear();
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut out = Vec::new();
        let plain = flate2::read::MultiGzDecoder::new(&bytes[..]);
        std::io::copy(&mut plain.take(1 << 30), &mut out).unwrap();
        bytes = out;
    }
    String::from_utf8(bytes).unwrap()
}

/// The CloudTrail records of a file: a log file, an array, or lines. Other files have none.
fn records(text: &str) -> Vec<Value> {
    match serde_json::from_str(text) {
        Ok(Value::Object(mut file)) => match file.remove("Records") {
            Some(Value::Array(records)) => records,
            _ => vec![Value::Object(file)],
        },
        Ok(Value::Array(records)) => records,
        _ => text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect(),
    }
}
