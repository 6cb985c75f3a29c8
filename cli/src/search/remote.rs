//! A running service asked by `trailwarden search --url`, over the routes that docs/search.md tells.

use std::io::Write;
use std::path::Path;

use alerting::SavedSearch;
use anyhow::Context;
use reqwest::Url;
use search::Request;
use search::aggregate::{Aggregated, Aggregations};
use search::explain::Explanation;
use search::export::Format;
use search::fields::FieldStats;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::output::Hit;
use super::{note, warn};
use crate::service_client::Service;

/// How many events one request asks for.
const PAGE: usize = 1_000;

/// A service.
pub(super) struct Remote(Service);

impl Remote {
    pub(super) fn new(url: &str, token_file: Option<&Path>) -> anyhow::Result<Remote> {
        Service::new(url, token_file).map(Remote)
    }

    /// The address of a route with query, time range and order.
    fn address(
        &self,
        path: &str,
        request: &Request,
        more: &[(&str, String)],
    ) -> anyhow::Result<Url> {
        let mut address = self.0.address(path)?;
        let mut pairs = address.query_pairs_mut();
        pairs.append_pair("q", &request.query);
        for (name, time) in [("from", request.from), ("to", request.to)] {
            if let Some(time) = time {
                pairs.append_pair(name, &time.to_string());
            }
        }
        for (name, value) in more {
            pairs.append_pair(name, value);
        }
        drop(pairs);
        Ok(address)
    }

    fn order(request: &Request) -> (&'static str, String) {
        let order = match request.newest_first {
            true => "newest",
            false => "oldest",
        };
        ("order", order.to_owned())
    }

    pub(super) fn explain(&self, request: &Request) -> anyhow::Result<Explanation> {
        read(
            self.0
                .get(self.address("/api/v1/search/explain", request, &[])?)?,
        )
    }

    pub(super) fn fields(&self, request: &Request, sample: usize) -> anyhow::Result<FieldStats> {
        let sample = ("sample", sample.to_string());
        read(
            self.0
                .get(self.address("/api/v1/search/fields", request, &[sample])?)?,
        )
    }

    pub(super) fn aggregate(
        &self,
        request: &Request,
        aggs: &Aggregations,
    ) -> anyhow::Result<Aggregated> {
        let body = json!({
            "query": request.query,
            "from": request.from,
            "to": request.to,
            "limit": 0,
            "aggs": aggs,
        });
        let mut answer = self.0.post(self.0.address("/api/v1/search")?, &body)?;
        notes(&answer);
        read(json!({
            "aggs": answer["aggs"].take(),
            "matched": answer["total"].as_u64().unwrap_or_default(),
            "partial": answer["partial"].take(),
        }))
    }

    /// The search that is saved under a name.
    pub(super) fn saved(&self, name: &str) -> anyhow::Result<SavedSearch> {
        // The name is one segment of the path, whatever is in it.
        let mut address = self.0.address("/api/v1/searches/")?;
        if let Ok(mut path) = address.path_segments_mut() {
            path.pop_if_empty().push(name);
        }
        read(self.0.get(address)?["search"].take())
    }

    /// A page of events, asked in pieces.
    pub(super) fn events(&self, request: &Request) -> anyhow::Result<Vec<Hit>> {
        let mut hits: Vec<Hit> = Vec::new();
        let mut cursor: Option<String> = None;
        while hits.len() < request.limit {
            let mut more = vec![
                ("limit", (request.limit - hits.len()).min(PAGE).to_string()),
                Remote::order(request),
            ];
            more.extend(cursor.take().map(|c| ("cursor", c)));
            let body = self
                .0
                .get(self.address("/api/v1/search", request, &more)?)?;
            notes(&body);
            if let Some(partial) = body["partial"].as_str() {
                warn(partial);
            }
            for json in body["hits"].as_array().into_iter().flatten() {
                let event = serde_json::from_value(json.clone())
                    .context("the service answered something that is no event")?;
                hits.push(Hit {
                    event,
                    json: json.clone(),
                });
            }
            match body["next"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        Ok(hits)
    }

    /// What the service exports, as it comes.
    pub(super) fn export(
        &self,
        request: &Request,
        most: Option<u64>,
        format: Format,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let understood = self.explain(request)?;
        understood.notes.iter().for_each(|words| note(words));
        if most == Some(0) {
            return Ok(());
        }
        let mut more = vec![
            ("format", format.extension().to_owned()),
            Remote::order(request),
        ];
        more.extend(most.map(|most| ("limit", most.to_string())));
        let address = self.address("/api/v1/search/export", request, &more)?;
        self.0.download(address, out)
    }
}

fn notes(body: &Value) {
    let notes = body["notes"].as_array().into_iter().flatten();
    notes.filter_map(Value::as_str).for_each(note);
}

fn read<T: DeserializeOwned>(body: Value) -> anyhow::Result<T> {
    serde_json::from_value(body).context("the service answered something else than was asked")
}
