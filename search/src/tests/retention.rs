//! Life of what is indexed: classes of retention, the size of the index, holds, and the records of what goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bus::{Bus, Commit, Topic};
use event::{Event, Time};
use proptest::prelude::*;

use super::stage::{Stage, batch, read_all};
use super::{NOW, all, check, event, ids};
use crate::hold::{HoldError, Holds, Kept, NewHold};
use crate::indexer::{CONSUMER, Indexer, Shelf};
use crate::maintain::merge_once;
use crate::removal::{Cause, Due, announce, due, expire, remove};
use crate::split::Meta;
use crate::{Config, Kind, Request};

const DAY: i64 = 86_400_000_000;

fn of_class(mut event: Event, days: u32) -> Event {
    event.search_days = days;
    event
}

/// Indexes these events and publishes them.
fn index(stage: &Stage, shelf: &Shelf, events: &[Event]) {
    stage.append(events);
    let mut indexer = Indexer::open(shelf).unwrap();
    read_all(&mut indexer);
    indexer.publish().unwrap();
}

fn found(shelf: &Shelf, query: &str) -> Vec<u128> {
    let mut found = ids(&shelf.searcher.search(&all(query)).unwrap());
    found.sort_unstable();
    found
}

/// The removals on the log: split, cause, reason.
fn recorded(stage: &Stage) -> Vec<(u64, String, String)> {
    let mut records = Vec::new();
    for partition in 0..stage.bus.partitions(Topic::Events) {
        let mut from = stage.bus.bounds(Topic::Events, partition).unwrap().start;
        loop {
            let read = stage.bus.read(Topic::Events, partition, from, 1 << 20);
            let batch = read.unwrap();
            if batch.records.is_empty() {
                break;
            }
            from = batch.next;
            for (_, record) in batch.records {
                let event = Event::decode(&record.value).unwrap();
                if event.action != "RemoveSplit" {
                    continue;
                }
                assert_eq!(event.source, "trailwarden");
                let raw = event.to_json()["raw"]["details"].clone();
                let text = |key: &str| raw[key].as_str().unwrap().to_owned();
                assert!(
                    raw["events"].as_u64().unwrap() > 0 && raw["search_days"].as_u64() > Some(0)
                );
                records.push((
                    raw["split"].as_u64().unwrap(),
                    text("cause"),
                    text("reason"),
                ));
            }
        }
    }
    records.sort();
    records
}

fn hold(name: &str, from: Time, to: Time, query: &str) -> NewHold {
    NewHold {
        name: name.to_owned(),
        from: Some(from),
        to: Some(to),
        query: query.to_owned(),
        reason: "a case".to_owned(),
    }
}

#[test]
fn each_class_goes_when_its_days_are_over() {
    let config = Config {
        merge_splits: 2,
        ..Config::default()
    };
    let stage = Stage::new(config);
    let shelf = stage.start();
    for round in 0..4 {
        let events: Vec<Event> = (0..6)
            .map(|n| {
                of_class(
                    event(round * 6 + n, n as i64, "{}"),
                    [0, 7, 400][n as usize % 3],
                )
            })
            .collect();
        index(&stage, &shelf, &events);
    }
    assert_eq!(shelf.metas().len(), 12, "three classes in each publication");
    while merge_once(&shelf).unwrap() {}
    let classes: Vec<(u32, u64)> = shelf.metas().iter().map(|m| (m.days, m.events)).collect();
    assert_eq!(classes, [(0, 8), (7, 8), (400, 8)], "and never mixed");
    let left = |class: u128| -> Vec<u128> { (0..24).filter(|n| n % 3 >= class).collect() };
    for (days, expected) in [
        (7, (0..24).collect()),
        (8, (0..24).filter(|n| n % 3 != 1).collect()),
        (90, (0..24).filter(|n| n % 3 != 1).collect()),
        (91, left(2)),
        (400, left(2)),
        (401, Vec::new()),
    ] {
        let shelf = stage.start();
        stage.clock.forward(days * DAY - (shelf.clock)().0 + NOW.0);
        expire(&shelf).unwrap();
        assert_eq!(
            found(&shelf, "NOT source:trailwarden"),
            expected,
            "day {days}"
        );
    }
    assert_eq!(recorded(&stage).len(), 3);
}

#[test]
fn all_classes_are_published_as_one() {
    let stage = Stage::new(Config::default());
    {
        let shelf = stage.start();
        let classed = |range: std::ops::Range<u128>| -> Vec<Event> {
            let class = |e: Event| of_class(e.clone(), (e.id.0 % 4) as u32 * 10);
            batch(range).into_iter().map(class).collect()
        };
        index(&stage, &shelf, &classed(0..20));
        assert_eq!(shelf.metas().len(), 4);
        stage.append(&classed(20..60));
        let mut indexer = Indexer::open(&shelf).unwrap();
        read_all(&mut indexer);
        stage.bus.fail.store(true, Ordering::SeqCst);
        indexer.publish().unwrap_err();
        assert_eq!(stage.folders(), 8);
        check(&shelf.searcher, "", &(0..20).collect::<Vec<_>>());
    }
    stage.bus.fail.store(false, Ordering::SeqCst);
    let shelf = stage.start();
    assert_eq!(stage.folders(), 4);
    let mut indexer = Indexer::open(&shelf).unwrap();
    read_all(&mut indexer);
    indexer.publish().unwrap();
    check(&shelf.searcher, "", &(0..60).collect::<Vec<_>>());
}

#[test]
fn more_classes_than_there_may_be_are_kept_for_longer() {
    let stage = Stage::new(Config::default());
    let shelf = stage.start();
    // Those that are kept for longest come first: one partition is read after the other.
    let events: Vec<Event> = (0..40)
        .map(|n| of_class(event(n, 1, "{}"), 100 - n as u32))
        .collect();
    index(&stage, &shelf, &events);
    assert_eq!(found(&shelf, "").len(), 40);
    let metas = shelf.metas();
    assert!(metas.len() < 16, "{}", metas.len());
    // None is kept for less than was said.
    stage.clock.forward(60 * DAY);
    expire(&shelf).unwrap();
    let due = found(&shelf, "NOT source:trailwarden");
    assert!((0..40).all(|n| due.contains(&n)));
}

#[test]
fn the_oldest_go_when_the_index_is_too_large() {
    let config = Config {
        max_mib: 1,
        ..Config::default()
    };
    let stage = Stage::new(config);
    let shelf = stage.start();
    // Texts that do not compress: some 300 KB a split.
    let mut random = 1_u64;
    let mut noise = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        format!("{random:016x}")
    };
    for split in 0..8_u128 {
        let events: Vec<Event> = (0..100)
            .map(|n| {
                let text: String = (0..120).map(|_| noise()).collect();
                let mut event = event(split * 100 + n, 1, &format!(r#"{{"t":"{text}"}}"#));
                event.ingest_time = NOW.plus(split as i64 * 1_000_000);
                event
            })
            .collect();
        index(&stage, &shelf, &events);
    }
    let before = shelf.metas();
    let bytes: u64 = before.iter().map(|m| m.bytes).sum();
    assert!(bytes > 1 << 20, "{bytes}");
    // The oldest two are held: those after them go in their place.
    let holds = stage.holds();
    let made = holds.add(
        &hold("case-1", NOW.plus(-DAY), NOW, "time:>-1d"),
        "ada",
        NOW,
    );
    made.unwrap();
    holds.release("case-1", "a test").unwrap();
    shelf
        .holds
        .add(
            &NewHold {
                query: "id:*".into(),
                ..hold("case", NOW.plus(-DAY), NOW, "")
            },
            "ada",
            NOW,
        )
        .unwrap();
    expire(&shelf).unwrap();
    assert_eq!(shelf.metas(), before, "all of it is held");
    assert!(shelf.metrics.over.get() > 0 && shelf.metrics.held.get() == 8);
    shelf.holds.release("case", "closed").unwrap();
    expire(&shelf).unwrap();
    let after = shelf.metas();
    let bytes: u64 = after.iter().map(|m| m.bytes).sum();
    assert!(bytes <= 1 << 20 && !after.is_empty());
    let gone = before.len() - after.len();
    assert_eq!(
        after,
        before[gone..],
        "the oldest went, and no more than had to"
    );
    assert!(bytes + before[gone - 1].bytes > 1 << 20);
    let cut = shelf.holds.kept().cut.unwrap();
    assert_eq!(cut.until, before[gone - 1].last_ingested);
    assert_eq!(stage.holds().kept().cut, Some(cut), "it survives a restart");
    let records = recorded(&stage);
    assert_eq!(records.len(), gone);
    assert!(records.iter().all(|(_, cause, _)| cause == "size"));
    let removed = shelf.metrics.removed.with_label_values(&["size"]).get();
    assert_eq!(removed, gone as u64 * 100);
}

#[test]
fn what_is_on_hold_stays_until_it_is_released() {
    let stage = Stage::new(Config::default());
    {
        let shelf = stage.start();
        // Three splits, an hour apart, of two accounts.
        for (n, account) in [
            (0, "111122223333"),
            (1, "111122223333"),
            (2, "444455556666"),
        ] {
            let mut one = event(n, (3 - n as i64) * 3_600, "{}");
            one.account = account.into();
            index(&stage, &shelf, &[one]);
        }
        let hour = |n: i64| NOW.plus(-n * 3_600_000_000);
        let holds = &shelf.holds;
        // The range has two of them, the account one of these.
        let new = hold("IR-7", hour(2), hour(1), "account:444455556666");
        let made = holds.add(&new, "ada", NOW).unwrap();
        assert_eq!((made.by.as_str(), made.made), ("ada", NOW));
        assert_eq!(holds.add(&new, "bob", NOW).unwrap(), made);
        let other = hold("IR-7", hour(3), hour(1), "");
        let refused = holds.add(&other, "bob", NOW);
        assert!(matches!(refused, Err(HoldError::Exists(_))));
        let covered = holds.covered(&shelf.searcher);
        assert_eq!((covered[0].splits, covered[0].events), (1, 1));
    }
    // It survives a restart; a class of its own makes no difference.
    let shelf = stage.start();
    assert_eq!(shelf.holds.kept().holds.len(), 1);
    assert_eq!(Kept::read(&stage.index()).unwrap(), shelf.holds.kept());
    stage.clock.forward(91 * DAY);
    expire(&shelf).unwrap();
    assert_eq!(found(&shelf, "NOT source:trailwarden"), [2]);
    assert_eq!(shelf.metrics.held.get(), 1);
    assert!(matches!(
        shelf.holds.release("IR-7", " "),
        Err(HoldError::Reason)
    ));
    assert!(matches!(
        shelf.holds.release("IR-8", "x"),
        Err(HoldError::Unknown(_))
    ));
    shelf.holds.release("IR-7", "the case is closed").unwrap();
    expire(&shelf).unwrap();
    assert_eq!(found(&shelf, "NOT source:trailwarden"), []);
    assert_eq!(shelf.metrics.held.get(), 0);
    assert_eq!(stage.holds().kept().holds, []);
}

#[test]
fn a_hold_that_cannot_be_stored_does_not_hold() {
    let stage = Stage::new(Config::default());
    let shelf = stage.start();
    let new = hold("a", NOW, NOW, "");
    stage.bus.fail.store(true, Ordering::SeqCst);
    assert!(matches!(
        shelf.holds.add(&new, "ada", NOW),
        Err(HoldError::Bus(_))
    ));
    assert_eq!(shelf.holds.kept().holds, []);
    stage.bus.fail.store(false, Ordering::SeqCst);
    shelf.holds.add(&new, "ada", NOW).unwrap();
    stage.bus.fail.store(true, Ordering::SeqCst);
    assert!(shelf.holds.release("a", "done").is_err());
    assert_eq!(shelf.holds.kept().holds.len(), 1, "it goes on to hold");
}

#[test]
fn nonsense_is_no_hold() {
    let stage = Stage::new(Config::default());
    let holds = stage.holds();
    let good = hold("a", NOW, NOW, "");
    let refused = |new: NewHold, words: &str| {
        let error = holds.add(&new, "ada", NOW).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let with = |change: fn(&mut NewHold)| {
        let mut new = good.clone();
        change(&mut new);
        new
    };
    refused(with(|h| h.name = "../a".into()), "no name for a hold");
    refused(with(|h| h.name = String::new()), "no name for a hold");
    refused(with(|h| h.reason = " ".into()), "needs a reason");
    refused(
        with(|h| (h.from, h.to) = (None, None)),
        "a time range or a query",
    );
    refused(with(|h| h.to = Some(NOW.plus(-1))), "before it begins");
    refused(with(|h| h.query = "account:(".into()), "query of the hold");
    for n in 0..100 {
        holds
            .add(
                &NewHold {
                    name: format!("h{n}"),
                    ..good.clone()
                },
                "ada",
                NOW,
            )
            .unwrap();
    }
    refused(with(|h| h.name = "h100".into()), "there may be no more");
}

#[test]
fn every_removal_is_on_the_log_once() {
    let stage = Stage::new(Config::default());
    {
        let shelf = stage.start();
        index(&stage, &shelf, &batch(0..3));
        index(&stage, &shelf, &[of_class(event(5, 1, "{}"), 7)]);
        let metas = shelf.metas();
        // Removed, and killed before the record is on the log: the log is full.
        remove(&shelf, &metas[..1], Cause::Hand, ("a test", "ada")).unwrap();
        stage.bus.full.store(true, Ordering::SeqCst);
        announce(&shelf).unwrap_err();
        assert_eq!(recorded(&stage), []);
        // And killed between the record and the note that it is there.
        stage.bus.full.store(false, Ordering::SeqCst);
        stage.bus.fail.store(true, Ordering::SeqCst);
        announce(&shelf).unwrap_err();
        assert_eq!(recorded(&stage).len(), 1);
    }
    stage.bus.fail.store(false, Ordering::SeqCst);
    let shelf = stage.start();
    announce(&shelf).unwrap();
    announce(&shelf).unwrap();
    // It came twice, and counts once.
    let mut indexer = Indexer::open(&shelf).unwrap();
    read_all(&mut indexer);
    indexer.publish().unwrap();
    let query = "action:RemoveSplit AND details.cause:hand AND actor:ada";
    let hits = shelf.searcher.search(&all(query)).unwrap().hits;
    assert_eq!(hits.len(), 1);
    let raw = hits[0].to_json()["raw"].clone();
    assert_eq!(raw["details"]["events"], 3);
    assert_eq!(raw["details"]["reason"], "a test");
    stage.clock.forward(8 * DAY);
    expire(&shelf).unwrap();
    let causes: Vec<String> = recorded(&stage)
        .into_iter()
        .map(|(_, cause, _)| cause)
        .collect();
    assert_eq!(causes, ["hand", "hand", "age"]);
    let left = stage.bus.state_scan(CONSUMER, 0, b"removed/").unwrap();
    assert_eq!(left, []);
}

#[test]
fn findings_stay_while_there_is_a_hold() {
    let stage = Stage::new(Config::default());
    let shelf = stage.start();
    let put = |id: u128| {
        let finding = event::Finding {
            id: event::Id(id),
            episode: event::Id(id),
            time: NOW,
            ..event::Finding::default()
        };
        let record = bus::Record {
            key: "k".into(),
            value: serde_json::to_vec(&finding).unwrap().into(),
            time: (shelf.clock)(),
        };
        stage.bus.append(Topic::Findings, vec![record]).unwrap();
        let mut indexer = crate::maintain::FindingIndexer::open(&shelf).unwrap();
        while indexer.step().unwrap() {}
        indexer.commit().unwrap();
        let request = Request {
            kind: Kind::Findings,
            ..all("")
        };
        shelf.searcher.search(&request).unwrap().findings.len()
    };
    assert_eq!(put(1), 1);
    shelf
        .holds
        .add(&hold("a", NOW, NOW, ""), "ada", NOW)
        .unwrap();
    stage.clock.forward(91 * DAY);
    assert_eq!(put(2), 2);
    shelf.holds.release("a", "closed").unwrap();
    assert_eq!(put(3), 2);
}

/// A split for the model: class, age of its latest event in days, MiB, held?
type Split = (u32, i64, u64, bool);

/// What goes, said slowly: everything that is too old and not held; then, as long as the rest is too large, the oldest
/// that is not held.
fn naive(splits: &[Split], retention: i64, most: u64) -> (Vec<usize>, Vec<usize>) {
    let old = |s: &Split| s.1 > if s.0 == 0 { retention } else { i64::from(s.0) };
    let age: Vec<usize> = (0..splits.len())
        .filter(|n| old(&splits[*n]) && !splits[*n].3)
        .collect();
    let mut left: Vec<usize> = (0..splits.len()).filter(|n| !age.contains(n)).collect();
    let mut size = Vec::new();
    while most > 0 && left.iter().map(|n| splits[*n].2).sum::<u64>() > most {
        let movable = left.iter().filter(|n| !splits[**n].3);
        let Some(oldest) = movable
            .max_by_key(|n| (splits[**n].1, std::cmp::Reverse(**n)))
            .copied()
        else {
            break;
        };
        left.retain(|n| *n != oldest);
        size.push(oldest);
    }
    size.sort_unstable();
    (age, size)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_due_is_what_the_naive_list_says(
        splits in prop::collection::vec((prop::sample::select(vec![0_u32, 1, 7, 30, 400]), 0..500_i64, 1..60_u64, any::<bool>()), 0..25),
        retention in 1..120_u32,
        most in 0..300_u64,
    ) {
        let metas: Vec<Meta> = splits.iter().enumerate().map(|(n, s)| Meta {
            number: n as u64,
            days: s.0,
            bytes: s.2 << 20,
            last_ingested: NOW.plus(-s.1 * DAY),
            ..Meta::default()
        }).collect();
        let config = Config { retention_days: retention, max_mib: most, ..Config::default() };
        let Due { age, mut size, over, .. } = due(&metas, &config, NOW, &mut |m| splits[m.number as usize].3);
        size.sort_by_key(|m| m.number);
        let numbers = |metas: &[Meta]| metas.iter().map(|m| m.number as usize).collect::<Vec<_>>();
        let expected = naive(&splits, i64::from(retention), most);
        prop_assert_eq!((numbers(&age), numbers(&size)), expected.clone());
        let left: u64 = metas.iter().filter(|m| {
            let n = m.number as usize;
            !expected.0.contains(&n) && !expected.1.contains(&n)
        }).map(|m| m.bytes).sum();
        prop_assert_eq!(over, if most == 0 { 0 } else { left.saturating_sub(most << 20) });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("TRAILWARDEN_LONG").is_some() { 200 } else { 5 }))]

    /// Whatever is taken in, merged and killed: an event is there, once, as long as its class is searchable, and gone when
    /// nothing in its class is younger.
    #[test]
    fn every_event_lives_as_long_as_its_class(
        rounds in prop::collection::vec((prop::collection::vec(prop::sample::select(vec![0_u32, 2, 30]), 1..8), 0..6_i64, any::<bool>()), 1..8),
    ) {
        let config = Config { retention_days: 9, merge_splits: 2, ..Config::default() };
        let stage = Stage::new(config);
        let mut shelf = stage.start();
        let mut known: BTreeMap<u128, (u32, Time)> = BTreeMap::new();
        for (classes, days, killed) in rounds {
            let now = (shelf.clock)();
            let first = known.len() as u128;
            let events: Vec<Event> = classes.iter().zip(first..).map(|(class, id)| {
                let mut one = of_class(event(id, 1, "{}"), *class);
                one.ingest_time = now;
                known.insert(id, (*class, now));
                one
            }).collect();
            index(&stage, &shelf, &events);
            while merge_once(&shelf).unwrap() {}
            stage.clock.forward(days * DAY + 1);
            if killed {
                stage.bus.fail.store(true, Ordering::SeqCst);
                let _ = expire(&shelf);
                stage.bus.fail.store(false, Ordering::SeqCst);
                drop(shelf);
                shelf = stage.start();
            }
            expire(&shelf).unwrap();
            let now = (shelf.clock)();
            let there = found(&shelf, "NOT source:trailwarden");
            let mut once = there.clone();
            once.dedup();
            prop_assert_eq!(&there, &once);
            for (id, (class, taken)) in &known {
                let days = if *class == 0 { 9 } else { i64::from(*class) };
                let young = *taken >= now.plus(-days * DAY);
                prop_assert!(!young || there.contains(id), "{} of class {} is gone too soon", id, class);
                // Merged splits span a thirtieth of their days or an hour: here, what came at one time.
                prop_assert!(young || !there.contains(id), "{} of class {} is still there", id, class);
            }
        }
    }
}

/// The state of the index may be changed by others while it runs: a hold is one commit among those of the stage.
#[test]
fn a_hold_does_not_get_in_the_way_of_publishing() {
    let stage = Stage::new(Config::default());
    let shelf = stage.start();
    let holds: Arc<Holds> = shelf.holds.clone();
    stage.append(&batch(0..5));
    let mut indexer = Indexer::open(&shelf).unwrap();
    read_all(&mut indexer);
    holds.add(&hold("a", NOW, NOW, ""), "ada", NOW).unwrap();
    indexer.publish().unwrap();
    check(&shelf.searcher, "", &[0, 1, 2, 3, 4]);
    stage
        .bus
        .commit(Commit {
            consumer: CONSUMER.into(),
            ..Commit::default()
        })
        .unwrap();
    assert_eq!(stage.holds().kept().holds.len(), 1);
}
