//! A sign of life for a service outside: a dead man's switch.
//!
//! Who watches the watcher? With `heartbeat.url` set, [`Heartbeat`] posts a small JSON every minute, and only while this
//! node is well: [`verdict`], a plain function, looks at a [`Pulse`]. A node that is not well is silent, so that the
//! service outside, which waits for the sign, tells people. The way there keeps to the same rules as a webhook
//! ([`Endpoint`]). The address usually holds a token: it is never printed. It says nothing about what the node has found.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use alerting::config::{Secret, WebhookConfig};
use alerting::notifier::webhook::Endpoint;
use bus::Stop;
use prometheus::{IntCounter, Registry};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config;
use crate::exit::Usage;
use crate::role::Roles;

/// A sign of life for a service outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where to POST; empty for nowhere. May hold a token, so it is not printed.
    pub(crate) url: Secret,
    /// A file that holds the URL instead.
    pub(crate) url_file: Option<PathBuf>,
    /// How often.
    pub(crate) every_seconds: u64,
    /// How long one attempt may take altogether.
    pub(crate) timeout_seconds: u64,
    /// A node where a record waits for longer is not well.
    pub(crate) max_lag_seconds: u64,
    /// Is plain `http://` accepted?
    pub(crate) allow_http: bool,
    /// Networks in CIDR form that may be reached although they are private, loopback or otherwise not public.
    pub(crate) allow_networks: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            url: Secret::default(),
            url_file: None,
            every_seconds: 60,
            timeout_seconds: 10,
            max_lag_seconds: 300,
            allow_http: false,
            allow_networks: Vec::new(),
        }
    }
}

impl Config {
    fn is_on(&self) -> bool {
        !self.url.is_empty() || self.url_file.is_some()
    }

    fn endpoint(&self) -> Result<Endpoint, alerting::ConfigError> {
        let webhook = WebhookConfig {
            url: self.url.clone(),
            url_file: self.url_file.clone(),
            allow_http: self.allow_http,
            allow_networks: self.allow_networks.clone(),
            timeout_seconds: self.timeout_seconds,
            ..WebhookConfig::default()
        };
        Endpoint::new(&webhook, "heartbeat")
    }

    /// Everything that is wrong with the values.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.is_on() {
            return problems;
        }
        if let Err(error) = self.endpoint() {
            problems.push(error.to_string());
        }
        if self.every_seconds == 0 {
            problems.push("heartbeat.every_seconds must be at least 1".into());
        }
        if self.max_lag_seconds == 0 {
            problems.push("heartbeat.max_lag_seconds must be at least 1".into());
        }
        problems
    }
}

/// What the heartbeat counts.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    sent: IntCounter,
    errors: IntCounter,
}

impl Metrics {
    /// Registers the counters.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        Ok(Metrics {
            sent: counter(
                "trailwarden_heartbeat_sent_total",
                "Signs of life that the service outside took.",
            )?,
            errors: counter(
                "trailwarden_heartbeat_errors_total",
                "Signs of life that it did not take.",
            )?,
        })
    }
}

/// How this node is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pulse {
    /// How many threads of the service have ended.
    pub(crate) missing: usize,
    /// Does the log answer?
    pub(crate) log: Result<(), String>,
    /// How long the oldest record that waits here has been waiting, where this node reads any.
    pub(crate) lag_seconds: Option<f64>,
}

/// Is the node well? If not, why.
pub(crate) fn verdict(pulse: &Pulse, max_lag_seconds: u64) -> Result<(), String> {
    if pulse.missing > 0 {
        return Err(format!("{} stages have ended", pulse.missing));
    }
    if let Err(error) = &pulse.log {
        return Err(format!("the log does not answer: {error}"));
    }
    match pulse.lag_seconds {
        Some(lag) if lag > max_lag_seconds as f64 => {
            Err(format!("a record has been waiting for {lag:.0} seconds"))
        }
        _ => Ok(()),
    }
}

/// The largest lag of this node, as its metrics say.
pub(crate) fn lag(registry: &Registry) -> Option<f64> {
    registry
        .gather()
        .iter()
        .filter(|family| family.name() == "trailwarden_bus_lag_seconds")
        .flat_map(|family| family.get_metric())
        .map(|metric| metric.get_gauge().get_value())
        .reduce(f64::max)
}

/// Sends the sign.
pub(crate) struct Heartbeat {
    endpoint: Endpoint,
    metrics: Metrics,
    every: Duration,
    max_lag_seconds: u64,
    node: String,
    roles: Vec<String>,
}

impl Heartbeat {
    /// The heartbeat of a configuration, if it wants one.
    pub(crate) fn new(
        config: &config::Config,
        roles: &Roles,
        registry: &Registry,
    ) -> anyhow::Result<Option<Heartbeat>> {
        let heartbeat = &config.heartbeat;
        if !heartbeat.is_on() {
            return Ok(None);
        }
        let endpoint = heartbeat
            .endpoint()
            .map_err(|e| anyhow::anyhow!("{e}").context(Usage))?;
        Ok(Some(Heartbeat {
            endpoint,
            metrics: Metrics::new(registry)?,
            every: Duration::from_secs(heartbeat.every_seconds),
            max_lag_seconds: heartbeat.max_lag_seconds,
            node: config.node_name(),
            roles: roles
                .iter()
                .map(|role| format!("{role:?}").to_lowercase())
                .collect(),
        }))
    }

    /// Sends until it is told to stop.
    pub(crate) fn run(&self, stop: &Stop, pulse: impl Fn() -> Pulse) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut silent = false;
        let mut next = Instant::now();
        while !stop.is_stopped() {
            if Instant::now() < next {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
            next = Instant::now() + self.every;
            let well = verdict(&pulse(), self.max_lag_seconds);
            match &well {
                Ok(()) => self.beat(&runtime),
                Err(reason) if !silent => {
                    tracing::warn!("this node is not well, so it sends no heartbeat: {reason}");
                }
                Err(_) => {}
            }
            if silent && well.is_ok() {
                tracing::info!("this node is well again and sends its heartbeat");
            }
            silent = well.is_err();
        }
        Ok(())
    }

    fn beat(&self, runtime: &tokio::runtime::Runtime) {
        let now = clock::now();
        let body = serde_json::json!({
            "node": self.node,
            "roles": self.roles,
            "version": env!("CARGO_PKG_VERSION"),
            "time": now,
            "ready": true,
        });
        match runtime.block_on(self.endpoint.post(body.to_string(), now)) {
            Ok(_) => self.metrics.sent.inc(),
            Err(error) => {
                self.metrics.errors.inc();
                tracing::warn!(%error, "the heartbeat was not taken");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut Pulse), expected: &str) {
        let mut pulse = Pulse {
            missing: 0,
            log: Ok(()),
            lag_seconds: Some(12.0),
        };
        change(&mut pulse);
        let found = verdict(&pulse, 300).err().unwrap_or_default();
        assert_eq!(found, expected);
    }

    #[test]
    fn only_a_node_that_is_well_says_so() {
        check(|_| {}, "");
        check(|p| p.lag_seconds = None, "");
        check(|p| p.lag_seconds = Some(300.0), "");
        check(
            |p| p.lag_seconds = Some(301.0),
            "a record has been waiting for 301 seconds",
        );
        check(|p| p.missing = 1, "1 stages have ended");
        check(
            |p| p.log = Err("cannot ask".into()),
            "the log does not answer: cannot ask",
        );
    }

    #[test]
    fn the_largest_lag_counts() {
        let registry = Registry::new();
        assert_eq!(lag(&registry), None);
        let opts = prometheus::Opts::new("trailwarden_bus_lag_seconds", "x");
        let gauges = prometheus::GaugeVec::new(opts, &["partition"]).unwrap();
        registry.register(Box::new(gauges.clone())).unwrap();
        gauges.with_label_values(&["0"]).set(3.0);
        gauges.with_label_values(&["1"]).set(7.5);
        assert_eq!(lag(&registry), Some(7.5));
    }

    #[test]
    fn the_address_keeps_to_the_rules_and_is_never_shown() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let at = |url: &str| Config {
            url: Secret::new(url),
            ..Config::default()
        };
        assert!(Config::default().problems().is_empty());
        assert!(at("https://hc.example/verysecret").problems().is_empty());
        for url in [
            "http://hc.example/verysecret",
            "https://127.0.0.1/verysecret",
            "https://u:verysecret@hc.example/",
        ] {
            let problems = at(url).problems();
            assert!(problems[0].starts_with("heartbeat.url"), "{problems:?}");
            assert!(!format!("{problems:?} {:?}", at(url)).contains("verysecret"));
        }
        let zero = Config {
            every_seconds: 0,
            ..at("https://hc.example/")
        };
        assert_eq!(zero.problems().len(), 1);
    }
}
