//! Answers requests over all published splits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use event::{Clock, Event, Finding, Id, Time};
use serde::{Deserialize, Serialize};

use crate::query::QueryError;
use crate::{Config, Metrics};

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// The index cannot be read.
    #[error("cannot read index `{path}`")]
    Index {
        /// Which.
        path: PathBuf,
        /// The reason.
        #[source]
        source: tantivy::TantivyError,
    },
}

/// Answers searches. Cheap to clone; all clones see the same splits.
#[derive(Clone)]
pub struct Searcher {}

impl Searcher {
    /// Opens the index folder `dir`, which need not exist yet.
    pub fn open(
        _dir: &Path,
        _config: &Config,
        _metrics: Metrics,
        _clock: Clock,
    ) -> Result<Searcher, SearchError> {
        Ok(Searcher {})
    }

    /// Answers a request.
    pub fn search(&self, _request: &Request) -> Result<Answer, SearchError> {
        Ok(Answer::default())
    }

    /// The event with this id.
    pub fn event(&self, _id: Id) -> Option<Event> {
        None
    }

    /// The events with these ids, in their order; those that are not there are left out.
    pub fn events(&self, _ids: &[Id]) -> Vec<Event> {
        Vec::new()
    }

    /// How many match over time, in `buckets` bars between the request's times, or those of the index where it has none.
    pub fn histogram(
        &self,
        _request: &Request,
        _buckets: usize,
    ) -> Result<Vec<Bucket>, SearchError> {
        Ok(Vec::new())
    }

    /// The most frequent values of a field among what matches, and how often they come.
    pub fn top(
        &self,
        _request: &Request,
        _field: &str,
        _limit: usize,
    ) -> Result<Vec<(String, u64)>, SearchError> {
        Ok(Vec::new())
    }
}
