//! A test of the query made ready to be put to many values.
//!
//! [`Check`] is a [`Test`] with its texts folded, its times resolved and its words cut; [`Check::passes`] takes a folded
//! value. The walk over the terms of a split and the comparison with one event both use it, so that a pattern, a range
//! or a network means the same in both.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::IpAddr;

use event::Time;
use ipnet::IpNet;

use super::{Bound, Limit, Part, Pattern, Test};
use crate::text::{fold, has_phrase, is_word_char, words};

/// A test, ready for folded values.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    /// The same text.
    Equal(String),
    /// The same text as one of these.
    OneOf(BTreeSet<String>),
    /// The same text, or these words next to one another in it.
    Phrase(String),
    /// A pattern, its texts folded.
    Wildcard(Vec<Part>),
    /// A regular expression.
    Regex(regex::Regex),
    /// An address in this network.
    Cidr(IpNet),
    /// Between two bounds, times resolved.
    Range(Bound, Bound),
}

impl Check {
    /// The check for values of one field. `sentences` tells that its values are found through their words.
    pub(crate) fn value(test: &Test, sentences: bool, now: Time) -> Check {
        let limit = |limit: &Limit| match limit {
            Limit::Number(number) => Limit::Number(*number),
            Limit::Time(moment) => Limit::Time(super::Moment::At(moment.resolve(now))),
            Limit::Text(text) => Limit::Text(fold(text)),
        };
        let bound = |bound: &Bound| match bound {
            Bound::Open => Bound::Open,
            Bound::Included(l) => Bound::Included(limit(l)),
            Bound::Excluded(l) => Bound::Excluded(limit(l)),
        };
        match test {
            Test::Equals(text) if sentences => Check::Phrase(fold(text)),
            Test::Equals(text) => Check::Equal(fold(text)),
            Test::OneOf(texts) => Check::OneOf(texts.iter().map(|text| fold(text)).collect()),
            Test::Wildcard(Pattern(parts)) => Check::Wildcard(
                parts
                    .iter()
                    .map(|part| match part {
                        Part::Literal(text) => Part::Literal(fold(text)),
                        other => other.clone(),
                    })
                    .collect(),
            ),
            Test::Regex(regex) => Check::Regex(regex.compiled.clone()),
            Test::Cidr(net) => Check::Cidr(*net),
            Test::Range(from, to) => Check::Range(bound(from), bound(to)),
        }
    }

    /// Does the folded value pass?
    pub(crate) fn passes(&self, value: &str) -> bool {
        match self {
            Check::Equal(text) => value == text,
            Check::OneOf(texts) => texts.contains(value),
            Check::Phrase(text) => {
                value == text || has_phrase(value, &words(text).collect::<Vec<_>>())
            }
            Check::Wildcard(parts) => wildcard(parts, value),
            Check::Regex(regex) => regex.is_match(value),
            // As rules do: an IPv4 address written as IPv6 counts as what it is.
            Check::Cidr(net) => value
                .trim()
                .parse::<IpAddr>()
                .is_ok_and(|ip| net.contains(&ip.to_canonical()) || net.contains(&ip)),
            Check::Range(from, to) => above(from, value) && below(to, value),
        }
    }

    /// Does a value pass that is longer than a term, and of which only the start is known? `None` if the rest decides.
    pub(crate) fn passes_by_start(&self, start: &str) -> Option<bool> {
        match self {
            // No address is that long.
            Check::Cidr(_) => Some(false),
            Check::Wildcard(parts) if parts.last() == Some(&Part::Any) => {
                wildcard(parts, start).then_some(true)
            }
            Check::Phrase(text) => {
                // Words near the end may be cut themselves; none that stays whole for its shape is longer than this.
                let sure = start.len().saturating_sub(48);
                let end =
                    |word: &str| word.as_ptr() as usize - start.as_ptr() as usize + word.len();
                let known: Vec<&str> = words(start).take_while(|w| end(w) <= sure).collect();
                let phrase: Vec<&str> = words(text).collect();
                let found = !phrase.is_empty() && known.windows(phrase.len()).any(|w| w == phrase);
                found.then_some(true)
            }
            _ => None,
        }
    }

    /// What every passing value begins with.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Check::Equal(text) => text,
            Check::Wildcard(parts) => match parts.first() {
                Some(Part::Literal(text)) => text,
                _ => "",
            },
            _ => "",
        }
    }
}

/// Does free text with this test look at single words, rather than at whole values?
pub(crate) fn is_about_words(test: &Test) -> bool {
    match test {
        Test::Wildcard(Pattern(parts)) => parts.iter().all(|part| match part {
            Part::Literal(text) => text.chars().all(is_word_char),
            _ => true,
        }),
        Test::Cidr(net) => net.addr().is_ipv4(),
        _ => true,
    }
}

/// At most the product of both lengths: on a mismatch only the last `*` is tried again.
fn wildcard(parts: &[Part], value: &str) -> bool {
    let (mut part, mut rest) = (0, value);
    let mut retry: Option<(usize, &str)> = None;
    loop {
        match parts.get(part) {
            None if rest.is_empty() => return true,
            Some(Part::Any) if part + 1 == parts.len() => return true,
            Some(Part::Any) => {
                part += 1;
                retry = Some((part, rest));
                continue;
            }
            Some(Part::One) => {
                let mut chars = rest.chars();
                if chars.next().is_some() {
                    rest = chars.as_str();
                    part += 1;
                    continue;
                }
            }
            Some(Part::Literal(text)) => {
                if let Some(after) = rest.strip_prefix(text.as_str()) {
                    rest = after;
                    part += 1;
                    continue;
                }
            }
            None => {}
        }
        let Some((at, from)) = retry else {
            return false;
        };
        // A literal after `*` is looked for; anything else moves on by one character.
        let next = match parts.get(at) {
            Some(Part::Literal(text)) => from
                .char_indices()
                .nth(1)
                .and_then(|(i, _)| from[i..].find(text.as_str()).map(|found| i + found)),
            _ => from
                .char_indices()
                .nth(1)
                .map(|(i, _)| i)
                .or((!from.is_empty()).then_some(from.len())),
        };
        let Some(next) = next else {
            return false;
        };
        rest = &from[next..];
        part = at;
        retry = Some((at, rest));
    }
}

fn above(bound: &Bound, value: &str) -> bool {
    match bound {
        Bound::Open => true,
        Bound::Included(limit) => matches!(
            compare(value, limit),
            Some(Ordering::Greater | Ordering::Equal)
        ),
        Bound::Excluded(limit) => compare(value, limit) == Some(Ordering::Greater),
    }
}

fn below(bound: &Bound, value: &str) -> bool {
    match bound {
        Bound::Open => true,
        Bound::Included(limit) => matches!(
            compare(value, limit),
            Some(Ordering::Less | Ordering::Equal)
        ),
        Bound::Excluded(limit) => compare(value, limit) == Some(Ordering::Less),
    }
}

fn compare(value: &str, limit: &Limit) -> Option<Ordering> {
    match limit {
        Limit::Number(number) => value
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|v| v.is_finite())?
            .partial_cmp(number),
        Limit::Time(super::Moment::At(time)) => Some(Time::parse(value).ok()?.cmp(time)),
        Limit::Time(_) => None,
        Limit::Text(text) => Some(value.cmp(text.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{Query, parse};

    fn check(query: &str, passing: &[&str], failing: &[&str]) {
        let Query::Field(field, test) = parse(query).unwrap() else {
            panic!("{query} is not about a field");
        };
        let now = Time::parse("2026-03-02T12:00:00Z").unwrap();
        let check = Check::value(&test, field.is_words(), now);
        for value in passing {
            assert!(check.passes(&fold(value)), "{query} and {value}");
            assert!(
                fold(value).starts_with(check.prefix()),
                "{query} and {value}"
            );
        }
        for value in failing {
            assert!(!check.passes(&fold(value)), "{query} and {value}");
        }
    }

    #[test]
    fn wildcards() {
        check(
            "f:*ab*ab",
            &["abab", "xabyab", "ababab"],
            &["ab", "abba", "xaby"],
        );
        check("f:a?c*", &["abc", "aéc", "abcd"], &["ac", "abbc"]);
        check("f:*?", &["a", "ab", "é"], &[""]);
        check("f:*a?", &["xab", "aab"], &["a", "ba"]);
        check("f:???", &["äöü"], &["ab", "abcd"]);
        check("f:CREATE*", &["createUser"], &["recreate"]);
        check("f:*a*b*c*", &["aXbXc", "abc", "cabcab"], &["acb"]);
    }

    #[test]
    fn ranges() {
        check(
            "f:[1 TO 10]",
            &["1", "10", "2.5", "1e1"],
            &["0.9", "11", "a", "", "NaN"],
        );
        check("f:{1 TO 10}", &["2"], &["1", "10"]);
        check("f:>=a", &["a", "B"], &["", "A0".get(..0).unwrap_or("")]);
        check(
            "f:[2026-01-01 TO now]",
            &["2026-03-02T11:59:59Z"],
            &["2025-12-31", "x", "2026-03-03"],
        );
        check(
            "f:>-1d",
            &["2026-03-02T11:00:00+01:00"],
            &["2026-03-01T11:00:00Z"],
        );
        check("f:<\"m\"", &["lambda"], &["s3"]);
    }

    #[test]
    fn networks() {
        check(
            "f:203.0.113.0/24",
            &["203.0.113.7", "::ffff:203.0.113.7"],
            &["203.0.114.7", "AWS Internal"],
        );
        check(
            "f:2001:db8::/32",
            &["2001:DB8::1"],
            &["2001:db9::1", "1.2.3.4"],
        );
    }

    #[test]
    fn sentences_are_found_through_their_words() {
        check(
            "error_message:\"not authorized\"",
            &["User is NOT authorized.", "not-authorized"],
            &["not so authorized"],
        );
        check("user_agent:\"---\"", &["---"], &["----"]);
        check(
            "errorMessage:\"not authorized\"",
            &["Not Authorized"],
            &["is not authorized"],
        );
    }

    #[test]
    fn regular_expressions_cover_the_whole_value() {
        check("f:/a[0-9]+/", &["A12"], &["xa1", "a1x", "a"]);
        check("f:/a|b/", &["a", "b"], &["ab"]);
    }
}
