//! Holds what lies in `deploy/` and `docs/` to the program: metrics that exist, configurations that start, compose files
//! whose parts fit together, alarms that are explained.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use prometheus::{IntCounter, Registry};
use serde_json::Value;

use crate::config;
use crate::role::{Role, Roles};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every metric that a node with all roles on Kafka has.
fn registry() -> Registry {
    let registry = Registry::new();
    bus::metrics::Metrics::new(&registry)
        .unwrap()
        .with_kafka(&registry)
        .unwrap();
    ingest::metrics::Metrics::new(&registry).unwrap();
    detect::match_stage::Metrics::new(&registry).unwrap();
    detect::correlate::Metrics::new(&registry).unwrap();
    detect::baseline_stage::Metrics::new(&registry).unwrap();
    search::Metrics::new(&registry).unwrap();
    alerting::Metrics::new(&registry).unwrap();
    console::Metrics::new(&registry).unwrap();
    crate::heartbeat::Metrics::new(&registry).unwrap();
    crate::evidence::Metrics::new(&registry).unwrap();
    crate::live_rules::Metrics::new(&registry).unwrap();
    crate::inventory::live::Metrics::new(&registry).unwrap();
    registry
}

/// Is there such a metric? A name that is taken cannot be taken again; the registry has no other word for it.
fn exists(registry: &Registry, name: &str) -> bool {
    let is_free = |name: &str| {
        let probe = IntCounter::new(name, "probe").unwrap();
        let free = registry.register(Box::new(probe.clone())).is_ok();
        if free {
            registry.unregister(Box::new(probe)).unwrap();
        }
        free
    };
    let of_histogram = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| name.strip_suffix(end));
    !is_free(name) || of_histogram.is_some_and(|name| !is_free(name))
}

/// Every name of a metric of ours in a text; those that end with a star or an underscore stand for many.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let begins = text.match_indices("trailwarden_").map(|(at, _)| at);
    begins
        .map(|at| {
            let rest = &text[at..];
            let end = rest
                .find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
                .unwrap_or(rest.len());
            &rest[..end]
        })
        .filter(|name| !name.ends_with('_'))
        .collect()
}

#[test]
fn every_metric_that_is_named_exists() {
    let registry = registry();
    assert!(exists(&registry, "trailwarden_bus_write_seconds_bucket"));
    assert!(!exists(&registry, "trailwarden_bus_lag_second"));
    // Groups of rules and schemas are called alike.
    let others = [
        "trailwarden_process",
        "trailwarden_pipeline",
        "trailwarden_log",
        "trailwarden_kafka",
        "trailwarden_alerting",
        "trailwarden_search",
    ];
    for path in [
        "deploy/prometheus/rules.yml",
        "deploy/prometheus/rules.test.yml",
        "deploy/grafana/pipeline.json",
        "docs/metrics.md",
        "docs/operating.md",
        "deploy/README.md",
    ] {
        let text = read(path);
        let wrong: Vec<_> = metrics_in(&text)
            .into_iter()
            .filter(|name| !others.contains(name) && !exists(&registry, name))
            .collect();
        assert!(wrong.is_empty(), "{path} names {wrong:?}");
    }
}

#[test]
fn every_metric_of_kafka_is_documented() {
    let documented = read("docs/metrics.md");
    let source = read("bus/src/metrics.rs");
    for name in metrics_in(&source) {
        // Their own test names a histogram's count.
        let name = name.strip_suffix("_count").unwrap_or(name);
        assert!(documented.contains(&format!("`{name}`")), "{name}");
    }
}

/// What a node says when it stops at a guard rail can be found in the handbook.
#[test]
fn every_guard_rail_is_explained() {
    let source = read("bus/src/kafka/guard.rs") + &read("bus/src/kafka/shard.rs");
    let handbook = read("docs/operating.md");
    for words in [
        ", but it ends at ",
        ", but it begins at ",
        "is another one than ",
        "retention dropped ",
        "is another one than was read before",
        "state is gone from the changelog",
        "there is no snapshot before it",
        "its snapshot is not whole",
    ] {
        assert!(source.contains(words), "nobody says `{words}` any more");
        assert!(handbook.contains(words), "`{words}` is not explained");
    }
}

/// Each alarm has a section in the handbook, and each section that is called like one has its alarm.
#[test]
fn every_alarm_is_explained() {
    let rules = yaml("deploy/prometheus/rules.yml");
    let mut alarms = BTreeSet::new();
    for rule in rules["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|g| g["rules"].as_array().unwrap())
    {
        let Some(name) = rule["alert"].as_str() else {
            continue;
        };
        alarms.insert(name.to_owned());
        for key in ["summary", "description"] {
            assert!(rule["annotations"][key].is_string(), "{name}: {key}");
        }
        assert!(rule["for"].is_string(), "{name}: for");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(
            ["critical", "warning", "none"].contains(&severity),
            "{name}"
        );
        let link = rule["annotations"]["runbook_url"].as_str().unwrap();
        let end = format!("docs/operating.md#{}", name.to_lowercase());
        assert!(link.ends_with(&end), "{name}: {link}");
    }
    let handbook = read("docs/operating.md");
    let explained: BTreeSet<String> = handbook
        .lines()
        .filter_map(|l| l.strip_prefix("### "))
        .filter(|l| l.starts_with("Trailwarden") && !l.contains(' '))
        .map(str::to_owned)
        .collect();
    assert_eq!(alarms, explained);
}

/// A configuration of `deploy/` with its secrets in another place.
fn check_configuration(path: &str, secrets: &Path, node: &str) -> config::Config {
    let text = read(path).replace("/run/secrets", secrets.to_str().unwrap());
    let config = config::parse(&text, &|name| {
        (name == "SEARCH_NODE").then(|| node.to_owned())
    })
    .unwrap_or_else(|e| panic!("{path}: {e}"));
    config::check(&config, Some(Path::new(path)), true).unwrap_or_else(|e| panic!("{path}: {e:#}"));
    config
}

#[test]
fn every_configuration_starts() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let secrets = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(secrets.path().join(name), text).unwrap();
    write("postgres_password", "p\n");
    write("admin_hash", &console::hash_password("p"));
    let sha = "0123456789abcdef".repeat(4);
    write("metrics_sha256", &sha);
    write("ingest_sha256", &sha);
    write("node_sha256", &sha);
    write("node_token", "t\n");
    check_configuration("deploy/trailwarden.yaml", secrets.path(), "0");
    for node in ["0", "1"] {
        let config = check_configuration("deploy/cluster/trailwarden.yaml", secrets.path(), node);
        for role in [Role::Api, Role::Index] {
            crate::peers::check(&config, &Roles::from([role])).unwrap();
        }
        assert_eq!(config.search.unasked(false), Vec::<u32>::new());
    }
}

/// The parts of a compose file fit together: whatever a service names exists.
fn check_compose(path: &str) {
    let file = yaml(path);
    let keys = |name: &str| -> BTreeSet<String> {
        file[name]
            .as_object()
            .map(|m| m.keys().cloned().collect())
            .unwrap_or_default()
    };
    let strings = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .map(|list| {
                list.iter()
                    .map(|v| v.as_str().unwrap().to_owned())
                    .collect()
            })
            .unwrap_or_default()
    };
    let (services, volumes, networks, secrets) = (
        keys("services"),
        keys("volumes"),
        keys("networks"),
        keys("secrets"),
    );
    let folder = root().join(path).parent().unwrap().to_owned();
    let mut used = BTreeSet::new();
    for (name, service) in file["services"].as_object().unwrap() {
        let at = format!("{path}: {name}");
        assert!(service["image"].is_string(), "{at}: image");
        let limits = &service["deploy"]["resources"]["limits"];
        assert!(
            limits["memory"].is_string() && limits["cpus"].is_string(),
            "{at}: limits"
        );
        assert!(service["restart"].is_string(), "{at}: restart");
        if let Some(build) = service["build"].as_object() {
            let context = folder.join(build["context"].as_str().unwrap());
            let dockerfile = context.join(build["dockerfile"].as_str().unwrap());
            assert!(dockerfile.is_file(), "{at}: {}", dockerfile.display());
        }
        for volume in strings(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(folder.join(source).exists(), "{at}: {source}");
            } else {
                assert!(volumes.contains(source), "{at}: {source}");
                used.insert(source.to_owned());
            }
        }
        for network in strings(&service["networks"]) {
            assert!(networks.contains(&network), "{at}: {network}");
        }
        for secret in strings(&service["secrets"]) {
            assert!(secrets.contains(&secret), "{at}: {secret}");
            used.insert(secret);
        }
        let needs = match &service["depends_on"] {
            Value::Array(_) => strings(&service["depends_on"]),
            other => other
                .as_object()
                .map(|m| m.keys().cloned().collect())
                .unwrap_or_default(),
        };
        for need in needs {
            assert!(services.contains(&need), "{at}: {need}");
        }
        for port in strings(&service["ports"]) {
            assert!(
                port.starts_with("127.0.0.1:"),
                "{at}: {port} can be reached from elsewhere"
            );
        }
        let command = strings(&service["command"]);
        if let Some(role) = command.iter().position(|c| c == "--role") {
            let role = &command[role + 1];
            assert!(name.starts_with(role.as_str()), "{at}: role {role}");
        }
        if service["image"]
            .as_str()
            .unwrap()
            .contains("TRAILWARDEN_IMAGE")
        {
            use clap::Parser;
            let words = std::iter::once("trailwarden").chain(command.iter().map(String::as_str));
            crate::Args::try_parse_from(words).unwrap_or_else(|e| panic!("{at}: {e}"));
        }
    }
    let defined: BTreeSet<String> = volumes.union(&secrets).cloned().collect();
    assert_eq!(defined, used, "{path}: volumes and secrets that nobody has");
}

#[test]
fn the_parts_of_compose_files_fit_together() {
    check_compose("deploy/compose.yaml");
    check_compose("deploy/compose.cluster.yaml");
}

#[test]
fn every_role_runs_in_the_cluster() {
    let file = yaml("deploy/compose.cluster.yaml");
    let services = file["services"].as_object().unwrap();
    for role in ["ingest", "detect", "index-0", "index-1", "alert", "api"] {
        let command = &services[role]["command"];
        assert!(
            command
                .as_array()
                .unwrap()
                .iter()
                .any(|c| c.as_str() == role.split('-').next()),
            "{role}"
        );
    }
    let scraped = read("deploy/cluster/prometheus.yml");
    let names = yaml("deploy/cluster/prometheus.yml");
    let names = &names["scrape_configs"][0]["dns_sd_configs"][0]["names"];
    for name in names.as_array().unwrap() {
        assert!(services.contains_key(name.as_str().unwrap()), "{scraped}");
    }
}
