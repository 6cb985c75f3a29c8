//! The index stage: reads events and findings from the bus and publishes splits.

use std::sync::Arc;

use bus::{Bus, BusError, Stop};
use event::Clock;

use crate::{Config, Metrics, Searcher};

/// Why indexing stopped.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The log failed.
    #[error("log failed")]
    Bus(#[from] BusError),
}

/// Runs the stage until it is told to stop. What it publishes is visible through `searcher` at once.
pub fn run(
    _bus: Arc<dyn Bus>,
    _searcher: Searcher,
    _config: &Config,
    _metrics: Metrics,
    _clock: Clock,
    _stop: Stop,
) -> Result<(), IndexError> {
    Ok(())
}
