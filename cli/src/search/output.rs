//! Answers of `trailwarden search` as people and programs read them.
//!
//! Aggregations become rows: one for each innermost bucket, with the keys of the buckets around it, so that they can be
//! sorted, piped and opened in a spreadsheet whatever their depth. Log content is inert in all of them.

use std::io::Write;

use event::Event;
use search::aggregate::{Aggregate, Aggregated, Aggregations};
use search::explain::Explanation;
use search::export::cell;
use search::fields::FieldStats;
use serde_json::{Map, Value, json};

use super::Format;

/// An event that was found, and the same as JSON.
pub(super) struct Hit {
    pub(super) event: Event,
    pub(super) json: Value,
}

impl From<Event> for Hit {
    fn from(event: Event) -> Hit {
        let json = event.to_json();
        Hit { event, json }
    }
}

/// Events as a table or as one JSON array; the other formats are written event by event.
pub(super) fn events(format: Format, hits: &[Hit], out: &mut dyn Write) -> std::io::Result<()> {
    if format == Format::Json {
        let all: Vec<Value> = hits.iter().map(|hit| hit.json.clone()).collect();
        return writeln!(out, "{}", Value::from(all));
    }
    writeln!(
        out,
        "{:<24} {:<8} {:<28} {:<44} {:<16} ACCOUNT",
        "TIME (UTC)", "OUTCOME", "ACTION", "ACTOR", "SOURCE IP"
    )?;
    for Hit { event, .. } in hits {
        let who = if event.actor.is_empty() {
            &event.function
        } else {
            &event.actor
        };
        let fields = [(&event.action, 28), (who, 44), (&event.src_ip, 16)]
            .map(|(text, width)| format!("{:<width$}", cut(text, width)));
        let line = format!(
            "{:<24} {:<8} {} {}",
            event.time.to_string(),
            event.outcome.as_str(),
            fields.join(" "),
            event.account
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn cut(text: &str, width: usize) -> String {
    let inert = event::inert::text(text);
    if inert.chars().count() <= width {
        inert.into_owned()
    } else {
        inert.chars().take(width - 1).chain(['…']).collect()
    }
}

/// A line of counts: what the events have in common, and what was found of them.
type Row = Map<String, Value>;

/// Aggregations as rows.
pub(super) fn aggregated(
    format: Format,
    aggs: &Aggregations,
    aggregated: &Aggregated,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let mut found = Vec::new();
    for name in aggs.keys() {
        if let Some(aggregate) = aggregated.aggs.get(name) {
            rows(name, aggregate, &Row::new(), &mut found);
        }
    }
    let head: Vec<String> = found
        .first()
        .map(|row| row.keys().cloned().collect())
        .unwrap_or_default();
    table(format, &head, &found, out)?;
    if format == Format::Table {
        for words in left_out(aggregated) {
            writeln!(out, "{words}")?;
        }
    }
    Ok(())
}

/// What a table says below: that there is more, or that it is not exact.
fn left_out(aggregated: &Aggregated) -> Vec<String> {
    let mut words = Vec::new();
    for aggregate in aggregated.aggs.values() {
        match aggregate {
            Aggregate::Terms {
                field,
                other,
                missing,
                error,
                ..
            } => {
                if *other > 0 {
                    words.push(format!("{other:>10}  with other values"));
                }
                if *missing > 0 {
                    words.push(format!("{missing:>10}  without {field}"));
                }
                if *error > 0 {
                    words.push(format!(
                        "counts are approximate: up to {error} may be missing in each"
                    ));
                }
            }
            Aggregate::Cardinality {
                approximate: true, ..
            }
            | Aggregate::Percentiles {
                approximate: true, ..
            } => {
                words.push("the numbers are approximate".to_owned());
            }
            _ => {}
        }
    }
    words
}

fn rows(name: &str, aggregate: &Aggregate, around: &Row, found: &mut Vec<Row>) {
    let mut row = around.clone();
    match aggregate {
        Aggregate::Terms { buckets, .. } | Aggregate::DateHistogram { buckets, .. } => {
            for bucket in buckets {
                let mut row = around.clone();
                row.remove("count");
                row.insert(name.to_owned(), bucket.key.clone().into());
                row.insert("count".to_owned(), bucket.count.into());
                if bucket.aggs.is_empty() {
                    found.push(row);
                } else {
                    for (name, inner) in &bucket.aggs {
                        rows(name, inner, &row, found);
                    }
                }
            }
            return;
        }
        Aggregate::Cardinality { value, .. } => {
            row.insert(name.to_owned(), (*value).into());
        }
        Aggregate::Count { value } => {
            row.insert(name.to_owned(), (*value).into());
        }
        Aggregate::Percentiles {
            count,
            min,
            max,
            mean,
            values,
            ..
        } => {
            row.insert("numbers".to_owned(), (*count).into());
            row.insert("min".to_owned(), json!(min));
            for percentile in values {
                row.insert(format!("p{}", percentile.percent), json!(percentile.value));
            }
            row.insert("max".to_owned(), json!(max));
            row.insert("mean".to_owned(), json!(mean));
        }
    }
    found.push(row);
}

/// Rows in any format.
fn table(
    format: Format,
    head: &[String],
    rows: &[Row],
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let text = |value: Option<&Value>| match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => event::inert::text(text).into_owned(),
        Some(other) => other.to_string(),
    };
    match format {
        Format::Jsonl => rows
            .iter()
            .try_for_each(|row| writeln!(out, "{}", Value::from(row.clone()))),
        Format::Json => {
            let all: Vec<Value> = rows.iter().map(|row| Value::from(row.clone())).collect();
            writeln!(out, "{}", Value::from(all))
        }
        Format::Csv | Format::Parquet => {
            let names: Vec<String> = head.iter().map(|name| cell(name)).collect();
            write!(out, "{}\r\n", names.join(","))?;
            for row in rows {
                let cells: Vec<String> = head
                    .iter()
                    .map(|name| match row.get(name) {
                        Some(Value::Number(number)) => number.to_string(),
                        other => cell(&text(other)),
                    })
                    .collect();
                write!(out, "{}\r\n", cells.join(","))?;
            }
            Ok(())
        }
        Format::Table => {
            // Numbers stand to the right, and the count before all else.
            let order = || {
                let count = head.iter().filter(|name| *name == "count");
                count.chain(head.iter().filter(|name| *name != "count"))
            };
            let widths: Vec<usize> = order()
                .map(|name| {
                    let cells = rows.iter().map(|row| text(row.get(name)).chars().count());
                    cells
                        .chain([name.chars().count(), 10])
                        .max()
                        .unwrap_or(10)
                        .min(60)
                })
                .collect();
            let line = |cells: Vec<(String, bool)>| {
                let padded: Vec<String> = cells
                    .into_iter()
                    .zip(&widths)
                    .map(|((text, right), width)| match right {
                        true => format!("{text:>width$}"),
                        false => format!("{text:<width$}"),
                    })
                    .collect();
                padded.join("  ").trim_end().to_owned()
            };
            let is_number = |name: &str| {
                rows.iter()
                    .any(|row| matches!(row.get(name), Some(Value::Number(_))))
            };
            if head.len() > 2 {
                let names = order().map(|name| (name.to_uppercase(), is_number(name)));
                writeln!(out, "{}", line(names.collect()))?;
            }
            for row in rows {
                let cells = order().map(|name| (text(row.get(name)), is_number(name)));
                writeln!(out, "{}", line(cells.collect()))?;
            }
            Ok(())
        }
    }
}

/// Fields and their values.
pub(super) fn fields(
    format: Format,
    stats: &FieldStats,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    if format == Format::Json {
        return writeln!(out, "{}", json!(stats));
    }
    let rows: Vec<Row> = stats
        .fields
        .iter()
        .map(|field| {
            let top: Vec<String> = field
                .top
                .iter()
                .map(|t| format!("{} ({})", cut(&t.value, 40), t.count))
                .collect();
            let mut row = Row::new();
            row.insert("count".to_owned(), field.events.into());
            row.insert("field".to_owned(), field.field.clone().into());
            row.insert("distinct".to_owned(), field.distinct.into());
            row.insert(
                "top".to_owned(),
                match format {
                    Format::Jsonl => json!(field.top),
                    _ => top[..top.len().min(3)].join(", ").into(),
                },
            );
            row
        })
        .collect();
    let head = ["count", "field", "distinct", "top"].map(str::to_owned);
    table(format, &head, &rows, out)?;
    if format == Format::Table {
        let of = match stats.sampled {
            true => format!("a sample of {} of {}", stats.read, stats.matched),
            false => stats.matched.to_string(),
        };
        writeln!(out, "counts are about {of} events")?;
    }
    Ok(())
}

/// How a query is understood.
pub(super) fn explanation(
    format: Format,
    explained: &Explanation,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    if format != Format::Table {
        return writeln!(out, "{}", json!(explained));
    }
    writeln!(out, "{}\n", event::inert::text(&explained.query))?;
    for clause in &explained.clauses {
        writeln!(
            out,
            "{}\n    {}: {}",
            event::inert::text(&clause.clause),
            clause.access,
            clause.words
        )?;
    }
    writeln!(
        out,
        "\n{} of {} splits would be asked, with {} events",
        explained.splits, explained.of_splits, explained.events
    )?;
    explained
        .notes
        .iter()
        .try_for_each(|words| writeln!(out, "note: {}", event::inert::text(words)))
}
