//! Records delivered by Amazon Data Firehose: `POST /api/v1/firehose`.
//!
//! [`router`] keeps the contract of Firehose's HTTP endpoints: who comes shows an access key, what comes is
//! read by [`request`], and the answer is JSON with the request's id. 200 is said only after all of a request
//! is durable. Firehose sends again whatever was not answered so, under the same id, and in the end puts it
//! into its error bucket; only 413 makes it drop a request, so this is never answered. The same request gives
//! the same ids: records of CloudWatch Logs and CloudTrail have their own, others get one of stream, request,
//! number of the record and position in it.
//!
//! Each record goes through [`crate::decode`] by itself, as if it were a file. What cannot be read of one
//! becomes a dead letter, so that it costs neither its neighbours nor endless deliveries. Bodies are bounded
//! like those of [`crate::push`]; a request that takes too long is answered 503 and given up between records.

mod request;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bus::{Bus, Stop};
use event::{Clock, Str, Time, format_compact};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use self::request::{Delivery, Head};
use crate::append::Appender;
use crate::body::{Bodies, Body};
use crate::config::{Config, ConfigError};
use crate::dead_letter::DeadLetter;
use crate::decode::{Bad, Decoder, Item, Job, Limits};
use crate::metrics::Metrics;
use crate::normalize::{Context, Normalizer};
use crate::refusal::Refusal;
use crate::treatment::Treatment;

/// The word of this source in metrics and at the beginning of the names of objects.
const SOURCE: &str = "firehose";

/// More of an error message Firehose does not take.
const MAX_MESSAGE: usize = 8_192;

struct Endpoint {
    bus: Arc<dyn Bus>,
    clock: Clock,
    /// SHA-256 of every access key, so that comparing takes the same time whatever is presented.
    keys: Vec<[u8; 32]>,
    limits: Limits,
    bodies: Bodies,
    /// A request is answered within this time.
    timeout: Duration,
    metrics: Metrics,
    treatment: Arc<Treatment>,
}

/// The route of the endpoint. It asks for an access key of its own and needs no other guard.
pub fn router(
    bus: Arc<dyn Bus>,
    clock: Clock,
    config: &Config,
    metrics: Metrics,
    treatment: Arc<Treatment>,
) -> Result<Router, ConfigError> {
    let timeout = Duration::from_secs(config.firehose.timeout_seconds);
    within(timeout, bus, clock, config, (metrics, treatment))
}

fn within(
    timeout: Duration,
    bus: Arc<dyn Bus>,
    clock: Clock,
    config: &Config,
    (metrics, treatment): (Metrics, Arc<Treatment>),
) -> Result<Router, ConfigError> {
    let limits = config.firehose_limits();
    let keys = config.firehose.keys()?;
    let endpoint = Arc::new(Endpoint {
        bus,
        clock,
        keys: keys.iter().map(|k| Sha256::digest(k).into()).collect(),
        limits,
        bodies: Bodies::new(limits, config.firehose.concurrency, timeout),
        timeout,
        metrics,
        treatment,
    });
    Ok(Router::new()
        .route("/api/v1/firehose", post(deliver))
        .layer(endpoint.bodies.layer())
        .with_state(endpoint))
}

async fn deliver(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response {
    let request_id = request::id(request.headers()).unwrap_or_default();
    let taken = match tokio::time::timeout(endpoint.timeout, take(&endpoint, request)).await {
        Ok(taken) => taken,
        Err(_) => Err(too_slow()),
    };
    if let Err(refusal) = &taken {
        let refused = &endpoint.metrics.requests_refused;
        refused.with_label_values(&[SOURCE, refusal.code]).inc();
        tracing::debug!(request_id, code = refusal.code, "firehose request refused");
    }
    answer(&request_id, (endpoint.clock)(), taken.err())
}

/// What Firehose understands: other forms it treats as a failure.
fn answer(request_id: &str, now: Time, refusal: Option<Refusal>) -> Response {
    let mut body = serde_json::json!({"requestId": request_id, "timestamp": now.0 / 1_000});
    let Some(refusal) = refusal else {
        return (StatusCode::OK, Json(body)).into_response();
    };
    let mut message = format!("{}: {}; {}", refusal.code, refusal.message, refusal.hint);
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    body["errorMessage"] = message.into();
    let status = match refusal.status {
        // At 413 Firehose drops the request for good, and not even its error bucket gets it.
        StatusCode::PAYLOAD_TOO_LARGE => StatusCode::BAD_REQUEST,
        status => status,
    };
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let soon = HeaderValue::from_static("5");
        response.headers_mut().insert(header::RETRY_AFTER, soon);
    }
    response
}

async fn take(endpoint: &Arc<Endpoint>, request: Request) -> Result<(), Refusal> {
    authenticate(&endpoint.keys, request.headers())?;
    let head = Head::read(request.headers())?;
    let body = endpoint.bodies.receive(request).await?;
    // Whatever ends this future, the answer that took too long or the connection, ends the work too.
    let given_up = GiveUp::default();
    let (worker, stop) = (Arc::clone(endpoint), given_up.0.clone());
    tokio::task::spawn_blocking(move || append(&worker, &head, &body, &stop))
        .await
        .unwrap_or_else(|_| Err(Refusal::internal()))
}

/// Asks the thread that works on a request to stop, once nobody waits for the answer.
#[derive(Default)]
struct GiveUp(Stop);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Compares with every key, and with each in constant time.
fn authenticate(keys: &[[u8; 32]], headers: &HeaderMap) -> Result<(), Refusal> {
    if keys.is_empty() {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "off",
            "this endpoint is off",
            "set ingest.firehose.access_keys or access_keys_file",
        ));
    }
    let presented = headers.get("x-amz-firehose-access-key");
    let presented = Sha256::digest(presented.map_or(&b""[..], HeaderValue::as_bytes));
    let known = keys.iter().fold(Choice::from(0), |known, key| {
        known | key.ct_eq(presented.as_slice())
    });
    if bool::from(known) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNAUTHORIZED,
        "wrong_key",
        "the access key is missing or wrong",
        "give the stream's destination one of the keys in ingest.firehose",
    ))
}

fn too_slow() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_slow",
        "the request could not be made durable in time",
        "it is taken when it comes again; smaller buffer hints help",
    )
}

/// Decodes every record of a request and appends what they hold.
fn append(endpoint: &Endpoint, head: &Head, body: &Body, stop: &Stop) -> Result<(), Refusal> {
    let began = (endpoint.clock)();
    let content = body.unpacked()?;
    let delivery = Delivery::parse(&content)?;
    if delivery.request_id != head.request_id {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "request_id",
            "the body's requestId is not that of the header",
            request::HINT,
        ));
    }
    let mut taking = Taking {
        decoder: Decoder::new(endpoint.limits),
        normalizer: Normalizer::new(),
        appender: Appender::new(
            &*endpoint.bus,
            &endpoint.metrics,
            &endpoint.treatment,
            SOURCE,
        ),
        metrics: &endpoint.metrics,
        labels: &head.labels,
        began,
        stop,
    };
    for (index, record) in delivery.records.iter().enumerate() {
        let object = format_compact!("{SOURCE}:{}:{}#{index}", head.stream, head.request_id);
        if taking.record(record.get(), object).is_break() {
            break;
        }
    }
    if stop.is_stopped() {
        return Err(too_slow());
    }
    let appended = taking.appender.finish();
    appended.map_err(|error| Refusal::unavailable(&error, &endpoint.metrics, SOURCE, began))?;
    endpoint
        .metrics
        .collectors
        .post(SOURCE, "")
        .well("log", 1, began);
    let took = (endpoint.clock)().0 - began.0;
    endpoint.metrics.seconds.observe(took as f64 / 1e6);
    Ok(())
}

/// What the records of one request are put through.
struct Taking<'t> {
    decoder: Decoder,
    normalizer: Normalizer,
    appender: Appender<'t>,
    metrics: &'t Metrics,
    labels: &'t BTreeMap<Str, Str>,
    began: Time,
    stop: &'t Stop,
}

impl Taking<'_> {
    /// Takes one record as it stands in the body. Breaks when the log failed or nobody waits any more.
    fn record(&mut self, record: &str, object: Str) -> ControlFlow<()> {
        if self.stop.is_stopped() {
            return ControlFlow::Break(());
        }
        let data = match request::data(record) {
            Ok(data) => data,
            Err(malformed) => {
                let bytes = malformed.text.as_bytes();
                let bad = Bad::whole(malformed.reason, malformed.message, bytes);
                return self
                    .appender
                    .letter(DeadLetter::of(&bad, &object, self.began));
            }
        };
        if data.is_empty() {
            let dropped = &self.metrics.events_dropped;
            dropped.with_label_values(&["empty_record"]).inc();
            return ControlFlow::Continue(());
        }
        let context = Context {
            ingest_time: self.began,
            object,
            keep_raw: true,
        };
        let (appender, stop, labels) = (&mut self.appender, self.stop, self.labels);
        let (normalizer, began) = (&mut self.normalizer, self.began);
        let summary = self
            .decoder
            .bytes(&data, &Job::default(), &mut |item| match item {
                _ if stop.is_stopped() => ControlFlow::Break(()),
                Item::Record(record) => {
                    let mut ready = appender.ready(normalizer, &record, &context);
                    // What the inventory says is surer than what a stream calls itself.
                    for (name, value) in labels {
                        let label = ready.as_mut().labels.entry(name.clone());
                        label.or_insert_with(|| value.clone());
                    }
                    appender.event(&ready)
                }
                Item::Bad(bad) => appender.letter(DeadLetter::of(&bad, &context.object, began)),
            });
        self.metrics.count_dropped(&summary);
        match summary.stopped {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests;
