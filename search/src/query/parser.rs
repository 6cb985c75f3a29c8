//! Reads the text of a query by recursive descent, over bytes of the text itself.
//!
//! ```text
//! or     = and { ( OR | || ) and }
//! and    = not { [ AND | && ] not }
//! not    = { NOT | ! | - | + } unit
//! unit   = ( or ) | field : test | field : ( or ) | test
//! test   = "phrase" | /regex/ | [a TO b] | {a TO b} | > a | >= a | < a | <= a | word with * and ?
//! ```
//!
//! Between parts without an operator there is an AND. `and`, `or` and `not` are operators in either case, since nobody
//! searches for them; in quotes they are words. Within `field:( … )` every part is about the field. A word ends at white
//! space or a bracket, so that ARNs and addresses need no quotes; a backslash takes the next character as it is.

use event::Time;
use ipnet::IpNet;

use super::{
    Bound, ErrorKind, Field, Limit, MAX_CLAUSES, MAX_DEPTH, MAX_QUERY_BYTES, Moment, Part, Pattern,
    Query, QueryError, Regex, Test,
};

/// Compiled regular expressions take at most this much memory.
const REGEX_SIZE: usize = 1 << 20;

/// Reads a query.
pub fn parse(text: &str) -> Result<Query, QueryError> {
    let mut parser = Parser {
        text,
        at: 0,
        clauses: 0,
        depth: 0,
        field: None,
    };
    if text.len() > MAX_QUERY_BYTES {
        return parser.too_large("bytes", MAX_QUERY_BYTES);
    }
    parser.skip_space();
    if parser.rest().is_empty() {
        return Ok(Query::All);
    }
    let query = parser.or()?;
    match parser.rest().chars().next() {
        None => Ok(query),
        Some(')') => parser.fail(parser.at, ErrorKind::StrayParenthesis),
        Some(c) => parser.fail(parser.at, ErrorKind::UnknownOperator(c.to_string())),
    }
}

pub(super) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '@' | '$' | '/' | '#')
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    clauses: usize,
    depth: usize,
    /// The field that a group in parentheses is about.
    field: Option<Field>,
}

#[derive(Clone, Copy, PartialEq)]
enum Operator {
    And,
    Or,
    Not,
}

/// A word as read: its parts, where it began, and whether it was written in quotes or with escapes.
struct Word {
    parts: Vec<Part>,
    start: usize,
    plain: bool,
}

impl Word {
    fn literal(self) -> Result<String, Pattern> {
        match <[Part; 1]>::try_from(self.parts) {
            Ok([Part::Literal(text)]) => Ok(text),
            Ok([part]) => Err(Pattern(vec![part])),
            Err(parts) if parts.is_empty() => Ok(String::new()),
            Err(parts) => Err(Pattern(parts)),
        }
    }
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn fail<T>(&self, offset: usize, kind: ErrorKind) -> Result<T, QueryError> {
        Err(QueryError { offset, kind })
    }

    fn too_large<T>(&self, what: &'static str, limit: usize) -> Result<T, QueryError> {
        self.fail(self.at, ErrorKind::TooLarge { what, limit })
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    /// The operator at this place and its length.
    fn operator(&self) -> Option<(Operator, usize)> {
        let rest = self.rest();
        for (sign, operator) in [("&&", Operator::And), ("||", Operator::Or)] {
            if rest.starts_with(sign) {
                return Some((operator, 2));
            }
        }
        if rest.starts_with('!') {
            return Some((Operator::Not, 1));
        }
        let end = rest
            .find(|c: char| c.is_whitespace() || "()\"".contains(c))
            .unwrap_or(rest.len());
        let operator = match &rest[..end] {
            w if w.eq_ignore_ascii_case("and") => Operator::And,
            w if w.eq_ignore_ascii_case("or") => Operator::Or,
            w if w.eq_ignore_ascii_case("not") => Operator::Not,
            _ => return None,
        };
        Some((operator, end))
    }

    fn or(&mut self) -> Result<Query, QueryError> {
        let mut parts = vec![self.and()?];
        while let Some((Operator::Or, length)) = self.operator() {
            self.binary(length)?;
            parts.push(self.and()?);
        }
        Ok(joined(parts, Query::Or))
    }

    fn and(&mut self) -> Result<Query, QueryError> {
        let mut parts = vec![self.not()?];
        loop {
            match self.operator() {
                Some((Operator::And, length)) => self.binary(length)?,
                Some((Operator::Or, _)) => break,
                _ if self.rest().is_empty() || self.rest().starts_with(')') => break,
                _ => {}
            }
            parts.push(self.not()?);
        }
        Ok(joined(parts, Query::And))
    }

    /// Steps over an operator that needs something to its right.
    fn binary(&mut self, length: usize) -> Result<(), QueryError> {
        let start = self.at;
        self.at += length;
        self.skip_space();
        let other = matches!(self.operator(), Some((Operator::And | Operator::Or, _)));
        if other || self.rest().is_empty() || self.rest().starts_with(')') {
            let word = self.text[start..start + length].to_owned();
            return self.fail(start, ErrorKind::MissingOperand(word));
        }
        Ok(())
    }

    fn not(&mut self) -> Result<Query, QueryError> {
        let mut negated = false;
        loop {
            let length = match self.operator() {
                Some((Operator::Not, length)) => {
                    self.binary(length)?;
                    negated = !negated;
                    continue;
                }
                Some((_, length)) => {
                    let word = self.rest()[..length].to_owned();
                    return self.fail(self.at, ErrorKind::MissingOperand(word));
                }
                None => usize::from(self.rest().starts_with(['-', '+'])),
            };
            let after = self.rest()[length..].chars().next();
            // A sign that stands alone or before a number or time of a field's group is part of the text.
            let sign = length == 1 && after.is_some_and(|c| !c.is_whitespace() && c != ')');
            if !sign || self.field.is_some() && after.is_some_and(|c| c.is_ascii_digit()) {
                break;
            }
            negated ^= self.rest().starts_with('-');
            self.at += 1;
        }
        let unit = self.unit()?;
        self.skip_space();
        Ok(match (negated, unit) {
            (false, unit) => unit,
            (true, Query::Not(inner)) => *inner,
            (true, unit) => Query::Not(Box::new(unit)),
        })
    }

    fn unit(&mut self) -> Result<Query, QueryError> {
        let start = self.at;
        if self.eat("(") {
            return self.group(start);
        }
        if self.rest().starts_with(')') {
            return self.fail(start, ErrorKind::StrayParenthesis);
        }
        for sign in ["&", "|", "==", "="] {
            if self.rest().starts_with(sign) {
                return self.fail(start, ErrorKind::UnknownOperator(sign.to_owned()));
            }
        }
        self.clauses += 1;
        if self.clauses > MAX_CLAUSES {
            return self.too_large("tests", MAX_CLAUSES);
        }
        if self.field.is_none() {
            if let Some(name) = self.name()? {
                return self.about(name, start);
            }
        }
        match self.field.clone() {
            Some(field) => self.field_test(&field),
            None => self.free_text(),
        }
    }

    fn group(&mut self, start: usize) -> Result<Query, QueryError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.too_large("levels of parentheses", MAX_DEPTH);
        }
        self.skip_space();
        if self.rest().is_empty() {
            return self.fail(start, ErrorKind::OpenParenthesis);
        }
        let query = self.or()?;
        if !self.eat(")") {
            return self.fail(start, ErrorKind::OpenParenthesis);
        }
        self.depth -= 1;
        Ok(query)
    }

    /// A field name and its `:`, or nothing.
    fn name(&mut self) -> Result<Option<String>, QueryError> {
        let mut name = String::new();
        let mut wildcard = false;
        let mut chars = self.rest().char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                ':' if name.is_empty() => return self.fail(self.at, ErrorKind::MissingField),
                ':' if name == "*" => {
                    self.at += i + 1;
                    return Ok(Some(name));
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

    /// What stands after `name:`.
    fn about(&mut self, name: String, start: usize) -> Result<Query, QueryError> {
        self.skip_space();
        let ends = self.rest().is_empty() || self.rest().starts_with(')');
        if ends || matches!(self.operator(), Some((Operator::And | Operator::Or, _))) {
            return self.fail(start, ErrorKind::MissingValue(name));
        }
        if name == "*" {
            return if self.star() {
                Ok(Query::All)
            } else {
                self.free_text()
            };
        }
        if name == "_exists_" {
            let word = self.word()?;
            return match word.literal() {
                Ok(name) if !name.is_empty() => Ok(Query::Exists(Field::named(&name))),
                _ => self.fail(start, ErrorKind::MissingValue(name)),
            };
        }
        let field = Field::named(&name);
        let open = self.at;
        if self.eat("(") {
            self.field = Some(field);
            let query = self.group(open);
            self.field = None;
            return query;
        }
        self.field_test(&field)
    }

    /// A `*` that stands alone.
    fn star(&mut self) -> bool {
        let rest = self.rest();
        let alone = rest.strip_prefix('*').is_some_and(|after| {
            after.is_empty() || after.starts_with(|c: char| c.is_whitespace() || c == ')')
        });
        self.at += usize::from(alone);
        alone
    }

    fn free_text(&mut self) -> Result<Query, QueryError> {
        if self.star() {
            return Ok(Query::All);
        }
        let start = self.at;
        match self.rest().chars().next() {
            Some('"') => Ok(Query::Text(Test::Equals(self.quoted()?))),
            Some('/') => Ok(Query::Text(Test::Regex(self.regex()?))),
            Some('[' | '{' | '>' | '<') => self.fail(start, ErrorKind::MissingField),
            _ => {
                let word = self.word()?;
                Ok(match self.plain_test(word)? {
                    test if is_anything(&test) => Query::All,
                    test => Query::Text(test),
                })
            }
        }
    }

    fn field_test(&mut self, field: &Field) -> Result<Query, QueryError> {
        if self.star() {
            return Ok(Query::Exists(field.clone()));
        }
        let start = self.at;
        let rest = self.rest();
        let bound = |inclusive: bool, limit| match inclusive {
            true => Bound::Included(limit),
            false => Bound::Excluded(limit),
        };
        let test = if rest.starts_with('[') || rest.starts_with('{') {
            self.range(field)?
        } else if rest.starts_with(['<', '>']) {
            let less = self.eat("<") || !self.eat(">");
            let inclusive = self.eat("=");
            self.skip_space();
            let Some(limit) = self.limit(field)? else {
                return self.fail(start, ErrorKind::BadRange);
            };
            let limit = bound(inclusive, limit);
            if less {
                Test::Range(Bound::Open, limit)
            } else {
                Test::Range(limit, Bound::Open)
            }
        } else if field.is_time() {
            self.time_test(field)?
        } else if rest.starts_with('"') {
            Test::Equals(self.quoted()?)
        } else if rest.starts_with('/') {
            Test::Regex(self.regex()?)
        } else {
            let word = self.word()?;
            self.plain_test(word)?
        };
        Ok(match is_anything(&test) {
            true => Query::Exists(field.clone()),
            false => Query::Field(field.clone(), test),
        })
    }

    /// A time by itself stands for its day or its instant.
    fn time_test(&mut self, field: &Field) -> Result<Test, QueryError> {
        let start = self.at;
        let text = self.scalar()?.unwrap_or_default();
        match moment(&text) {
            Some(Moment::At(day)) if text.len() == 10 => Ok(Test::Range(
                Bound::Included(Limit::Time(Moment::At(day))),
                Bound::Excluded(Limit::Time(Moment::At(day.plus(86_400_000_000)))),
            )),
            Some(at) => Ok(Test::Range(
                Bound::Included(Limit::Time(at)),
                Bound::Included(Limit::Time(at)),
            )),
            None if text.is_empty() => {
                self.fail(start, ErrorKind::MissingValue(field.name.clone()))
            }
            None => self.fail(start, ErrorKind::BadTime(text)),
        }
    }

    /// A word without quotes: a network, a pattern or a text.
    fn plain_test(&mut self, word: Word) -> Result<Test, QueryError> {
        let (start, plain) = (word.start, word.plain);
        match word.literal() {
            Err(pattern) => Ok(Test::Wildcard(pattern)),
            Ok(text) if plain && looks_like_network(&text) => match text.parse::<IpNet>() {
                Ok(net) => Ok(Test::Cidr(net)),
                Err(_) => self.fail(start, ErrorKind::BadCidr(text)),
            },
            Ok(text) => Ok(Test::Equals(text)),
        }
    }

    /// A word up to white space or a bracket.
    fn word(&mut self) -> Result<Word, QueryError> {
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
                c if c.is_whitespace() || c == '(' || c == ')' => {
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
        self.at += end;
        Ok(word)
    }

    /// The text between two quotes; a backslash takes the next character as it is.
    fn quoted(&mut self) -> Result<String, QueryError> {
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

    fn regex(&mut self) -> Result<Regex, QueryError> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '/' => {
                    self.at += i + 1;
                    return compile(text).map_err(|kind| QueryError {
                        offset: start,
                        kind,
                    });
                }
                '\\' => match chars.next() {
                    Some((_, '/')) => text.push('/'),
                    Some((_, c)) => text.extend(['\\', c]),
                    None => {}
                },
                c => text.push(c),
            }
        }
        self.fail(start, ErrorKind::OpenRegex)
    }

    fn range(&mut self, field: &Field) -> Result<Test, QueryError> {
        let start = self.at;
        let from_included = self.eat("[") || !self.eat("{");
        self.skip_space();
        let from_at = self.at;
        let from = self.limit(field)?;
        self.skip_space();
        let to = self
            .rest()
            .get(..2)
            .filter(|w| w.eq_ignore_ascii_case("to"));
        if to.is_none() || self.at == from_at {
            return self.fail(start, ErrorKind::BadRange);
        }
        self.at += 2;
        self.skip_space();
        let to_at = self.at;
        let to = self.limit(field)?;
        let ended = self.at > to_at;
        self.skip_space();
        let to_included = self.rest().starts_with(']');
        if !ended || !to_included && !self.rest().starts_with('}') {
            return self.fail(start, ErrorKind::BadRange);
        }
        self.at += 1;
        let (from, to) = match (from, to) {
            (Some(a), Some(b)) => {
                let (a, b) = alike(a, b);
                if reversed(&a, &b) {
                    let (from, to) = (a.to_string(), b.to_string());
                    return self.fail(start, ErrorKind::ReversedRange { from, to });
                }
                (Some(a), Some(b))
            }
            other => other,
        };
        let bound = |included: bool, limit: Option<Limit>| match limit {
            None => Bound::Open,
            Some(limit) if included => Bound::Included(limit),
            Some(limit) => Bound::Excluded(limit),
        };
        Ok(Test::Range(
            bound(from_included, from),
            bound(to_included, to),
        ))
    }

    /// One end of a range; `None` where it is open.
    fn limit(&mut self, field: &Field) -> Result<Option<Limit>, QueryError> {
        let start = self.at;
        let in_quotes = self.rest().starts_with('"');
        let Some(text) = self.scalar()? else {
            return Ok(None);
        };
        if !in_quotes && text == "*" {
            return Ok(None);
        }
        if field.is_time() {
            return match moment(&text) {
                Some(moment) => Ok(Some(Limit::Time(moment))),
                None => self.fail(start, ErrorKind::BadTime(text)),
            };
        }
        Ok(Some(
            match (in_quotes, text.parse::<f64>(), moment(&text)) {
                (false, Ok(number), _) if number.is_finite() => Limit::Number(number),
                (false, _, Some(moment)) => Limit::Time(moment),
                _ => Limit::Text(text),
            },
        ))
    }

    /// A quoted text, or what stands up to white space or a bracket; `None` if there is nothing.
    fn scalar(&mut self) -> Result<Option<String>, QueryError> {
        if self.rest().starts_with('"') {
            return self.quoted().map(Some);
        }
        let mut text = String::new();
        let mut end = self.rest().len();
        let mut chars = self.rest().char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                c if c.is_whitespace() || "[]{}()".contains(c) => {
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

/// A pattern of nothing but `*`.
fn is_anything(test: &Test) -> bool {
    matches!(test, Test::Wildcard(Pattern(parts)) if parts[..] == [Part::Any])
}

fn joined(mut parts: Vec<Query>, join: fn(Vec<Query>) -> Query) -> Query {
    if parts.len() == 1 {
        parts.remove(0)
    } else {
        join(parts)
    }
}

fn compile(text: String) -> Result<Regex, ErrorKind> {
    regex::RegexBuilder::new(&format!("^(?:{text})$"))
        .case_insensitive(true)
        .dot_matches_new_line(true)
        .size_limit(REGEX_SIZE)
        .dfa_size_limit(REGEX_SIZE)
        .nest_limit(100)
        .build()
        .map(|compiled| Regex { text, compiled })
        .map_err(|e| {
            let message = e.to_string();
            let last = message
                .lines()
                .rfind(|l| !l.trim().is_empty())
                .unwrap_or("");
            ErrorKind::BadRegex(last.trim().trim_start_matches("error: ").to_owned())
        })
}

/// Does it have the form of an address with a prefix?
fn looks_like_network(text: &str) -> bool {
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
fn moment(text: &str) -> Option<Moment> {
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

/// Two ends of different kinds are both compared as text.
fn alike(a: Limit, b: Limit) -> (Limit, Limit) {
    match (&a, &b) {
        (Limit::Number(_), Limit::Number(_))
        | (Limit::Time(_), Limit::Time(_))
        | (Limit::Text(_), Limit::Text(_)) => (a, b),
        _ => (as_text(a), as_text(b)),
    }
}

fn as_text(limit: Limit) -> Limit {
    match limit {
        Limit::Text(text) => Limit::Text(text),
        other => Limit::Text(other.to_string()),
    }
}

fn reversed(a: &Limit, b: &Limit) -> bool {
    match (a, b) {
        (Limit::Number(a), Limit::Number(b)) => a > b,
        (Limit::Time(Moment::At(a)), Limit::Time(Moment::At(b))) => a > b,
        (Limit::Time(Moment::FromNow(a)), Limit::Time(Moment::FromNow(b))) => a > b,
        (Limit::Text(a), Limit::Text(b)) => crate::text::fold(a) > crate::text::fold(b),
        _ => false,
    }
}
