//! Functions under watch: what is said of surges, fleets, deployments and silence, and that neither the order of counts
//! nor a restart changes a word of it.

#![expect(clippy::unwrap_used, reason = "a test fails where it is wrong")]

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::{Bus, Topic};
use detect::baseline::{AtLeast, Params};
use detect::baseline_stage;
use detect::meter::{Cell, Counted, Deployment, Function, Group, MINUTE, Meter, MeterRecord};
use detect::tracker::{
    Baseline, GRACE, Kept, Measured, Metric, New, Options, Rate, Sighting, Subject, Tracker,
};
use detect::window::{KEY_FLOOD, Watermark};
use event::{Clock, Finding, Id, Severity, Time};
use memory::MemoryBus;

/// A Monday, in minutes.
const START: i64 = 29_373_120;

const DAY: i64 = 1_440;

fn rules(metric: Metric) -> Arc<[Baseline]> {
    let bucket = if metric == Metric::Doubling { 1 } else { 5 };
    Arc::new([Baseline {
        rule_id: "r".into(),
        title: "t".into(),
        severity: Severity::High,
        tags: Vec::new(),
        staged: false,
        subject: Subject::Metric(Measured {
            metric,
            params: Params {
                bucket: bucket * MINUTE,
                at_least: AtLeast {
                    count: 20.0,
                    ratio: 3.0,
                },
                ..Params::default()
            },
        }),
    }])
}

fn options() -> Options {
    Options {
        events_partitions: 1,
        ..Options::default()
    }
}

fn function(name: &str) -> Function {
    Function {
        account: "111122223333".into(),
        function: name.into(),
    }
}

fn meter(name: &str, minute: i64, partition: u32, cell: Cell) -> MeterRecord {
    MeterRecord::Meter(Meter {
        counted: Counted::Function(function(name)),
        minute,
        partition,
        region: "eu-west-1".into(),
        labels: [("owner".into(), "shop".into())].into(),
        cell,
    })
}

fn calls(many: u64) -> Cell {
    Cell {
        starts: many,
        reports: many,
        timed: many,
        duration: many * 100_000,
        ..Cell::default()
    }
}

fn watermark(minute: i64) -> MeterRecord {
    MeterRecord::Watermark(Watermark {
        partition: 0,
        time: Some(Time(minute * MINUTE + GRACE)),
        next: minute as u64,
        ends: vec![u64::MAX],
    })
}

/// Runs minutes of one or many functions in order; each minute is followed by the watermark at its end.
fn run(
    metric: Metric,
    minutes: std::ops::Range<i64>,
    names: &[&str],
    cell: impl Fn(&str, i64) -> Cell,
    also: impl Fn(i64) -> Option<MeterRecord>,
) -> Vec<Finding> {
    let mut tracker = Tracker::new(rules(metric), options());
    let mut out = Vec::new();
    for minute in minutes {
        for name in names {
            let cell = cell(name, minute);
            if cell != Cell::default() {
                tracker.take(meter(name, minute, 0, cell), &mut out);
            }
        }
        if let Some(record) = also(minute) {
            tracker.take(record, &mut out);
        }
        tracker.take(watermark(minute + 1), &mut out);
    }
    out
}

/// Matches by user, one rule.
fn rate_rules() -> Arc<[Baseline]> {
    let [of_functions] = &*rules(Metric::Invocations) else {
        panic!("there is one");
    };
    let Subject::Metric(measured) = of_functions.subject else {
        panic!("it is of a metric");
    };
    let subject = Subject::Rate(Rate {
        group_by: vec!["user".into(), "account".into()],
        measured: Measured {
            metric: Metric::Matches,
            ..measured
        },
    });
    Arc::new([Baseline {
        subject,
        ..of_functions.clone()
    }])
}

fn matches(user: &str, minute: i64, matches: u64) -> MeterRecord {
    MeterRecord::Meter(Meter {
        counted: Counted::Group(Group {
            rule: "r".into(),
            values: [
                ("account".into(), Some("111122223333".into())),
                ("user".into(), Some(user.into())),
            ]
            .into(),
        }),
        minute,
        partition: 0,
        region: "".into(),
        labels: BTreeMap::new(),
        cell: Cell {
            matches,
            ..Cell::default()
        },
    })
}

#[test]
fn a_surge_of_matches_is_the_groups_own() {
    let mut tracker = Tracker::new(rate_rules(), options());
    let mut out = Vec::new();
    for minute in START..START + 10 * DAY {
        // A function of which this baseline says nothing, whatever it does.
        let loud = minute >= START + 9 * DAY;
        let lone = if loud { 5_000 } else { 5 };
        tracker.take(meter("f", minute, 0, calls(lone)), &mut out);
        let surge = (START + 9 * DAY..START + 9 * DAY + 20).contains(&minute);
        tracker.take(
            matches("eve", minute, if surge { 200 } else { usual(minute) }),
            &mut out,
        );
        tracker.take(matches("bob", minute, usual(minute)), &mut out);
        tracker.take(watermark(minute + 1), &mut out);
    }
    assert!(!out.is_empty(), "nothing was said");
    assert!(
        out.iter().all(|f| f.id == out[0].id),
        "one episode: {out:#?}"
    );
    let first = &out[0];
    assert_eq!(first.group["user"].as_deref(), Some("eve"));
    assert_eq!(first.account, "111122223333");
    assert_eq!((first.function.as_str(), first.source.as_str()), ("", ""));
    assert!(
        first.explanation.starts_with("matches: "),
        "{}",
        first.explanation
    );

    // Another rule set that groups otherwise knows nothing of them, but functions stay.
    assert_eq!(tracker.series(), 3);
    tracker.set_rules(Arc::new([]));
    assert_eq!(tracker.series(), 1);
}

#[test]
fn many_groups_at_once_are_one_finding() {
    let users = ["a", "b", "c", "d", "e", "f", "g"];
    let mut tracker = Tracker::new(rate_rules(), options());
    let mut out = Vec::new();
    for minute in START..START + 9 * DAY + 30 {
        for user in users {
            let many = if minute < START + 9 * DAY { 1 } else { 40 };
            tracker.take(matches(user, minute, many * usual(minute)), &mut out);
        }
        tracker.take(watermark(minute + 1), &mut out);
    }
    let ids: std::collections::BTreeSet<_> = out.iter().map(|f| f.id).collect();
    assert_eq!(ids.len(), 1, "{out:#?}");
    let said = &out[0];
    assert_eq!(said.group["fleet"].as_deref(), Some("groups"));
    assert!(
        said.explanation
            .starts_with("7 of 7 groups at once, all in account 111122223333: 111122223333/"),
        "{}",
        said.explanation
    );
}

#[test]
fn groups_of_no_rule_are_nothing_and_a_field_may_be_named_twice() {
    let [rule] = &*rate_rules() else {
        panic!("there is one");
    };
    let Subject::Rate(rate) = &rule.subject else {
        panic!("it counts");
    };
    let twice = Rate {
        group_by: vec!["user".into(), "account".into(), "user".into()],
        ..rate.clone()
    };
    let other = Rate {
        group_by: vec!["user".into()],
        ..rate.clone()
    };
    let watched = |rule: Option<Baseline>| {
        let mut tracker = Tracker::new(rule.into_iter().collect(), options());
        let mut out = Vec::new();
        tracker.take(matches("eve", START, 5), &mut out);
        (tracker.series(), tracker.counts().crowded, out.len())
    };
    let with = |rate| {
        Some(Baseline {
            subject: Subject::Rate(rate),
            ..rule.clone()
        })
    };
    assert_eq!(watched(with(twice)), (1, 0, 0));
    assert_eq!(
        watched(with(other)),
        (0, 0, 0),
        "it is grouped otherwise now"
    );
    assert_eq!(watched(None), (0, 0, 0));
}

#[test]
fn a_flood_of_groups_is_said_and_takes_no_place_from_known_ones() {
    let few = Options {
        max_series: 3,
        ..options()
    };
    let mut tracker = Tracker::new(rate_rules(), few);
    let mut out = Vec::new();
    tracker.take(meter("f", START, 0, calls(5)), &mut out);
    tracker.take(matches("bob", START, 5), &mut out);
    for minute in START..START + 90 {
        tracker.take(matches(&format!("made-up-{minute}"), minute, 1), &mut out);
        tracker.take(watermark(minute + 1), &mut out);
    }
    assert_eq!(tracker.series(), 4, "a function and three groups");
    assert_eq!(tracker.counts().crowded, 88);
    let floods: Vec<_> = out.iter().filter(|f| f.rule_id == KEY_FLOOD).collect();
    assert_eq!(floods.len(), 2, "two hours: {out:#?}");
    assert!(floods.iter().all(|f| f.title.contains("Too many groups")));
    assert_ne!(floods[0].id, floods[1].id);

    // It is not said again after a restart.
    let rows: Vec<_> = tracker
        .changes(0)
        .into_iter()
        .filter_map(|row| Some((row.key, row.value?)))
        .collect();
    let mut restored = Tracker::restore(rate_rules(), few, &rows).unwrap();
    let said = out.len();
    restored.take(matches("one-more", START + 90, 1), &mut out);
    assert_eq!(out.len(), said);
    assert_eq!(restored.series(), 4);
    assert_eq!(restored.counts().crowded, 1);
}

/// Ten a minute, with a little scatter that is the same every time.
fn usual(minute: i64) -> u64 {
    8 + (minute.wrapping_mul(2_654_435_761) >> 7 & 3) as u64
}

#[test]
fn a_surge_is_said_once_grows_and_ends() {
    let surge = START + 9 * DAY..START + 9 * DAY + 20;
    let found = run(
        Metric::Invocations,
        START..START + 10 * DAY,
        &["f"],
        |_, minute| {
            calls(if surge.contains(&minute) {
                200
            } else {
                usual(minute)
            })
        },
        |_| None,
    );
    assert!(!found.is_empty(), "nothing was said");
    assert!(
        found.iter().all(|f| f.id == found[0].id),
        "one episode: {found:#?}"
    );
    assert!(found.iter().zip(0..).all(|(f, n)| f.revision == n));
    let first = &found[0];
    assert!(
        first.explanation.starts_with("invocations: "),
        "{}",
        first.explanation
    );
    assert!(
        first.explanation.contains("expected"),
        "{}",
        first.explanation
    );
    assert_eq!(first.function, "f");
    assert_eq!(first.region, "eu-west-1");
    assert_eq!(first.labels["owner"], "shop", "for routes");
    assert!(first.episodic);
    let last = found.last().unwrap();
    assert!(last.last_event_time > first.last_event_time);
}

#[test]
fn failures_time_outs_and_slowness() {
    let check = |metric: Metric, bad: Cell, word: &str| {
        let spike = START + 9 * DAY..START + 9 * DAY + 30;
        let found = run(
            metric,
            START..START + 10 * DAY,
            &["f"],
            |_, minute| {
                if spike.contains(&minute) {
                    bad
                } else {
                    calls(usual(minute))
                }
            },
            |_| None,
        );
        assert!(!found.is_empty(), "{metric:?}: nothing was said");
        assert!(
            found.iter().all(|f| f.id == found[0].id),
            "{metric:?}: one episode"
        );
        assert!(
            found[0].explanation.contains(word),
            "{}",
            found[0].explanation
        );
    };
    let failed = Cell {
        failed: 7,
        ..calls(10)
    };
    check(Metric::Errors, failed, "failed invocations: ");
    let timed_out = Cell {
        failed: 7,
        timed_out: 7,
        ..calls(10)
    };
    check(Metric::Timeouts, timed_out, "time-outs: ");
    let slow = Cell {
        duration: 10 * 900_000,
        ..calls(10)
    };
    check(Metric::Duration, slow, "mean duration: 900 ms");
    let expensive = Cell {
        billed: 40 * 60_000 * 1_024,
        ..calls(10)
    };
    check(Metric::Cost, expensive, "GB-seconds: ");
}

#[test]
fn a_loop_is_seen_within_minutes() {
    let begins = START + 30;
    let found = run(
        Metric::Doubling,
        START..START + 60,
        &["f"],
        |_, minute| match minute - begins {
            ..0 => calls(usual(minute)),
            since => calls(10 << since.min(9)),
        },
        |_| None,
    );
    assert!(!found.is_empty());
    let after = found[0].last_event_time.0 / MINUTE - begins;
    assert!(after <= 7, "seen after {after} minutes");
    assert!(
        found[0].explanation.contains("double every 1."),
        "{}",
        found[0].explanation
    );
}

#[test]
fn a_deployment_is_named() {
    let surge = START + 9 * DAY..START + 9 * DAY + 20;
    let found = run(
        Metric::Invocations,
        START..START + 9 * DAY + 60,
        &["f"],
        |_, minute| {
            calls(if surge.contains(&minute) {
                400
            } else {
                usual(minute)
            })
        },
        |minute| {
            (minute == surge.start - 12).then(|| {
                MeterRecord::Deployment(Deployment {
                    function: function("f"),
                    time: Time(minute * MINUTE),
                    action: "UpdateFunctionCode20150331v2".into(),
                    actor: "alice".into(),
                })
            })
        },
    );
    let said = &found[0].explanation;
    assert!(
        said.contains("UpdateFunctionCode20150331v2 by alice"),
        "{said}"
    );
    assert!(said.contains("minutes before"), "{said}");
}

#[test]
fn many_at_once_are_one_finding() {
    let names: Vec<String> = (0..40).map(|n| format!("f{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let surge = START + 8 * DAY..START + 8 * DAY + 20;
    let found = run(
        Metric::Invocations,
        START..START + 8 * DAY + 120,
        &names,
        |name, minute| {
            let hit = surge.contains(&minute) && name < "f20";
            calls(if hit { 300 } else { usual(minute) })
        },
        |_| None,
    );
    assert!(found.iter().all(|f| f.id == found[0].id), "{found:#?}");
    let last = found.last().unwrap();
    assert!(
        last.explanation
            .starts_with("20 of 40 functions at once, all in account"),
        "{}",
        last.explanation
    );
    assert_eq!(last.resources.len(), 20);
}

#[test]
fn a_stretch_without_any_log_teaches_nothing() {
    let cut = START + 8 * DAY..START + 9 * DAY;
    let found = run(
        Metric::Invocations,
        START..START + 10 * DAY,
        &["f", "g"],
        |_, minute| {
            if cut.contains(&minute) {
                Cell::default()
            } else {
                calls(usual(minute))
            }
        },
        |_| None,
    );
    assert_eq!(found, []);
}

/// Counts of four partitions, cumulative, shuffled within the grace and repeated, with a restart now and then: the
/// same words as in order.
#[test]
fn neither_order_nor_repeats_nor_restarts_change_a_word() {
    let minutes = START..START + 8 * DAY + 60;
    let surge = START + 8 * DAY..START + 8 * DAY + 30;
    let many = |minute: i64| {
        if surge.contains(&minute) {
            160
        } else {
            usual(minute)
        }
    };
    let expected = run(
        Metric::Invocations,
        minutes.clone(),
        &["f"],
        |_, minute| calls(many(minute)),
        |_| None,
    );
    assert!(!expected.is_empty());

    let rules = rules(Metric::Invocations);
    let mut tracker = Tracker::new(Arc::clone(&rules), options());
    let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut out = Vec::new();
    let mut dice = 7_u64;
    let mut roll = |n: u64| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % n
    };
    for minute in minutes {
        let mut records = Vec::new();
        for partition in 0..4 {
            let share = |n: u64| n / 4 + u64::from(u64::from(partition) < n % 4);
            let whole = share(many(minute));
            records.push(meter("f", minute, partition, calls(whole / 2)));
            records.push(meter("f", minute, partition, calls(whole)));
            records.push(meter("f", minute, partition, calls(whole / 3)));
        }
        for i in (1..records.len()).rev() {
            records.swap(i, roll(i as u64 + 1) as usize);
        }
        records.into_iter().for_each(|r| tracker.take(r, &mut out));
        tracker.take(watermark(minute + 1), &mut out);
        for change in tracker.changes(0) {
            match change.value {
                Some(value) => rows.insert(change.key, value),
                None => rows.remove(&change.key),
            };
        }
        if roll(500) == 0 {
            let stored: Vec<_> = rows.clone().into_iter().collect();
            tracker = Tracker::restore(Arc::clone(&rules), options(), &stored).unwrap();
        }
    }
    assert_eq!(out, expected);
    assert!(rows.len() < 100, "{} rows are kept", rows.len());
}

/// The keys of the functions' rows that are written and dropped.
fn function_rows(tracker: &mut Tracker) -> (usize, usize) {
    let rows = tracker.changes(0);
    let rows: Vec<_> = rows
        .iter()
        .filter(|r| r.key.first() == Some(&b'f'))
        .collect();
    let dropped = rows.iter().filter(|r| r.value.is_none()).count();
    (rows.len() - dropped, dropped)
}

#[test]
fn what_rests_is_not_written_every_minute() {
    let mut tracker = Tracker::new(rules(Metric::Doubling), options());
    let mut out = Vec::new();
    let mut written = Vec::new();
    for minute in START..START + 20 {
        tracker.take(meter("f", minute, 0, calls(5)), &mut out);
        tracker.take(watermark(minute + 1), &mut out);
        written.push(function_rows(&mut tracker).0);
    }
    assert_eq!(
        written.iter().sum::<usize>(),
        2,
        "once new, once followed: {written:?}"
    );
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut tracker = Tracker::new(rules(Metric::Invocations), options());
    let mut out = Vec::new();
    tracker.take(meter("gone", START, 0, calls(5)), &mut out);
    for hour in 0..24 * 37 {
        let minute = START + hour * 60;
        tracker.take(meter("stays", minute, 0, calls(5)), &mut out);
        tracker.take(watermark(minute + 1), &mut out);
    }
    assert_eq!(tracker.series(), 1);
    assert_eq!(function_rows(&mut tracker).1, 1);

    // And what was learned for a rule goes with the rule.
    tracker.set_rules(Arc::new([]));
    assert_eq!(function_rows(&mut tracker).0, 1);
    tracker.set_rules(Arc::new([]));
    assert_eq!(function_rows(&mut tracker).0, 0);
}

/// A baseline of each kind.
fn of_each_kind() -> Arc<[Baseline]> {
    let (functions, groups) = (rules(Metric::Invocations), rate_rules());
    let new = Baseline {
        rule_id: "n".into(),
        subject: Subject::New(New {
            fields: vec!["ip".into()],
            group_by: vec!["key".into()],
            learn: 60 * MINUTE,
            usual: 4,
        }),
        ..functions[0].clone()
    };
    let functions = Baseline {
        rule_id: "f".into(),
        ..functions[0].clone()
    };
    Arc::new([functions, new, groups[0].clone()])
}

fn sighting(key: &str, minute: i64) -> MeterRecord {
    MeterRecord::Sighting(Box::new(Sighting {
        rule: "n".into(),
        group: [("key".into(), Some(key.into()))].into(),
        values: vec!["203.0.113.0/24".into()],
        context: Finding {
            time: Time(minute * MINUTE),
            evidence: vec![Id(minute as u128)],
            ..Finding::default()
        },
    }))
}

/// Two functions, three groups of matches, and two groups with values, of one of which two sightings wait.
fn some_of_each_kind() -> Vec<MeterRecord> {
    let mut records: Vec<_> = ["f", "g"].map(|f| meter(f, START, 0, calls(5))).into();
    records.extend(["a", "b", "c"].map(|user| matches(user, START, 1)));
    records.extend(["k", "l"].map(|key| sighting(key, START)));
    records.push(watermark(START + 1));
    records.extend([2, 2, 3].map(|minute| sighting("k", START + minute)));
    records
}

fn kept(tracker: &Tracker) -> Vec<(&str, usize, Option<usize>)> {
    let kept = tracker.kept();
    kept.map(|(rule, Kept { series, sightings })| (rule.as_str(), series, sightings))
        .collect()
}

#[test]
fn what_is_kept_is_told_by_rule() {
    let rules = of_each_kind();
    let mut tracker = Tracker::new(Arc::clone(&rules), options());
    let mut out = Vec::new();
    for record in some_of_each_kind() {
        tracker.take(record, &mut out);
    }
    let expected = [("f", 2, None), ("n", 2, Some(2)), ("r", 3, None)];
    assert_eq!(kept(&tracker), expected);

    let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for change in tracker.changes(0) {
        rows.extend(change.value.map(|value| (change.key, value)));
    }
    let restored = Tracker::restore(Arc::clone(&rules), options(), &rows).unwrap();
    assert_eq!(kept(&restored), expected);

    // Rows of before groups told their rule.
    for (_, row) in rows.iter_mut().filter(|(key, _)| key[0] == b'n') {
        let mut group: serde_json::Value = serde_json::from_slice(row).unwrap();
        assert!(group.as_object_mut().unwrap().remove("rule").is_some());
        *row = serde_json::to_vec(&group).unwrap();
    }
    let mut restored = Tracker::restore(Arc::clone(&rules), options(), &rows).unwrap();
    assert_eq!(kept(&restored)[1], ("n", 0, Some(2)));
    restored.take(watermark(START + 10), &mut out);
    assert_eq!(kept(&restored)[1], ("n", 1, Some(0)), "one was seen again");

    restored.set_rules(Arc::new([rules[0].clone()]));
    assert_eq!(kept(&restored), [("f", 2, None)]);
}

#[test]
fn the_stage_shows_what_is_kept() {
    let bus = Arc::new(MemoryBus::default());
    for record in some_of_each_kind() {
        let watermark = match &record {
            MeterRecord::Watermark(watermark) => watermark.clone(),
            _ => {
                let record = record.into_record(Time(1));
                bus.append(Topic::Meters, vec![record]).unwrap();
                continue;
            }
        };
        for partition in 0..2 {
            let watermark = Watermark {
                partition,
                ends: vec![u64::MAX; 2],
                ..watermark.clone()
            };
            let records = detect::meter::watermark_records(&watermark, memory::PARTITIONS, Time(1));
            bus.append(Topic::Meters, records).unwrap();
        }
    }
    let registry = prometheus::Registry::new();
    let metrics = baseline_stage::Metrics::new(&registry).unwrap();
    let (log, rules): (Arc<dyn Bus>, _) = (Arc::clone(&bus) as _, of_each_kind());
    let clock: Clock = Arc::new(|| Time(1));
    let provider = || Arc::clone(&rules);
    baseline_stage::run(log, provider, options(), &metrics, &clock, &bus.1).unwrap();
    let shown = |name: &str| -> Vec<(String, i64)> {
        let families = registry.gather();
        let family = families.iter().find(|f| f.name() == name).unwrap();
        let metrics = family.get_metric().iter();
        let one = |m: &prometheus::proto::Metric| {
            let rule = m.get_label()[0].value().to_owned();
            (rule, m.get_gauge().get_value() as i64)
        };
        metrics.map(one).collect()
    };
    let pairs = |all: &[(&str, i64)]| -> Vec<(String, i64)> {
        all.iter()
            .map(|(rule, n)| ((*rule).to_owned(), *n))
            .collect()
    };
    let series = shown("trailwarden_baseline_kept_series");
    assert_eq!(series, pairs(&[("f", 2), ("n", 2), ("r", 3)]));
    let sightings = shown("trailwarden_baseline_kept_sightings");
    assert_eq!(sightings, pairs(&[("n", 2)]));
}
