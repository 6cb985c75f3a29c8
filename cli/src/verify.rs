//! `trailwarden verify`: are log files what CloudTrail delivered, and are they all there?
//!
//! [`run`] gathers the public keys, lets `ingest::digest` verify everything in a folder or a bucket, and hands the report
//! to `words`, which says it to people or to programs. Nothing is changed. For a copy on disk nobody is asked: it can be
//! verified without AWS. Of a bucket, objects are fetched, and CloudTrail is asked for its keys where none are given.

mod bucket;
mod words;

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use ingest::digest::{self, Folder, Job, Objects, PublicKeys};

use crate::exit::{Outcome, Usage};
use crate::hunt;
use words::Words;

/// Verifies CloudTrail log files against the signed digests that CloudTrail delivers with them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden verify ./bucket                          with the keys in ./bucket/public_keys.json
  trailwarden verify ./bucket --keys a.json --keys b.json    with other keys
  trailwarden verify ./bucket --from -7d               the last week
  trailwarden verify s3://org-trail/AWSLogs/ --from -7d      the bucket itself, with keys that CloudTrail gives
  trailwarden verify ./bucket --format jsonl           one JSON object a chain and a violation

Keys are as `aws cloudtrail list-public-keys` prints them. The signature of the digest X.json.gz is
read from X.sig.json beside it: the object's user metadata, as `aws s3api head-object --query
Metadata` prints it. Exit code: 0 no violations, 1 violations, 2 usage, 3 failed.")]
pub(crate) struct VerifyArgs {
    /// A folder with digests and log files (read recursively), or s3://BUCKET/PREFIX
    #[arg(value_name = "PATH")]
    place: String,
    /// The configuration of the service: a bucket that it has in `ingest.buckets` is read as it says
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Public keys; PATH/public_keys.json, if not said
    #[arg(long, value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Only log files delivered at or after this time (RFC 3339, or `-7d`, `-12h`); older digests may be absent
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Only log files delivered before this time; every chain must reach it
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// How to write the report; a table on a terminal and JSON lines in a pipe, if not said
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One JSON object with everything
    Json,
    /// One JSON object for each chain, each violation and the outcome
    Jsonl,
}

/// A folder, and the keys that lie with what they verify.
fn folder(path: &Path) -> anyhow::Result<Folder> {
    let cannot = || format!("cannot read `{}`", path.display());
    let metadata = fs::metadata(path).with_context(cannot).context(Usage)?;
    ensure!(
        metadata.is_dir(),
        usage(format!(
            "`{}` is a file; give the folder with the digests and log files",
            path.display()
        ))
    );
    Folder::open(path).with_context(cannot)
}

/// The keys of these files.
fn keys_of(files: &[PathBuf]) -> anyhow::Result<PublicKeys> {
    let mut keys = PublicKeys::default();
    for file in files {
        let cannot = || format!("cannot load keys from `{}`", file.display());
        let json = fs::read(file).with_context(cannot).context(Usage)?;
        keys.add(&json).with_context(cannot).context(Usage)?;
    }
    Ok(keys)
}

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<Outcome> {
    let now = crate::clock::now();
    let (from, to) = hunt::limits(args.from.as_deref(), args.to.as_deref(), now)?;
    let (report, own_keys) = match args.place.starts_with("s3://") {
        true => (bucket::verify(args, from, to, now)?, None),
        false => {
            let path = Path::new(&args.place);
            let objects = folder(path)?;
            let own = Some(path.join("public_keys.json"));
            let own = own.filter(|p| args.keys.is_empty() && p.is_file());
            let mut keys = keys_of(&args.keys)?;
            if let Some(file) = &own {
                keys = keys_of(std::slice::from_ref(file))?;
            }
            ensure!(!keys.is_empty(), usage(no_keys()));
            let bar = progress(objects.list()?.len() as u64);
            let report = digest::verify(&Job {
                from,
                to,
                workers: std::thread::available_parallelism().map_or(1, usize::from),
                seen: &|| bar.inc(1),
                ..Job::new(&objects, &keys, now)
            });
            bar.finish_and_clear();
            (report?, own)
        }
    };
    ensure!(
        !report.chains.is_empty(),
        usage(format!(
            "there are no digests and no log files of CloudTrail in `{}`{}",
            args.place,
            if from.or(to).is_some() {
                " in this time"
            } else {
                ""
            }
        ))
    );
    let words = Words {
        report: &report,
        from,
        to,
        own_keys: own_keys.as_deref(),
    };
    let terminal = std::io::stdout().is_terminal();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = match args.format {
        Some(Format::Json) => words.json(&mut out),
        Some(Format::Table) => words.table(&mut out),
        None if terminal => words.table(&mut out),
        Some(Format::Jsonl) | None => words.lines(&mut out),
    };
    match written.and_then(|()| out.flush()) {
        // Whoever reads has seen enough; what was found does not change.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(match report.violations.is_empty() {
        true => Outcome::Clean,
        false => Outcome::Found,
    })
}

fn usage(message: String) -> anyhow::Error {
    anyhow::anyhow!(message).context(Usage)
}

fn no_keys() -> String {
    "there are no public keys to verify signatures with\n\nhint: `aws cloudtrail list-public-keys --region REGION --start-time TIME --end-time TIME > REGION.json` fetches those of a region; give each file with --keys".to_owned()
}

fn progress(objects: u64) -> ProgressBar {
    let bar = ProgressBar::new(objects);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} objects {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use ingest::digest::Kind;

    #[test]
    fn every_kind_is_documented() {
        let page = include_str!("../../docs/integrity.md");
        for kind in Kind::ALL {
            let row = format!("| `{kind}` | {} | {} |", kind.meaning(), kind.advice());
            assert!(
                page.contains(&row),
                "docs/integrity.md needs this row:\n{row}"
            );
        }
    }
}
