//! Arrays of numbers as bytes, for serde.
//!
//! Serde derives nothing for arrays longer than 32, and compact formats spend up to three bytes on a `u16`. State is
//! written for every series of every commit, so `#[serde(with = "packed")]` writes arrays as little-endian bytes.
//! Text formats get a list of bytes. The models use it for their fields; nobody else should need it.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserializer, Serializer};

/// A number of fixed width.
pub(super) trait Number: Copy {
    /// Its zero.
    const ZERO: Self;
    /// Its bytes.
    type Bytes: AsRef<[u8]> + for<'a> TryFrom<&'a [u8]>;
    /// To its bytes.
    fn bytes(self) -> Self::Bytes;
    /// From its bytes.
    fn number(bytes: Self::Bytes) -> Self;
}

impl Number for u8 {
    const ZERO: u8 = 0;
    type Bytes = [u8; 1];
    fn bytes(self) -> [u8; 1] {
        [self]
    }
    fn number(bytes: [u8; 1]) -> u8 {
        bytes[0]
    }
}

impl Number for u16 {
    const ZERO: u16 = 0;
    type Bytes = [u8; 2];
    fn bytes(self) -> [u8; 2] {
        self.to_le_bytes()
    }
    fn number(bytes: [u8; 2]) -> u16 {
        u16::from_le_bytes(bytes)
    }
}

impl Number for f32 {
    const ZERO: f32 = 0.0;
    type Bytes = [u8; 4];
    fn bytes(self) -> [u8; 4] {
        self.to_le_bytes()
    }
    fn number(bytes: [u8; 4]) -> f32 {
        f32::from_le_bytes(bytes)
    }
}

/// Writes an array as bytes.
pub(super) fn serialize<S: Serializer, T: Number, const N: usize>(
    array: &[T; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::with_capacity(N * size_of::<T>());
    for number in array {
        bytes.extend_from_slice(number.bytes().as_ref());
    }
    serializer.serialize_bytes(&bytes)
}

/// Reads what [`serialize`] wrote.
pub(super) fn deserialize<'de, D: Deserializer<'de>, T: Number, const N: usize>(
    deserializer: D,
) -> Result<[T; N], D::Error> {
    let bytes = deserializer.deserialize_bytes(Bytes)?;
    let wrong = || de::Error::invalid_length(bytes.len(), &"the bytes of another number of values");
    if bytes.len() != N * size_of::<T>() {
        return Err(wrong());
    }
    let mut array = [T::ZERO; N];
    for (number, own) in array.iter_mut().zip(bytes.chunks_exact(size_of::<T>())) {
        *number = T::number(T::Bytes::try_from(own).map_err(|_| wrong())?);
    }
    Ok(array)
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = list.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}
