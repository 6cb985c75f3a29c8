//! Events written out for other programs: JSON lines, CSV, Parquet, one after the other as they come.
//!
//! [`Writer`] takes events from [`crate::Nodes::walk`] and writes them to anything; it keeps at most one row group of
//! Parquet, else one event. A file that was not ended by [`Writer::finish`] lacks its end and must not be taken for a
//! whole one: Parquet without its footer cannot be read at all, and whoever sends the others says so in the transport.

mod csv;
mod parquet;

use std::io::Write;

use event::Event;

use crate::request::SearchError;

pub use csv::cell;

/// The form of what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The whole event as one JSON object a line.
    Jsonl,
    /// The common fields as comma-separated values, safe to open in a spreadsheet.
    Csv,
    /// The envelope as typed columns and the original as text, for analytics.
    Parquet,
}

impl Format {
    /// The format of this name: `jsonl`, `csv` or `parquet`.
    pub fn named(name: &str) -> Option<Format> {
        match name {
            "jsonl" => Some(Format::Jsonl),
            "csv" => Some(Format::Csv),
            "parquet" => Some(Format::Parquet),
            _ => None,
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Jsonl => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The ending of a file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
            Format::Parquet => "parquet",
        }
    }
}

/// Why an export did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The events could not all be had.
    #[error("cannot read all events")]
    Search(#[from] SearchError),
    /// The receiver does not take it.
    #[error("cannot write the export")]
    Write(#[from] std::io::Error),
    /// Parquet cannot be written; also where its receiver does not take it.
    #[error("cannot write Parquet")]
    Parquet(#[from] ::parquet::errors::ParquetError),
}

/// Writes events.
pub struct Writer<W: Write + Send>(Kind<W>);

enum Kind<W: Write + Send> {
    Jsonl(W),
    Csv(W),
    Parquet(Box<parquet::Writer<W>>),
}

impl<W: Write + Send> Writer<W> {
    /// Begins to write.
    pub fn new(format: Format, mut out: W) -> Result<Writer<W>, ExportError> {
        Ok(Writer(match format {
            Format::Jsonl => Kind::Jsonl(out),
            Format::Csv => {
                csv::head(&mut out)?;
                Kind::Csv(out)
            }
            Format::Parquet => Kind::Parquet(Box::new(parquet::Writer::new(out)?)),
        }))
    }

    /// Writes one event.
    pub fn write(&mut self, event: Event) -> Result<(), ExportError> {
        match &mut self.0 {
            Kind::Jsonl(out) => writeln!(out, "{}", event.to_json())?,
            Kind::Csv(out) => csv::line(out, &event)?,
            Kind::Parquet(writer) => writer.write(event)?,
        }
        Ok(())
    }

    /// Ends the file.
    pub fn finish(self) -> Result<(), ExportError> {
        match self.0 {
            Kind::Jsonl(mut out) | Kind::Csv(mut out) => out.flush()?,
            Kind::Parquet(writer) => writer.finish()?,
        }
        Ok(())
    }
}
