//! Whatever is done to any object is reported, unless it changes nothing that was delivered.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Deed {
    /// A bit of the stored bytes of an object.
    Flip(prop::sample::Index, prop::sample::Index, u8),
    /// A bit of the signature of a digest.
    FlipSignature(u32, prop::sample::Index, u8),
    Cut(prop::sample::Index, prop::sample::Index),
    Append(prop::sample::Index, Vec<u8>),
    Delete(prop::sample::Index),
    /// A log file, by hour and minute.
    Insert(u32, u32),
}

fn deeds() -> impl Strategy<Value = Deed> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (index(), index(), 0..8_u8).prop_map(|(o, b, bit)| Deed::Flip(o, b, bit)),
        3 => (1..9_u32, index(), 0..8_u8).prop_map(|(d, b, bit)| Deed::FlipSignature(d, b, bit)),
        1 => (index(), index()).prop_map(|(o, b)| Deed::Cut(o, b)),
        1 => (index(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(o, b)| Deed::Append(o, b)),
        2 => index().prop_map(Deed::Delete),
        1 => (0..6_u32, (0..60_u32).prop_filter("there is one", |m| ![15, 30].contains(m)))
            .prop_map(|(hour, minute)| Deed::Insert(hour, minute)),
    ]
}

impl Deed {
    /// Does it, and tells which object it was done to.
    fn done_to(&self, bucket: &mut Bucket) -> String {
        let names: Vec<String> = bucket.0.keys().cloned().collect();
        match self {
            Deed::Flip(object, byte, bit) => {
                let name = object.get(&names);
                let content = &mut bucket.0.get_mut(name).unwrap().0;
                let at = byte.index(content.len().max(1));
                if let Some(byte) = content.get_mut(at) {
                    *byte ^= 1 << bit;
                }
                name.clone()
            }
            Deed::FlipSignature(hour, byte, bit) => {
                let name = digest(*hour);
                let object = bucket.0.get_mut(&name);
                if let Some(signature) = object.and_then(|o| o.1.signature.as_mut()) {
                    let mut bytes = std::mem::take(signature).into_bytes();
                    let at = byte.index(bytes.len());
                    bytes[at] ^= 1 << bit;
                    *signature = String::from_utf8_lossy(&bytes).into_owned();
                }
                name
            }
            Deed::Cut(object, byte) => {
                let name = object.get(&names);
                let content = &mut bucket.0.get_mut(name).unwrap().0;
                content.truncate(byte.index(content.len().max(1)));
                name.clone()
            }
            Deed::Append(object, bytes) => {
                let name = object.get(&names);
                bucket.0.get_mut(name).unwrap().0.extend(bytes);
                name.clone()
            }
            Deed::Delete(object) => {
                let name = object.get(&names);
                bucket.delete(name);
                name.clone()
            }
            Deed::Insert(hour, minute) => {
                let name = log(*hour, *minute);
                bucket.put(&name, b"{}");
                name
            }
        }
    }
}

/// What an object says, by another reader: its content, if it is one gzip member and nothing else, and its signature.
fn meaning(bucket: &Bucket, name: &str) -> Option<(Vec<u8>, Option<String>)> {
    let (object, metadata) = bucket.0.get(name)?;
    let signature = metadata.signature.as_ref().map(|s| s.to_ascii_lowercase());
    let inflate = |object: &[u8]| {
        let mut content = vec![0; 1 << 20];
        let length = libdeflater::Decompressor::new().gzip_decompress(object, &mut content);
        content.truncate(length.ok()?);
        Some(content)
    };
    // It says nothing of what follows a member; but a member needs its last byte.
    let follows = object
        .split_last()
        .is_some_and(|(_, o)| inflate(o).is_some());
    inflate(object)
        .filter(|_| !follows)
        .map(|content| (content, signature))
}

proptest! {
    #[test]
    fn a_changed_digest_accuses_nobody_else(hour in 1..9_u32, byte in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bucket = day().clone();
        let name = digest(hour);
        let mut content = bucket.content(&name);
        let at = byte.index(content.len());
        content[at] ^= 1 << bit;
        bucket.put(&name, &content);
        let report = report(&bucket, |_| {});
        prop_assert!(!report.violations.is_empty());
        for violation in &report.violations {
            prop_assert_eq!(&violation.object, &name, "{:#?}", report.violations);
        }
    }

    #[test]
    fn every_deed_is_reported(deeds in prop::collection::vec(deeds(), 1..4)) {
        let mut bucket = day().clone();
        let touched: Vec<String> = deeds.iter().map(|d| d.done_to(&mut bucket)).collect();
        let changed = touched.iter().any(|name| {
            let is_there = |bucket: &Bucket| bucket.0.contains_key(name);
            is_there(&bucket) != is_there(day()) || meaning(&bucket, name) != meaning(day(), name)
        });
        let report = report(&bucket, |job| job.to = Some(time(8)));
        prop_assert_eq!(!report.violations.is_empty(), changed, "{:#?}", report);
        // Every log file that is there, or should be, is counted once.
        let logs: std::collections::BTreeSet<&String> = day().0.keys().chain(bucket.0.keys()).filter(|n| n.contains("/CloudTrail/")).collect();
        let counted: u64 = report.chains.iter().map(|c| c.logs.total()).sum();
        prop_assert!(counted <= logs.len() as u64);
        let there = bucket.0.keys().filter(|n| n.contains("/CloudTrail/")).count() as u64;
        prop_assert!(counted >= there);
    }
}
