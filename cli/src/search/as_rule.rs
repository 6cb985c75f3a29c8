//! `trailwarden search QUERY --as-rule`: a search as a Sigma rule that matches the same events.
//!
//! [`rule`] writes YAML that `rule check` accepts, or says in words what a rule cannot say. The difference is in the names:
//! in a rule an original field wins over one of the envelope, in a query a bare name is the envelope's. So a field of the
//! envelope is taken only where the query asks for CloudTrail, whose records have none of these names but `resources`; and
//! `raw.` is taken only for names that the envelope does not have.

use event::Id;
use search::query::{Bound, Field, Limit, Part, Pattern, Query, Test};

use super::rule::OBJECTS;

/// A line of a selection: key and values.
type Line = (String, Vec<String>);

/// The rule, or why there is none.
pub(super) fn rule(query: &Query, text: &str) -> Result<String, String> {
    let source = source(query);
    let mut writing = Writing {
        cloudtrail: source.as_deref() == Some("aws.cloudtrail"),
        selections: Vec::new(),
    };
    let condition = writing.condition(query, true)?;
    let logsource = match source.as_deref().and_then(|s| s.split_once('.')) {
        Some((product, service)) => format!(
            "logsource:\n  product: {}\n  service: {}\n",
            quoted(product),
            quoted(service)
        ),
        None => "logsource: {}\n".to_owned(),
    };
    let title: String = format!("Search {text}").chars().take(200).collect();
    let mut out = format!(
        "title: {}\nid: {}\nstatus: experimental\ndescription: Made of a search; say here what it means when this matches.\n{logsource}detection:\n",
        quoted(&title),
        uuid(text)
    );
    for (number, lines) in writing.selections.iter().enumerate() {
        out.push_str(&format!("  s{}:\n", number + 1));
        for (key, values) in lines {
            match values.as_slice() {
                [value] => out.push_str(&format!("    {}: {value}\n", quoted(key))),
                values => {
                    out.push_str(&format!("    {}:\n", quoted(key)));
                    for value in values {
                        out.push_str(&format!("      - {value}\n"));
                    }
                }
            }
        }
    }
    out.push_str(&format!("  condition: {condition}\nlevel: medium\n"));
    Ok(out)
}

/// The source that every event must have.
fn source(query: &Query) -> Option<String> {
    match query {
        Query::And(parts) => parts.iter().find_map(source),
        Query::Field(field, Test::Equals(text)) if !field.original && field.name == "source" => {
            Some(text.to_lowercase())
        }
        _ => None,
    }
}

/// An id that follows from the query.
fn uuid(text: &str) -> String {
    let mut bytes = Id::of("search.rule", &[text.as_bytes()]).to_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// A JSON string is a YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

struct Writing {
    cloudtrail: bool,
    selections: Vec<Vec<Line>>,
}

impl Writing {
    fn condition(&mut self, query: &Query, outermost: bool) -> Result<String, String> {
        let joined = |parts: Vec<String>, word: &str| {
            let text = parts.join(&format!(" {word} "));
            match outermost || parts.len() == 1 {
                true => text,
                false => format!("({text})"),
            }
        };
        Ok(match query {
            Query::All => {
                return Err("it matches every event; a rule needs a condition".to_owned());
            }
            Query::And(parts) => {
                // Lines under different keys make one selection.
                let mut together: Vec<Line> = Vec::new();
                let mut rest = Vec::new();
                for part in parts {
                    match part {
                        Query::Field(field, test) => {
                            let lines = self.lines(field, test)?;
                            if lines.iter().any(|l| together.iter().any(|t| t.0 == l.0)) {
                                rest.push(self.select(lines));
                            } else {
                                together.extend(lines);
                            }
                        }
                        part => rest.push(self.condition(part, false)?),
                    }
                }
                if !together.is_empty() {
                    rest.insert(0, self.select(together));
                }
                joined(rest, "and")
            }
            Query::Or(parts) => {
                let parts = parts.iter().map(|part| self.condition(part, false));
                joined(parts.collect::<Result<_, _>>()?, "or")
            }
            Query::Not(inner) => match &**inner {
                Query::Exists(field) => self.missing(field)?,
                inner => format!("not {}", self.condition(inner, false)?),
            },
            Query::Exists(field) => format!("not {}", self.missing(field)?),
            Query::Field(field, test) => {
                let lines = self.lines(field, test)?;
                self.select(lines)
            }
            Query::Text(test) => {
                return Err(format!(
                    "`{test}` has no field; a rule's keywords look into the record alone, free text also into the envelope: name the field"
                ));
            }
        })
    }

    /// Adds a selection and gives its name.
    fn select(&mut self, lines: Vec<Line>) -> String {
        self.selections.push(lines);
        format!("s{}", self.selections.len())
    }

    /// The field has no value: Sigma's `null` is that, also for a field that is there and is `null`.
    fn missing(&mut self, field: &Field) -> Result<String, String> {
        let name = self.name(field)?;
        if OBJECTS.contains(&name.as_str()) {
            return Err(format!(
                "`{field}` is an object; for a rule an empty one is there, for a search it is not: name a field within it"
            ));
        }
        Ok(self.select(vec![(name, vec!["null".to_owned()])]))
    }

    fn name(&self, field: &Field) -> Result<String, String> {
        let taken = event::is_normalized_name(&field.name);
        if field.name.contains('|') {
            return Err(format!(
                "the name `{field}` has a `|`, which Sigma takes for a modifier"
            ));
        }
        if field.is_time() {
            return Err(format!(
                "`{field}` is about one stretch of time; a rule looks at all events as they come: leave it out"
            ));
        }
        if field.original && taken {
            return Err(format!(
                "`{field}` is a field of the original; in a rule `{}` is that, and where a record has none the envelope's",
                field.name
            ));
        }
        if !field.original
            && (!self.cloudtrail || field.name == "resources")
            && field.name != "source"
        {
            return Err(format!(
                "`{field}` is a field of the envelope; in a rule a field of the record with this name would win: use a field of the record{}",
                if self.cloudtrail {
                    ""
                } else {
                    ", or add `source:aws.cloudtrail`"
                }
            ));
        }
        Ok(field.name.clone())
    }

    fn lines(&self, field: &Field, test: &Test) -> Result<Vec<Line>, String> {
        let name = self.name(field)?;
        let with = |modifiers: &str| format!("{name}|{modifiers}");
        let one = |key: String, value: String| Ok(vec![(key, vec![value])]);
        match test {
            Test::Equals(_) if field.is_words() => Err(format!(
                "`{field}` holds sentences and is searched by words; a rule compares the whole: write `{field}:*text*`"
            )),
            Test::Equals(text) => one(name.clone(), quoted(&literal(text))),
            Test::OneOf(texts) => Ok(vec![(
                name.clone(),
                texts.iter().map(|t| quoted(&literal(t))).collect(),
            )]),
            Test::Wildcard(Pattern(parts)) => {
                let pattern: String = parts
                    .iter()
                    .map(|part| match part {
                        Part::One => "?".to_owned(),
                        Part::Any => "*".to_owned(),
                        Part::Literal(text) => literal(text),
                    })
                    .collect();
                one(name.clone(), quoted(&pattern))
            }
            Test::Regex(regex) => one(with("re|i|s"), quoted(&format!("^(?:{})$", regex.text))),
            Test::Cidr(net) => one(with("cidr"), quoted(&net.to_string())),
            Test::Range(from, to) => {
                let mut lines = Vec::new();
                for (bound, [included, excluded]) in [(from, ["gte", "gt"]), (to, ["lte", "lt"])] {
                    let (modifier, limit) = match bound {
                        Bound::Open => continue,
                        Bound::Included(limit) => (included, limit),
                        Bound::Excluded(limit) => (excluded, limit),
                    };
                    let Limit::Number(number) = limit else {
                        return Err(format!(
                            "`{field}:{test}` compares texts or times by order; a rule orders numbers only"
                        ));
                    };
                    lines.push((with(modifier), vec![number.to_string()]));
                }
                Ok(lines)
            }
        }
    }
}

/// A text with nothing in it that Sigma takes for a wildcard.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
