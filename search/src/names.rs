//! Which fields the index has, and what somebody may have meant who asks for one that it has not.
//!
//! The paths of events stand in the dictionary of their split, in shapes or by themselves ([`lookup::paths`]): finding
//! them costs as much as there are paths, however many events there are. [`Searcher::unknown_fields`] is why an answer says that `evntName` is a field of no event, and
//! [`Searcher::paths`] lists what there is. An event beyond the bounds of the index may have further paths.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tantivy::SegmentReader;

use crate::compile::Context;
use crate::lookup;
use crate::query::{Field, Query};
use crate::request::{Kind, Request, SearchError};
use crate::schema::MARK;
use crate::searcher::{Run, Searcher};

/// More paths of one answer are not looked at.
const MAX_PATHS: usize = 20_000;
/// Names that are less alike are not suggested; 1 is the same.
const ALIKE: f64 = 0.75;
/// How many names are suggested for one.
const SUGGESTED: usize = 3;

/// Adds the paths of a segment, as they stand in terms. False if there are more than [`MAX_PATHS`] or no time is left.
fn of_segment(
    reader: &SegmentReader,
    context: &Context,
    found: &mut BTreeSet<String>,
) -> tantivy::Result<bool> {
    lookup::paths(reader, &context.fields, &mut |path| {
        if !found.contains(path) {
            found.insert(path.to_owned());
        }
        found.len() <= MAX_PATHS && !context.budget.is_over()
    })
}

/// The field that a path of terms is, by the name that people write.
fn field_of(path: &str, kind: Kind) -> Field {
    let (name, original) = match path.strip_prefix(MARK) {
        Some(name) => (name, false),
        None => (path, true),
    };
    match kind {
        Kind::Events => Field {
            name: name.to_owned(),
            original,
        },
        // All fields of a finding are normalized, whatever they are called.
        Kind::Findings => Field::named(name),
    }
}

impl Searcher {
    /// The names of the fields that events (or findings) within the time range have, as they are written in queries; and
    /// whether these are all of them.
    pub fn paths(&self, request: &Request) -> Result<(Vec<String>, bool), SearchError> {
        self.checked(request)?;
        let run = self.run(request, self.now());
        let context = self.context(&run);
        let (found, complete) = self
            .collect_paths(&run, &context)
            .map_err(|e| self.error(e))?;
        let names = found.iter().map(|p| field_of(p, request.kind).to_string());
        Ok((names.collect(), complete))
    }

    fn collect_paths(
        &self,
        run: &Run<'_>,
        context: &Context,
    ) -> tantivy::Result<(BTreeSet<String>, bool)> {
        let mut found = BTreeSet::new();
        for searcher in self.searchers(run)? {
            for reader in searcher.segment_readers() {
                if !of_segment(reader, context, &mut found)? {
                    return Ok((found, false));
                }
            }
        }
        Ok((found, true))
    }

    /// The fields of a query that nothing within the time range has.
    pub(crate) fn unknown_fields(&self, query: &Query, run: &Run<'_>) -> tantivy::Result<Unknown> {
        let context = self.context(run);
        let searchers = self.searchers(run)?;
        if searchers.is_empty() {
            return Ok(Unknown::Nothing);
        }
        let mut unknown = Vec::new();
        for field in query.fields().into_iter().filter(|f| !f.is_time()) {
            let path = context.path(field);
            let mut known = false;
            for reader in searchers.iter().flat_map(|s| s.segment_readers()) {
                known |= !lookup::postings(reader, &context.fields, &path)?.is_empty();
                if known || run.budget.is_over() {
                    break;
                }
            }
            if !known && !run.budget.is_over() {
                unknown.push(field);
            }
        }
        if unknown.is_empty() {
            return Ok(Unknown::default());
        }
        let (paths, _) = self.collect_paths(run, &context)?;
        let names: Vec<String> = paths
            .iter()
            .map(|p| field_of(p, run.request.kind).to_string())
            .collect();
        let told = unknown.into_iter().map(|field| {
            let asked = field.to_string();
            // Such a field is meant, even where nothing has it.
            let is_meant = !field.original && event::is_normalized_name(&field.name);
            let near = match is_meant {
                true => Vec::new(),
                false => nearest(&asked, &names)
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
            };
            (asked, near)
        });
        Ok(Unknown::Fields(told.collect()))
    }
}

/// The fields of a query that nothing within the time range has, as far as one index knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unknown {
    /// There is nothing within the time range that could have any.
    Nothing,
    /// These, each with the names that may be meant.
    Fields(Vec<(String, Vec<String>)>),
}

impl Default for Unknown {
    fn default() -> Unknown {
        Unknown::Fields(Vec::new())
    }
}

impl Unknown {
    /// What two indexes together know: a field is unknown if neither has it. What may be meant is what is likest in both.
    pub(crate) fn and(self, other: Unknown) -> Unknown {
        match (self, other) {
            (Unknown::Nothing, known) | (known, Unknown::Nothing) => known,
            (Unknown::Fields(fields), Unknown::Fields(mut others)) => {
                let both = fields.into_iter().filter_map(|(field, mut names)| {
                    let at = others.iter().position(|(other, _)| *other == field)?;
                    names.extend(std::mem::take(&mut others[at].1));
                    names.sort();
                    names.dedup();
                    let near = nearest(&field, &names).into_iter().map(str::to_owned);
                    Some((field.clone(), near.collect()))
                });
                Unknown::Fields(both.collect())
            }
        }
    }

    /// A sentence for each field.
    pub(crate) fn words(&self, kind: Kind) -> Vec<String> {
        let Unknown::Fields(fields) = self else {
            return Vec::new();
        };
        let what = match kind {
            Kind::Events => "event",
            Kind::Findings => "finding",
        };
        let words = fields.iter().map(|(asked, near)| {
            let mut words = format!("no {what} in this time range has the field `{asked}`");
            if let Some((last, rest)) = near.split_last() {
                let list = match rest {
                    [] => format!("`{last}`"),
                    rest => format!("`{}` or `{last}`", rest.join("`, `")),
                };
                words.push_str(&format!("; did you mean {list}?"));
            }
            words
        });
        words.collect()
    }
}

/// The names that somebody may have meant, the likeliest first: the same but for case, one that ends in what was asked,
/// or one that is written much alike.
fn nearest<'n>(asked: &str, names: &'n [String]) -> Vec<&'n str> {
    let lower = asked.to_lowercase();
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let mut found: Vec<(f64, &str)> = names
        .iter()
        .filter_map(|name| {
            let other = name.to_lowercase();
            let alike = if other == lower {
                3.0
            } else if other.ends_with(&format!(".{lower}")) {
                2.0
            } else {
                let whole = strsim::normalized_damerau_levenshtein(&lower, &other);
                // Within the same parent, or of whatever parent, if only the last part was asked.
                let part = match lower.contains('.') {
                    true => 0.0,
                    false => strsim::normalized_damerau_levenshtein(&lower, &last(&other)) - 0.05,
                };
                whole.max(part)
            };
            (alike >= ALIKE).then_some((alike, name.as_str()))
        })
        .collect();
    found.sort_by(|a, b| {
        b.0.total_cmp(&a.0)
            .then_with(|| (a.1.len(), a.1).cmp(&(b.1.len(), b.1)))
    });
    // What looks much less alike than the best is not meant.
    let best = found.first().map_or(0.0, |best| best.0);
    found
        .into_iter()
        .filter(|(alike, _)| best - alike < 0.1)
        .take(SUGGESTED)
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(asked: &str, expected: &[&str]) {
        let names = [
            "eventName",
            "eventTime",
            "requestParameters.bucketName",
            "requestParameters.key",
            "userIdentity.type",
            "userIdentity.arn",
            "src_ip",
        ]
        .map(str::to_owned);
        assert_eq!(nearest(asked, &names), expected, "{asked}");
    }

    #[test]
    fn what_is_meant() {
        check("evntName", &["eventName"]);
        check("EventName", &["eventName"]);
        check("bucketName", &["requestParameters.bucketName"]);
        check("bucketname", &["requestParameters.bucketName"]);
        check("buketName", &["requestParameters.bucketName"]);
        check("userIdentity.tpye", &["userIdentity.type"]);
        check("srcip", &["src_ip"]);
        check("frobnicate", &[]);
    }
}
