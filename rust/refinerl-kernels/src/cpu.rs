//! On the CPU: vectorised rows, shared out among threads.
//!
//! With z = scale·logits, p = softmax(z) and H = −Σ p·log p:
//!
//! ```text
//! nll = logsumexp(z) − z[target]        d nll/dz = p − onehot        dH/dz = −p·(log p + H)
//! ```
//!
//! Elements are float32, exponentials are summed in blocks of float32 and the blocks in float64. A logit may be −∞; a
//! row of nothing else, one with +∞ and one with NaN have NaN for their statistics, as in PyTorch.

mod row;
mod simd;
mod threads;

pub use row::{Slopes, Statistics};
pub use simd::Level;

use simd::Vectors;

/// Elements below which a thread of its own does not pay.
const ELEMENTS_PER_JOB: usize = 1 << 15;

/// How rows are computed: with which instructions, on how many threads.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue {
    vectors: Vectors,
    threads: usize,
}

impl Epilogue {
    /// # Panics
    /// If this processor lacks the level.
    pub fn new(level: Level, threads: usize) -> Self {
        Self {
            vectors: Vectors::new(level),
            threads,
        }
    }

    /// The statistics of rows of `vocabulary` logits each; one target below `vocabulary` for every row.
    ///
    /// # Panics
    /// If the lengths do not agree or a target lies outside.
    pub fn statistics(&self, logits: &[f32], vocabulary: usize, targets: &[i64], scale: f32) -> Vec<Statistics> {
        assert_eq!(logits.len(), targets.len() * vocabulary);
        let mut found = vec![Statistics::default(); targets.len()];
        let rows = rows_per_job(vocabulary);
        let jobs = logits
            .chunks(rows * vocabulary)
            .zip(targets.chunks(rows))
            .zip(found.chunks_mut(rows));
        threads::share(self.threads, jobs, |((logits, targets), found)| {
            for ((row, &target), found) in logits.chunks(vocabulary).zip(targets).zip(found) {
                *found = row::statistics(self.vectors, row, target as usize, scale);
            }
        });
        found
    }

    /// The statistics, and the gradient of Σ `slopes.nll`·nll + `slopes.entropy`·H with respect to the logits written
    /// over them. `slopes` has one member for each row.
    ///
    /// # Panics
    /// As `statistics`.
    pub fn fused(
        &self,
        logits: &mut [f32],
        vocabulary: usize,
        targets: &[i64],
        slopes: &[Slopes],
        scale: f32,
    ) -> Vec<Statistics> {
        assert_eq!(logits.len(), targets.len() * vocabulary);
        assert_eq!(slopes.len(), targets.len());
        let mut found = vec![Statistics::default(); targets.len()];
        let rows = rows_per_job(vocabulary);
        let inputs = targets.chunks(rows).zip(slopes.chunks(rows));
        let jobs = logits
            .chunks_mut(rows * vocabulary)
            .zip(inputs)
            .zip(found.chunks_mut(rows));
        threads::share(self.threads, jobs, |((logits, (targets, slopes)), found)| {
            let inputs = targets.iter().zip(slopes);
            for ((row, (&target, &slopes)), found) in logits.chunks_mut(vocabulary).zip(inputs).zip(found) {
                *found = row::fused(self.vectors, row, target as usize, slopes, scale);
            }
        });
        found
    }
}

fn rows_per_job(vocabulary: usize) -> usize {
    (ELEMENTS_PER_JOB / vocabulary.max(1)).max(1)
}
