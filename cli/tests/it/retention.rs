//! Life of what is indexed, with the whole program: tiers by days, holds, removal by hand, and building the index anew.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use crate::program::{PATIENCE, Service, request, run, text};

struct World {
    _dir: tempfile::TempDir,
    config: PathBuf,
    data: PathBuf,
}

impl World {
    fn new(search: &str) -> World {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("c.yaml");
        let data = dir.path().join("data");
        let text = format!(
            "data_dir: '{}'\nsearch: {{publish_after_ms: 200, merge_splits: 3{search}}}\nevidence: {{every_seconds: 1}}\n\
             tiers: [{{sources: [aws.lambda], functions: [chatty], tier: search, search_days: 7}}]\n",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        World {
            _dir: dir,
            config,
            data,
        }
    }

    fn start(&self) -> Service {
        Service::start(&self.config, &self.data)
    }

    fn run(&self, args: &[&str]) -> Output {
        let config = ["--config", self.config.to_str().unwrap()];
        run(&[args, &config].concat())
    }

    /// The lines of JSON that a command writes; its exit code must be `code`.
    #[track_caller]
    fn lines(&self, args: &[&str], code: i32) -> Vec<Value> {
        let output = self.run(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        json_lines(&output)
    }

    #[track_caller]
    fn refused(&self, args: &[&str], words: &str) {
        let output = self.run(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(words), "{args:?}: {error}");
    }

    #[track_caller]
    fn intact(&self) {
        let output = self.run(&["doctor", "--integrity"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    }
}

fn json_lines(output: &Output) -> Vec<Value> {
    let lines = text(&output.stdout);
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// Log lines of a function, as a subscription filter hands them on.
fn push(service: &Service, function: &str, count: u64) {
    let events: Vec<Value> = (0..count)
        .map(|n| {
            json!({
                "id": format!("{function}-{n}"), "timestamp": 1_772_445_600_000_u64 + n * 1_000,
                "message": json!({"n": n}).to_string(),
            })
        })
        .collect();
    let body = json!({
        "messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": format!("/aws/lambda/{function}"),
        "logStream": "2026/03/02/[$LATEST]aa", "subscriptionFilters": ["all"], "logEvents": events,
    });
    let headers = [("content-type", "application/json")];
    let body = body.to_string();
    let answer = request(
        service.address,
        "POST",
        "/api/v1/events",
        &headers,
        body.as_bytes(),
    );
    let (status, answer) = answer.unwrap();
    assert_eq!(status, 200, "{}", text(&answer));
}

fn ids(service: &Service, query: &str) -> BTreeSet<String> {
    let answer = service.get(&format!("/api/v1/search?q={query}&limit=1000"));
    let hits = answer["hits"].as_array().unwrap();
    let ids: BTreeSet<String> = hits
        .iter()
        .map(|h| h["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), hits.len(), "an event is there twice: {answer:#}");
    ids
}

/// Waits until the index has so many events that match.
fn wait(service: &Service, query: &str, count: usize) {
    let begin = std::time::Instant::now();
    while ids(service, query).len() != count {
        assert!(
            begin.elapsed() < PATIENCE,
            "{query}: {}",
            ids(service, query).len()
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

const LAMBDA: &str = "source:aws.lambda";

#[test]
fn what_is_held_stays_and_what_goes_is_recorded() {
    let world = World::new("");
    let service = world.start();
    push(&service, "chatty", 6);
    push(&service, "payments", 4);
    service.settle_stages(10, PATIENCE);
    let hits = service.get("/api/v1/search?q=function:chatty&limit=1");
    assert_eq!(hits["hits"][0]["search_days"], 7, "{hits:#}");

    // A hold of the running service, through its API.
    let url = format!("http://{}", service.address);
    let add = [
        "hold",
        "add",
        "IR-1",
        "--from",
        "2026-01-01",
        "--to",
        "2026-12-31",
        "--account",
        "123456789012",
    ];
    let reason = ["--reason", "a case"];
    let made = world.lines(&[&add[..], &reason, &["--url", &url]].concat(), 0);
    assert_eq!(
        (&made[0]["name"], &made[0]["node"]),
        (&json!("IR-1"), &json!(0))
    );
    world.refused(&[&add[..], &reason].concat(), "the service is running");
    let listed = world.lines(&["hold", "list", "--url", &url], 0);
    assert_eq!(listed[0]["covered"]["events"], 10, "{listed:#?}");
    assert!(
        listed[0]["covered"]["splits"].as_u64() >= Some(2),
        "a split for each class"
    );
    let health = service.get("/api/v1/health");
    assert_eq!(
        health["checks"]["retention"]["detail"],
        "90 days; 1 on hold: IR-1"
    );
    assert!(service.metrics().contains("trailwarden_index_holds 1"));
    world.refused(&["index", "list"], "the service is running");
    wait(&service, "action:AddHold", 1);
    let doctor = text(&world.run(&["doctor"]).stdout);
    assert!(
        doctor.contains("searchable for 90 days; 1 on hold: IR-1"),
        "{doctor}"
    );
    assert_eq!(service.stop(), Some(0));

    // Stopped: the hold is still there, and nothing that it covers is removed.
    let splits = world.lines(&["index", "list"], 0);
    let days: BTreeSet<u64> = splits
        .iter()
        .map(|s| s["search_days"].as_u64().unwrap())
        .collect();
    assert_eq!(days, BTreeSet::from([7, 90]), "{splits:#?}");
    assert!(splits.iter().any(|s| s["hold"] == "IR-1"));
    let remove = [
        "index",
        "remove",
        "--older-than",
        "now",
        "--reason",
        "no room",
    ];
    // What came after the hold was set may have a split of its own, or not.
    let asked = world.run(&remove);
    assert!(
        matches!(asked.status.code(), Some(0 | 1)),
        "{}",
        text(&asked.stderr)
    );
    let asked = json_lines(&asked);
    let of = |lines: &[Value], what: &str| -> u64 {
        let lines = lines.iter().filter(|l| l["what"] == what);
        lines.map(|l| l["events"].as_u64().unwrap()).sum()
    };
    assert!(of(&asked, "on hold") >= 10, "{asked:#?}");
    assert_eq!(world.lines(&["index", "list"], 0), splits, "only asked");
    world.refused(
        &["hold", "release", "IR-1", "--reason", ""],
        "needs a reason",
    );
    world.refused(
        &["hold", "release", "IR-2", "--reason", "x"],
        "no hold `IR-2`",
    );
    world.lines(&["hold", "release", "IR-1", "--reason", "closed"], 0);
    let removed = world.lines(&[&remove[..], &["--yes"]].concat(), 0);
    assert!(of(&removed, "removed") >= 10, "{removed:#?}");
    assert_eq!(world.lines(&["index", "list"], 0), Vec::<Value>::new());
    world.intact();

    let service = world.start();
    wait(
        &service,
        "action:RemoveSplit%20AND%20details.reason:%22no%20room%22",
        removed.len(),
    );
    // Two attempts that were refused, and the one that was not.
    wait(&service, "action:ReleaseHold", 3);
    assert_eq!(ids(&service, LAMBDA).len(), 0);
    assert_eq!(service.stop(), Some(0));
    world.intact();
}

#[test]
fn a_damaged_index_is_built_anew_from_the_log() {
    let world = World::new("");
    let service = world.start();
    push(&service, "chatty", 6);
    push(&service, "payments", 4);
    service.settle_stages(10, PATIENCE);
    let before = ids(&service, LAMBDA);
    assert_eq!(before.len(), 10);
    service.kill();

    let splits = world.data.join("index/splits");
    let first = std::fs::read_dir(&splits).unwrap().next().unwrap().unwrap();
    std::fs::remove_dir_all(first.path()).unwrap();
    let output = run(&[
        "run",
        "--listen",
        "127.0.0.1:0",
        "--config",
        world.config.to_str().unwrap(),
    ]);
    let error = text(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("trailwarden index rebuild"), "{error}");
    let doctor = text(&world.run(&["doctor"]).stdout);
    assert!(doctor.contains("trailwarden index rebuild"), "{doctor}");

    let rebuild = ["index", "rebuild", "--reason", "a folder is gone"];
    let plan = world.lines(&rebuild, 1);
    let damaged = plan
        .iter()
        .filter(|l| l["what"] == "damaged, read again from the log");
    assert_eq!(damaged.count(), 1, "{plan:#?}");
    world.lines(&[&rebuild[..], &["--yes"]].concat(), 0);
    let service = world.start();
    wait(&service, LAMBDA, 10);
    assert_eq!(ids(&service, LAMBDA), before);
    // What comes again is still known.
    push(&service, "payments", 4);
    service.settle_stages(10, PATIENCE);
    assert_eq!(ids(&service, LAMBDA), before);
    assert_eq!(service.stop(), Some(0));
    world.intact();
}

#[test]
fn the_index_stays_within_its_size() {
    let world = World::new(", max_mib: 1");
    let service = world.start();
    // Some 250 KB of what does not compress in each.
    let mut random = 7_u64;
    for batch in 0..10 {
        let mut noise = String::new();
        while noise.len() < 250_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            noise.push_str(&format!("{random:016x} "));
        }
        let lines: Vec<String> = noise
            .as_bytes()
            .chunks(2_500)
            .enumerate()
            .map(|(n, part)| json!({"batch": batch, "n": n, "text": text(part)}).to_string())
            .collect();
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
        std::thread::sleep(std::time::Duration::from_millis(400));
    }
    let begin = std::time::Instant::now();
    while ids(&service, "action:RemoveSplit%20AND%20details.cause:size").is_empty() {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let health = service.get("/api/v1/health");
    let detail = health["checks"]["retention"]["detail"].as_str().unwrap();
    assert!(detail.contains("larger than search.max_mib"), "{detail}");
    assert!(
        service
            .metrics()
            .contains("trailwarden_index_events_removed_total{cause=\"size\"}")
    );
    assert_eq!(service.stop(), Some(0));
    world.intact();
}
