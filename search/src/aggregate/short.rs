//! Aggregations as people type them: `actor`, `time:1h > actor:5 > distinct(src_ip)`.
//!
//! ```text
//! levels = level { > level }
//! level  = FIELD [ : SIZE ] | time : INTERVAL | ingest_time : INTERVAL
//!        | distinct(FIELD) | percentiles(FIELD [, PERCENT]…) | count()
//! ```
//!
//! The result of each level is named as the level is written, without its size.

use super::{
    Aggregation, AggregationError, Aggregations, Operation, interval, usual_percents, wrong,
};
use crate::query::Field;

/// How many values a level tells where it does not say.
const SIZE: usize = 10;
const HINT: &str = "write levels with `>` between them: FIELD or FIELD:SIZE, time:1h, distinct(FIELD), percentiles(FIELD, 50, 99), count(); such as `time:1h > actor:5`";

/// Reads the short form. `size` is how many values the first level tells where it does not say so itself.
pub fn parse(text: &str, size: usize) -> Result<Aggregations, AggregationError> {
    let levels: Vec<&str> = text.split('>').map(str::trim).collect();
    let mut inner = Aggregations::new();
    for (depth, level) in levels.iter().enumerate().rev() {
        if level.is_empty() {
            return Err(wrong("a level of the aggregation is empty", HINT));
        }
        let (name, operation) = operation(level, if depth == 0 { size } else { SIZE })?;
        operation.check()?;
        if !inner.is_empty() && !operation.has_buckets() {
            let message =
                format!("`{level}` makes no buckets, so that nothing can stand behind it");
            return Err(wrong(message, HINT));
        }
        let aggs = std::mem::take(&mut inner);
        inner.insert(name, Aggregation { operation, aggs });
    }
    super::check(&inner)?;
    Ok(inner)
}

fn operation(level: &str, size: usize) -> Result<(String, Operation), AggregationError> {
    if let Some((function, arguments)) = level.split_once('(') {
        let Some(arguments) = arguments.strip_suffix(')') else {
            return Err(wrong(format!("`{level}` lacks its `)`"), HINT));
        };
        let mut arguments = arguments.split(',').map(str::trim);
        let field = arguments.next().unwrap_or_default().to_owned();
        let operation = match function.trim() {
            "distinct" => Operation::Cardinality { field },
            "percentiles" => {
                let percents: Vec<f64> = arguments
                    .by_ref()
                    .map(|p| p.trim_start_matches('p').parse())
                    .collect::<Result<_, _>>()
                    .map_err(|_| {
                        wrong(
                            format!("`{level}` has a percentile that is no number"),
                            HINT,
                        )
                    })?;
                Operation::Percentiles {
                    field,
                    percents: match percents.is_empty() {
                        true => usual_percents(),
                        false => percents,
                    },
                }
            }
            "count" if field.is_empty() => Operation::Count,
            other => return Err(wrong(format!("unknown function `{other}`"), HINT)),
        };
        if arguments.next().is_some() {
            return Err(wrong(format!("`{level}` has too many arguments"), HINT));
        }
        return Ok((level.to_owned(), operation));
    }
    if let Some((field, length)) = level.split_once(':')
        && Field::named(field).is_time()
    {
        let operation = Operation::DateHistogram {
            field: field.to_owned(),
            interval: interval(length)?,
        };
        return Ok((field.to_owned(), operation));
    }
    let (field, size) = match level.rsplit_once(':') {
        Some((field, digits))
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            let size = digits
                .parse()
                .map_err(|_| wrong(format!("`{digits}` is too many"), HINT))?;
            (field.to_owned(), size)
        }
        Some(_) => {
            return Err(wrong(
                format!("`{level}` has no number behind its colon"),
                HINT,
            ));
        }
        None => (level.to_owned(), size),
    };
    Ok((field.clone(), Operation::Terms { field, size }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = match parse(text, 100) {
            Ok(aggs) => serde_json::to_string(&aggs).unwrap(),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn levels() {
        check(
            "actor",
            r#"{"actor":{"terms":{"field":"actor","size":100}}}"#,
        );
        check(
            "time:1h > actor:5",
            r#"{"time":{"date_histogram":{"field":"time","interval":"1h"},"aggs":{"actor":{"terms":{"field":"actor","size":5}}}}}"#,
        );
        check(
            "raw.region>distinct( src_ip )",
            r#"{"raw.region":{"terms":{"field":"raw.region","size":100},"aggs":{"distinct( src_ip )":{"cardinality":{"field":"src_ip"}}}}}"#,
        );
        check(
            "percentiles(invocation.duration_ms, 50, p99.9)",
            r#"{"percentiles(invocation.duration_ms, 50, p99.9)":{"percentiles":{"field":"invocation.duration_ms","percents":[50.0,99.9]}}}"#,
        );
        check("count()", r#"{"count()":{"count":{}}}"#);
    }

    #[test]
    fn mistakes() {
        check("", "a level of the aggregation is empty");
        check("actor > ", "a level of the aggregation is empty");
        check("time", "`time` is a time");
        check("time:x", "`x` is no length of time");
        check("actor:many", "`actor:many` has no number behind its colon");
        check("actor:0", "`size` is 0");
        check("sum(x)", "unknown function `sum`");
        check(
            "count() > actor",
            "`count()` makes no buckets, so that nothing can stand behind it",
        );
        check(
            "a > b > c > d",
            "aggregations are nested deeper than 3 levels",
        );
        check("distinct(a, b)", "`distinct(a, b)` has too many arguments");
    }
}
