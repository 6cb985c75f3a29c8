//! What arrives, shown: `trailwarden sources` and the API behind it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{Service, request, text};

fn record(id: usize, region: &str) -> String {
    format!(
        "{{\"eventVersion\":\"1.08\",\"userIdentity\":{{\"type\":\"IAMUser\",\"userName\":\"eve\"}},\"eventTime\":\"2026-03-02T10:00:00Z\",\"eventSource\":\"s3.amazonaws.com\",\"eventName\":\"ListBuckets\",\"awsRegion\":\"{region}\",\"eventID\":\"{id}\",\"recipientAccountId\":\"123456789012\"}}"
    )
}

/// What the program shows: its exit code, what it says, and its complaints.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = crate::program::run(args);
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// The report, once it is as it should be.
fn report(service: &Service, ready: impl Fn(&Value) -> bool) -> Value {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let report = service.get("/api/v1/sources");
        if ready(&report) {
            return report;
        }
        assert!(Instant::now() < patience, "{report:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_arrives_and_what_fails_is_shown_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (config, logs) = (folder.path().join("c.yaml"), folder.path().join("logs"));
    std::fs::write(
        &config,
        format!(
            "ingest: {{files: {{paths: ['{}'], rescan_seconds: 1, settle_seconds: 1}}}}\n",
            logs.display()
        ),
    )
    .unwrap();
    let service = Service::start(&config, &folder.path().join("data"));
    let url = format!("http://{}", service.address);

    // A folder that is not there is said, with what to do, and is well once it is.
    let failing = |r: &Value| r["collectors"][0]["state"] == "failing";
    let found = report(&service, failing);
    let collector = &found["collectors"][0];
    assert_eq!(
        (collector["kind"].as_str(), collector["fault"].as_str()),
        (Some("files"), Some("read"))
    );
    let shown = run(&["sources", "--url", &url, "--format", "table"]);
    assert_eq!(shown.0, Some(1), "{shown:?}");
    assert!(shown.1.contains("Nothing has arrived yet."), "{shown:?}");
    assert!(shown.1.contains("FAILING files"), "{shown:?}");
    assert!(
        shown
            .1
            .contains("hint: check the path in ingest.files.paths"),
        "{shown:?}"
    );
    std::fs::create_dir(&logs).unwrap();
    report(&service, |r| r["collectors"][0]["state"] == "well");

    // Events by two ways, one of them twice: each counts once.
    let body: String = (0..10).map(|n| record(n, "eu-west-1") + "\n").collect();
    for _ in 0..2 {
        let (status, _) = request(
            service.address,
            "POST",
            "/api/v1/events",
            &[],
            body.as_bytes(),
        )
        .unwrap();
        assert_eq!(status, 200);
    }
    let filed: Vec<String> = (5..12)
        .map(|n| record(n, "eu-west-1"))
        .chain([record(20, "us-east-1")])
        .collect();
    std::fs::write(
        logs.join("a.json"),
        format!("{{\"Records\":[{}]}}", filed.join(",")),
    )
    .unwrap();
    let counts = |r: &Value| {
        let rows = r["sources"].as_array().unwrap();
        rows.iter()
            .map(|s| {
                (
                    s["region"].as_str().unwrap().to_owned(),
                    s["events_last_day"].as_u64().unwrap(),
                )
            })
            .collect::<Vec<_>>()
    };
    let expected = [("eu-west-1".to_owned(), 12), ("us-east-1".to_owned(), 1)];
    let found = report(&service, |r| counts(r) == expected);
    let row = &found["sources"][0];
    assert_eq!(
        (row["source"].as_str(), row["account"].as_str()),
        (Some("aws.cloudtrail"), Some("123456789012"))
    );
    assert_eq!(row["state"], "learning");
    assert!(row["rules"].as_u64().unwrap() > 30, "{row:#}");
    assert_eq!(found["silent"], serde_json::json!([]));

    let shown = run(&["sources", "--url", &url]);
    assert_eq!(shown.0, Some(0), "{shown:?}");
    let json: Value = serde_json::from_str(&shown.1).unwrap();
    assert_eq!(counts(&json), expected);
    let metrics = service.metrics();
    assert!(
        metrics.contains("trailwarden_alerting_sources{state=\"learning\"}"),
        "{metrics}"
    );
}

#[test]
fn a_service_that_is_not_there_is_said() {
    let shown = run(&["sources", "--url", "http://127.0.0.1:1"]);
    assert_eq!(shown.0, Some(3), "{shown:?}");
    assert!(shown.2.contains("is the service running"), "{shown:?}");
    let shown = run(&["sources", "--url", "nonsense"]);
    assert_eq!(shown.0, Some(2), "{shown:?}");
}
