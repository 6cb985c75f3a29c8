//! The workers of a stage: one for each partition that is this process's at the moment.
//!
//! A stage of the pipeline has a worker a partition, at its place in the log. [`Crew`] opens workers for partitions
//! that come, drops those of partitions that go, lets each make a round, and opens one anew after an error that may
//! pass: a full disk, brokers that are away, another process that was first. What a worker does is the stage's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::{Bus, BusError, Offset, Topic};

/// How long a worker rests after an error that may pass.
const REST: Duration = Duration::from_millis(500);

/// How often the same trouble is said again.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Workers by partition.
#[derive(Debug)]
pub struct Crew<W> {
    consumer: &'static str,
    topic: Topic,
    workers: BTreeMap<u32, W>,
    resting: BTreeMap<u32, Instant>,
    said: Option<Instant>,
}

impl<W> Crew<W> {
    /// Nobody yet.
    pub fn new(consumer: &'static str, topic: Topic) -> Crew<W> {
        Crew {
            consumer,
            topic,
            workers: BTreeMap::new(),
            resting: BTreeMap::new(),
            said: None,
        }
    }

    /// The workers at their partitions.
    pub fn workers(&self) -> impl Iterator<Item = (u32, &W)> {
        self.workers.iter().map(|(p, w)| (*p, w))
    }

    /// All workers, to change something about them.
    pub fn workers_mut(&mut self) -> impl Iterator<Item = &mut W> {
        self.workers.values_mut()
    }

    /// Opens and drops workers as partitions have come and gone, and lets each make a round. Tells whether any of them
    /// had something to do. `trouble` is told the kind of every error that may pass.
    ///
    /// # Errors
    /// What `open` or `round` failed with, where `cause` finds no error of the log that may pass.
    pub fn round<E>(
        &mut self,
        bus: &dyn Bus,
        mut open: impl FnMut(u32) -> Result<W, E>,
        mut round: impl FnMut(&mut W) -> Result<bool, E>,
        cause: impl Fn(&E) -> Option<&BusError>,
        mut trouble: impl FnMut(&'static str),
    ) -> Result<bool, E>
    where
        E: From<BusError>,
    {
        let assigned = match bus.assigned(self.consumer, self.topic) {
            Ok(assigned) => assigned,
            Err(error) if error.is_transient() => {
                trouble(error.kind());
                self.say(None, &error);
                std::thread::sleep(REST);
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        self.workers.retain(|p, _| assigned.contains(p));
        self.resting.retain(|p, _| assigned.contains(p));
        let mut moved = false;
        for partition in assigned {
            if let Some(since) = self.resting.get(&partition) {
                if since.elapsed() < REST {
                    continue;
                }
                self.resting.remove(&partition);
            }
            let worked = match self.workers.get_mut(&partition) {
                Some(worker) => round(worker),
                None => open(partition).and_then(|mut worker| {
                    let worked = round(&mut worker);
                    self.workers.insert(partition, worker);
                    worked
                }),
            };
            match worked {
                Ok(had_work) => moved |= had_work,
                Err(error) => {
                    let Some(passing) = cause(&error).filter(|e| e.is_transient()) else {
                        return Err(error);
                    };
                    trouble(passing.kind());
                    self.say(Some(partition), passing);
                    self.workers.remove(&partition);
                    if !matches!(passing, BusError::Fenced { .. }) {
                        self.resting.insert(partition, Instant::now());
                    }
                }
            }
        }
        Ok(moved)
    }

    /// Waits until there is something for one of the workers, each of which stands at `next`, or `timeout` has passed.
    /// `trouble` is told the kind of an error that may pass.
    ///
    /// # Errors
    /// The log failed in a way that waiting does not mend.
    pub fn wait(
        &self,
        bus: &dyn Bus,
        next: impl Fn(&W) -> Offset,
        timeout: Duration,
        mut trouble: impl FnMut(&'static str),
    ) -> Result<(), BusError> {
        let from: Vec<(u32, Offset)> = self.workers().map(|(p, w)| (p, next(w))).collect();
        match bus.wait(self.topic, &from, timeout) {
            Err(error) if error.is_transient() => trouble(error.kind()),
            waited => drop(waited?),
        }
        Ok(())
    }

    fn say(&mut self, partition: Option<u32>, error: &BusError) {
        if let BusError::Fenced { .. } = error {
            // The other one has done the work: everyday when partitions move.
            tracing::info!(stage = self.consumer, partition, %error, "begins again at the last commit");
            return;
        }
        if self.said.is_none_or(|said| said.elapsed() > SAY_AGAIN) {
            self.said = Some(Instant::now());
            tracing::error!(stage = self.consumer, partition, %error, "waits and tries again");
        }
    }
}
