//! `trailwarden hunt`: rules over folders of logs, without any service.
//!
//! Workers decode one file each, normalize, match and render; [`run`] takes their chunks in the order of the
//! input, drops repeated events and writes. So the output is the same whatever the number of workers, and
//! memory is bounded: a few chunks a worker, and 16 bytes an event to know repeats ([`seen`]). Matches that
//! correlations count are collected and evaluated in event time when the input has ended.

mod output;
mod seen;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use ::search::offline::Parallel;
use anyhow::Context;
use detect::engine::Engine;
use detect::meter::Counters;
use detect::tracker;
use detect::window::{OFFLINE_MEMORY, Offline};
use event::{Event, Finding, Flag, Severity, Time};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::exit::{Outcome, Usage};
use crate::rules::RuleArgs;
pub(crate) use output::Format;
use seen::{Known, Seen};
pub(crate) use worker::Setting;
use worker::{Chunk, Job};

/// Runs rules over files and folders of logs and tells what they find
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden hunt ./logs                                   the shipped rules, as a table
  trailwarden hunt ./logs --rules ./sigma/rules/cloud/aws   rules of your own
  trailwarden hunt ./logs --format jsonl > findings.jsonl   one JSON object a finding
  trailwarden hunt ./logs --from -7d --timeline             the last week, in order of time

Reads CloudTrail files, JSON arrays and lines, CloudWatch Logs payloads and Lambda logs, plain or gzip;
they are told apart by their content. Exit code: 0 nothing found, 1 findings, 2 usage, 3 failed.")]
pub(crate) struct HuntArgs {
    /// Files or folders (read recursively)
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    rules: RuleArgs,
    /// Only events at or after this time (RFC 3339, or `-7d`, `-12h`, `now`)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// How to write findings; a table on a terminal and JSON lines in a pipe, if not said
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Sort findings by time instead of writing them as they are found
    #[arg(long)]
    timeline: bool,
    /// Put all events into a new index here, for `trailwarden search --data DIR`
    #[arg(long, value_name = "DIR")]
    index: Option<PathBuf>,
    /// An inventory of accounts and functions: their events get its names and labels
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// How many files to read at the same time; as many as there are processors, if not said
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// What a run has seen.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) events: u64,
    repeats: u64,
    conflicts: u64,
    pub(crate) findings: u64,
    bytes: u64,
    files: u64,
    bad: u64,
    /// Events that baselines do not know of, for want of room.
    pub(crate) uncounted: u64,
    by_rule: BTreeMap<(std::cmp::Reverse<Severity>, String), u64>,
    /// What each filter took away, by its title.
    pub(crate) by_filter: BTreeMap<String, u64>,
    /// The time of the earliest event.
    pub(crate) first: Option<Time>,
    /// The time of the latest event.
    pub(crate) last: Option<Time>,
    /// The days of which there are events, as numbers since 1970.
    pub(crate) days: BTreeSet<i64>,
    /// The day of the event before.
    day: Option<i64>,
}

impl Totals {
    /// That baselines do not know of all events.
    pub(crate) fn uncounted_words(&self) -> String {
        format!(
            "{} events were not counted for baselines: too many functions and groups for so much time; look at less at once, with --from and --to",
            self.uncounted
        )
    }

    /// Takes note of an event.
    pub(crate) fn see(&mut self, time: Time) {
        self.events += 1;
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = self.last.max(Some(time));
        let day = time.0.div_euclid(86_400_000_000);
        if self.day != Some(day) {
            self.day = Some(day);
            self.days.insert(day);
        }
    }
}

/// Takes what was found: findings, rendered, of one event with its time, or, where no timeline was asked for, of several.
type Say<'a> = &'a mut dyn FnMut(Time, &[u8]) -> anyhow::Result<()>;

/// Runs the command.
pub(crate) fn run(args: &HuntArgs) -> anyhow::Result<Outcome> {
    let now = crate::clock::now();
    let (from, to) = limits(args.from.as_deref(), args.to.as_deref(), now)?;
    let set = args.rules.load()?;
    let inventory = crate::inventory::asked(args.inventory.as_deref())?;
    let files = files(&args.paths).context(Usage)?;
    let stdout_is_terminal = std::io::stdout().is_terminal();
    let format = args.format.unwrap_or(if stdout_is_terminal {
        Format::Table
    } else {
        Format::Jsonl
    });
    let setting = Arc::new(Setting {
        engine: Engine::new(&set),
        correlations: crate::correlations::of(&set),
        baselines: crate::correlations::baselines(&set),
        format,
        timeline: args.timeline,
        from,
        to,
        now,
        keep: args.index.is_some(),
        inventory,
    });
    let progress = progress(&files, stdout_is_terminal && format == Format::Table);
    let started = std::time::Instant::now();
    let threads = threads(args.threads);
    let create = |dir| Parallel::create(dir, &::search::Config::default(), threads).context(Usage);
    let index = args.index.as_deref().map(create).transpose()?;
    let mut writer = output::Writer::new(format, args.timeline);
    let mut say = |time: Time, lines: &[u8]| writer.text(time, lines);
    let (totals, result) = hunt(&setting, files, threads, index, &mut say, &progress);
    let result = result.and_then(|()| writer.finish());
    progress.finish_and_clear();
    match result {
        // The reader of a pipe has seen enough.
        Err(error)
            if error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) => {}
        other => other?,
    }
    output::summary(
        &totals,
        set.rules.len() + set.correlations.len() + set.baselines.len(),
        started.elapsed(),
    );
    Ok(if totals.findings > 0 {
        Outcome::Found
    } else {
        Outcome::Clean
    })
}

/// The times from and to which events are asked for.
pub(crate) fn limits(
    from: Option<&str>,
    to: Option<&str>,
    now: Time,
) -> anyhow::Result<(Option<Time>, Option<Time>)> {
    let limit = |text: Option<&str>| {
        text.map(|t| crate::clock::parse(t, now))
            .transpose()
            .context(Usage)
    };
    let (from, to) = (limit(from)?, limit(to)?);
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(anyhow::anyhow!("--from {from} is not before --to {to}").context(Usage));
    }
    Ok((from, to))
}

fn threads(asked: Option<usize>) -> usize {
    asked
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .clamp(1, 64)
}

/// Runs rules over files and folders and hands on every finding. The setting's format is JSON lines.
pub(crate) fn over(
    setting: Setting,
    paths: &[PathBuf],
    each: &mut dyn FnMut(Finding) -> anyhow::Result<()>,
) -> anyhow::Result<Totals> {
    let files = files(paths).context(Usage)?;
    let progress = progress(&files, false);
    let mut say = |_, lines: &[u8]| {
        let lines = lines.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        for line in lines {
            each(serde_json::from_slice(line)?)?;
        }
        Ok(())
    };
    let setting = Arc::new(setting);
    let (totals, result) = hunt(&setting, files, threads(None), None, &mut say, &progress);
    progress.finish_and_clear();
    result.map(|()| totals)
}

/// The files below the paths, in order; each with its size.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        collect(path, &mut files)?;
        anyhow::ensure!(
            files.len() > before,
            "there is no file in `{}`",
            path.display()
        );
    }
    Ok(files)
}

fn collect(path: &Path, files: &mut Vec<(PathBuf, u64)>) -> anyhow::Result<()> {
    let what = || format!("cannot read `{}`", path.display());
    let metadata = std::fs::metadata(path).with_context(what)?;
    if metadata.is_dir() {
        let mut entries = std::fs::read_dir(path)
            .with_context(what)?
            .map(|e| e.map(|e| e.path()))
            .collect::<Result<Vec<_>, _>>()
            .with_context(what)?;
        entries.sort();
        return entries
            .iter()
            .filter(|e| !is_furniture(e))
            .try_for_each(|entry| collect(entry, files));
    }
    files.push((path.to_owned(), metadata.len()));
    Ok(())
}

/// What lies in folders of logs and is none: hidden files, licences, read-mes.
fn is_furniture(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || name.starts_with("LICENSE") || name.starts_with("README")
}

fn progress(files: &[(PathBuf, u64)], shares_terminal: bool) -> ProgressBar {
    let total = files.iter().map(|(_, size)| size).sum();
    // Findings scroll on the same terminal: a bar would be drawn through them.
    let target = if shares_terminal {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(5)
    };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let style = ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {msg} {eta} left",
    );
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn hunt(
    setting: &Arc<Setting>,
    files: Vec<(PathBuf, u64)>,
    threads: usize,
    index: Option<Parallel>,
    say: Say<'_>,
    progress: &ProgressBar,
) -> (Totals, anyhow::Result<()>) {
    // The order of files is the order of receivers; a worker that is far ahead waits for room in its own channel.
    let (receivers_in, receivers): (SyncSender<Receiver<Chunk>>, _) = sync_channel(2 * threads);
    let queue = Arc::new(Mutex::new((files.into_iter(), receivers_in)));
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (queue, setting) = (Arc::clone(&queue), Arc::clone(setting));
            std::thread::spawn(move || {
                let mut worker = worker::Worker::new(&setting);
                loop {
                    let (job, chunks) = {
                        let Ok(mut queue) = queue.lock() else { return };
                        let Some((path, size)) = queue.0.next() else {
                            return;
                        };
                        let (sender, receiver) = sync_channel(worker::CHUNKS);
                        if queue.1.send(receiver).is_err() {
                            return;
                        }
                        (Job { path, size }, sender)
                    };
                    worker.file(&setting, &job, &chunks);
                }
            })
        })
        .collect();
    drop(queue);
    let mut totals = Totals::default();
    let result = collect_chunks(setting, receivers, index, say, progress, &mut totals);
    for worker in workers {
        if worker.join().is_err() {
            return (
                totals,
                Err(anyhow::anyhow!(
                    "a worker failed; this is a defect of trailwarden"
                )),
            );
        }
    }
    (totals, result)
}

fn collect_chunks(
    setting: &Setting,
    receivers: Receiver<Receiver<Chunk>>,
    mut index: Option<Parallel>,
    say: Say<'_>,
    progress: &ProgressBar,
    totals: &mut Totals,
) -> anyhow::Result<()> {
    let mut seen = Seen::new();
    let mut correlator = Offline::new(setting.correlations.clone(), OFFLINE_MEMORY);
    let mut counters = Counters::of_whole();
    for receiver in receivers {
        for chunk in receiver {
            let sinks = Sinks {
                seen: &mut seen,
                correlator: &mut correlator,
                counters: &mut counters,
                say: &mut *say,
                index: index.as_mut(),
            };
            take(setting, chunk, sinks, totals)?;
        }
        totals.files += 1;
        progress.set_message(format!(
            "{} events, {} findings",
            totals.events, totals.findings
        ));
        progress.set_position(totals.bytes);
    }
    totals.events = seen.len() + totals.conflicts;
    let mut failed = Ok(());
    correlator.finish(|finding| {
        count(totals, finding.severity, &finding.title, 1);
        if failed.is_ok() {
            failed = tell(setting.format, &finding, say);
        }
    })?;
    failed?;
    totals.uncounted = counters.uncounted();
    for finding in tracker::offline(counters, &setting.baselines) {
        count(totals, finding.severity, &finding.title, 1);
        tell(setting.format, &finding, say)?;
    }
    if let Some(index) = index {
        index.finish()?;
    }
    Ok(())
}

fn tell(format: Format, finding: &Finding, say: Say<'_>) -> anyhow::Result<()> {
    let mut line = Vec::new();
    output::render(format, finding, &mut line);
    say(finding.time, &line)
}

fn count(totals: &mut Totals, severity: Severity, title: &str, findings: u64) {
    totals.findings += findings;
    let key = (std::cmp::Reverse(severity), title.to_owned());
    *totals.by_rule.entry(key).or_default() += findings;
}

/// Where the events of a chunk go.
struct Sinks<'a> {
    seen: &'a mut Seen,
    correlator: &'a mut Offline,
    counters: &'a mut Counters,
    say: Say<'a>,
    index: Option<&'a mut Parallel>,
}

fn take(
    setting: &Setting,
    chunk: Chunk,
    sinks: Sinks<'_>,
    totals: &mut Totals,
) -> anyhow::Result<()> {
    let Sinks {
        seen,
        correlator,
        counters,
        say,
        mut index,
    } = sinks;
    let mut readings = chunk.readings.into_iter().peekable();
    let mut kept = chunk.kept.into_iter();
    let mut by_rule: BTreeMap<u32, u64> = BTreeMap::new();
    totals.bytes += chunk.bytes;
    totals.bad += chunk.bad.len() as u64;
    for bad in &chunk.bad {
        output::bad(bad);
    }
    seen.touch(chunk.events.iter().map(|e| e.id));
    let (mut text, mut rule, mut cut) = (0, 0, 0);
    let mut matched = chunk.matches.into_iter().peekable();
    // Findings of events in a row are handed on together, but for a timeline.
    let mut unsaid = 0..0;
    for (number, event) in chunk.events.iter().enumerate() {
        let (from, first, first_cut) = (text, rule, cut);
        (text, rule, cut) = (event.text_end, event.rules_end, event.cut_end);
        totals.see(event.time);
        let known = seen.insert(event.id, event.content);
        let mut own = Vec::new();
        while let Some((_, m)) = matched.next_if(|(n, _)| *n == number) {
            own.push(m);
        }
        let mut learned = Vec::new();
        while let Some((_, reading)) = readings.next_if(|(n, _)| *n == number) {
            learned.push(reading);
        }
        let mut whole = kept.next();
        match known {
            Known::Repeat => {
                totals.repeats += 1;
                continue;
            }
            Known::New if setting.timeline => {
                hand_on(event.time, &chunk.text[from..text], say)?;
            }
            Known::New => {
                if unsaid.end != from {
                    hand_on(event.time, &chunk.text[unsaid], say)?;
                    unsaid = from..from;
                }
                unsaid.end = text;
            }
            Known::Conflict => {
                hand_on(event.time, &chunk.text[unsaid], say)?;
                unsaid = text..text;
                totals.conflicts += 1;
                if let Some(whole) = &mut whole {
                    whole.id = whole.id.conflict(u64::from(event.content));
                    whole.flags.set(Flag::IdConflict);
                }
                own.iter_mut()
                    .for_each(|m| m.id = m.id.conflict(u64::from(event.content)));
                say(
                    event.time,
                    &conflicting(setting.format, &chunk.text[from..text], event.content),
                )?;
                let finding = conflict_finding(event);
                count(totals, finding.severity, &finding.title, 1);
                tell(setting.format, &finding, say)?;
            }
        }
        if let (Some(index), Some(whole)) = (&mut index, whole) {
            index.add(whole)?;
        }
        for &number in &chunk.rules[first..rule] {
            *by_rule.entry(number).or_default() += 1;
        }
        for &filter in &chunk.cut[first_cut..cut] {
            let title = setting.engine.filter_title(filter).to_string();
            *totals.by_filter.entry(title).or_default() += 1;
        }
        own.into_iter().try_for_each(|m| correlator.push(m))?;
        learned.into_iter().for_each(|r| counters.take(r));
    }
    let last = chunk.events.last().map(|e| e.time).unwrap_or_default();
    hand_on(last, &chunk.text[unsaid], say)?;
    for (number, findings) in by_rule {
        let info = setting.engine.info(number);
        count(totals, info.severity, &info.title, findings);
    }
    Ok(())
}

fn hand_on(time: Time, lines: &[u8], say: Say<'_>) -> anyhow::Result<()> {
    match lines {
        [] => Ok(()),
        lines => say(time, lines),
    }
}

/// Findings of an event whose id belongs to another one, under the fallback id that the event is kept under.
fn conflicting(format: Format, lines: &[u8], content: u32) -> Vec<u8> {
    if format == Format::Table {
        return lines.to_vec();
    }
    let mut out = Vec::new();
    for line in lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        if let Ok(mut finding) = serde_json::from_slice::<Finding>(line) {
            let Some(event) = finding
                .evidence
                .first()
                .map(|id| id.conflict(u64::from(content)))
            else {
                continue;
            };
            finding.id = Finding::event_id(&finding.rule_id, event);
            finding.episode = finding.id;
            finding.evidence = vec![event];
            finding.event_ids = vec![event.to_string().into()];
            output::json_line(&finding, &mut out);
        }
    }
    out
}

fn conflict_finding(event: &worker::Seen) -> Finding {
    let mut flags = event::Flags::default();
    flags.set(Flag::IdConflict);
    let id = event::Id(u128::from(event.id)).conflict(u64::from(event.content));
    let base = Event {
        id,
        time: event.time,
        flags,
        source: "trailwarden".into(),
        ..Event::default()
    };
    let finding_id = Finding::event_id("trailwarden.id_conflict", id);
    Finding {
        id: finding_id,
        episode: finding_id,
        rule_id: "trailwarden.id_conflict".into(),
        title: "An event id came again with other content".into(),
        severity: Severity::Medium,
        ..Finding::from_event(&base)
    }
}

/// The time of an event where it lies within the limits asked for.
pub(crate) fn within(time: Time, from: Option<Time>, to: Option<Time>) -> bool {
    from.is_none_or(|f| time >= f) && to.is_none_or(|t| time < t)
}
