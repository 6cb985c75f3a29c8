//! The Merkle tree of RFC 6962: hashes, roots, inclusion and consistency.
//!
//! Everything here is arithmetic over a list of leaf hashes; nobody signs and nothing is stored. [`Frontier`] is what a
//! writer keeps of a tree that only grows: the roots of its complete subtrees, one for each bit of its size. [`Levels`]
//! and [`consistency`] make proofs from all leaf hashes, [`root_of_inclusion`] and [`is_consistent`] check them without.

use ring::digest::{Context, SHA256, digest};

/// A SHA-256.
pub type Hash = [u8; 32];

/// The SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> Hash {
    to_hash(digest(&SHA256, bytes))
}

fn to_hash(digest: ring::digest::Digest) -> Hash {
    digest.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

/// A SHA-256 that is fed piece by piece.
pub struct Hasher(Context);

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher(Context::new(&SHA256))
    }
}

impl Hasher {
    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all that was taken in.
    pub fn finish(self) -> Hash {
        to_hash(self.0.finish())
    }
}

/// The hash of a leaf: its content behind a zero byte, so that no leaf can be taken for a node.
pub fn leaf_hash(content: &[u8]) -> Hash {
    let mut hasher = Hasher::default();
    hasher.update(&[0]);
    hasher.update(content);
    hasher.finish()
}

/// The hash of a node over its two children.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    sha256(&bytes)
}

/// A tree that only grows, without its leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// The roots of the complete subtrees, largest first.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each trailing one of the size is a complete subtree that this leaf completes to a larger one.
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("a peak for each bit of the size");
            hash = node_hash(&left, &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root: of no leaves, the hash of nothing.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else {
            return sha256(&[]);
        };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The root over some leaf hashes.
pub fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root()
}

/// The largest power of two below `n`, which is two at least.
fn split(n: usize) -> usize {
    1 << (n - 1).ilog2()
}

/// All hashes of a tree, for many proofs: level by level from the leaves to the root. What has no sibling moves up as it
/// is.
#[derive(Debug, Clone)]
pub struct Levels(Vec<Vec<Hash>>);

impl Levels {
    /// The tree over some leaf hashes.
    pub fn of(leaves: Vec<Hash>) -> Levels {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let above = below.chunks(2).map(|pair| match pair {
                [left, right] => node_hash(left, right),
                alone => alone[0],
            });
            levels.push(above.collect());
        }
        Levels(levels)
    }

    /// The root.
    pub fn root(&self) -> Hash {
        let top = self.0.last().and_then(|level| level.first());
        top.copied().unwrap_or_else(|| sha256(&[]))
    }

    /// The leaf hashes.
    pub fn leaves(&self) -> &[Hash] {
        &self.0[0]
    }

    /// The hashes that lead from leaf `index` to the root, nearest first; `None` if there is no such leaf.
    pub fn inclusion(&self, index: usize) -> Option<Vec<Hash>> {
        self.leaves().get(index)?;
        let siblings = self.0.iter().enumerate();
        Some(
            siblings
                .filter_map(|(n, level)| level.get((index >> n) ^ 1))
                .copied()
                .collect(),
        )
    }
}

/// The root of the tree of `size` leaves that has `leaf` at `index`, as `path` says; `None` if the path does not fit.
pub fn root_of_inclusion(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = leaf;
    for step in path {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(step, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// The proof that the tree of the first `old` leaves is the beginning of this one; `None` if it has fewer.
pub fn consistency(leaves: &[Hash], old: usize) -> Option<Vec<Hash>> {
    if old > leaves.len() {
        return None;
    }
    let mut path = Vec::new();
    if old == 0 || old == leaves.len() {
        return Some(path);
    }
    let (mut leaves, mut old, mut whole) = (leaves, old, true);
    while old != leaves.len() {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if old <= left.len() {
            path.push(root(right));
            leaves = left;
        } else {
            path.push(root(left));
            old -= left.len();
            leaves = right;
            whole = false;
        }
    }
    if !whole {
        path.push(root(leaves));
    }
    path.reverse();
    Some(path)
}

/// Does `path` prove that the tree (`old`, `old_root`) is the beginning of the tree (`size`, `new_root`)?
pub fn is_consistent(old: u64, old_root: &Hash, size: u64, new_root: &Hash, path: &[Hash]) -> bool {
    if old == 0 {
        return path.is_empty() && *old_root == sha256(&[]);
    }
    if old >= size {
        return old == size && path.is_empty() && old_root == new_root;
    }
    let (mut node, mut last) = (old - 1, size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let mut steps = path.iter();
    let first = match old.is_power_of_two() {
        true => Some(old_root),
        false => steps.next(),
    };
    let Some(first) = first else {
        return false;
    };
    let (mut of_old, mut of_new) = (*first, *first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            of_old = node_hash(step, &of_old);
            of_new = node_hash(step, &of_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            of_new = node_hash(&of_new, step);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && of_old == *old_root && of_new == *new_root
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write;
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

/// The hash that 64 lower-case hexadecimal digits say.
pub fn unhex(text: &str) -> Option<Hash> {
    if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, place) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[place..place + 2], 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The leaves that the tests of Certificate Transparency use, and the roots of the trees of the first n of them.
    const LEAVES: [&[u8]; 8] = [
        b"",
        &[0x00],
        &[0x10],
        &[0x20, 0x21],
        &[0x30, 0x31],
        &[0x40, 0x41, 0x42, 0x43],
        &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
        &[
            0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d,
            0x6e, 0x6f,
        ],
    ];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let hashes: Vec<Hash> = LEAVES.iter().map(|l| leaf_hash(l)).collect();
        for (n, expected) in ROOTS.iter().enumerate() {
            assert_eq!(hex(&root(&hashes[..n])), *expected, "{n} leaves");
            assert_eq!(unhex(expected), Some(root(&hashes[..n])));
        }
    }

    /// The definition of RFC 6962, section 2.1.
    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                node_hash(&naive(left), &naive(right))
            }
        }
    }

    /// The definition of RFC 6962, section 2.1.1.
    fn naive_inclusion(leaves: &[Hash], index: usize) -> Vec<Hash> {
        if leaves.len() < 2 {
            return Vec::new();
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        let (mut path, other) = match index.checked_sub(left.len()) {
            None => (naive_inclusion(left, index), right),
            Some(index) => (naive_inclusion(right, index), left),
        };
        path.push(naive(other));
        path
    }

    /// The definition of RFC 6962, section 2.1.2.
    fn naive_consistency(leaves: &[Hash], old: usize, whole: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return if whole {
                Vec::new()
            } else {
                vec![naive(leaves)]
            };
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        if old <= left.len() {
            let mut path = naive_consistency(left, old, whole);
            path.push(naive(right));
            path
        } else {
            let mut path = naive_consistency(right, old - left.len(), false);
            path.push(naive(left));
            path
        }
    }

    fn leaves(n: usize) -> Vec<Hash> {
        (0..n).map(|i| leaf_hash(&i.to_le_bytes())).collect()
    }

    #[test]
    fn all_small_trees_are_as_defined() {
        for n in 0..70 {
            let leaves = leaves(n);
            let top = root(&leaves);
            assert_eq!(top, naive(&leaves));
            let levels = Levels::of(leaves.clone());
            assert_eq!(levels.root(), top);
            for index in 0..n {
                let path = levels.inclusion(index).unwrap();
                assert_eq!(path, naive_inclusion(&leaves, index));
                let found = root_of_inclusion(leaves[index], index as u64, n as u64, &path);
                assert_eq!(found, Some(top), "{index} of {n}");
            }
            assert_eq!(levels.inclusion(n), None);
            for old in 1..=n {
                let path = consistency(&leaves, old).unwrap();
                assert_eq!(path, naive_consistency(&leaves, old, true), "{old} of {n}");
                let before = root(&leaves[..old]);
                assert!(is_consistent(old as u64, &before, n as u64, &top, &path));
            }
            assert_eq!(consistency(&leaves, n + 1), None);
        }
    }

    proptest! {
        #[test]
        fn wrong_proofs_are_refused(n in 2_usize..200, at in any::<prop::sample::Index>(), old in any::<prop::sample::Index>(), bit in 0_usize..256) {
            let leaves = leaves(n);
            let (top, index) = (root(&leaves), at.index(n));
            let path = Levels::of(leaves.clone()).inclusion(index).unwrap();
            let other = (index + 1) % n;
            let found = root_of_inclusion(leaves[index], other as u64, n as u64, &path);
            prop_assert_ne!(found, Some(top));
            let mut wrong = path.clone();
            let place = bit % wrong.len();
            wrong[place][bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(root_of_inclusion(leaves[index], index as u64, n as u64, &wrong), Some(top));
            prop_assert_ne!(root_of_inclusion(leaves[index], index as u64, n as u64, &path[1..]), Some(top));

            let old = 1 + old.index(n - 1);
            let path = consistency(&leaves, old).unwrap();
            let mut before = root(&leaves[..old]);
            prop_assert!(is_consistent(old as u64, &before, n as u64, &top, &path));
            before[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!is_consistent(old as u64, &before, n as u64, &top, &path));
        }
    }
}
