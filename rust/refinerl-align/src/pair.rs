//! Alignment of one pair: trim the common ends, then run the algorithm that suits the distance. All algorithms give the
//! same alignment.

use crate::alignment::{Alignment, Run};
use crate::myers::Waves;
use crate::reduce::Reduced;
use crate::rows::Rows;
use crate::runs::Runs;
use crate::simd::{Level, Padded, Vectors, WORD};
use crate::token::Token;

/// The algorithm for what is left between the common ends. The result does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The fastest one. It stores at most what `Rows` stores, or 8 MiB.
    Auto,
    /// The greedy algorithm, O(n + d²) time and O(d²) memory.
    Waves,
    /// The greedy algorithm, without the tokens that the other side lacks.
    ReducedWaves,
    /// The bit-parallel longest common subsequence, O(n²/64) time. It stores at most 8 MiB for pairs of up to 8,000
    /// tokens, and O(n√n) bits for longer ones.
    Rows,
}

/// Upper bound of d². The greedy algorithm stores d²/2 cells of 4 bytes: at most 8 MiB while its buffer grows.
const STORED_CELLS: usize = 1 << 21;

/// Pairs of fewer tokens are reduced straight away.
const SHORT: usize = 768;

/// An aligner that reuses its memory from pair to pair. Each thread needs its own.
pub struct Aligner {
    vectors: Vectors,
    algorithm: Algorithm,
    a: Padded,
    b: Padded,
    waves: Waves,
    reduced: Reduced,
    rows: Rows,
    runs: Runs,
}

impl Default for Aligner {
    fn default() -> Self {
        Self::new(Level::best(), Algorithm::Auto)
    }
}

impl Aligner {
    /// Create an aligner for tests and benches that need a certain path.
    ///
    /// # Panics
    /// If this processor lacks the level.
    pub fn new(level: Level, algorithm: Algorithm) -> Self {
        Self {
            vectors: Vectors::new(level),
            algorithm,
            a: Padded::original(),
            b: Padded::refined(),
            waves: Waves::default(),
            reduced: Reduced::default(),
            rows: Rows::default(),
            runs: Runs::default(),
        }
    }

    /// Bytes of the buffers.
    pub(crate) fn size(&self) -> usize {
        let padded = self.a.size() + self.b.size();
        padded + self.waves.size() + self.reduced.size() + self.rows.size() + self.runs.size()
    }

    /// Compute the canonical alignment of y (`original`) and ỹ (`refined`), as the crate's documentation defines it.
    pub fn align<T: Token>(&mut self, original: &[T], refined: &[T]) -> Alignment {
        let prefix = self.vectors.common_prefix(original, refined);
        let (a, b) = (&original[prefix..], &refined[prefix..]);
        let suffix = self.vectors.common_suffix(a, b);
        let (a, b) = (&a[..a.len() - suffix], &b[..b.len() - suffix]);

        self.runs.clear();
        if suffix > 0 {
            let (x, y) = (original.len() - suffix, refined.len() - suffix);
            self.runs.prepend(Run {
                original: x as u32,
                refined: y as u32,
                length: suffix as u32,
            });
        }
        if !a.is_empty() && !b.is_empty() {
            self.core(a, b, prefix as u32);
        }
        if prefix > 0 {
            self.runs.prepend(Run {
                original: 0,
                refined: 0,
                length: prefix as u32,
            });
        }
        Alignment {
            original_length: original.len() as u32,
            refined_length: refined.len() as u32,
            runs: self.runs.in_order(),
        }
    }

    /// Prepend the runs of what is left between the common ends, which begins at `first`.
    fn core<T: Token>(&mut self, original: &[T], refined: &[T], first: u32) {
        let Self {
            vectors,
            algorithm,
            a,
            b,
            waves,
            reduced,
            rows,
            runs,
        } = self;
        let short = original.len() <= 2 * WORD && refined.len() <= WORD && vectors.compares();
        if short && *algorithm == Algorithm::Auto {
            reduced.keep_all(original, refined, first);
            b.fill(refined.iter().map(|token| token.narrow()));
            return rows.align_short(*vectors, reduced.a(), reduced.b(), b, runs);
        }
        let limit = match algorithm {
            Algorithm::Auto => direct_limit(original.len() + refined.len()),
            Algorithm::Waves => usize::MAX,
            Algorithm::ReducedWaves | Algorithm::Rows => 0,
        };
        if limit > 0 {
            a.fill(original.iter().map(|token| token.narrow()));
            b.fill(refined.iter().map(|token| token.narrow()));
            let shifted = |run: Run| Run {
                original: run.original + first,
                refined: run.refined + first,
                ..run
            };
            if waves.align(*vectors, a, b, limit, limit, |run| runs.prepend(shifted(run))) {
                return;
            }
        }
        reduced.reduce(original, refined, first);
        let (n, m) = (reduced.a().len(), reduced.b().len());
        let dropped = original.len() + refined.len() - n - m;
        let limit = match algorithm {
            Algorithm::Auto => reduced_limit(n, m, reduced.expected_distance(dropped)),
            Algorithm::ReducedWaves => usize::MAX,
            Algorithm::Waves | Algorithm::Rows => 0,
        };
        if n.abs_diff(m) < limit {
            a.fill(reduced.a().iter().map(|token| token.number));
            b.fill(reduced.b().iter().map(|token| token.number));
            let keep = |run| reduced.restore(run, &mut |run| runs.prepend(run));
            // The same tokens in another order are what the expectation does not foresee.
            if waves.align(*vectors, a, b, limit, limit.saturating_mul(2), keep) {
                return;
            }
        }
        rows.align(*vectors, reduced.a(), reduced.b(), reduced.distinct(), runs);
    }
}

/// The distance up to which the tokens are aligned without reducing them first: there it costs about as much as
/// reducing them would. Short pairs are reduced for next to nothing.
fn direct_limit(length: usize) -> usize {
    if length < SHORT {
        return 0;
    }
    (4 * length).isqrt()
}

/// The distance up to which waves are tried before rows: 0 if so many differences are expected that rows take less time.
fn reduced_limit(n: usize, m: usize, expected: usize) -> usize {
    // A row takes time for its token and for each of its words, a wave for itself and for each of its cells: rows take
    // n (12 + 2 m / 64) units, d waves d (128 + d).
    let rows = n * (12 + 2 * m.div_ceil(64));
    let limit = (64 * 64 + rows).isqrt() - 64;
    if expected > limit {
        return 0;
    }
    // An expectation may be too low.
    (limit + limit / 3).min(STORED_CELLS.isqrt())
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Aligner};
    use crate::simd::Level;

    /// Of ids as in text (an id below r has the share log r / log 30,000) and of uniform ones, for few edits and many.
    #[test]
    fn the_distance_of_edited_pairs_is_foreseen() {
        let mut state = 1u64;
        let mut random = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        for (zipf, length) in [(true, 200), (true, 1000), (false, 4000)] {
            for rate in [0.1, 0.3, 0.6] {
                let (mut expected, mut found) = (0, 0);
                for _ in 0..20 {
                    let mut token = || {
                        let place = random();
                        (if zipf { 3e4f64.powf(place) } else { 3e4 * place }) as i32
                    };
                    let a: Vec<i32> = (0..length).map(|_| token()).collect();
                    let fresh: Vec<i32> = a.iter().map(|_| token()).collect();
                    let edits: Vec<bool> = a.iter().map(|_| random() < rate).collect();
                    let b: Vec<i32> = (0..length).map(|i| if edits[i] { fresh[i] } else { a[i] }).collect();
                    let mut aligner = Aligner::new(Level::best(), Algorithm::Rows);
                    let kept = aligner.align(&a, &b).kept();
                    aligner.reduced.reduce(&a, &b, 0);
                    let (n, m) = (aligner.reduced.a().len(), aligner.reduced.b().len());
                    expected += aligner.reduced.expected_distance(2 * length - n - m);
                    found += n + m - 2 * kept;
                }
                assert!(
                    expected < 2 * found && found < 2 * expected,
                    "expected {expected}, found {found} of {length} tokens, {rate} edited"
                );
            }
        }
    }
}
