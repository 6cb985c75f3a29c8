//! Finds the terms of a segment that stand for a field and a value, a path or a word, whatever way they were indexed.
//!
//! A value stands under its path alone, or under one of the sets of `groups` that have its path, and in `fields`
//! or, if it comes often, in `common`; [`walk`] goes through all of them and [`postings`] asks them for one value. Words of
//! rare values are in `words`; those of a rare value that is one word, and those of all frequent values, are found by the
//! value itself: [`by_word`] and [`texts`]. Splits of the first format have neither sets nor `common`, and need no way of
//! their own.
//!
//! Dictionaries are slow to run through. So what is asked again and again, the sets, the shapes and the values of
//! `common`, is read once a segment and kept in [`Known`], in bounded memory.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tantivy::index::SegmentId;
use tantivy::postings::{SegmentPostings, TermInfo};
use tantivy::query::{BitSetDocSet, ConstScorer, EmptyScorer, Scorer};
use tantivy::schema::IndexRecordOption;
use tantivy::{BitSet, DocSet, InvertedIndexReader, SegmentReader, TERMINATED, Term};

use crate::compile::Budget;
use crate::groups::{self, NAME, SET, SET_IS, SHAPE, SHAPE_IS, is_definition, packed_starts};
use crate::query::check::Check;
use crate::schema::{Fields, MARK, OVERFLOW, VALUE};
use crate::text::{has_phrase, is_one_word, words};

/// What the terms of sets and shapes begin with.
const OWN: &str = "\u{2}\u{2}";

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

/// The values of `common` that free text looks into.
#[derive(Debug, Default)]
struct Texts {
    text: String,
    /// Where each ends in `text`, and where its postings are.
    values: Vec<(usize, TermInfo)>,
}

/// What was read of one segment so far.
#[derive(Debug, Default)]
struct Segment {
    sets: OnceLock<Vec<Set>>,
    /// Names of shapes with their paths, each between two `\1`.
    shapes: OnceLock<Vec<(String, String)>>,
    texts: OnceLock<Texts>,
    bytes: AtomicUsize,
}

/// What is known of the segments that were searched last.
#[derive(Debug, Default)]
pub(crate) struct Known {
    segments: Mutex<VecDeque<(SegmentId, Arc<Segment>)>>,
}

impl Known {
    /// How many bytes are kept of all segments.
    const MOST: usize = 64 << 20;

    fn of(&self, reader: &SegmentReader) -> Arc<Segment> {
        let id = reader.segment_id();
        let mut known = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = |s: &Segment| s.bytes.load(Ordering::Relaxed) + 1_024;
        while known.len() > 1 && known.iter().map(|(_, s)| bytes(s)).sum::<usize>() > Known::MOST {
            known.pop_front();
        }
        let place = known.iter().position(|(segment, _)| *segment == id);
        let (_, segment) = place
            .and_then(|place| known.remove(place))
            .unwrap_or_else(|| (id, Arc::default()));
        known.push_back((id, segment.clone()));
        segment
    }
}

impl Segment {
    /// What `slot` has, reading it the first time. `read` tells how many bytes it takes.
    fn once<'s, T>(
        &'s self,
        slot: &'s OnceLock<T>,
        read: impl FnOnce() -> tantivy::Result<(T, usize)>,
    ) -> tantivy::Result<&'s T> {
        if let Some(known) = slot.get() {
            return Ok(known);
        }
        let (value, bytes) = read()?;
        Ok(slot.get_or_init(|| {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            value
        }))
    }

    fn sets(&self, reader: &SegmentReader, fields: &Fields) -> tantivy::Result<&Vec<Set>> {
        self.once(&self.sets, || {
            let (mut sets, mut bytes) = (Vec::new(), 0);
            definitions(reader, fields, SET_IS, |name, kind, paths| {
                bytes += paths.len() + 96;
                sets.push(Set {
                    start: format!("{SET}{name}{VALUE}"),
                    free: kind == 'f',
                    paths: paths.to_owned(),
                });
            })?;
            Ok((sets, bytes))
        })
    }

    fn shapes(
        &self,
        reader: &SegmentReader,
        fields: &Fields,
    ) -> tantivy::Result<&Vec<(String, String)>> {
        self.once(&self.shapes, || {
            let (mut shapes, mut bytes) = (Vec::new(), 0);
            definitions(reader, fields, SHAPE_IS, |name, _, paths| {
                bytes += paths.len() + 96;
                shapes.push((name.to_owned(), paths.to_owned()));
            })?;
            Ok((shapes, bytes))
        })
    }

    fn texts(&self, reader: &SegmentReader, fields: &Fields) -> tantivy::Result<&Texts> {
        let sets = self.sets(reader, fields)?;
        self.once(&self.texts, || {
            let mut texts = Texts::default();
            let Some(index) = common(reader, fields)? else {
                return Ok((texts, 0));
            };
            let is_free = |start: &str| {
                let place = sets.binary_search_by(|set| set.start.as_str().cmp(start));
                place.is_ok_and(|place| sets[place].free)
            };
            let (mut last, mut free) = (String::new(), false);
            let mut terms = index.terms().stream()?;
            while terms.advance() {
                let term = std::str::from_utf8(terms.key()).unwrap_or_default();
                let Some((start, value)) = term.split_at_checked(SET.len() + NAME + 1) else {
                    continue;
                };
                if start != last {
                    (last, free) = (start.to_owned(), is_free(start));
                }
                if free && let Some(whole) = groups::value(value).1 {
                    texts.text.push_str(&whole);
                    texts.values.push((texts.text.len(), terms.value().clone()));
                }
            }
            let bytes = texts.text.len() + texts.values.len() * size_of::<(usize, TermInfo)>();
            Ok((texts, bytes))
        })
    }
}

/// Calls `each` with name, kind and paths of the sets or shapes of a segment.
fn definitions(
    reader: &SegmentReader,
    fields: &Fields,
    start: &str,
    mut each: impl FnMut(&str, char, &str),
) -> tantivy::Result<()> {
    let index = reader.inverted_index(fields.fields)?;
    let mut terms = range(index.terms(), start)?;
    while terms.advance() {
        let term = std::str::from_utf8(terms.key()).unwrap_or_default();
        if let Some((name, kind, paths)) = groups::read(term) {
            each(name, kind, paths);
        }
    }
    Ok(())
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

/// What the terms of a path's values begin with: the path itself, and the sets that have it.
fn starts(reader: &SegmentReader, fields: &Fields, path: &str) -> tantivy::Result<Vec<String>> {
    let direct = format!("{path}{VALUE}");
    let within = format!("{VALUE}{direct}");
    let known = fields.known.of(reader);
    let sets = known.sets(reader, fields)?.iter();
    let with_path = sets.filter(|set| set.paths.contains(&within));
    let mut starts: Vec<String> = with_path.map(|set| set.start.clone()).collect();
    starts.push(direct);
    Ok(starts)
}

/// A value of a dictionary.
pub(crate) struct Found<'a> {
    /// As [`crate::schema::value_term_into`] writes it.
    pub(crate) term: Cow<'a, str>,
    /// The folded value; `None` if it was cut.
    pub(crate) whole: Option<Cow<'a, str>>,
    index: &'a InvertedIndexReader,
    info: &'a TermInfo,
}

impl Found<'_> {
    /// The events that have it.
    pub(crate) fn postings(&self) -> tantivy::Result<SegmentPostings> {
        let read = self
            .index
            .read_postings_from_terminfo(self.info, IndexRecordOption::Basic);
        Ok(read?)
    }
}

/// Calls `each` for the values of a path, or of all, at least for those whose term begins with `prefix`. A value may come
/// several times, each time with other events.
pub(crate) fn walk(
    reader: &SegmentReader,
    fields: &Fields,
    path: Option<&str>,
    prefix: &str,
    budget: &Budget,
    each: &mut dyn FnMut(&Found<'_>) -> tantivy::Result<()>,
) -> tantivy::Result<()> {
    let mut ranges = Vec::new();
    match path {
        None => ranges.push(String::new()),
        Some(path) => {
            for start in starts(reader, fields, path)? {
                if !prefix.is_empty() && start.starts_with(SET) {
                    let packed = packed_starts(prefix);
                    ranges.extend(packed.map(|packed| format!("{start}{packed}")));
                }
                ranges.push(start + prefix);
            }
        }
    }
    let mut count = 0;
    for index in dictionaries(reader, fields)? {
        for start in &ranges {
            let mut terms = range(index.terms(), start)?;
            while terms.advance() {
                count += 1;
                budget.check(count)?;
                let term = std::str::from_utf8(terms.key()).unwrap_or_default();
                let Some((_, value)) = term.split_once(VALUE) else {
                    continue;
                };
                if path.is_none() && is_definition(term) {
                    continue;
                }
                let (term, whole) = groups::value(value);
                each(&Found {
                    term,
                    whole,
                    index: &index,
                    info: terms.value(),
                })?;
            }
        }
    }
    Ok(())
}

/// The postings of a field's term as [`crate::schema::term`] makes it, or of a path alone.
pub(crate) fn postings(
    reader: &SegmentReader,
    fields: &Fields,
    text: &str,
) -> tantivy::Result<Vec<SegmentPostings>> {
    let mut all = Vec::new();
    if let Some((path, value)) = text.split_once(VALUE) {
        let packed = groups::packed(value);
        // Of a value that is cut the whole follows in `common`.
        let longer = groups::value(value).1.is_none();
        let starts = starts(reader, fields, path)?;
        for (place, index) in dictionaries(reader, fields)?.iter().enumerate() {
            for start in &starts {
                let value = match &packed {
                    Some(packed) if start.starts_with(SET) => packed.as_str(),
                    _ => value,
                };
                let term = format!("{start}{value}");
                if place > 0 && longer {
                    let mut terms = range(index.terms(), &term)?;
                    while terms.advance() {
                        let info = terms.value();
                        all.push(
                            index.read_postings_from_terminfo(info, IndexRecordOption::Basic)?,
                        );
                    }
                } else {
                    all.extend(get(index, fields, &term)?);
                }
            }
        }
        return Ok(all);
    }
    let index = reader.inverted_index(fields.fields)?;
    all.extend(get(&index, fields, text)?);
    let within = format!("{VALUE}{text}{VALUE}");
    let known = fields.known.of(reader);
    for (name, paths) in known.shapes(reader, fields)? {
        if paths.contains(&within) {
            all.extend(get(&index, fields, &format!("{SHAPE}{name}"))?);
        }
    }
    Ok(all)
}

/// Calls `each` with the paths that events of the segment have, a path several times maybe, until it says no. Tells
/// whether it never did.
pub(crate) fn paths(
    reader: &SegmentReader,
    fields: &Fields,
    each: &mut dyn FnMut(&str) -> bool,
) -> tantivy::Result<bool> {
    let known = fields.known.of(reader);
    for (_, paths) in known.shapes(reader, fields)? {
        for path in paths.split(VALUE).filter(|path| !path.is_empty()) {
            if !each(path) {
                return Ok(false);
            }
        }
    }
    let index = reader.inverted_index(fields.fields)?;
    let mut from = String::new();
    loop {
        let mut terms = index.terms().range().ge(from.as_bytes()).into_stream()?;
        let Some(term) = terms
            .advance()
            .then(|| std::str::from_utf8(terms.key()).ok())
            .flatten()
        else {
            return Ok(true);
        };
        if term.starts_with(OWN) {
            // Sets and shapes, all of which begin so.
            from = format!("{MARK}{}", '\u{3}');
            continue;
        }
        let path = term.split(VALUE).next().unwrap_or(term);
        if path != OVERFLOW && !path.is_empty() && !each(path) {
            return Ok(false);
        }
        // Values follow their path at once: what is behind them all begins with the path and a greater sign.
        from = format!("{path}{MARK}");
    }
}

fn get(
    index: &InvertedIndexReader,
    fields: &Fields,
    term: &str,
) -> tantivy::Result<Option<SegmentPostings>> {
    let term = Term::from_field_text(fields.fields, term);
    Ok(index.read_postings(&term, IndexRecordOption::Basic)?)
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
    let known = fields.known.of(reader);
    if let [word] = phrase {
        let index = reader.inverted_index(fields.fields)?;
        let value = groups::packed(word).unwrap_or_else(|| word.clone());
        for set in known.sets(reader, fields)?.iter().filter(|s| s.free) {
            if let Some(postings) = get(&index, fields, &format!("{}{value}", set.start))? {
                insert(postings, found);
            }
        }
    }
    let phrase: Vec<&str> = phrase.iter().map(String::as_str).collect();
    look_through(reader, fields, budget, found, |value| {
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
    let known = fields.known.of(reader);
    let mut count = 0;
    for set in known.sets(reader, fields)?.iter().filter(|s| s.free) {
        let prefix = check.prefix();
        let mut ranges = vec![format!("{}{prefix}", set.start)];
        if !prefix.is_empty() {
            ranges.extend(packed_starts(prefix).map(|packed| format!("{}{packed}", set.start)));
        }
        for start in ranges {
            let mut terms = range(index.terms(), &start)?;
            while terms.advance() {
                count += 1;
                budget.check(count)?;
                let term = std::str::from_utf8(terms.key()).unwrap_or_default();
                let value = groups::value(term.get(set.start.len()..).unwrap_or_default()).1;
                if value.is_some_and(|v| check.passes(&v) && is_one_word(&v)) {
                    let info = terms.value();
                    let read = index.read_postings_from_terminfo(info, IndexRecordOption::Basic);
                    insert(read?, found);
                }
            }
        }
    }
    look_through(reader, fields, budget, found, |value| {
        words(value).any(|word| check.passes(word))
    })
}

/// Adds the events with a frequent value that passes.
fn look_through(
    reader: &SegmentReader,
    fields: &Fields,
    budget: &Budget,
    found: &mut BitSet,
    passes: impl Fn(&str) -> bool,
) -> tantivy::Result<()> {
    let Some(index) = common(reader, fields)? else {
        return Ok(());
    };
    let known = fields.known.of(reader);
    let texts = known.texts(reader, fields)?;
    let mut start = 0;
    for (count, (end, info)) in texts.values.iter().enumerate() {
        budget.check(count + 1)?;
        if passes(&texts.text[start..*end]) {
            let read = index.read_postings_from_terminfo(info, IndexRecordOption::Basic);
            insert(read?, found);
        }
        start = *end;
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
