//! The public keys that digests are signed with, as `aws cloudtrail list-public-keys` prints them.
//!
//! CloudTrail has keys of its own in every region and changes them every few weeks; [`PublicKeys`] finds the one of a
//! digest by its fingerprint. A file may hold one answer or several, one after the other, so that those of many
//! regions can be kept in one. Whoever gives the keys decides what is believed: keys that lie beside the log files
//! prove no more than that digests and keys belong together.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde::Deserialize;

/// Public keys by fingerprint.
#[derive(Debug, Clone, Default)]
pub struct PublicKeys {
    /// Each the DER of a PKCS#1 RSAPublicKey.
    keys: BTreeMap<String, Vec<u8>>,
}

/// Why keys cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Not what `list-public-keys` prints.
    #[error("no list of public keys, as `aws cloudtrail list-public-keys` prints it")]
    Json(#[source] serde_json::Error),
    /// A key that is none.
    #[error("key `{fingerprint}` is no RSA key of 2048 bits or more in base64 of PKCS#1 DER")]
    Key {
        /// Which key.
        fingerprint: String,
    },
    /// Two keys with one fingerprint.
    #[error("there are two different keys with the fingerprint `{fingerprint}`")]
    Twice {
        /// Which fingerprint.
        fingerprint: String,
    },
}

/// Does a signature fit?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Good,
    Bad,
    UnknownKey,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    public_key_list: Vec<RawKey>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawKey {
    value: String,
    fingerprint: String,
}

impl PublicKeys {
    /// Adds the keys of a file.
    pub fn add(&mut self, json: &[u8]) -> Result<(), KeysError> {
        for answer in serde_json::Deserializer::from_slice(json).into_iter::<Answer>() {
            for key in answer.map_err(KeysError::Json)?.public_key_list {
                let fingerprint = key.fingerprint;
                let value = STANDARD.decode(key.value.trim()).ok();
                let Some(value) = value.filter(|der| is_rsa_key(der)) else {
                    return Err(KeysError::Key { fingerprint });
                };
                match self.keys.get(&fingerprint) {
                    Some(other) if *other != value => return Err(KeysError::Twice { fingerprint }),
                    _ => self.keys.insert(fingerprint, value),
                };
            }
        }
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Does a signature (RSASSA-PKCS1-v1_5 with SHA-256) fit a text and the key with this fingerprint?
    pub(super) fn check(&self, fingerprint: &str, text: &[u8], signature: &[u8]) -> Fit {
        let Some(key) = self.keys.get(fingerprint) else {
            return Fit::UnknownKey;
        };
        match UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(text, signature) {
            Ok(()) => Fit::Good,
            Err(_) => Fit::Bad,
        }
    }
}

/// Is this an RSAPublicKey, `SEQUENCE { INTEGER modulus, INTEGER exponent }`, of a size that can be verified with?
/// Without this look, a key in another form would make every signature a bad one.
fn is_rsa_key(der: &[u8]) -> bool {
    let inside = |der, tag| element(der, tag).filter(|(_, rest)| rest.is_empty());
    let numbers = inside(der, 0x30).and_then(|(content, _)| {
        let (modulus, rest) = element(content, 0x02)?;
        Some((modulus, inside(rest, 0x02)?.0))
    });
    numbers.is_some_and(|(modulus, exponent)| {
        let first = modulus.iter().position(|byte| *byte != 0);
        let bytes = modulus.len() - first.unwrap_or(modulus.len());
        (256..=1_024).contains(&bytes) && !exponent.is_empty()
    })
}

/// The content of a DER element, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A key as CloudTrail hands it out (from the examples of aws-cli).
    const SAMPLE: &str = "MIIBCgKCAQEAlSS3cl92HDycr/MTj0moOhas8habjrraXw+KzlWF0axSI2tcF+3iJ9BKQAVSKxGwxwu3m0wG3J+kUl1xboEcEPHYoIYMbgfSw7KGnuDKwkLzsQWhUJ0cIbOHASox1vv/5fNXkrHhGbDCHeVXm804c83nvHUEFYThr1PfyP/8HwrCtR3FX5OANtQCP61C1nJtSSkC8JSQUOrIP4CuwJjc+4WGDk+BGH5m9iuiAKkipEHWmUl8/P7XpfpWQuk4h8g3pXZOrNXr08lbh4d39svj7UqdhvOXoBISp9t/EXYuePGEtBdrKD9Dz+VHwyUPtBQvYr9BnkF88qBnaPNhS44rzwIDAQAB";

    fn add(keys: &mut PublicKeys, value: &str) -> Result<(), String> {
        let one = json!({"PublicKeyList": [{"Value": value, "Fingerprint": "f", "ValidityStartTime": 1453076702.0}]});
        keys.add(one.to_string().as_bytes())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn keys_as_aws_prints_them() {
        let mut keys = PublicKeys::default();
        add(&mut keys, SAMPLE).unwrap();
        add(&mut keys, SAMPLE).unwrap();
        let two = json!({"PublicKeyList": [{"Value": SAMPLE, "Fingerprint": "g", "ValidityStartTime": "2016-01-18T00:25:02+00:00"}]});
        keys.add(format!("{two}\n{{\"PublicKeyList\":[]}}\n").as_bytes())
            .unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys.check("g", b"text", &[0; 256]), Fit::Bad);
        assert_eq!(keys.check("h", b"text", &[0; 256]), Fit::UnknownKey);
    }

    #[test]
    fn what_is_no_key() {
        let mut keys = PublicKeys::default();
        for value in [
            "",
            "%",
            "MIIB",
            &SAMPLE[..200],
            &STANDARD.encode([0x30, 6, 2, 1, 5, 2, 1, 3]),
        ] {
            let error = add(&mut keys, value).unwrap_err();
            assert!(error.contains("key `f` is no RSA key"), "{value}: {error}");
        }
        assert!(keys.add(b"[]").is_err());
        assert!(keys.add(b"-----BEGIN PUBLIC KEY-----").is_err());
        add(&mut keys, SAMPLE).unwrap();
        let mut other = STANDARD.decode(SAMPLE).unwrap();
        other[100] ^= 1;
        let error = add(&mut keys, &STANDARD.encode(other)).unwrap_err();
        assert!(error.contains("two different keys"), "{error}");
    }
}
