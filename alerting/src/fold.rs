//! How findings become alerts: one alert for each episode.
//!
//! A correlation says its episode again and again, revision by revision: [`open`] and [`revise`] keep the
//! last word. A single-event rule says each event once: findings of one rule, account and actor
//! ([`fold_key`]) whose events lie no further apart than the gap are one alert, which [`add`] grows; when a
//! finding closes the gap between two alerts, [`absorb`] makes them one, the earlier. What comes out does
//! not depend on the order in which findings arrive, but for the id, which is that of the first to come.
//! An alert that was resolved and goes on later is open again. Nothing here knows a database or a clock:
//! the store finds the alerts concerned and keeps what these functions make of them.

use std::cmp::Ordering;

use event::{Finding, Id, MAX_EVENT_IDS, Time};

use crate::alert::{Alert, State};

/// The most comments an alert keeps.
pub const MAX_COMMENTS: usize = 500;

/// What a finding did to an alert that was already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Growth {
    /// It is worse than before.
    pub severity_rose: bool,
    /// It had been resolved and is open again.
    pub reopened: bool,
}

/// The single-event findings that belong together: one rule, account and actor. Where the source names no actor, the
/// function stands for it, so that the errors of two functions stay two alerts.
pub fn fold_key(finding: &Finding) -> Id {
    let actor = match finding.actor.as_str() {
        "" => format!("function:{}", finding.function),
        actor => format!("actor:{actor}"),
    };
    Id::of(
        "fold",
        &[
            finding.rule_id.as_bytes(),
            finding.account.as_bytes(),
            actor.as_bytes(),
        ],
    )
}

/// A new alert.
pub fn open(finding: &Finding, now: Time) -> Alert {
    let mut alert = Alert {
        id: finding.episode,
        opened: now,
        version: 1,
        finding: finding.clone(),
        ..Alert::default()
    };
    if !finding.episodic {
        alert.times = vec![finding.time; finding.event_ids.len()];
    }
    show(&mut alert, now);
    alert
}

/// A correlation says its episode again, or another finding says the same episode: then the fuller one holds.
pub fn revise(alert: &mut Alert, finding: &Finding, now: Time) -> Growth {
    let before = alert.severity;
    let shown = &alert.finding;
    let fuller = (finding.count, finding.last_event_time) >= (shown.count, shown.last_event_time);
    let same = finding.id == shown.id;
    // What was said to be over is not, whenever it happened.
    let holds_again = same && shown.ended.is_some() && finding.ended.is_none();
    if same || fuller {
        alert.finding = finding.clone();
    }
    alert.severity = alert.severity.max(finding.severity);
    show(alert, now);
    Growth {
        severity_rose: alert.severity > before,
        reopened: reopen(
            alert,
            if holds_again {
                Time::MAX
            } else {
                finding.last_event_time
            },
        ),
    }
}

/// A single-event rule matched one more event.
pub fn add(alert: &mut Alert, finding: &Finding, now: Time) -> Growth {
    let before = alert.severity;
    let times = vec![finding.time; finding.event_ids.len()];
    combine(alert, finding, &times);
    alert.severity = alert.severity.max(finding.severity);
    show(alert, now);
    Growth {
        severity_rose: alert.severity > before,
        reopened: reopen(alert, finding.time),
    }
}

/// Two alerts of single-event findings turn out to be one: `later` becomes part of `earlier`.
pub fn absorb(earlier: &mut Alert, later: &mut Alert, now: Time) -> Growth {
    let before = (earlier.severity, earlier.state);
    combine(earlier, &later.finding, &later.times);
    earlier.severity = earlier.severity.max(later.severity);
    // What nobody has looked at yet must not vanish behind what somebody has.
    earlier.state = earlier.state.min(later.state);
    if earlier.state != State::Resolved {
        earlier.resolved = None;
    }
    if earlier.assignee.is_empty() {
        earlier.assignee.clone_from(&later.assignee);
    }
    earlier.comments.extend(later.comments.iter().cloned());
    earlier.comments.sort_by_key(|c| c.at);
    earlier.comments.truncate(MAX_COMMENTS);
    earlier.version += 1;
    show(earlier, now);
    merge(later, earlier.id, now);
    Growth {
        severity_rose: earlier.severity > before.0,
        reopened: before.1 == State::Resolved && earlier.state != State::Resolved,
    }
}

/// The alert has become part of another: it is over and nobody is told of it again.
pub fn merge(alert: &mut Alert, into: Id, now: Time) {
    alert.merged_into = Some(into);
    alert.state = State::Resolved;
    alert.resolved.get_or_insert(now);
    alert.updated = now;
    alert.version += 1;
}

/// The alert is over.
pub fn resolve(alert: &mut Alert, now: Time) {
    alert.state = State::Resolved;
    alert.resolved = Some(now);
    alert.updated = now;
    alert.version += 1;
}

/// Which of two alerts is the earlier one, into which the other is merged.
pub fn by_start(a: &Alert, b: &Alert) -> Ordering {
    let start = |x: &Alert| (x.finding.first_event_time, x.id);
    start(a).cmp(&start(b))
}

/// Has the alert been quiet long enough to be over?
pub fn is_quiet(alert: &Alert, quiet: i64, now: Time) -> bool {
    alert.is_open() && alert.grown.plus(quiet) <= now
}

/// Joins the evidence, counts and times of a single-event finding, or of a whole alert of them, to those of an alert.
fn combine(alert: &mut Alert, finding: &Finding, times: &[Time]) {
    let shown = &mut alert.finding;
    let mut evidence: Vec<(Time, event::Str, Option<Id>)> = Vec::new();
    for (f, times) in [(&*shown, alert.times.as_slice()), (finding, times)] {
        for (i, id) in f.event_ids.iter().enumerate() {
            let time = times.get(i).copied().unwrap_or(f.time);
            evidence.push((time, id.clone(), f.evidence.get(i).copied()));
        }
    }
    evidence.sort();
    evidence.truncate(MAX_EVENT_IDS);
    let count = shown.count.saturating_add(finding.count);
    let first = shown.first_event_time.min(finding.first_event_time);
    let last = shown.last_event_time.max(finding.last_event_time);
    // The earliest finding is the one shown, whichever came first.
    if (finding.time, finding.id) < (shown.time, shown.id) {
        *shown = finding.clone();
    }
    shown.count = count;
    shown.first_event_time = first;
    shown.last_event_time = last;
    alert.times = evidence.iter().map(|e| e.0).collect();
    shown.event_ids = evidence.iter().map(|e| e.1.clone()).collect();
    shown.evidence = evidence.iter().filter_map(|e| e.2).collect();
}

fn reopen(alert: &mut Alert, at: Time) -> bool {
    let again = alert.resolved.is_some_and(|resolved| at > resolved);
    if again {
        alert.state = State::Firing;
        alert.resolved = None;
        alert.version += 1;
    }
    again
}

/// Takes what lists show from the finding.
fn show(alert: &mut Alert, now: Time) {
    let finding = &alert.finding;
    alert.rule_id = finding.rule_id.clone();
    alert.title = finding.title.clone();
    alert.severity = alert.severity.max(finding.severity);
    alert.count = finding.count;
    alert.group = finding.group.clone();
    alert.actor = finding.actor.clone();
    alert.identity = finding.identity.clone();
    alert.account = finding.account.clone();
    alert.region = finding.region.clone();
    alert.source = finding.source.clone();
    alert.revision = finding.revision;
    alert.updated = now;
    alert.grown = now;
}

#[cfg(test)]
mod tests {
    use super::*;
    use event::Severity;

    fn finding(id: u128, seconds: i64) -> Finding {
        Finding {
            id: Id(id),
            episode: Id(id),
            rule_id: "r".into(),
            severity: Severity::Medium,
            time: Time::from_seconds(seconds),
            first_event_time: Time::from_seconds(seconds),
            last_event_time: Time::from_seconds(seconds),
            count: 1,
            event_ids: vec![format!("e{id}").into()],
            evidence: vec![Id(id)],
            actor: "ana".into(),
            ..Finding::default()
        }
    }

    #[test]
    fn the_order_of_arrival_changes_only_the_id() {
        let all: Vec<Finding> = (1..=120).map(|i| finding(i, i as i64)).collect();
        let grow = |order: &mut dyn Iterator<Item = &Finding>| {
            let mut alert = open(order.next().unwrap(), Time(0));
            order.for_each(|f| {
                add(&mut alert, f, Time(0));
            });
            alert.id = Id(0);
            alert
        };
        let forth = grow(&mut all.iter());
        let back = grow(&mut all.iter().rev());
        assert_eq!(forth, back);
        assert_eq!(
            (forth.count, forth.finding.event_ids.len()),
            (120, MAX_EVENT_IDS)
        );
        assert_eq!(forth.finding.event_ids[0], "e1");
        assert_eq!(forth.finding.id, Id(1));
    }

    #[test]
    fn absorbing_is_adding_all() {
        let mut whole = open(&finding(1, 10), Time(0));
        let mut left = whole.clone();
        let mut right = open(&finding(2, 20), Time(0));
        for (id, at) in [(3, 30), (4, 5)] {
            add(&mut right, &finding(id, at), Time(0));
        }
        for (id, at) in [(2, 20), (3, 30), (4, 5)] {
            add(&mut whole, &finding(id, at), Time(0));
        }
        absorb(&mut left, &mut right, Time(0));
        left.version = whole.version;
        assert_eq!(left, whole);
        assert_eq!(right.merged_into, Some(Id(1)));
        assert!(!right.is_open());
    }

    #[test]
    fn what_goes_on_after_its_resolution_is_open_again() {
        let mut alert = open(&finding(1, 10), Time(0));
        alert.state = State::Resolved;
        alert.resolved = Some(Time::from_seconds(100));
        assert!(
            !add(&mut alert, &finding(2, 99), Time(0)).reopened,
            "seen late, but it is over"
        );
        assert!(add(&mut alert, &finding(3, 101), Time(0)).reopened);
        assert_eq!(
            (alert.state, alert.count, alert.resolved),
            (State::Firing, 3, None)
        );
    }

    #[test]
    fn a_revision_replaces_and_severity_only_rises() {
        let first = Finding {
            count: 5,
            ..finding(1, 10)
        };
        let mut alert = open(&first, Time(0));
        let second = Finding {
            count: 9,
            revision: 1,
            severity: Severity::High,
            ..first.clone()
        };
        assert!(revise(&mut alert, &second, Time(1)).severity_rose);
        let third = Finding {
            count: 9,
            revision: 2,
            severity: Severity::Low,
            ..first.clone()
        };
        assert!(!revise(&mut alert, &third, Time(1)).severity_rose);
        assert_eq!(
            (alert.count, alert.revision, alert.severity),
            (9, 2, Severity::High)
        );
        let other = Finding {
            id: Id(7),
            count: 4,
            ..first
        };
        revise(&mut alert, &other, Time(1));
        assert_eq!(alert.count, 9, "the fuller one holds");
    }

    #[test]
    fn what_was_taken_back_and_holds_after_all_is_open_again() {
        let told = finding(1, 10);
        let mut alert = open(&told, Time(0));
        let withdrawn = Finding {
            revision: 1,
            ended: Some(Time::from_seconds(10)),
            ..told.clone()
        };
        assert!(!revise(&mut alert, &withdrawn, Time::from_seconds(40)).reopened);
        resolve(&mut alert, Time::from_seconds(50));
        let again = Finding {
            revision: 2,
            ..told.clone()
        };
        assert!(revise(&mut alert, &again, Time::from_seconds(60)).reopened);
        assert_eq!((alert.state, alert.resolved), (State::Firing, None));
        // What a person has resolved stays so.
        resolve(&mut alert, Time::from_seconds(70));
        let news = Finding {
            revision: 3,
            ..told
        };
        assert!(!revise(&mut alert, &news, Time::from_seconds(80)).reopened);
    }

    #[test]
    fn quiet_time() {
        let mut alert = open(&finding(1, 10), Time(5));
        assert!(!is_quiet(&alert, 10, Time(14)));
        assert!(is_quiet(&alert, 10, Time(15)));
        alert.state = State::Resolved;
        assert!(!is_quiet(&alert, 10, Time(15)));
    }

    #[test]
    fn whom_a_fold_is_about() {
        let f = |actor: &str, function: &str| Finding {
            actor: actor.into(),
            function: function.into(),
            ..finding(1, 1)
        };
        assert_eq!(fold_key(&f("ana", "f")), fold_key(&f("ana", "g")));
        assert_ne!(fold_key(&f("", "f")), fold_key(&f("", "g")));
        assert_ne!(fold_key(&f("ana", "")), fold_key(&f("bob", "")));
    }
}
