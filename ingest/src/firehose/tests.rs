//! Every line of the contract by itself; [`delivery`] plays Firehose against it.

mod delivery;

use std::collections::BTreeSet;
use std::io::Write;

use axum::body::Body;
use axum::extract::FromRequest;
use axum::http::HeaderName;
use bus::embedded::{EmbeddedBus, Options};
use bus::{BusError, Topic};
use bytes::Bytes;
use event::inventory::{Account, Inventory};
use event::{Event, Id};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt;

use self::delivery::{Fault, Faulty};
use super::*;
use crate::decode::{KEPT_BYTES, Reason};
use crate::redact::Redactor;

const KEY: &str = "new-key";
const ID: &str = "ed4acda5-034f-9f42-bba1-f29aea6d7d8f";
const ARN: &str = "arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs";

fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn base64(data: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(data)
}

/// A body with these records.
fn body_of(id: &str, records: &[Vec<u8>]) -> Vec<u8> {
    let records: Vec<_> = records.iter().map(|r| json!({"data": base64(r)})).collect();
    serde_json::to_vec(
        &json!({"requestId": id, "timestamp": 1_578_090_901_599_u64, "records": records}),
    )
    .unwrap()
}

/// A subscription payload with these log events, compressed as CloudWatch Logs does.
fn payload(events: &[(&str, &str)]) -> Vec<u8> {
    let events: Vec<_> = events
        .iter()
        .map(|(id, message)| json!({"id": id, "timestamp": 1_800_000_000_000_i64, "message": message}))
        .collect();
    gz(&serde_json::to_vec(&json!({
        "messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": "/aws/lambda/shop",
        "logStream": "2026/03/02/[$LATEST]aa", "subscriptionFilters": ["all"], "logEvents": events,
    }))
    .unwrap())
}

fn id_of(log_event: &str) -> Id {
    Id::cloudwatch(
        "123456789012",
        "/aws/lambda/shop",
        "2026/03/02/[$LATEST]aa",
        log_event,
    )
}

fn object_of(id: &str, index: usize) -> String {
    format!("firehose:{ARN}:{id}#{index}")
}

fn control_message() -> Vec<u8> {
    gz(br#"{"messageType":"CONTROL_MESSAGE","owner":"CloudwatchLogs","logGroup":"","logStream":"","subscriptionFilters":[],"logEvents":[{"id":"","timestamp":1,"message":"CWL CONTROL MESSAGE: Checking health of destination Firehose."}]}"#)
}

fn config(json: Value) -> Config {
    let mut config = json!({"firehose": {"access_keys": ["old-key", KEY], "max_body_mib": 1}});
    for (key, value) in json.as_object().unwrap() {
        config["firehose"][key] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

/// The endpoint over a log.
struct World {
    bus: Arc<Faulty>,
    metrics: Metrics,
    router: Router,
}

/// What was answered.
struct Answer {
    status: u16,
    headers: HeaderMap,
    length: usize,
    body: Value,
}

impl World {
    fn new(changes: Value) -> World {
        World::patient(changes, Duration::from_secs(120))
    }

    /// With another time within which a request is answered.
    fn patient(changes: Value, timeout: Duration) -> World {
        World::treated(changes, timeout, Treatment::off())
    }

    /// With something that is done to every record.
    fn treated(changes: Value, timeout: Duration, treatment: Treatment) -> World {
        let bus = Arc::new(Faulty::new());
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let clock: Clock = Arc::new(|| Time::from_seconds(1_800_000_000));
        let config = config(changes);
        let shared: Arc<dyn Bus> = Arc::<Faulty>::clone(&bus);
        let tools = (metrics.clone(), Arc::new(treatment));
        let router = within(timeout, shared, clock, &config, tools).unwrap();
        World {
            bus,
            metrics,
            router,
        }
    }

    async fn send(&self, request: Request) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = Bytes::from_request(Request::new(response.into_body()), &())
            .await
            .unwrap();
        Answer {
            status,
            headers,
            length: body.len(),
            body: serde_json::from_slice(&body).unwrap(),
        }
    }

    fn refused(&self, reason: &str) -> u64 {
        let refused = &self.metrics.requests_refused;
        refused.with_label_values(&["firehose", reason]).get()
    }

    fn events(&self) -> Vec<Event> {
        let records = self.bus.records(Topic::Events);
        records
            .iter()
            .map(|r| Event::decode(&r.value).unwrap())
            .collect()
    }

    fn event_ids(&self) -> BTreeSet<Id> {
        self.events().iter().map(|e| e.id).collect()
    }

    fn letters(&self) -> Vec<DeadLetter> {
        let records = self.bus.records(Topic::DeadLetters);
        let letters = records.iter();
        letters
            .map(|r| serde_json::from_slice(&r.value).unwrap())
            .collect()
    }
}

/// A request as Firehose makes it.
fn request(body: impl Into<Body>) -> Request {
    Request::post("/api/v1/firehose")
        .header("x-amz-firehose-protocol-version", "1.0")
        .header("x-amz-firehose-request-id", ID)
        .header("x-amz-firehose-source-arn", ARN)
        .header("x-amz-firehose-access-key", KEY)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

/// With a header set or, where there is no value, taken away.
fn with(mut request: Request, name: &'static str, value: Option<&str>) -> Request {
    let name = HeaderName::from_static(name);
    match value {
        Some(value) => request.headers_mut().insert(name, value.parse().unwrap()),
        None => request.headers_mut().remove(name),
    };
    request
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

/// A request is answered with this status and, if refused, this code at the beginning of the message; nothing of a
/// refused one is on the log.
fn check(request: Request, status: u16, code: &str) {
    check_in(&World::new(json!({})), request, status, code);
}

fn check_in(world: &World, request: Request, status: u16, code: &str) {
    let id = request.headers().get("x-amz-firehose-request-id").cloned();
    let id = id.map_or(String::new(), |id| id.to_str().unwrap().to_owned());
    let answer = run(world.send(request));
    assert_eq!(answer.status, status, "{}", answer.body);
    // What Firehose wants to see in every answer.
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
    let length = answer.length.to_string();
    assert_eq!(answer.headers[header::CONTENT_LENGTH], length.as_str());
    assert!(!answer.headers.contains_key(header::CONTENT_ENCODING));
    assert_eq!(answer.body["requestId"], id.as_str());
    assert_eq!(answer.body["timestamp"], 1_800_000_000_000_u64);
    let message = answer.body["errorMessage"].as_str();
    if status == 200 {
        assert_eq!(message, None);
        return;
    }
    let message = message.unwrap();
    assert!(message.starts_with(&format!("{code}: ")), "{message}");
    assert!(message.len() <= 8_192);
    assert_eq!(world.refused(code), 1, "{message}");
    assert!(world.events().is_empty() && world.letters().is_empty());
}

fn good() -> Vec<u8> {
    body_of(ID, &[b"{\"a\":1}".to_vec()])
}

#[test]
fn nobody_gets_in_without_a_key() {
    let key = "x-amz-firehose-access-key";
    check(request(good()), 200, "");
    // Two keys hold while one takes the place of the other.
    check(with(request(good()), key, Some("old-key")), 200, "");
    for wrong in [
        None,
        Some(""),
        Some("new-ke"),
        Some("new-key2"),
        Some("NEW-KEY"),
    ] {
        check(with(request(good()), key, wrong), 401, "wrong_key");
    }
    // Who has no key learns nothing about the rest.
    let request_id = "x-amz-firehose-request-id";
    let neither = with(with(request("no json"), key, None), request_id, None);
    check(neither, 401, "wrong_key");

    let off = World::new(json!({"access_keys": []}));
    check_in(&off, request(good()), 404, "off");
    let off = World::new(json!({"access_keys": []}));
    check_in(&off, with(request(good()), key, Some("")), 404, "off");
}

#[test]
fn keys_come_from_a_file_too() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "one\nnew-key\n").unwrap();
    let keys = json!({"access_keys": [], "access_keys_file": file.path()});
    check_in(&World::new(keys), request(good()), 200, "");
}

#[test]
fn headers() {
    let is = |name, value: Option<&str>, status, code: &str| {
        check(with(request(good()), name, value), status, code);
    };
    is("x-amz-firehose-protocol-version", None, 200, "");
    is(
        "x-amz-firehose-protocol-version",
        Some("2.0"),
        400,
        "protocol_version",
    );
    is(
        "content-type",
        Some("application/json; charset=utf-8"),
        200,
        "",
    );
    is("content-type", Some("text/plain"), 415, "content_type");
    is("content-type", None, 415, "content_type");
    is("content-encoding", Some("identity"), 200, "");
    is("content-encoding", Some("br"), 415, "unsupported_encoding");
    is("content-encoding", Some("gzip"), 400, "corrupt_gzip");
    is("x-amz-firehose-request-id", None, 400, "request_id");
    is(
        "x-amz-firehose-request-id",
        Some("another"),
        400,
        "request_id",
    );
    is("x-amz-firehose-source-arn", Some("a b"), 400, "source_arn");
    is(
        "x-amz-firehose-source-arn",
        Some(&"a".repeat(513)),
        400,
        "source_arn",
    );
    let attributes = "x-amz-firehose-common-attributes";
    is(attributes, Some("{\"commonAttributes\":{}}"), 200, "");
    for wrong in ["", "{}", "{\"commonAttributes\":{\"a\":1}}", "["] {
        is(attributes, Some(wrong), 400, "common_attributes");
    }
    let many: Vec<_> = (0..51).map(|n| format!("\"a{n}\":\"\"")).collect();
    let many = format!("{{\"commonAttributes\":{{{}}}}}", many.join(","));
    is(attributes, Some(&many), 400, "common_attributes");
}

#[test]
fn a_stream_without_a_name_is_unknown() {
    let world = World::new(json!({}));
    let nameless = with(request(good()), "x-amz-firehose-source-arn", None);
    check_in(&world, nameless, 200, "");
    let object = format!("firehose:unknown:{ID}#0");
    assert_eq!(world.events()[0].origin.object, object.as_str());
}

#[test]
fn bodies() {
    let compressed = |body: &[u8]| {
        let body = gz(body);
        with(request(body), "content-encoding", Some("gzip"))
    };
    check(compressed(&good()), 200, "");
    let cut = gz(&good());
    let cut = cut[..cut.len() - 9].to_vec();
    check(
        with(request(cut), "content-encoding", Some("gzip")),
        400,
        "corrupt_gzip",
    );

    let many = |n: usize| {
        format!(
            r#"{{"requestId":"{ID}","timestamp":1,"records":[{}]}}"#,
            vec![r#"{"data":""}"#; n].join(",")
        )
    };
    check(request(many(1)), 200, "");
    check(request(many(10_000)), 200, "");
    for body in [
        String::new(),
        "no json".to_owned(),
        "[]".to_owned(),
        many(0),
        many(10_001),
        format!("{} x", many(1)),
        many(1)[..40].to_owned(),
        many(1).replace("\"timestamp\":1,", ""),
        many(1).replace("\"timestamp\":1,", "\"timestamp\":\"secret\","),
        many(1).replace("requestId", "id"),
        format!(r#"{{"requestId":"{ID}","timestamp":1}}"#),
        format!(r#"{{"requestId":"{ID}","timestamp":1,"records":{{}}}}"#),
    ] {
        check(request(body), 400, "body");
    }
    check(request(many(1).replace(ID, "another")), 400, "request_id");

    // More keys may come with a later version; nothing is read of them, however deep they are.
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let more = many(1).replacen('{', &format!("{{\"more\":{deep},"), 1);
    check(request(more), 200, "");
}

/// What Firehose drops for good is answered 413, so nothing is.
#[test]
fn a_body_too_large_is_refused_so_that_it_is_kept_elsewhere() {
    let large = body_of(ID, &[vec![b' '; 900_000]]);
    assert!(large.len() > 1 << 20);
    check(request(large.clone()), 400, "body_too_large");
    let bomb = with(request(gz(&large)), "content-encoding", Some("gzip"));
    check(bomb, 400, "body_too_large");
    let bomb = gz(&vec![b' '; 1 << 20]).repeat(100);
    let bomb = with(request(bomb), "content-encoding", Some("gzip"));
    check(bomb, 400, "body_too_large");
}

#[test]
fn no_refusal_repeats_what_was_sent() {
    let world = World::new(json!({}));
    let body = format!(r#"{{"requestId":"{ID}","timestamp":"hunter2","records":[]}}"#);
    let answer = run(world.send(request(body)));
    assert!(
        !answer.body.to_string().contains("hunter2"),
        "{}",
        answer.body
    );
    assert!(
        answer.body.to_string().contains("line 1"),
        "{}",
        answer.body
    );
}

/// These records of one request become events with these ids, and letters with these reasons and places.
fn check_records(records: Vec<Value>, events: &[Id], letters: &[(Reason, usize, u64)]) -> World {
    let world = World::new(json!({"max_body_mib": 4}));
    let body = json!({"requestId": ID, "timestamp": 1, "records": records});
    let answer = run(world.send(request(body.to_string())));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let expected: BTreeSet<Id> = events.iter().copied().collect();
    assert_eq!(world.event_ids(), expected);
    assert_eq!(world.events().len(), events.len());
    let found: BTreeSet<_> = world
        .letters()
        .iter()
        .map(|l| (l.object.to_string(), l.position, l.reason.as_str()))
        .collect();
    let expected: BTreeSet<_> = letters
        .iter()
        .map(|(reason, index, position)| (object_of(ID, *index), *position, reason.as_str()))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(world.letters().len(), letters.len());
    world
}

fn data(bytes: &[u8]) -> Value {
    json!({"data": base64(bytes)})
}

fn at(index: usize, position: u64) -> Id {
    Id::position(&object_of(ID, index), position)
}

#[test]
fn records_of_cloudwatch_logs() {
    let world = check_records(
        vec![
            data(&payload(&[("e1", "hello"), ("e2", "world")])),
            data(&control_message()),
        ],
        &[id_of("e1"), id_of("e2")],
        &[],
    );
    let dropped = world
        .metrics
        .events_dropped
        .with_label_values(&["control_message"]);
    assert_eq!(dropped.get(), 1);
    let sent = world.metrics.events_sent.with_label_values(&["firehose"]);
    assert_eq!(sent.get(), 2);
    let event = &world.events()[0];
    assert_eq!(
        (event.source_id.as_str(), event.account.as_str()),
        ("e1", "123456789012")
    );

    // A trail that is read through CloudWatch Logs keeps the ids of the trail.
    let record = r#"{"eventVersion":"1.08","eventSource":"s3.amazonaws.com","eventName":"GetObject","eventTime":"2026-03-02T10:00:00Z","eventID":"t1","recipientAccountId":"123456789012"}"#;
    let trail = Id::cloudtrail("123456789012", "t1");
    check_records(vec![data(&payload(&[("e1", record)]))], &[trail], &[]);

    // What Firehose decompresses itself, two payloads in one record; and events without an id.
    let plain = |id: &str| {
        format!(
            r#"{{"messageType":"DATA_MESSAGE","owner":"123456789012","logGroup":"/aws/lambda/shop","logStream":"2026/03/02/[$LATEST]aa","logEvents":[{{{id}"timestamp":1,"message":"x"}}]}}"#
        )
    };
    let two = plain(r#""id":"e1","#) + &plain("");
    check_records(vec![data(two.as_bytes())], &[id_of("e1"), at(0, 1)], &[]);
}

#[test]
fn records_of_other_kinds() {
    check_records(
        vec![
            data(b"{\"a\":1}"),
            data(b"{\"a\":1}{\"a\":2}\n{\"a\":3}"),
            data(b"[{\"a\":1},{\"a\":2}]"),
            data(b"START RequestId: 1 Version: $LATEST\nhello\nEND RequestId: 1\n"),
            data(&gz(b"{\"a\":1}\n{\"a\":2}\n")),
        ],
        &[
            at(0, 0),
            at(1, 0),
            at(1, 1),
            at(1, 2),
            at(2, 0),
            at(2, 1),
            at(3, 0),
            at(3, 1),
            at(3, 2),
            at(4, 0),
            at(4, 1),
        ],
        &[],
    );
    let world = check_records(vec![data(b""), json!({"data": "", "more": 1})], &[], &[]);
    let dropped = world
        .metrics
        .events_dropped
        .with_label_values(&["empty_record"]);
    assert_eq!(dropped.get(), 2);
    // The largest record, and one byte more.
    let largest = b"{\"a\":1}\n".repeat(128_000);
    assert_eq!(largest.len(), 1_024_000);
    let ids: Vec<_> = (0..128_000).map(|position| at(0, position)).collect();
    check_records(vec![data(&largest)], &ids, &[]);
    let larger = [&largest[..], b" "].concat();
    check_records(vec![data(&larger)], &[], &[(Reason::RecordTooLarge, 0, 0)]);
}

#[test]
fn malformed_records_become_dead_letters_and_spoil_no_other() {
    let payload = payload(&[("e1", "hello")]);
    let cut = &payload[..payload.len() - 12];
    let world = check_records(
        vec![
            json!({"data": "*hunter2*"}),
            data(&payload),
            json!({"data": 7}),
            json!({}),
            json!("x"),
            Value::Null,
            data(b"{\"a\":1}\n{\"b\":oops}\n{\"c\":1}\n"),
            data(cut),
            data(b"hello"),
            data(&b"[".repeat(100_000)),
            data(b"{\"last\":1}"),
        ],
        &[id_of("e1"), at(6, 0), at(6, 2), at(10, 0)],
        &[
            (Reason::BadBase64, 0, 0),
            (Reason::BadJson, 2, 0),
            (Reason::BadJson, 3, 0),
            (Reason::BadJson, 4, 0),
            (Reason::BadJson, 5, 0),
            (Reason::BadJson, 6, 1),
            (Reason::CorruptGzip, 7, 0),
            (Reason::UnknownObject, 8, 0),
            (Reason::JsonTooDeep, 9, 0),
        ],
    );
    let letters = world.letters();
    let letter = letters.iter().find(|l| l.reason == Reason::BadBase64);
    assert_eq!(letter.unwrap().content(), b"*hunter2*");
    let counted = world
        .metrics
        .dead_letters
        .with_label_values(&["bad_base64"]);
    assert_eq!(counted.get(), 1);
}

#[test]
fn bombs_in_records_are_cut() {
    // Four million times its size, in one member, in many, and twice over.
    let blanks = gz(&vec![b' '; 8 << 20]);
    let many = gz(&vec![b' '; 1 << 20]).repeat(8);
    let world = check_records(
        vec![
            data(&blanks),
            data(&many),
            data(&gz(&blanks)),
            data(b"{\"a\":1}"),
        ],
        &[at(3, 0)],
        &[
            (Reason::BodyTooLarge, 0, 0),
            (Reason::BodyTooLarge, 1, 0),
            (Reason::BodyTooLarge, 2, 0),
        ],
    );
    assert!(
        world
            .letters()
            .iter()
            .all(|l| l.bytes.len() <= 2 * KEPT_BYTES)
    );
}

#[test]
fn common_attributes_are_labels() {
    let world = World::new(json!({}));
    let attributes = r#"{"commonAttributes":{"environment":"production","owner":"shop"}}"#;
    let request = with(
        request(good()),
        "x-amz-firehose-common-attributes",
        Some(attributes),
    );
    check_in(&world, request, 200, "");
    let event = &world.events()[0];
    let labels: Vec<_> = event
        .labels
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(labels, [("environment", "production"), ("owner", "shop")]);
}

/// Whoever may send must not call production a sandbox.
#[test]
fn the_inventory_is_surer_than_common_attributes() {
    let account = Account {
        account: "123456789012".into(),
        name: "shop-prod".into(),
        environment: "production".into(),
        ..Account::default()
    };
    let inventory = Arc::new(Inventory::new(vec![account], Vec::new()));
    let expected = Arc::new(move || Arc::clone(&inventory));
    let treatment = Treatment::new(Redactor::off(), expected, Vec::new());
    let world = World::treated(json!({}), Duration::from_secs(120), treatment);
    let attributes = r#"{"commonAttributes":{"environment":"sandbox","team":"shop"}}"#;
    let trail = br#"{"eventVersion":"1.08","eventSource":"s3.amazonaws.com","eventName":"ListBuckets","eventID":"e1","eventTime":"2026-03-02T09:00:00Z","recipientAccountId":"123456789012"}"#;
    let request = with(
        request(body_of(ID, &[trail.to_vec()])),
        "x-amz-firehose-common-attributes",
        Some(attributes),
    );
    check_in(&world, request, 200, "");
    let event = &world.events()[0];
    assert_eq!(event.account_name, "shop-prod");
    let labels: Vec<_> = event
        .labels
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(labels, [("environment", "production"), ("team", "shop")]);
}

#[test]
fn a_log_that_takes_no_writes_is_answered_503() {
    for fault in [Fault::Full, Fault::Poisoned, Fault::Unanswered] {
        let world = World::new(json!({}));
        world.bus.will([fault]);
        let answer = run(world.send(request(good())));
        assert_eq!(answer.status, 503, "{fault:?}");
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
        assert_eq!(world.refused("log_unavailable"), 1);
        let again = run(world.send(request(good())));
        assert_eq!(again.status, 200, "{fault:?}");
        assert_eq!(world.event_ids(), BTreeSet::from([at(0, 0)]));
    }
    let world = World::new(json!({}));
    world.bus.will([Fault::Full]);
    run(world.send(request(good())));
    let errors = world.metrics.errors.with_label_values(&["disk_full"]);
    assert_eq!(errors.get(), 1);
}

/// A log that does not come back is not waited for, and the request is given up at its next record.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_log_is_answered_503_in_time() {
    let world = World::patient(json!({"concurrency": 1}), Duration::from_millis(500));
    world.bus.will([Fault::Slow]);
    let answer = world.send(request(good())).await;
    assert_eq!((answer.status, world.refused("too_slow")), (503, 1));
    // The body is still in memory, so another one has no place.
    let answer = world.send(request(good())).await;
    assert_eq!((answer.status, world.refused("busy")), (503, 1));
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    world.bus.release();
    while world.send(request(good())).await.status != 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.event_ids(), BTreeSet::from([at(0, 0)]));
}

#[test]
fn the_same_request_gives_the_same_ids() {
    let world = World::new(json!({}));
    for _ in 0..2 {
        assert_eq!(run(world.send(request(good()))).status, 200);
    }
    assert_eq!(world.events().len(), 2);
    assert_eq!(world.event_ids(), BTreeSet::from([at(0, 0)]));
    // Another request with the same records is something else.
    let other = with(
        request(body_of("other", &[b"{\"a\":1}".to_vec()])),
        "x-amz-firehose-request-id",
        Some("other"),
    );
    assert_eq!(run(world.send(other)).status, 200);
    assert_eq!(world.event_ids().len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed in a body, its records are read or refused.
    #[test]
    fn damaged_bodies_never_panic(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let mut body = body_of(ID, &[b"{\"a\":1}".to_vec(), payload(&[("e1", "hello")])]);
        for (at, byte) in changes {
            let at = at % body.len();
            body[at] = byte;
        }
        if let Ok(delivery) = Delivery::parse(&body) {
            for record in &delivery.records {
                let _ = request::data(record.get());
            }
        }
    }
}
