//! Strings of rules as patterns: wildcards, escapes, dash variants, with and without case.
//!
//! A [`Text`] is the string of a rule taken apart into characters, wildcards and dash places; modifiers
//! change it. [`Pattern::new`] then picks the cheapest test that does the same: equality, prefix, suffix,
//! search, pieces in order or, for `?` and dashes, a linear-time regular expression.

use memchr::memmem;
use regex::Regex;

/// A part of a rule's string.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// Characters that stand for themselves.
    Literal(String),
    /// `*`: any number of any characters.
    Any,
    /// `?`: one character.
    One,
    /// A dash that may be written in several ways (modifier `windash`).
    Dash,
}

/// A rule's string taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(pub Vec<Part>);

/// The characters that `windash` takes for one another.
pub const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];

impl Text {
    /// Takes a string of a rule apart: `\*`, `\?` and `\\` stand for the character, other backslashes for themselves.
    pub fn parse(text: &str) -> Text {
        let mut out = Text::default();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' => out.push(Part::Any),
                '?' => out.push(Part::One),
                '\\' => out.literal(
                    chars
                        .next_if(|next| matches!(next, '*' | '?' | '\\'))
                        .unwrap_or('\\'),
                ),
                c => out.literal(c),
            }
        }
        out
    }

    /// A string that stands for itself.
    pub fn plain(text: &str) -> Text {
        Text(if text.is_empty() {
            Vec::new()
        } else {
            vec![Part::Literal(text.to_owned())]
        })
    }

    fn literal(&mut self, c: char) {
        match self.0.last_mut() {
            Some(Part::Literal(text)) => text.push(c),
            _ => self.0.push(Part::Literal(c.to_string())),
        }
    }

    fn push(&mut self, part: Part) {
        // Two stars in a row say no more than one.
        if part != Part::Any || self.0.last() != Some(&Part::Any) {
            self.0.push(part);
        }
    }

    /// The string, if it has no wildcards.
    pub fn as_plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Lets anything stand before and behind, as asked.
    pub fn open(mut self, before: bool, behind: bool) -> Text {
        if before && self.0.first() != Some(&Part::Any) {
            self.0.insert(0, Part::Any);
        }
        if behind {
            self.push(Part::Any);
        }
        self
    }

    /// Lets every dash that begins a word be any of [`DASHES`] (modifier `windash`; as pySigma: `\B[-/]\b`).
    pub fn windash(self) -> Text {
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let mut out = Text::default();
        for part in self.0 {
            let Part::Literal(text) = part else {
                out.push(part);
                continue;
            };
            let chars: Vec<char> = text.chars().collect();
            for (i, &c) in chars.iter().enumerate() {
                let before = i.checked_sub(1).map(|i| chars[i]);
                if DASHES.contains(&c) && !word(before) && word(chars.get(i + 1).copied()) {
                    out.push(Part::Dash);
                } else {
                    out.literal(c);
                }
            }
        }
        out
    }

    /// This string with every `from` in its literal parts replaced; gives one string per replacement.
    pub fn replace(&self, from: &str, with: &[Text]) -> Vec<Text> {
        let mut results = vec![Text::default()];
        for part in &self.0 {
            let pieces: Vec<Option<Text>> = match part {
                Part::Literal(text) if text.contains(from) => {
                    let mut pieces = Vec::new();
                    for (i, piece) in text.split(from).enumerate() {
                        if i > 0 {
                            pieces.push(None);
                        }
                        pieces.push(Some(Text::plain(piece)));
                    }
                    pieces
                }
                other => vec![Some(Text(vec![other.clone()]))],
            };
            for piece in pieces {
                let options = piece.map_or_else(|| with.to_vec(), |p| vec![p]);
                results = results
                    .iter()
                    .flat_map(|r| options.iter().map(|o| r.clone().join(o)))
                    .collect();
            }
        }
        results
    }

    fn join(mut self, other: &Text) -> Text {
        for part in &other.0 {
            match part {
                Part::Literal(text) => text.chars().for_each(|c| self.literal(c)),
                part => self.push(part.clone()),
            }
        }
        self
    }

    fn lower(&self) -> Text {
        Text(
            self.0
                .iter()
                .map(|p| {
                    if let Part::Literal(t) = p {
                        Part::Literal(lower_case(t))
                    } else {
                        p.clone()
                    }
                })
                .collect(),
        )
    }
}

/// A compiled string test. Without case it expects the lower-cased value.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// The whole value.
    Exact(Box<str>),
    /// Anything.
    Anything,
    /// The beginning.
    Prefix(Box<str>),
    /// The end.
    Suffix(Box<str>),
    /// Somewhere.
    Contains(Box<memmem::Finder<'static>>),
    /// Pieces in order: the first at the beginning, the last at the end, the others between.
    Pieces(Box<str>, Vec<memmem::Finder<'static>>, Box<str>),
    /// What has `?` or dash variants.
    Regex(Box<Regex>),
}

impl Pattern {
    /// The cheapest test for `text`.
    ///
    /// # Errors
    /// The pattern is too large to compile.
    pub fn new(text: &Text, cased: bool) -> Result<Pattern, regex::Error> {
        let text = if cased { text.clone() } else { text.lower() };
        let finder = |s: &str| memmem::Finder::new(s).into_owned();
        if text.0.iter().any(|p| matches!(p, Part::One | Part::Dash)) {
            let body: String = text
                .0
                .iter()
                .map(|part| match part {
                    Part::Literal(t) => regex::escape(t),
                    Part::Any => ".*".to_owned(),
                    Part::One => ".".to_owned(),
                    Part::Dash => "[-/\u{2013}\u{2014}\u{2015}]".to_owned(),
                })
                .collect();
            let regex = regex::RegexBuilder::new(&format!("^(?s:{body})$"))
                .size_limit(SIZE_LIMIT)
                .build()?;
            return Ok(Pattern::Regex(Box::new(regex)));
        }
        Ok(match text.0.as_slice() {
            [] => Pattern::Exact("".into()),
            [Part::Any] => Pattern::Anything,
            [Part::Literal(t)] => Pattern::Exact(t.as_str().into()),
            [Part::Literal(t), Part::Any] => Pattern::Prefix(t.as_str().into()),
            [Part::Any, Part::Literal(t)] => Pattern::Suffix(t.as_str().into()),
            [Part::Any, Part::Literal(t), Part::Any] => Pattern::Contains(Box::new(finder(t))),
            parts => {
                let (first, last) = (literal(parts.first()), literal(parts.last()));
                let inner = &parts
                    [usize::from(!first.is_empty())..parts.len() - usize::from(!last.is_empty())];
                let middle = inner
                    .iter()
                    .filter_map(|p| {
                        if let Part::Literal(t) = p {
                            Some(finder(t))
                        } else {
                            None
                        }
                    })
                    .collect();
                Pattern::Pieces(first.into(), middle, last.into())
            }
        })
    }

    /// Does the whole value fit?
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Pattern::Exact(text) => value == &**text,
            Pattern::Anything => true,
            Pattern::Prefix(text) => value.starts_with(&**text),
            Pattern::Suffix(text) => value.ends_with(&**text),
            Pattern::Contains(finder) => finder.find(value.as_bytes()).is_some(),
            Pattern::Pieces(first, middle, last) => {
                let Some(mut rest) = value
                    .strip_prefix(&**first)
                    .and_then(|v| v.strip_suffix(&**last))
                    .map(str::as_bytes)
                else {
                    return false;
                };
                middle.iter().all(|finder| match finder.find(rest) {
                    Some(at) => {
                        rest = &rest[at + finder.needle().len()..];
                        true
                    }
                    None => false,
                })
            }
            Pattern::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Lower case character by character, the same for rules and for events.
pub(crate) fn lower_case(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

fn literal(part: Option<&Part>) -> &str {
    if let Some(Part::Literal(text)) = part {
        text
    } else {
        ""
    }
}

/// The most that one compiled regular expression may take.
pub const SIZE_LIMIT: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(pattern: &str, value: &str) -> bool {
        Pattern::new(&Text::parse(pattern), false)
            .unwrap()
            .matches(&value.to_lowercase())
    }

    #[test]
    fn wildcards_and_escapes() {
        for (pattern, value, expected) in [
            ("Admin*", "ADMINISTRATOR", true),
            ("*\\cmd.exe", "C:\\Windows\\CMD.EXE", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("a\\?c", "a?c", true),
            ("a\\\\*", "a\\bc", true),
            ("a\\\\\\*", "a\\*", true),
            ("a\\\\\\*", "a\\x", false),
            ("c:\\temp", "C:\\temp", true),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("a*b*a", "aba", true),
            ("a*a", "a", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("gr\u{fc}n*", "GR\u{dc}N-X", true),
        ] {
            assert_eq!(fits(pattern, value), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn dashes() {
        let pattern = Pattern::new(
            &Text::parse(" -enc a-b /x").windash().open(true, true),
            false,
        )
        .unwrap();
        for (value, expected) in [
            ("p -enc a-b -x", true),
            ("p \u{2014}enc a-b /x", true),
            ("p /enc a/b /x", false),
            ("p enc a-b /x", false),
        ] {
            assert_eq!(pattern.matches(value), expected, "{value}");
        }
    }

    #[test]
    fn replaced_placeholders() {
        let text = Text::parse("x%a%*");
        let all = text.replace("%a%", &[Text::parse("1"), Text::parse("2*")]);
        assert_eq!(all, [Text::parse("x1*"), Text::parse("x2*")]);
    }

    proptest! {
        /// Against the naive definition: a backtracking matcher over characters.
        #[test]
        fn as_the_definition_says(pattern in "[ab*?]{0,8}", value in "[ab]{0,10}") {
            fn naive(p: &[char], v: &[char]) -> bool {
                match (p.first(), v.first()) {
                    (None, v) => v.is_none(),
                    (Some('*'), _) => naive(&p[1..], v) || (!v.is_empty() && naive(p, &v[1..])),
                    (Some('?'), Some(_)) => naive(&p[1..], &v[1..]),
                    (Some(c), Some(d)) => c == d && naive(&p[1..], &v[1..]),
                    _ => false,
                }
            }
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(fits(&pattern, &value), naive(&chars(&pattern), &chars(&value)));
        }
    }
}
