//! The sign of life as the service outside sees it.

use std::time::Instant;

use crate::program::{PATIENCE, Service, receiver};

#[test]
fn a_node_that_is_well_says_so_again_and_again() {
    let (hook, received) = receiver();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(
        &config,
        format!("node: n1\nheartbeat: {{url: 'http://{hook}/verysecret', every_seconds: 1, allow_http: true, allow_networks: [127.0.0.0/8]}}\n"),
    )
    .unwrap();
    let service = Service::start(&config, &folder.path().join("data"));
    let begin = Instant::now();
    while received.lock().unwrap().len() < 2 {
        assert!(begin.elapsed() < PATIENCE, "no heartbeat arrives");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let (_, beat) = received.lock().unwrap()[0].clone();
    assert_eq!(
        (beat["node"].as_str(), beat["ready"].as_bool()),
        (Some("n1"), Some(true)),
        "{beat}"
    );
    assert_eq!(
        beat["roles"],
        serde_json::json!(["ingest", "detect", "index", "alert", "api"])
    );
    assert!(beat["time"].is_string() && beat["version"].is_string());
    let metrics = service.metrics();
    assert!(metrics.contains("trailwarden_heartbeat_sent_total"));
    assert!(!metrics.contains("verysecret"));
    assert_eq!(service.stop(), Some(0));
}
