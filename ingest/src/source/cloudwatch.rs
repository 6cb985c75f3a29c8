//! Log groups of CloudWatch Logs that are asked for what is new.
//!
//! For a backfill, and for set-ups that are too small for a subscription: [`run`] lists the groups that fit the names
//! and patterns of an entry, again and again, so that the group of a new function is found by itself, and asks each of
//! them with FilterLogEvents for what came since. [`position`] says what is asked for, [`group`] asks and appends,
//! [`listing`] finds the groups. Groups take turns: one that has months to read does not keep the others waiting, and
//! one that is denied or absent is said so while the others go on. All entries with the same access to AWS share one
//! pace, since the quota of calls is one for account and region. Events have the ids that a subscription gives them,
//! so that both ways beside each other count once. Contract: Amazon CloudWatch Logs API Reference, FilterLogEvents.

mod group;
mod listing;
mod position;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::config::retry::RetryConfig;
use bus::{BusError, Commit, StateChange};
use event::{Time, wildcard};
use serde::{Deserialize, Serialize};
use tokio::task::{JoinSet, block_in_place};

use self::group::{Group, Reader, object, position_key};
use self::listing::{Found, Lister};
use self::position::{Position, SECOND};
use super::object::Shop;
use super::patience::{Pace, Said};
use super::s3::Trouble;
use crate::aws::{self, Access, Fault};
use crate::config::{ConfigError, within};
use crate::status::Failure;

/// The consumer name under which positions are kept.
pub const CONSUMER: &str = "ingest/log_groups";

/// So many groups of an entry are asked at once.
const AT_ONCE: usize = 4;

/// A group that fails is asked again after this time at most.
const LONGEST_WAIT: i64 = 900 * SECOND;

/// CloudWatch Logs takes events of at most this age; so a group has none from long before it was made.
const OLDEST_TAKEN: i64 = 15 * 86_400 * SECOND;

/// How long it rests between two looks at what is to be done.
const BREATH: Duration = Duration::from_millis(200);

/// Log groups that are read by asking for what is new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogGroups {
    /// What they are called in metrics and answers; empty for the first of `groups`.
    pub name: String,
    /// Names of log groups; `*` stands for any characters.
    pub groups: Vec<String>,
    /// Groups that are left out of those; `*` as above.
    pub except: Vec<String>,
    /// As whom they are read.
    pub aws: Access,
    /// The account that owns them; empty for what the listing says. Needed only where nobody may list.
    pub account: String,
    /// Read each group from this time on (RFC 3339), once; empty: from the first start on.
    pub from: String,
    /// How often a group is asked for what is new.
    pub every_seconds: u64,
    /// How often the groups are listed anew.
    pub list_seconds: u64,
    /// How late an event may become visible after its time; so much is asked for again and again.
    pub overlap_minutes: u64,
    /// How many calls are made at most, by all entries with the same `aws` together.
    pub calls_per_second: u32,
}

impl Default for LogGroups {
    fn default() -> LogGroups {
        LogGroups {
            name: String::new(),
            groups: Vec::new(),
            except: Vec::new(),
            aws: Access::default(),
            account: String::new(),
            from: String::new(),
            every_seconds: 60,
            list_seconds: 300,
            overlap_minutes: 10,
            calls_per_second: 3,
        }
    }
}

impl LogGroups {
    /// What they are called.
    pub fn name(&self) -> &str {
        match self.name.as_str() {
            "" => self.groups.first().map_or("", String::as_str),
            name => name,
        }
    }

    /// All settings at `place` with which they cannot be read, after those `before`.
    pub(crate) fn check(&self, place: &str, before: &[LogGroups]) -> Vec<ConfigError> {
        let wrong = |key: &str, value: &str, allowed| ConfigError::Value {
            key: format!("{place}.{key}"),
            value: format!("`{value}`"),
            allowed,
        };
        let is_name = |name: &&String| {
            let good = |c: char| c.is_ascii_alphanumeric() || "_-/.#*".contains(c);
            !name.is_empty() && name.len() <= 512 && name.chars().all(good)
        };
        let bad = |names: &[String]| names.iter().find(|n| !is_name(n)).cloned();
        let name = "the name of a log group (letters, digits and _-/.#), with * for anything";
        let bad_account = !self.account.is_empty()
            && (self.account.len() != 12 || !self.account.bytes().all(|b| b.is_ascii_digit()));
        let bad_from = !self.from.is_empty() && Time::parse(&self.from).is_err();
        let number = |key: &str, value: u64, low, high, allowed| {
            within(&format!("{place}.{key}"), value, low, high, allowed)
        };
        let taken = before.iter().any(|b| b.name() == self.name());
        [
            self.groups
                .is_empty()
                .then(|| wrong("groups", "[]", "at least one log group")),
            bad(&self.groups).map(|n| wrong("groups", &n, name)),
            bad(&self.except).map(|n| wrong("except", &n, name)),
            bad_account.then(|| wrong("account", &self.account, "the 12 digits of an account")),
            bad_from.then(|| wrong("from", &self.from, "a time such as 2026-01-01T00:00:00Z")),
            number("every_seconds", self.every_seconds, 1, 86_400, "between 1 and 86400"),
            number("list_seconds", self.list_seconds, 5, 604_800, "between 5 and 604800"),
            number(
                "overlap_minutes",
                self.overlap_minutes,
                1,
                20_160,
                "between 1 and 20160, since CloudWatch Logs takes no event that is older than two weeks",
            ),
            number(
                "calls_per_second",
                self.calls_per_second.into(),
                1,
                100,
                "between 1 and 100, and below the quota of FilterLogEvents",
            ),
            taken.then(|| wrong("name", self.name(), "another one for each entry")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Is a group of this name to be read?
    fn wants(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|p| wildcard::matches(p, name));
        any(&self.groups) && !any(&self.except)
    }

    /// What it reads, as another node would say it of the same.
    fn place(&self, region: &str) -> String {
        let groups = self.groups.join(",");
        let whose = match self.account.as_str() {
            "" => &self.aws.role_arn,
            account => account,
        };
        format!("logs://{region}/{whose}/{groups}")
    }

    /// Can it be read without a listing?
    fn is_complete(&self) -> bool {
        !self.account.is_empty() && self.groups.iter().all(|g| wildcard::is_plain(g))
    }

    fn overlap(&self) -> i64 {
        self.overlap_minutes as i64 * 60 * SECOND
    }
}

/// What to do about a log group that is not there.
const ABSENT: &str =
    "check its name, region and account in the configuration; it is read as soon as it is there";

/// Reads log groups until told to stop.
pub fn run(entries: &[LogGroups], shop: &Shop) -> Result<(), BusError> {
    aws::threads("log groups")?.block_on(async {
        let mut readers = JoinSet::new();
        let mut paces: Vec<(&Access, Arc<Pace>)> = Vec::new();
        for entry in entries {
            let known = paces.iter().find(|(access, _)| **access == entry.aws);
            let pace = match known {
                Some((_, pace)) => Arc::clone(pace),
                None => {
                    let alike = entries.iter().filter(|e| e.aws == entry.aws);
                    let rate = alike.map(|e| e.calls_per_second).min().unwrap_or(1);
                    Arc::new(Pace::new(rate))
                }
            };
            paces.push((&entry.aws, Arc::clone(&pace)));
            let (entry, shop) = (entry.clone(), shop.clone());
            readers.spawn(async move { Poller::new(entry, shop, pace).await.poll().await });
        }
        readers.join_all().await;
    });
    Ok(())
}

/// All groups of one entry.
struct Poller {
    reader: Arc<Reader>,
    /// `None` while somebody reads it.
    groups: BTreeMap<String, Option<Group>>,
    tasks: JoinSet<(Group, Result<bool, Trouble>)>,
    /// How far groups were read that somebody reads at the moment.
    reading: BTreeMap<String, Time>,
    /// When to list anew.
    list: Time,
    said: Said,
}

impl Poller {
    async fn new(config: LogGroups, shop: Shop, pace: Arc<Pace>) -> Poller {
        let sdk = config.aws.load().await;
        // Repeats of the client would not be seen by the pace.
        let own = aws_sdk_cloudwatchlogs::config::Builder::from(&sdk)
            .retry_config(RetryConfig::disabled())
            .build();
        let region = sdk.region().map(ToString::to_string).unwrap_or_default();
        let post = shop.metrics.collectors.post("log_groups", config.name());
        post.alone(&config.place(&region));
        Poller {
            reader: Arc::new(Reader {
                client: Client::from_conf(own),
                config,
                shop,
                pace,
                region,
                decoders: Mutex::default(),
            }),
            groups: BTreeMap::new(),
            tasks: JoinSet::new(),
            reading: BTreeMap::new(),
            list: Time::MIN,
            said: Said::default(),
        }
    }

    async fn poll(mut self) {
        let stop = self.reader.shop.stop.clone();
        while !stop.is_stopped() {
            let now = (self.reader.shop.clock)();
            if now >= self.list {
                self.list = match self.relist(now).await {
                    Ok(()) => now.plus(self.reader.config.list_seconds as i64 * SECOND),
                    Err(trouble) => {
                        self.complain("", "list log groups", &trouble);
                        now.plus(15 * SECOND)
                    }
                };
            }
            self.start_due(now);
            self.tell(now);
            tokio::select! {
                Some(done) = self.tasks.join_next() => match done {
                    Ok((group, outcome)) => self.take_back(group, outcome),
                    Err(ended) if ended.is_panic() => self.restart(),
                    Err(_) => {}
                },
                () = aws::rest(BREATH, &stop) => {}
            }
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Finds the groups that are there, and begins with those that are new.
    async fn relist(&mut self, now: Time) -> Result<(), Trouble> {
        let reader = Arc::clone(&self.reader);
        let lister = Lister {
            client: &reader.client,
            config: &reader.config,
            pace: &reader.pace,
            stop: &reader.shop.stop,
        };
        let found = lister.all().await?;
        let post = reader.post();
        post.well("", 0, now);
        let gone = self.groups.keys().filter(|name| !found.contains_key(*name));
        gone.for_each(|name| post.well(name, 0, now));
        self.groups.retain(|name, _| found.contains_key(name));
        self.reading.retain(|name, _| found.contains_key(name));
        let since = block_in_place(|| self.since(now))?;
        let new: Vec<_> = found
            .iter()
            .filter(|(name, _)| !self.groups.contains_key(*name))
            .collect();
        let keys: Vec<Vec<u8>> = new
            .iter()
            .map(|(name, found)| position_key(&reader.region, &found.account, name))
            .collect();
        let known = block_in_place(|| reader.shop.bus.state_get(CONSUMER, 0, &keys))?;
        for ((name, found), known) in new.into_iter().zip(known) {
            let known: Option<Position> = known.and_then(|v| serde_json::from_slice(&v).ok());
            let position = known.unwrap_or_else(|| first_position(since, found.created));
            if known.is_some_and(|p| !reader.config.from.is_empty() && since < p.since) {
                tracing::warn!(group = %name, since = %position.since, from = reader.config.from, "the log group was read before, and `from` is not looked at again");
            }
            tracing::info!(group = %name, account = found.account, read_to = %position.read_to, "reading a log group");
            let group = Group::new(name, found, position);
            self.groups.insert(name.clone(), Some(group));
        }
        self.said.mended("");
        self.miss(&found, now);
        Ok(())
    }

    /// Says which names of the configuration stand for nothing.
    fn miss(&self, found: &BTreeMap<String, Found>, now: Time) {
        for pattern in &self.reader.config.groups {
            if found.keys().any(|name| wildcard::matches(pattern, name)) {
                self.said.mended(pattern);
                self.reader.post().well(pattern, 0, now);
                continue;
            }
            // A pattern may stand for what is still to come; a name is meant.
            if !wildcard::is_plain(pattern) {
                if self.said.is_new(pattern, "absent", now) {
                    tracing::warn!(
                        log_groups = self.reader.config.name(),
                        pattern,
                        region = self.reader.region,
                        "no log group has a name of this pattern yet"
                    );
                }
                continue;
            }
            let errors = &self.reader.shop.metrics.errors;
            errors.with_label_values(&[Fault::NoSource.as_str()]).inc();
            let failure = Failure {
                fault: Fault::NoSource.as_str(),
                message: format!("there is no log group `{pattern}`"),
                hint: ABSENT,
            };
            self.reader.post().failed(pattern, failure, now);
            if self.said.is_new(pattern, "absent", now) {
                tracing::error!(
                    log_groups = self.reader.config.name(),
                    group = pattern,
                    region = self.reader.region,
                    hint = ABSENT,
                    "there is no such log group"
                );
            }
        }
    }

    /// From when on groups are read that were not read before: as configured, else when this entry was first started.
    fn since(&self, now: Time) -> Result<Time, BusError> {
        let config = &self.reader.config;
        if let Ok(from) = Time::parse(&config.from) {
            return Ok(from);
        }
        let bus = &self.reader.shop.bus;
        let key = format!("since/{}", config.name()).into_bytes();
        let known = bus.state_get(CONSUMER, 0, std::slice::from_ref(&key))?;
        let known = known.into_iter().flatten().next();
        if let Some(time) = known.and_then(|v| Time::parse(&String::from_utf8_lossy(&v)).ok()) {
            return Ok(time);
        }
        let since = now.plus(-config.overlap());
        bus.commit(Commit {
            consumer: CONSUMER.to_owned(),
            state: vec![StateChange {
                partition: 0,
                key,
                value: Some(since.to_string().into_bytes()),
                expires: None,
            }],
            ..Commit::default()
        })?;
        Ok(since)
    }

    /// Has those read whose time has come, the one that waits longest first.
    fn start_due(&mut self, now: Time) {
        let many = self.groups.len();
        while self.tasks.len() < AT_ONCE {
            let waiting = self.groups.values_mut().filter(|g| {
                let due = g.as_ref().map(|g| g.due);
                due.is_some_and(|due| due <= now)
            });
            let next = waiting.min_by_key(|g| g.as_ref().map(|g| g.due));
            let Some(mut group) = next.and_then(Option::take) else {
                return;
            };
            self.reading
                .insert(group.name.clone(), group.position.read_to);
            let reader = Arc::clone(&self.reader);
            self.tasks.spawn(async move {
                let outcome = reader.window(&mut group, many).await;
                (group, outcome)
            });
        }
    }

    /// Puts a group back in its place, to be asked again in its time.
    fn take_back(&mut self, mut group: Group, outcome: Result<bool, Trouble>) {
        self.reading.remove(&group.name);
        let now = (self.reader.shop.clock)();
        let every = self.reader.config.every_seconds as i64 * SECOND;
        match outcome {
            Ok(present) => {
                group.failures = 0;
                // Behind the others that wait.
                group.due = if present { now.plus(every) } else { now };
                self.said.mended("all");
                let post = self.reader.post();
                post.well("all", 0, now);
                post.well(&group.name, 1, now);
                if self.said.mended(&group.name) {
                    tracing::info!(group = group.name, "the log group is read again");
                }
            }
            Err(Trouble::Stopped) => {}
            Err(trouble) => {
                group.failures += 1;
                let wait = every.saturating_mul(1 << group.failures.min(10));
                group.due = now.plus(wait.min(LONGEST_WAIT.max(every)));
                // What all groups have is said once.
                let about = if trouble.is_of_all() && !is_absent(&trouble) {
                    "all"
                } else {
                    &group.name
                };
                self.complain(about, &format!("read {}", object(&group)), &trouble);
            }
        }
        if let Some(place) = self.groups.get_mut(&group.name) {
            *place = Some(group);
        }
    }

    /// Which group it was is not known: all that are being read are begun anew.
    fn restart(&mut self) {
        tracing::error!(
            "reading a log group stopped unexpectedly, it is read again from its position"
        );
        let errors = &self.reader.shop.metrics.errors;
        errors.with_label_values(&["panic"]).inc();
        self.tasks.abort_all();
        for name in std::mem::take(&mut self.reading).into_keys() {
            self.groups.remove(&name);
        }
        self.list = (self.reader.shop.clock)().plus(5 * SECOND);
    }

    fn complain(&self, about: &str, action: &str, trouble: &Trouble) {
        if matches!(trouble, Trouble::Stopped) {
            return;
        }
        let shop = &self.reader.shop;
        let errors = &shop.metrics.errors;
        errors.with_label_values(&[trouble.kind()]).inc();
        let post = self.reader.post();
        post.failed(about, Failure::of(trouble), (shop.clock)());
        if !self.said.is_new(about, trouble.kind(), (shop.clock)()) {
            return;
        }
        if trouble.passes() {
            tracing::warn!(
                log_groups = self.reader.config.name(),
                error = trouble as &dyn std::error::Error,
                hint = trouble.hint(),
                "cannot {action}, tried again"
            );
        } else {
            tracing::error!(
                log_groups = self.reader.config.name(),
                error = trouble as &dyn std::error::Error,
                hint = trouble.hint(),
                "cannot {action}, tried again; other log groups go on"
            );
        }
    }

    /// How many groups there are, and how far behind the slowest is.
    fn tell(&self, now: Time) {
        let name = self.reader.config.name();
        let metrics = &self.reader.shop.metrics;
        let waiting = self.groups.values().flatten();
        let read_to = waiting.map(|g| g.position.read_to);
        let slowest = read_to.chain(self.reading.values().copied()).min();
        let behind = slowest.map_or(0, |time| (now.0 - time.0) / SECOND);
        let (count, lag) = (&metrics.log_groups, &metrics.log_group_lag);
        count
            .with_label_values(&[name])
            .set(self.groups.len() as i64);
        lag.with_label_values(&[name]).set(behind.max(0));
    }
}

/// Where to begin with a group that was not read before.
fn first_position(since: Time, created: Option<Time>) -> Position {
    let earliest = created.map_or(since, |c| c.plus(-OLDEST_TAKEN).max(since));
    Position {
        since,
        ..Position::new(earliest)
    }
}

fn is_absent(trouble: &Trouble) -> bool {
    matches!(
        trouble,
        Trouble::Fetch {
            fault: Fault::NoSource,
            ..
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backfill_begins_where_there_can_be_something() {
        let at = Time::from_seconds;
        let first = |since, created| {
            let position = first_position(at(since), created);
            (position.since, position.read_to)
        };
        assert_eq!(first(100, None), (at(100), at(100)));
        let made = 100 * 86_400;
        assert_eq!(first(0, Some(at(made))), (at(0), at(made - 15 * 86_400)));
        assert_eq!(first(made, Some(at(made))), (at(made), at(made)));
    }

    #[test]
    fn what_is_wanted_is_in_one_list_and_not_in_the_other() {
        let config: LogGroups = serde_json::from_str(
            r#"{"groups":["/aws/lambda/*","/trail"],"except":["/aws/lambda/noise-*"]}"#,
        )
        .unwrap();
        assert!(config.wants("/aws/lambda/shop") && config.wants("/trail"));
        assert!(!config.wants("/aws/lambda/noise-1") && !config.wants("/aws/rds/x"));
        assert_eq!(config.name(), "/aws/lambda/*");
        assert!(!config.is_complete());
    }
}
