//! Products of small matrices, written once for all levels.

use super::lanes::{Lanes, MAX_LANES};

/// Rows of a product whose sums are in registers at a time, with two vectors of columns.
const ROWS: usize = 6;

/// A factor with any strides: element (i, j) is at `i·row + j·step`.
#[derive(Clone, Copy, Debug)]
pub struct Factor<'a, T> {
    pub values: &'a [T],
    pub row: usize,
    pub step: usize,
}

impl<'a, T> Factor<'a, T> {
    /// A matrix whose rows are `row` apart.
    pub fn rows(values: &'a [T], row: usize) -> Self {
        Self { values, row, step: 1 }
    }
}

/// The numbers of rows, of columns, and of terms in each sum.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub rows: usize,
    pub columns: usize,
    pub terms: usize,
}

/// The addresses of c = a·b or c += a·b, checked: (rows, terms) times (terms, columns), whole vectors of columns.
#[derive(Clone, Copy)]
pub(super) struct Product {
    a: *const f32,
    a_row: usize,
    a_step: usize,
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    size: Size,
    add: bool,
}

impl Product {
    /// # Panics
    /// If an element lies outside of its slice, b's columns are not side by side, or the columns are no multiple of
    /// the widest vector.
    pub(super) fn new(
        size: Size,
        a: Factor<'_, f32>,
        b: Factor<'_, f32>,
        (c, c_row): (&mut [f32], usize),
        add: bool,
    ) -> Self {
        let Size { rows, columns, terms } = size;
        assert!(columns.is_multiple_of(MAX_LANES) && b.step == 1);
        if rows > 0 && columns > 0 {
            assert!((rows - 1) * c_row + columns <= c.len());
            if terms > 0 {
                assert!((rows - 1) * a.row + (terms - 1) * a.step < a.values.len());
                assert!((terms - 1) * b.row + columns <= b.values.len());
            }
        }
        Self {
            a: a.values.as_ptr(),
            a_row: a.row,
            a_step: a.step,
            b: b.values.as_ptr(),
            b_row: b.row,
            c: c.as_mut_ptr(),
            c_row,
            size,
            add,
        }
    }
}

/// # Safety
/// The feature of `L`.
#[inline(always)]
pub(super) unsafe fn multiplied<L: Lanes>(product: Product) {
    let Size { rows, columns, .. } = product.size;
    let mut column = 0;
    // SAFETY: blocks lie within the product, which was checked.
    unsafe {
        while column + 2 * L::COUNT <= columns {
            for row in (0..rows).step_by(ROWS) {
                block::<L, 2>(product, row, column);
            }
            column += 2 * L::COUNT;
        }
        if column < columns {
            for row in (0..rows).step_by(ROWS) {
                block::<L, 1>(product, row, column);
            }
        }
    }
}

/// Compute at most `ROWS` rows of `N` vectors.
///
/// # Safety
/// The vectors lie within the product, and the feature of `L`.
#[inline(always)]
unsafe fn block<L: Lanes, const N: usize>(product: Product, row: usize, column: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        match product.size.rows - row {
            1 => sums::<L, 1, N>(product, row, column),
            2 => sums::<L, 2, N>(product, row, column),
            3 => sums::<L, 3, N>(product, row, column),
            4 => sums::<L, 4, N>(product, row, column),
            5 => sums::<L, 5, N>(product, row, column),
            _ => sums::<L, ROWS, N>(product, row, column),
        }
    }
}

/// # Safety
/// As `block`, of `M` rows.
#[inline(always)]
unsafe fn sums<L: Lanes, const M: usize, const N: usize>(product: Product, row: usize, column: usize) {
    let Product {
        a_row,
        a_step,
        b_row,
        c_row,
        ..
    } = product;
    // SAFETY: as the caller promises.
    unsafe {
        let a = product.a.add(row * a_row);
        let b = product.b.add(column);
        let c = product.c.add(row * c_row + column);
        let mut found = [[L::splat(0.0); N]; M];
        if product.add {
            for (i, found) in found.iter_mut().enumerate() {
                for (n, found) in found.iter_mut().enumerate() {
                    *found = L::load(c.add(i * c_row + n * L::COUNT));
                }
            }
        }
        for term in 0..product.size.terms {
            let mut right = [L::splat(0.0); N];
            for (n, right) in right.iter_mut().enumerate() {
                *right = L::load(b.add(term * b_row + n * L::COUNT));
            }
            for (i, found) in found.iter_mut().enumerate() {
                let left = L::splat(*a.add(i * a_row + term * a_step));
                for (found, right) in found.iter_mut().zip(right) {
                    *found = left.mul_add(right, *found);
                }
            }
        }
        for (i, found) in found.into_iter().enumerate() {
            for (n, found) in found.into_iter().enumerate() {
                found.store(c.add(i * c_row + n * L::COUNT));
            }
        }
    }
}
