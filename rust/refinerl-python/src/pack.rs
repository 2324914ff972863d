//! The binding of `refinerl-pack`. `refinerl.kernels.prefixes` is its only caller.

use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use refinerl_pack as core;

type Array<'py> = Bound<'py, PyArray1<i64>>;

/// The arrays of a tree, in the order of the fields of `core::Tree`.
type Tree<'py> = (
    Array<'py>,
    Array<'py>,
    Array<'py>,
    Array<'py>,
    Array<'py>,
    Array<'py>,
    Array<'py>,
    Bound<'py, PyArray2<i64>>,
);

fn rows<'a>(ids: &'a PyReadonlyArray2<'_, i64>, lengths: &'a PyReadonlyArray1<'_, i64>) -> PyResult<core::Rows<'a>> {
    let [count, width] = [ids.shape()[0], ids.shape()[1]];
    core::Rows::new(ids.as_slice()?, lengths.as_slice()?, width).ok_or_else(|| {
        let got = lengths.as_slice().map(<[i64]>::to_vec).unwrap_or_default();
        PyValueError::new_err(format!(
            "lengths must be {count} numbers from 0 to {width}, got {got:?}"
        ))
    })
}

/// Sort rows so that each shares most with the one before it. Returns their indices, and the tokens shared.
#[pyfunction]
fn prefix_order<'py>(
    py: Python<'py>,
    ids: PyReadonlyArray2<'py, i64>,
    lengths: PyReadonlyArray1<'py, i64>,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let rows = rows(&ids, &lengths)?;
    let found = py.detach(|| core::order(rows));
    Ok((found.rows.into_pyarray(py), found.shared.into_pyarray(py)))
}

/// Make the tree of rows.
#[pyfunction]
fn prefix_tree<'py>(
    py: Python<'py>,
    ids: PyReadonlyArray2<'py, i64>,
    lengths: PyReadonlyArray1<'py, i64>,
) -> PyResult<Tree<'py>> {
    let rows = rows(&ids, &lengths)?;
    let found = py.detach(|| core::tree(rows));
    Ok((
        found.ids.into_pyarray(py),
        found.positions.into_pyarray(py),
        found.parents.into_pyarray(py),
        found.sub_end.into_pyarray(py),
        found.starts.into_pyarray(py),
        found.keys.into_pyarray(py),
        found.key_starts.into_pyarray(py),
        found.slots.into_pyarray(py).reshape([rows.len(), rows.width()])?,
    ))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(prefix_order, module)?)?;
    module.add_function(wrap_pyfunction!(prefix_tree, module)?)
}
