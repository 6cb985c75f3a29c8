//! Who goes first where the cores are busy: detection, then searches, then merging.

/// How far a thread steps back that answers a search: to a ninth of the share of one that does not.
pub const SEARCH: i32 = 10;
/// How far the thread steps back that merges and removes: to a thirtieth.
pub(crate) const MERGE: i32 = 15;

/// Gives the others of this process the cores first, as long as this thread lives; `nice` is one of [`SEARCH`] and
/// [`MERGE`]. On Linux a priority is that of one thread; elsewhere it would be that of the whole process, so there is
/// none.
pub fn step_back(nice: i32) {
    use rustix::process::{getpriority_process, setpriority_process};
    if !cfg!(target_os = "linux") {
        return;
    }
    let done = getpriority_process(None).and_then(|now| setpriority_process(None, now.max(nice)));
    if let Err(error) = done {
        tracing::debug!(%error, nice, "a thread has the same priority as all others");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_itself_steps_back() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let inside = std::thread::spawn(move || {
            step_back(MERGE);
            // What it starts steps back too: tantivy compresses on a thread of its own.
            (nice(), std::thread::spawn(nice).join().unwrap())
        });
        let expected = MERGE.max(before);
        assert_eq!(inside.join().unwrap(), (expected, expected));
        assert_eq!(nice(), before);
    }
}
