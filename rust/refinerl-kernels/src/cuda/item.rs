//! The types that logits may have.

/// A type of logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// IEEE single precision.
    Float32,
    /// IEEE half precision.
    Float16,
    /// The upper half of a float32.
    Bfloat16,
}

impl Item {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::Float32, Self::Float16, Self::Bfloat16];

    /// Look up a type by its name in PyTorch.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "float32" => Some(Self::Float32),
            "float16" => Some(Self::Float16),
            "bfloat16" => Some(Self::Bfloat16),
            _ => None,
        }
    }

    /// The suffix of the names of its kernels.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Float32 => "_float32",
            Self::Float16 => "_float16",
            Self::Bfloat16 => "_bfloat16",
        }
    }

    /// Size of an item in bytes.
    pub fn bytes(self) -> i64 {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
        }
    }
}
