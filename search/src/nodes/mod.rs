//! One search over all index nodes, each of which has its share of the partitions.
//!
//! [`Nodes`] asks the index of this process and that of every other node at the same time ([`Node`]), and merges what they
//! tell: pages by time and id, each id once; totals, counts and bars added; samples of fields to one sample. With one
//! index it is nothing but that index. A node that does not answer, answers too late, is another one than it should be or
//! tells what cannot be right is *missing*: [`Answer::partial`] names it with what to do, there is no total, and what
//! cannot be given in part ([`Nodes::walk`], [`Nodes::histogram`]) fails. An event that is not found is only then not
//! there if all were asked ([`Nodes::event`]). No answer of a part is ever given as the whole.
//!
//! What is asked further of an index is made of these questions and stands beside them: `walk` and `investigate`.
//! [`Nodes::look`] and [`Nodes::measure`] are called from time to time, so that people see which node is away or behind
//! before they search.

mod ask;
mod gather;
mod part;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use event::{Clock, Event, Id, Time};

use crate::aggregate::{self, Aggregated, Aggregations, Tallies};
use crate::config::Config;
use crate::counting::{bars, edges};
use crate::explain::Explanation;
use crate::fields::FieldStats;
use crate::metrics::Metrics;
use crate::request::{Answer, Bucket, MAX_BUCKETS, Request, SearchError};
use crate::searcher::Searcher;

pub use ask::{Ask, MAX_REPLY, Node, Question, Refusal, Reply, State, Told, Unanswered, VERSION};
use ask::{Content, MAX_IDS};
pub(crate) use ask::{Frame, PAGE_BYTES};
use gather::{OTHER, and, said};
pub(crate) use part::Part;
use watch::Seen;
pub use watch::Share;

/// All that can be searched from here. Cheap to clone.
#[derive(Clone)]
pub struct Nodes(Arc<Inner>);

struct Inner {
    own: Option<Searcher>,
    others: Vec<Other>,
    /// Shares that nobody can be asked for.
    unasked: Vec<u32>,
    config: Config,
    metrics: Metrics,
    clock: Clock,
    seen: Mutex<BTreeMap<u32, Seen>>,
}

/// Another node.
pub struct Other {
    /// Its number.
    pub node: u32,
    /// What people know it by, such as its address.
    pub name: String,
    /// The way to it.
    pub way: Arc<dyn Node>,
}

impl From<Searcher> for Nodes {
    /// One index, whatever its share is.
    fn from(own: Searcher) -> Nodes {
        Nodes(Arc::new(Inner {
            others: Vec::new(),
            unasked: Vec::new(),
            config: Config {
                nodes: 1,
                node: 0,
                ..own.config().clone()
            },
            metrics: own.metrics().clone(),
            clock: own.clock(),
            own: Some(own),
            seen: Mutex::default(),
        }))
    }
}

impl Nodes {
    /// The index of this process, if it has one, and those of other nodes. Shares of `config.nodes` that are not among
    /// them are missing in every answer.
    pub fn new(
        own: Option<Searcher>,
        others: Vec<Other>,
        config: &Config,
        metrics: Metrics,
        clock: Clock,
    ) -> Nodes {
        let is_asked = |node: &u32| {
            own.is_some() && *node == config.node || others.iter().any(|o| o.node == *node)
        };
        let unasked = (0..config.nodes).filter(|node| !is_asked(node)).collect();
        Nodes(Arc::new(Inner {
            own,
            others,
            unasked,
            config: config.clone(),
            metrics,
            clock,
            seen: Mutex::default(),
        }))
    }

    /// The index of this process.
    pub fn own(&self) -> Option<&Searcher> {
        self.0.own.as_ref()
    }

    /// The number of this node, and of how many.
    pub fn share(&self) -> (u32, u32) {
        (self.0.config.node, self.0.config.nodes)
    }

    pub(crate) fn max_limit(&self) -> usize {
        self.0.config.max_limit
    }

    pub(crate) fn now(&self) -> Time {
        (self.0.clock)()
    }

    /// Is there one index and no other?
    fn is_one(&self) -> bool {
        self.0.others.is_empty() && self.0.unasked.is_empty()
    }

    /// Answers a request.
    ///
    /// # Errors
    /// The request is wrong; or no index can be asked at all.
    pub fn search(&self, request: &Request) -> Result<Answer, SearchError> {
        let bytes = match self.is_one() {
            true => usize::MAX,
            false => PAGE_BYTES,
        };
        self.page(request, self.now(), bytes)
    }

    /// A page whose events come to so many bytes at most, unless it is one event.
    pub(crate) fn page(
        &self,
        request: &Request,
        now: Time,
        bytes: usize,
    ) -> Result<Answer, SearchError> {
        let start = Instant::now();
        request.checked(self.max_limit())?;
        let ask = Ask::Page {
            request: request.clone(),
            bytes,
        };
        let one = self.is_one();
        let all = self.all(ask, now, |content| match content {
            Content::Page(part) if one => Ok(part),
            Content::Page(part) => part.check(request).map(|()| part),
            _ => Err(OTHER),
        })?;
        let (missing, twice) = (all.partial(), all.twice);
        let parts = all.parts.into_iter().map(|(name, mut part)| {
            part.partial = said(&name, part.partial);
            part
        });
        let mut part = match one {
            true => parts.last().unwrap_or_default(),
            false => part::merge(parts.collect(), request),
        };
        if twice {
            part.total = None;
            part.repeated = true;
        }
        if missing.is_some() {
            part.total = None;
            // Whoever is missing may know the field.
            part.unknown = crate::names::Unknown::default();
            part.partial = and(missing, part.partial);
        }
        let mut answer = part.answer(request.kind);
        if request.after.is_none() {
            answer.notes.extend(self.behind());
        }
        answer.took = start.elapsed();
        Ok(answer)
    }

    /// Counts what matches: the request's query, time range and kind. Its page is not looked at.
    ///
    /// # Errors
    /// The request or the aggregations are wrong; or no index can be asked at all.
    pub fn aggregate(
        &self,
        request: &Request,
        aggs: &Aggregations,
    ) -> Result<Aggregated, SearchError> {
        let start = Instant::now();
        aggregate::check(aggs).map_err(SearchError::Aggregation)?;
        request.checked(self.max_limit())?;
        let ask = Ask::Tally {
            request: request.clone(),
            aggs: aggs.clone(),
        };
        let all = self.all(ask, self.now(), |content| match content {
            Content::Tally(tallies) if tallies.fit(aggs) => Ok(tallies),
            _ => Err(OTHER),
        })?;
        let mut partial = all.miscounted();
        let mut merged: Option<Tallies> = None;
        for (name, mut tallies) in all.parts {
            partial = and(partial, said(&name, tallies.partial.take()));
            match &mut merged {
                None => merged = Some(tallies),
                Some(merged) => merged.merge(tallies),
            }
        }
        let merged = merged.unwrap_or_default();
        merged.check_times()?;
        let mut aggregated = merged.finish(aggs);
        aggregated.partial = partial;
        aggregated.took = start.elapsed();
        Ok(aggregated)
    }

    /// The fields of what matches, from a sample of at most `most` events (or findings).
    ///
    /// # Errors
    /// The request is wrong; or no index can be asked at all.
    pub fn fields(&self, request: &Request, most: usize) -> Result<FieldStats, SearchError> {
        request.checked(self.max_limit())?;
        let ask = Ask::Sample {
            request: request.clone(),
            most,
        };
        let all = self.all(ask, self.now(), |content| match content {
            Content::Sample(sample) => Ok(sample),
            _ => Err(OTHER),
        })?;
        let mut partial = all.miscounted();
        let mut samples = Vec::new();
        for (name, mut sample) in all.parts {
            partial = and(partial, said(&name, sample.partial.take()));
            samples.push(sample);
        }
        let mut stats = FieldStats::of(samples, request.kind, most);
        stats.partial = partial;
        Ok(stats)
    }

    /// How many match over time, in `buckets` bars between the request's times, or those of what there is.
    ///
    /// # Errors
    /// [`SearchError::Timeout`] and [`SearchError::Missing`]: a count of a part would mislead.
    pub fn histogram(&self, request: &Request, buckets: usize) -> Result<Vec<Bucket>, SearchError> {
        if buckets > MAX_BUCKETS {
            return Err(SearchError::Limit {
                asked: buckets,
                allowed: MAX_BUCKETS,
            });
        }
        request.checked(self.max_limit())?;
        let now = self.now();
        let range = match request.from.zip(request.to) {
            Some(_) => edges(request, None),
            None => {
                let ask = Ask::Edges {
                    request: request.clone(),
                };
                let mut all = self.all(ask, now, |content| match content {
                    Content::Edges(edges) => Ok(edges),
                    _ => Err(OTHER),
                })?;
                all.twice = false;
                let known = all.whole()?.into_iter().flatten();
                known.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
            }
        };
        let Some((from, to)) = range.filter(|_| buckets > 0) else {
            return Ok(Vec::new());
        };
        let mut bars = bars(from, to, buckets);
        let ask = Ask::Bars {
            request: request.clone(),
            from,
            to,
            buckets,
        };
        let all = self.all(ask, now, |content| match content {
            Content::Bars(counts) if counts.len() == bars.len() => Ok(counts),
            _ => Err(OTHER),
        })?;
        for counts in all.whole()? {
            for (bar, count) in bars.iter_mut().zip(counts) {
                bar.count += count;
            }
        }
        Ok(bars)
    }

    /// Tells how a request will be understood and answered.
    ///
    /// # Errors
    /// The request is wrong; or no index can be asked at all.
    pub fn explain(&self, request: &Request) -> Result<Explanation, SearchError> {
        request.checked(self.max_limit())?;
        let ask = Ask::Explain {
            request: request.clone(),
        };
        let all = self.all(ask, self.now(), |content| match content {
            Content::Explain(explanation, unknown) => Ok((explanation, unknown)),
            _ => Err(OTHER),
        })?;
        let missing = all.partial();
        let merged = all.parts.into_iter().map(|(_, part)| part).reduce(
            |(mut sum, unknown), (more, fields)| {
                sum.splits += more.splits;
                sum.of_splits += more.of_splits;
                sum.events += more.events;
                (sum, unknown.and(fields))
            },
        );
        let (mut explanation, unknown) = merged.unwrap_or_default();
        if missing.is_none() {
            explanation.notes = unknown.words(request.kind);
        }
        explanation.partial = missing;
        Ok(explanation)
    }

    /// The events with these ids, in their order, and why some that are left out may be there all the same.
    ///
    /// # Errors
    /// No index can be asked at all.
    pub fn events(&self, ids: &[Id]) -> Result<(Vec<Event>, Option<String>), SearchError> {
        let mut found: HashMap<Id, Event> = HashMap::new();
        let mut missing: Option<String> = None;
        for ids in ids.chunks(MAX_IDS) {
            let mut left = ids.to_vec();
            // A node looks for as many as it can give at once: at least for one.
            while !left.is_empty() {
                let ask = Ask::Events { ids: left.clone() };
                let all = self.all(ask, self.now(), |content| match content {
                    Content::Events(found)
                        if (1..=left.len()).contains(&found.looked)
                            && found.events.iter().all(|e| left.contains(&e.id)) =>
                    {
                        Ok(found)
                    }
                    _ => Err(OTHER),
                })?;
                missing = missing.or(all.partial());
                let looked = all.parts.iter().map(|(_, f)| f.looked).min();
                let events = all.parts.into_iter().flat_map(|(_, f)| f.events);
                events.for_each(|event| {
                    found.insert(event.id, event);
                });
                left.drain(..looked.unwrap_or(left.len()));
            }
        }
        let events: Vec<Event> = ids.iter().filter_map(|id| found.get(id).cloned()).collect();
        let complete = events.len() == ids.len();
        Ok((events, missing.filter(|_| !complete)))
    }

    /// The event with this id; `None` if it is nowhere.
    ///
    /// # Errors
    /// [`SearchError::Missing`] if it was not found and not every node could be asked.
    pub fn event(&self, id: Id) -> Result<Option<Event>, SearchError> {
        match self.events(&[id])? {
            (mut events, _) if !events.is_empty() => Ok(events.pop()),
            (_, None) => Ok(None),
            (_, Some(why)) => Err(SearchError::Missing(why)),
        }
    }
}
