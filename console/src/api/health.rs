//! `/healthz`, `/readyz`, `/metrics`, `/api/v1/health` and `/api/v1/sources`.
//!
//! `/healthz` says that the process answers; `/readyz` runs the checks that `cli` gave. [`lags`] compares
//! each stage's position with the end of the log, in records and in seconds: the age of the oldest record
//! that the stage has not taken yet. [`report`] says what arrives and what is silent, from the store.

use std::collections::BTreeMap;

use alerting::watch::report::{Known, Report};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bus::{Offset, Topic};
use event::Time;
use prometheus::TextEncoder;
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::{App, Shared, Stage};
use crate::error::{ApiError, blocking};

/// How far a stage is behind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Lag {
    /// The stage.
    pub(crate) stage: &'static str,
    /// What it reads.
    pub(crate) topic: &'static str,
    /// Records not taken yet.
    pub(crate) records: u64,
    /// The age of the oldest of them, in seconds; 0 where there is none.
    pub(crate) seconds: f64,
    /// The next offset of each partition.
    pub(crate) positions: Vec<u64>,
}

/// What the log keeps of a topic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Kept {
    /// The topic.
    pub(crate) topic: &'static str,
    /// Its partitions.
    pub(crate) partitions: u32,
    /// Records kept.
    pub(crate) records: u64,
    /// Records ever appended.
    pub(crate) appended: u64,
}

/// `GET /healthz`
pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: only the names of what is not well; the reasons are for those who may read `/api/v1/health`.
pub(crate) async fn readyz(State(shared): State<Shared>) -> Result<Response, ApiError> {
    let results = blocking(move || checks(&shared.app)).await?;
    let good = results.values().all(Result::is_ok);
    let answer: BTreeMap<&str, &str> = results
        .iter()
        .map(|(name, result)| (*name, if result.is_ok() { "ok" } else { "failed" }))
        .collect();
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let word = if good { "ready" } else { "not ready" };
    Ok((status, Json(json!({"status": word, "checks": answer}))).into_response())
}

/// `GET /metrics`
pub(crate) async fn metrics(State(shared): State<Shared>) -> Result<Response, ApiError> {
    let text = TextEncoder::new()
        .encode_to_string(&shared.app.registry.gather())
        .map_err(ApiError::internal)?;
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((kind, text).into_response())
}

/// `GET /api/v1/health`
pub(crate) async fn health(State(shared): State<Shared>) -> Result<Json<Value>, ApiError> {
    blocking(move || {
        let checks: BTreeMap<&str, Value> = checks(&shared.app)
            .into_iter()
            .map(|(name, result)| match result {
                Ok(detail) => (name, json!({"ok": true, "detail": detail})),
                Err(detail) => (name, json!({"ok": false, "detail": detail})),
            })
            .collect();
        let now = shared.now();
        Json(json!({
            "time": now,
            "checks": checks,
            "stages": lags(&shared.app, now),
            "topics": kept(&shared.app),
            "index_nodes": shared.app.searcher.shares(),
        }))
    })
    .await
}

/// `GET /api/v1/sources`
pub(crate) async fn sources(State(shared): State<Shared>) -> Result<Json<Report>, ApiError> {
    let report = blocking(move || report(&shared.app, shared.now())).await??;
    Ok(Json(report))
}

/// The next offset that a stage reads of a partition, how many records there are from there on, and the age of the first
/// of them in seconds.
fn behind(
    app: &App,
    stage: &Stage,
    partition: u32,
    positions: &BTreeMap<u32, Offset>,
    now: Time,
) -> (u64, u64, f64) {
    let bounds = app.bus.bounds(stage.topic, partition).unwrap_or(0..0);
    let at = positions.get(&partition).copied().unwrap_or(bounds.start);
    if at >= bounds.end {
        return (at, 0, 0.0);
    }
    let from = at.max(bounds.start);
    let oldest = app.bus.read(stage.topic, partition, from, 0).ok();
    let oldest = oldest.and_then(|b| b.records.first().map(|(_, r)| r.time));
    let age = oldest.map_or(0.0, |time| (now.0 - time.0).max(0) as f64 / 1e6);
    (at, bounds.end - from, age)
}

/// Runs the checks of readiness.
pub(crate) fn checks(app: &App) -> BTreeMap<&'static str, Result<String, String>> {
    app.checks.iter().map(|c| (c.name, (c.run)())).collect()
}

/// How far each stage is behind.
pub(crate) fn lags(app: &App, now: Time) -> Vec<Lag> {
    app.stages
        .iter()
        .map(|stage| {
            let mut lag = Lag {
                stage: stage.name,
                topic: stage.topic.as_str(),
                records: 0,
                seconds: 0.0,
                positions: Vec::new(),
            };
            let positions = (stage.positions)();
            for partition in 0..app.bus.partitions(stage.topic) {
                let (at, records, seconds) = behind(app, stage, partition, &positions, now);
                lag.positions.push(at);
                lag.records += records;
                lag.seconds = lag.seconds.max(seconds);
            }
            lag
        })
        .collect()
}

/// What the log keeps.
pub(crate) fn kept(app: &App) -> Vec<Kept> {
    Topic::ALL
        .into_iter()
        .map(|topic| {
            let partitions = app.bus.partitions(topic);
            let bounds = (0..partitions).filter_map(|p| app.bus.bounds(topic, p).ok());
            let (records, appended) = bounds.fold((0, 0), |(records, appended), b| {
                (records + b.end.saturating_sub(b.start), appended + b.end)
            });
            Kept {
                topic: topic.as_str(),
                partitions,
                records,
                appended,
            }
        })
        .collect()
}

/// What arrives, what is silent, and what was never seen.
pub(crate) fn report(app: &App, now: Time) -> Result<Report, ApiError> {
    let (feeds, collectors) = (app.store.feeds()?, app.store.collectors()?);
    let functions = app.store.functions()?;
    let inventory = (app.inventory)();
    let known = Known {
        feeds: &feeds,
        collectors: &collectors,
        functions: &functions,
        inventory: &inventory,
        blind: &*app.blind,
    };
    Ok(Report::of(&known, &app.watched, now))
}
