//! Aggregations: what is asked about all events that match, instead of the events themselves.
//!
//! An [`Aggregation`] is one [`Operation`] over one field, and for those that make buckets (`terms`, `date_histogram`)
//! further aggregations within each bucket, two levels deep. Several stand side by side under names of the asker's:
//! [`Aggregations`], which are read from JSON (the names of Elasticsearch and OpenSearch, which people know) or from the
//! short form of the command line ([`parse`]).
//!
//! [`crate::Searcher::tally`] counts the splits of this process and gives [`Tallies`], which can be sent and merged;
//! [`Tallies::finish`] makes the [`Aggregated`] of them that people read. What is not exact says so.

mod collect;
mod short;
mod tally;
mod values;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::query::Field;

pub use short::parse;
pub use tally::Tallies;

/// Aggregations by the names that the asker gave them.
pub type Aggregations = BTreeMap<String, Aggregation>;

/// Aggregations within one another, the outermost included, at most.
pub const MAX_LEVELS: usize = 3;
/// Aggregations of one request, at most.
pub const MAX_AGGREGATIONS: usize = 20;
/// Buckets of one `terms` that are told, at most.
pub const MAX_SIZE: usize = 10_000;

/// One question about everything that matches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Aggregation {
    /// What is asked.
    pub operation: Operation,
    /// What is asked about each bucket.
    pub aggs: Aggregations,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// The most frequent values of a field, and how many events have each.
    Terms {
        /// The field, as it is written in queries.
        field: String,
        /// How many values are told.
        size: usize,
    },
    /// How many events there are in each stretch of time that has any.
    DateHistogram {
        /// `time` or `ingest_time`.
        field: String,
        /// The length of a stretch in microseconds; stretches begin at multiples of it in UTC, weeks on Mondays.
        interval: i64,
    },
    /// How many distinct values a field has.
    Cardinality {
        /// The field.
        field: String,
    },
    /// How the numbers in a field are distributed.
    Percentiles {
        /// The field.
        field: String,
        /// Which percentiles, each from 0 to 100.
        percents: Vec<f64>,
    },
    /// How many events there are.
    Count,
}

/// Why aggregations cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AggregationError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: &'static str,
}

pub(crate) fn wrong(message: impl Into<String>, hint: &'static str) -> AggregationError {
    AggregationError {
        message: message.into(),
        hint,
    }
}

/// An aggregation as JSON has it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<RawTerms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    date_histogram: Option<RawHistogram>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cardinality: Option<RawField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percentiles: Option<RawPercentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<RawCount>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    aggs: Aggregations,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTerms {
    field: String,
    #[serde(default = "ten")]
    size: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHistogram {
    #[serde(default = "time")]
    field: String,
    interval: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawField {
    field: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPercentiles {
    field: String,
    #[serde(default = "usual_percents")]
    percents: Vec<f64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCount {}

fn ten() -> usize {
    10
}

fn time() -> String {
    "time".to_owned()
}

pub(crate) fn usual_percents() -> Vec<f64> {
    vec![50.0, 90.0, 95.0, 99.0]
}

impl TryFrom<Raw> for Aggregation {
    type Error = AggregationError;

    fn try_from(raw: Raw) -> Result<Aggregation, AggregationError> {
        let hint = "an aggregation has one of `terms`, `date_histogram`, `cardinality`, `percentiles` and `count`, and may have `aggs`";
        let mut operations = Vec::new();
        operations.extend(raw.terms.map(|t| Operation::Terms {
            field: t.field,
            size: t.size,
        }));
        if let Some(h) = raw.date_histogram {
            operations.push(Operation::DateHistogram {
                field: h.field,
                interval: interval(&h.interval)?,
            });
        }
        operations.extend(
            raw.cardinality
                .map(|f| Operation::Cardinality { field: f.field }),
        );
        operations.extend(raw.percentiles.map(|p| Operation::Percentiles {
            field: p.field,
            percents: p.percents,
        }));
        operations.extend(raw.count.map(|_| Operation::Count));
        let mut operations = operations.into_iter();
        match (operations.next(), operations.next()) {
            (Some(operation), None) => {
                operation.check()?;
                if !operation.has_buckets() && !raw.aggs.is_empty() {
                    return Err(wrong(
                        "`aggs` stands in an aggregation without buckets",
                        "only `terms` and `date_histogram` may have `aggs`",
                    ));
                }
                Ok(Aggregation {
                    operation,
                    aggs: raw.aggs,
                })
            }
            (None, _) => Err(wrong("an aggregation asks nothing", hint)),
            (Some(_), Some(_)) => Err(wrong("an aggregation asks two things at once", hint)),
        }
    }
}

impl From<Aggregation> for Raw {
    fn from(aggregation: Aggregation) -> Raw {
        let mut raw = Raw {
            aggs: aggregation.aggs,
            ..Raw::default()
        };
        match aggregation.operation {
            Operation::Terms { field, size } => raw.terms = Some(RawTerms { field, size }),
            Operation::DateHistogram { field, interval } => {
                raw.date_histogram = Some(RawHistogram {
                    field,
                    interval: interval_text(interval),
                });
            }
            Operation::Cardinality { field } => raw.cardinality = Some(RawField { field }),
            Operation::Percentiles { field, percents } => {
                raw.percentiles = Some(RawPercentiles { field, percents });
            }
            Operation::Count => raw.count = Some(RawCount {}),
        }
        raw
    }
}

impl Operation {
    fn has_buckets(&self) -> bool {
        matches!(
            self,
            Operation::Terms { .. } | Operation::DateHistogram { .. }
        )
    }

    /// The field, if it is not about a time.
    pub(crate) fn field(&self) -> Option<Field> {
        match self {
            Operation::Terms { field, .. }
            | Operation::Cardinality { field }
            | Operation::Percentiles { field, .. } => Some(Field::named(field)),
            Operation::DateHistogram { .. } | Operation::Count => None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), AggregationError> {
        let times =
            "over time use `date_histogram` with an `interval` (`time:1h` on the command line)";
        if let Some(field) = self.field() {
            if field.name.is_empty() {
                return Err(wrong(
                    "the field's name is empty",
                    "name a field, such as `actor`",
                ));
            }
            if field.is_time() {
                let message = format!("`{}` is a time", field.name);
                return Err(wrong(message, times));
            }
        }
        match self {
            Operation::Terms { size, .. } if !(1..=MAX_SIZE).contains(size) => Err(wrong(
                format!("`size` is {size}"),
                "it is a number from 1 to 10000",
            )),
            Operation::DateHistogram { field, .. } if !Field::named(field).is_time() => Err(wrong(
                format!("`{field}` is no time of the envelope"),
                "a `date_histogram` is over `time` or `ingest_time`",
            )),
            Operation::Percentiles { percents, .. }
                if percents.is_empty()
                    || percents.len() > 100
                    || percents.iter().any(|p| !(0.0..=100.0).contains(p)) =>
            {
                Err(wrong(
                    "a percentile is not between 0 and 100",
                    "write up to a hundred numbers from 0 to 100, such as 50 and 99.9",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// What is wrong with the shape of a whole request: too deep, or too much.
pub fn check(aggs: &Aggregations) -> Result<(), AggregationError> {
    fn count(aggs: &Aggregations, level: usize) -> Result<usize, AggregationError> {
        if level > MAX_LEVELS && !aggs.is_empty() {
            return Err(wrong(
                format!("aggregations are nested deeper than {MAX_LEVELS} levels"),
                "ask for the inner ones in a search of their own, with the bucket's value in the query",
            ));
        }
        aggs.values().try_fold(0, |sum, agg| {
            agg.operation.check()?;
            Ok(sum + 1 + count(&agg.aggs, level + 1)?)
        })
    }
    if count(aggs, 1)? > MAX_AGGREGATIONS {
        return Err(wrong(
            format!("more than {MAX_AGGREGATIONS} aggregations"),
            "ask for them in several searches",
        ));
    }
    Ok(())
}

const UNITS: [(&str, i64); 5] = [
    ("w", 604_800_000_000),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
];

/// A length of time such as `30s`, `5m`, `1h`, `1d` or `1w`, in microseconds.
pub(crate) fn interval(text: &str) -> Result<i64, AggregationError> {
    let found = UNITS.iter().find_map(|(unit, micros)| {
        let count: i64 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(*micros).filter(|length| *length > 0)
    });
    found.ok_or_else(|| {
        wrong(
            format!("`{text}` is no length of time"),
            "write a whole number and a unit: 30s, 5m, 1h, 1d or 1w",
        )
    })
}

/// The same as text.
pub(crate) fn interval_text(micros: i64) -> String {
    UNITS
        .iter()
        .find(|(_, unit)| micros % unit == 0)
        .map_or_else(
            || format!("{micros}us"),
            |(name, unit)| format!("{}{name}", micros / unit),
        )
}

/// What aggregations came to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Aggregated {
    /// The result of each, by its name.
    pub aggs: BTreeMap<String, Aggregate>,
    /// How many events (or findings) were counted: all that match, unless `partial` is there.
    pub matched: u64,
    /// Why not everything that matches was counted, where that is so.
    pub partial: Option<String>,
    /// How long it took.
    #[serde(skip)]
    pub took: Duration,
}

/// What one aggregation came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Aggregate {
    /// Of `terms`: the most frequent values first, equal ones by value.
    Terms {
        /// The field.
        field: String,
        /// A bucket for each value that is told.
        buckets: Vec<Bucket>,
        /// How many values the events of no bucket have, each event counted for each.
        other: u64,
        /// How many events have no value.
        missing: u64,
        /// By how much a count may be too low, and how frequent a value may be that is not told; 0 where all is exact.
        error: u64,
    },
    /// Of `date_histogram`: in order of time, without empty ones.
    DateHistogram {
        /// The field.
        field: String,
        /// The length of a bucket, such as `1h`.
        interval: String,
        /// A bucket for each stretch that has events; its key is when it begins.
        buckets: Vec<Bucket>,
    },
    /// Of `cardinality`.
    Cardinality {
        /// The field.
        field: String,
        /// How many distinct values there are.
        value: u64,
        /// Is that an estimate? It is within some 2 % for one field, within 6 % in buckets.
        approximate: bool,
    },
    /// Of `percentiles`.
    Percentiles {
        /// The field.
        field: String,
        /// How many numbers there are.
        count: u64,
        /// The least.
        min: Option<f64>,
        /// The greatest.
        max: Option<f64>,
        /// Their mean.
        mean: Option<f64>,
        /// Each percentile that was asked; empty where there is no number.
        values: Vec<Percentile>,
        /// Are the percentiles estimates? They are within 1 % of the true value.
        approximate: bool,
    },
    /// Of `count`.
    Count {
        /// How many events there are.
        value: u64,
    },
}

/// The events that have something in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// What they have in common: a value, or when the stretch of time begins.
    pub key: String,
    /// How many there are.
    pub count: u64,
    /// What was asked about them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aggs: BTreeMap<String, Aggregate>,
}

/// One percentile.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// So many of a hundred numbers are not greater.
    pub percent: f64,
    /// Than this.
    pub value: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Aggregation, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn json_is_read_strictly() {
        let text = r#"{"date_histogram":{"field":"time","interval":"2h"},"aggs":{"who":{"terms":{"field":"actor","size":3}}}}"#;
        let agg = read(text).unwrap();
        assert_eq!(serde_json::to_string(&agg).unwrap(), text);
        assert_eq!(
            read(r#"{"percentiles":{"field":"invocation.duration_ms"}}"#)
                .unwrap()
                .operation,
            Operation::Percentiles {
                field: "invocation.duration_ms".into(),
                percents: usual_percents()
            }
        );
        for (wrong, words) in [
            ("{}", "asks nothing"),
            (
                r#"{"count":{},"terms":{"field":"a"}}"#,
                "two things at once",
            ),
            (
                r#"{"terms":{"field":"a","sise":3}}"#,
                "unknown field `sise`",
            ),
            (r#"{"terms":{"field":"a","size":0}}"#, "`size` is 0"),
            (r#"{"terms":{"field":"time"}}"#, "`time` is a time"),
            (
                r#"{"date_histogram":{"interval":"1x"}}"#,
                "`1x` is no length of time",
            ),
            (
                r#"{"date_histogram":{"interval":"-1h"}}"#,
                "`-1h` is no length of time",
            ),
            (
                r#"{"date_histogram":{"field":"actor","interval":"1h"}}"#,
                "`actor` is no time",
            ),
            (
                r#"{"percentiles":{"field":"a","percents":[101]}}"#,
                "not between 0 and 100",
            ),
            (
                r#"{"count":{},"aggs":{"a":{"count":{}}}}"#,
                "without buckets",
            ),
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains(words), "{wrong}: {error}");
        }
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let nested = |levels: usize| {
            (1..levels).fold(read(r#"{"terms":{"field":"a"}}"#).unwrap(), |inner, _| {
                Aggregation {
                    operation: inner.operation.clone(),
                    aggs: [("x".to_owned(), inner)].into(),
                }
            })
        };
        assert_eq!(check(&[("a".to_owned(), nested(3))].into()), Ok(()));
        assert!(check(&[("a".to_owned(), nested(4))].into()).is_err());
        let many = (0..21).map(|i| (i.to_string(), nested(1))).collect();
        assert!(check(&many).is_err());
    }
}
