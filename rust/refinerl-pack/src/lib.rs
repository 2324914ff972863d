//! Rows of tokens as one tree, in which a prefix that rows share stands once.
//!
//! The tree is a trie of the rows. Its tokens are numbered in depth-first order, children by increasing id, so that the
//! tokens below token k are those from k + 1 to `sub_end[k] − 1`. This one array is the mask of attention: token q sees
//! token k if and only if k ≤ q < `sub_end[k]`.
//!
//! A *node* is a longest run of tokens without a branch. Nodes are ranges of consecutive tokens, and together all of
//! them.

#![deny(unsafe_code)]

mod order;
mod rows;
mod tree;

pub use order::{order, Order};
pub use rows::Rows;
pub use tree::{tree, Tree};
