//! The step from a row of the bit-parallel longest common subsequence to the next: of few words, or 8 words at a time.

use crate::shared::Shared;

/// Words in a vector.
pub(crate) const ROW_WORDS: usize = 8;

/// Rows of at most this many words are kept in registers from row to row.
pub(crate) const NARROW_WORDS: usize = 8;

/// A row's words, cut into vectors.
type Words = [[u64; ROW_WORDS]];

/// after = (before + (before & mask)) | (before & !mask), as one long number; word by word.
pub(super) fn portable(before: &Words, mask: &Words, after: &mut Words) {
    let mut carry = false;
    for ((before, mask), after) in before.iter().zip(mask).zip(after) {
        for ((v, mask), after) in before.iter().zip(mask).zip(after) {
            let (sum, over) = v.overflowing_add(v & mask);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            *after = sum | (v & !mask);
            carry = over | over_again;
        }
    }
}

/// Fill rows of at most `NARROW_WORDS` words, whose first row is there, with a row for each token.
#[inline(always)]
pub(super) fn narrow(masks: &[u64], rows: &mut [u64], width: usize, tokens: &[Shared]) {
    match width {
        1 => narrow_of::<1>(masks, rows, tokens),
        2 => narrow_of::<2>(masks, rows, tokens),
        3 => narrow_of::<3>(masks, rows, tokens),
        4 => narrow_of::<4>(masks, rows, tokens),
        5 => narrow_of::<5>(masks, rows, tokens),
        6 => narrow_of::<6>(masks, rows, tokens),
        7 => narrow_of::<7>(masks, rows, tokens),
        8 => narrow_of::<8>(masks, rows, tokens),
        _ => unreachable!("rows of {width} words are not narrow"),
    }
}

#[inline(always)]
fn narrow_of<const W: usize>(masks: &[u64], rows: &mut [u64], tokens: &[Shared]) {
    let (masks, rows) = (masks.as_chunks::<W>().0, rows.as_chunks_mut::<W>().0);
    let mut row = rows[0];
    for (token, stored) in tokens.iter().zip(&mut rows[1..]) {
        let mut carry = false;
        for (v, mask) in row.iter_mut().zip(&masks[token.number as usize]) {
            let (sum, over) = v.overflowing_add(*v & mask);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            *v = sum | (*v & !mask);
            carry = over | over_again;
        }
        *stored = row;
    }
}

/// The same as `portable`, 8 words at a time. Their carries are found by one addition of 8-bit numbers: a word whose sum
/// is over passes a carry to the next, and a word of ones passes on the one that it gets.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub(super) fn avx512(before: &Words, mask: &Words, after: &mut Words) {
    use std::arch::x86_64::*;

    let ones = _mm512_set1_epi64(-1);
    let mut carry = 0;
    for ((before, mask), after) in before.iter().zip(mask).zip(after) {
        // SAFETY: each is an array of 64 bytes.
        let (v, mask) = unsafe {
            (
                _mm512_loadu_si512(before.as_ptr().cast()),
                _mm512_loadu_si512(mask.as_ptr().cast()),
            )
        };
        let sum = _mm512_add_epi64(v, _mm512_and_si512(v, mask));
        let over = u32::from(_mm512_cmplt_epu64_mask(sum, v));
        let full = u32::from(_mm512_cmpeq_epi64_mask(sum, ones));
        let carried = 2 * over + full + carry;
        carry = carried >> ROW_WORDS;
        let sum = _mm512_mask_sub_epi64(sum, (carried ^ full) as u8, sum, ones);
        let next = _mm512_or_si512(sum, _mm512_andnot_si512(mask, v));
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(after.as_mut_ptr().cast(), next) }
    }
}

/// The same in halves of 4 words.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(super) fn avx2(before: &Words, mask: &Words, after: &mut Words) {
    use std::arch::x86_64::*;

    let (ones, bits) = (_mm256_set1_epi64x(-1), _mm256_setr_epi64x(1, 2, 4, 8));
    let signs = |words| _mm256_movemask_pd(_mm256_castsi256_pd(words)) as u32;
    let mut carry = 0;
    for ((before, mask), after) in before.iter().zip(mask).zip(after) {
        // SAFETY: each is an array of 64 bytes.
        let load = |words: &[u64; ROW_WORDS], half| unsafe { _mm256_loadu_si256(words.as_ptr().add(4 * half).cast()) };
        let (mut sums, mut kept) = ([ones; 2], [ones; 2]);
        let (mut over, mut full) = (0, 0);
        for half in 0..2 {
            let (v, mask) = (load(before, half), load(mask, half));
            let matches = _mm256_and_si256(v, mask);
            let sum = _mm256_add_epi64(v, matches);
            // Of the highest bits two were set, or one that no longer is.
            let carries = _mm256_or_si256(matches, _mm256_andnot_si256(sum, v));
            over |= signs(carries) << (4 * half);
            full |= signs(_mm256_cmpeq_epi64(sum, ones)) << (4 * half);
            (sums[half], kept[half]) = (sum, _mm256_andnot_si256(mask, v));
        }
        let carried = 2 * over + full + carry;
        carry = carried >> ROW_WORDS;
        for half in 0..2 {
            let lanes = _mm256_set1_epi64x(i64::from((carried ^ full) >> (4 * half)));
            let one = _mm256_cmpeq_epi64(_mm256_and_si256(lanes, bits), bits); // −1 in a word that gets a carry
            let next = _mm256_or_si256(_mm256_sub_epi64(sums[half], one), kept[half]);
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(after.as_mut_ptr().add(4 * half).cast(), next) };
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use proptest::prelude::*;

    /// Words in which carries start, run on and end.
    fn word() -> impl Strategy<Value = u64> {
        prop_oneof![Just(u64::MAX), Just(0), Just(1 << 63), any::<u64>()]
    }

    proptest! {
        #[test]
        fn vectors_do_what_words_do(words in prop::collection::vec((word(), word()), 24)) {
            let (before, mask): (Vec<u64>, Vec<u64>) = words.into_iter().unzip();
            let (before, mask) = (before.as_chunks().0, mask.as_chunks().0);
            let (mut expected, mut found) = ([[0; 8]; 3], [[0; 8]; 3]);
            super::portable(before, mask, &mut expected);
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the feature is there.
                unsafe { super::avx2(before, mask, &mut found) };
                prop_assert_eq!(found, expected);
            }
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the feature is there.
                unsafe { super::avx512(before, mask, &mut found) };
                prop_assert_eq!(found, expected);
            }
        }
    }
}
