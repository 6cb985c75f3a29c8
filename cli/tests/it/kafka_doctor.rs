//! `doctor` before a real cluster that is well, and before ones that are not.
//!
//! Runs when `TRAILWARDEN_KAFKA_TESTS` is set, as `./test` does.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{run, text};

fn script(args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/test/kafka");
    let output = Command::new(script).args(args).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// A broker that ends with the test.
struct Broker(tempfile::TempDir);

impl Broker {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A line `name=…` of one of its files.
    fn said(&self, file: &str, name: &str) -> String {
        let text = std::fs::read_to_string(self.path(file)).unwrap();
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        line.unwrap().to_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        script(&["stop", self.0.path().to_str().unwrap()]);
    }
}

#[test]
fn doctor_says_what_is_wrong_with_the_brokers() {
    if std::env::var_os("TRAILWARDEN_KAFKA_TESTS").is_none() {
        eprintln!("skipped: TRAILWARDEN_KAFKA_TESTS is not set");
        return;
    }
    let broker = Broker(tempfile::tempdir().unwrap());
    let dir = broker.0.path().to_str().unwrap().to_owned();
    let plaintext = script(&["start", &dir, "--tls-sasl"]);
    let file = broker.path("c.yaml");
    let configure = |brokers: &str, more: &str| {
        let text = format!(
            "data_dir: '{}'\ningest: {{redaction: {{enabled: false}}}}\nbus:\n  kafka:\n    brokers: [{brokers}]\n    replication: 1\n    patience_seconds: 20\n{more}",
            broker.path("node").display()
        );
        std::fs::write(&file, text).unwrap();
    };
    let config = file.to_str().unwrap();
    let check = |code: i32, expected: &[&str]| {
        let output = run(&["doctor", "--config", config]);
        let said = text(&output.stdout);
        for words in expected {
            assert!(said.contains(words), "`{words}` is not in\n{said}");
        }
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    };

    // Topics are not there yet.
    configure(&format!("'{plaintext}'"), "");
    check(
        1,
        &[
            "ok    brokers        1 of 1 take connections",
            "ok    login          no TLS, no login",
            "FAIL  topics         trailwarden.events: is missing",
            "hint: `trailwarden topics apply` mends it",
        ],
    );
    let applied = run(&["topics", "apply", "--config", config]);
    assert_eq!(applied.status.code(), Some(0), "{}", text(&applied.stderr));

    // Nobody runs.
    check(
        1,
        &[
            "ok    topics         9 topics are as they should be",
            "ok    partitions     33 have a leader and enough copies in sync",
            "FAIL  consumers      nobody works on partitions of trailwarden.events of trailwarden.match: 0, 1, 2, 3",
        ],
    );

    // A node with every role: all is well.
    let service = crate::program::Service::start(&file, &broker.path("node"));
    let begin = std::time::Instant::now();
    loop {
        let output = run(&["doctor", "--config", config]);
        if text(&output.stdout).contains(
            "ok    consumers      trailwarden.match 0 behind, trailwarden.correlate 0 behind, trailwarden.baseline 0 behind, trailwarden.index 0 behind",
        ) {
            break;
        }
        assert!(
            begin.elapsed() < crate::program::PATIENCE,
            "{}",
            text(&output.stdout)
        );
    }
    assert_eq!(service.stop(), Some(0));

    // A wrong password, then the right one.
    let (user, password) = (
        broker.said("secrets", "user"),
        broker.said("secrets", "password"),
    );
    let sasl = |password: &str| {
        let secret = broker.path("password");
        std::fs::write(&secret, password).unwrap();
        format!(
            "    sasl: {{mechanism: SCRAM-SHA-512, username: {user}, password_file: '{}'}}\n",
            secret.display()
        )
    };
    let with_login = broker.said("endpoints", "sasl_plaintext");
    configure(&format!("'{with_login}'"), &sasl("wrong"));
    let said = check(
        1,
        &[
            "ok    brokers",
            "FAIL  login          the brokers refuse the login",
            "hint: look at bus.kafka.sasl",
        ],
    );
    assert!(!said.contains("topics  "), "{said}");
    configure(&format!("'{with_login}'"), &sasl(&password));
    check(1, &["ok    login          no TLS, as `trailwarden`"]);

    // A certificate of another authority than the one trusted.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(broker.path("other.pem"), other.cert.pem()).unwrap();
    let tls = |name: &str| format!("    tls: {{ca_file: '{}'}}\n", broker.path(name).display());
    let encrypted = broker.said("endpoints", "ssl");
    configure(&format!("'{encrypted}'"), &tls("other.pem"));
    check(
        1,
        &["FAIL  login          TLS with the brokers does not come about"],
    );
    configure(&format!("'{encrypted}'"), &tls("ca.pem"));
    check(1, &["ok    login          TLS, no login"]);

    // One address of two is wrong; then the broker is down.
    configure(&format!("'{plaintext}', 'localhost:1'"), "");
    check(
        1,
        &[
            "FAIL  brokers        1 of 2 take no connection: localhost:1 (",
            "ok    partitions",
        ],
    );
    script(&["stop-broker", &dir, "1"]);
    configure(&format!("'{plaintext}'"), "");
    let said = check(
        1,
        &[&format!(
            "FAIL  brokers        1 of 1 take no connection: {plaintext} ("
        )],
    );
    assert!(!said.contains("login"), "{said}");
}
