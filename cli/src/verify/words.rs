//! What a verification found, in words: what is proven, what is not, what it means and what to do.

use std::io::Write;
use std::path::Path;

use event::{Time, inert};
use ingest::digest::{ChainReport, Kind, LogCounts, Report, Violation};
use serde_json::{Value, json};

/// How many violations of one kind a table names.
const SHOWN: usize = 10;

/// A report, and what was asked for.
pub(super) struct Words<'a> {
    pub(super) report: &'a Report,
    pub(super) from: Option<Time>,
    pub(super) to: Option<Time>,
    /// The keys, if they lay with the objects and nobody else vouches for them.
    pub(super) own_keys: Option<&'a Path>,
}

impl Words<'_> {
    /// One JSON object.
    pub(super) fn json(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut all = self.outcome();
        all["chains"] = serde_json::to_value(&self.report.chains)?;
        all["violations"] = serde_json::to_value(&self.report.violations)?;
        writeln!(out, "{all:#}")?;
        Ok(())
    }

    /// JSON lines: chains, violations, and the outcome as the last.
    pub(super) fn lines(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut line = |kind: &str, mut value: Value| {
            value["type"] = kind.into();
            writeln!(out, "{value}")
        };
        for chain in &self.report.chains {
            line("chain", serde_json::to_value(chain)?)?;
        }
        for violation in &self.report.violations {
            line("violation", serde_json::to_value(violation)?)?;
        }
        line("outcome", self.outcome())?;
        Ok(())
    }

    fn outcome(&self) -> Value {
        json!({
            "from": self.from,
            "to": self.to,
            "keys_lay_with_objects": self.own_keys.is_some(),
            "logs": self.logs(),
            "violation_count": self.report.violations.len(),
        })
    }

    fn logs(&self) -> LogCounts {
        let mut sum = LogCounts::default();
        self.report.chains.iter().for_each(|c| sum += c.logs);
        sum
    }

    /// A table of chains, the violations by kind, and what all of it means.
    pub(super) fn table(&self, out: &mut impl Write) -> std::io::Result<()> {
        self.chains(out)?;
        let mut kinds: Vec<Kind> = self.report.violations.iter().map(|v| v.kind).collect();
        kinds.sort();
        kinds.dedup();
        for kind in kinds {
            self.violations(kind, out)?;
        }
        writeln!(out)?;
        self.meaning(out)
    }

    fn chains(&self, out: &mut impl Write) -> std::io::Result<()> {
        let names: Vec<String> = self
            .report
            .chains
            .iter()
            .map(|c| inert::text(&c.chain.to_string()).into_owned())
            .collect();
        let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        writeln!(
            out,
            "{:<width$}  {:<20}  {:<20}  {:>9}  {:>9}  {:>7}  {:>7}  {:>10}  {:>8}  {:>7}",
            "CHAIN",
            "FROM (UTC)",
            "TO (UTC)",
            "DIGESTS",
            "PROVEN",
            "CHANGED",
            "MISSING",
            "UNATTESTED",
            "UNPROVEN",
            "TOO NEW"
        )?;
        for (name, chain) in names.iter().zip(&self.report.chains) {
            let ChainReport { from, to, logs, .. } = chain;
            let time = |time: &Option<Time>| time.map_or("-".to_owned(), |t| t.to_string());
            writeln!(
                out,
                "{name:<width$}  {:<20}  {:<20}  {:>9}  {:>9}  {:>7}  {:>7}  {:>10}  {:>8}  {:>7}",
                time(from),
                time(to),
                format!("{}/{}", chain.digests_proven, chain.digests),
                format!("{}/{}", logs.proven, logs.total()),
                logs.changed,
                logs.missing,
                logs.unattested,
                logs.unproven,
                logs.not_yet_attested
            )?;
        }
        Ok(())
    }

    fn violations(&self, kind: Kind, out: &mut impl Write) -> std::io::Result<()> {
        let of_kind: Vec<&Violation> = self
            .report
            .violations
            .iter()
            .filter(|v| v.kind == kind)
            .collect();
        writeln!(out, "\n{kind} ({}): {}", of_kind.len(), kind.meaning())?;
        for violation in of_kind.iter().take(SHOWN) {
            let (object, detail) = (
                inert::text(&violation.object),
                inert::text(&violation.detail),
            );
            writeln!(out, "  {object}\n    {detail}")?;
        }
        if of_kind.len() > SHOWN {
            let more = of_kind.len() - SHOWN;
            writeln!(out, "  and {more} more; `--format jsonl` lists all")?;
        }
        writeln!(out, "  do: {}", kind.advice())?;
        Ok(())
    }

    fn meaning(&self, out: &mut impl Write) -> std::io::Result<()> {
        let logs = self.logs();
        let proven = format!(
            "Proven: {} of {} log files hold exactly what CloudTrail delivered.",
            logs.proven,
            logs.total()
        );
        if self.report.violations.is_empty() {
            writeln!(
                out,
                "{proven} None was removed or added in the time that the digests cover."
            )?;
        } else {
            writeln!(
                out,
                "{proven} What is not as it should be: {}, see above.",
                match self.report.violations.len() {
                    1 => "1 violation".to_owned(),
                    n => format!("{n} violations"),
                }
            )?;
        }
        if logs.not_yet_attested > 0 {
            writeln!(
                out,
                "Too new: {} log files are in no digest yet; theirs may take two hours. Verify again when there are newer digests.",
                logs.not_yet_attested
            )?;
        }
        if logs.unproven > 0 {
            writeln!(
                out,
                "Unproven: nothing can be said of {} log files, since their digests are missing or cannot be proven.",
                logs.unproven
            )?;
        }
        if self.to.is_none() {
            writeln!(
                out,
                "Not looked at: whether all chains have lost their newest digests. `--to TIME` demands that they reach a time."
            )?;
        }
        if let Some(keys) = self.own_keys {
            writeln!(
                out,
                "The keys are from `{}`. Whoever can write there can also sign what lies beside them: for a proof, fetch the keys from AWS and give them with --keys.",
                keys.display()
            )?;
        }
        Ok(())
    }
}
