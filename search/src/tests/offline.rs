//! Indexes that are built without a bus, by one thread and by several.

use super::stage::batch;
use super::{check, searcher};
use crate::Config;
use crate::offline::{OfflineIndex, Parallel};

#[test]
fn an_index_without_a_bus() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = OfflineIndex::create(dir.path(), &Config::default()).unwrap();
    for event in batch(0..30) {
        index.add(&event).unwrap();
    }
    assert_eq!(index.finish().unwrap(), 30);
    check(
        &searcher(dir.path(), &Config::default()),
        "n:>=28",
        &[28, 29],
    );
    assert!(OfflineIndex::create(dir.path(), &Config::default()).is_err());
}

#[test]
fn an_index_that_several_threads_build() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Parallel::create(dir.path(), &Config::default(), 3).unwrap();
    for event in batch(0..3_000) {
        index.add(event).unwrap();
    }
    assert_eq!(index.finish().unwrap(), 3_000);
    let searcher = searcher(dir.path(), &Config::default());
    check(&searcher, "n:>=2998", &[2_998, 2_999]);
    check(&searcher, "n:[250 TO 260]", &(250..261).collect::<Vec<_>>());
    assert!(Parallel::create(dir.path(), &Config::default(), 1).is_err());
}

#[test]
fn a_thread_that_cannot_write_is_told_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Parallel::create(dir.path(), &Config::default(), 2).unwrap();
    std::fs::remove_dir(dir.path().join("splits")).unwrap();
    std::fs::write(dir.path().join("splits"), "in the way").unwrap();
    let added = (0..1_000).find_map(|n| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        let mut events = batch(n * 300..(n + 1) * 300).into_iter();
        events.find_map(|event| index.add(event).err())
    });
    let error = added.expect("it is told");
    assert!(error.to_string().contains("cannot write index"), "{error}");
}
