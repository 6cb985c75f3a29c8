//! Signed notes and checkpoints, as C2SP and the transparency logs of Go, Sigsum and others write them.
//!
//! A note is a text that ends with a newline, an empty line, and a line for each signature:
//!
//! ```text
//! trailwarden/5f0c6c1d2b7e4a90              a checkpoint: the log's name,
//! 1042                                      how many leaves it has,
//! qINS1GRFhWHwdkUeqLEoP4yEMkTBBzxBkGwGQlVlVcs=      the root over them
//!
//! — trailwarden/5f0c6c1d2b7e4a90 Xw4vZ1…    base64 of: the first 4 bytes of the key's hash, the Ed25519 signature
//! ```
//!
//! A [`SigningKey`] is kept as the text `PRIVATE+KEY+NAME+HASH+BASE64`, a [`VerifyKey`] is handed out as
//! `NAME+HASH+BASE64`; both are what other tools for signed notes read. Signatures of keys that are not asked about, such
//! as those of witnesses, are passed over.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::tree::{Hash, hex, sha256};

/// The number of Ed25519 among the algorithms of signed notes.
const ALGORITHM: u8 = 1;
const PRIVATE: &str = "PRIVATE+KEY+";

/// Why a text is no key, no note or not signed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not in the form of a key.
    #[error("this is no key of signed notes; one looks like NAME+0123abcd+BASE64")]
    Key,
    /// Not in the form of a signed note.
    #[error("this is no signed note: {0}")]
    Form(&'static str),
    /// There is no signature by this key.
    #[error("it is not signed by {0}")]
    Unsigned(String),
    /// There is one, and it is not over this text.
    #[error("the signature by {0} does not fit the text")]
    Signature(String),
}

/// What signs.
pub struct SigningKey {
    name: String,
    pair: Ed25519KeyPair,
    seed: [u8; 32],
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({}, ***)", self.name)
    }
}

/// What a signature is checked with; no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyKey {
    name: String,
    public: [u8; 32],
}

impl SigningKey {
    /// The key of a seed of 32 random bytes. Its name follows from it.
    pub fn of_seed(seed: [u8; 32]) -> SigningKey {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a seed");
        let id = hex(&sha256(pair.public_key().as_ref())[..8]);
        SigningKey {
            name: format!("trailwarden/{id}"),
            pair,
            seed,
        }
    }

    /// Reads a key from its text.
    pub fn parse(text: &str) -> Result<SigningKey, NoteError> {
        let text = text.trim().strip_prefix(PRIVATE).ok_or(NoteError::Key)?;
        let (name, id, seed) = parts(text)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| NoteError::Key)?;
        let key = SigningKey { name, pair, seed };
        if key.public().id() != id {
            return Err(NoteError::Key);
        }
        Ok(key)
    }

    /// Its text. A secret.
    pub fn text(&self) -> String {
        let id = hex(&self.public().id());
        let key = [&[ALGORITHM], &self.seed[..]].concat();
        format!("{PRIVATE}{}+{id}+{}\n", self.name, BASE64.encode(key))
    }

    /// What checks its signatures.
    pub fn public(&self) -> VerifyKey {
        let public = self.pair.public_key().as_ref();
        VerifyKey {
            name: self.name.clone(),
            public: public.try_into().expect("an Ed25519 key has 32 bytes"),
        }
    }

    /// Signs a text, which ends with a newline and has no empty line at its end.
    pub fn sign(&self, text: &str) -> String {
        let signature = self.pair.sign(text.as_bytes());
        let signature = [&self.public().id()[..], signature.as_ref()].concat();
        format!("{text}\n— {} {}\n", self.name, BASE64.encode(signature))
    }
}

impl VerifyKey {
    /// Reads a key from its text.
    pub fn parse(text: &str) -> Result<VerifyKey, NoteError> {
        let (name, id, public) = parts(text.trim())?;
        let key = VerifyKey { name, public };
        match key.id() == id {
            true => Ok(key),
            false => Err(NoteError::Key),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> [u8; 4] {
        let text = [self.name.as_bytes(), b"\n", &[ALGORITHM], &self.public].concat();
        let hash = sha256(&text);
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// The text of a note that this key has signed.
    pub fn open<'n>(&self, note: &'n str) -> Result<&'n str, NoteError> {
        let (text, signatures) = taken_apart(note)?;
        let mut found = false;
        for (name, signature) in signatures {
            if name != self.name || signature.get(..4) != Some(&self.id()[..]) {
                continue;
            }
            found = true;
            let key = UnparsedPublicKey::new(&ED25519, self.public);
            if key.verify(text.as_bytes(), &signature[4..]).is_ok() {
                return Ok(text);
            }
        }
        Err(match found {
            true => NoteError::Signature(self.name.clone()),
            false => NoteError::Unsigned(self.name.clone()),
        })
    }
}

impl std::fmt::Display for VerifyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = [&[ALGORITHM], &self.public[..]].concat();
        write!(
            f,
            "{}+{}+{}",
            self.name,
            hex(&self.id()),
            BASE64.encode(key)
        )
    }
}

fn parts(text: &str) -> Result<(String, [u8; 4], [u8; 32]), NoteError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::Key);
    };
    let id = u32::from_str_radix(id, 16).map_err(|_| NoteError::Key)?;
    let key = BASE64.decode(key).map_err(|_| NoteError::Key)?;
    match key.split_first() {
        Some((&ALGORITHM, key)) if !name.is_empty() && !name.contains(char::is_whitespace) => Ok((
            name.to_owned(),
            id.to_be_bytes(),
            key.try_into().map_err(|_| NoteError::Key)?,
        )),
        _ => Err(NoteError::Key),
    }
}

/// A name and what stands behind it: key hash and signature.
type Signature<'n> = (&'n str, Vec<u8>);

/// The text of a note, and its signatures.
fn taken_apart(note: &str) -> Result<(&str, Vec<Signature<'_>>), NoteError> {
    let end = note
        .rfind("\n\n")
        .ok_or(NoteError::Form("there is no empty line before signatures"))?;
    let (text, rest) = (&note[..=end], &note[end + 2..]);
    if !rest.ends_with('\n') {
        return Err(NoteError::Form("it does not end with a newline"));
    }
    let signatures = rest.lines().map(|line| {
        let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
        Some((name, BASE64.decode(signature).ok()?))
    });
    let signatures: Option<Vec<_>> = signatures.collect();
    Ok((
        text,
        signatures.ok_or(NoteError::Form("a line of a signature cannot be read"))?,
    ))
}

/// How far a log had come, and what it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log, which is that of its key.
    pub origin: String,
    /// How many leaves it has.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!(
            "{}\n{}\n{}\n",
            self.origin,
            self.size,
            BASE64.encode(self.root)
        )
    }

    /// Reads a checkpoint that `key` has signed.
    pub fn open(note: &str, key: &VerifyKey) -> Result<Checkpoint, NoteError> {
        let form = || NoteError::Form("its text is no checkpoint");
        let mut lines = key.open(note)?.lines();
        let mut line = || lines.next().ok_or_else(form);
        let (origin, size, root) = (line()?, line()?, line()?);
        let checkpoint = Checkpoint {
            origin: origin.to_owned(),
            size: size.parse().map_err(|_| form())?,
            root: BASE64
                .decode(root)
                .ok()
                .and_then(|r| r.try_into().ok())
                .ok_or_else(form)?,
        };
        match checkpoint.origin == key.name && size == checkpoint.size.to_string() {
            true => Ok(checkpoint),
            false => Err(form()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys and the note of the documentation of Go's package `note`.
    const SIGNER: &str =
        "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    const SIGNED: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn notes_are_those_of_other_tools() {
        let key = SigningKey::parse(SIGNER).unwrap();
        assert_eq!(key.public().to_string(), VERIFIER);
        assert_eq!(key.public(), VerifyKey::parse(VERIFIER).unwrap());
        let note = key.sign(TEXT);
        assert_eq!(note, format!("{TEXT}\n{SIGNED}"));
        assert_eq!(key.public().open(&note).unwrap(), TEXT);
        assert!(key.text().starts_with(SIGNER));
    }

    #[test]
    fn checkpoints_are_opened_with_their_key_only() {
        let key = SigningKey::of_seed([7; 32]);
        let checkpoint = Checkpoint {
            origin: key.public().name().to_owned(),
            size: 42,
            root: [9; 32],
        };
        let note = key.sign(&checkpoint.text());
        assert_eq!(
            Checkpoint::open(&note, &key.public()).as_ref(),
            Ok(&checkpoint)
        );
        // A witness adds a line of its own.
        let witness = SigningKey::parse(SIGNER).unwrap().sign(&checkpoint.text());
        let line = witness.lines().last().unwrap();
        assert!(Checkpoint::open(&format!("{note}{line}\n"), &key.public()).is_ok());

        let other = SigningKey::of_seed([8; 32]).public();
        assert!(matches!(
            Checkpoint::open(&note, &other),
            Err(NoteError::Unsigned(_))
        ));
        for (from, to) in [("42", "43"), ("\n\n", "\nmore\n\n"), ("CQkJ", "CQkK")] {
            let changed = note.replacen(from, to, 1);
            assert!(matches!(
                Checkpoint::open(&changed, &key.public()),
                Err(NoteError::Signature(_))
            ));
        }
        for wrong in ["", "a\n", "a\n\nb\n", &note[..note.len() - 1]] {
            assert!(
                matches!(key.public().open(wrong), Err(NoteError::Form(_))),
                "{wrong}"
            );
        }
        for wrong in [
            "",
            "a+b",
            "a+00000000+AQ==",
            &VERIFIER.replace("c74f", "c74e"),
        ] {
            assert_eq!(VerifyKey::parse(wrong), Err(NoteError::Key), "{wrong}");
        }
        assert_eq!(
            format!("{key:?}"),
            format!("SigningKey({}, ***)", key.public().name())
        );
    }
}
