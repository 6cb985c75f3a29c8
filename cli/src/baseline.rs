//! `trailwarden baseline`: scores a metric series in a CSV file with the baseline model.
//!
//! [`run`] reads row by row and writes row by row, so a file may be larger than memory and a pipe is answered while it
//! is still written; a row's score knows nothing of later rows. `detect::baseline::Metric` is the model; this file
//! reads times and numbers, says what is wrong with them and where, and shows the worst rows on a terminal.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::Context;
use csv::{ByteRecord, ReaderBuilder, WriterBuilder};
use detect::baseline::{Metric, Score};
use event::{Time, inert};

use crate::exit::{Outcome, Usage};

/// Scores a metric series (timestamp,value) row by row with the baseline model
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden baseline latency.csv                         the worst rows, as a table
  trailwarden baseline latency.csv --format csv > out.csv  timestamp,value,anomaly_score, one row per input row
  aws-export | trailwarden baseline -                      from standard input

The first line names the columns: one is `timestamp` (or time, date, datetime, ts), one is `value`; of two columns
with other names the first is the time. Times are RFC 3339, `2014-04-01 00:00:00` (UTC) or seconds to nanoseconds
since 1970. A score is between 0 and 1; from 0.5 on a row is worth a look. No row's score depends on later rows.")]
pub(crate) struct BaselineArgs {
    /// The file; `-` for standard input
    file: PathBuf,
    /// How to write scores; a table of the worst rows on a terminal and CSV in a pipe, if not said
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The worst rows, for people
    Table,
    /// Every row: timestamp,value,anomaly_score
    Csv,
}

/// A line longer than this is no row of numbers.
const LONGEST_LINE: usize = 64 << 10;

/// Clocks that are set back (the end of summer time in local times) step back by at most this, in microseconds.
const STEP_BACK: i64 = 2 * 3_600_000_000;

/// How many rows a table shows.
const WORST: usize = 10;

/// A row as it was written, and its score.
struct Row {
    line: u64,
    time: String,
    value: String,
    score: Score,
}

/// What was seen of the whole file.
#[derive(Default)]
struct Totals {
    rows: u64,
    worth_a_look: u64,
    /// The first line whose time was before the one above, and how many there were.
    back: Option<u64>,
    backs: u64,
}

/// Runs the command.
pub(crate) fn run(args: &BaselineArgs) -> anyhow::Result<Outcome> {
    let terminal = std::io::stdout().is_terminal();
    let format = args
        .format
        .unwrap_or(if terminal { Format::Table } else { Format::Csv });
    let name = args.file.display().to_string();
    let input: Box<dyn Read> = if name == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let cannot = || format!("cannot read `{name}`");
        let file = File::open(&args.file).with_context(cannot).context(Usage)?;
        let folder = file.metadata().with_context(cannot)?.is_dir();
        anyhow::ensure!(
            !folder,
            usage(format!("`{name}` is a folder; give one CSV file"))
        );
        Box::new(file)
    };
    let out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = match format {
        Format::Csv => write_csv(&name, input, out),
        Format::Table => write_table(&name, input, out),
    };
    match written {
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(Outcome::Clean),
        other => other.map(|()| Outcome::Clean),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The error of the file itself; what is wrong with its form is invalid data.
fn io_error(error: csv::Error) -> std::io::Error {
    let message = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        _ => std::io::Error::new(std::io::ErrorKind::InvalidData, message),
    }
}

fn usage(message: String) -> anyhow::Error {
    anyhow::anyhow!(message).context(Usage)
}

fn write_csv(name: &str, input: impl Read, out: impl Write) -> anyhow::Result<()> {
    let mut out = WriterBuilder::new().from_writer(out);
    out.write_record(["timestamp", "value", "anomaly_score"])
        .map_err(io_error)?;
    let scored = score(name, input, |row| {
        let score = format!("{:.6}", row.score.score);
        out.write_record([&row.time, &row.value, &score])
            .map_err(io_error)
    });
    // The rows before a bad one are scored; they are written whatever became of the rest.
    out.flush()?;
    warn_of_steps_back(name, &scored?);
    Ok(())
}

fn write_table(name: &str, input: impl Read, mut out: impl Write) -> anyhow::Result<()> {
    let mut worst: Vec<Row> = Vec::with_capacity(WORST + 1);
    let totals = score(name, input, |row| {
        let place = worst.partition_point(|w| w.score.score >= row.score.score);
        if place < WORST && row.score.score > 0.0 {
            worst.insert(place, row);
            worst.truncate(WORST);
        }
        Ok(())
    })?;
    warn_of_steps_back(name, &totals);
    writeln!(
        out,
        "{:>7}  {:<26}  {:>14}  {:>14}  {:>12}  SCORE",
        "LINE", "TIME", "VALUE", "EXPECTED", "USUALLY +-"
    )?;
    for row in &worst {
        let Score {
            score,
            expected,
            usual,
            ..
        } = row.score;
        writeln!(
            out,
            "{:>7}  {:<26}  {:>14}  {:>14}  {:>12}  {score:.3}",
            row.line,
            row.time,
            row.value,
            number(expected),
            number(usual)
        )?;
    }
    writeln!(
        out,
        "\n{} rows, {} worth a look (score 0.5 or more)",
        totals.rows, totals.worth_a_look
    )?;
    writeln!(out, "hint: `--format csv` writes the score of every row")?;
    out.flush()?;
    Ok(())
}

/// Four significant digits.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let whole = value.abs().log10().floor();
    if !(-4.0..9.0).contains(&whole) {
        return format!("{value:.3e}");
    }
    let digits = (3.0 - whole).clamp(0.0, 8.0) as usize;
    format!("{value:.digits$}")
}

#[expect(clippy::print_stderr, reason = "a warning beside the output")]
fn warn_of_steps_back(name: &str, totals: &Totals) {
    if let Some(line) = totals.back {
        eprintln!(
            "warning: in `{name}` time steps back {} times, first in line {line}; rows are scored in the order of the file",
            totals.backs
        );
    }
}

/// Scores every row in turn.
fn score(
    name: &str,
    input: impl Read,
    mut each: impl FnMut(Row) -> std::io::Result<()>,
) -> anyhow::Result<Totals> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(Lines::new(input));
    let mut record = ByteRecord::new();
    let bad = |error: csv::Error| {
        let error = io_error(error);
        // What is wrong with the file's form is the user's to mend; a disk that fails is not.
        let form = error.kind() == std::io::ErrorKind::InvalidData;
        let error = anyhow::anyhow!(error).context(format!("cannot read `{name}`"));
        if form { error.context(Usage) } else { error }
    };
    if !reader.read_byte_record(&mut record).map_err(bad)? {
        return Err(usage(format!(
            "`{name}` is empty\n\nhint: the first line is `timestamp,value`, and every line after it a row"
        )));
    }
    let columns = Columns::find(&record).map_err(|problem| at(name, 1, &problem))?;
    let (mut metric, mut totals, mut latest) = (Metric::new(), Totals::default(), Time::MIN);
    while reader.read_byte_record(&mut record).map_err(bad)? {
        let line = record.position().map_or(0, csv::Position::line);
        let (time_text, time) = columns.time(&record).map_err(|p| at(name, line, &p))?;
        let (value_text, value) = columns.value(&record).map_err(|p| at(name, line, &p))?;
        if time < latest {
            if latest.0 - time.0 > STEP_BACK {
                let problem = format!(
                    "`{time_text}` is before the row above\n\nhint: rows must be in the order of time; `(head -1 {name}; tail -n +2 {name} | sort) > sorted.csv` sorts times that are written year first"
                );
                return Err(at(name, line, &problem));
            }
            totals.back.get_or_insert(line);
            totals.backs += 1;
        }
        latest = latest.max(time);
        let score = metric.push(time, value);
        totals.rows += 1;
        totals.worth_a_look += u64::from(score.score >= 0.5);
        each(Row {
            line,
            time: time_text,
            value: value_text,
            score,
        })?;
    }
    if totals.rows == 0 {
        return Err(usage(format!("`{name}` has a header and no rows")));
    }
    Ok(totals)
}

/// An error in a line of the file.
fn at(name: &str, line: u64, problem: &str) -> anyhow::Error {
    usage(format!("`{name}`, line {line}: {problem}"))
}

/// Which column is which.
struct Columns {
    time: usize,
    value: usize,
}

impl Columns {
    fn find(header: &ByteRecord) -> Result<Columns, String> {
        let names: Vec<String> = header.iter().map(lower).collect();
        if names.first().is_some_and(|first| time_of(first).is_some()) {
            return Err(
                "there is no header\n\nhint: the first line must name the columns: `timestamp,value`"
                    .to_owned(),
            );
        }
        let named = |options: &[&str]| names.iter().position(|n| options.contains(&n.as_str()));
        let time = named(&["timestamp", "time", "date", "datetime", "ts"]);
        match (time, named(&["value"])) {
            (Some(time), Some(value)) => Ok(Columns { time, value }),
            _ if names.len() == 2 => Ok(Columns { time: 0, value: 1 }),
            _ => Err(format!(
                "no columns `timestamp` and `value` among {}\n\nhint: name them so, or give a file of two columns",
                names
                    .iter()
                    .map(|n| format!("`{n}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
        }
    }

    fn time(&self, record: &ByteRecord) -> Result<(String, Time), String> {
        let text = field(record, self.time)?;
        match time_of(&text) {
            Some(time) => Ok((text, time)),
            None => Err(format!(
                "`{}` is not a time\n\nhint: write times as 2014-04-01T00:00:00Z, 2014-04-01 00:00:00 or seconds since 1970",
                shown(&text)
            )),
        }
    }

    fn value(&self, record: &ByteRecord) -> Result<(String, f64), String> {
        let text = field(record, self.value)?;
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok((text, value)),
            Ok(_) => Err(format!(
                "the value `{}` is not a finite number\n\nhint: leave rows without a value out",
                shown(&text)
            )),
            Err(_) if text.is_empty() => {
                Err("there is no value\n\nhint: leave rows without a value out".to_owned())
            }
            Err(_) => Err(format!("the value `{}` is not a number", shown(&text))),
        }
    }
}

fn lower(field: &[u8]) -> String {
    // A byte order mark is no part of a name.
    let text = String::from_utf8_lossy(field);
    shown(text.trim_start_matches('\u{feff}')).to_lowercase()
}

fn field(record: &ByteRecord, column: usize) -> Result<String, String> {
    match record.get(column) {
        Some(field) => Ok(String::from_utf8_lossy(field).into_owned()),
        None => Err(format!(
            "there are {} columns where {} are needed",
            record.len(),
            column + 1
        )),
    }
}

/// A text of the file, short and harmless.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    inert::text(&short).into_owned()
}

/// A time in the forms that exports have.
fn time_of(text: &str) -> Option<Time> {
    if let Ok(time) = Time::parse(text) {
        return Some(time);
    }
    if let Ok(number) = text.parse::<f64>() {
        return Time::from_epoch(number);
    }
    // 2014/04/01 00:00 and the like: other signs, or no seconds.
    let dashed = text.replacen('/', "-", 2);
    Time::parse(&dashed)
        .or_else(|_| Time::parse(&format!("{dashed}:00")))
        .ok()
}

/// Reads on, and refuses lines that are longer than rows can be: a file without line ends must not fill the memory.
struct Lines<R> {
    input: R,
    length: usize,
}

impl<R> Lines<R> {
    fn new(input: R) -> Lines<R> {
        Lines { input, length: 0 }
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let many = self.input.read(buffer)?;
        for byte in &buffer[..many] {
            self.length = if matches!(byte, b'\n' | b'\r') {
                0
            } else {
                self.length + 1
            };
            if self.length > LONGEST_LINE {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::InvalidData,
                    "a line is longer than 64 KiB, so this is no file of rows",
                ));
            }
        }
        Ok(many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_many_forms() {
        let check = |text: &str, expected: Option<&str>| {
            let found = time_of(text).map(|t| t.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        let first = Some("2014-04-01T00:00:00Z");
        check("2014-04-01 00:00:00", first);
        check("2014-04-01T00:00:00Z", first);
        check("2014-04-01T02:00:00+02:00", first);
        check("2014-04-01 00:00", first);
        check("2014/04/01 00:00:00", first);
        check("2014-04-01", first);
        check("1396310400", first);
        check("1396310400000", first);
        check("1396310400.0", first);
        check("04/01/2014", None);
        check("yesterday", None);
        check("1", None);
        check("", None);
    }

    #[test]
    fn numbers_are_short() {
        let check = |value: f64, expected: &str| assert_eq!(number(value), expected);
        check(0.0, "0");
        check(12_345.678, "12346");
        check(1.234_567, "1.235");
        check(0.001_234_6, "0.001235");
        check(1e12, "1.000e12");
    }
}
