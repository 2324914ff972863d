//! Outcomes of a test or a program.

/// The outcome of a test or of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was right, or the program ended normally and nothing is compared.
    Passed,
    /// It ended normally with a wrong answer.
    WrongAnswer,
    /// An exception, a signal, an exit code other than 0, no result, or one that is not plain data.
    RuntimeError,
    /// It exceeded the limit of wall-clock or processor time.
    Timeout,
    /// An uncaught MemoryError, or a kill for want of memory.
    MemoryLimit,
    /// It wrote more output than allowed.
    OutputLimit,
    /// `compile()` refused the source.
    CompileError,
    /// Not run, because an earlier test failed and the program stops early.
    NotRun,
    /// A fault of the sandbox, twice.
    SandboxError,
}

impl Outcome {
    /// The outcome's name in Python.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::WrongAnswer => "wrong_answer",
            Outcome::RuntimeError => "runtime_error",
            Outcome::Timeout => "timeout",
            Outcome::MemoryLimit => "memory_limit",
            Outcome::OutputLimit => "output_limit",
            Outcome::CompileError => "compile_error",
            Outcome::NotRun => "not_run",
            Outcome::SandboxError => "sandbox_error",
        }
    }
}
