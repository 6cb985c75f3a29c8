//! What each partition holds, and the bell that rings when it grows.
//!
//! The one place that says which offsets readers may see: the writers of both stores publish here after their fsync
//! and never before, so nobody acts on a record that a power cut could take back. [`Ends::wait`] sleeps until then.

use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::group::lock;
use crate::config::Partitions;
use crate::{BusError, Offset, Topic};

/// First and next offset of every partition.
#[derive(Debug)]
pub(crate) struct Ends {
    bounds: Mutex<Vec<Vec<Range<Offset>>>>,
    grown: Condvar,
}

impl Ends {
    pub(crate) fn new(partitions: &Partitions) -> Ends {
        let bounds = Topic::ALL
            .iter()
            .map(|topic| vec![0..0; partitions.of(*topic) as usize])
            .collect();
        Ends {
            bounds: Mutex::new(bounds),
            grown: Condvar::new(),
        }
    }

    pub(crate) fn get(&self, topic: Topic, partition: u32) -> Result<Range<Offset>, BusError> {
        lock(&self.bounds)[topic as usize]
            .get(partition as usize)
            .cloned()
            .ok_or_else(|| no_such_partition(topic, partition))
    }

    /// Publishes the bounds of several partitions at once.
    pub(crate) fn set(&self, changes: impl IntoIterator<Item = (Topic, u32, Range<Offset>)>) {
        let mut bounds = lock(&self.bounds);
        for (topic, partition, range) in changes {
            bounds[topic as usize][partition as usize] = range;
        }
        drop(bounds);
        self.grown.notify_all();
    }

    pub(crate) fn wait(
        &self,
        topic: Topic,
        from: &[(u32, Offset)],
        timeout: Duration,
    ) -> Result<bool, BusError> {
        let bounds = lock(&self.bounds);
        if let Some((partition, _)) = from
            .iter()
            .find(|(partition, _)| *partition as usize >= bounds[topic as usize].len())
        {
            return Err(no_such_partition(topic, *partition));
        }
        let nothing = |bounds: &mut Vec<Vec<Range<Offset>>>| {
            from.iter().all(|(partition, offset)| {
                bounds[topic as usize][*partition as usize].end <= *offset
            })
        };
        let (bounds, waited) = self
            .grown
            .wait_timeout_while(bounds, timeout, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        drop(bounds);
        Ok(!waited.timed_out())
    }
}

fn no_such_partition(topic: Topic, partition: u32) -> BusError {
    BusError::Refused(format!("{} has no partition {partition}", topic.as_str()))
}
