//! Searches that people keep under a name.
//!
//! A [`SavedSearch`] is what somebody asked, as it was written: query, time range, order, columns. The console saves and
//! opens them, the store keeps them for everybody who may log in. [`check`] says what may be kept: whether a query can be
//! read or a time makes sense is the business of whoever searches. Names are compared without regard to case, so that
//! nobody has to guess which of two was meant.

use event::Time;
use serde::{Deserialize, Serialize};

/// How many searches are kept at most.
pub const MAX_SEARCHES: usize = 1_000;
/// The longest name, in characters.
pub const MAX_NAME: usize = 100;
/// The longest description, in bytes.
pub const MAX_DESCRIPTION: usize = 2_000;
/// The longest query, in bytes: all of them are listed at once.
pub const MAX_QUERY: usize = 8 * 1_024;
/// The longest time as it is written, in bytes.
const MAX_TIME: usize = 40;
/// The most columns, and the longest name of one in bytes.
const MAX_COLUMNS: usize = 8;
const MAX_COLUMN: usize = 512;
const BYTES: &str = "bytes";

/// What is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Searched {
    /// Events.
    #[default]
    Events,
    /// Findings.
    Findings,
}

/// Which is given first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum First {
    /// The latest.
    #[default]
    Newest,
    /// The earliest.
    Oldest,
}

/// What somebody wants to keep.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewSearch {
    /// What it is for; may be empty.
    pub description: String,
    /// The query; empty for everything.
    pub query: String,
    /// Not before this time, as it is written: RFC 3339, or `-7d` and the like from when it is opened; empty for no limit.
    pub from: String,
    /// Not after this time; the same.
    pub to: String,
    /// Events or findings.
    pub kind: Searched,
    /// Which first.
    pub order: First,
    /// The columns beside the time; none for the usual ones.
    pub columns: Vec<String>,
}

/// A search under a name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SavedSearch {
    /// Its name.
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// The query; empty for everything.
    pub query: String,
    /// Not before this time, as it is written; empty for no limit.
    pub from: String,
    /// Not after this time; the same.
    pub to: String,
    /// Events or findings.
    pub kind: Searched,
    /// Which first.
    pub order: First,
    /// The columns beside the time; none for the usual ones.
    pub columns: Vec<String>,
    /// Who saved it first.
    pub owner: String,
    /// When.
    pub created: Time,
    /// Who saved it last.
    pub updated_by: String,
    /// When.
    pub updated: Time,
}

/// Why a search is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// The name cannot be used.
    #[error(
        "a name has 1 to {MAX_NAME} characters, at least one letter or digit, and none that is not seen"
    )]
    Name,
    /// Something is longer than what is kept.
    #[error("`{what}` has more than the {most} {unit} that are kept")]
    TooLong {
        /// What of it.
        what: &'static str,
        /// How much is kept.
        most: usize,
        /// Of what.
        unit: &'static str,
    },
    /// There is one of this name.
    #[error("there is a search of this name already, saved by {owner} on {} (UTC)", .updated.to_string().get(..10).unwrap_or_default())]
    Exists {
        /// Who saved it last.
        owner: String,
        /// When.
        updated: Time,
    },
    /// There is no room.
    #[error("there are {MAX_SEARCHES} saved searches already: delete some")]
    Full,
}

/// The name as it is kept, or why it cannot be one.
pub fn name(text: &str) -> Result<&str, SavedError> {
    let name = text.trim();
    let hidden = |c: char| c.is_control() || event::inert::sign(c).is_some();
    let fits = name.chars().count() <= MAX_NAME
        && name.chars().any(char::is_alphanumeric)
        && !name.chars().any(hidden);
    fits.then_some(name).ok_or(SavedError::Name)
}

/// What two names have in common that are taken for one.
pub(crate) fn key(name: &str) -> String {
    name.to_lowercase()
}

/// The search as it is kept under a name, by `who` and from `now` on.
pub fn check(
    called: &str,
    new: &NewSearch,
    who: &str,
    now: Time,
) -> Result<SavedSearch, SavedError> {
    let name = name(called)?.to_owned();
    let lengths = [
        ("description", new.description.len(), MAX_DESCRIPTION, BYTES),
        ("query", new.query.len(), MAX_QUERY, BYTES),
        ("from", new.from.len(), MAX_TIME, BYTES),
        ("to", new.to.len(), MAX_TIME, BYTES),
        ("columns", new.columns.len(), MAX_COLUMNS, "fields"),
    ];
    let columns = new.columns.iter();
    let columns = columns.map(|c| ("columns", c.len(), MAX_COLUMN, BYTES));
    for (what, length, most, unit) in lengths.into_iter().chain(columns) {
        if length > most {
            return Err(SavedError::TooLong { what, most, unit });
        }
    }
    Ok(SavedSearch {
        name,
        description: new.description.trim().to_owned(),
        query: new.query.trim().to_owned(),
        from: new.from.trim().to_owned(),
        to: new.to.trim().to_owned(),
        kind: new.kind,
        order: new.order,
        columns: new.columns.clone(),
        owner: who.to_owned(),
        created: now,
        updated_by: who.to_owned(),
        updated: now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_people_can_tell_apart() {
        for (text, expected) in [
            (" Root logins ", Some("Root logins")),
            ("a/b: 100% ünï", Some("a/b: 100% ünï")),
            ("", None),
            (" . ", None),
            ("..", None),
            ("a\nb", None),
            ("a\u{202e}b", None),
            ("ad\u{200b}min", None),
        ] {
            assert_eq!(name(text).ok(), expected, "{text:?}");
        }
        assert!(name(&"é".repeat(MAX_NAME)).is_ok());
        assert_eq!(name(&"é".repeat(MAX_NAME + 1)), Err(SavedError::Name));
    }

    #[test]
    fn what_is_too_long_is_named() {
        let refused = |new: NewSearch| check("x", &new, "ana", Time(0)).unwrap_err().to_string();
        let long = NewSearch {
            query: "a".repeat(MAX_QUERY + 1),
            ..NewSearch::default()
        };
        assert_eq!(
            refused(long),
            "`query` has more than the 8192 bytes that are kept"
        );
        let wide = NewSearch {
            columns: vec!["a".to_owned(); MAX_COLUMNS + 1],
            ..NewSearch::default()
        };
        assert_eq!(
            refused(wide),
            "`columns` has more than the 8 fields that are kept"
        );
        let wide = NewSearch {
            columns: vec!["a".repeat(MAX_COLUMN + 1)],
            ..NewSearch::default()
        };
        assert_eq!(
            refused(wide),
            "`columns` has more than the 512 bytes that are kept"
        );
    }
}
