//! Events pushed over HTTP: `POST /api/v1/events`.
//!
//! [`router`] takes JSON lines, an array, a single object or CloudTrail `{"Records": […]}`, plain or with
//! `Content-Encoding: gzip`, and answers 200 with `{"accepted": n, "dead_letters": m}` only after all of it is
//! durable. A body of which nothing can be used is refused with 400 and the reason; single bad records among
//! good ones become dead letters. Bodies are bounded before and after decompression, and so is their number.
//! The same body sent again gives the same ids, so a client may repeat whatever was not answered.
//! Who may push is decided by a layer that the program puts around this router.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bus::Bus;
use event::{Clock, Id, Str, format_compact};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::append::{Appender, BATCH_BYTES};
use crate::body::{Bodies, Body};
use crate::config::Config;
use crate::dead_letter::DeadLetter;
use crate::decode::{self, Decoder, Item, Job, Limits};
use crate::metrics::Metrics;
use crate::normalize::{Context, Normalizer};
use crate::refusal::Refusal;
use crate::treatment::Treatment;

struct Intake {
    bus: Arc<dyn Bus>,
    clock: Clock,
    limits: Limits,
    bodies: Bodies,
    metrics: Metrics,
    treatment: Arc<Treatment>,
    requests: AtomicU64,
}

/// What was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Accepted {
    accepted: u64,
    dead_letters: u64,
}

/// The route of the push endpoint.
pub fn router(
    bus: Arc<dyn Bus>,
    clock: Clock,
    config: &Config,
    metrics: Metrics,
    treatment: Arc<Treatment>,
) -> Router {
    let limits = config.body_limits();
    let timeout = Duration::from_secs(config.push.timeout_seconds);
    let intake = Arc::new(Intake {
        bus,
        clock,
        limits,
        bodies: Bodies::new(limits, config.push.concurrency, timeout),
        metrics,
        treatment,
        requests: AtomicU64::new(0),
    });
    Router::new()
        .route("/api/v1/events", post(events))
        .layer(intake.bodies.layer())
        .with_state(intake)
}

async fn events(State(intake): State<Arc<Intake>>, request: Request) -> Response {
    let request_id = request_id(&intake, request.headers());
    match take(Arc::clone(&intake), request).await {
        Ok(accepted) => Json(accepted).into_response(),
        Err(refusal) => {
            let counter = &intake.metrics.requests_refused;
            counter.with_label_values(&["push", refusal.code]).inc();
            refused(refusal, &request_id)
        }
    }
}

/// The client's id of the request if it is harmless, else one of ours.
fn request_id(intake: &Intake, headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|v| v.to_str().ok());
    let harmless = |id: &&str| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    given.filter(harmless).map_or_else(
        || {
            let number = intake.requests.fetch_add(1, Ordering::Relaxed);
            let now = (intake.clock)().0;
            Id::of("request", &[&now.to_le_bytes(), &number.to_le_bytes()]).to_string()
        },
        str::to_owned,
    )
}

async fn take(intake: Arc<Intake>, request: Request) -> Result<Accepted, Refusal> {
    let body = intake.bodies.receive(request).await?;
    tokio::task::spawn_blocking(move || append(&intake, &body))
        .await
        .unwrap_or_else(|_| Err(Refusal::internal()))
}

/// Decodes a body and appends what it holds. Nothing is appended of a body that is refused for its own faults.
fn append(intake: &Intake, body: &Body) -> Result<Accepted, Refusal> {
    let began = (intake.clock)();
    let content = body.unpacked()?;
    let object: Str = format_compact!("push:{}", &decode::hex(&Sha256::digest(body.bytes()))[..32]);
    let context = Context {
        ingest_time: began,
        object: object.clone(),
        keep_raw: true,
    };
    let mut normalizer = Normalizer::new();
    let mut appender = Appender::new(&*intake.bus, &intake.metrics, &intake.treatment, "push");
    // Letters wait until there is an event beside them: without one the client is told instead.
    let (mut letters, mut waiting, mut accepted) = (Vec::new(), 0, 0_u64);
    let mut decoder = Decoder::new(intake.limits);
    let summary = decoder.bytes(&content, &Job::default(), &mut |item| match item {
        Item::Record(record) => {
            accepted += 1;
            appender.record(&mut normalizer, &record, &context)
        }
        Item::Bad(bad) => {
            let letter = DeadLetter::of(&bad, &object, began);
            waiting += letter.bytes.len() + 256;
            letters.push(letter);
            if waiting < BATCH_BYTES {
                return ControlFlow::Continue(());
            }
            if accepted == 0 {
                return ControlFlow::Break(());
            }
            waiting = 0;
            letters.drain(..).try_for_each(|l| appender.letter(l))
        }
    });
    if let (0, Some(first)) = (accepted, letters.first()) {
        return Err(Refusal::unusable(first.reason, &first.message));
    }
    intake.metrics.count_dropped(&summary);
    let _ = letters.drain(..).try_for_each(|l| appender.letter(l));
    let appended = appender
        .finish()
        .map_err(|error| Refusal::unavailable(&error, &intake.metrics, "push", began))?;
    intake
        .metrics
        .collectors
        .post("push", "")
        .well("log", 1, began);
    let took = (intake.clock)().0 - began.0;
    intake.metrics.seconds.observe(took as f64 / 1e6);
    Ok(Accepted {
        accepted: appended.events,
        dead_letters: appended.letters,
    })
}

fn refused(refusal: Refusal, request_id: &str) -> Response {
    let status = refusal.status;
    let body = serde_json::json!({"error": {
        "code": refusal.code,
        "message": refusal.message,
        "hint": refusal.hint,
        "request_id": request_id,
    }});
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let soon = axum::http::HeaderValue::from_static("5");
        response.headers_mut().insert(header::RETRY_AFTER, soon);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::ops::Range;

    use axum::body::Body;
    use axum::extract::FromRequest;
    use bus::embedded::{EmbeddedBus, Options};
    use bus::{Batch, BusError, Commit, Offset, Record, Topic};
    use bytes::Bytes;
    use event::{Event, Time};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tower::ServiceExt;

    use super::*;

    fn gz(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn small() -> Config {
        let mut config = Config::default();
        config.push.max_body_mib = 1;
        config
    }

    async fn send(
        bus: Arc<dyn Bus>,
        encoding: Option<&str>,
        body: Vec<u8>,
    ) -> (u16, serde_json::Value, bool) {
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let clock: Clock = Arc::new(|| Time::from_seconds(1_800_000_000));
        let mut request = Request::post("/api/v1/events").header("x-request-id", "r-1");
        if let Some(encoding) = encoding {
            request = request.header(header::CONTENT_ENCODING, encoding);
        }
        let response = router(bus, clock, &small(), metrics, Arc::new(Treatment::off()))
            .oneshot(request.body(Body::from(body)).unwrap())
            .await
            .unwrap();
        let status = response.status().as_u16();
        let retry = response.headers().contains_key(header::RETRY_AFTER);
        let request = Request::new(response.into_body());
        let body = Bytes::from_request(request, &()).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap(), retry)
    }

    fn events_on(bus: &dyn Bus) -> Vec<Event> {
        (0..bus.partitions(Topic::Events))
            .flat_map(|p| bus.read(Topic::Events, p, 0, 1 << 24).unwrap().records)
            .map(|(_, r)| Event::decode(&r.value).unwrap())
            .collect()
    }

    /// A push is answered with this status and, if refused, this code; `(accepted, dead letters)` otherwise.
    fn check(encoding: Option<&str>, body: &[u8], status: u16, expected: Result<(u64, u64), &str>) {
        let dir = tempfile::tempdir().unwrap();
        let bus: Arc<dyn Bus> =
            Arc::new(EmbeddedBus::open(dir.path(), Options::default()).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (found, answer, _) = runtime.block_on(send(Arc::clone(&bus), encoding, body.to_vec()));
        assert_eq!(found, status, "{answer}");
        match expected {
            Ok((accepted, dead)) => {
                assert_eq!(answer["accepted"], accepted);
                assert_eq!(answer["dead_letters"], dead);
                assert_eq!(events_on(&*bus).len() as u64, accepted);
            }
            Err(code) => {
                assert_eq!(answer["error"]["code"], code);
                assert_eq!(answer["error"]["request_id"], "r-1");
                assert!(answer["error"]["hint"].is_string());
                assert!(events_on(&*bus).is_empty());
            }
        }
    }

    #[test]
    fn bodies() {
        check(None, b"{\"a\":1}\n{\"a\":2}\n", 200, Ok((2, 0)));
        check(None, b"[{\"a\":1}]", 200, Ok((1, 0)));
        check(
            None,
            b"{\"Records\":[{\"a\":1},{\"b\":oops},{}]}",
            200,
            Ok((2, 1)),
        );
        check(None, b"", 200, Ok((0, 0)));
        check(Some("gzip"), &gz(b"{\"a\":1}"), 200, Ok((1, 0)));
        check(None, &gz(b"{\"a\":1}"), 200, Ok((1, 0)));
    }

    #[test]
    fn refusals() {
        check(None, b"oops", 400, Err("unknown_object"));
        check(None, b"{\"a\":", 400, Err("bad_json"));
        check(
            None,
            "[".repeat(100_000).as_bytes(),
            400,
            Err("json_too_deep"),
        );
        check(Some("br"), b"{}", 415, Err("unsupported_encoding"));
        check(Some("gzip"), b"{}", 400, Err("corrupt_gzip"));
        check(
            Some("gzip"),
            &gz(b"{\"a\":1}")[..15],
            400,
            Err("corrupt_gzip"),
        );
        let large = "{\"a\":1}\n".repeat(200_000);
        check(None, large.as_bytes(), 413, Err("body_too_large"));
        check(
            Some("gzip"),
            &gz(large.as_bytes()),
            413,
            Err("body_too_large"),
        );
    }

    /// A bus that is full.
    struct Full;

    impl Bus for Full {
        fn partitions(&self, _: Topic) -> u32 {
            1
        }
        fn append(&self, _: Topic, _: Vec<Record>) -> Result<(), BusError> {
            Err(BusError::DiskFull {
                path: "data".to_owned(),
            })
        }
        fn read(&self, _: Topic, _: u32, _: Offset, _: usize) -> Result<Batch, BusError> {
            Ok(Batch::default())
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
        fn state_get(
            &self,
            _: &str,
            _: u32,
            _: &[Vec<u8>],
        ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
            Ok(Vec::new())
        }
        fn state_scan(&self, _: &str, _: u32, _: &[u8]) -> Result<Vec<bus::Entry>, BusError> {
            Ok(Vec::new())
        }
        fn retain(&self, _: Time) -> Result<(), BusError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_full_log_asks_to_come_back() {
        let (status, answer, retry) = send(Arc::new(Full), None, b"{\"a\":1}".to_vec()).await;
        assert_eq!((status, retry), (503, true));
        assert_eq!(answer["error"]["code"], "log_unavailable");
    }

    #[tokio::test]
    async fn the_same_body_gets_the_same_ids() {
        let dir = tempfile::tempdir().unwrap();
        let bus: Arc<dyn Bus> =
            Arc::new(EmbeddedBus::open(dir.path(), Options::default()).unwrap());
        for _ in 0..2 {
            send(Arc::clone(&bus), None, b"{\"a\":1}".to_vec()).await;
        }
        let events = events_on(&*bus);
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].id, events[1].id);
        assert!(events[0].origin.object.starts_with("push:"));
    }
}
