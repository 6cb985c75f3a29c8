//! The words that nodes speak with one another: what is asked of an index, and what it tells.
//!
//! A [`Question`] is an [`Ask`] with the version of these words and the time that `now` means, which is the same for all
//! nodes; a [`Reply`] says whose share it is and holds what was [`Told`], or why not ([`Refusal`]). Both are JSON, with
//! events as their frames in base64, so that originals stay as they are byte for byte. Whoever changes a type of this
//! file, or one that stands in it, raises [`VERSION`]: nodes of different versions refuse one another, since a field
//! that one does not know could be the one that matters.
//!
//! [`Node`] is whoever can be asked. A [`Searcher`] answers by [`Searcher::reply`]; the way there over HTTP is the
//! business of `cli` and `console`.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use event::{Event, Id, Time};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::part::Part;
use crate::aggregate::{Aggregations, Tallies};
use crate::explain::Explanation;
use crate::fields::Sample;
use crate::names::Unknown;
use crate::request::{MAX_BUCKETS, Request, SearchError};
use crate::searcher::Searcher;

/// The version of these words.
pub const VERSION: u32 = 1;
/// Events of one page come to no more than this, as bytes of their originals and envelopes, unless it is one event. Tests
/// meet it with less.
pub(crate) const PAGE_BYTES: usize = if cfg!(test) { 64 << 10 } else { 8 << 20 };
/// So many ids of events are asked for at once.
pub(crate) const MAX_IDS: usize = 1_000;
/// The largest answer that is worth reading, in bytes.
pub const MAX_REPLY: usize = 64 << 20;

/// A question to an index node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The version of the words that it is asked in.
    pub version: u32,
    /// What `now` means in queries.
    pub now: Time,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked of an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// A page of events or findings.
    Page {
        /// The request.
        request: Request,
        /// The page ends early, to be continued, where its events come to so many bytes.
        bytes: usize,
    },
    /// What is counted for aggregations.
    Tally {
        /// The request.
        request: Request,
        /// The aggregations.
        aggs: Aggregations,
    },
    /// A sample of events, for their fields.
    Sample {
        /// The request.
        request: Request,
        /// How many events at most.
        most: usize,
    },
    /// The first and the last time of what there is within the range asked for.
    Edges {
        /// The request.
        request: Request,
    },
    /// How many match in each bar of a histogram.
    Bars {
        /// The request.
        request: Request,
        /// The first time of the first bar.
        from: Time,
        /// The last time of the last bar.
        to: Time,
        /// How many bars.
        buckets: usize,
    },
    /// How a query will be answered.
    Explain {
        /// The request.
        request: Request,
    },
    /// The events with these ids.
    Events {
        /// The ids.
        ids: Vec<Id>,
    },
    /// How the node is.
    State,
}

impl Ask {
    /// The request that it is about, where it is about one.
    pub(super) fn request(&self) -> Option<&Request> {
        match self {
            Ask::Page { request, .. }
            | Ask::Tally { request, .. }
            | Ask::Sample { request, .. }
            | Ask::Edges { request }
            | Ask::Bars { request, .. }
            | Ask::Explain { request } => Some(request),
            Ask::Events { .. } | Ask::State => None,
        }
    }
}

/// What an index node answers.
#[derive(Serialize, Deserialize)]
pub struct Reply {
    /// The version of the words that it answers in.
    pub version: u32,
    /// Its number.
    pub node: u32,
    /// Of how many.
    pub nodes: u32,
    /// What it tells, or why not.
    pub told: Result<Told, Refusal>,
    /// What of the log the splits cover that were asked: partition, first offset, one past the last.
    pub covers: Vec<(u32, u64, u64)>,
}

/// What an index tells; [`super::Nodes`] reads it.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Told(pub(super) Content);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Content {
    Page(Part),
    Tally(Tallies),
    Sample(Sample),
    Edges(Option<(Time, Time)>),
    Bars(Vec<u64>),
    Explain(Explanation, Unknown),
    Events(Found),
    State(State),
}

/// Events that were asked for by their ids.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Found {
    #[serde(with = "frames")]
    pub(super) events: Vec<Event>,
    /// How many of the ids were looked for, the first ones: the rest would have been too much at once.
    pub(super) looked: usize,
}

/// How an index is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// How many splits it has.
    pub splits: u64,
    /// How many events.
    pub events: u64,
    /// The time of the first of them.
    pub earliest: Option<Time>,
    /// The time of the last.
    pub latest: Option<Time>,
}

/// Why an index does not tell what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Counting took longer than so many milliseconds.
    Timeout(u64),
    /// A `date_histogram` has too many buckets.
    Buckets,
    /// The question has another version.
    Version,
    /// It cannot be answered, which its log says more of.
    Failed(String),
}

/// Whoever can be asked about a share of the index.
pub trait Node: Send + Sync {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The node did not answer; why.
    fn ask(&self, question: &Question) -> Result<Reply, Unanswered>;
}

/// Why a node did not answer, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// There is no way to it.
    #[error("cannot be reached ({0}): start it, or mend the way to it")]
    Unreachable(String),
    /// It took too long.
    #[error("did not answer within {0:?}: narrow the time range, or look at its load")]
    Slow(Duration),
    /// It does not know us.
    #[error(
        "does not let this node in: it needs a token with the role `node`, and `search.peers` its `token_file`"
    )]
    Forbidden,
    /// It answers others.
    #[error("is answering too many others: ask again")]
    Busy,
    /// It takes no such questions.
    #[error(
        "takes no questions of other nodes (HTTP {0}): it needs the role `index`, the same version of the program, and the name of this address in its `console.hosts` if that has any"
    )]
    NoIndex(u16),
    /// It speaks another version.
    #[error("has another version of the program: run the same one everywhere")]
    Version,
    /// It is another node than it should be.
    #[error("is node {node} of {nodes}: correct `search.peers`, or `search.node` there")]
    Share {
        /// What it says that it is.
        node: u32,
        /// Of how many.
        nodes: u32,
    },
    /// What it answered makes no sense.
    #[error(
        "gave an answer that cannot be right ({0}): run the same version everywhere, and look at its log"
    )]
    Wrong(String),
    /// It failed.
    #[error("could not answer ({0}): look at its log")]
    Failed(String),
}

impl Unanswered {
    /// One word for it, as metrics have it.
    pub fn kind(&self) -> &'static str {
        match self {
            Unanswered::Unreachable(_) => "unreachable",
            Unanswered::Slow(_) => "slow",
            Unanswered::Forbidden => "forbidden",
            Unanswered::Busy => "busy",
            Unanswered::NoIndex(_) => "no_index",
            Unanswered::Version => "version",
            Unanswered::Share { .. } => "share",
            Unanswered::Wrong(_) => "wrong",
            Unanswered::Failed(_) => "failed",
        }
    }
}

/// All that is read of words before it is known that they can be understood.
#[derive(Deserialize)]
struct Spoken {
    version: u32,
}

impl Reply {
    /// Reads what a node sent.
    ///
    /// # Errors
    /// [`Unanswered::Version`] or [`Unanswered::Wrong`].
    pub fn read(json: &[u8]) -> Result<Reply, Unanswered> {
        let spoken: Result<Spoken, _> = serde_json::from_slice(json);
        match spoken {
            Ok(Spoken { version }) if version != VERSION => Err(Unanswered::Version),
            // What exactly is wrong tells nobody anything, and comes from outside.
            _ => serde_json::from_slice(json)
                .map_err(|e| Unanswered::Wrong(format!("not the JSON of one, at {}", e.column()))),
        }
    }
}

impl Searcher {
    /// Answers another node that sent this question as JSON.
    ///
    /// # Errors
    /// It is no question. One of another version is answered, so that its node knows.
    pub fn reply_to(&self, json: &[u8]) -> Result<Reply, serde_json::Error> {
        let Spoken { version } = serde_json::from_slice(json)?;
        let question = match version {
            VERSION => serde_json::from_slice(json)?,
            version => Question {
                version,
                now: self.now(),
                ask: Ask::State,
            },
        };
        Ok(self.reply(question))
    }

    /// Answers another node.
    pub fn reply(&self, mut question: Question) -> Reply {
        // Whoever asks, an answer has its bounds.
        if let Ask::Page { bytes, .. } = &mut question.ask {
            *bytes = (*bytes).min(PAGE_BYTES);
        }
        let told = match question.version {
            VERSION => self.told(&question.ask, question.now).map_err(refusal),
            _ => Err(Refusal::Version),
        };
        let covers = match told {
            Ok(_) => self.covers(question.ask.request(), question.now),
            Err(_) => Vec::new(),
        };
        Reply {
            version: VERSION,
            node: self.config().node,
            nodes: self.config().nodes,
            covers,
            told: told.map(|mut content| {
                if let Content::Tally(tallies) = &mut content {
                    tallies.bound_for_sending();
                }
                Told(content)
            }),
        }
    }

    /// What of the log the splits cover that a request reaches.
    pub(super) fn covers(&self, request: Option<&Request>, now: Time) -> Vec<(u32, u64, u64)> {
        let Some(request) = request else {
            return Vec::new();
        };
        let Ok(splits) = self.splits(&self.run(request, now)) else {
            return Vec::new();
        };
        let mut all: Vec<(u32, u64, u64)> = splits
            .iter()
            .flat_map(|split| split.meta.offsets.iter().copied())
            .filter(|(_, from, to)| from < to)
            .collect();
        all.sort_unstable();
        let mut joined: Vec<(u32, u64, u64)> = Vec::new();
        for (partition, from, to) in all {
            match joined.last_mut() {
                Some(last) if last.0 == partition && from <= last.2 => last.2 = last.2.max(to),
                _ => joined.push((partition, from, to)),
            }
        }
        joined
    }

    /// What this index tells.
    pub(super) fn told(&self, ask: &Ask, now: Time) -> Result<Content, SearchError> {
        Ok(match ask {
            Ask::Page { request, bytes } => Content::Page(self.part(request, now, *bytes)?),
            Ask::Tally { request, aggs } => {
                // Values that are rare here may be frequent with all others.
                let written = |size| size * 4 + 100;
                Content::Tally(self.tally_at(request, aggs, now, written)?)
            }
            Ask::Sample { request, most } => Content::Sample(self.sample(request, *most, now)?),
            Ask::Edges { request } => Content::Edges(self.edges(request, now)?),
            Ask::Bars {
                request,
                from,
                to,
                buckets,
            } => {
                let buckets = (*buckets).clamp(1, MAX_BUCKETS);
                Content::Bars(self.bars(request, now, (*from, *to), buckets)?)
            }
            Ask::Explain { request } => {
                let (explanation, unknown) = self.explained(request, now)?;
                Content::Explain(explanation, unknown)
            }
            Ask::Events { ids } => Content::Events(self.found(ids)?),
            Ask::State => Content::State(self.state()?),
        })
    }

    fn found(&self, ids: &[Id]) -> Result<Found, SearchError> {
        let mut found = Found::default();
        let mut bytes = 0;
        // Few at a time, so that not much more is loaded than is given.
        for ids in ids.chunks(20) {
            let events = self.events(ids)?;
            bytes += events.iter().map(|e| e.raw.len()).sum::<usize>();
            found.events.extend(events);
            found.looked += ids.len();
            if bytes > PAGE_BYTES {
                break;
            }
        }
        Ok(found)
    }

    pub(super) fn state(&self) -> Result<State, SearchError> {
        let splits = self.catalog().current().map_err(|e| self.error(e))?;
        Ok(State {
            splits: splits.len() as u64,
            events: splits.iter().map(|s| s.meta.events).sum(),
            earliest: splits.iter().map(|s| s.meta.earliest).min(),
            latest: splits.iter().map(|s| s.meta.latest).max(),
        })
    }
}

fn refusal(error: SearchError) -> Refusal {
    match error {
        SearchError::Timeout(after) => {
            Refusal::Timeout(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
        }
        // Whoever asks has looked at everything else that can be wrong with aggregations.
        SearchError::Aggregation(_) => Refusal::Buckets,
        // The path of the index is no business of others.
        SearchError::Index { .. } => Refusal::Failed("its index cannot be read".to_owned()),
        other => Refusal::Failed(other.to_string()),
    }
}

/// What is stored of an event or finding, as base64.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame(pub(crate) Bytes);

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Frame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Frame, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.as_bytes());
        bytes
            .map(|bytes| Frame(bytes.into()))
            .map_err(serde::de::Error::custom)
    }
}

/// Events as frames.
pub(super) mod frames {
    use event::Event;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Frame;

    pub(crate) fn serialize<S: Serializer>(
        events: &[Event],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(events.iter().map(|e| Frame(e.encode().into())))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Event>, D::Error> {
        let frames = Vec::<Frame>::deserialize(deserializer)?;
        let events = frames.iter().map(|Frame(frame)| Event::decode(frame));
        events
            .collect::<Result<_, _>>()
            .map_err(serde::de::Error::custom)
    }
}
