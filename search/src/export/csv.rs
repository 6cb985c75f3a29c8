//! CSV (RFC 4180) that a spreadsheet shows and does not run.
//!
//! Every cell is quoted, and one that a spreadsheet would take for a formula is given an apostrophe in front, also where
//! spaces or a full-width form hide the sign. Hidden characters are written as visible signs, so that a terminal does not
//! obey them either; lines end within no cell.

use std::io::Write;

use event::{Event, Normalized};

const COLUMNS: &[&str] = &[
    "time",
    "source",
    "account",
    "region",
    "service",
    "action",
    "outcome",
    "error_code",
    "error_message",
    "actor",
    "actor_type",
    "identity",
    "session",
    "access_key",
    "src_ip",
    "user_agent",
    "resources",
    "function",
    "request_id",
    "source_id",
    "id",
];

/// The names of the columns.
pub(super) fn head(out: &mut impl Write) -> std::io::Result<()> {
    write!(out, "{}\r\n", COLUMNS.join(","))
}

/// An event.
pub(super) fn line(out: &mut impl Write, event: &Event) -> std::io::Result<()> {
    for (i, column) in COLUMNS.iter().enumerate() {
        if i > 0 {
            out.write_all(b",")?;
        }
        let text = match event.normalized(column) {
            Normalized::Absent => cell(""),
            Normalized::Text(text) => cell(&text),
            Normalized::List(list) => cell(&list.join(" ")),
        };
        out.write_all(text.as_bytes())?;
    }
    out.write_all(b"\r\n")
}

/// A text as a cell.
pub fn cell(text: &str) -> String {
    let first = text.trim_start_matches([' ', '\u{a0}']).chars().next();
    let formula = matches!(
        first,
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠')
    );
    format!(
        "\"{}{}\"",
        if formula { "'" } else { "" },
        event::inert::text(text).replace('"', "\"\"")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_never_formulas() {
        for (text, expected) in [
            ("=HYPERLINK(1)", "\"'=HYPERLINK(1)\""),
            ("a\"b, c", "\"a\"\"b, c\""),
            ("-1", "\"'-1\""),
            (" =1", "\"' =1\""),
            ("＝1", "\"'＝1\""),
            ("\t=1", "\"'⇥=1\""),
            ("plain", "\"plain\""),
        ] {
            assert_eq!(cell(text), expected);
        }
    }
}
