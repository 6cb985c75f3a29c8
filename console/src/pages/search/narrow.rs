//! A search made narrower: the query with one more condition, as the links beside values write it.

use ::search::query::{Query, parse};

use crate::pages::query_for;

/// The query that finds of what `query` finds only what has this value, or only what has not. `None` where the
/// language cannot say the field's name.
pub(crate) fn with(query: &str, field: &str, value: &str, not: bool) -> Option<String> {
    let clause = query_for(field, value)?;
    let clause = if not { format!("NOT {clause}") } else { clause };
    Some(and(query, &clause))
}

/// The query that finds of what `query` finds only what has the field at all.
pub(crate) fn with_field(query: &str, field: &str) -> Option<String> {
    // The name is checked where a value would be.
    query_for(field, "x")?;
    Some(and(query, &format!("{field}:*")))
}

fn and(query: &str, clause: &str) -> String {
    let query = query.trim();
    match parse(query) {
        Ok(Query::All) => clause.to_owned(),
        Ok(Query::Or(_)) => format!("({query}) AND {clause}"),
        Ok(_) => format!("{query} AND {clause}"),
        // What cannot be read is not built upon.
        Err(_) => clause.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_more_never_changes_what_the_others_mean() {
        for (query, expected) in [
            ("", "actor:\"ana\""),
            ("*", "actor:\"ana\""),
            ("action:Put*", "action:Put* AND actor:\"ana\""),
            ("a OR b", "(a OR b) AND actor:\"ana\""),
            ("NOT a", "NOT a AND actor:\"ana\""),
            ("(", "actor:\"ana\""),
        ] {
            assert_eq!(with(query, "actor", "ana", false).unwrap(), expected);
            assert!(parse(expected).is_ok(), "{expected}");
        }
        let not = with("a OR b", "actor", "say \"x\"", true).unwrap();
        assert_eq!(not, "(a OR b) AND NOT actor:\"say \\\"x\\\"\"");
        assert!(parse(&not).is_ok());
        assert_eq!(with("a", "odd name", "x", false), None);
        assert_eq!(with_field("a", "error_code").unwrap(), "a AND error_code:*");
    }
}
