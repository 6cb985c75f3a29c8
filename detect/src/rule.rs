//! A checked rule, and how documents become rules.
//!
//! `document` takes one YAML document and gives a [`Rule`], a [`CorrelationRule`], a [`Filter`] or the mistakes in it.
//! Which files there are, and what refers to what, is the business of `rule_set`.

mod automation;
mod baseline;
mod correlation;
mod detection;
mod filter;
mod test;

use event::{RuleInfo, Severity};

use crate::automation::Automation;
use crate::condition::Condition;
use crate::error::{Mistake, nearest};
use crate::item::{Item, Placeholders};
use crate::meter::Cell;
use crate::tracker::Subject;
use crate::yaml::{Node, Place, Yaml};

pub use filter::Filter;
pub(crate) use filter::end_of_day;
pub use test::{RuleTest, TestEvent};
use test::{expected, tests};

/// Which events a rule looks at; an absent part does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Logsource {
    /// `aws`, `azure`, ...
    pub product: Option<String>,
    /// `cloudtrail`, `lambda`, ...
    pub service: Option<String>,
    /// `process_creation`, ...
    pub category: Option<String>,
}

impl Logsource {
    /// Does a rule with this logsource look at events of `source` (`product.service`)? Events of source `unknown` are
    /// looked at by every rule.
    pub fn covers(&self, source: &str) -> bool {
        if source == "unknown" {
            return true;
        }
        let (product, service) = source.split_once('.').unwrap_or((source, ""));
        let fits = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|w| w == has);
        fits(&self.product, product) && fits(&self.service, service) && self.category.is_none()
    }
}

/// What is demanded by one selection.
#[derive(Debug, Clone)]
pub enum Selection {
    /// One field and its values, or a keyword.
    Item(Item),
    /// A map: all of them.
    All(Vec<Selection>),
    /// A list: any of them.
    Any(Vec<Selection>),
}

/// A rule on single events.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What people read about it; `info.id` is the Sigma id, else the title.
    pub info: RuleInfo,
    /// The name by which correlations may refer to it.
    pub name: Option<String>,
    /// Which events it looks at.
    pub logsource: Logsource,
    /// Its selections by name.
    pub selections: Vec<(String, Selection)>,
    /// Which selections must hold.
    pub condition: Condition,
    /// The condition as written.
    pub condition_text: String,
    /// Its own tests.
    pub tests: Vec<RuleTest>,
    /// Where it begins.
    pub place: Place,
}

impl Rule {
    /// Everything that decides what it matches, as a text: two rules with the same text match the same events.
    pub fn semantics(&self) -> String {
        fn write(selection: &Selection, out: &mut String) {
            match selection {
                Selection::Item(item) => {
                    out.push_str(&item.written);
                    // Placeholders are no part of what is written.
                    if item.written.contains("|expand") {
                        out.push_str(&format!("{:?}", item.groups));
                    }
                }
                Selection::All(parts) | Selection::Any(parts) => {
                    out.push_str(if matches!(selection, Selection::All(_)) {
                        "all("
                    } else {
                        "any("
                    });
                    parts.iter().for_each(|p| {
                        write(p, out);
                        out.push(',');
                    });
                    out.push(')');
                }
            }
        }
        let mut out = format!("{:?} {:?}", self.logsource, self.condition);
        for (name, selection) in &self.selections {
            out.push_str(name);
            write(selection, &mut out);
        }
        out
    }
}

/// A correlation.
#[derive(Debug, Clone)]
pub struct CorrelationRule {
    /// What people read about it.
    pub info: RuleInfo,
    /// The name by which it may be referred to.
    pub name: Option<String>,
    /// The rules and correlations that it refers to, as written, with their places.
    pub rules: Vec<(String, Place)>,
    /// The fields whose values make a group.
    pub group_by: Vec<String>,
    /// Per alias: the field that each referred rule reads for it.
    pub aliases: Vec<(String, Vec<(String, String)>)>,
    /// The window in microseconds.
    pub timespan: i64,
    /// The fields whose values it counts or reckons with.
    pub fields: Vec<String>,
    /// What must hold of a window.
    pub condition: crate::window::Condition,
    /// Do the referred rules give findings of their own too?
    pub generate: bool,
    /// Its own tests.
    pub tests: Vec<RuleTest>,
    /// Where it begins.
    pub place: Place,
}

/// A baseline over a metric of functions.
#[derive(Debug, Clone)]
pub struct BaselineRule {
    /// What people read about it.
    pub info: RuleInfo,
    /// What it is about.
    pub subject: Subject,
    /// The rules whose events it watches, as written, with their places; none for a metric.
    pub rules: Vec<(String, Place)>,
    /// Do these give findings of their own all the same?
    pub generate: bool,
    /// Its own tests: of a metric or of matches.
    pub tests: Vec<SeriesTest>,
    /// Its own tests: of watched values.
    pub event_tests: Vec<RuleTest>,
    /// Where it begins.
    pub place: Place,
}

/// A test of a baseline: what a function or group does, stretch by stretch, and what must be said of it.
#[derive(Debug, Clone)]
pub struct SeriesTest {
    /// What it shows.
    pub name: String,
    /// What it does.
    pub series: Vec<Stretch>,
    /// How many episodes must be said; `None` for at least one.
    pub expect: Option<u64>,
    /// Where it begins.
    pub place: Place,
}

/// A stretch of time in which a function does the same all the while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// How long.
    pub minutes: i64,
    /// After so many minutes it is twice as much; 0 for never.
    pub grows: u64,
    /// What it does in a minute.
    pub cell: Cell,
}

/// What a document turned out to be.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Rule(Box<Rule>),
    Correlation(Box<CorrelationRule>),
    Filter(Box<Filter>),
    Baseline(Box<BaselineRule>),
    Automation(Box<(Automation, Rule)>),
}

/// Checks one document. All its mistakes are added to `mistakes`; without an error among them it gives a document.
pub(crate) fn document(
    node: &Node,
    placeholders: &Placeholders,
    mistakes: &mut Vec<Mistake>,
) -> Option<Document> {
    if !matches!(node.yaml, Yaml::Map(_)) {
        mistakes.push(Mistake::new(
            node.place,
            format!(
                "a rule is a map with `title`, `logsource` and `detection`, this is {}",
                node.kind()
            ),
        ));
        return None;
    }
    let before = mistakes.len();
    let document = if node.get("correlation").is_some() {
        correlation::correlation(node, mistakes).map(|c| Document::Correlation(Box::new(c)))
    } else if node.get("automation").is_some() {
        automation::automation(node, mistakes).map(|a| Document::Automation(Box::new(a)))
    } else if node.get("filter").is_some() {
        filter::filter(node, placeholders, mistakes).map(|f| Document::Filter(Box::new(f)))
    } else if node.get("baseline").is_some() {
        baseline::baseline(node, mistakes).map(|b| Document::Baseline(Box::new(b)))
    } else {
        single(node, placeholders, mistakes).map(|r| Document::Rule(Box::new(r)))
    };
    let failed = mistakes[before..]
        .iter()
        .any(|m| m.weight == crate::error::Weight::Error);
    document.filter(|_| !failed)
}

fn single(node: &Node, placeholders: &Placeholders, mistakes: &mut Vec<Mistake>) -> Option<Rule> {
    let info = info(node, mistakes);
    let logsource = required_logsource(node, mistakes);
    let tests = tests(node, mistakes);
    let Some((key, found)) = node.entry("detection") else {
        let hint = nearest_key(node, "detection");
        mistakes.push(Mistake::new(node.place, "`detection` is missing").hint(hint));
        return None;
    };
    let detection = detection::detection(key, found, &["timeframe"], placeholders, mistakes)?;
    if let Some((key, _)) = found.entry("timeframe") {
        let message = "`timeframe` is no longer part of Sigma and does nothing here";
        mistakes.push(
            Mistake::new(key.place, message)
                .hint("write a correlation document")
                .advice("timeframe"),
        );
    }
    Some(Rule {
        info,
        name: node.get("name").and_then(Node::scalar),
        logsource,
        selections: detection.selections,
        condition: detection.condition,
        condition_text: detection.condition_text,
        tests,
        place: node.place,
    })
}

fn required_logsource(node: &Node, mistakes: &mut Vec<Mistake>) -> Logsource {
    match node.get("logsource") {
        Some(found) => logsource(found, mistakes),
        None => {
            let hint = "say which logs it reads, such as `product: aws` and `service: cloudtrail`";
            mistakes.push(Mistake::new(node.place, "`logsource` is missing").hint(hint));
            Logsource::default()
        }
    }
}

fn logsource(node: &Node, mistakes: &mut Vec<Mistake>) -> Logsource {
    let Yaml::Map(entries) = &node.yaml else {
        mistakes.push(Mistake::new(
            node.place,
            format!("`logsource` must be a map, this is {}", node.kind()),
        ));
        return Logsource::default();
    };
    let part = |name: &str| {
        node.get(name)
            .and_then(Node::scalar)
            .map(|s| s.to_lowercase())
    };
    let found = Logsource {
        product: part("product"),
        service: part("service"),
        category: part("category"),
    };
    if found == Logsource::default() {
        for (key, _) in entries {
            let text = key.scalar().unwrap_or_default();
            if let Some(near) =
                nearest(&text, ["product", "service", "category"]).filter(|_| text != "definition")
            {
                mistakes.push(
                    Mistake::new(key.place, format!("unknown part `{text}` of `logsource`"))
                        .hint(format!("did you mean `{near}`?")),
                );
                return found;
            }
        }
        mistakes.push(
            Mistake::new(
                node.place,
                "`logsource` names no product, service or category: the rule looks at every event",
            )
            .advice("logsource-empty"),
        );
    }
    found
}

fn texts(node: &Node, key: &str) -> Vec<String> {
    match node.get(key) {
        Some(Node {
            yaml: Yaml::List(items),
            ..
        }) => items.iter().filter_map(Node::scalar).collect(),
        Some(other) => other.scalar().into_iter().collect(),
        None => Vec::new(),
    }
}

fn info(node: &Node, mistakes: &mut Vec<Mistake>) -> RuleInfo {
    let text = |key: &str| node.get(key).and_then(Node::scalar).unwrap_or_default();
    let title = text("title");
    if title.is_empty() {
        mistakes
            .push(Mistake::new(node.place, "`title` is missing").hint(nearest_key(node, "title")));
    }
    let id = text("id");
    if !id.is_empty()
        && !is_uuid(&id)
        && let Some(found) = node.get("id")
    {
        mistakes.push(Mistake::new(found.place, format!("id `{id}` is no UUID")).advice("id-form"));
    }
    let level = text("level");
    let severity = Severity::from_level(&level.to_lowercase());
    if severity.is_none()
        && let Some(found) = node.get("level")
    {
        let hint = "use informational, low, medium, high or critical";
        mistakes.push(Mistake::new(found.place, format!("unknown level `{level}`")).hint(hint));
    }
    let staged = match node.get("staging").map(|n| (&n.yaml, n.place)) {
        None => false,
        Some((Yaml::Bool(staged), _)) => *staged,
        Some((_, place)) => {
            mistakes.push(Mistake::new(place, "`staging` is `true` or `false`"));
            false
        }
    };
    RuleInfo {
        staged,
        id: if id.is_empty() { title.clone() } else { id },
        title,
        description: text("description").trim_end().to_owned(),
        author: text("author"),
        // Sigma lets the level out; nobody should miss such a rule, nor be woken by it.
        severity: severity.unwrap_or(Severity::Medium),
        status: text("status"),
        tags: texts(node, "tags"),
        false_positives: texts(node, "falsepositives"),
        next_steps: texts(node, "next_steps"),
        references: texts(node, "references"),
        yaml: String::new(),
        file: String::new(),
        correlation: None,
    }
}

pub(crate) fn is_uuid(id: &str) -> bool {
    id.len() == 36
        && id.char_indices().all(|(i, c)| {
            if matches!(i, 8 | 13 | 18 | 23) {
                c == '-'
            } else {
                c.is_ascii_hexdigit()
            }
        })
}

fn nearest_key(node: &Node, wanted: &str) -> String {
    let Yaml::Map(entries) = &node.yaml else {
        return String::new();
    };
    let keys: Vec<String> = entries.iter().filter_map(|(k, _)| k.scalar()).collect();
    keys.iter()
        .find(|k| nearest(k, [wanted]).is_some())
        .map(|k| format!("`{k}` stands here: did you mean `{wanted}`?"))
        .unwrap_or_default()
}
