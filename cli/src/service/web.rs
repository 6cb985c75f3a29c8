//! What the service shows: the listener, the console and the intake behind it, and what they are told of the stages.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context;
use bus::{Bus, Record, Stop, Topic};
use bytes::Bytes;
use detect::engine::Engine;
use detect::match_stage;
use event::Event;
use event::json::Doc;
use ingest::attested::{self, Attestations};
use ingest::source::{bucket, cloudwatch, kinesis, object, queue, s3};
use ingest::treatment::Treatment;
use search::Nodes;
use tokio::signal::unix::{SignalKind, signal};

use super::{Injections, Parts, Service, listen_to_signals, signals};
use crate::clock;
use crate::config::Config;
use crate::evidence;
use crate::exit::Usage;
use crate::role::{Role, Roles};
use crate::treatment;

impl Service {
    pub(super) fn http(
        &mut self,
        config: &Config,
        roles: &Roles,
        parts: Parts,
        listener: TcpListener,
        demo: Option<Injections>,
    ) -> anyhow::Result<()> {
        let ingest_metrics = ingest::metrics::Metrics::new(&parts.registry)?;
        let ingests = roles.contains(&Role::Ingest);
        let inventory = Arc::clone(&parts.inventory);
        let treatment = match ingests {
            true => {
                let expected = Arc::new(move || inventory.current());
                Arc::new(treatment::open(config, &ingest_metrics, expected)?)
            }
            false => Arc::new(Treatment::off()),
        };
        if ingests {
            let (bus, stop) = (Arc::clone(&parts.bus), self.stop.clone());
            let (collectors, node) = (ingest_metrics.collectors.clone(), config.node_name());
            self.spawn("collectors", move || {
                let clock = clock::clock();
                Ok(ingest::status::run(
                    &*bus,
                    &collectors,
                    &node,
                    &clock,
                    &stop,
                )?)
            })?;
        }
        let intake = ingests
            .then(|| intake(config, &parts.bus, &ingest_metrics, &treatment))
            .transpose()?;
        if ingests && !config.ingest.files.paths.is_empty() {
            let (bus, files, limits) = (
                Arc::clone(&parts.bus),
                config.ingest.files.clone(),
                config.ingest.file_limits(),
            );
            let (tools, ended) = (
                (ingest_metrics.clone(), Arc::clone(&treatment)),
                self.stop.clone(),
            );
            self.spawn("files", move || {
                Ok(ingest::source::files::run(
                    bus,
                    &files,
                    limits,
                    tools,
                    clock::clock(),
                    ended,
                )?)
            })?;
        }
        let (queues, buckets) = (config.ingest.queues.clone(), config.ingest.buckets.clone());
        let (streams, log_groups) = (
            config.ingest.streams.clone(),
            config.ingest.log_groups.clone(),
        );
        let of_aws = [
            queues.is_empty(),
            buckets.is_empty(),
            streams.is_empty(),
            log_groups.is_empty(),
        ];
        if ingests && of_aws.contains(&false) {
            let spool = config.spool_dir();
            s3::clear(&spool)
                .with_context(|| format!("cannot make the folder `{}`", spool.display()))?;
            let shop = object::Shop {
                bus: Arc::clone(&parts.bus),
                limits: config.ingest.file_limits(),
                spool,
                metrics: ingest_metrics.clone(),
                treatment,
                clock: clock::clock(),
                stop: self.stop.clone(),
            };
            if !queues.is_empty() {
                let shop = shop.clone();
                self.spawn("queues", move || Ok(queue::run(&queues, &shop)?))?;
            }
            if !streams.is_empty() {
                let shop = shop.clone();
                self.spawn("streams", move || Ok(kinesis::run(&streams, &shop)?))?;
            }
            if !log_groups.is_empty() {
                let shop = shop.clone();
                self.spawn("log groups", move || {
                    Ok(cloudwatch::run(&log_groups, &shop)?)
                })?;
            }
            if !buckets.is_empty() {
                self.spawn("buckets", move || Ok(bucket::run(&buckets, &shop)?))?;
            }
        }
        let audit = self.audit(Arc::clone(&parts.bus))?;
        let (rules, inventory) = (Arc::clone(&parts.rules), Arc::clone(&parts.inventory));
        let asked = move || {
            rules.ask();
            inventory.ask();
        };
        let router = console::router(self.app(config, roles, parts, audit, demo)?, intake)
            .context("console")
            .context(Usage)?;
        let tls = config.tls.clone();
        let stop = self.stop.clone();
        let (ready, is_ready) = sync_channel(1);
        self.spawn("http", move || {
            serve(listener, tls, router, stop, &ready, asked)
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
        &mut self,
        config: &Config,
        roles: &Roles,
        parts: Parts,
        audit: SyncSender<Event>,
        demo: Option<Injections>,
    ) -> anyhow::Result<console::App> {
        let rules = Arc::clone(&parts.rules);
        let (listed, explained) = (Arc::clone(&rules), Arc::clone(&rules));
        let (blinded, known) = (Arc::clone(&rules), Arc::clone(&parts.inventory));
        let (reloaded, checked) = (Arc::clone(&rules), Arc::clone(&rules));
        let queried = Arc::clone(&rules);
        let running = Arc::clone(&self.running);
        let expected = self.threads.len();
        let bus = Arc::clone(&parts.bus);
        let store = Arc::clone(&parts.store);
        let attestations = Arc::new(Attestations::default());
        // Who shows no events need not know.
        if roles.contains(&Role::Index) || roles.contains(&Role::Api) {
            let (followed, log, stop) = (
                Arc::clone(&attestations),
                Arc::clone(&parts.bus),
                self.stop.clone(),
            );
            self.spawn("attested", move || {
                Ok(attested::follow(&*log, &followed, &stop)?)
            })?;
        }
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
        let inventory = Arc::clone(&parts.inventory);
        let mut checks = vec![
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
        let index = parts.holds.map(|holds| console::Index {
            holds,
            searcher: parts.searcher.clone(),
            node: config.search.node,
            nodes: config.search.nodes,
        });
        if let Some(index) = &index {
            let (holds, days) = (Arc::clone(&index.holds), config.search.retention_days);
            checks.push(console::Check {
                name: "retention",
                run: Arc::new(move || Ok(retention(&holds.kept(), days, clock::now()))),
            });
        }
        if inventory.has_file() {
            checks.push(console::Check {
                name: "inventory",
                run: Arc::new(move || Ok(inventory.status())),
            });
        }
        if !parts.nodes.shares().is_empty() {
            let nodes = parts.nodes.clone();
            // Without some of them searches answer in part and say so: the node is ready all the same.
            checks.push(console::Check {
                name: "index nodes",
                run: Arc::new(move || Ok(index_nodes(&nodes))),
            });
        }
        let vouched = Arc::clone(&attestations);
        let keeper = parts.evidence.filter(|_| roles.contains(&Role::Index));
        let evidence = keeper.map(|keeper| console::Evidence {
            ledger: keeper.shared(),
            vouched: Arc::new(move |object| vouched.vouched(object)),
            tool: evidence::tool(),
        });
        Ok(console::App {
            searcher: parts.nodes,
            store: parts.store,
            rules: Arc::new(move || listed.infos()),
            reload: Arc::new(move || reloaded.reload()),
            watched: config.sources.options(),
            blind: Arc::new(move |source| blinded.blind(source)),
            evidence,
            index,
            integrity: Arc::new(move |event| attestations.label(event)),
            inventory: Arc::new(move || known.current()),
            rule_query: Arc::new(move |rule, group| queried.query(rule, group)),
            as_rule: Arc::new(crate::search::as_rule),
            explain: Arc::new(move |rule, event| explain(&explained.shown().engine, rule, event)),
            bus,
            stages,
            checks,
            clock: clock::clock(),
            metrics: console::Metrics::new(&parts.registry)?,
            registry: parts.registry,
            offers: console::Offers {
                alerts: roles.contains(&Role::Api),
                search: roles.contains(&Role::Index)
                    || roles.contains(&Role::Api) && !config.search.peers.is_empty(),
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

/// Which index nodes answer, in words.
fn index_nodes(nodes: &Nodes) -> String {
    let shares = nodes.shares();
    let answer = shares.iter().filter(|s| s.answers).count();
    let mut words = format!("{answer} of {} answer", shares.len());
    for share in shares.iter().filter(|s| !s.answers) {
        words.push_str(&format!(
            "; node {} {}",
            share.node,
            share.why.as_deref().unwrap_or("does not")
        ));
        if let Some(since) = share.missing_since {
            words.push_str(&format!(" (since {since})"));
        }
    }
    words
}

/// For how long events are searchable, and what is other than configured, in words.
pub(crate) fn retention(kept: &search::hold::Kept, days: u32, now: event::Time) -> String {
    let mut words = format!("{days} days");
    let begin = now.plus(-i64::from(days) * 86_400_000_000);
    if let Some(cut) = kept.cut.filter(|cut| cut.until > begin) {
        let left = (now.0 - cut.until.0).max(0) / 86_400_000_000;
        words = format!(
            "{left} of {days} days: of what was taken in up to {} the oldest is gone, since the index was larger than search.max_mib",
            cut.until
        );
    }
    if !kept.holds.is_empty() {
        let names: Vec<&str> = kept.holds.iter().map(|h| h.name.as_str()).collect();
        words.push_str(&format!("; {} on hold: {}", names.len(), names.join(", ")));
    }
    words
}

/// The routes by which events come in.
fn intake(
    config: &Config,
    bus: &Arc<dyn Bus>,
    metrics: &ingest::metrics::Metrics,
    treatment: &Arc<Treatment>,
) -> anyhow::Result<console::Intake> {
    let (config, now) = (&config.ingest, clock::clock());
    let (bus, metrics, treatment) = (
        || Arc::clone(bus),
        || metrics.clone(),
        || Arc::clone(treatment),
    );
    let keyed = ingest::firehose::router(bus(), now.clone(), config, metrics(), treatment())
        .context("ingest")
        .context(Usage)?;
    let guarded = ingest::push::router(bus(), now, config, metrics(), treatment());
    Ok(console::Intake { guarded, keyed })
}

pub(super) fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
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
    hangup_asks: impl Fn() + Send + 'static,
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
                hangup_asks();
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
