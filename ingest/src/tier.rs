//! Tiers: what is done with an event after it was taken in, since function logs outweigh audit events ten to one.
//!
//! The configuration lists [`Entry`]s; the first that fits an event decides its [`Tier`], and one that none fits is
//! searched. It is decided once, here, and goes with the event as a flag, so that every node agrees and a change of the
//! configuration concerns only what comes from then on. So is for how many days it is searchable, if not for as long as
//! all others. What each stage makes of it stands in decision 19: an event of
//! the tier `rules` is indexed only if a rule matches it, one of the tier `archive` is kept on the log and nothing else.

use std::collections::BTreeSet;

use event::{Event, Flag, wildcard};
use serde::{Deserialize, Serialize};

/// The sources of events that pass here, for telling a slip of the pen. What people do at the console is always searched.
const SOURCES: [&str; 4] = ["aws.cloudtrail", "aws.lambda", "aws.cloudwatch", "unknown"];

/// How many numbers of days may stand in a list: the index keeps events of each apart.
pub const MOST_CLASSES: usize = 8;

/// A hundred years.
const MOST_DAYS: u32 = 36_500;

/// The sources that have log groups.
const LOGS: [&str; 2] = ["aws.lambda", "aws.cloudwatch"];

/// What is done with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Rules and meters see it, and it is indexed.
    Search,
    /// Rules and meters see it; it is indexed if a rule matches it.
    Rules,
    /// It is kept on the log for the log's retention.
    Archive,
}

impl Tier {
    /// All tiers.
    pub const ALL: [Tier; 3] = [Tier::Search, Tier::Rules, Tier::Archive];

    /// The word in the configuration and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Search => "search",
            Tier::Rules => "rules",
            Tier::Archive => "archive",
        }
    }

    /// The tier that an event was given.
    pub fn of(event: &Event) -> Tier {
        if event.flags.has(Flag::Archived) {
            Tier::Archive
        } else if event.flags.has(Flag::RulesOnly) {
            Tier::Rules
        } else {
            Tier::Search
        }
    }

    fn give(self, event: &mut Event) {
        match self {
            Tier::Search => {}
            Tier::Rules => event.flags.set(Flag::RulesOnly),
            Tier::Archive => event.flags.set(Flag::Archived),
        }
    }
}

/// Which events have a tier. Every list that is not empty must have one that fits; `*` and `?` stand for what they
/// usually do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Sources, such as `aws.lambda` or `aws.*`.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Accounts, 12 digits each.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// Names of functions.
    #[serde(default)]
    pub functions: Vec<String>,
    /// Log groups of CloudWatch Logs.
    #[serde(default)]
    pub log_groups: Vec<String>,
    /// What is done with them.
    pub tier: Tier,
    /// For how many days they are searchable, from when they were taken in; as long as `search.retention_days` says
    /// where nothing stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search_days: Option<u32>,
}

/// Gives `event`, which came from `log_group` if it is a message of one, the tier of the first entry that fits.
pub(crate) fn decide(entries: &[Entry], event: &mut Event, log_group: &str) {
    let fitting = entries.iter().find(|e| e.fits(event, log_group));
    if let Some(entry) = fitting {
        entry.tier.give(event);
        event.search_days = entry.search_days.unwrap_or(0);
    }
}

impl Entry {
    fn fits(&self, event: &Event, log_group: &str) -> bool {
        let any = |patterns: &[String], text: &str| {
            patterns.is_empty() || patterns.iter().any(|p| wildcard::matches(p, text))
        };
        any(&self.sources, &event.source)
            && any(&self.accounts, &event.account)
            && any(&self.functions, &event.function)
            && any(&self.log_groups, log_group)
    }

    fn fits_all(&self) -> bool {
        let lists = [
            &self.sources,
            &self.accounts,
            &self.functions,
            &self.log_groups,
        ];
        lists.iter().all(|list| list.is_empty())
    }
}

/// Everything that is wrong with a list of entries, each with its key.
pub fn check(entries: &[Entry]) -> Vec<String> {
    let mut problems = Vec::new();
    let classes: BTreeSet<u32> = entries.iter().filter_map(|e| e.search_days).collect();
    if classes.len() > MOST_CLASSES {
        problems.push(format!(
            ": {} numbers stand in search_days, and the index keeps at most {MOST_CLASSES} apart: give entries the same number",
            classes.len()
        ));
    }
    for (number, entry) in entries.iter().enumerate() {
        let mut bad = |key: &str, words: String| problems.push(format!("[{number}]{key}: {words}"));
        match (entry.search_days, entry.tier) {
            (Some(0), _) => bad(
                ".search_days",
                "must be at least 1; the tiers `rules` and `archive` keep events out of the index"
                    .to_owned(),
            ),
            (Some(days), _) if days > MOST_DAYS => {
                bad(".search_days", format!("must be at most {MOST_DAYS}"));
            }
            (Some(_), Tier::Archive) => bad(
                ".search_days",
                "events of the tier `archive` are not searched".to_owned(),
            ),
            _ => {}
        }
        let lists = [
            (".sources", &entry.sources),
            (".accounts", &entry.accounts),
            (".functions", &entry.functions),
            (".log_groups", &entry.log_groups),
        ];
        for (key, _) in lists.iter().filter(|(_, l)| l.iter().any(String::is_empty)) {
            bad(key, "an empty text fits nothing".to_owned());
        }
        let fits_one =
            |pattern: &str, known: &[&str]| known.iter().any(|k| wildcard::matches(pattern, k));
        for source in entry.sources.iter().filter(|s| !s.is_empty()) {
            if !fits_one(source, &SOURCES) {
                bad(
                    ".sources",
                    format!("`{source}` is none of {}", SOURCES.join(", ")),
                );
            }
        }
        for account in entry.accounts.iter().filter(|a| !a.is_empty()) {
            if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
                let hint = "an account has 12 digits; in quotes, so that no leading zero is lost";
                bad(".accounts", format!("`{account}`: {hint}"));
            }
        }
        if !entry.log_groups.is_empty()
            && !entry.sources.is_empty()
            && !entry.sources.iter().any(|s| fits_one(s, &LOGS))
        {
            bad(
                ".log_groups",
                "events of these sources have no log group".to_owned(),
            );
        }
        let before = &entries[..number];
        if let Some(all) = before.iter().position(Entry::fits_all) {
            bad(
                "",
                format!("nothing comes so far: entry {all} fits every event"),
            );
        } else if let Some(same) = before.iter().position(|b| {
            (&b.sources, &b.accounts, &b.functions, &b.log_groups)
                == (
                    &entry.sources,
                    &entry.accounts,
                    &entry.functions,
                    &entry.log_groups,
                )
        }) {
            bad(
                "",
                format!("nothing comes so far: entry {same} fits the same events"),
            );
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(json: &str) -> Vec<Entry> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_first_entry_that_fits_decides() {
        let entries = entries(
            r#"[
            {"sources": ["aws.lambda"], "functions": ["pay*", "audit"], "tier": "search"},
            {"log_groups": ["/aws/lambda/debug-*"], "tier": "archive"},
            {"sources": ["aws.lambda"], "functions": ["brief"], "tier": "rules", "search_days": 7},
            {"sources": ["aws.lambda"], "accounts": ["111122223333"], "tier": "archive"},
            {"sources": ["aws.lambda", "aws.cloudwatch"], "tier": "rules"}
        ]"#,
        );
        assert_eq!(check(&entries), [""; 0]);
        let check = |source: &str, account: &str, function: &str, group: &str, expected: Tier| {
            let mut event = Event {
                source: source.into(),
                account: account.into(),
                function: function.into(),
                ..Event::default()
            };
            decide(&entries, &mut event, group);
            assert_eq!(
                Tier::of(&event),
                expected,
                "{source} {account} {function} {group}"
            );
        };
        let prod = "012345678901";
        check("aws.cloudtrail", prod, "", "", Tier::Search);
        check(
            "aws.lambda",
            prod,
            "payments",
            "/aws/lambda/payments",
            Tier::Search,
        );
        check(
            "aws.lambda",
            prod,
            "audits",
            "/aws/lambda/audits",
            Tier::Rules,
        );
        check("aws.lambda", "111122223333", "shop", "", Tier::Archive);
        check(
            "aws.lambda",
            prod,
            "debug-1",
            "/aws/lambda/debug-1",
            Tier::Archive,
        );
        check("aws.cloudwatch", prod, "", "/ecs/web", Tier::Rules);
        check("unknown", "", "", "", Tier::Search);
        let mut event = Event {
            source: "aws.lambda".into(),
            function: "brief".into(),
            ..Event::default()
        };
        decide(&entries, &mut event, "");
        assert_eq!((Tier::of(&event), event.search_days), (Tier::Rules, 7));
        let read = Event::decode(&event.encode().into()).unwrap();
        assert_eq!(read.search_days, 7, "it goes with the event");
        let mut event = Event::default();
        decide(&[], &mut event, "");
        assert_eq!(event.search_days, 0);
        assert_eq!(Tier::of(&event), Tier::Search);
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |json: &str, words: &str| {
            let problems = check(&entries(json));
            assert!(
                problems.len() == 1 && problems[0].contains(words),
                "{problems:?}"
            );
        };
        refused(
            r#"[{"sources": ["aws.lamda"], "tier": "rules"}]"#,
            "[0].sources: `aws.lamda` is none of",
        );
        refused(
            r#"[{"sources": ["trailwarden"], "tier": "archive"}]"#,
            "is none of",
        );
        refused(
            r#"[{"accounts": ["12345678901"], "tier": "rules"}]"#,
            "12 digits",
        );
        refused(
            r#"[{"functions": [""], "tier": "rules"}]"#,
            "[0].functions: an empty text",
        );
        refused(
            r#"[{"tier": "search", "search_days": 0}]"#,
            "[0].search_days: must be at least 1",
        );
        refused(
            r#"[{"tier": "rules", "search_days": 100000}]"#,
            "[0].search_days: must be at most 36500",
        );
        refused(
            r#"[{"tier": "archive", "search_days": 7}]"#,
            "[0].search_days: events of the tier `archive` are not searched",
        );
        let many: Vec<String> = (1..=9)
            .map(|n| format!(r#"{{"functions": ["f{n}"], "tier": "search", "search_days": {n}}}"#))
            .collect();
        refused(
            &format!("[{}]", many.join(",")),
            "9 numbers stand in search_days, and the index keeps at most 8 apart",
        );
        assert_eq!(
            super::check(&entries(&format!("[{}]", many[1..].join(",")))),
            [""; 0]
        );
        refused(
            r#"[{"sources": ["aws.cloudtrail"], "log_groups": ["x"], "tier": "rules"}]"#,
            "no log group",
        );
        refused(
            r#"[{"tier": "rules"}, {"functions": ["a"], "tier": "search"}]"#,
            "[1]: nothing comes so far: entry 0 fits every event",
        );
        refused(
            r#"[{"functions": ["a"], "tier": "rules"}, {"functions": ["a"], "tier": "search"}]"#,
            "fits the same events",
        );
        for bad in [
            r#"[{"sources": ["unknown"]}]"#,
            r#"[{"tier": "cold"}]"#,
            r#"[{"tier": "rules", "source": []}]"#,
        ] {
            assert!(serde_json::from_str::<Vec<Entry>>(bad).is_err(), "{bad}");
        }
    }
}
