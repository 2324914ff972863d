//! Epilogues of the fused cross-entropy: what lies between the matrix products. A row of logits comes in; its target's
//! −log softmax, its entropy and its log-sum-exp go out, and the gradient is written over the logits.

#![deny(unsafe_code)]

pub mod cpu;
pub mod cuda;
