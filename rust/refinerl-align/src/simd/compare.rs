//! Rows of one word for short sequences, whose tokens are compared with each other: no table of them is needed.

use super::Lanes;
use crate::shared::Shared;

/// Tokens of ỹ of which a word has a bit each.
pub(crate) const WORD: usize = 64;

/// Fill rows of one word, the first of which is there, with a row for each token of y.
///
/// # Safety
/// `b` is padded and has this number of tokens, at most `WORD`, and the feature of `L`.
#[inline(always)]
pub(super) unsafe fn compare<L: Lanes>(a: &[Shared], b: *const i32, tokens: usize, rows: &mut [u64]) {
    // SAFETY: as the caller promises.
    unsafe {
        match tokens.div_ceil(L::COUNT) {
            1 => compare_with::<L, 1>(a, b, rows),
            2 => compare_with::<L, 2>(a, b, rows),
            3 => compare_with::<L, 3>(a, b, rows),
            4 => compare_with::<L, 4>(a, b, rows),
            5 | 6 => compare_with::<L, 6>(a, b, rows),
            _ => compare_with::<L, 8>(a, b, rows),
        }
    }
}

/// # Safety
/// As for `compare`.
#[inline(always)]
unsafe fn compare_with<L: Lanes, const N: usize>(a: &[Shared], b: *const i32, rows: &mut [u64]) {
    // SAFETY: as the caller promises; what lies behind the tokens equals none of y.
    let b: [L; N] = std::array::from_fn(|vector| unsafe { L::load(b.add(vector * L::COUNT)) });
    let mut v = rows[0];
    for (token, row) in a.iter().zip(&mut rows[1..]) {
        // SAFETY: the feature is there.
        let token = unsafe { L::splat(token.number as i32) };
        let mut mask = 0;
        for (vector, b) in b.iter().enumerate() {
            // SAFETY: as above.
            mask |= u64::from(unsafe { token.equal(*b) }) << (vector * L::COUNT % 64);
        }
        v = v.wrapping_add(v & mask) | (v & !mask);
        *row = v;
    }
}
