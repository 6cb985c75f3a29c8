//! Takes findings in: repeats are dropped by id and revision, the rest grow alerts, and alerts join incidents.

use std::collections::{BTreeMap, BTreeSet};

use bus::Offset;
use event::{Finding, Id, Time};

use super::db::Tx;
use super::rows::{self, add_feed, add_history, load_alert, load_incident, one_id, run};
use super::{Applied, Store, StoreError, tell};
use crate::alert::{Action, Alert, Incident, State};
use crate::fold::{self, Growth};
use crate::incident::{self, Span};
use crate::policy::Policy;

/// Who history names for what no person did.
pub(super) const PROGRAM: &str = "trailwarden";

/// How many quiet alerts one tick resolves at most.
const QUIET_AT_ONCE: i64 = 500;

impl Store {
    /// The next offset of the findings topic to apply; `None` before the first batch.
    pub fn position(&self, partition: u32) -> Result<Option<Offset>, StoreError> {
        self.read("read the position", |tx| position(tx, partition))
    }

    /// Folds findings of one partition, read from `from` up to `next`, into alerts, incidents and the outbox, and
    /// moves the position with them.
    pub fn apply(
        &self,
        findings: &[(Offset, Finding)],
        partition: u32,
        from: Offset,
        next: Offset,
        now: Time,
    ) -> Result<Applied, StoreError> {
        let policy = self.policy();
        self.write("apply findings", |tx| {
            if let Some(stored) = position(tx, partition)?.filter(|stored| *stored != from) {
                return Err(StoreError::Fenced {
                    partition,
                    stored,
                    given: from,
                });
            }
            let mut work = Work::new(tx, &policy, now);
            for (_, finding) in findings {
                work.apply(finding)?;
            }
            set_position(tx, partition, next)?;
            work.finish()
        })
    }

    /// Sets the position, where the log no longer has what it says or is another log: findings that come again change
    /// nothing.
    pub fn rewind(&self, partition: u32, to: Offset) -> Result<(), StoreError> {
        self.write("set the position", |tx| set_position(tx, partition, to))
    }

    /// What time alone does: quiet alerts are resolved, reminders become due, silences end.
    pub fn tick(&self, now: Time) -> Result<Applied, StoreError> {
        let policy = self.policy();
        if !self.read("look for work", |tx| is_due(tx, &policy, now))? {
            return Ok(Applied::default());
        }
        self.write("do what is due", |tx| {
            let mut work = Work::new(tx, &policy, now);
            if let Some(quiet) = policy.auto_resolve {
                work.resolve_quiet(quiet)?;
            }
            work.incidents.extend(tell::due(tx, now)?);
            work.finish()
        })
    }
}

fn position(tx: &Tx<'_>, partition: u32) -> Result<Option<Offset>, StoreError> {
    let sql = "SELECT next FROM positions WHERE partition = ?1";
    let found = rows::all(tx, sql, &[partition.into()], |r| rows::get::<i64>(r, 0))?;
    Ok(found.first().map(|next| *next as Offset))
}

fn set_position(tx: &Tx<'_>, partition: u32, next: Offset) -> Result<(), StoreError> {
    run(
        tx,
        "INSERT INTO positions (partition, next) VALUES (?1, ?2) ON CONFLICT (partition) DO UPDATE SET next = ?2",
        &[partition.into(), (next as i64).into()],
    )?;
    Ok(())
}

fn is_due(tx: &Tx<'_>, policy: &Policy, now: Time) -> Result<bool, StoreError> {
    let quiet = policy.auto_resolve.map_or(i64::MIN, |quiet| now.0 - quiet);
    let sql = "SELECT EXISTS (SELECT 1 FROM incidents WHERE check_at <= ?1) \
               OR EXISTS (SELECT 1 FROM alerts WHERE state != 'resolved' AND grown <= ?2)";
    let found = rows::all(tx, sql, &[now.into(), quiet.into()], |r| {
        rows::get::<bool>(r, 0)
    })?;
    Ok(found.first().is_some_and(|due| *due))
}

/// One transaction's worth of changes, and what they touched.
pub(super) struct Work<'a, 't> {
    tx: &'a Tx<'t>,
    policy: &'a Policy,
    now: Time,
    applied: Applied,
    /// The alerts touched, and whether they are new.
    alerts: BTreeMap<Id, bool>,
    /// The incidents whose summary and notifications must be looked at.
    pub(super) incidents: BTreeSet<Id>,
}

impl<'a, 't> Work<'a, 't> {
    pub(super) fn new(tx: &'a Tx<'t>, policy: &'a Policy, now: Time) -> Work<'a, 't> {
        Work {
            tx,
            policy,
            now,
            applied: Applied::default(),
            alerts: BTreeMap::new(),
            incidents: BTreeSet::new(),
        }
    }

    fn apply(&mut self, finding: &Finding) -> Result<(), StoreError> {
        let sql = "SELECT alert, revision FROM findings WHERE id = ?1";
        let known = rows::all(self.tx, sql, &[finding.id.into()], |r| {
            Ok((rows::id(r, 0)?, rows::get::<i64>(r, 1)? as u64))
        })?
        .pop();
        if known.is_some_and(|(_, revision)| finding.revision <= revision) {
            self.applied.repeated += 1;
            return Ok(());
        }
        self.applied.changed += 1;
        let alert = match known {
            Some((alert, _)) => Some(alert),
            None => self.find_episode(finding.episode)?,
        };
        if let Some(target) = finding.merged_into {
            return self.merge_episode(finding, alert, target);
        }
        let grown = match alert {
            Some(id) => self.revise(finding, id)?,
            None if finding.episodic => Some(self.open(finding, None)?),
            None => Some(self.fold(finding)?),
        };
        let Some(alert) = grown else {
            return Ok(());
        };
        self.remember(finding, alert)?;
        self.merge_waiting(finding, alert)
    }

    /// The alert of an episode, whichever finding said it.
    fn find_episode(&self, episode: Id) -> Result<Option<Id>, StoreError> {
        let sql = "SELECT COALESCE((SELECT id FROM alerts WHERE id = ?1), \
                   (SELECT alert FROM findings WHERE episode = ?1 ORDER BY id LIMIT 1))";
        one_id(self.tx, sql, &[episode.into()])
    }

    fn remember(&self, finding: &Finding, alert: Id) -> Result<(), StoreError> {
        run(
            self.tx,
            "INSERT INTO findings (id, alert, episode, revision) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (id) DO UPDATE SET alert = ?2, episode = ?3, revision = ?4",
            &[
                finding.id.into(),
                alert.into(),
                finding.episode.into(),
                (finding.revision as i64).into(),
            ],
        )?;
        Ok(())
    }

    fn open(&mut self, finding: &Finding, fold_key: Option<Id>) -> Result<Id, StoreError> {
        let mut alert = fold::open(finding, self.now);
        alert.incident = incident::id(alert.id);
        rows::insert_alert(self.tx, &mut alert, fold_key)?;
        rows::save_incident(
            self.tx,
            &Incident {
                id: alert.incident,
                ..Incident::default()
            },
        )?;
        self.history(alert.id, Action::Opened, alert.severity.as_str())?;
        self.applied.opened[alert.severity as usize] += 1;
        self.alerts.insert(alert.id, true);
        self.join_incidents(finding, &alert)?;
        Ok(alert.id)
    }

    /// A later revision of a known episode. `None` where its alert is no longer kept.
    fn revise(&mut self, finding: &Finding, id: Id) -> Result<Option<Id>, StoreError> {
        let Some(mut alert) = load_alert(self.tx, id)? else {
            return Ok(None);
        };
        if alert.merged_into.is_none() {
            let growth = fold::revise(&mut alert, finding, self.now);
            let over = finding.ended.is_some() && alert.is_open();
            if over {
                fold::resolve(&mut alert, self.now);
                self.applied.resolved += 1;
            }
            self.grew(&alert, growth)?;
            if over {
                let why = match finding.explanation.as_str() {
                    "" => "it has ended",
                    why => why,
                };
                self.history(alert.id, Action::Resolved, why)?;
            }
            self.join_incidents(finding, &alert)?;
        }
        Ok(Some(id))
    }

    /// A single-event finding: into the alert that is near in event time, or a new one; what it bridges becomes one.
    fn fold(&mut self, finding: &Finding) -> Result<Id, StoreError> {
        let key = fold::fold_key(finding);
        let gap = self.policy.fold_gap;
        let sql = format!(
            "SELECT {} FROM alerts WHERE fold_key = ?1 AND merged_into IS NULL AND last >= ?2 AND first <= ?3",
            rows::ALERT
        );
        let near = [
            key.into(),
            finding.time.plus(-gap).into(),
            finding.time.plus(gap).into(),
        ];
        let mut near = rows::all(self.tx, &sql, &near, rows::alert)?;
        near.sort_by(fold::by_start);
        let mut near = near.into_iter();
        let Some(mut alert) = near.next() else {
            return self.open(finding, Some(key));
        };
        let mut growth = fold::add(&mut alert, finding, self.now);
        let mut merged = Vec::new();
        for mut later in near {
            let bridged = fold::absorb(&mut alert, &mut later, self.now);
            growth.severity_rose |= bridged.severity_rose;
            growth.reopened |= bridged.reopened;
            run(
                self.tx,
                "UPDATE findings SET alert = ?2 WHERE alert = ?1",
                &[later.id.into(), alert.id.into()],
            )?;
            self.merged(&later, alert.id)?;
            merged.push(later.incident);
        }
        self.grew(&alert, growth)?;
        let incident = alert.incident;
        self.join_incidents(finding, &alert)?;
        self.unite(incident, &merged)?;
        Ok(alert.id)
    }

    /// A correlation's episode has become part of another.
    fn merge_episode(
        &mut self,
        finding: &Finding,
        alert: Option<Id>,
        target: Id,
    ) -> Result<(), StoreError> {
        let into = match self.find_finding(target)? {
            Some(id) => rows::resolve_merged(self.tx, id)?,
            None => None,
        };
        match (alert, into) {
            (Some(id), Some(into)) => {
                self.remember(finding, id)?;
                self.merge(id, &into)
            }
            // It stays an alert of its own until the other is heard of: nothing is lost if that never happens.
            (Some(id), None) => {
                self.remember(finding, id)?;
                run(
                    self.tx,
                    "INSERT INTO waiting_merges (target, alert) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                    &[target.into(), id.into()],
                )?;
                Ok(())
            }
            (None, into) => self.remember(finding, into.map_or(target, |a| a.id)),
        }
    }

    /// The alert of a finding, by the finding's id or its episode.
    fn find_finding(&self, id: Id) -> Result<Option<Id>, StoreError> {
        let sql = "SELECT alert FROM findings WHERE id = ?1";
        match one_id(self.tx, sql, &[id.into()])? {
            Some(found) => Ok(Some(found)),
            None => self.find_episode(id),
        }
    }

    fn merge_waiting(&mut self, finding: &Finding, alert: Id) -> Result<(), StoreError> {
        if !finding.episodic {
            return Ok(());
        }
        let names = [finding.id.into(), finding.episode.into()];
        let sql = "SELECT alert FROM waiting_merges WHERE target IN (?1, ?2) ORDER BY alert";
        let waiting = rows::all(self.tx, sql, &names, |r| rows::id(r, 0))?;
        if waiting.is_empty() {
            return Ok(());
        }
        run(
            self.tx,
            "DELETE FROM waiting_merges WHERE target IN (?1, ?2)",
            &names,
        )?;
        for id in waiting {
            if let Some(into) = rows::resolve_merged(self.tx, alert)? {
                self.merge(id, &into)?;
            }
        }
        Ok(())
    }

    fn merge(&mut self, id: Id, into: &Alert) -> Result<(), StoreError> {
        let Some(mut alert) = load_alert(self.tx, id)? else {
            return Ok(());
        };
        if alert.id == into.id || alert.merged_into.is_some() {
            return Ok(());
        }
        fold::merge(&mut alert, into.id, self.now);
        self.merged(&alert, into.id)?;
        self.unite(into.incident, &[alert.incident])?;
        Ok(())
    }

    fn merged(&mut self, alert: &Alert, into: Id) -> Result<(), StoreError> {
        rows::save_alert(self.tx, alert)?;
        self.history(alert.id, Action::Merged, &format!("into {into}"))?;
        self.history(into, Action::Merged, &format!("took in {}", alert.id))?;
        self.alerts.entry(alert.id).or_insert(false);
        self.alerts.entry(into).or_insert(false);
        self.incidents.insert(alert.incident);
        Ok(())
    }

    fn grew(&mut self, alert: &Alert, growth: Growth) -> Result<(), StoreError> {
        rows::save_alert(self.tx, alert)?;
        if growth.severity_rose {
            self.history(alert.id, Action::SeverityRose, alert.severity.as_str())?;
        }
        if growth.reopened {
            self.history(alert.id, Action::Reopened, "")?;
        }
        self.alerts.entry(alert.id).or_insert(false);
        Ok(())
    }

    fn history(&self, alert: Id, action: Action, detail: &str) -> Result<(), StoreError> {
        add_history(self.tx, alert, self.now, PROGRAM, action, detail)
    }

    /// Puts the alert of a finding together with the alerts that share a key of it.
    fn join_incidents(&mut self, finding: &Finding, alert: &Alert) -> Result<(), StoreError> {
        let mut current = alert.incident;
        let gap = self.policy.incident_gap;
        for key in incident::keys(finding) {
            let new = Span {
                first: finding.first_event_time,
                last: finding.last_event_time,
                incident: current,
            };
            let sql = "SELECT first, last, incident FROM incident_spans WHERE key = ?1 AND last >= ?2 AND first <= ?3 ORDER BY last";
            let near = [
                (&key).into(),
                new.first.plus(-gap).into(),
                new.last.plus(gap).into(),
            ];
            let near = rows::all(self.tx, sql, &near, |r| {
                Ok(Span {
                    first: rows::time(r, 0)?,
                    last: rows::time(r, 1)?,
                    incident: rows::id(r, 2)?,
                })
            })?;
            let (whole, others) = incident::join(new, &near);
            for span in &near {
                run(
                    self.tx,
                    "DELETE FROM incident_spans WHERE key = ?1 AND last = ?2",
                    &[(&key).into(), span.last.into()],
                )?;
            }
            run(
                self.tx,
                "INSERT INTO incident_spans (key, first, last, incident) VALUES (?1, ?2, ?3, ?4)",
                &[
                    (&key).into(),
                    whole.first.into(),
                    whole.last.into(),
                    current.into(),
                ],
            )?;
            current = self.unite(current, &others)?;
        }
        self.incidents.insert(current);
        Ok(())
    }

    /// Makes one incident of several: the one that was opened first. Gives its id.
    fn unite(&mut self, first: Id, others: &[Id]) -> Result<Id, StoreError> {
        let mut all = Vec::new();
        for id in std::iter::once(first).chain(others.iter().copied()) {
            let mut found = load_incident(self.tx, id)?;
            while let Some(into) = found.as_ref().and_then(|i| i.merged_into) {
                found = load_incident(self.tx, into)?;
            }
            all.extend(found);
        }
        all.sort_by_key(|i| i.seq);
        all.dedup_by_key(|i| i.seq);
        let mut all = all.into_iter();
        let Some(survivor) = all.next() else {
            return Ok(first);
        };
        for mut other in all {
            let sql = format!(
                "SELECT {} FROM alerts WHERE incident = ?1 ORDER BY seq",
                rows::ALERT
            );
            for mut alert in rows::all(self.tx, &sql, &[other.id.into()], rows::alert)? {
                alert.incident = survivor.id;
                rows::save_alert(self.tx, &alert)?;
                self.alerts.entry(alert.id).or_insert(false);
            }
            let sql = "UPDATE incident_spans SET incident = ?2 WHERE incident = ?1";
            run(self.tx, sql, &[other.id.into(), survivor.id.into()])?;
            tell::unite(self.tx, other.id, survivor.id)?;
            other.merged_into = Some(survivor.id);
            other.state = State::Resolved;
            other.updated = self.now;
            rows::save_incident(self.tx, &other)?;
            self.incidents.remove(&other.id);
        }
        self.incidents.insert(survivor.id);
        Ok(survivor.id)
    }

    fn resolve_quiet(&mut self, quiet: i64) -> Result<(), StoreError> {
        let sql = format!(
            "SELECT {} FROM alerts WHERE state != 'resolved' AND grown <= ?1 ORDER BY grown, seq LIMIT ?2",
            rows::ALERT
        );
        let limits = [self.now.plus(-quiet).into(), QUIET_AT_ONCE.into()];
        for mut alert in rows::all(self.tx, &sql, &limits, rows::alert)? {
            if !fold::is_quiet(&alert, quiet, self.now) {
                continue;
            }
            fold::resolve(&mut alert, self.now);
            rows::save_alert(self.tx, &alert)?;
            self.history(alert.id, Action::Resolved, "quiet")?;
            self.applied.resolved += 1;
            self.touch(&alert);
        }
        Ok(())
    }

    /// Marks an alert as changed, for the feed and for who is told.
    pub(super) fn touch(&mut self, alert: &Alert) {
        self.alerts.entry(alert.id).or_insert(false);
        self.incidents.insert(alert.incident);
    }

    /// Brings incidents up to date, fills the outbox and the feed.
    pub(super) fn finish(mut self) -> Result<Applied, StoreError> {
        for id in &self.incidents {
            let Some(mut incident) = load_incident(self.tx, *id)? else {
                continue;
            };
            if incident.merged_into.is_some() {
                continue;
            }
            let sql = format!(
                "SELECT {} FROM alerts WHERE incident = ?1 AND merged_into IS NULL ORDER BY seq",
                rows::ALERT
            );
            let alerts = rows::all(self.tx, &sql, &[(*id).into()], rows::alert)?;
            incident::summary(&mut incident, &alerts, self.now);
            rows::save_incident(self.tx, &incident)?;
            self.applied.enqueued += tell::evaluate(self.tx, self.policy, *id, &alerts, self.now)?;
        }
        for (id, opened) in &self.alerts {
            if let Some(alert) = load_alert(self.tx, *id)? {
                add_feed(self.tx, &alert, self.now, *opened)?;
            }
        }
        Ok(self.applied)
    }
}
