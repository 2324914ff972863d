//! Bit-parallel longest common subsequence (Crochemore et al. 2001, Hyyrö 2004) with stored rows.
//!
//! Row i holds one bit for each token of b: bit j is 0 where L(i, j + 1) = L(i, j) + 1, L being the length of the
//! longest common subsequence of the prefixes. A row differs from the one before only in words in which the token of a
//! occurs, and in words that a carry reaches. The occurrences are kept as (word, mask) for each distinct token, so that
//! memory stays linear and rare tokens cost little. Above `STORED_WORDS` only every √n-th row is stored, and the rows
//! between them are computed again while walking back.

/// The number of 64-bit words (8 MiB) up to which all rows are stored.
const STORED_WORDS: usize = 1 << 20;

/// Occurrences of b's tokens and stored rows; the memory is reused from pair to pair.
#[derive(Default)]
pub(crate) struct Rows {
    /// Occurrences of token t: `entries[starts[t]..starts[t + 1]]`.
    starts: Vec<u32>,
    entries: Vec<(u32, u64)>,
    checkpoints: Vec<u64>,
    segment: Vec<u64>,
}

impl Rows {
    /// List the words in which each of the `distinct` tokens of b occurs.
    fn index(&mut self, b: &[u32], distinct: usize) {
        let mut last_word = vec![u32::MAX; distinct];
        self.starts.clear();
        self.starts.resize(distinct + 1, 0);
        for (j, &token) in b.iter().enumerate() {
            let word = (j / 64) as u32;
            if last_word[token as usize] != word {
                last_word[token as usize] = word;
                self.starts[token as usize + 1] += 1;
            }
        }
        for t in 0..distinct {
            self.starts[t + 1] += self.starts[t];
        }
        self.entries.clear();
        self.entries.resize(self.starts[distinct] as usize, (u32::MAX, 0));
        let mut next: Vec<u32> = self.starts[..distinct].to_vec();
        for (j, &token) in b.iter().enumerate() {
            let (word, bit) = ((j / 64) as u32, 1u64 << (j % 64));
            let t = token as usize;
            let open = next[t];
            if open > self.starts[t] && self.entries[open as usize - 1].0 == word {
                self.entries[open as usize - 1].1 |= bit;
            } else {
                self.entries[open as usize] = (word, bit);
                next[t] += 1;
            }
        }
    }

    /// Fill `segment` with the rows from `first` (already its row 0) to `last`, in their lowest `used` words.
    fn fill(&mut self, a: &[u32], first: usize, last: usize, words: usize, used: usize) {
        for (step, &token) in a[first..last].iter().enumerate() {
            let (before, after) = self.segment[step * words..].split_at_mut(words);
            let row = &mut after[..used];
            row.copy_from_slice(&before[..used]);
            let span = self.starts[token as usize] as usize..self.starts[token as usize + 1] as usize;
            advance(row, &self.entries[span]);
        }
    }

    /// Pass the kept pairs of the canonical alignment to `keep`, last first. Tokens of both are below `distinct`.
    pub(crate) fn align(&mut self, a: &[u32], b: &[u32], distinct: usize, keep: impl FnMut(u32, u32)) {
        self.align_within(STORED_WORDS, a, b, distinct, keep);
    }

    fn align_within(
        &mut self,
        stored_words: usize,
        a: &[u32],
        b: &[u32],
        distinct: usize,
        mut keep: impl FnMut(u32, u32),
    ) {
        let (n, words) = (a.len(), b.len().div_ceil(64));
        if n == 0 || words == 0 {
            return;
        }
        self.index(b, distinct);
        let stride = if (n + 1) * words <= stored_words {
            n
        } else {
            n.isqrt() + 1
        };
        if self.segment.len() < (stride + 1) * words {
            self.segment.resize((stride + 1) * words, 0);
        }
        self.segment[..words].fill(u64::MAX);
        self.checkpoints.clear();
        let mut first = 0;
        loop {
            let last = (first + stride).min(n);
            self.fill(a, first, last, words, words);
            if last == n {
                break;
            }
            self.checkpoints.extend_from_slice(&self.segment[..words]);
            self.segment
                .copy_within((last - first) * words..(last - first + 1) * words, 0);
            first = last;
        }

        let (mut i, mut j) = (n, b.len());
        loop {
            let Some(column) = last_zero(&self.segment[(i - first) * words..], j) else {
                return;
            };
            // Keep the token of the topmost row in which this column already counts.
            while i > first && is_zero(&self.segment[(i - first - 1) * words..], column) {
                i -= 1;
                if i == first && first > 0 {
                    first -= stride;
                    let from = first / stride * words;
                    self.segment[..words].copy_from_slice(&self.checkpoints[from..from + words]);
                    self.fill(a, first, i, words, column / 64 + 1);
                }
            }
            keep(i as u32 - 1, column as u32);
            i -= 1;
            j = column;
            if i == 0 || j == 0 {
                return;
            }
            if i == first {
                first -= stride;
                let from = first / stride * words;
                self.segment[..words].copy_from_slice(&self.checkpoints[from..from + words]);
                self.fill(a, first, i, words, (j - 1) / 64 + 1);
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

/// The highest column below `end` whose bit is 0.
fn last_zero(row: &[u64], end: usize) -> Option<usize> {
    let mut word = (end - 1) / 64;
    let mut zeros = !row[word] & (u64::MAX >> (63 - (end - 1) % 64));
    while zeros == 0 {
        word = word.checked_sub(1)?;
        zeros = !row[word];
    }
    Some(word * 64 + 63 - zeros.leading_zeros() as usize)
}

fn is_zero(row: &[u64], column: usize) -> bool {
    row[column / 64] >> (column % 64) & 1 == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Rows;

    fn kept(stored_words: usize, a: &[u32], b: &[u32]) -> Vec<(u32, u32)> {
        let mut pairs = Vec::new();
        Rows::default().align_within(stored_words, a, b, 50, |x, y| pairs.push((x, y)));
        pairs
    }

    proptest! {
        #[test]
        fn rows_made_again_are_the_rows_that_were_stored(
            alphabet in 1u32..50,
            a in prop::collection::vec(any::<u32>(), 0..400),
            b in prop::collection::vec(any::<u32>(), 0..400),
        ) {
            let [a, b] = [a, b].map(|ids| ids.into_iter().map(|id| id % alphabet).collect::<Vec<_>>());
            prop_assert_eq!(kept(usize::MAX, &a, &b), kept(0, &a, &b));
        }
    }
}
