//! Several objects at a time: reading one is mostly waiting for a disk or a network, and then hashing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{Job, VerifyError};

/// Does the work for every item, by [`Job::workers`], and gives what came of each in the order of the items. After the
/// first error no further item is begun.
pub(super) fn parallel<T: Sync, R: Send>(
    job: &Job<'_>,
    items: &[T],
    work: impl Fn(&T) -> Result<R, VerifyError> + Sync,
) -> Result<Vec<R>, VerifyError> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let worker = || {
        while let Some((at, item)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            items.get(at).map(|item| (at, item))
        } {
            if failed.load(Ordering::Relaxed) {
                return;
            }
            let result = work(item);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            (job.seen)();
            let mut done = done.lock().unwrap_or_else(|e| e.into_inner());
            done.push((at, result));
        }
    };
    std::thread::scope(|threads| {
        for _ in 0..job.workers.max(1).min(items.len()) {
            threads.spawn(worker);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
