//! Reading the inventory: YAML, CSV, and what `aws organizations list-accounts` prints.
//!
//! [`read`] tells the form by the file's extension, takes the file apart into rows of named cells that know their place,
//! and checks all rows alike, so that every mistake of a file is told at once, each with its line and a hint. Nothing is
//! guessed and nothing passed over: an unknown key, an entry that comes twice or a number that a spreadsheet has spoilt
//! makes the whole file useless.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use detect::error::nearest;
use detect::yaml::{self, Node, Place, Yaml};
use event::Str;
use event::inventory::{Account, Function, Inventory};
use serde::Deserialize;
use serde_json::value::RawValue;

const ACCOUNT_KEYS: &[&str] = &[
    "account",
    "name",
    "ou",
    "owner",
    "environment",
    "criticality",
    "regions",
];
const FUNCTION_KEYS: &[&str] = &[
    "account",
    "region",
    "name",
    "owner",
    "environment",
    "criticality",
];
/// The columns of a CSV file: a row with a `function` is one, any other is an account.
const COLUMNS: &[&str] = &[
    "account",
    "name",
    "ou",
    "owner",
    "environment",
    "criticality",
    "regions",
    "function",
    "region",
];

/// How many bytes a value has at most: it stands in every event.
const MAX_VALUE: usize = 256;

/// One mistake of an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    path: String,
    /// Where; the column is 0 where only the line is known, both where it concerns the file as a whole.
    place: Place,
    /// The line of the file at that place.
    snippet: String,
    message: String,
    hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: cannot load inventory `{}`", self.path)?;
        write!(f, "  --> {}", self.path)?;
        match (self.place.line, self.place.column) {
            (0, _) => writeln!(f)?,
            (line, 0) => writeln!(f, ":{line}")?,
            (line, column) => writeln!(f, ":{line}:{column}")?,
        }
        if !self.snippet.is_empty() {
            writeln!(f, "   | {}", self.snippet)?;
        }
        write!(f, "   = {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\n\nhint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// Everything that is wrong with an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problems(Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join("\n\n"))
    }
}

impl std::error::Error for Problems {}

/// Reads and checks an inventory.
pub(crate) fn read(path: &Path) -> Result<Inventory, Problems> {
    let shown = path.display().to_string();
    let content = std::fs::read(path).map_err(|error| whole(&shown, error.to_string(), ""))?;
    parse(&shown, &content)
}

/// The inventory that the content of a file says; `path` is its name.
pub(super) fn parse(path: &str, content: &[u8]) -> Result<Inventory, Problems> {
    let text = std::str::from_utf8(content).map_err(|error| {
        let before = &content[..error.valid_up_to()];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let message = format!("line {line} is not UTF-8");
        whole(path, message, "save it as UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut file = File {
        path,
        text,
        rows: Vec::new(),
        problems: Vec::new(),
    };
    let extension = Path::new(path).extension().and_then(|e| e.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("yaml" | "yml") => file.yaml(),
        Some("csv") => file.csv(),
        Some("json") => file.json(),
        _ => file.problem(
            Place::default(),
            "its name does not say what it is".to_owned(),
            "an inventory is called .yaml, .csv, or .json for what `aws organizations list-accounts` prints",
        ),
    }
    file.checked()
}

fn whole(path: &str, message: String, hint: &str) -> Problems {
    Problems(vec![Problem {
        path: path.to_owned(),
        place: Place::default(),
        snippet: String::new(),
        message,
        hint: hint.to_owned(),
    }])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Account,
    Function,
}

/// One entry before it is checked.
struct Row {
    kind: Kind,
    place: Place,
    suspended: bool,
    cells: BTreeMap<String, (String, Place)>,
}

/// A file that is being read.
struct File<'a> {
    path: &'a str,
    text: &'a str,
    rows: Vec<Row>,
    problems: Vec<Problem>,
}

/// One element of `aws organizations list-accounts`. What else stands in it is not ours.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    status: String,
    /// Takes the place of `Status`.
    #[serde(default)]
    state: String,
}

#[derive(Deserialize)]
struct Listing<'a> {
    #[serde(borrow, rename = "Accounts")]
    accounts: Vec<&'a RawValue>,
    #[serde(rename = "NextToken")]
    next: Option<String>,
}

impl File<'_> {
    fn problem(&mut self, place: Place, message: String, hint: &str) {
        let line = place.line.checked_sub(1);
        let line = line.and_then(|n| self.text.lines().nth(n));
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        self.problems.push(Problem {
            path: self.path.to_owned(),
            place,
            snippet: line
                .unwrap_or_default()
                .chars()
                .take(160)
                .map(clean)
                .collect(),
            message,
            hint: hint.to_owned(),
        });
    }

    fn yaml(&mut self) {
        let documents = match yaml::documents(self.text) {
            Ok(documents) => documents,
            Err(error) => return self.problem(error.place, error.message, ""),
        };
        let [document] = documents.as_slice() else {
            let place = documents.get(1).map_or(Place::default(), |d| d.place);
            let message = format!("{} documents instead of one", documents.len());
            return self.problem(place, message, "");
        };
        let Yaml::Map(entries) = &document.yaml else {
            let message = format!(
                "{} instead of `accounts:` and `functions:`",
                document.kind()
            );
            return self.problem(document.place, message, "");
        };
        for (key, value) in entries {
            let (kind, keys) = match key.as_text() {
                Some("accounts") => (Kind::Account, ACCOUNT_KEYS),
                Some("functions") => (Kind::Function, FUNCTION_KEYS),
                _ => {
                    self.unknown(
                        key.scalar().as_deref(),
                        key.place,
                        &["accounts", "functions"],
                    );
                    continue;
                }
            };
            match &value.yaml {
                Yaml::List(items) => items.iter().for_each(|item| self.entry(kind, keys, item)),
                Yaml::Null => {}
                _ => {
                    let message = format!("{} instead of a list", value.kind());
                    self.problem(value.place, message, "");
                }
            }
        }
    }

    fn unknown(&mut self, key: Option<&str>, place: Place, known: &[&str]) {
        let key = key.unwrap_or_default();
        let hint = match nearest(key, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", known.join(", ")),
        };
        self.problem(
            place,
            format!("unknown key `{}`", event::inert::text(key)),
            &hint,
        );
    }

    fn entry(&mut self, kind: Kind, keys: &[&str], node: &Node) {
        let Yaml::Map(entries) = &node.yaml else {
            let message = format!("{} instead of an entry with `account:`", node.kind());
            return self.problem(node.place, message, "");
        };
        let mut cells = BTreeMap::new();
        for (key, value) in entries {
            let name = key.scalar().unwrap_or_default();
            if !keys.contains(&name.as_str()) {
                self.unknown(Some(&name), key.place, keys);
                continue;
            }
            let text = match &value.yaml {
                Yaml::Null => String::new(),
                Yaml::List(items) if name == "regions" => {
                    let texts = items.iter().filter_map(Node::as_text);
                    if texts.clone().count() < items.len() {
                        let message = "a region is a text".to_owned();
                        self.problem(value.place, message, "");
                    }
                    texts.collect::<Vec<_>>().join(" ")
                }
                // As it is written: YAML makes a number of another value of what begins with a zero.
                Yaml::Number(_) | Yaml::Bool(_) => token(self.text, value.place),
                _ => match value.as_text() {
                    Some(text) => text.to_owned(),
                    None => {
                        let message = format!("{} instead of a text", value.kind());
                        self.problem(value.place, message, "");
                        continue;
                    }
                },
            };
            cells.insert(name, (text, value.place));
        }
        self.rows.push(Row {
            kind,
            place: node.place,
            suspended: false,
            cells,
        });
    }

    fn csv(&mut self) {
        // Spreadsheets of half the world put semicolons where they show commas.
        let head = self.text.lines().next().unwrap_or_default();
        let delimiter = match head.contains(';') && !head.contains(',') {
            true => b';',
            false => b',',
        };
        let text = self.text;
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let columns: Vec<String> = match reader.headers() {
            Ok(headers) => headers.iter().map(str::to_ascii_lowercase).collect(),
            Err(error) => return self.problem(Place::default(), error.to_string(), ""),
        };
        let first = Place { line: 1, column: 0 };
        for (number, column) in columns.iter().enumerate() {
            if !COLUMNS.contains(&column.as_str()) {
                self.unknown(Some(column), first, COLUMNS);
            } else if columns[..number].contains(column) {
                self.problem(first, format!("column `{column}` stands twice"), "");
            }
        }
        if !columns.iter().any(|c| c == "account") {
            let hint = "the first line names the columns, such as account,name,owner,environment";
            self.problem(first, "there is no column `account`".to_owned(), hint);
        }
        if !self.problems.is_empty() {
            return;
        }
        for record in reader.records() {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let line = error.position().map_or(0, |p| p.line() as usize);
                    let place = Place { line, column: 0 };
                    let message = match error.kind() {
                        csv::ErrorKind::UnequalLengths {
                            expected_len, len, ..
                        } => format!("{len} columns instead of {expected_len}"),
                        _ => error.to_string(),
                    };
                    self.problem(place, message, "put a text with a comma in double quotes");
                    continue;
                }
            };
            let line = record.position().map_or(0, |p| p.line() as usize);
            let place = Place { line, column: 0 };
            let filled = columns.iter().zip(&record).filter(|(_, v)| !v.is_empty());
            let mut cells: BTreeMap<String, (String, Place)> = filled
                .map(|(column, value)| (column.clone(), (value.to_owned(), place)))
                .collect();
            // Below the last row spreadsheets leave empty ones.
            if cells.is_empty() {
                continue;
            }
            let (kind, foreign) = match cells.remove("function") {
                None => (Kind::Account, &["region"][..]),
                Some(name) => {
                    let foreign = &["name", "ou", "regions"][..];
                    if !cells.contains_key("name") {
                        cells.insert("name".to_owned(), name);
                        (Kind::Function, &foreign[1..])
                    } else {
                        (Kind::Function, foreign)
                    }
                }
            };
            for column in foreign.iter().filter(|c| cells.contains_key(**c)) {
                let (what, hint) = match kind {
                    Kind::Account => (
                        "an account",
                        "an account has `regions`; a function has its name in `function`",
                    ),
                    Kind::Function => (
                        "a function",
                        "a row with a `function` has no `name`, `ou` and `regions`: those are of its account",
                    ),
                };
                self.problem(place, format!("{what} has no `{column}`"), hint);
            }
            self.rows.push(Row {
                kind,
                place,
                suspended: false,
                cells,
            });
        }
    }

    fn json(&mut self) {
        let hint = "`aws organizations list-accounts --output json` prints such a file";
        let text = self.text;
        let listing: Listing<'_> = match serde_json::from_str(text) {
            Ok(listing) => listing,
            Err(error) => {
                let place = Place {
                    line: error.line(),
                    column: error.column(),
                };
                return self.problem(place, words(&error), hint);
            }
        };
        if listing.next.is_some() {
            let message = "the list is cut: it has a `NextToken`".to_owned();
            let hint = "leave out --max-items and --no-paginate";
            self.problem(Place::default(), message, hint);
        }
        for element in listing.accounts {
            let before = element.get().as_ptr().addr() - text.as_ptr().addr();
            let line = text[..before].matches('\n').count() + 1;
            let place = Place { line, column: 0 };
            let listed: Listed = match serde_json::from_str(element.get()) {
                Ok(listed) => listed,
                Err(error) => {
                    self.problem(place, words(&error), hint);
                    continue;
                }
            };
            let state = match listed.state.as_str() {
                "" => listed.status,
                state => state.to_owned(),
            };
            let cells = [("account", listed.id), ("name", listed.name)];
            self.rows.push(Row {
                kind: Kind::Account,
                place,
                suspended: !matches!(state.as_str(), "ACTIVE" | ""),
                cells: cells.map(|(k, v)| (k.to_owned(), (v, place))).into(),
            });
        }
    }

    /// Checks all rows.
    fn checked(mut self) -> Result<Inventory, Problems> {
        let (mut accounts, mut functions) = (Vec::new(), Vec::new());
        let mut lines: HashMap<(Kind, Str, Str, Str), usize> = HashMap::new();
        for row in std::mem::take(&mut self.rows) {
            let mut text = |key: &str| self.value(&row, key);
            let number = text("account");
            let (name, owner) = (text("name"), text("owner"));
            let (environment, criticality) = (text("environment"), text("criticality"));
            let (ou, region, regions) = (text("ou"), text("region"), text("regions"));
            let place = |key: &str| row.cells.get(key).map_or(row.place, |c| c.1);
            if let Err((message, hint)) = account_number(&number) {
                self.problem(place("account"), message, &hint);
            }
            let regions: Vec<Str> = regions
                .split([' ', ',', ';', '|'])
                .filter(|r| !r.is_empty())
                .map(Str::from)
                .collect();
            let listed = regions.iter().map(|r| ("regions", r));
            let own = Some(("region", &region)).filter(|(_, r)| !r.is_empty());
            for (key, region) in listed.chain(own).filter(|(_, r)| !is_region(r)) {
                let message = format!("`{}` is no region", event::inert::text(region));
                self.problem(place(key), message, "write it as eu-west-1");
            }
            let key = match row.kind {
                Kind::Account => (row.kind, number.clone(), Str::default(), Str::default()),
                Kind::Function => {
                    if let Err((message, hint)) = function_name(&name) {
                        self.problem(place("name"), message, &hint);
                    }
                    (row.kind, number.clone(), region.clone(), name.clone())
                }
            };
            if let Some(line) = lines.insert(key, row.place.line) {
                let what = match row.kind {
                    Kind::Account => format!("account `{number}`"),
                    Kind::Function => format!("function `{name}` of account `{number}`"),
                };
                let message = format!("{what} stands here and on line {line}");
                self.problem(row.place, message, "");
            }
            match row.kind {
                Kind::Account => accounts.push(Account {
                    account: number,
                    name,
                    ou,
                    owner,
                    environment,
                    criticality,
                    regions,
                    suspended: row.suspended,
                }),
                Kind::Function => functions.push(Function {
                    account: number,
                    region,
                    name,
                    owner,
                    environment,
                    criticality,
                }),
            }
        }
        if self.problems.is_empty() && accounts.is_empty() && functions.is_empty() {
            let message = "there is no account and no function in it".to_owned();
            self.problem(Place::default(), message, "");
        }
        self.problems.sort_by_key(|p| p.place);
        match self.problems.is_empty() {
            true => Ok(Inventory::new(accounts, functions)),
            false => Err(Problems(self.problems)),
        }
    }

    /// The text of a cell, empty where there is none.
    fn value(&mut self, row: &Row, key: &str) -> Str {
        let Some((text, place)) = row.cells.get(key) else {
            return Str::default();
        };
        if text.len() > MAX_VALUE {
            let message = format!("`{key}` has more than {MAX_VALUE} bytes");
            self.problem(*place, message, "");
        }
        if text.contains(char::is_control) {
            let message = format!("`{key}` has a control character or a line break in it");
            self.problem(*place, message, "");
        }
        Str::from(text.trim())
    }
}

/// What is wrong with JSON, without the place.
fn words(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let (words, _) = words.rsplit_once(" at line ").unwrap_or((&words, ""));
    words.to_owned()
}

/// What is written at a place, up to where a plain value of YAML ends.
fn token(text: &str, place: Place) -> String {
    let line = place.line.checked_sub(1);
    let line = line.and_then(|n| text.lines().nth(n)).unwrap_or_default();
    let rest = line.chars().skip(place.column.saturating_sub(1));
    rest.take_while(|c| !c.is_whitespace() && !matches!(c, ',' | ']' | '}'))
        .collect()
}

/// Why a text is no number of an account, and what to do about it.
fn account_number(text: &str) -> Result<(), (String, String)> {
    let digits = text.chars().all(|c| c.is_ascii_digit());
    if digits && text.len() == 12 {
        return Ok(());
    }
    let shown = event::inert::text(text);
    let message = match text {
        "" => "there is no `account`".to_owned(),
        _ if digits => format!("account `{shown}` has {} digits, not 12", text.len()),
        _ => format!("`{shown}` is no account: it has 12 digits"),
    };
    let without: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let hint = if digits && (7..12).contains(&text.len()) {
        format!("spreadsheets drop leading zeros: make the column one of text; was it {text:0>12}?")
    } else if text.parse::<f64>().is_ok() && text.contains(['E', 'e']) {
        "a spreadsheet has made a number of it, and digits are lost: make the column one of text and fill it again".to_owned()
    } else if without != text && account_number(&without).is_ok() {
        format!("write it without dashes and spaces: {without}")
    } else {
        String::new()
    };
    Err((message, hint))
}

/// Why a text is no name or pattern of functions.
fn function_name(text: &str) -> Result<(), (String, String)> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*' | '?');
    if text.is_empty() {
        return Err((
            "a function has a `name`".to_owned(),
            "its name, or a pattern such as checkout-*".to_owned(),
        ));
    }
    if text.chars().all(allowed) {
        return Ok(());
    }
    let hint = match text.contains(':') {
        true => "write the name alone, without account, region and version",
        false => "letters, digits, - and _; * stands for any text and ? for one character",
    };
    let message = format!("`{}` is no name of a function", event::inert::text(text));
    Err((message, hint.to_owned()))
}

fn is_region(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.contains('-') && text.chars().all(allowed)
}

#[cfg(test)]
mod tests;
