//! How fast the embedded log is on this machine: `cargo bench -p bus`.
//!
//! Each line is one way of using it, with records of 1.2 KB that look like an audit trail, on a fresh folder in the
//! place for temporary files (set `TMPDIR` to measure another disk). Numbers depend on the disk's fsync more than on
//! anything else; compare lines of one run.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::unwrap_used, reason = "a bench stops at the first failure")]

use std::path::Path;
use std::time::{Duration, Instant};

use bus::embedded::{EmbeddedBus, Options, Partitions};
use bus::{Bus, Commit, Position, Record, Topic, seen};
use bytes::Bytes;
use event::{Id, Time};

const RECORDS: usize = 200_000;
const BATCH: usize = 500;

fn main() {
    println!(
        "{:<58} {:>11} {:>8} {:>9} {:>9}",
        "1.2 KB records", "records/s", "MB/s", "p50 ms", "p99 ms"
    );
    for partitions in [1, 4] {
        let dir = tempfile::tempdir().unwrap();
        let bus = open(dir.path(), partitions);
        let batches = batches(RECORDS, BATCH);
        measure(
            &format!("append events, batches of {BATCH}, {partitions} partitions"),
            BATCH,
            batches,
            |batch| {
                bus.append(Topic::Events, batch).unwrap();
            },
        );
        println!(
            "{:<58} {:>11.2}",
            "  bytes on disk per byte",
            disk_use(dir.path()) as f64 / (RECORDS * 1_200) as f64
        );
        read_back(&bus, partitions);
        drop(bus);
        let started = Instant::now();
        drop(open(dir.path(), partitions));
        println!(
            "{:<58} {:>8.1} ms",
            "  open again",
            started.elapsed().as_secs_f64() * 1e3
        );
    }
    threads(4, RECORDS / 4, BATCH);
    threads(16, 400, 1);
    append_small();
    commits();
}

fn open(dir: &Path, partitions: u32) -> EmbeddedBus {
    let options = Options {
        partitions: Partitions::all(partitions),
        ..Options::default()
    };
    EmbeddedBus::open(dir, options).unwrap()
}

/// An event of which a third is its own and the rest is like the others, as in CloudTrail.
fn record(n: usize) -> Record {
    let id = Id::position("bench", n as u64);
    let other = Id::position("other", n as u64);
    let value = format!(
        r#"{{"eventVersion":"1.09","userIdentity":{{"type":"AssumedRole","principalId":"AROA{id}:worker-{n}","arn":"arn:aws:sts::123456789012:assumed-role/app-{}/worker-{n}","accountId":"123456789012","accessKeyId":"ASIA{other}","sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"AROA","arn":"arn:aws:iam::123456789012:role/app","accountId":"123456789012","userName":"app"}},"attributes":{{"creationDate":"2026-05-01T10:{:02}:00Z","mfaAuthenticated":"false"}}}}}},"eventTime":"2026-05-01T10:{:02}:{:02}Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"eu-central-1","sourceIPAddress":"10.{}.{}.{}","userAgent":"[aws-sdk-rust/1.8 os/linux lang/rust/1.95]","requestParameters":{{"bucketName":"bucket-{}","key":"data/{other}/{n}.parquet"}},"responseElements":null,"requestID":"{other}","eventID":"{id}","readOnly":true,"eventType":"AwsApiCall","managementEvent":false,"recipientAccountId":"123456789012","eventCategory":"Data"}}"#,
        n % 17,
        n % 60,
        n / 60 % 60,
        n % 60,
        n % 250,
        n / 250 % 250,
        n % 100,
        n % 13,
    );
    Record {
        key: Bytes::copy_from_slice(&id.to_bytes()),
        value: Bytes::from(value),
        time: Time::from_seconds(1_780_000_000 + n as i64 / 1_000),
    }
}

fn batches(records: usize, batch: usize) -> Vec<Vec<Record>> {
    let all: Vec<Record> = (0..records).map(record).collect();
    all.chunks(batch).map(<[Record]>::to_vec).collect()
}

fn measure<T>(name: &str, per_call: usize, calls: Vec<T>, mut call: impl FnMut(T)) {
    let count = calls.len();
    let mut took = Vec::with_capacity(count);
    let started = Instant::now();
    for input in calls {
        let before = Instant::now();
        call(input);
        took.push(before.elapsed());
    }
    report(name, count * per_call, started.elapsed(), took);
}

fn report(name: &str, records: usize, elapsed: Duration, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at =
        |share: usize| took[(took.len() * share / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
    let rate = records as f64 / elapsed.as_secs_f64();
    println!(
        "{name:<58} {rate:>11.0} {:>8.0} {:>9.2} {:>9.2}",
        rate * 1_200.0 / 1e6,
        at(50),
        at(99)
    );
}

fn read_back(bus: &EmbeddedBus, partitions: u32) {
    let (mut took, mut read) = (Vec::new(), 0);
    let started = Instant::now();
    for partition in 0..partitions {
        let mut next = 0;
        loop {
            let before = Instant::now();
            let batch = bus.read(Topic::Events, partition, next, 1 << 20).unwrap();
            if batch.records.is_empty() {
                break;
            }
            took.push(before.elapsed());
            read += batch.records.len();
            next = batch.next;
        }
    }
    assert_eq!(read, RECORDS);
    report(
        "  read back, 1 MiB at a time",
        read,
        started.elapsed(),
        took,
    );
}

fn threads(threads: usize, records: usize, batch: usize) {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path(), 4);
    let inputs: Vec<_> = (0..threads).map(|_| batches(records, batch)).collect();
    let started = Instant::now();
    let took: Vec<Duration> = std::thread::scope(|scope| {
        let workers: Vec<_> = inputs
            .into_iter()
            .map(|batches| {
                scope.spawn(|| {
                    let append = |batch| {
                        let before = Instant::now();
                        bus.append(Topic::Events, batch).unwrap();
                        before.elapsed()
                    };
                    batches.into_iter().map(append).collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    report(
        &format!("append events, batches of {batch}, {threads} threads, 4 partitions"),
        threads * records,
        started.elapsed(),
        took,
    );
}

fn append_small() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path(), 4);
    measure(
        &format!("append matches (SQLite), batches of {BATCH}"),
        BATCH,
        batches(RECORDS / 2, BATCH),
        |batch| {
            bus.append(Topic::Matches, batch).unwrap();
        },
    );
}

/// What `match` does: a batch read, repeats dropped, a few findings, the position moved.
fn commits() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path(), 1);
    for batch in batches(RECORDS / 2, 10_000) {
        bus.append(Topic::Events, batch).unwrap();
    }
    let froms: Vec<usize> = (0..RECORDS / 2).step_by(BATCH).collect();
    measure(
        &format!("steps of {BATCH} events: read, seen, 5 findings, commit"),
        BATCH,
        froms,
        |from| {
            let batch = bus
                .read(Topic::Events, 0, from as u64, BATCH * 1_400)
                .unwrap();
            let records = &batch.records[..BATCH];
            let ids: Vec<(Id, u64)> = records
                .iter()
                .map(|(offset, record)| {
                    (Id::from_bytes(record.key[..].try_into().unwrap()), *offset)
                })
                .collect();
            let keep = Duration::from_secs(15 * 86_400);
            let (_, state) = seen::filter(&bus, "match", 0, &ids, records[0].1.time, keep).unwrap();
            bus.commit(Commit {
                consumer: "match".into(),
                positions: vec![Position {
                    topic: Topic::Events,
                    partition: 0,
                    from: from as u64,
                    to: (from + BATCH) as u64,
                }],
                outputs: records[..5]
                    .iter()
                    .map(|(_, r)| (Topic::Findings, r.clone()))
                    .collect(),
                state,
            })
            .unwrap();
        },
    );
}

fn disk_use(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            data if data.is_dir() => disk_use(&entry.path()),
            data if entry.path().extension().is_some_and(|e| e == "log") => data.len(),
            _ => 0,
        })
        .sum()
}
