//! `/api/v1/searches`: searches that people keep under a name, for everybody who may log in.
//!
//! What is saved is what was written: a range of time stays relative where it was. A query that cannot be read, a time
//! that is none and columns that cannot be shown are refused before anything is kept; [`save`] and [`remove`] are also
//! what the page's forms call. [`address`] is the page of a saved search, [`as_written`] the search of a page.

use alerting::SavedSearch;
use alerting::saved::{First, NewSearch, Searched};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use event::{Outcome, Time};
use serde_json::{Value, json};

use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::pages::encode;
use crate::pages::search::columns;
use crate::params::{self, Params};

/// Presets of the page and the times that they stand for.
const PRESETS: [(&str, &str); 5] = [
    ("1h", "-1h"),
    ("24h", "-24h"),
    ("7d", "-7d"),
    ("30d", "-30d"),
    ("all", ""),
];

/// `GET /api/v1/searches`
pub(crate) async fn list(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    params.only(&[])?;
    let store = shared.app.store.clone();
    let searches = blocking(move || store.searches()).await??;
    let searches = searches
        .iter()
        .map(to_json)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({ "searches": searches })))
}

/// `GET /api/v1/searches/{name}`
pub(crate) async fn get(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    params.only(&[])?;
    let search = find(&shared, &name).await?;
    Ok(Json(json!({ "search": to_json(&search)? })))
}

/// `PUT /api/v1/searches/{name}`
pub(crate) async fn put(
    State(shared): State<Shared>,
    client: Client,
    Path(name): Path<String>,
    params: Params,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    params.only(&["overwrite"])?;
    let overwrite = params.flag("overwrite")?;
    let new: NewSearch = params::json(request).await?;
    let (search, replaced) = save(&shared, &client, &name, new, overwrite).await?;
    let status = match replaced {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    Ok((status, Json(json!({ "search": to_json(&search)? }))))
}

/// `DELETE /api/v1/searches/{name}`
pub(crate) async fn delete(
    State(shared): State<Shared>,
    client: Client,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let search = remove(&shared, &client, &name).await?;
    Ok(Json(json!({ "search": to_json(&search)? })))
}

/// The saved search of a name.
pub(crate) async fn find(shared: &Shared, name: &str) -> Result<SavedSearch, ApiError> {
    let (store, name) = (shared.app.store.clone(), name.to_owned());
    let found = blocking(move || store.saved_search(&name)).await??;
    found.ok_or_else(|| ApiError::not_found("saved search"))
}

/// Keeps a search, and records who did it. Tells whether another was there.
pub(crate) async fn save(
    shared: &Shared,
    client: &Client,
    name: &str,
    new: NewSearch,
    overwrite: bool,
) -> Result<(SavedSearch, bool), ApiError> {
    check(&new, shared.now())?;
    let details =
        json!({"query": new.query, "from": new.from, "to": new.to, "overwrite": overwrite});
    let (store, who, now) = (shared.app.store.clone(), client.name.clone(), shared.now());
    let called = name.to_owned();
    let saved = blocking(move || store.save_search(&called, &new, overwrite, &who, now)).await?;
    let (outcome, resource) = match &saved {
        Ok((search, _)) => (Outcome::Success, format!("search/{}", search.name)),
        Err(_) => (Outcome::Failure, String::new()),
    };
    shared.audit(client, "SaveSearch", outcome, resource, details);
    Ok(saved?)
}

/// Forgets a search, and records who did it.
pub(crate) async fn remove(
    shared: &Shared,
    client: &Client,
    name: &str,
) -> Result<SavedSearch, ApiError> {
    let (store, called) = (shared.app.store.clone(), name.to_owned());
    let deleted = blocking(move || store.delete_search(&called)).await?;
    let (outcome, resource, details) = match &deleted {
        Ok(search) => (
            Outcome::Success,
            format!("search/{}", search.name),
            // What is gone can be made again from its record.
            json!({"query": search.query, "from": search.from, "to": search.to, "owner": search.owner}),
        ),
        Err(_) => (Outcome::Failure, String::new(), json!({})),
    };
    shared.audit(client, "DeleteSearch", outcome, resource, details);
    Ok(deleted?)
}

/// Refuses what could not be opened again.
fn check(new: &NewSearch, now: Time) -> Result<(), ApiError> {
    ::search::query::parse(&new.query).map_err(::search::SearchError::from)?;
    let given = |text: &String| (!text.trim().is_empty()).then(|| text.clone());
    let times = Params::of([("from", given(&new.from)), ("to", given(&new.to))]);
    times.range(now)?;
    if new
        .columns
        .iter()
        .any(|c| c.trim().is_empty() || c.contains(','))
    {
        return Err(ApiError::bad(
            "bad_parameter",
            "`columns` are names of fields without a comma",
        ));
    }
    Ok(())
}

/// The search that a page's address asks for.
pub(crate) fn as_written(params: &Params) -> Result<NewSearch, ApiError> {
    let written = |name: &str| params.or_empty(name).to_owned();
    let preset = PRESETS
        .iter()
        .find(|(range, _)| params.text("range") == Some(range));
    let (from, to) = match preset {
        Some((_, from)) => ((*from).to_owned(), String::new()),
        None if params.text("range").is_none()
            && params.text("from").is_none()
            && params.text("to").is_none() =>
        {
            // What the page shows where nothing is said.
            ("-24h".to_owned(), String::new())
        }
        None => (written("from"), written("to")),
    };
    Ok(NewSearch {
        description: String::new(),
        query: written("q"),
        from,
        to,
        kind: Searched::Events,
        order: match params.text("order") {
            Some("oldest") => First::Oldest,
            _ => First::Newest,
        },
        columns: columns::chosen(params)?,
    })
}

/// Does a page's address ask for what was saved?
pub(crate) fn is_same(new: &NewSearch, saved: &SavedSearch) -> bool {
    new.query.trim() == saved.query
        && (new.from.trim(), new.to.trim()) == (&saved.from, &saved.to)
        && (new.kind, new.order) == (saved.kind, saved.order)
        && new.columns == saved.columns
}

/// Where a saved search is opened: on the Search page, or for findings in the API.
pub(crate) fn address(search: &SavedSearch) -> String {
    let oldest = search.order == First::Oldest;
    if search.kind == Searched::Findings {
        let mut out = format!("/api/v1/search?kind=findings&q={}", encode(&search.query));
        for (name, text) in [("from", &search.from), ("to", &search.to)] {
            if !text.is_empty() {
                out.push_str(&format!("&{name}={}", encode(text)));
            }
        }
        if oldest {
            out.push_str("&order=oldest");
        }
        return out;
    }
    let mut out = format!("/search?q={}", encode(&search.query));
    let preset = PRESETS
        .iter()
        .find(|(_, from)| search.to.is_empty() && *from == search.from);
    match preset {
        Some((range, _)) => out.push_str(&format!("&range={range}")),
        None => out.push_str(&format!(
            "&range=custom&from={}&to={}",
            encode(&search.from),
            encode(&search.to)
        )),
    }
    if oldest {
        out.push_str("&order=oldest");
    }
    if !search.columns.is_empty() {
        out.push_str(&format!("&cols={}", encode(&search.columns.join(","))));
    }
    out.push_str(&format!("&saved={}", encode(&search.name)));
    out
}

fn to_json(search: &SavedSearch) -> Result<Value, ApiError> {
    let mut json = serde_json::to_value(search).map_err(ApiError::internal)?;
    json["href"] = address(search).into();
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a page asks for is what is opened again.
    #[test]
    fn a_search_is_opened_as_it_was_saved() {
        let pairs = |text: &str| {
            let pairs = params::pairs(text.as_bytes());
            let value = |name: &str| {
                let found = pairs.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.clone())
            };
            Params::of(
                ["q", "range", "from", "to", "order", "cols"].map(|name| (name, value(name))),
            )
        };
        for (written, opened) in [
            ("q=a", "q=a&range=24h"),
            ("q=a&range=7d&order=oldest", "q=a&range=7d&order=oldest"),
            ("q=&range=all&cols=action,b", "q=&range=all&cols=action%2Cb"),
            (
                "q=a+b&range=custom&from=-3d&to=now",
                "q=a%20b&range=custom&from=-3d&to=now",
            ),
            (
                "q=a&from=2026-03-02",
                "q=a&range=custom&from=2026-03-02&to=",
            ),
        ] {
            let new = as_written(&pairs(written)).unwrap();
            check(&new, Time(0)).unwrap();
            let saved = alerting::saved::check("Ü 1", &new, "ana", Time(0)).unwrap();
            let address = address(&saved);
            assert_eq!(
                address,
                format!("/search?{opened}&saved=%C3%9C%201"),
                "{written}"
            );
            let again = as_written(&pairs(address.split_once('?').unwrap().1)).unwrap();
            assert!(is_same(&again, &saved), "{written}");
        }
    }

    #[test]
    fn what_could_not_be_opened_is_refused() {
        let code = |new: NewSearch| check(&new, Time(0)).unwrap_err().code;
        let new = |query: &str, from: &str, to: &str| NewSearch {
            query: query.into(),
            from: from.into(),
            to: to.into(),
            ..NewSearch::default()
        };
        assert_eq!(code(new("(", "", "")), "bad_query");
        assert_eq!(code(new("", "soon", "")), "bad_time");
        assert_eq!(code(new("", "now", "-1h")), "reversed_range");
        let columns = NewSearch {
            columns: vec!["a,b".into()],
            ..NewSearch::default()
        };
        assert_eq!(code(columns), "bad_parameter");
    }
}
