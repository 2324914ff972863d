//! The binding of `refinerl_kernels::cpu`. Arrays are views of PyTorch's tensors, contiguous.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use refinerl_kernels::cpu::{Epilogue, Level, Statistics, Upstream};

type Vector<'py, T = f32> = Bound<'py, PyArray1<T>>;

fn invalid(name: &str, rule: &str, value: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{name} must be {rule}, got {value}"))
}

/// Contiguous values of one argument.
macro_rules! slice {
    ($array:ident) => {
        $array
            .as_slice()
            .map_err(|_| invalid(stringify!($array), "contiguous", "a strided array"))?
    };
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

fn column<'py, T: numpy::Element>(
    py: Python<'py>,
    found: &[Statistics],
    of: impl Fn(&Statistics) -> T,
) -> Vector<'py, T> {
    found.iter().map(of).collect::<Vec<_>>().into_pyarray(py)
}

/// −log softmax of the target, entropy and log-sum-exp of each row.
#[pyfunction]
fn cross_entropy_statistics<'py>(
    py: Python<'py>,
    logits: PyReadonlyArray2<'py, f32>,
    targets: PyReadonlyArray1<'py, i64>,
    scale: f32,
    threads: usize,
) -> PyResult<(Vector<'py>, Vector<'py>, Vector<'py, f64>)> {
    let (rows, vocabulary) = (logits.shape()[0], logits.shape()[1]);
    let (logits, targets) = (slice!(logits), slice!(targets));
    check_targets(targets, (rows, vocabulary))?;
    let epilogue = Epilogue::new(Level::best(), threads);
    let found = py.detach(|| epilogue.statistics(logits, vocabulary, targets, scale));
    Ok((
        column(py, &found, |row| row.nll),
        column(py, &found, |row| row.entropy),
        column(py, &found, |row| row.logsumexp),
    ))
}

/// −log softmax of the target and entropy of each row; the gradient of Σ weights·nll is written over the logits.
#[pyfunction]
fn cross_entropy_fused<'py>(
    py: Python<'py>,
    mut logits: PyReadwriteArray2<'py, f32>,
    targets: PyReadonlyArray1<'py, i64>,
    weights: PyReadonlyArray1<'py, f32>,
    scale: f32,
    threads: usize,
) -> PyResult<(Vector<'py>, Vector<'py>)> {
    let (rows, vocabulary) = (logits.shape()[0], logits.shape()[1]);
    let logits = logits
        .as_slice_mut()
        .map_err(|_| invalid("logits", "contiguous", "a strided array"))?;
    let (targets, weights) = (slice!(targets), slice!(weights));
    check_targets(targets, (rows, vocabulary))?;
    check_rows("weights", weights, rows)?;
    let epilogue = Epilogue::new(Level::best(), threads);
    let found = py.detach(|| epilogue.fused(logits, vocabulary, targets, weights, scale));
    Ok((column(py, &found, |row| row.nll), column(py, &found, |row| row.entropy)))
}

/// The gradient of Σ grad_nll·nll + grad_entropy·entropy is written over the logits; entropy and logsumexp as the
/// statistics gave them.
#[pyfunction]
#[pyo3(signature = (logits, targets, logsumexp, entropy, grad_nll, grad_entropy, scale, threads))]
#[allow(clippy::too_many_arguments)]
fn cross_entropy_gradient<'py>(
    py: Python<'py>,
    mut logits: PyReadwriteArray2<'py, f32>,
    targets: PyReadonlyArray1<'py, i64>,
    logsumexp: PyReadonlyArray1<'py, f64>,
    entropy: PyReadonlyArray1<'py, f32>,
    grad_nll: PyReadonlyArray1<'py, f32>,
    grad_entropy: Option<PyReadonlyArray1<'py, f32>>,
    scale: f32,
    threads: usize,
) -> PyResult<()> {
    let (rows, vocabulary) = (logits.shape()[0], logits.shape()[1]);
    let logits = logits
        .as_slice_mut()
        .map_err(|_| invalid("logits", "contiguous", "a strided array"))?;
    let (targets, logsumexp, entropy, grad_nll) =
        (slice!(targets), slice!(logsumexp), slice!(entropy), slice!(grad_nll));
    check_targets(targets, (rows, vocabulary))?;
    let mut upstream = vec![0.0; rows];
    if let Some(grad_entropy) = &grad_entropy {
        let grad_entropy = slice!(grad_entropy);
        check_rows("grad_entropy", grad_entropy, rows)?;
        upstream.copy_from_slice(grad_entropy);
    }
    check_rows("logsumexp", logsumexp, rows)?;
    check_rows("entropy", entropy, rows)?;
    check_rows("grad_nll", grad_nll, rows)?;
    let upstream: Vec<_> = upstream
        .into_iter()
        .enumerate()
        .map(|(row, of_entropy)| Upstream {
            nll: grad_nll[row],
            entropy: of_entropy,
            row_entropy: entropy[row],
            logsumexp: logsumexp[row],
        })
        .collect();
    let epilogue = Epilogue::new(Level::best(), threads);
    py.detach(|| epilogue.gradient(logits, vocabulary, targets, &upstream, scale));
    Ok(())
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(cross_entropy_statistics, module)?)?;
    module.add_function(wrap_pyfunction!(cross_entropy_fused, module)?)?;
    module.add_function(wrap_pyfunction!(cross_entropy_gradient, module)?)
}
