//! Function logs: what the Lambda platform says about invocations, and what functions write.
//!
//! A line is a platform line (`REPORT RequestId: …` as text, or JSON with a `type` such as `platform.report`)
//! or the function's own: JSON of the runtimes and of Powertools, tab-separated text of Node and Python, or
//! anything. `action` is the platform's word, in both formats the same (`platform.start`, `platform.report`,
//! `platform.timeout`, …), or `log`. A report carries the [`Invocation`]; every number in it may be missing.
//! That a function failed is never concluded from a word in its text, only from what the runtime writes.
//! Messages of log groups that are no function's become events of source `aws.cloudwatch`.

use std::borrow::Cow;

use event::json::Value;
use event::{Event, Invocation, Outcome, Str, Time};

use super::cloudtrail::function_of;
use super::unknown;
use crate::decode::{LogEvent, Record};

/// Only so much of an error's text is kept in the envelope; the record has all of it.
const MAX_MESSAGE: usize = 1_024;

/// Texts that runtimes write when memory runs out.
const OUT_OF_MEMORY: [&str; 7] = [
    "signal: killed",
    "fatal error: runtime: out of memory",
    "java.lang.OutOfMemoryError",
    "JavaScript heap out of memory",
    "Runtime.OutOfMemory",
    "OutOfMemoryException",
    "NoMemoryError",
];

/// Is this a record of the Telemetry API, of JSON logs or of Powertools, wherever it was found?
pub(super) fn is_telemetry(root: Value<'_>) -> bool {
    let kind = root.text_at(&["type"]).unwrap_or_default();
    if root.get("record").is_some() {
        return kind.starts_with("platform.") || matches!(&*kind, "function" | "extension");
    }
    let has = |key| root.get(key).is_some();
    has("level")
        && has("timestamp")
        && (has("function_request_id") || (has("requestId") && has("message")))
}

/// Fills in what a function's log line says. Gives the time that stands in the line.
pub(super) fn fill(
    record: &Record<'_>,
    log: Option<&LogEvent<'_>>,
    event: &mut Event,
) -> Option<Time> {
    event.source = Str::const_new("aws.lambda");
    event.service = Str::const_new("lambda");
    event.category = Str::const_new("application");
    event.action = Str::const_new("log");
    if let Some(log) = log {
        of_names(log, event);
    }
    let root = record.root;
    let time = match root {
        Some(root) => json(root, event),
        None => text(&String::from_utf8_lossy(record.text), event),
    };
    if event.function.is_empty() && event.action == "log" && log.is_some() {
        event.source = Str::const_new("aws.cloudwatch");
        event.service = Str::const_new("logs");
        event.category = Str::default();
        return root.and_then(|r| unknown::fill(r, &mut Event::default()));
    }
    time
}

/// Function and version from the names of group and stream: `/aws/lambda/name` with `2026/03/02/[7]hash`, or any group
/// with `2026/03/02/name[7]hash`.
fn of_names(log: &LogEvent<'_>, event: &mut Event) {
    let of_stream = stream_parts(log.stream);
    if let Some(name) = log.group.strip_prefix("/aws/lambda/") {
        // Functions at the edge log as `us-east-1.name` in the region that served the request.
        let name = match name.split_once('.') {
            Some((region, rest)) if region.matches('-').count() >= 2 => rest,
            _ => name,
        };
        event.function = name.into();
    } else if let Some((name, _)) = of_stream {
        event.function = name.into();
    }
    if let Some((_, version)) = of_stream {
        event.function_version = version.into();
    }
}

fn stream_parts(stream: &str) -> Option<(&str, &str)> {
    let mut parts = stream.splitn(4, '/');
    let dated = [4, 2, 2].into_iter().all(|width| {
        parts
            .next()
            .is_some_and(|p| p.len() == width && p.bytes().all(|b| b.is_ascii_digit()))
    });
    let (name, rest) = parts.next().filter(|_| dated)?.split_once('[')?;
    let (version, _) = rest.split_once(']')?;
    Some((name, version))
}

fn json(root: Value<'_>, event: &mut Event) -> Option<Time> {
    let text_at = |keys: &[&str]| root.text_at(keys).map(Str::from).unwrap_or_default();
    let time = ["time", "timestamp"]
        .iter()
        .find_map(|key| unknown::time(root.get(key)?));
    let kind = text_at(&["type"]);
    match root.get("record") {
        Some(record) if kind.starts_with("platform.") => platform(&kind, record, event),
        Some(record) if kind == "function" || kind == "extension" => {
            if kind == "extension" {
                event.action = Str::const_new("extension");
            }
            match record.as_str() {
                // The line that the function wrote may itself carry a time, but the platform's is closer.
                Some(line) => {
                    text(&line, event);
                }
                None => application(record, event),
            }
        }
        _ => application(root, event),
    }
    if event.region.is_empty() {
        event.region = text_at(&["region"]);
    }
    time
}

/// A record of the platform. Names vary between the kinds, so every one is looked for.
fn platform(kind: &str, record: Value<'_>, event: &mut Event) {
    event.action = kind.into();
    event.category = Str::const_new("platform");
    let text_at = |keys: &[&str]| record.text_at(keys).map(Str::from).unwrap_or_default();
    event.request_id = text_at(&["requestId"]);
    let arn = text_at(&["functionArn"]);
    if !arn.is_empty() {
        of_arn(&arn, event);
    }
    if event.function.is_empty() {
        event.function = text_at(&["functionName"]);
    }
    for keys in [["functionVersion"], ["version"]] {
        if event.function_version.is_empty() {
            event.function_version = text_at(&keys);
        }
    }
    let status = text_at(&["status"]);
    event.error_code = text_at(&["errorType"]);
    event.outcome = match status.as_str() {
        "success" => Outcome::Success,
        "" => Outcome::Unknown,
        _ => Outcome::Failure,
    };
    if kind == "platform.logsDropped" {
        event.outcome = Outcome::Failure;
        event.error_message = text_at(&["reason"]);
    }
    if !matches!(kind, "platform.report" | "platform.invokeReport") {
        return;
    }
    let number = |key: &str| record.at(&["metrics", key]).and_then(|v| v.as_f64());
    let init_ms = number("initDurationMs");
    event.invocation = Some(Box::new(Invocation {
        status,
        duration_ms: number("durationMs"),
        billed_ms: number("billedDurationMs"),
        memory_mb: number("memorySizeMB").map(|n| n as u64),
        memory_used_mb: number("maxMemoryUsedMB").map(|n| n as u64),
        init_ms: init_ms.or_else(|| number("restoreDurationMs")),
        cold_start: init_ms.is_some(),
        error_type: event.error_code.clone(),
    }));
}

fn of_arn(arn: &str, event: &mut Event) {
    let (name, version) = function_of(arn);
    event.function = name.into();
    if !version.is_empty() {
        event.function_version = version.into();
    }
    let mut parts = arn.split(':').skip(3);
    let (region, account) = (parts.next(), parts.next());
    event.region = region.unwrap_or_default().into();
    if event.account.is_empty() {
        event.account = account.unwrap_or_default().into();
    }
}

/// A line that the function wrote as JSON.
fn application(root: Value<'_>, event: &mut Event) {
    let first = |keys: &[&str]| {
        keys.iter()
            .find_map(|key| root.text_at(&[key]))
            .unwrap_or_default()
    };
    event.request_id = first(&["requestId", "function_request_id", "AWSRequestId"]).into();
    let arn = first(&["function_arn"]);
    if !arn.is_empty() {
        of_arn(&arn, event);
    }
    if event.function.is_empty() {
        event.function = first(&["function_name"]).into();
    }
    let code = first(&["errorType", "exception_name"]);
    let level = first(&["level", "severity"]);
    if is_error(&level) || !code.is_empty() {
        let message = first(&["errorMessage", "message", "msg"]);
        failed(&code, &message, event);
    }
}

fn is_error(level: &str) -> bool {
    ["ERROR", "FATAL", "CRITICAL"]
        .iter()
        .any(|l| level.eq_ignore_ascii_case(l))
}

fn failed(code: &str, message: &str, event: &mut Event) {
    event.outcome = Outcome::Failure;
    let code = match OUT_OF_MEMORY.iter().any(|part| message.contains(part)) {
        true => "Runtime.OutOfMemory",
        false => code,
    };
    event.error_code = code.into();
    event.error_message = cut(message.trim()).into();
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A line of text. Tabs and line ends may be written out as `\t` and `\n` by whoever exported it.
fn text(line: &str, event: &mut Event) -> Option<Time> {
    let line: Cow<'_, str> = if line.contains("\\t") || line.ends_with("\\n") {
        line.replace("\\t", "\t").replace("\\n", "\n").into()
    } else {
        line.into()
    };
    let line = line.trim();
    let (time, rest) = leading_time(line);
    let mut words = rest.split_ascii_whitespace();
    let first = words.next().unwrap_or_default();
    let second = words.next().unwrap_or_default();
    match (first, second) {
        ("START", "RequestId:") => {
            platform_text("platform.start", words.next(), event);
            event.function_version = after(rest, "Version: ").into();
        }
        ("END", "RequestId:") => platform_text("platform.end", words.next(), event),
        ("REPORT", "RequestId:") => {
            platform_text("platform.report", words.next(), event);
            report(rest, event);
        }
        ("INIT_START", _) => {
            platform_text("platform.initStart", None, event);
            event.region = after(rest, "arn:aws:lambda:")
                .split(':')
                .next()
                .unwrap_or_default()
                .into();
        }
        ("INIT_REPORT", _) => started("platform.initReport", rest, event),
        ("RESTORE_START", _) => platform_text("platform.restoreStart", None, event),
        ("RESTORE_REPORT", _) => started("platform.restoreReport", rest, event),
        ("EXTENSION" | "TELEMETRY" | "LOGS", "Name:") => {
            platform_text("platform.extension", None, event);
        }
        ("XRAY", "TraceId:") => platform_text("platform.trace", None, event),
        ("RequestId:", id) if rest.contains(" Error: ") => {
            platform_text("platform.error", Some(id), event);
            let message = after_all(rest, "Error: ");
            let code = rest.lines().nth(1).unwrap_or_default().trim();
            failed(code, message, event);
        }
        (id, "Task") if rest.contains(" Task timed out after ") => {
            platform_text("platform.timeout", Some(id), event);
            failed("Sandbox.Timedout", &rest[id.len()..], event);
        }
        _ => application_text(time, rest, event),
    }
    if time.is_none() && event.action == "log" {
        // Python: `[INFO]<tab>time<tab>request<tab>text`.
        return rest.split('\t').nth(1).and_then(|t| Time::parse(t).ok());
    }
    time
}

/// A time at the start of the line, and what follows.
fn leading_time(line: &str) -> (Option<Time>, &str) {
    if !line.starts_with(|c: char| c.is_ascii_digit()) {
        return (None, line);
    }
    let Some((first, rest)) = line.split_once([' ', '\t']) else {
        return (None, line);
    };
    match Time::parse(first) {
        Ok(time) => (Some(time), rest.trim_start()),
        Err(_) => (None, line),
    }
}

/// The word after `label`.
fn after<'a>(line: &'a str, label: &str) -> &'a str {
    after_all(line, label)
        .split_ascii_whitespace()
        .next()
        .unwrap_or_default()
}

fn after_all<'a>(line: &'a str, label: &str) -> &'a str {
    line.split_once(label).map_or("", |(_, rest)| rest)
}

fn platform_text(action: &'static str, request_id: Option<&str>, event: &mut Event) {
    event.action = Str::const_new(action);
    event.category = Str::const_new("platform");
    event.request_id = request_id.unwrap_or_default().into();
}

/// The fields of a report line: labels and numbers with any white space between.
fn report(line: &str, event: &mut Event) {
    let mut invocation = Invocation::default();
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    for (at, word) in words.iter().enumerate().skip(1) {
        let value = words.get(at + 1).copied().unwrap_or_default();
        let number = || value.parse::<f64>().ok();
        match (words[at - 1], *word) {
            ("Billed", "Duration:") => invocation.billed_ms = number(),
            ("Init", "Duration:") => invocation.init_ms = number(),
            ("Restore", "Duration:") => invocation.init_ms = invocation.init_ms.or(number()),
            (_, "Duration:") => {
                invocation.duration_ms = invocation.duration_ms.or(number());
            }
            ("Memory", "Size:") => invocation.memory_mb = number().map(|n| n as u64),
            ("Memory", "Used:") => invocation.memory_used_mb = number().map(|n| n as u64),
            (_, "Status:") => invocation.status = value.into(),
            ("Error", "Type:") => invocation.error_type = value.into(),
            _ => {}
        }
    }
    // Its own times: `Billed Restore Duration` is not how long the restore took, and only an init is a cold start.
    invocation.cold_start = line.contains("Init Duration:");
    event.outcome = match invocation.status.as_str() {
        "" => Outcome::Unknown,
        "success" => Outcome::Success,
        _ => Outcome::Failure,
    };
    event.error_code = invocation.error_type.clone();
    event.invocation = Some(Box::new(invocation));
}

/// `INIT_REPORT Init Duration: 9999.9 ms Phase: init Status: timeout`.
fn started(action: &'static str, line: &str, event: &mut Event) {
    platform_text(action, None, event);
    event.outcome = match after(line, "Status: ") {
        "" | "success" => Outcome::Success,
        _ => Outcome::Failure,
    };
    event.error_code = after(line, "Error Type: ").into();
    if event.error_code.is_empty() && event.outcome == Outcome::Failure {
        event.error_code = after(line, "Status: ").into();
    }
}

/// A line that the function wrote as text, `rest` being what follows its time if it begins with one.
fn application_text(time: Option<Time>, rest: &str, event: &mut Event) {
    let mut fields = rest.splitn(3, '\t');
    let (first, second) = (
        fields.next().unwrap_or_default(),
        fields.next().unwrap_or_default(),
    );
    let message = fields.next().unwrap_or_default();
    if time.is_some() && is_request_id(first) {
        // Node: `time<tab>request<tab>LEVEL<tab>text`.
        event.request_id = first.into();
        if is_error(second) {
            let detail = invoke_error(message);
            failed(&detail.0, &detail.1, event);
        }
        return;
    }
    if time.is_none() && is_error(first) {
        // Node before the request id is known, or exported without time.
        let detail = invoke_error(&rest[first.len()..]);
        return failed(&detail.0, &detail.1, event);
    }
    if let Some((level, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
        // Python: `[LEVEL]<tab>time<tab>request<tab>text` of a logger, `[ERROR] Type: text` of the runtime.
        let mut fields = after.trim_start_matches('\t').splitn(3, '\t').skip(1);
        if let Some(id) = fields.next().filter(|id| is_request_id(id)) {
            event.request_id = id.into();
        }
        let message = fields.next().unwrap_or(after).trim();
        if is_error(level) {
            let (code, _) = exception(message).unwrap_or_default();
            failed(code, message, event);
        }
        return;
    }
    let mut words = rest.split_ascii_whitespace();
    if let (Some(id), Some(level)) = (words.next(), words.next())
        && is_request_id(id)
    {
        event.request_id = id.into();
        if is_error(level) {
            failed("", after_all(rest, level), event);
        }
        return;
    }
    // What the Java runtime writes of an exception that nobody caught: its class, its message, the stack.
    if let Some((code, message)) = exception(rest).filter(|(c, _)| c.contains('.')) {
        failed(code, message, event);
    } else if OUT_OF_MEMORY.iter().any(|part| rest.contains(part)) {
        failed("Runtime.OutOfMemory", rest, event);
    }
}

/// `Invoke Error <tab>{"errorType":…,"errorMessage":…}` of the Node runtime, else the text as it is.
fn invoke_error(message: &str) -> (Str, Str) {
    let message = message.trim();
    let found = message.find('{').and_then(|at| {
        let json = &message.as_bytes()[at..];
        let doc = event::json::Doc::parse(json).ok()?;
        let root = doc.root(json);
        let code = root.text_at(&["errorType"])?;
        let text = root.text_at(&["errorMessage"]).unwrap_or_default();
        Some((Str::from(code), Str::from(text)))
    });
    found.unwrap_or_else(|| (Str::default(), message.into()))
}

/// `Type: message` with a type that ends like one of an exception.
fn exception(text: &str) -> Option<(&str, &str)> {
    let line = text.lines().next()?;
    let (code, message) = line.split_once(": ").unwrap_or((line.trim(), ""));
    let named = ["Error", "Exception", "Timeout", "Interrupt", "Exit"]
        .iter()
        .any(|end| code.ends_with(end));
    let word = code
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'$'));
    (named && word).then_some((code, message))
}

fn is_request_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}
