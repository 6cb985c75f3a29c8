//! Log content made visible and harmless before anybody looks at it.
//!
//! A record is written by whoever made the call, so every text of it may carry terminal escapes, line ends,
//! marks that turn the reading direction and characters without width. [`text`] shows each of them as a
//! visible sign. Markup is not escaped here: that is up to whoever writes HTML, CSV or a mail header.

use std::borrow::Cow;
use std::fmt::Write;

/// The text on one line with every hidden character as a sign.
pub fn text(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match sign(c) {
            Some(sign) => out.push_str(&sign),
            None => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Is this a character that is not seen as itself: a control, direction, zero-width, tag or private-use character?
pub fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0e}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}'
        | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
}

/// The sign for a hidden character; `None` for all others.
pub fn sign(c: char) -> Option<String> {
    match c {
        '\n' => Some("⏎".to_owned()),
        '\t' => Some("⇥".to_owned()),
        '\u{7f}' => Some("␡".to_owned()),
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).map(String::from),
        c if is_hidden(c) => {
            let mut sign = String::new();
            write!(sign, "⟨U+{:04X}⟩", u32::from(c)).expect("writing to a string does not fail");
            Some(sign)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_hidden_becomes_a_sign() {
        for (text, shown) in [
            ("plain äöü 漢字 🙂", "plain äöü 漢字 🙂"),
            ("\u{1b}[31mred", "␛[31mred"),
            ("a\r\nb\tc\u{0}", "a␍⏎b⇥c␀"),
            ("user\u{202e}nimda", "user⟨U+202E⟩nimda"),
            ("zero\u{200b}width\u{feff}", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
            ("\u{9b}31m", "⟨U+009B⟩31m"),
        ] {
            assert_eq!(super::text(text), shown);
        }
    }
}
