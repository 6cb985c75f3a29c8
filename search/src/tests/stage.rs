//! The index stage on a real log: repeats, crashes, merges, retention, findings.
//!
//! [`Stage`] is a data folder with the embedded log and a clock that stands still, so that every test says itself when time
//! passes. A crash is a commit that fails after the split is on the disk, followed by opening everything anew. Threads are
//! used in one test only; all others call the steps of the stage by themselves.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bus::embedded::EmbeddedBus;
use bus::ledger::Why;
use bus::{Batch, Bus, BusError, Commit, Entry, Offset, Record, Stop, Topic};
use bytes::Bytes;
use event::{Event, Finding, Flag, Id, Severity, Time};

use super::{NOW, TestClock, all, check, event, ids, metrics};
use crate::evidence::seal::Change;
use crate::hold::Holds;
use crate::indexer::{CONSUMER, Indexer, Shelf, run};
use crate::maintain::{FindingIndexer, merge_once, plan};
use crate::removal::expire;
use crate::split::Meta;
use crate::{Config, Kind, Request, Searcher};

/// The log, with commits and appends that can be made to fail.
pub(super) struct TestBus {
    pub(super) inner: EmbeddedBus,
    /// No commit takes effect.
    pub(super) fail: AtomicBool,
    /// Nothing can be appended.
    pub(super) full: AtomicBool,
}

fn full() -> BusError {
    BusError::DiskFull {
        path: "test".to_owned(),
    }
}

impl Bus for TestBus {
    fn partitions(&self, topic: Topic) -> u32 {
        self.inner.partitions(topic)
    }
    fn append(&self, topic: Topic, records: Vec<Record>) -> Result<(), BusError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(full());
        }
        self.inner.append(topic, records)
    }
    fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Batch, BusError> {
        self.inner.read(topic, partition, from, max_bytes)
    }
    fn wait(
        &self,
        topic: Topic,
        from: &[(u32, Offset)],
        timeout: std::time::Duration,
    ) -> Result<bool, BusError> {
        self.inner.wait(topic, from, timeout)
    }
    fn bounds(&self, topic: Topic, partition: u32) -> Result<std::ops::Range<Offset>, BusError> {
        self.inner.bounds(topic, partition)
    }
    fn commit(&self, commit: Commit) -> Result<(), BusError> {
        if self.fail.load(Ordering::SeqCst) {
            return Err(full());
        }
        self.inner.commit(commit)
    }
    fn position(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<Offset>, BusError> {
        self.inner.position(consumer, topic, partition)
    }
    fn state_get(
        &self,
        consumer: &str,
        partition: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        self.inner.state_get(consumer, partition, keys)
    }
    fn state_scan(
        &self,
        consumer: &str,
        partition: u32,
        prefix: &[u8],
    ) -> Result<Vec<Entry>, BusError> {
        self.inner.state_scan(consumer, partition, prefix)
    }
    fn retain(&self, now: Time) -> Result<(), BusError> {
        self.inner.retain(now)
    }
}

pub(super) struct Stage {
    pub(super) dir: tempfile::TempDir,
    pub(super) bus: Arc<TestBus>,
    pub(super) clock: TestClock,
    pub(super) config: Config,
    /// Where publications are written down, if they are.
    pub(super) ledger: Option<Arc<bus::ledger::Ledger>>,
}

impl Stage {
    pub(super) fn new(config: Config) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let inner = EmbeddedBus::open(&dir.path().join("bus"), Default::default()).unwrap();
        Stage {
            dir,
            bus: Arc::new(TestBus {
                inner,
                fail: AtomicBool::new(false),
                full: AtomicBool::new(false),
            }),
            clock: TestClock::new(),
            config,
            ledger: None,
        }
    }

    pub(super) fn index(&self) -> PathBuf {
        self.dir.path().join("index")
    }

    pub(super) fn append(&self, events: &[Event]) {
        let records = events
            .iter()
            .map(|e| Record {
                key: Bytes::copy_from_slice(e.partition_key().as_bytes()),
                value: e.encode().into(),
                time: NOW,
            })
            .collect();
        self.bus.append(Topic::Events, records).unwrap();
    }

    /// The holds as the bus has them.
    pub(super) fn holds(&self) -> Arc<Holds> {
        Arc::new(Holds::open(self.bus.clone(), &self.index()).unwrap())
    }

    /// As after a start of the program.
    pub(super) fn start(&self) -> Shelf {
        let searcher =
            Searcher::open(&self.index(), &self.config, metrics(), self.clock.clock()).unwrap();
        if let Some(ledger) = &self.ledger {
            searcher.attest(ledger.clone());
        }
        Shelf::open(
            self.bus.clone(),
            (searcher, self.holds()),
            &self.config,
            metrics(),
            self.clock.clock(),
        )
        .unwrap()
    }

    pub(super) fn folders(&self) -> usize {
        std::fs::read_dir(self.index().join("splits"))
            .unwrap()
            .count()
    }
}

pub(super) fn read_all(indexer: &mut Indexer<'_>) {
    while indexer.step().unwrap() {}
}

fn numbers(range: std::ops::Range<u128>) -> Vec<u128> {
    range.collect()
}

pub(super) fn batch(range: std::ops::Range<u128>) -> Vec<Event> {
    range
        .map(|i| event(i, i as i64, &format!(r#"{{"n":{i}}}"#)))
        .collect()
}

#[test]
fn repeats_are_dropped_and_conflicts_are_kept() {
    let stage = Stage::new(Config::default());
    let shelf = stage.start();
    let other = event(3, 3, r#"{"n":"other"}"#);
    stage.append(&batch(0..5));
    stage.append(&batch(0..5));
    stage.append(std::slice::from_ref(&other));
    let mut indexer = Indexer::open(&shelf).unwrap();
    read_all(&mut indexer);
    // Not published yet: the repeats within the split count as well.
    stage.append(&batch(2..7));
    stage.append(std::slice::from_ref(&other));
    read_all(&mut indexer);
    check(&shelf.searcher, "", &[]);
    indexer.publish().unwrap();
    stage.append(&batch(0..8));
    stage.append(&[other]);
    read_all(&mut indexer);
    indexer.publish().unwrap();
    check(&shelf.searcher, "NOT flags:*", &numbers(0..8));
    let conflicts = shelf
        .searcher
        .search(&all("flags:id_conflict"))
        .unwrap()
        .hits;
    assert_eq!(conflicts.len(), 1);
    assert!(conflicts[0].flags.has(Flag::IdConflict) && conflicts[0].id != Id(3));
    assert_eq!(
        shelf.searcher.events(&[conflicts[0].id]).unwrap(),
        conflicts
    );
    assert_eq!(shelf.metas().len(), 2);
}

#[test]
fn of_what_is_only_matched_the_copy_is_indexed_once() {
    let stage = Stage::new(Config::default());
    let shelf = stage.start();
    let flagged = |number: u128, flags: &[Flag]| {
        let mut event = event(number, number as i64, &format!(r#"{{"n":{number}}}"#));
        flags.iter().for_each(|f| event.flags.set(*f));
        event
    };
    stage.append(&[
        flagged(1, &[Flag::RulesOnly]),
        flagged(2, &[Flag::RulesOnly]),
        flagged(3, &[Flag::Archived]),
        flagged(4, &[]),
    ]);
    let mut indexer = Indexer::open(&shelf).unwrap();
    read_all(&mut indexer);
    indexer.publish().unwrap();
    check(&shelf.searcher, "", &[4]);
    let dropped = |reason| {
        let dropped = &shelf.metrics.dropped;
        dropped.with_label_values(&[reason]).get()
    };
    assert_eq!(dropped("tier"), 3);
    // The copy comes twice: the stage before died between appending it and its commit.
    let copy = flagged(2, &[Flag::RulesOnly, Flag::Evidence]);
    stage.append(std::slice::from_ref(&copy));
    read_all(&mut indexer);
    indexer.publish().unwrap();
    stage.append(&[copy]);
    read_all(&mut indexer);
    indexer.publish().unwrap();
    check(&shelf.searcher, "", &[2, 4]);
    check(&shelf.searcher, "flags:evidence", &[2]);
    assert_eq!((dropped("tier"), dropped("repeat")), (3, 1));
}

#[test]
fn what_is_read_again_comes_back_and_is_there_once() {
    let stage = Stage::new(Config {
        seen_days: 1,
        ..Config::default()
    });
    let again = |range: std::ops::Range<u128>| {
        let mut events = batch(range);
        let flagged = events.iter_mut();
        flagged.for_each(|e| e.flags.set(Flag::Restored));
        events
    };
    let shelf = stage.start();
    let mut indexer = Indexer::open(&shelf).unwrap();
    let mut read = |events: &[Event]| {
        stage.append(events);
        read_all(&mut indexer);
        indexer.publish().unwrap();
    };
    read(&batch(0..10));
    // Remembered or forgotten, the index has it.
    read(&again(5..12));
    stage.clock.forward(2 * 86_400_000_000);
    stage.bus.retain((stage.clock.clock())()).unwrap();
    read(&again(0..14));
    check(&shelf.searcher, "", &numbers(0..14));
    check(&shelf.searcher, "flags:restored", &numbers(10..14));
    // Twice in one go, with other content, and from a source that is late.
    let mut other = event(14, 14, r#"{"n":"other"}"#);
    other.flags.set(Flag::Restored);
    read(&[&again(14..16)[..], &[other], &again(14..16)].concat());
    read(&batch(12..17));
    check(&shelf.searcher, "", &numbers(0..17));
    // What the index has lost comes back, though its ids are remembered.
    let lost = Change {
        why: Why::Removed,
        added: &[],
        removed: &shelf.metas(),
        reason: "a test",
    };
    shelf.publish(&lost, Commit::default()).unwrap();
    check(&shelf.searcher, "", &[]);
    read(&again(12..17));
    check(&shelf.searcher, "", &numbers(12..17));
    // Of no time of its own: it had another time before.
    let mut timeless = event(13, 5_000, r#"{"n":13}"#);
    timeless.flags.set(Flag::Restored);
    timeless.flags.set(Flag::TsInferred);
    read(&[timeless]);
    check(&shelf.searcher, "", &numbers(12..17));
}

#[test]
fn a_split_is_published_when_it_is_full_or_old() {
    let stage = Stage::new(Config {
        split_events: 10,
        ..Config::default()
    });
    let shelf = stage.start();
    let mut indexer = Indexer::open(&shelf).unwrap();
    stage.append(&batch(0..3));
    read_all(&mut indexer);
    check(&shelf.searcher, "", &[]);
    stage.clock.forward(2_000_000);
    indexer.step().unwrap();
    check(&shelf.searcher, "", &numbers(0..3));
    stage.append(&batch(3..40));
    read_all(&mut indexer);
    assert!(shelf.metas().len() > 1);
}

#[test]
fn a_crash_between_building_and_publishing_loses_and_doubles_nothing() {
    let stage = Stage::new(Config::default());
    {
        let shelf = stage.start();
        let mut indexer = Indexer::open(&shelf).unwrap();
        stage.append(&batch(0..20));
        read_all(&mut indexer);
        indexer.publish().unwrap();
        stage.append(&batch(20..50));
        read_all(&mut indexer);
        stage.bus.fail.store(true, Ordering::SeqCst);
        // The split is on the disk, and the commit that publishes it fails: as if the program had been killed there.
        indexer.publish().unwrap_err();
        assert_eq!(stage.folders(), 2);
        check(&shelf.searcher, "", &numbers(0..20));
    }
    stage.bus.fail.store(false, Ordering::SeqCst);
    let shelf = stage.start();
    assert_eq!(stage.folders(), 1);
    check(&shelf.searcher, "", &numbers(0..20));
    let mut indexer = Indexer::open(&shelf).unwrap();
    read_all(&mut indexer);
    indexer.publish().unwrap();
    check(&shelf.searcher, "", &numbers(0..50));
    // A crash after the commit and before the manifest is made good by the next start.
    std::fs::remove_file(stage.index().join("manifest.json")).unwrap();
    drop(indexer);
    drop(shelf);
    let shelf = stage.start();
    check(&shelf.searcher, "", &numbers(0..50));
    let reader = Searcher::open(
        &stage.index(),
        &stage.config,
        metrics(),
        stage.clock.clock(),
    )
    .unwrap();
    check(&reader, "", &numbers(0..50));
}

#[test]
fn merging_keeps_every_event_once_and_searches_go_on() {
    let config = Config {
        split_events: 1,
        merge_splits: 3,
        ..Config::default()
    };
    let stage = Stage::new(config);
    let shelf = stage.start();
    let other = Searcher::open(
        &stage.index(),
        &stage.config,
        metrics(),
        stage.clock.clock(),
    )
    .unwrap();
    let mut indexer = Indexer::open(&shelf).unwrap();
    for i in 0..28 {
        // Later splits are newer, so that merging has to put them in order; every third is older than all.
        let seconds = if i % 3 == 0 {
            500 + i as i64
        } else {
            100 - i as i64
        };
        stage.append(&[event(i, seconds, "{}")]);
        read_all(&mut indexer);
    }
    check(&other, "", &numbers(0..28));
    let before = shelf.metas();
    assert_eq!(before.len(), 28);
    let held = shelf.searcher.catalog().current().unwrap();
    while merge_once(&shelf).unwrap() {
        check(&shelf.searcher, "", &numbers(0..28));
        check(&other, "", &numbers(0..28));
    }
    let after = shelf.metas();
    assert_eq!(after.iter().map(|m| m.events).collect::<Vec<_>>(), [27, 1]);
    // Whoever still reads the old splits can; they go with the last reader.
    assert!(stage.folders() > 28);
    assert_eq!(
        held.iter().map(|s| s.searcher().num_docs()).sum::<u64>(),
        28
    );
    drop(held);
    assert_eq!(stage.folders(), 2);
    let newest: Vec<u128> = ids(&shelf
        .searcher
        .search(&Request {
            limit: 5,
            ..all("")
        })
        .unwrap());
    assert_eq!(newest, [26, 25, 23, 22, 20]);
    let range = Request {
        from: Some(NOW.plus(-503_000_000)),
        to: Some(NOW.plus(-95_000_000)),
        ..all("")
    };
    assert_eq!(
        ids(&shelf.searcher.search(&range).unwrap()),
        [5, 4, 2, 1, 0, 3]
    );
    // Every offset is covered once.
    let mut covered: Vec<(u32, u64, u64)> = after.iter().flat_map(|m| m.offsets.clone()).collect();
    covered.sort_unstable();
    assert_eq!(covered.iter().map(|c| c.2 - c.1).sum::<u64>(), 28);
    drop(indexer);
    drop(shelf);
    check(&stage.start().searcher, "", &numbers(0..28));
}

#[test]
fn a_merge_that_cannot_be_published_leaves_no_trace() {
    let config = Config {
        split_events: 1,
        merge_splits: 2,
        ..Config::default()
    };
    let stage = Stage::new(config);
    let shelf = stage.start();
    let mut indexer = Indexer::open(&shelf).unwrap();
    for i in 0..2 {
        stage.append(&batch(i..i + 1));
        read_all(&mut indexer);
    }
    stage.bus.fail.store(true, Ordering::SeqCst);
    merge_once(&shelf).unwrap_err();
    assert_eq!(stage.folders(), 2);
    check(&shelf.searcher, "", &[0, 1]);
    stage.bus.fail.store(false, Ordering::SeqCst);
    assert!(merge_once(&shelf).unwrap());
    assert_eq!(stage.folders(), 1);
    check(&shelf.searcher, "", &[0, 1]);
}

#[test]
fn splits_expire_by_the_time_of_intake() {
    let stage = Stage::new(Config::default());
    let shelf = stage.start();
    let mut indexer = Indexer::open(&shelf).unwrap();
    // An old event taken in today, and one from the future.
    let old = event(1, 400 * 86_400, "{}");
    let future = event(2, -4_000 * 86_400, "{}");
    stage.append(&[old, future]);
    read_all(&mut indexer);
    indexer.publish().unwrap();
    stage.clock.forward(89 * 86_400_000_000);
    expire(&shelf).unwrap();
    check(&shelf.searcher, "", &[1, 2]);
    stage.clock.forward(2 * 86_400_000_000);
    expire(&shelf).unwrap();
    check(&shelf.searcher, "", &[]);
    assert_eq!(stage.folders(), 0);
}

#[test]
fn what_is_merged_next() {
    let metas = |events: &[u64]| -> Vec<Meta> {
        events
            .iter()
            .enumerate()
            .map(|(i, n)| Meta {
                number: i as u64,
                order: i as u64,
                events: *n,
                ..Meta::default()
            })
            .collect()
    };
    let config = Config {
        merge_splits: 3,
        merged_events: 1_000,
        ..Config::default()
    };
    let plan = |metas: &[Meta]| -> Option<std::ops::Range<usize>> {
        let planned = plan(metas, &config)?;
        let first = metas.iter().position(|m| *m == planned[0]).unwrap();
        assert_eq!(metas[first..first + planned.len()], planned);
        Some(first..first + planned.len())
    };
    let planned = |events: &[u64]| plan(&metas(events));
    assert_eq!(planned(&[1, 1]), None);
    assert_eq!(planned(&[1, 1, 1]), Some(0..3));
    assert_eq!(planned(&[100, 1, 1, 1, 1]), Some(1..4));
    assert_eq!(planned(&[600, 1, 1, 600]), None);
    // A small one between larger ones goes with them in the end.
    assert_eq!(planned(&[100, 1, 100]), Some(0..3));
    assert_eq!(planned(&[400, 400, 400]), None);
    let mut spread = metas(&[1, 1, 1, 1]);
    spread[0].first_ingested = Time(0);
    for meta in &mut spread[1..] {
        (meta.first_ingested, meta.last_ingested) =
            (Time(200 * 86_400_000_000), Time(200 * 86_400_000_000));
    }
    assert_eq!(plan(&spread), Some(1..4));
    // Formats are not mixed.
    let mut formats = metas(&[1, 1, 1, 1, 1]);
    formats[2..].iter_mut().for_each(|m| m.format = 2);
    assert_eq!(plan(&formats), Some(2..5));
    formats[4].format = 0;
    assert_eq!(plan(&formats), None);
}

fn finding(episode: u128, revision: u64, severity: Severity) -> Finding {
    Finding {
        id: Id(episode),
        episode: Id(episode),
        revision,
        severity,
        title: "Root login".into(),
        time: NOW.plus(-(episode as i64) * 1_000_000),
        group: [("sourceIPAddress".into(), Some("203.0.113.7".into()))].into(),
        tags: vec!["attack.t1110".into()],
        ..Finding::default()
    }
}

fn append_finding(stage: &Stage, finding: &Finding) {
    let record = Record {
        key: finding.episode.to_string().into(),
        value: serde_json::to_vec(finding).unwrap().into(),
        time: NOW,
    };
    stage.bus.append(Topic::Findings, vec![record]).unwrap();
}

fn found(searcher: &Searcher, query: &str) -> Vec<(u128, u64)> {
    let answer = searcher
        .search(&Request {
            kind: Kind::Findings,
            ..all(query)
        })
        .unwrap();
    answer
        .findings
        .iter()
        .map(|f| (f.episode.0, f.revision))
        .collect()
}

#[test]
fn findings_are_kept_by_id() {
    let stage = Stage::new(Config::default());
    {
        let shelf = stage.start();
        let mut indexer = FindingIndexer::open(&shelf).unwrap();
        for (episode, revision, severity) in [
            (1, 0, Severity::Low),
            (2, 0, Severity::High),
            (1, 1, Severity::High),
        ] {
            append_finding(&stage, &finding(episode, revision, severity));
        }
        while indexer.step().unwrap() {}
        indexer.commit().unwrap();
        assert_eq!(found(&shelf.searcher, ""), [(1, 1), (2, 0)]);
        for query in [
            "severity:high",
            "title:\"root login\"",
            "login",
            "group.sourceIPAddress:203.0.113.0/24",
            "tags:attack.*",
            "time:>-1m",
            "id:* AND NOT revision:5",
            "raw.severity:high",
        ] {
            assert_eq!(found(&shelf.searcher, query), [(1, 1), (2, 0)], "{query}");
        }
        assert_eq!(found(&shelf.searcher, "severity:low"), []);
        // An older revision that comes again changes nothing.
        append_finding(&stage, &finding(1, 0, Severity::Low));
        append_finding(&stage, &finding(2, 1, Severity::Critical));
        while indexer.step().unwrap() {}
        indexer.commit().unwrap();
        assert_eq!(found(&shelf.searcher, ""), [(1, 1), (2, 1)]);
        // An event that came late gives the episode another name, and the finding keeps its own.
        let renamed = Finding {
            episode: Id(3),
            ..finding(2, 2, Severity::Critical)
        };
        append_finding(&stage, &renamed);
        while indexer.step().unwrap() {}
        indexer.commit().unwrap();
        assert_eq!(found(&shelf.searcher, ""), [(1, 1), (3, 2)]);
        let request = Request {
            kind: Kind::Findings,
            ..all("")
        };
        let top = shelf.searcher.top(&request, "severity", 5).unwrap();
        assert_eq!(top, [("critical".to_owned(), 1), ("high".to_owned(), 1)]);
        let bars = shelf.searcher.histogram(&request, 2).unwrap();
        assert_eq!(bars.iter().map(|b| b.count).collect::<Vec<_>>(), [1, 1]);
    }
    // After a restart nothing is read again, and other processes see the same.
    let shelf = stage.start();
    let mut indexer = FindingIndexer::open(&shelf).unwrap();
    assert!(!indexer.step().unwrap());
    let other = Searcher::open(
        &stage.index(),
        &stage.config,
        metrics(),
        stage.clock.clock(),
    )
    .unwrap();
    assert_eq!(found(&other, ""), [(1, 1), (3, 2)]);
    assert!(stage.bus.position(CONSUMER, Topic::Findings, 0).is_ok());
    stage.clock.forward(91 * 86_400_000_000);
    append_finding(&stage, &finding(3, 0, Severity::Low));
    while indexer.step().unwrap() {}
    indexer.commit().unwrap();
    assert_eq!(found(&other, ""), []);
}

#[test]
fn what_is_no_event_does_not_stop_the_stage() {
    let stage = Stage::new(Config::default());
    let shelf = stage.start();
    let bad = Record {
        key: "k".into(),
        value: "no event".into(),
        time: NOW,
    };
    stage.bus.append(Topic::Events, vec![bad]).unwrap();
    stage.append(&batch(0..2));
    let mut indexer = Indexer::open(&shelf).unwrap();
    read_all(&mut indexer);
    indexer.publish().unwrap();
    check(&shelf.searcher, "", &[0, 1]);
    assert_eq!(
        shelf
            .metrics
            .dropped
            .with_label_values(&["unreadable"])
            .get(),
        1
    );
}

#[test]
fn the_whole_stage_stops_when_it_is_told_and_publishes_what_it_has() {
    let stage = Stage::new(Config::default());
    let searcher = Searcher::open(
        &stage.index(),
        &stage.config,
        metrics(),
        stage.clock.clock(),
    )
    .unwrap();
    stage.append(&batch(0..9));
    let stop = Stop::default();
    let bus: Arc<dyn Bus> = stage.bus.clone();
    std::thread::scope(|scope| {
        let stage_thread = scope.spawn(|| {
            run(
                bus,
                (searcher.clone(), stage.holds()),
                &stage.config,
                metrics(),
                stage.clock.clock(),
                stop.clone(),
            )
        });
        // The clock stands still, so that only the stop publishes; the stage is done reading when the log is quiet.
        while stage.folders_or_none() == 0 {
            std::thread::yield_now();
        }
        stop.stop();
        stage_thread.join().unwrap().unwrap();
    });
    let left = searcher.search(&all("")).unwrap().hits.len();
    let shelf = stage.start();
    let mut indexer = Indexer::open(&shelf).unwrap();
    read_all(&mut indexer);
    indexer.publish().unwrap();
    assert!(left > 0);
    check(&shelf.searcher, "", &numbers(0..9));
}

impl Stage {
    fn folders_or_none(&self) -> usize {
        std::fs::read_dir(self.index().join("splits")).map_or(0, Iterator::count)
    }
}
