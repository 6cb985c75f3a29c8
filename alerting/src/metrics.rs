//! What alerting counts. Labels are a closed set: nothing that came out of a log is ever one.

use std::collections::BTreeMap;

use event::Severity;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    Result,
};

use crate::outbox::Outcome;
use crate::store::Applied;

/// The counters of the stage and of the sending threads. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    received: IntCounter,
    sent: IntCounter,
    pub(crate) dropped: IntCounterVec,
    staged: IntCounterVec,
    errors: IntCounterVec,
    pub(crate) lag: IntGauge,
    batch_seconds: Histogram,
    opened: IntCounterVec,
    resolved: IntCounter,
    notifications: IntCounterVec,
    outbox: IntGauge,
    dead: IntGauge,
    leads: IntGaugeVec,
    sources: IntGaugeVec,
    collectors_failing: IntGauge,
}

impl Metrics {
    /// Counters under `registry`.
    pub fn new(registry: &Registry) -> Result<Metrics> {
        let counter = |name: &str, help: &str| -> Result<IntCounter> {
            let counter = IntCounter::new(format!("trailwarden_alerting_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec> {
            let opts = Opts::new(format!("trailwarden_alerting_{name}"), help);
            let counters = IntCounterVec::new(opts, labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge> {
            let gauge = IntGauge::new(format!("trailwarden_alerting_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let batch_seconds = Histogram::with_opts(HistogramOpts::new(
            "trailwarden_alerting_batch_seconds",
            "how long a batch of findings took",
        ))?;
        registry.register(Box::new(batch_seconds.clone()))?;
        let opts = Opts::new(
            "trailwarden_alerting_leads",
            "1 where this node does the work of a role: apply findings, send notifications, watch sources",
        );
        let leads = IntGaugeVec::new(opts, &["role"])?;
        registry.register(Box::new(leads.clone()))?;
        let opts = Opts::new(
            "trailwarden_alerting_sources",
            "sources by account and region, by how they are: learning, arriving, silent, passing; where this node watches them",
        );
        let sources = IntGaugeVec::new(opts, &["state"])?;
        registry.register(Box::new(sources.clone()))?;
        let metrics = Metrics {
            received: counter("events_received_total", "findings read from the log")?,
            sent: counter("events_sent_total", "findings that changed an alert")?,
            dropped: counters(
                "events_dropped_total",
                "findings that changed nothing",
                &["reason"],
            )?,
            staged: counters(
                "staged_total",
                "findings of rules that are tried out, by rule: nobody was told",
                &["rule"],
            )?,
            errors: counters("errors_total", "what failed and is tried again", &["kind"])?,
            lag: gauge("lag_events", "findings on the log that have not been read")?,
            batch_seconds,
            opened: counters("alerts_opened_total", "alerts opened", &["severity"])?,
            resolved: counter(
                "alerts_auto_resolved_total",
                "alerts resolved after their quiet time",
            )?,
            notifications: counters(
                "notifications_total",
                "attempts to notify, by kind of receiver and what came of them",
                &["receiver", "result"],
            )?,
            outbox: gauge("outbox_depth", "notifications that wait or are being sent")?,
            dead: gauge("outbox_dead", "notifications given up")?,
            leads,
            sources,
            collectors_failing: gauge(
                "collectors_failing",
                "collectors that cannot read their source; where this node watches them",
            )?,
        };
        for severity in Severity::ALL {
            metrics.opened.with_label_values(&[severity.as_str()]);
        }
        for reason in ["repeat", "unreadable"] {
            metrics.dropped.with_label_values(&[reason]);
        }
        for role in ["findings", "notifications", "sources"] {
            metrics.leads.with_label_values(&[role]);
        }
        for kind in ["store", "send"] {
            metrics.errors.with_label_values(&[kind]);
        }
        Ok(metrics)
    }

    /// A batch was applied.
    pub(crate) fn applied(&self, applied: &Applied, seconds: f64) {
        self.sent.inc_by(applied.changed);
        self.dropped
            .with_label_values(&["repeat"])
            .inc_by(applied.repeated);
        self.batch_seconds.observe(seconds);
        self.changed(applied);
    }

    /// Alerts opened or were resolved.
    pub(crate) fn changed(&self, applied: &Applied) {
        for (severity, opened) in Severity::ALL.iter().zip(applied.opened) {
            self.opened
                .with_label_values(&[severity.as_str()])
                .inc_by(opened);
        }
        self.resolved.inc_by(applied.resolved);
    }

    pub(crate) fn received(&self, findings: u64, unreadable: u64) {
        self.received.inc_by(findings);
        self.dropped
            .with_label_values(&["unreadable"])
            .inc_by(unreadable);
    }

    /// A finding of a rule that is tried out. Ids of rules come from rule files, not from logs.
    pub(crate) fn staged(&self, rule: &str) {
        self.staged.with_label_values(&[rule]).inc();
    }

    pub(crate) fn lag(&self, findings: u64) {
        self.lag.set(findings.try_into().unwrap_or(i64::MAX));
    }

    pub(crate) fn leads(&self, role: &'static str, leads: bool) {
        self.leads.with_label_values(&[role]).set(leads.into());
    }

    /// How many sources there are of each state, and how many collectors fail.
    pub(crate) fn watched(&self, states: &BTreeMap<&'static str, i64>, failing: usize) {
        for state in ["learning", "arriving", "silent", "passing"] {
            let count = states.get(state).copied().unwrap_or(0);
            self.sources.with_label_values(&[state]).set(count);
        }
        self.collectors_failing.set(failing as i64);
    }

    #[cfg(test)]
    pub(crate) fn is_leading(&self, role: &'static str) -> bool {
        self.leads.with_label_values(&[role]).get() == 1
    }

    pub(crate) fn failed(&self, kind: &'static str) {
        self.errors.with_label_values(&[kind]).inc();
    }

    /// What came of an attempt to notify a receiver of a kind.
    pub(crate) fn attempted(&self, kind: &'static str, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Sent => "sent",
            Outcome::Retry {
                ambiguous: true, ..
            } => "ambiguous",
            Outcome::Retry { .. } => "failed",
            Outcome::Dead { .. } => "dead",
        };
        self.notifications.with_label_values(&[kind, result]).inc();
    }

    pub(crate) fn outbox(&self, waiting: u64, dead: u64) {
        self.outbox.set(waiting.try_into().unwrap_or(i64::MAX));
        self.dead.set(dead.try_into().unwrap_or(i64::MAX));
    }
}
