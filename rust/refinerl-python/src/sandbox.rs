//! The binding of `refinerl-sandbox`.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyBytes;
use refinerl_sandbox::program::{Compare, Entry, Limits, Program, Report, Test};
use refinerl_sandbox::{Error, Interpreter};

create_exception!(
    refinerl._core,
    SandboxError,
    PyException,
    "The sandbox itself failed, or cannot work here. Never the fault of a judged program."
);

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("SandboxError", module.py().get_type::<SandboxError>())?;
    module.add_class::<Zygotes>()?;
    module.add_class::<TestReport>()?;
    module.add_class::<Protection>()
}

/// One program, read attribute by attribute from `refinerl.sandbox`, which has validated each.
#[derive(FromPyObject)]
struct Order {
    source: PyBackedBytes,
    /// The function to call; None runs a script.
    fn_name: Option<PyBackedStr>,
    preamble: bool,
    /// The input and the expected answer of each test.
    tests: Vec<(PyBackedBytes, Option<PyBackedBytes>)>,
    /// The tolerance of a strict comparison; None compares as APPS does.
    atol: Option<f64>,
    limits: OrderLimits,
    stop_early: bool,
    /// Run all tests in one child.
    together: bool,
}

/// Limits of one test.
#[derive(FromPyObject)]
struct OrderLimits {
    wall_seconds: f64,
    cpu_seconds: f64,
    memory_bytes: u64,
    output_bytes: usize,
}

impl Order {
    fn program(&self) -> Program<'_> {
        let tests = self.tests.iter().map(|(input, expected)| Test {
            input,
            expected: expected.as_deref(),
        });
        Program {
            source: &self.source,
            entry: match &self.fn_name {
                Some(name) => Entry::Call {
                    name,
                    preamble: self.preamble,
                },
                None => Entry::Stdin,
            },
            tests: tests.collect(),
            compare: self.atol.map_or(Compare::Apps, |atol| Compare::Strict { atol }),
            limits: Limits {
                wall: Duration::from_secs_f64(self.limits.wall_seconds),
                cpu: Duration::from_secs_f64(self.limits.cpu_seconds),
                memory: self.limits.memory_bytes,
                output: self.limits.output_bytes,
            },
            stop_early: self.stop_early,
            together: self.together,
        }
    }
}

/// The result of one test.
#[pyclass(frozen, get_all, module = "refinerl._core")]
struct TestReport {
    outcome: &'static str,
    wall_seconds: f64,
    cpu_seconds: f64,
    stderr: String,
    expected: Option<String>,
    got: Option<String>,
    stdout: Py<PyBytes>,
    value: Option<Py<PyBytes>>,
}

impl TestReport {
    fn new(py: Python<'_>, report: Report) -> Self {
        let (expected, got) = report.difference.unzip();
        Self {
            outcome: report.outcome.name(),
            wall_seconds: report.wall,
            cpu_seconds: report.cpu,
            stderr: report.stderr,
            expected,
            got,
            stdout: PyBytes::new(py, &report.stdout).unbind(),
            value: report.value.map(|value| PyBytes::new(py, &value).unbind()),
        }
    }
}

/// A mechanism that isolates programs.
#[pyclass(frozen, get_all, module = "refinerl._core")]
struct Protection {
    name: String,
    on: bool,
    reason: String,
    exposed: String,
}

/// The zygotes of one sandbox.
#[pyclass(frozen, module = "refinerl._core")]
struct Zygotes(refinerl_sandbox::Sandbox);

#[pymethods]
impl Zygotes {
    #[new]
    #[pyo3(signature = (*, python, workers, full, packages))]
    fn new(
        py: Python<'_>,
        python: PathBuf,
        workers: usize,
        full: bool,
        packages: Vec<(String, String)>,
    ) -> PyResult<Self> {
        let interpreter = Interpreter { python, packages };
        py.detach(|| refinerl_sandbox::Sandbox::start(interpreter, workers, full))
            .map(Self)
            .map_err(fault)
    }

    /// Run all tests and return a report on each. With `keep`, reports hold standard output and returned values.
    #[pyo3(signature = (orders, *, keep))]
    fn run(&self, py: Python<'_>, orders: Vec<Order>, keep: bool) -> PyResult<Vec<Vec<TestReport>>> {
        let programs: Vec<Program<'_>> = orders.iter().map(Order::program).collect();
        let mut signal = None;
        let reports = py.detach(|| {
            self.0.run(&programs, keep, || {
                Python::attach(|py| {
                    signal = py.check_signals().err();
                    signal.is_some()
                })
            })
        });
        if let Some(signal) = signal {
            return Err(signal);
        }
        let reports = reports.map_err(fault)?;
        let of_program = |tests: Vec<Report>| tests.into_iter().map(|report| TestReport::new(py, report)).collect();
        Ok(reports.into_iter().map(of_program).collect())
    }

    /// The isolation report.
    fn isolation(&self) -> Vec<Protection> {
        let rows = self.0.isolation().iter().cloned();
        rows.map(|row| Protection {
            name: row.name,
            on: row.on,
            reason: row.reason,
            exposed: row.exposed,
        })
        .collect()
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

fn fault(error: Error) -> PyErr {
    SandboxError::new_err(error.to_string())
}
