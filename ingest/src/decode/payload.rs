//! What a whole JSON value is: a record, or a wrapper with records inside.
//!
//! [`value`] looks at the keys of an object and unwraps CloudWatch Logs subscription payloads (as they are,
//! under `awslogs.data`, or in Kinesis records), EventBridge envelopes around CloudTrail records, `Records`
//! that are not the first key, and answers of LookupEvents. Digest files, control messages and test messages
//! are no events and only counted. Everything else is a record, whether anybody knows its format or not.

use std::io::Read;
use std::ops::ControlFlow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use event::json::{Doc, Kind, Value, skip_space};
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use super::content::GZIP;
use super::walk::{Flow, Output};
use super::{LogEvent, Reason, Wrapper};

/// Wrappers inside wrappers are unwrapped this many times.
const MAX_LAYERS: u8 = 4;

/// Hands out what `text` holds; `doc` is its index, `inner` one to use for what is inside it.
pub(super) fn value(
    text: &[u8],
    doc: &Doc,
    inner: &mut Doc,
    layer: u8,
    offset: u64,
    out: &mut Output<'_, '_>,
) -> Flow {
    let root = doc.glance(text);
    if root.kind() != Kind::Object {
        let message = "a record must be a json object";
        return out.bad_text(Reason::UnknownObject, message, text, offset);
    }
    // Most records are CloudTrail's: do not look for every kind of wrapper in them.
    match root.get("eventSource") {
        Some(source) if source.raw() != b"\"aws:kinesis\"" => {
            return out.record(text, Some(doc), Wrapper::None);
        }
        _ => {}
    }
    if layer == MAX_LAYERS {
        return out.record(text, Some(doc), Wrapper::None);
    }
    let is = |keys: &[&str], kind: Kind| root.at(keys).filter(|v| v.kind() == kind);
    if let (Some(events), Some(_)) = (is(&["logEvents"], Kind::Array), root.get("logGroup")) {
        return log_events(root, events, inner, offset, out);
    }
    if let Some(data) = is(&["awslogs", "data"], Kind::String) {
        return embedded(data, layer, offset, out);
    }
    if let Some(data) = is(&["kinesis", "data"], Kind::String).filter(holds_gzip) {
        return embedded(data, layer, offset, out);
    }
    if let Some(records) = is(&["Records"], Kind::Array) {
        return rescan(text, records, layer, offset, out);
    }
    if root.get("Records").is_some_and(|r| r.is_null()) {
        return out.bad_text(Reason::UnknownObject, "`Records` is null", text, offset);
    }
    if let Some(events) = is(&["Events"], Kind::Array)
        && events
            .children()
            .all(|e| e.get("CloudTrailEvent").is_some())
    {
        return rescan(text, events, layer, offset, out);
    }
    if let Some(record) = is(&["CloudTrailEvent"], Kind::String).and_then(|r| r.as_str()) {
        return match whole_object(record.as_bytes(), inner) {
            Some(doc) => out.record(record.as_bytes(), Some(doc), Wrapper::None),
            None => out.bad_text(
                Reason::BadJson,
                "`CloudTrailEvent` is no json object",
                text,
                offset,
            ),
        };
    }
    if let Some(detail) = is(&["detail"], Kind::Object).filter(|d| is_via_cloudtrail(root, *d)) {
        return match whole_object(detail.raw(), inner) {
            Some(doc) => out.record(detail.raw(), Some(doc), Wrapper::None),
            None => ControlFlow::Continue(()),
        };
    }
    // Digest files, and the metadata of the objects that hold them where it is kept in a file beside.
    let has = |key| root.get(key).is_some();
    if (has("digestStartTime") && has("logFiles"))
        || (has("signature") && has("signature-algorithm"))
    {
        out.summary.digests += 1;
        return ControlFlow::Continue(());
    }
    if root
        .text_at(&["Event"])
        .is_some_and(|e| e == "s3:TestEvent")
    {
        out.summary.test_messages += 1;
        return ControlFlow::Continue(());
    }
    out.record(text, Some(doc), Wrapper::None)
}

/// The index of `text` if it is one JSON object and nothing else.
pub(super) fn whole_object<'d>(text: &[u8], doc: &'d mut Doc) -> Option<&'d Doc> {
    let start = skip_space(text, 0);
    if text.get(start) != Some(&b'{') {
        return None;
    }
    let end = doc.scan(text, 0).ok()?;
    (skip_space(text, end) == text.len()).then_some(doc)
}

fn is_via_cloudtrail(envelope: Value<'_>, detail: Value<'_>) -> bool {
    envelope
        .text_at(&["detail-type"])
        .is_some_and(|t| t.ends_with("via CloudTrail"))
        && detail.get("eventVersion").is_some()
}

fn holds_gzip(data: &Value<'_>) -> bool {
    // The two bytes of gzip and deflate's method number in base64.
    data.raw().starts_with(b"\"H4sI")
}

/// The events of a subscription payload.
fn log_events(
    root: Value<'_>,
    events: Value<'_>,
    inner: &mut Doc,
    offset: u64,
    out: &mut Output<'_, '_>,
) -> Flow {
    let text_of = |key: &str| root.text_at(&[key]).unwrap_or_default();
    if text_of("messageType") == "CONTROL_MESSAGE" {
        out.summary.control_messages += 1;
        return ControlFlow::Continue(());
    }
    let (owner, group, stream) = (text_of("owner"), text_of("logGroup"), text_of("logStream"));
    for entry in events.children() {
        let Some(message) = entry.get("message").and_then(|m| m.as_str()) else {
            let reason = "a log event has no message";
            out.bad_text(Reason::UnknownObject, reason, entry.raw(), offset)?;
            continue;
        };
        let id = entry.text_at(&["id"]).unwrap_or_default();
        let log = LogEvent {
            owner: &owner,
            group: &group,
            stream: &stream,
            id: &id,
            timestamp: entry
                .get("timestamp")
                .and_then(|t| t.as_f64())
                .map(|t| t as i64),
        };
        log_event(&message, log, inner, out)?;
    }
    ControlFlow::Continue(())
}

/// One event of a log stream.
pub(super) fn log_event(
    message: &str,
    log: LogEvent<'_>,
    inner: &mut Doc,
    out: &mut Output<'_, '_>,
) -> Flow {
    let doc = whole_object(message.as_bytes(), inner);
    out.record(message.as_bytes(), doc, Wrapper::LogEvent(log))
}

/// The elements of an array within a value, each indexed by itself.
fn rescan(
    text: &[u8],
    elements: Value<'_>,
    layer: u8,
    offset: u64,
    out: &mut Output<'_, '_>,
) -> Flow {
    let (mut doc, mut inner) = (Doc::new(), Doc::new());
    for element in elements.children() {
        let span = element.span();
        let text = &text[span.clone()];
        let offset = offset + span.start as u64;
        match doc.scan(text, 0) {
            Ok(_) => value(text, &doc, &mut inner, layer + 1, offset, out)?,
            Err(error) => out.bad_text(Reason::BadJson, &error.to_string(), text, offset)?,
        }
    }
    ControlFlow::Continue(())
}

/// JSON values within base64, mostly compressed.
fn embedded(data: Value<'_>, layer: u8, offset: u64, out: &mut Output<'_, '_>) -> Flow {
    let encoded = data.as_str().unwrap_or_default();
    let raw = data.raw();
    let Ok(mut content) = BASE64.decode(encoded.trim_ascii().as_bytes()) else {
        return out.bad_text(Reason::BadBase64, "wrapped data is not base64", raw, offset);
    };
    let limit = out.limits.payload_bytes;
    match inflated(&content, limit) {
        Ok(Some(inflated)) if inflated.len() > limit => {
            let message = "wrapped data is too large";
            return out.bad_text(Reason::RecordTooLarge, message, raw, offset);
        }
        Ok(Some(inflated)) => content = inflated,
        Ok(None) => {}
        Err(error) => {
            let message = format!("wrapped compressed data: {error}");
            return out.bad_text(Reason::CorruptGzip, &message, raw, offset);
        }
    }
    let (mut doc, mut inner) = (Doc::new(), Doc::new());
    let mut at = skip_space(&content, 0);
    while at < content.len() {
        let rest = &content[at..];
        let end = match doc.scan(rest, 0) {
            Ok(end) => end,
            Err(error) => {
                let message = format!("wrapped data: {error}");
                let reason = match error.kind {
                    event::json::JsonErrorKind::TooDeep => Reason::JsonTooDeep,
                    _ => Reason::BadJson,
                };
                return out.bad_text(reason, &message, rest, offset);
            }
        };
        value(&rest[..end], &doc, &mut inner, layer + 1, offset, out)?;
        at = skip_space(&content, at + end);
    }
    ControlFlow::Continue(())
}

/// The content without its compression, if it has any, up to one byte more than `limit`.
fn inflated(content: &[u8], limit: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    let most = limit as u64 + 1;
    match content {
        gzip if gzip.starts_with(GZIP) => {
            std::io::copy(&mut MultiGzDecoder::new(gzip).take(most), &mut out)?;
        }
        // Some senders compress without gzip's header.
        zlib @ [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => {
            std::io::copy(&mut ZlibDecoder::new(zlib).take(most), &mut out)?;
        }
        _ => return Ok(None),
    }
    Ok(Some(out))
}
