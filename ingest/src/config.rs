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

/// A setting with which intake cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is {value}, must be {allowed}")]
pub struct ConfigError {
    /// Which setting, as it stands in the file below the part of this crate.
    pub key: &'static str,
    /// What it is.
    pub value: u64,
    /// What it may be.
    pub allowed: &'static str,
}

impl Config {
    /// All settings with which intake cannot work.
    pub fn check(&self) -> Vec<ConfigError> {
        let within = |key, value: u64, low: u64, high: u64, allowed| {
            let bad = !(low..=high).contains(&value);
            bad.then_some(ConfigError {
                key,
                value,
                allowed,
            })
        };
        [
            within(
                "files.rescan_seconds",
                self.files.rescan_seconds,
                1,
                86_400,
                "between 1 and 86400",
            ),
            within(
                "files.settle_seconds",
                self.files.settle_seconds,
                0,
                86_400,
                "at most 86400",
            ),
            within(
                "push.max_body_mib",
                self.push.max_body_mib,
                1,
                1_024,
                "between 1 and 1024",
            ),
            within(
                "push.concurrency",
                self.push.concurrency as u64,
                1,
                1_024,
                "between 1 and 1024",
            ),
            within(
                "push.timeout_seconds",
                self.push.timeout_seconds,
                1,
                3_600,
                "between 1 and 3600",
            ),
            within(
                "limits.object_mib",
                self.limits.object_mib,
                1,
                1 << 30,
                "at least 1",
            ),
            within(
                "limits.record_kib",
                self.limits.record_kib,
                256,
                256 << 10,
                "between 256, the largest CloudTrail record, and 262144",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_setting_is_named() {
        assert_eq!(Config::default().check(), []);
        let config: Config = serde_json::from_str(
            r#"{"push":{"concurrency":0,"max_body_mib":5000},"limits":{"record_kib":1}}"#,
        )
        .unwrap();
        let keys: Vec<_> = config.check().into_iter().map(|e| e.key).collect();
        assert_eq!(
            keys,
            ["push.max_body_mib", "push.concurrency", "limits.record_kib"]
        );
        assert!(serde_json::from_str::<Config>(r#"{"pushh":{}}"#).is_err());
    }

    #[test]
    fn limits_follow_the_settings() {
        let config = Config::default();
        assert_eq!(config.file_limits(), Limits::of_files());
        assert_eq!(config.body_limits(), Limits::of_bodies());
    }
}
