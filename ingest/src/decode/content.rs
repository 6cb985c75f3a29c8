//! What lies around the text: gzip in one or two layers, UTF-16, and the digest over all of it.
//!
//! [`Decoder`] owns the buffers, which are used again from object to object. A gzip object whose trailer
//! promises a modest size is inflated whole by libdeflate, twice as fast as a stream; if that fails for any
//! reason (damage, several members, a trailer that lies) the object is read as a stream, which hands out
//! everything before the damage. The content decides what is gzip, not the name.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::walk::{self, Output};
use super::window::{End, Window};
use super::{Bad, DecodeError, Each, Job, KEPT_BYTES, Limits, LogEvent, Reason, Summary, payload};

/// The first bytes of gzip.
pub(crate) const GZIP: &[u8] = b"\x1f\x8b";

/// Compressed and uncompressed objects up to this size are held whole.
const WHOLE: u64 = 64 << 20;

/// Buffers larger than this are given back after use.
const KEPT_BUFFER: usize = 16 << 20;

/// Turns objects into records; keeps its buffers between them.
pub struct Decoder {
    limits: Limits,
    buffer: Vec<u8>,
    compressed: Vec<u8>,
    inflater: libdeflater::Decompressor,
    scratch: walk::Scratch,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder with these limits.
    pub fn new(limits: Limits) -> Decoder {
        Decoder {
            limits,
            buffer: Vec::new(),
            compressed: Vec::new(),
            inflater: libdeflater::Decompressor::new(),
            scratch: walk::Scratch::default(),
        }
    }

    /// Reads a file.
    pub fn file(
        &mut self,
        path: &Path,
        job: &Job,
        each: &mut Each<'_>,
    ) -> Result<Summary, DecodeError> {
        self.open_file(path, job, each)
            .map_err(|source| DecodeError {
                path: path.display().to_string(),
                source,
            })
    }

    fn open_file(
        &mut self,
        path: &Path,
        job: &Job,
        each: &mut Each<'_>,
    ) -> std::io::Result<Summary> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut head = [0; 2];
        let got = read_up_to(&mut file, &mut head)?;
        file.rewind()?;
        if &head[..got] == GZIP && length <= WHOLE && promised(&mut file)? <= WHOLE {
            let mut compressed = std::mem::take(&mut self.compressed);
            // One byte more, to see that the file has not grown.
            compressed.resize((length as usize + 1).max(compressed.len()), 0);
            let got = read_up_to(&mut file, &mut compressed[..length as usize + 1])?;
            let summary = if got as u64 == length {
                Some(self.gzip(&compressed[..got], job, each))
            } else {
                None
            };
            self.compressed = shrunk(compressed);
            if let Some(summary) = summary {
                return summary;
            }
            file.rewind()?;
        }
        let sha256 = if job.sha256 {
            let digest = sha256(
                &mut layers(Box::new(&mut file), self.limits)?.text,
                self.limits,
            )?;
            file.rewind()?;
            digest
        } else {
            String::new()
        };
        self.stream(Box::new(file), job, sha256, each)
    }

    /// Reads what is in memory.
    pub fn bytes(&mut self, content: &[u8], job: &Job, each: &mut Each<'_>) -> Summary {
        let read = if content.starts_with(GZIP) {
            self.gzip(content, job, each)
        } else {
            self.slice(content, job, each)
        };
        read.expect("reading memory does not fail")
    }

    /// Reads what `input` gives, until its end. The digest of [`Job::sha256`] is not computed.
    pub fn reader<'r>(
        &mut self,
        input: impl Read + 'r,
        job: &Job,
        each: &mut Each<'_>,
    ) -> std::io::Result<Summary> {
        self.stream(Box::new(input), job, String::new(), each)
    }

    /// Takes events of log streams that came without a payload around them.
    pub fn log_events<'m>(
        &mut self,
        events: impl Iterator<Item = (&'m str, LogEvent<'m>)>,
        each: &mut Each<'_>,
    ) -> Summary {
        let mut out = Output::new(each, &Job::default(), &self.limits, String::new());
        for (message, log) in events {
            if payload::log_event(message, log, &mut self.scratch.inner, &mut out).is_break() {
                break;
            }
        }
        out.finish()
    }

    fn slice(
        &mut self,
        content: &[u8],
        job: &Job,
        each: &mut Each<'_>,
    ) -> std::io::Result<Summary> {
        let sha256 = if job.sha256 {
            sha256(
                &mut layers(Box::new(content), self.limits)?.text,
                self.limits,
            )?
        } else {
            String::new()
        };
        self.stream(Box::new(content), job, sha256, each)
    }

    fn gzip(
        &mut self,
        compressed: &[u8],
        job: &Job,
        each: &mut Each<'_>,
    ) -> std::io::Result<Summary> {
        let Some(length) = self.inflate(compressed) else {
            return self.slice(compressed, job, each);
        };
        let content = &self.buffer[..length];
        if content.starts_with(GZIP) || encoding(content).is_some() {
            return self.slice(compressed, job, each);
        }
        let sha256 = if job.sha256 {
            hex(&Sha256::digest(content))
        } else {
            String::new()
        };
        let mut out = Output::new(each, job, &self.limits, sha256);
        out.summary.gzip = true;
        let window = Window::whole(&mut self.buffer, length);
        let _ = walk::run(window, &mut self.scratch, job, &mut out);
        self.buffer = shrunk(std::mem::take(&mut self.buffer));
        Ok(out.finish())
    }

    /// Inflates an object of one member into the buffer; `None` if it is not clearly one of modest size.
    fn inflate(&mut self, compressed: &[u8]) -> Option<usize> {
        let (_, trailer) = compressed.split_last_chunk::<4>()?;
        let length = u64::from(u32::from_le_bytes(*trailer));
        let plausible = length <= compressed.len() as u64 * 1_032 + 64;
        // A second member, or bytes that look like one: the stream knows better.
        let one = memchr::memmem::find(&compressed[2..], b"\x1f\x8b\x08").is_none();
        if !plausible || !one || length > WHOLE.min(self.limits.object_bytes) {
            return None;
        }
        let length = length as usize;
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
        let inflated = self
            .inflater
            .gzip_decompress(compressed, &mut self.buffer[..length]);
        inflated.ok().filter(|n| *n == length)
    }

    fn stream(
        &mut self,
        input: Box<dyn Read + '_>,
        job: &Job,
        sha256: String,
        each: &mut Each<'_>,
    ) -> std::io::Result<Summary> {
        let Layers { mut text, gzip } = layers(input, self.limits)?;
        let limit = self.limits.object_bytes;
        let mut out = Output::new(each, job, &self.limits, sha256);
        out.summary.gzip = gzip;
        let window = Window::over(&mut text, &mut self.buffer, limit, self.limits.chunk_bytes);
        let (end, partial) = walk::run(window, &mut self.scratch, job, &mut out);
        let (reason, message) = match end {
            End::Clean => (None, String::new()),
            End::TooLarge => (
                Some(Reason::BodyTooLarge),
                format!("decompressed size passed {}", in_units(limit)),
            ),
            End::Failed(error) if gzip && is_damage(&error) => {
                (Some(Reason::CorruptGzip), format!("gzip: {error}"))
            }
            End::Failed(error) => return Err(error),
        };
        if let Some(reason) = reason.filter(|_| !out.summary.stopped) {
            let bad = Bad {
                reason,
                message: &message,
                bytes: &partial[..partial.len().min(KEPT_BYTES)],
                size: partial.len() as u64,
                offset: out.summary.consumed,
                position: 0,
            };
            let _ = out.bad(bad);
        }
        let summary = out.finish();
        drop(text);
        self.buffer = shrunk(std::mem::take(&mut self.buffer));
        Ok(summary)
    }
}

/// A body without its compression, if it has any and is not larger than what is taken.
pub(crate) fn unpacked<'b>(
    body: &'b [u8],
    limits: &Limits,
) -> Result<Cow<'b, [u8]>, (Reason, String)> {
    if !body.starts_with(GZIP) {
        return Ok(Cow::Borrowed(body));
    }
    let mut content = Vec::new();
    let mut input = MultiGzDecoder::new(body).take(limits.object_bytes + 1);
    match std::io::copy(&mut input, &mut content) {
        Ok(length) if length > limits.object_bytes => Err((
            Reason::BodyTooLarge,
            format!("decompressed size passed {}", in_units(limits.object_bytes)),
        )),
        Ok(_) => Ok(Cow::Owned(content)),
        Err(error) => Err((Reason::CorruptGzip, format!("gzip: {error}"))),
    }
}

/// `64 MiB`, as messages say it.
pub(crate) fn in_units(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b % (1 << 30) == 0 => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{} MiB", b >> 20),
        b => format!("{b} bytes"),
    }
}

pub(crate) fn is_damage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

fn shrunk(mut buffer: Vec<u8>) -> Vec<u8> {
    if buffer.len() > KEPT_BUFFER {
        buffer.truncate(KEPT_BUFFER);
        buffer.shrink_to_fit();
    }
    buffer
}

/// How much a gzip file of one member says that it holds, modulo 4 GiB. Leaves the file at its beginning.
fn promised(file: &mut File) -> std::io::Result<u64> {
    let mut trailer = [0; 4];
    // What is shorter than that is damaged, and small.
    let got = match file.seek(SeekFrom::End(-4)) {
        Ok(_) => read_up_to(file, &mut trailer)?,
        Err(_) => 0,
    };
    file.rewind()?;
    Ok(match got {
        4 => u32::from_le_bytes(trailer).into(),
        _ => 0,
    })
}

pub(crate) fn read_up_to(input: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

struct Layers<'r> {
    text: Box<dyn Read + 'r>,
    gzip: bool,
}

/// Takes off up to two layers of gzip, and UTF-16.
fn layers<'r>(mut input: Box<dyn Read + 'r>, limits: Limits) -> std::io::Result<Layers<'r>> {
    let mut gzip = 0;
    loop {
        let mut head = [0; 3];
        let got = match read_up_to(&mut input, &mut head) {
            Ok(got) => got,
            // The walk meets the error again and reports it in its place.
            Err(error) if gzip > 0 => {
                let text = Box::new(Broken(Some(error)));
                return Ok(Layers { text, gzip: true });
            }
            Err(error) => return Err(error),
        };
        let again = Cursor::new(head).take(got as u64).chain(input);
        if head[..got].starts_with(GZIP) && gzip < 2 {
            gzip += 1;
            let buffered = BufReader::with_capacity(64 << 10, again);
            // One byte over the limit is enough to see that it was passed.
            input = Box::new(MultiGzDecoder::new(buffered).take(limits.object_bytes + 1));
            continue;
        }
        let text: Box<dyn Read> = match encoding(&head[..got]) {
            Some(big_endian) => Box::new(Utf16::new(again, big_endian)),
            None => Box::new(again),
        };
        return Ok(Layers {
            text,
            gzip: gzip > 0,
        });
    }
}

/// A reader whose inner one failed before its first byte.
struct Broken(Option<std::io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Is this UTF-16 by its byte order mark, and is it big endian?
fn encoding(head: &[u8]) -> Option<bool> {
    match head {
        [0xff, 0xfe, ..] => Some(false),
        [0xfe, 0xff, ..] => Some(true),
        _ => None,
    }
}

/// UTF-16 read as UTF-8. Lone surrogates become U+FFFD.
struct Utf16<R> {
    input: R,
    big_endian: bool,
    units: Vec<u16>,
    odd: Option<u8>,
    out: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> Utf16<R> {
    fn new(input: R, big_endian: bool) -> Utf16<R> {
        Utf16 {
            input,
            big_endian,
            units: Vec::new(),
            odd: None,
            out: Vec::new(),
            at: 0,
            ended: false,
        }
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let mut raw = [0; 8 << 10];
        let got = self.input.read(&mut raw)?;
        self.ended = got == 0;
        for &byte in &raw[..got] {
            match self.odd.take() {
                None => self.odd = Some(byte),
                Some(first) if self.big_endian => {
                    self.units.push(u16::from_be_bytes([first, byte]));
                }
                Some(first) => self.units.push(u16::from_le_bytes([first, byte])),
            }
        }
        // A first half of a pair waits for its second.
        let waits = !self.ended
            && self
                .units
                .last()
                .is_some_and(|u| (0xD800..0xDC00).contains(u));
        let kept = waits.then(|| self.units.pop()).flatten();
        self.out.clear();
        self.at = 0;
        for c in char::decode_utf16(self.units.drain(..)) {
            let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
            self.out
                .extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        self.units.extend(kept);
        Ok(())
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.out.len() && !self.ended {
            self.fill()?;
        }
        let n = buffer.len().min(self.out.len() - self.at);
        buffer[..n].copy_from_slice(&self.out[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// The digest of the uncompressed content; empty if it is damaged or more than is taken.
fn sha256(content: &mut dyn Read, limits: Limits) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; limits.chunk_bytes.clamp(4 << 10, 1 << 20)];
    let mut total = 0;
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(n) => {
                hash.update(&buffer[..n]);
                total += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if is_damage(&e) => return Ok(String::new()),
            Err(e) => return Err(e),
        }
        if total > limits.object_bytes {
            return Ok(String::new());
        }
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
