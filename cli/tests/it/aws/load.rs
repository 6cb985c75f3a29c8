//! Objects of CloudTrail, and how AWS tells of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use bus::{Bus, Topic};
use serde_json::{Value, json};

use super::moto::encoded;
use crate::program::corpus;

/// Objects lie in two buckets, one of them under a prefix with a space and more than one level.
pub(super) const BUCKETS: [&str; 2] = ["trail-bucket", "other-trail"];

/// A small generator (splitmix64), so that a failing seed can be run again.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn shuffle<T>(&mut self, all: &mut [T]) {
        for i in (1..all.len()).rev() {
            all.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) bucket: String,
    pub(super) key: String,
}

/// What the generator wrote.
pub(super) struct Load {
    pub(super) objects: BTreeMap<Place, Vec<u8>>,
    /// The ids of all events that can be read.
    pub(super) ids: BTreeSet<String>,
    by_place: BTreeMap<Place, BTreeSet<String>>,
    /// Object and reason of what cannot.
    pub(super) bad: BTreeSet<(String, String)>,
    /// The objects that are broken on purpose.
    pub(super) broken: BTreeSet<Place>,
    /// What S3 keeps beside the digests, by object.
    pub(super) signatures: BTreeMap<Place, BTreeMap<String, String>>,
    /// The keys with which they are signed, as CloudTrail tells of them.
    pub(super) keys: Value,
}

impl Load {
    /// Events of one day in so many accounts and regions, 5 % of them twice, with digests and broken objects; `None`
    /// where there is no generator.
    pub(super) fn generate(
        events: usize,
        seed: u64,
        accounts: usize,
        regions: usize,
    ) -> Option<Load> {
        let corpus = corpus()?;
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("python3")
            .arg(corpus.join("../tools/gen_cloudtrail.py"))
            .args(["--events", &events.to_string(), "--seed", &seed.to_string()])
            .args(["--accounts", &accounts.to_string()])
            .args(["--regions", &regions.to_string()])
            .args([
                "--digest",
                "--dup-rate",
                "0.05",
                "--corrupt",
                "20",
                "--templates",
            ])
            .arg(corpus.join("events"))
            .arg("--out")
            .arg(folder.path())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let mut files = Vec::new();
        collect(&folder.path().join("AWSLogs"), &mut files);
        let mut load = Load {
            objects: BTreeMap::new(),
            ids: BTreeSet::new(),
            by_place: BTreeMap::new(),
            bad: BTreeSet::new(),
            broken: BTreeSet::new(),
            signatures: BTreeMap::new(),
            keys: json_of(&folder.path().join("public_keys.json")),
        };
        let broken = std::fs::read_to_string(folder.path().join("corrupt.jsonl")).unwrap();
        let broken: BTreeMap<String, Value> = broken
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap())
            .map(|v| (v["file"].as_str().unwrap().to_owned(), v))
            .collect();
        for path in files {
            let relative = path
                .strip_prefix(folder.path())
                .unwrap()
                .display()
                .to_string();
            if let Some(digest) = relative.strip_suffix(".sig.json") {
                let place = place_of(&format!("{digest}.json.gz"));
                let signature = serde_json::from_value(json_of(&path)).unwrap();
                load.signatures.insert(place, signature);
                continue;
            }
            let place = place_of(&relative);
            let content = std::fs::read(&path).unwrap();
            match broken.get(&relative) {
                None => {
                    let ids = ids(&content);
                    load.ids.extend(ids.iter().cloned());
                    load.by_place.insert(place.clone(), ids);
                }
                Some(truth) => {
                    load.broken.insert(place.clone());
                    let name = format!("s3://{}/{}", place.bucket, place.key);
                    let reason = match truth["kind"].as_str().unwrap() {
                        "truncated_gzip" => Some("corrupt_gzip"),
                        "bad_json" => Some("bad_json"),
                        "no_records_key" | "zero_bytes" | "one_bad_record" => {
                            Some("unknown_object")
                        }
                        "not_gzip" | "empty_records" => None,
                        other => panic!("{other} is new"),
                    };
                    load.bad.extend(reason.map(|r| (name, r.to_owned())));
                }
            }
            load.objects.insert(place, content);
        }
        Some(load)
    }

    /// Some of the records as EventBridge brings them: in another order and spacing than they have in their files.
    pub(super) fn tee(&self, many: usize) -> Vec<String> {
        let mut messages = Vec::new();
        for place in self.by_place.keys().filter(|p| !self.ids_of(p).is_empty()) {
            let records = records(&self.objects[place]);
            let detail: BTreeMap<String, Value> =
                serde_json::from_value(records[0].clone()).unwrap();
            let event = json!({
                "version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": "AWS API Call via CloudTrail",
                "source": "aws.iam", "account": "111122223333", "time": "2026-03-02T09:05:00Z", "region": "us-east-1",
                "resources": [], "detail": detail,
            });
            messages.push(serde_json::to_string_pretty(&event).unwrap());
            if messages.len() == many {
                break;
            }
        }
        messages
    }

    /// The place of a file as it is called in messages and findings.
    pub(super) fn log_files(&self) -> Vec<Place> {
        let of_events = self.by_place.iter().filter(|(_, ids)| !ids.is_empty());
        of_events.map(|(place, _)| place.clone()).collect()
    }

    pub(super) fn ids_of(&self, place: &Place) -> BTreeSet<String> {
        self.by_place.get(place).cloned().unwrap_or_default()
    }

    /// Messages that tell of every object once, each in a shape drawn at random.
    pub(super) fn notifications(&self, random: &mut Random) -> Vec<String> {
        let mut places: Vec<&Place> = self.objects.keys().collect();
        random.shuffle(&mut places);
        let mut messages = Vec::new();
        while !places.is_empty() {
            let many = (1 + random.below(3) as usize).min(places.len());
            let some: Vec<&Place> = places.drain(..many).collect();
            let wrap = random.below(2) == 0;
            match random.below(3) {
                // S3 tells of several objects at once, of several buckets perhaps.
                0 => {
                    let records: Vec<Value> = some.iter().map(|p| of_s3(p)).collect();
                    messages.push(wrapped(json!({"Records": records}).to_string(), wrap));
                }
                // CloudTrail too, of one bucket.
                1 => {
                    for bucket in BUCKETS {
                        let keys: Vec<&str> = some
                            .iter()
                            .filter(|p| p.bucket == bucket)
                            .map(|p| p.key.as_str())
                            .collect();
                        if !keys.is_empty() {
                            let told = json!({"s3Bucket": bucket, "s3ObjectKey": keys});
                            messages.push(wrapped(told.to_string(), wrap));
                        }
                    }
                }
                _ => messages.extend(some.iter().map(|p| wrapped(of_eventbridge(p), wrap))),
            }
        }
        messages
    }
}

/// Where a file of the generator goes.
fn place_of(relative: &str) -> Place {
    let second = relative.contains("/eu-west-1/");
    Place {
        bucket: BUCKETS[usize::from(second)].to_owned(),
        key: match second {
            true => format!("audit trail/org+1/{relative}"),
            false => relative.to_owned(),
        },
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// An event notification of S3, version 2.6: the key is encoded as in a form.
fn of_s3(place: &Place) -> Value {
    json!({
        "eventVersion": "2.6", "eventSource": "aws:s3", "awsRegion": "us-east-1",
        "eventTime": "2026-03-02T09:05:00.000Z", "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AROAEXAMPLE"}, "requestParameters": {"sourceIPAddress": "198.18.0.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810"},
        "s3": {"s3SchemaVersion": "1.0", "configurationId": "trail",
               "bucket": {"name": place.bucket, "arn": format!("arn:aws:s3:::{}", place.bucket)},
               "object": {"key": encoded(&place.key).replace("%20", "+"), "size": 1, "sequencer": "0055AED6DCD90281E5"}},
    })
}

/// The event of EventBridge: the key is as it is.
fn of_eventbridge(place: &Place) -> String {
    json!({
        "version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": "Object Created",
        "source": "aws.s3", "account": "111122223333", "time": "2026-03-02T09:05:00Z", "region": "us-east-1",
        "resources": [format!("arn:aws:s3:::{}", place.bucket)],
        "detail": {"version": "0", "bucket": {"name": place.bucket}, "object": {"key": place.key, "size": 1, "sequencer": "0061"},
                   "request-id": "N4N7GDK58NMKJ12R", "requester": "123456789012", "reason": "PutObject"},
    })
    .to_string()
}

/// As SNS hands it on, unless raw delivery is on.
fn wrapped(message: String, wrap: bool) -> String {
    if !wrap {
        return message;
    }
    json!({
        "Type": "Notification", "MessageId": "8a1e2f0c-5f6b-5b3e-9c4e-3d1c6a2b7e90",
        "TopicArn": "arn:aws:sns:us-east-1:111122223333:trail", "Message": message,
        "Timestamp": "2026-03-02T09:05:00.000Z", "SignatureVersion": "1", "Signature": "x",
    })
    .to_string()
}

/// Messages that tell of no object: those with which AWS tries the way, of other happenings, and of nothing at all.
pub(super) fn oddities() -> Vec<String> {
    vec![
        json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-03-02T09:05:00.000Z", "Bucket": BUCKETS[0]}).to_string(),
        json!({"Records": [{"eventVersion": "2.1", "eventName": "ObjectRemoved:Delete", "s3": {"bucket": {"name": BUCKETS[0]}, "object": {"key": "x"}}}]}).to_string(),
        "CloudTrail validation message.".to_owned(),
    ]
}

/// The objects that a message tells of.
pub(super) fn told_of(message: &str) -> Vec<Place> {
    match ingest::source::notification::read(message) {
        ingest::source::notification::Notification::Objects(objects) => objects
            .into_iter()
            .map(|o| Place {
                bucket: o.bucket.to_string(),
                key: o.key.to_string(),
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The records of an object, read without the program.
fn records(content: &[u8]) -> Vec<Value> {
    let mut text = String::new();
    let mut inflated = flate2::read::GzDecoder::new(content);
    inflated.read_to_string(&mut text).unwrap();
    let object: Value = serde_json::from_str(&text).unwrap();
    object["Records"].as_array().cloned().unwrap_or_default()
}

/// The ids in an object.
fn ids(content: &[u8]) -> BTreeSet<String> {
    let records = records(content);
    let ids = records.iter().filter_map(|r| r["eventID"].as_str());
    ids.map(str::to_owned).collect()
}

/// The ids of all events on the log of a service that does not run.
pub(super) fn ids_on_log(data: &Path) -> BTreeSet<String> {
    let bus = bus::embedded::EmbeddedBus::open(&data.join("log"), bus::config::Options::default());
    let bus = bus.unwrap();
    let mut ids = BTreeSet::new();
    for partition in 0..bus.partitions(Topic::Events) {
        let mut from = bus.bounds(Topic::Events, partition).unwrap().start;
        loop {
            let batch = bus.read(Topic::Events, partition, from, 8 << 20).unwrap();
            if batch.records.is_empty() {
                break;
            }
            from = batch.next;
            for (_, record) in batch.records {
                let event = event::Event::decode(&record.value).unwrap();
                ids.insert(event.source_id.to_string());
            }
        }
    }
    ids
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push(path),
        }
    }
    files.sort();
}
