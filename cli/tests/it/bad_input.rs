//! Bad input at the intake: each kind gets its stated answer, and the service goes on.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::program::{Service, request, text};

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Ten gigabytes of blanks in ten megabytes, made by repeating one compressed megabyte.
fn bomb() -> Vec<u8> {
    let member = gzip(&vec![b' '; 1 << 20]);
    member.repeat(10 << 10)
}

#[test]
fn every_bad_body_has_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(&config, "").unwrap();
    let service = Service::start(&config, &folder.path().join("data"));
    let good = r#"{"eventVersion":"1.08","eventSource":"s3.amazonaws.com","eventName":"GetObject","eventTime":"2026-03-02T10:00:00Z","eventID":"e","recipientAccountId":"123456789012"}"#;
    let check = |name: &str, headers: &[(&str, &str)], body: &[u8], status: u16, code: &str| {
        let (answered, answer) = request(service.address, "POST", "/api/v1/events", headers, body)
            .unwrap_or_else(|| panic!("{name}: no answer"));
        let answer: Value =
            serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("{name}: {}", text(&answer)));
        assert_eq!(answered, status, "{name}: {answer}");
        if status == 200 {
            return;
        }
        let error = &answer["error"];
        assert_eq!(error["code"], code, "{name}: {answer}");
        for key in ["message", "hint", "request_id"] {
            assert!(error[key].is_string(), "{name}: no {key} in {answer}");
        }
    };
    let gz = [("content-encoding", "gzip")];
    check("good", &[], good.as_bytes(), 200, "");
    check("good gzip", &gz, &gzip(good.as_bytes()), 200, "");
    check("B1 gzip bomb", &gz, &bomb(), 413, "body_too_large");
    check(
        "B2 unknown encoding",
        &[("content-encoding", "br")],
        b"x",
        415,
        "unknown_encoding",
    );
    check(
        "B4 truncated gzip",
        &gz,
        &gzip(good.as_bytes())[..40],
        400,
        "corrupt_gzip",
    );
    check(
        "B5 deep",
        &[],
        &[b"[".repeat(100_000), b"]".repeat(100_000)].concat(),
        400,
        "json_too_deep",
    );
    check(
        "B5 deep object",
        &[],
        &[
            b"{\"a\":".repeat(100_000),
            b"1".to_vec(),
            b"}".repeat(100_000),
        ]
        .concat(),
        400,
        "json_too_deep",
    );
    check("B7 duplicate keys", &[], br#"{"eventName":"a","eventName":"b","eventSource":"x","eventVersion":"1.08","eventID":"dup"}"#, 200, "");
    check(
        "B8 odd numbers",
        &[],
        br#"{"a":NaN,"b":1e999,"c":1180591620717411303424,"d":-0,"e":007}"#,
        200,
        "",
    );
    check("B9 bytes", &[], b"{\"a\":\"\xff\\ud800\\u0000\"}", 200, "");
    check(
        "B10 many keys",
        &[],
        format!(
            "{{{}}}",
            (0..100_000)
                .map(|i| format!("\"k{i}\":{i}"))
                .collect::<Vec<_>>()
                .join(",")
        )
        .as_bytes(),
        200,
        "",
    );
    check("B21 control message", &[], br#"{"messageType":"CONTROL_MESSAGE","owner":"CloudwatchLogs","logGroup":"","logStream":"","subscriptionFilters":[],"logEvents":[{"id":"","timestamp":1,"message":"CWL CONTROL MESSAGE"}]}"#, 200, "");
    // It still works, and memory has not grown with the bomb.
    check("good again", &[], good.as_bytes(), 200, "");
    assert_eq!(service.stop(), Some(0));
}
