//! The log of this installation: on this machine, or on Kafka.
//!
//! [`Log::open`] makes what the configuration says. The stages see a [`Bus`]; what only one of the two has (an fsync
//! that failed, what the clients of Kafka count) is asked here.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bus::embedded::EmbeddedBus;
use bus::kafka::{Consumers, KafkaBus, Settings, Share};
use bus::ledger::{self, Ledger};
use bus::metrics::{Metered, Metrics};
use bus::{Bus, BusError, Topic};
use event::Time;
use prometheus::Registry;

use crate::clock;
use crate::config::Config;

/// An open log.
#[derive(Clone)]
pub(crate) enum Log {
    /// Everything in one folder.
    Embedded(Arc<Metered<EmbeddedBus>>),
    /// Apache Kafka.
    Kafka(Arc<Metered<KafkaBus>>),
}

/// The log for a command that runs while the service does not. What the command appends is written down in the evidence
/// log when this is dropped: at the next start it would else look like something that somebody has put there.
pub(crate) struct Beside {
    /// The log.
    pub(crate) bus: Arc<dyn Bus>,
    evidence: Option<Bookkeeping>,
}

impl Drop for Beside {
    fn drop(&mut self) {
        end(self.evidence.take());
    }
}

struct Bookkeeping {
    bus: Arc<EmbeddedBus>,
    ledger: Arc<Ledger>,
    found: Vec<String>,
    ends: Vec<bus::Offset>,
    /// Does the evidence log say already that writing has begun?
    begun: bool,
}

/// The log and the evidence log for a command that changes the index of a service that is stopped. The evidence log is
/// closed again when this is dropped.
pub(crate) struct Shut {
    /// The log.
    pub(crate) bus: Arc<EmbeddedBus>,
    /// The evidence log, if the service has one.
    pub(crate) ledger: Option<Arc<Ledger>>,
    evidence: Option<Bookkeeping>,
}

impl Drop for Shut {
    fn drop(&mut self) {
        end(self.evidence.take());
    }
}

fn end(evidence: Option<Bookkeeping>) {
    if let Some(evidence) = evidence
        && let Err(error) = evidence.end()
    {
        tracing::error!(error = %format!("{error:#}"), "cannot write down in the evidence log what was appended");
    }
}

impl Bookkeeping {
    /// None where the service has never written an evidence log, or was not stopped in order: it sees to the rest itself.
    fn begin(config: &Config, bus: &Arc<EmbeddedBus>) -> anyhow::Result<Option<Bookkeeping>> {
        if !config.evidence_path().exists() {
            return Ok(None);
        }
        let ledger = Ledger::open(&config.data_dir, config.evidence.key_file.as_deref())?;
        Bookkeeping::of(Arc::new(ledger), bus)
    }

    fn of(ledger: Arc<Ledger>, bus: &Arc<EmbeddedBus>) -> anyhow::Result<Option<Bookkeeping>> {
        if !ledger.state(|state| state.stopped) {
            return Ok(None);
        }
        Ok(Some(Bookkeeping {
            begun: false,
            found: ledger::log::at_start(bus, &ledger)?,
            ends: bus.ends(Topic::Events)?,
            bus: Arc::clone(bus),
            ledger,
        }))
    }

    fn end(self) -> anyhow::Result<()> {
        if !self.begun && self.bus.ends(Topic::Events)? == self.ends {
            return Ok(());
        }
        let now = clock::now();
        if !self.begun {
            self.ledger
                .start(now, env!("CARGO_PKG_VERSION"), self.found)?;
        }
        ledger::log::attest(&self.bus, &self.ledger, now)?;
        Ok(self.ledger.stop(now)?)
    }
}

/// The settings of Kafka, if the log is there.
pub(crate) fn kafka_settings(config: &Config, accept_gap: bool) -> Option<Settings> {
    let share = Share {
        number: config.search.node,
        of: config.search.nodes,
    };
    Some(Settings {
        kafka: config.bus.kafka.clone()?,
        partitions: config.bus.partitions.clone(),
        retention_hours: config.bus.retention_hours.clone(),
        consumers: Consumers {
            moving: vec![
                (detect::match_stage::CONSUMER.into(), Topic::Events),
                (detect::correlate::CONSUMER.into(), Topic::Matches),
                (detect::baseline_stage::CONSUMER.into(), Topic::Meters),
            ],
            fixed: vec![(search::indexer::CONSUMER.into(), share)],
            rest_moves: false,
        },
        accept_gap,
        snapshot_bytes: 0,
    })
}

impl Log {
    /// Opens the log that the configuration says.
    pub(crate) fn open(
        config: &Config,
        registry: &Registry,
        accept_gap: bool,
    ) -> anyhow::Result<Log> {
        let metrics = Metrics::new(registry)?;
        let Some(settings) = kafka_settings(config, accept_gap) else {
            let bus =
                EmbeddedBus::open(&config.bus_dir(), config.bus.clone()).with_context(|| {
                    format!("cannot open the log in `{}`", config.bus_dir().display())
                })?;
            return Ok(Log::Embedded(Arc::new(Metered::new(bus, metrics))));
        };
        let brokers = settings.kafka.brokers.join(", ");
        let bus = KafkaBus::open(&config.kafka_dir(), settings, clock::clock())
            .with_context(|| format!("cannot open the log on Kafka at {brokers}"))?;
        Ok(Log::Kafka(Arc::new(Metered::new(
            bus,
            metrics.with_kafka(registry)?,
        ))))
    }

    /// The log as a command sees it that runs beside the service: on Kafka with a folder of its own.
    pub(crate) fn open_beside(config: &Config, dir: &Path) -> anyhow::Result<Beside> {
        Ok(match kafka_settings(config, true) {
            None => {
                let bus = Arc::new(EmbeddedBus::open(&config.bus_dir(), config.bus.clone())?);
                let evidence = Bookkeeping::begin(config, &bus)?;
                Beside { bus, evidence }
            }
            Some(settings) => Beside {
                bus: Arc::new(KafkaBus::open(dir, settings, clock::clock())?),
                evidence: None,
            },
        })
    }

    /// The log of one machine while the service is stopped, for changing its index.
    pub(crate) fn open_shut(config: &Config) -> anyhow::Result<Shut> {
        let bus = Arc::new(EmbeddedBus::open(&config.bus_dir(), config.bus.clone())?);
        let mut shut = Shut {
            bus,
            ledger: None,
            evidence: None,
        };
        if !config.evidence_path().exists() {
            return Ok(shut);
        }
        let ledger = Ledger::open(&config.data_dir, config.evidence.key_file.as_deref())?;
        let ledger = Arc::new(ledger);
        shut.ledger = Some(Arc::clone(&ledger));
        if let Some(mut books) = Bookkeeping::of(Arc::clone(&ledger), &shut.bus)? {
            let found = std::mem::take(&mut books.found);
            ledger.start(clock::now(), env!("CARGO_PKG_VERSION"), found)?;
            books.begun = true;
            shut.evidence = Some(books);
        }
        Ok(shut)
    }

    /// Drops what is older than its retention, and writes down first which files of the event log go.
    pub(crate) fn retain(&self, now: Time, ledger: Option<&Ledger>) -> Result<(), BusError> {
        match (self, ledger) {
            (Log::Embedded(bus), Some(ledger)) => bus
                .inner()
                .retain_with(now, &ledger::log::dropping(ledger, now)),
            _ => self.bus().retain(now),
        }
    }

    /// What the stages see.
    pub(crate) fn bus(&self) -> Arc<dyn Bus> {
        match self {
            Log::Embedded(bus) => bus.clone(),
            Log::Kafka(bus) => bus.clone(),
        }
    }

    /// The file whose fsync failed, if one did.
    pub(crate) fn poisoned(&self) -> Option<&str> {
        match self {
            Log::Embedded(bus) => bus.inner().poisoned(),
            Log::Kafka(_) => None,
        }
    }

    /// Brings the metrics up to date.
    pub(crate) fn observe(&self, now: Time) -> Result<(), BusError> {
        match self {
            Log::Embedded(bus) => {
                bus.metrics()
                    .observe_poisoned(bus.inner().poisoned().is_some());
                bus.observe_lag(now)
            }
            Log::Kafka(bus) => {
                bus.metrics().observe_kafka(bus.inner().numbers());
                bus.observe_lag(now)
            }
        }
    }

    /// Gives up what this node works on, so that others take it at once.
    pub(crate) fn close(&self) {
        if let Log::Kafka(bus) = self {
            bus.inner().close();
        }
    }
}
