//! Patterns for names: `*` stands for any text, also none, and `?` for one character; everything else for itself.
//!
//! The configuration and the inventory name functions and log groups with them. A pattern is matched against the whole
//! name, case counts, and no pattern takes more than its length times that of the name.

/// Does the whole of `text` fit `pattern`?
pub fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // What follows the last star, and the text that it may begin to match.
    let mut again = None;
    loop {
        let (before, wanted) = (text.clone(), pattern.next());
        match (wanted, text.next()) {
            (Some('*'), _) => {
                text = before;
                again = Some((pattern.clone(), text.clone()));
            }
            (None, None) => return true,
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => {
                let Some((rest, from)) = &mut again else {
                    return false;
                };
                if from.next().is_none() {
                    return false;
                }
                (pattern, text) = (rest.clone(), from.clone());
            }
        }
    }
}

/// Does it stand for one name only?
pub fn is_plain(pattern: &str) -> bool {
    !pattern.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        let check = |pattern, text, expected| {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        };
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "checkout"),
            ("checkout", "checkout"),
            ("check*", "check"),
            ("check*", "checkout"),
            ("*out", "checkout-timeout"),
            ("c?eckout", "checkout"),
            ("*-prod-*", "shop-prod-checkout"),
            ("a*b*c", "a-b-b-c"),
            ("**", "ä"),
            ("?", "ä"),
        ] {
            check(pattern, text, true);
        }
        for (pattern, text) in [
            ("", "a"),
            ("?", ""),
            ("checkout", "Checkout"),
            ("checkout", "checkout2"),
            ("*out", "checkouts"),
            ("a*b*c", "a-c-b"),
            ("??", "a"),
        ] {
            check(pattern, text, false);
        }
    }

    #[test]
    fn a_hostile_pattern_is_quick() {
        let text = "a".repeat(10_000);
        assert!(!matches(&("*a".repeat(50) + "b"), &text));
    }
}
