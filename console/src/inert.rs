//! Log content made visible and harmless before anybody looks at it.
//!
//! A record is written by whoever made the call, so every text of it may carry terminal escapes, marks that
//! turn the reading direction, characters without width, or letters of another script that look like Latin
//! ones. [`Inert`] is the only way by which pages show log content: it escapes for HTML by type, shows each
//! such character as a visible sign, isolates the direction, cuts what is overlong and adds a badge that says
//! that something was hidden. It never makes a link.

use std::fmt::Write;

use maud::{Escaper, Markup, PreEscaped, Render, html};

/// The most characters of one value that a page shows; the JSON of the event has them all.
const MAX_SHOWN: usize = 2_000;

/// A text from a log, to be shown on a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inert<'a>(pub(crate) &'a str);

impl Render for Inert<'_> {
    fn render_to(&self, buffer: &mut String) {
        let mut hidden = false;
        let mut line = String::with_capacity(self.0.len());
        for c in self.0.chars().take(MAX_SHOWN) {
            match visible(c) {
                None => {
                    let _ = Escaper::new(&mut line).write_char(c);
                }
                Some(shown) => {
                    hidden |= !matches!(c, '\n' | '\r' | '\t');
                    let _ = write!(
                        line,
                        "<span class=\"sign\" title=\"U+{:04X}\">{shown}</span>",
                        u32::from(c)
                    );
                }
            }
        }
        let cut = self.0.chars().nth(MAX_SHOWN).is_some();
        let mixed = mixes_scripts(self.0);
        let badge = html! {
            bdi { (PreEscaped(line)) @if cut { "…" } }
            @if hidden {
                span.badge.warn title="This text carries characters that are not seen: control, direction or zero-width characters. They are shown as signs." { "hidden characters" }
            }
            @if mixed {
                span.badge.warn title="A word mixes Latin letters with letters of another script that look alike." { "mixed scripts" }
            }
            @if cut {
                span.badge title="Only the beginning is shown; the original record has the rest." { "cut" }
            }
        };
        badge.render_to(buffer);
    }
}

/// The text with every hidden character as a sign, for plain text such as titles of a page and CSV.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match visible(c) {
            None => out.push(c),
            Some(shown) => out.push_str(&shown),
        }
    }
    out
}

/// The sign for a character that is not seen as itself; `None` for all others.
fn visible(c: char) -> Option<String> {
    let code = u32::from(c);
    match c {
        '\n' => Some("⏎".into()),
        '\t' => Some("⇥".into()),
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + code).map(String::from),
        '\u{7f}' => Some("␡".into()),
        '\u{80}'..='\u{9f}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0e}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}'
        | '\u{e000}'..='\u{f8ff}'
        | '\u{f0000}'..='\u{10ffff}' => Some(format!("⟨U+{code:04X}⟩")),
        _ => None,
    }
}

/// Does a word mix Latin letters with Greek or Cyrillic ones?
fn mixes_scripts(text: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|word| {
        word.bytes().any(|b| b.is_ascii_alphabetic())
            && word
                .chars()
                .any(|c| matches!(c, '\u{370}'..='\u{52f}') && c.is_alphabetic())
    })
}

/// A text of several lines, such as an original record: line ends and tabs stay, the rest becomes signs.
pub(crate) fn block(text: &str) -> Markup {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match visible(c).filter(|_| !matches!(c, '\n' | '\t')) {
            None => {
                let _ = Escaper::new(&mut out).write_char(c);
            }
            Some(sign) => {
                let _ = write!(out, "<span class=\"sign\">{sign}</span>");
            }
        }
    }
    PreEscaped(out)
}

/// A text of one line whose characters keep their places, for a query with a caret below it.
pub(crate) fn line(text: &str) -> Markup {
    html! { (plain(text)) }
}

/// The markup of a log value; a dash where there is none.
pub(crate) fn value(text: &str) -> Markup {
    html! { @if text.is_empty() { span.none { "–" } } @else { (Inert(text)) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, contains: &[&str], lacks: &[&str]) {
        let shown = Inert(text).render().into_string();
        for part in contains {
            assert!(shown.contains(part), "{text:?}: {shown}");
        }
        for part in lacks {
            assert!(!shown.contains(part), "{text:?}: {shown}");
        }
    }

    #[test]
    fn markup_is_text() {
        check(
            "<script>alert(1)</script><img src=x onerror=\"a\">",
            &["&lt;script&gt;", "&quot;a&quot;"],
            &["<script", "<img", "hidden"],
        );
        check("{{7*7}} ${jndi:x} <%= 1 %>", &["{{7*7}} ${jndi:x}"], &[]);
    }

    #[test]
    fn what_is_hidden_is_shown() {
        check("\u{1b}[31mroot", &["␛", "hidden characters"], &["\u{1b}"]);
        check("a\r\nb", &["␍", "⏎"], &["hidden characters", "\n"]);
        check(
            "user\u{202e}nimda",
            &["⟨U+202E⟩", "hidden characters"],
            &["\u{202e}"],
        );
        check("ad\u{200b}min", &["⟨U+200B⟩"], &["\u{200b}"]);
        check("p\u{430}ypal", &["mixed scripts"], &["hidden"]);
        check("Привет Zoë ναι", &["Привет"], &["mixed", "hidden"]);
    }

    #[test]
    fn overlong_values_are_cut() {
        check(&"x".repeat(1_000_000), &["cut", "…"], &[&"x".repeat(2_001)]);
    }
}
