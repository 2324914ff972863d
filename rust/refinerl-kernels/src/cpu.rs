//! Attention over trees, and the epilogue of the cross-entropy on the CPU: vectorised rows, shared out among threads.
//!
//! Of the epilogue, with z = scale·logits, p = softmax(z) and H = −Σ p·log p:
//!
//! ```text
//! nll = logsumexp(z) − z[target]        d nll/dz = p − onehot        dH/dz = −p·(log p + H)
//! ```
//!
//! Elements are float32. Exponentials are summed in float32 within a block, and in float64 over the blocks. A logit may
//! be −∞. A row of only −∞, with +∞ or with NaN has NaN for its statistics, as in PyTorch.

mod attention;
mod row;
mod simd;
mod threads;

pub use attention::{Attention, Gradients, Heads, Inputs, Real, Tree};
pub use row::{Slopes, Statistics};
pub use simd::Level;

use simd::Vectors;

/// Elements below which another thread does not pay.
const ELEMENTS_PER_JOB: usize = 1 << 15;

/// The computation of rows at a level of SIMD, on a number of threads.
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

    /// Compute the statistics of rows of `vocabulary` logits each; every row has one target below `vocabulary`.
    ///
    /// # Panics
    /// If the lengths do not agree or a target is out of range.
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

    /// Compute the statistics, and overwrite the logits with the gradient of Σ `slopes.nll`·nll + `slopes.entropy`·H.
    /// `slopes` has one item for each row.
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
