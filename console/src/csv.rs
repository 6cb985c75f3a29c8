//! CSV that a spreadsheet shows and does not run.
//!
//! Every cell is quoted, and a cell that a spreadsheet would take for a formula (beginning with `=`, `+`, `-`,
//! `@`, TAB or CR, also after spaces or behind a full-width form) is given an apostrophe in front. Hidden
//! characters are written as visible signs, so that a terminal does not obey them either.

use event::{Event, Normalized};

use crate::inert;

/// The columns of an export of events, by their normalized names.
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

/// Events as CSV with a head line.
pub(crate) fn events(events: &[Event]) -> String {
    let mut out = COLUMNS.join(",");
    out.push_str("\r\n");
    for event in events {
        for (i, column) in COLUMNS.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            match event.normalized(column) {
                Normalized::Absent => cell(&mut out, ""),
                Normalized::Text(text) => cell(&mut out, &text),
                Normalized::List(list) => cell(&mut out, &list.join(" ")),
            }
        }
        out.push_str("\r\n");
    }
    out
}

fn cell(out: &mut String, text: &str) {
    let first = text.trim_start_matches([' ', '\u{a0}']).chars().next();
    let formula = matches!(
        first,
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠')
    );
    out.push('"');
    if formula {
        out.push('\'');
    }
    out.push_str(&inert::plain(text).replace('"', "\"\""));
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let mut out = String::new();
        cell(&mut out, text);
        assert_eq!(out, expected);
    }

    #[test]
    fn cells_run_nothing() {
        check("plain", "\"plain\"");
        check("a \"b\", c", "\"a \"\"b\"\", c\"");
        check("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\"");
        check("+1", "\"'+1\"");
        check("-1", "\"'-1\"");
        check("@SUM(1)", "\"'@SUM(1)\"");
        check(" =1", "\"' =1\"");
        check("\t=1", "\"'⇥=1\"");
        check("\r=1", "\"'␍=1\"");
        check("a\r\nb\u{1b}", "\"a␍⏎b␛\"");
    }

    #[test]
    fn one_line_an_event() {
        let event = Event {
            action: "CreateUser".into(),
            user_agent: "x\ny".into(),
            ..Event::default()
        };
        let csv = events(&[event]);
        assert_eq!(csv.lines().count(), 2);
        assert!(csv.starts_with("time,source,account"));
    }
}
