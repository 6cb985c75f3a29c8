//! Tags: their form, and what the namespaces of the specification have.

use crate::attack::TACTICS;
use crate::error::{Mistake, nearest};
use crate::yaml::Place;

const NAMESPACES: &[&str] = &[
    "attack",
    "car",
    "cve",
    "d3fend",
    "detection",
    "owasp-serverless",
    "stp",
    "tlp",
];

/// What is wrong with a tag, if anything is. Namespaces of your own are nobody's business.
pub(super) fn check(tag: &str, place: Place) -> Option<Mistake> {
    let Some((namespace, name)) = tag.split_once('.').filter(|_| is_formed(tag)) else {
        let mistake = Mistake::new(place, format!("`{tag}` is no tag"));
        let hint = "write namespace.name with lower-case letters, digits, `_` and `-`";
        return Some(mistake.hint(hint).advice("tag-form"));
    };
    let (known, hint) = match namespace {
        "attack" => (
            is_attack(name),
            nearest(name, TACTICS.iter().map(|t| t.slug)).map_or_else(
                || "tactics are written as attack.credential-access, techniques as attack.t1110.001".to_owned(),
                |near| format!("did you mean `attack.{near}`?"),
            ),
        ),
        "owasp-serverless" => (
            is_owasp(name),
            "owasp-serverless.sl1 to .sl10, or .dow".to_owned(),
        ),
        "car" => (
            is_numbers(name, &[4, 2, 3], &['-']),
            "such as car.2016-04-005".to_owned(),
        ),
        "cve" => (
            is_cve(name),
            "such as cve.2021-44228".to_owned(),
        ),
        "detection" => (
            matches!(name, "dfir" | "emerging-threats" | "threat-hunting"),
            "detection.dfir, .emerging-threats or .threat-hunting".to_owned(),
        ),
        "tlp" => (
            matches!(name, "red" | "amber" | "amber-strict" | "green" | "clear"),
            "tlp.red, .amber, .amber-strict, .green or .clear".to_owned(),
        ),
        "stp" => (is_stp(name), "such as stp.4 or stp.3k".to_owned()),
        "d3fend" => (true, String::new()),
        other => match nearest(other, NAMESPACES.iter().copied()) {
            Some(near) => (false, format!("did you mean `{near}.{name}`?")),
            None => (true, String::new()),
        },
    };
    (!known).then(|| {
        Mistake::new(place, format!("unknown tag `{tag}`"))
            .hint(hint)
            .advice("tag-unknown")
    })
}

fn is_formed(tag: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    tag.bytes().all(|b| plain(b) || b == b'.') && !tag.starts_with('.') && !tag.ends_with('.')
}

fn is_attack(name: &str) -> bool {
    if TACTICS.iter().any(|t| t.slug == name) {
        return true;
    }
    let (kind, number) = name.split_at(name.find(|c: char| c.is_ascii_digit()).unwrap_or(0));
    match kind {
        "t" => is_numbers(number, &[4], &[]) || is_numbers(number, &[4, 3], &['.']),
        "g" | "s" | "m" | "a" | "ds" => is_numbers(number, &[4], &[]),
        _ => false,
    }
}

fn is_owasp(name: &str) -> bool {
    crate::attack::OWASP.iter().any(|(risk, _)| *risk == name)
}

fn is_cve(name: &str) -> bool {
    let parts = name.split_once(['-', '.']);
    let digits =
        |text: &str, least: usize| text.len() >= least && text.bytes().all(|b| b.is_ascii_digit());
    parts.is_some_and(|(year, number)| year.len() == 4 && digits(year, 4) && digits(number, 4))
}

fn is_stp(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| ('1'..='5').contains(&c))
        && chars.next().is_none_or(|c| "auk".contains(c))
        && chars.next().is_none()
}

/// Groups of so many digits each, with one of these between them.
fn is_numbers(text: &str, widths: &[usize], between: &[char]) -> bool {
    let groups: Vec<&str> = text.split(between).collect();
    groups.len() == widths.len()
        && groups
            .iter()
            .zip(widths)
            .all(|(g, w)| g.len() == *w && g.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown() {
        for tag in [
            "attack.t1110",
            "attack.t1110.001",
            "attack.credential-access",
            "attack.stealth",
            "attack.defense-impairment",
            "attack.g0016",
            "attack.s0002",
            "attack.ds0017",
            "owasp-serverless.sl10",
            "owasp-serverless.dow",
            "car.2016-04-005",
            "cve.2021-44228",
            "detection.threat-hunting",
            "stp.3k",
            "stp.4",
            "tlp.amber-strict",
            "d3fend.d3-am",
            "ours.anything",
        ] {
            assert_eq!(check(tag, Place::default()), None, "{tag}");
        }
        for (tag, code, hint) in [
            ("attack.T1110", "tag-form", "lower-case"),
            ("attack", "tag-form", "namespace.name"),
            ("attack.t11100", "tag-unknown", "attack.t1110.001"),
            ("attack.t1110.01", "tag-unknown", "attack.t1110.001"),
            (
                "attack.privilege_escalation",
                "tag-unknown",
                "attack.privilege-escalation",
            ),
            ("atack.t1110", "tag-unknown", "attack.t1110"),
            ("owasp-serverless.sl11", "tag-unknown", "sl10"),
            ("cve.44228", "tag-unknown", "cve.2021-44228"),
            ("tlp.white", "tag-unknown", "clear"),
            ("stp.6", "tag-unknown", "stp.4"),
            ("detection.hunting", "tag-unknown", "threat-hunting"),
        ] {
            let found = check(tag, Place::default()).unwrap();
            assert_eq!(found.code, Some(code), "{tag}");
            assert!(found.hint.contains(hint), "{tag}: {}", found.hint);
        }
    }
}
