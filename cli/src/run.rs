//! `trailwarden run`: the service.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{self, Config, LogFormat};
use crate::exit::{Outcome, Usage};
use crate::role::{self, Role, Roles};
use crate::rules::RuleArgs;
use crate::service::Service;

/// Runs the service: intake, rules, index, alerts and console in one process
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden run                                  defaults: data in ./trailwarden-data, console at http://127.0.0.1:7171
  trailwarden run --config /etc/trailwarden.yaml
  trailwarden run --config cluster.yaml --role detect   one part of a cluster on Kafka
  trailwarden config reference > trailwarden.yaml  a configuration to begin with")]
pub(crate) struct RunArgs {
    /// The configuration file; without one the defaults hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep data here, whatever the configuration says
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Listen here, whatever the configuration says
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Allow an address that other machines can reach without TLS and login. Anybody who reaches it reads everything
    #[arg(long)]
    insecure_listen: bool,
    /// Do only these parts; several nodes on one Kafka do the whole
    #[arg(long, value_name = "ROLE", value_enum, value_delimiter = ',')]
    role: Vec<Role>,
    /// Go on where the log has dropped records that were not read yet, instead of stopping
    #[arg(long)]
    accept_gap: bool,
}

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<Outcome> {
    let started = std::time::Instant::now();
    let mut config = config::load(args.config.as_deref(), true)?;
    if let Some(data) = &args.data {
        config.data_dir.clone_from(data);
    }
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    config::check(&config, args.config.as_deref(), args.insecure_listen)?;
    telemetry(&config);
    if args.insecure_listen {
        tracing::warn!(listen = %config.listen, "--insecure-listen: whoever reaches this address reads everything and needs no login");
    }
    let set = RuleArgs::of(&config.rules).load()?;
    for warning in &set.warnings {
        tracing::warn!(rule = warning.path, "{}", warning.message);
    }
    let roles: Roles = match args.role.as_slice() {
        [] => role::all(),
        some => some.iter().copied().collect(),
    };
    if roles != role::all() && config.bus.kafka.is_none() {
        return Err(anyhow::anyhow!(
            "--role {}: the parts of one machine run in one process, since its log belongs to one process\n\nhint: leave --role out, or set bus.kafka; docs/operating.md shows both",
            role::words(&roles)
        )
        .context(Usage));
    }
    let service = Service::start(&config, &set, &roles, args.accept_gap, None)?;
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    tracing::info!(
        console = format!("{scheme}://{}", service.address),
        data = %config.data_dir.display(),
        node = config.node_name(),
        roles = role::words(&roles),
        rules = set.rules.len() + set.correlations.len(),
        ready_ms = started.elapsed().as_millis() as u64,
        "ready"
    );
    service.wait()?;
    tracing::info!("stopped");
    Ok(Outcome::Clean)
}

/// Log lines on standard error.
pub(crate) fn telemetry(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.level)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // tantivy tells of every commit.
    let filter = filter.add_directive("tantivy=warn".parse().expect("a valid directive"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let set = match config.log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    // Only a test that starts two services in one process gets here twice.
    drop(set);
}
