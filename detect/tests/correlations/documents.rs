//! Random correlation documents, as text and as the definition knows them.

use std::fmt::Write;

use detect::item::Placeholders;
use detect::rule_set::{RuleFile, RuleSet};

/// Dice that fall the same way again.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.roll(all.len() as u64) as usize]
    }
}

/// An expression over the rules of a correlation, by their place.
#[derive(Debug, Clone)]
pub(crate) enum Tree {
    Rule(usize),
    Not(Box<Tree>),
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
}

#[derive(Debug, Clone)]
pub(crate) enum Asks {
    Limits(Vec<(&'static str, f64)>),
    Tree(Tree),
}

/// A correlation as the test knows it.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) rules: Vec<String>,
    pub(crate) group_by: Vec<&'static str>,
    pub(crate) aliases: Vec<(&'static str, Vec<(String, &'static str)>)>,
    pub(crate) timespan: i64,
    pub(crate) fields: Vec<&'static str>,
    pub(crate) asks: Asks,
    pub(crate) percentile: Option<f64>,
    pub(crate) generate: bool,
}

pub(crate) const SINGLE: [&str; 3] = ["r0", "r1", "r2"];

impl Rule {
    pub(crate) fn random(dice: &mut Dice, name: String, lower: &[Rule], simple: bool) -> Rule {
        let kinds = [
            "event_count",
            "value_count",
            "temporal",
            "temporal_ordered",
            "value_sum",
            "value_avg",
            "value_percentile",
            "value_median",
        ];
        let kind = *dice.pick(&kinds);
        let mut all: Vec<String> = SINGLE.iter().map(|s| (*s).to_owned()).collect();
        all.extend(lower.iter().map(|l| l.name.clone()));
        let mut rules = Vec::new();
        for _ in 0..1 + dice.roll(3) {
            let word = dice.pick(&all).clone();
            if kind == "temporal_ordered" || !rules.contains(&word) {
                rules.push(word);
            }
        }
        if let Some(last) = lower.last()
            && !rules.contains(&last.name)
        {
            rules.push(last.name.clone());
        }
        let temporal = kind.starts_with("temporal");
        let mut rule = Rule {
            name,
            kind,
            group_by: match dice.roll(4) {
                0 => vec![],
                1 => vec!["user", "ip"],
                _ => vec!["user"],
            },
            aliases: Vec::new(),
            timespan: 1 + dice.roll(25) as i64,
            fields: Vec::new(),
            asks: Asks::Limits(Vec::new()),
            percentile: None,
            generate: dice.roll(3) == 0,
            rules,
        };
        if !simple && dice.roll(3) == 0 {
            let sources = rule
                .rules
                .iter()
                .map(|r| (r.clone(), *dice.pick(&["user", "ip"])));
            let mut sources: Vec<_> = sources.collect();
            sources.sort();
            sources.dedup_by(|a, b| a.0 == b.0);
            rule.group_by = vec!["who"];
            rule.aliases = vec![("who", sources)];
        }
        if kind.starts_with("value_") {
            rule.fields = vec![if kind == "value_count" {
                *dice.pick(&["v", "ip"])
            } else {
                "n"
            }];
            if kind == "value_count" && dice.roll(4) == 0 {
                rule.fields = vec!["v", "ip"];
            }
        }
        if kind == "value_percentile" {
            rule.percentile = Some(*dice.pick(&[0.0, 10.0, 50.0, 95.0, 100.0]));
        }
        rule.asks = if temporal && dice.roll(3) == 0 {
            let mut used = rule.rules.clone();
            used.sort();
            used.dedup();
            rule.rules = used;
            Asks::Tree(tree(dice, &(0..rule.rules.len()).collect::<Vec<_>>()))
        } else if temporal && dice.roll(2) == 0 {
            Asks::Limits(Vec::new())
        } else {
            let ops = ["gt", "gte", "gte", "gte", "lt", "lte", "eq", "neq"];
            let mut limits = Vec::new();
            for _ in 0..1 + dice.roll(4) / 3 {
                let op = *dice.pick(&ops);
                let value = match kind {
                    "value_sum" | "value_avg" | "value_percentile" | "value_median" => {
                        dice.roll(60) as f64 / 2.0 - 5.0
                    }
                    _ => dice.roll(5) as f64,
                };
                if !limits.iter().any(|(known, _)| *known == op) {
                    limits.push((op, value));
                }
            }
            Asks::Limits(limits)
        };
        rule
    }

    pub(crate) fn yaml(&self) -> String {
        let mut out = format!(
            "---\ntitle: {0}\nname: {0}\ncorrelation:\n  type: {1}\n",
            self.name, self.kind
        );
        writeln!(
            out,
            "  rules: [{}]\n  timespan: {}s",
            self.rules.join(", "),
            self.timespan
        )
        .unwrap();
        if !self.group_by.is_empty() {
            writeln!(out, "  group-by: [{}]", self.group_by.join(", ")).unwrap();
        }
        writeln!(out, "  generate: {}", self.generate).unwrap();
        for (alias, fields) in &self.aliases {
            writeln!(out, "  aliases:\n    {alias}:").unwrap();
            for (word, field) in fields {
                writeln!(out, "      {word}: {field}").unwrap();
            }
        }
        match &self.asks {
            Asks::Tree(tree) => writeln!(out, "  condition: {}", tree.text(&self.rules)).unwrap(),
            Asks::Limits(limits) if limits.is_empty() => {}
            Asks::Limits(limits) => {
                writeln!(out, "  condition:").unwrap();
                for (op, value) in limits {
                    writeln!(out, "    {op}: {value}").unwrap();
                }
                match self.fields.as_slice() {
                    [] => {}
                    [one] => writeln!(out, "    field: {one}").unwrap(),
                    many => writeln!(out, "    field: [{}]", many.join(", ")).unwrap(),
                }
                if let Some(percentile) = self.percentile {
                    writeln!(out, "    percentile: {percentile}").unwrap();
                }
            }
        }
        out
    }
}

pub(crate) fn tree(dice: &mut Dice, rules: &[usize]) -> Tree {
    let whole = if let [one] = rules {
        Tree::Rule(*one)
    } else {
        let at = 1 + dice.roll(rules.len() as u64 - 1) as usize;
        let (a, b) = (tree(dice, &rules[..at]), tree(dice, &rules[at..]));
        if dice.roll(2) == 0 {
            Tree::And(Box::new(a), Box::new(b))
        } else {
            Tree::Or(Box::new(a), Box::new(b))
        }
    };
    if dice.roll(5) == 0 {
        Tree::Not(Box::new(whole))
    } else {
        whole
    }
}

impl Tree {
    pub(crate) fn text(&self, rules: &[String]) -> String {
        match self {
            Tree::Rule(n) => rules[*n].clone(),
            Tree::Not(a) => format!("not ({})", a.text(rules)),
            Tree::And(a, b) => format!("({} and {})", a.text(rules), b.text(rules)),
            Tree::Or(a, b) => format!("({} or {})", a.text(rules), b.text(rules)),
        }
    }

    /// True, false, or not to be said.
    pub(crate) fn holds(&self, of: &dyn Fn(usize) -> Option<bool>) -> Option<bool> {
        match self {
            Tree::Rule(n) => of(*n),
            Tree::Not(a) => a.holds(of).map(|truth| !truth),
            Tree::And(a, b) => match (a.holds(of), b.holds(of)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Tree::Or(a, b) => match (a.holds(of), b.holds(of)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }
}

/// Documents that load: correlations, some of them of correlations.
pub(crate) fn documents(dice: &mut Dice, depth: u64) -> (Vec<Rule>, RuleSet) {
    let mut text = String::new();
    for (n, name) in SINGLE.iter().enumerate() {
        writeln!(text, "---\ntitle: {name}\nname: {name}\nlogsource: {{product: test}}\ndetection:\n  sel: {{k{n}: 1}}\n  condition: sel\nlevel: low").unwrap();
    }
    let mut rules: Vec<Rule> = Vec::new();
    let mut set = None;
    let wanted = 1 + depth as usize;
    let mut tries = 0;
    while rules.len() < wanted {
        tries += 1;
        assert!(tries < 1_000);
        let lower: &[Rule] = if rules.is_empty() { &[] } else { &rules };
        let lower = if dice.roll(4) == 0 && depth < 2 {
            &[]
        } else {
            lower
        };
        let rule = Rule::random(dice, format!("c{}", rules.len()), lower, depth > 1);
        let file = RuleFile {
            path: "rules.yml".into(),
            text: format!("{text}{}", rule.yaml()),
        };
        match RuleSet::build(&[file], &Placeholders::new()) {
            Ok(built) => {
                text.push_str(&rule.yaml());
                rules.push(rule);
                set = Some(built);
            }
            Err(refused) => {
                let why = refused.to_string();
                assert!(
                    why.contains("always true") || why.contains("never be true"),
                    "{why}\n{}",
                    rule.yaml()
                );
            }
        }
    }
    (rules, set.unwrap())
}
