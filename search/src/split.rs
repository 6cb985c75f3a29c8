//! A split: one immutable tantivy index in a folder of its own, newest event first.
//!
//! [`Writer`] builds one from events, [`merge`] makes one of several, [`Split`] is one that is open for reading. What
//! everybody needs to know of a split without opening it is its [`Meta`]: it stands in the state of the consumer
//! `index` on the bus and in `manifest.json`. A split that was replaced is deleted from the disk when the last reader
//! has let go of it. This file knows nothing of queries.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bus::ledger::tree::{Hash, leaf_hash};
use event::{Event, Time};
use serde::{Deserialize, Serialize};
use tantivy::directory::MmapDirectory;
use tantivy::schema::Schema;
use tantivy::{Index, IndexReader, ReloadPolicy, SingleSegmentIndexWriter};

use crate::document::Builder;
use crate::evidence::seal;
use crate::manifest::FORMAT;
use crate::schema::{Fields, settings, tokenizers};

/// What is known of a split.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Meta {
    /// Its number; the name of its folder.
    pub(crate) number: u64,
    /// Its place among the splits: the number of the oldest split that went into it.
    pub(crate) order: u64,
    /// How many events it has.
    pub(crate) events: u64,
    /// How much disk it takes.
    pub(crate) bytes: u64,
    /// The time of its earliest event.
    pub(crate) earliest: Time,
    /// The time of its latest event.
    pub(crate) latest: Time,
    /// When its first event was taken in.
    pub(crate) first_ingested: Time,
    /// When its last event was taken in; retention counts from here.
    pub(crate) last_ingested: Time,
    /// The offsets of the events topic that it covers: partition, first, one past the last.
    pub(crate) offsets: Vec<(u32, u64, u64)>,
    /// The format that it was written in; 0 is the first one, which did not say so.
    pub(crate) format: u32,
    /// Its class: for how many days its events are searchable; 0: as long as the configuration says for all. Where it is
    /// 0 it is not written, since what the evidence log says of older splits does not have it.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) days: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Meta {
    /// The folder of split `number`.
    pub(crate) fn folder(dir: &Path, number: u64) -> PathBuf {
        dir.join(format!("{number:016x}"))
    }

    fn add(&mut self, time: Time, ingested: Time) {
        if self.events == 0 {
            (self.earliest, self.latest) = (time, time);
            (self.first_ingested, self.last_ingested) = (ingested, ingested);
        }
        self.earliest = self.earliest.min(time);
        self.latest = self.latest.max(time);
        self.first_ingested = self.first_ingested.min(ingested);
        self.last_ingested = self.last_ingested.max(ingested);
        self.events += 1;
    }

    /// The meta of all of `parts` in one; `number` is its own.
    pub(crate) fn merged(parts: &[Meta], number: u64) -> Meta {
        let mut meta = Meta {
            number,
            ..parts.first().cloned().unwrap_or_default()
        };
        for part in &parts[1..] {
            meta.order = meta.order.min(part.order);
            meta.events += part.events;
            meta.earliest = meta.earliest.min(part.earliest);
            meta.latest = meta.latest.max(part.latest);
            meta.first_ingested = meta.first_ingested.min(part.first_ingested);
            meta.last_ingested = meta.last_ingested.max(part.last_ingested);
            for &(partition, from, to) in &part.offsets {
                match meta.offsets.iter_mut().find(|o| o.0 == partition) {
                    Some(range) => {
                        range.1 = range.1.min(from);
                        range.2 = range.2.max(to);
                    }
                    None => meta.offsets.push((partition, from, to)),
                }
            }
        }
        meta.offsets.sort_unstable();
        meta
    }
}

/// Builds a split.
pub(crate) struct Writer {
    writer: SingleSegmentIndexWriter,
    builder: Builder,
    folder: PathBuf,
    meta: Meta,
    /// How much memory it took before its first event.
    empty: usize,
    /// Of each event.
    hashes: Vec<Hash>,
}

impl Writer {
    /// Begins split `number` in `dir`. `memory` bounds what [`Writer::memory`] should be let to reach.
    pub(crate) fn create(dir: &Path, number: u64, memory: usize) -> tantivy::Result<Writer> {
        Writer::with(Fields::events(), FORMAT, dir, number, memory)
    }

    /// As [`Writer::create`], in the first format: what older programs left must be found.
    #[cfg(test)]
    pub(crate) fn first(dir: &Path, number: u64, memory: usize) -> tantivy::Result<Writer> {
        Writer::with(Fields::first(), 0, dir, number, memory)
    }

    fn with(
        fields: Fields,
        format: u32,
        dir: &Path,
        number: u64,
        memory: usize,
    ) -> tantivy::Result<Writer> {
        let folder = Meta::folder(dir, number);
        std::fs::create_dir_all(&folder)?;
        let writer = Index::builder()
            .schema(fields.schema.clone())
            .settings(settings())
            .tokenizers(tokenizers())
            .single_segment_index_writer(MmapDirectory::open(&folder)?, memory)?;
        Ok(Writer {
            empty: writer.mem_usage(),
            writer,
            builder: Builder::new(fields),
            folder,
            meta: Meta {
                number,
                order: number,
                format,
                ..Meta::default()
            },
            hashes: Vec::new(),
        })
    }

    /// Adds an event; `frame` is [`Event::encode`]. Tells whether it exceeds the bounds of the index.
    pub(crate) fn add(&mut self, event: &Event, frame: &[u8]) -> tantivy::Result<bool> {
        let document = self.builder.event(event, frame);
        self.writer.add_document(document.document)?;
        self.hashes.push(leaf_hash(frame));
        self.meta.add(event.time, event.ingest_time);
        Ok(document.overflow)
    }

    /// The same, of a class of its own.
    pub(crate) fn of_class(mut self, days: u32) -> Writer {
        self.meta.days = days;
        self
    }

    /// For how many days its events are searchable; 0: as long as all others.
    pub(crate) fn class(&self) -> u32 {
        self.meta.days
    }

    /// How many events it has so far.
    pub(crate) fn events(&self) -> u64 {
        self.meta.events
    }

    /// How much memory its events take.
    pub(crate) fn taken(&self) -> usize {
        self.memory().saturating_sub(self.empty)
    }

    /// How much memory it takes now.
    pub(crate) fn memory(&self) -> usize {
        self.writer.mem_usage()
    }

    /// Writes it to the disk, durably. It covers `offsets`.
    pub(crate) fn finish(self, offsets: Vec<(u32, u64, u64)>) -> tantivy::Result<Meta> {
        self.writer.finalize()?;
        seal::write(&self.folder, self.hashes)?;
        let meta = Meta {
            offsets,
            bytes: size(&self.folder)?,
            ..self.meta
        };
        sync_folder(self.folder.parent().unwrap_or(&self.folder))?;
        Ok(meta)
    }
}

/// Merges `splits` into split `number` of `dir`, durably.
pub(crate) fn merge(dir: &Path, splits: &[Arc<Split>], number: u64) -> tantivy::Result<Meta> {
    let folder = Meta::folder(dir, number);
    std::fs::create_dir_all(&folder)?;
    let indexes: Vec<Index> = splits.iter().map(|s| s.index.clone()).collect();
    let merged = tantivy::indexer::merge_indices(&indexes, MmapDirectory::open(&folder)?)?;
    let parts: Vec<&Path> = splits.iter().map(|s| s.folder.as_path()).collect();
    seal::merge(&folder, &parts)?;
    let metas: Vec<Meta> = splits.iter().map(|s| s.meta.clone()).collect();
    let meta = Meta {
        bytes: size(&folder)?,
        ..Meta::merged(&metas, number)
    };
    let written = merged.searchable_segment_metas()?;
    if written.iter().map(|s| u64::from(s.num_docs())).sum::<u64>() != meta.events {
        let message = format!("merged split {number} does not have {} events", meta.events);
        return Err(tantivy::TantivyError::InternalError(message));
    }
    sync_folder(dir)?;
    Ok(meta)
}

/// A split that is open for reading.
pub(crate) struct Split {
    /// What is known of it.
    pub(crate) meta: Meta,
    folder: PathBuf,
    index: Index,
    reader: IndexReader,
    doomed: AtomicBool,
}

impl Split {
    /// Opens a split of `dir`.
    pub(crate) fn open(dir: &Path, meta: Meta) -> tantivy::Result<Split> {
        let folder = Meta::folder(dir, meta.number);
        let mut index = Index::open(MmapDirectory::open(&folder)?)?;
        index.set_tokenizers(tokenizers());
        let fields = match meta.format {
            0 | 1 => Fields::first(),
            _ => Fields::events(),
        };
        check_schema(&index.schema(), &fields.schema)?;
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(4)
            .try_into()?;
        Ok(Split {
            meta,
            folder,
            index,
            reader,
            doomed: AtomicBool::new(false),
        })
    }

    /// For searching it.
    pub(crate) fn searcher(&self) -> tantivy::Searcher {
        self.reader.searcher()
    }

    /// What is wrong with its files, as far as their own checksums say.
    pub(crate) fn damage(&self) -> tantivy::Result<Option<String>> {
        let damaged = self.index.validate_checksum()?;
        if let Some(file) = damaged.iter().next() {
            return Ok(Some(format!("`{}` is damaged", file.display())));
        }
        let events = self.searcher().num_docs();
        Ok((events != self.meta.events)
            .then(|| format!("it has {events} events, not {}", self.meta.events)))
    }

    /// Deletes it from the disk as soon as nobody reads it.
    pub(crate) fn doom(&self) {
        self.doomed.store(true, Ordering::SeqCst);
    }
}

impl Drop for Split {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::SeqCst)
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot delete a replaced split");
        }
    }
}

fn check_schema(found: &Schema, expected: &Schema) -> tantivy::Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(tantivy::TantivyError::SchemaError(
        "the split was written by another version; delete the index folder to build it anew"
            .to_owned(),
    ))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(dir: &Path) -> std::io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

/// Replaces a file of a folder as a whole, durably: a reader sees the old content or the new one.
pub(crate) fn write_beside(dir: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = std::fs::File::create(&new)?;
    std::io::Write::write_all(&mut file, content)?;
    file.sync_all()?;
    std::fs::rename(&new, dir.join(name))?;
    sync_folder(dir)
}

fn size(folder: &Path) -> std::io::Result<u64> {
    std::fs::read_dir(folder)?.try_fold(0, |sum, entry| Ok(sum + entry?.metadata()?.len()))
}
