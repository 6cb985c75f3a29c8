//! The walk over uncompressed content: which value begins where, and how to go on after a damaged one.
//!
//! [`run`] moves a [`Window`] from value to value. Elements of a top-level array and of `Records` are handed
//! out one by one, however long the array is; other values are held whole. A value that does not scan is
//! skipped to where the next one can begin: in an array to its closing brace, at top level to the next line
//! that opens one; what was skipped is one bad piece. Text that is no JSON is read by lines if it looks like
//! the log of a Lambda function. What a whole value means is the business of `payload`.

use std::ops::ControlFlow;

use event::json::{Doc, JsonErrorKind, Kind};

use super::window::{End, Window};
use super::{Bad, Each, Item, Job, KEPT_BYTES, Limits, Reason, Record, Summary, Wrapper, payload};

/// Goes on or stops, as the caller's function said.
pub(super) type Flow = ControlFlow<()>;

/// How far to look for signs of a Lambda log.
const HEAD: usize = 64 << 10;

/// Indexes that are used again for every value.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) doc: Doc,
    pub(super) inner: Doc,
}

/// Where items go, with the counts.
pub(super) struct Output<'o, 'e> {
    each: &'o mut Each<'e>,
    position: u64,
    sha256: String,
    pub(super) limits: Limits,
    pub(super) summary: Summary,
}

impl<'o, 'e> Output<'o, 'e> {
    pub(super) fn new(
        each: &'o mut Each<'e>,
        job: &Job,
        limits: &Limits,
        sha256: String,
    ) -> Output<'o, 'e> {
        Output {
            each,
            position: job.first_position,
            sha256,
            limits: *limits,
            summary: Summary::default(),
        }
    }

    pub(super) fn record(&mut self, text: &[u8], doc: Option<&Doc>, wrapper: Wrapper<'_>) -> Flow {
        if text.len() > self.limits.record_bytes {
            return self.bad_text(Reason::RecordTooLarge, "record too large", text, 0);
        }
        self.summary.records += 1;
        let record = Record {
            text,
            doc,
            root: doc.map(|doc| doc.root(text)),
            position: self.position,
            wrapper,
            sha256: &self.sha256,
        };
        self.position += 1;
        let flow = (self.each)(Item::Record(record));
        self.summary.stopped |= flow.is_break();
        flow
    }

    /// Hands out a bad piece; its position is filled in here.
    pub(super) fn bad(&mut self, mut bad: Bad<'_>) -> Flow {
        bad.position = self.position;
        self.position += 1;
        self.summary.bad += 1;
        let flow = (self.each)(Item::Bad(bad));
        self.summary.stopped |= flow.is_break();
        flow
    }

    pub(super) fn bad_text(
        &mut self,
        reason: Reason,
        message: &str,
        text: &[u8],
        offset: u64,
    ) -> Flow {
        self.bad(Bad {
            offset,
            ..Bad::whole(reason, message, text)
        })
    }

    pub(super) fn finish(mut self) -> Summary {
        self.summary.next_position = self.position;
        self.summary.sha256 = self.sha256;
        self.summary
    }
}

/// Walks over the whole content. Gives how it ended and, if not cleanly, the bytes that were not done with.
pub(super) fn run<'s>(
    window: Window<'_>,
    scratch: &'s mut Scratch,
    job: &Job,
    out: &'s mut Output<'_, '_>,
) -> (End, Vec<u8>) {
    let mut walk = Walk {
        lambda: job.lambda_text.then_some(true),
        growing: job.growing,
        first: out.position,
        window,
        scratch,
        out,
    };
    let _ = walk.values();
    walk.out.summary.consumed = walk.window.offset();
    walk.out.summary.lambda_text = walk.lambda == Some(true);
    let partial = match walk.window.is_clean() {
        true => Vec::new(),
        false => walk.window.rest().to_vec(),
    };
    (walk.window.into_end(), partial)
}

enum Scan {
    /// A value of this many bytes.
    Value(usize),
    /// No value.
    Bad(JsonErrorKind, usize),
    /// More than is held whole.
    TooLarge,
    /// The content ends inside the value.
    Cut,
}

struct Walk<'w, 's, 'o, 'e> {
    window: Window<'w>,
    scratch: &'s mut Scratch,
    out: &'s mut Output<'o, 'e>,
    /// Is text to be read as the log of a Lambda function? `None` until text is met.
    lambda: Option<bool>,
    growing: bool,
    /// The position of the first item.
    first: u64,
}

impl Walk<'_, '_, '_, '_> {
    fn values(&mut self) -> Flow {
        self.window.fill(3);
        if self.window.rest().starts_with(b"\xef\xbb\xbf") {
            self.window.take(3);
        }
        while let Some(byte) = self.next() {
            let before = self.window.offset();
            match byte {
                b'{' if self.lambda != Some(true) => self.object()?,
                b'[' if self.lambda != Some(true) && self.opens_array() => {
                    self.window.take(1);
                    self.elements()?;
                }
                // Values may also be written as an array without its brackets.
                b',' if self.lambda != Some(true) => self.window.take(1),
                _ => self.line()?,
            }
            if self.window.offset() == before {
                // An end that may still grow, or that is damaged, stays unread.
                break;
            }
        }
        ControlFlow::Continue(())
    }

    /// The first byte of the next value or line. The space at the beginning of a log's line belongs to it.
    fn next(&mut self) -> Option<u8> {
        if self.lambda != Some(true) {
            return self.window.next();
        }
        loop {
            match self.window.rest().first().copied() {
                Some(b'\r' | b'\n') => self.window.take(1),
                Some(byte) => return Some(byte),
                None if !self.window.more() => return None,
                None => {}
            }
        }
    }

    /// `[` opens an array of objects, arrays or strings, and not a line such as `[INFO] …`.
    fn opens_array(&mut self) -> bool {
        let mut ahead = 64;
        loop {
            self.window.fill(ahead);
            let rest = self.window.rest();
            match rest.get(event::json::skip_space(rest, 1)) {
                Some(byte) => return matches!(byte, b'{' | b'[' | b']' | b'"'),
                None if self.window.ended() => return false,
                None => ahead = rest.len() * 2,
            }
        }
    }

    fn object(&mut self) -> Flow {
        self.window.fill(64);
        if let Some(length) = opens_records(self.window.rest(), 0) {
            self.window.take(length);
            self.elements()?;
            return self.remaining_members();
        }
        match self.scan(self.out.limits.payload_bytes) {
            Scan::Value(end) => self.value(end),
            Scan::TooLarge => match self.find_records() {
                Some(length) => {
                    self.window.take(length);
                    self.elements()?;
                    self.remaining_members()
                }
                None => self.skip_lines(Reason::RecordTooLarge, &self.too_large()),
            },
            Scan::Cut if self.growing || !self.window.is_clean() => ControlFlow::Continue(()),
            Scan::Cut if self.is_lambda() => self.line(),
            Scan::Bad(..) if self.is_lambda() => self.line(),
            Scan::Cut => self.skip_lines(Reason::BadJson, "json ends too early"),
            Scan::Bad(kind, at) => {
                let (reason, message) = self.explain(kind, at);
                self.skip_lines(reason, &message)
            }
        }
    }

    fn too_large(&self) -> String {
        format!(
            "record too large (limit {} bytes)",
            self.out.limits.record_bytes
        )
    }

    fn explain(&self, kind: JsonErrorKind, at: usize) -> (Reason, String) {
        let reason = match kind {
            JsonErrorKind::TooDeep => Reason::JsonTooDeep,
            JsonErrorKind::TooLarge => Reason::RecordTooLarge,
            _ => Reason::BadJson,
        };
        let offset = self.window.offset() + at as u64;
        (reason, format!("{kind} at byte {offset}"))
    }

    /// Indexes the value at the front of the window.
    fn scan(&mut self, limit: usize) -> Scan {
        loop {
            let rest = self.window.rest();
            match self.scratch.doc.scan(rest, 0) {
                // However much is in the window, the same is refused.
                Ok(end) if end > limit => return Scan::TooLarge,
                // A number or word may go on in what was not read yet.
                Ok(end) if end < rest.len() || matches!(rest[end - 1], b'}' | b']' | b'"') => {
                    return Scan::Value(end);
                }
                Ok(end) if self.window.ended() => return Scan::Value(end),
                Err(error) if error.kind != JsonErrorKind::Incomplete => {
                    return Scan::Bad(error.kind, error.offset);
                }
                _ if rest.len() > limit => return Scan::TooLarge,
                _ if !self.window.more() => return Scan::Cut,
                _ => {}
            }
        }
    }

    /// Hands out the value that was just scanned.
    fn value(&mut self, end: usize) -> Flow {
        let text = &self.window.rest()[..end];
        let Scratch { doc, inner } = &mut *self.scratch;
        let offset = self.window.offset();
        let flow = payload::value(text, doc, inner, 0, offset, self.out);
        self.window.take(end);
        flow
    }

    /// The elements of an array of which the opening bracket was taken, and its closing bracket.
    fn elements(&mut self) -> Flow {
        let mut damaged = false;
        loop {
            match self.window.next() {
                Some(b']') => {
                    self.window.take(1);
                    return ControlFlow::Continue(());
                }
                Some(b',') => {
                    self.window.take(1);
                    continue;
                }
                Some(_) => {}
                // Damage that reached to the end was reported already.
                None if damaged || !self.window.is_clean() => return ControlFlow::Continue(()),
                None => {
                    let offset = self.window.offset();
                    let message = "the array of records is not closed";
                    return self.out.bad_text(Reason::BadJson, message, b"", offset);
                }
            }
            let scan = self.scan(self.out.limits.payload_bytes);
            damaged = !matches!(scan, Scan::Value(_));
            match scan {
                Scan::Value(end) => {
                    // Nothing but a comma or the end may follow.
                    self.value(end)?;
                    if !matches!(self.window.next(), None | Some(b',' | b']')) {
                        damaged = true;
                        self.skip_element(Reason::BadJson, "no comma after a record")?;
                    }
                }
                Scan::TooLarge => self.skip_element(Reason::RecordTooLarge, &self.too_large())?,
                Scan::Cut if !self.window.is_clean() => return ControlFlow::Continue(()),
                Scan::Cut => self.skip_element(Reason::BadJson, "json ends too early")?,
                Scan::Bad(kind, at) => {
                    let (reason, message) = self.explain(kind, at);
                    self.skip_element(reason, &message)?;
                }
            }
        }
    }

    /// What stands after `Records` in its object. Nothing there is an event, except under the same key once more:
    /// whoever hides records there shall not succeed. What is damaged is reported.
    fn remaining_members(&mut self) -> Flow {
        loop {
            match self.window.next() {
                Some(b'}') => {
                    self.window.take(1);
                    return ControlFlow::Continue(());
                }
                Some(b',' | b':') => self.window.take(1),
                None => return ControlFlow::Continue(()),
                Some(b'"') if self.again() => self.elements()?,
                Some(_) => match self.scan(self.out.limits.payload_bytes) {
                    Scan::Value(end) => self.window.take(end),
                    Scan::Cut if !self.window.is_clean() => return ControlFlow::Continue(()),
                    _ => {
                        return self
                            .skip_lines(Reason::BadJson, "json syntax error after the records");
                    }
                },
            }
        }
    }

    /// Does another `Records` stand at the front of the window? Takes its opening.
    fn again(&mut self) -> bool {
        self.window.fill(64);
        let opening = opens_records(self.window.rest(), 0);
        opening
            .inspect(|length| self.window.take(*length))
            .is_some()
    }

    /// `Records` among the members of the object at the front of the window, which is too large to be held:
    /// how many bytes there are up to its first element.
    fn find_records(&mut self) -> Option<usize> {
        let rest = self.window.rest();
        let rest = &rest[..rest.len().min(self.out.limits.payload_bytes)];
        let doc = &mut self.scratch.doc;
        let mut at = 1;
        loop {
            at = event::json::skip_space(rest, at);
            if let Some(length) = opens_records(rest, at) {
                return Some(length);
            }
            at = doc.scan(rest, at).ok()?;
            if doc.root(rest).kind() != Kind::String {
                return None;
            }
            at = event::json::skip_space(rest, at);
            at = (rest.get(at) == Some(&b':')).then_some(at + 1)?;
            at = doc.scan(rest, at).ok()?;
            at = event::json::skip_space(rest, at);
            at = (rest.get(at) == Some(&b',')).then_some(at + 1)?;
        }
    }

    /// Reports the damaged element at the front of the window and skips it by matching braces and quotes; if what
    /// follows is no next element either, the rest of the content goes with it.
    fn skip_element(&mut self, reason: Reason, message: &str) -> Flow {
        let mut skipped = Skipped::new(self.window.offset());
        let (mut depth, mut quoted, mut escaped) = (0_u64, false, false);
        'element: loop {
            let rest = self.window.rest();
            for (at, &byte) in rest.iter().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    _ if quoted => {}
                    b'{' | b'[' => depth += 1,
                    b',' | b']' | b'}' if depth == 0 => {
                        skipped.add(&rest[..at]);
                        self.window.take(at);
                        break 'element;
                    }
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
            }
            let all = rest.len();
            skipped.add(rest);
            self.window.take(all);
            if !self.window.more() {
                break;
            }
        }
        if self.window.rest().first() == Some(&b'}') {
            // One brace too many: whatever comes now is not known to be a record.
            loop {
                let rest = self.window.rest();
                let all = rest.len();
                skipped.add(rest);
                self.window.take(all);
                if !self.window.more() {
                    break;
                }
            }
        }
        skipped.report(reason, message, self.out)
    }

    /// Reports what is at the front of the window and skips to the next line that opens a value.
    fn skip_lines(&mut self, reason: Reason, message: &str) -> Flow {
        let mut skipped = Skipped::new(self.window.offset());
        let mut line_start = false;
        'lines: loop {
            let rest = self.window.rest();
            for (at, &byte) in rest.iter().enumerate() {
                if line_start && matches!(byte, b'{' | b'[') {
                    skipped.add(&rest[..at]);
                    self.window.take(at);
                    break 'lines;
                }
                line_start = byte == b'\n';
            }
            let all = rest.len();
            skipped.add(rest);
            self.window.take(all);
            if !self.window.more() {
                break;
            }
        }
        skipped.report(reason, message, self.out)
    }

    /// One line of text.
    fn line(&mut self) -> Flow {
        if !self.is_lambda() {
            if self.growing && self.window.ended() && self.window.rest().len() < HEAD {
                // What kind of text it is may show later.
                return ControlFlow::Continue(());
            }
            if self.out.position == self.first && !has_json_line(self.window.rest()) {
                return self.unknown();
            }
        }
        let mut seen = 0;
        let (length, ending) = loop {
            let rest = self.window.rest();
            if let Some(at) = memchr::memchr(b'\n', &rest[seen..]) {
                break (seen + at, 1);
            }
            seen = rest.len();
            if seen > self.out.limits.record_bytes {
                return self.skip_long_line();
            }
            if !self.window.more() {
                if self.growing || !self.window.is_clean() {
                    return ControlFlow::Continue(());
                }
                break (seen, 0);
            }
        };
        let line = &self.window.rest()[..length];
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        let offset = self.window.offset();
        let flow = if self.lambda == Some(true) {
            let doc = payload::whole_object(text, &mut self.scratch.doc);
            self.out.record(text, doc, Wrapper::LambdaText)
        } else {
            let message = format!("neither json nor a known log line at byte {offset}");
            self.out.bad_text(Reason::BadJson, &message, text, offset)
        };
        self.window.take(length + ending);
        flow
    }

    fn skip_long_line(&mut self) -> Flow {
        let mut skipped = Skipped::new(self.window.offset());
        loop {
            let rest = self.window.rest();
            let end = memchr::memchr(b'\n', rest);
            let taken = end.unwrap_or(rest.len());
            skipped.add(&rest[..taken]);
            self.window.take(taken);
            if end.is_some() || !self.window.more() {
                break;
            }
        }
        let message = self.too_large();
        skipped.report(Reason::RecordTooLarge, &message, self.out)
    }

    /// Is the text here the log of a Lambda function? Decided once, by what is near.
    fn is_lambda(&mut self) -> bool {
        if let Some(lambda) = self.lambda {
            return lambda;
        }
        self.window.fill(HEAD);
        let rest = self.window.rest();
        let head = &rest[..rest.len().min(HEAD)];
        let found = head.split(|b| *b == b'\n').any(is_platform_line);
        if found || head.len() == HEAD || !self.growing {
            self.lambda = Some(found);
        }
        found
    }

    /// Nothing in this content is known: it is reported once and not read to its end.
    fn unknown(&mut self) -> Flow {
        let rest = self.window.rest();
        let offset = self.window.offset();
        let message = "neither json, nor gzip, nor a known log";
        let flow = self.out.bad_text(
            Reason::UnknownObject,
            message,
            &rest[..rest.len().min(HEAD)],
            offset,
        );
        flow?;
        self.out.summary.unknown = true;
        ControlFlow::Break(())
    }
}

/// A piece that is passed over: its first bytes and its size.
struct Skipped {
    offset: u64,
    kept: Vec<u8>,
    size: u64,
}

impl Skipped {
    fn new(offset: u64) -> Skipped {
        Skipped {
            offset,
            kept: Vec::new(),
            size: 0,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = KEPT_BYTES - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.size += bytes.len() as u64;
    }

    fn report(self, reason: Reason, message: &str, out: &mut Output<'_, '_>) -> Flow {
        out.bad(Bad {
            reason,
            message,
            bytes: &self.kept,
            size: self.size,
            offset: self.offset,
            position: 0,
        })
    }
}

/// Does `"Records": [` stand at `at`, perhaps after an opening brace? Gives the offset after the bracket.
fn opens_records(text: &[u8], at: usize) -> Option<usize> {
    use event::json::skip_space;
    let at = skip_space(text, at + usize::from(text.get(at) == Some(&b'{')));
    let after = text.get(at..)?.strip_prefix(b"\"Records\"")?;
    let at = skip_space(text, text.len() - after.len());
    let at = skip_space(text, (text.get(at) == Some(&b':')).then_some(at + 1)?);
    (text.get(at) == Some(&b'[')).then_some(at + 1)
}

fn has_json_line(text: &[u8]) -> bool {
    text[..text.len().min(HEAD)]
        .split(|b| *b == b'\n')
        .any(|line| matches!(line.trim_ascii_start().first(), Some(b'{')))
}

/// Is this a line that only the Lambda platform writes?
fn is_platform_line(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let line = match line.iter().position(|b| *b == b' ' || *b == b'\t') {
        Some(space) if line[0].is_ascii_digit() => line[space..].trim_ascii_start(),
        _ => line,
    };
    const STARTS: [&[u8]; 6] = [
        b"START RequestId: ",
        b"END RequestId: ",
        b"REPORT RequestId: ",
        b"INIT_START ",
        b"INIT_REPORT ",
        b"END Duration: ",
    ];
    STARTS.iter().any(|start| line.starts_with(start))
}
