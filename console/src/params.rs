//! What a request says besides its path: query parameters, forms and JSON bodies, read strictly.
//!
//! [`Params`] holds the pairs of a query string or of a form; a route names the ones it knows, and an unknown
//! or unreadable one is answered 400 with what is expected, never with what was sent. An empty value counts as
//! absent, since forms send every field. [`json`] reads a body of at most the route's limit.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
use bytes::Bytes;
use event::{Id, Severity, Time};
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::guard::too_large;

/// The pairs of a query string.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

/// The pairs of a form that was sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form(pub(crate) Params);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params, ApiError> {
        Params::read(parts.uri.query().unwrap_or("").as_bytes())
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Form, ApiError> {
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|_| too_large())?;
        Params::read(&body).map(Form)
    }
}

impl Params {
    fn read(bytes: &[u8]) -> Result<Params, ApiError> {
        let mut map = BTreeMap::new();
        for (key, value) in pairs(bytes) {
            if map.insert(key, value).is_some() {
                return Err(ApiError::bad(
                    "doubled_parameter",
                    "a parameter is given twice",
                ));
            }
        }
        Ok(Params(map))
    }

    /// The pairs that have a value.
    pub(crate) fn of<const N: usize>(pairs: [(&str, Option<String>); N]) -> Params {
        let given = pairs
            .into_iter()
            .filter_map(|(k, v)| Some((k.to_owned(), v?)));
        Params(given.collect())
    }

    /// Takes a parameter away.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Refuses parameters that the route does not know.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        if self
            .0
            .keys()
            .all(|k| known.contains(&k.as_str()) || k == "csrf")
        {
            return Ok(());
        }
        Err(
            ApiError::bad("unknown_parameter", "a parameter is not known here")
                .hint(format!("known are: {}", known.join(", "))),
        )
    }

    /// The value, if there is one that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    /// The value, or nothing.
    pub(crate) fn or_empty(&self, name: &str) -> &str {
        self.text(name).unwrap_or("")
    }

    /// A whole number within a range.
    pub(crate) fn number(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        text.parse()
            .ok()
            .filter(|n| range.contains(n))
            .ok_or_else(|| {
                ApiError::bad(
                    "bad_parameter",
                    format!(
                        "`{name}` is a whole number from {} to {}",
                        range.start(),
                        range.end()
                    ),
                )
            })
    }

    /// A point in time: RFC 3339, `now`, or `-7d` and the like before now.
    pub(crate) fn time(&self, name: &str, now: Time) -> Result<Option<Time>, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        time(text, now).map(Some).ok_or_else(|| {
            ApiError::bad("bad_time", format!("`{name}` is not a time"))
                .hint("write 2026-03-02, 2026-03-02T12:00:00Z, now or -7d (units s, m, h, d, w); UTC where no zone is given")
        })
    }

    /// A range of time that does not run backwards.
    pub(crate) fn range(&self, now: Time) -> Result<(Option<Time>, Option<Time>), ApiError> {
        let (from, to) = (self.time("from", now)?, self.time("to", now)?);
        if let (Some(from), Some(to)) = (from, to)
            && from > to
        {
            return Err(ApiError::bad(
                "reversed_range",
                format!("the time range runs backwards: from {from} to {to} (UTC)"),
            )
            .hint("exchange the two ends"));
        }
        Ok((from, to))
    }

    /// A truth value: `true` or `1`, `false` or `0`; `on` as browsers send a ticked box.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "on") => Ok(true),
            Some(_) => Err(ApiError::bad(
                "bad_parameter",
                format!("`{name}` is true or false"),
            )),
        }
    }

    /// A severity.
    pub(crate) fn severity(&self, name: &str) -> Result<Option<Severity>, ApiError> {
        self.text(name)
            .map(|text| {
                Severity::from_level(text).ok_or_else(|| {
                    ApiError::bad(
                        "bad_parameter",
                        format!("`{name}` is informational, low, medium, high or critical"),
                    )
                })
            })
            .transpose()
    }
}

/// An id from a path; one that cannot be an id names nothing that there is.
pub(crate) fn id(text: &str, what: &str) -> Result<Id, ApiError> {
    text.parse().map_err(|_| ApiError::not_found(what))
}

/// The pairs of `application/x-www-form-urlencoded` bytes.
pub(crate) fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    bytes
        .split(|b| *b == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
            (
                decode(&pair[..at]),
                decode(pair.get(at + 1..).unwrap_or(b"")),
            )
        })
        .collect()
}

fn decode(bytes: &[u8]) -> String {
    let digit = |at: usize| {
        bytes
            .get(at)
            .and_then(|b| char::from(*b).to_digit(16))
            .map(|d| d as u8)
    };
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A time as people write it.
pub(crate) fn time(text: &str, now: Time) -> Option<Time> {
    let text = text.trim();
    if text == "now" {
        return Some(now);
    }
    if let Some(span) = text.strip_prefix("now-").or_else(|| text.strip_prefix('-')) {
        let unit = span.chars().last()?;
        let number: i64 = span[..span.len() - unit.len_utf8()].parse().ok()?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        return (number >= 0)
            .then(|| now.plus(-number.saturating_mul(seconds).saturating_mul(1_000_000)));
    }
    // The form field of browsers writes `2026-03-02T12:00`, without seconds.
    Time::parse(text)
        .ok()
        .or_else(|| Time::parse(&format!("{text}:00")).ok())
}

/// The JSON body of a request.
pub(crate) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let is_json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
    if !is_json {
        return Err(ApiError::new(
            axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "the body must be JSON",
        )
        .hint("send `Content-Type: application/json`"));
    }
    let body = Bytes::from_request(request, &())
        .await
        .map_err(|_| too_large())?;
    serde_json::from_slice(&body).map_err(|e| {
        let kind = match e.classify() {
            serde_json::error::Category::Data => {
                "the body has a key or a value that is not expected"
            }
            _ => "the body is not JSON",
        };
        ApiError::bad(
            "bad_body",
            format!("{kind}, at line {} column {}", e.line(), e.column()),
        )
        .hint("see /api/v1/openapi.json for what is expected")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let read = pairs(b"q=a%3Ab+c%25&empty=&flag&bad=%zz%e2%82%ac");
        let read: Vec<(&str, &str)> = read.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(
            read,
            [
                ("q", "a:b c%"),
                ("empty", ""),
                ("flag", ""),
                ("bad", "%zz€")
            ]
        );
    }

    #[test]
    fn times_as_people_write_them() {
        let now = Time::parse("2026-11-22T12:00:00Z").unwrap();
        for (text, expected) in [
            ("now", Some("2026-11-22T12:00:00Z")),
            ("-7d", Some("2026-11-15T12:00:00Z")),
            ("now-90s", Some("2026-11-22T11:58:30Z")),
            ("2026-03-02", Some("2026-03-02T00:00:00Z")),
            ("2026-03-02T10:30", Some("2026-03-02T10:30:00Z")),
            ("-5parsecs", None),
            ("--5d", None),
            ("-é", None),
            ("-99999999999999w", Some("0001-01-01T00:00:00Z")),
            ("yesterday", None),
        ] {
            let read = time(text, now).map(|t| t.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_repeating_it() {
        let params = Params::read(b"limit=-1&page=<x>").unwrap();
        let wrong = params.number("limit", 1..=1000, 50).unwrap_err();
        assert_eq!(wrong.message, "`limit` is a whole number from 1 to 1000");
        let unknown = params.only(&["limit"]).unwrap_err();
        assert!(!format!("{unknown:?}").contains("<x>"));
        let now = Time::parse("2026-11-22T12:00:00Z").unwrap();
        let reversed = Params::read(b"from=now&to=-1h")
            .unwrap()
            .range(now)
            .unwrap_err();
        assert!(reversed.message.contains("11:00:00Z"), "{reversed}");
    }
}
