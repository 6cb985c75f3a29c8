//! What stands in a bundle, member by member: written by `bundle`, read by `verify`.
//!
//! ```text
//! README.txt        for whoever opens it without knowing what it is
//! bundle.json       About: the query, who, when
//! events.jsonl      EventLine: one an event, earliest first; the envelope, where its original is, its proof
//! originals.jsonl   the originals byte for byte, in the same order, each followed by a newline
//! objects.json      Object: where events came from, and what CloudTrail's digests say of it
//! leaves.json       Leaf: the leaves of the evidence log that events are proven with
//! checkpoint.txt    the newest checkpoint of the evidence log, signed
//! manifest.json     Manifest: length and SHA-256 of each member above
//! signature.txt     a signed note over the SHA-256 of manifest.json
//! ```

use bus::ledger::tree::Hash;
use event::{Event, Integrity, SCHEMA_VERSION, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// The version of the format. Another one is refused.
pub(super) const FORMAT: u32 = 1;

/// The names of the members in their order.
pub(super) const NAMES: [&str; 9] = [
    "README.txt",
    "bundle.json",
    "events.jsonl",
    "originals.jsonl",
    "objects.json",
    "leaves.json",
    "checkpoint.txt",
    "manifest.json",
    "signature.txt",
];

pub(super) const README: &str = "This is an evidence bundle of Trailwarden: events of an audit trail as they were received, with what proves them.

  bundle.json      what was asked for, by whom and when
  events.jsonl     one event a line, earliest first: its envelope as Trailwarden made it, and where its original is
  originals.jsonl  the original records byte for byte, in the same order, each followed by a newline
  objects.json     the objects that they came from, with SHA-256, and whether CloudTrail's digests vouch for them
  leaves.json, checkpoint.txt, manifest.json, signature.txt
                   what proves that nothing was changed, and that the events were in the store

To verify it, on any machine and without a network:

  trailwarden evidence verify THIS_FILE --key KEY

KEY is the public key of the Trailwarden that made it, from somebody whom you trust about it; there,
`trailwarden evidence key` prints it. Without --key the bundle is checked against the key that it names itself,
which shows that it is whole, and not who made it.
";

/// What the bundle is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The version of the format.
    pub format: u32,
    /// The case that it belongs to, as whoever made it called it.
    pub case: String,
    /// The query.
    pub query: String,
    /// Not before this time.
    pub from: Option<Time>,
    /// Not after this time.
    pub to: Option<Time>,
    /// Who made it.
    pub by: String,
    /// When.
    pub made: Time,
    /// With what.
    pub tool: String,
    /// How many events the query had found: all are here.
    pub events: u64,
    /// What part of the store was searched, where that is not all of it; in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<String>,
    /// What checks the signatures, as the bundle says itself.
    pub key: String,
}

/// One event.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EventLine {
    pub(super) id: String,
    pub(super) original: Original,
    /// Where it stands in the store.
    pub(super) proof: Option<Proof>,
    /// Byte for byte as it stands on the log.
    pub(super) envelope: Box<RawValue>,
}

/// Where an original is in its member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Original {
    pub(super) at: usize,
    pub(super) bytes: usize,
    pub(super) sha256: String,
}

/// That an event is one of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proof {
    /// The leaf that tells of the split.
    pub(super) leaf: u64,
    /// Its place among the events of the split.
    pub(super) index: u64,
    /// How many these are.
    pub(super) of: u64,
    pub(super) path: Vec<String>,
}

/// A leaf of the evidence log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leaf {
    pub(super) number: u64,
    pub(super) content: String,
    pub(super) path: Vec<String>,
}

/// Where events came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) object: String,
    /// SHA-256 of its uncompressed content; empty where there is none.
    pub(super) sha256: String,
    pub(super) events: u64,
    pub(super) integrity: Integrity,
    /// Whose digests say so, of which time.
    pub(super) digests: Option<Value>,
}

/// All other members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) members: Vec<Member>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// The text that is signed for a manifest.
pub(super) fn signed_text(manifest: &Hash) -> String {
    let hash = bus::ledger::tree::hex(manifest);
    format!("trailwarden evidence bundle {FORMAT}\n{hash}\n")
}

/// The event as it stands on the log.
pub(super) fn frame(envelope: &str, original: &[u8]) -> Vec<u8> {
    let length = (envelope.len() as u32).to_le_bytes();
    [
        &[SCHEMA_VERSION],
        &length[..],
        envelope.as_bytes(),
        original,
    ]
    .concat()
}

/// The envelope in a frame that [`Event::encode`] has made.
pub(super) fn envelope<'f>(frame: &'f [u8], event: &Event) -> Option<&'f str> {
    std::str::from_utf8(frame.get(5..frame.len() - event.raw.len())?).ok()
}

pub(super) fn hashes(texts: &[String]) -> Option<Vec<Hash>> {
    texts
        .iter()
        .map(|text| bus::ledger::tree::unhex(text))
        .collect()
}
