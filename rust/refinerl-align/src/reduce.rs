//! Reduction of a pair to tokens that both sides have. The others are never kept, so dropping them is exact, and it
//! shortens the distance a lot.

use crate::alignment::Run;
use crate::dictionary::{Counts, Dictionary, Side};
use crate::simd::Padded;

/// Runs of more tokens are halved where tokens were dropped within them, shorter ones searched from end to end.
const LONG: u32 = 32;

/// Two sequences without the tokens that the other lacks, and the original positions of the rest; the memory is reused.
pub(crate) struct Reduced {
    dictionary: Dictionary,
    /// y, reduced, in numbers from 1 to `distinct`.
    pub(crate) a: Padded,
    /// ỹ, reduced, in the same numbers.
    pub(crate) b: Padded,
    /// Number of distinct tokens that both sides have.
    pub(crate) distinct: usize,
    /// Position in y of each token of `a`, and rubbish behind them.
    a_positions: Vec<u32>,
    /// Position in ỹ of each token of `b`, and rubbish behind them.
    b_positions: Vec<u32>,
}

impl Default for Reduced {
    fn default() -> Self {
        Self {
            dictionary: Dictionary::default(),
            a: Padded::original(),
            b: Padded::refined(),
            distinct: 0,
            a_positions: Vec::new(),
            b_positions: Vec::new(),
        }
    }
}

impl Reduced {
    /// Reduce a pair.
    pub(crate) fn reduce(&mut self, a: &[u32], b: &[u32]) {
        let a_side = side(a, &mut self.a, &mut self.a_positions);
        let b_side = side(b, &mut self.b, &mut self.b_positions);
        let Counts { a, b, distinct } = self.dictionary.number(a_side, b_side);
        self.a.end(a);
        self.b.end(b);
        self.distinct = distinct as usize;
    }

    /// Pass a kept run to `keep` in positions of y and ỹ, split where tokens were dropped within it, last piece first.
    #[inline]
    pub(crate) fn restore(&self, run: Run, keep: &mut impl FnMut(Run)) {
        let (x, y, length) = (run.original as usize, run.refined as usize, run.length as usize);
        let (a, b) = (&self.a_positions[x..x + length], &self.b_positions[y..y + length]);
        // Positions ascend, so the two ends tell whether any between is missing.
        if a[length - 1] - a[0] == run.length - 1 && b[length - 1] - b[0] == run.length - 1 {
            return keep(Run {
                original: a[0],
                refined: b[0],
                length: run.length,
            });
        }
        if run.length > LONG {
            return self.restore_halves(run, keep);
        }
        let mut end = length;
        for t in (0..length).rev() {
            if t == 0 || a[t] != a[t - 1] + 1 || b[t] != b[t - 1] + 1 {
                keep(Run {
                    original: a[t],
                    refined: b[t],
                    length: (end - t) as u32,
                });
                end = t;
            }
        }
    }

    #[cold]
    fn restore_halves(&self, run: Run, keep: &mut impl FnMut(Run)) {
        let half = run.length / 2;
        let (original, refined) = (run.original + half, run.refined + half);
        self.restore(
            Run {
                original,
                refined,
                length: run.length - half,
            },
            keep,
        );
        self.restore(Run { length: half, ..run }, keep);
    }
}

fn side<'a>(ids: &'a [u32], numbers: &'a mut Padded, positions: &'a mut Vec<u32>) -> Side<'a> {
    if positions.len() < ids.len() {
        positions.resize(ids.len(), 0);
    }
    Side {
        ids,
        numbers: numbers.begin(ids.len()),
        positions: &mut positions[..ids.len()],
    }
}
