//! Topics become what they should be, and nothing else about them changes.

use super::topics::{Difference, apply, plan, wanted};
use super::*;

#[test]
fn topics_become_what_they_should_be() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let mut settings = cluster.moving();
    settings.consumers.rest_moves = true;
    let all: Vec<Difference> = wanted(&settings)
        .into_iter()
        .map(Difference::Missing)
        .collect();
    assert_eq!(all.len(), 8);
    assert_eq!(plan(&settings).unwrap(), all);
    assert_eq!(apply(&settings).unwrap(), all);
    assert_eq!(plan(&settings).unwrap(), []);
    assert_eq!(apply(&settings).unwrap(), []);

    // Somebody has changed what is ours, and set what is not.
    let events = settings.kafka.name("events");
    let changed = "retention.ms=1000000000,max.message.bytes=1000,segment.bytes=20000000,compression.type=gzip";
    cluster.run(
        "tool",
        &[
            "configs",
            "--alter",
            "--entity-type",
            "topics",
            "--entity-name",
            &events,
            "--add-config",
            changed,
        ],
    );
    let differ = |name: &'static str, found: &str, wanted: &str| Difference::Setting {
        topic: events.clone(),
        name,
        found: found.into(),
        wanted: wanted.into(),
    };
    let expected = [
        differ("max.message.bytes", "1000", "17825792"),
        differ("retention.ms", "1000000000", "25920000000"),
    ];
    assert_eq!(plan(&settings).unwrap(), expected);
    assert_eq!(apply(&settings).unwrap(), expected);
    assert_eq!(plan(&settings).unwrap(), []);
    let set = cluster.run(
        "tool",
        &[
            "configs",
            "--describe",
            "--entity-type",
            "topics",
            "--entity-name",
            &events,
        ],
    );
    says(
        &set,
        &[
            "segment.bytes=20000000",
            "compression.type=gzip",
            "retention.ms=25920000000",
        ],
    );

    // What cannot be mended is said, and what can be is mended beside it.
    delete(&settings, &["matches"]);
    settings.partitions.events = 5;
    settings.kafka.replication = 3;
    let found = plan(&settings).unwrap();
    let text: Vec<String> = found.iter().map(Difference::to_string).collect();
    says(
        &text.join("\n"),
        &[
            &format!("{events}: has 2 partitions, the configuration says 5"),
            &format!("{events}: has 1 copies, the configuration says 3"),
            "matches: is missing",
        ],
    );
    settings.kafka.replication = 1;
    let mended: Vec<String> = apply(&settings)
        .unwrap()
        .iter()
        .map(Difference::to_string)
        .collect();
    assert_eq!(mended.len(), 1, "{mended:?}");
    says(&mended[0], &["matches: is missing"]);
}
