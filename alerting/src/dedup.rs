//! Whether a receiver is told about an incident now, and why.
//!
//! [`decide`] compares how the incident looks to one receiver with what that receiver was last told. It is
//! asked after every batch of findings, after every action of a person and on a slow tick, and it answers
//! `None` far more often than not: one page when an incident opens, one when it gets worse, one when it is
//! over or comes back, and a reminder while nobody has taken it. Nothing here sends; the outbox does.

use event::{Severity, Time};
use serde::{Deserialize, Serialize};

/// Why a notification is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotifyReason {
    /// The receiver has never heard of this incident.
    First,
    /// It is worse than the receiver was told.
    SeverityRose,
    /// The receiver was told that it is over, and it is not.
    Reopened,
    /// It is still open, nobody has acknowledged it, and the repeat interval has passed.
    Repeat,
    /// It is over.
    Resolved,
}

impl NotifyReason {
    /// The word as it stands in JSON, in headers and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            NotifyReason::First => "first",
            NotifyReason::SeverityRose => "severity_rose",
            NotifyReason::Reopened => "reopened",
            NotifyReason::Repeat => "repeat",
            NotifyReason::Resolved => "resolved",
        }
    }

    /// The reason of a word.
    pub fn parse(word: &str) -> Option<NotifyReason> {
        [
            NotifyReason::First,
            NotifyReason::SeverityRose,
            NotifyReason::Reopened,
            NotifyReason::Repeat,
            NotifyReason::Resolved,
        ]
        .into_iter()
        .find(|r| r.as_str() == word)
    }
}

/// How an incident looks to one receiver: only the alerts that are routed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct View {
    /// Open alerts, silenced or not.
    pub open: u64,
    /// Open alerts that no silence covers.
    pub audible: u64,
    /// Audible alerts that nobody has acknowledged.
    pub firing: u64,
    /// The worst severity of the audible alerts.
    pub severity: Severity,
}

/// What a receiver was last told about an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The worst severity told since it opened.
    pub severity: Severity,
    /// Was it told that it is over?
    pub resolved: bool,
    /// When the last notification was put into the outbox.
    pub at: Time,
    /// Is a notification to this receiver still on its way?
    pub outstanding: bool,
}

/// Why the receiver is told now; `None` for not now. `repeat` is the time between reminders in microseconds, if it
/// wants any. That it is over is decided even for a receiver that does not want to know, so that it hears when the
/// incident comes back.
pub fn decide(
    view: View,
    told: Option<Told>,
    repeat: Option<i64>,
    now: Time,
) -> Option<NotifyReason> {
    let Some(told) = told else {
        return (view.audible > 0).then_some(NotifyReason::First);
    };
    if view.open == 0 {
        return (!told.resolved).then_some(NotifyReason::Resolved);
    }
    // Silenced is not resolved: the receiver hears nothing until the silence ends.
    if view.audible == 0 {
        return None;
    }
    if told.resolved {
        return Some(NotifyReason::Reopened);
    }
    if view.severity > told.severity {
        return Some(NotifyReason::SeverityRose);
    }
    let due = repeat.is_some_and(|interval| now >= told.at.plus(interval));
    (due && view.firing > 0 && !told.outstanding).then_some(NotifyReason::Repeat)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn view(open: u64, audible: u64, firing: u64, severity: Severity) -> View {
        View {
            open,
            audible,
            firing,
            severity,
        }
    }

    fn told(severity: Severity, resolved: bool) -> Option<Told> {
        Some(Told {
            severity,
            resolved,
            at: Time(0),
            outstanding: false,
        })
    }

    fn check(view: View, told: Option<Told>, now: i64, expected: Option<NotifyReason>) {
        assert_eq!(
            decide(view, told, Some(4 * HOUR), Time(now)),
            expected,
            "{view:?} {told:?} {now}"
        );
    }

    #[test]
    fn one_page_when_it_opens() {
        check(
            view(1, 1, 1, Severity::High),
            None,
            0,
            Some(NotifyReason::First),
        );
        check(
            view(2, 2, 2, Severity::High),
            told(Severity::High, false),
            1,
            None,
        );
        check(view(0, 0, 0, Severity::High), None, 0, None);
    }

    #[test]
    fn a_rise_is_told_and_a_fall_is_not() {
        use Severity::{Critical, High, Low};
        check(
            view(2, 2, 2, Critical),
            told(High, false),
            1,
            Some(NotifyReason::SeverityRose),
        );
        check(view(2, 2, 2, Low), told(High, false), 1, None);
    }

    #[test]
    fn silenced_is_neither_told_nor_resolved() {
        check(view(1, 0, 0, Severity::Critical), None, 0, None);
        check(
            view(1, 0, 0, Severity::Critical),
            told(Severity::Low, false),
            99 * HOUR,
            None,
        );
    }

    #[test]
    fn resolved_once_and_never_before_the_first() {
        let over = view(0, 0, 0, Severity::Informational);
        check(
            over,
            told(Severity::High, false),
            1,
            Some(NotifyReason::Resolved),
        );
        check(over, told(Severity::High, true), 1, None);
        check(
            view(1, 1, 1, Severity::Low),
            told(Severity::High, true),
            1,
            Some(NotifyReason::Reopened),
        );
    }

    #[test]
    fn reminders_while_nobody_has_taken_it() {
        let last = told(Severity::High, false);
        check(view(1, 1, 1, Severity::High), last, 4 * HOUR - 1, None);
        check(
            view(1, 1, 1, Severity::High),
            last,
            4 * HOUR,
            Some(NotifyReason::Repeat),
        );
        check(view(1, 1, 0, Severity::High), last, 4 * HOUR, None);
        let waiting = last.map(|t| Told {
            outstanding: true,
            ..t
        });
        check(view(1, 1, 1, Severity::High), waiting, 4 * HOUR, None);
    }
}
