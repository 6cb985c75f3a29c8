//! Counts for aggregations what matches in the splits of this process.
//!
//! [`Searcher::tally`] goes through the splits newest first. Of each segment it lists the documents that match, loads
//! the values of the fields that are asked about ([`Values`]), and adds document by document. When the time is over it
//! tells what was counted of the splits that were done with, and says so. [`Searcher::aggregate`] finishes at once, for
//! who has one process only.

use std::collections::BTreeMap;
use std::time::Instant;

use event::Time;
use tantivy::query::EnableScoring;
use tantivy::{DocId, DocSet, SegmentReader, TERMINATED};

use super::tally::{Group, MAX_CELLS, Tallies, Tally};
use super::values::Values;
use super::{Aggregated, Aggregation, Aggregations, Operation};
use crate::compile::{Context, compile, stored};
use crate::counting::as_written;
use crate::query::Field;
use crate::request::{Request, SearchError};
use crate::searcher::{Order, Run, Searcher};

/// Events that are read to tell how values are written, at most.
const MAX_EXAMPLES: usize = 2_000;
/// 1970-01-05, a Monday, so that weeks begin on Mondays.
const MONDAY: i64 = 4 * 86_400_000_000;
const WEEK: i64 = 604_800_000_000;

/// The values that are asked about, by the field's name as written.
type Columns = BTreeMap<String, Values>;

/// One document as aggregations see it.
struct Row<'r> {
    columns: &'r Columns,
    /// Its place among the matching documents of its segment.
    rank: usize,
    time: i64,
    ingest_time: i64,
    place: (usize, u32, u32),
}

impl Searcher {
    /// Counts what matches: the request's query, time range and kind. Its page is not looked at.
    pub fn aggregate(
        &self,
        request: &Request,
        aggs: &Aggregations,
    ) -> Result<Aggregated, SearchError> {
        let start = Instant::now();
        let mut aggregated = self.tally(request, aggs)?.finish(aggs);
        aggregated.took = start.elapsed();
        Ok(aggregated)
    }

    /// The same, to be merged with what others have counted before it is finished.
    pub fn tally(&self, request: &Request, aggs: &Aggregations) -> Result<Tallies, SearchError> {
        self.tally_at(request, aggs, self.now(), |size| size)
    }

    /// The same at a given time. `written` says of how many values of a `terms` that tells so many it is found out how
    /// they are written: more than are told, where others may have counted more of them.
    pub(crate) fn tally_at(
        &self,
        request: &Request,
        aggs: &Aggregations,
        now: Time,
        written: fn(usize) -> usize,
    ) -> Result<Tallies, SearchError> {
        super::check(aggs).map_err(SearchError::Aggregation)?;
        let query = self.checked(request)?;
        let mut run = self.run(request, now);
        let context = self.context(&run);
        run.narrow(&query);
        let compiled = compile(&query, &context);
        let mut fields = BTreeMap::new();
        collect_fields(aggs, &mut fields);
        let searchers = self.searchers(&run).map_err(|e| self.error(e))?;
        let mut tallies = Tallies::new(aggs);
        for (number, searcher) in searchers.iter().enumerate() {
            let mut part = Tallies::new(aggs);
            let mut search = || -> tantivy::Result<()> {
                let weight = compiled.weight(EnableScoring::disabled_from_searcher(searcher))?;
                for (segment, reader) in searcher.segment_readers().iter().enumerate() {
                    let place = (number, segment as u32);
                    count(
                        &mut part, aggs, &fields, reader, &*weight, &run, &context, place,
                    )?;
                }
                Ok(())
            };
            let searched = search();
            if run.budget.is_over() {
                tallies.partial = Some(format!(
                    "{}; the newest {number} of {} parts of the index were counted",
                    self.out_of_time(),
                    searchers.len()
                ));
                break;
            }
            searched.map_err(|e| self.error(e))?;
            tallies.merge(part);
            tallies.check_times()?;
        }
        self.write_out(&mut tallies, (aggs, written), &searchers, &context)
            .map_err(|e| self.error(e))?;
        Ok(tallies)
    }

    /// Finds out how the values are written that will be told: terms are in lower case.
    fn write_out(
        &self,
        tallies: &mut Tallies,
        (aggs, written): (&Aggregations, fn(usize) -> usize),
        searchers: &[tantivy::Searcher],
        context: &Context,
    ) -> tantivy::Result<()> {
        let mut left = MAX_EXAMPLES;
        let mut stores: BTreeMap<(usize, u32), tantivy::store::StoreReader> = BTreeMap::new();
        let mut look = |key: &str, (number, segment, doc): (usize, u32, u32)| {
            if left == 0 || context.budget.is_over() {
                return Ok(None);
            }
            left -= 1;
            let store = match stores.entry((number, segment)) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(
                    searchers[number]
                        .segment_reader(segment)
                        .get_store_reader(2)?,
                ),
            };
            let bytes = stored(store, doc, &context.fields)?;
            Ok(bytes.and_then(|bytes| as_written(key, &bytes, context.kind)))
        };
        each_told(&mut tallies.tallies, aggs, written, &mut look)
    }
}

type Look<'l> = &'l mut dyn FnMut(&str, (usize, u32, u32)) -> tantivy::Result<Option<String>>;

/// Goes through the groups that will be told, the outermost first.
fn each_told(
    tallies: &mut [Tally],
    aggs: &Aggregations,
    written: fn(usize) -> usize,
    look: Look<'_>,
) -> tantivy::Result<()> {
    for (tally, agg) in tallies.iter_mut().zip(aggs.values()) {
        let told: Vec<(&String, &mut Group)> = match (tally, &agg.operation) {
            (Tally::Terms { groups, .. }, Operation::Terms { size, .. }) => {
                let mut all: Vec<_> = groups.iter_mut().collect();
                all.sort_by(|a, b| b.1.count.cmp(&a.1.count).then_with(|| a.0.cmp(b.0)));
                all.truncate(written(*size));
                all
            }
            (Tally::Times(groups), _) => {
                for group in groups.values_mut() {
                    each_told(&mut group.tallies, &agg.aggs, written, look)?;
                }
                continue;
            }
            _ => continue,
        };
        for (key, group) in told {
            if let Some(example) = group.example.take() {
                group.written = look(key, example)?;
            }
            each_told(&mut group.tallies, &agg.aggs, written, look)?;
        }
    }
    Ok(())
}

fn collect_fields(aggs: &Aggregations, found: &mut BTreeMap<String, Field>) {
    for agg in aggs.values() {
        if let Some(field) = agg.operation.field() {
            found.insert(name(&agg.operation).to_owned(), field);
        }
        collect_fields(&agg.aggs, found);
    }
}

/// The field of an operation as it is written.
fn name(operation: &Operation) -> &str {
    match operation {
        Operation::Terms { field, .. }
        | Operation::DateHistogram { field, .. }
        | Operation::Cardinality { field }
        | Operation::Percentiles { field, .. } => field,
        Operation::Count => "",
    }
}

/// Counts one segment.
#[expect(
    clippy::too_many_arguments,
    reason = "what is counted, of what, and for whom"
)]
fn count(
    tallies: &mut Tallies,
    aggs: &Aggregations,
    fields: &BTreeMap<String, Field>,
    reader: &SegmentReader,
    weight: &dyn tantivy::query::Weight,
    run: &Run<'_>,
    context: &Context,
    place: (usize, u32),
) -> tantivy::Result<()> {
    let order = Order::of(reader)?;
    let mut docs: Vec<DocId> = Vec::new();
    let mut scorer = weight.scorer(reader, 1.0)?;
    let mut doc = scorer.doc();
    let mut seen = 0_usize;
    while doc != TERMINATED {
        seen += 1;
        if seen.is_multiple_of(4_096) && run.budget.is_over() {
            return Ok(());
        }
        let alive = reader.alive_bitset().is_none_or(|a| a.is_alive(doc));
        if alive && (run.from..=run.to).contains(&order.time.get_val(doc)) {
            docs.push(doc);
        }
        doc = scorer.advance();
    }
    if docs.is_empty() {
        return Ok(());
    }
    let mut columns = Columns::new();
    for (name, field) in fields {
        match Values::load(reader, field, &docs, context)? {
            Some(values) => {
                columns.insert(name.clone(), values);
            }
            None => {
                tallies.partial = Some(format!(
                    "`{name}` has too many values in a part of the index, which was left out; narrow the time range or the query"
                ));
                return Ok(());
            }
        }
    }
    let ingest = reader
        .fast_fields()
        .i64("ingest_time")?
        .first_or_default_col(0);
    for (rank, &doc) in docs.iter().enumerate() {
        if rank.is_multiple_of(4_096) && run.budget.is_over() {
            return Ok(());
        }
        if rank.is_multiple_of(MAX_CELLS / 32) {
            tallies.bound();
        }
        let row = Row {
            columns: &columns,
            rank,
            time: order.time.get_val(doc),
            ingest_time: ingest.get_val(doc),
            place: (place.0, place.1, doc),
        };
        add(&mut tallies.tallies, aggs, &row, 0);
    }
    tallies.matched += docs.len() as u64;
    Ok(())
}

fn add(tallies: &mut [Tally], aggs: &Aggregations, row: &Row<'_>, level: usize) {
    for (tally, agg) in tallies.iter_mut().zip(aggs.values()) {
        add_one(tally, agg, row, level);
    }
}

fn add_one(tally: &mut Tally, agg: &Aggregation, row: &Row<'_>, level: usize) {
    let values = row.columns.get(name(&agg.operation));
    match (tally, &agg.operation) {
        (Tally::Count(count), _) => *count += 1,
        (Tally::Times(groups), Operation::DateHistogram { field, interval }) => {
            let time = match field.as_str() {
                "ingest_time" => row.ingest_time,
                _ => row.time,
            };
            let from = if interval % WEEK == 0 { MONDAY } else { 0 };
            let begin = (time - from).div_euclid(*interval) * interval + from;
            let group = groups
                .entry(begin)
                .or_insert_with(|| Group::new(&agg.aggs, level));
            group.count += 1;
            add(&mut group.tallies, &agg.aggs, row, level + 1);
        }
        (
            Tally::Terms {
                groups, missing, ..
            },
            _,
        ) => {
            let Some(values) = values else { return };
            let ordinals = values.of(row.rank);
            *missing += u64::from(ordinals.is_empty());
            for ordinal in ordinals {
                let key = values.texts[*ordinal as usize].as_str();
                if !groups.contains_key(key) {
                    let mut group = Group::new(&agg.aggs, level);
                    group.example = values.folded.then_some(row.place);
                    groups.insert(key.to_owned(), group);
                }
                if let Some(group) = groups.get_mut(key) {
                    group.count += 1;
                    add(&mut group.tallies, &agg.aggs, row, level + 1);
                }
            }
        }
        (tally @ Tally::Distinct { .. }, _) => {
            let Some(values) = values else { return };
            for ordinal in values.of(row.rank) {
                tally.hash(values.hash(*ordinal));
            }
        }
        (tally @ Tally::Numbers { .. }, _) => {
            let Some(values) = values else { return };
            for ordinal in values.of(row.rank) {
                values
                    .number(*ordinal)
                    .into_iter()
                    .for_each(|n| tally.number(n));
            }
        }
        (Tally::Times(_), _) => {}
    }
}
