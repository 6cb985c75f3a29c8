//! The condition of a rule: which selections must hold together.
//!
//! The grammar of Sigma 2.1, least binding first: `or`, `and`, `not`, `1 of` / `any of` / `all of` with a
//! pattern or `them`, parentheses. `them` leaves out selections whose name begins with `_`. The words of the
//! grammar may be written in any case, but a selection that bears such a name wins.

use crate::error::{Mistake, nearest};
use crate::yaml::Place;

/// A condition over the selections of a rule, by their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The selection with this number.
    Selection(usize),
    /// The opposite.
    Not(Box<Condition>),
    /// All of them.
    And(Vec<Condition>),
    /// Any of them.
    Or(Vec<Condition>),
}

const MAX_DEPTH: usize = 64;

/// Parses `text`, which stands at `place`; `names` are the selections in the order of their numbers.
pub(crate) fn parse(text: &str, place: Place, names: &[String]) -> Result<Condition, Mistake> {
    let tokens = tokens(text);
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
        place,
        names,
        depth: 0,
    };
    if tokens.is_empty() {
        return Err(Mistake::new(place, "the condition is empty"));
    }
    let condition = parser.or()?;
    match parser.peek() {
        None => Ok(condition),
        Some(token) => Err(parser.unexpected(token)),
    }
}

struct Token {
    text: String,
    /// Offset in characters, for the column.
    at: usize,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut open = false;
    for (at, c) in text.chars().enumerate() {
        if c.is_whitespace() {
            open = false;
        } else if matches!(c, '(' | ')' | '|') {
            tokens.push(Token {
                text: c.to_string(),
                at,
            });
            open = false;
        } else if open && let Some(last) = tokens.last_mut() {
            last.text.push(c);
        } else {
            tokens.push(Token {
                text: c.to_string(),
                at,
            });
            open = true;
        }
    }
    tokens
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    place: Place,
    names: &'a [String],
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    /// Takes the next token if it is this word of the grammar.
    fn word(&mut self, word: &str) -> bool {
        let found = self
            .peek()
            .is_some_and(|t| t.text.eq_ignore_ascii_case(word) && !self.names.contains(&t.text));
        self.at += usize::from(found);
        found
    }

    fn place_of(&self, token: &Token) -> Place {
        self.place.plus(token.at)
    }

    fn end(&self) -> Place {
        self.tokens.last().map_or(self.place, |t| {
            self.place.plus(t.at + t.text.chars().count())
        })
    }

    fn unexpected(&self, token: &Token) -> Mistake {
        let place = self.place_of(token);
        if token.text == "|" {
            return Mistake::new(place, "aggregations behind `|` are no longer part of Sigma").hint("write a correlation document (type event_count, value_count or temporal) that refers to this rule");
        }
        Mistake::new(place, format!("unexpected `{}`", token.text))
            .hint("join selections with `and`, `or` and `not`")
    }

    fn or(&mut self) -> Result<Condition, Mistake> {
        let mut parts = vec![self.and()?];
        while self.word("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Condition::Or(parts)
        })
    }

    fn and(&mut self) -> Result<Condition, Mistake> {
        let mut parts = vec![self.not()?];
        while self.word("and") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Condition::And(parts)
        })
    }

    fn not(&mut self) -> Result<Condition, Mistake> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Mistake::new(
                self.place,
                format!("the condition is nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        let condition = if self.word("not") {
            Condition::Not(Box::new(self.not()?))
        } else {
            self.operand()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn operand(&mut self) -> Result<Condition, Mistake> {
        let Some(token) = self.peek() else {
            return Err(Mistake::new(
                self.end(),
                "the condition ends where a selection is expected",
            ));
        };
        self.at += 1;
        if token.text == "(" {
            let inner = self.or()?;
            return match self.peek() {
                Some(t) if t.text == ")" => {
                    self.at += 1;
                    Ok(inner)
                }
                Some(t) => Err(self.unexpected(t)),
                None => Err(Mistake::new(
                    self.place_of(token),
                    "this parenthesis is not closed",
                )),
            };
        }
        if matches!(token.text.as_str(), ")" | "|") {
            return Err(self.unexpected(token));
        }
        let named = self.names.iter().position(|n| *n == token.text);
        if named.is_none()
            || self
                .peek()
                .is_some_and(|t| t.text.eq_ignore_ascii_case("of"))
        {
            let lower = token.text.to_lowercase();
            if self.word("of") {
                return self.of(token, &lower);
            }
        }
        named.map(Condition::Selection).ok_or_else(|| {
            let hint = match nearest(&token.text, self.names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "the selections are {}",
                    self.names
                        .iter()
                        .map(|n| format!("`{n}`"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            Mistake::new(
                self.place_of(token),
                format!("there is no selection `{}`", token.text),
            )
            .hint(hint)
        })
    }

    /// Behind `1 of`, `any of` or `all of`.
    fn of(&mut self, quantifier: &Token, lower: &str) -> Result<Condition, Mistake> {
        let all = match lower {
            "1" | "any" => false,
            "all" => true,
            _ => {
                let message = format!("`{} of` is not part of Sigma", quantifier.text);
                return Err(Mistake::new(self.place_of(quantifier), message)
                    .hint("use `1 of`, `any of` or `all of`"));
            }
        };
        let Some(token) = self.peek() else {
            return Err(Mistake::new(
                self.end(),
                "a pattern or `them` is missing behind `of`",
            ));
        };
        self.at += 1;
        let them = token.text.eq_ignore_ascii_case("them") && !self.names.contains(&token.text);
        let meant = |name: &String| {
            if them {
                !name.starts_with('_')
            } else {
                glob(&token.text, name)
            }
        };
        let parts: Vec<_> = self
            .names
            .iter()
            .enumerate()
            .filter(|(_, n)| meant(n))
            .map(|(i, _)| Condition::Selection(i))
            .collect();
        if parts.is_empty() {
            let hint = format!(
                "the selections are {}",
                self.names
                    .iter()
                    .map(|n| format!("`{n}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            return Err(Mistake::new(
                self.place_of(token),
                format!("no selection fits `{}`", token.text),
            )
            .hint(hint));
        }
        Ok(if all {
            Condition::And(parts)
        } else {
            Condition::Or(parts)
        })
    }
}

/// `*` stands for any characters.
fn glob(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let pieces: Vec<&str> = pieces.collect();
    let (last, middle) = pieces
        .split_last()
        .expect("a pattern with a star has two pieces");
    for piece in middle {
        let Some(at) = rest.find(piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(condition: &Condition, names: &[String]) -> String {
        let join = |parts: &[Condition], word: &str| {
            format!(
                "({})",
                parts
                    .iter()
                    .map(|p| show(p, names))
                    .collect::<Vec<_>>()
                    .join(word)
            )
        };
        match condition {
            Condition::Selection(i) => names[*i].clone(),
            Condition::Not(inner) => format!("!{}", show(inner, names)),
            Condition::And(parts) => join(parts, " & "),
            Condition::Or(parts) => join(parts, " | "),
        }
    }

    fn check(condition: &str, expected: &str) {
        let names: Vec<String> = [
            "sel",
            "selection",
            "sel_a",
            "sel_b",
            "filter_x",
            "_hidden",
            "not_this",
        ]
        .map(String::from)
        .to_vec();
        let parsed = parse(
            condition,
            Place {
                line: 9,
                column: 16,
            },
            &names,
        );
        let shown = match parsed {
            Ok(condition) => show(&condition, &names),
            Err(mistake) => format!("{}: {}", mistake.place.unwrap().column, mistake.message),
        };
        assert_eq!(shown, expected, "{condition}");
    }

    #[test]
    fn precedence() {
        check(
            "sel or selection and not sel_a",
            "(sel | (selection & !sel_a))",
        );
        check("not sel and sel_a", "(!sel & sel_a)");
        check("(sel or sel_a) AND NOT sel_b", "((sel | sel_a) & !sel_b)");
        check("not not sel", "!!sel");
        check("sel and not 1 of filter_*", "(sel & !(filter_x))");
    }

    #[test]
    fn quantifiers() {
        check("1 of sel_*", "(sel_a | sel_b)");
        check("any of sel*", "(sel | selection | sel_a | sel_b)");
        check("all of sel_*", "(sel_a & sel_b)");
        check(
            "all of them",
            "(sel & selection & sel_a & sel_b & filter_x & not_this)",
        );
        check("1 of _*", "(_hidden)");
        check("1 of *_x", "(filter_x)");
        check("1 of s*_*", "(sel_a | sel_b)");
        check("1 of selection", "(selection)");
    }

    #[test]
    fn mistakes_point_at_the_place() {
        check(
            "sel and",
            "23: the condition ends where a selection is expected",
        );
        check("sel and slection", "24: there is no selection `slection`");
        check("sel selection", "20: unexpected `selection`");
        check("(sel", "16: this parenthesis is not closed");
        check("sel)", "19: unexpected `)`");
        check("1 of nothing*", "21: no selection fits `nothing*`");
        check("2 of sel*", "16: `2 of` is not part of Sigma");
        check(
            "sel | count() by x > 5",
            "20: aggregations behind `|` are no longer part of Sigma",
        );
        check("", "16: the condition is empty");
        check(
            &format!("{}sel", "not ".repeat(100)),
            "16: the condition is nested deeper than 64 levels",
        );
    }
}
