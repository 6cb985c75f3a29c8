//! The key of redaction: what fingerprints are made with and originals are sealed with.
//!
//! A [`Key`] comes from a file of text, at least 32 characters. From it one key for fingerprints, one for sealing and
//! one for nonces are derived, so that none of them tells anything about the others. A fingerprint is the first 16
//! hexadecimal digits of HMAC-SHA256 over the secret: without the key nobody can try passwords against it. A sealed
//! original is AES-256-GCM under a nonce that follows from the original, so that the same record is sealed to the
//! same bytes and a redelivery stays one:
//!
//! ```text
//! sealed:<base64 of: nonce, 12 bytes; ciphertext; tag, 16 bytes>
//! plain:<base64 of the original>          only where the operator chose to keep originals readable
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{aead, hmac};

use crate::decode::hex;

/// The name of the key in the data folder, where no other file is configured.
pub const KEY_FILE: &str = "redaction.key";

/// A key file has at least so many characters.
const MIN_KEY: usize = 32;

const SEALED: &str = "sealed:";
const PLAIN: &str = "plain:";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the redaction key `{path}`")]
    Read {
        /// The file.
        path: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be made.
    #[error("cannot make the redaction key `{path}`")]
    Make {
        /// The file.
        path: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Too easy to guess.
    #[error(
        "the redaction key `{0}` has fewer than {MIN_KEY} characters; `openssl rand -hex 32` makes a good one"
    )]
    Short(String),
}

/// Why an original cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is not in a form that this program writes.
    #[error("the original is in a form that is not known")]
    Form,
    /// Sealed under another key, or changed since.
    #[error("the original was sealed with another key, or was changed")]
    Key,
}

/// What fingerprints are made with and originals are sealed with.
pub struct Key {
    fingerprints: hmac::Key,
    nonces: hmac::Key,
    seal: aead::LessSafeKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(***)")
    }
}

impl Key {
    /// The key that follows from a secret text.
    pub fn new(secret: &[u8]) -> Key {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = |what: &str| hmac::sign(&root, what.as_bytes());
        let of = |what| hmac::Key::new(hmac::HMAC_SHA256, derived(what).as_ref());
        let seal = aead::UnboundKey::new(&aead::AES_256_GCM, derived("seal").as_ref())
            .expect("HMAC-SHA256 has the 32 bytes of an AES-256 key");
        Key {
            fingerprints: of("fingerprint"),
            nonces: of("nonce"),
            seal: aead::LessSafeKey::new(seal),
        }
    }

    /// The key in a file.
    pub fn read(path: &Path) -> Result<Key, KeyError> {
        let shown = || path.display().to_string();
        let text = fs::read(path).map_err(|source| KeyError::Read {
            path: shown(),
            source,
        })?;
        match text.trim_ascii() {
            key if key.len() < MIN_KEY => Err(KeyError::Short(shown())),
            key => Ok(Key::new(key)),
        }
    }

    /// The key of a data folder, which is made where there is none, readable for this user only.
    pub fn read_or_make(data_dir: &Path) -> Result<Key, KeyError> {
        let path = data_dir.join(KEY_FILE);
        if !path.exists() {
            make(data_dir, &path).map_err(|source| KeyError::Make {
                path: path.display().to_string(),
                source,
            })?;
            tracing::info!(path = %path.display(), "made a key for redaction; keep a copy elsewhere: without it originals cannot be opened");
        }
        Key::read(&path)
    }

    /// The fingerprint of a secret.
    pub fn fingerprint(&self, secret: &[u8]) -> String {
        hex(&hmac::sign(&self.fingerprints, secret).as_ref()[..8])
    }

    /// Seals an original.
    pub(super) fn seal(&self, original: &[u8]) -> String {
        let nonce = nonce_of(hmac::sign(&self.nonces, original).as_ref());
        let mut sealed = Vec::with_capacity(original.len() + 28);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(original);
        let tag = self
            .seal
            .seal_in_place_separate_tag(nonce, aead::Aad::empty(), &mut sealed[12..])
            .expect("a record is shorter than the 64 GiB that AES-GCM takes");
        sealed.extend_from_slice(tag.as_ref());
        format!("{SEALED}{}", BASE64.encode(sealed))
    }

    /// Opens the original of an event, as [`event::Event::original`] has it.
    pub fn open(&self, original: &str) -> Result<Vec<u8>, OpenError> {
        if let Some(plain) = original.strip_prefix(PLAIN) {
            return BASE64.decode(plain).map_err(|_| OpenError::Form);
        }
        let sealed = original.strip_prefix(SEALED).ok_or(OpenError::Form)?;
        let mut sealed = BASE64.decode(sealed).map_err(|_| OpenError::Form)?;
        if sealed.len() < 28 {
            return Err(OpenError::Form);
        }
        let nonce = nonce_of(&sealed);
        let opened = self
            .seal
            .open_in_place(nonce, aead::Aad::empty(), &mut sealed[12..])
            .map_err(|_| OpenError::Key)?;
        Ok(opened.to_vec())
    }
}

/// An original that is kept as it is.
pub(super) fn plain(original: &[u8]) -> String {
    format!("{PLAIN}{}", BASE64.encode(original))
}

fn nonce_of(bytes: &[u8]) -> aead::Nonce {
    aead::Nonce::try_assume_unique_for_key(&bytes[..12]).expect("a nonce has 12 bytes")
}

/// Writes a new key beside its place and moves it there whole.
fn make(folder: &Path, path: &Path) -> std::io::Result<()> {
    let mut key = [0; 32];
    SystemRandom::new()
        .fill(&mut key)
        .map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    writeln!(file, "{}", hex(&key))?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn originals_open_with_their_key_only() {
        let (key, other) = (Key::new(b"one"), Key::new(b"two"));
        let sealed = key.seal(b"password=hunter2");
        assert_eq!(sealed, key.seal(b"password=hunter2"));
        assert_ne!(sealed, key.seal(b"password=hunter3"));
        assert_eq!(key.open(&sealed).unwrap(), b"password=hunter2");
        assert_eq!(key.open(&plain(b"x")).unwrap(), b"x");
        assert_eq!(other.open(&sealed), Err(OpenError::Key));
        let mut changed = sealed.clone().into_bytes();
        changed[20] ^= 1;
        assert!(key.open(&String::from_utf8(changed).unwrap()).is_err());
        for text in ["", "x", "sealed:", "sealed:!", "sealed:AAAA", "plain:!"] {
            assert_eq!(key.open(text), Err(OpenError::Form), "{text}");
        }
    }

    #[test]
    fn fingerprints_need_the_key() {
        let key = Key::new(b"one");
        assert_eq!(key.fingerprint(b"a"), Key::new(b"one").fingerprint(b"a"));
        assert_ne!(key.fingerprint(b"a"), key.fingerprint(b"b"));
        assert_ne!(key.fingerprint(b"a"), Key::new(b"two").fingerprint(b"a"));
        assert_eq!(key.fingerprint(b"a").len(), 16);
        assert_eq!(format!("{key:?}"), "Key(***)");
    }

    #[test]
    fn a_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::read_or_make(dir.path()).unwrap();
        let again = Key::read_or_make(dir.path()).unwrap();
        assert_eq!(key.fingerprint(b"a"), again.fingerprint(b"a"));
        let path = dir.path().join(KEY_FILE);
        #[cfg(unix)]
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions())
                & 0o777,
            0o600
        );
        fs::write(&path, "short\n").unwrap();
        assert!(matches!(
            Key::read_or_make(dir.path()),
            Err(KeyError::Short(_))
        ));
        assert!(matches!(
            Key::read(&dir.path().join("none")),
            Err(KeyError::Read { .. })
        ));
    }
}
