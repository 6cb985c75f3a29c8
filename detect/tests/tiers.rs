//! The match stage and tiers: what is only matched gets a copy for the index if a rule matches it, what is archived is
//! not looked at, and a stage that dies between copy and commit changes nothing in the end.
#![expect(clippy::unwrap_used, reason = "a test fails where it is wrong")]

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, Record, Topic};
use detect::engine::Engine;
use detect::item::Placeholders;
use detect::match_stage::{Metrics, Rules, Worker};
use detect::rule_set::{RuleFile, RuleSet};
use event::{Clock, Event, Finding, Flag, Id, Time};
use memory::MemoryBus;

const RULES: &str = "\
title: Trail stopped
id: 6f3e2987-db24-4c78-a860-b4f4095a7095
logsource: {product: aws}
detection: {sel: {action: StopLogging}, condition: sel}
---
title: Sign-in
name: sign_in
logsource: {product: aws}
detection: {sel: {action: ConsoleLogin}, condition: sel}
---
title: Many
id: df0841c0-9846-4e9f-ad8a-7df91571771b
correlation: {type: event_count, rules: [sign_in], group-by: [account], timespan: 5m, condition: {gte: 2}}
";

fn rules() -> Rules {
    let file = RuleFile {
        path: "r.yml".into(),
        text: RULES.into(),
    };
    let (set, _) = RuleSet::check(&[file], &Placeholders::new());
    Rules {
        engine: Engine::new(&set),
        correlations: detect::correlations::of(&set).into(),
        baselines: Arc::default(),
    }
}

fn event(number: u128, action: &str, flag: Option<Flag>) -> Event {
    let mut event = Event {
        id: Id(number),
        source: "aws.cloudtrail".into(),
        action: action.into(),
        time: Time(number as i64),
        raw: format!("{{\"n\":{number}}}").into_bytes().into(),
        ..Event::default()
    };
    flag.into_iter().for_each(|f| event.flags.set(f));
    event
}

fn append(bus: &MemoryBus, events: &[Event]) {
    let record = |e: &Event| Record {
        key: e.partition_key().into_string().into(),
        value: e.encode().into(),
        time: Time(1),
    };
    bus.append(Topic::Events, events.iter().map(record).collect())
        .unwrap();
}

fn records(bus: &MemoryBus, topic: Topic) -> Vec<Record> {
    let kept = bus.0.lock().unwrap();
    let of_topic = kept.records.iter().filter(|((t, _), _)| *t == topic);
    of_topic.flat_map(|(_, records)| records.clone()).collect()
}

/// How many copies there are of each event.
fn copies(bus: &MemoryBus) -> BTreeMap<u128, usize> {
    let mut copies = BTreeMap::new();
    for record in records(bus, Topic::Events) {
        let event = Event::decode(&record.value).unwrap();
        if event.flags.has(Flag::Evidence) {
            assert!(event.flags.has(Flag::RulesOnly));
            *copies.entry(event.id.0).or_default() += 1;
        }
    }
    copies
}

/// The events that findings and matches are about.
fn evidence(bus: &MemoryBus) -> Vec<u128> {
    let findings = records(bus, Topic::Findings);
    let findings = findings
        .iter()
        .map(|r| serde_json::from_slice::<Finding>(&r.value).unwrap());
    let mut ids: Vec<u128> = findings.flat_map(|f| f.evidence).map(|id| id.0).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn what_matches_is_copied_for_the_index() {
    let bus = Arc::new(MemoryBus::default());
    let only = Some(Flag::RulesOnly);
    append(
        &bus,
        &[
            event(1, "StopLogging", only),
            event(2, "ListUsers", only),
            event(3, "ConsoleLogin", only),
            event(4, "StopLogging", None),
            event(5, "StopLogging", Some(Flag::Archived)),
            event(1, "StopLogging", only),
            event(6, "StopLogging", Some(Flag::Restored)),
        ],
    );
    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry).unwrap();
    let (rules, clock): (_, Clock) = (rules(), Arc::new(|| Time(1)));
    let open = |partition| {
        let bus: Arc<dyn Bus> = Arc::<MemoryBus>::clone(&bus);
        Worker::open(bus, partition, Duration::from_secs(86_400)).unwrap()
    };
    let drain = |partition| {
        let mut worker = open(partition);
        while worker.round(&rules, 1 << 20, &metrics, &clock).unwrap() {}
    };

    // Dies after the copies and before the commit: nothing but the copies is there.
    bus.0.lock().unwrap().commits_until_full = Some(0);
    let failed = (0..2).any(|p| open(p).round(&rules, 1 << 20, &metrics, &clock).is_err());
    assert!(failed);
    let before: usize = copies(&bus).values().sum();
    bus.0.lock().unwrap().commits_until_full = None;
    (0..2).for_each(drain);
    (0..2).for_each(drain);

    // One copy of each that a rule or a correlation counts, and those of the attempt that failed; the second time
    // they are read they cause nothing.
    let copies = copies(&bus);
    assert_eq!(copies.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert!(copies.values().sum::<usize>() <= 2 + before, "{copies:?}");
    let silent = "the archived one and the one that was read again gave no finding";
    assert_eq!(evidence(&bus), [1, 4], "{silent}");
    let dropped = |reason: &str| {
        let families = registry.gather();
        let family = families
            .iter()
            .find(|f| f.name() == "trailwarden_match_events_dropped_total");
        let metrics = family.unwrap().get_metric();
        let one = metrics
            .iter()
            .find(|m| m.get_label()[0].value() == reason)
            .unwrap();
        one.get_counter().get_value() as usize
    };
    assert!(dropped("tier") >= 1 && dropped("restored") >= 1);
    assert_eq!(dropped("evidence"), copies.values().sum::<usize>());
}
