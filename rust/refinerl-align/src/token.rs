//! Token ids of the caller.

use crate::simd::Words;

/// A token id of the caller: `i32` or `i64`, from 0 to 2³¹ − 1.
#[allow(private_bounds)] // only the two widths that the vector code reads
pub trait Token: Words + Send + Sync {
    /// The same id in the width that the algorithms work on.
    fn narrow(self) -> u32;
}

impl Token for i32 {
    #[inline]
    fn narrow(self) -> u32 {
        self as u32
    }
}

impl Token for i64 {
    #[inline]
    fn narrow(self) -> u32 {
        self as u32
    }
}
