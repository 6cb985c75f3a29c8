//! Objects that become durable together.
//!
//! A small object costs little but the two writes that make it durable: its events, and then its entry in the manifest,
//! each with an fsync. [`Group`] shares them: whoever comes while others are being written waits for the next turn, in
//! which all that waits is one append and one commit. An object alone waits for nobody. It is told that it is durable
//! only after both writes; where one fails, all objects of the turn are told so and are read again, which the ids of
//! their events make harmless. What waits is bounded in bytes: [`Group::room`] is asked before an object may wait, while
//! its source still counts it among those that it reads, so that a slow disk slows reading down.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::{Bus, BusError, Commit, StateChange};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::block_in_place;

use crate::append::{self, BATCH_BYTES, Rest};
use crate::metrics::Metrics;

/// So much may wait, in KiB.
const ROOM: u32 = 32 << 10;

/// Shares writes among the objects of one source.
pub(super) struct Group {
    bus: Arc<dyn Bus>,
    metrics: Metrics,
    /// For which consumer entries are committed.
    consumer: &'static str,
    /// What stands for the source in metrics.
    source: &'static str,
    room: Arc<Semaphore>,
    waiting: Mutex<VecDeque<Waiting>>,
    /// Held by whoever writes.
    turn: tokio::sync::Mutex<()>,
}

/// One object.
struct Waiting {
    rest: Rest,
    entry: Option<StateChange>,
    told: oneshot::Sender<Result<(), Arc<BusError>>>,
    _room: OwnedSemaphorePermit,
}

/// Why an object is not durable.
#[derive(Debug)]
pub(super) enum NotDurable {
    /// The log failed.
    Bus(Arc<BusError>),
    /// Whoever wrote did not come to an end.
    Panicked,
}

impl Group {
    /// Entries are those of `consumer`, events are counted as those of `source`.
    pub(super) fn new(
        bus: Arc<dyn Bus>,
        metrics: Metrics,
        consumer: &'static str,
        source: &'static str,
    ) -> Group {
        Group {
            bus,
            metrics,
            consumer,
            source,
            room: Arc::new(Semaphore::new(ROOM as usize)),
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Waits until there is room for what is left of an object.
    pub(super) async fn room(&self, rest: &Rest) -> OwnedSemaphorePermit {
        let kib = u32::try_from(rest.bytes() >> 10).unwrap_or(ROOM);
        let room = Arc::clone(&self.room);
        let some = room.acquire_many_owned((kib + 1).min(ROOM)).await;
        some.expect("nobody closes it")
    }

    /// Makes what is left of an object durable, and then its entry, with whatever else waits. On `Ok` both are.
    pub(super) async fn write(
        &self,
        rest: Rest,
        entry: Option<StateChange>,
        room: OwnedSemaphorePermit,
    ) -> Result<(), NotDurable> {
        let (told, mut asked) = oneshot::channel();
        self.waiting().push_back(Waiting {
            rest,
            entry,
            told,
            _room: room,
        });
        loop {
            let turn = self.turn.lock().await;
            match asked.try_recv() {
                Ok(written) => return written.map_err(NotDurable::Bus),
                Err(oneshot::error::TryRecvError::Closed) => return Err(NotDurable::Panicked),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let some = self.some();
            block_in_place(|| self.write_all(some));
            drop(turn);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        // Nothing is left half done under this lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that came first, as many as make a batch.
    fn some(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting();
        let mut bytes = 0;
        let mut some = Vec::new();
        while bytes < BATCH_BYTES
            && let Some(next) = waiting.pop_front()
        {
            bytes += next.rest.bytes();
            some.push(next);
        }
        some
    }

    /// Writes these objects, and tells each how it went.
    fn write_all(&self, all: Vec<Waiting>) {
        let (mut rests, mut state, mut tell) = (Vec::new(), Vec::new(), Vec::new());
        for Waiting {
            rest,
            entry,
            told,
            _room: room,
        } in all
        {
            rests.push(rest);
            state.extend(entry);
            tell.push((told, room));
        }
        let written = append::append(&*self.bus, &self.metrics, self.source, rests)
            .and_then(|()| self.commit(state))
            .map_err(Arc::new);
        for (told, _room) in tell {
            // Whoever does not wait any more has its object read again.
            let _ = told.send(written.clone());
        }
    }

    fn commit(&self, state: Vec<StateChange>) -> Result<(), BusError> {
        if state.is_empty() {
            return Ok(());
        }
        self.bus.commit(Commit {
            consumer: self.consumer.to_owned(),
            state,
            ..Commit::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::time::Duration;

    use bus::Topic;
    use event::{Event, Time};

    use super::*;
    use crate::append::Appender;
    use crate::dead_letter::DeadLetter;
    use crate::decode::{Bad, Reason};
    use crate::source::files::tests::{Dying, shop};

    const CONSUMER: &str = "ingest/objects";
    const OBJECTS: usize = 20;

    fn key(n: usize) -> Vec<u8> {
        format!("object/{n}").into_bytes()
    }

    /// An event and, of every other object, a dead letter.
    fn rest(shop: &crate::source::object::Shop, n: usize) -> Rest {
        let mut appender = Appender::new(&*shop.bus, &shop.metrics, &shop.treatment, "s3");
        let event = Event {
            id: event::Id(n as u128),
            time: Time(1),
            ingest_time: Time(1),
            ..Event::default()
        };
        assert_eq!(
            appender.event(&append::ready_for_tests(event)),
            ControlFlow::Continue(())
        );
        if n.is_multiple_of(2) {
            let bad = Bad::whole(Reason::BadJson, "x", b"x");
            let _ = appender.letter(DeadLetter::of(&bad, "s3://b/k", Time(1)));
        }
        appender.rest().unwrap().0
    }

    /// Has all objects wait before the first is written; gives how many were told that they are durable.
    async fn written(dying: &Arc<Dying>) -> usize {
        let shop = shop(Arc::clone(dying), Time(1));
        let bus: Arc<dyn Bus> = Arc::clone(dying) as _;
        let group = Arc::new(Group::new(bus, shop.metrics.clone(), CONSUMER, "s3"));
        let turn = group.turn.lock().await;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..OBJECTS {
            let (group, rest) = (Arc::clone(&group), rest(&shop, n));
            tasks.spawn(async move {
                let entry = StateChange {
                    partition: 0,
                    key: key(n),
                    value: Some(b"read".to_vec()),
                    expires: None,
                };
                let room = group.room(&rest).await;
                group.write(rest, Some(entry), room).await
            });
        }
        while group.waiting().len() < OBJECTS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(turn);
        let outcomes = tasks.join_all().await;
        assert_eq!(group.room.available_permits(), ROOM as usize);
        outcomes.iter().filter(|o| o.is_ok()).count()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_waits_is_one_append_and_one_commit_or_nothing_is_said_to_be_durable() {
        // Events, dead letters and the manifest: three writes for twenty objects.
        for writes in 0..=3 {
            let folder = tempfile::tempdir().unwrap();
            let dying = Dying::after(folder.path(), writes);
            // A second turn must not save what the first has lost.
            let durable = written(&dying).await;
            assert_eq!(durable, if writes == 3 { OBJECTS } else { 0 }, "{writes}");
            let keys: Vec<Vec<u8>> = (0..OBJECTS).map(key).collect();
            let known = dying.state_get(CONSUMER, 0, &keys).unwrap();
            assert_eq!(known.iter().flatten().count(), durable, "{writes}");
            let ends = |topic| dying.ends(topic).unwrap().into_iter().sum::<u64>();
            assert_eq!(
                ends(Topic::Events),
                if writes > 0 { OBJECTS as u64 } else { 0 }
            );
            assert_eq!(
                ends(Topic::DeadLetters),
                if writes > 1 { OBJECTS as u64 / 2 } else { 0 }
            );
        }
    }
}
