//! Repeatable chance: [`Rng`], the SplitMix64 generator with the few draws that the demo needs.
//!
//! It is seeded and never reads a clock, so that the same seed gives the same traffic on every machine; it
//! uses whole numbers wherever a rounding could differ. It is good enough to spread made-up traffic and for
//! nothing else: keys and tokens of the program itself come from the operating system.

/// Letters and digits of AWS ids and access keys.
const BASE32: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const HEX: &[u8] = b"0123456789abcdef";

/// A seeded source of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The numbers of this seed.
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The numbers of `seed` for one purpose, apart from those of every other.
    pub(crate) fn stream(seed: u64, purpose: u64) -> Rng {
        let mut rng = Rng(seed ^ purpose.wrapping_mul(0xd134_2543_de82_ef95));
        Rng(rng.number())
    }

    /// The next 64 bits.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `from..=to`.
    pub(crate) fn range(&mut self, from: i64, to: i64) -> i64 {
        let width = to.saturating_sub(from).max(0) as u64 + 1;
        from + (self.number() % width) as i64
    }

    /// True in `per_mille` of a thousand draws.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.number() % 1_000 < per_mille
    }

    /// One of `items`, which are not empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[(self.number() % items.len() as u64) as usize]
    }

    /// One of `words`, which are not empty.
    pub(crate) fn word(&mut self, words: &[&'static str]) -> &'static str {
        words[(self.number() % words.len() as u64) as usize]
    }

    /// An index below `count`, the first ones far more often: the i-th with a weight of 1/(i+1).
    pub(crate) fn popular(&mut self, count: usize) -> usize {
        let weight = |i: usize| 1_000_000 / (i as u64 + 1);
        let mut left = self.number() % (0..count).map(weight).sum::<u64>().max(1);
        for i in 0..count {
            match left.checked_sub(weight(i)) {
                Some(rest) => left = rest,
                None => return i,
            }
        }
        0
    }

    /// `length` letters and digits as AWS uses them in keys and principal ids.
    pub(crate) fn base32(&mut self, length: usize) -> String {
        (0..length).map(|_| *self.pick(BASE32) as char).collect()
    }

    /// `length` hexadecimal digits.
    pub(crate) fn hex(&mut self, length: usize) -> String {
        (0..length).map(|_| *self.pick(HEX) as char).collect()
    }

    /// A random UUID.
    pub(crate) fn uuid(&mut self) -> String {
        let (high, low) = (self.number(), self.number());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            0x8000 | low >> 48 & 0x3fff,
            low & 0xffff_ffff_ffff
        )
    }

    /// Puts `items` in any order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.number() % (last as u64 + 1)) as usize);
        }
    }

    /// `count` different items, in the order of `items`.
    pub(crate) fn sample<'a, T>(&mut self, items: &'a [T], count: usize) -> Vec<&'a T> {
        let mut wanted = count.min(items.len()) as u64;
        let mut chosen = Vec::with_capacity(wanted as usize);
        for (i, item) in items.iter().enumerate() {
            if self.number() % ((items.len() - i) as u64) < wanted {
                chosen.push(item);
                wanted -= 1;
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let mut rng = Rng::new(1_234_567);
        let numbers = [rng.number(), rng.number()];
        // The first outputs of SplitMix64 for this seed, as its author publishes them.
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
        );
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut rng = Rng::new(7);
        let items: Vec<usize> = (0..9).collect();
        for _ in 0..1_000 {
            assert!((3..=5).contains(&rng.range(3, 5)));
            assert!(rng.popular(6) < 6);
            assert_eq!(rng.sample(&items, 4).len(), 4);
            let uuid = rng.uuid();
            assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"), "{uuid}");
        }
    }

    #[test]
    fn the_first_is_the_most_popular() {
        let mut rng = Rng::new(7);
        let mut seen = [0; 5];
        for _ in 0..10_000 {
            seen[rng.popular(5)] += 1;
        }
        assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
    }
}
