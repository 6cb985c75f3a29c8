//! `trailwarden doctor`: is this installation healthy, and what to do if not?

mod integrity;
mod kafka;

use std::io::Write;
use std::path::PathBuf;

use bus::embedded::EmbeddedBus;
use bus::{Bus, BusError, Topic};
use search::Searcher;

use crate::config::{self, Config};
use crate::exit::Outcome;
use crate::rules::RuleArgs;

/// Says whether this installation is healthy, and what to do if not
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// The configuration of the service
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder, whatever the configuration says
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    integrity: integrity::IntegrityArgs,
}

/// What one check found: words, or words and what to do.
type Verdict = Result<String, (String, String)>;

/// Runs the command.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<Outcome> {
    if args.integrity.integrity {
        let mut config = config::load(args.config.as_deref(), true)?;
        if let Some(data) = &args.data {
            config.data_dir.clone_from(data);
        }
        return integrity::run(&args.integrity, &config);
    }
    let mut checks: Vec<(&str, Verdict)> = Vec::new();
    let config = match config::load(args.config.as_deref(), true) {
        Ok(mut config) => {
            if let Some(data) = &args.data {
                config.data_dir.clone_from(data);
            }
            checks.push((
                "configuration",
                Ok(args
                    .config
                    .as_ref()
                    .map_or("defaults".into(), |p| format!("{}", p.display()))),
            ));
            config
        }
        Err(error) => {
            checks.push((
                "configuration",
                Err((
                    format!("{:#}", error.root_cause()),
                    "mend it; `trailwarden config reference` explains every key".into(),
                )),
            ));
            Config::default()
        }
    };
    checks.push(("rules", rules(&config)));
    checks.push(("data folder", data(&config)));
    checks.push(("service", service(&config)));
    match crate::log::kafka_settings(&config, false) {
        None => checks.push(("log", log(&config))),
        Some(settings) => checks.extend(kafka::checks(&settings)),
    }
    checks.push(("index", index(&config)));
    checks.push(("alerts", alerts(&config)));
    let mut out = std::io::stdout().lock();
    for (name, verdict) in &checks {
        match verdict {
            Ok(words) => writeln!(out, "ok    {name:<14} {words}")?,
            Err((words, hint)) => writeln!(
                out,
                "FAIL  {name:<14} {words}\n      {:<14} hint: {hint}",
                ""
            )?,
        }
    }
    Ok(if checks.iter().any(|(_, v)| v.is_err()) {
        Outcome::Found
    } else {
        Outcome::Clean
    })
}

fn rules(config: &Config) -> Verdict {
    let args = RuleArgs {
        rules: config.rules.paths.clone(),
        placeholders: config
            .rules
            .placeholders
            .iter()
            .flat_map(|(n, vs)| vs.iter().map(move |v| (n.clone(), v.clone())))
            .collect(),
    };
    let set = args.load().map_err(|e| {
        (
            e.root_cause()
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .to_owned(),
            "`trailwarden rule check` names every mistake".to_owned(),
        )
    })?;
    Ok(format!(
        "{} rules, {} correlations, {} baselines",
        set.rules.len(),
        set.correlations.len(),
        set.baselines.len()
    ))
}

fn data(config: &Config) -> Verdict {
    let dir = &config.data_dir;
    if !dir.is_dir() {
        return Ok(format!(
            "`{}` does not exist yet; the first start makes it",
            dir.display()
        ));
    }
    let probe = dir.join(".doctor");
    std::fs::write(&probe, b"x")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|e| {
            (
                format!("cannot write to `{}`: {e}", dir.display()),
                "give this user the right to write there, or free space".to_owned(),
            )
        })?;
    Ok(format!("`{}` can be written", dir.display()))
}

fn service(config: &Config) -> Verdict {
    let up =
        std::net::TcpStream::connect_timeout(&config.listen, std::time::Duration::from_secs(2))
            .is_ok();
    Ok(if up {
        format!("something answers on {}", config.listen)
    } else {
        format!("nothing answers on {}: not running", config.listen)
    })
}

fn log(config: &Config) -> Verdict {
    let dir = config.bus_dir();
    if !dir.is_dir() {
        return Ok("none yet".into());
    }
    match EmbeddedBus::open(&dir, config.bus.clone()) {
        Ok(bus) => {
            let count = |topic: Topic| -> u64 {
                (0..bus.partitions(topic)).filter_map(|p| bus.bounds(topic, p).ok()).map(|b| b.end - b.start).sum()
            };
            let dead = count(Topic::DeadLetters);
            let note = if dead > 0 { format!(", {dead} dead letters (see `trailwarden dead-letters list`)") } else { String::new() };
            Ok(format!("{} events, {} findings{note}", count(Topic::Events), count(Topic::Findings)))
        }
        Err(BusError::Locked(_)) => Ok("in use by the running service".into()),
        Err(error) => Err((error.to_string(), "the error names the file; restore it from a backup, or move it away to go on without it".into())),
    }
}

fn index(config: &Config) -> Verdict {
    let dir = config.index_dir();
    if !dir.is_dir() {
        return Ok("none yet".into());
    }
    let failed = |e: String| {
        (
            e,
            "stop the service and run `trailwarden index rebuild`: it takes out what is damaged and lets the log be read again".to_owned(),
        )
    };
    let metrics =
        search::Metrics::new(&prometheus::Registry::new()).map_err(|e| failed(e.to_string()))?;
    let searcher = Searcher::open(&dir, &config.search, metrics, crate::clock::clock())
        .map_err(|e| failed(e.to_string()))?;
    let request = search::Request {
        limit: 1,
        newest_first: true,
        count: true,
        ..search::Request::default()
    };
    let answer = searcher
        .search(&request)
        .map_err(|e| failed(e.to_string()))?;
    let latest = answer
        .hits
        .first()
        .map_or(String::new(), |e| format!(", the latest of {}", e.time));
    let kept = search::hold::Kept::read(&dir).map_err(|e| failed(e.to_string()))?;
    let kept = crate::service::retention(&kept, config.search.retention_days, crate::clock::now());
    Ok(format!(
        "{} events{latest}; searchable for {kept}",
        answer.total.unwrap_or_default()
    ))
}

fn alerts(config: &Config) -> Verdict {
    let path = config.alerts_path();
    let shared = config.alerting.postgres.is_some();
    if !shared && !path.exists() {
        return Ok("none yet".into());
    }
    let failed = |e: String| {
        if shared {
            let hint = "look at alerting.postgres in the configuration, and whether the server runs and lets us in";
            return (e, hint.to_owned());
        }
        (e, "restore alerts.db from a backup, or move it away: alerts are folded again from the findings that the log still has".to_owned())
    };
    let policy = alerting::Policy::new(&config.alerting).map_err(|e| {
        failed(format!(
            "{} mistakes in the alerting configuration",
            e.len()
        ))
    })?;
    let store = alerting::Store::configured(&config.alerting, &path, policy)
        .map_err(|e| failed(e.to_string()))?;
    let counts = store.counts().map_err(|e| failed(e.to_string()))?;
    Ok(format!(
        "{} open, {} of them not acknowledged",
        counts.open.iter().sum::<u64>(),
        counts.firing
    ))
}
