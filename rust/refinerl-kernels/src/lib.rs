//! Epilogues of the fused cross-entropy: the work between the matrix products. From each row of logits they compute the
//! −log softmax of its target and its entropy, and they overwrite the logits with the gradient. And attention over trees
//! of tokens on the CPU.

#![deny(unsafe_code)]

pub mod cpu;
pub mod cuda;
