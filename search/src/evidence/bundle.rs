//! Making a bundle: the events of a query with what proves them.
//!
//! [`export`] searches, all or nothing: an answer that is cut off is no evidence. For each event it looks up the split
//! that holds it and proves it by the split's root, and the split by its leaf in the evidence log; an event that cannot
//! be proven so is there all the same, without proof. What a bundle looks like stands in `member`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bus::ledger::tree::{Hash, Levels, hex, leaf_hash, sha256};
use bus::ledger::{Held, History, Ledger, LedgerError};
use event::{Event, Integrity, Time};
use serde_json::value::RawValue;

pub use super::member::About;
use super::member::{
    EventLine, FORMAT, Leaf, Manifest, Member, NAMES, Object, Original, Proof, README, envelope,
    signed_text,
};
use super::{seal, zip};
use crate::split::Meta;
use crate::{Request, SearchError, Searcher};

/// Bytes of events that a bundle holds at most: it is made in memory.
pub const MAX_BYTES: usize = 128 << 20;
/// How many events are asked for at a time.
const PAGE: usize = 1_000;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// The query.
    pub query: String,
    /// Not before this time.
    pub from: Option<Time>,
    /// Not after this time.
    pub to: Option<Time>,
    /// The case that it belongs to; free text.
    pub case: String,
    /// Who asks.
    pub by: String,
    /// Program and version.
    pub tool: String,
    /// More events than this are refused.
    pub most: usize,
    /// Which share of the index it is made of, and of how many: number and count.
    pub share: (u32, u32),
}

/// What is known of an object: whether digests vouch for it, and whose.
pub type Said<'s> = dyn Fn(&str) -> (Integrity, Option<serde_json::Value>) + 's;

/// A bundle that was made.
#[derive(Debug)]
pub struct Bundle {
    /// The file.
    pub bytes: Vec<u8>,
    /// What it is.
    pub about: About,
    /// How many of its events are proven to be in the store.
    pub proven: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The search failed.
    #[error("cannot search for the evidence")]
    Search(#[from] SearchError),
    /// The search was cut off.
    #[error("the search did not see everything, and half an answer is no evidence: {0}")]
    Partial(String),
    /// Too much.
    #[error("the query finds more than {0}: narrow it, or make a bundle for each part of the time")]
    Large(String),
    /// Nothing.
    #[error("the query finds no events")]
    Nothing,
    /// The evidence log cannot be read.
    #[error("cannot read the evidence log")]
    Ledger(#[from] LedgerError),
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Zip(#[from] zip::ZipError),
}

/// Makes a bundle, signed with the key of `ledger`. `said` tells what is known of an object.
///
/// # Errors
/// The query is wrong, finds nothing or too much, or cannot be answered in full.
pub fn export(
    searcher: &Searcher,
    ledger: &Ledger,
    order: &Order,
    said: &Said<'_>,
    now: Time,
) -> Result<Bundle, ExportError> {
    let events = find(searcher, order)?;
    let hashes: Vec<Hash> = events.iter().map(|e| leaf_hash(&e.encode())).collect();
    let history = History::read(ledger.path())?;
    let mut proofs = prove(searcher.catalog().dir(), &history, &events, &hashes);
    let leaves = leaves(&history, &proofs)?;
    let proven = proofs.iter().flatten().count() as u64;

    let (mut lines, mut originals) = (Vec::new(), Vec::new());
    for (event, proof) in events.iter().zip(&mut proofs) {
        let frame = event.encode();
        let envelope = envelope(&frame, event).expect("an envelope is JSON");
        let line = EventLine {
            id: event.id.to_string(),
            original: Original {
                at: originals.len(),
                bytes: event.raw.len(),
                sha256: hex(&sha256(&event.raw)),
            },
            proof: proof.take(),
            envelope: RawValue::from_string(envelope.to_owned()).expect("an envelope is JSON"),
        };
        lines.extend(json(&line));
        lines.push(b'\n');
        originals.extend_from_slice(&event.raw);
        originals.push(b'\n');
    }
    let about = About {
        format: FORMAT,
        case: order.case.clone(),
        query: order.query.clone(),
        from: order.from,
        to: order.to,
        by: order.by.clone(),
        made: now,
        tool: order.tool.clone(),
        events: events.len() as u64,
        covers: covers(order.share),
        key: ledger.public().to_string(),
    };
    let contents = [
        README.as_bytes().to_vec(),
        pretty(&about),
        lines,
        originals,
        pretty(&objects(&events, said)),
        json(&leaves),
        history.note.clone().into_bytes(),
    ];
    let bytes = sealed(contents, &|text| ledger.sign(text))?;
    Ok(Bundle {
        sha256: hex(&sha256(&bytes)),
        bytes,
        about,
        proven,
    })
}

/// What a bundle of one of several index nodes says of the others.
fn covers((node, nodes): (u32, u32)) -> Option<String> {
    (nodes > 1).then(|| {
        format!(
            "only what index node {node} of {nodes} has: each makes a bundle of its own share of the partitions, and all {nodes} together are everything"
        )
    })
}

/// The archive of these members, with manifest and signature.
pub(crate) fn sealed(
    contents: [Vec<u8>; 7],
    sign: &dyn Fn(&str) -> String,
) -> Result<Vec<u8>, zip::ZipError> {
    let members = NAMES.iter().zip(&contents).map(|(name, bytes)| Member {
        name: (*name).to_owned(),
        bytes: bytes.len() as u64,
        sha256: hex(&sha256(bytes)),
    });
    let manifest = pretty(&Manifest {
        format: FORMAT,
        members: members.collect(),
    });
    let signature = sign(&signed_text(&sha256(&manifest))).into_bytes();
    let all = contents.into_iter().chain([manifest, signature]);
    let members: Vec<(&str, Vec<u8>)> = NAMES.into_iter().zip(all).collect();
    zip::write(&members)
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers are JSON")
}

fn pretty<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("texts and numbers are JSON");
    text.push(b'\n');
    text
}

/// All events of the query, earliest first.
fn find(searcher: &Searcher, order: &Order) -> Result<Vec<Event>, ExportError> {
    let mut request = Request {
        query: order.query.clone(),
        from: order.from,
        to: order.to,
        limit: PAGE,
        newest_first: false,
        ..Request::default()
    };
    let (mut events, mut bytes) = (Vec::new(), 0);
    loop {
        let answer = searcher.search(&request)?;
        if let Some(partial) = answer.partial {
            return Err(ExportError::Partial(partial));
        }
        bytes += answer
            .hits
            .iter()
            .map(|e| e.raw.len() + 2_048)
            .sum::<usize>();
        events.extend(answer.hits);
        if events.len() > order.most {
            return Err(ExportError::Large(format!("{} events", order.most)));
        }
        if bytes > MAX_BYTES {
            return Err(ExportError::Large(format!("{} MiB", MAX_BYTES >> 20)));
        }
        match answer.next {
            Some(next) => request.after = Some(next),
            None if events.is_empty() => return Err(ExportError::Nothing),
            None => return Ok(events),
        }
    }
}

/// The proof of each event, where it stands in a split that is as it was published.
fn prove(dir: &Path, history: &History, events: &[Event], hashes: &[Hash]) -> Vec<Option<Proof>> {
    let mut proofs: Vec<Option<Proof>> = vec![None; events.len()];
    for (number, held) in &history.state.splits {
        let Some((meta, root)) = known(held) else {
            continue;
        };
        let inside = |e: &Event| meta.earliest <= e.time && e.time <= meta.latest;
        let wanted: Vec<usize> = (0..events.len())
            .filter(|n| proofs[*n].is_none() && inside(&events[*n]))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let folder = Meta::folder(&dir.join("splits"), *number);
        // A split that was merged meanwhile or was changed proves nothing.
        let Ok(Some(list)) = seal::events(&folder) else {
            continue;
        };
        let levels = Levels::of(list);
        if hex(&levels.root()) != *root {
            tracing::error!(split = number, "the list of events of a split was changed");
            continue;
        }
        for n in wanted {
            let Ok(index) = levels.leaves().binary_search(&hashes[n]) else {
                continue;
            };
            proofs[n] = levels.inclusion(index).map(|path| Proof {
                leaf: held.leaf,
                index: index as u64,
                of: levels.leaves().len() as u64,
                path: path.iter().map(|hash| hex(hash)).collect(),
            });
        }
    }
    proofs
}

fn known(held: &Held) -> Option<(Meta, &String)> {
    let meta = serde_json::from_value(held.added.meta.clone()).ok()?;
    Some((meta, held.added.events.as_ref()?))
}

/// The leaves that proofs speak of.
fn leaves(history: &History, proofs: &[Option<Proof>]) -> Result<Vec<Leaf>, LedgerError> {
    let mut numbers: Vec<u64> = proofs.iter().flatten().map(|p| p.leaf).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let levels = Levels::of(history.hashes.clone());
    let mut leaves = Vec::with_capacity(numbers.len());
    for number in numbers {
        let (content, path) = (history.leaf(number)?, levels.inclusion(number as usize));
        if let (Some(content), Some(path)) = (content, path) {
            let path = path.iter().map(|hash| hex(hash)).collect();
            leaves.push(Leaf {
                number,
                content,
                path,
            });
        }
    }
    Ok(leaves)
}

/// The objects that events came from, by name and hash.
pub(super) fn count(events: &[Event]) -> BTreeMap<(String, String), u64> {
    let mut counts: HashMap<(&str, &str), u64> = HashMap::new();
    for event in events {
        let place = (event.origin.object.as_str(), event.origin.sha256.as_str());
        *counts.entry(place).or_default() += 1;
    }
    let owned =
        |((object, hash), n): ((&str, &str), u64)| ((object.to_owned(), hash.to_owned()), n);
    counts.into_iter().map(owned).collect()
}

fn objects(events: &[Event], said: &Said<'_>) -> Vec<Object> {
    let objects = count(events).into_iter().map(|((object, sha256), events)| {
        let (integrity, digests) = said(&object);
        Object {
            object,
            sha256,
            events,
            integrity,
            digests,
        }
    });
    objects.collect()
}
