//! How findings are written: JSON lines, one JSON array, or a table for people.

use std::io::{BufWriter, StdoutLock, Write};
use std::time::Duration;

use detect::engine::Engine;
use event::{Event, Finding, Severity, Time};

use super::Totals;
use super::worker::BadPiece;

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A line for people
    Table,
    /// One JSON object a line
    Jsonl,
    /// One JSON array
    Json,
}

/// Renders the finding of a rule that matched an event behind what is already in `out`.
pub(crate) fn render_match(
    format: Format,
    engine: &Engine,
    rule: u32,
    event: &Event,
    out: &mut Vec<u8>,
) {
    match format {
        Format::Table => row(&engine.finding(rule, event), out),
        Format::Jsonl | Format::Json => {
            engine.write_finding(rule, event, out);
            out.push(b'\n');
        }
    }
}

/// Renders one finding behind what is already in `out`.
pub(crate) fn render(format: Format, finding: &Finding, out: &mut Vec<u8>) {
    match format {
        Format::Table => row(finding, out),
        Format::Jsonl | Format::Json => json_line(finding, out),
    }
}

/// One finding as a JSON line.
pub(crate) fn json_line(finding: &Finding, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, finding)
        .expect("a finding has only text keys and memory does not fail");
    out.push(b'\n');
}

fn row(finding: &Finding, out: &mut Vec<u8>) {
    let count = if finding.count > 1 {
        format!(" ×{}", finding.count)
    } else {
        String::new()
    };
    let who = if finding.actor.is_empty() {
        finding.function.as_str()
    } else {
        finding.actor.as_str()
    };
    let group: Vec<String> = finding
        .group
        .iter()
        .map(|(k, v)| format!("{k}={}", v.as_deref().unwrap_or("-")))
        .collect();
    let what = if group.is_empty() {
        finding.action.to_string()
    } else {
        group.join(" ")
    };
    let line = format!(
        "{:<20} {:<13} {:<52} {:<32} {:<16} {}",
        finding
            .time
            .to_string()
            .chars()
            .take(20)
            .collect::<String>(),
        finding.severity,
        cut(&format!("{}{count}", finding.title), 52),
        cut(who, 32),
        cut(&finding.src_ip, 16),
        cut(&what, 40)
    );
    out.extend_from_slice(line.trim_end().as_bytes());
    out.push(b'\n');
}

/// At most `width` characters, and none that a terminal would obey.
fn cut(text: &str, width: usize) -> String {
    let inert = event::inert::text(text);
    if inert.chars().count() <= width {
        inert.into_owned()
    } else {
        inert.chars().take(width - 1).chain(['…']).collect()
    }
}

/// Writes rendered findings to standard output, at once or sorted by time at the end.
pub(crate) struct Writer {
    out: BufWriter<StdoutLock<'static>>,
    format: Format,
    /// For a timeline: what is kept until the end.
    kept: Option<Vec<(Time, Vec<u8>)>>,
    first: bool,
}

impl Writer {
    pub(crate) fn new(format: Format, timeline: bool) -> Writer {
        Writer {
            out: BufWriter::with_capacity(64 << 10, std::io::stdout().lock()),
            format,
            kept: timeline.then(Vec::new),
            first: true,
        }
    }

    /// Lines as [`render`] made them, all of one event.
    pub(crate) fn text(&mut self, time: Time, lines: &[u8]) -> anyhow::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        match &mut self.kept {
            Some(kept) => kept.push((time, lines.to_vec())),
            None => self.put(lines)?,
        }
        Ok(())
    }

    fn put(&mut self, lines: &[u8]) -> std::io::Result<()> {
        if self.format != Format::Json {
            if self.first && self.format == Format::Table {
                let head = format!(
                    "{:<20} {:<13} {:<52} {:<32} {:<16} {}\n",
                    "TIME (UTC)", "SEVERITY", "RULE", "ACTOR", "SOURCE IP", "ACTION OR GROUP"
                );
                self.out.write_all(head.as_bytes())?;
                self.first = false;
            }
            return self.out.write_all(lines);
        }
        for line in lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            self.out
                .write_all(if self.first { b"[\n" } else { b",\n" })?;
            self.out.write_all(line)?;
            self.first = false;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let mut kept = self.kept.take().unwrap_or_default();
        kept.sort_by_key(|(time, _)| *time);
        for (_, lines) in &kept {
            self.put(lines)?;
        }
        if self.format == Format::Json {
            self.out
                .write_all(if self.first { b"[]\n" } else { b"\n]\n" })?;
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Says on standard error what could not be read.
#[expect(clippy::print_stderr, reason = "a command talks to people on stderr")]
pub(crate) fn bad(bad: &BadPiece) {
    eprintln!(
        "warning: {}: byte {}: {}: {}",
        event::inert::text(&bad.object),
        bad.offset,
        bad.reason,
        event::inert::text(&bad.message)
    );
}

/// How many rules of one severity the summary names.
const SHOWN_RULES: usize = 12;

/// The last words on standard error.
#[expect(clippy::print_stderr, reason = "a command talks to people on stderr")]
pub(crate) fn summary(totals: &Totals, rules: usize, took: Duration) {
    let seconds = took.as_secs_f64().max(0.001);
    let rate = totals.events as f64 / seconds;
    eprintln!(
        "{} events in {} files, {rules} rules, {} findings; {:.1} s, {:.0} events/s",
        totals.events, totals.files, totals.findings, seconds, rate
    );
    if totals.repeats > 0 {
        eprintln!("{} repeated events were counted once", totals.repeats);
    }
    if totals.bad > 0 {
        eprintln!(
            "{} pieces could not be read, see the warnings above",
            totals.bad
        );
    }
    if totals.uncounted > 0 {
        eprintln!("{}", totals.uncounted_words());
    }
    if !totals.by_filter.is_empty() {
        let sum: u64 = totals.by_filter.values().sum();
        eprintln!("\ntaken away by filters ({sum})");
        for (title, n) in &totals.by_filter {
            eprintln!("{n:>8}  {}", cut(title, 90));
        }
    }
    for severity in Severity::ALL.into_iter().rev() {
        let mut rules: Vec<_> = totals
            .by_rule
            .iter()
            .filter(|((s, _), _)| s.0 == severity)
            .collect();
        if rules.is_empty() {
            continue;
        }
        let sum: u64 = rules.iter().map(|(_, n)| **n).sum();
        eprintln!("\n{severity} ({sum})");
        rules.sort_by_key(|(key, n)| (std::cmp::Reverse(**n), key.1.clone()));
        for ((_, title), n) in rules.iter().take(SHOWN_RULES) {
            eprintln!("{n:>8}  {}", cut(title, 90));
        }
        if rules.len() > SHOWN_RULES {
            eprintln!("          and {} more rules", rules.len() - SHOWN_RULES);
        }
    }
}
