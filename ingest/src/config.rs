//! The configuration of intake: watched files, the HTTP endpoints, limits.
//!
//! The program composes [`Config`] into its one file; every field has a default that loses nothing. Secrets
//! are never printed and have a `*_file` twin.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::decode::Limits;
use crate::source::bucket::Bucket;
use crate::source::cloudwatch::LogGroups;
use crate::source::kinesis::Stream;
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
    /// Data streams of Kinesis.
    pub streams: Vec<Stream>,
    /// Log groups of CloudWatch Logs that are asked for what is new.
    pub log_groups: Vec<LogGroups>,
    /// The push endpoint `/api/v1/events`.
    pub push: Push,
    /// The endpoint for Amazon Data Firehose, `/api/v1/firehose`.
    pub firehose: Firehose,
    /// How much of one object is taken.
    pub limits: ObjectLimits,
    /// What is replaced in records before they become events.
    pub redaction: Redaction,
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

/// The endpoint for Amazon Data Firehose. It is off while it has no key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Firehose {
    /// The access keys that open it: two while one takes the place of the other.
    pub access_keys: AccessKeys,
    /// A file that holds them instead, one a line.
    pub access_keys_file: Option<PathBuf>,
    /// The largest body, as sent and decompressed, in MiB. Firehose sends at most 64.
    pub max_body_mib: u64,
    /// How many bodies are taken at once; further requests are asked to come back.
    pub concurrency: usize,
    /// A request is answered within this time. Firehose waits for three minutes.
    pub timeout_seconds: u64,
}

impl Default for Firehose {
    fn default() -> Firehose {
        Firehose {
            access_keys: AccessKeys::default(),
            access_keys_file: None,
            max_body_mib: 64,
            concurrency: 4,
            timeout_seconds: 150,
        }
    }
}

/// Access keys, which print and serialize as `***`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct AccessKeys(Vec<String>);

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|_| format_args!("***")))
            .finish()
    }
}

impl Serialize for AccessKeys {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|_| "***"))
    }
}

impl Firehose {
    /// The access keys, checked, from the configuration or their file.
    pub(crate) fn keys(&self) -> Result<Vec<String>, ConfigError> {
        let keys = match &self.access_keys_file {
            None => self.access_keys.0.clone(),
            Some(_) if !self.access_keys.0.is_empty() => return Err(ConfigError::KeysTwice),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|error| ConfigError::KeysFile {
                        path: path.display().to_string(),
                        reason: error.to_string(),
                    })?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let keys: Vec<String> = lines.map(str::to_owned).collect();
                if keys.is_empty() {
                    return Err(ConfigError::NoKeys(path.display().to_string()));
                }
                keys
            }
        };
        // What cannot stand in a header would never be presented.
        let good = |key: &String| {
            (1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic())
        };
        match keys.iter().position(|key| !good(key)) {
            None => Ok(keys),
            Some(at) => Err(ConfigError::Key(at + 1)),
        }
    }
}

/// Firehose takes no longer access key.
const MAX_KEY_BYTES: usize = 4_096;

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

/// A setting with which intake cannot work. It is named as it stands in the file below the part of this crate.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that it may not have.
    #[error("`{key}` is {value}, must be {allowed}")]
    Value {
        /// Which setting.
        key: String,
        /// What it is.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// Access keys in the configuration and in a file.
    #[error(
        "`firehose.access_keys` and `firehose.access_keys_file` are both set, must be one of them"
    )]
    KeysTwice,
    /// A file of access keys that cannot be read.
    #[error("`firehose.access_keys_file`: cannot read `{path}`: {reason}")]
    KeysFile {
        /// The file.
        path: String,
        /// The system's answer.
        reason: String,
    },
    /// A file of access keys without one.
    #[error("`firehose.access_keys_file`: there is no key in `{0}`")]
    NoKeys(String),
    /// An access key that Firehose cannot present; which one, counted from 1.
    #[error(
        "`firehose.access_keys`: key {0} must be 1 to 4096 visible ASCII characters without spaces"
    )]
    Key(usize),
}

/// What is replaced in records before they become events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redaction {
    /// Are secrets replaced?
    pub enabled: bool,
    /// Events of these sources are left as they are, but for `fields` that name them.
    pub except_sources: Vec<String>,
    /// Kinds of the shipped set that are not replaced.
    pub except_kinds: Vec<String>,
    /// Secrets of one's own.
    pub patterns: Vec<OwnPattern>,
    /// Fields that are dropped or replaced whatever is in them.
    pub fields: Vec<MinimisedField>,
    /// What becomes of the original of a record in which something was replaced.
    pub original: Original,
    /// The key of fingerprints and sealed originals; without it one is made in the data folder.
    pub key_file: Option<PathBuf>,
}

impl Default for Redaction {
    fn default() -> Redaction {
        Redaction {
            enabled: true,
            except_sources: vec!["aws.cloudtrail".to_owned()],
            except_kinds: Vec::new(),
            patterns: Vec::new(),
            fields: Vec::new(),
            original: Original::Seal,
            key_file: None,
        }
    }
}

/// A secret of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnPattern {
    /// What it is called in what replaces it: lower-case letters, digits and `_`.
    pub name: String,
    /// A regular expression. A group called `secret` is what is replaced, else all of the match.
    pub pattern: String,
}

/// A field that is dropped or replaced whatever is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinimisedField {
    /// The source of the events, such as `aws.cloudtrail`.
    pub source: String,
    /// Where it stands in the original record, written with dots; elements of arrays have the path of the array.
    pub path: String,
    /// What becomes of it.
    pub action: FieldAction,
}

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldAction {
    /// `[dropped]` takes its place.
    Drop,
    /// Its fingerprint takes its place.
    Fingerprint,
}

/// What becomes of the original of a record in which something was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Original {
    /// It is kept in the event, encrypted; `trailwarden reveal` opens it with the key.
    Seal,
    /// It is kept in the event as it is, beside what rules and search see.
    Keep,
    /// It is gone.
    Drop,
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
                "firehose.max_body_mib",
                self.firehose.max_body_mib,
                1,
                1_024,
                "between 1 and 1024",
            ),
            within(
                "firehose.concurrency",
                self.firehose.concurrency as u64,
                1,
                1_024,
                "between 1 and 1024",
            ),
            within(
                "firehose.timeout_seconds",
                self.firehose.timeout_seconds,
                1,
                170,
                "between 1 and 170, since Firehose waits for 180",
            ),
            self.firehose.keys().err(),
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
            errors.extend(queue.check(&format!("queues[{n}]"), &self.queues[..n]));
        }
        for (n, bucket) in self.buckets.iter().enumerate() {
            errors.extend(bucket.check(&format!("buckets[{n}]")));
        }
        for (n, stream) in self.streams.iter().enumerate() {
            errors.extend(stream.check(&format!("streams[{n}]"), &self.streams[..n]));
        }
        for (n, groups) in self.log_groups.iter().enumerate() {
            errors.extend(groups.check(&format!("log_groups[{n}]"), &self.log_groups[..n]));
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

    /// The limits for bodies that Firehose sends, and for each record in them once it is decompressed.
    pub fn firehose_limits(&self) -> Limits {
        Limits {
            object_bytes: self.firehose.max_body_mib << 20,
            ..self.file_limits()
        }
    }
}

pub(crate) fn within(
    key: &str,
    value: u64,
    low: u64,
    high: u64,
    allowed: &'static str,
) -> Option<ConfigError> {
    let bad = !(low..=high).contains(&value);
    bad.then(|| ConfigError::Value {
        key: key.to_owned(),
        value: value.to_string(),
        allowed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &[&str]) {
        let config: Config = serde_json::from_str(json).unwrap();
        let problems: Vec<_> = config.check().iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn every_bad_setting_is_named() {
        check("{}", &[]);
        check(
            r#"{"push":{"concurrency":0,"max_body_mib":5000},"limits":{"record_kib":1}}"#,
            &["push.max_body_mib", "push.concurrency", "limits.record_kib"],
        );
        check(
            r#"{"firehose":{"timeout_seconds":180,"concurrency":0,"max_body_mib":0}}"#,
            &[
                "firehose.max_body_mib",
                "firehose.concurrency",
                "firehose.timeout_seconds",
            ],
        );
        check(
            r#"{"queues":[{"url":"https://sqs.eu-west-1.amazonaws.com/1/a"},{"url":"trail","tries":0},
                {"url":"https://sqs.eu-west-1.amazonaws.com/2/a"}]}"#,
            &["queues[1].url", "queues[1].tries", "queues[2].name"],
        );
        check(
            r#"{"buckets":[{"bucket":"s3://b","from":"yesterday"}]}"#,
            &["buckets[0].bucket", "buckets[0].from"],
        );
        check(
            r#"{"streams":[{"stream":"logs","concurrency":0},{"stream":"a/b"}],"log_groups":[{"groups":[]},
                {"groups":["/a b"],"account":"1","from":"then","overlap_minutes":0,"calls_per_second":0}]}"#,
            &[
                "streams[0].concurrency",
                "streams[1].stream",
                "log_groups[0].groups",
                "log_groups[1].groups",
                "log_groups[1].account",
                "log_groups[1].from",
                "log_groups[1].overlap_minutes",
                "log_groups[1].calls_per_second",
            ],
        );
        assert!(serde_json::from_str::<Config>(r#"{"pushh":{}}"#).is_err());
    }

    #[test]
    fn access_keys_come_from_the_file_or_from_a_file_of_their_own() {
        let of = |json: &str| serde_json::from_str::<Firehose>(json).unwrap();
        assert!(Firehose::default().keys().unwrap().is_empty());
        let inline = of(r#"{"access_keys":["hunter2","hunter3"]}"#);
        assert_eq!(inline.keys().unwrap(), ["hunter2", "hunter3"]);
        let shown = format!("{inline:?} {}", serde_json::to_string(&inline).unwrap());
        assert!(
            !shown.contains("hunter") && shown.contains("***"),
            "{shown}"
        );

        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        let of_file = of(&format!(r#"{{"access_keys_file":"{path}"}}"#));
        std::fs::write(file.path(), "old\n\n new \r\n").unwrap();
        assert_eq!(of_file.keys().unwrap(), ["old", "new"]);

        let problem = |json: &str, expected: &str| {
            check(&format!(r#"{{"firehose":{json}}}"#), &[expected]);
        };
        problem(
            &format!(r#"{{"access_keys":["a"],"access_keys_file":"{path}"}}"#),
            "both set",
        );
        problem(r#"{"access_keys":["a",""]}"#, "key 2");
        problem(r#"{"access_keys":["a b"]}"#, "key 1");
        let long = "k".repeat(4_097);
        problem(&format!(r#"{{"access_keys":["{long}"]}}"#), "key 1");
        problem(
            r#"{"access_keys_file":"/nowhere"}"#,
            "cannot read `/nowhere`",
        );
        std::fs::write(file.path(), "\n").unwrap();
        problem(
            &format!(r#"{{"access_keys_file":"{path}"}}"#),
            "there is no key in",
        );
    }

    #[test]
    fn limits_follow_the_settings() {
        let config = Config::default();
        assert_eq!(config.file_limits(), Limits::of_files());
        assert_eq!(config.body_limits(), Limits::of_bodies());
        assert_eq!(config.firehose_limits(), Limits::of_bodies());
    }
}
