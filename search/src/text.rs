//! How texts are compared: folded to one case, and cut into words.
//!
//! [`fold`] lower-cases character by character, so that a part of a text folds to the same part of the folded text.
//! [`words`] cuts a folded text where free text is searched: at everything that is neither letter, digit nor `_`. UUIDs,
//! IPv4 addresses and RFC 3339 times stay whole, since people search for them whole and their pieces would only fill
//! the index. The index and [`crate::query::Query::matches`] both use these two functions and nothing else.

/// Longer words are cut into several, so that every term stays small.
const MAX_WORD: usize = 96;

/// Appends `text` in lower case to `out`. The three characters that the index uses between terms become U+FFFD.
pub(crate) fn fold_into(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            'A'..='Z' => out.push(c.to_ascii_lowercase()),
            '\0'..='\u{2}' => out.push(char::REPLACEMENT_CHARACTER),
            c if c.is_ascii() => out.push(c),
            c => out.extend(c.to_lowercase()),
        }
    }
}

/// `text` in lower case.
pub(crate) fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    fold_into(text, &mut out);
    out
}

/// A key of a record as it stands in a path: its case is kept, only the index's own characters are replaced.
pub(crate) fn key_into(key: &str, out: &mut String) {
    if key.bytes().any(|b| b < 3) {
        out.extend(
            key.chars()
                .map(|c| if c < '\u{3}' { '\u{fffd}' } else { c }),
        );
    } else {
        out.push_str(key);
    }
}

/// The words of a folded text, in order.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    // `1.2.3.4.5` is a version or an OID: no address begins after `1.`
    let mut number = false;
    std::iter::from_fn(move || {
        let start = rest.find(is_word_char)?;
        let dotted = number && &rest[..start] == ".";
        rest = &rest[start..];
        let length = match whole(rest.as_bytes()).filter(|_| !dotted) {
            Some(length) => length,
            None => rest.find(|c| !is_word_char(c)).unwrap_or(rest.len()),
        };
        let mut length = length.min(MAX_WORD);
        while !rest.is_char_boundary(length) {
            length -= 1;
        }
        let (word, after) = rest.split_at(length);
        rest = after;
        number = word.bytes().all(|b| b.is_ascii_digit());
        Some(word)
    })
}

/// Is the folded text one word and nothing else?
pub(crate) fn is_one_word(text: &str) -> bool {
    words(text).next() == Some(text)
}

/// Is it part of a word?
pub(crate) fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || (!c.is_ascii() && c.is_alphanumeric())
}

/// The length of the UUID, IPv4 address or time at the start of `text`, if there is one.
fn whole(text: &[u8]) -> Option<usize> {
    if !text[0].is_ascii_hexdigit() {
        return None;
    }
    [shape(text, UUID), address(text), time(text)]
        .into_iter()
        .flatten()
        .find(|end| {
            !text
                .get(*end)
                .is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80)
        })
}

const UUID: &[u8] = b"hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
const TIME: &[u8] = b"dddd-dd-ddtdd:dd:dd";

/// `h` stands for a hexadecimal digit, `d` for a digit, everything else for itself.
fn shape(text: &[u8], shape: &[u8]) -> Option<usize> {
    let fits = |(b, s): (&u8, &u8)| match s {
        b'h' => b.is_ascii_hexdigit(),
        b'd' => b.is_ascii_digit(),
        s => b == s,
    };
    (text.len() >= shape.len() && text.iter().zip(shape).all(fits)).then_some(shape.len())
}

fn time(text: &[u8]) -> Option<usize> {
    let mut end = shape(text, TIME)?;
    if text.get(end) == Some(&b'.') {
        let digits = text[end + 1..]
            .iter()
            .take(9)
            .take_while(|b| b.is_ascii_digit())
            .count();
        end += if digits > 0 { 1 + digits } else { 0 };
    }
    Some(end + usize::from(text.get(end) == Some(&b'z')))
}

fn address(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    for part in 0..4 {
        let digits = text[at..]
            .iter()
            .take(4)
            .take_while(|b| b.is_ascii_digit())
            .count();
        if digits == 0 || digits > 3 {
            return None;
        }
        at += digits;
        if part < 3 {
            if text.get(at) != Some(&b'.') {
                return None;
            }
            at += 1;
        }
    }
    let more = text.get(at) == Some(&b'.') && text.get(at + 1).is_some_and(u8::is_ascii_digit);
    (!more).then_some(at)
}

/// Does `text` contain the words of `phrase`, next to one another and in order? Both are folded.
pub(crate) fn has_phrase(text: &str, phrase: &[&str]) -> bool {
    match phrase {
        [] => false,
        [word] => words(text).any(|w| w == *word),
        _ => {
            let words: Vec<&str> = words(text).collect();
            words.windows(phrase.len()).any(|window| window == phrase)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(words(&fold(text)).collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn what_is_a_word() {
        check("Failed authentication.", &["failed", "authentication"]);
        check(
            "arn:aws:iam::1:user/Bob_2",
            &["arn", "aws", "iam", "1", "user", "bob_2"],
        );
        check("--- ", &[]);
        check("Über-Straße", &["über", "straße"]);
    }

    #[test]
    fn what_stays_whole() {
        check(
            "id=7b72a207-9b9e-40e1-bcec-b4ba06bc343b;",
            &["id", "7b72a207-9b9e-40e1-bcec-b4ba06bc343b"],
        );
        check("from 203.0.113.7:443", &["from", "203.0.113.7", "443"]);
        check("1.2.3.4.5", &["1", "2", "3", "4", "5"]);
        check("1.2.3.4567", &["1", "2", "3", "4567"]);
        check("1.2.3.4x", &["1", "2", "3", "4x"]);
        check("1.2.3.4.", &["1.2.3.4"]);
        check(
            "2023-07-10T11:40:00.123Z ok 2023-07-10",
            &["2023-07-10t11:40:00.123z", "ok", "2023", "07", "10"],
        );
        check("7b72a207-9b9e", &["7b72a207", "9b9e"]);
    }

    #[test]
    fn long_words_are_cut_and_nothing_is_lost() {
        let long = "é".repeat(1_000);
        let folded = fold(&long);
        let parts: Vec<&str> = words(&folded).collect();
        assert_eq!(parts.concat(), folded);
        assert!(parts.iter().all(|p| p.len() <= MAX_WORD));
    }

    #[test]
    fn folding_goes_character_by_character() {
        assert_eq!(fold("ΑΣ") + &fold("ΟΣ"), fold("ΑΣΟΣ"));
        assert_eq!(fold("A\0\u{1}\u{2}\u{3}"), "a\u{fffd}\u{fffd}\u{fffd}\u{3}");
    }

    #[test]
    fn phrases() {
        assert!(has_phrase("a b c", &["b", "c"]));
        assert!(!has_phrase("a b c", &["a", "c"]));
        assert!(!has_phrase("a b c", &[]));
    }
}
