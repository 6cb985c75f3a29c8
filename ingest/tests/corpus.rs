//! Public events and logs that nobody here wrote, read as a collector meets them.
//!
//! The corpus lies beside the project and is not part of it; where it is absent the tests say so and pass.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use event::{Event, Time};
use ingest::config::Redaction;
use ingest::decode::{Decoder, Item, Job, Limits};
use ingest::metrics::Metrics;
use ingest::normalize::{Context, Normalizer};
use ingest::redact::{Key, Redactor};

#[derive(Default)]
struct Read {
    events: Vec<Event>,
    bad: BTreeMap<String, Vec<String>>,
}

/// Everything below a folder of the corpus; `None` if it is absent.
fn read(folder: &str) -> Option<Read> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = ["../../shared/corpus", "../../../shared/corpus"]
        .map(|up| here.join(up).join(folder))
        .into_iter()
        .find(|p| p.is_dir());
    let Some(root) = root else {
        println!("skipped: no corpus folder `{folder}`");
        return None;
    };
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let mut read = Read::default();
    let mut decoder = Decoder::new(Limits::of_files());
    let mut normalizer = Normalizer::new();
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let context = Context {
            ingest_time: Time::parse("2027-01-01T00:00:00Z").unwrap(),
            object: path.to_string_lossy().as_ref().into(),
            keep_raw: true,
        };
        decoder
            .file(&path, &Job::default(), &mut |item| {
                match item {
                    Item::Record(r) => read.events.push(normalizer.event(&r, &context)),
                    Item::Bad(b) => read
                        .bad
                        .entry(name.clone())
                        .or_default()
                        .push(b.reason.as_str().to_owned()),
                }
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    Some(read)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

#[test]
fn cloudtrail_events() {
    let Some(read) = read("events") else { return };
    // Only the licences beside the data are no events.
    let licences: Vec<_> = read.bad.iter().map(|(n, r)| (n.as_str(), r)).collect();
    assert!(
        licences.iter().all(|(name, _)| *name == "LICENSE"),
        "{licences:?}"
    );
    assert_eq!(read.events.len(), 103 + 196 + 1_448 + 301);
    for event in &read.events {
        let raw = String::from_utf8_lossy(&event.raw);
        assert_eq!(event.source, "aws.cloudtrail", "{raw}");
        assert!(event.flags.is_empty(), "{:?} {raw}", event.flags);
        let filled = [&event.action, &event.service, &event.source_id];
        assert!(filled.iter().all(|t| !t.is_empty()), "{raw}");
        assert_eq!(Event::decode(&event.encode().into()).unwrap(), *event);
    }
    let without = |empty: fn(&Event) -> bool| read.events.iter().filter(|e| empty(e)).count();
    let (actors, identities) = (
        without(|e| e.actor.is_empty()),
        without(|e| e.identity.is_empty()),
    );
    assert!(actors < 20 && identities < 20, "{actors}, {identities}");
}

#[test]
fn function_logs() {
    let Some(read) = read("lambda") else { return };
    assert_eq!(read.bad.keys().collect::<Vec<_>>(), ["LICENSE"]);
    let mut sources: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &read.events {
        *sources.entry(event.source.as_str()).or_default() += 1;
    }
    println!("{sources:?}");
    let reports: Vec<_> = read
        .events
        .iter()
        .filter(|e| e.action == "platform.report")
        .collect();
    assert!(reports.len() >= 2, "{sources:?}");
    for report in reports {
        let invocation = report.invocation.as_ref().unwrap();
        assert!(invocation.duration_ms.is_some(), "{report:?}");
    }
    let timeouts = read
        .events
        .iter()
        .filter(|e| e.action == "platform.timeout");
    assert_eq!(timeouts.count(), 1);
}

/// What public events have is hardly ever secret: of 2,250 function logs nothing is replaced, of 2,048 events of
/// CloudTrail (asked although they are left alone by default) the session tokens of 15 logins to the console.
#[test]
fn benign_records_stay() {
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let config = Redaction {
        except_sources: Vec::new(),
        ..Redaction::default()
    };
    let redactor = Redactor::new(&config, Key::new(b"a key for this test"), &metrics).unwrap();
    for (folder, expected) in [("lambda", 0), ("events", 15)] {
        let Some(read) = read(folder) else { return };
        let mut replaced = Vec::new();
        for event in &read.events {
            let is_json = event::json::Doc::parse(&event.raw).is_ok();
            if let Some(new) = redactor.record(&event.source, &event.raw, is_json) {
                replaced.push(String::from_utf8(new).unwrap());
            }
        }
        println!(
            "{folder}: {} of {} records changed",
            replaced.len(),
            read.events.len()
        );
        assert_eq!(replaced.len(), expected, "{replaced:#?}");
        let token = "\"sessionToken\":\"[redacted:aws_session_token:";
        assert!(replaced.iter().all(|r| r.contains(token)), "{replaced:#?}");
    }
}
