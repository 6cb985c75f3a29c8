//! A process is killed while it appends and commits; what it said to have done is there.
//!
//! The child is this test program itself, told by an environment variable to run [`child`] as the child.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

const FOLDER: &str = "TRAILWARDEN_TEST_CHILD_FOLDER";
const THREADS: usize = 3;

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "embedded::tests::kill::child",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(FOLDER, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut read = 0;
        for line in lines.by_ref() {
            read += note(&line.unwrap(), &mut acked);
            if read > 40 + 30 * round {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died counts too; the last line may be half.
        for line in lines.map_while(Result::ok) {
            note(&line, &mut acked);
        }
        check(dir.path(), &acked);
    }
}

/// Reads a line of the child: `acked THREAD COUNT.`.
fn note(line: &str, acked: &mut BTreeMap<String, u64>) -> u64 {
    let words = line
        .split_once("acked ")
        .and_then(|(_, rest)| rest.strip_suffix('.')?.split_once(' '));
    let Some((thread, count)) = words else {
        return 0;
    };
    acked.insert(thread.to_owned(), count.parse().unwrap());
    1
}

/// Per thread the numbers from 0 on without gaps, at least as many as acknowledged; and the counter agrees with the
/// position.
fn check(dir: &Path, acked: &BTreeMap<String, u64>) {
    let bus = EmbeddedBus::open(dir, options(2)).unwrap();
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for partition in 0..2 {
        let batch = bus.read(Topic::Events, partition, 0, usize::MAX).unwrap();
        for (_, record) in batch.records {
            let value = String::from_utf8(record.value.to_vec()).unwrap();
            let (thread, number) = value.split_once(' ').unwrap();
            let next = found.entry(thread.to_owned()).or_default();
            assert_eq!(number, next.to_string(), "of {thread}");
            *next += 1;
        }
    }
    for (thread, count) in acked.iter().filter(|(thread, _)| *thread != "counter") {
        assert!(
            found[thread] >= *count,
            "{thread}: {} of {count}",
            found[thread]
        );
    }
    let counted = counted(&bus);
    assert!(counted >= acked.get("counter").copied().unwrap_or(0));
    assert_eq!(
        counted,
        bus.position("counter", Topic::Events, 0)
            .unwrap()
            .unwrap_or(0)
    );
    let outputs: u64 = (0..2)
        .map(|p| bus.bounds(Topic::Findings, p).unwrap().end)
        .sum();
    assert_eq!(counted, outputs);
    assert!(bus.verify().is_empty());
}

fn counted(bus: &EmbeddedBus) -> u64 {
    let value = bus
        .state_get("counter", 0, &[b"n".to_vec()])
        .unwrap()
        .remove(0);
    value.map_or(0, |v| u64::from_le_bytes(v.try_into().unwrap()))
}

/// Does nothing unless it was started by the test above.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(FOLDER) else {
        return;
    };
    let bus = EmbeddedBus::open(Path::new(&dir), options(2)).unwrap();
    let mut next = [0_u64; THREADS];
    for partition in 0..2 {
        for (_, record) in bus
            .read(Topic::Events, partition, 0, usize::MAX)
            .unwrap()
            .records
        {
            let thread: usize = String::from_utf8_lossy(&record.key)[1..].parse().unwrap();
            next[thread] += 1;
        }
    }
    std::thread::scope(|scope| {
        for (thread, mut next) in next.into_iter().enumerate() {
            let bus = &bus;
            scope.spawn(move || {
                loop {
                    let records = (next..next + 1 + next % 50).map(|n| Record {
                        key: Bytes::from(format!("t{thread}")),
                        ..record(&format!("t{thread} {n}"))
                    });
                    let records: Vec<Record> = records.collect();
                    next += records.len() as u64;
                    bus.append(Topic::Events, records).unwrap();
                    println!("acked t{thread} {next}.");
                }
            });
        }
        loop {
            let from = bus
                .position("counter", Topic::Events, 0)
                .unwrap()
                .unwrap_or(0);
            let batch = bus.read(Topic::Events, 0, from, 2_000).unwrap();
            let count = counted(&bus) + batch.records.len() as u64;
            bus.commit(Commit {
                outputs: batch
                    .records
                    .into_iter()
                    .map(|(_, r)| (Topic::Findings, r))
                    .collect(),
                state: vec![StateChange {
                    partition: 0,
                    key: b"n".to_vec(),
                    value: Some(count.to_le_bytes().to_vec()),
                    expires: None,
                }],
                ..step("counter", from, batch.next)
            })
            .unwrap();
            println!("acked counter {count}.");
        }
    });
}
