//! A bucket in memory, and chains as CloudTrail writes them, signed with a key of the test's own.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::Engine;
use event::Time;
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::{Metadata, Object, Objects, PublicKeys, content, document};
use crate::decode::hex;

pub(super) const ACCOUNT: &str = "111122223333";

/// A key for all tests of this process, made by OpenSSL.
fn key() -> &'static KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    KEY.get_or_init(|| {
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-outform", "DER"])
            .args(["-pkeyopt", "rsa_keygen_bits:2048"])
            .stderr(Stdio::null())
            .output()
            .expect("openssl makes the key of this test");
        assert!(made.status.success());
        // Which form it takes depends on its version.
        let key = KeyPair::from_pkcs8(&made.stdout);
        key.or_else(|_| KeyPair::from_der(&made.stdout)).unwrap()
    })
}

pub(super) fn keys() -> PublicKeys {
    let value = base64::engine::general_purpose::STANDARD.encode(key().public().as_ref());
    let json = json!({"PublicKeyList": [{"Value": value, "Fingerprint": "f"}]});
    let mut keys = PublicKeys::default();
    keys.add(json.to_string().as_bytes()).unwrap();
    keys
}

fn sign(text: &str) -> String {
    let mut signature = vec![0; key().public().modulus_len()];
    let random = ring::rand::SystemRandom::new();
    key()
        .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
        .unwrap();
    hex(&signature)
}

pub(super) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// The bucket `b`, in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bucket(pub(super) BTreeMap<String, (Vec<u8>, Metadata)>);

impl Objects for Bucket {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn get(&self, name: &str) -> io::Result<Option<Object<'_>>> {
        Ok(self.0.get(name).map(|(content, metadata)| Object {
            content: Box::new(&content[..]),
            metadata: metadata.clone(),
        }))
    }

    fn locate(&self, bucket: &str, key: &str) -> Option<String> {
        (bucket == "b").then(|| key.to_owned())
    }
}

impl Bucket {
    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        content::whole(&self.0[name].0[..], 1 << 20).unwrap()
    }

    pub(super) fn put(&mut self, name: &str, content: &[u8]) {
        self.0.entry(name.to_owned()).or_default().0 = gzip(content);
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let object = self.0.remove(from).unwrap();
        self.0.insert(to.to_owned(), object);
    }

    pub(super) fn delete(&mut self, name: &str) {
        assert!(self.0.remove(name).is_some(), "{name}");
    }

    /// Changes a digest without signing it anew.
    pub(super) fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value: Value = serde_json::from_slice(&self.content(name)).unwrap();
        edit(&mut value);
        self.put(name, value.to_string().as_bytes());
    }
}

pub(super) fn hour(hour: u32) -> String {
    format!("2026-03-02T{hour:02}:00:00Z")
}

/// The digest that ends at an hour.
pub(super) fn digest(hour: u32) -> String {
    digest_of("eu-west-1", hour, "")
}

pub(super) fn digest_of(region: &str, hour: u32, end: &str) -> String {
    format!(
        "prefix/AWSLogs/o-ab12cd34ef/{ACCOUNT}/CloudTrail-Digest/{region}/2026/03/02/{ACCOUNT}_CloudTrail-Digest_{region}_trail_us-east-1_20260302T{hour:02}0000Z{end}.json.gz"
    )
}

/// The log file that is delivered a quarter or half past an hour.
pub(super) fn log(hour: u32, minute: u32) -> String {
    log_of("eu-west-1", hour, minute)
}

pub(super) fn log_of(region: &str, hour: u32, minute: u32) -> String {
    format!(
        "prefix/AWSLogs/o-ab12cd34ef/{ACCOUNT}/CloudTrail/{region}/2026/03/02/{ACCOUNT}_CloudTrail_{region}_20260302T{hour:02}{minute:02}Z_x.json.gz"
    )
}

/// Digests that are to be made: by the hour in which each ends, which one it follows and where it begins.
pub(super) type Plan<'p> = &'p [(u32, Option<u32>, u32)];

pub(super) const WHOLE_DAY: Plan<'static> = &[
    (1, None, 0),
    (2, Some(1), 1),
    (3, Some(2), 2),
    (4, Some(3), 3),
    (5, Some(4), 4),
    (6, Some(5), 5),
    (7, Some(6), 6),
    (8, Some(7), 7),
];

/// A chain as CloudTrail would have written it, with two log files an hour.
pub(super) fn written(region: &str, plan: Plan<'_>) -> Bucket {
    let mut bucket = Bucket::default();
    for &(end, previous, start) in plan {
        let logs: Vec<String> = (start..end)
            .flat_map(|hour| [log_of(region, hour, 15), log_of(region, hour, 30)])
            .collect();
        for log in &logs {
            bucket.put(log, format!("{{\"Records\":[{log:?}]}}").as_bytes());
        }
        let name = digest_of(region, end, "");
        let previous = previous.map(|hour| digest_of(region, hour, ""));
        put_digest(&mut bucket, &name, previous.as_deref(), (start, end), &logs);
    }
    bucket
}

pub(super) fn put_digest(
    bucket: &mut Bucket,
    name: &str,
    previous: Option<&str>,
    (start, end): (u32, u32),
    logs: &[String],
) {
    let listed = logs.iter().map(|log| {
        json!({"s3Bucket": "b", "s3Object": log, "hashAlgorithm": "SHA-256",
            "hashValue": hex(&Sha256::digest(bucket.content(log)))})
    });
    let before = previous.map(|name| bucket.content(name));
    let signature = previous.and_then(|name| bucket.0[name].1.signature.clone());
    let document = json!({
        "awsAccountId": ACCOUNT,
        "digestStartTime": hour(start),
        "digestEndTime": hour(end),
        "digestS3Bucket": "b",
        "digestS3Object": name,
        "digestPublicKeyFingerprint": "f",
        "digestSignatureAlgorithm": "SHA256withRSA",
        "previousDigestS3Bucket": previous.map(|_| "b"),
        "previousDigestS3Object": previous,
        "previousDigestHashValue": before.map(|content| hex(&Sha256::digest(content))),
        "previousDigestHashAlgorithm": previous.map(|_| "SHA-256"),
        "previousDigestSignature": signature,
        "logFiles": listed.collect::<Vec<_>>(),
    });
    bucket.put(name, document.to_string().as_bytes());
    sign_again(bucket, name);
}

pub(super) fn sign_again(bucket: &mut Bucket, name: &str) {
    let text = document::Document::parse(&bucket.content(name))
        .unwrap()
        .signed_text();
    bucket.0.get_mut(name).unwrap().1 = Metadata {
        signature: Some(sign(&text)),
        algorithm: Some("SHA256withRSA".to_owned()),
    };
}

pub(super) fn time(hour_of_day: u32) -> Time {
    Time::parse(&hour(hour_of_day)).unwrap()
}
