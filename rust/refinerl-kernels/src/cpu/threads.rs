//! Distribution of jobs among threads that live as long as the call.
//!
//! No pool outlives a call. Between calls the caller's own threads (those of its matrix products) have the cores, and a
//! process that forks does not inherit a pool whose threads are gone. Starting a thread costs some ten microseconds,
//! and a chunk of logits takes milliseconds.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// Run `work` on every job, on at most `threads` threads, the caller's included. A free thread takes the next job.
///
/// # Panics
/// If a job does.
pub(super) fn share<J>(threads: usize, jobs: impl ExactSizeIterator<Item = J> + Send, work: impl Fn(J) + Sync) {
    let helpers = threads.min(jobs.len()).saturating_sub(1);
    let jobs = Mutex::new(jobs);
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    let toil = || {
        while let Some(job) = next() {
            work(job);
        }
    };
    thread::scope(|scope| {
        for _ in 0..helpers {
            // If the system refuses a thread, the others do its share.
            if thread::Builder::new().spawn_scoped(scope, toil).is_err() {
                break;
            }
        }
        toil();
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::share;

    #[test]
    fn every_job_is_done_once() {
        for threads in [0, 1, 3, 64] {
            let mut done = vec![0; 100];
            share(threads, done.iter_mut(), |job| *job += 1);
            assert_eq!(done, vec![1; 100]);
        }
    }

    #[test]
    fn no_more_threads_than_asked_for() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        share(3, 0..200, |_| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            running.fetch_sub(1, Ordering::SeqCst);
        });
        assert!((1..=3).contains(&most.into_inner()));
    }
}
