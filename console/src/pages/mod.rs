//! The pages for people, one file a page, made of typed templates that escape by type.
//!
//! A page reads the same searcher and store as the API and shows what a person needs to decide the next step.
//! This module holds what several pages show alike: times, severities, states, and the pivots: a value of an
//! event as a link to the search for it and to its investigation, the only links that are ever made of log content.

pub(crate) mod alert;
pub(crate) mod alerts;
pub(crate) mod event;
pub(crate) mod health;
pub(crate) mod investigate;
pub(crate) mod layout;
pub(crate) mod login;
pub(crate) mod rule_text;
pub(crate) mod rules;
pub(crate) mod saved;
pub(crate) mod search;
pub(crate) mod silences;
mod sources;

use ::event::{Severity, Time};
use alerting::State;
use maud::{Markup, html};

use crate::inert::{self, Inert};
use crate::svg::short;

/// A text as part of an address: everything but letters, digits and `-_.~` as `%XX`.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A time in UTC; the script adds the local time.
pub(crate) fn when(time: Time) -> Markup {
    html! { time datetime=(time) { (short(time)) } }
}

/// A time in UTC and how long ago that is.
pub(crate) fn when_ago(time: Time, now: Time) -> Markup {
    html! { time datetime=(time) { (short(time)) } " " span.ago { (ago(time, now)) } }
}

/// How long ago, in the largest unit that fits.
pub(crate) fn ago(time: Time, now: Time) -> String {
    let seconds = (now.0 - time.0).div_euclid(1_000_000);
    match seconds {
        ..0 => "in the future".into(),
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// A severity by colour and word.
pub(crate) fn severity(severity: Severity) -> Markup {
    html! { span class=(format!("sev sev-{severity}")) { (severity) } }
}

/// A state by colour and word.
pub(crate) fn state(state: State) -> Markup {
    html! { span class=(format!("state state-{}", state.as_str())) { (state.as_str()) } }
}

/// The query that finds this value of a field. `None` where the language cannot say the field's name.
pub(crate) fn query_for(field: &str, value: &str) -> Option<String> {
    let plain = !field.is_empty()
        && field
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-@".contains(&b))
        && !field.starts_with('-');
    plain.then(|| {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        format!("{field}:\"{quoted}\"")
    })
}

/// A value of an event as a link to the search for it; long values and odd names stay text.
pub(crate) fn pivot(field: &str, value: &str) -> Markup {
    match query_for(field, value).filter(|_| !value.is_empty() && value.len() <= 512) {
        None => inert::value(value),
        Some(query) => html! {
            a.pivot href=(format!("/search?q={}", encode(&query))) title=(format!("Search for this {field}; in a search, Shift adds it and Alt leaves it out")) { (Inert(value)) }
        },
    }
}

/// Can this value of a field be looked into?
pub(crate) fn can_investigate(field: &str, value: &str) -> bool {
    ::search::investigate::PIVOTS.contains(&field) && !value.is_empty() && value.len() <= 512
}

/// The address of the page of what a value of a field did around a time; without one around now, or the last event.
pub(crate) fn investigation(field: &str, value: &str, around: Option<Time>, hours: i64) -> String {
    let around = around.map_or_else(String::new, |time| {
        format!("&around={}", encode(&time.to_string()))
    });
    format!(
        "/investigate?field={}&value={}{around}&hours={hours}",
        encode(field),
        encode(value)
    )
}

/// A value as a pivot, and where it can be looked into a second link to what it did around a time.
pub(crate) fn pivot_at(field: &str, value: &str, around: Time) -> Markup {
    html! {
        (pivot(field, value))
        @if can_investigate(field, value) {
            " " a.look href=(investigation(field, value, Some(around), 24)) title="What it did around this time" aria-label=(format!("what this {field} did around this time")) {
                svg viewBox="0 0 16 16" width="13" height="13" aria-hidden="true" { circle cx="7" cy="7" r="4.6" {} path d="M10.4 10.4 L14.4 14.4" {} }
            }
        }
    }
}

/// The field and value by which somebody would look into this first: who it was, else from where, else which function.
pub(crate) fn subject<'v>(fields: [(&'static str, &'v str); 4]) -> Option<(&'static str, &'v str)> {
    let mut fields = fields.into_iter();
    fields.find(|(field, value)| can_investigate(field, value))
}

/// An actor as a line shows it: of an ARN only what follows the account, with the whole on hover.
pub(crate) fn actor(text: &str) -> Markup {
    let short = text
        .strip_prefix("arn:")
        .and_then(|rest| rest.splitn(5, ':').nth(4))
        .filter(|rest| !rest.is_empty());
    match short {
        Some(short) => html! { span title=(inert::plain(text)) { (Inert(short)) } },
        None => inert::value(text),
    }
}

/// A text of ours whose parts between backticks are code.
pub(crate) fn ticked(text: &str) -> Markup {
    html! {
        @for (i, part) in text.split('`').enumerate() {
            @if i % 2 == 1 { code { (Inert(part)) } } @else { (inert::line(part)) }
        }
    }
}

/// One fact of a list of facts.
pub(crate) fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pivots_stay_within_the_console() {
        let link = pivot("user_agent", "javascript:alert(1)\"><b>").into_string();
        assert!(
            link.starts_with("<a class=\"pivot\" href=\"/search?q=user_agent%3A%22javascript"),
            "{link}"
        );
        assert!(!link.contains("<b>"));
        assert!(!pivot("odd name", "x").into_string().contains("href"));
        assert!(!pivot("-field", "x").into_string().contains("href"));
        assert_eq!(
            query_for("a.b", "x\\\"y").as_deref(),
            Some("a.b:\"x\\\\\\\"y\"")
        );
    }

    #[test]
    fn what_can_be_looked_into_has_a_second_link() {
        let both = pivot_at("src_ip", "2001:db8::1", Time(0)).into_string();
        assert!(both.contains("/search?q=src_ip%3A"), "{both}");
        assert!(
            both.contains("/investigate?field=src_ip&amp;value=2001%3Adb8%3A%3A1&amp;around=1970-01-01T00%3A00%3A00Z&amp;hours=24"),
            "{both}"
        );
        assert!(
            !pivot_at("region", "x", Time(0))
                .into_string()
                .contains("/investigate")
        );
        assert!(
            !pivot_at("actor", "", Time(0))
                .into_string()
                .contains("href")
        );
        let fields = [
            ("identity", ""),
            ("actor", "a"),
            ("src_ip", "b"),
            ("function", ""),
        ];
        assert_eq!(subject(fields), Some(("actor", "a")));
    }

    #[test]
    fn actors_of_a_line_are_short() {
        for (text, expected) in [
            ("arn:aws:iam::111122223333:user/ada", ">user/ada<"),
            ("arn:aws:sts::1:assumed-role/a/b:c", ">assumed-role/a/b:c<"),
            ("arn:x", ">arn:x<"),
            ("ada", ">ada<"),
        ] {
            let shown = actor(text).into_string();
            assert!(shown.contains(expected), "{shown}");
        }
    }

    #[test]
    fn spans_in_the_largest_unit() {
        let now = Time(10_000_000_000_000);
        for (seconds, expected) in [
            (5, "5 s ago"),
            (61, "1 min ago"),
            (7_200, "2 h ago"),
            (259_200, "3 d ago"),
        ] {
            assert_eq!(ago(now.plus(-seconds * 1_000_000), now), expected);
        }
    }
}
