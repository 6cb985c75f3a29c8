//! Matchers over the labels of an alert, as routes and silences use them.
//!
//! A [`Matcher`] is written `name="value"` with one of `=`, `!=`, `=~`, `!~`; quotes may be left out, and
//! regular expressions are anchored and run in linear time. [`Labels`] is what an alert offers: one or more
//! values under each name. A label that is missing counts as the empty text; under a name with several
//! values (`tags`, `resources`) `=` and `=~` ask for one of them and `!=` and `!~` for none. A name that no
//! alert can have is refused, since such a matcher would quietly never hold.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use event::Severity;
use regex::Regex;
use serde::{Serialize, Serializer};

use crate::alert::Alert;

/// The names that an alert has; besides them `labels.` and a name of the inventory.
pub const NAMES: &[&str] = &[
    "severity",
    "rule_id",
    "title",
    "tags",
    "source",
    "account",
    "region",
    "actor",
    "identity",
    "session",
    "src_ip",
    "action",
    "function",
    "resources",
];

/// The most bytes a matcher may have.
const MAX_BYTES: usize = 1_024;

/// The values of an alert by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, Vec<String>>);

impl Labels {
    /// Labels with one value for each pair; a name that comes twice has both.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Labels {
        let mut labels = Labels::default();
        for (name, value) in pairs {
            labels.0.entry(name.into()).or_default().push(value.into());
        }
        labels
    }

    /// The labels of an alert.
    pub fn of(alert: &Alert) -> Labels {
        let finding = &alert.finding;
        let one = [
            ("severity", alert.severity.as_str()),
            ("rule_id", alert.rule_id.as_str()),
            ("title", alert.title.as_str()),
            ("source", alert.source.as_str()),
            ("account", alert.account.as_str()),
            ("region", alert.region.as_str()),
            ("actor", alert.actor.as_str()),
            ("identity", alert.identity.as_str()),
            ("session", finding.session.as_str()),
            ("src_ip", finding.src_ip.as_str()),
            ("action", finding.action.as_str()),
            ("function", finding.function.as_str()),
        ];
        let tags = finding.tags.iter().map(|t| ("tags", t.as_str()));
        let resources = finding.resources.iter().map(|r| ("resources", r.as_str()));
        let mut labels = Labels::from_pairs(one.into_iter().chain(tags).chain(resources));
        for (name, value) in &finding.labels {
            labels
                .0
                .insert(format!("labels.{name}"), vec![value.to_string()]);
        }
        labels
    }

    /// The values under a name.
    pub fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

impl Comparison {
    fn as_str(self) -> &'static str {
        match self {
            Comparison::Equal => "=",
            Comparison::NotEqual => "!=",
            Comparison::Regex => "=~",
            Comparison::NotRegex => "!~",
        }
    }
}

/// One condition on the labels of an alert.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    comparison: Comparison,
    value: String,
    /// Compiled from `value` for the two comparisons with regular expressions.
    regex: Option<Regex>,
}

/// A text that is no matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// There is no comparison in it.
    #[error("`{0}` is no matcher: write it as `name=\"value\"` with =, !=, =~ or !~")]
    Form(String),
    /// No alert has such a label.
    #[error("unknown label `{0}` in a matcher: known are {names} and labels.NAME", names = NAMES.join(", "))]
    Name(String),
    /// The value is no severity.
    #[error(
        "unknown severity `{0}` in a matcher: known are informational, low, medium, high, critical"
    )]
    Severity(String),
    /// The regular expression cannot be used.
    #[error("the regular expression of matcher `{matcher}` cannot be used: {reason}")]
    Regex {
        /// The matcher as written.
        matcher: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is longer than anybody would write.
    #[error("a matcher has at most {MAX_BYTES} bytes")]
    Long,
}

impl Matcher {
    /// Does the condition hold?
    pub fn matches(&self, labels: &Labels) -> bool {
        let empty = [String::new()];
        let values = match labels.get(&self.name) {
            [] => &empty,
            values => values,
        };
        match self.comparison {
            Comparison::Equal => values.contains(&self.value),
            Comparison::NotEqual => !values.contains(&self.value),
            Comparison::Regex => values.iter().any(|v| self.regex_matches(v)),
            Comparison::NotRegex => !values.iter().any(|v| self.regex_matches(v)),
        }
    }

    fn regex_matches(&self, value: &str) -> bool {
        self.regex.as_ref().is_some_and(|r| r.is_match(value))
    }

    /// Does it hold for more or less every alert? All negations do, and expressions such as `.+`.
    pub fn is_broad(&self) -> bool {
        let probes: Vec<&str> = match self.name.as_str() {
            "severity" => Severity::ALL.iter().map(|s| s.as_str()).collect(),
            _ => vec!["q7-Zk_9/x", "4120983", "arn:w:v::u"],
        };
        match self.comparison {
            Comparison::NotEqual | Comparison::NotRegex => true,
            Comparison::Equal => false,
            Comparison::Regex => probes.iter().all(|p| self.regex_matches(p)),
        }
    }
}

impl FromStr for Matcher {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Matcher, MatcherError> {
        let form = || MatcherError::Form(text.chars().take(80).collect());
        if text.len() > MAX_BYTES {
            return Err(MatcherError::Long);
        }
        let at = text.find(['=', '!']).ok_or_else(form)?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let comparison = [
            Comparison::Regex,
            Comparison::NotRegex,
            Comparison::NotEqual,
            Comparison::Equal,
        ]
        .into_iter()
        .find(|c| rest.starts_with(c.as_str()))
        .ok_or_else(form)?;
        let value = unquote(rest[comparison.as_str().len()..].trim()).ok_or_else(form)?;
        let inventory = name.strip_prefix("labels.").is_some_and(|l| !l.is_empty());
        if name.is_empty() {
            return Err(form());
        }
        if !inventory && !NAMES.contains(&name) {
            return Err(MatcherError::Name(name.to_owned()));
        }
        let regex = match comparison {
            Comparison::Regex | Comparison::NotRegex => Some(anchored(&value, text)?),
            Comparison::Equal | Comparison::NotEqual => None,
        };
        if name == "severity" && regex.is_none() && Severity::from_level(&value).is_none() {
            return Err(MatcherError::Severity(value));
        }
        Ok(Matcher {
            name: name.to_owned(),
            comparison,
            value,
            regex,
        })
    }
}

fn anchored(pattern: &str, matcher: &str) -> Result<Regex, MatcherError> {
    regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(1 << 20)
        .build()
        .map_err(|error| MatcherError::Regex {
            matcher: matcher.to_owned(),
            reason: error
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .to_owned(),
        })
}

/// The text between double or single quotes with `\"` and `\\` undone, or the text itself when it has no quotes.
fn unquote(text: &str) -> Option<String> {
    let Some(quote @ ('"' | '\'')) = text.chars().next() else {
        return Some(text.to_owned());
    };
    let inner = text[1..].strip_suffix(quote)?;
    if quote == '\'' {
        return Some(inner.to_owned());
    }
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if matches!(chars.peek(), Some('"' | '\\')) => out.extend(chars.next()),
            '"' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.replace('\\', "\\\\").replace('"', "\\\"");
        write!(f, "{}{}\"{value}\"", self.name, self.comparison.as_str())
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        (&self.name, self.comparison, &self.value) == (&other.name, other.comparison, &other.value)
    }
}

impl Eq for Matcher {}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels::from_pairs([
            ("severity", "high"),
            ("account", "123456789012"),
            ("actor", "a\"b\\c"),
            ("tags", "attack.t1110"),
            ("tags", "attack.credential_access"),
            ("labels.owner", "platform"),
        ])
    }

    fn check(matcher: &str, expected: bool) {
        let parsed: Matcher = matcher.parse().unwrap();
        assert_eq!(parsed.matches(&labels()), expected, "{matcher}");
        assert_eq!(
            parsed.to_string().parse::<Matcher>().unwrap(),
            parsed,
            "{matcher}"
        );
    }

    #[test]
    fn the_four_comparisons() {
        check("severity=\"high\"", true);
        check("severity = high", true);
        check("severity != 'high'", false);
        check("account=~\"1234.*\"", true);
        check("account=~\"234\"", false);
        check("account!~\"9.*\"", true);
        check("labels.owner=\"platform\"", true);
        check(r#"actor="a\"b\\c""#, true);
        check("actor=''", false);
    }

    #[test]
    fn several_values_and_none() {
        check("tags=\"attack.t1110\"", true);
        check("tags=~\"attack\\.t.*\"", true);
        check("tags!=\"attack.t1110\"", false);
        check("tags!~\"attack\\.impact\"", true);
        check("region=\"\"", true);
        check("region!=\"eu-west-1\"", true);
    }

    #[test]
    fn what_is_refused() {
        for (text, word) in [
            ("severity", "is no matcher"),
            ("=x", "is no matcher"),
            ("account=\"x", "is no matcher"),
            ("sevrity=high", "unknown label"),
            ("labels.=x", "unknown label"),
            ("severity=hihg", "unknown severity"),
            ("account=~\"(\"", "regular expression"),
            ("account=~\"(a{1000}){1000}\"", "regular expression"),
        ] {
            let error = text.parse::<Matcher>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
