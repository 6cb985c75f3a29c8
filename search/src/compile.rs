//! Turns a [`Query`] into a search of a split.
//!
//! [`compile`] builds tantivy's boolean queries over leaves. A [`Leaf`] is one test: a term, a phrase, a range of the
//! time columns, or a walk over the terms of one field with a [`Check`] put to each. A walk costs as much as the field
//! has distinct values, so every walk looks at the [`Budget`] and gives up when the time for the answer is over.
//!
//! Terms of values that were cut, and events beyond the bounds of the index, cannot be decided by terms: their stored
//! originals are compared by [`Query::matches_subject`]. So a leaf is exact, also under NOT.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use event::{Event, Time};
use tantivy::query::{
    AllQuery, BitSetDocSet, BooleanQuery, ConstScorer, EmptyQuery, EmptyScorer, EnableScoring,
    Explanation, Occur, PhraseQuery, Query as TantivyQuery, Scorer, TermQuery, Weight,
};
use tantivy::schema::{IndexRecordOption, Value};
use tantivy::store::StoreReader;
use tantivy::{
    BitSet, DocId, DocSet, SegmentReader, TERMINATED, TantivyDocument, TantivyError, Term,
};

use crate::lookup::{self, insert, range};
use crate::query::check::{Check, is_about_words};
use crate::query::matches::{Subject, micros};
use crate::query::{Field, Query, Test};
use crate::request::Kind;
use crate::schema::{Fields, MARK, OVERFLOW, term};
use crate::text::{fold, key_into, words};

/// The time until which an answer may be worked on.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    end: Instant,
    over: Arc<AtomicBool>,
}

impl Budget {
    pub(crate) fn until(end: Instant) -> Budget {
        Budget {
            end,
            over: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Is the time over? From then on it stays over.
    pub(crate) fn is_over(&self) -> bool {
        if self.over.load(Ordering::Relaxed) {
            return true;
        }
        let over = Instant::now() >= self.end;
        if over {
            self.over.store(true, Ordering::Relaxed);
        }
        over
    }

    /// Fails once the time is over; looks at the clock at every 1,024th `count`.
    pub(crate) fn check(&self, count: usize) -> tantivy::Result<()> {
        if count.is_multiple_of(1_024) && self.is_over() {
            return Err(TantivyError::InternalError("out of time".to_owned()));
        }
        Ok(())
    }
}

/// What a query is compiled for.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) fields: Arc<Fields>,
    pub(crate) kind: Kind,
    pub(crate) now: Time,
    pub(crate) budget: Budget,
}

/// The search for a query.
pub(crate) fn compile(query: &Query, context: &Context) -> Box<dyn TantivyQuery> {
    match query {
        Query::And(parts) => all_of(parts, context),
        Query::Not(_) => all_of(std::slice::from_ref(query), context),
        Query::Or(parts) => Box::new(BooleanQuery::new(
            parts
                .iter()
                .map(|part| (Occur::Should, compile(part, context)))
                .collect(),
        )),
        clause => match seek(clause, context) {
            Some(seek) => leaf(clause, seek, context),
            None => Box::new(AllQuery),
        },
    }
}

/// How the events of one clause are found; `None` where these are all events, or it is no single clause.
pub(crate) fn seek(query: &Query, context: &Context) -> Option<Seek> {
    let events = context.kind == Kind::Events;
    Some(match query {
        Query::All | Query::And(_) | Query::Or(_) | Query::Not(_) => return None,
        Query::Exists(field) if events && field.is_time() => return None,
        Query::Exists(field) => Seek::Term(context.path(field)),
        Query::Field(field, Test::Range(from, to)) if events && field.is_time() => {
            let (from, to) = micros(from, to, context.now);
            Seek::Time(field.name.clone(), from, to)
        }
        Query::Field(field, test) => {
            let path = context.path(field);
            match Check::value(test, field.is_words(), context.now) {
                Check::Equal(text) => Seek::Term(term(&path, &text)),
                Check::OneOf(texts) => {
                    Seek::Terms(texts.iter().map(|text| term(&path, text)).collect())
                }
                check => Seek::Values(Some(path), check),
            }
        }
        Query::Text(test) => match Check::value(test, false, context.now) {
            Check::Equal(text) => Seek::Phrase(words(&text).map(str::to_owned).collect()),
            check if is_about_words(test) => Seek::Words(check),
            check => Seek::Values(None, check),
        },
    })
}

fn all_of(parts: &[Query], context: &Context) -> Box<dyn TantivyQuery> {
    let mut clauses: Vec<(Occur, Box<dyn TantivyQuery>)> = parts
        .iter()
        .map(|part| match part {
            Query::Not(inner) => (Occur::MustNot, compile(inner, context)),
            part => (Occur::Must, compile(part, context)),
        })
        .collect();
    if clauses.iter().all(|(occur, _)| *occur == Occur::MustNot) {
        clauses.push((Occur::Must, Box::new(AllQuery)));
    }
    Box::new(BooleanQuery::new(clauses))
}

impl Context {
    /// The path of a field as it stands in terms. A finding has normalized fields only.
    pub(crate) fn path(&self, field: &Field) -> String {
        let mut path = String::new();
        if !field.original || self.kind == Kind::Findings {
            path.push(MARK);
        }
        key_into(&field.name, &mut path);
        path
    }
}

fn leaf(query: &Query, seek: Seek, context: &Context) -> Box<dyn TantivyQuery> {
    let fields = &context.fields;
    let exact: Option<Box<dyn TantivyQuery>> = match &seek {
        Seek::Phrase(phrase) => {
            let terms: Vec<Term> = phrase
                .iter()
                .map(|word| Term::from_field_text(fields.words, word))
                .collect();
            Some(match terms.len() {
                0 => Box::new(EmptyQuery),
                1 => Box::new(TermQuery::new(terms[0].clone(), IndexRecordOption::Basic)),
                _ => Box::new(PhraseQuery::new(terms)),
            })
        }
        _ => None,
    };
    Box::new(Leaf {
        query: Arc::new(query.clone()),
        seek: Arc::new(seek),
        exact,
        context: context.clone(),
    })
}

/// How a leaf finds its events.
#[derive(Debug, Clone)]
pub(crate) enum Seek {
    /// By this term of `fields`.
    Term(String),
    /// By any of these terms of `fields`.
    Terms(Vec<String>),
    /// By these words in a row.
    Phrase(Vec<String>),
    /// By walking the words.
    Words(Check),
    /// By walking the values of a path, or of all.
    Values(Option<String>, Check),
    /// By a column of times, both ends included.
    Time(String, i64, i64),
}

struct Leaf {
    query: Arc<Query>,
    seek: Arc<Seek>,
    exact: Option<Box<dyn TantivyQuery>>,
    context: Context,
}

impl Clone for Leaf {
    fn clone(&self) -> Leaf {
        Leaf {
            query: self.query.clone(),
            seek: self.seek.clone(),
            exact: self.exact.as_ref().map(|e| e.box_clone()),
            context: self.context.clone(),
        }
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf({})", self.query)
    }
}

impl TantivyQuery for Leaf {
    fn weight(&self, scoring: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        let exact = self.exact.as_ref().map(|e| e.weight(scoring)).transpose()?;
        Ok(Box::new(LeafWeight {
            leaf: self.clone(),
            exact,
        }))
    }
}

struct LeafWeight {
    leaf: Leaf,
    exact: Option<Box<dyn Weight>>,
}

impl Weight for LeafWeight {
    fn scorer(&self, reader: &SegmentReader, boost: f32) -> tantivy::Result<Box<dyn Scorer>> {
        let leaf = &self.leaf;
        let fields = &leaf.context.fields;
        let overflow = overflow(reader, fields)?;
        if let (Seek::Term(text), None) = (&*leaf.seek, &overflow) {
            let postings = lookup::postings(reader, fields, text)?;
            return Ok(Box::new(Patient(lookup::union(postings, reader, boost))));
        }
        let mut found = BitSet::with_max_value(reader.max_doc());
        let mut doubtful = Vec::new();
        if let Some(exact) = &self.exact {
            exact.for_each_no_score(reader, &mut |docs| {
                docs.iter().for_each(|doc| {
                    found.insert(*doc);
                });
            })?;
        }
        match &*leaf.seek {
            Seek::Phrase(phrase) => {
                lookup::texts(reader, fields, phrase, &leaf.context.budget, &mut found)?;
            }
            Seek::Words(check) => leaf.walk_words(reader, check, &mut found)?,
            Seek::Values(path, check) => {
                leaf.walk_values(reader, path.as_deref(), check, &mut found, &mut doubtful)?;
            }
            Seek::Time(column, from, to) => {
                leaf.times(reader, column, *from, *to, &mut found)?;
            }
            Seek::Term(text) => {
                let postings = lookup::postings(reader, fields, text)?;
                postings.into_iter().for_each(|p| insert(p, &mut found));
            }
            Seek::Terms(terms) => {
                for (i, text) in terms.iter().enumerate() {
                    leaf.context.budget.check(i + 1)?;
                    let postings = lookup::postings(reader, fields, text)?;
                    postings.into_iter().for_each(|p| insert(p, &mut found));
                }
            }
        }
        if !matches!(&*leaf.seek, Seek::Time(..)) {
            doubtful.extend(overflow.into_iter().flatten());
        }
        leaf.compare(reader, doubtful, &mut found)?;
        if found.len() == 0 {
            return Ok(Box::new(EmptyScorer));
        }
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(found), boost)))
    }

    fn explain(&self, _: &SegmentReader, _: DocId) -> tantivy::Result<Explanation> {
        Ok(Explanation::new("leaf", 1.0))
    }
}

/// A scorer that may be asked about documents that it has passed. What stands under NOT is asked so, and tantivy 0.27's
/// phrases insist in debug builds that they are not.
struct Patient(Box<dyn Scorer>);

impl DocSet for Patient {
    fn advance(&mut self) -> DocId {
        self.0.advance()
    }

    fn seek(&mut self, target: DocId) -> DocId {
        if target <= self.0.doc() {
            return self.0.doc();
        }
        self.0.seek(target)
    }

    fn doc(&self) -> DocId {
        self.0.doc()
    }

    fn size_hint(&self) -> u32 {
        self.0.size_hint()
    }

    fn cost(&self) -> u64 {
        self.0.cost()
    }
}

impl Scorer for Patient {
    fn score(&mut self) -> f32 {
        1.0
    }
}

impl Leaf {
    fn walk_words(
        &self,
        reader: &SegmentReader,
        check: &Check,
        found: &mut BitSet,
    ) -> tantivy::Result<()> {
        let index = reader.inverted_index(self.context.fields.words)?;
        let mut terms = range(index.terms(), check.prefix())?;
        let mut count = 0;
        while terms.advance() {
            count += 1;
            self.context.budget.check(count)?;
            let passes = std::str::from_utf8(terms.key()).is_ok_and(|word| check.passes(word));
            if passes {
                let postings =
                    index.read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic)?;
                insert(postings, found);
            }
        }
        let context = &self.context;
        lookup::by_word(reader, &context.fields, check, &context.budget, found)
    }

    fn walk_values(
        &self,
        reader: &SegmentReader,
        path: Option<&str>,
        check: &Check,
        found: &mut BitSet,
        doubtful: &mut Vec<DocId>,
    ) -> tantivy::Result<()> {
        let (fields, budget) = (&self.context.fields, &self.context.budget);
        let prefix = cut_prefix(check.prefix());
        lookup::walk(reader, fields, path, prefix, budget, &mut |value| {
            let passes = match &value.whole {
                Some(whole) => Some(check.passes(whole)),
                None => check.passes_by_start(value.term.split(MARK).next().unwrap_or_default()),
            };
            match passes {
                Some(true) => insert(value.postings()?, found),
                Some(false) => {}
                None => {
                    let mut postings = value.postings()?;
                    while postings.doc() != TERMINATED {
                        doubtful.push(postings.doc());
                        postings.advance();
                    }
                }
            }
            Ok(())
        })
    }

    fn times(
        &self,
        reader: &SegmentReader,
        column: &str,
        from: i64,
        to: i64,
        found: &mut BitSet,
    ) -> tantivy::Result<()> {
        let column = reader.fast_fields().i64(column)?;
        let values = column.first_or_default_col(0);
        for doc in 0..reader.max_doc() {
            if (from..=to).contains(&values.get_val(doc)) {
                found.insert(doc);
            }
        }
        Ok(())
    }

    /// Compares stored events with the query where the terms could not decide.
    fn compare(
        &self,
        reader: &SegmentReader,
        mut doubtful: Vec<DocId>,
        found: &mut BitSet,
    ) -> tantivy::Result<()> {
        if doubtful.is_empty() {
            return Ok(());
        }
        doubtful.sort_unstable();
        doubtful.dedup();
        let store = reader.get_store_reader(2)?;
        for (i, doc) in doubtful.into_iter().enumerate() {
            self.context.budget.check(i * 64)?;
            if !found.contains(doc) && self.matches(&store, doc)? {
                found.insert(doc);
            }
        }
        Ok(())
    }

    fn matches(&self, store: &StoreReader, doc: DocId) -> tantivy::Result<bool> {
        let Some(stored) = stored(store, doc, &self.context.fields)? else {
            return Ok(false);
        };
        let now = self.context.now;
        Ok(match self.context.kind {
            Kind::Events => Event::decode(&stored)
                .is_ok_and(|event| self.query.matches_subject(&Subject::event(&event), now)),
            Kind::Findings => self.query.matches_subject(&Subject::finding(&stored), now),
        })
    }
}

/// The events of a segment beyond the bounds of the index, if there are any.
pub(crate) fn overflow(
    reader: &SegmentReader,
    fields: &Fields,
) -> tantivy::Result<Option<Vec<DocId>>> {
    let field = fields.fields;
    let term = Term::from_field_text(field, OVERFLOW);
    let index = reader.inverted_index(field)?;
    let Some(mut postings) = index.read_postings(&term, IndexRecordOption::Basic)? else {
        return Ok(None);
    };
    let mut docs = Vec::new();
    let mut doc = postings.doc();
    while doc != TERMINATED {
        docs.push(doc);
        doc = postings.advance();
    }
    Ok(Some(docs))
}

/// What is stored for a document.
pub(crate) fn stored(
    store: &StoreReader,
    doc: DocId,
    fields: &Fields,
) -> tantivy::Result<Option<Bytes>> {
    let document: TantivyDocument = store.get(doc)?;
    let value = document.get_first(fields.stored);
    Ok(value.and_then(|v| v.as_bytes()).map(Bytes::copy_from_slice))
}

/// Of a longer value only the start is in its term.
fn cut_prefix(prefix: &str) -> &str {
    let mut end = prefix.len().min(crate::schema::CUT);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    &prefix[..end]
}

/// The term of an event's id, for [`lookup::postings`].
pub(crate) fn id_term(id: event::Id) -> String {
    term(&format!("{MARK}id"), &fold(&id.to_string()))
}
