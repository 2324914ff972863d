//! This process out of the sight of others of its user, while programs run that nothing else keeps from looking.

use std::sync::{Mutex, PoisonError};

use rustix::process::{dumpable_behavior, set_dumpable_behavior, DumpableBehavior};

/// How many batches run, and what to go back to after the last.
static BATCHES: Mutex<(usize, Option<DumpableBehavior>)> = Mutex::new((0, None));

/// Until it is dropped, /proc/<this>/mem and its like, ptrace and core files are root's alone.
pub struct Hidden(());

impl Hidden {
    /// Begin.
    pub fn new() -> Hidden {
        let mut batches = BATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        if batches.0 == 0 {
            batches.1 = dumpable_behavior().ok();
            // It cannot fail: there is such a call, and this is one of its values.
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
        // What only the kernel may set is not to be had back, and stays as it is.
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
