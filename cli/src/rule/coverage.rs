//! `trailwarden rule coverage`: what the rules look for, in the words of ATT&CK and the OWASP Serverless Top 10.
//!
//! What a rule covers is what its tags say. A technique counts under those tactics of its rule that it serves in ATT&CK;
//! a tactic of a rule that none of its techniques serves counts without one. The layer for the ATT&CK Navigator has
//! format 4.5; a technique's score is the number of its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use detect::attack::{OWASP, TACTICS, technique};
use event::RuleInfo;
use serde_json::{Value, json};

use crate::exit::{Outcome, Usage};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden rule coverage                              the shipped rules, as a table
  trailwarden rule coverage rules/ --navigator layer.json   to open in https://mitre-attack.github.io/attack-navigator/
  trailwarden rule coverage rules/ | jq 'select(.rules == 0)'   what nothing looks for")]
pub(crate) struct CoverageArgs {
    /// Folders and files; the shipped rules, if none is given
    paths: Vec<PathBuf>,
    /// Write a layer for the ATT&CK Navigator here
    #[arg(long, value_name = "FILE")]
    navigator: Option<PathBuf>,
    /// How to write the coverage; a table on a terminal and JSON lines in a pipe, if not said
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// A value for `%NAME%` in rules that use the modifier `expand`
    #[arg(long = "placeholder", value_name = "NAME=VALUE", value_parser = crate::rules::name_and_value)]
    placeholders: Vec<(String, String)>,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One JSON object a line
    Jsonl,
}

/// Rules by what they cover. Rules are known by title and id, in order of title.
#[derive(Debug, Default)]
struct Coverage {
    rules: usize,
    /// By tactic and technique; a rule that names no technique counts under an empty one.
    attack: BTreeMap<(String, String), BTreeSet<Named>>,
    owasp: BTreeMap<String, BTreeSet<Named>>,
    /// Rules without a tag of either.
    untagged: BTreeSet<Named>,
}

type Named = (String, String);

/// Runs the command.
pub(super) fn run(args: &CoverageArgs) -> anyhow::Result<Outcome> {
    let set = super::args(&args.paths, &args.placeholders).load()?;
    let coverage = Coverage::of(&set.infos());
    if let Some(path) = &args.navigator {
        let layer = serde_json::to_vec_pretty(&coverage.layer())?;
        std::fs::write(path, layer)
            .with_context(|| format!("cannot write the layer `{}`", path.display()))
            .context(Usage)?;
    }
    let format = args.format.unwrap_or(if std::io::stdout().is_terminal() {
        Format::Table
    } else {
        Format::Jsonl
    });
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match format {
        Format::Table => coverage.table(&mut out)?,
        Format::Jsonl => coverage.lines(&mut out)?,
    }
    out.flush()?;
    Ok(Outcome::Clean)
}

impl Coverage {
    fn of(infos: &[RuleInfo]) -> Coverage {
        let mut coverage = Coverage {
            rules: infos.len(),
            ..Coverage::default()
        };
        for info in infos {
            let named = || (info.title.clone(), info.id.clone());
            let names = |namespace: &'static str| {
                let tags = info.tags.iter();
                tags.filter_map(move |tag| tag.strip_prefix(namespace)?.strip_prefix('.'))
            };
            let (mut tactics, mut techniques) = (Vec::new(), Vec::new());
            for name in names("attack") {
                if TACTICS.iter().any(|t| t.slug == name) {
                    tactics.push(name.to_owned());
                } else if name.starts_with('t')
                    && name[1..].starts_with(|c: char| c.is_ascii_digit())
                {
                    techniques.push(name.to_uppercase());
                }
            }
            let risks: Vec<&str> = names("owasp-serverless").collect();
            if tactics.is_empty() && techniques.is_empty() && risks.is_empty() {
                coverage.untagged.insert(named());
                continue;
            }
            for key in pairs(&tactics, &techniques) {
                coverage.attack.entry(key).or_default().insert(named());
            }
            for risk in risks {
                coverage
                    .owasp
                    .entry(risk.to_owned())
                    .or_default()
                    .insert(named());
            }
        }
        coverage
    }

    /// Tactics in the order of an attack, each with its techniques; last what names no tactic.
    fn tactics(
        &self,
    ) -> impl Iterator<Item = (&'static str, &'static str, Vec<(&str, &BTreeSet<Named>)>)> {
        let known = TACTICS.iter().map(|t| (t.slug, t.name));
        known.chain([("", "No tactic")]).map(|(slug, name)| {
            let techniques = self.attack.iter();
            let techniques = techniques.filter(move |((tactic, _), _)| tactic == slug);
            let techniques = techniques.map(|((_, id), rules)| (id.as_str(), rules));
            (slug, name, techniques.collect())
        })
    }

    fn table(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{:<22} {:<10} {:<40} RULES",
            "ATT&CK TACTIC", "TECHNIQUE", "NAME"
        )?;
        for (slug, name, techniques) in self.tactics() {
            if techniques.is_empty() && !slug.is_empty() {
                writeln!(out, "{name:<22} {:<10} {:<40}     0", "", "")?;
            }
            for (id, rules) in techniques {
                let known = technique(id).map_or("", |t| t.name);
                row(out, &format!("{name:<22} {id:<10} {known:<40}"), rules)?;
            }
        }
        writeln!(out, "\n{:<22} {:<51} RULES", "OWASP SERVERLESS", "RISK")?;
        for (risk, name) in OWASP {
            let none = BTreeSet::new();
            let rules = self.owasp.get(*risk).unwrap_or(&none);
            row(
                out,
                &format!("{:<22} {name:<51}", risk.to_uppercase()),
                rules,
            )?;
        }
        if !self.untagged.is_empty() {
            writeln!(out)?;
            row(
                out,
                &format!("{:<74}", "Rules without any of these tags"),
                &self.untagged,
            )?;
        }
        Ok(())
    }

    fn lines(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for (slug, name, techniques) in self.tactics() {
            if techniques.is_empty() && !slug.is_empty() {
                let none = BTreeSet::new();
                let line = object(
                    "attack",
                    json!({"tactic": slug, "tactic_name": name}),
                    &none,
                );
                writeln!(out, "{line}")?;
            }
            for (id, rules) in techniques {
                let keys = json!({
                    "tactic": slug,
                    "tactic_name": name,
                    "technique": id,
                    "technique_name": technique(id).map(|t| t.name),
                });
                writeln!(out, "{}", object("attack", keys, rules))?;
            }
        }
        for (risk, name) in OWASP {
            let none = BTreeSet::new();
            let rules = self.owasp.get(*risk).unwrap_or(&none);
            let keys = json!({"risk": risk, "risk_name": name});
            writeln!(out, "{}", object("owasp-serverless", keys, rules))?;
        }
        if !self.untagged.is_empty() {
            writeln!(out, "{}", object("untagged", json!({}), &self.untagged))?;
        }
        Ok(())
    }

    /// A layer of the ATT&CK Navigator, format 4.5.
    fn layer(&self) -> Value {
        let mut by_technique: BTreeMap<&str, BTreeSet<&Named>> = BTreeMap::new();
        for ((_, id), rules) in self.attack.iter().filter(|((_, id), _)| !id.is_empty()) {
            by_technique.entry(id).or_default().extend(rules);
        }
        let most = by_technique.values().map(BTreeSet::len).max().unwrap_or(1);
        let techniques = by_technique.iter().map(|(id, rules)| {
            let titles: Vec<&str> = rules.iter().map(|(title, _)| title.as_str()).collect();
            let links = rules
                .iter()
                .map(|(title, id)| json!({"name": title, "value": id}));
            json!({
                "techniqueID": id,
                "score": rules.len(),
                "comment": titles.join("\n"),
                "metadata": links.collect::<Vec<_>>(),
                "enabled": true,
                "showSubtechniques": id.contains('.'),
            })
        });
        json!({
            "name": "Trailwarden rules",
            "versions": {"navigator": "5.1.0", "layer": "4.5"},
            "domain": "enterprise-attack",
            "description": format!("{} rules; the score of a technique is the number of rules that are tagged with it", self.rules),
            "sorting": 3,
            "layout": {"layout": "side", "showID": true, "showName": true, "showAggregateScores": true, "countUnscored": false, "aggregateFunction": "sum", "expandedSubtechniques": "annotated"},
            "hideDisabled": false,
            "techniques": techniques.collect::<Vec<_>>(),
            "gradient": {"colors": ["#d6eaf8", "#2874a6"], "minValue": 0, "maxValue": most},
            "legendItems": [],
            "selectTechniquesAcrossTactics": true,
            "selectSubtechniquesWithParent": false,
        })
    }
}

/// Which techniques a rule covers for which tactics.
fn pairs(tactics: &[String], techniques: &[String]) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for id in techniques {
        let known = technique(id);
        let serves = |tactic: &str| known.is_none_or(|t| t.serves(tactic));
        let mut of: Vec<&str> = tactics.iter().map(String::as_str).collect();
        of.retain(|tactic| serves(tactic));
        if of.is_empty() {
            of = known.map_or(vec![""], |t| t.tactics().to_vec());
        }
        pairs.extend(of.into_iter().map(|tactic| (tactic.to_owned(), id.clone())));
    }
    for tactic in tactics {
        if pairs.iter().all(|(of, _)| of != tactic) {
            pairs.push((tactic.clone(), String::new()));
        }
    }
    pairs
}

/// How many titles a row shows.
const SHOWN: usize = 3;

fn row(out: &mut dyn Write, head: &str, rules: &BTreeSet<Named>) -> std::io::Result<()> {
    let shown = rules.iter().take(SHOWN);
    let titles: Vec<String> = shown
        .map(|(title, _)| event::inert::text(title).into_owned())
        .collect();
    let more = match rules.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    writeln!(
        out,
        "{head} {:>5}  {}{more}",
        rules.len(),
        titles.join("; ")
    )
}

/// One line of JSON: a kind, the keys of what is covered, and by which rules.
fn object(kind: &str, keys: Value, rules: &BTreeSet<Named>) -> Value {
    let mut line = json!({ "kind": kind });
    if let (Some(line), Value::Object(keys)) = (line.as_object_mut(), keys) {
        line.extend(keys);
        line.insert("rules".into(), rules.len().into());
        line.insert(
            "titles".into(),
            rules.iter().map(|(title, _)| title.as_str()).collect(),
        );
        line.insert(
            "rule_ids".into(),
            rules.iter().map(|(_, id)| id.as_str()).collect(),
        );
    }
    line
}
