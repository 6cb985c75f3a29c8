//! `run`: intake to notified alert in one process.

use std::time::Duration;

use crate::program::{Service, receiver, request, run, text};

fn record(id: &str, name: &str, agent: &str) -> String {
    format!(
        "{{\"eventVersion\":\"1.08\",\"userIdentity\":{{\"type\":\"IAMUser\",\"arn\":\"arn:aws:iam::123456789012:user/eve\",\"userName\":\"eve\"}},\"eventTime\":\"2026-03-02T10:00:00Z\",\"eventSource\":\"cloudtrail.amazonaws.com\",\"eventName\":\"{name}\",\"sourceIPAddress\":\"198.18.0.9\",\"userAgent\":{},\"eventID\":\"{id}\",\"recipientAccountId\":\"123456789012\"}}",
        serde_json::Value::from(agent)
    )
}

#[test]
fn one_event_from_the_wire_to_the_pager() {
    let folder = tempfile::tempdir().unwrap();
    let (hook, received) = receiver();
    let config = folder.path().join("c.yaml");
    let logs = folder.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    std::fs::write(
        &config,
        format!(
            "allow_inline_secrets: true\nsearch: {{publish_after_ms: 300}}\ningest: {{files: {{paths: ['{}'], settle_seconds: 1, rescan_seconds: 1}}}}\nalerting:\n  group_wait_seconds: 0\n  receivers:\n    - name: hook\n      webhook: {{url: 'http://{hook}/', allow_http: true, allow_networks: [127.0.0.0/8], secret: s}}\n  route: {{receiver: hook}}\n",
            logs.display()
        ),
    )
    .unwrap();
    let data = folder.path().join("data");
    let service = Service::start(&config, &data);

    // One over HTTP, one as a file, and something that is no event.
    let body = format!("{}\nnot json\n", record("pushed", "StopLogging", "aws-cli"));
    let (status, answer) = request(
        service.address,
        "POST",
        "/api/v1/events",
        &[("content-type", "application/x-ndjson")],
        body.as_bytes(),
    )
    .unwrap();
    assert_eq!(status, 200, "{}", text(&answer));
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&answer).unwrap(),
        serde_json::json!({"accepted": 1, "dead_letters": 1})
    );
    std::fs::write(
        logs.join("a.json"),
        format!(
            "{{\"Records\":[{}]}}",
            record("filed", "DeleteTrail", "console")
        ),
    )
    .unwrap();
    service.settle(2);

    let found = service.get("/api/v1/search?q=eventName:DeleteTrail");
    assert_eq!(found["hits"][0]["source_id"], "filed", "{found:#}");
    let alerts = service.get("/api/v1/alerts");
    let alert = &alerts["alerts"][0];
    assert_eq!(
        alert["actor"].as_str().map(|a| a.contains("eve")),
        Some(true),
        "{alert:#}"
    );
    let told = received.lock().unwrap().clone();
    assert!(!told.is_empty());
    assert!(told.iter().all(|(key, _)| !key.is_empty()));

    let metrics = service.metrics();
    for name in [
        "trailwarden_ingest_events_sent_total",
        "trailwarden_match_events_received_total",
        "trailwarden_index_",
        "trailwarden_alerting_",
        "trailwarden_correlate_lag_records",
        "trailwarden_match_lag_records",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    let documented = include_str!("../../../docs/metrics.md");
    for name in metrics
        .lines()
        .filter_map(|l| l.strip_prefix("# HELP ")?.split(' ').next())
    {
        assert!(
            documented.contains(&format!("`{name}`")),
            "{name} is not in docs/metrics.md"
        );
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(
            request(service.address, "GET", path, &[], b"").unwrap().0,
            200,
            "{path}"
        );
    }
    // A second process on the same data is refused.
    let second = run(&[
        "run",
        "--listen",
        "127.0.0.1:0",
        "--data",
        data.to_str().unwrap(),
    ]);
    assert_ne!(second.status.code(), Some(0));
    assert!(
        text(&second.stderr).contains("in use by another process"),
        "{}",
        text(&second.stderr)
    );
    assert_eq!(service.stop(), Some(0));

    // What is on disk answers without a service.
    let found = run(&[
        "search",
        "source_id:pushed",
        "--data",
        data.to_str().unwrap(),
        "--format",
        "jsonl",
    ]);
    assert_eq!(
        text(&found.stdout).lines().count(),
        1,
        "{}",
        text(&found.stderr)
    );
    let letters = run(&["dead-letters", "list", "--data", data.to_str().unwrap()]);
    let letter: serde_json::Value = serde_json::from_slice(&letters.stdout).unwrap();
    assert_eq!(
        (letter["reason"].as_str(), letter["bytes"].as_str()),
        (Some("bad_json"), Some("not json"))
    );
    let replayed = run(&[
        "dead-letters",
        "replay",
        letter["place"].as_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ]);
    assert_eq!(
        replayed.status.code(),
        Some(1),
        "{}",
        text(&replayed.stderr)
    );
    assert_eq!(
        run(&["doctor", "--data", data.to_str().unwrap()])
            .status
            .code(),
        Some(0)
    );
}

#[test]
fn a_query_with_a_mistake_is_pointed_at() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("index")).unwrap();
    let output = run(&[
        "search",
        "actor:\"eve",
        "--data",
        folder.path().to_str().unwrap(),
    ]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("| actor:\"eve\n   |       ^"), "{error}");
}

#[test]
fn a_port_in_use_and_bad_rules_stop_the_start_in_plain_words() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let output = run(&["run", "--listen", &address, "--data", &data]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("another program listens there"),
        "{}",
        text(&output.stderr)
    );
    let output = run(&["run", "--listen", "0.0.0.0:0", "--data", &data]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("--insecure-listen"),
        "{}",
        text(&output.stderr)
    );
    let output = run(&["run", "--listen", "127.0.0.1:0", "--data", "/proc/nowhere"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!text(&output.stderr).contains("panicked"));
}

#[test]
fn it_is_ready_soon() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(&config, "").unwrap();
    let service = Service::start(&config, &folder.path().join("data"));
    // The figure belongs to docs/benchmarks.md; here only that nothing waits without end.
    assert!(
        service.started < Duration::from_secs(60),
        "{:?}",
        service.started
    );
    assert_eq!(service.stop(), Some(0));
}

/// TLS from files and a login: nobody gets in without, and the address may then be any.
#[test]
fn behind_tls_and_a_login_nobody_gets_in_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(path("tls.crt"), certified.cert.pem()).unwrap();
    std::fs::write(path("tls.key"), certified.signing_key.serialize_pem()).unwrap();
    let mut hashing = crate::program::command()
        .arg("hash-password")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut hashing.stdin.take().unwrap(), b"correct horse").unwrap();
    std::fs::write(
        path("alice.hash"),
        hashing.wait_with_output().unwrap().stdout,
    )
    .unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(
        &config,
        format!(
            "tls: {{certificate_file: '{}', key_file: '{}'}}\nconsole:\n  hosts: [localhost]\n  auth:\n    mode: password\n    users: [{{name: alice, password_hash_file: '{}', role: analyst}}]\n",
            path("tls.crt"), path("tls.key"), path("alice.hash")
        ),
    )
    .unwrap();
    assert_eq!(
        run(&["config", "check", config.to_str().unwrap()])
            .status
            .code(),
        Some(0)
    );
    let service = Service::start(&config, &folder.path().join("data"));
    let provider = rustls::crypto::ring::default_provider().install_default();
    drop(provider);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(certified.cert.pem().as_bytes()).unwrap()])
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap();
    let base = format!("https://localhost:{}", service.address.port());
    let status = |request: reqwest::RequestBuilder| {
        runtime.block_on(async { request.send().await.unwrap().status().as_u16() })
    };
    assert_eq!(status(client.get(format!("{base}/healthz"))), 200);
    assert_eq!(status(client.get(format!("{base}/api/v1/alerts"))), 401);
    assert_eq!(
        status(client.post(format!("{base}/api/v1/events")).body("{}")),
        401
    );
    assert_eq!(status(client.get(format!("{base}/"))), 303);
    let plain = request(service.address, "GET", "/healthz", &[], b"");
    assert!(
        plain.is_none_or(|(status, _)| status != 200),
        "plain HTTP is answered"
    );
    assert_eq!(service.stop(), Some(0));
}
