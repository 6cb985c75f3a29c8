//! What must stop the program: positions and state that do not fit what the brokers have.

use super::*;

fn numbers(range: Range<u32>, word: &str) -> Vec<String> {
    range.map(|n| format!("{word} {n}")).collect()
}

/// A consumer whose state is here and one whose state moves have both read ten records of events.
fn after_ten(settings: &Settings) -> Temporary {
    let node = open(settings);
    append(&node.bus, 0, numbers(0..10, "old"));
    for consumer in ["here", "c"] {
        count_all(&node.bus, consumer, 0);
    }
    node
}

fn position(node: &Temporary, consumer: &str) -> Result<Option<Offset>, BusError> {
    node.bus.position(consumer, Topic::Events, 0)
}

#[test]
fn a_topic_made_anew_is_noticed() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let settings = cluster.moving();
    let node = after_ten(&settings);
    let node = node.reopen(&settings);
    for consumer in ["here", "c"] {
        assert_eq!(position(&node, consumer).unwrap(), Some(10));
    }
    let dir = node.end();
    delete(&settings, &["events"]);

    // Fewer records than were read.
    let other = open(&settings);
    append(&other.bus, 0, numbers(0..3, "new"));
    let node = KafkaBus::open(dir.path(), settings.clone(), clock()).unwrap();
    let node = Temporary { bus: node, dir };
    let name = settings.kafka.name("events");
    for consumer in ["here", "c"] {
        let words = words(position(&node, consumer), "guard");
        says(
            &words,
            &[
                &format!("{name}-0"),
                "up to 10, but it ends at 3",
                "made anew",
                "topics apply",
            ],
        );
    }
    // More.
    append(&other.bus, 0, numbers(3..20, "new"));
    for consumer in ["here", "c"] {
        let words = words(position(&node, consumer), "guard");
        says(
            &words,
            &[
                &format!("{name}-0"),
                "record 9 is another one",
                "made anew",
                "topics apply",
            ],
        );
    }
    // Who has read nothing of it begins at the start.
    assert_eq!(position(&node, "fresh").unwrap(), None);
}

#[test]
fn records_that_went_unread_stop_it_until_that_is_accepted() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let mut settings = cluster.moving();
    let node = after_ten(&settings);
    append(&node.bus, 0, numbers(10..30, "old"));
    let name = settings.kafka.name("events");
    node.bus.brokers.drop_before(&name, 0, 25).unwrap();
    for node in [&node, &another(&settings)] {
        let words = words(position(node, "c"), "guard");
        says(
            &words,
            &[
                &format!("{name}-0"),
                "retention dropped 15 records",
                "--accept-gap",
                "retention_hours",
            ],
        );
    }
    words(position(&node, "here"), "guard");

    settings.accept_gap = true;
    let node = node.reopen(&settings);
    for consumer in ["here", "c"] {
        assert_eq!(position(&node, consumer).unwrap(), Some(10));
        count_all(&node.bus, consumer, 0);
        assert_eq!(position(&node, consumer).unwrap(), Some(30));
        assert_eq!(counted(&node.bus, consumer, 0).unwrap(), 15);
    }
}

#[test]
fn topics_that_are_not_as_configured_stop_the_start() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let mut settings = cluster.moving();
    let dir = tempfile::tempdir().unwrap();
    let open_it = |settings: &Settings| KafkaBus::open(dir.path(), settings.clone(), clock());
    let name = |name: &str| settings.kafka.name(name);
    let (events, matches, state) = (name("events"), name("matches"), name("state_c"));

    let found = words(open_it(&settings), "refused");
    says(
        &found,
        &[
            &format!("`{events}` is missing"),
            &format!("`{state}` is missing"),
            "topics apply",
        ],
    );
    topics::apply(&settings).unwrap();
    drop(open_it(&settings).unwrap());

    delete(&settings, &["matches"]);
    let found = words(open_it(&settings), "refused");
    says(
        &found,
        &[&format!("`{matches}` is missing"), "topics apply"],
    );
    assert!(!found.contains(&events), "{found}");

    topics::apply(&settings).unwrap();
    settings.partitions.events = 3;
    let found = words(open_it(&settings), "refused");
    says(
        &found,
        &[
            &format!("{events}: has 2 partitions, the configuration says 3"),
            "set bus.partitions to 2",
        ],
    );
}

#[test]
fn a_changelog_made_anew_is_noticed() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    // With and without a snapshot as the last thing that was read of the old one.
    for snapshot_bytes in [0, 1] {
        let mut settings = cluster.moving();
        settings.snapshot_bytes = snapshot_bytes;
        let node = open(&settings);
        append(&node.bus, 0, numbers(0..10, "old"));
        while count(&node.bus, "c", 0, 1).unwrap() > 0 {}
        let dir = node.end();
        delete(&settings, &["state_c"]);

        let other = open(&settings);
        let bus = KafkaBus::open(dir.path(), settings.clone(), clock()).unwrap();
        let name = settings.kafka.name("state_c");
        let found = words(bus.position("c", Topic::Events, 0), "guard");
        says(
            &found,
            &[
                &format!("{name}-0"),
                "it ends at 0",
                "made anew",
                "restore the topic",
            ],
        );
        let delta = |n: u32| Commit {
            consumer: "c".into(),
            state: vec![set(0, "k", &format!("new {n}"))],
            ..Commit::default()
        };
        let end = || other.bus.brokers.readers.bounds(&name, 0).unwrap();
        let mut n = 0;
        while end().end < 40 {
            n += 1;
            other.bus.commit(delta(n)).unwrap();
        }
        assert_eq!(end().start > 0, snapshot_bytes > 0);
        for _ in 0..2 {
            let found = words(bus.position("c", Topic::Events, 0), "guard");
            says(&found, &[&format!("{name}-0"), "made anew"]);
            match snapshot_bytes {
                0 => says(&found, &["is another one"]),
                _ => says(&found, &["c has come to 10"]),
            }
        }
    }
}

#[test]
fn a_changelog_cut_by_others_is_no_empty_one() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let settings = cluster.moving();
    let node = open(&settings);
    append(&node.bus, 0, numbers(0..10, "old"));
    while count(&node.bus, "c", 0, 1).unwrap() > 0 {}
    let name = settings.kafka.name("state_c");
    for cut in [4, 10] {
        node.bus.brokers.drop_before(&name, 0, cut).unwrap();
        let fresh = another(&settings);
        for _ in 0..2 {
            let found = words(position(&fresh, "c"), "guard");
            says(&found, &[&format!("{name}-0"), "state is gone", "apply"]);
        }
    }
    // Who has the state goes on.
    assert_eq!(position(&node, "c").unwrap(), Some(10));
    append(&node.bus, 0, numbers(10..11, "old"));
    count_all(&node.bus, "c", 0);
    assert_eq!(counted(&node.bus, "c", 0).unwrap(), 11);
}

#[test]
fn foreign_records_in_a_changelog_are_told() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let settings = cluster.moving();
    let node = after_ten(&settings);
    let name = settings.kafka.name("state_c");
    let foreign = Outgoing {
        topic: &name,
        partition: 0,
        record: record(0, "not ours"),
    };
    node.bus.brokers.producer.send(&[foreign]).unwrap();
    for node in [&node, &another(&settings)] {
        let found = words(position(node, "c"), "guard");
        says(&found, &[&format!("{name}-0"), "record 1 cannot be read"]);
    }
}
