//! Reading ahead: bounded, from anywhere, and over what happens to brokers and records.

use super::*;

/// Records that are easy to tell apart and hard to compress.
fn large(range: Range<u32>, bytes: usize) -> Vec<Record> {
    range
        .map(|n| {
            let mut state = u64::from(n) + 1;
            let mut value = Vec::with_capacity(bytes + 8);
            while value.len() < bytes {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                value.extend(state.to_le_bytes());
            }
            value[..4].copy_from_slice(&n.to_le_bytes());
            Record {
                value: value.into(),
                ..record(0, "")
            }
        })
        .collect()
}

fn number(record: &Record) -> u32 {
    u32::from_le_bytes(record.value[..4].try_into().unwrap())
}

#[test]
fn a_slow_reader_holds_no_more_than_it_may() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let mut settings = cluster.settings();
    settings.kafka.read_ahead_mib = 4;
    let node = open(&settings);
    const RECORDS: u32 = 2_000;
    const BYTES: usize = 100_000;
    for from in (0..RECORDS).step_by(200) {
        node.bus
            .append(Topic::Events, large(from..from + 200, BYTES))
            .unwrap();
    }
    let bound = (4 << 20) + BYTES + 64;
    let mut most = 0;
    let (mut at, mut next) = (0, 0);
    while at < u64::from(RECORDS) {
        let batch = node.bus.read(Topic::Events, 0, at, 1 << 20).unwrap();
        assert!(!batch.records.is_empty());
        for (offset, record) in &batch.records {
            assert_eq!((*offset, number(record)), (u64::from(next), next));
            next += 1;
        }
        at = batch.next;
        // Slow enough that everything could have come.
        if at % 50 < 10 {
            std::thread::sleep(Duration::from_millis(30));
        }
        most = most.max(node.bus.brokers.readers.ahead());
        assert!(most <= bound, "{most} bytes are ahead, {bound} may be");
        // It stops being read and is taken up again a little before.
        if at > 100 && (at % 700) < 10 {
            let name = settings.kafka.name("events");
            node.bus.brokers.readers.forget(&name, 0);
            at -= 5;
            next -= 5;
        }
    }
    assert!(most > 2 << 20, "only {most} bytes were ever ahead");
}

#[test]
fn readers_at_different_places_do_not_disturb_one_another() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let settings = cluster.settings();
    let node = open(&settings);
    const RECORDS: u32 = 3_000;
    node.bus
        .append(Topic::Events, large(0..RECORDS, 1_000))
        .unwrap();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for start in [0, 1_000, 1_000, 2_500] {
            let node = &node;
            scope.spawn(move || {
                let mut at = start;
                while at < u64::from(RECORDS) {
                    let batch = node.bus.read(Topic::Events, 0, at, 20_000).unwrap();
                    for (offset, record) in &batch.records {
                        assert_eq!(*offset, at);
                        assert_eq!(u64::from(number(record)), at);
                        at += 1;
                    }
                    assert_eq!(at, batch.next);
                }
            });
        }
    });
    eprintln!("four readers were done after {:?}", begin.elapsed());
}

#[test]
fn records_that_go_while_they_are_read_are_told() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let settings = cluster.settings();
    let node = open(&settings);
    // More than is read ahead, so that not all of it is here when it goes.
    node.bus
        .append(Topic::Events, large(0..300, 100_000))
        .unwrap();
    let first = node.bus.read(Topic::Events, 0, 0, 1).unwrap();
    assert_eq!(first.next, 1);
    let name = settings.kafka.name("events");
    node.bus.brokers.drop_before(&name, 0, 290).unwrap();
    let (mut at, mut start) = (1, 0);
    while start == 0 {
        match node.bus.read(Topic::Events, 0, at, 1 << 20) {
            Ok(batch) => {
                assert_eq!(batch.records[0].0, at);
                at = batch.next;
            }
            Err(BusError::OutOfRange {
                asked, start: s, ..
            }) => {
                assert_eq!(asked, at);
                start = s;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(start, 290);
    let batch = node.bus.read(Topic::Events, 0, start, usize::MAX).unwrap();
    assert_eq!(batch.records[0].0, 290);
}

#[test]
fn a_waiter_is_woken_again_and_again() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let mut settings = cluster.settings();
    settings.kafka.read_ahead_mib = 1;
    let node = open(&settings);
    let other = another(&settings);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..40 {
                // Every second one fills the buffer and stops the lane.
                let bytes = if n % 2 == 0 { 10 } else { 1_200_000 };
                other
                    .bus
                    .append(Topic::Events, large(n..n + 1, bytes))
                    .unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut at = 0;
        while at < 40 {
            let long = Duration::from_secs(20);
            assert!(node.bus.wait(Topic::Events, &[(0, at)], long).unwrap());
            // It may wait again before it reads.
            assert!(node.bus.wait(Topic::Events, &[(0, at)], long).unwrap());
            at = node
                .bus
                .read(Topic::Events, 0, at, usize::MAX)
                .unwrap()
                .next;
        }
    });
}

#[test]
fn a_broker_that_is_away_for_long_is_told_and_comes_back() {
    let Some(cluster) = Cluster::start(&[]) else {
        return;
    };
    let mut settings = cluster.settings();
    settings.kafka.patience_seconds = 2;
    let node = open(&settings);
    node.bus
        .append(Topic::Events, large(0..300, 100_000))
        .unwrap();
    let mut at = node.bus.read(Topic::Events, 0, 0, 1).unwrap().next;
    for how in ["kill-broker", "pause-broker"] {
        cluster.run(how, &["1"]);
        // What is here can still be read.
        let begin = Instant::now();
        let error = loop {
            match node.bus.read(Topic::Events, 0, at, 100_000) {
                Ok(batch) => at = batch.next,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), "unavailable", "{error}");
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(12), "{took:?}");
        words(node.bus.bounds(Topic::Events, 1), "unavailable");
        words(
            node.bus.append(Topic::Events, large(0..1, 10)),
            "unavailable",
        );
        match how {
            "kill-broker" => cluster.run("start-broker", &["1"]),
            _ => cluster.run("resume-broker", &["1"]),
        };
        let begin = Instant::now();
        until("records come again", || {
            match node.bus.read(Topic::Events, 0, at, 100_000) {
                Ok(batch) => batch.records[0].0 == at,
                Err(error) => {
                    assert_eq!(error.kind(), "unavailable", "{error}");
                    false
                }
            }
        });
        eprintln!(
            "after {how}: told after {took:?}, on after {:?}",
            begin.elapsed()
        );
    }
    while at < 300 {
        at = node.bus.read(Topic::Events, 0, at, 1 << 20).unwrap().next;
    }
}
