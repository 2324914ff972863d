//! Tokens of a pair, as the algorithms see them.

/// A token that both sides have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Equal tokens have equal numbers.
    pub(crate) number: u32,
    /// Position in the pair's sequence.
    pub(crate) position: u32,
}
