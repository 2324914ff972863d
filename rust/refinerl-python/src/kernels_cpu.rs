//! The binding of `refinerl_kernels::cpu`. Arrays are contiguous views of PyTorch's tensors.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use refinerl_kernels::cpu::{Epilogue, Level, Slopes, Statistics};

type Vector<'py, T = f32> = Bound<'py, PyArray1<T>>;

fn invalid(name: &str, rule: &str, value: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{name} must be {rule}, got {value}"))
}

/// The values of an argument, which must be contiguous.
macro_rules! slice {
    ($array:ident) => {
        $array
            .as_slice()
            .map_err(|_| invalid(stringify!($array), "contiguous", "a strided array"))?
    };
}

fn epilogue(level: &str, threads: usize) -> PyResult<Epilogue> {
    let levels = Level::available();
    match levels.iter().find(|found| found.name() == level) {
        Some(&level) => Ok(Epilogue::new(level, threads)),
        None => Err(invalid("level", &format!("one of {:?}", cross_entropy_levels()), level)),
    }
}

/// List the levels of SIMD that this processor has, the best one last.
#[pyfunction]
fn cross_entropy_levels() -> Vec<&'static str> {
    Level::available().into_iter().map(Level::name).collect()
}

fn check_targets(targets: &[i64], (rows, vocabulary): (usize, usize)) -> PyResult<()> {
    if targets.len() != rows {
        return Err(invalid("targets", &format!("{rows} rows'"), targets.len()));
    }
    match targets.iter().find(|target| !(0..vocabulary as i64).contains(target)) {
        Some(target) => Err(invalid("targets", &format!("in [0, {vocabulary})"), target)),
        None => Ok(()),
    }
}

fn check_rows<T>(name: &str, values: &[T], rows: usize) -> PyResult<()> {
    if values.len() == rows {
        Ok(())
    } else {
        Err(invalid(name, &format!("{rows} rows'"), values.len()))
    }
}

type Columns<'py> = (Vector<'py>, Vector<'py>);

fn columns<'py>(py: Python<'py>, found: &[Statistics]) -> Columns<'py> {
    let column = |of: fn(&Statistics) -> f32| found.iter().map(of).collect::<Vec<_>>().into_pyarray(py);
    (column(|row| row.nll), column(|row| row.entropy))
}

/// Compute −log softmax of the target and the entropy of each row.
#[pyfunction]
#[pyo3(signature = (logits, targets, *, scale, threads, level))]
fn cross_entropy_statistics<'py>(
    py: Python<'py>,
    logits: PyReadonlyArray2<'py, f32>,
    targets: PyReadonlyArray1<'py, i64>,
    scale: f32,
    threads: usize,
    level: &str,
) -> PyResult<Columns<'py>> {
    let (rows, vocabulary) = (logits.shape()[0], logits.shape()[1]);
    let (logits, targets) = (slice!(logits), slice!(targets));
    check_targets(targets, (rows, vocabulary))?;
    let epilogue = epilogue(level, threads)?;
    let found = py.detach(|| epilogue.statistics(logits, vocabulary, targets, scale));
    Ok(columns(py, &found))
}

/// Compute the same, and overwrite the logits with the gradient of Σ grad_nll·nll + grad_entropy·entropy.
#[pyfunction]
#[pyo3(signature = (logits, targets, *, grad_nll, grad_entropy, scale, threads, level))]
#[expect(clippy::too_many_arguments, reason = "a loss has two slopes")]
fn cross_entropy_fused<'py>(
    py: Python<'py>,
    mut logits: PyReadwriteArray2<'py, f32>,
    targets: PyReadonlyArray1<'py, i64>,
    grad_nll: PyReadonlyArray1<'py, f32>,
    grad_entropy: Option<PyReadonlyArray1<'py, f32>>,
    scale: f32,
    threads: usize,
    level: &str,
) -> PyResult<Columns<'py>> {
    let (rows, vocabulary) = (logits.shape()[0], logits.shape()[1]);
    let logits = logits
        .as_slice_mut()
        .map_err(|_| invalid("logits", "contiguous", "a strided array"))?;
    let (targets, grad_nll) = (slice!(targets), slice!(grad_nll));
    check_targets(targets, (rows, vocabulary))?;
    check_rows("grad_nll", grad_nll, rows)?;
    let mut slopes: Vec<_> = grad_nll.iter().map(|&nll| Slopes { nll, entropy: 0.0 }).collect();
    if let Some(grad_entropy) = &grad_entropy {
        let grad_entropy = slice!(grad_entropy);
        check_rows("grad_entropy", grad_entropy, rows)?;
        for (slopes, &entropy) in slopes.iter_mut().zip(grad_entropy) {
            slopes.entropy = entropy;
        }
    }
    let epilogue = epilogue(level, threads)?;
    let found = py.detach(|| epilogue.fused(logits, vocabulary, targets, &slopes, scale));
    Ok(columns(py, &found))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(cross_entropy_levels, module)?)?;
    module.add_function(wrap_pyfunction!(cross_entropy_statistics, module)?)?;
    module.add_function(wrap_pyfunction!(cross_entropy_fused, module)?)
}
