//! `trailwarden rule check`: mistakes, which stop a start, and advice, which does not.
//!
//! Mistakes come from loading the rules as every other command does; advice comes from `detect::lint`. With `--strict`
//! advice counts as mistakes do. Today's date is asked here and nowhere else, for exceptions that end.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use detect::error::{Problem, Weight};
use detect::lint::{CODES, lint};
use detect::rule_set::RuleSet;

use crate::clock;
use crate::exit::{Outcome, Usage};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden rule check rules/                      every mistake and every piece of advice
  trailwarden rule check rules/ --strict             for a pipeline: advice fails as well
  trailwarden rule check rules/ --format json | jq -r '.[].code' | sort | uniq -c
  trailwarden rule check --codes                     what there is to be advised about

A rule silences advice with `lint-ignore: [code]`. Exit code: 0 good, 1 mistakes, 2 usage.")]
pub(crate) struct CheckArgs {
    /// Folders and files; the shipped rules, if none is given
    paths: Vec<PathBuf>,
    /// Advice counts as a mistake
    #[arg(long)]
    strict: bool,
    /// How to write what is found
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Only list the codes of advice and what they mean
    #[arg(long, conflicts_with_all = ["paths", "strict"])]
    codes: bool,
    /// A value for `%NAME%` in rules that use the modifier `expand`
    #[arg(long = "placeholder", value_name = "NAME=VALUE", value_parser = crate::rules::name_and_value)]
    placeholders: Vec<(String, String)>,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people, with the line and a hint
    Text,
    /// One JSON array
    Json,
}

/// Runs the command.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<Outcome> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if args.codes {
        for (code, meaning) in CODES {
            writeln!(out, "{code:<24} {meaning}")?;
        }
        return Ok(Outcome::Clean);
    }
    let rules = super::args(&args.paths, &args.placeholders);
    let files = rules.files().context(Usage)?;
    let (set, mut problems) = RuleSet::check(&files, &rules.placeholders());
    problems.extend(lint(&files, &set, clock::now()));
    problems.sort_by(|a, b| (&a.path, a.place).cmp(&(&b.path, b.place)));
    if args.strict {
        problems.iter_mut().for_each(|p| p.weight = Weight::Error);
    }
    let errors = problems.iter().filter(|p| p.weight == Weight::Error);
    let errors = errors.count();
    match args.format {
        Format::Json => {
            let all: Vec<_> = problems.iter().map(json).collect();
            serde_json::to_writer_pretty(&mut out, &all)?;
            writeln!(out)?;
        }
        Format::Text => {
            for problem in &problems {
                writeln!(out, "{problem}\n")?;
            }
            summary(&problems, &mut out)?;
            let duplicates = if set.duplicates > 0 {
                format!(", {} identical duplicates left out", set.duplicates)
            } else {
                String::new()
            };
            writeln!(
                out,
                "{} files: {} rules, {} correlations, {} baselines and {} filters are good{duplicates}; {errors} errors, {} warnings",
                files.len(),
                set.rules.len(),
                set.correlations.len(),
                set.baselines.len(),
                set.filters.len(),
                problems.len() - errors
            )?;
        }
    }
    out.flush()?;
    Ok(if errors > 0 {
        Outcome::Found
    } else {
        Outcome::Clean
    })
}

/// How often each code was found, where there is enough to lose the overview.
fn summary(problems: &[Problem], out: &mut dyn Write) -> std::io::Result<()> {
    let mut by_code: BTreeMap<&str, usize> = BTreeMap::new();
    for code in problems.iter().filter_map(|p| p.code) {
        *by_code.entry(code).or_default() += 1;
    }
    if problems.len() <= 10 {
        return Ok(());
    }
    for (code, count) in by_code {
        writeln!(out, "{count:>7}  {code}")?;
    }
    writeln!(out)
}

fn json(problem: &Problem) -> serde_json::Value {
    serde_json::json!({
        "severity": if problem.weight == Weight::Error { "error" } else { "warning" },
        "code": problem.code,
        "path": problem.path,
        "line": problem.place.map(|p| p.line),
        "column": problem.place.map(|p| p.column),
        "snippet": problem.snippet,
        "message": problem.message,
        "hint": problem.hint,
    })
}
