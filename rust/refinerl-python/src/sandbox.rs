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
    module.add_class::<Zygotes>()
}

/// One program as Python hands it over; `refinerl.sandbox` has validated every field. In order: source; name of the
/// function, if it is call-based; preamble; (input, expected) of each test; tolerance (None: `compare="apps"`); wall
/// seconds, processor seconds, bytes of memory, bytes of output; stop early; judge all tests together.
#[derive(FromPyObject)]
struct Order(
    PyBackedBytes,
    Option<PyBackedStr>,
    bool,
    Vec<(PyBackedBytes, Option<PyBackedBytes>)>,
    Option<f64>,
    (f64, f64, u64, usize),
    bool,
    bool,
);

impl Order {
    fn program(&self) -> Program<'_> {
        let Order(source, fn_name, preamble, tests, atol, (wall, cpu, memory, output), stop_early, together) = self;
        Program {
            source,
            entry: match fn_name {
                Some(name) => Entry::Call {
                    name,
                    preamble: *preamble,
                },
                None => Entry::Stdin,
            },
            tests: tests
                .iter()
                .map(|(input, expected)| Test {
                    input,
                    expected: expected.as_deref(),
                })
                .collect(),
            compare: atol.map_or(Compare::Apps, |atol| Compare::Strict { atol }),
            limits: Limits {
                wall: Duration::from_secs_f64(*wall),
                cpu: Duration::from_secs_f64(*cpu),
                memory: *memory,
                output: *output,
            },
            stop_early: *stop_early,
            together: *together,
        }
    }
}

/// Outcome, wall seconds, processor seconds, stderr, (expected, got), stdout, encoded value.
type Row<'py> = (
    &'static str,
    f64,
    f64,
    String,
    Option<(String, String)>,
    Bound<'py, PyBytes>,
    Option<Bound<'py, PyBytes>>,
);

fn row(py: Python<'_>, report: Report) -> Row<'_> {
    (
        report.outcome.name(),
        report.wall,
        report.cpu,
        report.stderr,
        report.difference,
        PyBytes::new(py, &report.stdout),
        report.value.map(|value| PyBytes::new(py, &value)),
    )
}

/// The zygotes of one sandbox.
#[pyclass(frozen, module = "refinerl._core")]
struct Zygotes(refinerl_sandbox::Sandbox);

#[pymethods]
impl Zygotes {
    #[new]
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

    /// For each program and each of its tests, one row.
    fn run<'py>(&self, py: Python<'py>, orders: Vec<Order>, keep: bool) -> PyResult<Vec<Vec<Row<'py>>>> {
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
        match (reports, signal) {
            (_, Some(signal)) => Err(signal),
            (Err(error), None) => Err(fault(error)),
            (Ok(reports), None) => Ok(reports
                .into_iter()
                .map(|tests| tests.into_iter().map(|report| row(py, report)).collect())
                .collect()),
        }
    }

    /// (name, on, why not, what that exposes) of each protection.
    fn isolation(&self) -> Vec<(String, bool, String, String)> {
        let rows = self.0.isolation().iter().cloned();
        rows.map(|row| (row.name, row.on, row.reason, row.exposed)).collect()
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

fn fault(error: Error) -> PyErr {
    SandboxError::new_err(error.to_string())
}
