//! The outbox against a small HTTP server in the test: what arrives, how often, and when again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use event::{Finding, Id, Severity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::{Config, Secret};
use crate::notifier::{self, webhook};
use crate::policy::Policy;
use crate::store::testing::{Home, Place, places, server};
use crate::store::{Delivery, Notification, NotificationFilter};

const SECOND: i64 = 1_000_000;

/// One request as the server got it.
#[derive(Clone, Debug, PartialEq)]
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        let prefix = format!("{}: ", name.to_lowercase());
        let line = self
            .head
            .lines()
            .find(|l| l.to_lowercase().starts_with(&prefix));
        line.map_or("", |l| &l[prefix.len()..])
    }
}

/// What the server does with a request.
enum Answer {
    /// Answers with this, headers included.
    Say(&'static str),
    /// Closes without a word.
    Close,
    /// Sends a byte now and then, for longer than anybody should wait.
    Drip,
}

/// A store with one page to send, and a clock that only the test moves.
struct Bench {
    sender: Sender,
    receivers: Vec<Receiver>,
    now: Arc<AtomicI64>,
    requests: Arc<Mutex<Vec<Request>>>,
    runtime: tokio::runtime::Runtime,
    home: Home,
}

async fn read_request(stream: &mut TcpStream) -> Request {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let n = stream.read(&mut part).await.unwrap();
        bytes.extend_from_slice(&part[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert!(n > 0, "cut off: {text}");
            continue;
        };
        let request = Request {
            head: head.to_owned(),
            body: body.to_owned(),
        };
        if body.len() >= request.header("content-length").parse().unwrap() {
            return request;
        }
    }
}

impl Bench {
    /// A server that answers requests in turn, and a receiver `soc` behind it.
    fn new(place: &Place, answers: Vec<Answer>) -> Bench {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!(
            "http://{}/hook/token-of-the-url",
            listener.local_addr().unwrap()
        );
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        runtime.spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                log.lock().unwrap().push(request);
                match answer {
                    Answer::Say(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                    Answer::Close => {}
                    Answer::Drip => {
                        while stream.write_all(b"H").await.is_ok() {
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
            }
        });
        let json = format!(
            r#"{{"group_wait_seconds": 0, "console_url": "https://tw.example",
                "receivers": [{{"name": "soc", "webhook": {{"url": "{url}", "secret": "key", "bearer_token": "tok",
                    "allow_http": true, "allow_networks": ["127.0.0.0/8"], "timeout_seconds": 1}}}}],
                "route": {{"receiver": "soc"}}}}"#
        );
        let config: Config = serde_json::from_str(&json).unwrap();
        let home = Home::new(place);
        let store = home.open(Policy::new(&config).unwrap()).unwrap();
        let finding = Finding {
            id: Id(1),
            episode: Id(1),
            rule_id: "rule".into(),
            title: "Root was used".into(),
            severity: Severity::High,
            count: 1,
            identity: "ana".into(),
            ..Finding::default()
        };
        store.apply(&[(0, finding)], 0, 0, 1, Time(0)).unwrap();
        let now = Arc::new(AtomicI64::new(0));
        let clock = now.clone();
        Bench {
            sender: Sender {
                store: Arc::new(store),
                rules: Arc::new(|id| {
                    Some(RuleInfo {
                        id: id.into(),
                        description: "what it means".into(),
                        ..RuleInfo::default()
                    })
                }),
                console_url: config.console_url.clone(),
                clock: Arc::new(move || Time(clock.load(Ordering::SeqCst))),
                metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
            },
            receivers: notifier::build(&config).unwrap(),
            now,
            requests,
            runtime,
            home,
        }
    }

    /// One step at a time of the test's clock; tells whether something was due.
    fn step(&self, at: i64) -> bool {
        self.now.store(at, Ordering::SeqCst);
        self.sender.step(&self.receivers[0], &self.runtime).unwrap()
    }

    fn notification(&self) -> Notification {
        let filter = NotificationFilter::default();
        self.sender
            .store
            .notifications(&filter)
            .unwrap()
            .pop()
            .unwrap()
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

const OK: Answer = Answer::Say("HTTP/1.1 204 No Content\r\n\r\n");

#[test]
fn what_arrives_can_be_verified() {
    for place in places() {
        let bench = Bench::new(&place, vec![OK]);
        assert!(bench.step(1_700_000_000 * SECOND));
        assert!(!bench.step(1_700_000_001 * SECOND));
        assert_eq!(bench.notification().delivery, Delivery::Sent);
        let request = &bench.requests()[0];
        assert!(
            request
                .head
                .starts_with("POST /hook/token-of-the-url HTTP/1.1"),
            "{request:?}"
        );
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("authorization"), "Bearer tok");
        assert_eq!(
            request.header("idempotency-key"),
            format!("{}/first-0", Id(1))
        );
        let expected = webhook::sign(
            &Secret::new("key"),
            Time::from_seconds(1_700_000_000),
            request.body.as_bytes(),
        );
        assert_eq!(request.header("x-trailwarden-signature"), expected);
        let message: Message = serde_json::from_str(&request.body).unwrap();
        assert_eq!(message.rule.unwrap().description, "what it means");
        assert_eq!(message.alert.finding.identity, "ana");
        assert_eq!(
            message.link.unwrap(),
            format!("https://tw.example/alerts/{}", Id(1))
        );
    }
}

#[test]
fn an_error_is_retried_with_the_same_bytes_and_key() {
    for place in places() {
        let bench = Bench::new(
            &place,
            vec![
                Answer::Say("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"),
                OK,
            ],
        );
        assert!(bench.step(0));
        let waiting = bench.notification();
        assert_eq!(
            (waiting.delivery, waiting.error.as_str()),
            (Delivery::Pending, "answered 500")
        );
        assert!(
            (SECOND / 2..=SECOND).contains(&waiting.next_at.0),
            "{waiting:?}"
        );
        // What has happened meanwhile does not change what was said.
        bench
            .sender
            .store
            .comment(Id(1), "kim", "x", None, Time(1))
            .unwrap();
        assert!(!bench.step(waiting.next_at.0 - 1));
        assert!(bench.step(waiting.next_at.0));
        let [first, second] = &bench.requests()[..] else {
            panic!("{:?}", bench.requests())
        };
        assert_eq!(first.body, second.body);
        assert_eq!(
            first.header("idempotency-key"),
            second.header("idempotency-key")
        );
        assert_eq!(bench.notification().delivery, Delivery::Sent);
    }
}

#[test]
fn retry_after_is_honoured() {
    for place in places() {
        let bench = Bench::new(
            &place,
            vec![
                Answer::Say(
                    "HTTP/1.1 429 Slow down\r\nretry-after: 90\r\ncontent-length: 0\r\n\r\n",
                ),
                OK,
            ],
        );
        assert!(bench.step(10 * SECOND));
        assert_eq!(bench.notification().next_at, Time(100 * SECOND));
        assert!(!bench.step(100 * SECOND - 1));
        assert!(bench.step(100 * SECOND));
        assert_eq!(bench.notification().delivery, Delivery::Sent);
    }
}

#[test]
fn refusals_and_redirects_are_final() {
    for place in places() {
        for answer in [
            "HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 307 There\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n",
        ] {
            let bench = Bench::new(&place, vec![Answer::Say(answer)]);
            assert!(bench.step(0));
            let dead = bench.notification();
            assert_eq!(dead.delivery, Delivery::Dead, "{dead:?}");
            assert_eq!(bench.requests().len(), 1);
            assert_eq!(bench.sender.store.outbox_depth().unwrap(), (0, 1));
        }
    }
}

#[test]
fn a_lost_answer_is_doubt() {
    for place in places() {
        for answer in [Answer::Close, Answer::Drip] {
            let bench = Bench::new(&place, vec![answer, OK]);
            assert!(bench.step(0));
            let doubt = bench.notification();
            assert_eq!(
                (doubt.delivery, doubt.ambiguous),
                (Delivery::Ambiguous, 1),
                "{doubt:?}"
            );
            assert!(!doubt.error.contains("token-of-the-url"), "{}", doubt.error);
            assert!(bench.step(doubt.next_at.0));
            assert_eq!(bench.notification().delivery, Delivery::Sent);
        }
    }
}

#[test]
fn an_endless_answer_is_not_read() {
    for place in places() {
        let bench = Bench::new(
            &place,
            vec![Answer::Say(
                "HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\nxxxx",
            )],
        );
        assert!(bench.step(0));
        assert_eq!(bench.notification().delivery, Delivery::Sent);
    }
}

#[test]
fn nobody_there_is_retried_for_a_day_and_given_up() {
    for place in places() {
        let bench = Bench::new(&place, Vec::new());
        // The server has closed its door as soon as it has no answers left.
        let mut at = 0;
        let mut attempts = 0;
        while bench.notification().delivery != Delivery::Dead {
            assert!(bench.step(at));
            at = bench.notification().next_at.0;
            attempts += 1;
            if attempts == 3 {
                at = 24 * 3_600 * SECOND - 1;
            }
            assert!(attempts < 10);
        }
        let dead = bench.notification();
        assert_eq!(dead.ambiguous, 0, "nothing was sent");
        assert!(
            dead.error.starts_with("given up after 4 attempts"),
            "{}",
            dead.error
        );
    }
}

#[test]
fn the_address_is_checked_when_it_is_connected_to() {
    for place in places() {
        let bench = Bench::new(&place, Vec::new());
        let config: Config = serde_json::from_str(
        r#"{"receivers": [{"name": "soc", "webhook": {"url": "http://localhost:9/", "allow_http": true}}]}"#,
    )
    .unwrap();
        let receivers = notifier::build(&config).unwrap();
        assert!(bench.sender.step(&receivers[0], &bench.runtime).unwrap());
        let dead = bench.notification();
        assert_eq!(dead.delivery, Delivery::Dead);
        assert!(
            dead.error
                .contains("loopback: name its network in allow_networks"),
            "{}",
            dead.error
        );
    }
}

/// Answers one HTTPS request with a certificate that nobody but its `ca_file` vouches for.
fn serve_https(answer: &'static str) -> (String, String) {
    use std::io::{Read, Write};
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            let mut part = [0; 65_536];
            // A client that does not trust the certificate ends the conversation here.
            if matches!(stream.read(&mut part), Ok(n) if n > 0) {
                let _ = stream.write_all(answer.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (format!("https://localhost:{port}/"), made.cert.pem())
}

#[test]
fn certificates_are_checked() {
    for place in places() {
        let (url, pem) = serve_https("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        let bench = Bench::new(&place, Vec::new());
        let ca_file = bench.home.dir().join("ca.pem");
        std::fs::write(&ca_file, pem).unwrap();
        let receiver = |extra: &str| {
            let json = format!(
                r#"{{"receivers": [{{"name": "soc", "webhook": {{"url": "{url}", "allow_networks": ["127.0.0.1", "::1"]{extra}}}}}]}}"#
            );
            let config: Config = serde_json::from_str(&json).unwrap();
            notifier::build(&config).unwrap().remove(0)
        };
        let step = |receiver: &Receiver| bench.sender.step(receiver, &bench.runtime).unwrap();
        assert!(step(&receiver("")));
        let refused = bench.notification();
        assert_eq!(
            (refused.delivery, refused.ambiguous),
            (Delivery::Pending, 0),
            "{refused:?}"
        );
        assert!(refused.error.contains("certificate"), "{}", refused.error);
        bench.now.store(refused.next_at.0, Ordering::SeqCst);
        let trusted = format!(r#", "ca_file": {:?}"#, ca_file.to_str().unwrap());
        assert!(step(&receiver(&trusted)));
        assert_eq!(
            bench.notification().delivery,
            Delivery::Sent,
            "{}",
            bench.notification().error
        );
    }
}

#[test]
fn threads_send_and_stop_and_bury_what_nobody_takes() {
    for place in places() {
        let bench = Bench::new(&place, vec![OK]);
        let stop = Stop::default();
        std::thread::scope(|scope| {
            scope.spawn(|| run(&bench.sender, &bench.receivers, "a".into(), &stop).unwrap());
            let patience = std::time::Instant::now() + Duration::from_secs(60);
            while bench.notification().delivery != Delivery::Sent
                && std::time::Instant::now() < patience
            {
                std::thread::yield_now();
            }
            stop.stop();
        });
        assert_eq!(bench.notification().delivery, Delivery::Sent);
        bench
            .sender
            .store
            .resolve(Id(1), "kim", "", None, Time(1))
            .unwrap();
        run(&bench.sender, &[], "a".into(), &stop).unwrap();
        assert_eq!(bench.sender.store.outbox_depth().unwrap(), (0, 1));
    }
}

#[test]
fn of_two_nodes_one_sends() {
    let Some(place) = server() else { return };
    const MORE: u64 = 9;
    // The server of the test closes after every answer and says so: what is sent on a closed connection is doubt.
    let closing = || Answer::Say("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
    let bench = Bench::new(&place, (0..=MORE).map(|_| closing()).collect());
    let other = Sender {
        store: Arc::new(
            bench
                .home
                .open((*bench.sender.store.policy()).clone())
                .unwrap(),
        ),
        metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
        ..bench.sender.clone()
    };
    let stop = Stop::default();
    std::thread::scope(|scope| {
        for (holder, sender) in [("a", &bench.sender), ("b", &other)] {
            let (receivers, stop) = (&bench.receivers, &stop);
            scope.spawn(move || run(sender, receivers, holder.into(), stop).unwrap());
        }
        for at in 1..=MORE {
            let finding = Finding {
                id: Id(u128::from(at) + 1),
                episode: Id(u128::from(at) + 1),
                rule_id: format!("rule {at}").into(),
                severity: Severity::High,
                count: 1,
                ..Finding::default()
            };
            // Either node may have taken it in: it is not they who apply here.
            let store = if at % 2 == 0 {
                &other.store
            } else {
                &bench.sender.store
            };
            store
                .apply(&[(at, finding)], 0, at, at + 1, Time(0))
                .unwrap();
        }
        let patience = std::time::Instant::now() + Duration::from_secs(60);
        while other.store.outbox_depth().unwrap().0 > 0 && std::time::Instant::now() < patience {
            std::thread::yield_now();
        }
        stop.stop();
    });
    assert_eq!(bench.requests().len() as u64, 1 + MORE);
    let filter = NotificationFilter::default();
    let sent = other.store.notifications(&filter).unwrap();
    assert!(
        sent.iter()
            .all(|n| (n.delivery, n.attempts) == (Delivery::Sent, 1)),
        "{sent:?}"
    );
}
