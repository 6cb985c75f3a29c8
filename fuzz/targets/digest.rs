//! A store with any objects in it, named as CloudTrail names them, verified with any keys: it comes to an end, and what is
//! signed by nobody vouches for nothing.
//!
//! Each line is an object: name, signature and content, separated by tabs. The first line is the answer of
//! ListPublicKeys.

#![no_main]

use std::collections::BTreeMap;
use std::io;

use event::Time;
use ingest::digest::{self, Job, Metadata, Object, Objects, PublicKeys};
use libfuzzer_sys::fuzz_target;

struct Store<'i>(BTreeMap<&'i str, (&'i str, &'i [u8])>);

impl Objects for Store<'_> {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.keys().map(|name| (*name).to_owned()).collect())
    }

    fn get(&self, name: &str) -> io::Result<Option<Object<'_>>> {
        Ok(self.0.get(name).map(|(signature, content)| Object {
            content: Box::new(*content),
            metadata: Metadata {
                signature: (!signature.is_empty()).then(|| (*signature).to_owned()),
                algorithm: Some("SHA256withRSA".to_owned()),
            },
        }))
    }

    fn locate(&self, _: &str, key: &str) -> Option<String> {
        Some(key.to_owned())
    }
}

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|b| *b == b'\n');
    let mut keys = PublicKeys::default();
    let _ = keys.add(lines.next().unwrap_or_default());
    let mut store = Store(BTreeMap::new());
    for line in lines {
        let mut parts = line.splitn(3, |b| *b == b'\t');
        let mut text = || parts.next().map(std::str::from_utf8);
        let (Some(Ok(name)), Some(Ok(signature))) = (text(), text()) else {
            continue;
        };
        store.0.insert(name, (signature, parts.next().unwrap_or_default()));
    }
    for name in store.0.keys() {
        let (time, log) = (digest::time_of(name), digest::log_named(name));
        assert!(log.is_none() || time.is_some(), "{name}");
        // One of both, or a log file that does not tell its time.
        let known = digest::regions([*name]).len() + usize::from(log.is_some());
        assert!(known <= usize::from(digest::is_of_trail(name)), "{name}");
    }
    let now = Time::parse("2026-03-05T00:00:00Z").expect("a time");
    for from in [None, Some(now.plus(-86_400_000_000))] {
        let job = Job {
            from,
            ..Job::new(&store, &keys, now)
        };
        let report = digest::verify(&job).expect("reading memory does not fail");
        let attested: usize = report.coverage.iter().map(|c| c.spans.len()).sum();
        assert!(!keys.is_empty() || attested == 0, "{report:?}");
    }
});
