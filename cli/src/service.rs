//! The service: opens everything, runs every stage in a thread of its own, serves HTTP, stops in order.
//!
//! [`Service::start`] wires the stages of the roles that the process has over one log; [`Service::wait`] returns when
//! somebody asked to stop or a stage failed. A stage that ends with an error ends the whole service, so that
//! a supervisor sees it: everything acknowledged is on disk, and the next start goes on where this one was.
//! `run` and `demo` are its two callers; what it shows over HTTP is wired in `web`.

mod web;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use alerting::watch;
use anyhow::Context;
use bus::ledger::Ledger;
use bus::{Bus, BusError, Offset, Stop, Topic};
use detect::match_stage;
use detect::rule_set::RuleSet;
use detect::{tracker, window};
use event::Time;
use prometheus::Registry;
use search::hold::Holds;
use search::{Nodes, Searcher};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock;
use crate::config::Config;
use crate::evidence::Keeper;
use crate::exit::Usage;
use crate::heartbeat::{self, Heartbeat};
use crate::inventory::LiveInventory;
use crate::live_rules::LiveRules;
use crate::log::Log;
use crate::peers;
use crate::redaction;
use crate::role::{Role, Roles};
use crate::rules::RuleArgs;
use web::listen;
pub(crate) use web::retention;

/// How long stages get to finish what they have.
const GRACE: Duration = Duration::from_secs(20);

/// How often other index nodes are asked how they are.
const LOOK: Duration = Duration::from_secs(5);

/// How many times it is remembered where the log ended while the match stage is behind.
const MOST_ENDS: usize = 1_000;

/// What the demo shows of its injected attacks.
pub(crate) type Injections = Arc<dyn Fn() -> Vec<console::Injection> + Send + Sync>;

/// A running service.
pub(crate) struct Service {
    stop: Stop,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    threads: Vec<(&'static str, JoinHandle<()>)>,
    failure: Arc<Mutex<Option<String>>>,
    running: Arc<AtomicUsize>,
    log: Log,
    evidence: Option<Keeper>,
}

struct Parts {
    bus: Arc<dyn Bus>,
    log: Log,
    searcher: Searcher,
    /// What searches ask: this index and those of other nodes.
    nodes: Nodes,
    search_metrics: search::Metrics,
    store: Arc<alerting::Store>,
    registry: Registry,
    rules: Arc<LiveRules>,
    inventory: Arc<LiveInventory>,
    evidence: Option<Keeper>,
    /// What must not leave the index, where this node has one.
    holds: Option<Arc<Holds>>,
}

impl Service {
    /// Opens and starts everything. When it returns, the listener takes connections.
    pub(crate) fn start(
        config: &Config,
        set: &RuleSet,
        roles: &Roles,
        accept_gap: bool,
        demo: Option<Injections>,
    ) -> anyhow::Result<Service> {
        if roles.contains(&Role::Ingest) {
            redaction::check(config)?;
        }
        peers::check(config, roles)?;
        // The listener comes first: a second process must not even open the data.
        let listener = listen(config.listen)?;
        let address = listener
            .local_addr()
            .context("cannot ask the listener for its address")?;
        let parts = open(config, set, roles, accept_gap)?;
        let mut service = Service {
            log: parts.log.clone(),
            evidence: parts.evidence.clone(),
            stop: Stop::default(),
            address,
            threads: Vec::new(),
            failure: Arc::default(),
            running: Arc::default(),
        };
        service.stages(config, roles, &parts)?;
        let (registry, log) = (parts.registry.clone(), parts.log.clone());
        service.http(config, roles, parts, listener, demo)?;
        service.heartbeat(config, roles, registry, log)?;
        Ok(service)
    }

    /// Asks everything to stop.
    pub(crate) fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Waits until somebody asks to stop or a stage fails, then for the stages to finish.
    pub(crate) fn wait(self) -> anyhow::Result<()> {
        while !self.stop.is_stopped() {
            std::thread::sleep(Duration::from_millis(100));
        }
        tracing::info!("stopping");
        let deadline = Instant::now() + GRACE;
        while self.running.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut all = true;
        for (name, thread) in self.threads {
            all &= thread.is_finished();
            if thread.is_finished() {
                // Its result was taken by the thread itself.
                let _ = thread.join();
            } else {
                tracing::warn!(
                    stage = name,
                    "did not stop in time; what it had not committed is done again at the next start"
                );
            }
        }
        if let Some(evidence) = self.evidence.filter(|_| all) {
            evidence.end(&self.log);
        }
        // Only now, so that nobody else begins with what is still being committed.
        self.log.close();
        let failure = self.failure.lock().map_or(None, |mut f| f.take());
        failure.map_or(Ok(()), |words| Err(anyhow::anyhow!(words)))
    }

    fn spawn(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let (stop, failure, running) = (
            self.stop.clone(),
            Arc::clone(&self.failure),
            Arc::clone(&self.running),
        );
        running.fetch_add(1, Ordering::SeqCst);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let words = match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("stage {name} failed: {error:#}")),
                Err(_) => Some(format!("stage {name} failed; this is a defect of trailwarden, the message above says where")),
            };
            if let Some(words) = words {
                tracing::error!(stage = name, "{words}");
                if let Ok(mut failure) = failure.lock() {
                    failure.get_or_insert(words);
                }
                stop.stop();
            }
            running.fetch_sub(1, Ordering::SeqCst);
        });
        self.threads.push((
            name,
            thread.with_context(|| format!("cannot start the thread of {name}"))?,
        ));
        Ok(())
    }

    fn stages(&mut self, config: &Config, roles: &Roles, parts: &Parts) -> anyhow::Result<()> {
        if roles.contains(&Role::Detect) {
            self.detect(config, parts)?;
        }
        if roles.contains(&Role::Index) {
            self.index(config, parts)?;
        }
        if roles.contains(&Role::Alert) {
            self.alert(config, parts)?;
        }
        let (rules, ended) = (Arc::clone(&parts.rules), self.stop.clone());
        let every = Duration::from_secs(config.rules.reload_seconds);
        self.spawn("rules", move || {
            rules.watch(every, &ended);
            Ok(())
        })?;
        if parts.inventory.has_file() {
            let (inventory, ended) = (Arc::clone(&parts.inventory), self.stop.clone());
            let every = Duration::from_secs(config.inventory.reload_seconds);
            self.spawn("inventory", move || {
                inventory.watch(every, &ended);
                Ok(())
            })?;
        }
        if let Some(keeper) = parts.evidence.clone() {
            let (log, ended) = (parts.log.clone(), self.stop.clone());
            let every = Duration::from_secs(config.evidence.every_seconds);
            self.spawn("evidence", move || keeper.run(&log, every, &ended))?;
        }
        if !parts.nodes.shares().is_empty() {
            let (nodes, ended) = (parts.nodes.clone(), self.stop.clone());
            let bus = Arc::clone(&parts.bus);
            self.spawn("index nodes", move || {
                watch_nodes(&nodes, &*bus, &ended);
                Ok(())
            })?;
        }
        let (log, ended) = (parts.log.clone(), self.stop.clone());
        let keeper = parts.evidence.clone();
        self.spawn("retain", move || {
            keep_house(&log, keeper.as_ref().map(Keeper::ledger), &ended)
        })
    }

    fn heartbeat(
        &mut self,
        config: &Config,
        roles: &Roles,
        registry: Registry,
        log: Log,
    ) -> anyhow::Result<()> {
        let Some(heart) = Heartbeat::new(config, roles, &registry)? else {
            return Ok(());
        };
        let (running, ended) = (Arc::clone(&self.running), self.stop.clone());
        // The others, and the heartbeat itself.
        let expected = self.threads.len() + 1;
        self.spawn("heartbeat", move || {
            heart.run(&ended, || heartbeat::Pulse {
                missing: expected.saturating_sub(running.load(Ordering::SeqCst)),
                log: log.bus().progress().map(drop).map_err(|e| e.to_string()),
                lag_seconds: heartbeat::lag(&registry),
            })
        })
    }

    fn detect(&mut self, config: &Config, parts: &Parts) -> anyhow::Result<()> {
        let registry = &parts.registry;
        let stop = self.stop.clone();
        let metrics = match_stage::Metrics::new(registry)?;
        let (bus, rules, ended) = (
            Arc::clone(&parts.bus),
            Arc::clone(&parts.rules),
            stop.clone(),
        );
        let keep = Duration::from_secs(u64::from(config.detect.seen_days) * 86_400);
        self.spawn("match", move || {
            Ok(match_stage::run(
                bus,
                || rules.rules(),
                keep,
                &metrics,
                clock::clock(),
                ended,
            )?)
        })?;

        let metrics = detect::correlate::Metrics::new(registry)?;
        let (bus, rules, ended) = (
            Arc::clone(&parts.bus),
            Arc::clone(&parts.rules),
            stop.clone(),
        );
        let kept_hours = i64::from(config.bus.retention_hours.matches);
        let options = window::Options {
            lateness: micros(config.detect.lateness_seconds),
            max_groups: config.detect.max_groups,
            recount_after: Some(micros(config.detect.recount_after_seconds)),
            // Retention is not on the minute.
            remember: (kept_hours + 48).saturating_mul(3_600_000_000),
            ..window::Options::default()
        };
        self.spawn("correlate", move || {
            Ok(detect::correlate::run(
                bus,
                || rules.correlations(),
                options,
                &metrics,
                clock::clock(),
                ended,
            )?)
        })?;

        let metrics = detect::baseline_stage::Metrics::new(registry)?;
        let (bus, rules, ended) = (Arc::clone(&parts.bus), Arc::clone(&parts.rules), stop);
        let options = tracker::Options {
            grace: micros(config.detect.baseline_grace_seconds),
            max_series: config.detect.max_series,
            ..tracker::Options::default()
        };
        self.spawn("baseline", move || {
            Ok(detect::baseline_stage::run(
                bus,
                || rules.baselines(),
                options,
                &metrics,
                &clock::clock(),
                &ended,
            )?)
        })
    }

    /// Watches what arrives: part of the role `alert`, whose store knows it.
    fn watch_sources(
        &mut self,
        config: &Config,
        parts: &Parts,
        metrics: &alerting::Metrics,
    ) -> anyhow::Result<()> {
        let (bus, store, ended) = (
            Arc::clone(&parts.bus),
            Arc::clone(&parts.store),
            self.stop.clone(),
        );
        let (rules, log) = (Arc::clone(&parts.rules), Arc::clone(&parts.bus));
        let matched = Mutex::new(Matched::default());
        let around = watch::stage::Around {
            options: config.sources.options(),
            read_to: Box::new(move |now| {
                let mut matched = matched.lock().unwrap_or_else(PoisonError::into_inner);
                matched.ask(&*log, now)
            }),
            blind: Box::new(move |source| rules.blind(source)),
        };
        let (metrics, node) = (metrics.clone(), config.node_name());
        self.spawn("sources", move || {
            Ok(watch::stage::run(
                bus,
                store,
                around,
                clock::clock(),
                metrics,
                node,
                ended,
            )?)
        })
    }

    fn index(&mut self, config: &Config, parts: &Parts) -> anyhow::Result<()> {
        let Some(holds) = parts.holds.clone() else {
            return Ok(());
        };
        let ended = self.stop.clone();
        let (bus, searcher) = (Arc::clone(&parts.bus), parts.searcher.clone());
        let (search_config, metrics) = (config.search.clone(), parts.search_metrics.clone());
        self.spawn("index", move || {
            Ok(search::indexer::run(
                bus,
                (searcher, holds),
                &search_config,
                metrics,
                clock::clock(),
                ended,
            )?)
        })
    }

    fn alert(&mut self, config: &Config, parts: &Parts) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        let (node, name) = (config.node_name(), config.node_name());
        let metrics = alerting::Metrics::new(&parts.registry)?;
        let (bus, store, ended, fold_metrics) = (
            Arc::clone(&parts.bus),
            Arc::clone(&parts.store),
            stop.clone(),
            metrics.clone(),
        );
        self.spawn("alert", move || {
            Ok(alerting::stage::run(
                bus,
                store,
                clock::clock(),
                fold_metrics,
                name,
                ended,
            )?)
        })?;

        let receivers = alerting::notifier::build(&config.alerting).map_err(|errors| {
            let list: String = errors.iter().map(|e| format!("\n  {e}")).collect();
            anyhow::anyhow!("receivers cannot be used:{list}").context(Usage)
        })?;
        self.watch_sources(config, parts, &metrics)?;
        let rules = Arc::clone(&parts.rules);
        let sender = alerting::Sender {
            store: Arc::clone(&parts.store),
            rules: Arc::new(move |id| rules.infos().iter().find(|i| i.id == id).cloned()),
            console_url: config.alerting.console_url.clone(),
            clock: clock::clock(),
            metrics,
        };
        let ended = stop.clone();
        self.spawn("notify", move || {
            Ok(alerting::notify::run(&sender, &receivers, node, &ended)?)
        })
    }
}

/// The time up to which the match stage has taken everything in, as it is asked from time to time.
#[derive(Default)]
struct Matched {
    /// Where the partitions of `events` ended when it was asked, as long as the match stage has not come so far.
    ends: VecDeque<(Time, Vec<Offset>)>,
    to: Option<Time>,
}

impl Matched {
    fn ask(&mut self, bus: &dyn Bus, now: Time) -> Result<Time, BusError> {
        if self.ends.len() < MOST_ENDS {
            self.ends.push_back((now, bus.ends(Topic::Events)?));
        }
        let mut positions = vec![0; bus.partitions(Topic::Events) as usize];
        for progress in bus.progress()? {
            if progress.consumer == match_stage::CONSUMER && progress.topic == Topic::Events {
                positions[progress.partition as usize] = progress.next;
            }
        }
        while let Some((time, ends)) = self.ends.front()
            && ends.iter().zip(&positions).all(|(end, next)| next >= end)
        {
            self.to = Some(*time);
            self.ends.pop_front();
        }
        Ok(self.to.unwrap_or(Time::MIN))
    }
}

/// A number of seconds as times are counted, as far as they reach.
fn micros(seconds: u64) -> i64 {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX / 2_000_000);
    seconds.min(i64::MAX / 2_000_000) * 1_000_000
}

/// Asks the other index nodes how they are, so that people see which is missing or behind before they search.
fn watch_nodes(nodes: &Nodes, bus: &dyn Bus, stop: &Stop) {
    let mut next = Instant::now();
    while !stop.is_stopped() {
        if Instant::now() >= next {
            nodes.look();
            nodes.measure(bus);
            next = Instant::now() + LOOK;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Drops what is older than its retention, tells the lag of every consumer, and ends the service when the log takes no
/// more writes: only a new start can tell what reached the disk.
fn keep_house(log: &Log, ledger: Option<&Ledger>, stop: &Stop) -> anyhow::Result<()> {
    let mut next = 0;
    while !stop.is_stopped() {
        if let Some(path) = log.poisoned() {
            anyhow::bail!("an fsync of `{path}` failed; the service must be started again");
        }
        let now = clock::now();
        if now.0 >= next {
            match log.retain(now, ledger) {
                Err(error) if error.is_transient() => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "retention waits")
                }
                result => result?,
            }
            next = now.0 + 60_000_000;
        }
        if let Err(error) = log.observe(now) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot tell the lag"
            );
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

fn open(config: &Config, set: &RuleSet, roles: &Roles, accept_gap: bool) -> anyhow::Result<Parts> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot make the data folder `{}`; set data_dir to a folder that this user may write", config.data_dir.display()))
        .context(Usage)?;
    let registry = Registry::new();
    let log = Log::open(config, &registry, accept_gap)?;
    let search_metrics = search::Metrics::new(&registry)?;
    let searcher = Searcher::open(
        &config.index_dir(),
        &config.search,
        search_metrics.clone(),
        clock::clock(),
    )
    .with_context(|| {
        format!(
            "cannot open the index in `{}`; if it is damaged, `trailwarden index rebuild` mends it",
            config.index_dir().display()
        )
    })?;
    let nodes = peers::nodes(config, roles, &searcher, search_metrics.clone())?;
    let evidence = Keeper::open(config, roles, &log, &registry)?;
    if let Some(keeper) = &evidence {
        searcher.attest(keeper.shared());
    }
    let holds = match roles.contains(&Role::Index) {
        true => {
            let holds = Holds::open(log.bus(), &config.index_dir());
            Some(Arc::new(holds.context("cannot read the legal holds")?))
        }
        false => None,
    };
    let policy = alerting::Policy::new(&config.alerting)
        .map_err(|e| anyhow::anyhow!("alerting: {} mistakes", e.len()).context(Usage))?;
    // A node that has nothing to do with alerts must not wait for their database.
    let store = if roles.contains(&Role::Alert) || roles.contains(&Role::Api) {
        alerting::Store::configured(&config.alerting, &config.alerts_path(), policy)
    } else {
        alerting::Store::open(&config.alerts_path(), policy)
    }
    .with_context(|| format!("cannot open the alerts in {}", config.alerts_place()))?;
    let source = RuleArgs::of(&config.rules);
    let rules = LiveRules::new(
        set,
        source,
        config.detect.staging.clone(),
        roles.contains(&Role::Detect),
        &registry,
    )?;
    let inventory = LiveInventory::open(&config.inventory, &registry)?;
    Ok(Parts {
        bus: log.bus(),
        log,
        searcher,
        nodes,
        search_metrics,
        store: Arc::new(store),
        registry,
        rules: Arc::new(rules),
        inventory: Arc::new(inventory),
        evidence,
        holds,
    })
}

fn listen_to_signals() -> std::io::Result<(Signal, Signal)> {
    Ok((
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ))
}

/// The first signal asks to stop; the second ends the process at once.
async fn signals(stop: Stop, (mut terminate, mut interrupt): (Signal, Signal)) {
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_stopped() {
            std::process::exit(130);
        }
        stop.stop();
    }
}
