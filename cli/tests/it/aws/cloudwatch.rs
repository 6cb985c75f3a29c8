//! Log groups of CloudWatch Logs by polling: every event once, whenever it becomes visible and whatever is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::load::Random;
use super::moto::{Call, Fate, Moto, Proxy};
use super::{CREDENTIALS, documented, indexed, letters};
use crate::program::{PATIENCE, Service, count};

/// Log groups, and a service that reads them.
struct Place {
    folder: tempfile::TempDir,
    moto: Moto,
    proxy: Proxy,
    /// How many events were put: moto numbers them through, and that is their id.
    put: AtomicU64,
}

impl Place {
    fn new() -> Option<Place> {
        let moto = Moto::start()?;
        let proxy = Proxy::before(&moto);
        Some(Place {
            folder: tempfile::tempdir().unwrap(),
            moto,
            proxy,
            put: AtomicU64::new(0),
        })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn group(&self, name: &str) {
        let moto = &self.moto;
        moto.logs("CreateLogGroup", &json!({"logGroupName": name}));
        for stream in ["2026/03/02/[$LATEST]a", "2026/03/02/[7]b"] {
            let stream = json!({"logGroupName": name, "logStreamName": stream});
            moto.logs("CreateLogStream", &stream);
        }
    }

    /// Puts lines that are so many seconds old, the oldest first, into a stream; gives their ids.
    fn put(&self, group: &str, stream: usize, ages: &[i64]) -> BTreeSet<String> {
        let now = now();
        let event = |age: &i64| json!({"timestamp": now - age * 1_000, "message": format!("line of {age} seconds ago")});
        let events: Vec<Value> = ages.iter().map(event).collect();
        self.put_all(group, stream, events)
    }

    fn put_all(&self, group: &str, stream: usize, events: Vec<Value>) -> BTreeSet<String> {
        let stream = ["2026/03/02/[$LATEST]a", "2026/03/02/[7]b"][stream];
        let many = events.len() as u64;
        let body = json!({"logGroupName": group, "logStreamName": stream, "logEvents": events});
        let answer = self.moto.logs("PutLogEvents", &body);
        let rejected = answer["rejectedLogEventsInfo"].as_object();
        assert!(rejected.is_none_or(serde_json::Map::is_empty), "{answer}");
        let first = self.put.fetch_add(many, Ordering::Relaxed);
        (first..first + many).map(|id| id.to_string()).collect()
    }

    /// Starts the service; `entry` is what the configuration says of the log groups.
    fn start(&self, entry: &str, more: &str) -> Service {
        let config = self.folder.path().join("config.yaml");
        let proxy = self.proxy.address;
        std::fs::write(
            &config,
            format!("search: {{publish_after_ms: 300}}\ningest:\n{more}  log_groups:\n    - aws: {{region: us-east-1, endpoint_url: 'http://{proxy}'}}\n      every_seconds: 1\n      list_seconds: 5\n{entry}"),
        )
        .unwrap();
        Service::start_in("service", &config, &self.data(), &[], CREDENTIALS)
    }
}

/// In milliseconds. CloudWatch Logs takes no event that is older than two weeks.
#[expect(
    clippy::disallowed_methods,
    reason = "moto looks at the clock, so the events must too"
)]
fn now() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// Waits until all of these are in the index.
fn until(service: &Service, expected: &BTreeSet<String>) {
    let begin = Instant::now();
    loop {
        let found = indexed(service);
        if found.is_superset(expected) {
            assert_eq!(found, *expected);
            return;
        }
        let missing: Vec<_> = expected.difference(&found).take(5).collect();
        assert!(begin.elapsed() < PATIENCE, "missing: {missing:?}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Waits until the metrics have a line that begins so.
fn until_metric(service: &Service, line: &str) {
    let begin = Instant::now();
    while !service.metrics().contains(line) {
        assert!(begin.elapsed() < PATIENCE, "{line}\n{}", service.metrics());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The group that a call asks for.
fn group_of(call: &Call) -> Option<String> {
    let body: Value = serde_json::from_str(&call.body).ok()?;
    Some(body["logGroupName"].as_str()?.to_owned())
}

#[test]
fn groups_are_found_by_pattern_and_each_event_is_read_once() {
    let Some(place) = Place::new() else {
        return;
    };
    let mut expected = BTreeSet::new();
    // Far back, and in the same millisecond in two streams.
    for n in 0..6 {
        let group = format!("/aws/lambda/shop-{n}");
        place.group(&group);
        expected.extend(place.put(&group, 0, &[950_000, 80_000, 4_000, 4_000, 30]));
        expected.extend(place.put(&group, 1, &[4_000, 10]));
    }
    // Not these.
    for other in ["/aws/lambda/noise-1", "/aws/rds/shop"] {
        place.group(other);
        place.put(other, 0, &[100]);
    }
    place.proxy.judge(|_| Fate::Through);
    let entry = "      groups: ['/aws/lambda/*', /aws/lambda/shop-0]\n      except: ['*noise*']\n      from: 2026-01-01T00:00:00Z\n      calls_per_second: 20\n";
    let begin = Instant::now();
    let service = place.start(entry, "");
    until(&service, &expected);
    // What becomes visible late lies before what was read long ago.
    expected.extend(place.put("/aws/lambda/shop-3", 1, &[550, 300, 2]));
    until(&service, &expected);
    // A function that is made later has a group that nobody told of.
    place.group("/aws/lambda/shop-new");
    expected.extend(place.put("/aws/lambda/shop-new", 0, &[20, 1]));
    until(&service, &expected);
    service.settle_stages(expected.len() as u64, PATIENCE);

    let calls = place.proxy.of("logs:FilterLogEvents");
    let most = 20.0 * begin.elapsed().as_secs_f64() + 20.0;
    assert!((calls.len() as f64) < most, "{} calls", calls.len());
    assert!(calls.iter().all(|c| !c.body.contains("noise")));
    let metrics = service.metrics();
    // The overlap was asked for again, and nothing of it was appended again.
    assert!(metrics.contains("trailwarden_ingest_events_dropped_total{reason=\"overlap\"}"));
    assert!(
        !metrics.contains("trailwarden_match_events_dropped_total{reason=\"repeat\"}")
            || metrics.contains("trailwarden_match_events_dropped_total{reason=\"repeat\"} 0")
    );
    assert!(metrics.contains("trailwarden_ingest_log_groups{log_groups=\"/aws/lambda/*\"} 7"));
    let hits = service.get("/api/v1/search?q=source:aws.lambda&limit=100");
    for hit in hits["hits"].as_array().unwrap() {
        assert_eq!(hit["account"], "123456789012");
        let function = hit["function"].as_str().unwrap();
        assert!(function.starts_with("shop-"), "{function}");
    }
    assert_eq!(service.stop(), Some(0));
    let made = documented(&place.proxy);
    assert!(made.contains("logs:FilterLogEvents") && made.contains("logs:DescribeLogGroups"));
}

#[test]
fn what_is_refused_is_said_and_the_others_go_on() {
    let Some(place) = Place::new() else {
        return;
    };
    let mut expected = BTreeSet::new();
    for group in ["/x/good", "/x/throttled", "/x/paged"] {
        place.group(group);
    }
    expected.extend(place.put("/x/good", 0, &[60, 50]));
    expected.extend(place.put("/x/throttled", 0, &[60, 50]));
    place.group("/x/denied");
    let denied = place.put("/x/denied", 0, &[40]);
    // Pages without events have events behind them.
    expected.extend(["p1".to_owned(), "p2".to_owned()]);
    let now = now();
    let throttled = AtomicUsize::new(0);
    let refuse = move |call: &Call, allowed: bool| {
        if call.action != "logs:FilterLogEvents" {
            return Fate::Through;
        }
        let error = |kind: &str| {
            let body = json!({"__type": kind, "message": format!("{kind} of the test")});
            Fate::Answer(400, body.to_string())
        };
        match group_of(call).as_deref() {
            Some("/x/denied") if !allowed => error("AccessDeniedException"),
            Some("/x/throttled") if throttled.fetch_add(1, Ordering::Relaxed) < 3 => {
                error("ThrottlingException")
            }
            Some("/x/paged") => {
                let body: Value = serde_json::from_str(&call.body).unwrap();
                let event = |id: &str, age: i64| json!([{"eventId": id, "logStreamName": "s", "timestamp": now - age, "message": id}]);
                let (events, next) = match body["nextToken"].as_str() {
                    None => (json!([]), Some("a")),
                    Some("a") => (event("p1", 9_000), Some("b")),
                    Some("b") => (json!([]), Some("c")),
                    Some("c") => (json!([]), Some("d")),
                    _ => (event("p2", 8_000), None),
                };
                Fate::Answer(
                    200,
                    json!({"events": events, "nextToken": next}).to_string(),
                )
            }
            _ => Fate::Through,
        }
    };
    let refuse = std::sync::Arc::new(refuse);
    let judge = std::sync::Arc::clone(&refuse);
    place.proxy.judge(move |call| judge(call, false));
    let service = place.start(
        "      groups: ['/x/*', /y/absent]\n      calls_per_second: 20\n",
        "",
    );
    until(&service, &expected);
    for kind in ["denied", "throttled", "no_source"] {
        until_metric(
            &service,
            &format!("trailwarden_ingest_errors_total{{kind=\"{kind}\"}}"),
        );
    }
    // Once it is allowed, what was there meanwhile comes.
    place.proxy.judge(move |call| refuse(call, true));
    expected.extend(denied);
    until(&service, &expected);
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn killed_again_and_again_no_log_line_is_lost() {
    let Some(place) = Place::new() else {
        return;
    };
    let mut random = Random(17);
    let mut expected = BTreeSet::new();
    for group in ["/k/a", "/k/b", "/k/c"] {
        place.group(group);
    }
    let entry =
        "      groups: ['/k/*']\n      from: 2026-01-01T00:00:00Z\n      calls_per_second: 50\n";
    for _ in 0..count("TRAILWARDEN_KILLS", 20) / 5 {
        for group in ["/k/a", "/k/b", "/k/c"] {
            let mut ages: Vec<i64> = (0..200).map(|_| random.below(500) as i64).collect();
            ages.sort_by(|a, b| b.cmp(a));
            expected.extend(place.put(group, 0, &ages));
        }
        let service = place.start(entry, "");
        std::thread::sleep(Duration::from_millis(100 + random.below(2_000)));
        service.kill();
    }
    let service = place.start(entry, "");
    until(&service, &expected);
    service.settle_stages(expected.len() as u64, PATIENCE);
    assert!(
        service
            .metrics()
            .contains("trailwarden_match_errors_total{kind=\"id_conflict\"} 0")
    );
    assert_eq!(service.stop(), Some(0));
    assert!(letters(&place.data()).is_empty());
}

#[test]
fn a_record_of_cloudtrail_counts_once_beside_s3() {
    let Some(place) = Place::new() else {
        return;
    };
    let record = |event: u64| {
        json!({
            "eventVersion": "1.08", "userIdentity": {"type": "IAMUser", "accountId": "111122223333", "userName": "jane"},
            "eventTime": "2026-03-02T10:00:00Z", "eventSource": "iam.amazonaws.com", "eventName": "ListUsers",
            "awsRegion": "us-east-1", "sourceIPAddress": "203.0.113.7", "userAgent": "aws-cli", "requestParameters": null,
            "responseElements": null, "requestID": "R", "eventID": format!("E-{event}"), "readOnly": true,
            "eventType": "AwsApiCall", "managementEvent": true, "recipientAccountId": "111122223333", "eventCategory": "Management",
        })
    };
    // Both in S3, in another spacing; one of them and another in the log group.
    let file = serde_json::to_string_pretty(&json!({"Records": [record(1), record(2)]})).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(file.as_bytes()).unwrap();
    place.moto.bucket("trail");
    let key = "AWSLogs/111122223333/CloudTrail/us-east-1/2026/03/02/111122223333_CloudTrail_us-east-1_20260302T1000Z_x.json.gz";
    place
        .moto
        .put("trail", key, &gzip.finish().unwrap(), &BTreeMap::new());
    place.group("org-trail");
    let now = now();
    let line = |n: u64| json!({"timestamp": now - 5_000, "message": record(n).to_string()});
    place.put_all("org-trail", 0, vec![line(2), line(3)]);
    let proxy = place.proxy.address;
    let bucket = format!(
        "  buckets: [{{bucket: trail, from: '2026-01-01T00:00:00Z', verify: false, aws: {{region: us-east-1, endpoint_url: 'http://{proxy}'}}}}]\n"
    );
    let service = place.start("      groups: [org-trail]\n", &bucket);
    for source in ["s3", "cloudwatch"] {
        let sent = format!("trailwarden_ingest_events_sent_total{{source=\"{source}\"}} 2");
        until_metric(&service, &sent);
    }
    service.settle_stages(3, PATIENCE);
    let ids = BTreeSet::from(["E-1", "E-2", "E-3"].map(str::to_owned));
    assert_eq!(indexed(&service), ids);
    let found = service.get("/api/v1/search?q=source:aws.cloudtrail&limit=1&count=true");
    assert_eq!(found["total"], 3);
    let metrics = service.metrics();
    assert!(metrics.contains("trailwarden_match_errors_total{kind=\"id_conflict\"} 0"));
    assert!(metrics.contains("trailwarden_match_events_dropped_total{reason=\"repeat\"} 1"));
    assert_eq!(service.stop(), Some(0));
}
