//! Any record through redaction: JSON stays JSON with the same shape, what was redacted stays as it is when it is redacted
//! again, and the sealed original is the record.

#![no_main]

use std::cell::OnceCell;

use ingest::config::Redaction;
use ingest::metrics::Metrics;
use ingest::redact::{Key, Redactor};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const SECRET: &[u8] = b"a key of at least thirty-two bytes, for nobody";

thread_local! {
    static REDACTOR: OnceCell<Redactor> = const { OnceCell::new() };
}

fn redactor() -> Redactor {
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("a registry of its own");
    Redactor::new(&Redaction::default(), Key::new(SECRET), &metrics).expect("the default works")
}

fuzz_target!(|text: &[u8]| {
    REDACTOR.with(|cell| check(cell.get_or_init(redactor), text));
});

fn check(redactor: &Redactor, text: &[u8]) {
    let before = serde_json::from_slice::<Value>(text).ok();
    let is_json = before.as_ref().is_some_and(Value::is_object);
    let Some(redacted) = redactor.record("aws.lambda", text, is_json) else {
        return;
    };
    assert_ne!(redacted, text);
    if let Some(before) = before.filter(|_| is_json) {
        let after: Value = serde_json::from_slice(&redacted).expect("JSON stays JSON");
        assert_eq!(keys(&before), keys(&after));
    }
    assert_eq!(redactor.record("aws.lambda", &redacted, is_json), None);
    let sealed = redactor.original(text);
    assert_eq!(Key::new(SECRET).open(&sealed).expect("sealed by this key"), text);
}

/// How many members the object has.
fn keys(value: &Value) -> Option<usize> {
    value.as_object().map(serde_json::Map::len)
}
