//! Columns that a person has chosen: `cols=action,userIdentity.type` in the address.
//!
//! A column shows the values of one field of the envelope or, by its own name or behind `raw.`, of the original record.
//! Each record is read once for all its columns.

use ::event::json::Doc;
use ::event::path::{FieldSet, Slots};
use ::event::{Event, Normalized};

use crate::error::ApiError;
use crate::params::Params;

/// The most columns beside the time.
pub(crate) const MOST: usize = 8;
/// How many values of one field a cell shows.
const SHOWN: usize = 3;

/// The chosen columns, in order; none for the usual ones.
pub(crate) fn chosen(params: &Params) -> Result<Vec<String>, ApiError> {
    let mut columns: Vec<String> = Vec::new();
    for name in params.or_empty("cols").split(',').map(str::trim) {
        if !name.is_empty() && !columns.iter().any(|c| c == name) {
            columns.push(name.to_owned());
        }
    }
    if columns.len() > MOST {
        return Err(ApiError::bad(
            "bad_parameter",
            format!("`cols` names at most {MOST} fields"),
        ));
    }
    Ok(columns)
}

/// The columns with this one put in or, where it is among them, taken away.
pub(crate) fn toggled(columns: &[String], name: &str) -> Vec<String> {
    let mut out: Vec<String> = columns.iter().filter(|c| *c != name).cloned().collect();
    if out.len() == columns.len() {
        out.push(name.to_owned());
    }
    out
}

/// Reads the columns of events.
pub(crate) struct Reader<'c> {
    columns: &'c [String],
    fields: FieldSet,
    slots: Slots,
}

impl Reader<'_> {
    pub(crate) fn new(columns: &[String]) -> Reader<'_> {
        let mut fields = FieldSet::new();
        for column in columns {
            fields.slot(column.strip_prefix("raw.").unwrap_or(column));
        }
        Reader {
            columns,
            fields,
            slots: Slots::new(),
        }
    }

    /// The values of an event, column by column.
    pub(crate) fn values(&mut self, event: &Event) -> Vec<Vec<String>> {
        let doc = Doc::parse(&event.raw).ok();
        let root = doc.as_ref().map(|doc| doc.root(&event.raw));
        if let Some(root) = root {
            self.fields.extract(root, &mut self.slots);
        }
        let columns = self.columns.iter();
        columns
            .map(|column| {
                if !column.starts_with("raw.") && ::event::is_normalized_name(column) {
                    return normalized(event, column);
                }
                let name = column.strip_prefix("raw.").unwrap_or(column);
                let Some(root) = root else { return Vec::new() };
                let Some(slot) = (0..self.fields.len()).find(|s| self.fields.name(*s) == name)
                else {
                    return Vec::new();
                };
                let nodes = self.slots.all(slot).take(SHOWN);
                let texts = nodes.filter_map(|node| root.with_index(node).text());
                texts.map(|t| t.into_owned()).collect()
            })
            .collect()
    }
}

fn normalized(event: &Event, name: &str) -> Vec<String> {
    match event.normalized(name) {
        Normalized::Absent => Vec::new(),
        Normalized::Text(text) => vec![text.into_owned()],
        Normalized::List(list) => list.iter().take(SHOWN).map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn columns_are_of_the_envelope_or_of_the_record() {
        let event = Event {
            action: "PutObject".into(),
            source: "aws.cloudtrail".into(),
            resources: vec!["a".into(), "b".into()],
            raw: Bytes::from_static(br#"{"source":"own","list":[{"n":1},{"n":2}],"none":null}"#),
            ..Event::default()
        };
        let columns = [
            "action",
            "source",
            "raw.source",
            "list.n",
            "resources",
            "absent",
            "none",
        ];
        let columns: Vec<String> = columns.map(str::to_owned).to_vec();
        let texts = Reader::new(&columns).values(&event);
        let texts: Vec<String> = texts.iter().map(|t| t.join("|")).collect();
        assert_eq!(
            texts,
            ["PutObject", "aws.cloudtrail", "own", "1|2", "a|b", "", ""]
        );
        let line = Event {
            raw: Bytes::from_static(b"no json"),
            ..event
        };
        assert_eq!(Reader::new(&columns).values(&line)[3], [] as [String; 0]);
    }

    #[test]
    fn columns_come_and_go() {
        let columns = ["a".to_owned(), "b".to_owned()];
        assert_eq!(toggled(&columns, "c"), ["a", "b", "c"]);
        assert_eq!(toggled(&columns, "a"), ["b"]);
        let cols = |text: &str| chosen(&Params::of([("cols", Some(text.to_owned()))]));
        assert_eq!(cols("a, b,,a").unwrap(), ["a", "b"]);
        assert!(cols("a,b,c,d,e,f,g,h,i").is_err());
    }
}
