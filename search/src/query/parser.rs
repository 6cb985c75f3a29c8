//! Reads the text of a query by recursive descent, over bytes of the text itself.
//!
//! ```text
//! or     = and { ( OR | || ) and }
//! and    = not { [ AND | && ] not }
//! not    = { NOT | ! | - | + } unit
//! unit   = ( or ) | field : test | field : ( or ) | test
//! test   = "phrase" | /regex/ | [a TO b] | {a TO b} | > a | >= a | < a | <= a | IN [ a , b ] | word with * and ?
//! ```
//!
//! Between parts without an operator there is an AND. `and`, `or` and `not` are operators in either case, since nobody
//! searches for them; in quotes they are words. `_exists_:field` and `_missing_:field` ask whether there is a value. Within `field:( … )` every part is about the field. A word ends at white
//! space or a bracket, so that ARNs and addresses need no quotes; a backslash takes the next character as it is.

use ipnet::IpNet;

use super::lexer::{Word, looks_like_network, moment};
use super::{
    Bound, ErrorKind, Field, Limit, MAX_CLAUSES, MAX_DEPTH, MAX_LIST, MAX_QUERY_BYTES, Moment,
    Part, Pattern, Query, QueryError, Test,
};

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

pub(super) struct Parser<'t> {
    pub(super) text: &'t str,
    pub(super) at: usize,
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

impl<'t> Parser<'t> {
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
        if self.field.is_none()
            && let Some(name) = self.name()?
        {
            return self.about(name, start);
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

    /// What stands after `name:`.
    fn about(&mut self, name: String, start: usize) -> Result<Query, QueryError> {
        self.skip_space();
        let ends = self.rest().is_empty() || self.rest().starts_with(')');
        if ends || matches!(self.operator(), Some((Operator::And | Operator::Or, _))) {
            return self.fail(start, ErrorKind::MissingValue(name));
        }
        if name.is_empty() {
            return if self.star() {
                Ok(Query::All)
            } else {
                self.free_text()
            };
        }
        if matches!(name.as_str(), "_exists_" | "_missing_") {
            let word = self.word()?;
            let exists = match word.literal() {
                Ok(field) if !field.is_empty() => Query::Exists(Field::named(&field)),
                _ => return self.fail(start, ErrorKind::MissingValue(name)),
            };
            return Ok(match name.as_str() {
                "_missing_" => Query::Not(Box::new(exists)),
                _ => exists,
            });
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
        if let Some(open) = self.list_begins() {
            return self.list(field, open);
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
            self.time_test(field, "[]{}()")?
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

    /// Where the `[` of a list is, if here stands `IN [`.
    fn list_begins(&self) -> Option<usize> {
        let rest = self.rest();
        let word = rest.get(..2).filter(|w| w.eq_ignore_ascii_case("in"))?;
        let open = rest[word.len()..].trim_start();
        open.starts_with('[').then(|| self.text.len() - open.len())
    }

    /// A list in brackets, whose bracket opens at `open`: any of its values.
    fn list(&mut self, field: &Field, open: usize) -> Result<Query, QueryError> {
        self.at = open + 1;
        let mut texts: Vec<String> = Vec::new();
        let mut parts = Vec::new();
        loop {
            self.skip_space();
            match self.rest().chars().next() {
                None => return self.fail(open, ErrorKind::OpenList),
                Some(']' | ',') => {
                    return self.fail(self.at, ErrorKind::MissingValue(field.name.clone()));
                }
                Some(_) => {}
            }
            let test = if field.is_time() {
                self.time_test(field, "[]{}(),")?
            } else if self.rest().starts_with('"') {
                Test::Equals(self.quoted()?)
            } else if self.rest().starts_with('/') {
                Test::Regex(self.regex()?)
            } else {
                let word = self.word_of_list()?;
                self.plain_test(word)?
            };
            match test {
                Test::Equals(text) if !field.is_words() => {
                    if !texts.contains(&text) {
                        texts.push(text);
                    }
                }
                test => {
                    self.clauses += 1;
                    if self.clauses > MAX_CLAUSES {
                        return self.too_large("tests", MAX_CLAUSES);
                    }
                    parts.push(match is_anything(&test) {
                        true => Query::Exists(field.clone()),
                        false => Query::Field(field.clone(), test),
                    });
                }
            }
            self.skip_space();
            if self.eat("]") {
                break;
            }
            match self.rest().chars().next() {
                None => return self.fail(open, ErrorKind::OpenList),
                Some(_) if self.eat(",") => {}
                Some(_) => return self.fail(self.at, ErrorKind::BadList),
            }
        }
        if texts.len() > MAX_LIST {
            return self.too_large("values of a list", MAX_LIST);
        }
        match texts.len() {
            0 => {}
            1 => parts.insert(
                0,
                Query::Field(field.clone(), Test::Equals(texts.remove(0))),
            ),
            _ => parts.insert(0, Query::Field(field.clone(), Test::OneOf(texts))),
        }
        Ok(joined(parts, Query::Or))
    }

    /// A time by itself stands for its day or its instant.
    fn time_test(&mut self, field: &Field, ends: &str) -> Result<Test, QueryError> {
        let start = self.at;
        let text = self.scalar_until(ends)?.unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(
            parse(text).map(|q| q.to_string()).as_deref(),
            Ok(expected),
            "{text}"
        );
    }

    fn check_error(text: &str, offset: usize, message: &str) {
        let error = parse(text).expect_err(text);
        assert_eq!(
            (error.offset, error.kind.to_string().as_str()),
            (offset, message),
            "{text}"
        );
    }

    #[test]
    fn operators_bind_as_in_lucene() {
        check("", "*");
        check(" * ", "*");
        check("*:*", "*");
        check(
            "a b OR c AND NOT d",
            r#"(("a" AND "b") OR ("c" AND NOT "d"))"#,
        );
        check("a && b || !c", r#"(("a" AND "b") OR NOT "c")"#);
        check("-a +b --c", r#"(NOT "a" AND "b" AND "c")"#);
        check("not not a", r#""a""#);
        check("a and (b or c)", r#"("a" AND ("b" OR "c"))"#);
        check("\"and\" \"or\"", r#"("and" AND "or")"#);
        check("e:(a OR NOT b)", r#"(e:"a" OR NOT e:"b")"#);
        check("n:(-5 OR >3)", r#"(n:"-5" OR n:{3 TO *])"#);
        check("e:(a -b)", r#"(e:"a" AND NOT e:"b")"#);
    }

    #[test]
    fn values() {
        check("a.b:c", r#"a.b:"c""#);
        check("arn:aws:iam::1:user/bob", r#"arn:"aws:iam::1:user/bob""#);
        check(
            r"userIdentity.arn:arn\:aws\*x",
            r#"userIdentity.arn:"arn:aws*x""#,
        );
        check(r#"m:"say \"no\" \\ ""#, r#"m:"say \"no\" \\ ""#);
        check("m:a*b?c**", "m:a*b?c*");
        check("m:*", "m:*");
        check("_exists_:m.n", "m.n:*");
        check("_missing_:m.n", "NOT m.n:*");
        check("-_missing_:m.n", "m.n:*");
        check("m: IN [a, \"b c\",d,a]", r#"m:IN ["a", "b c", "d"]"#);
        check("m:in [a]", r#"m:"a""#);
        check("m:(IN [a, b] OR c)", r#"(m:IN ["a", "b"] OR m:"c")"#);
        check(
            "ip:IN [10.0.0.0/8, 1.2.3.4, 192.0.*, 2001:db8::1]",
            r#"(ip:IN ["1.2.3.4", "2001:db8::1"] OR ip:10.0.0.0/8 OR ip:192\.0\.*)"#,
        );
        check(
            "user_agent:IN [curl, wget]",
            r#"(user_agent:"curl" OR user_agent:"wget")"#,
        );
        check(
            "time:IN [2026-03-02]",
            "time:[2026-03-02T00:00:00Z TO 2026-03-03T00:00:00Z}",
        );
        check("m:in", r#"m:"in""#);
        check("m:IN x", r#"(m:"IN" AND "x")"#);
        check("raw._exists_:x", r#"raw.\_exists_:"x""#);
        check("src_ip:203.0.113.0/24", "src_ip:203.0.113.0/24");
        check("src_ip:\"203.0.113.0/24\"", r#"src_ip:"203.0.113.0/24""#);
        check("p:a/24", r#"p:"a/24""#);
        check(r"p:/a\/b+/", r"p:/a\/b+/");
        check(
            "raw.region:x raw.eventName:y",
            r#"(raw.region:"x" AND eventName:"y")"#,
        );
        check("n:[1 TO 10}", "n:[1 TO 10}");
        check("n:{* TO a]", r#"n:[* TO "a"]"#);
        check("n:>=5 n:<b", r#"(n:[5 TO *] AND n:[* TO "b"})"#);
        check("n:[1 to a]", r#"n:["1" TO "a"]"#);
        check("time:>-7d", "time:{now-604800s TO *]");
        check("time:[now-1h TO now]", "time:[now-3600s TO now]");
        check(
            "time:2026-03-02",
            "time:[2026-03-02T00:00:00Z TO 2026-03-03T00:00:00Z}",
        );
        check(
            "time:2026-03-02T01:00:00Z",
            "time:[2026-03-02T01:00:00Z TO 2026-03-02T01:00:00Z]",
        );
        check(
            "eventTime:>2026-03-02",
            "eventTime:{2026-03-02T00:00:00Z TO *]",
        );
    }

    #[test]
    fn what_is_wrong_and_where() {
        check_error("a \"b", 2, "quote is not closed");
        check_error("a:/b", 2, "regular expression is not closed");
        check_error("a (b", 2, "parenthesis is not closed");
        check_error("m:IN [a", 5, "list is not closed");
        check_error("m:IN [", 5, "list is not closed");
        check_error("m:IN []", 6, "value of field `m` is missing");
        check_error("m:IN [a,]", 8, "value of field `m` is missing");
        check_error("m:IN [a b]", 8, "list lacks a comma");
        check_error("m:IN [10.0.0.0/99]", 6, "`10.0.0.0/99` is no network");
        check_error(
            "a:/b(c/",
            4,
            "regular expression cannot be used: unclosed group",
        );
        check_error(
            r"a:/\/x\/[z-a]/",
            9,
            "regular expression cannot be used: invalid character class range, the start must be <= the end",
        );
        check_error("(", 0, "parenthesis is not closed");
        check_error("a)", 1, "parenthesis closes nothing");
        check_error("a AND", 2, "operator `AND` lacks a side");
        check_error("OR a", 0, "operator `OR` lacks a side");
        check_error("a && || b", 2, "operator `&&` lacks a side");
        check_error("NOT", 0, "operator `NOT` lacks a side");
        check_error("a & b", 2, "unknown operator `&`");
        check_error("a:", 0, "value of field `a` is missing");
        check_error("x a: AND b", 2, "value of field `a` is missing");
        check_error(":a", 0, "field name is missing");
        check_error(">5", 0, "field name is missing");
        check_error("a*:b", 0, "field name `a*` has a wildcard");
        check_error("ip:10.0.0.0/33", 3, "`10.0.0.0/33` is no network");
        check_error("ip:1.2.3/8", 3, "`1.2.3/8` is no network");
        check_error("n:[1 TO", 2, "range is not complete");
        check_error("n:[1 2]", 2, "range is not complete");
        check_error("n:[10 TO 1]", 2, "range runs backwards: from 10 to 1");
        check_error(
            "time:[now TO -1d]",
            5,
            "range runs backwards: from now to now-86400s",
        );
        check_error("time:yesterday", 5, "`yesterday` is no time");
        check_error("time:[x TO now]", 6, "`x` is no time");
        check_error("é a\\", 4, "nothing follows the backslash");
        check_error(
            &"(".repeat(40),
            33,
            "query is too large: levels of parentheses 32 at most",
        );
        check_error(
            &"a ".repeat(1_001),
            2_000,
            "query is too large: tests 1000 at most",
        );
        check_error(
            &"a".repeat(70_000),
            0,
            "query is too large: bytes 65536 at most",
        );
        check_error(
            &"*a".repeat(65),
            0,
            "query is too large: wildcards in one value 64 at most",
        );
        let long = format!("*{}", "a".repeat(1_024));
        check_error(
            &long,
            0,
            "query is too large: bytes in a value with wildcards 1024 at most",
        );
        assert!(parse(r"a:/(a{1,9999}){9999}/").is_err());
        assert!(parse(r"a:/(?=b)/").is_err());
    }
}
