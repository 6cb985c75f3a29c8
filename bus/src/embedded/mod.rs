//! The log of one machine, in one folder.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use event::Time;

pub use crate::config::Options;
use crate::{Batch, Bus, BusError, Commit, Offset, Record, Topic};

/// The durable log in one data folder.
#[derive(Debug)]
pub struct EmbeddedBus {
    options: Options,
}

impl EmbeddedBus {
    /// Opens the log in `dir`, which is created if it does not exist, and repairs what a crash left behind.
    pub fn open(dir: &Path, options: Options) -> Result<EmbeddedBus, BusError> {
        std::fs::create_dir_all(dir).map_err(|source| BusError::Io {
            action: "create",
            path: dir.display().to_string(),
            source,
        })?;
        Ok(EmbeddedBus { options })
    }
}

impl Bus for EmbeddedBus {
    fn partitions(&self, topic: Topic) -> u32 {
        self.options.partitions.of(topic)
    }

    fn append(&self, _: Topic, _: Vec<Record>) -> Result<(), BusError> {
        Err(unfinished())
    }

    fn read(&self, _: Topic, _: u32, _: Offset, _: usize) -> Result<Batch, BusError> {
        Err(unfinished())
    }

    fn wait(&self, _: Topic, _: &[(u32, Offset)], _: Duration) -> Result<bool, BusError> {
        Err(unfinished())
    }

    fn bounds(&self, _: Topic, _: u32) -> Result<Range<Offset>, BusError> {
        Err(unfinished())
    }

    fn commit(&self, _: Commit) -> Result<(), BusError> {
        Err(unfinished())
    }

    fn position(&self, _: &str, _: Topic, _: u32) -> Result<Option<Offset>, BusError> {
        Err(unfinished())
    }

    fn state_get(&self, _: &str, _: u32, _: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, BusError> {
        Err(unfinished())
    }

    fn state_scan(&self, _: &str, _: u32, _: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BusError> {
        Err(unfinished())
    }

    fn retain(&self, _: Time) -> Result<(), BusError> {
        Err(unfinished())
    }
}

fn unfinished() -> BusError {
    BusError::Refused("the embedded log is not built yet".into())
}
