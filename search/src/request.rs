//! What is asked of the searcher and what it answers.
//!
//! A [`Request`] comes from the command line, the console or another program; the [`Answer`] holds whole events or
//! findings, and [`Answer::partial`] says in words why it is not complete where it is not. These types search nothing.

use std::path::PathBuf;
use std::time::Duration;

use event::{Event, Finding, Id, Time};
use serde::{Deserialize, Serialize};
use tantivy::TantivyError;

use crate::aggregate::AggregationError;
use crate::query::{Query, QueryError, parse};

/// What is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Events.
    #[default]
    Events,
    /// Findings.
    Findings,
}

/// What somebody wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Request {
    /// The query, in the language of [`crate::query`]; empty for everything.
    pub query: String,
    /// Not before this time.
    pub from: Option<Time>,
    /// Not after this time.
    pub to: Option<Time>,
    /// How many to give.
    pub limit: usize,
    /// The latest first, else the earliest.
    pub newest_first: bool,
    /// Events or findings.
    pub kind: Kind,
    /// Only what comes after this place: [`Answer::next`] of the page before.
    pub after: Option<Cursor>,
    /// Count all that match, even where the page is full before; slower.
    pub count: bool,
}

impl Request {
    /// The query, if the request is one that can be answered with pages of `allowed` events at most.
    pub(crate) fn checked(&self, allowed: usize) -> Result<Query, SearchError> {
        if self.limit > allowed {
            let asked = self.limit;
            return Err(SearchError::Limit { asked, allowed });
        }
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from > to
        {
            return Err(SearchError::ReversedRange { from, to });
        }
        Ok(parse(&self.query)?)
    }
}

/// A place in the order of answers: by time, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    /// The time of the last one given.
    pub time: Time,
    /// Its id.
    pub id: Id,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// The events, in the order asked for; none when findings were asked for.
    pub hits: Vec<Event>,
    /// The findings, in the order asked for; none when events were asked for.
    pub findings: Vec<Finding>,
    /// How many match in all, where that is known.
    pub total: Option<u64>,
    /// Why the answer is not complete, where it is not.
    pub partial: Option<String>,
    /// What else there is to know, in sentences: fields that nothing within the time range has, and what may be meant.
    /// Only with the first page.
    pub notes: Vec<String>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Cursor>,
    /// How long it took.
    pub took: Duration,
}

/// One bar of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The earliest time in it.
    pub from: Time,
    /// The first time after it.
    pub to: Time,
    /// How many match.
    pub count: u64,
}

/// How many bars a histogram has at most.
pub const MAX_BUCKETS: usize = 10_000;

/// Why a search cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The query cannot be read.
    #[error("cannot read the query")]
    Query(#[from] QueryError),
    /// The time range runs backwards.
    #[error("time range runs backwards: from {from} to {to} (UTC)")]
    ReversedRange {
        /// The start asked for.
        from: Time,
        /// The end asked for.
        to: Time,
    },
    /// More asked for than is allowed.
    #[error("limit {asked} is above {allowed}")]
    Limit {
        /// What was asked for.
        asked: usize,
        /// What is allowed.
        allowed: usize,
    },
    /// The aggregations cannot be asked so.
    #[error("cannot aggregate")]
    Aggregation(#[source] AggregationError),
    /// Nothing is known of pivots on this field.
    #[error("`{0}` is no field to investigate by")]
    Pivot(String),
    /// Counting took too long; a count of a part would mislead.
    #[error("counting took longer than {0:?}: narrow the time range or the query")]
    Timeout(Duration),
    /// What should be whole was cut.
    #[error("not everything could be read: {0}")]
    Cut(String),
    /// Index nodes that would be needed did not answer; why, for each.
    #[error("not every index node answered: {0}")]
    Missing(String),
    /// The index cannot be read.
    #[error("cannot read index `{path}`")]
    Index {
        /// Which.
        path: PathBuf,
        /// The reason.
        #[source]
        source: TantivyError,
    },
}
