//! Watched files that grow, turn over, vanish and come back.

use std::io::Write;
use std::sync::atomic::{AtomicI64, Ordering};

use bus::Topic;
use bus::embedded::{EmbeddedBus, Options};
use event::Event;

use crate::source::object::Shop;

use super::*;

struct Setup {
    logs: tempfile::TempDir,
    data: tempfile::TempDir,
    config: Files,
    now: Arc<AtomicI64>,
}

impl Setup {
    fn new() -> Setup {
        let logs = tempfile::tempdir().unwrap();
        let config = Files {
            paths: vec![logs.path().to_owned()],
            settle_seconds: 5,
            ..Files::default()
        };
        Setup {
            logs,
            data: tempfile::tempdir().unwrap(),
            config,
            now: Arc::new(AtomicI64::new(0)),
        }
    }

    fn put(&self, name: &str, content: &[u8]) {
        fs::write(self.logs.path().join(name), content).unwrap();
    }

    fn add(&self, name: &str, content: &[u8]) {
        let mut file = File::options()
            .append(true)
            .open(self.logs.path().join(name))
            .unwrap();
        file.write_all(content).unwrap();
    }

    /// Starts anew on the same data, passes twice with ten seconds between, and gives all events that are on the
    /// log, by object and in order, as `id-less` texts, with the number of dead letters.
    fn pass(&self) -> (Vec<String>, usize) {
        let bus = EmbeddedBus::open(self.data.path(), Options::default()).unwrap();
        let now = Arc::clone(&self.now);
        let clock: Clock = Arc::new(move || Time(now.load(Ordering::SeqCst)));
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let limits = Limits::of_files();
        let mut source = Source::open(
            &bus,
            &self.config,
            limits,
            (metrics, Arc::new(Treatment::off())),
            clock,
            Stop::default(),
        )
        .unwrap();
        source.pass().unwrap();
        self.now.fetch_add(10_000_000, Ordering::SeqCst);
        source.pass().unwrap();
        let mut events: Vec<_> = all(&bus, Topic::Events)
            .into_iter()
            .map(|r| Event::decode(&r.value).unwrap())
            .map(|e| (e.origin.object.clone(), e.origin.position, e))
            .collect();
        events.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let shown = events
            .iter()
            .map(|(object, position, event)| {
                let name = object.rsplit('/').next().unwrap();
                let raw = String::from_utf8_lossy(&event.raw);
                format!("{name}:{position} {raw}")
            })
            .collect();
        (shown, all(&bus, Topic::DeadLetters).len())
    }
}

fn all(bus: &dyn Bus, topic: Topic) -> Vec<bus::Record> {
    (0..bus.partitions(topic))
        .flat_map(|p| bus.read(topic, p, 0, usize::MAX / 2).unwrap().records)
        .map(|(_, record)| record)
        .collect()
}

#[test]
fn appended_lines_are_read_on_also_after_a_restart() {
    let setup = Setup::new();
    setup.put("a.jsonl", b"{\"n\":1}\n{\"n\":2}\n{\"n\"");
    let (events, dead) = setup.pass();
    assert_eq!(events, ["a.jsonl:0 {\"n\":1}", "a.jsonl:1 {\"n\":2}"]);
    assert_eq!(dead, 0, "the rest of the line may come");
    setup.add("a.jsonl", b":3}\n{\"n\":4}\n{\"n\"");
    let (events, dead) = setup.pass();
    assert_eq!(events[2..], ["a.jsonl:2 {\"n\":3}", "a.jsonl:3 {\"n\":4}"]);
    assert_eq!(dead, 0);
    setup.now.store(i64::MAX / 2, Ordering::SeqCst);
    assert_eq!(setup.pass().1, 1, "nothing came for long");
    setup.add("a.jsonl", b"\n{\"n\":6}\n");
    let (events, _) = setup.pass();
    assert_eq!(events.last().unwrap(), "a.jsonl:5 {\"n\":6}");
    assert_eq!(setup.pass().0, events, "nothing changed, nothing is read");
}

#[test]
fn whole_objects_wait_until_they_settle() {
    let setup = Setup::new();
    setup.put("a.json", b"{\"Records\":[{\"n\":1}");
    setup.put(".hidden", b"{\"n\":9}\n");
    fs::create_dir(setup.logs.path().join("below")).unwrap();
    setup.put("below/b.json", b"[{\"n\":2}]");
    let bus_free = Setup {
        config: Files {
            settle_seconds: 60,
            ..setup.config.clone()
        },
        ..setup
    };
    assert_eq!(bus_free.pass(), (vec![], 0));
    bus_free.add("a.json", b",{\"n\":3}]}");
    bus_free.now.store(i64::MAX / 2, Ordering::SeqCst);
    let (events, dead) = bus_free.pass();
    assert_eq!(
        events,
        [
            "a.json:0 {\"n\":1}",
            "a.json:1 {\"n\":3}",
            "b.json:0 {\"n\":2}"
        ]
    );
    assert_eq!(dead, 0);
}

#[test]
fn a_replaced_file_begins_anew() {
    let setup = Setup::new();
    setup.put(
        "a.log",
        b"START RequestId: 1\nlong line of the first file\n",
    );
    assert_eq!(setup.pass().0.len(), 2);
    setup.put("a.log", b"START RequestId: 2\n");
    let (events, _) = setup.pass();
    assert_eq!(events[2], "a.log#1:0 START RequestId: 2");
    setup.put(
        "a.log",
        b"END RequestId: 2 and more, so that it is longer than before\n",
    );
    let (events, _) = setup.pass();
    assert!(events[3].starts_with("a.log#2:0 END"), "{events:?}");
}

#[test]
fn stopping_in_the_middle_repeats_and_loses_nothing() {
    let setup = Setup::new();
    setup.put("a.jsonl", "{\"n\":1}\n".repeat(10).as_bytes());
    let bus = EmbeddedBus::open(setup.data.path(), Options::default()).unwrap();
    let stop = Stop::default();
    stop.stop();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let bus: Arc<dyn Bus> = Arc::new(bus);
    let clock: Clock = Arc::new(|| Time(0));
    run(
        Arc::clone(&bus),
        &setup.config,
        Limits::of_files(),
        (metrics, Arc::new(Treatment::off())),
        clock,
        stop,
    )
    .unwrap();
    drop(bus);
    assert_eq!(setup.pass().0.len(), 10);
}

/// A log that fails at its n-th write, as if the program had died there.
pub(crate) struct Dying {
    bus: EmbeddedBus,
    writes_left: AtomicI64,
}

/// What a source needs, over such a log and at this time.
pub(crate) fn shop(bus: Arc<Dying>, now: Time) -> Shop {
    Shop {
        bus,
        limits: Limits::of_files(),
        spool: PathBuf::new(),
        metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
        treatment: Arc::new(Treatment::off()),
        clock: Arc::new(move || now),
        stop: Stop::default(),
    }
}

impl Dying {
    /// A log in a folder that takes so many writes.
    pub(crate) fn after(folder: &Path, writes: i64) -> Arc<Dying> {
        Arc::new(Dying {
            bus: EmbeddedBus::open(folder, Options::default()).unwrap(),
            writes_left: AtomicI64::new(writes),
        })
    }

    /// From now on it takes so many writes.
    pub(crate) fn revive(&self, writes: i64) {
        self.writes_left.store(writes, Ordering::SeqCst);
    }

    fn write(&self) -> Result<(), BusError> {
        match self.writes_left.fetch_sub(1, Ordering::SeqCst) {
            ..=0 => Err(BusError::Refused("dead".to_owned())),
            _ => Ok(()),
        }
    }
}

impl Bus for Dying {
    fn partitions(&self, topic: Topic) -> u32 {
        self.bus.partitions(topic)
    }
    fn append(&self, topic: Topic, records: Vec<bus::Record>) -> Result<(), BusError> {
        self.write()?;
        self.bus.append(topic, records)
    }
    fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: u64,
        max_bytes: usize,
    ) -> Result<bus::Batch, BusError> {
        self.bus.read(topic, partition, from, max_bytes)
    }
    fn wait(&self, topic: Topic, from: &[(u32, u64)], timeout: Duration) -> Result<bool, BusError> {
        self.bus.wait(topic, from, timeout)
    }
    fn bounds(&self, topic: Topic, partition: u32) -> Result<std::ops::Range<u64>, BusError> {
        self.bus.bounds(topic, partition)
    }
    fn commit(&self, commit: Commit) -> Result<(), BusError> {
        self.write()?;
        self.bus.commit(commit)
    }
    fn position(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<u64>, BusError> {
        self.bus.position(consumer, topic, partition)
    }
    fn state_get(
        &self,
        consumer: &str,
        partition: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        self.bus.state_get(consumer, partition, keys)
    }
    fn state_scan(
        &self,
        consumer: &str,
        partition: u32,
        prefix: &[u8],
    ) -> Result<Vec<bus::Entry>, BusError> {
        self.bus.state_scan(consumer, partition, prefix)
    }
    fn retain(&self, now: Time) -> Result<(), BusError> {
        self.bus.retain(now)
    }
}

#[test]
fn dying_at_any_write_loses_nothing() {
    for writes in 0..5 {
        let setup = Setup::new();
        setup.now.store(i64::MAX / 2, Ordering::SeqCst);
        setup.put("a.jsonl", b"{\"n\":1}\n{\"n\":2}\n");
        setup.put("b.json", b"{\"Records\":[{\"n\":3},oops]}");
        let bus = EmbeddedBus::open(setup.data.path(), Options::default()).unwrap();
        let dying = Dying {
            bus,
            writes_left: AtomicI64::new(writes),
        };
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let clock: Clock = Arc::new(|| Time(i64::MAX / 2));
        let limits = Limits::of_files();
        let (config, stop) = (&setup.config, Stop::default());
        let died = Source::open(
            &dying,
            config,
            limits,
            (metrics, Arc::new(Treatment::off())),
            clock,
            stop,
        )
        .and_then(|mut source| source.pass())
        .is_err();
        assert_eq!(
            died,
            writes < 3,
            "events, letters and progress are three writes"
        );
        drop(dying);
        let (mut events, dead) = setup.pass();
        events.dedup();
        assert_eq!(
            events,
            [
                "a.jsonl:0 {\"n\":1}",
                "a.jsonl:1 {\"n\":2}",
                "b.json:0 {\"n\":3}"
            ]
        );
        assert!(dead >= 1, "{writes} writes");
    }
}

#[test]
fn kinds_of_files() {
    for (head, whole) in [
        (&b"\x1f\x8b\x08"[..], true),
        (b" { \"Records\" : [", true),
        (b"[ {\"a\":1}", true),
        (b"{\n  \"a\": 1", true),
        (b"{\"a\":1}\n{\"a\":2}", false),
        (b"[INFO]\thello", false),
        (b"START RequestId", false),
    ] {
        assert_eq!(is_whole(head), whole, "{head:?}");
    }
}
