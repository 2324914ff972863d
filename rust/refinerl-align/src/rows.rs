//! Bit-parallel longest common subsequence (Crochemore et al. 2001, Hyyrö 2004) with stored rows.
//!
//! Row i holds one bit for each token of b: bit j is 0 where L(i, j + 1) = L(i, j) + 1, L being the length of the
//! longest common subsequence of the prefixes. A row follows from the one before and the *mask* of the next token of a:
//! a bit for each of its occurrences in b. Where all masks together are small, each is a row of words; otherwise each is
//! a list of the words in which its token occurs, so that memory stays linear. Above `STORED_WORDS` only every √n-th row
//! is stored, and the rows between them are computed again while walking back.

use crate::masks::Masks;
use crate::memory::size;
use crate::runs::Runs;
use crate::shared::Shared;
use crate::simd::{Padded, Place, Vectors};

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
    /// Bytes of the buffers.
    pub(crate) fn size(&self) -> usize {
        self.masks.size() + size(&self.checkpoints) + size(&self.segment)
    }

    /// Add the kept runs of the canonical alignment to `runs`, last first. Numbers are from 1 to `distinct`.
    pub(crate) fn align(&mut self, vectors: Vectors, a: &[Shared], b: &[Shared], distinct: usize, runs: &mut Runs) {
        self.align_within(STORED_WORDS, vectors, a, b, distinct, runs)
    }

    /// The same for short sequences: `padded` holds the numbers of b, at most `WORD`.
    pub(crate) fn align_short(
        &mut self,
        vectors: Vectors,
        a: &[Shared],
        b: &[Shared],
        padded: &Padded,
        runs: &mut Runs,
    ) {
        if self.segment.len() <= a.len() {
            self.segment.resize(a.len() + 1, 0);
        }
        let rows = &mut self.segment[..a.len() + 1];
        rows[0] = u64::MAX;
        vectors.compare(a, padded, rows);
        if let Some(place) = Place::last(b.len()).seek(&rows[a.len()..]) {
            vectors.walk(rows, 1, place, a, b, runs);
        }
    }

    fn align_within(
        &mut self,
        stored_words: usize,
        vectors: Vectors,
        a: &[Shared],
        b: &[Shared],
        distinct: usize,
        runs: &mut Runs,
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

        let mut end = n;
        let mut place = Place::last(b.len()).seek(&segment[(n - first) * words..][..words]);
        while let Some(reached) = place {
            let rows = &segment[..(end - first + 1) * words];
            place = vectors.walk(rows, words, reached, &a[first..end], b, runs);
            if let Some(reached) = place {
                // The first row of all has no zeros, where the walk would end: there are rows before these.
                end = first;
                first -= stride;
                let from = first / stride * words;
                segment[..words].copy_from_slice(&checkpoints[from..from + words]);
                masks.fill(vectors, segment, &a[first..end], reached.words());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Rows;
    use crate::alignment::Run;
    use crate::masks::Masks;
    use crate::runs::Runs;
    use crate::shared::Shared;
    use crate::simd::{Level, Padded, Vectors, WORD};

    /// At most so many tokens, with numbers from 1 to `alphabet`.
    fn shared(ids: &[u32], length: usize, alphabet: u32) -> Vec<Shared> {
        let numbers = ids.iter().take(length).map(|id| 1 + id % alphabet);
        (0..)
            .zip(numbers)
            .map(|(position, number)| Shared { number, position })
            .collect()
    }

    fn kept(level: Level, dense_words: usize, stored_words: usize, a: &[Shared], b: &[Shared]) -> Box<[Run]> {
        let mut rows = Rows {
            masks: Masks::within(dense_words),
            ..Rows::default()
        };
        let mut runs = Runs::default();
        rows.align_within(stored_words, Vectors::new(level), a, b, 50, &mut runs);
        runs.in_order()
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
            let (a, b) = (shared(&a, length, alphabet), shared(&b, length, alphabet));
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

        #[test]
        fn short_sequences_need_no_masks(
            alphabet in 1u32..50,
            a in prop::collection::vec(any::<u32>(), 1..130),
            b in prop::collection::vec(any::<u32>(), 1..=WORD),
        ) {
            let (a, b) = (shared(&a, 130, alphabet), shared(&b, WORD, alphabet));
            let expected = kept(Level::Portable, 0, usize::MAX, &a, &b);
            for level in Level::available() {
                let mut padded = Padded::refined();
                padded.fill(b.iter().map(|token| token.number));
                let mut runs = Runs::default();
                Rows::default().align_short(Vectors::new(level), &a, &b, &padded, &mut runs);
                prop_assert_eq!(&runs.in_order(), &expected, "{:?}", level);
            }
        }
    }
}
