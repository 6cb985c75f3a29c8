//! How a query is understood, and how its events will be found: [`Searcher::explain`].
//!
//! The clauses are those that `compile` makes leaves of, with the same decision about how each is looked for, so that a
//! slow search can be told from a quick one before it runs. Nothing is searched.

use std::fmt;

use event::Time;
use serde::{Deserialize, Serialize};

use crate::compile::{Context, Seek, seek};
use crate::names::Unknown;
use crate::query::Query;
use crate::query::check::Check;
use crate::request::{Request, SearchError};
use crate::searcher::Searcher;

/// How a query is understood.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Explanation {
    /// The query with every bracket and operator written out; it means the same.
    pub query: String,
    /// Its clauses, in order.
    pub clauses: Vec<Clause>,
    /// How many splits reach into the time range and will be asked, unless a page is full before.
    pub splits: usize,
    /// How many splits there are.
    pub of_splits: usize,
    /// How many events these splits have that will be asked.
    pub events: u64,
    /// Fields that nothing within the time range has, and what may be meant.
    pub notes: Vec<String>,
    /// Why the numbers are not those of the whole index, where they are not.
    #[serde(default)]
    pub partial: Option<String>,
}

/// One clause of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clause {
    /// The clause.
    pub clause: String,
    /// How its events are found.
    pub access: Access,
    /// The same in words.
    pub words: String,
}

/// How the events of a clause are found, the quickest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// All events match.
    All,
    /// One term of the index is looked up.
    Term,
    /// Several terms are looked up.
    Terms,
    /// Words in a row are looked up.
    Phrase,
    /// A column of times is read.
    Times,
    /// Distinct values of one field are compared one by one.
    WalkValues,
    /// Distinct words of all events are compared one by one.
    WalkWords,
    /// Distinct values of all fields are compared one by one.
    WalkAllValues,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::All => "all",
            Access::Term => "term",
            Access::Terms => "terms",
            Access::Phrase => "phrase",
            Access::Times => "times",
            Access::WalkValues => "walk over values",
            Access::WalkWords => "walk over words",
            Access::WalkAllValues => "walk over all values",
        })
    }
}

impl Searcher {
    /// Tells how a request will be understood and answered.
    pub fn explain(&self, request: &Request) -> Result<Explanation, SearchError> {
        let (mut explanation, unknown) = self.explained(request, self.now())?;
        explanation.notes = unknown.words(request.kind);
        Ok(explanation)
    }

    /// The same with the unknown fields as they are, and no notes.
    pub(crate) fn explained(
        &self,
        request: &Request,
        now: Time,
    ) -> Result<(Explanation, Unknown), SearchError> {
        let query = self.checked(request)?;
        let mut run = self.run(request, now);
        let context = self.context(&run);
        run.narrow(&query);
        let mut clauses = Vec::new();
        explain(&query, &context, &mut clauses);
        let splits = self.splits(&run).map_err(|e| self.error(e))?;
        let all = self.catalog().current().map_err(|e| self.error(e))?;
        let unknown = self
            .unknown_fields(&query, &run)
            .map_err(|e| self.error(e))?;
        let explanation = Explanation {
            query: query.to_string(),
            clauses,
            splits: splits.len(),
            of_splits: all.len(),
            events: splits.iter().map(|s| s.meta.events).sum(),
            notes: Vec::new(),
            partial: None,
        };
        Ok((explanation, unknown))
    }
}

fn explain(query: &Query, context: &Context, clauses: &mut Vec<Clause>) {
    match query {
        Query::And(parts) | Query::Or(parts) => {
            parts
                .iter()
                .for_each(|part| explain(part, context, clauses));
        }
        Query::Not(part) => explain(part, context, clauses),
        clause => {
            let (access, words) = match seek(clause, context) {
                None => (Access::All, "matches every event".to_owned()),
                Some(seek) => of_seek(&seek),
            };
            clauses.push(Clause {
                clause: clause.to_string(),
                access,
                words,
            });
        }
    }
}

fn of_seek(seek: &Seek) -> (Access, String) {
    let beginning = |check: &Check| match check.prefix() {
        "" => String::new(),
        prefix => format!(" that begins with `{}`", event::inert::text(prefix)),
    };
    match seek {
        Seek::Term(_) => (Access::Term, "one look-up in the index".to_owned()),
        Seek::Terms(terms) => (
            Access::Terms,
            format!("{} look-ups in the index", terms.len()),
        ),
        Seek::Phrase(words) => match words.len() {
            0 => (Access::Phrase, "has no word, so nothing matches".to_owned()),
            1 => (
                Access::Term,
                "one look-up among the words of all values".to_owned(),
            ),
            n => (
                Access::Phrase,
                format!("{n} words in a row, looked up in the index"),
            ),
        },
        Seek::Time(column, ..) => (Access::Times, format!("read from the column `{column}`")),
        Seek::Values(Some(_), check) => (
            Access::WalkValues,
            format!(
                "each distinct value of the field{} is compared",
                beginning(check)
            ),
        ),
        Seek::Words(check) => (
            Access::WalkWords,
            format!(
                "each distinct word of all events{} is compared",
                beginning(check)
            ),
        ),
        Seek::Values(None, _) => (
            Access::WalkAllValues,
            "each distinct value of every field is compared: slow, name a field if you can"
                .to_owned(),
        ),
    }
}
