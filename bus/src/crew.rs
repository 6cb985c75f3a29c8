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

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Mutex;

    use event::Time;

    use super::*;
    use crate::{Batch, Commit, Entry, Record};

    /// A log of which only the assignment can be asked.
    #[derive(Default)]
    struct Assigning(Mutex<Vec<u32>>);

    fn away() -> BusError {
        BusError::Unavailable {
            action: "ask".into(),
            reason: "nobody is there".into(),
        }
    }

    impl Bus for Assigning {
        fn assigned(&self, _: &str, _: Topic) -> Result<Vec<u32>, BusError> {
            let assigned = self.0.lock().unwrap().clone();
            if assigned == [99] {
                Err(away())
            } else {
                Ok(assigned)
            }
        }
        fn wait(&self, _: Topic, from: &[(u32, Offset)], _: Duration) -> Result<bool, BusError> {
            match from {
                [] => Err(away()),
                [(7, _)] => Err(BusError::Refused("7".into())),
                _ => Ok(true),
            }
        }
        fn partitions(&self, _: Topic) -> u32 {
            0
        }
        fn append(&self, _: Topic, _: Vec<Record>) -> Result<(), BusError> {
            Err(away())
        }
        fn read(&self, _: Topic, _: u32, _: Offset, _: usize) -> Result<Batch, BusError> {
            Err(away())
        }
        fn bounds(&self, _: Topic, _: u32) -> Result<Range<Offset>, BusError> {
            Err(away())
        }
        fn commit(&self, _: Commit) -> Result<(), BusError> {
            Err(away())
        }
        fn position(&self, _: &str, _: Topic, _: u32) -> Result<Option<Offset>, BusError> {
            Err(away())
        }
        fn state_get(
            &self,
            _: &str,
            _: u32,
            _: &[Vec<u8>],
        ) -> Result<Vec<Option<Vec<u8>>>, BusError> {
            Err(away())
        }
        fn state_scan(&self, _: &str, _: u32, _: &[u8]) -> Result<Vec<Entry>, BusError> {
            Err(away())
        }
        fn retain(&self, _: Time) -> Result<(), BusError> {
            Err(away())
        }
    }

    /// What a round did: which workers were opened and which worked, the kinds of trouble, and what came of it.
    type Told = (
        Vec<u32>,
        Vec<u32>,
        Vec<&'static str>,
        Result<bool, BusError>,
    );

    /// A round in which the partitions in `failing` fail in this way.
    fn round(
        crew: &mut Crew<u32>,
        bus: &Assigning,
        failing: &[u32],
        error: fn() -> BusError,
    ) -> Told {
        let (mut opened, mut worked, mut trouble) = (Vec::new(), Vec::new(), Vec::new());
        let result = crew.round(
            bus,
            |partition| {
                opened.push(partition);
                Ok(partition)
            },
            |worker| {
                worked.push(*worker);
                if failing.contains(worker) {
                    return Err(error());
                }
                Ok(*worker == 2)
            },
            |error: &BusError| Some(error),
            |kind| trouble.push(kind),
        );
        (opened, worked, trouble, result)
    }

    #[test]
    fn workers_come_and_go_with_their_partitions() {
        let bus = Assigning::default();
        let mut crew = Crew::new("c", Topic::Events);
        let mut check = |assigned: &[u32], opened: &[u32], moved: bool| {
            *bus.0.lock().unwrap() = assigned.to_vec();
            let told = round(&mut crew, &bus, &[], away);
            let expected = (opened.to_vec(), assigned.to_vec(), vec![], Ok(moved));
            assert_eq!(
                (told.0, told.1, told.2, told.3.map_err(|e| e.to_string())),
                expected
            );
            let at: Vec<u32> = crew.workers().map(|(partition, _)| partition).collect();
            assert_eq!(at, assigned);
        };
        check(&[], &[], false);
        check(&[0, 1], &[0, 1], false);
        check(&[0, 1, 2], &[2], true);
        check(&[2], &[], true);
        // What was given up is begun anew when it comes back: another process may have worked on it.
        check(&[0, 2], &[0], true);
    }

    #[test]
    fn a_worker_that_failed_rests_and_is_opened_again_and_the_others_go_on() {
        let bus = Assigning(Mutex::new(vec![0, 2]));
        let mut crew = Crew::new("c", Topic::Events);
        let told = round(&mut crew, &bus, &[0], away);
        assert_eq!((told.1, told.2), (vec![0, 2], vec!["unavailable"]));
        assert!(told.3.unwrap(), "the other one had work");
        let told = round(&mut crew, &bus, &[], away);
        assert_eq!((told.0, told.1), (vec![], vec![2]), "0 rests");
        std::thread::sleep(REST);
        let told = round(&mut crew, &bus, &[], away);
        assert_eq!((told.0, told.1), (vec![0], vec![0, 2]));

        // Who was overtaken begins again at once.
        let fenced = || BusError::Fenced {
            consumer: "c".into(),
            topic: Topic::Events,
            partition: 0,
            from: 1,
            stored: 2,
        };
        let told = round(&mut crew, &bus, &[0], fenced);
        assert_eq!(told.2, ["fenced"]);
        let told = round(&mut crew, &bus, &[], away);
        assert_eq!(told.0, [0]);

        // What waiting does not mend is handed on.
        let told = round(&mut crew, &bus, &[0], || BusError::Refused("no".into()));
        assert!(matches!(told.3, Err(BusError::Refused(_))));
    }

    #[test]
    fn brokers_that_are_away_stop_nobody() {
        let bus = Assigning(Mutex::new(vec![1]));
        let mut crew = Crew::new("c", Topic::Events);
        round(&mut crew, &bus, &[], away).3.unwrap();
        *bus.0.lock().unwrap() = vec![99];
        let told = round(&mut crew, &bus, &[], away);
        assert_eq!((told.1, told.2), (vec![], vec!["unavailable"]));
        assert!(!told.3.unwrap());
        assert_eq!(crew.workers().count(), 1, "nobody has taken it away");

        let mut trouble = Vec::new();
        let mut wait = |crew: &Crew<u32>| {
            let next = |_: &u32| 0;
            crew.wait(&bus, next, Duration::ZERO, |kind| trouble.push(kind))
        };
        wait(&crew).unwrap();
        wait(&Crew::new("c", Topic::Events)).unwrap();
        let mut seven = Crew::new("c", Topic::Events);
        seven.workers.insert(7, 7);
        assert!(wait(&seven).is_err());
        assert_eq!(trouble, ["unavailable"]);
    }
}
