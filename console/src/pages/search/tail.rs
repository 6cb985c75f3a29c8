//! Events as they come in: asked for again and again by an open page, until it stops.
//!
//! The page asks for what was taken in during the last minute, and drops what it shows already; so nothing is missed
//! that becomes visible a little later than something else. These questions are not recorded, the first one is.

use ::search::Request;
use axum::extract::State;
use maud::{Markup, html};

use super::{address_of, columns, head, hits, read};
use crate::api;
use crate::app::Shared;
use crate::error::ApiError;
use crate::params::Params;

/// How far back the page asks.
const SINCE: &str = "ingest_time:>=-60s";
/// How many events it is given at once.
const MOST: usize = 200;

/// `GET /search/tail`
pub(crate) async fn part(State(shared): State<Shared>, params: Params) -> Result<Markup, ApiError> {
    let asked = read(&params, shared.now())?;
    let request = recent(&asked.request);
    let inside = request.clone();
    let answer =
        api::search::quietly(&shared, &request, move |searcher| searcher.search(&inside)).await?;
    let columns = columns::chosen(&params)?;
    Ok(html! {
        (poll(&params, answer.hits.len() >= MOST, answer.partial.as_deref()))
        div hx-swap-oob="afterbegin:#hits-rows" { (hits(&answer.hits, &columns)) }
    })
}

/// What was taken in of late, whenever it happened.
fn recent(asked: &Request) -> Request {
    let query = match asked.query.trim() {
        "" => SINCE.to_owned(),
        query => format!("({query}) AND {SINCE}"),
    };
    Request {
        query,
        from: None,
        to: None,
        after: None,
        count: false,
        newest_first: true,
        limit: MOST,
        ..asked.clone()
    }
}

/// Asks again in two seconds.
pub(crate) fn poll(params: &Params, full: bool, partial: Option<&str>) -> Markup {
    let address = address_of(params, None, None, None).replacen("/search?", "/search/tail?", 1);
    html! {
        div.tail #tail hx-get=(address) hx-trigger="every 2s" hx-swap="outerHTML" {
            span.livedot #live { "live" }
            @if let Some(why) = partial { " " span.wrong role="alert" { "Not all events come in here: " (why) } }
            @if full { " " span.dim { "more than " (MOST) " a minute: only the newest are shown" } }
        }
    }
}

/// The table of a page that follows.
pub(crate) fn table(events: &[::event::Event], columns: &[String]) -> Markup {
    html! {
        div class=(super::classes(columns)) {
            (head(columns, None))
            div #hits-rows data-follow="" { (hits(events, columns)) }
        }
    }
}
