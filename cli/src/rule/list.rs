//! `trailwarden rule list`: which rules there are.

use std::io::{IsTerminal, Write};

use detect::rule_set::RuleSet;
use event::RuleInfo;

use crate::exit::Outcome;

/// Lists the rules: a table on a terminal, JSON lines in a pipe.
pub(super) fn run(set: &RuleSet) -> anyhow::Result<Outcome> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let terminal = std::io::stdout().is_terminal();
    for info in set.infos() {
        if terminal {
            let kind = info.correlation.as_deref().unwrap_or("event");
            writeln!(
                out,
                "{:<13} {:<11} {:<60} {}",
                info.severity,
                kind,
                event::inert::text(&info.title),
                info.id
            )?;
        } else {
            let line = RuleInfo {
                yaml: String::new(),
                ..info
            };
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
        }
    }
    Ok(Outcome::Clean)
}
