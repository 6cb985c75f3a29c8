//! Apache Parquet: the envelope as typed columns, the original record as text, compressed with zstd.
//!
//! Columns bear the names of the envelope, with `_` for a dot; texts that an event has not are null, `resources` and
//! `flags` are lists, `labels` is JSON. Times are UTC in microseconds. The original is a string, with U+FFFD for what is
//! no UTF-8. Events are gathered until they make a row group, which bounds what is kept in memory.

use std::io::Write;
use std::sync::Arc;

use event::{Event, Normalized, Time};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

/// A row group is written when its events take so many bytes, or are so many.
const GROUP_BYTES: usize = 32 << 20;
const GROUP_EVENTS: usize = 50_000;

/// What a column holds, by the name that the envelope has for it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Column {
    Text(&'static str),
    Time(&'static str),
    Boolean(&'static str),
    Double(&'static str),
    Integer(&'static str),
    List(&'static str),
    Labels,
    Raw,
}

use Column::{Boolean, Double, Integer, Labels, List, Raw, Text, Time as Moment};

const COLUMNS: &[Column] = &[
    Text("id"),
    Text("source_id"),
    Text("source"),
    Moment("time"),
    Moment("ingest_time"),
    Text("account"),
    Text("account_name"),
    Text("region"),
    Text("category"),
    Text("service"),
    Text("action"),
    Text("outcome"),
    Text("error_code"),
    Text("error_message"),
    Text("actor"),
    Text("actor_type"),
    Text("actor_id"),
    Text("identity"),
    Text("session"),
    Text("access_key"),
    Text("issuer"),
    Boolean("mfa"),
    Text("src_ip"),
    Text("user_agent"),
    List("resources"),
    Text("function"),
    Text("function_version"),
    Text("request_id"),
    Text("shared_id"),
    Text("amends"),
    Text("invocation.status"),
    Double("invocation.duration_ms"),
    Double("invocation.billed_ms"),
    Integer("invocation.memory_mb"),
    Integer("invocation.memory_used_mb"),
    Double("invocation.init_ms"),
    Boolean("invocation.cold_start"),
    Text("invocation.error_type"),
    Labels,
    Text("origin.object"),
    Integer("origin.position"),
    Text("origin.sha256"),
    Text("integrity"),
    List("flags"),
    Boolean("late"),
    Raw,
];

/// Writes a file.
pub(super) struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    group: Vec<Event>,
    bytes: usize,
}

impl<W: Write + Send> Writer<W> {
    pub(super) fn new(out: W) -> Result<Writer<W>> {
        let schema = Arc::new(parse_message_type(&schema())?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("trailwarden ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        Ok(Writer {
            file: SerializedFileWriter::new(out, schema, Arc::new(properties))?,
            group: Vec::new(),
            bytes: 0,
        })
    }

    pub(super) fn write(&mut self, event: Event) -> Result<()> {
        // The envelope takes about as much as a short record.
        self.bytes += event.raw.len() + 1_024;
        self.group.push(event);
        if self.bytes >= GROUP_BYTES || self.group.len() >= GROUP_EVENTS {
            self.end_group()?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.end_group()?;
        self.file.close()?;
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        if self.group.is_empty() {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for column in COLUMNS {
            let Some(mut writer) = group.next_column()? else {
                break;
            };
            write_column(&mut writer, *column, &self.group)?;
            writer.close()?;
        }
        group.close()?;
        self.group.clear();
        self.bytes = 0;
        Ok(())
    }
}

fn schema() -> String {
    let mut out = "message event {\n".to_owned();
    for column in COLUMNS {
        let name = |name: &str| name.replace('.', "_");
        out.push_str(&match column {
            Text(n) => format!("optional binary {} (STRING);\n", name(n)),
            Moment(n) => format!("required int64 {} (TIMESTAMP(MICROS,true));\n", name(n)),
            Boolean(n) => format!("optional boolean {};\n", name(n)),
            Double(n) => format!("optional double {};\n", name(n)),
            Integer(n) => format!("optional int64 {};\n", name(n)),
            List(n) => format!(
                "required group {} (LIST) {{ repeated group list {{ required binary element (STRING); }} }}\n",
                name(n)
            ),
            Labels => "optional binary labels (JSON);\n".to_owned(),
            Raw => "required binary raw (STRING);\n".to_owned(),
        });
    }
    out + "}\n"
}

fn write_column(
    writer: &mut SerializedColumnWriter<'_>,
    column: Column,
    events: &[Event],
) -> Result<()> {
    match column {
        Text(name) => {
            let texts = events.iter().map(|event| text(event, name));
            let (values, levels) = optional(texts.map(|t| t.map(ByteArray::from)));
            writer
                .typed::<ByteArrayType>()
                .write_batch(&values, Some(&levels), None)?;
        }
        Labels => {
            let (values, levels) = optional(events.iter().map(|event| {
                let json = serde_json::to_string(&event.labels).ok();
                json.filter(|_| !event.labels.is_empty())
                    .map(|json| ByteArray::from(json.into_bytes()))
            }));
            writer
                .typed::<ByteArrayType>()
                .write_batch(&values, Some(&levels), None)?;
        }
        Raw => {
            let values: Vec<ByteArray> = events
                .iter()
                .map(|event| {
                    String::from_utf8_lossy(&event.raw)
                        .into_owned()
                        .into_bytes()
                })
                .map(ByteArray::from)
                .collect();
            writer
                .typed::<ByteArrayType>()
                .write_batch(&values, None, None)?;
        }
        Moment(name) => {
            let time = |event: &Event| -> Time {
                match name {
                    "time" => event.time,
                    _ => event.ingest_time,
                }
            };
            let values: Vec<i64> = events.iter().map(|event| time(event).0).collect();
            writer
                .typed::<Int64Type>()
                .write_batch(&values, None, None)?;
        }
        Boolean(name) => {
            let (values, levels) =
                optional(events.iter().map(|e| Some(text(e, name)? == *b"true")));
            writer
                .typed::<BoolType>()
                .write_batch(&values, Some(&levels), None)?;
        }
        Double(name) => {
            let (values, levels) = optional(events.iter().map(|e| number(e, name)));
            writer
                .typed::<DoubleType>()
                .write_batch(&values, Some(&levels), None)?;
        }
        Integer(name) => {
            let (values, levels) = optional(events.iter().map(|e| number(e, name)));
            writer
                .typed::<Int64Type>()
                .write_batch(&values, Some(&levels), None)?;
        }
        List(name) => {
            // Definition 1 where there is an element; repetition 1 where it goes on in the same list.
            let (mut values, mut definitions, mut repetitions) =
                (Vec::new(), Vec::new(), Vec::new());
            for event in events {
                let list = match event.normalized(name) {
                    Normalized::List(list) => list,
                    Normalized::Text(text) => vec![text],
                    Normalized::Absent => Vec::new(),
                };
                if list.is_empty() {
                    definitions.push(0);
                    repetitions.push(0);
                }
                for (i, element) in list.iter().enumerate() {
                    values.push(ByteArray::from(element.as_bytes().to_vec()));
                    definitions.push(1);
                    repetitions.push(i16::from(i > 0));
                }
            }
            writer.typed::<ByteArrayType>().write_batch(
                &values,
                Some(&definitions),
                Some(&repetitions),
            )?;
        }
    }
    Ok(())
}

/// The values that are there, and a 1 for each that is and a 0 for each that is not.
fn optional<T>(values: impl Iterator<Item = Option<T>>) -> (Vec<T>, Vec<i16>) {
    let mut levels = Vec::new();
    let values = values
        .inspect(|value| levels.push(i16::from(value.is_some())))
        .flatten()
        .collect();
    (values, levels)
}

fn text(event: &Event, name: &str) -> Option<Vec<u8>> {
    match event.normalized(name) {
        Normalized::Text(text) => Some(text.into_owned().into_bytes()),
        Normalized::Absent | Normalized::List(_) => None,
    }
}

fn number<N: std::str::FromStr>(event: &Event, name: &str) -> Option<N> {
    match event.normalized(name) {
        Normalized::Text(text) => text.parse().ok(),
        Normalized::Absent | Normalized::List(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use event::{Flag, Invocation};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Field, Row};

    fn cell(row: &Row, name: &str) -> Field {
        let found = row.get_column_iter().find(|(column, _)| *column == name);
        found.map(|(_, field)| field.clone()).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut full = Event {
            id: event::Id(7),
            source: "aws.lambda".into(),
            time: Time::parse("2026-03-02T12:00:00.000001Z").unwrap(),
            mfa: Some(false),
            resources: vec!["arn:aws:s3:::a".into(), "b".into()],
            labels: [("owner".into(), "core".into())].into(),
            invocation: Some(Box::new(Invocation {
                status: "timeout".into(),
                duration_ms: Some(3_000.5),
                memory_mb: Some(128),
                ..Invocation::default()
            })),
            raw: Bytes::from_static("{\"ü\":1}".as_bytes()),
            ..Event::default()
        };
        full.flags.set(Flag::Truncated);
        let bare = Event {
            raw: Bytes::from_static(b"\xff"),
            ..Event::default()
        };
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        // Two row groups.
        for event in [&full, &bare] {
            writer.write(event.clone()).unwrap();
        }
        writer.end_group().unwrap();
        writer.write(bare.clone()).unwrap();
        writer.finish().unwrap();

        let reader = SerializedFileReader::new(Bytes::from(file)).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 2);
        let rows: Vec<Row> = reader
            .get_row_iter(None)
            .unwrap()
            .map(|row| row.unwrap())
            .collect();
        assert_eq!(rows.len(), 3);
        let text = |t: &str| Field::Str(t.to_owned());
        assert_eq!(
            cell(&rows[0], "id"),
            text("00000000000000000000000000000007")
        );
        assert_eq!(cell(&rows[0], "source"), text("aws.lambda"));
        assert_eq!(cell(&rows[0], "time"), Field::TimestampMicros(full.time.0));
        assert_eq!(cell(&rows[0], "mfa"), Field::Bool(false));
        assert_eq!(
            cell(&rows[0], "invocation_duration_ms"),
            Field::Double(3_000.5)
        );
        assert_eq!(cell(&rows[0], "invocation_memory_mb"), Field::Long(128));
        assert_eq!(cell(&rows[0], "raw"), text("{\"ü\":1}"));
        assert_eq!(
            cell(&rows[0], "resources").to_string(),
            "[\"arn:aws:s3:::a\", \"b\"]"
        );
        assert_eq!(cell(&rows[0], "flags").to_string(), "[\"truncated\"]");
        assert!(cell(&rows[0], "labels").to_string().contains("core"));
        assert_eq!(cell(&rows[1], "account"), Field::Null);
        assert_eq!(cell(&rows[1], "mfa"), Field::Null);
        assert_eq!(cell(&rows[1], "resources").to_string(), "[]");
        assert_eq!(cell(&rows[2], "raw"), text("\u{fffd}"));
    }
}
