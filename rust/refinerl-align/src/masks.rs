//! The occurrences of b's tokens as bits, and the rows that follow from them (`rows`).

use crate::memory::size;
use crate::shared::Shared;
use crate::simd::{Vectors, NARROW_WORDS, ROW_WORDS};

/// The number of words (1 MiB) up to which each mask is a row of words.
const DENSE_WORDS: usize = 1 << 17;

/// The masks of tokens 1 to `distinct`; the memory is reused from pair to pair.
pub(crate) struct Masks {
    dense_words: usize,
    /// Words in a stored row: as many as b needs, or above `NARROW_WORDS` a multiple of `ROW_WORDS`.
    width: usize,
    /// The mask of token t: `dense[t * width..][..width]`; empty where the masks are lists.
    dense: Vec<u64>,
    /// Occurrences of token t: `entries[starts[t]..starts[t + 1]]`.
    starts: Vec<u32>,
    /// (word, bits)
    entries: Vec<(u32, u64)>,
    /// Scratch: for each token the end of its entries so far.
    ends: Vec<u32>,
}

impl Default for Masks {
    fn default() -> Self {
        Self::within(DENSE_WORDS)
    }
}

impl Masks {
    /// Create masks that are rows of words up to this many words in all. Narrow masks always are.
    pub(crate) fn within(dense_words: usize) -> Self {
        Self {
            dense_words,
            width: 0,
            dense: Vec::new(),
            starts: Vec::new(),
            entries: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Bytes of the buffers.
    pub(crate) fn size(&self) -> usize {
        size(&self.dense) + size(&self.starts) + size(&self.entries) + size(&self.ends)
    }

    /// Words in a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Note the occurrences of the tokens of b.
    pub(crate) fn index(&mut self, b: &[Shared], distinct: usize) {
        self.width = b.len().div_ceil(64);
        if self.width > NARROW_WORDS {
            self.width = self.width.next_multiple_of(ROW_WORDS);
        }
        let words = (distinct + 1) * self.width;
        self.dense.clear();
        if self.width <= NARROW_WORDS || words <= self.dense_words {
            self.dense.resize(words, 0);
            for (word, tokens) in b.chunks(64).enumerate() {
                let mut bit = 1u64;
                for token in tokens {
                    self.dense[token.number as usize * self.width + word] |= bit;
                    bit = bit.rotate_left(1);
                }
            }
        } else {
            self.list(b, distinct);
        }
    }

    /// List the words in which each token occurs.
    fn list(&mut self, b: &[Shared], distinct: usize) {
        self.ends.clear();
        self.ends.resize(distinct + 1, u32::MAX); // here the last word of each token
        self.starts.clear();
        self.starts.resize(distinct + 2, 0);
        for (j, token) in b.iter().enumerate() {
            let (word, t) = ((j / 64) as u32, token.number as usize);
            if self.ends[t] != word {
                self.ends[t] = word;
                self.starts[t + 1] += 1;
            }
        }
        for t in 0..=distinct {
            self.starts[t + 1] += self.starts[t];
        }
        self.entries.clear();
        self.entries.resize(self.starts[distinct + 1] as usize, (u32::MAX, 0));
        self.ends.copy_from_slice(&self.starts[..=distinct]);
        for (j, token) in b.iter().enumerate() {
            let (word, bit) = ((j / 64) as u32, 1u64 << (j % 64));
            let t = token.number as usize;
            let open = self.ends[t];
            if open > self.starts[t] && self.entries[open as usize - 1].0 == word {
                self.entries[open as usize - 1].1 |= bit;
            } else {
                self.entries[open as usize] = (word, bit);
                self.ends[t] += 1;
            }
        }
    }

    /// Fill `rows`, whose first row is there, with a row for each token of a, in their lowest `used` words or more.
    pub(crate) fn fill(&self, vectors: Vectors, rows: &mut [u64], a: &[Shared], used: usize) {
        match self.width {
            1..=NARROW_WORDS => vectors.narrow_rows(&self.dense, rows, self.width, a),
            width if !self.dense.is_empty() => {
                vectors.rows(&self.dense, rows, width, used.next_multiple_of(ROW_WORDS), a);
            }
            width => {
                for (step, token) in a.iter().enumerate() {
                    let (before, after) = rows[step * width..].split_at_mut(width);
                    let row = &mut after[..used];
                    row.copy_from_slice(&before[..used]);
                    let t = token.number as usize;
                    let span = self.starts[t] as usize..self.starts[t + 1] as usize;
                    advance(row, &self.entries[span]);
                }
            }
        }
    }
}

/// Advance one row: v = (v + (v & mask)) | (v − (v & mask)), with the carry running from word to word.
#[inline]
fn advance(row: &mut [u64], entries: &[(u32, u64)]) {
    let mut carry = 0;
    let mut next = 0;
    for &(word, mask) in entries {
        let word = word as usize;
        if word >= row.len() {
            break;
        }
        if next < word {
            carry = ripple(&mut row[next..word], carry);
        }
        let v = row[word];
        let u = v & mask;
        let (sum, over) = v.overflowing_add(u);
        let (sum, over_again) = sum.overflowing_add(carry);
        row[word] = sum | (v - u);
        carry = u64::from(over | over_again);
        next = word + 1;
    }
    ripple(&mut row[next..], carry);
}

/// Add a carry to words without an occurrence; return the carry out of the last one.
#[inline]
fn ripple(words: &mut [u64], mut carry: u64) -> u64 {
    for v in words {
        // The carry cannot be predicted, so it is added either way; it rarely runs on.
        let (sum, over) = v.overflowing_add(carry);
        *v |= sum;
        carry = u64::from(over);
        if !over {
            break;
        }
    }
    carry
}
