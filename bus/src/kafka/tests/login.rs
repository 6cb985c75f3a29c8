//! TLS and logins, as managed Kafka asks for them.

use std::path::PathBuf;

use super::config::{Mechanism, Sasl, Tls};
use super::*;

const SECRET: &str = "a-wrong-secret";

struct Secured {
    cluster: Cluster,
    dir: PathBuf,
}

impl Secured {
    fn start() -> Option<Secured> {
        let cluster = Cluster::start(&["--tls-sasl"])?;
        let dir = cluster.dir.path().to_owned();
        Some(Secured { cluster, dir })
    }

    fn value(&self, file: &str, name: &str) -> String {
        let text = std::fs::read_to_string(self.dir.join(file)).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        line.unwrap().trim_start_matches('=').to_owned()
    }

    /// Settings for topics that are there, over one of the listeners.
    fn over(&self, base: &Settings, listener: &str) -> Settings {
        let mut settings = base.clone();
        settings.kafka.brokers = vec![self.value("endpoints", listener)];
        settings.kafka.patience_seconds = 8;
        if listener.ends_with("ssl") {
            settings.kafka.tls = Some(Tls {
                ca_file: Some(self.dir.join("ca.pem")),
                ..Tls::default()
            });
        }
        settings
    }

    fn login(&self, mechanism: Mechanism) -> Sasl {
        let file = self.dir.join("password");
        std::fs::write(&file, self.value("secrets", "password")).unwrap();
        Sasl {
            mechanism,
            username: self.value("secrets", "user"),
            password_file: Some(file),
            ..Sasl::default()
        }
    }
}

/// A token without a signature, as the test brokers take it.
fn token() -> String {
    use base64::Engine;
    let encode = |text: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let second = 1_000_000;
    let now = wall_clock() / second;
    format!(
        "{}.{}.",
        encode(r#"{"alg":"none"}"#.into()),
        encode(format!(
            r#"{{"sub":"trailwarden","iat":{now},"exp":{}}}"#,
            now + 600
        ))
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "brokers hold the time in a token against the wall clock"
)]
fn wall_clock() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_micros() as i64
}

/// Everything that talks to brokers: producer, readers, state that moves, group, administration.
fn works(settings: &Settings, name: &str) {
    let begin = Instant::now();
    if name.starts_with("OAUTHBEARER") {
        let found = words(topics::plan(settings), "refused");
        says(&found, &["token_command", "oidc"]);
    } else {
        assert_eq!(topics::plan(settings).unwrap(), [], "{name}");
    }
    let node = another(settings);
    append(&node.bus, 0, [name.to_owned()]);
    count_all(&node.bus, "c", 0);
    assert!(values_of(&node.bus, Topic::Events, 0).contains(&name.to_owned()));
    until("partitions are assigned", || {
        node.bus.assigned("c", Topic::Events).unwrap() == [0, 1]
    });
    node.bus.retain(clock()()).unwrap();
    // Somebody who only looks.
    let looks = another(settings);
    until("positions are told", || {
        let progress = looks.bus.progress().unwrap();
        progress.iter().any(|p| p.consumer == "c" && !p.here)
    });
    node.bus.close();
    eprintln!("{name}: {:?}", begin.elapsed());
}

/// A start that fails soon, and says why without the secret.
fn fails(settings: &Settings, parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let found = words(
        KafkaBus::open(dir.path(), settings.clone(), clock()),
        "unavailable",
    );
    assert!(begin.elapsed() < Duration::from_secs(15));
    eprintln!("{found}");
    says(&found, parts);
    assert!(!found.contains(SECRET), "{found}");
}

#[test]
fn brokers_are_reached_in_every_way() {
    let Some(secured) = Secured::start() else {
        return;
    };
    let base = secured.cluster.moving();
    topics::apply(&base).unwrap();
    let over = |listener: &str, sasl: Option<Sasl>| {
        let mut settings = secured.over(&base, listener);
        settings.kafka.sasl = sasl;
        assert_eq!(settings.kafka.problems(), [""; 0]);
        settings
    };

    works(&over("ssl", None), "TLS");
    let mut mutual = over("ssl", None);
    if let Some(tls) = &mut mutual.kafka.tls {
        tls.certificate_file = Some(secured.dir.join("client.pem"));
        tls.key_file = Some(secured.dir.join("client.key"));
    }
    works(&mutual, "mutual TLS");
    for (mechanism, name) in [
        (Mechanism::Plain, "PLAIN over TLS"),
        (Mechanism::Scram256, "SCRAM-SHA-256 over TLS"),
        (Mechanism::Scram512, "SCRAM-SHA-512 over TLS"),
    ] {
        works(&over("sasl_ssl", Some(secured.login(mechanism))), name);
    }
    let scram = secured.login(Mechanism::Scram512);
    works(&over("sasl_plaintext", Some(scram)), "SCRAM-SHA-512");

    let file = secured.dir.join("token");
    std::fs::write(&file, token()).unwrap();
    let by_file = Sasl {
        mechanism: Mechanism::OAuthBearer,
        token_file: Some(file.clone()),
        ..Sasl::default()
    };
    works(&over("sasl_ssl", Some(by_file)), "OAUTHBEARER by a file");
    let by_command = Sasl {
        mechanism: Mechanism::OAuthBearer,
        token_command: vec!["cat".into(), file.display().to_string()],
        ..Sasl::default()
    };
    works(
        &over("sasl_ssl", Some(by_command)),
        "OAUTHBEARER by a program",
    );

    // What cannot work is told, not waited for.
    let wrong = |mechanism| {
        let file = secured.dir.join("wrong");
        std::fs::write(&file, SECRET).unwrap();
        Some(Sasl {
            password_file: Some(file),
            ..secured.login(mechanism)
        })
    };
    fails(
        &over("sasl_ssl", wrong(Mechanism::Plain)),
        &["uthentication failed"],
    );
    fails(
        &over("sasl_ssl", wrong(Mechanism::Scram256)),
        &["uthentication failed"],
    );
    let mut untrusted = over("ssl", None);
    untrusted.kafka.tls = Some(Tls::default());
    fails(&untrusted, &["certificate verify failed"]);
    let no_token = Sasl {
        mechanism: Mechanism::OAuthBearer,
        token_command: vec!["false".into(), SECRET.into()],
        ..Sasl::default()
    };
    fails(
        &over("sasl_ssl", Some(no_token)),
        &["token_command `false` ended"],
    );
    let mut closed = over("ssl", None);
    closed.kafka.brokers = vec!["127.0.0.1:1".into()];
    fails(&closed, &["Connection refused"]);
}
