//! Alignment of one pair: trim the common ends, then run the algorithm that suits the distance. All algorithms give the
//! same alignment.

use crate::alignment::{Alignment, Run};
use crate::myers::Waves;
use crate::reduce::Reduced;
use crate::rows::Rows;
use crate::simd::{Level, Padded, Vectors, Words};

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

/// A token id of the caller: `i32` or `i64`, from 0 to 2³¹ − 1.
#[allow(private_bounds)] // only the two widths that the vector code reads
pub trait Token: Words + Send + Sync {
    /// The same id in the width that the algorithms work on.
    fn narrow(self) -> u32;
}

impl Token for i32 {
    #[inline]
    fn narrow(self) -> u32 {
        self as u32
    }
}

impl Token for i64 {
    #[inline]
    fn narrow(self) -> u32 {
        self as u32
    }
}

/// An aligner that reuses its memory from pair to pair. Each thread needs its own.
pub struct Aligner {
    vectors: Vectors,
    algorithm: Algorithm,
    a: Padded,
    b: Padded,
    waves: Waves,
    reduced: Reduced,
    rows: Rows,
    reversed: Vec<Run>,
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
            reversed: Vec::new(),
        }
    }

    /// Compute the canonical alignment of y (`original`) and ỹ (`refined`), as the crate's documentation defines it.
    pub fn align<T: Token>(&mut self, original: &[T], refined: &[T]) -> Alignment {
        let prefix = self.vectors.common_prefix(original, refined);
        let (a, b) = (&original[prefix..], &refined[prefix..]);
        let suffix = self.vectors.common_suffix(a, b);
        let (a, b) = (&a[..a.len() - suffix], &b[..b.len() - suffix]);

        self.reversed.clear();
        if suffix > 0 {
            let (x, y) = (original.len() - suffix, refined.len() - suffix);
            prepend(
                &mut self.reversed,
                Run {
                    original: x as u32,
                    refined: y as u32,
                    length: suffix as u32,
                },
            );
        }
        if !a.is_empty() && !b.is_empty() {
            copy(a, &mut self.a);
            copy(b, &mut self.b);
            self.core(prefix as u32);
        }
        if prefix > 0 {
            prepend(
                &mut self.reversed,
                Run {
                    original: 0,
                    refined: 0,
                    length: prefix as u32,
                },
            );
        }
        Alignment {
            original_length: original.len() as u32,
            refined_length: refined.len() as u32,
            runs: self.reversed.iter().rev().copied().collect(),
        }
    }

    /// Prepend the runs of what is left between the common ends, which begins at `offset`.
    fn core(&mut self, offset: u32) {
        let Self {
            vectors,
            algorithm,
            a,
            b,
            waves,
            reduced,
            rows,
            reversed,
        } = self;
        let limit = match algorithm {
            Algorithm::Auto => direct_limit(a.ids().len() + b.ids().len()),
            Algorithm::Waves => usize::MAX,
            Algorithm::ReducedWaves | Algorithm::Rows => 0,
        };
        let shift = |run: Run| Run {
            original: run.original + offset,
            refined: run.refined + offset,
            ..run
        };
        if limit > 0 && waves.align(*vectors, a, b, limit, |run| prepend(reversed, shift(run))) {
            return;
        }
        reduced.reduce(a.ids(), b.ids());
        let mut keep = |run: Run| reduced.restore(run, &mut |run| prepend(reversed, shift(run)));
        let (a, b) = (&reduced.a, &reduced.b);
        let limit = match algorithm {
            Algorithm::Auto => reduced_limit(a.ids().len(), b.ids().len()),
            Algorithm::ReducedWaves => usize::MAX,
            Algorithm::Waves | Algorithm::Rows => 0,
        };
        if limit == 0 || !waves.align(*vectors, a, b, limit, &mut keep) {
            rows.align(*vectors, a.ids(), b.ids(), reduced.distinct, keep);
        }
    }
}

fn copy<T: Token>(tokens: &[T], to: &mut Padded) {
    for (id, token) in to.begin(tokens.len()).iter_mut().zip(tokens) {
        *id = token.narrow();
    }
    to.end(tokens.len());
}

/// The distance up to which the tokens are aligned without reducing them first: there it costs about as much as
/// reducing them would. Short pairs are reduced for next to nothing.
fn direct_limit(length: usize) -> usize {
    if length < SHORT {
        return 0;
    }
    (4 * length).isqrt()
}

/// The distance up to which waves cost less than rows, which take time for each token and each word of its row.
fn reduced_limit(n: usize, m: usize) -> usize {
    let rows = n * (2 + m.div_ceil(64));
    rows.min(STORED_CELLS).isqrt()
}

/// Add a run in front of runs that are collected last first.
fn prepend(reversed: &mut Vec<Run>, run: Run) {
    match reversed.last_mut() {
        Some(next) if next.original == run.original + run.length && next.refined == run.refined + run.length => {
            *next = Run {
                length: run.length + next.length,
                ..run
            };
        }
        _ => reversed.push(run),
    }
}
