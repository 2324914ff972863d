//! The walk back through the stored rows of the bit-parallel longest common subsequence.
//!
//! Whether a row keeps its token cannot be predicted, so no branch depends on it. In each row the walk moves to the last
//! zero at or before its column; where it moves, the token that leads to the row that it left is kept.

use std::hint::select_unpredictable;

use crate::runs::{pair, Runs};
use crate::shared::Shared;

/// A column of the row that the walk has reached.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    word: usize,
    /// The bits of the word up to the column.
    bits: u64,
}

impl Place {
    /// The last of so many columns, at least 1.
    pub(crate) fn last(columns: usize) -> Self {
        Self {
            word: (columns - 1) / 64,
            bits: u64::MAX >> (63 - (columns - 1) % 64),
        }
    }

    /// The words of a row that the walk may still read.
    pub(crate) fn words(self) -> usize {
        self.word + 1
    }

    /// The last zero of a row at or before this place.
    pub(crate) fn seek(self, row: &[u64]) -> Option<Self> {
        let zeros = !row[self.word] & self.bits;
        let (word, zeros) = if zeros == 0 {
            let word = earlier(&row[..self.word])?;
            (word, !row[word])
        } else {
            (self.word, zeros)
        };
        Some(Self {
            word,
            bits: u64::MAX >> zeros.leading_zeros(),
        })
    }
}

/// The last word that has zeros.
#[cold]
fn earlier(words: &[u64]) -> Option<usize> {
    words.iter().rposition(|word| *word != u64::MAX)
}

/// Walk from the last of the rows, of `width` words each, to the first, and add the tokens that are kept to `runs`.
/// Return the place in the first row, None where the walk ends before.
///
/// The place is a zero of the last row. Each row but the first has its token in `a`, each column in `b`.
///
/// # Panics
/// If there are not as many rows and columns.
#[inline(always)]
pub(super) fn walk(
    rows: &[u64],
    width: usize,
    place: Place,
    a: &[Shared],
    b: &[Shared],
    runs: &mut Runs,
) -> Option<Place> {
    let Place { word, mut bits } = place;
    assert!(word < width && rows.len() == (a.len() + 1) * width);
    let (ends, at) = runs.room(a.len());
    // The first run has two ends at `index`.
    let mut index = *at;
    assert!(ends.len() >= index + 2 * a.len() + 2);
    let mut after = ends[index];
    let mut last_column = 64 * word + 63;
    let mut column = last_column - bits.leading_zeros() as usize;
    let mut slot = a.len() * width + word;
    for original in a.iter().rev() {
        slot -= width;
        // SAFETY: `slot` is the index of this word in one row after the other.
        let mut zeros = unsafe { !*rows.get_unchecked(slot) } & bits;
        let token = pair(original.position, b[column].position);
        let apart = token + pair(1, 1) != after;
        // SAFETY: with each token `index` grows by two at most.
        unsafe { *ends.get_unchecked_mut(index + 3) = token };
        if zeros == 0 {
            let word = last_column / 64;
            let Some(found) = earlier(&rows[slot - word..slot]) else {
                index += 2 * usize::from(apart);
                ends[index] = token;
                *at = index;
                return None;
            };
            slot -= word - found;
            last_column = 64 * found + 63;
            zeros = !rows[slot];
        }
        let above = zeros.leading_zeros();
        bits = u64::MAX >> above;
        let next = last_column - above as usize;
        let moved = next != column;
        column = next;
        after = select_unpredictable(moved, token, after);
        index += 2 * usize::from(moved & apart);
        // SAFETY: as above.
        unsafe { *ends.get_unchecked_mut(index) = after };
    }
    *at = index;
    Some(Place {
        word: last_column / 64,
        bits,
    })
}
