//! `manifest.json`: the list of published splits for readers in other processes.
//!
//! The truth is the consumer state on the bus. The manifest is written after each commit, next to the splits, and
//! replaced as a whole by a rename, so that a reader sees either the old list or the new one. An index without a bus
//! ([`crate::offline`]) has nothing but the manifest.

use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::split::{Meta, write_beside};

/// The version of the index folder. Splits of version 1 are read as well; a folder newer than [`CLASSES`] is refused.
pub(crate) const FORMAT: u32 = 2;
/// The version of a folder with splits of several classes of retention: a program that knows none would mix them.
const CLASSES: u32 = 3;

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The version of the index folder.
    pub(crate) format: u32,
    /// The published splits in their order.
    pub(crate) splits: Vec<Meta>,
}

/// Tells one version of the file from the next.
pub(crate) type Stamp = (SystemTime, u64);

impl Manifest {
    /// Reads the manifest of an index folder; `None` if there is none.
    pub(crate) fn read(dir: &Path) -> std::io::Result<Option<Manifest>> {
        let text = match std::fs::read(dir.join("manifest.json")) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let manifest: Manifest = serde_json::from_slice(&text)?;
        if !(1..=CLASSES).contains(&manifest.format) {
            return Err(std::io::Error::other(format!(
                "index folder has format {}, this program reads 1 to {CLASSES}: use the program that wrote it or a newer one",
                manifest.format
            )));
        }
        Ok(Some(manifest))
    }

    /// Replaces the manifest of an index folder.
    pub(crate) fn write(dir: &Path, splits: Vec<Meta>) -> std::io::Result<()> {
        let format = match splits.iter().any(|m| m.days > 0) {
            true => CLASSES,
            false => FORMAT,
        };
        let manifest = Manifest { format, splits };
        write_beside(dir, "manifest.json", &serde_json::to_vec(&manifest)?)
    }

    pub(crate) fn stamp(dir: &Path) -> Option<Stamp> {
        let meta = std::fs::metadata(dir.join("manifest.json")).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    }
}
