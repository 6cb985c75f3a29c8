//! What the console counts of itself, for `/metrics`.
//!
//! [`Metrics`] is registered once by `cli` and handed in with [`crate::App`]. Labels are fixed words only:
//! the route as it stands in the table and the class of the status, never anything that a client or a log
//! sent.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// The console's counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Requests by route and class of status.
    pub requests: IntCounterVec,
    /// How long requests took, by route, in seconds.
    pub duration: HistogramVec,
    /// Requests refused before a route saw them, by reason.
    pub refused: IntCounterVec,
    /// Failed logins.
    pub failed_logins: IntCounter,
    /// Open live streams.
    pub live_streams: IntGauge,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let metrics = Metrics {
            requests: IntCounterVec::new(
                Opts::new(
                    "trailwarden_console_requests_total",
                    "Requests answered, by route and class of status.",
                ),
                &["route", "status"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "trailwarden_console_request_seconds",
                    "How long requests took, by route.",
                )
                .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
                &["route"],
            )?,
            refused: IntCounterVec::new(
                Opts::new(
                    "trailwarden_console_dropped_total",
                    "Requests refused before a route saw them, by reason.",
                ),
                &["reason"],
            )?,
            failed_logins: IntCounter::new(
                "trailwarden_console_failed_logins_total",
                "Logins with a wrong name or password, or refused for too many of them.",
            )?,
            live_streams: IntGauge::new(
                "trailwarden_console_live_streams",
                "Open streams of the alert feed.",
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.failed_logins.clone()))?;
        registry.register(Box::new(metrics.live_streams.clone()))?;
        Ok(metrics)
    }
}
