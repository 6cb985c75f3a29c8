//! Holding a folder, so that only one process uses it.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

/// How long to wait for whoever holds it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Locks the file of a folder. Somebody else may hold it for a moment more: a process that is just ending, or a child
/// that was just started and has not let go yet of what its parent had open.
///
/// # Errors
/// Somebody else holds it, still after a second; or the system cannot lock it.
pub(crate) fn hold(file: &File) -> Result<(), TryLockError> {
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}
