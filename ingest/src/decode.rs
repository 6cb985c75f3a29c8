//! From bytes to records: what a file or body is, told by its content, and where its records begin and end.
//!
//! [`Decoder`] reads a file, a body or any reader and hands every record to a function, in order, as an
//! [`Item`]: a [`Record`] that borrows the decoder's buffer and is already indexed, or a [`Bad`] piece with
//! the reason why it is none. It knows gzip (also nested, also of several members), UTF-16, CloudTrail
//! `{"Records": […]}`, arrays, JSON lines and concatenated values, CloudWatch Logs subscription payloads
//! (plain, wrapped or inside Kinesis records), EventBridge envelopes and Lambda text logs.
//!
//! Memory is bounded by [`Limits`] whatever is read: a small gzip object is inflated whole into a buffer that
//! is used again, everything else passes through a window that slides. A damaged record is skipped and
//! reported, what follows is still read. It makes no events: that is the business of `normalize`.

mod content;
mod payload;
mod walk;
mod window;

use std::ops::ControlFlow;
use std::path::Path;

use event::json::{Doc, Value};

pub use content::Decoder;
pub(crate) use content::{GZIP, hex, in_units, is_damage, read_up_to, unpacked};

/// How much of what is read is taken; everything beyond becomes a dead letter, never memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Decompressed bytes of one object; what follows is not read.
    pub object_bytes: u64,
    /// Bytes of one record.
    pub record_bytes: usize,
    /// Bytes of one JSON value that wraps records and cannot be read piece by piece (a subscription payload).
    pub payload_bytes: usize,
    /// How much is read at a time.
    pub chunk_bytes: usize,
}

impl Limits {
    /// For files and objects: 8 GiB.
    pub fn of_files() -> Limits {
        Limits {
            object_bytes: 8 << 30,
            record_bytes: 4 << 20,
            payload_bytes: 16 << 20,
            chunk_bytes: 256 << 10,
        }
    }

    /// For bodies of requests: 64 MiB.
    pub fn of_bodies() -> Limits {
        Limits {
            object_bytes: 64 << 20,
            ..Limits::of_files()
        }
    }
}

/// What to read, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Job {
    /// The number of the first record: not 0 where a file is read on from its middle.
    pub first_position: u64,
    /// Compute the SHA-256 of the uncompressed content before the first record is handed out.
    pub sha256: bool,
    /// The content may grow: leave a last line or value without its end unread instead of reporting it.
    pub growing: bool,
    /// What is read are lines of a Lambda function's text log, even if they do not look so.
    pub lambda_text: bool,
}

/// What a decoder hands out.
#[derive(Debug)]
pub enum Item<'a> {
    /// A record.
    Record(Record<'a>),
    /// Something that is no record.
    Bad(Bad<'a>),
}

/// One record as the source wrote it.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its exact bytes: a JSON value, or the message of a log line.
    pub text: &'a [u8],
    /// The index of `text` if that is a JSON object.
    pub doc: Option<&'a Doc>,
    /// The whole value in that index.
    pub root: Option<Value<'a>>,
    /// Its number in the object, counting records and bad pieces.
    pub position: u64,
    /// What was around it.
    pub wrapper: Wrapper<'a>,
    /// SHA-256 of the object in hexadecimal, empty where it was not asked for.
    pub sha256: &'a str,
}

/// What was around a record and is needed to understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapper<'a> {
    /// Nothing that matters.
    None,
    /// A line of a Lambda function's text log.
    LambdaText,
    /// An event of a CloudWatch Logs stream.
    LogEvent(LogEvent<'a>),
}

/// Where and when CloudWatch Logs got a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogEvent<'a> {
    /// The account that owns the log group.
    pub owner: &'a str,
    /// The log group.
    pub group: &'a str,
    /// The log stream.
    pub stream: &'a str,
    /// The event's own id.
    pub id: &'a str,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
}

/// A piece of an object that is no record, and why.
#[derive(Debug, Clone, Copy)]
pub struct Bad<'a> {
    /// The kind of trouble.
    pub reason: Reason,
    /// What is wrong, for people.
    pub message: &'a str,
    /// Its bytes, at most the first [`KEPT_BYTES`].
    pub bytes: &'a [u8],
    /// How many bytes there were.
    pub size: u64,
    /// Where it begins in the uncompressed object.
    pub offset: u64,
    /// Its number in the object, counting records and bad pieces.
    pub position: u64,
}

impl<'a> Bad<'a> {
    /// Something that is bad as a whole; as much of it as is kept.
    pub(crate) fn whole(reason: Reason, message: &'a str, bytes: &'a [u8]) -> Bad<'a> {
        Bad {
            reason,
            message,
            bytes: &bytes[..bytes.len().min(KEPT_BYTES)],
            size: bytes.len() as u64,
            offset: 0,
            position: 0,
        }
    }
}

/// How much of a bad piece is kept.
pub const KEPT_BYTES: usize = 64 << 10;

/// Why something is no record. The words are those of dead letters and of answers to pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No JSON where there should be some.
    BadJson,
    /// Nested too deep.
    JsonTooDeep,
    /// Larger than [`Limits::record_bytes`].
    RecordTooLarge,
    /// The gzip stream is cut, damaged or followed by something else.
    CorruptGzip,
    /// A record of a stream that the Kinesis Producer Library has put together, and that cannot be taken apart.
    CorruptAggregate,
    /// Wrapped content is not base64.
    BadBase64,
    /// Larger than [`Limits::object_bytes`].
    BodyTooLarge,
    /// Nothing can be read from it.
    UnknownObject,
    /// An object that was told of is not there.
    ObjectMissing,
    /// An object that was told of may not be read.
    ObjectDenied,
    /// An object that was told of cannot be read for another reason.
    ObjectUnreadable,
}

impl Reason {
    /// Is it about an object that could not be had, so that there is nothing of it?
    pub fn is_of_object(self) -> bool {
        matches!(
            self,
            Reason::ObjectMissing | Reason::ObjectDenied | Reason::ObjectUnreadable
        )
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::BadJson => "bad_json",
            Reason::JsonTooDeep => "json_too_deep",
            Reason::RecordTooLarge => "record_too_large",
            Reason::CorruptGzip => "corrupt_gzip",
            Reason::CorruptAggregate => "corrupt_aggregate",
            Reason::BadBase64 => "bad_base64",
            Reason::BodyTooLarge => "body_too_large",
            Reason::UnknownObject => "unknown_object",
            Reason::ObjectMissing => "object_missing",
            Reason::ObjectDenied => "object_denied",
            Reason::ObjectUnreadable => "object_unreadable",
        }
    }
}

/// What was met in one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records handed out.
    pub records: u64,
    /// Bad pieces handed out.
    pub bad: u64,
    /// CloudWatch Logs control messages, which probe the way and say nothing.
    pub control_messages: u64,
    /// CloudTrail digest files: proof, not events.
    pub digests: u64,
    /// Test messages of S3 event notifications.
    pub test_messages: u64,
    /// Bytes of the uncompressed content that were read and done with; a growing file is read on from here.
    pub consumed: u64,
    /// The number of the next record.
    pub next_position: u64,
    /// Was the content compressed?
    pub gzip: bool,
    /// Was it taken for a Lambda function's text log?
    pub lambda_text: bool,
    /// Was nothing in it known, so that it was not read to its end?
    pub unknown: bool,
    /// Did the caller stop it before the end?
    pub stopped: bool,
    /// SHA-256 of the uncompressed content in hexadecimal, where it was asked for and all could be read.
    pub sha256: String,
}

impl Summary {
    /// Does the name promise gzip that the content does not keep?
    pub fn is_misnamed(&self, path: &Path) -> bool {
        !self.gzip && path.extension().is_some_and(|e| e == "gz")
    }
}

/// A file that cannot be opened or read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{path}`")]
pub struct DecodeError {
    /// The file.
    pub path: String,
    /// The system's answer.
    #[source]
    pub source: std::io::Error,
}

/// The function that gets the items of an object; it may stop the decoder.
pub type Each<'e> = dyn FnMut(Item<'_>) -> ControlFlow<()> + 'e;

#[cfg(test)]
mod tests;
