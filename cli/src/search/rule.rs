//! `trailwarden search --rule FILE`: a rule on single events as a query that finds the events which it matches.
//!
//! [`query`] reads the file as every command does and [`translate`] makes a [`Query`] of logsource, selections and
//! condition. In a rule an original field wins over one of the envelope that bears the same name, so such a line becomes
//! both, each where it counts. What a search cannot tell exactly is refused with its place, never found in part: `cased`,
//! `fieldref`, parts of times, keywords, and patterns on whole objects, which the engine compares as JSON text.
//!
//! Two differences remain, and docs/search.md tells them: a field that is `null` counts as absent, and a number is
//! compared as it is written.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use detect::condition::Condition;
use detect::item::{Item, Op, Test as RuleTest};
use detect::pattern::Pattern as RulePattern;
use detect::rule::{Logsource, Rule, Selection};
use detect::rule_set::{RuleFile, RuleSet, Target, read};
use detect::yaml::{Node, Place, Yaml};
use event::Str;
use search::query::{Bound, Field, Limit, Part, Pattern, Query, Test, parse};

use crate::exit::Usage;

/// Objects of CloudTrail's records and of Lambda's.
pub(super) const OBJECTS: [&str; 13] = [
    "requestParameters",
    "responseElements",
    "additionalEventData",
    "serviceEventDetails",
    "resources",
    "userIdentity",
    "userIdentity.sessionContext",
    "userIdentity.sessionContext.sessionIssuer",
    "userIdentity.sessionContext.attributes",
    "tlsDetails",
    "insightDetails",
    "record",
    "record.metrics",
];

/// The group-by fields and values of a finding; a missing field is `None`.
pub(crate) type Group = BTreeMap<Str, Option<Str>>;

/// Why a rule has no query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The line of the selection as it is written, if it is one.
    pub(super) line: Option<String>,
    /// What is wrong.
    pub(super) message: String,
    /// What to do about it.
    pub(super) hint: &'static str,
}

fn refuse<T>(item: &Item, message: impl Into<String>, hint: &'static str) -> Result<T, Refusal> {
    Err(Refusal {
        line: Some(item.written.clone()),
        message: message.into(),
        hint,
    })
}

/// The query for the rule in a file, and the rule's title. `is_object` tells which fields hold objects in the index.
pub(super) fn query(
    file: &Path,
    is_object: &dyn Fn(&str) -> bool,
) -> anyhow::Result<(String, String)> {
    let files = read(file)
        .map_err(|(path, error)| {
            anyhow::Error::new(error).context(format!("cannot read rules `{}`", path.display()))
        })
        .context(Usage)?;
    let set = RuleSet::build(&files, &Default::default())
        .map_err(anyhow::Error::new)
        .context(Usage)?;
    let only = |words: &str| {
        anyhow::anyhow!(
            "cannot search by `{}`: {words}\n\nhint: give a file with one rule on single events; `trailwarden backtest` and `hunt` run all kinds of rules",
            file.display()
        )
        .context(Usage)
    };
    if !set.correlations.is_empty() || !set.baselines.is_empty() {
        return Err(only(
            "it has a correlation or baseline, which is about many events",
        ));
    }
    if !set.filters.is_empty() {
        return Err(only("it has a filter, which a search does not apply"));
    }
    let [rule] = set.rules.as_slice() else {
        return Err(only(&format!("it has {} rules", set.rules.len())));
    };
    let refused = |refusal: Refusal| pointed(&files, &refusal).context(Usage);
    let query = translate(rule, is_object).map_err(refused)?;
    Ok((
        written(&query).map_err(refused)?,
        rule.info.title.to_string(),
    ))
}

/// What the rule with this id looks at, for a group: the events that a rule on single events matches, or that any of those
/// matches that a correlation is about, with the values of the group. What of it a search cannot say is left out, so that
/// rather too much is found. None where no such rule is in the set, or the query is too large.
pub(super) fn looks_at(set: &RuleSet, id: &str, group: &Group) -> Option<String> {
    let called = |info: &event::RuleInfo| info.id == id;
    let rule = set.rules.iter().position(|rule| called(&rule.info));
    let correlation = || set.correlations.iter().position(|rule| called(&rule.info));
    let target = rule
        .map(Target::Rule)
        .or_else(|| correlation().map(Target::Correlation))?;
    let group = group.iter().map(|(k, v)| (k.to_string(), v.as_deref()));
    written(&target_query(set, target, group.collect())).ok()
}

fn target_query(set: &RuleSet, target: Target, group: Vec<(String, Option<&str>)>) -> Query {
    let number = match target {
        Target::Correlation(number) => number,
        Target::Rule(number) => {
            let matched = set
                .rules
                .get(number)
                .and_then(|rule| translate(rule, &|_| false).ok());
            let mut parts: Vec<Query> = matched.into_iter().collect();
            parts.extend(group.into_iter().map(|(name, value)| {
                let field = Field::named(&name);
                match value {
                    Some(value) => equals(&field, value),
                    None => not(Query::Exists(field)),
                }
            }));
            return match parts.is_empty() {
                true => Query::All,
                false => and(parts),
            };
        }
    };
    let (Some(rule), Some(references)) = (set.correlations.get(number), set.references.get(number))
    else {
        return Query::All;
    };
    let lower = references.iter().map(|(target, word)| {
        // An alias is another field in each of the rules.
        let own = group.iter().map(|(name, value)| {
            let alias = rule.aliases.iter().find(|(alias, _)| alias == name);
            let field = alias.and_then(|(_, fields)| fields.iter().find(|(w, _)| w == word));
            let field = field.map_or(name.as_str(), |(_, field)| field.as_str());
            (field.to_owned(), *value)
        });
        target_query(set, *target, own.collect())
    });
    let mut parts: Vec<Query> = Vec::new();
    for part in lower {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    match parts.is_empty() {
        true => Query::All,
        false => or(parts),
    }
}

/// The query as text, if it is not too large for one.
pub(super) fn written(query: &Query) -> Result<String, Refusal> {
    let text = query.to_string();
    match parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Refusal {
            line: None,
            message: format!("the query for it cannot be used: {}", error.kind),
            hint: "the rule says more than one search can: split it into several",
        }),
    }
}

/// A refusal with the place in the file.
fn pointed(files: &[RuleFile], refusal: &Refusal) -> anyhow::Error {
    let at = refusal.line.as_ref().and_then(|line| {
        files.iter().find_map(|file| {
            let documents = detect::yaml::documents(&file.text).ok()?;
            let place = documents
                .iter()
                .filter_map(|d| d.get("detection"))
                .find_map(|node| find(node, line))?;
            Some((file, place))
        })
    });
    let place = match at {
        Some((file, place)) => format!(
            "  --> {}:{}:{}\n   | {}\n   = ",
            file.path,
            place.line,
            place.column,
            event::inert::text(file.text.lines().nth(place.line - 1).unwrap_or_default())
        ),
        None => "  = ".to_owned(),
    };
    anyhow::anyhow!(
        "error: the rule cannot be run as a search\n{place}{}\n\nhint: {}",
        refusal.message,
        refusal.hint
    )
}

/// The place of the line of a selection that was written so.
fn find(node: &Node, written: &str) -> Option<Place> {
    match &node.yaml {
        Yaml::Map(entries) => entries.iter().find_map(|(key, value)| {
            let name = key.scalar().unwrap_or_default();
            let values = match &value.yaml {
                Yaml::List(items) => items.iter().map(|n| n.to_json().to_string()).collect(),
                _ => vec![value.to_json().to_string()],
            };
            match format!("{name}: {}", values.join(", ")) == written {
                true => Some(key.place),
                false => find(value, written),
            }
        }),
        Yaml::List(items) => items.iter().find_map(|item| find(item, written)),
        _ => (format!("keyword {}", node.to_json()) == written).then_some(node.place),
    }
}

/// The events that a rule matches, as a query.
pub(super) fn translate(rule: &Rule, is_object: &dyn Fn(&str) -> bool) -> Result<Query, Refusal> {
    let condition = condition(&rule.condition, rule, is_object)?;
    Ok(match logsource(&rule.logsource) {
        Query::All => condition,
        source => and(vec![source, condition]),
    })
}

/// The sources that a rule looks at; `unknown` is looked at by every rule.
fn logsource(logsource: &Logsource) -> Query {
    let source = || Field::named("source");
    let equals = |text: &str| Query::Field(source(), Test::Equals(text.to_owned()));
    let covered = match (&logsource.product, &logsource.service, &logsource.category) {
        (None, None, None) => return Query::All,
        (_, _, Some(_)) => return equals("unknown"),
        (Some(product), Some(service), None) => equals(&format!("{product}.{service}")),
        (Some(product), None, None) => or(vec![
            equals(product),
            pattern(
                source(),
                vec![Part::Literal(format!("{product}.")), Part::Any],
            ),
        ]),
        // No product of ours has a dot in it.
        (None, Some(service), None) => pattern(
            source(),
            vec![Part::Any, Part::Literal(format!(".{service}"))],
        ),
    };
    or(vec![covered, equals("unknown")])
}

fn condition(
    condition: &Condition,
    rule: &Rule,
    is_object: &dyn Fn(&str) -> bool,
) -> Result<Query, Refusal> {
    let all = |parts: &[Condition]| {
        parts
            .iter()
            .map(|part| self::condition(part, rule, is_object))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(match condition {
        Condition::Selection(number) => selection(&rule.selections[*number].1, is_object)?,
        Condition::Not(inner) => not(self::condition(inner, rule, is_object)?),
        Condition::And(parts) => and(all(parts)?),
        Condition::Or(parts) => or(all(parts)?),
    })
}

fn selection(selection: &Selection, is_object: &dyn Fn(&str) -> bool) -> Result<Query, Refusal> {
    let all = |parts: &[Selection]| {
        parts
            .iter()
            .map(|part| self::selection(part, is_object))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(match selection {
        Selection::Item(item) => line(item, is_object)?,
        Selection::All(parts) => and(all(parts)?),
        Selection::Any(parts) => or(all(parts)?),
    })
}

/// One line of a selection.
fn line(item: &Item, is_object: &dyn Fn(&str) -> bool) -> Result<Query, Refusal> {
    let Some(name) = &item.field else {
        return refuse(
            item,
            "keywords look into every value of the record, the free text of a search also into the envelope",
            "name the field, or search for the words themselves",
        );
    };
    let original = Field {
        name: name.clone(),
        original: true,
    };
    if !event::is_normalized_name(name) {
        return of_field(item, original, is_object);
    }
    // The original wins where the record has one.
    let shared = Field::named(name);
    if shared.is_time() {
        return refuse(
            item,
            format!("`{name}` is the time of the envelope"),
            "leave the line out and say the time range with --from and --to",
        );
    }
    let there = Query::Exists(original.clone());
    Ok(or(vec![
        and(vec![there.clone(), of_field(item, original, is_object)?]),
        and(vec![not(there), of_field(item, shared, is_object)?]),
    ]))
}

fn of_field(item: &Item, field: Field, is_object: &dyn Fn(&str) -> bool) -> Result<Query, Refusal> {
    // Several plain values are one look-up.
    let mut texts: Vec<String> = Vec::new();
    let mut parts = Vec::new();
    for group in &item.groups {
        let tests: Vec<Query> = group
            .iter()
            .map(|test| self::test(item, test, &field, is_object))
            .collect::<Result<_, _>>()?;
        match or(tests) {
            Query::Field(_, Test::Equals(text)) if !item.all => texts.push(text),
            other => parts.push(other),
        }
    }
    match texts.len() {
        0 => {}
        1 => parts.push(Query::Field(field, Test::Equals(texts.remove(0)))),
        _ => parts.push(Query::Field(field, Test::OneOf(texts))),
    }
    let found = if item.all { and(parts) } else { or(parts) };
    Ok(if item.negated { not(found) } else { found })
}

fn test(
    item: &Item,
    test: &RuleTest,
    field: &Field,
    is_object: &dyn Fn(&str) -> bool,
) -> Result<Query, Refusal> {
    let exists = || Query::Exists(field.clone());
    Ok(match test {
        RuleTest::Text { cased: true, .. } => {
            return refuse(
                item,
                "`cased` tells upper and lower case apart, a search does not",
                "leave `cased` out: the search then finds the same events, and those in the other case",
            );
        }
        RuleTest::Text { pattern, .. } => {
            // A text of a whole object begins with a bracket.
            let whole = matches!(pattern, RulePattern::Exact(text) if !text.starts_with('{'));
            if !whole {
                no_object(item, field, is_object)?;
            }
            text(field, pattern)
        }
        RuleTest::Number(text, _) => equals(field, text),
        RuleTest::Regex(regex) => {
            no_object(item, field, is_object)?;
            let body = regex.as_str();
            let modifiers = modifiers(item);
            let letters = letters(body);
            if letters && !modifiers.iter().any(|m| ["i", "ignorecase"].contains(m)) {
                return refuse(
                    item,
                    "the regular expression tells upper and lower case apart, a search does not",
                    "write `re|i`: the search then finds the same events, and those in the other case",
                );
            }
            let has = |names: [&str; 2]| modifiers.iter().any(|m| names.contains(m));
            let flags = match (has(["m", "multiline"]), has(["s", "dotall"])) {
                (true, true) => "ms",
                (true, false) => "m-s",
                (false, true) => "s",
                (false, false) => "-s",
            };
            matching(
                field,
                &format!("(?s:.*)(?{flags}:{})(?s:.*)", without_escaped_slash(body)),
            )
            .map_err(|message| Refusal {
                line: Some(item.written.clone()),
                message,
                hint: "write a shorter regular expression, or several",
            })?
        }
        RuleTest::Null | RuleTest::Exists(_) => {
            // An empty object is there for a rule, and has nothing to be found by.
            no_object(item, field, is_object)?;
            match test {
                RuleTest::Exists(true) => exists(),
                _ => not(exists()),
            }
        }
        RuleTest::Compare(op, number) => {
            let limit = Limit::Number(*number);
            let (from, to) = match op {
                Op::Equal => (Bound::Included(limit.clone()), Bound::Included(limit)),
                Op::Less => (Bound::Open, Bound::Excluded(limit)),
                Op::LessOrEqual => (Bound::Open, Bound::Included(limit)),
                Op::Greater => (Bound::Excluded(limit), Bound::Open),
                Op::GreaterOrEqual => (Bound::Included(limit), Bound::Open),
            };
            Query::Field(field.clone(), Test::Range(from, to))
        }
        RuleTest::Cidr(net) => Query::Field(field.clone(), Test::Cidr(*net)),
        RuleTest::Time(..) => {
            return refuse(
                item,
                "a search does not look at parts of times",
                "leave the line out; `--agg 'time:1h'` shows when things happen",
            );
        }
        RuleTest::Field { .. } => {
            return refuse(
                item,
                "a search does not compare fields with one another",
                "leave the line out and look at both fields of what is found",
            );
        }
    })
}

fn no_object(item: &Item, field: &Field, is_object: &dyn Fn(&str) -> bool) -> Result<(), Refusal> {
    if field.original && (OBJECTS.contains(&field.name.as_str()) || is_object(&field.name)) {
        return refuse(
            item,
            format!(
                "`{}` is an object, whose text a search does not look into",
                field.name
            ),
            "name a field within it; `trailwarden search --fields` lists them",
        );
    }
    Ok(())
}

fn modifiers(item: &Item) -> Vec<&str> {
    let key = item.written.split(": ").next().unwrap_or_default();
    key.split('|').skip(1).collect()
}

/// Does a regular expression have a letter that stands for itself?
fn letters(body: &str) -> bool {
    if body.starts_with("(?i)") {
        return false;
    }
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            c if c.is_alphabetic() => return true,
            _ => {}
        }
    }
    false
}

/// `\/` is written `/`, since a slash needs no escape outside of queries.
fn without_escaped_slash(body: &str) -> String {
    let mut out = String::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('/') => out.push('/'),
                Some(c) => out.extend(['\\', c]),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

fn text(field: &Field, rule: &RulePattern) -> Query {
    let needle = |bytes: &[u8]| Part::Literal(String::from_utf8_lossy(bytes).into_owned());
    let literal = |text: &str| Part::Literal(text.to_owned());
    let parts = match rule {
        RulePattern::Exact(text) => return equals(field, text),
        RulePattern::Anything => return Query::Exists(field.clone()),
        // Anchored and without case already; the parts of a pattern are gone.
        RulePattern::Regex(regex) => {
            return matching(field, &without_escaped_slash(regex.as_str()))
                .unwrap_or_else(|_| equals(field, regex.as_str()));
        }
        RulePattern::Prefix(text) => vec![literal(text), Part::Any],
        RulePattern::Suffix(text) => vec![Part::Any, literal(text)],
        RulePattern::Contains(finder) => vec![Part::Any, needle(finder.needle()), Part::Any],
        RulePattern::Pieces(first, middle, last) => {
            let mut parts = Vec::new();
            if !first.is_empty() {
                parts.push(literal(first));
            }
            parts.push(Part::Any);
            for finder in middle {
                parts.extend([needle(finder.needle()), Part::Any]);
            }
            if !last.is_empty() {
                parts.push(literal(last));
            }
            parts
        }
    };
    pattern(field.clone(), parts)
}

fn pattern(field: Field, parts: Vec<Part>) -> Query {
    Query::Field(field, Test::Wildcard(Pattern(parts)))
}

/// The whole value, also of a field of sentences.
fn equals(field: &Field, text: &str) -> Query {
    if field.is_words()
        && let Ok(whole) = matching(field, &literally(text))
    {
        return whole;
    }
    Query::Field(field.clone(), Test::Equals(text.to_owned()))
}

/// A regular expression that matches nothing but this text.
fn literally(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_punctuation() && c != '/' && c != '_' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn matching(field: &Field, regex: &str) -> Result<Query, String> {
    let text = format!("{field}:/{}/", regex.replace('/', "\\/"));
    parse(&text).map_err(|error| error.kind.to_string())
}

fn and(parts: Vec<Query>) -> Query {
    joined(parts, Query::And)
}

fn or(parts: Vec<Query>) -> Query {
    joined(parts, Query::Or)
}

fn joined(mut parts: Vec<Query>, join: fn(Vec<Query>) -> Query) -> Query {
    match parts.len() {
        1 => parts.remove(0),
        _ => join(parts),
    }
}

fn not(query: Query) -> Query {
    match query {
        Query::Not(inner) => *inner,
        query => Query::Not(Box::new(query)),
    }
}

#[cfg(test)]
mod tests;
