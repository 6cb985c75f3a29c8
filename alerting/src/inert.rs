//! Makes hostile text harmless before it goes into a mail or a header.
//!
//! Whoever attacks a system also writes its logs: names, user agents and error messages are chosen by the
//! attacker and end up in mails. What people cannot see is made visible by [`event::inert`], which works
//! the same way in every part of the program; here are the forms that notifications need besides: [`header`]
//! for mail headers, [`html`] for markup, [`defanged`] for text of which mail programs would make links.

/// One line for a mail header: no line breaks, nothing hidden, at most `max` characters.
pub fn header(text: &str, max: usize) -> String {
    cut(&event::inert::text(text), max)
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
    for c in event::inert::text(text).chars() {
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
    event::inert::text(text)
        .replace("://", "[:]//")
        .replace("www.", "www[.]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_headers_links_and_templates_are_text() {
        assert_eq!(
            html("<img src=x onerror='alert(1)'>&\"\u{202e}\u{1b}"),
            "&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;&quot;⟨U+202E⟩␛"
        );
        assert_eq!(header("a\r\nBcc: b", 100), "a␍⏎Bcc: b");
        assert_eq!(header("äöü", 2), "äö…");
        assert_eq!(html("{{7*7}} ${jndi:ldap:x}"), "{{7*7}} ${jndi:ldap:x}");
        assert_eq!(
            defanged("see https://www.evil.example"),
            "see https[:]//www[.]evil.example"
        );
    }
}
