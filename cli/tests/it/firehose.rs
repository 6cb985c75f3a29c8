//! Amazon Data Firehose against the running program: a key of its own in place of a login, and what was answered 200
//! outlives kill -9.

use std::io::Write;

use base64::Engine;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::program::{Service, request, run, text};

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A record with a payload of CloudWatch Logs, as a subscription filter hands it to Firehose.
fn payload(kind: &str, events: Value) -> Value {
    let payload = json!({
        "messageType": kind, "owner": "123456789012", "logGroup": "/aws/lambda/shop",
        "logStream": "2026/03/02/[$LATEST]aa", "subscriptionFilters": ["all"], "logEvents": events,
    });
    let data = gzip(payload.to_string().as_bytes());
    json!({"data": base64::engine::general_purpose::STANDARD.encode(data)})
}

fn post(service: &Service, key: &str, id: &str, body: &[u8]) -> (u16, Value) {
    let headers = [
        ("x-amz-firehose-protocol-version", "1.0"),
        ("x-amz-firehose-request-id", id),
        (
            "x-amz-firehose-source-arn",
            "arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs",
        ),
        ("x-amz-firehose-access-key", key),
        (
            "x-amz-firehose-common-attributes",
            r#"{"commonAttributes":{"environment":"production"}}"#,
        ),
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ];
    let (status, answer) = request(
        service.address,
        "POST",
        "/api/v1/firehose",
        &headers,
        &gzip(body),
    )
    .unwrap();
    let answer = serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("{}", text(&answer)));
    (status, answer)
}

#[test]
fn functions_logs_come_through_firehose() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    let keys = folder.path().join("keys");
    let data = folder.path().join("data");
    std::fs::write(&keys, "old\nnew\n").unwrap();
    // A console that asks everybody to log in does not ask Firehose.
    let hash = folder.path().join("alice.hash");
    let mut hashing = crate::program::command()
        .arg("hash-password")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    hashing
        .stdin
        .take()
        .unwrap()
        .write_all(b"correct horse")
        .unwrap();
    std::fs::write(&hash, hashing.wait_with_output().unwrap().stdout).unwrap();
    std::fs::write(
        &config,
        format!(
            "ingest: {{firehose: {{access_keys_file: '{}'}}}}\nconsole:\n  auth:\n    mode: password\n    users: [{{name: alice, password_hash_file: '{}', role: analyst}}]\n",
            keys.display(),
            hash.display()
        ),
    )
    .unwrap();

    let body = json!({"requestId": "r-1", "timestamp": 1_578_090_901_599_u64, "records": [
        payload("CONTROL_MESSAGE", json!([])),
        payload("DATA_MESSAGE", json!([
            {"id": "log-1", "timestamp": 1_772_445_600_000_i64, "message": "START RequestId: 8f5b1c1e-0000-4000-8000-000000000001 Version: $LATEST\n"},
            {"id": "log-2", "timestamp": 1_772_445_600_100_i64, "message": "REPORT RequestId: 8f5b1c1e-0000-4000-8000-000000000001\tDuration: 15.74 ms\tBilled Duration: 16 ms\tMemory Size: 128 MB\tMax Memory Used: 56 MB\t\n"},
        ])),
        {"data": "no base64"},
    ]});
    let body = body.to_string().into_bytes();
    let service = Service::start(&config, &data);
    let (status, answer) = post(&service, "stranger", "r-1", &body);
    assert_eq!(
        (status, &answer["requestId"]),
        (401, &json!("r-1")),
        "{answer}"
    );
    assert!(
        answer["errorMessage"]
            .as_str()
            .unwrap()
            .starts_with("wrong_key")
    );
    let (status, answer) = post(&service, "new", "r-2", &body);
    assert_eq!(status, 400, "{answer}");
    for key in ["old", "new"] {
        let (status, answer) = post(&service, key, "r-1", &body);
        assert_eq!(
            (status, &answer["requestId"]),
            (200, &json!("r-1")),
            "{answer}"
        );
        assert!(
            answer["timestamp"].is_u64() && answer.get("errorMessage").is_none(),
            "{answer}"
        );
    }
    // Other doors stay shut.
    let (status, _) = request(service.address, "POST", "/api/v1/events", &[], b"{}").unwrap();
    assert_eq!(status, 401);
    service.kill();

    // Without a key the endpoint is off, and what was taken is there.
    std::fs::write(&config, "search: {publish_after_ms: 300}\n").unwrap();
    let service = Service::start(&config, &data);
    service.settle(2);
    let (status, answer) = post(&service, "new", "r-1", &body);
    assert_eq!(status, 404, "{answer}");
    assert!(answer["errorMessage"].as_str().unwrap().starts_with("off"));
    let found = service.get("/api/v1/search?q=labels.environment:production&count=true");
    assert_eq!(found["total"], 2, "{found:#}");
    let ids: Vec<_> = found["hits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| h["source_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["log-2", "log-1"]);
    assert_eq!(service.stop(), Some(0));

    let letters = run(&["dead-letters", "list", "--data", data.to_str().unwrap()]);
    let letters: Vec<Value> = text(&letters.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(!letters.is_empty());
    for letter in letters {
        assert_eq!(letter["reason"], "bad_base64", "{letter}");
        assert_eq!(
            letter["object"],
            "firehose:arn:aws:firehose:eu-west-1:123456789012:deliverystream/logs:r-1#2"
        );
    }
}

#[test]
fn a_key_file_without_keys_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(
        &config,
        "ingest: {firehose: {access_keys_file: /nowhere}}\n",
    )
    .unwrap();
    let output = run(&["config", "check", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(
        error.contains("`firehose.access_keys_file`: cannot read `/nowhere`"),
        "{error}"
    );
}
