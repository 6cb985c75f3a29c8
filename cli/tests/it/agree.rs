//! The service, `hunt`, `backtest` and `rule test` are one engine: on the same events they find the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::program::{Service, request, run, text};

const RULES: &str = "\
title: Failed sign-in
name: failed
id: 5f3e2987-db24-4c78-a860-b4f4095a7091
logsource: {product: aws, service: cloudtrail}
detection: {sel: {eventName: ConsoleLogin, errorMessage: Failed authentication}, condition: sel}
level: informational
---
title: Many failed sign-ins
id: 5f3e2987-db24-4c78-a860-b4f4095a7092
correlation: {type: event_count, rules: [failed], group-by: [sourceIPAddress], timespan: 20m, condition: {gte: 3}}
level: high
---
title: Trail stopped
name: stopped
id: 5f3e2987-db24-4c78-a860-b4f4095a7093
logsource: {product: aws, service: cloudtrail}
detection: {sel: {eventName: StopLogging}, condition: sel}
level: high
---
title: Scanner of the auditors
id: 5f3e2987-db24-4c78-a860-b4f4095a7094
logsource: {product: aws}
filter:
  rules: [failed, stopped]
  scanner: {sourceIPAddress: 203.0.113.3}
  condition: not scanner
owner: soc
expires: 2026-03-02
";

/// Events of eight hours around midnight, somewhat out of order and some of them twice; the exception ends at midnight.
fn events() -> Vec<Value> {
    let mut state = 11_u64;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let begin = chrono::DateTime::parse_from_rfc3339("2026-03-02T20:00:00Z").unwrap();
    let mut events: Vec<(u64, Value)> = Vec::new();
    for number in 0..600 {
        let second = random(8 * 3_600);
        let name = ["ConsoleLogin", "ConsoleLogin", "StopLogging", "GetObject"][random(4) as usize];
        let time = begin + chrono::TimeDelta::seconds(second as i64);
        let event = json!({
            "eventVersion": "1.08", "eventSource": "signin.amazonaws.com", "eventName": name,
            "errorMessage": "Failed authentication",
            "eventTime": time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            "eventID": format!("e{number}"),
            "sourceIPAddress": format!("203.0.113.{}", random(8)),
            "userIdentity": {"type": "IAMUser", "userName": "eve", "arn": "arn:aws:iam::111122223333:user/eve"},
            "recipientAccountId": "111122223333",
        });
        // It arrives up to forty minutes later than it happened.
        events.push((second + random(2_400), event));
    }
    events.sort_by_key(|(arrival, _)| *arrival);
    let mut events: Vec<Value> = events.into_iter().map(|(_, event)| event).collect();
    for again in [3, 77, 78, 400] {
        events.insert(again + 20, events[again].clone());
    }
    // Much later something happens, so that everything before is settled.
    let mut last = events[0].clone();
    (last["eventID"], last["eventName"]) = ("last".into(), "GetObject".into());
    last["eventTime"] = "2026-03-03T09:00:00Z".into();
    events.push(last);
    events
}

type Found = BTreeSet<(String, String)>;

/// What the last word about every finding is: its rule and episode, unless it has become part of another.
fn found<'a>(findings: impl Iterator<Item = &'a Value>) -> Found {
    let mut last: BTreeMap<&str, &Value> = BTreeMap::new();
    for finding in findings {
        let said = last
            .entry(finding["id"].as_str().unwrap())
            .or_insert(finding);
        if finding["revision"].as_u64() > said["revision"].as_u64() {
            *said = finding;
        }
    }
    let whole = last.values().filter(|f| f.get("merged_into").is_none());
    let text = |f: &Value, key: &str| f[key].as_str().unwrap().to_owned();
    whole
        .map(|f| (text(f, "rule_id"), text(f, "episode")))
        .collect()
}

/// The two agree; else what only one of them has.
fn assert_agree(found: &Found, expected: &Found, what: &str) {
    let more: Vec<_> = found.difference(expected).take(5).collect();
    let less: Vec<_> = expected.difference(found).take(5).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "{what}: more {more:?}, less {less:?}"
    );
}

fn lines(args: &[&str]) -> Vec<Value> {
    let output = run(args);
    assert!(output.status.code() <= Some(1), "{}", text(&output.stderr));
    text(&output.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
fn live_hunt_backtest_and_tests_find_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let events = events();
    let distinct = events
        .iter()
        .map(|e| e["eventID"].to_string())
        .collect::<BTreeSet<_>>()
        .len() as u64;
    std::fs::write(path("rules.yml"), RULES).unwrap();
    let all: String = events.iter().map(|e| format!("{e}\n")).collect();
    std::fs::write(path("events.jsonl"), &all).unwrap();

    // Live, in requests of fifty.
    let config = format!(
        "rules: {{paths: ['{}']}}\nsearch: {{publish_after_ms: 300}}\n",
        path("rules.yml")
    );
    std::fs::write(path("c.yaml"), config).unwrap();
    let service = Service::start(path("c.yaml").as_ref(), path("data").as_ref());
    for part in events.chunks(50) {
        let body: String = part.iter().map(|e| format!("{e}\n")).collect();
        let headers = [("content-type", "application/x-ndjson")];
        let answer = request(
            service.address,
            "POST",
            "/api/v1/events",
            &headers,
            body.as_bytes(),
        );
        assert_eq!(answer.unwrap().0, 200);
    }
    service.settle(distinct);
    let mut live = Found::new();
    let begin = std::time::Instant::now();
    let hunted = lines(&[
        "hunt",
        &path("events.jsonl"),
        "--rules",
        &path("rules.yml"),
        "--format",
        "jsonl",
    ]);
    let expected = found(hunted.iter());
    // Findings are searchable a moment after alerting has them.
    while live != expected && begin.elapsed() < std::time::Duration::from_secs(20) {
        let answer = service.get("/api/v1/search?kind=findings&limit=1000");
        live = found(answer["hits"].as_array().unwrap().iter());
    }
    assert!(expected.len() > 150, "{}", expected.len());
    assert_agree(&live, &expected, "live");
    let correlation = "5f3e2987-db24-4c78-a860-b4f4095a7092";
    assert!(
        expected
            .iter()
            .filter(|(rule, _)| rule == correlation)
            .count()
            > 10
    );
    assert_eq!(service.stop(), Some(0));

    // Over the folder of logs and over what the service has indexed.
    for from in [
        vec![path("events.jsonl")],
        vec!["--data".to_owned(), path("data")],
    ] {
        // The index has what was asked of the service as well, which is of today.
        let mut args = vec!["backtest", "--findings", "--to", "2026-03-04", "--rules"];
        let rules = path("rules.yml");
        args.push(&rules);
        args.extend(from.iter().map(String::as_str));
        let lines = lines(&args);
        let of = |kind: &'static str| lines.iter().filter(move |l| l["kind"] == kind);
        assert_agree(&found(of("finding")), &expected, &from[0]);
        let total = of("total").next().unwrap();
        assert_eq!(total["findings"], expected.len(), "{from:?}");
        assert_eq!(total["days"], 2);
        let alerts: u64 = of("day").map(|d| d["alerts"].as_u64().unwrap()).sum();
        assert_eq!(total["alerts"], alerts);
        assert!(alerts < expected.len() as u64 / 2, "findings are folded");
        assert_eq!(
            of("filter").next().unwrap()["title"],
            "Scanner of the auditors"
        );
        assert_eq!(of("rule").count(), 2);
    }

    // As the tests of the rules themselves.
    let mut documents: Vec<String> = RULES.split("---\n").map(str::to_owned).collect();
    let once: Vec<&Value> = {
        let mut seen = BTreeSet::new();
        events
            .iter()
            .filter(|e| seen.insert(e["eventID"].to_string()))
            .collect()
    };
    for (number, rule) in [
        (1, correlation),
        (2, "5f3e2987-db24-4c78-a860-b4f4095a7093"),
    ] {
        let count = expected.iter().filter(|(id, _)| id == rule).count();
        let test = json!([{"name": "all", "events": once, "expect": {"count": count}}]);
        documents[number].push_str(&format!("tests: {test}\n"));
    }
    std::fs::write(path("tested.yml"), documents.join("---\n")).unwrap();
    let output = run(&["rule", "test", &path("tested.yml")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert_eq!(text(&output.stdout).lines().count(), 2);
}

#[test]
fn a_backtest_can_fail_a_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("rules.yml"), RULES).unwrap();
    let all: String = events().iter().map(|e| format!("{e}\n")).collect();
    std::fs::write(path("events.jsonl"), &all).unwrap();
    let (events, rules) = (path("events.jsonl"), path("rules.yml"));
    let backtest = |more: &[&str]| run(&[&["backtest", &events, "--rules", &rules], more].concat());
    let table = text(&backtest(&["--format", "table"]).stdout);
    for words in [
        "601 events, 2026-03-02 to 2026-03-03; 3 rules",
        "a day",
        "NOISIEST RULES",
        "NOISIEST GROUPS",
        "eve in 111122223333",
        "Scanner of the auditors",
    ] {
        assert!(table.contains(words), "{words}\n{table}");
    }
    assert_eq!(backtest(&["--max-per-day", "1000"]).status.code(), Some(0));
    assert_eq!(backtest(&["--max-per-day", "1"]).status.code(), Some(1));
    let none = backtest(&["--from", "2027-01-01"]);
    assert_eq!(none.status.code(), Some(0), "{}", text(&none.stderr));
    assert!(text(&none.stdout).contains("\"events\":0"));
    assert_eq!(
        run(&["backtest", "--data", &path("none"), "--rules", &rules])
            .status
            .code(),
        Some(2)
    );
}
