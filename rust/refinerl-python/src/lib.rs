//! `refinerl._core`: what Python sees of the Rust cores. One file per face, each with its own `register`.

#![deny(unsafe_code)] // but in `integers`

mod align;
mod integers;
mod sandbox;

use pyo3::prelude::*;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    align::register(module)?;
    sandbox::register(module)
}
