//! One chain of digests: is each genuine, and does each follow the one before?
//!
//! [`walk`] gets the digests of one chain, whose signatures are checked, and looks at what each remembers of its
//! predecessor: place, content, signature, time. A digest is *proven* by its own signature or by a proven successor that remembers its content. A
//! digest with a bad signature that nobody vouches for is believed in nothing, so that one changed byte does not
//! accuse its neighbours; one that is only unsigned, or signed with an unknown key, is still followed.
//!
//! Backfill chains tell of log files that were delivered late. They have no fixed rhythm, so nothing is made of the
//! time between two of their digests.

use std::collections::{BTreeMap, BTreeSet};

use event::Time;

use super::content::Hash;
use super::document::{Document, Previous, unhex};
use super::kind::Kind;
use super::name::{self, Chain};
use super::report::Violation;

/// A digest that could be read.
#[derive(Debug)]
pub(super) struct Digest {
    /// Its name in the store.
    pub(super) name: String,
    /// Where it belongs, as a name in the store; `name` unless it was moved.
    pub(super) home: String,
    pub(super) document: Document,
    pub(super) signature: Signature,
    /// Set by [`walk`].
    pub(super) proven: bool,
}

/// What can be said of a digest's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signature {
    Good(Vec<u8>),
    /// There is none.
    Absent,
    /// It is of a key that was not given.
    UnknownKey(Vec<u8>),
    /// It does not fit, and why.
    Bad(String),
}

impl Digest {
    /// Is there reason to follow what it says?
    pub(super) fn is_believed(&self) -> bool {
        self.proven || !matches!(self.signature, Signature::Bad(_))
    }
}

/// What is known besides the digests themselves.
pub(super) struct Around<'a> {
    pub(super) chain: &'a Chain,
    /// Digests that are there and not among those given: they could not be read, or are of another time.
    pub(super) others: &'a BTreeSet<String>,
    /// The name in the store of what a digest calls by bucket and key.
    pub(super) locate: &'a dyn Fn(&str, &str) -> String,
    /// Digests that end before this need not be there.
    pub(super) from: Option<Time>,
}

/// Sorts the digests, sets which are proven and says what is wrong.
pub(super) fn walk(digests: &mut Vec<Digest>, around: &Around<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut say = |kind, object: &str, detail: String| {
        found.push(Violation {
            chain: around.chain.clone(),
            kind,
            object: object.to_owned(),
            detail,
        });
    };
    // Of several at one place the one that lies there goes first.
    digests.sort_by(|a, b| {
        let order = |d: &Digest| (d.document.end, d.document.start, d.name != d.home);
        (order(a), &a.name).cmp(&(order(b), &b.name))
    });
    let mut by_home = BTreeMap::new();
    digests.retain(|digest| {
        if digest.name != digest.home {
            let genuine = format!("it belongs at `{}`", digest.home);
            say(Kind::DigestMoved, &digest.name, genuine);
        }
        let copy = by_home.contains_key(&digest.home);
        if !copy {
            by_home.insert(digest.home.clone(), by_home.len());
        }
        !copy
    });
    prove(digests, &|digest| {
        let (previous, name) = before(digest, around)?;
        Some((previous.sha256, *by_home.get(&name)?))
    });
    let mut prior: Option<&Digest> = None;
    for digest in digests.iter() {
        own_signature(digest, &mut say);
        match (before(digest, around), prior) {
            (None, None) => {}
            (None, Some(prior)) => {
                if digest.is_believed() && !around.chain.backfill {
                    let (from, to) = (prior.document.end, digest.document.start);
                    let detail =
                        format!("nothing is proven of what was delivered from {from} to {to}");
                    say(Kind::Restart, &digest.name, detail);
                }
            }
            (Some((previous, name)), prior) => match by_home.get(&name) {
                Some(linked) if digest.is_believed() => {
                    link(digest, previous, &digests[*linked], around.chain, &mut say);
                }
                Some(_) => {}
                None if around.others.contains(&name) => {}
                None => missing(digest, &name, prior, around, &mut say),
            },
        }
        if digest.is_believed() {
            prior = Some(digest);
        }
    }
    found
}

/// What a digest remembers of the one before, and that one's name in the store.
fn before<'d>(digest: &'d Digest, around: &Around<'_>) -> Option<(&'d Previous, String)> {
    let previous = digest.document.previous.as_ref()?;
    Some((previous, (around.locate)(&previous.bucket, &previous.key)))
}

/// Marks what is signed, and what a chain of hashes leads to from there.
fn prove(digests: &mut [Digest], previous: &dyn Fn(&Digest) -> Option<(Hash, usize)>) {
    for digest in digests.iter_mut() {
        digest.proven = matches!(digest.signature, Signature::Good(_));
    }
    for start in (0..digests.len()).rev() {
        let mut at = start;
        while digests[at].proven {
            match previous(&digests[at]) {
                Some((hash, index))
                    if !digests[index].proven && digests[index].document.sha256 == hash =>
                {
                    digests[index].proven = true;
                    at = index;
                }
                _ => break,
            }
        }
    }
}

type Say<'s> = dyn FnMut(Kind, &str, String) + 's;

fn own_signature(digest: &Digest, say: &mut Say<'_>) {
    let vouched = if digest.proven {
        "; its content is what the next digest remembers"
    } else {
        ""
    };
    match &digest.signature {
        Signature::Good(_) => {}
        Signature::Absent => say(
            Kind::DigestUnsigned,
            &digest.name,
            format!("there is no signature with it{vouched}"),
        ),
        Signature::UnknownKey(_) => say(
            Kind::UnknownKey,
            &digest.name,
            format!(
                "no key has the fingerprint {}{vouched}",
                digest.document.fingerprint
            ),
        ),
        Signature::Bad(why) => say(Kind::BadSignature, &digest.name, format!("{why}{vouched}")),
    }
}

/// Holds what a digest remembers against the one it remembers.
fn link(digest: &Digest, previous: &Previous, linked: &Digest, chain: &Chain, say: &mut Say<'_>) {
    let by = format!("according to `{}`", digest.name);
    let same = linked.document.sha256 == previous.sha256;
    // A bad signature is said already, and says as much.
    if !same && linked.is_believed() {
        let detail = format!("its content was another one, {by}");
        say(Kind::DigestChanged, &linked.name, detail);
    }
    if let (true, Signature::Good(own) | Signature::UnknownKey(own)) = (same, &linked.signature)
        && unhex(&previous.signature).as_ref() != Some(own)
    {
        let detail = format!("its signature was another one, {by}");
        say(Kind::ChainSignature, &linked.name, detail);
    }
    let (from, to) = (linked.document.end, digest.document.start);
    if linked.is_believed() && from != to && !chain.backfill {
        let detail = match from < to {
            true => format!(
                "it begins at {to} and the digest before ended at {from}: nothing is proven of what was delivered between"
            ),
            false => format!("it begins at {to}, before the digest before it ended at {from}"),
        };
        say(Kind::Gap, &digest.name, detail);
    }
}

fn missing(
    digest: &Digest,
    name: &str,
    prior: Option<&Digest>,
    around: &Around<'_>,
    say: &mut Say<'_>,
) {
    let to = digest.document.start;
    // Backfill digests do not touch one another; when the one before ended is told by its name alone.
    let named = name::classify(name).and_then(|n| n.time);
    let end = named.filter(|_| around.chain.backfill).unwrap_or(to);
    if around.from.is_some_and(|from| end <= from) {
        return;
    }
    // What a changed digest says of its predecessor counts only where there is indeed a hole.
    if !digest.is_believed() && prior.is_some_and(|p| p.document.end == to) {
        return;
    }
    let hole = prior.map_or(format!("before {to}"), |p| {
        format!("from {} to {to}", p.document.end)
    });
    let detail = format!(
        "`{}` follows it; nothing is proven of what was delivered {hole}",
        digest.name
    );
    say(Kind::DigestMissing, name, detail);
}
