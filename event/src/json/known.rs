//! Keys that came before.
//!
//! The records of a log have the same keys again and again. One that is known need not be searched for its end, hashed
//! and looked at for dots: [`Known::key`] compares what stands there with what stood at the same start before.

use std::ops::Range;

/// Keys longer than this are not kept.
const LONGEST: usize = 31;

/// The keys of the records before, as many as find a place.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Vec<Key>);

#[derive(Debug, Clone, Copy)]
struct Key {
    /// The key and the quote behind it.
    text: [u64; 4],
    hash: u32,
    flags: u8,
    length: u8,
}

/// A place without a key: nothing has this length.
const EMPTY: Key = Key {
    text: [0; 4],
    hash: 0,
    flags: 0,
    length: u8::MAX,
};

/// For every length of a text the bits of it that count.
const COUNTED: [[u64; 4]; 33] = {
    let mut counted = [[0; 4]; 33];
    let mut length = 1;
    while length <= 32 {
        counted[length] = counted[length - 1];
        let last = length - 1;
        counted[length][last / 8] |= 0xFF << (8 * (last % 8));
        length += 1;
    }
    counted
};

fn words(text: &[u8; 32]) -> [u64; 4] {
    let (words, _) = text.as_chunks();
    std::array::from_fn(|i| u64::from_le_bytes(words[i]))
}

impl Known {
    const BITS: u32 = 10;

    /// Makes room for keys. Without it none are kept, which is cheaper for a single text.
    pub(super) fn make_room(&mut self) {
        if self.0.is_empty() {
            self.0 = vec![EMPTY; 1 << Known::BITS];
        }
    }

    /// Where a key belongs that begins with these bytes, which reach beyond a short one.
    fn place(start: u64) -> usize {
        (start.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - Known::BITS)) as usize
    }

    /// The length, the hash and the flags of the key whose content begins at `at`, if it is known.
    #[inline]
    pub(super) fn key(&self, text: &[u8], at: usize) -> Option<(usize, u32, u8)> {
        let text = words(text.get(at..)?.first_chunk()?);
        let known = self.0.get(Known::place(text[0]))?;
        let counted = COUNTED.get(usize::from(known.length) + 1)?;
        let differs = (0..4).fold(0, |all, i| all | (text[i] ^ known.text[i]) & counted[i]);
        (differs == 0).then_some((known.length.into(), known.hash, known.flags))
    }

    /// Keeps the key that stands at `key` in the text, without escapes.
    pub(super) fn learn(&mut self, text: &[u8], key: Range<usize>, hash: u32, flags: u8) {
        let Some(start) = text[key.start..].first_chunk() else {
            return;
        };
        let place = Known::place(u64::from_le_bytes(*start));
        let (length, Some(known)) = (key.len(), self.0.get_mut(place)) else {
            return;
        };
        if length > LONGEST {
            return;
        }
        let mut quoted = [0; 32];
        quoted[..=length].copy_from_slice(&text[key.start..=key.end]);
        *known = Key {
            text: words(&quoted),
            hash,
            flags,
            length: length as u8,
        };
    }
}
