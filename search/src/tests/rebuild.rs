//! The index built anew from the log: the same as before, nothing twice, and no tampering.

use std::path::Path;
use std::sync::Arc;

use bus::embedded::{EmbeddedBus, Options};
use bus::ledger::{FILE, History, Ledger, What, log};
use bus::{Bus, Topic};
use event::{Event, Flag};

use super::stage::read_all;
use super::{NOW, TestClock, event, ids, metrics};
use crate::evidence::check;
use crate::hold::{Holds, NewHold};
use crate::indexer::{CONSUMER, IndexError, Indexer, Shelf};
use crate::maintain::merge_once;
use crate::rebuild::{Closed, MARK, RebuildError};
use crate::split::Meta;
use crate::{Config, Searcher};

const DAY: i64 = 86_400_000_000;

/// A data folder whose log, index and evidence log are opened and closed as the program does it.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    clock: TestClock,
    config: Config,
}

impl World {
    pub(super) fn new() -> World {
        World {
            dir: tempfile::tempdir().unwrap(),
            clock: TestClock::new(),
            config: Config {
                merge_splits: 2,
                ..Config::default()
            },
        }
    }

    pub(super) fn bus(&self) -> Arc<EmbeddedBus> {
        let mut options = Options::default();
        options.chunk.bytes = 2_000;
        options.partitions.events = 2;
        Arc::new(EmbeddedBus::open(&self.dir.path().join("log"), options).unwrap())
    }

    pub(super) fn index(&self) -> std::path::PathBuf {
        self.dir.path().join("index")
    }

    fn ledger(&self) -> Arc<Ledger> {
        Arc::new(Ledger::open(self.dir.path(), None).unwrap())
    }

    pub(super) fn start(&self, bus: &Arc<EmbeddedBus>) -> Result<Shelf, IndexError> {
        let searcher =
            Searcher::open(&self.index(), &self.config, metrics(), self.clock.clock()).unwrap();
        searcher.attest(self.ledger());
        let holds = Arc::new(Holds::open(bus.clone(), &self.index()).unwrap());
        let clock = self.clock.clock();
        Shelf::open(
            bus.clone(),
            (searcher, holds),
            &self.config,
            metrics(),
            clock,
        )
    }

    /// Takes events in and indexes them, as one run of the service.
    pub(super) fn run(&self, rounds: &[Vec<Event>]) -> Vec<u128> {
        let bus = self.bus();
        let shelf = self.start(&bus).unwrap();
        for events in rounds {
            append(&bus, events);
            let mut indexer = Indexer::open(&shelf).unwrap();
            read_all(&mut indexer);
            indexer.publish().unwrap();
            while merge_once(&shelf).unwrap() {}
        }
        found(&shelf)
    }

    fn closed(&self, bus: &Arc<EmbeddedBus>) -> Closed {
        let clock = self.clock.clock();
        let searcher = Searcher::closed(&self.index(), &self.config, metrics(), clock.clone());
        searcher.attest(self.ledger());
        Closed::open(bus.clone(), searcher, &self.config, metrics(), clock).unwrap()
    }

    fn rebuild(&self) -> crate::rebuild::Plan {
        let bus = self.bus();
        self.closed(&bus).rebuild(false, "a test", "ada").unwrap()
    }

    fn folder(&self, number: u64) -> std::path::PathBuf {
        Meta::folder(&self.index().join("splits"), number)
    }

    /// What an evidence check says of the index.
    pub(super) fn tampering(&self) -> Vec<String> {
        let history = History::read(&self.dir.path().join(FILE)).unwrap();
        assert_eq!(history.problems, Vec::<String>::new());
        let mut problems = check(&self.index(), &history, &|_| {}).unwrap();
        problems.retain(|p| p.what != What::Unproven);
        let found = history
            .state
            .found
            .into_iter()
            .map(|(place, words)| format!("{place}: {words}"));
        problems
            .into_iter()
            .map(|p| format!("{}: {}", p.place, p.words))
            .chain(found)
            .collect()
    }

    /// Drops from the log what retention drops after these hours.
    fn drop_log(&self, hours: i64) {
        let bus = self.bus();
        let ledger = self.ledger();
        log::attest(&bus, &ledger, NOW).unwrap();
        let later = NOW.plus(hours * 3_600_000_000);
        bus.retain_with(later, &log::dropping(&ledger, later))
            .unwrap();
    }
}

pub(super) fn append(bus: &EmbeddedBus, events: &[Event]) {
    let record = |e: &Event| bus::Record {
        key: e.partition_key().into_string().into(),
        value: e.encode().into(),
        time: e.ingest_time,
    };
    bus.append(Topic::Events, events.iter().map(record).collect())
        .unwrap();
}

/// All ids, without the records of removals; each must be there once.
pub(super) fn found(shelf: &Shelf) -> Vec<u128> {
    let request = super::all("NOT source:trailwarden");
    let mut found = ids(&shelf.searcher.search(&request).unwrap());
    found.sort_unstable();
    let mut once = found.clone();
    once.dedup();
    assert_eq!(found, once, "an event is there twice");
    found
}

pub(super) fn events(range: std::ops::Range<u128>, days_ago: i64) -> Vec<Event> {
    range
        .map(|n| {
            let mut one = event(
                n,
                days_ago * 86_400 + 1,
                &format!(r#"{{"n":{n},"t":"{}"}}"#, "x".repeat(100)),
            );
            one.ingest_time = NOW.plus(-days_ago * DAY);
            one.search_days = [0, 30][(n % 2) as usize];
            one
        })
        .collect()
}

fn damage(folder: &Path) {
    let files = std::fs::read_dir(folder).unwrap().flatten();
    let mut files = files.map(|e| e.path());
    let store = files.find(|p| p.extension().is_some_and(|e| e == "store"));
    let store = store.unwrap();
    let mut bytes = std::fs::read(&store).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(store, bytes).unwrap();
}

#[test]
fn the_index_is_the_same_again() {
    let world = World::new();
    // With repeats, a conflict, and what is only matched and copied.
    let mut second = events(5..30, 1);
    let mut other = second[0].clone();
    other.raw = r#"{"n":"other"}"#.into();
    second.push(other);
    let mut copied = event(100, 1, "{}");
    copied.flags.set(Flag::RulesOnly);
    let mut copy = copied.clone();
    copy.flags.set(Flag::Evidence);
    second.extend([copied, copy]);
    let before = world.run(&[events(0..10, 2), second, events(30..40, 0)]);
    assert_eq!(before.len(), 42);
    let plan = world.rebuild();
    assert!(!plan.again.is_empty() && plan.kept.is_empty() && plan.damaged.is_empty());
    assert_eq!(world.run(&[Vec::new()]), before);
    assert_eq!(world.tampering(), [""; 0]);
    // What was rebuilt is recorded, and once.
    let bus = world.bus();
    let shelf = world.start(&bus).unwrap();
    let request = super::all("action:RemoveSplit AND details.cause:rebuild AND actor:ada");
    let records = shelf.searcher.search(&request).unwrap().hits.len();
    assert_eq!(records, plan.again.len());
}

#[test]
fn what_the_log_has_lost_and_what_is_held_stays() {
    let world = World::new();
    let old = world.run(&[events(0..40, 9)]);
    world.drop_log(0);
    assert!(world.bus().bounds(Topic::Events, 0).unwrap().start > 0);
    // Repeats of the old ones, while their ids are known: they must not come again with the rebuild either.
    let before = world.run(&[events(30..60, 1), events(60..70, 0)]);
    assert_eq!(before.len(), 70);
    {
        let bus = world.bus();
        let holds = Holds::open(bus.clone(), &world.index()).unwrap();
        let new = NewHold {
            name: "case".into(),
            from: Some(NOW.plus(-3_600_000_000)),
            reason: "x".into(),
            ..NewHold::default()
        };
        holds.add(&new, "ada", NOW).unwrap();
    }
    let plan = world.rebuild();
    let kept: u64 = plan.kept.iter().map(|s| s.events).sum();
    assert!(kept >= old.len() as u64, "{plan:#?}");
    assert!(plan.kept.iter().any(|s| s.hold.as_deref() == Some("case")));
    assert_eq!(world.run(&[Vec::new()]), before);
    assert_eq!(
        world.run(&[events(0..70, 1)]),
        before,
        "and repeats are known as before"
    );
    assert_eq!(world.tampering(), [""; 0]);
}

#[test]
fn what_the_log_is_about_to_drop_stays() {
    let world = World::new();
    let mut old = events(0..30, 6);
    old.iter_mut()
        .for_each(|e| e.ingest_time = e.ingest_time.plus(-DAY / 2));
    let before = world.run(&[old, events(30..40, 1)]);
    let plan = world.rebuild();
    let kept: u64 = plan.kept.iter().map(|s| s.events).sum();
    assert!(kept >= 30 && !plan.again.is_empty(), "{plan:#?}");
    // The service starts, and retention is quicker than the index.
    world.drop_log(20);
    assert_eq!(world.run(&[Vec::new()]), before);
    assert_eq!(world.tampering(), [""; 0]);
}

#[test]
fn what_is_read_again_is_known_however_old_it_is() {
    let mut world = World::new();
    world.config.seen_days = 1;
    let mut old = events(0..30, 4);
    let first_class = old.iter_mut().filter(|e| e.search_days == 0);
    first_class.for_each(|e| e.time = e.time.plus(-6 * DAY));
    let before = world.run(&[old, events(30..40, 0)]);
    // Of two splits over the same offsets one is on hold and stays; its ids are forgotten by now.
    {
        let bus = world.bus();
        let holds = Holds::open(bus.clone(), &world.index()).unwrap();
        let new = NewHold {
            name: "case".into(),
            from: Some(NOW.plus(-5 * DAY)),
            to: Some(NOW.plus(-3 * DAY)),
            reason: "x".into(),
            ..NewHold::default()
        };
        holds.add(&new, "ada", NOW).unwrap();
    }
    let plan = world.rebuild();
    assert_eq!(
        plan.kept.iter().map(|s| s.events).sum::<u64>(),
        15,
        "{plan:#?}"
    );
    assert!(plan.again.iter().map(|s| s.events).sum::<u64>() >= 25);
    assert_eq!(world.run(&[Vec::new()]), before);
}

#[test]
fn a_damaged_split_is_mended() {
    let world = World::new();
    let before = world.run(&[events(0..40, 1)]);
    let (first, second) = {
        let bus = world.bus();
        let shelf = world.start(&bus).unwrap();
        (shelf.metas()[0].number, shelf.metas()[1].number)
    };
    damage(&world.folder(first));
    std::fs::remove_dir_all(world.folder(second)).unwrap();
    assert!(!world.tampering().is_empty());
    {
        // The service does not even open it, and the words say what to do (cli).
        let open = Searcher::open(
            &world.index(),
            &world.config,
            metrics(),
            world.clock.clock(),
        );
        assert!(open.is_err());
    }
    // While a hold may cover it, nobody takes it out.
    {
        let bus = world.bus();
        let holds = Holds::open(bus.clone(), &world.index()).unwrap();
        let new = NewHold {
            name: "case".into(),
            query: "n:1".into(),
            reason: "x".into(),
            ..NewHold::default()
        };
        holds.add(&new, "ada", NOW).unwrap();
        let refused = world.closed(&bus).rebuild(true, "a test", "ada");
        assert!(matches!(refused, Err(RebuildError::Held(2))), "{refused:?}");
        holds.release("case", "x").unwrap();
    }
    let plan = world.rebuild();
    assert_eq!(plan.damaged.len(), 2);
    assert_eq!(world.run(&[Vec::new()]), before);
    assert_eq!(world.tampering(), [""; 0], "it was the service");
}

#[test]
fn what_cannot_be_had_again_is_only_given_up_when_somebody_says_so() {
    let world = World::new();
    world.run(&[events(0..40, 9)]);
    world.drop_log(0);
    let before = world.run(&[events(40..50, 1)]);
    let lost = {
        let bus = world.bus();
        let shelf = world.start(&bus).unwrap();
        let first = shelf
            .metas()
            .into_iter()
            .min_by_key(|m| m.last_ingested)
            .unwrap();
        damage(&world.folder(first.number));
        first
    };
    let bus = world.bus();
    let refused = world.closed(&bus).rebuild(false, "a test", "ada");
    assert!(matches!(refused, Err(RebuildError::Lost(1))));
    let marked = bus.state_get(CONSUMER, 0, &[MARK.to_vec()]).unwrap();
    assert_eq!(marked, [None], "nothing has changed");
    let plan = world.closed(&bus).rebuild(true, "a test", "ada").unwrap();
    assert_eq!((plan.lost.len(), plan.lost[0].split), (1, lost.number));
    drop(bus);
    let after = world.run(&[Vec::new()]);
    // Chunks of the log go as a whole: some of the lost events may still be there.
    assert!(after.len() < before.len() && after.len() as u64 >= before.len() as u64 - lost.events);
    assert!((40..50).all(|n| after.contains(&n)));
}

#[test]
fn cut_off_it_does_not_start_and_doing_it_again_ends_it() {
    let world = World::new();
    let before = world.run(&[events(0..40, 1)]);
    for step in 0..3 {
        {
            let bus = world.bus();
            let closed = world.closed(&bus);
            closed.cut_off(step).unwrap();
            drop(closed);
            assert!(
                matches!(world.start(&bus), Err(IndexError::Rebuilding)),
                "step {step}"
            );
        }
        world.rebuild();
        assert_eq!(world.run(&[Vec::new()]), before, "step {step}");
        assert_eq!(world.tampering(), [""; 0], "step {step}");
    }
}

#[test]
fn by_hand_what_is_old_goes_with_a_reason() {
    let world = World::new();
    world.run(&[events(0..10, 9), events(10..20, 1)]);
    let bus = world.bus();
    let clock = world.clock.clock();
    let searcher = Searcher::open(&world.index(), &world.config, metrics(), clock.clone()).unwrap();
    searcher.attest(world.ledger());
    let closed = Closed::open(bus.clone(), searcher, &world.config, metrics(), clock).unwrap();
    let (old, held) = closed.older_than(NOW.plus(-5 * DAY));
    assert_eq!(
        (old.iter().map(|s| s.events).sum::<u64>(), held.len()),
        (10, 0)
    );
    let removed = closed
        .remove_older(NOW.plus(-5 * DAY), "the order of ada", "ada")
        .unwrap();
    assert_eq!(removed, old);
    assert_eq!(closed.older_than(NOW.plus(-5 * DAY)).0, []);
    drop(closed);
    drop(bus);
    assert_eq!(world.run(&[Vec::new()]), (10..20).collect::<Vec<_>>());
    assert_eq!(world.tampering(), [""; 0]);
    let history = History::read(&world.dir.path().join(FILE)).unwrap();
    let leaves = (0..history.hashes.len() as u64).filter_map(|n| history.leaf(n).unwrap());
    let said = leaves
        .filter(|leaf| leaf.contains("the order of ada (ada)"))
        .count();
    assert_eq!(said, 1, "the evidence log says it too");
}
