//! The event: a normalized envelope and the original record byte for byte.
//!
//! `ingest` makes events from what sources deliver; everyone else reads them. The keys of the envelope
//! (DESIGN §5.6) are the same in JSON, in queries and in rules and are frozen once released. An empty
//! text means that the source does not say.
//!
//! On the log an event is framed so that the original stays byte for byte and is not copied when read:
//!
//! ```text
//! offset 0      schema version, 1 byte
//!        1      length N of the envelope, 4 bytes, little endian
//!        5      envelope as JSON without `raw`, N bytes
//!        5 + N  the original record, to the end
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use crate::{Id, Str, Time};

/// The version of the framing and of the envelope's meaning.
pub const SCHEMA_VERSION: u8 = 1;

/// What became of the action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was tried and failed.
    Failure,
    /// It was refused for want of rights.
    Denied,
    /// The record does not say.
    #[default]
    Unknown,
}

impl Outcome {
    /// The word as it stands in JSON, queries and rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
            Outcome::Denied => "denied",
            Outcome::Unknown => "unknown",
        }
    }
}

/// How far the record's authenticity has been shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Integrity {
    /// Received; nothing has vouched for it yet.
    #[default]
    Received,
    /// A signed digest lists its object with the same hash.
    Attested,
    /// A signed digest says otherwise.
    Failed,
}

impl Integrity {
    /// The word as it stands in JSON, queries and rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Integrity::Received => "received",
            Integrity::Attested => "attested",
            Integrity::Failed => "failed",
        }
    }
}

/// Something that a reader of the event should know about the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Flag {
    /// The record has no readable time; `time` is when it was taken in.
    TsInferred,
    /// The record's time is in the future; it moves no watermark.
    TsFuture,
    /// The source cut the record to its own limits.
    Truncated,
    /// The record has a key twice; the first was used.
    DupKeys,
    /// A number was kept as text, since no machine type holds it as written.
    NumCoerced,
    /// The same id came with other content; this is the later one, under a fallback id.
    IdConflict,
    /// The record has bytes that are not UTF-8.
    InvalidUtf8,
    /// The record amends an earlier one (CloudTrail addendum `UPDATED_DATA`) and is not counted.
    Addendum,
    /// Secrets in the record were replaced by their fingerprints when it was taken in.
    Redacted,
    /// It is not indexed unless a rule matches it, as the configuration says of its tier.
    RulesOnly,
    /// It is kept on the log only: no rule looks at it, and it is not indexed.
    Archived,
    /// It is the copy, for the index, of an event with `rules_only` that a rule has matched. Whoever counts events of the
    /// log has counted that one.
    Evidence,
    /// It was taken in before and was read again for the index alone, which has it once: no rule looks at it.
    Restored,
}

impl Flag {
    /// All flags.
    pub const ALL: [Flag; 13] = [
        Flag::TsInferred,
        Flag::TsFuture,
        Flag::Truncated,
        Flag::DupKeys,
        Flag::NumCoerced,
        Flag::IdConflict,
        Flag::InvalidUtf8,
        Flag::Addendum,
        Flag::Redacted,
        Flag::RulesOnly,
        Flag::Archived,
        Flag::Evidence,
        Flag::Restored,
    ];

    /// The word as it stands in JSON, queries and rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Flag::TsInferred => "ts_inferred",
            Flag::TsFuture => "ts_future",
            Flag::Truncated => "truncated",
            Flag::DupKeys => "dup_keys",
            Flag::NumCoerced => "num_coerced",
            Flag::IdConflict => "id_conflict",
            Flag::InvalidUtf8 => "invalid_utf8",
            Flag::Addendum => "addendum",
            Flag::Redacted => "redacted",
            Flag::RulesOnly => "rules_only",
            Flag::Archived => "archived",
            Flag::Evidence => "evidence",
            Flag::Restored => "restored",
        }
    }
}

/// A set of [`Flag`]s; in JSON a list of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u16);

impl Flags {
    /// Adds a flag.
    pub fn set(&mut self, flag: Flag) {
        self.0 |= 1 << flag as u8;
    }

    /// Takes a flag away.
    pub fn clear(&mut self, flag: Flag) {
        self.0 &= !(1 << flag as u8);
    }

    /// Is the flag set?
    pub fn has(self, flag: Flag) -> bool {
        self.0 & 1 << flag as u8 != 0
    }

    /// Is none set?
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// The flags that are set.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.into_iter().filter(move |f| self.has(*f))
    }
}

impl Serialize for Flags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Flag::as_str))
    }
}

impl<'de> Deserialize<'de> for Flags {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Flags, D::Error> {
        // Flags of a newer version are passed over: they say nothing that this one could act on.
        let words = Vec::<Str>::deserialize(deserializer)?;
        let mut flags = Flags::default();
        Flag::ALL
            .into_iter()
            .filter(|f| words.iter().any(|w| w == f.as_str()))
            .for_each(|f| flags.set(f));
        Ok(flags)
    }
}

/// One invocation of a function, from its report line.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Invocation {
    /// `success`, `error`, `failure` or `timeout`; empty where the line does not say.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub status: Str,
    /// How long it ran, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    /// What is charged, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billed_ms: Option<f64>,
    /// Configured memory in MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Greatest memory used in MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_mb: Option<u64>,
    /// How long the start of a new environment took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_ms: Option<f64>,
    /// Did a new environment start for it?
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cold_start: bool,
    /// The runtime's name of the error, such as `Runtime.OutOfMemory`.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub error_type: Str,
}

/// Where the record came from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The object (file path, S3 URL) or stream (log group and stream, push request).
    pub object: Str,
    /// The number of the record in it, from 0.
    pub position: u64,
    /// SHA-256 of the object's uncompressed content, hexadecimal; empty where there is no object or it was not read whole.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub sha256: Str,
}

/// One thing that happened, as a source recorded it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Deterministic: the same record gets the same id however often and from wherever it comes.
    pub id: Id,
    /// The source's own id (CloudTrail eventID, CloudWatch Logs id).
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub source_id: Str,
    /// `aws.cloudtrail`, `aws.lambda`, `trailwarden`, `unknown`, ...
    pub source: Str,
    /// When it happened, as the source says.
    pub time: Time,
    /// When we took it in.
    pub ingest_time: Time,
    /// The account (project, subscription) in which it happened.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub account: Str,
    /// The account's name, from the inventory.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub account_name: Str,
    /// The region in which it happened.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub region: Str,
    /// The source's own category (CloudTrail: Management, Data, NetworkActivity, Insight, Aggregated; Lambda: platform, application).
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub category: Str,
    /// The service that was called (`iam.amazonaws.com`), or `lambda` for function logs.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub service: Str,
    /// What was done (`CreateUser`), or the kind of log line (`platform.report`, `log`).
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub action: Str,
    /// What became of it.
    pub outcome: Outcome,
    /// The source's error code.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub error_code: Str,
    /// The source's error message; for log lines the message of an error.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub error_message: Str,
    /// Who did it, as people read it.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub actor: Str,
    /// The source's kind of actor (`IAMUser`, `AssumedRole`, `AWSService`, ...).
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub actor_type: Str,
    /// The source's exact id of the actor (ARN or principal id).
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub actor_id: Str,
    /// The human or workload behind the actor, where it can be told.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub identity: Str,
    /// The session's name.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub session: Str,
    /// The access key used.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub access_key: Str,
    /// Who issued the session (role ARN).
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub issuer: Str,
    /// Was a second factor used? `None` where the record does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfa: Option<bool>,
    /// Source address: an IP, a DNS name or `AWS Internal`.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub src_ip: Str,
    /// The caller's program.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub user_agent: Str,
    /// What it was done to (ARNs or names).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Str>,
    /// The function that logged or was acted on.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub function: Str,
    /// The function's version.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub function_version: Str,
    /// The request's id.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub request_id: Str,
    /// The id that several accounts' events of one action share (CloudTrail sharedEventID).
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub shared_id: Str,
    /// The source's id of the earlier event that this one amends (CloudTrail addendum).
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub amends: Str,
    /// The invocation that this line reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation: Option<Box<Invocation>>,
    /// From the inventory: organisational unit, owner, environment, criticality.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Str, Str>,
    /// Where the record came from.
    pub origin: Origin,
    /// How far its authenticity has been shown.
    pub integrity: Integrity,
    /// What a reader should know about the record.
    #[serde(skip_serializing_if = "Flags::is_empty")]
    pub flags: Flags,
    /// For how many days it is searchable from when it was taken in, where its tier says so; 0: as long as all others.
    #[serde(skip_serializing_if = "is_zero")]
    pub search_days: u32,
    /// Did it come after the allowed lateness?
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// The record before secrets in it were replaced, sealed or plain as configured; empty where nothing was replaced or
    /// it was dropped.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub original: Str,
    /// The original record; where it has the flag `redacted`, with the fingerprints of its secrets in their place.
    #[serde(skip)]
    pub raw: Bytes,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A framed event that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The frame is cut or was never an event.
    #[error("event frame of {0} bytes is too short")]
    Short(usize),
    /// Written by a newer version.
    #[error("event has schema version {0}, this program reads up to {SCHEMA_VERSION}")]
    Version(u8),
    /// The envelope is not what it should be.
    #[error("event envelope cannot be read")]
    Envelope(#[from] serde_json::Error),
}

/// What an event has under a normalized name.
#[derive(Debug, Clone, PartialEq)]
pub enum Normalized<'a> {
    /// Nothing, or no such name.
    Absent,
    /// A text, a number or a truth value, as text.
    Text(Cow<'a, str>),
    /// Several texts.
    List(Vec<Cow<'a, str>>),
}

/// Is `name` a key of the envelope (also `invocation.status`, `labels.owner` and the like), `raw` excepted?
pub fn is_normalized_name(name: &str) -> bool {
    match name.split_once('.') {
        None => NAMES.contains(&name),
        Some(("labels", rest)) => !rest.is_empty(),
        Some(("invocation", rest)) => INVOCATION_NAMES.contains(&rest),
        Some(("origin", rest)) => ["object", "position", "sha256"].contains(&rest),
        Some(_) => false,
    }
}

impl Event {
    /// The keys of the envelope that hold one value or a list, in the order of DESIGN §5.6.
    pub const NAMES: &[&str] = NAMES;

    /// What the event has under a normalized name, as text.
    pub fn normalized(&self, name: &str) -> Normalized<'_> {
        let text = |s: &'_ Str| {
            if s.is_empty() {
                Normalized::Absent
            } else {
                Normalized::Text(Cow::Owned(s.to_string()))
            }
        };
        let borrowed = |s: &'static str| Normalized::Text(Cow::Borrowed(s));
        let owned =
            |s: Option<String>| s.map_or(Normalized::Absent, |s| Normalized::Text(Cow::Owned(s)));
        match name {
            "id" => owned(Some(self.id.to_string())),
            "time" => owned(Some(self.time.to_string())),
            "ingest_time" => owned(Some(self.ingest_time.to_string())),
            "outcome" => borrowed(self.outcome.as_str()),
            "integrity" => borrowed(self.integrity.as_str()),
            "mfa" => self.mfa.map_or(Normalized::Absent, |m| {
                borrowed(if m { "true" } else { "false" })
            }),
            "late" => borrowed(if self.late { "true" } else { "false" }),
            "resources" if self.resources.is_empty() => Normalized::Absent,
            "resources" => Normalized::List(
                self.resources
                    .iter()
                    .map(|r| Cow::Borrowed(r.as_str()))
                    .collect(),
            ),
            "flags" if self.flags.is_empty() => Normalized::Absent,
            "flags" => Normalized::List(
                self.flags
                    .iter()
                    .map(|f| Cow::Borrowed(f.as_str()))
                    .collect(),
            ),
            "origin.object" => text(&self.origin.object),
            "origin.position" => owned(Some(self.origin.position.to_string())),
            "origin.sha256" => text(&self.origin.sha256),
            _ => match self.text(name) {
                Some(found) => Normalized::Text(Cow::Borrowed(found)),
                None => self
                    .nested(name)
                    .map_or(Normalized::Absent, Normalized::Text),
            },
        }
    }

    /// The plain text under a normalized name; `None` if it is empty or not a plain text.
    pub fn text(&self, name: &str) -> Option<&str> {
        let found = match name {
            "source_id" => &self.source_id,
            "source" => &self.source,
            "account" => &self.account,
            "account_name" => &self.account_name,
            "region" => &self.region,
            "category" => &self.category,
            "service" => &self.service,
            "action" => &self.action,
            "error_code" => &self.error_code,
            "error_message" => &self.error_message,
            "actor" => &self.actor,
            "actor_type" => &self.actor_type,
            "actor_id" => &self.actor_id,
            "identity" => &self.identity,
            "session" => &self.session,
            "access_key" => &self.access_key,
            "issuer" => &self.issuer,
            "src_ip" => &self.src_ip,
            "user_agent" => &self.user_agent,
            "function" => &self.function,
            "function_version" => &self.function_version,
            "request_id" => &self.request_id,
            "shared_id" => &self.shared_id,
            "amends" => &self.amends,
            _ => return None,
        };
        Some(found.as_str()).filter(|s| !s.is_empty())
    }

    fn nested(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(label) = name.strip_prefix("labels.") {
            return self.labels.get(label).map(|l| Cow::Borrowed(l.as_str()));
        }
        let invocation = self.invocation.as_deref()?;
        let text = |s: &'_ str| {
            Some(s)
                .filter(|s| !s.is_empty())
                .map(|s| Cow::Owned(s.to_owned()))
        };
        match name.strip_prefix("invocation.")? {
            "status" => text(&invocation.status),
            "duration_ms" => invocation.duration_ms.map(|n| Cow::Owned(n.to_string())),
            "billed_ms" => invocation.billed_ms.map(|n| Cow::Owned(n.to_string())),
            "memory_mb" => invocation.memory_mb.map(|n| Cow::Owned(n.to_string())),
            "memory_used_mb" => invocation.memory_used_mb.map(|n| Cow::Owned(n.to_string())),
            "init_ms" => invocation.init_ms.map(|n| Cow::Owned(n.to_string())),
            "cold_start" => Some(Cow::Borrowed(if invocation.cold_start {
                "true"
            } else {
                "false"
            })),
            "error_type" => text(&invocation.error_type),
            _ => None,
        }
    }

    /// The id that people look for: the source's own, else ours.
    pub fn shown_id(&self) -> Str {
        if self.source_id.is_empty() || self.flags.has(Flag::IdConflict) {
            Str::from(self.id.to_string())
        } else {
            self.source_id.clone()
        }
    }

    /// 64 bits of the SHA-256 of what the original record says: tells records that share an id apart, and takes the same
    /// record for the same where two ways space, escape or order it differently. Stored, so never changed.
    pub fn content_hash(&self) -> u64 {
        let canonical = crate::json::canonical(&self.raw);
        let said = canonical.as_deref().unwrap_or(&self.raw);
        let digest = ring::digest::digest(&ring::digest::SHA256, said);
        let start = digest.as_ref().first_chunk();
        u64::from_le_bytes(*start.expect("SHA-256 has 32 bytes"))
    }

    /// The partition key on the `events` topic: duplicates of an event, and the lines of one invocation, meet (DESIGN §2).
    pub fn partition_key(&self) -> Str {
        if self.source == "aws.lambda" {
            self.origin.object.clone()
        } else {
            Str::from(self.id.to_string())
        }
    }

    /// The event framed for the log.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.raw.len() + 1024);
        out.extend_from_slice(&[SCHEMA_VERSION, 0, 0, 0, 0]);
        serde_json::to_writer(&mut out, self)
            .expect("an envelope has only text keys and memory does not fail");
        let length = (out.len() - 5) as u32;
        out[1..5].copy_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.raw);
        out
    }

    /// Reads a framed event; the original record is not copied.
    pub fn decode(frame: &Bytes) -> Result<Event, CodecError> {
        let short = || CodecError::Short(frame.len());
        let version = *frame.first().ok_or_else(short)?;
        if version != SCHEMA_VERSION {
            return Err(CodecError::Version(version));
        }
        let length = frame.get(1..5).ok_or_else(short)?;
        let end = 5 + u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        let mut event: Event = serde_json::from_slice(frame.get(5..end).ok_or_else(short)?)?;
        event.raw = frame.slice(end..);
        Ok(event)
    }

    /// The whole event as one JSON object: the envelope, and under `raw` the original as the JSON value that it is,
    /// else as a string (bytes that are not UTF-8 shown as U+FFFD).
    pub fn to_json(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).expect("an envelope has only text keys");
        let raw = serde_json::from_slice(&self.raw)
            .unwrap_or_else(|_| String::from_utf8_lossy(&self.raw).into_owned().into());
        if let Some(object) = value.as_object_mut() {
            object.insert("raw".into(), raw);
        }
        value
    }
}

const INVOCATION_NAMES: &[&str] = &[
    "status",
    "duration_ms",
    "billed_ms",
    "memory_mb",
    "memory_used_mb",
    "init_ms",
    "cold_start",
    "error_type",
];

const NAMES: &[&str] = &[
    "id",
    "source_id",
    "source",
    "time",
    "ingest_time",
    "account",
    "account_name",
    "region",
    "category",
    "service",
    "action",
    "outcome",
    "error_code",
    "error_message",
    "actor",
    "actor_type",
    "actor_id",
    "identity",
    "session",
    "access_key",
    "issuer",
    "mfa",
    "src_ip",
    "user_agent",
    "resources",
    "function",
    "function_version",
    "request_id",
    "shared_id",
    "amends",
    "integrity",
    "flags",
    "late",
];

#[cfg(test)]
mod tests;
