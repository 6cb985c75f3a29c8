//! Which index nodes answer: asked from time to time, for people and for metrics.

use std::sync::PoisonError;

use event::Time;
use serde::Serialize;

use super::ask::{Ask, Content, Question, State, VERSION};
use super::{Missing, Nodes};

/// What was last seen of another node.
#[derive(Default)]
pub(super) struct Seen {
    state: Option<State>,
    missing: Option<(Time, String)>,
}

/// An index node, as it is seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
                        _ => Err(super::OTHER),
                    });
                    let why = match told {
                        Ok(state) => {
                            self.saw(other.node, &other.name, Ok(state));
                            return;
                        }
                        Err(Missing::Node(why)) => why.to_string(),
                        Err(Missing::Question(why)) => why.to_string(),
                    };
                    self.saw(other.node, &other.name, Err(why));
                });
            }
        });
    }

    fn saw(&self, node: u32, name: &str, told: Result<State, String>) {
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
            }
            Err(why) => {
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
            };
            if let Some(other) = self.0.others.iter().find(|o| o.node == node) {
                share.name = other.name.clone();
                match seen.get(&node) {
                    None => share.why = Some("has not been asked yet".to_owned()),
                    Some(seen) => {
                        share.answers = seen.missing.is_none();
                        share.missing_since = seen.missing.as_ref().map(|(since, _)| *since);
                        share.why = seen.missing.as_ref().map(|(_, why)| why.clone());
                        share.state = seen.state.clone();
                    }
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
