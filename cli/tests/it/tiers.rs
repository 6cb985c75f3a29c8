//! Tiers, from a record to the search: searched, only matched, only kept; also when the program is killed in between.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::program::{PATIENCE, Service, request, run, text};

const RULES: &str = "\
title: Intruder
id: 6f3e2987-db24-4c78-a860-b4f4095a7095
logsource: {product: aws, service: lambda}
detection: {sel: {marker: intruder}, condition: sel}
level: high
---
title: Knock
name: knock
logsource: {product: aws, service: lambda}
detection: {sel: {marker: knock}, condition: sel}
level: informational
---
title: Many knocks
id: df0841c0-9846-4e9f-ad8a-7df91571771b
correlation: {type: event_count, rules: [knock], group-by: [function], timespan: 10m, condition: {gte: 3}}
level: high
";

const TIERS: &str = "\
tiers:
  - {sources: [aws.lambda], functions: [pay*], tier: search}
  - {log_groups: ['/aws/lambda/debug-*'], tier: archive}
  - {sources: [aws.lambda], tier: rules}
";

/// What a subscription filter hands on of one function: an intruder, three knocks and some chatter.
fn payload(function: &str, batch: u64) -> Value {
    let begin = 1_772_445_600_000 + batch * 3_600_000;
    let markers = ["chatter", "intruder", "knock", "knock", "knock", "chatter"];
    let events: Vec<Value> = markers
        .iter()
        .enumerate()
        .map(|(n, marker)| {
            json!({
                "id": format!("{function}-{batch}-{n}"), "timestamp": begin + n as u64 * 1_000,
                "message": json!({"marker": marker, "n": n}).to_string(),
            })
        })
        .collect();
    json!({
        "messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": format!("/aws/lambda/{function}"),
        "logStream": "2026/03/02/[$LATEST]aa", "subscriptionFilters": ["all"], "logEvents": events,
    })
}

fn push(service: &Service, batch: u64) {
    for function in ["payments", "debug-1", "shop"] {
        let body = payload(function, batch).to_string();
        let headers = [("content-type", "application/json")];
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
}

fn ids(service: &Service, query: &str) -> BTreeSet<String> {
    let answer = service.get(&format!("/api/v1/search?q={query}&limit=1000"));
    let hits = answer["hits"].as_array().unwrap();
    let ids: BTreeSet<String> = hits
        .iter()
        .map(|h| h["source_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), hits.len(), "an event is there twice: {answer:#}");
    ids
}

#[test]
fn each_tier_gives_what_it_promises() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("r.yml");
    std::fs::write(&rules, RULES).unwrap();
    let config = folder.path().join("c.yaml");
    let settings = format!(
        "rules: {{paths: ['{}']}}\nsearch: {{publish_after_ms: 300}}\n{TIERS}",
        rules.display()
    );
    std::fs::write(&config, settings).unwrap();
    let data = folder.path().join("data");
    // Killed wherever it is: what was accepted is there, each once.
    for batch in 0..3 {
        let service = Service::start(&config, &data);
        push(&service, batch);
        std::thread::sleep(std::time::Duration::from_millis(150 * batch));
        service.kill();
    }
    let service = Service::start(&config, &data);
    push(&service, 0);
    push(&service, 3);
    let batches = 4;
    let searched = batches * 6 + batches * 4;
    service.settle_stages(searched, PATIENCE);

    assert_eq!(ids(&service, "function:payments").len() as u64, batches * 6);
    assert_eq!(ids(&service, "function:debug-1").len(), 0);
    // Of what is only matched there is what rules matched, and nothing else.
    let shop = ids(&service, "function:shop");
    let expected: BTreeSet<String> = (0..batches)
        .flat_map(|batch| (1..5).map(move |n| format!("shop-{batch}-{n}")))
        .collect();
    assert_eq!(shop, expected);
    assert_eq!(ids(&service, "flags:evidence"), expected);

    // Alerts and their evidence.
    let alerts = service.get("/api/v1/alerts?limit=500");
    let alerts = alerts["alerts"].as_array().unwrap();
    let mut episodes = 0;
    for alert in alerts {
        let alert = service.get(&format!("/api/v1/alerts/{}", alert["id"].as_str().unwrap()));
        let finding = &alert["alert"]["finding"];
        assert_ne!(finding["function"], "debug-1", "{alert:#}");
        for id in finding["evidence"].as_array().unwrap() {
            let path = format!("/api/v1/events/{}", id.as_str().unwrap());
            let event = service.get(&path);
            assert_eq!(event["function"], finding["function"], "{event:#}");
        }
        let many = finding["title"] == "Many knocks";
        if many && finding["function"] == "shop" {
            assert_eq!(finding["evidence"].as_array().unwrap().len(), 3);
            episodes += 1;
        }
    }
    assert_eq!(episodes, batches, "{alerts:#?}");

    // Every drop is counted: of the last batch and the one that came again, since this process has begun.
    let metrics = service.metrics();
    let counted = |line: &str| -> u64 {
        let line = metrics
            .lines()
            .find(|l| l.starts_with(line))
            .unwrap_or(line);
        line.rsplit(' ').next().unwrap().parse().unwrap_or(0)
    };
    assert!(counted("trailwarden_index_events_dropped_total{reason=\"tier\"}") >= 2 * 12);
    assert!(counted("trailwarden_match_events_dropped_total{reason=\"tier\"}") >= 2 * 6);
    assert!(counted("trailwarden_match_evidence_sent_total") >= 4);
    for (tier, events) in [("search", 12), ("rules", 12), ("archive", 12)] {
        let name = format!("trailwarden_ingest_tier_events_total{{tier=\"{tier}\"}}");
        assert_eq!(counted(&name), events, "{tier}");
    }
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn the_example_of_the_page_works() {
    let page = include_str!("../../../docs/collecting.md");
    let (_, section) = page.split_once("\n## Tiers").unwrap();
    let example = section.split("```yaml\n").nth(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(&config, example.split("```").next().unwrap()).unwrap();
    let output = run(&["config", "check", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn nonsense_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    for (tiers, words) in [
        (
            "[{sources: [aws.lamda], tier: rules}]",
            "tiers[0].sources: `aws.lamda` is none of aws.cloudtrail",
        ),
        (
            "[{accounts: ['12345678901'], tier: rules}]",
            "tiers[0].accounts: `12345678901`: an account has 12 digits",
        ),
        (
            "[{tier: archive, search_days: 7}]",
            "tiers[0].search_days: events of the tier `archive` are not searched",
        ),
        (
            "[{tier: rules}, {functions: [a], tier: search}]",
            "tiers[1]: nothing comes so far",
        ),
        ("[{functions: [a]}]", "tier"),
        ("[{tier: cold}]", "cold"),
        ("[{tier: rules, fuctions: [a]}]", "fuctions"),
    ] {
        std::fs::write(&config, format!("tiers: {tiers}\n")).unwrap();
        for command in [&["config", "check"][..], &["run", "--config"]] {
            let output = run(&[command, &[config.to_str().unwrap()]].concat());
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{tiers}\n{error}");
            assert!(error.contains(words), "{tiers}\n{error}");
        }
    }
}
