//! Baselines: what a series usually does, and whether this bucket is something a person should hear of.
//!
//! ```text
//! let params = Params { bucket: 300_000_000, ..Params::default() };
//! let mut series = Series::new();                                         // one a function and metric, ~1.1 KB
//! let verdict = series.close_bucket(&params, bucket_start, invocations);  // every bucket, zeros too, in order
//! if verdict.change == Change::Opened { println!("{verdict}") }           // "412 in 5m; 37 expected, ..."
//! ```
//!
//! [`Series`] judges counts (invocations, matches of a rule), [`Ratio`] errors out of invocations, [`Metric`] any
//! other number a row (`trailwarden baseline`). The first two give a [`Verdict`] a bucket: what was expected, what
//! was seen, the band, how long it has learned, and what became of the episode. [`doubling`] and [`Projection`]
//! answer for recursion and denial of wallet. The caller closes buckets behind the watermark, each once, tells of
//! deployments with `deployed`, keeps the state (serde) and words the finding.
//!
//! The parts: `season` learns the week, `spans` judges the last 1, 3 and 6 buckets against an over-dispersed
//! distribution, `excess` calibrates that against what the series really does, `episode` opens and closes, `days`
//! sees what grows too slowly for all of these. Everything is a pure function of state and input: no clock, no I/O,
//! no unordered iteration, and the special functions of `libm`, so that every machine and every replay says the same.
//! What this deliberately does not do: parse documents, know functions or fleets, or keep more than a bucket's sum.

mod counts;
mod days;
mod episode;
mod excess;
pub mod growth;
mod metric;
mod packed;
mod params;
mod ratio;
mod season;
mod spans;
pub mod tail;
mod verdict;

pub use counts::Series;
pub use growth::{Projection, doubling};
pub use metric::{Metric, Score};
pub use params::{AtLeast, Direction, Params, Prior, SeasonLength};
pub use ratio::Ratio;
pub use verdict::{Change, Learning, Reason, Verdict};
