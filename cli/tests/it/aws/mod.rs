//! Collecting from AWS: every event once, nothing deleted early, and what cannot be had is said.
//!
//! The program reads a queue of moto's server, through a proxy that writes every call down and can refuse some. The
//! objects are those of the generator of CloudTrail files, told of in every shape that AWS has. The tests need
//! `TRAILWARDEN_MOTO`, which `./test` sets, and the generator, which lies beside the checkout.

mod cloudwatch;
mod kinesis;
mod load;
mod moto;
mod role;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::{PATIENCE, Service, command, count, request, text};
use load::{Load, Random};
use moto::{Fate, Moto, Proxy};

/// With these moto is content, and nobody looks for others.
const CREDENTIALS: &[(&str, &str)] = &[
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// A service that reads a queue, and all that it needs.
struct Place {
    folder: tempfile::TempDir,
    moto: Moto,
    proxy: Proxy,
    queue: String,
}

impl Place {
    /// Where the load's objects are, and nobody has told of them yet.
    fn new(load: &Load, attributes: &[(&str, &str)]) -> Option<Place> {
        let moto = Moto::start()?;
        let proxy = Proxy::before(&moto);
        for bucket in load::BUCKETS {
            moto.bucket(bucket);
        }
        for (place, content) in &load.objects {
            let signature = load.signatures.get(place).cloned().unwrap_or_default();
            moto.put(&place.bucket, &place.key, content, &signature);
        }
        let queue = moto.queue("trail", attributes);
        Some(Place {
            folder: tempfile::tempdir().unwrap(),
            moto,
            proxy,
            queue,
        })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the service; `more` are lines of the queue's configuration.
    fn start(&self, more: &str) -> Service {
        self.start_with(more, "")
    }

    /// Starts the service; `who` is what else its access to AWS says.
    fn start_as(&self, who: &str) -> Service {
        self.start_with("", &format!(", {who}"))
    }

    fn start_with(&self, more: &str, who: &str) -> Service {
        let config = self.folder.path().join("config.yaml");
        let proxy = self.proxy.address;
        std::fs::write(
            &config,
            format!(
                "rules: {{paths: [builtin]}}\nsearch: {{publish_after_ms: 300}}\ningest:\n  queues:\n    - url: http://{proxy}{}\n      aws: {{region: us-east-1, endpoint_url: 'http://{proxy}'{who}}}\n{more}",
                self.queue
            ),
        )
        .unwrap();
        Service::start_in("service", &config, &self.data(), &[], CREDENTIALS)
    }

    /// Waits until the queue is empty.
    fn drained(&self) {
        let begin = Instant::now();
        while self.moto.waiting(&self.queue) != (0, 0) {
            assert!(
                begin.elapsed() < 20 * PATIENCE,
                "left in the queue: {:?}",
                self.moto.waiting(&self.queue)
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// The ids of all events in the index, each once.
fn indexed(service: &Service) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let answer = service.get(&format!("/api/v1/search?q=source:aws.*&limit=1000{cursor}"));
        for hit in answer["hits"].as_array().unwrap() {
            let id = hit["source_id"].as_str().unwrap().to_owned();
            assert!(ids.insert(id.clone()), "{id} is in the index twice");
        }
        match answer["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

/// Every dead letter.
fn letters(data: &Path) -> Vec<Value> {
    let listed = command()
        .args(["dead-letters", "list", "--limit", "1000", "--data"])
        .arg(data)
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", text(&listed.stderr));
    text(&listed.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Object and reason of every dead letter.
fn dead_letters(data: &Path) -> BTreeSet<(String, String)> {
    letters(data)
        .iter()
        .map(|letter| {
            let word = |key: &str| letter[key].as_str().unwrap().to_owned();
            (word("object"), word("reason"))
        })
        .collect()
}

#[test]
fn every_shape_of_notification_brings_each_event_once() {
    let events = count("TRAILWARDEN_COLLECTED", 3_000);
    let (accounts, regions) = if events > 10_000 { (3, 4) } else { (1, 3) };
    let Some(load) = Load::generate(events, 3, accounts, regions) else {
        return;
    };
    let Some(place) = Place::new(&load, &[]) else {
        return;
    };
    let mut random = Random(5);
    let mut messages = load.notifications(&mut random);
    // One bucket is in another region.
    place.proxy.judge(|call| {
        let elsewhere = call.path.starts_with("/other-trail/") && call.region != "eu-west-1";
        match elsewhere {
            true => Fate::Elsewhere("eu-west-1"),
            false => Fate::Through,
        }
    });
    // Told of twice, and things that are no objects or none of ours.
    let again: Vec<String> = messages.iter().step_by(20).cloned().collect();
    messages.extend(again);
    messages.extend(load::oddities());
    // And some events come by EventBridge as well.
    messages.extend(load.tee(40));
    random.shuffle(&mut messages);
    place.moto.send(&place.queue, &messages);
    // On a slow machine an answer may come too late; its messages come again soon.
    let service = place.start("      visibility_seconds: 30\n");
    place.drained();
    service.settle_stages(load.ids.len() as u64, PATIENCE);

    assert_eq!(indexed(&service), load.ids);
    let metrics = service.metrics();
    assert!(metrics.contains("trailwarden_ingest_objects_total{outcome=\"repeated\"}"));
    assert!(metrics.contains("trailwarden_match_errors_total{kind=\"id_conflict\"} 0"));
    let deleted = place.proxy.of("sqs:DeleteMessage");
    assert!(
        deleted.len() >= messages.len(),
        "{} deletions",
        deleted.len()
    );
    assert_eq!(service.stop(), Some(0));
    let mut expected = load.bad.clone();
    expected.insert(("sqs".to_owned(), "unknown_object".to_owned()));
    let found = dead_letters(&place.data())
        .into_iter()
        .map(|(object, reason)| match object.starts_with("sqs://") {
            true => ("sqs".to_owned(), reason),
            false => (object, reason),
        });
    assert_eq!(found.collect::<BTreeSet<_>>(), expected);
    policy_allows(&place.proxy);
}

/// Every call that was made is in the policy that the documentation shows.
fn policy_allows(proxy: &Proxy) {
    let made = documented(proxy);
    assert!(made.contains("s3:GetObject"), "{made:?}");
}

/// The calls that were made, each of which the documentation shows in a policy.
fn documented(proxy: &Proxy) -> BTreeSet<String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/collecting.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let made: BTreeSet<String> = proxy.calls().into_iter().map(|c| c.action).collect();
    for action in &made {
        assert!(
            docs.contains(&format!("\"{action}\"")),
            "{action} is in no policy"
        );
    }
    made
}

#[test]
fn killed_again_and_again_nothing_is_lost_or_deleted_early() {
    let kills = count("TRAILWARDEN_KILLS", 20) / 2;
    let Some(load) = Load::generate(1_500 + 50 * kills, 4, 1, 2) else {
        return;
    };
    let Some(place) = Place::new(&load, &[]) else {
        return;
    };
    let mut random = Random(6);
    let messages = load.notifications(&mut random);
    let per_kill = messages.len().div_ceil(kills + 1);
    for some in messages.chunks(per_kill) {
        place.moto.send(&place.queue, some);
        let service = place.start("      visibility_seconds: 2\n      concurrency: 3\n");
        std::thread::sleep(Duration::from_millis(100 + random.below(1_500)));
        service.kill();
        // What was deleted is on the log, whole.
        let on_log = load::ids_on_log(&place.data());
        for call in place.proxy.of("sqs:DeleteMessage") {
            let body: Value = serde_json::from_str(&call.body).unwrap();
            let receipt = body["ReceiptHandle"].as_str().unwrap();
            let told = place.proxy.received(receipt).unwrap();
            for object in load::told_of(&told) {
                let ids = load.ids_of(&object);
                let lost: Vec<_> = ids.difference(&on_log).take(3).collect();
                assert!(
                    lost.is_empty(),
                    "{object:?} was deleted before {lost:?} were there"
                );
            }
        }
    }
    let service = place.start("      visibility_seconds: 2\n");
    place.drained();
    service.settle_stages(load.ids.len() as u64, PATIENCE);
    assert_eq!(indexed(&service), load.ids);
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn while_aws_refuses_everything_waits_and_it_is_said_why() {
    let Some(load) = Load::generate(600, 8, 1, 2) else {
        return;
    };
    let Some(place) = Place::new(&load, &[]) else {
        return;
    };
    place
        .moto
        .send(&place.queue, &load.notifications(&mut Random(1)));
    let refusals: [(&str, u16, &str, &str); 4] = [
        (
            "s3:GetObject",
            403,
            "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
            "denied",
        ),
        (
            "s3:GetObject",
            403,
            "<Error><Code>AccessDenied</Code><Message>User is not authorized to perform: kms:Decrypt on this resource</Message></Error>",
            "kms_key",
        ),
        (
            "sqs:ReceiveMessage",
            403,
            r#"{"__type":"ExpiredTokenException","message":"The security token included in the request is expired"}"#,
            "credentials",
        ),
        (
            "s3:GetObject",
            503,
            "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
            "throttled",
        ),
    ];
    let service = place.start("      visibility_seconds: 2\n");
    for (action, status, answer, kind) in refusals {
        let (action, answer) = (action.to_owned(), answer.to_owned());
        place.proxy.judge(move |call| match call.action == action {
            true => Fate::Answer(status, answer.clone()),
            false => Fate::Through,
        });
        let begin = Instant::now();
        let counted = format!("trailwarden_ingest_errors_total{{kind=\"{kind}\"}}");
        while !service.metrics().contains(&counted) {
            assert!(begin.elapsed() < PATIENCE, "{kind} is not counted");
            std::thread::sleep(Duration::from_millis(100));
        }
        // People are told which collector it is, and what to do.
        queue_is(&service, |queue| {
            queue["fault"] == kind && queue["state"] == "failing" && queue["hint"] != ""
        });
    }
    // A connection that breaks is no broken object.
    let cut = std::sync::atomic::AtomicU32::new(0);
    place.proxy.judge(move |call| {
        let nth = cut.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match call.action == "s3:GetObject" && nth < 40 && nth.is_multiple_of(3) {
            true => Fate::Cut,
            false => Fate::Through,
        }
    });
    place.drained();
    service.settle_stages(load.ids.len() as u64, PATIENCE);
    assert_eq!(indexed(&service), load.ids);
    queue_is(&service, |queue| queue["state"] == "well");
    assert_eq!(service.stop(), Some(0));
    assert_eq!(dead_letters(&place.data()), load.bad);
}

/// Waits until what is told of the queue is as it should be.
fn queue_is(service: &Service, good: impl Fn(&Value) -> bool) {
    let begin = Instant::now();
    loop {
        let report = service.get("/api/v1/sources");
        let collectors = report["collectors"].as_array().unwrap().clone();
        let queue = collectors.into_iter().find(|c| c["kind"] == "queue");
        if queue.as_ref().is_some_and(&good) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{queue:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn what_is_not_there_becomes_a_dead_letter_after_its_tries() {
    let Some(load) = Load::generate(200, 9, 1, 2) else {
        return;
    };
    let Some(place) = Place::new(&load, &[]) else {
        return;
    };
    let absent = json!({"s3Bucket": load::BUCKETS[0], "s3ObjectKey": ["AWSLogs/1/gone.json.gz"]});
    let elsewhere = json!({"s3Bucket": load::BUCKETS[0], "s3ObjectKey": ["other/ignored.txt"]});
    let mut messages = load.notifications(&mut Random(1));
    messages.extend([absent.to_string(), elsewhere.to_string()]);
    place.moto.send(&place.queue, &messages);
    let service = place.start(
        "      visibility_seconds: 30\n      tries: 1\n      prefixes: [AWSLogs/, audit trail/]\n",
    );
    place.drained();
    service.settle_stages(load.ids.len() as u64, PATIENCE);
    assert!(
        service
            .metrics()
            .contains("trailwarden_ingest_events_dropped_total{reason=\"foreign_object\"}")
    );
    assert_eq!(service.stop(), Some(0));
    let gone = format!("s3://{}/AWSLogs/1/gone.json.gz", load::BUCKETS[0]);
    let letters = letters(&place.data());
    let letter = letters.iter().find(|l| l["object"] == gone.as_str());
    let letter = letter.unwrap_or_else(|| panic!("{letters:?}"));
    assert_eq!(letter["reason"], "object_missing");
    // There is nothing of it that could be read again.
    let replayed = command()
        .args([
            "dead-letters",
            "replay",
            letter["place"].as_str().unwrap(),
            "--data",
        ])
        .arg(place.data())
        .output()
        .unwrap();
    assert_eq!(replayed.status.code(), Some(3));
    assert!(
        text(&replayed.stderr).contains("could not be read"),
        "{}",
        text(&replayed.stderr)
    );
}

#[test]
fn a_message_is_held_for_as_long_as_its_object_takes() {
    let Some(load) = Load::generate(200, 51, 1, 1) else {
        return;
    };
    let Some(place) = Place::new(&load, &[]) else {
        return;
    };
    let slow = load.log_files()[0].clone();
    let path = format!("/{}/{}", slow.bucket, moto::encoded(&slow.key));
    let judged = path.clone();
    place.proxy.judge(move |call| {
        if call.path == judged {
            std::thread::sleep(Duration::from_secs(7));
        }
        Fate::Through
    });
    let message = json!({"s3Bucket": slow.bucket, "s3ObjectKey": [slow.key]});
    place.moto.send(&place.queue, &[message.to_string()]);
    // Three times as long as a message may stay invisible.
    let service = place.start("      visibility_seconds: 2\n");
    place.drained();
    let ids = load.ids_of(&slow);
    service.settle_stages(ids.len() as u64, PATIENCE);
    assert_eq!(indexed(&service), ids);
    assert_eq!(service.stop(), Some(0));
    let answers = place.proxy.of("sqs:ReceiveMessage").into_iter();
    let received = answers.filter_map(|c| c.answer["Messages"].as_array().map(Vec::len));
    assert_eq!(received.sum::<usize>(), 1, "delivered again");
    let fetched = place.proxy.of("s3:GetObject").into_iter();
    assert_eq!(
        fetched.filter(|c| c.path == path).count(),
        1,
        "fetched again"
    );
    assert!(place.proxy.of("sqs:ChangeMessageVisibility").len() >= 5);
}

#[test]
fn what_no_queue_told_of_is_found_and_read() {
    let Some(load) = Load::generate(600, 12, 1, 2) else {
        return;
    };
    let Some(place) = Place::new(&load, &[]) else {
        return;
    };
    let reconcile = |more: &[&str]| {
        let proxy = place.proxy.address;
        let config = place.folder.path().join("reconcile.yaml");
        let buckets: Vec<String> = load::BUCKETS
            .iter()
            .map(|b| format!("    - bucket: {b}\n      aws: {{region: us-east-1, endpoint_url: 'http://{proxy}'}}\n"))
            .collect();
        std::fs::write(
            &config,
            format!("ingest:\n  buckets:\n{}", buckets.concat()),
        )
        .unwrap();
        let output = command()
            .arg("reconcile")
            .arg("--config")
            .arg(&config)
            .arg("--data")
            .arg(place.data())
            .args(["--from", "2026-01-01"])
            .args(more)
            .envs(CREDENTIALS.iter().copied())
            .output()
            .unwrap();
        let said: Vec<Value> = text(&output.stdout)
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        let tallies = said.iter().filter(|v| v["bucket"].is_string());
        let sum = |key: &str| {
            tallies
                .clone()
                .map(|t| t[key].as_u64().unwrap())
                .sum::<u64>()
        };
        let missing = said
            .iter()
            .filter(|v| v["missing_object"].is_string())
            .count() as u64;
        assert_eq!(missing, sum("missing"), "{}", text(&output.stderr));
        (output.status.code(), sum("listed"), missing, sum("fetched"))
    };
    let all = load.objects.len() as u64;
    // The queue tells of every second object only.
    let some: Vec<String> = load.notifications(&mut Random(2));
    place.moto.send(&place.queue, &some[..some.len() / 2]);
    let service = place.start("      visibility_seconds: 30\n");
    place.drained();
    assert_eq!(service.stop(), Some(0));
    let (code, listed, missing, fetched) = reconcile(&[]);
    assert_eq!((code, listed, fetched), (Some(1), all, 0));
    assert!(missing > all / 4 && missing < all, "{missing} of {all}");
    assert_eq!(reconcile(&["--fetch"]), (Some(0), all, missing, missing));
    assert_eq!(reconcile(&["--fetch"]), (Some(0), all, 0, 0));
    // Nothing was written that long ago.
    assert_eq!(
        reconcile(&["--to", "2026-01-02", "--folder-days", "0"]),
        (Some(0), 0, 0, 0)
    );
    let service = place.start("");
    service.settle_stages(load.ids.len() as u64, PATIENCE);
    assert_eq!(indexed(&service), load.ids);
    let alerts = |service: &Service| {
        let found = service.get("/api/v1/alerts?state=all&limit=500");
        let alerts = found["alerts"].as_array().unwrap().iter();
        let told = alerts.filter(|a| a["source"].as_str().unwrap().starts_with("aws."));
        told.map(|a| (a["id"].to_string(), a["count"].to_string()))
            .collect::<BTreeSet<_>>()
    };
    let told = alerts(&service);
    assert!(!told.is_empty());
    assert_eq!(service.stop(), Some(0));

    // The index loses everything, and has it from S3 again; no rule tells of it a second time.
    let removed = command()
        .args(["index", "remove", "--older-than", "now", "--yes"])
        .args(["--reason", "a lost disk", "--data"])
        .arg(place.data())
        .output()
        .unwrap();
    assert!(removed.status.success(), "{}", text(&removed.stderr));
    let service = place.start("");
    assert_eq!(indexed(&service), BTreeSet::new());
    assert_eq!(service.stop(), Some(0));
    for _ in 0..2 {
        assert_eq!(reconcile(&["--restore"]), (Some(0), all, 0, all));
        let service = place.start("");
        service.settle_stages(load.ids.len() as u64, PATIENCE);
        assert_eq!(indexed(&service), load.ids);
        assert_eq!(alerts(&service), told);
        assert_eq!(service.stop(), Some(0));
    }
    assert_eq!(reconcile(&["--fetch"]), (Some(0), all, 0, 0));
    policy_allows(&place.proxy);
}

/// moto knows nothing of CloudTrail's keys: the proxy tells of them as CloudTrail does.
fn tell_of_keys(proxy: &Proxy, load: &Load) {
    let answer = load.keys.to_string();
    proxy.judge(
        move |call| match call.action == "cloudtrail:ListPublicKeys" {
            true => Fate::Answer(200, answer.clone()),
            false => Fate::Through,
        },
    );
}

/// Kind and object of every violation that `verify` finds in a bucket.
fn verified(place: &Place, bucket: &str) -> (Option<i32>, BTreeSet<(String, String)>) {
    let proxy = place.proxy.address;
    let config = place.folder.path().join("verify.yaml");
    std::fs::write(
        &config,
        format!("ingest: {{buckets: [{{bucket: {bucket}, aws: {{region: us-east-1, endpoint_url: 'http://{proxy}'}}}}]}}\n"),
    )
    .unwrap();
    let output = command()
        .args(["verify", &format!("s3://{bucket}"), "--config"])
        .arg(&config)
        .envs(CREDENTIALS.iter().copied())
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let all = lines
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    let violations = all.filter(|v| v["kind"].is_string());
    let named = violations.map(|v| {
        let word = |key: &str| v[key].as_str().unwrap().to_owned();
        (word("kind"), word("object"))
    });
    (output.status.code(), named.collect())
}

/// Waits until what the events of each object of a bucket say of their integrity is as it should be, of so many events.
fn integrity(
    service: &Service,
    bucket: &str,
    events: usize,
    good: impl Fn(&BTreeMap<String, BTreeSet<String>>) -> bool,
) {
    let begin = Instant::now();
    loop {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        let mut cursor = Some(String::new());
        while let Some(after) = cursor.take() {
            let answer = service.get(&format!(
                "/api/v1/search?q=source:aws.cloudtrail&limit=1000{after}"
            ));
            for hit in answer["hits"].as_array().unwrap() {
                let object = hit["origin"]["object"].as_str().unwrap();
                // An object that was read again has a number behind.
                let key = object.strip_prefix(&format!("s3://{bucket}/")).unwrap();
                let key = key.split('#').next().unwrap();
                let said = hit["integrity"].as_str().unwrap().to_owned();
                found.entry(key.to_owned()).or_default().insert(said);
                ids.insert(hit["source_id"].as_str().unwrap().to_owned());
            }
            cursor = answer["next"]
                .as_str()
                .map(|next| format!("&cursor={next}"));
        }
        if ids.len() == events && good(&found) {
            return;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "{} of {events}: {found:?}",
            ids.len()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn what_is_changed_in_the_bucket_is_an_alert() {
    let Some(mut load) = Load::generate(600, 21, 1, 1) else {
        return;
    };
    // Broken objects are in no digest; here only what is done by hand is to be found.
    let broken = std::mem::take(&mut load.broken);
    load.objects.retain(|place, _| !broken.contains(place));
    let Some(place) = Place::new(&load, &[]) else {
        return;
    };
    let proxy = place.proxy.address;
    tell_of_keys(&place.proxy, &load);
    let bucket = load::BUCKETS[0];
    assert_eq!(verified(&place, bucket), (Some(0), BTreeSet::new()));

    // By hand, after the service has read it all: one file is changed, one is removed, one is added.
    let config = place.folder.path().join("looks.yaml");
    // The files are of March, and written now: so far back their folders are looked into.
    std::fs::write(
        &config,
        format!("search: {{publish_after_ms: 300}}\ningest: {{buckets: [{{bucket: {bucket}, look_back_hours: 8784, aws: {{region: us-east-1, endpoint_url: 'http://{proxy}'}}}}]}}\n"),
    )
    .unwrap();
    let look = || {
        let before = place.proxy.of("cloudtrail:ListPublicKeys").len();
        let service = Service::start_in("service", &config, &place.data(), &[], CREDENTIALS);
        let begin = Instant::now();
        while place.proxy.of("cloudtrail:ListPublicKeys").len() == before {
            assert!(begin.elapsed() < PATIENCE, "the bucket is not verified");
            std::thread::sleep(Duration::from_millis(100));
        }
        service
    };
    let violations = |service: &Service| {
        let answer = service.get("/api/v1/search?q=category:Integrity&limit=100");
        let hits = answer["hits"].as_array().unwrap().clone();
        let named = hits.iter().map(|hit| {
            let object = hit["resources"][0].as_str().unwrap();
            let key = object.strip_prefix(&format!("s3://{bucket}/")).unwrap();
            (
                hit["error_code"].as_str().unwrap().to_owned(),
                key.to_owned(),
            )
        });
        named.collect::<Vec<_>>()
    };
    let service = look();
    service.settle_stages(load.ids.len() as u64, PATIENCE);
    assert_eq!(violations(&service), []);
    // Every event of the bucket is vouched for; nobody can ask for what the index cannot know.
    let events = load.ids.len();
    integrity(&service, bucket, events, |found| {
        found.values().all(|i| *i == ["attested".to_owned()].into())
    });
    let (status, answer) = request(
        service.address,
        "GET",
        "/api/v1/search?q=integrity:failed",
        &[],
        b"",
    )
    .unwrap();
    assert_eq!(status, 400, "{}", text(&answer));
    assert_eq!(service.stop(), Some(0));

    let logs = load.log_files();
    let (changed, removed) = (&logs[3], &logs[7]);
    let mut bytes = load.objects[changed].clone();
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    let none = BTreeMap::new();
    place.moto.put(bucket, &changed.key, &bytes, &none);
    place.moto.delete(bucket, &removed.key);
    let (before, unique) = logs[5].key.rsplit_once('_').unwrap();
    let added = format!("{before}_Made0up{}", &unique[7..]);
    place
        .moto
        .put(bucket, &added, &load.objects[&logs[5]], &none);
    let expected = BTreeSet::from([
        ("log-changed".to_owned(), changed.key.clone()),
        ("log-missing".to_owned(), removed.key.clone()),
        ("log-unattested".to_owned(), added.clone()),
    ]);
    assert_eq!(verified(&place, bucket), (Some(1), expected.clone()));
    // Each is said once, however often the bucket is looked through.
    for _ in 0..2 {
        let service = look();
        let begin = Instant::now();
        while violations(&service).len() < expected.len() {
            assert!(begin.elapsed() < PATIENCE, "{:?}", violations(&service));
            std::thread::sleep(Duration::from_millis(200));
        }
        let alerts = || {
            service.get("/api/v1/alerts?limit=500")["alerts"]
                .as_array()
                .unwrap()
                .clone()
        };
        let of_integrity = || {
            let title = "Log files are not what CloudTrail vouches for";
            alerts().into_iter().filter(|a| a["title"] == title).count()
        };
        while of_integrity() == 0 {
            assert!(begin.elapsed() < PATIENCE, "{:?}", alerts());
            std::thread::sleep(Duration::from_millis(200));
        }
        let found = violations(&service);
        assert_eq!(found.len(), expected.len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
        // What was read of the changed file is no longer vouched for, nor what the added one brought; of the others it is,
        // also of the removed one.
        integrity(&service, bucket, events, |found| {
            found.iter().all(|(key, said)| {
                let bad = *key == changed.key || *key == added;
                *said == [if bad { "failed" } else { "attested" }.to_owned()].into()
            }) && found.contains_key(&changed.key)
        });
        assert_eq!(service.stop(), Some(0));
    }
    // What was read was not fetched again to be verified.
    let fetched = |key: &str| {
        let path = format!("/{bucket}/{}", moto::encoded(key));
        let gets = place.proxy.of("s3:GetObject").into_iter();
        gets.filter(|c| c.path == path).count()
    };
    // Twice by the command, once by the service.
    assert_eq!(fetched(&logs[9].key), 3);
    policy_allows(&place.proxy);
}

#[test]
fn a_backfill_is_done_once_and_names_what_it_cannot_read() {
    let Some(load) = Load::generate(300, 31, 1, 1) else {
        return;
    };
    let Some(place) = Place::new(&load, &[]) else {
        return;
    };
    let (bucket, proxy) = (load::BUCKETS[0], place.proxy.address);
    let refused = load.log_files()[4].clone();
    let path = format!("/{bucket}/{}", moto::encoded(&refused.key));
    place.proxy.judge(move |call| match call.path == path {
        true => Fate::Answer(
            403,
            "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>".into(),
        ),
        false => Fate::Through,
    });
    let config = place.folder.path().join("backfill.yaml");
    std::fs::write(
        &config,
        format!("search: {{publish_after_ms: 300}}\ningest: {{buckets: [{{bucket: {bucket}, from: '2026-01-01T00:00:00Z', verify: false, aws: {{region: us-east-1, endpoint_url: 'http://{proxy}'}}}}]}}\n"),
    )
    .unwrap();
    let rest = load
        .ids
        .difference(&load.ids_of(&refused))
        .cloned()
        .collect::<BTreeSet<_>>();
    for nth in 0..2 {
        let before = place.proxy.calls().len();
        let service = Service::start_in("service", &config, &place.data(), &[], CREDENTIALS);
        let listed = || {
            let calls = place.proxy.calls();
            let lists = calls[before..]
                .iter()
                .filter(|c| c.action == "s3:ListBucket");
            lists.map(|c| c.query.clone()).collect::<Vec<_>>()
        };
        let begin = Instant::now();
        // A round counts when it is over.
        while listed().is_empty()
            || !service
                .metrics()
                .contains("trailwarden_ingest_objects_total{outcome=\"read\"}")
        {
            assert!(begin.elapsed() < PATIENCE, "{:?}", listed());
            std::thread::sleep(Duration::from_millis(100));
        }
        service.settle_stages(rest.len() as u64, PATIENCE);
        assert!(indexed(&service).is_superset(&rest));
        assert_eq!(service.stop(), Some(0));
        // The days of March are only looked into for the backfill.
        let march = listed()
            .iter()
            .any(|q| q.contains("2026%2F03%2F02") || q.contains("2026/03/02"));
        assert_eq!(march, nth == 0, "{:?}", listed());
        let named = format!("s3://{bucket}/{}", refused.key);
        let denied = letters(&place.data());
        let denied = denied.iter().filter(|l| l["object"] == named.as_str());
        assert_eq!(
            denied.map(|l| l["reason"].clone()).collect::<Vec<_>>(),
            ["object_denied"]
        );
    }
}

#[test]
fn without_credentials_it_is_said_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["reconcile", "s3://some-bucket", "--data"][..],
        &["verify", "s3://some-bucket", "--config"],
    ] {
        let last = match args[0] {
            "verify" => {
                let empty = folder.path().join("empty.yaml");
                std::fs::write(&empty, "").unwrap();
                empty
            }
            _ => folder.path().join("data"),
        };
        let output = command()
            .args(args)
            .arg(last)
            .env_clear()
            .env("HOME", folder.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("no credentials found"), "{said}");
        assert!(
            said.contains("\n\nhint: give the process credentials"),
            "{said}"
        );
        assert!(!said.contains("Failure("), "{said}");
        assert!(said.lines().count() < 6, "{said}");
    }
}
