//! How many events a second one core decodes and normalizes.
//!
//! `cargo bench -p ingest -- FOLDER` reads every file below FOLDER (made by a generator or real) five times,
//! without and with normalizing and redacting, and prints the best pass of each. Time on the processor counts where the
//! system tells it, so that other work on the machine does not. It checks nothing.

#![expect(clippy::print_stdout, reason = "a bench prints its numbers")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use event::Time;
use ingest::config::Redaction;
use ingest::decode::{Decoder, Item, Job, Limits};
use ingest::metrics::Metrics;
use ingest::normalize::{Context, Normalizer};
use ingest::redact::{Key, Redactor};

fn main() {
    let folder = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let Some(folder) = folder else {
        println!("usage: cargo bench -p ingest -- FOLDER");
        return;
    };
    let mut files = Vec::new();
    collect(Path::new(&folder), &mut files);
    files.sort();
    let redactor = redactor();
    let off = Redactor::off();
    for (name, redactor, keep_raw, sha256) in [
        ("decode", None, false, false),
        ("decode + normalize", Some(&off), false, false),
        (
            "decode + normalize + copy of the original",
            Some(&off),
            true,
            false,
        ),
        ("the same + redact", Some(&redactor), true, false),
        ("the same without redact, + sha256", Some(&off), true, true),
    ] {
        let best = (0..5)
            .map(|_| pass(&files, redactor, keep_raw, sha256))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((rate, events, bad)) = best {
            println!(
                "{name:<45} {rate:>10.0} events/s  {:>6.2} us/event  ({events} events, {bad} bad)",
                1e6 / rate
            );
        }
    }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(path) else {
        files.push(path.to_owned());
        return;
    };
    for entry in entries.flatten() {
        collect(&entry.path(), files);
    }
}

/// The shipped set over every source, also over those that it leaves alone by default.
fn redactor() -> Redactor {
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("a new registry is empty");
    let config = Redaction {
        except_sources: Vec::new(),
        ..Redaction::default()
    };
    Redactor::new(&config, Key::new(b"a key for this bench"), &metrics)
        .expect("the defaults are good")
}

fn pass(
    files: &[PathBuf],
    redactor: Option<&Redactor>,
    keep_raw: bool,
    sha256: bool,
) -> (f64, u64, u64) {
    let mut decoder = Decoder::new(Limits::of_files());
    let mut normalizer = Normalizer::new();
    let job = Job {
        sha256,
        ..Job::default()
    };
    let (mut events, mut bad) = (0, 0);
    let (start, start_cpu) = (Instant::now(), cpu_seconds());
    for path in files {
        let context = Context {
            ingest_time: Time::from_seconds(1_800_000_000),
            object: path.to_string_lossy().as_ref().into(),
            keep_raw,
        };
        let summary = decoder.file(path, &job, &mut |item| {
            if let Item::Record(record) = item
                && let Some(redactor) = redactor
            {
                let event = normalizer.redacted_event(&record, &context, redactor);
                std::hint::black_box(event);
            }
            ControlFlow::Continue(())
        });
        if let Ok(summary) = summary {
            events += summary.records;
            bad += summary.bad;
        }
    }
    let seconds = match (start_cpu, cpu_seconds()) {
        (Some(before), Some(after)) => after - before,
        _ => start.elapsed().as_secs_f64(),
    };
    (events as f64 / seconds, events, bad)
}

/// How long this thread has been on a processor.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = text.split(' ').next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}
