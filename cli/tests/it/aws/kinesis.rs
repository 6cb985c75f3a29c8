//! Streams of Kinesis: payloads and plain records, resharding, restarts, and what a stream has dropped.
//!
//! moto plays a stream that stays as it is. It moves records about when a shard is split and never closes one, so that
//! a stream that changes is played here, as the documentation of Kinesis tells of it.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::load::Random;
use super::moto::{Call, Fate, Moto, Proxy};
use super::{CREDENTIALS, dead_letters, documented, indexed};
use crate::program::{PATIENCE, Service, count};

/// What a record of a subscription holds: lines with these ids.
fn payload(stream: &str, ids: &[String]) -> Vec<u8> {
    let event = |id: &String| json!({"id": id, "timestamp": 1_772_452_800_000_i64, "message": format!("line {id}")});
    let payload = json!({
        "messageType": "DATA_MESSAGE", "owner": "111122223333", "logGroup": "/aws/lambda/shop", "logStream": stream,
        "subscriptionFilters": ["all"], "logEvents": ids.iter().map(event).collect::<Vec<_>>(),
    });
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(payload.to_string().as_bytes()).unwrap();
    gzip.finish().unwrap()
}

fn start(folder: &tempfile::TempDir, proxy: &Proxy) -> Service {
    let config = folder.path().join("config.yaml");
    let proxy = proxy.address;
    std::fs::write(
        &config,
        format!("search: {{publish_after_ms: 300}}\ningest:\n  streams:\n    - stream: logs\n      aws: {{region: us-east-1, endpoint_url: 'http://{proxy}'}}\n"),
    )
    .unwrap();
    Service::start_in("service", &config, &data(folder), &[], CREDENTIALS)
}

fn data(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("data")
}

fn until(service: &Service, expected: &BTreeSet<String>) {
    let begin = Instant::now();
    loop {
        let found = indexed(service);
        if found.is_superset(expected) {
            assert_eq!(found, *expected);
            return;
        }
        let missing: Vec<_> = expected.difference(&found).take(5).collect();
        assert!(begin.elapsed() < PATIENCE, "missing: {missing:?}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn payloads_and_plain_records_of_two_shards_are_read_once() {
    let Some(moto) = Moto::start() else {
        return;
    };
    let proxy = Proxy::before(&moto);
    let folder = tempfile::tempdir().unwrap();
    moto.kinesis(
        "CreateStream",
        &json!({"StreamName": "logs", "ShardCount": 2}),
    );
    let mut next = 0;
    let mut expected = BTreeSet::new();
    let mut put = |many: usize| {
        for n in 0..many {
            let ids: Vec<String> = (0..5).map(|i| format!("id-{}", next + i)).collect();
            next += 5;
            let data = BASE64.encode(payload(&format!("stream-{n}"), &ids));
            expected.extend(ids);
            let key = format!("key-{n}");
            moto.kinesis(
                "PutRecord",
                &json!({"StreamName": "logs", "Data": data, "PartitionKey": key}),
            );
        }
        expected.clone()
    };
    let one = |data: &[u8]| {
        let data = BASE64.encode(data);
        moto.kinesis(
            "PutRecord",
            &json!({"StreamName": "logs", "Data": data, "PartitionKey": "x"}),
        );
    };
    // A probe, a record of nobody's format, one without a name for what it is, and a broken one.
    one(br#"{"messageType":"CONTROL_MESSAGE","owner":"CloudwatchLogs","logGroup":"","logStream":"","subscriptionFilters":[],"logEvents":[{"id":"","timestamp":1772452800000,"message":"CWL CONTROL MESSAGE: Checking health of destination Kinesis stream."}]}"#);
    one(br#"{"time":"2026-03-02T10:00:00Z","who":"an application","did":"plain"}"#);
    one(b"\x1f\x8b\x08\x00broken");
    let mut random = Random(23);
    for _ in 0..count("TRAILWARDEN_KILLS", 20) / 5 {
        put(20);
        let service = start(&folder, &proxy);
        std::thread::sleep(Duration::from_millis(100 + random.below(2_000)));
        service.kill();
    }
    let service = start(&folder, &proxy);
    let expected = put(20);
    until(&service, &expected);
    service.settle_stages(expected.len() as u64, PATIENCE);
    let plain = service.get("/api/v1/search?q=source:unknown&limit=10&count=true");
    assert_eq!(plain["total"], 1, "{plain}");
    let metrics = service.metrics();
    assert!(metrics.contains("trailwarden_match_errors_total{kind=\"id_conflict\"} 0"));
    assert!(metrics.contains("trailwarden_ingest_stream_lag_seconds{stream=\"logs\"} 0"));
    assert_eq!(service.stop(), Some(0));
    // What was acknowledged by a checkpoint is not read again.
    let before = proxy.of("kinesis:GetShardIterator").len();
    let service = start(&folder, &proxy);
    let begin = Instant::now();
    while proxy.of("kinesis:GetShardIterator").len() < before + 2 {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(100));
    }
    let calls = proxy.of("kinesis:GetShardIterator");
    assert!(
        calls[before..]
            .iter()
            .all(|c| c.body.contains("AFTER_SEQUENCE_NUMBER"))
    );
    assert_eq!(service.stop(), Some(0));
    let reasons: BTreeSet<String> = dead_letters(&data(&folder))
        .into_iter()
        .map(|(object, reason)| {
            assert!(
                object.starts_with("kinesis://us-east-1/logs/shardId-"),
                "{object}"
            );
            reason
        })
        .collect();
    assert_eq!(reasons, BTreeSet::from(["corrupt_gzip".to_owned()]));
    let made = documented(&proxy);
    for action in [
        "ListShards",
        "GetShardIterator",
        "GetRecords",
        "DescribeStreamSummary",
    ] {
        assert!(made.contains(&format!("kinesis:{action}")), "{made:?}");
    }
}

/// A shard as it is played.
#[derive(Default)]
struct Shard {
    parents: Vec<usize>,
    /// Number and content.
    records: Vec<(usize, Vec<u8>)>,
    closed: bool,
    /// Records before this number are gone.
    trimmed: usize,
    /// Has somebody been told of its end?
    ended: bool,
    /// Is it older than what the stream keeps, so that it is not listed any more?
    expired: bool,
    /// When it was asked for records.
    asked: Vec<Instant>,
}

/// A stream as it is played.
#[derive(Default)]
struct Stream {
    shards: Vec<Shard>,
    next: usize,
    /// So many of the next calls for records are answered so.
    refuse: Vec<&'static str>,
    /// Iterators that are not taken any more end with another number.
    iterators: usize,
    wrong: Vec<String>,
}

/// Longer than any integer, as those of Kinesis are.
fn sequence(number: usize) -> String {
    format!("49590338271490256608559692538361571095921575989136{number:06}")
}

fn number(sequence: &str) -> usize {
    sequence[sequence.len() - 6..].parse().unwrap()
}

fn shard_id(number: usize) -> String {
    format!("shardId-{number:012}")
}

impl Stream {
    fn shard(&mut self, parents: &[usize]) -> usize {
        for parent in parents {
            self.shards[*parent].closed = true;
        }
        self.shards.push(Shard {
            parents: parents.to_vec(),
            ..Shard::default()
        });
        self.shards.len() - 1
    }

    fn put(&mut self, shard: usize, many: usize) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for _ in 0..many {
            self.next += 1;
            let ids = vec![format!("id-{}", self.next)];
            let content = payload(&format!("stream-{shard}"), &ids);
            self.shards[shard].records.push((self.next, content));
            all.extend(ids);
        }
        all
    }

    fn answer(&mut self, call: &Call) -> Fate {
        let body: Value = serde_json::from_str(&call.body).unwrap_or_default();
        let refused = |kind: &str| {
            let body = json!({"__type": kind, "message": "as the test says"});
            Fate::Answer(400, body.to_string())
        };
        let good = |body: Value| Fate::Answer(200, body.to_string());
        match call.action.as_str() {
            "kinesis:ListShards" => {
                let kept = self.shards.iter().enumerate().filter(|(_, s)| !s.expired);
                let shards = kept.map(|(n, shard)| {
                    let mut told = json!({"ShardId": shard_id(n), "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "1"},
                        "SequenceNumberRange": {"StartingSequenceNumber": sequence(0)}});
                    for (key, parent) in ["ParentShardId", "AdjacentParentShardId"].iter().zip(&shard.parents) {
                        told[key] = shard_id(*parent).into();
                    }
                    told
                });
                good(json!({"Shards": shards.collect::<Vec<_>>()}))
            }
            "kinesis:DescribeStreamSummary" => refused("AccessDeniedException"),
            "kinesis:GetShardIterator" => {
                let shard: usize = body["ShardId"].as_str().unwrap()[8..].parse().unwrap();
                for parent in &self.shards[shard].parents {
                    if !self.shards[*parent].ended && !self.shards[*parent].expired {
                        let early = format!("shard {shard} before the end of {parent}");
                        self.wrong.push(early);
                    }
                }
                let after = match body["StartingSequenceNumber"].as_str().map(number) {
                    Some(after) if after < self.shards[shard].trimmed => {
                        return refused("InvalidArgumentException");
                    }
                    after => after.unwrap_or(0),
                };
                good(json!({"ShardIterator": format!("{shard} {after} {}", self.iterators)}))
            }
            "kinesis:GetRecords" => {
                let iterator = body["ShardIterator"].as_str().unwrap();
                let parts: Vec<usize> = iterator.split(' ').map(|p| p.parse().unwrap()).collect();
                self.shards[parts[0]].asked.push(Instant::now());
                if let Some(kind) = self.refuse.pop() {
                    if kind == "ExpiredIteratorException" {
                        self.iterators += 1;
                    }
                    return refused(kind);
                }
                if parts[2] != self.iterators {
                    return refused("ExpiredIteratorException");
                }
                let shard = &mut self.shards[parts[0]];
                let left = shard
                    .records
                    .iter()
                    .filter(|(n, _)| *n > parts[1] && *n >= shard.trimmed);
                let batch: Vec<_> = left.take(3).collect();
                let last = batch.last().map_or(parts[1], |(n, _)| *n);
                let more = shard.records.last().is_some_and(|(n, _)| *n > last);
                let records: Vec<Value> = batch.iter().map(|(n, content)| json!({
                    "Data": BASE64.encode(content), "PartitionKey": "k", "SequenceNumber": sequence(*n),
                })).collect();
                let mut told =
                    json!({"Records": records, "MillisBehindLatest": if more { 5_000 } else { 0 }});
                if shard.closed && !more {
                    shard.ended = true;
                } else {
                    told["NextShardIterator"] =
                        format!("{} {last} {}", parts[0], self.iterators).into();
                }
                good(told)
            }
            _ => Fate::Through,
        }
    }
}

#[test]
fn shards_are_read_in_order_and_what_is_gone_is_said() {
    let Some(moto) = Moto::start() else {
        return;
    };
    let proxy = Proxy::before(&moto);
    let folder = tempfile::tempdir().unwrap();
    let stream = Arc::new(Mutex::new(Stream::default()));
    let played = Arc::clone(&stream);
    proxy.judge(move |call| played.lock().unwrap().answer(call));
    let mut expected = BTreeSet::new();
    let with =
        |change: &dyn Fn(&mut Stream) -> BTreeSet<String>| change(&mut stream.lock().unwrap());
    expected.extend(with(&|s| {
        s.shard(&[]);
        s.shard(&[]);
        s.put(0, 40).into_iter().chain(s.put(1, 10)).collect()
    }));
    let service = start(&folder, &proxy);
    std::thread::sleep(Duration::from_secs(1));
    // Split while it is read, before all of it was; the calls in between are refused in every way that passes.
    expected.extend(with(&|s| {
        let children = [s.shard(&[0]), s.shard(&[0])];
        s.refuse = vec![
            "ProvisionedThroughputExceededException",
            "ExpiredIteratorException",
            "InternalFailureException",
            "ExpiredIteratorException",
        ];
        children.into_iter().flat_map(|c| s.put(c, 10)).collect()
    }));
    until(&service, &expected);
    // Merged again.
    expected.extend(with(&|s| {
        let child = s.shard(&[2, 3]);
        s.put(child, 10)
    }));
    until(&service, &expected);
    assert_eq!(service.stop(), Some(0));
    // While nobody reads, the stream goes on, and forgets.
    let dropped = with(&|s| s.put(1, 5));
    expected.extend(with(&|s| {
        let kept = s.put(1, 5);
        s.shards[1].trimmed = s.next - 4;
        kept
    }));
    let trimmed_once = |service: Service, expected: &BTreeSet<String>| {
        until(&service, expected);
        let metrics = service.metrics();
        let counted = "trailwarden_ingest_errors_total{kind=\"trimmed\"} 1";
        assert!(metrics.contains(counted), "{metrics}");
        service.settle_stages(expected.len() as u64, PATIENCE);
        assert_eq!(service.stop(), Some(0));
    };
    trimmed_once(start(&folder, &proxy), &expected);
    assert_eq!(dropped.len(), 5);
    // A whole shard too, before it was read to its end: its child is read, and what is lost is said once.
    expected.extend(with(&|s| {
        s.put(1, 5);
        let child = s.shard(&[1]);
        s.shards[1].expired = true;
        s.put(child, 5)
    }));
    trimmed_once(start(&folder, &proxy), &expected);
    let service = start(&folder, &proxy);
    expected.extend(with(&|s| s.put(5, 5)));
    until(&service, &expected);
    assert!(!service.metrics().contains("kind=\"trimmed\""));
    assert_eq!(service.stop(), Some(0));

    let stream = stream.lock().unwrap();
    assert_eq!(stream.wrong, Vec::<String>::new());
    assert!(stream.refuse.is_empty());
    for shard in &stream.shards {
        // Five calls a second are allowed to all readers together.
        for six in shard.asked.windows(6) {
            let took = six[5] - six[0];
            assert!(took >= Duration::from_millis(900), "six calls in {took:?}");
        }
    }
    // What was read to its end is not asked for again.
    let ended = format!("\"{}\"", shard_id(0));
    let iterators = proxy.of("kinesis:GetShardIterator").into_iter();
    let of_ended: Vec<Call> = iterators.filter(|c| c.body.contains(&ended)).collect();
    assert!(of_ended.len() <= 4, "{of_ended:?}");
}
