//! The signs of a query: names, words, quoted texts, regular expressions, times.
//!
//! These are the steps of the [`Parser`] that read text and know no grammar. Every one leaves [`Parser::at`] behind what
//! it has read, or fails with the place where it began.

use event::Time;

use super::parser::Parser;
use super::{ErrorKind, Moment, Part, Pattern, QueryError, Regex};

/// A value with wildcards is no longer than this and has no more of them: matching is bounded by length times pattern.
const MAX_PATTERN: usize = 1_024;
const MAX_WILDCARDS: usize = 64;
/// Compiled regular expressions take at most this much memory.
const REGEX_SIZE: usize = 1 << 20;

pub(super) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '@' | '$' | '/' | '#')
}

/// A word as read: its parts, where it began, and whether it was written in quotes or with escapes.
pub(super) struct Word {
    parts: Vec<Part>,
    pub(super) start: usize,
    pub(super) plain: bool,
}

impl Word {
    pub(super) fn literal(self) -> Result<String, Pattern> {
        match <[Part; 1]>::try_from(self.parts) {
            Ok([Part::Literal(text)]) => Ok(text),
            Ok([part]) => Err(Pattern(vec![part])),
            Err(parts) if parts.is_empty() => Ok(String::new()),
            Err(parts) => Err(Pattern(parts)),
        }
    }
}

impl<'t> Parser<'t> {
    pub(super) fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    pub(super) fn fail<T>(&self, offset: usize, kind: ErrorKind) -> Result<T, QueryError> {
        Err(QueryError { offset, kind })
    }

    pub(super) fn too_large<T>(&self, what: &'static str, limit: usize) -> Result<T, QueryError> {
        self.fail(self.at, ErrorKind::TooLarge { what, limit })
    }

    pub(super) fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    pub(super) fn eat(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    /// A field name and its `:`, or nothing. The name `*` is given as an empty one.
    pub(super) fn name(&mut self) -> Result<Option<String>, QueryError> {
        let mut name = String::new();
        let mut wildcard = false;
        let mut chars = self.rest().char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                ':' if name.is_empty() => return self.fail(self.at, ErrorKind::MissingField),
                ':' if wildcard && name == "*" => {
                    self.at += i + 1;
                    return Ok(Some(String::new()));
                }
                ':' if wildcard => return self.fail(self.at, ErrorKind::WildcardField(name)),
                ':' => {
                    self.at += i + 1;
                    return Ok(Some(name));
                }
                '\\' => match chars.next() {
                    Some((_, c)) => name.push(c),
                    None => return Ok(None),
                },
                '/' if name.is_empty() => return Ok(None),
                '*' | '?' => {
                    wildcard = true;
                    name.push(c);
                }
                c if is_name_char(c) => name.push(c),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// A word up to white space or a parenthesis.
    pub(super) fn word(&mut self) -> Result<Word, QueryError> {
        self.word_until("()")
    }

    /// A word of a list in brackets, up to white space, a comma or a bracket.
    pub(super) fn word_of_list(&mut self) -> Result<Word, QueryError> {
        self.word_until(",[]()")
    }

    fn word_until(&mut self, ends: &str) -> Result<Word, QueryError> {
        let mut word = Word {
            parts: Vec::new(),
            start: self.at,
            plain: true,
        };
        let mut literal = String::new();
        let mut end = self.rest().len();
        let mut chars = self.rest().char_indices();
        while let Some((i, c)) = chars.next() {
            let part = match c {
                c if c.is_whitespace() || ends.contains(c) => {
                    end = i;
                    break;
                }
                '"' => return self.fail(self.at + i, ErrorKind::OpenQuote),
                '\\' => match chars.next() {
                    Some((_, c)) => {
                        word.plain = false;
                        literal.push(c);
                        continue;
                    }
                    None => return self.fail(self.at + i, ErrorKind::BadEscape),
                },
                '*' => Part::Any,
                '?' => Part::One,
                c => {
                    literal.push(c);
                    continue;
                }
            };
            if !literal.is_empty() {
                word.parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            // Several `*` in a row say no more than one.
            if part != Part::Any || word.parts.last() != Some(&Part::Any) {
                word.parts.push(part);
            }
        }
        if !literal.is_empty() {
            word.parts.push(Part::Literal(literal));
        }
        if end == 0 {
            let sign = self
                .rest()
                .chars()
                .next()
                .map(String::from)
                .unwrap_or_default();
            return self.fail(self.at, ErrorKind::UnknownOperator(sign));
        }
        let signs = word.parts.iter().filter(|p| !matches!(p, Part::Literal(_)));
        if signs.count() > MAX_WILDCARDS {
            return self.too_large("wildcards in one value", MAX_WILDCARDS);
        }
        if word.parts.len() > 1 && end > MAX_PATTERN {
            return self.too_large("bytes in a value with wildcards", MAX_PATTERN);
        }
        self.at += end;
        Ok(word)
    }

    /// The text between two quotes; a backslash takes the next character as it is.
    pub(super) fn quoted(&mut self) -> Result<String, QueryError> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += i + 1;
                    return Ok(text);
                }
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                c => text.push(c),
            }
        }
        self.fail(self.at, ErrorKind::OpenQuote)
    }

    pub(super) fn regex(&mut self) -> Result<Regex, QueryError> {
        let start = self.at;
        let mut text = String::new();
        // The bytes of `text` before which a backslash of ours was left out.
        let mut left_out = Vec::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '/' => {
                    self.at += i + 1;
                    return compile(text).map_err(|(within, kind)| QueryError {
                        offset: match within {
                            Some(at) => {
                                start + 1 + at + left_out.iter().filter(|l| **l <= at).count()
                            }
                            None => start,
                        },
                        kind,
                    });
                }
                '\\' => match chars.next() {
                    Some((_, '/')) => {
                        left_out.push(text.len());
                        text.push('/');
                    }
                    Some((_, c)) => text.extend(['\\', c]),
                    None => {}
                },
                c => text.push(c),
            }
        }
        self.fail(start, ErrorKind::OpenRegex)
    }

    /// A quoted text, or what stands up to white space or a bracket; `None` if there is nothing.
    pub(super) fn scalar(&mut self) -> Result<Option<String>, QueryError> {
        self.scalar_until("[]{}()")
    }

    /// The same up to one of `ends`.
    pub(super) fn scalar_until(&mut self, ends: &str) -> Result<Option<String>, QueryError> {
        if self.rest().starts_with('"') {
            return self.quoted().map(Some);
        }
        let mut text = String::new();
        let mut end = self.rest().len();
        let mut chars = self.rest().char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                c if c.is_whitespace() || ends.contains(c) => {
                    end = i;
                    break;
                }
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                c => text.push(c),
            }
        }
        self.at += end;
        Ok((end > 0).then_some(text))
    }
}

/// Compiles a regular expression, or says what is wrong with it and at which byte of it, where that is known.
fn compile(text: String) -> Result<Regex, (Option<usize>, ErrorKind)> {
    let built = regex::RegexBuilder::new(&format!("^(?:{text})$"))
        .case_insensitive(true)
        .dot_matches_new_line(true)
        .size_limit(REGEX_SIZE)
        .dfa_size_limit(REGEX_SIZE)
        .nest_limit(100)
        .build();
    // A group that is closed within the text alone could pair with the one around it.
    let (place, message) = match (regex_syntax::parse(&text), built) {
        (Ok(_), Ok(compiled)) => return Ok(Regex { text, compiled }),
        (Err(regex_syntax::Error::Parse(e)), _) => {
            (Some(e.span().start.offset), e.kind().to_string())
        }
        (Err(regex_syntax::Error::Translate(e)), _) => {
            (Some(e.span().start.offset), e.kind().to_string())
        }
        (Err(other), _) => (None, last_line(&other.to_string())),
        (Ok(_), Err(other)) => (None, last_line(&other.to_string())),
    };
    Err((place, ErrorKind::BadRegex(message)))
}

fn last_line(message: &str) -> String {
    let last = message.lines().rfind(|l| !l.trim().is_empty());
    let last = last.unwrap_or_default().trim();
    last.trim_start_matches("error: ").to_owned()
}

/// Does it have the form of an address with a prefix?
pub(super) fn looks_like_network(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else {
        return false;
    };
    let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    let four = address.contains('.') && address.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let six = address.matches(':').count() >= 2
        && address
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.');
    digits && (four || six)
}

/// `now`, `now-1h`, `-7d` or a time in RFC 3339.
pub(super) fn moment(text: &str) -> Option<Moment> {
    let lower = text.to_ascii_lowercase();
    let shift = match lower.strip_prefix("now") {
        Some("") => return Some(Moment::FromNow(0)),
        Some(shift) => shift,
        None => lower.as_str(),
    };
    let Some(digits) = shift.strip_prefix(['-', '+']) else {
        return Time::parse(text).ok().map(Moment::At);
    };
    let unit = match digits.bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3_600,
        b'd' => 86_400,
        b'w' => 7 * 86_400,
        _ => return None,
    };
    let count: i64 = digits[..digits.len() - 1].parse().ok()?;
    let micros = count.checked_mul(unit)?.checked_mul(1_000_000)?;
    Some(Moment::FromNow(if shift.starts_with('-') {
        -micros
    } else {
        micros
    }))
}
