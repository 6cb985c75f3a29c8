//! The values that the matching documents of one segment have for one field.
//!
//! [`Values::load`] takes them from the field's column where there is one, else by walking the terms of its path, which
//! stand in lower case. Documents beyond the bounds of the index are read and compared, so that what is told is exact.
//! Values are numbered within the segment: what depends on a value alone (its hash, the number that it is) is worked out
//! once and not for each document.

use std::collections::HashMap;

use event::{Event, Id};
use tantivy::{BitSet, DocId, DocSet, SegmentReader, TERMINATED, TantivyError};

use crate::compile::{Context, overflow, stored};
use crate::lookup;
use crate::query::Field;
use crate::query::matches::Subject;
use crate::request::Kind;
use crate::schema::{COLUMNS, FINDING_COLUMNS, value_term_into};

/// Pairs of document and value of one segment, at most.
const MAX_PAIRS: usize = 16_000_000;

/// What the matching documents of a segment have for a field.
pub(super) struct Values {
    /// Where the values of each matching document begin in `ordinals`; one more at the end.
    starts: Vec<u32>,
    ordinals: Vec<u32>,
    /// The values by their number.
    pub(super) texts: Vec<String>,
    /// Are they in lower case, and long ones cut?
    pub(super) folded: bool,
    hashes: Vec<u64>,
    numbers: Vec<Option<f64>>,
}

impl Values {
    /// The numbers of the values of the matching document with this rank.
    pub(super) fn of(&self, rank: usize) -> &[u32] {
        &self.ordinals[self.starts[rank] as usize..self.starts[rank + 1] as usize]
    }

    /// A hash of a value, the same on all machines.
    pub(super) fn hash(&self, ordinal: u32) -> u64 {
        self.hashes[ordinal as usize]
    }

    /// The number that a value is.
    pub(super) fn number(&self, ordinal: u32) -> Option<f64> {
        self.numbers[ordinal as usize]
    }

    /// The values of `docs`, which rise. `None` if they are too many to be kept.
    pub(super) fn load(
        reader: &SegmentReader,
        field: &Field,
        docs: &[DocId],
        context: &Context,
    ) -> tantivy::Result<Option<Values>> {
        let columns = match context.kind {
            Kind::Events if field.original => &[],
            Kind::Events => COLUMNS,
            Kind::Findings => FINDING_COLUMNS,
        };
        let mut loading = Loading {
            docs,
            pairs: Vec::new(),
            texts: Vec::new(),
            by_text: HashMap::new(),
        };
        let column = columns.iter().find(|c| **c == field.name);
        let complete = match column {
            Some(column) => loading.column(reader, &format!("column_{column}"))?,
            None => loading.terms(reader, field, context)?,
        };
        Ok(complete.then(|| loading.finish(column.is_none())))
    }
}

struct Loading<'d> {
    docs: &'d [DocId],
    /// Rank of the document, number of the value.
    pairs: Vec<(u32, u32)>,
    texts: Vec<String>,
    by_text: HashMap<String, u32>,
}

impl Loading<'_> {
    fn column(&mut self, reader: &SegmentReader, name: &str) -> tantivy::Result<bool> {
        let Some(column) = reader.fast_fields().str(name)? else {
            return Ok(true);
        };
        // Values of a column are numbered without gaps.
        let mut numbers: Vec<Option<u32>> = vec![None; column.num_terms()];
        for (rank, doc) in self.docs.iter().enumerate() {
            for ordinal in column.term_ords(*doc) {
                let number = match numbers[ordinal as usize] {
                    Some(number) => number,
                    None => {
                        let mut value = String::new();
                        if !column.ord_to_str(ordinal, &mut value)? {
                            continue;
                        }
                        let number = self.texts.len() as u32;
                        self.texts.push(value);
                        numbers[ordinal as usize] = Some(number);
                        number
                    }
                };
                self.pairs.push((rank as u32, number));
            }
            if self.pairs.len() > MAX_PAIRS {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn terms(
        &mut self,
        reader: &SegmentReader,
        field: &Field,
        context: &Context,
    ) -> tantivy::Result<bool> {
        let mut matched = BitSet::with_max_value(reader.max_doc());
        self.docs.iter().for_each(|doc| {
            matched.insert(*doc);
        });
        let beyond: Vec<DocId> = overflow(reader, &context.fields)?
            .into_iter()
            .flatten()
            .filter(|doc| matched.contains(*doc))
            .collect();
        // Their terms may be only a part of their values.
        beyond.iter().for_each(|doc| {
            matched.remove(*doc);
        });
        let path = context.path(field);
        let mut room = true;
        let (fields, budget) = (&context.fields, &context.budget);
        lookup::walk(reader, fields, Some(&path), "", budget, &mut |value| {
            if !room {
                return Ok(());
            }
            let mut postings = value.postings()?;
            let mut number = None;
            while postings.doc() != TERMINATED {
                let doc = postings.doc();
                if matched.contains(doc)
                    && let Ok(rank) = self.docs.binary_search(&doc)
                {
                    let number = *number.get_or_insert_with(|| self.number(&value.term));
                    self.pairs.push((rank as u32, number));
                }
                postings.advance();
            }
            room = self.pairs.len() <= MAX_PAIRS;
            Ok(())
        })?;
        if !room {
            return Ok(false);
        }
        self.beyond(reader, field, &beyond, context)
    }

    /// The number of a value, which may stand in several terms.
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.by_text.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.by_text.insert(text.to_owned(), number);
        number
    }

    /// Reads what the index has only in part.
    fn beyond(
        &mut self,
        reader: &SegmentReader,
        field: &Field,
        beyond: &[DocId],
        context: &Context,
    ) -> tantivy::Result<bool> {
        if beyond.is_empty() {
            return Ok(true);
        }
        let store = reader.get_store_reader(2)?;
        for doc in beyond {
            if context.budget.is_over() {
                return Err(TantivyError::InternalError("out of time".to_owned()));
            }
            let Some(bytes) = stored(&store, *doc, &context.fields)? else {
                continue;
            };
            let mut values = match context.kind {
                Kind::Events => match Event::decode(&bytes) {
                    Ok(event) => Subject::event(&event).values(field).0,
                    Err(_) => continue,
                },
                Kind::Findings => Subject::finding(&bytes).values(field).0,
            };
            values.sort_unstable();
            values.dedup();
            let rank = self.docs.binary_search(doc).unwrap_or_default() as u32;
            for value in values {
                let mut own = String::new();
                value_term_into(&value, &mut own);
                let number = self.number(&own);
                self.pairs.push((rank, number));
            }
            if self.pairs.len() > MAX_PAIRS {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn finish(mut self, folded: bool) -> Values {
        self.pairs.sort_unstable();
        self.pairs.dedup();
        let mut starts = Vec::with_capacity(self.docs.len() + 1);
        let mut at = 0;
        for rank in 0..self.docs.len() as u32 {
            starts.push(at as u32);
            while self.pairs.get(at).is_some_and(|pair| pair.0 == rank) {
                at += 1;
            }
        }
        starts.push(at as u32);
        let hash = |text: &String| (Id::of("search.distinct", &[text.as_bytes()]).0 >> 64) as u64;
        let number = |text: &String| text.trim().parse::<f64>().ok().filter(|n| n.is_finite());
        Values {
            starts,
            ordinals: self.pairs.iter().map(|pair| pair.1).collect(),
            hashes: self.texts.iter().map(hash).collect(),
            numbers: self.texts.iter().map(number).collect(),
            texts: self.texts,
            folded,
        }
    }
}
