//! A digest as CloudTrail writes it: the log files that were delivered in a time, and the digest before.
//!
//! [`Document::parse`] takes the uncompressed JSON and refuses what is not complete. The first digest of a chain has
//! no previous one; all its `previous…` fields are null. What is signed is not the document alone but
//! [`Document::signed_text`], which ties it to its time, its place and its predecessor.

use event::Time;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::content::Hash;
use crate::decode::hex;

/// A digest whose fields are all there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    pub(super) start: Time,
    pub(super) end: Time,
    /// The end as it is written, since that is what is signed.
    end_text: String,
    /// Where the digest says that it lies.
    pub(super) bucket: String,
    pub(super) key: String,
    /// Which public key its signature fits.
    pub(super) fingerprint: String,
    /// The digest before; none in the first of a chain.
    pub(super) previous: Option<Previous>,
    pub(super) logs: Vec<Listed>,
    /// Of the document itself.
    pub(super) sha256: Hash,
}

/// What a digest remembers of the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Previous {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) sha256: Hash,
    /// Hexadecimal, as it is written.
    pub(super) signature: String,
}

/// A log file in a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) sha256: Hash,
}

/// Why something is no digest.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    /// No JSON, or a field is absent or of another type.
    #[error("no digest: {0}")]
    Json(#[from] serde_json::Error),
    /// A field has a value that cannot be.
    #[error("no digest: `{0}` makes no sense")]
    Field(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    digest_start_time: Time,
    digest_end_time: String,
    #[serde(rename = "digestS3Bucket")]
    bucket: String,
    #[serde(rename = "digestS3Object")]
    key: String,
    digest_public_key_fingerprint: String,
    digest_signature_algorithm: String,
    #[serde(rename = "previousDigestS3Bucket")]
    previous_bucket: Option<String>,
    #[serde(rename = "previousDigestS3Object")]
    previous_key: Option<String>,
    previous_digest_hash_value: Option<String>,
    previous_digest_hash_algorithm: Option<String>,
    previous_digest_signature: Option<String>,
    log_files: Vec<RawLog>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLog {
    #[serde(rename = "s3Bucket")]
    bucket: String,
    #[serde(rename = "s3Object")]
    key: String,
    hash_value: String,
    hash_algorithm: String,
}

/// The only algorithms that CloudTrail has ever used.
pub(super) const SIGNATURE_ALGORITHM: &str = "SHA256withRSA";
const HASH_ALGORITHM: &str = "SHA-256";

impl Document {
    /// Reads the uncompressed content of a digest.
    pub(super) fn parse(content: &[u8]) -> Result<Document, DocumentError> {
        let raw: Raw = serde_json::from_slice(content)?;
        let end =
            Time::parse(&raw.digest_end_time).map_err(|_| DocumentError::Field("digestEndTime"))?;
        if end <= raw.digest_start_time {
            return Err(DocumentError::Field("digestStartTime"));
        }
        if raw.digest_signature_algorithm != SIGNATURE_ALGORITHM {
            return Err(DocumentError::Field("digestSignatureAlgorithm"));
        }
        let previous = match (
            raw.previous_bucket,
            raw.previous_key,
            raw.previous_digest_hash_value,
            raw.previous_digest_hash_algorithm,
            raw.previous_digest_signature,
        ) {
            (None, None, None, None, None) => None,
            (Some(bucket), Some(key), Some(hash), Some(algorithm), Some(signature)) => {
                Some(Previous {
                    bucket,
                    key,
                    sha256: hash_of(&hash, &algorithm, "previousDigestHashValue")?,
                    signature,
                })
            }
            _ => return Err(DocumentError::Field("previousDigest…")),
        };
        let logs = raw.log_files.into_iter().map(|log| {
            Ok(Listed {
                sha256: hash_of(&log.hash_value, &log.hash_algorithm, "logFiles.hashValue")?,
                bucket: log.bucket,
                key: log.key,
            })
        });
        Ok(Document {
            start: raw.digest_start_time,
            end,
            end_text: raw.digest_end_time,
            bucket: raw.bucket,
            key: raw.key,
            fingerprint: raw.digest_public_key_fingerprint,
            previous,
            logs: logs.collect::<Result<_, DocumentError>>()?,
            sha256: Sha256::digest(content).into(),
        })
    }

    /// What CloudTrail signs.
    pub(super) fn signed_text(&self) -> String {
        let previous = self.previous.as_ref();
        format!(
            "{}\n{}/{}\n{}\n{}",
            self.end_text,
            self.bucket,
            self.key,
            hex(&self.sha256),
            previous.map_or("null", |p| &p.signature)
        )
    }
}

fn hash_of(text: &str, algorithm: &str, field: &'static str) -> Result<Hash, DocumentError> {
    let hash = unhex(text).and_then(|bytes| Hash::try_from(bytes).ok());
    hash.filter(|_| algorithm == HASH_ALGORITHM)
        .ok_or(DocumentError::Field(field))
}

/// Bytes from hexadecimal digits.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|d| d as u8);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn starting() -> Value {
        json!({
            "awsAccountId": "111122223333",
            "digestStartTime": "2026-03-02T09:00:00Z",
            "digestEndTime": "2026-03-02T10:00:00Z",
            "digestS3Bucket": "b",
            "digestS3Object": "k",
            "digestPublicKeyFingerprint": "f",
            "digestSignatureAlgorithm": "SHA256withRSA",
            "newestEventTime": null,
            "oldestEventTime": null,
            "previousDigestS3Bucket": null,
            "previousDigestS3Object": null,
            "previousDigestHashValue": null,
            "previousDigestHashAlgorithm": null,
            "previousDigestSignature": null,
            "logFiles": []
        })
    }

    fn parse(value: &Value) -> Result<Document, String> {
        Document::parse(value.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_signed() {
        let mut value = starting();
        let text = value.to_string();
        let hash = hex(&Sha256::digest(&text));
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(
            document.signed_text(),
            format!("2026-03-02T10:00:00Z\nb/k\n{hash}\nnull")
        );
        value["previousDigestS3Bucket"] = json!("b");
        value["previousDigestS3Object"] = json!("j");
        value["previousDigestHashValue"] = json!(hash);
        value["previousDigestHashAlgorithm"] = json!("SHA-256");
        value["previousDigestSignature"] = json!("0a");
        let signed = parse(&value).unwrap().signed_text();
        assert!(signed.ends_with("\n0a"), "{signed}");
    }

    #[test]
    fn what_is_no_digest() {
        let check = |field: &str, value: Value, words: &str| {
            let mut document = starting();
            document[field] = value;
            let error = parse(&document).unwrap_err();
            assert!(error.contains(words), "{field}: {error}");
        };
        check("digestS3Object", Value::Null, "no digest");
        check("digestEndTime", json!("soon"), "`digestEndTime`");
        check(
            "digestEndTime",
            json!("2026-03-02T09:00:00Z"),
            "`digestStartTime`",
        );
        check("digestSignatureAlgorithm", json!("none"), "Algorithm");
        check("previousDigestSignature", json!("0a"), "`previousDigest…`");
        let log = |hash: &str, algorithm: &str| json!([{"s3Bucket": "b", "s3Object": "l", "hashValue": hash, "hashAlgorithm": algorithm}]);
        let hash = "0".repeat(64);
        check("logFiles", log("0a", "SHA-256"), "hashValue");
        check("logFiles", log(&hash, "MD5"), "hashValue");
        check("logFiles", Value::Null, "no digest");
        assert!(Document::parse(b"{\"Records\":[]}").is_err());
        assert!(Document::parse(b"").is_err());
    }

    #[test]
    fn hexadecimal() {
        assert_eq!(unhex("0aFf"), Some(vec![0x0a, 0xff]));
        for text in ["0", "0g", "é"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }
}
