//! How an event stands in the index: lists of terms, a few columns, and the event itself.
//!
//! [`crate::document::Builder`] turns an event into a document. Instead of one index field for every name there is one,
//! `fields`, whose terms carry the name, and vendors' names need no mapping and cannot explode one:
//!
//! ```text
//! fields   \2\2s <set> \1 createuser             a folded value at all paths of a set: `action` and `eventName`
//!          \2\2p <shape>                         the event has the paths of this shape
//!          \2\2S ..., \2\2P ...                  what sets and shapes are: `groups`
//!          path \1 createuser                    a value at one path, where there is no room for another set
//!          path                                  the same, without another shape: the field is there at all
//!          ... \1 <first 200 bytes> \2 <32 digits>  a value longer than 256 bytes: its start and its hash
//!          \2                                    the event exceeds the bounds below
//! common   \2\2s <set> \1 <value>               as in `fields`: a value that has come several times
//! words    createuser                           a word of a rare value of several words, with its position
//! ```
//!
//! A path is a name of the original record, `\2 action` a normalized one. What is written once is found by all its
//! names; what comes often costs a posting and no words, for its words are found by looking through the few terms of
//! `common`. `lookup` reads all this. Findings, which are few, have their values path by path and all their words.
//!
//! A document goes to tantivy as one text per index field, its terms joined by NUL; an empty term leaves a gap in the
//! positions, so that no phrase runs from one value into the next. Columns hold time and id for the order, and the
//! values that people count by. The framed event is stored, so that an answer needs nothing but the split.
//!
//! Beyond [`MAX_LEAVES`], [`MAX_PATH`] and [`MAX_WORDS_BYTES`] an event is indexed in part and marked; searches compare
//! marked events, and values that were cut, with the stored event. Nothing is refused and nothing is lost.

use std::sync::Arc;

use event::Id;
use tantivy::schema::{
    FAST, Field, IndexRecordOption, STORED, Schema, SchemaBuilder, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{TextAnalyzer, Token, TokenStream, Tokenizer, TokenizerManager};
use tantivy::{IndexSettings, IndexSortByField, Order};

use crate::lookup::Known;

/// Values of an event that are indexed by field; further ones are found by comparing the stored event.
pub(crate) const MAX_LEAVES: usize = 1_000;
/// Longer paths are not indexed.
pub(crate) const MAX_PATH: usize = 512;
/// Longer values are indexed by their start and their hash.
pub(crate) const MAX_VALUE: usize = 256;
/// Longer values are never among the frequent ones.
pub(crate) const MAX_COMMON: usize = 4_096;
/// How much text of one event is indexed word by word.
pub(crate) const MAX_WORDS_BYTES: usize = 256 * 1024;
/// How much of a longer value stands in its term.
pub(crate) const CUT: usize = 200;

/// Stands between path and value.
pub(crate) const VALUE: char = '\u{1}';
/// Begins normalized names, and the hash of a cut value.
pub(crate) const MARK: char = '\u{2}';
/// The term of events that exceed the bounds.
pub(crate) const OVERFLOW: &str = "\u{2}";

/// The normalized fields that can be counted by without loading events.
pub(crate) const COLUMNS: &[&str] = &[
    "source",
    "account",
    "region",
    "service",
    "action",
    "outcome",
    "error_code",
    "actor",
    "identity",
    "src_ip",
    "function",
];

/// The columns of findings.
pub(crate) const FINDING_COLUMNS: &[&str] = &["title", "severity", "account", "actor"];

/// The index fields.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    /// The schema that they belong to.
    pub(crate) schema: Schema,
    /// Terms of names and values.
    pub(crate) fields: Field,
    /// Terms of values that come often; splits of the first format and findings have none.
    pub(crate) common: Option<Field>,
    /// What [`crate::lookup`] knows of the segments.
    pub(crate) known: Arc<Known>,
    /// Terms of words.
    pub(crate) words: Field,
    /// Microseconds since 1970; the order within a split.
    pub(crate) time: Field,
    /// Microseconds since 1970.
    pub(crate) ingest_time: Field,
    /// The more significant half of the id.
    pub(crate) id_high: Field,
    /// The less significant half of the id.
    pub(crate) id_low: Field,
    /// The framed event, or the finding as JSON.
    pub(crate) stored: Field,
    /// [`COLUMNS`] or [`FINDING_COLUMNS`].
    pub(crate) columns: Vec<Field>,
}

impl Fields {
    /// The fields of events.
    pub(crate) fn events() -> Fields {
        Fields::new(COLUMNS, true)
    }

    /// The fields of events in splits of the first format: those of today but `common`, under the same numbers.
    pub(crate) fn first() -> Fields {
        Fields::new(COLUMNS, false)
    }

    /// The fields of findings.
    pub(crate) fn findings() -> Fields {
        Fields::new(FINDING_COLUMNS, false)
    }

    fn new(columns: &[&str], common: bool) -> Fields {
        let indexed = |record| {
            TextOptions::default().set_indexing_options(
                TextFieldIndexing::default()
                    .set_tokenizer(TERMS)
                    .set_index_option(record)
                    .set_fieldnorms(false),
            )
        };
        let mut schema = SchemaBuilder::new();
        let fields = schema.add_text_field("fields", indexed(IndexRecordOption::Basic));
        let words =
            schema.add_text_field("words", indexed(IndexRecordOption::WithFreqsAndPositions));
        let time = schema.add_i64_field("time", FAST);
        let ingest_time = schema.add_i64_field("ingest_time", FAST);
        let id_high = schema.add_u64_field("id_high", FAST);
        let id_low = schema.add_u64_field("id_low", FAST);
        let stored = schema.add_bytes_field("stored", STORED);
        let columns = columns
            .iter()
            .map(|name| schema.add_text_field(&format!("column_{name}"), FAST))
            .collect();
        let common =
            common.then(|| schema.add_text_field("common", indexed(IndexRecordOption::Basic)));
        Fields {
            schema: schema.build(),
            fields,
            common,
            known: Arc::default(),
            words,
            time,
            ingest_time,
            id_high,
            id_low,
            stored,
            columns,
        }
    }
}

/// The settings of a split: newest first, and large blocks for the stored events, which are much alike.
pub(crate) fn settings() -> IndexSettings {
    IndexSettings {
        sort_by_field: Some(IndexSortByField {
            field: "time".to_owned(),
            order: Order::Desc,
        }),
        docstore_blocksize: 256 * 1024,
        ..findings_settings()
    }
}

/// The settings of the index of findings.
pub(crate) fn findings_settings() -> IndexSettings {
    IndexSettings {
        docstore_compression: tantivy::store::Compressor::Zstd(Default::default()),
        docstore_blocksize: 64 * 1024,
        docstore_compress_dedicated_thread: false,
        ..IndexSettings::default()
    }
}

const TERMS: &str = "terms";

/// The tokenizers that an index of ours needs.
pub(crate) fn tokenizers() -> TokenizerManager {
    let manager = TokenizerManager::default();
    manager.register(TERMS, TextAnalyzer::from(Terms::default()));
    manager
}

/// Cuts a document's text into the terms that were joined by NUL.
#[derive(Debug, Clone, Default)]
struct Terms {
    token: Token,
}

struct TermStream<'a> {
    rest: &'a str,
    position: usize,
    token: &'a mut Token,
}

impl Tokenizer for Terms {
    type TokenStream<'a> = TermStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> TermStream<'a> {
        self.token.reset();
        TermStream {
            rest: text,
            position: 0,
            token: &mut self.token,
        }
    }
}

impl TokenStream for TermStream<'_> {
    fn advance(&mut self) -> bool {
        while !self.rest.is_empty() {
            let (term, rest) = self.rest.split_once('\0').unwrap_or((self.rest, ""));
            self.rest = rest;
            self.position += 1;
            if !term.is_empty() {
                self.token.position = self.position;
                self.token.text.clear();
                self.token.text.push_str(term);
                return true;
            }
        }
        false
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// Appends the part of a term that stands for a folded value.
pub(crate) fn value_term_into(folded: &str, out: &mut String) {
    if folded.len() <= MAX_VALUE {
        out.push_str(folded);
        return;
    }
    let mut end = CUT;
    while !folded.is_char_boundary(end) {
        end -= 1;
    }
    out.push_str(&folded[..end]);
    out.push(MARK);
    out.push_str(&Id::of("search.value", &[folded.as_bytes()]).to_string());
}

/// The term of a folded value at a path.
pub(crate) fn term(path: &str, folded: &str) -> String {
    let mut term = format!("{path}{VALUE}");
    value_term_into(folded, &mut term);
    term
}
