//! Makes the document of an event or a finding: its terms as `schema` describes them.
//!
//! [`Builder::event`] goes once through the envelope and the original record, gathers every value with its path, and
//! then writes those with the same value as one term ([`crate::groups`]). What finds no room there, and everything of a
//! finding, is written path by path. Nothing is refused: what exceeds the bounds of `schema` is marked.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::BuildHasher;

use bytes::Bytes;
use event::json::{self, Kind};
use event::{Event, Finding, Id, Invocation, Time};
use tantivy::TantivyDocument;

use crate::groups::{Group, Often, Paths, SET, SHAPE, packed};
use crate::schema::{
    COLUMNS, Fields, MARK, MAX_COMMON, MAX_LEAVES, MAX_PATH, MAX_VALUE, MAX_WORDS_BYTES, OVERFLOW,
    VALUE, value_term_into,
};
use crate::text::{fold_into, is_one_word, key_into, words};

/// What goes to the index for one event or finding.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// For tantivy.
    pub(crate) document: TantivyDocument,
    /// Does it exceed the bounds?
    pub(crate) overflow: bool,
}

/// A value of an event at one path.
#[derive(Debug, Clone, Copy)]
struct Leaf {
    hash: u64,
    /// Where the folded value is in [`Builder::texts`].
    start: usize,
    end: usize,
    path: u32,
    free: bool,
}

/// Makes documents; keeps its buffers from one to the next.
#[derive(Debug)]
pub(crate) struct Builder {
    fields: Fields,
    terms: String,
    common: String,
    words: String,
    path: String,
    /// The number of `path`, where it is known.
    number: Option<u32>,
    folded: String,
    seen: HashSet<u64>,
    hasher: std::collections::hash_map::RandomState,
    doc: json::Doc,
    count: usize,
    overflow: bool,
    /// Sets, shapes and frequent values of this split; findings have none.
    compact: Option<(Paths, Often)>,
    leaves: Vec<Leaf>,
    texts: String,
    present: Vec<u32>,
    group: Vec<u32>,
}

impl Builder {
    /// A builder for the documents of one index. Where the fields have `common`, sets and shapes are used.
    pub(crate) fn new(fields: Fields) -> Builder {
        Builder {
            terms: String::new(),
            common: String::new(),
            words: String::new(),
            path: String::new(),
            number: None,
            folded: String::new(),
            seen: HashSet::new(),
            hasher: Default::default(),
            doc: json::Doc::new(),
            count: 0,
            overflow: false,
            compact: fields.common.map(|_| (Paths::new(), Often::new())),
            leaves: Vec::new(),
            texts: String::new(),
            present: Vec::new(),
            group: Vec::new(),
            fields,
        }
    }

    /// The document of an event. `frame` is the event as it stands on the log.
    pub(crate) fn event(&mut self, event: &Event, frame: &[u8]) -> Document {
        self.clear();
        for_each_normalized(event, &mut |name, value, free| {
            self.normalized(name, value, free);
        });
        self.original(&event.raw);
        let mut document = self.finish(event.time, event.ingest_time, event.id, frame);
        for (field, name) in self.fields.columns.iter().zip(COLUMNS) {
            let value = match *name {
                "outcome" => Some(event.outcome.as_str()),
                name => event.text(name),
            };
            if let Some(value) = value {
                document.add_text(*field, cut(value));
            }
        }
        Document {
            document,
            overflow: self.overflow,
        }
    }

    /// The document of a finding that was put on the log at `recorded`.
    pub(crate) fn finding(&mut self, finding: &Finding, json: &[u8], recorded: Time) -> Document {
        self.clear();
        // Every name of a finding is a normalized one.
        self.path.push(MARK);
        self.json(json);
        let mut document = self.finish(finding.time, recorded, finding.id, json);
        let values = [
            finding.title.as_str(),
            finding.severity.as_str(),
            finding.account.as_str(),
            finding.actor.as_str(),
        ];
        for (field, value) in self.fields.columns.iter().zip(values) {
            document.add_text(*field, cut(value));
        }
        Document {
            document,
            overflow: self.overflow,
        }
    }

    fn clear(&mut self) {
        self.terms.clear();
        self.common.clear();
        self.words.clear();
        self.path.clear();
        self.number = None;
        self.seen.clear();
        self.leaves.clear();
        self.texts.clear();
        self.present.clear();
        self.count = 0;
        self.overflow = false;
    }

    fn finish(&mut self, time: Time, ingest_time: Time, id: Id, stored: &[u8]) -> TantivyDocument {
        if let Some((mut paths, mut often)) = self.compact.take() {
            paths.event();
            self.values(&mut paths, &mut often);
            self.shape(&mut paths);
            self.compact = Some((paths, often));
        }
        if self.overflow {
            self.terms.push_str(OVERFLOW);
        }
        let mut document = TantivyDocument::new();
        document.add_text(self.fields.fields, &self.terms);
        document.add_text(self.fields.words, &self.words);
        document.add_i64(self.fields.time, time.0);
        document.add_i64(self.fields.ingest_time, ingest_time.0);
        document.add_u64(self.fields.id_high, (id.0 >> 64) as u64);
        document.add_u64(self.fields.id_low, id.0 as u64);
        document.add_bytes(self.fields.stored, stored);
        if let Some(common) = self.fields.common {
            document.add_text(common, &self.common);
        }
        document
    }

    /// The terms of the gathered values, those with the same value as one.
    fn values(&mut self, paths: &mut Paths, often: &mut Often) {
        let mut leaves = std::mem::take(&mut self.leaves);
        let texts = std::mem::take(&mut self.texts);
        let text = |leaf: &Leaf| &texts[leaf.start..leaf.end];
        leaves.sort_unstable_by(|a, b| {
            let values = a.hash.cmp(&b.hash).then_with(|| text(a).cmp(text(b)));
            values.then_with(|| (a.path, b.free).cmp(&(b.path, a.free)))
        });
        // What is at a path as text and as another kind (`[true, "true"]`) is there once; free text looks into the text.
        leaves.dedup_by(|a, b| a.hash == b.hash && a.path == b.path && text(a) == text(b));
        for same in leaves.chunk_by(|a, b| a.hash == b.hash && text(a) == text(b)) {
            for free in [true, false] {
                let mut group = std::mem::take(&mut self.group);
                group.clear();
                group.extend(same.iter().filter(|l| l.free == free).map(|l| l.path));
                if !group.is_empty() {
                    self.set(paths, often, (&group, free), text(&same[0]), same[0].hash);
                }
                self.group = group;
            }
        }
        (self.leaves, self.texts) = (leaves, texts);
    }

    /// The terms of one value at all paths of a group.
    fn set(
        &mut self,
        paths: &mut Paths,
        often: &mut Often,
        (group, free): (&[u32], bool),
        folded: &str,
        hash: u64,
    ) {
        let Some(name) = paths.name(Group::Set { free }, group, &mut self.terms) else {
            for path in group {
                self.terms.push_str(paths.path(*path));
                self.terms.push(VALUE);
                value_term_into(folded, &mut self.terms);
                self.terms.push('\0');
            }
            if free {
                self.free(folded);
            }
            return;
        };
        let whole = folded.len() <= MAX_VALUE;
        let of_set = name.bytes().take(8).fold(0, |n, b| n << 8 | u64::from(b));
        let mark = (hash ^ of_set).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let common = folded.len() <= MAX_COMMON && often.count(mark ^ mark >> 29);
        let terms = match common {
            true => &mut self.common,
            false => {
                if free && !(whole && is_one_word(folded)) {
                    self.free(folded);
                }
                &mut self.terms
            }
        };
        terms.push_str(SET);
        terms.push_str(name);
        terms.push(VALUE);
        match packed(folded) {
            Some(packed) => terms.push_str(&packed),
            None => value_term_into(folded, terms),
        }
        // The words of a frequent value are found by its term, so that it must have all of them.
        if common && !whole {
            terms.push(MARK);
            terms.push_str(folded);
        }
        terms.push('\0');
    }

    /// The terms that tell which paths the event has.
    fn shape(&mut self, paths: &mut Paths) {
        self.present.sort_unstable();
        self.present.dedup();
        if self.present.is_empty() {
            return;
        }
        match paths.name(Group::Shape, &self.present, &mut self.terms) {
            Some(name) => {
                self.terms.push_str(SHAPE);
                self.terms.push_str(name);
                self.terms.push('\0');
            }
            None => {
                for path in &self.present {
                    self.terms.push_str(paths.path(*path));
                    self.terms.push('\0');
                }
            }
        }
    }

    fn normalized(&mut self, name: &str, value: &str, free: bool) {
        self.number = None;
        self.path.clear();
        self.path.push(MARK);
        key_into(name, &mut self.path);
        self.leaf(value, free);
        self.exists();
    }

    fn original(&mut self, raw: &Bytes) {
        self.number = None;
        self.path.clear();
        if !self.json(raw) {
            // A record that is no JSON is one value, named as it is in our own JSON.
            self.path.push_str("raw");
            self.number = None;
            self.leaf(&String::from_utf8_lossy(raw), true);
            self.exists();
        }
    }

    fn json(&mut self, text: &[u8]) -> bool {
        let mut doc = std::mem::take(&mut self.doc);
        let good = doc
            .scan(text, 0)
            .is_ok_and(|end| json::skip_space(text, end) == text.len());
        if good {
            self.value(doc.root(text), true);
        }
        self.doc = doc;
        good
    }

    /// Indexes what is at and below a value. Tells whether there is anything but `null`.
    fn value(&mut self, value: json::Value<'_>, root: bool) -> bool {
        match value.kind() {
            Kind::Null => false,
            Kind::Object => {
                let length = self.path.len();
                let mut any = false;
                for child in value.children() {
                    if !root {
                        self.path.push('.');
                    }
                    key_into(&child.key().unwrap_or_default(), &mut self.path);
                    self.number = None;
                    if self.value(child, false) {
                        self.exists();
                        any = true;
                    }
                    self.path.truncate(length);
                    self.number = None;
                }
                any
            }
            // The path of an array stands for its elements.
            Kind::Array => {
                let mut any = false;
                for child in value.children() {
                    any |= self.value(child, root);
                }
                any
            }
            kind => {
                let text = value.text().unwrap_or_default();
                self.leaf(&text, matches!(kind, Kind::String | Kind::Number));
                true
            }
        }
    }

    /// The number of the path, where sets and shapes are used and there is room.
    fn number(&mut self) -> Option<u32> {
        if self.number.is_none()
            && let Some((paths, _)) = &mut self.compact
        {
            self.number = paths.number(&self.path);
        }
        self.number
    }

    fn exists(&mut self) {
        if self.path.len() > MAX_PATH || self.count > MAX_LEAVES {
            self.overflow = true;
        } else if !self.path.is_empty() && self.path != OVERFLOW {
            let number = self.number();
            match number {
                Some(number) => self.present.push(number),
                None => {
                    self.terms.push_str(&self.path);
                    self.terms.push('\0');
                }
            }
        }
    }

    fn leaf(&mut self, value: &str, free: bool) {
        let mut folded = std::mem::take(&mut self.folded);
        folded.clear();
        fold_into(value, &mut folded);
        self.count += 1;
        if self.count > MAX_LEAVES || self.path.len() > MAX_PATH {
            self.overflow = true;
        } else {
            let number = self.number();
            match number {
                Some(path) => {
                    let start = self.texts.len();
                    self.texts.push_str(&folded);
                    self.leaves.push(Leaf {
                        hash: self.hasher.hash_one(&*folded),
                        start,
                        end: self.texts.len(),
                        path,
                        free,
                    });
                }
                None => {
                    if free {
                        self.free(&folded);
                    }
                    self.terms.push_str(&self.path);
                    self.terms.push(VALUE);
                    value_term_into(&folded, &mut self.terms);
                    self.terms.push('\0');
                }
            }
        }
        self.folded = folded;
    }

    fn free(&mut self, folded: &str) {
        if !self.seen.insert(self.hasher.hash_one(folded)) {
            return;
        }
        for word in words(folded) {
            if self.words.len() + word.len() > MAX_WORDS_BYTES {
                self.overflow = true;
                return;
            }
            self.words.push_str(word);
            self.words.push('\0');
        }
        self.words.push('\0');
    }
}

/// Column values are cut like values of terms, since tantivy takes 65,530 bytes at most.
fn cut(value: &str) -> &str {
    let mut end = value.len().min(MAX_VALUE);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

/// Calls `each` with the name and value of all normalized fields, and whether free text looks into it.
fn for_each_normalized(event: &Event, each: &mut dyn FnMut(&str, &str, bool)) {
    each("id", event.id.encode(&mut [0; 32]), true);
    for name in Event::NAMES {
        if let Some(value) = event.text(name) {
            each(name, value, true);
        }
    }
    each("outcome", event.outcome.as_str(), false);
    each("integrity", event.integrity.as_str(), false);
    each("late", if event.late { "true" } else { "false" }, false);
    if let Some(mfa) = event.mfa {
        each("mfa", if mfa { "true" } else { "false" }, false);
    }
    for resource in &event.resources {
        each("resources", resource, true);
    }
    for flag in event.flags.iter() {
        each("flags", flag.as_str(), false);
    }
    for (label, value) in &event.labels {
        each(&format!("labels.{label}"), value, true);
    }
    if !event.origin.object.is_empty() {
        each("origin.object", &event.origin.object, true);
    }
    each("origin.position", &event.origin.position.to_string(), false);
    if !event.origin.sha256.is_empty() {
        each("origin.sha256", &event.origin.sha256, true);
    }
    if let Some(invocation) = event.invocation.as_deref() {
        for_each_invocation(invocation, each);
    }
}

fn for_each_invocation(invocation: &Invocation, each: &mut dyn FnMut(&str, &str, bool)) {
    let numbers = [
        (
            "invocation.duration_ms",
            invocation.duration_ms.map(|n| n.to_string()),
        ),
        (
            "invocation.billed_ms",
            invocation.billed_ms.map(|n| n.to_string()),
        ),
        (
            "invocation.memory_mb",
            invocation.memory_mb.map(|n| n.to_string()),
        ),
        (
            "invocation.memory_used_mb",
            invocation.memory_used_mb.map(|n| n.to_string()),
        ),
        (
            "invocation.init_ms",
            invocation.init_ms.map(|n| n.to_string()),
        ),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            each(name, &value, false);
        }
    }
    let cold = if invocation.cold_start {
        "true"
    } else {
        "false"
    };
    let texts: [(&str, Cow<'_, str>, bool); 3] = [
        ("invocation.cold_start", cold.into(), false),
        ("invocation.status", invocation.status.as_str().into(), true),
        (
            "invocation.error_type",
            invocation.error_type.as_str().into(),
            true,
        ),
    ];
    for (name, value, free) in texts {
        if !value.is_empty() {
            each(name, &value, free);
        }
    }
}
