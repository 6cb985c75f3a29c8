//! Evidence: the store is checked while the service runs, dies and stops, and bundles are verified without it.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::program::{PATIENCE, Service, request, run, text};

struct World {
    dir: tempfile::TempDir,
    config: PathBuf,
    data: PathBuf,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("c.yaml");
        let data = dir.path().join("data");
        // The commands read the same configuration as the service.
        let text = format!(
            "data_dir: '{}'\nsearch: {{publish_after_ms: 200, merge_splits: 3}}\nevidence: {{every_seconds: 1}}\nbus: {{chunk: {{bytes: 20000}}}}\n",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        World { dir, config, data }
    }

    fn start(&self) -> Service {
        Service::start(&self.config, &self.data)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn run(&self, args: &[&str]) -> Output {
        let config = ["--config", self.config.to_str().unwrap()];
        run(&[args, &config].concat())
    }

    /// Is the store as the service has written it?
    fn integrity(&self, more: &[&str]) -> (bool, Value) {
        let output = self.run(&[&["doctor", "--integrity"], more].concat());
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["intact"], code == Some(0), "{report:#}");
        (code == Some(0), report)
    }

    #[track_caller]
    fn intact(&self) {
        let (intact, report) = self.integrity(&[]);
        assert!(intact, "{report:#}");
    }

    fn print(&self, what: &str) -> String {
        let output = self.run(&["evidence", what]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }
}

fn verify(bundle: &str, key: &str) -> (Option<i32>, Value) {
    let output = run(&["evidence", "verify", bundle, "--key", key.trim()]);
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_default())
}

fn push(service: &Service, numbers: std::ops::Range<u32>) {
    let records = numbers.map(|n| {
        json!({
            "eventVersion": "1.08", "eventTime": "2026-03-02T10:00:00Z", "eventSource": "s3.amazonaws.com", "eventName": "GetObject",
            "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/eve", "userName": "eve"},
            "sourceIPAddress": "198.18.0.9", "eventID": format!("e-{n}"), "recipientAccountId": "123456789012",
            "requestParameters": {"key": format!("{n}-{}", u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15))},
        })
        .to_string()
    });
    let body = records.collect::<Vec<_>>().join("\n");
    let head = [("content-type", "application/x-ndjson")];
    let answer = request(
        service.address,
        "POST",
        "/api/v1/events",
        &head,
        body.as_bytes(),
    );
    assert_eq!(answer.unwrap().0, 200);
}

/// Waits until so many exports are in the audit trail.
fn exports(service: &Service, which: &str, expected: u64) {
    let path = format!("/api/v1/search?q=action:ExportEvidence{which}&count=true");
    let begin = std::time::Instant::now();
    while service.get(&path)["total"] != expected {
        assert!(begin.elapsed() < PATIENCE, "{:#}", service.get(&path));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn largest(dir: &Path) -> PathBuf {
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.path().is_dir() {
                true => folders.push(entry.path()),
                false => files.push((entry.metadata().unwrap().len(), entry.path())),
            }
        }
    }
    files.into_iter().max().unwrap().1
}

#[test]
fn the_store_is_proven_and_so_is_a_bundle() {
    let world = World::new();
    let service = world.start();
    push(&service, 0..40);
    service.settle_stages(40, PATIENCE);
    world.intact();
    let kept = world.path("kept.txt");
    std::fs::write(&kept, world.print("checkpoint")).unwrap();
    let key = world.print("key");

    // A bundle from the running service, and the record of it.
    let order = json!({"query": "source:aws.*", "case": "case 7"}).to_string();
    let head = [("content-type", "application/json")];
    let answer = request(
        service.address,
        "POST",
        "/api/v1/evidence",
        &head,
        order.as_bytes(),
    );
    let (status, bytes) = answer.unwrap();
    assert_eq!(status, 200, "{}", text(&bytes));
    let bundle = world.path("online.zip");
    std::fs::write(&bundle, &bytes).unwrap();
    let (code, report) = verify(&bundle, &key);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["about"]["events"], 40);
    assert!(
        report["proven"]
            .to_string()
            .contains("40 of 40 events were in the index"),
        "{report:#}"
    );
    let url = format!("http://{}", service.address);
    let asked = world.path("asked.zip");
    let output = run(&[
        "evidence",
        "export",
        "eventName:GetObject",
        "--url",
        &url,
        "--output",
        &asked,
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(verify(&asked, &key).0, Some(0));
    let nothing = run(&[
        "evidence",
        "export",
        "nowhere",
        "--url",
        &url,
        "--output",
        &world.path("no.zip"),
    ]);
    assert!(text(&nothing.stderr).contains("the query finds no events"));
    let locked = world.run(&["evidence", "export", "", "--output", &world.path("no.zip")]);
    assert!(
        text(&locked.stderr).contains("ask the service with --url"),
        "{}",
        text(&locked.stderr)
    );
    exports(&service, "", 3);
    let metrics = service.metrics();
    assert!(
        metrics.contains("trailwarden_evidence_checkpoint_leaves"),
        "{metrics}"
    );

    // It dies again and again, with events that are in no checkpoint yet.
    let mut service = service;
    for round in 1..4 {
        push(&service, round * 40..round * 40 + 40);
        service.kill();
        world.intact();
        service = world.start();
        world.intact();
        service.settle_stages(u64::from(round) * 40 + 40, PATIENCE);
    }
    assert_eq!(service.stop(), Some(0));
    world.intact();
    assert!(
        world
            .integrity(&["--checkpoint", &kept, "--key", key.trim()])
            .0
    );

    // A bundle from the folder, which is an event too.
    let offline = world.path("offline.zip");
    let output = world.run(&["evidence", "export", "source:aws.*", "--output", &offline]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (code, report) = verify(&offline, &key);
    assert_eq!(
        (code, &report["about"]["events"]),
        (Some(0), &json!(160)),
        "{report:#}"
    );
    world.intact();
    let service = world.start();
    world.intact();
    service.settle_stages(160, PATIENCE);
    exports(&service, "%20AND%20actor_type:shell", 1);
    assert_eq!(service.stop(), Some(0));
    world.intact();

    let mut broken = bytes;
    let middle = broken.len() / 2;
    broken[middle] ^= 1;
    std::fs::write(&bundle, broken).unwrap();
    assert_eq!(verify(&bundle, &key).0, Some(1));
}

#[test]
fn what_is_done_to_the_store_is_named() {
    let world = World::new();
    let service = world.start();
    push(&service, 0..200);
    service.settle_stages(200, PATIENCE);
    assert_eq!(service.stop(), Some(0));
    let kept = world.path("kept.txt");
    let older = world.path("older");
    let copy = |from: &str, to: &str| {
        let status = std::process::Command::new("cp")
            .args(["-a", from, to])
            .status();
        assert!(status.unwrap().success());
    };
    copy(world.data.to_str().unwrap(), &older);
    let service = world.start();
    push(&service, 200..210);
    service.settle_stages(210, PATIENCE);
    assert_eq!(service.stop(), Some(0));
    std::fs::write(&kept, world.print("checkpoint")).unwrap();
    world.intact();

    let check = |path: PathBuf, what: &str, change: &dyn Fn(&Path)| {
        let before = std::fs::read(&path).unwrap();
        change(&path);
        let (intact, report) = world.integrity(&[]);
        assert!(!intact);
        let place = path
            .strip_prefix(&world.data)
            .unwrap()
            .display()
            .to_string();
        let problems = report["problems"].as_array().unwrap();
        assert!(
            problems
                .iter()
                .any(|p| p["what"] == what && p["place"] == place.as_str()),
            "{what} {place}: {report:#}"
        );
        std::fs::write(&path, before).unwrap();
        world.intact();
    };
    let flip = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(path, bytes).unwrap();
    };
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    for folder in ["log/events", "index/splits"] {
        check(largest(&world.data.join(folder)), "changed", &flip);
        check(largest(&world.data.join(folder)), "removed", &remove);
    }

    // All of it as it was before fits together; the checkpoint that was kept does not.
    std::fs::remove_dir_all(&world.data).unwrap();
    copy(&older, world.data.to_str().unwrap());
    world.intact();
    let (intact, report) = world.integrity(&["--checkpoint", &kept]);
    assert!(!intact);
    assert!(
        report.to_string().contains("an older state was put back"),
        "{report:#}"
    );

    // Without its log nothing can be said, and the service does not begin another one behind our back.
    for file in ["evidence.db", "evidence.db-wal", "evidence.db-shm"] {
        let _ = std::fs::remove_file(world.data.join(file));
    }
    let output = world.run(&["doctor", "--integrity"]);
    assert!(text(&output.stderr).contains("the evidence log is gone, though its key is there"));
    let output = world.run(&["run", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("to begin a new evidence log"),
        "{}",
        text(&output.stderr)
    );
}
