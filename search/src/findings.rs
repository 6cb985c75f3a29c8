//! The index of findings: one mutable tantivy index, since a finding is revised as its episode grows.
//!
//! [`FindingWriter`] puts findings in by id, which a later event never changes, the later revision in place of the earlier. How far it has read is kept
//! in the payload of tantivy's own commit, so that index and position are one atomic thing here as well. [`Findings`]
//! reads. There are few findings beside events, so that the splits of events, built for bulk, would not pay here.

use std::collections::BTreeMap;
use std::path::Path;

use event::{Finding, Id, Time};
use tantivy::directory::MmapDirectory;
use tantivy::query::TermQuery;
use tantivy::schema::IndexRecordOption;
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, Term};

use crate::document::Builder;
use crate::schema::{Fields, MARK, findings_settings, term, tokenizers};

/// Positions by partition, as the payload has them.
pub(crate) type Positions = BTreeMap<u32, u64>;

/// The index of findings, open for reading.
pub(crate) struct Findings {
    reader: IndexReader,
}

impl Findings {
    /// Opens the index in the folder of the whole index; `None` if there is none.
    pub(crate) fn open(dir: &Path) -> tantivy::Result<Option<Findings>> {
        let folder = dir.join("findings");
        if !folder.join("meta.json").exists() {
            return Ok(None);
        }
        let mut index = Index::open(MmapDirectory::open(&folder)?)?;
        index.set_tokenizers(tokenizers());
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(8)
            .try_into()?;
        Ok(Some(Findings { reader }))
    }

    /// Can the index be read, as far as its checksums say? One that is not there yet is sound.
    pub(crate) fn is_sound(dir: &Path) -> bool {
        let folder = dir.join("findings");
        if !folder.exists() {
            return true;
        }
        let check = || -> tantivy::Result<bool> {
            let index = Index::open(MmapDirectory::open(&folder)?)?;
            Ok(index.validate_checksum()?.is_empty() && Findings::open(dir)?.is_some())
        };
        check().unwrap_or(false)
    }

    pub(crate) fn searcher(&self) -> tantivy::Searcher {
        self.reader.searcher()
    }

    /// Takes in what was committed since.
    pub(crate) fn reload(&self) -> tantivy::Result<()> {
        self.reader.reload()
    }
}

/// Puts findings into the index.
pub(crate) struct FindingWriter {
    writer: IndexWriter,
    builder: Builder,
    fields: Fields,
    positions: Positions,
    /// Revisions of this commit, which the reader does not see yet.
    revisions: BTreeMap<Id, u64>,
    reader: IndexReader,
}

impl FindingWriter {
    /// Opens or makes the index in the folder of the whole index.
    pub(crate) fn open(dir: &Path) -> tantivy::Result<FindingWriter> {
        let folder = dir.join("findings");
        std::fs::create_dir_all(&folder)?;
        let fields = Fields::findings();
        let mut index = Index::builder()
            .schema(fields.schema.clone())
            .settings(findings_settings())
            .tokenizers(tokenizers())
            .open_or_create(MmapDirectory::open(&folder)?)?;
        index.set_tokenizers(tokenizers());
        let payload = index.load_metas()?.payload;
        let positions = payload
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into()?;
        Ok(FindingWriter {
            writer: index.writer_with_num_threads(1, 16 * 1024 * 1024)?,
            builder: Builder::new(fields.clone()),
            fields,
            positions,
            revisions: BTreeMap::new(),
            reader,
        })
    }

    /// Where to read on in a partition; `None` before the first commit.
    pub(crate) fn position(&self, partition: u32) -> Option<u64> {
        self.positions.get(&partition).copied()
    }

    /// Puts a finding in, unless a later revision of it is there already.
    pub(crate) fn put(
        &mut self,
        finding: &Finding,
        json: &[u8],
        recorded: Time,
    ) -> tantivy::Result<()> {
        let key = self.key(finding.id);
        let before = match self.revisions.get(&finding.id) {
            Some(revision) => Some(*revision),
            None => self.stored_revision(&key)?,
        };
        if before.is_some_and(|revision| revision > finding.revision) {
            return Ok(());
        }
        self.revisions.insert(finding.id, finding.revision);
        self.writer.delete_term(key);
        let document = self.builder.finding(finding, json, recorded);
        self.writer.add_document(document.document)?;
        Ok(())
    }

    fn key(&self, id: Id) -> Term {
        let path = format!("{MARK}id");
        Term::from_field_text(self.fields.fields, &term(&path, &id.to_string()))
    }

    fn stored_revision(&self, key: &Term) -> tantivy::Result<Option<u64>> {
        let searcher = self.reader.searcher();
        let query = TermQuery::new(key.clone(), IndexRecordOption::Basic);
        let found = searcher.search(&query, &tantivy::collector::DocSetCollector)?;
        let Some(address) = found.into_iter().next() else {
            return Ok(None);
        };
        let document: TantivyDocument = searcher.doc(address)?;
        let revision = document
            .get_first(self.fields.stored)
            .and_then(|v| tantivy::schema::Value::as_bytes(&v))
            .and_then(|json| serde_json::from_slice::<Finding>(json).ok())
            .map(|finding| finding.revision);
        Ok(revision)
    }

    /// Drops findings that were put on the log before `time`.
    pub(crate) fn drop_before(&mut self, time: Time) -> tantivy::Result<()> {
        use std::ops::Bound;
        let below = Bound::Excluded(Term::from_field_i64(self.fields.ingest_time, time.0));
        let query = tantivy::query::RangeQuery::new(Bound::Unbounded, below);
        self.writer.delete_query(Box::new(query))?;
        Ok(())
    }

    /// Makes what was put in durable and visible, together with how far the log was read.
    pub(crate) fn commit(&mut self, positions: &[(u32, u64)]) -> tantivy::Result<()> {
        self.positions.extend(positions.iter().copied());
        let payload = serde_json::to_string(&self.positions).expect("a map of numbers is JSON");
        let mut prepared = self.writer.prepare_commit()?;
        prepared.set_payload(&payload);
        prepared.commit()?;
        self.revisions.clear();
        self.reader.reload()
    }
}
