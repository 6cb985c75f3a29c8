use super::*;
use crate::embedded::{EmbeddedBus, Options};
use crate::{Bus, Record, Topic};

fn stopped(time: i64) -> Entry {
    Entry::Stopped { time: Time(time) }
}

fn open(dir: &Path) -> Ledger {
    Ledger::open(dir, None).unwrap()
}

#[test]
fn a_log_goes_on_where_it_was_and_proves_that_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    assert_eq!(ledger.append(&[stopped(1), stopped(2)], &[]).unwrap(), 0);
    let old = Checkpoint::open(&ledger.checkpoint(), &ledger.public()).unwrap();
    drop(ledger);
    let ledger = open(dir.path());
    assert_eq!(ledger.append(&[stopped(3)], &[]).unwrap(), 2);
    let history = History::read(ledger.path()).unwrap();
    assert!(history.problems.is_empty(), "{:?}", history.problems);
    let new = Checkpoint::open(&history.note, &ledger.public()).unwrap();
    let path = tree::consistency(&history.hashes, old.size as usize).unwrap();
    assert!(tree::is_consistent(
        old.size, &old.root, new.size, &new.root, &path
    ));
    assert_eq!(
        history.leaf(1).unwrap().unwrap(),
        r#"{"kind":"stopped","time":"1970-01-01T00:00:00.000002Z"}"#
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.path().join(KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn what_was_signed_cannot_be_changed() {
    let check = |sql: &str, expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        ledger.append(&[stopped(1)], &[]).unwrap();
        ledger.append(&[stopped(2), stopped(3)], &[]).unwrap();
        let (path, note) = (ledger.path().to_owned(), ledger.checkpoint());
        ledger.append(&[stopped(4)], &[]).unwrap();
        drop(ledger);
        Connection::open(&path)
            .unwrap()
            .execute_batch(&sql.replace("OLD", &note))
            .unwrap();
        let history = History::read(&path).unwrap();
        assert!(
            history.problems.iter().any(|p| p.contains(expected)),
            "{sql}: {:?}",
            history.problems
        );
        assert!(
            matches!(
                Ledger::open(dir.path(), None),
                Err(LedgerError::Changed { .. })
            ),
            "{sql}"
        );
    };
    check(
        "UPDATE leaves SET content = replace(content, '3', '4') WHERE number = 2",
        "a leaf is not what was signed",
    );
    check(
        "DELETE FROM leaves WHERE number = 3",
        "it has 3 leaves, and 4 were signed",
    );
    check("DELETE FROM leaves WHERE number = 1", "leaf 1 is missing");
    check(
        "INSERT INTO leaves VALUES (4, '{\"kind\":\"stopped\",\"time\":\"2026-01-01T00:00:00Z\"}')",
        "it has 5 leaves, and 4 were signed",
    );
    check(
        "UPDATE checkpoint SET note = replace(note, char(10) || '4' || char(10), char(10) || '3' || char(10))",
        "the signature by",
    );
    check(
        "UPDATE checkpoint SET note = 'OLD'",
        "it has 4 leaves, and 3 were signed",
    );
    check("DELETE FROM checkpoint", "cannot be trusted");
}

#[test]
fn a_log_without_its_key_and_a_key_without_its_log_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(&[stopped(1)], &[]).unwrap();
    let key = dir.path().join(KEY_FILE);
    let text = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    assert!(matches!(
        Ledger::open(dir.path(), None),
        Err(LedgerError::Gone { .. })
    ));
    std::fs::write(&key, SigningKey::of_seed([1; 32]).text()).unwrap();
    assert!(matches!(
        Ledger::open(dir.path(), None),
        Err(LedgerError::OtherKey { .. })
    ));
    std::fs::write(&key, text).unwrap();
    open(dir.path());
    for file in [FILE, "evidence.db-wal", "evidence.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(file));
    }
    assert!(matches!(
        Ledger::open(dir.path(), None),
        Err(LedgerError::Gone { .. })
    ));
    // A key that a person has put elsewhere may be older than the log.
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(Ledger::open(elsewhere.path(), Some(&key)).is_ok());
    // The first start was cut off before there was a key.
    let cut = tempfile::tempdir().unwrap();
    connect(&cut.path().join(FILE)).unwrap();
    open(cut.path());
}

/// A log of events with a small chunk size, and its evidence.
struct World {
    dir: tempfile::TempDir,
    options: Options,
}

impl World {
    fn new() -> World {
        let mut options = Options::default();
        options.partitions.events = 2;
        options.chunk.bytes = 2_000;
        World {
            dir: tempfile::tempdir().unwrap(),
            options,
        }
    }

    fn bus(&self) -> EmbeddedBus {
        EmbeddedBus::open(&self.dir.path().join("log"), self.options.clone()).unwrap()
    }

    fn check(&self) -> Vec<Problem> {
        let history = History::read(&self.dir.path().join(FILE)).unwrap();
        log::check(&self.dir.path().join("log"), &history.state, &|_| {}).unwrap()
    }
}

fn fill(bus: &EmbeddedBus, from: u64, to: u64) {
    for n in from..to {
        let text = format!("{n} {}", tree::hex(&tree::sha256(&n.to_le_bytes())));
        let record = Record {
            key: text.clone().into(),
            value: text.repeat(3).into(),
            time: Time(n as i64 * 3_600_000_000),
        };
        bus.append(Topic::Events, vec![record]).unwrap();
    }
}

#[test]
fn an_unchanged_log_is_no_cause_for_alarm() {
    let world = World::new();
    let ledger = open(world.dir.path());
    let tampering = |problems: Vec<Problem>| {
        problems
            .into_iter()
            .filter(|p| p.what != What::Unproven)
            .collect::<Vec<_>>()
    };
    let mut offset = 0;
    for round in 0..6 {
        let bus = world.bus();
        assert_eq!(log::at_start(&bus, &ledger).unwrap(), Vec::<String>::new());
        ledger.start(Time(round), "1", Vec::new()).unwrap();
        for _ in 0..4 {
            fill(&bus, offset, offset + 15);
            offset += 15;
            log::attest(&bus, &ledger, Time(round)).unwrap();
            assert_eq!(tampering(world.check()), []);
        }
        bus.retain_with(
            Time((offset as i64 + 120) * 3_600_000_000),
            &log::dropping(&ledger, Time(round)),
        )
        .unwrap();
        assert_eq!(tampering(world.check()), []);
        if round % 2 == 0 {
            log::attest(&bus, &ledger, Time(round)).unwrap();
            ledger.stop(Time(round)).unwrap();
            assert_eq!(world.check(), []);
        } else {
            // As kill -9 leaves it.
            fill(&bus, offset, offset + 3);
            offset += 3;
        }
    }
    assert!(
        ledger.state(|s| s.chunks.values().any(|c| c.dropped.is_some())),
        "retention has dropped something"
    );
}

#[test]
fn each_deed_is_found_and_named() {
    let check = |deed: &dyn Fn(&Path), what: What, words: &str| {
        let world = World::new();
        let ledger = open(world.dir.path());
        let bus = world.bus();
        fill(&bus, 0, 60);
        log::attest(&bus, &ledger, Time(1)).unwrap();
        ledger.stop(Time(2)).unwrap();
        drop(bus);
        let folder = world.dir.path().join("log/events/0");
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|f| f.unwrap().path())
            .collect();
        files.sort();
        assert!(files.len() > 2);
        assert_eq!(world.check(), []);
        deed(&files[0]);
        let found = world.check();
        assert!(
            found
                .iter()
                .any(|p| p.what == what && p.words.contains(words)),
            "{words}: {found:?}"
        );
    };
    let edit = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    };
    check(
        &|path| edit(path, &|b| b[100] ^= 1),
        What::Changed,
        "are not what was written",
    );
    check(
        &|path| edit(path, &|b| b.truncate(b.len() - 7)),
        What::Changed,
        "cut off within",
    );
    check(
        &|path| edit(path, &|b| b.clear()),
        What::Removed,
        "cut off at byte 0",
    );
    check(
        &|path| edit(path, &|b| b.extend_from_within(..50)),
        What::Inserted,
        "50 bytes were added",
    );
    check(
        &|path| std::fs::remove_file(path).unwrap(),
        What::Removed,
        "retention did not drop it",
    );
    let beside = |path: &Path, name: &str| {
        std::fs::copy(path, path.with_file_name(name)).unwrap();
    };
    check(
        &|path| beside(path, "00000000000000009999.log"),
        What::Inserted,
        "no such file",
    );
    check(
        &|path| beside(path, "00000000000000000001.log"),
        What::Inserted,
        "no such file",
    );
    check(&|path| beside(path, "x"), What::Inserted, "no such file");
}

#[test]
fn what_is_appended_behind_our_back_is_said_at_the_next_start() {
    let world = World::new();
    let ledger = open(world.dir.path());
    let bus = world.bus();
    fill(&bus, 0, 20);
    log::attest(&bus, &ledger, Time(1)).unwrap();
    ledger.stop(Time(2)).unwrap();
    fill(&bus, 20, 21);
    let found = log::at_start(&bus, &ledger).unwrap();
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("1 records more than at the last stop"),
        "{found:?}"
    );
    ledger.start(Time(3), "1", found).unwrap();
    log::attest(&bus, &ledger, Time(4)).unwrap();
    let history = History::read(ledger.path()).unwrap();
    assert_eq!(history.state.found.len(), 1, "and stays so");
}
