//! Exact minimal alignment of token sequences, and the filter of the dynamic constraint.
//!
//! An alignment of y (the original) and ỹ (the refined) names the tokens of y that are kept in ỹ, in order. The others
//! are deleted or inserted, and their number, the *distance*, is minimal. Among several alignments of minimal distance
//! the choice is a fixed function of the input, the same on every machine and path:
//!
//! 1. the longest common prefix is kept,
//! 2. of the rest the longest common suffix,
//! 3. between them, the kept pairs, read from the last to the first, are each as early as possible, first in ỹ, then
//!    in y. (Walking the edit grid back from its end: insert where a shortest path inserts, else delete, else keep.)

#![deny(unsafe_code)]

mod alignment;
mod batch;
mod dictionary;
mod filter;
mod masks;
mod memory;
mod myers;
mod pair;
mod pool;
mod reduce;
mod rows;
mod runs;
mod shared;
mod simd;
mod token;

pub use alignment::{Alignment, Run};
pub use batch::{align_batch, Tokens};
pub use filter::{filter, Accept, Filtered, Reason};
pub use pair::{Algorithm, Aligner};
pub use simd::Level;
pub use token::Token;
