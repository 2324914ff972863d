//! Programs with their tests and limits, and the reports on them.

use std::time::Duration;

/// A program and its tests. It borrows everything.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// Python source in UTF-8. It may hold lone surrogates, which are a compile error.
    pub source: &'a [u8],
    /// The entry point.
    pub entry: Entry<'a>,
    /// The tests, at least one.
    pub tests: Vec<Test<'a>>,
    /// The comparison of answers.
    pub compare: Compare,
    /// The limits of one test.
    pub limits: Limits,
    /// Leave out the tests after the first failure.
    pub stop_early: bool,
    /// Judge all tests in one child (call-based programs only).
    pub together: bool,
}

/// The entry point of a program.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A script that reads standard input and prints.
    Stdin,
    /// A function of the module, or a method of `Solution()`.
    Call {
        /// The name of the function or method.
        name: &'a str,
        /// Give the module the usual imports first.
        preamble: bool,
    },
}

/// One test: texts for `Entry::Stdin`, the encoded list of arguments and the encoded result for `Entry::Call`.
#[derive(Clone, Copy, Debug)]
pub struct Test<'a> {
    /// The input of the program.
    pub input: &'a [u8],
    /// The expected answer; None runs the program without a verdict.
    pub expected: Option<&'a [u8]>,
}

/// The comparison of answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Compare {
    /// See `strict`.
    Strict {
        /// Tolerance where the expected number is a float.
        atol: f64,
    },
    /// See `apps`.
    Apps,
}

/// The limits of one test.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Wall-clock time, from the job to the end.
    pub wall: Duration,
    /// User and system time together.
    pub cpu: Duration,
    /// Bytes of address space beyond those of the warm interpreter.
    pub memory: u64,
    /// Bytes on each of standard output, standard error and the pipe of results.
    pub output: usize,
}

/// The result of one test.
#[derive(Clone, Debug)]
pub struct Report {
    /// The verdict.
    pub outcome: crate::Outcome,
    /// Wall-clock seconds.
    pub wall: f64,
    /// Seconds of processor time.
    pub cpu: f64,
    /// The end of standard error, or a message of ours (compile error, missing result).
    pub stderr: String,
    /// For a wrong answer, the first difference: expected and got.
    pub difference: Option<(String, String)>,
    /// Standard output, if the caller asked for it.
    pub stdout: Vec<u8>,
    /// The returned value, encoded anew, if the caller asked for it.
    pub value: Option<Vec<u8>>,
}

impl Report {
    /// Create the report of a test of which nothing more is known than its outcome.
    pub fn bare(outcome: crate::Outcome, stderr: String) -> Report {
        Report {
            outcome,
            wall: 0.0,
            cpu: 0.0,
            stderr,
            difference: None,
            stdout: Vec::new(),
            value: None,
        }
    }
}
