//! Folders of Sigma documents as one checked set of rules.
//!
//! [`RuleSet::build`] takes the texts of rule files and either gives a set in which every reference is
//! resolved, or all problems of all files at once. [`read`] finds the files of a folder. Nothing is skipped
//! in silence: a document is loaded, or it is named among the problems.

mod filters;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::automation::Automation;
use crate::error::{Mistake, Problem, Weight, nearest};
use crate::item::Placeholders;
use crate::lint;
use crate::rule::{self, BaselineRule, CorrelationRule, Document, Filter, Rule};
use crate::yaml::{self, Node, Place, Yaml};

/// One rule file: where it is and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFile {
    /// The path as people know it.
    pub path: String,
    /// The text.
    pub text: String,
}

/// What a correlation refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The single-event rule with this number.
    Rule(usize),
    /// The correlation with this number.
    Correlation(usize),
}

/// Rules that can run together.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    /// The single-event rules, in order of file and document.
    pub rules: Vec<Rule>,
    /// Per rule: do its matches give findings of their own? Not if correlations refer to it and none says `generate`.
    pub generates: Vec<bool>,
    /// The correlations.
    pub correlations: Vec<CorrelationRule>,
    /// Per correlation: does it give findings of its own? Not if others refer to it and none says `generate`.
    pub correlation_generates: Vec<bool>,
    /// Per correlation: what it refers to, and under which words.
    pub references: Vec<Vec<(Target, String)>>,
    /// The baselines.
    pub baselines: Vec<BaselineRule>,
    /// Per baseline: the numbers of the rules whose events it watches.
    pub watched: Vec<Vec<usize>>,
    /// What is known by its role and its place. The rule that says when it is elsewhere is among `rules`.
    pub automations: Vec<Automation>,
    /// The filters, exceptions among them.
    pub filters: Vec<Filter>,
    /// Per rule: the numbers of the filters that cut into it.
    pub filtered: Vec<Vec<usize>>,
    /// Advice that did not stop anything.
    pub warnings: Vec<Problem>,
    /// How many identical duplicates were left out.
    pub duplicates: usize,
}

/// A rule set that cannot be loaded: every error of every file, and the warnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadErrors {
    /// All problems, in order of file and place.
    pub problems: Vec<Problem>,
}

impl std::fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let errors = self.problems.iter().filter(|p| p.weight == Weight::Error);
        for problem in errors.clone() {
            writeln!(f, "{problem}\n")?;
        }
        write!(f, "{} problems in rules", errors.count())
    }
}

impl std::error::Error for LoadErrors {}

/// The rule files below `path` in order of their names, or `path` itself.
///
/// # Errors
/// A folder or file that cannot be read, with its path.
pub fn read(path: &Path) -> Result<Vec<RuleFile>, (PathBuf, std::io::Error)> {
    let mut files = Vec::new();
    collect(path, true, &mut files)?;
    files
        .into_iter()
        .map(|p| {
            let bytes = std::fs::read(&p).map_err(|e| (p.clone(), e))?;
            Ok(RuleFile {
                path: p.display().to_string(),
                text: String::from_utf8_lossy(&bytes).into_owned(),
            })
        })
        .collect()
}

fn collect(
    path: &Path,
    asked_for: bool,
    files: &mut Vec<PathBuf>,
) -> Result<(), (PathBuf, std::io::Error)> {
    let fail = |e| (path.to_owned(), e);
    if std::fs::metadata(path).map_err(fail)?.is_dir() {
        let mut entries = std::fs::read_dir(path)
            .map_err(fail)?
            .map(|e| e.map(|e| e.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(fail)?;
        entries.sort();
        return entries
            .iter()
            .try_for_each(|entry| collect(entry, false, files));
    }
    let is_rule = path.extension().is_some_and(|e| e == "yml" || e == "yaml");
    if asked_for || is_rule {
        files.push(path.to_owned());
    }
    Ok(())
}

struct Loaded<T> {
    value: T,
    file: usize,
    /// The document without its places, to tell identical duplicates.
    json: serde_json::Value,
}

impl RuleSet {
    /// Checks all files together.
    ///
    /// # Errors
    /// Any error in any file: all problems at once.
    pub fn build(files: &[RuleFile], placeholders: &Placeholders) -> Result<RuleSet, LoadErrors> {
        let (set, problems) = RuleSet::check(files, placeholders);
        if problems.iter().any(|p| p.weight == Weight::Error) {
            Err(LoadErrors { problems })
        } else {
            Ok(RuleSet {
                warnings: problems,
                ..set
            })
        }
    }

    /// As [`RuleSet::build`], but gives what could be loaded beside the problems of the rest.
    pub fn check(files: &[RuleFile], placeholders: &Placeholders) -> (RuleSet, Vec<Problem>) {
        let mut mistakes: Vec<(usize, Mistake)> = Vec::new();
        let mut rules = Vec::new();
        let mut correlations = Vec::new();
        let mut baselines = Vec::new();
        let mut filters = Vec::new();
        let mut automations = Vec::new();
        let mut silent = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let mut found = Vec::new();
            match yaml::documents(&file.text) {
                Err(e) => found.push(Mistake::new(e.place, e.message)),
                Ok(documents) => {
                    if documents.is_empty() {
                        found.push(Mistake::new(
                            Place { line: 1, column: 1 },
                            "there is no rule in this file",
                        ));
                    }
                    for node in collection(documents, &mut found) {
                        let json = node.to_json();
                        silent.push(lint::silenced(number, &node));
                        match rule::document(&node, placeholders, &mut found) {
                            Some(Document::Rule(mut value)) => {
                                value.info.file = file.path.clone();
                                value.info.yaml = file.text.clone();
                                rules.push(Loaded {
                                    value: *value,
                                    file: number,
                                    json,
                                });
                            }
                            Some(Document::Correlation(mut value)) => {
                                value.info.file = file.path.clone();
                                value.info.yaml = file.text.clone();
                                correlations.push(Loaded {
                                    value: *value,
                                    file: number,
                                    json,
                                });
                            }
                            Some(Document::Baseline(mut value)) => {
                                value.info.file = file.path.clone();
                                value.info.yaml = file.text.clone();
                                baselines.push(Loaded {
                                    value: *value,
                                    file: number,
                                    json,
                                });
                            }
                            Some(Document::Automation(value)) => {
                                let (automation, mut value) = *value;
                                value.info.file = file.path.clone();
                                value.info.yaml = file.text.clone();
                                automations.push(automation);
                                rules.push(Loaded {
                                    value,
                                    file: number,
                                    json,
                                });
                            }
                            Some(Document::Filter(mut value)) => {
                                value.file = file.path.clone();
                                filters.push(Loaded {
                                    value: *value,
                                    file: number,
                                    json,
                                });
                            }
                            None => {}
                        }
                    }
                }
            }
            mistakes.extend(found.into_iter().map(|m| (number, m)));
        }
        let failed: HashSet<usize> = mistakes
            .iter()
            .filter(|(_, m)| m.weight == Weight::Error)
            .map(|(f, _)| *f)
            .collect();
        let mut duplicates = 0;
        let mut seen = BTreeMap::new();
        let rules = once(
            rules,
            |r| (&r.info.id, r.place),
            files,
            &mut seen,
            &mut mistakes,
            &mut duplicates,
        );
        let correlations = once(
            correlations,
            |c| (&c.info.id, c.place),
            files,
            &mut seen,
            &mut mistakes,
            &mut duplicates,
        );
        let baselines = once(
            baselines,
            |b| (&b.info.id, b.place),
            files,
            &mut seen,
            &mut mistakes,
            &mut duplicates,
        );
        let filters = once(
            filters,
            |f| (&f.id, f.place),
            files,
            &mut seen,
            &mut mistakes,
            &mut duplicates,
        );
        let mut set = resolve(
            rules,
            correlations,
            duplicates,
            !failed.is_empty(),
            &mut mistakes,
        );
        watch(&mut set, baselines, &mut mistakes);
        set.automations = automations;
        filters::apply(&mut set, filters, !failed.is_empty(), &mut mistakes);
        let mut problems: Vec<(usize, Problem)> = mistakes
            .into_iter()
            .filter(|(f, m)| !lint::is_silenced(&silent, *f, m))
            .map(|(f, m)| (f, m.in_file(&files[f].path, &files[f].text)))
            .collect();
        problems.sort_by_key(|(f, p)| (*f, p.place));
        (set, problems.into_iter().map(|(_, p)| p).collect())
    }

    /// Tries out the rules with these ids: what they find is kept and counted, and nobody is told. Gives the ids that no
    /// rule has.
    pub fn stage<'a>(&mut self, ids: &'a [String]) -> Vec<&'a str> {
        let mut unknown: Vec<&str> = ids.iter().map(String::as_str).collect();
        let rules = self.rules.iter_mut().map(|r| &mut r.info);
        let correlations = self.correlations.iter_mut().map(|c| &mut c.info);
        let baselines = self.baselines.iter_mut().map(|b| &mut b.info);
        for info in rules.chain(correlations).chain(baselines) {
            if ids.contains(&info.id) {
                info.staged = true;
                unknown.retain(|id| *id != info.id);
            }
        }
        unknown
    }

    /// What people read about every rule, correlation and baseline, in this order.
    pub fn infos(&self) -> Vec<event::RuleInfo> {
        self.rules
            .iter()
            .map(|r| r.info.clone())
            .chain(self.correlations.iter().map(|c| c.info.clone()))
            .chain(self.baselines.iter().map(|b| b.info.clone()))
            .collect()
    }
}

/// Applies the old `action: global | reset | repeat` documents to those that follow them.
pub(crate) fn collection(documents: Vec<Node>, mistakes: &mut Vec<Mistake>) -> Vec<Node> {
    let mut base: Option<Node> = None;
    let mut previous: Option<Node> = None;
    let mut out = Vec::new();
    for mut node in documents {
        let action = node.get("action").and_then(Node::scalar);
        if action.is_some()
            && let Yaml::Map(entries) = &mut node.yaml
        {
            entries.retain(|(k, _)| k.as_text() != Some("action"));
        }
        match action.as_deref() {
            Some("global") => base = Some(base.take().map_or(node.clone(), |b| merge(&b, &node))),
            Some("reset") => base = None,
            Some("repeat") => {
                let whole = previous.as_ref().map_or(node.clone(), |p| merge(p, &node));
                previous = Some(whole.clone());
                out.push(whole);
            }
            Some(other) => mistakes.push(
                Mistake::new(node.place, format!("unknown action `{other}`"))
                    .hint("global, reset or repeat"),
            ),
            None => {
                let whole = base.as_ref().map_or(node.clone(), |b| merge(b, &node));
                previous = Some(whole.clone());
                out.push(whole);
            }
        }
    }
    out
}

/// `over` with what only `base` has; maps are merged in depth.
fn merge(base: &Node, over: &Node) -> Node {
    let (Yaml::Map(low), Yaml::Map(high)) = (&base.yaml, &over.yaml) else {
        return over.clone();
    };
    let mut entries = high.clone();
    for (key, value) in low {
        match entries.iter_mut().find(|(k, _)| k.yaml == key.yaml) {
            Some((_, existing)) => *existing = merge(value, existing),
            None => entries.push((key.clone(), value.clone())),
        }
    }
    Node {
        yaml: Yaml::Map(entries),
        place: over.place,
    }
}

/// Keeps one of identical documents; differing ones with the same id are a mistake that names both files.
fn once<T>(
    loaded: Vec<Loaded<T>>,
    id_and_place: impl Fn(&T) -> (&String, Place),
    files: &[RuleFile],
    seen: &mut BTreeMap<String, (usize, serde_json::Value)>,
    mistakes: &mut Vec<(usize, Mistake)>,
    duplicates: &mut usize,
) -> Vec<(usize, T)> {
    let mut kept = Vec::new();
    for Loaded { value, file, json } in loaded {
        let (id, place) = id_and_place(&value);
        match seen.get(id) {
            Some((_, first)) if *first == json => *duplicates += 1,
            Some((first, _)) => {
                let message = format!(
                    "id `{id}` belongs to another rule in `{}`",
                    files[*first].path
                );
                mistakes.push((
                    file,
                    Mistake::new(place, message)
                        .hint("give this rule an id of its own, or remove one of the two"),
                ));
            }
            None => {
                seen.insert(id.clone(), (file, json));
                kept.push((file, value));
            }
        }
    }
    kept
}

/// Adds the baselines, and finds the rules whose events they watch. Such a rule gives no findings of its own, unless
/// the baseline says so.
fn watch(
    set: &mut RuleSet,
    baselines: Vec<(usize, BaselineRule)>,
    mistakes: &mut Vec<(usize, Mistake)>,
) {
    for (file, baseline) in baselines {
        let mut numbers = Vec::new();
        for (word, place) in &baseline.rules {
            let is_it = |r: &Rule| r.info.id == *word || r.name.as_deref() == Some(word);
            match set.rules.iter().position(is_it) {
                Some(number) => numbers.push(number),
                None => {
                    let known = set.rules.iter();
                    let known = known.flat_map(|r| [Some(r.info.id.as_str()), r.name.as_deref()]);
                    let hint = nearest(word, known.flatten()).map_or_else(
                        || "give the id or the name of a rule that is loaded with it".to_owned(),
                        |near| format!("did you mean `{near}`?"),
                    );
                    let mistake = Mistake::new(*place, format!("there is no rule `{word}`"));
                    mistakes.push((file, mistake.hint(hint)));
                }
            }
        }
        if !baseline.generate {
            numbers.iter().for_each(|n| set.generates[*n] = false);
        }
        set.watched.push(numbers);
        set.baselines.push(baseline);
    }
}

fn resolve(
    rules: Vec<(usize, Rule)>,
    correlations: Vec<(usize, CorrelationRule)>,
    duplicates: usize,
    some_failed: bool,
    mistakes: &mut Vec<(usize, Mistake)>,
) -> RuleSet {
    let mut by_word: HashMap<&str, Target> = HashMap::new();
    let mut by_title: HashMap<&str, Target> = HashMap::new();
    let singles = rules
        .iter()
        .enumerate()
        .map(|(n, (_, rule))| (Target::Rule(n), &rule.info, &rule.name));
    let others = correlations
        .iter()
        .enumerate()
        .map(|(n, (_, rule))| (Target::Correlation(n), &rule.info, &rule.name));
    for (target, info, name) in singles.chain(others) {
        if info.id != info.title {
            by_word.entry(&info.id).or_insert(target);
        }
        by_title.entry(&info.title).or_insert(target);
        if let Some(name) = name {
            by_word.entry(name).or_insert(target);
        }
    }
    let mut references = Vec::new();
    let mut referred: BTreeMap<Target, bool> = BTreeMap::new();
    for (file, correlation) in &correlations {
        let mut targets = Vec::new();
        for (word, place) in &correlation.rules {
            let target = by_word.get(word.as_str()).copied().or_else(|| {
                let target = by_title.get(word.as_str()).copied()?;
                let warning =
                    Mistake::new(*place, format!("rule `{word}` is referred to by its title"))
                        .hint("titles change: refer to it by `id` or `name`");
                mistakes.push((*file, warning.advice("reference-by-title")));
                Some(target)
            });
            match target {
                Some(target) => {
                    targets.push((target, word.clone()));
                    *referred.entry(target).or_default() |= correlation.generate;
                }
                None => {
                    let known = by_word.keys().chain(by_title.keys()).copied();
                    let hint = match nearest(word, known.collect::<BTreeSet<_>>()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None if some_failed => {
                            "the rule may be among those that could not be loaded".to_owned()
                        }
                        None => {
                            "give the id or the name of a rule that is loaded with it".to_owned()
                        }
                    };
                    mistakes.push((
                        *file,
                        Mistake::new(*place, format!("there is no rule `{word}`")).hint(hint),
                    ));
                }
            }
        }
        for (alias, fields) in &correlation.aliases {
            for (word, _) in fields {
                if !correlation.rules.iter().any(|(w, _)| w == word) {
                    let message = format!(
                        "alias `{alias}` names `{word}`, which is not among the rules of this correlation"
                    );
                    mistakes.push((*file, Mistake::new(correlation.place, message)));
                }
            }
        }
        references.push(targets);
    }
    circles(&correlations, &mut references, mistakes);
    let generates = |target: Target| referred.get(&target).copied().unwrap_or(true);
    let generates_of = |count: usize, target: fn(usize) -> Target| {
        (0..count).map(|n| generates(target(n))).collect()
    };
    RuleSet {
        generates: generates_of(rules.len(), Target::Rule),
        correlation_generates: generates_of(correlations.len(), Target::Correlation),
        rules: rules.into_iter().map(|(_, r)| r).collect(),
        correlations: correlations.into_iter().map(|(_, c)| c).collect(),
        references,
        baselines: Vec::new(),
        watched: Vec::new(),
        automations: Vec::new(),
        filters: Vec::new(),
        filtered: Vec::new(),
        warnings: Vec::new(),
        duplicates,
    }
}

/// Refuses correlations that refer to themselves by way of others, and takes those references away.
fn circles(
    correlations: &[(usize, CorrelationRule)],
    references: &mut [Vec<(Target, String)>],
    mistakes: &mut Vec<(usize, Mistake)>,
) {
    for number in 0..correlations.len() {
        let circular: Vec<usize> = references[number]
            .iter()
            .filter_map(|(target, _)| match target {
                Target::Correlation(lower) if reaches(references, *lower, number) => Some(*lower),
                _ => None,
            })
            .collect();
        for lower in circular {
            let (file, rule) = &correlations[number];
            let word = references[number]
                .iter()
                .find(|(target, _)| *target == Target::Correlation(lower))
                .map(|(_, word)| word.clone())
                .unwrap_or_default();
            let place = rule.rules.iter().find(|(w, _)| *w == word);
            let place = place.map_or(rule.place, |(_, place)| *place);
            let (one, other) = (&rule.info.title, &correlations[lower].1.info.title);
            let message = if number == lower {
                format!("correlation `{one}` refers to itself")
            } else {
                format!("correlation `{one}` refers to `{other}`, which refers back to it")
            };
            mistakes.push((
                *file,
                Mistake::new(place, message).hint("remove one of the two references"),
            ));
            references[number].retain(|(target, _)| *target != Target::Correlation(lower));
        }
    }
}

/// Does one correlation refer to another, or is it that one?
fn reaches(references: &[Vec<(Target, String)>], from: usize, to: usize) -> bool {
    let mut seen = vec![false; references.len()];
    let mut open = vec![from];
    while let Some(number) = open.pop() {
        if number == to {
            return true;
        }
        if !std::mem::replace(&mut seen[number], true) {
            let below = references[number].iter().filter_map(|(t, _)| match t {
                Target::Correlation(n) => Some(*n),
                Target::Rule(_) => None,
            });
            open.extend(below);
        }
    }
    false
}
