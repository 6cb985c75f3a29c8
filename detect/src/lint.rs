//! Advice about rules: the forms that the specification asks for, and what experience advises.
//!
//! [`lint`] reads the files of a rule set once more, since forms are a matter of the text, and looks at the loaded set
//! for what a rule means. It gives warnings only; what cannot be run is refused by `rule_set`. Every piece of advice
//! has a short code, listed in [`CODES`]; a document silences codes with the key `lint-ignore`. `document` looks at
//! keys, `tags` at tags, `logic` at what a rule can match, `across` at rules side by side.

mod across;
mod document;
mod logic;
mod tags;

use std::collections::{BTreeMap, HashMap};

use event::Time;

use crate::error::{Mistake, Problem, Weight, nearest};
use crate::rule_set::{RuleFile, RuleSet, collection};
use crate::yaml::{self, Node, Place, Yaml};

/// Every code of advice and what it says, in alphabetical order.
pub const CODES: &[(&str, &str)] = &[
    ("all-single", "`|all` on a single value does nothing"),
    ("always-true", "the condition holds for every event"),
    (
        "correlation-logsource",
        "a correlation counts rules of different logs",
    ),
    (
        "date-form",
        "`date` or `modified` is no YYYY-MM-DD, or they are the wrong way round",
    ),
    ("description-missing", "nothing says what the rule means"),
    (
        "duplicate-logic",
        "another rule asks the same of the same logs",
    ),
    (
        "exception-expired",
        "the last day of an exception is over: it cuts no more",
    ),
    ("exception-expires", "an exception ends within two weeks"),
    ("exception-expiry", "an exception with an owner and no end"),
    ("exception-owner", "an exception with an end and no owner"),
    (
        "falsepositives-missing",
        "nothing says which harmless causes are known",
    ),
    (
        "filter-direction",
        "tools read the filter's condition in opposite ways",
    ),
    (
        "filter-idle",
        "the filter cuts into no rule, or not into one that it names",
    ),
    (
        "group-by-missing",
        "a correlation without `group-by` counts everything together",
    ),
    ("id-form", "the id is no UUID"),
    (
        "id-missing",
        "the rule has no id; a new title makes it another rule",
    ),
    ("key-unknown", "a key that looks like a misspelt one"),
    (
        "level-missing",
        "the rule has no level; it counts as medium",
    ),
    (
        "lint-ignore",
        "`lint-ignore` names a code that does not exist",
    ),
    (
        "logsource-empty",
        "the logsource names nothing: the rule looks at every event",
    ),
    (
        "name-twice",
        "another rule has the same name: a reference means the first",
    ),
    (
        "negation-only",
        "the condition holds for events that fit no selection",
    ),
    ("never-matches", "a part of the rule can never hold"),
    ("null-in-list", "`null` stands in a list of values"),
    (
        "reference-by-title",
        "a rule is referred to by its title, which may change",
    ),
    ("related-form", "`related` is no list of `{id, type}`"),
    (
        "selection-unused",
        "the condition does not name a selection",
    ),
    ("status-deprecated", "the rule is deprecated or unsupported"),
    ("status-form", "the status is none of the specification's"),
    (
        "tag-form",
        "a tag is not of the form namespace.name in lower case, or stands twice",
    ),
    ("tag-unknown", "a tag that its namespace does not have"),
    ("tests-missing", "the rule has no tests"),
    (
        "tests-one-sided",
        "the tests show only what matches, or only what does not",
    ),
    (
        "text-length",
        "a title above 256 characters or a description above 65,535",
    ),
    ("timeframe", "`timeframe` is no longer part of Sigma"),
    ("value-twice", "a value stands twice in a list"),
    ("wildcard-only", "a value that every value fits"),
];

/// What a good rule set would have otherwise. `today` decides which exceptions are over or soon will be.
pub fn lint(files: &[RuleFile], set: &RuleSet, today: Time) -> Vec<Problem> {
    let mut found: Vec<(usize, Mistake)> = Vec::new();
    let mut silent = Vec::new();
    let by_place = loaded(set);
    for (number, file) in files.iter().enumerate() {
        // What is no YAML was refused already.
        let documents = yaml::documents(&file.text).unwrap_or_default();
        let mut mistakes = Vec::new();
        for node in collection(documents, &mut Vec::new()) {
            silent.push(silenced(number, &node));
            let rule = by_place.get(&(file.path.as_str(), node.place)).copied();
            // A rule that is only counted says nothing by itself: its correlation is what people read.
            let is_read = rule.is_none_or(|number| set.generates[number]);
            document::check(&node, is_read, &mut mistakes);
            codes(&node, &mut mistakes);
            if let Some(number) = rule {
                logic::check(&set.rules[number], &node, &mut mistakes);
            }
        }
        found.extend(mistakes.into_iter().map(|m| (number, m)));
    }
    let numbers: HashMap<&str, usize> = files.iter().map(|f| f.path.as_str()).zip(0..).collect();
    across::check(set, today, &mut |path: &str, mistake| {
        found.extend(numbers.get(path).map(|number| (*number, mistake)));
    });
    found.retain(|(file, mistake)| !is_silenced(&silent, *file, mistake));
    found.sort_by_key(|(file, mistake)| (*file, mistake.place));
    found
        .into_iter()
        .map(|(file, mistake)| mistake.in_file(&files[file].path, &files[file].text))
        .collect()
}

/// The numbers of the loaded rules by where they stand.
fn loaded(set: &RuleSet) -> BTreeMap<(&str, Place), usize> {
    let places = set.rules.iter().map(|r| (r.info.file.as_str(), r.place));
    places.zip(0..).collect()
}

/// Codes in `lint-ignore` that do not exist.
fn codes(node: &Node, mistakes: &mut Vec<Mistake>) {
    let Some(found) = node.get("lint-ignore") else {
        return;
    };
    for word in ignored(node) {
        if CODES.iter().all(|(code, _)| *code != word) {
            let hint = nearest(&word, CODES.iter().map(|(code, _)| *code))
                .map(|near| format!("did you mean `{near}`?"))
                .unwrap_or_default();
            let mistake = Mistake::new(found.place, format!("there is no advice `{word}`"));
            mistakes.push(mistake.hint(hint).advice("lint-ignore"));
        }
    }
}

fn ignored(node: &Node) -> Vec<String> {
    match node.get("lint-ignore") {
        Some(Node {
            yaml: Yaml::List(items),
            ..
        }) => items.iter().filter_map(Node::scalar).collect(),
        Some(other) => other.scalar().into_iter().collect(),
        None => Vec::new(),
    }
}

/// The codes that one document silences, with the number of its file and where it begins.
pub(crate) struct Silenced {
    file: usize,
    begin: Place,
    codes: Vec<String>,
}

/// What a document silences. One that silences nothing counts too: the one before it ends there.
pub(crate) fn silenced(file: usize, node: &Node) -> Silenced {
    Silenced {
        file,
        begin: node.place,
        codes: ignored(node),
    }
}

/// Does the document that a piece of advice is about not want to hear it?
pub(crate) fn is_silenced(silenced: &[Silenced], file: usize, mistake: &Mistake) -> bool {
    let (Some(code), Some(place), Weight::Warning) = (mistake.code, mistake.place, mistake.weight)
    else {
        return false;
    };
    let mut documents = silenced
        .iter()
        .filter(|s| s.file == file && s.begin <= place);
    documents
        .next_back()
        .is_some_and(|s| s.codes.iter().any(|c| c == code))
}
