//! The treatment of records that a configuration asks for.

use std::sync::Arc;

use ingest::metrics::Metrics;
use ingest::treatment::{Expected, Treatment};

use crate::config::Config;
use crate::inventory;
use crate::redaction;

/// The treatment for the service, whose inventory may change.
pub(crate) fn open(
    config: &Config,
    metrics: &Metrics,
    expected: Expected,
) -> anyhow::Result<Treatment> {
    let redactor = redaction::open(config, metrics)?;
    Ok(Treatment::new(redactor, expected, config.tiers.clone()))
}

/// The treatment for a command, with the inventory as it is now.
pub(crate) fn open_once(config: &Config, metrics: &Metrics) -> anyhow::Result<Treatment> {
    let inventory = Arc::new(inventory::asked(config.inventory.file.as_deref())?);
    open(config, metrics, Arc::new(move || Arc::clone(&inventory)))
}
