//! Any body as a delivery of Amazon Data Firehose, through the whole endpoint: it is answered, and what is answered with
//! 200 is on the log or was passed over for a reason.

#![no_main]

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use bus::{Batch, Bus, BusError, Commit, Entry, Offset, Record, Topic};
use event::Time;
use ingest::config::Config;
use ingest::metrics::Metrics;
use ingest::treatment::Treatment;
use libfuzzer_sys::fuzz_target;
use tower::ServiceExt;

/// A log that takes everything and keeps nothing.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Bus for Counting {
    fn partitions(&self, _: Topic) -> u32 {
        1
    }
    fn append(&self, _: Topic, records: Vec<Record>) -> Result<(), BusError> {
        self.0.fetch_add(records.len(), Ordering::Relaxed);
        Ok(())
    }
    fn read(&self, _: Topic, _: u32, from: Offset, _: usize) -> Result<Batch, BusError> {
        Ok(Batch {
            records: Vec::new(),
            next: from,
        })
    }
    fn wait(&self, _: Topic, _: &[(u32, Offset)], _: Duration) -> Result<bool, BusError> {
        Ok(false)
    }
    fn bounds(&self, _: Topic, _: u32) -> Result<Range<Offset>, BusError> {
        Ok(0..0)
    }
    fn commit(&self, _: Commit) -> Result<(), BusError> {
        Ok(())
    }
    fn position(&self, _: &str, _: Topic, _: u32) -> Result<Option<Offset>, BusError> {
        Ok(None)
    }
    fn state_get(&self, _: &str, _: u32, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        Ok(vec![None; keys.len()])
    }
    fn state_scan(&self, _: &str, _: u32, _: &[u8]) -> Result<Vec<Entry>, BusError> {
        Ok(Vec::new())
    }
    fn retain(&self, _: Time) -> Result<(), BusError> {
        Ok(())
    }
}

struct World {
    runtime: tokio::runtime::Runtime,
    router: axum::Router,
    log: Arc<Counting>,
}

fn world() -> World {
    let config: Config = serde_json::from_str(r#"{"firehose": {"access_keys": ["key"]}}"#).expect("a configuration");
    let log = Arc::new(Counting::default());
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("a registry of its own");
    let clock: event::Clock = Arc::new(|| Time(1_772_452_800_000_000));
    let bus: Arc<dyn Bus> = Arc::clone(&log) as _;
    World {
        runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread"),
        router: ingest::firehose::router(bus, clock, &config, metrics, Arc::new(Treatment::off())).expect("a router"),
        log,
    }
}

thread_local! {
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

fuzz_target!(|body: &[u8]| {
    WORLD.with(|cell| {
        let world = cell.get_or_init(world);
        let request = Request::post("/api/v1/firehose")
            .header("content-type", "application/json")
            .header("x-amz-firehose-request-id", "r")
            .header("x-amz-firehose-access-key", "key")
            .body(Body::from(body.to_vec()))
            .expect("a request");
        let before = world.log.0.load(Ordering::Relaxed);
        let answer = world.runtime.block_on(world.router.clone().oneshot(request)).expect("an answer");
        let taken = world.log.0.load(Ordering::Relaxed) - before;
        match answer.status().as_u16() {
            200 => {}
            400 | 413 => assert_eq!(taken, 0),
            other => panic!("answered {other}"),
        }
    });
});
