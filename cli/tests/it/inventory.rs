//! The inventory: checked, put on events, and used by rules, searches, routes and the console.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::{PATIENCE, Service, receiver, request, run, text};

const INVENTORY: &str = "\
accounts:
  - {account: 012345678901, name: shop-prod, ou: Workloads, owner: shop, environment: production, criticality: high, regions: [eu-west-1]}
  - {account: '111122223333', name: sandbox, environment: development}
functions:
  - {account: 012345678901, name: 'pay*', owner: payments}
";

const RULES: &str = "\
title: Trail stopped in production
id: 6f3e2987-db24-4c78-a860-b4f4095a7095
logsource: {product: aws, service: cloudtrail}
detection: {sel: {eventName: StopLogging, labels.environment: production}, condition: sel}
level: high
tests:
  - name: in production
    events: [{eventVersion: '1.08', eventSource: cloudtrail.amazonaws.com, eventName: StopLogging, recipientAccountId: '012345678901'}]
    expect: match
  - name: elsewhere
    events: [{eventVersion: '1.08', eventSource: cloudtrail.amazonaws.com, eventName: StopLogging, recipientAccountId: '111122223333'}]
    expect: no_match
---
title: Sign-in
name: sign_in
logsource: {product: aws, service: cloudtrail}
detection: {sel: {eventName: ConsoleLogin}, condition: sel}
level: informational
---
title: Many sign-ins
id: df0841c0-9846-4e9f-ad8a-7df91571771b
correlation: {type: event_count, rules: [sign_in], group-by: [account_name], timespan: 10m, condition: {gte: 2}}
level: high
";

fn record(id: &str, name: &str, account: &str) -> Value {
    // Different people: what one of them does is one incident, and told once.
    let (user, address) = match name {
        "ConsoleLogin" => ("mallory", "203.0.113.9"),
        _ => ("eve", "198.51.100.7"),
    };
    json!({
        "eventVersion": "1.08", "eventSource": "cloudtrail.amazonaws.com", "eventName": name,
        "eventTime": "2026-03-02T09:00:00Z", "eventID": id, "awsRegion": "eu-west-1",
        "sourceIPAddress": address, "recipientAccountId": account,
        "userIdentity": {"type": "IAMUser", "userName": user, "accountId": account, "arn": format!("arn:aws:iam::{account}:user/{user}")},
    })
}

fn push(service: &Service, records: &[Value]) {
    let lines: Vec<String> = records.iter().map(ToString::to_string).collect();
    let headers = [("content-type", "application/x-ndjson")];
    let body = lines.join("\n");
    let (status, answer) = request(
        service.address,
        "POST",
        "/api/v1/events",
        &headers,
        body.as_bytes(),
    )
    .unwrap();
    assert_eq!(status, 200, "{}", text(&answer));
}

fn total(service: &Service, query: &str) -> u64 {
    let answer = service.get(&format!("/api/v1/search?q={query}&count=true"));
    answer["total"].as_u64().unwrap()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn write(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

#[test]
fn check_prints_what_it_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "i.yaml", INVENTORY);
    let output = run(&["inventory", "check", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["kind"], "account");
    assert_eq!(lines[0]["account"], "012345678901");
    assert_eq!(lines[0]["regions"], json!(["eu-west-1"]));
    assert_eq!(lines[2]["kind"], "function");
    assert_eq!(lines[2]["name"], "pay*");
    let output = run(&["inventory", "check", &file, "--format", "table"]);
    let table = text(&output.stdout);
    let words = |line: usize| -> Vec<String> {
        let line = table.lines().nth(line).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(words(0)[..3], ["account", "name", "ou"], "{table}");
    assert_eq!(
        words(2),
        ["111122223333", "sandbox", "development"],
        "{table}"
    );
    assert_eq!(
        words(5),
        ["012345678901", "any", "pay*", "payments"],
        "{table}"
    );
    assert!(table.ends_with("\n2 accounts, 1 functions\n"), "{table}");
}

#[test]
fn mistakes_stop_the_check_and_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content, place, words) in [
        (
            "a.yaml",
            "accounts: [{acount: '1'}]\n",
            ":1:13",
            "did you mean `account`?",
        ),
        (
            "b.csv",
            "account,name\n12345678901,shop\n",
            ":2",
            "spreadsheets drop leading zeros",
        ),
        (
            "c.csv",
            "account\n111122223333\n111122223333\n",
            ":3",
            "stands here and on line 2",
        ),
        ("d.json", "{\"Accounts\": 1}", ":1:14", "list-accounts"),
        ("e.txt", "", "", "does not say what it is"),
    ] {
        let file = write(folder.path(), name, content);
        let config = write(
            folder.path(),
            "c.yaml",
            &format!("inventory: {{file: '{file}'}}\n"),
        );
        for args in [
            &["inventory", "check", &file][..],
            &["config", "check", &config],
            &["run", "--config", &config],
            &["hunt", &config, "--inventory", &file],
        ] {
            let output = run(args);
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{args:?}\n{error}");
            assert!(
                error.contains(&format!("--> {file}{place}\n")) && error.contains(words),
                "{args:?}\n{error}"
            );
        }
    }
    let output = run(&["inventory", "check", "/nowhere.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("No such file"));
}

/// Rules, searches, routes and the console see the labels; what came before the inventory comes again and counts once.
#[test]
fn events_bear_the_labels_of_the_inventory() {
    let folder = tempfile::tempdir().unwrap();
    let rules = write(folder.path(), "r.yml", RULES);
    let inventory = write(folder.path(), "i.yaml", INVENTORY);
    let ((production, told), (rest, others)) = (receiver(), receiver());
    let settings = format!(
        "rules: {{paths: ['{rules}']}}
search: {{publish_after_ms: 300}}
alerting:
  group_wait_seconds: 0
  receivers:
    - {{name: production, webhook: {{url: 'http://{production}/', allow_http: true, allow_networks: [127.0.0.0/8]}}}}
    - {{name: rest, webhook: {{url: 'http://{rest}/', allow_http: true, allow_networks: [127.0.0.0/8]}}}}
  route:
    receiver: rest
    routes: [{{matchers: ['labels.environment=production'], receiver: production}}]
"
    );
    let plain = folder.path().join("plain.yaml");
    std::fs::write(&plain, &settings).unwrap();
    let config = folder.path().join("c.yaml");
    let with = format!("{settings}inventory: {{file: '{inventory}', reload_seconds: 1}}\n");
    std::fs::write(&config, with).unwrap();
    let data = folder.path().join("data");

    let early = record("e1", "StopLogging", "012345678901");
    let service = Service::start(&plain, &data);
    push(&service, std::slice::from_ref(&early));
    service.settle(1);
    assert_eq!(total(&service, "labels.environment:production"), 0);
    assert_eq!(service.stop(), Some(0));

    let service = Service::start(&config, &data);
    push(
        &service,
        &[
            early,
            record("e2", "StopLogging", "012345678901"),
            record("e3", "StopLogging", "111122223333"),
            record("e4", "ConsoleLogin", "012345678901"),
            record("e5", "ConsoleLogin", "012345678901"),
        ],
    );
    service.settle(5);
    assert_eq!(
        total(&service, "eventID:e1"),
        1,
        "with other labels it is the same event"
    );
    assert_eq!(total(&service, "labels.environment:production"), 3);
    assert_eq!(total(&service, "account_name:sandbox"), 1);
    let found = service.get("/api/v1/search?q=eventID:e2");
    let event = &found["hits"][0];
    assert_eq!(event["account_name"], "shop-prod");
    assert_eq!(
        event["labels"],
        json!({"criticality": "high", "environment": "production", "ou": "Workloads", "owner": "shop"})
    );
    let page = format!("/events/{}", event["id"].as_str().unwrap());
    let (status, page) = request(service.address, "GET", &page, &[], b"").unwrap();
    assert_eq!(status, 200);
    for words in ["labels.environment", "account_name", "shop-prod"] {
        assert!(text(&page).contains(words), "{words}");
    }

    // The rule asks for the label, so it found one of three; the correlation hands its label on.
    let titles = |received: &crate::program::Received| {
        let received = received.lock().unwrap();
        let mut titles: Vec<String> = received.iter().map(|(_, body)| body.to_string()).collect();
        titles.sort();
        titles
    };
    until("two notifications", || titles(&told).len() >= 2);
    let said = titles(&told).join("\n");
    for title in ["Trail stopped in production", "Many sign-ins"] {
        assert!(said.contains(title), "{said}");
    }
    assert_eq!(titles(&others), [""; 0]);
    let alerts = service.get("/api/v1/alerts");
    let alerts = alerts["alerts"].as_array().unwrap();
    assert_eq!(alerts.len(), 2, "{alerts:#?}");
    for alert in alerts {
        let id = alert["id"].as_str().unwrap();
        let alert = service.get(&format!("/api/v1/alerts/{id}"));
        assert!(
            alert.to_string().contains("\"environment\":\"production\""),
            "{alert:#}"
        );
    }

    // A new file holds for what comes from then on; a broken one changes nothing.
    let has = |line: &str| service.metrics().lines().any(|l| l == line);
    assert!(has("trailwarden_inventory_entries{kind=\"account\"} 2"));
    std::fs::write(&inventory, INVENTORY.replace("shop-prod", "shop-live")).unwrap();
    let loaded = "trailwarden_inventory_reload_total{result=\"loaded\"} 1";
    until("the new inventory", || has(loaded));
    std::fs::write(&inventory, "accounts: [{}]\n").unwrap();
    until("the broken inventory", || {
        has("trailwarden_inventory_refused 1")
    });
    assert!(
        service
            .get("/api/v1/health")
            .to_string()
            .contains("2 accounts, 1 functions; the file as it is now was refused")
    );
    push(&service, &[record("e6", "ListUsers", "012345678901")]);
    service.settle(6);
    assert_eq!(total(&service, "account_name:shop-live"), 1);
    assert_eq!(total(&service, "account_name:shop-prod"), 3);
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn hunt_and_rule_test_take_an_inventory() {
    let folder = tempfile::tempdir().unwrap();
    let rules = write(folder.path(), "r.yml", RULES);
    let inventory = write(folder.path(), "i.yaml", INVENTORY);
    let records = [
        record("e1", "StopLogging", "012345678901"),
        record("e2", "StopLogging", "111122223333"),
    ];
    let logs = write(
        folder.path(),
        "logs.json",
        &json!({"Records": records}).to_string(),
    );
    let output = run(&["hunt", &logs, "--rules", &rules]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let args = ["hunt", &logs, "--rules", &rules, "--inventory", &inventory];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let findings: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0]["event_ids"], json!(["e1"]));
    assert_eq!(findings[0]["labels"]["owner"], "shop");
    let output = run(&[
        "backtest",
        &logs,
        "--rules",
        &rules,
        "--inventory",
        &inventory,
        "--findings",
    ]);
    let lines = text(&output.stdout);
    assert_eq!(lines.matches("\"kind\":\"finding\"").count(), 1, "{lines}");

    let output = run(&["rule", "test", &rules]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "without labels nothing matches"
    );
    let output = run(&["rule", "test", &rules, "--inventory", &inventory]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
}

#[test]
fn the_examples_of_the_page_work() {
    let page = include_str!("../../../docs/inventory.md");
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).collect();
    let block = |n: usize| blocks[n].split("```").next().unwrap();
    assert_eq!(blocks.len(), 3);
    let folder = tempfile::tempdir().unwrap();
    let inventory = write(folder.path(), "i.yaml", block(0));
    let output = run(&["inventory", "check", &inventory]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let named = block(1).replace("/etc/trailwarden/inventory.yaml", &inventory);
    let config = write(folder.path(), "c.yaml", &(named + block(2)));
    let output = run(&["config", "check", &config]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
