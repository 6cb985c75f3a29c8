//! Several nodes on one server. Without a server there is nothing to test here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::config::PostgresTls;
use crate::store::testing::server;

const ROLE: &str = "findings";

fn home() -> Option<Home> {
    server().map(|place| Home::new(&place))
}

/// Ends every lease, as time does.
fn end_leases(home: &Home) {
    let sql = "UPDATE leader SET until = clock_timestamp() - INTERVAL '1 second'";
    home.client().batch_execute(sql).unwrap();
}

/// Ends the connection that is in the middle of a write to this schema, if there is one. Gives how many there were.
fn cut(home: &Home, client: &mut ::postgres::Client) -> u64 {
    let (url, schema) = home.address();
    let lock = Server::new(&testing::config(&url, &schema)).unwrap().lock();
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_locks \
               WHERE locktype = 'advisory' AND granted AND CAST(objid AS BIGINT) = $1";
    let cut = client.query(sql, &[&i64::from(lock as u32)]).unwrap();
    cut.len() as u64
}

fn finding(at: u64) -> Finding {
    single(
        u128::from(at) + 1,
        &format!("actor {at}"),
        at as i64,
        Severity::High,
    )
}

/// One node's work: takes the lead when it can, applies one finding at a time, and sends what is due.
fn work(store: &Store, holder: &str, findings: u64, sent: &AtomicU64) {
    let (apply, send) = (store.fenced(ROLE), store.fenced("notifications"));
    let patience = Instant::now() + Duration::from_secs(60);
    let tried = |result: Result<(), StoreError>| match result {
        Ok(()) => {}
        Err(StoreError::NotLeading(_) | StoreError::Fenced { .. }) => {}
        Err(error) if error.is_transient() => {}
        Err(error) => panic!("{holder}: {error:?}"),
    };
    loop {
        assert!(Instant::now() < patience);
        tried(store.lead(ROLE, holder, LEASE).map(|_| ()));
        tried(store.lead("notifications", holder, LEASE).map(|_| ()));
        let at = match store.position(0) {
            Ok(at) => at.unwrap_or(0),
            Err(error) => {
                tried(Err(error));
                continue;
            }
        };
        if at < findings {
            tried(
                apply
                    .apply(&[(at, finding(at))], 0, at, at + 1, Time(at as i64))
                    .map(|_| ()),
            );
        }
        let mut waiting = false;
        for receiver in ["soc", "pager"] {
            let now = Time(findings as i64);
            match send.lease(receiver, HOUR, now) {
                Ok(None) => {}
                Ok(Some(leased)) => {
                    waiting = true;
                    sent.fetch_add(1, Ordering::SeqCst);
                    // The receiver has it: only to write that down may be tried again.
                    while let Err(error) = send.settle(&leased.notification, &Outcome::Sent, now) {
                        let lost = matches!(error, StoreError::NotLeading(_));
                        tried(Err(error));
                        if lost {
                            break;
                        }
                    }
                }
                Err(error) => {
                    // Whether anything is left to send is not known.
                    waiting = true;
                    tried(Err(error));
                }
            }
        }
        if at >= findings && !waiting {
            return;
        }
    }
}

#[test]
fn two_nodes_apply_each_finding_once_and_send_each_notification_once() {
    let Some(home) = home() else { return };
    let (a, b) = (
        home.open(two_receivers()).unwrap(),
        home.open(two_receivers()).unwrap(),
    );
    const FINDINGS: u64 = 40;
    let (sent, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // The lead goes to and fro: whoever asks next after its end has it.
        scope.spawn(|| {
            let mut client = home.client();
            while !ended.load(Ordering::SeqCst) {
                let sql = "DELETE FROM leader WHERE name = 'findings'";
                client.batch_execute(sql).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let nodes = [
            scope.spawn(|| work(&a, "a", FINDINGS, &sent)),
            scope.spawn(|| work(&b, "b", FINDINGS, &sent)),
        ];
        let done = nodes.map(std::thread::ScopedJoinHandle::join);
        ended.store(true, Ordering::SeqCst);
        assert!(done.iter().all(Result::is_ok));
    });
    for store in [&a, &b] {
        assert_eq!(store.position(0).unwrap(), Some(FINDINGS));
        assert_eq!(count(store, "alerts"), FINDINGS);
        assert_eq!(count(store, "findings"), FINDINGS);
        assert_eq!(count(store, "outbox"), 2 * FINDINGS);
        assert_eq!(store.outbox_depth().unwrap(), (0, 0));
    }
    assert_eq!(sent.load(Ordering::SeqCst), 2 * FINDINGS);
    let once = a
        .notifications(&NotificationFilter::default())
        .unwrap()
        .iter()
        .all(|n| n.attempts == 1 && n.ambiguous == 0);
    assert!(once);
}

#[test]
fn a_lease_that_passed_changes_nothing() {
    let Some(home) = home() else { return };
    let (a, b) = (
        home.open(two_receivers()).unwrap(),
        home.open(two_receivers()).unwrap(),
    );
    let (old, new) = (a.fenced(ROLE), b.fenced(ROLE));
    let refused = old.apply(&[(0, finding(0))], 0, 0, 1, Time(0));
    assert!(
        matches!(refused, Err(StoreError::NotLeading(ROLE))),
        "nobody leads before it has asked: {refused:?}"
    );
    assert!(a.lead(ROLE, "a", LEASE).unwrap());
    assert!(!b.lead(ROLE, "b", LEASE).unwrap());
    old.apply(&[(0, finding(0))], 0, 0, 1, Time(0)).unwrap();
    let leased = old.lease("soc", HOUR, Time(0)).unwrap().unwrap();

    end_leases(&home);
    let seen = (
        a.alerts(&Filter::default()).unwrap(),
        a.notifications(&NotificationFilter::default()).unwrap(),
        a.feed(0).unwrap(),
    );
    assert!(b.lead(ROLE, "b", LEASE).unwrap());
    let refusals = [
        old.apply(&[(1, finding(1))], 0, 1, 2, Time(1)).map(|_| ()),
        old.tick(Time(100 * HOUR)).map(|_| ()),
        old.rewind(0, 0),
        old.retain(Time(9_999 * HOUR)).map(|_| ()),
        old.lease("pager", HOUR, Time(1)).map(|_| ()),
        old.settle(&leased.notification, &Outcome::Sent, Time(1))
            .map(|_| ()),
        old.bury_unknown(&[]).map(|_| ()),
        old.fix_message(leased.notification.id, "x"),
    ];
    for refused in refusals {
        assert!(
            matches!(refused, Err(StoreError::NotLeading(ROLE))),
            "{refused:?}"
        );
    }
    let after = (
        a.alerts(&Filter::default()).unwrap(),
        a.notifications(&NotificationFilter::default()).unwrap(),
        a.feed(0).unwrap(),
    );
    assert_eq!(after, seen);
    new.apply(&[(1, finding(1))], 0, 1, 2, Time(1)).unwrap();
    // People need no lease.
    a.acknowledge(Id(1), "kim", None, Time(2)).unwrap();

    assert!(!a.lead(ROLE, "a", LEASE).unwrap());
    b.resign(ROLE).unwrap();
    assert!(a.lead(ROLE, "a", LEASE).unwrap(), "at once");
    // The same node started again takes over at once, and the process before it has lost.
    let again = home.open(two_receivers()).unwrap();
    assert!(again.lead(ROLE, "a", LEASE).unwrap());
    assert!(matches!(
        old.apply(&[(2, finding(2))], 0, 2, 3, Time(2)),
        Err(StoreError::NotLeading(ROLE))
    ));
}

#[test]
fn a_lease_ends_by_the_servers_clock() {
    let Some(home) = home() else { return };
    let a = home.open(two_receivers()).unwrap();
    let b = home.open(two_receivers()).unwrap();
    assert!(a.lead(ROLE, "a", Duration::from_millis(50)).unwrap());
    let patience = Instant::now() + Duration::from_secs(30);
    while !b.lead(ROLE, "b", LEASE).unwrap() {
        assert!(Instant::now() < patience);
    }
    assert!(!a.lead(ROLE, "a", LEASE).unwrap());
}

#[test]
fn a_process_that_stops_within_a_transaction_holds_nobody_up() {
    let Some(home) = home() else { return };
    let a = home.open(two_receivers()).unwrap();
    let b = home.open(two_receivers()).unwrap();
    let started = Instant::now();
    let frozen = a.write("stop", |tx| {
        tx.batch("INSERT INTO positions (partition, next) VALUES (7, 7)")?;
        // Waits for the lock that this transaction holds, until the server has had enough of it.
        b.rewind(0, 3).unwrap();
        tx.batch("INSERT INTO positions (partition, next) VALUES (8, 8)")
    });
    assert!(frozen.is_err_and(|e| e.is_transient()));
    assert!(started.elapsed() < LEASE);
    assert_eq!(b.position(7).unwrap(), None);
    assert_eq!(a.position(0).unwrap(), Some(3), "it goes on afterwards");
    a.rewind(7, 1).unwrap();
}

/// The part of the test below that is frozen: it leads and applies until it is refused.
#[test]
fn child_that_leads_until_it_is_refused() {
    let Ok(schema) = std::env::var("TRAILWARDEN_TEST_LEADER") else {
        return;
    };
    let url = std::env::var(testing::URL).unwrap();
    let store = testing::open(&url, &schema, two_receivers()).unwrap();
    let fenced = store.fenced(ROLE);
    for at in 0.. {
        let second = Duration::from_secs(1);
        let applied = store.lead(ROLE, "child", second).and_then(|_| {
            let from = store.position(0)?.unwrap_or(0);
            fenced.apply(&[(at, finding(at))], 0, from, from + 1, Time(at as i64))
        });
        match applied {
            Ok(_) => println!("applied {at}"),
            Err(StoreError::NotLeading(_)) => return println!("refused"),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
}

#[test]
fn a_frozen_leader_changes_nothing_when_it_wakes() {
    use std::io::{BufRead, BufReader};
    let Some(home) = home() else { return };
    let b = home.open(two_receivers()).unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::tests::nodes::child_that_leads_until_it_is_refused",
            "--nocapture",
        ])
        .env("TRAILWARDEN_TEST_LEADER", home.address().1)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(lines.any(|l| l.contains("applied 10")));
    assert!(!b.lead(ROLE, "b", LEASE).unwrap());
    let signal = |name: &str| {
        let id = child.id().to_string();
        let sent = std::process::Command::new("kill")
            .args([name, &id])
            .status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP");
    // Frozen in the middle of a transaction it holds the lock, until the server ends it; anywhere else, its lease.
    let patience = Instant::now() + Duration::from_secs(30);
    while !b.lead(ROLE, "b", LEASE).unwrap_or(false) {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(100));
    }
    let seen = (
        b.position(0).unwrap(),
        count(&b, "feed"),
        count(&b, "outbox"),
    );
    signal("-CONT");
    assert!(lines.any(|l| l.contains("refused")));
    assert!(child.wait().unwrap().success());
    let after = (
        b.position(0).unwrap(),
        count(&b, "feed"),
        count(&b, "outbox"),
    );
    assert_eq!(after, seen);
}

#[test]
fn lost_connections_lose_nothing() {
    let Some(home) = home() else { return };
    let (a, b) = (
        home.open(two_receivers()).unwrap(),
        home.open(two_receivers()).unwrap(),
    );
    const FINDINGS: u64 = 40;
    let (sent, ended, cuts) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = home.client();
            while !ended.load(Ordering::SeqCst) {
                cuts.fetch_add(cut(&home, &mut client), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let nodes = [
            scope.spawn(|| work(&a, "a", FINDINGS, &sent)),
            scope.spawn(|| work(&b, "b", FINDINGS, &sent)),
        ];
        let done = nodes.map(std::thread::ScopedJoinHandle::join);
        ended.store(true, Ordering::SeqCst);
        assert!(done.iter().all(Result::is_ok));
    });
    assert_eq!(count(&a, "alerts"), FINDINGS);
    assert_eq!(count(&b, "outbox"), 2 * FINDINGS);
    let cuts = cuts.load(Ordering::SeqCst);
    println!("{cuts} connections were cut");
    assert!(cuts > 0);
    // Where a cut came between sending and the word of it, the notification waits for the end of its lease.
    let told = a
        .notifications(&NotificationFilter {
            limit: 1000,
            ..NotificationFilter::default()
        })
        .unwrap();
    let done = |n: &&Notification| matches!(n.delivery, Delivery::Sent | Delivery::Leased);
    assert_eq!(told.iter().filter(done).count() as u64, 2 * FINDINGS);
}

#[test]
fn a_connection_lost_while_idle_is_opened_again_unseen() {
    let Some(home) = home() else { return };
    let store = home.open(two_receivers()).unwrap();
    let who = |tx: &Tx<'_>| {
        rows::all(tx, "SELECT pg_backend_pid()", &[], |r| r.get::<i64>(0)).map(|found| found[0])
    };
    for _ in 0..3 {
        let pids = [
            store.read("look", who).unwrap(),
            store.write("look", who).unwrap(),
        ];
        for pid in pids {
            let sql = format!("SELECT pg_terminate_backend({pid}, 10000)");
            home.client().batch_execute(&sql).unwrap();
        }
        assert_ne!(store.read("look", who).unwrap(), pids[0]);
        assert_ne!(store.write("look", who).unwrap(), pids[1]);
    }
}

#[test]
fn many_migrate_at_once() {
    let Some(home) = home() else { return };
    std::thread::scope(|scope| {
        let nodes: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| home.open(two_receivers()).unwrap()))
            .collect();
        for node in nodes {
            let store = node.join().unwrap();
            assert_eq!(count(&store, "migrations"), 3);
        }
    });
}

#[test]
fn a_node_hears_of_what_others_write() {
    let Some(home) = home() else { return };
    let (a, b) = (
        home.open(two_receivers()).unwrap(),
        home.open(two_receivers()).unwrap(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut changed = b.changed();
    for at in 0..3 {
        a.apply(&[(at, finding(at))], 0, at, at + 1, Time(0))
            .unwrap();
        let started = Instant::now();
        runtime
            .block_on(async {
                tokio::time::timeout(Duration::from_secs(30), changed.changed()).await
            })
            .unwrap()
            .unwrap();
        println!("heard after {:?}", started.elapsed());
        assert_eq!(*changed.borrow_and_update(), at + 1);
        assert!(started.elapsed() < Duration::from_millis(500));
    }
}

#[test]
fn the_feed_is_in_the_order_of_commits() {
    let Some(home) = home() else { return };
    let stores: Vec<Store> = (0..3)
        .map(|_| home.open(two_receivers()).unwrap())
        .collect();
    const EACH: u64 = 15;
    stores[0]
        .apply(&[(0, finding(0))], 0, 0, 1, Time(0))
        .unwrap();
    let reader = home.open(two_receivers()).unwrap();
    let ended = AtomicU64::new(0);
    let read = std::thread::scope(|scope| {
        for (n, store) in stores.iter().enumerate() {
            let ended = &ended;
            scope.spawn(move || {
                for i in 0..EACH {
                    let text = format!("{n} {i}");
                    store.comment(Id(1), "kim", &text, None, Time(1)).unwrap();
                }
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        let mut read = Vec::new();
        loop {
            let last = ended.load(Ordering::SeqCst) == 3;
            let after = read.last().copied().unwrap_or(0);
            read.extend(reader.feed(after).unwrap().iter().map(|e| e.id));
            if last {
                return read;
            }
        }
    });
    assert_eq!(read.len() as u64, 1 + 3 * EACH);
    assert!(read.is_sorted());
}

#[test]
fn calls_are_safe_on_threads_that_run_tasks() {
    let Some(home) = home() else { return };
    for runtime in [
        tokio::runtime::Builder::new_current_thread(),
        tokio::runtime::Builder::new_multi_thread(),
    ]
    .iter_mut()
    {
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let store = home.open(two_receivers()).unwrap();
            store.rewind(0, 0).unwrap();
            let store = Arc::new(store);
            let other = store.clone();
            tokio::task::spawn(async move { other.position(0).unwrap() })
                .await
                .unwrap();
            let other = store.clone();
            tokio::task::spawn_blocking(move || other.counts().unwrap())
                .await
                .unwrap();
            drop(store);
        });
    }
}

#[test]
fn text_that_the_server_refuses_is_kept_all_the_same() {
    let mut b = match server() {
        None => return,
        Some(place) => Bench::new(&place, two_receivers()),
    };
    let long = "\u{1f980}".repeat(3_000);
    let odd = Finding {
        session: long.as_str().into(),
        access_key: long.as_str().into(),
        account: long.as_str().into(),
        ..single(1, "a\0na", 0, Severity::Low)
    };
    b.apply(&[odd], 0);
    b.store
        .comment(Id(1), "kim", "nul \0", None, Time(1))
        .unwrap();
    let alert = b.alerts().remove(0);
    assert_eq!(alert.actor, "a\0na");
    assert_eq!(alert.comments[0].text, "nul \0");
    let filter = Filter {
        text: "a\0na".into(),
        ..Filter::default()
    };
    assert_eq!(b.store.alerts(&filter).unwrap().len(), 1);
}

#[test]
fn secrets_and_names_are_checked() {
    let check =
        |config: &PostgresConfig, expected: Result<(), &str>| match (Server::new(config), expected)
        {
            (Ok(server), Ok(())) => assert!(!format!("{server:?}").contains("hunter2")),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{error}");
                assert!(!error.to_string().contains("hunter2"), "{error}");
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        };
    let config = |url: &str| testing::config(url, "trailwarden");
    check(&config("postgres://tw:hunter2@localhost/tw"), Ok(()));
    check(&config("postgresql://tw@127.0.0.1:5433/tw"), Ok(()));
    for bad in [
        "",
        "localhost",
        "postgres://tw@localhost/tw?hunter2=1",
        "postgres://localhost/tw",
        "host=localhost password=hunter2",
    ] {
        check(
            &config(bad),
            Err("alerting.postgres.url: is no URL such as"),
        );
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2\n").unwrap();
    let with_file = |url: &str| PostgresConfig {
        password_file: Some(file.path().to_owned()),
        ..config(url)
    };
    check(&with_file("postgres://tw@localhost/tw"), Ok(()));
    check(
        &with_file("postgres://tw:hunter2@localhost/tw"),
        Err("holds a password already"),
    );
    for schema in ["", "Alerts", "a\"b", "pg_x", "1a"] {
        let config = testing::config("postgres://tw@localhost/tw", schema);
        check(&config, Err("alerting.postgres.schema"));
    }
    check(
        &PostgresConfig {
            tls: Some(PostgresTls::Require),
            ca_file: Some(file.path().to_owned()),
            ..config("postgres://tw@db.example/tw")
        },
        Err("holds no certificate"),
    );
    for (url, expected) in [
        ("postgres://tw@127.0.0.1/tw", PostgresTls::Disable),
        ("postgres://tw@localhost/tw", PostgresTls::Disable),
        ("postgres://tw@[::1]/tw", PostgresTls::Disable),
        ("postgres://tw@%2Frun%2Fpostgresql/tw", PostgresTls::Disable),
        ("postgres://tw@db.example/tw", PostgresTls::Require),
        (
            "postgres://tw@localhost,db.example/tw",
            PostgresTls::Require,
        ),
        (
            "postgres://tw@localhost/tw?hostaddr=192.0.2.1",
            PostgresTls::Require,
        ),
    ] {
        assert_eq!(
            crate::store::postgres::default_tls(&url.parse().unwrap()),
            expected,
            "{url}"
        );
    }
}

#[test]
fn the_servers_certificate_is_checked() {
    let (Some(home), Ok(ca)) = (home(), std::env::var("TRAILWARDEN_POSTGRES_CA")) else {
        return;
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (url, schema) = home.address();
    let connect = |url: &str, ca: Option<&str>| {
        let config = PostgresConfig {
            tls: Some(PostgresTls::Require),
            ca_file: ca.map(Into::into),
            ..testing::config(url, &schema)
        };
        Store::connect(&Server::new(&config).unwrap(), two_receivers())
    };
    let store = connect(&url, Some(&ca)).unwrap();
    let sql = "SELECT COUNT(*) FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl";
    let protected = store
        .read("look", |tx| rows::all(tx, sql, &[], |r| r.get::<i64>(0)))
        .unwrap();
    assert_eq!(protected, [1]);
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let other = home.dir().join("other.pem");
    std::fs::write(&other, made.cert.pem()).unwrap();
    let refused = connect(&url, other.to_str()).unwrap_err();
    assert!(
        matches!(refused, StoreError::Postgres { .. }),
        "{refused:?}"
    );
    assert!(!format!("{refused:?}").contains(url.split(['@', ':']).nth(2).unwrap()));
}

/// Not a test of anything but a measurement: `--nocapture` shows it.
#[test]
fn how_fast_findings_are_applied() {
    const FINDINGS: u64 = 500;
    for place in places() {
        for batch in [1, 100] {
            let mut b = Bench::new(&place, two_receivers());
            let all: Vec<Finding> = (0..FINDINGS).map(finding).collect();
            b.apply(&[finding(FINDINGS)], 0);
            let started = Instant::now();
            for part in all.chunks(batch) {
                b.apply(part, 0);
            }
            let rate = FINDINGS as f64 / started.elapsed().as_secs_f64();
            println!("batches of {batch}: {rate:.0} findings/s");
        }
    }
}
