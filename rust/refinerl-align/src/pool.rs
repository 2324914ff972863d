//! Aligners that wait for the next batch: their buffers are ready, where new ones would have to be mapped and zeroed.

use std::sync::Mutex;

use crate::pair::Aligner;

/// Aligners that nobody uses.
pub(crate) struct Pool {
    waiting: Mutex<Vec<Aligner>>,
    /// Bytes of an aligner that may wait.
    most: usize,
    /// Bytes of all that wait.
    most_in_all: usize,
}

/// The aligners of this process. One that has aligned pairs of up to 4096 tokens a side takes less than 12 MiB.
pub(crate) static POOL: Pool = Pool::new(12 << 20, 32 << 20);

impl Pool {
    const fn new(most: usize, most_in_all: usize) -> Self {
        Self {
            waiting: Mutex::new(Vec::new()),
            most,
            most_in_all,
        }
    }

    /// Do some work with an aligner: with one that waits, or else a new one.
    ///
    /// If the work panics, the aligner is dropped.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Aligner) -> R) -> R {
        // A lock is never waited for: the process may have been forked while another thread held it.
        let waiting = self.waiting.try_lock().ok().and_then(|mut waiting| waiting.pop());
        let mut aligner = waiting.unwrap_or_default();
        let result = work(&mut aligner);
        self.put(aligner);
        result
    }

    fn put(&self, aligner: Aligner) {
        let size = aligner.size();
        let Ok(mut waiting) = self.waiting.try_lock() else {
            return;
        };
        let others = waiting.iter().map(Aligner::size).sum::<usize>();
        if size <= self.most && size + others <= self.most_in_all {
            waiting.push(aligner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Aligner, Pool, POOL};

    /// Two sequences that have little in common but their few different tokens.
    fn unlike(length: u32, different: u32) -> [Vec<i32>; 2] {
        let mut state = 1u32;
        [(); 2].map(|()| {
            let tokens = (0..length).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((state >> 8) % different) as i32
            });
            tokens.collect()
        })
    }

    fn sizes(pool: &Pool) -> Vec<usize> {
        pool.waiting.lock().unwrap().iter().map(Aligner::size).collect()
    }

    /// Use so many aligners at the same time.
    fn together(pool: &Pool, aligners: usize, a: &[i32], b: &[i32]) {
        pool.with(|aligner| {
            aligner.align(a, b);
            if aligners > 1 {
                together(pool, aligners - 1, a, b);
            }
        });
    }

    #[test]
    fn an_aligner_is_used_again() {
        let pool = Pool::new(POOL.most, POOL.most_in_all);
        for (length, different) in [(4096, 200), (4, 3), (4096, 2000), (4095, 4), (1024, 50_000)] {
            let [a, b] = unlike(length, different);
            pool.with(|aligner| aligner.align(&a, &b));
            // Of its buffers that for rows alone takes 2 MiB.
            assert!(matches!(sizes(&pool)[..], [size] if size > 2 << 20 && size <= pool.most));
        }
    }

    #[test]
    fn a_large_aligner_does_not_wait() {
        let [a, b] = unlike(1024, 200);
        let pool = Pool::new(1 << 30, 1 << 30);
        together(&pool, 1, &a, &b);
        let size = sizes(&pool)[0];
        for (most, waits) in [(size, true), (size - 1, false)] {
            let pool = Pool::new(most, 1 << 30);
            together(&pool, 1, &a, &b);
            assert_eq!(sizes(&pool).len(), usize::from(waits));
        }
    }

    #[test]
    fn few_aligners_wait() {
        let [a, b] = unlike(256, 200);
        let pool = Pool::new(1 << 30, 1 << 20);
        together(&pool, 100, &a, &b);
        let sizes = sizes(&pool);
        let all: usize = sizes.iter().sum();
        assert!(sizes.len() > 1 && all <= pool.most_in_all && all + sizes[0] > pool.most_in_all);
    }

    #[test]
    fn a_locked_pool_is_not_waited_for() {
        let pool = Pool::new(1 << 30, 1 << 30);
        let locked = pool.waiting.lock().unwrap();
        together(&pool, 2, &[1, 2, 3], &[3, 2, 1]);
        assert!(locked.is_empty());
    }
}
