//! A search as a Sigma rule, to be copied into a file of rules.

use axum::extract::State;
use maud::{Markup, html};

use super::layout::{self, Tab};
use super::{encode, ticked};
use crate::api::search_rule;
use crate::app::{Client, Shared};
use crate::error::ApiError;
use crate::params::Params;

/// `GET /search/rule`
pub(crate) async fn page(
    State(shared): State<Shared>,
    client: Client,
    params: Params,
) -> Result<Markup, ApiError> {
    params.only(&["q"])?;
    let query = params.or_empty("q");
    let written = search_rule::written(&shared, query);
    Ok(layout::page(
        &client,
        Tab::BelowSearch,
        "A search as a rule",
        html! {
            p.back { a href=(format!("/search?q={}", encode(query))) { "← Search" } }
            h1 { "A search as a rule" }
            section.panel {
                @match written {
                    Ok(rule) => {
                        p { "Save it as a file among your rules, say what it means when it matches, and give it tests. " code { "trailwarden rule check" } " reads it." }
                        pre.yaml tabindex="0" { (crate::inert::block(&rule)) }
                    }
                    Err(wrong) => {
                        p.wrong role="alert" { (ticked(&wrong.message)) "." }
                        p { (ticked(&wrong.hint)) }
                    }
                }
            }
        },
    ))
}
