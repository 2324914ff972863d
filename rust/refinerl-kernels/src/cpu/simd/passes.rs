//! The passes over a block of logits, written once for all levels.

use super::lanes::{exponential, Lanes, LOWEST, MAX_LANES};

/// Exponents d = scale·z − origin. The origin has two parts, so that d of the largest logit is exactly 0 at any size.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Exponent {
    scale: f32,
    high: f32,
    low: f32,
}

impl Exponent {
    pub(in super::super) fn new(scale: f32, origin: f64) -> Self {
        let high = origin as f32;
        let low = if high.is_finite() {
            (origin - f64::from(high)) as f32
        } else {
            0.0
        };
        Self { scale, high, low }
    }
}

/// An exponent in all lanes.
#[derive(Clone, Copy)]
pub(super) struct Spread<L> {
    scale: L,
    high: L,
    low: L,
    lowest: L,
}

impl<L: Lanes> Spread<L> {
    /// # Safety
    /// The feature of `L`.
    #[inline(always)]
    pub(super) unsafe fn of(exponent: Exponent) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            Self {
                scale: L::splat(exponent.scale),
                high: L::splat(-exponent.high),
                low: L::splat(-exponent.low),
                lowest: L::splat(LOWEST),
            }
        }
    }

    /// d, where it is not below `LOWEST`.
    ///
    /// # Safety
    /// The feature of `L`.
    #[inline(always)]
    pub(super) unsafe fn at(self, z: L) -> L {
        // SAFETY: as the caller promises.
        unsafe { self.lowest.max(z.exact_mul_add(self.scale, self.high).add(self.low)) }
    }
}

/// The address and length of a block.
#[derive(Clone, Copy)]
pub(super) struct Block {
    at: *mut f32,
    length: usize,
}

impl Block {
    pub(super) fn of(values: &mut [f32]) -> Self {
        Self {
            at: values.as_mut_ptr(),
            length: values.len(),
        }
    }

    /// Create one for reading: `each` writes only for passes that say so.
    pub(super) fn reading(values: &[f32]) -> Self {
        Self {
            at: values.as_ptr().cast_mut(),
            length: values.len(),
        }
    }

    pub(super) fn parts(self) -> (*mut f32, usize) {
        (self.at, self.length)
    }
}

/// An operation on each vector of a block. Closures would not do: they are compiled without the level's features.
///
/// # Safety
/// The feature of `L`.
trait Pass<L: Lanes> {
    /// The value that fills up the last vector.
    const REST: f32;
    /// True if results are written back.
    const WRITES: bool;
    unsafe fn step(&mut self, z: L) -> L;
}

/// # Safety
/// The block's memory is there, for writing if the pass writes; and the feature of `L`.
#[inline(always)]
unsafe fn each<L: Lanes, P: Pass<L>>(block: Block, pass: &mut P) {
    let Block { at, length } = block;
    let whole = length - length % L::COUNT;
    // SAFETY: vectors below `whole` lie within the block, and the rest is shorter than the array on the stack.
    unsafe {
        let mut i = 0;
        while i < whole {
            let result = pass.step(L::load(at.add(i)));
            if P::WRITES {
                result.store(at.add(i));
            }
            i += L::COUNT;
        }
        if whole < length {
            let mut last = [P::REST; MAX_LANES];
            at.add(whole).copy_to_nonoverlapping(last.as_mut_ptr(), length - whole);
            let result = pass.step(L::load(last.as_ptr()));
            if P::WRITES {
                result.store(last.as_mut_ptr());
                at.add(whole).copy_from_nonoverlapping(last.as_ptr(), length - whole);
            }
        }
    }
}

/// The lanes as an array that is filled up with `rest`.
///
/// # Safety
/// The feature of `L`.
#[inline(always)]
unsafe fn lanes_of<L: Lanes>(vector: L, rest: f32) -> [f32; MAX_LANES] {
    let mut values = [rest; MAX_LANES];
    // SAFETY: the array holds the widest vector.
    unsafe { vector.store(values.as_mut_ptr()) };
    values
}

/// Two maxima that take turns, to hide the latency of one.
struct Maximum<L>([L; 2]);

impl<L: Lanes> Pass<L> for Maximum<L> {
    const REST: f32 = f32::NEG_INFINITY;
    const WRITES: bool = false;
    #[inline(always)]
    unsafe fn step(&mut self, z: L) -> L {
        // SAFETY: as the caller promises.
        unsafe { self.0 = [self.0[1], z.max(self.0[0])] };
        z
    }
}

/// # Safety
/// The block can be read, and the feature of `L`.
#[inline(always)]
pub(super) unsafe fn maximum<L: Lanes>(block: Block) -> f32 {
    // SAFETY: as the caller promises.
    unsafe {
        let mut pass = Maximum([L::splat(f32::NEG_INFINITY); 2]);
        each(block, &mut pass);
        let both = pass.0[0].max(pass.0[1]);
        let mut largest = f32::NEG_INFINITY;
        for lane in lanes_of(both, f32::NEG_INFINITY) {
            largest = largest.max(lane);
        }
        largest
    }
}

/// Two sums of each kind that take turns, so that each has fewer terms.
struct Exponentials<L, const WRITES: bool> {
    exponent: Spread<L>,
    sums: [L; 2],
    dots: [L; 2],
}

impl<L: Lanes, const WRITES: bool> Pass<L> for Exponentials<L, WRITES> {
    const REST: f32 = f32::NEG_INFINITY;
    const WRITES: bool = WRITES;
    #[inline(always)]
    unsafe fn step(&mut self, z: L) -> L {
        // SAFETY: as the caller promises.
        unsafe {
            let d = self.exponent.at(z);
            let e = exponential(d);
            self.sums = [self.sums[1], self.sums[0].add(e)];
            self.dots = [self.dots[1], e.mul_add(d, self.dots[0])];
            e
        }
    }
}

/// # Safety
/// The block can be read, and written if `WRITES`; and the feature of `L`.
#[inline(always)]
unsafe fn exponentials<L: Lanes, const WRITES: bool>(block: Block, exponent: Exponent) -> (f64, f64) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut pass = Exponentials::<L, WRITES> {
            exponent: Spread::of(exponent),
            sums: [L::splat(0.0); 2],
            dots: [L::splat(0.0); 2],
        };
        each(block, &mut pass);
        let mut totals = [0.0; 2];
        for (total, parts) in totals.iter_mut().zip([pass.sums, pass.dots]) {
            for lane in [lanes_of(parts[0], 0.0), lanes_of(parts[1], 0.0)].as_flattened() {
                *total += f64::from(*lane);
            }
        }
        (totals[0], totals[1])
    }
}

/// # Safety
/// As `exponentials`.
#[inline(always)]
pub(super) unsafe fn reading<L: Lanes>(block: Block, exponent: Exponent) -> (f64, f64) {
    // SAFETY: as the caller promises.
    unsafe { exponentials::<L, false>(block, exponent) }
}

/// # Safety
/// As `exponentials`.
#[inline(always)]
pub(super) unsafe fn writing<L: Lanes>(block: Block, exponent: Exponent) -> (f64, f64) {
    // SAFETY: as the caller promises.
    unsafe { exponentials::<L, true>(block, exponent) }
}

struct Multiply<L>(L);

impl<L: Lanes> Pass<L> for Multiply<L> {
    const REST: f32 = 0.0;
    const WRITES: bool = true;
    #[inline(always)]
    unsafe fn step(&mut self, e: L) -> L {
        // SAFETY: as the caller promises.
        unsafe { e.mul(self.0) }
    }
}

/// # Safety
/// The block can be written, and the feature of `L`.
#[inline(always)]
pub(super) unsafe fn multiply<L: Lanes>(block: Block, factor: f32) {
    // SAFETY: as the caller promises.
    unsafe { each(block, &mut Multiply(L::splat(factor))) }
}

struct Slope<L> {
    exponent: Spread<L>,
    constant: L,
    slope: L,
}

impl<L: Lanes> Pass<L> for Slope<L> {
    const REST: f32 = f32::NEG_INFINITY;
    const WRITES: bool = true;
    #[inline(always)]
    unsafe fn step(&mut self, z: L) -> L {
        // SAFETY: as the caller promises.
        unsafe {
            let d = self.exponent.at(z);
            exponential(d).mul(d.mul_add(self.slope, self.constant))
        }
    }
}

/// # Safety
/// The block can be written, and the feature of `L`.
#[inline(always)]
pub(super) unsafe fn sloped<L: Lanes>(block: Block, exponent: Exponent, constant: f32, slope: f32) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut pass = Slope {
            exponent: Spread::<L>::of(exponent),
            constant: L::splat(constant),
            slope: L::splat(slope),
        };
        each(block, &mut pass);
    }
}
