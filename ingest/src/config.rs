//! The configuration of intake: watched files, the push endpoint, limits.
//!
//! The program composes [`Config`] into its one file; every field has a default that loses nothing. Sources
//! that need credentials will stand here too, with a `*_file` twin for every secret.

use std::path::PathBuf;

use event::Time;
use serde::{Deserialize, Serialize};

use crate::decode::Limits;
use crate::source::bucket::Bucket;
use crate::source::queue::Queue;

/// Everything about intake.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Files and folders that are watched.
    pub files: Files,
    /// Queues of SQS that tell of objects in S3.
    pub queues: Vec<Queue>,
    /// Buckets of S3 that are looked through for what was not read.
    pub buckets: Vec<Bucket>,
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
    pub key: String,
    /// What it is.
    pub value: String,
    /// What it may be.
    pub allowed: &'static str,
}

impl Config {
    /// All settings with which intake cannot work.
    pub fn check(&self) -> Vec<ConfigError> {
        let mut errors: Vec<ConfigError> = [
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
        .collect();
        for (n, queue) in self.queues.iter().enumerate() {
            errors.extend(check_queue(queue).into_iter().map(|e| ConfigError {
                key: format!("queues[{n}].{}", e.key),
                ..e
            }));
            if self.queues[..n].iter().any(|q| q.name() == queue.name()) {
                errors.push(ConfigError {
                    key: format!("queues[{n}].name"),
                    value: format!("`{}`", queue.name()),
                    allowed: "another one for each queue",
                });
            }
        }
        for (n, bucket) in self.buckets.iter().enumerate() {
            errors.extend(check_bucket(bucket).into_iter().map(|e| ConfigError {
                key: format!("buckets[{n}].{}", e.key),
                ..e
            }));
        }
        errors
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

fn within(
    key: &str,
    value: u64,
    low: u64,
    high: u64,
    allowed: &'static str,
) -> Option<ConfigError> {
    let bad = !(low..=high).contains(&value);
    bad.then(|| ConfigError {
        key: key.to_owned(),
        value: value.to_string(),
        allowed,
    })
}

fn check_queue(queue: &Queue) -> Vec<ConfigError> {
    let url = ["https://", "http://"]
        .iter()
        .find_map(|scheme| queue.url.strip_prefix(scheme));
    let bad_url = url.is_none_or(|rest| rest.splitn(3, '/').filter(|p| !p.is_empty()).count() < 3);
    [
        bad_url.then(|| ConfigError {
            key: "url".to_owned(),
            value: format!("`{}`", queue.url),
            allowed: "the address of a queue, https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
        }),
        within(
            "concurrency",
            queue.concurrency as u64,
            1,
            64,
            "between 1 and 64",
        ),
        within(
            "visibility_seconds",
            queue.visibility_seconds.into(),
            2,
            43_200,
            "between 2 and 43200",
        ),
        within("tries", queue.tries.into(), 1, 1_000, "between 1 and 1000"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check_bucket(bucket: &Bucket) -> Vec<ConfigError> {
    let wrong = |key: &str, value: &str, allowed| ConfigError {
        key: key.to_owned(),
        value: format!("`{value}`"),
        allowed,
    };
    let (name, from) = (bucket.bucket.as_str(), bucket.from.as_str());
    let bad_name = name.is_empty() || name.contains(['/', ':']);
    let bad_from = !from.is_empty() && Time::parse(from).is_err();
    [
        bad_name.then(|| wrong("bucket", name, "the bare name of a bucket")),
        bad_from.then(|| wrong("from", from, "a time such as 2026-01-01T00:00:00Z")),
        within(
            "every_minutes",
            bucket.every_minutes,
            1,
            10_080,
            "between 1 and 10080",
        ),
        within(
            "look_back_hours",
            bucket.look_back_hours,
            1,
            8_784,
            "between 1 and 8784",
        ),
        within(
            "concurrency",
            bucket.concurrency as u64,
            1,
            64,
            "between 1 and 64",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
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
        let config: Config = serde_json::from_str(
            r#"{"queues":[{"url":"https://sqs.eu-west-1.amazonaws.com/1/a"},{"url":"trail","tries":0},
                {"url":"https://sqs.eu-west-1.amazonaws.com/2/a"}]}"#,
        )
        .unwrap();
        let keys: Vec<_> = config.check().into_iter().map(|e| e.key).collect();
        assert_eq!(keys, ["queues[1].url", "queues[1].tries", "queues[2].name"]);
        let config: Config =
            serde_json::from_str(r#"{"buckets":[{"bucket":"s3://b","from":"yesterday"}]}"#)
                .unwrap();
        let keys: Vec<_> = config.check().into_iter().map(|e| e.key).collect();
        assert_eq!(keys, ["buckets[0].bucket", "buckets[0].from"]);
        assert!(serde_json::from_str::<Config>(r#"{"pushh":{}}"#).is_err());
    }

    #[test]
    fn limits_follow_the_settings() {
        let config = Config::default();
        assert_eq!(config.file_limits(), Limits::of_files());
        assert_eq!(config.body_limits(), Limits::of_bodies());
    }
}
