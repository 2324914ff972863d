//! `refinerl._core`, the extension module: one file for each crate that it binds, each with its own `register`.

#![deny(unsafe_code)] // except in `integers`, and in `kernels_cuda`, whose pointers are PyTorch's

mod align;
mod integers;
mod kernels_attention;
mod kernels_cpu;
mod kernels_cuda;
mod pack;
mod sandbox;
mod sequences;

use pyo3::prelude::*;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    align::register(module)?;
    kernels_attention::register(module)?;
    kernels_cpu::register(module)?;
    kernels_cuda::register(module)?;
    pack::register(module)?;
    sandbox::register(module)
}
