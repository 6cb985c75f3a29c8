//! Reads the text of a query.

use super::{Query, QueryError};

/// Reads a query.
pub fn parse(_text: &str) -> Result<Query, QueryError> {
    Ok(Query::All)
}

pub(super) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '@' | '$')
}
