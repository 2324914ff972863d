//! Reduction of a pair to tokens that both sides have. The others are never kept, so dropping them is exact, and it
//! shortens the distance a lot.

use crate::alignment::Run;
use crate::dictionary::{Counts, Dictionary, Side};
use crate::memory::size;
use crate::shared::Shared;
use crate::token::Token;

/// Runs of more tokens are halved where tokens were dropped within them, shorter ones searched from end to end.
const LONG: u32 = 32;

/// Two sequences without the tokens that the other lacks; the memory is reused from pair to pair.
#[derive(Default)]
pub(crate) struct Reduced {
    dictionary: Dictionary,
    /// The tokens of y, and rubbish behind them.
    a: Vec<Shared>,
    /// The tokens of ỹ, and rubbish behind them.
    b: Vec<Shared>,
    counts: Counts,
}

impl Reduced {
    /// Reduce two sequences that begin at this position.
    pub(crate) fn reduce<T: Token>(&mut self, a: &[T], b: &[T], first: u32) {
        let a_side = side(a, first, &mut self.a);
        let b_side = side(b, first, &mut self.b);
        self.counts = self.dictionary.number(a_side, b_side);
    }

    /// Bytes of the buffers.
    pub(crate) fn size(&self) -> usize {
        self.dictionary.size() + size(&self.a) + size(&self.b)
    }

    /// Take two sequences that begin at this position as they are: all tokens, with their ids as numbers.
    pub(crate) fn keep_all<T: Token>(&mut self, a: &[T], b: &[T], first: u32) {
        for (tokens, shared) in [(a, &mut self.a), (b, &mut self.b)] {
            let side = side(tokens, first, shared);
            for ((to, token), position) in side.shared.iter_mut().zip(tokens).zip(first..) {
                *to = Shared {
                    number: token.narrow(),
                    position,
                };
            }
        }
        self.counts = Counts {
            a: a.len(),
            b: b.len(),
            distinct: 0,
        };
    }

    /// y, reduced; the numbers are from 1 to `distinct`.
    pub(crate) fn a(&self) -> &[Shared] {
        &self.a[..self.counts.a]
    }

    /// ỹ, reduced, in the same numbers.
    pub(crate) fn b(&self) -> &[Shared] {
        &self.b[..self.counts.b]
    }

    /// Number of distinct tokens that both sides have.
    pub(crate) fn distinct(&self) -> usize {
        self.counts.distinct as usize
    }

    /// The distance to expect between the reduced sequences, of which so many tokens were dropped.
    ///
    /// A token that was edited is dropped unless the other side happens to have it. The odds of that are about those of
    /// a token of the pair that repeats an earlier one.
    pub(crate) fn expected_distance(&self, dropped: usize) -> usize {
        let longer = self.counts.a.max(self.counts.b);
        let repeats = longer - self.distinct();
        // Of Zipf-like ids the distance was 5/4 of those odds in the median, of pairs of real runs 3/4.
        5 * dropped * repeats / (4 * self.distinct().max(1))
    }

    /// Pass a kept run to `keep` in positions of y and ỹ, split where tokens were dropped within it, last piece first.
    #[inline]
    pub(crate) fn restore(&self, run: Run, keep: &mut impl FnMut(Run)) {
        let (x, y, length) = (run.original as usize, run.refined as usize, run.length as usize);
        let (a, b) = (&self.a[x..x + length], &self.b[y..y + length]);
        let (a, b) = (|t: usize| a[t].position, |t: usize| b[t].position);
        // Positions ascend, so the two ends tell whether any between is missing.
        if a(length - 1) - a(0) == run.length - 1 && b(length - 1) - b(0) == run.length - 1 {
            return keep(Run {
                original: a(0),
                refined: b(0),
                length: run.length,
            });
        }
        if run.length > LONG {
            return self.restore_halves(run, keep);
        }
        let mut end = length;
        for t in (0..length).rev() {
            if t == 0 || a(t) != a(t - 1) + 1 || b(t) != b(t - 1) + 1 {
                keep(Run {
                    original: a(t),
                    refined: b(t),
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

fn side<'a, T>(tokens: &'a [T], first: u32, shared: &'a mut Vec<Shared>) -> Side<'a, T> {
    if shared.len() < tokens.len() {
        shared.resize(tokens.len(), Shared::default());
    }
    Side {
        tokens,
        first,
        shared: &mut shared[..tokens.len()],
    }
}
