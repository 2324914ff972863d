//! The vector code, and the only unsafe code of this crate: common ends of two sequences, tokens compared with each
//! other, one wave of the greedy algorithm, and the rows of the bit-parallel one with the walk back through them.
//!
//! Where it works on tokens, it is written once over [`Lanes`] and compiled for AVX-512, AVX2 and plain arrays, so the
//! levels cannot drift apart. The portable level has as many lanes as AVX-512, so it runs the same loop where that is
//! missing. Narrow rows and the walk are plain code, which is also compiled with the instructions for bits that AVX2 and
//! AVX-512 come with; wide rows have vectors of their own. Tests run every level that their processor has.
#![allow(unsafe_code)]

use crate::runs::Runs;
use crate::shared::Shared;

mod compare;
mod lanes;
mod padded;
mod row;
mod walk;

use compare::compare;
pub(crate) use compare::WORD;
#[cfg(target_arch = "x86_64")]
use lanes::x86;
pub(crate) use lanes::MAX_LANES;
use lanes::{Lanes, Portable};
pub(crate) use padded::Padded;
pub use refinerl_simd::Level;
pub(crate) use row::{NARROW_WORDS, ROW_WORDS};
pub(crate) use walk::Place;

/// A level that this processor has: the safe functions below rely on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vectors(Level);

impl Vectors {
    /// # Panics
    /// If this processor lacks the level.
    pub(crate) fn new(level: Level) -> Self {
        assert!(level.is_available(), "this processor lacks {level:?}");
        Self(level)
    }
}

/// 0, 2, 4, …: the diagonals of neighbouring cells lie two apart.
static EVEN: [i32; MAX_LANES] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];

/// Length of the common prefix, counted in 32-bit words.
///
/// # Safety
/// `length` words at `a` and at `b`, and the feature of `L`.
#[inline(always)]
unsafe fn prefix_words<L: Lanes>(a: *const i32, b: *const i32, length: usize) -> usize {
    let mut at = 0;
    while at + L::COUNT <= length {
        // SAFETY: the vectors end within `length`.
        let equal = unsafe { L::load(a.add(at)).equal(L::load(b.add(at))) };
        if equal != L::ALL {
            return at + equal.trailing_ones() as usize;
        }
        at += L::COUNT;
    }
    // SAFETY: below `length`.
    while at < length && unsafe { *a.add(at) == *b.add(at) } {
        at += 1;
    }
    at
}

/// Length of the common suffix, counted in 32-bit words; the pointers are to the ends.
///
/// # Safety
/// `length` words before `a` and before `b`, and the feature of `L`.
#[inline(always)]
unsafe fn suffix_words<L: Lanes>(a: *const i32, b: *const i32, length: usize) -> usize {
    let mut taken = 0;
    while taken + L::COUNT <= length {
        let next = taken + L::COUNT;
        // SAFETY: the vectors begin within `length`.
        let equal = unsafe { L::load(a.sub(next)).equal(L::load(b.sub(next))) };
        if equal != L::ALL {
            return taken + (equal << (32 - L::COUNT)).leading_ones() as usize;
        }
        taken = next;
    }
    // SAFETY: the words lie within `length`.
    while taken < length && unsafe { *a.sub(taken + 1) == *b.sub(taken + 1) } {
        taken += 1;
    }
    taken
}

/// Length of the run of equal tokens on the diagonal from (x, y).
///
/// # Safety
/// `a` and `b` are padded, x and y do not lie behind their sentinels, and the feature of `L`.
#[inline(always)]
unsafe fn run<L: Lanes>(a: *const i32, b: *const i32) -> usize {
    let mut at = 0;
    loop {
        // SAFETY: neither sentinel equals anything, so `at` stops at the first; a whole vector fits behind it.
        let equal = unsafe { L::load(a.add(at)).equal(L::load(b.add(at))) };
        if equal != L::ALL {
            return at + equal.trailing_ones() as usize;
        }
        at += L::COUNT;
    }
}

/// The inputs of a wave; see `wave`.
#[derive(Clone, Copy)]
struct Step {
    a: *const i32,
    b: *const i32,
    n: i32,
    m: i32,
    /// Diagonal of the first cell.
    diagonal: i32,
    cells: usize,
    before: *const i32,
    after: *mut i32,
}

/// # Safety
/// As `wave` asserts, and the feature of `L`.
#[inline(always)]
unsafe fn wave_cells<L: Lanes>(step: Step) {
    let Step {
        a,
        b,
        n,
        m,
        diagonal,
        cells,
        before,
        after,
    } = step;
    // SAFETY: `before` holds a cell more than `after`, both a whole number of the widest vectors. Indices into a and b
    // are clamped to 0 ..= n and 0 ..= m, the sentinels; equal tokens lie before both, so one further is in range too.
    unsafe {
        let (zero, one, n, m) = (L::splat(0), L::splat(1), L::splat(n), L::splat(m));
        let mut k = L::splat(diagonal).add(L::load(EVEN.as_ptr()));
        let mut i = 0;
        while i < cells {
            let entered = L::load(before.add(i)).add(one).max(L::load(before.add(i + 1)));
            let mut x = entered.min(n).min(m.add(k)).max(zero);
            let mut y = x.sub(k).max(zero).min(m);
            let valid = L::ALL >> L::COUNT.saturating_sub(cells - i);
            let mut equal = L::gather(a, x).equal(L::gather(b, y)) & valid;
            // Many diagonals that run on advance together; once few are left, each advances alone, vector by vector.
            while equal.count_ones() > 3 {
                x = x.bump(equal);
                y = y.bump(equal);
                equal &= L::gather(a, x).equal(L::gather(b, y));
            }
            x.store(after.add(i));
            if equal != 0 {
                let mut ys = [0; MAX_LANES];
                y.store(ys.as_mut_ptr());
                while equal != 0 {
                    let lane = equal.trailing_zeros() as usize;
                    let cell = after.add(i + lane);
                    *cell += 1 + run::<L>(a.add(*cell as usize + 1), b.add(ys[lane] as usize + 1)) as i32;
                    equal &= equal - 1;
                }
            }
            k = k.add(L::splat(2 * L::COUNT as i32));
            i += L::COUNT;
        }
    }
}

/// Run `$generic` at the level of `$vectors` with the processor features of that level enabled.
macro_rules! dispatch {
    ($vectors:expr, $generic:ident($($name:ident: $kind:ty),*) $(-> $result:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
        unsafe fn avx2($($name: $kind),*) $(-> $result)? {
            // SAFETY: the features are on; the rest as the caller promises.
            unsafe { $generic::<x86::Avx2>($($name),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,bmi1,bmi2,lzcnt")]
        unsafe fn avx512($($name: $kind),*) $(-> $result)? {
            // SAFETY: the features are on; the rest as the caller promises.
            unsafe { $generic::<x86::Avx512>($($name),*) }
        }
        // SAFETY: `Vectors` holds levels that this processor has; memory is there as each caller says.
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

/// Run `$function` with the instructions for bits where the level of `$vectors` has them.
macro_rules! with_bits {
    ($vectors:expr, $function:path, ($($name:ident: $kind:ty),*) $(-> $result:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "bmi1,bmi2,lzcnt")]
        fn bits($($name: $kind),*) $(-> $result)? {
            $function($($name),*)
        }
        match $vectors.0 {
            Level::Portable => $function($($name),*),
            // SAFETY: `Vectors` holds levels that this processor has.
            #[cfg(target_arch = "x86_64")]
            _ => unsafe { bits($($name),*) },
        }
    }};
}

/// An integer of one or two 32-bit words without padding.
///
/// # Safety
/// Only for such types.
pub(crate) unsafe trait Words: Copy + Eq {}
// SAFETY: one word.
unsafe impl Words for i32 {}
// SAFETY: two words.
unsafe impl Words for i64 {}

impl Vectors {
    /// Fill `rows`, of `width` words each and the first of them there, with a row for each token: the lowest `used` words.
    ///
    /// The mask of token t is `masks[t * width..][..width]`.
    ///
    /// # Panics
    /// If `used` is no multiple of `ROW_WORDS` or above `width`, or if a row or a mask is missing.
    pub(crate) fn rows(self, masks: &[u64], rows: &mut [u64], width: usize, used: usize, tokens: &[Shared]) {
        assert!(used <= width && used.is_multiple_of(ROW_WORDS));
        for (step, token) in tokens.iter().enumerate() {
            let (before, after) = rows[step * width..].split_at_mut(width);
            let mask = &masks[token.number as usize * width..];
            let (before, mask) = (before[..used].as_chunks().0, mask[..used].as_chunks().0);
            let after = after[..used].as_chunks_mut().0;
            match self.0 {
                // SAFETY: `Vectors` holds levels that this processor has.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { row::avx512(before, mask, after) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { row::avx2(before, mask, after) },
                Level::Portable => row::portable(before, mask, after),
            }
        }
    }

    /// True if this level compares many tokens at once for little.
    pub(crate) fn compares(self) -> bool {
        !matches!(self.0, Level::Portable)
    }

    /// Fill rows of one word, the first of which is there, by comparing each token of y with the at most `WORD` of ỹ.
    ///
    /// # Panics
    /// If there are more.
    pub(crate) fn compare(self, original: &[Shared], refined: &Padded, rows: &mut [u64]) {
        assert!(refined.length <= WORD);
        let b = refined.pointer();
        let tokens = refined.length;
        dispatch!(self, compare(original: &[Shared], b: *const i32, tokens: usize, rows: &mut [u64]));
    }

    /// Fill narrow rows, as `row::narrow` says.
    pub(crate) fn narrow_rows(self, masks: &[u64], rows: &mut [u64], width: usize, tokens: &[Shared]) {
        with_bits!(
            self,
            row::narrow, (masks: &[u64], rows: &mut [u64], width: usize, tokens: &[Shared])
        );
    }

    /// Walk back through rows, as `walk::walk` says.
    pub(crate) fn walk(
        self,
        rows: &[u64],
        width: usize,
        place: Place,
        original: &[Shared],
        refined: &[Shared],
        runs: &mut Runs,
    ) -> Option<Place> {
        with_bits!(
            self,
            walk::walk, (
                rows: &[u64],
                width: usize,
                place: Place,
                original: &[Shared],
                refined: &[Shared],
                runs: &mut Runs
            ) -> Option<Place>
        )
    }

    /// Length of the common prefix.
    pub(crate) fn common_prefix<T: Words>(self, a: &[T], b: &[T]) -> usize {
        let words = size_of::<T>() / 4;
        // The slices hold `length` words each.
        let length = a.len().min(b.len()) * words;
        let (a, b): (*const i32, *const i32) = (a.as_ptr().cast(), b.as_ptr().cast());
        dispatch!(self, prefix_words(a: *const i32, b: *const i32, length: usize) -> usize) / words
    }

    /// Length of the common suffix.
    pub(crate) fn common_suffix<T: Words>(self, a: &[T], b: &[T]) -> usize {
        let words = size_of::<T>() / 4;
        // The slices hold `length` words each, before their ends.
        let length = a.len().min(b.len()) * words;
        let (a, b): (*const i32, *const i32) = (a.as_ptr_range().end.cast(), b.as_ptr_range().end.cast());
        dispatch!(self, suffix_words(a: *const i32, b: *const i32, length: usize) -> usize) / words
    }

    /// Length of the run of equal tokens on the diagonal from (x, y).
    pub(crate) fn run(self, original: &Padded, x: usize, refined: &Padded, y: usize) -> usize {
        assert!(x <= original.length && y <= refined.length && original.sentinel != refined.sentinel);
        let (a, b) = (original.pointer().wrapping_add(x), refined.pointer().wrapping_add(y));
        dispatch!(self, run(a: *const i32, b: *const i32) -> usize)
    }

    /// One wave. Cell c of `after` lies on diagonal `diagonal` + 2c and is entered from cells c (plus a deletion) and
    /// c + 1 of `before`; it becomes the furthest x on its diagonal. What stands behind the first `cells` is undefined.
    ///
    /// # Panics
    /// If `before` or `after` is shorter than `cells` rounded up to whole vectors, plus one for `before`.
    pub(crate) fn wave(
        self,
        original: &Padded,
        refined: &Padded,
        diagonal: i32,
        cells: usize,
        before: &[i32],
        after: &mut [i32],
    ) {
        let room = cells.next_multiple_of(MAX_LANES);
        assert!(before.len() > room && after.len() >= room && original.sentinel != refined.sentinel);
        let step = Step {
            a: original.pointer(),
            b: refined.pointer(),
            n: original.length as i32,
            m: refined.length as i32,
            diagonal,
            cells,
            before: before.as_ptr(),
            after: after.as_mut_ptr(),
        };
        dispatch!(self, wave_cells(step: Step))
    }
}
