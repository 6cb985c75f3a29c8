//! What can be wrong with a query, where, and what to do about it.
//!
//! [`QueryError`] carries the byte offset at which a console draws its caret. The words are for the person who typed
//! the query; [`QueryError::hint`] says how to write it instead.

use thiserror::Error;

/// A query that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind} at byte {offset}")]
pub struct QueryError {
    /// Where, in bytes from the start of the query.
    pub offset: usize,
    /// What is wrong.
    pub kind: ErrorKind,
}

/// The kinds of [`QueryError`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ErrorKind {
    /// A `"` without its partner.
    #[error("quote is not closed")]
    OpenQuote,
    /// A `/` without its partner.
    #[error("regular expression is not closed")]
    OpenRegex,
    /// A `(` without its partner.
    #[error("parenthesis is not closed")]
    OpenParenthesis,
    /// An `IN [` without its `]`.
    #[error("list is not closed")]
    OpenList,
    /// Two values of a list with nothing between them.
    #[error("list lacks a comma")]
    BadList,
    /// A `)` without its partner.
    #[error("parenthesis closes nothing")]
    StrayParenthesis,
    /// A range without `TO`, an end or a bracket.
    #[error("range is not complete")]
    BadRange,
    /// The lower end is above the upper end.
    #[error("range runs backwards: from {from} to {to}")]
    ReversedRange {
        /// The lower end.
        from: String,
        /// The upper end.
        to: String,
    },
    /// Nothing before the `:`.
    #[error("field name is missing")]
    MissingField,
    /// Nothing after the `:`.
    #[error("value of field `{0}` is missing")]
    MissingValue(String),
    /// An operator without something to its right or left.
    #[error("operator `{0}` lacks a side")]
    MissingOperand(String),
    /// Something that looks like an operator.
    #[error("unknown operator `{0}`")]
    UnknownOperator(String),
    /// An address with a prefix that does not fit.
    #[error("`{0}` is no network")]
    BadCidr(String),
    /// No point in time.
    #[error("`{0}` is no time")]
    BadTime(String),
    /// A regular expression that cannot be compiled.
    #[error("regular expression cannot be used: {0}")]
    BadRegex(String),
    /// A field name with a wildcard in it.
    #[error("field name `{0}` has a wildcard")]
    WildcardField(String),
    /// A backslash at the end.
    #[error("nothing follows the backslash")]
    BadEscape,
    /// Too long, too many tests, or too deep.
    #[error("query is too large: {what} {limit} at most")]
    TooLarge {
        /// Of what there is too much.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
}

impl QueryError {
    /// How to write it instead.
    pub fn hint(&self) -> &'static str {
        match &self.kind {
            ErrorKind::OpenQuote => "close it with `\"`; a quote within the text is written `\\\"`",
            ErrorKind::OpenRegex => {
                "close it with `/`; a slash within it is written `\\/`, and a value that begins with a slash goes in quotes"
            }
            ErrorKind::OpenParenthesis => {
                "close it with `)`; a parenthesis that is meant as text goes in quotes"
            }
            ErrorKind::OpenList => "close it with `]`: `field:IN [a, b]`",
            ErrorKind::BadList => "write `field:IN [a, b]`; a value with spaces goes in quotes",
            ErrorKind::StrayParenthesis => "remove it, or put it in quotes",
            ErrorKind::BadRange => {
                "write `[from TO to]` with both ends included, `{from TO to}` with both excluded, and `*` for an open end"
            }
            ErrorKind::ReversedRange { .. } => "exchange the two ends; times are UTC",
            ErrorKind::MissingField => {
                "write `field:value`; a colon that is meant as text goes in quotes"
            }
            ErrorKind::MissingValue(_) => {
                "write `field:value`, or `field:*` for any value, or `field:\"\"` for the empty one"
            }
            ErrorKind::MissingOperand(_) => {
                "put something on both sides of AND and OR and after NOT; to search for the word put it in quotes"
            }
            ErrorKind::UnknownOperator(_) => {
                "operators are AND, OR, NOT, &&, ||, ! and -; to search for the sign put it in quotes"
            }
            ErrorKind::BadCidr(_) => {
                "write a network as `203.0.113.0/24` or `2001:db8::/32`; to compare the text put it in quotes"
            }
            ErrorKind::BadTime(_) => {
                "write `2026-03-02`, `2026-03-02T12:00:00Z`, `now` or `-7d` (units s, m, h, d, w)"
            }
            ErrorKind::BadRegex(_) => {
                "look-around and back-references are not supported, and its compiled size is limited"
            }
            ErrorKind::WildcardField(_) => {
                "wildcards may stand in values only; to look into all fields leave the field name out"
            }
            ErrorKind::BadEscape => "write `\\\\` for a backslash",
            ErrorKind::TooLarge { .. } => {
                "split it into several searches, or list values as `field:(a OR b)`"
            }
        }
    }
}
