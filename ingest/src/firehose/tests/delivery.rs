//! Firehose as its documentation describes it, against an endpoint whose log fails in every way.
//!
//! [`Firehose`] sends a request until it is answered as the contract says, always under the same id, with pauses
//! that grow from one second to two minutes (in a time of its own, so that no test waits), until the retry
//! duration of the stream is over and the request goes to the error bucket. [`Faulty`] is a log on disk that
//! does at its next writes what it is told to.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Condvar, Mutex};

use bus::{Batch, Commit, Entry, Offset, Record};

use super::*;

/// What a log does when it is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It works.
    None,
    /// It has no space left.
    Full,
    /// An fsync failed.
    Poisoned,
    /// It writes, and nobody is told so.
    Unanswered,
    /// It does not come back before it is released, or for half a minute.
    Slow,
}

/// A log that fails as it is told to.
pub(super) struct Faulty {
    log: EmbeddedBus,
    faults: Mutex<VecDeque<Fault>>,
    /// How often it was released.
    releases: Mutex<u64>,
    released: Condvar,
    _folder: tempfile::TempDir,
}

impl Faulty {
    pub(super) fn new() -> Faulty {
        let folder = tempfile::tempdir().unwrap();
        Faulty {
            log: EmbeddedBus::open(folder.path(), Options::default()).unwrap(),
            faults: Mutex::default(),
            releases: Mutex::default(),
            released: Condvar::new(),
            _folder: folder,
        }
    }

    /// What it will do at its next writes; after them it works.
    pub(super) fn will(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// Lets go of writes that hang.
    pub(super) fn release(&self) {
        *self.releases.lock().unwrap() += 1;
        self.released.notify_all();
    }

    /// All that is on a topic.
    pub(super) fn records(&self, topic: Topic) -> Vec<Record> {
        let mut records = Vec::new();
        for partition in 0..self.log.partitions(topic) {
            let mut next = 0;
            loop {
                let batch = self.log.read(topic, partition, next, 1 << 24).unwrap();
                if batch.records.is_empty() {
                    break;
                }
                next = batch.next;
                records.extend(batch.records.into_iter().map(|(_, record)| record));
            }
        }
        records
    }
}

impl Bus for Faulty {
    fn append(&self, topic: Topic, records: Vec<Record>) -> Result<(), BusError> {
        let fault = self.faults.lock().unwrap().pop_front();
        let path = "data".to_owned();
        match fault.unwrap_or(Fault::None) {
            Fault::None => self.log.append(topic, records),
            Fault::Full => Err(BusError::DiskFull { path }),
            Fault::Poisoned => Err(BusError::Poisoned { path }),
            Fault::Unanswered => {
                self.log.append(topic, records)?;
                Err(BusError::State("the answer was lost".to_owned()))
            }
            Fault::Slow => {
                let releases = self.releases.lock().unwrap();
                let before = *releases;
                let long = Duration::from_secs(30);
                let hangs = |now: &mut u64| *now == before;
                drop(
                    self.released
                        .wait_timeout_while(releases, long, hangs)
                        .unwrap(),
                );
                self.log.append(topic, records)
            }
        }
    }

    fn partitions(&self, topic: Topic) -> u32 {
        self.log.partitions(topic)
    }

    fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: Offset,
        most: usize,
    ) -> Result<Batch, BusError> {
        self.log.read(topic, partition, from, most)
    }

    fn wait(&self, topic: Topic, from: &[(u32, Offset)], most: Duration) -> Result<bool, BusError> {
        self.log.wait(topic, from, most)
    }

    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, BusError> {
        self.log.bounds(topic, partition)
    }

    fn commit(&self, commit: Commit) -> Result<(), BusError> {
        self.log.commit(commit)
    }

    fn position(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<Offset>, BusError> {
        self.log.position(consumer, topic, partition)
    }

    fn state_get(
        &self,
        consumer: &str,
        partition: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        self.log.state_get(consumer, partition, keys)
    }

    fn state_scan(
        &self,
        consumer: &str,
        partition: u32,
        prefix: &[u8],
    ) -> Result<Vec<Entry>, BusError> {
        self.log.state_scan(consumer, partition, prefix)
    }

    fn retain(&self, before: Time) -> Result<(), BusError> {
        self.log.retain(before)
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Delivered,
    ErrorBucket,
    /// Answered 413: not even the error bucket gets it.
    Dropped,
}

/// A stream of Firehose with an HTTP endpoint for its destination.
struct Firehose<'w> {
    world: &'w World,
    key: &'static str,
    /// For how long a request is sent again, in seconds; 7,200 at most.
    retry_seconds: f64,
    gzip: bool,
}

impl Firehose<'_> {
    async fn deliver(&self, id: &str, body: &[u8]) -> (End, u32) {
        let (mut pause, mut waited, mut attempts) = (1.0, 0.0, 0);
        loop {
            attempts += 1;
            let answer = self.world.send(self.request(id, body)).await;
            if succeeded(&answer, id) {
                return (End::Delivered, attempts);
            }
            if answer.status == 413 {
                return (End::Dropped, attempts);
            }
            // 15 percent of jitter, up and down.
            let jitter = 0.85 + 0.3 * f64::from(attempts * 7 % 10) / 9.0;
            waited += pause * jitter;
            if waited > self.retry_seconds {
                return (End::ErrorBucket, attempts);
            }
            pause = f64::min(pause * 2.0, 120.0);
            // Meanwhile the world has gone on.
            self.world.bus.release();
        }
    }

    fn request(&self, id: &str, body: &[u8]) -> Request {
        let body = if self.gzip { gz(body) } else { body.to_vec() };
        let mut request = request(body);
        let headers = request.headers_mut();
        headers.insert("x-amz-firehose-request-id", id.parse().unwrap());
        headers.insert("x-amz-firehose-access-key", self.key.parse().unwrap());
        if self.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        request
    }
}

/// Is this an answer that Firehose takes for a success?
fn succeeded(answer: &Answer, id: &str) -> bool {
    let header = |name| answer.headers.get(name).and_then(|v| v.to_str().ok());
    answer.status == 200
        && header(header::CONTENT_TYPE) == Some("application/json")
        && header(header::CONTENT_LENGTH) == Some(answer.length.to_string().as_str())
        && header(header::CONTENT_ENCODING).is_none()
        && answer.length <= 1 << 20
        && answer.body["requestId"] == id
        && answer.body["timestamp"].is_u64()
}

/// What one record of a stream may be.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A payload with so many log events.
    Payload(u8),
    /// So many JSON documents.
    Documents(u8),
    Control,
    Empty,
    NotBase64,
    NoData,
    CutGzip,
    Bomb,
    Text,
}

/// A request, and what must be on the log once it is delivered.
#[derive(Debug, Default)]
struct Sent {
    id: String,
    body: Vec<u8>,
    events: BTreeSet<Id>,
    letters: BTreeSet<(String, u64)>,
}

fn sent(id: &str, kinds: &[Kind]) -> Sent {
    let mut sent = Sent {
        id: id.to_owned(),
        ..Sent::default()
    };
    let mut records = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let object = object_of(id, index);
        let name = |n: u8| format!("{id}-{index}-{n}");
        records.push(match *kind {
            Kind::Payload(n) => {
                let names: Vec<_> = (0..n).map(name).collect();
                sent.events.extend(names.iter().map(|name| id_of(name)));
                let events: Vec<_> = names.iter().map(|n| (n.as_str(), "hello")).collect();
                data(&payload(&events))
            }
            Kind::Documents(n) => {
                sent.events
                    .extend((0..n).map(|n| Id::position(&object, n.into())));
                data("{\"a\":1}\n".repeat(n.into()).as_bytes())
            }
            Kind::Control => data(&control_message()),
            Kind::Empty => data(b""),
            bad => {
                sent.letters.insert((object, 0));
                match bad {
                    Kind::NotBase64 => json!({"data": "?"}),
                    Kind::NoData => json!({"datum": ""}),
                    Kind::CutGzip => data(&payload(&[("x", "y")])[..60]),
                    Kind::Bomb => data(&gz(&vec![b' '; 2 << 20])),
                    _ => data(b"what no function writes"),
                }
            }
        });
    }
    let body = json!({"requestId": id, "timestamp": 1, "records": records});
    sent.body = body.to_string().into_bytes();
    sent
}

impl World {
    fn letter_places(&self) -> BTreeSet<(String, u64)> {
        let letters = self.letters();
        letters
            .iter()
            .map(|l| (l.object.to_string(), l.position))
            .collect()
    }

    /// All that a delivered request held is on the log.
    fn holds(&self, sent: &Sent) {
        assert!(self.event_ids().is_superset(&sent.events), "{}", sent.id);
        assert!(
            self.letter_places().is_superset(&sent.letters),
            "{}",
            sent.id
        );
    }

    /// The log holds what these requests held, and nothing else.
    fn holds_only(&self, sent: &[Sent]) {
        let events: BTreeSet<Id> = sent.iter().flat_map(|s| &s.events).copied().collect();
        assert_eq!(self.event_ids(), events);
        let letters: BTreeSet<_> = sent.iter().flat_map(|s| &s.letters).cloned().collect();
        assert_eq!(self.letter_places(), letters);
    }
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let kind = prop_oneof![
        4 => (1_u8..20).prop_map(Kind::Payload),
        3 => (1_u8..20).prop_map(Kind::Documents),
        1 => Just(Kind::Control),
        1 => Just(Kind::Empty),
        1 => Just(Kind::NotBase64),
        1 => Just(Kind::NoData),
        1 => Just(Kind::CutGzip),
        1 => Just(Kind::Bomb),
        1 => Just(Kind::Text),
    ];
    proptest::collection::vec(kind, 1..8)
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        Just(Fault::None),
        Just(Fault::Full),
        Just(Fault::Poisoned),
        Just(Fault::Unanswered),
    ];
    proptest::collection::vec(fault, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever fails, and however often a request is sent in the end: every event is there once by its id, every
    /// malformed record is one dead letter by its place, and what was answered 200 is there from then on.
    #[test]
    fn everything_arrives_once_whatever_fails(
        requests in proptest::collection::vec((kinds(), any::<bool>(), any::<bool>()), 1..6),
        faults in faults(),
    ) {
        run(async {
            let world = World::new(json!({}));
            world.bus.will(faults);
            let mut all = Vec::new();
            for (number, (kinds, gzip, again)) in requests.iter().enumerate() {
                let firehose = Firehose { world: &world, key: KEY, retry_seconds: 7_200.0, gzip: *gzip };
                let sent = sent(&format!("request-{number}"), kinds);
                // Firehose may send again what was answered, where the answer was lost.
                for _ in 0..=u8::from(*again) {
                    let (end, _) = firehose.deliver(&sent.id, &sent.body).await;
                    assert_eq!(end, End::Delivered);
                    world.holds(&sent);
                }
                all.push(sent);
            }
            world.holds_only(&all);
        });
    }
}

const MIXED: [Kind; 6] = [
    Kind::Payload(3),
    Kind::NotBase64,
    Kind::Documents(2),
    Kind::Bomb,
    Kind::CutGzip,
    Kind::Control,
];

fn firehose(world: &World) -> Firehose<'_> {
    Firehose {
        world,
        key: KEY,
        retry_seconds: 7_200.0,
        gzip: true,
    }
}

/// The log hangs, has no space, fails and comes back; the request is sent again until it is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_comes_back_gets_everything() {
    let world = World::patient(json!({}), Duration::from_millis(500));
    world.bus.will([
        Fault::Slow,
        Fault::Full,
        Fault::Slow,
        Fault::Poisoned,
        Fault::Unanswered,
    ]);
    let sent = sent("r", &MIXED);
    let (end, attempts) = firehose(&world).deliver(&sent.id, &sent.body).await;
    assert_eq!(end, End::Delivered);
    assert!(attempts > 3, "{attempts}");
    world.holds_only(&[sent]);
}

/// Firehose waits for no more than its time and sends again while the first attempt still works.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_many_times_at_once_is_one() {
    let world = World::new(json!({"concurrency": 8}));
    let sent = sent("r", &MIXED);
    let firehose = firehose(&world);
    let attempts = (0..8).map(|_| firehose.deliver(&sent.id, &sent.body));
    for (end, _) in futures_util::future::join_all(attempts).await {
        assert_eq!(end, End::Delivered);
    }
    world.holds_only(&[sent]);
}

/// What is never taken goes to the error bucket when the retry duration is over; nothing of it is lost on the way.
#[test]
fn what_is_not_taken_goes_to_the_error_bucket() {
    let ends = |world: &World, key, body: &[u8], expected: u32| {
        let firehose = Firehose {
            key,
            retry_seconds: 300.0,
            ..firehose(world)
        };
        let (end, attempts) = run(firehose.deliver("r", body));
        assert_eq!((end, attempts), (End::ErrorBucket, expected));
        assert!(world.events().is_empty() && world.letters().is_empty());
    };
    let good = sent("r", &MIXED).body;
    // 1 + 2 + … + 64 seconds and two minutes, give or take the jitter.
    ends(&World::new(json!({})), "wrong", &good, 9);
    ends(&World::new(json!({"access_keys": []})), KEY, &good, 9);
    ends(&World::new(json!({})), KEY, b"{}", 9);
    let large = body_of("r", &[vec![b' '; 900_000]]);
    ends(&World::new(json!({})), KEY, &large, 9);
    let full = World::new(json!({}));
    full.bus.will([Fault::Full; 100]);
    ends(&full, KEY, &good, 9);
}

/// The largest request there can be: 64 MiB, of records of a megabyte.
#[test]
fn the_largest_request_is_taken() {
    let world = World::new(json!({"max_body_mib": 64}));
    let line = format!("{{\"text\":\"{}\"}}\n", "x".repeat(10_228));
    let record = line.repeat(100);
    assert_eq!(record.len(), 1_024_000);
    let most = (64 << 20) / (record.len() * 4 / 3 + 16);
    let mut body = body_of("r", &vec![record.into_bytes(); most]);
    // Blanks after the end fill it up to the last byte.
    body.resize(64 << 20, b' ');
    for gzip in [false, true] {
        let firehose = Firehose {
            gzip,
            ..firehose(&world)
        };
        assert_eq!(run(firehose.deliver("r", &body)), (End::Delivered, 1));
    }
    assert_eq!(world.event_ids().len(), 100 * most);
    body.push(b' ');
    let answer = run(world.send(firehose(&world).request("r", &body)));
    assert_eq!(answer.status, 400, "{}", answer.body);
}
