//! Brokers, a database and nodes, started and ended by a test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bus::{Bus, Topic};
use serde_json::Value;

use super::outcome::Outcome;
use super::steady::Steady;
use crate::program::{self, PATIENCE, Received, Service, free_address, request, text};

/// A cluster of one test.
pub(super) struct Cluster {
    pub(super) folder: tempfile::TempDir,
    pub(super) brokers: String,
    kafka: PathBuf,
    group_wait: u64,
    extra: String,
    webhook: SocketAddr,
    pub(super) received: Received,
    pub(super) nodes: BTreeMap<String, Node>,
    intake: Intake,
    /// Does every node have a small disk of its own?
    small_disks: bool,
    /// Where the index nodes listen, also after they were started again: others know them by that.
    index: [SocketAddr; 2],
}

/// The nodes that take events in at the moment.
pub(super) type Intake = Arc<Mutex<Vec<SocketAddr>>>;

/// One process of the program.
pub(super) struct Node {
    role: String,
    /// `None` while it does not run.
    pub(super) service: Option<Service>,
}

/// Rules beside the shipped ones: a correlation whose parts are spread over all partitions.
const RULES: &str = "title: any call\nname: any_call\nid: 51111111-1111-4111-8111-111111111111\nlogsource: {product: aws, service: cloudtrail}\ndetection: {sel: {errorCode|exists: true}, condition: sel}\nlevel: low\n---\ntitle: many refused calls of one principal\nid: 52222222-2222-4222-8222-222222222222\ncorrelation:\n  type: event_count\n  rules: [any_call]\n  group-by: [userIdentity.arn]\n  timespan: 20m\n  condition: {gte: 4}\nlevel: medium\n";

/// Writes the configuration of a node; `cluster` are the lines that only a node of a cluster has.
pub(super) fn config(
    folder: &Path,
    name: &str,
    webhook: SocketAddr,
    group_wait: u64,
    cluster: &str,
    index: &[SocketAddr],
) -> PathBuf {
    let rules = folder.join("rules.yml");
    std::fs::write(&rules, RULES).unwrap();
    let path = folder.join(format!("{name}.yaml"));
    // Every node, also the one that is alone, must make the same of a record with a secret in it.
    let key = folder.join("redaction.key");
    std::fs::write(&key, "a key that all nodes of a test share").unwrap();
    let postgres = match cluster {
        "" => String::new(),
        _ => format!(
            "  postgres: {{url: '{}', schema: {}}}\n",
            postgres().unwrap(),
            schema(folder)
        ),
    };
    let number = name.strip_prefix("index-").unwrap_or("0");
    let (nodes, node) = if cluster.is_empty() {
        ("1", "0")
    } else {
        ("2", number)
    };
    let peers: Vec<String> = index
        .iter()
        .enumerate()
        .map(|(node, address)| format!("{{node: {node}, url: 'http://{address}'}}"))
        .collect();
    let yaml = format!(
        "node: {name}\nallow_inline_secrets: true\nlog: {{level: '{}'}}\nrules: {{paths: [builtin, '{}']}}\ningest: {{redaction: {{key_file: '{}'}}}}\ndetect: {{baseline_grace_seconds: 3600}}\nsearch: {{publish_after_ms: 500, nodes: {nodes}, node: {node}, peers: [{}]}}\nalerting:\n  group_wait_seconds: {group_wait}\n{postgres}  receivers:\n    - name: hook\n      webhook: {{url: 'http://{webhook}/', allow_http: true, allow_networks: [127.0.0.0/8], secret: test}}\n  route: {{receiver: hook, repeat_interval_seconds: 0}}\n{cluster}",
        std::env::var("TRAILWARDEN_LOG").unwrap_or_else(|_| "info".into()),
        rules.display(),
        key.display(),
        peers.join(", "),
    );
    std::fs::write(&path, yaml).unwrap();
    path
}

/// Are brokers and a database to be had?
pub(super) fn are_wanted() -> bool {
    let wanted = std::env::var_os("TRAILWARDEN_KAFKA_TESTS").is_some() && postgres().is_some();
    if !wanted {
        eprintln!("skipped: TRAILWARDEN_KAFKA_TESTS and TRAILWARDEN_POSTGRES_URL are not set");
    }
    wanted
}

fn postgres() -> Option<String> {
    std::env::var("TRAILWARDEN_POSTGRES_URL").ok()
}

/// A schema of this folder's own.
fn schema(folder: &Path) -> String {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    format!("t{}", letters.collect::<String>().to_lowercase())
}

/// Sends a body to the intake of a node.
pub(super) fn push(address: SocketAddr, body: &str) -> bool {
    matches!(
        request(
            address,
            "POST",
            "/api/v1/events",
            &[("content-type", "application/json")],
            body.as_bytes()
        ),
        Some((200, _))
    )
}

pub(super) fn get(address: SocketAddr, path: &str) -> Option<Value> {
    let (status, body) = request(address, "GET", path, &[], b"")?;
    (status == 200).then(|| serde_json::from_slice(&body).unwrap())
}

impl Cluster {
    /// Brokers, a database, topics; no nodes yet. `None` where such tests are not wanted.
    pub(super) fn start(brokers: u32, group_wait: u64) -> Option<Cluster> {
        Cluster::start_with(brokers, group_wait, "")
    }

    /// The same with more lines under `bus.kafka`.
    pub(super) fn start_with(brokers: u32, group_wait: u64, kafka_lines: &str) -> Option<Cluster> {
        if !are_wanted() {
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::tempdir().unwrap();
        let kafka = folder.path().join("brokers");
        let (webhook, received) = program::receiver();
        let mut cluster = Cluster {
            brokers: String::new(),
            kafka,
            group_wait,
            extra: String::new(),
            webhook,
            received,
            nodes: BTreeMap::new(),
            intake: Intake::default(),
            small_disks: false,
            index: [(); 2].map(|()| free_address()),
            folder,
        };
        cluster.brokers = cluster.script("start", &["--brokers", &brokers.to_string()]);
        let list: Vec<String> = cluster
            .brokers
            .split(',')
            .map(|b| format!("'{b}'"))
            .collect();
        cluster.extra = format!(
            "bus:\n  partitions: {{events: 12, matches: 12, meters: 1, findings: 12, dead_letters: 1}}\n  kafka:\n    brokers: [{}]\n    prefix: c{}.\n    replication: {brokers}\n    session_timeout_seconds: 6\n    patience_seconds: 10\n{kafka_lines}",
            list.join(", "),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        cluster.make_topics();
        Some(cluster)
    }

    fn make_topics(&self) {
        let config = self.config("topics");
        let made = program::run(&["topics", "apply", "--config", config.to_str().unwrap()]);
        assert!(
            made.status.success(),
            "{}{}",
            text(&made.stdout),
            text(&made.stderr)
        );
    }

    /// Runs the script of the brokers.
    pub(super) fn script(&self, command: &str, args: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/test/kafka");
        let output = Command::new(script)
            .arg(command)
            .arg(&self.kafka)
            .args(args)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{command} {args:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout).trim().to_owned()
    }

    fn config(&self, name: &str) -> PathBuf {
        config(
            self.folder.path(),
            name,
            self.webhook,
            self.group_wait,
            &self.extra,
            &self.index,
        )
    }

    /// Starts a node, or starts it again over what it has.
    pub(super) fn run(&mut self, name: &str, role: &str) {
        let config = self.config(name);
        let data = self.data(name);
        let listen = match name.strip_prefix("index-") {
            Some(number) => self.index[number.parse::<usize>().unwrap()].to_string(),
            None => "127.0.0.1:0".to_owned(),
        };
        let args = ["--role", role, "--listen", &listen];
        let service = Service::start_as(name, &config, &data, &args);
        self.nodes.insert(
            name.to_owned(),
            Node {
                role: role.to_owned(),
                service: Some(service),
            },
        );
        self.tell_intake();
    }

    /// Starts a node again that was killed or stopped.
    pub(super) fn run_again(&mut self, name: &str) {
        let role = self.nodes[name].role.clone();
        self.run(name, &role);
    }

    /// kill -9.
    pub(super) fn kill(&mut self, name: &str) {
        self.nodes
            .get_mut(name)
            .unwrap()
            .service
            .take()
            .unwrap()
            .kill();
        self.tell_intake();
    }

    /// Stops a node in order.
    pub(super) fn stop(&mut self, name: &str) {
        let service = self.nodes.get_mut(name).unwrap().service.take().unwrap();
        self.tell_intake();
        assert_eq!(service.stop(), Some(0), "{name}");
    }

    /// Sends a signal to a node.
    pub(super) fn signal(&self, name: &str, signal: &str) {
        self.nodes[name].service.as_ref().unwrap().signal(signal);
    }

    /// The addresses of the nodes of a role that run.
    pub(super) fn with_role(&self, role: &str) -> Vec<SocketAddr> {
        self.nodes
            .values()
            .filter(|n| n.role == role)
            .filter_map(|n| n.service.as_ref())
            .map(|s| s.address)
            .collect()
    }

    /// Sends a body to the intake, to another node when one does not take it, until one does.
    pub(super) fn push(&self, body: &str) {
        push_to(&self.intake, body);
    }

    /// Sends bodies at a pace on a thread, whatever happens to the nodes.
    pub(super) fn push_all(&self, bodies: Vec<String>, pace: Duration) -> Pusher {
        let intake = Arc::clone(&self.intake);
        Pusher(std::thread::spawn(move || {
            for body in bodies {
                push_to(&intake, &body);
                std::thread::sleep(pace);
            }
        }))
    }

    fn tell_intake(&self) {
        *self.intake.lock().unwrap() = self.with_role("ingest");
    }

    /// From now on every node gets a disk of its own of 60 MB, where that can be had.
    pub(super) fn small_disks(&mut self) {
        self.small_disks = true;
    }

    fn data(&self, name: &str) -> PathBuf {
        let data = self.folder.path().join(format!("data-{name}"));
        if self.small_disks && !data.exists() {
            std::fs::create_dir(&data).unwrap();
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=60m", "tmpfs"])
                .arg(&data)
                .stderr(std::process::Stdio::null())
                .status();
            if !mounted.is_ok_and(|s| s.success()) {
                eprintln!("no small disk can be mounted here: {name} has a large one");
            }
        }
        data
    }

    /// Fills the disk of a node, if it has a small one.
    pub(super) fn fill_disk(&self, name: &str) {
        let data = self.folder.path().join(format!("data-{name}"));
        let is_small = std::fs::read_to_string("/proc/mounts")
            .unwrap()
            .contains(&data.display().to_string());
        if !is_small {
            eprintln!("the disk of {name} cannot be filled here");
            return;
        }
        let mut file = std::fs::File::create(data.join("filler")).unwrap();
        let block = vec![1_u8; 64 << 10];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    /// Gives the space back.
    pub(super) fn free_disk(&self, name: &str) {
        let _ = std::fs::remove_file(
            self.folder
                .path()
                .join(format!("data-{name}"))
                .join("filler"),
        );
    }

    /// Waits until every stage has read its input to the end and the index has all events.
    pub(super) fn settle(&self, events: u64) {
        let begin = Instant::now();
        let patience = 5 * PATIENCE;
        let api = self.with_role("api")[0];
        let lag = |stage: &str| -> Option<u64> {
            let health = get(api, "/api/v1/health")?;
            let stages = health["stages"].as_array()?;
            stages.iter().find(|s| s["stage"] == stage)?["records"].as_u64()
        };
        for stage in ["index", "match", "correlate", "baseline", "alert"] {
            while lag(stage) != Some(0) {
                assert!(
                    begin.elapsed() < patience,
                    "{stage} is not settled: {:#}",
                    get(api, "/api/v1/health").unwrap_or_default()
                );
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        // One node asks all others; without one of them there is no total.
        let found = || -> u64 {
            let answer = get(api, "/api/v1/search?q=source:aws.*&limit=1&count=true");
            answer.and_then(|a| a["total"].as_u64()).unwrap_or(0)
        };
        while found() < events {
            assert!(
                begin.elapsed() < patience,
                "{} of {events} events are indexed",
                found()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Sends an event that is an alert of its own twice a second, and watches when it is in the list of alerts.
    pub(super) fn steady_alerts(&self) -> Steady {
        Steady::start(Arc::clone(&self.intake), self.with_role("api"))
    }

    /// What the cluster has made of its load.
    pub(super) fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let api = self.with_role("api")[0];
        outcome.take_events(api);
        outcome.take_alerts(api);
        outcome.wait_told(api, &self.received, self.group_wait);
        outcome.take_episodes(&*self.bus());
        outcome
    }

    /// The log as a test reads it.
    pub(super) fn bus(&self) -> Box<dyn Bus> {
        let prefix = self.prefix();
        let partitions = bus::config::Partitions {
            events: 12,
            matches: 12,
            meters: 1,
            findings: 12,
            dead_letters: 1,
            sources: 1,
        };
        let settings = bus::kafka::Settings {
            kafka: bus::kafka::config::Options {
                brokers: self.brokers.split(',').map(str::to_owned).collect(),
                prefix: prefix.to_owned(),
                ..bus::kafka::config::Options::default()
            },
            partitions,
            retention_hours: bus::config::RetentionHours::default(),
            consumers: bus::kafka::Consumers::default(),
            accept_gap: false,
            snapshot_bytes: 0,
        };
        let dir = self.folder.path().join(format!("reader-{prefix}"));
        let clock: event::Clock = std::sync::Arc::new(event::Time::default);
        Box::new(bus::kafka::KafkaBus::open(&dir, settings, clock).unwrap())
    }

    fn prefix(&self) -> &str {
        let mut lines = self.extra.lines();
        lines
            .find_map(|l| l.trim().strip_prefix("prefix: "))
            .unwrap()
    }

    /// Goes over to a log of its own, with no nodes, which has the events, matches and meters of this one in their order
    /// and nothing else.
    pub(super) fn replay(&mut self) {
        let from = self.bus();
        self.nodes.clear();
        self.tell_intake();
        let prefix = self.prefix().to_owned();
        self.extra = self.extra.replace(
            &format!("prefix: {prefix}"),
            &format!("prefix: again.{prefix}"),
        );
        self.make_topics();
        let to = self.bus();
        for topic in [Topic::Events, Topic::Matches, Topic::Meters] {
            for partition in 0..from.partitions(topic) {
                let kept = from.bounds(topic, partition).unwrap();
                assert_eq!(kept.start, 0, "{topic:?}-{partition}");
                let mut next = kept.start;
                while next < kept.end {
                    let batch = from.read(topic, partition, next, 4 << 20).unwrap();
                    next = batch.next;
                    let records = batch.records.into_iter().map(|(_, r)| r).collect();
                    to.append(topic, records).unwrap();
                }
                assert_eq!(to.bounds(topic, partition).unwrap(), kept);
            }
        }
    }
}

/// A thread that sends a load.
pub(super) struct Pusher(std::thread::JoinHandle<()>);

impl Pusher {
    /// Waits until all is sent.
    pub(super) fn finish(self) {
        self.0.join().unwrap();
    }
}

/// Sends a body to one node after the other until one takes it.
pub(super) fn push_to(intake: &Intake, body: &str) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let begin = Instant::now();
    loop {
        let nodes = intake.lock().unwrap().clone();
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        if !nodes.is_empty() && push(nodes[turn % nodes.len()], body) {
            return;
        }
        assert!(begin.elapsed() < 3 * PATIENCE, "nobody takes events");
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        self.nodes.clear();
        if self.small_disks {
            for name in names {
                let data = self.folder.path().join(format!("data-{name}"));
                let _ = Command::new("umount")
                    .arg("-l")
                    .arg(data)
                    .stderr(std::process::Stdio::null())
                    .status();
            }
        }
        if self.kafka.exists() {
            self.script("stop", &[]);
        }
    }
}
