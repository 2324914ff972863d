//! The levels of SIMD instructions that vector code is compiled for, and those that this processor has.

#![forbid(unsafe_code)]

/// A set of vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The target's baseline.
    Portable,
    /// AVX2 with FMA, BMI1, BMI2 and LZCNT: 8 lanes of 32 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F with BMI1, BMI2 and LZCNT: 16 lanes of 32 bits.
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
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && counts_bits(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && counts_bits(),
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

/// True if this processor has the instructions for bits that came with AVX2, or before.
#[cfg(target_arch = "x86_64")]
fn counts_bits() -> bool {
    is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("lzcnt")
}
