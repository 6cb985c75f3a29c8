//! Field paths, and many of them looked up in one walk over a record.
//!
//! A path is written with dots, as in Sigma rules: `userIdentity.sessionContext.sessionIssuer.arn`. Arrays
//! on the way are entered: the path stands for the values of all their elements, and an array at its end
//! for its elements. A key that itself contains dots is found too.
//!
//! [`FieldSet`] holds all paths that anybody wants of a record, each under a [`Slot`] number;
//! [`FieldSet::extract`] fills [`Slots`] with what the record has, visiting only the objects on a path.

use crate::json::{Kind, Value, key_hash};

/// The number of a path within its [`FieldSet`].
pub type Slot = usize;

const NONE: u32 = u32::MAX;

/// Paths compiled into a tree of keys.
#[derive(Debug, Clone, Default)]
pub struct FieldSet {
    names: Vec<String>,
    levels: Vec<Level>,
}

/// One object on the way: its wanted keys in a small open-addressed table.
#[derive(Debug, Clone, Default)]
struct Level {
    keys: Vec<Key>,
    /// Places in `keys` plus one, by hash; 0 is empty. The length is a power of two.
    table: Vec<u16>,
    /// Does a path go on behind one of the keys?
    goes_on: bool,
}

#[derive(Debug, Clone)]
struct Key {
    name: Box<str>,
    hash: u32,
    slot: u32,
    level: u32,
}

impl FieldSet {
    /// A set without paths.
    pub fn new() -> FieldSet {
        FieldSet {
            names: Vec::new(),
            levels: vec![Level::default()],
        }
    }

    /// The slot of `path`, which is added if it is new.
    pub fn slot(&mut self, path: &str) -> Slot {
        if let Some(slot) = self.names.iter().position(|n| n == path) {
            return slot;
        }
        let slot = self.names.len();
        self.names.push(path.to_owned());
        let mut level = 0;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let key = self.levels[level].add(part);
            if parts.peek().is_none() {
                self.levels[level].keys[key].slot = slot as u32;
            } else if self.levels[level].keys[key].level == NONE {
                let next = self.levels.len();
                self.levels[level].keys[key].level = next as u32;
                self.levels[level].goes_on = true;
                self.levels.push(Level::default());
                level = next;
            } else {
                level = self.levels[level].keys[key].level as usize;
            }
        }
        slot
    }

    /// The path of a slot.
    pub fn name(&self, slot: Slot) -> &str {
        &self.names[slot]
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Is there no path in it?
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Fills `slots` with what `root` has at the paths of this set, in place of what was there.
    pub fn extract(&self, root: Value<'_>, slots: &mut Slots) {
        slots.first.clear();
        slots.first.resize(self.names.len(), NONE);
        slots.more.clear();
        self.visit(0, root, slots);
    }

    fn visit(&self, level: usize, value: Value<'_>, slots: &mut Slots) {
        match value.kind() {
            Kind::Object => {
                let wanted = &self.levels[level];
                for (number, hash, may_have_dots) in value.members() {
                    let same = |key: &Key| value.with_index(number).key_is(&key.name);
                    if let Some(key) = wanted.probe(hash, same) {
                        self.found(key, value.with_index(number), slots);
                    } else if may_have_dots && wanted.goes_on {
                        self.dotted(level, value.with_index(number), slots);
                    }
                }
            }
            Kind::Array => value
                .children()
                .filter(|v| v.kind() == Kind::Object)
                .for_each(|v| self.visit(level, v, slots)),
            _ => {}
        }
    }

    #[inline]
    fn found(&self, key: &Key, child: Value<'_>, slots: &mut Slots) {
        if key.slot != NONE {
            slots.add(key.slot as usize, child);
        }
        if key.level != NONE {
            self.visit(key.level as usize, child, slots);
        }
    }

    /// A key such as `ec2.volume` stands for two steps of a path.
    fn dotted(&self, level: usize, child: Value<'_>, slots: &mut Slots) {
        let Some(key) = child.key() else { return };
        let mut level = level;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            let Some(step) = self.levels[level].find_name(part) else {
                return;
            };
            if parts.peek().is_none() {
                return self.found(step, child, slots);
            }
            if step.level == NONE {
                return;
            }
            level = step.level as usize;
        }
    }
}

impl Level {
    fn add(&mut self, name: &str) -> usize {
        if let Some(at) = self.keys.iter().position(|k| &*k.name == name) {
            return at;
        }
        self.keys.push(Key {
            name: name.into(),
            hash: key_hash(name.as_bytes()),
            slot: NONE,
            level: NONE,
        });
        let size = (self.keys.len() * 4).next_power_of_two();
        self.table = vec![0; size];
        for (at, key) in self.keys.iter().enumerate() {
            let mut place = key.hash as usize & (size - 1);
            while self.table[place] != 0 {
                place = (place + 1) & (size - 1);
            }
            self.table[place] = at as u16 + 1;
        }
        self.keys.len() - 1
    }

    fn find_name(&self, name: &str) -> Option<&Key> {
        self.probe(key_hash(name.as_bytes()), |key| &*key.name == name)
    }

    #[inline]
    fn probe(&self, hash: u32, same: impl Fn(&Key) -> bool) -> Option<&Key> {
        let mask = self.table.len().checked_sub(1)?;
        let mut place = hash as usize & mask;
        loop {
            let key = &self.keys[(self.table[place] as usize).checked_sub(1)?];
            if key.hash == hash && same(key) {
                return Some(key);
            }
            place = (place + 1) & mask;
        }
    }
}

/// What one record has at the paths of a [`FieldSet`]: numbers of nodes in its document.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    first: Vec<u32>,
    more: Vec<(u32, u32)>,
}

impl Slots {
    /// Empty slots, to be filled by [`FieldSet::extract`].
    pub fn new() -> Slots {
        Slots::default()
    }

    #[inline]
    fn add(&mut self, slot: Slot, value: Value<'_>) {
        if value.kind() == Kind::Array {
            // An empty array is present but has no value, as in Sigma's `exists`.
            return value.children().for_each(|v| self.push(slot, v.index()));
        }
        self.push(slot, value.index());
    }

    #[inline]
    fn push(&mut self, slot: Slot, index: u32) {
        if self.first[slot] == NONE {
            self.first[slot] = index;
        } else {
            self.more.push((slot as u32, index));
        }
    }

    /// Has the record nothing at this path? (`null` is something.)
    #[inline]
    pub fn is_absent(&self, slot: Slot) -> bool {
        self.first[slot] == NONE
    }

    /// The first value at a path, as a node number for [`crate::json::Value::with_index`].
    #[inline]
    pub fn first(&self, slot: Slot) -> Option<u32> {
        Some(self.first[slot]).filter(|n| *n != NONE)
    }

    /// All values at a path, as node numbers for [`crate::json::Value::with_index`].
    #[inline]
    pub fn all(&self, slot: Slot) -> impl Iterator<Item = u32> + '_ {
        let first = self.first(slot);
        let more = if first.is_some() { &self.more[..] } else { &[] };
        let more = more.iter().filter(move |(s, _)| *s as usize == slot);
        first.into_iter().chain(more.map(|(_, n)| *n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Doc;

    fn check(record: &str, path: &str, expected: &[&str]) {
        let text = record.as_bytes();
        let doc = Doc::parse(text).unwrap();
        for others in [&["eventName", "a.b.other"][..], &[]] {
            let mut set = FieldSet::new();
            for other in others {
                set.slot(other);
            }
            let slot = set.slot(path);
            let mut slots = Slots::new();
            let root = doc.root(text);
            set.extract(root, &mut slots);
            let found: Vec<_> = slots
                .all(slot)
                .map(|n| String::from_utf8_lossy(root.with_index(n).raw()).into_owned())
                .collect();
            assert_eq!(found, expected, "{path} beside {others:?} in {record}");
        }
    }

    #[test]
    fn paths() {
        check(r#"{"a":{"b":{"c":1}}}"#, "a.b.c", &["1"]);
        check(r#"{"a":{"b":null}}"#, "a.b", &["null"]);
        check(r#"{"a":{}}"#, "a.b", &[]);
        check(r#"{"a":"x"}"#, "a.b", &[]);
        check(r#"{"a":{"b":1}}"#, "a", &[r#"{"b":1}"#]);
    }

    #[test]
    fn arrays_are_entered() {
        check(r#"{"a":[{"b":1},{"b":[2,3]},4]}"#, "a.b", &["1", "2", "3"]);
        check(r#"{"a":["x","y"]}"#, "a", &["\"x\"", "\"y\""]);
        check(r#"{"a":[]}"#, "a", &[]);
    }

    #[test]
    fn keys_with_dots() {
        check(r#"{"a.b.c":1}"#, "a.b.c", &["1"]);
        check(r#"{"a\u002eb.c":1}"#, "a.b.c", &["1"]);
        check(r#"{"a":{"b.c":1}}"#, "a.b.c", &["1"]);
        check(r#"{"a.b":{"c":1}}"#, "a.b.c", &["1"]);
        check(r#"{"a.b":{"c":1},"a":{"b":{"c":2}}}"#, "a.b.c", &["1", "2"]);
    }

    #[test]
    fn a_path_and_its_prefix() {
        let mut set = FieldSet::new();
        let (long, short) = (set.slot("a.b"), set.slot("a"));
        assert_eq!(
            (set.slot("a.b"), set.len(), set.name(short)),
            (long, 2, "a")
        );
        let text = br#"{"a":{"b":1}}"#;
        let doc = Doc::parse(text).unwrap();
        let mut slots = Slots::new();
        set.extract(doc.root(text), &mut slots);
        assert!(!slots.is_absent(long) && !slots.is_absent(short));
    }
}
