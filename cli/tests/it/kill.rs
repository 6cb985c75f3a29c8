//! kill -9 at random moments under load: nothing is lost, nothing counts twice, nobody is told twice.
//!
//! The same load goes to a service that nobody disturbs and to one that is killed again and again; what the
//! index, the alerts and the webhook receiver have in the end must be the same. Twenty kills, or as many as
//! `TRAILWARDEN_KILLS` says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::program::{Received, Service, count, receiver, request};

/// A small generator (splitmix64), so that a failing seed can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

const RULES: &str = "title: trail stopped\nid: 11111111-1111-4111-8111-111111111111\nlogsource: {product: aws, service: cloudtrail}\ndetection: {sel: {eventName: StopLogging}, condition: sel}\nlevel: high\n---\ntitle: failed login\nname: failed_login\nid: 22222222-2222-4222-8222-222222222222\nlogsource: {product: aws, service: cloudtrail}\ndetection: {sel: {eventName: ConsoleLogin}, condition: sel}\nlevel: low\n---\ntitle: brute force\nid: 33333333-3333-4333-8333-333333333333\ncorrelation:\n  type: event_count\n  rules: [failed_login]\n  group-by: [sourceIPAddress]\n  timespan: 10m\n  condition: {gte: 5}\nlevel: high\n";

fn record(id: &str, name: &str, user: &str, ip: &str, second: u64) -> String {
    format!(
        "{{\"eventVersion\":\"1.08\",\"userIdentity\":{{\"type\":\"IAMUser\",\"arn\":\"arn:aws:iam::123456789012:user/{user}\",\"accountId\":\"123456789012\",\"userName\":\"{user}\"}},\"eventTime\":\"2026-03-02T10:{:02}:{:02}Z\",\"eventSource\":\"signin.amazonaws.com\",\"eventName\":\"{name}\",\"awsRegion\":\"us-east-1\",\"sourceIPAddress\":\"{ip}\",\"eventID\":\"{id}\",\"recipientAccountId\":\"123456789012\"}}",
        second / 60 % 60,
        second % 60
    )
}

/// Batches of records: ordinary calls, stopped trails each by a user of its own, and bursts of exactly as many failed
/// logins as fire, scattered over neighbouring batches. Some records come twice.
fn load(batches: usize, random: &mut Random) -> (Vec<String>, u64) {
    let mut all: Vec<Vec<String>> = vec![Vec::new(); batches];
    let mut distinct = 0;
    for batch in 0..batches {
        for i in 0..40 {
            let second = (batch * 7 + i) as u64 % 3_000;
            let text = record(
                &format!("o-{batch}-{i}"),
                "DescribeInstances",
                &format!("user-{}", i % 9),
                "198.18.0.1",
                second,
            );
            distinct += 1;
            if random.below(20) == 0 {
                all[(batch + 3).min(batches - 1)].push(text.clone());
            }
            all[batch].push(text);
        }
        if batch % 3 == 0 {
            all[batch].push(record(
                &format!("s-{batch}"),
                "StopLogging",
                &format!("stopper-{batch}"),
                "198.18.7.7",
                batch as u64,
            ));
            distinct += 1;
        }
        if batch % 5 == 0 {
            for i in 0..5 {
                let text = record(
                    &format!("b-{batch}-{i}"),
                    "ConsoleLogin",
                    &format!("victim-{batch}"),
                    &format!("198.19.{}.{}", batch / 250, batch % 250),
                    600 + i * 30,
                );
                let at = (batch + random.below(3) as usize).min(batches - 1);
                all[at].push(text);
                distinct += 1;
            }
        }
    }
    let bodies = all
        .into_iter()
        .map(|records| format!("{{\"Records\":[{}]}}", records.join(",")))
        .collect();
    (bodies, distinct)
}

/// What is left in the end.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// Source id to raw record.
    events: BTreeMap<String, String>,
    /// Alert to what it says.
    alerts: BTreeMap<String, Value>,
    /// What the receiver was told, repeats of a key aside.
    told: BTreeSet<(String, String)>,
}

fn outcome(service: &Service, received: &Received) -> Outcome {
    let mut events = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let answer = service.get(&format!("/api/v1/search?q=source:aws.*&limit=1000{cursor}"));
        for hit in answer["events"].as_array().unwrap() {
            let id = hit["source_id"].as_str().unwrap().to_owned();
            assert!(
                events.insert(id.clone(), hit["raw"].to_string()).is_none(),
                "{id} is in the index twice"
            );
        }
        match answer["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let mut alerts = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let answer = service.get(&format!("/api/v1/alerts?state=all&limit=500{cursor}"));
        for alert in answer["alerts"].as_array().unwrap() {
            let shown = serde_json::json!({
                "rule": alert["rule_id"], "count": alert["count"], "severity": alert["severity"], "state": alert["state"],
                "group": alert["group"], "actor": alert["actor"], "events": alert["finding"]["event_ids"],
            });
            alerts.insert(alert["id"].as_str().unwrap().to_owned(), shown);
        }
        match answer["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    // A repeated send bears the same key and says the same.
    let mut told = BTreeSet::new();
    let mut by_key: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (key, body) in received.lock().unwrap().iter() {
        let said = (
            body["alert"]["id"].as_str().unwrap().to_owned(),
            body["reason"].as_str().unwrap().to_owned(),
        );
        let first = by_key.entry(key.clone()).or_insert_with(|| said.clone());
        assert_eq!(*first, said, "key {key} was used for two messages");
        told.insert(said);
    }
    assert_eq!(
        by_key.len(),
        told.len(),
        "one message had two keys: {by_key:#?}"
    );
    Outcome {
        events,
        alerts,
        told,
    }
}

fn config(folder: &Path, webhook: std::net::SocketAddr) -> std::path::PathBuf {
    std::fs::write(folder.join("rules.yml"), RULES).unwrap();
    let path = folder.join("config.yaml");
    let text = format!(
        "allow_inline_secrets: true\nrules: {{paths: [{}]}}\nsearch: {{publish_after_ms: 300}}\nalerting:\n  group_wait_seconds: 0\n  receivers:\n    - name: hook\n      webhook: {{url: 'http://{webhook}/', allow_http: true, allow_networks: [127.0.0.0/8], secret: test}}\n  route: {{receiver: hook, repeat_interval_seconds: 0}}\n",
        folder.join("rules.yml").display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn push(service: &Service, body: &str) -> bool {
    matches!(
        request(
            service.address,
            "POST",
            "/api/v1/events",
            &[("content-type", "application/json")],
            body.as_bytes()
        ),
        Some((200, _))
    )
}

#[test]
fn killed_again_and_again_it_ends_as_if_nothing_had_happened() {
    let kills = count("TRAILWARDEN_KILLS", 20);
    let seed = count("TRAILWARDEN_SEED", 1) as u64;
    let mut random = Random(seed);
    let (bodies, distinct) = load(kills * 4, &mut random);

    let calm_folder = tempfile::tempdir().unwrap();
    let (address, received) = receiver();
    let service = Service::start(
        &config(calm_folder.path(), address),
        &calm_folder.path().join("data"),
    );
    for body in &bodies {
        assert!(push(&service, body));
    }
    service.settle(distinct);
    let calm = outcome(&service, &received);
    assert_eq!(calm.events.len() as u64, distinct);
    assert_eq!(service.stop(), Some(0));

    let folder = tempfile::tempdir().unwrap();
    let (address, received) = receiver();
    let config = config(folder.path(), address);
    let data = folder.path().join("data");
    let mut service = Service::start(&config, &data);
    let mut next = 0;
    for _ in 0..kills {
        // Some batches, then a random moment later the end; what was not acknowledged is sent again.
        for _ in 0..random.below(8) {
            if next < bodies.len() && push(&service, &bodies[next]) {
                next += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(random.below(700)));
        let (address, body) = (
            service.address,
            bodies.get(next).cloned().unwrap_or_default(),
        );
        let late = std::thread::spawn(move || {
            request(address, "POST", "/api/v1/events", &[], body.as_bytes())
        });
        std::thread::sleep(Duration::from_millis(random.below(20)));
        service.kill();
        drop(late.join());
        service = Service::start(&config, &data);
    }
    while next < bodies.len() {
        assert!(push(&service, &bodies[next]));
        next += 1;
    }
    service.settle(distinct);
    let disturbed = outcome(&service, &received);
    assert!(calm.alerts.len() > kills, "{} alerts", calm.alerts.len());
    assert_eq!(disturbed.events, calm.events, "seed {seed}");
    assert_eq!(disturbed.alerts, calm.alerts, "seed {seed}");
    assert_eq!(disturbed.told, calm.told, "seed {seed}");
}
