//! The backward pass of one head.

use super::super::simd::{Factor, Size, Vectors};
use super::forward::{score, transpose};
use super::real::LANES;
use super::{Head, Inputs, Real, Tile, Tree, TILE};

/// Write the gradients of queries, keys and values of a head, (T, width) each.
pub(super) fn walk<T: Real>(
    vectors: Vectors,
    tree: &Tree,
    head: Head,
    inputs: Inputs<'_, T>,
    slopes: &[T],
    [to_queries, to_keys, to_values]: [&mut [T]; 3],
) {
    let (width, padded, columns) = (head.heads.width, head.padded(), tree.columns());
    let mut stack = Stack::new(head, columns);
    let mut weights = vec![T::default(); TILE * columns];
    let mut tilts = vec![T::default(); TILE * columns];
    let [mut queries, mut upstream, mut sums] = std::array::from_fn(|_| vec![T::default(); TILE * padded]);
    for &tile in &tree.tiles {
        stack.push(tile, inputs, to_keys, to_values);
        let seen = tile.seen();
        score(vectors, head, tile, (inputs.queries, &stack.keys), &mut weights);
        score(vectors, head, tile, (slopes, &stack.values), &mut tilts);
        for i in 0..tile.count {
            let row = i * columns..i * columns + seen.next_multiple_of(LANES);
            let (weights, tilts) = (&mut weights[row.clone()], &mut tilts[row]);
            weights[tile.depth + i + 1..].fill(T::NEVER);
            let inverse = T::soften(vectors, weights, inputs.scale);
            T::stretch(vectors, weights, inverse);
            T::tilt(vectors, weights, tilts, inputs.scale);
            let at = head.query(tile.first + i);
            queries[i * padded..][..width].copy_from_slice(&inputs.queries[at..at + width]);
            upstream[i * padded..][..width].copy_from_slice(&slopes[at..at + width]);
        }
        let size = Size {
            rows: tile.count,
            columns: padded,
            terms: seen,
        };
        let by_row = Factor::rows(&tilts, columns);
        T::multiply(
            vectors,
            size,
            by_row,
            Factor::rows(&stack.key_rows, padded),
            (&mut sums, padded),
            false,
        );
        for i in 0..tile.count {
            to_queries[(tile.first + i) * width..][..width].copy_from_slice(&sums[i * padded..][..width]);
        }
        let size = Size {
            rows: seen,
            columns: padded,
            terms: tile.count,
        };
        let ways = [
            (&tilts, &queries, &mut stack.to_keys),
            (&weights, &upstream, &mut stack.to_values),
        ];
        for (slopes, rows, sums) in ways {
            let by_key = Factor {
                values: slopes.as_slice(),
                row: 1,
                step: columns,
            };
            T::multiply(vectors, size, by_key, Factor::rows(rows, padded), (sums, padded), true);
        }
    }
    stack.finish(to_keys, to_values);
}

/// The tokens on the path, with the sums of their gradients.
struct Stack<T> {
    head: Head,
    columns: usize,
    keys: Vec<T>,   // transposed
    values: Vec<T>, // transposed
    key_rows: Vec<T>,
    to_keys: Vec<T>,
    to_values: Vec<T>,
    owners: Vec<Option<usize>>,
}

impl<T: Real> Stack<T> {
    fn new(head: Head, columns: usize) -> Self {
        let (transposed, rows) = (head.heads.width * columns, columns * head.padded());
        Self {
            head,
            columns,
            keys: vec![T::default(); transposed],
            values: vec![T::default(); transposed],
            key_rows: vec![T::default(); rows],
            to_keys: vec![T::default(); rows],
            to_values: vec![T::default(); rows],
            owners: vec![None; columns],
        }
    }

    /// Put the tokens of a tile over those of their depths, whose gradients are complete.
    fn push(&mut self, tile: Tile, inputs: Inputs<'_, T>, to_keys: &mut [T], to_values: &mut [T]) {
        let width = self.head.heads.width;
        for i in 0..tile.count {
            let depth = tile.depth + i;
            self.write(depth, to_keys, to_values);
            self.owners[depth] = Some(tile.first + i);
            let at = self.head.key(tile.first + i);
            let key = &inputs.keys[at..at + width];
            transpose(key, &mut self.keys, self.columns, depth);
            transpose(&inputs.values[at..at + width], &mut self.values, self.columns, depth);
            self.key_rows[depth * self.head.padded()..][..width].copy_from_slice(key);
        }
    }

    /// Write the gradients of all that are left.
    fn finish(&mut self, to_keys: &mut [T], to_values: &mut [T]) {
        for depth in 0..self.columns {
            self.write(depth, to_keys, to_values);
        }
    }

    fn write(&mut self, depth: usize, to_keys: &mut [T], to_values: &mut [T]) {
        let (width, padded) = (self.head.heads.width, self.head.padded());
        if let Some(token) = self.owners[depth].take() {
            for (sums, to) in [(&mut self.to_keys, to_keys), (&mut self.to_values, to_values)] {
                let sums = &mut sums[depth * padded..][..padded];
                to[token * width..][..width].copy_from_slice(&sums[..width]);
                sums.fill(T::default());
            }
        }
    }
}
