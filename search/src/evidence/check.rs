//! Holds the index on the disk to the evidence log.
//!
//! What is published is asked of `manifest.json`, which names what searches read. Folders that nobody published are what
//! a crash or a full disk leaves, or are being built: they are mentioned, and no sign of tampering.

use std::collections::BTreeMap;
use std::path::Path;

use bus::ledger::{Files, Held, History, LedgerError, Problem, State, What};
use serde_json::Value;

use super::seal;
use crate::manifest::Manifest;
use crate::split::Meta;

/// The bytes that [`check`] reads, for a progress bar.
pub fn bytes(state: &State) -> u64 {
    let bytes = |held: &Held| held.added.meta["bytes"].as_u64();
    state.splits.values().filter_map(bytes).sum()
}

/// Holds the index in `dir` to what was written down of it. `seen` is told how many bytes were read.
///
/// # Errors
/// The evidence log cannot be read. A file of the index that cannot be read is a problem like others.
pub fn check(
    dir: &Path,
    history: &History,
    seen: &dyn Fn(u64),
) -> Result<Vec<Problem>, LedgerError> {
    let mut problems = Vec::new();
    let manifest = match Manifest::read(dir) {
        Ok(manifest) => manifest.map_or_else(Vec::new, |m| m.splits),
        Err(error) => {
            let words = format!("the list of splits cannot be read: {error}");
            problems.push(Problem::new(What::Changed, "index/manifest.json", words));
            Vec::new()
        }
    };
    let listed: BTreeMap<u64, &Meta> = manifest.iter().map(|m| (m.number, m)).collect();
    if listed.len() != manifest.len() {
        let words = "the list of splits names one twice";
        problems.push(Problem::new(What::Changed, "index/manifest.json", words));
    }
    let state = &history.state;
    // A publication that was cut off, or is under way, may be there or not.
    let before = state.pending.as_ref().map(|pending| state.without(pending));
    let before = before.filter(|splits| splits.keys().eq(listed.keys()));
    let expected = before.as_ref().unwrap_or(&state.splits);
    for (number, held) in expected {
        let place = place(*number);
        let Some(meta) = listed.get(number) else {
            let words = format!(
                "split {number} is gone, and nothing replaced it: {}",
                about(held)
            );
            problems.push(Problem::new(What::Removed, place, words));
            continue;
        };
        if serde_json::to_value(meta).ok().as_ref() != Some(&held.added.meta) {
            let words = format!("what the list says of split {number} is not what was published");
            problems.push(Problem::new(What::Changed, "index/manifest.json", words));
        }
        let folder = Meta::folder(&dir.join("splits"), *number);
        let list = history.files(*number)?;
        problems.extend(split(&place, &folder, held, list, seen));
    }
    for number in listed.keys().filter(|n| !expected.contains_key(n)) {
        let words = format!("split {number} is listed, and the service never published it");
        problems.push(Problem::new(What::Inserted, place(*number), words));
    }
    let folders = std::fs::read_dir(dir.join("splits")).into_iter().flatten();
    for folder in folders.flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        let known = |number: &u64| Meta::folder(Path::new(""), *number) == Path::new(&name);
        if !expected.keys().chain(listed.keys()).any(known) {
            let place = format!("index/splits/{name}");
            let words = "not published: no search reads it, and the next start deletes it";
            problems.push(Problem::new(What::Unproven, place, words));
        }
    }
    Ok(problems)
}

fn place(number: u64) -> String {
    format!("index/splits/{number:016x}")
}

fn about(held: &Held) -> String {
    let text = |name: &str| match &held.added.meta[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!(
        "{} events of {} to {}, published {}",
        text("events"),
        text("earliest"),
        text("latest"),
        held.time
    )
}

/// What is wrong with the files of a split.
fn split(
    place: &str,
    folder: &Path,
    held: &Held,
    list: Option<Files>,
    seen: &dyn Fn(u64),
) -> Vec<Problem> {
    let found = match seal::files(folder, seen) {
        Ok(found) => found,
        Err(error) => {
            let words = format!("cannot be read: {error}; {}", about(held));
            return vec![Problem::new(What::Removed, place, words)];
        }
    };
    if seal::digest(&found) == held.added.files {
        return Vec::new();
    }
    // The list says which file it is, if the list itself is right.
    let Some(list) = list.filter(|list| seal::digest(list) == held.added.files) else {
        let words = format!(
            "its files are not those that were published: {}",
            about(held)
        );
        return vec![Problem::new(What::Changed, place, words)];
    };
    let named = |files: &Files| -> BTreeMap<String, (u64, String)> {
        let files = files.iter().cloned();
        files
            .map(|(name, length, hash)| (name, (length, hash)))
            .collect()
    };
    let (expected, found) = (named(&list), named(&found));
    let mut problems = Vec::new();
    for (name, (length, hash)) in &expected {
        let place = format!("{place}/{name}");
        match found.get(name) {
            None => problems.push(Problem::new(What::Removed, place, about(held))),
            Some((_, other)) if other == hash => {}
            Some((now, _)) => {
                let words = match now == length {
                    true => about(held),
                    false => format!("{now} bytes, not {length}; {}", about(held)),
                };
                problems.push(Problem::new(What::Changed, place, words));
            }
        }
    }
    let more = found.keys().filter(|name| !expected.contains_key(*name));
    problems.extend(more.map(|name| {
        let words = "the split was published without it";
        Problem::new(What::Inserted, format!("{place}/{name}"), words)
    }));
    problems
}
