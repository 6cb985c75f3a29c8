//! The configuration of intake: watched files, the push endpoint, limits.
//!
//! The program composes [`Config`] into its one file; every field has a default that loses nothing. Sources
//! that need credentials will stand here too, with a `*_file` twin for every secret.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::decode::Limits;

/// Everything about intake.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Files and folders that are watched.
    pub files: Files,
    /// The push endpoint `/api/v1/events`.
    pub push: Push,
    /// How much of one object is taken.
    pub limits: ObjectLimits,
}

/// Files and folders that are watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    /// Files, and folders with everything below them. None: no files are watched.
    pub paths: Vec<PathBuf>,
    /// How often all of them are looked through, besides the notices of the system.
    pub rescan_seconds: u64,
    /// A compressed file or one with a single JSON value is read once it has not changed for so long.
    pub settle_seconds: u64,
}

impl Default for Files {
    fn default() -> Files {
        Files {
            paths: Vec::new(),
            rescan_seconds: 10,
            settle_seconds: 3,
        }
    }
}

/// The push endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Push {
    /// The largest body, as sent and decompressed, in MiB.
    pub max_body_mib: u64,
    /// How many bodies are taken at once; further requests are asked to come back.
    pub concurrency: usize,
    /// A body must have arrived within this time.
    pub timeout_seconds: u64,
}

impl Default for Push {
    fn default() -> Push {
        Push {
            max_body_mib: 64,
            concurrency: 4,
            timeout_seconds: 60,
        }
    }
}

/// How much of one object is taken; what is beyond becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectLimits {
    /// Decompressed size of one file or object, in MiB.
    pub object_mib: u64,
    /// Size of one record, in KiB.
    pub record_kib: u64,
}

impl Default for ObjectLimits {
    fn default() -> ObjectLimits {
        ObjectLimits {
            object_mib: 8 << 10,
            record_kib: 4 << 10,
        }
    }
}

impl Config {
    /// The limits for files and objects.
    pub fn file_limits(&self) -> Limits {
        let record_bytes = (self.limits.record_kib as usize) << 10;
        let files = Limits::of_files();
        Limits {
            object_bytes: self.limits.object_mib << 20,
            record_bytes,
            payload_bytes: files.payload_bytes.max(record_bytes),
            ..files
        }
    }

    /// The limits for bodies of requests.
    pub fn body_limits(&self) -> Limits {
        Limits {
            object_bytes: self.push.max_body_mib << 20,
            ..self.file_limits()
        }
    }
}
