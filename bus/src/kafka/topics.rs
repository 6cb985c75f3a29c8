//! The topics as they should be on the brokers, how they are, and how the one becomes the other.
//!
//! [`wanted`] says what each topic needs: partitions, retention, cleanup, the size of messages. [`plan`] asks the
//! brokers and lists the differences; [`apply`] makes the topics that are missing and changes the settings that differ.
//! It never deletes a topic, and never changes a number of partitions: stored records were placed by it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminOptions, AlterConfig, ConfigSource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::error::RDKafkaErrorCode;

use super::brokers::{Brokers, block_on};
use super::client::unavailable;
use super::{MAX_RECORD, Settings};
use crate::{BusError, Topic};

/// How often brokers are asked again for topics that are missing, ten times a second.
const HEARD: u32 = 20;

/// Topics as they are: partitions and copies by name.
type Found = HashMap<String, (u32, u16)>;

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name on the brokers.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// On how many brokers each record is.
    pub replication: u16,
    /// Settings by their names on the brokers.
    pub settings: BTreeMap<&'static str, String>,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// There is no such topic.
    Missing(Wanted),
    /// A setting has another value, which `apply` changes.
    Setting {
        /// Of which topic.
        topic: String,
        /// Which.
        name: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// The number of partitions is another one, which nothing can change.
    Partitions {
        /// Of which topic.
        topic: String,
        /// What it is.
        found: u32,
        /// What it should be.
        wanted: u32,
    },
    /// Fewer copies than wanted, which the brokers' own tools change.
    Replication {
        /// Of which topic.
        topic: String,
        /// What it is.
        found: u16,
        /// What it should be.
        wanted: u16,
    },
}

impl Difference {
    /// Can `apply` mend it?
    pub fn is_mendable(&self) -> bool {
        matches!(self, Difference::Missing(_) | Difference::Setting { .. })
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Missing(wanted) => write!(
                f,
                "{}: is missing ({} partitions, {} copies)",
                wanted.name, wanted.partitions, wanted.replication
            ),
            Difference::Setting {
                topic,
                name,
                found,
                wanted,
            } => write!(f, "{topic}: {name} is {found}, should be {wanted}"),
            Difference::Partitions {
                topic,
                found,
                wanted,
            } => write!(
                f,
                "{topic}: has {found} partitions, the configuration says {wanted}; a count cannot be changed once there are \
                 records, so set bus.partitions to {found}, or use another bus.kafka.prefix"
            ),
            Difference::Replication {
                topic,
                found,
                wanted,
            } => write!(
                f,
                "{topic}: has {found} copies, the configuration says {wanted}; the brokers' reassignment tool adds copies"
            ),
        }
    }
}

/// Every topic as it should be.
pub fn wanted(settings: &Settings) -> Vec<Wanted> {
    let kafka = &settings.kafka;
    let in_sync = if kafka.replication >= 3 { 2 } else { 1 };
    let topic = |name: &str, partitions: u32, retention_ms: i64| Wanted {
        name: kafka.name(name),
        partitions,
        replication: kafka.replication,
        settings: BTreeMap::from([
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", retention_ms.to_string()),
            ("retention.bytes", "-1".to_owned()),
            ("min.insync.replicas", in_sync.to_string()),
            ("unclean.leader.election.enable", "false".to_owned()),
            // The largest record, with room for headers and the batch around it.
            ("max.message.bytes", (MAX_RECORD + (1 << 20)).to_string()),
            ("message.timestamp.type", "CreateTime".to_owned()),
            // A node whose clock is ahead must not be refused.
            ("message.timestamp.after.max.ms", i64::MAX.to_string()),
        ]),
    };
    let mut all: Vec<Wanted> = Topic::ALL
        .into_iter()
        .map(|t| {
            topic(
                t.as_str(),
                settings.partitions.of(t),
                settings.retention_hours.micros(t) / 1_000,
            )
        })
        .collect();
    // A changelog is cut by snapshots, never by age.
    for (consumer, of) in &settings.consumers.moving {
        all.push(topic(
            &format!("state_{consumer}"),
            settings.partitions.of(*of),
            -1,
        ));
    }
    if settings.consumers.rest_moves {
        all.push(topic("state", 1, -1));
    }
    all
}

/// What differs between the configuration and the brokers.
///
/// # Errors
/// The brokers do not answer.
pub fn plan(settings: &Settings) -> Result<Vec<Difference>, BusError> {
    differences(&Brokers::open(&settings.kafka, 0)?, settings)
}

fn differences(brokers: &Brokers, settings: &Settings) -> Result<Vec<Difference>, BusError> {
    let all = wanted(settings);
    let there = there(brokers, &all)?;
    let names = all.iter().map(|wanted| wanted.name.as_str());
    let set = values(brokers, names.filter(|name| there.contains_key(*name)))?;
    let mut differences = Vec::new();
    for wanted in all {
        let Some((partitions, copies)) = there.get(&wanted.name) else {
            differences.push(Difference::Missing(wanted));
            continue;
        };
        if *partitions != wanted.partitions {
            differences.push(Difference::Partitions {
                topic: wanted.name.clone(),
                found: *partitions,
                wanted: wanted.partitions,
            });
        }
        if *copies < wanted.replication {
            differences.push(Difference::Replication {
                topic: wanted.name.clone(),
                found: *copies,
                wanted: wanted.replication,
            });
        }
        let found = set.get(&wanted.name);
        for (name, value) in &wanted.settings {
            // A broker that does not know a setting does not need it.
            match found.and_then(|values| values.get(*name)) {
                Some((found, _)) if found != value => differences.push(Difference::Setting {
                    topic: wanted.name.clone(),
                    name,
                    found: found.clone(),
                    wanted: value.clone(),
                }),
                _ => {}
            }
        }
    }
    Ok(differences)
}

/// The topics that the brokers have, with partitions and copies. Which broker answers is chance, and one of them may not
/// have heard of a new topic yet: where one is missing, it is asked again for a moment.
fn there(brokers: &Brokers, wanted: &[Wanted]) -> Result<Found, BusError> {
    let mut there = brokers.topics()?;
    for _ in 0..HEARD {
        if wanted.iter().all(|w| there.contains_key(&w.name)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        there = brokers.topics()?;
    }
    Ok(there)
}

/// Makes the topics what they should be, as far as that is possible. Gives what was done.
///
/// # Errors
/// The brokers refuse, or do not answer.
pub fn apply(settings: &Settings) -> Result<Vec<Difference>, BusError> {
    let brokers = Brokers::open(&settings.kafka, 0)?;
    let options = AdminOptions::new()
        .request_timeout(Some(brokers.patience))
        .operation_timeout(Some(brokers.patience));
    let mut done = differences(&brokers, settings)?;
    done.retain(Difference::is_mendable);
    let missing: Vec<&Wanted> = done
        .iter()
        .filter_map(|difference| match difference {
            Difference::Missing(wanted) => Some(wanted),
            _ => None,
        })
        .collect();
    if !missing.is_empty() {
        make(&brokers, &missing, &options)?;
    }
    let differing: BTreeSet<&str> = done
        .iter()
        .filter_map(|difference| match difference {
            Difference::Setting { topic, .. } => Some(topic.as_str()),
            _ => None,
        })
        .collect();
    for wanted in wanted(settings) {
        if differing.contains(wanted.name.as_str()) {
            alter(&brokers, &wanted, &options)?;
        }
    }
    Ok(done)
}

fn make(brokers: &Brokers, missing: &[&Wanted], options: &AdminOptions) -> Result<(), BusError> {
    let new: Vec<NewTopic<'_>> = missing
        .iter()
        .map(|wanted| {
            let copies = TopicReplication::Fixed(i32::from(wanted.replication));
            let new = NewTopic::new(&wanted.name, wanted.partitions as i32, copies);
            wanted
                .settings
                .iter()
                .fold(new, |new, (name, value)| new.set(name, value))
        })
        .collect();
    let made = block_on(brokers.administration()?.create_topics(&new, options))?;
    let mut refused = Vec::new();
    for result in made.map_err(|e| unavailable("make topics", &e))? {
        match result {
            // Another node has been at it too.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => refused.push(format!("cannot make topic `{name}`: {code}")),
        }
    }
    if !refused.is_empty() {
        return Err(BusError::Refused(refused.join("\n")));
    }
    // The brokers tell one another of it by and by.
    let begin = Instant::now();
    loop {
        let there = brokers.topics()?;
        if missing.iter().all(|w| there.contains_key(&w.name)) || begin.elapsed() > brokers.patience
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Changes settings of a topic and keeps what else somebody has set: the request replaces all of them.
fn alter(brokers: &Brokers, wanted: &Wanted, options: &AdminOptions) -> Result<(), BusError> {
    let topic = wanted.name.as_str();
    let found = values(brokers, [topic].into_iter())?
        .remove(topic)
        .unwrap_or_default();
    let mut all: BTreeMap<&str, &str> = found
        .iter()
        .filter(|(_, (_, set_here))| *set_here)
        .map(|(name, (value, _))| (name.as_str(), value.as_str()))
        .collect();
    all.extend(wanted.settings.iter().map(|(n, v)| (*n, v.as_str())));
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in &all {
        change = change.set(name, value);
    }
    let changed = block_on(brokers.administration()?.alter_configs([&change], options))?;
    let action = format!("change settings of `{topic}`");
    for result in changed.map_err(|e| unavailable(action.clone(), &e))? {
        result.map_err(|(_, code)| BusError::Refused(format!("cannot {action}: {code}")))?;
    }
    Ok(())
}

/// Values of settings by their names, and whether they were set on the topic rather than on the broker.
type Values = BTreeMap<String, (String, bool)>;

/// The settings of topics.
fn values<'n>(
    brokers: &Brokers,
    topics: impl Iterator<Item = &'n str>,
) -> Result<BTreeMap<String, Values>, BusError> {
    let asked: Vec<ResourceSpecifier<'_>> = topics.map(ResourceSpecifier::Topic).collect();
    let mut all: BTreeMap<String, Values> = BTreeMap::new();
    if asked.is_empty() {
        return Ok(all);
    }
    let options = AdminOptions::new().request_timeout(Some(brokers.patience));
    let action = "ask for settings of topics";
    let found = block_on(brokers.administration()?.describe_configs(&asked, &options))?;
    for resource in found.map_err(|e| unavailable(action, &e))? {
        let resource =
            resource.map_err(|code| BusError::Refused(format!("cannot {action}: {code}")))?;
        let OwnedResourceSpecifier::Topic(topic) = resource.specifier else {
            continue;
        };
        let values = all.entry(topic).or_default();
        for entry in resource.entries {
            if let Some(value) = entry.value {
                let set_here = entry.source == ConfigSource::DynamicTopic;
                values.insert(entry.name, (value, set_here));
            }
        }
    }
    Ok(all)
}

/// Refuses to start on topics that are missing or have other numbers of partitions.
pub(super) fn check_counts(brokers: &Brokers, settings: &Settings) -> Result<(), BusError> {
    let all = wanted(settings);
    let there = there(brokers, &all)?;
    let mut problems = Vec::new();
    for wanted in all {
        match there.get(&wanted.name) {
            None => problems.push(format!("`{}` is missing", wanted.name)),
            Some((found, _)) if *found != wanted.partitions => problems.push(
                Difference::Partitions {
                    topic: wanted.name,
                    found: *found,
                    wanted: wanted.partitions,
                }
                .to_string(),
            ),
            Some(_) => {}
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(BusError::Refused(format!(
        "the brokers do not have the topics as configured:\n  {}\n`trailwarden topics plan` shows what `trailwarden topics apply` would do",
        problems.join("\n  ")
    )))
}
