//! Alarms and dashboard as Prometheus itself reads them.
//!
//! They run when `TRAILWARDEN_PROMTOOL_TESTS` is set, as `./test` does, and need promtool.

use std::path::Path;
use std::process::Command;

use crate::program::text;

fn promtool(folder: &Path, args: &[&str]) -> bool {
    if std::env::var_os("TRAILWARDEN_PROMTOOL_TESTS").is_none() {
        eprintln!("skipped: TRAILWARDEN_PROMTOOL_TESTS is not set");
        return false;
    }
    let output = Command::new("promtool")
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "promtool {args:?}\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    true
}

#[test]
fn prometheus_takes_the_alarms_and_they_fire_when_they_should() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let prometheus = deploy.join("prometheus");
    promtool(&prometheus, &["check", "config", "prometheus.yml"]);
    promtool(&prometheus, &["test", "rules", "rules.test.yml"]);
    promtool(
        &deploy.join("cluster"),
        &["check", "config", "--syntax-only", "prometheus.yml"],
    );
}

/// Every expression of the dashboard, as Grafana would ask it.
#[test]
fn prometheus_can_read_every_panel() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/pipeline.json");
    let dashboard: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut rules, mut ids, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        ids.push(panel["id"].as_u64().unwrap());
        let place = &panel["gridPos"];
        ends.push(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap());
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap();
            let expr = expr
                .replace("$__rate_interval", "5m")
                .replace("$instance", ".*");
            assert!(!expr.contains('$'), "{expr}");
            rules.push(
                serde_json::json!({"record": format!("panel:{}", rules.len()), "expr": expr}),
            );
        }
    }
    assert!(rules.len() > 40, "{}", rules.len());
    assert!(ends.iter().all(|end| *end <= 24), "{ends:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), ends.len(), "panels share an id");
    let folder = tempfile::tempdir().unwrap();
    let file = serde_json::json!({"groups": [{"name": "panels", "rules": rules}]});
    std::fs::write(folder.path().join("panels.yml"), file.to_string()).unwrap();
    promtool(folder.path(), &["check", "rules", "panels.yml"]);
}
