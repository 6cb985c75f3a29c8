//! Any field paths over any JSON: what [`FieldSet`] finds in one walk is what a lookup path by path finds.
//!
//! The first line is the paths, separated by tabs; the rest is the record.

#![no_main]

use event::json::{Doc, Kind, Value};
use event::path::{FieldSet, Slots};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let at = input.iter().position(|b| *b == b'\n').unwrap_or(input.len());
    let Ok(paths) = std::str::from_utf8(&input[..at]) else {
        return;
    };
    let record = &input[(at + 1).min(input.len())..];
    // In keys that are no UTF-8 there are signs that no path has.
    if std::str::from_utf8(record).is_err() {
        return;
    }
    let Ok(doc) = Doc::parse(record) else { return };
    let root = doc.root(record);
    let mut fields = FieldSet::new();
    let slots: Vec<_> = paths.split('\t').take(20).map(|p| (p, fields.slot(p))).collect();
    let mut found = Slots::new();
    fields.extract(root, &mut found);
    for (path, slot) in slots {
        assert_eq!(fields.name(slot), path);
        let values = found.all(slot).map(|index| root.with_index(index));
        let values: Vec<_> = values.map(|v| (v.span(), v.kind())).collect();
        assert_eq!(found.is_absent(slot), values.is_empty(), "{path}");
        let parts: Vec<&str> = path.split('.').collect();
        let expected = lookup(root, &parts).into_iter();
        let expected: Vec<_> = expected.map(|v| (v.span(), v.kind())).collect();
        assert_eq!(values, expected, "{path}");
    }
});

/// What a path stands for: arrays on the way and at the end are entered, a key with dots is several steps.
fn lookup<'a>(value: Value<'a>, parts: &[&str]) -> Vec<Value<'a>> {
    match (value.kind(), parts) {
        (Kind::Array, []) => value.children().collect(),
        (_, []) => vec![value],
        (Kind::Array, _) => {
            let objects = value.children().filter(|v| v.kind() == Kind::Object);
            objects.flat_map(|v| lookup(v, parts)).collect()
        }
        (Kind::Object, _) => {
            let step = |child: Value<'a>| {
                let key = child.key().unwrap_or_default();
                let steps: Vec<&str> = key.split('.').collect();
                match parts.strip_prefix(&steps[..]) {
                    Some(rest) => lookup(child, rest),
                    None => Vec::new(),
                }
            };
            value.children().flat_map(step).collect()
        }
        _ => Vec::new(),
    }
}
