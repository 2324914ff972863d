//! Bit-parallel longest common subsequence (Crochemore et al. 2001, Hyyrö 2004) with stored rows.
//!
//! Row i holds one bit for each token of b: bit j is 0 where L(i, j + 1) = L(i, j) + 1, L being the length of the
//! longest common subsequence of the prefixes. A row follows from the one before and the *mask* of the next token of a:
//! a bit for each of its occurrences in b. Where all masks together are small, each is a row of words; otherwise each is
//! a list of the words in which its token occurs, so that memory stays linear. Above `STORED_WORDS` only every √n-th row
//! is stored, and the rows between them are computed again while walking back.

use crate::alignment::Run;
use crate::masks::Masks;
use crate::simd::Vectors;

/// The number of 64-bit words (8 MiB) up to which all rows are stored.
const STORED_WORDS: usize = 1 << 20;

/// Masks and stored rows; the memory is reused from pair to pair.
#[derive(Default)]
pub(crate) struct Rows {
    masks: Masks,
    checkpoints: Vec<u64>,
    segment: Vec<u64>,
}

impl Rows {
    /// Pass the kept runs of the canonical alignment to `keep`, last first. Tokens of both are 1 to `distinct`.
    pub(crate) fn align(&mut self, vectors: Vectors, a: &[u32], b: &[u32], distinct: usize, keep: impl FnMut(Run)) {
        self.align_within(STORED_WORDS, vectors, a, b, distinct, keep);
    }

    fn align_within(
        &mut self,
        stored_words: usize,
        vectors: Vectors,
        a: &[u32],
        b: &[u32],
        distinct: usize,
        mut keep: impl FnMut(Run),
    ) {
        let n = a.len();
        if n == 0 || b.is_empty() {
            return;
        }
        self.masks.index(b, distinct);
        let words = self.masks.width();
        let stride = if (n + 1) * words <= stored_words {
            n
        } else {
            n.isqrt() + 1
        };
        if self.segment.len() < (stride + 1) * words {
            self.segment.resize((stride + 1) * words, 0);
        }
        let Self {
            masks,
            checkpoints,
            segment,
        } = self;
        segment[..words].fill(u64::MAX);
        checkpoints.clear();
        let mut first = 0;
        loop {
            let last = (first + stride).min(n);
            masks.fill(vectors, segment, &a[first..last], words);
            if last == n {
                break;
            }
            checkpoints.extend_from_slice(&segment[..words]);
            segment.copy_within((last - first) * words..(last - first + 1) * words, 0);
            first = last;
        }

        // Kept tokens i ..< i + length of a, and j ..< j + length of b.
        let (mut i, mut j, mut length) = (n, b.len(), 0);
        let mut pass = |i: usize, j: usize, length: usize| {
            if length > 0 {
                keep(Run {
                    original: i as u32,
                    refined: j as u32,
                    length: length as u32,
                });
            }
        };
        while i > 0 && j > 0 {
            if i == first {
                first -= stride;
                let from = first / stride * words;
                segment[..words].copy_from_slice(&checkpoints[from..from + words]);
                masks.fill(vectors, segment, &a[first..i], (j - 1) / 64 + 1);
            }
            let mut at = (i - first) * words;
            let Some(column) = last_zero(&segment[at..at + words], j) else {
                break;
            };
            let (mut row, word, bit) = (i, column / 64, 1 << (column % 64));
            // Keep the token of the topmost row in which this column already counts.
            while row > first && segment[at - words + word] & bit == 0 {
                (row, at) = (row - 1, at - words);
                if row == first && first > 0 {
                    first -= stride;
                    let from = first / stride * words;
                    segment[..words].copy_from_slice(&checkpoints[from..from + words]);
                    masks.fill(vectors, segment, &a[first..row], word + 1);
                    at = (row - first) * words;
                }
            }
            if row < i || column + 1 < j {
                pass(i, j, length);
                length = 0;
            }
            (i, j, length) = (row - 1, column, length + 1);
        }
        pass(i, j, length);
    }
}

/// The highest column below `end` whose bit is 0.
#[inline]
fn last_zero(row: &[u64], end: usize) -> Option<usize> {
    let mut word = (end - 1) / 64;
    let mut zeros = !row[word] & (u64::MAX >> (63 - (end - 1) % 64));
    while zeros == 0 {
        word = word.checked_sub(1)?;
        zeros = !row[word];
    }
    Some(word * 64 + 63 - zeros.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Rows;
    use crate::alignment::Run;
    use crate::masks::Masks;
    use crate::simd::{Level, Vectors};

    fn kept(level: Level, dense_words: usize, stored_words: usize, a: &[u32], b: &[u32]) -> Vec<Run> {
        let mut rows = Rows {
            masks: Masks::within(dense_words),
            ..Rows::default()
        };
        let mut runs = Vec::new();
        rows.align_within(stored_words, Vectors::new(level), a, b, 50, |run| runs.push(run));
        runs
    }

    proptest! {
        #[test]
        fn neither_memory_nor_level_changes_the_runs(
            alphabet in 1u32..50,
            // Rows of one word, of a few in registers, and of several vectors.
            length in prop_oneof![Just(70usize), Just(500), Just(1500)],
            a in prop::collection::vec(any::<u32>(), 0..1500),
            b in prop::collection::vec(any::<u32>(), 0..1500),
        ) {
            let fold = |ids: Vec<u32>| ids.into_iter().take(length).map(|id| 1 + id % alphabet).collect::<Vec<_>>();
            let (a, b) = (fold(a), fold(b));
            let expected = kept(Level::Portable, 0, usize::MAX, &a, &b);
            for level in Level::available() {
                for dense_words in [0, usize::MAX] {
                    for stored_words in [0, usize::MAX] {
                        let found = kept(level, dense_words, stored_words, &a, &b);
                        prop_assert_eq!(&found, &expected, "{:?} {} {}", level, dense_words, stored_words);
                    }
                }
            }
        }
    }
}
