use event::Id;

use super::*;

const LEAST: i64 = 15 * MINUTE;

fn options() -> Options {
    Options {
        least: LEAST,
        ignore: ["noisy".to_owned()].into(),
    }
}

fn feed(account: &str, region: &str) -> Feed {
    Feed {
        source: "aws.cloudtrail".into(),
        account: account.into(),
        region: region.into(),
    }
}

/// A watch with a clock: every call of [`World::run`] lets minutes pass.
struct World {
    watch: Watch,
    now: Time,
    sent: BTreeMap<Feed, u64>,
    found: Vec<(Time, Finding)>,
}

impl World {
    fn new() -> World {
        World {
            watch: Watch::default(),
            now: Time(20_000 * DAY),
            sent: BTreeMap::new(),
            found: Vec::new(),
        }
    }

    fn send(&mut self, feed: &Feed) {
        let events = self.sent.entry(feed.clone()).or_default();
        *events += 1;
        let arrival = Arrival {
            feed: feed.clone(),
            partition: 0,
            events: *events,
            last_ingest: self.now,
            last_event: self.now.plus(-MINUTE),
            delay: MINUTE,
        };
        // Said twice, as after a crash.
        for _ in 0..2 {
            self.watch
                .take(SourceRecord::Arrival(arrival.clone()), &options());
        }
    }

    fn beat(&mut self, feed: &Feed) {
        let beat = Heartbeat {
            feed: feed.clone(),
            at: self.now,
        };
        self.watch.take(SourceRecord::Heartbeat(beat), &options());
    }

    fn judge(&mut self) {
        let blind = |source: &str| match source {
            "aws.cloudtrail" => ["low", "worst"]
                .map(|title| Blind {
                    title: title.into(),
                    severity: if title == "low" {
                        Severity::Low
                    } else {
                        Severity::Critical
                    },
                })
                .to_vec(),
            _ => Vec::new(),
        };
        let found = self.watch.judge(self.now, Time::MIN, &options(), &blind);
        self.found.extend(found.into_iter().map(|f| (self.now, f)));
    }

    /// Lets so many minutes pass; each feed sends every so many of them.
    fn run(&mut self, minutes: i64, feeds: &[(Feed, i64)]) {
        for minute in 0..minutes {
            self.now = self.now.plus(MINUTE);
            for (feed, every) in feeds {
                if minute % every == 0 {
                    self.send(feed);
                }
            }
            self.judge();
        }
    }

    /// What was found since the last call: whom it is about, and whether it says the end.
    fn told(&mut self) -> Vec<(String, bool)> {
        let found = std::mem::take(&mut self.found);
        let first = |f: &Finding| f.revision == 0 || f.ended.is_some();
        let about = |f: &Finding| {
            let of = |name: &str| f.group.get(name).cloned().flatten().unwrap_or_default();
            format!("{}/{}/{}", of("source"), of("account"), of("region"))
        };
        found
            .iter()
            .filter(|(_, f)| first(f))
            .map(|(_, f)| (about(f), f.ended.is_some()))
            .collect()
    }
}

#[test]
fn a_source_that_stops_is_silent_once_and_comes_back() {
    let mut world = World::new();
    let one = feed("1", "eu-west-1");
    world.run(3 * 1_440, &[(one.clone(), 5)]);
    assert_eq!(world.told(), []);
    world.run(180, &[]);
    let (at, finding) = world.found[0].clone();
    assert_eq!(
        at.0 - finding.first_event_time.0,
        16 * MINUTE,
        "{finding:#?}"
    );
    assert_eq!(finding.severity, Severity::High);
    assert!(
        finding
            .explanation
            .contains("2 rules see nothing of it meanwhile: worst; low."),
        "{}",
        finding.explanation
    );
    // It is said again every hour under the same id, so that its alert is not taken for over.
    let ids: BTreeSet<Id> = world.found.iter().map(|(_, f)| f.id).collect();
    let revisions: Vec<u64> = world.found.iter().map(|(_, f)| f.revision).collect();
    assert_eq!((ids.len(), revisions), (1, vec![0, 1, 2]));
    // Nor does it look like something new, which would open an alert again that a person has resolved.
    let since = finding.first_event_time;
    assert!(world.found.iter().all(|(_, f)| f.last_event_time == since));
    world.told();
    world.run(30, &[(one, 5)]);
    assert_eq!(world.found.len(), 1);
    let back = &world.found[0].1;
    assert_eq!((back.id, back.revision), (finding.id, 3));
    assert!(back.ended.is_some());
}

#[test]
fn of_feeds_within_one_another_the_widest_is_told() {
    let mut world = World::new();
    let all: Vec<(Feed, i64)> = ["1", "2", "3"]
        .iter()
        .flat_map(|a| ["eu-west-1", "us-east-1"].map(|r| (feed(a, r), 5)))
        .collect();
    world.run(10 * 1_440, &all);
    // All of it: one finding, and one when it is over, whatever comes back first.
    world.run(120, &[]);
    assert_eq!(world.told(), [("aws.cloudtrail//".to_owned(), false)]);
    world.run(10, &all[..1]);
    world.run(120, &all);
    assert_eq!(world.told(), [("aws.cloudtrail//".to_owned(), true)]);
    // An account.
    world.run(60, &all[2..]);
    assert_eq!(world.told(), [("aws.cloudtrail/1/".to_owned(), false)]);
    world.run(60, &all);
    assert_eq!(world.told(), [("aws.cloudtrail/1/".to_owned(), true)]);
    // A region of an account.
    world.run(60, &all[1..]);
    assert_eq!(
        world.told(),
        [("aws.cloudtrail/1/eu-west-1".to_owned(), false)]
    );
}

#[test]
fn a_quiet_account_with_digests_does_not_cry_wolf() {
    let mut world = World::new();
    let quiet = feed("1", "eu-west-1");
    for hour in 0..24 * 10 {
        world.run(60, &[]);
        world.beat(&quiet);
        if hour % 31 == 0 {
            world.send(&quiet);
        }
    }
    assert_eq!(world.told(), []);
    // When the digests stop too, it does.
    world.run(180, &[]);
    assert_eq!(world.told(), [("aws.cloudtrail//".to_owned(), false)]);
}

#[test]
fn nights_and_weekends_are_learned() {
    let mut world = World::new();
    let office = feed("1", "eu-west-1");
    let mut false_alarms = Vec::new();
    for day in 0..28 {
        if day % 7 < 5 {
            world.run(600, &[(office.clone(), 2)]);
            world.run(840, &[]);
        } else {
            world.run(1_440, &[]);
        }
        false_alarms.extend(world.told().iter().filter(|(_, end)| !end).map(|_| day));
    }
    // The first night, and the first weekend.
    assert_eq!(false_alarms, [0, 5]);
}

#[test]
fn an_outage_does_not_make_the_next_one_pass_for_usual() {
    let mut world = World::new();
    let steady = [(feed("1", "eu-west-1"), 5), (feed("2", "eu-west-1"), 5)];
    world.run(20 * 1_440, &steady);
    for _ in 0..3 {
        world.run(3 * 1_440, &[]);
        assert_eq!(world.told(), [("aws.cloudtrail//".to_owned(), false)]);
        // One comes back a little later than the other.
        world.run(10, &steady[..1]);
        world.run(1_440, &steady);
        assert_eq!(world.told(), [("aws.cloudtrail//".to_owned(), true)]);
    }
    for (feed, _) in &steady {
        let watched = world.watch.feed(feed).unwrap();
        assert_eq!(watched.silent_after(LEAST), LEAST, "{feed}");
    }
}

#[test]
fn who_was_here_for_a_moment_is_not_missed_nor_who_is_ignored() {
    let mut world = World::new();
    let noisy = Feed {
        source: "noisy".into(),
        ..Feed::default()
    };
    let own = Feed {
        source: OWN.into(),
        ..Feed::default()
    };
    world.run(30, &[(feed("1", "eu-west-1"), 1)]);
    world.run(2 * 1_440, &[(noisy, 5), (own, 5)]);
    world.run(3 * 1_440, &[]);
    assert_eq!(world.told(), []);
    let passing = world.watch.feed(&feed("1", "eu-west-1")).unwrap();
    assert_eq!(passing.state(world.now), State::Passing);
}

#[test]
fn while_we_were_away_nobody_was_silent() {
    let mut world = World::new();
    let one = feed("1", "eu-west-1");
    world.run(3 * 1_440, &[(one.clone(), 5)]);
    world.now = world.now.plus(DAY);
    let began = world.now;
    let judge = |world: &mut World| {
        world
            .watch
            .judge(world.now, began, &options(), &|_| Vec::new())
    };
    assert_eq!(judge(&mut world), []);
    world.now = world.now.plus(14 * MINUTE);
    assert_eq!(judge(&mut world), []);
    world.now = world.now.plus(3 * MINUTE);
    assert_eq!(judge(&mut world).len(), 1);
}

#[test]
fn counts_are_those_of_all_partitions_whatever_comes_twice() {
    let mut world = World::new();
    let one = feed("1", "eu-west-1");
    for (partition, events) in [(0, 10), (1, 5), (0, 12), (0, 11), (1, 5)] {
        let arrival = Arrival {
            feed: one.clone(),
            partition,
            events,
            last_ingest: world.now,
            last_event: world.now,
            delay: 0,
        };
        if events != 11 {
            world.watch.take(SourceRecord::Arrival(arrival), &options());
        }
    }
    let watched = world.watch.feed(&one).unwrap();
    assert_eq!(watched.events_within(24, world.now), 17);
    assert_eq!(
        world
            .watch
            .feed(&feed("1", ""))
            .unwrap()
            .events_within(24, world.now),
        17
    );
}

#[test]
fn a_collector_that_fails_is_told_with_what_to_do() {
    let mut world = World::new();
    let mut collector = Collector {
        node: "a".into(),
        kind: "queue".into(),
        name: "trail".into(),
        at: world.now,
        failing: Some(world.now),
        fault: "denied".into(),
        message: "AccessDenied".into(),
        hint: "allow it".into(),
        ..Collector::default()
    };
    let mut tell = |world: &mut World, minutes: i64, failing: bool| {
        world.now = world.now.plus(minutes * MINUTE);
        collector.at = world.now;
        collector.failing = match failing {
            true => collector.failing.or(Some(world.now)),
            false => None,
        };
        world
            .watch
            .take(SourceRecord::Collector(collector.clone()), &options());
        world.judge();
    };
    tell(&mut world, 3, true);
    assert_eq!(world.found, []);
    tell(&mut world, 3, true);
    assert_eq!(world.found.len(), 1);
    let words = world.found[0].1.explanation.clone();
    assert!(
        words.contains("queue trail on a has failed") && words.contains("What to do: allow it."),
        "{words}"
    );
    // A start anew looks well for a moment: it is the same failure still.
    tell(&mut world, 3, false);
    tell(&mut world, 1, true);
    tell(&mut world, 6, true);
    assert_eq!(world.found.len(), 1);
    tell(&mut world, 1, false);
    tell(&mut world, 6, false);
    assert_eq!(world.found.len(), 2);
    let ended = &world.found[1].1;
    assert_eq!((ended.id, ended.revision), (world.found[0].1.id, 1));
    assert!(ended.ended.is_some());
    assert_eq!(world.watch.failing(), 0);
}

#[test]
fn what_is_stored_comes_back_the_same() {
    let mut world = World::new();
    let one = feed("1", "eu-west-1");
    world.run(2 * 1_440, &[(one, 5)]);
    world.run(60, &[]);
    for watched in world.watch.feeds() {
        let json = serde_json::to_string(watched).unwrap();
        assert_eq!(serde_json::from_str::<Watched>(&json).unwrap(), *watched);
        assert!(json.len() < 2_000, "{}", json.len());
    }
}

#[test]
fn spans_read_well() {
    for (micros, expected) in [
        (0, "0 seconds"),
        (1_900_000, "1 second"),
        (MINUTE, "60 seconds"),
        (2 * MINUTE, "2 minutes"),
        (119 * MINUTE, "119 minutes"),
        (150 * MINUTE, "3 hours"),
        (36 * HOUR, "36 hours"),
        (3 * DAY, "3 days"),
    ] {
        assert_eq!(span(micros), expected);
    }
}

#[test]
fn two_nodes_that_read_the_same_are_told_once() {
    let mut world = World::new();
    let tell = |world: &mut World, minutes: i64, nodes: &[(&str, &str)]| {
        for _ in 0..minutes {
            world.now = world.now.plus(MINUTE);
            for (node, place) in nodes {
                let collector = Collector {
                    node: (*node).into(),
                    kind: "bucket".into(),
                    name: "org-trail".into(),
                    alone: (*place).into(),
                    at: world.now,
                    ..Collector::default()
                };
                let told = SourceRecord::Collector(collector);
                world.watch.take(told, &options());
            }
            world.judge();
        }
    };
    // What moves from one node to another is read by one; what several may read, and other places, too.
    tell(&mut world, 10, &[("b", "s3://org-trail/")]);
    tell(
        &mut world,
        10,
        &[
            ("a", "s3://org-trail/"),
            ("c", ""),
            ("d", ""),
            ("e", "s3://org-trail/x/"),
        ],
    );
    assert_eq!(world.found, []);
    tell(
        &mut world,
        4,
        &[("a", "s3://org-trail/"), ("b", "s3://org-trail/")],
    );
    assert_eq!(world.found, []);
    tell(
        &mut world,
        10,
        &[("a", "s3://org-trail/"), ("b", "s3://org-trail/")],
    );
    assert_eq!(world.found.len(), 1);
    let finding = world.found[0].1.clone();
    assert!(
        finding.explanation.contains("two nodes since")
            && finding
                .explanation
                .contains(": a, and b with its collector bucket org-trail"),
        "{}",
        finding.explanation
    );
    assert_eq!(finding.rule_id, super::SHARED);
    // Said again once an hour, as the same.
    tell(
        &mut world,
        60,
        &[("a", "s3://org-trail/"), ("b", "s3://org-trail/")],
    );
    assert_eq!(world.found.len(), 2);
    assert_eq!(world.found[1].1.id, finding.id);
    let known: Vec<_> = world.watch.collectors.values().cloned().collect();
    let report = |now| {
        let known = super::report::Known {
            feeds: &[],
            collectors: &known,
            functions: &[],
            inventory: &event::inventory::Inventory::default(),
            blind: &|_| Vec::new(),
        };
        super::report::Report::of(&known, &options(), now)
    };
    let beside = |now| -> Vec<usize> {
        let report = report(now);
        report.collectors.iter().map(|c| c.beside.len()).collect()
    };
    assert_eq!(beside(world.now), [1, 1, 0, 0, 0]);
    assert!(!report(world.now).is_well());
    // A node that is gone reads nothing.
    assert_eq!(beside(world.now.plus(10 * MINUTE)), [0, 0, 0, 0, 0]);
    tell(&mut world, 5, &[("b", "s3://org-trail/")]);
    assert_eq!(world.found.len(), 3);
    let ended = &world.found[2].1;
    assert_eq!((ended.id, ended.revision), (finding.id, 2));
    assert!(ended.ended.is_some());
    tell(&mut world, 90, &[("b", "s3://org-trail/")]);
    assert_eq!(world.found.len(), 3);
}
