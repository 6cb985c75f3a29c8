//! Counts on their way to a result: what one process has counted, to be merged with what others have.
//!
//! [`Tallies`] has the shape of the aggregations that were asked: one [`Tally`] each, and in every bucket one for each
//! aggregation within. Adding and merging are exact up to bounds: of a `terms` with very many values the rarest are let
//! go and [`Tally::Terms`] remembers how frequent those were at most; distinct values beyond some thousands are estimated
//! from the smallest hashes (KMV), and numbers beyond a thousand by a DDSketch. Nothing here knows of an index.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use event::Time;
use serde::{Deserialize, Serialize};
use sketches_ddsketch::DDSketch;

use super::{
    Aggregate, Aggregated, Aggregation, Aggregations, Bucket, Operation, Percentile, interval_text,
};
use crate::request::{MAX_BUCKETS, SearchError};

/// So many hashes of distinct values are kept at the outermost level, and so many in buckets.
const DISTINCT: [usize; 2] = [8_192, 1_024];
/// So many numbers are kept as they are.
const NUMBERS: usize = 1_000;
/// Values of a `terms` are let go beyond twice this, at the outermost level and in buckets.
const VALUES: [usize; 2] = [100_000, 2_000];
/// So many things are kept in all.
pub(super) const MAX_CELLS: usize = 2_000_000;
/// So many things are sent to another node in one answer: some 25 MB.
const MAX_SENT: usize = 250_000;

/// What was counted for some aggregations.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Tallies {
    /// One for each aggregation, in order of their names.
    pub(super) tallies: Vec<Tally>,
    /// How many events were counted.
    pub matched: u64,
    /// Why not all that match were, where that is so.
    pub partial: Option<String>,
}

/// What was counted for one aggregation.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Tally {
    Terms {
        groups: HashMap<String, Group>,
        /// Events of values that were let go.
        other: u64,
        /// What a count may lack because of these.
        error: u64,
        missing: u64,
    },
    Times(BTreeMap<i64, Group>),
    Distinct {
        /// The smallest hashes.
        hashes: BTreeSet<u64>,
        /// How many there may be.
        keep: usize,
        /// Were there more?
        cut: bool,
    },
    Numbers {
        /// As they are, while there are few.
        few: Vec<f64>,
        /// All, as soon as there are many.
        many: Option<DDSketch>,
        count: u64,
        sum: f64,
        min: f64,
        max: f64,
    },
    Count(u64),
}

/// The events of one bucket.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) count: u64,
    /// The value as an event writes it, where the key is in lower case.
    pub(super) written: Option<String>,
    /// An event that has it: index of the searcher, segment and document.
    #[serde(skip)]
    pub(super) example: Option<(usize, u32, u32)>,
    pub(super) tallies: Vec<Tally>,
}

impl Tally {
    fn new(operation: &Operation, level: usize) -> Tally {
        let by_level = |bounds: [usize; 2]| bounds[usize::from(level > 0)];
        match operation {
            Operation::Terms { .. } => Tally::Terms {
                groups: HashMap::new(),
                other: 0,
                error: 0,
                missing: 0,
            },
            Operation::DateHistogram { .. } => Tally::Times(BTreeMap::new()),
            Operation::Cardinality { .. } => Tally::Distinct {
                hashes: BTreeSet::new(),
                keep: by_level(DISTINCT),
                cut: false,
            },
            Operation::Percentiles { .. } => Tally::Numbers {
                few: Vec::new(),
                many: None,
                count: 0,
                sum: 0.0,
                min: 0.0,
                max: 0.0,
            },
            Operation::Count => Tally::Count(0),
        }
    }

    /// An empty one for each of some aggregations, `level` levels within others.
    pub(super) fn all(aggs: &Aggregations, level: usize) -> Vec<Tally> {
        aggs.values()
            .map(|agg| Tally::new(&agg.operation, level))
            .collect()
    }

    /// Adds a number.
    pub(super) fn number(&mut self, number: f64) {
        let Tally::Numbers {
            few,
            many,
            count,
            sum,
            min,
            max,
        } = self
        else {
            return;
        };
        *min = if *count == 0 { number } else { min.min(number) };
        *max = if *count == 0 { number } else { max.max(number) };
        *count += 1;
        *sum += number;
        match many {
            Some(sketch) => sketch.add(number),
            None => few.push(number),
        }
        if few.len() > NUMBERS {
            self.sketch();
        }
    }

    /// Goes over from numbers to a sketch of them.
    fn sketch(&mut self) {
        if let Tally::Numbers { few, many, .. } = self {
            let sketch = many.get_or_insert_with(DDSketch::default);
            few.drain(..).for_each(|number| sketch.add(number));
            few.shrink_to_fit();
        }
    }

    /// Adds the hash of a value.
    pub(super) fn hash(&mut self, hash: u64) {
        if let Tally::Distinct { hashes, keep, cut } = self {
            if *cut && hashes.last().is_some_and(|last| hash > *last) {
                return;
            }
            hashes.insert(hash);
            if hashes.len() > *keep {
                hashes.pop_last();
                *cut = true;
            }
        }
    }

    /// How many things it keeps.
    fn cells(&self) -> usize {
        let all = |groups: &mut dyn Iterator<Item = &Group>| {
            groups
                .map(|g| 1 + g.tallies.iter().map(Tally::cells).sum::<usize>())
                .sum::<usize>()
        };
        match self {
            Tally::Terms { groups, .. } => all(&mut groups.values()),
            Tally::Times(groups) => all(&mut groups.values()),
            Tally::Distinct { hashes, .. } => hashes.len(),
            Tally::Numbers { few, many, .. } => few.len() + many.as_ref().map_or(0, |_| 512),
            Tally::Count(_) => 1,
        }
    }

    /// Lets go of all but so many values, or hashes, at each level.
    fn prune(&mut self, most: usize) {
        match self {
            Tally::Terms {
                groups,
                other,
                error,
                ..
            } => {
                if groups.len() > most {
                    let mut counts: Vec<(u64, String)> =
                        groups.iter().map(|(k, g)| (g.count, k.clone())).collect();
                    counts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
                    *error += counts[most].0;
                    for (count, key) in &counts[most..] {
                        *other += count;
                        groups.remove(key);
                    }
                    groups.shrink_to_fit();
                }
                let inner = |g: &mut Group| g.tallies.iter_mut().for_each(|t| t.prune(most));
                groups.values_mut().for_each(inner);
            }
            Tally::Times(groups) => {
                let inner = |g: &mut Group| g.tallies.iter_mut().for_each(|t| t.prune(most));
                groups.values_mut().for_each(inner);
            }
            Tally::Distinct { hashes, keep, cut } => {
                *keep = (*keep).min(most);
                while hashes.len() > *keep {
                    hashes.pop_last();
                    *cut = true;
                }
            }
            Tally::Numbers { few, .. } if few.len() > most => self.sketch(),
            Tally::Numbers { .. } | Tally::Count(_) => {}
        }
    }

    fn merge(&mut self, other: Tally) {
        match (self, other) {
            (
                Tally::Terms {
                    groups,
                    other,
                    error,
                    missing,
                },
                Tally::Terms {
                    groups: more,
                    other: more_other,
                    error: more_error,
                    missing: more_missing,
                },
            ) => {
                *other += more_other;
                *error += more_error;
                *missing += more_missing;
                for (key, group) in more {
                    match groups.get_mut(&key) {
                        Some(same) => same.merge(group),
                        None => {
                            groups.insert(key, group);
                        }
                    }
                }
            }
            (Tally::Times(groups), Tally::Times(more)) => {
                for (key, group) in more {
                    match groups.get_mut(&key) {
                        Some(same) => same.merge(group),
                        None => {
                            groups.insert(key, group);
                        }
                    }
                }
            }
            (
                Tally::Distinct { hashes, keep, cut },
                Tally::Distinct {
                    hashes: more,
                    keep: more_keep,
                    cut: more_cut,
                },
            ) => {
                *keep = (*keep).min(more_keep);
                *cut |= more_cut;
                hashes.extend(more);
                while hashes.len() > *keep {
                    hashes.pop_last();
                    *cut = true;
                }
            }
            (
                mine @ Tally::Numbers { .. },
                Tally::Numbers {
                    few: more_few,
                    many: more_many,
                    count: more_count,
                    sum: more_sum,
                    min: more_min,
                    max: more_max,
                },
            ) => {
                if let Some(theirs) = more_many {
                    mine.sketch();
                    if let Tally::Numbers {
                        many: Some(sketch),
                        count,
                        sum,
                        min,
                        max,
                        ..
                    } = mine
                    {
                        // All sketches are made by `default`, so that they fit together.
                        let merged = sketch.merge(&theirs);
                        debug_assert!(merged.is_ok());
                        *min = if *count == 0 {
                            more_min
                        } else {
                            min.min(more_min)
                        };
                        *max = if *count == 0 {
                            more_max
                        } else {
                            max.max(more_max)
                        };
                        *count += more_count;
                        *sum += more_sum;
                    }
                } else {
                    more_few.into_iter().for_each(|n| mine.number(n));
                }
            }
            (Tally::Count(count), Tally::Count(more)) => *count += more,
            // Of other aggregations; see `Tallies::merge`.
            _ => {}
        }
    }

    fn finish(self, agg: &Aggregation) -> Aggregate {
        match (self, &agg.operation) {
            (
                Tally::Terms {
                    groups,
                    other,
                    error,
                    missing,
                },
                Operation::Terms { field, size },
            ) => {
                let mut all: Vec<(String, Group)> = groups.into_iter().collect();
                all.sort_by(|a, b| b.1.count.cmp(&a.1.count).then_with(|| a.0.cmp(&b.0)));
                let rest = all.split_off(all.len().min(*size));
                Aggregate::Terms {
                    field: field.clone(),
                    buckets: all
                        .into_iter()
                        .map(|(key, group)| group.finish(key, &agg.aggs))
                        .collect(),
                    other: other + rest.iter().map(|(_, g)| g.count).sum::<u64>(),
                    missing,
                    error,
                }
            }
            (Tally::Times(groups), Operation::DateHistogram { field, interval }) => {
                Aggregate::DateHistogram {
                    field: field.clone(),
                    interval: interval_text(*interval),
                    buckets: groups
                        .into_iter()
                        .map(|(at, group)| group.finish(Time(at).to_string(), &agg.aggs))
                        .collect(),
                }
            }
            (Tally::Distinct { hashes, cut, .. }, Operation::Cardinality { field }) => {
                let known = hashes.len() as f64;
                let value = match hashes.last() {
                    // As dense as the smallest hashes are, so many there are in all.
                    Some(last) if cut => {
                        ((known - 1.0) / (*last as f64 / u64::MAX as f64)).round() as u64
                    }
                    _ => hashes.len() as u64,
                };
                Aggregate::Cardinality {
                    field: field.clone(),
                    value,
                    approximate: cut,
                }
            }
            (
                Tally::Numbers {
                    mut few,
                    many,
                    count,
                    sum,
                    min,
                    max,
                },
                Operation::Percentiles { field, percents },
            ) => {
                few.sort_by(f64::total_cmp);
                let any = |number: f64| (count > 0).then_some(number);
                let value = |percent: f64| match &many {
                    Some(sketch) => sketch.quantile(percent / 100.0).ok().flatten(),
                    None => quantile(&few, percent / 100.0),
                };
                Aggregate::Percentiles {
                    field: field.clone(),
                    count,
                    min: any(min),
                    max: any(max),
                    mean: any(sum / count as f64),
                    values: percents
                        .iter()
                        .filter_map(|&percent| {
                            value(percent).map(|value| Percentile { percent, value })
                        })
                        .collect(),
                    approximate: many.is_some(),
                }
            }
            (Tally::Count(value), _) => Aggregate::Count { value },
            (
                _,
                Operation::Count | Operation::Cardinality { .. } | Operation::Percentiles { .. },
            )
            | (_, Operation::Terms { .. } | Operation::DateHistogram { .. }) => {
                Aggregate::Count { value: 0 }
            }
        }
    }
}

/// Between the two nearest of sorted numbers, by how near each is.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let at = part * (sorted.len().checked_sub(1)?) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

impl Group {
    pub(super) fn new(aggs: &Aggregations, level: usize) -> Group {
        Group {
            tallies: Tally::all(aggs, level + 1),
            ..Group::default()
        }
    }

    fn merge(&mut self, other: Group) {
        self.count += other.count;
        self.written = self.written.take().or(other.written);
        self.example = self.example.or(other.example);
        for (mine, theirs) in self.tallies.iter_mut().zip(other.tallies) {
            mine.merge(theirs);
        }
    }

    fn finish(self, key: String, aggs: &Aggregations) -> Bucket {
        Bucket {
            key: self.written.unwrap_or(key),
            count: self.count,
            aggs: finish(self.tallies, aggs),
        }
    }
}

fn finish(tallies: Vec<Tally>, aggs: &Aggregations) -> BTreeMap<String, Aggregate> {
    let named = aggs.iter().zip(tallies);
    named
        .map(|((name, agg), tally)| (name.clone(), tally.finish(agg)))
        .collect()
}

impl Tallies {
    /// Nothing counted yet.
    pub(super) fn new(aggs: &Aggregations) -> Tallies {
        Tallies {
            tallies: Tally::all(aggs, 0),
            ..Tallies::default()
        }
    }

    /// Takes in what another process, or another part of the index, has counted for the same aggregations. The order
    /// does not matter as long as nothing was let go.
    pub fn merge(&mut self, other: Tallies) {
        self.matched += other.matched;
        self.partial = self.partial.take().or(other.partial);
        for (mine, theirs) in self.tallies.iter_mut().zip(other.tallies) {
            mine.merge(theirs);
        }
        self.bound();
    }

    /// Refuses a `date_histogram` with more buckets than anybody looks at.
    pub(crate) fn check_times(&self) -> Result<(), SearchError> {
        fn too_many(tallies: &[Tally]) -> bool {
            let inner = |group: &Group| too_many(&group.tallies);
            tallies.iter().any(|tally| match tally {
                Tally::Times(groups) => groups.len() > MAX_BUCKETS || groups.values().any(inner),
                Tally::Terms { groups, .. } => groups.values().any(inner),
                _ => false,
            })
        }
        match too_many(&self.tallies) {
            false => Ok(()),
            true => Err(Tallies::too_many_times()),
        }
    }

    /// What a `date_histogram` with too many buckets is answered.
    pub(crate) fn too_many_times() -> SearchError {
        SearchError::Aggregation(super::wrong(
            format!("`date_histogram` has more than {MAX_BUCKETS} buckets"),
            "take a longer interval or a shorter range of time",
        ))
    }

    /// Is this what counting for these aggregations comes to?
    pub(crate) fn fit(&self, aggs: &Aggregations) -> bool {
        fn fit(tallies: &[Tally], aggs: &Aggregations) -> bool {
            let group = |group: &Group, agg: &Aggregation| fit(&group.tallies, &agg.aggs);
            tallies.len() == aggs.len()
                && tallies.iter().zip(aggs.values()).all(|(tally, agg)| {
                    match (tally, &agg.operation) {
                        (Tally::Terms { groups, .. }, Operation::Terms { .. }) => {
                            groups.values().all(|g| group(g, agg))
                        }
                        (Tally::Times(groups), Operation::DateHistogram { .. }) => {
                            groups.values().all(|g| group(g, agg))
                        }
                        (Tally::Numbers { many, .. }, Operation::Percentiles { .. }) => {
                            // Sketches of another kind cannot be merged.
                            many.as_ref()
                                .is_none_or(|m| DDSketch::default().merge(m).is_ok())
                        }
                        (Tally::Distinct { .. }, Operation::Cardinality { .. })
                        | (Tally::Count(_), Operation::Count) => true,
                        _ => false,
                    }
                })
        }
        fit(&self.tallies, aggs)
    }

    /// Lets go of the rarest values until what is kept can be sent.
    pub(crate) fn bound_for_sending(&mut self) {
        self.bound_to(MAX_SENT, VALUES[0]);
    }

    /// Lets go of what is too much.
    pub(super) fn bound(&mut self) {
        for tally in &mut self.tallies {
            if let Tally::Terms { groups, .. } = tally
                && groups.len() > 2 * VALUES[0]
            {
                tally.prune(VALUES[0]);
            }
        }
        self.bound_to(MAX_CELLS, VALUES[1]);
    }

    fn bound_to(&mut self, cells: usize, mut most: usize) {
        while self.tallies.iter().map(Tally::cells).sum::<usize>() > cells && most > 0 {
            for tally in &mut self.tallies {
                tally.prune(most);
            }
            most /= 2;
        }
    }

    /// The result, for the aggregations that were asked.
    pub fn finish(self, aggs: &Aggregations) -> Aggregated {
        Aggregated {
            matched: self.matched,
            partial: self.partial,
            aggs: finish(self.tallies, aggs),
            ..Aggregated::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::parse;

    fn distinct(range: std::ops::Range<u64>) -> Tally {
        let mut tally = Tally::new(
            &Operation::Cardinality {
                field: String::new(),
            },
            0,
        );
        for i in range {
            tally.hash((event::Id::of("test", &[&i.to_le_bytes()]).0 >> 64) as u64);
        }
        tally
    }

    fn value(tally: Tally) -> (u64, bool) {
        let agg = &parse("distinct(x)", 1).unwrap()["distinct(x)"];
        match tally.finish(agg) {
            Aggregate::Cardinality {
                value, approximate, ..
            } => (value, approximate),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn distinct_values_are_exact_while_few_and_near_when_many() {
        let mut few = distinct(0..5_000);
        few.merge(distinct(2_000..7_000));
        assert_eq!(value(few), (7_000, false));
        let mut many = distinct(0..100_000);
        many.merge(distinct(50_000..150_000));
        let (found, approximate) = value(many);
        assert!(approximate);
        assert!((145_000..155_000).contains(&found), "{found}");
    }

    #[test]
    fn numbers_are_exact_while_few_and_near_when_many() {
        let numbers = |range: std::ops::Range<u32>| {
            let mut tally = Tally::new(
                &Operation::Percentiles {
                    field: String::new(),
                    percents: Vec::new(),
                },
                0,
            );
            range.for_each(|n| tally.number(f64::from(n)));
            tally
        };
        let aggs = parse("percentiles(x, 0, 50, 99, 100)", 1).unwrap();
        let agg = aggs.values().next().unwrap();
        let told = |tally: Tally| match tally.finish(agg) {
            Aggregate::Percentiles {
                values,
                approximate,
                count,
                min,
                max,
                mean,
                ..
            } => {
                let values: Vec<f64> = values.iter().map(|v| v.value).collect();
                (values, approximate, count, [min, max, mean])
            }
            other => panic!("{other:?}"),
        };
        let mut few = numbers(0..50);
        few.merge(numbers(50..101));
        assert_eq!(
            told(few),
            (
                vec![0.0, 50.0, 99.0, 100.0],
                false,
                101,
                [Some(0.0), Some(100.0), Some(50.0)]
            )
        );
        let mut many = numbers(0..100);
        many.merge(numbers(100..10_001));
        let (values, approximate, count, edges) = told(many);
        assert!(approximate && count == 10_001);
        assert_eq!(edges, [Some(0.0), Some(10_000.0), Some(5_000.0)]);
        assert!((values[1] - 5_000.0).abs() < 60.0, "{values:?}");
        assert!((values[2] - 9_900.0).abs() < 110.0, "{values:?}");
        assert_eq!(told(numbers(0..0)).0, Vec::<f64>::new());
    }

    #[test]
    fn values_that_are_let_go_are_told_as_an_error() {
        let aggs = parse("x", 2).unwrap();
        let mut tallies = Tallies::new(&aggs);
        let Tally::Terms { groups, .. } = &mut tallies.tallies[0] else {
            panic!("no terms");
        };
        for i in 0..10_u64 {
            let mut group = Group::new(&Aggregations::new(), 0);
            group.count = 100 - i;
            groups.insert(format!("v{i}"), group);
        }
        tallies.tallies[0].prune(3);
        let sent = serde_json::to_string(&tallies).unwrap();
        let mut received: Tallies = serde_json::from_str(&sent).unwrap();
        received.merge(tallies);
        let finished = received.finish(&aggs);
        let Aggregate::Terms {
            buckets,
            other,
            error,
            ..
        } = &finished.aggs["x"]
        else {
            panic!("{finished:?}");
        };
        let told: Vec<(&str, u64)> = buckets.iter().map(|b| (b.key.as_str(), b.count)).collect();
        assert_eq!(told, [("v0", 200), ("v1", 198)]);
        // Twice 97 and below, and twice v2.
        assert_eq!(
            (*other, *error),
            (2 * (97 + 96 + 95 + 94 + 93 + 92 + 91) + 2 * 98, 2 * 97)
        );
    }
}
