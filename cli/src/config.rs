//! The whole configuration: one YAML file, of which every stage owns its part.
//!
//! [`load`] reads the file, fills in `${ENV}`, checks every part and reports all mistakes at once.
//! [`REFERENCE`] is the commented file with every key at its default; a test holds it to [`Config::default`].
//! Secrets come from the environment or from files: one that stands in the file as it is stops the start,
//! unless `allow_inline_secrets` says that this is meant.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::exit::Usage;

/// Every key with its default and what it means.
pub(crate) const REFERENCE: &str = include_str!("../../deploy/trailwarden.yaml");

/// The configuration of the service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// What this node calls itself towards others; empty for the machine's host name.
    pub(crate) node: String,
    /// The address of the console, the API and the intake.
    pub(crate) listen: SocketAddr,
    /// Certificate and key for HTTPS.
    pub(crate) tls: Option<Tls>,
    /// May secrets stand in this file as they are?
    pub(crate) allow_inline_secrets: bool,
    /// What the process says about itself.
    pub(crate) log: Log,
    /// A sign of life for a service outside.
    pub(crate) heartbeat: crate::heartbeat::Config,
    /// Which rules run.
    pub(crate) rules: Rules,
    /// Which accounts and functions are expected.
    pub(crate) inventory: crate::inventory::Config,
    /// Which events are searched, which only matched, and which only kept.
    pub(crate) tiers: Vec<ingest::tier::Entry>,
    /// How events are correlated.
    pub(crate) detect: Detect,
    /// The log between stages.
    pub(crate) bus: bus::config::Options,
    /// Where events come from.
    pub(crate) ingest: ingest::config::Config,
    /// The index.
    pub(crate) search: search::Config,
    /// The evidence log.
    pub(crate) evidence: Evidence,
    /// How sources are watched.
    pub(crate) sources: alerting::watch::Config,
    /// Alerts and who is told of them.
    pub(crate) alerting: alerting::Config,
    /// The console.
    pub(crate) console: console::Config,
}

/// Certificate and key, both PEM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// The certificate with its chain.
    pub(crate) certificate_file: PathBuf,
    /// The private key.
    pub(crate) key_file: PathBuf,
}

/// What the process says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// `error`, `warn`, `info` or `debug`, or a filter such as `info,search=debug`.
    pub(crate) level: String,
    /// `text` or `json`.
    pub(crate) format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Which rules run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rules {
    /// Folders and files; `builtin` stands for the shipped rules.
    pub(crate) paths: Vec<PathBuf>,
    /// Values for `%name%` in rules that use `|expand`.
    pub(crate) placeholders: BTreeMap<String, Vec<String>>,
    /// How often files are looked at for changes, in seconds; 0 for only when asked.
    pub(crate) reload_seconds: u64,
}

/// The evidence log: what the store holds, signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Evidence {
    /// The file with the key that signs; without one it is made in the data folder.
    pub(crate) key_file: Option<PathBuf>,
    /// How often what has become durable in the event log is written down, in seconds.
    pub(crate) every_seconds: u64,
}

impl Default for Evidence {
    fn default() -> Evidence {
        Evidence {
            key_file: None,
            every_seconds: 30,
        }
    }
}

/// How events are correlated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Detect {
    /// How late an event may come and still be counted exactly, in seconds.
    pub(crate) lateness_seconds: u64,
    /// How long nothing more may have come to a group later than that before it is counted again from the log, in seconds.
    pub(crate) recount_after_seconds: u64,
    /// How many groups one correlation may have at a time.
    pub(crate) max_groups: usize,
    /// How far event time must have left a minute behind before baselines judge it, in seconds. Counts that come later
    /// are not seen by them.
    pub(crate) baseline_grace_seconds: u64,
    /// How many functions baselines watch at most, and how many groups of each baseline.
    pub(crate) max_series: usize,
    /// Ids of rules that are tried out: what they find is kept and counted, and nobody is told.
    pub(crate) staging: Vec<String>,
    /// For how many days an event id is remembered, so that its repeats are dropped.
    pub(crate) seen_days: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: "trailwarden-data".into(),
            node: String::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7171)),
            tls: None,
            allow_inline_secrets: false,
            log: Log::default(),
            heartbeat: crate::heartbeat::Config::default(),
            rules: Rules::default(),
            inventory: crate::inventory::Config::default(),
            tiers: Vec::new(),
            detect: Detect::default(),
            bus: bus::config::Options::default(),
            ingest: ingest::config::Config::default(),
            search: search::Config::default(),
            evidence: Evidence::default(),
            sources: alerting::watch::Config::default(),
            alerting: alerting::Config::default(),
            console: console::Config::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: "info".into(),
            format: LogFormat::Text,
        }
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            paths: vec!["builtin".into()],
            placeholders: BTreeMap::new(),
            reload_seconds: 5,
        }
    }
}

impl Default for Detect {
    fn default() -> Detect {
        Detect {
            lateness_seconds: 3_600,
            recount_after_seconds: 10,
            max_groups: 100_000,
            baseline_grace_seconds: 120,
            max_series: 100_000,
            staging: Vec::new(),
            seen_days: 15,
        }
    }
}

impl Config {
    /// Where the log and the state of the stages are.
    pub(crate) fn bus_dir(&self) -> PathBuf {
        self.data_dir.join("log")
    }

    /// Where a node on Kafka has its own state and copies of what moves.
    pub(crate) fn kafka_dir(&self) -> PathBuf {
        self.data_dir.join("kafka")
    }

    /// Where large objects wait until they are read.
    pub(crate) fn spool_dir(&self) -> PathBuf {
        self.data_dir.join("spool")
    }

    /// The name of this node.
    pub(crate) fn node_name(&self) -> String {
        if !self.node.is_empty() {
            return self.node.clone();
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match host.trim() {
            "" => "node".to_owned(),
            host => host.to_owned(),
        }
    }

    /// The evidence log.
    pub(crate) fn evidence_path(&self) -> PathBuf {
        self.data_dir.join(bus::ledger::FILE)
    }

    /// Where the index is.
    pub(crate) fn index_dir(&self) -> PathBuf {
        self.data_dir.join("index")
    }

    /// Where the alerts are.
    pub(crate) fn alerts_path(&self) -> PathBuf {
        self.data_dir.join("alerts.db")
    }

    /// Where the alerts are, for people.
    pub(crate) fn alerts_place(&self) -> String {
        match &self.alerting.postgres {
            None => format!("`{}`", self.alerts_path().display()),
            Some(postgres) => format!("schema `{}` of the database", postgres.schema),
        }
    }

    /// Everything that is wrong with the values. `insecure`: was `--insecure-listen` given?
    pub(crate) fn problems(&self, insecure: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let loopback = self.listen.ip().is_loopback();
        problems.extend(
            self.search
                .problems()
                .into_iter()
                .map(|p| format!("search.{p}")),
        );
        problems.extend(crate::peers::problems(self));
        if let Err(errors) = alerting::Policy::new(&self.alerting) {
            problems.extend(errors.iter().map(ToString::to_string));
        } else if let Err(errors) = alerting::notifier::build(&self.alerting) {
            problems.extend(errors.iter().map(ToString::to_string));
        }
        if let Some(postgres) = &self.alerting.postgres
            && let Err(error) = alerting::store::Server::new(postgres)
        {
            problems.push(error.to_string());
        }
        if let Err(error) = self.bus.check() {
            problems.push(format!("bus: {error}"));
        }
        problems.extend(self.ingest.check().iter().map(|e| format!("ingest.{e}")));
        problems.extend(
            ingest::redact::check(&self.ingest.redaction)
                .iter()
                .map(|e| format!("ingest.redaction.{e}")),
        );
        problems.extend(
            self.console
                .check(loopback || insecure)
                .iter()
                .map(|e| format!("console.{e}")),
        );
        if !loopback && self.tls.is_none() && !insecure {
            problems.push(format!(
                "listen: {} can be reached from other machines, which needs `tls` and `console.auth.mode: password` (or the flag --insecure-listen)",
                self.listen
            ));
        }
        if let Some(tls) = &self.tls {
            for path in [&tls.certificate_file, &tls.key_file] {
                if let Err(error) = std::fs::File::open(path) {
                    problems.push(format!("tls: cannot read `{}`: {error}", path.display()));
                }
            }
        }
        if let Some(file) = &self.inventory.file
            && let Err(error) = crate::inventory::read(file)
        {
            problems.push(format!("inventory.file:\n{error}"));
        }
        let tiers = ingest::tier::check(&self.tiers);
        problems.extend(tiers.iter().map(|p| format!("tiers{p}")));
        problems.extend(self.heartbeat.problems());
        if tracing_subscriber::EnvFilter::try_new(&self.log.level).is_err() {
            problems.push(format!(
                "log.level: `{}` is no level or filter",
                self.log.level
            ));
        }
        if self.evidence.every_seconds == 0 {
            problems.push("evidence.every_seconds must be at least 1".into());
        }
        if self.detect.seen_days == 0 {
            problems.push("detect.seen_days must be at least 1".into());
        }
        if self.detect.max_groups == 0 {
            problems.push("detect.max_groups must be at least 1".into());
        }
        problems
    }
}

/// Reads and checks a configuration file; without one the defaults hold.
pub(crate) fn load(path: Option<&Path>, insecure: bool) -> anyhow::Result<Config> {
    let config = match path {
        None => Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read configuration `{}`", path.display()))
                .context(Usage)?;
            parse(&text, &|name| std::env::var(name).ok()).map_err(|e| {
                anyhow::anyhow!("cannot load configuration `{}`\n{e}", path.display())
                    .context(Usage)
            })?
        }
    };
    check(&config, path, insecure)?;
    Ok(config)
}

/// The same for a command that may be given the data folder besides.
pub(crate) fn load_of(path: Option<&Path>, data: Option<&Path>) -> anyhow::Result<Config> {
    let mut config = load(path, true)?;
    if let Some(data) = data {
        data.clone_into(&mut config.data_dir);
    }
    Ok(config)
}

/// All that is wrong with the values, as one error. `path` is where they came from.
pub(crate) fn check(config: &Config, path: Option<&Path>, insecure: bool) -> anyhow::Result<()> {
    let problems = config.problems(insecure);
    if problems.is_empty() {
        return Ok(());
    }
    let place = path.map_or_else(
        || "the defaults".to_owned(),
        |p| format!("`{}`", p.display()),
    );
    let list: String = problems.iter().map(|p| format!("\n  {p}")).collect();
    Err(anyhow::anyhow!("configuration {place} cannot be used:{list}\n\nhint: `trailwarden config reference` explains every key").context(Usage))
}

/// The configuration that a text says. `env` looks up the environment.
pub(crate) fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, String> {
    let mut problems = Vec::new();
    let filled: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(n, line)| fill(line, n + 1, env, &mut problems))
        .collect();
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    let config: Config = serde_saphyr::from_str(&filled.join("\n")).map_err(|e| e.to_string())?;
    if !config.allow_inline_secrets {
        inline_secrets(text, &mut problems);
    }
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(problems.join("\n"))
    }
}

/// Puts the environment in place of `${NAME}` in one line.
fn fill(
    line: &str,
    number: usize,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<String>,
) -> String {
    if line.trim_start().starts_with('#') {
        return line.to_owned();
    }
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, behind)) = rest.split_once("${") {
        let Some((name, after)) = behind.split_once('}') else {
            break;
        };
        out.push_str(before);
        let quoted = out.matches('"').count() % 2 == 1;
        match env(name) {
            None => problems.push(format!("  line {number}: the environment has no `{name}`")),
            Some(value) if quoted => out.push_str(
                &value
                    .replace('\\', "\\\\")
                    .replace('"', "\\\"")
                    .replace('\n', "\\n"),
            ),
            Some(value)
                if out.ends_with([' ', '[', ','])
                    && after.chars().next().is_none_or(|c| " ,]}".contains(c)) =>
            {
                // A number stays one: in quotes a key that takes a number would refuse it.
                match value.parse::<i64>() {
                    Ok(number) if number.to_string() == value => out.push_str(&value),
                    _ => out.push_str(&serde_json::Value::from(value).to_string()),
                }
            }
            Some(_) => problems.push(format!(
                "  line {number}: write the text around `${{{name}}}` in double quotes"
            )),
        }
        rest = after;
    }
    out + rest
}

/// Names every secret that stands in the file as it is.
fn inline_secrets(text: &str, problems: &mut Vec<String>) {
    inline_keys(text, problems);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start().trim_start_matches("- ");
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value
            .split(" #")
            .next()
            .unwrap_or_default()
            .trim()
            .trim_matches(['"', '\'']);
        let secret = matches!(key.trim(), "secret" | "password" | "bearer_token")
            || key.trim() == "url" && has_password(value);
        if secret && is_clear(value) {
            problems.push(in_clear_text(number, key.trim()));
        }
    }
}

/// Names every access key that stands in the file as it is, in brackets or as one item a line.
fn inline_keys(text: &str, problems: &mut Vec<String>) {
    const KEY: &str = "access_keys";
    let (mut within, mut bracket) = (false, false);
    for (number, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or_default();
        let line = line.replace(['"', '\''], "");
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let after = line.split_once(KEY).map(|(_, after)| after.trim_start());
        let items = match after.and_then(|after| after.strip_prefix(':')) {
            Some(items) => {
                (within, bracket) = (true, items.contains('['));
                items
            }
            None if within && (bracket || line.starts_with(['-', '['])) => {
                bracket |= line.starts_with('[');
                line.trim_start_matches('-')
            }
            None => {
                within = false;
                continue;
            }
        };
        let (items, closed) = match items.split_once(']') {
            Some((items, _)) => (items, true),
            None => (items, false),
        };
        if items.split(['[', ',']).any(|item| is_clear(item.trim())) {
            problems.push(in_clear_text(number, KEY));
        }
        within &= !closed;
    }
}

/// Is this a value of its own, and not one of the environment?
fn is_clear(value: &str) -> bool {
    !value.is_empty() && value != "null" && value != "~" && !value.contains("${")
}

fn in_clear_text(number: usize, key: &str) -> String {
    format!(
        "  line {}: `{key}` stands here in clear text: take it from a file (`{key}_file`) or the environment (`${{NAME}}`), or set allow_inline_secrets: true",
        number + 1
    )
}

/// Does the URL of a database hold its password?
fn has_password(url: &str) -> bool {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"));
    rest.is_some_and(|rest| {
        let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
        user.contains(':') || rest.contains("password=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        parse(text, &|name| {
            (name == "TOKEN").then(|| "a\"b: c".to_owned())
        })
    }

    #[test]
    fn the_reference_has_every_key_at_its_default() {
        assert_eq!(read(REFERENCE).unwrap(), Config::default());
        let value = serde_json::to_value(Config::default()).unwrap();
        fn keys(value: &serde_json::Value, out: &mut Vec<String>) {
            if let Some(map) = value.as_object() {
                for (key, value) in map {
                    out.push(key.clone());
                    keys(value, out);
                }
            }
        }
        let mut all = Vec::new();
        keys(&value, &mut all);
        for key in all {
            assert!(
                REFERENCE.contains(&format!("{key}:")),
                "`{key}` is not in deploy/trailwarden.yaml"
            );
        }
        assert!(Config::default().problems(false).is_empty());
    }

    #[test]
    fn mistakes_have_places() {
        let error = read("listen: 127.0.0.1:7171\nlisten_port: 1\n").unwrap_err();
        assert!(
            error.contains("listen_port") && error.contains('2'),
            "{error}"
        );
        let error = read("detect:\n  lateness_seconds: soon\n").unwrap_err();
        assert!(error.contains('2'), "{error}");
        assert!(
            read("data_dir: ${NOWHERE}\n")
                .unwrap_err()
                .contains("line 1: the environment has no `NOWHERE`")
        );
    }

    #[test]
    fn the_environment_fills_in() {
        assert_eq!(
            read("data_dir: ${TOKEN}").unwrap().data_dir,
            Path::new("a\"b: c")
        );
        assert_eq!(
            read("data_dir: \"x-${TOKEN}\"").unwrap().data_dir,
            Path::new("x-a\"b: c")
        );
        assert!(
            read("data_dir: x-${TOKEN}")
                .unwrap_err()
                .contains("double quotes")
        );
        assert!(read("# ${NOWHERE}\n").is_ok());
    }

    #[test]
    fn the_environment_fills_in_numbers() {
        let with = |value: &str| {
            let text = "data_dir: ${N}\nsearch: {nodes: 9, node: ${N}}\n";
            parse(text, &|_| Some(value.to_owned()))
        };
        let config = with("7").unwrap();
        assert_eq!((config.search.node, config.data_dir), (7, "7".into()));
        assert!(with("seven").is_err());
        for text in ["007", "0x1f", "1e9", "true", "~", "18446744073709551616"] {
            let config = parse("data_dir: ${N}\n", &|_| Some(text.to_owned())).unwrap();
            assert_eq!(config.data_dir, Path::new(text));
        }
    }

    #[test]
    fn secrets_in_clear_text_stop_the_start() {
        let file = |line: &str| {
            format!(
                "alerting:\n  receivers:\n    - name: a\n      webhook:\n        url: \"https://x.example\"\n        {line}\n"
            )
        };
        assert!(
            read(&file("secret: hunter2"))
                .unwrap_err()
                .contains("line 6: `secret` stands here in clear text")
        );
        let database = |url: &str| format!("alerting:\n  postgres:\n    url: {url}\n");
        assert!(
            read(&database("postgres://tw:hunter2@db:5432/tw"))
                .unwrap_err()
                .contains("line 3: `url` stands here in clear text")
        );
        assert!(read(&database("postgres://db/tw?user=tw&password=x")).is_err());
        assert!(read(&database("postgres://tw@db:5432/tw")).is_ok());
        assert!(read(&database("\"postgres://tw:${TOKEN}@db/tw\"")).is_ok());
        assert!(read(&file("secret: \"${TOKEN}\"")).is_ok());
        assert!(read(&file("secret_file: /etc/x")).is_ok());
        assert!(
            read(&format!(
                "allow_inline_secrets: true\n{}",
                file("secret: hunter2")
            ))
            .is_ok()
        );
    }

    #[test]
    fn access_keys_in_clear_text_stop_the_start() {
        let read = |keys: &str| read(&format!("ingest:\n  firehose:\n    {keys}\n"));
        let named = |keys: &str, line: usize| {
            let error = read(keys).unwrap_err();
            let expected = format!("line {line}: `access_keys` stands here in clear text");
            assert!(error.contains(&expected), "{keys}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        };
        named("access_keys: [hunter2]", 3);
        named("access_keys: [\"${TOKEN}\", 'hunter2'] # both", 3);
        named("access_keys:\n      - \"${TOKEN}\"\n      - hunter2", 5);
        named("access_keys:\n    - hunter2", 4);
        named("access_keys:\n      [\n        hunter2,\n      ]", 5);
        named("access_keys: [\n      # old\n      hunter2]", 5);
        named("access_keys : [hunter2]", 3);
        for one_line in [
            "ingest: {firehose: {access_keys: [hunter2]}}",
            "{\"ingest\":{\"firehose\":{\"access_keys\":[\"hunter2\"]}}}",
        ] {
            let error = super::tests::read(one_line).unwrap_err();
            assert!(error.contains("line 1: `access_keys`"), "{error}");
        }
        for keys in [
            "access_keys: []",
            "access_keys: [${TOKEN}]",
            "access_keys: [ \"x-${TOKEN}\" ]",
            "access_keys:\n      - \"${TOKEN}\"\n    concurrency: 2",
            "access_keys_file: /etc/x",
        ] {
            assert!(read(keys).is_ok(), "{keys}: {:?}", read(keys));
        }
    }

    #[test]
    fn open_to_others_needs_tls_and_a_login() {
        let config = read("listen: 0.0.0.0:7171").unwrap();
        assert!(
            config
                .problems(false)
                .iter()
                .any(|p| p.contains("--insecure-listen"))
        );
        assert!(
            config.problems(true).is_empty(),
            "{:?}",
            config.problems(true)
        );
    }
}
