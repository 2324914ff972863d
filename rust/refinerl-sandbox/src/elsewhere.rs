//! Systems other than Linux have none of the mechanisms; programs are refused there and never run unprotected.

use std::path::PathBuf;

use crate::program::{Program, Report};
use crate::Error;

/// One row of an isolation report that does not exist here.
#[derive(Clone, Debug)]
pub struct Protection {
    /// Its name.
    pub name: String,
    /// Whether it is on.
    pub on: bool,
    /// Why it is off.
    pub reason: String,
    /// What a program gains by its absence.
    pub exposed: String,
}

/// What would be run.
pub struct Interpreter {
    /// The program.
    pub python: PathBuf,
    /// Packages beside the standard library.
    pub packages: Vec<(String, String)>,
}

/// Cannot be started.
pub struct Sandbox(std::convert::Infallible);

impl Sandbox {
    /// Fails, and names the platform.
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
