//! One pair: trim, then the algorithm that suits the distance. All of them give the same alignment.

use crate::alignment::{Alignment, Run};
use crate::dictionary::Dictionary;
use crate::myers::Waves;
use crate::reduce::Reduced;
use crate::rows::Rows;
use crate::simd::{Level, Padded, Vectors, Words};

/// How to align what is left between the common ends. The result does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Whatever is fastest, within bounded memory.
    Auto,
    /// The greedy algorithm, O(n + d²) time and O(d²) memory.
    Waves,
    /// The same without the tokens that the other side lacks.
    ReducedWaves,
    /// The bit-parallel longest common subsequence, O(n²/64) time and at most 8 MiB.
    Rows,
}

/// The greedy algorithm stores d²/2 cells of 4 bytes, and d² stays below this: at most 8 MiB with what growing takes.
const STORED_CELLS: usize = 1 << 21;

/// Pairs of fewer tokens are reduced at once.
const SHORT: usize = 768;

/// A token id as it comes: `i32` or `i64`, from 0 to 2³¹ − 1.
#[allow(private_bounds)] // Only the two widths that the vector code reads.
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

/// Aligns pair after pair and reuses its memory; one for each thread.
pub struct Aligner {
    vectors: Vectors,
    algorithm: Algorithm,
    a: Padded,
    b: Padded,
    waves: Waves,
    reduced: Reduced,
    dictionary: Dictionary,
    rows: Rows,
    reversed: Vec<Run>,
}

impl Default for Aligner {
    fn default() -> Self {
        Self::new(Level::best(), Algorithm::Auto)
    }
}

impl Aligner {
    /// An aligner for tests and benches that want a certain path.
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
            dictionary: Dictionary::default(),
            rows: Rows::default(),
            reversed: Vec::new(),
        }
    }

    /// The canonical alignment of y (`original`) and ỹ (`refined`): see the crate's documentation.
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
            self.a.replace(a.iter().map(|token| token.narrow()));
            self.b.replace(b.iter().map(|token| token.narrow()));
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

    /// Prepends the runs of what is left between the common ends, which begins at `offset`.
    fn core(&mut self, offset: u32) {
        let Self {
            vectors,
            algorithm,
            a,
            b,
            waves,
            reduced,
            dictionary,
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
            dictionary.number(a.ids(), b.ids());
            rows.align(
                &dictionary.a,
                &dictionary.b,
                dictionary.distinct as usize + 1,
                |x, y| {
                    keep(Run {
                        original: x,
                        refined: y,
                        length: 1,
                    });
                },
            );
        }
    }
}

/// Up to which distance the tokens are taken as they are: as far as that costs about as much as reducing them would,
/// which is next to nothing for short pairs.
fn direct_limit(length: usize) -> usize {
    if length < SHORT {
        return 0;
    }
    (4 * length).isqrt()
}

/// Up to which distance waves cost less than rows, which take time for each token and each word of its row.
fn reduced_limit(n: usize, m: usize) -> usize {
    let rows = n * (30 + m.div_ceil(64));
    rows.min(STORED_CELLS).isqrt()
}

/// Adds a run in front of runs that are collected last first.
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
