//! Vectors of 32-bit integers in AVX-512, AVX2 and plain arrays.

/// Lanes of the widest level. Buffers are padded by as many.
pub(crate) const MAX_LANES: usize = 16;

/// A vector of i32.
///
/// # Safety
/// Every method needs the processor feature of its type; `load`, `store` and `gather` need their memory to be there.
pub(super) trait Lanes: Copy {
    const COUNT: usize;
    /// The result of `equal` for equal vectors.
    const ALL: u32 = (1u32 << (Self::COUNT - 1) << 1).wrapping_sub(1);
    unsafe fn splat(value: i32) -> Self;
    unsafe fn load(from: *const i32) -> Self;
    unsafe fn store(self, to: *mut i32);
    unsafe fn gather(base: *const i32, index: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// Compare the lanes; bit l is set if lane l is equal.
    unsafe fn equal(self, other: Self) -> u32;
    /// Add 1 to the lanes whose bit is set.
    unsafe fn bump(self, lanes: u32) -> Self;
}

/// Lanes in an array.
#[derive(Clone, Copy)]
pub(super) struct Portable([i32; MAX_LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(i32, i32) -> i32) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }
}

impl Lanes for Portable {
    const COUNT: usize = MAX_LANES;
    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        Self([value; MAX_LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { from.cast::<[i32; MAX_LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: as the caller promises.
        unsafe { to.cast::<[i32; MAX_LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn gather(base: *const i32, index: Self) -> Self {
        // SAFETY: as the caller promises.
        Self(index.0.map(|at| unsafe { *base.offset(at as isize) }))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, i32::wrapping_add)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, i32::wrapping_sub)
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, i32::min)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, i32::max)
    }
    #[inline(always)]
    unsafe fn equal(self, other: Self) -> u32 {
        (0..MAX_LANES).fold(0, |mask, lane| {
            mask | (u32::from(self.0[lane] == other.0[lane]) << lane)
        })
    }
    #[inline(always)]
    unsafe fn bump(self, lanes: u32) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + (lanes >> lane & 1) as i32))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(__m256i);

    // SAFETY of all methods: the caller promises AVX2, and memory where there are pointers.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Lanes for Avx2 {
        const COUNT: usize = 8;
        #[inline(always)]
        unsafe fn splat(value: i32) -> Self {
            Self(unsafe { _mm256_set1_epi32(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const i32) -> Self {
            Self(unsafe { _mm256_loadu_si256(from.cast()) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut i32) {
            unsafe { _mm256_storeu_si256(to.cast(), self.0) }
        }
        #[inline(always)]
        unsafe fn gather(base: *const i32, index: Self) -> Self {
            Self(unsafe { _mm256_i32gather_epi32::<4>(base, index.0) })
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(unsafe { _mm256_add_epi32(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            Self(unsafe { _mm256_sub_epi32(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            Self(unsafe { _mm256_min_epi32(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            Self(unsafe { _mm256_max_epi32(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn equal(self, other: Self) -> u32 {
            unsafe { _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(self.0, other.0))) as u32 }
        }
        #[inline(always)]
        unsafe fn bump(self, lanes: u32) -> Self {
            unsafe {
                let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
                let set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(lanes as i32), bits), bits);
                Self(_mm256_sub_epi32(self.0, set)) // a set lane is −1
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512(__m512i);

    // SAFETY of all methods: the caller promises AVX-512F, and memory where there are pointers.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Lanes for Avx512 {
        const COUNT: usize = 16;
        #[inline(always)]
        unsafe fn splat(value: i32) -> Self {
            Self(unsafe { _mm512_set1_epi32(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const i32) -> Self {
            Self(unsafe { _mm512_loadu_si512(from.cast()) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut i32) {
            unsafe { _mm512_storeu_si512(to.cast(), self.0) }
        }
        #[inline(always)]
        unsafe fn gather(base: *const i32, index: Self) -> Self {
            Self(unsafe { _mm512_i32gather_epi32::<4>(index.0, base) })
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(unsafe { _mm512_add_epi32(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            Self(unsafe { _mm512_sub_epi32(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            Self(unsafe { _mm512_min_epi32(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            Self(unsafe { _mm512_max_epi32(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn equal(self, other: Self) -> u32 {
            unsafe { u32::from(_mm512_cmpeq_epi32_mask(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn bump(self, lanes: u32) -> Self {
            unsafe {
                Self(_mm512_mask_add_epi32(
                    self.0,
                    lanes as u16,
                    self.0,
                    _mm512_set1_epi32(1),
                ))
            }
        }
    }
}
