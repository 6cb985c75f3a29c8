//! Group commit: callers that arrive while one of them writes are written together by the next.
//!
//! A [`Group`] owns a writer. [`Group::submit`] queues a job; if nobody is writing, the caller takes all queued jobs
//! and runs `flush` on them, else it sleeps until another caller has done its job. So one caller alone never waits,
//! and a hundred callers share one fsync. The queue holds at most one job per calling thread, which bounds it. If a
//! flush panics, nobody knows what reached the disk: every later submit gives `None`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A writer of type `W`, shared by jobs `J` that end in `R`.
pub(super) struct Group<W, J, R> {
    writer: Mutex<W>,
    queue: Mutex<Queue<J, R>>,
    changed: Condvar,
}

struct Queue<J, R> {
    next: u64,
    jobs: Vec<(u64, J)>,
    done: BTreeMap<u64, R>,
    flushing: bool,
    broken: bool,
}

impl<W, J, R> Group<W, J, R> {
    pub(super) fn new(writer: W) -> Group<W, J, R> {
        Group {
            writer: Mutex::new(writer),
            queue: Mutex::new(Queue {
                next: 0,
                jobs: Vec::new(),
                done: BTreeMap::new(),
                flushing: false,
                broken: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Has `job` done by this or another caller's `flush`, which gives one result per job, in order.
    pub(super) fn submit(&self, job: J, flush: impl FnOnce(&mut W, Vec<J>) -> Vec<R>) -> Option<R> {
        let mut queue = lock(&self.queue);
        let ticket = queue.next;
        queue.next += 1;
        queue.jobs.push((ticket, job));
        while queue.flushing && !queue.done.contains_key(&ticket) && !queue.broken {
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(result) = queue.done.remove(&ticket) {
            return Some(result);
        }
        if queue.broken {
            return None;
        }
        queue.flushing = true;
        let (tickets, jobs): (Vec<u64>, Vec<J>) =
            std::mem::take(&mut queue.jobs).into_iter().unzip();
        drop(queue);

        let mut turn = Turn {
            group: self,
            done: None,
        };
        let results = flush(&mut *self.writer.lock().ok()?, jobs);
        turn.done = Some(tickets.into_iter().zip(results).collect());
        drop(turn);
        lock(&self.queue).done.remove(&ticket)
    }

    /// Uses the writer between two flushes. `None` after a panic of another user.
    pub(super) fn exclusive<T>(&self, work: impl FnOnce(&mut W) -> T) -> Option<T> {
        Some(work(&mut *self.writer.lock().ok()?))
    }
}

/// Ends a caller's turn also when its flush panicked: the others must not wait for ever.
struct Turn<'a, W, J, R> {
    group: &'a Group<W, J, R>,
    done: Option<BTreeMap<u64, R>>,
}

impl<W, J, R> Drop for Turn<'_, W, J, R> {
    fn drop(&mut self) {
        let mut queue = lock(&self.group.queue);
        queue.flushing = false;
        match self.done.take() {
            Some(mut done) => queue.done.append(&mut done),
            None => queue.broken = true,
        }
        self.group.changed.notify_all();
    }
}

impl<W, J, R> fmt::Debug for Group<W, J, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

/// Locks data that no panic can leave half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn callers_that_wait_are_flushed_together() {
        let group: Group<Vec<usize>, u32, u32> = Group::new(Vec::new());
        let (first_is_in, go_on) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let doubled = group.submit(1, |sizes, jobs| {
                    first_is_in.wait();
                    go_on.wait();
                    sizes.push(jobs.len());
                    jobs.iter().map(|j| j * 2).collect()
                });
                assert_eq!(doubled, Some(2));
            });
            first_is_in.wait();
            for n in 2..10 {
                let group = &group;
                scope.spawn(move || {
                    let doubled = group.submit(n, |sizes, jobs| {
                        sizes.push(jobs.len());
                        jobs.iter().map(|j| j * 2).collect()
                    });
                    assert_eq!(doubled, Some(n * 2));
                });
            }
            while lock(&group.queue).jobs.len() < 8 {
                std::thread::yield_now();
            }
            go_on.wait();
        });
        assert_eq!(group.exclusive(|sizes| sizes.clone()), Some(vec![1, 8]));
    }

    #[test]
    fn after_a_panic_nobody_writes() {
        let group: Group<(), u32, u32> = Group::new(());
        std::thread::scope(|scope| {
            let panicked = scope
                .spawn(|| group.submit(1, |(), _| panic!("as the test wants")))
                .join();
            assert!(panicked.is_err());
        });
        assert_eq!(group.submit(2, |(), jobs| jobs), None);
    }
}
