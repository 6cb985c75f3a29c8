//! Answers requests over all published splits.
//!
//! [`Searcher::search`] looks at splits in order of their latest event and stops when the page is full and no other
//! split reaches into it; within a split events stand newest first, so that it stops there as well. Pages are continued
//! by [`Cursor`], the time and id of the last event given, which stays right while new events come in. An answer that
//! takes longer than the configured time is cut short and says so in [`Answer::partial`].
//!
//! A searcher may be used from many threads. It never fails because a split was merged away or expired: what it has
//! opened stays readable until it lets go.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event::{Clock, Event, Flag, Id, Time};
use tantivy::columnar::ColumnValues;
use tantivy::query::EnableScoring;
use tantivy::schema::Value;
use tantivy::{
    DocAddress, DocId, DocSet, SegmentReader, TERMINATED, TantivyDocument, TantivyError,
};

use crate::catalog::{Catalog, Splits};
use crate::compile::{Budget, Context, compile, id_term};
use crate::lookup;
use crate::nodes::Part;
use crate::query::matches::micros;
use crate::query::{Query, Test};
use crate::request::{Answer, Cursor, Kind, Request, SearchError};
use crate::schema::Fields;
use crate::split::Split;
use crate::{Config, Metrics};

/// What an envelope comes to beside its original, in bytes, where pages are bounded.
const ENVELOPE: usize = 1_024;

/// Answers searches. Cheap to clone; all clones see the same splits.
#[derive(Clone)]
pub struct Searcher {
    inner: Arc<Inner>,
}

struct Inner {
    catalog: Catalog,
    events: Arc<Fields>,
    findings: Arc<Fields>,
    config: Config,
    metrics: Metrics,
    clock: Clock,
}

/// A document in the order of answers: time and id, and where it is.
pub(crate) type Page = BTreeMap<(i64, u128), (usize, DocAddress)>;

/// What is searched and how far it has come.
pub(crate) struct Run<'r> {
    pub(crate) request: &'r Request,
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// What `now` means in the query.
    pub(crate) now: Time,
    pub(crate) budget: Budget,
    pub(crate) page: Page,
    count: u64,
    skipped: bool,
}

/// The columns that give the order.
pub(crate) struct Order {
    pub(crate) time: Arc<dyn ColumnValues<i64>>,
    high: Arc<dyn ColumnValues<u64>>,
    low: Arc<dyn ColumnValues<u64>>,
}

impl Order {
    pub(crate) fn of(reader: &SegmentReader) -> tantivy::Result<Order> {
        let fast = reader.fast_fields();
        Ok(Order {
            time: fast.i64("time")?.first_or_default_col(0),
            high: fast.u64("id_high")?.first_or_default_col(0),
            low: fast.u64("id_low")?.first_or_default_col(0),
        })
    }

    pub(crate) fn id(&self, doc: DocId) -> u128 {
        u128::from(self.high.get_val(doc)) << 64 | u128::from(self.low.get_val(doc))
    }

    /// In a split, where times fall: the documents within `from` and `to`, both included.
    pub(crate) fn within(&self, from: i64, to: i64, docs: DocId) -> (DocId, DocId) {
        let first_below = |limit: i64| {
            let (mut low, mut high) = (0, docs);
            while low < high {
                let middle = low + (high - low) / 2;
                if self.time.get_val(middle) >= limit {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            low
        };
        let start = to.checked_add(1).map_or(0, first_below);
        (start, first_below(from))
    }
}

impl Run<'_> {
    /// Takes into account what the query itself says of `time`, so that fewer splits are asked.
    pub(crate) fn narrow(&mut self, query: &Query) {
        if self.request.kind != Kind::Events {
            return;
        }
        match query {
            Query::And(parts) => parts.iter().for_each(|part| self.narrow(part)),
            Query::Field(field, Test::Range(from, to))
                if field.is_time() && field.name == "time" =>
            {
                let (from, to) = micros(from, to, self.now);
                self.from = self.from.max(from);
                self.to = self.to.min(to);
            }
            _ => {}
        }
    }

    /// Where the page ends, if it is full.
    pub(crate) fn next(&self) -> Option<Cursor> {
        if self.request.limit == 0 || self.page.len() < self.request.limit {
            return None;
        }
        let last = match self.request.newest_first {
            true => self.page.first_key_value(),
            false => self.page.last_key_value(),
        };
        last.map(|(key, _)| Cursor {
            time: Time(key.0),
            id: Id(key.1),
        })
    }

    /// Can nothing of this time reach the page any more?
    fn is_beyond(&self, time: i64) -> bool {
        let full = self.page.len() >= self.request.limit;
        full && match self.request.newest_first {
            true => self.page.first_key_value().is_none_or(|(k, _)| time < k.0),
            false => self.page.last_key_value().is_none_or(|(k, _)| time > k.0),
        }
    }

    fn add(&mut self, key: (i64, u128), place: (usize, DocAddress)) {
        if let Some(cursor) = self.request.after {
            let after = (cursor.time.0, cursor.id.0);
            let comes_after = match self.request.newest_first {
                true => key < after,
                false => key > after,
            };
            if !comes_after {
                return;
            }
        }
        self.page.insert(key, place);
        if self.page.len() > self.request.limit {
            match self.request.newest_first {
                true => self.page.pop_first(),
                false => self.page.pop_last(),
            };
        }
    }

    /// Looks through one segment; `sorted` tells that its times fall.
    fn segment(
        &mut self,
        weight: &dyn tantivy::query::Weight,
        searcher: &tantivy::Searcher,
        place: (usize, u32),
        sorted: bool,
    ) -> tantivy::Result<()> {
        let reader = searcher.segment_reader(place.1);
        let order = Order::of(reader)?;
        let (start, end) = match sorted {
            true => order.within(self.from, self.to, reader.max_doc()),
            false => (0, reader.max_doc()),
        };
        if start >= end {
            return Ok(());
        }
        let mut docs = weight.scorer(reader, 1.0)?;
        let mut doc = docs.doc();
        if doc < start {
            doc = docs.seek(start);
        }
        let mut full = false;
        let mut seen = 0_usize;
        while doc < end {
            seen += 1;
            if seen.is_multiple_of(1_024) && self.budget.is_over() {
                return Ok(());
            }
            if !sorted
                && reader
                    .alive_bitset()
                    .is_some_and(|alive| !alive.is_alive(doc))
            {
                doc = docs.advance();
                continue;
            }
            if !full {
                let time = order.time.get_val(doc);
                if sorted && self.request.newest_first && self.is_beyond(time) {
                    if !self.request.count {
                        self.skipped = true;
                        return Ok(());
                    }
                    full = true;
                } else if sorted || (self.from..=self.to).contains(&time) {
                    if !self.is_beyond(time) {
                        self.add(
                            (time, order.id(doc)),
                            (place.0, DocAddress::new(place.1, doc)),
                        );
                    }
                } else {
                    doc = docs.advance();
                    continue;
                }
            }
            self.count += 1;
            doc = docs.advance();
        }
        Ok(())
    }
}

impl Searcher {
    /// Opens the index folder `dir`, which need not exist yet.
    pub fn open(
        dir: &Path,
        config: &Config,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Searcher, SearchError> {
        let catalog = Catalog::open(dir).map_err(|source| SearchError::Index {
            path: dir.to_owned(),
            source,
        })?;
        Ok(Searcher::of(catalog, config, metrics, clock))
    }

    /// As [`Searcher::open`], with nothing opened: for mending an index that cannot be read ([`crate::rebuild`]).
    pub fn closed(dir: &Path, config: &Config, metrics: Metrics, clock: Clock) -> Searcher {
        Searcher::of(Catalog::closed(dir), config, metrics, clock)
    }

    fn of(catalog: Catalog, config: &Config, metrics: Metrics, clock: Clock) -> Searcher {
        Searcher {
            inner: Arc::new(Inner {
                catalog,
                events: Arc::new(Fields::events()),
                findings: Arc::new(Fields::findings()),
                config: config.clone(),
                metrics,
                clock,
            }),
        }
    }

    /// What events are indexed with.
    pub(crate) fn event_fields(&self) -> Arc<Fields> {
        Arc::clone(&self.inner.events)
    }

    /// From now on the index stage writes down in this evidence log what it publishes, before it does.
    pub fn attest(&self, ledger: Arc<bus::ledger::Ledger>) {
        self.inner.catalog.attest(ledger);
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.inner.config.timeout_ms)
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    pub(crate) fn error(&self, source: TantivyError) -> SearchError {
        self.inner
            .metrics
            .errors
            .with_label_values(&["query"])
            .inc();
        SearchError::Index {
            path: self.inner.catalog.dir().to_owned(),
            source,
        }
    }

    pub(crate) fn context(&self, run: &Run<'_>) -> Context {
        let kind = run.request.kind;
        Context {
            fields: match kind {
                Kind::Events => self.inner.events.clone(),
                Kind::Findings => self.inner.findings.clone(),
            },
            kind,
            now: run.now,
            budget: run.budget.clone(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        (self.inner.clock)()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn clock(&self) -> Clock {
        self.inner.clock.clone()
    }

    fn budget(&self) -> Budget {
        Budget::until(Instant::now() + Duration::from_millis(self.inner.config.timeout_ms))
    }

    /// Answers a request.
    pub fn search(&self, request: &Request) -> Result<Answer, SearchError> {
        let start = Instant::now();
        let part = self.part(request, self.now(), usize::MAX)?;
        let mut answer = part.answer(request.kind);
        answer.took = start.elapsed();
        Ok(answer)
    }

    /// What this index has of an answer. The page ends early, to be continued, where its events come to `bytes`.
    pub(crate) fn part(
        &self,
        request: &Request,
        now: Time,
        bytes: usize,
    ) -> Result<Part, SearchError> {
        let start = Instant::now();
        let query = self.checked(request)?;
        let mut run = self.run(request, now);
        let context = self.context(&run);
        run.narrow(&query);
        let mut part = Part::default();
        let found = match request.kind {
            Kind::Events => {
                self.find_events(&query, &context, &mut run)
                    .and_then(|(searchers, partial)| {
                        part.partial = partial;
                        part.next = run.next();
                        let mut left = bytes;
                        for &(split, address) in in_order(&run) {
                            let Some(event) = load(&searchers[split], address, &context.fields)?
                            else {
                                continue;
                            };
                            left = left.saturating_sub(event.raw.len() + ENVELOPE);
                            let (time, id) = (event.time, event.id);
                            part.hits.push(event);
                            if left == 0 {
                                part.next = Some(Cursor { time, id });
                                break;
                            }
                        }
                        Ok(())
                    })
            }
            Kind::Findings => self.find_findings(&query, &context, &mut run, &mut part),
        };
        found.map_err(|e| self.error(e))?;
        if request.after.is_none() {
            part.unknown = self
                .unknown_fields(&query, &run)
                .map_err(|e| self.error(e))?;
        }
        let complete = !run.skipped && request.after.is_none() && part.partial.is_none();
        part.total = complete.then_some(run.count);
        let took = start.elapsed().as_secs_f64();
        self.inner.metrics.search_seconds.observe(took);
        Ok(part)
    }

    pub(crate) fn out_of_time(&self) -> String {
        format!(
            "stopped after {} ms; narrow the time range, or avoid wildcards at the start of a value",
            self.inner.config.timeout_ms
        )
    }

    pub(crate) fn checked(&self, request: &Request) -> Result<Query, SearchError> {
        request.checked(self.inner.config.max_limit)
    }

    pub(crate) fn run<'r>(&self, request: &'r Request, now: Time) -> Run<'r> {
        let mut from = request.from.map_or(i64::MIN, |t| t.0);
        let mut to = request.to.map_or(i64::MAX, |t| t.0);
        match request.after {
            Some(cursor) if request.newest_first => to = to.min(cursor.time.0),
            Some(cursor) => from = from.max(cursor.time.0),
            None => {}
        }
        Run {
            request,
            from,
            to,
            now,
            budget: self.budget(),
            page: Page::new(),
            count: 0,
            skipped: false,
        }
    }

    /// The splits that reach into the time range, those first that matter first.
    pub(crate) fn splits(&self, run: &Run<'_>) -> tantivy::Result<Vec<Arc<Split>>> {
        let all: Splits = self.inner.catalog.current()?;
        let mut splits: Vec<Arc<Split>> = all
            .iter()
            .filter(|s| s.meta.earliest.0 <= run.to && s.meta.latest.0 >= run.from)
            .cloned()
            .collect();
        splits.sort_by_key(|s| match run.request.newest_first {
            true => -s.meta.latest.0,
            false => s.meta.earliest.0,
        });
        Ok(splits)
    }

    /// Fills the page with the places of events. Gives what they are loaded from, and why the page is not complete.
    pub(crate) fn find_events(
        &self,
        query: &Query,
        context: &Context,
        run: &mut Run<'_>,
    ) -> tantivy::Result<(Vec<tantivy::Searcher>, Option<String>)> {
        let mut partial = None;
        let splits = self.splits(run)?;
        let compiled = compile(query, context);
        let mut searchers = Vec::with_capacity(splits.len());
        for (number, split) in splits.iter().enumerate() {
            let edge = match run.request.newest_first {
                true => split.meta.latest.0,
                false => split.meta.earliest.0,
            };
            if run.is_beyond(edge) && !run.request.count {
                run.skipped = true;
                break;
            }
            if run.budget.is_over() {
                run.skipped = true;
                partial = Some(self.out_of_time());
                break;
            }
            let searcher = split.searcher();
            let searched = compiled
                .weight(EnableScoring::disabled_from_searcher(&searcher))
                .and_then(|weight| {
                    (0..searcher.segment_readers().len() as u32).try_for_each(|segment| {
                        run.segment(&*weight, &searcher, (number, segment), true)
                    })
                });
            searchers.push(searcher);
            match searched {
                // Also an error may be nothing but the end of the time.
                _ if run.budget.is_over() => {
                    run.skipped = true;
                    partial = Some(self.out_of_time());
                    break;
                }
                Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((searchers, partial))
    }

    fn find_findings(
        &self,
        query: &Query,
        context: &Context,
        run: &mut Run<'_>,
        part: &mut Part,
    ) -> tantivy::Result<()> {
        let Some(findings) = self.inner.catalog.findings()? else {
            return Ok(());
        };
        let searcher = findings.searcher();
        let weight =
            compile(query, context).weight(EnableScoring::disabled_from_searcher(&searcher))?;
        for segment in 0..searcher.segment_readers().len() as u32 {
            let searched = run.segment(&*weight, &searcher, (0, segment), false);
            if run.budget.is_over() {
                run.skipped = true;
                part.partial = Some(self.out_of_time());
                break;
            }
            searched?;
        }
        part.next = run.next();
        for &(_, address) in in_order(run) {
            let document: TantivyDocument = searcher.doc(address)?;
            let stored = document.get_first(context.fields.stored);
            let finding = stored
                .as_ref()
                .and_then(|v| v.as_bytes())
                .and_then(|json| serde_json::from_slice(json).ok());
            part.findings.extend(finding);
        }
        Ok(())
    }

    /// The events with these ids, in their order; those that are not there are left out.
    ///
    /// # Errors
    /// [`SearchError::Index`] where the index cannot be read: then nobody knows whether they are there.
    pub fn events(&self, ids: &[Id]) -> Result<Vec<Event>, SearchError> {
        let mut found: HashMap<Id, Event> = HashMap::new();
        let mut search = || -> tantivy::Result<()> {
            for split in self.inner.catalog.current()?.iter().rev() {
                if found.len() == ids.len() {
                    break;
                }
                let searcher = split.searcher();
                for id in ids {
                    if !found.contains_key(id)
                        && let Some(event) = self.look_up(&searcher, *id)?
                    {
                        found.insert(*id, event);
                    }
                }
            }
            Ok(())
        };
        search().map_err(|e| self.error(e))?;
        Ok(ids.iter().filter_map(|id| found.get(id).cloned()).collect())
    }

    /// Does the index have this event? Asked of the splits that have events of its time.
    pub(crate) fn has(&self, event: &Event) -> tantivy::Result<bool> {
        let fields = &self.inner.events;
        let term = id_term(event.id);
        // Without a time of its own it may have had another one.
        let anywhere = event.flags.has(Flag::TsInferred);
        for split in self.inner.catalog.current()?.iter().rev() {
            let meta = &split.meta;
            if !anywhere && !(meta.earliest..=meta.latest).contains(&event.time) {
                continue;
            }
            for reader in split.searcher().segment_readers() {
                let found = lookup::postings(reader, fields, &term)?;
                if found.first().is_some_and(|p| p.doc() != TERMINATED) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn look_up(&self, searcher: &tantivy::Searcher, id: Id) -> tantivy::Result<Option<Event>> {
        let fields = &self.inner.events;
        let term = id_term(id);
        for (segment, reader) in searcher.segment_readers().iter().enumerate() {
            let found = lookup::postings(reader, fields, &term)?;
            if let Some(doc) = found.first().map(DocSet::doc).filter(|d| *d != TERMINATED) {
                return load(searcher, DocAddress::new(segment as u32, doc), fields);
            }
        }
        Ok(None)
    }
}

/// The places of a page in the order asked for.
fn in_order<'p>(run: &'p Run<'_>) -> Box<dyn Iterator<Item = &'p (usize, DocAddress)> + 'p> {
    match run.request.newest_first {
        true => Box::new(run.page.values().rev()),
        false => Box::new(run.page.values()),
    }
}

pub(crate) fn load(
    searcher: &tantivy::Searcher,
    address: DocAddress,
    fields: &Fields,
) -> tantivy::Result<Option<Event>> {
    let document: TantivyDocument = searcher.doc(address)?;
    let stored = document.get_first(fields.stored);
    let Some(frame) = stored.as_ref().and_then(|v| v.as_bytes()) else {
        return Ok(None);
    };
    match Event::decode(&bytes::Bytes::copy_from_slice(frame)) {
        Ok(event) => Ok(Some(event)),
        Err(error) => {
            tracing::error!(%error, "a stored event cannot be read");
            Ok(None)
        }
    }
}
