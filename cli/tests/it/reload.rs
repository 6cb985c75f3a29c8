//! Rules that change while the service runs: loaded, broken, mended, and what correlations had collected is kept.

use std::time::Instant;

use serde_json::Value;

use crate::program::{PATIENCE, Service, request, text};

const BASE: &str = "\
title: Failed sign-in
name: failed
logsource: {product: aws, service: cloudtrail}
detection: {sel: {eventName: ConsoleLogin, errorMessage: Failed authentication}, condition: sel}
level: informational
---
title: Many failed sign-ins
id: df0841c0-9846-4e9f-ad8a-7df91571771b
correlation: {type: event_count, rules: [failed], group-by: [sourceIPAddress], timespan: 10m, condition: {gte: 3}}
level: high
---
title: Trail stopped
id: 6f3e2987-db24-4c78-a860-b4f4095a7095
logsource: {product: aws, service: cloudtrail}
detection: {sel: {eventName: StopLogging}, condition: sel}
level: high
";

const MORE: &str = "\
title: Trail deleted
id: 7f3e2987-db24-4c78-a860-b4f4095a7096
logsource: {product: aws, service: cloudtrail}
detection: {sel: {eventName: DeleteTrail}, condition: sel}
level: high
";

struct World {
    folder: tempfile::TempDir,
    service: Service,
    pushed: u64,
    /// Events are of these minutes: what people do at the console is an event too, of now, and moves event time.
    begin: chrono::DateTime<chrono::Utc>,
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "what people do at the console bears the time of day, and the events of the test must not lie far before"
    )]
    fn start() -> World {
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("rules");
        std::fs::create_dir(&rules).unwrap();
        std::fs::write(rules.join("base.yml"), BASE).unwrap();
        let config = folder.path().join("c.yaml");
        let settings = format!(
            "rules: {{paths: ['{}'], reload_seconds: 1}}\nsearch: {{publish_after_ms: 300}}\n",
            rules.display()
        );
        std::fs::write(&config, settings).unwrap();
        let service = Service::start(&config, &folder.path().join("data"));
        World {
            folder,
            service,
            pushed: 0,
            begin: chrono::Utc::now() - chrono::TimeDelta::minutes(8),
        }
    }

    fn write(&self, name: &str, rule: &str) {
        std::fs::write(self.folder.path().join("rules").join(name), rule).unwrap();
    }

    /// One event, taken through all stages.
    fn push(&mut self, name: &str, minute: i64) {
        self.pushed += 1;
        let time = self.begin + chrono::TimeDelta::minutes(minute);
        let record = serde_json::json!({
            "eventVersion": "1.08", "eventSource": "signin.amazonaws.com", "eventName": name,
            "errorMessage": "Failed authentication", "eventTime": time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            "eventID": format!("e{}", self.pushed), "sourceIPAddress": "198.51.100.7",
            "userIdentity": {"type": "IAMUser", "userName": "eve", "arn": "arn:aws:iam::111122223333:user/eve"},
            "recipientAccountId": "111122223333",
        });
        let body = record.to_string();
        let headers = [("content-type", "application/x-ndjson")];
        let (status, answer) = request(
            self.service.address,
            "POST",
            "/api/v1/events",
            &headers,
            body.as_bytes(),
        )
        .unwrap();
        assert_eq!(status, 200, "{}", text(&answer));
        self.service.settle(self.pushed);
    }

    /// Title and count of every alert, in order of title.
    fn alerts(&self) -> Vec<(String, u64)> {
        let answer = self.service.get("/api/v1/alerts");
        let mut alerts: Vec<_> = answer["alerts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| {
                let title = a["title"].as_str().unwrap().to_owned();
                (title, a["count"].as_u64().unwrap())
            })
            .collect();
        alerts.sort();
        alerts
    }

    fn until(&self, what: &str, done: impl Fn(&World) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(
                begin.elapsed() < PATIENCE,
                "{what}\n{}",
                self.service.metrics()
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    fn has_rule(&self, title: &str) -> bool {
        let rules = self.service.get("/api/v1/rules");
        rules["rules"]
            .as_array()
            .unwrap()
            .iter()
            .any(|r| r["title"] == title)
    }

    fn metric(&self, line: &str) -> bool {
        self.service.metrics().lines().any(|l| l == line)
    }

    fn reload(&self) -> (u16, Value) {
        let (status, body) = request(
            self.service.address,
            "POST",
            "/api/v1/rules/reload",
            &[],
            b"",
        )
        .unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

#[test]
fn rules_change_while_the_service_runs() {
    let mut world = World::start();
    world.push("ConsoleLogin", 0);
    world.push("StopLogging", 1);
    world.push("ConsoleLogin", 2);
    assert_eq!(world.alerts(), [("Trail stopped".to_owned(), 1)]);

    // A new rule is taken up by itself.
    world.write("more.yml", MORE);
    world.until("the new rule runs", |w| w.has_rule("Trail deleted"));
    assert!(world.metric("trailwarden_rules_reload_total{result=\"loaded\"} 1"));
    world.push("DeleteTrail", 3);
    let both = [
        ("Trail deleted".to_owned(), 1),
        ("Trail stopped".to_owned(), 1),
    ];
    world.until("both alerts are open", |w| w.alerts() == both);

    // A broken set is refused as a whole, whoever asks, and the old one runs on.
    world.write("more.yml", &MORE.replace("Trail deleted", "Renamed"));
    world.write("bad.yml", "title: bad\nlogsource: {product: aws}\ndetection: {sel: {ip|cdir: 10.0.0.0/8}, condition: sel}\n");
    world.until("it was refused", |w| {
        w.metric("trailwarden_rules_refused 1")
    });
    let (status, answer) = world.reload();
    assert_eq!(status, 422, "{answer:#}");
    let words = answer["error"]["message"].as_str().unwrap();
    assert!(
        words.contains("bad.yml:3:") && words.contains("did you mean `cidr`?"),
        "{words}"
    );
    assert!(world.has_rule("Trail deleted") && !world.has_rule("Renamed"));
    let health = world.service.get("/api/v1/health");
    let detail = health["checks"]["rules"]["detail"].as_str().unwrap();
    assert!(
        detail.contains("were refused (unknown modifier `cdir`)"),
        "{detail}"
    );
    let ready = request(world.service.address, "GET", "/readyz", &[], b"").unwrap();
    assert_eq!(ready.0, 200, "the old rules do their work");
    world.push("DeleteTrail", 4);
    assert_eq!(
        world.alerts(),
        [
            ("Trail deleted".to_owned(), 2),
            ("Trail stopped".to_owned(), 1)
        ]
    );

    // Mended: taken up, on SIGHUP too; what was half collected is still there, and nothing is told twice.
    std::fs::remove_file(world.folder.path().join("rules/bad.yml")).unwrap();
    world.service.signal("HUP");
    world.until("the mended set runs", |w| w.has_rule("Renamed"));
    assert!(world.metric("trailwarden_rules_refused 0"));
    let (status, answer) = world.reload();
    assert_eq!(status, 200);
    assert!(
        answer["result"].as_str().unwrap().starts_with("unchanged"),
        "{answer}"
    );
    world.push("ConsoleLogin", 5);
    let all = [
        ("Many failed sign-ins".to_owned(), 3),
        ("Trail deleted".to_owned(), 2),
        ("Trail stopped".to_owned(), 1),
    ];
    assert_eq!(world.alerts(), all);
    world.push("DeleteTrail", 6);
    // The alert that is open keeps the title that it was opened with.
    assert_eq!(world.alerts()[1], ("Trail deleted".to_owned(), 3));
    assert!(!world.metric("trailwarden_correlate_dropped_total{reason=\"unknown_rule\"} 1"));
    assert_eq!(world.service.stop(), Some(0));
}

/// A rule that is tried out finds, is counted and can be searched; nobody is told, until the mark is taken away.
#[test]
fn a_staged_rule_opens_no_alert() {
    let mut world = World::start();
    world.write("more.yml", &format!("{MORE}staging: true\n"));
    world.until("the staged rule runs", |w| w.has_rule("Trail deleted"));
    world.push("DeleteTrail", 0);
    world.push("StopLogging", 1);
    assert_eq!(world.alerts(), [("Trail stopped".to_owned(), 1)]);
    let counted =
        "trailwarden_alerting_staged_total{rule=\"7f3e2987-db24-4c78-a860-b4f4095a7096\"} 1";
    assert!(world.metric(counted));
    world.until("the finding can be searched", |w| {
        let found = w.service.get("/api/v1/search?kind=findings");
        found["hits"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["staged"] == true)
    });
    world.write("more.yml", MORE);
    world.until("it is no longer staged", |w| {
        w.metric("trailwarden_rules_reload_total{result=\"loaded\"} 2")
            && !w
                .service
                .get("/api/v1/rules")
                .to_string()
                .contains("\"staged\":true")
    });
    world.push("DeleteTrail", 2);
    assert_eq!(
        world.alerts(),
        [
            ("Trail deleted".to_owned(), 1),
            ("Trail stopped".to_owned(), 1)
        ]
    );
    assert_eq!(world.service.stop(), Some(0));
}
