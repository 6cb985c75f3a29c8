//! A window over content that is read piece by piece: what the walk looks at, and how much of it there is.
//!
//! [`Window`] holds the bytes that are not done with in one buffer. When the walk needs more, the rest moves
//! to the front and the buffer is filled up, by at least as much again as it holds, so that a value that is
//! scanned anew each time costs no more than twice its length. Content that is in memory already is a window
//! that needs no more. How the content ended (cleanly, damaged, over the limit) is kept for the end of the walk.

use std::io::{ErrorKind, Read};

/// How content ended.
#[derive(Debug)]
pub(super) enum End {
    /// All of it was read.
    Clean,
    /// It is more than the limit.
    TooLarge,
    /// Reading it failed.
    Failed(std::io::Error),
}

/// The part of the content that is looked at.
pub(super) struct Window<'r> {
    input: Option<&'r mut dyn Read>,
    buffer: &'r mut Vec<u8>,
    at: usize,
    filled: usize,
    /// Where the buffer begins in the content.
    base: u64,
    limit: u64,
    chunk: usize,
    end: Option<End>,
}

impl<'r> Window<'r> {
    /// A window over what `input` gives, at most `limit` bytes, read by `chunk` bytes into `buffer`.
    pub(super) fn over(
        input: &'r mut dyn Read,
        buffer: &'r mut Vec<u8>,
        limit: u64,
        chunk: usize,
    ) -> Window<'r> {
        Window {
            input: Some(input),
            buffer,
            at: 0,
            filled: 0,
            base: 0,
            limit,
            chunk: chunk.max(1),
            end: None,
        }
    }

    /// A window over the first `length` bytes of `buffer`, which are the whole content.
    pub(super) fn whole(buffer: &'r mut Vec<u8>, length: usize) -> Window<'r> {
        Window {
            input: None,
            filled: length,
            buffer,
            at: 0,
            base: 0,
            limit: u64::MAX,
            chunk: 1,
            end: Some(End::Clean),
        }
    }

    /// What is in the window.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.at..self.filled]
    }

    /// Where the window begins in the content.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Lets go of the first bytes.
    pub(super) fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.rest().len());
        self.at += bytes;
    }

    /// Will no more bytes come?
    pub(super) fn ended(&self) -> bool {
        self.end.is_some()
    }

    /// Did the content end as it should, as far as is known?
    pub(super) fn is_clean(&self) -> bool {
        !matches!(self.end, Some(End::TooLarge | End::Failed(_)))
    }

    /// How the content ended.
    pub(super) fn into_end(self) -> End {
        self.end.unwrap_or(End::Clean)
    }

    /// Reads more. `false` if there is no more.
    pub(super) fn more(&mut self) -> bool {
        let Some(input) = self.input.as_mut().filter(|_| self.end.is_none()) else {
            return false;
        };
        self.buffer.copy_within(self.at..self.filled, 0);
        self.base += self.at as u64;
        self.filled -= self.at;
        self.at = 0;
        let before = self.filled;
        let wanted = before + before.max(self.chunk);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.filled < wanted && self.end.is_none() {
            match input.read(&mut self.buffer[self.filled..wanted]) {
                Ok(0) => self.end = Some(End::Clean),
                Ok(n) => self.filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => self.end = Some(End::Failed(e)),
            }
            let excess = (self.base + self.filled as u64).saturating_sub(self.limit);
            if excess > 0 {
                self.filled = self.filled.saturating_sub(excess as usize);
                self.end = Some(End::TooLarge);
            }
        }
        self.filled > before
    }

    /// Reads until the window holds `bytes`, or all there is.
    pub(super) fn fill(&mut self, bytes: usize) {
        while self.rest().len() < bytes && self.more() {}
    }

    /// The first byte after white space, which is let go.
    pub(super) fn next(&mut self) -> Option<u8> {
        loop {
            let rest = self.rest();
            let space = event::json::skip_space(rest, 0);
            if let Some(&byte) = rest.get(space) {
                self.take(space);
                return Some(byte);
            }
            self.take(space);
            if !self.more() {
                return None;
            }
        }
    }
}
