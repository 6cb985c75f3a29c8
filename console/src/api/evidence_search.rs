//! The evidence of an alert as a search: where its events are named, exactly these; else what its rule looks at, with the
//! values of its group, between its first and its last event.
//!
//! Times are fixed, so that the link finds the same whenever it is opened. What a link cannot promise it says
//! ([`EvidenceSearch::exact`]).

use ::search::query::{Field, Query, Test};
use alerting::Alert;
use event::Time;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::pages::encode;

/// A query that would make an address longer than servers between here and the browser take is left out.
const MAX_QUERY: usize = 6 * 1024;

/// A search for the events behind an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EvidenceSearch {
    pub(crate) query: String,
    pub(crate) from: Time,
    pub(crate) to: Time,
    /// Does it find the events of the evidence and no other?
    pub(crate) exact: bool,
}

impl EvidenceSearch {
    /// The search for an alert, with what its rule looks at where that is loaded.
    pub(crate) fn of(shared: &Shared, alert: &Alert) -> EvidenceSearch {
        EvidenceSearch::with(alert, || {
            (shared.app.rule_query)(&alert.rule_id, &alert.group)
        })
    }

    fn with(alert: &Alert, rule: impl FnOnce() -> Option<String>) -> EvidenceSearch {
        let finding = &alert.finding;
        let (from, to) = (finding.first_event_time, finding.last_event_time);
        let named = finding.evidence.len() as u64;
        if named > 0 && alert.count <= named && !finding.approximate {
            let ids = finding.evidence.iter().map(ToString::to_string).collect();
            let query = Query::Field(Field::named("id"), Test::OneOf(ids)).to_string();
            return EvidenceSearch {
                query,
                from,
                to,
                exact: true,
            };
        }
        let looked_at = rule().filter(|query| query.len() <= MAX_QUERY);
        let mut parts: Vec<String> = match looked_at {
            Some(query) => vec![format!("({query})")],
            None => alert
                .group
                .iter()
                .map(|(key, value)| {
                    let field = Field::named(key);
                    match value {
                        Some(value) => equals(field, value),
                        None => format!("NOT {}", Query::Exists(field)),
                    }
                })
                .collect(),
        };
        if !finding.episodic {
            // Findings of a rule on single events are folded by account and actor.
            let folded = [("account", &alert.account), ("actor", &alert.actor)];
            let known = folded.into_iter().filter(|(_, value)| !value.is_empty());
            parts.extend(known.map(|(name, value)| equals(Field::named(name), value)));
        }
        EvidenceSearch {
            query: parts.join(" AND "),
            from,
            to,
            exact: false,
        }
    }

    /// The address of the Search page for it.
    pub(crate) fn address(&self) -> String {
        format!(
            "/search?q={}&range=custom&from={}&to={}&order=oldest",
            encode(&self.query),
            encode(&self.from.to_string()),
            encode(&self.to.to_string())
        )
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "query": self.query,
            "from": self.from,
            "to": self.to,
            "exact": self.exact,
            "href": self.address(),
        })
    }
}

fn equals(field: Field, value: &str) -> String {
    Query::Field(field, Test::Equals(value.to_owned())).to_string()
}

#[cfg(test)]
mod tests {
    use event::{Finding, Id};

    use super::*;

    fn alert(count: u64, named: u128) -> Alert {
        Alert {
            count,
            account: "111122223333".into(),
            actor: "a \"b\"".into(),
            finding: Finding {
                count,
                evidence: (1..=named).map(Id).collect(),
                first_event_time: Time(0),
                last_event_time: Time(1_500_000),
                ..Finding::default()
            },
            ..Alert::default()
        }
    }

    #[test]
    fn what_is_named_is_searched_by_its_ids() {
        let search = EvidenceSearch::with(&alert(2, 2), || panic!("no rule is needed"));
        assert!(search.exact);
        assert_eq!(
            search.query,
            "id:IN [\"00000000000000000000000000000001\", \"00000000000000000000000000000002\"]"
        );
        let address = search.address();
        assert!(
            address.ends_with("&range=custom&from=1970-01-01T00%3A00%3A00Z&to=1970-01-01T00%3A00%3A01.500Z&order=oldest"),
            "{address}"
        );
        let most = EvidenceSearch::with(&alert(100, 100), || None);
        assert!(most.exact && most.address().len() < 6_000);
        ::search::query::parse(&most.query).unwrap();
    }

    #[test]
    fn what_is_not_named_is_searched_by_rule_and_group() {
        let mut many = alert(101, 100);
        let search = EvidenceSearch::with(&many, || Some("action:a OR action:b".to_owned()));
        assert!(!search.exact);
        assert_eq!(
            search.query,
            "(action:a OR action:b) AND account:\"111122223333\" AND actor:\"a \\\"b\\\"\""
        );
        many.finding.episodic = true;
        many.group = [
            ("sourceIPAddress".into(), Some("203.0.113.7".into())),
            ("src_ip".into(), None),
        ]
        .into();
        let search = EvidenceSearch::with(&many, || None);
        assert_eq!(
            search.query,
            "sourceIPAddress:\"203.0.113.7\" AND NOT src_ip:*"
        );
        ::search::query::parse(&search.query).unwrap();
        let too_long = EvidenceSearch::with(&many, || Some("a ".repeat(MAX_QUERY)));
        assert_eq!(too_long.query, search.query);
        // What is not sure is not said to be.
        let mut unsure = alert(1, 1);
        unsure.finding.approximate = true;
        assert!(!EvidenceSearch::with(&unsure, || None).exact);
    }
}
