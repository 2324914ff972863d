//! Myers' greedy algorithm with stored waves: O(n + m + d²) time, O(d²) memory.
//!
//! Wave d holds, for each diagonal k = x − y of the parity of d, the furthest x with D(x, x − k) ≤ d, where D is the
//! distance of the prefixes of lengths x and y. Cell i of wave d is diagonal k = 2i − d. The two cells that lead to it
//! are i − 1 and i of the wave before, so neighbouring diagonals fill a vector.

use crate::alignment::Run;
use crate::memory::size;
use crate::simd::{Padded, Vectors, MAX_LANES};

/// The value beside a wave, where there is no diagonal.
const NOWHERE: i32 = i32::MIN / 2;

/// Waves of fewer cells than this are computed one cell at a time.
const VECTOR_CELLS: usize = 4;

/// Number of waves between projections of the distance. They begin at a sixth of the limit: the progress before that
/// predicts little.
const PROJECT_EVERY: i32 = 4;

/// Stored waves; the memory is reused from pair to pair.
#[derive(Default)]
pub(crate) struct Waves {
    cells: Vec<i32>,
    /// Index in `cells` of cell 0 of each wave, which may be virtual: cells of diagonals outside the grid are not
    /// stored.
    origins: Vec<isize>,
    /// Number of `cells` in use.
    end: usize,
}

/// The cells of wave d whose diagonals cross the grid.
fn cells(n: i32, m: i32, d: i32) -> (i32, i32) {
    ((d - m + 1).max(0) / 2, d.min((d + n) / 2))
}

impl Waves {
    /// Bytes of the buffers.
    pub(crate) fn size(&self) -> usize {
        size(&self.cells) + size(&self.origins)
    }

    /// Index of cell i of wave d.
    fn at(&self, d: i32, i: i32) -> usize {
        (self.origins[d as usize] + i as isize) as usize
    }

    /// Pass the kept runs of the canonical alignment to `keep`, last first. Returns false if its distance is above
    /// `limit`.
    ///
    /// It also gives up early, when the progress so far projects a distance above `hopeless`.
    pub(crate) fn align(
        &mut self,
        vectors: Vectors,
        a: &Padded,
        b: &Padded,
        limit: usize,
        hopeless: usize,
        mut keep: impl FnMut(Run),
    ) -> bool {
        let (n, m) = (a.ids().len() as i32, b.ids().len() as i32);
        if (n - m).unsigned_abs() as usize > limit {
            return false;
        }
        let limit = limit.min((n + m) as usize);
        let common = vectors.run(a, 0, b, 0) as i32;
        self.origins.clear();
        self.end = 0;
        let start = self.push(0, 1);
        self.cells[start - 1..=start + 1].copy_from_slice(&[NOWHERE, common, NOWHERE]);
        if n == m && common == n {
            self.trace(n, m, 0, &mut keep);
            return true;
        }
        for d in 1..=limit as i32 {
            let (first, last) = cells(n, m, d);
            let count = (last - first + 1) as usize;
            let start = self.push(first, count);
            let before = self.at(d - 1, first - 1);
            if count < VECTOR_CELLS {
                for c in 0..count {
                    let k = 2 * (first + c as i32) - d;
                    let x = (self.cells[before + c] + 1)
                        .max(self.cells[before + c + 1])
                        .min(n)
                        .min(m + k);
                    let (i, j) = (x as usize, (x - k) as usize);
                    let runs_on = a.ids().get(i) == b.ids().get(j);
                    self.cells[start + c] = x + if runs_on { vectors.run(a, i, b, j) as i32 } else { 0 };
                }
            } else {
                let (earlier, after) = self.cells.split_at_mut(start);
                vectors.wave(a, b, 2 * first - d, count, &earlier[before..], after);
            }
            self.cells[start - 1] = NOWHERE;
            self.cells[start + count] = NOWHERE;
            let target = n - m + d;
            if target % 2 == 0 && (2 * first..=2 * last).contains(&target) && self.cells[self.at(d, target / 2)] == n {
                self.trace(n, m, d, &mut keep);
                return true;
            }
            if d % PROJECT_EVERY == 0 && 6 * d as usize >= limit && self.projected(n, m, d) > hopeless {
                return false;
            }
        }
        false
    }

    /// Make room for the next wave behind the others; return the index of its first cell.
    ///
    /// A whole vector may be read behind any cell but the last, and one may be written from any cell on.
    fn push(&mut self, first: i32, count: usize) -> usize {
        let start = self.end + 1;
        self.end = start + (count + 1).next_multiple_of(MAX_LANES) + 1;
        if self.cells.len() < self.end {
            self.cells.resize(2 * self.end, 0);
        }
        self.origins.push(start as isize - first as isize);
        start
    }

    /// The distance projected from the progress up to wave d.
    fn projected(&self, n: i32, m: i32, d: i32) -> usize {
        let (first, last) = cells(n, m, d);
        let furthest = (first..=last)
            .map(|i| 2 * self.cells[self.at(d, i)] - (2 * i - d))
            .max();
        d as usize * (n + m) as usize / furthest.unwrap_or(0).max(1) as usize
    }

    /// Walk back from (n, m): by an insertion if a shortest path has one there, else by a deletion, else by a match.
    fn trace(&self, n: i32, m: i32, distance: i32, keep: &mut impl FnMut(Run)) {
        let mut push = |x: i32, y: i32, length: i32| {
            keep(Run {
                original: x as u32,
                refined: y as u32,
                length: length as u32,
            });
        };
        let (mut x, mut k) = (n, n - m);
        for d in (1..=distance).rev() {
            let at = self.at(d - 1, (k + d) / 2);
            let (after_deletion, after_insertion) = (self.cells[at - 1] + 1, self.cells[at]);
            let entered = after_deletion.max(after_insertion).min(n).min(m + k);
            if x > entered {
                push(entered, entered - k, x - entered);
                x = entered;
            }
            if x <= after_insertion {
                k += 1;
            } else {
                x -= 1;
                k -= 1;
            }
        }
        if x > 0 {
            push(0, 0, x);
        }
    }
}
