//! A vector of float32, and the exponential on it.

/// Lanes of the widest level.
pub(in super::super) const MAX_LANES: usize = 16;

/// Lower bound of exponents; smaller ones are clamped to it. Its exponential is 0, and so is their product.
pub(super) const LOWEST: f32 = -104.0;

/// The smallest exponent whose exponential is a normal number.
const SMALLEST: f32 = -87.336_54;

/// A vector of f32.
///
/// # Safety
/// Every method needs the processor feature of its type; `load` and `store` need their memory to be there.
pub(super) trait Lanes: Copy {
    const COUNT: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// self·factor + term, rounded once where the level has FMA.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// self·factor + term, the product not rounded.
    unsafe fn exact_mul_add(self, factor: Self, term: Self) -> Self;
    /// The larger; `other` where either is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// 0 where `of` is below `bound`, else self, also for NaN.
    unsafe fn unless_below(self, of: Self, bound: Self) -> Self;
    /// Shift the bits left by 23, into the field of the exponent.
    unsafe fn to_exponent(self) -> Self;
}

/// exp x within two units of the last place for x from −87.3 to 88, 0 below, NaN for NaN.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2. A polynomial approximates exp r (coefficients from Cephes); 2ⁿ is built from
/// bits.
///
/// # Safety
/// The feature of `L`; x is at least `LOWEST`.
#[inline(always)]
pub(super) unsafe fn exponential<L: Lanes>(x: L) -> L {
    // 1.5·2²³: adding it rounds to an integer, which then stands in the lowest bits; 127 is the exponent's bias.
    const ROUNDING: f32 = 12_582_912.0;
    const BIASED: f32 = ROUNDING + 127.0;
    // ln 2 in two parts; the first has so few bits that n times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // SAFETY: as the caller promises.
    unsafe {
        let biased = x.mul_add(L::splat(std::f32::consts::LOG2_E), L::splat(BIASED));
        let n = biased.sub(L::splat(BIASED));
        let r = n.mul_add(L::splat(-LN2_HIGH), x);
        let r = n.mul_add(L::splat(-LN2_LOW), r);
        let p = L::splat(1.987_569_1e-4);
        let p = p.mul_add(r, L::splat(1.398_2e-3));
        let p = p.mul_add(r, L::splat(8.333_452e-3));
        let p = p.mul_add(r, L::splat(4.166_579_6e-2));
        let p = p.mul_add(r, L::splat(1.666_666_5e-1));
        let p = p.mul_add(r, L::splat(0.5));
        let p = p.mul_add(r.mul(r), r).add(L::splat(1.0));
        p.mul(biased.to_exponent()).unless_below(x, L::splat(SMALLEST))
    }
}

/// Lanes in an array.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; MAX_LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }
}

impl Lanes for Portable {
    const COUNT: usize = MAX_LANES;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; MAX_LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { from.cast::<[f32; MAX_LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe { to.cast::<[f32; MAX_LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            // Without the instruction, `f32::mul_add` calls a slow function.
            if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
                self.0[lane].mul_add(factor.0[lane], term.0[lane])
            } else {
                self.0[lane] * factor.0[lane] + term.0[lane]
            }
        }))
    }
    #[inline(always)]
    unsafe fn exact_mul_add(self, factor: Self, term: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            (f64::from(self.0[lane]) * f64::from(factor.0[lane]) + f64::from(term.0[lane])) as f32
        }))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn unless_below(self, of: Self, bound: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            if of.0[lane] < bound.0[lane] {
                0.0
            } else {
                self.0[lane]
            }
        }))
    }
    #[inline(always)]
    unsafe fn to_exponent(self) -> Self {
        Self(self.0.map(|value| f32::from_bits(value.to_bits() << 23)))
    }
}
