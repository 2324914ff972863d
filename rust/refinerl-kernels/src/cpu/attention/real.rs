//! The types of attention's elements: float32 in SIMD, and float64 in plain loops, for tests and for models in it.

use super::super::simd::{Exponent, Factor, Size, Vectors, MAX_LANES};

/// Numbers of columns are multiples of this.
pub(super) const LANES: usize = MAX_LANES;

/// A float.
pub trait Real: Copy + Default + Send + Sync + std::ops::Mul<Output = Self> + sealed::Sealed {
    /// −∞.
    #[doc(hidden)]
    const NEVER: Self;
    /// c = a·b, or c += a·b if `add`.
    #[doc(hidden)]
    fn multiply(
        vectors: Vectors,
        size: Size,
        a: Factor<'_, Self>,
        b: Factor<'_, Self>,
        c: (&mut [Self], usize),
        add: bool,
    );
    /// Overwrite scores with their exponentials, that of the largest being 1; return one over their sum.
    #[doc(hidden)]
    fn soften(vectors: Vectors, scores: &mut [Self], scale: Self) -> Self;
    /// Multiply weights by a factor.
    #[doc(hidden)]
    fn stretch(vectors: Vectors, weights: &mut [Self], factor: Self);
    /// Overwrite the slopes g of weights w by those of their scores, scale·w·(g − Σ w·g).
    #[doc(hidden)]
    fn tilt(vectors: Vectors, weights: &[Self], slopes: &mut [Self], scale: Self);
}

mod sealed {
    /// Only the floats below are `Real`.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

impl Real for f32 {
    const NEVER: Self = Self::NEG_INFINITY;

    fn multiply(
        vectors: Vectors,
        size: Size,
        a: Factor<'_, Self>,
        b: Factor<'_, Self>,
        c: (&mut [Self], usize),
        add: bool,
    ) {
        vectors.multiply_matrices(size, a, b, c, add);
    }

    fn soften(vectors: Vectors, scores: &mut [Self], scale: Self) -> Self {
        let largest = f64::from(vectors.maximum(scores)) * f64::from(scale);
        1.0 / vectors.weigh(scores, Exponent::new(scale, largest))
    }

    fn stretch(vectors: Vectors, weights: &mut [Self], factor: Self) {
        vectors.multiply(weights, factor);
    }

    fn tilt(vectors: Vectors, weights: &[Self], slopes: &mut [Self], scale: Self) {
        vectors.tilt(weights, slopes, scale);
    }
}

impl Real for f64 {
    const NEVER: Self = Self::NEG_INFINITY;

    fn multiply(
        _: Vectors,
        size: Size,
        a: Factor<'_, Self>,
        b: Factor<'_, Self>,
        (c, c_row): (&mut [Self], usize),
        add: bool,
    ) {
        for row in 0..size.rows {
            let sums = &mut c[row * c_row..][..size.columns];
            if !add {
                sums.fill(0.0);
            }
            for term in 0..size.terms {
                let left = a.values[row * a.row + term * a.step];
                for (sum, right) in sums.iter_mut().zip(&b.values[term * b.row..]) {
                    *sum += left * right;
                }
            }
        }
    }

    fn soften(_: Vectors, scores: &mut [Self], scale: Self) -> Self {
        let largest = scores.iter().copied().fold(Self::NEVER, Self::max) * scale;
        let mut sum = 0.0;
        for score in scores {
            *score = (*score * scale - largest).exp();
            sum += *score;
        }
        1.0 / sum
    }

    fn stretch(_: Vectors, weights: &mut [Self], factor: Self) {
        for weight in weights {
            *weight *= factor;
        }
    }

    fn tilt(_: Vectors, weights: &[Self], slopes: &mut [Self], scale: Self) {
        let mean: Self = weights.iter().zip(&*slopes).map(|(w, g)| w * g).sum();
        for (w, g) in weights.iter().zip(slopes) {
            *g = scale * w * (*g - mean);
        }
    }
}
