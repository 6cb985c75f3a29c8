//! `trailwarden demo`: the whole pipeline in a temporary folder, on made-up traffic with attacks in it.
//!
//! The traffic of [`crate::demo`] is pushed through the ordinary intake (`POST /api/v1/events`); nothing
//! behind it knows that it is made up. What is injected is printed and shown in the console, so that a
//! viewer can hold the alerts against it.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;

use crate::clock;
use crate::config::Config;
use crate::demo::traffic::Traffic;
use crate::demo::{Injection, Tick, history};
use crate::exit::Outcome;
use crate::rules::RuleArgs;
use crate::service::Service;

/// Shows everything on this machine: made-up traffic, attacks, alerts in a console
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Opens a console at http://127.0.0.1:7171. Data goes to a temporary folder that is removed at the end.
The first attack alerts within 30 seconds; every attack that is injected is printed here and shown in the console."
)]
pub(crate) struct DemoArgs {
    /// Where the console listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7171")]
    listen: SocketAddr,
    /// The same seed gives the same organisation and the same attacks
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many hours of the past to fill the index with
    #[arg(long, default_value_t = 1)]
    history_hours: u32,
    /// Stop by itself after so many seconds
    #[arg(long, value_name = "SECONDS")]
    stop_after: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<Outcome> {
    let folder = tempfile::Builder::new()
        .prefix("trailwarden-demo-")
        .tempdir()
        .context("cannot make a temporary folder")?;
    let mut config = Config {
        data_dir: folder.path().to_owned(),
        listen: args.listen,
        ..Config::default()
    };
    config.log.level = "warn".into();
    config.search.publish_after_ms = 1_000;
    crate::config::check(&config, None, false)?;
    crate::run::telemetry(&config);
    let set = RuleArgs::default().load()?;
    let injected: Arc<Mutex<Vec<Injection>>> = Arc::default();
    let shown = Arc::clone(&injected);
    let injections = move || {
        shown
            .lock()
            .map_or_else(|_| Vec::new(), |i| i.iter().rev().map(show).collect())
    };
    let service = Service::start(
        &config,
        &set,
        &crate::role::all(),
        false,
        Some(Arc::new(injections)),
    )?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n  Trailwarden demo: http://{}\n", service.address)?;
    writeln!(
        out,
        "  {} rules watch a made-up organisation of 3 accounts. Ctrl-C ends it.\n",
        set.rules.len() + set.correlations.len()
    )?;
    drop(out);
    let stop = service.stopper();
    let (address, seed, hours, stop_after) = (
        service.address,
        args.seed,
        args.history_hours,
        args.stop_after,
    );
    let feeder = std::thread::Builder::new()
        .name("demo".into())
        .spawn(move || {
            // However it ends, the service must not stay alone.
            let _ends = StopOnDrop(stop.clone());
            feed(address, seed, hours, stop_after, &injected, &stop)
        })?;
    let ended = service.wait();
    let fed = feeder
        .join()
        .map_err(|_| anyhow::anyhow!("the traffic failed; this is a defect of trailwarden"))?;
    ended?;
    fed?;
    Ok(Outcome::Clean)
}

struct StopOnDrop(bus::Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn show(injection: &Injection) -> console::Injection {
    console::Injection {
        start: injection.start,
        end: injection.end,
        title: injection.title.clone(),
        account: injection.account.clone(),
        actor: injection.actor.clone(),
        source_ip: injection.source_ip.clone().unwrap_or_default(),
        expect: injection.expect.iter().map(|e| (*e).to_owned()).collect(),
        event_ids: injection.event_ids.clone(),
        decoy: injection.decoy,
    }
}

fn feed(
    address: SocketAddr,
    seed: u64,
    hours: u32,
    stop_after: Option<u64>,
    injected: &Mutex<Vec<Injection>>,
    stop: &bus::Stop,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()?;
    let url = format!("http://{address}/api/v1/events");
    let begin = clock::now();
    for tick in history(seed, begin, hours) {
        if stop.is_stopped() {
            return Ok(());
        }
        push(&runtime, &client, &url, &tick)?;
    }
    let mut traffic = Traffic::new(seed, begin);
    while !stop.is_stopped()
        && stop_after.is_none_or(|s| {
            clock::now().0 - begin.0 < i64::try_from(s).unwrap_or(i64::MAX / 2_000_000) * 1_000_000
        })
    {
        let tick = traffic.until(clock::now());
        tell(&tick.injected)?;
        if let Ok(mut all) = injected.lock() {
            all.extend(tick.injected.iter().cloned());
        }
        push(&runtime, &client, &url, &tick)?;
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

fn tell(injected: &[Injection]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for injection in injected {
        let at: String = injection
            .start
            .to_string()
            .chars()
            .skip(11)
            .take(8)
            .collect();
        if injection.decoy {
            writeln!(out, "  {at}  decoy   {} (must not alert)", injection.title)?;
        } else {
            writeln!(
                out,
                "  {at}  ATTACK  {} by {}\n                    expect: {}",
                injection.title,
                injection.actor,
                injection.expect.join("; ")
            )?;
        }
    }
    Ok(out.flush()?)
}

/// Sends what arrived, as CloudTrail files and subscription payloads would bring it.
fn push(
    runtime: &tokio::runtime::Runtime,
    client: &reqwest::Client,
    url: &str,
    tick: &Tick,
) -> anyhow::Result<()> {
    let mut bodies = Vec::new();
    for records in tick.cloudtrail.chunks(2_000) {
        let mut body = b"{\"Records\":[".to_vec();
        body.extend(records.join(&b','));
        body.extend_from_slice(b"]}");
        bodies.push(body);
    }
    if !tick.lambda.is_empty() {
        bodies.push(tick.lambda.join(&b'\n'));
    }
    for body in bodies {
        let request = client
            .post(url)
            .header("content-type", "application/json")
            .body(body);
        let sent = runtime.block_on(async { request.send().await });
        let answer = sent.context("the demo cannot reach its own intake")?;
        anyhow::ensure!(
            answer.status().is_success(),
            "the intake answered {}",
            answer.status()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_expects_shipped_rules() {
        let set = RuleArgs::default().load().unwrap();
        let titles: Vec<String> = set.infos().into_iter().map(|i| i.title).collect();
        for scenario in crate::demo::traffic::scenarios() {
            assert_eq!(
                scenario.decoy,
                scenario.expect.is_empty(),
                "{}",
                scenario.name
            );
            for title in scenario.expect {
                assert!(
                    titles.iter().any(|t| t == title),
                    "no rule `{title}` for {}",
                    scenario.name
                );
            }
        }
    }
}
