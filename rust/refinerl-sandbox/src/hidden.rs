//! Hiding this process from other processes of its user, while programs run that nothing else keeps from reading it.

use std::sync::{Mutex, PoisonError};

use rustix::process::{dumpable_behavior, set_dumpable_behavior, DumpableBehavior};

/// Number of running batches, and the setting to restore after the last one.
static BATCHES: Mutex<(usize, Option<DumpableBehavior>)> = Mutex::new((0, None));

/// A guard: until it is dropped, only root can use /proc/<this>/mem and the like, ptrace and core files.
pub struct Hidden(());

impl Hidden {
    /// Hide the process.
    pub fn new() -> Hidden {
        let mut batches = BATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        if batches.0 == 0 {
            batches.1 = dumpable_behavior().ok();
            // It cannot fail: the call exists, and this is one of its values.
            let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        }
        batches.0 += 1;
        Hidden(())
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let mut batches = BATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        batches.0 -= 1;
        // A value that only the kernel may set cannot be restored.
        if batches.0 == 0 {
            let _ = batches.1.take().map(set_dumpable_behavior);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_batch_shows_the_process_again() {
        let before = dumpable_behavior().unwrap();
        let (first, second) = (Hidden::new(), Hidden::new());
        drop(first);
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        drop(second);
        assert_eq!(dumpable_behavior().unwrap(), before);
    }
}
