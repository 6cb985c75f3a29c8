//! The event log on a disk that fails at each of its operations in turn.
//!
//! One script of appends and retention runs over and over; each time the n-th operation goes wrong. Whatever happens,
//! what was acknowledged is there, in order, and nothing is there that was not asked for.

use super::super::disk::sim::{Coins, Fault, SimDisk};
use super::*;
use crate::config::Partitions;
use bytes::Bytes;

const PARTITIONS: u32 = 2;
const CALLS: usize = 40;
const HOUR: i64 = 3_600_000_000;

/// Values per partition.
type Values = Vec<Vec<String>>;

fn open(disk: &SimDisk) -> Result<EventLog, BusError> {
    EventLog::open(
        Arc::new(disk.clone()),
        (0..PARTITIONS)
            .map(|p| PathBuf::from(format!("/{p}")))
            .collect(),
        Limits {
            chunk_bytes: 700,
            retention: 8 * 5 * HOUR,
        },
        Arc::new(Ends::new(&Partitions::all(PARTITIONS))),
        Poison::default(),
    )
}

/// Some records that compress badly, so that files fill and writes have several pages.
fn call(n: usize) -> Vec<Record> {
    let mut coins = Coins(n as u64);
    (0..1 + n % 4)
        .map(|i| {
            let noise: String = (0..coins.below(400))
                .map(|_| (b'!' + coins.below(90) as u8) as char)
                .collect();
            Record {
                key: Bytes::from(format!("{}", coins.below(100))),
                value: Bytes::from(format!("{n}/{i} {noise}")),
                time: Time(n as i64 * HOUR),
            }
        })
        .collect()
}

fn add(values: &mut Values, records: &[Record]) {
    for record in records {
        values[partition_of(&record.key, PARTITIONS) as usize]
            .push(String::from_utf8(record.value.to_vec()).unwrap());
    }
}

fn nothing() -> Values {
    vec![Vec::new(); PARTITIONS as usize]
}

/// What is stored, with the first offset.
fn stored(log: &EventLog, partition: usize) -> (usize, Vec<String>) {
    let bounds = log.ends.get(Topic::Events, partition as u32).unwrap();
    let batch = log
        .read(partition as u32, bounds.start, usize::MAX)
        .unwrap();
    assert_eq!(batch.next, bounds.end);
    let values = batch
        .records
        .iter()
        .map(|(_, record)| String::from_utf8(record.value.to_vec()).unwrap())
        .collect();
    (bounds.start as usize, values)
}

/// Runs the script until an error other than a full disk; gives what was acknowledged, and what was refused last.
fn run(log: &EventLog) -> (Values, Values) {
    let mut acked = nothing();
    for n in 0..CALLS {
        let records = call(n);
        loop {
            match log.append(&records) {
                Ok(()) => break,
                Err(BusError::DiskFull { .. }) => {}
                Err(_) => {
                    let mut refused = nothing();
                    add(&mut refused, &records);
                    return (acked, refused);
                }
            }
        }
        add(&mut acked, &records);
        if n % 5 == 4 {
            match log.retain(Time((n as i64 - 6) * HOUR), &|_, _, _| Ok(())) {
                Ok(_) => {}
                Err(BusError::DiskFull { .. }) => {}
                Err(_) => return (acked, nothing()),
            }
        }
    }
    (acked, nothing())
}

/// All that was acknowledged and is not older than retention, then at most a beginning of what was refused.
fn check_stored(log: &EventLog, acked: &Values, refused: &Values, what: &str) {
    for p in 0..PARTITIONS as usize {
        let (start, values) = stored(log, p);
        let mut expected = acked[p][start.min(acked[p].len())..].to_vec();
        assert!(
            values.len() >= expected.len(),
            "{what}: partition {p} lost {:?}",
            &expected[values.len()..]
        );
        let extra = values.len() - expected.len();
        assert!(
            extra <= refused[p].len(),
            "{what}: partition {p} invented records"
        );
        expected.extend_from_slice(&refused[p][..extra]);
        assert_eq!(values, expected, "{what}: partition {p}");
    }
    assert!(log.verify().is_empty(), "{what}");
}

fn undisturbed() -> u64 {
    let disk = SimDisk::default();
    let log = open(&disk).unwrap();
    let (acked, _) = run(&log);
    check_stored(&log, &acked, &nothing(), "undisturbed");
    let starts: Vec<usize> = (0..PARTITIONS as usize)
        .map(|p| stored(&log, p).0)
        .collect();
    assert!(
        starts.iter().all(|start| *start > 0),
        "the script comes to drop files: {starts:?}"
    );
    disk.changes()
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let operations = undisturbed();
    assert!(operations > 80, "{operations}");
    for n in 0..operations {
        for seed in 0..12 {
            let what = format!("power cut at operation {n}, seed {seed}");
            let disk = SimDisk::default();
            disk.fail(n, Fault::Crash);
            let (acked, refused) = match open(&disk) {
                Ok(log) => run(&log),
                Err(_) => (nothing(), nothing()),
            };
            assert!(disk.has_failed(), "{what}");
            // The next start is cut off as well.
            let disk = disk.crash(seed);
            disk.fail(seed % 6, Fault::Crash);
            drop(open(&disk));
            let disk = disk.crash(seed + 1);
            let log = open(&disk).unwrap_or_else(|e| panic!("{what}: {e}"));
            check_stored(&log, &acked, &refused, &what);
            // It goes on where it stands.
            let mut now: Values = (0..PARTITIONS as usize)
                .map(|p| stored(&log, p).1)
                .collect();
            log.append(&call(99)).unwrap();
            add(&mut now, &call(99));
            for (p, now) in now.iter().enumerate() {
                assert_eq!(&stored(&log, p).1, now, "{what}");
            }
        }
    }
}

#[test]
fn what_readers_saw_after_a_kill_survives_a_power_cut() {
    for n in 0..undisturbed() {
        let what = format!("killed at operation {n}");
        let disk = SimDisk::default();
        disk.fail(n, Fault::Crash);
        let (acked, refused) = match open(&disk) {
            Ok(log) => run(&log),
            Err(_) => (nothing(), nothing()),
        };
        disk.restart();
        let log = open(&disk).unwrap_or_else(|e| panic!("{what}: {e}"));
        check_stored(&log, &acked, &refused, &what);
        let seen: Vec<(usize, Vec<String>)> =
            (0..PARTITIONS as usize).map(|p| stored(&log, p)).collect();
        for seed in 0..4 {
            let log = open(&disk.crash(seed)).unwrap_or_else(|e| panic!("{what}: {e}"));
            for (p, seen) in seen.iter().enumerate() {
                assert_eq!(&stored(&log, p), seen, "{what}, then a power cut");
            }
        }
    }
}

#[test]
fn a_full_disk_at_any_operation_changes_nothing_and_passes() {
    for n in 0..undisturbed() {
        let what = format!("no space at operation {n}");
        let disk = SimDisk::default();
        let Ok(log) = open(&disk) else {
            panic!("{what}")
        };
        disk.fail(n, Fault::NoSpace);
        let (acked, refused) = run(&log);
        assert_eq!(refused, nothing(), "{what}");
        check_stored(&log, &acked, &nothing(), &what);
        drop(log);
        check_stored(&open(&disk.crash(n)).unwrap(), &acked, &nothing(), &what);
    }
}

#[test]
fn a_failed_fsync_at_any_operation_stops_all_writing() {
    for n in 0..undisturbed() {
        let what = format!("fsync fails from operation {n}");
        let disk = SimDisk::default();
        let Ok(log) = open(&disk) else {
            panic!("{what}")
        };
        disk.fail(n, Fault::SyncFails);
        let (acked, refused) = run(&log);
        if !disk.has_failed() {
            continue;
        }
        let again = log.append(&call(0));
        assert!(
            matches!(again, Err(BusError::Poisoned { .. })),
            "{what}: {again:?}"
        );
        check_stored(&log, &acked, &nothing(), &what);
        drop(log);
        // Without a power cut nothing that was refused comes back; with one, it may.
        check_stored(&open(&disk).unwrap(), &acked, &nothing(), &what);
        check_stored(&open(&disk.crash(n)).unwrap(), &acked, &refused, &what);
    }
}
