//! What a request of Firehose says: its headers, its body and the data of its records.
//!
//! [`Head`] is read from the headers before the body is, [`Delivery`] from the body, and [`data`] from one of
//! its records:
//!
//! ```text
//! X-Amz-Firehose-Protocol-Version: 1.0
//! X-Amz-Firehose-Request-Id: ed4acda5-…           the same whenever the request is sent again
//! X-Amz-Firehose-Source-Arn: arn:aws:firehose:…   which stream
//! X-Amz-Firehose-Common-Attributes: {"commonAttributes":{"environment":"production"}}
//! Content-Type: application/json
//!
//! {"requestId":"ed4acda5-…","timestamp":1578090901599,"records":[{"data":"aGVsbG8="},…]}
//! ```
//!
//! A head or body that is none is refused as a whole, a record that is none only by itself. Nothing here knows
//! what the data mean, and no refusal repeats what was sent.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use event::Str;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::decode::Reason;
use crate::refusal::Refusal;

/// What a caller hears that is no Firehose.
pub(super) const HINT: &str =
    "this endpoint takes what Amazon Data Firehose sends; other programs push to /api/v1/events";

const MAX_RECORDS: usize = 10_000;
/// Of one record's data, before base64.
const MAX_DATA: usize = 1_024_000;
/// A request id is a GUID; an ARN of a stream is shorter than this too.
const MAX_NAME: usize = 512;
const MAX_ATTRIBUTES: usize = 50;

/// What the headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// The id of the request, whenever it is sent.
    pub(super) request_id: String,
    /// The ARN of the stream, `unknown` where it is not said.
    pub(super) stream: String,
    /// The common attributes of the stream's destination.
    pub(super) labels: BTreeMap<Str, Str>,
}

/// The id of the request, if it is one.
pub(super) fn id(headers: &HeaderMap) -> Option<String> {
    name(headers, "x-amz-firehose-request-id")
}

fn name(headers: &HeaderMap, header: &str) -> Option<String> {
    let value = headers.get(header)?.to_str().ok()?;
    let good = (1..=MAX_NAME).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| value.to_owned())
}

impl Head {
    /// Reads the headers.
    pub(super) fn read(headers: &HeaderMap) -> Result<Head, Refusal> {
        let version = headers.get("x-amz-firehose-protocol-version");
        if version.is_some_and(|v| v != "1.0") {
            let message = "only version 1.0 of the protocol is spoken";
            return Err(malformed("protocol_version", message));
        }
        if !is_json(headers) {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content_type",
                "the content type is not application/json",
                HINT,
            ));
        }
        let Some(request_id) = id(headers) else {
            let message = "X-Amz-Firehose-Request-Id is missing or no id";
            return Err(malformed("request_id", message));
        };
        let arn = "x-amz-firehose-source-arn";
        let stream = match name(headers, arn) {
            Some(stream) => stream,
            None if headers.contains_key(arn) => {
                return Err(malformed(
                    "source_arn",
                    "X-Amz-Firehose-Source-Arn is no ARN",
                ));
            }
            None => "unknown".to_owned(),
        };
        let labels = labels(headers).ok_or_else(|| {
            let message = "X-Amz-Firehose-Common-Attributes holds no attributes";
            malformed("common_attributes", message)
        })?;
        Ok(Head {
            request_id,
            stream,
            labels,
        })
    }
}

fn malformed(code: &'static str, message: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, code, message, HINT)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.and_then(|k| k.to_str().ok())
        .and_then(|k| k.split(';').next())
        .is_some_and(|k| k.trim().eq_ignore_ascii_case("application/json"))
}

/// The common attributes; `None` if what is there is not what Firehose sends.
fn labels(headers: &HeaderMap) -> Option<BTreeMap<Str, Str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Attributes {
        common_attributes: BTreeMap<Str, Str>,
    }
    let Some(value) = headers.get("x-amz-firehose-common-attributes") else {
        return Some(BTreeMap::new());
    };
    let attributes: Attributes = serde_json::from_slice(value.as_bytes()).ok()?;
    let labels = attributes.common_attributes;
    (labels.len() <= MAX_ATTRIBUTES).then_some(labels)
}

/// What the body says. Its records are not looked into yet, so that a bad one spoils no other.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery<'a> {
    /// The same as in the header.
    #[serde(borrow)]
    pub(super) request_id: Cow<'a, str>,
    /// When Firehose made the request, in milliseconds. Nothing rests on it.
    #[serde(rename = "timestamp")]
    _timestamp: u64,
    /// The records in their order, as they stand in the body.
    #[serde(borrow, deserialize_with = "records")]
    pub(super) records: Vec<&'a RawValue>,
}

impl Delivery<'_> {
    /// Reads a body.
    pub(super) fn parse(body: &[u8]) -> Result<Delivery<'_>, Refusal> {
        serde_json::from_slice(body).map_err(|error| {
            // The error's own words may hold what was sent.
            let (line, column) = (error.line(), error.column());
            let message = format!(
                "the body is not {{requestId, timestamp, 1 to {MAX_RECORDS} records}} from line {line} column {column} on"
            );
            malformed("body", &message)
        })
    }
}

/// Between one and [`MAX_RECORDS`] values of whatever kind; the body is not read on after more.
fn records<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'de RawValue>, D::Error> {
    struct Records;

    impl<'de> Visitor<'de> for Records {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "1 to {MAX_RECORDS} records")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut records = Vec::new();
            while let Some(record) = seq.next_element()? {
                if records.len() == MAX_RECORDS {
                    return Err(serde::de::Error::invalid_length(MAX_RECORDS + 1, &self));
                }
                records.push(record);
            }
            match records.is_empty() {
                true => Err(serde::de::Error::invalid_length(0, &self)),
                false => Ok(records),
            }
        }
    }
    deserializer.deserialize_seq(Records)
}

/// Why a record has no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed<'a> {
    pub(super) reason: Reason,
    pub(super) message: &'static str,
    /// What is kept of it.
    pub(super) text: Cow<'a, str>,
}

/// The data of one record.
pub(super) fn data(record: &str) -> Result<Vec<u8>, Malformed<'_>> {
    #[derive(Deserialize)]
    struct Record<'a> {
        #[serde(borrow)]
        data: Cow<'a, str>,
    }
    let Ok(Record { data }) = serde_json::from_str(record) else {
        return Err(Malformed {
            reason: Reason::BadJson,
            message: "a record of firehose has no data",
            text: Cow::Borrowed(record),
        });
    };
    let too_large = |text| Malformed {
        reason: Reason::RecordTooLarge,
        message: "the data of a record of firehose are larger than 1,024,000 bytes",
        text,
    };
    match BASE64.decode(data.as_bytes()) {
        Ok(bytes) if bytes.len() > MAX_DATA => Err(too_large(data)),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(Malformed {
            reason: Reason::BadBase64,
            message: "the data of a record of firehose are not base64",
            text: data,
        }),
    }
}
