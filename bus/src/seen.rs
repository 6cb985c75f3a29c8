//! Which events of a batch were seen before: the memory behind "nothing counts twice".
//!
//! Each consumer of `events` keeps, per partition, the ids that it has handled with a hash of their content, as keys
//! `seen/` + id of its state. [`filter`] compares a batch with that set and gives back the verdicts and the state
//! changes that the caller puts into the same [`crate::Commit`] as its outputs and positions: a crash in between
//! forgets both or neither. The same id with other content is a conflict; it is remembered under
//! [`event::Id::conflict`], so that its own redelivery is a repeat. An id is forgotten when `keep` has passed since
//! it was first seen. This module stores nothing itself.

use std::collections::HashMap;

use event::{Id, Time};

use crate::{Bus, BusError, StateChange};

/// What the seen-set says about one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not seen before.
    New,
    /// Seen with the same content: drop it.
    Repeat,
    /// The id was seen with other content: keep the event under [`Id::conflict`] and say so.
    Conflict,
}

/// Verdicts on `events` (id and content hash) in their order, and the changes to commit. Repeats within the call count
/// as repeats. `partition` is that of the topic `events` which the batch was read from, `keep` how long ids are
/// remembered.
pub fn filter(
    bus: &dyn Bus,
    consumer: &str,
    partition: u32,
    events: &[(Id, u64)],
    now: Time,
    keep: std::time::Duration,
) -> Result<(Vec<Seen>, Vec<StateChange>), BusError> {
    let mut known: HashMap<Id, u64> = HashMap::with_capacity(events.len());
    load(
        bus,
        consumer,
        partition,
        events.iter().map(|(id, _)| *id).collect(),
        &mut known,
    )?;
    // Only where the stored or an earlier content differs can the fallback id matter.
    let mut first: HashMap<Id, u64> = known.clone();
    let fallbacks: Vec<Id> = events
        .iter()
        .filter(|(id, hash)| *first.entry(*id).or_insert(*hash) != *hash)
        .map(|(id, hash)| id.conflict(*hash))
        .collect();
    load(bus, consumer, partition, fallbacks, &mut known)?;

    let expires = now.plus(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX));
    let mut changes = Vec::new();
    let mut remember = |known: &mut HashMap<Id, u64>, id: Id, hash: u64| {
        known.insert(id, hash);
        changes.push(StateChange {
            partition,
            key: key(id),
            value: Some(hash.to_le_bytes().to_vec()),
            expires: Some(expires),
        });
    };
    let verdicts = events
        .iter()
        .map(|&(id, hash)| match known.get(&id) {
            None => {
                remember(&mut known, id, hash);
                Seen::New
            }
            Some(seen) if *seen == hash => Seen::Repeat,
            Some(_) => {
                let fallback = id.conflict(hash);
                if known.contains_key(&fallback) {
                    Seen::Repeat
                } else {
                    remember(&mut known, fallback, hash);
                    Seen::Conflict
                }
            }
        })
        .collect();
    Ok((verdicts, changes))
}

fn load(
    bus: &dyn Bus,
    consumer: &str,
    partition: u32,
    mut ids: Vec<Id>,
    known: &mut HashMap<Id, u64>,
) -> Result<(), BusError> {
    if ids.is_empty() {
        return Ok(());
    }
    // In order of key, neighbours share pages of the store.
    ids.sort_unstable();
    ids.dedup();
    let keys: Vec<Vec<u8>> = ids.iter().map(|id| key(*id)).collect();
    for (id, value) in ids
        .into_iter()
        .zip(bus.state_get(consumer, partition, &keys)?)
    {
        if let Some(value) = value {
            let hash = value.as_slice().try_into().map_err(|_| {
                BusError::State(format!(
                    "the seen-set of {consumer} holds {} bytes for {id}, not 8",
                    value.len()
                ))
            })?;
            known.insert(id, u64::from_le_bytes(hash));
        }
    }
    Ok(())
}

fn key(id: Id) -> Vec<u8> {
    [b"seen/".as_slice(), &id.to_bytes()].concat()
}
