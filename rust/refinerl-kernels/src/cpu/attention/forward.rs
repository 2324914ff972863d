//! The forward pass of one head.

use super::super::simd::{Factor, Size, Vectors};
use super::real::LANES;
use super::{Head, Heads, Inputs, Real, Tile, Tree, TILE};

/// Write the means of a head, (T, width).
pub(super) fn walk<T: Real>(vectors: Vectors, tree: &Tree, head: Head, inputs: Inputs<'_, T>, means: &mut [T]) {
    let (width, padded, columns) = (head.heads.width, head.padded(), tree.columns());
    let mut keys = vec![T::default(); width * columns]; // transposed
    let mut values = vec![T::default(); columns * padded];
    let mut scores = vec![T::default(); TILE * columns];
    let mut sums = vec![T::default(); TILE * padded];
    for &tile in &tree.tiles {
        for i in 0..tile.count {
            let (at, depth) = (head.key(tile.first + i), tile.depth + i);
            transpose(&inputs.keys[at..at + width], &mut keys, columns, depth);
            values[depth * padded..][..width].copy_from_slice(&inputs.values[at..at + width]);
        }
        let seen = tile.seen();
        score(vectors, head, tile, (inputs.queries, &keys), &mut scores);
        let mut inverses = [T::default(); TILE];
        for i in 0..tile.count {
            let scores = &mut scores[i * columns..][..seen.next_multiple_of(LANES)];
            scores[tile.depth + i + 1..].fill(T::NEVER);
            inverses[i] = T::soften(vectors, scores, inputs.scale);
        }
        let size = Size {
            rows: tile.count,
            columns: padded,
            terms: seen,
        };
        T::multiply(
            vectors,
            size,
            Factor::rows(&scores, columns),
            Factor::rows(&values, padded),
            (&mut sums, padded),
            false,
        );
        for i in 0..tile.count {
            let means = &mut means[(tile.first + i) * width..][..width];
            for (mean, &sum) in means.iter_mut().zip(&sums[i * padded..]) {
                *mean = sum * inverses[i];
            }
        }
    }
}

/// Write a row into a column of a matrix whose rows are `columns` apart.
pub(super) fn transpose<T: Copy>(row: &[T], matrix: &mut [T], columns: usize, column: usize) {
    for (at, &value) in matrix[column..].iter_mut().step_by(columns).zip(row) {
        *at = value;
    }
}

/// Multiply a tile's rows of (T, heads, width) with the columns of a stack, (width, columns).
pub(super) fn score<T: Real>(vectors: Vectors, head: Head, tile: Tile, (rows, stack): (&[T], &[T]), scores: &mut [T]) {
    let Heads { queries, width, .. } = head.heads;
    let columns = stack.len() / width;
    let a = Factor {
        values: &rows[head.query(tile.first)..],
        row: queries * width,
        step: 1,
    };
    let size = Size {
        rows: tile.count,
        columns: tile.seen().next_multiple_of(LANES),
        terms: width,
    };
    T::multiply(vectors, size, a, Factor::rows(stack, columns), (scores, columns), false);
}
