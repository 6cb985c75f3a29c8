//! Writes the evidence log while the service runs.
//!
//! A node keeps one if it has something to vouch for: the event log on this machine, or an index. [`Keeper::open`] says
//! that writing begins, and compares the ends of the event log with those of the last stop; [`Keeper::run`] writes down
//! every few seconds what has become durable; [`Keeper::end`], after all stages have ended, the rest. The index writes
//! down its splits itself.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bus::Stop;
use bus::ledger::log::{at_start, attest};
use bus::ledger::{Entry, Ledger};
use prometheus::{Counter, IntCounter, IntGauge, Registry};

use crate::clock;
use crate::config::Config;
use crate::exit::Usage;
use crate::log::Log;
use crate::role::{Role, Roles};

/// How often it is looked whether to stop.
const REST: Duration = Duration::from_millis(200);

/// The evidence log of this process.
#[derive(Clone)]
pub(crate) struct Keeper {
    ledger: Arc<Ledger>,
    metrics: Metrics,
}

/// What is counted.
#[derive(Clone)]
pub(crate) struct Metrics {
    size: IntGauge,
    age: IntGauge,
    bytes: IntCounter,
    seconds: Counter,
    errors: IntCounter,
}

impl Metrics {
    /// Registers the counters.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let metrics = Metrics {
            size: IntGauge::new(
                "trailwarden_evidence_checkpoint_leaves",
                "Leaves of the evidence log under the newest checkpoint",
            )?,
            age: IntGauge::new(
                "trailwarden_evidence_checkpoint_age_seconds",
                "Seconds since everything durable was under a checkpoint",
            )?,
            bytes: IntCounter::new(
                "trailwarden_evidence_log_bytes_total",
                "Bytes of the event log that were hashed for the evidence log",
            )?,
            seconds: Counter::new(
                "trailwarden_evidence_log_seconds_total",
                "How long that took in all",
            )?,
            errors: IntCounter::new(
                "trailwarden_evidence_errors_total",
                "Failed attempts to write the evidence log",
            )?,
        };
        registry.register(Box::new(metrics.size.clone()))?;
        registry.register(Box::new(metrics.age.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        Ok(metrics)
    }
}

impl Keeper {
    /// Opens the evidence log, if this node keeps one. Before anything is written to the store.
    pub(crate) fn open(
        config: &Config,
        roles: &Roles,
        log: &Log,
        registry: &Registry,
    ) -> anyhow::Result<Option<Keeper>> {
        if matches!(log, Log::Kafka(_)) && !roles.contains(&Role::Index) {
            return Ok(None);
        }
        let ledger =
            Ledger::open(&config.data_dir, config.evidence.key_file.as_deref()).context(Usage)?;
        let found = match log {
            Log::Embedded(bus) => at_start(bus.inner(), &ledger)?,
            Log::Kafka(_) => Vec::new(),
        };
        for words in &found {
            tracing::error!("the store was changed while it was stopped: {words}");
        }
        ledger.start(clock::now(), env!("CARGO_PKG_VERSION"), found)?;
        Ok(Some(Keeper {
            ledger: Arc::new(ledger),
            metrics: Metrics::new(registry)?,
        }))
    }

    /// The evidence log.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The same for others to keep.
    pub(crate) fn shared(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Writes down what becomes durable until told to stop.
    pub(crate) fn run(&self, log: &Log, every: Duration, stop: &Stop) -> anyhow::Result<()> {
        let mut newest = clock::now();
        let mut next = newest;
        while !stop.is_stopped() {
            let now = clock::now();
            if now >= next {
                match self.step(log) {
                    Ok(()) => newest = now,
                    Err(error) if error.is_transient() => {
                        self.metrics.errors.inc();
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "cannot write the evidence log, trying again"
                        );
                    }
                    Err(error) => return Err(error.into()),
                }
                next = now.plus(i64::try_from(every.as_micros()).unwrap_or(i64::MAX / 2));
            }
            let age = (clock::now().millis() - newest.millis()) / 1_000;
            self.metrics.age.set(age);
            self.metrics
                .size
                .set(i64::try_from(self.ledger.size()).unwrap_or(i64::MAX));
            std::thread::sleep(REST);
        }
        Ok(())
    }

    fn step(&self, log: &Log) -> Result<(), bus::ledger::log::AttestError> {
        let Log::Embedded(bus) = log else {
            return Ok(());
        };
        let began = std::time::Instant::now();
        let bytes = attest(bus.inner(), &self.ledger, clock::now())?;
        self.metrics.bytes.inc_by(bytes);
        self.metrics.seconds.inc_by(began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Writes down the rest, and that it is all.
    pub(crate) fn end(&self, log: &Log) {
        let entry = Entry::Stopped { time: clock::now() };
        let ended = self
            .step(log)
            .and_then(|()| Ok(self.ledger.append(&[entry], &[]).map(drop)?));
        if let Err(error) = ended {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the evidence log was not closed; the next start goes on where it was"
            );
        }
    }
}
