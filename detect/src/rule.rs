//! A checked rule, and how documents become rules.
//!
//! `document` takes one YAML document and gives a [`Rule`], a [`CorrelationRule`] or the mistakes in it.
//! Which files there are, and what refers to what, is the business of `rule_set`.

mod correlation;

use event::{RuleInfo, Severity};

use crate::condition::{self, Condition};
use crate::error::{Mistake, nearest};
use crate::item::{self, Item, Placeholders};
use crate::yaml::{Node, Place, Yaml};

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

/// One test of a rule, from its `tests:`.
#[derive(Debug, Clone)]
pub struct RuleTest {
    /// What it shows.
    pub name: String,
    /// The records, as a source would deliver them.
    pub events: Vec<serde_json::Value>,
    /// How many findings they must give; `None` means at least one.
    pub expect: Option<u64>,
    /// Where it stands.
    pub place: Place,
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

/// What a document turned out to be.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Rule(Box<Rule>),
    Correlation(Box<CorrelationRule>),
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
    } else if let Some((key, _)) = node.entry("filter") {
        mistakes.push(
            Mistake::new(key.place, "filter documents are not supported yet")
                .hint("say it in the rule: `and not` a selection"),
        );
        None
    } else if let Some((key, _)) = node.entry("baseline") {
        mistakes.push(
            Mistake::new(key.place, "baseline documents are not supported yet")
                .hint("use a correlation of type event_count with a threshold"),
        );
        None
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
    let logsource =
        match node.get("logsource") {
            Some(found) => logsource(found, mistakes),
            None => {
                mistakes.push(Mistake::new(node.place, "`logsource` is missing").hint(
                    "say which logs it reads, such as `product: aws` and `service: cloudtrail`",
                ));
                Logsource::default()
            }
        };
    let tests = tests(node, mistakes);
    let Some((key, detection)) = node.entry("detection") else {
        let hint = nearest_key(node, "detection");
        mistakes.push(Mistake::new(node.place, "`detection` is missing").hint(hint));
        return None;
    };
    let Yaml::Map(entries) = &detection.yaml else {
        mistakes.push(Mistake::new(
            key.place,
            format!("`detection` must be a map, this is {}", detection.kind()),
        ));
        return None;
    };
    let mut selections = Vec::new();
    let mut fine = true;
    for (name, value) in entries {
        let text = name.scalar().unwrap_or_default();
        if text == "condition" || text == "timeframe" {
            if text == "timeframe" {
                mistakes.push(
                    Mistake::new(
                        name.place,
                        "`timeframe` is no longer part of Sigma and does nothing here",
                    )
                    .hint("write a correlation document")
                    .warning(),
                );
            }
            continue;
        }
        let selection = selection(value, placeholders, mistakes, 0);
        fine &= selection.is_some();
        selections.push((text, selection.unwrap_or(Selection::Any(Vec::new()))));
    }
    let names: Vec<String> = selections.iter().map(|(n, _)| n.clone()).collect();
    let Some((_, condition)) = detection.entry("condition") else {
        mistakes.push(
            Mistake::new(key.place, "`condition` is missing")
                .hint("say which selections must hold, such as `condition: selection`"),
        );
        return None;
    };
    let parts: Vec<&Node> = if let Yaml::List(items) = &condition.yaml {
        items.iter().collect()
    } else {
        vec![condition]
    };
    let mut conditions = Vec::new();
    let mut texts = Vec::new();
    for part in parts {
        match part.scalar() {
            Some(text) => match condition::parse(&text, part.place, &names) {
                Ok(parsed) => {
                    conditions.push(parsed);
                    texts.push(text);
                }
                Err(mistake) => mistakes.push(mistake),
            },
            None => mistakes.push(Mistake::new(
                part.place,
                format!("a condition is a text, this is {}", part.kind()),
            )),
        }
    }
    if !fine || conditions.is_empty() {
        return None;
    }
    let condition = if conditions.len() == 1 {
        conditions.remove(0)
    } else {
        Condition::Or(conditions)
    };
    unused(&names, &condition, entries, mistakes);
    let name = node.get("name").and_then(Node::scalar);
    Some(Rule {
        info,
        name,
        logsource,
        selections,
        condition,
        condition_text: texts.join(" or "),
        tests,
        place: node.place,
    })
}

/// Warns of selections that no condition names.
fn unused(
    names: &[String],
    condition: &Condition,
    entries: &[(Node, Node)],
    mistakes: &mut Vec<Mistake>,
) {
    fn used(condition: &Condition, out: &mut Vec<usize>) {
        match condition {
            Condition::Selection(i) => out.push(*i),
            Condition::Not(inner) => used(inner, out),
            Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|p| used(p, out)),
        }
    }
    let mut seen = Vec::new();
    used(condition, &mut seen);
    for (i, name) in names.iter().enumerate() {
        if !seen.contains(&i)
            && let Some((key, _)) = entries
                .iter()
                .find(|(k, _)| k.scalar().as_ref() == Some(name))
        {
            mistakes.push(
                Mistake::new(
                    key.place,
                    format!("selection `{name}` is not used by the condition"),
                )
                .warning(),
            );
        }
    }
}

/// One selection; its mistakes are added to `mistakes`, all of them.
fn selection(
    node: &Node,
    placeholders: &Placeholders,
    mistakes: &mut Vec<Mistake>,
    depth: usize,
) -> Option<Selection> {
    let refuse = |mistakes: &mut Vec<Mistake>, message: &str| {
        mistakes.push(Mistake::new(node.place, message));
        None
    };
    let single = |mut parts: Vec<Selection>, join: fn(Vec<Selection>) -> Selection| {
        if parts.len() == 1 {
            parts.remove(0)
        } else {
            join(parts)
        }
    };
    match &node.yaml {
        _ if depth > 8 => refuse(mistakes, "selections are nested too deep"),
        Yaml::Null => refuse(mistakes, "this selection is empty"),
        Yaml::Map(entries) if entries.is_empty() => refuse(mistakes, "this selection is empty"),
        Yaml::List(items) if items.is_empty() => refuse(mistakes, "this selection is empty"),
        Yaml::Map(entries) => {
            let parts: Vec<_> = entries
                .iter()
                .map(|(key, value)| take(line(key, value, placeholders, mistakes), mistakes))
                .collect();
            parts
                .into_iter()
                .collect::<Option<_>>()
                .map(|parts| single(parts, Selection::All))
        }
        Yaml::List(items) => {
            let parts: Vec<_> = items
                .iter()
                .map(|n| match n.yaml {
                    Yaml::Map(_) | Yaml::List(_) => selection(n, placeholders, mistakes, depth + 1),
                    _ => take(item::keyword(n), mistakes),
                })
                .collect();
            parts
                .into_iter()
                .collect::<Option<_>>()
                .map(|parts| single(parts, Selection::Any))
        }
        _ => take(item::keyword(node), mistakes),
    }
}

fn take(item: Result<Item, Mistake>, mistakes: &mut Vec<Mistake>) -> Option<Selection> {
    item.map_err(|mistake| mistakes.push(mistake))
        .ok()
        .map(Selection::Item)
}

fn line(
    key: &Node,
    value: &Node,
    placeholders: &Placeholders,
    mistakes: &mut Vec<Mistake>,
) -> Result<Item, Mistake> {
    if let Yaml::Map(_) = value.yaml {
        let message = format!(
            "the value of `{}` cannot be a map",
            key.scalar().unwrap_or_default()
        );
        return Err(Mistake::new(value.place, message)
            .hint("join the keys with dots: `userIdentity.type: Root`"));
    }
    item::parse(key, value, placeholders, mistakes)
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
            .warning(),
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
        mistakes.push(Mistake::new(found.place, format!("id `{id}` is no UUID")).warning());
    }
    let level = text("level");
    let severity = Severity::from_level(&level.to_lowercase());
    if severity.is_none()
        && let Some(found) = node.get("level")
    {
        let hint = "use informational, low, medium, high or critical";
        mistakes.push(Mistake::new(found.place, format!("unknown level `{level}`")).hint(hint));
    }
    RuleInfo {
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

fn is_uuid(id: &str) -> bool {
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

fn tests(node: &Node, mistakes: &mut Vec<Mistake>) -> Vec<RuleTest> {
    let Some((key, list)) = node.entry("tests") else {
        return Vec::new();
    };
    let Yaml::List(items) = &list.yaml else {
        mistakes.push(Mistake::new(key.place, "`tests` must be a list"));
        return Vec::new();
    };
    let mut tests = Vec::new();
    for item in items {
        let name = item
            .get("name")
            .and_then(Node::scalar)
            .unwrap_or_else(|| format!("test on line {}", item.place.line));
        let Some(Node {
            yaml: Yaml::List(events),
            ..
        }) = item.get("events")
        else {
            mistakes.push(Mistake::new(item.place, "a test needs a list `events`"));
            continue;
        };
        let expect = match item.get("expect") {
            Some(e) if e.as_text() == Some("match") => None,
            Some(e) if e.as_text() == Some("no_match") => Some(0),
            Some(e) => match e
                .get("count")
                .and_then(Node::scalar)
                .and_then(|n| n.parse().ok())
            {
                Some(count) => Some(count),
                None => {
                    mistakes.push(Mistake::new(
                        e.place,
                        "`expect` is `match`, `no_match` or `{count: N}`",
                    ));
                    continue;
                }
            },
            None => {
                mistakes.push(
                    Mistake::new(item.place, "`expect` is missing")
                        .hint("`match`, `no_match` or `{count: N}`"),
                );
                continue;
            }
        };
        tests.push(RuleTest {
            name,
            events: events.iter().map(Node::to_json).collect(),
            expect,
            place: item.place,
        });
    }
    tests
}
