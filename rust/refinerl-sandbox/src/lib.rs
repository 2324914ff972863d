//! Parallel execution of untrusted Python programs under limits, and the comparison of their answers.
//!
//! `pool` holds the zygotes and begins with the theory of operation. `batch` shares tests out among them. `zygote`
//! starts one; its own code is in `python/`. `job` is what a child is sent, `execution` runs it, and `verdict` judges
//! its answer with `strict` or `apps`. Expected answers never enter a child.

pub mod apps;
pub mod excerpt;
pub mod outcome;
pub mod program;
pub mod strict;
pub mod value;
pub mod wire;

pub use outcome::Outcome;

#[cfg(target_os = "linux")]
mod batch;
#[cfg(target_os = "linux")]
mod capture;
#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod channel;
#[cfg(target_os = "linux")]
mod execution;
#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod hidden;
#[cfg(target_os = "linux")]
mod job;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod pool;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod resources;
#[cfg(target_os = "linux")]
mod usage;
#[cfg(target_os = "linux")]
mod verdict;
#[cfg(target_os = "linux")]
mod zygote;
#[cfg(target_os = "linux")]
pub use {plan::Protection, pool::Sandbox, process::Interpreter};

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
pub use elsewhere::{Interpreter, Protection, Sandbox};

/// The reason why nothing was judged.
#[derive(Debug)]
pub enum Error {
    /// The caller asked to stop.
    Interrupted,
    /// A fault of the sandbox or of the machine, never of a program.
    Fault(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Interrupted => f.write_str("interrupted"),
            Error::Fault(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}
