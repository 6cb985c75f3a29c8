//! Finds the terms of a segment that stand for a field and a value, a path or a word, whatever way they were indexed.
//!
//! A value stands under its path alone, or under one of the sets of `paths` that have its path, and in `fields`
//! or, if it comes often, in `common`; [`ranges`] names all of them. Words of rare values are in `words`; those of a rare
//! value that is one word, and those of all frequent values, are found by the value itself: [`by_word`] and [`texts`]. What
//! the sets of a segment are is read once and kept in [`Sets`]. Splits of the first format have neither sets nor
//! `common`, and need no way of their own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tantivy::index::SegmentId;
use tantivy::postings::SegmentPostings;
use tantivy::query::{BitSetDocSet, ConstScorer, EmptyScorer, Scorer};
use tantivy::schema::IndexRecordOption;
use tantivy::{BitSet, DocSet, InvertedIndexReader, SegmentReader, TERMINATED, Term};

use crate::compile::Budget;
use crate::paths::{NAME, SET, SET_IS, SHAPE, SHAPE_IS, read};
use crate::query::check::Check;
use crate::schema::{Fields, MARK, VALUE};
use crate::text::{has_phrase, is_one_word, words};

/// A set of paths that have the same value.
#[derive(Debug)]
struct Set {
    /// What the terms of its values begin with.
    start: String,
    /// Does free text look into it?
    free: bool,
    /// Its paths, each between two `\1`.
    paths: String,
}

/// The sets of a segment, by name.
type SegmentSets = Arc<Vec<Set>>;

/// The sets of the segments that were searched last.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    known: Mutex<VecDeque<(SegmentId, SegmentSets)>>,
}

impl Sets {
    /// How many sets are kept at most, of all segments.
    const MOST: usize = 200_000;

    fn of(&self, reader: &SegmentReader, fields: &Fields) -> tantivy::Result<SegmentSets> {
        let id = reader.segment_id();
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, sets)) = known().iter().find(|(segment, _)| *segment == id) {
            return Ok(sets.clone());
        }
        let mut sets = Vec::new();
        let index = reader.inverted_index(fields.fields)?;
        let mut terms = range(index.terms(), SET_IS)?;
        while terms.advance() {
            let term = std::str::from_utf8(terms.key()).unwrap_or_default();
            if let Some((name, kind, paths)) = read(term) {
                sets.push(Set {
                    start: format!("{SET}{name}{VALUE}"),
                    free: kind == 'f',
                    paths: paths.to_owned(),
                });
            }
        }
        let sets = Arc::new(sets);
        let mut known = known();
        known.push_back((id, sets.clone()));
        while known.len() > 1 && known.iter().map(|(_, s)| s.len() + 1).sum::<usize>() > Sets::MOST
        {
            known.pop_front();
        }
        Ok(sets)
    }
}

/// The dictionaries of values: `fields`, and `common` where the segment has it.
fn dictionaries(
    reader: &SegmentReader,
    fields: &Fields,
) -> tantivy::Result<Vec<Arc<InvertedIndexReader>>> {
    let mut all = vec![reader.inverted_index(fields.fields)?];
    all.extend(common(reader, fields)?);
    Ok(all)
}

fn common(
    reader: &SegmentReader,
    fields: &Fields,
) -> tantivy::Result<Option<Arc<InvertedIndexReader>>> {
    match fields.common {
        Some(field) if (field.field_id() as usize) < reader.schema().num_fields() => {
            Ok(Some(reader.inverted_index(field)?))
        }
        _ => Ok(None),
    }
}

/// Where the values of a path stand: a dictionary, and what its terms begin with before the value. Without a path all
/// terms, among them those that have no value and definitions.
pub(crate) fn ranges(
    reader: &SegmentReader,
    fields: &Fields,
    path: Option<&str>,
) -> tantivy::Result<Vec<(Arc<InvertedIndexReader>, String)>> {
    let mut starts = Vec::new();
    match path {
        None => starts.push(String::new()),
        Some(path) => {
            let direct = format!("{path}{VALUE}");
            let within = format!("{VALUE}{direct}");
            starts.push(direct);
            let sets = fields.sets.of(reader, fields)?;
            let with_path = sets.iter().filter(|set| set.paths.contains(&within));
            starts.extend(with_path.map(|set| set.start.clone()));
        }
    }
    let dictionaries = dictionaries(reader, fields)?;
    Ok(starts
        .iter()
        .flat_map(|start| dictionaries.iter().map(|d| (d.clone(), start.clone())))
        .collect())
}

/// The postings of a field's term as [`crate::schema::term`] makes it, or of a path alone.
pub(crate) fn postings(
    reader: &SegmentReader,
    fields: &Fields,
    text: &str,
) -> tantivy::Result<Vec<SegmentPostings>> {
    let mut all = Vec::new();
    let mut get = |index: &InvertedIndexReader, text: &str| -> tantivy::Result<()> {
        let term = Term::from_field_text(fields.fields, text);
        all.extend(index.read_postings(&term, IndexRecordOption::Basic)?);
        Ok(())
    };
    if let Some((path, value)) = text.split_once(VALUE) {
        for (index, start) in ranges(reader, fields, Some(path))? {
            get(&index, &format!("{start}{value}"))?;
        }
        return Ok(all);
    }
    let index = reader.inverted_index(fields.fields)?;
    get(&index, text)?;
    let within = format!("{VALUE}{text}{VALUE}");
    let mut shapes = range(index.terms(), SHAPE_IS)?;
    while shapes.advance() {
        let term = std::str::from_utf8(shapes.key()).unwrap_or_default();
        if let Some((name, _, paths)) = read(term)
            && paths.contains(&within)
        {
            get(&index, &format!("{SHAPE}{name}"))?;
        }
    }
    Ok(all)
}

/// All documents of these postings.
pub(crate) fn union(
    postings: Vec<SegmentPostings>,
    reader: &SegmentReader,
    boost: f32,
) -> Box<dyn Scorer> {
    let mut postings = postings;
    if postings.len() <= 1 {
        return match postings.pop() {
            Some(only) => Box::new(ConstScorer::new(only, boost)),
            None => Box::new(EmptyScorer),
        };
    }
    let mut found = BitSet::with_max_value(reader.max_doc());
    postings.into_iter().for_each(|p| insert(p, &mut found));
    Box::new(ConstScorer::new(BitSetDocSet::from(found), boost))
}

/// Adds the documents of a list.
pub(crate) fn insert(mut postings: impl DocSet, found: &mut BitSet) {
    let mut doc = postings.doc();
    while doc != TERMINATED {
        found.insert(doc);
        doc = postings.advance();
    }
}

/// Adds the events with a value that free text looks into and that has these words in a row, so far as `words` does not
/// have them.
pub(crate) fn texts(
    reader: &SegmentReader,
    fields: &Fields,
    phrase: &[String],
    budget: &Budget,
    found: &mut BitSet,
) -> tantivy::Result<()> {
    let Some(longest) = phrase.iter().max_by_key(|word| word.len()) else {
        return Ok(());
    };
    if let [word] = phrase {
        let index = reader.inverted_index(fields.fields)?;
        for set in fields.sets.of(reader, fields)?.iter().filter(|s| s.free) {
            let term = Term::from_field_text(fields.fields, &format!("{}{word}", set.start));
            if let Some(postings) = index.read_postings(&term, IndexRecordOption::Basic)? {
                insert(postings, found);
            }
        }
    }
    let phrase: Vec<&str> = phrase.iter().map(String::as_str).collect();
    walk_common(reader, fields, budget, found, |value| {
        value.contains(longest.as_str()) && has_phrase(value, &phrase)
    })
}

/// Adds the events with a word that passes, in a value that free text looks into, so far as `words` does not have it.
pub(crate) fn by_word(
    reader: &SegmentReader,
    fields: &Fields,
    check: &Check,
    budget: &Budget,
    found: &mut BitSet,
) -> tantivy::Result<()> {
    let index = reader.inverted_index(fields.fields)?;
    let mut count = 0;
    for set in fields.sets.of(reader, fields)?.iter().filter(|s| s.free) {
        let mut terms = range(index.terms(), &format!("{}{}", set.start, check.prefix()))?;
        while terms.advance() {
            count += 1;
            budget.check(count)?;
            let term = std::str::from_utf8(terms.key()).unwrap_or_default();
            let value = term.get(set.start.len()..).unwrap_or_default();
            if check.passes(value) && !value.contains(MARK) && is_one_word(value) {
                let read =
                    index.read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic);
                insert(read?, found);
            }
        }
    }
    walk_common(reader, fields, budget, found, |value| {
        words(value).any(|word| check.passes(word))
    })
}

fn walk_common(
    reader: &SegmentReader,
    fields: &Fields,
    budget: &Budget,
    found: &mut BitSet,
    passes: impl Fn(&str) -> bool,
) -> tantivy::Result<()> {
    let Some(index) = common(reader, fields)? else {
        return Ok(());
    };
    let sets = fields.sets.of(reader, fields)?;
    let is_free = |start: &str| {
        let place = sets.binary_search_by(|set| set.start.as_str().cmp(start));
        place.is_ok_and(|place| sets[place].free)
    };
    let (mut last, mut free) = (String::new(), false);
    let mut terms = index.terms().stream()?;
    let mut count = 0;
    while terms.advance() {
        count += 1;
        budget.check(count)?;
        let term = std::str::from_utf8(terms.key()).unwrap_or_default();
        let Some((start, value)) = term.split_at_checked(SET.len() + NAME + 1) else {
            continue;
        };
        if start != last {
            (last, free) = (start.to_owned(), is_free(start));
        }
        if free && passes(value) {
            let read = index.read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic);
            insert(read?, found);
        }
    }
    Ok(())
}

/// The terms that begin with `prefix`.
pub(crate) fn range<'a>(
    terms: &'a tantivy::termdict::TermDictionary,
    prefix: &str,
) -> std::io::Result<tantivy::termdict::TermStreamer<'a>> {
    if prefix.is_empty() {
        return terms.stream();
    }
    // No term has a byte of 0xff, since terms are UTF-8.
    let end = [prefix.as_bytes(), &[0xff]].concat();
    terms.range().ge(prefix).lt(end).into_stream()
}
