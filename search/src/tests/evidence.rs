//! Tampering with everything that is stored: each deed is found, and what the service does by itself is no deed.
//!
//! [`World`] is a data folder with an event log, an index and an evidence log. The mutations are random and seeded; with
//! `TRAILWARDEN_LONG` there are 10,000 of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bus::embedded::{EmbeddedBus, Options};
use bus::ledger::note::Checkpoint;
use bus::ledger::{FILE, History, Ledger, Problem, What, log, tree};
use bus::{Bus, Topic};
use event::Integrity;

use super::stage::{Stage, batch, read_all};
use super::{NOW, TestClock, metrics};
use crate::evidence::bundle::{Bundle, Order, export};
use crate::evidence::{check, verify};
use crate::indexer::{Indexer, Shelf};
use crate::maintain::merge_once;
use crate::removal::expire;
use crate::{Config, Searcher};

const HOUR: i64 = 3_600_000_000;

struct World {
    stage: Stage,
    ledger: Arc<Ledger>,
}

impl World {
    fn new() -> World {
        let mut stage = Stage::new(Config {
            merge_splits: 3,
            ..Config::default()
        });
        let mut options = Options::default();
        options.chunk.bytes = 3_000;
        options.partitions.events = 2;
        let dir = stage.dir.path().join("log");
        let bus = Arc::get_mut(&mut stage.bus).unwrap();
        bus.inner = EmbeddedBus::open(&dir, options).unwrap();
        let ledger = Arc::new(Ledger::open(stage.dir.path(), None).unwrap());
        stage.ledger = Some(ledger.clone());
        let world = World { stage, ledger };
        world.ledger.start(NOW, "test", Vec::new()).unwrap();
        world
    }

    fn dir(&self) -> &Path {
        self.stage.dir.path()
    }

    fn attest(&self) {
        log::attest(&self.stage.bus.inner, &self.ledger, NOW).unwrap();
    }

    /// Indexes these events in splits of their own, one for each of two classes.
    fn index(&self, shelf: &Shelf, numbers: std::ops::Range<u128>) {
        self.stage.append(&classed(numbers));
        let mut indexer = Indexer::open(shelf).unwrap();
        read_all(&mut indexer);
        indexer.publish().unwrap();
    }

    fn stop(&self) {
        self.attest();
        self.ledger.stop(NOW).unwrap();
    }

    /// What a check says, without what is only too new.
    fn tampering(&self) -> Vec<Problem> {
        tampering(self.dir())
    }

    fn searcher(&self) -> Searcher {
        let index = self.dir().join("index");
        let clock = TestClock::new().clock();
        Searcher::open(&index, &Config::default(), metrics(), clock).unwrap()
    }

    fn bundle(&self, query: &str) -> Bundle {
        let order = Order {
            query: query.to_owned(),
            case: "case 7".to_owned(),
            by: "ada".to_owned(),
            most: 10_000,
            ..Order::default()
        };
        let said = |_: &str| (Integrity::Received, None);
        export(&self.searcher(), &self.ledger, &order, &said, NOW).unwrap()
    }
}

fn classed(numbers: std::ops::Range<u128>) -> Vec<event::Event> {
    let mut events = batch(numbers);
    let second = events.iter_mut().filter(|e| e.id.0.is_multiple_of(2));
    second.for_each(|e| e.search_days = 30);
    events
}

fn tampering(dir: &Path) -> Vec<Problem> {
    let history = History::read(&dir.join(FILE)).unwrap();
    assert_eq!(history.problems, Vec::<String>::new());
    let mut problems = log::check(&dir.join("log"), &history.state, &|_| {}).unwrap();
    problems.extend(check(&dir.join("index"), &history, &|_| {}).unwrap());
    let found = history.state.found.iter();
    problems.extend(found.map(|(place, words)| Problem::new(What::Changed, place, words)));
    problems.retain(|p| p.what != What::Unproven);
    problems
}

/// A store after merges, retention of log and index, and an orderly stop.
fn grown() -> World {
    let world = World::new();
    let shelf = world.stage.start();
    for round in 0..9 {
        world.index(&shelf, round * 40..round * 40 + 40);
        world.attest();
        while merge_once(&shelf).unwrap() {}
        assert_eq!(world.tampering(), [], "round {round}");
    }
    let old = super::event(9_000, 10, "{}");
    world.stage.append(&[event::Event {
        ingest_time: NOW.plus(-100 * 24 * HOUR),
        ..old
    }]);
    let mut indexer = Indexer::open(&shelf).unwrap();
    read_all(&mut indexer);
    indexer.publish().unwrap();
    world.index(&shelf, 400..430);
    let published = shelf.metas().len();
    expire(&shelf).unwrap();
    assert_eq!(shelf.metas().len(), published - 1);
    assert_eq!(world.tampering(), []);
    drop(shelf);
    world.stop();
    assert_eq!(world.tampering(), []);
    world
}

#[test]
fn what_the_service_does_is_no_tampering() {
    let world = grown();
    for round in 0..4_u128 {
        let found = log::at_start(&world.stage.bus.inner, &world.ledger).unwrap();
        assert_eq!(found, Vec::<String>::new());
        world.ledger.start(NOW, "test", found).unwrap();
        // A crash between writing down a publication and making it.
        let shelf = world.stage.start();
        world
            .stage
            .append(&classed(1_000 + round * 10..1_005 + round * 10));
        world.stage.bus.fail.store(true, Ordering::SeqCst);
        let mut indexer = Indexer::open(&shelf).unwrap();
        read_all(&mut indexer);
        assert!(indexer.publish().is_err());
        drop(indexer);
        assert_eq!(world.tampering(), [], "before the new start");
        world.stage.bus.fail.store(false, Ordering::SeqCst);
        if round % 2 == 0 {
            drop(shelf);
            let shelf = world.stage.start();
            assert_eq!(world.tampering(), [], "after the new start");
            world.index(&shelf, 2_000 + round * 10..2_004 + round * 10);
            while merge_once(&shelf).unwrap() {}
        } else {
            // The same process tries again.
            world.index(&shelf, 2_000 + round * 10..2_004 + round * 10);
        }
        assert_eq!(world.tampering(), []);
        let bus = &world.stage.bus.inner;
        let later = NOW.plus(170 * HOUR);
        bus.retain_with(later, &log::dropping(&world.ledger, later))
            .unwrap();
        assert_eq!(world.tampering(), []);
        world.stop();
        assert_eq!(world.tampering(), []);
    }
    assert!(world.stage.bus.bounds(Topic::Events, 0).unwrap().start > 0);
}

/// Random numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }
}

fn count() -> usize {
    match std::env::var_os("TRAILWARDEN_LONG") {
        Some(_) => 10_000,
        None => 400,
    }
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The files of the event log and of the splits, and the list of these.
fn files(dir: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![dir.join("log/events"), dir.join("index/splits")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                // Of no meaning to anybody.
                false if path.extension().is_some_and(|e| e == "lock") => {}
                false => drop(files.insert(path.clone(), std::fs::read(path).unwrap())),
            }
        }
    }
    let list = dir.join("index/manifest.json");
    files.insert(list.clone(), std::fs::read(list).unwrap());
    files
}

/// Changes some bytes as somebody would who does not want it to be seen; false if they stay as they are.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) -> bool {
    let before = bytes.clone();
    let at = random.below(bytes.len());
    match random.below(6) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 => bytes.truncate(at),
        2 if !bytes.is_empty() => {
            drop(bytes.drain(at..(at + 1 + random.below(40)).min(before.len())))
        }
        3 => {
            let more: Vec<u8> = (0..1 + random.below(40))
                .map(|_| random.below(256) as u8)
                .collect();
            bytes.splice(at..at, more);
        }
        4 => {
            let length = (1 + random.below(60)).min(bytes.len() / 2);
            let other = random.below(bytes.len() - length + 1);
            let from = at.min(bytes.len() - length);
            for n in 0..length {
                bytes.swap(from + n, other + n);
            }
        }
        _ => bytes.extend_from_slice(&before[at..]),
    }
    *bytes != before
}

#[test]
fn every_mutation_of_the_store_is_found() {
    let world = grown();
    let (dir, index) = (world.dir().to_owned(), world.dir().join("index"));
    let files = files(&dir);
    assert!(files.len() > 20, "{}", files.len());
    let paths: Vec<&PathBuf> = files.keys().collect();
    let manifest = index.join("manifest.json");
    let mut random = Random(20_261_126);
    let (mut done, mut kinds) = (0, [0; 5]);
    while done < count() {
        let path = paths[random.below(paths.len())];
        let other = paths[random.below(paths.len())];
        let kind = random.below(5);
        let mut undo: Vec<&Path> = Vec::new();
        let mut made: Option<PathBuf> = None;
        match kind {
            0 | 1 => {
                let mut bytes = files[path].clone();
                if !mutate(&mut bytes, &mut random) {
                    continue;
                }
                // The list may be written in another way, as long as it says the same.
                if *path == manifest && same_json(&bytes, &files[path]) {
                    continue;
                }
                std::fs::write(path, bytes).unwrap();
                undo.push(path);
            }
            2 => {
                // An empty file at the end of a partition holds nothing and says nothing.
                if files[path].is_empty() {
                    continue;
                }
                std::fs::remove_file(path).unwrap();
                undo.push(path);
            }
            3 => {
                if files[path] == files[other] {
                    continue;
                }
                std::fs::write(path, &files[other]).unwrap();
                std::fs::write(other, &files[path]).unwrap();
                undo.extend([path.as_path(), other]);
            }
            _ => {
                let name = format!("{:020}.log", random.below(100_000));
                let new = path.with_file_name(if random.below(2) == 0 {
                    name
                } else {
                    "x".into()
                });
                if *path == manifest || new.exists() {
                    continue;
                }
                std::fs::write(&new, &files[other]).unwrap();
                made = Some(new);
            }
        }
        let found = tampering(&dir);
        assert!(
            !found.is_empty(),
            "mutation {done} (kind {kind}) of {} and {}",
            path.display(),
            other.display()
        );
        kinds[kind] += 1;
        done += 1;
        for path in undo {
            std::fs::write(path, &files[path]).unwrap();
        }
        if let Some(new) = made {
            std::fs::remove_file(new).unwrap();
        }
    }
    assert!(kinds.iter().all(|n| *n > 10), "{kinds:?}");
    assert_eq!(
        world.tampering(),
        [],
        "and nothing is found once all is undone"
    );
}

fn same_json(one: &[u8], other: &[u8]) -> bool {
    let read = |bytes| {
        crate::manifest::FORMAT.to_string()
            + &serde_json::from_slice::<serde_json::Value>(bytes)
                .map_or_else(|e| e.to_string(), |v| v.to_string())
    };
    read(one) == read(other)
}

#[test]
fn an_old_state_is_found() {
    let world = World::new();
    let shelf = world.stage.start();
    world.index(&shelf, 0..50);
    world.attest();
    let (old, note) = (files(world.dir()), world.ledger.checkpoint());
    world.index(&shelf, 50..90);
    drop(shelf);
    world.stop();
    let new = files(world.dir());
    assert_eq!(world.tampering(), []);
    let put = |files: &Files, part: &str| {
        let _ = std::fs::remove_dir_all(world.dir().join(part).join("splits"));
        let files = files
            .iter()
            .filter(|(path, _)| path.starts_with(world.dir().join(part)));
        for (path, bytes) in files {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    };
    for part in ["log", "index"] {
        put(&old, part);
        assert_ne!(world.tampering(), [], "the old {part}");
        put(&new, part);
        assert_eq!(world.tampering(), []);
    }
    // All of it, with the evidence log, fits together: only a checkpoint that was kept elsewhere tells.
    let later = Checkpoint::open(&world.ledger.checkpoint(), &world.ledger.public()).unwrap();
    let then = Checkpoint::open(&note, &world.ledger.public()).unwrap();
    let history = History::read(world.ledger.path()).unwrap();
    let then_hashes = &history.hashes[..then.size as usize];
    assert_eq!(tree::consistency(then_hashes, later.size as usize), None);
    let path = tree::consistency(&history.hashes, then.size as usize).unwrap();
    assert!(tree::is_consistent(
        then.size,
        &then.root,
        later.size,
        &later.root,
        &path
    ));
}

#[test]
fn what_was_changed_before_a_merge_is_still_said_after_it() {
    let world = World::new();
    let shelf = world.stage.start();
    world.index(&shelf, 0..10);
    let folder = crate::split::Meta::folder(&world.dir().join("index/splits"), 1);
    let list = folder.join("events.sha256");
    let mut bytes = std::fs::read(&list).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&list, bytes).unwrap();
    world.index(&shelf, 10..20);
    world.index(&shelf, 20..30);
    assert!(merge_once(&shelf).unwrap());
    // The other class.
    assert!(merge_once(&shelf).unwrap());
    let found = world.tampering();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0]
            .words
            .contains("split 1 was not what had been published when it was merged")
    );
}

#[test]
fn an_index_from_before_is_taken_down_as_it_is() {
    let mut stage = Stage::new(Config::default());
    let shelf = stage.start();
    stage.append(&batch(0..10));
    let mut indexer = Indexer::open(&shelf).unwrap();
    read_all(&mut indexer);
    indexer.publish().unwrap();
    drop(indexer);
    drop(shelf);
    let ledger = Arc::new(Ledger::open(stage.dir.path(), None).unwrap());
    stage.ledger = Some(ledger.clone());
    drop(stage.start());
    assert_eq!(ledger.state(|s| (s.before, s.splits.len())), (1, 1));
    drop(stage.start());
    assert_eq!(ledger.size(), 1, "once");
    let history = History::read(ledger.path()).unwrap();
    assert_eq!(check(&stage.index(), &history, &|_| {}).unwrap(), []);
}

#[test]
fn a_bundle_proves_its_events() {
    let world = grown();
    let bundle = world.bundle("");
    assert_eq!((bundle.about.events, bundle.proven), (390, 390));
    let key = world.ledger.public();
    let report = verify::verify(&bundle.bytes, Some(&key));
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(
        report
            .proven
            .iter()
            .any(|w| w.contains("390 of 390 events were in the index")),
        "{:?}",
        report.proven
    );
    assert!(
        report
            .not_proven
            .iter()
            .any(|w| w.contains("no digest vouches"))
    );
    assert!(!report.not_proven.iter().any(|w| w.contains("Who signed")));
    let unpinned = verify::verify(&bundle.bytes, None);
    assert!(
        unpinned.problems.is_empty()
            && unpinned.not_proven.iter().any(|w| w.contains("Who signed"))
    );
    let other = bus::ledger::note::SigningKey::of_seed([1; 32]).public();
    assert!(verify::verify(&bundle.bytes, Some(&other)).problems[0].contains("is not signed by"));
    // The same question at the same time gives the same bytes.
    assert!(world.bundle("").bytes == bundle.bytes);
    // The originals are there byte for byte.
    let members = crate::evidence::zip::read(&bundle.bytes).unwrap();
    let originals = &bundle.bytes[members[3].1.clone()];
    assert!(originals.windows(9).any(|w| w == b"\n{\"n\":17}"));
}

#[test]
fn a_bundle_of_one_of_several_nodes_says_so() {
    let world = grown();
    let said = |_: &str| (Integrity::Received, None);
    for (share, words) in [
        ((0, 1), None),
        ((1, 3), Some("only what index node 1 of 3 has")),
    ] {
        let order = Order {
            most: 10_000,
            share,
            ..Order::default()
        };
        let made = export(&world.searcher(), &world.ledger, &order, &said, NOW).unwrap();
        let report = verify::verify(&made.bytes, None);
        assert_eq!(report.problems, Vec::<String>::new());
        let covers = report.about.unwrap().covers;
        match words {
            None => assert_eq!(covers, None),
            Some(words) => assert!(covers.as_ref().unwrap().contains(words), "{covers:?}"),
        }
    }
}

#[test]
fn half_an_answer_is_no_evidence() {
    let world = grown();
    let said = |_: &str| (Integrity::Received, None);
    let check = |query: &str, most, expected: &str| {
        let order = Order {
            query: query.to_owned(),
            most,
            ..Order::default()
        };
        let error = export(&world.searcher(), &world.ledger, &order, &said, NOW).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check("", 100, "finds more than 100 events");
    check("nowhere", 100, "finds no events");
    check("(", 100, "cannot search");
}

#[test]
fn every_mutation_of_a_bundle_is_found() {
    let world = grown();
    let bundle = world.bundle("raw.n:[10 TO 40]").bytes;
    let key = world.ledger.public();
    let mut random = Random(7);
    let mut done = 0;
    while done < count() {
        let mut bytes = bundle.clone();
        if !mutate(&mut bytes, &mut random) {
            continue;
        }
        done += 1;
        let report = verify::verify(&bytes, Some(&key));
        assert!(
            !report.problems.is_empty() && report.proven.is_empty(),
            "mutation {done}"
        );
    }
}

/// Names and contents.
type Members = Vec<(String, Vec<u8>)>;

/// Somebody who can write zip files, and even somebody with a key of his own, cannot make a bundle say something else.
#[test]
fn a_bundle_that_was_made_anew_is_found() {
    let world = grown();
    let bundle = world.bundle("raw.n:[10 TO 20]").bytes;
    let members = crate::evidence::zip::read(&bundle).unwrap();
    let members: Members = members
        .into_iter()
        .map(|(name, range)| (name, bundle[range].to_vec()))
        .collect();
    let again = |change: &dyn Fn(&mut Members)| {
        let mut members = members.clone();
        change(&mut members);
        crate::evidence::zip::write(&members).unwrap()
    };
    let key = world.ledger.public();
    assert!(
        verify::verify(&again(&|_| {}), Some(&key))
            .problems
            .is_empty()
    );
    for n in 0..members.len() {
        let check = |what: &str, bundle: Vec<u8>| {
            let problems = verify::verify(&bundle, Some(&key)).problems;
            assert!(!problems.is_empty(), "{what} {}", members[n].0);
        };
        check(
            "changed",
            again(&|m| {
                let place = m[n].1.len() / 2;
                m[n].1[place] ^= 1;
            }),
        );
        check("removed", again(&|m| drop(m.remove(n))));
        check(
            "doubled",
            again(&|m| {
                let double = m[n].clone();
                m.push(double);
            }),
        );
        check(
            "moved",
            again(&|m| {
                let last = m.len() - 1;
                m.swap(n, if n == last { 0 } else { last });
            }),
        );
    }
    // Signed anew with another key, which the bundle then names: whole, and not by whom it should be.
    let other = bus::ledger::note::SigningKey::of_seed([1; 32]);
    let contents: Vec<Vec<u8>> = members.iter().take(7).map(|m| m.1.clone()).collect();
    let mut contents: [Vec<u8>; 7] = contents.try_into().unwrap();
    let text = String::from_utf8(contents[1].clone()).unwrap();
    contents[1] = text
        .replace(&key.to_string(), &other.public().to_string())
        .into();
    let forged = crate::evidence::bundle::sealed(contents, &|text| other.sign(text)).unwrap();
    let problems = verify::verify(&forged, None).problems;
    assert!(problems[0].contains("checkpoint.txt"), "{problems:?}");
}
