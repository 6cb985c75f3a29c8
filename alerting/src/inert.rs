//! Makes hostile text harmless before people or their programs see it.
//!
//! Whoever attacks a system also writes its logs: user agents, names and error messages are chosen by the
//! attacker and end up in mails, tables, terminals and spreadsheets. These functions keep the text readable
//! and take its teeth: [`line`] and [`text`] show control characters, terminal escapes, bidirectional marks
//! and invisible characters as visible signs (`␛`, `⏎`, `⟨U+202E⟩`), [`html`] also escapes markup,
//! [`header`] is for mail headers, [`csv_field`] for spreadsheets, [`defanged`] keeps mail programs from
//! making links. [`has_hidden`] tells whether there was anything to show.

use std::borrow::Cow;

/// Is the character one that people cannot see or that changes how others are shown?
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Does the text have characters that are shown as signs?
pub fn has_hidden(text: &str) -> bool {
    text.chars().any(is_hidden)
}

/// The text on one line, with everything hidden made visible.
pub fn line(text: &str) -> Cow<'_, str> {
    visible(text, false)
}

/// The text with its line breaks and tabs, everything else hidden made visible.
pub fn text(text: &str) -> Cow<'_, str> {
    visible(text, true)
}

fn visible(text: &str, lines: bool) -> Cow<'_, str> {
    if !has_hidden(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\t' if lines => out.push(c),
            '\n' => out.push('⏎'),
            // The Unicode block of control pictures has one for each of the 32 controls and for DEL.
            '\0'..='\u{1f}' => out.extend(char::from_u32(0x2400 + u32::from(c))),
            '\u{7f}' => out.push('␡'),
            c if is_hidden(c) => out.push_str(&format!("⟨U+{:04X}⟩", u32::from(c))),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// One line for a mail header: no line breaks, at most `max` characters.
pub fn header(text: &str, max: usize) -> String {
    cut(&line(text), max)
}

/// The text cut to `max` characters, with `…` where something is missing.
pub fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

/// The text on one line, for HTML content and quoted attributes.
pub fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in line(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The text on one line without anything that a mail program would make a link of.
pub fn defanged(text: &str) -> String {
    line(text).replace("://", "[:]//").replace("www.", "www[.]")
}

/// A field of a CSV file, quoted, and never a formula to a spreadsheet.
pub fn csv_field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let shown = line(text).replace('"', "\"\"");
    format!("\"{}{shown}\"", if formula { "'" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: &str) {
        assert_eq!(line(input), expected);
        assert_eq!(has_hidden(input), input != expected);
        assert_eq!(line(expected), expected, "nothing is shown twice");
    }

    #[test]
    fn hidden_characters_are_seen() {
        check("plain äöü 日本 🙂", "plain äöü 日本 🙂");
        check("\u{1b}[31mred\u{1b}]0;title\u{7}", "␛[31mred␛]0;title␇");
        check("a\r\nBcc: x", "a␍⏎Bcc: x");
        check("user\u{202e}nimda", "user⟨U+202E⟩nimda");
        check(
            "ad\u{200b}min\u{feff}\0\u{7f}\u{85}\u{2028}",
            "ad⟨U+200B⟩min⟨U+FEFF⟩␀␡⟨U+0085⟩⟨U+2028⟩",
        );
        check("\u{e0041}", "⟨U+E0041⟩");
        assert_eq!(text("a\n\tb\u{1b}\r"), "a\n\tb␛␍");
    }

    #[test]
    fn markup_headers_and_templates_are_text() {
        assert_eq!(
            html("<img src=x onerror='alert(1)'>&\"\u{202e}"),
            "&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;&quot;⟨U+202E⟩"
        );
        assert_eq!(header("a\r\nBcc: b", 100), "a␍⏎Bcc: b");
        assert_eq!(header("äöü", 2), "äö…");
        assert_eq!(line("{{7*7}} ${jndi:ldap://x}"), "{{7*7}} ${jndi:ldap://x}");
        assert_eq!(
            defanged("see https://www.evil.example"),
            "see https[:]//www[.]evil.example"
        );
    }

    #[test]
    fn spreadsheets_get_no_formula() {
        for (input, expected) in [
            (
                "=HYPERLINK(\"http://x\")",
                "\"'=HYPERLINK(\"\"http://x\"\")\"",
            ),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM", "\"'@SUM\""),
            ("\tx", "\"'␉x\""),
            ("\rx", "\"'␍x\""),
            ("a,b\nc", "\"a,b⏎c\""),
            ("plain", "\"plain\""),
        ] {
            assert_eq!(csv_field(input), expected);
        }
    }
}
