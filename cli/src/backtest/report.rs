//! What a backtest tells: alerts a day, the noisiest rules, the noisiest groups.
//!
//! Findings become alerts as in the service: those of a single-event rule, account and actor (`alerting::fold_key`) with
//! no more than an hour between them are one, and every episode of a correlation is one. An alert belongs to the day of
//! its first event. Days without alerts count, days without events do not.

use std::collections::BTreeMap;
use std::io::Write;

use alerting::fold::fold_key;
use event::{Finding, Id, Severity, Time};
use serde_json::json;

use super::day;
use crate::hunt::Totals;

const DAY: i64 = 86_400_000_000;

/// The gap of alerting's default configuration, in microseconds.
const GAP: i64 = 3_600_000_000;

/// Findings folded.
struct Alert<'a> {
    first: &'a Finding,
    last: Time,
    severity: Severity,
    findings: u64,
}

#[derive(Default)]
struct Day {
    alerts: u64,
    findings: u64,
    by_severity: BTreeMap<Severity, u64>,
}

#[derive(Default)]
struct Noise {
    alerts: u64,
    findings: u64,
    severity: Severity,
}

/// A backtest's outcome.
pub(super) struct Report<'a> {
    totals: &'a Totals,
    rules: usize,
    top: usize,
    alerts: u64,
    days: BTreeMap<String, Day>,
    by_rule: Vec<((String, String), Noise)>,
    by_group: Vec<((String, String), Noise)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        findings: &[Finding],
        totals: &'a Totals,
        rules: usize,
        top: usize,
    ) -> Report<'a> {
        let alerts = fold(findings);
        let mut days: BTreeMap<String, Day> = BTreeMap::new();
        for number in &totals.days {
            days.insert(day(Time(number * DAY)), Day::default());
        }
        for finding in findings {
            days.entry(day(finding.first_event_time))
                .or_default()
                .findings += 1;
        }
        let mut by_rule: BTreeMap<(String, String), Noise> = BTreeMap::new();
        let mut by_group: BTreeMap<(String, String), Noise> = BTreeMap::new();
        for alert in &alerts {
            let of = days.entry(day(alert.first.first_event_time)).or_default();
            of.alerts += 1;
            *of.by_severity.entry(alert.severity).or_default() += 1;
            let title = alert.first.title.to_string();
            let rule = (title.clone(), alert.first.rule_id.to_string());
            for noise in [
                by_rule.entry(rule).or_default(),
                by_group.entry((title, who(alert.first))).or_default(),
            ] {
                noise.alerts += 1;
                noise.findings += alert.findings;
                noise.severity = noise.severity.max(alert.severity);
            }
        }
        Report {
            totals,
            rules,
            top,
            alerts: alerts.len() as u64,
            days,
            by_rule: loudest(by_rule),
            by_group: loudest(by_group),
        }
    }

    /// Alerts on an average day.
    pub(super) fn per_day(&self) -> f64 {
        self.alerts as f64 / self.days.len().max(1) as f64
    }

    pub(super) fn tables(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let span = match (self.totals.first, self.totals.last) {
            (Some(first), Some(last)) => format!(", {} to {}", day(first), day(last)),
            _ => String::new(),
        };
        writeln!(
            out,
            "{} events{span}; {} rules",
            self.totals.events, self.rules
        )?;
        writeln!(
            out,
            "\n{:<12} {:>8} {:>9} {:>9} {:>6} {:>7} {:>6} {:>14}",
            "DAY", "ALERTS", "FINDINGS", "CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL"
        )?;
        for (name, day) in &self.days {
            let of = |severity| day.by_severity.get(&severity).copied().unwrap_or(0);
            writeln!(
                out,
                "{name:<12} {:>8} {:>9} {:>9} {:>6} {:>7} {:>6} {:>14}",
                day.alerts,
                day.findings,
                of(Severity::Critical),
                of(Severity::High),
                of(Severity::Medium),
                of(Severity::Low),
                of(Severity::Informational)
            )?;
        }
        writeln!(
            out,
            "{:<12} {:>8.1} {:>9.1}",
            "a day",
            self.per_day(),
            self.totals.findings as f64 / self.days.len().max(1) as f64
        )?;
        if !self.by_rule.is_empty() {
            writeln!(
                out,
                "\n{:>8} {:>8} {:>9}  {:<13} NOISIEST RULES",
                "ALERTS", "A DAY", "FINDINGS", "SEVERITY"
            )?;
            for ((title, _), noise) in self.by_rule.iter().take(self.top) {
                let a_day = noise.alerts as f64 / self.days.len().max(1) as f64;
                writeln!(
                    out,
                    "{:>8} {a_day:>8.1} {:>9}  {:<13} {}",
                    noise.alerts,
                    noise.findings,
                    noise.severity,
                    cut(title, 80)
                )?;
            }
            writeln!(
                out,
                "\n{:>8} {:>9}  {:<52} NOISIEST GROUPS",
                "ALERTS", "FINDINGS", "RULE"
            )?;
            for ((title, who), noise) in self.by_group.iter().take(self.top) {
                writeln!(
                    out,
                    "{:>8} {:>9}  {:<52} {}",
                    noise.alerts,
                    noise.findings,
                    cut(title, 52),
                    cut(who, 80)
                )?;
            }
        }
        if !self.totals.by_filter.is_empty() {
            writeln!(out, "\n{:>8}  TAKEN AWAY BY FILTERS", "MATCHES")?;
            for (title, matches) in &self.totals.by_filter {
                writeln!(out, "{matches:>8}  {}", cut(title, 80))?;
            }
        }
        if self.totals.uncounted > 0 {
            writeln!(out, "\n{}", self.totals.uncounted_words())?;
        }
        Ok(())
    }

    pub(super) fn lines(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let total = json!({
            "kind": "total",
            "events": self.totals.events,
            "first_event_time": self.totals.first,
            "last_event_time": self.totals.last,
            "days": self.days.len(),
            "rules": self.rules,
            "findings": self.totals.findings,
            "alerts": self.alerts,
            "alerts_per_day": self.per_day(),
            "uncounted": self.totals.uncounted,
        });
        writeln!(out, "{total}")?;
        for (name, day) in &self.days {
            let by_severity: BTreeMap<&str, u64> = Severity::ALL
                .into_iter()
                .map(|s| (s.as_str(), day.by_severity.get(&s).copied().unwrap_or(0)))
                .collect();
            let line = json!({"kind": "day", "day": name, "alerts": day.alerts, "findings": day.findings, "by_severity": by_severity});
            writeln!(out, "{line}")?;
        }
        for ((title, id), noise) in self.by_rule.iter().take(self.top) {
            let a_day = noise.alerts as f64 / self.days.len().max(1) as f64;
            let line = json!({"kind": "rule", "rule_id": id, "title": title, "severity": noise.severity, "alerts": noise.alerts, "alerts_per_day": a_day, "findings": noise.findings});
            writeln!(out, "{line}")?;
        }
        for ((title, who), noise) in self.by_group.iter().take(self.top) {
            let line = json!({"kind": "group", "title": title, "group": who, "alerts": noise.alerts, "findings": noise.findings});
            writeln!(out, "{line}")?;
        }
        for (title, matches) in &self.totals.by_filter {
            let line = json!({"kind": "filter", "title": title, "matches": matches});
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

/// The alerts that these findings make.
fn fold(findings: &[Finding]) -> Vec<Alert<'_>> {
    let mut alerts = Vec::new();
    let mut singles: Vec<(Id, &Finding)> = Vec::new();
    for finding in findings {
        if finding.episodic {
            alerts.push(Alert {
                first: finding,
                last: finding.last_event_time,
                severity: finding.severity,
                findings: 1,
            });
        } else {
            singles.push((fold_key(finding), finding));
        }
    }
    singles.sort_by_key(|(key, finding)| (*key, finding.time, finding.id));
    let mut open: Option<(Id, Alert<'_>)> = None;
    for (key, finding) in singles {
        match &mut open {
            Some((of, alert)) if *of == key && finding.time.0 - alert.last.0 <= GAP => {
                alert.last = finding.time;
                alert.severity = alert.severity.max(finding.severity);
                alert.findings += 1;
            }
            _ => {
                let alert = Alert {
                    first: finding,
                    last: finding.time,
                    severity: finding.severity,
                    findings: 1,
                };
                alerts.extend(open.replace((key, alert)).map(|(_, alert)| alert));
            }
        }
    }
    alerts.extend(open.map(|(_, alert)| alert));
    alerts
}

/// Whom an alert is about.
fn who(finding: &Finding) -> String {
    if finding.episodic {
        let group = finding.group.iter();
        let parts: Vec<String> = group
            .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("(none)")))
            .collect();
        return parts.join(" ");
    }
    let actor = match finding.actor.as_str() {
        "" => finding.function.as_str(),
        actor => actor,
    };
    match finding.account.as_str() {
        "" => actor.to_owned(),
        account => format!("{actor} in {account}"),
    }
}

/// The noisiest first.
fn loudest<K: Ord>(all: BTreeMap<K, Noise>) -> Vec<(K, Noise)> {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(_, noise)| std::cmp::Reverse((noise.alerts, noise.findings)));
    all
}

/// At most `width` characters, and none that a terminal would obey.
fn cut(text: &str, width: usize) -> String {
    let inert = event::inert::text(text);
    if inert.chars().count() <= width {
        inert.into_owned()
    } else {
        inert.chars().take(width - 1).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: u128, actor: &str, minute: i64) -> Finding {
        let time = Time::from_seconds(1_772_409_600 + minute * 60);
        Finding {
            id: Id(id),
            episode: Id(id),
            rule_id: "r".into(),
            title: "r".into(),
            actor: actor.into(),
            time,
            first_event_time: time,
            last_event_time: time,
            count: 1,
            ..Finding::default()
        }
    }

    #[test]
    fn findings_fold_as_alerting_folds() {
        let episode = Finding {
            count: 5,
            episodic: true,
            group: [("a".into(), Some("x".into()))].into(),
            ..finding(9, "ana", 3_000)
        };
        let findings = [
            finding(1, "ana", 0),
            finding(2, "ana", 120),
            finding(3, "ana", 60),
            finding(4, "bob", 61),
            finding(5, "ana", 181),
            episode,
        ];
        let mut folded: Vec<(u128, u64)> = fold(&findings)
            .iter()
            .map(|a| (a.first.id.0, a.findings))
            .collect();
        folded.sort_unstable();
        assert_eq!(folded, [(1, 3), (4, 1), (5, 1), (9, 1)]);
        let mut totals = Totals::default();
        for time in [
            findings[0].time,
            Time::parse("2026-03-03T12:00:00Z").unwrap(),
            findings[5].time,
        ] {
            totals.see(time);
        }
        let report = Report::new(&findings, &totals, 1, 10);
        let days: Vec<(&str, u64, u64)> = report
            .days
            .iter()
            .map(|(name, day)| (name.as_str(), day.alerts, day.findings))
            .collect();
        assert_eq!(
            days,
            [
                ("2026-03-02", 3, 5),
                ("2026-03-03", 0, 0),
                ("2026-03-04", 1, 1)
            ]
        );
        assert!((report.per_day() - 4.0 / 3.0).abs() < 1e-9);
        let groups: Vec<&str> = report
            .by_group
            .iter()
            .map(|((_, who), _)| who.as_str())
            .collect();
        assert_eq!(groups, ["ana", "a=x", "bob"]);
    }
}
