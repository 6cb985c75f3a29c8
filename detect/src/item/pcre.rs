//! Regular expressions as rules write them, for PCRE or Python, made into those of the `regex` crate.
//!
//! The two differ in escapes and in braces that repeat nothing; what the crate cannot do in linear time is not adapted
//! but recognised, so that the refusal can say what it is.

/// What PCRE and Python take and the `regex` crate writes otherwise: `\<`, `\>`, `\Z`, braces that repeat nothing.
pub(super) fn adapt(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len() + 8);
    let mut in_class = false;
    let mut i = 0;
    while i < chars.len() {
        match chars[i] {
            '\\' if i + 1 < chars.len() => {
                i += 1;
                match chars[i] {
                    '<' | '>' | '"' | '\'' | '/' | ' ' | '`' | '=' | ':' | ',' | ';' | '!'
                    | '@' | '%' | '_' => out.push(chars[i]),
                    'Z' => out.push_str("\\z"),
                    c => out.extend(['\\', c]),
                }
            }
            '[' if in_class => out.push_str("\\["),
            '[' => {
                in_class = true;
                out.push('[');
                // A bracket that comes first in a class stands for itself.
                if chars.get(i + 1) == Some(&'^') {
                    i += 1;
                    out.push('^');
                }
                if chars.get(i + 1) == Some(&']') {
                    i += 1;
                    out.push_str("\\]");
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' | '-' if in_class && chars.get(i + 1) == Some(&chars[i]) => {
                out.extend(['\\', chars[i]])
            }
            '{' if !in_class && !is_repetition(&chars[i..]) => out.push_str("\\{"),
            '}' if !in_class && !out_ends_repetition(&chars[..i]) => out.push_str("\\}"),
            c => out.push(c),
        }
        i += 1;
    }
    out
}

fn is_repetition(rest: &[char]) -> bool {
    let inner: String = rest.iter().skip(1).take_while(|c| **c != '}').collect();
    let (low, high) = inner.split_once(',').unwrap_or((&inner, ""));
    rest.contains(&'}')
        && !low.is_empty()
        && [low, high]
            .iter()
            .all(|n| n.chars().all(|c| c.is_ascii_digit()))
}

fn out_ends_repetition(before: &[char]) -> bool {
    before.iter().rposition(|c| *c == '{').is_some_and(|at| {
        let mut rest = before[at..].to_vec();
        rest.push('}');
        is_repetition(&rest) && rest.iter().filter(|c| **c == '}').count() == 1
    })
}

pub(super) fn has_look_around(text: &str) -> bool {
    ["(?=", "(?!", "(?<=", "(?<!"]
        .iter()
        .any(|l| text.contains(l))
}

pub(super) fn has_back_reference(text: &str) -> bool {
    text.as_bytes()
        .windows(2)
        .any(|w| w[0] == b'\\' && w[1].is_ascii_digit() && w[1] != b'0')
        || text.contains("(?P=")
        || text.contains("\\k<")
}
