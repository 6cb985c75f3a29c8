//! `/api/v1/search/export`: everything that matches, as a stream of JSON lines, CSV or Parquet.
//!
//! A thread of its own walks the index and writes into pieces of some 64 KiB, of which few wait for the client at a
//! time: memory is bounded, whatever matches. An export that cannot be ended breaks the connection off, so that a part
//! is never taken for the whole. Few run at once, and a client that takes nothing for a minute is given up.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::search::Request;
use ::search::export::{ExportError, Format, Writer};
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use event::Outcome;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::search::{busy, details, request, searchable};
use crate::app::{Client, Shared};
use crate::error::{ApiError, searching};
use crate::params::Params;

/// How large a piece is.
const PIECE: usize = 64 * 1024;
/// How many pieces wait for the client.
const PIECES: usize = 8;
/// How long a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// `GET /api/v1/search/export`
pub(crate) async fn get(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Response, ApiError> {
    params.only(&["q", "from", "to", "order", "format", "limit"])?;
    let format = match params.text("format") {
        None => Some(Format::Jsonl),
        Some(name) => Format::named(name),
    };
    let format = format
        .ok_or_else(|| ApiError::bad("bad_parameter", "`format` is jsonl, csv or parquet"))?;
    let most = match params.text("limit") {
        Some(_) => Some(params.number("limit", 1..=u64::MAX, 1)?),
        None => None,
    };
    let mut asked = Params::clone(&params);
    asked.remove("limit");
    let request = request(&asked, shared.now())?;
    searchable(&request)?;
    // A mistake is told before the stream begins.
    ::search::query::parse(&request.query).map_err(::search::SearchError::from)?;
    let permit = shared
        .exports
        .clone()
        .try_acquire_owned()
        .map_err(|_| busy())?;
    let (sender, receiver) = mpsc::channel(PIECES);
    // Set when all was sent: a stream that ends before is no whole one.
    let whole = Arc::new(AtomicBool::new(false));
    let name = format!("events.{}", format.extension());
    let mut pieces = Pieces {
        sender,
        handle: Handle::current(),
        piece: Vec::with_capacity(PIECE),
    };
    let (inside, done) = (shared.clone(), whole.clone());
    tokio::spawn(searching(move || {
        let _permit = permit;
        let written = write(&inside, &request, most, format, &mut pieces, &done);
        let outcome = match &written {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failure,
        };
        let mut details = details(&request);
        details["format"] = format.extension().into();
        details["events"] = written.as_ref().ok().copied().into();
        inside.audit(&client, "Export", outcome, String::new(), details);
        // Only now the stream ends: whoever has all of it is recorded.
        drop(pieces);
        if let Err(error) = written {
            let cause: &dyn std::error::Error = &error;
            let source = cause.source().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, source, "an export broke off");
        }
    }));
    let stream = futures_util::stream::unfold(Some(receiver), move |receiver| {
        let whole = whole.clone();
        async move {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Some(piece) => Some((Ok(piece), Some(receiver))),
                None if whole.load(Ordering::SeqCst) => None,
                None => Some((Err(std::io::Error::other("the export broke off")), None)),
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, format.media_type().to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

fn write(
    shared: &Shared,
    request: &Request,
    most: Option<u64>,
    format: Format,
    pieces: &mut Pieces,
    done: &AtomicBool,
) -> Result<u64, ExportError> {
    let mut writer = Writer::new(format, &mut *pieces)?;
    let walked = shared.app.searcher.walk(request, most, |mut event| {
        if shared.app.stop.is_stopped() {
            return Err(std::io::Error::other("the service stops").into());
        }
        (shared.app.integrity)(&mut event);
        writer.write(event)
    })?;
    writer.finish()?;
    pieces.send()?;
    done.store(true, Ordering::SeqCst);
    Ok(walked)
}

/// Takes what is written and hands it to the client piece by piece.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    handle: Handle,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> std::io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::replace(
            &mut self.piece,
            Vec::with_capacity(PIECE),
        ));
        let sent = self
            .handle
            .block_on(self.sender.send_timeout(piece, PATIENCE));
        sent.map_err(|_| std::io::Error::other("the client takes nothing any more"))
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
