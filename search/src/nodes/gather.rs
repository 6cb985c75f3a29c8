//! Asking all index nodes at the same time, and saying what is missing.
//!
//! [`Nodes::all`] asks the index of this process on the thread that asks, and every other node on one of its own. What a
//! node tells counts only if it has the right version, is the node that it should be, and makes sense to whoever asked;
//! else the node is missing, with the words for why. Questions that nobody can answer (too much to count) are errors and
//! no absences. Where the splits of two nodes cover the same stretch of the log, [`All::twice`] says so.

use std::time::{Duration, Instant};

use event::Time;

use super::ask::{Ask, Content, Question, Refusal, Reply, Told, Unanswered, VERSION};
use super::{Nodes, Other};
use crate::aggregate::Tallies;
use crate::request::SearchError;

/// Of the words of another node no more is told, in characters.
const MAX_WORDS: usize = 200;

/// What nodes told, and what there is to say of those that did not.
pub(super) struct All<T> {
    /// With the words for whose it is; empty if there is one node only.
    pub(super) parts: Vec<(String, T)>,
    missing: Vec<String>,
    /// May events stand on more than one node, so that counts are too high?
    pub(super) twice: bool,
}

impl<T> All<T> {
    /// Why this is not everything, where it is not.
    pub(super) fn partial(&self) -> Option<String> {
        (!self.missing.is_empty()).then(|| self.missing.join("; "))
    }

    /// The same of counts, which are also wrong where events count twice.
    pub(super) fn miscounted(&self) -> Option<String> {
        let twice = self.twice.then(|| TWICE.to_owned());
        and(self.partial(), twice)
    }

    /// Counts of all of it, or nothing.
    pub(super) fn whole(self) -> Result<Vec<T>, SearchError> {
        match self.miscounted() {
            None => Ok(self.parts.into_iter().map(|(_, part)| part).collect()),
            Some(why) => Err(SearchError::Missing(why)),
        }
    }
}

/// Two reasons why something is not whole.
pub(super) fn and(one: Option<String>, other: Option<String>) -> Option<String> {
    match (one, other) {
        (Some(one), Some(other)) => Some(format!("{one}; {other}")),
        (one, other) => one.or(other),
    }
}

/// A reason with the node that gave it.
pub(super) fn said(name: &str, why: Option<String>) -> Option<String> {
    why.map(|why| match name {
        "" => why,
        name => format!("{name}: {why}"),
    })
}

impl Nodes {
    /// Asks all nodes at the same time. `take` takes out what was asked for, or says what is wrong with it.
    pub(super) fn all<T: Send>(
        &self,
        ask: Ask,
        now: Time,
        take: impl Fn(Content) -> Result<T, &'static str> + Sync,
    ) -> Result<All<T>, SearchError> {
        let own = || {
            let own = self.0.own.as_ref()?;
            let told = own.told(&ask, now);
            // Its own index answers what it is asked.
            Some(told.and_then(|c| take(c).map_err(|why| SearchError::Cut(why.to_owned()))))
        };
        if self.is_one()
            && let Some(told) = own()
        {
            return Ok(All {
                parts: vec![(String::new(), told?)],
                missing: Vec::new(),
                twice: false,
            });
        }
        let question = Question {
            version: VERSION,
            now,
            ask: ask.clone(),
        };
        let (own, others) = std::thread::scope(|scope| {
            let (question, take) = (&question, &take);
            let ask_one = |other| scope.spawn(move || self.one(other, question, take));
            let asked: Vec<_> = self.0.others.iter().map(ask_one).collect();
            let own = own();
            let others: Vec<Result<(T, Covers), Missing>> = asked
                .into_iter()
                .map(|thread| {
                    let failed = || Missing::Node(Unanswered::Failed("a defect".to_owned()));
                    thread.join().unwrap_or_else(|_| Err(failed()))
                })
                .collect();
            (own, others)
        });
        let mut all = All {
            parts: Vec::new(),
            missing: Vec::new(),
            twice: false,
        };
        let mut covers = Covers::new();
        let (node, nodes) = self.share();
        match own {
            None => {}
            Some(Ok(part)) => {
                if let Some(own) = &self.0.own {
                    covers.extend(own.covers(ask.request(), now));
                }
                let name = format!("index node {node}, this one");
                all.parts.push((name, part));
            }
            Some(Err(SearchError::Index { path, source })) => {
                all.missing.push(format!(
                    "index node {node}, this one, cannot read its index: look at its log"
                ));
                // With nothing else to tell it is what there is to say.
                if self.0.others.is_empty() {
                    return Err(SearchError::Index { path, source });
                }
            }
            Some(Err(error)) => return Err(error),
        }
        for (other, told) in self.0.others.iter().zip(others) {
            let name = format!("index node {} ({})", other.node, other.name);
            match told {
                Ok((part, covered)) => {
                    covers.extend(covered);
                    all.parts.push((name, part));
                }
                Err(Missing::Node(why)) => all.missing.push(format!("{name} {why}")),
                Err(Missing::Question(error)) => return Err(error),
            }
        }
        for node in &self.0.unasked {
            all.missing.push(format!(
                "index node {node} of {nodes} is not asked: `search.peers` does not name it"
            ));
        }
        if all.parts.is_empty() {
            return Err(SearchError::Missing(all.missing.join("; ")));
        }
        covers.sort_unstable();
        let overlap = |pair: &[(u32, u64, u64)]| pair[0].0 == pair[1].0 && pair[1].1 < pair[0].2;
        all.twice = covers.windows(2).any(overlap);
        Ok(all)
    }

    /// Asks one other node, and counts what came of it.
    pub(super) fn one<T>(
        &self,
        other: &Other,
        question: &Question,
        take: impl Fn(Content) -> Result<T, &'static str>,
    ) -> Result<(T, Covers), Missing> {
        let start = Instant::now();
        let away = match question.ask {
            Ask::State => None,
            _ => self.away(other.node),
        };
        let told = match away {
            Some(why) => Err(Missing::Node(why)),
            None => other.way.ask(question).map_err(Missing::Node),
        };
        let told = told.and_then(|reply| self.read(other.node, reply, take));
        let metrics = &self.0.metrics;
        let node = other.node.to_string();
        let outcome = match &told {
            Ok(_) | Err(Missing::Question(_)) => "answered",
            Err(Missing::Node(why)) => why.kind(),
        };
        metrics
            .node_asks
            .with_label_values(&[node.as_str(), outcome])
            .inc();
        let took = start.elapsed().as_secs_f64();
        let seconds = metrics.node_seconds.with_label_values(&[node.as_str()]);
        seconds.observe(took);
        told
    }

    /// What a node says, if it is the right one and it makes sense.
    fn read<T>(
        &self,
        node: u32,
        reply: Reply,
        take: impl Fn(Content) -> Result<T, &'static str>,
    ) -> Result<(T, Covers), Missing> {
        if reply.version != VERSION {
            return Err(Missing::Node(Unanswered::Version));
        }
        if (reply.node, reply.nodes) != (node, self.0.config.nodes) {
            return Err(Missing::Node(Unanswered::Share {
                node: reply.node,
                nodes: reply.nodes,
            }));
        }
        match reply.told {
            Ok(Told(content)) => match take(content) {
                Ok(part) => Ok((part, reply.covers)),
                Err(why) => Err(Missing::Node(Unanswered::Wrong(why.to_owned()))),
            },
            Err(Refusal::Timeout(ms)) => Err(Missing::Question(SearchError::Timeout(
                Duration::from_millis(ms),
            ))),
            Err(Refusal::Buckets) => Err(Missing::Question(Tallies::too_many_times())),
            Err(Refusal::Version) => Err(Missing::Node(Unanswered::Version)),
            Err(Refusal::Failed(why)) => {
                // Words from outside, which people will read.
                let why: String = why.chars().take(MAX_WORDS).collect();
                let why = event::inert::text(&why).to_string();
                Err(Missing::Node(Unanswered::Failed(why)))
            }
        }
    }
}

/// What a reply says of the log.
pub(super) type Covers = Vec<(u32, u64, u64)>;

/// What is wrong with counts of what two nodes have.
const TWICE: &str = "some events stand on more than one index node since `search.nodes` was changed, and count twice";

/// What is wrong with an answer to another question.
pub(super) const OTHER: &str = "an answer to another question";

/// Why there is nothing of a node.
pub(super) enum Missing {
    /// It did not answer.
    Node(Unanswered),
    /// Nobody can answer this question.
    Question(SearchError),
}
