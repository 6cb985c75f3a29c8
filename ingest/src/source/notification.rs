//! What a message of a queue speaks of: objects of S3, or records themselves.
//!
//! [`read`] knows every shape in which AWS tells of a new object: event notifications of S3 straight to SQS or through
//! SNS (wrapped or raw), those of CloudTrail through SNS, and events of EventBridge. It decodes keys where they come
//! encoded, and takes all records and all keys of a message, each with its own bucket. CloudTrail events that
//! EventBridge carries are records and not objects; the caller decodes the body. What is none of these is told with
//! the reason. Shapes: Amazon S3 User Guide, "Event message structure" and "Amazon EventBridge object event"; AWS
//! CloudTrail User Guide, "Configuring Amazon SNS notifications for CloudTrail".

use std::borrow::Cow;

use event::Str;
use serde::Deserialize;

/// An envelope of SNS may lie in an envelope; more than that nobody makes.
const MAX_ENVELOPES: usize = 3;

/// An object that a message speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The bucket.
    pub bucket: Str,
    /// The key, decoded.
    pub key: Str,
    /// The region of the bucket, where the message says it.
    pub region: Option<Str>,
    /// The entity tag, where the message says it: without quotes.
    pub etag: Option<Str>,
}

/// What a message speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification<'b> {
    /// Objects that are new.
    Objects(Vec<Object>),
    /// Content with records of its own.
    Records(Cow<'b, str>),
    /// A message that AWS sends to try the way.
    Test,
    /// Something happened to objects that brings no new content, such as a removal.
    Nothing,
    /// Nothing that is known.
    Unknown(&'static str),
}

#[derive(Deserialize)]
struct Body<'b> {
    #[serde(rename = "Type", borrow)]
    kind: Option<Cow<'b, str>>,
    #[serde(rename = "Message")]
    message: Option<Cow<'b, str>>,
    #[serde(rename = "Event")]
    event: Option<Cow<'b, str>>,
    #[serde(rename = "Records")]
    records: Option<Vec<Record>>,
    #[serde(rename = "s3Bucket")]
    bucket: Option<Str>,
    #[serde(rename = "s3ObjectKey")]
    keys: Option<Keys>,
    #[serde(rename = "detail-type")]
    detail_type: Option<Cow<'b, str>>,
    region: Option<Str>,
    detail: Option<Detail>,
}

/// CloudTrail writes a list; a single key is taken too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Keys {
    Many(Vec<Str>),
    One(Str),
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventName", default)]
    name: Str,
    #[serde(rename = "awsRegion")]
    region: Option<Str>,
    s3: Option<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    bucket: Option<Bucket>,
    object: Option<ObjectOf>,
}

#[derive(Deserialize)]
struct Bucket {
    name: Str,
}

#[derive(Deserialize)]
struct ObjectOf {
    key: Str,
    #[serde(alias = "eTag")]
    etag: Option<Str>,
}

/// What the body of a message speaks of.
pub fn read(body: &str) -> Notification<'_> {
    let mut text = Cow::Borrowed(body);
    for _ in 0..MAX_ENVELOPES {
        let parsed: Result<Body<'_>, _> = serde_json::from_str(&text);
        let Ok(parsed) = parsed else {
            // What is JSON all the same is content with records perhaps: decoding tells.
            return match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
                Ok(_) => Notification::Records(text),
                Err(_) => Notification::Unknown("the message is no JSON"),
            };
        };
        match parsed {
            Body {
                kind: Some(kind),
                message: Some(message),
                ..
            } if kind == "Notification" => {
                let message = message.into_owned();
                text = Cow::Owned(message);
            }
            parsed => return meaning(parsed).unwrap_or(Notification::Records(text)),
        }
    }
    Notification::Unknown("envelopes of SNS in one another")
}

/// `None` if the body is content.
fn meaning(body: Body<'_>) -> Option<Notification<'static>> {
    if body.event.is_some_and(|e| e == "s3:TestEvent") {
        return Some(Notification::Test);
    }
    if let (Some(bucket), Some(keys)) = (body.bucket, body.keys) {
        let keys = match keys {
            Keys::Many(keys) => keys,
            Keys::One(key) => vec![key],
        };
        let object = |key| Object {
            bucket: bucket.clone(),
            key,
            region: None,
            etag: None,
        };
        return Some(Notification::Objects(
            keys.into_iter().map(object).collect(),
        ));
    }
    if let Some(detail_type) = body.detail_type {
        return match (&*detail_type, body.detail) {
            ("Object Created", Some(detail)) => Some(
                object(detail, body.region, |key| key)
                    .map_or(INCOMPLETE, |object| Notification::Objects(vec![object])),
            ),
            (other, _) if other.starts_with("Object ") => Some(Notification::Nothing),
            // `AWS API Call via CloudTrail` and what else EventBridge brings.
            _ => None,
        };
    }
    let records = body.records?;
    // A file of CloudTrail has `Records` too, but none of them has `s3`.
    if records.is_empty() || records.iter().any(|r| r.s3.is_none()) {
        return None;
    }
    let mut objects = Vec::new();
    for record in records {
        let created = ["ObjectCreated", "ObjectRestore:Completed"];
        let name = record.name.strip_prefix("s3:").unwrap_or(&record.name);
        if !created.iter().any(|c| name.starts_with(c)) {
            continue;
        }
        match record
            .s3
            .and_then(|s3| object(s3, record.region, form_decoded))
        {
            Some(object) => objects.push(object),
            None => return Some(INCOMPLETE),
        }
    }
    Some(match objects.is_empty() {
        true => Notification::Nothing,
        false => Notification::Objects(objects),
    })
}

const INCOMPLETE: Notification<'static> =
    Notification::Unknown("the message names no bucket or no key");

fn object(detail: Detail, region: Option<Str>, key: impl Fn(Str) -> Str) -> Option<Object> {
    let (bucket, object) = (detail.bucket?, detail.object?);
    Some(Object {
        bucket: bucket.name,
        key: key(object.key),
        region,
        etag: object.etag.map(|e| e.trim_matches('"').into()),
    })
}

/// A key as notifications of S3 write it: `+` for a space, and bytes as `%XX`. What is no such code stays.
fn form_decoded(key: Str) -> Str {
    if !key.contains(['+', '%']) {
        return key;
    }
    let bytes = key.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        let code = code.and_then(|hex| {
            let digit = |b: u8| char::from(b).to_digit(16);
            Some((digit(hex[0])? * 16 + digit(hex[1])?) as u8)
        });
        match (byte, code) {
            (_, Some(code)) => {
                out.push(code);
                at += 2;
            }
            (b'+', None) => out.push(b' '),
            (other, None) => out.push(other),
        }
        at += 1;
    }
    match String::from_utf8(out) {
        Ok(text) => text.into(),
        Err(_) => key,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn objects(body: &str) -> Vec<(String, String)> {
        match read(body) {
            Notification::Objects(objects) => objects
                .into_iter()
                .map(|o| (o.bucket.to_string(), o.key.to_string()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn pair(bucket: &str, key: &str) -> (String, String) {
        (bucket.to_owned(), key.to_owned())
    }

    /// As SNS wraps it.
    fn wrapped(message: &str) -> String {
        serde_json::json!({
            "Type": "Notification",
            "MessageId": "8a1e2f0c-5f6b-5b3e-9c4e-3d1c6a2b7e90",
            "TopicArn": "arn:aws:sns:eu-west-1:111122223333:trail",
            "Subject": "Amazon S3 Notification",
            "Message": message,
            "Timestamp": "2026-03-02T09:05:00.000Z",
            "SignatureVersion": "1",
        })
        .to_string()
    }

    const OF_S3: &str = r#"{"Records":[
        {"eventVersion":"2.6","eventSource":"aws:s3","awsRegion":"eu-west-1","eventName":"ObjectCreated:Put",
         "s3":{"s3SchemaVersion":"1.0","bucket":{"name":"trail-a","arn":"arn:aws:s3:::trail-a"},
               "object":{"key":"AWSLogs/1/a+b%3Ac%2Fd.json.gz","size":17,"eTag":"d41d8","sequencer":"0A"}}},
        {"eventVersion":"2.1","awsRegion":"us-east-1","eventName":"ObjectCreated:CompleteMultipartUpload",
         "s3":{"bucket":{"name":"trail-b"},"object":{"key":"%E2%82%AC%"}}}]}"#;

    #[test]
    fn of_s3_each_record_with_its_own_bucket() {
        let expected = [
            pair("trail-a", "AWSLogs/1/a b:c/d.json.gz"),
            pair("trail-b", "€%"),
        ];
        assert_eq!(objects(OF_S3), expected);
        assert_eq!(objects(&wrapped(OF_S3)), expected);
        assert_eq!(objects(&wrapped(&wrapped(OF_S3))), expected);
        let Notification::Objects(all) = read(OF_S3) else {
            panic!()
        };
        assert_eq!(all[0].region.as_deref(), Some("eu-west-1"));
        assert_eq!(all[0].etag.as_deref(), Some("d41d8"));
    }

    #[test]
    fn of_cloudtrail_all_keys_as_they_are() {
        let message = r#"{"s3Bucket":"trail","s3ObjectKey":["AWSLogs/1/x+y%20.json.gz","AWSLogs/2/z.json.gz"]}"#;
        let expected = [
            pair("trail", "AWSLogs/1/x+y%20.json.gz"),
            pair("trail", "AWSLogs/2/z.json.gz"),
        ];
        assert_eq!(objects(message), expected);
        assert_eq!(objects(&wrapped(message)), expected);
        let one = r#"{"s3Bucket":"trail","s3ObjectKey":"k"}"#;
        assert_eq!(objects(one), [pair("trail", "k")]);
    }

    #[test]
    fn of_eventbridge_keys_as_they_are() {
        let created = r#"{"version":"0","id":"17793124-05d4-b198-2fde-7ededc63b103","detail-type":"Object Created",
            "source":"aws.s3","account":"111122223333","time":"2026-03-02T09:05:00Z","region":"ca-central-1",
            "resources":["arn:aws:s3:::trail"],"detail":{"version":"0","bucket":{"name":"trail"},
            "object":{"key":"a+b%20c","size":5,"etag":"\"b1946\"","sequencer":"0061"},"reason":"PutObject"}}"#;
        assert_eq!(objects(created), [pair("trail", "a+b%20c")]);
        let Notification::Objects(all) = read(created) else {
            panic!()
        };
        assert_eq!(all[0].etag.as_deref(), Some("b1946"));
        assert_eq!(all[0].region.as_deref(), Some("ca-central-1"));
        let removed = created.replace("Object Created", "Object Deleted");
        assert_eq!(read(&removed), Notification::Nothing);
    }

    #[test]
    fn records_tests_removals_and_the_rest() {
        let call = r#"{"version":"0","detail-type":"AWS API Call via CloudTrail","source":"aws.iam","detail":{"eventID":"e"}}"#;
        assert_eq!(read(call), Notification::Records(call.into()));
        assert_eq!(read(&wrapped(call)), Notification::Records(call.into()));
        let file = r#"{"Records":[{"eventName":"ConsoleLogin","awsRegion":"us-east-1"}]}"#;
        assert_eq!(read(file), Notification::Records(file.into()));
        let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-03-02T09:05:00Z","Bucket":"trail"}"#;
        assert_eq!(read(test), Notification::Test);
        assert_eq!(read(&wrapped(test)), Notification::Test);
        let removed = OF_S3
            .replace("ObjectCreated:Put", "ObjectRemoved:Delete")
            .replace("ObjectCreated:Complete", "ObjectTagging:Complete");
        assert_eq!(read(&removed), Notification::Nothing);
        let partly = OF_S3.replace("ObjectCreated:Put", "ObjectRemoved:Delete");
        assert_eq!(objects(&partly), [pair("trail-b", "€%")]);
        for unknown in [
            "",
            "hello",
            "{\"Records\":[{\"eventName\":\"ObjectCreated:Put\",\"s3\":{}}]}",
        ] {
            assert!(
                matches!(read(unknown), Notification::Unknown(_)),
                "{unknown}"
            );
        }
    }

    proptest! {
        /// Whatever a key holds, it is read as it was before it was encoded.
        #[test]
        fn keys_come_back(key in "\\PC{1,40}") {
            let mut encoded = String::new();
            for byte in key.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => encoded.push(byte.into()),
                    b' ' => encoded.push('+'),
                    other => encoded.push_str(&format!("%{other:02X}")),
                }
            }
            let decoded = form_decoded(encoded.into());
            prop_assert_eq!(decoded.as_str(), key);
        }

        #[test]
        fn any_text_is_read(text in "\\PC{0,200}") {
            read(&text);
            read(&wrapped(&text));
        }
    }
}
