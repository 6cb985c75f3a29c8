//! The contract of the bus: [`Bus`] and the types that it speaks.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use event::Time;

/// The number of a record within its partition, from 0, without gaps.
pub type Offset = u64;

/// The topics, a closed set: the flow of DESIGN §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Framed events ([`event::Event::encode`]).
    Events,
    /// Matches of rules that correlations refer to, re-keyed by correlation and group.
    Matches,
    /// Cumulative counters per function and minute.
    Meters,
    /// Findings as JSON.
    Findings,
    /// What could not become an event, with its reason, as JSON.
    DeadLetters,
    /// What arrives from where, and how collectors are ([`event::source::SourceRecord`]).
    Sources,
}

impl Topic {
    /// All topics.
    pub const ALL: [Topic; 6] = [
        Topic::Events,
        Topic::Matches,
        Topic::Meters,
        Topic::Findings,
        Topic::DeadLetters,
        Topic::Sources,
    ];

    /// The name on disk, on Kafka and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Topic::Events => "events",
            Topic::Matches => "matches",
            Topic::Meters => "meters",
            Topic::Findings => "findings",
            Topic::DeadLetters => "dead_letters",
            Topic::Sources => "sources",
        }
    }
}

/// One record. Its partition follows from the key ([`partition_of`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Decides the partition.
    pub key: Bytes,
    /// The content.
    pub value: Bytes,
    /// When it was appended; retention counts from here.
    pub time: Time,
}

/// Records of one partition in order of offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Offset and record, ascending.
    pub records: Vec<(Offset, Record)>,
    /// Where to read on: one past the last record, or where this read began if there was none.
    pub next: Offset,
}

/// How far a consumer has come in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The topic read.
    pub topic: Topic,
    /// The partition read.
    pub partition: u32,
    /// Where this batch began. A commit whose `from` is not the stored position is refused: somebody else committed.
    /// Without a stored position that is the start of the log; where retention has dropped what lies behind the stored
    /// position, it is any offset from there to the start that is left.
    pub from: Offset,
    /// The next offset to read.
    pub to: Offset,
}

/// A key of a consumer's state set or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// State is kept per partition, so that it can move with it.
    pub partition: u32,
    /// Free for the consumer to choose.
    pub key: Vec<u8>,
    /// The new value; `None` removes the key.
    pub value: Option<Vec<u8>>,
    /// When the key may be dropped; `None` keeps it until it is removed.
    pub expires: Option<Time>,
}

/// A key of a consumer's state with its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// What a stage did with what it read: takes effect as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// Who: positions and state are kept per consumer name.
    pub consumer: String,
    /// How far it has come.
    pub positions: Vec<Position>,
    /// What it says to the next stages. Never to [`Topic::Events`]: that one is only appended to.
    pub outputs: Vec<(Topic, Record)>,
    /// What it remembers. Of two changes of one key the later holds.
    pub state: Vec<StateChange>,
}

/// Why the log could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Reading or writing failed; nothing of the call took effect.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// There is no space left; nothing of the call took effect, and it can be tried again when there is.
    #[error("no space left for `{path}`")]
    DiskFull {
        /// On which file.
        path: String,
    },
    /// An fsync failed. What reached the disk is unknown, so this log takes no more writes until it is opened again.
    #[error("writes stopped: an earlier fsync of `{path}` failed")]
    Poisoned {
        /// On which file.
        path: String,
    },
    /// The state database failed.
    #[error("state database: {0}")]
    State(String),
    /// What is stored is damaged before its end.
    #[error("`{path}` is damaged at byte {offset}: {reason}")]
    Corrupt {
        /// In which file.
        path: String,
        /// Where.
        offset: u64,
        /// What does not fit.
        reason: String,
    },
    /// Another process has the data folder open.
    #[error(
        "data folder `{0}` is in use by another process: stop that one first, or use another folder"
    )]
    Locked(String),
    /// The offset was dropped by retention, or was never written.
    #[error("offset {asked} of {topic}-{partition} is outside the log, which has {start} to {end}", topic = topic.as_str())]
    OutOfRange {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: u32,
        /// What was asked for.
        asked: Offset,
        /// The first offset that is kept.
        start: Offset,
        /// One past the last offset.
        end: Offset,
    },
    /// The stored position is not where this batch began: another worker committed in between.
    #[error("{consumer} stands at {stored} of {topic}-{partition}, not at {from}: another worker committed", topic = topic.as_str())]
    Fenced {
        /// The consumer.
        consumer: String,
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: u32,
        /// Where the batch began.
        from: Offset,
        /// What is stored.
        stored: Offset,
    },
    /// The brokers do not answer, or not in time. What was sent may have arrived all the same: doing the same again is
    /// harmless, since ids are deterministic.
    #[error("cannot {action}: {reason}")]
    Unavailable {
        /// What was attempted.
        action: String,
        /// What the client library says.
        reason: String,
    },
    /// What the brokers hold does not fit what was read from them before. Going on would lose or repeat records
    /// unnoticed, so a person has to decide.
    #[error("{topic}-{partition} is not what it was: {reason}")]
    Guard {
        /// The topic as it is called on the brokers.
        topic: String,
        /// The partition.
        partition: u32,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// A call that the contract forbids.
    #[error("{0}")]
    Refused(String),
}

impl BusError {
    /// One word for metrics and for telling errors apart in an answer.
    pub fn kind(&self) -> &'static str {
        match self {
            BusError::Io { .. } => "io",
            BusError::DiskFull { .. } => "disk_full",
            BusError::Poisoned { .. } => "poisoned",
            BusError::State(_) => "state",
            BusError::Corrupt { .. } => "corrupt",
            BusError::Locked(_) => "locked",
            BusError::OutOfRange { .. } => "out_of_range",
            BusError::Fenced { .. } => "fenced",
            BusError::Unavailable { .. } => "unavailable",
            BusError::Guard { .. } => "guard",
            BusError::Refused(_) => "refused",
        }
    }

    /// Can the same be done again after a while, from the last commit? True of a full disk, of brokers that are away,
    /// and of a worker that came second.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            BusError::DiskFull { .. } | BusError::Unavailable { .. } | BusError::Fenced { .. }
        )
    }
}

/// The durable log. Calls block; every stage has threads of its own.
pub trait Bus: Send + Sync + 'static {
    /// How many partitions a topic has; fixed when the log is created.
    fn partitions(&self, topic: Topic) -> u32;

    /// Appends records, each to the partition of its key, in order. On `Ok` they are durable.
    fn append(&self, topic: Topic, records: Vec<Record>) -> Result<(), BusError>;

    /// The records from `from` on, as many as fit into `max_bytes` of keys and values, but at least one if there is
    /// one. Does not wait.
    fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Batch, BusError>;

    /// Waits until one of the partitions has a record at or after the offset given for it, at most `timeout`. Tells
    /// whether one has.
    fn wait(
        &self,
        topic: Topic,
        from: &[(u32, Offset)],
        timeout: Duration,
    ) -> Result<bool, BusError>;

    /// The first offset that is kept and one past the last.
    fn bounds(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, BusError>;

    /// One past the last offset of every partition of a topic, asked now.
    fn ends(&self, topic: Topic) -> Result<Vec<Offset>, BusError> {
        (0..self.partitions(topic))
            .map(|partition| Ok(self.bounds(topic, partition)?.end))
            .collect()
    }

    /// Makes positions, outputs and state take effect together, durably, or not at all.
    fn commit(&self, commit: Commit) -> Result<(), BusError>;

    /// Where a consumer stands; `None` before its first commit there (it then starts at the beginning of the log).
    fn position(
        &self,
        consumer: &str,
        topic: Topic,
        partition: u32,
    ) -> Result<Option<Offset>, BusError>;

    /// The values of a consumer's keys, in the order asked.
    fn state_get(
        &self,
        consumer: &str,
        partition: u32,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Vec<u8>>>, BusError>;

    /// All of a consumer's keys with a prefix, and their values, in order of key.
    fn state_scan(
        &self,
        consumer: &str,
        partition: u32,
        prefix: &[u8],
    ) -> Result<Vec<Entry>, BusError>;

    /// Drops records older than the topic's retention and expired state.
    fn retain(&self, now: Time) -> Result<(), BusError>;

    /// The partitions of a topic that this process works on for a consumer at this moment, ascending. Where several
    /// processes share the work, a consumer asks before every round, and a partition may come and go at any time: two
    /// processes may believe for a while that it is theirs, and [`Bus::commit`] decides between them. On one machine all
    /// partitions are always here.
    fn assigned(&self, _consumer: &str, topic: Topic) -> Result<Vec<u32>, BusError> {
        Ok((0..self.partitions(topic)).collect())
    }

    /// The positions of every consumer that this process knows of, for lag and health: consumer, topic, partition, next
    /// offset. Cheap, and perhaps a moment old.
    fn progress(&self) -> Result<Vec<Progress>, BusError> {
        Ok(Vec::new())
    }
}

/// How far a consumer has come in one partition, as shown to people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress {
    /// The consumer.
    pub consumer: String,
    /// The topic read.
    pub topic: Topic,
    /// The partition read.
    pub partition: u32,
    /// The next offset to read.
    pub next: Offset,
    /// Does this process do the reading?
    pub here: bool,
}

/// May a consumer that stands at `stored` move as `position` says, in a partition with these bounds? Where retention has
/// passed the stored position, the consumer went on from what was the start when it looked; without a position, likewise.
pub(crate) fn check_position(
    consumer: &str,
    position: &Position,
    stored: Option<Offset>,
    bounds: &Range<Offset>,
) -> Result<(), BusError> {
    let Position {
        topic,
        partition,
        from,
        to,
    } = *position;
    let stored = stored.unwrap_or(0);
    if from < stored || from > stored.max(bounds.start) {
        return Err(BusError::Fenced {
            consumer: consumer.to_owned(),
            topic,
            partition,
            from,
            stored: stored.max(bounds.start),
        });
    }
    if to < from || to > bounds.end {
        return Err(BusError::Refused(format!(
            "{consumer} cannot move from {from} to {to} of {}-{partition}, which ends at {}",
            topic.as_str(),
            bounds.end
        )));
    }
    Ok(())
}

/// Refuses what no implementation takes: no name, outputs to `events`, a partition twice.
pub(crate) fn check_commit(commit: &Commit) -> Result<(), BusError> {
    let name = &commit.consumer;
    if name.is_empty() {
        return Err(BusError::Refused(
            "a commit needs the name of its consumer".into(),
        ));
    }
    if commit
        .outputs
        .iter()
        .any(|(topic, _)| *topic == Topic::Events)
    {
        return Err(BusError::Refused(format!(
            "{name} may not commit outputs to events: they are only appended"
        )));
    }
    let mut seen = BTreeSet::new();
    for Position {
        topic, partition, ..
    } in &commit.positions
    {
        if !seen.insert((*topic, *partition)) {
            return Err(BusError::Refused(format!(
                "{name} commits {}-{partition} twice at once",
                topic.as_str()
            )));
        }
    }
    Ok(())
}

/// The partition of a key: FNV-1a of its bytes modulo the number of partitions. Fixed for ever, since stored records
/// were placed by it.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    });
    ((hash ^ hash >> 32) % u64::from(partitions.max(1))) as u32
}

/// Tells every thread of the program to finish what it has and return.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks all to stop.
    pub fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Has somebody asked?
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
