//! Which events were seen before, in 16 bytes an event.
//!
//! [`Seen`] keeps 64 bits of every event's id and 32 of what its record says, however that is written. It is cut into shards that grow by a
//! fifth, so that neither a half-empty table nor a moment of copying doubles the memory. A chance collision
//! of ids (one in 10^7 runs over 10^6 events) makes an event look like a conflict, never like a repeat.

/// What an event is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Not seen before.
    New,
    /// The same id with the same content.
    Repeat,
    /// The same id with other content.
    Conflict,
}

const SHARDS: usize = 256;

#[derive(Debug, Default)]
struct Shard {
    /// 0 is an empty place.
    ids: Vec<u64>,
    contents: Vec<u32>,
    used: usize,
}

/// The events seen so far.
#[derive(Debug)]
pub(crate) struct Seen(Vec<Shard>);

impl Seen {
    pub(crate) fn new() -> Seen {
        Seen((0..SHARDS).map(|_| Shard::default()).collect())
    }

    /// How many events were seen.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|s| s.used as u64).sum()
    }

    /// Takes note of an event and tells what it is.
    pub(crate) fn insert(&mut self, id: u64, content: u32) -> Known {
        let id = id.max(1);
        let shard = &mut self.0[id as usize % SHARDS];
        if shard.used * 10 >= shard.ids.len() * 9 {
            shard.grow();
        }
        let at = shard.place(id);
        if shard.ids[at] == 0 {
            shard.ids[at] = id;
            shard.contents[at] = content;
            shard.used += 1;
            return Known::New;
        }
        if shard.contents[at] == content {
            Known::Repeat
        } else {
            Known::Conflict
        }
    }
}

impl Shard {
    /// Where `id` stands, or the empty place where it belongs.
    fn place(&self, id: u64) -> usize {
        let mut at = ((u128::from(id) * self.ids.len() as u128) >> 64) as usize;
        while self.ids[at] != 0 && self.ids[at] != id {
            at = if at + 1 == self.ids.len() { 0 } else { at + 1 };
        }
        at
    }

    fn grow(&mut self) {
        let size = (self.ids.len() + self.ids.len() / 5).max(64);
        let mut larger = Shard {
            ids: vec![0; size],
            contents: vec![0; size],
            used: self.used,
        };
        for (id, content) in self
            .ids
            .iter()
            .zip(&self.contents)
            .filter(|(id, _)| **id != 0)
        {
            let at = larger.place(*id);
            larger.ids[at] = *id;
            larger.contents[at] = *content;
        }
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn as_a_map_says_and_in_sixteen_bytes() {
        let mut seen = Seen::new();
        let mut map = HashMap::new();
        let mut state = 7_u64;
        for i in 0..300_000_u64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let id = if i % 5 == 0 { state >> 46 } else { state };
            let content = (i % 2) as u32;
            let expected = match map.get(&id.max(1)) {
                None => Known::New,
                Some(c) if *c == content => Known::Repeat,
                Some(_) => Known::Conflict,
            };
            map.entry(id.max(1)).or_insert(content);
            assert_eq!(seen.insert(id, content), expected);
        }
        assert_eq!(seen.len(), map.len() as u64);
        let mut even = Seen::new();
        for i in 0..1_000_000_u64 {
            even.insert((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15), 0);
        }
        let bytes: usize = even.0.iter().map(|s| s.ids.capacity() * 12).sum();
        assert!(bytes <= 16 * 1_000_000 + SHARDS * 64 * 12, "{bytes}");
    }
}
