//! The condition of a correlation: limits of a measure, or an expression of the rules that must be seen.
//!
//! A map compares what the type measures, every comparison in it must hold: `{gte: 5, lt: 100, field: user}`. A text
//! is an expression over the rules, `a and (b or c) and not d`, for the temporal types; it is turned into
//! alternatives of rules that must and rules that must not be seen. A temporal type without condition asks for all
//! of its rules. What can never hold, or what every match fulfils, is a mistake.

use crate::condition::{self, Condition as Tree};
use crate::error::{Mistake, Weight, nearest};
use crate::window::{Clause, Comparison, Condition, MOST_RULES, Measure};
use crate::yaml::{Node, Place, Yaml};

/// How many matches or values a condition may ask for.
const MOST_COUNT: f64 = 1_000_000.0;

/// How many alternatives an expression may have.
const MOST_CLAUSES: usize = 256;

/// How many ways there may be to pick rules in order for each of them to be followed by itself.
const MOST_PICKS: usize = 64;

/// What the document asks a condition for.
pub(super) struct Asked<'a> {
    pub(super) kind: &'a str,
    pub(super) rules: &'a [(String, Place)],
    /// Where the correlation begins.
    pub(super) correlation: Place,
}

impl Asked<'_> {
    fn is_temporal(&self) -> bool {
        matches!(self.kind, "temporal" | "temporal_ordered")
    }

    /// Is a number of something compared, rather than a quantity?
    fn counts(&self) -> bool {
        self.is_temporal() || matches!(self.kind, "event_count" | "value_count")
    }

    /// Every rule as a bit.
    fn all(&self) -> u64 {
        (0..self.rules.len()).fold(0, |all, n| all | 1 << n)
    }
}

/// The rules that an expression names, in order of appearance.
pub(super) fn names(text: &str, place: Place) -> Vec<(String, Place)> {
    let word = |c: char| !c.is_whitespace() && !matches!(c, '(' | ')' | '|');
    let mut names: Vec<(String, Place)> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(word) {
        rest = &rest[start..];
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        let name = &rest[..end];
        let at = text.len() - rest.len();
        let is_word = ["and", "or", "not"]
            .iter()
            .any(|w| name.eq_ignore_ascii_case(w));
        if !is_word && !names.iter().any(|(known, _)| known == name) {
            names.push((name.to_owned(), place.plus(text[..at].chars().count())));
        }
        rest = &rest[end..];
    }
    names
}

/// The fields that are measured, and the condition if it is one.
pub(super) fn read(
    asked: &Asked<'_>,
    node: Option<&Node>,
    mistakes: &mut Vec<Mistake>,
) -> (Vec<String>, Option<Condition>) {
    let before = mistakes.len();
    if asked.is_temporal() && asked.rules.len() > MOST_RULES {
        let message = format!("a temporal correlation refers to at most {MOST_RULES} rules");
        mistakes.push(
            Mistake::new(asked.rules[MOST_RULES].1, message)
                .hint("split it, and refer to the parts from another correlation"),
        );
        return (Vec::new(), None);
    }
    let (fields, condition) = match node {
        None if asked.is_temporal() => (Vec::new(), Some(seen(asked, Vec::new()))),
        None => {
            mistakes.push(
                Mistake::new(
                    asked.correlation,
                    "`condition` of the correlation is missing",
                )
                .hint("such as `condition: {gte: 5}`"),
            );
            (Vec::new(), None)
        }
        Some(node) => match &node.yaml {
            Yaml::Map(entries) => map(asked, node, entries, mistakes),
            _ => (Vec::new(), expression(asked, node, mistakes)),
        },
    };
    let place = node.map_or(asked.correlation, |n| n.place);
    if !asked.kind.is_empty()
        && let Some(condition) = &condition
    {
        possible(asked, condition, place, mistakes);
    }
    let failed = mistakes[before..].iter().any(|m| m.weight == Weight::Error);
    (fields, condition.filter(|_| !failed))
}

fn map(
    asked: &Asked<'_>,
    node: &Node,
    entries: &[(Node, Node)],
    mistakes: &mut Vec<Mistake>,
) -> (Vec<String>, Option<Condition>) {
    let mut limits = Vec::new();
    let (mut fields, mut percentile) = (Vec::new(), None);
    for (key, value) in entries {
        let word = key.scalar().unwrap_or_default();
        match word.as_str() {
            "field" if asked.kind == "event_count" => {
                mistakes.push(Mistake::new(key.place, "event_count has no `field`").warning());
            }
            "field" if asked.is_temporal() => {
                mistakes.push(
                    Mistake::new(key.place, format!("{} has no `field`", asked.kind)).warning(),
                );
            }
            "field" => fields = texts(value, mistakes),
            "percentile" if asked.kind == "value_percentile" => {
                percentile = number(value).filter(|p| (0.0..=100.0).contains(p));
                if percentile.is_none() {
                    mistakes.push(
                        Mistake::new(value.place, "`percentile` is a number from 0 to 100")
                            .hint("such as `percentile: 95`"),
                    );
                }
            }
            "percentile" => {
                let message = format!("{} has no `percentile`", asked.kind);
                mistakes.push(Mistake::new(key.place, message).hint("value_percentile has"));
            }
            _ => match comparison(&word) {
                Some(comparison) => {
                    if let Some(limit) = limit(asked, &word, value, mistakes) {
                        limits.push((comparison, limit));
                    }
                }
                None => {
                    let known = ["gt", "gte", "lt", "lte", "eq", "neq", "field", "percentile"];
                    let hint = nearest(&word, known)
                        .map_or(String::new(), |n| format!("did you mean `{n}`?"));
                    let message = format!("unknown condition `{word}`");
                    mistakes.push(Mistake::new(key.place, message).hint(hint));
                }
            },
        }
    }
    if limits.is_empty() && !mistakes.iter().any(|m| m.weight == Weight::Error) {
        mistakes.push(
            Mistake::new(node.place, "the condition compares nothing")
                .hint("add `gt`, `gte`, `lt`, `lte`, `eq` or `neq`"),
        );
    }
    let is_value = asked.kind.starts_with("value_");
    if is_value && fields.is_empty() {
        mistakes.push(
            Mistake::new(node.place, format!("{} needs a `field`", asked.kind))
                .hint("name the field in the condition, such as `{field: user, gte: 5}`"),
        );
    }
    if is_value && fields.len() > 1 && asked.kind != "value_count" {
        mistakes.push(
            Mistake::new(node.place, format!("{} has one `field`", asked.kind))
                .hint("only value_count takes several, and counts their combinations"),
        );
    }
    if asked.kind == "value_percentile" && percentile.is_none() {
        mistakes.push(
            Mistake::new(node.place, "without `percentile` the median is taken")
                .hint("such as `percentile: 95`")
                .warning(),
        );
    }
    let measure = match asked.kind {
        "temporal" | "temporal_ordered" => return (fields, Some(seen(asked, limits))),
        "value_count" => Measure::Values,
        "value_sum" => Measure::Sum,
        "value_avg" => Measure::Average,
        "value_percentile" => Measure::Percentile(percentile.unwrap_or(50.0)),
        "value_median" => Measure::Percentile(50.0),
        _ => Measure::Events,
    };
    (fields, Some(Condition { measure, limits }))
}

fn comparison(word: &str) -> Option<Comparison> {
    Some(match word {
        "gt" => Comparison::Greater,
        "gte" => Comparison::GreaterOrEqual,
        "lt" => Comparison::Less,
        "lte" => Comparison::LessOrEqual,
        "eq" => Comparison::Equal,
        "neq" => Comparison::NotEqual,
        _ => return None,
    })
}

fn number(node: &Node) -> Option<f64> {
    let number: f64 = node.scalar()?.trim().parse().ok()?;
    number.is_finite().then_some(number)
}

fn limit(asked: &Asked<'_>, word: &str, value: &Node, mistakes: &mut Vec<Mistake>) -> Option<f64> {
    let number = number(value);
    let whole = |n: &f64| n.fract() == 0.0 && (0.0..=MOST_COUNT).contains(n);
    let (limit, wanted) = match asked.counts() {
        true => (number.filter(whole), "a whole number from 0 to 1,000,000"),
        false => (number, "a number"),
    };
    if limit.is_none() {
        mistakes.push(Mistake::new(
            value.place,
            format!("`{word}` needs {wanted}"),
        ));
    }
    limit
}

fn texts(node: &Node, mistakes: &mut Vec<Mistake>) -> Vec<String> {
    let nodes = match &node.yaml {
        Yaml::List(items) => items.iter().collect(),
        _ => vec![node],
    };
    let mut texts = Vec::new();
    for node in nodes {
        match node.scalar().filter(|t| !t.is_empty()) {
            Some(text) => texts.push(text),
            None => mistakes.push(Mistake::new(
                node.place,
                format!(
                    "`field` is a text or a list of texts, this is {}",
                    node.kind()
                ),
            )),
        }
    }
    texts
}

/// So many of the rules; all of them where nothing is said.
fn seen(asked: &Asked<'_>, limits: Vec<(Comparison, f64)>) -> Condition {
    let rules = asked.rules.len() as u32;
    let ordered = asked.kind == "temporal_ordered";
    let lower =
        |l: &(Comparison, f64)| matches!(l.0, Comparison::Greater | Comparison::GreaterOrEqual);
    if !ordered {
        let all = vec![(Comparison::GreaterOrEqual, f64::from(rules))];
        return Condition {
            measure: Measure::Rules(rules),
            limits: if limits.is_empty() { all } else { limits },
        };
    }
    let clause = |with| Clause { with, without: 0 };
    let expression = |clauses: Vec<Clause>| Condition {
        measure: Measure::Expression {
            rules,
            ordered: true,
            clauses,
        },
        limits: Vec::new(),
    };
    if limits.is_empty() {
        return expression(vec![clause(asked.all())]);
    }
    let measured = Condition {
        measure: Measure::Ordered(rules),
        limits,
    };
    // So many rules in order are one of the picks of that size; each is followed by itself, at once.
    if measured.limits.iter().all(lower)
        && let Some(size) = (1..=rules).find(|n| measured.admits(f64::from(*n)))
        && let Some(picks) = picks(rules, size)
    {
        return expression(picks.into_iter().map(clause).collect());
    }
    measured
}

/// All sets of `size` rules, if they are few.
fn picks(rules: u32, size: u32) -> Option<Vec<u64>> {
    let mut picks = vec![0_u64];
    for _ in 0..size {
        let longer = |pick: &u64| -> Vec<u64> {
            let next = u64::BITS - pick.leading_zeros();
            (next..rules).map(|rule| pick | 1 << rule).collect()
        };
        picks = picks.iter().flat_map(longer).collect();
        if picks.len() > MOST_PICKS * 64 {
            return None;
        }
    }
    (picks.len() <= MOST_PICKS).then_some(picks)
}

fn expression(asked: &Asked<'_>, node: &Node, mistakes: &mut Vec<Mistake>) -> Option<Condition> {
    let Some(text) = node.as_text() else {
        let message = format!(
            "the condition is a map such as `gte: 5`, this is {}",
            node.kind()
        );
        mistakes.push(Mistake::new(node.place, message));
        return None;
    };
    if !asked.is_temporal() {
        if !asked.kind.is_empty() {
            let message = format!("the condition of {} is a map", asked.kind);
            mistakes.push(
                Mistake::new(node.place, message)
                    .hint("such as `gte: 5`; expressions are for temporal and temporal_ordered"),
            );
        }
        return None;
    }
    let names: Vec<String> = asked.rules.iter().map(|(n, _)| n.clone()).collect();
    let tree = match condition::parse(text, node.place, &names) {
        Ok(tree) => tree,
        Err(mut mistake) => {
            mistake.message = mistake.message.replace("selection", "rule");
            mistake.hint = mistake.hint.replace("selection", "rule");
            mistakes.push(mistake);
            return None;
        }
    };
    let mut used = 0;
    mark(&tree, &mut used);
    for (n, (name, place)) in asked.rules.iter().enumerate() {
        if used >> n & 1 == 0 {
            let message = format!("the condition does not name rule `{name}`");
            mistakes
                .push(Mistake::new(*place, message).hint("name it there, or take it off `rules`"));
        }
    }
    let Some(clauses) = alternatives(&tree, false) else {
        let message = format!("the condition has more than {MOST_CLAUSES} alternatives");
        mistakes.push(Mistake::new(node.place, message).hint("split the correlation"));
        return None;
    };
    Some(Condition {
        measure: Measure::Expression {
            rules: asked.rules.len() as u32,
            ordered: asked.kind == "temporal_ordered",
            clauses,
        },
        limits: Vec::new(),
    })
}

fn mark(tree: &Tree, used: &mut u64) {
    match tree {
        Tree::Selection(n) => *used |= 1 << n,
        Tree::Not(inner) => mark(inner, used),
        Tree::And(parts) | Tree::Or(parts) => parts.iter().for_each(|p| mark(p, used)),
    }
}

/// The expression, or its opposite, as alternatives, unless they are too many.
fn alternatives(tree: &Tree, opposite: bool) -> Option<Vec<Clause>> {
    let mut all = match tree {
        Tree::Selection(n) => {
            let bit = 1 << n;
            vec![Clause {
                with: if opposite { 0 } else { bit },
                without: if opposite { bit } else { 0 },
            }]
        }
        Tree::Not(inner) => return alternatives(inner, !opposite),
        Tree::And(parts) | Tree::Or(parts) => {
            let together = matches!(tree, Tree::And(_)) != opposite;
            let mut all = if together {
                vec![Clause {
                    with: 0,
                    without: 0,
                }]
            } else {
                Vec::new()
            };
            for part in parts {
                let part = alternatives(part, opposite)?;
                if !together {
                    all.extend(part);
                } else {
                    let both = |a: &Clause| -> Vec<Clause> {
                        let both = |b: &Clause| Clause {
                            with: a.with | b.with,
                            without: a.without | b.without,
                        };
                        part.iter().map(both).collect()
                    };
                    all = all.iter().flat_map(both).collect();
                }
                all.retain(|c| c.with & c.without == 0);
                all.sort_by_key(|c| (c.with, c.without));
                all.dedup();
                if all.len() > MOST_CLAUSES {
                    return None;
                }
            }
            all
        }
    };
    all.retain(|c| c.with & c.without == 0);
    Some(all)
}

/// A condition that never holds is a mistake, and so is one that holds of every match.
fn possible(asked: &Asked<'_>, condition: &Condition, place: Place, mistakes: &mut Vec<Mistake>) {
    let never = || {
        Mistake::new(place, "the condition can never be true")
            .hint("look which comparisons contradict one another")
    };
    let (least, most) = match &condition.measure {
        Measure::Events => (1.0, f64::INFINITY),
        Measure::Values => (0.0, f64::INFINITY),
        Measure::Rules(n) | Measure::Ordered(n) => (1.0, f64::from(*n)),
        Measure::Expression { clauses, .. } => {
            // Of every window at least one rule is seen.
            if clauses.iter().all(|c| c.without == asked.all()) {
                mistakes.push(never());
            }
            return;
        }
        Measure::Sum | Measure::Average | Measure::Percentile(_) => return,
    };
    let near = condition
        .limits
        .iter()
        .flat_map(|(_, n)| [n - 1.0, *n, n + 1.0]);
    let mut tried: Vec<f64> = near.chain([least, most.min(MOST_COUNT * 2.0)]).collect();
    tried.retain(|n| least <= *n && *n <= most);
    let held = tried.iter().filter(|n| condition.admits(**n)).count();
    if held == 0 {
        mistakes.push(never());
    } else if held == tried.len() {
        let mistake = Mistake::new(place, "the condition is always true").hint("such as `gte: 5`");
        // Any of several rules within a timespan of one another can be meant.
        mistakes.push(if asked.is_temporal() {
            mistake.warning()
        } else {
            mistake
        });
    }
}
