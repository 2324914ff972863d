//! The binding of `refinerl_kernels::cuda`. `refinerl.kernels.cuda`, its only caller, has checked the tensors whose addresses
//! it passes, keeps them alive over the call, and leaves their life on the stream to PyTorch's allocator.
#![allow(unsafe_code)] // the addresses are PyTorch's

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use refinerl_kernels::cuda::epilogue::{self, Item, Logits, Place, Results};
use refinerl_kernels::cuda::{self, Error};

/// Device number and stream.
type On = (i32, u64);

/// Type, address, rows, stride and length in items, address of the targets, scale.
type Rows<'py> = (&'py str, u64, i64, i64, i64, u64, f32);

fn place((device, stream): On) -> Place {
    Place { device, stream }
}

fn logits((item, address, rows, stride, length, targets, scale): Rows<'_>) -> PyResult<Logits> {
    let item = Item::named(item)
        .ok_or_else(|| PyValueError::new_err(format!("logits must be float32, float16 or bfloat16, got {item}")))?;
    Ok(Logits {
        item,
        address,
        rows,
        stride,
        length,
        targets,
        scale,
    })
}

fn fault(error: Error) -> PyErr {
    match error {
        Error::BadArgument(rule) => PyValueError::new_err(rule),
        other => PyRuntimeError::new_err(other.to_string()),
    }
}

/// The names of the embedded images.
#[pyfunction]
fn cuda_architectures() -> Vec<String> {
    cuda::architectures()
}

/// Major and minor compute capability of each device, the image that runs on it, and why none does.
type Device = (u32, u32, Option<String>, Option<String>);

/// The devices; RuntimeError says why there are none. Initialises the driver.
#[pyfunction]
fn cuda_devices(py: Python<'_>) -> PyResult<Vec<Device>> {
    let reports = py.detach(cuda::devices).map_err(fault)?;
    let row = |report: cuda::DeviceReport| {
        let (major, minor) = report.capability;
        match report.image {
            Ok(name) => (major, minor, Some(name), None),
            Err(error) => (major, minor, None, Some(error.to_string())),
        }
    };
    Ok(reports.into_iter().map(row).collect())
}

/// Loads the kernels on a device; a RuntimeError where they cannot run there.
#[pyfunction]
fn cuda_load(py: Python<'_>, device: i32) -> PyResult<()> {
    py.detach(|| cuda::load(device)).map_err(fault)
}

#[pyfunction]
fn cuda_statistics(py: Python<'_>, on: On, rows: Rows<'_>, nll: u64, entropy: u64) -> PyResult<()> {
    let logits = logits(rows)?;
    // SAFETY: the caller's addresses are those of tensors of the right type and size on this device.
    py.detach(|| unsafe { epilogue::statistics(place(on), &logits, Results { nll, entropy }) })
        .map_err(fault)
}

#[pyfunction]
fn cuda_fused(
    py: Python<'_>,
    on: On,
    rows: Rows<'_>,
    grad_nll: u64,
    grad_entropy: u64,
    nll: u64,
    entropy: u64,
) -> PyResult<()> {
    let logits = logits(rows)?;
    // SAFETY: as above.
    py.detach(|| unsafe { epilogue::fused(place(on), &logits, grad_nll, grad_entropy, Results { nll, entropy }) })
        .map_err(fault)
}

#[pyfunction]
fn cuda_kept_rows(py: Python<'_>, on: On, weights: u64, rows: i64, indices: u64, count: u64) -> PyResult<()> {
    // SAFETY: as above.
    py.detach(|| unsafe { epilogue::kept_rows(place(on), weights, rows, indices, count) })
        .map_err(fault)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(cuda_architectures, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_devices, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_load, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_statistics, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_fused, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_kept_rows, module)?)
}
