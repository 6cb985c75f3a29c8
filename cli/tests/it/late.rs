//! Events that come later than the allowed lateness, in the real program: correlated as if they had come in time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{PATIENCE, Received, Service, receiver, request, text};

const RULES: &str = "title: base\nname: base\nlogsource: {product: aws, service: cloudtrail}\ndetection:\n  sel: {eventName: ConsoleLogin}\n  condition: sel\nlevel: low\n---\ntitle: burst\nid: 5d3a8f9e-3c1b-4a7a-9d0c-2f6a1b7c8d9e\ncorrelation:\n  type: event_count\n  rules: [base]\n  group-by: [sourceIPAddress]\n  timespan: 5m\n  condition: {gte: 3}\nlevel: high\n";

fn record(ip: &str, clock: &str) -> String {
    format!(
        "{{\"eventVersion\":\"1.08\",\"userIdentity\":{{\"type\":\"IAMUser\",\"userName\":\"{ip}\"}},\"eventTime\":\"2026-03-02T{clock}Z\",\"eventSource\":\"signin.amazonaws.com\",\"eventName\":\"ConsoleLogin\",\"sourceIPAddress\":\"{ip}\",\"eventID\":\"{ip}-{clock}\",\"recipientAccountId\":\"123456789012\"}}"
    )
}

fn push(service: &Service, records: &[(&str, &str)]) {
    let lines: Vec<String> = records.iter().map(|(ip, at)| record(ip, at)).collect();
    let (status, answer) = request(
        service.address,
        "POST",
        "/api/v1/events",
        &[("content-type", "application/x-ndjson")],
        lines.join("\n").as_bytes(),
    )
    .unwrap();
    assert_eq!(status, 200, "{}", text(&answer));
}

/// A configuration that waits so many seconds before it counts again.
fn config(folder: &Path, hook: std::net::SocketAddr, recount_after: u64) -> PathBuf {
    let rules = folder.join("rules.yml");
    std::fs::write(&rules, RULES).unwrap();
    let config = folder.join("c.yaml");
    std::fs::write(
        &config,
        format!(
            "allow_inline_secrets: true\nrules: {{paths: ['{}']}}\ndetect: {{lateness_seconds: 300, recount_after_seconds: {recount_after}}}\nsearch: {{publish_after_ms: 300}}\nalerting:\n  group_wait_seconds: 0\n  receivers:\n    - name: hook\n      webhook: {{url: 'http://{hook}/', allow_http: true, allow_networks: [127.0.0.0/8], secret: s}}\n  route: {{receiver: hook}}\n",
            rules.display()
        ),
    )
    .unwrap();
    config
}

/// The alerts of an address that have not become part of others.
fn alerts(service: &Service, ip: &str) -> Vec<Value> {
    let alerts = service.get("/api/v1/alerts");
    let alerts = alerts["alerts"].as_array().unwrap().iter();
    let about = alerts.filter(|a| a["group"]["sourceIPAddress"] == ip);
    about.cloned().collect()
}

/// Waits until something holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until this many events were correlated; each of them is a match.
fn correlated(service: &Service, events: u64) {
    until("correlated", || {
        metric(service, "trailwarden_correlate_events_received_total ") == events
    });
}

/// Waits for the only alert of an address to have this count.
fn counted(service: &Service, ip: &str, count: u64) -> Value {
    let begin = Instant::now();
    loop {
        let found = alerts(service, ip);
        if let [alert] = found.as_slice()
            && alert["count"] == count
        {
            return alert.clone();
        }
        assert!(begin.elapsed() < PATIENCE, "{ip}: {found:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The value of a metric with this label.
fn metric(service: &Service, name: &str) -> u64 {
    let metrics = service.metrics();
    let line = metrics.lines().find_map(|l| l.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

/// Why anybody was told of the alert of an address.
fn told(received: &Received, ip: &str) -> Vec<String> {
    let received = received.lock().unwrap();
    let about = received
        .iter()
        .filter(|(_, body)| body["alert"]["group"]["sourceIPAddress"] == ip);
    about
        .map(|(_, body)| body["reason"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_comes_late_is_one_alert_with_the_true_count() {
    let folder = tempfile::tempdir().unwrap();
    let (hook, received) = receiver();
    let data = folder.path().join("data");
    let (a, b, c, d) = (
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.3",
        "198.51.100.4",
    );
    let service = Service::start(&config(folder.path(), hook, 3_600), &data);
    // None of these comes late, whatever partition is read first.
    let mut events = 0;
    for records in [
        // Told as two.
        &[(a, "10:00:00"), (a, "10:01:00"), (a, "10:02:00")],
        &[(a, "10:12:00"), (a, "10:12:01"), (a, "10:12:02")],
        // Told.
        &[(d, "10:30:00"), (d, "10:31:00"), (d, "10:32:00")],
    ] {
        push(&service, records);
        events += 3;
        correlated(&service, events);
    }
    // Not told.
    let pairs = [
        (b, "11:00:00"),
        (b, "11:01:00"),
        (c, "11:00:00"),
        (c, "11:01:00"),
    ];
    push(&service, &pairs);
    correlated(&service, 13);
    // Event time goes on by hours: whatever was before is settled.
    push(&service, &[("203.0.113.9", "16:00:00")]);
    service.settle(14);
    let count = |ip| alerts(&service, ip).len();
    until("told", || [a, b, c, d].map(count) == [2, 0, 0, 1]);
    until("sent", || told(&received, d).len() == 1);
    let told_before = told(&received, a);
    // In two pieces, and the process is killed before anything is counted again.
    push(
        &service,
        &[(d, "10:31:30"), (b, "11:02:00"), (c, "11:07:00")],
    );
    push(
        &service,
        &[(a, "10:05:00"), (a, "10:06:00"), (a, "10:08:00")],
    );
    correlated(&service, 20);
    push(&service, &[(d, "10:33:30"), (d, "10:34:00")]);
    correlated(&service, 22);
    assert_eq!([a, b, c, d].map(count), [2, 0, 0, 1]);
    counted(&service, d, 3);
    until("on the worklist", || {
        metric(&service, "trailwarden_correlate_recounts_waiting ") == 4
    });
    service.kill();

    let service = Service::start(&config(folder.path(), hook, 1), &data);
    let grown = counted(&service, d, 6);
    let finding = service.get(&format!("/api/v1/alerts/{}", grown["id"].as_str().unwrap()));
    let shown = finding.to_string();
    for id in ["10:31:30", "10:33:30", "10:34:00"] {
        assert!(shown.contains(&format!("{d}-{id}")), "{finding:#}");
    }
    counted(&service, b, 3);
    counted(&service, a, 9);
    until("all counted again", || {
        metric(&service, "trailwarden_correlate_recounts_waiting ") == 0
    });
    assert_eq!(
        metric(
            &service,
            "trailwarden_correlate_recounts_total{outcome=\"exact\"} "
        ),
        4,
        "one for each group"
    );
    service.settle(22);
    assert_eq!(
        alerts(&service, c),
        [] as [Value; 0],
        "its condition does not hold"
    );
    assert_eq!(told(&received, a), told_before);
    assert_eq!(told(&received, d).len(), 1, "{:?}", told(&received, d));
    assert_eq!(told(&received, b).len(), 1, "{:?}", told(&received, b));
    assert!(told(&received, c).is_empty());
    assert_eq!(service.stop(), Some(0));
}

/// A condition that more events make false: who was told of it hears that it did not hold, and nobody has to look.
#[test]
fn what_did_not_hold_is_withdrawn_and_resolved() {
    const EXACTLY_TWO: &str = "title: base\nname: base\nlogsource: {product: aws, service: cloudtrail}\ndetection:\n  sel: {eventName: ConsoleLogin}\n  condition: sel\nlevel: low\n---\ntitle: pair\nid: 0c6f0a39-2b7b-4f0e-8a11-5d1a3c0c7b11\ncorrelation:\n  type: event_count\n  rules: [base]\n  group-by: [sourceIPAddress]\n  timespan: 5m\n  condition: {eq: 2}\nlevel: high\n";
    let folder = tempfile::tempdir().unwrap();
    let (hook, received) = receiver();
    let config = config(folder.path(), hook, 1);
    std::fs::write(folder.path().join("rules.yml"), EXACTLY_TWO).unwrap();
    let service = Service::start(&config, &folder.path().join("data"));
    let ip = "198.51.100.5";
    push(&service, &[(ip, "12:00:00"), (ip, "12:00:30")]);
    correlated(&service, 2);
    // Event time goes on: the pair is settled.
    push(&service, &[("203.0.113.9", "16:00:00")]);
    let open = counted(&service, ip, 2);
    assert_eq!(open["state"], "firing", "{open:#}");
    until("sent", || told(&received, ip).len() == 1);
    let at_once =
        |id: &str| record(ip, "12:00:00").replace(&format!("{ip}-12:00:00"), &format!("{ip}-{id}"));
    let (status, answer) = request(
        service.address,
        "POST",
        "/api/v1/events",
        &[("content-type", "application/x-ndjson")],
        [at_once("x"), at_once("y")].join("\n").as_bytes(),
    )
    .unwrap();
    assert_eq!(status, 200, "{}", text(&answer));
    until("resolved", || {
        alerts(&service, ip)[0]["state"] == "resolved"
    });
    let about = &alerts(&service, ip)[0];
    let whole = service.get(&format!("/api/v1/alerts/{}", about["id"].as_str().unwrap()));
    assert!(
        whole.to_string().contains("the condition did not hold"),
        "{whole:#}"
    );
    until("told", || told(&received, ip).len() == 2);
    assert_eq!(told(&received, ip)[1], "resolved");
    assert_eq!(service.stop(), Some(0));
}
