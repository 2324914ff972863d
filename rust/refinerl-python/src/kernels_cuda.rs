//! The binding of `refinerl_kernels::cuda`. `refinerl.kernels.cuda`, its only caller, has checked the tensors whose
//! addresses it passes and keeps them alive during the call. PyTorch's allocator keeps their memory until the stream
//! has passed.
#![allow(unsafe_code)] // the addresses are PyTorch's

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use refinerl_kernels::cuda::epilogue::{self, Item, Logits, Place, Results};
use refinerl_kernels::cuda::{self, Error};

/// The device and the stream that a kernel runs on.
#[pyclass(frozen, module = "refinerl._core")]
struct CudaPlace(Place);

#[pymethods]
impl CudaPlace {
    #[new]
    #[pyo3(signature = (*, device, stream))]
    fn new(device: i32, stream: u64) -> Self {
        Self(Place { device, stream })
    }
}

/// Rows of logits and their targets. Addresses are in bytes, `stride` and `length` in items.
#[pyclass(frozen, module = "refinerl._core")]
struct CudaLogits(Logits);

#[pymethods]
impl CudaLogits {
    #[new]
    #[pyo3(signature = (*, item, address, rows, stride, length, targets, scale))]
    fn new(item: &str, address: u64, rows: i64, stride: i64, length: i64, targets: u64, scale: f32) -> PyResult<Self> {
        let item = Item::named(item)
            .ok_or_else(|| PyValueError::new_err(format!("logits must be float32, float16 or bfloat16, got {item}")))?;
        Ok(Self(Logits {
            item,
            address,
            rows,
            stride,
            length,
            targets,
            scale,
        }))
    }
}

fn fault(error: Error) -> PyErr {
    match error {
        Error::BadArgument(rule) => PyValueError::new_err(rule),
        other => PyRuntimeError::new_err(other.to_string()),
    }
}

/// List the names of the embedded images.
#[pyfunction]
fn cuda_architectures() -> Vec<String> {
    cuda::architectures()
}

/// A CUDA device of this process.
#[pyclass(frozen, get_all, module = "refinerl._core")]
struct CudaDevice {
    capability: (u32, u32),
    image: Option<String>,
    reason: Option<String>,
}

/// List the CUDA devices; a RuntimeError says why there are none. Initialises the driver.
#[pyfunction]
fn cuda_devices(py: Python<'_>) -> PyResult<Vec<CudaDevice>> {
    let reports = py.detach(cuda::devices).map_err(fault)?;
    let device = |report: cuda::DeviceReport| {
        let (image, reason) = match report.image {
            Ok(name) => (Some(name), None),
            Err(error) => (None, Some(error.to_string())),
        };
        CudaDevice {
            capability: report.capability,
            image,
            reason,
        }
    };
    Ok(reports.into_iter().map(device).collect())
}

/// Load the kernels on a device; a RuntimeError says why they cannot run there.
#[pyfunction]
fn cuda_load(py: Python<'_>, device: i32) -> PyResult<()> {
    py.detach(|| cuda::load(device)).map_err(fault)
}

#[pyfunction]
#[pyo3(signature = (place, logits, *, nll, entropy))]
fn cuda_statistics(py: Python<'_>, place: &CudaPlace, logits: &CudaLogits, nll: u64, entropy: u64) -> PyResult<()> {
    // SAFETY: the caller's addresses are those of tensors of the right type and size on this device.
    py.detach(|| unsafe { epilogue::statistics(place.0, &logits.0, Results { nll, entropy }) })
        .map_err(fault)
}

#[pyfunction]
#[pyo3(signature = (place, logits, *, grad_nll, grad_entropy, nll, entropy))]
fn cuda_fused(
    py: Python<'_>,
    place: &CudaPlace,
    logits: &CudaLogits,
    grad_nll: u64,
    grad_entropy: u64,
    nll: u64,
    entropy: u64,
) -> PyResult<()> {
    let results = Results { nll, entropy };
    // SAFETY: as above.
    py.detach(|| unsafe { epilogue::fused(place.0, &logits.0, grad_nll, grad_entropy, results) })
        .map_err(fault)
}

#[pyfunction]
#[pyo3(signature = (place, *, weights, rows, indices, count))]
fn cuda_kept_rows(
    py: Python<'_>,
    place: &CudaPlace,
    weights: u64,
    rows: i64,
    indices: u64,
    count: u64,
) -> PyResult<()> {
    // SAFETY: as above.
    py.detach(|| unsafe { epilogue::kept_rows(place.0, weights, rows, indices, count) })
        .map_err(fault)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CudaPlace>()?;
    module.add_class::<CudaLogits>()?;
    module.add_class::<CudaDevice>()?;
    module.add_function(wrap_pyfunction!(cuda_architectures, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_devices, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_load, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_statistics, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_fused, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_kept_rows, module)?)
}
