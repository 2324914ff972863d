//! The vector code, and the only unsafe code of this crate on the CPU: passes over a block, and products. Each is written
//! once over [`Lanes`] and compiled for AVX-512, AVX2 with FMA and plain arrays; tests run every level that their
//! processor has.
#![allow(unsafe_code)]

mod lanes;
mod passes;
mod products;
mod weights;
#[cfg(target_arch = "x86_64")]
mod x86;

use lanes::Portable;
pub(super) use lanes::MAX_LANES;
pub(super) use passes::Exponent;
use passes::{maximum, multiply, reading, sloped, writing, Block};
use products::{multiplied, Product};
pub use products::{Factor, Size};
pub use refinerl_simd::Level;
use weights::{tilting, weighing};

/// A level that this processor has: the safe functions below rely on it.
#[derive(Clone, Copy, Debug)]
pub struct Vectors(Level);

impl Vectors {
    /// # Panics
    /// If this processor lacks the level.
    pub(super) fn new(level: Level) -> Self {
        assert!(level.is_available(), "this processor lacks {level:?}");
        Self(level)
    }
}

/// Run `$generic` at the level of `$vectors` with the processor features of that level enabled. Levels differ in the
/// last bits of a result: without FMA a product is rounded before it is added.
macro_rules! dispatch {
    ($vectors:expr, $generic:ident($($name:ident: $kind:ty),*) $(-> $result:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2($($name: $kind),*) $(-> $result)? {
            // SAFETY: the features are on; the rest as the caller promises.
            unsafe { $generic::<x86::Avx2>($($name),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f")]
        unsafe fn avx512($($name: $kind),*) $(-> $result)? {
            // SAFETY: the feature is on; the rest as the caller promises.
            unsafe { $generic::<x86::Avx512>($($name),*) }
        }
        // SAFETY: `Vectors` holds levels that this processor has; the block is a slice of the caller's, shared where
        // it is only read and exclusive where it is written.
        unsafe {
            match $vectors.0 {
                Level::Portable => $generic::<Portable>($($name),*),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => avx2($($name),*),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => avx512($($name),*),
            }
        }
    }};
}

impl Vectors {
    /// The largest element, ignoring NaN.
    pub(super) fn maximum(self, block: &[f32]) -> f32 {
        let block = Block::reading(block);
        dispatch!(self, maximum(block: Block) -> f32)
    }

    /// Σ e and Σ e·d over e = exp d of the exponents d. Terms with d below `LOWEST` are 0.
    pub(super) fn sums(self, block: &[f32], exponent: Exponent) -> (f64, f64) {
        let block = Block::reading(block);
        dispatch!(self, reading(block: Block, exponent: Exponent) -> (f64, f64))
    }

    /// Compute `sums`, and overwrite z with e.
    pub(super) fn exponentials(self, block: &mut [f32], exponent: Exponent) -> (f64, f64) {
        let block = Block::of(block);
        dispatch!(self, writing(block: Block, exponent: Exponent) -> (f64, f64))
    }

    /// Multiply every element by `factor`.
    pub(super) fn multiply(self, block: &mut [f32], factor: f32) {
        let block = Block::of(block);
        dispatch!(self, multiply(block: Block, factor: f32))
    }

    /// Overwrite z with p·(constant + slope·log p); the exponents are log p.
    pub(super) fn slope(self, block: &mut [f32], exponent: Exponent, constant: f32, slope: f32) {
        let block = Block::of(block);
        dispatch!(self, sloped(block: Block, exponent: Exponent, constant: f32, slope: f32));
    }

    /// Overwrite z with e = exp d of the exponents d; return Σ e. The length is a multiple of `MAX_LANES`.
    pub(super) fn weigh(self, scores: &mut [f32], exponent: Exponent) -> f32 {
        assert!(scores.len().is_multiple_of(MAX_LANES));
        let scores = Block::of(scores);
        dispatch!(self, weighing(scores: Block, exponent: Exponent) -> f32)
    }

    /// Overwrite the slopes g of weights w by those of their scores, scale·w·(g − Σ w·g). The length is a multiple of
    /// `MAX_LANES`.
    pub(super) fn tilt(self, weights: &[f32], slopes: &mut [f32], scale: f32) {
        assert!(weights.len() == slopes.len() && weights.len().is_multiple_of(MAX_LANES));
        let (weights, slopes) = (Block::reading(weights), Block::of(slopes));
        dispatch!(self, tilting(weights: Block, slopes: Block, scale: f32));
    }

    /// Compute c = a·b, or c += a·b if `add`; c is given with the distance of its rows.
    ///
    /// # Panics
    /// If an element lies outside of its slice, b's columns are not side by side, or the columns are no multiple of
    /// `MAX_LANES`.
    pub(super) fn multiply_matrices(
        self,
        size: Size,
        a: Factor<'_, f32>,
        b: Factor<'_, f32>,
        c: (&mut [f32], usize),
        add: bool,
    ) {
        let product = Product::new(size, a, b, c, add);
        dispatch!(self, multiplied(product: Product));
    }
}

#[cfg(test)]
mod tests {
    use super::{Exponent, Level, Vectors};

    /// In units of the last place of the exact value.
    fn error(vectors: Vectors, x: f32) -> f64 {
        let mut block = [x; 3];
        vectors.exponentials(&mut block, Exponent::new(1.0, 0.0));
        let exact = f64::from(x).exp();
        let place = f64::from(f32::EPSILON) * 2f64.powi(exact.log2().floor() as i32);
        (f64::from(block[1]) - exact).abs() / place
    }

    #[test]
    fn the_exponential_is_within_two_units_of_the_last_place() {
        for level in Level::available() {
            let vectors = Vectors::new(level);
            let worst = (0..20_000)
                .map(|i| error(vectors, -87.33 * i as f32 / 20_000.0))
                .fold(0.0, f64::max);
            assert!(worst < 2.0, "{level:?}: {worst}");
            assert!(error(vectors, 0.0) == 0.0 && error(vectors, 1e-3) < 2.0 && error(vectors, 80.0) < 2.0);
        }
    }

    #[test]
    fn the_exponential_ends_at_zero_and_keeps_nan() {
        for level in Level::available() {
            let mut block = [
                -88.0,
                -1e4,
                f32::NEG_INFINITY,
                f32::MIN,
                f32::NAN,
                -f32::NAN,
                f32::from_bits(0x7f80_0001),
            ];
            Vectors::new(level).exponentials(&mut block, Exponent::new(1.0, 0.0));
            assert_eq!(block[..4], [0.0; 4], "{level:?}");
            assert!(block[4..].iter().all(|e| e.is_nan()), "{level:?}");
        }
    }
}
