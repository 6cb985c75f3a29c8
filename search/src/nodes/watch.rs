//! Which index nodes answer, and how far each is behind the log: looked at from time to time, for people and for metrics.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use bus::{Bus, Offset, Topic};
use event::Time;
use serde::Serialize;

use super::Nodes;
use super::ask::{Ask, Content, Question, State, Unanswered, VERSION};
use super::gather::{Missing, OTHER};
use crate::indexer::CONSUMER;

/// What was last seen of another node.
#[derive(Default)]
pub(super) struct Seen {
    state: Option<State>,
    missing: Option<(Time, String)>,
    /// Why it was away each time that it was looked at of late, and how often that was.
    away: Option<(Unanswered, u32)>,
    /// Records that it has not indexed yet.
    records: u64,
    /// The age of the oldest of them, in seconds.
    seconds: f64,
}

/// A node that was away so often in a row is not waited for by searches until it has been seen again.
const AWAY: u32 = 2;

/// Behind by more than this, in seconds, is said with every answer.
const BEHIND: f64 = 300.0;

/// An index node, as it is seen from here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    /// Its number.
    pub node: u32,
    /// Of how many.
    pub nodes: u32,
    /// What it is known by.
    pub name: String,
    /// Does it answer?
    pub answers: bool,
    /// Since when it does not.
    pub missing_since: Option<Time>,
    /// Why it does not.
    pub why: Option<String>,
    /// How it is, as it said last.
    pub state: Option<State>,
    /// Records of its partitions that it has not indexed yet.
    pub records: u64,
    /// The age of the oldest of them, in seconds; 0 where there is none.
    pub seconds: f64,
}

impl Nodes {
    /// Asks every other node how it is. Says in the log when one goes missing or comes back.
    pub fn look(&self) {
        let question = Question {
            version: VERSION,
            now: self.now(),
            ask: Ask::State,
        };
        std::thread::scope(|scope| {
            for other in &self.0.others {
                let question = &question;
                scope.spawn(move || {
                    let told = self.one(other, question, |content| match content {
                        Content::State(state) => Ok(state),
                        _ => Err(OTHER),
                    });
                    let told = match told {
                        Ok((state, _)) => Ok(state),
                        Err(Missing::Node(why)) => Err(why),
                        Err(Missing::Question(why)) => Err(Unanswered::Failed(why.to_string())),
                    };
                    self.saw(other.node, &other.name, told);
                });
            }
        });
    }

    /// Looks how far each share of the log is indexed.
    pub fn measure(&self, bus: &dyn Bus) {
        let Ok(progress) = bus.progress() else {
            return;
        };
        let index = progress.into_iter().filter(|p| p.consumer == CONSUMER);
        let positions: BTreeMap<u32, Offset> = index
            .filter(|p| p.topic == Topic::Events)
            .map(|p| (p.partition, p.next))
            .collect();
        let (now, nodes) = (self.now(), self.share().1);
        let mut behind: BTreeMap<u32, (u64, f64)> = (0..nodes).map(|n| (n, (0, 0.0))).collect();
        for partition in 0..bus.partitions(Topic::Events) {
            let bounds = bus.bounds(Topic::Events, partition).unwrap_or(0..0);
            let at = positions.get(&partition).copied().unwrap_or(bounds.start);
            if at >= bounds.end {
                continue;
            }
            let from = at.max(bounds.start);
            let oldest = bus.read(Topic::Events, partition, from, 0).ok();
            let oldest = oldest.and_then(|b| b.records.first().map(|(_, r)| r.time));
            let age = oldest.map_or(0.0, |time| (now.0 - time.0).max(0) as f64 / 1e6);
            let (records, seconds) = behind.entry(partition % nodes).or_default();
            *records += bounds.end - from;
            *seconds = seconds.max(age);
        }
        let mut all = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, (records, seconds)) in behind {
            let seen = all.entry(node).or_default();
            (seen.records, seen.seconds) = (records, seconds);
        }
    }

    /// A sentence for each share that is far behind the log: what came in of late is not found there yet.
    pub(super) fn behind(&self) -> Vec<String> {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let far = seen.iter().filter(|(_, seen)| seen.seconds > BEHIND);
        far.map(|(node, seen)| {
            format!(
                "index node {node} is {:.0} minutes behind: of what has come in since then, {} records of its share are not found yet",
                seen.seconds / 60.0,
                seen.records
            )
        })
        .collect()
    }

    fn saw(&self, node: u32, name: &str, told: Result<State, Unanswered>) {
        let up = self
            .0
            .metrics
            .node_up
            .with_label_values(&[&node.to_string()]);
        up.set(i64::from(told.is_ok()));
        let mut all = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(node).or_default();
        match told {
            Ok(state) => {
                if seen.missing.take().is_some() {
                    tracing::info!(node, name, "index node answers again");
                }
                seen.state = Some(state);
                seen.away = None;
            }
            Err(why) => {
                // Only these keep people waiting.
                seen.away = match why {
                    Unanswered::Slow(_) | Unanswered::Unreachable(_) => {
                        let times = seen.away.take().map_or(0, |(_, times)| times);
                        Some((why.clone(), times.saturating_add(1)))
                    }
                    _ => None,
                };
                let why = why.to_string();
                let since = match seen.missing.take() {
                    Some((since, _)) => since,
                    None => {
                        tracing::warn!(node, name, why, "index node is missing");
                        self.now()
                    }
                };
                seen.missing = Some((since, why));
            }
        }
    }

    /// Why a node need not be asked: it was away each time that it was looked at of late.
    pub(super) fn away(&self, node: u32) -> Option<Unanswered> {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (why, times) = seen.get(&node)?.away.as_ref()?;
        (*times >= AWAY).then(|| why.clone())
    }

    /// All index nodes there should be, as they were seen last. Empty where one index is all there is.
    pub fn shares(&self) -> Vec<Share> {
        if self.0.config.nodes == 1 && self.0.others.is_empty() {
            return Vec::new();
        }
        let (own, nodes) = self.share();
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let share = |node: u32| {
            let mut share = Share {
                node,
                nodes,
                name: String::new(),
                answers: false,
                missing_since: None,
                why: None,
                state: None,
                records: seen.get(&node).map_or(0, |seen| seen.records),
                seconds: seen.get(&node).map_or(0.0, |seen| seen.seconds),
            };
            if let Some(other) = self.0.others.iter().find(|o| o.node == node) {
                share.name = other.name.clone();
                match seen.get(&node) {
                    Some(seen) if seen.missing.is_some() || seen.state.is_some() => {
                        share.answers = seen.missing.is_none();
                        share.missing_since = seen.missing.as_ref().map(|(since, _)| *since);
                        share.why = seen.missing.as_ref().map(|(_, why)| why.clone());
                        share.state = seen.state.clone();
                    }
                    _ => share.why = Some("has not been asked yet".to_owned()),
                }
            } else if let Some(searcher) = self.own().filter(|_| node == own) {
                share.name = "this node".to_owned();
                match searcher.state() {
                    Ok(state) => (share.answers, share.state) = (true, Some(state)),
                    Err(_) => share.why = Some("cannot read its index".to_owned()),
                }
            } else {
                share.why = Some("is not asked: `search.peers` does not name it".to_owned());
            }
            share
        };
        (0..nodes).map(share).collect()
    }
}
