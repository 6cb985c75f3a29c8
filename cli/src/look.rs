//! Files that are looked at again and again while the service runs: rules, and the inventory.
//!
//! [`again`] is the loop, which ends with the service: it looks every so often, and at once when somebody asks by SIGHUP or
//! through the API. [`settled`] gives a file that is being written to time to come to rest. What becomes of a change is
//! the caller's business.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bus::Stop;

/// How long files must stay as they are before they are loaded.
const SETTLE: Duration = Duration::from_millis(300);

/// So often they are looked at until then: somebody who never stops writing is met with what is there.
const LOOKS: usize = 10;

/// How often to look whether somebody asked.
const PATIENCE: Duration = Duration::from_millis(200);

/// Calls `look` every so often until told to stop, and soon after `asked` was set, which it is told; only then if `every`
/// is zero.
pub(crate) fn again(every: Duration, asked: &AtomicBool, stop: &Stop, mut look: impl FnMut(bool)) {
    let mut slept = Duration::ZERO;
    while !stop.is_stopped() {
        let asked = asked.swap(false, Ordering::SeqCst);
        if asked || (!every.is_zero() && slept >= every) {
            slept = Duration::ZERO;
            look(asked);
        }
        std::thread::sleep(PATIENCE);
        slept += PATIENCE;
    }
}

/// What `read` gives, with a hash of it: as it was `seen` before, or as two looks in a row saw it.
pub(crate) fn settled<T>(seen: u64, read: impl Fn() -> (u64, T)) -> (u64, T) {
    let mut last = read();
    for _ in 0..LOOKS {
        if last.0 == seen {
            break;
        }
        std::thread::sleep(SETTLE);
        let before = std::mem::replace(&mut last, read()).0;
        if last.0 == before {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_file_is_read_when_it_has_come_to_rest() {
        let check = |seen: u64, contents: &[u64], expected: u64, looks: usize| {
            let rest = RefCell::new(contents.iter().copied());
            let read = || (rest.borrow_mut().next().unwrap(), ());
            assert_eq!(settled(seen, read).0, expected, "{contents:?}");
            assert_eq!(contents.len() - rest.borrow().len(), looks, "{contents:?}");
        };
        check(1, &[1, 2], 1, 1);
        check(1, &[2, 2, 3], 2, 2);
        check(1, &[2, 3, 3, 4], 3, 3);
        check(1, &[2, 1, 3], 1, 2);
    }

    #[test]
    fn who_asks_is_heard() {
        let (stop, asked) = (Stop::default(), AtomicBool::new(true));
        let mut told = Vec::new();
        again(Duration::ZERO, &asked, &stop, |asked| {
            told.push(asked);
            stop.stop();
        });
        assert_eq!(told, [true]);
        assert!(!asked.load(Ordering::SeqCst));
    }
}
