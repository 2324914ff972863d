//! The levels of SIMD instructions that vector code is compiled for, and those that this processor has.

#![forbid(unsafe_code)]

/// A set of vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The target's baseline.
    Portable,
    /// AVX2 with FMA: 8 lanes of 32 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F: 16 lanes of 32 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// All levels of this architecture, the best one last.
    const ALL: &[Self] = &[
        Self::Portable,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
    ];

    /// The levels that this processor can run, the best one last.
    pub fn available() -> Vec<Self> {
        let levels = Self::ALL.iter().copied();
        levels.filter(|level| level.is_available()).collect()
    }

    /// The best level that this processor can run.
    pub fn best() -> Self {
        let levels = Self::ALL.iter().copied();
        levels
            .rev()
            .find(|level| level.is_available())
            .unwrap_or(Self::Portable)
    }

    /// True if this processor can run the level.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
        }
    }

    /// The level's name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }
}
