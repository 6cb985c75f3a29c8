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
/// A shard with fewer places than this may be half empty.
const SMALL: usize = 2_048;

#[derive(Debug, Default)]
struct Shard {
    /// One event in a cache line: the halves of the id, both 0 in an empty place, and the content.
    places: Vec<[u32; 3]>,
    used: usize,
}

fn id_of([high, low, _]: [u32; 3]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
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

    /// Brings the places of events into the cache, many at once, so that [`Seen::insert`] does not wait for each.
    pub(crate) fn touch(&self, ids: impl Iterator<Item = u64>) {
        let homes = ids.map(|id| {
            let shard = &self.0[id.max(1) as usize % SHARDS];
            shard.places.get(shard.home(id)).map_or(0, |p| p[2])
        });
        std::hint::black_box(homes.fold(0, |sum, content| sum ^ content));
    }

    /// Takes note of an event and tells what it is.
    pub(crate) fn insert(&mut self, id: u64, content: u32) -> Known {
        let id = id.max(1);
        let shard = &mut self.0[id as usize % SHARDS];
        if shard.used * 10 >= shard.places.len() * 9 {
            shard.grow();
        }
        let at = shard.place(id);
        if id_of(shard.places[at]) == 0 {
            shard.places[at] = [(id >> 32) as u32, id as u32, content];
            shard.used += 1;
            return Known::New;
        }
        if shard.places[at][2] == content {
            Known::Repeat
        } else {
            Known::Conflict
        }
    }
}

impl Shard {
    /// Where the search for `id` begins.
    fn home(&self, id: u64) -> usize {
        ((u128::from(id) * self.places.len() as u128) >> 64) as usize
    }

    /// Where `id` stands, or the empty place where it belongs.
    fn place(&self, id: u64) -> usize {
        let mut at = self.home(id);
        while id_of(self.places[at]) != 0 && id_of(self.places[at]) != id {
            at = if at + 1 == self.places.len() {
                0
            } else {
                at + 1
            };
        }
        at
    }

    fn grow(&mut self) {
        let size = match self.places.len() {
            0 => 64,
            few @ ..SMALL => 2 * few,
            many => many + many / 5,
        };
        let old = std::mem::replace(&mut self.places, vec![[0; 3]; size]);
        for place in old {
            let id = id_of(place);
            if id != 0 {
                let at = self.place(id);
                self.places[at] = place;
            }
        }
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
        let bytes: usize = even.0.iter().map(|s| s.places.capacity() * 12).sum();
        assert!(bytes <= 16 * 1_000_000 + SHARDS * 64 * 12, "{bytes}");
    }
}
