//! The service: opens everything, runs every stage in a thread of its own, serves HTTP, stops in order.
//!
//! [`Service::start`] wires the stages of the roles that the process has over one log; [`Service::wait`] returns when
//! somebody asked to stop or a stage failed. A stage that ends with an error ends the whole service, so that
//! a supervisor sees it: everything acknowledged is on disk, and the next start goes on where this one was.
//! `run` and `demo` are its two callers.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use bus::{Bus, Record, Stop, Topic};
use bytes::Bytes;
use detect::engine::Engine;
use detect::match_stage;
use detect::rule_set::RuleSet;
use detect::{tracker, window};
use event::Event;
use event::json::Doc;
use prometheus::Registry;
use search::Searcher;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock;
use crate::config::Config;
use crate::exit::Usage;
use crate::heartbeat::{self, Heartbeat};
use crate::live_rules::LiveRules;
use crate::log::Log;
use crate::role::{Role, Roles};
use crate::rules::RuleArgs;

/// How long stages get to finish what they have.
const GRACE: Duration = Duration::from_secs(20);

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
}

struct Parts {
    bus: Arc<dyn Bus>,
    log: Log,
    searcher: Searcher,
    search_metrics: search::Metrics,
    store: Arc<alerting::Store>,
    registry: Registry,
    rules: Arc<LiveRules>,
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
        // The listener comes first: a second process must not even open the data.
        let listener = listen(config.listen)?;
        let address = listener
            .local_addr()
            .context("cannot ask the listener for its address")?;
        let parts = open(config, set, roles, accept_gap)?;
        let mut service = Service {
            log: parts.log.clone(),
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
        let deadline = std::time::Instant::now() + GRACE;
        while self.running.load(Ordering::SeqCst) > 0 && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        for (name, thread) in self.threads {
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
        let (log, ended) = (parts.log.clone(), self.stop.clone());
        self.spawn("retain", move || keep_house(&log, &ended))
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
        let options = window::Options {
            lateness: i64::try_from(config.detect.lateness_seconds)
                .unwrap_or(i64::MAX / 2_000_000)
                .saturating_mul(1_000_000),
            max_groups: config.detect.max_groups,
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
            grace: i64::try_from(config.detect.baseline_grace_seconds)
                .unwrap_or(i64::MAX / 2_000_000)
                .saturating_mul(1_000_000),
            max_functions: config.detect.max_functions,
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

    fn index(&mut self, config: &Config, parts: &Parts) -> anyhow::Result<()> {
        let ended = self.stop.clone();
        let (bus, searcher) = (Arc::clone(&parts.bus), parts.searcher.clone());
        let (search_config, metrics) = (config.search.clone(), parts.search_metrics.clone());
        self.spawn("index", move || {
            Ok(search::indexer::run(
                bus,
                searcher,
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

    fn http(
        &mut self,
        config: &Config,
        roles: &Roles,
        parts: Parts,
        listener: TcpListener,
        demo: Option<Injections>,
    ) -> anyhow::Result<()> {
        let ingest_metrics = ingest::metrics::Metrics::new(&parts.registry)?;
        let ingests = roles.contains(&Role::Ingest);
        let intake = ingests.then(|| {
            ingest::push::router(
                Arc::clone(&parts.bus),
                clock::clock(),
                &config.ingest,
                ingest_metrics.clone(),
            )
        });
        if ingests && !config.ingest.files.paths.is_empty() {
            let (bus, files, limits) = (
                Arc::clone(&parts.bus),
                config.ingest.files.clone(),
                config.ingest.file_limits(),
            );
            let ended = self.stop.clone();
            self.spawn("files", move || {
                Ok(ingest::source::files::run(
                    bus,
                    &files,
                    limits,
                    ingest_metrics,
                    clock::clock(),
                    ended,
                )?)
            })?;
        }
        let audit = self.audit(Arc::clone(&parts.bus))?;
        let rules = Arc::clone(&parts.rules);
        let router = console::router(self.app(config, roles, parts, audit, demo)?, intake)
            .context("console")
            .context(Usage)?;
        let tls = config.tls.clone();
        let stop = self.stop.clone();
        let (ready, is_ready) = sync_channel(1);
        self.spawn("http", move || {
            serve(listener, tls, router, stop, &ready, rules)
        })?;
        // From here on a signal ends the service in order; without an answer the thread has failed and said so.
        let _ = is_ready.recv();
        Ok(())
    }

    /// What people do on the console goes to the log through a thread of its own, so that no request waits for a disk.
    fn audit(&mut self, bus: Arc<dyn Bus>) -> anyhow::Result<SyncSender<Event>> {
        let (sender, events) = sync_channel::<Event>(1_024);
        let stop = self.stop.clone();
        self.spawn("audit", move || {
            loop {
                match events.recv_timeout(Duration::from_millis(250)) {
                    Ok(event) => {
                        let record = Record {
                            key: Bytes::from(event.partition_key().into_string()),
                            value: Bytes::from(event.encode()),
                            time: event.ingest_time,
                        };
                        while let Err(error) = bus.append(Topic::Events, vec![record.clone()]) {
                            tracing::error!(
                                error = &error as &dyn std::error::Error,
                                "audit event cannot be written, trying again"
                            );
                            if stop.is_stopped() {
                                return Ok(());
                            }
                            std::thread::sleep(Duration::from_secs(1));
                        }
                    }
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) if stop.is_stopped() => {
                        return Ok(());
                    }
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
        })?;
        Ok(sender)
    }

    fn app(
        &self,
        config: &Config,
        roles: &Roles,
        parts: Parts,
        audit: SyncSender<Event>,
        demo: Option<Injections>,
    ) -> anyhow::Result<console::App> {
        let rules = Arc::clone(&parts.rules);
        let (listed, explained) = (Arc::clone(&rules), Arc::clone(&rules));
        let (reloaded, checked) = (Arc::clone(&rules), Arc::clone(&rules));
        let running = Arc::clone(&self.running);
        let expected = self.threads.len();
        let bus = Arc::clone(&parts.bus);
        let store = Arc::clone(&parts.store);
        let mut stages = vec![
            console::Stage::on_bus(&bus, "match", match_stage::CONSUMER, Topic::Events),
            console::Stage::on_bus(
                &bus,
                "correlate",
                detect::correlate::CONSUMER,
                Topic::Matches,
            ),
            console::Stage::on_bus(
                &bus,
                "baseline",
                detect::baseline_stage::CONSUMER,
                Topic::Meters,
            ),
            console::Stage::on_bus(&bus, "index", search::indexer::CONSUMER, Topic::Events),
        ];
        if roles.contains(&Role::Alert) || roles.contains(&Role::Api) {
            let partitions = bus.partitions(Topic::Findings);
            stages.push(console::Stage {
                name: "alert",
                topic: Topic::Findings,
                positions: Arc::new(move || {
                    (0..partitions)
                        .filter_map(|p| Some((p, store.position(p).ok().flatten()?)))
                        .collect()
                }),
            });
        }
        let log = parts.log.clone();
        let writable = console::Check {
            name: "log",
            run: Arc::new(move || match log.poisoned() {
                None => Ok("takes writes".to_owned()),
                Some(path) => Err(format!("takes no writes: an fsync of `{path}` failed")),
            }),
        };
        let checks = vec![
            writable,
            // Rules that were refused are worth a look, but the old ones run: the node is ready.
            console::Check {
                name: "rules",
                run: Arc::new(move || Ok(checked.status())),
            },
            console::Check {
                name: "stages",
                run: Arc::new(move || {
                    let running = running.load(Ordering::SeqCst);
                    if running >= expected {
                        Ok(format!("{running} running"))
                    } else {
                        Err(format!("{running} of {expected} running"))
                    }
                }),
            },
        ];
        Ok(console::App {
            searcher: parts.searcher,
            store: parts.store,
            rules: Arc::new(move || listed.infos()),
            reload: Arc::new(move || reloaded.reload()),
            explain: Arc::new(move |rule, event| explain(&explained.shown().engine, rule, event)),
            bus,
            stages,
            checks,
            clock: clock::clock(),
            metrics: console::Metrics::new(&parts.registry)?,
            registry: parts.registry,
            offers: console::Offers {
                alerts: roles.contains(&Role::Api),
                search: roles.contains(&Role::Index),
            },
            config: config.console.clone(),
            tls: config.tls.is_some(),
            demo,
            audit: Arc::new(move |event| {
                if audit.send(event.to_event()).is_err() {
                    tracing::error!("audit event lost: the service is stopping");
                }
            }),
            stop: self.stop.clone(),
        })
    }
}

/// Drops what is older than its retention, tells the lag of every consumer, and ends the service when the log takes no
/// more writes: only a new start can tell what reached the disk.
fn keep_house(log: &Log, stop: &Stop) -> anyhow::Result<()> {
    let bus = log.bus();
    let mut next = 0;
    while !stop.is_stopped() {
        if let Some(path) = log.poisoned() {
            anyhow::bail!("an fsync of `{path}` failed; the service must be started again");
        }
        let now = clock::now();
        if now.0 >= next {
            match bus.retain(now) {
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

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "\n\nhint: another program listens there; choose another with --listen {}:{}",
                address.ip(),
                address.port().wrapping_add(1)
            ),
            _ => String::new(),
        };
        anyhow::anyhow!("cannot listen on {address}: {error}{hint}").context(Usage)
    })?;
    listener
        .set_nonblocking(true)
        .context("cannot set up the listener")?;
    Ok(listener)
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
            "cannot open the index in `{}`",
            config.index_dir().display()
        )
    })?;
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
    Ok(Parts {
        bus: log.bus(),
        log,
        searcher,
        search_metrics,
        store: Arc::new(store),
        registry,
        rules: Arc::new(rules),
    })
}

/// Why a rule matches an event, a line for each of its lines.
fn explain(engine: &Engine, rule: &str, event: &Event) -> Vec<String> {
    let doc = Doc::parse(&event.raw).ok();
    let json = doc.as_ref().map(|d| d.root(&event.raw));
    let explanation = engine.explain(rule, event, json);
    let lines = explanation.map(|e| e.lines).unwrap_or_default();
    lines
        .into_iter()
        .map(|line| {
            let has = match line.values.as_slice() {
                [] => "the event has no such field".to_owned(),
                values => format!(
                    "the event has {}",
                    values
                        .iter()
                        .take(5)
                        .map(|v| format!("“{}”", v.chars().take(120).collect::<String>()))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            let mark = if line.held { "✓" } else { "✗" };
            format!("{mark} {}: {} — {has}", line.selection, line.written)
        })
        .collect()
}

fn serve(
    listener: TcpListener,
    tls: Option<crate::config::Tls>,
    router: axum::Router,
    stop: Stop,
    ready: &SyncSender<()>,
    rules: Arc<LiveRules>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("http")
        .enable_all()
        .build()
        .context("cannot start the http threads")?;
    let result = runtime.block_on(async move {
        let handle = axum_server::Handle::new();
        let (closing, ended) = (handle.clone(), stop.clone());
        tokio::spawn(async move {
            while !ended.is_stopped() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            closing.graceful_shutdown(Some(Duration::from_secs(5)));
        });
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                rules.ask();
            }
        });
        tokio::spawn(signals(stop, listen_to_signals()?));
        // Nobody waits any more when the start has failed elsewhere.
        let _ = ready.send(());
        let app = router.into_make_service_with_connect_info::<SocketAddr>();
        match tls {
            None => {
                axum_server::from_tcp(listener)?
                    .handle(handle)
                    .serve(app)
                    .await
            }
            Some(tls) => {
                let keys = axum_server::tls_rustls::RustlsConfig::from_pem_file(
                    &tls.certificate_file,
                    &tls.key_file,
                )
                .await?;
                axum_server::from_tcp_rustls(listener, keys)?
                    .handle(handle)
                    .serve(app)
                    .await
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    result.context("http server")
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
