//! What was acknowledged is there, whatever happens to brokers and to the producer.

use std::collections::BTreeMap;

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

/// Appends numbered records from several threads until `work` has ended, each again and again until it is acknowledged.
/// Gives how many each has had acknowledged.
fn append_during(bus: &KafkaBus, threads: u32, work: impl FnOnce()) -> Vec<u64> {
    /// The threads must end even if the test fails.
    struct AtEnd(crate::Stop);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            self.0.stop();
        }
    }
    let stop = crate::Stop::default();
    std::thread::scope(|scope| {
        let appending: Vec<_> = (0..threads)
            .map(|thread| {
                let stop = stop.clone();
                scope.spawn(move || {
                    let mut next = 0;
                    while !stop.is_stopped() {
                        let value = format!("{thread} {next}");
                        match bus.append(Topic::Events, vec![record(thread % 2, &value)]) {
                            Ok(()) => next += 1,
                            Err(BusError::Unavailable { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    next
                })
            })
            .collect();
        let at_end = AtEnd(stop.clone());
        work();
        drop(at_end);
        appending
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// Is every acknowledged record there, and are those of a thread in its order but for repeats?
fn all_are_there(bus: &KafkaBus, acknowledged: &[u64]) {
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    let mut repeats = 0;
    for partition in 0..2 {
        for value in values_of(bus, Topic::Events, partition) {
            let (thread, number) = value.split_once(' ').unwrap();
            let (thread, number): (u64, u64) = (thread.parse().unwrap(), number.parse().unwrap());
            let expected = next.entry(thread).or_default();
            assert!(number <= *expected, "{thread} has a gap before {number}");
            if number == *expected {
                *expected += 1;
            } else {
                repeats += 1;
            }
        }
    }
    eprintln!("acknowledged {acknowledged:?}, found {next:?} and {repeats} repeats");
    for (thread, count) in acknowledged.iter().enumerate() {
        assert!(next.get(&(thread as u64)).copied().unwrap_or(0) >= *count);
    }
}

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

#[test]
fn a_producer_that_fails_for_good_is_replaced() {
    if std::env::var_os("TRAILWARDEN_KAFKA_TESTS").is_none() {
        return;
    }
    let mock = MockCluster::new(1).unwrap();
    let mut settings = Cluster::settings_for(&mock.bootstrap_servers());
    settings.kafka.patience_seconds = 5;
    for wanted in topics::wanted(&settings) {
        mock.create_topic(&wanted.name, 2, 1).unwrap();
    }
    let node = another(&settings);
    let acknowledged = append_during(&node.bus, 4, || {
        for _ in 0..3 {
            pause(300);
            mock.request_errors(
                RDKafkaApiKey::Produce,
                &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
            );
            pause(300);
        }
    });
    assert!(acknowledged.iter().all(|n| *n > 10), "{acknowledged:?}");
    let restarts = &node.bus.numbers().producer_restarts;
    assert!(restarts.load(Ordering::Relaxed) >= 1);
    all_are_there(&node.bus, &acknowledged);
}

#[test]
fn a_broker_that_was_killed_takes_nothing_along() {
    let Some(cluster) = Cluster::start(&[]) else {
        return;
    };
    let mut settings = cluster.settings();
    // Shorter than the broker is away.
    settings.kafka.patience_seconds = 2;
    let node = open(&settings);
    let acknowledged = append_during(&node.bus, 4, || {
        pause(500);
        cluster.run("kill-broker", &["1"]);
        pause(3_000);
        cluster.run("start-broker", &["1"]);
        pause(2_000);
        cluster.run("stop-broker", &["1"]);
        cluster.run("start-broker", &["1"]);
        pause(3_000);
    });
    assert!(acknowledged.iter().all(|n| *n > 20), "{acknowledged:?}");
    all_are_there(&node.bus, &acknowledged);
}

#[test]
fn of_three_brokers_one_may_go() {
    let Some(cluster) = Cluster::start(&["--brokers", "3"]) else {
        return;
    };
    let mut settings = cluster.moving();
    settings.kafka.replication = 3;
    let node = open(&settings);
    let acknowledged = append_during(&node.bus, 4, || {
        let ends = || -> Vec<Offset> {
            (0..2)
                .map(|p| node.bus.bounds(Topic::Events, p).unwrap().end)
                .collect()
        };
        // Appends, reads and commits go on without it.
        let goes_on = || {
            let before = ends();
            let begin = Instant::now();
            until("records come to both partitions", || {
                ends()
                    .iter()
                    .zip(&before)
                    .all(|(now, then)| *now > then + 5)
            });
            until("records are read and commits stand", || {
                (0..2).all(|p| {
                    let done = node.bus.position("c", Topic::Events, p);
                    let behind = done.is_ok_and(|at| at.unwrap_or(0) < before[p as usize]);
                    let step = count(&node.bus, "c", p, 1 << 20);
                    assert!(
                        step.as_ref().err().is_none_or(BusError::is_transient),
                        "{step:?}"
                    );
                    step.is_ok() && !behind
                })
            });
            begin.elapsed()
        };
        // Each broker leads some partition.
        for id in ["1", "2"] {
            cluster.run("kill-broker", &[id]);
            let killed = goes_on();
            cluster.run("start-broker", &[id]);
            eprintln!(
                "broker {id} killed: on after {killed:?}, back: {:?}",
                goes_on()
            );
        }
        cluster.run("pause-broker", &["3"]);
        let paused = goes_on();
        pause(4_000);
        let still = goes_on();
        cluster.run("resume-broker", &["3"]);
        eprintln!(
            "broker 3 paused: on after {paused:?} and {still:?}, back: {:?}",
            goes_on()
        );
    });
    assert!(acknowledged.iter().all(|n| *n > 20), "{acknowledged:?}");
    all_are_there(&node.bus, &acknowledged);
    for partition in 0..2 {
        count_all(&node.bus, "c", partition);
        let end = node.bus.bounds(Topic::Events, partition).unwrap().end;
        assert_eq!(counted(&node.bus, "c", partition).unwrap(), end);
    }
}
