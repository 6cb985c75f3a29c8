//! What is done to published splits and findings beside indexing: merging, removing, findings.
//!
//! Small splits make searches slow, so [`plan`] picks neighbours of like size to be made into one; the merge is built
//! beside the old splits and published in their place by one commit. Only splits of one class are merged, since they go
//! together. What goes and when is decided in [`crate::removal`]: by the time of intake and not of the event, so that old
//! logs which are loaded today stay, and events from the future do not stay for ever. The findings' index has its own
//! position and is committed every few seconds.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::ledger::Why;
use bus::{BusError, Commit, Offset, Position, Topic};
use event::{Finding, Time};

use crate::Config;
use crate::evidence::seal::Change;
use crate::findings::FindingWriter;
use crate::indexer::{CONSUMER, IndexError, Shelf, open, retry};
use crate::priority::{MERGE, step_back};
use crate::removal::{days, expire, oldest};
use crate::reserve::Reserve;
use crate::split::{Meta, merge};

const DAY: i64 = 86_400_000_000;
/// How often the reserve is made again, in milliseconds.
const KEEP_EVERY_MS: i64 = 60_000;
/// How long the thread rests when there is nothing to merge.
const REST: Duration = Duration::from_millis(200);

/// Merges and removes splits until `ended`.
pub(crate) fn run(shelf: &Shelf, ended: &dyn Fn() -> bool) -> Result<(), IndexError> {
    step_back(MERGE);
    let mut failures = 0;
    let reserve = Reserve::of(shelf.searcher.catalog().dir());
    let mut kept = Time::MIN;
    while !ended() {
        let now = (shelf.clock)();
        // Made again at leisure: on a full disk every attempt is in vain.
        if now.millis() - kept.millis() >= KEEP_EVERY_MS {
            reserve.keep();
            kept = now;
        }
        match make_room(shelf, &reserve).and_then(|()| merge_once(shelf)) {
            Ok(true) => failures = 0,
            Ok(false) => std::thread::sleep(REST),
            Err(error) => retry(shelf, error, &mut failures, ended)?,
        }
    }
    Ok(())
}

/// Removes what is due; on a full disk with what was kept back for it.
pub(crate) fn make_room(shelf: &Shelf, reserve: &Reserve) -> Result<(), IndexError> {
    match expire(shelf) {
        Err(error) if error.is_transient() && reserve.give() => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the index cannot be made smaller: trying with the space that was kept back for it"
            );
            expire(shelf)
        }
        done => done,
    }
}

/// Does one merge, if one is due. Tells whether it did.
pub(crate) fn merge_once(shelf: &Shelf) -> Result<bool, IndexError> {
    let Some(old) = plan(&shelf.metas(), &shelf.config) else {
        return Ok(false);
    };
    let failed = |e| shelf.error("merge splits", e);
    let current = shelf.searcher.catalog().current().map_err(failed)?;
    let splits: Vec<_> = current
        .iter()
        .filter(|s| old.iter().any(|m| m.number == s.meta.number))
        .cloned()
        .collect();
    let number = shelf.number();
    let merged = merge(&shelf.folder(), &splits, number)
        .map_err(failed)
        .and_then(|meta| {
            let change = Change {
                why: Why::Merge,
                added: &[meta],
                removed: &old,
                reason: "",
            };
            shelf.publish(&change, Commit::default())
        });
    match merged {
        Ok(()) => shelf.metrics.merges.inc(),
        Err(error) => {
            shelf.discard(number);
            return Err(error);
        }
    }
    Ok(true)
}

/// The splits to merge next, neighbours among those of their class.
pub(crate) fn plan(metas: &[Meta], config: &Config) -> Option<Vec<Meta>> {
    let classes: BTreeSet<u32> = metas.iter().map(|m| m.days).collect();
    classes.into_iter().find_map(|class| {
        let of_class = metas.iter().filter(|m| m.days == class);
        let of_class: Vec<Meta> = of_class.cloned().collect();
        let range = plan_class(&of_class, days(config, class), config)?;
        Some(of_class[range].to_vec())
    })
}

/// The neighbours to merge next: as many as the configuration says, none much larger than the smallest, and all of one
/// format. `days`: for how long their class is searchable.
fn plan_class(metas: &[Meta], days: u32, config: &Config) -> Option<std::ops::Range<usize>> {
    let width = config.merge_splits.max(2);
    let level = |events: u64| events.max(1).ilog(width as u64);
    let top = level(config.merged_events.max(1));
    // Merged splits should expire together: they span a thirtieth of the retention at most.
    let span = (i64::from(days) * DAY / 30).max(DAY / 24);
    (0..=top).find_map(|limit| {
        let mut start = 0;
        (0..metas.len()).find_map(|end| {
            let fits = level(metas[end].events) <= limit;
            if !fits || metas[end].events > config.merged_events / 2 {
                start = end + 1;
                return None;
            }
            while end + 1 - start > width
                || !is_close(&metas[start..=end], span, config.merged_events)
            {
                start += 1;
            }
            (end + 1 - start == width).then_some(start..end + 1)
        })
    })
}

fn is_close(metas: &[Meta], span: i64, most: u64) -> bool {
    let first = metas.iter().map(|m| m.first_ingested.0).min().unwrap_or(0);
    let last = metas.iter().map(|m| m.last_ingested.0).max().unwrap_or(0);
    metas.len() < 2
        || (metas.iter().all(|m| m.format == metas[0].format)
            && last.saturating_sub(first) <= span
            && metas.iter().map(|m| m.events).sum::<u64>() <= most)
}

/// Keeps the index of findings until `ended`.
pub(crate) fn run_findings(shelf: &Shelf, ended: &dyn Fn() -> bool) -> Result<(), IndexError> {
    let mut failures = 0;
    let mut indexer = open(shelf, FindingIndexer::open, &mut failures, ended)?;
    while !ended() {
        match indexer.step() {
            Ok(true) => failures = 0,
            Ok(false) => {
                if let Err(error) = indexer.wait() {
                    retry(shelf, error, &mut failures, ended)?;
                }
            }
            Err(error) => {
                retry(shelf, error, &mut failures, ended)?;
                // The old writer holds the lock of the folder.
                drop(indexer);
                indexer = open(shelf, FindingIndexer::open, &mut failures, ended)?;
            }
        }
    }
    indexer.commit()
}

/// Reads findings from the bus into their index.
pub(crate) struct FindingIndexer<'s> {
    shelf: &'s Shelf,
    writer: FindingWriter,
    /// Partition, what is committed, what is read.
    partitions: Vec<(u32, Offset, Offset)>,
    since: Option<Time>,
    expired: Time,
}

impl<'s> FindingIndexer<'s> {
    pub(crate) fn open(shelf: &'s Shelf) -> Result<FindingIndexer<'s>, IndexError> {
        let dir = shelf.searcher.catalog().dir();
        let writer =
            FindingWriter::open(dir).map_err(|e| shelf.error("open the index of findings", e))?;
        let mut partitions = Vec::new();
        for partition in shelf.bus.assigned(CONSUMER, Topic::Findings)? {
            let start = match writer.position(partition) {
                Some(offset) => offset,
                None => shelf.bus.bounds(Topic::Findings, partition)?.start,
            };
            partitions.push((partition, start, start));
        }
        Ok(FindingIndexer {
            shelf,
            writer,
            partitions,
            since: None,
            expired: Time::MIN,
        })
    }

    /// Reads once from every partition and commits if it is time. Tells whether there was anything.
    pub(crate) fn step(&mut self) -> Result<bool, IndexError> {
        let shelf = self.shelf;
        let now = (shelf.clock)();
        let mut any = false;
        for (partition, _, next) in &mut self.partitions {
            let batch = match shelf.bus.read(Topic::Findings, *partition, *next, 1 << 20) {
                Err(BusError::OutOfRange { start, .. }) if start > *next => {
                    tracing::error!(
                        partition,
                        from = *next,
                        to = start,
                        "findings were dropped before they were indexed"
                    );
                    *next = start;
                    continue;
                }
                other => other?,
            };
            for (offset, record) in &batch.records {
                any = true;
                match serde_json::from_slice::<Finding>(&record.value) {
                    Ok(finding) => self
                        .writer
                        .put(&finding, &record.value, record.time)
                        .map_err(|e| shelf.error("index a finding", e))?,
                    Err(error) => {
                        tracing::error!(partition, offset, %error, "a record is no finding");
                        shelf.metrics.errors.with_label_values(&["decode"]).inc();
                    }
                }
            }
            *next = batch.next;
        }
        if any {
            self.since.get_or_insert(now);
        }
        let waited = self.since.map_or(0, |since| now.millis() - since.millis());
        if self.since.is_some() && waited >= shelf.config.publish_after_ms as i64 {
            self.commit()?;
        }
        Ok(any)
    }

    fn wait(&self) -> Result<(), IndexError> {
        let from: Vec<(u32, Offset)> = self.partitions.iter().map(|p| (p.0, p.2)).collect();
        self.shelf.bus.wait(Topic::Findings, &from, REST)?;
        Ok(())
    }

    /// Makes what was read durable and visible.
    pub(crate) fn commit(&mut self) -> Result<(), IndexError> {
        let shelf = self.shelf;
        if self.since.is_none() {
            return Ok(());
        }
        let failed = |e| shelf.error("commit findings", e);
        let limit = oldest(&shelf.config, 0, (shelf.clock)());
        // What a finding speaks of may lie anywhere in time: while there is a hold, none goes.
        if limit > self.expired.plus(DAY / 24) && shelf.holds.count() == 0 {
            self.writer.drop_before(limit).map_err(failed)?;
            self.expired = limit;
        }
        let positions: Vec<(u32, u64)> = self.partitions.iter().map(|p| (p.0, p.2)).collect();
        self.writer.commit(&positions).map_err(failed)?;
        let findings = shelf.searcher.catalog().findings().map_err(failed)?;
        if let Some(findings) = findings {
            findings.reload().map_err(failed)?;
        }
        self.since = None;
        // The position that counts is in the index; this one is for those who show the lag.
        let mut positions = Vec::new();
        for (partition, _, next) in &self.partitions {
            let from = match shelf.bus.position(CONSUMER, Topic::Findings, *partition)? {
                Some(offset) => offset,
                None => shelf.bus.bounds(Topic::Findings, *partition)?.start,
            };
            if from < *next {
                positions.push(Position {
                    topic: Topic::Findings,
                    partition: *partition,
                    from,
                    to: *next,
                });
            }
        }
        if !positions.is_empty() {
            shelf.bus.commit(Commit {
                consumer: CONSUMER.to_owned(),
                positions,
                ..Commit::default()
            })?;
        }
        for partition in &mut self.partitions {
            partition.1 = partition.2;
        }
        Ok(())
    }
}
