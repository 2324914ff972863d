//! The sandbox on systems other than Linux, which have none of the mechanisms: programs are refused, and never run
//! unprotected.

use std::path::PathBuf;

use crate::program::{Program, Report};
use crate::Error;

/// A row of the isolation report, which does not exist here.
#[derive(Clone, Debug)]
pub struct Protection {
    /// Its name.
    pub name: String,
    /// True if it is on.
    pub on: bool,
    /// The reason why it is off.
    pub reason: String,
    /// The gain of a program from its absence.
    pub exposed: String,
}

/// The interpreter that would run programs.
pub struct Interpreter {
    /// The executable.
    pub python: PathBuf,
    /// Packages beside the standard library.
    pub packages: Vec<(String, String)>,
}

/// A sandbox, which cannot be started.
pub struct Sandbox(std::convert::Infallible);

impl Sandbox {
    /// Fail with the name of the platform.
    pub fn start(_interpreter: Interpreter, _workers: usize, _full: bool) -> Result<Sandbox, Error> {
        Err(Error::Fault(format!(
            "the sandbox needs Linux; this is {}",
            std::env::consts::OS
        )))
    }

    /// Of a sandbox that cannot exist.
    pub fn run(
        &self,
        _programs: &[Program<'_>],
        _keep: bool,
        _interrupted: impl FnMut() -> bool,
    ) -> Result<Vec<Vec<Report>>, Error> {
        match self.0 {}
    }

    /// Of a sandbox that cannot exist.
    pub fn isolation(&self) -> &[Protection] {
        match self.0 {}
    }

    /// Of a sandbox that cannot exist.
    pub fn close(&self) {
        match self.0 {}
    }
}
