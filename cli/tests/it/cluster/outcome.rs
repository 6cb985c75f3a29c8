//! What is left in the end, in a form that does not depend on who did what when.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bus::{Bus, Topic};
use event::Finding;
use serde_json::{Value, json};

use super::nodes::get;
use crate::program::{PATIENCE, Received};

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Source id and account to the raw record.
    events: BTreeMap<String, String>,
    /// Episode of a correlation to times, count, evidence.
    pub(super) episodes: BTreeMap<String, String>,
    /// Rule, who, where and when to what an alert says. The id of a folded alert is that of whichever of its findings
    /// came first, so it is left out.
    pub(super) alerts: BTreeMap<String, String>,
    /// The alerts of an incident, to how often the receiver was told of its opening and the worst severity told.
    told: BTreeMap<BTreeSet<String>, Vec<String>>,
    /// Alert to incident, and incident to what it became part of.
    incidents: BTreeMap<String, BTreeSet<String>>,
}

/// How what was told is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The same messages: where all was in before anybody was told.
    Exactly,
    /// Every incident, up to its severity, and nothing else: in between it depends on what came first.
    InTheEnd,
}

fn pages(address: SocketAddr, path: &str, list: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = get(address, &format!("{path}{cursor}")).unwrap();
        assert!(answer["partial"].is_null(), "{}", answer["partial"]);
        all.extend(answer[list].as_array().unwrap().iter().cloned());
        match answer["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

impl Outcome {
    /// The events that a node finds, its own and those of other index nodes.
    pub(super) fn take_events(&mut self, node: SocketAddr) {
        for hit in pages(node, "/api/v1/search?q=source:aws.*&limit=1000", "hits") {
            let id = format!("{} {}", hit["account"], hit["id"]);
            let raw = hit["raw"].to_string();
            assert!(
                self.events.insert(id.clone(), raw).is_none(),
                "{id} is indexed twice"
            );
        }
    }

    /// The alerts, by any node that has them.
    pub(super) fn take_alerts(&mut self, api: SocketAddr) {
        for alert in pages(api, "/api/v1/alerts?state=all&limit=500", "alerts") {
            let finding = &alert["finding"];
            let correlation = alert["group"].as_object().is_some_and(|g| !g.is_empty());
            let key = if correlation {
                format!("{} {}", alert["title"], finding["episode"])
            } else {
                format!(
                    "{} {} {} {} {}",
                    alert["title"],
                    alert["account"],
                    alert["actor"],
                    finding["function"],
                    finding["first_event_time"]
                )
            };
            let said = json!({
                "count": alert["count"], "severity": alert["severity"], "state": alert["state"],
                "last": finding["last_event_time"], "events": finding["event_ids"],
            });
            let incident = alert["incident"].as_str().unwrap().to_owned();
            self.incidents
                .entry(incident)
                .or_default()
                .insert(key.clone());
            let before = self.alerts.insert(key.clone(), said.to_string());
            assert!(
                before.is_none(),
                "two alerts of one: {key}\n{}\n{said}",
                before.unwrap_or_default()
            );
        }
    }

    /// Waits until nothing is left to send, and takes what was sent. Nobody is told before `group_wait` seconds have passed.
    pub(super) fn wait_told(&mut self, api: SocketAddr, received: &Received, group_wait: u64) {
        let begin = Instant::now();
        let patience = PATIENCE + Duration::from_secs(group_wait);
        let waiting = |delivery: &str| {
            let answer = get(api, &format!("/api/v1/notifications?delivery={delivery}")).unwrap();
            !answer["notifications"].as_array().unwrap().is_empty()
        };
        loop {
            let told: BTreeSet<String> = received
                .lock()
                .unwrap()
                .iter()
                .map(|(_, body)| body["incident"]["id"].as_str().unwrap().to_owned())
                .collect();
            let missing = self.incidents.keys().filter(|i| !told.contains(*i)).count();
            if missing == 0 && !waiting("pending") && !waiting("ambiguous") {
                break;
            }
            assert!(
                begin.elapsed() < patience,
                "nobody was told of {missing} incidents"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        let mut by_key: BTreeMap<String, Value> = BTreeMap::new();
        for (key, body) in received.lock().unwrap().iter() {
            let mut said = body.clone();
            // When it was sent is all that an attempt may change.
            said["time"] = Value::Null;
            let first = by_key.entry(key.clone()).or_insert_with(|| said.clone());
            assert_eq!(
                first["reason"], said["reason"],
                "one key, two messages: {key}"
            );
            assert_eq!(first["incident"]["id"], said["incident"]["id"], "{key}");
        }
        for body in by_key.values() {
            let incident = body["incident"]["id"].as_str().unwrap();
            // Incidents that became part of another one have no alerts any more.
            let alerts = self.incidents.get(incident).cloned().unwrap_or_default();
            self.told
                .entry(alerts)
                .or_default()
                .push(format!("{} {}", body["reason"], body["severity"]));
        }
    }

    /// The last word on every episode of a correlation.
    pub(super) fn take_episodes(&mut self, bus: &dyn Bus) {
        let mut last: BTreeMap<event::Id, Finding> = BTreeMap::new();
        for finding in findings(bus) {
            if finding.episodic {
                let known = last.get(&finding.id).map(|f| f.revision);
                if known.is_none_or(|revision| finding.revision >= revision) {
                    last.insert(finding.id, finding);
                }
            }
        }
        for finding in last.into_values().filter(|f| f.merged_into.is_none()) {
            let said = json!({
                "rule": finding.rule_id, "first": finding.first_event_time, "last": finding.last_event_time,
                "time": finding.time, "count": finding.count, "events": finding.event_ids, "group": finding.group,
            });
            let episode = finding.episode.to_string();
            let before = self.episodes.insert(episode.clone(), said.to_string());
            assert!(before.is_none(), "two findings of one episode: {episode}");
        }
    }

    /// How much there is.
    pub(super) fn counts(&self) -> String {
        format!(
            "{} events, {} episodes, {} alerts, {} incidents, {} messages",
            self.events.len(),
            self.episodes.len(),
            self.alerts.len(),
            self.incidents.len(),
            self.told.values().map(Vec::len).sum::<usize>()
        )
    }

    /// Fails with every difference.
    pub(super) fn assert_same(&self, other: &Outcome, told: Told) {
        let mut differences = Vec::new();
        differences.extend(difference("event", &self.events, &other.events));
        differences.extend(difference("episode", &self.episodes, &other.episodes));
        differences.extend(difference("alert", &self.alerts, &other.alerts));
        let incidents = |o: &Outcome| -> BTreeMap<BTreeSet<String>, ()> {
            o.incidents.values().map(|a| (a.clone(), ())).collect()
        };
        differences.extend(difference("incident", &incidents(self), &incidents(other)));
        let said = |o: &Outcome| -> BTreeMap<BTreeSet<String>, Vec<String>> {
            let of = o.told.iter().filter(|(alerts, _)| !alerts.is_empty());
            of.map(|(alerts, words)| {
                let mut words = words.clone();
                words.sort();
                if told == Told::InTheEnd {
                    // Told of at all; of how bad it became is held by the alerts.
                    words = vec![(!words.is_empty()).to_string()];
                }
                (alerts.clone(), words)
            })
            .collect()
        };
        differences.extend(difference("notification", &said(self), &said(other)));
        let many = differences.len();
        differences.truncate(20);
        assert!(
            differences.is_empty(),
            "{many} differences\n{}\n{}\n{}",
            self.counts(),
            other.counts(),
            differences.join("\n")
        );
    }
}

/// All findings on the log, partition by partition.
pub(super) fn findings(bus: &dyn Bus) -> Vec<Finding> {
    let mut all = Vec::new();
    for partition in 0..bus.partitions(Topic::Findings) {
        let bounds = bus.bounds(Topic::Findings, partition).unwrap();
        let mut next = bounds.start;
        while next < bounds.end {
            let batch = bus.read(Topic::Findings, partition, next, 4 << 20).unwrap();
            next = batch.next;
            all.extend(
                batch
                    .records
                    .iter()
                    .map(|(_, r)| serde_json::from_slice::<Finding>(&r.value).unwrap()),
            );
        }
    }
    all
}

/// Rule and id of every finding.
pub(super) fn finding_ids(bus: &dyn Bus) -> BTreeSet<(String, event::Id)> {
    findings(bus)
        .into_iter()
        .map(|f| (f.rule_id.to_string(), f.id))
        .collect()
}

fn difference<K: Ord + Debug, T: Debug + PartialEq>(
    what: &str,
    one: &BTreeMap<K, T>,
    other: &BTreeMap<K, T>,
) -> Vec<String> {
    let keys: BTreeSet<&K> = one.keys().chain(other.keys()).collect();
    keys.into_iter()
        .filter(|k| one.get(*k) != other.get(*k))
        .map(|k| {
            format!(
                "{what} {k:?}:\n    alone    {:?}\n    together {:?}",
                one.get(k),
                other.get(k)
            )
        })
        .collect()
}
