//! Passes over the scores of a query, whose number is a multiple of the widest vector; written once for all levels.

use super::lanes::{exponential, Lanes, MAX_LANES};
use super::passes::{Block, Exponent, Spread};

/// The sum of all lanes, in pairs.
///
/// # Safety
/// The feature of `L`.
#[inline(always)]
unsafe fn total<L: Lanes>(vector: L) -> f32 {
    let mut values = [0.0; MAX_LANES];
    // SAFETY: the array holds the widest vector.
    unsafe { vector.store(values.as_mut_ptr()) };
    let mut half = MAX_LANES / 2;
    while half > 0 {
        for lane in 0..half {
            values[lane] += values[lane + half];
        }
        half /= 2;
    }
    values[0]
}

/// Overwrite scores with their exponentials; return the sum of these.
///
/// # Safety
/// The block can be written, and the feature of `L`.
#[inline(always)]
pub(super) unsafe fn weighing<L: Lanes>(scores: Block, exponent: Exponent) -> f32 {
    let (at, length) = scores.parts();
    // SAFETY: whole vectors lie within the block; the rest as the caller promises.
    unsafe {
        let exponent = Spread::<L>::of(exponent);
        let mut sum = L::splat(0.0);
        for i in (0..length).step_by(L::COUNT) {
            let weight = exponential(exponent.at(L::load(at.add(i))));
            weight.store(at.add(i));
            sum = sum.add(weight);
        }
        total(sum)
    }
}

/// Overwrite the slopes g of weights w by those of their scores, scale·w·(g − Σ w·g).
///
/// # Safety
/// The blocks are of the same length, the second can be written, and the feature of `L`.
#[inline(always)]
pub(super) unsafe fn tilting<L: Lanes>(weights: Block, slopes: Block, scale: f32) {
    let ((weights, length), (slopes, _)) = (weights.parts(), slopes.parts());
    // SAFETY: whole vectors lie within the blocks; the rest as the caller promises.
    unsafe {
        let mut sum = L::splat(0.0);
        for i in (0..length).step_by(L::COUNT) {
            sum = L::load(weights.add(i)).mul_add(L::load(slopes.add(i)), sum);
        }
        let (mean, scale) = (L::splat(total(sum)), L::splat(scale));
        for i in (0..length).step_by(L::COUNT) {
            let slope = L::load(slopes.add(i)).sub(mean);
            slope.mul(L::load(weights.add(i))).mul(scale).store(slopes.add(i));
        }
    }
}
