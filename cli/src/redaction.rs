//! The redactor of a configuration, and the key of commands that need it.

use std::path::PathBuf;

use anyhow::Context;
use ingest::metrics::Metrics;
use ingest::redact::{KEY_FILE, Key, Redactor};

use crate::config::{self, Config};
use crate::exit::Usage;

/// Refuses a cluster without a key of its own: nodes with different keys would make different content of one record.
pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
    let redaction = &config.ingest.redaction;
    if redaction.enabled && redaction.key_file.is_none() && config.bus.kafka.is_some() {
        return Err(anyhow::anyhow!(
            "ingest.redaction.key_file is missing: on Kafka all nodes that take events in need the same key\n\nhint: `openssl rand -hex 32` makes one; ingest.redaction.enabled: false does without"
        )
        .context(Usage));
    }
    Ok(())
}

/// The redactor of the configuration. Its key is made where the configuration names none.
pub(crate) fn open(config: &Config, metrics: &Metrics) -> anyhow::Result<Redactor> {
    let redaction = &config.ingest.redaction;
    if !redaction.enabled {
        return Ok(Redactor::off());
    }
    check(config)?;
    let key = match &redaction.key_file {
        None => Key::read_or_make(&config.data_dir),
        Some(path) => Key::read(path),
    }
    .context(Usage)?;
    Redactor::new(redaction, key, metrics).map_err(|errors| {
        let list: String = errors
            .iter()
            .map(|e| format!("\n  ingest.redaction.{e}"))
            .collect();
        anyhow::anyhow!("redaction cannot work:{list}").context(Usage)
    })
}

/// Which key a command uses.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyArgs {
    /// The file with the key; that of the configuration or of the data folder, if not said
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The configuration of the service
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder, whatever the configuration says
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl KeyArgs {
    /// The key; none is made.
    pub(crate) fn key(&self) -> anyhow::Result<Key> {
        let path = match &self.key_file {
            Some(path) => path.clone(),
            None => {
                let config = config::load(self.config.as_deref(), true)?;
                let data_dir = self.data.as_ref().unwrap_or(&config.data_dir);
                config
                    .ingest
                    .redaction
                    .key_file
                    .unwrap_or_else(|| data_dir.join(KEY_FILE))
            }
        };
        Key::read(&path).context(Usage)
    }
}
