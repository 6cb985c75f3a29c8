//! Which paths of an event have the same value, and which paths an event has, each as one term.
//!
//! The same value often stands at several paths of one event: `action` and `eventName`, an account at five places. Such
//! paths are a *set*, and the index has one term for the set and the value instead of one a path. The paths of a whole
//! event are its *shape*: there are few shapes beside events, so that one term an event tells which fields it has. Both
//! bear a name that follows from their paths, so that splits can be merged, and are defined by a term of their own:
//!
//! ```text
//! \2\2s <name> \1 <value>                a value that stands at all paths of the set
//! \2\2S <name> f \1 <path> \1 <path> \1  what the set is; `f` if free text looks into it, else `n`
//! \2\2p <name>                           an event with exactly the paths of this shape
//! \2\2P <name> - \1 <path> \1 <path> \1  what the shape is
//! ```
//!
//! A value of a set that is a UUID, or 32 hexadecimal digits, is written in two thirds of the place: these are half of
//! all bytes of a dictionary. [`packed`] and [`value`] are the two directions:
//!
//! ```text
//! \2u <22 digits of 6 bits>                a UUID, its 128 bits from the left
//! \2h <22 digits of 6 bits>                32 hexadecimal digits
//! <first 200 bytes> \2 <hash>              a value longer than 256 bytes, in `fields`
//! <first 200 bytes> \2 <hash> \2 <value>   the same in `common`
//! ```
//!
//! No path begins with two `\2`. Definitions are bounded by the number of events ([`Paths::event`]): what finds no room
//! is indexed path by path, which [`crate::lookup`] reads just as well. [`Often`] tells which values come again and again.

use std::borrow::Cow;
use std::collections::HashMap;

use event::Id;

use crate::schema::{MARK, VALUE};

/// Before the name of a set, in terms of values.
pub(crate) const SET: &str = "\u{2}\u{2}s";
/// Before the name of a set, in its definition.
pub(crate) const SET_IS: &str = "\u{2}\u{2}S";
/// Before the name of a shape, in terms of events.
pub(crate) const SHAPE: &str = "\u{2}\u{2}p";
/// Before the name of a shape, in its definition.
pub(crate) const SHAPE_IS: &str = "\u{2}\u{2}P";
/// How long a name is.
pub(crate) const NAME: usize = 16;

/// Paths that are told apart in one split.
const MAX_PATHS: usize = 20_000;
/// Sets of one split: every look-up by field asks those with its path.
const MAX_SETS: usize = 4_096;
/// Shapes of one split.
const MAX_SHAPES: usize = 16_384;
/// Longer definitions are not written.
const MAX_DEFINITION: usize = 16 * 1024;
/// How many bytes of definitions the first event may bring, and each further one.
const ROOM: (usize, usize) = (256 * 1024, 64);

/// A term's kind: that of an event's values or that of its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Paths with the same value; does free text look into it?
    Set {
        /// Free text looks into it.
        free: bool,
    },
    /// All paths of an event.
    Shape,
}

/// The paths, sets and shapes of one split that is being built.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    numbers: HashMap<Box<str>, u32>,
    paths: Vec<Box<str>>,
    free: HashMap<Box<[u32]>, Option<Box<str>>>,
    bound: HashMap<Box<[u32]>, Option<Box<str>>>,
    shapes: HashMap<Box<[u32]>, Option<Box<str>>>,
    room: usize,
}

impl Paths {
    /// Paths for a new split.
    pub(crate) fn new() -> Paths {
        Paths {
            room: ROOM.0,
            ..Paths::default()
        }
    }

    /// A further event makes room for definitions.
    pub(crate) fn event(&mut self) {
        self.room += ROOM.1;
    }

    /// The number of a path; `None` if there are too many.
    pub(crate) fn number(&mut self, path: &str) -> Option<u32> {
        if let Some(number) = self.numbers.get(path) {
            return Some(*number);
        }
        let number = self.paths.len();
        if number >= MAX_PATHS {
            return None;
        }
        self.paths.push(path.into());
        self.numbers.insert(path.into(), number as u32);
        Some(number as u32)
    }

    /// The path with this number.
    pub(crate) fn path(&self, number: u32) -> &str {
        self.paths.get(number as usize).map_or("", |p| p)
    }

    /// The name of a group of paths, which are in ascending order; its definition goes to `terms` the first time. `None`
    /// if it finds no room.
    pub(crate) fn name(&mut self, group: Group, paths: &[u32], terms: &mut String) -> Option<&str> {
        let (known, most) = match group {
            Group::Set { free: true } => (&mut self.free, MAX_SETS),
            Group::Set { free: false } => (&mut self.bound, MAX_SETS),
            Group::Shape => (&mut self.shapes, MAX_SHAPES),
        };
        if !known.contains_key(paths) {
            if known.len() >= most {
                return None;
            }
            let definition = define(group, paths, &self.paths);
            let fits = definition.len() <= MAX_DEFINITION && definition.len() <= self.room;
            let name = fits.then(|| {
                self.room -= definition.len();
                terms.push_str(&definition);
                terms.push('\0');
                definition[SET_IS.len()..SET_IS.len() + NAME].into()
            });
            known.insert(paths.into(), name);
        }
        known.get(paths)?.as_deref()
    }
}

/// The definition of a group. The same paths give the same in every split, whatever their numbers.
fn define(group: Group, numbers: &[u32], paths: &[Box<str>]) -> String {
    let mut names: Vec<&str> = numbers.iter().map(|n| &*paths[*n as usize]).collect();
    names.sort_unstable();
    let (start, kind) = match group {
        Group::Set { free: true } => (SET_IS, 'f'),
        Group::Set { free: false } => (SET_IS, 'n'),
        Group::Shape => (SHAPE_IS, '-'),
    };
    let mut rest = String::from(kind);
    rest.push(VALUE);
    for name in names {
        rest.push_str(name);
        rest.push(VALUE);
    }
    let hash = Id::of("search.paths", &[rest.as_bytes()]).0;
    let mut definition = String::from(start);
    definition.extend((0..NAME).map(|i| digit(hash >> (6 * i))));
    definition + &rest
}

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz-";

/// Six bits as one character.
fn digit(bits: u128) -> char {
    DIGITS[(bits & 63) as usize] as char
}

/// Where a UUID has its hyphens.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];
/// A UUID, and 32 hexadecimal digits, in lower case: kind, and where hyphens are.
const KINDS: [(char, &[usize]); 2] = [('u', &HYPHENS), ('h', &[])];

/// The hexadecimal digits of the start of a text of this shape, as far as it reaches; `None` if it has another shape.
fn hex_of(text: &str, hyphens: &[usize]) -> Option<(u128, usize)> {
    let (mut bits, mut count) = (0_u128, 0);
    for (place, byte) in text.bytes().enumerate() {
        if hyphens.contains(&place) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        if count == 32 {
            return None;
        }
        bits = bits << 4 | u128::from(value);
        count += 1;
    }
    Some((bits, count))
}

/// A folded value as it stands in the terms of a set, if it is packed there.
pub(crate) fn packed(value: &str) -> Option<String> {
    let (kind, hyphens) = match value.len() {
        36 => KINDS[0],
        32 => KINDS[1],
        _ => return None,
    };
    let (bits, _) = hex_of(value, hyphens)?;
    let mut out = String::from(MARK);
    out.push(kind);
    out.extend((0..21).map(|i| digit(bits >> (122 - 6 * i))));
    out.push(digit(bits << 4));
    Some(out)
}

/// What packed values begin with, at least, whose text begins with `prefix`.
pub(crate) fn packed_starts(prefix: &str) -> impl Iterator<Item = String> {
    KINDS.into_iter().filter_map(|(kind, hyphens)| {
        let (bits, count) = hex_of(prefix, hyphens)?;
        let bits = bits.checked_shl(4 * (32 - count as u32)).unwrap_or(0);
        let mut out = String::from(MARK);
        out.push(kind);
        out.extend((0..4 * count / 6).map(|i| digit(bits >> (122 - 6 * i))));
        Some(out)
    })
}

fn unpacked(kind: char, digits: &str) -> Option<String> {
    let mut bits = 0_u128;
    let mut digits = digits.bytes().map(|b| DIGITS.iter().position(|d| *d == b));
    for _ in 0..21 {
        bits = bits << 6 | digits.next()?? as u128;
    }
    bits = bits << 2 | digits.next()?? as u128 >> 4;
    let mut out = format!("{bits:032x}");
    if kind == 'u' {
        HYPHENS.iter().for_each(|place| out.insert(*place, '-'));
    }
    Some(out)
}

/// What a value in a dictionary stands for: the value as [`crate::schema::value_term_into`] writes it, and the whole
/// folded value, unless it was cut.
pub(crate) fn value(written: &str) -> (Cow<'_, str>, Option<Cow<'_, str>>) {
    let Some((start, rest)) = written.split_once(MARK) else {
        return (written.into(), Some(written.into()));
    };
    if start.is_empty() {
        let mut chars = rest.chars();
        let kind = chars.next().unwrap_or_default();
        let text = unpacked(kind, chars.as_str()).unwrap_or_default();
        return (text.clone().into(), Some(text.into()));
    }
    match rest.split_once(MARK) {
        None => (written.into(), None),
        Some((hash, whole)) => {
            let cut = &written[..start.len() + 1 + hash.len()];
            (cut.into(), Some(whole.into()))
        }
    }
}

/// Is this term a definition, rather than one of events?
pub(crate) fn is_definition(term: &str) -> bool {
    term.starts_with(SET_IS) || term.starts_with(SHAPE_IS)
}

/// The name, the kind and the paths (each between two `\1`) of a definition.
pub(crate) fn read(definition: &str) -> Option<(&str, char, &str)> {
    let (name, rest) = definition.get(SET_IS.len()..)?.split_at_checked(NAME)?;
    let kind = rest.chars().next()?;
    Some((name, kind, rest.get(kind.len_utf8()..)?))
}

/// Which values come often? A guess in little memory: it may take a value for frequent that is not, and forgets. Either
/// way an event is found, only by another way.
#[derive(Debug)]
pub(crate) struct Often {
    /// Eight bits of the hash, and how often it came.
    slots: Vec<(u8, u8)>,
}

impl Often {
    const SLOTS: usize = 1 << 20;
    /// From this time on a value counts as frequent.
    const TIMES: u8 = 4;

    /// Nothing has come yet.
    pub(crate) fn new() -> Often {
        Often {
            slots: vec![(0, 0); Often::SLOTS],
        }
    }

    /// Counts a value by its hash. Does it come often?
    pub(crate) fn count(&mut self, hash: u64) -> bool {
        let slot = &mut self.slots[hash as usize % Often::SLOTS];
        let mark = (hash >> 56) as u8;
        if slot.0 != mark {
            *slot = (mark, 0);
        }
        slot.1 = slot.1.saturating_add(1);
        slot.1 >= Often::TIMES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Group = Group::Set { free: true };

    #[test]
    fn a_group_is_defined_once_and_named_by_its_paths() {
        let (mut one, mut other) = (Paths::new(), Paths::new());
        let a = [one.number("a").unwrap(), one.number("b.c").unwrap()];
        other.number("x");
        let b = [other.number("b.c").unwrap(), other.number("a").unwrap()];
        let mut terms = String::new();
        let name = one.name(FREE, &a, &mut terms).unwrap().to_owned();
        assert_eq!(terms, format!("{SET_IS}{name}f\u{1}a\u{1}b.c\u{1}\0"));
        assert_eq!(
            read(terms.trim_end_matches('\0')),
            Some((name.as_str(), 'f', "\u{1}a\u{1}b.c\u{1}"))
        );
        terms.clear();
        assert_eq!(one.name(FREE, &a, &mut terms), Some(name.as_str()));
        assert_eq!(terms, "");
        assert_eq!(other.name(FREE, &b, &mut terms), Some(name.as_str()));
        let bound = Group::Set { free: false };
        assert_ne!(one.name(bound, &a, &mut terms), Some(name.as_str()));
    }

    #[test]
    fn definitions_are_bounded() {
        let mut paths = Paths::new();
        let mut terms = String::new();
        let numbers: Vec<u32> = (0..5_000)
            .map(|i| paths.number(&format!("{i:0>200}")).unwrap())
            .collect();
        assert_eq!(paths.name(FREE, &numbers, &mut terms), None);
        let named = numbers
            .iter()
            .filter(|n| paths.name(FREE, &[**n], &mut terms).is_some())
            .count();
        assert!((1_000..1_300).contains(&named), "{named}");
        assert!(terms.len() <= ROOM.0 + named);
        paths.event();
        assert_eq!(paths.path(numbers[7]), format!("{:0>200}", 7));
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let uuid = "7b72a207-9b9e-40e1-bcec-b4ba06bc343b";
        let hex = uuid.replace('-', "");
        for text in [uuid, &hex, &"f".repeat(32), &"0".repeat(32)] {
            let packed = packed(text).unwrap();
            assert_eq!(packed.len(), 24);
            assert_eq!(value(&packed), (text.into(), Some(text.into())));
            for end in 0..=text.len() {
                let mut starts = packed_starts(&text[..end]);
                assert!(starts.any(|s| packed.starts_with(&s)), "{}", &text[..end]);
            }
        }
        let upper = uuid.to_uppercase();
        for text in [
            "",
            "7b72a207",
            &upper,
            &uuid.replace('-', "_"),
            &"g".repeat(32),
        ] {
            assert_eq!(packed(text), None);
        }
        assert_eq!(
            packed_starts("x").count() + packed_starts("7b72a207x").count(),
            0
        );
        let cut = format!("{}{MARK}{}", "a".repeat(200), "1".repeat(32));
        assert_eq!(value(&cut), (cut.as_str().into(), None));
        let longer = format!("{cut}{MARK}aaa");
        assert_eq!(value(&longer), (cut.as_str().into(), Some("aaa".into())));
    }

    #[test]
    fn what_comes_often_is_seen() {
        let mut often = Often::new();
        let hash = 0xAB00_0000_0000_0001;
        assert!(!often.count(hash) && !often.count(hash) && !often.count(hash));
        assert!(often.count(hash) && often.count(hash));
        assert!(!often.count(0xCD00_0000_0000_0001));
    }
}
