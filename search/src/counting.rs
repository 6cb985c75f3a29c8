//! Counting what matches: over time, and by the values of a field.
//!
//! [`Searcher::histogram`] and [`Searcher::top`] look at everything that matches, so they take no page; a count that
//! would take too long is refused with [`SearchError::Timeout`], since a count of a part misleads. The common normalized
//! fields have columns and are counted without their terms; any other field is counted by walking its terms.

use std::collections::HashMap;

use event::{Event, Time};
use tantivy::query::EnableScoring;
use tantivy::{BitSet, DocId, DocSet, SegmentReader, TERMINATED};

use crate::compile::{Context, compile, stored};
use crate::lookup;
use crate::query::matches::Subject;
use crate::query::{Field, Query};
use crate::request::{Bucket, Kind, MAX_BUCKETS, Request, SearchError};
use crate::schema::{COLUMNS, FINDING_COLUMNS, value_term_into};
use crate::searcher::{Order, Run, Searcher};
use crate::text::fold;

impl Searcher {
    /// How many match over time, in `buckets` bars between the request's times, or those of the index where it has none.
    pub fn histogram(&self, request: &Request, buckets: usize) -> Result<Vec<Bucket>, SearchError> {
        if buckets > MAX_BUCKETS {
            return Err(SearchError::Limit {
                asked: buckets,
                allowed: MAX_BUCKETS,
            });
        }
        let now = self.now();
        match self.edges(request, now)? {
            Some((from, to)) if buckets > 0 => {
                let mut bars = bars(from, to, buckets);
                let counts = self.bars(request, now, (from, to), buckets)?;
                for (bar, count) in bars.iter_mut().zip(counts) {
                    bar.count = count;
                }
                Ok(bars)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// How many match in each bar of [`bars`].
    pub(crate) fn bars(
        &self,
        request: &Request,
        now: Time,
        (from, to): (Time, Time),
        buckets: usize,
    ) -> Result<Vec<u64>, SearchError> {
        let request = Request {
            from: Some(from),
            to: Some(to),
            after: None,
            ..request.clone()
        };
        let query = self.checked(&request)?;
        let run = self.run(&request, now);
        let mut bars = bars(from, to, buckets);
        if matches!(query, Query::All) && request.kind == Kind::Events {
            self.all_over_time(&run, &mut bars)
                .map_err(|e| self.error(e))?;
            if run.budget.is_over() {
                return Err(SearchError::Timeout(self.timeout()));
            }
        } else {
            let width = width(from, to, buckets);
            self.each_match(&query, &run, |_, order, doc| {
                let time = order.time.get_val(doc);
                if (from.0..=to.0).contains(&time)
                    && let Some(bar) = bars.get_mut(((time - from.0) / width) as usize)
                {
                    bar.count += 1;
                }
            })?;
        }
        Ok(bars.into_iter().map(|bar| bar.count).collect())
    }

    /// Counts all events, which stand in order of time in their splits: nothing is looked at but the ends of bars.
    fn all_over_time(&self, run: &Run<'_>, bars: &mut [Bucket]) -> tantivy::Result<()> {
        for searcher in self.searchers(run)? {
            for reader in searcher.segment_readers() {
                if run.budget.is_over() {
                    return Ok(());
                }
                let order = Order::of(reader)?;
                for bar in &mut *bars {
                    let (first, last) = (bar.from.0.max(run.from), (bar.to.0 - 1).min(run.to));
                    let (start, end) = order.within(first, last, reader.max_doc());
                    bar.count += u64::from(end.saturating_sub(start));
                }
            }
        }
        Ok(())
    }

    /// The time range asked for, or that of what there is; none where the index has nothing to say of it.
    pub(crate) fn edges(
        &self,
        request: &Request,
        now: Time,
    ) -> Result<Option<(Time, Time)>, SearchError> {
        self.checked(request)?;
        let run = self.run(request, now);
        let known = self.known_edges(&run).map_err(|e| self.error(e))?;
        Ok(edges(request, known))
    }

    /// The times of what there is within the range asked for.
    fn known_edges(&self, run: &Run<'_>) -> tantivy::Result<Option<(Time, Time)>> {
        let known = match run.request.kind {
            Kind::Events => {
                let splits = self.splits(run)?;
                let first = splits.iter().map(|s| s.meta.earliest.0).min();
                first.zip(splits.iter().map(|s| s.meta.latest.0).max())
            }
            Kind::Findings => match self.catalog().findings()? {
                None => None,
                Some(findings) => {
                    let searcher = findings.searcher();
                    let mut edges = None;
                    for reader in searcher.segment_readers() {
                        let time = Order::of(reader)?.time;
                        let (low, high) = edges.unwrap_or((i64::MAX, i64::MIN));
                        edges = Some((time.min_value().min(low), time.max_value().max(high)));
                    }
                    edges
                }
            },
        };
        Ok(known.map(|(from, to)| (Time(from), Time(to))))
    }

    /// Calls `each` for all that match.
    pub(crate) fn each_match(
        &self,
        query: &Query,
        run: &Run<'_>,
        mut each: impl FnMut(&SegmentReader, &Order, DocId),
    ) -> Result<(), SearchError> {
        let context = self.context(run);
        let compiled = compile(query, &context);
        let searchers = self.searchers(run).map_err(|e| self.error(e))?;
        for searcher in searchers {
            let mut search = || -> tantivy::Result<()> {
                let weight = compiled.weight(EnableScoring::disabled_from_searcher(&searcher))?;
                for reader in searcher.segment_readers() {
                    let order = Order::of(reader)?;
                    // Events stand in order of time.
                    let (start, end) = match run.request.kind {
                        Kind::Events => order.within(run.from, run.to, reader.max_doc()),
                        Kind::Findings => (0, reader.max_doc()),
                    };
                    if start >= end {
                        continue;
                    }
                    let mut docs = weight.scorer(reader, 1.0)?;
                    let mut doc = docs.doc();
                    if doc < start {
                        doc = docs.seek(start);
                    }
                    let mut seen = 0_usize;
                    while doc < end {
                        seen += 1;
                        if seen.is_multiple_of(4_096) && run.budget.is_over() {
                            return Ok(());
                        }
                        let is_meant = run.request.kind == Kind::Events
                            || (reader.alive_bitset().is_none_or(|a| a.is_alive(doc))
                                && (run.from..=run.to).contains(&order.time.get_val(doc)));
                        if is_meant {
                            each(reader, &order, doc);
                        }
                        doc = docs.advance();
                    }
                }
                Ok(())
            };
            let searched = search();
            if run.budget.is_over() {
                return Err(SearchError::Timeout(self.timeout()));
            }
            searched.map_err(|e| self.error(e))?;
        }
        Ok(())
    }

    /// For searching what reaches into the time range.
    pub(crate) fn searchers(&self, run: &Run<'_>) -> tantivy::Result<Vec<tantivy::Searcher>> {
        Ok(match run.request.kind {
            Kind::Events => self.splits(run)?.iter().map(|s| s.searcher()).collect(),
            Kind::Findings => {
                let findings = self.catalog().findings()?;
                findings.iter().map(|f| f.searcher()).collect()
            }
        })
    }

    /// The most frequent values of a field among what matches, and how often they come: the most frequent first, equal
    /// ones by value.
    pub fn top(
        &self,
        request: &Request,
        field: &str,
        limit: usize,
    ) -> Result<Vec<(String, u64)>, SearchError> {
        let query = self.checked(request)?;
        let run = self.run(request, self.now());
        let field = Field::named(field);
        let columns = match request.kind {
            Kind::Events => COLUMNS,
            Kind::Findings => FINDING_COLUMNS,
        };
        let column = columns
            .iter()
            .find(|c| **c == field.name && (!field.original || request.kind == Kind::Findings));
        let mut matched: Vec<(SegmentReader, BitSet)> = Vec::new();
        self.each_match(&query, &run, |reader, _, doc| {
            if matched
                .last()
                .is_none_or(|m| m.0.segment_id() != reader.segment_id())
            {
                matched.push((reader.clone(), BitSet::with_max_value(reader.max_doc())));
            }
            if let Some((_, docs)) = matched.last_mut() {
                docs.insert(doc);
            }
        })?;
        let context = self.context(&run);
        let counted = match column {
            Some(column) => count_column(&matched, &format!("column_{column}"), limit),
            None => count_terms(&matched, &context.path(&field), &context, limit),
        };
        counted.map_err(|e| match run.budget.is_over() {
            true => SearchError::Timeout(self.timeout()),
            false => self.error(e),
        })
    }
}

/// The range that a histogram is about, where `known` are the times of what there is.
pub(crate) fn edges(request: &Request, known: Option<(Time, Time)>) -> Option<(Time, Time)> {
    let from = request.from.or(known.map(|k| k.0));
    let to = request.to.or(known.map(|k| k.1));
    from.zip(to).filter(|(from, to)| from <= to)
}

/// How long a bar is, so that `buckets` of them reach from `from` to `to`.
fn width(from: Time, to: Time, buckets: usize) -> i64 {
    let span = i128::from(to.0) - i128::from(from.0) + 1;
    ((span + buckets as i128 - 1) / buckets as i128).max(1) as i64
}

/// The bars of a histogram, empty.
pub(crate) fn bars(from: Time, to: Time, buckets: usize) -> Vec<Bucket> {
    let width = width(from, to, buckets);
    (0..buckets as i64)
        .map(|i| Bucket {
            from: from.plus(width.saturating_mul(i)),
            to: from.plus(width.saturating_mul(i + 1)),
            count: 0,
        })
        .filter(|b| b.from <= to)
        .collect()
}

/// The `limit` most frequent, equal ones by value.
fn most<T>(counts: HashMap<String, (u64, T)>, limit: usize) -> Vec<(String, (u64, T))> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.0.cmp(&a.1.0).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(limit);
    counts
}

/// Counts the values of a column among the documents that matched.
fn count_column(
    matched: &[(SegmentReader, BitSet)],
    name: &str,
    limit: usize,
) -> tantivy::Result<Vec<(String, u64)>> {
    let mut counts: HashMap<String, (u64, ())> = HashMap::new();
    for (reader, docs) in matched {
        let Some(column) = reader.fast_fields().str(name)? else {
            continue;
        };
        // Values of a column are numbered without gaps.
        let mut by_ordinal = vec![0_u64; column.num_terms()];
        for doc in (0..reader.max_doc()).filter(|doc| docs.contains(*doc)) {
            for ordinal in column.term_ords(doc) {
                by_ordinal[ordinal as usize] += 1;
            }
        }
        for (ordinal, count) in by_ordinal.into_iter().enumerate().filter(|c| c.1 > 0) {
            let mut value = String::new();
            if column.ord_to_str(ordinal as u64, &mut value)? {
                counts.entry(value).or_default().0 += count;
            }
        }
    }
    Ok(most(counts, limit)
        .into_iter()
        .map(|(v, (n, ()))| (v, n))
        .collect())
}

/// Counts the values of a path among the documents that matched. Terms are in lower case and long ones are cut; how the
/// most frequent values are written is read from a document that has them.
fn count_terms(
    matched: &[(SegmentReader, BitSet)],
    path: &str,
    context: &Context,
    limit: usize,
) -> tantivy::Result<Vec<(String, u64)>> {
    let mut counts: HashMap<String, (u64, (usize, DocId))> = HashMap::new();
    for (segment, (reader, docs)) in matched.iter().enumerate() {
        let (fields, budget) = (&context.fields, &context.budget);
        lookup::walk(reader, fields, Some(path), "", budget, &mut |value| {
            let mut postings = value.postings()?;
            let (mut count, mut example) = (0, 0);
            while postings.doc() != TERMINATED {
                if docs.contains(postings.doc()) {
                    count += 1;
                    example = postings.doc();
                }
                postings.advance();
            }
            if count > 0 {
                let of_value = counts.entry(value.term.clone().into_owned());
                of_value.or_insert((0, (segment, example))).0 += count;
            }
            Ok(())
        })?;
    }
    most(counts, limit)
        .into_iter()
        .map(|(value, (count, (segment, doc)))| {
            let store = matched[segment].0.get_store_reader(1)?;
            let written = match stored(&store, doc, &context.fields)? {
                Some(bytes) => as_written(&value, &bytes, context.kind),
                None => None,
            };
            Ok((written.unwrap_or(value), count))
        })
        .collect()
}

/// A value as its document writes it.
pub(crate) fn as_written(term: &str, stored: &bytes::Bytes, kind: Kind) -> Option<String> {
    let same = |value: &String| {
        let mut own = String::new();
        value_term_into(&fold(value), &mut own);
        own == term
    };
    match kind {
        Kind::Events => {
            let event = Event::decode(stored).ok()?;
            Subject::event(&event).texts(false).into_iter().find(same)
        }
        Kind::Findings => Subject::finding(stored).texts(false).into_iter().find(same),
    }
}
