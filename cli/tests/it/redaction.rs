//! Secrets in records: nowhere in the data folder, found by their fingerprints, opened with the key.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::program::{Service, command, request, run, text};

const PASSWORD: &str = "correct-horse-7-battery";

/// Put together here, so that nobody's scanner takes this file for a leak.
const TOKEN: &str = concat!("gh", "p_", "16C7e42F292c6912E7710c838347Ae178B4a");

/// Runs a command over the key of a data folder and what it reads.
fn with_key(name: &str, data: &Path, input: &[u8]) -> std::process::Output {
    let mut child = command()
        .args([name, "--data", data.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_secret_is_found_by_its_fingerprint_only() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(&config, "search: {publish_after_ms: 300}\n").unwrap();
    let data = folder.path().join("data");
    let dir = data.to_str().unwrap();
    let service = Service::start(&config, &data);
    let line = |id: u32, message: &str| {
        serde_json::json!({
            "timestamp": "2026-03-02T10:00:00Z", "level": "ERROR", "requestId": format!("r-{id}"), "message": message,
        })
    };
    let body = [
        line(1, &format!("login failed with password={PASSWORD}")).to_string(),
        line(
            2,
            &format!("{{\"auth\":{{\"password\":\"{PASSWORD}\"}},\"k\":\"{TOKEN}\"}}"),
        )
        .to_string(),
        line(3, "nothing to see").to_string(),
        format!("{{\"password\":\"{PASSWORD}\","),
    ]
    .join("\n");
    for _ in 0..2 {
        let (status, answer) = request(
            service.address,
            "POST",
            "/api/v1/events",
            &[],
            body.as_bytes(),
        )
        .unwrap();
        assert_eq!(status, 200, "{}", text(&answer));
    }
    service.settle(3);
    let metrics = service.metrics();
    assert!(
        metrics.contains("trailwarden_ingest_redacted_total{kind=\"password\"} 6"),
        "{metrics}"
    );
    assert!(metrics.contains("trailwarden_ingest_redacted_total{kind=\"github_token\"} 2"));
    assert!(metrics.contains("trailwarden_match_errors_total{kind=\"id_conflict\"} 0"));
    assert_eq!(service.stop(), Some(0));

    let search = |query: &str| {
        let found = run(&["search", query, "--data", dir, "--format", "jsonl"]);
        assert_eq!(found.status.code(), Some(0), "{}", text(&found.stderr));
        found.stdout
    };
    let all = text(&search("source:aws.lambda"));
    let letters = text(&run(&["dead-letters", "list", "--data", dir]).stdout);
    assert_eq!(
        (all.lines().count(), letters.lines().count()),
        (3, 2),
        "{all}{letters}"
    );
    // What the program reads of its own log and index has no secret, sealed ones aside.
    for shown in [&all, &letters] {
        assert!(
            !shown.contains(PASSWORD) && !shown.contains(TOKEN),
            "{shown}"
        );
        assert!(shown.contains("[redacted:password:"), "{shown}");
    }
    let marker = all.split("[redacted:password:").nth(1).unwrap();
    let fingerprint = &marker[..16];
    assert_eq!(text(&search(fingerprint)).lines().count(), 2);
    let made = with_key("fingerprint", &data, format!("{PASSWORD}\n").as_bytes());
    assert_eq!(text(&made.stdout).trim(), fingerprint);
    assert_eq!(text(&search(PASSWORD)).lines().count(), 0);
    assert!(letters.contains(fingerprint), "{letters}");
    assert_eq!(text(&search("flags:redacted")).lines().count(), 2);
    assert!(
        all.contains("login failed with password=[redacted:"),
        "{all}"
    );
    no_file_holds(&data, &[PASSWORD.as_bytes(), TOKEN.as_bytes()]);

    let opened = with_key("reveal", &data, &search("source:aws.lambda"));
    assert_eq!(opened.status.code(), Some(0), "{}", text(&opened.stderr));
    let opened = text(&opened.stdout);
    assert_eq!(opened.matches(PASSWORD).count(), 2, "{opened}");
    assert_eq!(opened.matches(TOKEN).count(), 1, "{opened}");
    assert_eq!(opened.lines().count(), 3);

    let key = data.join("redaction.key");
    std::fs::write(&key, "another key, with at least 32 characters").unwrap();
    let refused = with_key("reveal", &data, &search("flags:redacted"));
    assert_eq!(refused.status.code(), Some(3));
    assert!(
        text(&refused.stderr).contains("another key"),
        "{}",
        text(&refused.stderr)
    );
}

/// What is replaced is the value: that there was one is still to be seen.
#[test]
fn rules_see_that_a_secret_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(&config, "search: {publish_after_ms: 300}\n").unwrap();
    let service = Service::start(&config, &folder.path().join("data"));
    let secret = concat!("wJalrXUtnFEMI/K7MDENG/", "bPxRfiCYEXAMPLEKEY");
    let pem = concat!(
        "-----BEGIN RSA ",
        "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA3Tz2mr7SZiAMfQyuvBjM9Oi\n"
    );
    let line = |id: u32, message: &str| {
        serde_json::json!({
            "timestamp": "2026-03-02T10:00:00Z", "level": "ERROR", "requestId": format!("r-{id}"), "message": message,
        })
        .to_string()
    };
    let body = [
        line(1, &format!("config dump: AWS_SECRET_ACCESS_KEY={secret}")),
        line(2, pem),
        line(3, "nothing to see"),
    ]
    .join("\n");
    let pushed = request(
        service.address,
        "POST",
        "/api/v1/events",
        &[],
        body.as_bytes(),
    );
    assert_eq!(pushed.unwrap().0, 200);
    service.settle(3);
    let found = service.get("/api/v1/search?q=flags:redacted&limit=10");
    assert_eq!(found["hits"].as_array().unwrap().len(), 2, "{found:#}");
    let alerts = service.get("/api/v1/alerts");
    let alerts = alerts["alerts"].as_array().unwrap();
    let of_secrets: Vec<_> = alerts
        .iter()
        .filter(|a| a["title"] == "Secret was written to the log of a function")
        .collect();
    let findings: u64 = of_secrets
        .iter()
        .map(|a| a["count"].as_u64().unwrap())
        .sum();
    assert_eq!(findings, 2, "{alerts:#?}");
    assert_eq!(service.stop(), Some(0));
}

/// No file below `folder` has one of these as it is, in compressed frames of the log included.
fn no_file_holds(folder: &Path, secrets: &[&[u8]]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            no_file_holds(&path, secrets);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let mut texts = vec![bytes.clone()];
        // Wherever a frame of zstd begins, what it holds.
        for (at, _) in bytes
            .windows(4)
            .enumerate()
            .filter(|(_, w)| *w == [0x28, 0xb5, 0x2f, 0xfd])
        {
            let mut inflated = Vec::new();
            let frame = zstd::stream::read::Decoder::new(&bytes[at..]).unwrap();
            // What follows the frame is no frame.
            let _ = std::io::copy(&mut frame.single_frame(), &mut inflated);
            texts.push(inflated);
        }
        for text in texts {
            for secret in secrets {
                let found = text.windows(secret.len()).any(|w| w == *secret);
                assert!(!found, "a secret is in {}", path.display());
            }
        }
    }
}

#[test]
fn a_cluster_needs_a_key_and_bad_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    let file = config.to_str().unwrap();
    std::fs::write(
        &config,
        "ingest:\n  redaction:\n    patterns: [{name: card, pattern: '(x'}]\n    except_kinds: [passwort]\n",
    )
    .unwrap();
    let output = run(&["config", "check", file]);
    assert_eq!(output.status.code(), Some(2));
    let words = text(&output.stderr);
    assert!(
        words.contains("ingest.redaction.patterns[0].pattern: unclosed group"),
        "{words}"
    );
    assert!(
        words.contains("ingest.redaction.except_kinds: `passwort` is none of"),
        "{words}"
    );

    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    for (settings, expected) in [
        (
            "ingest: {redaction: {key_file: /none/there}}\n",
            "cannot read the redaction key `/none/there`",
        ),
        (
            "bus: {kafka: {brokers: ['127.0.0.1:1']}}\n",
            "ingest.redaction.key_file is missing: on Kafka",
        ),
    ] {
        std::fs::write(&config, settings).unwrap();
        let listen = ["--listen", "127.0.0.1:0"];
        let places = ["--config", file, "--data", data];
        let output = run(&[&["run"][..], &listen, &places].concat());
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(words.contains(expected), "{words}");
    }
}
