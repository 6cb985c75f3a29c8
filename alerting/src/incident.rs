//! Which alerts belong to one incident: an attacker who trips eight rules is one incident and one page.
//!
//! Alerts are joined when they share a key ([`keys`]: identity, session, access key, or the address where
//! nobody is known) and no more than a gap lies between their events. So an incident is a connected part
//! of the graph of alerts, and the order in which findings arrive does not change which alerts end up
//! together. For each key the store keeps the [`Span`]s of event time that alerts have under it, each with
//! its incident; [`join`] says what a new span does to them. [`summary`] is what people see of an incident.

use std::net::IpAddr;

use event::{Finding, Id, Time};

use crate::alert::{Alert, Incident, State};

/// The most bytes of a value that a key holds; what is longer is cut, the same way every time.
const MAX_KEY: usize = 512;
/// The most bytes of a key: PostgreSQL refuses an index entry above 2.7 kB.
const MAX_BYTES: usize = 2_048;

/// The keys under which a finding's alert is joined with others.
pub fn keys(finding: &Finding) -> Vec<String> {
    let mut keys = Vec::new();
    let mut add = |kind: &str, scope: &str, value: &str| {
        if !value.is_empty() {
            let value: String = value.chars().take(MAX_KEY).collect();
            let key = format!("{kind}:{scope}{value}");
            keys.push(if key.len() <= MAX_BYTES {
                key
            } else {
                format!("{kind}:#{}", Id::of("incident key", &[key.as_bytes()]))
            });
        }
    };
    add("identity", "", &finding.identity);
    // A session's name is chosen by its user and means something only within its account.
    add(
        "session",
        &format!("{}/", finding.account),
        &finding.session,
    );
    add("access_key", "", &finding.access_key);
    // `AWS Internal` and service names are no address of anybody.
    if finding.identity.is_empty() && finding.src_ip.parse::<IpAddr>().is_ok() {
        add("src_ip", "", &finding.src_ip);
    }
    keys
}

/// A stretch of event time in which one incident has alerts under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The earliest event.
    pub first: Time,
    /// The latest event.
    pub last: Time,
    /// Whose it is.
    pub incident: Id,
}

/// Is no more than `gap` between the two?
pub fn is_near(a: &Span, b: &Span, gap: i64) -> bool {
    a.first <= b.last.plus(gap) && b.first <= a.last.plus(gap)
}

/// What becomes of the spans of one key when `new` comes: those in `near` (all that are near it) are one with it now.
/// Gives that one span, still under the incident of `new`, and the other incidents that must be joined with it.
pub fn join(new: Span, near: &[Span]) -> (Span, Vec<Id>) {
    let mut whole = new;
    let mut others = Vec::new();
    for span in near {
        whole.first = whole.first.min(span.first);
        whole.last = whole.last.max(span.last);
        if span.incident != new.incident && !others.contains(&span.incident) {
            others.push(span.incident);
        }
    }
    (whole, others)
}

/// The id of the incident that an alert opens.
pub fn id(alert: Id) -> Id {
    Id::of("incident", &[&alert.to_bytes()])
}

/// Brings what people see of an incident up to date with its alerts, which come in the order of opening and without
/// those that became part of another.
pub fn summary(incident: &mut Incident, alerts: &[Alert], now: Time) {
    let Some(first) = alerts.first() else { return };
    let worst = alerts
        .iter()
        .fold(first, |w, a| if a.severity > w.severity { a } else { w });
    let state = alerts.iter().map(|a| a.state).min();
    incident.title = worst.title.clone();
    incident.severity = worst.severity;
    incident.state = state.unwrap_or(State::Resolved);
    incident.opened = alerts.iter().map(|a| a.opened).min().unwrap_or(now);
    incident.first_event_time = alerts
        .iter()
        .map(|a| a.finding.first_event_time)
        .min()
        .unwrap_or(now);
    incident.last_event_time = alerts
        .iter()
        .map(|a| a.finding.last_event_time)
        .max()
        .unwrap_or(now);
    incident.alerts = alerts.len() as u64;
    incident.updated = now;
}

#[cfg(test)]
mod tests {
    use super::*;
    use event::Severity;

    fn check(identity: &str, session: &str, key: &str, ip: &str, expected: &[&str]) {
        let finding = Finding {
            account: "1".into(),
            identity: identity.into(),
            session: session.into(),
            access_key: key.into(),
            src_ip: ip.into(),
            ..Finding::default()
        };
        assert_eq!(keys(&finding), expected);
    }

    #[test]
    fn what_joins() {
        check(
            "ana",
            "s",
            "AK",
            "192.0.2.1",
            &["identity:ana", "session:1/s", "access_key:AK"],
        );
        check(
            "",
            "",
            "AK",
            "192.0.2.1",
            &["access_key:AK", "src_ip:192.0.2.1"],
        );
        check("", "", "", "AWS Internal", &[]);
        check("", "", "", "lambda.amazonaws.com", &[]);
        check("", "", "", "2001:db8::1", &["src_ip:2001:db8::1"]);
    }

    #[test]
    fn spans_join_over_the_gap_and_not_further() {
        let span = |first, last, incident| Span {
            first: Time(first),
            last: Time(last),
            incident: Id(incident),
        };
        assert!(is_near(&span(0, 5, 1), &span(15, 20, 2), 10));
        assert!(!is_near(&span(0, 5, 1), &span(16, 20, 2), 10));
        assert!(is_near(&span(15, 20, 2), &span(0, 5, 1), 10));
        let (whole, others) = join(
            span(8, 8, 3),
            &[span(0, 5, 1), span(15, 20, 2), span(9, 9, 3)],
        );
        assert_eq!(whole, span(0, 20, 3));
        assert_eq!(others, [Id(1), Id(2)]);
    }

    #[test]
    fn people_see_the_worst() {
        let alert = |title: &str, severity, state, at: i64| Alert {
            title: title.into(),
            severity,
            state,
            finding: Finding {
                first_event_time: Time(at),
                last_event_time: Time(at + 1),
                ..Finding::default()
            },
            ..Alert::default()
        };
        let mut incident = Incident::default();
        let alerts = [
            alert("a", Severity::Low, State::Acknowledged, 5),
            alert("b", Severity::High, State::Resolved, 3),
            alert("c", Severity::High, State::Acknowledged, 9),
        ];
        summary(&mut incident, &alerts, Time(7));
        assert_eq!(
            (incident.title.as_str(), incident.severity),
            ("b", Severity::High)
        );
        assert_eq!((incident.state, incident.alerts), (State::Acknowledged, 3));
        assert_eq!(
            (incident.first_event_time, incident.last_event_time),
            (Time(3), Time(10))
        );
    }
}
