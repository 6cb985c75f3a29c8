//! Deterministic ids: the same thing gets the same id wherever and however often it is seen.
//!
//! An id is the first 16 bytes of a SHA-256 over a domain word and length-prefixed parts, shown as 32
//! hexadecimal digits. The length prefixes keep `("ab", "c")` and `("a", "bc")` apart.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A 128-bit deterministic id, in text 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub u128);

impl Id {
    /// The id of `parts` within `domain`, which names the kind of thing (`"event"`, `"finding"`, ...).
    pub fn of(domain: &str, parts: &[&[u8]]) -> Id {
        let mut hash = Context::new(&SHA256);
        for part in std::iter::once(domain.as_bytes()).chain(parts.iter().copied()) {
            hash.update(&(part.len() as u32).to_le_bytes());
            hash.update(part);
        }
        let digest = hash.finish();
        let start = digest.as_ref().first_chunk();
        Id(u128::from_be_bytes(*start.expect("SHA-256 has 32 bytes")))
    }

    /// A CloudTrail event: recipient account and eventID (DESIGN §4.2).
    pub fn cloudtrail(account: &str, event_id: &str) -> Id {
        Id::of("aws.cloudtrail", &[account.as_bytes(), event_id.as_bytes()])
    }

    /// A CloudWatch Logs event: owner account, log group, log stream and the event's own id.
    pub fn cloudwatch(owner: &str, group: &str, stream: &str, id: &str) -> Id {
        Id::of(
            "aws.cloudwatch",
            &[
                owner.as_bytes(),
                group.as_bytes(),
                stream.as_bytes(),
                id.as_bytes(),
            ],
        )
    }

    /// An event without an id of its own: the object it came from and its position there.
    pub fn position(object: &str, position: u64) -> Id {
        Id::of("position", &[object.as_bytes(), &position.to_le_bytes()])
    }

    /// The id under which an event is kept whose own id was already seen with other content.
    pub fn conflict(self, content_hash: u64) -> Id {
        Id::of(
            "conflict",
            &[&self.0.to_be_bytes(), &content_hash.to_le_bytes()],
        )
    }

    /// The 16 bytes, most significant first: they sort as the text does.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id of 16 bytes as [`Id::to_bytes`] gives them.
    pub fn from_bytes(bytes: [u8; 16]) -> Id {
        Id(u128::from_be_bytes(bytes))
    }

    /// Writes the 32 digits into `buffer` and gives them as text; for hot paths that format many ids.
    pub fn encode(self, buffer: &mut [u8; 32]) -> &str {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (i, byte) in self.to_bytes().into_iter().enumerate() {
            buffer[2 * i] = DIGITS[usize::from(byte >> 4)];
            buffer[2 * i + 1] = DIGITS[usize::from(byte & 15)];
        }
        std::str::from_utf8(buffer).expect("hexadecimal digits are ASCII")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.encode(&mut [0; 32]))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Id, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("an id has 32 hexadecimal digits");
        }
        u128::from_str_radix(text, 16)
            .map(Id)
            .map_err(|_| "an id has 32 hexadecimal digits")
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.encode(&mut [0; 32]))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(Id::of("d", &[b"ab", b"c"]), Id::of("d", &[b"a", b"bc"]));
        assert_ne!(Id::of("d", &[b"ab"]), Id::of("db", &[b"a"]));
    }

    #[test]
    fn text_round_trips() {
        let id = Id::cloudtrail("123456789012", "7b72a207-9b9e-40e1-bcec-b4ba06bc343b");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(Id::from_bytes(id.to_bytes()), id);
        assert!("+2345678901234567890123456789012".parse::<Id>().is_err());
    }

    /// Ids are on disk and in other people's tickets: they must never change.
    #[test]
    fn ids_are_frozen() {
        assert_eq!(
            Id::cloudtrail("123456789012", "e").to_string(),
            include_str!("../testdata/cloudtrail_id.txt").trim()
        );
    }
}
