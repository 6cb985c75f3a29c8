//! Verifying a bundle, without the store that it came from.
//!
//! [`verify`] checks everything that can be checked and says in words what is proven, what is not, and what is wrong.
//! A bundle that is not whole proves nothing: [`Report::problems`] says where it is not, as far as that can be told.

use bus::ledger::note::{Checkpoint, VerifyKey};
use bus::ledger::tree::{hex, leaf_hash, root_of_inclusion, sha256, unhex};
use bus::ledger::{Entry, Why};
use bytes::Bytes;
use event::{Event, Integrity, Time};
use serde::{Deserialize, Serialize};

use super::bundle::count;
use super::member::{
    About, EventLine, FORMAT, Leaf, Manifest, NAMES, Object, README, frame, hashes, signed_text,
};
use super::zip;

/// What was found out about a bundle.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// What the bundle says it is; not to be believed if there are problems.
    pub about: Option<About>,
    /// What checked the signatures.
    pub key: String,
    /// Was the key given by whoever verifies?
    pub pinned: bool,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// What is proven, in words.
    pub proven: Vec<String>,
    /// What is not proven, in words.
    pub not_proven: Vec<String>,
    /// What is wrong, in words. If there is anything, nothing is proven.
    pub problems: Vec<String>,
}

/// Verifies a bundle. Without `key`, the one that it names itself is believed.
pub fn verify(bundle: &[u8], key: Option<&VerifyKey>) -> Report {
    let mut report = Report {
        pinned: key.is_some(),
        sha256: hex(&sha256(bundle)),
        key: key.map_or_else(String::new, ToString::to_string),
        ..Report::default()
    };
    if let Err(problem) = whole(bundle, key, &mut report) {
        report.problems.push(problem);
    }
    if !report.problems.is_empty() {
        report.proven.clear();
    }
    report
}

fn whole(bundle: &[u8], key: Option<&VerifyKey>, report: &mut Report) -> Result<(), String> {
    let members = zip::read(bundle).map_err(|e| e.to_string())?;
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    if names != NAMES {
        return Err(format!(
            "the bundle has not the members that it should have, but {}",
            names.join(", ")
        ));
    }
    let content = |n: usize| &bundle[members[n].1.clone()];
    let [
        readme,
        about,
        events,
        originals,
        objects,
        leaves,
        note,
        manifest,
        signature,
    ] = std::array::from_fn(content);

    let claimed: About = read(about, "bundle.json")?;
    let own = VerifyKey::parse(&claimed.key).map_err(|e| format!("bundle.json: {e}"))?;
    let key = key.unwrap_or(&own);
    report.key = key.to_string();
    let signature = text(signature, "signature.txt")?;
    let signed = key
        .open(signature)
        .map_err(|e| format!("the bundle: {e}"))?;
    if signed != signed_text(&sha256(manifest)) {
        return Err("manifest.json is not what was signed".to_owned());
    }
    if signature.lines().count() != signed.lines().count() + 2 {
        return Err("signature.txt has more signatures than one".to_owned());
    }
    let manifest: Manifest = read(manifest, "manifest.json")?;
    if manifest.format != FORMAT || claimed.format != FORMAT {
        return Err(format!(
            "the bundle has format {}, and this program reads {FORMAT}",
            manifest.format
        ));
    }
    let listed: Vec<&str> = manifest.members.iter().map(|m| m.name.as_str()).collect();
    if listed != NAMES[..7] {
        return Err("manifest.json does not list the members".to_owned());
    }
    for (n, member) in manifest.members.iter().enumerate() {
        if member.sha256 != hex(&sha256(content(n))) || member.bytes != content(n).len() as u64 {
            report
                .problems
                .push(format!("{} is not what was signed", member.name));
        }
    }
    if readme != README.as_bytes() {
        report
            .problems
            .push("README.txt is not the one of this format".to_owned());
    }
    if own != *key {
        report
            .problems
            .push("the bundle names another key than the one that signed it".to_owned());
    }
    if !report.problems.is_empty() {
        return Ok(());
    }
    report.about = Some(claimed.clone());
    report.proven.push(format!(
        "Unchanged: every byte is as it was signed with the key {}. The signer says that it was made at {} by {}.",
        key.name(),
        claimed.made,
        if claimed.by.is_empty() { "nobody named" } else { &claimed.by },
    ));
    let events = self::events(events, originals)?;
    if events.len() as u64 != claimed.events {
        return Err(format!(
            "there are {} events, and bundle.json says {}",
            events.len(),
            claimed.events
        ));
    }
    stored(&events, leaves, text(note, "checkpoint.txt")?, key, report)?;
    origins(&events, objects, report)?;
    limits(&claimed, report);
    Ok(())
}

fn text<'b>(bytes: &'b [u8], name: &str) -> Result<&'b str, String> {
    std::str::from_utf8(bytes).map_err(|e| format!("{name} is no text: {e}"))
}

fn read<'b, T: Deserialize<'b>>(bytes: &'b [u8], name: &str) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|e| format!("{name} cannot be read: {e}"))
}

/// An event, its line and the hash of it as it stands on the log.
struct Shown {
    event: Event,
    line: EventLine,
    hash: [u8; 32],
}

/// The events, each with its original.
fn events(lines: &[u8], originals: &[u8]) -> Result<Vec<Shown>, String> {
    let mut shown = Vec::new();
    let mut at: usize = 0;
    for (n, line) in text(lines, "events.jsonl")?.lines().enumerate() {
        let name = || format!("event {} of events.jsonl", n + 1);
        let line: EventLine = serde_json::from_str(line).map_err(|e| format!("{}: {e}", name()))?;
        let original = &line.original;
        let bytes = at
            .checked_add(original.bytes)
            .and_then(|to| originals.get(at..to));
        let bytes = bytes.filter(|_| original.at == at);
        let bytes = bytes.filter(|b| hex(&sha256(b)) == original.sha256);
        let Some(bytes) = bytes.filter(|b| originals.get(at + b.len()) == Some(&b'\n')) else {
            return Err(format!(
                "{}: its original is not where and what it should be",
                name()
            ));
        };
        at += bytes.len() + 1;
        let frame = frame(line.envelope.get(), bytes);
        let hash = leaf_hash(&frame);
        let event = Event::decode(&Bytes::from(frame)).map_err(|e| format!("{}: {e}", name()))?;
        if event.id.to_string() != line.id {
            return Err(format!("{}: its id is not that of its envelope", name()));
        }
        shown.push(Shown { event, line, hash });
    }
    match at == originals.len() {
        true => Ok(shown),
        false => Err("originals.jsonl has more than the originals".to_owned()),
    }
}

/// Were the events in the store?
fn stored(
    shown: &[Shown],
    leaves: &[u8],
    note: &str,
    key: &VerifyKey,
    report: &mut Report,
) -> Result<(), String> {
    let checkpoint = Checkpoint::open(note, key).map_err(|e| format!("checkpoint.txt: {e}"))?;
    let leaves: Vec<Leaf> = read(leaves, "leaves.json")?;
    // Of each leaf: the number, when, whether it was there before the evidence log, and the root over the events.
    let mut splits: Vec<(u64, Time, bool, [u8; 32])> = Vec::new();
    for leaf in &leaves {
        let name = || format!("leaf {} of the evidence log", leaf.number);
        let path =
            hashes(&leaf.path).ok_or_else(|| format!("{}: its proof cannot be read", name()))?;
        let hash = leaf_hash(leaf.content.as_bytes());
        if root_of_inclusion(hash, leaf.number, checkpoint.size, &path) != Some(checkpoint.root) {
            return Err(format!("{} is not under the checkpoint", name()));
        }
        match serde_json::from_str(&leaf.content) {
            Ok(Entry::Splits {
                time,
                why,
                added: Some(added),
                ..
            }) => {
                let root = added.events.as_deref().and_then(unhex);
                let root = root.ok_or_else(|| format!("{} has no root over events", name()))?;
                splits.push((leaf.number, time, why == Why::Begin, root));
            }
            _ => return Err(format!("{} tells of no split", name())),
        }
    }
    let (mut proven, mut before, mut times) = (0_u64, 0_u64, Vec::new());
    for (n, Shown { line, hash, .. }) in shown.iter().enumerate() {
        let Some(proof) = &line.proof else {
            continue;
        };
        let split = splits.iter().find(|(number, ..)| *number == proof.leaf);
        let path = hashes(&proof.path);
        let (Some((_, time, begin, root)), Some(path)) = (split, path) else {
            return Err(format!(
                "event {}: its proof names no leaf that is here",
                n + 1
            ));
        };
        if root_of_inclusion(*hash, proof.index, proof.of, &path) != Some(*root) {
            return Err(format!(
                "event {} is not in the split that its proof names",
                n + 1
            ));
        }
        proven += 1;
        before += u64::from(*begin);
        times.push(*time);
    }
    let all = shown.len() as u64;
    if let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) {
        report.proven.push(format!(
            "In the store: {proven} of {all} events were in the index of that Trailwarden as they are here, byte for byte, by {}; they are under its checkpoint of {} leaves.",
            match first == last {
                true => last.to_string(),
                false => format!("{last} at the latest, the first of them by {first}"),
            },
            checkpoint.size,
        ));
    }
    if proven < all {
        report.not_proven.push(format!(
            "That {} of {all} events were in the store at any time before the bundle was made: they have no proof.",
            all - proven
        ));
    }
    if before > 0 {
        report.not_proven.push(format!(
            "What {before} events were before the evidence log began: they were in the store already."
        ));
    }
    Ok(())
}

/// What digests say of the objects.
fn origins(shown: &[Shown], objects: &[u8], report: &mut Report) -> Result<(), String> {
    let objects: Vec<Object> = read(objects, "objects.json")?;
    let events: Vec<Event> = shown.iter().map(|s| s.event.clone()).collect();
    let listed = objects
        .iter()
        .map(|o| ((o.object.clone(), o.sha256.clone()), o.events));
    if !listed.eq(count(&events)) {
        return Err("objects.json does not list the objects that the events came from".to_owned());
    }
    let of = |integrity: Integrity| {
        let objects = objects.iter().filter(move |o| o.integrity == integrity);
        objects.fold((0, 0), |(n, events), o| (n + 1, events + o.events))
    };
    let (objects, events) = of(Integrity::Attested);
    if events > 0 {
        report.proven.push(format!(
            "Attested: {events} events come from {objects} objects that signed digests of CloudTrail vouch for. That the digests were verified is what Trailwarden says; `trailwarden verify` over the bucket shows it again, and objects.json has the SHA-256 of each."
        ));
    }
    let (objects, events) = of(Integrity::Failed);
    if events > 0 {
        report.not_proven.push(format!(
            "REFUTED: {events} events come from {objects} objects that CloudTrail's digests say were changed or that they do not list. Trust none of these events."
        ));
    }
    let (objects, events) = of(Integrity::Received);
    if events > 0 {
        report.not_proven.push(format!(
            "That the source wrote {events} events from {objects} objects or streams as they are here: no digest vouches for them."
        ));
    }
    Ok(())
}

/// What no bundle proves.
fn limits(about: &About, report: &mut Report) {
    if !report.pinned {
        report.not_proven.push(format!(
            "Who signed: the key is the one that the bundle names itself. Get the public key from that Trailwarden (`trailwarden evidence key`) and give it with --key. Here it is {}",
            about.key
        ));
    }
    report.not_proven.push(
        "What happened before an event arrived: only a digest of its source can vouch for that."
            .to_owned(),
    );
    report.not_proven.push("That nothing else matched the query: a bundle shows what it holds, not what it leaves out.".to_owned());
    report.not_proven.push("That the times are right: they are those of the clock of that Trailwarden. Whoever has its key could have signed anything; a checkpoint that was kept elsewhere since, given to `trailwarden doctor --integrity --checkpoint`, shows that nothing was rewritten after it.".to_owned());
}
