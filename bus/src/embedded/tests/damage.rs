//! What was stored changes behind our back: found and named, never skipped. What was not yet stored may be cut off.

use super::*;

/// Ten files of one or a few records, and a consumer that has read them.
fn ten_files(dir: &Path) -> Vec<PathBuf> {
    let bus = EmbeddedBus::open(dir, small_chunks()).unwrap();
    for n in 0..10 {
        bus.append(
            Topic::Events,
            vec![record(&noise(n, 3_000)), record(&n.to_string())],
        )
        .unwrap();
    }
    files(dir)
}

fn small_chunks() -> Options {
    Options {
        chunk: Chunk { bytes: 1_000 },
        ..options(1)
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir.join("events/0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn assert_corrupt<T: std::fmt::Debug>(result: Result<T, BusError>, file: &Path, byte: u64) {
    match result {
        Err(BusError::Corrupt { path, offset, .. }) => {
            assert_eq!((path, offset), (file.display().to_string(), byte));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flipped_bit_in_an_old_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let files = ten_files(dir.path());
    assert_eq!(files.len(), 10);
    let len = std::fs::metadata(&files[3]).unwrap().len() as usize;
    let mut end = 20;
    for at in [0, 9, 30, 50, 60, len - 1] {
        flip(&files[3], at);
        let bus = EmbeddedBus::open(dir.path(), small_chunks()).unwrap();
        assert_eq!(bus.read(Topic::Events, 0, 4, 2).unwrap().next, 5);
        assert_eq!(bus.read(Topic::Events, 0, 4, usize::MAX).unwrap().next, 6);
        assert_corrupt(bus.read(Topic::Events, 0, 6, usize::MAX), &files[3], 0);
        assert_eq!(bus.read(Topic::Events, 0, 8, usize::MAX).unwrap().next, end);
        let damage = bus.verify();
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert_corrupt(
            Err::<(), _>(damage.into_iter().next().unwrap()),
            &files[3],
            0,
        );
        // New events are still taken.
        bus.append(Topic::Events, vec![record("more")]).unwrap();
        end += 1;
        drop(bus);
        flip(&files[3], at);
    }
    let bus = EmbeddedBus::open(dir.path(), small_chunks()).unwrap();
    assert_eq!(bus.read(Topic::Events, 0, 0, usize::MAX).unwrap().next, end);
}

#[test]
fn a_shortened_or_missing_old_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let files = ten_files(dir.path());
    let whole = std::fs::read(&files[3]).unwrap();
    std::fs::write(&files[3], &whole[..whole.len() - 1]).unwrap();
    let bus = EmbeddedBus::open(dir.path(), small_chunks()).unwrap();
    assert_corrupt(bus.read(Topic::Events, 0, 6, usize::MAX), &files[3], 0);
    drop(bus);
    std::fs::remove_file(&files[3]).unwrap();
    let bus = EmbeddedBus::open(dir.path(), small_chunks()).unwrap();
    let before = std::fs::metadata(&files[2]).unwrap().len();
    assert_corrupt(bus.read(Topic::Events, 0, 6, usize::MAX), &files[2], before);
}

#[test]
fn a_file_of_another_partition_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let bus = EmbeddedBus::open(dir.path(), options(2)).unwrap();
    bus.append(Topic::Events, vec![record("a")]).unwrap();
    let (from, to) = if bus.bounds(Topic::Events, 0).unwrap().end == 1 {
        (0, 1)
    } else {
        (1, 0)
    };
    drop(bus);
    let file = |p: u32| {
        dir.path()
            .join(format!("events/{p}/{}", segment::file_name(0)))
    };
    std::fs::copy(file(from), file(to)).unwrap();
    assert_corrupt(EmbeddedBus::open(dir.path(), options(2)), &file(to), 0);
}

#[test]
fn a_torn_tail_is_cut_off_and_a_damaged_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path());
    let mut ends = Vec::new();
    let file = dir.path().join("events/0").join(segment::file_name(0));
    for n in 0..3 {
        bus.append(Topic::Events, vec![record(&n.to_string())])
            .unwrap();
        ends.push(std::fs::metadata(&file).unwrap().len() as usize);
    }
    drop(bus);
    let whole = std::fs::read(&file).unwrap();
    let check = |bytes: &[u8], expected: &[&str]| {
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(values(&open(dir.path()), Topic::Events), expected);
    };
    // Cut anywhere in the last batch.
    for len in ends[1]..ends[2] {
        check(&whole[..len], &["0", "1"]);
        assert_eq!(std::fs::metadata(&file).unwrap().len() as usize, ends[1]);
    }
    // Garbage behind it, as of a write that was never finished.
    for garbage in [&[0; 5000][..], b"TWb1", noise(1, 9_000).as_bytes()] {
        check(&[&whole, garbage].concat(), &["0", "1", "2"]);
    }
    // A batch that a later one knows to have been durable.
    for at in ends[0]..ends[1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        std::fs::write(&file, &damaged).unwrap();
        assert_corrupt(
            EmbeddedBus::open(dir.path(), options(1)),
            &file,
            ends[0] as u64,
        );
        assert_eq!(std::fs::read(&file).unwrap(), damaged, "nothing is cut off");
    }
    check(&whole, &["0", "1", "2"]);
}

#[test]
fn a_lost_end_is_noticed_by_who_has_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path());
    bus.append(Topic::Events, vec![record("a")]).unwrap();
    bus.commit(step("c", 0, 1)).unwrap();
    drop(bus);
    let file = dir.path().join("events/0").join(segment::file_name(0));
    std::fs::write(&file, b"").unwrap();
    let lost = EmbeddedBus::open(dir.path(), options(1)).unwrap_err();
    assert!(
        lost.to_string()
            .contains("c has read up to 1 of events-0, but it ends at 0"),
        "{lost}"
    );
}

#[test]
fn lost_parts_are_refused() {
    let check = |part: &str, is_dir: bool| {
        let dir = tempfile::tempdir().unwrap();
        let bus = open(dir.path());
        bus.append(Topic::Events, vec![record("a")]).unwrap();
        drop(bus);
        let path = dir.path().join(part);
        if is_dir {
            std::fs::remove_dir_all(&path).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let reason = refusal(dir.path(), options(1));
        assert!(
            reason.contains("has lost its part") && reason.contains(part),
            "{reason}"
        );
    };
    check("format", false);
    check("state.db", false);
    check("events/0", true);
}

#[test]
fn a_damaged_state_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let file = dir.path().join("state.db");
    std::fs::write(&file, noise(1, 8_192)).unwrap();
    assert_corrupt(EmbeddedBus::open(dir.path(), options(1)), &file, 0);
}

/// SQLite's own log is cut at any byte: each commit is there as a whole or not at all, and none without those before.
#[test]
fn a_commit_is_whole_wherever_the_state_log_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path());
    bus.append(Topic::Events, vec![record("e"); 4]).unwrap();
    for n in 0..4_u64 {
        bus.commit(Commit {
            outputs: vec![(Topic::Findings, record(&n.to_string())); 2],
            state: vec![StateChange {
                partition: 0,
                key: b"n".to_vec(),
                value: Some(vec![n as u8 + 1]),
                expires: None,
            }],
            ..step("c", n, n + 1)
        })
        .unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    let wal = std::fs::read(dir.path().join("state.db-wal")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for len in (0..=wal.len()).rev().step_by(1_731) {
        let target = copy.path().join(len.to_string());
        std::fs::create_dir_all(target.join("events/0")).unwrap();
        for name in [
            "format",
            "state.db",
            &format!("events/0/{}", segment::file_name(0)),
        ] {
            std::fs::copy(dir.path().join(name), target.join(name)).unwrap();
        }
        std::fs::write(target.join("state.db-wal"), &wal[..len]).unwrap();
        let bus = open(&target);
        let position = bus.position("c", Topic::Events, 0).unwrap().unwrap_or(0);
        let state = bus.state_get("c", 0, &[b"n".to_vec()]).unwrap().remove(0);
        assert_eq!(state.map_or(0, |v| u64::from(v[0])), position);
        let expected: Vec<String> = (0..position).flat_map(|n| vec![n.to_string(); 2]).collect();
        assert_eq!(values(&bus, Topic::Findings), expected);
        seen.insert(position);
    }
    assert_eq!(seen, (0..=4).collect());
}
